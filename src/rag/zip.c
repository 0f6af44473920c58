/* Bounded unpacking; see zip.h. */
#include "rag/zip.h"

#include <archive.h>
#include <archive_entry.h>
#include <string.h>

#define BLOCK 65536
#define FREE_BYTES ((size_t)8 << 20)

static bool is_wanted(const char *name, const char *const *suffixes) {
    for (size_t i = 0; suffixes[i]; i++)
        if (base_ends_with(name, suffixes[i])) return true;
    return false;
}

typedef struct Unpacking {
    struct archive *archive;
    size_t packed, total, members;
    char block[BLOCK];
} Unpacking;

/* Every member is read, also those that are left out: a bomb is a bomb. */
static bool read_member(Unpacking *u, const char *name, bool wanted, RagZip *zip, Error *err) {
    StrBuf data = {0};
    size_t length = 0;
    bool ok = true;
    for (la_ssize_t got; ok;) {
        got = archive_read_data(u->archive, u->block, BLOCK);
        if (got < 0) ok = base_fail(err, ERROR_INPUT, "damaged: %.80s cannot be unpacked", name);
        if (got <= 0) break;
        length += (size_t)got;
        u->total += (size_t)got;
        if (u->total > FREE_BYTES && u->total / RAG_ZIP_RATIO > u->packed)
            ok = base_fail(err, ERROR_INPUT,
                           "unpacks to more than %d times its size: a zip bomb, not a document",
                           RAG_ZIP_RATIO);
        else if (length > RAG_ZIP_MEMBER_BYTES || u->total > RAG_ZIP_BYTES)
            ok = base_fail(err, ERROR_INPUT, "unpacks to more than %zu MiB",
                           (length > RAG_ZIP_MEMBER_BYTES ? RAG_ZIP_MEMBER_BYTES : RAG_ZIP_BYTES) >>
                               20);
        if (ok && wanted) base_str_append_n(&data, u->block, (size_t)got);
    }
    if (ok && wanted) {
        zip->members =
            base_grow(zip->members, &zip->capacity, zip->count + 1, sizeof *zip->members);
        RagZipMember *member = &zip->members[zip->count++];
        member->name = base_strdup(name);
        member->length = data.length;
        member->data = base_str_detach(&data);
    }
    base_str_free(&data);
    return ok;
}

bool rag_zip_read(const char *bytes, size_t length, const char *const *suffixes, RagZip *zip,
                  Error *err) {
    *zip = (RagZip){0};
    Unpacking *u = base_calloc(1, sizeof *u);
    u->packed = length;
    u->archive = archive_read_new();
    bool ok = u->archive && archive_read_support_format_zip(u->archive) == ARCHIVE_OK &&
              archive_read_open_memory(u->archive, bytes, length) == ARCHIVE_OK;
    if (!ok) base_fail(err, ERROR_INPUT, "not a zip file");
    while (ok) {
        struct archive_entry *entry = NULL;
        int rc = archive_read_next_header(u->archive, &entry);
        if (rc == ARCHIVE_EOF) break;
        const char *name = rc >= ARCHIVE_WARN ? archive_entry_pathname(entry) : NULL;
        if (rc < ARCHIVE_WARN) ok = base_fail(err, ERROR_INPUT, "damaged zip file");
        if (ok && ++u->members > RAG_ZIP_MEMBERS)
            ok = base_fail(err, ERROR_INPUT, "holds more than %d files", RAG_ZIP_MEMBERS);
        if (ok && archive_entry_is_data_encrypted(entry))
            ok = base_fail(err, ERROR_INPUT, "encrypted: it needs a password");
        if (!ok || archive_entry_filetype(entry) != AE_IFREG) continue;
        ok = read_member(u, name ? name : "?", name && is_wanted(name, suffixes), zip, err);
    }
    if (u->archive) archive_read_free(u->archive);
    free(u);
    if (!ok) rag_zip_free(zip);
    return ok;
}

void rag_zip_free(RagZip *zip) {
    for (size_t i = 0; i < zip->count; i++) free(zip->members[i].name), free(zip->members[i].data);
    free(zip->members);
    *zip = (RagZip){0};
}

const RagZipMember *rag_zip_find(const RagZip *zip, const char *name) {
    for (size_t i = 0; i < zip->count; i++)
        if (strcmp(zip->members[i].name, name) == 0) return &zip->members[i];
    return NULL;
}
