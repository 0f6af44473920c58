/* Inside the optimisers: what a rule is given, and the table of them. */
#ifndef TUNE_OPTIMIZER_RULES_H
#define TUNE_OPTIMIZER_RULES_H

#include "tune/optimizer.h"

/* All settings of all optimisers; each rule reads its own. */
typedef struct OptimizerSettings {
    double betas[2], eps[2];
    double weight_decay, momentum, dampening, clip_threshold, decay_rate, beta_1;
    bool bias_correction, nesterov, scale_parameter, relative_step, warmup_init;
    bool has_beta_1;
    int ns_steps;
} OptimizerSettings;

typedef struct OptimizerStep {
    const OptimizerSettings *settings;
    float rate;
    float step; /* 1 for the first update */
} OptimizerStep;

/* The new value of a parameter. state[slot] are replaced by their new values. */
typedef mlx_array (*OptimizerRule)(const OptimizerStep *step, mlx_array value, mlx_array gradient,
                                   mlx_array *state);

mlx_array optimizer_adam(const OptimizerStep *step, mlx_array value, mlx_array gradient,
                         mlx_array *state);
mlx_array optimizer_adamw(const OptimizerStep *step, mlx_array value, mlx_array gradient,
                          mlx_array *state);
mlx_array optimizer_sgd(const OptimizerStep *step, mlx_array value, mlx_array gradient,
                        mlx_array *state);
mlx_array optimizer_muon(const OptimizerStep *step, mlx_array value, mlx_array gradient,
                         mlx_array *state);
mlx_array optimizer_lion(const OptimizerStep *step, mlx_array value, mlx_array gradient,
                         mlx_array *state);
mlx_array optimizer_adafactor(const OptimizerStep *step, mlx_array value, mlx_array gradient,
                              mlx_array *state);

#endif
