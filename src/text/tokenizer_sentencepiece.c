/* Opening a SentencePiece model: the pieces with their scores and types, the
 * trainer's and the normalizer's settings (sentencepiece_model.proto), and what
 * they make of a tokenizer. Ids are those of the package `sentencepiece`. */
#include "text/tokenizer_parts.h"
#include "text/tokenizer_protobuf.h"

#include <math.h>

enum { TYPE_UNIGRAM = 1, TYPE_BPE = 2, TYPE_WORD = 3, TYPE_CHAR = 4 };
#define MARK "\xE2\x96\x81"

/* What the file says besides its pieces. Strings are owned. */
typedef struct Settings {
    int model_type;
    bool suffix, byte_fallback, add_dummy_prefix, remove_extra, escape;
    char *unk_surface, *names[TEXT_SPECIAL_COUNT];
    Proto charsmap;
} Settings;

static bool broken_file(Error *err) {
    return base_fail(err, ERROR_INPUT, "not a SentencePiece model, or cut off");
}

static void set_string(char **place, const ProtoField *field) {
    free(*place);
    *place =
        base_strndup((const char *)field->bytes.at, (size_t)(field->bytes.end - field->bytes.at));
}

static bool read_trainer(Proto proto, Settings *settings, Error *err) {
    static const struct {
        uint32_t field;
        TextSpecial which;
    } names[] = {{45, TEXT_UNK}, {46, TEXT_BOS}, {47, TEXT_EOS}, {48, TEXT_PAD}};
    bool broken = false;
    ProtoField field;
    while (proto_next(&proto, &field, &broken)) {
        if (field.number == 3) settings->model_type = (int)BASE_MIN(field.value, (uint64_t)99);
        if (field.number == 24) settings->suffix = field.value != 0;
        if (field.number == 35) settings->byte_fallback = field.value != 0;
        if (field.number == 44 && field.is_bytes) set_string(&settings->unk_surface, &field);
        for (size_t i = 0; i < BASE_COUNT(names); i++)
            if (field.number == names[i].field && field.is_bytes)
                set_string(&settings->names[names[i].which], &field);
    }
    return !broken || broken_file(err);
}

static bool read_normalizer(Proto proto, Settings *settings, Error *err) {
    bool broken = false;
    ProtoField field;
    while (proto_next(&proto, &field, &broken)) {
        if (field.number == 2 && field.is_bytes) settings->charsmap = field.bytes;
        if (field.number == 3) settings->add_dummy_prefix = field.value != 0;
        if (field.number == 4) settings->remove_extra = field.value != 0;
        if (field.number == 5) settings->escape = field.value != 0;
    }
    return !broken || broken_file(err);
}

static bool read_piece(Proto proto, TextModel *model, size_t *type_room, Error *err) {
    bool broken = false;
    ProtoField field;
    const char *text = "";
    size_t length = 0, id = model->vocab.size;
    float score = 0;
    uint64_t type = PIECE_NORMAL;
    while (proto_next(&proto, &field, &broken)) {
        if (field.number == 1 && field.is_bytes) {
            text = (const char *)field.bytes.at;
            length = (size_t)(field.bytes.end - field.bytes.at);
        }
        if (field.number == 2) score = proto_float(&field);
        if (field.number == 3) type = field.value;
    }
    if (broken) return broken_file(err);
    if (!length || !base_utf8_valid(text, length) || memchr(text, '\0', length))
        return base_fail(err, ERROR_INPUT, "piece %zu is empty or not UTF-8", id);
    if (type < PIECE_NORMAL || type > PIECE_BYTE || !isfinite(score))
        return base_fail(err, ERROR_INPUT, "piece %zu has an unknown type or a broken score", id);
    if (text_vocab_find(&model->vocab, text, length) >= 0)
        return base_fail(err, ERROR_INPUT, "piece %zu, \"%.*s\", is there twice", id,
                         (int)BASE_MIN(length, (size_t)60), text);
    if (!text_model_add_scored(model, text, length, (double)score, err)) return false;
    model->types = base_grow(model->types, type_room, id + 1, 1);
    model->types[id] = (uint8_t)type;
    return true;
}

static bool read_file(Proto proto, TextModel *model, Settings *settings, Error *err) {
    bool broken = false, ok = true;
    size_t type_room = 0;
    ProtoField field;
    while (ok && proto_next(&proto, &field, &broken)) {
        if (!field.is_bytes) continue;
        if (field.number == 1) ok = read_piece(field.bytes, model, &type_room, err);
        if (field.number == 2) ok = read_trainer(field.bytes, settings, err);
        if (field.number == 3) ok = read_normalizer(field.bytes, settings, err);
    }
    if (ok && (broken || !model->vocab.size)) return broken_file(err);
    return ok;
}

/* ---- the model ---------------------------------------------------------- */

static bool check_pieces(TextModel *model, Error *err) {
    size_t unknown = 0;
    model->unk_id = -1;
    for (size_t id = 0; id < model->vocab.size; id++) {
        int type = model->types[id];
        size_t length;
        const char *text = text_vocab_text(&model->vocab, (int32_t)id, &length);
        if (type == PIECE_UNKNOWN) {
            unknown++;
            model->unk_id = (int32_t)id;
        }
        if (type == PIECE_BYTE && (length != 6 || memcmp(text, "<0x", 3) != 0))
            return base_fail(err, ERROR_INPUT, "byte piece %zu is not written <0x..>", id);
    }
    if (unknown != 1)
        return base_fail(err, ERROR_INPUT, "%zu unknown pieces; a model has exactly one", unknown);
    text_model_find_fallback_bytes(model);
    return !model->byte_fallback || model->all_fallback_bytes ||
           base_fail(err, ERROR_INPUT,
                     "byte_fallback is on, but the 256 byte pieces are not there");
}

static bool takes_part(int type) {
    return type == PIECE_NORMAL || type == PIECE_USER || type == PIECE_UNUSED;
}

static int by_score(const void *left, const void *right, void *scores) {
    double a = ((const double *)scores)[*(const uint32_t *)left],
           b = ((const double *)scores)[*(const uint32_t *)right];
    return (a < b) - (a > b);
}

/* Equal scores have equal ranks, so that place decides between them. */
static void rank_pieces(TextModel *model) {
    size_t size = model->vocab.size;
    uint32_t *order = base_alloc(size * sizeof *order), rank = 0;
    for (size_t i = 0; i < size; i++) order[i] = (uint32_t)i;
    qsort_r(order, size, sizeof *order, by_score, model->scores);
    model->ranks = base_calloc(size, sizeof *model->ranks);
    for (size_t i = 0; i < size; i++) {
        if (i && model->scores[order[i]] != model->scores[order[i - 1]]) rank++;
        model->ranks[order[i]] = rank;
    }
    free(order);
}

/* A piece that goes on with a mark after something else keeps a text whole: then
 * the words of a text cannot be looked at one by one. */
static bool words_stand_alone(const TextModel *model) {
    if (text_vocab_find(&model->texts, MARK, 3) < 0) return false;
    for (size_t id = 0; id < model->vocab.size; id++) {
        size_t length, at = 0;
        const char *text = text_vocab_text(&model->vocab, (int32_t)id, &length);
        if (!takes_part(model->types[id])) continue;
        if (model->types[id] == PIECE_UNUSED && length > 1) return false;
        while (at + 3 <= length && memcmp(text + at, MARK, 3) == 0) at += 3;
        if (memmem(text + at, length - at, MARK, 3)) return false;
    }
    return true;
}

static uint8_t *pieces_of_type(const TextModel *model, bool user_only) {
    uint8_t *wanted = base_calloc(model->vocab.size + 1, 1);
    for (size_t id = 0; id < model->vocab.size; id++)
        wanted[id] = user_only ? model->types[id] == PIECE_USER
                               : model->types[id] == PIECE_USER || model->types[id] == PIECE_NORMAL;
    return wanted;
}

static bool finish_bpe(TextTokenizer *tokenizer, Error *err) {
    TextModel *model = &tokenizer->model;
    model->kind = MODEL_TEXT_BPE;
    text_vocab_reserve(&model->texts, model->vocab.blob_length, model->vocab.size);
    for (size_t id = 0; id < model->vocab.size; id++) {
        size_t length;
        const char *text = text_vocab_text(&model->vocab, (int32_t)id, &length);
        if (takes_part(model->types[id]) &&
            !text_vocab_add(&model->texts, text, length, (int64_t)id, err))
            return false;
    }
    rank_pieces(model);
    uint8_t *user = pieces_of_type(model, true);
    text_prefixes_build(&model->prefixes, &model->vocab, user);
    free(user);
    if (words_stand_alone(model)) text_pre_tokenizers_add_spm_words(&tokenizer->pre_tokenizers);
    return true;
}

static bool finish_unigram(TextModel *model, Error *err) {
    model->kind = MODEL_UNIGRAM;
    model->matched = pieces_of_type(model, false);
    return text_unigram_finish(model, err);
}

/* ---- around the model --------------------------------------------------- */

static bool add_normalizer(TextTokenizer *tokenizer, const Settings *settings, Error *err) {
    TextSpmRules *rules = base_calloc(1, sizeof *rules);
    *rules = (TextSpmRules){.add_dummy_prefix = settings->add_dummy_prefix,
                            .remove_extra_spaces = settings->remove_extra,
                            .escape_spaces = settings->escape,
                            .space_as_suffix = settings->suffix};
    uint8_t *user = pieces_of_type(&tokenizer->model, true);
    text_prefixes_build(&rules->user, &tokenizer->model.vocab, user);
    free(user);
    text_normalizers_add_spm(&tokenizer->normalizers, rules);
    bool mapped = settings->charsmap.at != settings->charsmap.end;
    for (unsigned byte = 0; byte < 256; byte++)
        rules->literal[byte] =
            !mapped && byte != ' ' && !text_prefixes_child(&rules->user, 0, (uint8_t)byte);
    if (!mapped) return true;
    rules->map = text_charsmap_new(settings->charsmap.at,
                                   (size_t)(settings->charsmap.end - settings->charsmap.at),
                                   "normalizer_spec", err);
    return rules->map != NULL;
}

/* Control pieces and unk are special tokens in a prompt; SentencePiece itself
 * never reads them in a text. */
static void add_special(TextTokenizer *tokenizer) {
    const TextModel *model = &tokenizer->model;
    for (size_t id = 0; id < model->vocab.size; id++) {
        if (model->types[id] != PIECE_CONTROL && model->types[id] != PIECE_UNKNOWN) continue;
        const char *text = text_vocab_text(&model->vocab, (int32_t)id, NULL);
        TextAdded token = {.content = (char *)(uintptr_t)text, .special = true};
        text_added_put(&tokenizer->added, &model->vocab, &token);
    }
}

/* T5 and its kin end a text with eos, Llama and its kin begin it with bos,
 * unless tokenizer_config.json decides. */
static bool adds(const json_t *config, const char *key, bool standard) {
    const json_t *value = json_object_get(config, key);
    return json_is_boolean(value) ? json_is_true(value) : standard;
}

static bool set_up(TextTokenizer *tokenizer, const Settings *settings, const json_t *config,
                   json_t **names, Error *err) {
    TextModel *model = &tokenizer->model;
    model->byte_fallback = settings->byte_fallback;
    if (settings->model_type != TYPE_UNIGRAM && settings->model_type != TYPE_BPE)
        return base_fail(err, ERROR_UNSUPPORTED,
                         "model_type %d; unigram (1) and BPE (2) are supported",
                         settings->model_type);
    bool unigram = settings->model_type == TYPE_UNIGRAM;
    if (!check_pieces(model, err) ||
        !(unigram ? finish_unigram(model, err) : finish_bpe(tokenizer, err)) ||
        !add_normalizer(tokenizer, settings, err))
        return false;
    add_special(tokenizer);
    int32_t ids[TEXT_SPECIAL_COUNT];
    *names = json_object();
    for (size_t i = 0; i < TEXT_SPECIAL_COUNT; i++) {
        const char *text = settings->names[i];
        ids[i] = text ? text_vocab_find(&model->vocab, text, strlen(text)) : -1;
        if (ids[i] >= 0)
            json_object_set_new(*names, text_special_key((TextSpecial)i), json_string(text));
    }
    bool bos = adds(config, "add_bos_token", !unigram),
         eos = adds(config, "add_eos_token", unigram);
    text_post_wrap(&tokenizer->post, bos ? ids[TEXT_BOS] : -1, eos ? ids[TEXT_EOS] : -1);
    TextDecoder *decoder = text_decoders_add(&tokenizer->decoders, DECODE_SENTENCEPIECE);
    decoder->content = base_strdup(settings->unk_surface);
    decoder->keep_first_space = !settings->add_dummy_prefix && !settings->remove_extra;
    decoder->cleanup = settings->remove_extra;
    return true;
}

/* Classes whose ids are not those of the file they come with. */
static bool check_class(const json_t *config, Error *err) {
    static const char *const shifted[] = {"XLMRoberta", "Camembert", "MBart",   "XGLM",
                                          "NLLB",       "Nllb",      "Barthez", "M2M100"};
    const char *name = json_string_value(json_object_get(config, "tokenizer_class"));
    for (size_t i = 0; name && i < BASE_COUNT(shifted); i++)
        if (base_starts_with(name, shifted[i]))
            return base_fail(err, ERROR_UNSUPPORTED,
                             "%.60s numbers its tokens in another way than its SentencePiece "
                             "model; a tokenizer.json is needed",
                             name);
    return true;
}

bool text_spm_load(TextTokenizer *tokenizer, const void *bytes, size_t length, const json_t *config,
                   json_t **names, Error *err) {
    Settings settings = {.model_type = TYPE_UNIGRAM,
                         .add_dummy_prefix = true,
                         .remove_extra = true,
                         .escape = true,
                         .unk_surface = base_strdup(" \xE2\x81\x87 ")};
    settings.names[TEXT_UNK] = base_strdup("<unk>");
    settings.names[TEXT_BOS] = base_strdup("<s>");
    settings.names[TEXT_EOS] = base_strdup("</s>");
    settings.names[TEXT_PAD] = base_strdup("<pad>");
    Proto proto = {bytes, (const uint8_t *)bytes + length};
    bool ok = check_class(config, err) && read_file(proto, &tokenizer->model, &settings, err) &&
              set_up(tokenizer, &settings, config, names, err);
    for (size_t i = 0; i < TEXT_SPECIAL_COUNT; i++) free(settings.names[i]);
    free(settings.unk_surface);
    return ok;
}
