/* The loops of the element-wise functions of one array, one per native dtype;
 * 16-bit floats use the float32 loop in tiles. */
#ifndef ENGINE_OPS_UNARY_LOOPS_H
#define ENGINE_OPS_UNARY_LOOPS_H

#include "engine/ops/ops.h"

/* out[i] = f(in[i]); out == in is fine when the item sizes agree. */
typedef void (*UnaryLoop)(void *out, const void *in, size_t n);

typedef enum { KEEPS, FLOATS, ANSWERS } UnaryResult; /* same dtype, a float, bool */

typedef struct UnaryRow {
    const char *name;
    UnaryResult result;
    int kernel; /* CpuUnary, or -1: use f32 */
    UnaryLoop f32, f64, c64;
    const UnaryLoop *integers; /* by dtype; entries may be NULL: the identity */
} UnaryRow;

extern const UnaryRow unary_rows[UNARY_COUNT];

#endif
