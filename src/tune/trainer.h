/* The loop of a training run, and how it tells what it does.
 *
 * With compat everything happens as in mlx_lm.tuner.trainer: means of means, a tail
 * shorter than an accumulation dropped, validation before the step. Otherwise each
 * target token counts the same, the tail is used, validation measures what was reached,
 * and steps whose numbers are not finite are passed over. */
#ifndef TUNE_TRAINER_H
#define TUNE_TRAINER_H

#include "tune/run.h"

typedef enum {
    TUNE_REPORT_TRAIN, /* measurements: these are in metrics.jsonl too */
    TUNE_REPORT_VAL,
    TUNE_REPORT_TEST,
    TUNE_REPORT_SAVE, /* `file` was written */
    TUNE_REPORT_BEST,
    TUNE_REPORT_LONG, /* rows of up to `longest` tokens were cut */
    TUNE_REPORT_SKIP, /* a step whose loss or gradient is not finite had no effect */
    TUNE_REPORT_STOP  /* early: no better for `patience` validations */
} TuneReportKind;

typedef struct TuneReport {
    TuneReportKind kind;
    int iteration; /* steps done; of TRAIN and SKIP the step's number from 1 */
    double loss, accuracy;
    bool pairs; /* accuracy counts */
    double learning_rate, norm;
    double seconds, tokens_per_second, iterations_per_second;
    double trained_tokens; /* so far */
    double peak_memory;    /* 1e9 bytes */
    int longest;
    const char *file; /* borrowed */
} TuneReport;

typedef struct TuneListener {
    void (*report)(void *context, const TuneReport *report);
    /* Of "train", "val" or "test". May be NULL. */
    void (*progress)(void *context, const char *what, int done, int total);
    void *context;
} TuneListener;

/* Runs up to the settings' iters and fills the adapter's folder, which must exist:
 * adapters.safetensors, NNNNNNN_adapters.safetensors, trainer_state.safetensors,
 * metrics.jsonl and what else the settings ask for. `resume`: from the folder's state.
 * Ctrl-C saves, and is ERROR_INTERRUPTED. */
bool tune_train(TuneRun *run, const json_t *settings, bool resume, const TuneListener *listener,
                Error *err);
/* The loss over the test split. */
bool tune_test(TuneRun *run, const TuneListener *listener, Error *err);

#endif
