/* A bank as arrays: mlx-RAG's vdb.npz, and safetensors with the same names.
 *
 * Offsets are running sums of the lengths. (mlx-RAG's own reader takes the
 * length before for the offset, so that it shows other text; its files are
 * sound.) Integers may have 32 or 64 bits. */
#include <math.h>
#include <string.h>
#include <time.h>

#include "mx/mx.h"
#include "rag/bank.h"
#include "rag/show.h"

enum {
    EMBEDDINGS,
    CHUNK_DATA,
    CHUNK_LENGTHS,
    SOURCE_DATA,
    SOURCE_LENGTHS,
    META_DATA,
    META_LENGTHS
};
static const char *const names[] = {"embeddings",      "chunk_data",     "chunk_lengths",
                                    "source_data",     "source_lengths", "metadata_data",
                                    "metadata_lengths"};
#define N_ARRAYS BASE_COUNT(names)

/* ---- reading ------------------------------------------------------------------ */

typedef struct Arrays {
    mlx_array items[N_ARRAYS];
} Arrays;

static void take_array(void *context, const char *name, mlx_array array) {
    Arrays *arrays = context;
    for (size_t i = 0; i < N_ARRAYS; i++)
        if (strcmp(names[i], name) == 0) mx_store(&arrays->items[i], array);
}

/* [n] whole numbers of 32 or 64 bits as int64; caller frees; NULL on failure. */
static int64_t *numbers(const char *path, mlx_array array, const char *name, size_t *count,
                        Error *err) {
    mlx_dtype dtype = mx_dtype(array);
    bool wide = dtype == MLX_INT64 || dtype == MLX_UINT64;
    if (mx_ndim(array) != 1 || (!wide && dtype != MLX_INT32 && dtype != MLX_UINT32)) {
        base_fail(err, ERROR_INPUT, "%s: %s is %s, not a list of whole numbers", path, name,
                  mx_describe(array));
        return NULL;
    }
    *count = mx_size(array);
    int64_t *out = base_try_alloc(*count + 1, sizeof *out, err);
    const void *data = out && *count ? mx_data(array) : NULL;
    if (out && *count && !data) {
        mx_check(err);
        free(out);
        return NULL;
    }
    for (size_t i = 0; out && i < *count; i++)
        out[i] = wide                  ? ((const int64_t *)data)[i]
                 : dtype == MLX_UINT32 ? (int64_t)((const uint32_t *)data)[i]
                                       : (int64_t)((const int32_t *)data)[i];
    return out;
}

/* The n texts of one kind; caller frees each and the list; NULL on failure. */
static char **texts_of(const char *path, const Arrays *arrays, int data, int lengths, size_t n,
                       Error *err) {
    size_t n_points = 0, n_lengths = 0, at = 0;
    int64_t *points = numbers(path, arrays->items[data], names[data], &n_points, err);
    int64_t *sizes =
        points ? numbers(path, arrays->items[lengths], names[lengths], &n_lengths, err) : NULL;
    bool ok = sizes != NULL;
    if (ok && n_lengths != n)
        ok = base_fail(err, ERROR_INPUT, "%s: %zu embeddings but %zu %s", path, n, n_lengths,
                       names[lengths]);
    char **texts = ok ? base_try_alloc(n + 1, sizeof *texts, err) : NULL;
    ok = texts != NULL;
    size_t made = 0;
    for (size_t i = 0; ok && i < n; i++) {
        if (sizes[i] < 0 || (uint64_t)sizes[i] > n_points - at) {
            ok = base_fail(err, ERROR_INPUT, "%s: %s[%zu] reaches past the end of %s", path,
                           names[lengths], i, names[data]);
            break;
        }
        StrBuf text = {0};
        for (size_t end = at + (size_t)sizes[i]; ok && at < end; at++) {
            int64_t point = points[at];
            if (point < 0 || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000))
                ok = base_fail(err, ERROR_INPUT, "%s: %s[%zu] is %lld, not a character", path,
                               names[data], at, (long long)point);
            else if (point)
                base_str_append_codepoint(&text, (uint32_t)point);
        }
        texts[made++] = base_str_detach(&text);
    }
    if (ok && at != n_points)
        ok = base_fail(err, ERROR_INPUT, "%s: %s has %zu characters more than %s counts", path,
                       names[data], n_points - at, names[lengths]);
    for (size_t i = 0; !ok && i < made; i++) free(texts[i]);
    if (!ok) free(texts);
    free(points);
    free(sizes);
    return ok ? texts : NULL;
}

static void set_metadata(RagBankChunk *chunk, const char *text) {
    Error ignored = {0};
    json_t *object = text ? base_json_parse(text, strlen(text), "metadata", &ignored) : NULL;
    rag_bank_set_metadata(chunk, object);
    if (object) json_decref(object);
}

static bool take_embeddings(const char *path, const Arrays *arrays, RagBank *bank, Error *err) {
    mlx_array array = arrays->items[EMBEDDINGS];
    if (mx_ndim(array) != 2 || !mx_is_float(mx_dtype(array)) || mx_dim(array, 1) < 1 ||
        mx_dim(array, 1) > 8192)
        return base_fail(err, ERROR_INPUT, "%s: embeddings is %s, not float[n, dim]", path,
                         mx_describe(array));
    bank->dim = (size_t)mx_dim(array, 1);
    bank->vectors_capacity = (size_t)mx_dim(array, 0);
    bank->vectors = base_try_alloc(mx_size(array) + 1, sizeof(float), err);
    if (!bank->vectors) return false;
    return !mx_size(array) || mx_copy_f32(array, bank->vectors, mx_size(array)) || mx_check(err);
}

static bool take_bank(const char *path, const Arrays *arrays, RagBank *bank, Error *err) {
    for (int i = EMBEDDINGS; i <= SOURCE_LENGTHS; i++)
        if (mx_empty(arrays->items[i]))
            return base_fail(err, ERROR_INPUT, "%s: %s is not in it", path, names[i]);
    if (!take_embeddings(path, arrays, bank, err)) return false;
    size_t n = bank->vectors_capacity;
    bool described = !mx_empty(arrays->items[META_DATA]) && !mx_empty(arrays->items[META_LENGTHS]);
    char **chunks = texts_of(path, arrays, CHUNK_DATA, CHUNK_LENGTHS, n, err);
    char **sources = chunks ? texts_of(path, arrays, SOURCE_DATA, SOURCE_LENGTHS, n, err) : NULL;
    char **metadata =
        sources && described ? texts_of(path, arrays, META_DATA, META_LENGTHS, n, err) : NULL;
    bool ok = sources && (metadata || !described);
    bank->chunks = ok ? base_calloc(n + 1, sizeof *bank->chunks) : NULL;
    for (size_t i = 0; i < n; i++) {
        if (ok) {
            RagBankChunk *chunk = &bank->chunks[bank->count++];
            chunk->text = rag_clean(chunks[i]);
            chunk->source = base_strdup(*sources[i] ? sources[i] : "unknown");
            set_metadata(chunk, metadata ? metadata[i] : NULL);
        }
        if (chunks) free(chunks[i]);
        if (sources) free(sources[i]);
        if (metadata) free(metadata[i]);
    }
    free(chunks), free(sources), free(metadata);
    return ok;
}

static char *meta_path(const char *path) {
    return base_format("%s.meta.json", path);
}

/* Who made the vectors: ours say so exactly, mlx-RAG's all say the same name. */
static bool take_meta(const char *path, RagBank *bank, Error *err) {
    char *meta = meta_path(path);
    bool ok = true;
    if (base_is_file(meta)) {
        json_t *object = base_json_load(meta, err);
        ok = object != NULL;
        const struct {
            const char *key;
            char **to;
        } texts[] = {{"embedding_model", &bank->embedder_name},
                     {"embedding_hash", &bank->embedder_hash},
                     {"embedding_pooling", &bank->pooling}};
        for (size_t i = 0; ok && i < BASE_COUNT(texts); i++) {
            const char *text = json_string_value(json_object_get(object, texts[i].key));
            *texts[i].to = text ? base_strdup(text) : NULL;
        }
        if (object) json_decref(object);
    }
    free(meta);
    return ok;
}

bool rag_bank_load_tensors(const char *path, RagBank *bank, Error *err) {
    *bank = (RagBank){0};
    Arrays arrays = {0};
    MxFileVisitor visitor = {.tensor = take_array, .context = &arrays};
    mx_scope scope = mx_open();
    bool ok = base_ends_with(path, ".safetensors") ? mx_load_safetensors(path, visitor, err)
                                                   : mx_load_npz(path, visitor, err);
    ok = ok && take_bank(path, &arrays, bank, err) && take_meta(path, bank, err);
    for (size_t i = 0; i < N_ARRAYS; i++) mx_free(&arrays.items[i]);
    mx_drop(scope);
    if (!ok) rag_bank_free(bank);
    return ok;
}

/* ---- writing ------------------------------------------------------------------- */

typedef struct Points {
    int32_t *items, *lengths;
    size_t count, capacity;
} Points;

static void add_text(Points *points, size_t i, const char *text) {
    size_t length = strlen(text), before = points->count;
    for (size_t at = 0; at < length;) {
        uint32_t point = 0;
        at += base_utf8_decode(text + at, length - at, &point, NULL);
        points->items =
            base_grow(points->items, &points->capacity, points->count + 1, sizeof *points->items);
        points->items[points->count++] = (int32_t)point;
    }
    points->lengths[i] = (int32_t)(points->count - before);
}

static Points points_of(const RagBank *bank, int kind) {
    Points points = {.lengths = base_calloc(bank->count + 1, sizeof(int32_t))};
    for (size_t i = 0; i < bank->count; i++) {
        const RagBankChunk *chunk = &bank->chunks[i];
        if (kind == META_DATA) {
            json_t *object = rag_bank_metadata(chunk);
            char *text = json_dumps(object, JSON_COMPACT);
            add_text(&points, i, text ? text : "{}");
            free(text);
            json_decref(object);
        } else {
            add_text(&points, i, kind == CHUNK_DATA ? chunk->text : chunk->source);
        }
    }
    return points;
}

static json_t *meta_of(const char *path, const RagBank *bank) {
    char now[32];
    time_t seconds = time(NULL);
    struct tm utc;
    strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &utc));
    const char *name = base_path_name(path), *dot = strrchr(name, '.');
    json_t *documents = json_array();
    const char *last = NULL;
    for (size_t i = 0; i < bank->count; i++) {
        const char *source = bank->chunks[i].source;
        if (last && strcmp(last, source) == 0) continue;
        const char *file = base_path_name(source);
        if (base_utf8_valid(file, strlen(file)))
            json_array_append_new(documents, json_string(file));
        last = source;
    }
    json_t *object = json_object();
    json_object_set_new(object, "bank",
                        json_stringn(name, dot ? (size_t)(dot - name) : strlen(name)));
    json_object_set_new(object, "index_path", json_string(path));
    json_object_set_new(object, "document_names", documents);
    json_object_set_new(object, "source_root", json_null());
    json_object_set_new(object, "chunk_size", json_null());
    json_object_set_new(object, "chunk_overlap", json_integer(0));
    json_object_set_new(object, "embedding_model", json_string(bank->embedder_name));
    json_object_set_new(object, "created_at", json_string(now));
    json_object_set_new(object, "embedding_hash", json_string(bank->embedder_hash));
    json_object_set_new(object, "embedding_pooling", json_string(bank->pooling));
    json_object_set_new(object, "embedding_dim", json_integer((json_int_t)bank->dim));
    return object;
}

static bool write_meta(const char *path, const RagBank *bank, Error *err) {
    char *meta = meta_path(path);
    json_t *object = meta_of(path, bank);
    char *text = json_dumps(object, JSON_INDENT(2));
    bool ok = text ? base_file_write(meta, text, strlen(text), err)
                   : base_fail(err, ERROR_INTERNAL, "%s: cannot be written as JSON", meta);
    free(text), free(meta);
    json_decref(object);
    return ok;
}

bool rag_bank_save_tensors(const char *path, const RagBank *bank, Error *err) {
    mx_scope scope = mx_open();
    mlx_array arrays[N_ARRAYS];
    arrays[EMBEDDINGS] = mx_from_f32(bank->vectors, MX_SHAPE((int)bank->count, (int)bank->dim));
    bool ok = true;
    for (int kind = CHUNK_DATA; kind < (int)N_ARRAYS; kind += 2) {
        Points points = points_of(bank, kind);
        if (points.count > INT32_MAX)
            ok = base_fail(err, ERROR_UNSUPPORTED, "%s: more than 2^31 characters", path);
        const int32_t none = 0;
        arrays[kind] =
            mx_from_i32(points.items ? points.items : &none, MX_SHAPE(ok ? (int)points.count : 0));
        arrays[kind + 1] = mx_from_i32(points.lengths, MX_SHAPE((int)bank->count));
        free(points.items), free(points.lengths);
    }
    ok = ok && mx_check(err);
    if (ok)
        ok = base_ends_with(path, ".safetensors")
                 ? mx_save_safetensors(path, names, arrays, N_ARRAYS, NULL, err)
                 : mx_save_npz(path, names, arrays, N_ARRAYS, false, err);
    mx_drop(scope);
    return ok && write_meta(path, bank, err);
}
