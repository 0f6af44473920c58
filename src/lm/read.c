/* Reading tokens into a cache: where every pass over a cache begins.
 *
 * Models with LongRoPE rotate a text by other factors once it is longer than their
 * first training saw. transformers then reads the whole text anew, and so does this:
 * such a cache remembers its ids. Caches that go to files or come from there hold
 * keys of the long factors at every length, as mlx_lm's do. */
#include "lm/model.h"

enum { READ_STEP = 2048 };

static mlx_array pass(const LmModel *model, const LmCache *cache, const int *ids, size_t count) {
    mlx_array input = mx_from_i32(ids, MX_SHAPE(1, (int)count));
    return model_decoder_hidden(model->decoder, input, cache->layers);
}

/* Empties the cache and reads what it held by the other factors. */
static void read_anew(const LmModel *model, LmCache *cache, bool is_long) {
    TextIds held = cache->held;
    int expected = cache->expected;
    cache->held = (TextIds){0};
    lm_cache_clear(cache);
    for (int i = 0; i < cache->n_layers; i++)
        cache->layers[i].text_length = is_long ? INT32_MAX : 0;
    for (size_t done = 0; done < held.length && !mx_failed();) {
        size_t step = BASE_MIN((size_t)READ_STEP, held.length - done);
        mx_scope s = mx_open();
        pass(model, cache, held.data + done, step);
        mx_drop(s);
        lm_cache_settle(cache);
        lm_cache_eval(cache);
        done += step;
    }
    cache->held = held;
    cache->expected = expected;
}

mlx_array lm_read(const LmModel *model, LmCache *cache, const int *ids, size_t count) {
    if (cache->short_length == 0) return pass(model, cache, ids, count);
    int length = BASE_MAX(lm_cache_length(cache) + (int)count, cache->expected);
    bool is_long = length > cache->short_length;
    if (is_long != (cache->layers[0].text_length > 0)) read_anew(model, cache, is_long);
    for (size_t i = 0; i < count; i++) text_ids_append(&cache->held, ids[i]);
    return pass(model, cache, ids, count);
}

void lm_cache_expect(LmCache *cache, size_t count) {
    cache->expected = lm_cache_length(cache) + (int)count;
}
