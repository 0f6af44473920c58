/* Laziness, evaluation, donation, deep graphs, memory counters, threads, layout,
 * promotion: the core under operations made for these tests. */
#include "engine/core/engine.h"
#include "engine/core_check.h"

#include <pthread.h>

static _Atomic int evaluations;

/* y = x + 1, float32, in x's layout. */
static bool increment_eval(Node *node, Error *err) {
    const Node *x = node->inputs[0];
    atomic_fetch_add(&evaluations, 1);
    const float *in = node_data(x);
    if (!x->contiguous) return base_fail(err, ERROR_UNSUPPORTED, "only packed arrays");
    if (!node_alloc_like(node, 0, err)) return false;
    float *out = node_data(node);
    for (size_t i = 0; i < node->data_size; i++) out[i] = in[i] + 1;
    return true;
}
static const Op increment_op = {"increment", increment_eval, NULL};

static Node *increment(Node *x) {
    return x ? node_new(&increment_op, MLX_FLOAT32, x->shape, x->ndim, NODES(x)) : NULL;
}

/* Sum of any number of arrays of one item. */
static bool total_eval(Node *node, Error *err) {
    if (!node_alloc(node, err)) return false;
    float sum = 0;
    for (uint32_t i = 0; i < node->n_inputs; i++) sum += *(float *)node_data(node->inputs[i]);
    *(float *)node_data(node) = sum;
    return true;
}
static const Op total_op = {"total", total_eval, NULL};

typedef struct ViewParam {
    int64_t strides[NODE_DIMS];
    int64_t start;
    uint8_t filler[64]; /* larger than what fits inside a node */
} ViewParam;

static bool view_eval(Node *node, Error *err) {
    (void)err;
    const ViewParam *param = node->param;
    node_share(node, node->inputs[0], param->strides, param->start);
    return true;
}
static const Op view_op = {"view", view_eval, NULL};

static Node *view(Node *x, const int *shape, int ndim, const int64_t *strides, int64_t start) {
    ViewParam param = {.start = start};
    if (ndim) memcpy(param.strides, strides, (size_t)ndim * sizeof(int64_t));
    return node_new_param(&view_op, x->dtype, shape, ndim, &param, sizeof param, NODES(x));
}

static bool failing_eval(Node *node, Error *err) {
    return base_fail(err, ERROR_INTERNAL, "no luck with %zu items", node->size);
}
static const Op failing_op = {"failing", failing_eval, NULL};

static Node *zeros(int n) {
    Node *node = node_from_data(NULL, MLX_FLOAT32, &n, 1);
    memset(node_data(node), 0, node_nbytes(node));
    return node;
}

static void test_nothing_is_computed_before_eval(void **state) {
    (void)state;
    Node *x = zeros(4), *y = increment(x), *z = increment(y);
    evaluations = 0;
    mlx_array handle = mlx_array_new();
    assert_int_equal(op_finish(&handle, z), 0);
    bool available = true;
    _mlx_array_is_available(&available, handle);
    assert_false(available);
    assert_null(mlx_array_data_float32(handle));
    assert_int_equal(evaluations, 0);
    assert_int_equal(mlx_array_eval(handle), 0);
    assert_int_equal(mlx_array_eval(handle), 0);
    assert_int_equal(evaluations, 2);
    assert_float_equal(mlx_array_data_float32(handle)[3], 2, 0);
    assert_null(z->op);
    assert_int_equal(z->n_inputs, 0);
    assert_int_equal(x->refs, 1);
    mlx_array_free(handle);
    node_release(y);
    node_release(x);
}

static void test_live_handles_are_never_overwritten(void **state) {
    (void)state;
    Node *x = zeros(4), *y = increment(x), *z = increment(y);
    assert_true(node_eval(z));
    assert_float_equal(*(float *)node_data(x), 0, 0);
    assert_float_equal(*(float *)node_data(y), 1, 0);
    assert_float_equal(*(float *)node_data(z), 2, 0);
    node_release(x);
    node_release(y);
    node_release(z);
}

static void test_dead_inputs_are_reused_in_place(void **state) {
    (void)state;
    Node *x = zeros(1000);
    const void *memory = node_data(x);
    for (int i = 0; i < 10; i++) {
        Node *y = increment(x);
        node_release(x);
        assert_true(node_eval(y));
        assert_ptr_equal(node_data(y), memory);
        x = y;
    }
    assert_float_equal(((float *)node_data(x))[999], 10, 0);

    Node *shared = view(x, INTS(2), 1, (int64_t[]){1}, 5);
    assert_true(node_eval(shared));
    Node *y = increment(x);
    node_release(x);
    assert_true(node_eval(y));
    assert_ptr_not_equal(node_data(y), memory);
    assert_float_equal(*(float *)node_data(shared), 10, 0);
    node_release(shared);
    node_release(y);
}

static void test_foreign_memory_is_never_written(void **state) {
    (void)state;
    float data[16] = {0};
    mlx_array a = mlx_array_new_data_managed(data, INTS(16), 1, MLX_FLOAT32, NULL);
    Node *y = increment(node_of(a));
    mlx_array_free(a);
    assert_true(node_eval(y));
    assert_float_equal(data[3], 0, 0);
    assert_float_equal(((float *)node_data(y))[3], 1, 0);
    node_release(y);
}

static void test_deep_graphs_need_no_stack(void **state) {
    (void)state;
    enum { DEPTH = 1000000 };
    Node *x = zeros(1);
    for (int i = 0; i < DEPTH; i++) {
        Node *y = increment(x);
        node_release(x);
        x = y;
    }
    assert_true(node_eval(x));
    assert_float_equal(*(float *)node_data(x), DEPTH, 0);
    for (int i = 0; i < DEPTH; i++) {
        Node *y = increment(x);
        node_release(x);
        x = y;
    }
    node_release(x); /* never evaluated */
}

static void test_shared_subgraphs_are_computed_once(void **state) {
    (void)state;
    evaluations = 0;
    Node *x = zeros(1), *y = increment(x);
    Node *many[7] = {y, y, y, y, y, y, x};
    Node *sum = node_new(&total_op, MLX_FLOAT32, NULL, 0, many, 7);
    assert_true(nodes_eval((Node *[]){sum, y, sum}, 3));
    assert_int_equal(evaluations, 1);
    assert_float_equal(*(float *)node_data(sum), 6, 0);
    node_release(sum);
    node_release(y);
    node_release(x);
}

static void test_a_null_input_gives_null_silently(void **state) {
    (void)state;
    error_count = 0;
    assert_null(node_new(&total_op, MLX_FLOAT32, NULL, 0, NODES(NULL)));
    assert_int_equal(error_count, 0);
}

static void test_failures_are_reported_and_leave_the_rest_usable(void **state) {
    (void)state;
    Node *x = zeros(3), *y = increment(x);
    Node *bad = node_new(&failing_op, MLX_FLOAT32, y->shape, 1, NODES(y));
    Node *z = increment(bad);
    error_count = 0;
    assert_false(node_eval(z));
    assert_int_equal(error_count, 1);
    assert_non_null(strstr(last_error, "[failing] no luck with 3 items"));
    assert_false(node_eval(z));
    assert_true(node_eval(y));
    assert_float_equal(*(float *)node_data(y), 1, 0);
    node_release(z);
    node_release(bad);
    node_release(y);
    node_release(x);
}

static void test_parts_are_views_of_one_buffer(void **state) {
    (void)state;
    Node *x = zeros(64), *whole = increment(x);
    Node *second = node_part(whole, 64, MLX_FLOAT32, INTS(2, 2), 2);
    node_release(whole);
    node_release(x);
    assert_true(node_eval(second));
    assert_float_equal(((float *)node_data(second))[3], 1, 0);
    node_release(second);
}

static void check_flags(const int *shape, int ndim, const int64_t *strides, bool packed, bool row,
                        bool col, size_t data_size) {
    Node *x = zeros(256), *y = view(x, shape, ndim, strides, 100);
    assert_true(node_eval(y));
    assert_int_equal(y->contiguous, packed);
    assert_int_equal(y->row_contiguous, row);
    assert_int_equal(y->col_contiguous, col);
    assert_int_equal(y->data_size, data_size);
    node_release(y);
    node_release(x);
}

static void test_layout_flags(void **state) {
    (void)state;
    check_flags(INTS(2, 3), 2, (int64_t[]){3, 1}, true, true, false, 6);
    check_flags(INTS(2, 3), 2, (int64_t[]){1, 2}, true, false, true, 6);
    check_flags(INTS(2, 3), 2, (int64_t[]){6, 1}, false, false, false, 9);
    check_flags(INTS(6), 1, (int64_t[]){1}, true, true, true, 6);
    check_flags(INTS(6), 1, (int64_t[]){-1}, false, false, false, 6);
    check_flags(INTS(6), 1, (int64_t[]){2}, false, false, false, 11);
    check_flags(INTS(4, 3), 2, (int64_t[]){0, 1}, true, false, false, 3);
    check_flags(INTS(4, 3), 2, (int64_t[]){0, 0}, true, false, false, 1);
    check_flags(INTS(1, 3), 2, (int64_t[]){77, 1}, true, true, true, 3);
    check_flags(INTS(2, 3, 4), 3, (int64_t[]){4, 8, 1}, true, false, false, 24);
    check_flags(INTS(3, 3), 2, (int64_t[]){2, 2}, false, false, false, 9);
    check_flags(INTS(3, 0), 2, (int64_t[]){0, 1}, true, true, true, 0);
    check_flags(INTS(0), 0, NULL, true, true, true, 1);
}

static void test_outputs_inherit_packed_layouts(void **state) {
    (void)state;
    Node *x = zeros(6), *t = view(x, INTS(2, 3), 2, (int64_t[]){1, 2}, 0), *y = increment(t);
    assert_true(node_eval(y));
    assert_true(y->col_contiguous);
    assert_int_equal(y->strides[1], 2);
    Node *scalar = zeros(1), *wide = view(scalar, INTS(3, 3), 2, (int64_t[]){0, 0}, 0);
    Node *z = increment(wide);
    assert_true(node_eval(z));
    assert_int_equal(z->data_size, 1);
    assert_int_equal(z->strides[0], 0);
    float rows[9];
    node_read(z, rows);
    assert_float_equal(rows[8], 1, 0);
    Node *all[] = {x, t, y, scalar, wide, z};
    for (int i = 0; i < 6; i++) node_release(all[i]);
}

static void test_walk_visits_every_item_in_row_major_order(void **state) {
    (void)state;
    const int shape[4] = {3, 1, 4, 5};
    const int64_t a[4] = {20, 999, 5, 1}, b[4] = {1, 0, 15, 3}, c[4] = {0, 0, 0, 1};
    Walk walk;
    walk_init(&walk, shape, 4, 3, (const int64_t *[]){a, b, c});
    int seen = 0;
    for (size_t row = 0; row < walk.rows; row++, walk_next(&walk))
        for (int64_t i = 0; i < walk.count; i++, seen++) {
            const int z = seen % 5, y = seen / 5 % 4, x = seen / 20;
            assert_int_equal(walk.at[0] + i * walk.step[0], seen);
            assert_int_equal(walk.at[1] + i * walk.step[1], x + 15 * y + 3 * z);
            assert_int_equal(walk.at[2] + i * walk.step[2], z);
        }
    assert_int_equal(seen, 60);
    const size_t last = walk.rows - 1;
    Walk jump;
    walk_init(&jump, shape, 4, 3, (const int64_t *[]){a, b, c});
    walk_seek(&jump, last);
    assert_int_equal(jump.at[0] + (jump.count - 1) * jump.step[0], 59);

    walk_init(&walk, shape, 4, 1, (const int64_t *[]){a});
    assert_int_equal(walk.rows, 1);
    assert_int_equal(walk.count, 60);
    walk_init(&walk, INTS(2, 0, 3), 3, 1, (const int64_t *[]){a});
    assert_int_equal(walk.rows * (size_t)walk.count, 0);
    walk_init(&walk, INTS(0), 1, 1, (const int64_t *[]){a});
    assert_int_equal(walk.rows, 0);
    walk_init(&walk, NULL, 0, 1, (const int64_t *[]){a});
    assert_int_equal(walk.rows * (size_t)walk.count, 1);
}

static void test_shapes_broadcast_by_the_trailing_rule(void **state) {
    (void)state;
    int out[NODE_DIMS], ndim;
    assert_true(shape_broadcast(INTS(2, 1, 3), 3, INTS(4, 1), 2, out, &ndim));
    assert_int_equal(ndim, 3);
    assert_memory_equal(out, INTS(2, 4, 3), 3 * sizeof(int));
    assert_true(shape_broadcast(INTS(1), 1, INTS(0), 1, out, &ndim));
    assert_int_equal(out[0], 0);
    assert_false(shape_broadcast(INTS(2, 3), 2, INTS(4), 1, out, &ndim));
    assert_non_null(strstr(last_error, "Shapes (2,3) and (4) cannot be broadcast."));
    int axis = -3;
    assert_false(axis_fix("sum", &axis, 2));
    assert_non_null(strstr(last_error, "[sum] Axis -3 is out of bounds for array with 2"));
    assert_true(axes_fix("sum", INTS(-1, 0), 2, 2, out));
    assert_int_equal(out[0], 1);
    assert_false(axes_fix("sum", INTS(-1, 1), 2, 2, out));
}

/* Rows and columns in the order of the enum; made with mlx 0.32.4's
 * type promotion. b bool, 1248 uint, i..l int8..int64, h half, f float, d double,
 * B bfloat16, c complex. */
static void test_promotion_table(void **state) {
    (void)state;
    static const char letters[] = "b1248ijklhfdBc";
    static const char *const table[DTYPE_COUNT] = {
        "b1248ijklhfdBc", "11248jjklhfdBc", "22248kkklhfdBc", "44448llllhfdBc", "88888ffffhfdBc",
        "ijklfijklhfdBc", "jjklfjjklhfdBc", "kkklfkkklhfdBc", "llllfllllhfdBc", "hhhhhhhhhhfdfc",
        "fffffffffffdfc", "dddddddddddddc", "BBBBBBBBBffdBc", "cccccccccccccc",
    };
    for (int a = 0; a < DTYPE_COUNT; a++)
        for (int b = 0; b < DTYPE_COUNT; b++)
            assert_int_equal(dtype_promote((mlx_dtype)a, (mlx_dtype)b),
                             strchr(letters, table[a][b]) - letters);
}

static void test_scalars_take_any_type(void **state) {
    (void)state;
    for (int dtype = 0; dtype < DTYPE_COUNT; dtype++) {
        Node *node = node_scalar(1, (mlx_dtype)dtype);
        assert_int_equal(node->dtype, dtype);
        node_release(node);
    }
    Node *huge = node_scalar(1e300, MLX_INT64), *minus = node_scalar(-3, MLX_INT8);
    assert_int_equal(*(int64_t *)node_data(huge), INT64_MAX);
    assert_int_equal(*(int8_t *)node_data(minus), -3);
    node_release(huge);
    node_release(minus);
}

static void test_memory_counters_and_cache(void **state) {
    (void)state;
    size_t before, active, peak, cached, limit, old;
    mlx_clear_cache();
    mlx_get_active_memory(&before);
    mlx_reset_peak_memory();
    Node *x = zeros(1 << 20);
    mlx_get_active_memory(&active);
    assert_int_equal(active - before, 4 << 20);
    assert_int_equal((uintptr_t)node_data(x) % 64, 0);
    node_release(x);
    mlx_get_active_memory(&active);
    assert_int_equal(active, before);
    mlx_get_peak_memory(&peak);
    assert_int_equal(peak, before + (4 << 20));
    mlx_get_cache_memory(&cached);
    assert_int_equal(cached, 4 << 20);
    x = zeros(1 << 20);
    mlx_get_cache_memory(&cached);
    assert_int_equal(cached, 0);
    node_release(x);
    mlx_clear_cache();
    mlx_get_cache_memory(&cached);
    assert_int_equal(cached, 0);

    assert_int_equal(mlx_set_cache_limit(&old, 1 << 20), 0);
    assert_int_equal(old, 32 << 20);
    node_release(zeros(1 << 20));
    mlx_get_cache_memory(&cached);
    assert_int_equal(cached, 0);
    for (int i = 1; i <= 20; i++) node_release(zeros(i * 10000));
    mlx_get_cache_memory(&cached);
    assert_in_range(cached, 1, 1 << 20);
    mlx_set_cache_limit(&limit, old);
    assert_int_equal(limit, 1 << 20);

    mlx_get_memory_limit(&limit);
    assert_true(limit > 0);
    mlx_set_memory_limit(&old, limit / 2);
    assert_int_equal(old, limit);
    mlx_set_memory_limit(&old, limit);
    assert_int_equal(old, limit / 2);
    mlx_set_wired_limit(&old, 5);
    assert_int_equal(old, 0);
    last_error[0] = 0;
    assert_null(node_from_data(NULL, MLX_FLOAT64, INTS(1 << 30, 1 << 25), 2));
    assert_non_null(strstr(last_error, "too large"));
}

static void *build_and_evaluate(void *shared) {
    for (int round = 0; round < 200; round++) {
        Node *x = node_retain(shared), *y;
        for (int i = 0; i < 20; i++, x = y) {
            y = increment(x);
            node_release(x);
        }
        if (!node_eval(x) || *(float *)node_data(x) != 20) return "wrong";
        node_release(x);
    }
    return NULL;
}

static void test_threads_evaluate_at_once(void **state) {
    (void)state;
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    Node *shared = zeros(100);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, build_and_evaluate, shared), 0);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        assert_null(result);
    }
    assert_int_equal(shared->refs, 1);
    node_release(shared);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_computed_before_eval),
        cmocka_unit_test(test_live_handles_are_never_overwritten),
        cmocka_unit_test(test_dead_inputs_are_reused_in_place),
        cmocka_unit_test(test_foreign_memory_is_never_written),
        cmocka_unit_test(test_deep_graphs_need_no_stack),
        cmocka_unit_test(test_shared_subgraphs_are_computed_once),
        cmocka_unit_test(test_a_null_input_gives_null_silently),
        cmocka_unit_test(test_failures_are_reported_and_leave_the_rest_usable),
        cmocka_unit_test(test_parts_are_views_of_one_buffer),
        cmocka_unit_test(test_layout_flags),
        cmocka_unit_test(test_outputs_inherit_packed_layouts),
        cmocka_unit_test(test_walk_visits_every_item_in_row_major_order),
        cmocka_unit_test(test_shapes_broadcast_by_the_trailing_rule),
        cmocka_unit_test(test_promotion_table),
        cmocka_unit_test(test_scalars_take_any_type),
        cmocka_unit_test(test_memory_counters_and_cache),
        cmocka_unit_test(test_threads_evaluate_at_once),
    };
    return cmocka_run_group_tests(tests, catch_errors, NULL);
}
