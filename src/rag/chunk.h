/* Cuts a document into chunks for an embedder.
 *
 * Cuts fall at headings, else between paragraphs, sentences, words, and only in
 * a word that alone is too long between two code points. A chunk is the exact
 * slice [start, end) of the document's text; chunks do not overlap, are in
 * order, and together hold everything but white space. What is embedded is
 * header + "\n" + slice, never more tokens than the model takes. */
#ifndef RAG_CHUNK_H
#define RAG_CHUNK_H

#include "rag/document.h"
#include "rag/rag.h"

typedef struct RagChunk {
    size_t start, end;
    int page;
    char *heading;   /* "h1 > h2", "" when none */
    char *header;    /* title > headings, and the head row of a table that was cut */
    size_t n_tokens; /* of header and slice, special tokens left out */
} RagChunk;

typedef struct RagChunks {
    RagChunk *items;
    size_t count, capacity;
    size_t split_hard; /* cuts inside a word */
} RagChunks;

#define RAG_CHUNK_TOKENS 224

/* target: tokens of a chunk, header included; 0 takes RAG_CHUNK_TOKENS; more than
 * the model holds is lowered. Fails only when the embedder does. */
bool rag_chunk_document(const RagDocument *document, const RagEmbedder *embedder, size_t target,
                        RagChunks *chunks, Error *err);
void rag_chunks_free(RagChunks *chunks);

#endif
