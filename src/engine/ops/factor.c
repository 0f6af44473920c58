/* Factorisations with several results: LU, QR, singular values, eigenvalues.
 * All results of one lie in one buffer, the arrays given out are parts of it. */
#include "engine/ops/linalg.h"
#include "mlx/c/linalg.h"

#include <stdlib.h>
#include <string.h>

typedef struct FactorParam {
    size_t at[3]; /* bytes of each result */
    bool option;
} FactorParam;

/* A result: x's batch and `n_tail` axes more. */
typedef struct Result {
    mlx_dtype dtype;
    int n_tail, tail[2];
} Result;

/* ---- one matrix ------------------------------------------------------------------- */

/* out: L and U, pivots. */
static size_t lu_factor_body(const LinalgJob *job, size_t index, double *a) {
    const size_t m = job->m, n = job->n, k = BASE_MIN(m, n);
    linalg_lu(a, m, n, (uint32_t *)job->out[1] + index * k);
    linalg_store(job, job->out[0], index * m * n, a, m * n);
    return 0;
}

/* LU of one matrix to rows [m], L [m, k] and U [k, n]; line: room for a row. */
static void split_lu(const LinalgJob *job, size_t index, double *a, uint32_t *pivots,
                     double *line) {
    const size_t m = job->m, n = job->n, k = BASE_MIN(m, n);
    uint32_t *rows = (uint32_t *)job->out[0] + index * m;
    linalg_lu(a, m, n, pivots);
    for (size_t i = 0; i < m; i++) rows[i] = (uint32_t)i;
    for (size_t i = k; i-- > 0;) {
        const uint32_t kept = rows[pivots[i]];
        rows[pivots[i]] = rows[i];
        rows[i] = kept;
    }
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < k; j++) line[j] = j < i ? a[i * n + j] : i == j ? 1 : 0;
        linalg_store(job, job->out[1], (index * m + i) * k, line, k);
    }
    for (size_t i = 0; i < k; i++) {
        for (size_t j = 0; j < n; j++) line[j] = j < i ? 0 : a[i * n + j];
        linalg_store(job, job->out[2], (index * k + i) * n, line, n);
    }
}

static size_t lu_body(const LinalgJob *job, size_t index, double *a) {
    const size_t k = BASE_MIN(job->m, job->n);
    uint32_t *pivots = calloc(k + 1, sizeof *pivots);
    double *line = calloc(BASE_MAX(k, job->n) + 1, sizeof *line);
    const bool room = pivots && line;
    if (room) split_lu(job, index, a, pivots, line);
    free(pivots);
    free(line);
    return room ? 0 : LINALG_NO_MEMORY;
}

/* out [columns, rows] from in [rows, columns], items of `parts` numbers. */
static void turn(const double *in, size_t rows, size_t columns, size_t parts, double *out) {
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++)
            for (size_t p = 0; p < parts; p++)
                out[(j * rows + i) * parts + p] = in[(i * columns + j) * parts + p];
}

/* out: Q [m, k], R [k, n]. space: [m, n] and [k, m]. */
static void split_qr(const LinalgJob *job, size_t index, double *a, double *columns, double *q,
                     double *tau) {
    const size_t m = job->m, n = job->n, k = BASE_MIN(m, n);
    turn(a, m, n, 1, columns);
    linalg_qr(columns, m, n, tau);
    turn(columns, n, m, 1, a);
    for (size_t i = 0; i < k; i++) {
        memset(a + i * n, 0, i * sizeof *a);
        linalg_store(job, job->out[1], (index * k + i) * n, a + i * n, n);
        q[i * m + i] = 1;
        linalg_qr_apply(columns, tau, m, k, q + i * m);
    }
    turn(q, k, m, 1, columns);
    linalg_store(job, job->out[0], index * m * k, columns, m * k);
}

static size_t qr_body(const LinalgJob *job, size_t index, double *a) {
    const size_t m = job->m, n = job->n, k = BASE_MIN(m, n);
    double *space = calloc(m * n + k * m + k + 1, sizeof *space);
    if (!space) return LINALG_NO_MEMORY;
    split_qr(job, index, a, space, space + m * n, space + m * n + k * m);
    free(space);
    return 0;
}

/* The imaginary parts of n complex numbers change sign. */
static void conjugate(double *items, size_t n) {
    for (size_t i = 0; i < n; i++) items[2 * i + 1] = -items[2 * i + 1];
}

/* out: S, U and V^H; or S alone. */
static size_t svd_body(const LinalgJob *job, size_t index, double *a) {
    const size_t m = job->m, n = job->n, k = BASE_MIN(m, n), parts = job->parts;
    const size_t u_size = m * m * parts, v_size = n * n * parts;
    double *space = calloc(k + 1 + (job->option ? 2 * u_size + v_size : 0), sizeof *space);
    if (!space) return LINALG_NO_MEMORY;
    double *u = job->option ? space + k : NULL, *across = space + k + u_size;
    double *v = job->option ? across + u_size : NULL;
    const bool good = (parts == 2 ? linalg_svd_complex : linalg_svd)(a, m, n, space, u, v);
    linalg_store(job, job->out[0], index * k, space, k);
    if (job->option) {
        turn(u, m, m, parts, across);
        if (parts == 2) conjugate(v, n * n);
        linalg_store(job, job->out[1], index * u_size, across, u_size);
        linalg_store(job, job->out[2], index * v_size, v, v_size);
    }
    free(space);
    return good ? 0 : 1;
}

/* out: values, vectors as columns. */
static size_t eigen_body(const LinalgJob *job, size_t index, double *a) {
    const size_t n = job->n, parts = job->parts, size = n * n * parts;
    double *space = calloc(n + 1 + (job->option ? size : 0), sizeof *space);
    if (!space) return LINALG_NO_MEMORY;
    const bool good = (parts == 2 ? linalg_eigen_complex : linalg_eigen)(a, n, space, job->option);
    linalg_store(job, job->out[0], index * n, space, n);
    if (job->option) {
        turn(a, n, n, parts, space + n);
        linalg_store(job, job->out[1], index * size, space + n, size);
    }
    free(space);
    return good ? 0 : 1;
}

/* The other triangle becomes the adjoint of the one that counts. */
static void mirror(double *a, size_t n, size_t parts, bool lower) {
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++) {
            double *below = a + (i * n + j) * parts, *above = a + (j * n + i) * parts;
            const double *from = lower ? below : above;
            double *to = lower ? above : below;
            to[0] = from[0];
            if (parts == 2) to[1] = i == j ? 0 : -from[1];
        }
}

static size_t eigen_lower_body(const LinalgJob *job, size_t index, double *a) {
    mirror(a, job->n, job->parts, true);
    return eigen_body(job, index, a);
}

static size_t eigen_upper_body(const LinalgJob *job, size_t index, double *a) {
    mirror(a, job->n, job->parts, false);
    return eigen_body(job, index, a);
}

/* ---- evaluation --------------------------------------------------------------------- */

static bool factor(Node *node, LinalgBody body, const char *failure, Error *err) {
    const FactorParam *param = node->param;
    if (!node_alloc(node, err)) return false;
    LinalgJob job = {
        .x = node->inputs[0], .option = param->option, .failure = failure, .body = body};
    for (int i = 0; i < 3; i++) job.out[i] = (uint8_t *)node_data(node) + param->at[i];
    return linalg_run(&job, err);
}

static bool lu_factor_eval(Node *node, Error *err) {
    return factor(node, lu_factor_body, "", err);
}
static bool lu_eval(Node *node, Error *err) {
    return factor(node, lu_body, "", err);
}
static bool qr_eval(Node *node, Error *err) {
    return factor(node, qr_body, "", err);
}
static bool svd_eval(Node *node, Error *err) {
    return factor(node, svd_body, "[SVD::eval_cpu] SVD failed", err);
}
#define EIGEN_FAILURE "[Eigh::eval_cpu] Eigenvalue decomposition failed"
static bool eigen_lower_eval(Node *node, Error *err) {
    return factor(node, eigen_lower_body, EIGEN_FAILURE, err);
}
static bool eigen_upper_eval(Node *node, Error *err) {
    return factor(node, eigen_upper_body, EIGEN_FAILURE, err);
}

static const Op lu_factor_op = {"linalg_lu_factor", lu_factor_eval, NULL};
static const Op lu_op = {"linalg_lu", lu_eval, NULL};
static const Op qr_op = {"linalg_qr", qr_eval, NULL};
static const Op svd_op = {"linalg_svd", svd_eval, NULL};
static const Op eigen_lower_op = {"linalg_eigh", eigen_lower_eval, NULL};
static const Op eigen_upper_op = {"linalg_eigh", eigen_upper_eval, NULL};

/* ---- the operations ----------------------------------------------------------------- */

/* The parts of a factorisation of x. Returns how many, 0 after an error. */
static int factor_nodes(const Op *op, Node *x, bool option, const Result *results, int n,
                        Node **parts) {
    FactorParam param = {.option = option};
    int shapes[3][NODE_DIMS], ndims[3];
    size_t bytes = 0;
    for (int i = 0; i < n; i++) {
        size_t size;
        ndims[i] = x->ndim - 2 + results[i].n_tail;
        memcpy(shapes[i], x->shape, sizeof shapes[i]);
        for (int j = 0; j < results[i].n_tail; j++) shapes[i][x->ndim - 2 + j] = results[i].tail[j];
        param.at[i] = bytes;
        if (!shape_size(shapes[i], ndims[i], &size) ||
            size + 16 > ((size_t)INT32_MAX * 4 - bytes) / 8) {
            op_error("[%s] The result for %s would be too large.", op->name, SHAPE(x));
            return 0;
        }
        bytes += (size * dtype_info[results[i].dtype].size + 63) / 64 * 64;
    }
    const int words = (int)(bytes / 4);
    Node *whole = node_new_param(op, MLX_UINT32, &words, 1, &param, sizeof param, NODES(x));
    bool good = whole != NULL;
    for (int i = 0; i < n; i++) {
        parts[i] =
            good ? node_part(whole, param.at[i], results[i].dtype, shapes[i], ndims[i]) : NULL;
        good = good && parts[i];
    }
    node_release(whole);
    for (int i = 0; !good && i < n; i++) {
        node_release(parts[i]);
        parts[i] = NULL;
    }
    return good ? n : 0;
}

static int rows_of(const Node *x) {
    return x->shape[x->ndim - 2];
}
static int columns_of(const Node *x) {
    return x->shape[x->ndim - 1];
}
static int smaller_side(const Node *x) {
    return BASE_MIN(rows_of(x), columns_of(x));
}

/* The type of singular values and of eigenvalues. */
static mlx_dtype real_of(const Node *x) {
    return x->dtype == MLX_COMPLEX64 ? MLX_FLOAT32 : x->dtype;
}

int op_svd(Node *x, bool compute_uv, Node *parts[3]) {
    if (!x || !linalg_check_spectrum("svd", x, false)) return 0;
    const int m = rows_of(x), n = columns_of(x), k = smaller_side(x);
    const Result results[] = {{real_of(x), 1, {k}}, {x->dtype, 2, {m, m}}, {x->dtype, 2, {n, n}}};
    Node *found[3];
    const int count = factor_nodes(&svd_op, x, compute_uv, results, compute_uv ? 3 : 1, found);
    static const int order[] = {1, 0, 2};
    for (int i = 0; i < count; i++) parts[i] = found[count == 3 ? order[i] : i];
    return count;
}

int mlx_linalg_svd(mlx_vector_array *res, const mlx_array a, bool compute_uv, const mlx_stream s) {
    Node *parts[3];
    if (!stream_ok(s)) return 1;
    const int count = op_svd(node_of(a), compute_uv, parts);
    return count ? op_finish_vector(res, parts, (size_t)count) : 1;
}

int mlx_linalg_lu(mlx_vector_array *res, const mlx_array a, const mlx_stream s) {
    Node *parts[3], *x = stream_ok(s) ? node_of(a) : NULL;
    if (!x || !linalg_check("lu", x, false)) return 1;
    const int m = rows_of(x), n = columns_of(x), k = smaller_side(x);
    const Result results[] = {{MLX_UINT32, 1, {m}}, {x->dtype, 2, {m, k}}, {x->dtype, 2, {k, n}}};
    if (!factor_nodes(&lu_op, x, false, results, 3, parts)) return 1;
    return op_finish_vector(res, parts, 3);
}

/* Stores two results, or neither. */
static int finish_two(mlx_array *res_0, mlx_array *res_1, Node *const *parts) {
    return op_finish(res_0, parts[0]) | op_finish(res_1, parts[1]);
}

int mlx_linalg_lu_factor(mlx_array *res_0, mlx_array *res_1, const mlx_array a,
                         const mlx_stream s) {
    Node *parts[2], *x = stream_ok(s) ? node_of(a) : NULL;
    if (!x || !linalg_check("lu_factor", x, false)) return 1;
    const Result results[] = {{x->dtype, 2, {rows_of(x), columns_of(x)}},
                              {MLX_UINT32, 1, {smaller_side(x)}}};
    return factor_nodes(&lu_factor_op, x, false, results, 2, parts)
               ? finish_two(res_0, res_1, parts)
               : 1;
}

int mlx_linalg_qr(mlx_array *res_0, mlx_array *res_1, const mlx_array a, const mlx_stream s) {
    Node *parts[2], *x = stream_ok(s) ? node_of(a) : NULL;
    if (!x || !linalg_check("qr", x, false)) return 1;
    const int k = smaller_side(x);
    const Result results[] = {{x->dtype, 2, {rows_of(x), k}}, {x->dtype, 2, {k, columns_of(x)}}};
    return factor_nodes(&qr_op, x, false, results, 2, parts) ? finish_two(res_0, res_1, parts) : 1;
}

/* parts: the values, and the vectors if wanted. */
static int eigen_nodes(const char *op, Node *x, const char *triangle, bool vectors, Node **parts) {
    if (!x || !linalg_check_spectrum(op, x, true)) return 0;
    if (!triangle || (strcmp(triangle, "L") != 0 && strcmp(triangle, "U") != 0)) {
        op_error("[linalg::%s] UPLO must be \"L\" or \"U\", but got \"%s\".", op,
                 triangle ? triangle : "");
        return 0;
    }
    const int n = columns_of(x);
    const Result results[] = {{real_of(x), 1, {n}}, {x->dtype, 2, {n, n}}};
    return factor_nodes(triangle[0] == 'L' ? &eigen_lower_op : &eigen_upper_op, x, vectors, results,
                        vectors ? 2 : 1, parts);
}

int mlx_linalg_eigh(mlx_array *res_0, mlx_array *res_1, const mlx_array a, const char *UPLO,
                    const mlx_stream s) {
    Node *parts[2];
    if (!stream_ok(s) || !eigen_nodes("eigh", node_of(a), UPLO, true, parts)) return 1;
    return finish_two(res_0, res_1, parts);
}

int mlx_linalg_eigvalsh(mlx_array *res, const mlx_array a, const char *UPLO, const mlx_stream s) {
    Node *part[1];
    if (!stream_ok(s) || !eigen_nodes("eigvalsh", node_of(a), UPLO, false, part)) return 1;
    return op_finish(res, part[0]);
}
