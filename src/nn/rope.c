/* Rotary position embedding: from the many ways a config.json spells it to one
 * call of the fused operation. Stretched variants are a table of periods. */
#include "nn/params.h"

#include <math.h>
#include <string.h>

/* ---- what the config says ------------------------------------------------------ */

static const json_t *object_of(const json_t *config, const char *key) {
    const json_t *value = json_object_get(config, key);
    return json_is_object(value) ? value : NULL;
}

static const json_t *number_of(const json_t *config, const char *key) {
    const json_t *value = json_object_get(config, key);
    return json_is_number(value) ? value : NULL;
}

static double first_number(const json_t *const *objects, const char *const *keys, double fallback) {
    for (; *objects; objects++) {
        for (const char *const *key = keys; *key; key++) {
            const json_t *value = number_of(*objects, *key);
            if (value) return json_number_value(value);
        }
    }
    return fallback;
}

RopeConfig nn_rope_config(const json_t *config, const char *layer_type, double default_theta,
                          double default_partial) {
    static const char *const theta_keys[] = {"rope_theta", "rotary_emb_base", "rope_freq_constant",
                                             NULL};
    static const char *const partial_keys[] = {"partial_rotary_factor", "rotary_pct", NULL};
    const json_t *rope = object_of(config, "rope_parameters");
    if (rope) {
        const json_t *of_layer = object_of(rope, layer_type ? layer_type : "full_attention");
        if (of_layer) rope = of_layer;
    } else {
        rope = object_of(config, "rope_scaling");
    }
    const json_t *places[] = {rope ? rope : config, config, NULL};
    return (RopeConfig){
        .theta = first_number(places, theta_keys, default_theta),
        .partial = first_number(places, partial_keys, default_partial),
        .scaling = rope,
    };
}

/* ---- the variants ----------------------------------------------------------------- */

typedef struct RopeSetup {
    NnParams *params;
    const json_t *config, *scaling;
    double base;
    Rope *rope;
    float *periods;       /* [dims/2], to be filled by variants that need a table */
    float *short_periods; /* [dims/2], made by variants that need another for short texts */
} RopeSetup;

static double setting(const RopeSetup *setup, const char *key, double fallback) {
    return nn_config_number(setup->params, setup->scaling, key, fallback);
}

static double required(const RopeSetup *setup, const char *key) {
    if (!number_of(setup->scaling, key)) {
        nn_params_fail(setup->params, ERROR_INPUT, "config.json: rope scaling needs a number %s",
                       key);
        return 1;
    }
    return json_number_value(json_object_get(setup->scaling, key));
}

static double original_length(const RopeSetup *setup, double fallback) {
    static const char *const keys[] = {"original_max_position_embeddings", NULL};
    const json_t *places[] = {setup->scaling, setup->config, NULL};
    return first_number(places, keys, fallback);
}

/* base^(2i/dims) */
static double period(const RopeSetup *setup, int i) {
    return pow(setup->base, 2.0 * i / setup->rope->dims);
}

static void use_plain(RopeSetup *setup) {
    (void)setup;
}

static void use_linear(RopeSetup *setup) {
    double factor = required(setup, "factor");
    setup->rope->scale = (float)(1 / factor);
}

static void use_dynamic(RopeSetup *setup) {
    setup->rope->dynamic_factor = (float)required(setup, "factor");
}

/* Meta's Llama 3.1: long waves are stretched, short ones kept, a ramp between. */
static void use_llama3(RopeSetup *setup) {
    double factor = required(setup, "factor"), low = setting(setup, "low_freq_factor", 1);
    double high = setting(setup, "high_freq_factor", 4), length = original_length(setup, 8192);
    for (int i = 0; i < setup->rope->dims / 2; i++) {
        double f = period(setup, i), wave = 2 * M_PI * f;
        if (wave > length / low) {
            f *= factor;
        } else if (wave > length / high) {
            double smooth = (length / wave - low) / (high - low);
            f /= (1 - smooth) / factor + smooth;
        }
        setup->periods[i] = (float)f;
    }
}

/* Peng et al., 2023 (YaRN). */
static double yarn_gain(double scale, double m) {
    return scale <= 1 ? 1 : 0.1 * m * log(scale) + 1;
}

static double yarn_edge(const RopeSetup *setup, double rotations, double length) {
    return setup->rope->dims * log(length / (rotations * 2 * M_PI)) / (2 * log(setup->base));
}

static void use_yarn(RopeSetup *setup) {
    double factor = required(setup, "factor"), length = original_length(setup, 4096);
    double low = yarn_edge(setup, setting(setup, "beta_fast", 32), length);
    double high = yarn_edge(setup, setting(setup, "beta_slow", 1), length);
    if (nn_config_bool(setup->params, setup->scaling, "truncate", true)) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, setup->rope->dims - 1);
    if (low == high) high += 0.001;
    double gain = yarn_gain(factor, setting(setup, "mscale", 1)) /
                  yarn_gain(factor, setting(setup, "mscale_all_dim", 0));
    setup->rope->multiplier = (float)setting(setup, "attention_factor", gain);
    for (int i = 0; i < setup->rope->dims / 2; i++) {
        double keep = 1 - fmin(fmax((i - low) / (high - low), 0), 1);
        double plain = period(setup, i), stretched = factor * plain;
        setup->periods[i] = (float)(stretched * plain / (stretched * keep + plain * (1 - keep)));
    }
}

static void stretch_periods(RopeSetup *setup, const char *key, float *periods) {
    const json_t *factors = json_object_get(setup->scaling, key);
    int half = setup->rope->dims / 2;
    if (!json_is_array(factors) || (int)json_array_size(factors) != half) {
        nn_params_fail(setup->params, ERROR_INPUT,
                       "config.json: rope scaling %s must list %d numbers", key, half);
        return;
    }
    for (int i = 0; i < half; i++) {
        double factor = json_number_value(json_array_get(factors, (size_t)i));
        if (!(factor > 0)) {
            nn_params_fail(setup->params, ERROR_INPUT, "config.json: %s[%d] must be positive", key,
                           i);
            return;
        }
        periods[i] = (float)(factor * period(setup, i));
    }
}

/* Ding et al., 2024 (LongRoPE): one table for texts that fit the length of the first
 * training, another for longer ones. */
static void use_longrope(RopeSetup *setup) {
    Rope *rope = setup->rope;
    double length = original_length(setup, 4096);
    double stretch = setting(setup, "factor", rope->max_position / length);
    double gain = stretch <= 1 ? 1 : sqrt(1 + log(stretch) / log(length));
    gain = setting(setup, "attention_factor", gain);
    stretch_periods(setup, "long_factor", setup->periods);
    rope->multiplier = (float)setting(setup, "long_mscale", gain);
    if (!json_object_get(setup->scaling, "short_factor")) return;
    setup->short_periods =
        nn_params_alloc(setup->params, (size_t)rope->dims / 2, sizeof *setup->short_periods);
    stretch_periods(setup, "short_factor", setup->short_periods);
    rope->short_multiplier = (float)setting(setup, "short_mscale", gain);
    rope->short_length = (int)fmin(fmax(length, 0), INT32_MAX);
}

/* Gemma 4: only the first share of the pairs rotates, periods span all dims. */
static void use_proportional(RopeSetup *setup) {
    double factor = setting(setup, "factor", 1);
    int rotating = (int)(setup->rope->dims * setting(setup, "partial_rotary_factor", 1)) / 2;
    for (int i = 0; i < setup->rope->dims / 2; i++) {
        setup->periods[i] = i < rotating ? (float)(factor * period(setup, i)) : INFINITY;
    }
}

static const struct {
    const char *name;
    void (*use)(RopeSetup *setup);
    bool table;
} rope_types[] = {
    {"default", use_plain, false},
    {"mrope", use_plain, false},
    {"linear", use_linear, false},
    {"dynamic", use_dynamic, false},
    {"llama3", use_llama3, true},
    {"yarn", use_yarn, true},
    {"deepseek_yarn", use_yarn, true},
    {"telechat3-yarn", use_yarn, true},
    {"longrope", use_longrope, true},
    {"su", use_longrope, true},
    {"proportional", use_proportional, true},
};

static const char *type_name(NnParams *params, const json_t *scaling) {
    if (!scaling) return "default";
    const char *name = nn_config_string(params, scaling, "type", NULL);
    bool factors = json_object_get(scaling, "long_factor") != NULL;
    return name ? name
                : nn_config_string(params, scaling, "rope_type", factors ? "longrope" : "default");
}

static mlx_array table_of(NnParams *params, const float *periods, int dims) {
    if (!periods) return (mlx_array){0};
    mx_scope s = mx_open();
    mlx_array table = nn_params_adopt(params, mx_from_f32(periods, MX_SHAPE(dims / 2)));
    mx_drop(s);
    return table;
}

Rope nn_rope_load(NnParams *params, const json_t *config, RopeConfig from, int dims,
                  bool traditional) {
    const char *name = type_name(params, from.scaling);
    bool odd = dims % 2 != 0, dynamic = strcmp(name, "dynamic") == 0;
    if (dims > 2 && odd && from.theta > 0) {
        /* As transformers: whole pairs turn, with the periods of the odd size. */
        from.theta = pow(from.theta, (dims + 1.0) / dims);
        dims++;
    }
    Rope rope = {.dims = dims,
                 .traditional = traditional,
                 .base = (float)from.theta,
                 .scale = 1,
                 .multiplier = 1,
                 .max_position = nn_config_int(params, config, "max_position_embeddings", 2048)};
    if (dims < 2 || (odd && dynamic) || !(from.theta > 0)) {
        nn_params_fail(params, ERROR_INPUT,
                       "config.json: rotary embedding over %d features with base %g is impossible",
                       dims, from.theta);
        return rope;
    }
    RopeSetup setup = {params, config, from.scaling, from.theta, &rope, NULL, NULL};
    for (size_t i = 0; i < BASE_COUNT(rope_types); i++) {
        if (strcmp(rope_types[i].name, name) != 0) continue;
        if (rope_types[i].table)
            setup.periods = nn_params_alloc(params, (size_t)dims / 2, sizeof(float));
        rope_types[i].use(&setup);
        rope.freqs = table_of(params, setup.periods, dims);
        rope.short_freqs = table_of(params, setup.short_periods, dims);
        return rope;
    }
    nn_params_fail(params, ERROR_UNSUPPORTED, "config.json: rope type \"%s\" is not supported",
                   name);
    return rope;
}

/* ---- the rotation ------------------------------------------------------------------- */

/* x[..., :dims] times the multiplier. */
static mlx_array amplify(mlx_array x, int dims, float multiplier) {
    if (multiplier == 1) return x;
    mlx_array turning = mx_mul_scalar(mx_slice(x, -1, 0, dims), (double)multiplier);
    int head_dim = mx_dim(x, -1);
    if (head_dim == dims) return turning;
    return mx_concat2(turning, mx_slice(x, -1, dims, head_dim), -1);
}

mlx_array nn_rope_within(const Rope *rope, mlx_array x, int offset, int text_length) {
    if (rope->dims == 0) return x;
    bool is_short = text_length <= rope->short_length;
    float base = rope->base;
    if (rope->dynamic_factor > 0) { /* the base grows with the text (NTK-aware) */
        double length = BASE_MAX(mx_dim(x, -2) + offset, rope->max_position);
        double stretch = (double)rope->dynamic_factor * length / rope->max_position -
                         ((double)rope->dynamic_factor - 1);
        base = (float)((double)base * pow(stretch, rope->dims / (rope->dims - 2.0)));
    }
    x = amplify(x, rope->dims, is_short ? rope->short_multiplier : rope->multiplier);
    return mx_rope(x, rope->dims, rope->traditional, base, rope->scale, offset,
                   is_short ? rope->short_freqs : rope->freqs);
}

mlx_array nn_rope(const Rope *rope, mlx_array x, int offset) {
    return nn_rope_within(rope, x, offset, offset + mx_dim(x, -2));
}
