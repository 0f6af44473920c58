/* train as a person runs it: the golden run of PEFT through the command line, a run that
 * is killed and goes on, the files that it leaves, and what it refuses. */
#include "cli/program.h"
#include "mx/mx.h"
#include "tune/toy_model.h"

#include <math.h>
#include <signal.h>
#include <sys/stat.h>

static char *in(void **state, const char *name) {
    return base_path_join(*state, name);
}

static json_t *lines_of(const char *path) {
    char *text;
    size_t length;
    assert_true(base_file_read(path, &text, &length, NULL));
    json_t *list = json_array();
    for (char *line = text; *line;) {
        const size_t size = strcspn(line, "\n");
        json_t *value = json_loadb(line, size, 0, NULL);
        assert_non_null(value);
        json_array_append_new(list, value);
        line += size + (line[size] == '\n');
    }
    free(text);
    return list;
}

static json_t *metrics_of(void **state, const char *adapters) {
    char *folder = in(state, adapters), *path = base_path_join(folder, "metrics.jsonl");
    json_t *lines = lines_of(path);
    free(path);
    free(folder);
    return lines;
}

static double number(const json_t *object, const char *key) {
    return json_number_value(json_object_get(object, key));
}

static bool exists(void **state, const char *adapters, const char *name) {
    char *folder = in(state, adapters), *path = base_path_join(folder, name);
    const bool there = base_is_file(path);
    free(path);
    free(folder);
    return there;
}

/* Up to 40 words after "train --model M --data D --adapter-path A". */
static Outcome run_train(void **state, const char *command, const char *model, const char *data,
                         const char *adapters, const char *words) {
    char *m = model[0] == '/' ? base_strdup(model) : in(state, model), *d = in(state, data),
         *a = in(state, adapters), *copy = base_strdup(words), *rest = copy;
    const char *w[40] = {NULL};
    size_t count = 0;
    for (char *word; count < 39 && (word = strtok_r(rest, " ", &rest)) != NULL;) w[count++] = word;
    Outcome outcome = program_run(
        NULL, command, "--model", m, "--data", d, "--adapter-path", a, w[0], w[1], w[2], w[3], w[4],
        w[5], w[6], w[7], w[8], w[9], w[10], w[11], w[12], w[13], w[14], w[15], w[16], w[17], w[18],
        w[19], w[20], w[21], w[22], w[23], w[24], w[25], w[26], w[27], w[28], w[29], w[30], w[31],
        w[32], w[33], w[34], w[35], w[36], w[37], w[38], NULL);
    free(copy);
    free(a);
    free(d);
    free(m);
    return outcome;
}

static void done(Outcome outcome) {
    if (outcome.status != 0) fail_msg("status %d: %s", outcome.status, outcome.err);
    outcome_free(&outcome);
}

/* ---- data -------------------------------------------------------------------------------- */

static void write_lines(void **state, const char *name, int count, int seed, bool chat) {
    static const char *const words[] = {"a", "tree", "runs", "blue", "over", "seven", "moon"};
    StrBuf text = {0};
    uint32_t random = (uint32_t)seed * 2654435761u + 1;
    for (int i = 0; i < count; i++) {
        base_str_append(&text, chat
                                   ? "{\"messages\": [{\"role\": \"user\", \"content\": \"what\"}, "
                                     "{\"role\": \"assistant\", \"content\": \""
                                   : "{\"text\": \"");
        random = random * 1664525u + 1013904223u;
        const int length = 1 + (int)(random >> 28);
        for (int w = 0; w < length; w++) {
            random = random * 1664525u + 1013904223u;
            base_str_appendf(&text, "%s%s", w ? " " : "", words[(random >> 20) % 7]);
        }
        base_str_append(&text, chat ? "\"}]}\n" : "\"}\n");
    }
    folder_write(*state, name, text.data, text.length);
    base_str_free(&text);
}

static int make(void **state) {
    if (folder_make(state) != 0) return -1;
    free(toy_folder(*state));
    char *data = in(state, "data");
    assert_true(base_make_dirs(data, NULL));
    free(data);
    write_lines(state, "data/train.jsonl", 30, 1, false);
    write_lines(state, "data/valid.jsonl", 7, 2, false);
    write_lines(state, "data/test.jsonl", 5, 3, false);
    return 0;
}

/* ---- the golden run ------------------------------------------------------------------------ */

static mlx_array wanted;
static const char *wanted_name;
static void pick(void *context, const char *name, mlx_array array) {
    (void)context;
    if (strcmp(name, wanted_name) == 0) mx_store(&wanted, array);
}

static float *tensor_of(const char *file, const char *name, size_t *count) {
    wanted_name = name;
    assert_true(mx_load_safetensors(file, (MxFileVisitor){.tensor = pick}, NULL));
    if (!wanted.ctx) fail_msg("%s has no %s", file, name);
    *count = mx_size(wanted);
    float *data = base_alloc(*count * sizeof *data);
    mx_scope s = mx_open();
    assert_true(mx_copy_f32(mx_contiguous(wanted), data, *count));
    mx_drop(s);
    mx_free(&wanted);
    return data;
}

static void write_golden_rows(void **state) {
    size_t count, rows;
    float *tokens = tensor_of(GOLDEN "/lora/batches.safetensors", "tokens", &count);
    float *lengths = tensor_of(GOLDEN "/lora/batches.safetensors", "lengths", &rows);
    const size_t width = count / rows;
    StrBuf text = {0};
    for (size_t r = 0; r < rows; r++) {
        base_str_append(&text, "{\"tokens\": [");
        for (size_t i = 0; i < (size_t)lengths[r]; i++)
            base_str_appendf(&text, "%s%d", i ? ", " : "", (int)tokens[r * width + i]);
        base_str_append(&text, "], \"prompt_tokens\": 1}\n");
    }
    folder_write(*state, "golden.jsonl", text.data, text.length);
    base_str_free(&text);
    free(tokens);
    free(lengths);
}

/* model.layers.0.mlp.down_proj.lora_a -> KEY.final.base_model.model.<path>.lora_A... */
static double distance(const char *file, const char *name, const char *key) {
    const size_t length = strlen(name) - 1;
    char *theirs = base_format("%s.final.base_model.model.%.*s%c.default.weight", key, (int)length,
                               name, name[length] - 'a' + 'A');
    size_t count, rows;
    float *a = tensor_of(file, name, &count),
          *b = tensor_of(GOLDEN "/lora/golden.safetensors", theirs, &rows);
    assert_int_equal(count, rows);
    const size_t rank = 4, other = count / rank;
    double difference = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        /* [in, r] and [r, in], or [r, out] and [out, r] */
        const size_t of_a =
            name[length] == 'a' ? i % rank * other + i / rank : i % other * rank + i / other;
        difference += pow((double)a[i] - (double)b[of_a], 2);
        norm += pow((double)b[of_a], 2);
    }
    free(a);
    free(b);
    free(theirs);
    return sqrt(difference / norm);
}

static void check_names(void *context, const char *name, mlx_array array) {
    (void)array;
    json_array_append_new(context, json_string(name));
}

static void golden_run(void **state, const char *optimizer, const char *rate, const char *key,
                       int held) {
    write_golden_rows(state);
    char *words = base_format("--no-shuffle --resume-adapter-file %s/lora/adapter_init.safetensors "
                              "--optimizer %s --learning-rate %s --batch-size 2 --iters 12 "
                              "--steps-per-report 1 --quiet",
                              GOLDEN, optimizer, rate);
    done(run_train(state, "train", GOLDEN "/lora", "golden.jsonl", "golden", words));
    free(words);
    size_t count;
    char *losses_name = base_format("%s.losses", key);
    float *losses = tensor_of(GOLDEN "/lora/golden.safetensors", losses_name, &count);
    json_t *lines = metrics_of(state, "golden");
    assert_int_equal(json_array_size(lines), 12);
    for (int i = 0; i < held; i++) {
        const json_t *line = json_array_get(lines, (size_t)i);
        assert_string_equal(json_string_value(json_object_get(line, "type")), "train");
        assert_int_equal(number(line, "iter"), i + 1);
        assert_float_equal(number(line, "loss"), losses[i], 1e-4);
    }
    json_decref(lines);
    free(losses);
    free(losses_name);
    if (held < 12) return;
    char *folder = in(state, "golden"), *file = base_path_join(folder, "adapters.safetensors");
    json_t *names = json_array();
    assert_true(
        mx_load_safetensors(file, (MxFileVisitor){.tensor = check_names, .context = names}, NULL));
    assert_int_equal(json_array_size(names), 18);
    for (size_t i = 0; i < 18; i++)
        assert_true(distance(file, json_string_value(json_array_get(names, i)), key) < 1e-3);
    json_decref(names);
    free(file);
    free(folder);
}

static void test_the_golden_run_of_peft_goes_through_the_command_line(void **state) {
    golden_run(state, "adam", "1e-3", "adam_no_bias_correction", 12);
    /* test_tune_step says why not all of these steps are held. */
    golden_run(state, "sgd", "0.5", "sgd", 8);
}

/* ---- killed and resumed -----------------------------------------------------------------------
 */

/* After so many milliseconds, or 0: once it has reported. The status is waitpid's. */
static int start_and_signal(void **state, const char *adapters, const char *words, int after,
                            int number) {
    char *m = in(state, "model"), *d = in(state, "data"), *a = in(state, adapters);
    char *copy =
        base_format("%s train --model %s --data %s --adapter-path %s %s", PROGRAM, m, d, a, words);
    char *list[64], *rest = copy;
    size_t count = 0;
    for (char *word; count < 63 && (word = strtok_r(rest, " ", &rest)) != NULL;)
        list[count++] = word;
    list[count] = NULL;
    const pid_t child = fork();
    if (child == 0) {
        const int nowhere = open("/dev/null", O_WRONLY);
        dup2(nowhere, 1);
        dup2(nowhere, 2);
        execv(list[0], list);
        _exit(127);
    }
    char *report = base_path_join(a, "metrics.jsonl");
    struct stat told = {0};
    for (int i = 0; after == 0 && i < 2000 && told.st_size == 0; i++) {
        usleep(10000);
        stat(report, &told);
    }
    free(report);
    usleep((useconds_t)after * 1000);
    int status = 0;
    kill(child, number);
    waitpid(child, &status, 0);
    free(copy);
    free(a);
    free(d);
    free(m);
    return status;
}

static void same_bytes(void **state, const char *one, const char *other, const char *name) {
    char *texts[2];
    size_t lengths[2];
    const char *const folders[] = {one, other};
    for (int i = 0; i < 2; i++) {
        char *folder = in(state, folders[i]), *file = base_path_join(folder, name);
        assert_true(base_file_read(file, &texts[i], &lengths[i], NULL));
        free(file);
        free(folder);
    }
    assert_int_equal(lengths[0], lengths[1]);
    assert_memory_equal(texts[0], texts[1], lengths[0]);
    free(texts[0]);
    free(texts[1]);
}

static void same_metrics(void **state, const char *one, const char *other) {
    static const char *const timed[] = {"tokens_per_sec", "peak_memory", "seconds",
                                        "iterations_per_sec"};
    json_t *a = metrics_of(state, one), *b = metrics_of(state, other);
    json_t *const lists[] = {a, b};
    for (size_t l = 0; l < 2; l++)
        for (size_t i = 0; i < json_array_size(lists[l]); i++)
            for (size_t t = 0; t < BASE_COUNT(timed); t++)
                json_object_del(json_array_get(lists[l], i), timed[t]);
    assert_true(json_equal(a, b));
    json_decref(a);
    json_decref(b);
}

static void killed_run(void **state, const char *words) {
    char *resume = base_format("%s --resume", words);
    folder_drop(state);
    make(state);
    done(run_train(state, "train", "model", "data", "whole", words));
    for (int i = 0; i < 6; i++) start_and_signal(state, "killed", resume, 40 + 60 * i, SIGKILL);
    done(run_train(state, "train", "model", "data", "killed", resume));
    same_bytes(state, "whole", "killed", "adapters.safetensors");
    same_metrics(state, "whole", "killed");
    free(resume);
}

static void test_a_killed_run_goes_on_as_if_nothing_had_been(void **state) {
    killed_run(state, "--iters 150 --save-every 7 --steps-per-report 5 --steps-per-eval 20 "
                      "--dropout 0.1 --grad-accumulation-steps 2 --optimizer adamw --rank 4 "
                      "--schedule cosine --warmup 5 --learning-rate 1e-4 --batch-size 3 --quiet");
    killed_run(state,
               "--iters 120 --save-every 7 --steps-per-report 5 --steps-per-eval 20 "
               "--dropout 0.1 --grad-accumulation-steps 4 --compat mlx-lm --num-layers 3 --quiet");
    killed_run(state, "--iters 80 --save-every 7 --steps-per-report 5 --steps-per-eval 20 --pack "
                      "--max-seq-length 64 --fine-tune-type full --num-layers 1 --optimizer muon "
                      "--quiet");
}

static void test_ctrl_c_keeps_what_was_trained(void **state) {
    const char *words = "--iters 100000 --save-every 90000 --steps-per-report 1 --batch-size 2 "
                        "--quiet";
    const int status = start_and_signal(state, "interrupted", words, 0, SIGINT);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 130);
    char *folder = in(state, "interrupted"), *file = base_path_join(folder, "adapters.safetensors");
    assert_true(base_is_file(file));
    free(file);
    free(folder);
}

static void test_what_is_resumed_must_be_the_same_run(void **state) {
    const char *words = "--iters 6 --save-every 3 --batch-size 2 --quiet";
    done(run_train(state, "train", "model", "data", "a", words));
    expect_complaint(run_train(state, "train", "model", "data", "a",
                               "--iters 9 --resume --quiet --learning-rate 1e-3 --batch-size 2"),
                     1, "the run that is resumed had another learning_rate");
    done(run_train(state, "train", "model", "data", "a", "--iters 9 --resume --quiet"));
    done(run_train(state, "train", "model", "data", "b",
                   "--iters 9 --save-every 3 --batch-size 2 --quiet"));
    same_bytes(state, "a", "b", "adapters.safetensors");
}

/* ---- files
 * ---------------------------------------------------------------------------------------- */

static void test_the_folder_is_one_that_mlx_lm_loads(void **state) {
    static const char *const keys[] = {"adapter_path",
                                       "batch_size",
                                       "clear_cache_threshold",
                                       "config",
                                       "data",
                                       "fine_tune_type",
                                       "grad_accumulation_steps",
                                       "grad_checkpoint",
                                       "iters",
                                       "learning_rate",
                                       "lora_parameters",
                                       "lr_schedule",
                                       "mask_prompt",
                                       "max_seq_length",
                                       "model",
                                       "num_layers",
                                       "optimizer",
                                       "optimizer_config",
                                       "project_name",
                                       "report_to",
                                       "resume_adapter_file",
                                       "save_every",
                                       "seed",
                                       "steps_per_eval",
                                       "steps_per_report",
                                       "test",
                                       "test_batches",
                                       "train",
                                       "trust_remote_code",
                                       "val_batches"};
    done(run_train(state, "train", "model", "data", "a",
                   "--iters 25 --save-every 10 --num-layers 2 --quiet"));
    char *file = in(state, "a/adapter_config.json");
    json_t *config = base_json_load(file, NULL);
    assert_int_equal(json_object_size(config), BASE_COUNT(keys));
    for (size_t i = 0; i < BASE_COUNT(keys); i++)
        if (!json_object_get(config, keys[i])) fail_msg("no %s", keys[i]);
    assert_int_equal(number(config, "num_layers"), 2);
    assert_int_equal(number(json_object_get(config, "lora_parameters"), "rank"), 8);
    json_decref(config);
    free(file);
    assert_true(exists(state, "a", "0000010_adapters.safetensors"));
    assert_true(exists(state, "a", "0000020_adapters.safetensors"));
    assert_false(exists(state, "a", "0000025_adapters.safetensors"));
    assert_true(exists(state, "a", "adapters.safetensors"));
}

/* Two updates of five micro-steps: the fifth has no effect in mlx_lm, and has here. */
static void test_the_tail_of_an_accumulation(void **state) {
    const char *four = "--iters 4 --grad-accumulation-steps 2 --no-shuffle --val-batches 0 --quiet";
    const char *five = "--iters 5 --grad-accumulation-steps 2 --no-shuffle --val-batches 0 --quiet";
    char *compat[2] = {base_format("%s --compat mlx-lm --batch-size 3 --num-layers 3", four),
                       base_format("%s --compat mlx-lm --batch-size 3 --num-layers 3", five)};
    done(run_train(state, "train", "model", "data", "four", compat[0]));
    done(run_train(state, "train", "model", "data", "five", compat[1]));
    same_bytes(state, "four", "five", "adapters.safetensors");
    free(compat[0]);
    free(compat[1]);
    done(run_train(state, "train", "model", "data", "four", four));
    done(run_train(state, "train", "model", "data", "five", five));
    char *texts[2];
    size_t lengths[2];
    char *files[2] = {in(state, "four/adapters.safetensors"),
                      in(state, "five/adapters.safetensors")};
    for (int i = 0; i < 2; i++) {
        assert_true(base_file_read(files[i], &texts[i], &lengths[i], NULL));
        free(files[i]);
    }
    assert_memory_not_equal(texts[0], texts[1], lengths[0]);
    free(texts[0]);
    free(texts[1]);
}

static void test_the_best_is_kept_and_no_better_ends_the_run(void **state) {
    done(run_train(state, "train", "model", "data", "a",
                   "--iters 60 --steps-per-eval 5 --patience 2 --min-delta 0.5 --learning-rate "
                   "1e-3 --optimizer adam "
                   "--max-grad-norm 0 --quiet"));
    assert_true(exists(state, "a", "best_adapters.safetensors"));
    json_t *lines = metrics_of(state, "a");
    double best = INFINITY;
    int validations = 0, best_at = 0;
    for (size_t i = 0; i < json_array_size(lines); i++) {
        const json_t *line = json_array_get(lines, i);
        if (strcmp(json_string_value(json_object_get(line, "type")), "val") != 0) continue;
        validations++;
        if (number(line, "loss") < best - 0.5) {
            best = number(line, "loss");
            best_at = validations;
        }
    }
    assert_int_equal(validations, BASE_MIN(best_at + 2, 13));
    assert_true(validations < 13);
    json_decref(lines);
}

static void test_epochs_and_preferences_and_both_forms_of_the_console(void **state) {
    Outcome outcome = run_train(state, "train", "model", "data", "a",
                                "--epochs 2 --batch-size 8 --steps-per-report 4 --console lines");
    assert_int_equal(outcome.status, 0);
    assert_non_null(strstr(outcome.out, "Starting training..., iters: 8\n"));
    assert_non_null(strstr(outcome.out, "Iter 0: Val loss "));
    assert_non_null(strstr(outcome.out, "Iter 4: Train loss "));
    assert_non_null(strstr(outcome.out, ", Learning Rate 1.000e-05, It/sec "));
    outcome_free(&outcome);
    outcome = run_train(state, "train", "model", "data", "a",
                        "--iters 2 --steps-per-report 1 --console table");
    assert_non_null(strstr(outcome.out, "  iter   train_loss     tok/s     tokens\n"));
    assert_non_null(strstr(outcome.out, "\n     1    "));
    outcome_free(&outcome);
    static const char pair[] =
        "{\"prompt\": \"say\", \"chosen\": \"blue moon\", \"rejected\": \"a tree\"}\n";
    StrBuf text = {0};
    for (int i = 0; i < 6; i++) base_str_append(&text, pair);
    folder_write(*state, "pairs.jsonl", text.data, text.length);
    base_str_free(&text);
    done(run_train(state, "train", "model", "pairs.jsonl", "p",
                   "--loss dpo --iters 12 --steps-per-report 1 --learning-rate 1e-4 --quiet"));
    json_t *lines = metrics_of(state, "p");
    assert_float_equal(number(json_array_get(lines, 0), "loss"), log(2), 1e-5);
    assert_true(number(json_array_get(lines, 11), "loss") < 0.5);
    assert_float_equal(number(json_array_get(lines, 11), "accuracy"), 1, 0);
    json_decref(lines);
}

static void test_a_dry_run_writes_nothing_and_a_test_measures_what_is_there(void **state) {
    json_t *lines = expect_json(
        run_train(state, "train", "model", "data", "none", "--dry-run --json --iters 10"));
    const json_t *estimate = json_array_get(lines, 0);
    assert_true(number(estimate, "trainable_parameters") > 0);
    assert_true(number(estimate, "memory") > number(estimate, "memory_weights"));
    json_decref(lines);
    char *none = in(state, "none");
    assert_false(base_is_dir(none));
    free(none);
    done(run_train(state, "train", "model", "data", "a",
                   "--iters 20 --learning-rate 1e-3 --rank 3 --quiet"));
    double losses[2];
    for (int i = 0; i < 2; i++) {
        lines = expect_json(
            i ? run_train(state, "train", "model", "data", "a", "--test --json")
              : run_train(state, "train", "model", "data", "a", "--test --json --adapter-path="));
        losses[i] = number(json_array_get(lines, 0), "loss");
        json_decref(lines);
    }
    assert_true(losses[1] < losses[0] - 0.1);
}

static void test_an_adapter_goes_to_peft_and_comes_back(void **state) {
    done(run_train(state, "train", "model", "data", "a",
                   "--iters 8 --learning-rate 1e-3 --rank 3 --save-peft --quiet"));
    char *peft = in(state, "a/peft");
    char *words = base_format("--resume-adapter-file %s --learning-rate 0 --iters 1 --quiet", peft);
    done(run_train(state, "train", "model", "data", "b", words));
    same_bytes(state, "a", "b", "adapters.safetensors");
    free(words);
    free(peft);
}

/* ---- what is refused
 * ---------------------------------------------------------------------------------- */

static void test_what_cannot_be_trained_is_said_before_any_work(void **state) {
    const char *quiet = "--quiet --iters 4";
    folder_write(*state, "wrong.jsonl", "{\"text\": \"a\"}\n{\"other\": 1}\n", 28);
    expect_complaint(run_train(state, "train", "model", "wrong.jsonl", "a", quiet), 1,
                     "wrong.jsonl: line 2");
    folder_write(*state, "empty.jsonl", "", 0);
    expect_complaint(run_train(state, "train", "model", "empty.jsonl", "a", quiet), 1,
                     "Training set not found or empty");
    expect_complaint(run_train(state, "train", "model", "nowhere", "a", quiet), 1,
                     "there is no such data file or folder");
    expect_complaint(run_train(state, "lora", "model", "data", "a", quiet), 1,
                     "Must provide at least one of --train or --test");
    expect_complaint(run_train(state, "train", "model", "data", "a", "--quiet --num-layers 9"), 1,
                     "the model has 3 blocks, 9 were asked for");
    expect_complaint(run_train(state, "train", "model", "data", "a", "--quiet --keys mlp.nothing"),
                     1, "the model has no module mlp.nothing");
    expect_complaint(run_train(state, "train", "model", "data", "a",
                               "--quiet --compat mlx-lm --num-layers 3 --batch-size 99"),
                     1, "Dataset must have at least batch_size=99 examples but only has 30.");
    expect_complaint(run_train(state, "train", "model", "data", "a", "--quiet --report-to wandb"),
                     1, "there is no wandb, only tensorboard");
    expect_complaint(run_train(state, "train", "model", "data", "a",
                               "--quiet --batch-size 1000000 --max-seq-length 250 --pack"),
                     1, "this machine has");
    char *adapters = in(state, "a");
    assert_false(base_is_dir(adapters));
    free(adapters);
    folder_write(*state, "file", "x", 1);
    expect_complaint(run_train(state, "train", "model", "data", "file/a", quiet), 1, "file");
}

static void test_a_loss_that_is_no_number_ends_the_run_with_what_was_good(void **state) {
    const char *words =
        "--iters 40 --optimizer sgd --learning-rate 1e6 --scale 1e9 --max-grad-norm 0 --quiet";
    expect_complaint(run_train(state, "train", "model", "data", "a", words), 1,
                     "the loss is not a number for 10 steps");
    assert_true(exists(state, "a", "adapters.safetensors"));
}

static void test_an_adapter_that_does_not_fit_is_refused_with_its_tensors(void **state) {
    done(run_train(state, "train", "model", "data", "a", "--iters 1 --rank 3 --quiet"));
    char *file = in(state, "a/adapters.safetensors");
    char *words = base_format("--rank 4 --iters 1 --quiet --resume-adapter-file %s", file);
    expect_complaint(run_train(state, "train", "model", "data", "b", words), 1,
                     "is 64x3, the model needs 64x4");
    free(words);
    free(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make, folder_drop)
        TEST(test_the_golden_run_of_peft_goes_through_the_command_line),
        TEST(test_a_killed_run_goes_on_as_if_nothing_had_been),
        TEST(test_ctrl_c_keeps_what_was_trained),
        TEST(test_what_is_resumed_must_be_the_same_run),
        TEST(test_the_folder_is_one_that_mlx_lm_loads),
        TEST(test_the_tail_of_an_accumulation),
        TEST(test_the_best_is_kept_and_no_better_ends_the_run),
        TEST(test_epochs_and_preferences_and_both_forms_of_the_console),
        TEST(test_a_dry_run_writes_nothing_and_a_test_measures_what_is_there),
        TEST(test_an_adapter_goes_to_peft_and_comes_back),
        TEST(test_what_cannot_be_trained_is_said_before_any_work),
        TEST(test_a_loss_that_is_no_number_ends_the_run_with_what_was_good),
        TEST(test_an_adapter_that_does_not_fit_is_refused_with_its_tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
