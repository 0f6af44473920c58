/* The names under which the program may also be called: links to it, installed beside
 * it, that stand for a command or for a group of them. */
#include "cli/commands.h"

#include <string.h>

/* With `command` the link is that command, or begins its name: "model". Without, it
 * takes a command's name, of those in `only` when that is given. */
static const CommandLink links[] = {
    {"model-cli", "model", NULL, NULL},
    {"rag-cli", NULL, "rag ingest search ask embed rerank eval-rag index", "rag"},
    {"ingest-cli", "ingest-banks", NULL, NULL},
    {"train-cli", "train", NULL, NULL},
    {"mlx_lm", NULL, NULL, NULL},
    {"mlx_lm.benchmark", "benchmark", NULL, NULL},
    {"mlx_lm.cache_prompt", "cache-prompt", NULL, NULL},
    {"mlx_lm.chat", "chat", NULL, NULL},
    {"mlx_lm.convert", "convert", NULL, NULL},
    {"mlx_lm.evaluate", "evaluate", NULL, NULL},
    {"mlx_lm.fuse", "fuse", NULL, NULL},
    {"mlx_lm.generate", "generate", NULL, NULL},
    {"mlx_lm.lora", "lora", NULL, NULL},
    {"mlx_lm.manage", "manage", NULL, NULL},
    {"mlx_lm.perplexity", "perplexity", NULL, NULL},
};

const CommandLink *command_link(const char *called) {
    const char *name = base_path_name(called);
    for (size_t i = 0; i < BASE_COUNT(links); i++)
        if (strcmp(links[i].name, name) == 0) return &links[i];
    return NULL;
}

const CommandLink *command_link_at(size_t index) {
    return index < BASE_COUNT(links) ? &links[index] : NULL;
}

bool command_link_has(const CommandLink *link, const char *command) {
    if (!link || !link->only) return true;
    const size_t length = strcspn(command, " "); /* "index" offers "index info" */
    for (const char *at = link->only; *at; at += strspn(at, " ")) {
        const size_t word = strcspn(at, " ");
        if (word == length && strncmp(at, command, length) == 0) return true;
        at += word;
    }
    return false;
}
