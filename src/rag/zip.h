/* The members of a zip file that are wanted, unpacked into memory with bounds:
 * on their number, on what they unpack to, and on how much more that is than
 * the archive (a bomb). Names are data here, never paths to write to. */
#ifndef RAG_ZIP_H
#define RAG_ZIP_H

#include "base/base.h"

#define RAG_ZIP_MEMBERS 20000
#define RAG_ZIP_MEMBER_BYTES ((size_t)64 << 20)
#define RAG_ZIP_BYTES ((size_t)192 << 20) /* of all members, wanted or not */
#define RAG_ZIP_RATIO 200                 /* unpacked to packed, beyond the first 8 MiB */

typedef struct RagZipMember {
    char *name, *data; /* data is NUL-terminated past its length */
    size_t length;
} RagZipMember;

typedef struct RagZip {
    RagZipMember *members;
    size_t count, capacity;
} RagZip;

/* suffixes: ends of the names that are kept, NULL ends the list. */
bool rag_zip_read(const char *bytes, size_t length, const char *const *suffixes, RagZip *zip,
                  Error *err);
void rag_zip_free(RagZip *zip);
const RagZipMember *rag_zip_find(const RagZip *zip, const char *name); /* NULL: not there */

#endif
