/* The loops of the element-wise functions of two arrays, one per native dtype;
 * 16-bit floats use the float32 loop in tiles. */
#ifndef ENGINE_OPS_BINARY_LOOPS_H
#define ENGINE_OPS_BINARY_LOOPS_H

#include "engine/ops/ops.h"

/* out[i] = f(a[i * a_step], b[i * b_step]); a step is 0 or 1; out may be a or b
 * where that step is 1 and the item sizes agree. */
typedef void (*BinaryLoop)(void *out, const void *a, int a_step, const void *b, int b_step,
                           size_t n);

typedef enum {
    BINARY_KEEPS,  /* the promoted dtype */
    BINARY_FLOATS, /* the promoted dtype, integers as float32 */
    BINARY_ANSWERS /* bool */
} BinaryResult;

typedef struct BinaryRow {
    const char *name;
    BinaryResult result;
    int kernel;                    /* CpuBinary, or -1: use loops[MLX_FLOAT32] */
    BinaryLoop loops[DTYPE_COUNT]; /* NULL where the function is not defined */
} BinaryRow;

extern const BinaryRow binary_rows[BINARY_COUNT];

#endif
