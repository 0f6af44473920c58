/* The thread pool of the process. One parallel loop runs at a time, cut into
 * slices by its sizes alone, so results do not depend on timing; which thread
 * runs a slice does. A thread takes the next slice when it is free: one that the
 * system keeps waiting (a busy machine, a slower core) holds up nobody but the
 * slice it has begun. Workers spin for a short while after a loop, because a
 * decode step starts hundreds of them in a row, and then sleep. */
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
    size_t items;
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

/* A ticket says which loop, how many slices it has and which comes next. Taking
 * a slice is one compare-and-swap on all three, so a thread that wakes late
 * cannot take a slice of one loop with the body of another: the caller does not
 * go on before every slice taken is done. */
enum { SLICE_BITS = 16 };
static inline uint64_t ticket_of(uint64_t loop, uint64_t slices) {
    return loop << (2 * SLICE_BITS) | slices << SLICE_BITS;
}
static inline uint64_t ticket_loop(uint64_t ticket) {
    return ticket >> (2 * SLICE_BITS);
}
static inline uint32_t ticket_slices(uint64_t ticket) {
    return (uint32_t)(ticket >> SLICE_BITS) & 0xFFFF;
}
static inline uint32_t ticket_next(uint64_t ticket) {
    return (uint32_t)ticket & 0xFFFF;
}

/* Runs slices of the loop in work until none is left to begin. */
static void run_slices(int thread) {
    uint64_t ticket = atomic_load_explicit(&pool.ticket, memory_order_acquire);
    while (ticket_next(ticket) < ticket_slices(ticket)) {
        if (!atomic_compare_exchange_weak_explicit(&pool.ticket, &ticket, ticket + 1,
                                                   memory_order_acq_rel, memory_order_acquire))
            continue;
        const size_t slices = ticket_slices(ticket), index = ticket_next(ticket);
        const size_t each = pool.items / slices, extra = pool.items % slices;
        const size_t begin = index * each + BASE_MIN(index, extra);
        pool.body(pool.context, begin, begin + each + (index < extra ? 1 : 0), thread);
        atomic_fetch_add_explicit(&pool.done, 1, memory_order_release);
        ticket = atomic_load_explicit(&pool.ticket, memory_order_acquire);
    }
}

/* Waits until a loop after `seen` begins: spins, then sleeps. */
static uint64_t next_loop(uint64_t seen) {
    uint64_t now = ticket_loop(atomic_load_explicit(&pool.ticket, memory_order_acquire));
    for (double start = base_now(); now == seen && base_now() - start < spin_seconds;) {
        for (int i = 0; i < 32 && now == seen; i++) {
            relax();
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
    for (uint64_t seen = 0;;) {
        seen = next_loop(seen);
        if (pool.stop) return NULL;
        run_slices(thread);
    }
}

/* Begins the next loop. The owner lock is held. A worker that counts itself
 * asleep after this has looked sees the new ticket before it waits. */
static void announce(uint32_t slices) {
    const uint64_t loop = ticket_loop(atomic_load_explicit(&pool.ticket, memory_order_relaxed)) + 1;
    atomic_store_explicit(&pool.done, 0, memory_order_relaxed);
    atomic_store(&pool.ticket, ticket_of(loop & UINT32_MAX, slices));
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
    announce((uint32_t)slices);
    run_slices(0);
    for (int spins = 0; atomic_load_explicit(&pool.done, memory_order_acquire) < slices; spins++) {
        relax();
        if (spins > 4096) sched_yield();
    }
    inside_loop = false;
    pthread_mutex_unlock(&pool.owner);
}
