/* The Hadamard transform of rows of m * 2^k numbers, in place: a butterfly over
 * the 2^k, then the matrix of order m across. Each matrix is a bit a sign (bit
 * j of word i: +1 at row i, column j), from neilsloane.com/hadamard. */
#include "cpu/kernels.h"

#include <string.h>

static const uint32_t hadamard_12[] = {0xffd, 0x554, 0xc37, 0x691, 0xdf,  0xa45,
                                       0x373, 0x919, 0xdc3, 0x469, 0x70f, 0x1a5};
static const uint32_t hadamard_20[] = {
    0x6cc21, 0xd1c42, 0xab884, 0x5f108, 0xb6610, 0x9c83e, 0x3945d, 0x7289b, 0xe5117, 0xca60f,
    0xf05ac, 0xe8b58, 0xd92b1, 0xba163, 0x7c2c6, 0x8592,  0x10b05, 0x2122a, 0x42074, 0x840c9};
static const uint32_t hadamard_28[] = {
    0x3296181, 0x6528382, 0xc854704, 0x92a8e08, 0x2751c10, 0x4ca7820, 0x994b0c0,
    0x4b980bc, 0x9534178, 0x2a6c271, 0x54d8463, 0xa9b0847, 0x536500f, 0xa4ce01e,
    0x7804cda, 0xf009935, 0xe21326a, 0xc6224d5, 0x8e409ab, 0x1e81356, 0x3d0262d,
    0x30ed66,  0x41dacd,  0x83b51b,  0x1072ab6, 0x20e15ec, 0x41c2b59, 0x81856b3};

typedef struct Order {
    int m;
    const uint32_t *rows;
} Order;
static const Order orders[] = {{12, hadamard_12}, {20, hadamard_20}, {28, hadamard_28}};
enum { LARGEST_ORDER = 28, LARGEST_POWER = 26 };

/* The matrix of order m where n = m * 2^k; NULL for a power of two, with m = 1,
 * and for a length that no order divides. */
static const uint32_t *split_length(size_t n, size_t *m) {
    *m = 1;
    if ((n & (n - 1)) == 0) return NULL;
    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        if (n % (size_t)orders[i].m) continue;
        *m = (size_t)orders[i].m;
        return orders[i].rows;
    }
    *m = 0;
    return NULL;
}

bool cpu_hadamard_length_ok(size_t n) {
    size_t m;
    if (n == 0 || (!split_length(n, &m) && m != 1)) return false;
    const size_t power = n / m;
    return (power & (power - 1)) == 0 && power <= (size_t)1 << LARGEST_POWER;
}

static void butterfly_f32(float *x, size_t n) {
    size_t half = 1;
    if (n >= 4) {
        for (size_t i = 0; i < n; i += 4) {
            const float a = x[i] + x[i + 1], b = x[i] - x[i + 1];
            const float c = x[i + 2] + x[i + 3], d = x[i + 2] - x[i + 3];
            x[i] = a + c;
            x[i + 1] = b + d;
            x[i + 2] = a - c;
            x[i + 3] = b - d;
        }
        half = 4;
    }
    for (; half < n; half *= 2)
        for (size_t i = 0; i < n; i += 2 * half) {
            float *restrict low = x + i, *restrict high = x + i + half;
            for (size_t j = 0; j < half; j++) {
                const float a = low[j], b = high[j];
                low[j] = a + b;
                high[j] = a - b;
            }
        }
}

/* x: [m, n], each column times the matrix of order m, or its transpose. */
static void across_f32(float *x, const uint32_t *rows, size_t m, size_t n, bool transposed) {
    float column[LARGEST_ORDER];
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < m; j++) column[j] = x[j * n + i];
        for (size_t j = 0; j < m; j++) {
            float sum = 0;
            for (size_t k = 0; k < m; k++) {
                const uint32_t sign = transposed ? rows[k] >> j : rows[j] >> k;
                sum += sign & 1 ? column[k] : -column[k];
            }
            x[j * n + i] = sum;
        }
    }
}

void cpu_hadamard_f32(float *x, size_t n, float scale, bool transposed) {
    size_t m;
    const uint32_t *rows = split_length(n, &m);
    for (size_t i = 0; i < m; i++) butterfly_f32(x + i * (n / m), n / m);
    if (rows) across_f32(x, rows, m, n / m, transposed);
    for (size_t i = 0; i < n; i++) x[i] *= scale;
}

static void butterfly_f64(double *x, size_t n) {
    size_t half = 1;
    if (n >= 4) {
        for (size_t i = 0; i < n; i += 4) {
            const double a = x[i] + x[i + 1], b = x[i] - x[i + 1];
            const double c = x[i + 2] + x[i + 3], d = x[i + 2] - x[i + 3];
            x[i] = a + c;
            x[i + 1] = b + d;
            x[i + 2] = a - c;
            x[i + 3] = b - d;
        }
        half = 4;
    }
    for (; half < n; half *= 2)
        for (size_t i = 0; i < n; i += 2 * half) {
            double *restrict low = x + i, *restrict high = x + i + half;
            for (size_t j = 0; j < half; j++) {
                const double a = low[j], b = high[j];
                low[j] = a + b;
                high[j] = a - b;
            }
        }
}

/* x: [m, n], each column times the matrix of order m, or its transpose. */
static void across_f64(double *x, const uint32_t *rows, size_t m, size_t n, bool transposed) {
    double column[LARGEST_ORDER];
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < m; j++) column[j] = x[j * n + i];
        for (size_t j = 0; j < m; j++) {
            double sum = 0;
            for (size_t k = 0; k < m; k++) {
                const uint32_t sign = transposed ? rows[k] >> j : rows[j] >> k;
                sum += sign & 1 ? column[k] : -column[k];
            }
            x[j * n + i] = sum;
        }
    }
}

void cpu_hadamard_f64(double *x, size_t n, double scale, bool transposed) {
    size_t m;
    const uint32_t *rows = split_length(n, &m);
    for (size_t i = 0; i < m; i++) butterfly_f64(x + i * (n / m), n / m);
    if (rows) across_f64(x, rows, m, n / m, transposed);
    for (size_t i = 0; i < n; i++) x[i] *= scale;
}
