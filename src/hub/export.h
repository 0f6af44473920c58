/* Writing GGUF files: metadata by key, and a model's tensors as llama.cpp names
 * and packs them.
 *
 *     HubGgufOut *out = hub_gguf_out_new(config, &err);
 *     hub_gguf_out_text(out, "tokenizer.ggml.model", "gpt2");
 *     ...
 *     hub_gguf_out_model(out, tensors, count, "q8_0", &err) &&
 *         hub_gguf_out_write(out, "model.gguf", NULL, &err);
 *     hub_gguf_out_free(out);
 */
#ifndef HUB_EXPORT_H
#define HUB_EXPORT_H

#include "hub/hub.h"

typedef struct HubGgufOut HubGgufOut;

/* The settings of config.json as metadata. NULL and *err when llama.cpp has no
 * such architecture, or the config says what a GGUF cannot. config is borrowed
 * until the end. Caller frees with hub_gguf_out_free. */
HubGgufOut *hub_gguf_out_new(const json_t *config, Error *err);
void hub_gguf_out_free(HubGgufOut *out); /* NULL ok */

/* Metadata; a key is set once. Copies. */
void hub_gguf_out_text(HubGgufOut *out, const char *key, const char *value);
void hub_gguf_out_size(HubGgufOut *out, const char *key, uint32_t value);
void hub_gguf_out_float(HubGgufOut *out, const char *key, float value);
void hub_gguf_out_flag(HubGgufOut *out, const char *key, bool value);
void hub_gguf_out_texts(HubGgufOut *out, const char *key, const char *const *values, size_t count);
void hub_gguf_out_floats(HubGgufOut *out, const char *key, const float *values, size_t count);
void hub_gguf_out_ints(HubGgufOut *out, const char *key, const int32_t *values, size_t count);

/* Plans the tensors of a decoder in mlx-lm's names. Matrices become `type`: f32,
 * f16, bf16, q8_0, q4_0 or q4_1; NULL keeps packed ones exactly as they are where a
 * GGUF type holds their values, and makes all others f16. Norms and biases are f32.
 * Fails on a tensor that llama.cpp does not know and on one that is missing. Shares
 * the arrays; they are computed when they are written. */
bool hub_gguf_out_model(HubGgufOut *out, const HubTensor *tensors, size_t count, const char *type,
                        Error *err);

/* What is planned. */
typedef struct HubGgufPlan {
    uint64_t bytes; /* of the tensors */
    size_t tensors;
    size_t kept;      /* packed matrices that keep their values */
    size_t unpacked;  /* packed matrices that had to be packed otherwise */
    const char *type; /* of most matrices, "q4_1" */
} HubGgufPlan;
HubGgufPlan hub_gguf_out_plan(const HubGgufOut *out);

/* Writes the file, whole or not at all, a tensor at a time. progress may be NULL and
 * grows by bytes. */
bool hub_gguf_out_write(HubGgufOut *out, const char *path, Progress *progress, Error *err);

#endif
