/* Lines: of a file, plain or packed, one after another; and of texts that samples hold. */
#include <stdlib.h>
#include <string.h>

#include "data/input.h"
#include "data/sample.h"
#include "data/stream.h"

enum { USUAL_LINE = 100 << 20 };

/* ---- cutting lines ------------------------------------------------------------------ */

typedef enum { LINE_OK, LINE_END, LINE_TOO_LONG, LINE_FAILED } LineStatus;

/* The next line without its end, borrowed until the next call. A line that lies in one
 * block is not copied. */
static LineStatus cut_line(DxCursor *cursor, StrBuf *carry, size_t max_line, const char **line,
                           size_t *length, Error *err) {
    bool failed = false, begun = false, too_long = false;
    carry->length = 0;
    while (dx_cursor_more(cursor, &failed, err)) {
        const uint8_t *start = cursor->at;
        const uint8_t *newline = memchr(start, '\n', (size_t)(cursor->end - start));
        size_t part = (size_t)((newline ? newline : cursor->end) - start);
        cursor->at = newline ? newline + 1 : cursor->end;
        too_long = too_long || part > max_line - carry->length;
        if (newline && !begun && !too_long) {
            *line = (const char *)start;
            *length = part;
            return LINE_OK;
        }
        begun = true;
        if (!too_long) base_str_append_n(carry, (const char *)start, part);
        if (newline) break;
    }
    if (failed) return LINE_FAILED;
    if (!begun) return LINE_END;
    *line = carry->data;
    *length = carry->length;
    return too_long ? LINE_TOO_LONG : LINE_OK;
}

typedef struct LineRules {
    DxKey key;
    bool bytes, crlf, skip_empty;
    size_t max_line;
} LineRules;

/* A line as an array; NULL and *err when it is no text. */
static DxArray *line_array(const LineRules *rules, const char *line, size_t length, Error *err) {
    if (rules->bytes) return dx_array_bytes(line, length, err);
    return dx_checked_text(line, length, err);
}

static bool leave_out(const LineRules *rules, const char *line, size_t *length) {
    if (rules->crlf && *length && line[*length - 1] == '\r') --*length;
    return rules->skip_empty && *length == 0;
}

static LineRules rules_of(const DxLinesOptions *options) {
    return (LineRules){.key = dx_key(options->key ? options->key : "line"),
                       .bytes = options->bytes,
                       .crlf = options->crlf,
                       .skip_empty = options->skip_empty,
                       .max_line = options->max_line ? options->max_line : USUAL_LINE};
}

static void rules_identity(const LineRules *rules, StrBuf *text) {
    base_str_appendf(text, ", to %s%s%s%s, at most %zu", rules->key.name,
                     rules->bytes ? ", bytes" : "", rules->crlf ? ", crlf" : "",
                     rules->skip_empty ? ", not empty" : "", rules->max_line);
}

/* ---- of a file ----------------------------------------------------------------------- */

typedef struct LineStream {
    DxStream base;
    DxCursor cursor;
    StrBuf carry;
    LineRules rules;
    uint64_t line; /* of the next one, from 0 */
} LineStream;

static DxStatus lines_next(DxStream *stream, DxSample **sample, Error *err) {
    LineStream *lines = (LineStream *)stream;
    const char *line;
    size_t length;
    for (;;) {
        uint64_t number = lines->line, offset = dx_cursor_offset(&lines->cursor);
        LineStatus status =
            cut_line(&lines->cursor, &lines->carry, lines->rules.max_line, &line, &length, err);
        if (status == LINE_END) return DX_END;
        if (status == LINE_FAILED) {
            stream->ended = true; /* what is damaged has no further lines */
            base_error_context(err, "lines");
            return DX_FAIL;
        }
        lines->line++;
        DxArray *array = NULL;
        if (status == LINE_TOO_LONG)
            base_fail(err, ERROR_INPUT, "is longer than %s",
                      base_bytes_text(lines->rules.max_line));
        else if (leave_out(&lines->rules, line, &length))
            continue;
        else
            array = line_array(&lines->rules, line, length, err);
        if (!array) {
            base_error_context(err, "%s: line %llu (byte %llu)", dx_input_name(lines->cursor.input),
                               (unsigned long long)number + 1, (unsigned long long)offset);
            return DX_FAIL;
        }
        *sample = dx_sample_of(lines->rules.key, array,
                               (DxRecord){.epoch = stream->epoch, .ordinal = number});
        return DX_OK;
    }
}

static bool lines_rewind(DxStream *stream, uint64_t epoch, Error *err) {
    (void)epoch;
    ((LineStream *)stream)->line = 0;
    return dx_cursor_seek(&((LineStream *)stream)->cursor, 0, err);
}

static void lines_options(const DxStream *stream, StrBuf *text) {
    const LineStream *lines = (const LineStream *)stream;
    dx_input_identity(lines->cursor.input, text);
    rules_identity(&lines->rules, text);
}

static void lines_save(DxStream *stream, StrBuf *out) {
    const LineStream *lines = (const LineStream *)stream;
    dx_put_u64(out, lines->line);
    dx_put_u64(out, dx_cursor_offset(&lines->cursor));
}

static bool lines_load(DxStream *stream, DxReader *reader, Error *err) {
    LineStream *lines = (LineStream *)stream;
    lines->line = dx_get_u64(reader);
    uint64_t offset = dx_get_u64(reader);
    return !reader->bad && dx_cursor_seek(&lines->cursor, offset, err);
}

static void lines_where(const DxStream *stream, const DxRecord *record, StrBuf *text) {
    base_str_appendf(text, "%s: line %llu",
                     dx_input_name(((const LineStream *)stream)->cursor.input),
                     (unsigned long long)record->ordinal + 1);
}

static void lines_free(DxStream *stream) {
    LineStream *lines = (LineStream *)stream;
    dx_input_free(lines->cursor.input);
    base_str_free(&lines->carry);
}

static const DxStreamKind lines_kind = {
    .name = "lines",
    .next = lines_next,
    .rewind = lines_rewind,
    .options = lines_options,
    .save = lines_save,
    .load = lines_load,
    .where = lines_where,
    .free = lines_free,
};

DxStream *dx_lines(const DxLinesOptions *options, Error *err) {
    DxInput *input = dx_input_open(options->path, err);
    if (!input) return NULL;
    LineStream *lines = dx_stream_over(&lines_kind, sizeof *lines, NULL);
    lines->cursor.input = input;
    lines->rules = rules_of(options);
    return &lines->base;
}

/* ---- of samples ------------------------------------------------------------------------ */

typedef struct SplitLines {
    DxKey from;
    LineRules rules;
} SplitLines;

static DxStatus split(void *self, const DxSample *sample, DxRandom *random, DxEmit *emit,
                      Error *err) {
    (void)random;
    const SplitLines *how = self;
    const DxArray *whole = dx_sample_need_bytes(sample, how->from, err);
    if (!whole) return DX_FAIL;
    DxCursor cursor = {.input = dx_input_memory(how->from.name, whole->data, whole->bytes, err)};
    StrBuf carry = {0};
    LineStatus status = LINE_OK;
    bool ok = true;
    for (uint64_t number = 1; ok; number++) {
        const char *line;
        size_t length;
        status = cut_line(&cursor, &carry, how->rules.max_line, &line, &length, err);
        if (status == LINE_END) break;
        if (status == LINE_OK && leave_out(&how->rules, line, &length)) continue;
        DxArray *array = NULL;
        if (status == LINE_TOO_LONG)
            base_fail(err, ERROR_INPUT, "is longer than %s", base_bytes_text(how->rules.max_line));
        else if (status == LINE_OK)
            array = line_array(&how->rules, line, length, err);
        ok = array != NULL;
        if (!ok)
            base_error_context(err, "key \"%s\": line %llu", how->from.name,
                               (unsigned long long)number);
        if (!ok) break;
        DxSample *part = dx_sample_without(sample, how->from);
        dx_sample_put(&part, how->rules.key, array);
        dx_emit(emit, part);
    }
    dx_input_free(cursor.input);
    base_str_free(&carry);
    return ok ? DX_OK : DX_FAIL;
}

DxStream *dx_split_lines(DxStream *stream, const char *key, const DxLinesOptions *options,
                         Error *err) {
    SplitLines *how = base_calloc(1, sizeof *how);
    *how = (SplitLines){dx_key(key), rules_of(options)};
    StrBuf identity = {0};
    base_str_append(&identity, key);
    rules_identity(&how->rules, &identity);
    DxExpand expand = {
        .name = "split lines", .options = identity.data, .expand = split, .destroy = free};
    stream = dx_flat_map(stream, &expand, how, err);
    base_str_free(&identity);
    return stream;
}
