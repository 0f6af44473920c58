/* Fusion is invisible: random graphs of element-wise operations give the same
 * values, dtypes and layouts with it and without, whatever the dtypes, shapes,
 * strides and sizes; and what dies is reused. */
#include "engine/core/internal.h"
#undef SHAPE
#include "engine/ops_check.h"

#include <pthread.h>
#include <stdlib.h>

static uint32_t random_state;

static int pick(int n) {
    random_state = random_state * 1664525u + 1013904223u;
    return (int)((random_state >> 8) % (uint32_t)n);
}

static const mlx_dtype dtypes[] = {MLX_FLOAT32, MLX_FLOAT16,  MLX_BFLOAT16, MLX_FLOAT32,
                                   MLX_FLOAT16, MLX_BFLOAT16, MLX_INT32,    MLX_BOOL,
                                   MLX_UINT8,   MLX_INT64,    MLX_FLOAT64,  MLX_COMPLEX64};

/* An owned array of the shape, of random small numbers. */
static mlx_array random_array(const int *shape, int ndim) {
    size_t size = 1;
    for (int i = 0; i < ndim; i++) size *= (size_t)shape[i];
    double *values = malloc((size + 1) * sizeof *values);
    for (size_t i = 0; i < size; i++)
        values[i] = pick(4) ? (pick(200001) - 100000) / 16389.0 : (pick(161) - 80) / 16.0;
    mlx_array wide = mlx_array_new_data(values, shape, ndim, MLX_FLOAT64), x = mlx_array_new();
    free(values);
    assert_int_equal(mlx_astype(&x, wide, dtypes[pick(12)], cpu), 0);
    mlx_array_free(wide);
    mlx_array_eval(x);
    return x;
}

/* A leaf that broadcasts to shape: whole, one value, lower-dimensional, repeated,
 * transposed in memory, or every second item backwards. */
static mlx_array random_leaf(const int *shape, int ndim) {
    int dims[3];
    mlx_array x;
    switch (pick(8)) {
    case 0: return random_array(NULL, 0);
    case 1: {
        const int drop = pick(ndim + 1);
        return random_array(shape + drop, ndim - drop);
    }
    case 2: {
        for (int i = 0; i < ndim; i++) dims[i] = pick(2) ? shape[i] : 1;
        x = random_array(dims, ndim);
        if (pick(2)) mlx_broadcast_to(&x, x, shape, (size_t)ndim, cpu);
        return x;
    }
    case 3:
        for (int i = 0; i < ndim; i++) dims[i] = shape[ndim - 1 - i];
        x = random_array(dims, ndim);
        mlx_transpose(&x, x, cpu);
        return x;
    case 4: {
        int start[3], stop[3], step[3];
        for (int i = 0; i < ndim; i++) {
            const bool back = pick(2) && shape[i];
            dims[i] = 2 * shape[i] + 1;
            start[i] = back ? dims[i] - 2 : 0;
            stop[i] = back ? -dims[i] - 1 : 2 * shape[i];
            step[i] = back ? -2 : 2;
        }
        x = random_array(dims, ndim);
        mlx_slice(&x, x, start, (size_t)ndim, stop, (size_t)ndim, step, (size_t)ndim, cpu);
        return x;
    }
    default: return random_array(shape, ndim);
    }
}

static const struct {
    int (*call)(mlx_array *, const mlx_array, const mlx_stream);
    bool no_complex, no_bool;
} unaries[] = {
    {mlx_abs, false, false},    {mlx_negative, false, true}, {mlx_exp, true, false},
    {mlx_sigmoid, true, false}, {mlx_square, false, false},  {mlx_floor, true, false},
    {mlx_sign, false, false},   {mlx_tanh, true, false},     {mlx_isnan, false, false},
    {mlx_erf, true, false},     {mlx_rsqrt, true, false},    {mlx_logical_not, false, false},
    {mlx_log1p, true, false},   {mlx_sin, true, false}};
static const struct {
    int (*call)(mlx_array *, const mlx_array, const mlx_array, const mlx_stream);
    bool no_complex;
} binaries[] = {{mlx_add, false},     {mlx_subtract, false},     {mlx_multiply, false},
                {mlx_divide, false},  {mlx_maximum, true},       {mlx_minimum, true},
                {mlx_less, true},     {mlx_greater_equal, true}, {mlx_not_equal, false},
                {mlx_add, false},     {mlx_multiply, false},     {mlx_logical_and, false},
                {mlx_power, true},    {mlx_floor_divide, true},  {mlx_logaddexp, true},
                {mlx_remainder, true}};

enum { VALUES = 12 };

static bool is_complex(mlx_array x) {
    return mlx_array_dtype(x) == MLX_COMPLEX64;
}

/* A new value from existing ones. Operands are often dropped after their use. */
static mlx_array random_step(mlx_array *values, int n) {
    mlx_array y = mlx_array_new(), a = values[pick(n)], b = values[pick(n)], c = values[pick(n)];
    for (int tries = 0; tries < 20; tries++) {
        switch (pick(8)) {
        case 0: {
            const mlx_dtype to = dtypes[pick(12)];
            mlx_astype(&y, a, to, cpu);
            return y;
        }
        case 1:
            if (is_complex(b) != is_complex(c) && pick(2)) break;
            mlx_where(&y, a, b, c, cpu);
            return y;
        case 2:
        case 3: {
            const int k = pick(14);
            if ((unaries[k].no_complex && is_complex(a)) ||
                (unaries[k].no_bool && mlx_array_dtype(a) == MLX_BOOL))
                break;
            unaries[k].call(&y, a, cpu);
            return y;
        }
        default: {
            const int k = pick(16);
            if (binaries[k].no_complex && (is_complex(a) || is_complex(b))) break;
            binaries[k].call(&y, a, b, cpu);
            return y;
        }
        }
    }
    mlx_abs(&y, a, cpu);
    return y;
}

/* The graph of that seed, its last value evaluated. */
static mlx_array build(uint32_t seed, const int *shape, int ndim) {
    mlx_array values[VALUES + 24];
    random_state = seed;
    int n = 3 + pick(4);
    for (int i = 0; i < n; i++) values[i] = random_leaf(shape, ndim);
    const int steps = 1 + pick(20);
    for (int i = 0; i < steps; i++) {
        mlx_array y = random_step(values, n);
        if (!y.ctx) fail_msg("seed %u: %s", seed, last_error);
        if (pick(4) && n > 2) { /* one value makes room: nobody holds it now */
            const int at = pick(n);
            mlx_array_free(values[at]);
            values[at] = y;
        } else {
            values[n++] = y;
        }
        if (n > VALUES) mlx_array_free(values[--n]);
    }
    mlx_vector_array all = mlx_vector_array_new_data(values, (size_t)n);
    assert_int_equal(pick(2) ? mlx_eval(all) : mlx_array_eval(values[n - 1]), 0);
    mlx_vector_array_free(all);
    for (int i = 0; i < n - 1; i++) mlx_array_free(values[i]);
    return values[n - 1];
}

static bool same_item(mlx_dtype dtype, const uint8_t *a, const uint8_t *b, size_t size) {
    if (memcmp(a, b, size) == 0) return true;
    float x[2] = {0}, y[2] = {0};
    double p, q;
    uint16_t h, k;
    switch (dtype) { /* any NaN is as good as another */
    case MLX_FLOAT64:
        memcpy(&p, a, 8);
        memcpy(&q, b, 8);
        return isnan(p) && isnan(q);
    case MLX_COMPLEX64:
    case MLX_FLOAT32:
        memcpy(x, a, size);
        memcpy(y, b, size);
        for (int i = 0; i < 2; i++)
            if (memcmp(&x[i], &y[i], 4) != 0 && !(isnan(x[i]) && isnan(y[i]))) return false;
        return true;
    case MLX_FLOAT16:
    case MLX_BFLOAT16:
        memcpy(&h, a, 2);
        memcpy(&k, b, 2);
        h &= 0x7FFF;
        k &= 0x7FFF;
        return dtype == MLX_FLOAT16 ? h > 0x7C00 && k > 0x7C00 : h > 0x7F80 && k > 0x7F80;
    default: return false;
    }
}

static void assert_same(uint32_t seed, mlx_array fused, mlx_array plain) {
    Node *a = node_of(fused), *b = node_of(plain);
    assert_int_equal(a->dtype, b->dtype);
    assert_true(shape_equal(a, b));
    if (a->size > 1 && a->state == NODE_READY)
        for (int i = 0; i < a->ndim; i++)
            if (a->shape[i] > 1) assert_int_equal(a->strides[i], b->strides[i]);
    uint8_t *x = malloc(node_nbytes(a) + 1), *y = malloc(node_nbytes(b) + 1);
    node_read(a, x);
    node_read(b, y);
    for (size_t i = 0; i < a->size; i++)
        if (!same_item((mlx_dtype)a->dtype, x + i * a->itemsize, y + i * a->itemsize, a->itemsize))
            fail_msg("seed %u: item %zu of %zu (%s) differs", seed, i, a->size,
                     dtype_name((mlx_dtype)a->dtype));
    free(x);
    free(y);
}

static void compare(uint32_t seed, const int *shape, int ndim) {
    const bool before = fuse_set(false);
    mlx_array plain = build(seed, shape, ndim);
    fuse_set(true);
    mlx_array fused = build(seed, shape, ndim);
    fuse_set(before);
    assert_same(seed, fused, plain);
    mlx_array_free(plain);
    mlx_array_free(fused);
}

static void test_random_graphs_give_the_same_with_and_without_fusion(void **state) {
    (void)state;
    const int shapes[][3] = {{3, 5, 7}, {1, 1, 1}, {2, 1, 33}, {4, 0, 3}, {17, 3, 1}, {1, 1, 130}};
    for (uint32_t seed = 1; seed <= 1500; seed++)
        compare(seed, shapes[seed % 6], 1 + (int)(seed / 6 % 3));
}

static void test_graphs_of_several_tiles_and_threads_give_the_same(void **state) {
    (void)state;
    const int shapes[][3] = {{3, 41, 1031}, {130, 1025, 1}, {2, 70001, 1}, {1, 1, 140003}};
    for (uint32_t seed = 1; seed <= 24; seed++)
        compare(seed * 977, shapes[seed % 4], 2 + (int)(seed % 2));
}

/* A chain on an array that nobody holds keeps to that one buffer. */
static void test_a_chain_reuses_its_dying_input(void **state) {
    (void)state;
    enum { N = 1 << 18 };
    for (int fused = 0; fused < 2; fused++) {
        const bool before = fuse_set(fused);
        size_t active, peak;
        mlx_array one = mlx_array_new_float(1), x = mlx_array_new();
        mlx_clear_cache();
        mlx_zeros(&x, (int[]){N}, 1, MLX_FLOAT32, cpu);
        mlx_add(&x, x, one, cpu);
        mlx_array_eval(x);
        mlx_get_active_memory(&active);
        mlx_reset_peak_memory();
        for (int i = 0; i < 40; i++) {
            mlx_add(&x, x, one, cpu);
            mlx_negative(&x, x, cpu);
        }
        mlx_array_eval(x);
        mlx_get_peak_memory(&peak);
        assert_true(peak < active + N);
        assert_float_equal(mlx_array_data_float32(x)[N - 1], 1, 0);
        mlx_array_free(x);
        mlx_array_free(one);
        fuse_set(before);
    }
}

/* x * sigmoid(x) * y is computed in one piece: one buffer is made, none between. */
static void test_a_gated_unit_needs_no_memory_between(void **state) {
    (void)state;
    enum { N = 1 << 18 };
    const bool before = fuse_set(true);
    mlx_array x = OP(arange, 0, N, 1, MLX_FLOAT32), y = OP(arange, 0, N, 1, MLX_FLOAT32);
    mlx_array_eval(x);
    mlx_array_eval(y);
    size_t active, peak;
    mlx_clear_cache();
    mlx_get_active_memory(&active);
    mlx_reset_peak_memory();
    mlx_array r = mlx_array_new();
    mlx_sigmoid(&r, x, cpu);
    mlx_multiply(&r, x, r, cpu);
    mlx_multiply(&r, r, y, cpu);
    mlx_array_eval(r);
    mlx_get_peak_memory(&peak);
    assert_true(peak <= active + N * 4 + 8192);
    assert_float_equal(mlx_array_data_float32(r)[100], 10000, 0);
    mlx_array_free(r);
    fuse_set(before);
}

static void test_a_value_that_is_held_is_there_afterwards(void **state) {
    (void)state;
    mlx_array x = OP(arange, 0, 4, 1, MLX_FLOAT32);
    mlx_array square = OP(square, x), sum = OP(add, square, x);
    assert_int_equal(mlx_array_eval(sum), 0);
    bool ready = false;
    _mlx_array_is_available(&ready, square);
    assert_true(ready);
    check(square, 0, 1, 4, 9);
    check(sum, 0, 2, 6, 12);
}

/* More operations and more operands than one program holds. */
static void test_long_and_wide_graphs_are_cut(void **state) {
    (void)state;
    mlx_array one = scalar(MLX_FLOAT32, 1), x = mlx_array_new();
    mlx_array_set(&x, OP(arange, 0, 3, 1, MLX_FLOAT32));
    for (int i = 0; i < 1000; i++) mlx_add(&x, x, one, cpu);
    check(keep(x), 1000, 1001, 1002);
    mlx_array total = mlx_array_new();
    mlx_array_set(&total, OP(arange, 0, 3, 1, MLX_FLOAT32));
    for (int i = 0; i < 50; i++) {
        mlx_array term = mlx_array_new();
        mlx_arange(&term, i, i + 3, 1, MLX_FLOAT32, cpu);
        mlx_negative(&term, term, cpu);
        mlx_add(&total, total, term, cpu);
        mlx_array_free(term);
    }
    check(keep(total), -1225, -1274, -1323);
}

/* Numbers that differ from row to row, of a layout: row major, transposed in memory,
 * or one row for all. */
static mlx_array many(int rows, int n, mlx_dtype dtype, int layout, float scale) {
    mlx_array x = mlx_array_new(), factor = mlx_array_new_float(scale);
    const int dims[2] = {layout == 1 ? n : rows, layout == 1 ? rows : n};
    mlx_arange(&x, 0, layout == 2 ? n : (double)rows * n, 1, MLX_FLOAT32, cpu);
    mlx_multiply(&x, x, factor, cpu);
    mlx_sin(&x, x, cpu);
    if (layout < 2) mlx_reshape(&x, x, dims, 2, cpu);
    mlx_astype(&x, x, dtype, cpu);
    if (layout == 1) mlx_transpose(&x, x, cpu);
    mlx_array_eval(x);
    mlx_array_free(factor);
    return x;
}

/* What becomes of x, a sum of large arrays, and of its norm. */
typedef struct NormCase {
    int rows, n;
    mlx_dtype dtype, weight;
    int layout; /* of the right operand */
    bool layer; /* layer norm */
    bool keep;  /* the sum is needed afterwards */
    bool late;  /* the weight is not ready when the sum is made */
    bool two;   /* the sum is made of two steps */
} NormCase;

/* The results of the case: the norm, and the sum or nothing. */
static void sum_and_norm(const NormCase *c, mlx_array *norm, mlx_array *sum) {
    mlx_array a = many(c->rows, c->n, c->dtype, 0, 0.37f);
    mlx_array b = many(c->rows, c->n, c->dtype, c->layout, 1.1f);
    mlx_array w = many(1, c->n, c->weight, 2, 0.7f), v = mlx_array_new(), x = mlx_array_new();
    mlx_array_set(&v, w);
    if (c->late) mlx_square(&w, w, cpu);
    mlx_add(&x, a, b, cpu);
    if (c->two) mlx_tanh(&x, x, cpu);
    mlx_array_free(a);
    mlx_array_free(b);
    *norm = mlx_array_new();
    *sum = mlx_array_new();
    if (c->layer)
        mlx_fast_layer_norm(norm, x, w, v, 1e-5f, cpu);
    else
        mlx_fast_rms_norm(norm, x, w, 1e-5f, cpu);
    if (c->keep) mlx_array_set(sum, x);
    mlx_array_free(x);
    mlx_array_free(w);
    mlx_array_free(v);
    assert_int_equal(mlx_array_eval(*norm), 0);
}

static void test_a_norm_computed_with_what_it_reads_is_the_same(void **state) {
    (void)state;
    static const NormCase cases[] = {
        {.rows = 600, .n = 1025, .dtype = MLX_FLOAT32, .weight = MLX_FLOAT32, .keep = true},
        {.rows = 600, .n = 1025, .dtype = MLX_FLOAT32, .weight = MLX_FLOAT32},
        {.rows = 1100, .n = 1031, .dtype = MLX_BFLOAT16, .weight = MLX_BFLOAT16, .keep = true},
        {.rows = 1100, .n = 1031, .dtype = MLX_FLOAT16, .weight = MLX_FLOAT16, .layer = true},
        {.rows = 1100, .n = 1031, .dtype = MLX_BFLOAT16, .weight = MLX_BFLOAT16, .layer = true},
        {.rows = 1, .n = 700001, .dtype = MLX_FLOAT32, .weight = MLX_FLOAT32, .keep = true},
        {.rows = 200003, .n = 3, .dtype = MLX_FLOAT32, .weight = MLX_FLOAT32, .layer = true},
        {.rows = 600, .n = 1025, .dtype = MLX_FLOAT32, .weight = MLX_FLOAT32, .layout = 1},
        {.rows = 600, .n = 1025, .dtype = MLX_FLOAT32, .weight = MLX_FLOAT32, .layout = 2},
        {.rows = 600, .n = 1025, .dtype = MLX_FLOAT32, .weight = MLX_FLOAT32, .late = true},
        {.rows = 1100, .n = 1031, .dtype = MLX_BFLOAT16, .weight = MLX_BFLOAT16, .two = true},
        {.rows = 300, .n = 1025, .dtype = MLX_FLOAT64, .weight = MLX_FLOAT64, .two = true}};
    for (uint32_t i = 0; i < BASE_COUNT(cases); i++) {
        mlx_array norm[2], sum[2];
        const bool before = fuse_set(false);
        sum_and_norm(&cases[i], &norm[0], &sum[0]);
        fuse_set(true);
        sum_and_norm(&cases[i], &norm[1], &sum[1]);
        fuse_set(before);
        assert_same(i, norm[1], norm[0]);
        if (cases[i].keep) assert_same(i, sum[1], sum[0]);
        for (int k = 0; k < 2; k++) {
            mlx_array_free(norm[k]);
            mlx_array_free(sum[k]);
        }
    }
}

/* The norm of a sum that is needed no longer lies where the sum was. */
static void test_a_norm_takes_the_memory_of_a_sum_that_dies(void **state) {
    (void)state;
    enum { ROWS = 600, N = 1024 };
    const bool before = fuse_set(true);
    mlx_array a = many(ROWS, N, MLX_FLOAT32, 0, 1), x = mlx_array_new(), none = {NULL};
    size_t active, peak;
    mlx_clear_cache();
    mlx_get_active_memory(&active);
    mlx_reset_peak_memory();
    mlx_add(&x, a, a, cpu);
    mlx_fast_rms_norm(&x, x, none, 1e-5f, cpu);
    mlx_array_eval(x);
    mlx_get_peak_memory(&peak);
    assert_true(peak <= active + ROWS * N * 4 + 8192);
    mlx_array_free(x);
    mlx_array_free(a);
    fuse_set(before);
}

static void *evaluate_in_thread(void *seed_pointer) {
    const uint32_t seed = *(uint32_t *)seed_pointer;
    mlx_stream stream = mlx_default_cpu_stream_new();
    mlx_array x = mlx_array_new(), half = mlx_array_new_float(0.5f);
    float value = 0;
    for (int round = 0; round < 40; round++) {
        mlx_full(&x, (int[]){2, 3001}, 2, half, MLX_FLOAT32, stream);
        for (uint32_t i = 0; i < 10 + seed; i++) {
            mlx_add(&x, x, half, stream);
            mlx_multiply(&x, x, half, stream);
        }
        mlx_max(&x, x, false, stream);
        mlx_array_item_float32(&value, x);
    }
    mlx_array_free(x);
    mlx_array_free(half);
    mlx_stream_free(stream);
    return value == 0.5f ? NULL : seed_pointer;
}

static void test_threads_fuse_at_once(void **state) {
    (void)state;
    pthread_t threads[4];
    uint32_t seeds[4] = {1, 2, 3, 4};
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, evaluate_in_thread, &seeds[i]), 0);
    for (int i = 0; i < 4; i++) {
        void *problem;
        pthread_join(threads[i], &problem);
        assert_null(problem);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_random_graphs_give_the_same_with_and_without_fusion),
        TEST(test_graphs_of_several_tiles_and_threads_give_the_same),
        TEST(test_a_chain_reuses_its_dying_input),
        TEST(test_a_gated_unit_needs_no_memory_between),
        TEST(test_a_value_that_is_held_is_there_afterwards),
        TEST(test_long_and_wide_graphs_are_cut),
        TEST(test_a_norm_computed_with_what_it_reads_is_the_same),
        TEST(test_a_norm_takes_the_memory_of_a_sum_that_dies),
        TEST(test_threads_fuse_at_once),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
