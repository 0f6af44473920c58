/* source: where a conversion reads from. A model folder (MLX, Hugging Face, or
 * quantised by another tool) or a GGUF file, opened as one config and one list
 * of lazy tensors in mlx-lm's names. */
#ifndef LM_SOURCE_H
#define LM_SOURCE_H

#include "lm/tensors.h"

typedef struct LmSource {
    char *path;
    HubGguf *gguf;  /* NULL for a folder; its metadata, the tensors are in the list */
    json_t *config; /* owned, may be changed; `quantization` describes the tensors */
    LmTensors tensors;
} LmSource;

/* NULL on failure; caller frees with lm_source_free. gguf_dtype: of the floats of
 * a GGUF file, NULL for the file's own. Inside an open scope. */
LmSource *lm_source_open(const char *path, const char *gguf_dtype, Error *err);
void lm_source_free(LmSource *source); /* NULL ok */

/* How the module at `path` is packed; false when dense. */
bool lm_source_quant(const LmSource *source, const char *path, MxQuant *quant);

/* Copies what goes with the weights into a folder: the tokenizer, templates,
 * generation settings, *.py, pooling; for GGUF makes them. Adds the stop ids to
 * config. Refuses links that lead out of the source folder. */
bool lm_source_copy_files(LmSource *source, const char *folder, Error *err);

/* foreign.c: weights packed by AWQ, GPTQ, compressed-tensors, FP8 or for bitnet
 * become MLX's, config's quantization with them. */
bool lm_foreign_adopt(LmTensors *tensors, json_t *config, Error *err);

#endif
