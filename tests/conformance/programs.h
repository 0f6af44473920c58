/* Random programs: graphs of MLX operations drawn from a seed, written against
 * mlx-c alone, so that one source runs on two engines and their results can be
 * compared. programs.c draws and runs a program; program_ops.c is the table of
 * operations; random_programs.c is the command.
 *
 * Every value knows how exactly two correct engines must agree on it: `rounds`
 * counts the operations above it whose rounding is not fixed (sums,
 * transcendental functions); 0 means bit for bit. Operations that jump
 * (floor, compare, sort) take only exact values. */
#ifndef TESTS_CONFORMANCE_PROGRAMS_H
#define TESTS_CONFORMANCE_PROGRAMS_H

#include "mlx/c/mlx.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { PROGRAM_VALUES = 24, PROGRAM_DIMS = 6, PROGRAM_ROUNDS = 3 };

typedef struct Value {
    mlx_array array;
    int rounds;    /* operations above it with free rounding */
    bool wild;     /* may hold NaN, infinities or huge numbers */
    bool half;     /* a 16-bit float above it: agreement to few digits */
    char text[96]; /* the operation that made it */
} Value;

typedef struct Program {
    uint64_t random;
    mlx_stream stream;
    Value values[PROGRAM_VALUES];
    int count;
    bool large;       /* sizes that spread over threads */
    Value *chosen[4]; /* inputs of the operation being built */
    int n_chosen;
    char text[256]; /* that operation in words */
} Program;

/* What an operation asks of its inputs and does to exactness. */
enum {
    OP_ROUNDS = 1,   /* the result depends on the order or method of rounding */
    OP_JUMPS = 2,    /* a small change of the input may be a large one of the result */
    OP_TAME = 4,     /* no NaN, infinities or huge numbers */
    OP_WIDE = 8,     /* no 16-bit floats: upstream accumulates in them */
    OP_REAL = 16,    /* no complex numbers */
    OP_INTS = 32,    /* integers and bool only */
    OP_FLOATS = 64,  /* real floats only */
    OP_SINGLE = 128, /* float32 only */
    OP_GROWS = 256,  /* repeats rounding errors: exact or once rounded inputs only */
    OP_WILD = 512    /* the result may be huge */
};

typedef struct ProgramOp {
    const char *name;
    int weight;
    unsigned flags;
    int (*build)(Program *program, const struct ProgramOp *op, mlx_array *res);
    void (*call)(void); /* the mlx function, for the builders that serve several */
} ProgramOp;
/* program_ops.c: one array to another; program_shapes.c: shapes, places, order;
 * program_products.c: products, scatters, gradients. */
extern const ProgramOp program_ops[], program_shapes[], program_products[];
extern const int program_op_count, program_shape_count, program_product_count;

/* What the builders are written in: a call that is skipped after a failure, the
 * function of the row, common flags, and the rows themselves. */
#define OP(name, ...) \
    ((failed) ? (void)0 : (void)(failed = mlx_##name(__VA_ARGS__, program->stream)))
#define CALL(type) ((int(*) type)op->call)
#define FUNCTION(name) ((void (*)(void))mlx_##name)
enum {
    REAL = OP_REAL,
    JUMPS = OP_JUMPS | OP_REAL,
    CURVE = OP_ROUNDS | OP_REAL | OP_TAME | OP_GROWS
};
#define ROW(name, weight, flags, build) \
    { #name, weight, flags, build, FUNCTION(name) }
#define OWN(name, weight, flags) \
    { #name, weight, flags, name, 0 }

/* Uniform in [0, limit). */
uint64_t draw(Program *program, uint64_t limit);
bool chance(Program *program, int percent);
/* A value that the flags admit; adds a new leaf when there is none. */
mlx_array pick(Program *program, unsigned flags);
/* The same with at least that many dimensions. */
mlx_array pick_shaped(Program *program, unsigned flags, int ndim);
/* Leaves are values without a history: any layout, the given dtype and shape. */
mlx_array leaf(Program *program, mlx_dtype dtype, const int *shape, int ndim, bool wild);
mlx_dtype draw_dtype(Program *program, unsigned flags);
int draw_shape(Program *program, int *shape);
/* A second operand whose shape goes with the first's, mostly. */
mlx_array pick_second(Program *program, unsigned flags, mlx_array first);
/* Some axes of a, their number returned; now and then a wrong one. */
int draw_axes(Program *program, mlx_array a, int *axes);
/* Mostly a valid axis, negative half of the time, now and then out of range. */
int draw_axis(Program *program, mlx_array array);
void note(Program *program, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Runs the program of a seed: writes one record for every operation and value to
 * `out`, and every operation in words to `trace` (may be NULL). */
void program_run(uint64_t seed, FILE *out, FILE *trace);

/* A record of the file. op "value" carries data, other records say whether the
 * operation succeeded. */
typedef struct Record {
    uint64_t seed;
    int32_t step, status, dtype, ndim, rounds, half;
    int32_t shape[PROGRAM_DIMS + 4];
    uint64_t bytes;
    char text[256];
} Record;

#endif
