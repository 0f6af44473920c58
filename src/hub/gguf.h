/* What the GGUF files of hub/ share: the architectures that are known, and the
 * step from a file's metadata to a config. */
#ifndef HUB_GGUF_H
#define HUB_GGUF_H

#include "hub/internal.h"

/* Architectures, as bits, so that a table row can serve several. */
enum {
    GGUF_LLAMA = 1, /* Llama, Mistral, SmolLM: rotary pairs interleaved in q and k */
    GGUF_QWEN2 = 2,
    GGUF_QWEN3 = 4,
    GGUF_PHI3 = 8,
    GGUF_GEMMA = 16, /* norm weights stored plus one */
    GGUF_GEMMA2 = 32,
    GGUF_BERT = 64,
    GGUF_GEMMAS = GGUF_GEMMA | GGUF_GEMMA2,
    GGUF_DECODERS = GGUF_LLAMA | GGUF_QWEN2 | GGUF_QWEN3 | GGUF_PHI3 | GGUF_GEMMAS
};

typedef struct GgufArch {
    unsigned bit;
    const char *name;       /* general.architecture */
    const char *model_type; /* of config.json */
    const char *class_name; /* its `architectures` */
    const char *activation;
} GgufArch;

/* NULL and *err when the file's architecture is not known. */
const GgufArch *gguf_arch_find(HubGguf *gguf, Error *err);
/* Everything of config.json that metadata says; sizes are checked against each
 * other. NULL on failure; caller json_decref's. */
json_t *gguf_config_make(HubGguf *gguf, const GgufArch *arch, Error *err);
/* config's rope_scaling from the stored factors of Llama 3 ([count] divisors of
 * the frequencies). */
bool gguf_rope_llama3(json_t *config, const float *factors, size_t count, Error *err);
/* The stop ids that the vocabulary implies, eos first; writes at most capacity,
 * returns how many. */
size_t gguf_stop_ids(HubGguf *gguf, int *ids, size_t capacity);
uint64_t hub_gguf_shard_bytes(const HubGguf *gguf);
/* A number as short as identifies it among floats: 1e-05 for 9.99999975e-06. */
json_t *gguf_json_float(double value);

#endif
