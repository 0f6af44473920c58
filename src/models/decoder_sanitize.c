/* Names and layouts that other tools write become those that mlx_lm writes, which
 * are the ones a row asks for. Everything here is lazy (views, stacks) and can be
 * applied again to its own result. The steps of a row come first, then what all
 * mixtures of experts have in common: one matrix an expert, or all of them in one
 * tensor, become a stack a projection. */
#include "models/decoder.h"

#include <stdarg.h>
#include <string.h>

void model_name(char out[MODEL_NAME], const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(out, MODEL_NAME, format, arguments);
    va_end(arguments);
}

/* ---- names ---------------------------------------------------------------------------- */

typedef struct Names {
    const char **items;
    size_t count, capacity;
} Names;

static void count_name(void *context, const char *name, mlx_array array) {
    (void)name;
    (void)array;
    ((Names *)context)->capacity++;
}

static void keep_name(void *context, const char *name, mlx_array array) {
    (void)array;
    Names *names = context;
    names->items[names->count++] = name;
}

/* The names at this moment; the tree keeps their text. */
static Names names_of(NnParams *params) {
    Names names = {0};
    nn_params_each(params, count_name, &names);
    names.items = nn_params_alloc(params, names.capacity + 1, sizeof *names.items);
    nn_params_each(params, keep_name, &names);
    return names;
}

/* The tensor moves, and with its scales the way its module is packed. */
static void move(NnParams *params, const char *from, const char *to, mlx_array array) {
    nn_params_add(params, to, array);
    if (strcmp(from, to) != 0) nn_params_remove(params, from);
    if (!base_ends_with(from, ".scales") || !base_ends_with(to, ".scales")) return;
    char old_path[MODEL_NAME], new_path[MODEL_NAME];
    model_name(old_path, "%.*s", (int)(strlen(from) - 7), from);
    model_name(new_path, "%.*s", (int)(strlen(to) - 7), to);
    MxQuant quant;
    if (nn_params_quant(params, old_path, &quant)) nn_params_set_quant(params, new_path, quant);
}

/* name with its first `from` replaced. */
static void replaced(const char *name, const char *from, const char *to, char out[MODEL_NAME]) {
    const char *at = strstr(name, from);
    model_name(out, "%.*s%s%s", (int)(at - name), name, to, at + strlen(from));
}

/* ---- wrappers --------------------------------------------------------------------------- */

/* Models that see keep their language model under a prefix; what sees is dropped. */
static void unwrap(const Loading *l) {
    static const char *const seeing[] = {"vision_tower", "multi_modal_projector", "visual.",
                                         "vision_model", "audio_tower",           "mm_projector"};
    NnParams *p = l->params;
    Names names = names_of(p);
    for (size_t i = 0; i < names.count; i++) {
        const char *name = names.items[i];
        bool seen = false;
        for (size_t s = 0; s < BASE_COUNT(seeing); s++) seen = seen || strstr(name, seeing[s]);
        if (seen) {
            nn_params_remove(p, name);
            continue;
        }
        char to[MODEL_NAME];
        if (base_starts_with(name, "model.language_model.")) {
            model_name(to, "%smodel.%s", l->prefix, name + strlen("model.language_model."));
        } else if (!base_starts_with(name, l->prefix)) {
            model_name(to, "%s%s", l->prefix, name);
        } else {
            continue;
        }
        move(p, name, to, nn_params_peek(p, name));
    }
}

/* ---- a row's steps ---------------------------------------------------------------------- */

static void halve(NnParams *p, const SanitizeRule *rule, const char *name) {
    bool columns = rule->kind == RULE_HALVES_AS_COLUMNS;
    mlx_array halves[2];
    mx_split(nn_params_peek(p, name), 2, columns ? -1 : -2, halves);
    const char *const to[] = {rule->to, rule->also};
    for (int i = 0; i < 2; i++) {
        char target[MODEL_NAME];
        replaced(name, rule->from, to[i], target);
        nn_params_add(p, target, columns ? mx_swapaxes(halves[i], -1, -2) : halves[i]);
    }
    nn_params_remove(p, name);
}

/* The number of the layer that a name is of, or -1. */
static int layer_of(const Loading *l, const char *name) {
    const char *start = model_outer_path(l, l->arch.layers);
    size_t length = strlen(start);
    if (!base_starts_with(name, start) || name[length] != '.') return -1;
    int layer = -1, used = 0;
    return sscanf(name + length, ".%d.%n", &layer, &used) == 1 && used > 0 ? layer : -1;
}

static void apply(Sanitizer *s, const SanitizeRule *rule) {
    NnParams *p = s->params;
    if (rule->kind == RULE_SPECIAL) {
        rule->special(s);
        return;
    }
    static const char *const spellings[] = {"num_hidden_layers", NULL};
    int layers = rule->kind == RULE_DROP_LAYERS
                     ? model_size(s->loading, spellings, s->loading->arch.sizes.layers)
                     : 0;
    Names names = names_of(p);
    for (size_t i = 0; i < names.count; i++) {
        const char *name = names.items[i];
        if (rule->kind == RULE_DROP_LAYERS) {
            if (layer_of(s->loading, name) >= layers) nn_params_remove(p, name);
            continue;
        }
        if (!strstr(name, rule->from)) continue;
        char to[MODEL_NAME];
        switch (rule->kind) {
        case RULE_DROP: nn_params_remove(p, name); break;
        case RULE_REPLACE:
            if (strstr(name, rule->to)) break;
            replaced(name, rule->from, rule->to, to);
            move(p, name, to, nn_params_peek(p, name));
            break;
        case RULE_HALVES:
        case RULE_HALVES_AS_COLUMNS:
            if (base_ends_with(name, rule->from)) halve(p, rule, name);
            break;
        case RULE_TURN:
            if (!base_ends_with(name, rule->from)) break;
            replaced(name, rule->from, rule->to, to);
            move(p, name, to, mx_swapaxes(nn_params_peek(p, name), -1, -2));
            break;
        case RULE_DROP_LAYERS:
        case RULE_SPECIAL: break;
        }
    }
}

/* ---- experts ----------------------------------------------------------------------------- */

static const struct {
    const char *from, *to;
} projections[] = {
    {"gate_proj", "gate_proj"}, {"up_proj", "up_proj"}, {"down_proj", "down_proj"},
    {"w1", "gate_proj"},        {"w3", "up_proj"},      {"v1", "up_proj"},
    {"w2", "down_proj"},        {"fc1", "fc1"},         {"fc2", "fc2"},
};
static const char *const parts[] = {"weight", "scales", "biases", "bias"};

/* <from>.<e>.<projection>.<part> of all experts -> <to>.<projection>.<part> */
static void stack(NnParams *p, const char *from, int experts, const char *projection,
                  const char *part, const char *to) {
    if (!nn_params_has(p, "%s.0.%s.%s", from, projection, part)) return;
    mlx_array *rows = nn_params_alloc(p, (size_t)experts, sizeof *rows);
    char name[MODEL_NAME], target[MODEL_NAME];
    for (int e = 0; e < experts; e++) {
        model_name(name, "%s.%d.%s.%s", from, e, projection, part);
        rows[e] = nn_params_peek(p, name);
        if (!rows[e].ctx) {
            nn_params_fail(p, ERROR_INPUT, "tensor %s is missing", name);
            return;
        }
        nn_params_remove(p, name);
    }
    model_name(target, "%s.%s", to, part);
    nn_params_add(p, target, mx_stack(rows, (size_t)experts, 0));
    MxQuant quant;
    model_name(name, "%s.0.%s", from, projection);
    if (strcmp(part, "scales") == 0 && nn_params_quant(p, name, &quant))
        nn_params_set_quant(p, to, quant);
}

/* transformers 5: gate_up_proj [E, 2I, D] and down_proj [E, D, I], without suffix. */
static void unfuse(NnParams *p, const char *from, const char *to) {
    char name[MODEL_NAME], target[MODEL_NAME];
    model_name(name, "%s.gate_up_proj", from);
    mlx_array both = nn_params_peek(p, name);
    if (!both.ctx) return;
    static const char *const names[] = {"gate_proj", "up_proj"};
    mlx_array halves[2];
    mx_split(both, 2, -2, halves);
    for (int i = 0; i < 2; i++) {
        model_name(target, "%s.%s.weight", to, names[i]);
        nn_params_add(p, target, halves[i]);
    }
    nn_params_remove(p, name);
    model_name(name, "%s.down_proj", from);
    model_name(target, "%s.down_proj.weight", to);
    mlx_array down = nn_params_peek(p, name);
    if (down.ctx) move(p, name, target, down);
}

static void gather_experts(const Loading *l, int layer) {
    static const char *const homes[] = {
        "mlp.experts", "block_sparse_moe.experts", "feed_forward.experts", "moe.experts", "moe.mlp",
        "ffn.experts"};
    NnParams *p = l->params;
    int experts = model_expert_count(l, layer);
    const char *to = model_path(l, layer, l->arch.moe.experts);
    for (size_t h = 0; h < BASE_COUNT(homes); h++) {
        const char *from = model_path(l, layer, homes[h]);
        unfuse(p, from, to);
        for (size_t j = 0; j < BASE_COUNT(projections); j++) {
            char target[MODEL_NAME];
            model_name(target, "%s.%s", to, projections[j].to);
            for (size_t k = 0; k < BASE_COUNT(parts); k++)
                stack(p, from, experts, projections[j].from, parts[k], target);
        }
    }
}

void model_stack_experts(const Loading *l, int layers) {
    if (!l->arch.moe.router) return;
    mx_scope scope = mx_open();
    for (int i = 0; i < layers && !nn_params_failed(l->params); i++) gather_experts(l, i);
    mx_drop(scope);
}

/* Where a family's head is always of its own (it has a bias) and a file ties its weight
 * to the embedding all the same, as transformers may, the head gets the embedding's. */
static void untie_head(const Loading *l) {
    static const char *const leaves[] = {"weight", "scales", "biases"};
    NnParams *p = l->params;
    const DecoderArch *a = &l->arch;
    const bool tied = json_is_true(json_object_get(l->config, "tie_word_embeddings"));
    const bool by_config = a->tied.value || (a->tied.key && a->tied.key[0]);
    if (!tied || by_config || !model_flag(l, a->head_bias)) return;
    if (nn_params_has(p, "%s.weight", model_outer_path(l, a->head))) return;
    for (size_t i = 0; i < BASE_COUNT(leaves); i++) {
        char from[MODEL_NAME], to[MODEL_NAME];
        model_name(from, "%s.%s", model_outer_path(l, a->embed), leaves[i]);
        model_name(to, "%s.%s", model_outer_path(l, a->head), leaves[i]);
        mlx_array array = nn_params_peek(p, from);
        if (array.ctx) nn_params_add(p, to, array);
    }
}

void model_sanitize_tensors(const Loading *l) {
    Sanitizer s = {.params = l->params, .loading = l};
    mx_scope scope = mx_open();
    if (l->prefix[0]) unwrap(l);
    nn_params_remove_suffix(l->params, "rotary_emb.inv_freq");
    nn_params_remove_suffix(l->params, "rope.inv_freq");
    for (const SanitizeRule *rule = l->arch.rules; rule && rule->from; rule++) apply(&s, rule);
    untie_head(l);
    mx_drop(scope);
}

/* ---- for the steps that are functions ---------------------------------------------------------
 */

void model_each_name(Sanitizer *s, void (*visit)(Sanitizer *s, const char *name)) {
    Names names = names_of(s->params);
    for (size_t i = 0; i < names.count; i++) visit(s, names.items[i]);
}

void model_move(Sanitizer *s, const char *from, const char *to, mlx_array array) {
    move(s->params, from, to, array);
}

void model_replaced(const char *name, const char *from, const char *to, char out[MODEL_NAME]) {
    replaced(name, from, to, out);
}
