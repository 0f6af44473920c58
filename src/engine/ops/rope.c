/* fast.rope: rotary position embedding (Su et al., 2021) of x [B, ..., T, D].
 *
 * The angles of a call are the same for every head and every layer of a step,
 * so each thread keeps the last table of cosines and sines it made. */
#include "engine/ops/rule.h"
#include "mlx/c/fast.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct RopeParam {
    int dims;
    bool traditional, has_base, has_offset, has_freqs; /* inputs behind x: offset, freqs */
    float base, scale;
    int offset;
} RopeParam;

enum { TABLE_ITEMS = 16384, TABLE_HALF = 512 };

/* What the angles depend on, and the angles: cosines, then sines. */
typedef struct RopeTable {
    bool filled;
    float base, scale, offset; /* base 0: by inv_freq */
    size_t half, length;
    float inv_freq[TABLE_HALF];
    float angles[2 * TABLE_ITEMS];
} RopeTable;
static _Thread_local RopeTable last_table;

/* 1 / freqs, or exp(-i ln(base) / half), in float32 as MLX computes them. */
static void inverse_frequencies(float *out, size_t half, float base, const float *freqs) {
    const float rate = logf(base) / (float)half;
    for (size_t i = 0; i < half; i++) out[i] = freqs ? 1.0f / freqs[i] : expf(-(float)i * rate);
}

/* Tables for `count` offsets of `length` positions each. Small single ones come
 * from the thread's last; others are made in *made, which the caller frees. */
static const float *rope_angles(const RopeParam *param, const float *freqs, const float *offsets,
                                size_t count, size_t length, float **made, Error *err) {
    const size_t half = (size_t)param->dims / 2, items = half * length;
    *made = NULL;
    if (count == 1 && items <= TABLE_ITEMS && half <= TABLE_HALF) {
        RopeTable *table = &last_table;
        bool same = table->filled && table->half == half && table->length == length &&
                    table->scale == param->scale && table->offset == offsets[0] &&
                    table->base == (freqs ? 0.0f : param->base);
        if (!same || freqs) {
            float inv_freq[TABLE_HALF];
            inverse_frequencies(inv_freq, half, param->base, freqs);
            same = same && memcmp(inv_freq, table->inv_freq, half * sizeof *inv_freq) == 0;
            memcpy(table->inv_freq, inv_freq, half * sizeof *inv_freq);
        }
        if (!same) {
            table->filled = true;
            table->half = half;
            table->length = length;
            table->scale = param->scale;
            table->offset = offsets[0];
            table->base = freqs ? 0.0f : param->base;
            cpu_rope_table(table->angles, table->angles + items, table->inv_freq, half, length,
                           offsets[0], param->scale);
        }
        return table->angles;
    }
    float *angles = base_try_alloc(2 * count * items + half, sizeof *angles, err);
    if (!angles) return NULL;
    float *inv_freq = angles + 2 * count * items;
    inverse_frequencies(inv_freq, half, param->base, freqs);
    for (size_t i = 0; i < count; i++)
        cpu_rope_table(angles + i * items, angles + (count + i) * items, inv_freq, half, length,
                       offsets[i], param->scale);
    *made = angles;
    return angles;
}

/* x as [batch, heads, length, D] by strides; false when the axes between the
 * first and the last two have no common stride. */
static bool rope_strides(const Node *x, ptrdiff_t strides[3], size_t *heads) {
    const int last = x->ndim - 1;
    if (x->shape[last] != 1 && x->strides[last] != 1) return false;
    strides[0] = (ptrdiff_t)x->strides[0];
    strides[2] = (ptrdiff_t)x->strides[last - 1];
    strides[1] = 0;
    *heads = 1;
    int64_t expected = -1;
    for (int i = last - 2; i >= 1; i--) {
        if (x->shape[i] == 1) continue;
        if (expected >= 0 && x->strides[i] != expected) return false;
        if (expected < 0) strides[1] = (ptrdiff_t)x->strides[i];
        expected = x->strides[i] * x->shape[i];
        *heads *= (size_t)x->shape[i];
    }
    return true;
}

static void rope_f64(const CpuRope *rope) {
    const size_t half = rope->dims / 2;
    const size_t step = rope->traditional ? 2 : 1, partner = rope->traditional ? 1 : half;
    for (size_t b = 0; b < rope->batch; b++)
        for (size_t h = 0; h < rope->heads; h++)
            for (size_t t = 0; t < rope->length; t++) {
                const ptrdiff_t place[3] = {(ptrdiff_t)b, (ptrdiff_t)h, (ptrdiff_t)t};
                const double *in = rope->in;
                double *out = rope->out;
                for (int i = 0; i < 3; i++) {
                    in += place[i] * rope->in_stride[i];
                    out += place[i] * rope->out_stride[i];
                }
                const size_t table = b * rope->table_stride + t * half;
                for (size_t i = 0; i < half; i++) {
                    const double c = (double)rope->cosine[table + i];
                    const double s = (double)rope->sine[table + i];
                    const double x1 = in[i * step], x2 = in[i * step + partner];
                    out[i * step] = x1 * c - x2 * s;
                    out[i * step + partner] = x1 * s + x2 * c;
                }
                for (size_t i = rope->dims; i < rope->head_dim; i++) out[i] = in[i];
            }
}

static bool rope_eval(Node *node, Error *err) {
    const RopeParam *param = node->param;
    const Node *x = node->inputs[0];
    const Node *offset = param->has_offset ? node->inputs[1] : NULL;
    Node *freqs = NULL;
    if (node->size == 0) return node_alloc(node, err);
    CpuRope rope = {.batch = (size_t)node->shape[0],
                    .length = (size_t)node->shape[node->ndim - 2],
                    .head_dim = (size_t)node->shape[node->ndim - 1],
                    .dims = (size_t)param->dims,
                    .traditional = param->traditional};
    const size_t count = offset && offset->size > 1 ? offset->size : 1;
    float few[16];
    float *offsets = count <= BASE_COUNT(few) ? few : base_try_alloc(count, sizeof *offsets, err);
    bool ok = offsets != NULL;
    if (ok && param->has_freqs)
        ok = (freqs = ready_row_contiguous(node->inputs[1 + param->has_offset], err)) != NULL;
    float *made = NULL;
    const float *angles = NULL;
    if (ok) {
        offsets[0] = (float)param->offset;
        for (size_t i = 0; i < count && offset; i++) {
            const int64_t at = offset->ndim ? (int64_t)i * offset->strides[0] : 0;
            offsets[i] = (float)((const int32_t *)node_data(offset))[at];
        }
        angles = rope_angles(param, freqs ? node_data(freqs) : NULL, offsets, count, rope.length,
                             &made, err);
    }
    ok = angles != NULL;
    if (ok) {
        const size_t items = rope.length * rope.dims / 2;
        rope.cosine = angles;
        rope.sine = angles + count * items;
        rope.table_stride = count > 1 ? items : 0;
        if (rope_strides(x, rope.in_stride, &rope.heads)) {
            rope.in = node_data(x);
            ok = node_donate(node, 0) || node_alloc(node, err);
        } else if ((ok = node_alloc(node, err))) {
            copy_strided(node_data(node), node->strides, node_data(x), x->strides, x->shape,
                         x->ndim, x->itemsize);
            rope.in = node_data(node);
            rope_strides(node, rope.in_stride, &rope.heads);
        }
    }
    if (ok) {
        rope.out = node_data(node);
        rope_strides(node, rope.out_stride, &rope.heads);
        if (ops_cpu_type(node->dtype, &rope.type))
            cpu_rope(&rope);
        else
            rope_f64(&rope);
    }
    node_release(freqs);
    free(made);
    if (offsets != few) free(offsets);
    return ok;
}

/* (positions + offset) * scale / freqs, [.., T, dims / 2]. */
static Node *composed_angles(const RopeParam *param, const Node *x, Node *offset, Node *freqs,
                             Temps *t) {
    const int length = x->shape[x->ndim - 2];
    Node *line = temp(t, op_arange(0, length, 1, MLX_FLOAT32));
    Node *at = temp(t, op_reshape(line, (int[]){length, 1}, 2));
    if (offset) {
        int shape[NODE_DIMS] = {(int)offset->size};
        for (int i = 1; i < x->ndim; i++) shape[i] = 1;
        Node *start = temp(t, op_astype(offset, MLX_FLOAT32));
        at = temp(t, op_add(at, temp(t, op_reshape(start, shape, (size_t)x->ndim))));
    } else {
        at = temp(t, op_binary_scalar(BINARY_ADD, at, param->offset));
    }
    return temp(t, op_divide(temp(t, op_scale(at, (double)param->scale)), freqs));
}

/* The same from basic operations, for the gradient of freqs. */
static bool rope_composed(const void *pointer, Node *const *inputs, Node **outputs) {
    const RopeParam *param = pointer;
    Node *x = inputs[0], *offset = param->has_offset ? inputs[1] : NULL;
    const int last = x->ndim - 1, half = param->dims / 2;
    Temps t = {0};
    Node *angles = composed_angles(param, x, offset, inputs[1 + param->has_offset], &t);
    Node *cosine = temp(&t, op_astype(temp(&t, op_unary(UNARY_COS, angles)), x->dtype));
    Node *sine = temp(&t, op_astype(temp(&t, op_unary(UNARY_SIN, angles)), x->dtype));
    Node *turned = temp(&t, op_slice_axis(x, last, 0, param->dims));
    Node *rest = temp(&t, op_slice_axis(x, last, param->dims, x->shape[last]));
    int shape[NODE_DIMS + 1];
    memcpy(shape, x->shape, (size_t)last * sizeof *shape);
    shape[last] = param->traditional ? half : 2;
    shape[last + 1] = param->traditional ? 2 : half;
    const int side = param->traditional ? last + 1 : last;
    Node *pairs = temp(&t, op_reshape(turned, shape, (size_t)last + 2)), *sides[2];
    for (int i = 0; i < 2; i++) {
        Node *one = temp(&t, op_slice_axis(pairs, side, i, i + 1));
        shape[last] = half;
        sides[i] = temp(&t, op_reshape(one, shape, (size_t)last + 1));
    }
    Node *results[2] = {temp(&t, op_subtract(temp(&t, op_multiply(sides[0], cosine)),
                                             temp(&t, op_multiply(sides[1], sine)))),
                        temp(&t, op_add(temp(&t, op_multiply(sides[0], sine)),
                                        temp(&t, op_multiply(sides[1], cosine))))};
    shape[last] = param->traditional ? half : 1;
    shape[last + 1] = param->traditional ? 1 : half;
    for (int i = 0; i < 2; i++)
        results[i] = temp(&t, op_reshape(results[i], shape, (size_t)last + 2));
    shape[last] = param->dims;
    Node *joined = temp(&t, op_concatenate(results, 2, side));
    joined = temp(&t, op_reshape(joined, shape, (size_t)last + 1));
    outputs[0] = op_concatenate((Node *const[]){joined, rest}, 2, last);
    return temps_end(&t, outputs[0] != NULL);
}

/* A rotation's transpose turns the other way: every angle has the factor scale. */
static bool rope_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    RopeParam param = *(const RopeParam *)node->param;
    if (param.has_freqs && wanted[1 + param.has_offset])
        return ops_composed_vjp(node, g, wanted, grads, rope_composed, NULL, 1);
    if (!wanted[0]) return true;
    Node *inputs[3] = {g};
    for (uint32_t i = 1; i < node->n_inputs; i++) inputs[i] = node->inputs[i];
    param.scale = -param.scale;
    grads[0] = node_new_param(node->op, node->dtype, node->shape, node->ndim, &param, sizeof param,
                              inputs, (int)node->n_inputs);
    return grads[0] != NULL;
}
static const Op rope_op = {"rope", rope_eval, rope_vjp};

static Node *op_rope(Node *x, RopeParam param, mlx_optional_float base, Node *offset, Node *freqs) {
    if (!x) return NULL;
    if (x->ndim < 3)
        return op_error("[rope] Input must have at least 3 dimensions but got input with %d "
                        "dimensions.",
                        x->ndim);
    if (dtype_info[x->dtype].kind != 'f')
        return op_error("[rope] Input must be a floating type but got %s.", dtype_name(x->dtype));
    if (param.dims <= 0 || param.dims % 2 || param.dims > x->shape[x->ndim - 1])
        return op_error("[rope] dims must be even, positive and at most the last dimension of %s, "
                        "got %d.",
                        SHAPE(x), param.dims);
    if (base.has_value == (freqs != NULL))
        return op_error("[rope] Only one of base or freqs can have a value.");
    if (freqs && (freqs->ndim != 1 || freqs->shape[0] != param.dims / 2))
        return op_error("[rope] freqs must be one dimensional with size %d but got shape %s.",
                        param.dims / 2, SHAPE(freqs));
    if (offset && (offset->ndim > 1 || dtype_is_float(offset->dtype) ||
                   (offset->size != 1 && offset->size != (size_t)x->shape[0])))
        return op_error("[rope] offset must be an integer scalar or vector with %d elements but "
                        "has shape %s and type %s.",
                        x->shape[0], SHAPE(offset), dtype_name(offset->dtype));
    Node *inputs[3] = {node_retain(x)};
    int count = 1;
    param.has_base = base.has_value;
    param.base = base.has_value ? base.value : 1;
    param.has_offset = offset != NULL;
    param.has_freqs = freqs != NULL;
    if (offset) inputs[count++] = op_astype(offset, MLX_INT32);
    if (freqs) inputs[count++] = op_astype(freqs, MLX_FLOAT32);
    Node *result =
        node_new_param(&rope_op, x->dtype, x->shape, x->ndim, &param, sizeof param, inputs, count);
    for (int i = 0; i < count; i++) node_release(inputs[i]);
    return result;
}

int mlx_fast_rope(mlx_array *res, const mlx_array x, int dims, bool traditional,
                  mlx_optional_float base, float scale, int offset, const mlx_array freqs,
                  const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    const RopeParam param = {
        .dims = dims, .traditional = traditional, .scale = scale, .offset = offset};
    return op_finish(res, op_rope(node_of(x), param, base, NULL, node_of_optional(freqs)));
}

int mlx_fast_rope_dynamic(mlx_array *res, const mlx_array x, int dims, bool traditional,
                          mlx_optional_float base, float scale, const mlx_array offset,
                          const mlx_array freqs, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    const RopeParam param = {.dims = dims, .traditional = traditional, .scale = scale};
    Node *input = node_of(x), *start = input ? node_of(offset) : NULL;
    if (!start) return 1;
    return op_finish(res, op_rope(input, param, base, start, node_of_optional(freqs)));
}
