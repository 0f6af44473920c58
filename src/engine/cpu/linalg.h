/* linalg: dense factorisations for linear algebra, in float64 whatever the
 * array's type. Matrices are row major without gaps unless a name says columns:
 * then item (i, j) of an [m, n] matrix is at j * m + i. Everything is in place
 * where one pointer serves as input and output. No memory is shared between
 * calls, so a batch may run in many threads. */
#ifndef ENGINE_CPU_LINALG_H
#define ENGINE_CPU_LINALG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- triangles and elimination (linalg_lu.c) ------------------------------- */

/* a [m, n] becomes L below the diagonal (of ones) and U on and above it, with
 * row i exchanged with pivots[i] at step i < min(m, n). Gives 0, or 1 + the
 * first step whose pivot is zero; the rest is factored all the same. */
size_t linalg_lu(double *a, size_t m, size_t n, uint32_t *pivots);
/* b [n, columns] becomes the solution of A x = b, lu and pivots being A's. */
void linalg_lu_solve(const double *lu, const uint32_t *pivots, size_t n, double *b, size_t columns);
/* The triangle's inverse, zero in the other one. Gives 0, or 1 + the place of a
 * zero on the diagonal. */
size_t linalg_triangle_inverse(double *a, size_t n, bool upper);
/* a, of which only one triangle is read, becomes L with L L^T = a, or U with
 * U^T U = a, zero in the other triangle. Gives 0, or the order of the leading
 * minor that is not positive. epsilon: the rounding of a's items; a minor that is
 * zero but for it counts as positive, as it may do in arithmetic of that type. */
size_t linalg_cholesky(double *a, size_t n, bool upper, double epsilon);

/* ---- reflections (linalg_qr.c) ---------------------------------------------- */

/* Householder's H = 1 - tau v v^T with v[0] = 1 that maps x [n] to beta e_0,
 * beta of the sign opposite to x[0]. x becomes beta, v[1..n). Gives tau, 0 when
 * x is that already. (As LAPACK's larfg.) */
double linalg_reflector(double *x, size_t n);
/* x = H x, v as linalg_reflector leaves it: v[0] is taken as 1. */
void linalg_reflect(double *x, const double *v, double tau, size_t n);
/* columns [m, n] become R on and above the diagonal and the v of each
 * reflection below it; tau: [min(m, n)]. */
void linalg_qr(double *columns, size_t m, size_t n, double *tau);
/* x [m] = Q x for the Q of the first k reflections. */
void linalg_qr_apply(const double *columns, const double *tau, size_t m, size_t k, double *x);

/* ---- spectra (linalg_eigen.c, linalg_svd.c, linalg_complex.c) ---------------- */

/* a [n, n], symmetric, becomes its orthonormal eigenvectors, one a row (or
 * garbage without vectors), values [n] its eigenvalues in ascending order.
 * False when the iteration does not end, as for NaN, or memory is short. */
bool linalg_eigen(double *a, size_t n, double *values, bool vectors);
/* a [m, n] = sum over i of values[i] * u row i * v row i, values descending.
 * u: [m, m], v: [n, n], a vector a row; both NULL for the values alone. False as
 * above. */
bool linalg_svd(const double *a, size_t m, size_t n, double *values, double *u, double *v);
/* The same of complex matrices, an item being two numbers, real and imaginary: a
 * hermitian a, and a = sum over i of values[i] * u row i * conjugate of v row i.
 * The values are real. */
bool linalg_eigen_complex(double *a, size_t n, double *values, bool vectors);
bool linalg_svd_complex(const double *a, size_t m, size_t n, double *values, double *u, double *v);

/* Values in ascending order, or down; equal ones as their rows. */
typedef struct LinalgRank {
    double value;
    size_t row;
} LinalgRank;
void linalg_rank(LinalgRank *ranks, size_t n, bool down);

/* ---- runs --------------------------------------------------------------------- */

static inline double linalg_dot(const double *a, const double *b, size_t n) {
    enum { PARTS = 8 };
    double sums[PARTS] = {0}, total = 0;
    size_t i = 0;
    for (; i + PARTS <= n; i += PARTS)
        for (size_t j = 0; j < PARTS; j++) sums[j] += a[i + j] * b[i + j];
    for (; i < n; i++) total += a[i] * b[i];
    for (size_t j = 0; j < PARTS; j++) total += sums[j];
    return total;
}

/* a += factor * b */
static inline void linalg_add(double *restrict a, double factor, const double *restrict b,
                              size_t n) {
    for (size_t i = 0; i < n; i++) a[i] += factor * b[i];
}

#endif
