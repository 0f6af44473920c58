/* Shapes, axes, broadcasting, and walks over strided arrays. */
#include "engine/core/engine.h"

#include <string.h>

/* ---- shapes ---- */

const char *shape_text(ShapeText *buffer, const int *shape, int ndim) {
    size_t at = 0;
    buffer->text[at++] = '(';
    for (int i = 0; i < ndim && i < NODE_DIMS; i++)
        at += (size_t)snprintf(buffer->text + at, sizeof buffer->text - at, "%s%d", i ? "," : "",
                               shape[i]);
    snprintf(buffer->text + at, sizeof buffer->text - at, ")");
    return buffer->text;
}

bool shape_size(const int *shape, int ndim, size_t *size) {
    /* No item is larger than 8 bytes, so bytes do not overflow int64 either. */
    const size_t most = (size_t)INT64_MAX / 16;
    size_t product = 1;
    bool empty = false;
    for (int i = 0; i < ndim; i++) {
        if (shape[i] < 0) return false;
        if (shape[i] == 0)
            empty = true;
        else if (product > most / (size_t)shape[i])
            return false;
        else
            product *= (size_t)shape[i];
    }
    *size = empty ? 0 : product;
    return true;
}

bool shape_equal(const Node *a, const Node *b) {
    return a->ndim == b->ndim && memcmp(a->shape, b->shape, a->ndim * sizeof(int)) == 0;
}

bool axis_fix(const char *op, int *axis, int ndim) {
    if (*axis < -ndim || *axis >= ndim) {
        op_error("[%s] Axis %d is out of bounds for array with %d dimensions.", op, *axis, ndim);
        return false;
    }
    if (*axis < 0) *axis += ndim;
    return true;
}

bool axes_fix(const char *op, const int *axes, size_t n, int ndim, int *out) {
    uint32_t seen = 0;
    if (n > NODE_DIMS) {
        op_error("[%s] %zu axes given for array with %d dimensions.", op, n, ndim);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        out[i] = axes[i];
        if (!axis_fix(op, &out[i], ndim)) return false;
        if (seen >> out[i] & 1) {
            op_error("[%s] Received duplicate axis %d.", op, axes[i]);
            return false;
        }
        seen |= 1u << out[i];
    }
    return true;
}

bool shape_broadcast(const int *a, int a_ndim, const int *b, int b_ndim, int *out, int *out_ndim) {
    const int ndim = BASE_MAX(a_ndim, b_ndim);
    int result[NODE_DIMS];
    for (int i = 1; i <= ndim; i++) {
        const int x = i <= a_ndim ? a[a_ndim - i] : 1;
        const int y = i <= b_ndim ? b[b_ndim - i] : 1;
        if (x != y && x != 1 && y != 1) {
            op_error("[broadcast_shapes] Shapes %s and %s cannot be broadcast.",
                     shape_text(&(ShapeText){{0}}, a, a_ndim),
                     shape_text(&(ShapeText){{0}}, b, b_ndim));
            return false;
        }
        result[ndim - i] = x == 1 ? y : x;
    }
    memcpy(out, result, (size_t)ndim * sizeof(int));
    *out_ndim = ndim;
    return true;
}

bool shape_broadcast_nodes(Node *const *nodes, size_t count, int *out, int *out_ndim) {
    *out_ndim = 0;
    for (size_t i = 0; i < count; i++)
        if (!shape_broadcast(out, *out_ndim, nodes[i]->shape, nodes[i]->ndim, out, out_ndim))
            return false;
    return true;
}

void strides_broadcast(const Node *node, const int *shape, int ndim, int64_t *out) {
    const int added = ndim - node->ndim;
    for (int i = 0; i < ndim; i++) {
        const bool repeats = i < added || (node->shape[i - added] == 1 && shape[i] != 1);
        out[i] = repeats ? 0 : node->strides[i - added];
    }
}

void strides_row_major(const int *shape, int ndim, int64_t *out) {
    int64_t step = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        out[i] = step;
        step *= shape[i];
    }
}

/* ---- walks ---- */

void walk_init(Walk *walk, const int *shape, int ndim, int operands,
               const int64_t *const *strides) {
    walk->operands = operands;
    walk->rows = 1;
    for (int k = 0; k < operands; k++) walk->at[k] = 0;

    /* Merge from the inside out: an axis joins the one inside it when in every
     * operand its stride equals that axis' whole extent. */
    int64_t merged_shape[NODE_DIMS], merged[WALK_OPERANDS][NODE_DIMS];
    int axes = 0; /* merged[.][0] is the innermost */
    for (int i = ndim - 1; i >= 0; i--) {
        if (shape[i] == 1) continue;
        if (shape[i] == 0) walk->rows = 0;
        bool joins = axes > 0;
        for (int k = 0; k < operands && joins; k++)
            joins = strides[k][i] == merged[k][axes - 1] * merged_shape[axes - 1];
        if (joins) {
            merged_shape[axes - 1] *= shape[i];
            continue;
        }
        merged_shape[axes] = shape[i];
        for (int k = 0; k < operands; k++) merged[k][axes] = strides[k][i];
        axes++;
    }
    walk->count = axes ? merged_shape[0] : 1;
    for (int k = 0; k < operands; k++) walk->step[k] = axes ? merged[k][0] : 1;
    walk->ndim = axes ? axes - 1 : 0;
    for (int i = 0; i < walk->ndim; i++) { /* outermost first */
        walk->shape[i] = merged_shape[axes - 1 - i];
        walk->index[i] = 0;
        walk->rows *= (size_t)walk->shape[i];
        for (int k = 0; k < operands; k++) walk->strides[k][i] = merged[k][axes - 1 - i];
    }
}

void walk_next(Walk *walk) {
    for (int i = walk->ndim - 1; i >= 0; i--) {
        if (++walk->index[i] < walk->shape[i]) {
            for (int k = 0; k < walk->operands; k++) walk->at[k] += walk->strides[k][i];
            return;
        }
        walk->index[i] = 0;
        for (int k = 0; k < walk->operands; k++)
            walk->at[k] -= walk->strides[k][i] * (walk->shape[i] - 1);
    }
}

void walk_seek(Walk *walk, size_t row) {
    for (int k = 0; k < walk->operands; k++) walk->at[k] = 0;
    for (int i = walk->ndim - 1; i >= 0; i--) {
        walk->index[i] = (int64_t)(row % (size_t)walk->shape[i]);
        row /= (size_t)walk->shape[i];
        for (int k = 0; k < walk->operands; k++)
            walk->at[k] += walk->strides[k][i] * walk->index[i];
    }
}
