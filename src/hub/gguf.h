/* What the GGUF files of hub/ share: the architectures that are known, and the
 * step from a file's metadata to a config. */
#ifndef HUB_GGUF_H
#define HUB_GGUF_H

#include "hub/internal.h"

/* Architectures, as bits, so that a table row can serve several. */
enum {
    GGUF_LLAMA = 1, /* Llama, Mistral, SmolLM: rotary pairs interleaved in q and k */
    GGUF_QWEN2 = 2,
    GGUF_QWEN3 = 4,
    GGUF_PHI3 = 8,
    GGUF_GEMMA = 16, /* norm weights stored plus one */
    GGUF_GEMMA2 = 32,
    GGUF_BERT = 64,
    GGUF_QWEN3_MOE = 128,
    GGUF_GEMMA3 = 256,
    GGUF_OLMO2 = 512,
    GGUF_GRANITE = 1024,
    GGUF_SMOLLM3 = 2048,
    GGUF_COHERE = 4096,
    GGUF_COHERE2 = 8192,
    GGUF_GEMMAS = GGUF_GEMMA | GGUF_GEMMA2 | GGUF_GEMMA3,
    GGUF_SANDWICH = GGUF_GEMMA2 | GGUF_GEMMA3, /* norms before and after each part */
    GGUF_QWENS = GGUF_QWEN2 | GGUF_QWEN3 | GGUF_QWEN3_MOE,
    GGUF_LLAMAS = GGUF_LLAMA | GGUF_GRANITE | GGUF_SMOLLM3,
    GGUF_COHERES = GGUF_COHERE | GGUF_COHERE2, /* layer norms; both parts read the same */
    GGUF_DECODERS = GGUF_LLAMAS | GGUF_QWENS | GGUF_PHI3 | GGUF_GEMMAS | GGUF_OLMO2 | GGUF_COHERES,
    GGUF_DENSE = GGUF_DECODERS & ~GGUF_QWEN3_MOE
};

typedef struct GgufArch {
    unsigned bit;
    const char *name;       /* general.architecture */
    const char *model_type; /* of config.json */
    const char *class_name; /* its `architectures` */
    const char *activation;
    /* Of so many layers the last is of another kind, which the file format does not say:
     * it sees all of the text and others a window, or has no positions (SmolLM3). 0: none. */
    int every;
} GgufArch;

/* ---- names (gguf_names.c) ------------------------------------------------------ */

/* What becomes of a module on its way between the file and the model. */
enum {
    GGUF_PLAIN = 0,
    GGUF_PERMUTE_HEADS = 1, /* rows as gguf_swap_halves says */
    GGUF_PERMUTE_KV_HEADS = 2,
    GGUF_NORM = 4,
    GGUF_TABLE = 8,         /* of vectors by id: a single one is a matrix of one row */
    GGUF_FEED_FORWARD = 16, /* there when the model has no experts */
    GGUF_EXPERTS = 32,      /* there when it has */
    GGUF_FLOAT = 64         /* float32 in the file, however the rest is packed */
};

typedef struct GgufName {
    const char *gguf, *model; /* module names, without .weight and the like */
    unsigned archs;
    unsigned flags;
    bool required;
} GgufName;

const GgufName *gguf_names(bool of_layer, size_t *count);
const char *gguf_layer_stem(const GgufArch *arch); /* "model.layers" */
/* The row of a module of the model, and its layer or -1; NULL when the file format
 * has no place for it. */
const GgufName *gguf_name_of_module(const GgufArch *arch, const char *path, int *layer);
/* GGUF keeps the two halves of each rotary head interleaved: its row 2j + p of a
 * head is row p D/2 + j of the model. a: [heads D, ...] of any dtype. */
mlx_array gguf_swap_halves(mlx_array a, int heads, bool to_gguf);
/* Whether config says that the feed-forward is made of experts. */
bool gguf_has_experts(const json_t *config);

/* ---- settings (gguf_config.c) ---------------------------------------------------- */

/* A number of the config beside its key in the file, "<architecture>.<key>". */
typedef enum { KEY_SIZE, KEY_FLOAT } GgufKeyKind;
typedef struct GgufKey {
    const char *key, *config;
    unsigned archs;
    GgufKeyKind kind;
    bool required;
} GgufKey;
const GgufKey *gguf_keys(size_t *count);
/* llama.cpp's query_pre_attn_scalar of the second and third Gemma: a head's size, but in
 * their largest models the hidden size a head. */
int64_t gguf_query_scalar(const GgufArch *arch, int64_t layer_count, int64_t hidden, int64_t heads,
                          int64_t head_dim);
/* The divisors of the rotary frequencies by Llama 3.1's rule, [count]. */
void gguf_llama3_factors(double base, double factor, double low, double high, double original,
                         float *factors, size_t count);

/* By model_type; NULL when none fits. */
const GgufArch *gguf_arch_for(const char *model_type);
/* NULL and *err when the file's architecture is not known. */
const GgufArch *gguf_arch_find(HubGguf *gguf, Error *err);
/* Everything of config.json that metadata says; sizes are checked against each
 * other. NULL on failure; caller json_decref's. */
json_t *gguf_config_make(HubGguf *gguf, const GgufArch *arch, Error *err);
/* config's rope_scaling from the stored factors of Llama 3 ([count] divisors of
 * the frequencies). */
bool gguf_rope_llama3(json_t *config, const float *factors, size_t count, Error *err);
/* The stop ids that the vocabulary implies, eos first; writes at most capacity,
 * returns how many. */
size_t gguf_stop_ids(HubGguf *gguf, int *ids, size_t capacity);
uint64_t hub_gguf_shard_bytes(const HubGguf *gguf);

#endif
