/* Inside data: how samples are put together, for batch and dynamic batch. */
#ifndef DATA_BATCH_H
#define DATA_BATCH_H

#include "data/stream.h"

typedef struct BatchPad {
    DxKey key;
    double value;
} BatchPad;
typedef struct BatchJoin {
    DxKey key;
    int axis;
} BatchJoin;
typedef struct BatchRules {
    BatchPad *pads;
    BatchJoin *joins;
    size_t n_pads, n_joins;
} BatchRules;

bool dx_batch_rules(const DxBatchOptions *options, BatchRules *rules, Error *err);
void dx_batch_rules_free(BatchRules *rules);
void dx_batch_rules_identity(const BatchRules *rules, StrBuf *text);
/* One sample of samples[0..count), which are borrowed. NULL on failure. */
DxSample *dx_batch_join(DxSample *const *samples, size_t count, const BatchRules *rules,
                        Error *err);

#endif
