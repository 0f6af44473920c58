/* An index outside its file: chunks with their places and vectors in memory, as
 * they travel to and from other programs.
 *
 * The layout of mlx-RAG's vdb.npz, which safetensors files share: embeddings
 * [n, dim]; of every kind of text the code points of all chunks one after
 * another (X_data) and how many each chunk has (X_lengths), X being chunk,
 * source and metadata, the last a JSON object. `<file>.meta.json` says where
 * they came from. */
#ifndef RAG_BANK_H
#define RAG_BANK_H

#include "rag/rag.h"

typedef struct RagBankChunk {
    char *text, *source; /* never NULL */
    char *title, *heading, *header, *format;
    int page;
} RagBankChunk;

typedef struct RagBank {
    RagBankChunk *chunks;
    size_t count, capacity, dim;
    float *vectors; /* [count, dim]; NULL: none */
    size_t vectors_capacity;
    /* Of the embedder, as far as the file tells; NULL where it does not. */
    char *embedder_name, *embedder_hash, *pooling;
} RagBank;

void rag_bank_free(RagBank *bank); /* and makes it {0} */

/* Everything of an index, documents in their order. */
bool rag_bank_from_index(RagIndex *index, RagBank *bank, Error *err);
/* Chunks of one source become a document that replaces what was stored under
 * its name. Vectors are made unit length; *documents counts. */
bool rag_bank_into_index(const RagBank *bank, RagIndex *index, size_t *documents, Error *err);
/* Vectors anew for every chunk, header included. */
bool rag_bank_embed(RagBank *bank, const RagEmbedder *embedder, Error *err);
/* No vector is zero, infinite or not a number. */
bool rag_bank_check(const RagBank *bank, const char *path, Error *err);

/* vdb.npz, or safetensors by the suffix; *bank must be {0}. */
bool rag_bank_load_tensors(const char *path, RagBank *bank, Error *err);
bool rag_bank_save_tensors(const char *path, const RagBank *bank, Error *err);
/* One JSON object a line: text, source, and what else is known; "embedding" is a
 * list of numbers. */
bool rag_bank_load_jsonl(const char *path, RagBank *bank, Error *err);
bool rag_bank_save_jsonl(const char *path, const RagBank *bank, Error *err);

/* The metadata of a chunk as a JSON object and back; what is missing is "". */
json_t *rag_bank_metadata(const RagBankChunk *chunk); /* caller json_decref's */
void rag_bank_set_metadata(RagBankChunk *chunk, const json_t *object);

#endif
