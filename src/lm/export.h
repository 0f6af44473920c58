/* export: an MLX model as a GGUF file for llama.cpp, tokenizer and chat template
 * included. */
#ifndef LM_EXPORT_H
#define LM_EXPORT_H

#include "base/base.h"

typedef struct LmExportOptions {
    /* Of matrices: f32, f16, bf16, q8_0, q4_0, q4_1. NULL: packed ones keep their
     * values where GGUF has a type for them, all others become f16. */
    const char *type;
    bool quiet, json; /* about the progress on stderr */
} LmExportOptions;

typedef struct LmExportReport {
    char type[16]; /* of most matrices */
    uint64_t bytes;
    size_t tensors;
    size_t kept;     /* packed matrices whose values are as they were */
    size_t unpacked; /* those that had to be packed otherwise */
    double seconds;
} LmExportReport;

/* model is a folder that lm_convert would read. output is the file to write, whole or
 * not at all; it gets the ending .gguf if it has another. *written (may be NULL) is
 * its path, caller frees. In a folder the file is called ggml-model-TYPE.gguf. NULL:
 * nothing is written, the report says what would be. Fails when llama.cpp has not
 * such a model or tokenizer, when float16 cannot hold a value, on a full disk before
 * the work begins. */
bool lm_export_gguf(const char *model, const char *output, const LmExportOptions *options,
                    char **written, LmExportReport *report, Error *err);

#endif
