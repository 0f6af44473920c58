/* The thread pool of the process. One parallel loop runs at a time, cut into
 * slices by its sizes alone, so results do not depend on timing; which thread
 * runs a slice does. A thread takes the next slice when it is free: one that the
 * system keeps waiting (a busy machine, a slower core) holds up nobody but the
 * slice it has begun. The caller takes slices from the front, workers from the
 * back. Workers spin for a short while after a loop, because a decode step starts
 * hundreds of them in a row, and then sleep; while they spin they fetch what the
 * next loop was announced to read. */
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

typedef struct Pool {
    int count, asked; /* threads of a loop, the caller included: got, asked for */
    pthread_t workers[MAX_THREADS];
    pthread_mutex_t lock, owner;
    pthread_cond_t wake;
    _Atomic int sleeping;
    _Atomic bool stop;
    _Atomic uint64_t ticket; /* of the loop in work: see ticket_of */
    _Atomic uint32_t done;   /* its finished slices */
    ParallelBody body;
    void *context;
    size_t items, slices;
    struct { /* announced by base_parallel_expect, read while it may change */
        _Alignas(128) _Atomic uint32_t version;
        _Atomic uintptr_t data[PARALLEL_READS][3];
        _Atomic size_t bytes[PARALLEL_READS][3];
    } expected;
} Pool;

static Pool pool = {.lock = PTHREAD_MUTEX_INITIALIZER,
                    .owner = PTHREAD_MUTEX_INITIALIZER,
                    .wake = PTHREAD_COND_INITIALIZER};
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

/* A ticket says which loop and which of its slices are left. Taking a slice is
 * one compare-and-swap on all three, so a thread that wakes late cannot take a
 * slice of one loop with the body of another: the caller does not go on before
 * every slice taken is done. */
enum { SLICE_BITS = 16 };
static inline uint64_t ticket_of(uint64_t loop, uint64_t first, uint64_t end) {
    return loop << (2 * SLICE_BITS) | end << SLICE_BITS | first;
}
static inline uint64_t ticket_loop(uint64_t ticket) {
    return ticket >> (2 * SLICE_BITS);
}
static inline uint32_t ticket_end(uint64_t ticket) {
    return (uint32_t)(ticket >> SLICE_BITS) & 0xFFFF;
}
static inline uint32_t ticket_first(uint64_t ticket) {
    return (uint32_t)ticket & 0xFFFF;
}

/* Runs slices of the loop in work until none is left to begin. */
static void run_slices(int thread) {
    uint64_t ticket = atomic_load_explicit(&pool.ticket, memory_order_acquire);
    while (ticket_first(ticket) < ticket_end(ticket)) {
        const uint64_t first = ticket_first(ticket), end = ticket_end(ticket);
        const uint64_t left = thread ? ticket_of(ticket_loop(ticket), first, end - 1)
                                     : ticket_of(ticket_loop(ticket), first + 1, end);
        if (!atomic_compare_exchange_weak_explicit(&pool.ticket, &ticket, left,
                                                   memory_order_acq_rel, memory_order_acquire))
            continue;
        const size_t index = thread ? end - 1 : first;
        const size_t each = pool.items / pool.slices, extra = pool.items % pool.slices;
        const size_t begin = index * each + BASE_MIN(index, extra);
        pool.body(pool.context, begin, begin + each + (index < extra ? 1 : 0), thread);
        atomic_fetch_add_explicit(&pool.done, 1, memory_order_release);
        ticket = atomic_load_explicit(&pool.ticket, memory_order_acquire);
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

/* How far a waiting thread has fetched: `step` of `steps` of an entry, which it
 * has copied. Steps are small, so that a loop that begins is not kept waiting. */
typedef struct Fetch {
    uint32_t version;
    int entry; /* the entries before it are to come */
    size_t step, steps, budget;
    uintptr_t data[3];
    size_t bytes[3];
} Fetch;
enum { LINE = 64, STEP_BYTES = 16 * LINE };

/* Fetches the part of data[0..bytes) that is `step` of `steps` from the end. */
static size_t fetch_part(uintptr_t data, size_t bytes, size_t step, size_t steps) {
    const size_t each = bytes / steps + 1, behind = BASE_MIN(bytes, step * each);
    const uintptr_t end = data + bytes - behind;
    const uintptr_t begin = end - BASE_MIN(each, bytes - behind);
    for (uintptr_t at = begin & ~(uintptr_t)(LINE - 1); at < end; at += LINE)
        __builtin_prefetch((const void *)at, 0, 2);
    return end - begin;
}

static void fetch_next_entry(Fetch *fetch) {
    size_t total = 0;
    fetch->entry--;
    for (int j = 0; j < 3; j++) {
        fetch->data[j] =
            atomic_load_explicit(&pool.expected.data[fetch->entry][j], memory_order_relaxed);
        fetch->bytes[j] =
            atomic_load_explicit(&pool.expected.bytes[fetch->entry][j], memory_order_relaxed);
        total += fetch->bytes[j];
    }
    fetch->step = 0;
    fetch->steps = (total + STEP_BYTES - 1) / STEP_BYTES;
}

/* One step more. False: nothing is left to fetch. */
static bool fetch_some(Fetch *fetch) {
    const uint32_t version = atomic_load_explicit(&pool.expected.version, memory_order_acquire);
    if (version != fetch->version)
        *fetch = (Fetch){.version = version, .entry = PARALLEL_READS, .budget = fetch_budget()};
    if (fetch->budget == 0) return false;
    while (fetch->step == fetch->steps) {
        if (fetch->entry == 0) return false;
        fetch_next_entry(fetch);
    }
    size_t fetched = 0;
    for (int j = 0; j < 3; j++)
        fetched += fetch_part(fetch->data[j], fetch->bytes[j], fetch->step, fetch->steps);
    fetch->step++;
    fetch->budget -= BASE_MIN(fetch->budget, fetched);
    return true;
}

/* Waits until a loop after `seen` begins: spins, then sleeps. */
static uint64_t next_loop(uint64_t seen, Fetch *fetch) {
    uint64_t now = ticket_loop(atomic_load_explicit(&pool.ticket, memory_order_acquire));
    for (double start = base_now(); now == seen && base_now() - start < spin_seconds;) {
        for (int i = 0; i < 32 && now == seen; i++) {
            if (!fetch_some(fetch)) relax();
            now = ticket_loop(atomic_load_explicit(&pool.ticket, memory_order_acquire));
        }
    }
    if (now != seen) return now;
    pthread_mutex_lock(&pool.lock);
    atomic_fetch_add(&pool.sleeping, 1);
    while ((now = ticket_loop(atomic_load(&pool.ticket))) == seen)
        pthread_cond_wait(&pool.wake, &pool.lock);
    atomic_fetch_sub(&pool.sleeping, 1);
    pthread_mutex_unlock(&pool.lock);
    return now;
}

static void *work(void *argument) {
    const int thread = (int)(intptr_t)argument;
    inside_loop = true;
    Fetch fetch = {0};
    for (uint64_t seen = 0;;) {
        seen = next_loop(seen, &fetch);
        if (pool.stop) return NULL;
        run_slices(thread);
    }
}

/* Begins the next loop. The owner lock is held. A worker that counts itself
 * asleep after this has looked sees the new ticket before it waits. */
static void announce(uint32_t slices) {
    const uint64_t loop = ticket_loop(atomic_load_explicit(&pool.ticket, memory_order_relaxed)) + 1;
    atomic_store_explicit(&pool.done, 0, memory_order_relaxed);
    atomic_store(&pool.ticket, ticket_of(loop & UINT32_MAX, 0, slices));
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
    atomic_store(&pool.ticket, 0);
}

/* A forked child has only the thread that forked: it starts its own pool. */
static void forget_workers(void) {
    pool.count = 0;
    atomic_store(&pool.sleeping, 0);
    atomic_store(&pool.ticket, 0);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_mutex_init(&pool.owner, NULL);
    pthread_cond_init(&pool.wake, NULL);
    inside_loop = false;
}

static void watch_forks(void) {
    pthread_atfork(NULL, NULL, forget_workers);
}

/* The owner lock is held. A system that gives fewer threads than asked for
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
    if (threads <= 1 || slices <= 1 || inside_loop || pthread_mutex_trylock(&pool.owner) != 0) {
        body(context, 0, count, 0);
        return;
    }
    inside_loop = true;
    start_workers(threads);
    pool.body = body;
    pool.context = context;
    pool.items = count;
    pool.slices = slices;
    announce((uint32_t)slices);
    run_slices(0);
    for (int spins = 0; atomic_load_explicit(&pool.done, memory_order_acquire) < slices; spins++) {
        relax();
        if (spins > 4096) sched_yield();
    }
    inside_loop = false;
    pthread_mutex_unlock(&pool.owner);
}
