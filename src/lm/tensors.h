/* tensors: the named tensors of a model on its way from one file to another.
 *
 * A list in the order in which they will be written, found by name. Arrays are
 * lazy: shapes and dtypes are known, values are computed when a tensor is
 * written. */
#ifndef LM_TENSORS_H
#define LM_TENSORS_H

#include "hub/hub.h"

typedef struct LmTensors {
    HubTensor *items; /* a removed one has a NULL name until lm_tensors_pack */
    size_t count, capacity;
    uint32_t *slots; /* hash of the name -> index + 1 */
    size_t slot_count;
} LmTensors;

void lm_tensors_free(LmTensors *tensors);
/* Shares the array and copies the name; replaces a tensor of that name. An empty
 * array (a failure of mx) is passed over. */
void lm_tensors_add(LmTensors *tensors, const char *name, mlx_array array);
/* Borrowed; empty when there is none. */
mlx_array lm_tensors_get(const LmTensors *tensors, const char *name);
mlx_array lm_tensors_find(const LmTensors *tensors, const char *format, ...) BASE_PRINTF(2, 3);
void lm_tensors_remove(LmTensors *tensors, const char *name);
/* The array of `name` moves to the name `to`. */
void lm_tensors_rename(LmTensors *tensors, const char *name, const char *to);
/* Closes the gaps of removed tensors and puts the list into the order in which
 * mlx-lm's modules define their parameters: embeddings, layers by number, head;
 * in a layer attention, feed-forward, norms; in a module weight, scales, biases,
 * bias. */
void lm_tensors_order(LmTensors *tensors);

#endif
