/* Opening the vocabularies of tiktoken (lines of base64 and rank) and of
 * Mistral's tekken.json. Both are byte-level BPE where the rank of a token is
 * its order of merging; tiktoken's files do not say how text is cut nor which
 * special tokens follow, so a table knows the encodings. */
#include "text/tokenizer_parts.h"
#include "text/tokenizer_patterns.h"

static const char *const gpt2_specials[] = {"<|endoftext|>", NULL};
static const char *const cl100k_specials[] = {"<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>",
                                              "<|fim_suffix|>", NULL};
static const char *const o200k_specials[] = {"<|endoftext|>", NULL};
static const char *const qwen_specials[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>", NULL};
static const char *const llama3_specials[] = {"<|begin_of_text|>",
                                              "<|end_of_text|>",
                                              "<|reserved_special_token_0|>",
                                              "<|reserved_special_token_1|>",
                                              "<|finetune_right_pad_id|>",
                                              "<|step_id|>",
                                              "<|start_header_id|>",
                                              "<|end_header_id|>",
                                              "<|eom_id|>",
                                              "<|eot_id|>",
                                              "<|python_tag|>",
                                              "<|image|>",
                                              NULL};
static const char *const llama4_specials[] = {"<|begin_of_text|>",
                                              "<|end_of_text|>",
                                              "<|fim_prefix|>",
                                              "<|fim_middle|>",
                                              "<|fim_suffix|>",
                                              "<|header_start|>",
                                              "<|header_end|>",
                                              "<|eom|>",
                                              "<|eot|>",
                                              "<|step|>",
                                              NULL};

/* An encoding is known by how many ranks its file has. Specials take the ids
 * from there on; `last` has an id of its own. */
typedef struct Encoding {
    size_t ranks;
    const char *name, *pattern;
    const char *const *specials;
    const char *bos, *eos;
    struct {
        const char *text;
        int32_t id;
    } last;
} Encoding;
static const Encoding encodings[] = {
    {50256, "r50k_base", GPT2, gpt2_specials, NULL, "<|endoftext|>", {0}},
    {50280, "p50k_base", GPT2, NULL, NULL, "<|endoftext|>", {"<|endoftext|>", 50256}},
    {100256,
     "cl100k_base",
     CL100K,
     cl100k_specials,
     NULL,
     "<|endoftext|>",
     {"<|endofprompt|>", 100276}},
    {128000, "Llama 3", LLAMA3, llama3_specials, "<|begin_of_text|>", "<|end_of_text|>", {0}},
    {151643, "Qwen", QWEN2, qwen_specials, NULL, "<|endoftext|>", {0}},
    {163584, "Kimi", KIMI, NULL, NULL, NULL, {0}},
    {199998,
     "o200k_base",
     O200K,
     o200k_specials,
     NULL,
     "<|endoftext|>",
     {"<|endofprompt|>", 200018}},
    {200000, "Llama 4", O200K, llama4_specials, "<|begin_of_text|>", "<|end_of_text|>", {0}},
};

/* ---- tokens ------------------------------------------------------------- */

/* The bytes of a token, and the same in GPT-2's alphabet for people to see. */
static bool add_token(TextModel *model, const uint8_t *bytes, size_t length, int64_t id,
                      StrBuf *mapped, Error *err) {
    mapped->length = 0;
    for (size_t i = 0; i < length; i++)
        base_str_append_codepoint(mapped, text_alphabet_of_byte(bytes[i]));
    if (!length) return base_fail(err, ERROR_INPUT, "token %lld is empty", (long long)id);
    if (text_vocab_find(&model->texts, (const char *)bytes, length) >= 0)
        return base_fail(err, ERROR_INPUT, "token %lld is there twice", (long long)id);
    return text_vocab_add(&model->vocab, mapped->data, mapped->length, id, err) &&
           text_vocab_add(&model->texts, (const char *)bytes, length, id, err);
}

/* Everything added: ranks are ids, and text is cut by the pattern. */
static bool finish(TextTokenizer *tokenizer, const char *pattern, Error *err) {
    TextModel *model = &tokenizer->model;
    model->kind = MODEL_TEXT_BPE;
    model->ignore_merges = true; /* a piece that is a token stays whole */
    model->unk_id = -1;
    model->ranks = base_calloc(model->vocab.size + 1, sizeof *model->ranks);
    for (size_t i = 0; i < model->vocab.size; i++) model->ranks[i] = (uint32_t)i;
    for (unsigned byte = 0; byte < 256; byte++) {
        char text = (char)byte;
        model->byte_ids[byte] = text_vocab_find(&model->texts, &text, 1);
        if (model->byte_ids[byte] < 0)
            return base_fail(err, ERROR_INPUT, "the byte 0x%02X is not a token", byte);
    }
    text_decoders_add(&tokenizer->decoders, DECODE_BYTE_LEVEL);
    return text_pre_tokenizers_add_split(&tokenizer->pre_tokenizers, pattern, err);
}

static void add_special(TextTokenizer *tokenizer, const char *text, int32_t id) {
    TextAdded token = {.content = (char *)(uintptr_t)text, .special = true};
    tokenizer->added.next_id = BASE_MAX(tokenizer->added.next_id, id);
    text_added_put(&tokenizer->added, &tokenizer->model.vocab, &token);
}

/* ---- tiktoken ----------------------------------------------------------- */

/* "base64 rank", of at most this many bytes. */
enum { MAX_LINE = 4096 };

static bool read_line(const char *line, size_t length, TextModel *model, StrBuf *mapped,
                      Error *err) {
    const char *space = memchr(line, ' ', length);
    size_t text = space ? (size_t)(space - line) : 0, bytes;
    int64_t rank = 0;
    if (!space || text + 1 >= length || length - text > 10 || length > MAX_LINE) return false;
    for (size_t i = text + 1; i < length; i++) {
        if (line[i] < '0' || line[i] > '9') return false;
        rank = rank * 10 + (line[i] - '0');
    }
    uint8_t *token = text_base64_decode(line, text, &bytes);
    if (!token) return false;
    bool ok = add_token(model, token, bytes, rank, mapped, err);
    free(token);
    return ok;
}

static bool read_lines(const char *text, size_t length, TextModel *model, Error *err) {
    StrBuf mapped = {0};
    size_t number = 0;
    bool ok = true;
    text_vocab_reserve(&model->vocab, length, length / 14);
    text_vocab_reserve(&model->texts, length / 2, length / 14);
    for (size_t at = 0; at < length && ok;) {
        const char *newline = memchr(text + at, '\n', length - at);
        size_t end = newline ? (size_t)(newline - text) : length, next = end + 1;
        number++;
        if (end > at && text[end - 1] == '\r') end--;
        ok = end == at || read_line(text + at, end - at, model, &mapped, err);
        at = next;
    }
    base_str_free(&mapped);
    return ok || base_fail(err, ERROR_INPUT, "line %zu is not a base64 token and its rank", number);
}

bool text_is_tiktoken(const void *bytes, size_t length) {
    const char *text = bytes, *newline = memchr(text, '\n', BASE_MIN(length, (size_t)MAX_LINE));
    size_t end = newline ? (size_t)(newline - text) : length, decoded;
    const char *space = memchr(text, ' ', BASE_MIN(end, (size_t)MAX_LINE));
    if (!space || space == text || (size_t)(space - text) + 1 >= length) return false;
    uint8_t *token = text_base64_decode(text, (size_t)(space - text), &decoded);
    free(token);
    return token != NULL && space[1] >= '0' && space[1] <= '9';
}

static bool add_known_specials(TextTokenizer *tokenizer, const Encoding *encoding,
                               const json_t *config) {
    int32_t id = (int32_t)encoding->ranks;
    if (json_object_get(config, "added_tokens_decoder")) return true; /* it lists them */
    for (const char *const *text = encoding->specials; text && *text; text++)
        add_special(tokenizer, *text, id++);
    if (encoding->specials == llama3_specials)
        for (int i = 2; id < 128256; i++) {
            char text[48];
            snprintf(text, sizeof text, "<|reserved_special_token_%d|>", i);
            add_special(tokenizer, text, id++);
        }
    if (encoding->last.text) add_special(tokenizer, encoding->last.text, encoding->last.id);
    return true;
}

bool text_tiktoken_load(TextTokenizer *tokenizer, const char *bytes, size_t length,
                        const char *name, const json_t *config, json_t **names, Error *err) {
    TextModel *model = &tokenizer->model;
    if (!read_lines(bytes, length, model, err)) return false;
    const Encoding *encoding = NULL;
    for (size_t i = 0; i < BASE_COUNT(encodings); i++)
        if (encodings[i].ranks == model->texts.count) encoding = &encodings[i];
    if (!encoding)
        return base_fail(err, ERROR_UNSUPPORTED,
                         "%zu ranks are those of no known tiktoken encoding; %s does not say how "
                         "text is cut, a tokenizer.json would",
                         model->texts.count, name);
    if (!finish(tokenizer, encoding->pattern, err)) return false;
    add_known_specials(tokenizer, encoding, config);
    const TextAdded *bos =
        encoding->bos ? text_added_by_content(&tokenizer->added, encoding->bos) : NULL;
    text_post_wrap(&tokenizer->post, bos ? bos->id : -1, -1);
    *names = json_object();
    if (encoding->bos) json_object_set_new(*names, "bos_token", json_string(encoding->bos));
    if (encoding->eos) json_object_set_new(*names, "eos_token", json_string(encoding->eos));
    return true;
}

/* ---- tekken ------------------------------------------------------------- */

static bool read_tekken_tokens(const json_t *vocab, size_t wanted, json_int_t offset,
                               TextModel *model, Error *err) {
    StrBuf mapped = {0};
    bool ok = true;
    for (size_t i = 0; i < wanted && ok; i++) {
        const char *base64 =
            json_string_value(json_object_get(json_array_get(vocab, i), "token_bytes"));
        size_t bytes = 0;
        uint8_t *token = base64 ? text_base64_decode(base64, strlen(base64), &bytes) : NULL;
        ok = token && add_token(model, token, bytes, offset + (json_int_t)i, &mapped, err);
        free(token);
        if (!ok) base_fail(err, ERROR_INPUT, "vocab: entry %zu has no base64 \"token_bytes\"", i);
    }
    base_str_free(&mapped);
    return ok;
}

/* Special tokens come first; the ones that the file does not name are fillers. */
static bool read_tekken_specials(const json_t *list, size_t count, TextTokenizer *tokenizer,
                                 Error *err) {
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
        add_special(tokenizer, text, (int32_t)i);
    }
    return true;
}

bool text_tekken_load(TextTokenizer *tokenizer, const char *bytes, size_t length, json_t **names,
                      Error *err) {
    json_t *tree = base_json_parse(bytes, length, "tekken.json", err);
    if (!tree) return false;
    const json_t *config = json_object_get(tree, "config"), *vocab = json_object_get(tree, "vocab");
    const char *pattern = json_string_value(json_object_get(config, "pattern"));
    size_t size = 0, specials = 0;
    bool ok = text_json_size(config, "default_vocab_size", 0, "config", &size, err) &&
              text_json_size(config, "default_num_special_tokens", 0, "config", &specials, err);
    if (ok && (!pattern || !json_is_array(vocab) || size > TEXT_MAX_IDS || specials > size ||
               size - specials > json_array_size(vocab)))
        ok = base_fail(err, ERROR_INPUT,
                       "\"config\" and \"vocab\" do not make a tokenizer: pattern, "
                       "default_vocab_size or default_num_special_tokens are missing or wrong");
    ok = ok &&
         read_tekken_tokens(vocab, size - specials, (json_int_t)specials, &tokenizer->model, err) &&
         read_tekken_specials(json_object_get(tree, "special_tokens"), specials, tokenizer, err) &&
         finish(tokenizer, pattern, err);
    if (ok) {
        const TextAdded *bos = text_added_by_content(&tokenizer->added, "<s>");
        text_post_wrap(&tokenizer->post, bos ? bos->id : -1, -1);
        *names = json_pack("{s:s, s:s, s:s}", "bos_token", "<s>", "eos_token", "</s>", "unk_token",
                           "<unk>");
    }
    json_decref(tree);
    return ok;
}
