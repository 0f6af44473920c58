/* data inspect: rows of a data set as the model will see them. What does not count in
 * the loss is marked. */
#include "cli/data.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rag/show.h"

typedef struct InspectArguments {
    const char *model, *data, *split;
    const char *prompt_feature, *completion_feature, *chat_feature, *text_feature;
    OptionInt start, rows, max_seq_length;
    bool mask_prompt, every_turn, pairs, statistics, ids, quiet, json;
} InspectArguments;
#define ARGUMENTS InspectArguments

static const Option option_table[] = {
    OPTION_REQUIRED("model", NULL, MODEL, model, "MODEL", "folder or hub id of the model"),
    OPTION_REQUIRED("data", NULL, TEXT, data, "PATH", "folder of SPLIT.jsonl, or a .jsonl file"),
    OPTION("split", NULL, TEXT, split, "train", "NAME",
           "train, valid or test; a slice is possible: train[:100]"),
    OPTION("start", NULL, INT, start, "0", "N", "rows to pass over"),
    OPTION("rows", NULL, INT, rows, "3", "N", "rows to show"),
    OPTION("mask-prompt", NULL, FLAG, mask_prompt, NULL, NULL,
           "as training with it: only completions count"),
    OPTION("every-turn", NULL, FLAG, every_turn, NULL, NULL,
           "as training with it: all that the assistant says counts"),
    OPTION("pairs", NULL, FLAG, pairs, NULL, NULL, "rows are preferences"),
    OPTION("prompt-feature", NULL, TEXT, prompt_feature, NULL, "KEY", "in place of prompt"),
    OPTION("completion-feature", NULL, TEXT, completion_feature, NULL, "KEY",
           "in place of completion"),
    OPTION("chat-feature", NULL, TEXT, chat_feature, NULL, "KEY", "in place of messages"),
    OPTION("text-feature", NULL, TEXT, text_feature, NULL, "KEY", "in place of text"),
    OPTION("statistics", NULL, FLAG, statistics, NULL, NULL, "lengths of all rows of the split"),
    OPTION("max-seq-length", NULL, INT, max_seq_length, "2048", "N",
           "tokens that training would keep of a row"),
    OPTION("ids", NULL, FLAG, ids, NULL, NULL, "show token ids too"),
    OPTION("quiet", NULL, FLAG, quiet, NULL, NULL, "no progress"),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "a JSON object for each row"),
};

/* Tokens [begin, end) of a row that all count, or all do not. */
typedef struct Run {
    int begin, end;
    bool counts;
} Run;

/* The run that begins at `begin`. The first token is never a target: nothing comes
 * before it. */
static Run run_at(const TuneRow *row, int begin) {
    Run run = {.begin = begin, .end = row->length};
    for (int i = 0; i < row->n_targets; i++) {
        int from = BASE_MAX(row->targets[2 * i], 1), to = row->targets[2 * i + 1];
        if (begin >= from && begin < to)
            return (Run){.begin = begin, .end = BASE_MIN(to, row->length), .counts = true};
        if (begin < from && from < to) run.end = BASE_MIN(run.end, from);
    }
    return run;
}

typedef struct View {
    const InspectArguments *arguments;
    TextTokenizer *tokenizer;
    bool colour;
} View;

static void show_text(const View *view, const TuneRow *row) {
    for (Run run = run_at(row, 0); run.begin < row->length; run = run_at(row, run.end)) {
        size_t length;
        char *text = text_tokenizer_decode(view->tokenizer, row->ids + run.begin,
                                           (size_t)(run.end - run.begin), false, &length);
        StrBuf clean = {0};
        base_str_append(&clean, "");
        rag_clean_append(&clean, text, length);
        if (run.counts)
            printf("%s", clean.data);
        else
            printf(view->colour ? "\033[2m%s\033[0m" : "[[%s]]", clean.data);
        base_str_free(&clean);
        free(text);
        if (run.end == row->length) break;
    }
    putchar('\n');
    if (!view->arguments->ids) return;
    for (int i = 0; i < row->length; i++) printf("%s%d", i ? " " : "  ids: ", row->ids[i]);
    putchar('\n');
}

static json_t *json_row(const View *view, const TuneRow *row) {
    json_t *runs = json_array();
    for (Run run = run_at(row, 0); run.begin < row->length; run = run_at(row, run.end)) {
        size_t length;
        char *text = text_tokenizer_decode(view->tokenizer, row->ids + run.begin,
                                           (size_t)(run.end - run.begin), false, &length);
        json_t *ids = json_array();
        for (int i = run.begin; i < run.end; i++)
            json_array_append_new(ids, json_integer(row->ids[i]));
        json_array_append_new(runs, json_pack("{s:o,s:b,s:o}", "text", output_string(text, length),
                                              "counts", run.counts, "ids", ids));
        free(text);
        if (run.end == row->length) break;
    }
    return runs;
}

static int targets_of(const TuneRow *row) {
    int count = 0;
    for (int i = 0; i < row->n_targets; i++)
        count += BASE_MAX(row->targets[2 * i + 1] - BASE_MAX(row->targets[2 * i], 1), 0);
    return count;
}

static bool show_row(const View *view, TuneData *data, size_t index, Error *err) {
    char *where = tune_data_where(data, index);
    const int halves = tune_data_pairs(data) ? 2 : 1;
    bool ok = true;
    for (int half = 0; ok && half < halves; half++) {
        const char *part = halves == 1 ? "" : half ? "rejected" : "chosen";
        TuneRow row;
        ok = tune_data_row(data, index, half == 1, &row, err);
        if (!ok) break;
        int targets = targets_of(&row);
        if (view->arguments->json) {
            output_json(json_pack("{s:I,s:s,s:s,s:i,s:i,s:o}", "row", (json_int_t)index, "where",
                                  where, "part", part, "tokens", row.length, "targets", targets,
                                  "runs", json_row(view, &row)));
            continue;
        }
        bool cut = row.length > view->arguments->max_seq_length.value;
        printf("--- %s%s%s: %d tokens, %d count%s\n", where, *part ? ", " : "", part, row.length,
               targets, cut ? ", training cuts it" : "");
        show_text(view, &row);
    }
    free(where);
    return ok;
}

static bool show(const View *view, TuneData *data, Error *err) {
    const InspectArguments *arguments = view->arguments;
    size_t count = tune_data_count(data);
    if (count == 0)
        return base_fail(err, ERROR_INPUT, "%s: no rows of the split %s", arguments->data,
                         arguments->split);
    if ((size_t)arguments->start.value >= count)
        return base_fail(err, ERROR_INPUT, "--start %lld: there are %zu rows",
                         (long long)arguments->start.value, count);
    size_t left = count - (size_t)arguments->start.value;
    size_t rows = BASE_MIN(left, (size_t)arguments->rows.value);
    for (size_t i = 0; i < rows; i++)
        if (!show_row(view, data, (size_t)arguments->start.value + i, err)) return false;
    if (!arguments->statistics) return true;
    DataLengths lengths = {0};
    bool ok = lengths_of_rows(data, &lengths, err);
    int32_t limit = (int32_t)arguments->max_seq_length.value;
    if (ok && arguments->json)
        output_json(json_pack("{s:s,s:o}", "split", arguments->split, "lengths",
                              lengths_json(&lengths, limit)));
    else if (ok)
        lengths_print(&lengths, limit);
    lengths_free(&lengths);
    return ok;
}

static int run(const void *given, Error *err) {
    const InspectArguments *arguments = given;
    if (arguments->start.value < 0 || arguments->rows.value < 0 ||
        arguments->max_seq_length.value < 1 || arguments->max_seq_length.value > INT32_MAX) {
        base_fail(err, ERROR_INPUT, "--start and --rows count from 0, --max-seq-length from 1");
        return 2;
    }
    LmModel *model = lm_model_open(arguments->model, NULL, err);
    if (!model) return 1;
    TuneSource source = {.path = arguments->data,
                         .prompt_feature = arguments->prompt_feature,
                         .completion_feature = arguments->completion_feature,
                         .chat_feature = arguments->chat_feature,
                         .text_feature = arguments->text_feature};
    TuneDataOptions options = {.sources = &source,
                               .n_sources = 1,
                               .split = arguments->split,
                               .mask_prompt = arguments->mask_prompt,
                               .every_turn = arguments->every_turn,
                               .pairs = arguments->pairs,
                               .quiet = arguments->quiet,
                               .json = arguments->json};
    View view = {.arguments = arguments,
                 .tokenizer = lm_model_tokenizer(model),
                 .colour = isatty(STDOUT_FILENO) && !getenv("NO_COLOR")};
    TuneData *data = NULL;
    bool ok = view.tokenizer != NULL;
    if (!ok) base_fail(err, ERROR_INPUT, "%s has no tokenizer", arguments->model);
    if (ok) data = tune_data_open(&options, model, err);
    ok = data && show(&view, data, err);
    tune_data_free(data);
    lm_model_close(model);
    return ok ? 0 : 1;
}

const Command data_inspect_command = {
    .name = "data inspect",
    .summary = "Shows rows as training sees them.",
    .details = "Text that does not count in the loss is dim on a terminal and in [[ ]] elsewhere.",
    OPTIONS(option_table),
    .arguments_size = sizeof(InspectArguments),
    .run = run};
