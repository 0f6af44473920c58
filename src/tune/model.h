/* A model whose adapter, or whose last blocks, can be trained: which tensors those
 * are, their names and first values as mlx_lm has them, and their files.
 *
 *     TuneAdapterOptions options = {.kind = TUNE_LORA, .num_layers = 16, .rank = 8, .scale = 20};
 *     TuneModel *model = tune_model_open("SmolLM2", NULL, &options, &err);
 *     tune_gradients(model, &batch, &step, grads, &loss, &err);      // tune/step.h
 *     tune_model_set(model, 0, better);
 *     tune_model_save_adapter(model, "adapters/adapters.safetensors", &err);
 *
 * The base stays frozen: its weights are mapped, never changed. */
#ifndef TUNE_MODEL_H
#define TUNE_MODEL_H

#include "lm/lm.h"

typedef enum { TUNE_LORA, TUNE_DORA, TUNE_FULL } TuneKind;

typedef struct TuneAdapterOptions {
    TuneKind kind;
    int num_layers; /* the last so many blocks; <= 0: all */
    int rank;
    float scale, dropout;
    /* Module paths, from the block on ("self_attn.q_proj") or from the root
     * ("lm_head"); none: every linear layer of a block, experts and routers too. */
    const char *const *keys;
    size_t n_keys;
    /* rsLoRA (Kalajdzievski, 2023): the scale counts as alpha / rank and becomes
     * alpha / sqrt(rank of the module). */
    bool rank_stabilised;
    const json_t *ranks; /* {"key": rank} of modules that have their own, or NULL; borrowed */
    uint64_t seed;
    bool compat; /* draw what mlx_lm draws and throws away */
} TuneAdapterOptions;

typedef struct TuneModel TuneModel;

/* open may be NULL; its adapter_path is not used. Fails, naming the key or module, on
 * more layers than there are, a key that no module has, DoRA on experts, full tuning of
 * packed weights. NULL on failure; caller frees with tune_model_close. */
TuneModel *tune_model_open(const char *folder, const LmOpenOptions *open,
                           const TuneAdapterOptions *options, Error *err);
/* The same of an open model, which it takes over, also when it fails. dtype: what fully
 * tuned tensors are held in; NULL: their own. options NULL: nothing trains, and an adapter
 * that the model was opened with stays. */
TuneModel *tune_model_new(LmModel *lm, const char *dtype, const TuneAdapterOptions *options,
                          Error *err);
void tune_model_close(TuneModel *model); /* NULL ok */
/* The model with its adapter, as it is at the moment; borrowed. */
LmModel *tune_model_lm(TuneModel *model);

/* ---- what trains ----------------------------------------------------------- */

/* Tensors, in the order of mlx_lm's tree. */
size_t tune_model_count(const TuneModel *model);
const char *tune_model_name(const TuneModel *model, size_t i);    /* borrowed */
mlx_array tune_model_value(const TuneModel *model, size_t i);     /* borrowed */
void tune_model_set(TuneModel *model, size_t i, mlx_array value); /* shares it */
/* Values that train, and of the base, as mlx_lm counts: packed ones unpacked, adapters
 * not part of the total. */
size_t tune_model_trainable(const TuneModel *model);
size_t tune_model_total(const TuneModel *model);
/* adapter_config.json's lora_parameters: rank, dropout, the scale in force and, where
 * modules differ, "ranks" and "scales" by path; keys when they were given. null when
 * full. Caller json_decref's. */
json_t *tune_model_parameters(const TuneModel *model);
/* The key from which dropout goes on, uint32 [2]; borrowed. To save and restore. */
mlx_array tune_model_random(const TuneModel *model);
void tune_model_set_random(TuneModel *model, mlx_array key);

/* ---- files ------------------------------------------------------------------- */

/* From a file of mlx_lm's or of PEFT's (told apart by the names in it), or from a folder
 * that holds adapters.safetensors or adapter_model.safetensors. PEFT's scale is read from
 * adapter_config.json beside the file; without one it is this model's. strict: every
 * tensor must be one of this model's, of its shape, or nothing is changed and the
 * message lists all that are not; tensors may be missing. Not strict: others are passed
 * over, as mlx_lm's --resume-adapter-file does. */
bool tune_model_load_adapter(TuneModel *model, const char *path, bool strict, Error *err);
/* adapters.safetensors as mlx_lm loads it; whole or not at all. */
bool tune_model_save_adapter(const TuneModel *model, const char *file, Error *err);
/* Whether tune_model_save_peft will do; else says what it cannot write. */
bool tune_model_can_be_peft(const TuneModel *model, Error *err);
/* adapter_model.safetensors and adapter_config.json for PEFT into an existing folder.
 * Only LoRA and DoRA on linear layers. */
bool tune_model_save_peft(const TuneModel *model, const char *folder, Error *err);

#endif
