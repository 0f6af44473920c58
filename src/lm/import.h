/* import: a model file of another program becomes an MLX model folder. */
#ifndef LM_IMPORT_H
#define LM_IMPORT_H

#include "base/base.h"

typedef struct LmImport {
    const char *
        dtype; /* of floating tensors: float16, bfloat16, float32; NULL: the file's, else float16 */
} LmImport;

/* Turns a GGUF file into a model folder that mlx_lm.load opens: config, weights,
 * tokenizer, chat template, stop ids. The folder appears whole or not at all;
 * fails if `output` exists already. */
bool lm_import_gguf(const char *gguf, const char *output, const LmImport *options, Error *err);

#endif
