/* A tiny decoder of golden/hf as a reranker: its weights, the tokenizer of
 * golden/rag/judge, and room for so many tokens; and what transformers gave. */
#ifndef TESTS_LM_JUDGE_FOLDER_H
#define TESTS_LM_JUDGE_FOLDER_H

#include <stdlib.h>
#include <unistd.h>

#include "base/base.h"

static inline void judge_copy(const char *from, const char *folder, const char *name) {
    Error err = {0};
    char *data = NULL, *to = base_path_join(folder, name);
    size_t length = 0;
    if (!base_file_read(from, &data, &length, &err) || !base_file_write(to, data, length, &err))
        fail_msg("%s", err.message);
    free(data);
    free(to);
}

enum { JUDGE_TOKENS = 512 }; /* of the golden numbers */

/* Files of golden/hf/<name> in a folder that exists. */
static inline void judge_fill(const char *folder, const char *name, int tokens) {
    Error err = {0};
    char *weights = base_format(GOLDEN "/hf/%s/model.safetensors", name);
    char *config = base_format(GOLDEN "/hf/%s/config.json", name);
    judge_copy(weights, folder, "model.safetensors");
    judge_copy(GOLDEN "/rag/judge/tokenizer.json", folder, "tokenizer.json");
    json_t *settings = base_json_load(config, &err);
    json_object_set_new(settings, "max_position_embeddings", json_integer(tokens));
    char *text = json_dumps(settings, 0), *path = base_path_join(folder, "config.json");
    if (!base_file_write(path, text, strlen(text), &err)) fail_msg("%s", err.message);
    json_decref(settings);
    free(weights);
    free(config);
    free(text);
    free(path);
}

static inline json_t *judge_golden(void) {
    Error err = {0};
    json_t *golden = base_json_load(GOLDEN "/rag/judge/judge.json", &err);
    if (!golden) fail_msg("%s", err.message);
    return golden;
}

static inline void judge_remove(char *folder) {
    static const char *const names[] = {"model.safetensors", "tokenizer.json", "config.json"};
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        char *path = base_path_join(folder, names[i]);
        unlink(path);
        free(path);
    }
    rmdir(folder);
    free(folder);
}

#endif
