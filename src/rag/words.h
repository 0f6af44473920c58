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

/* The words of a text as an index stores them, and of a phrase as one asks for them:
 * folded and stemmed. For keepers of words other than FTS5, which does it itself. */
typedef struct RagStemmer RagStemmer;
RagStemmer *rag_stemmer_open(Error *err);    /* NULL on failure */
void rag_stemmer_close(RagStemmer *stemmer); /* NULL ok */
/* Called for each word; place counts from 0, two words of one place are two forms of
 * it ("c" and "c++"). */
typedef void (*RagOnStem)(void *context, const char *word, size_t length, int place);
/* query: a phrase, of which each place has one form. Returns the number of places. */
int rag_stemmer_run(RagStemmer *stemmer, const char *text, size_t length, bool query,
                    RagOnStem on_stem, void *context);

struct sqlite3;
/* Makes the tokenizer "mlxrag" known to a connection, and functions of a query of FTS5:
 * mlxrag_frequency(t), how often its phrase stands in the row; mlxrag_rows(t) and
 * mlxrag_tokens(t), how many of them the index has. */
bool rag_words_register(struct sqlite3 *db, Error *err);

#endif
