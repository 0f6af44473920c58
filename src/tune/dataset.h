/* One split of the data a model is tuned on: records of JSON lines, whose tokens
 * are made when they are first needed and then kept.
 *
 * A record's form is its source's first record's, as mlx-lm decides it:
 *     {"tokens": [1, 2, 3], "prompt_tokens": 1}            taken as it is
 *     {"prompt": ..., "chosen": ..., "rejected": ...}      a preference (options.pairs)
 *     {"prompt": "...", "completion": "..."}               a chat of both
 *     {"messages": [...], "tools": [...]}                  a chat
 *     {"text": "..."}                                      the text and an end token
 * A preference's parts are texts or lists of messages; without "prompt" all but
 * the last message of the two lists is the prompt. */
#ifndef TUNE_DATASET_H
#define TUNE_DATASET_H

#include "lm/lm.h"

typedef struct TuneSource {
    /* A file of JSON lines, or a folder that holds SPLIT.jsonl, or shards
     * SPLIT-*.jsonl, there or in its data/. A folder without any is no rows. */
    const char *path;
    /* NULL: the options' split. A slice of it is possible: "train[:80%]",
     * "train[-10%:]", "train[100:200]". */
    const char *split;
    /* Names of the fields; NULL: prompt, completion, messages, text. */
    const char *prompt_feature, *completion_feature, *chat_feature, *text_feature;
} TuneSource;

typedef struct TuneDataOptions {
    const TuneSource *sources; /* one after another */
    size_t n_sources;
    const char *split; /* "train", "valid", "test"; of a source that names a file, ignored */
    bool mask_prompt;  /* only the last message, or the completion, counts */
    bool every_turn;   /* all that the assistant says counts, and nothing else */
    bool pairs;        /* records are preferences */
    bool quiet, json;  /* of the progress while all rows are tokenised */
} TuneDataOptions;

typedef struct TuneData TuneData;
/* Rows may be none: ask tune_data_count. `model` is borrowed while the data lives,
 * and may be NULL when all rows are tokens already. NULL on failure. */
TuneData *tune_data_open(const TuneDataOptions *options, LmModel *model, Error *err);
size_t tune_data_count(const TuneData *data);
bool tune_data_pairs(const TuneData *data);
void tune_data_free(TuneData *data); /* NULL ok */

/* The tokens of a record, and which of them are targets. */
typedef struct TuneRow {
    const int32_t *ids;
    int length;
    const int32_t *targets; /* [n_targets, 2]: begin and end of each run */
    int n_targets;
} TuneRow;
/* Borrowed until the data is freed. `rejected` asks for the other half of a
 * preference. Tokenises what was not yet; by one thread at a time. */
bool tune_data_row(TuneData *data, size_t index, bool rejected, TuneRow *row, Error *err);
/* Tokenises all rows on all threads, with progress; the first record that fails
 * is the error. Ctrl-C is one too. */
bool tune_data_tokenise(TuneData *data, Error *err);
/* Where a row stands, "train.jsonl: line 7"; caller frees. */
char *tune_data_where(const TuneData *data, size_t index);
/* Members of a record, by which mlx-lm sorts. Tokenises nothing. */
bool tune_data_keys(const TuneData *data, size_t index, int *keys, Error *err);

#endif
