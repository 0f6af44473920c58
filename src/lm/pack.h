/* pack: which modules of an opened source change their precision, and writing it
 * as a model folder. What converting and fusing have in common. */
#ifndef LM_PACK_H
#define LM_PACK_H

#include "lm/convert.h"
#include "lm/source.h"

/* Floats to `dtype` but those that the architecture keeps. */
bool lm_pack_cast(LmSource *source, mlx_dtype dtype, Error *err);
/* Dense modules become packed ones by the rules of the options; the config says
 * which. Counts them. */
bool lm_pack_quantize(LmSource *source, const LmConvertOptions *options, size_t *count, Error *err);
/* Packed modules become dense: of the dtype of their scales, bfloat16 in the fp
 * modes. */
bool lm_pack_dequantize(LmSource *source, Error *err);
/* Bytes, parameters and bits per weight of the tensors as they stand. */
void lm_pack_measure(const LmSource *source, LmConvertReport *report);
/* Checks the space on the disk and writes everything under `output`. Uses up the
 * tensors. */
bool lm_pack_write(LmSource *source, const char *output, const LmConvertOptions *options,
                   Error *err);
/* Whether the disk of a folder, or of a file to be made, has room: better known
 * before an hour of work than after it. */
bool lm_pack_space(const char *path, uint64_t bytes, Error *err);
/* Replaces the weight of a dense module by its packed form. */
bool lm_pack_module(LmSource *source, const char *path, MxQuant quant, Error *err);

#endif
