/* Adapters are recognised by their tensors: what pairs there are, on which modules of
 * which blocks, with which rank. Settings beside the file add the scale. */
#include "tune/adopt.h"

#include <stdlib.h>
#include <string.h>

#include "lm/peft.h"
#include "tune/internal.h"

/* A module with a pair. */
typedef struct Adapted {
    char *path;       /* "model.layers.3.self_attn.q_proj" */
    int block;        /* 3; TUNE_OUTSIDE */
    const char *rest; /* "self_attn.q_proj"; the path itself outside of blocks */
    int rank;
} Adapted;

typedef struct Found {
    Adapted *items;
    size_t count, capacity;
    bool peft;
} Found;

static void find_block(Adapted *adapted) {
    const char *number = lm_peft_in_layer(adapted->path);
    adapted->block = number ? atoi(number) : TUNE_OUTSIDE;
    adapted->rest = number ? strchr(number, '.') + 1 : adapted->path;
}

/* A pair's first matrix tells its module and its rank. */
static void visit(void *context, const char *name, mlx_array array) {
    static const char leaf[] = ".lora_a";
    Found *found = context;
    LmPeftName parts = {.module = name, .length = strlen(name), .leaf = ""};
    const bool ours = base_ends_with(name, leaf), peft = !ours && lm_peft_name(name, &parts);
    if (mx_ndim(array) < 2 || (!ours && strcmp(parts.leaf, leaf + 1) != 0)) return;
    if (ours) parts.length -= strlen(leaf);
    const int axis = mx_ndim(array) == 3 ? -2 : peft ? 0 : -1;
    Adapted adapted = {.path = base_strndup(parts.module, parts.length),
                       .rank = mx_dim(array, axis)};
    find_block(&adapted);
    found->items =
        base_grow(found->items, &found->capacity, found->count + 1, sizeof *found->items);
    found->items[found->count++] = adapted;
    found->peft |= peft;
}

static int by_place(const void *a, const void *b) {
    const Adapted *left = a, *right = b;
    if (left->block != right->block) return left->block < right->block ? -1 : 1;
    return strcmp(left->rest, right->rest);
}

/* ---- modules ------------------------------------------------------------------------- */

/* How many of the last blocks the pairs stand on, the same modules in each; 0: they do
 * not lie so. Needs them sorted. */
static int regular_blocks(const Found *found, int blocks) {
    if (found->count == 0 || found->items[0].block == TUNE_OUTSIDE) return 0;
    size_t each = 0;
    while (each < found->count && found->items[each].block == found->items[0].block) each++;
    if (found->count % each != 0) return 0;
    const int used = (int)(found->count / each);
    for (size_t i = 0; i < found->count; i++) {
        if (found->items[i].block != blocks - used + (int)(i / each) ||
            strcmp(found->items[i].rest, found->items[i % each].rest) != 0)
            return 0;
    }
    return used;
}

static void list_modules(const Found *found, int blocks, TuneAdopted *adopted) {
    adopted->num_layers = regular_blocks(found, blocks);
    const size_t shown =
        adopted->num_layers ? found->count / (size_t)adopted->num_layers : found->count;
    adopted->keys = json_array();
    for (size_t i = 0; i < shown; i++)
        json_array_append_new(
            adopted->keys,
            json_string(adopted->num_layers ? found->items[i].rest : found->items[i].path));
}

static void list_ranks(const Found *found, TuneAdopted *adopted) {
    size_t most = 0;
    for (size_t i = 0; i < found->count; i++) {
        size_t same = 0;
        for (size_t j = 0; j < found->count; j++)
            same += found->items[j].rank == found->items[i].rank;
        if (same > most) adopted->rank = found->items[i].rank;
        most = BASE_MAX(most, same);
    }
    for (size_t i = 0; i < found->count && most < found->count; i++) {
        if (found->items[i].rank == adopted->rank) continue;
        if (!adopted->ranks) adopted->ranks = json_object();
        json_object_set_new(adopted->ranks, found->items[i].path,
                            json_integer(found->items[i].rank));
    }
}

/* ---- settings ------------------------------------------------------------------------- */

static void read_settings(const json_t *config, const Found *found, TuneAdopted *adopted) {
    if (json_object_get(config, "peft_type")) {
        adopted->scale = lm_peft_scale(config, found->count ? found->items[0].path : "");
        adopted->dropout = json_number_value(json_object_get(config, "lora_dropout"));
        return;
    }
    const json_t *parameters = json_object_get(config, "lora_parameters");
    adopted->scale = json_number_value(json_object_get(parameters, "scale"));
    adopted->dropout = json_number_value(json_object_get(parameters, "dropout"));
}

bool tune_adopt(const char *path, int blocks, TuneAdopted *adopted, Error *err) {
    *adopted = (TuneAdopted){0};
    Found found = {0};
    char *file = tune_adapter_file(path);
    json_t *config = NULL;
    mx_scope s = mx_open();
    const MxFileVisitor visitor = {.tensor = visit, .context = &found};
    const bool good = tune_adapter_config(file, &config, err) &&
                      mx_load_safetensors(file, visitor, err) && mx_check(err);
    mx_drop(s);
    if (good && found.count) {
        qsort(found.items, found.count, sizeof *found.items, by_place);
        adopted->peft = found.peft || json_object_get(config, "peft_type");
        list_modules(&found, blocks, adopted);
        list_ranks(&found, adopted);
        read_settings(config, &found, adopted);
    }
    for (size_t i = 0; i < found.count; i++) free(found.items[i].path);
    free(found.items);
    json_decref(config);
    free(file);
    return good;
}

void tune_adopted_free(TuneAdopted *adopted) {
    json_decref(adopted->ranks);
    json_decref(adopted->keys);
    *adopted = (TuneAdopted){0};
}
