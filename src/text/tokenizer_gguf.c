/* A GGUF file keeps a tokenizer as arrays and a few names; this writes the
 * tokenizer.json that gives the same ids. Five kinds: "gpt2" (byte-level BPE,
 * its pre-tokenizer chosen by the name in `pre`), "llama" (SentencePiece BPE,
 * whose merges are worked out from the scores), "bert" (WordPiece), "t5"
 * (SentencePiece Unigram) and "gemma4" (BPE with merges on the text itself). */
#include "text/tokenizer_gguf.h"

#define SPIECE_SPACE "\xE2\x96\x81"

/* ---- checks ------------------------------------------------------------- */

static int token_type(const TextGgufVocab *vocab, size_t id) {
    return vocab->types ? vocab->types[id] : PIECE_NORMAL;
}

static bool check_vocab(const TextGgufVocab *vocab, Error *err) {
    if (!vocab->model)
        return base_fail(err, ERROR_INPUT,
                         "tokenizer.ggml.model is missing: this GGUF holds no tokenizer");
    if (!vocab->tokens || !vocab->size || vocab->size > TEXT_MAX_IDS)
        return base_fail(err, ERROR_INPUT, "tokenizer.ggml.tokens is missing, empty or too long");
    if (vocab->types && vocab->type_count != vocab->size)
        return base_fail(err, ERROR_INPUT,
                         "tokenizer.ggml.token_type has %zu entries for %zu tokens",
                         vocab->type_count, vocab->size);
    if (vocab->scores && vocab->score_count != vocab->size)
        return base_fail(err, ERROR_INPUT, "tokenizer.ggml.scores has %zu entries for %zu tokens",
                         vocab->score_count, vocab->size);
    for (size_t i = 0; i < vocab->size; i++)
        if (!vocab->tokens[i] || !base_utf8_valid(vocab->tokens[i], strlen(vocab->tokens[i])))
            return base_fail(err, ERROR_INPUT, "tokenizer.ggml.tokens: token %zu is not UTF-8", i);
    const int32_t ids[] = {vocab->bos_id, vocab->eos_id, vocab->unk_id, vocab->sep_id,
                           vocab->pad_id, vocab->cls_id, vocab->mask_id};
    for (size_t i = 0; i < BASE_COUNT(ids); i++)
        if (ids[i] >= 0 && (size_t)ids[i] >= vocab->size)
            return base_fail(
                err, ERROR_INPUT,
                "tokenizer.ggml: a special token has the id %d, but there are %zu tokens",
                (int)ids[i], vocab->size);
    return true;
}

/* ---- small trees -------------------------------------------------------- */

static json_t *typed(const char *type) {
    return json_pack("{s:s}", "type", type);
}

static json_t *replace(const char *from, const char *to) {
    return json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", from, "content",
                     to);
}

/* The text of a token in the new file; llama.cpp names an empty one by its id. */
static char *token_text(const TextGgufVocab *vocab, size_t id) {
    return *vocab->tokens[id] ? base_strdup(vocab->tokens[id]) : base_format("[EMPTY_%zu]", id);
}

static json_t *added_token(size_t id, const char *content, bool special, bool lstrip, bool rstrip) {
    return json_pack("{s:I, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)id, "content",
                     content, "single_word", 0, "lstrip", lstrip, "rstrip", rstrip, "normalized", 0,
                     "special", special);
}

/* Control tokens are special, user-defined ones are not; unknown is special. */
static json_t *added_tokens(const TextGgufVocab *vocab, bool strip_mask) {
    json_t *list = json_array();
    for (size_t i = 0; i < vocab->size; i++) {
        int type = token_type(vocab, i);
        if (type != PIECE_CONTROL && type != PIECE_USER && type != PIECE_UNKNOWN) continue;
        char *text = token_text(vocab, i);
        bool lstrip = strip_mask && strcmp(text, "<mask>") == 0;
        json_array_append_new(list, added_token(i, text, type != PIECE_USER, lstrip, false));
        free(text);
    }
    return list;
}

/* bos before and eos or sep after the text, as the flags say. */
static json_t *template_of(const TextGgufVocab *vocab, int32_t before, int32_t after,
                           int second_type, bool join_first) {
    if (before < 0 && after < 0) return json_null();
    json_t *single = json_array(), *pair = json_array(), *specials = json_object();
    const int32_t ids[2] = {before, after};
    char *names[2] = {NULL, NULL};
    for (size_t i = 0; i < 2; i++) {
        if (ids[i] < 0) continue;
        names[i] = token_text(vocab, (size_t)ids[i]);
        json_object_set_new(specials, names[i],
                            json_pack("{s:s, s:[i], s:[s]}", "id", names[i], "ids", (int)ids[i],
                                      "tokens", names[i]));
    }
#define SPECIAL(list, name, type) \
    json_array_append_new(        \
        list, json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", name, "type_id", type))
#define SEQUENCE(list, name, type) \
    json_array_append_new(list,    \
                          json_pack("{s:{s:s, s:i}}", "Sequence", "id", name, "type_id", type))
    if (names[0]) {
        SPECIAL(single, names[0], 0);
        SPECIAL(pair, names[0], 0);
    }
    SEQUENCE(single, "A", 0);
    SEQUENCE(pair, "A", 0);
    if (names[1]) {
        SPECIAL(single, names[1], 0);
        SPECIAL(pair, names[1], 0);
    }
    if (names[0] && join_first) SPECIAL(pair, names[0], second_type);
    SEQUENCE(pair, "B", second_type);
    if (names[1]) SPECIAL(pair, names[1], second_type);
#undef SPECIAL
#undef SEQUENCE
    free(names[0]);
    free(names[1]);
    return json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", single, "pair",
                     pair, "special_tokens", specials);
}

static json_t *whole(json_t *added, json_t *normalizer, json_t *pre, json_t *post, json_t *decoder,
                     json_t *model) {
    return json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0",
                     "truncation", "padding", "added_tokens", added, "normalizer", normalizer,
                     "pre_tokenizer", pre, "post_processor", post, "decoder", decoder, "model",
                     model);
}

/* text -> id; a token that stands twice keeps its first id. */
static json_t *vocab_tree(const TextGgufVocab *vocab, Error *err) {
    json_t *tree = json_object();
    for (size_t i = 0; i < vocab->size; i++) {
        char *text = token_text(vocab, i);
        if (json_object_get(tree, text)) {
            base_fail(err, ERROR_INPUT,
                      "tokenizer.ggml.tokens: token %zu, \"%.60s\", is there twice", i, text);
            free(text);
            json_decref(tree);
            return NULL;
        }
        json_object_set_new(tree, text, json_integer((json_int_t)i));
        free(text);
    }
    return tree;
}

/* ---- gpt2 --------------------------------------------------------------- */

/* "a b", cut at the first space from index 1: a token may itself be a space
 * only in front. As one string where that can be read again, which takes half
 * the file and half the time of a pair. */
static json_t *merge_tree(const char *merge, bool as_string) {
    const char *space = *merge ? strchr(merge + 1, ' ') : NULL;
    if (!space || !base_utf8_valid(merge, strlen(merge))) return NULL;
    return as_string ? json_string(merge)
                     : json_pack("[s%, s]", merge, (size_t)(space - merge), space + 1);
}

/* Whether every merge has one space and none looks like a version line. */
static bool merges_are_plain(const TextGgufVocab *vocab) {
    for (size_t i = 0; i < vocab->merge_count; i++) {
        const char *merge = vocab->merges[i], *space = merge ? strchr(merge, ' ') : NULL;
        if (!space || space == merge || strchr(space + 1, ' ') ||
            base_starts_with(merge, "#version"))
            return false;
    }
    return true;
}

static json_t *gpt2_model(const TextGgufVocab *vocab, const TextGgufPre *group, Error *err) {
    json_t *texts = vocab_tree(vocab, err);
    if (!texts) return NULL;
    if (!vocab->merges || !vocab->merge_count) {
        base_fail(err, ERROR_INPUT, "tokenizer.ggml.merges is missing, which model \"%.32s\" needs",
                  vocab->model);
        json_decref(texts);
        return NULL;
    }
    json_t *merges = json_array();
    bool plain = merges_are_plain(vocab);
    for (size_t i = 0; i < vocab->merge_count; i++) {
        json_t *merge = vocab->merges[i] ? merge_tree(vocab->merges[i], plain) : NULL;
        if (!merge) {
            base_fail(err, ERROR_INPUT,
                      "tokenizer.ggml.merges: entry %zu is not two parts with a space between", i);
            json_decref(texts);
            json_decref(merges);
            return NULL;
        }
        json_array_append_new(merges, merge);
    }
    return json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout",
                     "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                     "byte_fallback", group->raw, "ignore_merges", group->ignore_merges, "vocab",
                     texts, "merges", merges);
}

/* Texts with their spaces marked, and back. */
static json_t *marked_spaces(void) {
    return replace(" ", SPIECE_SPACE);
}

static json_t *unmarked_spaces(void) {
    return json_pack("{s:s, s:[o, o, o]}", "type", "Sequence", "decoders",
                     replace(SPIECE_SPACE, " "), typed("ByteFallback"), typed("Fuse"));
}

static json_t *byte_pairs(const TextGgufVocab *vocab, const char *pre, Error *err) {
    const TextGgufPre *group = text_gguf_pre_find(pre);
    if (!group) {
        base_fail(err, ERROR_UNSUPPORTED,
                  "tokenizer.ggml.pre \"%.60s\" is not a known pre-tokenizer", pre);
        return NULL;
    }
    json_t *model = gpt2_model(vocab, group, err);
    if (!model) return NULL;
    bool add_bos = vocab->add_bos >= 0 ? vocab->add_bos : group->add_bos;
    bool add_sep = strstr(" jina-v1-en jina-v2-code roberta-bpe ", pre) != NULL;
    int32_t after = vocab->add_eos == 1                                ? vocab->eos_id
                    : (vocab->add_sep >= 0 ? vocab->add_sep : add_sep) ? vocab->sep_id
                                                                       : -1;
    json_t *post = template_of(vocab, add_bos ? vocab->bos_id : -1, after, 1, after < 0);
    if (json_is_null(post) && !group->raw) post = text_gguf_byte_level(true);
    return whole(added_tokens(vocab, true), group->raw ? marked_spaces() : json_null(),
                 text_gguf_pre_tokenizer(group), post,
                 group->raw ? unmarked_spaces() : text_gguf_byte_level(true), model);
}

static json_t *from_gpt2(const TextGgufVocab *vocab, Error *err) {
    if (!vocab->pre)
        base_log(LOG_WARNING,
                 "the GGUF names no pre-tokenizer (tokenizer.ggml.pre); GPT-2's is taken");
    return byte_pairs(vocab, vocab->pre ? vocab->pre : "gpt-2", err);
}

/* Whatever the file says of it, a text starts with bos. */
static json_t *from_gemma4(const TextGgufVocab *vocab, Error *err) {
    TextGgufVocab with_bos = *vocab;
    with_bos.add_bos = 1;
    return byte_pairs(&with_bos, "gemma4", err);
}

/* ---- llama: SentencePiece BPE ------------------------------------------- */

typedef struct Merge {
    int32_t left, right;
    uint32_t left_length, right_length; /* in characters */
    float score;
    size_t order; /* keeps the sort stable */
} Merge;

static int by_score(const void *a, const void *b) {
    const Merge *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    if (x->left_length != y->left_length) return x->left_length < y->left_length ? 1 : -1;
    if (x->right_length != y->right_length) return x->right_length < y->right_length ? 1 : -1;
    return (x->order > y->order) - (x->order < y->order);
}

static int by_ids(const void *a, const void *b) {
    const Merge *x = a, *y = b;
    if (x->left != y->left) return x->left < y->left ? -1 : 1;
    return (x->right > y->right) - (x->right < y->right);
}

static uint32_t count_characters(const char *text, size_t length) {
    uint32_t count = 0;
    for (size_t i = 0; i < length; i++) count += (text[i] & 0xC0) != 0x80;
    return count;
}

/* Pieces that take no part in merging. */
static bool stands_apart(int type) {
    return type == PIECE_UNKNOWN || type == PIECE_CONTROL || type == PIECE_BYTE;
}

/* Every split of every piece into two pieces, in SentencePiece's order. */
static bool llama_merges(const TextGgufVocab *vocab, const TextVocab *index, json_t *list,
                         Error *err) {
    enum { MAX_MERGES = 1 << 24 };
    Merge *merges = NULL;
    size_t count = 0, capacity = 0;
    for (size_t id = 0; id < vocab->size && count < MAX_MERGES; id++) {
        const char *text = vocab->tokens[id];
        size_t length = strlen(text), first = count;
        if (stands_apart(token_type(vocab, id))) continue;
        for (size_t cut = 1; cut < length; cut++) {
            if ((text[cut] & 0xC0) == 0x80) continue;
            int32_t left = text_vocab_find(index, text, cut),
                    right = text_vocab_find(index, text + cut, length - cut);
            if (left < 0 || right < 0) continue;
            merges = base_grow(merges, &capacity, count + 1, sizeof *merges);
            merges[count++] = (Merge){.left = left,
                                      .right = right,
                                      .left_length = count_characters(text, cut),
                                      .right_length = count_characters(text + cut, length - cut),
                                      .score = vocab->scores[id]};
        }
        if (count > first) qsort(merges + first, count - first, sizeof *merges, by_ids);
    }
    for (size_t i = 0; i < count; i++) merges[i].order = i;
    if (count) qsort(merges, count, sizeof *merges, by_score);
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, json_pack("[s, s]", vocab->tokens[merges[i].left],
                                              vocab->tokens[merges[i].right]));
    free(merges);
    return count < MAX_MERGES ||
           base_fail(err, ERROR_UNSUPPORTED, "tokenizer.ggml.tokens: more than %d merges",
                     MAX_MERGES);
}

static json_t *llama_model(const TextGgufVocab *vocab, int32_t unk, Error *err) {
    json_t *texts = vocab_tree(vocab, err), *merges = json_array();
    TextVocab index = {0};
    bool ok = texts != NULL;
    if (ok && !vocab->scores)
        ok = base_fail(err, ERROR_INPUT,
                       "tokenizer.ggml.scores is missing, which model \"llama\" needs");
    for (size_t i = 0; i < vocab->size && ok; i++) {
        if (vocab->scores[i] != vocab->scores[i])
            ok = base_fail(err, ERROR_INPUT, "tokenizer.ggml.scores: entry %zu is not a number", i);
        else if (!stands_apart(token_type(vocab, i)) && *vocab->tokens[i])
            ok =
                text_vocab_add(&index, vocab->tokens[i], strlen(vocab->tokens[i]), (int64_t)i, err);
    }
    ok = ok && llama_merges(vocab, &index, merges, err);
    text_vocab_free(&index);
    if (!ok) {
        json_decref(texts);
        json_decref(merges);
        return NULL;
    }
    char *unk_text = token_text(vocab, (size_t)unk);
    json_t *model = json_pack("{s:s, s:n, s:s, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE",
                              "dropout", "unk_token", unk_text, "continuing_subword_prefix",
                              "end_of_word_suffix", "fuse_unk", 1, "byte_fallback", 1,
                              "ignore_merges", 0, "vocab", texts, "merges", merges);
    free(unk_text);
    return model;
}

static json_t *from_llama(const TextGgufVocab *vocab, Error *err) {
    int32_t unk = vocab->unk_id >= 0 ? vocab->unk_id : 0;
    int32_t bos = vocab->bos_id >= 0 ? vocab->bos_id : vocab->size > 1 ? 1 : -1;
    int32_t eos = vocab->eos_id >= 0 ? vocab->eos_id : vocab->size > 2 ? 2 : -1;
    bool prefix = vocab->add_space_prefix != 0;
    json_t *model = llama_model(vocab, unk, err);
    if (!model) return NULL;
    json_t *steps = json_array(), *decoders = json_array();
    if (prefix)
        json_array_append_new(steps,
                              json_pack("{s:s, s:s}", "type", "Prepend", "prepend", SPIECE_SPACE));
    json_array_append_new(steps, replace(" ", SPIECE_SPACE));
    json_array_append_new(decoders, replace(SPIECE_SPACE, " "));
    json_array_append_new(decoders, typed("ByteFallback"));
    json_array_append_new(decoders, typed("Fuse"));
    if (prefix)
        json_array_append_new(decoders, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip",
                                                  "content", " ", "start", 1, "stop", 0));
    json_t *post =
        template_of(vocab, vocab->add_bos != 0 ? bos : -1, vocab->add_eos == 1 ? eos : -1, 1, true);
    return whole(added_tokens(vocab, false),
                 json_pack("{s:s, s:o}", "type", "Sequence", "normalizers", steps), json_null(),
                 post, json_pack("{s:s, s:o}", "type", "Sequence", "decoders", decoders), model);
}

/* ---- bert --------------------------------------------------------------- */

/* The GGUF spells a word's start with the space mark and its rest bare; BERT
 * spells the start bare and the rest with ##. Names in brackets stay. */
static char *bert_text(const TextGgufVocab *vocab, size_t id) {
    const char *text = vocab->tokens[id];
    size_t length = strlen(text);
    if (base_starts_with(text, SPIECE_SPACE)) return base_strdup(text + strlen(SPIECE_SPACE));
    bool bracketed = length > 2 && text[0] == '[' && text[length - 1] == ']';
    int type = token_type(vocab, id);
    if (!length || bracketed || type == PIECE_CONTROL || type == PIECE_UNKNOWN ||
        type == PIECE_USER)
        return token_text(vocab, id);
    return base_format("##%s", text);
}

static json_t *from_bert(const TextGgufVocab *vocab, Error *err) {
    static const int32_t standard[] = {101, 102, 100, 0, 103}; /* cls sep unk pad mask */
    int32_t ids[5] = {vocab->cls_id >= 0 ? vocab->cls_id : vocab->bos_id, vocab->sep_id,
                      vocab->unk_id, vocab->pad_id, vocab->mask_id};
    json_t *texts = json_object(), *added = json_array();
    bool lowercase = true;
    for (size_t i = 0; i < vocab->size; i++) {
        char *text = bert_text(vocab, i);
        bool twice = json_object_get(texts, text) != NULL;
        if (twice)
            base_fail(err, ERROR_INPUT,
                      "tokenizer.ggml.tokens: token %zu, \"%.60s\", is there twice", i, text);
        else
            json_object_set_new(texts, text, json_integer((json_int_t)i));
        /* An uncased vocabulary has no capital in any word. */
        for (const char *c = text; *c && text[0] != '[' && token_type(vocab, i) == PIECE_NORMAL;
             c++)
            lowercase &= *c < 'A' || *c > 'Z';
        free(text);
        if (twice) {
            json_decref(texts);
            json_decref(added);
            return NULL;
        }
    }
    for (size_t i = 0; i < BASE_COUNT(ids); i++)
        if (ids[i] < 0) ids[i] = (size_t)standard[i] < vocab->size ? standard[i] : -1;
    if (ids[0] < 0 || ids[1] < 0 || ids[2] < 0) {
        base_fail(err, ERROR_INPUT,
                  "tokenizer.ggml: a \"bert\" vocabulary needs cls, sep and unknown tokens");
        json_decref(texts);
        json_decref(added);
        return NULL;
    }
    for (size_t id = 0; id < vocab->size; id++) {
        bool named = false;
        for (size_t i = 0; i < BASE_COUNT(ids); i++) named |= ids[i] == (int32_t)id;
        char *text = bert_text(vocab, id);
        if (named || token_type(vocab, id) == PIECE_USER)
            json_array_append_new(added, added_token(id, text, named, false, false));
        free(text);
    }
    char *unk = bert_text(vocab, (size_t)ids[2]);
    json_t *model = json_pack("{s:s, s:s, s:s, s:i, s:o}", "type", "WordPiece", "unk_token", unk,
                              "continuing_subword_prefix", "##", "max_input_chars_per_word", 100,
                              "vocab", texts);
    free(unk);
    json_t *normalizer =
        json_pack("{s:s, s:b, s:b, s:n, s:b}", "type", "BertNormalizer", "clean_text", 1,
                  "handle_chinese_chars", 1, "strip_accents", "lowercase", lowercase);
    return whole(
        added, normalizer, typed("BertPreTokenizer"), template_of(vocab, ids[0], ids[1], 1, false),
        json_pack("{s:s, s:s, s:b}", "type", "WordPiece", "prefix", "##", "cleanup", 1), model);
}

/* ---- t5: Unigram ---------------------------------------------------------- */

enum { T5_PAD = 0, T5_EOS = 1, T5_UNK = 2 };

static json_t *t5_pieces(const TextGgufVocab *vocab, Error *err) {
    if (!vocab->scores) {
        base_fail(err, ERROR_INPUT, "tokenizer.ggml.scores is missing, which model \"t5\" needs");
        return NULL;
    }
    json_t *pieces = json_array();
    for (size_t i = 0; i < vocab->size; i++) {
        char *text = token_text(vocab, i);
        json_t *piece = json_pack("[s, f]", text, (double)vocab->scores[i]);
        free(text);
        if (!piece) {
            base_fail(err, ERROR_INPUT, "tokenizer.ggml.scores: entry %zu is not a number", i);
            json_decref(pieces);
            return NULL;
        }
        json_array_append_new(pieces, piece);
    }
    return pieces;
}

/* The charsmap, then runs of spaces made one and those at the ends dropped. */
static json_t *t5_normalizer(const TextGgufVocab *vocab) {
    json_t *steps = json_array();
    if (vocab->charsmap_length) {
        uint8_t *bytes = base_alloc(vocab->charsmap_length);
        for (size_t i = 0; i < vocab->charsmap_length; i++) bytes[i] = (uint8_t)vocab->charsmap[i];
        char *text = text_base64_of(bytes, vocab->charsmap_length);
        json_array_append_new(
            steps, json_pack("{s:s, s:s}", "type", "Precompiled", "precompiled_charsmap", text));
        free(text);
        free(bytes);
    }
    if (vocab->remove_extra_whitespaces == 1) {
        static const char *const spaces[][2] = {{"\\A +| +\\z", ""}, {" {2,}", " "}};
        for (size_t i = 0; i < BASE_COUNT(spaces); i++)
            json_array_append_new(steps,
                                  json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern",
                                            "Regex", spaces[i][0], "content", spaces[i][1]));
    }
    if (vocab->add_space_prefix != 0) /* before a mark of the text's own too */
        json_array_append_new(steps, json_pack("{s:s, s:s}", "type", "Prepend", "prepend", " "));
    return json_pack("{s:s, s:o}", "type", "Sequence", "normalizers", steps);
}

static json_t *metaspace(bool prefix) {
    return json_pack("{s:s, s:s, s:s, s:b}", "type", "Metaspace", "replacement", SPIECE_SPACE,
                     "prepend_scheme", prefix ? "always" : "never", "split", 0);
}

static json_t *from_t5(const TextGgufVocab *vocab, Error *err) {
    int32_t eos = vocab->eos_id >= 0 ? vocab->eos_id : vocab->size > T5_EOS ? T5_EOS : -1;
    int32_t unk = vocab->unk_id >= 0 ? vocab->unk_id : vocab->size > T5_UNK ? T5_UNK : 0;
    int32_t before = vocab->add_bos == 1 ? vocab->bos_id : -1,
            after = vocab->add_eos != 0 ? eos : -1;
    json_t *pieces = t5_pieces(vocab, err);
    if (!pieces) return NULL;
    bool prefix = vocab->add_space_prefix != 0;
    json_t *post = template_of(vocab, before, after, 0, false);
    if (before >= 0 && after >= 0) { /* XLM-RoBERTa has two ends between a pair */
        char *cls = token_text(vocab, (size_t)before), *sep = token_text(vocab, (size_t)after);
        json_decref(post);
        post = json_pack("{s:s, s:[s, i], s:[s, i], s:b, s:b}", "type", "RobertaProcessing", "sep",
                         sep, after, "cls", cls, before, "trim_offsets", 1, "add_prefix_space", 0);
        free(cls);
        free(sep);
    }
    return whole(added_tokens(vocab, true), t5_normalizer(vocab), metaspace(false), post,
                 metaspace(prefix),
                 json_pack("{s:s, s:i, s:o, s:b}", "type", "Unigram", "unk_id", unk, "vocab",
                           pieces, "byte_fallback", 0));
}

/* ---- the face ----------------------------------------------------------- */

static const struct {
    const char *model, *class_name;
    json_t *(*build)(const TextGgufVocab *, Error *);
} kinds[] = {
    {"gpt2", "PreTrainedTokenizerFast", from_gpt2},
    {"llama", "PreTrainedTokenizerFast", from_llama},
    {"bert", "BertTokenizer", from_bert},
    {"t5", "PreTrainedTokenizerFast", from_t5},
    {"gemma4", "PreTrainedTokenizerFast", from_gemma4},
};

/* tokenizer_config.json: the names of the special tokens. */
static json_t *config_of(const TextGgufVocab *vocab, const char *class_name) {
    bool bert = strcmp(vocab->model, "bert") == 0, llama = strcmp(vocab->model, "llama") == 0,
         t5 = strcmp(vocab->model, "t5") == 0;
    const struct {
        TextSpecial which;
        int32_t id, standard;
    } named[] = {
        {TEXT_BOS, bert ? -1 : vocab->bos_id, llama ? 1 : -1},
        {TEXT_EOS, bert ? -1 : vocab->eos_id,
         llama ? 2
         : t5  ? T5_EOS
               : -1},
        {TEXT_UNK, vocab->unk_id,
         bert    ? 100
         : llama ? 0
         : t5    ? T5_UNK
                 : -1},
        {TEXT_SEP, vocab->sep_id, bert ? 102 : -1},
        {TEXT_PAD, vocab->pad_id, bert || t5 ? T5_PAD : -1},
        {TEXT_CLS, bert && vocab->cls_id < 0 ? vocab->bos_id : vocab->cls_id, bert ? 101 : -1},
        {TEXT_MASK, vocab->mask_id, bert ? 103 : -1},
    };
    json_t *config = json_pack("{s:s, s:b}", "tokenizer_class", class_name,
                               "clean_up_tokenization_spaces", bert);
    for (size_t i = 0; i < BASE_COUNT(named); i++) {
        int32_t id = named[i].id >= 0 ? named[i].id : named[i].standard;
        if (id < 0 || (size_t)id >= vocab->size) continue;
        char *text = bert ? bert_text(vocab, (size_t)id) : token_text(vocab, (size_t)id);
        json_object_set_new(config, text_special_key(named[i].which), json_string(text));
        free(text);
    }
    return config;
}

json_t *text_tokenizer_json_from_gguf(const TextGgufVocab *vocab, json_t **config, Error *err) {
    if (config) *config = NULL;
    if (!check_vocab(vocab, err)) return NULL;
    for (size_t i = 0; i < BASE_COUNT(kinds); i++) {
        if (strcmp(vocab->model, kinds[i].model) != 0) continue;
        json_t *tree = kinds[i].build(vocab, err);
        if (tree && config) *config = config_of(vocab, kinds[i].class_name);
        return tree;
    }
    base_fail(
        err, ERROR_UNSUPPORTED,
        "tokenizer.ggml.model \"%.60s\" is not supported; gpt2, llama, bert, t5 and gemma4 are",
        vocab->model);
    return NULL;
}
