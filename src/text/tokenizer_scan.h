/* Reads the large members of a tokenizer.json (model.vocab and model.merges) and
 * of a tekken.json (vocab) straight from their bytes: building a tree of them
 * would take most of a program's start. */
#ifndef TEXT_TOKENIZER_SCAN_H
#define TEXT_TOKENIZER_SCAN_H

#include "text/tokenizer_parts.h"

typedef struct TextScan { /* byte ranges of the two values; empty when absent */
    size_t vocab_begin, vocab_end, merges_begin, merges_end;
} TextScan;

/* Finds the two values. False when the file is too odd to tell (or broken),
 * and then the JSON library should have it whole. */
bool text_scan_find(const char *json, size_t length, TextScan *scan);
/* The same for one list of this name at the top, told in vocab_begin and vocab_end. */
bool text_scan_find_list(const char *json, size_t length, const char *name, TextScan *scan);
/* The file with {} and [] in their places. */
void text_scan_rest(const char *json, size_t length, const TextScan *scan, StrBuf *out);
bool text_scan_vocab(const char *json, const TextScan *scan, TextModel *model, Error *err);
bool text_scan_merges(const char *json, const TextScan *scan, TextModel *model, Error *err);
/* The "token_bytes" of the first `wanted` objects of a list, with ids from `first` on. */
bool text_scan_token_bytes(const char *json, const TextScan *scan, size_t wanted, int64_t first,
                           TextModel *model, Error *err);
/* "a b", cut at its only space; false when it has none or several. */
bool text_merge_cut(const char *text, size_t length, size_t *space);

#endif
