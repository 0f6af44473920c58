/* A bank as JSON lines, for programs that have neither NumPy nor safetensors. */
#include <math.h>
#include <string.h>

#include "rag/bank.h"
#include "rag/show.h"

static bool take_embedding(const char *place, const json_t *list, RagBank *bank, Error *err) {
    size_t dim = json_array_size(list);
    if (bank->count == 0) bank->dim = dim;
    if (dim != bank->dim || dim > 8192)
        return base_fail(err, ERROR_INPUT, "%s: an embedding of %zu numbers, the first has %zu",
                         place, dim, bank->dim);
    if (!dim) return true;
    bank->vectors = base_grow(bank->vectors, &bank->vectors_capacity, bank->count + 1,
                              dim * sizeof *bank->vectors);
    for (size_t i = 0; i < dim; i++) {
        const json_t *number = json_array_get(list, i);
        if (!json_is_number(number))
            return base_fail(err, ERROR_INPUT, "%s: embedding[%zu] is not a number", place, i);
        bank->vectors[bank->count * dim + i] = (float)json_number_value(number);
    }
    return true;
}

static bool take_line(const char *place, const json_t *object, RagBank *bank, Error *err) {
    const json_t *text = json_object_get(object, "text");
    const char *source = json_string_value(json_object_get(object, "source"));
    if (!text || !json_is_string(text))
        return base_fail(err, ERROR_INPUT, "%s: has no \"text\"", place);
    if (!take_embedding(place, json_object_get(object, "embedding"), bank, err)) return false;
    bank->chunks = base_grow(bank->chunks, &bank->capacity, bank->count + 1, sizeof *bank->chunks);
    RagBankChunk *chunk = &bank->chunks[bank->count++];
    *chunk = (RagBankChunk){.text = rag_clean(json_string_value(text)),
                            .source = base_strdup(source && *source ? source : "unknown")};
    rag_bank_set_metadata(chunk, object);
    return true;
}

bool rag_bank_load_jsonl(const char *path, RagBank *bank, Error *err) {
    *bank = (RagBank){0};
    MappedFile map;
    if (!base_map_open(path, &map, err)) return false;
    const char *data = (const char *)map.data;
    bool ok = true;
    for (size_t at = 0, line = 1; ok && at < map.length; line++) {
        const char *end = memchr(data + at, '\n', map.length - at);
        size_t length = end ? (size_t)(end - data) - at : map.length - at;
        char *place = base_format("%s:%zu", path, line);
        bool blank = true;
        for (size_t i = 0; i < length && blank; i++) blank = strchr(" \t\r", data[at + i]) != NULL;
        json_t *object = blank ? NULL : base_json_parse(data + at, length, place, err);
        ok = blank || (object && take_line(place, object, bank, err));
        if (object) json_decref(object);
        free(place);
        at += length + 1;
        if (ok && base_interrupted()) ok = base_fail(err, ERROR_INTERRUPTED, "interrupted");
    }
    base_map_close(&map);
    if (ok && !bank->count) ok = base_fail(err, ERROR_INPUT, "%s: no chunks in it", path);
    if (!ok) rag_bank_free(bank);
    return ok;
}

bool rag_bank_save_jsonl(const char *path, const RagBank *bank, Error *err) {
    AtomicFile *file = base_atomic_open(path, err);
    bool ok = file != NULL;
    for (size_t i = 0; ok && i < bank->count; i++) {
        const RagBankChunk *chunk = &bank->chunks[i];
        json_t *object = rag_bank_metadata(chunk), *list = json_array();
        json_object_set_new(object, "text", json_string(chunk->text));
        char *source = rag_clean(chunk->source); /* a name may hold any bytes */
        json_object_set_new(object, "source", json_string(source));
        free(source);
        for (size_t k = 0; k < bank->dim; k++)
            json_array_append_new(list, json_real((double)bank->vectors[i * bank->dim + k]));
        json_object_set_new(object, "embedding", list);
        /* 9 digits bring every float back. */
        char *line = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(9));
        ok = line && base_atomic_write(file, line, strlen(line), err) &&
             base_atomic_write(file, "\n", 1, err);
        free(line);
        json_decref(object);
        if (ok && base_interrupted()) ok = base_fail(err, ERROR_INTERRUPTED, "interrupted");
    }
    if (!ok) base_atomic_abort(file);
    return ok && base_atomic_commit(file, err);
}
