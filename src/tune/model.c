/* Which tensors train: adapters on the modules that the options choose, or all of the
 * last blocks. Rules, order and first values are mlx_lm's (tuner/utils.py, lora.py,
 * dora.py). */
#include "mlx/c/memory.h"
#include "tune/internal.h"
#include "tune/order.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A module that gets an adapter. */
typedef struct Chosen {
    NnModule *module;
    int block, rank;
    float scale;
    mlx_array a; /* first values; owned by the open scope */
} Chosen;

typedef struct Choosing {
    TuneModel *model;
    const TuneAdapterOptions *options;
    const char *order; /* of the modules of a block */
    bool *found;       /* keys[i] named a module */
    Chosen *chosen;    /* in the order in which values are drawn */
    size_t count, capacity;
    Error *err;
} Choosing;

/* ---- finding modules ------------------------------------------------------------------ */

static NnModule *module_at(const TuneModel *model, const char *path) {
    const NnParams *params = model->lm->params;
    for (size_t i = 0; i < nn_params_module_count(params); i++) {
        NnModule *module = nn_params_module(params, i);
        if (strcmp(module->path, path) == 0) return module;
    }
    return NULL;
}

/* The block whose tensors begin so, and the rest of the path; TUNE_OUTSIDE. */
static int block_of(const TuneModel *model, const char *path, const char **rest) {
    char prefix[256];
    for (int i = model_decoder_blocks(model->lm->decoder) - 1; i >= 0; i--) {
        model_decoder_block_prefix(model->lm->decoder, i, prefix, sizeof prefix);
        if (!base_starts_with(path, prefix)) continue;
        *rest = path + strlen(prefix);
        return i;
    }
    *rest = path;
    return TUNE_OUTSIDE;
}

static bool named(Choosing *choosing, const char *path) {
    bool hit = false;
    for (size_t i = 0; i < choosing->options->n_keys; i++) {
        if (strcmp(choosing->options->keys[i], path) != 0) continue;
        choosing->found[i] = hit = true;
    }
    return hit;
}

static bool choose(Choosing *choosing, NnModule *module, int block, const char *rest) {
    const TuneAdapterOptions *options = choosing->options;
    for (size_t i = 0; i < choosing->count; i++) {
        if (choosing->chosen[i].module == module)
            return base_fail(
                choosing->err, ERROR_INPUT,
                "keys: %s is named twice, by its whole path and by its path in a block",
                module->path);
    }
    if (options->kind == TUNE_DORA && module->kind == NN_SWITCH) {
        base_fail(choosing->err, ERROR_UNSUPPORTED, "DoRA cannot train the experts %s",
                  module->path);
        return base_hint(choosing->err, "Choose other modules with keys, or LoRA");
    }
    Chosen chosen = {.module = module, .block = block, .rank = options->rank};
    const json_t *own = json_object_get(options->ranks, module->path);
    if (!own) own = json_object_get(options->ranks, rest);
    if (own) chosen.rank = (int)json_integer_value(own);
    if (chosen.rank < 1 || chosen.rank > 1 << 16)
        return base_fail(choosing->err, ERROR_INPUT, "the rank of %s must be at least 1",
                         module->path);
    chosen.scale = options->scale;
    if (options->rank_stabilised)
        chosen.scale = (float)((double)options->scale * options->rank / sqrt(chosen.rank));
    if (chosen.rank != options->rank) choosing->model->pairs_differ = true;
    choosing->chosen = base_grow(choosing->chosen, &choosing->capacity, choosing->count + 1,
                                 sizeof *choosing->chosen);
    choosing->chosen[choosing->count++] = chosen;
    return true;
}

/* The modules of a block, in order: all, or those that a key names from the block on. */
static bool choose_in_block(Choosing *choosing, int block) {
    char prefix[256], path[512];
    model_decoder_block_prefix(choosing->model->lm->decoder, block, prefix, sizeof prefix);
    for (const char *at = choosing->order; *(at += strspn(at, " "));) {
        const int length = (int)strcspn(at, " ");
        snprintf(path, sizeof path, "%s%.*s", prefix, length, at);
        at += length;
        NnModule *module = module_at(choosing->model, path);
        const char *rest = path + strlen(prefix);
        if (!module || (choosing->options->n_keys && !named(choosing, rest))) continue;
        if (!choose(choosing, module, block, rest)) return false;
    }
    return true;
}

/* Modules that a key names by their whole path; the last one first, as mlx_lm meets
 * them: head, blocks, embedding. */
static bool choose_by_path(Choosing *choosing) {
    const NnParams *params = choosing->model->lm->params;
    const size_t count = nn_params_module_count(params);
    static const struct {
        bool inside;
        NnModuleKind outside; /* of those outside of blocks */
    } turns[] = {{false, NN_LINEAR}, {true, NN_LINEAR}, {false, NN_EMBEDDING}};
    for (size_t turn = 0; turn < BASE_COUNT(turns); turn++) {
        for (size_t i = count; i-- > 0;) {
            NnModule *module = nn_params_module(params, i);
            const char *rest;
            const int block = block_of(choosing->model, module->path, &rest);
            const bool inside = block != TUNE_OUTSIDE;
            if (inside != turns[turn].inside || (!inside && module->kind != turns[turn].outside))
                continue;
            if (named(choosing, module->path) && !choose(choosing, module, block, rest))
                return false;
        }
    }
    return true;
}

/* A key may also name what only blocks that stay frozen have. */
static bool check_keys(Choosing *choosing) {
    const TuneAdapterOptions *options = choosing->options;
    const NnParams *params = choosing->model->lm->params;
    for (size_t i = 0; i < nn_params_module_count(params); i++) {
        const char *rest;
        block_of(choosing->model, nn_params_module(params, i)->path, &rest);
        named(choosing, rest);
    }
    for (size_t i = 0; i < options->n_keys; i++) {
        if (choosing->found[i]) continue;
        base_fail(choosing->err, ERROR_INPUT, "keys: the model has no module %s", options->keys[i]);
        return base_hint(choosing->err, "Those of a block are%s", choosing->order);
    }
    return true;
}

/* ---- adapters --------------------------------------------------------------------------- */

static void draw(Choosing *choosing, Chosen *chosen) {
    Dropout *chain = &choosing->model->dropout;
    const NnModule *module = chosen->module;
    if (choosing->options->compat) nn_dropout_key(chain); /* a base layer that is thrown away */
    const int pair[] = {module->in, chosen->rank},
              experts[] = {module->experts, chosen->rank, module->in};
    const bool is_switch = module->kind == NN_SWITCH;
    const double bound = 1 / sqrt(module->in);
    chosen->a = mx_uniform_of(nn_dropout_key(chain), -bound, bound, is_switch ? experts : pair,
                              is_switch ? 3 : 2);
}

static TuneTensor *add_tensor(TuneModel *model, TuneTensor tensor, mlx_array value) {
    model->tensors =
        base_grow(model->tensors, &model->capacity, model->count + 1, sizeof *model->tensors);
    TuneTensor *added = &model->tensors[model->count++];
    *added = tensor;
    mx_store(&added->value, value);
    return added;
}

static void add_leaf(TuneModel *model, const Chosen *chosen, TuneLeaf leaf, const char *name,
                     mlx_array value) {
    TuneTensor tensor = {.name = base_format("%s.%s", chosen->module->path, name),
                         .module = chosen->module,
                         .leaf = leaf,
                         .block = chosen->block};
    add_tensor(model, tensor, value);
}

static void add_adapter(TuneModel *model, const Chosen *chosen) {
    NnModule *module = chosen->module;
    module->lora.scale = chosen->scale;
    if (model->dropout.p > 0) module->lora.dropout = &model->dropout;
    if (model->kind == TUNE_DORA) {
        module->lora.lengths = nn_params_adopt(model->lm->params, nn_module_lengths(module));
        add_leaf(model, chosen, TUNE_LEAF_M, "m", module->lora.lengths);
    }
    add_leaf(model, chosen, TUNE_LEAF_A, "lora_a", chosen->a);
    mlx_array b = module->kind == NN_SWITCH
                      ? mx_zeros(MX_SHAPE(module->experts, module->out, chosen->rank), MLX_FLOAT32)
                      : mx_zeros(MX_SHAPE(chosen->rank, module->out), MLX_FLOAT32);
    add_leaf(model, chosen, TUNE_LEAF_B, "lora_b", b);
}

/* mlx_lm's tree: embeddings, blocks upwards with children as they are defined, head. */
static void add_adapters(Choosing *choosing) {
    TuneModel *model = choosing->model;
    const int blocks = model_decoder_blocks(model->lm->decoder);
    for (int place = TUNE_OUTSIDE; place <= blocks; place++) {
        for (size_t i = choosing->count; i-- > 0;) {
            const Chosen *chosen = &choosing->chosen[i];
            const bool head = chosen->block == TUNE_OUTSIDE && chosen->module->kind == NN_LINEAR;
            if ((head ? blocks : chosen->block) == place) add_adapter(model, chosen);
        }
    }
}

static bool open_adapters(TuneModel *model, const TuneAdapterOptions *options, int first,
                          Error *err) {
    Choosing choosing = {.model = model,
                         .options = options,
                         .order = tune_module_order(lm_model_config(model->lm)),
                         .found = base_calloc(options->n_keys + 1, sizeof(bool)),
                         .err = err};
    bool good = true;
    for (int i = first; i < model_decoder_blocks(model->lm->decoder) && good; i++)
        good = choose_in_block(&choosing, i);
    good = good && (options->n_keys == 0 || (choose_by_path(&choosing) && check_keys(&choosing)));
    if (good && choosing.count == 0)
        good =
            base_fail(err, ERROR_UNSUPPORTED, "%s: there is nothing that an adapter could stand on",
                      lm_model_folder(model->lm));
    for (size_t i = 0; i < choosing.count && good; i++) draw(&choosing, &choosing.chosen[i]);
    if (good) add_adapters(&choosing);
    free(choosing.found);
    free(choosing.chosen);
    return good;
}

/* ---- whole blocks ------------------------------------------------------------------------ */

typedef struct Names {
    const NnParams *params;
    const char *prefix;
    struct Place {
        const char *name;
        mlx_array array;
        size_t place;
    } * items;
    size_t count, capacity;
} Names;

static void collect(void *context, const char *name, mlx_array array) {
    Names *names = context;
    const size_t place = nn_params_place(names->params, name);
    if (place == 0 || !base_starts_with(name, names->prefix)) return;
    names->items =
        base_grow(names->items, &names->capacity, names->count + 1, sizeof *names->items);
    names->items[names->count++] = (struct Place){name, array, place};
}

static int by_place(const void *a, const void *b) {
    const struct Place *left = a, *right = b;
    return (left->place > right->place) - (left->place < right->place);
}

static bool refuse_packed(const TuneModel *model, int first, Error *err) {
    const NnParams *params = model->lm->params;
    for (size_t i = 0; i < nn_params_module_count(params); i++) {
        const NnModule *module = nn_params_module(params, i);
        const char *rest;
        if (module->quant.group_size == 0 || block_of(model, module->path, &rest) < first) continue;
        base_fail(err, ERROR_UNSUPPORTED, "%s: %s is quantised, and packed weights cannot be tuned",
                  lm_model_folder(model->lm), module->path);
        return base_hint(err, "Train an adapter (lora or dora), or the model that was quantised");
    }
    return true;
}

static bool open_whole(TuneModel *model, const char *dtype_name, int first, Error *err) {
    if (!refuse_packed(model, first, err)) return false;
    mlx_dtype dtype = MLX_FLOAT32;
    for (int block = first; block < model_decoder_blocks(model->lm->decoder); block++) {
        char prefix[256];
        model_decoder_block_prefix(model->lm->decoder, block, prefix, sizeof prefix);
        Names names = {.params = model->lm->params, .prefix = prefix};
        nn_params_each(model->lm->params, collect, &names);
        if (names.count) qsort(names.items, names.count, sizeof *names.items, by_place);
        for (size_t i = 0; i < names.count; i++) {
            mlx_array value = names.items[i].array;
            if (dtype_name && mx_dtype_parse(dtype_name, &dtype) && mx_is_float(mx_dtype(value)))
                value = mx_cast(value, dtype);
            TuneTensor tensor = {
                .name = base_strdup(names.items[i].name), .leaf = TUNE_LEAF_WHOLE, .block = block};
            mx_store(&add_tensor(model, tensor, value)->base, value);
        }
        free(names.items);
    }
    return true;
}

/* ---- life ---------------------------------------------------------------------------------- */

static bool eval_values(const TuneModel *model, Error *err) {
    mlx_array *values = base_alloc((model->count + 1) * sizeof *values);
    for (size_t i = 0; i < model->count; i++) values[i] = model->tensors[i].value;
    mx_eval(values, model->count);
    free(values);
    return mx_check(err);
}

/* The lowest block that must be differentiated. */
static int lowest_block(const TuneModel *model) {
    int lowest = model_decoder_blocks(model->lm->decoder);
    for (size_t i = 0; i < model->count; i++) {
        const TuneTensor *tensor = &model->tensors[i];
        if (tensor->block != TUNE_OUTSIDE)
            lowest = BASE_MIN(lowest, tensor->block);
        else if (tensor->module->kind == NN_EMBEDDING)
            lowest = 0;
    }
    return lowest;
}

static bool open_parts(TuneModel *model, const char *dtype, const TuneAdapterOptions *options,
                       Error *err) {
    if (!(options->dropout >= 0 && options->dropout < 1))
        return base_fail(err, ERROR_INPUT, "dropout %g is not in [0, 1)", (double)options->dropout);
    const int blocks = model_decoder_blocks(model->lm->decoder);
    if (options->num_layers > blocks) {
        base_fail(err, ERROR_INPUT, "num-layers: the model has %d blocks, %d were asked for",
                  blocks, options->num_layers);
        return base_hint(err, "--num-layers -1 takes all");
    }
    const int first = options->num_layers > 0 ? blocks - options->num_layers : 0;
    model->kind = options->kind;
    model->rank = options->rank;
    model->scale = options->scale;
    if (options->rank_stabilised) model->scale *= sqrtf((float)options->rank);
    model->dropout.p = options->dropout;
    mx_store(&model->dropout.chain, mx_key(options->seed));
    if (options->n_keys) model->keys = json_array();
    for (size_t i = 0; i < options->n_keys; i++)
        json_array_append_new(model->keys, json_string(options->keys[i]));
    bool good = options->kind == TUNE_FULL ? open_whole(model, dtype, first, err)
                                           : open_adapters(model, options, first, err);
    good = good && mx_check(err) && eval_values(model, err);
    model->first_block = lowest_block(model);
    tune_model_unbind(model);
    return good;
}

/* Bytes of freed arrays that are kept. A step asks again for what the step before it
 * gave back; from the system every page of it would be cleared first. */
static const size_t kept_bytes = (size_t)512 << 20;

static void keep_freed_memory(void) {
    size_t before, replaced;
    if (mlx_set_cache_limit(&before, kept_bytes) == 0 && before > kept_bytes)
        mlx_set_cache_limit(&replaced, before);
}

TuneModel *tune_model_new(LmModel *lm, const char *dtype, const TuneAdapterOptions *options,
                          Error *err) {
    TuneModel *model = base_calloc(1, sizeof *model);
    model->lm = lm;
    keep_freed_memory();
    mx_scope s = mx_open();
    const bool good = !options || open_parts(model, dtype, options, err);
    mx_drop(s);
    if (good) return model;
    tune_model_close(model);
    return NULL;
}

TuneModel *tune_model_open(const char *folder, const LmOpenOptions *open,
                           const TuneAdapterOptions *options, Error *err) {
    LmOpenOptions base = open ? *open : (LmOpenOptions){0};
    base.adapter_path = NULL;
    LmModel *lm = lm_model_open(folder, &base, err);
    return lm ? tune_model_new(lm, base.dtype, options, err) : NULL;
}

void tune_model_close(TuneModel *model) {
    if (!model) return;
    for (size_t i = 0; i < model->count; i++) {
        free(model->tensors[i].name);
        mx_free(&model->tensors[i].value);
        mx_free(&model->tensors[i].base);
    }
    free(model->tensors);
    json_decref(model->keys);
    mx_free(&model->dropout.chain);
    lm_model_close(model->lm);
    free(model);
}

/* ---- what is in force ------------------------------------------------------------------------ */

static void bind(TuneTensor *tensor, mlx_array value) {
    tensor->current = value;
    if (!tensor->module) return;
    Lora *lora = &tensor->module->lora;
    mlx_array *const places[] = {
        [TUNE_LEAF_M] = &lora->m, [TUNE_LEAF_A] = &lora->a, [TUNE_LEAF_B] = &lora->b};
    *places[tensor->leaf] = value;
}

void tune_model_bind(TuneModel *model, size_t first, size_t count, const mlx_array *values) {
    for (size_t i = 0; i < count; i++) bind(&model->tensors[first + i], values[i]);
}

void tune_model_unbind(TuneModel *model) {
    for (size_t i = 0; i < model->count; i++) bind(&model->tensors[i], model->tensors[i].value);
}

void tune_model_bind_base(TuneModel *model) {
    for (size_t i = 0; i < model->count; i++) bind(&model->tensors[i], model->tensors[i].base);
}

size_t tune_model_block(const TuneModel *model, int block, size_t *first) {
    size_t count = 0;
    for (size_t i = 0; i < model->count; i++) {
        if (model->tensors[i].block != block) continue;
        if (count++ == 0) *first = i;
    }
    return count;
}

/* ---- asking ------------------------------------------------------------------------------------
 */

LmModel *tune_model_lm(TuneModel *model) {
    return model->lm;
}

size_t tune_model_count(const TuneModel *model) {
    return model->count;
}

const char *tune_model_name(const TuneModel *model, size_t i) {
    return model->tensors[i].name;
}

mlx_array tune_model_value(const TuneModel *model, size_t i) {
    return model->tensors[i].value;
}

void tune_model_set(TuneModel *model, size_t i, mlx_array value) {
    TuneTensor *tensor = &model->tensors[i];
    mx_store(&tensor->value, value);
    bind(tensor, tensor->value);
}

size_t tune_model_trainable(const TuneModel *model) {
    size_t values = 0;
    for (size_t i = 0; i < model->count; i++) values += mx_size(model->tensors[i].value);
    return values;
}

size_t tune_model_total(const TuneModel *model) {
    return lm_model_parameters(model->lm);
}

static void set_of_module(json_t *parameters, const char *key, const TuneTensor *tensor,
                          json_t *value) {
    json_t *object = json_object_get(parameters, key);
    if (!object) {
        object = json_object();
        json_object_set_new(parameters, key, object);
    }
    json_object_set_new(object, tensor->module->path, value);
}

json_t *tune_model_parameters(const TuneModel *model) {
    if (model->kind == TUNE_FULL) return json_null();
    json_t *parameters = json_object();
    json_object_set_new(parameters, "rank", json_integer(model->rank));
    json_object_set_new(parameters, "dropout", base_json_float((double)model->dropout.p));
    json_object_set_new(parameters, "scale", base_json_float((double)model->scale));
    if (model->keys) json_object_set(parameters, "keys", model->keys);
    for (size_t i = 0; i < model->count && model->pairs_differ; i++) {
        const TuneTensor *tensor = &model->tensors[i];
        if (tensor->leaf != TUNE_LEAF_B) continue;
        const bool along_rows = tensor->module->kind != NN_SWITCH;
        const int rank = mx_dim(tensor->value, along_rows ? 0 : -1);
        set_of_module(parameters, "ranks", tensor, json_integer(rank));
        set_of_module(parameters, "scales", tensor, json_real((double)tensor->module->lora.scale));
    }
    return parameters;
}

mlx_array tune_model_random(const TuneModel *model) {
    return model->dropout.chain;
}

void tune_model_set_random(TuneModel *model, mlx_array key) {
    mx_store(&model->dropout.chain, key);
}
