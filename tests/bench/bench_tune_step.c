/* One step of training on models of random weights in the shapes of well-known ones,
 * made here: time, tokens a second, the part of the machine's float32 multiply-adds that
 * is reached, and the memory at most.
 *
 *     bench_tune_step FOLDER            all cases; models are made in FOLDER and stay
 *     bench_tune_step FOLDER CASE       one
 *     bench_tune_step FOLDER make SHAPE only its model
 *
 * Each case is a process of its own, so that its memory is its own. */
#include "machine.h"
#include "tune/optimizer.h"
#include "tune/step.h"

#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct Shape {
    const char *name, *type;
    int hidden, inner, blocks, heads, kv_heads, vocabulary;
    bool tied, biases, joined; /* joined: Phi-3's qkv_proj and gate_up_proj */
    int bits;                  /* 0: bfloat16 */
} Shape;

static const Shape shapes[] = {
    {.name = "smollm2-135m",
     .type = "llama",
     .hidden = 576,
     .inner = 1536,
     .blocks = 30,
     .heads = 9,
     .kv_heads = 3,
     .vocabulary = 49152,
     .tied = true},
    {.name = "smollm2-135m-4bit",
     .type = "llama",
     .hidden = 576,
     .inner = 1536,
     .blocks = 30,
     .heads = 9,
     .kv_heads = 3,
     .vocabulary = 49152,
     .tied = true,
     .bits = 4},
    {.name = "llama-1b",
     .type = "llama",
     .hidden = 2048,
     .inner = 8192,
     .blocks = 16,
     .heads = 32,
     .kv_heads = 8,
     .vocabulary = 128256,
     .tied = true},
    {.name = "phi3-mini-4bit",
     .type = "phi3",
     .hidden = 3072,
     .inner = 8192,
     .blocks = 32,
     .heads = 32,
     .kv_heads = 32,
     .vocabulary = 32064,
     .joined = true,
     .bits = 4},
    {.name = "qwen2-1.5b-4bit",
     .type = "qwen2",
     .hidden = 1536,
     .inner = 8960,
     .blocks = 28,
     .heads = 12,
     .kv_heads = 2,
     .vocabulary = 151936,
     .tied = true,
     .biases = true,
     .bits = 4},
};

typedef struct Case {
    const char *name, *shape, *dtype;
    int rows, width, layers; /* layers 0: all */
    bool checkpoint;
    int steps; /* that are timed, after one; 0: that one is */
} Case;

static const Case cases[] = {
    {"135m", "smollm2-135m", NULL, 4, 256, 0, false, 3},
    {"135m-float32", "smollm2-135m", "float32", 4, 256, 0, false, 3},
    {"135m-4bit", "smollm2-135m-4bit", NULL, 1, 1024, 16, false, 1},
    {"1b", "llama-1b", NULL, 1, 512, 0, false, 1},
    {"phi3", "phi3-mini-4bit", NULL, 1, 512, 16, true, 1},
    {"1.5b", "qwen2-1.5b-4bit", NULL, 1, 1024, 16, false, 0},
};

static void must(bool good, const Error *err) {
    if (good) return;
    fprintf(stderr, "bench: %s\n", err->message);
    exit(1);
}

/* ---- models ------------------------------------------------------------------------------ */

typedef struct Tensors {
    char **names;
    mlx_array *arrays;
    size_t count, n_names, n_arrays;
} Tensors;

static void add(Tensors *all, const char *name, mlx_array array) {
    all->names = base_grow(all->names, &all->n_names, all->count + 1, sizeof *all->names);
    all->arrays = base_grow(all->arrays, &all->n_arrays, all->count + 1, sizeof *all->arrays);
    all->names[all->count] = base_strdup(name);
    all->arrays[all->count++] = array;
}

/* The parts of a module's weight; the same arrays stand in every block. */
typedef struct Weight {
    const char *path;
    mlx_array parts[3], bias;
} Weight;

static Weight random_weight(const Shape *shape, const char *path, int out, int in, bool bias) {
    Weight weight = {.path = path};
    mlx_array dense = mx_uniform(-0.035, 0.035, MX_SHAPE(out, in), MLX_BFLOAT16);
    if (shape->bits)
        mx_quantize(dense, (MxQuant){64, shape->bits, "affine"}, weight.parts);
    else
        weight.parts[0] = dense;
    if (bias) weight.bias = mx_zeros(MX_SHAPE(out), MLX_BFLOAT16);
    return weight;
}

static void add_weight(Tensors *all, const char *prefix, const Weight *weight) {
    static const char *const names[] = {"weight", "scales", "biases"};
    for (size_t i = 0; i < 4; i++) {
        mlx_array array = i < 3 ? weight->parts[i] : weight->bias;
        if (!array.ctx) continue;
        char *name = base_format("%s%s.%s", prefix, weight->path, i < 3 ? names[i] : "bias");
        add(all, name, array);
        free(name);
    }
}

static void add_norm(Tensors *all, const char *prefix, const char *path, int size) {
    add_weight(all, prefix, &(Weight){path, {mx_full(MX_SHAPE(size), 1, MLX_BFLOAT16)}, {NULL}});
}

static void add_blocks(Tensors *all, const Shape *s) {
    const int kv = s->hidden / s->heads * s->kv_heads;
    Weight weights[7];
    size_t count = 0;
    if (s->joined) {
        weights[count++] =
            random_weight(s, "self_attn.qkv_proj", s->hidden + 2 * kv, s->hidden, false);
        weights[count++] = random_weight(s, "mlp.gate_up_proj", 2 * s->inner, s->hidden, false);
    } else {
        weights[count++] = random_weight(s, "self_attn.q_proj", s->hidden, s->hidden, s->biases);
        weights[count++] = random_weight(s, "self_attn.k_proj", kv, s->hidden, s->biases);
        weights[count++] = random_weight(s, "self_attn.v_proj", kv, s->hidden, s->biases);
        weights[count++] = random_weight(s, "mlp.gate_proj", s->inner, s->hidden, false);
        weights[count++] = random_weight(s, "mlp.up_proj", s->inner, s->hidden, false);
    }
    weights[count++] = random_weight(s, "self_attn.o_proj", s->hidden, s->hidden, false);
    weights[count++] = random_weight(s, "mlp.down_proj", s->hidden, s->inner, false);
    for (int block = 0; block < s->blocks; block++) {
        char *prefix = base_format("model.layers.%d.", block);
        for (size_t i = 0; i < count; i++) add_weight(all, prefix, &weights[i]);
        add_norm(all, prefix, "input_layernorm", s->hidden);
        add_norm(all, prefix, "post_attention_layernorm", s->hidden);
        free(prefix);
    }
}

static void write_config(const Shape *s, const char *folder) {
    Error err = {0};
    json_t *config =
        json_pack("{s:s,s:[s],s:i,s:i,s:i,s:i,s:i,s:i,s:b,s:i,s:f,s:f,s:s,s:s}", "model_type",
                  s->type, "architectures",
                  s->joined   ? "Phi3ForCausalLM"
                  : s->biases ? "Qwen2ForCausalLM"
                              : "LlamaForCausalLM",
                  "hidden_size", s->hidden, "intermediate_size", s->inner, "num_hidden_layers",
                  s->blocks, "num_attention_heads", s->heads, "num_key_value_heads", s->kv_heads,
                  "vocab_size", s->vocabulary, "tie_word_embeddings", s->tied,
                  "max_position_embeddings", 4096, "rms_norm_eps", 1e-5, "rope_theta", 10000.0,
                  "hidden_act", "silu", "torch_dtype", "bfloat16");
    if (s->joined) /* their limits and end token */
        json_object_update_new(config, json_pack("{s:i,s:i}", "original_max_position_embeddings",
                                                 4096, "pad_token_id", 0));
    if (s->bits)
        json_object_set_new(config, "quantization",
                            json_pack("{s:i,s:i}", "group_size", 64, "bits", s->bits));
    char *path = base_path_join(folder, "config.json");
    must(base_json_save(path, config, &err), &err);
    free(path);
    json_decref(config);
}

/* FOLDER/SHAPE, made when it is not there; caller frees. */
static char *model_folder(const char *folder, const char *name) {
    Error err = {0};
    const Shape *s = shapes;
    while (s < shapes + BASE_COUNT(shapes) && strcmp(s->name, name) != 0) s++;
    if (s == shapes + BASE_COUNT(shapes)) {
        fprintf(stderr, "bench: no shape %s\n", name);
        exit(2);
    }
    char *path = base_path_join(folder, name);
    char *file = base_path_join(path, "model.safetensors");
    if (!base_is_file(file)) {
        mx_scope scope = mx_open();
        Tensors all = {0};
        must(base_make_dirs(path, &err), &err);
        mx_seed(1);
        Weight embedding = random_weight(s, "embed_tokens", s->vocabulary, s->hidden, false);
        add_weight(&all, "model.", &embedding);
        if (!s->tied) {
            Weight head = random_weight(s, "lm_head", s->vocabulary, s->hidden, false);
            add_weight(&all, "", &head);
        }
        add_blocks(&all, s);
        add_norm(&all, "model.", "norm", s->hidden);
        must(mx_save_safetensors(file, (const char *const *)all.names, all.arrays, all.count, NULL,
                                 &err),
             &err);
        for (size_t i = 0; i < all.count; i++) free(all.names[i]);
        free(all.names);
        free(all.arrays);
        write_config(s, path);
        mx_drop(scope);
    }
    free(file);
    return path;
}

/* ---- a case ------------------------------------------------------------------------------ */

static const Shape *shape_of(const Case *c) {
    const Shape *s = shapes;
    while (strcmp(s->name, c->shape) != 0) s++;
    return s;
}

/* Multiplications and additions that a step cannot do without: products with weights
 * forward, and back to what went in; the causal half of attention forward and two and a half times
 * back; three products of each adapter. With checkpoints blocks that train go forward twice. */
static double step_operations(const Case *c) {
    const Shape *s = shape_of(c);
    const double tokens = (double)c->rows * (c->width - 1), kv = s->hidden / s->heads * s->kv_heads;
    const double block = s->hidden * (2.0 * s->hidden + 2 * kv + 3.0 * s->inner);
    const double adapter =
        8 * (s->joined ? 5.0 * s->hidden + 2 * kv + 4.0 * s->inner
                       : 6.0 * s->hidden + 2 * kv + 3.0 * (s->hidden + s->inner));
    const double pairs = (double)c->rows * c->width * c->width / 2 * s->hidden * 2;
    const int train = c->layers ? c->layers : s->blocks;
    const double forward = 2 * tokens * block + 2 * pairs,
                 back = 2 * tokens * block + 5 * pairs + 6 * tokens * adapter;
    return s->blocks * forward + train * (back + (c->checkpoint ? forward : 0)) +
           2 * 2 * tokens * (double)s->hidden * s->vocabulary;
}

static TuneBatch random_batch(const Case *c) {
    TuneBatch batch = {.rows = c->rows, .width = c->width};
    const size_t places = (size_t)c->rows * (size_t)c->width;
    batch.ids = base_calloc(places, sizeof *batch.ids);
    batch.weights = base_calloc(places, sizeof *batch.weights);
    uint32_t seed = 1;
    for (size_t i = 0; i < places; i++) {
        seed = seed * 1664525u + 1013904223u;
        batch.ids[i] = (int32_t)((seed >> 8) % (uint32_t)shape_of(c)->vocabulary);
        batch.weights[i] = i % (size_t)c->width > 0;
    }
    return batch;
}

static double one_step(TuneModel *model, const TuneBatch *batch, const Case *c,
                       TuneOptimizer *optimizer) {
    Error err = {0};
    const double begun = base_now();
    const size_t count = tune_model_count(model);
    mlx_array *arrays = base_calloc(3 * count, sizeof *arrays);
    mlx_array *grads = arrays, *values = arrays + count, *updated = arrays + 2 * count;
    TuneLoss loss;
    mx_scope scope = mx_open();
    must(tune_gradients(model, batch, &(TuneStepOptions){.checkpoint = c->checkpoint}, grads, &loss,
                        &err),
         &err);
    for (size_t i = 0; i < count; i++) values[i] = tune_model_value(model, i);
    must(tune_optimizer_update(optimizer, values, grads, updated, &err), &err);
    for (size_t i = 0; i < count; i++) tune_model_set(model, i, updated[i]);
    mx_drop(scope);
    free(arrays);
    if (!isfinite(loss.sum)) fprintf(stderr, "bench: the loss is %g\n", loss.sum);
    return base_now() - begun;
}

static void run_case(const char *folder, const Case *c) {
    Error err = {0};
    char *path = model_folder(folder, c->shape);
    TuneAdapterOptions options = {.num_layers = c->layers, .rank = 8, .scale = 20};
    TuneModel *model = tune_model_open(
        path, &(LmOpenOptions){.no_tokenizer = true, .dtype = c->dtype}, &options, &err);
    must(model != NULL, &err);
    TuneSchedule schedule = tune_schedule_constant(1e-5);
    TuneOptimizer *optimizer =
        tune_optimizer_new("adam", NULL, &schedule, tune_model_count(model), &err);
    TuneBatch batch = random_batch(c);
    double best = one_step(model, &batch, c, optimizer);
    for (int i = 0; i < c->steps; i++) best = fmin(best, one_step(model, &batch, c, optimizer));
    const double memory = (double)base_peak_memory();
    const double peak = fma_peak(__builtin_cpu_supports("avx512f"));
    const double rate = step_operations(c) / best;
    printf("%-12s %d x %4d, %2d layers%s: %7.2f s a step, %7.1f tokens/s, %6.1f GFLOP/s = %3.0f %% "
           "of %.0f, %5.0f MB\n",
           c->name, c->rows, c->width, c->layers ? c->layers : shape_of(c)->blocks,
           c->checkpoint ? ", checkpoints" : "", best, c->rows * (c->width - 1) / best, rate * 1e-9,
           100 * rate / peak, peak * 1e-9, memory * 1e-6);
    tune_batch_free(&batch);
    tune_optimizer_free(optimizer);
    tune_model_close(model);
    free(path);
}

/* In a process of its own; the model is made in another. */
static void run_apart(const char *folder, const Case *c, bool make) {
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        if (make)
            free(model_folder(folder, c->shape));
        else
            run_case(folder, c);
        fflush(stdout);
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
}

int main(int count, char **words) {
    if (count < 2) {
        fputs("usage: bench_tune_step FOLDER [CASE | make SHAPE]\n", stderr);
        return 2;
    }
    if (count > 3) {
        free(model_folder(words[1], words[3]));
        return 0;
    }
    for (size_t i = 0; i < BASE_COUNT(cases); i++) {
        if (count > 2 && strcmp(words[2], cases[i].name) != 0) continue;
        run_apart(words[1], &cases[i], true);
        run_apart(words[1], &cases[i], false);
    }
    return 0;
}
