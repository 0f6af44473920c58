/* Steps of sanitising that are more than a rename: a family each. */
#include "models/decoder.h"

#include <string.h>

/* ---- latent attention: kv_b_proj becomes a matrix a head on each side ------------------------ */

static void add_matrix(Sanitizer *s, const char *path, mlx_array matrix, MxQuant quant) {
    static const char *const parts[] = {"weight", "scales", "biases"};
    mlx_array packed[3] = {matrix};
    matrix = mx_contiguous(matrix);
    if (quant.group_size)
        mx_quantize(matrix, quant, packed);
    else
        packed[0] = matrix;
    for (int i = 0; i < 3; i++) {
        char name[MODEL_NAME];
        model_name(name, "%s.%s", path, parts[i]);
        if (packed[i].ctx && (i == 0 || quant.group_size))
            nn_params_add(s->params, name, packed[i]);
    }
    nn_params_set_quant(s->params, path, quant);
}

static void split_latent(Sanitizer *s, const char *name) {
    NnParams *p = s->params;
    const Loading *l = s->loading;
    if (!base_ends_with(name, ".self_attn.kv_b_proj.weight")) return;
    char path[MODEL_NAME], target[MODEL_NAME];
    model_name(path, "%.*s", (int)(strlen(name) - strlen(".weight")), name);
    static const char *const spellings[] = {"num_attention_heads", NULL};
    int heads = model_size(l, spellings, l->arch.sizes.heads);
    int nope = nn_config_int(p, l->config, "qk_nope_head_dim", 128);
    int value = nn_config_int(p, l->config, "v_head_dim", 128);
    mlx_array weight = nn_params_peek(p, name);
    MxQuant quant;
    if (nn_params_quant(p, path, &quant)) {
        mlx_array sides[2] = {0};
        static const char *const parts[] = {"scales", "biases"};
        for (int i = 0; i < 2; i++) {
            model_name(target, "%s.%s", path, parts[i]);
            sides[i] = nn_params_peek(p, target);
            nn_params_remove(p, target);
        }
        weight = mx_dequantize(weight, sides[0], sides[1], quant);
    }
    mlx_array each = mx_reshape(weight, MX_SHAPE(heads, nope + value, -1));
    size_t stem = strlen(path) - strlen("kv_b_proj");
    model_name(target, "%.*sembed_q", (int)stem, path);
    add_matrix(s, target, mx_swapaxes(mx_slice(each, 1, 0, nope), -1, -2), quant);
    model_name(target, "%.*sunembed_out", (int)stem, path);
    add_matrix(s, target, mx_slice(each, 1, nope, nope + value), quant);
    nn_params_remove(p, name);
}

void model_special_latent(Sanitizer *s) {
    model_each_name(s, split_latent);
}

/* ---- gpt-oss: interleaved gate and up, mxfp4 blocks ---------------------------------------------
 */

/* Rows 0, 2, 4 ... and 1, 3, 5 ... of the axis become two tensors. */
static void deinterleave(Sanitizer *s, const char *name, const char *from, const char *suffix,
                         mlx_array both, int axis) {
    int shape[5], ndim = mx_ndim(both), at = 0;
    for (int i = 0; i < ndim && at < 4; i++) {
        shape[at] = mx_dim(both, i);
        if (i == axis) {
            shape[at++] /= 2;
            shape[at] = 2;
        }
        at++;
    }
    mlx_array pairs = mx_reshape(both, shape, (size_t)at);
    static const char *const names[] = {"gate_proj", "up_proj"};
    for (int i = 0; i < 2; i++) {
        char to[MODEL_NAME], piece[MODEL_NAME];
        model_name(piece, "%s%s", names[i], suffix);
        model_replaced(name, from, piece, to);
        mlx_array half = mx_squeeze(mx_slice(pairs, axis + 1, i, i + 1), axis + 1);
        nn_params_add(s->params, to, mx_contiguous(half));
        if (strcmp(suffix, ".scales") == 0) {
            to[strlen(to) - strlen(".scales")] = '\0';
            nn_params_set_quant(s->params, to, (MxQuant){32, 4, "mxfp4"});
        }
    }
    nn_params_remove(s->params, name);
}

/* [..., K/32, 16] bytes -> [..., K/8] words */
static mlx_array words_of(mlx_array blocks) {
    mlx_array words = mx_view(blocks, MLX_UINT32);
    int shape[4], ndim = mx_ndim(words);
    for (int i = 0; i + 1 < ndim && i < 3; i++) shape[i] = mx_dim(words, i);
    shape[ndim - 2] *= mx_dim(words, -1);
    return mx_reshape(words, shape, (size_t)(ndim - 1));
}

static void unpack_gpt_oss(Sanitizer *s, const char *name) {
    mlx_array array = nn_params_peek(s->params, name);
    char to[MODEL_NAME];
    if (base_ends_with(name, "gate_up_proj_bias")) {
        deinterleave(s, name, "gate_up_proj_bias", ".bias", array, 1);
    } else if (base_ends_with(name, "gate_up_proj_blocks")) {
        deinterleave(s, name, "gate_up_proj_blocks", ".weight", words_of(array), 1);
    } else if (base_ends_with(name, "gate_up_proj_scales")) {
        deinterleave(s, name, "gate_up_proj_scales", ".scales", array, 1);
    } else if (base_ends_with(name, "experts.gate_up_proj")) {
        deinterleave(s, name, "gate_up_proj", ".weight", mx_swapaxes(array, 1, 2), 1);
    } else if (base_ends_with(name, "down_proj_bias")) {
        model_replaced(name, "down_proj_bias", "down_proj.bias", to);
        model_move(s, name, to, array);
    } else if (base_ends_with(name, "down_proj_blocks")) {
        model_replaced(name, "down_proj_blocks", "down_proj.weight", to);
        model_move(s, name, to, words_of(array));
    } else if (base_ends_with(name, "down_proj_scales")) {
        model_replaced(name, "down_proj_scales", "down_proj.scales", to);
        model_move(s, name, to, array);
        to[strlen(to) - strlen(".scales")] = '\0';
        nn_params_set_quant(s->params, to, (MxQuant){32, 4, "mxfp4"});
    } else if (base_ends_with(name, "experts.down_proj")) {
        model_replaced(name, "experts.down_proj", "experts.down_proj.weight", to);
        model_move(s, name, to, mx_swapaxes(array, 1, 2));
    }
}

void model_special_gpt_oss(Sanitizer *s) {
    model_each_name(s, unpack_gpt_oss);
}

/* ---- Hunyuan: grouped queries, keys and values; up before gate
 * ------------------------------------ */

static void split_hunyuan(Sanitizer *s, const char *name) {
    static const char *const heads_keys[] = {"num_attention_heads", NULL};
    static const char *const kv_keys[] = {"num_key_value_heads", NULL};
    static const char *const qkv[] = {"q_proj", "k_proj", "v_proj"};
    static const char *const halves[] = {"up_proj", "gate_proj"};
    mlx_array array = nn_params_peek(s->params, name);
    char to[MODEL_NAME];
    if (strstr(name, "gate_and_up_proj")) {
        mlx_array split[2];
        mx_split(array, 2, 0, split);
        for (int i = 0; i < 2; i++) {
            model_replaced(name, "gate_and_up_proj", halves[i], to);
            nn_params_add(s->params, to, split[i]);
        }
        nn_params_remove(s->params, name);
    } else if (strstr(name, ".qkv_proj.")) {
        int heads = model_size(s->loading, heads_keys, 0);
        int kv = model_size(s->loading, kv_keys, heads), group = heads / kv;
        int rows = mx_dim(array, 0), columns = mx_ndim(array) > 1 ? mx_dim(array, 1) : 1;
        int width = rows / (kv * (group + 2));
        mlx_array runs = mx_reshape(array, MX_SHAPE(kv, group + 2, width, columns));
        const int edges[] = {0, group, group + 1, group + 2};
        for (int i = 0; i < 3; i++) {
            mlx_array part = mx_slice(runs, 1, edges[i], edges[i + 1]);
            int count = kv * (edges[i + 1] - edges[i]) * width;
            part = mx_ndim(array) > 1 ? mx_reshape(part, MX_SHAPE(count, columns))
                                      : mx_reshape(part, MX_SHAPE(count));
            model_replaced(name, "qkv_proj", qkv[i], to);
            nn_params_add(s->params, to, part);
        }
        nn_params_remove(s->params, name);
    }
}

void model_special_hunyuan(Sanitizer *s) {
    model_each_name(s, split_hunyuan);
}

/* ---- DBRX: all experts' rows in one matrix
 * ----------------------------------------------------------- */

static void split_dbrx(Sanitizer *s, const char *name) {
    const char *at = strstr(name, ".experts.mlp.");
    int experts = model_expert_count(s->loading, 0);
    if (!at || experts < 1) return;
    const char *matrix = at + strlen(".experts.mlp.");
    mlx_array array = nn_params_peek(s->params, name);
    int rows = mx_dim(array, 0) / experts;
    for (int e = 0; e < experts; e++) {
        char to[MODEL_NAME];
        model_name(to, "%.*s.experts.%d.%s.weight", (int)(at - name), name, e, matrix);
        mlx_array one = mx_slice(array, 0, e * rows, (e + 1) * rows);
        nn_params_add(s->params, to, strcmp(matrix, "w2") == 0 ? mx_swapaxes(one, 0, 1) : one);
    }
    nn_params_remove(s->params, name);
}

void model_special_dbrx(Sanitizer *s) {
    model_each_name(s, split_dbrx);
}

/* ---- Step 3.5: names, and norms whose weights are stored less one
 * --------------------------------------- */

static const char *const step_names[][2] = {
    {".moe.gate_proj.", ".mlp.switch_mlp.gate_proj."},
    {".moe.up_proj.", ".mlp.switch_mlp.up_proj."},
    {".moe.down_proj.", ".mlp.switch_mlp.down_proj."},
    {".moe.gate.", ".mlp.gate.gate."},
    {".moe.router_bias", ".mlp.gate.router_bias"},
    {".share_expert.", ".mlp.share_expert."},
};

static size_t step_match(const char *name) {
    for (size_t i = 0; i < BASE_COUNT(step_names); i++) {
        if (strstr(name, step_names[i][0]) && !strstr(name, step_names[i][1])) return i;
    }
    return BASE_COUNT(step_names);
}

static void add_one(Sanitizer *s, const char *name) {
    if (!strstr(name, "norm") || !base_ends_with(name, ".weight")) return;
    nn_params_add(s->params, name, mx_add_scalar(nn_params_peek(s->params, name), 1));
}

static void rename_step(Sanitizer *s, const char *name) {
    size_t match = step_match(name);
    if (match == BASE_COUNT(step_names)) return;
    char to[MODEL_NAME];
    model_replaced(name, step_names[match][0], step_names[match][1], to);
    model_move(s, name, to, nn_params_peek(s->params, name));
    s->found = true;
}

void model_special_step(Sanitizer *s) {
    model_each_name(s, rename_step);
    if (s->found) model_each_name(s, add_one); /* as its authors wrote it */
}

/* ---- Bailing: a head whose columns have length 1
 * ----------------------------------------------------------- */

void model_special_norm_head(Sanitizer *s) {
    static const char name[] = "lm_head.weight";
    mlx_array head = nn_params_peek(s->params, name);
    bool packed = nn_params_has(s->params, "lm_head.scales");
    if (!head.ctx || packed || !nn_config_bool(s->params, s->loading->config, "norm_head", false))
        return;
    mlx_array wide = mx_cast(head, MLX_FLOAT32);
    mlx_array length = mx_add_scalar(mx_sqrt(mx_sum(mx_square(wide), 0, true)), 1e-7);
    nn_params_add(s->params, name, mx_cast(mx_div(wide, length), mx_dtype(head)));
}

/* ---- GPT-2: matrices that lie as [in, out], names without a model before them
 * ------------------------------- */

static void turn_gpt2(Sanitizer *s, const char *name) {
    static const char *const turned[] = {".attn.c_attn.weight", ".attn.c_proj.weight",
                                         ".mlp.c_fc.weight", ".mlp.c_proj.weight"};
    bool head = base_starts_with(name, "lm_head."),
         tied = model_flag(s->loading, s->loading->arch.tied);
    if (base_starts_with(name, "model.") || (head && !tied)) return;
    if (base_ends_with(name, ".attn.bias") || head) {
        nn_params_remove(s->params, name);
        return;
    }
    mlx_array array = nn_params_peek(s->params, name);
    for (size_t i = 0; i < BASE_COUNT(turned); i++) {
        if (base_ends_with(name, turned[i])) array = mx_swapaxes(array, 0, 1);
    }
    const char *rest =
        base_starts_with(name, "transformer.") ? name + strlen("transformer.") : name;
    char to[MODEL_NAME];
    model_name(to, "model.%s", rest);
    model_move(s, name, to, array);
}

void model_special_turn_gpt2(Sanitizer *s) {
    model_each_name(s, turn_gpt2);
}

/* ---- Apertus: the activation's numbers have no axes
 * ------------------------------------------------------------------------ */

static void squeeze_number(Sanitizer *s, const char *name) {
    if (!strstr(name, ".act_fn.")) return;
    mlx_array array = nn_params_peek(s->params, name);
    if (mx_size(array) == 1) nn_params_add(s->params, name, mx_reshape(array, NULL, 0));
}

void model_special_squeeze(Sanitizer *s) {
    model_each_name(s, squeeze_number);
}

/* ---- 8-bit floats with a scale a tensor or a block of 128 x 128
 * -------------------------------------------------- */

static mlx_array blown_up(mlx_array scales, int rows, int columns) {
    enum { BLOCK = 128 };
    scales = mx_repeat(mx_repeat(scales, BLOCK, 0), BLOCK, 1);
    return mx_slice(mx_slice(scales, 0, 0, rows), 1, 0, columns);
}

static void unscale(Sanitizer *s, const char *name) {
    if (!base_ends_with(name, ".weight_scale_inv")) return;
    char weight_name[MODEL_NAME];
    model_name(weight_name, "%.*s", (int)(strlen(name) - strlen("_scale_inv")), name);
    mlx_array weight = nn_params_peek(s->params, weight_name);
    mlx_array scale = nn_params_peek(s->params, name);
    nn_params_remove(s->params, name);
    if (!weight.ctx) return;
    if (mx_dtype(weight) == MLX_UINT8) weight = mx_from_fp8(weight, MLX_BFLOAT16);
    if (mx_ndim(scale) == 2 && mx_size(scale) > 1)
        scale = blown_up(scale, mx_dim(weight, 0), mx_dim(weight, 1));
    else
        scale = mx_reshape(scale, NULL, 0);
    mlx_array product = mx_mul(weight, scale);
    nn_params_add(s->params, weight_name, mx_cast(product, MLX_BFLOAT16));
}

void model_special_scale_inverse(Sanitizer *s) {
    model_each_name(s, unscale);
}

/* ---- BitNet: four ternary rows a byte
 * ------------------------------------------------------------------------------- */

/* Whether products are divided by weight_scale: in models that transformers packed,
 * not in BitNet's own. */
static bool scale_divides(const Sanitizer *s) {
    const json_t *settings = json_object_get(s->loading->config, "quantization_config");
    const char *type = json_string_value(json_object_get(s->loading->config, "model_type"));
    const char *layer = json_string_value(json_object_get(settings, "linear_class"));
    return strcmp(type ? type : "", "bitnet") != 0 &&
           strcmp(layer ? layer : "", "autobitlinear") != 0;
}

/* [out/4, in] bytes, whose bits 2j, 2j+1 are row j out/4 + i plus one, become what
 * affine packing of 2 bits says exactly: scale q - scale. */
static void pack_ternary(Sanitizer *s, const char *name) {
    NnParams *p = s->params;
    if (!base_ends_with(name, ".weight")) return;
    mlx_array bytes = nn_params_peek(p, name);
    if (mx_dtype(bytes) != MLX_UINT8 || mx_ndim(bytes) != 2) return;
    char path[MODEL_NAME], part[MODEL_NAME];
    model_name(path, "%.*s", (int)(strlen(name) - strlen(".weight")), name);
    model_name(part, "%s.weight_scale", path);
    mlx_array scale = nn_params_peek(p, part);
    int columns = mx_dim(bytes, 1);
    if (!scale.ctx || mx_size(scale) != 1 || columns % 32 != 0) {
        nn_params_fail(p, ERROR_INPUT, "tensor %s: its %s, or rows of a multiple of 32", name,
                       scale.ctx ? "shape does not fit" : "weight_scale is missing");
        return;
    }
    if (scale_divides(s)) scale = mx_div(mx_scalar(1, mx_dtype(scale)), scale);
    mlx_array wide = mx_cast(bytes, MLX_UINT32), fields[4];
    mlx_array three = mx_scalar(3, MLX_UINT32);
    for (int j = 0; j < 4; j++)
        fields[j] = mx_bits_and(mx_shift_right(wide, mx_scalar(2 * j, MLX_UINT32)), three);
    mlx_array rows = mx_concat(fields, 4, 0);
    int count = mx_dim(rows, 0), group = columns % 64 == 0 ? 64 : 32;
    mlx_array sixteen = mx_reshape(rows, MX_SHAPE(count, columns / 16, 16));
    mlx_array places = mx_cast(mx_arange(0, 32, 2, MLX_INT32), MLX_UINT32);
    mlx_array words = mx_sum(mx_shift_left(sixteen, places), -1, false);
    mlx_array scales =
        mx_broadcast_to(mx_reshape(scale, NULL, 0), MX_SHAPE(count, columns / group));
    nn_params_add(p, name, mx_cast(words, MLX_UINT32));
    nn_params_remove(p, part);
    model_name(part, "%s.scales", path);
    nn_params_add(p, part, mx_contiguous(scales));
    model_name(part, "%s.biases", path);
    nn_params_add(p, part, mx_contiguous(mx_neg(scales)));
    nn_params_set_quant(p, path, (MxQuant){group, 2, "affine"});
}

void model_special_ternary(Sanitizer *s) {
    mx_scope scope = mx_open();
    model_each_name(s, pack_ternary);
    mx_drop(scope);
}
