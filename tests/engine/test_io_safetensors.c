/* safetensors: round trips, files of the official library, hostile files. */
#include "engine/io_check.h"

typedef struct Loaded {
    mlx_map_string_to_array tensors;
    mlx_map_string_to_string metadata;
} Loaded;

static Loaded load(const char *path) {
    Loaded loaded = {mlx_map_string_to_array_new(), mlx_map_string_to_string_new()};
    assert_int_equal(mlx_load_safetensors(&loaded.tensors, &loaded.metadata, path, cpu), 0);
    return loaded;
}

static void unload(Loaded loaded) {
    mlx_map_string_to_array_free(loaded.tensors);
    mlx_map_string_to_string_free(loaded.metadata);
}

static mlx_array tensor(Loaded loaded, const char *name) {
    mlx_array array = mlx_array_new();
    assert_int_equal(mlx_map_string_to_array_get(&array, loaded.tensors, name), 0);
    return array;
}

static void assert_tensor_text(Loaded loaded, const char *name, const char *expected) {
    mlx_array array = tensor(loaded, name);
    assert_text(array, expected);
    mlx_array_free(array);
}

static void check_all_types(Loaded loaded) {
    assert_tensor_text(loaded, "F32", "array([[0, 1, 2],\n       [3, 4, 5]], dtype=float32)");
    assert_tensor_text(loaded, "F16", "array([[0, 1, 2],\n       [3, 4, 5]], dtype=float16)");
    assert_tensor_text(loaded, "BF16", "array([[0, 1, 2],\n       [3, 4, 5]], dtype=bfloat16)");
    assert_tensor_text(loaded, "I8", "array([[0, 1, 2],\n       [3, 4, 5]], dtype=int8)");
    assert_tensor_text(loaded, "I16", "array([[0, 1, 2],\n       [3, 4, 5]], dtype=int16)");
    assert_tensor_text(loaded, "I32", "array([[0, 1, 2],\n       [3, 4, 5]], dtype=int32)");
    assert_tensor_text(loaded, "I64", "array([[0, 1, 2],\n       [3, 4, 5]], dtype=int64)");
    assert_tensor_text(loaded, "U8", "array([[0, 1, 2],\n       [3, 4, 5]], dtype=uint8)");
    assert_tensor_text(loaded, "U16", "array([[0, 1, 2],\n       [3, 4, 5]], dtype=uint16)");
    assert_tensor_text(loaded, "U32", "array([[0, 1, 2],\n       [3, 4, 5]], dtype=uint32)");
    assert_tensor_text(loaded, "U64", "array([[0, 1, 2],\n       [3, 4, 5]], dtype=uint64)");
    assert_tensor_text(loaded, "BOOL",
                       "array([[false, true, true],\n       [true, true, true]], dtype=bool)");
    assert_tensor_text(loaded, "C64",
                       "array([[0+0j, 1+0j, 2+0j],\n       [3+0j, 4+0j, 5+0j]], dtype=complex64)");
    const char *format;
    assert_int_equal(mlx_map_string_to_string_get(&format, loaded.metadata, "format"), 0);
    assert_string_equal(format, "mlx");
}

static void test_reads_and_rewrites_every_type_of_the_official_library(void **state) {
    (void)state;
    Loaded official = load(GOLDEN "/engine/types.safetensors");
    check_all_types(official);
    assert_int_equal(
        mlx_save_safetensors(scratch_path("types"), official.tensors, official.metadata), 0);
    unload(official);
    Loaded own = load(scratch_path("types.safetensors"));
    check_all_types(own);
    mlx_array f32 = tensor(own, "F32");
    assert_int_equal((uintptr_t)mlx_array_data_float32(f32) % 4, 0);
    unload(own);
    assert_text(f32, "array([[0, 1, 2],\n       [3, 4, 5]], dtype=float32)"); /* outlives the map */
    mlx_array_free(f32);
}

static void test_loading_into_a_handle_is_seen_by_its_copies(void **state) {
    (void)state;
    Loaded own = load(GOLDEN "/engine/types.safetensors"), copy = own;
    assert_int_equal(
        mlx_load_safetensors(&own.tensors, &own.metadata, GOLDEN "/engine/blocks.safetensors", cpu),
        0);
    mlx_array_free(tensor(copy, "Q4_K"));
    mlx_array gone = mlx_array_new();
    assert_int_equal(mlx_map_string_to_array_get(&gone, copy.tensors, "F32"), 2);
    unload(copy);
}

static void test_bytes_do_not_depend_on_the_order_of_insertion(void **state) {
    (void)state;
    static const char *const names[] = {"b", "a", "c.weight", "\"q\"\n\xc3\xa9"};
    char *files[2];
    size_t lengths[2];
    for (int round = 0; round < 2; round++) {
        Loaded own = {mlx_map_string_to_array_new(), mlx_map_string_to_string_new()};
        for (int i = 0; i < 4; i++) {
            const int k = round ? 3 - i : i;
            mlx_array value = k % 2 ? mlx_array_new_bool(true) : mlx_array_new_int(k);
            mlx_map_string_to_array_insert(own.tensors, names[k], value);
            mlx_map_string_to_string_insert(own.metadata, names[k], "v");
            mlx_array_free(value);
        }
        const char *path = scratch_path("order.safetensors");
        assert_int_equal(mlx_save_safetensors(path, own.tensors, own.metadata), 0);
        read_bytes(path, &files[round], &lengths[round]);
        unload(own);
    }
    assert_int_equal(lengths[0], lengths[1]);
    assert_memory_equal(files[0], files[1], lengths[0]);
    free(files[0]);
    free(files[1]);
    Loaded again = load(scratch_path("order.safetensors"));
    assert_tensor_text(again, "b", "array(0, dtype=int32)");
    assert_tensor_text(again, names[3], "array(true, dtype=bool)");
    unload(again);
}

static void test_saving_over_a_mapped_file_keeps_the_arrays(void **state) {
    (void)state;
    const char *path = scratch_path("self.safetensors");
    Loaded own = {mlx_map_string_to_array_new(), mlx_map_string_to_string_new()};
    const float values[3] = {1, 2, 3};
    mlx_array a = floats(values, INTS(3), 1);
    mlx_map_string_to_array_insert(own.tensors, "a", a);
    mlx_array_free(a);
    assert_int_equal(mlx_save_safetensors(path, own.tensors, own.metadata), 0);
    unload(own);
    for (int i = 0; i < 3; i++) {
        Loaded mapped = load(path);
        assert_int_equal(mlx_save_safetensors(path, mapped.tensors, mapped.metadata), 0);
        assert_tensor_text(mapped, "a", "array([1, 2, 3], dtype=float32)");
        unload(mapped);
    }
}

/* A file with that header and `data` zero bytes behind it. */
static const char *file_with(const char *header, size_t data) {
    char bytes[4096] = {0};
    const size_t length = strlen(header);
    bytes[0] = (char)(length & 255);
    bytes[1] = (char)(length >> 8);
    memcpy(bytes + 8, header, length);
    return write_scratch("bad.safetensors", bytes, 8 + length + data);
}

static void test_unaligned_tensors_are_copied(void **state) {
    (void)state;
    const char *path = file_with("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                                 "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[1,9]},"
                                 "\"c\":{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[9,9]},"
                                 "\"__metadata__\":null}",
                                 9);
    Loaded own = load(path);
    mlx_array b = tensor(own, "b");
    assert_int_equal((uintptr_t)mlx_array_data_float32(b) % 4, 0);
    assert_text(b, "array([0, 0], dtype=float32)");
    mlx_array_free(b);
    assert_tensor_text(own, "c", "array([], dtype=float32)");
    unload(own);
}

static void test_malformed_headers_are_errors(void **state) {
    (void)state;
    static const struct {
        const char *header, *says;
    } cases[] = {
        {"[]", "JSON object"},
        {"{\"a\":", "header"},
        {"{\"a\":1}", "dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", "data_offsets"},
        {"{\"a\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,8]}}", "F64"},
        {"{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,8]}}", "dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", "hold shape (2)"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[8,24]}}", "tensor a ends"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,4]}}", "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", "dimension"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", "dimension"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999],\"data_offsets\":[0,4]}}", "dimension"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2147483647,2147483647,2147483647],"
         "\"data_offsets\":[0,4]}}",
         "hold shape"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"
         "\"data_offsets\":[0,1]}}",
         "shape"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[16],\"data_offsets\":[0,16]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[16],\"data_offsets\":[0,16]}}",
         "overlaps"},
        {"{\"__metadata__\":{\"a\":1}}", "__metadata__.a"},
        {"{\"__metadata__\":[]}", "__metadata__"},
    };
    Loaded out = {mlx_map_string_to_array_new(), mlx_map_string_to_string_new()};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = file_with(cases[i].header, 16);
        assert_fails(mlx_load_safetensors(&out.tensors, &out.metadata, path, cpu), cases[i].says);
        assert_non_null(strstr(last_error, "bad.safetensors"));
    }
    unload(out);
}

static void test_truncated_files_are_errors(void **state) {
    (void)state;
    char *bytes;
    size_t length;
    read_bytes(GOLDEN "/engine/types.safetensors", &bytes, &length);
    Loaded out = {mlx_map_string_to_array_new(), mlx_map_string_to_string_new()};
    for (size_t keep = 0; keep < length; keep++) {
        const char *path = write_scratch("cut.safetensors", bytes, keep);
        assert_int_equal(mlx_load_safetensors(&out.tensors, &out.metadata, path, cpu), 1);
    }
    memset(bytes, 0xff, 8);
    const char *path = write_scratch("cut.safetensors", bytes, length);
    assert_fails(mlx_load_safetensors(&out.tensors, &out.metadata, path, cpu), "truncated");
    memset(bytes, 0, 8);
    path = write_scratch("cut.safetensors", bytes, length);
    assert_fails(mlx_load_safetensors(&out.tensors, &out.metadata, path, cpu), "not a safetensors");
    free(bytes);
    assert_fails(mlx_load_safetensors(&out.tensors, &out.metadata, scratch_path("none"), cpu),
                 "none");
    assert_fails(mlx_load_safetensors(&out.tensors, &out.metadata, "", mlx_stream_new()),
                 "mlx_stream");
    unload(out);
}

static void test_what_cannot_be_saved_leaves_no_file(void **state) {
    (void)state;
    Loaded own = {mlx_map_string_to_array_new(), mlx_map_string_to_string_new()};
    mlx_array a = mlx_array_new_double(1);
    mlx_map_string_to_array_insert(own.tensors, "wide", a);
    const char *path = scratch_path("wide.safetensors");
    assert_fails(mlx_save_safetensors(path, own.tensors, own.metadata), "float64");
    assert_false(base_is_file(path));
    mlx_array_set_float(&a, 1);
    mlx_map_string_to_array_insert(own.tensors, "wide", a);
    assert_fails(mlx_save_safetensors("/nonexistent/x", own.tensors, own.metadata), "nonexistent");
    mlx_array_set_data(&a, "", INTS(2, 0), 2, MLX_INT8);
    mlx_map_string_to_array_insert(own.tensors, "wide", a);
    assert_fails(mlx_save_safetensors(path, own.tensors, own.metadata),
                 "Cannot serialize an empty array ('wide')");
    mlx_array_set_float(&a, 1);
    mlx_map_string_to_array_insert(own.tensors, "wide", a);
    mlx_map_string_to_array_insert(own.tensors, "\xff", a);
    assert_fails(mlx_save_safetensors(path, own.tensors, own.metadata), "UTF-8");
    assert_false(base_is_file(path));
    mlx_array_free(a);
    unload(own);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_and_rewrites_every_type_of_the_official_library),
        cmocka_unit_test(test_loading_into_a_handle_is_seen_by_its_copies),
        cmocka_unit_test(test_bytes_do_not_depend_on_the_order_of_insertion),
        cmocka_unit_test(test_saving_over_a_mapped_file_keeps_the_arrays),
        cmocka_unit_test(test_unaligned_tensors_are_copied),
        cmocka_unit_test(test_malformed_headers_are_errors),
        cmocka_unit_test(test_truncated_files_are_errors),
        cmocka_unit_test(test_what_cannot_be_saved_leaves_no_file),
    };
    return cmocka_run_group_tests(tests, io_setup, io_teardown);
}
