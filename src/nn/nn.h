/* nn: the layers that models are made of, and the parameters they hold.
 *
 * A model is loaded by asking a parameter tree for each tensor it needs, by
 * path and shape; afterwards nn_params_check says whether all was found, had
 * its shape, and nothing was left over. Layers are plain structs that borrow
 * their arrays from the tree; nothing but the tree and the caches is freed.
 * Layer calls follow the rules of mx.h: results belong to the open scope. */
#ifndef NN_NN_H
#define NN_NN_H

#include "mx/mx.h"

/* ---- the parameter tree --------------------------------------------------- */

typedef struct NnParams NnParams;

/* Says how the module at a dotted path is packed; false when it is dense. */
typedef bool (*NnQuantRule)(const void *source, const char *path, MxQuant *quant);

/* rule may be NULL: everything is dense. `name` is for messages (a folder).
 * Caller frees with nn_params_free, after the layers' last use. */
NnParams *nn_params_new(const char *name, NnQuantRule rule, const void *source);
void nn_params_free(NnParams *params); /* NULL ok */

/* Adds a tensor; the array is shared, the name copied. A later one replaces an
 * earlier one of the same name. */
void nn_params_add(NnParams *params, const char *name, mlx_array array);
bool nn_params_has(const NnParams *params, const char *format, ...) BASE_PRINTF(2, 3);
mlx_array nn_params_peek(const NnParams *params,
                         const char *name);                /* borrowed, not taken; or {0} */
void nn_params_remove(NnParams *params, const char *name); /* no-op when absent */
/* Every tensor whose name ends (or begins) so is dropped. */
void nn_params_remove_suffix(NnParams *params, const char *suffix);
void nn_params_remove_prefix(NnParams *params, const char *prefix);
/* Names that begin with `from` begin with `to` instead. */
void nn_params_rename_prefix(NnParams *params, const char *from, const char *to);
void nn_params_rename_suffix(NnParams *params, const char *from, const char *to); /* or end so */
/* Calls visit for each tensor; the tree must not change meanwhile. */
void nn_params_each(const NnParams *params,
                    void (*visit)(void *context, const char *name, mlx_array array), void *context);
/* The how-manieth tensor it was that a layer took, from 1; 0: none took it. */
size_t nn_params_place(const NnParams *params, const char *name);
/* From now on floating tensors are taken in this dtype (converted at first use). */
void nn_params_cast(NnParams *params, mlx_dtype dtype);
/* Linear layers loaded from now on, where they are packed, round what they are given
 * as their weights are; one of another mode than nvfp4 and mxfp8, or with a bias, is
 * a failure. */
void nn_params_round_inputs(NnParams *params);
/* Low-rank adapters for the layers loaded from now on: `adapter` holds
 * <path>.lora_a, <path>.lora_b and for DoRA <path>.m. Borrowed for the loading;
 * check it with nn_params_check too, so that a foreign adapter is refused.
 * scales: {"<path>": scale} of the modules that have their own, or NULL; borrowed. */
void nn_params_adapter(NnParams *params, NnParams *adapter, float scale, const json_t *scales);

/* The tensor, of exactly this shape; borrowed, or {0} after a failure, which
 * is remembered: wrong shape, or missing. */
mlx_array nn_params_take(NnParams *params, const int *shape, size_t ndim, const char *format, ...)
    BASE_PRINTF(4, 5);
/* Lets the tree own a computed array (a frequency table, a norm's weight + 1). */
mlx_array nn_params_adopt(NnParams *params, mlx_array array);
/* Memory that lives as long as the tree; zeroed. */
void *nn_params_alloc(NnParams *params, size_t count, size_t bytes);
/* A message about the model that is no tensor's: the first one stays. */
void nn_params_fail(NnParams *params, ErrorCode code, const char *format, ...) BASE_PRINTF(3, 4);
bool nn_params_failed(const NnParams *params);
/* True when nothing failed and every tensor was taken. */
bool nn_params_check(NnParams *params, Error *err);

/* ---- linear, embedding, norms --------------------------------------------- */

/* Zeroes elements with probability p and divides the others by 1 - p. Keys come
 * from one chain, as MLX's implicit draws do. */
typedef struct Dropout {
    float p;
    mlx_array chain; /* the key that the next draw splits; with mx_store */
    bool again;      /* draw as in the last call of each module: a block is run again */
} Dropout;

/* The next key of the chain, owned by the open scope. */
mlx_array nn_dropout_key(Dropout *dropout);

/* What an adapter adds to a module (Hu et al., 2021): y + scale (drop(x) a) b. The
 * tree owns the struct; a trainer exchanges its arrays between passes. */
typedef struct Lora {
    mlx_array a, b;    /* [in, r], [r, out]; experts [E, r, in], [E, out, r]; {0}: none */
    mlx_array m;       /* DoRA (Liu et al., 2024): rows of W + scale b'a' have length m [out] */
    mlx_array lengths; /* DoRA: of W's rows, [out], float32 */
    mlx_array factor;  /* m over the adapted rows' length when nothing trains, else {0} */
    float scale;
    Dropout *dropout; /* NULL: none; borrowed */
    mlx_array key;    /* of the last dropout; owned by the tree */
} Lora;

/* A module that an adapter can stand on, as it was loaded. */
typedef enum { NN_LINEAR, NN_SWITCH, NN_EMBEDDING } NnModuleKind;
typedef struct NnModule {
    const char *path;
    NnModuleKind kind;
    int in, out, experts; /* of an embedding: count, dims, 0 */
    mlx_array weight, scales, biases;
    MxQuant quant;
    bool columns; /* a dense weight lies as [in, out] */
    Lora lora;
} NnModule;
/* In order of loading; pointers live as long as the tree. */
size_t nn_params_module_count(const NnParams *params);
NnModule *nn_params_module(const NnParams *params, size_t i);
/* Lengths of the rows of the module's weight, [out] (an embedding: [count]), float32. */
mlx_array nn_module_lengths(const NnModule *module);

typedef struct Linear {
    mlx_array weight; /* dense: transposed, [in, out]; packed: [out, in bits/32] */
    mlx_array scales, biases, bias;
    MxQuant quant;    /* group_size 0: dense */
    bool rounds;      /* its inputs, as the weights are */
    NnModule *module; /* with its adapter */
} Linear;

/* <path>.weight [out, in] (with .scales and .biases when packed), <path>.bias
 * [out] when has_bias. */
Linear nn_linear_load(NnParams *params, int in, int out, bool has_bias, const char *format, ...)
    BASE_PRINTF(5, 6);
/* The same from a weight that lies as [in, out] (GPT-2's Conv1D). */
Linear nn_linear_load_transposed(NnParams *params, int in, int out, bool has_bias,
                                 const char *format, ...) BASE_PRINTF(5, 6);
mlx_array nn_linear(const Linear *layer, mlx_array x); /* [..., in] -> [..., out] */
/* Only some of the outputs, int32 [n]: [..., n] in float32, without adapters. */
mlx_array nn_linear_some(const Linear *layer, mlx_array x, mlx_array outputs);

typedef struct Embedding {
    mlx_array weight, scales, biases; /* [count, dims], or packed */
    MxQuant quant;
    NnModule *module;
} Embedding;
Embedding nn_embedding_load(NnParams *params, int count, int dims, const char *format, ...)
    BASE_PRINTF(4, 5);
mlx_array nn_embedding(const Embedding *layer, mlx_array ids); /* [...] -> [..., dims] */
mlx_array nn_embedding_as_linear(const Embedding *layer,
                                 mlx_array x); /* [..., dims] -> [..., count] */

typedef enum {
    NN_NORM_RMS,
    NN_NORM_RMS_PLUS_ONE, /* weight + 1: Gemma */
    NN_NORM_LAYER,        /* weight, no bias */
    NN_NORM_LAYER_BIAS,
    NN_NORM_LAYER_BIAS_PLUS_ONE, /* weight + 1, and a bias: Nemotron */
    NN_NORM_RMS_UNIT,            /* no weight */
    NN_NORM_LAYER_UNIT
} NnNormKind;
typedef struct Norm {
    NnNormKind kind;
    mlx_array weight, bias;
    float eps;
} Norm;
Norm nn_norm_load(NnParams *params, NnNormKind kind, int size, float eps, const char *format, ...)
    BASE_PRINTF(5, 6);
mlx_array nn_norm(const Norm *norm, mlx_array x); /* over the last axis */

/* ---- mixtures of experts ------------------------------------------------------ */

/* A matrix an expert, or a head. */
typedef struct SwitchLinear {
    mlx_array weight; /* dense: [E, out, in]; packed: [E, out, in bits/32] */
    mlx_array scales, biases, bias;
    MxQuant quant;    /* group_size 0: dense */
    NnModule *module; /* NULL: no adapter stands on it */
} SwitchLinear;
/* <path>.weight [experts, out, in] (with .scales and .biases when packed),
 * <path>.bias [experts, out] when has_bias. */
SwitchLinear nn_switch_linear_load(NnParams *params, int experts, int in, int out, bool has_bias,
                                   const char *format, ...) BASE_PRINTF(6, 7);
/* x [..., M, in], indices: the expert of each leading position -> [..., M, out]. */
mlx_array nn_switch_linear(const SwitchLinear *layer, mlx_array x, mlx_array indices, bool sorted);
/* A matrix a head, without bias, that no adapter stands on. */
SwitchLinear nn_multi_linear_load(NnParams *params, int heads, int in, int out, const char *format,
                                  ...) BASE_PRINTF(5, 6);
/* All experts: x [..., experts or 1, M, in] -> [..., experts, M, out], or back. */
mlx_array nn_multi_linear(const SwitchLinear *layer, mlx_array x, bool transpose);
/* A tensor that keeps its dtype whatever nn_params_cast says: a router's bias. */
mlx_array nn_params_take_exact(NnParams *params, const int *shape, size_t ndim, const char *format,
                               ...) BASE_PRINTF(4, 5);
/* From now on the module at `path` is packed so, whatever the rule says: its
 * tensors were moved or made here. group_size 0: dense. */
void nn_params_set_quant(NnParams *params, const char *path, MxQuant quant);
/* How the module at `path` is packed; false and group_size 0 when dense. */
bool nn_params_quant(const NnParams *params, const char *path, MxQuant *quant);

/* ---- activations ------------------------------------------------------------ */

typedef enum {
    NN_SILU,
    NN_GELU,
    NN_GELU_APPROX,
    NN_GELU_QUICK, /* a sigmoid(1.702 a) */
    NN_RELU,
    NN_RELU2,
    NN_TANH,
    NN_IDENTITY
} NnActivation;
/* Hugging Face's names: "silu", "gelu", "gelu_new", "gelu_pytorch_tanh", ... */
bool nn_activation_parse(const char *name, NnActivation *activation);
mlx_array nn_activate(NnActivation activation, mlx_array x);

/* ---- rotary position embedding ------------------------------------------------ */

/* Su et al., 2021 (RoFormer), and its stretched variants, as mlx_lm's
 * rope_utils has them; LongRoPE as transformers has it, with short factors for
 * texts of up to short_length tokens, where mlx_lm has the long ones always. */
typedef struct Rope {
    int dims;         /* the first dims features of a head rotate; 0: no rotation */
    bool traditional; /* pairs (2i, 2i+1) instead of (i, i + dims/2) */
    float base, scale;
    mlx_array freqs;      /* periods, [dims/2], or {0} */
    float multiplier;     /* on the rotated features before rotation; 1 */
    float dynamic_factor; /* dynamic NTK; 0 otherwise */
    int max_position;
    int short_length;       /* texts of up to so many tokens (0: none) rotate by */
    mlx_array short_freqs;  /* these periods, and are amplified */
    float short_multiplier; /* by this */
} Rope;

/* What config.json says about rotation, old form (rope_theta, rope_scaling) or
 * new (rope_parameters, whose entries may be one object a layer type). */
typedef struct RopeConfig {
    double theta;
    const json_t *scaling; /* object with rope_type or type, or NULL; borrowed */
    double partial;        /* partial_rotary_factor */
} RopeConfig;
/* layer_type ("full_attention", "sliding_attention") may be NULL. */
RopeConfig nn_rope_config(const json_t *config, const char *layer_type, double default_theta,
                          double default_partial);
/* Types: default, mrope, linear, dynamic, llama3, yarn (deepseek_yarn,
 * telechat3-yarn), longrope (su), proportional. head_dim matters to the last.
 * A malformed or unknown one is a failure of the tree. */
Rope nn_rope_load(NnParams *params, const json_t *config, RopeConfig rope, int dims,
                  bool traditional);
/* x [B, heads, L, head_dim], its first row at position `offset`. */
mlx_array nn_rope(const Rope *rope, mlx_array x, int offset);
/* The same for rows of a text that will have text_length tokens. */
mlx_array nn_rope_within(const Rope *rope, mlx_array x, int offset, int text_length);

/* ---- masks, caches, attention --------------------------------------------------- */

/* mode "": everything visible; "causal": aligned at the bottom right; "array":
 * `array` is bool [L, keys] or broadcasts to [B, heads, L, keys]. */
typedef struct Mask {
    const char *mode;
    mlx_array array;
} Mask;
#define NN_NO_MASK ((Mask){.mode = ""})

/* Keys and values of one layer, [B, kv_heads, T, head_dim]. */
typedef enum { KV_GROWING, KV_ROTATING, KV_QUANTIZED, KV_CHUNKED } KvKind;
typedef struct KvCache {
    KvKind kind;
    mlx_array keys[3], values[3]; /* [0] alone, or packed, scales, biases */
    int offset;                   /* tokens seen */
    int capacity;                 /* rows allocated, or in use (rotating) */
    int max_size, keep, index;    /* rotating: size, first rows kept, where to write next */
    int start;                    /* chunked: tokens dropped in front; max_size is the chunk */
    int text_length;              /* keys are rotated for a text of so many tokens, or of those
                                   * seen if these are more */
    MxQuant quant;
} KvCache;

void nn_kv_free(KvCache *cache);
/* Empties a cache but keeps its kind. */
void nn_kv_clear(KvCache *cache);
/* The last `count` tokens never happened. False when a rotating cache is full, or
 * a chunked one has dropped what would come last. */
bool nn_kv_can_trim(const KvCache *cache, int count);
bool nn_kv_trim(KvCache *cache, int count);
/* A growing cache becomes a quantised one. */
void nn_kv_quantize(KvCache *cache, MxQuant quant);
/* The mask for `length` new tokens on top of the cache (NULL: none before).
 * window 0: causal; else each token sees itself and window - 1 before it. */
Mask nn_kv_mask(const KvCache *cache, int length, int window);
/* The same for layers that see their own chunk of positions only (Llama 4):
 * positions [0, chunk), [chunk, 2 chunk), ... cache: chunked, growing, or NULL. */
Mask nn_kv_chunk_mask(const KvCache *cache, int length, int chunk);
/* Appends keys and values [B, kv_heads, L, D]; *keys and *values become all that
 * attention must see. Not for a quantised cache: nn_attention handles it. */
void nn_kv_update(KvCache *cache, mlx_array *keys, mlx_array *values);

/* Appends to the cache (NULL: none) and attends. queries [B, heads, L, D], keys
 * and values [B, kv_heads, L, D] -> [B, heads, L, D]. softcap 0: none, else
 * scores become softcap tanh(scores / softcap) before the mask. */
mlx_array nn_attention(KvCache *cache, mlx_array queries, mlx_array keys, mlx_array values,
                       float scale, Mask mask, float softcap);
/* The same with one more logit a head in the softmax, sinks [heads]. A quantised
 * cache cannot do that: a failure of the thread. */
mlx_array nn_attention_sinks(KvCache *cache, mlx_array queries, mlx_array keys, mlx_array values,
                             float scale, Mask mask, mlx_array sinks);
/* scores [B, heads, L, T], the lowest number where the mask hides. */
mlx_array nn_mask_scores(mlx_array scores, Mask mask);
/* [B, L, heads*D] -> [B, heads, L, D] and back; a plain reshape when L is 1. */
mlx_array nn_split_heads(mlx_array x, int heads, int head_dim);
mlx_array nn_merge_heads(mlx_array x);

/* ---- reading config.json ------------------------------------------------------- */

/* The value, or the default when absent or null. A value of another type or out
 * of range is a failure of the tree that names the key. */
int nn_config_int(NnParams *params, const json_t *config, const char *key, int fallback);
double nn_config_number(NnParams *params, const json_t *config, const char *key, double fallback);
bool nn_config_bool(NnParams *params, const json_t *config, const char *key, bool fallback);
const char *nn_config_string(NnParams *params, const json_t *config, const char *key,
                             const char *fallback);
/* The same without default: absent is a failure; at least 1. */
int nn_config_size(NnParams *params, const json_t *config, const char *key);

#endif
