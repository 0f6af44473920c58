/* PEFT's adapters; see peft.h. */
#include "lm/peft.h"

#include <math.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>

/* ---- names ---------------------------------------------------------------------------- */

static const struct {
    const char *theirs, *ours;
    bool turned;
} leaves[] = {
    {".lora_A.", "lora_a", true},           {".lora_B.", "lora_b", true},
    {".lora_embedding_A", "lora_a", true},  {".lora_embedding_B", "lora_b", true},
    {".lora_magnitude_vector", "m", false},
};

bool lm_peft_name(const char *name, LmPeftName *parts) {
    static const char prefix[] = "base_model.model.";
    const char *module = base_starts_with(name, prefix) ? name + strlen(prefix) : name;
    for (size_t i = 0; i < BASE_COUNT(leaves); i++) {
        const char *at = strstr(module, leaves[i].theirs);
        if (!at) continue;
        *parts = (LmPeftName){module, (size_t)(at - module), leaves[i].ours, leaves[i].turned};
        return true;
    }
    return false;
}

const char *lm_peft_in_layer(const char *path) {
    for (const char *part = path; part; part = strchr(part, '.')) {
        part += *part == '.';
        const size_t digits = strspn(part, "0123456789");
        if (digits > 0 && digits <= 6 && part[digits] == '.') return part;
    }
    return NULL;
}

/* What old and new transformers call a block's experts and router. */
static const char *past_mixture(const char *tail) {
    static const char *const names[] = {".mlp.", ".block_sparse_moe."};
    const char *dot = strchr(tail, '.');
    for (size_t i = 0; dot && i < BASE_COUNT(names); i++)
        if (base_starts_with(dot, names[i])) return dot + strlen(names[i]);
    return NULL;
}

bool lm_peft_same(const char *theirs, const char *ours) {
    if (strcmp(theirs, ours) == 0) return true;
    const char *left = lm_peft_in_layer(theirs), *right = lm_peft_in_layer(ours);
    if (!left || !right) return false;
    if (strcmp(left, right) == 0) return true;
    const char *left_rest = past_mixture(left), *right_rest = past_mixture(right);
    const size_t number = strcspn(left, ".");
    return left_rest && right_rest && strcmp(left_rest, right_rest) == 0 &&
           strncmp(left, right, number + 1) == 0;
}

char *lm_peft_path(const char *model_type, const char *ours) {
    static const struct {
        const char *type, *ours, *theirs;
    } layers[] = {{"gpt2", "model.h.", "transformer.h."},
                  {"gpt_neox", "model.h.", "gpt_neox.layers."}};
    for (size_t i = 0; i < BASE_COUNT(layers); i++)
        if (strcmp(model_type, layers[i].type) == 0 && base_starts_with(ours, layers[i].ours))
            return base_format("%s%s", layers[i].theirs, ours + strlen(layers[i].ours));
    return base_strdup(ours);
}

typedef struct Search {
    const char *theirs;
    const char *found; /* "<module>.weight" of the tree, whose text it keeps */
} Search;

static void compare(void *context, const char *name, mlx_array array) {
    static const char leaf[] = ".weight";
    Search *search = context;
    (void)array;
    if (search->found || !base_ends_with(name, leaf)) return;
    char *path = base_strndup(name, strlen(name) - strlen(leaf));
    if (lm_peft_same(search->theirs, path)) search->found = name;
    free(path);
}

/* Our path of a module that PEFT calls `theirs`; theirs where we have none. Caller frees. */
static char *our_path(const NnParams *base, const char *theirs) {
    Search search = {.theirs = theirs};
    if (!nn_params_has(base, "%s.weight", theirs)) nn_params_each(base, compare, &search);
    return search.found ? base_strndup(search.found, strlen(search.found) - strlen(".weight"))
                        : base_strdup(theirs);
}

/* ---- scales --------------------------------------------------------------------------- */

/* A key of rank_pattern is a regular expression for the end of a path. */
static bool fits(const char *key, const char *path) {
    char *whole = base_format("^(.*\\.)?(%s)$", key);
    regex_t compiled;
    bool good = false;
    if (regcomp(&compiled, whole, REG_EXTENDED | REG_NOSUB) == 0) {
        good = regexec(&compiled, path, 0, NULL, 0) == 0;
        regfree(&compiled);
    }
    free(whole);
    return good;
}

static double number_of(const json_t *config, const char *pattern, const char *key,
                        const char *path) {
    const char *name;
    json_t *value;
    json_object_foreach(json_object_get(config, pattern), name, value) {
        if (fits(name, path)) return json_number_value(value);
    }
    return json_number_value(json_object_get(config, key));
}

double lm_peft_scale(const json_t *config, const char *path) {
    const double rank = number_of(config, "rank_pattern", "r", path);
    const double alpha = number_of(config, "alpha_pattern", "lora_alpha", path);
    if (!(rank > 0)) return 0;
    return json_is_true(json_object_get(config, "use_rslora")) ? alpha / sqrt(rank) : alpha / rank;
}

/* ---- reading -------------------------------------------------------------------------- */

typedef struct Reading {
    const NnParams *base;
    const json_t *config;
    NnParams *adapter;
    NnParams *stacks; /* pairs of whole parameters, under PEFT's paths */
    const char *file;
    double scale;
    Error *err;
    bool failed;
} Reading;

static void add(NnParams *params, const char *path, const char *leaf, mlx_array array) {
    char *name = base_format("%s.%s", path, leaf);
    nn_params_add(params, name, array);
    free(name);
}

/* lora_b takes what a module's scale has beside the common one. */
static mlx_array scaled(const Reading *reading, const char *path, mlx_array b) {
    const double scale = lm_peft_scale(reading->config, path);
    if (scale == reading->scale) return b;
    return mx_mul_scalar(b, scale / reading->scale);
}

/* "....experts", also inside other wrappers of the same module. */
static bool is_stack(const char *path) {
    static const char inner[] = ".base_layer", experts[] = ".experts";
    const char *at = strstr(path, experts);
    if (!at) return false;
    for (at += strlen(experts); base_starts_with(at, inner);) at += strlen(inner);
    return *at == '\0';
}

static void read_tensor(void *context, const char *name, mlx_array array) {
    Reading *reading = context;
    LmPeftName parts;
    if (reading->failed) return;
    if (!lm_peft_name(name, &parts)) {
        base_fail(reading->err, ERROR_UNSUPPORTED, "%s: tensor %s is not a LoRA tensor",
                  reading->file, name);
        reading->failed = true;
        return;
    }
    char *theirs = base_strndup(parts.module, parts.length);
    if (is_stack(theirs)) {
        add(reading->stacks, theirs, parts.leaf, array);
    } else {
        char *ours = our_path(reading->base, theirs);
        if (parts.turned && mx_ndim(array) == 2) array = mx_swapaxes(array, 0, 1);
        if (strcmp(parts.leaf, "lora_b") == 0) array = scaled(reading, theirs, array);
        add(reading->adapter, ours, parts.leaf, array);
        free(ours);
    }
    free(theirs);
}

/* ---- experts as one parameter ----------------------------------------------------------- */

/* a [E * r, in] -> [E, r, in] and b [out, r * E] -> [E, out, r], as the parameter's delta
 * is einsum("o r e, e r i -> e o i"). */
static void add_projection(const Reading *reading, const char *moe, const char *name,
                           const char *key, mlx_array a, mlx_array b, int experts) {
    const int rank = mx_dim(a, 0) / experts;
    char *path = base_format("%s.switch_mlp.%s", moe, name),
         *named = base_format("%s.%s", moe, key);
    b = mx_reshape(b, MX_SHAPE(mx_dim(b, 0), rank, experts));
    b = mx_transpose(b, (const int[]){2, 0, 1}, 3);
    add(reading->adapter, path, "lora_a", mx_reshape(a, MX_SHAPE(experts, rank, mx_dim(a, 1))));
    add(reading->adapter, path, "lora_b", scaled(reading, named, b));
    free(path);
    free(named);
}

static mlx_array weight_of(const NnParams *base, const char *moe, const char *name) {
    char *path = base_format("%s.switch_mlp.%s.weight", moe, name);
    mlx_array weight = nn_params_peek(base, path);
    free(path);
    return weight;
}

static void read_stack(void *context, const char *name, mlx_array a) {
    Reading *reading = context;
    if (reading->failed || !base_ends_with(name, ".lora_a")) return;
    char *theirs = base_strndup(name, strlen(name) - strlen(".lora_a"));
    char *second = base_format("%s.lora_b", theirs);
    const size_t block = (size_t)(strstr(theirs, ".experts") - theirs);
    char *probe = base_format("%.*s.switch_mlp.down_proj", (int)block, theirs);
    char *found = our_path(reading->base, probe);
    char *moe = base_strndup(found, strlen(found) - strlen(".switch_mlp.down_proj"));
    mlx_array b = nn_params_peek(reading->stacks, second);
    mlx_array gate = weight_of(reading->base, moe, "gate_proj"),
              down = weight_of(reading->base, moe, "down_proj");
    bool known = b.ctx && gate.ctx && down.ctx && mx_ndim(a) == 2 && mx_ndim(b) == 2;
    const int experts = known ? mx_dim(down, 0) : 1, hidden = known ? mx_dim(down, 1) : 0;
    const int inner = known ? mx_dim(gate, 1) : 0;
    known = known && mx_dim(a, 0) == mx_dim(b, 1) && mx_dim(a, 0) % experts == 0;
    if (known && mx_dim(a, 1) == inner && mx_dim(b, 0) == hidden) {
        add_projection(reading, moe, "down_proj", "experts.down_proj", a, b, experts);
    } else if (known && mx_dim(a, 1) == hidden && mx_dim(b, 0) == 2 * inner) {
        const char *key = "experts.gate_up_proj";
        add_projection(reading, moe, "gate_proj", key, a, mx_slice(b, 0, 0, inner), experts);
        add_projection(reading, moe, "up_proj", key, a, mx_slice(b, 0, inner, 2 * inner), experts);
    } else {
        base_fail(reading->err, ERROR_INPUT, "%s: %s does not fit the model's experts",
                  reading->file, theirs);
        base_hint(reading->err, "Was this adapter trained on another model?");
        reading->failed = true;
    }
    free(theirs);
    free(second);
    free(probe);
    free(found);
    free(moe);
}

bool lm_peft_read(const char *file, const json_t *config, const NnParams *base, NnParams *adapter,
                  float *scale, Error *err) {
    const double rank = json_number_value(json_object_get(config, "r"));
    if (!(rank > 0)) return base_fail(err, ERROR_INPUT, "%s: r must be a positive rank", file);
    const json_t *alpha = json_object_get(config, "lora_alpha");
    if (!json_is_number(alpha) || json_number_value(alpha) == 0)
        return base_fail(err, ERROR_INPUT, "%s: lora_alpha must be a number other than 0", file);
    Reading reading = {.base = base,
                       .config = config,
                       .adapter = adapter,
                       .stacks = nn_params_new(file, NULL, NULL),
                       .file = file,
                       .scale = lm_peft_scale(config, ""),
                       .err = err};
    *scale = (float)reading.scale;
    const MxFileVisitor visitor = {.tensor = read_tensor, .context = &reading};
    bool good = mx_load_safetensors(file, visitor, err) && !reading.failed;
    if (good) nn_params_each(reading.stacks, read_stack, &reading);
    nn_params_free(reading.stacks);
    return good && !reading.failed;
}
