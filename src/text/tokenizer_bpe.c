/* Byte-pair encoding of one piece (Sennrich et al., 2016): start from
 * characters or bytes, and merge the neighbours of lowest rank, the leftmost of
 * equals, until no pair of neighbours is in the merge table.
 *
 * Short pieces look for the minimum again after each merge, in small arrays;
 * long ones (a whole text may be one piece) keep a heap of candidates over a
 * linked list, so that time stays n log n. */
#include "text/tokenizer_parts.h"

enum { SHORT_PIECE = 32 };
#define NO_RANK TEXT_NO_RANK
#define NO_SYMBOL UINT32_MAX

/* What merging works on. A model without a table of pairs merges two symbols
 * when their joined text is one of its texts (tokenizer_text_bpe.c). */
typedef struct Merging {
    const TextModel *model;
    TextWork *work;
    struct TextSymbols *symbols;
    const uint32_t *ends; /* of symbols */
    const char *text;     /* of the piece, or NULL: the table of pairs decides */
} Merging;

/* The rank of joining two neighbours; joined by text, their product is
 * remembered on the left. */
static uint32_t join_rank(const Merging *m, size_t left, size_t right) {
    if (m->text) return text_bpe_join(m->model, m->work, m->text, left, right, m->ends);
    return text_pair_find(m->model, m->symbols->ids[left], m->symbols->ids[right]);
}

static int32_t product_of(const Merging *m, size_t left) {
    return m->text ? m->symbols->product[left] : m->model->pairs[m->symbols->rank[left]].product;
}

/* ---- symbols ------------------------------------------------------------ */

static void reserve_symbols(struct TextSymbols *s, size_t count) {
    if (count <= s->capacity) return;
    size_t capacity = BASE_MAX(count + count / 2, (size_t)256);
    s->ids = base_realloc(s->ids, capacity * sizeof *s->ids);
    s->begin = base_realloc(s->begin, (capacity + 1) * sizeof *s->begin);
    s->next = base_realloc(s->next, capacity * sizeof *s->next);
    s->previous = base_realloc(s->previous, capacity * sizeof *s->previous);
    s->rank = base_realloc(s->rank, capacity * sizeof *s->rank);
    s->product = base_realloc(s->product, capacity * sizeof *s->product);
    s->capacity = capacity;
}

/* The id of one character with the affixes of its place, or -1. */
static int32_t character_id(const TextModel *model, TextWork *work, TextView piece, size_t begin,
                            size_t end) {
    bool prefixed = model->prefix && begin > 0, suffixed = model->suffix && end == piece.length;
    if (!prefixed && !suffixed)
        return text_vocab_find(&model->vocab, piece.data + begin, end - begin);
    work->scratch.length = 0;
    if (prefixed) base_str_append(&work->scratch, model->prefix);
    base_str_append_n(&work->scratch, piece.data + begin, end - begin);
    if (suffixed) base_str_append(&work->scratch, model->suffix);
    return text_vocab_find(&model->vocab, work->scratch.data, work->scratch.length);
}

/* Symbols of a piece of characters. begin[i] is where symbol i starts; symbols
 * may share a start (bytes of one character) or leave holes (a character
 * without id and without unk disappears). Returns their number; the end of
 * symbol i is in next[i] until the merging starts. */
static size_t symbols_of_characters(const TextModel *model, TextWork *work, TextView piece) {
    struct TextSymbols *s = &work->symbols;
    size_t count = 0, unk_begin = 0, unk_end = 0;
    bool unk = false;
#define ADD(id_, begin_, end_)                \
    do {                                      \
        s->ids[count] = (id_);                \
        s->begin[count] = (uint32_t)(begin_); \
        s->next[count++] = (uint32_t)(end_);  \
    } while (0)
    for (size_t i = 0, length; i < piece.length; i += length) {
        text_decode((const uint8_t *)piece.data + i, &length);
        int32_t id = character_id(model, work, piece, i, i + length);
        if (id >= 0) {
            if (unk) ADD(model->unk_id, unk_begin, unk_end);
            unk = false;
            ADD(id, i, i + length);
            continue;
        }
        /* A pending unk stays pending across byte tokens, as in the Python package. */
        if (model->byte_fallback && model->all_fallback_bytes) {
            bool affixed =
                (model->prefix && i > 0) || (model->suffix && i + length == piece.length);
            const char *bytes = affixed ? work->scratch.data : piece.data + i;
            size_t byte_count = affixed ? work->scratch.length : length;
            reserve_symbols(s, count + byte_count + 2 * (piece.length - i) + 2);
            for (size_t k = 0; k < byte_count; k++)
                ADD(model->fallback_ids[(uint8_t)bytes[k]], i, i + length);
            continue;
        }
        if (!model->unk_token) continue;
        if (unk && model->fuse_unk) {
            unk_end = i + length;
            continue;
        }
        if (unk) ADD(model->unk_id, unk_begin, unk_end);
        if (model->unk_id < 0) {
            base_fail(work->err, ERROR_INPUT,
                      "the tokenizer's unk_token \"%.60s\" is not in its vocabulary",
                      model->unk_token);
            work->failed = true;
            return 0;
        }
        unk = true;
        unk_begin = i;
        unk_end = i + length;
    }
    if (unk) ADD(model->unk_id, unk_begin, unk_end);
#undef ADD
    return count;
}

static size_t symbols_of_bytes(const TextModel *model, TextWork *work, TextView piece) {
    struct TextSymbols *s = &work->symbols;
    size_t count = 0;
    for (size_t i = 0; i < piece.length; i++) {
        int32_t id = model->byte_ids[(uint8_t)piece.data[i]];
        s->ids[count] = id;
        s->begin[count] = (uint32_t)i;
        s->next[count] = (uint32_t)i + 1;
        count += id >= 0;
    }
    return count;
}

/* ---- merging ------------------------------------------------------------ */

/* Arrays stay dense; ends of symbols are in next[]. */
static size_t merge_short(const Merging *m, size_t count) {
    struct TextSymbols *s = m->symbols;
    for (size_t i = 0; i + 1 < count; i++) s->rank[i] = join_rank(m, i, i + 1);
    while (count > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < count; i++)
            if (s->rank[i] < s->rank[best]) best = i;
        if (s->rank[best] == NO_RANK) break;
        s->ids[best] = product_of(m, best);
        s->next[best] = s->next[best + 1];
        size_t moved = count - best - 2;
        memmove(s->ids + best + 1, s->ids + best + 2, moved * sizeof *s->ids);
        memmove(s->begin + best + 1, s->begin + best + 2, moved * sizeof *s->begin);
        memmove(s->next + best + 1, s->next + best + 2, moved * sizeof *s->next);
        if (moved) {
            memmove(s->rank + best + 1, s->rank + best + 2, (moved - 1) * sizeof *s->rank);
            if (m->text)
                memmove(s->product + best + 1, s->product + best + 2,
                        (moved - 1) * sizeof *s->product);
        }
        count--;
        if (best + 1 < count) s->rank[best] = join_rank(m, best, best + 1);
        if (best > 0) s->rank[best - 1] = join_rank(m, best - 1, best);
    }
    return count;
}

/* A binary heap of rank << 32 | position, the smallest first. */
static void heap_push(struct TextSymbols *s, size_t *size, uint64_t key) {
    s->heap = base_grow(s->heap, &s->heap_capacity, *size + 1, sizeof *s->heap);
    size_t at = (*size)++;
    while (at > 0 && s->heap[(at - 1) / 2] > key) {
        s->heap[at] = s->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    s->heap[at] = key;
}

static uint64_t heap_pop(struct TextSymbols *s, size_t *size) {
    uint64_t top = s->heap[0], last = s->heap[--*size];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= *size) break;
        if (child + 1 < *size && s->heap[child + 1] < s->heap[child]) child++;
        if (s->heap[child] >= last) break;
        s->heap[at] = s->heap[child];
        at = child;
    }
    s->heap[at] = last;
    return top;
}

static void offer(const Merging *m, size_t *size, uint32_t left) {
    struct TextSymbols *s = m->symbols;
    uint32_t right = s->next[left];
    s->rank[left] = right == NO_SYMBOL ? NO_RANK : join_rank(m, left, right);
    if (s->rank[left] != NO_RANK) heap_push(s, size, (uint64_t)s->rank[left] << 32 | left);
}

/* next[] and previous[] become links; an entry of the heap is stale when the
 * rank at its position is no longer its own. Dead symbols have no rank. The
 * merged symbols are packed to the front; their ends go back to next[]. */
static size_t merge_long(Merging *m, size_t count) {
    struct TextSymbols *s = m->symbols;
    size_t size = 0, kept = 0;
    uint32_t *ends = base_alloc(count * sizeof *ends);
    memcpy(ends, s->next, count * sizeof *ends);
    m->ends = ends;
    for (size_t i = 0; i < count; i++) {
        s->next[i] = i + 1 < count ? (uint32_t)i + 1 : NO_SYMBOL;
        s->previous[i] = i ? (uint32_t)i - 1 : NO_SYMBOL;
    }
    for (size_t i = 0; i < count; i++) offer(m, &size, (uint32_t)i);
    while (size) {
        uint64_t top = heap_pop(s, &size);
        uint32_t left = (uint32_t)top;
        if (s->rank[left] != (uint32_t)(top >> 32)) continue;
        uint32_t right = s->next[left], after = s->next[right];
        s->ids[left] = product_of(m, left);
        ends[left] = ends[right];
        s->rank[right] = NO_RANK;
        s->next[left] = after;
        if (after != NO_SYMBOL) s->previous[after] = left;
        offer(m, &size, left);
        if (s->previous[left] != NO_SYMBOL) offer(m, &size, s->previous[left]);
    }
    for (uint32_t i = 0; i != NO_SYMBOL; i = s->next[i]) {
        s->previous[kept] = ends[i]; /* kept <= i: links behind us are done with */
        s->ids[kept] = s->ids[i];
        s->begin[kept++] = s->begin[i];
    }
    memcpy(s->next, s->previous, kept * sizeof *s->next);
    free(ends);
    return kept;
}

/* The id of a whole piece that is in the vocabulary, or -1. */
static int32_t whole_piece(const TextModel *model, TextWork *work, TextView piece) {
    if (model->kind == MODEL_TEXT_BPE)
        return text_vocab_find(&model->texts, piece.data, piece.length);
    if (!model->raw_bytes) return text_vocab_find(&model->vocab, piece.data, piece.length);
    if (piece.length > model->vocab.longest) return -1;
    work->scratch.length = 0;
    for (size_t i = 0; i < piece.length; i++)
        base_str_append_codepoint(&work->scratch, text_alphabet_of_byte((uint8_t)piece.data[i]));
    return text_vocab_find(&model->vocab, work->scratch.data, work->scratch.length);
}

static size_t find_symbols(const TextModel *model, TextWork *work, TextView piece) {
    if (model->raw_bytes) return symbols_of_bytes(model, work, piece);
    if (model->kind == MODEL_TEXT_BPE) return text_bpe_symbols(model, work, piece);
    return symbols_of_characters(model, work, piece);
}

bool text_bpe_piece(const TextModel *model, TextWork *work, TextView piece) {
    struct TextSymbols *s = &work->symbols;
    if (model->ignore_merges) {
        int32_t id = whole_piece(model, work, piece);
        if (id >= 0) {
            text_work_emit(work, id, piece, 0, piece.length);
            return true;
        }
    }
    if (piece.length >= UINT32_MAX / 2)
        return base_fail(work->err, ERROR_UNSUPPORTED,
                         "a word of %zu bytes is too long to tokenize", piece.length);
    reserve_symbols(s, piece.length + 2);
    size_t count = find_symbols(model, work, piece);
    if (work->failed) return false;
    bool by_text = model->kind == MODEL_TEXT_BPE;
    Merging merging = {model, work, s, s->next, by_text ? piece.data : NULL};
    if (count > 1 && (model->pair_count || by_text))
        count = count <= SHORT_PIECE ? merge_short(&merging, count) : merge_long(&merging, count);
    if (by_text && model->types) {
        text_bpe_emit(model, work, piece, count);
        return true;
    }
    for (size_t i = 0; i < count; i++)
        text_work_emit(work, s->ids[i], piece, s->begin[i], s->next[i]);
    return true;
}
