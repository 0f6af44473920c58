/* Memory of arrays: buffers with a cache of freed ones, and the counters and
 * limits of the memory API.
 *
 * Own buffers come in sizes that repeat: up to 16 KiB four sizes a doubling,
 * beyond that multiples of 4 KiB. A freed buffer goes to the cache, which is a
 * list for each size range plus one list by age; past the cache limit the
 * oldest are returned to the system. One lock guards cache and counters. */
#include "engine/core/engine.h"
#include "engine/core/sanitize.h"
#include "mlx/c/memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    SMALLEST = 64,
    SMALL_LIMIT = 16384, /* up to here a size range holds one size */
    PAGE = 4096,
    FIT_SLACK = 16384, /* a cached large buffer may be this much too large */
    TAIL = 64,         /* readable bytes after the data */
    RANGES = 4 * 64
};

/* No machine has this much; larger requests come from broken shapes. */
#define MOST_BYTES ((size_t)1 << 39)

/* An own buffer with the cache's links in front of its data. */
typedef struct Slot {
    Buffer buffer;
    struct Slot *range_next, *range_prev; /* in the cache: buffers of the same range */
    struct Slot *newer, *older;
} Slot;
enum { HEADER = (sizeof(Slot) + 63) / 64 * 64 };

static struct {
    pthread_mutex_t lock;
    Slot *range[RANGES];
    Slot *newest, *oldest;
    size_t active, peak, cached;
    size_t cache_limit, memory_limit;
} memory = {.lock = PTHREAD_MUTEX_INITIALIZER, .cache_limit = (size_t)32 << 20};

/* Range of a capacity: four to a doubling. */
static int range_of(size_t capacity) {
    const int top = 63 - __builtin_clzll(capacity | 1);
    return top < 2 ? top : top * 4 + (int)(capacity >> (top - 2) & 3);
}

static size_t capacity_for(size_t bytes) {
    if (bytes <= SMALLEST) return SMALLEST;
    if (bytes > SMALL_LIMIT) return (bytes + PAGE - 1) / PAGE * PAGE;
    const int top = 63 - __builtin_clzll(bytes - 1);
    const size_t step = (size_t)1 << (top - 2);
    return (bytes + step - 1) / step * step;
}

static void cache_remove(Slot *slot) {
    if (slot->range_next) slot->range_next->range_prev = slot->range_prev;
    if (slot->range_prev)
        slot->range_prev->range_next = slot->range_next;
    else
        memory.range[range_of(slot->buffer.capacity)] = slot->range_next;
    if (slot->newer)
        slot->newer->older = slot->older;
    else
        memory.newest = slot->older;
    if (slot->older)
        slot->older->newer = slot->newer;
    else
        memory.oldest = slot->newer;
    memory.cached -= slot->buffer.capacity;
}

static void cache_add(Slot *slot) {
    Slot **range = &memory.range[range_of(slot->buffer.capacity)];
    slot->range_prev = NULL;
    slot->range_next = *range;
    if (*range) (*range)->range_prev = slot;
    *range = slot;
    slot->newer = NULL;
    slot->older = memory.newest;
    if (memory.newest)
        memory.newest->newer = slot;
    else
        memory.oldest = slot;
    memory.newest = slot;
    memory.cached += slot->buffer.capacity;
}

/* Unlinks the oldest buffers until at most `limit` bytes are cached; they come
 * back chained by `older`, to be freed outside the lock. */
static Slot *cache_shrink(size_t limit) {
    Slot *dropped = NULL;
    while (memory.cached > limit) {
        Slot *slot = memory.oldest;
        cache_remove(slot);
        slot->older = dropped;
        dropped = slot;
    }
    return dropped;
}

static void slots_free(Slot *slot) {
    while (slot) {
        Slot *next = slot->older;
        sanitize_show((uint8_t *)slot + HEADER, slot->buffer.capacity + TAIL);
        free(slot);
        slot = next;
    }
}

static Slot *cache_find(size_t capacity) {
    const int range = range_of(capacity);
    for (Slot *slot = memory.range[range]; slot; slot = slot->range_next)
        if (slot->buffer.capacity >= capacity && slot->buffer.capacity - capacity <= FIT_SLACK)
            return slot;
    if (capacity > SMALL_LIMIT && range + 1 < RANGES)
        for (Slot *slot = memory.range[range + 1]; slot; slot = slot->range_next)
            if (slot->buffer.capacity - capacity <= FIT_SLACK) return slot;
    return NULL;
}

static void count_active(size_t capacity) {
    memory.active += capacity;
    if (memory.active > memory.peak) memory.peak = memory.active;
}

Buffer *buffer_new(size_t bytes, Error *err) {
    if (bytes > MOST_BYTES) {
        base_fail(err, ERROR_MEMORY, "an array of %zu bytes is too large", bytes);
        return NULL;
    }
    const size_t capacity = capacity_for(bytes);
    pthread_mutex_lock(&memory.lock);
    Slot *slot = cache_find(capacity);
    if (slot) {
        cache_remove(slot);
        count_active(slot->buffer.capacity);
    }
    pthread_mutex_unlock(&memory.lock);
    if (slot) {
        sanitize_show(slot->buffer.data, slot->buffer.capacity + TAIL);
        atomic_store_explicit(&slot->buffer.refs, 1, memory_order_relaxed);
        return &slot->buffer;
    }

    const size_t total = (HEADER + capacity + TAIL + 63) / 64 * 64;
    slot = aligned_alloc(64, total);
    if (!slot) {
        base_fail(err, ERROR_MEMORY, "out of memory for an array of %zu bytes", bytes);
        return NULL;
    }
    base_large_pages(slot, total);
    slot->buffer = (Buffer){.refs = 1, .capacity = capacity, .data = (uint8_t *)slot + HEADER};
    pthread_mutex_lock(&memory.lock);
    count_active(capacity);
    pthread_mutex_unlock(&memory.lock);
    return &slot->buffer;
}

Buffer *buffer_foreign(void *data, size_t bytes, void (*release)(void *), void *payload) {
    Buffer *buffer = base_alloc(sizeof *buffer);
    *buffer = (Buffer){.refs = 1,
                       .foreign = true,
                       .capacity = bytes,
                       .data = data,
                       .release = release,
                       .payload = payload};
    return buffer;
}

void buffer_release(Buffer *buffer) {
    if (!buffer || atomic_fetch_sub_explicit(&buffer->refs, 1, memory_order_acq_rel) != 1) return;
    if (buffer->foreign) {
        if (buffer->release) buffer->release(buffer->payload);
        free(buffer);
        return;
    }
    Slot *slot = (Slot *)buffer, *dropped;
    sanitize_hide(buffer->data, buffer->capacity + TAIL);
    pthread_mutex_lock(&memory.lock);
    memory.active -= buffer->capacity;
    if (buffer->capacity > memory.cache_limit) {
        slot->older = NULL;
        dropped = slot;
    } else {
        cache_add(slot);
        dropped = cache_shrink(memory.cache_limit);
    }
    pthread_mutex_unlock(&memory.lock);
    slots_free(dropped);
}

/* ---- the memory API ---- */

static int read_counter(size_t *res, const size_t *counter) {
    pthread_mutex_lock(&memory.lock);
    *res = *counter;
    pthread_mutex_unlock(&memory.lock);
    return 0;
}

int mlx_get_active_memory(size_t *res) {
    return read_counter(res, &memory.active);
}

int mlx_get_peak_memory(size_t *res) {
    return read_counter(res, &memory.peak);
}

int mlx_get_cache_memory(size_t *res) {
    return read_counter(res, &memory.cached);
}

int mlx_reset_peak_memory(void) {
    pthread_mutex_lock(&memory.lock);
    memory.peak = 0;
    pthread_mutex_unlock(&memory.lock);
    return 0;
}

int mlx_clear_cache(void) {
    pthread_mutex_lock(&memory.lock);
    Slot *dropped = cache_shrink(0);
    pthread_mutex_unlock(&memory.lock);
    slots_free(dropped);
    return 0;
}

int mlx_set_cache_limit(size_t *res, size_t limit) {
    pthread_mutex_lock(&memory.lock);
    *res = memory.cache_limit;
    memory.cache_limit = limit;
    Slot *dropped = cache_shrink(limit);
    pthread_mutex_unlock(&memory.lock);
    slots_free(dropped);
    return 0;
}

/* Called with the lock held; the default is four fifths of the machine's memory. */
static size_t memory_limit(void) {
    if (!memory.memory_limit) {
        const long pages = sysconf(_SC_PHYS_PAGES), bytes = sysconf(_SC_PAGESIZE);
        memory.memory_limit = pages > 0 && bytes > 0 ? (size_t)pages * (size_t)bytes / 5 * 4 : 0;
    }
    return memory.memory_limit;
}

int mlx_get_memory_limit(size_t *res) {
    pthread_mutex_lock(&memory.lock);
    *res = memory_limit();
    pthread_mutex_unlock(&memory.lock);
    return 0;
}

int mlx_set_memory_limit(size_t *res, size_t limit) {
    pthread_mutex_lock(&memory.lock);
    *res = memory_limit();
    memory.memory_limit = limit;
    pthread_mutex_unlock(&memory.lock);
    return 0;
}

/* Wired memory exists on Metal only. */
int mlx_set_wired_limit(size_t *res, size_t limit) {
    (void)limit;
    *res = 0;
    return 0;
}
