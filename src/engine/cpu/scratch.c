/* Scratch memory for packing and activations. A product takes the same few
 * sizes over and over, and fresh large blocks cost a page fault every 4 KiB,
 * so a handful of freed blocks wait here for the next taker. */
#include "base/base.h"
#include "cpu/table.h"

#include <pthread.h>
#include <stdlib.h>

enum { KEPT_BLOCKS = 16, KEPT_LIMIT = 24 << 20, ALIGNMENT = 64 };

/* Precedes the memory given out. */
typedef struct Block {
    size_t bytes;
} Block;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Block *kept[KEPT_BLOCKS];
static size_t kept_bytes;

/* The kept block that fits with the least waste, or none. */
static Block *take_kept(size_t bytes) {
    size_t best = KEPT_BLOCKS;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < KEPT_BLOCKS; i++)
        if (kept[i] && kept[i]->bytes >= bytes && kept[i]->bytes / 4 <= bytes &&
            (best == KEPT_BLOCKS || kept[i]->bytes < kept[best]->bytes))
            best = i;
    Block *block = NULL;
    if (best < KEPT_BLOCKS) {
        block = kept[best];
        kept[best] = NULL;
        kept_bytes -= block->bytes;
    }
    pthread_mutex_unlock(&lock);
    return block;
}

void *cpu_scratch_take(size_t bytes) {
    bytes = BASE_MAX(bytes, (size_t)4096);
    Block *block = take_kept(bytes);
    if (!block) {
        void *memory = NULL;
        if (posix_memalign(&memory, ALIGNMENT, bytes + ALIGNMENT) != 0)
            memory = base_alloc(SIZE_MAX); /* reports the lack of memory and ends */
        block = memory;
        block->bytes = bytes;
    }
    return (char *)block + ALIGNMENT;
}

void cpu_scratch_give(void *memory) {
    if (!memory) return;
    Block *block = (Block *)(void *)((char *)memory - ALIGNMENT);
    pthread_mutex_lock(&lock);
    size_t slot = KEPT_BLOCKS;
    for (size_t i = 0; i < KEPT_BLOCKS && slot == KEPT_BLOCKS; i++)
        if (!kept[i]) slot = i;
    if (slot < KEPT_BLOCKS && kept_bytes + block->bytes <= KEPT_LIMIT) {
        kept[slot] = block;
        kept_bytes += block->bytes;
        block = NULL;
    }
    pthread_mutex_unlock(&lock);
    free(block);
}
