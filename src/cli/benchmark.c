/* benchmark: how fast a model reads and writes, with the flags and the output of
 * mlx_lm.benchmark. */
#include "cli/commands.h"
#include "hub/remote.h"
#include "lm/evaluate.h"

#include <stdlib.h>
#include <unistd.h>

typedef struct BenchmarkArguments {
    const char *model;
    OptionInt prompt_tokens, generation_tokens, batch_size, num_trials, prefill_step_size, delay;
    bool quantize_activations, pipeline, trust_remote_code, json;
} BenchmarkArguments;
#define ARGUMENTS BenchmarkArguments

static const Option option_table[] = {
    OPTION_REQUIRED("model", NULL, MODEL, model, "MODEL", "model folder or hub id"),
    OPTION("prompt-tokens", "p", INT, prompt_tokens, "512", "N", "length of the prompt"),
    OPTION("generation-tokens", "g", INT, generation_tokens, "1024", "N", "tokens to generate"),
    OPTION("batch-size", "b", INT, batch_size, "1", "N", "sequences side by side"),
    OPTION("num-trials", "n", INT, num_trials, "5", "N", "timed runs, after one to warm up"),
    OPTION("prefill-step-size", NULL, INT, prefill_step_size, "2048", "N",
           "prompt tokens read at once"),
    OPTION("delay", NULL, INT, delay, "0", "SECONDS", "pause before each run"),
    OPTION("quantize-activations", "qa", FLAG, quantize_activations, NULL, NULL,
           "quantise activations too; for models of mode nvfp4 or mxfp8"),
    OPTION("pipeline", NULL, FLAG, pipeline, NULL, NULL,
           "accepted for mlx_lm; one process has nothing to split"),
    TRUST_OPTION(trust_remote_code),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "one JSON object instead of text"),
};
#undef ARGUMENTS

enum { MOST_TOKENS = 1 << 24, LONGEST_DELAY = 86400 };

typedef struct Trial {
    double prompt_tps, generation_tps, peak_memory, total_time;
} Trial;

typedef struct Bench {
    const BenchmarkArguments *arguments;
    LmBenchmarkOptions options;
    int trials, delay;
    LmModel *model;
    int *prompts;
} Bench;

static bool read_options(Bench *bench, Error *err) {
    const BenchmarkArguments *given = bench->arguments;
    LmBenchmarkOptions *o = &bench->options;
    return sampling_int("prompt-tokens", given->prompt_tokens, 1, MOST_TOKENS, &o->prompt_tokens,
                        err) &&
           sampling_int("generation-tokens", given->generation_tokens, 1, MOST_TOKENS,
                        &o->generation_tokens, err) &&
           sampling_int("batch-size", given->batch_size, 1, 1 << 16, &o->batch_size, err) &&
           sampling_int("prefill-step-size", given->prefill_step_size, 1, MOST_TOKENS,
                        &o->prefill_step, err) &&
           sampling_int("num-trials", given->num_trials, 1, 1 << 20, &bench->trials, err) &&
           sampling_int("delay", given->delay, 0, LONGEST_DELAY, &bench->delay, err);
}

static bool pause_before(int seconds, Error *err) {
    double until = base_now() + seconds;
    while (base_now() < until && !base_interrupted()) usleep(50000);
    return !base_interrupted() || base_fail(err, ERROR_INTERRUPTED, "interrupted");
}

static bool run_trial(const Bench *bench, Trial *trial, Error *err) {
    LmStats stats;
    double started = base_now();
    if (!lm_benchmark(bench->model, bench->prompts, &bench->options, &stats, err)) return false;
    *trial = (Trial){stats.prompt_tps, stats.generation_tps, stats.peak_gb, base_now() - started};
    return true;
}

static json_t *rates(const Trial *trial) {
    return json_pack("{s:f,s:f,s:f}", "prompt_tps", trial->prompt_tps, "generation_tps",
                     trial->generation_tps, "peak_memory", trial->peak_memory);
}

static void say(const Bench *bench, const char *text) {
    if (bench->arguments->json) return;
    fputs(text, stdout);
    fflush(stdout);
}

/* A trial's line; its average is line 0, without the time. */
static void say_trial(const Bench *bench, int number, const Trial *trial) {
    char line[256], head[32] = "Averages: ", tail[48] = "";
    if (number > 0) {
        snprintf(head, sizeof head, "Trial %d:  ", number);
        snprintf(tail, sizeof tail, ", total_time=%.3f", trial->total_time);
    }
    snprintf(line, sizeof line, "%sprompt_tps=%.3f, generation_tps=%.3f, peak_memory=%.3f%s\n",
             head, trial->prompt_tps, trial->generation_tps, trial->peak_memory, tail);
    say(bench, line);
}

static bool run_trials(const Bench *bench, json_t *list, Trial *mean, Error *err) {
    const LmBenchmarkOptions *o = &bench->options;
    Trial trial;
    char line[128];
    say(bench, "Running warmup..\n");
    if (!run_trial(bench, &trial, err)) return false;
    snprintf(line, sizeof line,
             "Timing with prompt_tokens=%d, generation_tokens=%d, batch_size=%d.\n",
             o->prompt_tokens, o->generation_tokens, o->batch_size);
    say(bench, line);
    Progress progress = base_progress_start("Benchmark", "trials", bench->trials);
    progress.json = true;
    progress.quiet = !bench->arguments->json;
    for (int i = 1; i <= bench->trials; i++) {
        if (!pause_before(bench->delay, err) || !run_trial(bench, &trial, err)) return false;
        say_trial(bench, i, &trial);
        base_progress_update(&progress, i);
        json_t *entry = rates(&trial);
        json_object_set_new(entry, "total_time", json_real(trial.total_time));
        json_array_append_new(list, entry);
        mean->prompt_tps += trial.prompt_tps / bench->trials;
        mean->generation_tps += trial.generation_tps / bench->trials;
        mean->peak_memory += trial.peak_memory / bench->trials;
    }
    base_progress_end(&progress);
    return true;
}

static bool measure(Bench *bench, Error *err) {
    const BenchmarkArguments *arguments = bench->arguments;
    LmOpenOptions open = {.quantize_activations = arguments->quantize_activations};
    bench->model = lm_model_open(arguments->model, &open, err);
    if (!bench->model) return false;
    bench->prompts = lm_benchmark_prompts(bench->model, &bench->options, err);
    if (!bench->prompts) return false;
    const LmBenchmarkOptions *o = &bench->options;
    json_t *trials = json_array();
    Trial mean = {0};
    bool done = run_trials(bench, trials, &mean, err);
    if (done) {
        say_trial(bench, 0, &mean);
        char *label = hub_label(arguments->model);
        if (arguments->json)
            output_json(json_pack("{s:s,s:i,s:i,s:i,s:O,s:o}", "model", label, "prompt_tokens",
                                  o->prompt_tokens, "generation_tokens", o->generation_tokens,
                                  "batch_size", o->batch_size, "trials", trials, "averages",
                                  rates(&mean)));
        free(label);
    }
    json_decref(trials);
    return done;
}

static int run(const void *given, Error *err) {
    Bench bench = {.arguments = given};
    bool done = read_options(&bench, err) && measure(&bench, err);
    free(bench.prompts);
    lm_model_close(bench.model);
    return done ? 0 : 1;
}

const Command benchmark_command = {.name = "benchmark",
                                   .summary = "Measures how fast a model reads and writes.",
                                   OPTIONS(option_table),
                                   .arguments_size = sizeof(BenchmarkArguments),
                                   .run = run};
