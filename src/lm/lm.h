/* lm: running models. Text in, text (or vectors, or scores) out.
 *
 *     Error err = {0};
 *     LmModel *model = lm_model_open("SmolLM2", NULL, &err);
 *     int *ids; size_t count;
 *     lm_chat_prompt(model, messages, NULL, &ids, &count, &err);
 *     LmGenerateOptions options = lm_generate_defaults();
 *     options.on_token = print_token;
 *     LmStats stats;
 *     lm_generate(model, ids, count, &options, &stats, &err);
 *
 * Four things live here: language models with generation (LmModel, LmCache),
 * sentence embedders (LmEmbedder), rerankers (LmReranker), and the raw
 * outputs of a model for comparison (lm_inspect_*). All numbers agree with
 * mlx-lm and sentence-transformers. An object may be used by one thread at a
 * time, by any thread. */
#ifndef LM_LM_H
#define LM_LM_H

#include "base/base.h"
#include "mlx/c/mlx.h"

struct TextTokenizer; /* text/text.h */

/* ---- language models ----------------------------------------------------- */

typedef struct LmModel LmModel;

typedef struct LmOpenOptions {
    const char *adapter_path; /* folder of a LoRA adapter, or NULL */
    const char *dtype; /* "float32", "float16", "bfloat16": compute in it; NULL keeps the file's */
    bool quantize_activations; /* where weights are: modes nvfp4 and mxfp8 */
    bool no_tokenizer;         /* ids only; a folder without tokenizer files also opens so */
} LmOpenOptions;

/* Opens an MLX or Hugging Face model folder. Weights are mapped, not read.
 * Fails, naming the culprit, on a missing folder or file, an unknown
 * architecture, a tensor that is missing, superfluous or of another shape, a
 * tokenizer that knows more ids than the model, a foreign adapter.
 * options may be NULL. NULL on failure; caller frees with lm_model_close. */
LmModel *lm_model_open(const char *folder, const LmOpenOptions *options, Error *err);
void lm_model_close(LmModel *model); /* NULL ok */

const char *lm_model_folder(const LmModel *model);
const char *lm_model_type(const LmModel *model);     /* config.json's model_type; borrowed */
const json_t *lm_model_config(const LmModel *model); /* borrowed */
int lm_model_vocab_size(const LmModel *model);       /* width of the logits */
int lm_model_context(const LmModel *model);          /* max_position_embeddings; 0 if unstated */
size_t lm_model_bytes(const LmModel *model);         /* of all weights */
size_t lm_model_parameters(const LmModel *model);    /* logical count, quantised ones unpacked */
/* Borrowed; NULL when opened without one. */
struct TextTokenizer *lm_model_tokenizer(const LmModel *model);
bool lm_model_has_template(const LmModel *model);
/* End-of-sequence ids: generation_config.json, else config.json, else the
 * tokenizer's. Borrowed. */
const int *lm_model_stop_ids(const LmModel *model, size_t *count);

/* Chat messages -> prompt ids, through the folder's chat template (rendered,
 * then encoded without adding special tokens). */
typedef struct LmChatOptions {
    const json_t *tools; /* array, or NULL */
    /* Object merged into the template's variables, or NULL. Where it lacks
     * enable_thinking, that is whether the vocabulary can mark thoughts. */
    const json_t *template_options;
    bool no_generation_prompt;
    bool continue_final_message; /* implies no_generation_prompt */
} LmChatOptions;
/* options may be NULL. *ids: caller frees with free. A folder without template
 * is ERROR_UNSUPPORTED. */
bool lm_chat_prompt(LmModel *model, const json_t *messages, const LmChatOptions *options, int **ids,
                    size_t *count, Error *err);
/* The same, only the rendered text; caller frees. */
char *lm_chat_text(LmModel *model, const json_t *messages, const LmChatOptions *options,
                   Error *err);

/* ---- cache --------------------------------------------------------------- */

/* Keys and values of the tokens seen so far; give the same one to several
 * lm_generate calls to continue a conversation. */
typedef struct LmCache LmCache;

typedef struct LmCacheOptions {
    int max_size; /* rotating cache of that many tokens, the first 4 kept; 0: grows without end */
    int kv_bits;  /* quantise keys and values: 2,3,4,5,6,8; 0 never. Not with max_size */
    int kv_group_size; /* 0: 64 */
    int kv_start;      /* quantise once that many tokens are held */
    bool for_file;     /* LongRoPE's long factors at every length, as mlx_lm's files have */
} LmCacheOptions;

LmCache *lm_cache_new(LmModel *model, const LmCacheOptions *options,
                      Error *err);         /* options may be NULL */
void lm_cache_free(LmCache *cache);        /* NULL ok */
int lm_cache_length(const LmCache *cache); /* tokens seen */
/* Forgets the last `count` tokens. False (and nothing changes) when a rotating
 * cache has already dropped what would be needed. */
bool lm_cache_trim(LmCache *cache, int count);
void lm_cache_clear(LmCache *cache);
/* mlx-lm's prompt cache file, of 0.32 or of 0.31 and before. */
typedef enum { LM_CACHE_TENSORS, LM_CACHE_TEXT } LmCacheLayout;
/* A suffix of .safetensors is added where path lacks it. metadata: object of strings,
 * or NULL. */
bool lm_cache_save(const LmCache *cache, const char *path, LmCacheLayout layout,
                   const json_t *metadata, Error *err);
/* Of either layout. Takes kinds and sizes from the file. options (may be NULL) says whether to
 * quantise from now on; an already quantised file must agree with what it names.
 * *metadata (may be NULL) is a new object; caller json_decref's. */
LmCache *lm_cache_load(LmModel *model, const char *path, const LmCacheOptions *options,
                       json_t **metadata, Error *err);
/* The metadata alone, so that a caller may open the model it names. */
json_t *lm_cache_metadata(const char *path, Error *err);

/* ---- generation ----------------------------------------------------------- */

/* Order and math of mlx_lm.sample_utils. temp 0 takes the largest logit and
 * skips every filter. */
typedef struct LmSampling {
    float temp;
    float top_p;            /* active in (0, 1) */
    float min_p;            /* active when not 0; [0, 1] */
    int min_tokens_to_keep; /* floor of min_p; 1 */
    int top_k;              /* active when > 0; < vocabulary */
    float xtc_probability;  /* active when > 0; [0, 1] */
    float xtc_threshold;    /* [0, 0.5] */
    /* Penalties look at the last *_context tokens (0: 20, -1: all) of the last
     * prompt token and what was generated. A penalty of 0 is off. */
    float repetition_penalty; /* > 0: divides positive and multiplies negative logits */
    float presence_penalty, frequency_penalty;
    int repetition_context, presence_context, frequency_context;
    const int *bias_ids; /* logit bias: logits[bias_ids[i]] += biases[i] */
    const float *biases;
    size_t n_biases;
} LmSampling;

typedef enum { LM_FINISH_NONE = 0, LM_FINISH_STOP, LM_FINISH_LENGTH, LM_FINISH_CALLER } LmFinish;

/* One generated token. The stop token is reported too, with empty text. */
typedef struct LmToken {
    int id;
    const char *text; /* what became printable, UTF-8, may be empty; borrowed for the call */
    size_t text_length;
    float logprob;   /* when options.logprobs, before temperature and filters; else 0 */
    bool from_draft; /* proposed by the draft model */
    int index;       /* 0 for the first */
    LmFinish finish; /* not NONE for the last one */
} LmToken;

typedef struct LmGenerateOptions {
    int max_tokens; /* -1: until a stop token */
    LmSampling sampling;
    bool seeded; /* false: seeded from the clock, once a process */
    uint64_t seed;
    const int *stop_ids; /* besides the model's own */
    size_t n_stop_ids;
    bool ignore_stop;             /* never stop early (benchmarks) */
    int prefill_step;             /* prompt tokens a forward pass takes; 2048 */
    LmCacheOptions cache_options; /* of the cache made for the call when `cache` is NULL */
    LmCache *cache;               /* borrowed; continued and extended */
    LmModel *draft;               /* speculative decoding; the same vocabulary; or NULL */
    int num_draft_tokens;         /* 3 */
    bool logprobs;
    /* Called after each prefill chunk. May be NULL. */
    void (*on_prefill)(void *context, size_t done, size_t total);
    /* Called for each token; false stops (LM_FINISH_CALLER). May be NULL. */
    bool (*on_token)(void *context, const LmToken *token);
    void *context;
} LmGenerateOptions;

/* mlx_lm.generate's defaults: 100 tokens, greedy. */
LmGenerateOptions lm_generate_defaults(void);

typedef struct LmStats {
    size_t prompt_tokens, generated_tokens; /* generated: the stop token included */
    double prompt_seconds;                  /* until the first token */
    double generation_seconds;              /* after it */
    double prompt_tps, generation_tps;
    size_t drafted, accepted; /* speculative decoding */
    double peak_gb; /* resident memory of the process at most, mapped weights included, 1e9 bytes */
    LmFinish finish;
} LmStats;

/* Runs the prompt and generates. An empty prompt, an id outside the vocabulary
 * and out-of-range options are errors. Ctrl-C (base_interrupted) ends it as
 * LM_FINISH_CALLER. stats may be NULL. */
bool lm_generate(LmModel *model, const int *prompt, size_t prompt_length,
                 const LmGenerateOptions *options, LmStats *stats, Error *err);
/* The same, gathering the text; caller frees. */
char *lm_generate_text(LmModel *model, const int *prompt, size_t prompt_length,
                       const LmGenerateOptions *options, LmStats *stats, Error *err);

/* ---- embeddings ------------------------------------------------------------ */

/* A sentence-transformers folder (modules.json), or a plain encoder folder
 * (masked mean over the last layer, normalised). */
typedef struct LmEmbedder LmEmbedder;

typedef enum { LM_EMBED_PLAIN, LM_EMBED_QUERY, LM_EMBED_DOCUMENT } LmEmbedKind;

/* options may be NULL (adapter_path is not used). Caller frees with lm_embedder_close. */
LmEmbedder *lm_embedder_open(const char *folder, const LmOpenOptions *options, Error *err);
void lm_embedder_close(LmEmbedder *embedder); /* NULL ok */
int lm_embedder_dim(const LmEmbedder *embedder);
int lm_embedder_max_tokens(const LmEmbedder *embedder); /* special tokens included */
struct TextTokenizer *lm_embedder_tokenizer(const LmEmbedder *embedder); /* borrowed */
/* "mean", "cls", ... (several joined by "+"); borrowed. */
const char *lm_embedder_pooling(const LmEmbedder *embedder);
/* A name of the model's content, 16 hex characters, from its configuration, the
 * names and shapes of its tensors, and the values of the one-dimensional ones;
 * borrowed. An index records it. */
const char *lm_embedder_identity(const LmEmbedder *embedder);
/* texts[0..count), UTF-8, NUL-terminated -> out [count, dim], rows of unit length
 * when the folder says so. kind picks the folder's prompt (none when it has
 * none). Texts past max_tokens are cut; *truncated (may be NULL) counts them.
 * Any count: batches are made by length and bounded in memory. */
bool lm_embedder_encode(LmEmbedder *embedder, const char *const *texts, size_t count,
                        LmEmbedKind kind, float *out, size_t *truncated, Error *err);

/* ---- rerankers -------------------------------------------------------------- */

/* A BERT-family cross-encoder with one label, or a language model that judges:
 * Qwen3-Reranker, mxbai-rerank v2. */
typedef struct LmReranker LmReranker;
LmReranker *lm_reranker_open(const char *folder, const LmOpenOptions *options, Error *err);
void lm_reranker_close(LmReranker *reranker); /* NULL ok */
/* scores[i]: the raw logit of documents[i] for the query (of a judge: the one of "yes"
 * less the one of "no"); a sigmoid gives [0, 1]. Documents are cut to fit, queries to
 * 3/4 of the limit. */
bool lm_reranker_score(LmReranker *reranker, const char *query, const char *const *documents,
                       size_t count, float *scores, Error *err);

/* ---- comparing models --------------------------------------------------------- */

/* Raw outputs for given ids, as float32 arrays that the caller frees with
 * mlx_array_free. options: dtype and, for decoders, adapter_path count.
 * Decoders: *logits [1, L, V]. Encoders: *hidden [1, L, D], *embedding [1, D]
 * (pooled and normalised as the folder says), *pooled [1, P] (the family's own
 * pooler), *logits [1, labels] for a cross-encoder. What the model has not is {0}.
 * Any pointer may be NULL. */
bool lm_inspect(const char *folder, const LmOpenOptions *options, const int *ids, size_t count,
                mlx_array *logits, mlx_array *hidden, mlx_array *embedding, mlx_array *pooled,
                Error *err);

#endif
