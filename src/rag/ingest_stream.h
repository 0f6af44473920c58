/* An ingest as one stream of data: files -> text -> chunks -> embeddings, read and cut
 * by all threads, in the order of the files, within a bound of memory; what is left to
 * its consumer is to store. */
#ifndef RAG_INGEST_STREAM_H
#define RAG_INGEST_STREAM_H

#include "data/data.h"
#include "rag/reading.h"

/* Some documents whose chunks were embedded together. */
typedef struct RagBatch {
    DxSample **samples; /* one a document, [n_documents] */
    RagReading **readings;
    size_t n_documents, capacity, n_chunks;
    float *vectors; /* [n_chunks, dim], unit length; in the order of the documents */
    double embed_seconds;
    size_t n_embedded; /* chunks whose vector the index did not have */
    Error error;       /* why the run cannot go on, or code 0 */
} RagBatch;

/* entries and options must outlive the stream. The vectors of chunks that the index
 * holds are taken from it, by the thread that asks for the next batch. NULL on failure. */
DxStream *rag_ingest_stream(RagIndex *index, const RagEmbedder *embedder, const RagEntry *entries,
                            size_t n_entries, int64_t settings, const RagIngestOptions *options,
                            Error *err);
/* The batch of a sample of that stream; borrowed. */
RagBatch *rag_ingest_batch(const DxSample *sample);

#endif
