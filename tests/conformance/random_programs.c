/* Random programs on two engines, or on one engine in several settings.
 *
 *     random_programs run FIRST COUNT FILE    writes the results of COUNT seeds
 *     random_programs compare FILE FILE       says where they disagree
 *     random_programs show SEED               one program in words, with values
 *     random_programs settings FIRST COUNT    one thread, four threads and plain C
 *                                             kernels must agree
 *
 * A program that ends or hangs its process is a disagreement too, unless only the
 * second engine's did; the rest goes on in a new process. */
#include "conformance/programs.h"

#include <complex.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static bool show_errors;

static void on_error(const char *text, void *data) {
    (void)data;
    if (show_errors) printf("error: %s\n", text);
}

static void run_from(uint64_t first, uint64_t end, FILE *out) {
    mlx_set_error_handler(on_error, NULL, NULL);
    for (uint64_t seed = first; seed < end; seed++) {
        const Record begin = {.seed = seed, .step = -1};
        fwrite(&begin, sizeof begin, 1, out);
        fflush(out);
        alarm(8);
        program_run(seed, out, NULL);
        fflush(out);
    }
}

/* The last program that the file began; the file is cut after that beginning. */
static uint64_t last_seed(const char *path) {
    FILE *in = fopen(path, "rb");
    Record record;
    uint64_t seed = 0;
    long end = 0;
    while (in && fread(&record, sizeof record, 1, in) == 1) {
        if (record.step == -1) {
            seed = record.seed;
            end = ftell(in);
        }
        if (fseek(in, (long)record.bytes, SEEK_CUR)) break;
    }
    if (in) fclose(in);
    if (truncate(path, end)) perror(path);
    return seed;
}

static int run(uint64_t first, uint64_t count, const char *path) {
    uint64_t next = first;
    remove(path);
    while (next < first + count) {
        fflush(NULL);
        const pid_t child = fork();
        if (child == 0) {
            FILE *out = fopen(path, "ab");
            if (!out) _exit(2);
            run_from(next, first + count, out);
            fclose(out);
            _exit(0);
        }
        int status = 1;
        if (child < 0 || waitpid(child, &status, 0) != child) return 1;
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return 0;
        if (WIFEXITED(status) && WEXITSTATUS(status) == 2) return 1;
        next = last_seed(path) + 1;
        fprintf(stderr, "seed %llu ended its process\n", (unsigned long long)next - 1);
        FILE *out = fopen(path, "ab");
        const Record crash = {.seed = next - 1, .step = -2};
        fwrite(&crash, sizeof crash, 1, out);
        fclose(out);
    }
    return 0;
}

/* ---- comparing ---- */

static double half_value(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double sign = bits & 0x8000 ? -1 : 1;
    if (exponent == 31) return fraction ? NAN : sign * INFINITY;
    return sign * (exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24));
}

static double item_value(const uint8_t *data, mlx_dtype dtype, size_t i) {
    union {
        uint16_t u16;
        uint32_t u32;
        float f32;
        double f64;
    } item = {0};
    switch (dtype) {
    case MLX_FLOAT16: memcpy(&item, data + 2 * i, 2); return half_value(item.u16);
    case MLX_BFLOAT16:
        memcpy(&item, data + 2 * i, 2);
        item.u32 = (uint32_t)item.u16 << 16;
        return (double)item.f32;
    case MLX_FLOAT64: memcpy(&item, data + 8 * i, 8); return item.f64;
    default: memcpy(&item, data + 4 * i, 4); return (double)item.f32;
    }
}

/* Where they differ, or -1. */
static long differs(const Record *a, const uint8_t *x, const uint8_t *y) {
    const mlx_dtype dtype = (mlx_dtype)a->dtype;
    if (dtype < MLX_FLOAT16) {
        for (size_t i = 0; i < a->bytes; i++)
            if (x[i] != y[i]) return (long)(i / mlx_dtype_size(dtype));
        return -1;
    }
    const bool pairs = dtype == MLX_COMPLEX64;
    const size_t count = a->bytes / (pairs ? 4 : mlx_dtype_size(dtype));
    double scale = 0;
    for (size_t i = 0; i < count; i++) {
        const double v = fabs(item_value(x, dtype, i));
        if (isfinite(v) && v > scale) scale = v;
    }
    double tolerance = a->half ? 2e-2 : 2e-5;
    if (!a->rounds) tolerance = pairs ? 1e-6 : 0;
    for (size_t i = 0; i < count; i++) {
        const double v = item_value(x, dtype, i), w = item_value(y, dtype, i);
        if (v == w || (isnan(v) && isnan(w))) continue;
        if (!(fabs(v - w) <= tolerance * (a->rounds * (scale + 0.01) + fabs(v)))) return (long)i;
    }
    return -1;
}

static bool read_record(FILE *in, Record *record, uint8_t **data) {
    if (fread(record, sizeof *record, 1, in) != 1) return false;
    *data = realloc(*data, record->bytes + 8);
    return fread(*data, 1, record->bytes, in) == record->bytes;
}

static bool same_shape(const Record *a, const Record *b) {
    return a->dtype == b->dtype && a->ndim == b->ndim && a->bytes == b->bytes &&
           memcmp(a->shape, b->shape, sizeof a->shape) == 0;
}

/* Reads on to the first record of another program. */
static bool skip_program(FILE *in, Record *record, uint8_t **data, uint64_t seed) {
    do
        if (!read_record(in, record, data)) return false;
    while (record->seed <= seed);
    return true;
}

static int compare(const char *path_a, const char *path_b) {
    FILE *in_a = fopen(path_a, "rb"), *in_b = fopen(path_b, "rb");
    uint8_t *x = NULL, *y = NULL;
    Record a, b;
    long programs = 0, bad = 0, ended = 0;
    if (!in_a || !in_b) return 2;
    bool more = read_record(in_a, &a, &x) && read_record(in_b, &b, &y);
    while (more) {
        char why[400] = "";
        long at;
        if (a.step == -1) programs++;
        if (b.step == -2 && a.seed == b.seed)
            snprintf(why, sizeof why, "%s", a.step == -2 ? "" : "ended");
        else if (a.seed != b.seed || a.step != b.step)
            snprintf(why, sizeof why, "one of them ended at %s",
                     a.seed < b.seed || a.step == -2 ? b.text : a.text);
        else if (a.step < -1)
            why[0] = 0;
        else if (!a.status != !b.status)
            snprintf(why, sizeof why, "%s: %s", a.text,
                     a.status ? "only the first failed" : "only the second failed");
        else if (!same_shape(&a, &b))
            snprintf(why, sizeof why, "%s: dtype %d and %d, dims %d and %d", a.text, a.dtype,
                     b.dtype, a.ndim, b.ndim);
        else if (a.bytes && (at = differs(&a, x, y)) >= 0) {
            const bool ints = a.dtype < MLX_FLOAT16;
            const size_t wide = mlx_dtype_size((mlx_dtype)a.dtype);
            int64_t i = 0, j = 0;
            if (ints) {
                memcpy(&i, x + (size_t)at * wide, wide);
                memcpy(&j, y + (size_t)at * wide, wide);
            }
            snprintf(why, sizeof why, "%s dtype %d rounds %d: item %ld is %.9g and %.9g", a.text,
                     a.dtype, a.rounds, at,
                     ints ? (double)i : item_value(x, (mlx_dtype)a.dtype, (size_t)at),
                     ints ? (double)j : item_value(y, (mlx_dtype)a.dtype, (size_t)at));
        }
        if (why[0]) {
            const uint64_t seed = a.seed < b.seed ? a.seed : b.seed;
            const bool theirs = strcmp(why, "ended") == 0;
            if (theirs)
                ended++;
            else
                printf("seed %llu: %s\n", (unsigned long long)seed, why);
            bad += !theirs;
            more = (a.seed > seed || skip_program(in_a, &a, &x, seed)) &&
                   (b.seed > seed || skip_program(in_b, &b, &y, seed));
            continue;
        }
        more = read_record(in_a, &a, &x) && read_record(in_b, &b, &y);
    }
    printf("%ld of %ld programs disagree, %ld ended the second engine\n", bad, programs, ended);
    fclose(in_a);
    fclose(in_b);
    free(x);
    free(y);
    return bad || !programs;
}

static int settings(uint64_t first, uint64_t count) {
    static const char *const sets[][2] = {{"1", ""}, {"4", ""}, {"2", "scalar"}};
    char paths[3][64];
    int failed = 0;
    for (int i = 0; i < 3; i++) {
        snprintf(paths[i], sizeof paths[i], "/tmp/random-programs-%d-%d", (int)getpid(), i);
        setenv("MLX_RAG_THREADS", sets[i][0], 1);
        setenv("MLX_RAG_CPU", sets[i][1], 1);
        if (!sets[i][1][0]) unsetenv("MLX_RAG_CPU");
        failed |= run(first, count, paths[i]);
        if (i) failed |= compare(paths[0], paths[i]);
    }
    for (int i = 0; i < 3; i++) remove(paths[i]);
    return failed;
}

int main(int argc, char **argv) {
    const char *command = argc > 2 ? argv[1] : "";
    const uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    const uint64_t count = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    if (!strcmp(command, "run") && argc == 5) return run(first, count, argv[4]);
    if (!strcmp(command, "compare") && argc == 4) return compare(argv[2], argv[3]);
    if (!strcmp(command, "settings") && argc == 4) return settings(first, count);
    if (!strcmp(command, "show") && argc == 3) {
        FILE *nowhere = fopen("/dev/null", "wb");
        show_errors = true;
        mlx_set_error_handler(on_error, NULL, NULL);
        program_run(first, nowhere, stdout);
        return fclose(nowhere);
    }
    fprintf(stderr, "random_programs run FIRST COUNT FILE | compare FILE FILE | show SEED | "
                    "settings FIRST COUNT\n");
    return 2;
}
