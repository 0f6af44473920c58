/* Examples on disk: a JSON object a line, in one file or as train.jsonl,
 * valid.jsonl, test.jsonl of a folder, as mlx-lm's data sets are. The file is
 * mapped; a line is parsed when it is asked for. */
#ifndef LM_RECORDS_H
#define LM_RECORDS_H

#include "lm/lm.h"
#include "text/text.h"

typedef struct LmRecords LmRecords;

/* path: a file, or a folder that holds one of `splits` (NULL-terminated, the
 * first found counts), such as "train" for train.jsonl. Empty lines are no
 * records. NULL on failure; caller frees with lm_records_close. */
LmRecords *lm_records_open(const char *path, const char *const *splits, Error *err);
void lm_records_close(LmRecords *records); /* NULL ok */
uint32_t lm_records_count(const LmRecords *records);
/* The file that was found; borrowed. */
const char *lm_records_file(const LmRecords *records);
/* A new object; a line that is none is an error that names it. */
json_t *lm_records_get(const LmRecords *records, uint32_t index, Error *err);
/* Fills *err with `message` behind the file and the line of a record. False. */
bool lm_records_fail(const LmRecords *records, uint32_t index, const char *message, Error *err);

/* The ids that mlx_lm trains on: of a record with "prompt" and "completion" the
 * chat of both, with "messages" that chat, with "text" the text and an
 * end-of-sequence token. The kind is the first record's. */
bool lm_records_tokens(const LmRecords *records, LmModel *model, uint32_t index, TextIds *ids,
                       Error *err);

#endif
