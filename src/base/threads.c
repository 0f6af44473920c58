/* The thread pool of the process. One parallel loop runs at a time; its slices
 * are static, so results do not depend on timing. Workers spin for a short
 * while after a loop, because a decode step starts hundreds of them in a row,
 * and then sleep. */
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
    int sleeping;
    bool stop;
    _Atomic uint64_t generation;
    _Atomic int remaining;
    ParallelBody body;
    void *context;
    size_t items;
    int slices;
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

static void run_slice(int thread) {
    size_t slices = (size_t)pool.slices, index = (size_t)thread;
    size_t each = pool.items / slices, extra = pool.items % slices;
    size_t begin = index * each + BASE_MIN(index, extra);
    size_t end = begin + each + (index < extra ? 1 : 0);
    if (begin < end) pool.body(pool.context, begin, end, thread);
}

/* Waits until the generation moves past `seen`: spins, then sleeps. */
static uint64_t next_generation(uint64_t seen) {
    uint64_t now = atomic_load_explicit(&pool.generation, memory_order_acquire);
    for (double start = base_now(); now == seen && base_now() - start < spin_seconds;) {
        for (int i = 0; i < 32 && now == seen; i++) {
            relax();
            now = atomic_load_explicit(&pool.generation, memory_order_acquire);
        }
    }
    if (now != seen) return now;
    pthread_mutex_lock(&pool.lock);
    pool.sleeping++;
    while ((now = atomic_load(&pool.generation)) == seen) pthread_cond_wait(&pool.wake, &pool.lock);
    pool.sleeping--;
    pthread_mutex_unlock(&pool.lock);
    return now;
}

static void *work(void *argument) {
    int thread = (int)(intptr_t)argument;
    inside_loop = true;
    uint64_t seen = 0;
    for (;;) {
        seen = next_generation(seen);
        if (pool.stop) return NULL;
        if (thread < pool.slices) run_slice(thread);
        atomic_fetch_sub_explicit(&pool.remaining, 1, memory_order_acq_rel);
    }
}

/* The owner lock is held. */
static void announce(void) {
    atomic_store_explicit(&pool.remaining, pool.count - 1, memory_order_relaxed);
    atomic_fetch_add(&pool.generation, 1);
    pthread_mutex_lock(&pool.lock);
    if (pool.sleeping) pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
}

static void stop_workers(void) {
    if (pool.count <= 1) return;
    pool.stop = true;
    announce();
    for (int i = 1; i < pool.count; i++) pthread_join(pool.workers[i], NULL);
    pool.stop = false;
    pool.count = 0;
    atomic_store(&pool.generation, 0);
}

/* A forked child has only the thread that forked: it starts its own pool. */
static void forget_workers(void) {
    pool.count = 0;
    pool.sleeping = 0;
    atomic_store(&pool.generation, 0);
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

void base_parallel_for(size_t count, size_t grain, ParallelBody body, void *context) {
    if (count == 0) return;
    size_t slices = grain > 1 ? count / grain : count;
    int threads = base_threads();
    if (slices > (size_t)threads) slices = (size_t)threads;
    if (slices <= 1 || inside_loop || pthread_mutex_trylock(&pool.owner) != 0) {
        body(context, 0, count, 0);
        return;
    }
    inside_loop = true;
    start_workers(threads);
    pool.body = body;
    pool.context = context;
    pool.items = count;
    pool.slices = (int)BASE_MIN(slices, (size_t)pool.count);
    announce();
    run_slice(0);
    for (int spins = 0; atomic_load_explicit(&pool.remaining, memory_order_acquire) > 0; spins++) {
        relax();
        if (spins > 4096) sched_yield();
    }
    inside_loop = false;
    pthread_mutex_unlock(&pool.owner);
}
