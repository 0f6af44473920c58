/* The cache of a whole model: one KvCache a layer, trimmed and quantised together. */
#include "lm/model.h"

#include <stdlib.h>
#include <string.h>

static bool check_options(const LmCacheOptions *o, Error *err) {
    bool bits_ok = o->kv_bits == 0 || o->kv_bits == 2 || o->kv_bits == 3 || o->kv_bits == 4 ||
                   o->kv_bits == 5 || o->kv_bits == 6 || o->kv_bits == 8;
    if (!bits_ok)
        return base_fail(err, ERROR_INPUT, "kv-bits must be 2, 3, 4, 5, 6 or 8, not %d",
                         o->kv_bits);
    if (o->kv_group_size != 0 && o->kv_group_size != 32 && o->kv_group_size != 64 &&
        o->kv_group_size != 128) {
        return base_fail(err, ERROR_INPUT, "kv-group-size must be 32, 64 or 128, not %d",
                         o->kv_group_size);
    }
    if (o->max_size < 0 || o->max_size == 1) {
        return base_fail(err, ERROR_INPUT, "max-kv-size must be at least 2, not %d", o->max_size);
    }
    if (o->kv_bits && o->max_size) {
        return base_fail(err, ERROR_UNSUPPORTED,
                         "a rotating cache (max-kv-size) cannot be quantised (kv-bits)");
    }
    return true;
}

/* Rows are packed in whole groups. */
static bool check_groups(const LmModel *model, const LmCacheOptions *o, Error *err) {
    int group = o->kv_group_size ? o->kv_group_size : 64;
    for (int i = 0; o->kv_bits && i < model_decoder_layers(model->decoder); i++) {
        int heads, widths[2];
        model_decoder_kv_shape(model->decoder, i, &heads, &widths[0], &widths[1]);
        for (int side = 0; side < 2; side++) {
            if (widths[side] % group == 0) continue;
            base_fail(err, ERROR_INPUT,
                      "kv-group-size %d does not divide the %d features of this model's heads",
                      group, widths[side]);
            return base_hint(err, "Choose 32, 64 or 128, or leave kv-bits out.");
        }
    }
    return true;
}

LmCache *lm_cache_new(LmModel *model, const LmCacheOptions *options, Error *err) {
    static const LmCacheOptions defaults = {0};
    if (!options) options = &defaults;
    if (!check_options(options, err) || !check_groups(model, options, err)) return NULL;
    LmCache *cache = base_calloc(1, sizeof *cache);
    cache->options = *options;
    if (cache->options.kv_group_size == 0) cache->options.kv_group_size = 64;
    cache->n_layers = model_decoder_layers(model->decoder);
    cache->layers = base_calloc((size_t)cache->n_layers, sizeof *cache->layers);
    model_decoder_caches(model->decoder, cache->layers, options->max_size);
    cache->short_length = options->for_file ? 0 : model_decoder_short_length(model->decoder);
    for (int i = 0; options->for_file && i < cache->n_layers; i++)
        cache->layers[i].text_length = INT32_MAX;
    return cache;
}

void lm_cache_free(LmCache *cache) {
    if (!cache) return;
    for (int i = 0; i < cache->n_layers; i++) nn_kv_free(&cache->layers[i]);
    free(cache->layers);
    text_ids_free(&cache->held);
    free(cache);
}

int lm_cache_length(const LmCache *cache) {
    return cache->n_layers ? cache->layers[0].offset : 0;
}

bool lm_cache_trim(LmCache *cache, int count) {
    for (int i = 0; i < cache->n_layers; i++) {
        if (!nn_kv_can_trim(&cache->layers[i], count)) return false;
    }
    for (int i = 0; i < cache->n_layers; i++) nn_kv_trim(&cache->layers[i], count);
    if (cache->held.length) cache->held.length -= (size_t)count;
    return true;
}

void lm_cache_clear(LmCache *cache) {
    for (int i = 0; i < cache->n_layers; i++) {
        nn_kv_clear(&cache->layers[i]);
        if (cache->layers[i].kind == KV_QUANTIZED) cache->layers[i].kind = KV_GROWING;
        cache->layers[i].text_length = cache->options.for_file ? INT32_MAX : 0;
    }
    cache->held.length = 0;
    cache->expected = 0;
}

void lm_cache_settle(LmCache *cache) {
    const LmCacheOptions *o = &cache->options;
    if (!o->kv_bits || lm_cache_length(cache) < o->kv_start) return;
    MxQuant quant = {.group_size = o->kv_group_size, .bits = o->kv_bits, .mode = "affine"};
    for (int i = 0; i < cache->n_layers; i++) nn_kv_quantize(&cache->layers[i], quant);
}

bool lm_cache_eval(const LmCache *cache) {
    mlx_array *all = base_alloc((size_t)cache->n_layers * 6 * sizeof *all);
    size_t count = 0;
    for (int i = 0; i < cache->n_layers; i++) {
        for (int part = 0; part < 3; part++) {
            if (cache->layers[i].keys[part].ctx) all[count++] = cache->layers[i].keys[part];
            if (cache->layers[i].values[part].ctx) all[count++] = cache->layers[i].values[part];
        }
    }
    bool ok = count == 0 || mx_eval(all, count);
    free(all);
    return ok;
}
