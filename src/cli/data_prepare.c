/* data prepare: documents, or rows of JSON lines, to train.jsonl, valid.jsonl and
 * test.jsonl without duplicates. */
#include "cli/data.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rag/show.h"

typedef struct PrepareArguments {
    OptionList paths;
    const char *output, *model, *format, *prompt, *split_by;
    OptionInt max_tokens, min_tokens, seed;
    OptionReal valid, test, similarity;
    bool keep_duplicates, overwrite, quiet, json;
} PrepareArguments;
#define ARGUMENTS PrepareArguments

static const Option option_table[] = {
    POSITIONAL("PATH", LIST, paths, true,
               "documents and folders of them, as for ingest, and .jsonl files of rows"),
    OPTION_REQUIRED("output", NULL, TEXT, output, "DIR", "folder of the .jsonl files"),
    OPTION("model", NULL, MODEL, model, NULL, "MODEL",
           "folder or hub id whose tokens are counted; absent: words are"),
    OPTION_CHOICE("format", format, "text", "text|completions",
                  "what a piece of a document becomes"),
    OPTION("prompt", NULL, TEXT, prompt, "Write the section \"{heading}\" of {title}.", "TEXT",
           "prompt of a completion; {title}, {heading} and {file} are filled in"),
    OPTION("max-tokens", NULL, INT, max_tokens, "512", "N", "of a piece, title and headings too"),
    OPTION("min-tokens", NULL, INT, min_tokens, "16", "N", "shorter pieces are left out"),
    OPTION("valid", NULL, REAL, valid, "0.05", "SHARE", "of the rows for validation"),
    OPTION("test", NULL, REAL, test, "0.05", "SHARE", "of the rows for the test"),
    OPTION_CHOICE("split-by", split_by, "record", "record|file",
                  "what stays together: with file, no document is in two sets"),
    OPTION("seed", NULL, INT, seed, "0", "N", "chooses another split"),
    OPTION("similarity", NULL, REAL, similarity, "0.8", "SHARE",
           "rows that share this much of their words' runs are duplicates; 1: only equal ones"),
    OPTION("keep-duplicates", NULL, FLAG, keep_duplicates, NULL, NULL, "leave none out"),
    OPTION("overwrite", NULL, FLAG, overwrite, NULL, NULL, "replace the files of another run"),
    OPTION("quiet", NULL, FLAG, quiet, NULL, NULL, "no progress"),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "the report as one JSON object"),
};

/* ---- records -----------------------------------------------------------------------------------
 */

typedef struct Record {
    char *json; /* one line */
    int64_t file;
    uint64_t identity; /* of its words */
    uint64_t draw;     /* orders it for the split */
    int set;
} Record;

typedef struct Prepared {
    Record *records;
    size_t count, capacity;
    size_t n_exact, n_near;
    char **notes;
    size_t n_notes, notes_capacity;
    DocumentsReport documents;
} Prepared;

static void prepared_free(Prepared *prepared) {
    for (size_t i = 0; i < prepared->count; i++) free(prepared->records[i].json);
    for (size_t i = 0; i < prepared->n_notes; i++) free(prepared->notes[i]);
    free(prepared->records);
    free(prepared->notes);
}

static void take(Prepared *prepared, DxDuplicates *duplicates, const DxSample *sample) {
    const DxArray *remark = dx_sample_get(sample, dx_key("note"));
    if (remark) {
        prepared->notes = base_grow(prepared->notes, &prepared->notes_capacity,
                                    prepared->n_notes + 1, sizeof *prepared->notes);
        prepared->notes[prepared->n_notes++] = rag_clean_line(remark->data, remark->bytes);
        return;
    }
    const DxSketch *sketch = dx_sample_get(sample, dx_key("sketch"))->data;
    bool exactly = false;
    if (duplicates && dx_duplicates_add(duplicates, sketch, &exactly) >= 0) {
        *(exactly ? &prepared->n_exact : &prepared->n_near) += 1;
        return;
    }
    const DxArray *json = dx_sample_get(sample, dx_key("json"));
    prepared->records = base_grow(prepared->records, &prepared->capacity, prepared->count + 1,
                                  sizeof *prepared->records);
    prepared->records[prepared->count++] =
        (Record){.json = base_strndup(json->data, json->bytes),
                 .file = dx_array_int_at(dx_sample_get(sample, dx_key("file")), 0),
                 .identity = sketch->exact[0] ^ sketch->exact[1]};
}

static bool gather(const PrepareArguments *arguments, const TextTokenizer *tokenizer,
                   Prepared *prepared, Error *err) {
    DocumentsOptions options = {
        .paths = arguments->paths.items,
        .n_paths = arguments->paths.count,
        .tokenizer = tokenizer,
        .max_tokens = (size_t)arguments->max_tokens.value,
        .min_tokens = (size_t)arguments->min_tokens.value,
        .prompt = strcmp(arguments->format, "completions") == 0 ? arguments->prompt : NULL};
    DxStream *stream = documents_stream(&options, &prepared->documents, err);
    if (!stream) return false;
    DxDuplicates *duplicates =
        arguments->keep_duplicates ? NULL : dx_duplicates_new(arguments->similarity.value);
    Progress progress =
        base_progress_start("prepare", "files", (double)prepared->documents.n_files);
    progress.quiet = arguments->quiet;
    progress.json = arguments->json;
    DxSample *sample;
    DxStatus status;
    while ((status = dx_next(stream, &sample, err)) == DX_OK) {
        const DxArray *file = dx_sample_get(sample, dx_key("file"));
        take(prepared, duplicates, sample);
        if (file) base_progress_update(&progress, (double)dx_array_int_at(file, 0));
        dx_sample_free(sample);
    }
    base_progress_end(&progress);
    dx_duplicates_free(duplicates);
    dx_stream_free(stream);
    return status == DX_END;
}

/* ---- the split ---------------------------------------------------------------------------------
 */

enum { TRAIN, VALID, TEST, SETS };
static const char *const set_names[SETS] = {"train", "valid", "test"};

static int by_draw(const void *a, const void *b) {
    const Record *one = *(Record *const *)a, *other = *(Record *const *)b;
    if (one->draw != other->draw) return one->draw < other->draw ? -1 : 1;
    return one < other ? -1 : one > other;
}

/* The order follows from what the rows (or a file's first row) say, so that neither
 * their number nor their order moves a row to another set without need. */
static void split(Prepared *prepared, const PrepareArguments *arguments) {
    const size_t count = prepared->count;
    const bool whole_files = strcmp(arguments->split_by, "file") == 0;
    Record **order = base_calloc(count + 1, sizeof *order);
    for (size_t i = 0; i < count; i++) {
        Record *record = &prepared->records[i];
        DxRandom random = dx_random_of((uint64_t)arguments->seed.value, 0, record->identity);
        bool follows = whole_files && i > 0 && record->file == record[-1].file;
        record->draw = follows ? record[-1].draw : dx_random(&random);
        order[i] = record;
    }
    qsort(order, count, sizeof(Record *), by_draw);
    const double shares[SETS] = {[VALID] = arguments->valid.value, [TEST] = arguments->test.value};
    size_t at = 0;
    for (int set = VALID; set < SETS; set++) {
        size_t wanted = (size_t)lround(shares[set] * (double)count), begin = at;
        if (shares[set] > 0 && count >= 3) wanted = BASE_MAX(wanted, 1);
        while (at < count && at - begin < wanted) {
            uint64_t draw = order[at]->draw;
            do order[at++]->set = set;
            while (at < count && whole_files && order[at]->draw == draw);
        }
    }
    free(order);
}

/* ---- writing -----------------------------------------------------------------------------------
 */

static bool check_output(const PrepareArguments *arguments, Error *err) {
    for (int set = 0; set < SETS; set++) {
        char name[16];
        snprintf(name, sizeof name, "%s.jsonl", set_names[set]);
        char *path = base_path_join(arguments->output, name);
        bool there = base_is_file(path);
        if (there && !arguments->overwrite) base_fail(err, ERROR_INPUT, "%s exists already", path);
        free(path);
        if (there && !arguments->overwrite)
            return base_hint(err, "Choose another folder, or pass --overwrite");
    }
    return base_make_dirs(arguments->output, err);
}

/* All files are written before the first gets its name. */
static bool write_sets(const PrepareArguments *arguments, const Prepared *prepared,
                       size_t counts[SETS], Error *err) {
    AtomicFile *files[SETS] = {NULL};
    char *paths[SETS];
    bool ok = true;
    for (int set = 0; set < SETS; set++) {
        char name[16];
        snprintf(name, sizeof name, "%s.jsonl", set_names[set]);
        paths[set] = base_path_join(arguments->output, name);
    }
    for (size_t i = 0; ok && i < prepared->count; i++) {
        const Record *record = &prepared->records[i];
        AtomicFile **file = &files[record->set];
        if (!*file) *file = base_atomic_open(paths[record->set], err);
        ok = *file && base_atomic_write(*file, record->json, strlen(record->json), err) &&
             base_atomic_write(*file, "\n", 1, err);
        counts[record->set]++;
    }
    for (int set = 0; set < SETS; set++) {
        if (ok && files[set])
            ok = base_atomic_commit(files[set], err);
        else
            base_atomic_abort(files[set]);
        if (ok && counts[set] == 0) unlink(paths[set]); /* of another run */
        free(paths[set]);
    }
    return ok;
}

/* ---- the report ---------------------------------------------------------------------------------
 */

/* Lengths of a set as training will see its rows. */
static bool measure(const PrepareArguments *arguments, LmModel *model, int set,
                    DataLengths *lengths, Error *err) {
    TuneSource source = {.path = arguments->output};
    TuneDataOptions options = {.sources = &source,
                               .n_sources = 1,
                               .split = set_names[set],
                               .quiet = arguments->quiet,
                               .json = arguments->json};
    TuneData *data = tune_data_open(&options, model, err);
    bool ok = data && lengths_of_rows(data, lengths, err);
    tune_data_free(data);
    return ok;
}

static bool report(const PrepareArguments *arguments, const Prepared *prepared,
                   const size_t counts[SETS], LmModel *model, Error *err) {
    json_t *out = json_pack(
        "{s:I,s:I,s:I,s:I,s:I,s:I}", "files", (json_int_t)prepared->documents.n_read, "set_aside",
        (json_int_t)prepared->n_notes, "rows", (json_int_t)prepared->count, "exact_duplicates",
        (json_int_t)prepared->n_exact, "near_duplicates", (json_int_t)prepared->n_near, "too_short",
        (json_int_t)prepared->documents.n_short);
    json_t *notes = json_array();
    for (size_t i = 0; i < prepared->n_notes; i++)
        json_array_append_new(notes, json_string(prepared->notes[i]));
    json_object_set_new(out, "notes", notes);
    if (!arguments->json) {
        for (size_t i = 0; i < prepared->n_notes; i++) printf("set aside %s\n", prepared->notes[i]);
        printf("%zu files read, %zu set aside\n", prepared->documents.n_read, prepared->n_notes);
        printf("%zu rows; left out: %zu equal to an earlier one, %zu much like one, %zu too "
               "short\n",
               prepared->count, prepared->n_exact, prepared->n_near, prepared->documents.n_short);
    }
    bool ok = true;
    for (int set = 0; ok && set < SETS; set++) {
        DataLengths lengths = {0};
        ok = !model || counts[set] == 0 || measure(arguments, model, set, &lengths, err);
        json_t *about = lengths_json(&lengths, 0);
        json_object_set_new(about, "rows", json_integer((json_int_t)counts[set]));
        json_object_set_new(out, set_names[set], about);
        if (ok && !arguments->json) {
            printf("%s: %zu rows\n", set_names[set], counts[set]);
            lengths_print(&lengths, 0);
        }
        lengths_free(&lengths);
    }
    if (arguments->json && ok)
        output_json(out);
    else
        json_decref(out);
    return ok;
}

/* ---- the command
 * ---------------------------------------------------------------------------------- */

static bool check(const PrepareArguments *arguments, Error *err) {
    const OptionReal shares[] = {arguments->valid, arguments->test};
    const int64_t most = arguments->max_tokens.value, least = arguments->min_tokens.value;
    if (most < 32 || most > 1 << 20)
        return base_fail(err, ERROR_INPUT, "--max-tokens must be between 32 and %d", 1 << 20);
    if (least < 0 || least > most)
        return base_fail(err, ERROR_INPUT, "--min-tokens must be between 0 and --max-tokens");
    for (size_t i = 0; i < BASE_COUNT(shares); i++)
        if (!(shares[i].value >= 0 && shares[i].value < 1))
            return base_fail(err, ERROR_INPUT, "--%s must be at least 0 and below 1",
                             set_names[i + 1]);
    if (shares[0].value + shares[1].value >= 1)
        return base_fail(err, ERROR_INPUT, "--valid and --test leave nothing to train on");
    if (!(arguments->similarity.value > 0 && arguments->similarity.value <= 1))
        return base_fail(err, ERROR_INPUT, "--similarity must be above 0 and at most 1");
    return true;
}

static int run(const void *given, Error *err) {
    const PrepareArguments *arguments = given;
    if (!check(arguments, err)) return 2;
    if (!check_output(arguments, err)) return 1;
    LmModel *model = NULL;
    if (arguments->model && !(model = lm_model_open(arguments->model, NULL, err))) return 1;
    Prepared prepared = {0};
    size_t counts[SETS] = {0};
    bool ok = gather(arguments, model ? lm_model_tokenizer(model) : NULL, &prepared, err);
    if (ok && prepared.count == 0) {
        for (size_t i = 0; !arguments->quiet && i < prepared.n_notes; i++)
            fprintf(stderr, "set aside %s\n", prepared.notes[i]);
        ok = base_fail(err, ERROR_INPUT, "no rows in what was given; nothing was written");
    }
    if (ok) split(&prepared, arguments);
    ok = ok && write_sets(arguments, &prepared, counts, err) &&
         report(arguments, &prepared, counts, model, err);
    prepared_free(&prepared);
    lm_model_close(model);
    return ok ? 0 : 1;
}

const Command data_prepare_command = {
    .name = "data prepare",
    .summary = "Turns documents into rows to train on.",
    .details = "Documents are cut at headings, paragraphs and sentences. Rows that say what an "
               "earlier one says are left out. The same input gives the same split.",
    OPTIONS(option_table),
    .arguments_size = sizeof(PrepareArguments),
    .run = run};
