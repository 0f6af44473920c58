/* The pools' slow paths: the first object of a thread, the end of a thread, and
 * lists that are empty or full. */
#include "engine/core/pool.h"

#include "engine/core/engine.h"
#include "engine/core/sanitize.h"

#include <pthread.h>
#include <stdlib.h>

enum { POOL_LIMIT = 4096 };

_Thread_local Pool pool_of_thread;

static pthread_key_t thread_end_key;
static pthread_once_t thread_end_once = PTHREAD_ONCE_INIT;

static void thread_end(void *pool_pointer) {
    Pool *pool = pool_pointer;
    pool->ended = 1;
    pool->limit = 0;
    for (int kind = 0; kind < POOL_KINDS; kind++) {
        while (pool->free[kind]) {
            PoolLink *object = pool->free[kind];
            pool->free[kind] = object->next;
            free(object);
        }
        pool->count[kind] = 0;
    }
}

static void thread_end_setup(void) {
    pthread_key_create(&thread_end_key, thread_end);
}

/* From now on this thread keeps what it gives back. */
static void thread_register(void) {
    if (SANITIZE_ADDRESS || pool_of_thread.limit || pool_of_thread.ended) return;
    pthread_once(&thread_end_once, thread_end_setup);
    if (pthread_setspecific(thread_end_key, &pool_of_thread) == 0)
        pool_of_thread.limit = POOL_LIMIT;
}

void *pool_take_slow(PoolKind kind) {
    static const size_t bytes[POOL_KINDS] = {
        [POOL_NODE] = sizeof(Node), [POOL_HANDLE] = 2 * sizeof(void *)};
    thread_register();
    return base_alloc(bytes[kind]);
}

void pool_give_slow(PoolKind kind, void *object) {
    thread_register();
    if (pool_of_thread.count[kind] < pool_of_thread.limit) {
        pool_give(kind, object);
        return;
    }
    free(object);
}
