/* Weights that other tools quantised: the bytes of mlx-lm 0.31.3 where it reads them,
 * each format's own formula elsewhere, and what is refused. */
#include "lm/source.h"

#include "models/models.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* One module "m" of 8 rows and 32 columns. */
enum { OUT = 8, IN = 32 };

static const float steps[OUT] = {0.5F, 0.25F, 1, 2, 0.125F, 4, 0.75F, 1.5F};

static int code_of(int row, int column) {
    return (row * 5 + column * 3 + column / 7) & 15;
}

typedef struct Module {
    mx_scope scope;
    LmTensors tensors;
    json_t *config;
} Module;

static Module open_module(const char *settings) {
    Module module = {.scope = mx_open()};
    module.config = json_pack("{s:s,s:o}", "model_type", "llama", "quantization_config",
                              json_loads(settings, 0, NULL));
    assert_non_null(json_object_get(module.config, "quantization_config"));
    return module;
}

static void close_module(Module *module) {
    lm_tensors_free(&module->tensors);
    json_decref(module->config);
    mx_drop(module->scope);
}

static void add_words(Module *module, const char *name, const uint32_t *words, int rows,
                      int columns) {
    lm_tensors_add(&module->tensors, name,
                   mx_from_i32((const int *)words, MX_SHAPE(rows, columns)));
}

static void add_scales(Module *module, const char *name, mlx_dtype dtype, bool down) {
    mlx_array scales = mx_from_f32(steps, MX_SHAPE(down ? OUT : 1, down ? 1 : OUT));
    lm_tensors_add(&module->tensors, name, mx_cast(scales, dtype));
}

static void adopt(Module *module) {
    Error err = {0};
    if (!lm_foreign_adopt(&module->tensors, module->config, &err)) fail_msg("%s", err.message);
}

static void expect_refused(Module *module, const char *words) {
    Error err = {0};
    assert_false(lm_foreign_adopt(&module->tensors, module->config, &err));
    if (!strstr(err.message, words)) fail_msg("said \"%s\", not \"%s\"", err.message, words);
    close_module(module);
}

/* The weight as floats, unpacked by config's quantization when it has scales. */
static void read_weight(Module *module, float *values) {
    mlx_array weight = lm_tensors_get(&module->tensors, "m.weight");
    mlx_array scales = lm_tensors_get(&module->tensors, "m.scales");
    MxQuant quant;
    if (hub_quantization_of(module->config, "m", scales.ctx != NULL, &quant)) {
        mlx_array biases = lm_tensors_get(&module->tensors, "m.biases");
        weight = mx_dequantize(weight, scales, biases, quant);
    }
    assert_true(mx_copy_f32(mx_cast(weight, MLX_FLOAT32), values, (size_t)OUT * IN));
}

/* ---- AWQ and GPTQ -------------------------------------------------------------- */

static void test_awq_becomes_the_words_that_mlx_lm_makes(void **state) {
    static const uint32_t expected[OUT * IN / 8] = {
        0x0fedcba9, 0x87654321, 0x0fedcba9, 0x87654321, 0x4d5e6f70, 0x08192a3b, 0xc4d5e6f7,
        0x7081a2b3, 0x15af49e3, 0x9e38d27c, 0x26b05af4, 0xaf49e38d, 0x841da630, 0x40d962fb,
        0xfc851ea7, 0xb841da63, 0x4a06d390, 0x17e4a17d, 0xf5b28e4b, 0xc29f5c28, 0x3578ace0,
        0x578acef1, 0x68acef13, 0x8acef135, 0x809192a3, 0x5d5e6f7f, 0x1a2b3b4c, 0xe7f70819,
        0x5b17d390, 0x4a06c28f, 0x39f5b18e, 0x28e4a17d};
    static const float biases[OUT] = {0, -1, -1, -10, -0.25F, -24, -2.25F, -10.5F};
    Module module = open_module("{\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 32}");
    uint32_t words[IN], zeros = 0x76543210;
    int found[OUT * IN / 8];
    float shifts[OUT];
    (void)state;
    for (uint32_t i = 0; i < IN; i++) words[i] = i * 2654435761U + 12345;
    add_words(&module, "m.qweight", words, IN, 1);
    add_words(&module, "m.qzeros", &zeros, 1, 1);
    add_scales(&module, "m.scales", MLX_FLOAT16, false);
    adopt(&module);
    mlx_array weight = lm_tensors_get(&module.tensors, "m.weight");
    assert_true(mx_copy_i32(mx_view(weight, MLX_INT32), found, BASE_COUNT(found)));
    assert_memory_equal(found, expected, sizeof expected);
    mlx_array bias = lm_tensors_get(&module.tensors, "m.biases");
    assert_int_equal(mx_dtype(bias), MLX_FLOAT16);
    assert_true(mx_copy_f32(bias, shifts, OUT));
    for (int i = 0; i < OUT; i++) assert_true(shifts[i] == biases[i]);
    json_t *said = json_object_get(module.config, "quantization");
    assert_int_equal(json_integer_value(json_object_get(said, "bits")), 4);
    assert_null(json_object_get(said, "mode"));
    close_module(&module);
}

/* Words hold 8 columns of a row, zero points are one less than they are. */
static Module gptq_module(void) {
    Module module = open_module("{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 32}");
    uint32_t words[IN / 8][OUT] = {{0}}, zeros = 0;
    for (int row = 0; row < OUT; row++) {
        for (int column = 0; column < IN; column++)
            words[column / 8][row] |= (uint32_t)code_of(row, column) << column % 8 * 4;
        zeros |= (uint32_t)(row + 2) << row * 4;
    }
    add_words(&module, "m.qweight", words[0], IN / 8, OUT);
    add_words(&module, "m.qzeros", &zeros, 1, 1);
    add_scales(&module, "m.scales", MLX_FLOAT32, false);
    return module;
}

static void test_gptq_has_its_own_layout_and_zeros_one_less(void **state) {
    Module module = gptq_module();
    float values[OUT * IN];
    (void)state;
    adopt(&module);
    read_weight(&module, values);
    for (int i = 0; i < OUT * IN; i++)
        assert_true(values[i] == (float)(code_of(i / IN, i % IN) - (i / IN + 3)) * steps[i / IN]);
    close_module(&module);
}

static void test_gptq_with_moved_columns_is_refused(void **state) {
    Module module = gptq_module();
    int order[IN];
    (void)state;
    for (int i = 0; i < IN; i++) order[i] = i % 2;
    lm_tensors_add(&module.tensors, "m.g_idx", mx_from_i32(order, MX_SHAPE(IN)));
    expect_refused(&module, "m.g_idx: the columns of a group do not lie together");
}

static void test_widths_and_groups_that_mlx_has_not_are_refused(void **state) {
    (void)state;
    Module module = open_module("{\"quant_method\": \"gptq\", \"bits\": 3}");
    expect_refused(&module, "gptq with 3 bits");
    module = open_module("{\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 16}");
    expect_refused(&module, "awq with groups of 16");
}

/* ---- compressed-tensors ----------------------------------------------------------- */

#define SCHEME(bits)                                                                    \
    "{\"quant_method\": \"compressed-tensors\", \"format\": \"f\", \"config_groups\": " \
    "{\"group_0\": {\"weights\": {\"num_bits\": " #bits "}}}}"

/* Values are stored plus 8; zero points too, and packed down the rows. */
static void test_packed_integers_may_have_zero_points(void **state) {
    (void)state;
    for (int zero_points = 0; zero_points < 2; zero_points++) {
        Module module = open_module(SCHEME(4));
        uint32_t words[OUT][IN / 8] = {{0}}, zeros = 0;
        float values[OUT * IN];
        for (int row = 0; row < OUT; row++) {
            for (int column = 0; column < IN; column++)
                words[row][column / 8] |= (uint32_t)code_of(row, column) << column % 8 * 4;
            zeros |= (uint32_t)(row + 1) << row * 4;
        }
        add_words(&module, "m.weight_packed", words[0], OUT, IN / 8);
        add_scales(&module, "m.weight_scale", MLX_FLOAT32, true);
        if (zero_points) add_words(&module, "m.weight_zero_point", &zeros, 1, 1);
        adopt(&module);
        read_weight(&module, values);
        for (int i = 0; i < OUT * IN; i++) {
            const int zero = zero_points ? i / IN + 1 : 8;
            assert_true(values[i] == (float)(code_of(i / IN, i % IN) - zero) * steps[i / IN]);
        }
        assert_null(lm_tensors_get(&module.tensors, "m.weight_packed").ctx);
        assert_null(lm_tensors_get(&module.tensors, "m.weight_zero_point").ctx);
        close_module(&module);
    }
}

static void test_bytes_of_integers_keep_their_values(void **state) {
    Module module = open_module(SCHEME(8));
    int codes[OUT * IN];
    float values[OUT * IN];
    (void)state;
    for (int i = 0; i < OUT * IN; i++) codes[i] = (i * 37) % 256 - 128;
    lm_tensors_add(&module.tensors, "m.weight",
                   mx_cast(mx_from_i32(codes, MX_SHAPE(OUT, IN)), MLX_INT8));
    add_scales(&module, "m.weight_scale", MLX_FLOAT32, true);
    adopt(&module);
    read_weight(&module, values);
    for (int i = 0; i < OUT * IN; i++) assert_true(values[i] == (float)codes[i] * steps[i / IN]);
    close_module(&module);
}

static mlx_array bytes(const int *values, int rows, int columns) {
    return mx_cast(mx_from_i32(values, MX_SHAPE(rows, columns)), MLX_UINT8);
}

/* E2M1 codes 0 to 15, two a byte. */
static const float e2m1[16] = {0,     0.5F,  1,  1.5F,  2,  3,  4,  6,
                               -0.0F, -0.5F, -1, -1.5F, -2, -3, -4, -6};

static void test_four_bit_floats_stay_or_become_bfloat16(void **state) {
    (void)state;
    for (int whole = 0; whole < 2; whole++) {
        Module module = open_module(SCHEME(4));
        int codes[OUT * IN / 2], scales[OUT * 2];
        float values[OUT * IN];
        for (int i = 0; i < OUT * IN / 2; i++) {
            const int row = i / (IN / 2), column = i % (IN / 2) * 2;
            codes[i] = code_of(row, column) | code_of(row, column + 1) << 4;
        }
        /* A power of two: 2^(byte - 127), or E4M3 2^(byte / 8 - 7). */
        for (int i = 0; i < OUT * 2; i++) scales[i] = whole ? (7 + i % 3) * 8 : 126 + i % 3;
        lm_tensors_add(&module.tensors, "m.weight_packed", bytes(codes, OUT, IN / 2));
        lm_tensors_add(&module.tensors, "m.weight_scale", bytes(scales, OUT, whole ? 2 : 1));
        if (whole)
            lm_tensors_add(&module.tensors, "m.weight_global_scale", mx_scalar(4, MLX_FLOAT32));
        adopt(&module);
        read_weight(&module, values);
        for (int i = 0; i < OUT * IN; i++) {
            const int row = i / IN, column = i % IN;
            const float scale = whole ? ldexpf(1, scales[row * 2 + column / 16] / 8 - 7) / 4
                                      : ldexpf(1, scales[row] - 127);
            assert_true(values[i] == e2m1[code_of(row, column)] * scale);
        }
        const char *mode = json_string_value(
            json_object_get(json_object_get(module.config, "quantization"), "mode"));
        assert_true(whole ? mode == NULL : strcmp(mode, "mxfp4") == 0);
        close_module(&module);
    }
}

/* ---- FP8 --------------------------------------------------------------------------- */

/* 200 x 130 in blocks of 128 x 128: the blocks at the edges are cut. */
static void test_fp8_blocks_are_cut_at_the_edges(void **state) {
    enum { ROWS = 200, COLUMNS = 130 };
    static int codes[ROWS * COLUMNS];
    static float values[ROWS * COLUMNS];
    const float blocks[] = {1, 2, 0.5F, 4};
    Module module = open_module("{\"quant_method\": \"fp8\"}");
    (void)state;
    for (int i = 0; i < ROWS * COLUMNS; i++) codes[i] = 56; /* 1.0 */
    lm_tensors_add(&module.tensors, "m.weight", bytes(codes, ROWS, COLUMNS));
    lm_tensors_add(&module.tensors, "m.weight_scale_inv", mx_from_f32(blocks, MX_SHAPE(2, 2)));
    adopt(&module);
    mlx_array weight = lm_tensors_get(&module.tensors, "m.weight");
    assert_int_equal(mx_dtype(weight), MLX_BFLOAT16);
    assert_true(mx_copy_f32(weight, values, ROWS * COLUMNS));
    for (int i = 0; i < ROWS * COLUMNS; i++)
        assert_true(values[i] == blocks[i / COLUMNS / 128 * 2 + i % COLUMNS / 128]);
    assert_null(json_object_get(module.config, "quantization"));
    assert_null(json_object_get(module.config, "quantization_config"));
    close_module(&module);
}

static void test_scales_that_do_not_fit_are_named(void **state) {
    const int codes[OUT * IN] = {0};
    Module module = open_module("{\"quant_method\": \"fp8\"}");
    (void)state;
    lm_tensors_add(&module.tensors, "m.weight", bytes(codes, OUT, IN));
    lm_tensors_add(&module.tensors, "m.weight_scale_inv", mx_from_f32(steps, MX_SHAPE(3, 2)));
    expect_refused(&module, "tensor m is");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_awq_becomes_the_words_that_mlx_lm_makes),
        cmocka_unit_test(test_gptq_has_its_own_layout_and_zeros_one_less),
        cmocka_unit_test(test_gptq_with_moved_columns_is_refused),
        cmocka_unit_test(test_widths_and_groups_that_mlx_has_not_are_refused),
        cmocka_unit_test(test_packed_integers_may_have_zero_points),
        cmocka_unit_test(test_bytes_of_integers_keep_their_values),
        cmocka_unit_test(test_four_bit_floats_stay_or_become_bfloat16),
        cmocka_unit_test(test_fp8_blocks_are_cut_at_the_edges),
        cmocka_unit_test(test_scales_that_do_not_fit_are_named),
    };
    return cmocka_run_group_tests_name("foreign", tests, NULL, NULL);
}
