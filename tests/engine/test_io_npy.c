/* npy: round trips, files of NumPy and MLX, hostile files. */
#include "engine/core/engine.h"
#include "engine/io_check.h"

static void test_every_type_comes_back(void **state) {
    (void)state;
    uint8_t bytes[6 * 8];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 37);
    for (int dtype = 0; dtype < 14; dtype++) {
        if (dtype == MLX_BOOL) memset(bytes, 1, 6);
        mlx_array a = mlx_array_new_data(bytes, INTS(2, 1, 3), 3, (mlx_dtype)dtype);
        assert_int_equal(mlx_save(scratch_path("type"), a), 0);
        mlx_array b = mlx_array_new();
        assert_int_equal(mlx_load(&b, scratch_path("type.npy"), cpu), 0);
        assert_int_equal(mlx_array_dtype(b), dtype);
        assert_int_equal(mlx_array_ndim(b), 3);
        assert_memory_equal(mlx_array_data_uint8(b), bytes, mlx_array_nbytes(a));
        mlx_array_free(a);
        mlx_array_free(b);
    }
}

static void test_scalars_and_vectors(void **state) {
    (void)state;
    mlx_array a = mlx_array_new_int(5), b = mlx_array_new();
    const char *path = scratch_path("small.npy");
    assert_int_equal(mlx_save(path, a), 0);
    assert_int_equal(mlx_load(&b, path, cpu), 0);
    assert_text(b, "array(5, dtype=int32)");
    mlx_array_set_data(&a, "\1\2", INTS(2), 1, MLX_UINT8);
    assert_int_equal(mlx_save(path, a), 0);
    char *bytes;
    size_t length;
    read_bytes(path, &bytes, &length);
    assert_int_equal(length, 130);
    assert_memory_equal(bytes + 10, "{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }",
                        57);
    free(bytes);
    mlx_array_free(a);
    mlx_array_free(b);
}

static void test_column_major_and_big_endian_files(void **state) {
    (void)state;
    mlx_array a = mlx_array_new();
    assert_int_equal(mlx_load(&a, GOLDEN "/engine/columns.npy", cpu), 0);
    assert_text(a, "array([[0, 2, 4],\n       [1, 3, 5]], dtype=float32)");
    assert_int_equal(mlx_save(scratch_path("columns"), a), 0);
    assert_int_equal(mlx_load(&a, scratch_path("columns.npy"), cpu), 0);
    bool column = false;
    _mlx_array_is_col_contiguous(&column, a);
    assert_true(column);
    assert_text(a, "array([[0, 2, 4],\n       [1, 3, 5]], dtype=float32)");
    assert_int_equal(mlx_load(&a, GOLDEN "/engine/big_endian.npy", cpu), 0);
    assert_text(a, "array([[0, 1, 2],\n       [3, 4, 5]], dtype=int32)");
    mlx_array_free(a);
}

static void test_strided_arrays_are_saved_row_major(void **state) {
    (void)state;
    const int16_t values[6] = {0, 1, 2, 3, 4, 5};
    Node *whole = node_from_data(values, MLX_INT16, INTS(6), 1);
    Node *odd = node_from_data(NULL, MLX_INT16, INTS(3), 1);
    buffer_release(odd->buffer);
    node_share(odd, whole, (int64_t[]){-2}, 5);
    mlx_array a = mlx_array_new();
    op_finish(&a, odd);
    node_release(whole);
    assert_int_equal(mlx_save(scratch_path("odd.npy"), a), 0);
    assert_int_equal(mlx_load(&a, scratch_path("odd.npy"), cpu), 0);
    assert_text(a, "array([5, 3, 1], dtype=int16)");
    mlx_array_free(a);
}

static void test_empty_arrays_are_read_but_not_saved(void **state) {
    (void)state;
    static const char dict[] = "{'descr': '|u1', 'fortran_order': False, 'shape': (0, 3), }\n";
    uint8_t bytes[128] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, sizeof dict - 1};
    memcpy(bytes + 10, dict, sizeof dict - 1);
    mlx_array a = mlx_array_new();
    const char *path = write_scratch("empty.npy", bytes, 10 + sizeof dict - 1);
    assert_int_equal(mlx_load(&a, path, cpu), 0);
    assert_int_equal(mlx_array_dim(a, 1), 3);
    assert_int_equal(mlx_array_size(a), 0);
    assert_fails(mlx_save(scratch_path("empty"), a), "[save] cannot serialize an empty array");
    mlx_array_free(a);
}

static const char *npy_with(const char *dict, size_t data) {
    uint8_t bytes[1024] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0};
    const size_t length = strlen(dict);
    bytes[8] = (uint8_t)length;
    bytes[9] = (uint8_t)(length >> 8);
    memcpy(bytes + 10, dict, length);
    return write_scratch("bad.npy", bytes, 10 + length + data);
}

static void test_malformed_headers_are_errors(void **state) {
    (void)state;
    static const struct {
        const char *dict, *says;
    } cases[] = {
        {"", "fortran_order"},
        {"{'descr': '<f4', 'fortran_order': Maybe, 'shape': (1,)}", "fortran_order"},
        {"{'descr': '<q9', 'fortran_order': False, 'shape': (1,)}", "descr"},
        {"{'descr': '<", "fortran_order"},
        {"{'fortran_order': False, 'descr': '<", "descr"},
        {"{'fortran_order': False, 'descr': [('a', '<f4')], 'shape': (1,)}", "descr"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': 3}", "shape"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3", "shape"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}", "shape"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999,)}", "shape"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (5,)}", "do not hold shape (5)"},
        {"{'descr': '<f4', 'fortran_order': False, "
         "'shape': (2147483647,2147483647,2147483647)}",
         "do not hold"},
        {"{'descr': '<f4', 'fortran_order': False, "
         "'shape': (1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1)}",
         "shape"},
    };
    mlx_array out = mlx_array_new();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_fails(mlx_load(&out, npy_with(cases[i].dict, 16), cpu), cases[i].says);
    assert_fails(mlx_load(&out, write_scratch("bad.npy", "\x93NUMPY\1", 7), cpu), "not an npy");
    assert_fails(mlx_load(&out, write_scratch("bad.npy", "\x93NUMPY\4\0\0\0\0\0", 12), cpu),
                 "version 4");
    assert_fails(mlx_load(&out, write_scratch("bad.npy", "\x93NUMPY\1\0\xff\xff", 10), cpu),
                 "past the end");
    assert_fails(mlx_load(&out, write_scratch("bad.npy", "\x93NUMPY\2\0\xff\xff", 10), cpu), "npy");
    assert_fails(mlx_load(&out, scratch_path("none"), cpu), "none");
    assert_null(out.ctx);
    assert_fails(mlx_save(scratch_path("x"), mlx_array_new()), "mlx_array");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_type_comes_back),
        cmocka_unit_test(test_scalars_and_vectors),
        cmocka_unit_test(test_empty_arrays_are_read_but_not_saved),
        cmocka_unit_test(test_column_major_and_big_endian_files),
        cmocka_unit_test(test_strided_arrays_are_saved_row_major),
        cmocka_unit_test(test_malformed_headers_are_errors),
    };
    return cmocka_run_group_tests(tests, io_setup, io_teardown);
}
