/* GGUF files as models: keys, names, the order of rows, exact values, and files
 * that are not what they say. */
#include "hub/folder.h"
#include "hub/gguf_writer.h"

#include <math.h>

/* A Llama of one layer: 64 wide, 4 heads of 16 over 2 key-value heads. */
enum { HIDDEN = 64, HEADS = 4, KV_HEADS = 2, HEAD = 16, FFN = 96, VOCAB = 7 };

static uint16_t half(float value) {
    _Static_assert(sizeof(float) == 4, "float is 32 bits");
    uint32_t bits;
    memcpy(&bits, &value, 4);
    /* Exact for the small powers and eighths that the tests use. */
    uint32_t exponent = (bits >> 23) & 0xff;
    if (exponent == 0) return 0;
    return (uint16_t)((bits >> 16 & 0x8000) | (exponent - 112) << 10 | (bits >> 13 & 0x3ff));
}

/* The value that block quantisation gives element `column` of row `row`: each
 * row differs, so that moved rows show. */
static float scale_of(size_t row) {
    return 0.125f * (float)(1 + row % 8);
}
static unsigned code_of(size_t row, size_t column) {
    return (unsigned)(row * 7 + column * 3 + column / 16) & 15;
}

static char *q4_1(size_t rows, size_t width, size_t *length) {
    *length = rows * width / 32 * 20;
    char *bytes = calloc(1, *length), *at = bytes;
    for (size_t r = 0; r < rows; r++)
        for (size_t b = 0; b < width / 32; b++, at += 20) {
            uint16_t d = half(scale_of(r)), m = half(-2 - (float)(r % 4));
            memcpy(at, &d, 2);
            memcpy(at + 2, &m, 2);
            for (size_t i = 0; i < 16; i++)
                at[4 + i] = (char)(code_of(r, b * 32 + i) | code_of(r, b * 32 + i + 16) << 4);
        }
    return bytes;
}

static char *q4_0(size_t rows, size_t width, size_t *length) {
    *length = rows * width / 32 * 18;
    char *bytes = calloc(1, *length), *at = bytes;
    for (size_t r = 0; r < rows; r++)
        for (size_t b = 0; b < width / 32; b++, at += 18) {
            uint16_t d = half(scale_of(r));
            memcpy(at, &d, 2);
            for (size_t i = 0; i < 16; i++)
                at[2 + i] = (char)(code_of(r, b * 32 + i) | code_of(r, b * 32 + i + 16) << 4);
        }
    return bytes;
}

static char *q8_0(size_t rows, size_t width, size_t *length) {
    *length = rows * width / 32 * 34;
    char *bytes = calloc(1, *length), *at = bytes;
    for (size_t r = 0; r < rows; r++)
        for (size_t b = 0; b < width / 32; b++, at += 34) {
            uint16_t d = half(scale_of(r));
            memcpy(at, &d, 2);
            for (size_t i = 0; i < 32; i++) at[2 + i] = (char)(code_of(r, b * 32 + i) * 9 - 60);
        }
    return bytes;
}

static float value_q4_1(size_t r, size_t c) {
    return scale_of(r) * (float)code_of(r, c) + (-2 - (float)(r % 4));
}
static float value_q4_0(size_t r, size_t c) {
    return scale_of(r) * ((float)code_of(r, c) - 8);
}
static float value_q8_0(size_t r, size_t c) {
    return scale_of(r) * (float)((int)code_of(r, c) * 9 - 60);
}

static void add_blocks(GgufWriter *w, const char *name, uint32_t type, size_t rows, size_t width) {
    size_t length = 0;
    char *bytes = type == GGUF_Q4_0   ? q4_0(rows, width, &length)
                  : type == GGUF_Q4_1 ? q4_1(rows, width, &length)
                                      : q8_0(rows, width, &length);
    gguf_tensor(w, name, type, rows, width, bytes, length);
    free(bytes);
}

static void add_vector(GgufWriter *w, const char *name, size_t width, float value) {
    float *values = calloc(width, sizeof *values);
    for (size_t i = 0; i < width; i++) values[i] = value;
    gguf_tensor(w, name, GGUF_F32, 0, width, values, width * sizeof *values);
    free(values);
}

static void add_metadata(GgufWriter *w, const char *arch) {
    static const char *const tokens[VOCAB] = {"a", "b", "<|end_of_text|>", "c", "<|im_end|>",
                                              "d", "e"};
    static const int32_t types[VOCAB] = {1, 1, 3, 1, 3, 1, 1};
    static const struct {
        const char *key;
        uint32_t value;
    } sizes[] = {{"block_count", 1},           {"embedding_length", HIDDEN},
                 {"feed_forward_length", FFN}, {"attention.head_count", HEADS},
                 {"context_length", 512},      {"attention.head_count_kv", KV_HEADS}};
    char key[96];
    gguf_set_text(w, "general.architecture", arch);
    for (size_t i = 0; i < BASE_COUNT(sizes); i++) {
        snprintf(key, sizeof key, "%s.%s", arch, sizes[i].key);
        gguf_set_u32(w, key, sizes[i].value);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch);
    gguf_set_f32(w, key, 1e-5f);
    gguf_set_text(w, "tokenizer.ggml.model", "gpt2");
    gguf_set_texts(w, "tokenizer.ggml.tokens", tokens, VOCAB);
    gguf_set_i32s(w, "tokenizer.ggml.token_type", types, VOCAB);
    gguf_set_u32(w, "tokenizer.ggml.eos_token_id", 4);
    gguf_set_u32(w, "tokenizer.ggml.bos_token_id", 2);
    gguf_set_bool(w, "tokenizer.ggml.add_bos_token", true);
}

static void add_layer(GgufWriter *w) {
    add_vector(w, "blk.0.attn_norm.weight", HIDDEN, 1.5f);
    add_vector(w, "blk.0.ffn_norm.weight", HIDDEN, 0.5f);
    add_blocks(w, "blk.0.attn_q.weight", GGUF_Q4_1, HEADS * HEAD, HIDDEN);
    add_blocks(w, "blk.0.attn_k.weight", GGUF_Q4_0, KV_HEADS * HEAD, HIDDEN);
    add_blocks(w, "blk.0.attn_v.weight", GGUF_Q4_1, KV_HEADS * HEAD, HIDDEN);
    add_blocks(w, "blk.0.attn_output.weight", GGUF_Q4_1, HIDDEN, HEADS * HEAD);
    add_blocks(w, "blk.0.ffn_gate.weight", GGUF_Q4_1, FFN, HIDDEN);
    add_blocks(w, "blk.0.ffn_up.weight", GGUF_Q4_1, FFN, HIDDEN);
    add_blocks(w, "blk.0.ffn_down.weight", GGUF_Q4_1, HIDDEN, FFN);
}

static GgufWriter llama(void) {
    GgufWriter w = {0};
    add_metadata(&w, "llama");
    add_blocks(&w, "token_embd.weight", GGUF_Q8_0, VOCAB, HIDDEN);
    add_vector(&w, "output_norm.weight", HIDDEN, 1);
    add_layer(&w);
    return w;
}

/* Finishes the file, opens it, and returns the model, or NULL and *err. */
static HubGguf *open_model(const char *folder, GgufWriter *w, const char *dtype, Error *err) {
    StrBuf file = gguf_finish(w);
    folder_write(folder, "m.gguf", file.data, file.length);
    base_str_free(&file);
    char *path = base_path_join(folder, "m.gguf");
    HubGguf *gguf = hub_gguf_open(path, &(HubGgufOptions){.dtype = dtype}, err);
    free(path);
    return gguf;
}

static mlx_array tensor(const HubGguf *gguf, const char *name) {
    size_t count = 0;
    const HubTensor *tensors = hub_gguf_tensors(gguf, &count);
    for (size_t i = 0; i < count; i++)
        if (strcmp(tensors[i].name, name) == 0) return tensors[i].array;
    return (mlx_array){0};
}

/* The rows of the file that row `row` of a rotary projection came from. */
static size_t source_row(size_t row) {
    size_t head = row / HEAD, at = row % HEAD;
    size_t part = at / (HEAD / 2), pair = at % (HEAD / 2);
    return head * HEAD + 2 * pair + part;
}
static size_t same_row(size_t row) {
    return row;
}

static void expect_values(const HubGguf *gguf, const char *path, int bits, size_t rows,
                          size_t width, float (*value)(size_t, size_t), size_t (*from)(size_t)) {
    char name[128];
    snprintf(name, sizeof name, "%s.weight", path);
    mlx_array weight = tensor(gguf, name);
    assert_non_null(weight.ctx);
    snprintf(name, sizeof name, "%s.scales", path);
    mlx_array scales = tensor(gguf, name);
    snprintf(name, sizeof name, "%s.biases", path);
    mlx_array biases = tensor(gguf, name);
    assert_int_equal(mlx_array_dim(weight, 0), rows);
    assert_int_equal(mlx_array_dim(weight, 1), width * bits / 32);
    assert_int_equal(mlx_array_dim(scales, 1), width / 32);

    /* In float32, so that q scale + bias shows the exact values. */
    mx_scope scope = mx_open();
    mlx_array dense =
        mx_dequantize(weight, mx_cast(scales, MLX_FLOAT32), mx_cast(biases, MLX_FLOAT32),
                      (MxQuant){.group_size = 32, .bits = bits, .mode = "affine"});
    float *values = calloc(rows * width, sizeof *values);
    assert_true(mx_copy_f32(dense, values, rows * width));
    mx_drop(scope);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < width; c++)
            if (values[r * width + c] != value(from(r), c))
                fail_msg("%s[%zu, %zu] is %g, not %g", path, r, c, (double)values[r * width + c],
                         (double)value(from(r), c));
    free(values);
}

static void test_quantised_values_are_exact_and_rotary_rows_uninterleaved(void **state) {
    Error err = {0};
    GgufWriter w = llama();
    HubGguf *gguf = open_model(*state, &w, NULL, &err);
    assert_string_equal(err.message, "");
    assert_non_null(gguf);
    expect_values(gguf, "model.layers.0.self_attn.q_proj", 4, 64, 64, value_q4_1, source_row);
    expect_values(gguf, "model.layers.0.self_attn.k_proj", 4, 32, 64, value_q4_0, source_row);
    expect_values(gguf, "model.layers.0.self_attn.v_proj", 4, 32, 64, value_q4_1, same_row);
    expect_values(gguf, "model.layers.0.mlp.down_proj", 4, 64, 96, value_q4_1, same_row);
    expect_values(gguf, "model.embed_tokens", 8, VOCAB, 64, value_q8_0, same_row);
    hub_gguf_free(gguf);
}

static int64_t integer(const json_t *object, const char *key) {
    return json_integer_value(json_object_get(object, key));
}

static void test_config_says_what_the_metadata_says(void **state) {
    Error err = {0};
    GgufWriter w = llama();
    HubGguf *gguf = open_model(*state, &w, NULL, &err);
    assert_string_equal(err.message, "");
    const json_t *config = hub_gguf_config(gguf);
    assert_string_equal(json_string_value(json_object_get(config, "model_type")), "llama");
    assert_int_equal(integer(config, "hidden_size"), HIDDEN);
    assert_int_equal(integer(config, "intermediate_size"), FFN);
    assert_int_equal(integer(config, "num_attention_heads"), HEADS);
    assert_int_equal(integer(config, "num_key_value_heads"), KV_HEADS);
    assert_int_equal(integer(config, "head_dim"), HEAD);
    assert_int_equal(integer(config, "vocab_size"), VOCAB);
    assert_int_equal(integer(config, "max_position_embeddings"), 512);
    assert_int_equal(integer(config, "eos_token_id"), 4);
    assert_true(json_is_true(json_object_get(config, "tie_word_embeddings")));
    assert_true(json_real_value(json_object_get(config, "rms_norm_eps")) == 1e-5);
    assert_true(json_number_value(json_object_get(config, "rope_theta")) == 10000);
    assert_string_equal(json_string_value(json_object_get(config, "torch_dtype")), "float16");
    const json_t *quantization = json_object_get(config, "quantization");
    assert_int_equal(integer(quantization, "bits"), 4);
    assert_int_equal(integer(quantization, "group_size"), 32);
    assert_int_equal(integer(json_object_get(quantization, "model.embed_tokens"), "bits"), 8);
    assert_null(json_object_get(quantization, "model.layers.0.mlp.up_proj"));
    assert_int_equal(mlx_array_dtype(tensor(gguf, "model.norm.weight")), MLX_FLOAT16);
    hub_gguf_free(gguf);
}

static void test_saved_folder_opens_as_a_model(void **state) {
    Error err = {0};
    GgufWriter w = llama();
    HubGguf *gguf = open_model(*state, &w, NULL, &err);
    assert_true(hub_gguf_save(gguf, *state, &err));
    hub_gguf_free(gguf);
    HubModel *model = hub_model_open(*state, &err);
    assert_string_equal(err.message, "");
    MxQuant quant;
    assert_true(hub_model_quantization(model, "model.embed_tokens", &quant));
    assert_int_equal(quant.bits, 8);
    assert_true(hub_model_quantization(model, "model.layers.0.self_attn.q_proj", &quant));
    assert_int_equal(quant.bits, 4);
    int ids[4];
    /* eos first, then what the vocabulary marks as an end. */
    assert_int_equal(hub_model_eos(model, ids, 4), 2);
    assert_int_equal(ids[0], 4);
    assert_int_equal(ids[1], 2);
    hub_model_free(model);
}

static void test_dtype_option_casts_every_floating_tensor(void **state) {
    Error err = {0};
    GgufWriter w = llama();
    HubGguf *gguf = open_model(*state, &w, "float32", &err);
    assert_string_equal(err.message, "");
    assert_int_equal(mlx_array_dtype(tensor(gguf, "model.norm.weight")), MLX_FLOAT32);
    assert_int_equal(mlx_array_dtype(tensor(gguf, "model.embed_tokens.scales")), MLX_FLOAT32);
    assert_int_equal(mlx_array_dtype(tensor(gguf, "model.embed_tokens.weight")), MLX_UINT32);
    hub_gguf_free(gguf);
    w = llama();
    assert_null(open_model(*state, &w, "int8", &err));
    assert_non_null(strstr(err.message, "unknown dtype \"int8\""));
}

static void test_an_untied_head_and_llama3_factors_are_recorded(void **state) {
    float factors[HEAD / 2];
    for (int i = 0; i < HEAD / 2; i++) {
        double wavelength = 2 * M_PI * pow(10000, i / (HEAD / 2.0));
        double smooth = (8192 / wavelength - 1) / 3;
        factors[i] = (float)(wavelength < 2048   ? 1
                             : wavelength > 8192 ? 8
                                                 : 1 / ((1 - smooth) / 8 + smooth));
    }
    Error err = {0};
    GgufWriter w = llama();
    add_blocks(&w, "output.weight", GGUF_Q8_0, VOCAB, HIDDEN);
    gguf_tensor(&w, "rope_freqs.weight", GGUF_F32, 0, HEAD / 2, factors, sizeof factors);
    HubGguf *gguf = open_model(*state, &w, NULL, &err);
    assert_string_equal(err.message, "");
    const json_t *config = hub_gguf_config(gguf);
    assert_true(json_is_false(json_object_get(config, "tie_word_embeddings")));
    const json_t *scaling = json_object_get(config, "rope_scaling");
    assert_string_equal(json_string_value(json_object_get(scaling, "rope_type")), "llama3");
    assert_true(json_number_value(json_object_get(scaling, "factor")) == 8);
    assert_int_equal(integer(scaling, "original_max_position_embeddings"), 8192);
    assert_null(tensor(gguf, "rope_freqs.weight").ctx);
    hub_gguf_free(gguf);
}

static void test_gemma_norms_lose_the_one_that_gguf_adds(void **state) {
    Error err = {0};
    GgufWriter w = {0};
    add_metadata(&w, "gemma");
    add_blocks(&w, "token_embd.weight", GGUF_Q8_0, VOCAB, HIDDEN);
    add_vector(&w, "output_norm.weight", HIDDEN, 1.25f);
    add_layer(&w);
    HubGguf *gguf = open_model(*state, &w, "float32", &err);
    assert_string_equal(err.message, "");
    float values[HIDDEN];
    mx_scope scope = mx_open();
    assert_true(mx_copy_f32(tensor(gguf, "model.norm.weight"), values, HIDDEN));
    assert_true(values[0] == 0.25f);
    assert_true(mx_copy_f32(tensor(gguf, "model.layers.0.input_layernorm.weight"), values, HIDDEN));
    assert_true(values[63] == 0.5f);
    mx_drop(scope);
    /* Gemma's rotary pairs are not interleaved in the file. */
    expect_values(gguf, "model.layers.0.self_attn.q_proj", 4, 64, 64, value_q4_1, same_row);
    assert_string_equal(json_string_value(json_object_get(hub_gguf_config(gguf), "hidden_act")),
                        "gelu_pytorch_tanh");
    hub_gguf_free(gguf);
}

/* ---- files that are not what they say ------------------------------------------- */

static void expect_failure(const char *folder, GgufWriter *w, const char *words) {
    Error err = {0};
    assert_null(open_model(folder, w, NULL, &err));
    if (!strstr(err.message, words)) fail_msg("\"%s\" lacks \"%s\"", err.message, words);
}

static void test_what_is_unknown_or_missing_is_named(void **state) {
    GgufWriter w = {0};
    add_metadata(&w, "mamba9");
    expect_failure(*state, &w, "architecture \"mamba9\" is not known");

    gguf_set_u32(&w, "general.alignment", 32);
    expect_failure(*state, &w, "general.architecture is missing");

    w = llama();
    add_vector(&w, "blk.0.ffn_gate_inp.weight", HIDDEN, 1);
    expect_failure(*state, &w, "tensor blk.0.ffn_gate_inp.weight is not one of a llama model");

    w = llama();
    add_vector(&w, "blk.1.attn_norm.weight", HIDDEN, 1);
    expect_failure(*state, &w, "tensor blk.1.attn_norm.weight is not one of");

    add_metadata(&w, "llama");
    add_blocks(&w, "token_embd.weight", GGUF_Q8_0, VOCAB, HIDDEN);
    expect_failure(*state, &w, "tensor output_norm.weight is missing");

    add_metadata(&w, "llama");
    add_blocks(&w, "token_embd.weight", GGUF_Q8_0, VOCAB - 1, HIDDEN);
    add_vector(&w, "output_norm.weight", HIDDEN, 1);
    add_layer(&w);
    expect_failure(*state, &w, "the vocabulary has 7 tokens, token_embd.weight 6 rows");

    gguf_set_text(&w, "general.architecture", "llama");
    gguf_set_u32(&w, "llama.block_count", 1);
    expect_failure(*state, &w, "llama.embedding_length is missing");

    gguf_set_text(&w, "general.architecture", "llama");
    gguf_set_u32(&w, "llama.block_count", 0);
    expect_failure(*state, &w, "llama.block_count is 0");

    w = llama();
    float odd[4] = {1, 3, 2, 7};
    gguf_tensor(&w, "rope_freqs.weight", GGUF_F32, 0, 4, odd, sizeof odd);
    expect_failure(*state, &w, "rope_freqs.weight: the factors follow no rule");
}

static void test_truncated_files_are_refused_at_every_length(void **state) {
    GgufWriter w = llama();
    StrBuf file = gguf_finish(&w);
    char *path = base_path_join(*state, "m.gguf");
    for (size_t length = 0; length < file.length; length += length < 600 ? 7 : 997) {
        folder_write(*state, "m.gguf", file.data, length);
        Error err = {0};
        assert_null(hub_gguf_open(path, NULL, &err));
        assert_true(err.message[0] != '\0');
        assert_non_null(strstr(err.message, "m.gguf"));
    }
    base_str_free(&file);
    free(path);
}

static void test_flipped_bits_never_crash(void **state) {
    GgufWriter w = llama();
    StrBuf file = gguf_finish(&w);
    char *path = base_path_join(*state, "m.gguf");
    size_t header = BASE_MIN(file.length, (size_t)2200);
    for (size_t at = 0; at < header; at += 3) {
        file.data[at] ^= (char)(1 << at % 8);
        folder_write(*state, "m.gguf", file.data, file.length);
        Error err = {0};
        hub_gguf_free(hub_gguf_open(path, NULL, &err));
        file.data[at] ^= (char)(1 << at % 8);
    }
    base_str_free(&file);
    free(path);
}

int main(void) {
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, folder_make, folder_drop)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_quantised_values_are_exact_and_rotary_rows_uninterleaved),
        IN_FOLDER(test_config_says_what_the_metadata_says),
        IN_FOLDER(test_saved_folder_opens_as_a_model),
        IN_FOLDER(test_dtype_option_casts_every_floating_tensor),
        IN_FOLDER(test_an_untied_head_and_llama3_factors_are_recorded),
        IN_FOLDER(test_gemma_norms_lose_the_one_that_gguf_adds),
        IN_FOLDER(test_what_is_unknown_or_missing_is_named),
        IN_FOLDER(test_truncated_files_are_refused_at_every_length),
        IN_FOLDER(test_flipped_bits_never_crash),
    };
    return cmocka_run_group_tests_name("hub gguf", tests, NULL, NULL);
}
