/* The operations of random programs on shapes, places and order: views,
 * slices, joins, padding, indexing, sorting. */
#include "conformance/programs.h"

#include <stdlib.h>

static int reshape(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick(program, op->flags);
    int size = (int)mlx_array_size(a), shape[PROGRAM_DIMS], ndim = 0;
    while (size > 1 && ndim < 4) {
        int part = 1 + (int)draw(program, 9);
        if (size % part) part = 1;
        shape[ndim++] = part;
        size /= part;
    }
    shape[ndim++] = size;
    if (chance(program, 20)) shape[draw(program, (uint64_t)ndim)] = -1;
    if (chance(program, 3)) shape[0]++;
    for (int i = 0; i < ndim; i++) note(program, " %d", shape[i]);
    return mlx_reshape(res, a, shape, (size_t)ndim, program->stream);
}

static int flatten(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick(program, op->flags);
    const int first = chance(program, 60) ? 0 : draw_axis(program, a);
    const int last = chance(program, 60) ? -1 : draw_axis(program, a);
    note(program, " %d %d", first, last);
    return mlx_flatten(res, a, first, last, program->stream);
}

static int unflatten(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick_shaped(program, op->flags, 1);
    const int axis = draw_axis(program, a), ndim = (int)mlx_array_ndim(a);
    const int size = axis < -ndim || axis >= ndim ? 1 : mlx_array_shape(a)[(axis + ndim) % ndim];
    int shape[2] = {size % 2 ? 1 : 2, size % 2 ? size : size / 2};
    if (chance(program, 30)) shape[draw(program, 2)] = -1;
    note(program, " axis %d to %d %d", axis, shape[0], shape[1]);
    return mlx_unflatten(res, a, axis, shape, 2, program->stream);
}

static int over_axes(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick(program, op->flags);
    int axes[PROGRAM_DIMS + 4];
    const int count = draw_axes(program, a, axes);
    return CALL((mlx_array *, mlx_array, const int *, size_t, mlx_stream))(
        res, a, axes, (size_t)count, program->stream);
}

static int permute(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick(program, op->flags);
    const int ndim = (int)mlx_array_ndim(a);
    int axes[PROGRAM_DIMS + 4];
    for (int i = 0; i < ndim; i++) axes[i] = i;
    for (int i = ndim - 1; i > 0; i--) {
        const int j = (int)draw(program, (uint64_t)i + 1), t = axes[i];
        axes[i] = axes[j];
        axes[j] = t;
    }
    for (int i = 0; i < ndim; i++)
        if (chance(program, 30)) axes[i] -= ndim;
    const size_t given = chance(program, 2) && ndim ? (size_t)ndim - 1 : (size_t)ndim;
    return mlx_transpose_axes(res, a, axes, given, program->stream);
}

static int two_axes(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick_shaped(program, op->flags, 1);
    const int first = draw_axis(program, a), second = draw_axis(program, a);
    note(program, " %d %d", first, second);
    return CALL((mlx_array *, mlx_array, int, int, mlx_stream))(res, a, first, second,
                                                                program->stream);
}

static int broadcast_to(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick(program, op->flags);
    const int ndim = (int)mlx_array_ndim(a), lead = (int)draw(program, 2);
    int shape[PROGRAM_DIMS + 4];
    if (ndim > PROGRAM_DIMS || mlx_array_size(a) > 5000) return mlx_copy(res, a, program->stream);
    if (lead) shape[0] = 1 + (int)draw(program, 3);
    for (int i = 0; i < ndim; i++) {
        const int size = mlx_array_shape(a)[i];
        shape[lead + i] = size == 1 && chance(program, 50) ? (int)draw(program, 4) : size;
        if (chance(program, 1)) shape[lead + i]++;
    }
    for (int i = 0; i < ndim + lead; i++) note(program, " %d", shape[i]);
    return mlx_broadcast_to(res, a, shape, (size_t)(ndim + lead), program->stream);
}

/* Start, stop and step of every axis, any sign, also past the ends. */
static void draw_slice(Program *program, mlx_array a, int *start, int *stop, int *step) {
    for (int i = 0; i < (int)mlx_array_ndim(a); i++) {
        const int size = mlx_array_shape(a)[i];
        start[i] = 0;
        stop[i] = size;
        step[i] = 1;
        if (chance(program, 40)) continue;
        start[i] = (int)draw(program, (uint64_t)size + 2) - (chance(program, 20) ? size : 0);
        stop[i] = (int)draw(program, (uint64_t)size + 3);
        if (chance(program, 40)) step[i] = 1 + (int)draw(program, 3);
        if (chance(program, 30)) {
            step[i] = -step[i];
            stop[i] = chance(program, 50) ? -size - 1 : start[i] - (int)draw(program, 4) - 1;
        }
        note(program, " %d:%d:%d", start[i], stop[i], step[i]);
    }
}

static int slice(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick_shaped(program, op->flags, 1);
    int start[PROGRAM_DIMS + 4], stop[PROGRAM_DIMS + 4], step[PROGRAM_DIMS + 4];
    const size_t n = mlx_array_ndim(a);
    draw_slice(program, a, start, stop, step);
    return mlx_slice(res, a, start, n, stop, n, step, n, program->stream);
}

/* Values that an array of a's dtype can take: a float out of an integer's range
 * is undefined. */
static void fitting(Program *program, mlx_array *res, mlx_array values, mlx_array a) {
    if (mlx_array_dtype(a) < MLX_FLOAT16 && mlx_array_dtype(values) >= MLX_FLOAT16)
        mlx_astype(res, values, MLX_BOOL, program->stream);
    else
        mlx_array_set(res, values);
}

/* The update is a slice of the same place plus something, or broadcast. */
static int slice_update(Program *program, const ProgramOp *op, mlx_array *res) {
    int failed = 0;
    mlx_array a = pick_shaped(program, op->flags, 1), part = mlx_array_new();
    mlx_array other = pick(program, op->flags);
    int start[PROGRAM_DIMS + 4], stop[PROGRAM_DIMS + 4], step[PROGRAM_DIMS + 4];
    const size_t n = mlx_array_ndim(a);
    draw_slice(program, a, start, stop, step);
    OP(slice, &part, a, start, n, stop, n, step, n);
    if (chance(program, 60)) {
        mlx_array one = mlx_array_new_int(1);
        OP(add, &part, part, one);
        mlx_array_free(one);
    } else {
        fitting(program, &part, other, a);
    }
    if (!failed)
        failed = CALL((mlx_array *, mlx_array, mlx_array, const int *, size_t, const int *, size_t,
                       const int *, size_t, mlx_stream))(res, a, part, start, n, stop, n, step, n,
                                                         program->stream);
    mlx_array_free(part);
    return failed;
}

static int split(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick_shaped(program, op->flags, 1);
    mlx_vector_array parts = mlx_vector_array_new();
    const int axis = draw_axis(program, a), ndim = (int)mlx_array_ndim(a);
    const int size = axis < -ndim || axis >= ndim ? 1 : mlx_array_shape(a)[(axis + ndim) % ndim];
    int failed, cuts[2] = {(int)draw(program, (uint64_t)size + 1), size};
    if (chance(program, 50)) {
        const int count = size % 2 || !size ? (size % 3 ? 1 : 3) : 2;
        note(program, " into %d axis %d", count, axis);
        failed = mlx_split(&parts, a, count, axis, program->stream);
    } else {
        if (chance(program, 50)) cuts[1] = cuts[0] + (size - cuts[0]) / 2;
        note(program, " at %d %d axis %d", cuts[0], cuts[1], axis);
        failed = mlx_split_sections(&parts, a, cuts, 2, axis, program->stream);
    }
    if (!failed)
        failed = mlx_vector_array_get(res, parts, draw(program, mlx_vector_array_size(parts)));
    mlx_vector_array_free(parts);
    return failed;
}

static int join(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_vector_array parts = mlx_vector_array_new();
    mlx_array first = pick_shaped(program, op->flags, 1);
    mlx_vector_array_append_value(parts, first);
    for (int i = (int)draw(program, 3); i > 0; i--) {
        mlx_array same = mlx_array_new();
        if (chance(program, 50)) {
            mlx_array_set(&same, first);
            mlx_array zero = mlx_array_new_int(0);
            mlx_add(&same, same, zero, program->stream);
            mlx_array_free(zero);
        } else {
            mlx_array_set(&same, pick_second(program, op->flags, first));
        }
        mlx_vector_array_append_value(parts, same);
        mlx_array_free(same);
    }
    /* Upstream does not look at the axis of a single array. */
    const int axis = mlx_vector_array_size(parts) > 1 ? draw_axis(program, first) : 0;
    note(program, " axis %d", axis);
    const int failed =
        CALL((mlx_array *, mlx_vector_array, int, mlx_stream))(res, parts, axis, program->stream);
    mlx_vector_array_free(parts);
    return failed;
}

static int tile(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick(program, op->flags);
    int reps[4];
    const int count = (int)draw(program, 4);
    if (mlx_array_size(a) > 5000) return mlx_copy(res, a, program->stream);
    for (int i = 0; i < count; i++)
        reps[i] = (int)draw(program, 10) ? 1 + (int)draw(program, 3) : 0;
    for (int i = 0; i < count; i++) note(program, " %d", reps[i]);
    return mlx_tile(res, a, reps, (size_t)count, program->stream);
}

static int repeat(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick_shaped(program, op->flags, 1);
    const int axis = draw_axis(program, a), count = (int)draw(program, 4);
    note(program, " %d axis %d", count, axis);
    return mlx_repeat_axis(res, a, count, axis, program->stream);
}

static int roll(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick_shaped(program, op->flags, 1);
    const int axis = draw_axis(program, a), by = (int)draw(program, 15) - 7;
    note(program, " by %d axis %d", by, axis);
    return mlx_roll_axis(res, a, &by, 1, axis, program->stream);
}

static int pad(Program *program, const ProgramOp *op, mlx_array *res) {
    static const char *const modes[] = {"constant", "edge", "nonsense"};
    mlx_array a = pick_shaped(program, op->flags, 1), value = mlx_array_new();
    const int ndim = (int)mlx_array_ndim(a);
    int axes[PROGRAM_DIMS + 4], low[PROGRAM_DIMS + 4], high[PROGRAM_DIMS + 4];
    /* Upstream repeats what an edge of size 0 does not have. */
    const char *mode = modes[chance(program, 70) || !mlx_array_size(a) ? 0
                             : draw(program, 40)                       ? 1
                                                                       : 2];
    for (int i = 0; i < ndim; i++) {
        axes[i] = chance(program, 50) ? i : i - ndim;
        low[i] = (int)draw(program, 3);
        high[i] = (int)draw(program, 3);
        if (chance(program, 1)) low[i] = -1;
        note(program, " %d+%d", low[i], high[i]);
    }
    note(program, " %s", mode);
    const double fill = (double)draw(program, 5);
    mlx_array wide = mlx_array_new_double(fill);
    mlx_astype(&value, wide, chance(program, 50) ? mlx_array_dtype(a) : MLX_FLOAT32,
               program->stream);
    const size_t n = (size_t)ndim;
    const int failed = mlx_pad(res, a, axes, n, low, n, high, n, value, mode, program->stream);
    mlx_array_free(wide);
    mlx_array_free(value);
    return failed;
}

/* ---- indexing ---- */

/* Indices in [-size, size) of a random integer type. */
static mlx_array draw_indices(Program *program, int size, const int *shape, int ndim) {
    static const mlx_dtype types[] = {MLX_INT32, MLX_INT32, MLX_UINT32, MLX_INT64,
                                      MLX_UINT8, MLX_INT8,  MLX_UINT64, MLX_INT16};
    const mlx_dtype dtype = types[draw(program, 8)];
    size_t count = 1;
    for (int i = 0; i < ndim; i++) count *= (size_t)shape[i];
    int *items = malloc((count + 1) * sizeof(int));
    const int most = size < 100 ? size : 100;
    for (size_t i = 0; i < count; i++) {
        items[i] = (int)draw(program, (uint64_t)(most ? most : 1));
        if (dtype >= MLX_INT8 && chance(program, 30)) items[i] -= size < 128 ? size : 0;
    }
    mlx_array indices = mlx_array_new_data(items, shape, ndim, MLX_INT32);
    free(items);
    mlx_astype(&indices, indices, dtype, program->stream);
    return indices;
}

static int take(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick_shaped(program, op->flags, 1);
    const bool whole = chance(program, 30);
    const int axis = draw_axis(program, a), ndim = (int)mlx_array_ndim(a);
    const int size = whole                          ? (int)mlx_array_size(a)
                     : axis < -ndim || axis >= ndim ? 1
                                                    : mlx_array_shape(a)[(axis + ndim) % ndim];
    int shape[PROGRAM_DIMS];
    const int have = draw_shape(program, shape) % 3;
    if (!size) return mlx_copy(res, a, program->stream);
    if (mlx_array_size(a) > 5000) shape[0] = shape[1] = 2;
    mlx_array indices = draw_indices(program, size, shape, have);
    note(program, " axis %d", whole ? 99 : axis);
    const int failed = whole ? mlx_take(res, a, indices, program->stream)
                             : mlx_take_axis(res, a, indices, axis, program->stream);
    mlx_array_free(indices);
    return failed;
}

static int along(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick_shaped(program, op->flags, 1), indices = mlx_array_new();
    const int axis = draw_axis(program, a), ndim = (int)mlx_array_ndim(a);
    int shape[PROGRAM_DIMS + 4];
    const int at = axis < -ndim || axis >= ndim ? 0 : (axis + ndim) % ndim;
    const int size = mlx_array_shape(a)[at];
    if (!size || ndim > PROGRAM_DIMS) return mlx_copy(res, a, program->stream);
    for (int i = 0; i < ndim; i++)
        shape[i] = i == at               ? 1 + (int)draw(program, 4)
                   : chance(program, 15) ? 1
                                         : mlx_array_shape(a)[i];
    indices = draw_indices(program, size, shape, ndim);
    note(program, " axis %d", axis);
    const int failed = mlx_take_along_axis(res, a, indices, axis, program->stream);
    mlx_array_free(indices);
    return failed;
}

/* Writes along the order that sorts the array, so that no item is written twice. */
static int put_along(Program *program, const ProgramOp *op, mlx_array *res) {
    int failed = 0;
    mlx_array a = pick_shaped(program, op->flags, 1), order = mlx_array_new();
    mlx_array values = pick_second(program, op->flags, a);
    const int axis = draw_axis(program, a);
    note(program, " axis %d", axis);
    mlx_array fit = mlx_array_new();
    OP(argsort_axis, &order, a, axis);
    fitting(program, &fit, values, a);
    OP(put_along_axis, res, a, order, fit, axis);
    mlx_array_free(order);
    mlx_array_free(fit);
    return failed;
}

static int gather(Program *program, const ProgramOp *op, mlx_array *res) {
    mlx_array a = pick_shaped(program, op->flags, 1);
    const int ndim = (int)mlx_array_ndim(a), axis = (int)draw(program, (uint64_t)ndim);
    int shape[PROGRAM_DIMS], sizes[PROGRAM_DIMS + 4];
    const int have = draw_shape(program, shape) % 3;
    for (int i = 0; i < ndim; i++) {
        const int size = mlx_array_shape(a)[i];
        if (!size) return mlx_copy(res, a, program->stream);
        sizes[i] = i == axis ? 1 : 1 + (int)draw(program, (uint64_t)size);
    }
    if (mlx_array_size(a) > 5000) shape[0] = shape[1] = 2;
    mlx_array indices = draw_indices(program, mlx_array_shape(a)[axis], shape, have);
    note(program, " axis %d", axis);
    const int failed =
        mlx_gather_single(res, a, indices, axis, sizes, (size_t)ndim, program->stream);
    mlx_array_free(indices);
    return failed;
}

/* ---- order ---- */

/* The k largest, put in order: their own order is free. */
static int topk(Program *program, const ProgramOp *op, mlx_array *res) {
    int failed = 0;
    mlx_array a = pick_shaped(program, op->flags, 1), top = mlx_array_new();
    const int axis = draw_axis(program, a), k = 1 + (int)draw(program, 4);
    note(program, " %d axis %d", k, axis);
    OP(topk_axis, &top, a, k, axis);
    OP(sort_axis, res, top, axis);
    mlx_array_free(top);
    return failed;
}

/* The kth item of a partition, by value or by index. */
static int partition(Program *program, const ProgramOp *op, mlx_array *res) {
    int failed = 0;
    mlx_array a = pick_shaped(program, op->flags, 1), parted = mlx_array_new();
    mlx_array order = mlx_array_new(), at = mlx_array_new();
    const int axis = draw_axis(program, a), ndim = (int)mlx_array_ndim(a);
    const int size = axis < -ndim || axis >= ndim ? 1 : mlx_array_shape(a)[(axis + ndim) % ndim];
    const int kth = (int)draw(program, (uint64_t)size + 1) - (chance(program, 30) ? size : 0);
    note(program, " kth %d axis %d", kth, axis);
    mlx_array_set_int(&at, kth);
    if (chance(program, 50)) {
        OP(partition_axis, &parted, a, kth, axis);
    } else {
        OP(argpartition_axis, &order, a, kth, axis);
        OP(take_along_axis, &parted, a, order, axis);
    }
    if (kth >= size)
        OP(copy, res, a);
    else
        OP(take_axis, res, parted, at, axis);
    mlx_array_free(parted);
    mlx_array_free(order);
    mlx_array_free(at);
    return failed;
}

const ProgramOp program_shapes[] = {
    ROW(squeeze_axes, 1, 0, over_axes),
    ROW(expand_dims_axes, 1, 0, over_axes),
    ROW(swapaxes, 2, 0, two_axes),
    ROW(moveaxis, 2, 0, two_axes),
    {"transpose_axes", 3, 0, permute, 0},
    ROW(concatenate_axis, 3, 0, join),
    ROW(stack_axis, 3, 0, join),
    ROW(slice_update, 4, 0, slice_update),
    OWN(reshape, 5, 0),
    OWN(flatten, 3, 0),
    OWN(unflatten, 2, 0),
    OWN(broadcast_to, 3, 0),
    OWN(slice, 6, 0),
    OWN(split, 3, 0),
    OWN(tile, 2, 0),
    OWN(repeat, 2, 0),
    OWN(roll, 2, 0),
    OWN(pad, 3, 0),
    OWN(take, 3, 0),
    {"take_along_axis", 3, 0, along, 0},
    {"put_along_axis", 2, JUMPS, put_along, 0},
    OWN(gather, 2, 0),
    OWN(topk, 2, JUMPS),
    OWN(partition, 2, JUMPS),
};
const int program_shape_count = sizeof program_shapes / sizeof *program_shapes;
