/* Spectra of complex matrices by those of real ones. A hermitian X + iY has the
 * eigenvalues of the symmetric
 *
 *      X -Y
 *      Y  X        (x; y) standing for x + iy
 *
 * each twice: of the 2n real eigenvectors n are chosen that are orthonormal over
 * the complex numbers. The singular vectors of A are the eigenvectors of A^H A,
 * whose squares float64 has room for where A's items are float32. */
#include "cpu/linalg.h"

#include <complex.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Singular values below this part of the largest are rounding of A^H A: what A
 * makes of their vectors has no direction to trust. */
#define NEGLIGIBLE 1e-12

typedef double complex Item;

/* The inner product, linear in b. */
static Item inner(const Item *a, const Item *b, size_t n) {
    Item sum = 0;
    for (size_t i = 0; i < n; i++) sum += conj(a[i]) * b[i];
    return sum;
}

static double length_of(const Item *x, size_t n) {
    return sqrt(creal(inner(x, x, n)));
}

/* x less its parts along `count` orthonormal rows; twice, because the first time
 * leaves the rounding of what it takes. Gives the length of the rest. */
static double apart(Item *x, const Item *rows, size_t count, size_t n) {
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < count; i++) {
            const Item part = inner(rows + i * n, x, n);
            for (size_t j = 0; j < n; j++) x[j] -= part * rows[i * n + j];
        }
    return length_of(x, n);
}

static void scale(Item *x, double factor, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] *= factor;
}

/* Row `row` becomes orthonormal to those before it: the axis they hold least of. */
static void complete(Item *rows, size_t row, size_t n) {
    Item *x = rows + row * n;
    double most = -1;
    size_t chosen = 0;
    for (size_t axis = 0; axis < n; axis++) {
        double left = 1;
        for (size_t i = 0; i < row; i++)
            left -= creal(conj(rows[i * n + axis]) * rows[i * n + axis]);
        if (left > most) {
            most = left;
            chosen = axis;
        }
    }
    memset(x, 0, n * sizeof *x);
    x[chosen] = 1;
    scale(x, 1 / apart(x, rows, row, n), n);
}

/* From 2n orthonormal real vectors, in the order of their eigenvalues, n complex
 * ones. What is left of the 2n beside k chosen has squares that sum to 2 (n - k):
 * were fewer than n left by at least 1 / 2n when it was their turn, the sum would
 * be less than 2. The k-th chosen has the k-th eigenvalue. */
static void choose(const double *real, size_t n, Item *vectors) {
    const double least = sqrt(1 / (2.0 * (double)n));
    size_t chosen = 0;
    for (size_t i = 0; i < 2 * n && chosen < n; i++) {
        Item *x = vectors + chosen * n;
        for (size_t j = 0; j < n; j++) x[j] = real[i * 2 * n + j] + real[i * 2 * n + n + j] * I;
        const double rest = apart(x, vectors, chosen, n);
        if (rest < least) continue;
        scale(x, 1 / rest, n);
        chosen++;
    }
}

bool linalg_eigen_complex(double *items, size_t n, double *values, bool vectors) {
    Item *a = (Item *)(void *)items;
    double *real = calloc(4 * n * n + 2 * n + 1, sizeof *real);
    if (!real) return false;
    double *twice = real + 4 * n * n;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            const Item x = a[i * n + j];
            real[i * 2 * n + j] = real[(n + i) * 2 * n + n + j] = creal(x);
            real[i * 2 * n + n + j] = -cimag(x);
            real[(n + i) * 2 * n + j] = cimag(x);
        }
    const bool good = linalg_eigen(real, 2 * n, twice, vectors);
    for (size_t i = 0; i < n; i++) values[i] = twice[2 * i];
    if (good && vectors) choose(real, n, a);
    free(real);
    return good;
}

/* out [m] = A x, A [m, n] */
static void image_of(const Item *a, size_t m, size_t n, const Item *x, Item *out) {
    for (size_t i = 0; i < m; i++) {
        out[i] = 0;
        for (size_t j = 0; j < n; j++) out[i] += a[i * n + j] * x[j];
    }
}

/* u row i from A v row i, for a tall A [m, n] and descending values. */
static void left_vectors(const Item *a, size_t m, size_t n, const double *values, const Item *v,
                         Item *u) {
    for (size_t i = 0; i < m; i++) {
        Item *x = u + i * m;
        if (i < n && values[i] > NEGLIGIBLE * values[0]) {
            image_of(a, m, n, v + i * n, x);
            scale(x, 1 / apart(x, u, i, m), m);
        } else {
            complete(u, i, m);
        }
    }
}

/* a: a tall [m, n]. values [n]; u [m, m], NULL for the values alone; v [n, n]. */
static bool tall_svd(const Item *a, size_t m, size_t n, double *values, Item *u, Item *v) {
    Item *gram = calloc(n * n + 1, sizeof *gram), *image = calloc(m + 1, sizeof *image);
    LinalgRank *order = calloc(n + 1, sizeof *order);
    bool good = gram && image && order;
    for (size_t i = 0; good && i < n; i++)
        for (size_t j = 0; j < n; j++)
            for (size_t k = 0; k < m; k++) gram[i * n + j] += conj(a[k * n + i]) * a[k * n + j];
    good = good && linalg_eigen_complex((double *)(void *)gram, n, values, true);
    for (size_t i = 0; good && i < n; i++) { /* |A v| is exacter than the root of the square */
        image_of(a, m, n, gram + i * n, image);
        order[i] = (LinalgRank){length_of(image, m), i};
    }
    if (good) {
        linalg_rank(order, n, true);
        for (size_t i = 0; i < n; i++) {
            values[i] = order[i].value;
            if (u) memcpy(v + i * n, gram + order[i].row * n, n * sizeof *v);
        }
        if (u) left_vectors(a, m, n, values, v, u);
    }
    free(gram);
    free(image);
    free(order);
    return good;
}

/* out [n, m] = a^H */
static void adjoint(const Item *a, size_t m, size_t n, Item *out) {
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) out[j * m + i] = conj(a[i * n + j]);
}

bool linalg_svd_complex(const double *items, size_t m, size_t n, double *values, double *u_items,
                        double *v_items) {
    const Item *a = (const Item *)(const void *)items;
    Item *u = (Item *)(void *)u_items, *v = (Item *)(void *)v_items;
    for (size_t i = 0; i < 2 * m * n; i++)
        if (!isfinite(items[i])) return false;
    if (m >= n) return tall_svd(a, m, n, values, u, v);
    Item *across = calloc(m * n + 1, sizeof *across);
    if (!across) return false;
    adjoint(a, m, n, across);
    const bool good = tall_svd(across, n, m, values, v, u);
    free(across);
    return good;
}
