/* Linear systems: inverses, solutions, Cholesky, and what is composed of them.
 * The numbers are worked on in engine/cpu/linalg_*.c. */
#include "engine/ops/linalg.h"
#include "mlx/c/linalg.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

/* ---- batches ------------------------------------------------------------------ */

void linalg_load(const Node *x, size_t index, double *out) {
    const int rows = x->shape[x->ndim - 2], columns = x->shape[x->ndim - 1];
    const int64_t row = x->strides[x->ndim - 2], column = x->strides[x->ndim - 1];
    int64_t at = 0;
    for (int i = x->ndim - 3; i >= 0; i--) {
        at += (int64_t)(index % (size_t)x->shape[i]) * x->strides[i];
        index /= (size_t)x->shape[i];
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) {
            const void *item = ops_at(x, at + i * row + j * column);
            *out++ = x->dtype == MLX_FLOAT64 ? *(const double *)item : (double)*(const float *)item;
            if (x->dtype == MLX_COMPLEX64) *out++ = (double)((const float *)item)[1];
        }
}

void linalg_store(const LinalgJob *job, void *out, size_t at, const double *in, size_t n) {
    if (job->dtype == MLX_FLOAT64) {
        memcpy((double *)out + at, in, n * sizeof *in);
        return;
    }
    for (size_t i = 0; i < n; i++) ((float *)out)[at + i] = (float)in[i];
}

static void run_slice(void *context, size_t begin, size_t end, int thread) {
    LinalgJob *job = context;
    double *a = job->memory + (size_t)thread * (job->m * job->n * job->parts + 1);
    for (size_t i = begin; i < end; i++) {
        linalg_load(job->x, i, a);
        const size_t code = job->body(job, i, a);
        size_t none = 0;
        if (code) atomic_compare_exchange_strong(&job->failed, &none, code);
    }
}

bool linalg_run(LinalgJob *job, Error *err) {
    const Node *x = job->x;
    job->m = (size_t)x->shape[x->ndim - 2];
    job->n = (size_t)x->shape[x->ndim - 1];
    job->dtype = x->dtype;
    job->parts = x->dtype == MLX_COMPLEX64 ? 2 : 1;
    job->count = 1;
    for (int i = 0; i < x->ndim - 2; i++) job->count *= (size_t)x->shape[i];
    const size_t items = job->m * job->n * job->parts;
    const size_t threads = job->count == 1 ? 1 : (size_t)base_threads();
    job->memory = base_try_alloc(threads * (items + 1), sizeof(double), err);
    if (!job->memory) return false;
    if (job->count == 1)
        run_slice(job, 0, 1, 0);
    else
        ops_parallel(job->count, job->count * items * (job->n + 1), run_slice, job);
    free(job->memory);
    const size_t code = atomic_load(&job->failed);
    if (code == LINALG_NO_MEMORY)
        return base_fail(err, ERROR_MEMORY, "no memory to factor a matrix of %zu by %zu", job->m,
                         job->n);
    return code == 0 || base_fail(err, ERROR_INPUT, "%s with error code %zu", job->failure, code);
}

static bool check(const char *op, const Node *x, bool square, bool spectrum) {
    if (x->dtype != MLX_FLOAT32 && x->dtype != MLX_FLOAT64 &&
        !(spectrum && x->dtype == MLX_COMPLEX64))
        op_error("[linalg::%s] Arrays must have type %s. Received array with type %s.", op,
                 spectrum ? "float32, float64 or complex64" : "float32 or float64",
                 dtype_name(x->dtype));
    else if (x->ndim < 2)
        op_error("[linalg::%s] Arrays must have >= 2 dimensions. Received array with %d "
                 "dimensions.",
                 op, x->ndim);
    else if (square && x->shape[x->ndim - 1] != x->shape[x->ndim - 2])
        op_error("[linalg::%s] Only defined for square matrices, but received %s.", op, SHAPE(x));
    else
        return true;
    return false;
}

bool linalg_check(const char *op, const Node *x, bool square) {
    return check(op, x, square, false);
}
bool linalg_check_spectrum(const char *op, const Node *x, bool square) {
    return check(op, x, square, true);
}

/* A ready [n, n] matrix of the dtype with three constants. */
static Node *triangle_constant(int n, mlx_dtype dtype, double below, double on, double above) {
    Node *node = node_from_data(NULL, MLX_FLOAT64, (int[]){n, n}, 2);
    if (!node) return NULL;
    double *items = node_data(node);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) *items++ = i > j ? below : i == j ? on : above;
    Node *result = op_astype(node, dtype);
    node_release(node);
    return result;
}

static Node *turned(Node *x) {
    return x ? op_swapaxes(x, -1, -2) : NULL;
}

/* a @ b, releasing both. */
static Node *matmul_of(Node *a, Node *b) {
    Node *result = op_matmul(a, b);
    node_release(a);
    node_release(b);
    return result;
}

static Node *negated(Node *x) {
    Node *result = x ? op_unary(UNARY_NEGATIVE, x) : NULL;
    node_release(x);
    return result;
}

/* ---- inverses --------------------------------------------------------------------- */

typedef struct InverseParam {
    InverseKind kind;
} InverseParam;

static size_t inverse_body(const LinalgJob *job, size_t index, double *a) {
    const size_t n = job->n;
    uint32_t *pivots = calloc(n + 1, sizeof *pivots);
    double *identity = calloc(n * n + 1, sizeof *identity);
    const size_t code = pivots && identity ? linalg_lu(a, n, n, pivots) : LINALG_NO_MEMORY;
    if (!code) {
        for (size_t i = 0; i < n; i++) identity[i * n + i] = 1;
        linalg_lu_solve(a, pivots, n, identity, n);
        linalg_store(job, job->out[0], index * n * n, identity, n * n);
    }
    free(pivots);
    free(identity);
    return code;
}

static size_t triangle_body(const LinalgJob *job, size_t index, double *a) {
    const size_t code = linalg_triangle_inverse(a, job->n, job->option);
    linalg_store(job, job->out[0], index * job->n * job->n, a, job->n * job->n);
    return code;
}

static bool inverse_eval(Node *node, Error *err) {
    const InverseParam *param = node->param;
    if (!node_alloc(node, err)) return false;
    const bool general = param->kind == INVERSE_GENERAL;
    LinalgJob job = {.x = node->inputs[0],
                     .option = param->kind == INVERSE_UPPER,
                     .out = {node_data(node)},
                     .failure = general ? "[Inverse::eval_cpu] LU factorization failed"
                                        : "[Inverse::eval_cpu] triangular inversion failed",
                     .body = general ? inverse_body : triangle_body};
    return linalg_run(&job, err);
}

/* d(x^-1) = -x^-1 dx x^-1, of a triangle only the triangle. */
static bool inverse_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    const InverseParam *param = node->param;
    if (!wanted[0]) return true;
    Node *whole = negated(matmul_of(matmul_of(turned(node), node_retain(g)), turned(node)));
    if (param->kind == INVERSE_GENERAL) {
        grads[0] = whole;
    } else {
        const bool upper = param->kind == INVERSE_UPPER;
        Node *mask = triangle_constant(node->shape[node->ndim - 1], node->dtype, !upper, 1, upper);
        grads[0] = op_binary(BINARY_MULTIPLY, whole, mask);
        node_release(mask);
        node_release(whole);
    }
    return grads[0] != NULL;
}
static const Op inverse_op = {"linalg_inv", inverse_eval, inverse_vjp};

Node *op_inverse(Node *x, InverseKind kind) {
    if (!x || !linalg_check("inv", x, true)) return NULL;
    return node_new_param(&inverse_op, x->dtype, x->shape, x->ndim, &(InverseParam){kind},
                          sizeof(InverseParam), NODES(x));
}

/* ---- solve -------------------------------------------------------------------------- */

typedef struct SolveJob {
    LinalgJob job; /* first: the body finds the rest behind it */
    const Node *b;
    size_t columns;
} SolveJob;

static size_t solve_body(const LinalgJob *job, size_t index, double *a) {
    const SolveJob *solve = (const SolveJob *)(const void *)job;
    const size_t n = job->n, items = n * solve->columns;
    uint32_t *pivots = calloc(n + 1, sizeof *pivots);
    double *b = calloc(items + 1, sizeof *b);
    const size_t code = pivots && b ? linalg_lu(a, n, n, pivots) : LINALG_NO_MEMORY;
    if (!code) {
        linalg_load(solve->b, index, b);
        linalg_lu_solve(a, pivots, n, b, solve->columns);
        linalg_store(job, job->out[0], index * items, b, items);
    }
    free(pivots);
    free(b);
    return code;
}

static bool solve_eval(Node *node, Error *err) {
    if (!node_alloc(node, err)) return false;
    SolveJob solve = {
        .job = {.x = node->inputs[0],
                .out = {node_data(node)},
                .failure = "[linalg::solve] The matrix is singular, elimination failed",
                .body = solve_body},
        .b = node->inputs[1],
        .columns = (size_t)node->shape[node->ndim - 1]};
    return linalg_run(&solve.job, err);
}

static Node *solve_node(Node *a, Node *b);

/* db = a^-T g, da = -db x^T */
static bool solve_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    Node *across = turned(node->inputs[0]);
    Node *db = across ? solve_node(across, g) : NULL;
    node_release(across);
    if (db && wanted[0]) grads[0] = negated(matmul_of(node_retain(db), turned(node)));
    if (wanted[1]) grads[1] = node_retain(db);
    const bool good = db && (!wanted[0] || grads[0]);
    node_release(db);
    return good;
}
static const Op solve_op = {"linalg_solve", solve_eval, solve_vjp};

/* a [batch..., n, n] and b [batch..., n, k] of one dtype and batch. */
static Node *solve_node(Node *a, Node *b) {
    return node_new(&solve_op, b->dtype, b->shape, b->ndim, NODES(a, b));
}

static bool solve_check(const char *op, const Node *a, const Node *b) {
    const mlx_dtype dtype = dtype_promote(a->dtype, b->dtype);
    if (a->ndim < 2)
        op_error("[linalg::%s] First input must have >= 2 dimensions. Received array with %d "
                 "dimensions.",
                 op, a->ndim);
    else if (b->ndim < 1)
        op_error("[linalg::%s] Second input must have >= 1 dimensions. Received array with %d "
                 "dimensions.",
                 op, b->ndim);
    else if (a->shape[a->ndim - 1] != a->shape[a->ndim - 2])
        op_error("[linalg::%s] First input must be a square matrix. Received array with shape %s.",
                 op, SHAPE(a));
    else if (a->shape[a->ndim - 1] != b->shape[b->ndim > 1 ? b->ndim - 2 : 0])
        op_error("[linalg::%s] Last dimension of first input with shape %s must match second to "
                 "last dimension of second input with shape %s.",
                 op, SHAPE(a), SHAPE(b));
    else if (dtype != MLX_FLOAT32 && dtype != MLX_FLOAT64)
        op_error("[linalg::%s] Input arrays must promote to float32 or float64. Received arrays "
                 "with type %s and %s.",
                 op, dtype_name(a->dtype), dtype_name(b->dtype));
    else
        return true;
    return false;
}

/* x cast and broadcast to the batch, its last two axes kept. */
static Node *batched(Node *x, mlx_dtype dtype, int *batch, int n_batch) {
    batch[n_batch] = x->shape[x->ndim - 2];
    batch[n_batch + 1] = x->shape[x->ndim - 1];
    Node *typed = op_astype(x, dtype);
    Node *result = typed ? op_broadcast_to(typed, batch, n_batch + 2) : NULL;
    node_release(typed);
    return result;
}

static Node *op_solve(Node *a, Node *b) {
    if (!a || !b || !solve_check("solve", a, b)) return NULL;
    const mlx_dtype dtype = dtype_promote(a->dtype, b->dtype);
    const int back = -1;
    int batch[NODE_DIMS + 2], n_batch;
    Node *right = b->ndim == 1 ? op_expand_dims(b, &back, 1) : node_retain(b), *result = NULL;
    if (right &&
        shape_broadcast(a->shape, a->ndim - 2, right->shape, right->ndim - 2, batch, &n_batch)) {
        Node *wide_a = batched(a, dtype, batch, n_batch);
        Node *wide_b = batched(right, dtype, batch, n_batch);
        if (wide_a && wide_b) result = solve_node(wide_a, wide_b);
        node_release(wide_a);
        node_release(wide_b);
    }
    node_release(right);
    if (!result || b->ndim > 1) return result;
    Node *squeezed = op_squeeze(result, &back, 1);
    node_release(result);
    return squeezed;
}

static Node *op_solve_triangular(Node *a, Node *b, bool upper) {
    if (!a || !b || !solve_check("solve_triangular", a, b)) return NULL;
    Node *inverse = op_inverse(a, upper ? INVERSE_UPPER : INVERSE_LOWER);
    Node *result = op_matmul(inverse, b);
    node_release(inverse);
    return result;
}

/* ---- Cholesky ----------------------------------------------------------------------- */

typedef struct CholeskyParam {
    bool upper;
} CholeskyParam;

static size_t cholesky_body(const LinalgJob *job, size_t index, double *a) {
    const double epsilon = job->dtype == MLX_FLOAT64 ? DBL_EPSILON : (double)FLT_EPSILON;
    const size_t code = linalg_cholesky(a, job->n, job->option, epsilon);
    linalg_store(job, job->out[0], index * job->n * job->n, a, job->n * job->n);
    return code;
}

static bool cholesky_eval(Node *node, Error *err) {
    const CholeskyParam *param = node->param;
    if (!node_alloc(node, err)) return false;
    LinalgJob job = {.x = node->inputs[0],
                     .option = param->upper,
                     .out = {node_data(node)},
                     .failure = "[Cholesky::eval_cpu] The matrix is not positive definite, "
                                "Cholesky decomposition failed",
                     .body = cholesky_body};
    return linalg_run(&job, err);
}

/* With P(x) the lower triangle of x, its diagonal halved: the gradient is
 * L^-T P(L^T g) L^-1, made symmetric (Murray, 2016, arXiv:1602.07527). */
static bool cholesky_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    const CholeskyParam *param = node->param;
    if (!wanted[0]) return true;
    Node *lower = param->upper ? turned(node) : node_retain(node);
    Node *cotangent = param->upper ? turned(g) : node_retain(g);
    Node *inverse = lower ? op_inverse(lower, INVERSE_LOWER) : NULL;
    Node *product = matmul_of(turned(lower), cotangent);
    Node *halves = triangle_constant(node->shape[node->ndim - 1], node->dtype, 1, .5, 0);
    Node *part = op_binary(BINARY_MULTIPLY, product, halves);
    Node *whole = matmul_of(matmul_of(turned(inverse), node_retain(part)), node_retain(inverse));
    Node *across = turned(whole), *sum = op_binary(BINARY_ADD, whole, across);
    grads[0] = sum ? op_binary_scalar(BINARY_MULTIPLY, sum, .5) : NULL;
    Node *const temporaries[] = {lower, inverse, product, halves, part, whole, across, sum};
    for (size_t i = 0; i < BASE_COUNT(temporaries); i++) node_release(temporaries[i]);
    return grads[0] != NULL;
}
static const Op cholesky_op = {"linalg_cholesky", cholesky_eval, cholesky_vjp};

static Node *op_cholesky(Node *x, bool upper) {
    if (!x || !linalg_check("cholesky", x, true)) return NULL;
    return node_new_param(&cholesky_op, x->dtype, x->shape, x->ndim, &(CholeskyParam){upper},
                          sizeof(CholeskyParam), NODES(x));
}

static Node *op_cholesky_inverse(Node *x, bool upper) {
    if (!x || !linalg_check("cholesky_inv", x, true)) return NULL;
    Node *inverse = op_inverse(x, upper ? INVERSE_UPPER : INVERSE_LOWER), *across = turned(inverse);
    return upper ? matmul_of(inverse, across) : matmul_of(across, inverse);
}

/* ---- compositions ---------------------------------------------------------------------- */

/* The first n items of the axis before the last, or of the last. */
static Node *first_of(Node *x, int from_end, int n) {
    return x ? op_slice_axis(x, x->ndim - from_end, 0, n) : NULL;
}

static Node *op_pinv(Node *x) {
    if (!x || !linalg_check("pinv", x, false)) return NULL;
    const int m = x->shape[x->ndim - 2], n = x->shape[x->ndim - 1], k = BASE_MIN(m, n);
    if (x->size == 0) {
        int shape[NODE_DIMS];
        memcpy(shape, x->shape, sizeof shape);
        shape[x->ndim - 2] = n;
        shape[x->ndim - 1] = m;
        return op_full_value(shape, x->ndim, 0, x->dtype);
    }
    Node *parts[3] = {NULL, NULL, NULL};
    if (!op_svd(x, true, parts)) return NULL;
    const double eps = x->dtype == MLX_FLOAT64 ? 2.220446049250313e-16 : 1.1920929e-07;
    const int before_last = -2, last = -1;
    Node *left = first_of(parts[0], 1, k), *u = turned(left);
    Node *right = first_of(parts[2], 2, k), *v = turned(right);
    Node *values = op_expand_dims(parts[1], &before_last, 1);
    Node *most = op_reduce(REDUCE_MAX, values, &last, 1, true);
    Node *cutoff =
        most ? op_binary_scalar(BINARY_MULTIPLY, most, 10.0 * BASE_MAX(m, n) * eps) : NULL;
    Node *large = op_binary(BINARY_GREATER, values, cutoff);
    Node *inverse = values ? op_unary(UNARY_RECIPROCAL, values) : NULL;
    Node *zero = node_scalar(0, x->dtype), *kept = op_where(large, inverse, zero);
    Node *scaled = op_binary(BINARY_MULTIPLY, v, kept), *result = op_matmul(scaled, u);
    Node *const temporaries[] = {parts[0], parts[1], parts[2], left,    u,    right, v,     values,
                                 most,     cutoff,   large,    inverse, zero, kept,  scaled};
    for (size_t i = 0; i < BASE_COUNT(temporaries); i++) node_release(temporaries[i]);
    return result;
}

/* a[i] * b[j] - a[j] * b[i]; absent parts are zero. */
static Node *cross_part(Node *const *a, Node *const *b, int i, int j) {
    Node *plus = a[i] && b[j] ? op_binary(BINARY_MULTIPLY, a[i], b[j]) : NULL;
    Node *minus = a[j] && b[i] ? op_binary(BINARY_MULTIPLY, a[j], b[i]) : NULL;
    Node *result;
    if (plus && minus)
        result = op_binary(BINARY_SUBTRACT, plus, minus);
    else if (plus)
        result = node_retain(plus);
    else if (minus)
        result = op_unary(UNARY_NEGATIVE, minus);
    else
        result = op_full_value(a[0]->shape, a[0]->ndim, 0, a[0]->dtype);
    node_release(plus);
    node_release(minus);
    return result;
}

/* The items of x along axis as arrays of the broadcast shape. */
static bool cross_items(Node *x, mlx_dtype dtype, int *shape, int ndim, int axis, Node **parts) {
    const int size = x->shape[x->ndim - ndim + axis];
    shape[axis] = size;
    Node *typed = op_astype(x, dtype);
    Node *wide = typed ? op_broadcast_to(typed, shape, ndim) : NULL;
    for (int i = 0; wide && i < size; i++) parts[i] = op_slice_axis(wide, axis, i, i + 1);
    node_release(typed);
    node_release(wide);
    return parts[0] && parts[1] && (size < 3 || parts[2]);
}

static Node *op_cross(Node *a, Node *b, int axis) {
    if (!a || !b) return NULL;
    int at_a = axis, at_b = axis;
    if (!axis_fix("linalg::cross", &at_a, a->ndim) || !axis_fix("linalg::cross", &at_b, b->ndim))
        return NULL;
    const int size_a = a->shape[at_a], size_b = b->shape[at_b];
    if (size_a < 2 || size_a > 3 || size_b < 2 || size_b > 3)
        return op_error("[linalg::cross] The specified axis must have size 2 or 3.");
    if (a->ndim - at_a != b->ndim - at_b)
        return op_error("[linalg::cross] The axis %d of %s and of %s are not the same.", axis,
                        SHAPE(a), SHAPE(b));
    int shape_a[NODE_DIMS], shape_b[NODE_DIMS], shape[NODE_DIMS], ndim;
    memcpy(shape_a, a->shape, sizeof shape_a);
    memcpy(shape_b, b->shape, sizeof shape_b);
    shape_a[at_a] = shape_b[at_b] = 3;
    if (!shape_broadcast(shape_a, a->ndim, shape_b, b->ndim, shape, &ndim)) return NULL;
    const int along = ndim - a->ndim + at_a;
    const mlx_dtype dtype = dtype_promote(a->dtype, b->dtype);
    Node *x[3] = {NULL, NULL, NULL}, *y[3] = {NULL, NULL, NULL}, *result = NULL;
    if (cross_items(a, dtype, shape, ndim, along, x) &&
        cross_items(b, dtype, shape, ndim, along, y)) {
        Node *const parts[] = {cross_part(x, y, 1, 2), cross_part(x, y, 2, 0),
                               cross_part(x, y, 0, 1)};
        if (parts[0] && parts[1] && parts[2]) result = op_concatenate(parts, 3, along);
        for (int i = 0; i < 3; i++) node_release(parts[i]);
    }
    for (int i = 0; i < 3; i++) {
        node_release(x[i]);
        node_release(y[i]);
    }
    return result;
}

/* ---- the public functions ---------------------------------------------------------------- */

int mlx_linalg_solve(mlx_array *res, const mlx_array a, const mlx_array b, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_solve(node_of(a), node_of(b))) : 1;
}

int mlx_linalg_solve_triangular(mlx_array *res, const mlx_array a, const mlx_array b, bool upper,
                                const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_solve_triangular(node_of(a), node_of(b), upper)) : 1;
}

int mlx_linalg_inv(mlx_array *res, const mlx_array a, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_inverse(node_of(a), INVERSE_GENERAL)) : 1;
}

int mlx_linalg_tri_inv(mlx_array *res, const mlx_array a, bool upper, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res, op_inverse(node_of(a), upper ? INVERSE_UPPER : INVERSE_LOWER));
}

int mlx_linalg_pinv(mlx_array *res, const mlx_array a, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_pinv(node_of(a))) : 1;
}

int mlx_linalg_cholesky(mlx_array *res, const mlx_array a, bool upper, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_cholesky(node_of(a), upper)) : 1;
}

int mlx_linalg_cholesky_inv(mlx_array *res, const mlx_array a, bool upper, const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_cholesky_inverse(node_of(a), upper)) : 1;
}

int mlx_linalg_cross(mlx_array *res, const mlx_array a, const mlx_array b, int axis,
                     const mlx_stream s) {
    return stream_ok(s) ? op_finish(res, op_cross(node_of(a), node_of(b), axis)) : 1;
}
