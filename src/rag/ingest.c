/* From paths to a current index: what did not change is left alone, what changed is
 * replaced, what is gone is removed. Documents come as a stream, embedded in batches
 * that may span several, and are stored each in a transaction, so a crash loses no more
 * than the batch in hand. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "rag/ingest_stream.h"

#define READER_VERSION 3 /* raise when readers or the chunker cut differently */

typedef struct Ingest {
    RagIndex *index;
    const RagEmbedder *embedder;
    const RagIngestOptions *options;
    RagIngestReport *report;
    size_t files_done, files_total;
    int64_t settings;
} Ingest;

static void note(Ingest *in, const char *path, RagFileStatus status, const char *reason) {
    RagIngestReport *report = in->report;
    size_t capacity = report->n_notes;
    report->notes = base_grow(report->notes, &capacity, report->n_notes + 1, sizeof *report->notes);
    report->notes[report->n_notes++] =
        (RagFileNote){.path = base_strdup(path), .reason = base_strdup(reason), .status = status};
}

static void tell(Ingest *in, const char *path, RagFileStatus status, const char *reason,
                 size_t n_chunks) {
    RagIngestReport *r = in->report;
    size_t *const counts[] = {
        [RAG_ADDED] = &r->added,     [RAG_CHANGED] = &r->changed, [RAG_UNCHANGED] = &r->unchanged,
        [RAG_REMOVED] = &r->removed, [RAG_SKIPPED] = &r->skipped, [RAG_FAILED] = &r->failed};
    *counts[status] += 1;
    if (status != RAG_REMOVED) in->files_done++;
    if (*reason) note(in, path, status, reason);
    if (in->options->on_file) {
        RagFileEvent event = {.path = path,
                              .status = status,
                              .reason = reason,
                              .n_chunks = n_chunks,
                              .files_done = in->files_done,
                              .files_total = in->files_total};
        in->options->on_file(in->options->on_file_context, &event);
    }
}

/* ---- storing ------------------------------------------------------------------- */

static bool store_document(Ingest *in, const RagReading *reading, const float *vectors,
                           Error *err) {
    RagIndex *index = in->index;
    const RagFound *found = reading->entry->found;
    RagNewDocument new = {.path = found->path,
                          .root = found->root,
                          .document = &reading->document,
                          .chunks = &reading->chunks,
                          .vectors = vectors,
                          .file = reading->file};
    if (!index->storage->put(index, &new, &in->report->chunks_removed, err)) return false;
    in->report->bytes_read += reading->length;
    in->report->text_bytes += reading->document.text.length;
    in->report->chunks_split_hard += reading->chunks.split_hard;
    tell(in, found->path, reading->status, reading->document.warning, reading->chunks.count);
    return true;
}

static bool take_reading(Ingest *in, const RagReading *reading, const float *vectors, Error *err) {
    RagIndex *index = in->index;
    const RagEntry *entry = reading->entry;
    in->report->read_seconds += reading->read_seconds;
    in->report->chunk_seconds += reading->chunk_seconds;
    switch (reading->status) {
    case RAG_ADDED:
    case RAG_CHANGED: return store_document(in, reading, vectors, err);
    case RAG_UNCHANGED:
        tell(in, entry->found->path, RAG_UNCHANGED, "", entry->old.n_chunks);
        return entry->untouched || index->storage->touch(index, entry->old.id, entry->found->size,
                                                         entry->found->mtime_ns, err);
    default: tell(in, entry->found->path, reading->status, reading->reason, 0); return true;
    }
}

static bool copy_error(const Error *from, Error *err) {
    base_fail(err, from->code, "%s", from->message);
    return from->hint[0] ? base_hint(err, "%s", from->hint) : false;
}

static bool take_batch(Ingest *in, const RagBatch *batch, Error *err) {
    in->report->embed_seconds += batch->embed_seconds;
    if (batch->error.code) return copy_error(&batch->error, err);
    in->report->chunks_embedded += batch->n_embedded;
    double started = base_now();
    const float *vectors = batch->vectors;
    bool ok = true;
    for (size_t i = 0; ok && i < batch->n_documents; i++) {
        ok = take_reading(in, batch->readings[i], vectors, err);
        vectors += batch->readings[i]->chunks.count * in->embedder->dim;
    }
    in->report->store_seconds += base_now() - started;
    return ok;
}

/* ---- files ------------------------------------------------------------------------- */

static bool list_entries(Ingest *in, const RagFiles *files, RagEntry *entries, Error *err) {
    RagIndex *index = in->index;
    for (size_t i = 0; i < files->count; i++) {
        const RagFound *found = &files->items[i];
        RagEntry *entry = &entries[i];
        *entry = (RagEntry){.found = found};
        if (base_interrupted())
            return base_fail(err, ERROR_INTERRUPTED, "interrupted; what was stored stays");
        if (found->skip) continue;
        if (!index->storage->find(index, found->path, &entry->old, &entry->stored, err))
            return false;
        entry->current =
            entry->stored && !in->options->force && entry->old.settings == in->settings;
        entry->untouched = entry->current && entry->old.size == found->size &&
                           entry->old.mtime_ns == found->mtime_ns;
    }
    return true;
}

static bool take_entries(Ingest *in, const RagEntry *entries, size_t count, Error *err) {
    DxStream *stream =
        rag_ingest_stream(in->index, in->embedder, entries, count, in->settings, in->options, err);
    if (!stream) return false;
    DxSample *sample = NULL;
    DxStatus status = DX_OK;
    bool ok = true;
    while (ok && (status = dx_next(stream, &sample, err)) == DX_OK) {
        ok = take_batch(in, rag_ingest_batch(sample), err);
        dx_sample_free(sample);
    }
    dx_stream_free(stream);
    return ok && status == DX_END;
}

/* Stored documents under an ingested path whose file is gone. */
static bool remove_gone(Ingest *in, const char *root, Error *err) {
    int64_t *ids = NULL;
    char **paths = NULL;
    size_t count = 0;
    bool ok = in->index->storage->list(in->index, root, &ids, &paths, &count, err);
    for (size_t i = 0; i < count; i++) {
        struct stat status;
        bool gone = ok && lstat(paths[i], &status) != 0 && (errno == ENOENT || errno == ENOTDIR);
        if (gone)
            ok = in->index->storage->remove(in->index, ids[i], &in->report->chunks_removed, err);
        if (gone && ok) tell(in, paths[i], RAG_REMOVED, "", 0);
        free(paths[i]);
    }
    free(ids);
    free(paths);
    return ok;
}

bool rag_ingest(RagIndex *index, const RagEmbedder *embedder, const char *const *paths,
                size_t n_paths, const RagIngestOptions *options, RagIngestReport *report,
                Error *err) {
    *report = (RagIngestReport){0};
    double started = base_now();
    if (index->mode == RAG_READ)
        return base_fail(err, ERROR_INTERNAL, "%s: opened for reading", index->path);
    Ingest in = {.index = index, .embedder = embedder, .options = options, .report = report};
    size_t target = options->chunk_tokens ? options->chunk_tokens : RAG_CHUNK_TOKENS;
    in.settings = (int64_t)(READER_VERSION * 1000000 + BASE_MIN(target, (size_t)999999));
    RagFiles files;
    if (!rag_walk(paths, n_paths, index->path, &files, err)) return false;
    in.files_total = files.count;
    RagEntry *entries = base_calloc(files.count + 1, sizeof *entries);
    bool ok =
        list_entries(&in, &files, entries, err) && take_entries(&in, entries, files.count, err);
    for (size_t i = 0; ok && i < files.n_roots; i++) ok = remove_gone(&in, files.roots[i], err);
    free(entries);
    rag_files_free(&files);
    report->total_seconds = base_now() - started;
    return ok;
}

void rag_ingest_report_free(RagIngestReport *report) {
    for (size_t i = 0; i < report->n_notes; i++)
        free(report->notes[i].path), free(report->notes[i].reason);
    free(report->notes);
    *report = (RagIngestReport){0};
}
