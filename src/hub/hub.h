/* hub: model folders. Everything a model is on disk, as mlx-lm, mlx-community
 * and Hugging Face lay it out:
 *
 *     config.json                    architecture, sizes, quantization
 *     generation_config.json         stop ids; they override config's
 *     model*.safetensors             the weights, in any number of shards
 *     model.safetensors.index.json   tensor -> shard; optional when reading
 *     tokenizer.json, ...            read by text/, only listed here
 *
 *     Error err = {0};
 *     HubModel *model = hub_model_open("models/SmolLM2-135M", &err);
 *     mlx_array embed = hub_model_tensor(model, "model.embed_tokens.weight");
 *     ...
 *     hub_model_free(model);
 *
 * The weights are mapped from the files and not copied; reading one tensor
 * touches only its pages. GGUF files are opened as the same thing: a config and
 * named tensors of MLX's layout, ready to be written as a folder. */
#ifndef HUB_HUB_H
#define HUB_HUB_H

#include "base/base.h"
#include "mx/mx.h"

/* ---- a model folder, opened -------------------------------------------- */

typedef struct HubModel HubModel;

/* Opens a folder. Fails, naming the file and the field, when the folder or its
 * config.json is missing or malformed, when no model*.safetensors is there, when
 * a shard is truncated, when the index names a shard that is missing, and when
 * two shards claim one tensor. NULL on failure; caller frees with
 * hub_model_free. */
HubModel *hub_model_open(const char *folder, Error *err);
void hub_model_free(HubModel *model); /* NULL ok; ends all borrowed names and tensors */

const char *hub_model_folder(const HubModel *model); /* borrowed */
/* config.json with eos_token_id of generation_config.json merged in; an object;
 * borrowed. */
const json_t *hub_model_config(const HubModel *model);

size_t hub_model_count(const HubModel *model);  /* tensors */
size_t hub_model_shards(const HubModel *model); /* files that hold them */
/* The names in byte order; borrowed; NULL past the end. */
const char *hub_model_name(const HubModel *model, size_t index);
/* Borrowed; an empty array when the model has no tensor of that name. */
mlx_array hub_model_tensor(const HubModel *model, const char *name);

/* How the module at a dotted path ("model.layers.0.mlp.up_proj") is packed. True
 * and *quant filled when it is quantised: its own entry of `quantization`
 * decides if there is one (false: dense; missing numbers: the mode's defaults),
 * otherwise whether "<path>.scales" exists. False for a dense module. The
 * numbers were checked when the folder was opened. */
bool hub_model_quantization(const HubModel *model, const char *path, MxQuant *quant);

/* The stop ids of the config (generation_config.json first, then config.json);
 * writes at most `capacity`, returns how many there are. */
size_t hub_model_eos(const HubModel *model, int *ids, size_t capacity);

/* ---- reading a config --------------------------------------------------- */

/* config.json (and generation_config.json) of a folder alone, eos merged, its
 * `quantization` checked. Caller json_decref's; NULL on failure. */
json_t *hub_config_load(const char *folder, Error *err);
/* Checks an already parsed config as hub_config_load does; `name` is the file
 * for messages. */
bool hub_config_check(const json_t *config, const char *name, Error *err);

/* How the module at `path` is packed by config's `quantization`: its own entry,
 * else `has_scales` and the global numbers. False for a dense module. */
bool hub_quantization_of(const json_t *config, const char *path, bool has_scales, MxQuant *quant);
/* The settings of another tool's quantisation (an object with quant_method), or
 * NULL when the weights are MLX's or dense. */
const json_t *hub_config_foreign(const json_t *config);
/* Checks mode, group size and bits (0: the mode's default) and completes them. */
bool hub_quantization_make(const char *mode, int group_size, int bits, MxQuant *quant, Error *err);

/* A summary for people and for `model info`. */
typedef struct HubInfo {
    char architecture[64]; /* model_type */
    char tokenizer[32];    /* BPE, WordPiece, Unigram, another file's name, or "": none */
    char dtype[16];        /* of the unquantised floating tensors; "mixed" */
    uint64_t parameters;   /* logical: a packed weight counts its values */
    uint64_t weight_bytes;
    double bits_per_weight; /* weight_bytes * 8 / parameters */
    int64_t layers, hidden_size, heads, kv_heads, vocab_size, context; /* 0 unknown */
    size_t tensors, shards;
    int bits, group_size; /* of the global quantization; 0 when dense */
    char mode[8];         /* "affine", ...; "" when dense */
} HubInfo;
bool hub_model_info(const char *folder, HubInfo *info, Error *err);

/* ---- writing a folder ---------------------------------------------------- */

typedef struct HubTensor {
    char *name;
    mlx_array array;
} HubTensor;

/* Writes model.safetensors (or model-00001-of-0000N.safetensors ... when more
 * than shard_bytes; 0 means 5 GiB) and model.safetensors.index.json into an
 * existing folder, tensors in the order given. config (may be NULL) tells how
 * wide packed weights are, for the index's count of parameters. Borrows all. */
bool hub_weights_save(const char *folder, const HubTensor *tensors, size_t count,
                      const json_t *config, uint64_t shard_bytes, Error *err);
/* How much to hold and what to show while tensors are written. */
typedef struct HubSave {
    uint64_t shard_bytes; /* 0: 5 GiB */
    /* Frees each array when it is written: lazy ones are computed one at a time,
     * in the order given, and never stand in memory together. */
    bool release;
    Progress *progress; /* grows by the bytes written; may be NULL */
} HubSave;
/* As hub_weights_save; released arrays become {0}. how may be NULL; with it an
 * interruption ends the writing, and nothing is left of it. */
bool hub_weights_stream(const char *folder, HubTensor *tensors, size_t count, const json_t *config,
                        const HubSave *how, Error *err);
/* One safetensors file, atomically; an interruption does not keep it from being saved. */
bool hub_tensors_save(const char *file, const HubTensor *tensors, size_t count, Error *err);
/* config.json as mlx-lm writes it: sorted, quantization_config repeating
 * quantization, without _name_or_path and vision_config. */
bool hub_config_save(const char *folder, const json_t *config, Error *err);

/* ---- GGUF ----------------------------------------------------------------- */

/* A GGUF file as an MLX model: Q4_0, Q4_1 and Q8_0 keep their exact values. */
typedef struct HubGguf HubGguf;

typedef struct HubGgufOptions {
    /* Of every floating tensor: "float16", "bfloat16", "float32". NULL: float16,
     * or float32 when every matrix of the file is float32. */
    const char *dtype;
    uint64_t shard_bytes; /* 0: 5 GiB */
} HubGgufOptions;

/* Reads the file, maps its metadata to a config, renames and reorders its
 * tensors. Fails on an unknown architecture, on a tensor the architecture does
 * not have and on one that is missing. NULL on failure. */
HubGguf *hub_gguf_open(const char *file, const HubGgufOptions *options, Error *err);
void hub_gguf_free(HubGguf *gguf); /* NULL ok */
/* Metadata by GGUF key. The texts and lists live as long as the HubGguf; what
 * is absent, or of another kind, is NULL, 0 or false. */
const char *hub_gguf_string(HubGguf *gguf, const char *key);
const char *const *hub_gguf_strings(HubGguf *gguf, const char *key, size_t *count);
const float *hub_gguf_floats(HubGguf *gguf, const char *key, size_t *count);
const int32_t *hub_gguf_ints(HubGguf *gguf, const char *key, size_t *count);
bool hub_gguf_number(HubGguf *gguf, const char *key, double *value); /* flags are 0 and 1 */
/* The config of the model folder; borrowed. */
const json_t *hub_gguf_config(const HubGguf *gguf);
/* The tensors of the model folder; borrowed. */
const HubTensor *hub_gguf_tensors(const HubGguf *gguf, size_t *count);
/* Ends the tensors, not the metadata: who has copies holds them alone. */
void hub_gguf_forget_tensors(HubGguf *gguf);
/* The settings beside the weights: generation_config.json, or modules.json and
 * its folders for an encoder. Puts the stop ids into config. */
bool hub_gguf_save_settings(HubGguf *gguf, const char *folder, json_t *config, Error *err);
/* Writes config.json, generation_config.json (modules.json and its folders for an
 * encoder) and the weights into an existing folder. The tokenizer is text/'s: see
 * lm/import.h. */
bool hub_gguf_save(HubGguf *gguf, const char *folder, Error *err);

#endif
