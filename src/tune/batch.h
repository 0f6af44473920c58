/* Batches for one micro-step of training, from a split's rows: which rows stand
 * together, in which order the batches come, how they are padded or packed, and
 * which tokens are targets. Where a run stands is a few numbers that are saved and
 * restored. */
#ifndef TUNE_BATCH_H
#define TUNE_BATCH_H

#include "tune/dataset.h"

/* What one micro-step is given. Of preferences rows = 2 n: n chosen, then their n
 * rejected. */
typedef struct TuneBatch {
    int rows, width; /* ids [rows, width], right padded with 0 */
    int32_t *ids;
    float *weights; /* [rows, width]: how much ids[r][s] counts as a target; 0 or 1; s = 0 never */
    int32_t
        *segments; /* packed rows: document of each token from 1, 0 padding; NULL when not packed */
    size_t tokens; /* that are not padding */
    double targets; /* sum of weights */
    int longest;    /* tokens of the longest record, before any was cut to max_seq_length */
} TuneBatch;
void tune_batch_free(TuneBatch *batch); /* what it holds, not itself; makes it {0} */

typedef enum {
    TUNE_ORDER_SORTED, /* by token length into buckets, buckets shuffled anew in every pass */
    TUNE_ORDER_COMPAT, /* mlx_lm's groups, its padding to 1 + 32 k, its numpy permutation; what
                        * does not fill a batch is never used */
    TUNE_ORDER_FILE    /* rows as they stand, batch after batch, around again */
} TuneOrder;

typedef struct TuneBatchOptions {
    int batch_size; /* of all ranks together: rows, packed rows, or preferences */
    int max_seq_length;
    TuneOrder order;
    uint64_t seed;
    bool pack;       /* several records in a row of max_seq_length; not with COMPAT or pairs */
    bool once;       /* one pass, then 0; the call after that begins another pass */
    bool pairs;      /* must be as the data's */
    bool pad_target; /* mlx_lm counts the first pad */
    MersenneTwister *random; /* COMPAT: drawn from at the begin of each pass; borrowed */
    int rank, world;         /* world 0 is 1 */
} TuneBatchOptions;

/* `data` is borrowed. SORTED and pack tokenise all rows here. NULL on failure: no rows,
 * with COMPAT fewer rows than a batch, a batch that the ranks cannot share. */
typedef struct TuneBatches TuneBatches;
TuneBatches *tune_batches_new(TuneData *data, const TuneBatchOptions *options, Error *err);
/* 1: *batch filled (caller tune_batch_free's), 0: the pass is over (once), -1: failure.
 * With several ranks a last batch that has too few rows for all is filled up with
 * rows that weigh nothing. */
int tune_batches_next(TuneBatches *batches, TuneBatch *batch, Error *err);
/* Begins the pass that the next batch is in, if that is due; with COMPAT its order is drawn
 * now. mlx_lm takes a batch before it validates, and both draw. */
bool tune_batches_begin(TuneBatches *batches, Error *err);
/* Where it stands, before the next batch. Caller json_decref's. The twister is the
 * caller's to save. */
json_t *tune_batches_state(const TuneBatches *batches);
/* Fails, and changes nothing, for a state of other data or options. */
bool tune_batches_restore(TuneBatches *batches, const json_t *state, Error *err);
double tune_batches_epoch(const TuneBatches *batches); /* passes done so far, fractional */
size_t tune_batches_per_epoch(const TuneBatches *batches);
void tune_batches_free(TuneBatches *batches); /* NULL ok */

#endif
