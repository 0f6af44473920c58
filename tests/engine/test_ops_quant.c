/* Weights of few bits beyond plain affine products: the fp modes, gather_qmm,
 * qqmm, bytes of E4M3. */
#include "ops_check.h"

#include "base/base.h"

typedef struct Mode {
    const char *name;
    int bits, group;
} Mode;
static const Mode modes[] = {
    {"affine", 4, 64}, {"mxfp4", 4, 32}, {"mxfp8", 8, 32}, {"nvfp4", 4, 16}};
static const mlx_dtype dtypes[] = {MLX_FLOAT32, MLX_FLOAT16, MLX_BFLOAT16};
static const mlx_optional_int usual = {0, false};
static const mlx_optional_dtype wide = {MLX_FLOAT32, true}, unsaid = {MLX_FLOAT32, false};

/* Multiples of 1/64 without a pattern that groups would share. */
static mlx_array pattern(mlx_dtype dtype, const int *shape, int ndim, int seed) {
    static double values[65536];
    size_t size = 1;
    for (int i = 0; i < ndim; i++) size *= (size_t)shape[i];
    assert_true(size <= 65536);
    for (size_t i = 0; i < size; i++)
        values[i] = (double)((int)((i * 29 + i * i % 7 + (size_t)seed * 31) % 97) - 48) / 64.0;
    return make(dtype, shape, ndim, values, size);
}

/* parts[2] is null for the fp modes. */
static void pack(mlx_array parts[3], mlx_array w, const char *mode) {
    parts[2] = NONE;
    OPV(parts, quantize, w, usual, usual, mode, NONE);
}
/* The exact weights: affine arithmetic is that of the scales' type. */
static mlx_array unpack(const mlx_array parts[3], const char *mode) {
    if (parts[2].ctx)
        return OP(dequantize, parts[0], OP(astype, parts[1], MLX_FLOAT32),
                  OP(astype, parts[2], MLX_FLOAT32), usual, usual, mode, NONE, wide);
    return OP(dequantize, parts[0], parts[1], parts[2], usual, usual, mode, NONE, wide);
}

static uint64_t hash_of(const mlx_array *parts, int count) {
    StrBuf bytes = {0};
    for (int i = 0; i < count; i++) {
        mlx_array raw = OP(view, OP(contiguous, parts[i], false), MLX_UINT8);
        mlx_array_eval(raw);
        base_str_append_n(&bytes, (const char *)mlx_array_data_uint8(raw), mlx_array_size(raw));
    }
    const uint64_t hash = base_hash(bytes.data, bytes.length);
    base_str_free(&bytes);
    return hash;
}

/* w[i] = ((i*i*7 + i*37) % 1009 - 500) / 128 * 2^(i / 64 % 9 - 4), [4, 256]. */
static mlx_array golden_weights(mlx_dtype dtype) {
    double values[1024];
    for (int i = 0; i < 1024; i++)
        values[i] = ldexp(((i * i * 7 + i * 37) % 1009 - 500) / 128.0, i / 64 % 9 - 4);
    return make(dtype, SHAPE(4, 256), values, 1024);
}

static void test_fp_quantize_equals_mlx_bit_for_bit(void **state) {
    (void)state;
    /* FNV-1a of words and scales as bytes, by mlx[cpu] 0.31.2. */
    static const uint64_t expected[3][3] = {
        {0x7f076274c8a012b1, 0x7f076274c8a012b1, 0x1e80ab5b7c8f03b6},
        {0xd0977674234ff6f7, 0xd0977674234ff6f7, 0xe4ba1e9a5c2e8c07},
        {0xe8c3f28865067a4f, 0xe8c3f28865067a4f, 0x106b20edc9a5e543}};
    for (int m = 0; m < 3; m++)
        for (int d = 0; d < 3; d++) {
            mlx_array parts[3];
            pack(parts, golden_weights(dtypes[d]), modes[m + 1].name);
            check_shape(parts[0], MLX_UINT32, SHAPE(4, 8 * modes[m + 1].bits));
            check_shape(parts[1], MLX_UINT8, SHAPE(4, 256 / modes[m + 1].group));
            if (hash_of(parts, 2) != expected[m][d])
                fail_msg("%s of dtype %d differs", modes[m + 1].name, (int)dtypes[d]);
        }
}

static void test_affine_dequantize_rounds_as_mlx_does(void **state) {
    (void)state;
    /* FNV-1a of the dense weights as bytes, by mlx[cpu] 0.31.2. */
    static const int bits[] = {2, 3, 4, 5, 6, 8};
    static const uint64_t expected[3][6] = {
        {0x81c9236b3e20f9f1, 0x715f1a4dd134d6f2, 0xc98fac5f9b76b463, 0xd3344e2b247bee88,
         0x2d31df9a5fa8ab4b, 0x79fb7dc1dbaf0bf5},
        {0xbd3323012a8fec59, 0xc11e6da597e551ce, 0xbf30fae5dc4c8046, 0x8408b0fa91e97cf9,
         0x94c409f4c10e6d49, 0xcaf50fb6cfc3f26e},
        {0xacad47299c992a7f, 0xb9d255e6cd2cddff, 0x93a471d745666e69, 0x5d240d7ac56f6f41,
         0xe61a25fff36ffd43, 0x2baca03e6ad02af}};
    for (int d = 0; d < 3; d++)
        for (int b = 0; b < 6; b++) {
            const mlx_optional_int width = {bits[b], true};
            mlx_array parts[3];
            OPV(parts, quantize, golden_weights(dtypes[d]), usual, width, "affine", NONE);
            mlx_array dense =
                OP(dequantize, parts[0], parts[1], parts[2], usual, width, "affine", NONE, unsaid);
            check_shape(dense, dtypes[d], SHAPE(4, 256));
            if (hash_of(&dense, 1) != expected[d][b])
                fail_msg("%d bits of dtype %d differ", bits[b], (int)dtypes[d]);
            /* Another type of result changes nothing in the arithmetic. */
            mlx_array wider =
                OP(dequantize, parts[0], parts[1], parts[2], usual, width, "affine", NONE, wide);
            check_near(wider, doubles(OP(astype, dense, MLX_FLOAT32)), 1024, 0);
        }
}

static void test_a_global_scale_spreads_the_scales(void **state) {
    (void)state;
    /* By mlx[cpu] 0.31.2. */
    mlx_array parts[3], global = scalar(MLX_FLOAT32, 300);
    OPV(parts, quantize, golden_weights(MLX_FLOAT32), usual, usual, "nvfp4", global);
    assert_true(hash_of(parts, 2) == 0x96e7c191db6bb58b);
    mlx_array y = OP(dequantize, parts[0], parts[1], NONE, usual, usual, "nvfp4", global, wide);
    const double first[] = {-0.251116067, -0.251116067,  -0.167410716,  -0.167410716,
                            -0.125558034, -0.0627790168, -0.0209263396, 0.0418526791};
    check_near(OP(slice, y, INTS(0, 0), INTS(1, 8), INTS(1, 1)), first, 8, 1e-8);
    y = OP(dequantize, parts[0], parts[1], NONE, usual, usual, "nvfp4", global, unsaid);
    assert_int_equal(mlx_array_dtype(y), MLX_FLOAT32);
}

static void test_fp_dequantize_defaults_to_bfloat16(void **state) {
    (void)state;
    /* Items 60 to 69 by mlx[cpu] 0.31.2. */
    static const double expected[3][10] = {
        {-0.1875, -0.1875, 0.1875, 0.1875, 0.25, 0.1875, 0.125, 0.09375, 0.0625, 0.0625},
        {-0.15625, -0.21875, 0.21875, 0.171875, 0.25, 0.203125, 0.140625, 0.1015625, 0.078125,
         0.0625},
        {-0.15625, -0.234375, 0.234375, 0.15625, 0.234375, 0.234375, 0.15625, 0.1171875, 0.078125,
         0.078125}};
    for (int m = 0; m < 3; m++) {
        mlx_array parts[3];
        pack(parts, golden_weights(MLX_FLOAT32), modes[m + 1].name);
        mlx_array y =
            OP(dequantize, parts[0], parts[1], NONE, usual, usual, modes[m + 1].name, NONE, unsaid);
        check_shape(y, MLX_BFLOAT16, SHAPE(4, 256));
        check_near(OP(slice, y, INTS(0, 60), INTS(1, 70), INTS(1, 1)), expected[m], 10, 0);
        const mlx_optional_dtype exact = {MLX_FLOAT64, true};
        y = OP(dequantize, parts[0], parts[1], NONE, usual, usual, modes[m + 1].name, NONE, exact);
        check_near(OP(slice, y, INTS(0, 60), INTS(1, 70), INTS(1, 1)), expected[m], 10, 0);
    }
}

/* y equals x @ dense by float64, within the rounding of its dtype. */
static void check_product(mlx_array y, mlx_array x, mlx_array dense) {
    const double near = mlx_array_dtype(y) == MLX_FLOAT32    ? 1e-5
                        : mlx_array_dtype(y) == MLX_BFLOAT16 ? 1e-2
                                                             : 2e-3;
    mlx_array want = OP(matmul, OP(astype, x, MLX_FLOAT64), OP(astype, dense, MLX_FLOAT64));
    assert_int_equal(mlx_array_ndim(y), mlx_array_ndim(want));
    for (size_t i = 0; i < mlx_array_ndim(y); i++)
        assert_int_equal(mlx_array_shape(y)[i], mlx_array_shape(want)[i]);
    check_near(y, doubles(want), mlx_array_size(want), near);
}

static void test_fp_products_equal_the_dense_ones(void **state) {
    (void)state;
    const int rows[] = {1, 3, 20};
    for (int m = 1; m < 4; m++)
        for (int d = 0; d < 3; d++)
            for (int r = 0; r < 3; r++) {
                mlx_array parts[3];
                pack(parts, pattern(dtypes[d], SHAPE(24, 160), m), modes[m].name);
                mlx_array dense = unpack(parts, modes[m].name);
                mlx_array x = pattern(dtypes[d], SHAPE(rows[r], 160), 5);
                mlx_array y = OP(quantized_matmul, x, parts[0], parts[1], NONE, true, usual, usual,
                                 modes[m].name);
                assert_int_equal(mlx_array_dtype(y), dtypes[d]);
                check_product(y, x, OP(transpose, dense));
                x = pattern(dtypes[d], SHAPE(rows[r], 24), 5);
                y = OP(quantized_matmul, x, parts[0], parts[1], NONE, false, usual, usual,
                       modes[m].name);
                check_product(y, x, dense);
                release_all(NULL);
            }
}

static void test_fp_products_of_batches(void **state) {
    (void)state;
    for (int m = 1; m < 4; m++) {
        mlx_array parts[3];
        pack(parts, pattern(MLX_FLOAT32, SHAPE(3, 4, 64), 2), modes[m].name);
        mlx_array x = pattern(MLX_FLOAT32, SHAPE(2, 1, 5, 64), 3);
        mlx_array dense = OP(swapaxes, unpack(parts, modes[m].name), 1, 2);
        check_product(
            OP(quantized_matmul, x, parts[0], parts[1], NONE, true, usual, usual, modes[m].name), x,
            dense);
    }
}

static void test_ones_sum_exactly_in_every_mode(void **state) {
    (void)state;
    for (int m = 0; m < 4; m++) {
        mlx_array parts[3], x = OP(ones, INTS(1, 1024), MLX_BFLOAT16);
        pack(parts, OP(ones, INTS(2, 1024), MLX_BFLOAT16), modes[m].name);
        mlx_array row = OP(sum, OP(astype, unpack(parts, modes[m].name), MLX_FLOAT64), false);
        const double want = doubles(row)[0] / 2;
        if (m == 0) assert_true(want == 1024); /* the others have no code for it */
        const double both[] = {want, want};
        check_near(OP(quantized_matmul, x, parts[0], parts[1], parts[2], true, usual, usual,
                      modes[m].name),
                   both, 2, 0);
    }
}

/* ---- gather_qmm ---------------------------------------------------------------------- */

#define GATHER(x, parts, lhs, rhs, transpose, mode) \
    OP(gather_qmm, x, parts[0], parts[1], parts[2], lhs, rhs, transpose, usual, usual, mode, false)

static mlx_array indices(const int *shape, int ndim, const double *values, size_t count) {
    return make(MLX_UINT32, shape, ndim, values, count);
}

static void test_gather_takes_matrices_of_both_sides(void **state) {
    (void)state;
    for (int m = 0; m < 4; m++)
        for (int d = 0; d < 3; d++)
            for (int turned = 0; turned < 2; turned++) {
                mlx_array parts[3];
                pack(parts, pattern(dtypes[d], SHAPE(4, 64, 128), m), modes[m].name);
                mlx_array dense = unpack(parts, modes[m].name);
                if (turned) dense = OP(swapaxes, dense, 1, 2);
                mlx_array x = pattern(dtypes[d], SHAPE(3, 2, turned ? 128 : 64), 5);
                mlx_array lhs = indices(SHAPE(2, 1), VALUES(2, 0));
                mlx_array rhs = indices(SHAPE(3), VALUES(3, 1, 3));
                mlx_array y = GATHER(x, parts, lhs, rhs, turned, modes[m].name);
                check_shape(y, dtypes[d], SHAPE(2, 3, 2, turned ? 64 : 128));
                mlx_array left = OP(take_axis, x, lhs, 0), right = OP(take_axis, dense, rhs, 0);
                check_product(y, left, right);
                release_all(NULL);
            }
}

static void test_gather_defaults_to_every_matrix(void **state) {
    (void)state;
    mlx_array parts[3];
    pack(parts, pattern(MLX_FLOAT32, SHAPE(4, 32, 64), 1), "affine");
    mlx_array dense = OP(swapaxes, unpack(parts, "affine"), 1, 2);
    mlx_array x = pattern(MLX_FLOAT32, SHAPE(2, 1, 1, 64), 3);
    mlx_array rhs = indices(SHAPE(2, 2), VALUES(2, 0, 1, 2));
    mlx_array y = GATHER(x, parts, NONE, rhs, true, "affine");
    check_shape(y, MLX_FLOAT32, SHAPE(2, 2, 1, 32)); /* [2, 1] with [2, 2] */
    mlx_array right = OP(take_axis, dense, rhs, 0);
    mlx_array want = OP(matmul, x, right);
    check_near(y, doubles(want), 128, 1e-5);
    x = pattern(MLX_FLOAT32, SHAPE(3, 64), 3);
    y = GATHER(x, parts, NONE, indices(SHAPE(2), VALUES(3, 3)), true, "affine");
    check_shape(y, MLX_FLOAT32, SHAPE(2, 3, 32));
    x = pattern(MLX_FLOAT32, SHAPE(4, 2, 64), 3);
    check_product(GATHER(x, parts, NONE, NONE, true, "affine"), x, dense);
    y = GATHER(x, parts, indices(SHAPE(4), VALUES(3, 2, 1, 0)), NONE, true, "affine");
    check_near(
        y, doubles(OP(matmul, OP(take_axis, x, indices(SHAPE(4), VALUES(3, 2, 1, 0)), 0), dense)),
        256, 1e-5);
    y = GATHER(x, parts, OP(zeros, INTS(0), MLX_UINT32), OP(zeros, INTS(0), MLX_UINT32), true,
               "affine");
    check_shape(y, MLX_FLOAT32, SHAPE(0, 2, 32));
}

static void test_gather_groups_rows_of_one_expert(void **state) {
    (void)state;
    enum { TOKENS = 50 };
    double experts[TOKENS], sorted[TOKENS];
    for (int i = 0; i < TOKENS; i++) {
        experts[i] = i * i % 5;
        sorted[i] = i / 10;
    }
    for (int m = 0; m < 4; m++)
        for (int s = 0; s < 2; s++) {
            mlx_array parts[3];
            pack(parts, pattern(MLX_FLOAT32, SHAPE(5, 16, 128), m), modes[m].name);
            mlx_array dense = OP(swapaxes, unpack(parts, modes[m].name), 1, 2);
            mlx_array rhs = indices(SHAPE(TOKENS), s ? sorted : experts, TOKENS);
            mlx_array x = pattern(MLX_FLOAT32, SHAPE(TOKENS, 1, 128), 5);
            mlx_array y = OP(gather_qmm, x, parts[0], parts[1], parts[2], NONE, rhs, true, usual,
                             usual, modes[m].name, s == 1);
            mlx_array right = OP(take_axis, dense, rhs, 0);
            check_near(y, doubles(OP(matmul, x, right)), TOKENS * 16, 1e-5);
            release_all(NULL);
        }
}

static void test_gather_refuses_what_does_not_fit(void **state) {
    (void)state;
    mlx_array parts[3], x = pattern(MLX_FLOAT32, SHAPE(2, 1, 64), 3);
    pack(parts, pattern(MLX_FLOAT32, SHAPE(4, 32, 64), 1), "affine");
    mlx_array good = indices(SHAPE(2), VALUES(1, 0));
#define BAD(text, x, parts, lhs, rhs)                                                      \
    FAILS(text, gather_qmm, x, parts[0], parts[1], parts[2], lhs, rhs, true, usual, usual, \
          "affine", false)
    BAD("integral", x, parts, NONE, scalar(MLX_FLOAT32, 1));
    BAD("broadcast", x, parts, good, indices(SHAPE(3), VALUES(1, 0, 1)));
    BAD("two dimensions", pattern(MLX_FLOAT32, SHAPE(64), 3), parts, good, good);
    BAD("does not match", pattern(MLX_FLOAT32, SHAPE(2, 1, 32), 3), parts, good, good);
    mlx_array y = GATHER(x, parts, NONE, indices(SHAPE(2), VALUES(1, 4)), true, "affine");
    assert_int_equal(mlx_array_eval(y), 1);
    assert_non_null(strstr(last_error, "out of range"));
    y = GATHER(x, parts, indices(SHAPE(2), VALUES(1, 2)), good, true, "affine");
    assert_int_equal(mlx_array_eval(y), 1);
}

/* ---- qqmm ----------------------------------------------------------------------------- */

static mlx_array golden_x(mlx_dtype dtype) {
    double values[64];
    for (int i = 0; i < 64; i++) values[i] = (i * 37 % 101 - 50) / 16.0;
    return make(dtype, SHAPE(1, 64), values, 64);
}
static mlx_array golden_w(void) {
    double values[192];
    for (int i = 0; i < 192; i++) values[i] = (i % 64 * 53 % 97 - 48 + i / 64 * 5) / 32.0;
    return make(MLX_FLOAT32, SHAPE(3, 64), values, 192);
}

static void test_qqmm_quantises_the_activations(void **state) {
    (void)state;
    /* By mlx[cpu] 0.31.2. */
    static const double expected[2][3] = {{20.09375, 17.6191406, 17.6992188},
                                          {18.5566406, 18.0761719, 18.1113281}};
    for (int m = 0; m < 2; m++) {
        const char *mode = m ? "mxfp8" : "nvfp4";
        mlx_array parts[3], x = golden_x(MLX_FLOAT32);
        pack(parts, golden_w(), mode);
        mlx_array y = OP(qqmm, x, parts[0], parts[1], usual, usual, mode, NONE, NONE);
        check_shape(y, MLX_FLOAT32, SHAPE(1, 3));
        check_near(y, expected[m], 3, 1e-7);
        mlx_array line = OP(reshape, x, INTS(64));
        y = OP(qqmm, line, parts[0], parts[1], usual, usual, mode, NONE, NONE);
        check_shape(y, MLX_FLOAT32, SHAPE(3));
        check_near(y, expected[m], 3, 1e-7);
        mlx_array rows = OP(broadcast_to, x, INTS(2, 5, 64));
        y = OP(qqmm, rows, parts[0], parts[1], usual, usual, mode, NONE, NONE);
        check_shape(y, MLX_FLOAT32, SHAPE(2, 5, 3));
        check_near(OP(slice, y, INTS(1, 4, 0), INTS(2, 5, 3), INTS(1, 1, 1)), expected[m], 3, 1e-6);
        y = OP(qqmm, golden_x(MLX_BFLOAT16), parts[0], parts[1], usual, usual, mode, NONE, NONE);
        assert_int_equal(mlx_array_dtype(y), MLX_BFLOAT16);
        check_near(y, expected[m], 3, 4e-3);
    }
}

static void test_qqmm_quantises_float_weights_too(void **state) {
    (void)state;
    /* Values that every mode holds exactly. */
    mlx_array x = OP(full, INTS(2, 32), scalar(MLX_FLOAT32, 1.5), MLX_FLOAT32);
    mlx_array w = OP(full, INTS(3, 32), scalar(MLX_FLOAT32, -6), MLX_FLOAT32);
    const char *const names[] = {"mxfp4", "nvfp4", "mxfp8"};
    for (int m = 0; m < 3; m++)
        check(OP(qqmm, x, w, NONE, usual, usual, names[m], NONE, NONE), -288, -288, -288, -288,
              -288, -288);
    mlx_array sx = scalar(MLX_FLOAT32, 1.5), sw = scalar(MLX_FLOAT32, 6);
    const double want[] = {-288, -288, -288, -288, -288, -288};
    check_near(OP(qqmm, x, w, NONE, usual, usual, "nvfp4", sx, sw), want, 6, 1e-6);
    mlx_array parts[3];
    OPV(parts, quantize, w, usual, usual, "nvfp4", sw);
    check_near(OP(qqmm, x, parts[0], parts[1], usual, usual, "nvfp4", sx, sw), want, 6, 1e-6);
}

static void test_qqmm_refuses_what_does_not_fit(void **state) {
    (void)state;
    mlx_array x = golden_x(MLX_FLOAT32), w = golden_w(), parts[3], one = scalar(MLX_FLOAT32, 1);
    pack(parts, w, "nvfp4");
    FAILS("affine", qqmm, x, w, NONE, usual, usual, "affine", NONE, NONE);
    FAILS("Scales must be", qqmm, x, parts[0], NONE, usual, usual, "nvfp4", NONE, NONE);
    FAILS("neither", qqmm, x, w, NONE, usual, usual, "nvfp4", one, NONE);
    FAILS("only supported for 'nvfp4'", qqmm, x, w, NONE, usual, usual, "mxfp8", one, one);
    FAILS("2D", qqmm, x, OP(reshape, w, INTS(1, 3, 64)), NONE, usual, usual, "nvfp4", NONE, NONE);
    FAILS("first argument", qqmm, OP(astype, x, MLX_INT32), w, NONE, usual, usual, "nvfp4", NONE,
          NONE);
    FAILS("divisible", qqmm, OP(zeros, INTS(2, 40), MLX_FLOAT32),
          OP(zeros, INTS(3, 40), MLX_FLOAT32), NONE, usual, usual, "nvfp4", NONE, NONE);
    FAILS("must match", qqmm, OP(zeros, INTS(2, 32), MLX_FLOAT32), w, NONE, usual, usual, "nvfp4",
          NONE, NONE);
}

/* ---- settings and bytes ------------------------------------------------------------------ */

static void test_fp_modes_refuse_what_is_not_theirs(void **state) {
    (void)state;
    mlx_array parts[3], affine[3], w = pattern(MLX_FLOAT32, SHAPE(4, 64), 2);
    pack(parts, w, "mxfp4");
    pack(affine, w, "affine");
    mlx_vector_array out = mlx_vector_array_new();
#define NO(text, ...)                                              \
    do {                                                           \
        assert_int_equal(mlx_quantize(&out, __VA_ARGS__, cpu), 1); \
        assert_non_null(strstr(last_error, text));                 \
    } while (0)
    NO("group size 32", w, some(64), usual, "mxfp4", NONE);
    NO("bits to be 8", w, usual, some(4), "mxfp8", NONE);
    NO("Invalid quantization mode", w, usual, usual, "fp4", NONE);
    NO("Invalid quantization mode", w, usual, usual, NULL, NONE);
    NO("only supported for 'nvfp4'", w, usual, usual, "mxfp4", scalar(MLX_FLOAT32, 1));
    NO("scalar", w, usual, usual, "nvfp4", OP(ones, INTS(2), MLX_FLOAT32));
    NO("float32", w, usual, usual, "nvfp4", scalar(MLX_FLOAT16, 1));
    NO("divisible", pattern(MLX_FLOAT32, SHAPE(4, 40), 2), usual, usual, "mxfp8", NONE);
    NO("at least 2", pattern(MLX_FLOAT32, SHAPE(64), 2), usual, usual, "mxfp8", NONE);
    NO("w has type int32", OP(zeros, INTS(4, 64), MLX_INT32), usual, usual, "mxfp8", NONE);
    mlx_vector_array_free(out);
    FAILS("Biases must be null", dequantize, parts[0], parts[1], affine[2], usual, usual, "mxfp4",
          NONE, unsaid);
    FAILS("must be uint8", dequantize, affine[0], affine[1], NONE, some(32), usual, "mxfp4", NONE,
          unsaid);
    FAILS("incompatible", dequantize, parts[0], parts[1], NONE, usual, usual, "nvfp4", NONE,
          unsaid);
    FAILS("output dtype", dequantize, parts[0], parts[1], NONE, usual, usual, "mxfp4", NONE,
          ((mlx_optional_dtype){MLX_INT32, true}));
    FAILS("int32", quantized_matmul, OP(zeros, INTS(1, 64), MLX_INT32), parts[0], parts[1], NONE,
          true, usual, usual, "mxfp4");
    FAILS("uint32", quantized_matmul, w, w, parts[1], NONE, true, usual, usual, "mxfp4");
}

static void test_every_byte_of_fp8_comes_back(void **state) {
    (void)state;
    double values[256], codes[256];
    for (int c = 0; c < 256; c++) {
        const int exponent = c >> 3 & 15, mantissa = c & 7;
        values[c] = exponent ? ldexp(8 + mantissa, exponent - 10) : ldexp(mantissa, -9);
        if (c & 128) values[c] = -values[c];
        codes[c] = (c & 127) == 127 ? c - 1 : c; /* 480 is above the largest */
    }
    mlx_array bytes = OP(astype, OP(arange, 0, 256, 1, MLX_INT32), MLX_UINT8);
    const mlx_dtype all[] = {MLX_FLOAT32, MLX_FLOAT16, MLX_BFLOAT16, MLX_FLOAT64};
    for (int d = 0; d < 4; d++) {
        mlx_array x = OP(from_fp8, bytes, all[d]);
        check_shape(x, all[d], SHAPE(256));
        check_near(x, values, 256, 0);
        check_near(OP(to_fp8, x), codes, 256, 0);
    }
    mlx_array turned = OP(transpose, OP(reshape, OP(from_fp8, bytes, MLX_FLOAT32), INTS(16, 16)));
    mlx_array back = OP(transpose, OP(to_fp8, turned));
    check_near(back, codes, 256, 0);
    check(OP(to_fp8, make(MLX_FLOAT32, SHAPE(4), VALUES(1e9, -INFINITY, 0.0009765625, 1.0625))),
          126, 254, 0, 56);
    FAILS("uint8", from_fp8, scalar(MLX_INT32, 1), MLX_FLOAT32);
    FAILS("floating", from_fp8, bytes, MLX_INT32);
    FAILS("floating", to_fp8, bytes);
}

/* Products of one x in one evaluation, with others between them, against each
 * evaluated alone: the same bits. */
static void test_products_of_one_x_are_the_same_together_and_alone(void **state) {
    (void)state;
    enum { COUNT = 6 };
    static const int rows[COUNT] = {41, 8, 41, 64, 1, 33};
    for (size_t d = 0; d < 3; d++)
        for (int m = 1; m <= 10; m += 3) {
            mlx_array x = pattern(dtypes[d], SHAPE(1, m, 128), m), together[COUNT], alone[COUNT];
            for (int i = 0; i < COUNT; i++) {
                const char *mode = i == 4 ? "mxfp8" : "affine";
                mlx_array parts[3];
                pack(parts, pattern(dtypes[d], SHAPE(rows[i], 128), i), mode);
                for (int k = 0; k < 3; k++)
                    if (parts[k].ctx) mlx_array_eval(parts[k]);
                together[i] =
                    OP(quantized_matmul, x, parts[0], parts[1], parts[2], true, usual, usual, mode);
                if (i == 2) together[i] = OP(add, together[i], together[0]);
                alone[i] =
                    OP(quantized_matmul, x, parts[0], parts[1], parts[2], true, usual, usual, mode);
                mlx_array_eval(alone[i]);
                if (i == 2) alone[i] = OP(add, alone[i], alone[0]);
            }
            mlx_vector_array all = vector_of(together, COUNT);
            assert_int_equal(mlx_eval(all), 0);
            mlx_vector_array_free(all);
            for (int i = 0; i < COUNT; i++)
                assert_true(hash_of(&together[i], 1) == hash_of(&alone[i], 1));
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_fp_quantize_equals_mlx_bit_for_bit),
        TEST(test_affine_dequantize_rounds_as_mlx_does),
        TEST(test_products_of_one_x_are_the_same_together_and_alone),
        TEST(test_a_global_scale_spreads_the_scales),
        TEST(test_fp_dequantize_defaults_to_bfloat16),
        TEST(test_fp_products_equal_the_dense_ones),
        TEST(test_fp_products_of_batches),
        TEST(test_ones_sum_exactly_in_every_mode),
        TEST(test_gather_takes_matrices_of_both_sides),
        TEST(test_gather_defaults_to_every_matrix),
        TEST(test_gather_groups_rows_of_one_expert),
        TEST(test_gather_refuses_what_does_not_fit),
        TEST(test_qqmm_quantises_the_activations),
        TEST(test_qqmm_quantises_float_weights_too),
        TEST(test_qqmm_refuses_what_does_not_fit),
        TEST(test_fp_modes_refuse_what_is_not_theirs),
        TEST(test_every_byte_of_fp8_comes_back),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
