/* Eigenvalues of symmetric matrices: Householder's reduction to three
 * diagonals, then implicit QL steps with Wilkinson's shift (Golub and Van Loan,
 * Matrix Computations, 8.3). Eigenvectors are rows, so that a rotation works on
 * two contiguous runs. */
#include "cpu/linalg.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { QL_STEPS = 60 };

/* a becomes tridiagonal by reflections: diagonal d [n], beside it e [n - 1].
 * The v of step k stays in row k of a from column k + 1 on. */
static void reduce(double *a, size_t n, double *d, double *e, double *tau, double *work) {
    for (size_t k = 0; k + 1 < n; k++) {
        const size_t rest = n - k - 1;
        double *v = a + k * n + k + 1;
        d[k] = a[k * n + k];
        tau[k] = linalg_reflector(v, rest);
        e[k] = v[0];
        v[0] = 1;
        if (tau[k] == 0) continue;
        /* A -= v w^T + w v^T, w = tau A v - tau^2 / 2 (v^T A v) v */
        for (size_t i = 0; i < rest; i++)
            work[i] = tau[k] * linalg_dot(a + (k + 1 + i) * n + k + 1, v, rest);
        linalg_add(work, -tau[k] / 2 * linalg_dot(work, v, rest), v, rest);
        for (size_t i = 0; i < rest; i++) {
            double *row = a + (k + 1 + i) * n + k + 1;
            linalg_add(row, -v[i], work, rest);
            linalg_add(row, -work[i], v, rest);
        }
    }
    d[n - 1] = a[(n - 1) * n + n - 1];
}

/* z rows = columns of the product of the reflections. */
static void form_basis(const double *a, const double *tau, size_t n, double *z) {
    memset(z, 0, n * n * sizeof *z);
    for (size_t i = 0; i < n; i++) z[i * n + i] = 1;
    for (size_t k = n - 1; k-- > 0;)
        for (size_t j = k + 1; j < n; j++)
            linalg_reflect(z + j * n + k + 1, a + k * n + k + 1, tau[k], n - k - 1);
}

static void rotate(double *restrict low, double *restrict high, double c, double s, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const double x = low[i], y = high[i];
        low[i] = c * x - s * y;
        high[i] = s * x + c * y;
    }
}

/* One implicit QL step on the block [first, last]. */
static void ql_step(double *d, double *e, size_t first, size_t last, double *z, size_t n) {
    double g = (d[first + 1] - d[first]) / (2 * e[first]);
    g = d[last] - d[first] + e[first] / (g + copysign(hypot(g, 1), g));
    double s = 1, c = 1, moved = 0;
    for (size_t i = last; i-- > first;) {
        const double f = s * e[i], b = c * e[i], r = hypot(f, g);
        if (i + 1 < last) e[i + 1] = r;
        if (r == 0) { /* the block falls apart here */
            d[i + 1] -= moved;
            if (i + 1 == last) e[i] = 0;
            return;
        }
        s = f / r;
        c = g / r;
        g = d[i + 1] - moved;
        const double t = (d[i] - g) * s + 2 * c * b;
        moved = s * t;
        d[i + 1] = g + moved;
        g = c * t - b;
        if (z) rotate(z + i * n, z + (i + 1) * n, c, s, n);
    }
    d[first] -= moved;
    e[first] = g;
}

static bool diagonalise(double *d, double *e, double *z, size_t n) {
    for (size_t first = 0; first < n; first++)
        for (int step = 0;; step++) {
            size_t last = first;
            while (last + 1 < n &&
                   !(fabs(e[last]) <= DBL_EPSILON * (fabs(d[last]) + fabs(d[last + 1]))))
                last++;
            if (last == first) break;
            if (step == QL_STEPS) return false;
            ql_step(d, e, first, last, z, n);
        }
    return true;
}

static int ascending(const void *a, const void *b) {
    const LinalgRank *x = a, *y = b;
    return x->value == y->value ? (x->row > y->row) - (x->row < y->row)
                                : (x->value > y->value) - (x->value < y->value);
}

static int descending(const void *a, const void *b) {
    const LinalgRank *x = a, *y = b;
    return x->value == y->value ? ascending(a, b) : ascending(b, a);
}

void linalg_rank(LinalgRank *ranks, size_t n, bool down) {
    qsort(ranks, n, sizeof *ranks, down ? descending : ascending);
}

/* The largest magnitude, or NaN or infinity when there is one. */
static double magnitude(const double *a, size_t n) {
    double most = 0;
    for (size_t i = 0; i < n; i++)
        if (fabs(a[i]) > most || isnan(a[i])) most = fabs(a[i]);
    return most;
}

bool linalg_eigen(double *a, size_t n, double *values, bool vectors) {
    const double scale = magnitude(a, n * n);
    if (!isfinite(scale)) return false;
    if (n == 0) return true;
    const double down = scale > 0 ? 1 / scale : 1;
    double *memory = calloc(4 * n + (vectors ? n * n : 0), sizeof *memory);
    LinalgRank *order = calloc(n, sizeof *order);
    if (!memory || !order) {
        free(memory);
        free(order);
        return false;
    }
    double *d = memory, *e = d + n, *tau = e + n, *work = tau + n;
    double *z = vectors ? work + n : NULL;
    for (size_t i = 0; i < n * n; i++) a[i] *= down;
    reduce(a, n, d, e, tau, work);
    if (vectors) form_basis(a, tau, n, z);
    const bool good = diagonalise(d, e, z, n);
    for (size_t i = 0; i < n; i++) order[i] = (LinalgRank){d[i], i};
    linalg_rank(order, n, false);
    for (size_t i = 0; i < n; i++) {
        values[i] = order[i].value * (scale > 0 ? scale : 1);
        if (z) memcpy(a + i * n, z + order[i].row * n, n * sizeof *a);
    }
    free(order);
    free(memory);
    return good;
}
