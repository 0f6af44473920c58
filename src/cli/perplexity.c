/* perplexity: how well a model predicts a data set, with the flags and the output
 * of mlx_lm.perplexity. */
#include "cli/commands.h"
#include "hub/remote.h"
#include "lm/evaluate.h"

#include <math.h>
#include <stdlib.h>

typedef struct PerplexityArguments {
    const char *model, *data_path;
    OptionInt batch_size, sequence_length, num_samples, seed;
    bool trust_remote_code, json;
} PerplexityArguments;
#define ARGUMENTS PerplexityArguments

static const Option option_table[] = {
    OPTION_REQUIRED("model", NULL, MODEL, model, "MODEL", "model folder or hub id"),
    OPTION_REQUIRED("data-path", NULL, TEXT, data_path, "PATH",
                    "jsonl file, or folder with train.jsonl; records as for training: messages, "
                    "prompt and completion, or text"),
    OPTION("sequence-length", NULL, INT, sequence_length, "512", "N", "tokens of a sequence"),
    OPTION("num-samples", NULL, INT, num_samples, "256", "N", "sequences at most; -1: all"),
    OPTION("batch-size", NULL, INT, batch_size, "8", "N", "sequences read at once"),
    OPTION("seed", NULL, INT, seed, "123", "N", "seed of the order in which records are taken"),
    TRUST_OPTION(trust_remote_code),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "one JSON object instead of text"),
};
#undef ARGUMENTS

static bool read_options(const PerplexityArguments *arguments, LmPerplexityOptions *options,
                         Error *err) {
    int seed;
    bool good =
        sampling_int("sequence-length", arguments->sequence_length, 2, 1 << 24,
                     &options->sequence_length, err) &&
        sampling_int("num-samples", arguments->num_samples, -1, INT32_MAX, &options->num_samples,
                     err) &&
        sampling_int("batch-size", arguments->batch_size, 1, 1 << 16, &options->batch_size, err) &&
        sampling_int("seed", arguments->seed, 0, INT32_MAX, &seed, err);
    if (good) options->seed = (uint32_t)seed;
    return good;
}

static void show_progress(void *context, size_t done, size_t total) {
    (void)total;
    base_progress_update(context, (double)done);
}

static void print_results(const PerplexityArguments *arguments, const char *model, size_t samples,
                          const LmPerplexity *result) {
    size_t tokens = samples * (size_t)arguments->sequence_length.value;
    double memory = (double)base_peak_memory() / 1e9;
    double rate = result->seconds > 0 ? (double)result->scored / result->seconds : 0;
    if (arguments->json) {
        output_json(json_pack("{s:s,s:f,s:f,s:I,s:I,s:f,s:f,s:f}", "model", model, "perplexity",
                              result->perplexity, "standard_error", result->error, "samples",
                              (json_int_t)samples, "tokens", (json_int_t)tokens, "seconds",
                              result->seconds, "tokens_per_second", rate, "peak_memory", memory));
        return;
    }
    static const char rule[] = "============================================================";
    printf("\n%s\nEVALUATION RESULTS\n%s\n", rule, rule);
    printf("Model: %s\nPerplexity: %.3f ± %.3f\n", model, result->perplexity, result->error);
    printf("Evaluation time: %.2f seconds\nPeak memory: %.2f GB\nTokens per second: %.0f\n",
           result->seconds, memory, rate);
    printf("\nDataset statistics:\n  Total samples: %zu\n  Total tokens: %zu\n", samples, tokens);
}

static bool evaluate(LmModel *model, const char *label, const PerplexityArguments *arguments,
                     LmPerplexityOptions options, Error *err) {
    bool text = !arguments->json;
    if (text) {
        printf("Model loaded: %.1fM parameters\n", (double)lm_model_parameters(model) / 1e6);
        printf("\nLoading dataset...\n  Sequence length: %d\n", options.sequence_length);
        fflush(stdout);
    }
    int *ids = NULL;
    size_t samples = 0;
    if (!lm_perplexity_data(model, arguments->data_path, &options, &ids, &samples, err))
        return false;
    if (text) {
        printf("  Loaded %zu samples\n\nEvaluating perplexity with batch size %d...\n", samples,
               options.batch_size);
        fflush(stdout);
    }
    size_t step = (size_t)options.batch_size;
    size_t batches = (samples + step - 1) / step;
    Progress progress = base_progress_start("Evaluating", "batches", (double)batches);
    progress.json = arguments->json;
    options.progress = show_progress;
    options.context = &progress;
    LmPerplexity result;
    bool good = lm_perplexity(model, ids, samples, &options, &result, err);
    base_progress_end(&progress);
    if (good) print_results(arguments, label, samples, &result);
    free(ids);
    return good;
}

static int run(const void *given, Error *err) {
    const PerplexityArguments *arguments = given;
    LmPerplexityOptions options = {0};
    if (!read_options(arguments, &options, err)) return 1;
    char *label = hub_label(arguments->model);
    if (!arguments->json) printf("Loading model from %s...\n", label);
    LmModel *model = lm_model_open(arguments->model, NULL, err);
    bool good = model && evaluate(model, label, arguments, options, err);
    lm_model_close(model);
    free(label);
    return good ? 0 : 1;
}

const Command perplexity_command = {.name = "perplexity",
                                    .summary = "Measures how well a model predicts a data set.",
                                    OPTIONS(option_table),
                                    .arguments_size = sizeof(PerplexityArguments),
                                    .run = run};
