/* The loop. What one turn does stands in the functions that it calls: validate, step,
 * update, report, save. */
#include "tune/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tune/metrics.h"
#include "tune/state.h"

/* Spikes: from so many updates on a gradient so many times the usual norm is shortened to
 * that. Steps without effect in a row end the run. */
enum { SPIKE_AFTER = 16, SPIKE_TIMES = 8, SKIPS_TO_END = 10 };

typedef struct Trainer {
    TuneRun *run;
    const TuneConfig *config;
    const json_t *settings;
    const TuneListener *listener;
    const char *folder;
    TunePlace place;
    TuneMetrics *metrics;
    mlx_array *sums; /* [tensors]: gradients under way; held */
    size_t count;
    bool told_long;
} Trainer;

static bool pairs(const TuneRun *run) {
    return run->step.loss != TUNE_LOSS_TOKENS;
}

/* ---- telling --------------------------------------------------------------------------- */

static bool tell(Trainer *trainer, const TuneReport *report, Error *err) {
    trainer->listener->report(trainer->listener->context, report);
    return !trainer->metrics || tune_metrics_write(trainer->metrics, report, err);
}

static void show_progress(const TuneListener *listener, const char *what, int done, int total) {
    if (listener->progress) listener->progress(listener->context, what, done, total);
}

static double peak_memory(void) {
    return (double)base_peak_memory() / 1e9;
}

static bool interrupted(Error *err) {
    return base_interrupted() && !base_fail(err, ERROR_INTERRUPTED, "interrupted");
}

/* ---- evaluation -------------------------------------------------------------------------- */

typedef struct Evaluation {
    double sum, targets, won;
} Evaluation;

static bool evaluate(TuneRun *run, TuneData *data, int most, const char *what,
                     const TuneListener *listener, Evaluation *evaluation, Error *err) {
    *evaluation = (Evaluation){0};
    TuneBatches *batches = tune_run_split(run, data, err);
    if (!batches) return false;
    const int all = (int)BASE_MIN(tune_batches_per_epoch(batches), (size_t)INT32_MAX);
    const int total = most < 0 ? all : BASE_MIN(most, all);
    bool good = true;
    for (int i = 0; i < total && good; i++) {
        TuneBatch batch;
        TuneLoss loss;
        show_progress(listener, what, i, total);
        good = !interrupted(err) && tune_batches_next(batches, &batch, err) == 1;
        if (!good) break;
        good = tune_evaluate_batch(run->model, &batch, &run->step, &loss, err);
        tune_batch_free(&batch);
        evaluation->sum += loss.sum;
        evaluation->targets += loss.targets;
        evaluation->won += loss.accuracy * loss.targets;
    }
    if (good) show_progress(listener, what, total, total);
    tune_batches_free(batches);
    return good;
}

static TuneReport evaluation_report(const TuneRun *run, TuneReportKind kind,
                                    const Evaluation *evaluation, double began) {
    const double seconds = base_now() - began, targets = evaluation->targets;
    return (TuneReport){.kind = kind,
                        .loss = evaluation->sum / targets,
                        .accuracy = evaluation->won / targets,
                        .pairs = pairs(run),
                        .learning_rate =
                            run->optimizer ? (double)tune_optimizer_rate(run->optimizer) : 0,
                        .seconds = seconds,
                        .tokens_per_second = seconds > 0 ? targets / seconds : 0,
                        .peak_memory = peak_memory()};
}

bool tune_test(TuneRun *run, const TuneListener *listener, Error *err) {
    Evaluation evaluation;
    const double began = base_now();
    if (!evaluate(run, run->test, run->config->test_batches, "test", listener, &evaluation, err))
        return false;
    const TuneReport report = evaluation_report(run, TUNE_REPORT_TEST, &evaluation, began);
    listener->report(listener->context, &report);
    return true;
}

/* ---- saving --------------------------------------------------------------------------------- */

static bool save_adapter(Trainer *trainer, const char *name, TuneReportKind kind, bool quiet,
                         Error *err) {
    char *file = base_path_join(trainer->folder, name);
    bool good = tune_model_save_adapter(trainer->run->model, file, err);
    const TuneReport report = {.kind = kind, .iteration = trainer->place.iteration, .file = file};
    good = good && (quiet || tell(trainer, &report, err));
    free(file);
    return good;
}

static bool save_state(Trainer *trainer, Error *err) {
    char *file = base_path_join(trainer->folder, TUNE_STATE_FILE);
    trainer->place.metrics = tune_metrics_bytes(trainer->metrics);
    const bool good =
        tune_state_save(file, trainer->run, &trainer->place, trainer->sums, trainer->settings, err);
    free(file);
    return good;
}

static bool save_checkpoint(Trainer *trainer, Error *err) {
    char name[64];
    snprintf(name, sizeof name, "%07d_adapters.safetensors", trainer->place.iteration);
    return save_adapter(trainer, "adapters.safetensors", TUNE_REPORT_SAVE, true, err) &&
           save_adapter(trainer, name, TUNE_REPORT_SAVE, false, err) && save_state(trainer, err);
}

static bool save_peft(Trainer *trainer, Error *err) {
    char *folder = base_path_join(trainer->folder, "peft");
    const bool good =
        base_make_dirs(folder, err) && tune_model_save_peft(trainer->run->model, folder, err);
    free(folder);
    return good;
}

static bool save_end(Trainer *trainer, Error *err) {
    return save_adapter(trainer, "adapters.safetensors", TUNE_REPORT_SAVE, false, err) &&
           save_state(trainer, err) && (!trainer->config->save_peft || save_peft(trainer, err));
}

/* What was done stays, whatever ended it; the first failure is the one that counts. */
static void save_what_is_done(Trainer *trainer) {
    Error other = {0};
    mx_check(&other);
    base_error_clear(&other);
    if (!save_adapter(trainer, "adapters.safetensors", TUNE_REPORT_SAVE, true, &other) ||
        !save_state(trainer, &other))
        base_log(LOG_WARNING, "what was trained could not be saved: %s", other.message);
}

/* ---- validation --------------------------------------------------------------------------------
 */

static bool validation_due(const Trainer *trainer) {
    const TuneConfig *c = trainer->config;
    const int done = trainer->place.iteration, step = done + 1;
    if (!trainer->run->valid || trainer->place.validated >= done) return false;
    if (c->compat)
        return done < c->iters && (step == 1 || step % c->steps_per_eval == 0 || step == c->iters);
    return c->val_batches != 0 && (done == 0 || done % c->steps_per_eval == 0 || done == c->iters);
}

/* The best so far is kept, and enough of no better ends the run. */
static bool compare(Trainer *trainer, double loss, Error *err) {
    const TuneConfig *c = trainer->config;
    TunePlace *place = &trainer->place;
    if (place->best_iteration < 0 || loss < place->best - c->min_delta) {
        place->best = loss;
        place->best_iteration = place->iteration;
        place->stale = 0;
        return (!c->save_best && !c->patience) ||
               save_adapter(trainer, "best_adapters.safetensors", TUNE_REPORT_BEST, false, err);
    }
    place->stale++;
    place->stopped = c->patience > 0 && place->stale >= c->patience;
    return true;
}

static bool validate(Trainer *trainer, Error *err) {
    if (!validation_due(trainer)) return true;
    const MersenneTwister before = trainer->run->random;
    Evaluation evaluation;
    const double began = base_now();
    if (!evaluate(trainer->run, trainer->run->valid, trainer->config->val_batches, "val",
                  trainer->listener, &evaluation, err)) {
        trainer->run->random = before;
        return false;
    }
    TuneReport report = evaluation_report(trainer->run, TUNE_REPORT_VAL, &evaluation, began);
    report.iteration = trainer->place.iteration;
    report.trained_tokens = trainer->place.trained_tokens;
    trainer->place.validated = trainer->place.iteration;
    if (!tell(trainer, &report, err) || !compare(trainer, report.loss, err)) return false;
    if (!trainer->place.stopped) return true;
    const TuneReport stop = {.kind = TUNE_REPORT_STOP,
                             .iteration = trainer->place.iteration,
                             .loss = trainer->place.best};
    return tell(trainer, &stop, err);
}

/* ---- a step -------------------------------------------------------------------------------------
 */

/* The gradient's length; NaN and infinity show in it. */
static double norm_of(const mlx_array *grads, size_t count) {
    mx_scope s = mx_open();
    mlx_array *squares = base_alloc(count * sizeof *squares);
    for (size_t i = 0; i < count; i++) {
        mlx_array flat = mx_reshape(mx_cast(grads[i], MLX_FLOAT32), MX_SHAPE(-1));
        squares[i] = mx_sum(mx_square(flat), 0, true);
    }
    const double norm = sqrt(mx_item_float(mx_sum(mx_concat(squares, count, 0), 0, false)));
    free(squares);
    mx_drop(s);
    return norm;
}

/* By what the gradient is multiplied so that its length stays in bounds. */
static double shortened(Trainer *trainer, double norm) {
    const double bound = trainer->config->max_grad_norm;
    TunePlace *place = &trainer->place;
    if (bound >= 0) return bound > 0 && norm > bound ? bound / (norm + 1e-6) : 1;
    if (!(norm > 0)) return 1;
    const double most = SPIKE_TIMES * exp(place->norm);
    const bool spike = place->norms >= SPIKE_AFTER && norm > most;
    const double counted = log(spike ? most : norm);
    const int known = BASE_MIN(place->norms, SPIKE_AFTER);
    place->norm = (place->norm * known + counted) / (known + 1);
    place->norms++;
    return spike ? most / norm : 1;
}

/* The gradients under way change the values. */
static bool update(Trainer *trainer, Error *err) {
    const TuneConfig *c = trainer->config;
    TuneRun *run = trainer->run;
    TunePlace *place = &trainer->place;
    mx_scope s = mx_open();
    mlx_array *grads = base_alloc(3 * trainer->count * sizeof *grads);
    mlx_array *values = grads + trainer->count, *updated = values + trainer->count;
    double factor = c->compat ? 1.0 / place->pending : 1 / place->pending_targets;
    if (!c->compat) {
        place->last_norm = norm_of(trainer->sums, trainer->count) * factor;
        factor *= shortened(trainer, place->last_norm);
    }
    for (size_t i = 0; i < trainer->count; i++) {
        grads[i] = mx_mul_scalar(trainer->sums[i], factor);
        values[i] = tune_model_value(run->model, i);
    }
    const bool good = tune_optimizer_update(run->optimizer, values, grads, updated, err);
    for (size_t i = 0; i < trainer->count && good; i++) tune_model_set(run->model, i, updated[i]);
    for (size_t i = 0; i < trainer->count; i++) mx_free(&trainer->sums[i]);
    place->pending = 0;
    place->pending_targets = 0;
    free(grads);
    mx_drop(s);
    return good;
}

static bool skip(Trainer *trainer, double loss, Error *err) {
    TunePlace *place = &trainer->place;
    place->skipped++;
    const TuneReport report = {
        .kind = TUNE_REPORT_SKIP, .iteration = place->iteration + 1, .loss = loss};
    if (!tell(trainer, &report, err)) return false;
    if (++place->skipped_in_row < SKIPS_TO_END) return true;
    base_fail(err, ERROR_INPUT,
              "the loss is not a number for %d steps; the values before them are kept",
              SKIPS_TO_END);
    return base_hint(err, "Try a lower learning rate, --dtype float32, or look at the rows with "
                          "mlx-rag data inspect");
}

/* Adds a micro-step's gradients to those under way. */
static void gather(Trainer *trainer, const mlx_array *grads, const TuneLoss *loss) {
    TunePlace *place = &trainer->place;
    const double factor = trainer->config->compat ? 1 / loss->targets : 1;
    for (size_t i = 0; i < trainer->count; i++) {
        mlx_array grad = mx_mul_scalar(grads[i], factor);
        mx_store(&trainer->sums[i], place->pending ? mx_add(trainer->sums[i], grad) : grad);
    }
    mx_eval(trainer->sums, trainer->count);
    place->pending++;
    place->pending_targets += loss->targets;
}

static void count_loss(Trainer *trainer, const TuneLoss *loss, double tokens) {
    TunePlace *place = &trainer->place;
    const bool compat = trainer->config->compat;
    place->window_loss += compat ? loss->sum / loss->targets : loss->sum;
    place->window_weight += compat ? 1 : loss->targets;
    place->window_tokens += tokens;
    place->trained_tokens += tokens;
    place->window_won += loss->accuracy * (compat ? 1 : loss->targets);
}

static bool is_finite(const mlx_array *grads, size_t count, const TuneLoss *loss) {
    return isfinite(loss->sum) && isfinite(norm_of(grads, count));
}

static bool tell_long(Trainer *trainer, const TuneBatch *batch, Error *err) {
    const bool cut = batch->longest > trainer->config->max_seq_length;
    if (!cut || (trainer->told_long && !trainer->config->compat)) return true;
    trainer->told_long = true;
    const TuneReport report = {.kind = TUNE_REPORT_LONG,
                               .iteration = trainer->place.iteration + 1,
                               .longest = batch->longest};
    return tell(trainer, &report, err);
}

static bool micro_step(Trainer *trainer, const TuneBatch *batch, Error *err) {
    TuneRun *run = trainer->run;
    mx_scope s = mx_open();
    mlx_array *grads = base_alloc((trainer->count + 1) * sizeof *grads);
    TuneLoss loss;
    bool good = tune_gradients(run->model, batch, &run->step, grads, &loss, err);
    const bool compat = trainer->config->compat;
    const bool usable = good && (compat || is_finite(grads, trainer->count, &loss));
    if (good && !usable) {
        good = skip(trainer, loss.sum / loss.targets, err);
    } else if (good && (compat || loss.targets > 0)) {
        gather(trainer, grads, &loss);
        count_loss(trainer, &loss, batch->targets);
        trainer->place.skipped_in_row = 0;
    }
    good = good && mx_check(err);
    free(grads);
    mx_drop(s);
    return good;
}

static bool step(Trainer *trainer, Error *err) {
    const TuneConfig *c = trainer->config;
    TunePlace *place = &trainer->place;
    TuneBatch batch;
    if (tune_batches_next(trainer->run->batches, &batch, err) != 1) return false;
    const double began = base_now();
    bool good = tell_long(trainer, &batch, err) && micro_step(trainer, &batch, err);
    tune_batch_free(&batch);
    if (!good) return false;
    place->iteration++;
    const bool last = !c->compat && place->iteration == c->iters;
    const bool full = place->iteration % c->grad_accumulation_steps == 0;
    if (place->pending && (full || last)) good = update(trainer, err);
    place->window_steps++;
    place->window_seconds += base_now() - began;
    return good;
}

/* ---- reports
 * -------------------------------------------------------------------------------------- */

static bool report(Trainer *trainer, Error *err) {
    const TuneConfig *c = trainer->config;
    TunePlace *place = &trainer->place;
    if (place->iteration % c->steps_per_report != 0 && place->iteration != c->iters) return true;
    const double seconds = place->window_seconds;
    const TuneReport made = {.kind = TUNE_REPORT_TRAIN,
                             .iteration = place->iteration,
                             .loss = place->window_loss / place->window_weight,
                             .accuracy = place->window_won / place->window_weight,
                             .pairs = pairs(trainer->run),
                             .learning_rate = (double)tune_optimizer_rate(trainer->run->optimizer),
                             .norm = place->last_norm,
                             .seconds = seconds,
                             .tokens_per_second = seconds > 0 ? place->window_tokens / seconds : 0,
                             .iterations_per_second =
                                 seconds > 0 ? place->window_steps / seconds : 0,
                             .trained_tokens = place->trained_tokens,
                             .peak_memory = peak_memory()};
    place->window_loss = place->window_weight = place->window_tokens = place->window_seconds = 0;
    place->window_steps = 0;
    place->window_won = 0;
    return tell(trainer, &made, err);
}

/* ---- the loop
 * --------------------------------------------------------------------------------------- */

static bool run_loop(Trainer *trainer, Error *err) {
    const TuneConfig *c = trainer->config;
    TunePlace *place = &trainer->place;
    while (!place->stopped) {
        if (place->iteration < c->iters && !tune_batches_begin(trainer->run->batches, err))
            return false;
        if (!validate(trainer, err)) return false;
        if (place->stopped || place->iteration >= c->iters) break;
        show_progress(trainer->listener, "train", place->iteration, c->iters);
        if (interrupted(err) || !step(trainer, err) || !report(trainer, err)) return false;
        if (place->iteration % c->save_every == 0 && !save_checkpoint(trainer, err)) return false;
    }
    show_progress(trainer->listener, "train", place->iteration, c->iters);
    return save_end(trainer, err);
}

static bool begin(Trainer *trainer, bool resume, Error *err) {
    trainer->place = (TunePlace){.validated = -1, .best_iteration = -1};
    trainer->sums = base_calloc(trainer->count + 1, sizeof *trainer->sums);
    if (resume) {
        char *file = base_path_join(trainer->folder, TUNE_STATE_FILE);
        const bool good = tune_state_load(file, trainer->run, &trainer->place, trainer->sums, err);
        free(file);
        if (!good) return false;
    }
    trainer->metrics = tune_metrics_open(trainer->folder, trainer->place.metrics,
                                         trainer->place.iteration, trainer->config->report_to, err);
    return trainer->metrics != NULL;
}

bool tune_train(TuneRun *run, const json_t *settings, bool resume, const TuneListener *listener,
                Error *err) {
    Trainer trainer = {.run = run,
                       .config = run->config,
                       .settings = settings,
                       .listener = listener,
                       .folder = run->config->adapter_path,
                       .count = tune_model_count(run->model)};
    bool good = begin(&trainer, resume, err);
    if (good) {
        good = run_loop(&trainer, err);
        if (!good && err->code != ERROR_IO) save_what_is_done(&trainer);
    }
    for (size_t i = 0; i < trainer.count; i++) mx_free(&trainer.sums[i]);
    free(trainer.sums);
    tune_metrics_close(trainer.metrics);
    return good;
}
