/* The thread pool of the process. One parallel loop runs at a time, cut into
 * slices by its sizes alone, so results do not depend on timing; which thread
 * runs a slice does. A thread has a lane of neighbouring slices and takes them in
 * order, so that what it reads goes on where it was; with its lane empty it takes
 * from the ends of the others': one that the system keeps waiting (a busy machine,
 * a slower core) holds up nobody but the slice it has begun. Workers spin for a
 * short while after a loop, because a decode step starts hundreds of them in a
 * row, and then sleep; while a thread spins it fetches what its lane of the next
 * loop was announced to read. */
#include "base/base.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { MAX_THREADS = 256 };
/* Spinning covers the gap between two loops of one step (microseconds) and no
 * more: a spinning worker takes a processor from somebody else. */
static const double spin_seconds = 50e-6;

/* The slices that a lane has left, in one word: see ticket_of. */
typedef struct Lane {
    _Alignas(128) _Atomic uint64_t ticket;
} Lane;

/* How far a waiting thread has fetched: `step` of [step, end), counted through the
 * entries. Steps are small, so that a loop that begins is not kept waiting. */
typedef struct Fetch {
    uint32_t version;
    size_t step, end, budget;
    uintptr_t data[PARALLEL_READS][3];
    size_t bytes[PARALLEL_READS][3], steps[PARALLEL_READS];
} Fetch;
enum { LINE = 64, STEP_BYTES = 16 * LINE };

typedef struct Pool {
    int count, asked; /* threads of a loop, the caller included: got, asked for */
    pthread_t workers[MAX_THREADS];
    pthread_mutex_t lock;
    pthread_cond_t wake;
    _Atomic bool owned; /* by the caller of the loop in work */
    _Atomic int sleeping;
    _Atomic bool stop;
    _Atomic uint32_t loop; /* begun so far */
    _Atomic uint32_t done; /* finished slices of the last */
    _Atomic int n_lanes;
    Lane lanes[MAX_THREADS];
    ParallelBody body;
    void *context;
    size_t items, slices;
    Fetch fetch; /* the caller's */
    struct {     /* announced by base_parallel_expect, read while it may change */
        _Alignas(128) _Atomic uint32_t version;
        _Atomic uintptr_t data[PARALLEL_READS][3];
        _Atomic size_t bytes[PARALLEL_READS][3];
    } expected;
} Pool;

static Pool pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};
static _Atomic int wanted_threads;
static _Thread_local bool inside_loop;

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Half the second-level cache: what is fetched ahead must still be there when
 * its loop begins. */
static size_t fetch_budget(void) {
    long bytes = 0;
#ifdef _SC_LEVEL2_CACHE_SIZE
    static _Atomic long known;
    bytes = known;
    if (bytes == 0) known = bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
    return bytes > 0 ? (size_t)bytes / 2 : 256 * 1024;
}

static int default_threads(void) {
    const char *text = getenv("MLX_RAG_THREADS");
    long count = text ? strtol(text, NULL, 10) : 0;
    if (count <= 0) {
        count = sysconf(_SC_NPROCESSORS_ONLN);
#ifdef __linux__
        cpu_set_t allowed;
        if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) count = CPU_COUNT(&allowed);
#endif
    }
    return (int)(count < 1 ? 1 : count > MAX_THREADS ? MAX_THREADS : count);
}

int base_threads(void) {
    int count = wanted_threads;
    if (count == 0) {
        int fresh = default_threads(), none = 0;
        atomic_compare_exchange_strong(&wanted_threads, &none, fresh);
        count = wanted_threads;
    }
    return count;
}

/* A ticket says of which loop a lane is and which of its slices are left. Taking
 * one is one compare-and-swap on all three, so a thread that wakes late cannot take
 * a slice of one loop with the body of another: the caller does not go on before
 * every slice taken is done. */
enum { SLICE_BITS = 16 };
static inline uint64_t ticket_of(uint32_t loop, uint64_t first, uint64_t end) {
    return (uint64_t)loop << (2 * SLICE_BITS) | end << SLICE_BITS | first;
}
static inline uint32_t ticket_loop(uint64_t ticket) {
    return (uint32_t)(ticket >> (2 * SLICE_BITS));
}
static inline uint64_t ticket_end(uint64_t ticket) {
    return (ticket >> SLICE_BITS) & 0xFFFF;
}
static inline uint64_t ticket_first(uint64_t ticket) {
    return ticket & 0xFFFF;
}

/* Where part number `part` of `parts` of [0, total) begins; the first parts are the
 * larger ones. */
static size_t part_begin(size_t total, size_t part, size_t parts) {
    return part * (total / parts) + BASE_MIN(part, total % parts);
}

/* Takes the lane's first slice, or its last. False: none is left. */
static bool take_slice(Lane *lane, bool first, size_t *index) {
    uint64_t ticket = atomic_load_explicit(&lane->ticket, memory_order_acquire), left;
    do {
        const uint64_t from = ticket_first(ticket), end = ticket_end(ticket);
        if (from >= end) return false;
        *index = first ? from : end - 1;
        left = ticket_of(ticket_loop(ticket), from + first, end - !first);
    } while (!atomic_compare_exchange_weak_explicit(&lane->ticket, &ticket, left,
                                                    memory_order_acq_rel, memory_order_acquire));
    return true;
}

/* Runs slices of the loop in work until none is left to begin. */
static void run_slices(int thread) {
    const int lanes = atomic_load_explicit(&pool.n_lanes, memory_order_acquire);
    size_t index;
    for (int i = 0; i < lanes; i++) {
        while (take_slice(&pool.lanes[(thread + i) % lanes], i == 0, &index)) {
            pool.body(pool.context, part_begin(pool.items, index, pool.slices),
                      part_begin(pool.items, index + 1, pool.slices), thread);
            atomic_fetch_add_explicit(&pool.done, 1, memory_order_release);
        }
    }
}

void base_parallel_expect(const ParallelReads *reads, size_t count) {
    for (size_t i = 0; i < PARALLEL_READS; i++) {
        for (int j = 0; j < 3; j++) {
            const bool there = i < count && reads[i].data[j];
            atomic_store_explicit(&pool.expected.data[i][j],
                                  there ? (uintptr_t)reads[i].data[j] : 0, memory_order_relaxed);
            atomic_store_explicit(&pool.expected.bytes[i][j], there ? reads[i].bytes[j] : 0,
                                  memory_order_relaxed);
        }
    }
    atomic_fetch_add_explicit(&pool.expected.version, 1, memory_order_release);
}

/* What the thread's lane of the announced loop begins with. */
static void fetch_begin(Fetch *fetch, uint32_t version, int thread) {
    size_t total = 0;
    for (int i = 0; i < PARALLEL_READS; i++) {
        size_t bytes = 0;
        for (int j = 0; j < 3; j++) {
            fetch->data[i][j] =
                atomic_load_explicit(&pool.expected.data[i][j], memory_order_relaxed);
            bytes += fetch->bytes[i][j] =
                atomic_load_explicit(&pool.expected.bytes[i][j], memory_order_relaxed);
        }
        total += fetch->steps[i] = (bytes + STEP_BYTES - 1) / STEP_BYTES;
    }
    const size_t lanes = (size_t)base_threads(), lane = (size_t)thread;
    fetch->version = version;
    fetch->budget = fetch_budget();
    fetch->step = part_begin(total, lane, lanes);
    fetch->end = BASE_MIN(part_begin(total, lane + 1, lanes), total);
}

/* Fetches part `step` of `steps` of data[0..bytes). */
static size_t fetch_part(uintptr_t data, size_t bytes, size_t step, size_t steps) {
    const size_t each = bytes / steps + 1, before = BASE_MIN(bytes, step * each);
    const uintptr_t begin = data + before, end = begin + BASE_MIN(each, bytes - before);
    for (uintptr_t at = begin & ~(uintptr_t)(LINE - 1); at < end; at += LINE)
        __builtin_prefetch((const void *)at, 0, 2);
    return end - begin;
}

/* One step more. False: nothing is left to fetch. */
static bool fetch_some(Fetch *fetch, int thread) {
    const uint32_t version = atomic_load_explicit(&pool.expected.version, memory_order_acquire);
    if (version != fetch->version) fetch_begin(fetch, version, thread);
    if (fetch->budget == 0 || fetch->step >= fetch->end) return false;
    size_t step = fetch->step++, entry = 0, fetched = 0;
    while (step >= fetch->steps[entry]) step -= fetch->steps[entry++];
    for (int j = 0; j < 3; j++)
        fetched +=
            fetch_part(fetch->data[entry][j], fetch->bytes[entry][j], step, fetch->steps[entry]);
    fetch->budget -= BASE_MIN(fetch->budget, fetched);
    return true;
}

/* Waits until a loop after `seen` begins: spins, then sleeps. */
static uint32_t next_loop(uint32_t seen, int thread, Fetch *fetch) {
    uint32_t now = atomic_load_explicit(&pool.loop, memory_order_acquire);
    for (double start = base_now(); now == seen && base_now() - start < spin_seconds;) {
        for (int i = 0; i < 32 && now == seen; i++) {
            if (!fetch_some(fetch, thread)) relax();
            now = atomic_load_explicit(&pool.loop, memory_order_acquire);
        }
    }
    if (now != seen) return now;
    pthread_mutex_lock(&pool.lock);
    atomic_fetch_add(&pool.sleeping, 1);
    while ((now = atomic_load(&pool.loop)) == seen) pthread_cond_wait(&pool.wake, &pool.lock);
    atomic_fetch_sub(&pool.sleeping, 1);
    pthread_mutex_unlock(&pool.lock);
    return now;
}

static void *work(void *argument) {
    const int thread = (int)(intptr_t)argument;
    inside_loop = true;
    Fetch fetch = {0};
    for (uint32_t seen = 0;;) {
        seen = next_loop(seen, thread, &fetch);
        if (pool.stop) return NULL;
        run_slices(thread);
    }
}

/* Begins the next loop. The pool is owned. A worker that counts itself
 * asleep after this has looked sees the new loop before it waits. */
static void announce(size_t slices) {
    const uint32_t loop = atomic_load_explicit(&pool.loop, memory_order_relaxed) + 1;
    const size_t lanes = (size_t)pool.count;
    atomic_store_explicit(&pool.done, 0, memory_order_relaxed);
    atomic_store_explicit(&pool.n_lanes, pool.count, memory_order_relaxed);
    for (size_t i = 0; i < lanes; i++)
        atomic_store_explicit(
            &pool.lanes[i].ticket,
            ticket_of(loop, part_begin(slices, i, lanes), part_begin(slices, i + 1, lanes)),
            memory_order_release);
    atomic_store(&pool.loop, loop);
    if (atomic_load(&pool.sleeping) == 0) return;
    pthread_mutex_lock(&pool.lock);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
}

static void stop_workers(void) {
    if (pool.count <= 1) return;
    pool.stop = true;
    announce(0);
    for (int i = 1; i < pool.count; i++) pthread_join(pool.workers[i], NULL);
    pool.stop = false;
    pool.count = 0;
    atomic_store(&pool.loop, 0);
}

/* A forked child has only the thread that forked: it starts its own pool. */
static void forget_workers(void) {
    pool.count = 0;
    atomic_store(&pool.sleeping, 0);
    atomic_store(&pool.loop, 0);
    pthread_mutex_init(&pool.lock, NULL);
    atomic_store(&pool.owned, false);
    pthread_cond_init(&pool.wake, NULL);
    inside_loop = false;
}

static void watch_forks(void) {
    pthread_atfork(NULL, NULL, forget_workers);
}

/* The pool is owned. A system that gives fewer threads than asked for
 * still works, with those. */
static void start_workers(int count) {
    static pthread_once_t watching = PTHREAD_ONCE_INIT;
    if (pool.count && pool.asked == count) return;
    pthread_once(&watching, watch_forks);
    stop_workers();
    pool.asked = count;
    pool.count = 1;
    while (pool.count < count &&
           pthread_create(&pool.workers[pool.count], NULL, work, (void *)(intptr_t)pool.count) == 0)
        pool.count++;
}

void base_threads_set(int count) {
    wanted_threads = count < 1 ? 1 : count > MAX_THREADS ? MAX_THREADS : count;
}

/* More slices than threads, so that the last to finish is not far behind; fewer
 * where taking one would be contended. */
static size_t most_slices(int threads) {
    return (size_t)threads * (threads <= 8 ? 4 : 2);
}

void base_parallel_for(size_t count, size_t grain, ParallelBody body, void *context) {
    if (count == 0) return;
    const int threads = base_threads();
    const size_t slices = BASE_MIN(grain > 1 ? count / grain : count, most_slices(threads));
    if (threads <= 1 || slices <= 1 || inside_loop ||
        atomic_exchange_explicit(&pool.owned, true, memory_order_acquire)) {
        body(context, 0, count, 0);
        return;
    }
    inside_loop = true;
    start_workers(threads);
    pool.body = body;
    pool.context = context;
    pool.items = count;
    pool.slices = slices;
    announce(slices);
    run_slices(0);
    for (int spins = 0; atomic_load_explicit(&pool.done, memory_order_acquire) < slices; spins++) {
        if (!fetch_some(&pool.fetch, 0)) relax();
        if (spins > 4096) sched_yield();
    }
    inside_loop = false;
    atomic_store_explicit(&pool.owned, false, memory_order_release);
}
