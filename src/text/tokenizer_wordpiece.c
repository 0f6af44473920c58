/* WordPiece (Schuster and Nakajima, 2012; greedy longest match first, as BERT
 * does it) and WordLevel, of one piece. */
#include "text/tokenizer_parts.h"

static bool emit_unknown(const TextModel *model, TextWork *work, TextView piece) {
    if (model->unk_id < 0) {
        work->failed = true;
        return base_fail(work->err, ERROR_INPUT,
                         "the tokenizer's unk_token \"%.60s\" is not in its vocabulary",
                         model->unk_token);
    }
    text_work_emit(work, model->unk_id, piece, 0, piece.length);
    return true;
}

/* The longest text of `vocab` that is a prefix of word[from..]; its end in
 * *end. One hash runs over the word, remembered at each character's end. */
static int32_t longest_match(const TextVocab *vocab, TextView word, size_t from, size_t *end) {
    enum { MAX_ENDS = 512 };
    uint64_t hashes[MAX_ENDS];
    size_t ends[MAX_ENDS], count = 0, length;
    uint64_t hash = TEXT_HASH_START;
    for (size_t i = from; i < word.length && i - from < vocab->longest && count < MAX_ENDS;
         i += length) {
        text_decode((const uint8_t *)word.data + i, &length);
        for (size_t k = 0; k < length; k++) hash = text_hash_step(hash, (uint8_t)word.data[i + k]);
        hashes[count] = hash;
        ends[count++] = i + length;
    }
    while (count-- > 0) {
        int32_t id =
            text_vocab_find_hashed(vocab, word.data + from, ends[count] - from, hashes[count]);
        if (id >= 0) {
            *end = ends[count];
            return id;
        }
    }
    return -1;
}

bool text_wordpiece_piece(const TextModel *model, TextWork *work, TextView piece) {
    struct TextSymbols *s = &work->symbols;
    size_t characters = 0, count = 0;
    for (size_t i = 0; i < piece.length; i++) characters += (piece.data[i] & 0xC0) != 0x80;
    if (characters > model->max_chars) return emit_unknown(model, work, piece);
    if (characters > s->capacity) {
        s->capacity = characters + 256;
        s->ids = base_realloc(s->ids, s->capacity * sizeof *s->ids);
        s->begin = base_realloc(s->begin, (s->capacity + 1) * sizeof *s->begin);
    }
    for (size_t at = 0, end = 0; at < piece.length; at = end) {
        int32_t id = longest_match(at ? &model->continuing : &model->vocab, piece, at, &end);
        if (id < 0) return emit_unknown(model, work, piece);
        s->ids[count] = id;
        s->begin[count++] = (uint32_t)at;
    }
    s->begin[count] = (uint32_t)piece.length;
    for (size_t i = 0; i < count; i++)
        text_work_emit(work, s->ids[i], piece, s->begin[i], s->begin[i + 1]);
    return true;
}

bool text_wordlevel_piece(const TextModel *model, TextWork *work, TextView piece) {
    int32_t id = text_vocab_find(&model->vocab, piece.data, piece.length);
    if (id < 0) return emit_unknown(model, work, piece);
    text_work_emit(work, id, piece, 0, piece.length);
    return true;
}
