/* Comma-separated values: a record at a time, of a file or of bytes that samples hold.
 * Quoted fields may hold separators, line ends and doubled quotes; lines may end
 * with CR LF; empty lines are no records (RFC 4180). */
#include <stdlib.h>
#include <string.h>

#include "data/input.h"
#include "data/sample.h"
#include "data/stream.h"

enum { USUAL_RECORD = 100 << 20, MOST_COLUMNS = 65536 };

typedef struct CsvRules {
    char separator, quote;
    bool bytes, named; /* named: by the caller, so that the first record is data */
    size_t max_record;
    DxKey *columns;
    size_t n_columns;
} CsvRules;

typedef struct CsvReader {
    DxCursor cursor;
    const CsvRules *rules;
    uint64_t line, start_line; /* of the next byte, and where the record began; from 1 */
    StrBuf text;               /* the fields of a record, one behind another */
    size_t *ends, n_fields, capacity;
    bool failed; /* reading went wrong: there is no more */
} CsvReader;

/* ---- records ------------------------------------------------------------------------ */

/* The next byte, not taken; -1 at the end. */
static int peek(CsvReader *csv, Error *err) {
    return dx_cursor_more(&csv->cursor, &csv->failed, err) ? *csv->cursor.at : -1;
}

static bool wrong(CsvReader *csv, Error *err, const char *what) {
    base_fail(err, ERROR_INPUT, "field %zu %s", csv->n_fields + 1, what);
    return false;
}

/* Takes bytes that end before `stop`, into the text. */
static bool take_part(CsvReader *csv, const uint8_t *stop, Error *err) {
    size_t length = (size_t)(stop - csv->cursor.at);
    if (length > csv->rules->max_record - csv->text.length)
        return base_fail(err, ERROR_INPUT, "the record is longer than %s",
                         base_bytes_text(csv->rules->max_record));
    base_str_append_n(&csv->text, (const char *)csv->cursor.at, length);
    csv->cursor.at = stop;
    return true;
}

/* Behind the opening quote, to behind the closing one. */
static bool take_quoted(CsvReader *csv, Error *err) {
    const uint8_t quote = (uint8_t)csv->rules->quote;
    while (peek(csv, err) >= 0) {
        const uint8_t *at = csv->cursor.at;
        const uint8_t *stop = memchr(at, quote, (size_t)(csv->cursor.end - at));
        if (!stop) stop = csv->cursor.end;
        for (const uint8_t *line = at; (line = memchr(line, '\n', (size_t)(stop - line))); line++)
            csv->line++;
        if (!take_part(csv, stop, err)) return false;
        if (stop == csv->cursor.end) continue;
        csv->cursor.at++;
        if (peek(csv, err) != quote) return !csv->failed;
        base_str_append_char(&csv->text, (char)quote);
        csv->cursor.at++;
    }
    return !csv->failed && wrong(csv, err, "has no closing quote");
}

/* To the separator or the line end, which is not taken. */
static bool take_plain(CsvReader *csv, Error *err) {
    const char separator = csv->rules->separator;
    while (peek(csv, err) >= 0) {
        const uint8_t *stop = csv->cursor.at;
        while (stop < csv->cursor.end && *stop != (uint8_t)separator && *stop != '\n') stop++;
        if (!take_part(csv, stop, err)) return false;
        if (stop < csv->cursor.end) break;
    }
    return !csv->failed;
}

static bool take_field(CsvReader *csv, bool *quoted, Error *err) {
    size_t start = csv->text.length;
    *quoted = csv->rules->quote && peek(csv, err) == (uint8_t)csv->rules->quote;
    if (*quoted) {
        csv->cursor.at++;
        if (!take_quoted(csv, err)) return false;
        if (peek(csv, err) == '\r') csv->cursor.at++;
        int next = peek(csv, err);
        if (csv->failed) return false;
        if (next >= 0 && next != '\n' && next != (uint8_t)csv->rules->separator)
            return wrong(csv, err, "goes on behind its closing quote");
        return true;
    }
    if (!take_plain(csv, err)) return false;
    int next = peek(csv, err);
    bool last = next == '\n' || next < 0;
    if (last && csv->text.length > start && csv->text.data[csv->text.length - 1] == '\r')
        csv->text.length--;
    return !csv->failed;
}

/* What follows a record that is wrong begins in the next line. */
static void pass_line(CsvReader *csv) {
    Error ignored = {0};
    while (peek(csv, &ignored) >= 0)
        if (*csv->cursor.at++ == '\n') break;
    csv->line++;
}

/* DX_OK, DX_END or DX_FAIL; after a failure the next record begins in the next line. */
static DxStatus read_record(CsvReader *csv, Error *err) {
    for (;;) {
        csv->text.length = csv->n_fields = 0;
        csv->start_line = csv->line;
        bool any_quoted = false;
        if (peek(csv, err) < 0) return csv->failed ? DX_FAIL : DX_END;
        for (;;) {
            bool quoted, ok = take_field(csv, &quoted, err);
            if (ok && csv->n_fields == MOST_COLUMNS)
                ok = base_fail(err, ERROR_INPUT, "more than %d fields", MOST_COLUMNS);
            if (!ok) {
                if (!csv->failed) pass_line(csv);
                return DX_FAIL;
            }
            any_quoted = any_quoted || quoted;
            csv->ends = base_grow(csv->ends, &csv->capacity, csv->n_fields + 1, sizeof *csv->ends);
            csv->ends[csv->n_fields++] = csv->text.length;
            if (peek(csv, err) != (uint8_t)csv->rules->separator) break;
            csv->cursor.at++;
        }
        if (peek(csv, err) == '\n') {
            csv->cursor.at++;
            csv->line++;
        }
        if (csv->n_fields > 1 || csv->text.length || any_quoted) return DX_OK;
    }
}

static const char *field(const CsvReader *csv, size_t index, size_t *length) {
    size_t start = index ? csv->ends[index - 1] : 0;
    *length = csv->ends[index] - start;
    return csv->text.data ? csv->text.data + start : "";
}

/* The fields of the record just read, into a sample. */
static bool put_fields(const CsvReader *csv, DxSample **sample, Error *err) {
    const CsvRules *rules = csv->rules;
    if (csv->n_fields != rules->n_columns)
        return base_fail(err, ERROR_INPUT, "has %zu fields, the %s %zu", csv->n_fields,
                         rules->named ? "columns are" : "header has", rules->n_columns);
    for (size_t i = 0; i < rules->n_columns; i++) {
        size_t length;
        const char *text = field(csv, i, &length);
        DxArray *array =
            rules->bytes ? dx_array_bytes(text, length, err) : dx_checked_text(text, length, err);
        if (!array) return base_error_context(err, "column \"%s\"", rules->columns[i].name);
        dx_sample_put(sample, rules->columns[i], array);
    }
    return true;
}

static void pass_mark(CsvReader *csv) {
    Error ignored = {0};
    static const char mark[] = "\xef\xbb\xbf";
    if (peek(csv, &ignored) == (uint8_t)mark[0] && csv->cursor.end - csv->cursor.at >= 3 &&
        memcmp(csv->cursor.at, mark, 3) == 0)
        csv->cursor.at += 3;
}

static bool same_names(const CsvRules *rules, Error *err) {
    for (size_t i = 0; i < rules->n_columns; i++)
        for (size_t j = i + 1; j < rules->n_columns && rules->n_columns <= 1024; j++)
            if (rules->columns[i].name == rules->columns[j].name)
                return base_fail(err, ERROR_INPUT, "columns %zu and %zu are both \"%s\"", i + 1,
                                 j + 1, rules->columns[i].name);
    return true;
}

/* The names of the columns, from the first record unless they were given. */
static bool read_header(CsvReader *csv, CsvRules *rules, Error *err) {
    csv->line = 1;
    pass_mark(csv);
    if (!rules->named) {
        DxStatus status = read_record(csv, err);
        if (status == DX_END) return base_fail(err, ERROR_INPUT, "has no header: it is empty");
        if (status == DX_FAIL) return base_error_context(err, "line 1");
        rules->columns = base_realloc(rules->columns, csv->n_fields * sizeof *rules->columns);
        for (size_t i = 0; i < csv->n_fields; i++) {
            size_t length;
            const char *text = field(csv, i, &length);
            char *name = base_strndup(text, length);
            rules->columns[i] = dx_key(name);
            free(name);
        }
        rules->n_columns = csv->n_fields;
    }
    return same_names(rules, err);
}

static void reader_free(CsvReader *csv) {
    dx_input_free(csv->cursor.input);
    base_str_free(&csv->text);
    free(csv->ends);
}

static bool rules_of(const DxCsvOptions *options, CsvRules *rules, Error *err) {
    *rules = (CsvRules){.separator = options->separator ? options->separator : ',',
                        .quote = options->no_quotes ? '\0'
                                 : options->quote   ? options->quote
                                                    : '"',
                        .bytes = options->bytes,
                        .named = options->n_columns > 0,
                        .max_record = options->max_record ? options->max_record : USUAL_RECORD,
                        .n_columns = options->n_columns};
    if (rules->separator == rules->quote || strchr("\r\n", rules->separator) ||
        (rules->quote && strchr("\r\n", rules->quote)) || options->n_columns > MOST_COLUMNS)
        return base_fail(err, ERROR_INPUT, "csv: this separator, quote or number of columns");
    rules->columns = base_calloc(options->n_columns + 1, sizeof *rules->columns);
    for (size_t i = 0; i < options->n_columns; i++) rules->columns[i] = dx_key(options->columns[i]);
    return true;
}

static void rules_identity(const CsvRules *rules, StrBuf *text) {
    base_str_appendf(text, ", separator %d, quote %d%s%s", rules->separator, rules->quote,
                     rules->bytes ? ", bytes" : "", rules->named ? ", named" : "");
    for (size_t i = 0; i < rules->n_columns; i++)
        base_str_appendf(text, ", %s", rules->columns[i].name);
}

/* ---- of a file ----------------------------------------------------------------------- */

typedef struct CsvStream {
    DxStream base;
    CsvReader reader;
    CsvRules rules;
    uint64_t first_offset, first_line; /* of the data */
} CsvStream;

static DxStatus csv_next(DxStream *stream, DxSample **sample, Error *err) {
    CsvStream *csv = (CsvStream *)stream;
    uint64_t offset = dx_cursor_offset(&csv->reader.cursor);
    DxStatus status = read_record(&csv->reader, err);
    if (status == DX_END) return DX_END;
    if (csv->reader.failed) stream->ended = true;
    if (status == DX_OK) {
        *sample = dx_sample_new();
        dx_sample_set_record(
            sample, (DxRecord){.epoch = stream->epoch, .ordinal = csv->reader.start_line - 1});
        if (put_fields(&csv->reader, sample, err)) return DX_OK;
        dx_sample_free(*sample);
        *sample = NULL;
    }
    base_error_context(err, "%s: line %llu (byte %llu)", dx_input_name(csv->reader.cursor.input),
                       (unsigned long long)csv->reader.start_line, (unsigned long long)offset);
    return DX_FAIL;
}

static bool go_to(CsvStream *csv, uint64_t offset, uint64_t line, Error *err) {
    csv->reader.failed = false;
    csv->reader.line = line;
    return dx_cursor_seek(&csv->reader.cursor, offset, err);
}

static bool csv_rewind(DxStream *stream, uint64_t epoch, Error *err) {
    CsvStream *csv = (CsvStream *)stream;
    (void)epoch;
    return go_to(csv, csv->first_offset, csv->first_line, err);
}

static void csv_options(const DxStream *stream, StrBuf *text) {
    const CsvStream *csv = (const CsvStream *)stream;
    dx_input_identity(csv->reader.cursor.input, text);
    rules_identity(&csv->rules, text);
}

static void csv_save(DxStream *stream, StrBuf *out) {
    const CsvStream *csv = (const CsvStream *)stream;
    dx_put_u64(out, csv->reader.line);
    dx_put_u64(out, dx_cursor_offset(&csv->reader.cursor));
}

static bool csv_load(DxStream *stream, DxReader *reader, Error *err) {
    uint64_t line = dx_get_u64(reader), offset = dx_get_u64(reader);
    return !reader->bad && go_to((CsvStream *)stream, offset, line, err);
}

static void csv_where(const DxStream *stream, const DxRecord *record, StrBuf *text) {
    base_str_appendf(text, "%s: line %llu",
                     dx_input_name(((const CsvStream *)stream)->reader.cursor.input),
                     (unsigned long long)record->ordinal + 1);
}

static void csv_free(DxStream *stream) {
    CsvStream *csv = (CsvStream *)stream;
    reader_free(&csv->reader);
    free(csv->rules.columns);
}

static const DxStreamKind csv_kind = {
    .name = "csv",
    .next = csv_next,
    .rewind = csv_rewind,
    .options = csv_options,
    .save = csv_save,
    .load = csv_load,
    .where = csv_where,
    .free = csv_free,
};

DxStream *dx_csv(const DxCsvOptions *options, Error *err) {
    DxInput *input = dx_input_open(options->path, err);
    if (!input) return NULL;
    CsvStream *csv = dx_stream_over(&csv_kind, sizeof *csv, NULL);
    csv->reader.cursor.input = input;
    csv->reader.rules = &csv->rules;
    bool ok = rules_of(options, &csv->rules, err);
    if (ok && !read_header(&csv->reader, &csv->rules, err))
        ok = base_error_context(err, "%s", options->path);
    if (!ok) {
        dx_stream_free(&csv->base);
        return NULL;
    }
    csv->first_offset = dx_cursor_offset(&csv->reader.cursor);
    csv->first_line = csv->reader.line;
    return &csv->base;
}

/* ---- of samples ------------------------------------------------------------------------ */

typedef struct SplitCsv {
    DxKey from;
    CsvRules rules;
} SplitCsv;

static void split_free(void *self) {
    SplitCsv *how = self;
    free(how->rules.columns);
    free(how);
}

static DxStatus split(void *self, const DxSample *sample, DxRandom *random, DxEmit *emit,
                      Error *err) {
    (void)random;
    const SplitCsv *how = self;
    const DxArray *whole = dx_sample_need_bytes(sample, how->from, err);
    if (!whole) return DX_FAIL;
    CsvRules rules = how->rules; /* each document has its own header */
    rules.columns = base_calloc(rules.n_columns + 1, sizeof *rules.columns);
    if (rules.n_columns)
        memcpy(rules.columns, how->rules.columns, rules.n_columns * sizeof *rules.columns);
    CsvReader csv = {.rules = &rules};
    csv.cursor.input = dx_input_memory(how->from.name, whole->data, whole->bytes, err);
    DxStatus status = read_header(&csv, &rules, err) ? DX_OK : DX_FAIL;
    bool in_header = status == DX_FAIL;
    while (status == DX_OK && (status = read_record(&csv, err)) == DX_OK) {
        DxSample *part = dx_sample_without(sample, how->from);
        if (put_fields(&csv, &part, err)) {
            dx_emit(emit, part);
            continue;
        }
        dx_sample_free(part);
        status = DX_FAIL;
    }
    if (status == DX_FAIL && !in_header)
        base_error_context(err, "line %llu", (unsigned long long)csv.start_line);
    if (status == DX_FAIL) base_error_context(err, "key \"%s\"", how->from.name);
    reader_free(&csv);
    free(rules.columns);
    return status == DX_END ? DX_OK : status;
}

DxStream *dx_split_csv(DxStream *stream, const char *key, const DxCsvOptions *options, Error *err) {
    SplitCsv *how = base_calloc(1, sizeof *how);
    how->from = dx_key(key);
    if (!rules_of(options, &how->rules, err)) {
        dx_stream_free(stream);
        split_free(how);
        return NULL;
    }
    StrBuf identity = {0};
    base_str_append(&identity, key);
    rules_identity(&how->rules, &identity);
    DxExpand expand = {
        .name = "split csv", .options = identity.data, .expand = split, .destroy = split_free};
    stream = dx_flat_map(stream, &expand, how, err);
    base_str_free(&identity);
    return stream;
}
