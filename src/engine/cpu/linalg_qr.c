/* Householder reflections and the QR factorisation made of them. Columns are
 * contiguous, so a reflection is a dot product and an addition. */
#include "cpu/linalg.h"

#include <math.h>

/* The length of x, scaled so that squares neither overflow nor vanish. */
static double length_of(const double *x, size_t n) {
    double most = 0;
    for (size_t i = 0; i < n; i++) most = fabs(x[i]) > most || isnan(x[i]) ? fabs(x[i]) : most;
    if (most == 0 || !isfinite(most)) return most;
    if (most > 1e-140 && most < 1e140) return sqrt(linalg_dot(x, x, n));
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i] / most * (x[i] / most);
    return most * sqrt(sum);
}

double linalg_reflector(double *x, size_t n) {
    if (n < 2) return 0;
    const double rest = length_of(x + 1, n - 1);
    if (rest == 0) return 0;
    const double beta = -copysign(hypot(x[0], rest), x[0]);
    const double tau = (beta - x[0]) / beta, scale = 1 / (x[0] - beta);
    for (size_t i = 1; i < n; i++) x[i] *= scale;
    x[0] = beta;
    return tau;
}

void linalg_reflect(double *x, const double *v, double tau, size_t n) {
    if (tau == 0) return;
    const double factor = -tau * (x[0] + linalg_dot(x + 1, v + 1, n - 1));
    x[0] += factor;
    linalg_add(x + 1, factor, v + 1, n - 1);
}

void linalg_qr(double *columns, size_t m, size_t n, double *tau) {
    for (size_t k = 0; k < m && k < n; k++) {
        double *v = columns + k * m + k;
        tau[k] = linalg_reflector(v, m - k);
        for (size_t j = k + 1; j < n; j++) linalg_reflect(columns + j * m + k, v, tau[k], m - k);
    }
}

void linalg_qr_apply(const double *columns, const double *tau, size_t m, size_t k, double *x) {
    while (k-- > 0) linalg_reflect(x + k, columns + k * m + k, tau[k], m - k);
}
