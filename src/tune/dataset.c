/* A split: its sources found on disk, opened as buffers of JSON lines, mapped to
 * tokens, put one behind the other; and the tokens of each row kept once made. */
#include "tune/dataset.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "tune/record.h"

struct TuneData {
    DxBuffer *rows;  /* tokens; NULL: none */
    DxBuffer *lines; /* the records they come from */
    DxSample **made; /* [count], NULL: not yet */
    size_t count;
    bool pairs, quiet, json;
};

/* ---- splits and their slices ------------------------------------------------------------- */

typedef struct Bound {
    bool given, percent;
    double value;
} Bound;

typedef struct Slice {
    char *name; /* "train" */
    Bound begin, end;
} Slice;

static bool parse_bound(const char **at, Bound *bound) {
    char *end;
    bound->value = (double)strtol(*at, &end, 10);
    bound->given = end != *at;
    *at = end;
    if (bound->given && **at == '%') {
        bound->percent = true;
        ++*at;
    }
    return true;
}

static bool parse_split(const char *text, Slice *slice, Error *err) {
    const char *at = text + strcspn(text, "[");
    *slice = (Slice){.name = base_strndup(text, (size_t)(at - text))};
    if (*at == '\0' && at != text) return true;
    bool good = at != text && *at++ == '[' && parse_bound(&at, &slice->begin) && *at++ == ':' &&
                parse_bound(&at, &slice->end) && strcmp(at, "]") == 0;
    if (good) return true;
    free(slice->name);
    slice->name = NULL;
    base_fail(err, ERROR_INPUT, "\"%s\" is not a split", text);
    return base_hint(err, "Write train, train[:80%%], train[-10%%:] or train[100:200]");
}

/* A bound as Hugging Face's datasets place it: percents to the closest row, negative
 * ones from the end. */
static int64_t place(Bound bound, int64_t count, int64_t usual) {
    if (!bound.given) return usual;
    double row = bound.percent ? rint(bound.value * (double)count / 100) : bound.value;
    if (bound.value < 0) row += (double)count;
    return (int64_t)fmin(fmax(row, 0), (double)count);
}

static DxBuffer *cut(DxBuffer *buffer, const Slice *slice, Error *err) {
    if (!buffer || (!slice->begin.given && !slice->end.given)) return buffer;
    int64_t count = dx_buffer_count(buffer);
    int64_t begin = place(slice->begin, count, 0), end = place(slice->end, count, count);
    return dx_buffer_range(buffer, begin, BASE_MAX(end - begin, 0), err);
}

/* ---- files -------------------------------------------------------------------------------- */

typedef struct Paths {
    char **items;
    size_t count, capacity;
} Paths;

static void add_path(Paths *paths, char *path) {
    paths->items = base_grow(paths->items, &paths->capacity, paths->count + 1, sizeof(char *));
    paths->items[paths->count++] = path;
}

static void paths_free(Paths *paths) {
    for (size_t i = 0; i < paths->count; i++) free(paths->items[i]);
    free(paths->items);
}

/* SPLIT-*.jsonl in their order. */
static bool find_shards(const char *folder, const char *split, Paths *paths, Error *err) {
    char **names = NULL;
    size_t count = 0;
    if (!base_list_dir(folder, &names, &count, err)) return false;
    char *start = base_format("%s-", split);
    for (size_t i = 0; i < count; i++) {
        if (base_starts_with(names[i], start) && base_ends_with(names[i], ".jsonl"))
            add_path(paths, base_path_join(folder, names[i]));
        free(names[i]);
    }
    free(start);
    free(names);
    return true;
}

static bool find_files(const char *path, const char *split, Paths *paths, Error *err) {
    if (base_is_file(path)) {
        add_path(paths, base_strdup(path));
        return true;
    }
    if (!base_is_dir(path)) {
        base_fail(err, ERROR_IO, "%s: no such data set", path);
        return base_hint(err, "A data set is a jsonl file or a folder with train.jsonl");
    }
    char *name = base_format("%s.jsonl", split), *file = base_path_join(path, name);
    free(name);
    if (base_is_file(file)) {
        add_path(paths, file);
        return true;
    }
    free(file);
    if (!find_shards(path, split, paths, err)) return false;
    char *data = base_path_join(path, "data");
    bool ok = paths->count || !base_is_dir(data) || find_shards(data, split, paths, err);
    free(data);
    return ok;
}

/* ---- opening -------------------------------------------------------------------------------- */

/* NULL without an error: no rows. */
static DxBuffer *open_lines(const Paths *paths, Error *err) {
    DxBuffer **parts = base_calloc(paths->count + 1, sizeof *parts);
    size_t count = 0;
    bool ok = true;
    for (size_t i = 0; ok && i < paths->count; i++) {
        parts[count] = dx_jsonl(&(DxJsonlOptions){.path = paths->items[i]}, err);
        ok = parts[count] != NULL;
        if (ok && dx_buffer_count(parts[count]) == 0)
            dx_buffer_free(parts[count]);
        else if (ok)
            count++;
    }
    DxBuffer *all = NULL;
    if (ok && count)
        all = count == 1 ? parts[0] : dx_buffer_append(parts, count, err);
    else
        for (size_t i = 0; i < count; i++) dx_buffer_free(parts[i]);
    free(parts);
    return all;
}

/* *where: its file and line, also on failure; the caller's. */
static json_t *first_record(const DxBuffer *buffer, StrBuf *where, Error *err) {
    DxSample *sample = NULL;
    if (dx_buffer_get(buffer, 0, 0, &sample, err) != DX_OK) return NULL;
    dx_buffer_where(buffer, dx_sample_record(sample), where);
    const DxArray *line = dx_sample_get(sample, dx_key("json"));
    json_t *record = base_json_parse(line->data, line->bytes, where->data, err);
    dx_sample_free(sample);
    if (record && !json_is_object(record)) {
        base_fail(err, ERROR_INPUT, "%s: the line is not a JSON object", where->data);
        json_decref(record);
        record = NULL;
    }
    return record;
}

/* *lines: the records, another reference. */
static DxBuffer *open_source(const TuneSource *source, const TuneDataOptions *options,
                             LmModel *model, DxBuffer **lines, Error *err) {
    Slice slice;
    Paths paths = {0};
    DxBuffer *buffer = NULL;
    const char *split = source->split ? source->split : options->split;
    if (!parse_split(split ? split : "train", &slice, err)) return NULL;
    if (find_files(source->path, slice.name, &paths, err))
        buffer = cut(open_lines(&paths, err), &slice, err);
    free(slice.name);
    paths_free(&paths);
    if (!buffer || dx_buffer_count(buffer) == 0) {
        dx_buffer_free(buffer);
        return NULL;
    }
    StrBuf where = {0};
    json_t *first = first_record(buffer, &where, err);
    if (!first) {
        dx_buffer_free(buffer);
        base_str_free(&where);
        return NULL;
    }
    TuneRecordOptions how = {.names = *source,
                             .mask_prompt = options->mask_prompt,
                             .every_turn = options->every_turn,
                             .pairs = options->pairs,
                             .model = model};
    *lines = dx_buffer_retain(buffer);
    buffer = tune_record_tokens(buffer, &how, first, err);
    json_decref(first);
    if (!buffer) {
        dx_buffer_free(*lines);
        base_error_context(err, "%s", where.data);
    }
    base_str_free(&where);
    return buffer;
}

/* Takes all of parts[0..count). */
static DxBuffer *join(DxBuffer **parts, size_t count, Error *err) {
    if (count == 0) return NULL;
    return count == 1 ? parts[0] : dx_buffer_append(parts, count, err);
}

void tune_data_free(TuneData *data) {
    if (!data) return;
    for (size_t i = 0; i < data->count; i++) dx_sample_free(data->made[i]);
    free(data->made);
    dx_buffer_free(data->rows);
    dx_buffer_free(data->lines);
    free(data);
}

TuneData *tune_data_open(const TuneDataOptions *options, LmModel *model, Error *err) {
    DxBuffer **parts = base_calloc(options->n_sources + 1, 2 * sizeof *parts);
    DxBuffer **lines = parts + options->n_sources + 1;
    Error first = {0};
    size_t count = 0;
    for (size_t i = 0; first.code == ERROR_NONE && i < options->n_sources; i++) {
        parts[count] = open_source(&options->sources[i], options, model, &lines[count], &first);
        count += parts[count] != NULL;
    }
    TuneData *data = base_calloc(1, sizeof *data);
    data->rows = join(parts, count, err);
    data->lines = join(lines, count, err);
    free(parts);
    data->count = data->rows ? (size_t)dx_buffer_count(data->rows) : 0;
    data->made = base_calloc(data->count + 1, sizeof *data->made);
    data->pairs = options->pairs;
    data->quiet = options->quiet;
    data->json = options->json;
    if (first.code == ERROR_NONE) return data;
    tune_data_free(data);
    if (err) *err = first;
    return NULL;
}

size_t tune_data_count(const TuneData *data) {
    return data->count;
}

bool tune_data_pairs(const TuneData *data) {
    return data->pairs;
}

char *tune_data_where(const TuneData *data, size_t index) {
    StrBuf text = {0};
    Error err = {0};
    DxSample *line = NULL;
    if (dx_buffer_get(data->lines, 0, (int64_t)index, &line, &err) == DX_OK)
        dx_buffer_where(data->lines, dx_sample_record(line), &text);
    else
        base_str_append(&text, err.message);
    dx_sample_free(line);
    return base_str_detach(&text);
}

bool tune_data_keys(const TuneData *data, size_t index, int *keys, Error *err) {
    DxSample *line = NULL;
    if (dx_buffer_get(data->lines, 0, (int64_t)index, &line, err) != DX_OK) return false;
    const DxArray *text = dx_sample_get(line, dx_key("json"));
    json_t *record = base_json_parse(text->data, text->bytes, "JSON", err);
    *keys = (int)json_object_size(record);
    dx_sample_free(line);
    if (!record) {
        char *where = tune_data_where(data, index);
        base_error_context(err, "%s", where);
        free(where);
        return false;
    }
    json_decref(record);
    return true;
}

/* ---- rows ------------------------------------------------------------------------------------ */

bool tune_data_row(TuneData *data, size_t index, bool rejected, TuneRow *row, Error *err) {
    DxSample **made = &data->made[index];
    if (!*made && dx_buffer_get(data->rows, 0, (int64_t)index, made, err) != DX_OK) return false;
    const DxArray *ids = dx_sample_get(*made, dx_key(rejected ? "rejected" : "tokens"));
    const DxArray *runs = dx_sample_get(*made, dx_key(rejected ? "rejected_targets" : "targets"));
    *row = (TuneRow){.ids = ids->data,
                     .length = (int)ids->count,
                     .targets = runs->data,
                     .n_targets = (int)runs->shape[0]};
    return true;
}

typedef struct Tokenising {
    TuneData *data;
    _Atomic size_t done;
    _Atomic bool failed;
    _Atomic size_t failed_at; /* the first, by index: threads do not change what is reported */
    Error failure;
    pthread_mutex_t lock;
    Progress progress;
} Tokenising;

static void tokenise_slice(void *context, size_t begin, size_t end, int thread) {
    Tokenising *work = context;
    for (size_t i = begin; i < end && !base_interrupted(); i++) {
        Error err = {0};
        if (atomic_load(&work->failed) && i > work->failed_at) return;
        if (!work->data->made[i] &&
            dx_buffer_get(work->data->rows, 0, (int64_t)i, &work->data->made[i], &err) != DX_OK) {
            pthread_mutex_lock(&work->lock);
            if (!atomic_load(&work->failed) || i < work->failed_at) {
                work->failed_at = i;
                work->failure = err;
                atomic_store(&work->failed, true);
            }
            pthread_mutex_unlock(&work->lock);
            return;
        }
        size_t done = atomic_fetch_add(&work->done, 1) + 1;
        if (thread == 0 && done % 64 == 0) base_progress_update(&work->progress, (double)done);
    }
}

bool tune_data_tokenise(TuneData *data, Error *err) {
    TuneRow row;
    /* The model opens its template at the first chat; that is one thread's work. */
    if (data->count == 0) return true;
    if (!tune_data_row(data, 0, false, &row, err)) return false;
    Tokenising work = {.data = data, .lock = PTHREAD_MUTEX_INITIALIZER};
    work.progress = base_progress_start("Tokenising", "rows", (double)data->count);
    work.progress.quiet = data->quiet;
    work.progress.json = data->json;
    base_parallel_for(data->count, 16, tokenise_slice, &work);
    base_progress_end(&work.progress);
    if (atomic_load(&work.failed)) {
        if (err) *err = work.failure;
        return false;
    }
    if (base_interrupted()) return base_fail(err, ERROR_INTERRUPTED, "interrupted");
    return true;
}
