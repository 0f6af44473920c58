/* The names of modules: a GGUF file's beside the model's, and what moves between
 * them. Read in both directions. */
#include "hub/gguf.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static const GgufName globals[] = {
    {"token_embd", "model.embed_tokens", GGUF_DECODERS, GGUF_TABLE, true},
    {"output_norm", "model.norm", GGUF_DECODERS, GGUF_NORM, true},
    {"output", "lm_head", GGUF_DECODERS, GGUF_PLAIN, false},
    {"token_embd", "embeddings.word_embeddings", GGUF_BERT, GGUF_TABLE, true},
    {"position_embd", "embeddings.position_embeddings", GGUF_BERT, GGUF_TABLE, true},
    {"token_types", "embeddings.token_type_embeddings", GGUF_BERT, GGUF_TABLE, true},
    {"token_embd_norm", "embeddings.LayerNorm", GGUF_BERT, GGUF_NORM, true},
};

enum {
    GGUF_AS_THEY_LIE = GGUF_QWENS | GGUF_GEMMAS | GGUF_OLMO2 | GGUF_COHERES,
    GGUF_NORMED_HEADS = GGUF_QWEN3 | GGUF_QWEN3_MOE | GGUF_GEMMA3 | GGUF_OLMO2,
    GGUF_POST_NORMS = GGUF_SANDWICH | GGUF_OLMO2,
    GGUF_TWO_NORMS = GGUF_DECODERS & ~(GGUF_POST_NORMS | GGUF_COHERES)
};

static const GgufName layers[] = {
    {"attn_norm", "input_layernorm", GGUF_DECODERS & ~GGUF_OLMO2, GGUF_NORM, true},
    {"attn_q", "self_attn.q_proj", GGUF_LLAMAS, GGUF_PERMUTE_HEADS, true},
    {"attn_k", "self_attn.k_proj", GGUF_LLAMAS, GGUF_PERMUTE_KV_HEADS, true},
    {"attn_q", "self_attn.q_proj", GGUF_AS_THEY_LIE, GGUF_PLAIN, true},
    {"attn_k", "self_attn.k_proj", GGUF_AS_THEY_LIE, GGUF_PLAIN, true},
    {"attn_v", "self_attn.v_proj", GGUF_DECODERS & ~GGUF_PHI3, GGUF_PLAIN, true},
    {"attn_qkv", "self_attn.qkv_proj", GGUF_PHI3, GGUF_PLAIN, true},
    {"attn_output", "self_attn.o_proj", GGUF_DECODERS, GGUF_PLAIN, true},
    {"attn_q_norm", "self_attn.q_norm", GGUF_NORMED_HEADS, GGUF_NORM, true},
    {"attn_k_norm", "self_attn.k_norm", GGUF_NORMED_HEADS, GGUF_NORM, true},
    {"ffn_norm", "post_attention_layernorm", GGUF_TWO_NORMS, GGUF_NORM, true},
    {"post_attention_norm", "post_attention_layernorm", GGUF_POST_NORMS, GGUF_NORM, true},
    {"ffn_norm", "pre_feedforward_layernorm", GGUF_SANDWICH, GGUF_NORM, true},
    {"post_ffw_norm", "post_feedforward_layernorm", GGUF_POST_NORMS, GGUF_NORM, true},
    {"ffn_gate", "mlp.gate_proj", GGUF_DENSE & ~GGUF_PHI3, GGUF_FEED_FORWARD, true},
    {"ffn_up", "mlp.up_proj", GGUF_DENSE & ~GGUF_PHI3, GGUF_FEED_FORWARD, true},
    {"ffn_up", "mlp.gate_up_proj", GGUF_PHI3, GGUF_PLAIN, true},
    {"ffn_down", "mlp.down_proj", GGUF_DENSE, GGUF_FEED_FORWARD, true},
    {"ffn_gate_inp", "block_sparse_moe.gate", GGUF_LLAMA, GGUF_EXPERTS | GGUF_FLOAT, true},
    {"ffn_gate_exps", "block_sparse_moe.switch_mlp.gate_proj", GGUF_LLAMA, GGUF_EXPERTS, true},
    {"ffn_up_exps", "block_sparse_moe.switch_mlp.up_proj", GGUF_LLAMA, GGUF_EXPERTS, true},
    {"ffn_down_exps", "block_sparse_moe.switch_mlp.down_proj", GGUF_LLAMA, GGUF_EXPERTS, true},
    {"ffn_gate_inp", "mlp.gate", GGUF_QWEN3_MOE, GGUF_EXPERTS | GGUF_FLOAT, true},
    {"ffn_gate_exps", "mlp.switch_mlp.gate_proj", GGUF_QWEN3_MOE, GGUF_EXPERTS, true},
    {"ffn_up_exps", "mlp.switch_mlp.up_proj", GGUF_QWEN3_MOE, GGUF_EXPERTS, true},
    {"ffn_down_exps", "mlp.switch_mlp.down_proj", GGUF_QWEN3_MOE, GGUF_EXPERTS, true},
    {"attn_q", "attention.self.query", GGUF_BERT, GGUF_PLAIN, true},
    {"attn_k", "attention.self.key", GGUF_BERT, GGUF_PLAIN, true},
    {"attn_v", "attention.self.value", GGUF_BERT, GGUF_PLAIN, true},
    {"attn_output", "attention.output.dense", GGUF_BERT, GGUF_PLAIN, true},
    {"attn_output_norm", "attention.output.LayerNorm", GGUF_BERT, GGUF_NORM, true},
    {"ffn_up", "intermediate.dense", GGUF_BERT, GGUF_PLAIN, true},
    {"ffn_down", "output.dense", GGUF_BERT, GGUF_PLAIN, true},
    {"layer_output_norm", "output.LayerNorm", GGUF_BERT, GGUF_NORM, true},
};

const GgufName *gguf_names(bool of_layer, size_t *count) {
    *count = of_layer ? BASE_COUNT(layers) : BASE_COUNT(globals);
    return of_layer ? layers : globals;
}

const char *gguf_layer_stem(const GgufArch *arch) {
    return arch->bit == GGUF_BERT ? "encoder.layer" : "model.layers";
}

const GgufName *gguf_name_of_module(const GgufArch *arch, const char *path, int *layer) {
    const char *stem = gguf_layer_stem(arch), *module = path;
    *layer = -1;
    if (base_starts_with(path, stem) && path[strlen(stem)] == '.' &&
        isdigit((unsigned char)path[strlen(stem) + 1])) {
        char *end;
        const long number = strtol(path + strlen(stem) + 1, &end, 10);
        if (*end != '.' || number > 1 << 20) return NULL;
        *layer = (int)number;
        module = end + 1;
    }
    size_t count;
    const GgufName *names = gguf_names(*layer >= 0, &count);
    for (size_t i = 0; i < count; i++)
        if ((names[i].archs & arch->bit) && strcmp(names[i].model, module) == 0) return &names[i];
    return NULL;
}

mlx_array gguf_swap_halves(mlx_array a, int heads, bool to_gguf) {
    const int rows = mx_dim(a, 0), half = rows / heads / 2;
    const int width = mx_ndim(a) > 1 ? mx_dim(a, 1) : 1;
    const int shape[] = {heads, to_gguf ? 2 : half, to_gguf ? half : 2, width};
    mlx_array split = mx_swapaxes(mx_reshape(a, shape, 4), 1, 2);
    return mx_ndim(a) > 1 ? mx_reshape(split, MX_SHAPE(rows, width))
                          : mx_reshape(split, MX_SHAPE(rows));
}
