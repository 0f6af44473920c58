/* Every family that has a golden folder (tests/golden/hf) trains: the modules that get
 * adapters and their order are mlx_lm's, gradients agree with differences of the loss,
 * and the loss falls. */
#include "hub/folder.h"
#include "tune/optimizer.h"
#include "tune/step.h"

#include <math.h>

enum { ROWS = 2, WIDTH = 13, MOST = 256 };

#define ATTENTION "self_attn.o_proj self_attn.v_proj self_attn.k_proj self_attn.q_proj "
#define GLU "mlp.up_proj mlp.down_proj mlp.gate_proj "
#define GLU_LAST "mlp.down_proj mlp.up_proj mlp.gate_proj "
#define SWITCH(path) path ".down_proj " path ".up_proj " path ".gate_proj "

/* The last block's modules in the order in which mlx_lm draws them: children of
 * mlx_lm/models/<family>.py, commit d78bf58e, in reverse order of definition. */
static const struct {
    const char *folder, *modules;
} families[] = {
    {"llama", GLU ATTENTION},
    {"llama-bias", GLU ATTENTION},
    {"llama-relu-yarn", GLU ATTENTION},
    {"llama3-rope", GLU ATTENTION},
    {"mistral-sliding", GLU ATTENTION},
    {"qwen2", GLU ATTENTION},
    {"qwen3", GLU ATTENTION},
    {"gemma", GLU ATTENTION},
    {"gemma-untied", GLU ATTENTION},
    {"gemma2", GLU ATTENTION},
    {"gemma3_text", GLU ATTENTION},
    {"olmo2", GLU ATTENTION},
    {"granite", GLU ATTENTION},
    {"stablelm", GLU ATTENTION},
    {"smollm3", GLU ATTENTION},
    {"exaone4", GLU ATTENTION},
    {"seed_oss", GLU ATTENTION},
    {"cohere", GLU_LAST ATTENTION},
    {"cohere2", GLU_LAST ATTENTION},
    {"phi3", "mlp.down_proj mlp.gate_up_proj self_attn.o_proj self_attn.qkv_proj "},
    {"phi3-longrope", "mlp.down_proj mlp.gate_up_proj self_attn.o_proj self_attn.qkv_proj "},
    {"glm4", "mlp.down_proj mlp.gate_up_proj " ATTENTION},
    {"phi", "mlp.fc2 mlp.fc1 self_attn.dense self_attn.v_proj self_attn.k_proj self_attn.q_proj "},
    {"starcoder2", "mlp.c_proj mlp.c_fc " ATTENTION},
    {"gpt2", "mlp.c_proj mlp.c_fc attn.c_proj attn.c_attn "},
    {"gpt_neox", "mlp.dense_4h_to_h mlp.dense_h_to_4h attention.dense attention.query_key_value "},
    {"mixtral", SWITCH("block_sparse_moe.switch_mlp") "block_sparse_moe.gate " ATTENTION},
    {"qwen3_moe", SWITCH("mlp.switch_mlp") "mlp.gate " ATTENTION},
    {"qwen2_moe", "mlp.shared_expert_gate mlp.shared_expert.up_proj mlp.shared_expert.down_proj "
                  "mlp.shared_expert.gate_proj " SWITCH("mlp.switch_mlp") "mlp.gate " ATTENTION},
    {"gpt_oss", "mlp.router " SWITCH("mlp.experts") ATTENTION},
    {"deepseek_v3", SWITCH("mlp.shared_experts") SWITCH(
                        "mlp.switch_mlp") "self_attn.q_b_proj self_attn.q_a_proj self_attn.o_proj "
                                          "self_attn.kv_a_proj_with_mqa "},
};

static TuneModel *open_family(const char *folder, TuneAdapterOptions options, Error *err) {
    char *path = base_path_join(GOLDEN "/hf", folder);
    LmOpenOptions open = {.dtype = "float32", .no_tokenizer = true};
    if (options.rank == 0) options.rank = 2;
    if (options.scale == 0) options.scale = 4;
    TuneModel *model = tune_model_open(path, &open, &options, err);
    free(path);
    return model;
}

static TuneModel *must_open(const char *folder, TuneAdapterOptions options) {
    Error err = {0};
    TuneModel *model = open_family(folder, options, &err);
    if (!model) fail_msg("%s: %s", folder, err.message);
    assert_true(tune_model_count(model) <= MOST);
    return model;
}

/* A model gives its tensors in the order of the tree; draws go the other way. */
static char *modules_of_last_block(const TuneModel *model) {
    StrBuf out = {0};
    base_str_append(&out, "");
    char prefix[64] = "";
    for (size_t i = tune_model_count(model); i-- > 0;) {
        const char *name = tune_model_name(model, i);
        if (!base_ends_with(name, ".lora_a")) continue;
        const char *number = name + strcspn(name, "0123456789");
        const size_t block = (size_t)(number - name) + strspn(number, "0123456789") + 1;
        if (!prefix[0]) memcpy(prefix, name, block);
        if (!base_starts_with(name, prefix)) break;
        base_str_append_n(&out, name + block, strlen(name) - block - strlen(".lora_a"));
        base_str_append_char(&out, ' ');
    }
    return base_str_detach(&out);
}

static void test_default_modules_and_their_order_are_mlx_lm_s(void **state) {
    (void)state;
    for (size_t i = 0; i < BASE_COUNT(families); i++) {
        TuneModel *model = must_open(families[i].folder, (TuneAdapterOptions){0});
        char *modules = modules_of_last_block(model);
        if (strcmp(modules, families[i].modules) != 0)
            fail_msg("%s: \"%s\", wanted \"%s\"", families[i].folder, modules, families[i].modules);
        free(modules);
        tune_model_close(model);
    }
}

/* ---- gradients ------------------------------------------------------------------------ */

/* Ids 1 to 90; the second row is shorter, and its first three tokens are no targets. */
static TuneBatch some_batch(void) {
    TuneBatch batch = {.rows = ROWS, .width = WIDTH};
    batch.ids = base_calloc(ROWS * WIDTH, sizeof *batch.ids);
    batch.weights = base_calloc(ROWS * WIDTH, sizeof *batch.weights);
    uint32_t seed = 7;
    for (int i = 0; i < ROWS * WIDTH; i++) {
        const int place = i % WIDTH;
        if (i >= WIDTH && place >= WIDTH - 3) continue;
        seed = seed * 1664525u + 1013904223u;
        batch.ids[i] = (int32_t)(1 + (seed >> 8) % 90);
        batch.weights[i] = place > (i < WIDTH ? 0 : 3);
        batch.targets += (double)batch.weights[i];
    }
    return batch;
}

/* Values as after some training: lora_b is not zero. */
static void shake(TuneModel *model, double size) {
    mx_scope s = mx_open();
    mlx_array key = mx_key(3);
    for (size_t i = 0; i < tune_model_count(model); i++) {
        mlx_array value = tune_model_value(model, i);
        int shape[8];
        for (int d = 0; d < mx_ndim(value); d++) shape[d] = mx_dim(value, d);
        key = mx_add_scalar(key, 1);
        mlx_array noise = mx_uniform_of(key, -size, size, shape, (size_t)mx_ndim(value));
        mlx_array shaken = mx_add(value, mx_cast(noise, mx_dtype(value)));
        assert_true(mx_eval(&shaken, 1));
        tune_model_set(model, i, shaken);
    }
    mx_drop(s);
}

static double loss_at(TuneModel *model, const TuneBatch *batch, const TuneStepOptions *options,
                      bool dropout) {
    Error err = {0};
    TuneLoss loss;
    mx_scope s = mx_open();
    mlx_array grads[MOST];
    const bool good = dropout ? tune_gradients(model, batch, options, grads, &loss, &err)
                              : tune_evaluate_batch(model, batch, options, &loss, &err);
    if (!good) fail_msg("%s", err.message);
    mx_drop(s);
    return loss.sum;
}

static double dot(mlx_array a, mlx_array b) {
    return mx_item_float(mx_sum(mx_reshape(mx_mul(a, b), MX_SHAPE(-1)), 0, false));
}

typedef struct Check {
    const char *name;
    TuneStepOptions options;
    bool dropout;
} Check;

/* Of the tensors [first, first + count): along a direction that is half the gradient's and
 * half at random, the loss changes as the gradient says. Within a step a router may come to
 * choose another expert; then a smaller one must agree. */
static void check_direction(TuneModel *model, const TuneBatch *batch, const Check *check,
                            const mlx_array *grads, size_t first, size_t count) {
    mx_scope s = mx_open();
    mlx_array before[MOST], along[MOST], key = mx_key(11 + first);
    double length = 0, expected = 0;
    for (size_t i = first; i < first + count; i++) length += dot(grads[i], grads[i]);
    if (length == 0) {
        mx_drop(s);
        return;
    }
    for (size_t i = first; i < first + count; i++) {
        before[i] = tune_model_value(model, i);
        int shape[8];
        for (int d = 0; d < mx_ndim(before[i]); d++) shape[d] = mx_dim(before[i], d);
        key = mx_add_scalar(key, 1);
        mlx_array noise = mx_uniform_of(key, -1, 1, shape, (size_t)mx_ndim(before[i]));
        const double size = sqrt(dot(noise, noise) * (double)count);
        along[i] =
            mx_add(mx_mul_scalar(grads[i], 1 / sqrt(length)), mx_mul_scalar(noise, 1 / size));
        expected += dot(grads[i], along[i]);
        before[i] = mx_add_scalar(before[i], 0);
    }
    assert_true(mx_eval(before + first, count) && mx_eval(along + first, count));
    bool agrees = false;
    double found = 0;
    for (double step = 2e-3; !agrees && step > 5e-5; step /= 5) {
        double losses[2];
        for (int side = 0; side < 2; side++) {
            mx_scope inner = mx_open();
            for (size_t i = first; i < first + count; i++) {
                mlx_array moved = mx_add(before[i], mx_mul_scalar(along[i], side ? step : -step));
                assert_true(mx_eval(&moved, 1));
                tune_model_set(model, i, moved);
            }
            if (check->dropout) tune_model_set_random(model, mx_key(5));
            losses[side] = loss_at(model, batch, &check->options, check->dropout);
            mx_drop(inner);
        }
        found = (losses[1] - losses[0]) / (2 * step);
        agrees = fabs(found - expected) <= 1e-2 * fabs(expected) + 2e-5 / step;
    }
    for (size_t i = first; i < first + count; i++) tune_model_set(model, i, before[i]);
    if (!agrees)
        fail_msg("%s, %s: the gradient says %g, the loss %g", check->name,
                 tune_model_name(model, first), expected, found);
    mx_drop(s);
}

static void check_gradients(TuneModel *model, const TuneBatch *batch, Check check, bool each) {
    Error err = {0};
    TuneLoss loss;
    mx_scope s = mx_open();
    mlx_array grads[MOST];
    if (check.dropout) tune_model_set_random(model, mx_key(5));
    if (!tune_gradients(model, batch, &check.options, grads, &loss, &err))
        fail_msg("%s: %s", check.name, err.message);
    const size_t count = tune_model_count(model);
    check_direction(model, batch, &check, grads, 0, count);
    for (size_t i = 0; i < count && each; i++) check_direction(model, batch, &check, grads, i, 1);
    mx_drop(s);
}

static void check_family(const char *folder, TuneAdapterOptions options, Check check, bool each) {
    TuneBatch batch = some_batch();
    TuneModel *model = must_open(folder, options);
    shake(model, options.kind == TUNE_FULL ? 0.01 : 0.05);
    check.name = folder;
    check_gradients(model, &batch, check, each);
    tune_batch_free(&batch);
    tune_model_close(model);
}

static void test_gradients_of_every_family_agree_with_differences(void **state) {
    (void)state;
    for (size_t i = 0; i < BASE_COUNT(families); i++)
        check_family(families[i].folder, (TuneAdapterOptions){0}, (Check){0}, false);
}

static void test_each_tensor_s_gradient_agrees_with_differences(void **state) {
    (void)state;
    static const char *const folders[] = {"phi3",    "qwen3",     "gemma",  "gemma2",
                                          "mixtral", "qwen3_moe", "gpt_oss"};
    for (size_t i = 0; i < BASE_COUNT(folders); i++)
        check_family(folders[i], (TuneAdapterOptions){.num_layers = 1}, (Check){0}, true);
}

static void test_checkpointed_gradients_agree_with_differences(void **state) {
    (void)state;
    static const char *const folders[] = {"phi3", "gemma3_text", "mixtral"};
    for (size_t i = 0; i < BASE_COUNT(folders); i++)
        check_family(folders[i], (TuneAdapterOptions){0}, (Check){.options.checkpoint = true},
                     false);
}

static void test_dora_trains_its_lengths_too(void **state) {
    (void)state;
    /* The norm in the denominator is a constant, so that only m's gradient is the loss's. */
    TuneBatch batch = some_batch();
    TuneModel *model = must_open("qwen3", (TuneAdapterOptions){.kind = TUNE_DORA});
    shake(model, 0.05);
    Error err = {0};
    TuneLoss loss;
    mx_scope s = mx_open();
    mlx_array grads[MOST];
    assert_true(tune_gradients(model, &batch, &(TuneStepOptions){0}, grads, &loss, &err));
    size_t lengths = 0;
    for (size_t i = 0; i < tune_model_count(model); i++) {
        if (!base_ends_with(tune_model_name(model, i), ".m")) continue;
        check_direction(model, &batch, &(Check){.name = "dora"}, grads, i, 1);
        lengths++;
    }
    assert_int_equal(lengths, 14);
    mx_drop(s);
    tune_batch_free(&batch);
    tune_model_close(model);
}

static void test_embedding_and_head_adapters_have_true_gradients(void **state) {
    (void)state;
    static const char *const head[] = {"model.embed_tokens", "lm_head", "self_attn.q_proj"};
    static const char *const tied[] = {"model.embed_tokens"};
    check_family("llama", (TuneAdapterOptions){.keys = head, .n_keys = 3}, (Check){0}, true);
    check_family("qwen3", (TuneAdapterOptions){.keys = tied, .n_keys = 1}, (Check){0}, true);
}

static void test_dropout_s_gradient_is_that_of_the_same_draws(void **state) {
    (void)state;
    static const char *const folders[] = {"llama", "mixtral"};
    for (size_t i = 0; i < BASE_COUNT(folders); i++) {
        check_family(folders[i], (TuneAdapterOptions){.dropout = 0.3f}, (Check){.dropout = true},
                     false);
        check_family(folders[i], (TuneAdapterOptions){.dropout = 0.3f},
                     (Check){.dropout = true, .options.checkpoint = true}, false);
    }
}

static void test_whole_blocks_have_true_gradients(void **state) {
    (void)state;
    static const char *const folders[] = {"llama", "phi3", "gemma", "qwen3_moe"};
    for (size_t i = 0; i < BASE_COUNT(folders); i++)
        check_family(folders[i], (TuneAdapterOptions){.kind = TUNE_FULL, .num_layers = 1},
                     (Check){0}, false);
}

static void test_preference_losses_have_true_gradients(void **state) {
    (void)state;
    check_family("llama", (TuneAdapterOptions){0}, (Check){.options.loss = TUNE_LOSS_DPO}, false);
    check_family("llama", (TuneAdapterOptions){0}, (Check){.options.loss = TUNE_LOSS_ORPO}, false);
}

/* ---- learning -------------------------------------------------------------------------- */

static void test_the_loss_of_every_family_falls(void **state) {
    (void)state;
    Error err = {0};
    for (size_t f = 0; f < BASE_COUNT(families); f++) {
        TuneModel *model = must_open(families[f].folder, (TuneAdapterOptions){0});
        const size_t count = tune_model_count(model);
        TuneSchedule schedule = tune_schedule_constant(2e-3);
        TuneOptimizer *optimizer = tune_optimizer_new("adam", NULL, &schedule, count, &err);
        TuneBatch batch = some_batch();
        double first = 0, last = 0;
        for (int step = 0; step < 6; step++) {
            mx_scope s = mx_open();
            mlx_array grads[MOST], values[MOST], updated[MOST];
            TuneLoss loss;
            if (!tune_gradients(model, &batch, &(TuneStepOptions){0}, grads, &loss, &err))
                fail_msg("%s", err.message);
            for (size_t i = 0; i < count; i++) values[i] = tune_model_value(model, i);
            assert_true(tune_optimizer_update(optimizer, values, grads, updated, &err));
            for (size_t i = 0; i < count; i++) tune_model_set(model, i, updated[i]);
            last = loss.sum / loss.targets;
            if (step == 0) first = last;
            mx_drop(s);
        }
        if (!(last < 0.98 * first)) fail_msg("%s: from %g to %g", families[f].folder, first, last);
        tune_batch_free(&batch);
        tune_optimizer_free(optimizer);
        tune_model_close(model);
    }
}

/* ---- counts ------------------------------------------------------------------------------ */

static void test_trainable_values_are_as_the_formulas_say(void **state) {
    (void)state;
    /* 2 blocks; with kv = h a block has r (8 h + 3 (h + inner)), DoRA 5 h + 2 inner more. */
    const size_t r = 2, h = 64, inner = 128, kv = 32, vocabulary = 160;
    TuneModel *model = must_open("llama", (TuneAdapterOptions){0});
    assert_int_equal(tune_model_trainable(model), 2 * r * (4 * h + 2 * (h + kv) + 3 * (h + inner)));
    tune_model_close(model);
    model = must_open("llama", (TuneAdapterOptions){.kind = TUNE_DORA});
    assert_int_equal(
        tune_model_trainable(model),
        2 * (r * (4 * h + 2 * (h + kv) + 3 * (h + inner)) + 3 * h + 2 * kv + 2 * inner));
    tune_model_close(model);
    static const char *const keys[] = {"lm_head", "model.embed_tokens"};
    for (size_t i = 0; i < 2; i++) {
        model = must_open("llama", (TuneAdapterOptions){.keys = keys + i, .n_keys = 1});
        assert_int_equal(tune_model_trainable(model), r * (h + vocabulary));
        tune_model_close(model);
    }
}

static void test_dora_refuses_experts(void **state) {
    (void)state;
    Error err = {0};
    assert_null(open_family("mixtral", (TuneAdapterOptions){.kind = TUNE_DORA}, &err));
    assert_non_null(strstr(err.message, "DoRA cannot train the experts"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_default_modules_and_their_order_are_mlx_lm_s),
        cmocka_unit_test(test_gradients_of_every_family_agree_with_differences),
        cmocka_unit_test(test_each_tensor_s_gradient_agrees_with_differences),
        cmocka_unit_test(test_checkpointed_gradients_agree_with_differences),
        cmocka_unit_test(test_dora_trains_its_lengths_too),
        cmocka_unit_test(test_embedding_and_head_adapters_have_true_gradients),
        cmocka_unit_test(test_dropout_s_gradient_is_that_of_the_same_draws),
        cmocka_unit_test(test_whole_blocks_have_true_gradients),
        cmocka_unit_test(test_preference_losses_have_true_gradients),
        cmocka_unit_test(test_the_loss_of_every_family_falls),
        cmocka_unit_test(test_trainable_values_are_as_the_formulas_say),
        cmocka_unit_test(test_dora_refuses_experts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
