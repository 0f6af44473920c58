/* peft: how Hugging Face's PEFT names, lays out and scales a low-rank adapter, seen
 * from mlx-lm's: base_model.model.<module>.lora_A.weight [r, in] there is
 * <module>.lora_a [in, r] here. Source: peft 0.21 (tuners/lora/layer.py). */
#ifndef LM_PEFT_H
#define LM_PEFT_H

#include "nn/nn.h"

typedef struct LmPeftName {
    const char *module; /* its path in their model; not ended by '\0', `length` bytes */
    size_t length;
    const char *leaf; /* "lora_a", "lora_b" or "m" */
    bool turned;      /* theirs is the transpose */
} LmPeftName;

/* false: `name` is no tensor of such an adapter. Borrows from name. Names with the
 * adapter's own in them (".lora_A.default.weight") are known too. */
bool lm_peft_name(const char *name, LmPeftName *parts);

/* Whether their module is ours: the same path, or the same place in a layer of that
 * number ("transformer.h.0.attn.c_proj" and "model.h.0.attn.c_proj"). */
bool lm_peft_same(const char *theirs, const char *ours);

/* A path from the number of its layer on: "0.attn.c_proj"; NULL outside the layers. */
const char *lm_peft_in_layer(const char *path);

/* Their path of our module, by config.json's model_type. Caller frees. */
char *lm_peft_path(const char *model_type, const char *ours);

/* alpha / r of the module at `path` in adapter_config.json, rsLoRA and the patterns of
 * rank and alpha considered; 0: the config does not say. */
double lm_peft_scale(const json_t *config, const char *path);

/* Adds the tensors of `file` to `adapter` for the modules that `base`, sanitised, holds.
 * *scale is the config's; where a module has its own, the rest of it is in lora_b. A
 * stack of experts that PEFT adapts as one parameter becomes our projections'. Inside
 * an open scope. */
bool lm_peft_read(const char *file, const json_t *config, const NnParams *base, NnParams *adapter,
                  float *scale, Error *err);

#endif
