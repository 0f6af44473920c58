/* Assembly: settings to objects, in the order in which mlx_lm draws its random numbers. */
#include "tune/run.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tune/adopt.h"
#include "tune/internal.h"

static bool pairs(const TuneRun *run) {
    return run->step.loss != TUNE_LOSS_TOKENS;
}

/* ---- data -------------------------------------------------------------------------------- */

static const char *text_of(const json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

/* An entry of hf_dataset, or the settings themselves, as a source of a split. */
static TuneSource source_of(const json_t *entry, const char *path, const char *split) {
    return (TuneSource){.path = path,
                        .split = split,
                        .prompt_feature = text_of(entry, "prompt_feature"),
                        .completion_feature = text_of(entry, "completion_feature"),
                        .chat_feature = text_of(entry, "chat_feature"),
                        .text_feature = text_of(entry, "text_feature")};
}

typedef struct Sources {
    TuneSource *items;
    size_t count;
} Sources;

static bool add_listed(Sources *sources, const json_t *entry, const char *split, Error *err) {
    static const struct {
        const char *split, *key, *fallback;
    } keys[] = {{"train", "train_split", "train[:80%]"},
                {"valid", "valid_split", "train[-10%:]"},
                {"test", "test_split", NULL}};
    const char *path = text_of(entry, "path");
    if (!path) return base_fail(err, ERROR_INPUT, "hf_dataset: an entry has no path");
    for (size_t i = 0; i < BASE_COUNT(keys); i++) {
        if (strcmp(keys[i].split, split) != 0) continue;
        const char *wanted = text_of(entry, keys[i].key);
        if (!wanted) wanted = keys[i].fallback;
        if (!wanted)
            return base_fail(err, ERROR_INPUT, "hf_dataset: %s has no test_split to test on", path);
        sources->items[sources->count++] = source_of(entry, path, wanted);
    }
    return true;
}

/* Where the rows of a split are. A data file is the split that is worked on. */
static bool find_sources(const TuneConfig *c, const char *split, Sources *sources, Error *err) {
    const json_t *listed = c->hf_dataset;
    const size_t entries = json_is_array(listed) ? json_array_size(listed) : 1;
    sources->items = base_calloc(entries + 1, sizeof *sources->items);
    if (!listed) {
        const bool file = base_is_file(c->data);
        if (file && strcmp(split, c->train ? "train" : "test") != 0) return true;
        sources->items[sources->count++] = source_of(c->values, c->data, split);
        return true;
    }
    if (json_is_object(listed)) return add_listed(sources, listed, split, err);
    for (size_t i = 0; i < entries; i++)
        if (!add_listed(sources, json_array_get(listed, i), split, err)) return false;
    return true;
}

static bool check_path(const char *path, Error *err) {
    if (base_is_file(path) || base_is_dir(path)) return true;
    base_fail(err, ERROR_INPUT, "%s: there is no such data file or folder", path);
    return base_hint(err, "--data takes a folder of train.jsonl, valid.jsonl and test.jsonl, or a "
                          ".jsonl file; data sets of a hub must be on this machine");
}

/* *data stays NULL when the split has no rows. */
static bool open_split(const TuneRun *run, const char *split, const TuneRunOptions *how,
                       LmModel *lm, TuneData **data, Error *err) {
    const TuneConfig *c = run->config;
    Sources sources = {0};
    bool good = find_sources(c, split, &sources, err);
    for (size_t i = 0; i < sources.count && good; i++)
        good = check_path(sources.items[i].path, err);
    if (good && sources.count) {
        const TuneDataOptions options = {.sources = sources.items,
                                         .n_sources = sources.count,
                                         .split = split,
                                         .mask_prompt = c->mask_prompt,
                                         .every_turn = c->every_turn,
                                         .pairs = pairs(run),
                                         .quiet = how->quiet,
                                         .json = how->json};
        *data = tune_data_open(&options, lm, err);
        good = *data != NULL;
    }
    free(sources.items);
    if (!good || !*data || tune_data_count(*data) > 0) return good;
    tune_data_free(*data);
    *data = NULL;
    return true;
}

static bool open_data(TuneRun *run, const TuneRunOptions *how, LmModel *lm, Error *err) {
    const TuneConfig *c = run->config;
    if (c->train && (!open_split(run, "train", how, lm, &run->train, err) ||
                     !open_split(run, "valid", how, lm, &run->valid, err)))
        return false;
    if (c->test && !open_split(run, "test", how, lm, &run->test, err)) return false;
    if (c->train && !run->train)
        return base_fail(err, ERROR_INPUT,
                         "%s: Training set not found or empty. Must provide training set for "
                         "fine-tuning.",
                         c->data);
    if (c->test && !run->test)
        return base_fail(err, ERROR_INPUT,
                         "%s: Test set not found or empty. Must provide test set for evaluation.",
                         c->data);
    return true;
}

/* ---- batches ------------------------------------------------------------------------------- */

static TuneBatchOptions batch_options(TuneRun *run) {
    const TuneConfig *c = run->config;
    return (TuneBatchOptions){.batch_size = c->batch_size,
                              .max_seq_length = c->max_seq_length,
                              .order = c->no_shuffle ? TUNE_ORDER_FILE
                                       : c->compat   ? TUNE_ORDER_COMPAT
                                                     : TUNE_ORDER_SORTED,
                              .seed = (uint64_t)c->seed,
                              .pack = c->pack,
                              .pairs = pairs(run),
                              .pad_target = c->compat,
                              .random = &run->random};
}

TuneBatches *tune_run_split(TuneRun *run, TuneData *data, Error *err) {
    TuneBatchOptions options = batch_options(run);
    options.once = true;
    return tune_batches_new(data, &options, err);
}

/* mlx_lm finds that out in the middle of a run. */
static bool check_split(TuneRun *run, TuneData *data, const char *name, Error *err) {
    if (!data) return true;
    const MersenneTwister before = run->random;
    TuneBatches *batches = tune_run_split(run, data, err);
    tune_batches_free(batches);
    run->random = before;
    return batches || base_error_context(err, "%s", name);
}

static bool measure_rows(TuneRun *run, Error *err) {
    const int most = run->config->max_seq_length;
    if (!tune_data_tokenise(run->train, err)) return false;
    run->widest = run->config->pack ? most : 2;
    for (size_t i = 0; i < tune_data_count(run->train) && run->widest < most; i++)
        for (int half = 0; half < (pairs(run) ? 2 : 1); half++) {
            TuneRow row;
            if (!tune_data_row(run->train, i, half == 1, &row, err)) return false;
            run->widest = BASE_MIN(BASE_MAX(run->widest, row.length), most);
        }
    return true;
}

static bool open_batches(TuneRun *run, Error *err) {
    TuneBatchOptions options = batch_options(run);
    if (run->train) {
        run->batches = tune_batches_new(run->train, &options, err);
        if (!run->batches) return base_error_context(err, "train");
        if (!measure_rows(run, err)) return false;
    }
    return check_split(run, run->config->val_batches ? run->valid : NULL, "valid", err) &&
           check_split(run, run->test, "test", err);
}

/* ---- adapter ----------------------------------------------------------------------------------
 */

static bool set(TuneRun *run, const char *key, json_t *value, Error *err) {
    return tune_config_set(run->config, key, value, err);
}

/* What nobody said and the adapter to begin from knows. */
static bool take_over(TuneRun *run, const TuneAdopted *adopted, Error *err) {
    TuneConfig *c = run->config;
    json_t *parameters = json_deep_copy(c->lora_parameters);
    const bool free_layers =
        !c->num_layers_given || c->num_layers <= 0 || c->num_layers == adopted->num_layers;
    if (!c->rank_given && adopted->rank) {
        json_object_set_new(parameters, "rank", json_integer(adopted->rank));
        if (adopted->ranks) json_object_set(parameters, "ranks", adopted->ranks);
    }
    if (!c->scale_given && adopted->scale != 0)
        json_object_set_new(parameters, "scale", json_real(adopted->scale));
    if (!c->keys_given && adopted->rank && free_layers) {
        json_object_set(parameters, "keys", adopted->keys);
        const int layers = adopted->num_layers ? adopted->num_layers : -1;
        if (!set(run, "num_layers", json_integer(layers), err)) {
            json_decref(parameters);
            return false;
        }
        c->num_layers_given = true;
    }
    return set(run, "lora_parameters", parameters, err) &&
           set(run, "rank", json_incref(json_object_get(parameters, "rank")), err) &&
           set(run, "scale", json_incref(json_object_get(parameters, "scale")), err) &&
           set(run, "keys",
               json_object_get(parameters, "keys")
                   ? json_incref(json_object_get(parameters, "keys"))
                   : json_null(),
               err);
}

static bool adopt(TuneRun *run, int blocks, Error *err) {
    const TuneConfig *c = run->config;
    TuneAdopted adopted;
    if (!tune_adopt(c->resume_adapter_file, blocks, &adopted, err))
        return base_error_context(err, "resume-adapter-file");
    const bool wanted = adopted.peft || !c->compat;
    const bool good = !wanted || take_over(run, &adopted, err);
    tune_adopted_free(&adopted);
    return good;
}

static TuneKind kind_of(const char *name) {
    static const char *const names[] = {
        [TUNE_LORA] = "lora", [TUNE_DORA] = "dora", [TUNE_FULL] = "full"};
    size_t kind = 0;
    while (kind + 1 < BASE_COUNT(names) && strcmp(names[kind], name) != 0) kind++;
    return (TuneKind)kind;
}

static bool read_adapter(TuneRun *run, const TuneRunOptions *how, int blocks, Error *err) {
    TuneConfig *c = run->config;
    const TuneKind kind = kind_of(c->fine_tune_type);
    if (c->resume_adapter_file && kind != TUNE_FULL && !how->resuming && !adopt(run, blocks, err))
        return false;
    if (!c->num_layers_given && !c->compat && c->num_layers > blocks &&
        !set(run, "num_layers", json_integer(blocks), err))
        return false;
    const size_t n_keys = json_array_size(c->keys);
    run->keys = base_calloc(n_keys + 1, sizeof *run->keys);
    for (size_t i = 0; i < n_keys; i++)
        run->keys[i] = json_string_value(json_array_get(c->keys, i));
    run->adapter = (TuneAdapterOptions){.kind = kind,
                                        .num_layers = c->num_layers,
                                        .rank = c->rank,
                                        .scale = (float)c->scale,
                                        .dropout = (float)c->dropout,
                                        .keys = run->keys,
                                        .n_keys = n_keys,
                                        .rank_stabilised = c->rslora,
                                        .ranks = json_object_get(c->lora_parameters, "ranks"),
                                        .seed = (uint64_t)c->seed,
                                        .compat = c->compat};
    return true;
}

static bool open_model(TuneRun *run, const TuneRunOptions *how, LmModel *lm, Error *err) {
    const TuneConfig *c = run->config;
    if (!c->train) {
        run->model = tune_model_new(lm, NULL, NULL, err);
        return run->model != NULL;
    }
    if (!read_adapter(run, how, model_decoder_blocks(lm->decoder), err)) {
        lm_model_close(lm);
        return false;
    }
    run->model = tune_model_new(lm,
                                c->dtype    ? c->dtype
                                : c->compat ? NULL
                                            : "float32",
                                &run->adapter, err);
    if (!run->model || (c->save_peft && !tune_model_can_be_peft(run->model, err))) return false;
    if (!c->resume_adapter_file || how->resuming) return true;
    return tune_model_load_adapter(run->model, c->resume_adapter_file, !c->compat, err) ||
           base_error_context(err, "resume-adapter-file");
}

/* ---- the whole ------------------------------------------------------------------------------- */

static TuneLossKind loss_kind(const char *name) {
    return strcmp(name, "dpo") == 0    ? TUNE_LOSS_DPO
           : strcmp(name, "orpo") == 0 ? TUNE_LOSS_ORPO
                                       : TUNE_LOSS_TOKENS;
}

static bool open_optimizer(TuneRun *run, Error *err) {
    TuneSchedule schedule;
    const TuneConfig *c = run->config;
    if (!tune_config_schedule(c, &schedule, err)) return false;
    run->optimizer = tune_optimizer_new(c->optimizer, tune_config_optimizer(c), &schedule,
                                        tune_model_count(run->model), err);
    return run->optimizer != NULL;
}

/* A test alone looks at the adapter that is there; "" is the base. */
static LmModel *open_base(const TuneConfig *c, const TuneRunOptions *how, Error *err) {
    LmOpenOptions open = {.dtype = c->dtype ? c->dtype : c->compat ? NULL : "float32"};
    if (!c->train && c->adapter_path[0] != '\0') {
        open.adapter_path = c->adapter_path;
        if (!base_is_dir(c->adapter_path)) {
            base_fail(err, ERROR_INPUT, "The adapter path does not exist: %s", c->adapter_path);
            base_hint(err, "--adapter-path \"\" tests the base model");
            return NULL;
        }
    }
    return lm_model_open(how->model, &open, err);
}

static bool open_all(TuneRun *run, const TuneRunOptions *how, Error *err) {
    TuneConfig *c = run->config;
    LmModel *lm = open_base(c, how, err);
    if (!lm) return false;
    base_mersenne_numpy(&run->random, (uint32_t)c->seed);
    const int context = lm_model_context(lm);
    if (context > 0 && c->max_seq_length > context && !c->compat)
        (void)set(run, "max_seq_length", json_integer(context), err);
    if (!open_data(run, how, lm, err)) {
        lm_model_close(lm);
        return false;
    }
    return open_model(run, how, lm, err) && open_batches(run, err) &&
           tune_config_settle(c, run->batches ? tune_batches_per_epoch(run->batches) : 0, err) &&
           (!run->train || open_optimizer(run, err));
}

bool tune_run_open(TuneRun *run, TuneConfig *config, const TuneRunOptions *options, Error *err) {
    *run = (TuneRun){.config = config,
                     .step = {.loss = loss_kind(config->loss),
                              .checkpoint = config->grad_checkpoint,
                              .compat = config->compat,
                              .beta = (float)config->beta}};
    if (open_all(run, options, err)) return true;
    tune_run_close(run);
    return false;
}

void tune_run_close(TuneRun *run) {
    tune_optimizer_free(run->optimizer);
    tune_batches_free(run->batches);
    tune_data_free(run->train);
    tune_data_free(run->valid);
    tune_data_free(run->test);
    tune_model_close(run->model);
    free(run->keys);
    *run = (TuneRun){0};
}

/* ---- memory ------------------------------------------------------------------------------------
 */

/* Numbers that a block keeps for its gradient, a token: about so many widths of the
 * model and of its feed-forward layer. */
enum { KEPT_WIDTHS = 14, KEPT_INNER = 4, HEAD_BYTES = 256 << 20 };

static int64_t config_size(const json_t *config, const char *key, int64_t otherwise) {
    const json_t *value = json_object_get(config, key);
    if (!value) value = json_object_get(json_object_get(config, "text_config"), key);
    return json_is_integer(value) && json_integer_value(value) > 0 ? json_integer_value(value)
                                                                   : otherwise;
}

static uint64_t trained_bytes(const TuneRun *run) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < tune_model_count(run->model); i++) {
        mlx_array value = tune_model_value(run->model, i);
        bytes += 2 * mlx_array_nbytes(value);
        if (run->optimizer) bytes += tune_optimizer_state_bytes(run->optimizer, value);
    }
    return bytes;
}

/* Dense weights are held anew when they are computed in another dtype. */
static uint64_t weight_bytes(const TuneRun *run) {
    const LmModel *lm = run->model->lm;
    const TuneConfig *c = run->config;
    const bool packed = json_object_get(lm_model_config(lm), "quantization") != NULL;
    if (packed || (c->compat && !c->dtype)) return lm->bytes;
    const uint64_t each = c->dtype && strcmp(c->dtype, "float32") != 0 ? 2 : 4;
    return BASE_MAX((uint64_t)lm->bytes, each * lm->parameters);
}

TuneMemory tune_run_memory(const TuneRun *run) {
    const TuneConfig *c = run->config;
    const json_t *config = lm_model_config(run->model->lm);
    const int blocks = model_decoder_blocks(run->model->lm->decoder);
    const int64_t width = config_size(config, "hidden_size", 2048),
                  inner = config_size(config, "intermediate_size", 4 * width);
    const uint64_t tokens = (uint64_t)c->batch_size * (uint64_t)run->widest * (pairs(run) ? 2 : 1);
    const uint64_t whole = (uint64_t)(KEPT_WIDTHS * width + KEPT_INNER * inner) * 4,
                   input = (uint64_t)width * 4;
    const uint64_t trained = (uint64_t)(blocks - run->model->first_block);
    const uint64_t kept = c->grad_checkpoint ? trained * input + whole : trained * whole;
    TuneMemory memory = {.weights = weight_bytes(run),
                         .trained = trained_bytes(run),
                         .activations = tokens * (kept + 4 * input) + HEAD_BYTES};
    memory.total = memory.weights + memory.trained + memory.activations;
    const long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    if (pages > 0 && size > 0) memory.machine = (uint64_t)pages * (uint64_t)size;
    return memory;
}

bool tune_run_fits(const TuneRun *run, Error *err) {
    const TuneMemory memory = tune_run_memory(run);
    if (memory.machine == 0 || memory.total <= memory.machine) return true;
    const TuneConfig *c = run->config;
    base_fail(err, ERROR_MEMORY, "training would need about %s of memory, this machine has %s",
              base_bytes_text(memory.total), base_bytes_text(memory.machine));
    if (memory.activations > memory.total / 2)
        return base_hint(err, "Try --batch-size below %d, --max-seq-length below %d%s",
                         c->batch_size, c->max_seq_length,
                         c->grad_checkpoint ? "" : " or --grad-checkpoint");
    return base_hint(err, "Try a quantised base, %sfewer --num-layers",
                     c->dtype ? "" : "--dtype bfloat16 or ");
}
