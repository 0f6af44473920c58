/* Inside tune's batches: which rows stand together in one pass over the data. */
#ifndef TUNE_PLAN_H
#define TUNE_PLAN_H

#include "tune/batch.h"

/* A line is a row of a batch: one record, or several that are packed; a group is
 * batch_size lines, the last one perhaps fewer. */
typedef struct TunePlan {
    uint32_t *rows; /* [all]: records, line after line */
    size_t *starts; /* [n_lines + 1]: where in `rows` each line begins */
    size_t n_lines, n_groups;
} TunePlan;

/* The plan of a pass; replaces *plan (start with {0}). Always the same number of
 * groups for the same data and options. */
bool tune_plan_make(TunePlan *plan, TuneData *data, const TuneBatchOptions *options, uint64_t pass,
                    Error *err);
/* The group that comes at a position of the pass; not of mlx_lm's order. */
size_t tune_plan_group(const TunePlan *plan, const TuneBatchOptions *options, uint64_t pass,
                       size_t position);
void tune_plan_free(TunePlan *plan);

#endif
