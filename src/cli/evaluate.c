/* evaluate: tasks with answers to choose from, with the flags and the output of
 * mlx_lm.evaluate. Tasks are files here. */
#include "lm/evaluate.h"
#include "cli/commands.h"
#include "hub/remote.h"

#include <stdlib.h>
#include <string.h>

typedef struct EvaluateArguments {
    const char *model, *output_dir, *chat_template_args;
    OptionList tasks;
    OptionInt batch_size, num_shots, max_tokens, limit, seed, top_k;
    OptionReal temp, top_p;
    bool multiturn, apply_template, no_template, confirm_unsafe, trust_remote_code, json;
} EvaluateArguments;
#define ARGUMENTS EvaluateArguments

static const Option option_table[] = {
    OPTION_REQUIRED("model", NULL, MODEL, model, "MODEL", "model folder or hub id"),
    {.name = "tasks",
     .type = OPTION_LIST,
     .field = offsetof(EvaluateArguments, tasks),
     .value = "PATH",
     .help = "jsonl files, or folders with test.jsonl or validation.jsonl, and train.jsonl or "
             "dev.jsonl to draw examples from",
     .required = true},
    OPTION("output-dir", NULL, TEXT, output_dir, ".", "DIR", "where the results' file goes"),
    OPTION("num-shots", NULL, INT, num_shots, NULL, "N", "examples before each question"),
    OPTION("limit", NULL, INT, limit, NULL, "N", "questions of a task at most"),
    OPTION("max-tokens", NULL, INT, max_tokens, "8192", "N",
           "tokens of a prompt at most; a longer one loses its beginning"),
    OPTION("seed", NULL, INT, seed, "123", "N", "seed of the choice of examples"),
    OPTION("apply-chat-template", NULL, FLAG, apply_template, NULL, NULL,
           "ask through the chat template; so it is when the model has one"),
    OPTION("no-apply-chat-template", NULL, FLAG, no_template, NULL, NULL, "ask in plain text"),
    OPTION("fewshot-as-multiturn", NULL, FLAG, multiturn, NULL, NULL,
           "examples as turns of the chat"),
    OPTION("chat-template-args", NULL, TEXT, chat_template_args, "{}", "JSON",
           "object of more variables for the template"),
    OPTION("batch-size", NULL, INT, batch_size, "16", "N",
           "accepted for mlx_lm; the answers to a question share its prompt"),
    OPTION("temp", NULL, REAL, temp, "0.0", "T", "accepted for mlx_lm; nothing is sampled"),
    OPTION("top-p", NULL, REAL, top_p, "1.0", "P", "likewise"),
    OPTION("top-k", NULL, INT, top_k, "0", "K", "likewise"),
    OPTION("confirm-run-unsafe-code", NULL, FLAG, confirm_unsafe, NULL, NULL,
           "accepted for mlx_lm; no code is run"),
    TRUST_OPTION(trust_remote_code),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "one JSON object instead of text"),
};
#undef ARGUMENTS

static bool read_options(const EvaluateArguments *arguments, LmTaskOptions *options, Error *err) {
    int seed;
    bool good =
        sampling_int("num-shots", arguments->num_shots, 0, 1 << 16, &options->num_shots, err) &&
        sampling_int("limit", arguments->limit, 0, INT32_MAX, &options->limit, err) &&
        sampling_int("max-tokens", arguments->max_tokens, 1, 1 << 24, &options->max_tokens, err) &&
        sampling_int("seed", arguments->seed, 0, INT32_MAX, &seed, err);
    if (good) options->seed = (uint64_t)seed;
    if (good && arguments->apply_template && arguments->no_template)
        return base_fail(err, ERROR_INPUT,
                         "--apply-chat-template and --no-apply-chat-template exclude each other");
    options->multiturn = arguments->multiturn;
    return good;
}

static void show_progress(void *context, size_t done, size_t total) {
    Progress *progress = context;
    progress->total = (double)total;
    base_progress_update(progress, (double)done);
}

static json_t *evaluate_all(LmModel *model, const EvaluateArguments *arguments,
                            LmTaskOptions options, Error *err) {
    json_t *results = json_object();
    for (size_t i = 0; i < arguments->tasks.count; i++) {
        const char *path = arguments->tasks.items[i];
        char *name = lm_task_name(path);
        Progress progress = base_progress_start(name, "questions", 0);
        progress.json = arguments->json;
        options.progress = show_progress;
        options.context = &progress;
        json_t *result = lm_evaluate(model, path, &options, err);
        if (result) base_progress_end(&progress);
        bool twice = result && json_object_get(results, name);
        if (twice) base_fail(err, ERROR_INPUT, "--tasks: two tasks are called %s", name);
        if (result) json_object_set_new(results, name, result);
        free(name);
        if (result && !twice) continue;
        json_decref(results);
        return NULL;
    }
    return results;
}

/* eval_MODEL_VERSION[_SHOTS]_TASKS, as mlx_lm names it. */
static char *file_name(const EvaluateArguments *arguments, const char *model,
                       const json_t *results) {
    StrBuf name = {0};
    base_str_append(&name, "eval_");
    for (; *model; model++) base_str_append_char(&name, *model == '/' ? '_' : *model);
    base_str_append(&name, "_" MLX_RAG_VERSION);
    if (arguments->num_shots.given)
        base_str_appendf(&name, "_%02lld", (long long)arguments->num_shots.value);
    const char *task;
    json_t *result;
    json_object_foreach((json_t *)results, task, result) {
        base_str_appendf(&name, "_%s", task);
    }
    return base_str_detach(&name);
}

static bool save(const EvaluateArguments *arguments, const json_t *results, char **file,
                 Error *err) {
    char *label = hub_label(arguments->model), *name = file_name(arguments, label, results);
    *file = base_path_join(arguments->output_dir, name);
    bool saved =
        base_make_dirs(arguments->output_dir, err) && base_json_save_ordered(*file, results, err);
    free(name);
    free(label);
    return saved;
}

static void print_results(const json_t *results) {
    const char *task;
    json_t *result;
    puts("Results:");
    json_object_foreach((json_t *)results, task, result) {
        char *text = base_json_text(result);
        puts(text);
        free(text);
    }
}

static bool evaluate(LmModel *model, const EvaluateArguments *arguments, LmTaskOptions *options,
                     Error *err) {
    bool has = lm_model_has_template(model);
    if (arguments->apply_template && !has)
        return base_fail(err, ERROR_UNSUPPORTED, "%s: the model has no chat template",
                         arguments->model);
    options->templated = has && !arguments->no_template;
    json_t *results = evaluate_all(model, arguments, *options, err);
    char *file = NULL;
    bool good = results && save(arguments, results, &file, err);
    if (good && arguments->json)
        output_json(json_pack("{s:O,s:s}", "results", results, "file", file));
    else if (good)
        print_results(results);
    free(file);
    json_decref(results);
    return good;
}

static int run(const void *given, Error *err) {
    const EvaluateArguments *arguments = given;
    LmTaskOptions options = {0};
    if (!read_options(arguments, &options, err)) return 1;
    json_t *variables = input_object(arguments->chat_template_args, "--chat-template-args", err);
    options.template_options = variables;
    LmModel *model = variables ? lm_model_open(arguments->model, NULL, err) : NULL;
    bool good = model && evaluate(model, arguments, &options, err);
    lm_model_close(model);
    json_decref(variables);
    return good ? 0 : 1;
}

const Command evaluate_command = {.name = "evaluate",
                                  .summary = "Measures how often a model picks the right answer.",
                                  OPTIONS(option_table),
                                  .arguments_size = sizeof(EvaluateArguments),
                                  .run = run};
