/* Files to chunks; see reading.h. Nothing here knows the index. */
#include "rag/reading.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD_BYTES 8192
#define MAX_PDF_BYTES ((int64_t)1 << 30) /* read by a program that seeks */
#define MAX_FILE_BYTES ((int64_t)256 << 20)

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

RagReading *rag_reading_new(const RagEntry *entry, int64_t settings) {
    RagReading *reading = base_calloc(1, sizeof *reading);
    reading->entry = entry;
    reading->status = entry->stored ? RAG_CHANGED : RAG_ADDED;
    reading->file = (RagStoredFile){
        .size = entry->found->size, .mtime_ns = entry->found->mtime_ns, .settings = settings};
    return reading;
}

void rag_reading_free(RagReading *reading) {
    if (!reading) return;
    rag_document_free(&reading->document);
    rag_chunks_free(&reading->chunks);
    free(reading->reason);
    free(reading);
}

static void fail(RagReading *reading, const Error *wrong) {
    if (wrong->code == ERROR_INTERRUPTED) {
        base_fail(&reading->error, ERROR_INTERRUPTED, "interrupted; what was stored stays");
        return;
    }
    const char *kept = reading->entry->stored ? "; its previous version stays in the index" : "";
    reading->status = RAG_FAILED;
    reading->reason = wrong->hint[0] ? base_format("%s (%s)%s", wrong->message, wrong->hint, kept)
                                     : base_format("%s%s", wrong->message, kept);
}

void rag_reading_read(RagReading *reading) {
    const RagEntry *entry = reading->entry;
    const char *path = entry->found->path;
    if (entry->untouched || entry->found->skip) {
        reading->status = entry->untouched ? RAG_UNCHANGED : RAG_SKIPPED;
        reading->reason = base_strdup(entry->untouched ? "" : entry->found->skip);
        return;
    }
    double started = base_now();
    Error wrong = {0};
    Loaded file;
    bool ok = load(entry->found, &file, &wrong);
    if (ok && file.format == RAG_FORMAT_NONE) {
        reading->status = RAG_SKIPPED;
        reading->reason = base_strdup(file.skip);
        return;
    }
    ok = ok && sha256(file.bytes, file.length, reading->file.sha256, &wrong);
    if (ok && entry->current &&
        memcmp(reading->file.sha256, entry->old.sha256, sizeof entry->old.sha256) == 0) {
        reading->status = RAG_UNCHANGED;
    } else if (ok) {
        reading->length = file.length;
        ok = rag_document_read(path, file.format, file.bytes, file.length, &reading->document,
                               &wrong);
    }
    free(file.bytes);
    if (!ok) fail(reading, &wrong);
    reading->read_seconds = base_now() - started;
}

void rag_reading_chunk(RagReading *reading, const RagEmbedder *embedder, size_t target) {
    if (reading->error.code || reading->status > RAG_CHANGED) return;
    double started = base_now();
    rag_chunk_document(&reading->document, embedder, target, &reading->chunks, &reading->error);
    reading->chunk_seconds = base_now() - started;
}
