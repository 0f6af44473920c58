/* Where sentences end, by rule: closing punctuation, then space, then what may
 * begin a sentence; not after common abbreviations and initials. CJK full stops
 * need no space. An empty line always ends one. */
#ifndef RAG_SENTENCES_H
#define RAG_SENTENCES_H

#include "base/base.h"

/* The end of the sentence that begins at text[start), start < length: just
 * after its punctuation and the white space that follows. */
size_t rag_sentence_end(const char *text, size_t length, size_t start);

#endif
