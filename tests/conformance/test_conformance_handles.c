/* Handles and containers: who owns what, what null means, what a failure leaves. */
#include "conformance/check.h"

static void test_null_handles_are_null_and_free_of_charge(void **state) {
    (void)state;
    assert_null(mlx_array_new().ctx);
    assert_null(mlx_string_new().ctx);
    assert_null(mlx_stream_new().ctx);
    assert_null(mlx_device_new().ctx);
    assert_null(mlx_closure_new().ctx);
    assert_null(mlx_array_empty.ctx);
    assert_int_equal(mlx_array_free(mlx_array_new()), 0);
    assert_int_equal(mlx_string_free(mlx_string_new()), 0);
    assert_int_equal(mlx_stream_free(mlx_stream_new()), 0);
    assert_int_equal(mlx_device_free(mlx_device_new()), 0);
    assert_int_equal(mlx_closure_free(mlx_closure_new()), 0);
    assert_int_equal(mlx_vector_array_free((mlx_vector_array){0}), 0);
    assert_int_equal(mlx_map_string_to_array_free((mlx_map_string_to_array){0}), 0);
}

static void test_constructors_have_the_dtype_of_their_name(void **state) {
    (void)state;
    check_shape(keep(mlx_array_new_bool(true)), MLX_BOOL, NULL, 0);
    check_shape(keep(mlx_array_new_int(-5)), MLX_INT32, NULL, 0);
    check_shape(keep(mlx_array_new_float(2.5f)), MLX_FLOAT32, NULL, 0);
    check_shape(keep(mlx_array_new_float32(2.5f)), MLX_FLOAT32, NULL, 0);
    check_shape(keep(mlx_array_new_float64(2.5)), MLX_FLOAT64, NULL, 0);
    check_shape(keep(mlx_array_new_double(2.5)), MLX_FLOAT64, NULL, 0);
    mlx_array c = keep(mlx_array_new_complex(1, -2));
    check_shape(c, MLX_COMPLEX64, NULL, 0);
    mlx_complex64_t value;
    assert_int_equal(mlx_array_item_complex64(&value, c), 0);
    assert_true(crealf(value) == 1 && cimagf(value) == -2);
    check(keep(mlx_array_new_int(-5)), -5);
}

static void test_sizes_of_dtypes(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8, 2, 8};
    for (int i = 0; i < 14; i++) {
        mlx_array a = empty((mlx_dtype)i, SHAPE(2, 3));
        assert_int_equal(mlx_dtype_size((mlx_dtype)i), sizes[i]);
        assert_int_equal(mlx_array_itemsize(a), sizes[i]);
        assert_int_equal(mlx_array_nbytes(a), 6 * sizes[i]);
        assert_int_equal(mlx_array_size(a), 6);
    }
}

static void test_data_is_copied(void **state) {
    (void)state;
    float data[] = {1, 2, 3, 4};
    mlx_array a = mlx_array_new_data(data, SHAPE(2, 2), MLX_FLOAT32);
    data[0] = 9;
    check(a, 1, 2, 3, 4);
    int shape[] = {4};
    assert_int_equal(mlx_array_set_data(&a, data, shape, 1, MLX_FLOAT32), 0);
    shape[0] = 99;
    check_shape(a, MLX_FLOAT32, SHAPE(4));
    check(a, 9, 2, 3, 4);
    mlx_array_free(a);
}

static int freed;
static void count_free(void *payload) {
    freed++;
    assert_ptr_equal(payload, &freed);
}
static void free_data(void *data) {
    freed++;
    free(data);
}

static void test_managed_data_is_given_back_once(void **state) {
    (void)state;
    static float data[] = {1, 2, 3};
    freed = 0;
    mlx_array a =
        mlx_array_new_data_managed_payload(data, SHAPE(3), MLX_FLOAT32, &freed, count_free);
    mlx_array view = mlx_array_new();
    assert_int_equal(mlx_slice(&view, a, LIST(1), LIST(3), LIST(1), cpu), 0);
    assert_int_equal(mlx_array_eval(view), 0);
    check(view, 2, 3);
    release_all(NULL);
    assert_int_equal(mlx_array_free(a), 0);
    assert_int_equal(mlx_array_free(view), 0);
    assert_int_equal(mlx_synchronize(cpu), 0);
    assert_int_equal(freed, 1);
    freed = 0;
    float *own = malloc(sizeof *own);
    *own = 7;
    a = mlx_array_new_data_managed(own, NULL, 0, MLX_FLOAT32, free_data);
    float item;
    assert_int_equal(mlx_array_item_float32(&item, a), 0);
    assert_true(item == 7);
    mlx_array_free(a);
    assert_int_equal(freed, 1);
}

/* What a caller lent is never written, also when an operation could work in place. */
static void test_managed_data_is_not_written(void **state) {
    (void)state;
    static float data[] = {1, 2, 3};
    freed = 0;
    mlx_array a =
        mlx_array_new_data_managed_payload(data, SHAPE(3), MLX_FLOAT32, &freed, count_free);
    for (int i = 0; i < 3; i++) assert_int_equal(mlx_square(&a, a, cpu), 0);
    check(keep(a), 1, 256, 6561);
    assert_true(data[1] == 2 && data[2] == 3);
}

static void test_set_shares_and_outputs_may_be_inputs(void **state) {
    (void)state;
    mlx_array a = mlx_array_new_float(3), b = mlx_array_new(), c = mlx_array_new();
    assert_int_equal(mlx_array_set(&b, a), 0);
    assert_int_equal(mlx_array_set(&b, b), 0); /* onto itself */
    assert_int_equal(mlx_add(&b, a, b, cpu), 0);
    assert_int_equal(mlx_array_set(&c, b), 0);
    assert_int_equal(mlx_array_set_int(&a, 4), 0);
    check(a, 4);
    check_shape(a, MLX_INT32, NULL, 0);
    check(b, 6);
    assert_int_equal(mlx_multiply(&b, b, b, cpu), 0);
    check(b, 36);
    check(c, 6);
    mlx_array_free(a);
    mlx_array_free(c);
    check(b, 36);
    mlx_array_free(b);
}

/* The struct is a pointer to the value: a copy of the struct follows assignments. */
static void test_struct_copies_follow_assignments(void **state) {
    (void)state;
    mlx_array a = mlx_array_new_int(1), same = a;
    assert_int_equal(mlx_array_set_int(&a, 2), 0);
    assert_ptr_equal(a.ctx, same.ctx);
    check(same, 2);
    mlx_array_free(a);
}

static void test_setters_give_every_type(void **state) {
    (void)state;
    mlx_array a = mlx_array_new();
    assert_int_equal(mlx_array_set_bool(&a, true), 0);
    check_shape(a, MLX_BOOL, NULL, 0);
    assert_int_equal(mlx_array_set_float(&a, 1.5f), 0);
    check_shape(a, MLX_FLOAT32, NULL, 0);
    assert_int_equal(mlx_array_set_float32(&a, 1.5f), 0);
    assert_int_equal(mlx_array_set_float64(&a, 1.5), 0);
    check_shape(a, MLX_FLOAT64, NULL, 0);
    assert_int_equal(mlx_array_set_double(&a, 1.25), 0);
    check(a, 1.25);
    assert_int_equal(mlx_array_set_complex(&a, 1, 2), 0);
    check_shape(a, MLX_COMPLEX64, NULL, 0);
    mlx_array_free(a);
}

static void test_items_are_read_as_they_lie(void **state) {
    (void)state;
    int32_t bits;
    assert_int_equal(mlx_array_item_int32(&bits, keep(mlx_array_new_float(2.5f))), 0);
    assert_int_equal(bits, 1075838976); /* MLX 0.31.2 */
    double wide;
    assert_int_equal(mlx_array_item_float64(&wide, scalar(MLX_FLOAT64, 0.1)), 0);
    assert_true(wide == 0.1);
    uint64_t big;
    assert_int_equal(mlx_array_item_uint64(&big, scalar(MLX_UINT64, 0x1p60)), 0);
    assert_true(big == (uint64_t)1 << 60);
    int8_t small;
    assert_int_equal(mlx_array_item_int8(&small, make(MLX_INT8, SHAPE(1, 1), VALUES(-3))), 0);
    assert_int_equal(small, -3);
}

static void test_items_of_other_sizes_are_errors(void **state) {
    (void)state;
    float item = 5;
    error_count = 0;
    assert_int_equal(mlx_array_item_float32(&item, count_up(MLX_FLOAT32, SHAPE(2))), 1);
    assert_int_equal(mlx_array_item_float32(&item, empty(MLX_FLOAT32, SHAPE(0))), 1);
    assert_int_equal(mlx_array_item_float32(&item, mlx_array_new()), 1);
    assert_int_equal(error_count, 3);
    assert_true(item == 5);
}

static void test_dimensions_count_from_both_ends(void **state) {
    (void)state;
    mlx_array a = empty(MLX_INT8, SHAPE(2, 3, 0));
    assert_int_equal(mlx_array_dim(a, 0), 2);
    assert_int_equal(mlx_array_dim(a, -1), 0);
    assert_int_equal(mlx_array_dim(a, -3), 2);
    error_count = 0;
    mlx_array_dim(a, 3);
    mlx_array_dim(a, -4);
    assert_int_equal(error_count, 2);
    assert_int_equal(mlx_array_size(a), 0);
    assert_int_equal(mlx_array_ndim(a), 3);
}

static void test_queries_of_null_handles_are_errors(void **state) {
    (void)state;
    const mlx_array none = mlx_array_new();
    mlx_string text = mlx_string_new();
    mlx_array a = mlx_array_new();
    error_count = 0;
    assert_int_equal(mlx_array_size(none), 0);
    assert_int_equal(mlx_array_nbytes(none), 0);
    assert_int_equal(mlx_array_itemsize(none), 0);
    assert_int_equal(mlx_array_ndim(none), 0);
    assert_null(mlx_array_shape(none));
    assert_null(mlx_array_strides(none));
    assert_int_equal(mlx_array_dtype(none), MLX_BOOL);
    assert_null(mlx_array_data_float32(none));
    assert_int_equal(mlx_array_eval(none), 1);
    assert_int_equal(mlx_array_tostring(&text, none), 1);
    assert_int_equal(mlx_array_set(&a, none), 1);
    assert_int_equal(error_count, 11);
    assert_non_null(strstr(last_error, "expected a non-empty mlx_array"));
    assert_null(text.ctx);
    assert_null(a.ctx);
}

static void test_null_inputs_and_streams_are_errors(void **state) {
    (void)state;
    const mlx_array a = scalar(MLX_FLOAT32, 1), none = mlx_array_new();
    FAILS("expected a non-empty mlx_array", add, a, none);
    FAILS("expected a non-empty mlx_array", add, none, a);
    FAILS("expected a non-empty mlx_array", exp, none);
    FAILS("expected a non-empty mlx_array", reshape, none, LIST(1));
    FAILS("expected a non-empty mlx_array", where, none, a, a);
    FAILS("expected a non-empty mlx_array", matmul, none, a);
    FAILS("expected a non-empty mlx_array", fast_rms_norm, none, none, 1e-5f);
    FAILS_WITH("expected a non-empty mlx_stream", add, a, a, mlx_stream_new());
}

static void test_vectors_share_and_grow(void **state) {
    (void)state;
    mlx_array a = mlx_array_new_int(1), b = mlx_array_new_int(2), got = mlx_array_new();
    mlx_vector_array list = mlx_vector_array_new();
    assert_non_null(list.ctx);
    assert_int_equal(mlx_vector_array_size(list), 0);
    assert_int_equal(mlx_vector_array_append_value(list, a), 0);
    assert_int_equal(mlx_vector_array_append_data(list, (const mlx_array[]){b, a}, 2), 0);
    mlx_array_free(a);
    mlx_array_free(b);
    assert_int_equal(mlx_vector_array_size(list), 3);
    for (int again = 0; again < 3; again++) {
        assert_int_equal(mlx_vector_array_get(&got, list, 1), 0);
        check(got, 2);
    }
    last_error[0] = 0;
    assert_int_equal(mlx_vector_array_get(&got, list, 3), 1);
    assert_true(last_error[0] != 0);
    check(got, 2);

    mlx_vector_array copy = mlx_vector_array_new_data(&got, 1);
    assert_int_equal(mlx_vector_array_set(&copy, list), 0);
    assert_int_equal(mlx_vector_array_size(copy), 3);
    assert_int_equal(mlx_vector_array_append_value(copy, got), 0);
    assert_int_equal(mlx_vector_array_size(list), 3);
    assert_int_equal(mlx_vector_array_set_value(&list, got), 0);
    assert_int_equal(mlx_vector_array_size(list), 1);
    assert_int_equal(mlx_vector_array_set_data(&list, NULL, 0), 0);
    assert_int_equal(mlx_vector_array_size(list), 0);

    mlx_vector_vector_array lists = mlx_vector_vector_array_new_value(copy);
    assert_int_equal(mlx_vector_vector_array_append_value(lists, list), 0);
    mlx_vector_array_free(copy);
    mlx_vector_array inner = mlx_vector_array_new();
    assert_int_equal(mlx_vector_vector_array_get(&inner, lists, 0), 0);
    assert_int_equal(mlx_vector_array_size(inner), 4);
    assert_int_equal(mlx_vector_vector_array_get(&inner, lists, 1), 0);
    assert_int_equal(mlx_vector_array_size(inner), 0);
    mlx_vector_vector_array_free(lists);
    mlx_vector_array_free(inner);
    mlx_vector_array_free(list);
    mlx_array_free(got);
}

static void test_vectors_of_ints_and_strings(void **state) {
    (void)state;
    int numbers[] = {3, 1, 2}, number = 0;
    mlx_vector_int ints = mlx_vector_int_new_data(numbers, 3);
    assert_int_equal(mlx_vector_int_append_value(ints, 9), 0);
    assert_int_equal(mlx_vector_int_get(&number, ints, 3), 0);
    assert_int_equal(number, 9);
    assert_int_equal(mlx_vector_int_get(&number, ints, 4), 1);
    mlx_vector_int_free(ints);

    char word[] = "one", *got;
    const char *words[] = {word, "two"};
    mlx_vector_string strings = mlx_vector_string_new_data(words, 2);
    word[0] = 'X';
    assert_int_equal(mlx_vector_string_append_value(strings, ""), 0);
    assert_int_equal(mlx_vector_string_size(strings), 3);
    assert_int_equal(mlx_vector_string_get(&got, strings, 0), 0);
    assert_string_equal(got, "one");
    assert_int_equal(mlx_vector_string_get(&got, strings, 2), 0);
    assert_string_equal(got, "");
    mlx_vector_string_free(strings);
}

static void test_maps_overwrite_iterate_and_miss(void **state) {
    (void)state;
    mlx_map_string_to_array map = mlx_map_string_to_array_new();
    mlx_array value = mlx_array_new();
    char key[16];
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "key %d", i);
        mlx_array_set_int(&value, i);
        assert_int_equal(mlx_map_string_to_array_insert(map, key, value), 0);
    }
    mlx_array_set_int(&value, 1000);
    assert_int_equal(mlx_map_string_to_array_insert(map, "key 7", value), 0);
    error_count = 0;
    assert_int_equal(mlx_map_string_to_array_get(&value, map, "missing"), 2);
    assert_int_equal(error_count, 0);
    check(value, 1000);
    assert_int_equal(mlx_map_string_to_array_get(&value, map, "key 42"), 0);
    check(value, 42);

    mlx_map_string_to_array other = mlx_map_string_to_array_new();
    assert_int_equal(mlx_map_string_to_array_set(&other, map), 0);
    assert_int_equal(mlx_map_string_to_array_insert(other, "more", value), 0);
    mlx_map_string_to_array_iterator it = mlx_map_string_to_array_iterator_new(map);
    const char *name;
    int count = 0, sum = 0, item, status;
    while ((status = mlx_map_string_to_array_iterator_next(&name, &value, it)) == 0) {
        count++;
        mlx_array_item_int32(&item, value);
        sum += item;
        assert_true(strncmp(name, "key ", 4) == 0);
    }
    assert_int_equal(status, 2);
    assert_int_equal(count, 100);
    assert_int_equal(sum, 4950 - 7 + 1000);
    mlx_map_string_to_array_iterator_free(it);
    mlx_map_string_to_array_free(map);
    assert_int_equal(mlx_map_string_to_array_get(&value, other, "more"), 0);
    mlx_map_string_to_array_free(other);
    mlx_array_free(value);

    mlx_map_string_to_string texts = mlx_map_string_to_string_new();
    const char *text = NULL;
    assert_int_equal(mlx_map_string_to_string_insert(texts, "a", "1"), 0);
    assert_int_equal(mlx_map_string_to_string_insert(texts, "a", "2"), 0);
    assert_int_equal(mlx_map_string_to_string_get(&text, texts, "a"), 0);
    assert_string_equal(text, "2");
    assert_int_equal(mlx_map_string_to_string_get(&text, texts, "b"), 2);
    mlx_map_string_to_string_free(texts);
}

static void test_strings_copy_their_text(void **state) {
    (void)state;
    char text[] = "text";
    mlx_string a = mlx_string_new_data(text), b = mlx_string_new();
    text[0] = 'n';
    assert_int_equal(mlx_string_set(&b, a), 0);
    mlx_string_free(a);
    assert_string_equal(mlx_string_data(b), "text");
    mlx_string_free(b);
    error_count = 0;
    assert_null(mlx_string_data(mlx_string_new()));
    assert_int_equal(error_count, 1);
}

/* ---- closures ---- */

static int twice(mlx_array *res, const mlx_array x) {
    return mlx_add(res, x, x, cpu);
}
static int sum_and_difference(mlx_vector_array *res, const mlx_vector_array in) {
    mlx_array pair[2] = {mlx_array_new(), mlx_array_new()},
              out[2] = {mlx_array_new(), mlx_array_new()};
    assert_null(res->ctx);
    for (size_t i = 0; i < 2; i++) mlx_vector_array_get(&pair[i], in, i);
    mlx_add(&out[0], pair[0], pair[1], cpu);
    mlx_subtract(&out[1], pair[0], pair[1], cpu);
    *res = mlx_vector_array_new_data(out, 2);
    for (int i = 0; i < 2; i++) mlx_array_free(pair[i]), mlx_array_free(out[i]);
    return 0;
}
static int refuse(mlx_vector_array *res, const mlx_vector_array in, void *payload) {
    (void)res;
    (void)in;
    ++*(int *)payload;
    return 5;
}
static void add_ten(void *payload) {
    *(int *)payload += 10;
}

static void test_closures_apply_share_and_fail(void **state) {
    (void)state;
    mlx_array pair[2] = {scalar(MLX_FLOAT32, 5), scalar(MLX_FLOAT32, 3)}, got = mlx_array_new();
    mlx_vector_array in = mlx_vector_array_new_data(pair, 2), out = mlx_vector_array_new();
    mlx_vector_array one = mlx_vector_array_new_value(pair[0]);
    mlx_closure f = mlx_closure_new_unary(twice);
    assert_int_equal(mlx_closure_apply(&out, f, one), 0);
    assert_int_equal(mlx_vector_array_size(out), 1);
    mlx_vector_array_get(&got, out, 0);
    check(got, 10);
    mlx_closure_free(f);

    f = mlx_closure_new_func(sum_and_difference);
    mlx_closure g = mlx_closure_new();
    assert_int_equal(mlx_closure_set(&g, f), 0);
    mlx_closure_free(f);
    assert_int_equal(mlx_closure_apply(&out, g, in), 0);
    assert_int_equal(mlx_vector_array_size(out), 2);
    mlx_vector_array_get(&got, out, 1);
    check(got, 2);
    mlx_closure_free(g);

    int calls = 0;
    f = mlx_closure_new_func_payload(refuse, &calls, add_ten);
    g = mlx_closure_new();
    mlx_closure_set(&g, f);
    mlx_closure_free(f);
    assert_int_equal(calls, 0);
    last_error[0] = 0;
    assert_int_equal(mlx_closure_apply(&out, g, in), 1);
    assert_non_null(strstr(last_error, "mlx_closure returned a non-zero value"));
    assert_int_equal(mlx_vector_array_size(out), 2); /* untouched */
    assert_int_equal(calls, 1);
    mlx_closure_free(g);
    assert_int_equal(calls, 11);
    mlx_vector_array_free(in);
    mlx_vector_array_free(out);
    mlx_vector_array_free(one);
    mlx_array_free(got);
}

/* ---- errors, devices, streams ---- */

static char handled[256];
static int handler_freed;
static void handle(const char *msg, void *data) {
    snprintf(handled, sizeof handled, "%s|%s", data ? (const char *)data : "NULL", msg);
}
static void free_handler(void *data) {
    assert_string_equal(data, "data");
    handler_freed++;
}

static void test_the_error_handler_is_replaced_with_its_data(void **state) {
    (void)state;
    static char data[] = "data";
    mlx_set_error_handler(handle, data, free_handler);
    _mlx_error("file.c", 12, "%d of %s", 3, "four");
    assert_string_equal(handled, "data|3 of four at file.c:12");
    mlx_set_error_handler(handle, data, NULL); /* data without dtor does not arrive */
    assert_int_equal(handler_freed, 1);
    mlx_error("%s", "text");
    assert_true(strncmp(handled, "NULL|text at ", 13) == 0);
    mlx_set_error_handler(keep_error, NULL, NULL);
}

static void test_the_device_is_the_cpu(void **state) {
    (void)state;
    mlx_device device = mlx_device_new(), other = mlx_device_new_type(MLX_CPU, 0);
    mlx_device_type type = MLX_GPU;
    mlx_string text = mlx_string_new();
    int number = 7;
    bool there = false;
    assert_int_equal(mlx_get_default_device(&device), 0);
    assert_int_equal(mlx_device_get_type(&type, device), 0);
    assert_int_equal(type, MLX_CPU);
    assert_int_equal(mlx_device_get_index(&number, device), 0);
    assert_int_equal(number, 0);
    assert_true(mlx_device_equal(device, other));
    assert_int_equal(mlx_device_tostring(&text, device), 0);
    assert_string_equal(mlx_string_data(text), "Device(cpu, 0)");
    assert_int_equal(mlx_device_is_available(&there, device), 0);
    assert_true(there);
    assert_int_equal(mlx_device_count(&number, MLX_CPU), 0);
    assert_int_equal(number, 1);
    assert_int_equal(mlx_device_count(&number, MLX_GPU), 0);
    assert_int_equal(number, 0);
    mlx_device_info info = mlx_device_info_new();
    assert_int_equal(mlx_device_info_get(&info, device), 0);
    assert_int_equal(mlx_device_info_has_key(&there, info, "device_name"), 0);
    assert_true(there);
    assert_int_equal(mlx_device_info_has_key(&there, info, "nonsense"), 0);
    assert_false(there);
    const char *value;
    assert_int_equal(mlx_device_info_get_string(&value, info, "nonsense"), 2);
    mlx_device_info_free(info);
    mlx_device_free(device);
    mlx_device_free(other);
    mlx_string_free(text);
}

static void test_streams_have_numbers_and_a_default(void **state) {
    (void)state;
    mlx_device device = mlx_device_new_type(MLX_CPU, 0), back = mlx_device_new();
    mlx_stream mine = mlx_stream_new_device(device), standard = mlx_stream_new();
    mlx_stream again = mlx_stream_new();
    mlx_string text = mlx_string_new();
    int index = -1;
    assert_int_equal(mlx_get_default_stream(&standard, device), 0);
    assert_true(mlx_stream_equal(standard, cpu));
    assert_false(mlx_stream_equal(standard, mine));
    assert_int_equal(mlx_stream_get_device(&back, mine), 0);
    assert_true(mlx_device_equal(back, device));
    assert_int_equal(mlx_stream_get_index(&index, standard), 0);
    char expected[64];
    snprintf(expected, sizeof expected, "Stream(Device(cpu, 0), %d)", index);
    assert_int_equal(mlx_stream_tostring(&text, standard), 0);
    assert_string_equal(mlx_string_data(text), expected);
    assert_int_equal(mlx_set_default_stream(mine), 0);
    assert_int_equal(mlx_get_default_stream(&again, device), 0);
    assert_true(mlx_stream_equal(again, mine));
    assert_int_equal(mlx_set_default_stream(standard), 0);
    mlx_array a = keep(mlx_array_new());
    assert_int_equal(mlx_add(&a, scalar(MLX_FLOAT32, 1), scalar(MLX_FLOAT32, 2), mine), 0);
    assert_int_equal(mlx_square(&a, a, standard), 0);
    check(a, 9);
    assert_int_equal(mlx_synchronize(mine), 0);
    mlx_array_free(a);
    mlx_stream_free(mine);
    mlx_stream_free(standard);
    mlx_stream_free(again);
    mlx_device_free(device);
    mlx_device_free(back);
    mlx_string_free(text);
    error_count = 0;
    assert_null(mlx_default_gpu_stream_new().ctx);
    assert_int_equal(error_count, 1);
}

static void test_arrays_print_as_in_mlx(void **state) {
    (void)state;
    check_text(count_up(MLX_FLOAT32, SHAPE(2, 2)),
               "array([[0, 1],\n       [2, 3]], dtype=float32)");
    check_text(count_up(MLX_INT32, SHAPE(7)), "array([0, 1, 2, ..., 4, 5, 6], dtype=int32)");
    check_text(scalar(MLX_BOOL, 1), "array(true, dtype=bool)");
    check_text(empty(MLX_FLOAT16, SHAPE(0)), "array([], dtype=float16)");
    check_text(row(MLX_FLOAT32, VALUES(0.1, 1e10, -1e-7, INFINITY)),
               "array([0.1, 1e+10, -1e-07, inf], dtype=float32)");
    check_text(row(MLX_BFLOAT16, VALUES(0.1, 3)), "array([0.100098, 3], dtype=bfloat16)");
    check_text(keep(mlx_array_new_complex(1, -2)), "array(1-2j, dtype=complex64)");
    check_text(count_up(MLX_UINT8, SHAPE(1, 2, 2)),
               "array([[[0, 1],\n        [2, 3]]], dtype=uint8)");
}

RUN(TEST(test_null_handles_are_null_and_free_of_charge),
    TEST(test_constructors_have_the_dtype_of_their_name), TEST(test_sizes_of_dtypes),
    TEST(test_data_is_copied), TEST(test_managed_data_is_given_back_once),
    TEST(test_managed_data_is_not_written), TEST(test_set_shares_and_outputs_may_be_inputs),
    TEST(test_struct_copies_follow_assignments), TEST(test_setters_give_every_type),
    TEST(test_items_are_read_as_they_lie), TEST(test_items_of_other_sizes_are_errors),
    TEST(test_dimensions_count_from_both_ends), TEST(test_queries_of_null_handles_are_errors),
    TEST(test_null_inputs_and_streams_are_errors), TEST(test_vectors_share_and_grow),
    TEST(test_vectors_of_ints_and_strings), TEST(test_maps_overwrite_iterate_and_miss),
    TEST(test_strings_copy_their_text), TEST(test_closures_apply_share_and_fail),
    TEST(test_the_error_handler_is_replaced_with_its_data), TEST(test_the_device_is_the_cpu),
    TEST(test_streams_have_numbers_and_a_default), TEST(test_arrays_print_as_in_mlx))
