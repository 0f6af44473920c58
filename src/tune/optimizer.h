/* Optimisers with the arithmetic of mlx.optimizers 0.31, each with all of its
 * settings: adam, adamw, sgd, muon, adafactor, lion.
 *
 *     TuneOptimizer *o = tune_optimizer_new("adam", NULL, &schedule, count, &err);
 *     tune_optimizer_update(o, values, gradients, updated, &err);
 *
 * The state is a table of arrays, [parameters][slots], that can be saved and put
 * back; it is empty until the first update. */
#ifndef TUNE_OPTIMIZER_H
#define TUNE_OPTIMIZER_H

#include "mx/mx.h"
#include "tune/schedule.h"

typedef struct TuneOptimizer TuneOptimizer;

/* settings: the keyword arguments of mlx.optimizers, e.g. {"betas": [0.9, 0.95]}, or
 * NULL. An unknown name, an unknown setting and a value of another type fail. The
 * schedule is copied. NULL on failure; caller frees with tune_optimizer_free. */
TuneOptimizer *tune_optimizer_new(const char *name, const json_t *settings,
                                  const TuneSchedule *schedule, size_t parameters, Error *err);
void tune_optimizer_free(TuneOptimizer *optimizer); /* NULL ok */

/* One update of all parameters: updated[i] of values[i] and gradients[i], of the same
 * shapes; evaluated, owned by the open scope. */
bool tune_optimizer_update(TuneOptimizer *optimizer, const mlx_array *values,
                           const mlx_array *gradients, mlx_array *updated, Error *err);

/* The rate of the last update; before the first, the rate that it will have. */
float tune_optimizer_rate(const TuneOptimizer *optimizer);
uint64_t tune_optimizer_step(const TuneOptimizer *optimizer); /* updates done */
/* Bytes of state for a parameter of this shape. */
size_t tune_optimizer_state_bytes(const TuneOptimizer *optimizer, mlx_array value);

/* Slots are named as in MLX ("m", "v", "exp_avg_sq_row"). A parameter may lack one:
 * its array is empty. */
enum { TUNE_OPTIMIZER_SLOTS = 4 };
const char *tune_optimizer_slot(const TuneOptimizer *optimizer, size_t slot); /* NULL: no more */
mlx_array tune_optimizer_state(const TuneOptimizer *optimizer, size_t parameter,
                               size_t slot); /* borrowed */
void tune_optimizer_restore(TuneOptimizer *optimizer, size_t parameter, size_t slot,
                            mlx_array state); /* shares it */
void tune_optimizer_set_step(TuneOptimizer *optimizer, uint64_t step);

#endif
