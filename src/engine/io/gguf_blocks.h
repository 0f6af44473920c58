/* GGUF's tensor types: how many items a block holds, in how many bytes, and
 * what becomes of it. */
#ifndef ENGINE_IO_GGUF_BLOCKS_H
#define ENGINE_IO_GGUF_BLOCKS_H

#include "mlx/c/array.h"

#include <stddef.h>
#include <stdint.h>

enum { GGUF_AFFINE_GROUP = 32, GGUF_BLOCK_MAX = 256 };

typedef struct GgufType {
    uint32_t id;           /* number in the file */
    const char *name;      /* "Q4_0" */
    uint16_t items, bytes; /* of a block; 1 item for plain types */
    mlx_dtype dtype;       /* of the resulting array */
    /* To float32, one block; NULL for plain types and those with `repack`. */
    void (*expand)(const uint8_t *block, float *out);
    /* To MLX's affine layout, exactly: `bits` words of 32 packed items, and the
     * float16 scale and bias of the group; NULL for the others. */
    void (*repack)(const uint8_t *block, uint32_t *packed, uint16_t *scale, uint16_t *bias);
    uint8_t bits;
} GgufType;

const GgufType *gguf_type(uint32_t id); /* NULL when it is not supported */
/* The type that saving uses for arrays of this dtype; NULL when there is none. */
const GgufType *gguf_type_of(mlx_dtype dtype);

#endif
