/* What may be stored and shown: text without control characters, escape
 * sequences, bidirectional overrides and invisible characters, so that a
 * document can neither drive a terminal nor hide words from its reader. */
#ifndef RAG_SHOW_H
#define RAG_SHOW_H

#include "base/base.h"

/* Appends text[0..length) as clean UTF-8. Newline and tab stay; carriage
 * returns and form feeds become newlines; invalid bytes become U+FFFD; joiners
 * stay where a script or an emoji needs them. */
void rag_clean_append(StrBuf *out, const char *text, size_t length);
/* A clean copy; caller frees. NULL gives "". */
char *rag_clean(const char *text);
/* Clean, and every run of white space one space, none at the ends. */
char *rag_clean_line(const char *text, size_t length);

/* A file's name on one line: what cannot be shown stands as \n, \t or \xNN.
 * Caller frees. */
char *rag_clean_path(const char *path);

/* The largest n <= limit so that text[0..n) ends between two code points. */
size_t rag_utf8_floor(const char *text, size_t length, size_t limit);

bool rag_is_space(uint32_t codepoint);

#endif
