/* sanitize: tensors as Hugging Face names and lays them out become tensors as
 * mlx-lm's models do, so that a converted folder loads there. */
#ifndef LM_SANITIZE_H
#define LM_SANITIZE_H

#include "lm/tensors.h"

/* Renames, stacks, splits and drops by the rules of config's model_type; tensors
 * that are in mlx-lm's form already stay. Inside an open scope. False with the
 * tensor's name when shapes do not fit the config. */
bool lm_sanitize(LmTensors *tensors, const json_t *config, Error *err);

/* Whether mlx-lm's model has a module at `path` that can be quantised: a linear
 * layer, an embedding or a stack of experts, whose weight is `weight`. */
bool lm_is_quantizable(const char *model_type, const char *path, mlx_array weight);
/* Whether --dtype leaves this tensor alone (a router's correction bias). */
bool lm_keeps_dtype(const char *model_type, const char *name);
/* The model's own rule for this path, e.g. 8 bits for a router. */
bool lm_quant_rule(const char *model_type, const char *path, MxQuant *quant);

#endif
