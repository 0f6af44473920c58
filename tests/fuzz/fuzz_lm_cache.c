/* Prompt-cache files of any bytes, and two tokens that go on from those that load. */
#include "folder.h"
#include "lm/lm.h"

#include <stdlib.h>
#include <string.h>

static LmModel *model;

static void drop(void) {
    lm_model_close(model);
}

/* A Llama of zeros: two layers, one head of 32 features, 8 tokens. */
static void start(void) {
    static const char config[] =
        "{\"model_type\":\"llama\",\"hidden_size\":32,\"intermediate_size\":8,"
        "\"num_hidden_layers\":2,\"num_attention_heads\":1,\"vocab_size\":8,"
        "\"rms_norm_eps\":1e-5}";
    static const struct {
        const char *name;
        int rows, columns;
    } parts[] = {{"mlp.gate_proj", 8, 32},           {"mlp.up_proj", 8, 32},
                 {"mlp.down_proj", 32, 8},           {"self_attn.q_proj", 32, 32},
                 {"self_attn.k_proj", 32, 32},       {"self_attn.v_proj", 32, 32},
                 {"self_attn.o_proj", 32, 32},       {"input_layernorm", 0, 32},
                 {"post_attention_layernorm", 0, 32}};
    StrBuf header = {0};
    int at = 1152;
    base_str_append(&header, "{\"model.embed_tokens.weight\":{\"dtype\":\"F32\",\"shape\":[8,32],"
                             "\"data_offsets\":[0,1024]},\"model.norm.weight\":{\"dtype\":\"F32\","
                             "\"shape\":[32],\"data_offsets\":[1024,1152]}");
    for (int layer = 0; layer < 2; layer++) {
        for (size_t i = 0; i < BASE_COUNT(parts); i++) {
            int bytes = 4 * parts[i].columns * (parts[i].rows ? parts[i].rows : 1);
            base_str_appendf(&header,
                             ",\"model.layers.%d.%s.weight\":{\"dtype\":\"F32\",\"shape\":[", layer,
                             parts[i].name);
            if (parts[i].rows) base_str_appendf(&header, "%d,", parts[i].rows);
            base_str_appendf(&header, "%d],\"data_offsets\":[%d,%d]}", parts[i].columns, at,
                             at + bytes);
            at += bytes;
        }
    }
    base_str_append(&header, "}");
    uint64_t length = header.length;
    char *file = base_calloc(1, 8 + header.length + (size_t)at);
    memcpy(file, &length, 8);
    memcpy(file + 8, header.data, header.length);
    folder_make();
    atexit(drop);
    folder_put("config.json", config, strlen(config));
    folder_put("model.safetensors", file, 8 + header.length + (size_t)at);
    free(file);
    base_str_free(&header);
    Error err = {0};
    model = lm_model_open(folder, NULL, &err);
    if (!model) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!model) start();
    folder_put("cache.safetensors", data, size);
    char *path = base_path_join(folder, "cache.safetensors");
    json_t *metadata = NULL;
    LmCache *cache = lm_cache_load(model, path, NULL, &metadata, NULL);
    if (cache && lm_cache_length(cache) < 4096) {
        static const int ids[] = {1, 2};
        LmGenerateOptions options = lm_generate_defaults();
        LmStats stats;
        Error err = {0};
        options.max_tokens = 2;
        options.cache = cache;
        if (lm_generate(model, ids, 2, &options, &stats, &err)) {
            lm_cache_trim(cache, 1);
            lm_cache_save(cache, path, size % 2 ? LM_CACHE_TEXT : LM_CACHE_TENSORS, metadata, NULL);
        }
    }
    json_decref(metadata);
    json_decref(lm_cache_metadata(path, NULL));
    lm_cache_free(cache);
    free(path);
    return 0;
}
