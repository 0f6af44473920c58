/* The state's file: tensors are "value/NAME", "SLOT/NAME" of the optimiser,
 * "gradient/NAME" and "random/dropout"; the rest is JSON in the metadata. */
#include "tune/state.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char format_name[] = "mlx-rag training state 1";

/* ---- counters as JSON --------------------------------------------------------------- */

static const struct {
    const char *name;
    enum { PLACE_INT, PLACE_REAL, PLACE_BOOL, PLACE_BYTES } kind;
    size_t member;
} fields[] = {
#define FIELD(kind_, name_) \
    { #name_, PLACE_##kind_, offsetof(TunePlace, name_) }
    FIELD(INT, iteration),
    FIELD(INT, validated),
    FIELD(BOOL, stopped),
    FIELD(INT, pending),
    FIELD(REAL, pending_targets),
    FIELD(REAL, window_loss),
    FIELD(REAL, window_weight),
    FIELD(REAL, window_tokens),
    FIELD(REAL, window_seconds),
    FIELD(INT, window_steps),
    FIELD(REAL, trained_tokens),
    FIELD(REAL, best),
    FIELD(INT, best_iteration),
    FIELD(INT, stale),
    FIELD(REAL, norm),
    FIELD(INT, norms),
    FIELD(INT, skipped),
    FIELD(INT, skipped_in_row),
    FIELD(REAL, window_won),
    FIELD(REAL, last_norm),
    FIELD(BYTES, metrics),
#undef FIELD
};

static json_t *place_json(const TunePlace *place) {
    json_t *object = json_object();
    for (size_t i = 0; i < BASE_COUNT(fields); i++) {
        const char *member = (const char *)place + fields[i].member;
        json_t *value = NULL;
        switch (fields[i].kind) {
        case PLACE_INT: value = json_integer(*(const int *)(const void *)member); break;
        case PLACE_REAL: value = json_real(*(const double *)(const void *)member); break;
        case PLACE_BOOL: value = json_boolean(*(const bool *)(const void *)member); break;
        case PLACE_BYTES:
            value = json_integer((json_int_t) * (const uint64_t *)(const void *)member);
            break;
        }
        json_object_set_new(object, fields[i].name, value ? value : json_null()); /* NaN */
    }
    return object;
}

static bool place_read(const json_t *object, TunePlace *place) {
    *place = (TunePlace){0};
    for (size_t i = 0; i < BASE_COUNT(fields); i++) {
        const json_t *value = json_object_get(object, fields[i].name);
        char *member = (char *)place + fields[i].member;
        switch (fields[i].kind) {
        case PLACE_INT:
            if (!json_is_integer(value)) return false;
            *(int *)(void *)member = (int)json_integer_value(value);
            break;
        case PLACE_REAL:
            if (!json_is_number(value) && !json_is_null(value)) return false;
            *(double *)(void *)member =
                json_is_null(value) ? (double)NAN : json_number_value(value);
            break;
        case PLACE_BOOL: *(bool *)(void *)member = json_is_true(value); break;
        case PLACE_BYTES:
            if (!json_is_integer(value)) return false;
            *(uint64_t *)(void *)member = (uint64_t)json_integer_value(value);
            break;
        }
    }
    return place->iteration >= 0 && place->pending >= 0;
}

static json_t *twister_json(const MersenneTwister *twister) {
    json_t *words = json_array();
    for (int i = 0; i < BASE_MERSENNE_WORDS; i++)
        json_array_append_new(words, json_integer((json_int_t)twister->words[i]));
    return json_pack("{s:o,s:i}", "words", words, "used", twister->used);
}

static bool twister_read(const json_t *object, MersenneTwister *twister) {
    const json_t *words = json_object_get(object, "words");
    const json_int_t used = json_integer_value(json_object_get(object, "used"));
    if (json_array_size(words) != BASE_MERSENNE_WORDS || used < 0 || used > BASE_MERSENNE_WORDS)
        return false;
    for (int i = 0; i < BASE_MERSENNE_WORDS; i++)
        twister->words[i] = (uint32_t)json_integer_value(json_array_get(words, (size_t)i));
    twister->used = (int)used;
    return true;
}

/* ---- saving ---------------------------------------------------------------------------- */

typedef struct Tensors {
    char **names;
    mlx_array *arrays;
    size_t count, capacity;
} Tensors;

static void add(Tensors *tensors, const char *part, const char *name, mlx_array array) {
    if (mx_empty(array)) return;
    const size_t needed = tensors->count + 1;
    size_t capacity = tensors->capacity;
    tensors->names = base_grow(tensors->names, &capacity, needed, sizeof *tensors->names);
    tensors->arrays =
        base_grow(tensors->arrays, &tensors->capacity, needed, sizeof *tensors->arrays);
    tensors->names[tensors->count] = base_format("%s/%s", part, name);
    tensors->arrays[tensors->count++] = array;
}

static void set_text(json_t *metadata, const char *key, json_t *value) {
    char *text = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS);
    json_object_set_new(metadata, key, json_string(text));
    free(text);
    json_decref(value);
}

bool tune_state_save(const char *file, const TuneRun *run, const TunePlace *place,
                     const mlx_array *sums, const json_t *settings, Error *err) {
    Tensors tensors = {0};
    for (size_t i = 0; i < tune_model_count(run->model); i++) {
        const char *name = tune_model_name(run->model, i);
        add(&tensors, "value", name, tune_model_value(run->model, i));
        for (size_t slot = 0; tune_optimizer_slot(run->optimizer, slot); slot++)
            add(&tensors, tune_optimizer_slot(run->optimizer, slot), name,
                tune_optimizer_state(run->optimizer, i, slot));
        if (place->pending) add(&tensors, "gradient", name, sums[i]);
    }
    add(&tensors, "random", "dropout", tune_model_random(run->model));
    json_t *metadata = json_pack("{s:s}", "format", format_name);
    set_text(metadata, "settings", json_deep_copy(settings));
    set_text(metadata, "place", place_json(place));
    set_text(metadata, "batches", tune_batches_state(run->batches));
    set_text(metadata, "random", twister_json(&run->random));
    set_text(metadata, "updates",
             json_pack("{s:I}", "done", (json_int_t)tune_optimizer_step(run->optimizer)));
    mx_scope s = mx_open();
    const bool good = mx_save_safetensors(file, (const char *const *)tensors.names, tensors.arrays,
                                          tensors.count, metadata, err);
    mx_drop(s);
    json_decref(metadata);
    for (size_t i = 0; i < tensors.count; i++) free(tensors.names[i]);
    free(tensors.names);
    free(tensors.arrays);
    return good;
}

/* ---- loading ------------------------------------------------------------------------------ */

typedef struct Loading {
    TuneRun *run;
    mlx_array *sums;
    size_t values;
} Loading;

static void read_metadata(void *context, const char *key, const char *value) {
    json_t *metadata = *(json_t **)context;
    json_object_set_new(metadata, key, json_string(value));
}

/* The JSON behind a key of the metadata; NULL when it is none. */
static json_t *tree(const json_t *metadata, const char *key) {
    const char *text = json_string_value(json_object_get(metadata, key));
    return text ? json_loads(text, 0, NULL) : NULL;
}

static bool open_metadata(const char *file, json_t **metadata, Error *err) {
    *metadata = json_object();
    mx_scope s = mx_open();
    const MxFileVisitor visitor = {.metadata = read_metadata, .context = metadata};
    bool good = mx_load_safetensors(file, visitor, err);
    mx_drop(s);
    const char *format = json_string_value(json_object_get(*metadata, "format"));
    if (good && (!format || strcmp(format, format_name) != 0))
        good = base_fail(err, ERROR_INPUT, "%s: not a training state of this program", file);
    if (!good) {
        json_decref(*metadata);
        *metadata = NULL;
    }
    return good;
}

json_t *tune_state_settings(const char *file, Error *err) {
    json_t *metadata;
    if (!open_metadata(file, &metadata, err)) return NULL;
    json_t *settings = tree(metadata, "settings");
    json_decref(metadata);
    if (!json_is_object(settings)) {
        json_decref(settings);
        base_fail(err, ERROR_INPUT, "%s: the training state has no settings", file);
        return NULL;
    }
    return settings;
}

static bool same_shape(mlx_array a, mlx_array b) {
    if (mx_ndim(a) != mx_ndim(b) || mx_dtype(a) != mx_dtype(b)) return false;
    for (int d = 0; d < mx_ndim(a); d++)
        if (mx_dim(a, d) != mx_dim(b, d)) return false;
    return true;
}

/* Values own their memory, not the file's, which the next state will replace. */
static mlx_array copied(mlx_array array) {
    mlx_array copy = mx_add(array, mx_scalar(0, mx_dtype(array)));
    return mx_dtype(array) == MLX_UINT32 ? mx_bits_and(array, array) : copy;
}

static void take(void *context, const char *path, mlx_array array) {
    Loading *loading = context;
    const char *name = strchr(path, '/');
    if (!name) return;
    const size_t part = (size_t)(name++ - path);
    if (strcmp(path, "random/dropout") == 0) {
        tune_model_set_random(loading->run->model, copied(array));
        return;
    }
    const TuneModel *model = loading->run->model;
    size_t i = 0;
    while (i < tune_model_count(model) && strcmp(tune_model_name(model, i), name) != 0) i++;
    if (i == tune_model_count(model)) return;
    if (strncmp(path, "value/", part + 1) == 0) {
        if (!same_shape(tune_model_value(model, i), array)) return;
        tune_model_set(loading->run->model, i, copied(array));
        loading->values++;
    } else if (strncmp(path, "gradient/", part + 1) == 0) {
        mx_store(&loading->sums[i], copied(array));
    } else {
        TuneOptimizer *optimizer = loading->run->optimizer;
        for (size_t slot = 0; tune_optimizer_slot(optimizer, slot); slot++) {
            const char *own = tune_optimizer_slot(optimizer, slot);
            if (strlen(own) == part && strncmp(own, path, part) == 0)
                tune_optimizer_restore(optimizer, i, slot, copied(array));
        }
    }
}

static bool settle(const Loading *loading, Error *err) {
    const TuneModel *model = loading->run->model;
    const size_t count = tune_model_count(model);
    if (loading->values != count)
        return base_fail(err, ERROR_INPUT, "it holds %zu of the %zu tensors that train",
                         loading->values, count);
    mlx_array *all = base_alloc((count * (TUNE_OPTIMIZER_SLOTS + 2) + 1) * sizeof *all);
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        all[n++] = tune_model_value(model, i);
        for (size_t slot = 0; tune_optimizer_slot(loading->run->optimizer, slot); slot++) {
            mlx_array state = tune_optimizer_state(loading->run->optimizer, i, slot);
            if (!mx_empty(state)) all[n++] = state;
        }
        if (loading->sums[i].ctx) all[n++] = loading->sums[i];
    }
    all[n++] = tune_model_random(model);
    mx_eval(all, n);
    free(all);
    return mx_check(err);
}

static bool read_counters(const json_t *metadata, TuneRun *run, TunePlace *place, Error *err) {
    json_t *counters = tree(metadata, "place"), *batches = tree(metadata, "batches"),
           *random = tree(metadata, "random"), *updates = tree(metadata, "updates");
    const json_t *done = json_object_get(updates, "done");
    bool good = true;
    if (!place_read(counters, place) || !twister_read(random, &run->random) ||
        !json_is_integer(done) || json_integer_value(done) < 0)
        good = base_fail(err, ERROR_INPUT, "the training state is damaged");
    good = good && tune_batches_restore(run->batches, batches, err);
    if (good) tune_optimizer_set_step(run->optimizer, (uint64_t)json_integer_value(done));
    json_decref(counters);
    json_decref(batches);
    json_decref(random);
    json_decref(updates);
    return good;
}

bool tune_state_load(const char *file, TuneRun *run, TunePlace *place, mlx_array *sums,
                     Error *err) {
    json_t *metadata;
    if (!open_metadata(file, &metadata, err)) return false;
    Loading loading = {.run = run, .sums = sums};
    mx_scope s = mx_open();
    const MxFileVisitor visitor = {.tensor = take, .context = &loading};
    bool good = read_counters(metadata, run, place, err) &&
                mx_load_safetensors(file, visitor, err) && settle(&loading, err);
    mx_drop(s);
    json_decref(metadata);
    return good || base_error_context(err, "%s", file);
}
