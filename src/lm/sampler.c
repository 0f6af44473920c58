/* Sampling: penalties, then top-p, min-p, XTC, top-k, temperature, draw.
 *
 * Order and definitions are mlx_lm.sample_utils'. The logits are worked on in
 * float32 on the host, where a filter is a loop over the vocabulary and top-p
 * looks only at the tokens it keeps; the draw is MLX's categorical, so a seed
 * gives MLX's numbers. */
#include "lm/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_CONTEXT = 20 };

/* ---- options ------------------------------------------------------------------------- */

static bool in_range(const char *name, float value, float low, float high, Error *err) {
    if (value >= low && value <= high) return true;
    return base_fail(err, ERROR_INPUT, "%s must be from %g to %g, not %g", name, (double)low,
                     (double)high, (double)value);
}

static bool check(const LmSampling *o, int vocab_size, Error *err) {
    if (!(o->temp >= 0) || !isfinite(o->temp)) {
        return base_fail(err, ERROR_INPUT, "temp must be 0 or more, not %g", (double)o->temp);
    }
    if (!in_range("min-p", o->min_p, 0, 1, err) || !in_range("top-p", o->top_p, 0, 1, err) ||
        !in_range("xtc-probability", o->xtc_probability, 0, 1, err) ||
        !in_range("xtc-threshold", o->xtc_threshold, 0, 0.5f, err)) {
        return false;
    }
    if (o->top_k < 0 || (o->top_k >= vocab_size && o->top_k > 0)) {
        return base_fail(err, ERROR_INPUT, "top-k must be from 0 to %d, not %d", vocab_size - 1,
                         o->top_k);
    }
    if (o->min_tokens_to_keep < 0) {
        return base_fail(err, ERROR_INPUT, "min-tokens-to-keep must not be negative");
    }
    if (!(o->repetition_penalty >= 0)) {
        return base_fail(err, ERROR_INPUT, "repetition-penalty must not be negative");
    }
    for (size_t i = 0; i < o->n_biases; i++) {
        if (o->bias_ids[i] < 0 || o->bias_ids[i] >= vocab_size) {
            return base_fail(err, ERROR_INPUT, "logit bias for token %d, the model has %d",
                             o->bias_ids[i], vocab_size);
        }
    }
    return true;
}

bool lm_sampler_init(LmSampler *sampler, const LmSampling *options, int vocab_size,
                     const int *special, size_t n_special, Error *err) {
    *sampler = (LmSampler){.options = *options, .vocab_size = vocab_size};
    if (!check(options, vocab_size, err)) return false;
    sampler->special = base_alloc((n_special + 1) * sizeof *special);
    if (n_special) memcpy(sampler->special, special, n_special * sizeof *special);
    sampler->n_special = n_special;
    return true;
}

void lm_sampler_free(LmSampler *sampler) {
    free(sampler->special);
    free(sampler->work);
    free(sampler->order);
    free(sampler->recent);
    *sampler = (LmSampler){0};
}

static bool has_processors(const LmSampler *sampler) {
    const LmSampling *o = &sampler->options;
    return o->repetition_penalty != 0 || o->presence_penalty != 0 || o->frequency_penalty != 0 ||
           o->n_biases > 0;
}

bool lm_sampler_is_argmax(const LmSampler *sampler) {
    return sampler->options.temp == 0 && !has_processors(sampler);
}

void lm_sampler_see(LmSampler *sampler, int id) {
    if (sampler->n_recent == sampler->recent_capacity) {
        sampler->recent = base_grow(sampler->recent, &sampler->recent_capacity,
                                    sampler->n_recent + 1, sizeof *sampler->recent);
    }
    sampler->recent[sampler->n_recent++] = id;
}

void lm_sampler_forget(LmSampler *sampler, size_t count) {
    sampler->n_recent -= BASE_MIN(count, sampler->n_recent);
}

/* ---- penalties -------------------------------------------------------------------------- */

typedef enum { REPETITION, PRESENCE, FREQUENCY } Penalty;

static void penalise(const LmSampler *sampler, float *logits, Penalty kind, float amount,
                     int context) {
    if (amount == 0) return;
    size_t span = context > 0    ? (size_t)context
                  : context == 0 ? DEFAULT_CONTEXT
                                 : sampler->n_recent;
    size_t first = sampler->n_recent > span ? sampler->n_recent - span : 0;
    for (size_t i = first; i < sampler->n_recent; i++) {
        int id = sampler->recent[i];
        bool again = false; /* the context is short, a search is cheaper than a set */
        for (size_t j = first; j < i && !again; j++) again = sampler->recent[j] == id;
        if (kind == FREQUENCY) {
            logits[id] -= amount;
        } else if (!again && kind == PRESENCE) {
            logits[id] -= amount;
        } else if (!again) {
            logits[id] = logits[id] < 0 ? logits[id] * amount : logits[id] / amount;
        }
    }
}

static void process(const LmSampler *sampler, float *logits) {
    const LmSampling *o = &sampler->options;
    for (size_t i = 0; i < o->n_biases; i++) logits[o->bias_ids[i]] += o->biases[i];
    penalise(sampler, logits, REPETITION, o->repetition_penalty, o->repetition_context);
    penalise(sampler, logits, PRESENCE, o->presence_penalty, o->presence_context);
    penalise(sampler, logits, FREQUENCY, o->frequency_penalty, o->frequency_context);
}

/* ---- filters ------------------------------------------------------------------------------ */

static float largest(const float *x, int count) {
    float best = -INFINITY;
    for (int i = 0; i < count; i++) best = x[i] > best ? x[i] : best;
    return best;
}

static float log_sum_exp(const float *x, int count) {
    float top = largest(x, count);
    double sum = 0;
    for (int i = 0; i < count; i++) sum += exp((double)(x[i] - top));
    return top + (float)log(sum);
}

/* A heap of ids with the largest x first; equal ones with the larger id first,
 * as the end of a stable ascending sort has them. */
static bool before(const float *x, int a, int b) {
    return x[a] != x[b] ? x[a] > x[b] : a > b;
}

static void sift(const float *x, int *heap, int count, int at) {
    for (;;) {
        int child = 2 * at + 1;
        if (child >= count) return;
        if (child + 1 < count && before(x, heap[child + 1], heap[child])) child++;
        if (!before(x, heap[child], heap[at])) return;
        int swap = heap[at];
        heap[at] = heap[child];
        heap[child] = swap;
        at = child;
    }
}

/* All ids with a finite x as a heap; returns how many. */
static int heapify(LmSampler *sampler, const float *x) {
    if (!sampler->order) sampler->order = base_alloc((size_t)sampler->vocab_size * sizeof(int));
    int count = 0;
    for (int i = 0; i < sampler->vocab_size; i++) {
        if (x[i] > -INFINITY) sampler->order[count++] = i;
    }
    for (int i = count / 2 - 1; i >= 0; i--) sift(x, sampler->order, count, i);
    return count;
}

/* Takes the largest id off the heap. */
static int pop(const float *x, int *heap, int *count) {
    int top = heap[0];
    heap[0] = heap[--*count];
    sift(x, heap, *count, 0);
    return top;
}

/* What is still on the heap is dropped. */
static void drop_rest(float *x, const int *heap, int count) {
    for (int i = 0; i < count; i++) x[heap[i]] = -INFINITY;
}

/* Keeps the likeliest tokens until they hold p of the probability. x holds
 * log-probabilities: a token stays while those above it sum to less than p. */
static void keep_top_p(LmSampler *sampler, float *x, float p) {
    int count = heapify(sampler, x);
    double above = 0;
    while (count > 0 && above < (double)p) above += exp((double)x[pop(x, sampler->order, &count)]);
    drop_rest(x, sampler->order, count);
}

static void keep_top_k(LmSampler *sampler, float *x, int k) {
    int count = heapify(sampler, x);
    for (int i = 0; i < k && count > 0; i++) pop(x, sampler->order, &count);
    drop_rest(x, sampler->order, count);
}

static void keep_min_p(LmSampler *sampler, float *x, float min_p, int keep) {
    float floor = largest(x, sampler->vocab_size) + logf(min_p);
    if (keep <= 1) {
        for (int i = 0; i < sampler->vocab_size; i++) x[i] = x[i] < floor ? -INFINITY : x[i];
        return;
    }
    int count = heapify(sampler, x);
    for (int i = 0; i < keep && count > 0; i++) pop(x, sampler->order, &count);
    for (int i = 0; i < count; i++) {
        if (x[sampler->order[i]] < floor) x[sampler->order[i]] = -INFINITY;
    }
}

/* Exclude top choices: of the tokens above the threshold only the least likely
 * stays (and the special ones). */
static void exclude_top(const LmSampler *sampler, float *x) {
    const LmSampling *o = &sampler->options;
    double total = (double)log_sum_exp(x, sampler->vocab_size), least = INFINITY;
    for (int i = 0; i < sampler->vocab_size; i++) {
        double p = exp((double)x[i] - total);
        if (p > (double)o->xtc_threshold && p < least) least = p;
    }
    for (int i = 0; i < sampler->vocab_size; i++) {
        if (exp((double)x[i] - total) <= least) continue;
        bool special = false;
        for (size_t j = 0; j < sampler->n_special && !special; j++)
            special = sampler->special[j] == i;
        if (!special) x[i] = -INFINITY;
    }
}

/* One draw decides for all rows of a call. */
static bool xtc_strikes(const LmSampler *sampler) {
    const LmSampling *o = &sampler->options;
    if (!(o->xtc_probability > 0)) return false;
    mx_scope s = mx_open();
    double drawn = mx_item_float(mx_uniform(0, 1, NULL, 0, MLX_FLOAT32));
    mx_drop(s);
    return drawn <= (double)o->xtc_probability;
}

/* Log-probabilities [count][vocab_size] -> an id a row. */
static void draw(const LmSampler *sampler, const float *x, int count, int *ids) {
    mx_scope s = mx_open();
    mlx_array logits = mx_from_f32(x, MX_SHAPE(count, sampler->vocab_size));
    mlx_array chosen = mx_categorical(mx_mul_scalar(logits, 1 / (double)sampler->options.temp), -1);
    mx_copy_i32(chosen, ids, (size_t)count);
    mx_drop(s);
}

static int argmax(const float *x, int count) {
    int best = 0;
    for (int i = 1; i < count; i++) best = x[i] > x[best] ? i : best;
    return best;
}

/* Log-probabilities x of one row through the filters, temperature left out. */
static void filter(LmSampler *sampler, float *x, bool xtc) {
    const LmSampling *o = &sampler->options;
    if (o->top_p > 0 && o->top_p < 1) keep_top_p(sampler, x, o->top_p);
    if (o->min_p > 0) keep_min_p(sampler, x, o->min_p, o->min_tokens_to_keep);
    if (xtc) exclude_top(sampler, x);
    if (o->top_k > 0) keep_top_k(sampler, x, o->top_k);
}

/* Rows whose processing is done. */
static void choose(LmSampler *sampler, const float *logits, int count, int *ids, float *logprobs) {
    int size = sampler->vocab_size;
    bool greedy = sampler->options.temp == 0, xtc = !greedy && xtc_strikes(sampler);
    size_t needed = (size_t)count * (size_t)size;
    if (!greedy && needed > sampler->work_capacity)
        sampler->work = base_grow(sampler->work, &sampler->work_capacity, needed, sizeof(float));
    for (int r = 0; r < count; r++) {
        const float *row = logits + (size_t)r * (size_t)size;
        if (greedy) {
            ids[r] = argmax(row, size);
            continue;
        }
        float *x = sampler->work + (size_t)r * (size_t)size, total = log_sum_exp(row, size);
        for (int i = 0; i < size; i++) x[i] = row[i] - total;
        filter(sampler, x, xtc);
        ids[r] = -1;
    }
    if (!greedy) draw(sampler, sampler->work, count, ids);
    for (int r = 0; r < count; r++) {
        const float *row = logits + (size_t)r * (size_t)size;
        if (ids[r] < 0 || ids[r] >= size) ids[r] = argmax(row, size); /* the draw failed */
        if (logprobs) logprobs[r] = row[ids[r]] - log_sum_exp(row, size);
    }
}

int lm_sampler_choose(LmSampler *sampler, float *logits, float *logprob) {
    int id;
    process(sampler, logits);
    choose(sampler, logits, 1, &id, logprob);
    return id;
}

void lm_sampler_choose_rows(LmSampler *sampler, float *logits, int count, int *ids,
                            float *logprobs) {
    if (!has_processors(sampler)) {
        choose(sampler, logits, count, ids, logprobs);
        return;
    }
    for (int r = 0; r < count; r++) {
        float *row = logits + (size_t)r * (size_t)sampler->vocab_size;
        ids[r] = lm_sampler_choose(sampler, row, logprobs ? &logprobs[r] : NULL);
        lm_sampler_see(sampler, ids[r]);
    }
    lm_sampler_forget(sampler, (size_t)count);
}
