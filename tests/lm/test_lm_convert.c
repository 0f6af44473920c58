/* Converting folders: sizes, settings, refusals. That the bytes are mlx-lm's is
 * compared by tests/parity/exchange.py. */
#include "hub/folder.h"
#include "lm/convert.h"

static const char *source(void) {
    return GOLDEN "/hf/llama";
}

static void test_a_quantised_folder_opens_and_says_how_it_is_packed(void **state) {
    Error err = {0};
    LmConvertReport report;
    LmConvertOptions options = {.quantize = true, .bits = 3, .group_size = 32, .quiet = true};
    char *output = base_path_join(*state, "out");
    assert_true(lm_convert(source(), output, &options, &report, &err));
    HubInfo info;
    assert_true(hub_model_info(output, &info, &err));
    assert_int_equal(info.bits, 3);
    assert_int_equal(info.group_size, 32);
    assert_int_equal(info.weight_bytes, report.bytes);
    assert_true(info.bits_per_weight == report.bits_per_weight);
    free(output);
}

static void test_dequantised_weights_have_the_shapes_of_the_dense_ones(void **state) {
    Error err = {0};
    LmConvertReport packed, dense;
    LmConvertOptions options = {.quantize = true, .mode = "mxfp8", .quiet = true};
    char *first = base_path_join(*state, "a"), *second = base_path_join(*state, "b");
    assert_true(lm_convert(source(), first, &options, &packed, &err));
    options = (LmConvertOptions){.dequantize = true, .quiet = true};
    assert_true(lm_convert(first, second, &options, &dense, &err));
    assert_int_equal(dense.bytes, dense.parameters * 2);
    assert_int_equal(dense.parameters, packed.parameters);
    free(first);
    free(second);
}

static void test_an_estimate_is_what_would_be_written(void **state) {
    Error err = {0};
    LmConvertReport estimate, real;
    LmConvertOptions options = {
        .quantize = true, .recipe = "mixed_2_6", .group_size = 32, .quiet = true};
    char *output = base_path_join(*state, "out");
    assert_true(lm_convert(source(), NULL, &options, &estimate, &err));
    assert_false(base_is_dir(output));
    assert_true(lm_convert(source(), output, &options, &real, &err));
    assert_int_equal(estimate.bytes, real.bytes);
    assert_true(estimate.bits_per_weight > 3 && estimate.bits_per_weight < 8);
    free(output);
}

static void refused(void **state, LmConvertOptions options, const char *words) {
    Error err = {0};
    LmConvertReport report;
    char *output = base_path_join(*state, "refused");
    options.quiet = true;
    assert_false(lm_convert(source(), output, &options, &report, &err));
    if (!strstr(err.message, words)) fail_msg("said \"%s\", not \"%s\"", err.message, words);
    assert_false(base_is_dir(output));
    free(output);
}

static void test_wrong_settings_are_refused_and_nothing_is_written(void **state) {
    static const char *const override[] = {"lm_head"};
    refused(state, (LmConvertOptions){.quantize = true, .dequantize = true}, "not both");
    refused(state, (LmConvertOptions){.quantize = true, .mode = "int4"}, "unknown mode");
    refused(state, (LmConvertOptions){.quantize = true, .bits = 7}, "bits is not one of");
    refused(state, (LmConvertOptions){.quantize = true, .group_size = 48}, "group_size is not");
    refused(state, (LmConvertOptions){.quantize = true, .recipe = "mixed_1_2"}, "quant predicate");
    refused(state, (LmConvertOptions){.quantize = true, .mode = "mxfp4", .recipe = "mixed_2_6"},
            "affine");
    refused(state, (LmConvertOptions){.dtype = "int8"}, "dtype");
    refused(state, (LmConvertOptions){.quantize = true, .overrides = override, .override_count = 1},
            "PATTERN=BITS");
}

static void test_a_link_out_of_the_folder_is_not_copied(void **state) {
    Error err = {0};
    LmConvertReport report;
    LmConvertOptions options = {.quiet = true};
    char *model = base_path_join(*state, "model"), *output = base_path_join(*state, "out");
    assert_true(lm_convert(source(), model, &options, &report, &err));
    char *link = base_path_join(model, "tokenizer.json");
    assert_int_equal(symlink("/etc/hostname", link), 0);
    assert_false(lm_convert(model, output, &options, &report, &err));
    assert_non_null(strstr(err.message, "outside of the model's folder"));
    assert_false(base_is_dir(output));
    free(model);
    free(output);
    free(link);
}

/* Adds a tensor of zeros to a safetensors header. */
static void put_tensor(StrBuf *header, size_t *at, const char *name, int rows, int columns) {
    size_t bytes = (size_t)2 * (size_t)columns * (size_t)(rows ? rows : 1);
    base_str_appendf(header, "%s\"%s.weight\":{\"dtype\":\"BF16\",\"shape\":[",
                     header->length ? "," : "{", name);
    if (rows) base_str_appendf(header, "%d,", rows);
    base_str_appendf(header, "%d],\"data_offsets\":[%zu,%zu]}", columns, *at, *at + bytes);
    *at += bytes;
}

/* 24 matrices of 2 MiB, not on the alignment of their items: each has to be copied. */
static void make_large(const char *folder) {
    enum { LAYERS = 8, HIDDEN = 2048, WIDTH = 512, HEADS = 64 };
    static const struct {
        const char *name;
        int rows, columns;
    } parts[] = {{"mlp.gate_proj", WIDTH, HIDDEN},       {"mlp.up_proj", WIDTH, HIDDEN},
                 {"mlp.down_proj", HIDDEN, WIDTH},       {"self_attn.q_proj", HEADS, HIDDEN},
                 {"self_attn.k_proj", HEADS, HIDDEN},    {"self_attn.v_proj", HEADS, HIDDEN},
                 {"self_attn.o_proj", HIDDEN, HEADS},    {"input_layernorm", 0, HIDDEN},
                 {"post_attention_layernorm", 0, HIDDEN}};
    StrBuf header = {0};
    size_t at = 0;
    folder_text(folder, "config.json",
                "{\"model_type\": \"llama\", \"hidden_size\": 2048, \"intermediate_size\": 512, "
                "\"num_hidden_layers\": 8, \"num_attention_heads\": 4, \"head_dim\": 16, "
                "\"vocab_size\": 64, \"rms_norm_eps\": 1e-5}");
    put_tensor(&header, &at, "model.embed_tokens", 64, HIDDEN);
    put_tensor(&header, &at, "model.norm", 0, HIDDEN);
    for (int i = 0; i < LAYERS; i++) {
        for (size_t k = 0; k < BASE_COUNT(parts); k++) {
            char *name = base_format("model.layers.%d.%s", i, parts[k].name);
            put_tensor(&header, &at, name, parts[k].rows, parts[k].columns);
            free(name);
        }
    }
    base_str_append(&header, header.length % 2 ? "} " : "}");
    folder_safetensors(folder, "model.safetensors", header.data, at);
    base_str_free(&header);
}

static void test_memory_holds_one_tensor_not_the_model(void **state) {
#ifdef OFFICIAL_ENGINE
    skip(); /* its quantisation to a floating-point mode holds more */
#endif
    static const LmConvertOptions options[] = {
        {.quiet = true},
        {.quiet = true, .quantize = true},
        {.quiet = true, .dtype = "float16"},
        {.quiet = true, .quantize = true, .mode = "nvfp4", .dtype = "float32"}};
    char *model = base_path_join(*state, "large");
    assert_true(base_make_dirs(model, NULL));
    make_large(model);
    for (size_t i = 0; i < BASE_COUNT(options); i++) {
        Error err = {0};
        LmConvertReport report;
        size_t before = 0, peak = 0;
        char *output = base_format("%s/out%zu", (char *)*state, i);
        mlx_get_active_memory(&before);
        mlx_reset_peak_memory();
        if (!lm_convert(model, output, &options[i], &report, &err)) fail_msg("%s", err.message);
        mlx_get_peak_memory(&peak);
        if (peak - before > (size_t)3 * (options[i].dtype ? 4 : 2) << 20)
            fail_msg("case %zu held %zu bytes", i, peak - before);
        free(output);
    }
    free(model);
}

int main(void) {
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, folder_make, folder_drop)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_a_quantised_folder_opens_and_says_how_it_is_packed),
        IN_FOLDER(test_dequantised_weights_have_the_shapes_of_the_dense_ones),
        IN_FOLDER(test_an_estimate_is_what_would_be_written),
        IN_FOLDER(test_wrong_settings_are_refused_and_nothing_is_written),
        IN_FOLDER(test_memory_holds_one_tensor_not_the_model),
        IN_FOLDER(test_a_link_out_of_the_folder_is_not_copied),
    };
    return cmocka_run_group_tests_name("convert", tests, NULL, NULL);
}
