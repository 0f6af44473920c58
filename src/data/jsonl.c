/* Lines of JSON by index. The file is mapped (a packed one is unpacked into memory), one
 * pass finds where its lines begin, and a line is parsed when it is asked for. The index may be
 * kept in a file of its own, which counts as long as the data file has the same size and time. */
#include "data/buffer.h"
#include "data/input.h"
#include "data/json.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const size_t most_unpacked = (size_t)8 << 30;

typedef struct JsonlBuffer {
    DxBuffer base;
    char *path;
    MappedFile map;
    StrBuf unpacked;     /* of a packed file, instead of the map */
    const uint8_t *data; /* its lines */
    size_t length;
    uint64_t *starts; /* of each record; it ends where the next begins */
    int64_t mtime_ns;
    bool whole; /* no fields: the line as it stands */
    JsonFields fields;
    StrBuf identity;
} JsonlBuffer;

static bool is_space(uint8_t byte) {
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

/* ---- the index --------------------------------------------------------------------- */

static bool find_lines(JsonlBuffer *jsonl, Error *err) {
    const uint8_t *data = jsonl->data;
    size_t length = jsonl->length, capacity = 0, count = 0, at = 0;
    if (length >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0) at = 3;
    while (at < length) {
        const uint8_t *end = memchr(data + at, '\n', length - at);
        size_t stop = end ? (size_t)(end - data) : length, first = at;
        while (first < stop && is_space(data[first])) first++;
        if (first < stop) {
            if (count == capacity) {
                size_t more = BASE_MAX(capacity * 2, length / 200 + 64);
                uint64_t *grown = base_try_alloc(more, sizeof *grown, err);
                if (!grown) return false;
                if (count) memcpy(grown, jsonl->starts, count * sizeof *grown);
                free(jsonl->starts);
                jsonl->starts = grown;
                capacity = more;
            }
            jsonl->starts[count++] = first;
        }
        at = stop + 1;
    }
    jsonl->base.count = (int64_t)count;
    return true;
}

typedef struct IndexHead {
    char magic[8];
    uint64_t size, mtime_ns, count, hash; /* hash: of the starts */
} IndexHead;
static const char index_magic[8] = "DXINDEX1";

/* Takes the index of a former run; false, and nothing taken, when it is of another
 * state of the file, or damaged. */
static bool load_index(JsonlBuffer *jsonl, const char *path) {
    MappedFile map = {0};
    IndexHead head = {0};
    if (!base_is_file(path) || !base_map_open(path, &map, NULL)) return false;
    bool good = map.length >= sizeof head;
    if (good) memcpy(&head, map.data, sizeof head);
    good = good && memcmp(head.magic, index_magic, sizeof head.magic) == 0 &&
           head.size == jsonl->length && head.mtime_ns == (uint64_t)jsonl->mtime_ns &&
           head.count == (map.length - sizeof head) / sizeof(uint64_t) &&
           map.length == sizeof head + head.count * sizeof(uint64_t) &&
           head.hash == base_hash(map.data + sizeof head, map.length - sizeof head);
    if (good) {
        size_t bytes = map.length - sizeof head;
        uint64_t *starts = base_alloc(bytes ? bytes : 1), last = 0;
        memcpy(starts, map.data + sizeof head, bytes);
        for (uint64_t i = 0; good && i < head.count; i++) {
            good = starts[i] < head.size && (i == 0 || starts[i] > last);
            last = starts[i];
        }
        if (good) {
            jsonl->starts = starts;
            jsonl->base.count = (int64_t)head.count;
        } else {
            free(starts);
        }
    }
    base_map_close(&map);
    return good;
}

static bool save_index(const JsonlBuffer *jsonl, const char *path, Error *err) {
    IndexHead head = {.size = jsonl->length,
                      .mtime_ns = (uint64_t)jsonl->mtime_ns,
                      .count = (uint64_t)jsonl->base.count};
    size_t bytes = (size_t)head.count * sizeof(uint64_t);
    memcpy(head.magic, index_magic, sizeof head.magic);
    head.hash = base_hash(jsonl->starts ? (const void *)jsonl->starts : "", bytes);
    AtomicFile *file = base_atomic_open(path, err);
    if (!file) return false;
    if (!base_atomic_write(file, &head, sizeof head, err) ||
        (bytes && !base_atomic_write(file, jsonl->starts, bytes, err))) {
        base_atomic_abort(file);
        return false;
    }
    return base_atomic_commit(file, err);
}

/* ---- records ------------------------------------------------------------------------ */

static void jsonl_where(const DxBuffer *buffer, const DxRecord *record, StrBuf *text) {
    const JsonlBuffer *jsonl = (const JsonlBuffer *)buffer;
    if (record->ordinal >= (uint64_t)buffer->count) return;
    const uint8_t *at = jsonl->data, *end = at + jsonl->starts[record->ordinal];
    uint64_t line = 1;
    for (; (at = memchr(at, '\n', (size_t)(end - at))) != NULL; at++) line++;
    base_str_appendf(text, "%s: line %llu", jsonl->path, (unsigned long long)line);
}

static DxStatus fail(const JsonlBuffer *jsonl, const DxRecord *record, size_t column, Error *err) {
    StrBuf text = {0};
    jsonl_where(&jsonl->base, record, &text);
    if (column)
        base_error_context(err, "%s, column %zu (byte %llu)", text.data, column,
                           (unsigned long long)(jsonl->starts[record->ordinal] + column - 1));
    else
        base_error_context(err, "%s", text.data);
    base_str_free(&text);
    return DX_FAIL;
}

static DxStatus jsonl_get(const DxBuffer *buffer, uint64_t epoch, int64_t index, DxSample **sample,
                          Error *err) {
    const JsonlBuffer *jsonl = (const JsonlBuffer *)buffer;
    const DxRecord record = {.epoch = epoch, .ordinal = (uint64_t)index};
    uint64_t start = jsonl->starts[index];
    uint64_t end = index + 1 < buffer->count ? jsonl->starts[index + 1] : jsonl->length;
    const char *text = (const char *)jsonl->data + start;
    size_t length = (size_t)(end - start), column = 0;
    while (length && is_space((uint8_t)text[length - 1])) length--;
    *sample = dx_sample_new();
    dx_sample_set_record(sample, record);
    bool ok;
    if (jsonl->whole) {
        DxArray *line = dx_array_text(text, length, err);
        ok = line != NULL;
        dx_sample_put(sample, jsonl->fields.keys[0], line);
    } else {
        ok = dx_json_scan(text, length, &jsonl->fields, sample, &column, err);
    }
    if (ok) return DX_OK;
    dx_sample_free(*sample);
    *sample = NULL;
    return fail(jsonl, &record, column, err);
}

static void jsonl_options(const DxBuffer *buffer, StrBuf *text) {
    const JsonlBuffer *jsonl = (const JsonlBuffer *)buffer;
    base_str_append_n(text, jsonl->identity.data, jsonl->identity.length);
}

static void jsonl_free(DxBuffer *buffer) {
    JsonlBuffer *jsonl = (JsonlBuffer *)buffer;
    if (jsonl->map.data) base_map_close(&jsonl->map);
    base_str_free(&jsonl->unpacked);
    free(jsonl->path);
    free(jsonl->starts);
    dx_json_fields_free(&jsonl->fields);
    base_str_free(&jsonl->identity);
}

static const DxBufferKind jsonl_kind = {"jsonl", jsonl_get, jsonl_options, jsonl_where, jsonl_free};

static bool unpack(JsonlBuffer *jsonl, Error *err) {
    DxInput *input = dx_input_memory(jsonl->path, jsonl->map.data, jsonl->map.length, err);
    bool ok = true;
    if (dx_input_packed(input)) {
        ok = dx_input_rest(input, most_unpacked, &jsonl->unpacked, err);
        jsonl->data = (const uint8_t *)jsonl->unpacked.data;
        jsonl->length = jsonl->unpacked.length;
    } else {
        jsonl->data = jsonl->map.data;
        jsonl->length = jsonl->map.length;
    }
    dx_input_free(input);
    if (ok && jsonl->unpacked.data) base_map_close(&jsonl->map);
    return ok;
}

static bool open_file(JsonlBuffer *jsonl, const DxJsonlOptions *options, Error *err) {
    struct stat about;
    if (base_is_dir(options->path))
        return base_fail(err, ERROR_IO, "%s: is a folder, a file of JSON lines was expected",
                         options->path);
    if (!base_map_open(options->path, &jsonl->map, err) || !unpack(jsonl, err)) return false;
    if (stat(options->path, &about) == 0)
        jsonl->mtime_ns = about.st_mtim.tv_sec * INT64_C(1000000000) + about.st_mtim.tv_nsec;
    if (options->index && load_index(jsonl, options->index)) return true;
    return find_lines(jsonl, err) && (!options->index || save_index(jsonl, options->index, err));
}

/* The file by its name, not by its folder, so that a data set may be moved. */
static void set_identity(JsonlBuffer *jsonl, const DxJsonlOptions *options) {
    base_str_appendf(&jsonl->identity, "%s, %zu bytes, time %lld", base_path_name(options->path),
                     jsonl->length, (long long)jsonl->mtime_ns);
    for (size_t i = 0; i < options->n_fields; i++)
        base_str_appendf(&jsonl->identity, ", %s as %s", options->fields[i],
                         jsonl->fields.keys[i].name);
    if (options->optional) base_str_append(&jsonl->identity, ", optional");
}

DxBuffer *dx_jsonl(const DxJsonlOptions *options, Error *err) {
    static const char *const whole[] = {"json"};
    JsonlBuffer *jsonl = dx_buffer_node(&jsonl_kind, sizeof *jsonl, NULL, 0);
    jsonl->path = base_strdup(options->path);
    jsonl->whole = options->n_fields == 0;
    bool ok = dx_json_fields(jsonl->whole ? whole : options->fields, options->keys,
                             jsonl->whole ? 1 : options->n_fields, options->optional,
                             &jsonl->fields, err) &&
              open_file(jsonl, options, err);
    if (!ok) {
        dx_buffer_free(&jsonl->base);
        return NULL;
    }
    set_identity(jsonl, options);
    return &jsonl->base;
}
