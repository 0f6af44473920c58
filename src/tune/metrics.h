/* The measurements of a run in its adapter's folder: metrics.jsonl, one object a report,
 * and, if asked for, files of events. */
#ifndef TUNE_METRICS_H
#define TUNE_METRICS_H

#include "tune/trainer.h"

#define TUNE_METRICS_FILE "metrics.jsonl"

/* {"type": "train", "iter", "loss", "learning_rate", "tokens", "tokens_per_sec",
 *  "peak_memory", ...}; NULL for what is no measurement. Caller json_decref's. */
json_t *tune_metrics_json(const TuneReport *report);

typedef struct TuneMetrics TuneMetrics;
/* keep: bytes of an earlier part that stay, up to iteration `done`. events: TensorBoard's
 * files in the folder too. NULL on failure. */
TuneMetrics *tune_metrics_open(const char *folder, uint64_t keep, int done, bool events,
                               Error *err);
bool tune_metrics_write(TuneMetrics *metrics, const TuneReport *report, Error *err);
uint64_t tune_metrics_bytes(const TuneMetrics *metrics);
void tune_metrics_close(TuneMetrics *metrics); /* NULL ok */

#endif
