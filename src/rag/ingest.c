/* From paths to a current index: what did not change is left alone, what
 * changed is replaced, what is gone is removed. Documents are read and cut one
 * by one, embedded in batches that may span several, and stored each in a
 * transaction, so a crash loses no more than the batch in hand. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rag/store.h"
#include "rag/walk.h"

#define READER_VERSION 3 /* raise when readers or the chunker cut differently */
#define BATCH_CHUNKS 128 /* embedded together, over several documents */
#define EMBED_CHUNKS 64  /* given to the embedder at once */
#define HEAD_BYTES 8192
#define MAX_PDF_BYTES ((int64_t)1 << 30) /* read by a program that seeks */
#define MAX_FILE_BYTES ((int64_t)256 << 20)

/* A document that is read and cut, waiting for its vectors. */
typedef struct Pending {
    const RagFound *found;
    RagDocument document;
    RagChunks chunks;
    RagStoredFile file;
    bool was_stored;
} Pending;

typedef struct Ingest {
    RagIndex *index;
    const RagEmbedder *embedder;
    const RagIngestOptions *options;
    RagIngestReport *report;
    size_t files_done, files_total;
    Pending *pending;
    size_t n_pending, pending_capacity, pending_chunks;
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

static void free_pending(Pending *pending) {
    rag_document_free(&pending->document);
    rag_chunks_free(&pending->chunks);
}

/* ---- embedding and storing -------------------------------------------------- */

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

static bool embed_missing(Ingest *in, Missing *missing, size_t count, Error *err) {
    size_t dim = in->embedder->dim;
    float *rows = base_calloc(EMBED_CHUNKS * dim, sizeof *rows);
    const char *texts[EMBED_CHUNKS];
    bool ok = true;
    if (count) qsort(missing, count, sizeof *missing, by_length);
    for (size_t i = 0; ok && i < count; i += EMBED_CHUNKS) {
        size_t n = BASE_MIN((size_t)EMBED_CHUNKS, count - i);
        for (size_t k = 0; k < n; k++) texts[k] = missing[i + k].text;
        if (base_interrupted())
            ok = base_fail(err, ERROR_INTERRUPTED, "interrupted; what was stored stays");
        ok = ok && in->embedder->embed(in->embedder->context, texts, n, RAG_PASSAGE, rows, err);
        for (size_t k = 0; ok && k < n; k++) {
            float *row = rows + k * dim;
            if (!usable(row, dim)) {
                ok = base_fail(err, ERROR_INPUT,
                               "the embedder %s gives a vector of zeros or not-a-number",
                               in->embedder->name);
                break;
            }
            normalise(row, dim);
            memcpy(missing[i + k].to, row, dim * sizeof *row);
        }
        if (ok) in->report->chunks_embedded += n;
        if (ok && in->options->on_chunks)
            in->options->on_chunks(in->options->on_chunks_context, in->report->chunks_embedded);
    }
    free(rows);
    return ok;
}

/* Vectors of every pending chunk, [pending_chunks, dim]: known ones from the
 * index (a renamed file, an unchanged part), the others from the embedder. */
static bool vectors_of(Ingest *in, float *vectors, Error *err) {
    Missing *missing = base_calloc(in->pending_chunks + 1, sizeof *missing);
    size_t n_missing = 0;
    float *to = vectors;
    bool ok = true;
    for (size_t d = 0; ok && d < in->n_pending; d++) {
        const Pending *p = &in->pending[d];
        for (size_t i = 0; ok && i < p->chunks.count; i++, to += in->embedder->dim) {
            const RagChunk *chunk = &p->chunks.items[i];
            const char *text = p->document.text.data + chunk->start;
            size_t length = chunk->end - chunk->start;
            bool found = false;
            if (!in->options->force)
                ok = in->index->storage->reuse(in->index, chunk->header, text, length, to, &found,
                                               err);
            if (found || !ok) continue;
            StrBuf whole = {0};
            if (*chunk->header) base_str_appendf(&whole, "%s\n", chunk->header);
            base_str_append_n(&whole, text, length);
            missing[n_missing++] = (Missing){base_str_detach(&whole), to};
        }
    }
    ok = ok && embed_missing(in, missing, n_missing, err);
    for (size_t i = 0; i < n_missing; i++) free(missing[i].text);
    free(missing);
    return ok;
}

static bool store_pending(Ingest *in, Error *err) {
    if (!in->n_pending) return true;
    double started = base_now();
    float *vectors = base_calloc((in->pending_chunks + 1) * in->embedder->dim, sizeof *vectors);
    bool ok = vectors_of(in, vectors, err);
    double embedded = base_now();
    in->report->embed_seconds += embedded - started;
    size_t row = 0;
    for (size_t d = 0; d < in->n_pending; d++) {
        Pending *p = &in->pending[d];
        if (ok) {
            RagNewDocument new = {.path = p->found->path,
                                  .root = p->found->root,
                                  .document = &p->document,
                                  .chunks = &p->chunks,
                                  .vectors = vectors + row * in->embedder->dim,
                                  .file = p->file};
            ok = in->index->storage->put(in->index, &new, &in->report->chunks_removed, err);
        }
        if (ok)
            tell(in, p->found->path, p->was_stored ? RAG_CHANGED : RAG_ADDED, p->document.warning,
                 p->chunks.count);
        row += p->chunks.count;
        free_pending(p);
    }
    in->report->store_seconds += base_now() - embedded;
    in->n_pending = in->pending_chunks = 0;
    free(vectors);
    return ok;
}

/* ---- one file ---------------------------------------------------------------- */

/* A file in memory, or why it is left out. */
typedef struct Loaded {
    char *bytes; /* NUL-terminated past length; owned */
    size_t length;
    RagFormat format;
    const char *skip; /* static; when the format is none */
} Loaded;

static bool read_some(int fd, char *bytes, size_t wanted, size_t *length, Error *err) {
    while (*length < wanted) {
        ssize_t got = read(fd, bytes + *length, wanted - *length);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            const char *reason = strerror(errno);
            return base_fail(err, ERROR_IO, "%s", reason);
        }
        if (got == 0) break;
        *length += (size_t)got;
    }
    return true;
}

/* The first bytes tell the format, and the format how large a file may be, so
 * that what is no document is never read whole. */
static bool load_open(int fd, const RagFound *found, Loaded *loaded, Error *err) {
    struct stat status;
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode))
        return base_fail(err, ERROR_IO, "not a regular file any more");
    char head[HEAD_BYTES];
    size_t length = 0;
    if (!read_some(fd, head, sizeof head, &length, err)) return false;
    loaded->format = rag_format_detect(found->path, head, length, found->walking, &loaded->skip);
    if (loaded->format == RAG_FORMAT_NONE) return true;
    int64_t most = loaded->format == RAG_FORMAT_PDF ? MAX_PDF_BYTES : MAX_FILE_BYTES;
    if ((int64_t)status.st_size > most)
        return base_fail(err, ERROR_INPUT, "larger than %lld MiB", (long long)(most >> 20));
    size_t size = BASE_MAX((size_t)status.st_size, length);
    loaded->bytes = base_try_alloc(size + 1, 1, err);
    if (!loaded->bytes) return false;
    memcpy(loaded->bytes, head, length);
    bool ok = read_some(fd, loaded->bytes, size, &length, err);
    loaded->bytes[length] = '\0';
    loaded->length = length;
    return ok;
}

/* Never waits for a pipe that took the file's place. The caller frees bytes. */
static bool load(const RagFound *found, Loaded *loaded, Error *err) {
    *loaded = (Loaded){.skip = ""};
    int fd = open(found->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        const char *reason = strerror(errno);
        return base_fail(err, ERROR_IO, "%s", reason);
    }
    bool ok = load_open(fd, found, loaded, err);
    close(fd);
    return ok;
}

static bool sha256(const char *bytes, size_t length, unsigned char digest[32], Error *err) {
    unsigned int size = 32;
    return EVP_Digest(bytes, length, digest, &size, EVP_sha256(), NULL) == 1 ||
           base_fail(err, ERROR_INTERNAL, "SHA-256 failed");
}

/* Reads, cuts and queues one file. What is wrong with the file becomes a note;
 * false only when the run cannot go on. */
static bool take_file(Ingest *in, const RagFound *found, Error *err) {
    RagStoredFile old;
    bool stored = false;
    if (!in->index->storage->find(in->index, found->path, &old, &stored, err)) return false;
    bool current = stored && !in->options->force && old.settings == in->settings;
    if (current && old.size == found->size && old.mtime_ns == found->mtime_ns) {
        tell(in, found->path, RAG_UNCHANGED, "", old.n_chunks);
        return true;
    }
    double started = base_now();
    Error wrong = {0};
    Loaded file;
    Pending p = {.found = found, .was_stored = stored};
    p.file =
        (RagStoredFile){.size = found->size, .mtime_ns = found->mtime_ns, .settings = in->settings};
    bool readable = load(found, &file, &wrong);
    if (readable && file.format == RAG_FORMAT_NONE) {
        tell(in, found->path, RAG_SKIPPED, file.skip, 0);
        return true;
    }
    readable = readable && sha256(file.bytes, file.length, p.file.sha256, &wrong);
    if (readable && current && memcmp(p.file.sha256, old.sha256, sizeof old.sha256) == 0) {
        free(file.bytes);
        tell(in, found->path, RAG_UNCHANGED, "", old.n_chunks);
        return in->index->storage->touch(in->index, old.id, found->size, found->mtime_ns, err);
    }
    readable = readable && rag_document_read(found->path, file.format, file.bytes, file.length,
                                             &p.document, &wrong);
    free(file.bytes);
    double parsed = base_now();
    in->report->read_seconds += parsed - started;
    if (!readable) {
        if (wrong.code == ERROR_INTERRUPTED)
            return base_fail(err, ERROR_INTERRUPTED, "interrupted; what was stored stays");
        char text[1400];
        snprintf(text, sizeof text, "%s%s%s%s%s", wrong.message, wrong.hint[0] ? " (" : "",
                 wrong.hint, wrong.hint[0] ? ")" : "",
                 stored ? "; its previous version stays in the index" : "");
        tell(in, found->path, RAG_FAILED, text, 0);
        return true;
    }
    in->report->bytes_read += file.length;
    in->report->text_bytes += p.document.text.length;
    bool ok =
        rag_chunk_document(&p.document, in->embedder, in->options->chunk_tokens, &p.chunks, err);
    in->report->chunk_seconds += base_now() - parsed;
    if (!ok) {
        free_pending(&p);
        return false;
    }
    in->report->chunks_split_hard += p.chunks.split_hard;
    in->pending =
        base_grow(in->pending, &in->pending_capacity, in->n_pending + 1, sizeof *in->pending);
    in->pending[in->n_pending++] = p;
    in->pending_chunks += p.chunks.count;
    return in->pending_chunks < BATCH_CHUNKS || store_pending(in, err);
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
    if (!rag_walk(paths, n_paths, &files, err)) return false;
    in.files_total = files.count;
    bool ok = true;
    for (size_t i = 0; ok && i < files.count; i++) {
        if (base_interrupted())
            ok = base_fail(err, ERROR_INTERRUPTED, "interrupted; what was stored stays");
        else if (files.items[i].skip)
            tell(&in, files.items[i].path, RAG_SKIPPED, files.items[i].skip, 0);
        else
            ok = take_file(&in, &files.items[i], err);
    }
    ok = ok && store_pending(&in, err);
    for (size_t i = 0; i < in.n_pending; i++) free_pending(&in.pending[i]);
    for (size_t i = 0; ok && i < files.n_roots; i++) ok = remove_gone(&in, files.roots[i], err);
    free(in.pending);
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
