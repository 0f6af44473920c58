/* Rows of a model's weights as GGUF's blocks: from floats, with ggml's rounding,
 * or from MLX's packed words with their values as they are. */
#ifndef HUB_GGUF_PACK_H
#define HUB_GGUF_PACK_H

#include "base/base.h"
#include "mx/mx.h"

enum { GGUF_BLOCK = 32, GGUF_BLOCK_BYTES = 34 };

typedef struct GgufPacking {
    const char *name;      /* "q4_0" */
    uint32_t id;           /* number of the tensor type in the file */
    uint32_t file_type;    /* general.file_type of a file that mostly holds it */
    uint16_t items, bytes; /* of a block */
    mlx_dtype dtype;       /* of plain types, whose items are 1 */
    /* One block from floats, as ggml's reference rounds; NULL: plain, or a type that
     * only packed weights become. */
    void (*round)(const float *x, uint8_t *block);
    /* One block from quantised values: w = scale q + bias. */
    void (*keep)(const uint8_t *q, float scale, float bias, uint8_t *block);
} GgufPacking;

/* NULL when there is no such type. */
const GgufPacking *gguf_packing(const char *name);
const GgufPacking *gguf_packing_at(size_t index); /* NULL past the end */

/* rows x width floats -> blocks; width is a multiple of the block. */
void gguf_pack_floats(const GgufPacking *packing, const float *x, size_t rows, size_t width,
                      uint8_t *out);

/* MLX's packed rows: `bits` a value from the lowest bit on, the scales and biases of
 * a row for groups of group_size values. biases is NULL in mode mxfp4, whose scales
 * are exponents. */
typedef struct GgufPacked {
    const uint8_t *words, *exponents; /* [rows, width * bits / 8], [rows, width / group_size] */
    const float *scales, *biases;     /* [rows, width / group_size] */
    size_t rows, width;
    int bits, group_size;
} GgufPacked;
/* False when float16 cannot hold a scale or bias. */
bool gguf_pack_words(const GgufPacking *packing, const GgufPacked *packed, uint8_t *out);

#endif
