/* Sample points and what is made of them: linspace, windows, meshgrid, kron. */
#include "engine/ops/rule.h"
#include "mlx/c/ops.h"

#include <stdlib.h>
#include <string.h>

/* (1 - t) start + t stop for t = i / (num - 1), in float32 (float64 for float64). */
static Node *op_linspace(double start, double stop, int num, mlx_dtype dtype) {
    if (num < 0) return op_error("[linspace] number of samples, %d, must be non-negative.", num);
    if (num == 1) return op_full_value((int[]){1}, 1, start, dtype);
    const mlx_dtype inner = dtype == MLX_FLOAT64 ? MLX_FLOAT64 : MLX_FLOAT32;
    Temps t = {0};
    Node *steps = temp(&t, op_arange(0, num, 1, inner));
    Node *place = temp(&t, op_binary_scalar(BINARY_DIVIDE, steps, num - 1));
    Node *rest = temp(&t, op_rsubtract(1, place));
    Node *from = temp(&t, op_scale(rest, start)), *to = temp(&t, op_scale(place, stop));
    Node *result = op_astype(temp(&t, op_add(from, to)), dtype);
    temps_end(&t, true);
    return result;
}

/* ---- windows ---------------------------------------------------------------------- */

typedef enum { BARTLETT, BLACKMAN, HAMMING, HANNING } Window;

/* Float32, as mlx computes them; one item is 1, none an empty array. */
static Node *op_window(Window window, int size) {
    static const double pi = 3.141592653589793;
    if (size <= 1) return op_full_value((int[]){size == 1}, 1, 1, MLX_FLOAT32);
    const int last = size - 1;
    Temps t = {0};
    Node *line = temp(&t, op_arange(0, size, 1, MLX_FLOAT32)), *result, *wave;
    switch (window) {
    case BARTLETT: {
        Node *place = temp(&t, op_scale(line, 2.0 / last));
        Node *apart = temp(&t, op_binary_scalar(BINARY_SUBTRACT, place, 1));
        result = op_rsubtract(1, temp(&t, op_unary(UNARY_ABS, apart)));
        break;
    }
    case BLACKMAN: {
        wave = temp(&t, op_unary(UNARY_COS, temp(&t, op_scale(line, 2 * pi / last))));
        Node *first = temp(&t, op_rsubtract(0.34, temp(&t, op_scale(wave, 0.5))));
        Node *second = temp(&t, op_scale(temp(&t, op_unary(UNARY_SQUARE, wave)), 0.16));
        result = op_add(first, second);
        break;
    }
    case HAMMING:
        wave = temp(&t, op_unary(UNARY_COS, temp(&t, op_scale(line, 2 * pi / last))));
        result = op_rsubtract(0.54, temp(&t, op_scale(wave, 0.46)));
        break;
    default:
        wave = temp(&t, op_unary(UNARY_SIN, temp(&t, op_scale(line, pi / last))));
        result = op_unary(UNARY_SQUARE, wave);
        break;
    }
    temps_end(&t, true);
    return result;
}

/* ---- products of grids ------------------------------------------------------------- */

/* Array i runs along axis i (with "xy" the first two change places). */
static int meshgrid(mlx_vector_array *res, Node *const *nodes, size_t count, bool sparse,
                    const char *indexing) {
    const bool cartesian = indexing && strcmp(indexing, "xy") == 0;
    if (!cartesian && !(indexing && strcmp(indexing, "ij") == 0)) {
        op_error("[meshgrid] Invalid indexing value. Valid values are 'xy' and 'ij'.");
        return 1;
    }
    if (count > NODE_DIMS) {
        op_error("[meshgrid] %zu arrays need too many axes.", count);
        return 1;
    }
    Node *grids[NODE_DIMS];
    int shape[NODE_DIMS], whole[NODE_DIMS];
    bool ok = true;
    for (size_t i = 0; i < count; i++) {
        const size_t axis = cartesian && count > 1 && i < 2 ? 1 - i : i;
        for (size_t k = 0; k < count; k++) shape[k] = 1;
        if (nodes[i]->size > INT32_MAX) {
            op_error("[meshgrid] An axis would be too long.");
            ok = false;
        }
        shape[axis] = whole[axis] = (int)nodes[i]->size;
        grids[i] = ok ? op_reshape(nodes[i], shape, count) : NULL;
        ok = grids[i] != NULL;
    }
    for (size_t i = 0; i < count && !sparse; i++) {
        Node *wide = op_broadcast_to(grids[i], whole, (int)count);
        node_release(grids[i]);
        grids[i] = wide;
    }
    return op_finish_vector(res, grids, count);
}

/* Every item of a times all of b. */
static Node *op_kron(Node *a, Node *b) {
    if (!a || !b) return NULL;
    if (a->size == 0 || b->size == 0) return op_error("[kron] Input arrays cannot be empty.");
    const int ndim = BASE_MAX(a->ndim, b->ndim);
    int left[2 * NODE_DIMS], right[2 * NODE_DIMS], shape[NODE_DIMS], wide = 0;
    for (int i = 0; i < ndim; i++) {
        const int in_a = i - (ndim - a->ndim), in_b = i - (ndim - b->ndim);
        const int rows = in_a < 0 ? 1 : a->shape[in_a], columns = in_b < 0 ? 1 : b->shape[in_b];
        if (rows != 1 || columns == 1) left[wide] = rows, right[wide++] = 1;
        if (columns != 1) left[wide] = 1, right[wide++] = columns;
        if ((int64_t)rows * columns > INT32_MAX) return op_error("[kron] Axis %d is too long.", i);
        shape[i] = rows * columns;
    }
    if (wide > NODE_DIMS)
        return op_error("[kron] %s and %s have too many axes.", SHAPE(a), SHAPE(b));
    Temps t = {0};
    Node *product = temp(&t, op_multiply(temp(&t, op_reshape(a, left, (size_t)wide)),
                                         temp(&t, op_reshape(b, right, (size_t)wide))));
    Node *result = op_reshape(product, shape, (size_t)ndim);
    temps_end(&t, true);
    return result;
}

int mlx_linspace(mlx_array *res, double start, double stop, int num, mlx_dtype dtype,
                 const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_linspace(start, stop, num, dtype)) : 1;
}

#define WINDOW_API(name, window)                                        \
    int mlx_##name(mlx_array *res, int M, const mlx_stream s) {         \
        return stream_ok(s) ? op_finish(res, op_window(window, M)) : 1; \
    }
WINDOW_API(bartlett, BARTLETT)
WINDOW_API(blackman, BLACKMAN)
WINDOW_API(hamming, HAMMING)
WINDOW_API(hanning, HANNING)

int mlx_meshgrid(mlx_vector_array *res, const mlx_vector_array arrays, bool sparse,
                 const char *indexing, const mlx_stream s) {
    Node *const *nodes;
    size_t count;
    if (!stream_ok(s) || !vector_nodes(arrays, &nodes, &count)) return 1;
    return meshgrid(res, nodes, count, sparse, indexing);
}

int mlx_kron(mlx_array *res, const mlx_array a, const mlx_array b, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_kron(node_of(a), node_of(b))) : 1;
}
