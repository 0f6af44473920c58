/* Linear algebra on the last two axes, over any leading ones, in float32 or
 * float64. Shapes are checked at once; a singular or indefinite matrix is an
 * error of the evaluation. Signs of eigenvectors and singular vectors are
 * arbitrary. */
#ifndef MLX_C_LINALG_H
#define MLX_C_LINALG_H

#include "mlx/c/array.h"
#include "mlx/c/stream.h"
#include "mlx/c/vector.h"

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* a x = b for a [..., N, N] and b [N], or [..., N, K]. The triangular one reads one
 * triangle of a. */
int mlx_linalg_solve(mlx_array *res, const mlx_array a, const mlx_array b, const mlx_stream s);
int mlx_linalg_solve_triangular(mlx_array *res, const mlx_array a, const mlx_array b, bool upper,
                                const mlx_stream s);
int mlx_linalg_inv(mlx_array *res, const mlx_array a, const mlx_stream s);
int mlx_linalg_tri_inv(mlx_array *res, const mlx_array a, bool upper, const mlx_stream s);
/* The Moore-Penrose inverse. */
int mlx_linalg_pinv(mlx_array *res, const mlx_array a, const mlx_stream s);

/* L with L L^T = a, or U with U^T U = a; of a only that triangle is read. */
int mlx_linalg_cholesky(mlx_array *res, const mlx_array a, bool upper, const mlx_stream s);
/* The inverse of the matrix whose Cholesky factor is a. */
int mlx_linalg_cholesky_inv(mlx_array *res, const mlx_array a, bool upper, const mlx_stream s);

/* {p, L, U} with L @ U the rows of a in the order that p [..., M] inverts; and LU in one
 * matrix with the row exchanged at each step. */
int mlx_linalg_lu(mlx_vector_array *res, const mlx_array a, const mlx_stream s);
int mlx_linalg_lu_factor(mlx_array *res_0, mlx_array *res_1, const mlx_array a, const mlx_stream s);
/* Q [..., M, K] and R [..., K, N], K the smaller side. */
int mlx_linalg_qr(mlx_array *res_0, mlx_array *res_1, const mlx_array a, const mlx_stream s);
/* {U [..., M, M], S [..., K] descending, V^T [..., N, N]}, or {S} alone. */
int mlx_linalg_svd(mlx_vector_array *res, const mlx_array a, bool compute_uv, const mlx_stream s);
/* Eigenvalues, ascending, and eigenvectors as columns of a symmetric matrix, of which
 * UPLO, "L" or "U", names the triangle that is read. */
int mlx_linalg_eigh(mlx_array *res_0, mlx_array *res_1, const mlx_array a, const char *UPLO,
                    const mlx_stream s);
int mlx_linalg_eigvalsh(mlx_array *res, const mlx_array a, const char *UPLO, const mlx_stream s);

/* Vectors of 2 or 3 items along axis. */
int mlx_linalg_cross(mlx_array *res, const mlx_array a, const mlx_array b, int axis,
                     const mlx_stream s);

/* Norms over one axis (a vector) or two (a matrix); a null axis means all. ord of a
 * vector: 0 counts, 1, 2, +-infinity, or any power; of a matrix: +-1, +-infinity,
 * +-2 (singular values); norm_matrix: "f", "fro" or "nuc". norm_l2 takes any number of axes when
 * axis is null. */
int mlx_linalg_norm(mlx_array *res, const mlx_array a, double ord,
                    const int *axis /* may be null */, size_t axis_num, bool keepdims,
                    const mlx_stream s);
int mlx_linalg_norm_l2(mlx_array *res, const mlx_array a, const int *axis /* may be null */,
                       size_t axis_num, bool keepdims, const mlx_stream s);
int mlx_linalg_norm_matrix(mlx_array *res, const mlx_array a, const char *ord,
                           const int *axis /* may be null */, size_t axis_num, bool keepdims,
                           const mlx_stream s);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
