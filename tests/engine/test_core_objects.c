/* Handles, strings, vectors, maps, closures, devices, streams, errors. */
#include "engine/core_check.h"

static void test_null_handles_are_made_and_freed(void **state) {
    (void)state;
    assert_null(mlx_array_new().ctx);
    assert_null(mlx_string_new().ctx);
    assert_null(mlx_stream_new().ctx);
    assert_null(mlx_device_new().ctx);
    assert_null(mlx_closure_new().ctx);
    assert_int_equal(mlx_array_free(mlx_array_new()), 0);
    assert_int_equal(mlx_string_free(mlx_string_new()), 0);
    assert_int_equal(mlx_closure_free(mlx_closure_new()), 0);
    assert_int_equal(mlx_array_free(mlx_array_empty), 0);
}

static void test_null_inputs_are_reported_and_leave_the_output_alone(void **state) {
    (void)state;
    mlx_array kept = mlx_array_new_int(7), out = mlx_array_new();
    void *before = kept.ctx;
    assert_fails(mlx_array_set(&kept, mlx_array_new()), "expected a non-empty mlx_array");
    assert_non_null(strstr(last_error, " at engine/core/array.c:"));
    assert_ptr_equal(kept.ctx, before);
    int value;
    assert_int_equal(mlx_array_item_int32(&value, kept), 0);
    assert_int_equal(value, 7);
    assert_fails(mlx_array_set(&out, mlx_array_new()), "mlx_array");
    assert_null(out.ctx);
    assert_fails(mlx_synchronize(mlx_stream_new()), "expected a non-empty mlx_stream");
    assert_int_equal(mlx_array_dtype(mlx_array_new()), MLX_BOOL);
    assert_int_equal(mlx_array_size(mlx_array_new()), 0);
    assert_null(mlx_array_shape(mlx_array_new()));
    mlx_array_free(kept);
}

static void test_assignment_is_seen_by_copies_of_the_handle(void **state) {
    (void)state;
    mlx_array a = mlx_array_new_int(1), copy = a;
    mlx_array b = mlx_array_new_int(2);
    assert_int_equal(mlx_array_set(&a, b), 0);
    mlx_array_free(b);
    int value;
    mlx_array_item_int32(&value, copy);
    assert_int_equal(value, 2);
    assert_int_equal(mlx_array_set(&a, a), 0);
    assert_int_equal(mlx_array_set_float(&a, 2.5f), 0);
    float real;
    mlx_array_item_float32(&real, copy);
    assert_float_equal(real, 2.5f, 0);
    mlx_array_free(a);
}

static void test_constructors_store_type_shape_and_values(void **state) {
    (void)state;
    const int16_t values[6] = {1, -2, 3, -4, 5, -6};
    mlx_array a = mlx_array_new_data(values, INTS(2, 3), 2, MLX_INT16);
    assert_int_equal(mlx_array_ndim(a), 2);
    assert_int_equal(mlx_array_size(a), 6);
    assert_int_equal(mlx_array_nbytes(a), 12);
    assert_int_equal(mlx_array_itemsize(a), 2);
    assert_int_equal(mlx_array_dtype(a), MLX_INT16);
    assert_int_equal(mlx_array_dim(a, -1), 3);
    assert_int_equal(mlx_array_shape(a)[0], 2);
    assert_int_equal(mlx_array_strides(a)[0], 3);
    assert_memory_equal(mlx_array_data_int16(a), values, sizeof values);
    last_error[0] = 0;
    mlx_array_dim(a, 2);
    assert_non_null(strstr(last_error, "Axis 2 is out of bounds for array with 2 dimensions"));
    int16_t item;
    assert_fails(mlx_array_item_int16(&item, a), "size 1");
    mlx_array_free(a);

    mlx_array scalars[] = {mlx_array_new_bool(true),    mlx_array_new_int(3),
                           mlx_array_new_float32(1.5f), mlx_array_new_float(1.5f),
                           mlx_array_new_float64(2.5),  mlx_array_new_double(2.5),
                           mlx_array_new_complex(1, -2)};
    const mlx_dtype types[] = {MLX_BOOL,    MLX_INT32,   MLX_FLOAT32,  MLX_FLOAT32,
                               MLX_FLOAT64, MLX_FLOAT64, MLX_COMPLEX64};
    for (int i = 0; i < 7; i++) {
        assert_int_equal(mlx_array_dtype(scalars[i]), types[i]);
        assert_int_equal(mlx_array_ndim(scalars[i]), 0);
        mlx_array_free(scalars[i]);
    }
}

static void test_bad_shapes_are_refused(void **state) {
    (void)state;
    int many[17];
    for (int i = 0; i < 17; i++) many[i] = 1;
    last_error[0] = 0;
    assert_null(mlx_array_new_data("", many, 17, MLX_UINT8).ctx);
    assert_non_null(strstr(last_error, "17 dimensions"));
    assert_null(mlx_array_new_data("", INTS(-1), 1, MLX_UINT8).ctx);
    assert_null(mlx_array_new_data("", INTS(INT32_MAX, INT32_MAX, INT32_MAX), 3, MLX_UINT8).ctx);
    assert_null(mlx_array_new_data("", INTS(1), 1, (mlx_dtype)99).ctx);
    mlx_array empty = mlx_array_new_data(NULL, INTS(3, 0), 2, MLX_FLOAT32);
    assert_text(empty, "array([[],\n       [],\n       []], dtype=float32)");
    mlx_array_free(empty);
}

static int destroyed;
static void count_destroyed(void *payload) {
    destroyed += *(int *)payload;
}

static void test_managed_data_is_released_once_at_the_end(void **state) {
    (void)state;
    int data[4] = {1, 2, 3, 4}, payload = 5;
    destroyed = 0;
    mlx_array a = mlx_array_new_data_managed(data, INTS(4), 1, MLX_INT32, count_destroyed);
    mlx_array b = mlx_array_new();
    mlx_array_set(&b, a);
    mlx_array_free(a);
    assert_int_equal(mlx_array_data_int32(b)[3], 4);
    mlx_array_free(b);
    assert_int_equal(destroyed, 1);
    a = mlx_array_new_data_managed_payload((char *)data + 1, INTS(3), 1, MLX_INT32, &payload,
                                           count_destroyed);
    assert_int_equal((uintptr_t)mlx_array_data_int32(a) % 4, 0);
    mlx_array_free(a);
    assert_int_equal(destroyed, 6);
}

static void test_text_form_is_that_of_mlx(void **state) {
    (void)state;
    const float values[4] = {0, 1.5f, -2, 1e10f};
    mlx_array a = floats(values, INTS(2, 2), 2);
    assert_text(a, "array([[0, 1.5],\n       [-2, 1e+10]], dtype=float32)");
    mlx_array_free(a);
    int8_t many[8] = {0, 1, 2, 3, 4, 5, 6, -7};
    a = mlx_array_new_data(many, INTS(8), 1, MLX_INT8);
    assert_text(a, "array([0, 1, 2, ..., 5, 6, -7], dtype=int8)");
    mlx_array_free(a);
    a = mlx_array_new_data(many, INTS(2, 2, 2), 3, MLX_UINT8);
    assert_text(a, "array([[[0, 1],\n        [2, 3]],\n       [[4, 5],\n        [6, 249]]], "
                   "dtype=uint8)");
    mlx_array_free(a);
    a = mlx_array_new_bool(true);
    assert_text(a, "array(true, dtype=bool)");
    mlx_array_free(a);
    a = mlx_array_new_complex(1, -2);
    assert_text(a, "array(1-2j, dtype=complex64)");
    mlx_array_free(a);
    const uint16_t halves[2] = {0x3E00, 0xC000};
    a = mlx_array_new_data(halves, INTS(2), 1, MLX_FLOAT16);
    assert_text(a, "array([1.5, -2], dtype=float16)");
    mlx_array_free(a);
}

static void test_item_reinterprets_and_never_reads_past_the_item(void **state) {
    (void)state;
    mlx_array a = mlx_array_new_float(2.5f);
    int32_t bits;
    int64_t wide;
    assert_int_equal(mlx_array_item_int32(&bits, a), 0);
    assert_int_equal(bits, 1075838976);
    assert_int_equal(mlx_array_item_int64(&wide, a), 0);
    assert_int_equal(wide, 1075838976);
    mlx_array_free(a);
}

static void test_strings_are_copied_and_assigned(void **state) {
    (void)state;
    mlx_string a = mlx_string_new_data("one"), b = mlx_string_new();
    assert_int_equal(mlx_string_set(&b, a), 0);
    mlx_string_free(a);
    assert_string_equal(mlx_string_data(b), "one");
    assert_int_equal(mlx_string_set(&b, b), 0);
    assert_string_equal(mlx_string_data(b), "one");
    mlx_string_free(b);
    last_error[0] = 0;
    assert_null(mlx_string_data(mlx_string_new()));
    assert_non_null(strstr(last_error, "mlx_string"));
}

static void test_vectors_share_and_copy(void **state) {
    (void)state;
    mlx_array one = mlx_array_new_int(1), two = mlx_array_new_int(2);
    mlx_vector_array v = mlx_vector_array_new_data((mlx_array[]){one, two}, 2);
    mlx_array_free(one);
    mlx_array_free(two);
    assert_int_equal(mlx_vector_array_size(v), 2);
    mlx_array got = mlx_array_new();
    assert_int_equal(mlx_vector_array_get(&got, v, 1), 0);
    int value;
    mlx_array_item_int32(&value, got);
    assert_int_equal(value, 2);
    assert_fails(mlx_vector_array_get(&got, v, 2), "out of range");
    assert_fails(mlx_vector_array_append_data(v, (mlx_array[]){got, mlx_array_empty}, 2),
                 "mlx_array");
    assert_int_equal(mlx_vector_array_size(v), 2);
    assert_int_equal(mlx_vector_array_append_value(v, got), 0);

    mlx_vector_vector_array vv = mlx_vector_vector_array_new_value(v);
    assert_int_equal(mlx_vector_array_set_value(&v, got), 0);
    mlx_vector_array inner = {NULL};
    assert_int_equal(mlx_vector_vector_array_get(&inner, vv, 0), 0);
    assert_int_equal(mlx_vector_array_size(inner), 3);
    assert_int_equal(mlx_vector_array_size(v), 1);
    mlx_vector_array_free(inner);
    mlx_vector_vector_array_free(vv);
    mlx_vector_array_free(v);
    mlx_array_free(got);

    mlx_vector_int ints = mlx_vector_int_new_data(INTS(4, -5), 2);
    mlx_vector_int_append_value(ints, 6);
    assert_int_equal(mlx_vector_int_get(&value, ints, 1), 0);
    assert_int_equal(value, -5);
    assert_int_equal(mlx_vector_int_size(ints), 3);
    mlx_vector_int_free(ints);

    mlx_vector_string texts = mlx_vector_string_new_data((const char *[]){"a", "bc"}, 2);
    char *text;
    assert_int_equal(mlx_vector_string_get(&text, texts, 1), 0);
    assert_string_equal(text, "bc");
    mlx_vector_string copy = {NULL};
    mlx_vector_string_set(&copy, texts);
    mlx_vector_string_free(texts);
    assert_int_equal(mlx_vector_string_size(copy), 2);
    mlx_vector_string_free(copy);
    assert_null(mlx_vector_array_new_value(mlx_array_empty).ctx);
}

static void test_maps_find_overwrite_and_iterate(void **state) {
    (void)state;
    mlx_map_string_to_array map = mlx_map_string_to_array_new();
    char key[16];
    for (int i = 0; i < 100; i++) {
        mlx_array value = mlx_array_new_int(i);
        snprintf(key, sizeof key, "key%d", i % 50);
        assert_int_equal(mlx_map_string_to_array_insert(map, key, value), 0);
        mlx_array_free(value);
    }
    mlx_array got = mlx_array_new();
    assert_int_equal(mlx_map_string_to_array_get(&got, map, "key7"), 0);
    int value;
    mlx_array_item_int32(&value, got);
    assert_int_equal(value, 57);
    assert_int_equal(mlx_map_string_to_array_get(&got, map, "none"), 2);

    mlx_map_string_to_array copy = {NULL};
    mlx_map_string_to_array_set(&copy, map);
    mlx_map_string_to_array_free(map);
    mlx_map_string_to_array_iterator it = mlx_map_string_to_array_iterator_new(copy);
    const char *name;
    int count = 0;
    while (mlx_map_string_to_array_iterator_next(&name, &got, it) == 0) count++;
    assert_int_equal(count, 50);
    assert_int_equal(mlx_map_string_to_array_iterator_next(&name, &got, it), 2);
    mlx_map_string_to_array_iterator_free(it);
    mlx_map_string_to_array_free(copy);
    mlx_array_free(got);

    mlx_map_string_to_string texts = mlx_map_string_to_string_new();
    mlx_map_string_to_string_insert(texts, "a", "1");
    mlx_map_string_to_string_insert(texts, "a", "2");
    const char *text;
    assert_int_equal(mlx_map_string_to_string_get(&text, texts, "a"), 0);
    assert_string_equal(text, "2");
    assert_int_equal(mlx_map_string_to_string_get(&text, texts, ""), 2);
    mlx_map_string_to_string_free(texts);
}

static int echo(mlx_vector_array *res, const mlx_vector_array input, void *payload) {
    *(int *)payload += 1;
    return mlx_vector_array_set(res, input);
}
static int refuse(mlx_vector_array *res, const mlx_vector_array input) {
    (void)res;
    (void)input;
    return 3;
}
static int same(mlx_array *res, const mlx_array input) {
    return mlx_array_set(res, input);
}

static void test_closures_apply_share_payload_and_report_failure(void **state) {
    (void)state;
    int calls = 1;
    destroyed = 0;
    mlx_closure first = mlx_closure_new_func_payload(echo, &calls, count_destroyed);
    mlx_closure compiled = mlx_closure_new();
    assert_int_equal(mlx_compile(&compiled, first, false), 0);
    mlx_closure_free(first);
    assert_int_equal(destroyed, 0);

    mlx_array five = mlx_array_new_int(5);
    mlx_vector_array input = mlx_vector_array_new_value(five), output = {NULL};
    assert_int_equal(mlx_closure_apply(&output, compiled, input), 0);
    assert_int_equal(mlx_closure_apply(&input, compiled, input), 0);
    assert_int_equal(calls, 2); /* recorded once */
    assert_int_equal(mlx_vector_array_size(output), 1);

    mlx_closure unary = mlx_closure_new_unary(same), bad = mlx_closure_new_func(refuse);
    assert_int_equal(mlx_closure_apply(&output, unary, input), 0);
    mlx_vector_array none = mlx_vector_array_new();
    assert_fails(mlx_closure_apply(&output, unary, none), "closure: expected unary input");
    mlx_vector_array_free(none);
    assert_fails(mlx_closure_apply(&output, bad, input), "mlx_closure returned a non-zero value");
    assert_int_equal(mlx_vector_array_size(output), 1);
    assert_fails(mlx_closure_apply(&output, mlx_closure_new(), input), "mlx_closure");
    mlx_closure_set(&compiled, unary);
    assert_int_equal(destroyed, 2);
    mlx_closure_free(compiled);
    mlx_closure_free(unary);
    mlx_closure_free(bad);
    mlx_vector_array_free(input);
    mlx_vector_array_free(output);
    mlx_array_free(five);
}

static void test_devices_and_streams_name_the_cpu(void **state) {
    (void)state;
    mlx_device cpu = mlx_device_new(), gpu = mlx_device_new_type(MLX_GPU, 0);
    assert_int_equal(mlx_get_default_device(&cpu), 0);
    mlx_device_type type;
    mlx_device_get_type(&type, cpu);
    assert_int_equal(type, MLX_CPU);
    assert_false(mlx_device_equal(cpu, gpu));
    bool available;
    mlx_device_is_available(&available, gpu);
    assert_false(available);
    assert_fails(mlx_set_default_device(gpu), "gpu");
    int count;
    mlx_device_count(&count, MLX_GPU);
    assert_int_equal(count, 0);

    mlx_string text = mlx_string_new();
    mlx_stream stream = mlx_stream_new(), other = mlx_stream_new_device(cpu);
    assert_int_equal(mlx_get_default_stream(&stream, cpu), 0);
    mlx_stream_tostring(&text, stream);
    assert_string_equal(mlx_string_data(text), "Stream(Device(cpu, 0), 0)");
    mlx_device_tostring(&text, gpu);
    assert_string_equal(mlx_string_data(text), "Device(gpu, 0)");
    assert_false(mlx_stream_equal(stream, other));
    assert_int_equal(mlx_set_default_stream(other), 0);
    assert_int_equal(mlx_get_default_stream(&stream, cpu), 0);
    assert_true(mlx_stream_equal(stream, other));
    mlx_stream first = mlx_default_cpu_stream_new();
    assert_non_null(first.ctx);
    assert_null(mlx_default_gpu_stream_new().ctx);
    assert_fails(mlx_get_default_stream(&stream, gpu), "gpu");

    mlx_device_info info = mlx_device_info_new();
    assert_int_equal(mlx_device_info_get(&info, cpu), 0);
    const char *name;
    size_t size;
    assert_int_equal(mlx_device_info_get_string(&name, info, "device_name"), 0);
    assert_int_equal(mlx_device_info_get_size(&size, info, "memory_size"), 2);
    mlx_vector_string keys = {NULL};
    mlx_device_info_get_keys(&keys, info);
    assert_int_equal(mlx_vector_string_size(keys), 2);
    mlx_vector_string_free(keys);
    mlx_device_info_free(info);
    mlx_stream_free(first);
    mlx_stream_free(other);
    mlx_stream_free(stream);
    mlx_string_free(text);
    mlx_device_free(cpu);
    mlx_device_free(gpu);
}

static void *handler_data;
static void keep_data(const char *msg, void *data) {
    keep_error(msg, data);
    handler_data = data;
}

static void test_handler_gets_text_and_data(void **state) {
    (void)state;
    int payload = 1;
    destroyed = 0;
    handler_data = &destroyed;
    mlx_set_error_handler(keep_data, &payload, NULL);
    _mlx_error("file.c", 12, "%d%% of %s", 5, "it");
    assert_string_equal(last_error, "5% of it at file.c:12");
    assert_null(handler_data);
    mlx_set_error_handler(keep_data, &payload, count_destroyed);
    mlx_error("again");
    assert_ptr_equal(handler_data, &payload);
    mlx_set_error_handler(keep_error, NULL, NULL);
    assert_int_equal(destroyed, 1);
}

static void test_version_and_backends(void **state) {
    (void)state;
    bool flag = true;
    mlx_string version = mlx_string_new();
    assert_int_equal(mlx_version(&version), 0);
    assert_string_equal(mlx_string_data(version), "0.31.2");
    mlx_string_free(version);
    assert_int_equal(mlx_metal_is_available(&flag), 0);
    assert_false(flag);
    assert_int_equal(mlx_cuda_is_available(&flag), 0);
    assert_false(flag);
    assert_int_equal(mlx_dtype_size(MLX_COMPLEX64), 8);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_null_handles_are_made_and_freed),
        cmocka_unit_test(test_null_inputs_are_reported_and_leave_the_output_alone),
        cmocka_unit_test(test_assignment_is_seen_by_copies_of_the_handle),
        cmocka_unit_test(test_constructors_store_type_shape_and_values),
        cmocka_unit_test(test_bad_shapes_are_refused),
        cmocka_unit_test(test_managed_data_is_released_once_at_the_end),
        cmocka_unit_test(test_text_form_is_that_of_mlx),
        cmocka_unit_test(test_item_reinterprets_and_never_reads_past_the_item),
        cmocka_unit_test(test_strings_are_copied_and_assigned),
        cmocka_unit_test(test_vectors_share_and_copy),
        cmocka_unit_test(test_maps_find_overwrite_and_iterate),
        cmocka_unit_test(test_closures_apply_share_payload_and_report_failure),
        cmocka_unit_test(test_devices_and_streams_name_the_cpu),
        cmocka_unit_test(test_handler_gets_text_and_data),
        cmocka_unit_test(test_version_and_backends),
    };
    return cmocka_run_group_tests(tests, catch_errors, NULL);
}
