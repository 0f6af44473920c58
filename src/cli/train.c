/* train, and lora under mlx_lm's name: from settings to a run. An option that names a
 * setting of training goes into the settings as it is called there, dashes as
 * underscores; the others are the command's own. */
#include "cli/train.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hub/remote.h"
#include "tune/config.h"
#include "tune/state.h"
#include "tune/yaml.h"

typedef struct TrainArguments {
    /* settings */
    const char *model, *data, *fine_tune_type, *optimizer, *adapter_path, *resume_adapter_file;
    const char *report_to, *project_name, *loss, *compat, *dtype, *schedule, *clear_cache_threshold;
    const char *prompt_feature, *completion_feature, *chat_feature, *text_feature;
    OptionInt num_layers, batch_size, iters, val_batches, steps_per_report, steps_per_eval;
    OptionInt grad_accumulation_steps, save_every, test_batches, max_seq_length, seed, patience;
    OptionInt rank, warmup, lr_decay_steps;
    OptionReal learning_rate, epochs, min_delta, max_grad_norm, beta, scale, dropout, weight_decay;
    OptionReal warmup_init, lr_end, lr_decay_rate;
    OptionList keys;
    bool train, test, mask_prompt, grad_checkpoint, trust_remote_code, no_shuffle, pack;
    bool every_turn, save_best, save_peft, rslora;
    /* the command's own */
    const char *config, *console;
    bool resume, dry_run, quiet, json;
} TrainArguments;
#define ARGUMENTS TrainArguments

static const Option option_table[] = {
    OPTION("model", NULL, TEXT, model, NULL, "MODEL", "folder or hub id of the base"),
    OPTION("data", NULL, TEXT, data, NULL, "PATH",
           "folder of train.jsonl, valid.jsonl, test.jsonl, or a .jsonl file"),
    OPTION("adapter-path", NULL, TEXT, adapter_path, NULL, "DIR",
           "where the adapter goes, or for --test alone comes from (adapters)"),
    OPTION("config", "c", TEXT, config, NULL, "FILE", "YAML file of settings, as mlx_lm's"),
    OPTION("train", NULL, FLAG, train, NULL, NULL, "train; what train does unless --test is given"),
    OPTION("test", NULL, FLAG, test, NULL, NULL, "measure the loss on the test split"),
    OPTION_CHOICE("fine-tune-type", fine_tune_type, NULL, "lora|dora|full",
                  "adapter, adapter with magnitudes, or whole blocks (lora)"),
    OPTION_CHOICE("optimizer", optimizer, NULL, "adam|adamw|muon|sgd|adafactor|lion",
                  "rule of the updates (adam)"),
    OPTION("mask-prompt", NULL, FLAG, mask_prompt, NULL, NULL,
           "only the completion, or the last message, counts"),
    OPTION("every-turn", NULL, FLAG, every_turn, NULL, NULL,
           "all that the assistant says counts, and nothing else"),
    OPTION("num-layers", NULL, INT, num_layers, NULL, "N",
           "train the last N blocks; -1: all (16, or all there are)"),
    OPTION("batch-size", NULL, INT, batch_size, NULL, "N", "rows of a step (4)"),
    OPTION("iters", NULL, INT, iters, NULL, "N", "steps (1000)"),
    OPTION("epochs", NULL, REAL, epochs, NULL, "X", "passes over the data, in place of iters"),
    OPTION("val-batches", NULL, INT, val_batches, NULL, "N",
           "batches of a validation; -1: all, 0: none (25)"),
    OPTION("learning-rate", NULL, REAL, learning_rate, NULL, "X", "of Adam, say (1e-5)"),
    OPTION_CHOICE("schedule", schedule, NULL, "constant|cosine|linear|exponential|step",
                  "how the learning rate changes over the run"),
    OPTION("warmup", NULL, INT, warmup, NULL, "N", "updates until the full learning rate"),
    OPTION("warmup-init", NULL, REAL, warmup_init, NULL, "X", "learning rate they begin with (0)"),
    OPTION("lr-end", NULL, REAL, lr_end, NULL, "X", "where cosine and linear end (0)"),
    OPTION("lr-decay-rate", NULL, REAL, lr_decay_rate, NULL, "X",
           "factor of exponential and step (0.5)"),
    OPTION("lr-decay-steps", NULL, INT, lr_decay_steps, NULL, "N",
           "updates that a schedule takes; absent: all"),
    OPTION("weight-decay", NULL, REAL, weight_decay, NULL, "X", "of the optimizer"),
    OPTION("max-grad-norm", NULL, REAL, max_grad_norm, NULL, "X",
           "longer gradients are shortened to X; 0: never (-1: only spikes)"),
    OPTION("grad-accumulation-steps", NULL, INT, grad_accumulation_steps, NULL, "N",
           "steps whose gradients become one update (1)"),
    OPTION("grad-checkpoint", NULL, FLAG, grad_checkpoint, NULL, NULL,
           "less memory, a third more time"),
    OPTION("max-seq-length", NULL, INT, max_seq_length, NULL, "N",
           "tokens of a row; more are cut (2048)"),
    OPTION("pack", NULL, FLAG, pack, NULL, NULL,
           "several records in a row, none of which sees another"),
    OPTION("no-shuffle", NULL, FLAG, no_shuffle, NULL, NULL,
           "rows in the order of the file, batch after batch"),
    OPTION("rank", NULL, INT, rank, NULL, "N", "of the adapter (8)"),
    OPTION("scale", NULL, REAL, scale, NULL, "X", "of the adapter; PEFT's alpha / rank (20)"),
    OPTION("dropout", NULL, REAL, dropout, NULL, "P", "of the adapter's inputs (0)"),
    OPTION("keys", NULL, LIST, keys, NULL, "MODULE",
           "modules that get an adapter, as self_attn.q_proj (every linear layer)"),
    OPTION("rslora", NULL, FLAG, rslora, NULL, NULL,
           "the scale counts as alpha / rank and becomes alpha / sqrt(rank)"),
    OPTION_CHOICE("loss", loss, NULL, "tokens|dpo|orpo",
                  "tokens, or preferences: rows of prompt, chosen, rejected (tokens)"),
    OPTION("beta", NULL, REAL, beta, NULL, "X", "of DPO; lambda of ORPO (0.1)"),
    OPTION("resume", NULL, FLAG, resume, NULL, NULL,
           "go on where the run in --adapter-path was stopped or killed"),
    OPTION("resume-adapter-file", NULL, TEXT, resume_adapter_file, NULL, "FILE",
           "begin with this adapter, of mlx_lm or PEFT; rank, scale and modules come with it"),
    OPTION("steps-per-report", NULL, INT, steps_per_report, NULL, "N", "steps of a report (10)"),
    OPTION("steps-per-eval", NULL, INT, steps_per_eval, NULL, "N", "steps of a validation (200)"),
    OPTION("save-every", NULL, INT, save_every, NULL, "N", "steps of a checkpoint (100)"),
    OPTION("save-best", NULL, FLAG, save_best, NULL, NULL,
           "keep best_adapters.safetensors, by validation loss"),
    OPTION("save-peft", NULL, FLAG, save_peft, NULL, NULL, "write the adapter for PEFT too"),
    OPTION("patience", NULL, INT, patience, NULL, "N",
           "end after N validations that are no better; 0: never"),
    OPTION("min-delta", NULL, REAL, min_delta, NULL, "X", "less than X better is no better"),
    OPTION("test-batches", NULL, INT, test_batches, NULL, "N", "batches of --test; -1: all (500)"),
    OPTION("seed", NULL, INT, seed, NULL, "N", "of the adapter, dropout and order (0)"),
    OPTION_CHOICE("dtype", dtype, NULL, "float32|float16|bfloat16",
                  "what is computed in (float32; with --compat the model's)"),
    OPTION_CHOICE("compat", compat, NULL, "mlx-lm",
                  "batches, loss and validation exactly as mlx_lm has them"),
    OPTION("prompt-feature", NULL, TEXT, prompt_feature, NULL, "KEY", "in place of prompt"),
    OPTION("completion-feature", NULL, TEXT, completion_feature, NULL, "KEY",
           "in place of completion"),
    OPTION("chat-feature", NULL, TEXT, chat_feature, NULL, "KEY", "in place of messages"),
    OPTION("text-feature", NULL, TEXT, text_feature, NULL, "KEY", "in place of text"),
    OPTION("report-to", NULL, TEXT, report_to, NULL, "NAME", "tensorboard: event files too"),
    OPTION("project-name", NULL, TEXT, project_name, NULL, "NAME", "kept in the settings"),
    OPTION("clear-cache-threshold", NULL, TEXT, clear_cache_threshold, NULL, "SIZE",
           "accepted for mlx_lm; nothing is kept that could be cleared"),
    TRUST_OPTION(trust_remote_code),
    OPTION_CHOICE("console", console, NULL, "table|lines",
                  "how progress looks; absent: a table on a terminal, lines elsewhere"),
    OPTION("dry-run", NULL, FLAG, dry_run, NULL, NULL,
           "show parameters, memory and time, and write nothing"),
    OPTION("quiet", NULL, FLAG, quiet, NULL, NULL, "no progress"),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "a JSON object for each report"),
};
#undef ARGUMENTS

/* ---- settings ----------------------------------------------------------------------------- */

static bool is_own(const char *name) {
    static const char *const own[] = {"config", "console", "resume", "dry-run", "quiet", "json"};
    for (size_t i = 0; i < BASE_COUNT(own); i++)
        if (strcmp(own[i], name) == 0) return true;
    return false;
}

/* What the person gave with an option; NULL: nothing. */
static json_t *given_value(const Option *option, const char *field) {
    const OptionInt *integer = (const void *)field;
    const OptionReal *real = (const void *)field;
    const OptionList *list = (const void *)field;
    const char *const *text = (const void *)field;
    json_t *items;
    switch (option->type) {
    case OPTION_FLAG: return *(const bool *)(const void *)field ? json_true() : NULL;
    case OPTION_INT: return integer->given ? json_integer(integer->value) : NULL;
    case OPTION_REAL: return real->given ? json_real(real->value) : NULL;
    case OPTION_LIST:
        if (list->count == 0) return NULL;
        items = json_array();
        for (size_t i = 0; i < list->count; i++)
            json_array_append_new(items, json_string(list->items[i]));
        return items;
    default: return *text ? json_string(*text) : NULL;
    }
}

static json_t *flags_of(const TrainArguments *arguments) {
    json_t *flags = json_object();
    for (size_t i = 0; i < BASE_COUNT(option_table); i++) {
        const Option *option = &option_table[i];
        if (is_own(option->name)) continue;
        json_t *value = given_value(option, (const char *)arguments + option->field);
        if (!value) continue;
        char *key = base_strdup(option->name);
        for (char *at = key; *at; at++)
            if (*at == '-') *at = '_';
        json_object_set_new(flags, key, value);
        free(key);
    }
    return flags;
}

typedef struct Layers {
    json_t *flags, *file, *saved;
    bool resuming;
} Layers;

static bool read_file_layer(const TrainArguments *arguments, Layers *layers, Error *err) {
    if (!arguments->config) return true;
    layers->file = tune_yaml_load(arguments->config, err);
    if (!layers->file) return false;
    if (json_is_null(layers->file)) {
        json_decref(layers->file);
        layers->file = json_object();
    }
    json_object_set_new(layers->flags, "config", json_string(arguments->config));
    return json_is_object(layers->file) ||
           base_fail(err, ERROR_INPUT, "%s: not a mapping of settings", arguments->config);
}

/* The folder's state, when there is one to go on from. */
static bool read_saved_layer(const TrainArguments *arguments, Layers *layers, Error *err) {
    const char *folder = json_string_value(json_object_get(layers->flags, "adapter_path"));
    if (!folder) folder = json_string_value(json_object_get(layers->file, "adapter_path"));
    char *state = base_path_join(folder ? folder : "adapters", TUNE_STATE_FILE);
    const bool there = base_is_file(state);
    if (there && arguments->resume) layers->saved = tune_state_settings(state, err);
    layers->resuming = layers->saved != NULL;
    free(state);
    return layers->resuming || !there || !arguments->resume;
}

static bool read_layers(const TrainArguments *arguments, bool trains, Layers *layers, Error *err) {
    *layers = (Layers){.flags = flags_of(arguments)};
    if (!read_file_layer(arguments, layers, err) || !read_saved_layer(arguments, layers, err))
        return false;
    if (trains && !arguments->test && !json_is_true(json_object_get(layers->file, "test")))
        json_object_set_new(layers->flags, "train", json_true());
    return true;
}

static void free_layers(Layers *layers) {
    json_decref(layers->flags);
    json_decref(layers->file);
    json_decref(layers->saved);
}

/* ---- running -----------------------------------------------------------------------------------
 */

static bool check_report_to(const TuneConfig *config, Error *err) {
    if (!config->report_to) return true;
    char *names = base_strdup(config->report_to), *rest = names;
    bool good = true;
    for (char *name; good && (name = strtok_r(rest, ", ", &rest)) != NULL;) {
        if (strcmp(name, "tensorboard") == 0) continue;
        good =
            base_fail(err, ERROR_UNSUPPORTED, "report-to: there is no %s, only tensorboard", name);
        base_hint(err, "metrics.jsonl in the adapter's folder has every measurement");
    }
    free(names);
    return good;
}

/* The base is not written down as the folder that its id became. */
static bool save_settings(const TuneConfig *config, json_t *record, Error *err) {
    char *file = base_path_join(config->adapter_path, "adapter_config.json");
    const bool good =
        base_make_dirs(config->adapter_path, err) && base_json_save(file, record, err);
    free(file);
    return good;
}

static json_t *record_of(TuneRun *run) {
    json_t *record = tune_config_record(run->config);
    json_object_set_new(record, "lora_parameters", tune_model_parameters(run->model));
    return record;
}

static bool check_same(const json_t *saved, const json_t *now, const char *folder, Error *err) {
    const char *key = tune_config_differs(saved, now);
    if (!key) return true;
    base_fail(err, ERROR_INPUT, "%s: the run that is resumed had another %s", folder, key);
    return base_hint(err, "Leave the option out, or train into another --adapter-path");
}

static bool train(TuneRun *run, const Layers *layers, TrainShow *show, Error *err) {
    const TuneConfig *c = run->config;
    json_t *record = record_of(run);
    bool good = tune_run_fits(run, err) &&
                (!layers->resuming || check_same(layers->saved, record, c->adapter_path, err)) &&
                save_settings(c, record, err);
    if (good) {
        train_introduce(show, run);
        const TuneListener listener = train_listener(show);
        good = tune_train(run, record, layers->resuming, &listener, err);
        base_progress_clear(&show->progress);
        if (!good && err->code == ERROR_INTERRUPTED)
            base_hint(err, "What was trained is in %s; --resume goes on", c->adapter_path);
    }
    json_decref(record);
    return good;
}

static bool test(TuneRun *run, TrainShow *show, Error *err) {
    if (!run->test) return true;
    train_says(show, "Testing");
    show->config = run->config;
    const TuneListener listener = train_listener(show);
    const bool good = tune_test(run, &listener, err);
    base_progress_clear(&show->progress);
    return good;
}

static TrainShow show_of(const TrainArguments *arguments) {
    TrainShow show = {.quiet = arguments->quiet, .style = SHOW_LINES};
    if (arguments->console ? strcmp(arguments->console, "table") == 0 : isatty(STDOUT_FILENO))
        show.style = SHOW_TABLE;
    if (arguments->json) show.style = SHOW_JSON;
    return show;
}

static bool run_with(const TrainArguments *arguments, TuneConfig *config, const Layers *layers,
                     Error *err) {
    TrainShow show = show_of(arguments);
    if (!check_report_to(config, err)) return false;
    train_says(&show, "Loading pretrained model");
    char *folder = hub_find(config->model, err);
    if (!folder) return false;
    const TuneRunOptions options = {.model = folder,
                                    .resuming = layers->resuming,
                                    .quiet = arguments->quiet,
                                    .json = arguments->json};
    TuneRun run;
    train_says(&show, "Loading datasets");
    bool good = tune_run_open(&run, config, &options, err);
    free(folder);
    if (!good) return false;
    if (arguments->dry_run)
        good = config->train ? train_dry_run(&show, &run, err) : true;
    else
        good = (!config->train || train(&run, layers, &show, err)) && test(&run, &show, err);
    tune_run_close(&run);
    return good;
}

static int run_command(const TrainArguments *arguments, bool trains, Error *err) {
    Layers layers;
    TuneConfig config;
    bool good = read_layers(arguments, trains, &layers, err);
    if (good && arguments->resume && !layers.resuming && !arguments->quiet)
        base_log(LOG_WARNING, "there is no run to resume; a new one begins");
    const TuneConfigLayers all = {.flags = layers.flags,
                                  .file = layers.file,
                                  .saved = layers.saved,
                                  .file_name = arguments->config};
    good = good && tune_config_make(&all, &config, err);
    if (good) {
        good = run_with(arguments, &config, &layers, err);
        tune_config_free(&config);
    }
    free_layers(&layers);
    return good ? 0 : 1;
}

static int run_train(const void *arguments, Error *err) {
    return run_command(arguments, true, err);
}

static int run_lora(const void *arguments, Error *err) {
    return run_command(arguments, false, err);
}

const Command train_command = {
    .name = "train",
    .summary = "Fine-tunes a model on your data: LoRA, QLoRA, DoRA or whole blocks.",
    .details = "Settings come from options, else from the YAML file, else are mlx_lm's.\n"
               "The adapter's folder is one that mlx_lm loads; metrics.jsonl and the state that\n"
               "--resume needs stand beside the weights.",
    OPTIONS(option_table),
    .arguments_size = sizeof(TrainArguments),
    .run = run_train};

const Command lora_command = {.name = "lora",
                              .summary = "The same under mlx_lm's name; needs --train or --test.",
                              OPTIONS(option_table),
                              .arguments_size = sizeof(TrainArguments),
                              .run = run_lora};
