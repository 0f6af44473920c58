/* Saving GGUF: bytes of the format, round trips of every type, what is refused. */
#include "engine/io_check.h"

static mlx_io_gguf reload(const char *name) {
    mlx_io_gguf gguf = mlx_io_gguf_new();
    assert_int_equal(mlx_load_gguf(&gguf, scratch_path(name), cpu), 0);
    return gguf;
}

static void set_array(mlx_io_gguf gguf, const char *key, mlx_array array) {
    assert_int_equal(mlx_io_gguf_set_array(gguf, key, array), 0);
    mlx_array_free(array);
}

static void set_metadata(mlx_io_gguf gguf, const char *key, mlx_array array) {
    assert_int_equal(mlx_io_gguf_set_metadata_array(gguf, key, array), 0);
    mlx_array_free(array);
}

static void assert_array(mlx_io_gguf gguf, const char *key, const char *expected) {
    mlx_array array = mlx_array_new();
    assert_int_equal(mlx_io_gguf_get_array(&array, gguf, key), 0);
    assert_text(array, expected);
    mlx_array_free(array);
}

static void assert_metadata(mlx_io_gguf gguf, const char *key, const char *expected) {
    mlx_array array = mlx_array_new();
    assert_int_equal(mlx_io_gguf_get_metadata_array(&array, gguf, key), 0);
    assert_text(array, expected);
    mlx_array_free(array);
}

static void test_the_bytes_of_a_small_file(void **state) {
    (void)state;
    static const uint8_t expected[] = {
        'G', 'G', 'U', 'F', 3,  0, 0, 0,                          /* version */
        2,   0,   0,   0,   0,  0, 0, 0,                          /* tensors */
        1,   0,   0,   0,   0,  0, 0, 0,                          /* metadata */
        1,   0,   0,   0,   0,  0, 0, 0, 'k', 8,   0, 0, 0,       /* a string */
        2,   0,   0,   0,   0,  0, 0, 0, 'h', 'i',                /* */
        1,   0,   0,   0,   0,  0, 0, 0, 'a', 2,   0, 0, 0,       /* a: 2 axes, innermost first */
        3,   0,   0,   0,   0,  0, 0, 0, 1,   0,   0, 0, 0, 0, 0, /* */
        0,   24,  0,   0,   0,  0, 0, 0, 0,   0,   0, 0, 0,       /* int8 at 0 */
        1,   0,   0,   0,   0,  0, 0, 0, 'b', 0,   0, 0, 0,       /* b: no axes */
        26,  0,   0,   0,   32, 0, 0, 0, 0,   0,   0, 0,          /* int32 at 32 */
    };
    mlx_io_gguf gguf = mlx_io_gguf_new();
    set_array(gguf, "a", mlx_array_new_data("\1\2\3", INTS(1, 3), 2, MLX_INT8));
    set_array(gguf, "b", mlx_array_new_int(258));
    assert_int_equal(mlx_io_gguf_set_metadata_string(gguf, "k", "hi"), 0);
    assert_int_equal(mlx_save_gguf(scratch_path("bytes"), gguf), 0);
    char *bytes;
    size_t length;
    read_bytes(scratch_path("bytes.gguf"), &bytes, &length);
    const size_t start = (sizeof expected + 31) / 32 * 32;
    assert_int_equal(length, start + 64);
    assert_memory_equal(bytes, expected, sizeof expected);
    assert_memory_equal(bytes + start, "\1\2\3\0", 4);
    assert_memory_equal(bytes + start + 32, "\2\1\0\0", 4);
    free(bytes);
    mlx_io_gguf_free(gguf);
}

static void test_every_type_of_array_comes_back(void **state) {
    (void)state;
    static const uint16_t halves[3] = {0x3c00, 0xc000, 0x4248};
    mlx_io_gguf gguf = mlx_io_gguf_new();
    set_array(gguf, "f32", floats((float[]){1, -2, 3.5f}, INTS(3, 1), 2));
    set_array(gguf, "f16", mlx_array_new_data(halves, INTS(3), 1, MLX_FLOAT16));
    set_array(gguf, "i8", mlx_array_new_data("\1\2\377", INTS(3), 1, MLX_INT8));
    set_array(gguf, "i16", mlx_array_new_data((int16_t[]){-300, 5}, INTS(2), 1, MLX_INT16));
    set_array(gguf, "i32", mlx_array_new_int(-70000));
    assert_int_equal(mlx_save_gguf(scratch_path("types.gguf"), gguf), 0);
    mlx_io_gguf_free(gguf);
    gguf = reload("types.gguf");
    assert_array(gguf, "f32", "array([[1],\n       [-2],\n       [3.5]], dtype=float32)");
    assert_array(gguf, "f16", "array([1, -2, 3.14062], dtype=float16)");
    assert_array(gguf, "i8", "array([1, 2, -1], dtype=int8)");
    assert_array(gguf, "i16", "array([-300, 5], dtype=int16)");
    assert_array(gguf, "i32", "array(-70000, dtype=int32)");
    mlx_io_gguf_free(gguf);
}

static void test_lazy_and_transposed_arrays_are_saved_row_major(void **state) {
    (void)state;
    mlx_io_gguf gguf = mlx_io_gguf_new();
    mlx_array a = floats((float[]){1, 2, 3, 4, 5, 6}, INTS(2, 3), 2);
    mlx_transpose(&a, a, cpu);
    set_array(gguf, "t", a);
    assert_int_equal(mlx_save_gguf(scratch_path("rows.gguf"), gguf), 0);
    mlx_io_gguf_free(gguf);
    gguf = reload("rows.gguf");
    assert_array(gguf, "t", "array([[1, 4],\n       [2, 5],\n       [3, 6]], dtype=float32)");
    mlx_io_gguf_free(gguf);
}

static void test_metadata_of_every_kind_comes_back(void **state) {
    (void)state;
    mlx_io_gguf gguf = mlx_io_gguf_new();
    const char *words[] = {"a", "", "h\xc3\xa9"};
    mlx_vector_string list = mlx_vector_string_new_data(words, 3);
    assert_int_equal(mlx_io_gguf_set_metadata_vector_string(gguf, "list", list), 0);
    assert_int_equal(mlx_io_gguf_set_metadata_string(gguf, "text", "x y"), 0);
    mlx_vector_string_free(list);
    static const struct {
        mlx_dtype dtype;
        const char *key, *text, *list;
    } cases[] = {
        {MLX_BOOL, "bool", "array(true, dtype=bool)", "array([true, false], dtype=bool)"},
        {MLX_UINT8, "u8", "array(1, dtype=uint8)", "array([1, 0], dtype=uint8)"},
        {MLX_INT8, "i8", "array(1, dtype=int8)", "array([1, 0], dtype=int8)"},
        {MLX_UINT16, "u16", "array(1, dtype=uint16)", "array([1, 0], dtype=uint16)"},
        {MLX_INT16, "i16", "array(1, dtype=int16)", "array([1, 0], dtype=int16)"},
        {MLX_UINT32, "u32", "array(1, dtype=uint32)", "array([1, 0], dtype=uint32)"},
        {MLX_INT32, "i32", "array(1, dtype=int32)", "array([1, 0], dtype=int32)"},
        {MLX_UINT64, "u64", "array(1, dtype=uint64)", "array([1, 0], dtype=uint64)"},
        {MLX_INT64, "i64", "array(1, dtype=int64)", "array([1, 0], dtype=int64)"},
        {MLX_FLOAT32, "f32", "array(1, dtype=float32)", "array([1, 0], dtype=float32)"},
    };
    mlx_array pair = mlx_array_new_data((int[]){1, 0}, INTS(2), 1, MLX_INT32);
    mlx_array one = mlx_array_new_int(1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char key[16];
        mlx_array cast = mlx_array_new();
        mlx_astype(&cast, one, cases[i].dtype, cpu);
        set_metadata(gguf, cases[i].key, cast);
        cast = mlx_array_new();
        mlx_astype(&cast, pair, cases[i].dtype, cpu);
        snprintf(key, sizeof key, "%s.list", cases[i].key);
        set_metadata(gguf, key, cast);
    }
    assert_int_equal(mlx_save_gguf(scratch_path("meta.gguf"), gguf), 0);
    mlx_io_gguf_free(gguf);
    gguf = reload("meta.gguf");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char key[16];
        snprintf(key, sizeof key, "%s.list", cases[i].key);
        assert_metadata(gguf, cases[i].key, cases[i].text);
        assert_metadata(gguf, key, cases[i].list);
    }
    mlx_string text = mlx_string_new();
    assert_int_equal(mlx_io_gguf_get_metadata_string(&text, gguf, "text"), 0);
    assert_string_equal(mlx_string_data(text), "x y");
    list = mlx_vector_string_new();
    assert_int_equal(mlx_io_gguf_get_metadata_vector_string(&list, gguf, "list"), 0);
    assert_int_equal(mlx_vector_string_size(list), 3);
    char *word;
    mlx_vector_string_get(&word, list, 2);
    assert_string_equal(word, words[2]);
    mlx_vector_string_free(list);
    mlx_string_free(text);
    mlx_array_free(pair);
    mlx_array_free(one);
    mlx_io_gguf_free(gguf);
}

static void test_general_alignment_is_obeyed(void **state) {
    (void)state;
    mlx_io_gguf gguf = mlx_io_gguf_new();
    set_metadata(gguf, "general.alignment",
                 mlx_array_new_data((uint32_t[]){256}, NULL, 0, MLX_UINT32));
    set_array(gguf, "a", mlx_array_new_int(1));
    set_array(gguf, "b", mlx_array_new_int(2));
    assert_int_equal(mlx_save_gguf(scratch_path("wide.gguf"), gguf), 0);
    mlx_io_gguf_free(gguf);
    char *bytes;
    size_t length;
    read_bytes(scratch_path("wide.gguf"), &bytes, &length);
    assert_int_equal(length, 3 * 256);
    free(bytes);
    gguf = reload("wide.gguf");
    assert_array(gguf, "b", "array(2, dtype=int32)");
    mlx_io_gguf_free(gguf);
    gguf = mlx_io_gguf_new();
    set_metadata(gguf, "general.alignment", mlx_array_new_int(32));
    assert_fails(mlx_save_gguf(scratch_path("wide.gguf"), gguf), "general.alignment");
    mlx_io_gguf_free(gguf);
}

static void refuse(const char *says, bool metadata, mlx_array array) {
    mlx_io_gguf gguf = mlx_io_gguf_new();
    (metadata ? set_metadata : set_array)(gguf, "x", array);
    assert_fails(mlx_save_gguf(scratch_path("refused.gguf"), gguf), says);
    assert_false(base_is_file(scratch_path("refused.gguf")));
    mlx_io_gguf_free(gguf);
}

static void test_what_gguf_cannot_hold_is_an_error_and_leaves_no_file(void **state) {
    (void)state;
    refuse("[save_gguf]", false, mlx_array_new_bool(true));
    refuse("dtype bfloat16 is not supported", false,
           mlx_array_new_data("\0\0", NULL, 0, MLX_BFLOAT16));
    refuse("dtype int64", false, mlx_array_new_data("\0\0\0\0\0\0\0", NULL, 0, MLX_INT64));
    refuse("9 axes", false, mlx_array_new_data("", INTS(1, 1, 1, 1, 1, 1, 1, 1, 1), 9, MLX_INT8));
    refuse("more than one dimension", true, mlx_array_new_data("\1\2", INTS(1, 2), 2, MLX_INT8));
    refuse("empty", true, mlx_array_new_data("", INTS(0), 1, MLX_INT8));
    refuse("array type float64", true, mlx_array_new_double(1));
    refuse("array type float16", true, mlx_array_new_data("\0\0", NULL, 0, MLX_FLOAT16));
    assert_fails(mlx_save_gguf(scratch_path("x"), (mlx_io_gguf){NULL}), "mlx_io_gguf");
    mlx_io_gguf empty = mlx_io_gguf_new();
    assert_fails(mlx_save_gguf("/nonexistent/folder/x.gguf", empty), "/nonexistent");
    assert_int_equal(mlx_save_gguf(scratch_path("empty.gguf"), empty), 0);
    mlx_io_gguf_free(empty);
    mlx_io_gguf_free(reload("empty.gguf"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_bytes_of_a_small_file),
        cmocka_unit_test(test_every_type_of_array_comes_back),
        cmocka_unit_test(test_lazy_and_transposed_arrays_are_saved_row_major),
        cmocka_unit_test(test_metadata_of_every_kind_comes_back),
        cmocka_unit_test(test_general_alignment_is_obeyed),
        cmocka_unit_test(test_what_gguf_cannot_hold_is_an_error_and_leaves_no_file),
    };
    return cmocka_run_group_tests(tests, io_setup, io_teardown);
}
