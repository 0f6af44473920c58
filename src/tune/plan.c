/* The plan of a pass. Sorted: rows by length, rows of one length in an order that
 * changes with the pass. mlx_lm's: rows by their number of members, the incomplete
 * last group left out. As they stand: just that. Packed: best fit, longest rows
 * first (or as they stand), into lines of max_seq_length, the lines shuffled. */
#include "tune/plan.h"

#include <stdlib.h>
#include <string.h>

#include "data/data.h"

typedef struct Place {
    int length;
    uint32_t row;
    uint64_t tie;
} Place;

void tune_plan_free(TunePlan *plan) {
    free(plan->rows);
    free(plan->starts);
    *plan = (TunePlan){0};
}

static int by_length(const void *a, const void *b) {
    const Place *x = a, *y = b;
    if (x->length != y->length) return x->length < y->length ? -1 : 1;
    if (x->tie != y->tie) return x->tie < y->tie ? -1 : 1;
    return x->row < y->row ? -1 : x->row > y->row;
}

/* One record a line. */
static void plain_lines(TunePlan *plan, const Place *places, size_t count, int batch_size) {
    plan->rows = base_calloc(count, sizeof *plan->rows);
    plan->starts = base_calloc(count + 1, sizeof *plan->starts);
    for (size_t i = 0; i < count; i++) {
        plan->rows[i] = places[i].row;
        plan->starts[i + 1] = i + 1;
    }
    plan->n_lines = count;
    plan->n_groups = (count + (size_t)batch_size - 1) / (size_t)batch_size;
}

/* ---- packing ---------------------------------------------------------------------------- */

/* Lines under construction, listed by the room they have left; the least room that
 * suffices is found by a bit a size. */
typedef struct Packer {
    size_t capacity, n_words;
    uint32_t *first; /* [capacity + 1]: line + 1 with that much room, 0 none */
    uint64_t *any;   /* bit a size: whether first is set */
    uint32_t *next;  /* [lines]: another line of the same room */
    size_t n_lines;
} Packer;

static void packer_put(Packer *packer, size_t room, uint32_t line) {
    packer->next[line] = packer->first[room];
    packer->first[room] = line + 1;
    packer->any[room / 64] |= UINT64_C(1) << room % 64;
}

/* A line with the least room that holds `length`, taken off its list; a new one else. */
static uint32_t packer_take(Packer *packer, size_t length, size_t *room) {
    uint64_t bits = packer->any[length / 64] & ~UINT64_C(0) << length % 64;
    for (size_t word = length / 64;;) {
        if (bits) {
            *room = word * 64 + (size_t)__builtin_ctzll(bits);
            uint32_t line = packer->first[*room] - 1;
            packer->first[*room] = packer->next[line];
            if (!packer->first[*room]) packer->any[word] &= ~(bits & -bits);
            return line;
        }
        if (++word == packer->n_words) break;
        bits = packer->any[word];
    }
    *room = packer->capacity;
    return (uint32_t)packer->n_lines++;
}

static void packed_lines(TunePlan *plan, const Place *places, size_t count,
                         const TuneBatchOptions *options, uint64_t pass) {
    Packer packer = {.capacity = (size_t)options->max_seq_length};
    packer.n_words = packer.capacity / 64 + 1;
    packer.first = base_calloc(packer.capacity + 1, sizeof *packer.first);
    packer.any = base_calloc(packer.n_words, sizeof *packer.any);
    packer.next = base_calloc(count, sizeof *packer.next);
    uint32_t *line_of = base_calloc(count, sizeof *line_of);
    /* Sorted places are taken from the longest down, others as they stand. */
    bool stand = options->order == TUNE_ORDER_FILE;
    for (size_t n = 0; n < count; n++) {
        size_t i = stand ? n : count - 1 - n;
        size_t room, length = BASE_MIN((size_t)places[i].length, packer.capacity);
        line_of[i] = packer_take(&packer, length, &room);
        packer_put(&packer, room - length, line_of[i]);
    }
    /* Where each line goes, how many rows it has, then the rows in their places. */
    size_t n_lines = packer.n_lines;
    uint32_t *goes = base_calloc(n_lines, sizeof *goes);
    for (size_t i = 0; i < n_lines; i++)
        goes[i] = (uint32_t)(stand ? i : dx_permute(options->seed, pass, n_lines, i));
    plan->rows = base_calloc(count, sizeof *plan->rows);
    plan->starts = base_calloc(n_lines + 2, sizeof *plan->starts);
    for (size_t i = 0; i < count; i++) plan->starts[goes[line_of[i]] + 2]++;
    for (size_t i = 2; i < n_lines + 2; i++) plan->starts[i] += plan->starts[i - 1];
    for (size_t n = 0; n < count; n++) {
        size_t i = stand ? n : count - 1 - n;
        plan->rows[plan->starts[goes[line_of[i]] + 1]++] = places[i].row;
    }
    plan->n_lines = n_lines;
    plan->n_groups = (n_lines + (size_t)options->batch_size - 1) / (size_t)options->batch_size;
    free(goes);
    free(line_of);
    free(packer.first);
    free(packer.any);
    free(packer.next);
}

/* ---- the face ----------------------------------------------------------------------------- */

/* Lengths by which rows are sorted: tokens, of the longer half of a preference; or,
 * as mlx_lm does, the number of members. */
static bool measure(Place *places, size_t count, TuneData *data, const TuneBatchOptions *options,
                    uint64_t pass, Error *err) {
    bool tokens = options->order == TUNE_ORDER_SORTED || options->pack;
    if (tokens && !tune_data_tokenise(data, err)) return false;
    for (size_t i = 0; i < count; i++) {
        TuneRow row = {0}, other = {0};
        places[i].row = (uint32_t)i;
        if (options->order == TUNE_ORDER_COMPAT) {
            if (!tune_data_keys(data, i, &places[i].length, err)) return false;
            places[i].tie = i;
        } else if (tokens) {
            if (!tune_data_row(data, i, false, &row, err) ||
                (options->pairs && !tune_data_row(data, i, true, &other, err)))
                return false;
            places[i].length = BASE_MAX(row.length, other.length);
            DxRandom random = dx_random_of(options->seed, pass, i);
            places[i].tie = dx_random(&random);
        }
    }
    return true;
}

bool tune_plan_make(TunePlan *plan, TuneData *data, const TuneBatchOptions *options, uint64_t pass,
                    Error *err) {
    /* These orders are the same in every pass. */
    if (plan->rows && !options->pack && options->order != TUNE_ORDER_SORTED) return true;
    size_t count = tune_data_count(data);
    Place *places = base_calloc(count, sizeof *places);
    if (!measure(places, count, data, options, pass, err)) {
        free(places);
        return false;
    }
    tune_plan_free(plan);
    if (options->order != TUNE_ORDER_FILE) qsort(places, count, sizeof *places, by_length);
    if (options->pack)
        packed_lines(plan, places, count, options, pass);
    else
        plain_lines(plan, places, count, options->batch_size);
    if (options->order == TUNE_ORDER_COMPAT) plan->n_groups = count / (size_t)options->batch_size;
    free(places);
    return true;
}

size_t tune_plan_group(const TunePlan *plan, const TuneBatchOptions *options, uint64_t pass,
                       size_t position) {
    if (options->order == TUNE_ORDER_FILE || options->pack) return position;
    return (size_t)dx_permute(options->seed, pass, plan->n_groups, position);
}
