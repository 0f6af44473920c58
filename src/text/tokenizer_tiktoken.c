/* Opening tiktoken's rank files, lines of base64 and rank. They do not say how
 * text is cut nor which special tokens follow, so a table knows the encodings. */
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

/* ---- tiktoken ----------------------------------------------------------- */

/* "base64 rank", of at most this many bytes. */
enum { MAX_LINE = 4096 };

static bool read_line(const char *line, size_t length, TextByteTokens *tokens, Error *err) {
    const char *space = memchr(line, ' ', length);
    size_t text = space ? (size_t)(space - line) : 0;
    int64_t rank = 0;
    if (!space || text + 1 >= length || length - text > 10 || length > MAX_LINE) return false;
    for (size_t i = text + 1; i < length; i++) {
        if (line[i] < '0' || line[i] > '9') return false;
        rank = rank * 10 + (line[i] - '0');
    }
    return text_byte_tokens_add(tokens, line, text, rank, err);
}

static bool read_lines(const char *text, size_t length, TextModel *model, Error *err) {
    TextByteTokens tokens = {.model = model};
    size_t number = 0;
    bool ok = true;
    text_vocab_reserve(&model->vocab, length, length / 14);
    text_vocab_reserve(&model->texts, length / 2, length / 14);
    for (size_t at = 0; at < length && ok;) {
        const char *newline = memchr(text + at, '\n', length - at);
        size_t end = newline ? (size_t)(newline - text) : length, next = end + 1;
        number++;
        if (end > at && text[end - 1] == '\r') end--;
        ok = end == at || read_line(text + at, end - at, &tokens, err);
        if (!ok) base_fail(err, ERROR_INPUT, "line %zu is not a base64 token and its rank", number);
        at = next;
    }
    return text_byte_tokens_end(&tokens, ok, err);
}

bool text_is_tiktoken(const void *bytes, size_t length) {
    const char *text = bytes, *newline = memchr(text, '\n', BASE_MIN(length, (size_t)MAX_LINE));
    size_t end = newline ? (size_t)(newline - text) : length;
    const char *space = memchr(text, ' ', BASE_MIN(end, (size_t)MAX_LINE));
    if (!space || space == text || (size_t)(space - text) + 1 >= length) return false;
    StrBuf token = {0};
    bool base64 = text_base64_append(text, (size_t)(space - text), &token);
    base_str_free(&token);
    return base64 && space[1] >= '0' && space[1] <= '9';
}

static bool add_known_specials(TextTokenizer *tokenizer, const Encoding *encoding,
                               const json_t *config) {
    int32_t id = (int32_t)encoding->ranks;
    if (json_object_get(config, "added_tokens_decoder")) return true; /* it lists them */
    for (const char *const *text = encoding->specials; text && *text; text++)
        text_byte_tokens_special(tokenizer, *text, id++);
    if (encoding->specials == llama3_specials)
        for (int i = 2; id < 128256; i++) {
            char text[48];
            snprintf(text, sizeof text, "<|reserved_special_token_%d|>", i);
            text_byte_tokens_special(tokenizer, text, id++);
        }
    if (encoding->last.text)
        text_byte_tokens_special(tokenizer, encoding->last.text, encoding->last.id);
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
    if (!text_byte_tokens_finish(tokenizer, encoding->pattern, err)) return false;
    add_known_specials(tokenizer, encoding, config);
    const TextAdded *bos =
        encoding->bos ? text_added_by_content(&tokenizer->added, encoding->bos) : NULL;
    text_post_wrap(&tokenizer->post, bos ? bos->id : -1, -1);
    *names = json_object();
    if (encoding->bos) json_object_set_new(*names, "bos_token", json_string(encoding->bos));
    if (encoding->eos) json_object_set_new(*names, "eos_token", json_string(encoding->eos));
    return true;
}
