/* Opening a tokenizer: tokenizer.json, from bytes or from a tree, and the side
 * files of a model folder with their precedence. */
#include "text/tokenizer_parts.h"
#include "text/tokenizer_scan.h"

#include <sys/stat.h>

/* ---- tokenizer.json but for vocabulary and merges ------------------------ */

static bool check_top_level(const json_t *json, Error *err) {
    static const char *const known[] = {"version",        "truncation", "padding",
                                        "added_tokens",   "normalizer", "pre_tokenizer",
                                        "post_processor", "decoder",    "model"};
    if (!json_is_object(json)) return base_fail(err, ERROR_INPUT, "not a JSON object");
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)json, key, value) {
        size_t i = 0;
        while (i < BASE_COUNT(known) && strcmp(key, known[i]) != 0) i++;
        if (i == BASE_COUNT(known))
            return base_fail(err, ERROR_UNSUPPORTED, "unknown member \"%.60s\"", key);
    }
    const json_t *version = json_object_get(json, "version");
    if (version && (!json_is_string(version) || strcmp(json_string_value(version), "1.0") != 0))
        return base_fail(err, ERROR_UNSUPPORTED,
                         "unknown tokenizer version \"%.20s\"; only \"1.0\" is known",
                         json_is_string(version) ? json_string_value(version) : "?");
    return true;
}

static bool read_truncation(const json_t *json, TextTokenizer *tokenizer, Error *err) {
    static const char *const strategies[] = {"LongestFirst", "OnlyFirst", "OnlySecond"};
    TextFileTruncation *out = &tokenizer->truncation;
    if (!json || json_is_null(json)) return true;
    if (!text_json_size(json, "max_length", 512, "truncation", &out->max_length, err) ||
        !text_json_size(json, "stride", 0, "truncation", &out->stride, err))
        return false;
    const char *strategy = json_string_value(json_object_get(json, "strategy"));
    const char *direction = json_string_value(json_object_get(json, "direction"));
    for (size_t i = 0; strategy && i < BASE_COUNT(strategies); i++)
        if (strcmp(strategy, strategies[i]) == 0) out->strategy = (TextTruncation)i;
    out->keep_left = direction && strcmp(direction, "Left") == 0;
    tokenizer->has_truncation = true;
    return true;
}

static bool read_padding(const json_t *json, TextTokenizer *tokenizer, Error *err) {
    TextFilePadding *out = &tokenizer->padding;
    size_t pad_id, pad_type_id;
    if (!json || json_is_null(json)) return true;
    if (!text_json_size(json, "pad_to_multiple_of", 0, "padding", &out->multiple_of, err) ||
        !text_json_size(json, "pad_id", 0, "padding", &pad_id, err) ||
        !text_json_size(json, "pad_type_id", 0, "padding", &pad_type_id, err) ||
        !text_json_string(json, "pad_token", "[PAD]", "padding", &tokenizer->pad_token, err))
        return false;
    if (pad_id >= TEXT_MAX_IDS || pad_type_id > INT32_MAX)
        return base_fail(err, ERROR_INPUT, "padding: pad_id out of range");
    const json_t *strategy = json_object_get(json, "strategy");
    json_int_t fixed = json_integer_value(json_object_get(strategy, "Fixed"));
    const char *direction = json_string_value(json_object_get(json, "direction"));
    out->fixed_length = fixed > 0 ? (size_t)fixed : 0;
    out->left = direction && strcmp(direction, "Left") == 0;
    out->pad_id = (int32_t)pad_id;
    out->pad_type_id = (int32_t)pad_type_id;
    out->pad_token = tokenizer->pad_token;
    tokenizer->has_padding = true;
    return true;
}

/* One entry of added_tokens (all members required) or of added_tokens_decoder
 * and special token objects (members default to false, as Transformers has it). */
static bool put_added(TextTokenizer *tokenizer, const json_t *json, const char *where,
                      bool required, bool special, Error *err) {
    static const char *const members[] = {"single_word", "lstrip", "rstrip", "normalized",
                                          "special"};
    const json_t *content = json_object_get(json, "content");
    if (!json_is_string(content))
        return base_fail(err, ERROR_INPUT, "%s: an entry lacks its \"content\"", where);
    for (size_t i = 0; required && i < BASE_COUNT(members); i++)
        if (!json_is_boolean(json_object_get(json, members[i])))
            return base_fail(err, ERROR_INPUT, "%s: \"%.60s\" lacks \"%s\"", where,
                             json_string_value(content), members[i]);
    TextAdded token = {.content = (char *)(uintptr_t)json_string_value(content)};
    bool ok = text_json_bool(json, "single_word", false, where, &token.single_word, err) &&
              text_json_bool(json, "lstrip", false, where, &token.lstrip, err) &&
              text_json_bool(json, "rstrip", false, where, &token.rstrip, err) &&
              text_json_bool(json, "special", special, where, &token.special, err) &&
              text_json_bool(json, "normalized", !token.special, where, &token.normalized, err);
    if (ok) text_added_put(&tokenizer->added, &tokenizer->model.vocab, &token);
    return ok;
}

static bool read_added(const json_t *json, TextTokenizer *tokenizer, Error *err) {
    if (!json || json_is_null(json)) return true;
    if (!json_is_array(json)) return base_fail(err, ERROR_INPUT, "\"added_tokens\" must be a list");
    for (size_t i = 0; i < json_array_size(json); i++)
        if (!put_added(tokenizer, json_array_get(json, i), "added_tokens", true, false, err))
            return false;
    return true;
}

static bool read_parts(TextTokenizer *tokenizer, const json_t *json, Error *err) {
    return check_top_level(json, err) &&
           read_truncation(json_object_get(json, "truncation"), tokenizer, err) &&
           read_padding(json_object_get(json, "padding"), tokenizer, err) &&
           text_normalizers_load(json_object_get(json, "normalizer"), &tokenizer->normalizers,
                                 err) &&
           text_pre_tokenizers_load(json_object_get(json, "pre_tokenizer"),
                                    &tokenizer->pre_tokenizers, err) &&
           text_post_load(json_object_get(json, "post_processor"), &tokenizer->post, err) &&
           text_decoders_load(json_object_get(json, "decoder"), &tokenizer->decoders, err) &&
           text_model_load(json_object_get(json, "model"), &tokenizer->model, err);
}

/* ---- vocabulary and merges from a tree ---------------------------------- */

static bool scored_from_tree(const json_t *vocab, TextModel *model, Error *err) {
    if (!json_is_array(vocab))
        return base_fail(err, ERROR_INPUT, "model: \"vocab\" must be a list of tokens and scores");
    text_vocab_reserve(&model->vocab, 8 * json_array_size(vocab), json_array_size(vocab));
    for (size_t i = 0; i < json_array_size(vocab); i++) {
        const json_t *entry = json_array_get(vocab, i);
        const json_t *text = json_array_get(entry, 0), *score = json_array_get(entry, 1);
        if (!json_is_string(text) || !json_is_number(score))
            return base_fail(err, ERROR_INPUT,
                             "model: entry %zu of \"vocab\" is not a token and its score", i);
        if (!text_model_add_scored(model, json_string_value(text), json_string_length(text),
                                   json_number_value(score), err))
            return false;
    }
    return true;
}

static bool vocab_from_tree(const json_t *vocab, TextModel *model, Error *err) {
    if (model->kind == MODEL_UNIGRAM) return scored_from_tree(vocab, model, err);
    if (!json_is_object(vocab))
        return base_fail(err, ERROR_INPUT, "model: \"vocab\" must be an object of token to id");
    text_vocab_reserve(&model->vocab, 8 * json_object_size(vocab), json_object_size(vocab));
    const char *token;
    json_t *id;
    json_object_foreach((json_t *)(uintptr_t)vocab, token, id) {
        if (!json_is_integer(id))
            return base_fail(err, ERROR_INPUT,
                             "model: the id of token \"%.60s\" is not a whole number", token);
        if (!text_vocab_add(&model->vocab, token, strlen(token), json_integer_value(id), err))
            return false;
    }
    return true;
}

bool text_merge_cut(const char *text, size_t length, size_t *space) {
    const char *found = memchr(text, ' ', length);
    if (!found || memchr(found + 1, ' ', length - (size_t)(found - text) - 1)) return false;
    *space = (size_t)(found - text);
    return true;
}

static bool merges_from_tree(const json_t *merges, TextModel *model, Error *err) {
    if (!json_is_array(merges))
        return base_fail(err, ERROR_INPUT, "model: \"merges\" must be a list");
    size_t count = json_array_size(merges), waiting = 0;
    TextPiece texts[TEXT_BATCH];
    text_model_start_merges(model, count);
    for (size_t i = 0; i < count; i++) {
        const json_t *merge = json_array_get(merges, i);
        const char *left = json_string_value(merge ? json_array_get(merge, 0) : NULL);
        const char *right = json_string_value(merge ? json_array_get(merge, 1) : NULL);
        size_t space, length = json_string_length(merge);
        if (json_is_string(merge)) {
            left = json_string_value(merge);
            if (base_starts_with(left, "#version")) continue;
            if (!text_merge_cut(left, length, &space))
                return base_fail(err, ERROR_INPUT,
                                 "model: merge %zu is not two parts with a space between", i);
            texts[waiting++] = (TextPiece){left, space};
            texts[waiting++] = (TextPiece){left + space + 1, length - space - 1};
        } else if (left && right && json_array_size(merge) == 2) {
            texts[waiting++] = (TextPiece){left, strlen(left)};
            texts[waiting++] = (TextPiece){right, strlen(right)};
        } else {
            return base_fail(err, ERROR_INPUT, "model: merge %zu is not a pair of strings", i);
        }
        if (waiting < TEXT_BATCH) continue;
        if (!text_model_add_merges(model, texts, waiting / 2, err)) return false;
        waiting = 0;
    }
    return text_model_add_merges(model, texts, waiting / 2, err);
}

/* Everything read: tables, and the ids of the added tokens. */
static bool finish_model(TextTokenizer *tokenizer, Error *err) {
    if (!text_model_finish(&tokenizer->model, err)) return false;
    TextPreTokenizers *pre = &tokenizer->pre_tokenizers;
    TextModel *model = &tokenizer->model;
    model->raw_bytes = model->raw_bytes && model->kind == MODEL_BPE && pre->ends_in_bytes;
    if (model->raw_bytes) /* the model reads bytes itself: no need to spell them out */
        pre->parts[pre->count - 1].map_bytes = false;
    return true;
}

bool text_tokenizer_load_tree(TextTokenizer *tokenizer, const json_t *json, Error *err) {
    const json_t *model = json_object_get(json, "model");
    return read_parts(tokenizer, json, err) &&
           vocab_from_tree(json_object_get(model, "vocab"), &tokenizer->model, err) &&
           (tokenizer->model.kind != MODEL_BPE ||
            merges_from_tree(json_object_get(model, "merges"), &tokenizer->model, err)) &&
           finish_model(tokenizer, err) &&
           read_added(json_object_get(json, "added_tokens"), tokenizer, err);
}

/* ---- from bytes --------------------------------------------------------- */

/* The file with the vocabulary and the merges cut out is small, and goes
 * through the JSON library; the two are read in place. */
bool text_tokenizer_load_bytes(TextTokenizer *tokenizer, const char *json, size_t length,
                               const char *name, Error *err) {
    TextScan scan;
    json_t *tree;
    if (!text_scan_find(json, length, &scan)) {
        tree = base_json_parse(json, length, name, err);
        bool ok = tree && text_tokenizer_load_tree(tokenizer, tree, err);
        json_decref(tree);
        return ok;
    }
    StrBuf rest = {0};
    text_scan_rest(json, length, &scan, &rest);
    tree = base_json_parse(rest.data, rest.length, name, NULL);
    base_str_free(&rest);
    if (!tree) /* again as a whole, for a message with the right line */
        tree = base_json_parse(json, length, name, err);
    bool ok = tree && read_parts(tokenizer, tree, err) &&
              text_scan_vocab(json, &scan, &tokenizer->model, err) &&
              (tokenizer->model.kind != MODEL_BPE ||
               text_scan_merges(json, &scan, &tokenizer->model, err)) &&
              finish_model(tokenizer, err) &&
              read_added(json_object_get(tree, "added_tokens"), tokenizer, err);
    json_decref(tree);
    return ok;
}

/* ---- side files --------------------------------------------------------- */

static const char *const special_keys[TEXT_SPECIAL_COUNT] = {
    [TEXT_BOS] = "bos_token",   [TEXT_EOS] = "eos_token", [TEXT_UNK] = "unk_token",
    [TEXT_SEP] = "sep_token",   [TEXT_PAD] = "pad_token", [TEXT_CLS] = "cls_token",
    [TEXT_MASK] = "mask_token",
};

const char *text_special_key(TextSpecial which) {
    return special_keys[which];
}

/* The text of a special token given as a string or as an object. */
static const char *special_text(const json_t *value) {
    return json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
}

static int by_number(const void *left, const void *right) {
    long long a = strtoll(*(const char *const *)left, NULL, 10),
              b = strtoll(*(const char *const *)right, NULL, 10);
    return (a > b) - (a < b);
}

static bool apply_decoder_table(TextTokenizer *tokenizer, const json_t *table, Error *err) {
    size_t count = 0;
    const char **keys = base_calloc(json_object_size(table) + 1, sizeof *keys), *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)table, key, value) keys[count++] = key;
    qsort(keys, count, sizeof *keys, by_number);
    bool ok = true;
    for (size_t i = 0; i < count && ok; i++)
        ok = put_added(tokenizer, json_object_get(table, keys[i]), "added_tokens_decoder", false,
                       false, err);
    free(keys);
    return ok;
}

static bool apply_special_map(TextTokenizer *tokenizer, const json_t *map, Error *err) {
    for (size_t i = 0; i < TEXT_SPECIAL_COUNT; i++) {
        const json_t *value = json_object_get(map, special_keys[i]);
        if (json_is_object(value) &&
            !put_added(tokenizer, value, "special_tokens_map", false, true, err))
            return false;
    }
    return true;
}

static void apply_added_file(TextTokenizer *tokenizer, const json_t *map) {
    const char *content;
    json_t *id;
    json_object_foreach((json_t *)(uintptr_t)map, content, id) {
        const TextAdded *old = text_added_by_content(&tokenizer->added, content);
        bool special = old && old->special;
        TextAdded token = {
            .content = (char *)(uintptr_t)content, .special = special, .normalized = !special};
        if (!old) text_added_put(&tokenizer->added, &tokenizer->model.vocab, &token);
    }
}

/* Named special tokens and extra ones become special added tokens where the
 * files above did not say so. */
static void put_special(TextTokenizer *tokenizer, const char *text) {
    TextAdded token = {.content = (char *)(uintptr_t)text, .special = true};
    if (!text_added_by_content(&tokenizer->added, text))
        text_added_put(&tokenizer->added, &tokenizer->model.vocab, &token);
}

static bool apply_side_files(TextTokenizer *tokenizer, const json_t *config, const json_t *map,
                             const json_t *added, Error *err) {
    const json_t *table = json_object_get(config, "added_tokens_decoder");
    if (json_is_object(table)) {
        if (!apply_decoder_table(tokenizer, table, err)) return false;
    } else {
        if (!apply_special_map(tokenizer, map, err)) return false;
        apply_added_file(tokenizer, added);
    }
    static const char *const extra_keys[] = {"additional_special_tokens", "extra_special_tokens"};
    for (size_t i = 0; i < TEXT_SPECIAL_COUNT; i++) {
        const char *text = special_text(json_object_get(config, special_keys[i]));
        if (!text && !json_object_get(config, special_keys[i]))
            text = special_text(json_object_get(map, special_keys[i]));
        if (!text || !*text) continue;
        put_special(tokenizer, text);
        tokenizer->special[i].text = base_strdup(text);
        tokenizer->special[i].id = text_added_by_content(&tokenizer->added, text)->id;
    }
    for (size_t i = 0; i < BASE_COUNT(extra_keys); i++) {
        const json_t *list = json_object_get(config, extra_keys[i]);
        for (size_t k = 0; k < json_array_size(list); k++) {
            const char *text = special_text(json_array_get(list, k));
            if (text && *text) put_special(tokenizer, text);
        }
    }
    double longest = json_number_value(json_object_get(config, "model_max_length"));
    tokenizer->max_length = longest >= 1 && longest < 1e9 ? (size_t)longest : 0;
    return true;
}

static void finish(TextTokenizer *tokenizer) {
    TextWork *work = text_work_take(tokenizer);
    text_added_finish(&tokenizer->added, &tokenizer->normalizers, work);
    text_work_give(tokenizer, work);
    tokenizer->vocab_size =
        BASE_MAX((int32_t)tokenizer->model.vocab.size, tokenizer->added.next_id);
}

/* ---- the face ----------------------------------------------------------- */

static TextTokenizer *new_tokenizer(void) {
    text_unicode_prepare();
    TextTokenizer *tokenizer = base_calloc(1, sizeof *tokenizer);
    pthread_mutex_init(&tokenizer->lock, NULL);
    for (size_t i = 0; i < TEXT_SPECIAL_COUNT; i++) tokenizer->special[i].id = -1;
    return tokenizer;
}

static TextTokenizer *finish_or_free(TextTokenizer *tokenizer, bool ok) {
    if (ok) {
        finish(tokenizer);
        return tokenizer;
    }
    text_tokenizer_free(tokenizer);
    return NULL;
}

TextTokenizer *text_tokenizer_from_json(const json_t *json, const json_t *config, Error *err) {
    TextTokenizer *tokenizer = new_tokenizer();
    bool ok = text_tokenizer_load_tree(tokenizer, json, err) &&
              apply_side_files(tokenizer, config, NULL, NULL, err);
    return finish_or_free(tokenizer, ok);
}

TextTokenizer *text_tokenizer_from_bytes(const char *json, size_t length, const char *name,
                                         const json_t *config, Error *err) {
    TextTokenizer *tokenizer = new_tokenizer();
    bool ok = text_tokenizer_load_bytes(tokenizer, json, length, name, err) &&
              apply_side_files(tokenizer, config, NULL, NULL, err);
    if (!ok) base_error_context(err, "%s", name);
    return finish_or_free(tokenizer, ok);
}

/* A side file that may be missing. */
static bool load_optional(const char *folder, const char *name, json_t **out, Error *err) {
    char *path = base_path_join(folder, name);
    bool present = base_is_file(path), inside = base_path_inside(folder, path, err);
    *out = present && inside ? base_json_load(path, err) : NULL;
    bool ok = *out || !present;
    free(path);
    return ok;
}

/* The files that hold a tokenizer, the first of a folder counts. */
static const char *const file_names[] = {"tokenizer.json", "tekken.json",  "tokenizer.model",
                                         "tiktoken.model", "spiece.model", "vocab.txt",
                                         "vocab.json"};

/* The path of a folder's tokenizer; caller frees. NULL and *err when it has none. */
static char *find_file(const char *folder, Error *err) {
    for (size_t i = 0; i < BASE_COUNT(file_names); i++) {
        char *path = base_path_join(folder, file_names[i]);
        if (base_is_file(path)) return path;
        free(path);
    }
    char **names, *found = NULL;
    size_t count;
    if (!base_list_dir(folder, &names, &count, err)) return NULL;
    for (size_t i = 0; i < count; i++) {
        if (!found && base_ends_with(names[i], ".tiktoken"))
            found = base_path_join(folder, names[i]);
        free(names[i]);
    }
    free(names);
    if (!found) {
        base_fail(err, ERROR_IO, "%s: no tokenizer.json there", folder);
        base_hint(err, "A model folder needs a tokenizer.json, tekken.json, tokenizer.model, "
                       ".tiktoken file, vocab.txt, or vocab.json with merges.txt.");
    }
    return found;
}

bool text_tokenizer_exists(const char *folder) {
    char *path = find_file(folder, NULL);
    free(path);
    return path != NULL;
}

/* Reads a file by what is in it. *names gets the special tokens it names itself. */
static bool load_file(TextTokenizer *tokenizer, const MappedFile *file, const char *name,
                      const json_t *config, json_t **names, Error *err) {
    const char *bytes = (const char *)file->data;
    if (strcmp(name, "tokenizer.json") == 0)
        return text_tokenizer_load_bytes(tokenizer, bytes, file->length, name, err);
    if (strcmp(name, "vocab.txt") == 0)
        return text_vocab_lines_load(tokenizer, bytes, file->length, config, names, err);
    if (base_ends_with(name, ".json"))
        return text_tekken_load(tokenizer, bytes, file->length, names, err);
    if (text_is_tiktoken(bytes, file->length))
        return text_tiktoken_load(tokenizer, bytes, file->length, name, config, names, err);
    return text_spm_load(tokenizer, bytes, file->length, config, names, err);
}

TextTokenizer *text_tokenizer_from_file_bytes(const void *bytes, size_t length, const char *name,
                                              const json_t *config, Error *err) {
    json_t *names = NULL;
    TextTokenizer *tokenizer = new_tokenizer();
    bool ok = load_file(tokenizer, &(MappedFile){bytes, length}, name, config, &names, err) &&
              apply_side_files(tokenizer, config, names, NULL, err);
    json_decref(names);
    if (!ok) base_error_context(err, "%s", name);
    return finish_or_free(tokenizer, ok);
}

/* vocab.json is one half of a tokenizer. */
static bool load_halves(TextTokenizer *tokenizer, const char *folder, const MappedFile *vocab,
                        const json_t *config, json_t **names, Error *err) {
    MappedFile merges;
    char *path = base_path_join(folder, "merges.txt");
    bool there = base_path_inside(folder, path, err) && base_map_open(path, &merges, err);
    free(path);
    if (!there) return false;
    bool ok = text_vocab_merges_load(tokenizer, vocab, &merges, config, names, err);
    base_map_close(&merges);
    return ok;
}

/* The file at path, by what is in it and beside it. */
static bool load_any(TextTokenizer *tokenizer, const char *folder, const char *path,
                     const MappedFile *file, const json_t *config, const json_t *map,
                     json_t **names, Error *err) {
    json_t *settings = config ? json_copy((json_t *)(uintptr_t)config) : json_object();
    for (size_t i = 0; i < TEXT_SPECIAL_COUNT; i++) {
        json_t *value = json_object_get(map, special_keys[i]);
        if (value && !json_object_get(config, special_keys[i]))
            json_object_set(settings, special_keys[i], value);
    }
    const char *name = base_path_name(path);
    bool ok = strcmp(name, "vocab.json") == 0
                  ? load_halves(tokenizer, folder, file, settings, names, err)
                  : load_file(tokenizer, file, name, settings, names, err);
    json_decref(settings);
    return ok;
}

TextTokenizer *text_tokenizer_open(const char *folder, Error *err) {
    MappedFile file;
    char *path = find_file(folder, err);
    if (!path || !base_path_inside(folder, path, err) || !base_map_open(path, &file, err)) {
        free(path);
        return NULL;
    }
    json_t *config = NULL, *map = NULL, *added = NULL, *names = NULL;
    TextTokenizer *tokenizer = new_tokenizer();
    bool ok = load_optional(folder, "tokenizer_config.json", &config, err) &&
              load_optional(folder, "special_tokens_map.json", &map, err) &&
              load_optional(folder, "added_tokens.json", &added, err) &&
              load_any(tokenizer, folder, path, &file, config, map, &names, err);
    if (ok && names && !map) map = json_incref(names);
    if (ok && names) json_object_update_missing(map, names);
    ok = ok && apply_side_files(tokenizer, config, map, added, err);
    if (!ok) base_error_context(err, "%s", path);
    json_decref(names);
    json_decref(config);
    json_decref(map);
    json_decref(added);
    base_map_close(&file);
    free(path);
    return finish_or_free(tokenizer, ok);
}

void text_tokenizer_free(TextTokenizer *tokenizer) {
    if (!tokenizer) return;
    while (tokenizer->idle) {
        TextWork *work = tokenizer->idle;
        tokenizer->idle = work->next;
        text_work_free(work);
    }
    text_added_free(&tokenizer->added);
    text_decoders_free(&tokenizer->decoders);
    text_post_free(&tokenizer->post);
    text_pre_tokenizers_free(&tokenizer->pre_tokenizers);
    text_normalizers_free(&tokenizer->normalizers);
    text_model_free(&tokenizer->model);
    for (size_t i = 0; i < TEXT_SPECIAL_COUNT; i++) free(tokenizer->special[i].text);
    free(tokenizer->pad_token);
    pthread_mutex_destroy(&tokenizer->lock);
    free(tokenizer);
}

bool text_tokenizer_file_truncation(const TextTokenizer *tokenizer, TextFileTruncation *out) {
    *out = tokenizer->truncation;
    return tokenizer->has_truncation;
}

bool text_tokenizer_file_padding(const TextTokenizer *tokenizer, TextFilePadding *out) {
    *out = tokenizer->padding;
    return tokenizer->has_padding;
}

int32_t text_tokenizer_vocab_size(const TextTokenizer *tokenizer) {
    return tokenizer->vocab_size;
}

const char *text_tokenizer_token(const TextTokenizer *tokenizer, int32_t id) {
    const TextAdded *added = text_added_by_id(&tokenizer->added, id);
    return added ? added->content : text_vocab_text(&tokenizer->model.vocab, id, NULL);
}

int32_t text_tokenizer_id(const TextTokenizer *tokenizer, const char *token) {
    const TextAdded *added = text_added_by_content(&tokenizer->added, token);
    return added ? added->id : text_vocab_find(&tokenizer->model.vocab, token, strlen(token));
}

bool text_tokenizer_is_special(const TextTokenizer *tokenizer, int32_t id) {
    const TextAdded *added = text_added_by_id(&tokenizer->added, id);
    return added && added->special;
}

int32_t text_tokenizer_special_id(const TextTokenizer *tokenizer, TextSpecial which) {
    return tokenizer->special[which].id;
}

const char *text_tokenizer_special_text(const TextTokenizer *tokenizer, TextSpecial which) {
    return tokenizer->special[which].text;
}

size_t text_tokenizer_max_length(const TextTokenizer *tokenizer) {
    return tokenizer->max_length;
}
