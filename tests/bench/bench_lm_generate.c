/* Speed of generation: prefill of 512 tokens and decode of 128, medians of
 * several runs. The memory bandwidth of this machine is measured before and after
 * each decode, the better one counts: neighbours of a virtual machine come and go.
 * That is a peak of a few milliseconds; what the machine keeps up is measured too,
 * by nothing but reading as many bytes as the decode does, in the decode's place.
 * Usage: bench_lm_generate MODEL_FOLDER [runs]. */
#include "lm/lm.h"
#include "machine.h"

#include <stdlib.h>
#include <string.h>

enum { PROMPT = 512, DECODE = 128, MAX_RUNS = 64, READ_BYTES = 256 << 20 };

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, by_value);
    return values[count / 2];
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: %s MODEL_FOLDER [runs]\n", argv[0]);
        return 2;
    }
    int runs = argc > 2 ? atoi(argv[2]) : 7;
    runs = BASE_MIN(BASE_MAX(runs, 1), MAX_RUNS);
    Error err = {0};
    LmModel *model = lm_model_open(argv[1], NULL, &err);
    int prompt[PROMPT];
    for (int i = 0; i < PROMPT; i++) prompt[i] = 100 + i * 7919 % 20000;
    LmGenerateOptions options = lm_generate_defaults();
    options.max_tokens = DECODE;
    options.ignore_stop = true;
    double prefill[MAX_RUNS], decode[MAX_RUNS], read[MAX_RUNS], share[MAX_RUNS];
    double kept[MAX_RUNS];
    const double bytes = model ? (double)lm_model_bytes(model) : 1;
    for (int run = 0; model && run < runs; run++) {
        LmStats stats;
        if (!lm_generate(model, prompt, PROMPT, &options, &stats, &err)) break;
        prefill[run] = stats.prompt_tps;
        const double before = read_bandwidth(READ_BYTES);
        if (!lm_generate(model, prompt, 8, &options, &stats, &err)) break;
        decode[run] = stats.generation_tps;
        read[run] = BASE_MAX(before, read_bandwidth(READ_BYTES));
        kept[run] = read_kept_up((size_t)bytes, DECODE);
        share[run] = decode[run] * bytes / read[run];
    }
    if (err.code) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    const double bandwidth = median(read, runs);
    double prefill_tps = median(prefill, runs), decode_tps = median(decode, runs);
    printf("memory read                 %8.1f GB/s (%d threads)\n", bandwidth / 1e9,
           base_threads());
    printf("weights touched a token     %8.1f MB\n", bytes / 1e6);
    printf("decode, read limit          %8.1f tokens/s\n", bandwidth / bytes);
    printf("decode, mlx-rag             %8.1f tokens/s\n", decode_tps);
    printf("share of the limit          %8.0f %% (median of %d runs)\n", 100 * median(share, runs),
           runs);
    printf("reads alone, as long        %8.1f tokens/s (%.1f GB/s)\n", median(kept, runs) / bytes,
           median(kept, runs) / 1e9);
    printf("prefill of %d, mlx-rag     %8.1f tokens/s\n", PROMPT, prefill_tps);
    printf("peak resident memory        %8.1f MiB\n", (double)base_peak_memory() / 1048576);
    lm_model_close(model);
    return 0;
}
