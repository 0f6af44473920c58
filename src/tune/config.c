/* Settings of a run: one table of names, kinds, defaults and limits; layers merged over
 * it; shorthands (rank, schedule, epochs) turned into mlx-lm's form. */
#include "tune/config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef enum { KEY_TEXT, KEY_BOOL, KEY_INT, KEY_INT64, KEY_REAL, KEY_OBJECT, KEY_ANY } KeyKind;

/* `fallback` is JSON. MLX: a key of mlx-lm, always written down; OURS: when it differs
 * from the default; BRIEF: a shorthand, never. COURSE: what happens in a run depends on
 * it, so a resumed one must have the same. */
enum { MLX = 1, OURS = 2, BRIEF = 4, COURSE = 8 };

typedef struct Key {
    const char *name;
    KeyKind kind;
    int use;
    const char *fallback;
    size_t member;
    double least, most;
} Key;

#define AT(member_) offsetof(TuneConfig, member_)
static const Key keys[] = {
    {"model", KEY_TEXT, MLX | COURSE, "\"Qwen/Qwen3-0.6b\"", AT(model), 0, 0},
    {"train", KEY_BOOL, MLX, "false", AT(train), 0, 0},
    {"test", KEY_BOOL, MLX, "false", AT(test), 0, 0},
    {"data", KEY_TEXT, MLX | COURSE, "\"mlx-community/WikiSQL\"", AT(data), 0, 0},
    {"fine_tune_type", KEY_TEXT, MLX | COURSE, "\"lora\"", AT(fine_tune_type), 0, 0},
    {"optimizer", KEY_TEXT, MLX | COURSE, "\"adam\"", AT(optimizer), 0, 0},
    {"optimizer_config", KEY_OBJECT, MLX | COURSE,
     "{\"adam\": {}, \"adamw\": {}, \"muon\": {}, \"sgd\": {}, \"adafactor\": {}}",
     AT(optimizer_config), 0, 0},
    {"mask_prompt", KEY_BOOL, MLX | COURSE, "false", AT(mask_prompt), 0, 0},
    {"num_layers", KEY_INT, MLX | COURSE, "16", AT(num_layers), -1e6, 1e6},
    {"batch_size", KEY_INT, MLX | COURSE, "4", AT(batch_size), 1, 1e6},
    {"iters", KEY_INT, MLX, "1000", AT(iters), 0, 1e9},
    {"val_batches", KEY_INT, MLX | COURSE, "25", AT(val_batches), -1, 1e9},
    {"learning_rate", KEY_REAL, MLX | COURSE, "1e-5", AT(learning_rate), 0, 1e6},
    {"steps_per_report", KEY_INT, MLX, "10", AT(steps_per_report), 1, 1e9},
    {"steps_per_eval", KEY_INT, MLX | COURSE, "200", AT(steps_per_eval), 1, 1e9},
    {"grad_accumulation_steps", KEY_INT, MLX | COURSE, "1", AT(grad_accumulation_steps), 1, 1e6},
    {"resume_adapter_file", KEY_TEXT, MLX | COURSE, "null", AT(resume_adapter_file), 0, 0},
    {"adapter_path", KEY_TEXT, MLX, "\"adapters\"", AT(adapter_path), 0, 0},
    {"save_every", KEY_INT, MLX, "100", AT(save_every), 1, 1e9},
    {"test_batches", KEY_INT, MLX, "500", AT(test_batches), -1, 1e9},
    {"max_seq_length", KEY_INT, MLX | COURSE, "2048", AT(max_seq_length), 2, 1 << 24},
    {"config", KEY_ANY, MLX, "null", 0, 0, 0},
    {"grad_checkpoint", KEY_BOOL, MLX, "false", AT(grad_checkpoint), 0, 0},
    {"clear_cache_threshold", KEY_ANY, MLX, "0", 0, 0, 0},
    {"lr_schedule", KEY_OBJECT, MLX | COURSE, "null", AT(lr_schedule), 0, 0},
    {"lora_parameters", KEY_OBJECT, MLX | COURSE,
     "{\"rank\": 8, \"dropout\": 0.0, \"scale\": 20.0}", AT(lora_parameters), 0, 0},
    {"report_to", KEY_TEXT, MLX, "null", AT(report_to), 0, 0},
    {"project_name", KEY_TEXT, MLX, "null", AT(project_name), 0, 0},
    {"seed", KEY_INT64, MLX | COURSE, "0", AT(seed), 0, 9007199254740992.0},
    {"trust_remote_code", KEY_BOOL, MLX, "false", AT(trust_remote_code), 0, 0},

    {"hf_dataset", KEY_ANY, OURS | COURSE, "null", AT(hf_dataset), 0, 0},
    {"prompt_feature", KEY_ANY, OURS | COURSE, "null", 0, 0, 0},
    {"completion_feature", KEY_ANY, OURS | COURSE, "null", 0, 0, 0},
    {"chat_feature", KEY_ANY, OURS | COURSE, "null", 0, 0, 0},
    {"text_feature", KEY_ANY, OURS | COURSE, "null", 0, 0, 0},
    {"compat", KEY_TEXT, OURS | COURSE, "null", AT(compat_with), 0, 0},
    {"dtype", KEY_TEXT, OURS | COURSE, "null", AT(dtype), 0, 0},
    {"no_shuffle", KEY_BOOL, OURS | COURSE, "false", AT(no_shuffle), 0, 0},
    {"pack", KEY_BOOL, OURS | COURSE, "false", AT(pack), 0, 0},
    {"every_turn", KEY_BOOL, OURS | COURSE, "false", AT(every_turn), 0, 0},
    {"loss", KEY_TEXT, OURS | COURSE, "\"tokens\"", AT(loss), 0, 0},
    {"beta", KEY_REAL, OURS | COURSE, "0.1", AT(beta), 1e-9, 1e6},
    {"rslora", KEY_BOOL, OURS | COURSE, "false", AT(rslora), 0, 0},
    {"max_grad_norm", KEY_REAL, OURS | COURSE, "-1", AT(max_grad_norm), -1, 1e30},
    {"epochs", KEY_REAL, OURS, "0", AT(epochs), 0, 1e6},
    {"patience", KEY_INT, OURS | COURSE, "0", AT(patience), 0, 1e6},
    {"min_delta", KEY_REAL, OURS | COURSE, "0", AT(min_delta), 0, 1e6},
    {"save_best", KEY_BOOL, OURS, "false", AT(save_best), 0, 0},
    {"save_peft", KEY_BOOL, OURS, "false", AT(save_peft), 0, 0},

    {"schedule", KEY_TEXT, BRIEF, "null", AT(schedule), 0, 0},
    {"warmup", KEY_INT, BRIEF, "0", AT(warmup), 0, 1e9},
    {"warmup_init", KEY_REAL, BRIEF, "0", AT(warmup_init), 0, 1e6},
    {"lr_end", KEY_REAL, BRIEF, "0", AT(lr_end), 0, 1e6},
    {"lr_decay_rate", KEY_REAL, BRIEF, "0.5", AT(lr_decay_rate), 0, 1e6},
    {"lr_decay_steps", KEY_INT, BRIEF, "0", AT(lr_decay_steps), 0, 1e9},
    {"rank", KEY_INT, BRIEF, "null", AT(rank), 1, 1 << 20},
    {"scale", KEY_REAL, BRIEF, "null", AT(scale), -1e9, 1e9},
    {"dropout", KEY_REAL, BRIEF, "null", AT(dropout), 0, 1},
    {"keys", KEY_ANY, BRIEF, "null", AT(keys), 0, 0},
    {"weight_decay", KEY_ANY, BRIEF, "null", 0, 0, 0},
};

static const struct {
    const char *key, *choices;
} choices[] = {
    {"fine_tune_type", "lora dora full"},
    {"loss", "tokens dpo orpo"},
    {"compat", "mlx-lm"},
    {"dtype", "float32 float16 bfloat16"},
    {"schedule", "constant cosine linear exponential step"},
};

/* ---- one setting --------------------------------------------------------------------- */

static const Key *find_key(const char *name) {
    for (size_t i = 0; i < BASE_COUNT(keys); i++)
        if (strcmp(keys[i].name, name) == 0) return &keys[i];
    return NULL;
}

static bool one_of(const char *words, const char *word) {
    const size_t length = strlen(word);
    for (const char *at = words; (at = strstr(at, word)) != NULL; at++)
        if (length && (at == words || at[-1] == ' ') && (at[length] == ' ' || !at[length]))
            return true;
    return false;
}

static bool read_number(const Key *key, const json_t *value, double *number, Error *err) {
    static const char *const wanted[] = {
        [KEY_INT] = "a whole number", [KEY_INT64] = "a whole number", [KEY_REAL] = "a number"};
    *number = json_number_value(value);
    if (!json_is_number(value) || (key->kind != KEY_REAL && *number != floor(*number)))
        return base_fail(err, ERROR_INPUT, "%s: not %s", key->name, wanted[key->kind]);
    if (*number < key->least || *number > key->most)
        return base_fail(err, ERROR_INPUT, "%s: %g is out of range, from %g to %g", key->name,
                         *number, key->least, key->most);
    return true;
}

static bool read_text(const Key *key, const json_t *value, const char **text, Error *err) {
    *text = json_string_value(value);
    if (value && !json_is_null(value) && !*text)
        return base_fail(err, ERROR_INPUT, "%s: not a text", key->name);
    for (size_t i = 0; i < BASE_COUNT(choices) && *text; i++)
        if (strcmp(choices[i].key, key->name) == 0 && !one_of(choices[i].choices, *text))
            return base_fail(err, ERROR_INPUT, "%s: \"%s\" is not one of %s", key->name, *text,
                             choices[i].choices);
    return true;
}

/* From the tree into the struct. */
static bool read_key(TuneConfig *config, const Key *key, Error *err) {
    const json_t *value = json_object_get(config->values, key->name);
    char *member = (char *)config + key->member;
    const bool none = !value || json_is_null(value);
    double number = 0;
    switch (key->kind) {
    case KEY_TEXT: return read_text(key, value, (const char **)(void *)member, err);
    case KEY_BOOL:
        *(bool *)member = json_is_true(value);
        return none || json_is_boolean(value) ||
               base_fail(err, ERROR_INPUT, "%s: neither true nor false", key->name);
    case KEY_OBJECT:
        if (!none && !json_is_object(value))
            return base_fail(err, ERROR_INPUT, "%s: not a mapping", key->name);
        *(const json_t **)(void *)member = none ? NULL : value;
        return true;
    case KEY_ANY:
        if (key->member) *(const json_t **)(void *)member = none ? NULL : value;
        return true;
    default: break;
    }
    if (!none && !read_number(key, value, &number, err)) return false;
    if (key->kind == KEY_INT) *(int *)(void *)member = (int)number;
    if (key->kind == KEY_INT64) *(int64_t *)(void *)member = (int64_t)number;
    if (key->kind == KEY_REAL) *(double *)(void *)member = number;
    return true;
}

bool tune_config_set(TuneConfig *config, const char *name, json_t *value, Error *err) {
    json_object_set_new(config->values, name, value);
    const Key *key = find_key(name);
    return !key || read_key(config, key, err);
}

/* ---- layers ----------------------------------------------------------------------------- */

static bool has(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    return value && !json_is_null(value);
}

/* What the person says anew is not held against what a saved run made of it. */
static json_t *without_replaced(const TuneConfigLayers *layers) {
    json_t *saved = layers->saved ? json_copy((json_t *)(uintptr_t)layers->saved) : NULL;
    if (has(layers->flags, "schedule") || has(layers->file, "schedule") ||
        has(layers->flags, "warmup") || has(layers->file, "warmup"))
        json_object_del(saved, "lr_schedule");
    return saved;
}

static void merge(json_t *values, const json_t *layer) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)layer, name,
                        value) if (!json_is_null(value) && !has(values, name))
        json_object_set_new(values, name, json_deep_copy(value));
}

static void warn_unknown(const json_t *file, const char *file_name) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)file, name, value) if (!find_key(name))
        base_log(LOG_WARNING, "%s: %s is no setting of training; it is kept, and does nothing",
                 file_name, name);
}

/* rank, scale, dropout and keys go into lora_parameters; weight_decay into the
 * optimiser's settings. */
static bool fold_shorthands(TuneConfig *config, const TuneConfigLayers *layers, Error *err) {
    static const char *const names[] = {"rank", "scale", "dropout", "keys"};
    static const char defaults[] = "{\"rank\": 8, \"dropout\": 0.0, \"scale\": 20.0}";
    json_t *values = config->values;
    const json_t *given = json_object_get(values, "lora_parameters");
    if (given && !json_is_object(given))
        return base_fail(err, ERROR_INPUT, "lora_parameters: not a mapping");
    json_t *parameters = given ? json_deep_copy(given) : json_object();
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        json_t *value = json_object_get(values, names[i]);
        if (has(values, names[i])) json_object_set(parameters, names[i], value);
    }
    const json_t *chosen = has(layers->flags, "lora_parameters")  ? layers->flags
                           : has(layers->file, "lora_parameters") ? layers->file
                                                                  : NULL;
    const json_t *of_person = json_object_get(chosen, "lora_parameters");
    for (size_t i = 0; i < 3 && config->compat && of_person; i++)
        if (!json_object_get(parameters, names[i])) {
            json_decref(parameters);
            return base_fail(err, ERROR_INPUT, "lora_parameters: %s is missing", names[i]);
        }
    config->rank_given =
        has(of_person, "rank") || has(layers->flags, "rank") || has(layers->file, "rank");
    config->scale_given =
        has(of_person, "scale") || has(layers->flags, "scale") || has(layers->file, "scale");
    config->keys_given =
        has(of_person, "keys") || has(layers->flags, "keys") || has(layers->file, "keys");
    json_t *rest = json_loads(defaults, 0, NULL);
    json_object_update_missing(parameters, rest);
    json_decref(rest);
    json_object_set_new(values, "lora_parameters", parameters);
    return true;
}

static bool read_lora(TuneConfig *config, Error *err) {
    static const char *const names[] = {"rank", "scale", "dropout", "keys"};
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        json_t *value = json_object_get(config->lora_parameters, names[i]);
        if (!tune_config_set(config, names[i], value ? json_incref(value) : json_null(), err))
            return base_error_context(err, "lora_parameters");
    }
    size_t i;
    json_t *key;
    if (config->keys && !json_is_array(config->keys))
        return base_fail(err, ERROR_INPUT, "lora_parameters: keys is not a list");
    json_array_foreach(config->keys, i, key) if (!json_is_string(key)) return base_fail(
        err, ERROR_INPUT, "lora_parameters: keys has something that is no name");
    if (json_array_size(config->keys) == 0) config->keys = NULL;
    return config->dropout < 1 ||
           base_fail(err, ERROR_INPUT, "lora_parameters: dropout is below 1");
}

static bool fold_optimizer(TuneConfig *config, Error *err) {
    const char *name = json_string_value(json_object_get(config->values, "optimizer"));
    if (!name || !has(config->values, "weight_decay")) return true;
    json_t *all = json_object_get(config->values, "optimizer_config");
    if (all && !json_is_object(all))
        return base_fail(err, ERROR_INPUT, "optimizer_config: not a mapping");
    all = all ? json_deep_copy(all) : json_object();
    json_t *own = json_object_get(all, name);
    if (!json_is_object(own)) json_object_set_new(all, name, own = json_object());
    json_object_set(own, "weight_decay", json_object_get(config->values, "weight_decay"));
    json_object_set_new(config->values, "optimizer_config", all);
    return true;
}

static bool consistent(const TuneConfig *c, Error *err) {
    if (!c->train && !c->test)
        return base_fail(err, ERROR_INPUT, "Must provide at least one of --train or --test");
    if (c->compat && (c->pack || c->every_turn || c->epochs > 0 || c->rslora))
        return base_fail(err, ERROR_INPUT,
                         "mlx-lm knows none of pack, every_turn, epochs and rslora, so they do not "
                         "go with compat");
    if (c->compat && strcmp(c->loss, "tokens") != 0)
        return base_fail(err, ERROR_INPUT, "mlx-lm knows no %s loss, so it does not go with compat",
                         c->loss);
    if (c->pack && strcmp(c->loss, "tokens") != 0)
        return base_fail(err, ERROR_INPUT, "pack goes with loss tokens only");
    if (c->schedule && c->lr_schedule)
        return base_fail(err, ERROR_INPUT, "schedule and lr_schedule exclude each other");
    if (c->save_peft && strcmp(c->fine_tune_type, "full") == 0)
        return base_fail(err, ERROR_INPUT, "save_peft: PEFT has no form for fine_tune_type full");
    return true;
}

bool tune_config_make(const TuneConfigLayers *layers, TuneConfig *config, Error *err) {
    *config = (TuneConfig){.values = json_object()};
    merge(config->values, layers->flags);
    merge(config->values, layers->file);
    json_t *saved = without_replaced(layers);
    merge(config->values, saved);
    json_decref(saved);
    const json_t *compat = json_object_get(config->values, "compat");
    config->compat = compat && !json_is_null(compat);
    if (layers->file && !config->compat) warn_unknown(layers->file, layers->file_name);
    config->num_layers_given = has(layers->flags, "num_layers") ||
                               has(layers->file, "num_layers") || has(layers->saved, "num_layers");
    bool good = fold_shorthands(config, layers, err);
    for (size_t i = 0; good && i < BASE_COUNT(keys); i++)
        if (!has(config->values, keys[i].name))
            json_object_set_new(config->values, keys[i].name,
                                json_loads(keys[i].fallback, JSON_DECODE_ANY, NULL));
    good = good && fold_optimizer(config, err);
    for (size_t i = 0; good && i < BASE_COUNT(keys); i++) good = read_key(config, &keys[i], err);
    good = good && read_lora(config, err) && consistent(config, err);
    if (!good) tune_config_free(config);
    return good;
}

void tune_config_free(TuneConfig *config) {
    json_decref(config->values);
    *config = (TuneConfig){0};
}

/* ---- what is asked of them ---------------------------------------------------------------- */

const json_t *tune_config_optimizer(const TuneConfig *config) {
    return json_object_get(config->optimizer_config, config->optimizer);
}

/* A schedule named by a flag lasts until the last update unless its length is given. */
static json_t *named_schedule(const TuneConfig *c, Error *err) {
    const int accumulated = c->grad_accumulation_steps;
    const int updates = (c->iters + accumulated - 1) / accumulated;
    const int warm = c->warmup ? c->warmup + 1 : 0;
    if (updates <= warm && !c->lr_decay_steps) {
        base_fail(err, ERROR_INPUT, "warmup: %d updates, and the run has %d in all", c->warmup,
                  updates);
        return NULL;
    }
    const json_int_t steps = c->lr_decay_steps ? c->lr_decay_steps : updates - warm;
    const double rate = c->learning_rate;
    json_t *arguments;
    const char *name, *wanted = c->schedule ? c->schedule : "constant";
    switch (wanted[0] == 'c' ? wanted[2] : wanted[0]) {
    case 's':
        name = "cosine_decay";
        arguments = json_pack("[f,I,f]", rate, steps, c->lr_end);
        break;
    case 'l':
        name = "linear_schedule";
        arguments = json_pack("[f,f,I]", rate, c->lr_end, steps);
        break;
    default: name = "linear_schedule"; arguments = json_pack("[f,f,I]", rate, rate, steps);
    }
    if (strcmp(wanted, "exponential") == 0) {
        json_decref(arguments);
        name = "exponential_decay";
        arguments = json_pack("[f,f]", rate, c->lr_decay_rate);
    } else if (strcmp(wanted, "step") == 0) {
        json_decref(arguments);
        name = "step_decay";
        arguments = json_pack("[f,f,I]", rate, c->lr_decay_rate, steps);
    }
    return json_pack("{s:s,s:o,s:i,s:f}", "name", name, "arguments", arguments, "warmup", c->warmup,
                     "warmup_init", c->warmup_init);
}

bool tune_config_settle(TuneConfig *c, size_t per_epoch, Error *err) {
    if (c->epochs > 0) {
        const double iters = ceil(c->epochs * (double)per_epoch);
        if (!tune_config_set(c, "iters", json_integer((json_int_t)iters), err)) return false;
    }
    if (c->lr_schedule || (!c->schedule && !c->warmup)) return true;
    json_t *schedule = named_schedule(c, err);
    return schedule && tune_config_set(c, "lr_schedule", schedule, err);
}

bool tune_config_schedule(const TuneConfig *config, TuneSchedule *schedule, Error *err) {
    if (config->lr_schedule) return tune_schedule_parse(config->lr_schedule, schedule, err);
    *schedule = tune_schedule_constant(config->learning_rate);
    return true;
}

json_t *tune_config_record(const TuneConfig *config) {
    json_t *record = json_object();
    const char *name;
    json_t *value;
    json_object_foreach(config->values, name, value) {
        const Key *key = find_key(name);
        if (key && key->use & BRIEF) continue;
        if (key && key->use & OURS) {
            json_t *fallback = json_loads(key->fallback, JSON_DECODE_ANY, NULL);
            const bool plain = json_equal(value, fallback) ||
                               (json_is_number(value) && json_is_number(fallback) &&
                                json_number_value(value) == json_number_value(fallback));
            json_decref(fallback);
            if (plain) continue;
        }
        json_object_set(record, name, value);
    }
    if (config->fine_tune_type && strcmp(config->fine_tune_type, "full") == 0)
        json_object_set_new(record, "lora_parameters", json_null());
    return record;
}

const char *tune_config_differs(const json_t *saved, const json_t *now) {
    for (size_t i = 0; i < BASE_COUNT(keys); i++) {
        if (!(keys[i].use & COURSE)) continue;
        const json_t *a = json_object_get(saved, keys[i].name),
                     *b = json_object_get(now, keys[i].name);
        if (!a && !b) continue;
        if (!a || !b || !json_equal(a, b)) return keys[i].name;
    }
    return NULL;
}
