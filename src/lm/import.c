/* The tokenizer of a GGUF file as the files of a model folder: hub/ reads the
 * metadata, text/ makes tokenizer.json of it. */
#include "lm/import.h"

#include "hub/hub.h"
#include "text/text.h"

#include <stdlib.h>
#include <string.h>

/* ---- vocabulary -------------------------------------------------------------- */

static void read_id(HubGguf *gguf, const char *name, int32_t *id) {
    char key[64];
    double value = -1;
    snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", name);
    if (hub_gguf_number(gguf, key, &value) && value >= 0 && value <= INT32_MAX)
        *id = (int32_t)value;
}

static void read_flag(HubGguf *gguf, const char *name, int8_t *flag) {
    char key[64];
    double value = 0;
    snprintf(key, sizeof key, "tokenizer.ggml.%s", name);
    if (hub_gguf_number(gguf, key, &value)) *flag = value != 0;
}

static TextGgufVocab read_vocabulary(HubGguf *gguf) {
    TextGgufVocab vocab = TEXT_GGUF_VOCAB_NONE;
    vocab.model = hub_gguf_string(gguf, "tokenizer.ggml.model");
    vocab.pre = hub_gguf_string(gguf, "tokenizer.ggml.pre");
    vocab.tokens = hub_gguf_strings(gguf, "tokenizer.ggml.tokens", &vocab.size);
    vocab.scores = hub_gguf_floats(gguf, "tokenizer.ggml.scores", &vocab.score_count);
    vocab.types = hub_gguf_ints(gguf, "tokenizer.ggml.token_type", &vocab.type_count);
    vocab.merges = hub_gguf_strings(gguf, "tokenizer.ggml.merges", &vocab.merge_count);
    vocab.charsmap =
        hub_gguf_ints(gguf, "tokenizer.ggml.precompiled_charsmap", &vocab.charsmap_length);
    const struct {
        const char *name;
        int32_t *id;
    } ids[] = {{"bos", &vocab.bos_id},       {"eos", &vocab.eos_id},
               {"unknown", &vocab.unk_id},   {"seperator", &vocab.sep_id},
               {"separator", &vocab.sep_id}, {"padding", &vocab.pad_id},
               {"cls", &vocab.cls_id},       {"mask", &vocab.mask_id}};
    for (size_t i = 0; i < BASE_COUNT(ids); i++) read_id(gguf, ids[i].name, ids[i].id);
    const struct {
        const char *name;
        int8_t *flag;
    } flags[] = {{"add_bos_token", &vocab.add_bos},
                 {"add_eos_token", &vocab.add_eos},
                 {"add_sep_token", &vocab.add_sep},
                 {"add_space_prefix", &vocab.add_space_prefix},
                 {"remove_extra_whitespaces", &vocab.remove_extra_whitespaces}};
    for (size_t i = 0; i < BASE_COUNT(flags); i++) read_flag(gguf, flags[i].name, flags[i].flag);
    return vocab;
}

/* ---- files --------------------------------------------------------------------- */

static bool save_json(const char *folder, const char *name, const json_t *value, Error *err) {
    char *path = base_path_join(folder, name);
    bool saved = base_json_save(path, value, err);
    free(path);
    return saved;
}

static bool save_text(const char *folder, const char *name, const char *text, Error *err) {
    char *path = base_path_join(folder, name);
    bool saved = base_file_write(path, text, strlen(text), err);
    free(path);
    return saved;
}

/* The special tokens alone, for readers that look for them in a file of their own. */
static bool save_special_tokens(const char *folder, const json_t *config, Error *err) {
    json_t *map = json_object();
    for (int which = 0; which < TEXT_SPECIAL_COUNT; which++) {
        const char *key = text_special_key((TextSpecial)which);
        json_t *token = json_object_get(config, key);
        if (token && !json_is_null(token)) json_object_set(map, key, token);
    }
    bool saved = save_json(folder, "special_tokens_map.json", map, err);
    json_decref(map);
    return saved;
}

/* A template's name becomes a file's name. */
static bool is_plain_name(const char *name) {
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    size_t length = strlen(name);
    return length > 0 && length <= 64 && strspn(name, allowed) == length;
}

static bool save_templates(HubGguf *gguf, const char *folder, json_t *config, Error *err) {
    const char *template = hub_gguf_string(gguf, "tokenizer.chat_template");
    if (template) {
        json_object_set_new(config, "chat_template", json_string(template));
        if (!save_text(folder, "chat_template.jinja", template, err)) return false;
    }
    size_t count = 0;
    const char *const *names = hub_gguf_strings(gguf, "tokenizer.chat_templates", &count);
    for (size_t i = 0; i < count; i++) {
        char key[128], file[128];
        if (!is_plain_name(names[i])) continue;
        snprintf(key, sizeof key, "tokenizer.chat_template.%s", names[i]);
        snprintf(file, sizeof file, "%s.jinja", names[i]);
        const char *named = hub_gguf_string(gguf, key);
        if (!named) continue;
        char *more = base_path_join(folder, "additional_chat_templates");
        bool saved = base_make_dirs(more, err) && save_text(more, file, named, err);
        free(more);
        if (!saved) return false;
    }
    return true;
}

bool lm_import_tokenizer(HubGguf *gguf, const char *folder, Error *err) {
    TextGgufVocab vocab = read_vocabulary(gguf);
    json_t *config = NULL;
    json_t *tokenizer = text_tokenizer_json_from_gguf(&vocab, &config, err);
    /* Some converters store the original file; it is the better one. */
    const char *original = hub_gguf_string(gguf, "tokenizer.huggingface.json");
    if (tokenizer && original) {
        json_decref(tokenizer);
        tokenizer = base_json_parse(original, strlen(original), "tokenizer.huggingface.json", err);
    }
    bool saved = tokenizer && save_json(folder, "tokenizer.json", tokenizer, err) &&
                 save_templates(gguf, folder, config, err) &&
                 save_json(folder, "tokenizer_config.json", config, err) &&
                 save_special_tokens(folder, config, err);
    json_decref(tokenizer);
    json_decref(config);
    return saved;
}
