/* Running many texts through an encoder: sorted by length, so that a batch has
 * little padding, and in batches of so many tokens that the activations stay
 * small. */
#include "lm/encoding.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH_TOKENS = 2048, USUAL_TOKENS = 512 /* when nothing sets a limit */ };

bool lm_encoder_open(EncoderModel *model, const char *path, const LmOpenOptions *options,
                     Error *err) {
    static const LmOpenOptions defaults = {0};
    if (!options) options = &defaults;
    *model = (EncoderModel){0};
    mx_scope s = mx_open();
    model->folder = hub_model_open(path, err);
    if (model->folder) {
        const json_t *config = hub_model_config(model->folder);
        ModelKind kind = model_kind(config, err);
        if (kind == MODEL_ENCODER) {
            model->params = model_params(model->folder);
            if (lm_params_dtype(model->params, options->dtype, err)) {
                model->encoder = model_encoder_load(model->params, config, err);
            }
        } else if (kind == MODEL_DECODER) {
            base_fail(err, ERROR_UNSUPPORTED, "%s: model type \"%s\" is not an encoder", path,
                      json_string_value(json_object_get(config, "model_type")));
        } else {
            base_error_context(err, "%s", path);
        }
    }
    bool ok = model->encoder != NULL;
    if (ok && !options->no_tokenizer) {
        ok = lm_open_tokenizer(path, model_encoder_vocab(model->encoder), &model->tokenizer, err);
        if (ok && !model->tokenizer)
            ok = base_fail(err, ERROR_INPUT, "%s: the model has no tokenizer", path);
    }
    mx_drop(s);
    if (!ok) lm_encoder_close(model);
    return ok;
}

void lm_encoder_close(EncoderModel *model) {
    nn_params_free(model->params);
    hub_model_free(model->folder);
    text_tokenizer_free(model->tokenizer);
    *model = (EncoderModel){0};
}

int lm_encoder_limit(const EncoderModel *model, int stated) {
    int positions = model_encoder_max_tokens(model->encoder);
    size_t config = model->tokenizer ? text_tokenizer_max_length(model->tokenizer) : 0;
    if (stated <= 0 && config > 0 && config < (size_t)positions) stated = (int)config;
    if (stated <= 0 && positions == INT_MAX) stated = USUAL_TOKENS;
    return stated > 0 && stated < positions ? stated : positions;
}

/* ---- batches ------------------------------------------------------------------------- */

static int by_length(const void *a, const void *b) {
    const EncoderRow *left = a, *right = b;
    if (left->length != right->length) return left->length < right->length ? 1 : -1;
    return left->index < right->index ? -1 : left->index > right->index;
}

static bool run_batch(const EncoderModel *model, const EncoderRow *rows, int batch,
                      EncoderBatch done, void *context, Error *err) {
    int length = rows[0].length; /* the longest comes first */
    size_t cells = (size_t)batch * (size_t)length;
    bool typed = false;
    for (int b = 0; b < batch; b++) typed |= rows[b].types != NULL;
    int *ids = base_alloc((2 * cells + (size_t)batch) * sizeof *ids), *types = ids + cells;
    int *lengths = types + cells;
    for (int b = 0; b < batch; b++) {
        lengths[b] = rows[b].length;
        for (int i = 0; i < length; i++) {
            size_t at = (size_t)b * (size_t)length + (size_t)i;
            bool real = i < rows[b].length;
            ids[at] = real ? rows[b].ids[i] : model_encoder_pad_id(model->encoder);
            types[at] = real && rows[b].types ? rows[b].types[i] : 0;
        }
    }
    mx_scope s = mx_open();
    mlx_array input = mx_from_i32(ids, MX_SHAPE(batch, length));
    mlx_array kinds = typed ? mx_from_i32(types, MX_SHAPE(batch, length)) : (mlx_array){0};
    mlx_array hidden = model_encoder_hidden(model->encoder, input, kinds, lengths);
    bool ok = mx_check(err) && done(context, rows, batch, length, hidden, err);
    mx_drop(s);
    free(ids);
    return ok;
}

bool lm_encoder_run(const EncoderModel *model, EncoderRow *rows, size_t count, EncoderBatch done,
                    void *context, Error *err) {
    if (!mx_check(err)) return false;
    qsort(rows, count, sizeof *rows, by_length);
    for (size_t at = 0; at < count;) {
        size_t most = (size_t)BASE_MAX(1, BATCH_TOKENS / BASE_MAX(1, rows[at].length));
        size_t batch = BASE_MIN(most, count - at);
        if (!run_batch(model, &rows[at], (int)batch, done, context, err)) return false;
        if (base_interrupted()) return base_fail(err, ERROR_INTERRUPTED, "interrupted");
        at += batch;
    }
    return true;
}
