/* What attention needs of a quantised cache beyond the face of nn. */
#ifndef NN_CACHE_H
#define NN_CACHE_H

#include "nn/nn.h"

/* Appends keys and values [B, kv_heads, L, D]; all_keys and all_values become
 * the packed rows, scales and biases of everything held. */
void nn_kv_update_quantized(KvCache *cache, mlx_array keys, mlx_array values, mlx_array all_keys[3],
                            mlx_array all_values[3]);

#endif
