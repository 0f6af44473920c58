/* The learning rate of an update, as mlx.optimizers.schedulers computes it.
 *
 * A schedule is mlx-lm's object {"name", "arguments": [...], "warmup": n,
 * "warmup_init": x}; without one the rate is constant. All values are float32
 * and step by step those of MLX 0.31. */
#ifndef TUNE_SCHEDULE_H
#define TUNE_SCHEDULE_H

#include "base/base.h"

typedef struct TuneSchedule {
    float (*rate)(const float *arguments, uint64_t step);
    float arguments[3];
    uint64_t warmup; /* updates; 0: none */
    float warmup_init;
} TuneSchedule;

TuneSchedule tune_schedule_constant(double learning_rate);
/* Reads the object; the message says which entry is wrong. */
bool tune_schedule_parse(const json_t *object, TuneSchedule *schedule, Error *err);
/* step: updates already done. Warm-up of w updates reaches the peak at step w and
 * keeps it at w + 1, where the schedule itself begins with step 0. */
float tune_schedule_rate(const TuneSchedule *schedule, uint64_t step);

#endif
