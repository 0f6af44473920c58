/* The families that the decoder knows, one row each; adding one is adding a row.
 * What a row leaves out is as in Llama's, the first. */
#include "models/decoder.h"

#include <string.h>

#define YES \
    { .value = true }
#define TIE_NO \
    { .key = "tie_word_embeddings", .value = false }

static const DecoderArch llama = {
    .model_type = "llama",
    .norm = NN_NORM_RMS,
    .norm_eps = {"rms_norm_eps", 1e-6},
    .attention_in = "input_layernorm",
    .attention_out = "",
    .ffn_in = "post_attention_layernorm",
    .ffn_out = "",
    .final_norm = "model.norm",
    .qkv_bias = {.key = "attention_bias"},
    .o_bias = {.key = "attention_bias"},
    .o_name = "self_attn.o_proj",
    .gate = "mlp.gate_proj",
    .up = "mlp.up_proj",
    .down = "mlp.down_proj",
    .ffn_bias = {.key = "mlp_bias"},
    .tied = {.key = "tie_word_embeddings", .value = true},
    .embed_scale = {NULL, 1},
    .residual_scale = {NULL, 1},
    .logit_scale = {NULL, 1},
    .logit_divisor = {NULL, 1},
    .rope_theta = 10000,
    .rope_partial = 1,
    .window = WINDOW_LAYER_TYPES,
};

/* Gemma's weights were trained with the tanh form, whatever hidden_act says. */
#define GEMMA .norm = NN_NORM_RMS_PLUS_ONE, .activation = NN_GELU_APPROX, .embed = EMBED_SQRT_HIDDEN

#define SANDWICH                                                                        \
    .attention_out = "post_attention_layernorm", .ffn_in = "pre_feedforward_layernorm", \
    .ffn_out = "post_feedforward_layernorm"

#define POST_NORM                                                                  \
    .attention_in = "", .attention_out = "post_attention_layernorm", .ffn_in = "", \
    .ffn_out = "post_feedforward_layernorm"

static const DecoderArch families[] = {
    {.model_type = "mistral", .window = WINDOW_ALL, .tied = TIE_NO},
    {.model_type = "iquestcoder"},
    {.model_type = "smollm3", .position = POSITION_ROPE_SOME},
    {.model_type = "qwen2", .qkv_bias = YES, .o_bias = {.key = ""}, .rope_theta = 1e6},
    {.model_type = "qwen3", .qk_norm = QK_NORM_HEAD},
    {.model_type = "seed_oss", .o_bias = {.key = "attention_out_bias"}},
    {.model_type = "phi3",
     .fused_qkv = true,
     .ffn = FFN_GLU_FUSED,
     .gate = "mlp.gate_up_proj",
     .window = WINDOW_ALL,
     .tied = TIE_NO},
    {.model_type = "gemma", GEMMA, .tied = YES},
    {.model_type = "gemma2",
     GEMMA,
     SANDWICH,
     .tied = YES,
     .window = WINDOW_ALTERNATING,
     .default_window = 4096,
     .attention_dim = {"query_pre_attn_scalar", 256},
     .attention_softcap = {"attn_logit_softcapping", 50},
     .logit_softcap = {"final_logit_softcapping", 30}},
    {.model_type = "gemma3_text",
     GEMMA,
     SANDWICH,
     .tied = {.key = "tie_word_embeddings", .value = true},
     .qk_norm = QK_NORM_HEAD,
     .window = WINDOW_PATTERN,
     .default_window = 512,
     .default_pattern = 6,
     .attention_dim = {"query_pre_attn_scalar", 256},
     .rope_theta = 1e6,
     .local_theta = 10000},
    {.model_type = "granite",
     .embed_scale = {"embedding_multiplier", 1},
     .residual_scale = {"residual_multiplier", 1},
     .logit_divisor = {"logits_scaling", 1},
     .attention_scale = {"attention_multiplier", 1}},
    {.model_type = "olmo2", POST_NORM, .qk_norm = QK_NORM_WHOLE},
    {.model_type = "exaone4",
     POST_NORM,
     .qk_norm = QK_NORM_HEAD,
     .window = WINDOW_PATTERN,
     .position = POSITION_ROPE_SLIDING},
    {.model_type = "glm4",
     .attention_out = "post_self_attn_layernorm",
     .ffn_out = "post_mlp_layernorm",
     .o_bias = {.key = ""},
     .ffn = FFN_GLU_FUSED,
     .gate = "mlp.gate_up_proj",
     .tied = TIE_NO,
     .rope_partial = 0.5,
     .rope_traditional = true},
    {.model_type = "cohere",
     .norm = NN_NORM_LAYER,
     .norm_bias = {.key = "layer_norm_bias"},
     .norm_eps = {"layer_norm_eps", 1e-5},
     .parallel = YES,
     .tied = YES,
     .logit_scale = {"logit_scale", 0.0625},
     .rope_theta = 8e6,
     .rope_traditional = true,
     .refused = "use_qk_norm"},
    {.model_type = "cohere2",
     .norm = NN_NORM_LAYER,
     .norm_bias = {.key = "layer_norm_bias"},
     .norm_eps = {"layer_norm_eps", 1e-5},
     .parallel = YES,
     .tied = YES,
     .logit_scale = {"logit_scale", 0.0625},
     .rope_theta = 5e4,
     .rope_traditional = true,
     .window = WINDOW_PATTERN,
     .default_window = 4096,
     .default_pattern = 4,
     .position = POSITION_ROPE_SLIDING},
    {.model_type = "starcoder2",
     .norm = NN_NORM_LAYER,
     .norm_bias = YES,
     .norm_eps = {"norm_epsilon", 1e-5},
     .qkv_bias = {.key = "use_bias", .value = true},
     .o_bias = {.key = "use_bias", .value = true},
     .ffn_bias = {.key = "use_bias", .value = true},
     .ffn = FFN_TWO_LAYER,
     .up = "mlp.c_fc",
     .down = "mlp.c_proj",
     .activation = NN_GELU,
     .activation_key = "hidden_act",
     .rope_theta = 1e5,
     .window = WINDOW_ALL},
    {.model_type = "stablelm",
     .norm = NN_NORM_LAYER,
     .norm_bias = YES,
     .norm_eps = {"layer_norm_eps", 1e-5},
     .parallel = {.key = "use_parallel_residual"},
     .qkv_bias = {.key = "use_qkv_bias"},
     .o_bias = {.key = ""},
     .tied = TIE_NO,
     .rope_partial = 0.25,
     .refused = "qk_layernorm"},
    {.model_type = "phi",
     .norm = NN_NORM_LAYER,
     .norm_bias = YES,
     .norm_eps = {"layer_norm_eps", 1e-5},
     .parallel = YES,
     .final_norm = "model.final_layernorm",
     .qkv_bias = YES,
     .o_bias = YES,
     .o_name = "self_attn.dense",
     .ffn_bias = YES,
     .ffn = FFN_TWO_LAYER,
     .up = "mlp.fc1",
     .down = "mlp.fc2",
     .activation = NN_GELU_APPROX,
     .activation_key = "hidden_act",
     .tied = TIE_NO,
     .head_bias = true,
     .rope_partial = 0.5,
     .refused = "qk_layernorm"},
};

static bool unset(Flag flag) {
    return !flag.key && !flag.value;
}
static Flag flag_or(Flag own, Flag other) {
    return unset(own) ? other : own;
}
static Scalar scalar_or(Scalar own, Scalar other) {
    return own.key || own.value != 0 ? own : other;
}
static const char *name_or(const char *own, const char *other) {
    return own ? own : other;
}
static double number_or(double own, double other) {
    return own != 0 ? own : other;
}

DecoderArch model_decoder_complete(const DecoderArch *row) {
    DecoderArch a = *row;
    a.norm_eps = scalar_or(a.norm_eps, llama.norm_eps);
    a.attention_in = name_or(a.attention_in, llama.attention_in);
    a.attention_out = name_or(a.attention_out, llama.attention_out);
    a.ffn_in = name_or(a.ffn_in, llama.ffn_in);
    a.ffn_out = name_or(a.ffn_out, llama.ffn_out);
    a.final_norm = name_or(a.final_norm, llama.final_norm);
    a.qkv_bias = flag_or(a.qkv_bias, llama.qkv_bias);
    a.o_bias = flag_or(a.o_bias, llama.o_bias);
    a.o_name = name_or(a.o_name, llama.o_name);
    a.gate = name_or(a.gate, llama.gate);
    a.up = name_or(a.up, llama.up);
    a.down = name_or(a.down, llama.down);
    a.ffn_bias = flag_or(a.ffn_bias, llama.ffn_bias);
    a.tied = flag_or(a.tied, llama.tied);
    a.embed_scale = scalar_or(a.embed_scale, llama.embed_scale);
    a.residual_scale = scalar_or(a.residual_scale, llama.residual_scale);
    a.logit_scale = scalar_or(a.logit_scale, llama.logit_scale);
    a.logit_divisor = scalar_or(a.logit_divisor, llama.logit_divisor);
    a.rope_theta = number_or(a.rope_theta, llama.rope_theta);
    a.rope_partial = number_or(a.rope_partial, llama.rope_partial);
    if (a.window == WINDOW_NONE) a.window = llama.window;
    return a;
}

const DecoderArch *model_decoder_arch(const char *model_type) {
    if (strcmp(model_type, llama.model_type) == 0) return &llama;
    for (size_t i = 0; i < BASE_COUNT(families); i++) {
        if (strcmp(model_type, families[i].model_type) == 0) return &families[i];
    }
    return NULL;
}

void model_decoder_types(char *text, size_t bytes) {
    size_t used = (size_t)snprintf(text, bytes, "%s", llama.model_type);
    for (size_t i = 0; i < BASE_COUNT(families) && used < bytes; i++) {
        used += (size_t)snprintf(text + used, bytes - used, ", %s", families[i].model_type);
    }
}
