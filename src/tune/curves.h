/* The course of a training run, read from the metrics.jsonl in its adapter folder:
 *     {"type":"train","iter":10,"loss":2.31,"learning_rate":1e-05,...}
 *     {"type":"val","iter":200,"loss":2.02,...} */
#ifndef TUNE_CURVES_H
#define TUNE_CURVES_H

#include "base/base.h"

typedef struct TunePoint {
    double iter, loss;
} TunePoint;

typedef struct TuneCurve {
    TunePoint *points; /* iter ascends */
    size_t count, capacity;
} TuneCurve;

enum { TUNE_TRAIN, TUNE_VAL, TUNE_CURVES };
extern const char *const tune_curve_names[TUNE_CURVES]; /* "train", "val" */

typedef struct TuneRun {
    char *name; /* the folder's */
    TuneCurve curves[TUNE_CURVES];
} TuneRun;

/* `path`: the folder, or the file itself. A last line that is not finished, as a run in
 * progress may leave it, is passed over. Where a run went back, after a stop, what it
 * did again counts. A loss that is no number (null) is no point. Fails on a damaged
 * line, named, and when there is no point at all. */
bool tune_run_read(const char *path, TuneRun *run, Error *err);
void tune_run_free(TuneRun *run); /* what it holds, not itself */

/* {"run", "train": {"points", "first", "last", "best", "best_iter", "last_iter"}, "val": ...};
 * a curve without points is null. Caller json_decref's. */
json_t *tune_run_json(const TuneRun *run);

#endif
