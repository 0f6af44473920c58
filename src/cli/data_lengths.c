/* Lengths of rows in tokens: what they add up to, and a histogram of them. */
#include "cli/data.h"

#include <stdlib.h>
#include <string.h>

enum { BINS = 12, BAR = 40 };

void lengths_add(DataLengths *lengths, int32_t value) {
    lengths->values =
        base_grow(lengths->values, &lengths->capacity, lengths->count + 1, sizeof *lengths->values);
    lengths->values[lengths->count++] = value;
}

void lengths_free(DataLengths *lengths) {
    free(lengths->values);
    *lengths = (DataLengths){0};
}

bool lengths_of_rows(TuneData *data, DataLengths *lengths, Error *err) {
    if (!tune_data_tokenise(data, err)) return false;
    const int halves = tune_data_pairs(data) ? 2 : 1;
    for (size_t i = 0; i < tune_data_count(data); i++)
        for (int half = 0; half < halves; half++) {
            TuneRow row;
            if (!tune_data_row(data, i, half == 1, &row, err)) return false;
            lengths_add(lengths, row.length);
        }
    return true;
}

static int by_value(const void *a, const void *b) {
    int32_t one = *(const int32_t *)a, other = *(const int32_t *)b;
    return one < other ? -1 : one > other;
}

/* The least value that at least this share of all does not pass. */
static int32_t percentile(const DataLengths *lengths, double share) {
    size_t at = (size_t)(share * (double)lengths->count);
    return lengths->values[BASE_MIN(at, lengths->count - 1)];
}

typedef struct Summary {
    int64_t sum;
    double mean;
    size_t over;   /* longer than the limit */
    int32_t width; /* of a bin: 1, 2 or 5 times a power of ten */
    size_t bins[BINS + 1], n_bins;
} Summary;

static Summary summarise(DataLengths *lengths, int32_t limit) {
    Summary all = {.width = 1};
    if (lengths->count == 0) return all;
    qsort(lengths->values, lengths->count, sizeof *lengths->values, by_value);
    int32_t most = lengths->values[lengths->count - 1];
    for (int step = 0; most / all.width >= BINS; step++)
        all.width = step % 3 == 1 ? all.width / 2 * 5 : all.width * 2;
    for (size_t i = 0; i < lengths->count; i++) {
        int32_t value = lengths->values[i];
        all.sum += value;
        all.over += limit > 0 && value > limit;
        all.bins[BASE_MIN(value / all.width, BINS)]++;
    }
    all.n_bins = (size_t)(most / all.width) + 1;
    all.mean = (double)all.sum / (double)lengths->count;
    return all;
}

json_t *lengths_json(DataLengths *lengths, int32_t limit) {
    Summary all = summarise(lengths, limit);
    json_t *out =
        json_pack("{s:I,s:I}", "rows", (json_int_t)lengths->count, "tokens", (json_int_t)all.sum);
    if (lengths->count == 0) return out;
    json_t *bins = json_array();
    for (size_t i = 0; i < all.n_bins; i++)
        json_array_append_new(bins, json_integer((json_int_t)all.bins[i]));
    json_t *more =
        json_pack("{s:i,s:i,s:f,s:i,s:i,s:i,s:{s:i,s:o}}", "min", lengths->values[0], "median",
                  percentile(lengths, 0.5), "mean", all.mean, "p90", percentile(lengths, 0.9),
                  "p99", percentile(lengths, 0.99), "max", lengths->values[lengths->count - 1],
                  "histogram", "bin_width", all.width, "rows", bins);
    json_object_update(out, more);
    json_decref(more);
    if (limit > 0) json_object_set_new(out, "longer", json_integer((json_int_t)all.over));
    return out;
}

void lengths_print(DataLengths *lengths, int32_t limit) {
    Summary all = summarise(lengths, limit);
    if (lengths->count == 0) return;
    size_t most = 1;
    for (size_t i = 0; i < all.n_bins; i++) most = BASE_MAX(most, all.bins[i]);
    printf("  %lld tokens in %zu rows: %d least, %d median, %.1f mean, %d at 90 %%, %d at 99 %%, "
           "%d most\n",
           (long long)all.sum, lengths->count, lengths->values[0], percentile(lengths, 0.5),
           all.mean, percentile(lengths, 0.9), percentile(lengths, 0.99),
           lengths->values[lengths->count - 1]);
    for (size_t i = 0; i < all.n_bins; i++) {
        char bar[BAR + 1];
        size_t length = (all.bins[i] * BAR + most - 1) / most;
        memset(bar, '#', length);
        bar[length] = '\0';
        printf("  %6d to %6d %7zu %s\n", (int)i * all.width, (int)(i + 1) * all.width - 1,
               all.bins[i], bar);
    }
    if (limit > 0 && all.over)
        printf("  %zu rows are longer than %d tokens: training cuts them\n", all.over, limit);
}
