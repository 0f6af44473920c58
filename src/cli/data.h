/* What the data commands share: documents as a stream of training records, and lengths
 * of rows. */
#ifndef CLI_DATA_H
#define CLI_DATA_H

#include "cli/commands.h"
#include "data/data.h"
#include "tune/dataset.h"

/* ---- documents (data_documents.c) ---- */

typedef struct DocumentsOptions {
    const char *const *paths;
    size_t n_paths;
    const TextTokenizer *tokenizer; /* counts a record's tokens; NULL: words are counted */
    size_t max_tokens, min_tokens;  /* of a record made from a document */
    const char *prompt; /* of a completion, with {title}, {heading}, {file}; NULL: texts */
} DocumentsOptions;

typedef struct DocumentsReport {
    size_t n_files; /* found, when the stream has been made */
    size_t n_read;  /* of them, and, */
    size_t n_short; /* records that are too short: when it has been freed */
} DocumentsReport;

/* Records of all documents, and rows of .jsonl files as they stand, in the order of the
 * files: "json" text, "file" the number of the file, "sketch" the bytes of a DxSketch. What
 * cannot be read is a sample with "note", one line. Reading is one thread's work, cutting
 * and hashing are all threads'. `options` and `report` are borrowed. */
DxStream *documents_stream(const DocumentsOptions *options, DocumentsReport *report, Error *err);

/* ---- lengths (data_lengths.c) ---- */

typedef struct DataLengths {
    int32_t *values; /* sorted by lengths_sort */
    size_t count, capacity;
} DataLengths;
void lengths_add(DataLengths *lengths, int32_t value);
void lengths_free(DataLengths *lengths);
/* Of a split's rows; tokenises them. Both halves of a preference count. */
bool lengths_of_rows(TuneData *data, DataLengths *lengths, Error *err);
/* Sum, extremes, mean, percentiles, rows longer than `limit` (0: none asked), histogram. */
json_t *lengths_json(DataLengths *lengths, int32_t limit);
void lengths_print(DataLengths *lengths, int32_t limit);

#endif
