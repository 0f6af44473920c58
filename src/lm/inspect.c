/* Raw outputs of a model for given ids, because people compare models. */
#include "lm/encoding.h"

#include <stdlib.h>

/* Evaluates `a` as a float32 array of the caller's own. */
static void give(mlx_array *out, mlx_array a) {
    mlx_array plain = mx_contiguous(mx_cast(a, MLX_FLOAT32));
    if (mx_eval(&plain, 1)) *out = mx_keep(plain);
}

static bool check_ids(const char *folder, const int *ids, size_t count, int rows, Error *err) {
    if (count == 0 || count > INT32_MAX / 4)
        return base_fail(err, ERROR_INPUT, "no token ids, or too many");
    for (size_t i = 0; i < count; i++) {
        if (ids[i] < 0 || ids[i] >= rows) {
            return base_fail(err, ERROR_INPUT, "%s: token id %d, the model has %d", folder, ids[i],
                             rows);
        }
    }
    return true;
}

static bool inspect_decoder(const char *folder, const LmOpenOptions *options, const int *ids,
                            size_t count, mlx_array *logits, Error *err) {
    LmModel *model = lm_model_open(folder, options, err);
    if (!model) return false;
    bool ok = check_ids(folder, ids, count, lm_model_vocab_size(model), err);
    if (ok && logits) {
        mx_scope s = mx_open();
        mlx_array input = mx_from_i32(ids, MX_SHAPE(1, (int)count));
        give(logits,
             model_decoder_head(model->decoder, model_decoder_hidden(model->decoder, input, NULL)));
        mx_drop(s);
        ok = mx_check(err);
    }
    lm_model_close(model);
    return ok;
}

static bool inspect_encoder(const char *folder, const LmOpenOptions *options, const int *ids,
                            size_t count, mlx_array *logits, mlx_array *hidden,
                            mlx_array *embedding, mlx_array *pooled, Error *err) {
    LmEmbedder *embedder = lm_embedder_open(folder, options, err);
    if (!embedder) return false;
    const Encoder *encoder = lm_embedder_model(embedder)->encoder;
    bool ok = check_ids(folder, ids, count, model_encoder_vocab(encoder), err);
    if (ok) {
        mx_scope s = mx_open();
        int length = (int)count, dim = lm_embedder_dim(embedder);
        mlx_array input = mx_from_i32(ids, MX_SHAPE(1, length));
        mlx_array states = model_encoder_hidden(encoder, input, (mlx_array){0}, &length);
        if (hidden) give(hidden, states);
        if (logits && model_encoder_labels(encoder) > 0)
            give(logits, model_encoder_classify(encoder, states, &length));
        if (pooled && model_encoder_has_pooled(encoder))
            give(pooled, model_encoder_pooled(encoder, states, input));
        float *vector = base_alloc((size_t)dim * sizeof *vector);
        ok = mx_check(err) && lm_embedder_finish(embedder, states, length, vector, err);
        if (ok && embedding) *embedding = mx_keep(mx_from_f32(vector, MX_SHAPE(1, dim)));
        free(vector);
        mx_drop(s);
    }
    lm_embedder_close(embedder);
    return ok && mx_check(err);
}

bool lm_inspect(const char *folder, const LmOpenOptions *given, const int *ids, size_t count,
                mlx_array *logits, mlx_array *hidden, mlx_array *embedding, mlx_array *pooled,
                Error *err) {
    mlx_array *results[] = {logits, hidden, embedding, pooled};
    for (size_t i = 0; i < BASE_COUNT(results); i++) {
        if (results[i]) *results[i] = (mlx_array){0};
    }
    json_t *config = hub_config_load(folder, err);
    if (!config) return false;
    ModelKind kind = model_kind(config, err);
    json_decref(config);
    LmOpenOptions options = *given;
    options.no_tokenizer = true;
    bool ok = false;
    if (kind == MODEL_DECODER) ok = inspect_decoder(folder, &options, ids, count, logits, err);
    if (kind == MODEL_ENCODER && given->adapter_path)
        base_fail(err, ERROR_UNSUPPORTED, "%s: adapters are for models that generate text", folder);
    else if (kind == MODEL_ENCODER)
        ok = inspect_encoder(folder, &options, ids, count, logits, hidden, embedding, pooled, err);
    if (kind == MODEL_UNKNOWN) base_error_context(err, "%s", folder);
    if (ok) return true;
    for (size_t i = 0; i < BASE_COUNT(results); i++) {
        if (results[i]) mx_free(results[i]);
    }
    return false;
}
