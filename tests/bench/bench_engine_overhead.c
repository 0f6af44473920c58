/* What the engine costs beside its kernels: building, scheduling, running and
 * freeing small operations through the public API, and chains of element-wise
 * operations over arrays that no cache holds, beside the machine's memory
 * rate. Prints one line a case. */
#include "base/base.h"
#include "mlx/c/mlx.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double seconds_a_case = 0.5;
static mlx_stream cpu;

static double best_time(void (*run)(void *), void *context) {
    run(context);
    double best = INFINITY, end = base_now() + seconds_a_case;
    do {
        const double start = base_now();
        run(context);
        best = fmin(best, base_now() - start);
    } while (base_now() < end);
    return best;
}

/* ---- small operations ---- */

typedef struct Small {
    mlx_array a, b;
    int ops; /* in one evaluation */
} Small;

/* A chain: x = x + b, again and again, evaluated at the end. */
static void chain(void *context) {
    const Small *small = context;
    mlx_array x = mlx_array_new();
    mlx_array_set(&x, small->a);
    for (int i = 0; i < small->ops; i++) mlx_add(&x, x, small->b, cpu);
    mlx_array_eval(x);
    mlx_array_free(x);
}

/* The same with every value in a handle of its own, as a program that frees its
 * temporaries one by one holds them: nothing can be computed together. */
static void separate(void *context) {
    const Small *small = context;
    mlx_array *values = malloc(((size_t)small->ops + 1) * sizeof *values);
    values[0] = small->a;
    for (int i = 1; i <= small->ops; i++) {
        values[i] = mlx_array_new();
        mlx_add(&values[i], values[i - 1], small->b, cpu);
    }
    mlx_array_eval(values[small->ops]);
    for (int i = 1; i <= small->ops; i++) mlx_array_free(values[i]);
    free(values);
}

/* One operation an evaluation. */
static void single(void *context) {
    const Small *small = context;
    for (int i = 0; i < small->ops; i++) {
        mlx_array x = mlx_array_new();
        mlx_add(&x, small->a, small->b, cpu);
        mlx_array_eval(x);
        mlx_array_free(x);
    }
}

/* A chain whose end is read by a logsumexp, as a sampler's logits are. */
static void chain_read(void *context) {
    const Small *small = context;
    mlx_array x = mlx_array_new();
    mlx_array_set(&x, small->a);
    for (int i = 0; i < small->ops; i++) mlx_add(&x, x, small->b, cpu);
    mlx_logsumexp(&x, x, false, cpu);
    mlx_array_eval(x);
    mlx_array_free(x);
}

/* Residuals and norms as in a decoder: x += h, then h = norm(x). */
static void residual(void *context) {
    const Small *small = context;
    mlx_array x = mlx_array_new(), h = mlx_array_new();
    mlx_array_set(&x, small->a);
    mlx_array_set(&h, small->a);
    for (int i = 0; i < small->ops; i++) {
        mlx_add(&x, x, h, cpu);
        mlx_fast_rms_norm(&h, x, small->b, 1e-5f, cpu);
    }
    mlx_add(&x, x, h, cpu);
    mlx_array_eval(x);
    mlx_array_free(x);
    mlx_array_free(h);
}

static mlx_array ones(int rows, int n, mlx_dtype dtype) {
    mlx_array x = mlx_array_new();
    mlx_ones(&x, (int[]){rows, n}, 2, dtype, cpu);
    if (rows == 0) mlx_ones(&x, &n, 1, dtype, cpu);
    mlx_array_eval(x);
    return x;
}

static void show_residual(int rows, int n, mlx_dtype dtype, const char *name) {
    char text[80];
    Small small = {.a = ones(rows, n, dtype), .b = ones(0, n, dtype), .ops = 20};
    snprintf(text, sizeof text, "sum and norm of %d x %d %s", rows, n, name);
    printf("%-52s %8.2f us a pair\n", text, best_time(residual, &small) / small.ops * 1e6);
    mlx_array_free(small.a);
    mlx_array_free(small.b);
}

static void show_small(const char *name, void (*run)(void *), Small small) {
    printf("%-52s %8.0f ns an operation\n", name, best_time(run, &small) / small.ops * 1e9);
}

/* ---- large chains ---- */

enum { LARGE = 16 << 20 };

typedef struct Large {
    mlx_array x, y, two, half;
} Large;

/* Six operations: x * y + x - 2 y, its absolute value, half of it. */
static void six(void *context) {
    const Large *large = context;
    mlx_array r = mlx_array_new(), t = mlx_array_new();
    mlx_multiply(&r, large->x, large->y, cpu);
    mlx_add(&r, r, large->x, cpu);
    mlx_multiply(&t, large->y, large->two, cpu);
    mlx_subtract(&r, r, t, cpu);
    mlx_array_free(t);
    mlx_abs(&r, r, cpu);
    mlx_multiply(&r, r, large->half, cpu);
    mlx_array_eval(r);
    mlx_array_free(r);
}

static void silu_gate(void *context) {
    const Large *large = context;
    mlx_array r = mlx_array_new();
    mlx_sigmoid(&r, large->x, cpu);
    mlx_multiply(&r, r, large->x, cpu);
    mlx_multiply(&r, r, large->y, cpu);
    mlx_array_eval(r);
    mlx_array_free(r);
}

typedef struct Copy {
    const float *x, *y;
    float *out;
} Copy;
static void triad_slice(void *context, size_t begin, size_t end, int thread) {
    const Copy *copy = context;
    (void)thread;
    for (size_t i = begin; i < end; i++) copy->out[i] = copy->x[i] + copy->y[i];
}
static void triad(void *context) {
    base_parallel_for(LARGE, 4096, triad_slice, context);
}

static mlx_array uniform(mlx_dtype dtype) {
    mlx_array low = mlx_array_new_float(-1), high = mlx_array_new_float(1), x = mlx_array_new();
    mlx_random_uniform(&x, low, high, (int[]){LARGE}, 1, dtype, (mlx_array){NULL}, cpu);
    mlx_array_eval(x);
    mlx_array_free(low);
    mlx_array_free(high);
    return x;
}

static mlx_array number(float value, mlx_dtype dtype) {
    mlx_array x = mlx_array_new_float(value);
    mlx_astype(&x, x, dtype, cpu);
    mlx_array_eval(x);
    return x;
}

static void show_large(const char *name, void (*run)(void *), void *context, double bytes,
                       double limit) {
    const double rate = bytes / best_time(run, context) * 1e-9;
    printf("%-52s %8.1f GB/s %5.0f %% of the plain loop\n", name, rate, 100 * rate / limit);
}

int main(void) {
    const float values[4] = {1, 2, 3, 4};
    cpu = mlx_default_cpu_stream_new();
    Small small = {.a = mlx_array_new_data(values, (int[]){4}, 1, MLX_FLOAT32),
                   .b = mlx_array_new_data(values, (int[]){4}, 1, MLX_FLOAT32),
                   .ops = 1000};
    show_small("1000 additions of 4 numbers in a chain", chain, small);
    show_small("the same, every value held", separate, small);
    show_small("the chain, read by a logsumexp", chain_read, small);
    small.ops = 100;
    show_small("one addition an evaluation", single, small);
    mlx_array_free(small.a);
    mlx_array_free(small.b);
    show_residual(1, 576, MLX_FLOAT32, "float32");
    show_residual(1, 576, MLX_BFLOAT16, "bfloat16");
    show_residual(1, 4096, MLX_BFLOAT16, "bfloat16");
    show_residual(512, 576, MLX_FLOAT32, "float32");
    show_residual(512, 4096, MLX_FLOAT32, "float32");
    show_residual(512, 4096, MLX_BFLOAT16, "bfloat16");

    float *data[3];
    for (int i = 0; i < 3; i++) {
        data[i] = malloc((size_t)LARGE * sizeof(float));
        memset(data[i], i, (size_t)LARGE * sizeof(float));
    }
    Copy copy = {data[0], data[1], data[2]};
    const double bytes = 3.0 * LARGE * sizeof(float);
    const double limit = bytes / best_time(triad, &copy) * 1e-9;
    printf("%-52s %8.1f GB/s\n", "out = x + y of 16M float32 in a plain loop", limit);
    for (int i = 0; i < 3; i++) free(data[i]);
    size_t before;
    mlx_set_cache_limit(&before, (size_t)1 << 30);
    const struct {
        mlx_dtype dtype;
        double size;
        const char *name;
    } types[] = {{MLX_FLOAT32, 4, "float32"}, {MLX_BFLOAT16, 2, "bfloat16"}};
    for (size_t i = 0; i < BASE_COUNT(types); i++) {
        const mlx_dtype dtype = types[i].dtype;
        Large large = {uniform(dtype), uniform(dtype), number(2, dtype), number(0.5f, dtype)};
        char text[80];
        snprintf(text, sizeof text, "six operations on 16M %s", types[i].name);
        show_large(text, six, &large, 3 * types[i].size * LARGE, limit);
        snprintf(text, sizeof text, "silu(x) * y on 16M %s", types[i].name);
        show_large(text, silu_gate, &large, 3 * types[i].size * LARGE, limit);
        mlx_array_free(large.x);
        mlx_array_free(large.y);
        mlx_array_free(large.two);
        mlx_array_free(large.half);
    }
    mlx_stream_free(cpu);
    return 0;
}
