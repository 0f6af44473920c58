/* The stream of an ingest; see ingest_stream.h. A sample carries a file's path and, once
 * it is read, its text; what else is known of it hangs on the path's array. Behind the
 * threads documents are gathered until their chunks fill a batch, which is embedded. */
#include "rag/ingest_stream.h"

#include <math.h>
#include <string.h>

#define BATCH_CHUNKS 128             /* embedded together, over several documents */
#define BATCH_FILES 256              /* of which many may have no chunks */
#define EMBED_CHUNKS 64              /* given to the embedder at once */
#define MAX_BYTES ((size_t)64 << 20) /* of texts read ahead */

typedef struct Plan {
    RagIndex *index;
    const RagEmbedder *embedder;
    const RagEntry *entries;
    const RagIngestOptions *options;
    int64_t settings;
    size_t n_embedded; /* so far */
} Plan;

/* ---- files, text, chunks ------------------------------------------------------ */

static void free_reading(void *context) {
    rag_reading_free(context);
}

/* The array wraps the path; the reading goes with it. */
static RagReading *reading_of(const DxSample *sample) {
    return dx_sample_get(sample, dx_key("path"))->context;
}

static DxStatus give_file(void *self, uint64_t epoch, int64_t index, DxSample **sample,
                          Error *err) {
    const Plan *plan = self;
    (void)epoch;
    RagReading *reading = rag_reading_new(&plan->entries[index], plan->settings);
    const char *path = reading->entry->found->path;
    const int64_t shape[] = {(int64_t)strlen(path)};
    DxArray *array = dx_array_wrap(DX_U8, 1, shape, path, free_reading, reading, err);
    if (!array) {
        rag_reading_free(reading);
        return DX_FAIL;
    }
    dx_sample_put(sample, dx_key("path"), array);
    return DX_OK;
}

static DxStatus read_file(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)self, (void)random;
    RagReading *reading = reading_of(*sample);
    rag_reading_read(reading);
    const StrBuf *text = &reading->document.text;
    if (!text->length) return DX_OK;
    /* Owned by the reading, as long as the sample. */
    const int64_t shape[] = {(int64_t)text->length};
    DxArray *array = dx_array_wrap(DX_TEXT, 1, shape, text->data, NULL, NULL, err);
    if (!array) return DX_FAIL;
    dx_sample_put(sample, dx_key("text"), array);
    return DX_OK;
}

static DxStatus cut_text(void *self, DxSample **sample, DxRandom *random, Error *err) {
    const Plan *plan = self;
    (void)random, (void)err;
    rag_reading_chunk(reading_of(*sample), plan->embedder, plan->options->chunk_tokens);
    return DX_OK;
}

/* ---- batches ---------------------------------------------------------------------- */

static void free_batch(void *context) {
    RagBatch *batch = context;
    for (size_t i = 0; i < batch->n_documents; i++) dx_sample_free(batch->samples[i]);
    free(batch->samples);
    free(batch->readings);
    free(batch->vectors);
    free(batch);
}

RagBatch *rag_ingest_batch(const DxSample *sample) {
    return dx_sample_get(sample, dx_key("batch"))->context;
}

static void add_document(RagBatch *batch, DxSample *sample) {
    size_t capacity = batch->capacity;
    batch->samples =
        base_grow(batch->samples, &capacity, batch->n_documents + 1, sizeof *batch->samples);
    batch->readings = base_grow(batch->readings, &batch->capacity, batch->n_documents + 1,
                                sizeof *batch->readings);
    batch->samples[batch->n_documents] = sample;
    batch->readings[batch->n_documents++] = reading_of(sample);
    batch->n_chunks += reading_of(sample)->chunks.count;
}

static bool is_full(const RagBatch *batch) {
    return batch->n_chunks >= BATCH_CHUNKS || batch->n_documents >= BATCH_FILES ||
           batch->error.code;
}

/* Documents from the stream `self` until they fill a batch. */
static DxStatus gather(void *self, DxSample **sample, Error *err) {
    RagBatch *batch = base_calloc(1, sizeof *batch);
    DxStatus status = DX_OK;
    for (DxSample *document; !is_full(batch) && status == DX_OK;) {
        status = dx_next(self, &document, err);
        if (status != DX_OK) break;
        add_document(batch, document);
        batch->error = reading_of(document)->error;
    }
    if (status == DX_FAIL || !batch->n_documents) {
        free_batch(batch);
        return status == DX_OK ? DX_END : status;
    }
    const int64_t shape[] = {(int64_t)(batch->n_documents * sizeof *batch->readings)};
    DxArray *array = dx_array_wrap(DX_U8, 1, shape, batch->readings, free_batch, batch, err);
    if (!array) {
        free_batch(batch);
        return DX_FAIL;
    }
    dx_sample_put(sample, dx_key("batch"), array);
    return DX_OK;
}

static void free_upstream(void *self) {
    dx_stream_free(self);
}

/* ---- embeddings ----------------------------------------------------------------------- */

typedef struct Missing {
    char *text; /* header, newline, slice */
    float *to;
} Missing;

/* Long texts together: the embedder pads a batch to its longest. */
static int by_length(const void *a, const void *b) {
    size_t left = strlen(((const Missing *)a)->text), right = strlen(((const Missing *)b)->text);
    return left < right ? -1 : left > right;
}

static bool usable(const float *vector, size_t dim) {
    double sum = 0;
    for (size_t i = 0; i < dim; i++) sum += (double)vector[i] * (double)vector[i];
    return isfinite(sum) && sum > 1e-12;
}

/* The search takes dot products for cosines. */
static void normalise(float *vector, size_t dim) {
    double sum = 0;
    for (size_t i = 0; i < dim; i++) sum += (double)vector[i] * (double)vector[i];
    float factor = (float)(1.0 / sqrt(sum));
    for (size_t i = 0; i < dim; i++) vector[i] *= factor;
}

static bool embed_missing(Plan *plan, Missing *missing, size_t count, Error *err) {
    const RagEmbedder *embedder = plan->embedder;
    size_t dim = embedder->dim;
    float *rows = base_calloc(EMBED_CHUNKS * dim, sizeof *rows);
    const char *texts[EMBED_CHUNKS];
    bool ok = true;
    if (count) qsort(missing, count, sizeof *missing, by_length);
    for (size_t i = 0; ok && i < count; i += EMBED_CHUNKS) {
        size_t n = BASE_MIN((size_t)EMBED_CHUNKS, count - i);
        for (size_t k = 0; k < n; k++) texts[k] = missing[i + k].text;
        if (base_interrupted())
            ok = base_fail(err, ERROR_INTERRUPTED, "interrupted; what was stored stays");
        ok = ok && embedder->embed(embedder->context, texts, n, RAG_PASSAGE, rows, err);
        for (size_t k = 0; ok && k < n; k++) {
            float *row = rows + k * dim;
            if (!usable(row, dim)) {
                ok = base_fail(err, ERROR_INPUT,
                               "the embedder %s gives a vector of zeros or not-a-number",
                               embedder->name);
                break;
            }
            normalise(row, dim);
            memcpy(missing[i + k].to, row, dim * sizeof *row);
        }
        if (ok) plan->n_embedded += n;
        if (ok && plan->options->on_chunks)
            plan->options->on_chunks(plan->options->on_chunks_context, plan->n_embedded);
    }
    free(rows);
    return ok;
}

/* Known vectors from the index (a renamed file, an unchanged part), the others from
 * the embedder. */
static bool find_vectors(Plan *plan, RagBatch *batch, Error *err) {
    RagIndex *index = plan->index;
    Missing *missing = base_calloc(batch->n_chunks + 1, sizeof *missing);
    size_t n_missing = 0;
    float *to = batch->vectors;
    bool ok = true;
    for (size_t d = 0; ok && d < batch->n_documents; d++) {
        const RagReading *reading = batch->readings[d];
        for (size_t i = 0; ok && i < reading->chunks.count; i++, to += plan->embedder->dim) {
            const RagChunk *chunk = &reading->chunks.items[i];
            const char *text = reading->document.text.data + chunk->start;
            size_t length = chunk->end - chunk->start;
            bool found = false;
            if (!plan->options->force)
                ok = index->storage->reuse(index, chunk->header, text, length, to, &found, err);
            if (found || !ok) continue;
            StrBuf whole = {0};
            if (*chunk->header) base_str_appendf(&whole, "%s\n", chunk->header);
            base_str_append_n(&whole, text, length);
            missing[n_missing++] = (Missing){base_str_detach(&whole), to};
        }
    }
    ok = ok && embed_missing(plan, missing, n_missing, err);
    batch->n_embedded = n_missing;
    for (size_t i = 0; i < n_missing; i++) free(missing[i].text);
    free(missing);
    return ok;
}

static DxStatus embed_batch(void *self, DxSample **sample, DxRandom *random, Error *err) {
    Plan *plan = self;
    RagBatch *batch = rag_ingest_batch(*sample);
    (void)random, (void)err;
    double started = base_now();
    batch->vectors = base_calloc((batch->n_chunks + 1) * plan->embedder->dim, sizeof(float));
    if (!batch->error.code) find_vectors(plan, batch, &batch->error);
    batch->embed_seconds = base_now() - started;
    return DX_OK;
}

/* ---- the stream ---------------------------------------------------------------------- */

static void free_plan(void *self) {
    free(self);
}

DxStream *rag_ingest_stream(RagIndex *index, const RagEmbedder *embedder, const RagEntry *entries,
                            size_t n_entries, int64_t settings, const RagIngestOptions *options,
                            Error *err) {
    Plan *plan = base_calloc(1, sizeof *plan);
    *plan = (Plan){.index = index,
                   .embedder = embedder,
                   .entries = entries,
                   .options = options,
                   .settings = settings};
    const DxCallback files = {.name = "files", .count = (int64_t)n_entries, .get = give_file};
    const DxOp read = {.name = "read", .apply = read_file};
    const DxOp cut = {.name = "chunk", .apply = cut_text};
    const DxOp embed = {.name = "embed", .apply = embed_batch, .destroy = free_plan};
    DxStream *s = dx_buffer_stream(dx_buffer_callback(&files, plan, err), err);
    s = dx_map(s, &read, plan, err);
    s = dx_map(s, &cut, plan, err);
    s = dx_parallel(s, &(DxParallelOptions){.max_bytes = MAX_BYTES}, err);
    const DxStreamCallback batches = {.name = "batch", .next = gather, .destroy = free_upstream};
    if (s) s = dx_stream_callback(&batches, s, err);
    if (!s) {
        free(plan);
        return NULL;
    }
    return dx_map(s, &embed, plan, err);
}
