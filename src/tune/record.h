/* Inside tune's data: a record of JSON to tokens, as an operator of data streams. */
#ifndef TUNE_RECORD_H
#define TUNE_RECORD_H

#include "data/data.h"
#include "tune/dataset.h"

typedef struct TuneRecordOptions {
    TuneSource names; /* every feature's name filled in; borrowed */
    bool mask_prompt, every_turn, pairs;
    LmModel *model; /* borrowed; may be NULL */
} TuneRecordOptions;

/* From a sample with "json" to one with "tokens" int32 [n], "targets" int32 [runs, 2];
 * of a preference also "rejected" and "rejected_targets". `first`
 * is the record that decides the form of all. NULL: consumes the buffer. */
DxBuffer *tune_record_tokens(DxBuffer *records, const TuneRecordOptions *options,
                             const json_t *first, Error *err);

#endif
