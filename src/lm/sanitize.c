/* Hugging Face's names and layouts to mlx-lm's, by tables: which architectures
 * stack their experts where, what is renamed, what is dropped, what is never
 * quantised. Rules follow the sanitize functions of mlx_lm/models (0.31). */
#include "lm/sanitize.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* ---- words ---------------------------------------------------------------------- */

static bool listed(const char *types, const char *type) {
    size_t length = strlen(type);
    for (const char *at = types; (at = strstr(at, type)) != NULL; at += length)
        if ((at == types || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0'))
            return true;
    return false;
}

/* `name` with the first `from` replaced; caller frees. */
static char *replaced(const char *name, const char *from, const char *to) {
    const char *at = strstr(name, from);
    if (!at) return base_strdup(name);
    return base_format("%.*s%s%s", (int)(at - name), name, to, at + strlen(from));
}

/* ---- dropping and renaming ----------------------------------------------------------- */

typedef struct Rename {
    const char *types; /* "*": all */
    const char *from;  /* a part of the name; '^' in front: its beginning, '$' at the end */
    const char *to;    /* NULL: the tensor is dropped */
} Rename;

static const Rename renames[] = {
    {"*", "rotary_emb.inv_freq$", NULL},
    {"gpt2", ".attn.bias$", NULL},
    {"gpt2", ".attn.masked_bias$", NULL},
    {"gpt2", "^h.", "model.h."},
    {"gpt2", "^wte.", "model.wte."},
    {"gpt2", "^wpe.", "model.wpe."},
    {"gpt2", "^ln_f.", "model.ln_f."},
    {"gpt2", "^transformer.", "model."},
    {"gpt_neox", ".attention.bias$", NULL},
    {"gpt_neox", ".attention.masked_bias$", NULL},
    {"gpt_neox", "^gpt_neox.layers.", "model.h."},
    {"gpt_neox", "^gpt_neox.", "model."},
    {"gpt_neox", "^embed_out.", "model.embed_out."},
    {"gpt_oss", "_proj_blocks$", "_proj.weight"},
    {"gpt_oss", "_proj_scales$", "_proj.scales"},
    {"gpt_oss", "_proj_bias$", "_proj.bias"},
    {"gpt_oss", "experts.gate_up_proj$", "experts.gate_up_proj.weight"},
    {"gpt_oss", "experts.down_proj$", "experts.down_proj.weight"},
    {"gemma3 llama4 mistral3 llava", "^vision_tower.", NULL},
    {"gemma3 llama4 mistral3 llava", "^vision_model.", NULL},
    {"gemma3 llama4 mistral3 llava", "^multi_modal_projector.", NULL},
    {"deepseek_v3 kimi_k2 joyai_llm_flash", "^model.layers.61.", NULL},
    {"exaone_moe qwen3_next ernie4_5_moe", "^mtp", NULL},
};

static bool matches(const char *name, const char *pattern, const char **part, size_t *length) {
    bool begins = *pattern == '^', ends;
    if (begins) pattern++;
    *length = strlen(pattern);
    ends = *length > 0 && pattern[*length - 1] == '$';
    if (ends) (*length)--;
    char text[128];
    snprintf(text, sizeof text, "%.*s", (int)*length, pattern);
    if (ends) {
        *part = base_ends_with(name, text) ? name + strlen(name) - *length : NULL;
    } else {
        *part = begins ? (base_starts_with(name, text) ? name : NULL) : strstr(name, text);
    }
    return *part != NULL;
}

static void apply_renames(LmTensors *tensors, const char *type) {
    const size_t count = tensors->count;
    for (size_t r = 0; r < BASE_COUNT(renames); r++) {
        if (strcmp(renames[r].types, "*") != 0 && !listed(renames[r].types, type)) continue;
        for (size_t i = 0; i < tensors->count && i < 2 * count; i++) {
            const char *name = tensors->items[i].name, *part;
            size_t length;
            if (!name || !matches(name, renames[r].from, &part, &length)) continue;
            if (!renames[r].to) {
                lm_tensors_remove(tensors, name);
                continue;
            }
            char *old = base_strdup(name);
            char *to =
                base_format("%.*s%s%s", (int)(part - name), name, renames[r].to, part + length);
            if (!base_starts_with(renames[r].to, part) || strcmp(old, to) != 0)
                lm_tensors_rename(tensors, old, to);
            free(old);
            free(to);
        }
    }
}

/* GPT-2 stores its linear layers as [in, out]; "h.0." says that it is not yet
 * mlx-lm's. Asked before the names change. */
static void transpose_conv1d(LmTensors *tensors) {
    static const char *const layers[] = {"attn.c_attn.weight", "attn.c_proj.weight",
                                         "mlp.c_fc.weight", "mlp.c_proj.weight"};
    for (size_t i = 0; i < tensors->count; i++) {
        const char *name = tensors->items[i].name;
        if (!name || base_starts_with(name, "model.")) continue;
        for (size_t l = 0; l < BASE_COUNT(layers); l++)
            if (base_ends_with(name, layers[l]) && mx_ndim(tensors->items[i].array) == 2)
                mx_store(&tensors->items[i].array, mx_swapaxes(tensors->items[i].array, 0, 1));
    }
}

/* ---- experts ---------------------------------------------------------------------------- */

typedef struct Stack {
    const char *types;
    const char *from; /* before the expert's number */
    const char *to;
    const char *parts[3], *names[3];
} Stack;

#define GLU_PARTS                            \
    {"gate_proj", "down_proj", "up_proj"}, { \
        "gate_proj", "down_proj", "up_proj"  \
    }
static const Stack stacks[] = {
    {"Klear afmoe dots1", "mlp.experts.", "mlp.experts.", GLU_PARTS},
    {"mixtral phimoe minimax",
     "block_sparse_moe.experts.",
     "block_sparse_moe.switch_mlp.",
     {"w1", "w2", "w3"},
     {"gate_proj", "down_proj", "up_proj"}},
    {"lfm2_moe",
     "feed_forward.experts.",
     "feed_forward.switch_mlp.",
     {"w1", "w2", "w3"},
     {"gate_proj", "down_proj", "up_proj"}},
    {"*", "mlp.experts.", "mlp.switch_mlp.", GLU_PARTS},
};

/* Joins prefix.<from>0.<part>.<leaf>, 1, 2, ... into one tensor [experts, ...]. */
static bool stack_experts(LmTensors *tensors, const Stack *rule, const char *prefix,
                          const char *part, const char *name, const char *leaf, Error *err) {
    enum { MOST = 4096 };
    mlx_array *parts = base_calloc(MOST, sizeof *parts);
    size_t count = 0;
    bool good = true;
    for (; count < MOST; count++) {
        parts[count] =
            lm_tensors_find(tensors, "%s%s%zu.%s.%s", prefix, rule->from, count, part, leaf);
        if (!parts[count].ctx) break;
    }
    mlx_array stacked = count ? mx_stack(parts, count, 0) : (mlx_array){0};
    free(parts);
    if (count && !mx_check(err)) good = base_error_context(err, "%s%s%s", prefix, rule->to, name);
    if (good && count) {
        char *to = base_format("%s%s%s.%s", prefix, rule->to, name, leaf);
        mlx_array kept = mx_keep(stacked);
        for (size_t i = 0; i < count; i++) {
            char *from = base_format("%s%s%zu.%s.%s", prefix, rule->from, i, part, leaf);
            lm_tensors_remove(tensors, from);
            free(from);
        }
        lm_tensors_add(tensors, to, kept);
        mx_free(&kept);
        free(to);
    }
    return good;
}

static bool stack_all(LmTensors *tensors, const char *type, Error *err) {
    static const char *const leaves[] = {"weight", "scales", "biases", "bias"};
    const Stack *rule = stacks;
    while (strcmp(rule->types, "*") != 0 && !listed(rule->types, type)) rule++;
    char *first = base_format("%s0.%s.weight", rule->from, rule->parts[0]);
    bool good = true;
    for (size_t i = 0; i < tensors->count && good; i++) {
        const char *name = tensors->items[i].name;
        if (!name || !base_ends_with(name, first)) continue;
        char *prefix = base_strndup(name, strlen(name) - strlen(first));
        for (size_t p = 0; p < 3 && good; p++)
            for (size_t l = 0; l < BASE_COUNT(leaves) && good; l++)
                good = stack_experts(tensors, rule, prefix, rule->parts[p], rule->names[p],
                                     leaves[l], err);
        free(prefix);
    }
    free(first);
    return good;
}

/* transformers 5 keeps stacked experts as mlp.experts.gate_up_proj [E, 2 I, H]
 * and down_proj [E, H, I], gate rows first. */
static void split_fused_experts(LmTensors *tensors) {
    static const char fused[] = "mlp.experts.gate_up_proj", down[] = "mlp.experts.down_proj";
    for (size_t i = 0, count = tensors->count; i < count; i++) {
        const char *name = tensors->items[i].name;
        if (!name || !base_ends_with(name, fused)) continue;
        char *stem = base_strndup(name, strlen(name) - strlen(fused));
        char *gate = base_format("%smlp.switch_mlp.gate_proj.weight", stem);
        char *up = base_format("%smlp.switch_mlp.up_proj.weight", stem);
        char *from = base_format("%s%s", stem, down);
        char *to = base_format("%smlp.switch_mlp.down_proj.weight", stem);
        char *whole = base_strdup(name);
        mlx_array halves[2] = {{0}, {0}};
        mx_split(tensors->items[i].array, 2, 1, halves);
        lm_tensors_add(tensors, gate, halves[0]);
        lm_tensors_add(tensors, up, halves[1]);
        lm_tensors_rename(tensors, from, to);
        lm_tensors_remove(tensors, whole);
        char *const texts[] = {stem, gate, up, from, to, whole};
        for (size_t t = 0; t < BASE_COUNT(texts); t++) free(texts[t]);
    }
}

/* Every second row of gpt-oss's gate_up_proj is the gate's. */
static mlx_array every_second(mlx_array a, int axis, int first) {
    int start[8] = {0}, stop[8], step[8];
    for (int d = 0; d < mx_ndim(a); d++) {
        stop[d] = mx_dim(a, d);
        step[d] = 1;
    }
    start[axis] = first;
    step[axis] = 2;
    mlx_array part = mlx_array_new();
    size_t n = (size_t)mx_ndim(a);
    if (mlx_slice(&part, a, start, n, stop, n, step, n, mx_stream()) != 0) return (mlx_array){0};
    return mx_contiguous(mx_own(part));
}

static void split_gpt_oss(LmTensors *tensors) {
    static const char fused[] = "experts.gate_up_proj.";
    for (size_t i = 0; i < tensors->count; i++) {
        const char *name = tensors->items[i].name;
        if (name && strstr(name, "experts.gate_proj.weight")) return; /* done before */
    }
    for (size_t i = 0, count = tensors->count; i < count; i++) {
        const char *name = tensors->items[i].name;
        mlx_array a = tensors->items[i].array;
        if (!name) continue;
        const bool packed = base_ends_with(name, ".weight") && mx_dtype(a) == MLX_UINT8;
        if (strstr(name, "experts.") && packed) {
            mlx_array words = mlx_array_new();
            if (mlx_view(&words, a, MLX_UINT32, mx_stream()) != 0) continue;
            words = mx_own(words);
            const int shape[] = {mx_dim(words, 0), mx_dim(words, 1),
                                 mx_dim(words, 2) * BASE_MAX(1, mx_dim(words, 3))};
            a = mx_reshape(words, shape, 3);
            mx_store(&tensors->items[i].array, a);
        }
        const bool bias = base_ends_with(name, ".bias");
        const bool plain = base_ends_with(name, ".weight") && mx_is_float(mx_dtype(a));
        if (strstr(name, "experts.") && plain && mx_ndim(a) == 3) {
            a = mx_swapaxes(a, 1, 2); /* transformers' dense form is [E, in, out] */
            mx_store(&tensors->items[i].array, a);
        }
        if (!strstr(name, fused) || mx_ndim(a) < 2) continue;
        char *whole = base_strdup(name);
        char *gate = replaced(name, "gate_up_proj", "gate_proj");
        char *up = replaced(name, "gate_up_proj", "up_proj");
        lm_tensors_add(tensors, gate, every_second(a, bias ? mx_ndim(a) - 1 : 1, 0));
        lm_tensors_add(tensors, up, every_second(a, bias ? mx_ndim(a) - 1 : 1, 1));
        lm_tensors_remove(tensors, whole);
        free(whole);
        free(gate);
        free(up);
    }
}

/* ---- DeepSeek's latent attention ------------------------------------------------------- */

static int64_t setting(const json_t *config, const char *key) {
    return json_integer_value(json_object_get(config, key));
}

/* kv_b_proj [heads (nope + v), rank] becomes embed_q [heads, rank, nope] and
 * unembed_out [heads, v, rank]. */
static bool split_latent(LmTensors *tensors, const json_t *config, Error *err) {
    static const char leaf[] = "self_attn.kv_b_proj.weight";
    const int heads = (int)setting(config, "num_attention_heads");
    const int nope = (int)setting(config, "qk_nope_head_dim"),
              v = (int)setting(config, "v_head_dim");
    const int rank = (int)setting(config, "kv_lora_rank");
    for (size_t i = 0, count = tensors->count; i < count; i++) {
        const char *name = tensors->items[i].name;
        if (!name || !base_ends_with(name, leaf)) continue;
        mlx_array weight = tensors->items[i].array;
        char *stem = base_strndup(name, strlen(name) - strlen("kv_b_proj.weight"));
        mlx_array scales = lm_tensors_find(tensors, "%skv_b_proj.scales", stem);
        mlx_array biases = lm_tensors_find(tensors, "%skv_b_proj.biases", stem);
        MxQuant quant = {0};
        bool good = heads > 0 && nope > 0 && v > 0 && rank > 0;
        if (good && scales.ctx && mx_dim(scales, -1) > 0) {
            quant = (MxQuant){rank / mx_dim(scales, -1), mx_dim(weight, -1) * 32 / rank, "affine"};
            weight = mx_dequantize(weight, scales, biases, quant);
        }
        good = good && mx_ndim(weight) == 2 && mx_dim(weight, 0) == heads * (nope + v) &&
               mx_dim(weight, 1) == rank;
        if (!good) {
            base_fail(err, ERROR_INPUT, "tensor %s is %s, which does not fit the config", name,
                      mx_describe(tensors->items[i].array));
            free(stem);
            return false;
        }
        weight = mx_reshape(weight, (const int[]){heads, nope + v, rank}, 3);
        mlx_array keys = mx_slice(weight, 1, 0, nope), values = mx_slice(weight, 1, nope, nope + v);
        const struct {
            const char *module;
            mlx_array array;
        } made[] = {{"embed_q", mx_contiguous(mx_swapaxes(keys, 1, 2))},
                    {"unembed_out", mx_contiguous(values)}};
        for (size_t m = 0; m < BASE_COUNT(made); m++) {
            static const char *const parts[] = {"weight", "scales", "biases"};
            mlx_array out[3] = {made[m].array, {0}, {0}};
            if (quant.bits) mx_quantize(made[m].array, quant, out);
            for (size_t p = 0; p < 3; p++) {
                char *to = base_format("%s%s.%s", stem, made[m].module, parts[p]);
                lm_tensors_add(tensors, to, out[p]);
                free(to);
            }
        }
        static const char *const old[] = {"weight", "scales", "biases"};
        for (size_t p = 0; p < 3; p++) {
            char *from = base_format("%skv_b_proj.%s", stem, old[p]);
            lm_tensors_remove(tensors, from);
            free(from);
        }
        free(stem);
    }
    return mx_check(err);
}

/* ---- the face -------------------------------------------------------------------------- */

bool lm_sanitize(LmTensors *tensors, const json_t *config, Error *err) {
    const char *type = json_string_value(json_object_get(config, "model_type"));
    if (!type) return base_fail(err, ERROR_INPUT, "config.json: model_type is missing");
    if (strcmp(type, "gpt2") == 0) transpose_conv1d(tensors);
    apply_renames(tensors, type);
    if (strcmp(type, "gpt_oss") == 0)
        split_gpt_oss(tensors);
    else
        split_fused_experts(tensors);
    if (listed("mixtral phimoe minimax", type)) { /* transformers 5 says mlp */
        for (size_t i = 0; i < tensors->count; i++) {
            char *name = tensors->items[i].name ? base_strdup(tensors->items[i].name) : NULL;
            if (name && strstr(name, ".mlp.")) {
                char *to = replaced(name, ".mlp.", ".block_sparse_moe.");
                lm_tensors_rename(tensors, name, to);
                free(to);
            }
            free(name);
        }
    }
    if (json_is_true(json_object_get(config, "tie_word_embeddings")) && strcmp(type, "phi3") != 0) {
        static const char *const head[] = {"lm_head.weight", "lm_head.scales", "lm_head.biases"};
        for (size_t i = 0; i < BASE_COUNT(head); i++) lm_tensors_remove(tensors, head[i]);
    }
    if (!stack_all(tensors, type, err)) return false;
    if (listed("deepseek_v3 deepseek_v32 kimi_k2 joyai_llm_flash glm4_moe_lite glm_moe_dsa",
               type) &&
        !split_latent(tensors, config, err))
        return false;
    return mx_check(err);
}

/* ---- what may be quantised, and how ------------------------------------------------------ */

bool lm_is_quantizable(const char *type, const char *path, mlx_array weight) {
    /* Routers that are bare tensors in mlx-lm, not linear layers. */
    static const char bare_gate[] = "deepseek deepseek_v2 deepseek_v3 deepseek_v32 kimi_k2 "
                                    "joyai_llm_flash dots1 exaone_moe glm4_moe glm4_moe_lite "
                                    "glm_moe_dsa mimo_v2_flash nemotron_h";
    static const char *const never[] = {
        "norm",     "conv1d", "position_embeddings", "token_type", "relative_attention_bias",
        "LayerNorm"};
    const int ndim = mx_ndim(weight);
    if (!mx_is_float(mx_dtype(weight)) || ndim < 2 || ndim > 3) return false;
    for (size_t i = 0; i < BASE_COUNT(never); i++)
        if (strstr(path, never[i])) return false;
    if (listed(bare_gate, type) && base_ends_with(path, ".gate")) return false;
    if (ndim == 2) return true;
    return strstr(path, "switch_") || strstr(path, "experts") || strstr(path, "embed_q") ||
           strstr(path, "unembed_out");
}

typedef struct Rule {
    const char *types, *part; /* '$' at the end: the path ends so */
} Rule;

static bool follows(const Rule *rules, size_t count, const char *type, const char *path) {
    const char *part;
    size_t length;
    for (size_t i = 0; i < count; i++)
        if (listed(rules[i].types, type) && matches(path, rules[i].part, &part, &length))
            return true;
    return false;
}

bool lm_quant_rule(const char *type, const char *path, MxQuant *quant) {
    static const Rule routers[] = {
        {"Klear kimi_linear mellum qwen3_moe qwen3_next qwen3_5_moe", "mlp.gate$"},
        {"qwen3_next qwen3_5_moe", "shared_expert_gate$"},
        {"afmoe", "router.gate"},
        {"bailing_moe bailing_moe_linear", "mlp.gate.gate_proj$"},
        {"gemma4", "router.proj$"},
        {"gpt_oss jamba", "router$"},
        {"granitemoe", "block_sparse_moe.router.layer$"},
        {"granitemoehybrid", "router.layer$"},
        {"lfm2_moe", "feed_forward.gate$"},
        {"longcat_flash longcat_flash_ngram", "classifier$"},
        {"minimax", "block_sparse_moe.gate$"},
        {"step3p5", "mlp.gate.gate"},
    };
    if (!follows(routers, BASE_COUNT(routers), type, path)) return false;
    *quant = (MxQuant){.group_size = 64, .bits = 8, .mode = "affine"};
    return true;
}

bool lm_keeps_dtype(const char *type, const char *name) {
    static const Rule kept[] = {
        {"deepseek_v3 deepseek_v32 kimi_k2 joyai_llm_flash exaone_moe glm4_moe glm4_moe_lite "
         "glm_moe_dsa kimi_linear kimi_vl longcat_flash longcat_flash_ngram mimo_v2_flash minimax "
         "nemotron_h",
         "e_score_correction_bias"},
        {"Klear afmoe bailing_moe bailing_moe_linear lfm2_moe", "expert_bias"},
        {"step3p5", "router_bias"},
        {"nemotron_h", "A_log"},
        {"kimi_linear qwen3_5", "A_log$"},
        {"kimi_linear", "dt_bias$"},
    };
    return follows(kept, BASE_COUNT(kept), type, name);
}
