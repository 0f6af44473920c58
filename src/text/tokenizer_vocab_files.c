/* Opening the files that tokenizers had before tokenizer.json: vocab.txt, one
 * WordPiece token a line (BERT and its kin), and vocab.json with merges.txt
 * (GPT-2, RoBERTa, CLIP, Qwen2). What stands around the vocabulary follows from
 * tokenizer_class, or from the tokens where no class is named; a tree as of a
 * tokenizer.json comes out, and goes the way of one. */
#include "text/tokenizer_parts.h"
#include "text/tokenizer_patterns.h"
#include "text/tokenizer_scan.h"

typedef enum Around { AROUND_BERT, AROUND_ROBERTA, AROUND_BOS } Around;

typedef struct Family {
    const char *classes; /* without "Tokenizer" and "Fast"; enclosed by spaces */
    const char *mark;    /* a token that this family alone has; NULL: any vocabulary */
    bool words;          /* vocab.txt */
    bool strip_mask;     /* <mask> takes the space before it */
    Around around;
    const char *suffix; /* of a word's last piece */
    const char *split;  /* a pattern of its own before the byte level */
    const char *names[TEXT_SPECIAL_COUNT];
} Family;

/* CLIP's words, found in lower case; what lies between them goes. */
#define CLIP_WORDS                                                                      \
    "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|" \
    "[^\\s\\p{L}\\p{N}]+"

static const Family families[] = {
    {.classes = " MPNet ",
     .mark = "<s>",
     .words = true,
     .strip_mask = true,
     .around = AROUND_ROBERTA,
     .names = {[TEXT_BOS] = "<s>",
               [TEXT_EOS] = "</s>",
               [TEXT_UNK] = "[UNK]",
               [TEXT_SEP] = "</s>",
               [TEXT_PAD] = "<pad>",
               [TEXT_CLS] = "<s>",
               [TEXT_MASK] = "<mask>"}},
    {.classes = " Bert DistilBert Electra MobileBert ConvBert SqueezeBert LayoutLM ",
     .words = true,
     .around = AROUND_BERT,
     .names = {[TEXT_UNK] = "[UNK]",
               [TEXT_SEP] = "[SEP]",
               [TEXT_PAD] = "[PAD]",
               [TEXT_CLS] = "[CLS]",
               [TEXT_MASK] = "[MASK]"}},
    {.classes = " Roberta Bart Longformer LED ",
     .mark = "<s>",
     .around = AROUND_ROBERTA,
     .names = {[TEXT_BOS] = "<s>",
               [TEXT_EOS] = "</s>",
               [TEXT_UNK] = "<unk>",
               [TEXT_SEP] = "</s>",
               [TEXT_PAD] = "<pad>",
               [TEXT_CLS] = "<s>",
               [TEXT_MASK] = "<mask>"}},
    {.classes = " CLIP ",
     .mark = "<|startoftext|>",
     .around = AROUND_ROBERTA,
     .suffix = "</w>",
     .split = CLIP_WORDS,
     .names = {[TEXT_BOS] = "<|startoftext|>",
               [TEXT_EOS] = "<|endoftext|>",
               [TEXT_UNK] = "<|endoftext|>",
               [TEXT_SEP] = "<|endoftext|>",
               [TEXT_PAD] = "<|endoftext|>",
               [TEXT_CLS] = "<|startoftext|>"}},
    {.classes = " Qwen2 ",
     .mark = "<|im_start|>",
     .around = AROUND_BOS,
     .split = QWEN2,
     .names = {[TEXT_EOS] = "<|endoftext|>",
               [TEXT_UNK] = "<|endoftext|>",
               [TEXT_PAD] = "<|endoftext|>"}},
    {.classes = " GPT2 CodeGen ",
     .around = AROUND_BOS,
     .names = {[TEXT_BOS] = "<|endoftext|>",
               [TEXT_EOS] = "<|endoftext|>",
               [TEXT_UNK] = "<|endoftext|>"}},
};

/* ---- which family --------------------------------------------------------- */

/* Classes that stand for any tokenizer say as little as none. */
static bool names_nothing(const char *class_name) {
    return strcmp(class_name, "PreTrainedTokenizerFast") == 0 ||
           strcmp(class_name, "TokenizersBackend") == 0;
}

static const Family *family_of(const json_t *config, const json_t *vocab, bool words, Error *err) {
    const char *class_name = json_string_value(json_object_get(config, "tokenizer_class"));
    if (class_name && names_nothing(class_name)) class_name = NULL;
    const char *end = class_name ? strstr(class_name, "Tokenizer") : NULL;
    char *wanted =
        class_name ? base_format(" %.*s ", end ? (int)(end - class_name) : 60, class_name) : NULL;
    const Family *found = NULL;
    for (size_t i = 0; i < BASE_COUNT(families) && !found; i++) {
        const Family *family = &families[i];
        bool fits = wanted ? strstr(family->classes, wanted) != NULL
                           : !family->mark || (json_object_get(vocab, family->mark) &&
                                               !json_object_get(vocab, "[CLS]"));
        if (family->words == words && fits) found = family;
    }
    free(wanted);
    if (!found)
        base_fail(err, ERROR_UNSUPPORTED,
                  "tokenizer_class \"%.60s\" is not known with these files; a tokenizer.json is "
                  "needed",
                  class_name);
    return found;
}

/* ---- the tree -------------------------------------------------------------- */

/* The text of a special token: the config's, or what the family calls it. */
static const char *special_of(const json_t *config, const Family *family, TextSpecial which) {
    const json_t *value = json_object_get(config, text_special_key(which));
    const char *text =
        json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
    return text ? text : family->names[which];
}

/* [token, id], as post-processors have it. NULL when the vocabulary lacks it. */
static json_t *token_and_id(const json_t *config, const Family *family, const json_t *vocab,
                            TextSpecial which, Error *err) {
    const char *text = special_of(config, family, which);
    const json_t *id = text ? json_object_get(vocab, text) : NULL;
    if (id) return json_pack("[s, O]", text, id);
    base_fail(err, ERROR_INPUT, "the %s \"%.60s\" is not in the vocabulary",
              text_special_key(which), text ? text : "");
    return NULL;
}

static json_t *bos_template(const json_t *config, const Family *family, const json_t *vocab,
                            Error *err) {
    if (!json_is_true(json_object_get(config, "add_bos_token"))) return json_null();
    json_t *bos = token_and_id(config, family, vocab, TEXT_BOS, err);
    if (!bos) return NULL;
    const json_t *text = json_array_get(bos, 0), *id = json_array_get(bos, 1);
    json_t *whole = json_pack(
        "{s:s, s:[{s:{s:O, s:i}}, {s:{s:s, s:i}}], s:[{s:{s:O, s:i}}, {s:{s:s, s:i}}, {s:{s:O, "
        "s:i}}, {s:{s:s, s:i}}], s:{s:{s:O, s:[O], s:[O]}}}",
        "type", "TemplateProcessing", "single", "SpecialToken", "id", text, "type_id", 0,
        "Sequence", "id", "A", "type_id", 0, "pair", "SpecialToken", "id", text, "type_id", 0,
        "Sequence", "id", "A", "type_id", 0, "SpecialToken", "id", text, "type_id", 1, "Sequence",
        "id", "B", "type_id", 1, "special_tokens", json_string_value(text), "id", text, "ids", id,
        "tokens", text);
    json_decref(bos);
    return whole;
}

static json_t *post_processor(const json_t *config, const Family *family, const json_t *vocab,
                              Error *err) {
    if (family->around == AROUND_BOS) return bos_template(config, family, vocab, err);
    json_t *sep = token_and_id(config, family, vocab, TEXT_SEP, err);
    json_t *cls = token_and_id(config, family, vocab, TEXT_CLS, err);
    if (!sep || !cls) {
        json_decref(sep);
        json_decref(cls);
        return NULL;
    }
    if (family->around == AROUND_BERT)
        return json_pack("{s:s, s:o, s:o}", "type", "BertProcessing", "sep", sep, "cls", cls);
    return json_pack("{s:s, s:o, s:o, s:b, s:b}", "type", "RobertaProcessing", "sep", sep, "cls",
                     cls, "trim_offsets", 1, "add_prefix_space", 0);
}

static bool flag_of(const json_t *config, const char *key, bool standard) {
    const json_t *value = json_object_get(config, key);
    return json_is_boolean(value) ? json_is_true(value) : standard;
}

static json_t *typed(const char *type) {
    return json_pack("{s:s}", "type", type);
}

static json_t *byte_level(bool prefix_space, bool use_regex) {
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", prefix_space,
                     "trim_offsets", 1, "use_regex", use_regex);
}

static json_t *replace(const char *kind, const char *pattern, const char *content) {
    return json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", kind, pattern, "content",
                     content);
}

/* Texts are composed first; CLIP's are folded to one case and single spaces too. */
static json_t *normalizer_of(const Family *family) {
    if (!family->split) return json_null();
    if (!family->suffix) return typed("NFC");
    return json_pack("{s:s, s:[o, o, o]}", "type", "Sequence", "normalizers", typed("NFC"),
                     replace("Regex", "\\s+", " "), typed("Lowercase"));
}

static json_t *pre_tokenizer_of(const Family *family, bool prefix_space) {
    if (!family->split) return byte_level(prefix_space, true);
    return json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, o]}", "type", "Sequence", "pretokenizers",
                     "type", "Split", "pattern", "Regex", family->split, "behavior",
                     family->suffix ? "Removed" : "Isolated", "invert", family->suffix != NULL,
                     byte_level(prefix_space, false));
}

/* A word's end becomes a space, but for the last. */
static json_t *decoder_of(const Family *family) {
    if (!family->suffix) return byte_level(false, true);
    return json_pack("{s:s, s:[o, o, {s:s, s:s, s:i, s:i}]}", "type", "Sequence", "decoders",
                     byte_level(false, true), replace("String", family->suffix, " "), "type",
                     "Strip", "content", " ", "start", 0, "stop", 1);
}

static void add_word_parts(json_t *tree, const json_t *config, const Family *family,
                           json_t *vocab) {
    const json_t *accents = json_object_get(config, "strip_accents");
    json_object_set_new(tree, "normalizer",
                        json_pack("{s:s, s:b, s:b, s:O, s:b}", "type", "BertNormalizer",
                                  "clean_text", 1, "handle_chinese_chars",
                                  flag_of(config, "tokenize_chinese_chars", true), "strip_accents",
                                  json_is_boolean(accents) ? accents : json_null(), "lowercase",
                                  flag_of(config, "do_lower_case", true)));
    json_object_set_new(tree, "pre_tokenizer", typed("BertPreTokenizer"));
    json_object_set_new(
        tree, "decoder",
        json_pack("{s:s, s:s, s:b}", "type", "WordPiece", "prefix", "##", "cleanup", 1));
    json_object_set_new(tree, "model",
                        json_pack("{s:s, s:s, s:s, s:i, s:O}", "type", "WordPiece", "unk_token",
                                  special_of(config, family, TEXT_UNK), "continuing_subword_prefix",
                                  "##", "max_input_chars_per_word", 100, "vocab", vocab));
}

static void add_byte_parts(json_t *tree, const json_t *config, const Family *family, json_t *vocab,
                           json_t *merges) {
    bool prefix = flag_of(config, "add_prefix_space", false);
    json_object_set_new(tree, "normalizer", normalizer_of(family));
    json_object_set_new(tree, "pre_tokenizer", pre_tokenizer_of(family, prefix));
    json_object_set_new(tree, "decoder", decoder_of(family));
    json_object_set_new(tree, "model",
                        json_pack("{s:s, s:s?, s:s?, s:O, s:O}", "type", "BPE", "unk_token",
                                  family->suffix ? special_of(config, family, TEXT_UNK) : NULL,
                                  "end_of_word_suffix", family->suffix, "vocab", vocab, "merges",
                                  merges));
}

/* The special tokens by their keys: texts, or objects with what else is said of them. */
static json_t *special_names(const json_t *config, const Family *family) {
    json_t *names = json_object();
    for (size_t i = 0; i < TEXT_SPECIAL_COUNT; i++) {
        const char *key = text_special_key((TextSpecial)i), *text = family->names[i];
        json_t *given = json_object_get(config, key);
        if (json_is_object(given))
            json_object_set(names, key, given);
        else if (text && family->strip_mask && i == TEXT_MASK)
            json_object_set_new(names, key, json_pack("{s:s, s:b}", "content", text, "lstrip", 1));
        else if (text)
            json_object_set_new(names, key, json_string(text));
    }
    return names;
}

/* merges is NULL for vocab.txt. */
static bool load_parts(TextTokenizer *tokenizer, const json_t *config, json_t *vocab,
                       json_t *merges, json_t **names, Error *err) {
    const Family *family = family_of(config, vocab, !merges, err);
    json_t *post = family ? post_processor(config, family, vocab, err) : NULL;
    if (!post) return false;
    json_t *tree = json_pack("{s:o}", "post_processor", post);
    if (merges)
        add_byte_parts(tree, config, family, vocab, merges);
    else
        add_word_parts(tree, config, family, vocab);
    bool ok = text_tokenizer_load_tree(tokenizer, tree, err);
    json_decref(tree);
    *names = special_names(config, family);
    return ok;
}

/* ---- the files -------------------------------------------------------------- */

/* The next line without its end; false after the last. */
static bool next_line(const char **at, const char *end, const char **line, size_t *length) {
    if (*at == end) return false;
    const char *stop = memchr(*at, '\n', (size_t)(end - *at));
    *line = *at;
    *at = stop ? stop + 1 : end;
    if (!stop) stop = end;
    if (stop > *line && stop[-1] == '\r') stop--;
    *length = (size_t)(stop - *line);
    return true;
}

bool text_vocab_lines_load(TextTokenizer *tokenizer, const char *bytes, size_t length,
                           const json_t *config, json_t **names, Error *err) {
    const char *at = bytes, *line;
    size_t size;
    json_t *vocab = json_object();
    bool ok = true;
    for (json_int_t id = 0; ok && next_line(&at, bytes + length, &line, &size); id++) {
        ok = id < TEXT_MAX_IDS && base_utf8_valid(line, size) && !memchr(line, '\0', size);
        if (!ok)
            base_fail(err, ERROR_INPUT, "line %lld is not a token in UTF-8", (long long)id + 1);
        else if (size)
            json_object_setn_new(vocab, line, size, json_integer(id));
    }
    ok = ok && load_parts(tokenizer, config, vocab, NULL, names, err);
    json_decref(vocab);
    return ok;
}

static json_t *merges_of(const char *bytes, size_t length, Error *err) {
    const char *at = bytes, *line;
    size_t size, space, number = 0;
    json_t *merges = json_array();
    while (next_line(&at, bytes + length, &line, &size)) {
        bool version = size >= 8 && memcmp(line, "#version", 8) == 0;
        number++;
        if (!size || version) continue;
        json_t *merge = text_merge_cut(line, size, &space) ? json_stringn(line, size) : NULL;
        if (!merge) {
            base_fail(err, ERROR_INPUT,
                      "merges.txt: line %zu is not two parts with a space between", number);
            json_decref(merges);
            return NULL;
        }
        json_array_append_new(merges, merge);
    }
    return merges;
}

bool text_vocab_merges_load(TextTokenizer *tokenizer, const MappedFile *vocab_file,
                            const MappedFile *merges_file, const json_t *config, json_t **names,
                            Error *err) {
    json_t *vocab =
        base_json_parse((const char *)vocab_file->data, vocab_file->length, "vocab.json", err);
    json_t *merges =
        vocab ? merges_of((const char *)merges_file->data, merges_file->length, err) : NULL;
    bool ok = merges && load_parts(tokenizer, config, vocab, merges, names, err);
    json_decref(merges);
    json_decref(vocab);
    return ok;
}
