/* What the files of hub/ share. */
#ifndef HUB_INTERNAL_H
#define HUB_INTERNAL_H

#include "hub/hub.h"

/* ---- quantization settings (config.c) ----------------------------------- */

/* A packing mode: its defaults and what it allows; 0 ends a list. */
typedef struct HubMode {
    const char *name;
    int group_size, bits;
    int groups[3], widths[6];
} HubMode;

/* The object that governs, or NULL: `quantization`, else `quantization_config`. */
const json_t *hub_config_quantization(const json_t *config);
bool hub_quantization_global(const json_t *quantization, MxQuant *quant);
typedef enum { HUB_ENTRY_ABSENT, HUB_ENTRY_DENSE, HUB_ENTRY_QUANTISED } HubQuantEntry;
/* What is said about one module by name. */
HubQuantEntry hub_quantization_entry(const json_t *quantization, const char *path, MxQuant *quant);
size_t hub_config_eos(const json_t *config, int *ids, size_t capacity);

/* ---- tensors (model.c) ----------------------------------------------------- */

/* Values of a packed weight with `bits` a value, or elements of a dense one. */
uint64_t hub_logical_size(mlx_array weight, int bits);
/* One safetensors file of the tensors whose shard is `index`; of all when `shard`
 * is NULL. */
bool hub_tensors_stream(const char *path, HubTensor *tensors, size_t count, const size_t *shard,
                        size_t index, const HubSave *how, Error *err);
/* Sorts by name, in byte order. */
void hub_tensors_sort(HubTensor *tensors, size_t count);
void hub_tensors_free(HubTensor *tensors, size_t count);

#endif
