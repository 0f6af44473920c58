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
