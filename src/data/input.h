/* Inside data: the bytes of a file or of memory, a block at a time, unpacked where
 * they are packed with gzip, bzip2, xz or zstd. */
#ifndef DATA_INPUT_H
#define DATA_INPUT_H

#include "data/data.h"

typedef struct DxInput DxInput;
/* NULL and *err, which names the path, for what is missing, a folder or unreadable. */
DxInput *dx_input_open(const char *path, Error *err);
/* Memory that outlives the input; `name` stands in messages and is copied. */
DxInput *dx_input_memory(const char *name, const void *bytes, size_t length, Error *err);
void dx_input_free(DxInput *input); /* NULL ok */
/* The next bytes, borrowed until the next call; *length 0: the end. A plain file is one
 * block. */
bool dx_input_next(DxInput *input, const uint8_t **block, size_t *length, Error *err);
/* The next block begins at this place of the unpacked bytes. */
bool dx_input_seek(DxInput *input, uint64_t offset, Error *err);
bool dx_input_packed(const DxInput *input);
const char *dx_input_name(const DxInput *input); /* as it was given */
/* "rows.csv, 120 bytes, time 17": by its name, not by its folder, so that data may be moved. */
void dx_input_identity(const DxInput *input, StrBuf *text);
/* All that is left, at most `most` bytes. */
bool dx_input_rest(DxInput *input, size_t most, StrBuf *out, Error *err);

/* A window on an input for those who read it byte by byte. */
typedef struct DxCursor {
    DxInput *input;
    const uint8_t *at, *end;
    uint64_t offset; /* of `end` */
} DxCursor;
static inline uint64_t dx_cursor_offset(const DxCursor *cursor) {
    return cursor->offset - (uint64_t)(cursor->end - cursor->at);
}
/* Whether there is a byte at `at`, fetching the next block where the last is used up;
 * *failed: reading went wrong. */
bool dx_cursor_more(DxCursor *cursor, bool *failed, Error *err);
bool dx_cursor_seek(DxCursor *cursor, uint64_t offset, Error *err);

#endif
