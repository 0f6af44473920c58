/* The kernels beside the limits of the machine, measured in the same run: how
 * fast all threads read memory, and how many float32 multiply-adds they do.
 * Prints one line a case: time, rate, and the part of the limit reached. */
#include "base/base.h"
#include "cpu/kernels.h"
#include "cpu/table.h"
#include "machine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double seconds_a_case = 0.25;
static const char *const type_names[] = {"f32", "f16", "bf16"};
static double read_rate, fma_rate, bf16_rate; /* GB/s, GFLOP/s */

static uint32_t random_bits(void) {
    static uint64_t state = 88172645463325252u;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 32);
}

/* Memory as the engine's arrays have it. */
static void *array_memory(size_t bytes) {
    void *memory = base_alloc(bytes);
    base_large_pages(memory, bytes);
    return memory;
}

static void *filled(CpuType type, size_t n) {
    void *array = array_memory(n * cpu_type_size(type));
    for (size_t i = 0; i < n; i++)
        cpu_store(array, type, i, (float)(int32_t)random_bits() * 0x1p-31f);
    return array;
}

/* The best time of one call. */
static double best_time(void (*run)(void *), void *context) {
    run(context);
    double best = INFINITY, end = base_now() + seconds_a_case;
    do {
        double start = base_now();
        run(context);
        best = fmin(best, base_now() - start);
    } while (base_now() < end);
    return best;
}

static void show(const char *name, double seconds, double amount, const char *unit, double limit) {
    printf("%-44s %10.1f us %9.1f %-7s %5.0f %%\n", name, seconds * 1e6, amount, unit,
           100 * amount / limit);
}

static CpuQuant quantised(size_t rows, size_t cols, int bits, int group) {
    size_t groups = rows * cols / (size_t)group;
    uint32_t *words = array_memory(rows * cols * (size_t)bits / 8);
    for (size_t i = 0; i < rows * cols * (size_t)bits / 32; i++) words[i] = random_bits();
    return (CpuQuant){.words = words,
                      .scales = filled(CPU_F16, groups),
                      .biases = filled(CPU_F16, groups),
                      .type = CPU_F16,
                      .bits = bits,
                      .group = group,
                      .rows = rows,
                      .cols = cols,
                      .factor = 1};
}
static void free_quantised(CpuQuant *q) {
    free((void *)(uintptr_t)q->words);
    free((void *)(uintptr_t)q->scales);
    free((void *)(uintptr_t)q->biases);
}
static double quant_bytes(const CpuQuant *q) {
    return (double)(q->rows * q->cols) * (q->bits / 8.0 + 4.0 / q->group);
}

static void gemm_once(void *context) {
    cpu_gemm(context);
}

static void bench_quant(size_t n, size_t k, int bits, int group, size_t m, CpuType type) {
    CpuQuant q = quantised(n, k, bits, group);
    void *x = filled(type, m * k), *y = filled(type, m * n);
    CpuGemm g = {.m = m,
                 .n = n,
                 .k = k,
                 .a = x,
                 .a_type = type,
                 .a_row = (ptrdiff_t)k,
                 .a_col = 1,
                 .quant = &q,
                 .quant_transposed = true,
                 .c = y,
                 .c_type = type,
                 .c_row = (ptrdiff_t)n,
                 .alpha = 1};
    double seconds = best_time(gemm_once, &g);
    char name[96];
    snprintf(name, sizeof name, "q%d/%d x %zu rows of %s, %zu x %zu", bits, group, m,
             type_names[type], n, k);
    if (m <= 8)
        show(name, seconds, quant_bytes(&q) / seconds * 1e-9, "GB/s", read_rate);
    else
        show(name, seconds, 2e-9 * (double)(m * n * k) / seconds, "GFLOP/s", fma_rate);
    free_quantised(&q);
    free(x);
    free(y);
}

static void bench_quant_types(size_t n, size_t k, int bits, int group, size_t m) {
    for (CpuType type = 0; type < CPU_TYPES; type++) bench_quant(n, k, bits, group, m, type);
}

static void bench_gemm(size_t m, size_t n, size_t k, CpuType type, bool transposed) {
    void *a = filled(type, m * k), *b = filled(type, k * n), *c = filled(type, m * n);
    CpuGemm g = {.m = m,
                 .n = n,
                 .k = k,
                 .a = a,
                 .a_type = type,
                 .a_row = (ptrdiff_t)k,
                 .a_col = 1,
                 .b = b,
                 .b_type = type,
                 .b_row = transposed ? 1 : (ptrdiff_t)n,
                 .b_col = transposed ? (ptrdiff_t)k : 1,
                 .c = c,
                 .c_type = type,
                 .c_row = (ptrdiff_t)n,
                 .alpha = 1};
    double seconds = best_time(gemm_once, &g);
    char name[96];
    snprintf(name, sizeof name, "%s%s %zu x %zu x %zu", type_names[type], transposed ? " b^T" : "",
             m, n, k);
    if (m <= 8)
        show(name, seconds, (double)(n * k * cpu_type_size(type)) / seconds * 1e-9, "GB/s",
             read_rate);
    else
        show(name, seconds, 2e-9 * (double)(m * n * k) / seconds, "GFLOP/s",
             type == CPU_BF16 && bf16_rate > 0 ? bf16_rate : fma_rate);
    free(a);
    free(b);
    free(c);
}

static void attention_once(void *context) {
    cpu_attention(context);
}
static void bench_attention(size_t heads, size_t kv_heads, size_t q_len, size_t kv_len,
                            size_t dim) {
    void *q = filled(CPU_F16, heads * q_len * dim), *out = filled(CPU_F16, heads * q_len * dim);
    void *k = filled(CPU_F16, kv_heads * kv_len * dim),
         *v = filled(CPU_F16, kv_heads * kv_len * dim);
    ptrdiff_t d = (ptrdiff_t)dim, lq = (ptrdiff_t)q_len * d, lk = (ptrdiff_t)kv_len * d;
    CpuAttention a = {.type = CPU_F16,
                      .batch = 1,
                      .q_heads = heads,
                      .kv_heads = kv_heads,
                      .q_len = q_len,
                      .kv_len = kv_len,
                      .head_dim = dim,
                      .value_dim = dim,
                      .q = q,
                      .k = k,
                      .v = v,
                      .out = out,
                      .q_stride = {0, lq, d},
                      .k_stride = {0, lk, d},
                      .v_stride = {0, lk, d},
                      .out_stride = {0, lq, d},
                      .scale = 0.1f,
                      .causal = true};
    double seconds = best_time(attention_once, &a), pairs = 0;
    for (size_t i = 0; i < q_len; i++) pairs += (double)(i + 1 + kv_len - q_len);
    char name[96];
    snprintf(name, sizeof name, "attention f16 %zu/%zu heads, %zu of %zu", heads, kv_heads, q_len,
             kv_len);
    if (q_len == 1)
        show(name, seconds, 4.0 * (double)(kv_heads * kv_len * dim) / seconds * 1e-9, "GB/s",
             read_rate);
    else
        show(name, seconds, 4e-9 * pairs * (double)(heads * dim) / seconds, "GFLOP/s", fma_rate);
    free(q);
    free(k);
    free(v);
    free(out);
}

typedef struct Elementwise {
    CpuUnary op;
    CpuType type;
    void *in, *out;
    size_t n;
} Elementwise;
static void unary_once(void *context) {
    Elementwise *e = context;
    cpu_unary(e->op, e->type, e->out, e->in, e->n);
}

int main(int count, char **arguments) {
    if (count > 1) seconds_a_case = atof(arguments[1]);
    read_rate = read_bandwidth((size_t)256 << 20) * 1e-9;
    fma_rate = 1e-9 * fma_peak(cpu_kernels()->nr >= 32);
    if (cpu_kernels()->bf16_mr) bf16_rate = 1e-9 * bf16_peak();
    printf("%s, %d threads: memory read %.1f GB/s, float32 multiply-add %.1f GFLOP/s", cpu_level(),
           base_threads(), read_rate, fma_rate);
    if (bf16_rate > 0) printf(", bf16 dot products %.1f GFLOP/s", bf16_rate);
    puts("\n");

    static const int group_of[] = {32, 64};
    for (size_t i = 0; i < BASE_COUNT(group_of); i++)
        bench_quant_types(16384, 8192, 4, group_of[i], 1);
    bench_quant(49152, 576, 4, 32, 1, CPU_F32);
    bench_quant(2048, 2048, 4, 32, 1, CPU_F32);
    bench_quant(576, 576, 4, 32, 1, CPU_F32);
    bench_quant(1536, 576, 4, 32, 1, CPU_F32);
    bench_quant(49152, 576, 8, 32, 1, CPU_F32);
    bench_quant(16384, 4096, 8, 32, 1, CPU_F32);
    bench_quant(16384, 4096, 8, 64, 1, CPU_F32);
    bench_quant(16384, 4096, 3, 64, 1, CPU_F32);
    bench_quant(16384, 4096, 6, 64, 1, CPU_F32);
    bench_quant(4096, 4096, 4, 64, 4, CPU_F32);
    bench_quant(4096, 4096, 4, 64, 8, CPU_F32);
    for (CpuType type = 0; type < CPU_TYPES; type++) bench_gemm(1, 16384, 2048, type, true);
    bench_gemm(1, 100000, 384, CPU_F32, true);
    bench_gemm(1, 4096, 4096, CPU_F32, false);
    puts("");
    bench_quant_types(1536, 576, 4, 32, 512);
    bench_quant_types(576, 1536, 4, 32, 512);
    bench_quant_types(4096, 4096, 4, 64, 512);
    bench_quant_types(1536, 576, 8, 64, 512);
    bench_quant_types(1536, 576, 6, 64, 512);
    bench_quant(1536, 576, 4, 32, 16, CPU_F32);
    bench_gemm(512, 1536, 576, CPU_F32, true);
    bench_gemm(1024, 1024, 1024, CPU_F32, false);
    bench_gemm(1024, 1024, 1024, CPU_F32, true);
    bench_gemm(512, 8192, 2048, CPU_F32, true);
    bench_gemm(512, 8192, 2048, CPU_F32, false);
    bench_gemm(512, 8192, 2048, CPU_BF16, true);
    bench_gemm(512, 1536, 576, CPU_BF16, true);
    bench_gemm(1024, 1024, 1024, CPU_BF16, true);
    bench_gemm(1024, 1024, 1024, CPU_F16, true);
    bench_gemm(128, 384, 384, CPU_F32, true);
    bench_gemm(12, 4096, 4096, CPU_F32, true);
    puts("");
    bench_attention(9, 3, 512, 512, 64);
    bench_attention(12, 12, 128, 128, 32);
    bench_attention(32, 8, 1024, 1024, 128);
    bench_attention(32, 32, 4096, 4096, 128);
    bench_attention(9, 3, 1, 2048, 64);
    bench_attention(32, 8, 1, 8192, 128);
    puts("");
    static const struct {
        CpuUnary op;
        const char *name;
    } functions[] = {{CPU_SQUARE, "square"}, {CPU_EXP, "exp"},   {CPU_SILU, "silu"},
                     {CPU_GELU, "gelu"},     {CPU_TANH, "tanh"}, {CPU_LOG, "log"}};
    for (size_t i = 0; i < BASE_COUNT(functions); i++)
        for (CpuType type = 0; type < CPU_TYPES; type += CPU_BF16) {
            Elementwise e = {functions[i].op, type, filled(type, 1 << 20), filled(type, 1 << 20),
                             1 << 20};
            double seconds = best_time(unary_once, &e);
            char name[64];
            snprintf(name, sizeof name, "%s %s, 1 M", functions[i].name, type ? "bf16" : "f32");
            show(name, seconds, 2.0 * (double)cpu_type_size(type) * (double)e.n / seconds * 1e-9,
                 "GB/s", read_rate);
            free(e.in);
            free(e.out);
        }
    return 0;
}
