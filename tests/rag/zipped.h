/* Zip files made in memory for tests of readers. */
#ifndef TESTS_RAG_ZIPPED_H
#define TESTS_RAG_ZIPPED_H

#include <archive.h>
#include <archive_entry.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

#define ZIPPED_BYTES ((size_t)4 << 20)

typedef struct Zipped {
    struct archive *archive;
    char *bytes;
    size_t length;
} Zipped;

static inline void zipped_begin(Zipped *zip) {
    zip->bytes = base_alloc(ZIPPED_BYTES);
    zip->length = 0;
    zip->archive = archive_write_new();
    archive_write_set_format_zip(zip->archive);
    if (archive_write_open_memory(zip->archive, zip->bytes, ZIPPED_BYTES, &zip->length) !=
        ARCHIVE_OK)
        abort();
}

/* A member of `times` repetitions of text. */
static inline void zipped_add(Zipped *zip, const char *name, const char *text, size_t times) {
    size_t length = strlen(text);
    struct archive_entry *entry = archive_entry_new();
    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, (la_int64_t)(length * times));
    if (archive_write_header(zip->archive, entry) != ARCHIVE_OK) abort();
    for (size_t i = 0; i < times; i++) archive_write_data(zip->archive, text, length);
    archive_entry_free(entry);
}

/* zip->bytes[0..length) is the file afterwards; caller frees bytes. */
static inline void zipped_end(Zipped *zip) {
    archive_write_close(zip->archive);
    archive_write_free(zip->archive);
}

#endif
