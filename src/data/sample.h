/* Inside data: what a sample is made of, for the operators that walk its fields. */
#ifndef DATA_SAMPLE_H
#define DATA_SAMPLE_H

#include "data/data.h"

#include <stdatomic.h>

typedef struct DxField {
    DxKey key;
    DxArray *value;
} DxField;

enum { SAMPLE_INLINE = 4 };

struct DxSample {
    _Atomic uint32_t references;
    uint32_t count, capacity;
    DxField *fields; /* `few`, or allocated when there are more */
    DxRecord record;
    DxField few[SAMPLE_INLINE];
};

/* A new sample of one field, which is taken. */
DxSample *dx_sample_of(DxKey key, DxArray *value, DxRecord record);
/* A new sample that shares all fields but one. */
DxSample *dx_sample_without(const DxSample *sample, DxKey key);

#endif
