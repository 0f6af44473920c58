/* convert: a model folder or GGUF file becomes an MLX model folder of another
 * precision. Weights pass tensor by tensor, so memory holds the largest one and
 * what it becomes, however large the model. */
#ifndef LM_CONVERT_H
#define LM_CONVERT_H

#include "hub/hub.h"

typedef struct LmConvertOptions {
    /* Of floating tensors: float16, bfloat16, float32; NULL: config's torch_dtype,
     * else as they are. */
    const char *dtype;
    bool quantize, dequantize; /* not both */
    const char *mode;          /* affine (NULL), mxfp4, mxfp8, nvfp4 */
    int group_size, bits;      /* 0: the mode's default */
    const char *recipe;        /* mixed_2_6, mixed_3_4, mixed_3_6, mixed_4_6; NULL: none */
    /* "PATTERN=BITS[:GROUP]" or "PATTERN=no": modules whose path contains the
     * pattern; the last that fits wins, before recipe and model's own rules. */
    const char *const *overrides;
    size_t override_count;
    uint64_t shard_bytes; /* 0: 5 GiB */
    bool quiet, json;     /* about the progress on stderr */
} LmConvertOptions;

/* What comes out. */
typedef struct LmConvertReport {
    char model_type[64], dtype[16]; /* dtype "" when nothing was cast */
    uint64_t source_bytes, bytes, parameters;
    size_t tensors, quantized; /* modules */
    double bits_per_weight, seconds;
} LmConvertReport;

/* output appears whole or not at all and must not exist; NULL: nothing is
 * written, the report says what would be. Fails on an unknown mode or recipe, on
 * both quantize and dequantize, on a full disk before the work begins. */
bool lm_convert(const char *source, const char *output, const LmConvertOptions *options,
                LmConvertReport *report, Error *err);

#endif
