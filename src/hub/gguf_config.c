/* From a GGUF file's metadata to the config.json of the same model. Keys of the
 * file are "<architecture>.<key>"; the table pairs them with config's. */
#include "hub/gguf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const GgufArch architectures[] = {
    {GGUF_LLAMA, "llama", "llama", "LlamaForCausalLM", "silu", 0},
    {GGUF_LLAMA, "llama", "mistral", "MistralForCausalLM", "silu", 0},
    {GGUF_LLAMA, "llama", "mixtral", "MixtralForCausalLM", "silu", 0},
    {GGUF_QWEN2, "qwen2", "qwen2", "Qwen2ForCausalLM", "silu", 0},
    {GGUF_QWEN3, "qwen3", "qwen3", "Qwen3ForCausalLM", "silu", 0},
    {GGUF_QWEN3_MOE, "qwen3moe", "qwen3_moe", "Qwen3MoeForCausalLM", "silu", 0},
    {GGUF_PHI3, "phi3", "phi3", "Phi3ForCausalLM", "silu", 0},
    {GGUF_GEMMA, "gemma", "gemma", "GemmaForCausalLM", "gelu_pytorch_tanh", 0},
    {GGUF_GEMMA2, "gemma2", "gemma2", "Gemma2ForCausalLM", "gelu_pytorch_tanh", 0},
    {GGUF_GEMMA3, "gemma3", "gemma3_text", "Gemma3ForCausalLM", "gelu_pytorch_tanh", 6},
    {GGUF_OLMO2, "olmo2", "olmo2", "Olmo2ForCausalLM", "silu", 0},
    {GGUF_GRANITE, "granite", "granite", "GraniteForCausalLM", "silu", 0},
    {GGUF_SMOLLM3, "smollm3", "smollm3", "SmolLM3ForCausalLM", "silu", 4},
    {GGUF_COHERE, "command-r", "cohere", "CohereForCausalLM", "silu", 0},
    {GGUF_COHERE2, "cohere2", "cohere2", "Cohere2ForCausalLM", "silu", 4},
    {GGUF_BERT, "bert", "bert", "BertModel", "gelu", 0},
};

static const GgufKey keys[] = {
    {"block_count", "num_hidden_layers", ~0u, KEY_SIZE, true},
    {"embedding_length", "hidden_size", ~0u, KEY_SIZE, true},
    {"feed_forward_length", "intermediate_size", ~0u, KEY_SIZE, true},
    {"attention.head_count", "num_attention_heads", ~0u, KEY_SIZE, true},
    {"attention.head_count_kv", "num_key_value_heads", GGUF_DECODERS, KEY_SIZE, false},
    {"context_length", "max_position_embeddings", ~0u, KEY_SIZE, true},
    {"attention.key_length", "head_dim", GGUF_DECODERS, KEY_SIZE, false},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps", GGUF_DECODERS & ~GGUF_COHERES, KEY_FLOAT,
     true},
    {"attention.layer_norm_epsilon", "layer_norm_eps", GGUF_BERT | GGUF_COHERES, KEY_FLOAT, true},
    {"rope.freq_base", "rope_theta", GGUF_DECODERS, KEY_FLOAT, false},
    {"rope.freq_base_swa", "rope_local_base_freq", GGUF_GEMMA3, KEY_FLOAT, false},
    {"attention.sliding_window", "sliding_window", GGUF_SANDWICH | GGUF_PHI3 | GGUF_COHERE2,
     KEY_SIZE, false},
    {"attention.scale", "attention_multiplier", GGUF_GRANITE, KEY_FLOAT, true},
    {"embedding_scale", "embedding_multiplier", GGUF_GRANITE, KEY_FLOAT, false},
    {"residual_scale", "residual_multiplier", GGUF_GRANITE, KEY_FLOAT, false},
    {"logit_scale", "logits_scaling", GGUF_GRANITE, KEY_FLOAT, false},
    {"logit_scale", "logit_scale", GGUF_COHERES, KEY_FLOAT, true},
    {"attn_logit_softcapping", "attn_logit_softcapping", GGUF_GEMMA2, KEY_FLOAT, false},
    {"final_logit_softcapping", "final_logit_softcapping", GGUF_GEMMA2, KEY_FLOAT, false},
    {"rope.scaling.original_context_length", "original_max_position_embeddings", GGUF_PHI3,
     KEY_SIZE, false},
    {"expert_count", "num_local_experts", GGUF_LLAMA, KEY_SIZE, false},
    {"expert_count", "num_experts", GGUF_QWEN3_MOE, KEY_SIZE, true},
    {"expert_used_count", "num_experts_per_tok", GGUF_LLAMA, KEY_SIZE, false},
    {"expert_used_count", "num_experts_per_tok", GGUF_QWEN3_MOE, KEY_SIZE, true},
    {"expert_feed_forward_length", "moe_intermediate_size", GGUF_QWEN3_MOE, KEY_SIZE, true},
};

/* Sizes past this are a broken file, and would overflow products below. */
enum { SIZE_LIMIT = 1 << 28, LAYER_LIMIT = 4096 };

const GgufKey *gguf_keys(size_t *count) {
    *count = BASE_COUNT(keys);
    return keys;
}

int64_t gguf_query_scalar(const GgufArch *arch, int64_t layer_count, int64_t hidden, int64_t heads,
                          int64_t head_dim) {
    /* The 27B models, alone in having so many layers. */
    const int64_t largest = arch->bit == GGUF_GEMMA2 ? 46 : 62;
    return layer_count == largest && heads > 0 ? hidden / heads : head_dim;
}

bool gguf_has_experts(const json_t *config) {
    return json_integer_value(json_object_get(config, "num_local_experts")) > 0 ||
           json_integer_value(json_object_get(config, "num_experts")) > 0;
}

const GgufArch *gguf_arch_for(const char *model_type) {
    for (size_t i = 0; i < BASE_COUNT(architectures); i++)
        if (strcmp(architectures[i].model_type, model_type) == 0) return &architectures[i];
    return NULL;
}

const GgufArch *gguf_arch_find(HubGguf *gguf, Error *err) {
    const char *name = hub_gguf_string(gguf, "general.architecture");
    if (!name) {
        base_fail(err, ERROR_INPUT, "general.architecture is missing");
        return NULL;
    }
    for (size_t i = 0; i < BASE_COUNT(architectures); i++)
        if (strcmp(architectures[i].name, name) == 0) return &architectures[i];
    base_fail(err, ERROR_UNSUPPORTED, "architecture \"%.64s\" is not known", name);
    StrBuf list = {0};
    for (size_t i = 0; i < BASE_COUNT(architectures); i++)
        if (i == 0 || strcmp(architectures[i].name, architectures[i - 1].name) != 0)
            base_str_appendf(&list, "%s%s", i ? ", " : "Known: ", architectures[i].name);
    base_hint(err, "%s.", list.data);
    base_str_free(&list);
    return NULL;
}

/* "<architecture>.<key>" as a number. */
static bool number(HubGguf *gguf, const GgufArch *arch, const char *key, double *value) {
    char full[128];
    snprintf(full, sizeof full, "%s.%s", arch->name, key);
    return hub_gguf_number(gguf, full, value);
}

static bool read_keys(HubGguf *gguf, const GgufArch *arch, json_t *config, Error *err) {
    for (size_t i = 0; i < BASE_COUNT(keys); i++) {
        if (!(keys[i].archs & arch->bit)) continue;
        double value = 0;
        if (!number(gguf, arch, keys[i].key, &value)) {
            if (!keys[i].required) continue;
            return base_fail(err, ERROR_INPUT, "%s.%s is missing or not one number", arch->name,
                             keys[i].key);
        }
        /* Phi's window of 0 is none. */
        if (value == 0 && strcmp(keys[i].config, "sliding_window") == 0) continue;
        bool good = keys[i].kind == KEY_FLOAT ? isfinite(value) && value >= 0
                                              : value >= 1 && value <= SIZE_LIMIT;
        if (!good)
            return base_fail(err, ERROR_INPUT, "%s.%s is %g, which cannot be", arch->name,
                             keys[i].key, value);
        json_object_set_new(config, keys[i].config,
                            keys[i].kind == KEY_FLOAT ? base_json_float(value)
                                                      : json_integer((json_int_t)value));
    }
    return true;
}

static int64_t size_of(const json_t *config, const char *key) {
    return json_integer_value(json_object_get(config, key));
}

static void set_default(json_t *config, const char *key, json_t *value) {
    if (json_object_get(config, key))
        json_decref(value);
    else
        json_object_set_new(config, key, value);
}

/* What llama.cpp assumes when a key is absent, and what must hold. */
static bool complete_decoder(const GgufArch *arch, json_t *config, Error *err) {
    int64_t heads = size_of(config, "num_attention_heads");
    int64_t hidden = size_of(config, "hidden_size");
    set_default(config, "num_key_value_heads", json_integer(heads));
    if (!json_object_get(config, "head_dim") && hidden % heads != 0)
        return base_fail(err, ERROR_INPUT,
                         "%s.embedding_length %lld is not a multiple of %lld heads", arch->name,
                         (long long)hidden, (long long)heads);
    set_default(config, "head_dim", json_integer(hidden / heads));
    int64_t kv_heads = size_of(config, "num_key_value_heads");
    if (heads % kv_heads != 0)
        return base_fail(err, ERROR_INPUT, "%s: %lld heads cannot share %lld key-value heads",
                         arch->name, (long long)heads, (long long)kv_heads);
    set_default(config, "rope_theta", json_real(10000));
    if (arch->bit == GGUF_GEMMA2) {
        set_default(config, "attn_logit_softcapping", json_real(50));
        set_default(config, "final_logit_softcapping", json_real(30));
        set_default(config, "sliding_window", json_integer(4096));
    }
    if (arch->bit == GGUF_GEMMA3) set_default(config, "rope_local_base_freq", json_real(10000));
    if (arch->bit & GGUF_SANDWICH)
        json_object_set_new(
            config, "query_pre_attn_scalar",
            json_integer(gguf_query_scalar(arch, size_of(config, "num_hidden_layers"), hidden,
                                           heads, size_of(config, "head_dim"))));
    if (arch->every)
        json_object_set_new(
            config, arch->bit == GGUF_SMOLLM3 ? "no_rope_layer_interval" : "sliding_window_pattern",
            json_integer(arch->every));
    return true;
}

static bool rope_scaling(HubGguf *gguf, const GgufArch *arch, json_t *config, Error *err) {
    char key[128];
    double factor = 0, original = 0, dims = 0;
    if (number(gguf, arch, "rope.dimension_count", &dims) && arch->bit == GGUF_PHI3 && dims >= 1 &&
        dims < (double)size_of(config, "head_dim"))
        json_object_set_new(config, "partial_rotary_factor",
                            json_real(dims / (double)size_of(config, "head_dim")));
    snprintf(key, sizeof key, "%s.rope.scaling.type", arch->name);
    const char *type = hub_gguf_string(gguf, key);
    if (!type || strcmp(type, "none") == 0 || strcmp(type, "longrope") == 0) return true;
    bool yarn = strcmp(type, "yarn") == 0;
    if (!yarn && strcmp(type, "linear") != 0)
        return base_fail(err, ERROR_UNSUPPORTED, "%s is \"%.32s\", which is not known", key, type);
    if (!number(gguf, arch, "rope.scaling.factor", &factor) || !(factor > 0))
        return base_fail(err, ERROR_INPUT, "%s.rope.scaling.factor is missing", arch->name);
    json_t *scaling = json_pack("{s:s,s:s,s:o}", "type", type, "rope_type", type, "factor",
                                base_json_float(factor));
    if (yarn) {
        if (!number(gguf, arch, "rope.scaling.original_context_length", &original) ||
            original < 1 || original > SIZE_LIMIT)
            original = (double)size_of(config, "max_position_embeddings");
        json_object_set_new(scaling, "original_max_position_embeddings",
                            json_integer((json_int_t)original));
    }
    json_object_set_new(config, "rope_scaling", scaling);
    return true;
}

/* A token id of the vocabulary, as config spells it. */
static void token_id(HubGguf *gguf, const char *name, json_t *config, const char *key,
                     double fallback) {
    char full[64];
    snprintf(full, sizeof full, "tokenizer.ggml.%s", name);
    double value = fallback;
    hub_gguf_number(gguf, full, &value);
    if (value >= 0 && value <= INT32_MAX)
        json_object_set_new(config, key, json_integer((json_int_t)value));
}

/* Mixtral is a Llama whose feed-forward is made of experts. */
static void describe_experts(const GgufArch *arch, json_t *config) {
    if (!gguf_has_experts(config)) return;
    if (arch->bit == GGUF_LLAMA) {
        json_object_set_new(config, "model_type", json_string("mixtral"));
        json_object_set_new(config, "architectures", json_pack("[s]", "MixtralForCausalLM"));
        return;
    }
    json_object_set_new(config, "norm_topk_prob", json_true());
    json_object_set_new(config, "decoder_sparse_step", json_integer(1));
    json_object_set_new(config, "mlp_only_layers", json_array());
}

json_t *gguf_config_make(HubGguf *gguf, const GgufArch *arch, Error *err) {
    json_t *config = json_pack("{s:[s],s:s,s:s}", "architectures", arch->class_name, "model_type",
                               arch->model_type, "hidden_act", arch->activation);
    bool decoder = (arch->bit & GGUF_DECODERS) != 0;
    bool good = read_keys(gguf, arch, config, err);
    if (good && size_of(config, "num_hidden_layers") > LAYER_LIMIT)
        good = base_fail(err, ERROR_INPUT, "%s.block_count is %lld, which cannot be", arch->name,
                         (long long)size_of(config, "num_hidden_layers"));
    if (good && decoder)
        good = complete_decoder(arch, config, err) && rope_scaling(gguf, arch, config, err);
    if (!good) {
        json_decref(config);
        return NULL;
    }
    if (arch->bit & GGUF_GEMMAS)
        json_object_set_new(config, "hidden_activation", json_string(arch->activation));
    describe_experts(arch, config);
    const char *vocabulary = hub_gguf_string(gguf, "tokenizer.ggml.model");
    bool sentencepiece = vocabulary && strcmp(vocabulary, "llama") == 0;
    token_id(gguf, "bos_token_id", config, "bos_token_id", sentencepiece ? 1 : -1);
    if (decoder) token_id(gguf, "eos_token_id", config, "eos_token_id", sentencepiece ? 2 : -1);
    token_id(gguf, "padding_token_id", config, "pad_token_id", -1);
    return config;
}

/* ---- rotary factors ------------------------------------------------------- */

/* Llama 3.1's rule: short wavelengths stay, long ones are divided, between them
 * it is interpolated. */
static double llama3_factor(double wavelength, double factor, double low, double high,
                            double original) {
    if (wavelength < original / high) return 1;
    if (wavelength > original / low) return factor;
    double smooth = (original / wavelength - low) / (high - low);
    return 1 / ((1 - smooth) / factor + smooth);
}

void gguf_llama3_factors(double base, double factor, double low, double high, double original,
                         float *factors, size_t count) {
    for (size_t i = 0; i < count; i++)
        factors[i] = (float)llama3_factor(2 * M_PI * pow(base, (double)i / (double)count), factor,
                                          low, high, original);
}

bool gguf_rope_llama3(json_t *config, const float *factors, size_t count, Error *err) {
    static const double originals[] = {8192,   4096, 16384, 32768, 2048, 65536,
                                       131072, 1024, 512,   256,   128,  64};
    const double low = 1, high = 4;
    double largest = 1;
    bool scaled = false;
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(factors[i]) || factors[i] < 0.5f || factors[i] > 1e6f)
            return base_fail(err, ERROR_INPUT, "rope_freqs.weight: factor %zu is %g", i,
                             (double)factors[i]);
        largest = fmax(largest, (double)factors[i]);
        scaled |= fabsf(factors[i] - 1) > 1e-6f;
    }
    if (!scaled) return true;
    double base = json_number_value(json_object_get(config, "rope_theta"));
    for (size_t c = 0; c < BASE_COUNT(originals); c++) {
        bool fits = true;
        for (size_t i = 0; i < count && fits; i++) {
            double wavelength = 2 * M_PI * pow(base, (double)i / (double)count);
            double expected = llama3_factor(wavelength, largest, low, high, originals[c]);
            fits = fabs(expected - (double)factors[i]) <= 1e-3 * expected;
        }
        if (!fits) continue;
        json_object_set_new(config, "rope_scaling",
                            json_pack("{s:s,s:s,s:o,s:f,s:f,s:I}", "type", "llama3", "rope_type",
                                      "llama3", "factor", base_json_float(largest),
                                      "low_freq_factor", low, "high_freq_factor", high,
                                      "original_max_position_embeddings",
                                      (json_int_t)originals[c]));
        return true;
    }
    return base_fail(err, ERROR_UNSUPPORTED,
                     "rope_freqs.weight: the factors follow no rule that is known");
}

/* ---- stop ids ----------------------------------------------------------------- */

/* Tokens that end a turn or a text in the chat formats there are. */
static const char *const end_texts[] = {"<|eot_id|>",
                                        "<|im_end|>",
                                        "<|end|>",
                                        "<|return|>",
                                        "<|call|>",
                                        "<|calls|>",
                                        "<|flush|>",
                                        "<end_of_turn>",
                                        "<|endoftext|>",
                                        "</s>",
                                        "<|eom_id|>",
                                        "<EOT>",
                                        "_<EOT>",
                                        "[EOT]",
                                        "[EOS]",
                                        "<|end_of_text|>",
                                        "<end_of_utterance>",
                                        "<eos>",
                                        "<turn|>",
                                        "<|tool_response>",
                                        "<｜end▁of▁sentence｜>",
                                        "[e~["};

static void add_id(int id, int *ids, size_t capacity, size_t *count) {
    for (size_t i = 0; i < *count && i < capacity; i++)
        if (ids[i] == id) return;
    if (*count < capacity) ids[*count] = id;
    (*count)++;
}

static bool has_text(const char *const *tokens, size_t count, const char *text) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(tokens[i], text) == 0) return true;
    return false;
}

size_t gguf_stop_ids(HubGguf *gguf, int *ids, size_t capacity) {
    static const char *const named[] = {"eos_token_id", "eot_token_id", "eom_token_id"};
    enum { CONTROL = 3, USER_DEFINED = 4 };
    size_t count = 0, token_count = 0, type_count = 0;
    const char *const *tokens = hub_gguf_strings(gguf, "tokenizer.ggml.tokens", &token_count);
    const int32_t *types = hub_gguf_ints(gguf, "tokenizer.ggml.token_type", &type_count);
    for (size_t i = 0; i < BASE_COUNT(named); i++) {
        char key[64];
        double value = -1;
        snprintf(key, sizeof key, "tokenizer.ggml.%s", named[i]);
        if (hub_gguf_number(gguf, key, &value) && value >= 0 && value < (double)token_count)
            add_id((int)value, ids, capacity, &count);
    }
    /* gpt-oss uses <|end|> inside a turn. */
    bool harmony =
        has_text(tokens, token_count, "<|return|>") && has_text(tokens, token_count, "<|call|>");
    for (size_t i = 0; i < token_count && i < type_count; i++) {
        if (types[i] != CONTROL && types[i] != USER_DEFINED) continue;
        if (harmony && strcmp(tokens[i], "<|end|>") == 0) continue;
        for (size_t e = 0; e < BASE_COUNT(end_texts); e++)
            if (strcmp(tokens[i], end_texts[e]) == 0) add_id((int)i, ids, capacity, &count);
    }
    return count;
}
