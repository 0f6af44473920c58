/* Fusing: the same bytes as mlx_lm.fuse, weights that PEFT merged, what is
 * refused. */
#include "hub/folder.h"
#include "lm/convert.h"
#include "lm/fuse.h"
#include "lm/lm.h"
#include "lm/peft.h"
#include "models/golden.h"

#include <math.h>

/* Multiples of 1/512 without a pattern that rows would share. */
static mlx_array pattern(int seed, const int *shape, size_t ndim) {
    static float values[65536];
    size_t size = 1;
    for (size_t d = 0; d < ndim; d++) size *= (size_t)shape[d];
    assert_true(size <= BASE_COUNT(values));
    for (size_t i = 0; i < size; i++)
        values[i] =
            (float)((int)((i * 29 + i * i % 7 * 13 + (size_t)seed * 31) % 97) - 48) / 512.0F;
    return mx_from_f32(values, shape, ndim);
}

/* One module of an adapter: the shapes of its pair. */
typedef struct Pair {
    const char *path;
    size_t ndim;
    int a[3], b[3];
} Pair;
static const Pair layers[] = {{"model.layers.0.self_attn.q_proj", 2, {64, 4}, {4, 64}},
                              {"model.layers.0.mlp.down_proj", 2, {128, 4}, {4, 64}},
                              {"model.layers.1.self_attn.q_proj", 2, {64, 4}, {4, 64}},
                              {"model.layers.1.mlp.down_proj", 2, {128, 4}, {4, 64}}};
static const Pair experts[] = {
    {"model.layers.0.block_sparse_moe.switch_mlp.gate_proj", 3, {4, 4, 64}, {4, 128, 4}},
    {"model.layers.1.block_sparse_moe.switch_mlp.gate_proj", 3, {4, 4, 64}, {4, 128, 4}}};
static const Pair embedding[] = {{"model.embed_tokens", 2, {160, 4}, {4, 64}}};
static const Pair stranger[] = {{"model.layers.7.self_attn.q_proj", 2, {64, 4}, {4, 64}}};
static const Pair misfit[] = {{"model.layers.0.self_attn.q_proj", 2, {96, 4}, {4, 64}}};

static void save(const char *folder, const char *name, HubTensor *tensors, size_t count) {
    Error err = {0};
    char *file = base_path_join(folder, name);
    if (!hub_tensors_save(file, tensors, count, &err)) fail_msg("%s", err.message);
    for (size_t i = 0; i < count; i++) free(tensors[i].name);
    free(file);
}

static void make_adapter(const char *folder, const Pair *pairs, size_t count, bool dora) {
    Error err = {0};
    HubTensor tensors[12];
    size_t used = 0;
    mx_scope scope = mx_open();
    assert_true(base_make_dirs(folder, &err));
    for (size_t i = 0; i < count; i++) {
        const Pair *pair = &pairs[i];
        tensors[used++] = (HubTensor){base_format("%s.lora_a", pair->path),
                                      pattern((int)(2 * i), pair->a, pair->ndim)};
        tensors[used++] = (HubTensor){base_format("%s.lora_b", pair->path),
                                      pattern((int)(2 * i + 1), pair->b, pair->ndim)};
        if (!dora) continue;
        float lengths[64];
        for (int row = 0; row < 64; row++) lengths[row] = 1 + (float)(row % 5) / 8;
        tensors[used++] =
            (HubTensor){base_format("%s.m", pair->path), mx_from_f32(lengths, MX_SHAPE(64))};
    }
    save(folder, "adapters.safetensors", tensors, used);
    char *config = base_format("{\"fine_tune_type\": \"%s\", \"num_layers\": 2, "
                               "\"lora_parameters\": {\"rank\": 4, \"scale\": 2.5}}",
                               dora ? "dora" : "lora");
    folder_text(folder, "adapter_config.json", config);
    free(config);
    mx_drop(scope);
}

/* FNV-1a of all weights of a folder, by name. */
static uint64_t hash_of(const char *folder) {
    Error err = {0};
    StrBuf bytes = {0};
    HubModel *model = hub_model_open(folder, &err);
    if (!model) fail_msg("%s", err.message);
    mx_scope scope = mx_open();
    const char *name;
    for (size_t i = 0; (name = hub_model_name(model, i)) != NULL; i++) {
        mlx_array array = hub_model_tensor(model, name);
        base_str_append_n(&bytes, mx_data(array), mlx_array_nbytes(array));
    }
    mx_drop(scope);
    hub_model_free(model);
    const uint64_t hash = base_hash(bytes.data, bytes.length);
    base_str_free(&bytes);
    return hash;
}

static void convert(const char *source, const char *output, LmConvertOptions options) {
    Error err = {0};
    LmConvertReport report;
    options.quiet = true;
    if (!lm_convert(source, output, &options, &report, &err)) fail_msg("%s", err.message);
}

static const LmConvertOptions quiet = {.quiet = true};

static void test_fused_weights_are_those_of_mlx_lm_to_the_byte(void **state) {
    /* By mlx_lm.fuse 0.31.3 on mlx[cpu] 0.31.2. */
    static const struct {
        const char *model;
        LmConvertOptions base;
        const Pair *pairs;
        size_t count;
        bool dequantize;
        uint64_t hash;
    } cases[] = {
        {"llama", {0}, layers, 4, false, 0x33927b56eab764fb},
        {"llama", {.quantize = true}, layers, 4, false, 0x652632d6239dd4c7},
        {"llama", {.quantize = true}, layers, 4, true, 0x99a9958f526a3eb6},
        {"llama", {.quantize = true, .mode = "mxfp4"}, layers, 4, false, 0x99943eedb72a2230},
        {"llama",
         {.quantize = true, .bits = 8, .dtype = "float16"},
         layers,
         4,
         true,
         0x49514a60f668309e},
        {"mixtral", {.quantize = true}, experts, 2, false, 0xf81922d66ebcef1f},
        {"llama", {.quantize = true, .bits = 6}, embedding, 1, false, 0xee6b5bf91000f6e},
    };
    for (size_t i = 0; i < BASE_COUNT(cases); i++) {
        Error err = {0};
        LmFuseReport report;
        char *folder = base_format("%s/%zu", (char *)*state, i);
        char *base = base_path_join(folder, "base"), *adapter = base_path_join(folder, "adapter");
        char *output = base_path_join(folder, "fused");
        char *source = base_format(GOLDEN "/hf/%s", cases[i].model);
        make_adapter(adapter, cases[i].pairs, cases[i].count, false);
        convert(source, base, cases[i].base);
        if (!lm_fuse(base, adapter, output, cases[i].dequantize, &quiet, &report, &err))
            fail_msg("case %zu: %s", i, err.message);
        assert_int_equal(report.fused, cases[i].count);
        assert_true((report.packing_error > 0) == (cases[i].base.quantize && !cases[i].dequantize));
        if (hash_of(output) != cases[i].hash) fail_msg("case %zu differs", i);
        free(folder);
        free(base);
        free(adapter);
        free(output);
        free(source);
    }
}

static void test_dora_gives_rows_their_learnt_length(void **state) {
    /* The first row by mlx_lm.fuse 0.31.3 on mlx[cpu] 0.31.2. */
    static const float expected[] = {-0.0229945667F, -0.154976487F, 0.0360032842F, 0.0602063313F,
                                     0.233499125F};
    Error err = {0};
    LmFuseReport report;
    static float values[64 * 128];
    char *base = base_path_join(*state, "base"), *adapter = base_path_join(*state, "adapter");
    char *output = base_path_join(*state, "fused");
    make_adapter(adapter, layers, 4, true);
    convert(GOLDEN "/hf/llama", base, (LmConvertOptions){.dtype = "float32"});
    assert_true(lm_fuse(base, adapter, output, false, &quiet, &report, &err));
    mx_scope scope = mx_open();
    HubModel *model = hub_model_open(output, &err);
    mlx_array weight = hub_model_tensor(model, "model.layers.1.mlp.down_proj.weight");
    assert_true(mx_copy_f32(weight, values, 64 * 128));
    for (size_t i = 0; i < 5; i++) assert_true(fabsf(values[3 * 128 + i] - expected[i]) < 1e-7F);
    for (int row = 0; row < 64; row++) {
        double sum = 0;
        for (int c = 0; c < 128; c++) sum += pow(values[row * 128 + c], 2);
        assert_true(fabs(sqrt(sum) - 1 - row % 5 / 8.0) < 1e-6);
    }
    hub_model_free(model);
    mx_drop(scope);
    free(base);
    free(adapter);
    free(output);
}

/* ---- PEFT ---------------------------------------------------------------------- */

typedef struct Collected {
    HubTensor tensors[32];
    size_t count;
    const char *prefix;
} Collected;

static void collect(void *context, const char *name, mlx_array array) {
    Collected *collected = context;
    if (!base_starts_with(name, collected->prefix)) return;
    char *rest = base_strdup(name + strlen(collected->prefix));
    char *adapter_name = strstr(rest, ".default");
    if (adapter_name)
        memmove(adapter_name, adapter_name + 8, strlen(adapter_name + 8) + 1); /* as saved */
    collected->tensors[collected->count++] = (HubTensor){rest, mx_keep(array)};
}

static void test_a_peft_adapter_merges_as_peft_merges_it(void **state) {
    /* peft 0.21.0: tests/golden/lora, after twelve steps of Adam. */
    Error err = {0};
    LmFuseReport report;
    Collected pairs = {.prefix = "adam_no_bias_correction.final."};
    Collected merged = {.prefix = "fused_adam.weight."};
    char *base = base_path_join(*state, "base"), *adapter = base_path_join(*state, "adapter");
    char *output = base_path_join(*state, "fused"), *text = NULL;
    mx_scope scope = mx_open();
    assert_true(base_make_dirs(adapter, &err));
    assert_true(mx_load_safetensors(GOLDEN "/lora/golden.safetensors",
                                    (MxFileVisitor){collect, NULL, &pairs}, &err));
    assert_true(mx_load_safetensors(GOLDEN "/lora/golden.safetensors",
                                    (MxFileVisitor){collect, NULL, &merged}, &err));
    assert_int_equal(pairs.count, 18);
    save(adapter, "adapter_model.safetensors", pairs.tensors, pairs.count);
    size_t length = 0;
    assert_true(base_file_read(GOLDEN "/lora/adapter_config.json", &text, &length, &err));
    folder_text(adapter, "adapter_config.json", text);
    convert(GOLDEN "/lora", base, (LmConvertOptions){.dtype = "float32"});
    if (!lm_fuse(base, adapter, output, false, &quiet, &report, &err)) fail_msg("%s", err.message);
    assert_int_equal(report.fused, 9);
    HubModel *model = hub_model_open(output, &err);
    for (size_t i = 0; i < merged.count; i++) {
        mlx_array ours = hub_model_tensor(model, merged.tensors[i].name);
        mlx_array apart = mx_max(mx_abs(mx_sub(ours, merged.tensors[i].array)), -1, false);
        assert_true(mx_item_float(mx_max(apart, -1, false)) < 1e-7);
        free(merged.tensors[i].name);
        mx_free(&merged.tensors[i].array);
    }
    for (size_t i = 0; i < pairs.count; i++) mx_free(&pairs.tensors[i].array);
    assert_int_equal(merged.count, 9);
    hub_model_free(model);
    mx_drop(scope);
    free(text);
    free(base);
    free(adapter);
    free(output);
}

/* peft 0.21.2: tests/parity/peft_adapters.py. Applied to the model, and fused into it. */
static void test_adapters_of_peft_give_its_logits(void **state) {
    static const struct {
        const char *adapter, *model;
    } cases[] = {{"gpt2-dora", "gpt2"}, {"llama-ranks", "llama"}, {"mixtral-experts", "mixtral"}};
    static const int tokens[] = {5, 7, 9, 11, 3, 2, 8};
    for (size_t i = 0; i < BASE_COUNT(cases); i++) {
        Error err = {0};
        LmFuseReport report;
        char *base = base_path_join(*state, cases[i].model),
             *fused = base_format("%s/%s", (char *)*state, cases[i].adapter),
             *model = base_format(GOLDEN "/hf/%s", cases[i].model),
             *adapter = base_format(GOLDEN "/peft/%s", cases[i].adapter),
             *file = base_path_join(adapter, "golden.safetensors");
        convert(model, base, (LmConvertOptions){.dtype = "float32"});
        if (!lm_fuse(base, adapter, fused, false, &quiet, &report, &err))
            fail_msg("%s", err.message);
        Collected golden = {.prefix = "logits"};
        mx_scope scope = mx_open();
        assert_true(mx_load_safetensors(file, (MxFileVisitor){collect, NULL, &golden}, &err));
        assert_int_equal(golden.count, 1);
        for (int way = 0; way < 2; way++) {
            const LmOpenOptions options = {.dtype = "float32",
                                           .adapter_path = way == 0 ? adapter : NULL};
            mlx_array ours = {0};
            if (!lm_inspect(way == 0 ? base : fused, &options, tokens, BASE_COUNT(tokens), &ours,
                            NULL, NULL, NULL, &err))
                fail_msg("%s: %s", cases[i].adapter, err.message);
            assert_true(golden_difference(ours, golden.tensors[0].array) < 1e-4);
            mx_free(&ours);
        }
        free(golden.tensors[0].name);
        mx_free(&golden.tensors[0].array);
        mx_drop(scope);
        free(base), free(fused), free(model), free(adapter), free(file);
    }
}

static void test_names_of_peft_meet_ours(void **state) {
    (void)state;
    static const struct {
        const char *type, *ours, *theirs;
    } both[] = {{"gpt2", "model.h.3.attn.c_proj", "transformer.h.3.attn.c_proj"},
                {"gpt_neox", "model.h.0.mlp.dense_h_to_4h", "gpt_neox.layers.0.mlp.dense_h_to_4h"},
                {"llama", "model.layers.1.mlp.up_proj", "model.layers.1.mlp.up_proj"}};
    for (size_t i = 0; i < BASE_COUNT(both); i++) {
        char *path = lm_peft_path(both[i].type, both[i].ours);
        assert_string_equal(path, both[i].theirs);
        assert_true(lm_peft_same(path, both[i].ours));
        free(path);
    }
    assert_false(lm_peft_same("model.layers.1.mlp.up_proj", "model.layers.11.mlp.up_proj"));
    assert_false(lm_peft_same("model.layers.1.mlp.gate", "model.layers.1.block_sparse_moe.gates"));
    assert_true(lm_peft_same("model.layers.1.mlp.gate", "model.layers.1.block_sparse_moe.gate"));
    assert_false(lm_peft_same("lm_head", "embed_out"));
    LmPeftName parts;
    assert_true(lm_peft_name("base_model.model.a.b.lora_B.default.weight", &parts));
    assert_memory_equal(parts.module, "a.b.", parts.length + 1);
    assert_string_equal(parts.leaf, "lora_b");
    assert_true(lm_peft_name("base_model.model.a.lora_magnitude_vector", &parts));
    assert_false(parts.turned);
    assert_false(lm_peft_name("base_model.model.a.weight", &parts));
}

/* ---- refusals -------------------------------------------------------------------- */

static void refused(void **state, const Pair *pairs, const char *words) {
    Error err = {0};
    LmFuseReport report;
    char *adapter = base_path_join(*state, "adapter"), *output = base_path_join(*state, "fused");
    folder_remove(adapter);
    make_adapter(adapter, pairs, 1, false);
    assert_false(lm_fuse(GOLDEN "/hf/llama", adapter, output, false, &quiet, &report, &err));
    if (!strstr(err.message, words)) fail_msg("said \"%s\", not \"%s\"", err.message, words);
    assert_non_null(strstr(err.hint, "another model"));
    assert_false(base_is_dir(output));
    free(adapter);
    free(output);
}

static void test_an_adapter_of_another_model_is_refused_by_name(void **state) {
    refused(state, stranger, "has no module model.layers.7.self_attn.q_proj");
    refused(state, misfit, "model.layers.0.self_attn.q_proj: the weight is");
    refused(state, experts, "block_sparse_moe.switch_mlp.gate_proj");
}

int main(void) {
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, folder_make, folder_drop)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_fused_weights_are_those_of_mlx_lm_to_the_byte),
        IN_FOLDER(test_dora_gives_rows_their_learnt_length),
        IN_FOLDER(test_a_peft_adapter_merges_as_peft_merges_it),
        IN_FOLDER(test_adapters_of_peft_give_its_logits),
        cmocka_unit_test(test_names_of_peft_meet_ours),
        IN_FOLDER(test_an_adapter_of_another_model_is_refused_by_name),
    };
    return cmocka_run_group_tests_name("fuse", tests, NULL, NULL);
}
