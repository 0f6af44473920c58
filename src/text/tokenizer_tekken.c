/* Opening Mistral's tekken.json: a pattern, tokens as base64 in order of merging,
 * and special tokens that take the ids before them. The list of tokens is most
 * of a file of 20 MB and is read in place; the rest goes through the JSON library. */
#include "text/tokenizer_parts.h"
#include "text/tokenizer_scan.h"

/* Special tokens come first; the ones that the file does not name are fillers. */
static bool read_specials(const json_t *list, size_t count, TextTokenizer *tokenizer, Error *err) {
    static const char *const first[] = {"<unk>",
                                        "<s>",
                                        "</s>",
                                        "[INST]",
                                        "[/INST]",
                                        "[AVAILABLE_TOOLS]",
                                        "[/AVAILABLE_TOOLS]",
                                        "[TOOL_RESULTS]",
                                        "[/TOOL_RESULTS]",
                                        "[TOOL_CALLS]",
                                        "[IMG]",
                                        "<pad>",
                                        "[IMG_BREAK]",
                                        "[IMG_END]",
                                        "[PREFIX]",
                                        "[MIDDLE]",
                                        "[SUFFIX]",
                                        "[SYSTEM_PROMPT]",
                                        "[/SYSTEM_PROMPT]",
                                        "[TOOL_CONTENT]"};
    for (size_t i = 0; i < count; i++) {
        char filler[32];
        const char *text = i < BASE_COUNT(first) ? first[i] : filler;
        snprintf(filler, sizeof filler, "<SPECIAL_%zu>", i);
        if (json_is_array(list) && i < json_array_size(list)) {
            text = json_string_value(json_object_get(json_array_get(list, i), "token_str"));
            if (!text)
                return base_fail(err, ERROR_INPUT, "special_tokens: entry %zu has no \"token_str\"",
                                 i);
        } else if (json_is_array(list)) {
            text = filler;
        }
        if (!text_vocab_add(&tokenizer->model.vocab, text, strlen(text), (int64_t)i, err))
            return false;
        text_byte_tokens_special(tokenizer, text, (int32_t)i);
    }
    return true;
}

static bool load_tree(TextTokenizer *tokenizer, const char *json, const TextScan *scan,
                      const json_t *tree, Error *err) {
    const json_t *config = json_object_get(tree, "config");
    const char *pattern = json_string_value(json_object_get(config, "pattern"));
    size_t size = 0, specials = 0;
    if (!text_json_size(config, "default_vocab_size", 0, "config", &size, err) ||
        !text_json_size(config, "default_num_special_tokens", 0, "config", &specials, err))
        return false;
    if (!pattern || size > TEXT_MAX_IDS || specials >= size)
        return base_fail(err, ERROR_INPUT,
                         "\"config\" does not make a tokenizer: pattern, default_vocab_size or "
                         "default_num_special_tokens are missing or wrong");
    return text_scan_token_bytes(json, scan, size - specials, (int64_t)specials, &tokenizer->model,
                                 err) &&
           read_specials(json_object_get(tree, "special_tokens"), specials, tokenizer, err) &&
           text_byte_tokens_finish(tokenizer, pattern, err);
}

bool text_tekken_load(TextTokenizer *tokenizer, const char *bytes, size_t length, json_t **names,
                      Error *err) {
    TextScan scan;
    StrBuf rest = {0};
    bool found = text_scan_find_list(bytes, length, "vocab", &scan);
    if (found) text_scan_rest(bytes, length, &scan, &rest);
    json_t *tree = found ? base_json_parse(rest.data, rest.length, "tekken.json", NULL) : NULL;
    base_str_free(&rest);
    if (!tree) { /* again as a whole, for a message with the right line */
        json_decref(base_json_parse(bytes, length, "tekken.json", err));
        return base_fail(err, ERROR_INPUT, "\"vocab\" is missing or not a list");
    }
    bool ok = load_tree(tokenizer, bytes, &scan, tree, err);
    if (ok) {
        const TextAdded *bos = text_added_by_content(&tokenizer->added, "<s>");
        text_post_wrap(&tokenizer->post, bos ? bos->id : -1, -1);
        *names = json_pack("{s:s, s:s, s:s}", "bos_token", "<s>", "eos_token", "</s>", "unk_token",
                           "<unk>");
    }
    json_decref(tree);
    return ok;
}
