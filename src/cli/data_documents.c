/* Documents to training records, as a stream: a source reads one file after another
 * (rag's readers), a flat map cuts each into records, a map hashes them, threads run the
 * last two. Rows of .jsonl files pass as they stand. */
#include "cli/data.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "rag/chunk.h"
#include "rag/walk.h"

enum { HEAD_BYTES = 8192 };
static const int64_t most_bytes = (int64_t)256 << 20;

/* One for the whole stream; the source owns it. */
typedef struct Documents {
    DocumentsOptions options;
    DocumentsReport *report;
    RagFiles files;
    size_t at;      /* of files: the next one */
    DxBuffer *rows; /* of the .jsonl file before `at`, while some are left */
    int64_t row;
    _Atomic size_t n_read, n_short;
} Documents;

/* ---- the source: one file, or one row of JSON lines
 * ---------------------------------------------- */

static bool read_document(const RagFound *found, RagDocument *document, const char **skip,
                          Error *err) {
    char *bytes = NULL;
    size_t length = 0;
    if (found->size > most_bytes)
        return base_fail(err, ERROR_INPUT, "larger than %lld MiB", (long long)(most_bytes >> 20));
    if (!base_file_read(found->path, &bytes, &length, err)) return false;
    RagFormat format = rag_format_detect(found->path, bytes, BASE_MIN(length, (size_t)HEAD_BYTES),
                                         found->walking, skip);
    bool ok = format == RAG_FORMAT_NONE ||
              rag_document_read(found->path, format, bytes, length, document, err);
    if (format != RAG_FORMAT_NONE) *skip = NULL;
    free(bytes);
    return ok;
}

static void put_text(DxSample **sample, const char *key, const char *text, size_t length) {
    dx_sample_put(sample, dx_key(key), dx_array_text(text ? text : "", length, NULL));
}

static void put_file(const Documents *documents, DxSample **sample) {
    dx_sample_put(sample, dx_key("file"), dx_array_int((int64_t)documents->at - 1));
}

/* A sample that only says why something was set aside. */
static DxStatus put_note(DxSample **sample, const char *where, const char *reason) {
    char *text = base_format("%s: %s", where, reason);
    put_text(sample, "note", text, strlen(text));
    free(text);
    return DX_OK;
}

static DxStatus next_row(Documents *documents, DxSample **sample, Error *err) {
    DxSample *row = NULL;
    DxStatus status = dx_buffer_get(documents->rows, 0, documents->row++, &row, err);
    if (status == DX_OK) {
        StrBuf where = {0};
        dx_buffer_where(documents->rows, dx_sample_record(row), &where);
        put_text(sample, "where", where.data, where.length);
        dx_sample_put(sample, dx_key("json"), dx_array_retain(dx_sample_get(row, dx_key("json"))));
        put_file(documents, sample);
        base_str_free(&where);
        dx_sample_free(row);
    }
    if (documents->row == dx_buffer_count(documents->rows)) {
        dx_buffer_free(documents->rows);
        documents->rows = NULL;
    }
    return status;
}

static DxStatus next_document(void *self, DxSample **sample, Error *err) {
    Documents *documents = self;
    while (!documents->rows && documents->at < documents->files.count) {
        const RagFound *found = &documents->files.items[documents->at++];
        Error wrong = {0};
        const char *skip = found->skip;
        RagDocument document = {0};
        if (base_interrupted()) {
            base_fail(err, ERROR_INTERRUPTED, "interrupted; nothing was written");
            return DX_FAIL;
        }
        bool lines = !skip && base_ends_with(found->path, ".jsonl");
        if (lines)
            documents->rows = dx_jsonl(&(DxJsonlOptions){.path = found->path}, &wrong);
        else if (!skip)
            read_document(found, &document, &skip, &wrong);
        if (wrong.code != ERROR_NONE || skip) {
            bool named = strstr(wrong.message, found->path) == wrong.message;
            if (!skip && named) { /* the message begins with the path */
                put_text(sample, "note", wrong.message, strlen(wrong.message));
                return DX_OK;
            }
            return put_note(sample, found->path, skip ? skip : wrong.message);
        }
        atomic_fetch_add(&documents->n_read, 1);
        if (!lines) {
            size_t bytes = document.n_blocks * sizeof *document.blocks;
            put_text(sample, "title", document.title, document.title ? strlen(document.title) : 0);
            put_text(sample, "text", document.text.data, document.text.length);
            dx_sample_put(sample, dx_key("blocks"), dx_array_bytes(document.blocks, bytes, err));
            put_file(documents, sample);
            rag_document_free(&document);
            return DX_OK;
        }
        documents->row = 0;
        if (dx_buffer_count(documents->rows) == 0) {
            dx_buffer_free(documents->rows);
            documents->rows = NULL;
        }
    }
    return documents->rows ? next_row(documents, sample, err) : DX_END;
}

static void free_documents(void *self) {
    Documents *documents = self;
    documents->report->n_read = atomic_load(&documents->n_read);
    documents->report->n_short = atomic_load(&documents->n_short);
    dx_buffer_free(documents->rows);
    rag_files_free(&documents->files);
    free(documents);
}

/* ---- cutting
 * -------------------------------------------------------------------------------------- */

static bool is_gap(char c) {
    return c == ' ' || c == '\n' || c == '\t';
}

/* Where each token ends, as the chunker asks for it; without a tokenizer, each word. The text
 * ends with its length, not with a NUL. */
static bool token_ends(void *context, const char *text, size_t length, size_t **ends, size_t *count,
                       Error *err) {
    const TextTokenizer *tokenizer = context;
    *count = 0;
    *ends = base_try_alloc(length + 1, sizeof **ends, err);
    if (!*ends) return false;
    if (!tokenizer) {
        for (size_t at = 0; at < length; at++)
            if (!is_gap(text[at]) && (at + 1 == length || is_gap(text[at + 1])))
                (*ends)[(*count)++] = at + 1;
        return true;
    }
    TextEncoding encoding = {0};
    bool ok =
        text_tokenizer_encode_spans(tokenizer, text, length, TEXT_ENCODE_PLAIN, &encoding, err);
    size_t last = 0;
    for (size_t i = 0; ok && i < encoding.length && i <= length; i++) {
        last = BASE_MAX(last, BASE_MIN(encoding.spans[i].end, length));
        (*ends)[(*count)++] = last;
    }
    text_encoding_free(&encoding);
    if (ok) return true;
    free(*ends);
    *ends = NULL;
    return false;
}

/* Puts what a name stands for in its place. */
static char *fill_prompt(const char *prompt, const char *title, const char *heading,
                         const char *file) {
    const struct {
        const char *name, *value;
    } names[] = {{"{title}", title}, {"{heading}", heading}, {"{file}", file}};
    StrBuf out = {0};
    for (const char *at = prompt; *at;) {
        size_t i = 0;
        while (i < BASE_COUNT(names) && !base_starts_with(at, names[i].name)) i++;
        if (i < BASE_COUNT(names)) {
            base_str_append(&out, names[i].value);
            at += strlen(names[i].name);
        } else {
            base_str_append_char(&out, *at++);
        }
    }
    return base_str_detach(&out);
}

static void emit_json(DxEmit *emit, json_t *record, int64_t file) {
    char *text = json_dumps(record, JSON_COMPACT);
    json_decref(record);
    if (!text) return;
    DxSample *part = dx_sample_new();
    put_text(&part, "json", text, strlen(text));
    dx_sample_put(&part, dx_key("file"), dx_array_int(file));
    dx_emit(emit, part);
    free(text);
}

static json_t *record_of(const Documents *documents, const RagChunk *chunk, const char *title,
                         const char *text, size_t length, const char *file) {
    if (!documents->options.prompt) return json_pack("{s:o}", "text", output_string(text, length));
    const char *heading = *chunk->heading ? chunk->heading : title;
    char *prompt = fill_prompt(documents->options.prompt, title, heading, base_path_name(file));
    json_t *record = json_pack("{s:o,s:o}", "prompt", output_string(prompt, strlen(prompt)),
                               "completion", output_string(text, length));
    free(prompt);
    return record;
}

static DxStatus cut(void *self, const DxSample *sample, DxRandom *random, DxEmit *emit,
                    Error *err) {
    (void)random;
    Documents *documents = self;
    const DxArray *text = dx_sample_get(sample, dx_key("text"));
    int64_t file = dx_array_int_at(dx_sample_get(sample, dx_key("file")), 0);
    if (!text) {
        dx_emit(emit, dx_sample_retain((DxSample *)(uintptr_t)sample));
        return DX_OK;
    }
    const DocumentsOptions *options = &documents->options;
    const DxArray *title_text = dx_sample_get(sample, dx_key("title"));
    const DxArray *blocks = dx_sample_get(sample, dx_key("blocks"));
    const char *path = documents->files.items[file].path;
    char *title = title_text->bytes ? base_strndup(title_text->data, title_text->bytes)
                                    : base_strdup(base_path_name(path));
    RagDocument document = {.title = title,
                            .text = {(char *)text->data, text->bytes, 0},
                            .blocks = blocks->data,
                            .n_blocks = blocks->bytes / sizeof(RagBlock)};
    RagEmbedder counter = {.context = (void *)(uintptr_t)options->tokenizer,
                           .dim = 1,
                           .max_tokens = options->max_tokens,
                           .token_ends = token_ends};
    RagChunks chunks = {0};
    bool ok = rag_chunk_document(&document, &counter, options->max_tokens, &chunks, err);
    for (size_t i = 0; ok && i < chunks.count; i++) {
        const RagChunk *chunk = &chunks.items[i];
        if (chunk->n_tokens < options->min_tokens) {
            atomic_fetch_add(&documents->n_short, 1);
            continue;
        }
        const char *slice = (const char *)text->data + chunk->start;
        size_t length = chunk->end - chunk->start;
        emit_json(emit, record_of(documents, chunk, title, slice, length, path), file);
    }
    rag_chunks_free(&chunks);
    free(title);
    return ok ? DX_OK : DX_FAIL;
}

/* ---- hashing
 * ---------------------------------------------------------------------------------------- */

/* All that is text in a record. */
static void collect_text(const json_t *value, StrBuf *out) {
    json_t *object = (json_t *)(uintptr_t)value; /* jansson walks what it could change */
    if (json_is_string(value)) {
        base_str_append_n(out, json_string_value(value), json_string_length(value));
        base_str_append_char(out, '\n');
    } else if (json_is_number(value)) {
        base_str_appendf(out, "%.17g ", json_number_value(value));
    }
    for (void *at = json_object_iter(object); at; at = json_object_iter_next(object, at))
        collect_text(json_object_iter_value(at), out);
    for (size_t i = 0; i < json_array_size(value); i++) collect_text(json_array_get(value, i), out);
}

static DxStatus hash(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)self;
    (void)random;
    const DxArray *text = dx_sample_get(*sample, dx_key("json"));
    if (!text) return DX_OK; /* a note */
    Error wrong = {0};
    json_t *record = base_json_parse(text->data, text->bytes, "JSON", &wrong);
    if (record && !json_is_object(record)) base_fail(&wrong, ERROR_INPUT, "is no JSON object");
    if (wrong.code != ERROR_NONE) {
        const DxArray *where = dx_sample_get(*sample, dx_key("where"));
        char *place = base_strndup(where->data, where->bytes);
        json_decref(record);
        dx_sample_remove(sample, dx_key("json"));
        put_note(sample, place, wrong.message);
        free(place);
        return DX_OK;
    }
    StrBuf words = {0};
    DxSketch sketch;
    base_str_append(&words, "");
    collect_text(record, &words);
    dx_sketch(words.data, words.length, &sketch);
    base_str_free(&words);
    json_decref(record);
    DxArray *bytes = dx_array_bytes(&sketch, sizeof sketch, err);
    dx_sample_put(sample, dx_key("sketch"), bytes);
    return bytes ? DX_OK : DX_FAIL;
}

DxStream *documents_stream(const DocumentsOptions *options, DocumentsReport *report, Error *err) {
    Documents *documents = base_calloc(1, sizeof *documents);
    documents->options = *options;
    documents->report = report;
    if (!rag_walk(options->paths, options->n_paths, NULL, &documents->files, err)) {
        free_documents(documents);
        return NULL;
    }
    report->n_files = documents->files.count;
    DxStreamCallback source = {
        .name = "documents", .next = next_document, .destroy = free_documents};
    DxStream *stream = dx_stream_callback(&source, documents, err);
    stream = dx_flat_map(stream, &(DxExpand){.name = "cut", .expand = cut}, documents, err);
    stream = dx_map(stream, &(DxOp){.name = "record", .apply = hash}, NULL, err);
    return dx_parallel(stream, &(DxParallelOptions){0}, err);
}
