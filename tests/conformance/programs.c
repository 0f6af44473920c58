/* Draws and runs random programs. */
#include "conformance/programs.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* ---- drawing ---- */

uint64_t draw(Program *program, uint64_t limit) { /* splitmix64 */
    uint64_t z = program->random += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (z ^ (z >> 31)) % limit;
}

bool chance(Program *program, int percent) {
    return (int)draw(program, 100) < percent;
}

void note(Program *program, const char *format, ...) {
    const size_t used = strlen(program->text);
    va_list args;
    va_start(args, format);
    vsnprintf(program->text + used, sizeof program->text - used, format, args);
    va_end(args);
}

mlx_dtype draw_dtype(Program *program, unsigned flags) {
    static const mlx_dtype often[] = {MLX_FLOAT32, MLX_FLOAT32,  MLX_FLOAT32,
                                      MLX_FLOAT16, MLX_BFLOAT16, MLX_INT32,
                                      MLX_INT32,   MLX_UINT8,    MLX_BOOL};
    static const mlx_dtype floats[] = {MLX_FLOAT32, MLX_FLOAT32, MLX_FLOAT16, MLX_BFLOAT16,
                                       MLX_FLOAT64};
    static const mlx_dtype ints[] = {MLX_INT32, MLX_INT8,  MLX_UINT8,  MLX_UINT32, MLX_INT64,
                                     MLX_BOOL,  MLX_INT16, MLX_UINT16, MLX_UINT64};
    if (flags & OP_SINGLE) return MLX_FLOAT32;
    if (flags & OP_INTS) return ints[draw(program, 9)];
    if (flags & OP_FLOATS)
        return flags & OP_WIDE ? (chance(program, 80) ? MLX_FLOAT32 : MLX_FLOAT64)
                               : floats[draw(program, 5)];
    mlx_dtype dtype = chance(program, 60) ? often[draw(program, 9)] : (mlx_dtype)draw(program, 14);
    if (flags & OP_REAL && dtype == MLX_COMPLEX64) dtype = MLX_FLOAT32;
    if (flags & OP_WIDE && (dtype == MLX_FLOAT16 || dtype == MLX_BFLOAT16)) dtype = MLX_FLOAT32;
    return dtype;
}

int draw_shape(Program *program, int *shape) {
    static const int sizes[] = {1, 1, 2, 2, 3, 3, 4, 5, 7, 8, 9, 16, 17, 33, 64, 65};
    const int ndim = (int)draw(program, 5);
    size_t size = 1;
    for (int i = 0; i < ndim; i++) {
        shape[i] = sizes[draw(program, program->large ? 16 : 11)];
        if (chance(program, 2)) shape[i] = 0;
        if (program->large && i == ndim - 1 && chance(program, 50)) shape[i] *= 40;
        if (size * (size_t)shape[i] > (program->large ? 400000u : 3000u)) shape[i] = 1;
        size *= shape[i] ? (size_t)shape[i] : 1;
    }
    return ndim;
}

int draw_axis(Program *program, mlx_array array) {
    const int ndim = (int)mlx_array_ndim(array);
    if (!ndim || chance(program, 2)) return (int)draw(program, 2) ? ndim : -ndim - 1;
    const int axis = (int)draw(program, (uint64_t)ndim);
    return chance(program, 50) ? axis - ndim : axis;
}

/* ---- leaves ---- */

static double draw_item(Program *program, mlx_dtype dtype, bool wild) {
    static const double odd[] = {NAN, INFINITY, -INFINITY, 0, -0.0, 1e30, -1e30, 1e-30, 65504, 1};
    switch (dtype) {
    case MLX_BOOL: return (double)draw(program, 2);
    case MLX_UINT8:
    case MLX_UINT16:
    case MLX_UINT32:
    case MLX_UINT64: return (double)draw(program, chance(program, 90) ? 10 : 200);
    case MLX_INT8:
    case MLX_INT16:
    case MLX_INT32:
    case MLX_INT64: return (double)draw(program, 13) - 6;
    default: break;
    }
    if (wild && chance(program, 15)) return odd[draw(program, 10)];
    if (chance(program, 60)) return ((double)draw(program, 65) - 32) / 8;
    return ((double)draw(program, 2000001) - 1000000) / 250000;
}

static mlx_array dense(Program *program, mlx_dtype dtype, const int *shape, int ndim, bool wild) {
    size_t size = 1;
    for (int i = 0; i < ndim; i++) size *= (size_t)shape[i];
    double *items = malloc((size + 1) * sizeof(double));
    for (size_t i = 0; i < size; i++) items[i] = draw_item(program, dtype, wild);
    mlx_array wide = mlx_array_new_data(items, shape, ndim, MLX_FLOAT64);
    free(items);
    mlx_astype(&wide, wide, dtype, program->stream);
    return wide;
}

mlx_array leaf(Program *program, mlx_dtype dtype, const int *shape, int ndim, bool wild) {
    const mlx_stream s = program->stream;
    const size_t n = (size_t)ndim;
    int from[PROGRAM_DIMS], axes[PROGRAM_DIMS], start[PROGRAM_DIMS], stop[PROGRAM_DIMS];
    int stride[PROGRAM_DIMS];
    mlx_array result;
    switch (ndim ? draw(program, 6) : 0) {
    case 1: /* transposed */
        for (int i = 0; i < ndim; i++) axes[i] = i;
        for (int i = ndim - 1; i > 0; i--) {
            const int j = (int)draw(program, (uint64_t)i + 1), t = axes[i];
            axes[i] = axes[j];
            axes[j] = t;
        }
        for (int i = 0; i < ndim; i++) from[axes[i]] = shape[i];
        result = dense(program, dtype, from, ndim, wild);
        mlx_transpose_axes(&result, result, axes, n, s);
        return result;
    case 2: /* a slice with steps, some backwards */
        for (int i = 0; i < ndim; i++) {
            const int step = 1 + (int)draw(program, 2), room = (int)draw(program, 3);
            from[i] = shape[i] * step + room;
            start[i] = (int)draw(program, (uint64_t)room + 1);
            stride[i] = step;
            stop[i] = start[i] + shape[i] * step;
            if (shape[i] && chance(program, 30)) {
                start[i] += (shape[i] - 1) * step;
                stride[i] = -step;
                stop[i] = start[i] - shape[i] * step;
                if (stop[i] < 0) stop[i] = -from[i] - 1;
            }
        }
        result = dense(program, dtype, from, ndim, wild);
        mlx_slice(&result, result, start, n, stop, n, stride, n, s);
        return result;
    case 3: /* broadcast */
        for (int i = 0; i < ndim; i++) from[i] = chance(program, 50) ? 1 : shape[i];
        result = dense(program, dtype, from, ndim, wild);
        mlx_broadcast_to(&result, result, shape, n, s);
        return result;
    default: return dense(program, dtype, shape, ndim, wild);
    }
}

/* ---- choosing inputs ---- */

static bool is_half(mlx_dtype dtype) {
    return dtype == MLX_FLOAT16 || dtype == MLX_BFLOAT16;
}

static bool admits(unsigned flags, const Value *value) {
    const mlx_dtype dtype = mlx_array_dtype(value->array);
    const bool real = dtype >= MLX_FLOAT16 && dtype != MLX_COMPLEX64;
    if (flags & OP_JUMPS && value->rounds) return false;
    if (flags & OP_GROWS && value->rounds > 1) return false;
    if (flags & OP_TAME && value->wild) return false;
    if (flags & OP_WIDE && is_half(dtype)) return false;
    if (flags & OP_REAL && dtype == MLX_COMPLEX64) return false;
    if (flags & OP_INTS && dtype >= MLX_FLOAT16) return false;
    if (flags & OP_FLOATS && !real) return false;
    if (flags & OP_SINGLE && dtype != MLX_FLOAT32) return false;
    return value->rounds < PROGRAM_ROUNDS;
}

static Value *choose(Program *program, Value *value) {
    if (program->n_chosen < 4) program->chosen[program->n_chosen++] = value;
    note(program, " v%d", (int)(value - program->values));
    return value;
}

mlx_array pick_shaped(Program *program, unsigned flags, int ndim) {
    for (int tries = 0; program->count && tries < 12; tries++) {
        Value *value = &program->values[draw(program, (uint64_t)program->count)];
        if (value->array.ctx && admits(flags, value) && (int)mlx_array_ndim(value->array) >= ndim)
            return choose(program, value)->array;
    }
    if (program->count == PROGRAM_VALUES) return (mlx_array){0};
    int shape[PROGRAM_DIMS];
    int have = draw_shape(program, shape);
    while (have < ndim) shape[have++] = 1 + (int)draw(program, 4);
    Value *value = &program->values[program->count++];
    value->wild = !(flags & OP_TAME) && chance(program, 20);
    value->array = leaf(program, draw_dtype(program, flags), shape, have, value->wild);
    value->half = is_half(mlx_array_dtype(value->array));
    return choose(program, value)->array;
}

mlx_array pick(Program *program, unsigned flags) {
    return pick_shaped(program, flags, 0);
}

/* ---- records ---- */

static void write_record(FILE *out, Record *record, const void *data) {
    fwrite(record, sizeof *record, 1, out);
    if (data) fwrite(data, 1, record->bytes, out);
}

/* The text that MLX prints: the same wherever the values are. */
static void write_text(FILE *out, Record *record, mlx_array array) {
    mlx_string text = mlx_string_new();
    record->status = mlx_array_tostring(&text, array);
    const char *chars = record->status ? "" : mlx_string_data(text);
    record->dtype = MLX_UINT8;
    record->ndim = 0;
    record->bytes = strlen(chars);
    write_record(out, record, chars);
    mlx_string_free(text);
}

static void write_value(Program *program, FILE *out, Record *record, const Value *value) {
    mlx_array flat = mlx_array_new();
    record->status =
        mlx_contiguous(&flat, value->array, false, program->stream) || mlx_array_eval(flat);
    record->dtype = (int32_t)mlx_array_dtype(value->array);
    record->ndim = (int32_t)mlx_array_ndim(value->array);
    record->rounds = value->rounds;
    record->half = value->half;
    for (int i = 0; i < record->ndim && i < PROGRAM_DIMS + 4; i++)
        record->shape[i] = mlx_array_shape(value->array)[i];
    record->bytes = record->status ? 0 : mlx_array_nbytes(flat);
    write_record(out, record, record->bytes ? mlx_array_data_uint8(flat) : NULL);
    mlx_array_free(flat);
}

/* ---- running ---- */

static const ProgramOp *draw_op(Program *program) {
    const struct {
        const ProgramOp *ops;
        int count;
    } tables[] = {{program_ops, program_op_count},
                  {program_shapes, program_shape_count},
                  {program_products, program_product_count}};
    int sum = 0;
    for (int t = 0; t < 3; t++)
        for (int i = 0; i < tables[t].count; i++) sum += tables[t].ops[i].weight;
    int at = (int)draw(program, (uint64_t)sum);
    for (int t = 0; t < 3; t++)
        for (int i = 0; i < tables[t].count; i++)
            if ((at -= tables[t].ops[i].weight) < 0) return &tables[t].ops[i];
    return &program_ops[0];
}

static void add_result(Program *program, const ProgramOp *op, mlx_array result) {
    Value *value = &program->values[program->count++];
    *value = (Value){.array = result, .half = is_half(mlx_array_dtype(result))};
    snprintf(value->text, sizeof value->text, "%s", program->text);
    for (int i = 0; i < program->n_chosen; i++) {
        const Value *input = program->chosen[i];
        if (input->rounds > value->rounds) value->rounds = input->rounds;
        value->wild |= input->wild;
        value->half |= input->half;
    }
    value->wild |= (op->flags & OP_WILD) != 0;
    if (op->flags & OP_ROUNDS) value->rounds++;
    if (mlx_array_dtype(result) < MLX_FLOAT16 && op->flags & OP_JUMPS) value->rounds = 0;
}

static void eval_some(Program *program) {
    mlx_vector_array some = mlx_vector_array_new();
    for (int i = 0; i < program->count; i++)
        if (program->values[i].array.ctx && chance(program, 30))
            mlx_vector_array_append_value(some, program->values[i].array);
    mlx_eval(some);
    mlx_vector_array_free(some);
}

static void forget_one(Program *program) {
    mlx_array *array = &program->values[draw(program, (uint64_t)program->count)].array;
    mlx_array_free(*array);
    *array = mlx_array_new();
}

void program_run(uint64_t seed, FILE *out, FILE *trace) {
    Program program = {.random = seed * 0xD1342543DE82EF95u + 1};
    program.stream = mlx_default_cpu_stream_new();
    program.large = chance(&program, 4);
    const int steps = 2 + (int)draw(&program, 9);
    for (int step = 0; step < steps && program.count < PROGRAM_VALUES - 5; step++) {
        const ProgramOp *op = draw_op(&program);
        mlx_array result = mlx_array_new();
        Record record = {.seed = seed, .step = step, .dtype = -1};
        program.n_chosen = 0;
        program.text[0] = 0;
        note(&program, "%s", op->name);
        record.status = op->build(&program, op, &result);
        snprintf(record.text, sizeof record.text, "%s", program.text);
        write_record(out, &record, NULL);
        if (trace)
            fprintf(trace, "%s v%d = %s\n", record.status ? "FAILED" : "", program.count,
                    program.text);
        if (!record.status) add_result(&program, op, result);
        if (chance(&program, 8)) eval_some(&program);
        if (program.count > 3 && chance(&program, 10)) forget_one(&program);
    }
    for (int i = 0; i < program.count; i++) {
        const Value *value = &program.values[i];
        if (!value->array.ctx) continue;
        Record record = {.seed = seed, .step = 1000 + i};
        snprintf(record.text, sizeof record.text, "v%d = %s", i, value->text);
        write_value(&program, out, &record, value);
        record.step = 2000 + i;
        if (!value->rounds && !value->wild) write_text(out, &record, value->array);
        if (trace) {
            mlx_string text = mlx_string_new();
            mlx_array_tostring(&text, value->array);
            fprintf(trace, "v%d rounds %d: %s\n", i, value->rounds, mlx_string_data(text));
            mlx_string_free(text);
        }
    }
    for (int i = 0; i < program.count; i++) mlx_array_free(program.values[i].array);
    mlx_stream_free(program.stream);
}
