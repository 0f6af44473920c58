/* Objects of one size that come and go with every operation: nodes and handles.
 *
 * Each thread keeps the ones it gave back on a short list of its own, so that
 * taking one costs a few instructions and no lock. The list is freed with the
 * thread. Under the address sanitizer every object is a fresh allocation, so
 * that uses after free are seen. */
#ifndef ENGINE_CORE_POOL_H
#define ENGINE_CORE_POOL_H

#include <stddef.h>
#include <stdint.h>

typedef enum { POOL_NODE, POOL_HANDLE, POOL_KINDS } PoolKind;

typedef struct PoolLink {
    struct PoolLink *next;
} PoolLink;

typedef struct Pool {
    PoolLink *free[POOL_KINDS];
    uint32_t count[POOL_KINDS];
    uint32_t limit; /* 0 until the thread registered, and again when it ends */
    int ended;
} Pool;

extern _Thread_local Pool pool_of_thread;

void *pool_take_slow(PoolKind kind);
void pool_give_slow(PoolKind kind, void *object);

static inline void *pool_take(PoolKind kind) {
    PoolLink *object = pool_of_thread.free[kind];
    if (!object) return pool_take_slow(kind);
    pool_of_thread.free[kind] = object->next;
    pool_of_thread.count[kind]--;
    return object;
}

static inline void pool_give(PoolKind kind, void *object) {
    if (pool_of_thread.count[kind] >= pool_of_thread.limit) {
        pool_give_slow(kind, object);
        return;
    }
    ((PoolLink *)object)->next = pool_of_thread.free[kind];
    pool_of_thread.free[kind] = object;
    pool_of_thread.count[kind]++;
}

#endif
