/* From an index to a bank and back; see bank.h. */
#include "rag/bank.h"

#include <math.h>
#include <string.h>

#include "rag/show.h"
#include "rag/store.h"

void rag_bank_free(RagBank *bank) {
    for (size_t i = 0; i < bank->count; i++) {
        RagBankChunk *c = &bank->chunks[i];
        free(c->text), free(c->source), free(c->title), free(c->heading), free(c->header);
        free(c->format);
    }
    free(bank->chunks), free(bank->vectors);
    free(bank->embedder_name), free(bank->embedder_hash), free(bank->pooling);
    *bank = (RagBank){0};
}

/* ---- metadata ------------------------------------------------------------- */

json_t *rag_bank_metadata(const RagBankChunk *chunk) {
    const struct {
        const char *key, *text;
    } texts[] = {{"title", chunk->title},
                 {"heading", chunk->heading},
                 {"header", chunk->header},
                 {"format", chunk->format}};
    json_t *object = json_object();
    for (size_t i = 0; i < BASE_COUNT(texts); i++)
        if (texts[i].text && *texts[i].text)
            json_object_set_new(object, texts[i].key, json_string(texts[i].text));
    if (chunk->page > 0) json_object_set_new(object, "page", json_integer(chunk->page));
    return object;
}

static char *text_of(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return value && json_is_string(value)
               ? rag_clean_line(json_string_value(value), json_string_length(value))
               : base_strdup("");
}

void rag_bank_set_metadata(RagBankChunk *chunk, const json_t *object) {
    chunk->title = text_of(object, "title");
    chunk->heading = text_of(object, "heading");
    chunk->format = text_of(object, "format");
    /* The head row of a table is a second line of it. */
    chunk->header = rag_clean(json_string_value(json_object_get(object, "header")));
    json_int_t page = json_integer_value(json_object_get(object, "page"));
    chunk->page = page > 0 && page < INT32_MAX ? (int)page : 0;
}

/* ---- from an index ---------------------------------------------------------- */

static bool take_document(void *context, const RagStored *stored, Error *err) {
    RagBank *bank = context;
    const RagDocument *document = &stored->document;
    size_t dim = bank->dim;
    for (size_t i = 0; i < stored->chunks.count; i++) {
        const RagChunk *chunk = &stored->chunks.items[i];
        size_t n = bank->count;
        bank->chunks = base_grow(bank->chunks, &bank->capacity, n + 1, sizeof *bank->chunks);
        bank->vectors =
            base_grow(bank->vectors, &bank->vectors_capacity, n + 1, dim * sizeof(float));
        memcpy(bank->vectors + n * dim, stored->vectors + i * dim, dim * sizeof(float));
        bank->chunks[bank->count++] = (RagBankChunk){
            .source = base_strdup(stored->path),
            .title = base_strdup(document->title ? document->title : ""),
            .format = base_strdup(document->format ? document->format : ""),
            .heading = base_strdup(chunk->heading),
            .header = base_strdup(chunk->header),
            .text = base_strndup(document->text.data + chunk->start, chunk->end - chunk->start),
            .page = chunk->page};
    }
    return !base_interrupted() || base_fail(err, ERROR_INTERRUPTED, "interrupted");
}

bool rag_bank_from_index(RagIndex *index, RagBank *bank, Error *err) {
    *bank = (RagBank){0};
    RagIndexInfo info;
    if (!rag_index_info(index, &info, err)) return false;
    bank->dim = info.dim;
    bank->embedder_name = base_strdup(info.embedder_name);
    bank->embedder_hash = base_strdup(info.embedder_hash);
    bank->pooling = base_strdup(info.pooling);
    bool ok = index->storage->each(index, take_document, bank, err);
    if (!ok) rag_bank_free(bank);
    return ok;
}

/* ---- into an index ----------------------------------------------------------- */

bool rag_bank_check(const RagBank *bank, const char *path, Error *err) {
    for (size_t i = 0; bank->vectors && i < bank->count; i++) {
        double sum = 0;
        for (size_t k = 0; k < bank->dim; k++) {
            double x = (double)bank->vectors[i * bank->dim + k];
            sum += x * x;
        }
        if (!isfinite(sum) || sum < 1e-12)
            return base_fail(err, ERROR_INPUT,
                             "%s: embedding %zu is zero, infinite or not a number", path, i);
    }
    return true;
}

/* Chunks by the first appearance of their source, in their order. */
typedef struct Placed {
    size_t chunk, first;
    const char *source;
} Placed;

static int by_source(const void *a, const void *b) {
    const Placed *x = a, *y = b;
    int order = strcmp(x->source, y->source);
    return order ? order : x->chunk < y->chunk ? -1 : x->chunk > y->chunk;
}

static int by_first(const void *a, const void *b) {
    const Placed *x = a, *y = b;
    if (x->first != y->first) return x->first < y->first ? -1 : 1;
    return x->chunk < y->chunk ? -1 : x->chunk > y->chunk;
}

static Placed *group(const RagBank *bank) {
    Placed *placed = base_calloc(bank->count + 1, sizeof *placed);
    for (size_t i = 0; i < bank->count; i++)
        placed[i] = (Placed){.chunk = i, .source = bank->chunks[i].source};
    qsort(placed, bank->count, sizeof *placed, by_source);
    for (size_t i = 0; i < bank->count; i++) {
        bool same = i && strcmp(placed[i - 1].source, placed[i].source) == 0;
        placed[i].first = same ? placed[i - 1].first : placed[i].chunk;
    }
    qsort(placed, bank->count, sizeof *placed, by_first);
    return placed;
}

static void unit_vector(const float *from, float *to, size_t dim) {
    double sum = 0;
    for (size_t i = 0; i < dim; i++) sum += (double)from[i] * (double)from[i];
    /* What is of unit length up to rounding stays bit for bit. */
    double factor = fabs(sum - 1) < 1e-5 ? 1 : 1 / sqrt(sum);
    for (size_t i = 0; i < dim; i++) to[i] = (float)((double)from[i] * factor);
}

/* The document of placed[0..n), its text the chunks one below the other. */
static bool put_document(const RagBank *bank, const Placed *placed, size_t n, RagIndex *index,
                         Error *err) {
    const RagBankChunk *first = &bank->chunks[placed[0].chunk];
    RagDocument document = {.format = rag_format_name(rag_format_named(first->format))};
    rag_document_set_title(&document, first->title, strlen(first->title));
    if (!document.title)
        rag_document_set_title(&document, base_path_name(first->source),
                               strlen(base_path_name(first->source)));
    base_str_append(&document.text, "");
    RagChunks chunks = {0};
    float *vectors = base_calloc(n * bank->dim, sizeof *vectors);
    for (size_t i = 0; i < n; i++) {
        const RagBankChunk *c = &bank->chunks[placed[i].chunk];
        if (i) base_str_append_char(&document.text, '\n');
        size_t start = document.text.length;
        rag_clean_append(&document.text, c->text, strlen(c->text));
        chunks.items = base_grow(chunks.items, &chunks.capacity, i + 1, sizeof *chunks.items);
        chunks.items[chunks.count++] = (RagChunk){.start = start,
                                                  .end = document.text.length,
                                                  .page = c->page,
                                                  .heading = base_strdup(c->heading),
                                                  .header = base_strdup(c->header)};
        document.n_pages = document.line_numbers ? 0 : BASE_MAX(document.n_pages, c->page);
        unit_vector(bank->vectors + placed[i].chunk * bank->dim, vectors + i * bank->dim,
                    bank->dim);
    }
    RagNewDocument new = {.path = first->source,
                          .root = first->source,
                          .document = &document,
                          .chunks = &chunks,
                          .vectors = vectors};
    bool ok = index->storage->put(index, &new, NULL, err);
    rag_document_free(&document);
    rag_chunks_free(&chunks);
    free(vectors);
    return ok;
}

bool rag_bank_into_index(const RagBank *bank, RagIndex *index, size_t *documents, Error *err) {
    *documents = 0;
    if (!bank->vectors || bank->dim != index->dim)
        return base_fail(err, ERROR_INPUT, "%s: holds vectors of %zu numbers, these have %zu",
                         index->path, index->dim, bank->vectors ? bank->dim : 0);
    Placed *placed = group(bank);
    bool ok = true;
    for (size_t i = 0, n; ok && i < bank->count; i += n) {
        for (n = 1; i + n < bank->count && placed[i + n].first == placed[i].first; n++) {
        }
        if (base_interrupted())
            ok = base_fail(err, ERROR_INTERRUPTED, "interrupted; what was stored stays");
        ok = ok && put_document(bank, placed + i, n, index, err);
        *documents += ok;
    }
    free(placed);
    return ok;
}

#define EMBED_CHUNKS 64

bool rag_bank_embed(RagBank *bank, const RagEmbedder *embedder, Error *err) {
    free(bank->vectors);
    bank->dim = embedder->dim;
    bank->vectors = base_calloc((bank->count + 1) * bank->dim, sizeof *bank->vectors);
    bool ok = true;
    for (size_t i = 0; ok && i < bank->count; i += EMBED_CHUNKS) {
        size_t n = BASE_MIN((size_t)EMBED_CHUNKS, bank->count - i);
        char *texts[EMBED_CHUNKS];
        for (size_t k = 0; k < n; k++) {
            const RagBankChunk *c = &bank->chunks[i + k];
            texts[k] = base_format("%s%s%s", c->header, *c->header ? "\n" : "", c->text);
        }
        if (base_interrupted()) ok = base_fail(err, ERROR_INTERRUPTED, "interrupted");
        ok = ok && embedder->embed(embedder->context, (const char *const *)texts, n, RAG_PASSAGE,
                                   bank->vectors + i * bank->dim, err);
        for (size_t k = 0; k < n; k++) free(texts[k]);
    }
    return ok;
}
