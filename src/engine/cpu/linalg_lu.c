/* Elimination: LU with partial pivoting, what is solved with it, inverses of
 * triangles, Cholesky. All loops run along rows. */
#include "cpu/linalg.h"

#include <math.h>
#include <string.h>

static void swap_rows(double *restrict a, double *restrict b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const double kept = a[i];
        a[i] = b[i];
        b[i] = kept;
    }
}

size_t linalg_lu(double *a, size_t m, size_t n, uint32_t *pivots) {
    size_t failed = 0;
    for (size_t k = 0; k < m && k < n; k++) {
        size_t best = k;
        for (size_t i = k + 1; i < m; i++)
            if (fabs(a[i * n + k]) > fabs(a[best * n + k])) best = i;
        pivots[k] = (uint32_t)best;
        if (best != k) swap_rows(a + k * n, a + best * n, n);
        const double pivot = a[k * n + k];
        if (pivot == 0) {
            if (!failed) failed = k + 1;
            continue;
        }
        for (size_t i = k + 1; i < m; i++) {
            double *row = a + i * n;
            row[k] /= pivot;
            if (row[k] != 0) linalg_add(row + k + 1, -row[k], a + k * n + k + 1, n - k - 1);
        }
    }
    return failed;
}

void linalg_lu_solve(const double *lu, const uint32_t *pivots, size_t n, double *b,
                     size_t columns) {
    for (size_t k = 0; k < n; k++)
        if (pivots[k] != k) swap_rows(b + k * columns, b + pivots[k] * columns, columns);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < i; k++)
            linalg_add(b + i * columns, -lu[i * n + k], b + k * columns, columns);
    for (size_t i = n; i-- > 0;) {
        for (size_t k = i + 1; k < n; k++)
            linalg_add(b + i * columns, -lu[i * n + k], b + k * columns, columns);
        for (size_t j = 0; j < columns; j++) b[i * columns + j] /= lu[i * n + i];
    }
}

/* Row i of the inverse x needs row i of the triangle and the rows of x that
 * are ready: those above for a lower triangle, those below for an upper. Row i
 * of the triangle is overwritten from the far end of the sum on. */
size_t linalg_triangle_inverse(double *a, size_t n, bool upper) {
    for (size_t i = 0; i < n; i++)
        if (a[i * n + i] == 0) return i + 1;
    for (size_t step = 0; step < n; step++) {
        const size_t i = upper ? n - 1 - step : step;
        double *row = a + i * n;
        const double scale = 1 / row[i];
        if (upper) {
            memset(row, 0, i * sizeof *row);
            for (size_t k = n; k-- > i + 1;) {
                const double factor = -row[k] * scale;
                row[k] = 0;
                linalg_add(row + k, factor, a + k * n + k, n - k);
            }
        } else {
            memset(row + i + 1, 0, (n - i - 1) * sizeof *row);
            for (size_t k = 0; k < i; k++) {
                const double factor = -row[k] * scale;
                row[k] = 0;
                linalg_add(row, factor, a + k * n, k + 1);
            }
        }
        row[i] = scale;
    }
    return 0;
}

static void turn(double *a, size_t n) {
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++) {
            const double kept = a[i * n + j];
            a[i * n + j] = a[j * n + i];
            a[j * n + i] = kept;
        }
}

size_t linalg_cholesky(double *a, size_t n, bool upper, double epsilon) {
    if (upper) turn(a, n);
    for (size_t i = 0; i < n; i++) {
        double *row = a + i * n;
        for (size_t j = 0; j < i; j++)
            row[j] = (row[j] - linalg_dot(row, a + j * n, j)) / a[j * n + j];
        const double slack = (double)n * epsilon * row[i];
        double rest = row[i] - linalg_dot(row, row, i);
        if (rest <= 0 && rest > -slack) rest = slack;
        if (!(rest > 0)) return i + 1;
        row[i] = sqrt(rest);
        memset(row + i + 1, 0, (n - i - 1) * sizeof *row);
    }
    if (upper) turn(a, n);
    return 0;
}
