/* Memory: allocations that cannot fail, allocations that may, and an arena for
 * many small objects that die together. */
#include "base/base.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void *checked(void *memory) {
    if (memory) return memory;
    static const char line[] = "mlx-rag: out of memory\n";
    ssize_t written = write(STDERR_FILENO, line, sizeof line - 1);
    _exit(written < 0 ? 1 : 1);
}

void *base_alloc(size_t bytes) {
    return checked(malloc(bytes ? bytes : 1));
}

void *base_calloc(size_t count, size_t bytes) {
    return checked(calloc(count ? count : 1, bytes ? bytes : 1));
}

void *base_realloc(void *memory, size_t bytes) {
    return checked(realloc(memory, bytes ? bytes : 1));
}

void *base_try_alloc(size_t count, size_t bytes, Error *err) {
    size_t total;
    void *memory = NULL;
    if (!__builtin_mul_overflow(count, bytes, &total) && total <= PTRDIFF_MAX)
        memory = malloc(total ? total : 1);
    if (!memory) base_fail(err, ERROR_MEMORY, "cannot allocate %zu x %zu bytes", count, bytes);
    return memory;
}

void base_large_pages(void *memory, size_t bytes) {
#ifdef MADV_HUGEPAGE
    enum { LEAST = 4 << 20 };
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t from = ((uintptr_t)memory + page - 1) / page * page;
    const uintptr_t to = ((uintptr_t)memory + bytes) / page * page;
    if (bytes >= LEAST) madvise((void *)from, to - from, MADV_HUGEPAGE);
#else
    (void)memory;
    (void)bytes;
#endif
}

char *base_strdup(const char *text) {
    return base_strndup(text, strlen(text));
}

char *base_strndup(const char *text, size_t length) {
    char *copy = base_alloc(length + 1);
    memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

char *base_format(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    char *text = NULL;
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    return checked(length < 0 ? NULL : text);
}

const char *base_bytes_text(uint64_t bytes) {
    static _Thread_local char ring[4][32];
    static _Thread_local int next;
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 999.95 && unit + 1 < BASE_COUNT(units)) {
        value /= 1000;
        unit++;
    }
    char *text = ring[next++ & 3];
    snprintf(text, sizeof ring[0], unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return text;
}

void *base_grow(void *array, size_t *capacity, size_t needed, size_t bytes) {
    if (needed <= *capacity) return array;
    size_t wanted = *capacity < 8 ? 8 : *capacity + *capacity / 2;
    if (wanted < needed) wanted = needed;
    size_t total;
    if (__builtin_mul_overflow(wanted, bytes, &total)) return checked(NULL);
    *capacity = wanted;
    return base_realloc(array, total);
}

typedef struct ArenaBlock {
    struct ArenaBlock *previous;
    size_t used, size;
    _Alignas(16) char bytes[];
} ArenaBlock;

struct Arena {
    ArenaBlock *block;
};

Arena *base_arena_new(void) {
    return base_calloc(1, sizeof(Arena));
}

void base_arena_free(Arena *arena) {
    if (!arena) return;
    for (ArenaBlock *block = arena->block; block;) {
        ArenaBlock *previous = block->previous;
        free(block);
        block = previous;
    }
    free(arena);
}

void *base_arena_alloc(Arena *arena, size_t bytes) {
    size_t rounded;
    if (__builtin_add_overflow(bytes, (size_t)15, &rounded)) return checked(NULL);
    rounded &= ~(size_t)15;
    ArenaBlock *block = arena->block;
    if (!block || block->size - block->used < rounded) {
        size_t size = block ? BASE_MIN(block->size * 2, (size_t)1 << 20) : 4096;
        if (size < rounded) size = rounded;
        ArenaBlock *fresh = base_alloc(sizeof(ArenaBlock) + size);
        *fresh = (ArenaBlock){.previous = block, .size = size};
        arena->block = block = fresh;
    }
    void *memory = block->bytes + block->used;
    block->used += rounded;
    return memory;
}

char *base_arena_strndup(Arena *arena, const char *text, size_t length) {
    char *copy = base_arena_alloc(arena, length + 1);
    memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}
