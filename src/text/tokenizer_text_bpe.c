/* The byte-pair encoding of SentencePiece and of tiktoken: two neighbours may
 * merge when their joined text is a token, the best token first, the leftmost of
 * equals. tokenizer_bpe.c does the merging; this file says what the symbols are,
 * what joins, and what SentencePiece's types make of the result.
 *
 * Symbols are text without holes. An id of -1 is a character that is no piece;
 * -2 - id is a user-defined symbol, which never merges. */
#include "text/tokenizer_parts.h"

static size_t byte_symbols(const TextModel *model, struct TextSymbols *s, TextView piece) {
    for (size_t i = 0; i < piece.length; i++) {
        s->ids[i] = model->byte_ids[(uint8_t)piece.data[i]];
        s->begin[i] = (uint32_t)i;
        s->next[i] = (uint32_t)i + 1;
    }
    return piece.length;
}

size_t text_bpe_symbols(const TextModel *model, TextWork *work, TextView piece) {
    struct TextSymbols *s = &work->symbols;
    size_t count = 0;
    if (!model->types) return byte_symbols(model, s, piece);
    work->unused_count = 0;
    for (size_t i = 0, length; i < piece.length; i += length) {
        int32_t user =
            model->prefixes.count > 1
                ? text_prefixes_longest(&model->prefixes, piece.data + i, piece.length - i, &length)
                : -1;
        if (user < 0) {
            text_decode((const uint8_t *)piece.data + i, &length);
            s->ids[count] = text_vocab_find(&model->texts, piece.data + i, length);
        } else {
            s->ids[count] = -2 - user;
        }
        s->begin[count] = (uint32_t)i;
        s->next[count++] = (uint32_t)(i + length);
    }
    return count;
}

/* The token that two symbols make together, or -1. Text makes the same pairs again
 * and again, so what a pair of tokens makes is remembered. */
static int32_t find_joined(const TextModel *model, TextWork *work, int32_t left, int32_t right,
                           const char *text, size_t length) {
    if (left < 0 || right < 0) return text_vocab_find(&model->texts, text, length);
    uint64_t hash = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * TEXT_PAIR_HASH;
    if (!work->joins) work->joins = base_calloc(TEXT_JOIN_SLOTS, sizeof *work->joins);
    struct TextJoin *join = &work->joins[(hash >> 32) % TEXT_JOIN_SLOTS];
    if (join->left != left + 1 || join->right != right)
        *join = (struct TextJoin){left + 1, right, text_vocab_find(&model->texts, text, length)};
    return join->product;
}

uint32_t text_bpe_join(const TextModel *model, TextWork *work, const char *text, size_t left,
                       size_t right, const uint32_t *ends) {
    struct TextSymbols *s = &work->symbols;
    if (s->ids[left] < -1 || s->ids[right] < -1) return TEXT_NO_RANK;
    uint32_t begin = s->begin[left];
    int32_t id =
        find_joined(model, work, s->ids[left], s->ids[right], text + begin, ends[right] - begin);
    if (id < 0) return TEXT_NO_RANK;
    s->product[left] = id;
    if (model->types && model->types[id] == PIECE_UNUSED) {
        work->unused_cuts = base_grow(work->unused_cuts, &work->unused_capacity,
                                      work->unused_count + 1, sizeof *work->unused_cuts);
        work->unused_cuts[work->unused_count++] = (struct TextUnusedCut){id, ends[left] - begin};
    }
    return model->ranks[id];
}

typedef struct Emitting {
    const TextModel *model;
    TextWork *work;
    TextView piece;
    size_t unk_begin, unk_end; /* a stretch of unknown characters, not yet out */
} Emitting;

static void flush_unknown(Emitting *e) {
    if (e->unk_end > e->unk_begin)
        text_work_emit(e->work, e->model->unk_id, e->piece, e->unk_begin, e->unk_end);
    e->unk_begin = e->unk_end = 0;
}

static void emit_unknown(Emitting *e, size_t begin, size_t end) {
    if (e->model->byte_fallback) {
        for (size_t i = begin; i < end; i++)
            text_work_emit(e->work, e->model->fallback_ids[(uint8_t)e->piece.data[i]], e->piece,
                           begin, end);
        return;
    }
    if (e->unk_end == e->unk_begin) e->unk_begin = begin;
    e->unk_end = end;
}

/* An unused piece falls back into the two it was last made of. */
static void emit_symbol(Emitting *e, int32_t id, size_t begin, size_t end) {
    const TextModel *model = e->model;
    if (id >= 0 && model->types[id] == PIECE_UNUSED) {
        size_t i = e->work->unused_count;
        while (i > 0 && e->work->unused_cuts[i - 1].id != id) i--;
        if (i) {
            size_t cut = begin + e->work->unused_cuts[i - 1].left_length;
            const char *text = e->piece.data;
            emit_symbol(e, text_vocab_find(&model->texts, text + begin, cut - begin), begin, cut);
            emit_symbol(e, text_vocab_find(&model->texts, text + cut, end - cut), cut, end);
            return;
        }
    }
    if (id < 0) /* not among the pieces that merge, but it may be one of the others */
        id = text_vocab_find(&model->vocab, e->piece.data + begin, end - begin);
    if (id < 0 || id == model->unk_id) {
        emit_unknown(e, begin, end);
    } else {
        flush_unknown(e);
        text_work_emit(e->work, id, e->piece, begin, end);
    }
}

void text_bpe_emit(const TextModel *model, TextWork *work, TextView piece, size_t count) {
    struct TextSymbols *s = &work->symbols;
    Emitting e = {.model = model, .work = work, .piece = piece};
    for (size_t i = 0; i < count; i++)
        emit_symbol(&e, s->ids[i] < -1 ? -2 - s->ids[i] : s->ids[i], s->begin[i], s->next[i]);
    flush_unknown(&e);
}
