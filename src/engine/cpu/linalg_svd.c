/* Singular values by one-sided Jacobi rotations, which find small values as
 * exactly as large ones (Demmel and Veselic, 1992). A tall matrix is first
 * reduced to R of its QR factorisation; rotations J make the rows of R
 * orthogonal, so that J R = values * v rows and R = J^T (values * v rows): the
 * u are Q times the rows of J. The pairs of a sweep are played as a tournament
 * whose rounds hold disjoint pairs, which threads share. */
#include "base/base.h"
#include "cpu/linalg.h"

#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { SWEEPS = 60 };
/* Of a matrix whose largest item is 1, singular values below are zero: rows that
 * short are what is left of dependent ones, and their products underflow. */
#define NEGLIGIBLE 1e-100

typedef struct Jacobi {
    double *rows, *turns; /* [n, n] both; turns = J, may be NULL */
    double *squares;      /* [n], the squared lengths of the rows */
    size_t n;
    size_t players, round;
    double tolerance;
    _Atomic bool rotated;
} Jacobi;

/* a and b become c a - s b and s a + c b. */
static void rotate(double *restrict a, double *restrict b, double c, double s, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const double x = a[i], y = b[i];
        a[i] = c * x - s * y;
        b[i] = s * x + c * y;
    }
}

/* The squared length of a row after a rotation changed it by `change`; what
 * cancels is summed again. */
static void update_square(Jacobi *job, size_t i, double change) {
    const double *row = job->rows + i * job->n, before = job->squares[i];
    job->squares[i] = before + change;
    if (job->squares[i] < 0.1 * before) job->squares[i] = linalg_dot(row, row, job->n);
}

static void make_orthogonal(Jacobi *job, size_t i, size_t j) {
    const size_t n = job->n;
    double *a = job->rows + i * n, *b = job->rows + j * n;
    const double alpha = job->squares[i], beta = job->squares[j];
    if (fmin(alpha, beta) < NEGLIGIBLE * NEGLIGIBLE) return;
    const double gamma = linalg_dot(a, b, n);
    if (!(fabs(gamma) > job->tolerance * sqrt(alpha) * sqrt(beta))) return;
    const double zeta = (beta - alpha) / (2 * gamma);
    const double t = copysign(1 / (fabs(zeta) + hypot(1, zeta)), zeta);
    const double c = 1 / sqrt(1 + t * t), s = c * t;
    rotate(a, b, c, s, n);
    if (job->turns) rotate(job->turns + i * n, job->turns + j * n, c, s, n);
    update_square(job, i, -t * gamma);
    update_square(job, j, t * gamma);
    atomic_store_explicit(&job->rotated, true, memory_order_relaxed);
}

/* Player 0 stays, the others move round; pair k of the round. */
static void play(void *context, size_t begin, size_t end, int thread) {
    Jacobi *job = context;
    const size_t ring = job->players - 1;
    (void)thread;
    for (size_t k = begin; k < end; k++) {
        const size_t a = k == 0 ? 0 : 1 + (job->round + k) % ring;
        const size_t b = 1 + (job->round + ring - k) % ring;
        if (a < job->n && b < job->n) make_orthogonal(job, BASE_MIN(a, b), BASE_MAX(a, b));
    }
}

static bool orthogonalise(Jacobi *job) {
    job->players = job->n + job->n % 2;
    job->tolerance = DBL_EPSILON * sqrt((double)job->n);
    if (job->n < 2) return true;
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        atomic_store(&job->rotated, false);
        for (size_t i = 0; i < job->n; i++)
            job->squares[i] = linalg_dot(job->rows + i * job->n, job->rows + i * job->n, job->n);
        for (job->round = 0; job->round + 1 < job->players; job->round++)
            base_parallel_for(job->players / 2, 65536 / (8 * job->n) + 1, play, job);
        if (!atomic_load(&job->rotated)) return true;
    }
    return false;
}

/* Row `row` of the orthonormal rows before it, which span less than the whole,
 * becomes another one, from the unit vector that they hold least of. */
static void complete_basis(double *rows, size_t row, size_t n) {
    double *x = rows + row * n, best = 0;
    size_t chosen = 0;
    for (size_t axis = 0; axis < n; axis++) {
        double left = 1;
        for (size_t i = 0; i < row; i++) left -= rows[i * n + axis] * rows[i * n + axis];
        if (axis == 0 || left > best) {
            best = left;
            chosen = axis;
        }
    }
    memset(x, 0, n * sizeof *x);
    x[chosen] = 1;
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < row; i++)
            linalg_add(x, -linalg_dot(x, rows + i * n, n), rows + i * n, n);
    const double length = sqrt(linalg_dot(x, x, n));
    for (size_t i = 0; i < n; i++) x[i] /= length;
}

/* What a tall SVD works in. */
typedef struct Space {
    double *tau, *rows, *turns, *squares;
    LinalgRank *order;
} Space;

static void space_free(Space *space) {
    free(space->tau);
    free(space->rows);
    free(space->turns);
    free(space->squares);
    free(space->order);
}

static bool space_take(Space *space, size_t n, bool turns) {
    space->tau = calloc(n + 1, sizeof(double));
    space->rows = calloc(n * n + 1, sizeof(double));
    space->turns = turns ? calloc(n * n + 1, sizeof(double)) : NULL;
    space->squares = calloc(n + 1, sizeof(double));
    space->order = calloc(n + 1, sizeof(LinalgRank));
    return space->tau && space->rows && space->squares && space->order && (space->turns || !turns);
}

/* Singular vector i of both sides from row `order[i]` of what Jacobi left. */
static void form_vectors(const double *columns, size_t m, size_t n, size_t i, const Space *space,
                         double value, double *long_side, double *short_side) {
    const double *row = space->rows + space->order[i].row * n;
    if (value > 0)
        for (size_t j = 0; j < n; j++) short_side[i * n + j] = row[j] / value;
    else
        complete_basis(short_side, i, n);
    memset(long_side + i * m, 0, m * sizeof *long_side);
    memcpy(long_side + i * m, space->turns + space->order[i].row * n, n * sizeof *long_side);
    linalg_qr_apply(columns, space->tau, m, n, long_side + i * m);
}

/* columns: a tall [m, n], destroyed. long_side: [m, m], short_side: [n, n]. */
static bool tall_svd(double *columns, size_t m, size_t n, double *values, double *long_side,
                     double *short_side) {
    Space space;
    bool good = space_take(&space, n, long_side != NULL);
    if (good) {
        linalg_qr(columns, m, n, space.tau);
        for (size_t i = 0; i < n; i++) {
            for (size_t j = i; j < n; j++) space.rows[i * n + j] = columns[j * m + i];
            if (space.turns) space.turns[i * n + i] = 1;
        }
        Jacobi job = {.rows = space.rows, .turns = space.turns, .squares = space.squares, .n = n};
        good = orthogonalise(&job);
        for (size_t i = 0; i < n; i++) {
            const double *row = space.rows + i * n;
            const double length = sqrt(linalg_dot(row, row, n));
            space.order[i] = (LinalgRank){length < NEGLIGIBLE ? 0 : length, i};
        }
        linalg_rank(space.order, n, true);
        for (size_t i = 0; i < n; i++) {
            values[i] = space.order[i].value;
            if (long_side) form_vectors(columns, m, n, i, &space, values[i], long_side, short_side);
        }
        for (size_t i = n; long_side && i < m; i++) {
            memset(long_side + i * m, 0, m * sizeof *long_side);
            long_side[i * m + i] = 1;
            linalg_qr_apply(columns, space.tau, m, n, long_side + i * m);
        }
    }
    space_free(&space);
    return good;
}

bool linalg_svd(const double *a, size_t m, size_t n, double *values, double *u, double *v) {
    const bool tall = m >= n;
    double scale = 0;
    for (size_t i = 0; i < m * n; i++) {
        if (!isfinite(a[i])) return false;
        scale = fmax(scale, fabs(a[i]));
    }
    const double down = scale > 0 ? 1 / scale : 1;
    double *columns = calloc(m * n + 1, sizeof *columns);
    if (!columns) return false;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) columns[tall ? j * m + i : i * n + j] = a[i * n + j] * down;
    const bool good =
        tall ? tall_svd(columns, m, n, values, u, v) : tall_svd(columns, n, m, values, v, u);
    for (size_t i = 0; i < m && i < n; i++) values[i] *= scale;
    free(columns);
    return good;
}
