/* A GGUF file in the making. */
#ifndef HUB_GGUF_WRITE_H
#define HUB_GGUF_WRITE_H

#include "hub/export.h"
#include "hub/gguf.h"
#include "hub/gguf_pack.h"

enum { GGUF_TENSOR_DIMS = 4 };

/* One tensor to be written. With scales it is packed already, and keeps its values. */
typedef struct GgufTensor {
    char *name;
    const GgufPacking *packing;
    mlx_array array, scales, biases; /* lazy; owned */
    MxQuant quant;
    int shape[GGUF_TENSOR_DIMS], ndim; /* of the values */
} GgufTensor;

struct HubGgufOut {
    const GgufArch *arch;
    const json_t *config; /* borrowed */
    StrBuf metadata;
    uint64_t keys;
    GgufTensor *tensors;
    size_t count, capacity, kept, unpacked;
    const GgufPacking *main; /* the type of most matrices */
};

uint64_t gguf_tensor_bytes(const GgufTensor *tensor);
/* Copies the name and shares the arrays. */
void gguf_tensor_add(HubGgufOut *out, GgufTensor tensor, const char *name);

#endif
