/* One file on its way into the index: what is known of it, and what reading and
 * cutting made of it. Done by any thread, told and stored by one. */
#ifndef RAG_READING_H
#define RAG_READING_H

#include "rag/chunk.h"
#include "rag/store.h"
#include "rag/walk.h"

/* A file that was found. */
typedef struct RagEntry {
    const RagFound *found; /* borrowed */
    RagStoredFile old;
    bool stored;    /* in the index, as `old` */
    bool current;   /* and made with these settings: equal bytes need no work */
    bool untouched; /* and of that size and time: it need not be read */
} RagEntry;

typedef struct RagReading {
    const RagEntry *entry; /* borrowed */
    /* ADDED or CHANGED: document and chunks are to be stored; UNCHANGED: only the time
     * of the file is, unless it is untouched; SKIPPED and FAILED: reason says why. */
    RagFileStatus status;
    char *reason;
    RagDocument document;
    RagChunks chunks;
    RagStoredFile file;
    size_t length; /* bytes of the file */
    double read_seconds, chunk_seconds;
    Error error; /* why the whole run cannot go on, or code 0 */
} RagReading;

/* Where files are read with these settings of the chunker. */
RagReading *rag_reading_new(const RagEntry *entry, int64_t settings); /* caller frees */
void rag_reading_read(RagReading *reading);
/* Nothing unless something was read. target as in rag_chunk_document. */
void rag_reading_chunk(RagReading *reading, const RagEmbedder *embedder, size_t target);
void rag_reading_free(RagReading *reading);

#endif
