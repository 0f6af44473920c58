/* The way back: the vocabulary of a model folder as GGUF's arrays and names, from
 * which llama.cpp makes the same ids. Byte-level BPE becomes "gpt2", BPE in
 * SentencePiece's alphabet "llama"; the scores of a tokenizer.json, which has none,
 * are its order of merging. */
#include "text/tokenizer_gguf.h"

#define MARK "\xE2\x96\x81"

typedef struct Making {
    const TextTokenizer *tokenizer;
    const json_t *file; /* tokenizer.json; NULL when the folder has another kind */
    TextGgufVocab *vocab;
    Arena *arena;
} Making;

static bool refuse(Error *err, const char *what) {
    base_fail(err, ERROR_UNSUPPORTED, "%s, which llama.cpp cannot do as this tokenizer does", what);
    return base_hint(err, "Only byte-level BPE and SentencePiece's BPE can become a GGUF.");
}

/* ---- tokens ----------------------------------------------------------------- */

static bool is_byte_token(const char *text, size_t length) {
    return length == 6 && memcmp(text, "<0x", 3) == 0 && text[5] == '>';
}

/* Token by token: its text and what kind of token it is; ids without one, up to the
 * rows of the embedding, are unused. */
static void make_tokens(Making *making, size_t rows, bool byte_tokens) {
    const TextTokenizer *tokenizer = making->tokenizer;
    TextGgufVocab *vocab = making->vocab;
    const char **tokens = base_arena_alloc(making->arena, rows * sizeof *tokens);
    int32_t *types = base_arena_alloc(making->arena, rows * sizeof *types);
    for (size_t id = 0; id < rows; id++) {
        const TextAdded *added = text_added_by_id(&tokenizer->added, (int32_t)id);
        const char *text = text_tokenizer_token(tokenizer, (int32_t)id);
        char filler[32];
        types[id] = PIECE_NORMAL;
        if (!text) {
            snprintf(filler, sizeof filler, "[PAD%zu]", id);
            text = filler;
            types[id] = PIECE_UNUSED;
        } else if (byte_tokens && is_byte_token(text, strlen(text))) {
            types[id] = PIECE_BYTE;
        } else if (tokenizer->model.types && !added) {
            types[id] = tokenizer->model.types[id];
        } else if (added) {
            const bool unknown = byte_tokens && (int32_t)id == tokenizer->model.unk_id;
            types[id] = unknown ? PIECE_UNKNOWN : added->special ? PIECE_CONTROL : PIECE_USER;
        }
        tokens[id] = base_arena_strndup(making->arena, text, strlen(text));
    }
    vocab->tokens = tokens;
    vocab->types = types;
    vocab->size = vocab->type_count = rows;
}

/* ---- merges ------------------------------------------------------------------ */

static void make_merges(Making *making) {
    const TextModel *model = &making->tokenizer->model;
    const size_t count = model->pair_count;
    const char **merges = base_arena_alloc(making->arena, (count + 1) * sizeof *merges);
    StrBuf line = {0};
    for (size_t i = 0; i < count; i++) {
        line.length = 0;
        base_str_appendf(&line, "%s %s", text_vocab_text(&model->vocab, model->pairs[i].left, NULL),
                         text_vocab_text(&model->vocab, model->pairs[i].right, NULL));
        merges[i] = base_arena_strndup(making->arena, line.data, line.length);
    }
    base_str_free(&line);
    making->vocab->merges = merges;
    making->vocab->merge_count = count;
}

/* What merges first scores highest; pieces that no merge makes come after all. */
static void make_scores(Making *making) {
    const TextModel *model = &making->tokenizer->model;
    TextGgufVocab *vocab = making->vocab;
    float *scores = base_arena_alloc(making->arena, vocab->size * sizeof *scores);
    const size_t count = model->scores ? 0 : model->pair_count;
    for (size_t id = 0; id < vocab->size; id++) {
        const bool known = model->scores && id < model->vocab.size;
        scores[id] = known ? (float)model->scores[id] : -(float)(count + 1);
        if (vocab->types[id] != PIECE_NORMAL && !known) scores[id] = 0;
    }
    for (size_t i = count; i-- > 0;)
        if (vocab->types[model->pairs[i].product] == PIECE_NORMAL)
            scores[model->pairs[i].product] = -(float)i;
    vocab->scores = scores;
    vocab->score_count = vocab->size;
}

/* ---- special tokens ------------------------------------------------------------ */

static bool make_special(Making *making, Error *err) {
    const TextTokenizer *tokenizer = making->tokenizer;
    TextGgufVocab *vocab = making->vocab;
    const struct {
        TextSpecial which;
        int32_t *id;
    } ids[] = {{TEXT_BOS, &vocab->bos_id}, {TEXT_EOS, &vocab->eos_id},
               {TEXT_UNK, &vocab->unk_id}, {TEXT_SEP, &vocab->sep_id},
               {TEXT_PAD, &vocab->pad_id}, {TEXT_MASK, &vocab->mask_id}};
    for (size_t i = 0; i < BASE_COUNT(ids); i++)
        *ids[i].id = text_tokenizer_special_id(tokenizer, ids[i].which);
    TextIds around = {0};
    if (!text_tokenizer_encode(tokenizer, "", 0, TEXT_ENCODE_PROMPT, &around, err)) return false;
    size_t used = 0;
    vocab->add_bos = around.length > 0 && around.data[0] == vocab->bos_id;
    used += vocab->add_bos != 0;
    vocab->add_eos = around.length > used && around.data[around.length - 1] == vocab->eos_id;
    used += vocab->add_eos != 0;
    const bool more = around.length > used;
    text_ids_free(&around);
    return !more || refuse(err, "a text stands between other tokens than bos and eos");
}

/* ---- kinds ----------------------------------------------------------------------- */

static bool make_gpt2(Making *making, size_t rows, Error *err) {
    char pre[64];
    const json_t *cutter = json_object_get(making->file, "pre_tokenizer");
    if (!making->file ||
        !text_gguf_pre_name(cutter, making->tokenizer->model.ignore_merges, pre, sizeof pre))
        return refuse(err, "text is cut into words by a pattern of its own");
    making->vocab->model = "gpt2";
    making->vocab->pre = base_arena_strndup(making->arena, pre, strlen(pre));
    make_tokens(making, rows, false);
    make_merges(making);
    return true;
}

/* Whether a tokenizer.json puts a space before the text. */
static bool adds_space(const json_t *file) {
    char *text = json_dumps(json_object_get(file, "normalizer"), JSON_ENCODE_ANY | JSON_COMPACT);
    bool adds = text && strstr(text, "\"Prepend\"") != NULL;
    free(text);
    text = json_dumps(json_object_get(file, "pre_tokenizer"), JSON_ENCODE_ANY | JSON_COMPACT);
    if (text && strstr(text, "\"Metaspace\""))
        adds |= !strstr(text, "\"never\"") && !strstr(text, "\"add_prefix_space\":false");
    free(text);
    return adds;
}

static bool make_llama(Making *making, size_t rows, Error *err) {
    const TextTokenizer *tokenizer = making->tokenizer;
    if (!tokenizer->model.byte_fallback || !tokenizer->model.all_fallback_bytes)
        return refuse(err, "unknown characters are not taken apart into bytes");
    making->vocab->model = "llama";
    making->vocab->pre = "default";
    making->vocab->add_space_prefix = making->file ? adds_space(making->file) : 1;
    if (!making->file && tokenizer->normalizers.count && tokenizer->normalizers.parts[0].spm)
        making->vocab->add_space_prefix = tokenizer->normalizers.parts[0].spm->add_dummy_prefix;
    make_tokens(making, rows, true);
    make_scores(making);
    return true;
}

/* llama.cpp takes text as it stands; NFC, which leaves nearly all text alone, passes. */
static void warn_of_normalizers(const TextNormalizers *chain) {
    bool changes = false;
    for (size_t i = 0; i < chain->count; i++) {
        const TextNormalizer *part = &chain->parts[i];
        changes |= part->clean || part->lowercase || part->strip_accents || part->compatible ||
                   part->charsmap ||
                   (part->spm && (part->spm->map || part->spm->remove_extra_spaces));
    }
    if (changes)
        base_log(LOG_WARNING, "the tokenizer changes text before it cuts it (NFKC, spaces, case), "
                              "llama.cpp does not: some texts will have other tokens there");
}

static bool make(Making *making, size_t rows, Error *err) {
    const TextTokenizer *tokenizer = making->tokenizer;
    const size_t size = (size_t)text_tokenizer_vocab_size(tokenizer);
    if (size > rows || rows > TEXT_MAX_IDS)
        return base_fail(err, ERROR_INPUT,
                         "the tokenizer has %zu tokens, the model's embedding %zu rows", size,
                         rows);
    const TextModelKind kind = tokenizer->model.kind;
    if (kind == MODEL_BPE && tokenizer->pre_tokenizers.ends_in_bytes) {
        if (!make_gpt2(making, rows, err)) return false;
    } else if (kind == MODEL_BPE || (kind == MODEL_TEXT_BPE && tokenizer->model.types)) {
        if (!make_llama(making, rows, err)) return false;
    } else {
        return refuse(err, "its model is not such a BPE");
    }
    warn_of_normalizers(&tokenizer->normalizers);
    return make_special(making, err);
}

bool text_gguf_vocab_open(const char *folder, size_t rows, TextGgufVocab *vocab, Arena **arena,
                          Error *err) {
    char *path = base_path_join(folder, "tokenizer.json");
    json_t *file = base_is_file(path) ? base_json_load(path, err) : NULL;
    TextTokenizer *tokenizer =
        file || !base_is_file(path) ? text_tokenizer_open(folder, err) : NULL;
    *vocab = TEXT_GGUF_VOCAB_NONE;
    *arena = base_arena_new();
    Making making = {.tokenizer = tokenizer, .file = file, .vocab = vocab, .arena = *arena};
    bool good = tokenizer && (make(&making, rows, err) || base_error_context(err, "%s", folder));
    if (!good) {
        base_arena_free(*arena);
        *arena = NULL;
    }
    text_tokenizer_free(tokenizer);
    json_decref(file);
    free(path);
    return good;
}
