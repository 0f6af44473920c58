/* Decoders against transformers (about.json names the version) in float32: logits, greedy
 * continuation, and the same logits when read through caches in pieces. */
#include "golden.h"

static const double tolerance = 1e-4;

/* Greedy ids: the first 12 given, the rest chosen one at a time with a cache. */
static void expect_greedy(const Decoder *decoder, mlx_array golden_ids) {
    int count = (int)mx_size(golden_ids), ids[64], layers = model_decoder_layers(decoder);
    assert_true(mx_copy_i32(golden_ids, ids, (size_t)count));
    /* Where LongRoPE changes factors, transformers 5.17 forgets the text and goes on from
     * the last token alone (5.24 reads it again, as lm does). */
    int short_length = model_decoder_short_length(decoder);
    if (short_length > 0) count = BASE_MIN(count, short_length + 1);
    KvCache *caches = calloc((size_t)layers, sizeof *caches);
    model_decoder_caches(decoder, caches, 0);
    for (int at = 12; at < count; at++) {
        mx_scope s = mx_open();
        int first = at == 12 ? 0 : at - 1;
        mlx_array input = mx_from_i32(ids + first, MX_SHAPE(1, at - first));
        mlx_array hidden = model_decoder_hidden(decoder, input, caches);
        mlx_array logits = model_decoder_head(decoder, mx_slice(hidden, 1, -1, at));
        assert_int_equal(mx_item_int(mx_argmax(mx_reshape(logits, MX_SHAPE(-1)), -1)), ids[at]);
        mx_drop(s);
    }
    for (int i = 0; i < layers; i++) nn_kv_free(&caches[i]);
    free(caches);
}

/* Row 0 through caches in pieces of 5, then one at a time. */
static void expect_pieces(const Decoder *decoder, mlx_array ids, mlx_array logits) {
    int layers = model_decoder_layers(decoder), length = mx_dim(ids, 1);
    KvCache *caches = calloc((size_t)layers, sizeof *caches);
    model_decoder_caches(decoder, caches, 0);
    for (int i = 0; i < layers; i++) caches[i].text_length = length;
    for (int done = 0; done < length;) {
        mx_scope s = mx_open();
        int n = done < 15 ? 5 : 1;
        mlx_array input = mx_slice(mx_slice(ids, 0, 0, 1), 1, done, done + n);
        mlx_array got = model_decoder_head(decoder, model_decoder_hidden(decoder, input, caches));
        mlx_array expected = mx_slice(mx_slice(logits, 0, 0, 1), 1, done, done + n);
        assert_true(golden_difference(got, expected) < 3 * tolerance);
        mx_drop(s);
        done += n;
    }
    for (int i = 0; i < layers; i++) nn_kv_free(&caches[i]);
    free(caches);
}

/* ---- quantised ------------------------------------------------------------------------- */

/* Which of the tree's weights are packed, and into which tree the result goes. */
typedef struct Packing {
    NnParams *params;
    char *names[512];
    size_t count;
} Packing;

static void list_matrix(void *context, const char *name, mlx_array array) {
    Packing *packing = context;
    bool matrix = base_ends_with(name, ".weight") && !strstr(name, "norm") && mx_ndim(array) >= 2 &&
                  mx_is_float(mx_dtype(array));
    if (matrix && mx_dim(array, -1) % 32 == 0 && packing->count < 512)
        packing->names[packing->count++] = base_strdup(name);
}

/* Every matrix of the folder in 4 bits: packed, or unpacked again. */
static Decoder *open_quantised(Golden *golden, const char *path, bool packed) {
    Error err = {0};
    const MxQuant quant = {32, 4, "affine"};
    *golden = golden_open(path);
    const json_t *config = hub_model_config(golden->folder);
    Packing packing = {.params = golden->params};
    if (!model_decoder_sanitize(golden->params, config, &err)) fail_msg("%s", err.message);
    nn_params_each(golden->params, list_matrix, &packing);
    for (size_t i = 0; i < packing.count; i++) {
        char *name = packing.names[i], *stem = base_strndup(name, strlen(name) - strlen(".weight"));
        char *scales = base_format("%s.scales", stem), *biases = base_format("%s.biases", stem);
        mlx_array parts[3], wide = mx_cast(nn_params_peek(golden->params, name), MLX_FLOAT32);
        mx_quantize(wide, quant, parts);
        if (packed) {
            nn_params_add(golden->params, name, parts[0]);
            nn_params_add(golden->params, scales, parts[1]);
            nn_params_add(golden->params, biases, parts[2]);
            nn_params_set_quant(golden->params, stem, quant);
        } else {
            nn_params_add(golden->params, name, mx_dequantize(parts[0], parts[1], parts[2], quant));
        }
        free(biases);
        free(scales);
        free(stem);
        free(name);
    }
    Decoder *decoder = model_decoder_load(golden->params, config, &err);
    if (!decoder) fail_msg("%s", err.message);
    return decoder;
}

static void expect_quantised_equals_dense(const char *path, mlx_array ids) {
    mx_scope s = mx_open();
    Golden golden[2];
    mlx_array logits[2];
    for (int i = 0; i < 2; i++) {
        const Decoder *decoder = open_quantised(&golden[i], path, i == 0);
        logits[i] = model_decoder_head(decoder, model_decoder_hidden(decoder, ids, NULL));
    }
    double difference = golden_difference(logits[0], logits[1]);
    if (!(difference < tolerance)) fail_msg("%s: quantised differs by %g", path, difference);
    mx_drop(s);
    for (int i = 0; i < 2; i++) golden_close(&golden[i]);
}

static void expect_folder(const char *path, const char *name) {
    Error err = {0};
    mx_scope s = mx_open();
    Golden golden = golden_open(path);
    Decoder *decoder = model_decoder_load(golden.params, hub_model_config(golden.folder), &err);
    if (!decoder) fail_msg("%s: %s", name, err.message);
    mlx_array ids = mx_cast(golden_get(&golden, "input_ids"), MLX_INT32);
    mlx_array expected = golden_get(&golden, "logits");
    mlx_array logits = model_decoder_head(decoder, model_decoder_hidden(decoder, ids, NULL));
    double difference = golden_difference(logits, expected);
    if (!(difference < tolerance))
        fail_msg("%s: logits differ by %g standard deviations", name, difference);
    print_message("%s: %.2e of a standard deviation\n", name, difference);
    expect_greedy(decoder, golden_get(&golden, "greedy_ids"));
    expect_pieces(decoder, ids, expected);
    expect_quantised_equals_dense(path, ids);
    mx_drop(s);
    golden_close(&golden);
}

static void test_decoders_match_transformers(void **state) {
    (void)state;
    Error err = {0};
    char **names;
    size_t count, seen = 0;
    assert_true(base_list_dir(golden_root(), &names, &count, &err));
    for (size_t i = 0; i < count; i++) {
        char *path = base_path_join(golden_root(), names[i]);
        json_t *config = base_is_dir(path) ? hub_config_load(path, &err) : NULL;
        base_error_clear(&err);
        if (config && model_kind(config, &err) == MODEL_DECODER) {
            expect_folder(path, names[i]);
            seen++;
        }
        base_error_clear(&err);
        json_decref(config);
        free(path);
        free(names[i]);
    }
    free(names);
    assert_true(seen >= (getenv("MLX_RAG_GOLDEN_HF") ? 1 : 27));
}

/* ---- experts ----------------------------------------------------------------------------- */

/* Mixtral as its authors wrote it: a matrix an expert, under other names. */
static void scatter_experts(NnParams *params, int layer) {
    static const char *const names[][2] = {
        {"gate_proj", "w1"}, {"up_proj", "w3"}, {"down_proj", "w2"}};
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        char from[128], to[128];
        snprintf(from, sizeof from, "model.layers.%d.block_sparse_moe.switch_mlp.%s.weight", layer,
                 names[i][0]);
        mlx_array all = nn_params_peek(params, from);
        for (int e = 0; e < 4; e++) {
            snprintf(to, sizeof to, "model.layers.%d.block_sparse_moe.experts.%d.%s.weight", layer,
                     e, names[i][1]);
            nn_params_add(params, to, mx_squeeze(mx_slice(all, 0, e, e + 1), 0));
        }
        nn_params_remove(params, from);
    }
}

static void open_scattered(Golden *golden) {
    Error err = {0};
    *golden = golden_open(GOLDEN "/hf/mixtral");
    if (!model_decoder_sanitize(golden->params, hub_model_config(golden->folder), &err))
        fail_msg("%s", err.message);
    for (int i = 0; i < 2; i++) scatter_experts(golden->params, i);
}

static void test_a_matrix_an_expert_becomes_a_stack(void **state) {
    (void)state;
    Error err = {0};
    mx_scope s = mx_open();
    Golden golden;
    open_scattered(&golden);
    Decoder *decoder = model_decoder_load(golden.params, hub_model_config(golden.folder), &err);
    if (!decoder) fail_msg("%s", err.message);
    mlx_array ids = mx_cast(golden_get(&golden, "input_ids"), MLX_INT32);
    mlx_array logits = model_decoder_head(decoder, model_decoder_hidden(decoder, ids, NULL));
    assert_true(golden_difference(logits, golden_get(&golden, "logits")) < tolerance);
    mx_drop(s);
    golden_close(&golden);
}

static void test_a_missing_expert_is_named(void **state) {
    (void)state;
    Error err = {0};
    mx_scope s = mx_open();
    Golden golden;
    open_scattered(&golden);
    nn_params_remove(golden.params, "model.layers.1.block_sparse_moe.experts.2.w3.weight");
    assert_null(model_decoder_load(golden.params, hub_model_config(golden.folder), &err));
    assert_non_null(strstr(
        err.message, "tensor model.layers.1.block_sparse_moe.experts.2.w3.weight is missing"));
    mx_drop(s);
    golden_close(&golden);
}

/* ---- bad folders ------------------------------------------------------------------------- */

static void expect_refusal(void (*spoil)(NnParams *params, json_t *config), const char *part) {
    Error err = {0};
    mx_scope s = mx_open();
    Golden golden = golden_open(GOLDEN "/hf/llama");
    json_t *config = json_deep_copy(hub_model_config(golden.folder));
    spoil(golden.params, config);
    assert_null(model_decoder_load(golden.params, config, &err));
    if (!strstr(err.message, part)) fail_msg("\"%s\" lacks \"%s\"", err.message, part);
    json_decref(config);
    mx_drop(s);
    golden_close(&golden);
}

static void lose_a_tensor(NnParams *params, json_t *config) {
    (void)config;
    nn_params_remove(params, "model.layers.1.mlp.up_proj.weight");
}
static void change_width(NnParams *params, json_t *config) {
    (void)params;
    json_object_set_new(config, "intermediate_size", json_integer(96));
}
static void change_vocabulary(NnParams *params, json_t *config) {
    (void)params;
    json_object_set_new(config, "vocab_size", json_integer(161));
}
static void add_a_tensor(NnParams *params, json_t *config) {
    (void)config;
    nn_params_add(params, "model.layers.0.self_attn.q_norm.weight",
                  mx_zeros(MX_SHAPE(16), MLX_FLOAT32));
}
static void lose_layers(NnParams *params, json_t *config) {
    (void)params;
    json_object_set_new(config, "num_hidden_layers", json_integer(1));
}
static void lose_a_key(NnParams *params, json_t *config) {
    (void)params;
    json_object_del(config, "num_attention_heads");
}
static void odd_heads(NnParams *params, json_t *config) {
    (void)params;
    json_object_set_new(config, "num_key_value_heads", json_integer(3));
}
static void absurd_sizes(NnParams *params, json_t *config) {
    (void)params;
    json_object_set_new(config, "head_dim", json_integer(16777216));
}
static void unknown_rope(NnParams *params, json_t *config) {
    (void)params;
    json_object_set_new(config, "rope_parameters", json_pack("{s:s}", "rope_type", "spiral"));
}

static void test_bad_models_are_refused_with_one_line(void **state) {
    (void)state;
    expect_refusal(lose_a_tensor, "tensor model.layers.1.mlp.up_proj.weight is missing");
    expect_refusal(change_width,
                   "tensor model.layers.0.mlp.gate_proj.weight is 128x64, the model needs 96x64");
    expect_refusal(change_vocabulary,
                   "tensor model.embed_tokens.weight is 160x64, the model needs 161x64");
    expect_refusal(add_a_tensor,
                   "tensor model.layers.0.self_attn.q_norm.weight is not part of this model");
    expect_refusal(lose_layers, "and 8 more are not part of this model");
    expect_refusal(lose_a_key, "num_attention_heads is missing");
    expect_refusal(odd_heads, "4 attention heads cannot share 3 key-value heads");
    expect_refusal(absurd_sizes, "impossible");
    expect_refusal(unknown_rope, "rope type \"spiral\" is not supported");
}

static void test_an_unknown_architecture_is_named(void **state) {
    (void)state;
    Error err = {0};
    json_t *config = json_pack("{s:s}", "model_type", "perceptron");
    assert_int_equal(model_kind(config, &err), MODEL_UNKNOWN);
    assert_non_null(strstr(err.message, "model type \"perceptron\" is not supported"));
    assert_non_null(strstr(err.hint, "llama"));
    json_decref(config);
}

static void test_both_spellings_of_a_config_load(void **state) {
    (void)state;
    Error err = {0};
    mx_scope s = mx_open();
    Golden golden = golden_open(GOLDEN "/hf/llama3-rope");
    json_t *config = json_deep_copy(hub_model_config(golden.folder));
    json_t *rope = json_incref(json_object_get(config, "rope_parameters"));
    json_object_del(config, "rope_parameters");
    json_object_set(config, "rope_theta", json_object_get(rope, "rope_theta"));
    json_object_del(rope, "rope_theta");
    json_object_set_new(config, "rope_scaling", rope);
    Decoder *decoder = model_decoder_load(golden.params, config, &err);
    if (!decoder) fail_msg("%s", err.message);
    mlx_array ids = mx_cast(golden_get(&golden, "input_ids"), MLX_INT32);
    mlx_array logits = model_decoder_head(decoder, model_decoder_hidden(decoder, ids, NULL));
    assert_true(golden_difference(logits, golden_get(&golden, "logits")) < tolerance);
    json_decref(config);
    mx_drop(s);
    golden_close(&golden);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decoders_match_transformers),
        cmocka_unit_test(test_a_matrix_an_expert_becomes_a_stack),
        cmocka_unit_test(test_a_missing_expert_is_named),
        cmocka_unit_test(test_bad_models_are_refused_with_one_line),
        cmocka_unit_test(test_an_unknown_architecture_is_named),
        cmocka_unit_test(test_both_spellings_of_a_config_load),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
