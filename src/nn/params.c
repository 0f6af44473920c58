/* The parameter tree: named tensors that are each taken once, by shape.
 *
 * A hash table from name to array. Loading a model takes what it needs;
 * whatever is missing, misshapen or left over is one failure that names it. */
#include "nn/params.h"

#include <stdlib.h>
#include <string.h>

typedef struct Entry {
    char *name; /* NULL: free slot */
    mlx_array array;
    size_t taken; /* in which place, from 1; 0: not */
    bool removed;
} Entry;

struct NnParams {
    char *title;
    NnQuantRule rule;
    const void *source;
    Entry *table; /* open addressing, a power of two */
    size_t slots, used, taken;
    mlx_array *adopted;
    size_t n_adopted, adopted_capacity;
    Arena *arena;
    bool casting, rounding;
    mlx_dtype dtype;
    NnParams *adapter;
    float adapter_scale;
    const json_t *adapter_scales;
    NnModule **modules;
    size_t n_modules, module_capacity;
    struct Packing {
        char *path;
        MxQuant quant;
    } * packings;
    size_t n_packings, packing_capacity;
    Error error;
    bool failed;
};

/* ---- life ------------------------------------------------------------------ */

NnParams *nn_params_new(const char *name, NnQuantRule rule, const void *source) {
    NnParams *params = base_calloc(1, sizeof *params);
    params->title = base_strdup(name);
    params->rule = rule;
    params->source = source;
    params->slots = 256;
    params->table = base_calloc(params->slots, sizeof *params->table);
    params->arena = base_arena_new();
    return params;
}

void nn_params_free(NnParams *params) {
    if (!params) return;
    for (size_t i = 0; i < params->slots; i++) {
        if (!params->table[i].name) continue;
        free(params->table[i].name);
        mx_free(&params->table[i].array);
    }
    for (size_t i = 0; i < params->n_adopted; i++) mx_free(&params->adopted[i]);
    for (size_t i = 0; i < params->n_packings; i++) free(params->packings[i].path);
    for (size_t i = 0; i < params->n_modules; i++) mx_free(&params->modules[i]->lora.key);
    free(params->modules);
    free(params->packings);
    free(params->adopted);
    free(params->table);
    free(params->title);
    base_arena_free(params->arena);
    free(params);
}

void nn_params_fail(NnParams *params, ErrorCode code, const char *format, ...) {
    if (params->failed) return;
    char message[768];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    base_fail(&params->error, code, "%s: %s", params->title, message);
    params->failed = true;
}

bool nn_params_failed(const NnParams *params) {
    return params->failed;
}

void *nn_params_alloc(NnParams *params, size_t count, size_t bytes) {
    if (bytes && count > SIZE_MAX / bytes) {
        nn_params_fail(params, ERROR_MEMORY, "%zu items of %zu bytes are too many", count, bytes);
        return NULL;
    }
    void *memory = base_arena_alloc(params->arena, count * bytes);
    memset(memory, 0, count * bytes);
    return memory;
}

mlx_array nn_params_adopt(NnParams *params, mlx_array array) {
    mlx_array kept = mx_keep(array);
    if (!kept.ctx) return kept;
    if (params->n_adopted == params->adopted_capacity) {
        params->adopted = base_grow(params->adopted, &params->adopted_capacity,
                                    params->n_adopted + 1, sizeof *params->adopted);
    }
    params->adopted[params->n_adopted++] = kept;
    return kept;
}

/* ---- the table --------------------------------------------------------------- */

static Entry *slot_of(const NnParams *params, const char *name) {
    size_t at = base_hash(name, strlen(name)) & (params->slots - 1);
    while (params->table[at].name && strcmp(params->table[at].name, name) != 0) {
        at = (at + 1) & (params->slots - 1);
    }
    return &params->table[at];
}

static void insert(NnParams *params, char *name, mlx_array array) {
    Entry *entry = slot_of(params, name);
    if (entry->name) {
        free(name);
        mx_free(&entry->array);
        entry->array = array;
        entry->removed = false;
        return;
    }
    *entry = (Entry){.name = name, .array = array};
    params->used++;
}

static void grow(NnParams *params) {
    Entry *old = params->table;
    size_t old_slots = params->slots;
    params->slots *= 2;
    params->table = base_calloc(params->slots, sizeof *params->table);
    for (size_t i = 0; i < old_slots; i++) {
        if (old[i].name) *slot_of(params, old[i].name) = old[i];
    }
    free(old);
}

void nn_params_add(NnParams *params, const char *name, mlx_array array) {
    if (!array.ctx) {
        nn_params_fail(params, ERROR_INPUT, "tensor %s cannot be read", name);
        return;
    }
    if (params->used * 2 >= params->slots) grow(params);
    insert(params, base_strdup(name), mx_keep(array));
}

static Entry *find(const NnParams *params, const char *name) {
    Entry *entry = slot_of(params, name);
    return entry->name && !entry->removed ? entry : NULL;
}

bool nn_params_has(const NnParams *params, const char *format, ...) {
    char name[NN_PATH];
    NN_FORMAT(name, format);
    return find(params, name) != NULL;
}

mlx_array nn_params_peek(const NnParams *params, const char *name) {
    Entry *entry = find(params, name);
    return entry ? entry->array : (mlx_array){0};
}

void nn_params_remove(NnParams *params, const char *name) {
    Entry *entry = find(params, name);
    if (entry) entry->removed = true;
}

void nn_params_remove_suffix(NnParams *params, const char *suffix) {
    for (size_t i = 0; i < params->slots; i++) {
        Entry *entry = &params->table[i];
        if (entry->name && base_ends_with(entry->name, suffix)) entry->removed = true;
    }
}

void nn_params_remove_prefix(NnParams *params, const char *prefix) {
    for (size_t i = 0; i < params->slots; i++) {
        Entry *entry = &params->table[i];
        if (entry->name && base_starts_with(entry->name, prefix)) entry->removed = true;
    }
}

/* The renamed entry's new name, or NULL. */
typedef char *Renaming(const char *name, const char *from, const char *to);

static char *with_prefix(const char *name, const char *from, const char *to) {
    return base_starts_with(name, from) ? base_format("%s%s", to, name + strlen(from)) : NULL;
}

static char *with_suffix(const char *name, const char *from, const char *to) {
    if (!base_ends_with(name, from)) return NULL;
    return base_format("%.*s%s", (int)(strlen(name) - strlen(from)), name, to);
}

static void rename_all(NnParams *params, Renaming *renamed, const char *from, const char *to) {
    Entry *old = params->table;
    size_t old_slots = params->slots;
    params->table = base_calloc(params->slots, sizeof *params->table);
    params->used = 0;
    for (size_t i = 0; i < old_slots; i++) {
        if (!old[i].name) continue;
        char *name = old[i].removed ? NULL : renamed(old[i].name, from, to);
        if (old[i].removed) {
            free(old[i].name);
            mx_free(&old[i].array);
        } else if (name) {
            insert(params, name, old[i].array);
            free(old[i].name);
        } else {
            insert(params, old[i].name, old[i].array);
        }
    }
    free(old);
}

void nn_params_rename_prefix(NnParams *params, const char *from, const char *to) {
    rename_all(params, with_prefix, from, to);
}

void nn_params_rename_suffix(NnParams *params, const char *from, const char *to) {
    rename_all(params, with_suffix, from, to);
}

void nn_params_each(const NnParams *params,
                    void (*visit)(void *context, const char *name, mlx_array array),
                    void *context) {
    for (size_t i = 0; i < params->slots; i++) {
        const Entry *entry = &params->table[i];
        if (entry->name && !entry->removed) visit(context, entry->name, entry->array);
    }
}

size_t nn_params_place(const NnParams *params, const char *name) {
    const Entry *entry = find(params, name);
    return entry ? entry->taken : 0;
}

void nn_params_cast(NnParams *params, mlx_dtype dtype) {
    params->casting = true;
    params->dtype = dtype;
}

void nn_params_round_inputs(NnParams *params) {
    params->rounding = true;
}

bool nn_params_rounds(NnParams *params, MxQuant quant, bool has_bias, const char *path) {
    if (!params->rounding) return false;
    bool known = strcmp(quant.mode, "nvfp4") == 0 || strcmp(quant.mode, "mxfp8") == 0;
    if (!known || has_bias)
        nn_params_fail(params, ERROR_UNSUPPORTED,
                       "%s %s: activations are quantised for layers of mode nvfp4 or mxfp8 without "
                       "bias",
                       path, known ? "has a bias" : "is of another mode");
    return known && !has_bias;
}

void nn_params_adapter(NnParams *params, NnParams *adapter, float scale, const json_t *scales) {
    params->adapter = adapter;
    params->adapter_scale = scale;
    params->adapter_scales = scales;
}

/* ---- taking -------------------------------------------------------------------- */

static void describe_shape(const int *shape, size_t ndim, char *text, size_t bytes) {
    size_t used = (size_t)snprintf(text, bytes, ndim ? "" : "a scalar");
    for (size_t i = 0; i < ndim && used < bytes; i++) {
        used += (size_t)snprintf(text + used, bytes - used, "%s%d", i ? "x" : "", shape[i]);
    }
}

static bool same_shape(mlx_array array, const int *shape, size_t ndim) {
    if ((size_t)mx_ndim(array) != ndim) return false;
    for (size_t i = 0; i < ndim; i++) {
        if (mx_dim(array, (int)i) != shape[i]) return false;
    }
    return true;
}

mlx_array nn_params_take_raw(NnParams *params, const int *shape, size_t ndim, const char *name) {
    if (params->failed) return (mlx_array){0};
    Entry *entry = find(params, name);
    if (!entry) {
        nn_params_fail(params, ERROR_INPUT, "tensor %s is missing", name);
        return (mlx_array){0};
    }
    if (!same_shape(entry->array, shape, ndim)) {
        char have[128], want[128];
        describe_shape(mlx_array_shape(entry->array), mlx_array_ndim(entry->array), have,
                       sizeof have);
        describe_shape(shape, ndim, want, sizeof want);
        nn_params_fail(params, ERROR_INPUT, "tensor %s is %s, the model needs %s", name, have,
                       want);
        return (mlx_array){0};
    }
    if (!entry->taken) entry->taken = ++params->taken;
    return entry->array;
}

mlx_array nn_params_take_named(NnParams *params, const int *shape, size_t ndim, const char *name) {
    mlx_array array = nn_params_take_raw(params, shape, ndim, name);
    if (!array.ctx || !params->casting || !mx_is_float(mx_dtype(array)) ||
        mx_dtype(array) == params->dtype) {
        return array;
    }
    mx_scope s = mx_open();
    mlx_array converted = nn_params_adopt(params, mx_cast(array, params->dtype));
    mx_drop(s);
    return converted;
}

mlx_array nn_params_take(NnParams *params, const int *shape, size_t ndim, const char *format, ...) {
    char name[NN_PATH];
    NN_FORMAT(name, format);
    return nn_params_take_named(params, shape, ndim, name);
}

mlx_array nn_params_take_exact(NnParams *params, const int *shape, size_t ndim, const char *format,
                               ...) {
    char name[NN_PATH];
    NN_FORMAT(name, format);
    return nn_params_take_raw(params, shape, ndim, name);
}

/* ---- packing --------------------------------------------------------------------- */

void nn_params_set_quant(NnParams *params, const char *path, MxQuant quant) {
    params->packings = base_grow(params->packings, &params->packing_capacity,
                                 params->n_packings + 1, sizeof *params->packings);
    params->packings[params->n_packings++] = (struct Packing){base_strdup(path), quant};
}

bool nn_params_quant(const NnParams *params, const char *path, MxQuant *quant) {
    *quant = (MxQuant){0};
    for (size_t i = params->n_packings; i-- > 0;) { /* the last word counts */
        if (strcmp(params->packings[i].path, path) != 0) continue;
        *quant = params->packings[i].quant;
        return quant->group_size > 0;
    }
    return params->rule && params->rule(params->source, path, quant) && quant->group_size > 0;
}

/* ---- modules ----------------------------------------------------------------------- */

NnParams *nn_params_adapter_of(const NnParams *params, const char *path, float *scale) {
    if (!params->adapter || !nn_params_has(params->adapter, "%s.lora_a", path)) return NULL;
    const json_t *own = json_object_get(params->adapter_scales, path);
    *scale = json_is_number(own) ? (float)json_number_value(own) : params->adapter_scale;
    return params->adapter;
}

NnModule *nn_params_enlist(NnParams *params, const NnModule *module) {
    NnModule *listed = base_arena_alloc(params->arena, sizeof *listed);
    *listed = *module;
    listed->path = base_arena_strndup(params->arena, module->path, strlen(module->path));
    params->modules = base_grow(params->modules, &params->module_capacity, params->n_modules + 1,
                                sizeof(NnModule *));
    params->modules[params->n_modules++] = listed;
    return listed;
}

size_t nn_params_module_count(const NnParams *params) {
    return params->n_modules;
}

NnModule *nn_params_module(const NnParams *params, size_t i) {
    return params->modules[i];
}

/* ---- the verdict -------------------------------------------------------------------- */

bool nn_params_check(NnParams *params, Error *err) {
    Error engine = {0};
    if (!mx_check(&engine)) nn_params_fail(params, engine.code, "%s", engine.message);
    if (params->failed) {
        return base_fail(err, params->error.code, "%s", params->error.message);
    }
    size_t extra = 0;
    const char *first = NULL;
    for (size_t i = 0; i < params->slots; i++) {
        const Entry *entry = &params->table[i];
        if (!entry->name || entry->removed || entry->taken) continue;
        extra++;
        if (!first || strcmp(entry->name, first) < 0) first = entry->name;
    }
    if (extra == 0) return true;
    if (extra == 1) {
        base_fail(err, ERROR_INPUT, "%s: tensor %s is not part of this model", params->title,
                  first);
    } else {
        base_fail(err, ERROR_INPUT, "%s: tensor %s and %zu more are not part of this model",
                  params->title, first, extra - 1);
    }
    return base_hint(err, "Do config.json and the weights belong together?");
}
