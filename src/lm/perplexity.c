/* Perplexity: how surprised a model is by each token of a text, given those
 * before it. Data, order and arithmetic are mlx_lm.perplexity's. */
#include "lm/evaluate.h"
#include "lm/model.h"
#include "lm/records.h"

#include <math.h>
#include <stdlib.h>

static bool check(const LmPerplexityOptions *o, Error *err) {
    if (o->sequence_length < 2)
        return base_fail(err, ERROR_INPUT, "sequence-length must be at least 2, not %d",
                         o->sequence_length);
    if (o->batch_size < 1)
        return base_fail(err, ERROR_INPUT, "batch-size must be at least 1, not %d", o->batch_size);
    if (o->num_samples < 1 && o->num_samples != -1)
        return base_fail(err, ERROR_INPUT, "num-samples must be -1 or at least 1, not %d",
                         o->num_samples);
    return true;
}

/* ---- the text ------------------------------------------------------------------------ */

/* Tokens of records in the seed's order, until there are enough. */
static bool gather(LmModel *model, const LmRecords *records, const LmPerplexityOptions *o,
                   TextIds *ids, Error *err) {
    size_t wanted = SIZE_MAX;
    if (o->num_samples > 0) wanted = (size_t)o->num_samples * (size_t)o->sequence_length;
    uint32_t count = lm_records_count(records);
    uint32_t *order = base_alloc(count * sizeof *order);
    MersenneTwister twister;
    base_mersenne_numpy(&twister, o->seed);
    base_mersenne_permutation(&twister, count, order);
    bool ok = true;
    for (uint32_t i = 0; ok && i < count && ids->length < wanted; i++) {
        ok = lm_records_tokens(records, model, order[i], ids, err);
        if (ok && base_interrupted()) ok = base_fail(err, ERROR_INTERRUPTED, "interrupted");
    }
    free(order);
    return ok;
}

bool lm_perplexity_data(LmModel *model, const char *path, const LmPerplexityOptions *options,
                        int **ids, size_t *samples, Error *err) {
    static const char *const splits[] = {"train", NULL};
    if (!check(options, err)) return false;
    LmRecords *records = lm_records_open(path, splits, err);
    if (!records) return false;
    TextIds all = {0};
    size_t length = (size_t)options->sequence_length;
    bool ok = gather(model, records, options, &all, err);
    if (ok && all.length < length) {
        base_fail(err, ERROR_INPUT, "%s: holds %zu tokens, one sequence needs %zu",
                  lm_records_file(records), all.length, length);
        ok = base_hint(err, "A smaller --sequence-length helps");
    }
    lm_records_close(records);
    if (!ok) {
        text_ids_free(&all);
        return false;
    }
    *samples = all.length / length;
    if (options->num_samples > 0) *samples = BASE_MIN(*samples, (size_t)options->num_samples);
    *ids = all.data;
    return true;
}

/* ---- the loss --------------------------------------------------------------------------- */

enum { MOST_LOGITS = 1 << 26 }; /* held at a time where the engine cannot do without them */

/* Mean and spread of numbers that come one after another (Welford, 1962). */
typedef struct Spread {
    size_t count;
    double mean, squares;
} Spread;

static void spread_add(Spread *spread, double value) {
    double off = value - spread->mean;
    spread->mean += off / (double)++spread->count;
    spread->squares += off * (value - spread->mean);
}

/* Rows [from, to) of hidden [R, D]: the cross-entropy of targets [R] -> losses. */
static bool row_losses(const LmModel *model, mlx_array hidden, mlx_array targets, int from, int to,
                       float *losses) {
    mx_scope s = mx_open();
    mlx_array logits = model_decoder_head(model->decoder, mx_slice(hidden, 0, from, to));
    logits = mx_cast(logits, MLX_FLOAT32);
    mlx_array target = mx_expand_dims(mx_slice(targets, 0, from, to), -1);
    mlx_array score = mx_squeeze(mx_take_along(logits, target, -1), -1);
    mlx_array loss = mx_sub(mx_logsumexp(logits, -1, false), score);
    bool ok = mx_copy_f32(loss, losses, (size_t)(to - from));
    mx_drop(s);
    return ok;
}

/* One batch of sequences; adds a loss a token, the first of each excepted. */
static bool batch_losses(const LmModel *model, const int *ids, int batch, int length,
                         Spread *spread) {
    mx_scope s = mx_open();
    int rows = batch * (length - 1);
    mlx_array all = mx_from_i32(ids, MX_SHAPE(batch, length));
    mlx_array inputs = mx_slice(all, 1, 0, length - 1);
    mlx_array targets = mx_reshape(mx_slice(all, 1, 1, length), MX_SHAPE(rows));
    mlx_array hidden = model_decoder_hidden(model->decoder, inputs, NULL);
    hidden = mx_reshape(hidden, MX_SHAPE(rows, -1));
    mx_eval(&hidden, 1);
    int step = BASE_MAX(64, MOST_LOGITS / model_decoder_vocab(model->decoder));
    float *losses = base_alloc((size_t)BASE_MIN(step, rows) * sizeof *losses);
    for (int from = 0; from < rows && !mx_failed(); from += step) {
        int to = BASE_MIN(from + step, rows);
        if (!row_losses(model, hidden, targets, from, to, losses)) break;
        for (int i = 0; i < to - from; i++) spread_add(spread, (double)losses[i]);
    }
    free(losses);
    mx_drop(s);
    return !mx_failed();
}

bool lm_perplexity(LmModel *model, const int *ids, size_t samples,
                   const LmPerplexityOptions *options, LmPerplexity *result, Error *err) {
    if (!mx_check(err) || !check(options, err)) return false;
    size_t step = (size_t)options->batch_size, length = (size_t)options->sequence_length;
    size_t batches = (samples + step - 1) / step;
    Spread spread = {0};
    double started = base_now();
    for (size_t i = 0; i < batches; i++) {
        size_t count = BASE_MIN(step, samples - i * step);
        batch_losses(model, ids + i * step * length, (int)count, (int)length, &spread);
        if (!mx_check(err)) return false;
        mlx_clear_cache();
        if (options->progress) options->progress(options->context, i + 1, batches);
        if (base_interrupted()) return base_fail(err, ERROR_INTERRUPTED, "interrupted");
    }
    double count = (double)spread.count, deviation = sqrt(spread.squares / (count - 1));
    double perplexity = exp(spread.mean);
    *result = (LmPerplexity){.perplexity = perplexity,
                             .error = perplexity * deviation / sqrt(count),
                             .scored = spread.count,
                             .seconds = base_now() - started};
    return true;
}
