/* Batches. A pass is a plan: lines (each one row, or several packed ones) in an
 * order, cut into groups of batch_size lines, and an order of the groups. The plan
 * follows from the data, the options and the number of the pass, so a saved state
 * is the pass and the place in it; only mlx_lm's permutation, drawn from a
 * generator that others draw from too, is stored. */
#include "tune/batch.h"

#include <stdlib.h>
#include <string.h>

#include "tune/plan.h"

struct TuneBatches {
    TuneData *data;
    TuneBatchOptions options;
    TunePlan plan;      /* of `pass` */
    uint64_t pass;      /* passes begun before this one */
    size_t position;    /* next batch of the pass */
    uint32_t *permuted; /* COMPAT: the order of this pass; NULL before it begins */
};

void tune_batch_free(TuneBatch *batch) {
    free(batch->ids);
    free(batch->weights);
    free(batch->segments);
    *batch = (TuneBatch){0};
}

/* ---- opening ----------------------------------------------------------------------------- */

static bool check(const TuneData *data, const TuneBatchOptions *options, Error *err) {
    size_t count = tune_data_count(data);
    if (options->batch_size < 1 || options->max_seq_length < 2)
        return base_fail(err, ERROR_INPUT,
                         "batches of %d rows of at most %d tokens; 1 and 2 are the least",
                         options->batch_size, options->max_seq_length);
    if (count == 0) return base_fail(err, ERROR_INPUT, "the data set has no rows");
    if (count > UINT32_MAX) return base_fail(err, ERROR_UNSUPPORTED, "more than 2^32 rows");
    if (options->order == TUNE_ORDER_COMPAT && count < (size_t)options->batch_size)
        return base_fail(err, ERROR_INPUT,
                         "Dataset must have at least batch_size=%d examples but only has %zu.",
                         options->batch_size, count);
    if (options->rank < 0 || options->rank >= options->world)
        return base_fail(err, ERROR_INPUT, "rank %d of %d", options->rank, options->world);
    if (options->batch_size % options->world != 0)
        return base_fail(err, ERROR_INPUT,
                         "The batch size must be divisible by the number of workers");
    if (options->pairs != tune_data_pairs(data))
        return base_fail(err, ERROR_INPUT,
                         options->pairs ? "the data are not preferences"
                                        : "the data are preferences");
    if (options->pack && (options->pairs || options->order == TUNE_ORDER_COMPAT))
        return base_fail(err, ERROR_INPUT, "%s cannot be packed",
                         options->pairs ? "preferences" : "batches in mlx_lm's order");
    if (options->order == TUNE_ORDER_COMPAT && !options->random)
        return base_fail(err, ERROR_INTERNAL, "mlx_lm's order needs its generator");
    return true;
}

TuneBatches *tune_batches_new(TuneData *data, const TuneBatchOptions *options, Error *err) {
    TuneBatches *batches = base_calloc(1, sizeof *batches);
    batches->data = data;
    batches->options = *options;
    if (batches->options.world == 0) batches->options.world = 1;
    if (!check(data, &batches->options, err) ||
        !tune_plan_make(&batches->plan, data, &batches->options, 0, err)) {
        tune_batches_free(batches);
        return NULL;
    }
    return batches;
}

void tune_batches_free(TuneBatches *batches) {
    if (!batches) return;
    tune_plan_free(&batches->plan);
    free(batches->permuted);
    free(batches);
}

size_t tune_batches_per_epoch(const TuneBatches *batches) {
    return batches->plan.n_groups;
}

double tune_batches_epoch(const TuneBatches *batches) {
    return (double)batches->pass + (double)batches->position / (double)batches->plan.n_groups;
}

/* ---- one batch ------------------------------------------------------------------------------ */

/* The rows of one line of a batch, at most `limit` tokens of each. */
static bool line_rows(TuneBatches *batches, size_t line, bool rejected, TuneRow **rows,
                      size_t *count, Error *err) {
    size_t first = batches->plan.starts[line];
    *count = batches->plan.starts[line + 1] - first;
    *rows = base_calloc(*count, sizeof **rows);
    for (size_t i = 0; i < *count; i++)
        if (!tune_data_row(batches->data, batches->plan.rows[first + i], rejected, &(*rows)[i],
                           err)) {
            free(*rows);
            return false;
        }
    return true;
}

typedef struct Line {
    TuneRow *rows;
    size_t count;
    bool weightless; /* stands for a row that another rank counts */
} Line;

static int cut_length(const TuneBatches *batches, const TuneRow *row) {
    return BASE_MIN(row->length, batches->options.max_seq_length);
}

static int line_length(const TuneBatches *batches, const Line *line, int *longest) {
    int length = 0;
    for (size_t i = 0; i < line->count; i++) {
        length += cut_length(batches, &line->rows[i]);
        *longest = BASE_MAX(*longest, line->rows[i].length);
    }
    return length;
}

static int width_of(const TuneBatches *batches, int length) {
    int most = batches->options.max_seq_length;
    if (batches->options.order != TUNE_ORDER_COMPAT) return BASE_MAX(length, 2);
    int64_t padded = 1 + 32 * (((int64_t)length + 31) / 32);
    return (int)BASE_MIN(padded, most);
}

/* Writes one row at `at` of a line; the token that a document begins with is no target. */
static void place_row(const TuneBatches *batches, const TuneRow *row, bool weightless, int at,
                      TuneBatch *batch, size_t line) {
    const size_t start = line * (size_t)batch->width;
    int length = cut_length(batches, row);
    if (length) memcpy(batch->ids + start + at, row->ids, (size_t)length * sizeof *row->ids);
    batch->tokens += (size_t)length;
    for (int run = 0; run < row->n_targets && !weightless; run++) {
        int begin = BASE_MAX(row->targets[2 * run], 1), end = row->targets[2 * run + 1];
        bool last = end == row->length;
        end = BASE_MIN(end, length) + (last && batches->options.pad_target);
        for (int s = begin; s < end && at + s < batch->width; s++) {
            batch->weights[start + (size_t)(at + s)] = 1;
            batch->targets++;
        }
    }
}

static bool fill_batch(const TuneBatches *batches, const Line *lines, size_t count,
                       TuneBatch *batch, Error *err) {
    int length = 0;
    for (size_t i = 0; i < count; i++)
        length = BASE_MAX(length, line_length(batches, &lines[i], &batch->longest));
    batch->rows = (int)count;
    batch->width = width_of(batches, length);
    size_t elements = count * (size_t)batch->width;
    batch->ids = base_try_alloc(elements, sizeof *batch->ids, err);
    batch->weights = base_try_alloc(elements, sizeof *batch->weights, err);
    if (batches->options.pack)
        batch->segments = base_try_alloc(elements, sizeof *batch->segments, err);
    if (!batch->ids || !batch->weights || (batches->options.pack && !batch->segments)) return false;
    memset(batch->ids, 0, elements * sizeof *batch->ids);
    memset(batch->weights, 0, elements * sizeof *batch->weights);
    if (batch->segments) memset(batch->segments, 0, elements * sizeof *batch->segments);
    for (size_t i = 0; i < count; i++) {
        int at = 0;
        for (size_t j = 0; j < lines[i].count; j++) {
            const TuneRow *row = &lines[i].rows[j];
            place_row(batches, row, lines[i].weightless, at, batch, i);
            int next = at + cut_length(batches, row);
            for (; batch->segments && at < next; at++)
                batch->segments[i * (size_t)batch->width + (size_t)at] = (int32_t)j + 1;
            at = next;
        }
    }
    return true;
}

/* The lines of a group that are this rank's: every world-th. */
static bool make_batch(TuneBatches *batches, size_t group, TuneBatch *batch, Error *err) {
    const TuneBatchOptions *options = &batches->options;
    size_t size = (size_t)options->batch_size, world = (size_t)options->world;
    size_t first = group * size, halves = options->pairs ? 2 : 1;
    size_t here = BASE_MIN(size, batches->plan.n_lines - first), share = (here + world - 1) / world;
    Line *lines = base_calloc(share * halves, sizeof *lines);
    bool ok = true;
    size_t filled = 0;
    for (size_t half = 0; ok && half < halves; half++)
        for (size_t i = 0; ok && i < share; i++) {
            size_t at = i * world + (size_t)options->rank;
            Line *line = &lines[filled];
            line->weightless = at >= here;
            ok = line_rows(batches, first + (line->weightless ? 0 : at), half == 1, &line->rows,
                           &line->count, err);
            filled += ok;
        }
    ok = ok && fill_batch(batches, lines, filled, batch, err);
    for (size_t i = 0; i < filled; i++) free(lines[i].rows);
    free(lines);
    if (!ok) tune_batch_free(batch);
    return ok;
}

/* ---- the pass ---------------------------------------------------------------------------------
 */

static bool begin_next_pass(TuneBatches *batches, Error *err) {
    free(batches->permuted);
    batches->permuted = NULL;
    batches->pass++;
    batches->position = 0;
    return tune_plan_make(&batches->plan, batches->data, &batches->options, batches->pass, err);
}

static size_t group_at(const TuneBatches *batches, size_t position) {
    if (batches->permuted) return batches->permuted[position];
    return tune_plan_group(&batches->plan, &batches->options, batches->pass, position);
}

bool tune_batches_begin(TuneBatches *batches, Error *err) {
    const TuneBatchOptions *options = &batches->options;
    if (batches->position == batches->plan.n_groups && !begin_next_pass(batches, err)) return false;
    if (options->order == TUNE_ORDER_COMPAT && !batches->permuted) {
        batches->permuted = base_calloc(batches->plan.n_groups, sizeof *batches->permuted);
        base_mersenne_permutation(options->random, (uint32_t)batches->plan.n_groups,
                                  batches->permuted);
    }
    return true;
}

int tune_batches_next(TuneBatches *batches, TuneBatch *batch, Error *err) {
    *batch = (TuneBatch){0};
    if (batches->options.once && batches->position == batches->plan.n_groups)
        return begin_next_pass(batches, err) ? 0 : -1;
    if (!tune_batches_begin(batches, err) ||
        !make_batch(batches, group_at(batches, batches->position), batch, err))
        return -1;
    batches->position++;
    return 1;
}

/* ---- state --------------------------------------------------------------------------------------
 */

/* What must agree between a state and the batches that take it. */
static json_t *describe(const TuneBatches *batches) {
    static const char *const orders[] = {"sorted", "compat", "file"};
    const TuneBatchOptions *options = &batches->options;
    return json_pack("{s:I,s:i,s:i,s:s,s:I,s:b,s:b,s:i}", "rows",
                     (json_int_t)tune_data_count(batches->data), "batch_size", options->batch_size,
                     "max_seq_length", options->max_seq_length, "order", orders[options->order],
                     "seed", (json_int_t)options->seed, "pack", options->pack, "pairs",
                     options->pairs, "workers", options->world);
}

json_t *tune_batches_state(const TuneBatches *batches) {
    json_t *state = json_pack("{s:o,s:I,s:I}", "of", describe(batches), "epoch",
                              (json_int_t)batches->pass, "position", (json_int_t)batches->position);
    if (batches->permuted) {
        json_t *order = json_array();
        for (size_t i = 0; i < batches->plan.n_groups; i++)
            json_array_append_new(order, json_integer(batches->permuted[i]));
        json_object_set_new(state, "permutation", order);
    }
    return state;
}

static bool same_setting(const json_t *of, const json_t *now, Error *err) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)now, key, value) {
        if (json_equal(value, json_object_get(of, key))) continue;
        json_t *other = json_object_get(of, key);
        char *before = other ? json_dumps(other, JSON_ENCODE_ANY) : NULL;
        char *after = json_dumps(value, JSON_ENCODE_ANY);
        base_fail(err, ERROR_INPUT, "the saved run had %s %s, this one has %s", key,
                  before ? before : "unset", after ? after : "");
        free(before);
        free(after);
        return false;
    }
    return true;
}

/* NULL when there is none or it is no permutation of [0, count). */
static uint32_t *read_permutation(const json_t *list, size_t count) {
    if (json_array_size(list) != count) return NULL;
    uint32_t *order = base_calloc(count, sizeof *order);
    bool *seen = base_calloc(count, sizeof *seen), good = true;
    for (size_t i = 0; good && i < count; i++) {
        json_int_t at = json_integer_value(json_array_get(list, i));
        good =
            json_is_integer(json_array_get(list, i)) && at >= 0 && (size_t)at < count && !seen[at];
        if (!good) break;
        seen[at] = true;
        order[i] = (uint32_t)at;
    }
    free(seen);
    if (good) return order;
    free(order);
    return NULL;
}

bool tune_batches_restore(TuneBatches *batches, const json_t *state, Error *err) {
    json_t *now = describe(batches);
    bool same = same_setting(json_object_get(state, "of"), now, err);
    json_decref(now);
    if (!same) return false;
    const json_t *epoch = json_object_get(state, "epoch");
    const json_t *position = json_object_get(state, "position");
    const json_t *list = json_object_get(state, "permutation");
    size_t groups = batches->plan.n_groups;
    bool good = json_is_integer(epoch) && json_integer_value(epoch) >= 0 &&
                json_is_integer(position) && json_integer_value(position) >= 0 &&
                (size_t)json_integer_value(position) <= groups;
    uint32_t *order = good && list ? read_permutation(list, groups) : NULL;
    bool begun =
        good && batches->options.order == TUNE_ORDER_COMPAT && json_integer_value(position) > 0;
    if (!good || (list && !order) || (begun && !order)) {
        free(order);
        return base_fail(err, ERROR_INPUT, "the saved place in the data is damaged");
    }
    TunePlan plan = {0};
    uint64_t pass = (uint64_t)json_integer_value(epoch);
    if (!tune_plan_make(&plan, batches->data, &batches->options, pass, err)) {
        free(order);
        return false;
    }
    tune_plan_free(&batches->plan);
    free(batches->permuted);
    batches->plan = plan;
    batches->permuted = order;
    batches->pass = pass;
    batches->position = (size_t)json_integer_value(position);
    return true;
}
