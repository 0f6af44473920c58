/* linalg: what the two files of linear algebra share. A batch of matrices is
 * worked on in float64, one matrix a call, whatever the arrays hold. */
#ifndef ENGINE_OPS_LINALG_H
#define ENGINE_OPS_LINALG_H

#include "engine/cpu/linalg.h"
#include "engine/ops/ops.h"

typedef struct LinalgJob LinalgJob;
/* Works on matrix `index` of the batch; a holds it, [m, n], and may be
 * overwritten. Gives 0, the code of a failure, or LINALG_NO_MEMORY. */
#define LINALG_NO_MEMORY SIZE_MAX
typedef size_t (*LinalgBody)(const LinalgJob *job, size_t index, double *a);

struct LinalgJob {
    const Node *x;
    size_t count, m, n;
    bool option; /* upper, or vectors */
    void *out[3];
    mlx_dtype dtype;     /* of x */
    size_t parts;        /* numbers an item of x: 2 of complex64 */
    const char *failure; /* text for the error, with %zu for the code */
    LinalgBody body;
    double *memory; /* a matrix a thread */
    _Atomic size_t failed;
};

/* Runs the body over the batch of x, job's x, option, out, failure and body
 * given. */
bool linalg_run(LinalgJob *job, Error *err);
/* Matrix `index` of the batch of x, row major; an item of complex64 is two numbers. */
void linalg_load(const Node *x, size_t index, double *out);
/* n numbers to numbers [at, at + n) of an array of job's dtype. */
void linalg_store(const LinalgJob *job, void *out, size_t at, const double *in, size_t n);

/* Reports unless x is float32 or float64 of at least two axes, and square; or
 * complex64 where a spectrum is asked for. */
bool linalg_check(const char *op, const Node *x, bool square);
bool linalg_check_spectrum(const char *op, const Node *x, bool square);

typedef enum { INVERSE_GENERAL, INVERSE_LOWER, INVERSE_UPPER } InverseKind;
Node *op_inverse(Node *x, InverseKind kind);
/* results: U, S, V^T, or S alone. Returns how many, 0 after an error. */
int op_svd(Node *x, bool compute_uv, Node *results[3]);

#endif
