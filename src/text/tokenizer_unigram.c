/* The unigram language model (Kudo, 2018): of all ways to cut a piece into
 * tokens, the one whose scores add up to most (Viterbi), the earlier start on
 * ties. Near ties fall as in the tool that a file comes from: Hugging Face sums
 * in float64, SentencePiece (0.2.3, unigram_model.cc) in float32. */
#include "text/tokenizer_parts.h"

#include <math.h>

enum { UNKNOWN_PENALTY = 10, LARGE_SUM = 100000 };

static double add_scores(const TextModel *model, double a, double b) {
    return model->types ? (double)((float)a + (float)b) : a + b;
}

bool text_unigram_finish(TextModel *model, Error *err) {
    if (!model->vocab.size) return base_fail(err, ERROR_INPUT, "model Unigram: no vocabulary");
    double lowest = 1e300;
    for (size_t i = 0; i < model->vocab.size; i++)
        if (!model->types || model->types[i] == PIECE_NORMAL)
            lowest = BASE_MIN(lowest, model->scores[i]);
    model->unk_score = add_scores(model, lowest, -UNKNOWN_PENALTY);
    text_prefixes_build(&model->prefixes, &model->vocab, model->matched);
    return true;
}

static void reserve_paths(TextWork *work, size_t length) {
    if (length < work->path_capacity) return;
    work->path_capacity = length + length / 2 + 256;
    free(work->paths);
    work->paths = base_alloc(work->path_capacity * sizeof *work->paths);
}

static void offer(const TextModel *model, TextPath *paths, size_t from, size_t to, double score,
                  int32_t id) {
    double candidate = add_scores(model, score, paths[from].score);
    if (paths[to].start != UINT32_MAX && !(candidate > paths[to].score)) return;
    paths[to].score = candidate;
    paths[to].start = (uint32_t)from;
    paths[to].id = id;
}

/* float32 sums that have grown large start again from zero: only what lies
 * ahead, up to `reached`, is still compared. */
static void restart_sums(TextPath *paths, size_t from, size_t reached) {
    float offset = (float)paths[from].score;
    for (size_t i = from; i <= reached; i++)
        paths[i].score = (double)((float)paths[i].score - offset);
}

/* The best way to each position; false where a character needs an unk token
 * that the model lacks. */
static bool find_paths(const TextModel *model, TextPath *paths, TextView piece) {
    for (size_t i = 0; i <= piece.length; i++) paths[i] = (TextPath){.start = UINT32_MAX};
    for (size_t from = 0, step, reached = 0; from < piece.length; from += step) {
        text_decode((const uint8_t *)piece.data + from, &step);
        if (model->types && fabs(paths[from].score) > LARGE_SUM) restart_sums(paths, from, reached);
        bool single = false;
        uint32_t node = 0;
        for (size_t at = from; at < piece.length;) {
            node = text_prefixes_child(&model->prefixes, node, (uint8_t)piece.data[at++]);
            if (!node) break;
            int32_t id = model->prefixes.ids[node];
            if (id < 0) continue;
            double score = model->scores[id];
            if (model->types && model->types[id] == PIECE_USER)
                score = (float)(0.1 * (double)(at - from - 1));
            offer(model, paths, from, at, score, id);
            single |= at - from == step;
            reached = BASE_MAX(reached, at);
        }
        if (single) continue;
        if (model->unk_id < 0) return false;
        offer(model, paths, from, from + step, model->unk_score, model->unk_id);
        reached = BASE_MAX(reached, from + step);
    }
    return true;
}

/* An unknown stretch: one more look at it as a whole (Hugging Face), else its
 * bytes where the model has them, else unk. */
static void emit_unknown(const TextModel *model, TextWork *work, TextView piece, size_t begin,
                         size_t end) {
    int32_t id =
        model->types ? -1 : text_vocab_find(&model->vocab, piece.data + begin, end - begin);
    bool bytes = id < 0 && model->byte_fallback;
    for (size_t i = begin; i < end && bytes; i++)
        bytes = model->fallback_ids[(uint8_t)piece.data[i]] >= 0;
    if (!bytes) {
        text_work_emit(work, id >= 0 ? id : model->unk_id, piece, begin, end);
        return;
    }
    for (size_t i = begin, step; i < end; i += step) {
        text_decode((const uint8_t *)piece.data + i, &step);
        for (size_t k = i; k < i + step; k++)
            text_work_emit(work, model->fallback_ids[(uint8_t)piece.data[k]], piece, i, i + step);
    }
}

bool text_unigram_piece(const TextModel *model, TextWork *work, TextView piece) {
    if (piece.length >= UINT32_MAX / 2)
        return base_fail(work->err, ERROR_UNSUPPORTED,
                         "a word of %zu bytes is too long to tokenize", piece.length);
    reserve_paths(work, piece.length + 1);
    TextPath *paths = work->paths;
    if (!find_paths(model, paths, piece))
        return base_fail(work->err, ERROR_INPUT,
                         "the tokenizer has no unk token for a character that it lacks");
    for (size_t end = piece.length; end > 0; end = paths[end].start)
        paths[paths[end].start].next = (uint32_t)end;
    for (size_t begin = 0, end; begin < piece.length; begin = end) {
        end = paths[begin].next;
        int32_t id = paths[end].id;
        if (id != model->unk_id) {
            text_work_emit(work, id, piece, begin, end);
            continue;
        }
        while (end < piece.length && paths[paths[end].next].id == model->unk_id)
            end = paths[end].next;
        emit_unknown(model, work, piece, begin, end);
    }
    return true;
}
