/* Inside the configurable decoder: what a family's row can say, and what a
 * loaded model consists of.
 *
 *     decoder_archs*.c     the rows
 *     decoder_sanitize.c   names and layouts of other tools -> the row's own
 *     decoder_config.c     sizes, windows and positions of each layer
 *     decoder_attention.c, decoder_mla.c   mixers
 *     decoder_ffn.c, decoder_moe.c         feed-forward
 *     decoder_load.c, decoder.c            the whole */
#ifndef MODELS_DECODER_H
#define MODELS_DECODER_H

#include "models/models.h"

/* ---- a family's row ------------------------------------------------------------ */

/* Zero in a field means: as in the row named by `like`, at last Llama's. */

/* Yes, no, or as a key of the config says. */
typedef struct Flag {
    const char *key; /* NULL: always `value`; "" is in no config */
    bool value;      /* when the config has no such key */
} Flag;
typedef struct Scalar {
    const char *key;
    double value;
} Scalar;
#define FLAG_YES \
    { .value = true }
#define FLAG_NO \
    { .key = "" }

typedef enum {
    NORM_RMS = 1,
    NORM_RMS_PLUS_ONE,
    NORM_LAYER,
    NORM_LAYER_PLUS_ONE,
    NORM_RMS_UNIT,
    NORM_LAYER_UNIT
} RowNorm;
typedef enum {
    QKV_SEPARATE = 1,
    QKV_FUSED,  /* [queries, keys, values] */
    QKV_GROUPED /* per key-value head: [its queries, key, value] */
} QkvLayout;
typedef enum {
    QK_NORM_NONE = 1,
    QK_NORM_HEAD,
    QK_NORM_WHOLE,
    QK_NORM_EACH, /* [heads, head_dim]: weights of their own for each head */
    QK_NORM_UNIT  /* without weights */
} QkNorm;
typedef enum {
    KV_FROM_KEY = 1, /* num_key_value_heads, else one a head */
    KV_ONE_A_HEAD,
    KV_MULTI_QUERY, /* one for all where multi_query says so */
    KV_TILED        /* heads / n_shared_head; head h reads h modulo that */
} KvRule;
typedef enum { GATE_NONE = 1, GATE_EACH, GATE_HEAD_SIGMOID, GATE_HEAD_SOFTPLUS } GateKind;
typedef enum { IN_FLOAT32_NEVER = 1, IN_FLOAT32_ALWAYS, IN_FLOAT32_FROM_HALF } InFloat32;
typedef enum {
    TEMPERATURE_NONE = 1,
    TEMPERATURE_FLOOR_SCALE, /* Llama 4, where a layer does not rotate */
    TEMPERATURE_ORIGINAL     /* Ministral 3: by original_max_position_embeddings */
} Temperature;
typedef enum { MIXER_ATTENTION = 1, MIXER_LATENT_EXPANDED, MIXER_LATENT, MIXER_BLOCKS } MixerRule;

typedef enum {
    WINDOW_LAYER_TYPES = 1, /* only where layer_types says so; it decides in all rules */
    WINDOW_ALL,             /* sliding_window, when given, holds for every layer */
    WINDOW_ALTERNATING,     /* even layers slide */
    WINDOW_PATTERN,         /* all but each sliding_window_pattern'th layer slide */
    WINDOW_HYBRID_LIST,     /* hybrid_layer_pattern: 1 slides */
    WINDOW_CHUNKS,          /* all but each fourth layer see their own chunk only */
    WINDOW_NEVER
} WindowRule;
typedef enum {
    POSITION_ROPE = 1,
    POSITION_ROPE_SOME,    /* no_rope_layers / no_rope_layer_interval */
    POSITION_ROPE_SLIDING, /* only sliding layers rotate, if the model has a window */
    POSITION_ROPE_LOCAL,   /* only sliding or chunked layers rotate */
    POSITION_LEARNED       /* a table, added to the embedding */
} PositionRule;
typedef enum { ROPE_BASE_PLAIN = 1, ROPE_BASE_ALPHA /* Hunyuan */, ROPE_BASE_NEGATIVE } RopeBase;

typedef enum { FFN_GLU = 1, FFN_GLU_FUSED, FFN_GLU_FUSED_UP_FIRST, FFN_TWO_LAYER } FfnKind;
typedef enum {
    WIDTH_FROM_KEY = 1,
    WIDTH_FOUR_HIDDEN, /* unless a key says otherwise */
    WIDTH_HALF,        /* half of the key's number */
    WIDTH_LILLE,
    WIDTH_OPENELM,
    WIDTH_BLOCKS
} WidthRule;
typedef enum {
    PAIR_PLAIN = 1, /* act(gate) up */
    PAIR_CLAMPED,   /* gpt-oss: both clamped at 7, (up + 1) */
    PAIR_LIMITED    /* Step 3.5: limits a layer */
} PairKind;

typedef enum {
    SCORE_SOFTMAX = 1,
    SCORE_SIGMOID,
    SCORE_TOP_SOFTMAX,
    SCORE_SQRT_SOFTPLUS,
    SCORE_INPUT /* Llama 4: the best expert's sigmoid scales its input */
} MoeScore;
typedef enum {
    MOE_EVERYWHERE = 1,
    MOE_AFTER_DENSE,
    MOE_SPARSE_STEP,
    MOE_LIST,
    MOE_ERNIE,
    MOE_INTERLEAVED,
    MOE_ENUMERATED,
    MOE_BUT_FIRST
} MoeLayers;
typedef enum {
    SHARED_ADDED = 1,
    SHARED_GATED,
    SHARED_MIXED /* Klear: softmax of two */
} SharedRule;
typedef enum { GROUP_BEST_TWO = 1, GROUP_BEST } GroupScore;

typedef struct MoeArch {
    const char *router; /* NULL: the family has no experts */
    Flag router_bias, router_float32;
    const char *correction; /* bias on what is selected, not on the weights */
    Flag correction_if;
    const char *experts; /* the three (or two) stacked matrices */
    Flag expert_bias;
    Flag two_layer; /* fc1, fc2 */
    Flag listed;    /* mlx_lm keeps a module an expert */
    MoeScore score;
    const char *score_key; /* "softmax", "sigmoid", ...: overrides score */
    Flag normalise;        /* weights of a token sum to 1 */
    Scalar scale;          /* on the weights */
    GroupScore groups;
    const char *groups_if; /* topk_method that must be named for groups to count */
    MoeLayers layers;
    const char *layers_key;
    const char *shared, *shared_gate;
    SharedRule shared_rule;
    Flag shared_if;
    const char *width_key;        /* of one expert; "": intermediate_size */
    const char *shared_count_key; /* shared width: count x an expert's */
    const char *shared_width_key; /* or a key of its own */
    Scalar softcap;
} MoeArch;

/* What a config may leave out; 0: it must not. */
typedef struct Sizes {
    int hidden, layers, ffn, heads, kv_heads, head_dim, value_dim, vocab, experts, active;
} Sizes;

typedef enum {
    EMBED_PLAIN = 1,
    EMBED_SQRT_HIDDEN,
    EMBED_SQRT_IF_MUP /* where mup_enabled */
} EmbedScale;
typedef enum { LOGIT_PLAIN = 1, LOGIT_BASE_WIDTH /* MiniCPM, untied */ } LogitRule;
typedef enum { RESIDUAL_PLAIN = 1, RESIDUAL_DEPTH /* MiniCPM: / sqrt(layers) */ } ResidualRule;

/* One step of renaming, on every tensor's name or on those of one form. */
typedef enum {
    RULE_DROP,              /* names that contain `from` */
    RULE_DROP_LAYERS,       /* layers past the last: heads that predict further tokens */
    RULE_REPLACE,           /* `from` becomes `to`, unless `to` is there already */
    RULE_HALVES,            /* <from> -> <to>, <also>: halves along the rows */
    RULE_HALVES_AS_COLUMNS, /* the same, lying transposed */
    RULE_TURN,              /* <from> -> <to>, last two axes exchanged */
    RULE_SPECIAL            /* a function of its own */
} RuleKind;
struct Sanitizer;
typedef struct SanitizeRule {
    RuleKind kind;
    const char *from, *to, *also;
    void (*special)(struct Sanitizer *sanitizer);
} SanitizeRule;
#define DROP(text) \
    { .kind = RULE_DROP, .from = text }
#define DROP_LAYERS \
    { .kind = RULE_DROP_LAYERS, .from = "" }
#define RENAME(old, new) \
    { .kind = RULE_REPLACE, .from = old, .to = new }
#define TURN(old, new) \
    { .kind = RULE_TURN, .from = old, .to = new }
#define SPECIAL(function) \
    { .kind = RULE_SPECIAL, .from = "", .special = function }
#define RULES(...)           \
    (const SanitizeRule[]) { \
        __VA_ARGS__, {       \
            .from = NULL     \
        }                    \
    }

typedef struct DecoderArch {
    const char *model_type, *like;
    const char *with_key;      /* the row counts only for a config with this key */
    const char *wrapper;       /* prefix of all names; sizes stand in text_config */
    const char *const *nested; /* objects of the config whose keys count as its own */
    Sizes sizes;
    const char *embed, *positions, *layers, *final_norm, *head;
    /* Norms. Names in a layer; "": there is none. */
    RowNorm norm;
    Flag norm_bias;
    Scalar norm_eps;
    const char *attention_in, *attention_out, *attention_sub, *ffn_in, *ffn_out, *ffn_sub;
    Flag parallel;  /* attention and feed-forward side by side */
    Flag two_norms; /* of which each has its own norm */
    Flag embed_norm;
    /* Attention */
    MixerRule mixer;
    const char *q, *k, *v, *o, *qkv;
    QkvLayout layout;
    Flag qkv_bias, o_bias;
    KvRule kv;
    const char *q_norm, *k_norm;
    QkNorm qk_norm;
    Flag qk_norm_if, qk_norm_late /* after rotation */, qk_norm_rotating /* only there */;
    Scalar qk_norm_eps;
    const char *gate;
    GateKind gate_kind;
    Flag gate_if;
    const char *sinks;
    Flag full_sinks, sliding_sinks;
    Scalar clip_qkv;
    Scalar attention_scale; /* multiplier itself; 0: from the next */
    Scalar attention_dim;   /* scale = dim^-1/2; 0: head_dim */
    Scalar attention_softcap;
    Flag attention_scaled;   /* no: by 1 */
    Flag attention_by_layer; /* and divided by the layer's number, from 1 */
    InFloat32 in_float32;
    Temperature temperature;
    Flag shares_kv; /* layers between each cla_share_factor'th use its keys */
    Scalar latent_eps;
    /* Positions */
    double rope_theta, rope_partial;
    const char *rotary_dim; /* key */
    Flag rope_traditional;
    RopeBase rope_base;
    double local_theta;
    const char *local_theta_key;
    Flag local_plain; /* sliding layers are never stretched */
    PositionRule position;
    WindowRule window;
    int default_window, default_pattern;
    /* Feed-forward */
    FfnKind ffn;
    const char *ffn_path, *gate_name, *up, *down;
    const char *ffn_key; /* of the dense width where it is not the common one */
    Flag ffn_bias;
    NnActivation activation;
    const char *activation_key; /* overrides activation */
    Flag xielu;                 /* instead of activation: slopes are weights */
    Flag ternary;               /* weights may be bytes of four ternary numbers */
    PairKind pair;
    WidthRule width;
    MoeArch moe;
    /* Ends */
    Flag tied;
    Flag head_bias;
    EmbedScale embed_rule;
    LogitRule logit_rule;
    ResidualRule residual_rule;
    Scalar embed_scale, residual_scale, logit_scale, logit_divisor, logit_softcap;
    Flag clip_residual; /* float16 sums stay finite */
    /* Weights of other tools */
    const SanitizeRule *rules;
    const char *eight_bits;  /* end of the path that converting keeps at 8 bits */
    const char *keeps_dtype; /* part of the names that converting leaves alone */
} DecoderArch;

/* The family's row with all that it leaves out filled in; false: unknown. */
bool model_decoder_arch(const json_t *config, DecoderArch *arch);
bool model_decoder_known(const char *model_type);
/* All families, comma-separated, for messages. */
void model_decoder_types(char *text, size_t bytes);

typedef struct ArchTable {
    const DecoderArch *rows;
    size_t count;
} ArchTable;
extern const ArchTable model_dense_archs, model_moe_archs;

/* ---- a loaded model -------------------------------------------------------------- */

/* What a mixer is given beside the normed states x [B, L, D]. */
typedef struct MixerInput {
    KvCache *cache;  /* NULL: none */
    int text_length; /* of which these tokens are a part: nn_rope_within */
    Mask mask;
    mlx_array shared[2]; /* key and value projections of an earlier layer; in and out */
} MixerInput;

/* What moves information between tokens: attention, latent attention, or
 * whatever else gives [B, L, D] for [B, L, D]. */
typedef struct Mixer {
    mlx_array (*forward)(const void *state, mlx_array x, MixerInput *input);
    const void *state;
    int kv_heads, key_dim, value_dim; /* rows of its cache; 0: it has none */
} Mixer;

enum { XIELU_ABOVE, XIELU_BELOW, XIELU_BETA, XIELU_EPS };
typedef struct Glu {
    FfnKind kind;
    Linear gate, up, down; /* gate holds both when fused */
    NnActivation activation;
    mlx_array xielu[4]; /* Apertus: by the names above; {0} elsewhere */
    PairKind pair;
    float limit;
    Norm sub_norm;
    bool has_sub_norm;
} Glu;

typedef struct Moe {
    int experts, active;
    SwitchLinear gate, up, down;
    bool two_layer;
    NnActivation activation;
    PairKind pair;
    float limit;
    Linear router;
    mlx_array correction; /* {0}: none */
    MoeScore score;
    bool router_float32, normalise;
    double scale, softcap;
    int groups, kept_groups; /* 1: no groups */
    GroupScore group_score;
    bool has_shared;
    SharedRule shared_rule;
    Glu shared;
    Linear shared_gate;
} Moe;

typedef enum { SUB_ABSENT, SUB_PRESENT, SUB_LINEAR } SubBlock;

typedef struct DecoderLayer {
    Mixer mixer;
    SubBlock attention, ffn_block;
    Norm attention_in, attention_out, ffn_in, ffn_out;
    bool has_attention_in, has_attention_out, has_ffn_in, has_ffn_out;
    Glu dense;
    const Moe *moe;    /* NULL: dense */
    Linear ffn_linear; /* SUB_LINEAR */
    bool sliding, chunked, rotates;
    int cache; /* its slot, or -1 */
    int heads, kv_heads, head_dim, value_dim;
    const Rope *rope; /* NULL: this layer has no positions */
} DecoderLayer;

struct Decoder {
    const char *layers_prefix; /* "model.layers" */
    int n_layers, n_caches, hidden_size, vocab_size, window, chunk;
    float residual_scale;
    double embed_scale, logit_scale, logit_softcap;
    bool parallel, two_norms, tied, clip_residual;
    int first_full, first_sliding; /* cache slots of the first layer of each kind, or -1 */
    Embedding embed;
    bool has_positions;
    Embedding positions;
    int n_positions;
    Norm embed_norm;
    bool has_embed_norm;
    DecoderLayer *layers;
    Norm norm;
    Linear head;
};

/* Gate and up, of dense layers and of experts, become one. */
mlx_array model_pair(NnActivation activation, PairKind pair, float limit, mlx_array gate,
                     mlx_array up);
mlx_array model_glu(const Glu *glu, mlx_array x);
mlx_array model_moe(const Moe *moe, mlx_array x);

/* ---- loading ---------------------------------------------------------------------- */

/* What the steps of loading share. */
typedef struct Loading {
    NnParams *params;
    json_t *config; /* with text_config and the like merged into it */
    DecoderArch arch;
    const char *prefix; /* of every name: "" or "language_model." */
    NnNormKind norm;
    float eps;
    bool qkv_bias, o_bias, ffn_bias;
    NnActivation activation;
} Loading;

/* The config whose keys are all at the top; caller json_decref's. */
json_t *model_decoder_flatten(const json_t *config, const DecoderArch *arch);

bool model_flag(const Loading *l, Flag flag);
double model_scalar(const Loading *l, Scalar scalar);
/* The value, or NULL where it is absent or null. */
const json_t *model_present(const json_t *config, const char *key);
/* Element i of a list, or the value itself; NULL where there is none. */
const json_t *model_layer_value(const json_t *config, const char *key, int i);
/* The first of the spellings (NULL-terminated) that the config has; an absent one
 * gives `fallback`, and with fallback 0 a failure. */
int model_size(const Loading *l, const char *const *spellings, int fallback);
/* The number of routed experts and of those active a token; 0: none. */
int model_expert_count(const Loading *l, int layer);
int model_experts_active(const Loading *l, int layer);
int model_ffn_width(const Loading *l, const Decoder *d, int layer);
bool model_is_moe(const Loading *l, const Decoder *d, int layer);
/* Sizes of all, then heads, windows and rotation of each layer. */
void model_read_sizes(const Loading *l, Decoder *d);
void model_read_layers(const Loading *l, Decoder *d);
/* "<prefix><layers>.<i>.<name>", owned by the tree. */
const char *model_path(const Loading *l, int layer, const char *name);
const char *model_outer_path(const Loading *l, const char *name);

/* Layer i, whose sizes d->layers[i] says. */
void model_layer_load(NnParams *params, const json_t *config, const Decoder *d, int i,
                      DecoderLayer *layer);
Mixer model_attention_load(const Loading *l, const Decoder *d, int layer);
Mixer model_latent_load(const Loading *l, const Decoder *d, int layer);
Mixer model_linear_mixer_load(const Loading *l, const Decoder *d, int layer);
void model_glu_load(const Loading *l, const char *path, int hidden, int width, int layer,
                    const char *sub_norm, Glu *glu);
const Moe *model_moe_load(const Loading *l, const Decoder *d, int layer);

/* ---- sanitising -------------------------------------------------------------------- */

typedef struct Sanitizer {
    NnParams *params;
    const Loading *loading;
    bool found; /* for the use of one step */
} Sanitizer;
/* Gives every tensor the name and layout that the row's loading asks for. */
void model_sanitize_tensors(const Loading *l);
void model_stack_experts(const Loading *l, int layers);
void model_special_latent(Sanitizer *sanitizer);
void model_special_gpt_oss(Sanitizer *sanitizer);
void model_special_hunyuan(Sanitizer *sanitizer);
void model_special_dbrx(Sanitizer *sanitizer);
void model_special_step(Sanitizer *sanitizer);
void model_special_norm_head(Sanitizer *sanitizer);
void model_special_turn_gpt2(Sanitizer *sanitizer);
void model_special_squeeze(Sanitizer *sanitizer);
void model_special_scale_inverse(Sanitizer *sanitizer);
/* Packs BitNet's bytes; not a step of sanitising, for mlx_lm keeps them. */
void model_special_ternary(Sanitizer *sanitizer);
/* For those functions: a name of at most MODEL_NAME - 1 bytes; each name of the
 * moment; a tensor under another name; name with its first `from` replaced. */
enum { MODEL_NAME = 512 };
void model_name(char out[MODEL_NAME], const char *format, ...) BASE_PRINTF(2, 3);
void model_each_name(Sanitizer *sanitizer, void (*visit)(Sanitizer *sanitizer, const char *name));
void model_move(Sanitizer *sanitizer, const char *from, const char *to, mlx_array array);
void model_replaced(const char *name, const char *from, const char *to, char out[MODEL_NAME]);

#endif
