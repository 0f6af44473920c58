/* An optimiser as an object: its settings read and checked, its state made, saved and
 * put back, one update over all parameters. The rules stand in optimizer_rules.c. */
#include "tune/optimizer_rules.h"

#include <stdlib.h>
#include <string.h>

struct TuneOptimizer {
    size_t row; /* in `optimizers` */
    OptimizerSettings settings;
    TuneSchedule schedule;
    uint64_t step;
    size_t parameters;
    mlx_array *state; /* [parameters][TUNE_OPTIMIZER_SLOTS] */
};

typedef enum { SETTING_REAL, SETTING_PAIR, SETTING_BOOL, SETTING_INT, SETTING_BETA } SettingKind;

static const struct {
    const char *name;
    SettingKind kind;
    size_t member;
} settings[] = {
    {"betas", SETTING_PAIR, offsetof(OptimizerSettings, betas)},
    {"eps", SETTING_PAIR, offsetof(OptimizerSettings, eps)},
    {"weight_decay", SETTING_REAL, offsetof(OptimizerSettings, weight_decay)},
    {"momentum", SETTING_REAL, offsetof(OptimizerSettings, momentum)},
    {"dampening", SETTING_REAL, offsetof(OptimizerSettings, dampening)},
    {"clip_threshold", SETTING_REAL, offsetof(OptimizerSettings, clip_threshold)},
    {"decay_rate", SETTING_REAL, offsetof(OptimizerSettings, decay_rate)},
    {"beta_1", SETTING_BETA, offsetof(OptimizerSettings, beta_1)},
    {"bias_correction", SETTING_BOOL, offsetof(OptimizerSettings, bias_correction)},
    {"nesterov", SETTING_BOOL, offsetof(OptimizerSettings, nesterov)},
    {"scale_parameter", SETTING_BOOL, offsetof(OptimizerSettings, scale_parameter)},
    {"relative_step", SETTING_BOOL, offsetof(OptimizerSettings, relative_step)},
    {"warmup_init", SETTING_BOOL, offsetof(OptimizerSettings, warmup_init)},
    {"ns_steps", SETTING_INT, offsetof(OptimizerSettings, ns_steps)},
};

/* `takes` are the settings' names, `slots` the state's; an eps that is one number
 * fills the first of the pair. */
static const struct {
    const char *name, *takes;
    OptimizerRule rule;
    const char *slots[TUNE_OPTIMIZER_SLOTS];
    OptimizerSettings defaults;
} optimizers[] = {
    {.name = "adam",
     .takes = "betas eps bias_correction",
     .rule = optimizer_adam,
     .slots = {"m", "v"},
     .defaults = {.betas = {0.9, 0.999}, .eps = {1e-8, 0}}},
    {.name = "adamw",
     .takes = "betas eps weight_decay bias_correction",
     .rule = optimizer_adamw,
     .slots = {"m", "v"},
     .defaults = {.betas = {0.9, 0.999}, .eps = {1e-8, 0}, .weight_decay = 0.01}},
    {.name = "sgd",
     .takes = "momentum weight_decay dampening nesterov",
     .rule = optimizer_sgd,
     .slots = {"v"}},
    {.name = "muon",
     .takes = "momentum weight_decay nesterov ns_steps",
     .rule = optimizer_muon,
     .slots = {"v"},
     .defaults = {.momentum = 0.95, .weight_decay = 0.01, .nesterov = true, .ns_steps = 5}},
    {.name = "adafactor",
     .takes = "eps clip_threshold decay_rate beta_1 weight_decay scale_parameter relative_step "
              "warmup_init",
     .rule = optimizer_adafactor,
     .slots = {"exp_avg_sq_row", "exp_avg_sq_col", "exp_avg_sq", "exp_avg"},
     .defaults = {.eps = {1e-30, 1e-3},
                  .clip_threshold = 1,
                  .decay_rate = -0.8,
                  .scale_parameter = true,
                  .relative_step = true}},
    {.name = "lion",
     .takes = "betas weight_decay",
     .rule = optimizer_lion,
     .slots = {"m"},
     .defaults = {.betas = {0.9, 0.99}}},
};

/* ---- settings ------------------------------------------------------------------ */

static bool has_word(const char *words, const char *word) {
    const size_t length = strlen(word);
    for (const char *at = words; (at = strstr(at, word)) != NULL; at += length)
        if ((at == words || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0'))
            return true;
    return false;
}

static bool read_pair(const char *name, const json_t *value, double *pair) {
    if (strcmp(name, "eps") == 0 && json_is_number(value)) {
        pair[0] = json_number_value(value);
        return true;
    }
    if (json_array_size(value) != 2) return false;
    for (size_t i = 0; i < 2; i++) {
        if (!json_is_number(json_array_get(value, i))) return false;
        pair[i] = json_number_value(json_array_get(value, i));
    }
    return true;
}

static bool read_setting(OptimizerSettings *all, size_t row, const json_t *value) {
    char *member = (char *)all + settings[row].member;
    switch (settings[row].kind) {
    case SETTING_PAIR: return read_pair(settings[row].name, value, (double *)(void *)member);
    case SETTING_BOOL: *(bool *)member = json_is_true(value); return json_is_boolean(value);
    case SETTING_INT:
        *(int *)(void *)member = (int)json_integer_value(value);
        return json_is_integer(value) && json_integer_value(value) >= 0 &&
               json_integer_value(value) <= 100;
    case SETTING_BETA: all->has_beta_1 = true; break;
    case SETTING_REAL: break;
    }
    *(double *)(void *)member = json_number_value(value);
    return json_is_number(value);
}

static bool read_settings(TuneOptimizer *o, const json_t *given, Error *err) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)given, key, value) {
        size_t row = 0;
        while (row < BASE_COUNT(settings) && strcmp(settings[row].name, key) != 0) row++;
        if (row == BASE_COUNT(settings) || !has_word(optimizers[o->row].takes, key)) {
            base_fail(err, ERROR_INPUT, "optimizer_config: %s has no setting %s",
                      optimizers[o->row].name, key);
            return base_hint(err, "it has %s", optimizers[o->row].takes);
        }
        if (json_is_null(value) && settings[row].kind == SETTING_BETA) continue;
        if (!read_setting(&o->settings, row, value))
            return base_fail(err, ERROR_INPUT, "optimizer_config: %s of %s has a wrong value", key,
                             optimizers[o->row].name);
    }
    const OptimizerSettings *s = &o->settings;
    if (optimizers[o->row].rule == optimizer_sgd && s->nesterov &&
        (s->momentum <= 0 || s->dampening != 0))
        return base_fail(err, ERROR_INPUT,
                         "optimizer_config: nesterov of sgd needs a momentum and no dampening");
    return true;
}

TuneOptimizer *tune_optimizer_new(const char *name, const json_t *given,
                                  const TuneSchedule *schedule, size_t parameters, Error *err) {
    size_t row = 0;
    while (row < BASE_COUNT(optimizers) && strcmp(optimizers[row].name, name) != 0) row++;
    if (row == BASE_COUNT(optimizers)) {
        base_fail(err, ERROR_INPUT, "Unsupported optimizer: %s", name);
        base_hint(err, "there are adam, adamw, sgd, muon, adafactor and lion");
        return NULL;
    }
    TuneOptimizer *o = base_calloc(1, sizeof *o);
    *o = (TuneOptimizer){.row = row,
                         .settings = optimizers[row].defaults,
                         .schedule = *schedule,
                         .parameters = parameters};
    o->state = base_calloc(parameters * TUNE_OPTIMIZER_SLOTS + 1, sizeof *o->state);
    if (read_settings(o, given, err)) return o;
    tune_optimizer_free(o);
    return NULL;
}

void tune_optimizer_free(TuneOptimizer *o) {
    if (!o) return;
    for (size_t i = 0; i < o->parameters * TUNE_OPTIMIZER_SLOTS; i++) mx_free(&o->state[i]);
    free(o->state);
    free(o);
}

/* ---- state ----------------------------------------------------------------------- */

/* The shape of a slot for a parameter; -1: it has none. */
static int slot_shape(const TuneOptimizer *o, mlx_array value, size_t slot, int shape[8]) {
    const int ndim = mx_ndim(value);
    const bool adafactor = optimizers[o->row].rule == optimizer_adafactor;
    if (!optimizers[o->row].slots[slot] || ndim > 8) return -1;
    if (optimizers[o->row].rule == optimizer_sgd && o->settings.momentum <= 0) return -1;
    if (adafactor && (slot == 3 ? !o->settings.has_beta_1 : (slot < 2) != (ndim >= 2))) return -1;
    int kept = 0;
    for (int i = 0; i < ndim; i++) {
        const bool averaged =
            adafactor && ((slot == 0 && i == ndim - 1) || (slot == 1 && i == ndim - 2));
        if (!averaged) shape[kept++] = mx_dim(value, i);
    }
    return kept;
}

size_t tune_optimizer_state_bytes(const TuneOptimizer *o, mlx_array value) {
    size_t bytes = 0;
    for (size_t slot = 0; slot < TUNE_OPTIMIZER_SLOTS; slot++) {
        int shape[8];
        const int ndim = slot_shape(o, value, slot, shape);
        if (ndim < 0) continue;
        size_t size = mlx_dtype_size(mx_dtype(value));
        for (int i = 0; i < ndim; i++) size *= (size_t)shape[i];
        bytes += size;
    }
    return bytes;
}

const char *tune_optimizer_slot(const TuneOptimizer *o, size_t slot) {
    return slot < TUNE_OPTIMIZER_SLOTS ? optimizers[o->row].slots[slot] : NULL;
}

mlx_array tune_optimizer_state(const TuneOptimizer *o, size_t parameter, size_t slot) {
    return o->state[parameter * TUNE_OPTIMIZER_SLOTS + slot];
}

void tune_optimizer_restore(TuneOptimizer *o, size_t parameter, size_t slot, mlx_array state) {
    mx_store(&o->state[parameter * TUNE_OPTIMIZER_SLOTS + slot], state);
}

uint64_t tune_optimizer_step(const TuneOptimizer *o) {
    return o->step;
}

void tune_optimizer_set_step(TuneOptimizer *o, uint64_t step) {
    o->step = step;
}

float tune_optimizer_rate(const TuneOptimizer *o) {
    return tune_schedule_rate(&o->schedule, o->step ? o->step - 1 : 0);
}

/* ---- an update --------------------------------------------------------------------- */

bool tune_optimizer_update(TuneOptimizer *o, const mlx_array *values, const mlx_array *gradients,
                           mlx_array *updated, Error *err) {
    const OptimizerStep step = {.settings = &o->settings,
                                .rate = tune_schedule_rate(&o->schedule, o->step),
                                .step = (float)(o->step + 1)};
    const size_t slots = TUNE_OPTIMIZER_SLOTS;
    mlx_array *fresh = base_calloc(o->parameters * (slots + 1) + 1, sizeof *fresh);
    size_t count = 0;
    for (size_t i = 0; i < o->parameters; i++) {
        mlx_array state[TUNE_OPTIMIZER_SLOTS];
        for (size_t slot = 0; slot < slots; slot++) {
            int shape[8];
            const int ndim = slot_shape(o, values[i], slot, shape);
            state[slot] = o->state[i * slots + slot];
            if (ndim >= 0 && mx_empty(state[slot]))
                state[slot] = mx_zeros(shape, (size_t)ndim, mx_dtype(values[i]));
        }
        updated[i] = optimizers[o->row].rule(&step, values[i], gradients[i], state);
        fresh[count++] = updated[i];
        for (size_t slot = 0; slot < slots; slot++)
            if (!mx_empty(state[slot])) fresh[count++] = state[slot];
        for (size_t slot = 0; slot < slots; slot++)
            mx_store(&o->state[i * slots + slot], state[slot]);
    }
    mx_eval(fresh, count);
    free(fresh);
    if (!mx_check(err)) return false;
    o->step++;
    return true;
}
