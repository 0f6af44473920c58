/* Measuring models: how well they predict a text (perplexity), which answer they
 * prefer (tasks), and how fast they are (benchmark). Numbers are those of
 * mlx_lm.perplexity, mlx_lm.evaluate and mlx_lm.benchmark. */
#ifndef LM_EVALUATE_H
#define LM_EVALUATE_H

#include "lm/lm.h"

/* Told after each step of long work; may be NULL. */
typedef void (*LmProgress)(void *context, size_t done, size_t total);

/* ---- perplexity ------------------------------------------------------------ */

typedef struct LmPerplexityOptions {
    int batch_size;      /* sequences a forward pass takes; 8 */
    int sequence_length; /* tokens of a sequence, at least 2; 512 */
    int num_samples;     /* sequences at most; -1: all that the data gives */
    uint32_t seed;       /* of the order of the records; 123 */
    LmProgress progress; /* in batches */
    void *context;
} LmPerplexityOptions;

typedef struct LmPerplexity {
    double perplexity; /* exp of the mean loss of all tokens but the first of each sequence */
    double error;      /* its standard error */
    size_t scored;     /* tokens that have a loss */
    double seconds;
} LmPerplexity;

/* Sequences of a data set (a jsonl file, or a folder with train.jsonl): records in
 * NumPy's order for the seed, joined and cut. *ids [samples][sequence_length];
 * caller frees. Too little text for one sequence is an error; for fewer than
 * num_samples it is not. */
bool lm_perplexity_data(LmModel *model, const char *path, const LmPerplexityOptions *options,
                        int **ids, size_t *samples, Error *err);
bool lm_perplexity(LmModel *model, const int *ids, size_t samples,
                   const LmPerplexityOptions *options, LmPerplexity *result, Error *err);

/* ---- tasks ------------------------------------------------------------------- */

typedef struct LmTaskOptions {
    int num_shots;                  /* examples before each question */
    int max_tokens;                 /* of a context with its answer; 8192 */
    int limit;                      /* questions at most; 0: all */
    uint64_t seed;                  /* of the examples' choice; 123 */
    bool templated;                 /* through the chat template */
    bool multiturn;                 /* examples as turns of their own; only with templated */
    const json_t *template_options; /* object of more variables for the template, or NULL */
    LmProgress progress;            /* in questions */
    void *context;
} LmTaskOptions;

/* The name of the task at a path: the file's or the folder's; caller frees. */
char *lm_task_name(const char *path);
/* Asks the questions of one task, a jsonl file, or a folder with test.jsonl (or
 * validation.jsonl, valid.jsonl) and perhaps train.jsonl (or dev.jsonl) to draw
 * examples from. The result is the harness' object: alias, sample_len, "acc,none",
 * "acc_stderr,none", and "acc_norm,none" or "perplexity,none" where those are usual.
 * NULL on failure; caller json_decref's. */
json_t *lm_evaluate(LmModel *model, const char *path, const LmTaskOptions *options, Error *err);

/* ---- speed ------------------------------------------------------------------- */

typedef struct LmBenchmarkOptions {
    int prompt_tokens, generation_tokens; /* of each sequence, at least 1 */
    int batch_size;                       /* sequences side by side */
    int prefill_step;                     /* prompt tokens a forward pass takes */
} LmBenchmarkOptions;

/* Random ids [batch_size][prompt_tokens], always the same; caller frees. */
int *lm_benchmark_prompts(const LmModel *model, const LmBenchmarkOptions *options, Error *err);
/* One run; no stop token ends it. Of several sequences the statistics count all. */
bool lm_benchmark(LmModel *model, const int *prompts, const LmBenchmarkOptions *options,
                  LmStats *stats, Error *err);

#endif
