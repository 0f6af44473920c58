/* One micro-step: a batch goes forward through the blocks, its loss is taken, and the
 * gradient comes back to the tensors that train. With checkpointing a block keeps only
 * what goes into it and runs again when its gradient is due. */
#include "tune/step.h"

#include "tune/internal.h"
#include "tune/loss.h"

#include <stdlib.h>

/* Logits of a capped head pass through in pieces of so many numbers. */
enum { HEAD_NUMBERS = 1 << 24 };

typedef struct Step Step;

/* A block that may run again. */
typedef struct BlockRun {
    Step *step;
    int block;
    size_t first, count; /* its tensors */
    size_t n_states;
    bool ran;
} BlockRun;

struct Step {
    TuneModel *model;
    const TuneStepOptions *options;
    bool checkpoint;
    DecoderPass pass;
    mlx_array ids;       /* [B, T]: all but a row's last token */
    mlx_array rows;      /* int32 [N]: places in [B T] whose next token is a target; {0}: all */
    mlx_array targets;   /* int32 [N] */
    mlx_array selector;  /* of pairs: float32 [B, N], the row that a target belongs to */
    mlx_array lengths;   /* of pairs: float32 [B], targets of a row */
    mlx_array reference; /* of DPO: float32 [B] */
    size_t n_targets;
    BlockRun *blocks;
};

/* ---- the batch as arrays ------------------------------------------------------------- */

static mlx_array document_places(const TuneBatch *batch, int *scratch) {
    const int length = batch->width - 1;
    for (int r = 0; r < batch->rows; r++) {
        const int32_t *segments = batch->segments + (size_t)r * (size_t)batch->width;
        for (int s = 0, begin = 0; s < length; s++) {
            if (s > 0 && segments[s] != segments[s - 1]) begin = s;
            scratch[r * length + s] = s - begin;
        }
    }
    return mx_from_i32(scratch, MX_SHAPE(batch->rows, length));
}

static mlx_array all_but_last(const int32_t *numbers, const TuneBatch *batch) {
    mlx_array whole = mx_from_i32(numbers, MX_SHAPE(batch->rows, batch->width));
    return mx_slice(whole, 1, 0, batch->width - 1);
}

static void read_targets(Step *step, const TuneBatch *batch, int *scratch) {
    const int length = batch->width - 1;
    const size_t places = (size_t)batch->rows * (size_t)length;
    int *rows = scratch, *targets = scratch + places;
    size_t count = 0;
    for (int r = 0; r < batch->rows; r++) {
        for (int s = 0; s < length; s++) {
            const size_t next = (size_t)r * (size_t)batch->width + (size_t)s + 1;
            if (!(batch->weights[next] > 0)) continue;
            rows[count] = r * length + s;
            targets[count++] = batch->ids[next];
        }
    }
    step->n_targets = count;
    if (count == 0) return;
    step->targets = mx_from_i32(targets, MX_SHAPE((int)count));
    if (count < places) step->rows = mx_from_i32(rows, MX_SHAPE((int)count));
    if (step->options->loss == TUNE_LOSS_TOKENS) return;
    float *selector = base_calloc((size_t)batch->rows * (count + 1), sizeof *selector);
    float *lengths = selector + (size_t)batch->rows * count;
    for (size_t i = 0; i < count; i++) {
        const size_t row = (size_t)(rows[i] / length);
        selector[row * count + i] = 1;
        lengths[row]++;
    }
    step->selector = mx_from_f32(selector, MX_SHAPE(batch->rows, (int)count));
    step->lengths = mx_from_f32(lengths, MX_SHAPE(batch->rows));
    free(selector);
}

static void begin(Step *step, TuneModel *model, const TuneBatch *batch,
                  const TuneStepOptions *options) {
    const int n_blocks = model_decoder_blocks(model->lm->decoder);
    *step = (Step){.model = model, .options = options};
    step->blocks = base_calloc((size_t)n_blocks, sizeof *step->blocks);
    const size_t places = (size_t)batch->rows * (size_t)batch->width;
    int *scratch = base_alloc(2 * places * sizeof *scratch);
    read_targets(step, batch, scratch);
    if (step->n_targets > 0) {
        step->ids = all_but_last(batch->ids, batch);
        mlx_array segments = {0}, starts = {0};
        if (batch->segments) {
            segments = all_but_last(batch->segments, batch);
            starts = document_places(batch, scratch);
        }
        step->pass = model_pass_begin(model->lm->decoder, step->ids, NULL, segments, starts);
    }
    free(scratch);
}

static void end(Step *step) {
    tune_model_unbind(step->model);
    step->model->dropout.again = false;
    free(step->blocks);
}

/* ---- forward ---------------------------------------------------------------------------- */

/* With fully tuned blocks the layer is made anew of the tensors in force. */
static void run_whole(const Step *step, int block, mlx_array states[3]) {
    const TuneModel *model = step->model;
    size_t first = 0, count = tune_model_block(model, block, &first);
    NnParams *tensors = nn_params_new(lm_model_folder(model->lm), NULL, NULL);
    for (size_t i = first; i < first + count; i++)
        nn_params_add(tensors, model->tensors[i].name, model->tensors[i].current);
    model_pass_block_from(&step->pass, block, tensors, lm_model_config(model->lm), states);
    nn_params_free(tensors);
}

static void run_block(const Step *step, int block, mlx_array states[3]) {
    size_t first;
    const bool whole =
        step->model->kind == TUNE_FULL && tune_model_block(step->model, block, &first) > 0;
    if (whole)
        run_whole(step, block, states);
    else
        model_pass_block(&step->pass, block, states);
}

static mlx_array argument(const mlx_vector_array arguments, size_t i) {
    mlx_array array = {0};
    if (mlx_vector_array_get(&array, arguments, i)) return mx_fail("an argument is missing");
    return mx_own(array);
}

/* arguments: the states, then the block's tensors; results: the states. */
static int rerun_block(mlx_vector_array *results, const mlx_vector_array arguments, void *payload) {
    BlockRun *run = payload;
    TuneModel *model = run->step->model;
    mx_scope s = mx_open();
    mlx_array states[3] = {{0}};
    for (size_t i = 0; i < run->n_states; i++) states[i] = argument(arguments, i);
    for (size_t i = 0; i < run->count; i++) {
        mlx_array value = argument(arguments, run->n_states + i);
        tune_model_bind(model, run->first + i, 1, &value);
    }
    model->dropout.again = run->ran;
    run->ran = true;
    run_block(run->step, run->block, states);
    model->dropout.again = false;
    const size_t n_results = states[1].ctx ? 3 : 1;
    if (!mx_failed()) mlx_vector_array_set_data(results, states, n_results);
    mx_drop(s);
    return mx_failed();
}

static void checkpoint_block(Step *step, int block, mlx_array states[3]) {
    BlockRun *run = &step->blocks[block];
    *run = (BlockRun){.step = step, .block = block, .n_states = states[1].ctx ? 3 : 1};
    run->count = tune_model_block(step->model, block, &run->first);
    mlx_vector_array arguments = mlx_vector_array_new(), results = mlx_vector_array_new();
    mlx_vector_array_append_data(arguments, states, run->n_states);
    for (size_t i = 0; i < run->count; i++)
        mlx_vector_array_append_value(arguments, step->model->tensors[run->first + i].current);
    mlx_closure plain = mlx_closure_new_func_payload(rerun_block, run, NULL);
    mlx_closure checkpointed = mlx_closure_new();
    const int status = mlx_checkpoint(&checkpointed, plain) ||
                       mlx_closure_apply(&results, checkpointed, arguments);
    if (status)
        mx_fail("block %d cannot be checkpointed", block);
    else
        for (size_t i = 0; i < mlx_vector_array_size(results); i++)
            states[i] = argument(results, i);
    mlx_closure_free(checkpointed);
    mlx_closure_free(plain);
    mlx_vector_array_free(arguments);
    mlx_vector_array_free(results);
}

/* What the head is given: [N, D], a row a target. */
static mlx_array hidden_rows(Step *step) {
    const int blocks = model_decoder_blocks(step->model->lm->decoder);
    mlx_array states[3] = {model_pass_embed(&step->pass, step->ids)};
    for (int i = 0; i < blocks && !mx_failed(); i++) {
        if (step->checkpoint && i >= step->model->first_block)
            checkpoint_block(step, i, states);
        else
            run_block(step, i, states);
    }
    mlx_array x = model_pass_end(&step->pass, states[0]);
    x = mx_reshape(x, MX_SHAPE(-1, mx_dim(x, -1)));
    return step->rows.ctx ? mx_take(x, step->rows, 0) : x;
}

static mlx_array head_entropy(const Step *step, mlx_array x, mlx_array targets) {
    return tune_cross_entropy(model_decoder_head(step->model->lm->decoder, x), targets,
                              step->options->compat);
}

/* arguments: x [n, D], targets [n]; result: cross-entropies [n]. */
static int rerun_head(mlx_vector_array *results, const mlx_vector_array arguments, void *payload) {
    const Step *step = payload;
    mx_scope s = mx_open();
    mlx_array entropy = head_entropy(step, argument(arguments, 0), argument(arguments, 1));
    if (!mx_failed()) mlx_vector_array_set_value(results, entropy);
    mx_drop(s);
    return mx_failed();
}

static mlx_array checkpoint_head(Step *step, mlx_array x, mlx_array targets) {
    mlx_vector_array arguments = mlx_vector_array_new(), results = mlx_vector_array_new();
    mlx_vector_array_append_value(arguments, x);
    mlx_vector_array_append_value(arguments, targets);
    mlx_closure plain = mlx_closure_new_func_payload(rerun_head, step, NULL);
    mlx_closure checkpointed = mlx_closure_new();
    const int status = mlx_checkpoint(&checkpointed, plain) ||
                       mlx_closure_apply(&results, checkpointed, arguments);
    mlx_array entropy = status ? mx_fail("the head cannot be checkpointed") : argument(results, 0);
    mlx_closure_free(checkpointed);
    mlx_closure_free(plain);
    mlx_vector_array_free(arguments);
    mlx_vector_array_free(results);
    return entropy;
}

/* Cross-entropies [N]. The engine keeps the logits of a plain head from being made; those
 * of a capped one pass through in pieces. An adapter on the head takes the plain way. */
static mlx_array entropies(Step *step, mlx_array x) {
    const Decoder *decoder = step->model->lm->decoder;
    const int n = (int)step->n_targets;
    const int at_once = BASE_MAX(64, HEAD_NUMBERS / model_decoder_vocab(decoder));
    size_t first;
    const bool head_trains = tune_model_block(step->model, TUNE_OUTSIDE, &first) > 0;
    if (!model_decoder_caps_logits(decoder) || n <= at_once || head_trains)
        return head_entropy(step, x, step->targets);
    mlx_array joined = {0};
    for (int begins = 0; begins < n; begins += at_once) {
        const int ends = BASE_MIN(n, begins + at_once);
        mlx_array part = checkpoint_head(step, mx_slice(x, 0, begins, ends),
                                         mx_slice(step->targets, 0, begins, ends));
        joined = joined.ctx ? mx_concat2(joined, part, 0) : part;
    }
    return joined;
}

/* Log-probabilities of the targets of each row, summed: [B]. */
static mlx_array row_sums(const Step *step, mlx_array entropy) {
    return mx_neg(mx_squeeze(mx_matmul(step->selector, mx_expand_dims(entropy, -1)), -1));
}

/* The loss, a scalar; of pairs also their margins [B/2]. */
static mlx_array loss_of(Step *step, mlx_array *margins) {
    mlx_array entropy = entropies(step, hidden_rows(step));
    if (step->options->loss == TUNE_LOSS_TOKENS) return mx_sum(entropy, 0, false);
    const double beta = step->options->beta > 0 ? (double)step->options->beta : 0.1;
    const int pairs = mx_dim(step->selector, 0) / 2;
    mlx_array sums = row_sums(step, entropy), losses;
    if (step->options->loss == TUNE_LOSS_DPO) {
        losses = tune_dpo_loss(mx_slice(sums, 0, 0, pairs), mx_slice(sums, 0, pairs, 2 * pairs),
                               mx_slice(step->reference, 0, 0, pairs),
                               mx_slice(step->reference, 0, pairs, 2 * pairs), beta, margins);
    } else {
        mlx_array means = mx_div(sums, mx_maximum(step->lengths, mx_scalar(1, MLX_FLOAT32)));
        losses = tune_orpo_loss(mx_slice(means, 0, 0, pairs), mx_slice(means, 0, pairs, 2 * pairs),
                                beta, margins);
    }
    return mx_sum(losses, 0, false);
}

/* The reference of DPO: the same rows through the base, without gradient. */
static bool read_reference(Step *step) {
    if (step->options->loss != TUNE_LOSS_DPO) return true;
    const float p = step->model->dropout.p;
    step->model->dropout.p = 0;
    tune_model_bind_base(step->model);
    step->reference = row_sums(step, entropies(step, hidden_rows(step)));
    const bool good = mx_eval(&step->reference, 1);
    tune_model_unbind(step->model);
    step->model->dropout.p = p;
    return good;
}

/* arguments: all tensors; results: the loss, and of pairs the margins. */
static int run_step(mlx_vector_array *results, const mlx_vector_array arguments, void *payload) {
    Step *step = payload;
    mx_scope s = mx_open();
    for (size_t i = 0; i < step->model->count; i++) {
        mlx_array value = argument(arguments, i);
        tune_model_bind(step->model, i, 1, &value);
    }
    mlx_array made[2] = {{0}};
    made[0] = loss_of(step, &made[1]);
    if (!mx_failed()) mlx_vector_array_set_data(results, made, made[1].ctx ? 2 : 1);
    mx_drop(s);
    return mx_failed();
}

/* ---- results ------------------------------------------------------------------------------ */

static void read_loss(const Step *step, mlx_array sum, mlx_array margins, TuneLoss *loss) {
    *loss = (TuneLoss){.sum = mx_item_float(sum), .targets = (double)step->n_targets};
    if (!margins.ctx) return;
    const int pairs = mx_dim(margins, 0);
    mlx_array won = mx_greater(margins, mx_scalar(0, MLX_FLOAT32));
    loss->targets = pairs;
    loss->accuracy = mx_item_float(mx_mean(mx_cast(won, MLX_FLOAT32), 0, false));
}

static void no_gradient(const TuneModel *model, mlx_array *grads) {
    for (size_t i = 0; i < model->count; i++) {
        mlx_array value = model->tensors[i].value;
        grads[i] = mx_mul_scalar(value, 0);
    }
    mx_eval(grads, model->count);
}

static void differentiate(Step *step, mlx_array *grads, TuneLoss *loss) {
    const size_t count = step->model->count;
    int *places = base_alloc((count + 1) * sizeof *places);
    mlx_vector_array arguments = mlx_vector_array_new(), values = mlx_vector_array_new(),
                     gradients = mlx_vector_array_new();
    for (size_t i = 0; i < count; i++) {
        places[i] = (int)i;
        mlx_vector_array_append_value(arguments, step->model->tensors[i].value);
    }
    mlx_closure function = mlx_closure_new_func_payload(run_step, step, NULL);
    mlx_closure_value_and_grad both = mlx_closure_value_and_grad_new();
    const int status = mlx_value_and_grad(&both, function, places, count) ||
                       mlx_closure_value_and_grad_apply(&values, &gradients, both, arguments);
    if (status) mx_fail("the gradient cannot be taken");
    mlx_array results[2] = {{0}};
    for (size_t i = 0; i < count && !mx_failed(); i++) grads[i] = argument(gradients, i);
    for (size_t i = 0; i < mlx_vector_array_size(values) && !mx_failed(); i++)
        results[i] = argument(values, i);
    mlx_vector_array_append_value(gradients, results[0]);
    mlx_closure_value_and_grad_free(both);
    mlx_closure_free(function);
    mlx_vector_array_free(arguments);
    mlx_vector_array_free(values);
    if (!mx_failed() && mlx_eval(gradients)) mx_fail("the gradient cannot be computed");
    mlx_vector_array_free(gradients);
    if (!mx_failed()) read_loss(step, results[0], results[1], loss);
    free(places);
}

bool tune_gradients(TuneModel *model, const TuneBatch *batch, const TuneStepOptions *options,
                    mlx_array *grads, TuneLoss *loss, Error *err) {
    Step step;
    *loss = (TuneLoss){0};
    mx_scope s = mx_open();
    begin(&step, model, batch, options);
    if (step.n_targets == 0) {
        no_gradient(model, grads);
    } else if (read_reference(&step)) {
        step.checkpoint = options->checkpoint;
        differentiate(&step, grads, loss);
    }
    end(&step);
    const bool good = mx_check(err);
    if (good)
        mx_close_many(s, grads, model->count);
    else
        mx_drop(s);
    return good;
}

bool tune_evaluate_batch(TuneModel *model, const TuneBatch *batch, const TuneStepOptions *options,
                         TuneLoss *loss, Error *err) {
    Step step;
    *loss = (TuneLoss){0};
    mx_scope s = mx_open();
    begin(&step, model, batch, options);
    const float p = model->dropout.p;
    model->dropout.p = 0;
    if (step.n_targets > 0 && read_reference(&step)) {
        mlx_array margins = {0}, sum = loss_of(&step, &margins);
        read_loss(&step, sum, margins, loss);
    }
    model->dropout.p = p;
    end(&step);
    mx_drop(s);
    return mx_check(err);
}
