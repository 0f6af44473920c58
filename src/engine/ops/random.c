/* Random numbers: threefry keys and bits, and the distributions MLX makes of
 * them. Without a key, the calling thread's generator gives the next one. */
#include "mlx/c/random.h"
#include "engine/ops/ops.h"
#include "engine/ops/threefry.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- keys ----------------------------------------------------------------------- */

static _Thread_local struct {
    uint32_t key[2];
    bool seeded;
} generator;

static Node *key_node(uint32_t first, uint32_t second) {
    const uint32_t key[2] = {first, second};
    return node_from_data(key, MLX_UINT32, (int[]){2}, 1);
}

/* Splits the thread's key in two: the first half stays, the second is used. */
static Node *next_key(void) {
    if (!generator.seeded) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        mlx_random_seed((uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000);
    }
    uint32_t words[4];
    threefry_fill(generator.key, (uint8_t *)words, sizeof words);
    memcpy(generator.key, words, sizeof generator.key);
    return key_node(words[2], words[3]);
}

typedef struct BitsParam {
    int width;
} BitsParam;

static bool bits_eval(Node *node, Error *err) {
    const Node *key = node->inputs[0];
    uint32_t words[2];
    node_read(key, words);
    if (!node_alloc(node, err)) return false;
    threefry_fill(words, node_data(node), node_nbytes(node));
    return true;
}
static const Op bits_op = {"random_bits", bits_eval, NULL};

Node *op_random_bits(const int *shape, size_t ndim, int width, Node *key) {
    mlx_dtype dtype;
    switch (width) {
    case 4: dtype = MLX_UINT32; break;
    case 2: dtype = MLX_UINT16; break;
    case 1: dtype = MLX_UINT8; break;
    default: return op_error("[bits] Bit width must be in {1, 2, 4} but got %d.", width);
    }
    if (ndim > NODE_DIMS) return op_error("[bits] %zu axes are too many.", ndim);
    if (key && (key->dtype != MLX_UINT32 || key->ndim != 1 || key->shape[0] != 2))
        return op_error("[bits] Expected a key of shape (2) and type uint32, got %s of %s.",
                        SHAPE(key), dtype_name(key->dtype));
    Node *used = key ? node_retain(key) : next_key();
    Node *result = node_new_param(&bits_op, dtype, shape, (int)ndim, &(BitsParam){width},
                                  sizeof(BitsParam), NODES(used));
    node_release(used);
    return result;
}

/* ---- uniform ----------------------------------------------------------------------- */

/* Items of [0, 1): bits / 2^32 in float32, kept below 1 in the final dtype. */
static Node *unit_uniform(const int *shape, size_t ndim, mlx_dtype dtype, Node *key) {
    static const struct {
        mlx_dtype dtype;
        double below_one; /* the largest value under 1 */
    } types[] = {
        {MLX_FLOAT32, 0x1.fffffep-1}, {MLX_FLOAT16, 0x1.ffcp-1}, {MLX_BFLOAT16, 0x1.fep-1}};
    size_t which = 0;
    while (which < BASE_COUNT(types) && types[which].dtype != dtype) which++;
    if (which == BASE_COUNT(types))
        return op_error("[uniform] Only float32, float16 and bfloat16 are supported, got %s.",
                        dtype_valid(dtype) ? dtype_name(dtype) : "an unknown type");
    Node *bits = op_random_bits(shape, ndim, 4, key);
    Node *real = op_astype(bits, MLX_FLOAT32);
    Node *unit = op_binary_scalar(BINARY_MULTIPLY, real, 0x1p-32);
    Node *below = op_binary_scalar(BINARY_MINIMUM, unit, types[which].below_one);
    Node *result = op_astype(below, dtype);
    node_release(bits);
    node_release(real);
    node_release(unit);
    node_release(below);
    return result;
}

Node *op_random_uniform(Node *low, Node *high, const int *shape, size_t ndim, mlx_dtype dtype,
                        Node *key) {
    if (!low || !high) return NULL;
    Node *unit = unit_uniform(shape, ndim, dtype, key);
    if (!unit) return NULL;
    Node *from = op_astype(low, dtype), *to = op_astype(high, dtype);
    Node *range = op_binary(BINARY_SUBTRACT, to, from);
    Node *scaled = op_binary(BINARY_MULTIPLY, range, unit);
    Node *result = op_binary(BINARY_ADD, scaled, from);
    if (result && !shape_equal(result, unit)) {
        op_error("[uniform] Cannot generate random values of shape %s from broadcasted shape %s.",
                 SHAPE(unit), SHAPE(result));
        node_release(result);
        result = NULL;
    }
    Node *const temporaries[] = {unit, from, to, range, scaled};
    for (size_t i = 0; i < BASE_COUNT(temporaries); i++) node_release(temporaries[i]);
    return result;
}

/* ---- normal, gumbel -------------------------------------------------------------------- */

/* a * b rounded to dtype, both first rounded to it. */
static double product_in(mlx_dtype dtype, double a, double b) {
    Node *left = node_scalar(a, dtype);
    Node *product = op_binary_scalar(BINARY_MULTIPLY, left, b);
    double result = 0;
    if (product && node_eval(product)) cast_run(&result, MLX_FLOAT64, node_data(product), dtype, 1);
    node_release(left);
    node_release(product);
    return result;
}

static Node *op_normal(const int *shape, size_t ndim, mlx_dtype dtype, float loc, float scale,
                       Node *key) {
    if (dtype == MLX_COMPLEX64) {
        Node *centre = node_scalar((double)loc, dtype), *spread = node_scalar((double)scale, dtype);
        Node *numbers = op_normal_broadcast(shape, ndim, dtype, centre, spread, key);
        node_release(centre);
        node_release(spread);
        return numbers;
    }
    if (!dtype_valid(dtype) || dtype_info[dtype].kind != 'f')
        return op_error("[normal] Only floating point and complex64 types are supported.");
    Node *low = node_scalar((double)nextafterf(-1.0f, 0.0f), MLX_FLOAT32);
    Node *high = node_scalar(1, MLX_FLOAT32);
    Node *uniform = op_random_uniform(low, high, shape, ndim, MLX_FLOAT32, key);
    Node *quantile = op_unary(UNARY_ERFINV, uniform);
    Node *cast = op_astype(quantile, dtype);
    const double root = 1.4142135623730951;
    const double factor = scale != 1 ? product_in(dtype, (double)scale, root) : root;
    Node *result = op_binary_scalar(BINARY_MULTIPLY, cast, factor);
    if (loc != 0) {
        Node *centred = result;
        result = op_binary_scalar(BINARY_ADD, centred, (double)loc);
        node_release(centred);
    }
    Node *const temporaries[] = {low, high, uniform, quantile, cast};
    for (size_t i = 0; i < BASE_COUNT(temporaries); i++) node_release(temporaries[i]);
    return result;
}

/* -log(-log(u)). */
static Node *op_gumbel(const int *shape, size_t ndim, mlx_dtype dtype, Node *key) {
    Node *nodes[5] = {unit_uniform(shape, ndim, dtype, key)};
    for (int i = 1; i < 5; i++)
        nodes[i] = op_unary(i % 2 ? UNARY_LOG : UNARY_NEGATIVE, nodes[i - 1]);
    for (int i = 0; i < 4; i++) node_release(nodes[i]);
    return nodes[4];
}

/* ---- categorical ------------------------------------------------------------------------- */

/* inputs: logits of one distribution (float32), uniform numbers. The inverse of
 * the cumulative distribution: the last class whose sum before it is at most u
 * times the total. */
static bool inverse_cdf_eval(Node *node, Error *err) {
    Node *logits = ready_row_contiguous(node->inputs[0], err);
    Node *uniform = logits ? ready_row_contiguous(node->inputs[1], err) : NULL;
    float *sums = uniform ? base_try_alloc(logits->size, sizeof *sums, err) : NULL;
    const bool ok = sums && node_alloc(node, err);
    if (ok) {
        const size_t n = logits->size;
        const float *x = node_data(logits);
        const float high = cpu_max(CPU_F32, x, n);
        for (size_t i = 0; i < n; i++) sums[i] = x[i] - high;
        cpu_unary(CPU_EXP, CPU_F32, sums, sums, n);
        double total = 0;
        for (size_t i = 0; i < n; i++) {
            const double weight = (double)sums[i];
            sums[i] = (float)total;
            total += weight;
        }
        const float whole = (float)total;
        for (size_t i = 0; i < node->size; i++) {
            const float u = ((const float *)node_data(uniform))[i] * whole;
            size_t low = 0, count = n; /* the first sum above u lies in [low, low + count] */
            while (count > 0) {
                const size_t half = count / 2;
                if (sums[low + half] <= u) {
                    low += half + 1;
                    count -= half + 1;
                } else {
                    count = half;
                }
            }
            size_t class = low ? low - 1 : 0;
            while (class > 0 && sums[class] >= whole)
                class --; /* classes of no weight at the end */
            ((uint32_t *)node_data(node))[i] = (uint32_t) class;
        }
    }
    free(sums);
    node_release(logits);
    node_release(uniform);
    return ok;
}
static const Op inverse_cdf_op = {"categorical", inverse_cdf_eval, NULL};

/* shape: of the result. MLX draws from a single distribution by its inverse
 * cumulative sums and from several by the Gumbel-max trick. */
static Node *categorical(Node *logits, int axis, const int *shape, size_t ndim, Node *key) {
    if (!logits) return NULL;
    const int classes = logits->shape[axis];
    Node *real = op_astype(logits, MLX_FLOAT32), *result = NULL;
    if (!real) return NULL;
    if (logits->size == (size_t)classes && ndim > 0) {
        Node *uniform = unit_uniform(shape, ndim, MLX_FLOAT32, key);
        result = uniform
                     ? node_new(&inverse_cdf_op, MLX_UINT32, shape, (int)ndim, NODES(real, uniform))
                     : NULL;
        node_release(uniform);
    } else {
        const int place = axis + (int)ndim - logits->ndim + 1;
        int wide[NODE_DIMS];
        for (int i = 0; i <= (int)ndim; i++)
            wide[i] = i < place ? shape[i] : i == place ? classes : shape[i - 1];
        Node *noise = op_gumbel(wide, ndim + 1, MLX_FLOAT32, key);
        Node *scores = op_binary(BINARY_ADD, noise, real);
        result = op_arg_reduce(true, scores, place, false);
        node_release(noise);
        node_release(scores);
    }
    node_release(real);
    return result;
}

/* Fixes the axis and fills `reduced` with logits' shape without it. */
static bool categorical_axis(const Node *logits, int *axis, int *reduced) {
    if (!logits || !axis_fix("categorical", axis, logits->ndim)) return false;
    if (logits->dtype == MLX_COMPLEX64 || logits->size == 0) {
        op_error("[categorical] Cannot draw from %s of shape %s.", dtype_name(logits->dtype),
                 SHAPE(logits));
        return false;
    }
    for (int i = 0, n = 0; i < logits->ndim; i++)
        if (i != *axis) reduced[n++] = logits->shape[i];
    return true;
}

/* ---- the public functions ------------------------------------------------------------------- */

int mlx_random_key(mlx_array *res, uint64_t seed) {
    return op_finish(res, key_node((uint32_t)(seed >> 32), (uint32_t)seed));
}

int mlx_random_seed(uint64_t seed) {
    generator.key[0] = (uint32_t)(seed >> 32);
    generator.key[1] = (uint32_t)seed;
    generator.seeded = true;
    return 0;
}

int mlx_random_split_num(mlx_array *res, const mlx_array key, int num, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    Node *from = node_of(key);
    return from ? op_finish(res, op_random_bits((int[]){num, 2}, 2, 4, from)) : 1;
}

int mlx_random_split(mlx_array *res_0, mlx_array *res_1, const mlx_array key, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    Node *from = node_of(key);
    Node *both = from ? op_random_bits((int[]){2, 2}, 2, 4, from) : NULL;
    Node *keys[2];
    for (int i = 0; i < 2; i++) {
        Node *row = op_slice_axis(both, 0, i, i + 1);
        keys[i] = op_squeeze(row, (int[]){0}, 1);
        node_release(row);
    }
    node_release(both);
    if (!keys[0] || !keys[1]) {
        node_release(keys[0]);
        node_release(keys[1]);
        return 1;
    }
    return op_finish(res_0, keys[0]) | op_finish(res_1, keys[1]);
}

int mlx_random_bits(mlx_array *res, const int *shape, size_t shape_num, int width,
                    const mlx_array key, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res, op_random_bits(shape, shape_num, width, node_of_optional(key)));
}

int mlx_random_uniform(mlx_array *res, const mlx_array low, const mlx_array high, const int *shape,
                       size_t shape_num, mlx_dtype dtype, const mlx_array key, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res, op_random_uniform(node_of(low), node_of(high), shape, shape_num, dtype,
                                            node_of_optional(key)));
}

int mlx_random_normal(mlx_array *res, const int *shape, size_t shape_num, mlx_dtype dtype,
                      float loc, float scale, const mlx_array key, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res, op_normal(shape, shape_num, dtype, loc, scale, node_of_optional(key)));
}

int mlx_random_gumbel(mlx_array *res, const int *shape, size_t shape_num, mlx_dtype dtype,
                      const mlx_array key, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res, op_gumbel(shape, shape_num, dtype, node_of_optional(key)));
}

int mlx_random_categorical(mlx_array *res, const mlx_array logits, int axis, const mlx_array key,
                           const mlx_stream s) {
    int reduced[NODE_DIMS];
    if (!stream_ok(s)) return 1;
    Node *x = node_of(logits);
    if (!categorical_axis(x, &axis, reduced)) return 1;
    return op_finish(res,
                     categorical(x, axis, reduced, (size_t)x->ndim - 1, node_of_optional(key)));
}

int mlx_random_categorical_num_samples(mlx_array *res, const mlx_array logits_, int axis,
                                       int num_samples, const mlx_array key, const mlx_stream s) {
    int reduced[NODE_DIMS];
    if (!stream_ok(s)) return 1;
    Node *x = node_of(logits_);
    if (!categorical_axis(x, &axis, reduced)) return 1;
    if (num_samples < 0) {
        op_error("[categorical] The number of samples %d is negative.", num_samples);
        return 1;
    }
    reduced[x->ndim - 1] = num_samples;
    const int last = -1;
    Node *expanded = op_expand_dims(x, &last, 1);
    const int status = op_finish(
        res, categorical(expanded, axis, reduced, (size_t)x->ndim, node_of_optional(key)));
    node_release(expanded);
    return status;
}

int mlx_random_categorical_shape(mlx_array *res, const mlx_array logits, int axis, const int *shape,
                                 size_t shape_num, const mlx_array key, const mlx_stream s) {
    int reduced[NODE_DIMS], merged[NODE_DIMS], ndim;
    if (!stream_ok(s)) return 1;
    Node *x = node_of(logits);
    if (!categorical_axis(x, &axis, reduced)) return 1;
    if (shape_num >= NODE_DIMS) {
        op_error("[categorical] %zu axes are too many.", shape_num);
        return 1;
    }
    if (!shape_broadcast(shape, (int)shape_num, reduced, x->ndim - 1, merged, &ndim)) return 1;
    if (ndim != (int)shape_num || memcmp(merged, shape, shape_num * sizeof *shape) != 0) {
        op_error("[categorical] Requested shape %s is not broadcast compatible with reduced logits "
                 "shape %s.",
                 shape_text(&(ShapeText){{0}}, shape, (int)shape_num),
                 shape_text(&(ShapeText){{0}}, reduced, x->ndim - 1));
        return 1;
    }
    return op_finish(res, categorical(x, axis, shape, shape_num, node_of_optional(key)));
}
