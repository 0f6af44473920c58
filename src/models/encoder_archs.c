/* The encoder families: where their tensors are, and what tells them apart. */
#include "models/encoders.h"

#include <string.h>

/* What BERT and its descendants share. */
#define BERT_LIKE                                                                        \
    .hidden_key = "hidden_size", .layers_key = "num_hidden_layers",                      \
    .heads_key = "num_attention_heads", .inner_key = "intermediate_size",                \
    .eps_key = "layer_norm_eps", .activation_key = "hidden_act", .eps = 1e-12,           \
    .activation = "gelu", .words = "embeddings.word_embeddings",                         \
    .positions = "embeddings.position_embeddings", .embed_norm = "embeddings.LayerNorm", \
    .layer = "encoder.layer", .up = "intermediate.dense", .down = "output.dense",        \
    .ffn_norm = "output.LayerNorm", .attention_bias = {.value = true},                   \
    .ffn_bias = {.value = true}, .norm_bias = {.value = true}, .pooler = "pooler.dense"
#define BERT_ATTENTION                                                                   \
    .q = "attention.self.query", .k = "attention.self.key", .v = "attention.self.value", \
    .o = "attention.output.dense", .attention_norm = "attention.output.LayerNorm",       \
    .types = "embeddings.token_type_embeddings"
#define ROBERTA_LIKE                                                                        \
    BERT_LIKE, BERT_ATTENTION,                                                              \
        .prefixes = {"roberta."}, .dropped = {"lm_head."}, .counting = POSITIONS_AFTER_PAD, \
        .pad = 1, .head_dense = "classifier.dense", .classifier = "classifier.out_proj"
#define CLIP_LIKE                                                                                 \
    .prefixes = {"text_model."},                                                                  \
    .dropped = {"vision_model.", "visual_projection.", "logit_scale"},                            \
    .hidden_key = "hidden_size", .layers_key = "num_hidden_layers",                               \
    .heads_key = "num_attention_heads", .inner_key = "intermediate_size",                         \
    .eps_key = "layer_norm_eps", .activation_key = "hidden_act", .eps = 1e-5,                     \
    .activation = "quick_gelu", .words = "embeddings.token_embedding",                            \
    .positions = "embeddings.position_embedding", .counting = POSITIONS_FROM_ZERO, .pad = 1,      \
    .layer = "encoder.layers", .q = "self_attn.q_proj", .k = "self_attn.k_proj",                  \
    .v = "self_attn.v_proj", .o = "self_attn.out_proj", .up = "mlp.fc1", .down = "mlp.fc2",       \
    .attention_norm = "layer_norm1", .ffn_norm = "layer_norm2", .final_norm = "final_layer_norm", \
    .attention_bias = {.value = true}, .ffn_bias = {.value = true}, .norm_bias = {.value = true}, \
    .pre_norm = true, .causal = true, .projection = "text_projection"
#define T5_LIKE                                                                               \
    .dropped = {"decoder.", "lm_head."}, .hidden_key = "d_model", .layers_key = "num_layers", \
    .heads_key = "num_heads", .inner_key = "d_ff", .head_dim_key = "d_kv",                    \
    .eps_key = "layer_norm_epsilon", .activation_key = "feed_forward_proj", .eps = 1e-6,      \
    .words = "shared", .words_copy = "encoder.embed_tokens",                                  \
    .final_norm = "encoder.final_layer_norm", .layer = "encoder.block",                       \
    .q = "layer.0.SelfAttention.q", .k = "layer.0.SelfAttention.k",                           \
    .v = "layer.0.SelfAttention.v", .o = "layer.0.SelfAttention.o",                           \
    .gate = "layer.1.DenseReluDense.wi_0", .up = "layer.1.DenseReluDense.wi_1",               \
    .up_alone = "layer.1.DenseReluDense.wi", .down = "layer.1.DenseReluDense.wo",             \
    .attention_norm = "layer.0.layer_norm", .ffn_norm = "layer.1.layer_norm", .rms = true,    \
    .pre_norm = true, .unscaled = true,                                                       \
    .relative_bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"

static const EncoderArch families[] = {
    {BERT_LIKE, BERT_ATTENTION, .model_type = "bert", .prefixes = {"bert."}, .dropped = {"cls."},
     .counting = POSITIONS_FROM_ZERO, .head_dense = "pooler.dense", .classifier = "classifier"},
    {ROBERTA_LIKE, .model_type = "roberta"},
    {ROBERTA_LIKE, .model_type = "xlm-roberta"},
    {ROBERTA_LIKE, .model_type = "camembert"},
    {BERT_LIKE, .model_type = "mpnet", .prefixes = {"mpnet."}, .dropped = {"lm_head."},
     .counting = POSITIONS_AFTER_PAD, .pad = 1, .pad_fixed = true, .q = "attention.attn.q",
     .k = "attention.attn.k", .v = "attention.attn.v", .o = "attention.attn.o",
     .attention_norm = "attention.LayerNorm", .relative_bias = "encoder.relative_attention_bias",
     .buckets_fixed = true, .head_dense = "classifier.dense", .classifier = "classifier.out_proj"},
    {.model_type = "modernbert",
     .prefixes = {"model."},
     .dropped = {"decoder."},
     .hidden_key = "hidden_size",
     .layers_key = "num_hidden_layers",
     .heads_key = "num_attention_heads",
     .inner_key = "intermediate_size",
     .eps_key = "norm_eps",
     .activation_key = "hidden_activation",
     .eps = 1e-5,
     .activation = "gelu",
     .words = "embeddings.tok_embeddings",
     .embed_norm = "embeddings.norm",
     .final_norm = "final_norm",
     .layer = "layers",
     .q = "attn.Wqkv",
     .o = "attn.Wo",
     .up = "mlp.Wi",
     .down = "mlp.Wo",
     .fused_gate = true,
     .attention_norm = "attn_norm",
     .ffn_norm = "mlp_norm",
     .attention_bias = {"attention_bias", false},
     .ffn_bias = {"mlp_bias", false},
     .norm_bias = {"norm_bias", false},
     .pre_norm = true,
     .first_norm_absent = true,
     .rotary_windows = true,
     .pad = 50283,
     .head_dense = "head.dense",
     .head_norm = "head.norm",
     .classifier = "classifier"},
    {T5_LIKE, .model_type = "t5", .activation = "relu"},
    {T5_LIKE, .model_type = "mt5", .activation = "gated-gelu"},
    {CLIP_LIKE, .model_type = "clip_text_model"},
    {CLIP_LIKE, .model_type = "clip", .section = "text_config"},
};

const EncoderArch *model_encoder_arch(const char *model_type) {
    for (size_t i = 0; i < BASE_COUNT(families); i++) {
        if (strcmp(model_type, families[i].model_type) == 0) return &families[i];
    }
    return NULL;
}

void model_encoder_types(char *text, size_t bytes) {
    size_t used = 0;
    for (size_t i = 0; i < BASE_COUNT(families) && used < bytes; i++) {
        used += (size_t)snprintf(text + used, bytes - used, "%s%s", i ? ", " : "",
                                 families[i].model_type);
    }
}
