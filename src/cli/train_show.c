/* How a training run looks. On a terminal mlx_lm's table with a bar under it; in a pipe
 * the lines that scripts around mlx_lm read; with --json an object a report. */
#include "cli/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tune/metrics.h"

/* 1234567 -> "1,234,567"; caller frees. */
static char *grouped(double number) {
    char digits[32];
    snprintf(digits, sizeof digits, "%.0f", number);
    StrBuf text = {0};
    const size_t length = strlen(digits);
    for (size_t i = 0; i < length; i++) {
        if (i > 0 && digits[i - 1] != '-' && (length - i) % 3 == 0)
            base_str_append_char(&text, ',');
        base_str_append_char(&text, digits[i]);
    }
    return base_str_detach(&text);
}

static bool coloured(void) {
    return isatty(STDOUT_FILENO) && !getenv("NO_COLOR");
}

/* ---- before --------------------------------------------------------------------------- */

void train_says(const TrainShow *show, const char *text) {
    if (show->quiet || show->style == SHOW_JSON) return;
    puts(text);
    fflush(stdout);
}

static void panel_row(const char *name, const char *value) {
    printf("  %-14s %s\n", name, value);
}

static void show_panel(const TuneConfig *c) {
    char *iters = grouped(c->iters), *length = grouped(c->max_seq_length);
    const bool full = strcmp(c->fine_tune_type, "full") == 0;
    char *type =
        full ? base_format("full · %d layers", c->num_layers)
             : base_format("%s · %d layers · rank %d", c->fine_tune_type, c->num_layers, c->rank);
    if (c->num_layers <= 0) {
        free(type);
        type = full ? base_format("full · all layers")
                    : base_format("%s · all layers · rank %d", c->fine_tune_type, c->rank);
    }
    char *optimizer = base_format("%s · lr %.1e", c->optimizer, c->learning_rate);
    char *batch = base_format("%d · %s", c->batch_size, iters);
    puts("mlx-rag train");
    panel_row("model", c->model);
    panel_row("type", type);
    panel_row("dataset", c->data);
    panel_row("optimizer", optimizer);
    panel_row("batch · iters", batch);
    panel_row("max seq", length);
    free(batch);
    free(optimizer);
    free(type);
    free(iters);
    free(length);
}

static void show_trainable(const TuneRun *run) {
    const double trainable = (double)tune_model_trainable(run->model),
                 total = (double)tune_model_total(run->model);
    printf("Trainable parameters: %.3f%% (%.3fM/%.3fM)\n", 100 * trainable / total, trainable / 1e6,
           total / 1e6);
}

void train_introduce(TrainShow *show, const TuneRun *run) {
    show->config = run->config;
    if (show->quiet || show->style == SHOW_JSON) return;
    if (run->config->train) {
        if (show->style == SHOW_TABLE) show_panel(run->config);
        show_trainable(run);
        if (!run->valid)
            puts("Warning: Validation set not found or empty. Training will proceed without "
                 "validation.");
        if (show->style == SHOW_LINES)
            printf("Starting training..., iters: %d\n", run->config->iters);
        else
            puts("\n  iter   train_loss     tok/s     tokens");
    }
    fflush(stdout);
}

/* ---- reports ------------------------------------------------------------------------------ */

static void table_train(TrainShow *show, const TuneReport *r) {
    const bool better = show->previous == 0 || r->loss <= show->previous;
    char *rate = grouped(r->tokens_per_second);
    const char *colour = !coloured() ? "" : better ? "\033[32m" : "\033[33m";
    printf("  %4d    %5.3f %s%s%s    %5s    %5.1fk\n", r->iteration, r->loss, colour,
           better ? "▼" : "▲", coloured() ? "\033[0m" : "", rate, r->trained_tokens / 1000);
    show->previous = r->loss;
    free(rate);
}

static void lines_train(const TuneReport *r) {
    printf("Iter %d: Train loss %.3f, Learning Rate %.3e, It/sec %.3f, Tokens/sec %.3f, Trained "
           "Tokens %.0f, Peak mem %.3f GB\n",
           r->iteration, r->loss, r->learning_rate, r->iterations_per_second, r->tokens_per_second,
           r->trained_tokens, r->peak_memory);
}

static void show_measurement(TrainShow *show, const TuneReport *r) {
    const bool table = show->style == SHOW_TABLE;
    /* mlx_lm shows the step that a validation comes before. */
    const int validated = r->iteration + show->config->compat;
    if (r->kind == TUNE_REPORT_TEST) {
        printf("Test loss %.3f, Test ppl %.3f.\n", r->loss, exp(r->loss));
    } else if (r->kind == TUNE_REPORT_VAL && table) {
        printf("  %4d    val %5.3f    %.2fs\n", validated, r->loss, r->seconds);
    } else if (r->kind == TUNE_REPORT_VAL) {
        printf("Iter %d: Val loss %.3f, Val took %.3fs\n", validated, r->loss, r->seconds);
    } else if (table) {
        table_train(show, r);
    } else {
        lines_train(r);
    }
    if (r->pairs)
        printf("%s the chosen answer won in %.1f %%\n", table ? "         " : "",
               100 * r->accuracy);
}

static void show_event(const TrainShow *show, const TuneReport *r) {
    const int longest = show->config->max_seq_length;
    const char *file = r->file ? base_path_name(r->file) : "";
    switch (r->kind) {
    case TUNE_REPORT_SAVE:
        if (show->style == SHOW_TABLE)
            printf("  save  %s\n", file);
        else
            printf("Iter %d: Saved adapter weights to %s.\n", r->iteration, r->file);
        break;
    case TUNE_REPORT_BEST: printf("  best so far: %s\n", file); break;
    case TUNE_REPORT_LONG:
        printf("[WARNING] Some sequences are longer than %d tokens. The longest sentence %d will "
               "be truncated to %d. Consider pre-splitting your data to save memory.\n",
               longest, r->longest, longest);
        break;
    case TUNE_REPORT_SKIP:
        printf("[WARNING] Iter %d: the loss or the gradient is not finite; the step is skipped.\n",
               r->iteration);
        break;
    case TUNE_REPORT_STOP:
        printf("Stopped at iter %d: no validation loss below %.3f in the last %d validations.\n",
               r->iteration, r->loss, show->config->patience);
        break;
    default: break;
    }
}

static void json_event(const TuneReport *r) {
    static const char *const names[] = {[TUNE_REPORT_SAVE] = "save",
                                        [TUNE_REPORT_BEST] = "best",
                                        [TUNE_REPORT_LONG] = "truncated",
                                        [TUNE_REPORT_SKIP] = "skipped",
                                        [TUNE_REPORT_STOP] = "stopped"};
    json_t *line = json_pack("{s:s,s:i}", "type", names[r->kind], "iter", r->iteration);
    if (r->file) json_object_set_new(line, "file", json_string(r->file));
    if (r->kind == TUNE_REPORT_LONG) json_object_set_new(line, "longest", json_integer(r->longest));
    output_json(line);
}

static void on_report(void *context, const TuneReport *r) {
    TrainShow *show = context;
    json_t *measured = tune_metrics_json(r);
    if (show->style == SHOW_JSON) {
        if (measured)
            output_json(json_incref(measured));
        else
            json_event(r);
    } else if (!show->quiet || r->kind == TUNE_REPORT_TEST) {
        base_progress_clear(&show->progress);
        if (measured)
            show_measurement(show, r);
        else
            show_event(show, r);
    }
    json_decref(measured);
    fflush(stdout);
}

static void on_progress(void *context, const char *what, int done, int total) {
    TrainShow *show = context;
    if (show->doing != what) {
        base_progress_clear(&show->progress);
        show->progress = base_progress_start(what, "batches", total);
        show->progress.skipped = done;
        show->progress.json = show->style == SHOW_JSON;
        show->progress.quiet = show->quiet;
        show->doing = what;
    }
    base_progress_update(&show->progress, done);
    if (done == total) base_progress_clear(&show->progress);
}

TuneListener train_listener(TrainShow *show) {
    return (TuneListener){.report = on_report, .progress = on_progress, .context = show};
}

/* ---- the estimate -----------------------------------------------------------------------------
 */

/* Seconds of a micro-step, and its tokens; an update is little beside it. */
static bool time_step(TuneRun *run, double *seconds, double *tokens, Error *err) {
    TuneBatch batch;
    TuneLoss loss;
    if (tune_batches_next(run->batches, &batch, err) != 1) return false;
    mx_scope s = mx_open();
    mlx_array *grads = base_alloc((tune_model_count(run->model) + 1) * sizeof *grads);
    const double began = base_now();
    const bool good = tune_gradients(run->model, &batch, &run->step, grads, &loss, err);
    *seconds = base_now() - began;
    *tokens = (double)batch.tokens;
    free(grads);
    mx_drop(s);
    tune_batch_free(&batch);
    return good;
}

static void print_time(double seconds) {
    if (seconds < 120)
        printf("%.0f s", seconds);
    else if (seconds < 7200)
        printf("%.0f min", seconds / 60);
    else
        printf("%.1f h", seconds / 3600);
}

bool train_dry_run(TrainShow *show, TuneRun *run, Error *err) {
    const TuneConfig *c = run->config;
    const TuneMemory memory = tune_run_memory(run);
    double seconds = 0, tokens = 0;
    if (!tune_run_fits(run, err) || !time_step(run, &seconds, &tokens, err)) return false;
    const double all = seconds * c->iters;
    const double epochs = (double)c->iters / (double)tune_batches_per_epoch(run->batches);
    if (show->style == SHOW_JSON) {
        output_json(
            json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:f,s:f,s:i,s:f}", "trainable_parameters",
                      (json_int_t)tune_model_trainable(run->model), "total_parameters",
                      (json_int_t)tune_model_total(run->model), "memory", (json_int_t)memory.total,
                      "memory_weights", (json_int_t)memory.weights, "memory_trained",
                      (json_int_t)memory.trained, "memory_activations",
                      (json_int_t)memory.activations, "seconds_per_iter", seconds, "tokens_per_sec",
                      tokens / seconds, "seconds", all, "iters", c->iters, "epochs", epochs));
        return true;
    }
    show_trainable(run);
    printf("Memory: about %s", base_bytes_text(memory.total));
    printf(" (weights %s", base_bytes_text(memory.weights));
    printf(", what trains %s", base_bytes_text(memory.trained));
    printf(", activations %s)\n", base_bytes_text(memory.activations));
    printf("Time: about ");
    print_time(all);
    printf(" for %d iterations, %.2f epochs; the first batch took %.2f s, %.0f tokens/s\n",
           c->iters, epochs, seconds, tokens / seconds);
    puts("Nothing was written.");
    return true;
}
