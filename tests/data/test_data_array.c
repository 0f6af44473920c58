/* Arrays and samples: kinds, sharing, messages. */
#include "data/data_test.h"

static void test_an_array_of_every_type_keeps_shape_and_bytes(void **state) {
    (void)state;
    for (int type = 0; type < DX_ANY_TYPE; type++) {
        Error err = {0};
        size_t size = dx_type_size((DxType)type);
        int64_t shapes[3][2] = {{0, 0}, {0, 3}, {2, 3}};
        for (int rank = 0; rank <= 2; rank++)
            for (size_t which = 0; which < 3; which++) {
                DxArray *array = dx_array_new((DxType)type, rank, shapes[which], &err);
                size_t count = rank == 0   ? 1
                               : rank == 1 ? (size_t)shapes[which][0]
                                           : (size_t)(shapes[which][0] * shapes[which][1]);
                assert_non_null(array);
                assert_int_equal(array->count, count);
                assert_int_equal(array->bytes, count * size);
                dx_array_release(array);
            }
    }
}

static void test_bad_shapes_are_failures(void **state) {
    (void)state;
    const int64_t negative[] = {-1}, huge[] = {INT64_MAX, INT64_MAX};
    Error err = {0};
    assert_null(dx_array_new(DX_F32, 1, negative, &err));
    assert_int_not_equal(err.code, ERROR_NONE);
    base_error_clear(&err);
    assert_null(dx_array_new(DX_F32, 2, huge, &err));
    base_error_clear(&err);
    assert_null(dx_array_new(DX_F32, DX_MAX_RANK + 1, huge, &err));
    base_error_clear(&err);
    assert_null(dx_array_new(DX_F32, -1, huge, &err));
}

static void test_filling_writes_each_type(void **state) {
    (void)state;
    for (int type = 0; type < DX_ANY_TYPE; type++) {
        Error err = {0};
        DxArray *array = dx_array_filled((DxType)type, 3, 1, &err);
        assert_non_null(array);
        for (size_t i = 0; i < 3; i++) assert_true(dx_array_real_at(array, i) == 1);
        dx_array_release(array);
    }
    Error err = {0};
    const struct {
        double value;
        uint16_t half, bfloat; /* as numpy 2 and torch 2 round them */
    } cases[] = {{1.0009766, 0x3c01, 0x3f80},  {1.00048828125, 0x3c00, 0x3f80},
                 {65519, 0x7bff, 0x4780},      {65520, 0x7c00, 0x4780},
                 {6.1e-5, 0x03ff, 0x3880},     {-2e-8, 0x8000, 0xb2ac},
                 {1.00390625, 0x3c04, 0x3f80}, {3.1415927, 0x4248, 0x4049}};
    for (size_t i = 0; i < BASE_COUNT(cases); i++) {
        DxArray *half = dx_array_filled(DX_F16, 1, cases[i].value, &err);
        DxArray *bfloat = dx_array_filled(DX_BF16, 1, cases[i].value, &err);
        assert_int_equal(*(uint16_t *)half->data, cases[i].half);
        assert_int_equal(*(uint16_t *)bfloat->data, cases[i].bfloat);
        dx_array_release(half);
        dx_array_release(bfloat);
    }
    DxArray *minus = dx_array_filled(DX_I32, 2, -100, &err);
    assert_int_equal(dx_array_int_at(minus, 1), -100);
    assert_int_equal(dx_array_int_at(minus, 2), 0);
    dx_array_release(minus);
}

static void test_a_shared_array_is_never_written(void **state) {
    (void)state;
    Error err = {0};
    DxArray *mine = dx_array_ids((const int32_t[]){1, 2, 3}, 3, &err);
    DxArray *other = dx_array_retain(mine);
    int32_t *data = dx_array_write(&mine, &err);
    assert_non_null(data);
    data[0] = 9;
    assert_int_equal(dx_array_int_at(other, 0), 1);
    assert_int_equal(dx_array_int_at(mine, 0), 9);
    void *again = dx_array_write(&mine, &err); /* now nobody else holds it */
    assert_ptr_equal(again, data);
    dx_array_release(mine);
    dx_array_release(other);
}

static DxStatus double_in_place(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)self;
    (void)random;
    DxArray *array = dx_array_retain(dx_sample_get(*sample, dx_key("n")));
    int64_t *data = dx_array_write(&array, err);
    if (!data) return DX_FAIL;
    data[0] *= 2;
    dx_sample_put(sample, dx_key("n"), array);
    return DX_OK;
}

static void test_an_operator_that_writes_leaves_the_stored_samples(void **state) {
    (void)state;
    Error err = {0};
    DxSample *one = dx_sample_new();
    dx_sample_put(&one, dx_key("n"), dx_array_int(21));
    DxBuffer *buffer = dx_samples(&one, 1, &err);
    dx_sample_free(one);
    buffer = dx_buffer_map(buffer, &(DxOp){.name = "double", .apply = double_in_place}, NULL, &err);
    for (int pass = 0; pass < 3; pass++) {
        DxSample *sample;
        assert_int_equal(dx_buffer_get(buffer, 0, 0, &sample, &err), DX_OK);
        assert_int_equal(dx_array_int_at(dx_sample_get(sample, dx_key("n")), 0), 42);
        dx_sample_free(sample);
    }
    dx_buffer_free(buffer);
}

static void test_a_missing_or_wrong_field_is_named_with_both_types(void **state) {
    (void)state;
    Error err = {0};
    DxSample *sample = dx_sample_new();
    dx_sample_put(&sample, dx_key("n"), dx_array_int(1));
    assert_null(dx_sample_need(sample, dx_key("text"), DX_TEXT, 1, &err));
    assert_string_equal(err.message, "key \"text\": wanted text of rank 1, the sample has only: n");
    base_error_clear(&err);
    assert_null(dx_sample_need(sample, dx_key("n"), DX_TEXT, 1, &err));
    assert_string_equal(err.message, "key \"n\": wanted text of rank 1, found int64");
    dx_sample_free(sample);
}

static void test_samples_share_arrays_not_fields(void **state) {
    (void)state;
    DxSample *one = dx_sample_new();
    for (int i = 0; i < 10; i++) {
        char name[16];
        snprintf(name, sizeof name, "key%d", i);
        dx_sample_put(&one, dx_key(name), dx_array_int(i));
    }
    DxSample *two = dx_sample_retain(one);
    dx_sample_remove(&two, dx_key("key3"));
    dx_sample_put(&two, dx_key("key4"), dx_array_int(44));
    assert_int_equal(dx_sample_count(one), 10);
    assert_int_equal(dx_sample_count(two), 9);
    assert_int_equal(dx_array_int_at(dx_sample_get(one, dx_key("key4")), 0), 4);
    assert_int_equal(dx_array_int_at(dx_sample_get(two, dx_key("key4")), 0), 44);
    assert_ptr_equal(dx_sample_get(one, dx_key("key5")), dx_sample_get(two, dx_key("key5")));
    dx_sample_free(one);
    dx_sample_free(two);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_array_of_every_type_keeps_shape_and_bytes),
        cmocka_unit_test(test_bad_shapes_are_failures),
        cmocka_unit_test(test_filling_writes_each_type),
        cmocka_unit_test(test_a_shared_array_is_never_written),
        cmocka_unit_test(test_an_operator_that_writes_leaves_the_stored_samples),
        cmocka_unit_test(test_a_missing_or_wrong_field_is_named_with_both_types),
        cmocka_unit_test(test_samples_share_arrays_not_fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
