/* fuse: an adapter becomes part of the weights. LoRA, DoRA and fully tuned
 * tensors of mlx-lm, LoRA of PEFT; on linear layers, embeddings and experts. */
#ifndef LM_FUSE_H
#define LM_FUSE_H

#include "lm/convert.h"

typedef struct LmFuseReport {
    LmConvertReport written;
    size_t fused; /* modules */
    /* Root mean square of what packing again changed, over that of what the
     * adapter changed: above 1 the adapter is mostly lost. 0 for dense weights. */
    double packing_error;
} LmFuseReport;

/* W' as mlx_lm.fuse makes it; a packed module is unpacked, changed and packed
 * again as it was, or stays unpacked (and all others too) with dequantize. Fails
 * naming the tensor when the adapter is another model's. */
bool lm_fuse(const char *base, const char *adapter, const char *output, bool dequantize,
             const LmConvertOptions *options, LmFuseReport *report, Error *err);

#endif
