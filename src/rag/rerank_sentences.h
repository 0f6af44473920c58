/* An embedder as a reranker: a passage is as good as its best sentence and itself. */
#ifndef RAG_RERANK_SENTENCES_H
#define RAG_RERANK_SENTENCES_H

#include "rag/rag.h"

/* Takes the embedder, which closes with the reranker. */
void rag_rerank_by_sentences(RagEmbedder *embedder, RagReranker *reranker);

#endif
