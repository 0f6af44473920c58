/* Where a run stands, in one file: weights, optimiser, gradients under way, random
 * numbers, the place in the data and all counters. What goes on from it does what the
 * uninterrupted run does, bit for bit. */
#ifndef TUNE_STATE_H
#define TUNE_STATE_H

#include "tune/run.h"

/* Counters of the loop. */
typedef struct TunePlace {
    int iteration; /* micro-steps done */
    int validated; /* steps that were done at the last validation; -1: none yet */
    bool stopped;  /* early */

    int pending; /* micro-steps since the last update */
    double pending_targets;

    double window_loss, window_weight, window_tokens, window_seconds; /* since the last report */
    int window_steps;
    double trained_tokens;

    double best; /* validation loss; its iteration -1: none yet */
    int best_iteration, stale;

    double window_won; /* of pairs: those that the chosen one won */

    double norm, last_norm; /* the gradient's: running mean of its logarithm; of the last update */
    int norms;
    int skipped, skipped_in_row;

    uint64_t metrics; /* bytes of metrics.jsonl that belong to what is done */
} TunePlace;

#define TUNE_STATE_FILE "trainer_state.safetensors"

/* sums: gradients under way, tune_model_count of them, or NULL when none are. settings:
 * the run's record. Atomic. */
bool tune_state_save(const char *file, const TuneRun *run, const TunePlace *place,
                     const mlx_array *sums, const json_t *settings, Error *err);
/* The settings' record of a saved state; caller json_decref's. */
json_t *tune_state_settings(const char *file, Error *err);
/* Puts a run that was opened anew where the saved one stood. sums[i]: held, when
 * place->pending is not 0. On failure the run is of no use. */
bool tune_state_load(const char *file, TuneRun *run, TunePlace *place, mlx_array *sums, Error *err);

#endif
