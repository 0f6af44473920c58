/* Inside data: what the operators of this library are made of. */
#ifndef DATA_STEP_H
#define DATA_STEP_H

#include "data/buffer.h"

/* What such an operator was told; each uses the fields that it needs. */
typedef struct DxStepArgs {
    char *identity; /* for saved states; owned */
    DxKey key, to;
    int axis;
    int64_t first, second;
    double value;
    bool flag;
    char *text, *other; /* owned */
    size_t text_length, other_length;
    DxKey *keys; /* owned */
    size_t n_keys;
} DxStepArgs;

typedef DxStatus (*DxApply)(void *self, DxSample **sample, DxRandom *random, Error *err);

/* The step, which takes `args`' owned fields; refused, with them freed, when !valid. */
DxStep dx_step_new(const char *name, DxApply apply, DxStepArgs args, bool valid, Error *err);
/* The array of a sample's `key`, and its axis counted from the front. NULL and *err. */
DxArray *dx_step_array(const DxStepArgs *args, const DxSample *sample, int *axis, Error *err);
/* Puts a result under `to`; DX_FAIL when it is NULL. */
DxStatus dx_step_put(const DxStepArgs *args, DxSample **sample, DxArray *value);

#endif
