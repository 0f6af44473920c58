/* Words as the lexical index sees them, and queries made of them.
 *
 * Letters, digits and marks make words; case, compatibility forms and (outside
 * scripts without spaces) diacritics are folded. Chinese, Japanese, Korean,
 * Thai, Lao, Khmer and Burmese characters are words of their own, so that any
 * substring is a phrase. "C++" and "C#" are words beside their "c". */
#ifndef RAG_WORDS_H
#define RAG_WORDS_H

#include "base/base.h"

#define RAG_WORD_BYTES 128

typedef struct RagWord {
    size_t start, end; /* bytes of the text */
    char folded[RAG_WORD_BYTES];
    size_t length;    /* of folded */
    bool unspaced;    /* one character of a script without spaces */
    bool symbol_tail; /* folded ends in ++ or #; the word without it counts too */
} RagWord;

/* The next word at or after *position, which moves behind it; false at the end. */
bool rag_word_next(const char *text, size_t length, size_t *position, RagWord *word);

bool rag_is_stop_word(const char *folded, size_t length);

/* A question as search terms: words, or phrases for what is written together
 * ("user_id", "v1.2.3") and for neighbours in scripts without spaces. */
typedef struct RagTerm {
    char *phrase; /* folded words, one space between; never empty */
    double idf;   /* filled by the search */
    size_t rows;  /* likewise */
} RagTerm;

typedef struct RagTerms {
    RagTerm *items;
    size_t count, capacity;
    bool only_stop_words; /* finding them is no evidence */
} RagTerms;

#define RAG_MAX_TERMS 48

/* Stop words are left out unless there is nothing else; duplicates too. */
RagTerms rag_terms_of(const char *query);
void rag_terms_free(RagTerms *terms);

/* One phrase in FTS5's syntax: "..." with quotes doubled. Safe for any text. */
void rag_fts_quote(StrBuf *out, const char *phrase);

struct sqlite3;
/* Makes the tokenizer "mlxrag" known to a connection. */
bool rag_words_register(struct sqlite3 *db, Error *err);

#endif
