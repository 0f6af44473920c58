/* Cross-encoders: a query and a document in one text, one score out. A folder with
 * a language model is a judge's. */
#include "lm/encoding.h"
#include "lm/judge.h"

#include <stdlib.h>
#include <string.h>

struct LmReranker {
    EncoderModel model;
    int max_tokens;
    LmJudge *judge; /* instead of the encoder, or NULL */
};

/* Whether the folder's configuration is a language model's; *err when it is none's. */
static bool is_decoder(const char *folder, bool *decoder, Error *err) {
    json_t *config = hub_config_load(folder, err);
    if (!config) return false;
    ModelKind kind = model_kind(config, err);
    json_decref(config);
    *decoder = kind == MODEL_DECODER;
    return kind != MODEL_UNKNOWN || base_error_context(err, "%s", folder);
}

LmReranker *lm_reranker_open(const char *folder, const LmOpenOptions *options, Error *err) {
    bool decoder = false;
    if (!is_decoder(folder, &decoder, err)) return NULL;
    LmReranker *reranker = base_calloc(1, sizeof *reranker);
    if (decoder) {
        reranker->judge = lm_judge_open(folder, options, err);
        if (reranker->judge) return reranker;
        free(reranker);
        return NULL;
    }
    if (!lm_encoder_open(&reranker->model, folder, options, err)) {
        free(reranker);
        return NULL;
    }
    int labels = model_encoder_labels(reranker->model.encoder);
    if (labels != 1) {
        base_fail(err, ERROR_UNSUPPORTED, "%s: a reranker has one label, this model has %d", folder,
                  labels);
        lm_reranker_close(reranker);
        return NULL;
    }
    reranker->max_tokens = lm_encoder_limit(&reranker->model, 0);
    return reranker;
}

void lm_reranker_close(LmReranker *reranker) {
    if (!reranker) return;
    if (reranker->judge)
        lm_judge_close(reranker->judge);
    else
        lm_encoder_close(&reranker->model);
    free(reranker);
}

/* The bytes of a query that keep it within 3/4 of the limit. */
static bool query_length(const LmReranker *r, const char *query, size_t *length, Error *err) {
    TextEncoding tokens = {0};
    *length = strlen(query);
    if (!text_tokenizer_encode_spans(r->model.tokenizer, query, *length, TEXT_ENCODE_PLAIN, &tokens,
                                     err)) {
        return false;
    }
    size_t most = (size_t)r->max_tokens * 3 / 4;
    if (tokens.length > most) *length = most ? tokens.spans[most - 1].end : 0;
    text_encoding_free(&tokens);
    return true;
}

static bool score_batch(void *context, const EncoderRow *rows, int batch, int length,
                        mlx_array hidden, Error *err) {
    void *const *parts = context;
    const LmReranker *r = parts[0];
    float *scores = parts[1], *host = base_alloc((size_t)batch * sizeof *host);
    int *lengths = base_alloc((size_t)batch * sizeof *lengths);
    (void)length;
    for (int b = 0; b < batch; b++) lengths[b] = rows[b].length;
    mx_copy_f32(model_encoder_classify(r->model.encoder, hidden, lengths), host, (size_t)batch);
    free(lengths);
    bool ok = mx_check(err);
    for (int b = 0; b < batch && ok; b++) scores[rows[b].index] = host[b];
    free(host);
    return ok;
}

bool lm_reranker_score(LmReranker *r, const char *query, const char *const *documents, size_t count,
                       float *scores, Error *err) {
    size_t query_bytes;
    if (count == 0) return true;
    if (r->judge) return lm_judge_score(r->judge, query, documents, count, scores, err);
    if (!query_length(r, query, &query_bytes, err)) return false;
    TextEncodeOptions options = {.add_special = true,
                                 .max_length = (size_t)r->max_tokens,
                                 .truncation = TEXT_TRUNCATE_ONLY_SECOND};
    TextEncoding *pairs = base_calloc(count, sizeof *pairs);
    EncoderRow *rows = base_calloc(count, sizeof *rows);
    bool ok = true;
    for (size_t i = 0; i < count && ok; i++) {
        ok = text_tokenizer_encode_pair(r->model.tokenizer, query, query_bytes, documents[i],
                                        strlen(documents[i]), options, &pairs[i], err);
        rows[i] = (EncoderRow){pairs[i].ids, pairs[i].type_ids, (int)pairs[i].length, i};
    }
    void *context[] = {r, scores};
    ok = ok && lm_encoder_run(&r->model, rows, count, score_batch, context, err);
    for (size_t i = 0; i < count; i++) text_encoding_free(&pairs[i]);
    free(pairs);
    free(rows);
    return ok;
}
