/* GGUF: every block type against gguf-py 0.19's dequantize, metadata, hostile
 * files, the handle's own functions. */
#include "engine/cpu/kernels.h"
#include "engine/io_check.h"

#include <math.h>

static mlx_io_gguf load(const char *path) {
    mlx_io_gguf gguf = mlx_io_gguf_new();
    assert_int_equal(mlx_load_gguf(&gguf, path, cpu), 0);
    return gguf;
}

static mlx_array array_of(mlx_io_gguf gguf, const char *format, const char *name) {
    char key[64];
    snprintf(key, sizeof key, format, name);
    mlx_array array = mlx_array_new();
    assert_int_equal(mlx_io_gguf_get_array(&array, gguf, key), 0);
    assert_int_equal(mlx_array_eval(array), 0); /* blocks are read when they are needed */
    return array;
}

static mlx_array expected_in(const char *file, const char *name) {
    mlx_map_string_to_array tensors = {NULL};
    mlx_map_string_to_string metadata = {NULL};
    mlx_array array = mlx_array_new();
    assert_int_equal(mlx_load_safetensors(&tensors, &metadata, file, cpu), 0);
    assert_int_equal(mlx_map_string_to_array_get(&array, tensors, name), 0);
    assert_int_equal(mlx_array_eval(array), 0);
    mlx_map_string_to_array_free(tensors);
    mlx_map_string_to_string_free(metadata);
    return array;
}

static mlx_array expected_of(const char *name) {
    return expected_in(GOLDEN "/engine/blocks.safetensors", name);
}

static void check_affine(mlx_io_gguf gguf, const char *name, int bits) {
    mlx_array packed = array_of(gguf, "%s.weight", name),
              scales = array_of(gguf, "%s.scales", name);
    mlx_array biases = array_of(gguf, "%s.biases", name), expected = expected_of(name);
    assert_int_equal(mlx_array_dtype(packed), MLX_UINT32);
    assert_int_equal(mlx_array_dtype(scales), MLX_FLOAT16);
    assert_int_equal(mlx_array_dim(packed, 0), 3);
    assert_int_equal(mlx_array_dim(packed, 1), 128 * bits / 32);
    assert_int_equal(mlx_array_dim(scales, 1), 4);
    const uint8_t *bytes = mlx_array_data_uint8(packed);
    const uint16_t *scale = mlx_array_data_uint16(scales), *bias = mlx_array_data_uint16(biases);
    for (int i = 0; i < 3 * 128; i++) {
        const int item = bits == 8 ? bytes[i] : bytes[i / 2] >> i % 2 * 4 & 15;
        const float value =
            cpu_f32_from_f16(scale[i / 32]) * (float)item + cpu_f32_from_f16(bias[i / 32]);
        assert_float_equal(value, mlx_array_data_float32(expected)[i], 0);
    }
    mlx_array_free(packed);
    mlx_array_free(scales);
    mlx_array_free(biases);
    mlx_array_free(expected);
}

static void test_q4_and_q8_keep_their_exact_values(void **state) {
    (void)state;
    mlx_io_gguf gguf = load(GOLDEN "/engine/blocks.gguf");
    check_affine(gguf, "Q4_0", 4);
    check_affine(gguf, "Q4_1", 4);
    check_affine(gguf, "Q8_0", 8);
    mlx_io_gguf_free(gguf);
}

static void check_expanded(const char *stem, const char *const *names, size_t count) {
    char file[256];
    snprintf(file, sizeof file, "%s.gguf", stem);
    mlx_io_gguf gguf = load(file);
    snprintf(file, sizeof file, "%s.safetensors", stem);
    for (size_t i = 0; i < count; i++) {
        mlx_array got = array_of(gguf, "%s.weight", names[i]);
        mlx_array expected = expected_in(file, names[i]);
        assert_int_equal(mlx_array_dtype(got), MLX_FLOAT16);
        assert_int_equal(mlx_array_size(got), mlx_array_size(expected));
        const float *want = mlx_array_data_float32(expected);
        for (size_t k = 0; k < mlx_array_size(got); k++) {
            const float value = cpu_f32_from_f16(mlx_array_data_uint16(got)[k]);
            assert_float_equal(value, want[k], fabsf(want[k]) * 6e-4f + 1e-7f);
        }
        mlx_array_free(got);
        mlx_array_free(expected);
    }
    mlx_io_gguf_free(gguf);
}

static void test_other_blocks_become_float16(void **state) {
    (void)state;
    static const char *const common[] = {"Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"};
    static const char *const rare[] = {"Q8_K", "IQ4_NL", "IQ4_XS", "MXFP4", "TQ1_0", "TQ2_0"};
    check_expanded(GOLDEN "/engine/blocks", common, sizeof common / sizeof *common);
    check_expanded(GOLDEN "/engine/rare_blocks", rare, sizeof rare / sizeof *rare);
}

static void test_plain_types_are_kept_but_bfloat16(void **state) {
    (void)state;
    static const struct {
        const char *name, *text;
    } cases[] = {
        {"i8", "array([[-3, -2, -1],\n       [0, 1, 2]], dtype=int8)"},
        {"i16", "array([0, 1, 2, 3, 4, 5], dtype=int16)"},
        {"i32", "array([0, 1, 2, 3, 4, 5], dtype=int32)"},
        {"i64", "array([0, 1, 2, 3, 4, 5], dtype=int64)"},
        {"f64", "array([0, 1, 2, 3, 4, 5], dtype=float64)"},
        {"bf16", "array([[1, -2, 3.14062]], dtype=float16)"},
    };
    mlx_io_gguf gguf = load(GOLDEN "/engine/blocks.gguf");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mlx_array array = array_of(gguf, "%s", cases[i].name);
        assert_text(array, cases[i].text);
        mlx_array_free(array);
    }
    mlx_vector_string keys = {NULL};
    assert_int_equal(mlx_io_gguf_get_keys(&keys, gguf), 0);
    assert_int_equal(mlx_vector_string_size(keys), 10 + 2 * 3 + 8);
    mlx_vector_string_free(keys);
    mlx_io_gguf_free(gguf);
}

static void test_metadata_of_every_kind(void **state) {
    (void)state;
    static const struct {
        const char *key, *text;
    } cases[] = {
        {"m.u8", "array(200, dtype=uint8)"},
        {"m.i8", "array(-5, dtype=int8)"},
        {"m.u16", "array(60000, dtype=uint16)"},
        {"m.i16", "array(-6, dtype=int16)"},
        {"m.u32", "array(7, dtype=uint32)"},
        {"m.i32", "array(-7, dtype=int32)"},
        {"m.u64", "array(1099511627776, dtype=uint64)"},
        {"m.i64", "array(-1099511627776, dtype=int64)"},
        {"m.f32", "array(1.5, dtype=float32)"},
        {"m.f64", "array(2.5, dtype=float32)"},
        {"m.bool", "array(true, dtype=bool)"},
        {"m.ints", "array([1, 2, 3], dtype=int32)"},
        {"m.floats", "array([0.5, 1.5], dtype=float32)"},
        {"m.bools", "array([true, false], dtype=bool)"},
    };
    mlx_io_gguf gguf = load(GOLDEN "/engine/blocks.gguf");
    mlx_array array = mlx_array_new();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(mlx_io_gguf_get_metadata_array(&array, gguf, cases[i].key), 0);
        assert_text(array, cases[i].text);
    }
    mlx_string string = mlx_string_new();
    assert_int_equal(mlx_io_gguf_get_metadata_string(&string, gguf, "m.string"), 0);
    assert_string_equal(mlx_string_data(string), "h\xc3\xa9llo");
    mlx_vector_string texts = {NULL};
    assert_int_equal(mlx_io_gguf_get_metadata_vector_string(&texts, gguf, "m.strings"), 0);
    assert_int_equal(mlx_vector_string_size(texts), 3);
    char *text;
    mlx_vector_string_get(&text, texts, 2);
    assert_string_equal(text, "ccc");

    bool flag = true;
    assert_int_equal(mlx_io_gguf_get_metadata_string(&string, gguf, "none"), 2);
    assert_int_equal(mlx_io_gguf_get_metadata_string(&string, gguf, "m.u8"), 3);
    assert_int_equal(mlx_io_gguf_get_metadata_array(&array, gguf, "m.string"), 3);
    assert_int_equal(mlx_io_gguf_has_metadata_array(&flag, gguf, "none"), 2);
    assert_false(flag);
    assert_int_equal(mlx_io_gguf_has_metadata_string(&flag, gguf, "m.string"), 0);
    assert_true(flag);
    assert_int_equal(mlx_io_gguf_has_metadata_vector_string(&flag, gguf, "m.string"), 0);
    assert_false(flag);
    assert_int_equal(mlx_io_gguf_get_array(&array, gguf, "none"), 2);
    mlx_vector_string_free(texts);
    mlx_string_free(string);
    mlx_array_free(array);
    mlx_io_gguf_free(gguf);
}

static void test_set_inserts_only_what_is_absent(void **state) {
    (void)state;
    mlx_io_gguf gguf = mlx_io_gguf_new();
    mlx_array one = mlx_array_new_int(1), two = mlx_array_new_int(2), got = mlx_array_new();
    assert_int_equal(mlx_io_gguf_set_array(gguf, "a", one), 0);
    assert_int_equal(mlx_io_gguf_set_array(gguf, "a", two), 0);
    assert_int_equal(mlx_io_gguf_get_array(&got, gguf, "a"), 0);
    assert_text(got, "array(1, dtype=int32)");
    assert_int_equal(mlx_io_gguf_set_metadata_string(gguf, "s", "x"), 0);
    assert_int_equal(mlx_io_gguf_set_metadata_array(gguf, "s", two), 0);
    mlx_string text = mlx_string_new();
    assert_int_equal(mlx_io_gguf_get_metadata_string(&text, gguf, "s"), 0);
    mlx_vector_string list = mlx_vector_string_new_value("y"), back = {NULL};
    assert_int_equal(mlx_io_gguf_set_metadata_vector_string(gguf, "l", list), 0);
    assert_int_equal(mlx_io_gguf_get_metadata_vector_string(&back, gguf, "l"), 0);
    assert_int_equal(mlx_vector_string_size(back), 1);
    assert_fails(mlx_io_gguf_set_array(gguf, "b", mlx_array_new()), "mlx_array");
    mlx_vector_string_free(list);
    mlx_vector_string_free(back);
    mlx_string_free(text);
    mlx_array_free(one);
    mlx_array_free(two);
    mlx_array_free(got);
    mlx_io_gguf_free(gguf);
}

static void test_truncated_files_are_errors(void **state) {
    (void)state;
    char *bytes;
    size_t length;
    mlx_io_gguf out = mlx_io_gguf_new();
    read_bytes(GOLDEN "/engine/blocks.gguf", &bytes, &length);
    for (size_t keep = 0; keep < length - 32; keep += keep < 3000 ? 7 : 101) {
        const char *path = write_scratch("cut.gguf", bytes, keep);
        assert_int_equal(mlx_load_gguf(&out, path, cpu), 1);
        assert_non_null(strstr(last_error, "cut.gguf"));
    }
    assert_fails(mlx_load_gguf(&out, write_scratch("cut.gguf", "GGUX", 4), cpu), "not a GGUF");
    assert_fails(mlx_load_gguf(&out, write_scratch("cut.gguf", "GGUF\1\0\0\0", 8), cpu),
                 "version 1");
    free(bytes);
    mlx_io_gguf_free(out);
}

static void test_two_tensors_of_one_name_are_an_error(void **state) {
    (void)state;
    char *bytes;
    size_t length;
    mlx_io_gguf out = mlx_io_gguf_new();
    read_bytes(GOLDEN "/engine/blocks.gguf", &bytes, &length);
    char *name = memmem(bytes, length, "Q4_1.weight", 11);
    assert_non_null(name);
    name[3] = '0';
    const char *path = write_scratch("twice.gguf", bytes, length);
    assert_fails(mlx_load_gguf(&out, path, cpu), "two tensors are named Q4_0.weight");
    free(bytes);
    mlx_io_gguf_free(out);
}

static void test_flipped_bytes_never_crash(void **state) {
    (void)state;
    char *bytes;
    size_t length;
    read_bytes(GOLDEN "/engine/blocks.gguf", &bytes, &length);
    for (size_t at = 0; at < BASE_MIN(length, 1800u); at += 3)
        for (int bit = 0; bit < 8; bit += 7) {
            mlx_io_gguf out = mlx_io_gguf_new();
            bytes[at] = (char)(bytes[at] ^ 1 << bit);
            const int status = mlx_load_gguf(&out, write_scratch("flip.gguf", bytes, length), cpu);
            assert_true(status == 0 || status == 1);
            bytes[at] = (char)(bytes[at] ^ 1 << bit);
            mlx_io_gguf_free(out);
        }
    free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_q4_and_q8_keep_their_exact_values),
        cmocka_unit_test(test_other_blocks_become_float16),
        cmocka_unit_test(test_plain_types_are_kept_but_bfloat16),
        cmocka_unit_test(test_metadata_of_every_kind),
        cmocka_unit_test(test_set_inserts_only_what_is_absent),
        cmocka_unit_test(test_truncated_files_are_errors),
        cmocka_unit_test(test_two_tensors_of_one_name_are_an_error),
        cmocka_unit_test(test_flipped_bytes_never_crash),
    };
    return cmocka_run_group_tests(tests, io_setup, io_teardown);
}
