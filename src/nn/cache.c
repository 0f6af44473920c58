/* The keys and values that a layer remembers: growing, rotating, quantised, in
 * chunks.
 *
 * Buffers grow by whole steps and are written in place (the slot's old handle
 * is gone before the update runs, so the engine reuses the memory). Behaviour
 * and layouts are those of mlx_lm's KVCache, RotatingKVCache, QuantizedKVCache and
 * ChunkedKVCache, so that prompt cache files are interchangeable. */
#include "nn/cache.h"

enum { STEP = 256, TIME = 2 };

void nn_kv_clear(KvCache *cache) {
    for (int i = 0; i < 3; i++) {
        mx_free(&cache->keys[i]);
        mx_free(&cache->values[i]);
    }
    cache->offset = cache->capacity = cache->index = cache->start = cache->text_length = 0;
}

void nn_kv_free(KvCache *cache) {
    nn_kv_clear(cache);
    *cache = (KvCache){0};
}

bool nn_kv_can_trim(const KvCache *cache, int count) {
    if (count < 0 || count > cache->offset - cache->start) return false;
    return cache->kind != KV_ROTATING || cache->offset < cache->max_size || count == 0;
}

bool nn_kv_trim(KvCache *cache, int count) {
    if (!nn_kv_can_trim(cache, count)) return false;
    cache->offset -= count;
    cache->index -= cache->kind == KV_ROTATING ? count : 0;
    return true;
}

/* ---- growing ------------------------------------------------------------------------ */

/* zeros shaped like `like` with `rows` along time */
static mlx_array blank(mlx_array like, int rows) {
    return mx_zeros(MX_SHAPE(mx_dim(like, 0), mx_dim(like, 1), rows, mx_dim(like, 3)),
                    mx_dtype(like));
}

/* Makes room for the update, writes it at `offset`, and returns the rows in use. */
static mlx_array append(mlx_array *slot, mlx_array update, int offset, int grow_by) {
    if (grow_by > 0) {
        mlx_array room = blank(update, grow_by);
        mx_store(slot,
                 offset > 0 ? mx_concat2(mx_slice(*slot, TIME, 0, offset), room, TIME) : room);
    }
    mx_slice_assign(slot, update, TIME, offset);
    return mx_slice(*slot, TIME, 0, offset + mx_dim(update, TIME));
}

/* Rows in use. */
static int held(const KvCache *cache) {
    return cache->offset - cache->start;
}

/* Rows to add so that `added` more fit. */
static int growth(KvCache *cache, int added) {
    if (held(cache) + added <= cache->capacity) return 0;
    int more = (added + STEP - 1) / STEP * STEP;
    cache->capacity = held(cache) + more;
    return more;
}

static void update_growing(KvCache *cache, mlx_array *keys, mlx_array *values) {
    int added = mx_dim(*keys, TIME), more = growth(cache, added), rows = held(cache);
    *keys = append(&cache->keys[0], *keys, rows, more);
    *values = append(&cache->values[0], *values, rows, more);
    cache->offset += added;
}

/* ---- chunked ------------------------------------------------------------------------ */

/* What a chunked cache drops before an update: a token sees less than a chunk
 * back, so at most a chunk stays. */
static int outdated(const KvCache *cache) {
    return cache->kind == KV_CHUNKED ? BASE_MAX(0, held(cache) - cache->max_size) : 0;
}

static void drop_front(KvCache *cache) {
    int count = outdated(cache), rows = held(cache);
    if (count == 0) return;
    mx_store(&cache->keys[0], mx_slice(cache->keys[0], TIME, count, rows));
    mx_store(&cache->values[0], mx_slice(cache->values[0], TIME, count, rows));
    cache->start += count;
    cache->capacity = held(cache);
}

/* ---- rotating ------------------------------------------------------------------------- */

/* Rows [0, keep) and [keep + dropped, end), then `tail` unless it is empty. */
static mlx_array without(mlx_array rows, int keep, int dropped, mlx_array tail) {
    mlx_array parts[3];
    size_t count = 0;
    if (dropped > 0) {
        if (keep > 0) parts[count++] = mx_slice(rows, TIME, 0, keep);
        parts[count++] = mx_slice(rows, TIME, keep + dropped, mx_dim(rows, TIME));
    } else {
        parts[count++] = rows;
    }
    if (!mx_empty(tail)) parts[count++] = tail;
    return count == 1 ? parts[0] : mx_concat(parts, count, TIME);
}

/* The rows in the order in which they were seen. */
static mlx_array in_order(const KvCache *cache, mlx_array rows) {
    int length = mx_dim(rows, TIME);
    if (cache->index == length) return rows;
    if (cache->index >= cache->offset) return mx_slice(rows, TIME, 0, cache->index);
    mlx_array parts[3];
    size_t count = 0;
    if (cache->keep > 0) parts[count++] = mx_slice(rows, TIME, 0, cache->keep);
    parts[count++] = mx_slice(rows, TIME, cache->index, length);
    if (cache->index > cache->keep)
        parts[count++] = mx_slice(rows, TIME, cache->keep, cache->index);
    return mx_concat(parts, count, TIME);
}

/* Many tokens: the buffer becomes its last max_size - 1 rows and the new ones,
 * so that each new token sees max_size of them. */
static void append_rotating(const KvCache *cache, mlx_array *slot, mlx_array *rows) {
    if (!mx_empty(*slot)) {
        mlx_array old = in_order(cache, *slot);
        *rows = without(old, cache->keep, mx_dim(old, TIME) - cache->max_size + 1, *rows);
    }
    mx_store(slot, *rows);
}

/* One token: over the oldest row that is not kept. `index` is where. */
static void overwrite(KvCache *cache, mlx_array *slot, mlx_array *row, int *index) {
    int length = mx_dim(*slot, TIME);
    *index = cache->index;
    if (mx_empty(*slot) || (cache->offset >= length && length < cache->max_size)) {
        mlx_array room = blank(*row, BASE_MIN(STEP, cache->max_size - cache->offset));
        mx_store(slot, mx_empty(*slot) ? room : mx_concat2(*slot, room, TIME));
        *index = cache->offset;
    }
    int excess = mx_dim(*slot, TIME) - cache->max_size;
    if (excess > 0) {
        mx_store(slot, without(*slot, cache->keep, excess, (mlx_array){0}));
        *index = cache->max_size;
    }
    if (*index == cache->max_size) *index = cache->keep;
    mx_slice_assign(slot, *row, TIME, *index);
    int used = BASE_MIN(cache->offset + 1, mx_dim(*slot, TIME));
    *row =
        mx_slice(*slot, TIME, 0, cache->offset + 1 < cache->max_size ? used : mx_dim(*slot, TIME));
}

static void update_rotating(KvCache *cache, mlx_array *keys, mlx_array *values) {
    int added = mx_dim(*keys, TIME);
    if (added == 1) {
        int index;
        overwrite(cache, &cache->keys[0], keys, &index);
        overwrite(cache, &cache->values[0], values, &index);
        cache->index = index + 1;
    } else {
        append_rotating(cache, &cache->keys[0], keys);
        append_rotating(cache, &cache->values[0], values);
        cache->index = mx_dim(cache->keys[0], TIME);
    }
    cache->offset += added;
    cache->capacity = mx_dim(cache->keys[0], TIME);
}

void nn_kv_update(KvCache *cache, mlx_array *keys, mlx_array *values) {
    if (cache->kind == KV_ROTATING) {
        update_rotating(cache, keys, values);
    } else {
        drop_front(cache);
        update_growing(cache, keys, values);
    }
}

/* ---- quantised --------------------------------------------------------------------------- */

void nn_kv_quantize(KvCache *cache, MxQuant quant) {
    if (cache->kind != KV_GROWING) return;
    cache->kind = KV_QUANTIZED;
    cache->quant = quant;
    cache->capacity = cache->offset;
    if (mx_empty(cache->keys[0])) return;
    mx_scope s = mx_open();
    mlx_array *sides[] = {cache->keys, cache->values};
    for (int side = 0; side < 2; side++) {
        mlx_array parts[3];
        mx_quantize(mx_slice(sides[side][0], TIME, 0, cache->offset), quant, parts);
        for (int i = 0; i < 3; i++) mx_store(&sides[side][i], parts[i]);
    }
    mx_drop(s);
}

void nn_kv_update_quantized(KvCache *cache, mlx_array keys, mlx_array values, mlx_array all_keys[3],
                            mlx_array all_values[3]) {
    int added = mx_dim(keys, TIME), more = growth(cache, added);
    mx_quantize(keys, cache->quant, all_keys);
    mx_quantize(values, cache->quant, all_values);
    for (int i = 0; i < 3; i++) {
        all_keys[i] = append(&cache->keys[i], all_keys[i], cache->offset, more);
        all_values[i] = append(&cache->values[i], all_values[i], cache->offset, more);
    }
    cache->offset += added;
}

/* ---- masks --------------------------------------------------------------------------------- */

/* bool [length, offset + length]: each token sees itself and what came before
 * it, of that at most window - 1 when window is not 0. */
static Mask causal_array(int length, int offset, int window) {
    mlx_array keys = mx_expand_dims(mx_arange(0, offset + length, 1, MLX_INT32), 0);
    mlx_array queries = mx_expand_dims(mx_arange(offset, offset + length, 1, MLX_INT32), 1);
    mlx_array mask = mx_greater_equal(queries, keys);
    if (window > 0) mask = mx_and(mask, mx_less(queries, mx_add_scalar(keys, window)));
    return (Mask){.mode = "array", .array = mask};
}

/* One token on a full ring of which only the last `window` rows count. */
static Mask ring_array(const KvCache *cache, int window) {
    int index = cache->index >= cache->max_size ? 0 : cache->index;
    int rows = cache->offset < cache->max_size ? cache->offset + 1 : cache->max_size;
    /* Row r was written (index - r) mod rows steps before the new one. */
    mlx_array age = mx_sub(mx_scalar(index, MLX_INT32), mx_arange(0, rows, 1, MLX_INT32));
    mlx_array wrapped =
        mx_where(mx_less(age, mx_scalar(0, MLX_INT32)), mx_add_scalar(age, rows), age);
    return (Mask){.mode = "array", .array = mx_less(wrapped, mx_scalar(window, MLX_INT32))};
}

Mask nn_kv_mask(const KvCache *cache, int length, int window) {
    int offset = cache ? cache->offset : 0;
    if (cache && cache->kind == KV_ROTATING) {
        if (length == 1) {
            bool narrow = window > 0 && cache->offset >= window && cache->max_size > window;
            return narrow ? ring_array(cache, window) : NN_NO_MASK;
        }
        window = window > 0 ? window : cache->max_size;
        offset = BASE_MIN(cache->max_size - 1, offset);
    }
    if (window > 0 && offset + length > window) return causal_array(length, offset, window);
    if (length == 1) return NN_NO_MASK;
    if (cache && cache->kind == KV_QUANTIZED) return causal_array(length, offset, 0);
    return (Mask){.mode = "causal"};
}

Mask nn_kv_chunk_mask(const KvCache *cache, int length, int chunk) {
    int offset = cache ? cache->offset : 0, end = offset + length;
    int start = cache ? cache->start + outdated(cache) : 0;
    /* Everything is of one chunk: nothing but order matters. */
    if (start / chunk == (end - 1) / chunk)
        return length == 1 ? NN_NO_MASK : (Mask){.mode = "causal"};
    mlx_array keys = mx_expand_dims(mx_arange(start, end, 1, MLX_INT32), 0);
    mlx_array queries = mx_expand_dims(mx_arange(offset, end, 1, MLX_INT32), 1);
    /* Where the chunk of each query begins. */
    const int first = offset / chunk * chunk;
    mlx_array begins = mx_scalar(first, MLX_INT32);
    for (int at = (offset / chunk + 1) * chunk; at < end; at += chunk) {
        mlx_array boundary = mx_scalar(at, MLX_INT32);
        begins = mx_where(mx_greater_equal(queries, boundary), boundary, begins);
    }
    mlx_array seen = mx_and(mx_greater_equal(keys, begins), mx_less_equal(keys, queries));
    return (Mask){.mode = "array", .array = seen};
}
