/* Everything that a training run needs, assembled from its settings: model, adapter,
 * data, batches, optimiser. What can be wrong is found here, before any work. */
#ifndef TUNE_RUN_H
#define TUNE_RUN_H

#include "tune/batch.h"
#include "tune/config.h"
#include "tune/model.h"
#include "tune/optimizer.h"
#include "tune/step.h"

typedef struct TuneRun {
    TuneConfig *config; /* borrowed; what the data and the model decide is filled in */
    TuneModel *model;
    TuneData *train, *valid, *test; /* NULL: not asked for, or no rows */
    TuneBatches *batches;           /* of train; NULL without */
    TuneOptimizer *optimizer;       /* NULL without train */
    MersenneTwister random;         /* what mlx_lm draws orders from */
    int widest;                     /* tokens of the longest row, as it is cut or packed */
    TuneStepOptions step;
    TuneAdapterOptions adapter; /* as the model was opened with */
    const char **keys;          /* behind it */
} TuneRun;

typedef struct TuneRunOptions {
    const char *model; /* folder; the settings' name may be a hub's id */
    bool resuming;     /* weights come from a saved state: no adapter's file is read */
    bool quiet, json;  /* of progress while rows are tokenised */
} TuneRunOptions;

/* false: *err, and *run is {0}. tune_run_close. */
bool tune_run_open(TuneRun *run, TuneConfig *config, const TuneRunOptions *options, Error *err);
void tune_run_close(TuneRun *run);

/* Batches of another split, from its beginning, one pass: always the same ones, or with
 * compat in the order that is drawn next. NULL on failure. */
TuneBatches *tune_run_split(TuneRun *run, TuneData *data, Error *err);

/* Bytes that training will hold at most, roughly. */
typedef struct TuneMemory {
    uint64_t weights;     /* of the base */
    uint64_t trained;     /* values that train, their gradients, the optimiser's state */
    uint64_t activations; /* of the widest batch that the settings allow */
    uint64_t total, machine;
} TuneMemory;
TuneMemory tune_run_memory(const TuneRun *run);
/* Fails when the run needs more than the machine has. */
bool tune_run_fits(const TuneRun *run, Error *err);

#endif
