/* The model of a tokenizer: its settings, its vocabulary and merges as they
 * arrive from a file, and the tables made of them. */
#include "text/tokenizer_parts.h"

static bool load_bpe(const json_t *json, TextModel *model, Error *err) {
    const char *where = "model BPE";
    /* dropout is for training; encoding here is deterministic. */
    bool ok =
        text_json_string(json, "unk_token", NULL, where, &model->unk_token, err) &&
        text_json_string(json, "continuing_subword_prefix", NULL, where, &model->prefix, err) &&
        text_json_string(json, "end_of_word_suffix", NULL, where, &model->suffix, err) &&
        text_json_bool(json, "fuse_unk", false, where, &model->fuse_unk, err) &&
        text_json_bool(json, "byte_fallback", false, where, &model->byte_fallback, err) &&
        text_json_bool(json, "ignore_merges", false, where, &model->ignore_merges, err);
    if (ok && model->prefix && !*model->prefix) {
        free(model->prefix);
        model->prefix = NULL;
    }
    if (ok && model->suffix && !*model->suffix) {
        free(model->suffix);
        model->suffix = NULL;
    }
    return ok;
}

static bool load_wordpiece(const json_t *json, TextModel *model, Error *err) {
    const char *where = "model WordPiece";
    return text_json_string(json, "unk_token", "[UNK]", where, &model->unk_token, err) &&
           text_json_string(json, "continuing_subword_prefix", "##", where, &model->prefix, err) &&
           text_json_size(json, "max_input_chars_per_word", 100, where, &model->max_chars, err);
}

static bool load_wordlevel(const json_t *json, TextModel *model, Error *err) {
    return text_json_string(json, "unk_token", "<unk>", "model WordLevel", &model->unk_token, err);
}

/* unk_id may be null: then every character must be in the vocabulary. */
static bool load_unigram(const json_t *json, TextModel *model, Error *err) {
    const char *where = "model Unigram";
    size_t unk_id;
    if (!text_json_size(json, "unk_id", TEXT_MAX_IDS, where, &unk_id, err) ||
        !text_json_bool(json, "byte_fallback", false, where, &model->byte_fallback, err))
        return false;
    if (unk_id > TEXT_MAX_IDS) return base_fail(err, ERROR_INPUT, "%s: unk_id too large", where);
    model->unk_id = unk_id == TEXT_MAX_IDS ? -1 : (int32_t)unk_id;
    return true;
}

static const struct {
    const char *type;
    TextModelKind kind;
    bool (*load)(const json_t *, TextModel *, Error *);
} kinds[] = {
    {"BPE", MODEL_BPE, load_bpe},
    {"WordPiece", MODEL_WORDPIECE, load_wordpiece},
    {"WordLevel", MODEL_WORDLEVEL, load_wordlevel},
    {"Unigram", MODEL_UNIGRAM, load_unigram},
};

/* A file without "type": the first kind whose members it has. */
static const char *guess_type(const json_t *json) {
    if (json_object_get(json, "merges")) return "BPE";
    if (json_is_array(json_object_get(json, "vocab"))) return "Unigram";
    return json_object_get(json, "max_input_chars_per_word") ? "WordPiece" : "WordLevel";
}

bool text_model_load(const json_t *json, TextModel *model, Error *err) {
    if (!json_is_object(json))
        return base_fail(err, ERROR_INPUT, "\"model\" is missing or not an object");
    const json_t *member = json_object_get(json, "type");
    if (member && !json_is_string(member))
        return base_fail(err, ERROR_INPUT, "model: \"type\" must be a string");
    const char *type = member ? json_string_value(member) : guess_type(json);
    for (size_t i = 0; i < BASE_COUNT(kinds); i++) {
        if (strcmp(type, kinds[i].type) == 0) {
            model->kind = kinds[i].kind;
            return kinds[i].load(json, model, err);
        }
    }
    return base_fail(err, ERROR_UNSUPPORTED, "model of type \"%s\" is not supported", type);
}

static bool finish_wordpiece(TextModel *model, Error *err) {
    size_t prefix = strlen(model->prefix), length;
    text_vocab_reserve(&model->continuing, model->vocab.blob_length, model->vocab.size);
    for (size_t id = 0; id < model->vocab.size; id++) {
        const char *text = text_vocab_text(&model->vocab, (int32_t)id, &length);
        if (text && length > prefix && memcmp(text, model->prefix, prefix) == 0 &&
            !text_vocab_add(&model->continuing, text + prefix, length - prefix, (int64_t)id, err))
            return false;
    }
    return true;
}

bool text_model_add_scored(TextModel *model, const char *text, size_t length, double score,
                           Error *err) {
    size_t id = model->vocab.size;
    int32_t before = text_vocab_find(&model->vocab, text, length);
    if (!text_vocab_add(&model->vocab, text, length, (int64_t)id, err)) return false;
    /* Listed twice: text means the later one, but both decode. */
    if (before >= 0) model->vocab.entries[before] = model->vocab.entries[id];
    model->scores =
        base_grow(model->scores, &model->score_room, model->vocab.size, sizeof *model->scores);
    model->scores[id] = score;
    return true;
}

void text_model_find_fallback_bytes(TextModel *model) {
    model->all_fallback_bytes = true;
    for (unsigned byte = 0; byte < 256; byte++) {
        char name[8];
        int length = snprintf(name, sizeof name, "<0x%02X>", byte);
        model->fallback_ids[byte] = text_vocab_find(&model->vocab, name, (size_t)length);
        model->all_fallback_bytes &= model->fallback_ids[byte] >= 0;
    }
}

static void finish_bpe(TextModel *model) {
    bool all_bytes = true;
    text_model_find_fallback_bytes(model);
    for (unsigned byte = 0; byte < 256; byte++) {
        char mapped[4];
        size_t mapped_length = base_utf8_encode(text_alphabet_of_byte((uint8_t)byte), mapped);
        model->byte_ids[byte] = text_vocab_find(&model->vocab, mapped, mapped_length);
        all_bytes &= model->byte_ids[byte] >= 0;
    }
    /* A byte without a symbol disappears, unless the model has something else for it. */
    bool lenient = all_bytes || (!model->unk_token && !model->byte_fallback);
    model->raw_bytes = lenient && !model->prefix && !model->suffix;
}

static bool finish_unigram(TextModel *model, Error *err) {
    if (model->unk_id >= 0 && (size_t)model->unk_id >= model->vocab.size)
        return base_fail(err, ERROR_INPUT, "model Unigram: unk_id %d, but there are %zu tokens",
                         (int)model->unk_id, model->vocab.size);
    text_model_find_fallback_bytes(model);
    return text_unigram_finish(model, err);
}

bool text_model_finish(TextModel *model, Error *err) {
    if (model->kind == MODEL_UNIGRAM) return finish_unigram(model, err);
    model->unk_id = model->unk_token
                        ? text_vocab_find(&model->vocab, model->unk_token, strlen(model->unk_token))
                        : -1;
    if (model->kind == MODEL_WORDPIECE) return finish_wordpiece(model, err);
    if (model->kind == MODEL_BPE) finish_bpe(model);
    return true;
}

void text_model_free(TextModel *model) {
    text_vocab_free(&model->vocab);
    text_vocab_free(&model->continuing);
    text_vocab_free(&model->texts);
    text_prefixes_free(&model->prefixes);
    free(model->scores);
    free(model->types);
    free(model->matched);
    free(model->ranks);
    free(model->unk_token);
    free(model->prefix);
    free(model->suffix);
    free(model->pairs);
    free(model->pair_slots);
    *model = (TextModel){0};
}
