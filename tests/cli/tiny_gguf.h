/* A tiny Llama as a GGUF file, vocabulary and chat template included: every
 * byte is a token, 256 to 258 are special. */
#ifndef TESTS_CLI_TINY_GGUF_H
#define TESTS_CLI_TINY_GGUF_H

#include "hub/gguf_writer.h"

#include <stdio.h>

enum { TINY_HIDDEN = 32, TINY_HEADS = 2, TINY_LAYERS = 2, TINY_FFN = 64, TINY_VOCAB = 259 };

static inline void tiny_weights(GgufWriter *w, const char *name, size_t rows, size_t width) {
    static uint32_t state = 12345;
    size_t count = (rows ? rows : 1) * width;
    float *values = base_calloc(count, sizeof *values);
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        float noise = (float)(state >> 8) / 8388608.0f - 1;
        values[i] = rows ? noise * 0.35f : 1 + noise * 0.1f;
    }
    gguf_tensor(w, name, GGUF_F32, rows, width, values, count * sizeof *values);
    free(values);
}

/* The printable characters that stand for the bytes in GPT-2's vocabulary. */
static inline void tiny_byte_token(int byte, char out[4]) {
    bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    uint32_t codepoint = (uint32_t)byte;
    if (!printable) {
        codepoint = 256;
        for (int other = 0; other < byte; other++)
            codepoint +=
                !((other >= 33 && other <= 126) || (other >= 161 && other <= 172) || other >= 174);
    }
    out[base_utf8_encode(codepoint, out)] = '\0';
}

static inline void tiny_vocabulary(GgufWriter *w) {
    static char texts[TINY_VOCAB][16];
    const char *tokens[TINY_VOCAB];
    int32_t types[TINY_VOCAB];
    for (int i = 0; i < TINY_VOCAB; i++) {
        if (i < 256) tiny_byte_token(i, texts[i]);
        types[i] = i < 256 ? 1 : 3;
        tokens[i] = texts[i];
    }
    strcpy(texts[256], "<|endoftext|>");
    strcpy(texts[257], "<|im_start|>");
    strcpy(texts[258], "<|im_end|>");
    const char *merges[] = {"h e"};
    tokens['~'] = "he"; /* so that there is a merge to make */
    gguf_set_text(w, "tokenizer.ggml.model", "gpt2");
    gguf_set_text(w, "tokenizer.ggml.pre", "smollm");
    gguf_set_texts(w, "tokenizer.ggml.tokens", tokens, TINY_VOCAB);
    gguf_set_i32s(w, "tokenizer.ggml.token_type", types, TINY_VOCAB);
    gguf_set_texts(w, "tokenizer.ggml.merges", merges, 1);
    gguf_set_u32(w, "tokenizer.ggml.bos_token_id", 257);
    gguf_set_u32(w, "tokenizer.ggml.eos_token_id", 258);
    gguf_set_bool(w, "tokenizer.ggml.add_bos_token", false);
    gguf_set_text(w, "tokenizer.chat_template",
                  "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
                  "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}");
}

static inline StrBuf tiny_gguf(void) {
    static const struct {
        const char *key;
        uint32_t value;
    } sizes[] = {{"llama.block_count", TINY_LAYERS},
                 {"llama.embedding_length", TINY_HIDDEN},
                 {"llama.feed_forward_length", TINY_FFN},
                 {"llama.attention.head_count", TINY_HEADS},
                 {"llama.context_length", 256}};
    static const struct {
        const char *name;
        size_t rows, width;
    } parts[] = {{"attn_norm", 0, TINY_HIDDEN},        {"ffn_norm", 0, TINY_HIDDEN},
                 {"attn_q", TINY_HIDDEN, TINY_HIDDEN}, {"attn_k", TINY_HIDDEN, TINY_HIDDEN},
                 {"attn_v", TINY_HIDDEN, TINY_HIDDEN}, {"attn_output", TINY_HIDDEN, TINY_HIDDEN},
                 {"ffn_gate", TINY_FFN, TINY_HIDDEN},  {"ffn_up", TINY_FFN, TINY_HIDDEN},
                 {"ffn_down", TINY_HIDDEN, TINY_FFN}};
    GgufWriter w = {0};
    gguf_set_text(&w, "general.architecture", "llama");
    for (size_t i = 0; i < BASE_COUNT(sizes); i++) gguf_set_u32(&w, sizes[i].key, sizes[i].value);
    gguf_set_f32(&w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    tiny_vocabulary(&w);
    tiny_weights(&w, "token_embd.weight", TINY_VOCAB, TINY_HIDDEN);
    tiny_weights(&w, "output_norm.weight", 0, TINY_HIDDEN);
    for (int layer = 0; layer < TINY_LAYERS; layer++)
        for (size_t i = 0; i < BASE_COUNT(parts); i++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%d.%s.weight", layer, parts[i].name);
            tiny_weights(&w, name, parts[i].rows, parts[i].width);
        }
    return gguf_finish(&w);
}

#endif
