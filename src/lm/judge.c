/* Reranking by language models; see judge.h. The prompts of a query differ only in
 * the document, near their end: what they have in common is read into the cache,
 * each rest behind it, and forgotten again. */
#include "lm/judge.h"

#include "lm/model.h"

#include <stdlib.h>
#include <string.h>

enum { READ_STEP = 2048, MOST_TOKENS = 8192 };

typedef struct Protocol {
    const char *model_type;
    const char *before, *after; /* of the chat template; special tokens in them count */
    const char *yes, *no;       /* single tokens */
    bool (*prompt)(LmJudge *judge, const char *query, const char *document, TextIds *ids,
                   Error *err);
} Protocol;

struct LmJudge {
    LmModel *model;
    LmCache *cache;
    const Protocol *protocol;
    TextIds before, after;
    int answers[2]; /* yes, no */
    size_t most;    /* tokens of a prompt */
};

static bool encode(const LmJudge *judge, const char *text, TextEncodeOptions options, TextIds *ids,
                   Error *err) {
    return text_tokenizer_encode(judge->model->tokenizer, text, strlen(text), options, ids, err);
}

static void append(TextIds *ids, const TextIds *more) {
    for (size_t i = 0; i < more->length; i++) text_ids_append(ids, more->data[i]);
}

/* ---- Qwen3-Reranker ------------------------------------------------------------------- */

/* Instruction, query and document are one text, of which the end is cut. */
static bool qwen_prompt(LmJudge *judge, const char *query, const char *document, TextIds *ids,
                        Error *err) {
    char *text = base_format("<Instruct>: Given a web search query, retrieve relevant passages "
                             "that answer the query\n<Query>: %s\n<Document>: %s",
                             query, document);
    append(ids, &judge->before);
    bool ok = encode(judge, text, TEXT_ENCODE_PLAIN, ids, err);
    free(text);
    ids->length = BASE_MIN(ids->length, judge->most - judge->after.length);
    append(ids, &judge->after);
    return ok;
}

/* ---- mxbai-rerank v2 ------------------------------------------------------------------- */

static const char mxbai_task[] =
    "You are a search relevance expert who evaluates how well documents match search queries. For "
    "each query-document pair, carefully analyze the semantic relationship between them, then "
    "provide your binary relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:";

/* Every part is tokenised by itself; a query has three quarters of the room at most,
 * a document what is left. */
static bool mxbai_prompt(LmJudge *judge, const char *query, const char *document, TextIds *ids,
                         Error *err) {
    TextIds newline = {0}, task = {0};
    char *asked = base_format("query: %s", query), *text = base_format("document: %s", document);
    append(ids, &judge->before);
    bool ok = encode(judge, "\n", TEXT_ENCODE_PLAIN, &newline, err) &&
              encode(judge, mxbai_task, TEXT_ENCODE_PLAIN, &task, err) &&
              encode(judge, asked, TEXT_ENCODE_PLAIN, ids, err);
    size_t fixed = task.length + newline.length + judge->after.length;
    size_t room = judge->most > fixed ? judge->most - fixed : 0;
    ids->length = BASE_MIN(ids->length, judge->before.length + judge->most * 3 / 4);
    append(ids, &newline);
    ok = ok && encode(judge, text, TEXT_ENCODE_PLAIN, ids, err);
    ids->length = BASE_MIN(ids->length, room);
    append(ids, &newline);
    append(ids, &task);
    append(ids, &judge->after);
    text_ids_free(&newline);
    text_ids_free(&task);
    free(asked);
    free(text);
    return ok;
}

static const Protocol protocols[] = {
    {"qwen3",
     "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
     "the Instruct provided. Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n"
     "<|im_start|>user\n",
     "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", "yes", "no", qwen_prompt},
    {"qwen2",
     "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
     "<|im_end|>\n<|im_start|>user\n",
     "<|im_end|>\n<|im_start|>assistant\n", "1", "0", mxbai_prompt},
};

/* ---- opening ------------------------------------------------------------------------------ */

static bool find_protocol(LmJudge *judge, const char *folder, Error *err) {
    const char *type = lm_model_type(judge->model);
    for (size_t i = 0; type && i < BASE_COUNT(protocols); i++) {
        if (strcmp(protocols[i].model_type, type) == 0) judge->protocol = &protocols[i];
    }
    if (judge->protocol) return true;
    base_fail(err, ERROR_UNSUPPORTED, "%s: no reranking protocol is known for the architecture %s",
              folder, type ? type : "of this model");
    return base_hint(err, "Give a cross-encoder, Qwen3-Reranker, or mxbai-rerank v2.");
}

/* A sentence-transformers folder names the two tokens itself. */
static bool find_answers(LmJudge *judge, const char *folder, Error *err) {
    static const char *const keys[] = {"true_token_id", "false_token_id"};
    const char *const words[] = {judge->protocol->yes, judge->protocol->no};
    char *path = base_path_join(folder, "1_LogitScore/config.json");
    json_t *config = base_is_file(path) ? base_json_load(path, err) : json_object();
    free(path);
    bool ok = config != NULL;
    for (int i = 0; ok && i < 2; i++) {
        const json_t *stated = json_object_get(config, keys[i]);
        judge->answers[i] = stated ? (int)json_integer_value(stated)
                                   : text_tokenizer_id(judge->model->tokenizer, words[i]);
        if (judge->answers[i] >= 0 && judge->answers[i] < lm_model_vocab_size(judge->model))
            continue;
        ok = base_fail(err, ERROR_INPUT, "%s: the model has no token for the answer \"%s\"", folder,
                       words[i]);
    }
    json_decref(config);
    return ok;
}

static bool open_parts(LmJudge *judge, const char *folder, const LmOpenOptions *options,
                       Error *err) {
    judge->model = lm_model_open(folder, options, err);
    if (!judge->model || !find_protocol(judge, folder, err)) return false;
    if (!judge->model->tokenizer)
        return base_fail(err, ERROR_UNSUPPORTED, "%s: the model has no tokenizer", folder);
    if (!find_answers(judge, folder, err) ||
        !encode(judge, judge->protocol->before, TEXT_ENCODE_TEMPLATED, &judge->before, err) ||
        !encode(judge, judge->protocol->after, TEXT_ENCODE_TEMPLATED, &judge->after, err)) {
        return false;
    }
    int context = lm_model_context(judge->model);
    judge->most = context > 0 ? BASE_MIN((size_t)context, (size_t)MOST_TOKENS) : MOST_TOKENS;
    TextIds least = {0};
    bool ok = judge->protocol->prompt(judge, "", "", &least, err);
    if (ok && least.length > judge->most)
        ok = base_fail(err, ERROR_UNSUPPORTED,
                       "%s: the prompt alone has %zu tokens, the model reads %zu", folder,
                       least.length, judge->most);
    text_ids_free(&least);
    judge->cache = ok ? lm_cache_new(judge->model, NULL, err) : NULL;
    return judge->cache != NULL;
}

LmJudge *lm_judge_open(const char *folder, const LmOpenOptions *options, Error *err) {
    LmJudge *judge = base_calloc(1, sizeof *judge);
    if (open_parts(judge, folder, options, err)) return judge;
    lm_judge_close(judge);
    return NULL;
}

void lm_judge_close(LmJudge *judge) {
    if (!judge) return;
    lm_cache_free(judge->cache);
    lm_model_close(judge->model);
    text_ids_free(&judge->before);
    text_ids_free(&judge->after);
    free(judge);
}

/* ---- scoring ------------------------------------------------------------------------------ */

/* How many tokens all prompts begin with; every one keeps a token of its own. */
static size_t in_common(const TextIds *prompts, size_t count) {
    size_t common = prompts[0].length - 1;
    for (size_t i = 1; i < count; i++) {
        size_t most = BASE_MIN(common, prompts[i].length - 1), same = 0;
        while (same < most && prompts[i].data[same] == prompts[0].data[same]) same++;
        common = same;
    }
    return common;
}

/* Reads ids behind what the cache holds; logits (may be NULL) are those of the two
 * answers after the last. */
static bool read_ids(LmJudge *judge, const int *ids, size_t count, float logits[2], Error *err) {
    for (size_t done = 0; done < count && !mx_failed();) {
        if (base_interrupted()) return base_fail(err, ERROR_INTERRUPTED, "interrupted");
        mx_scope s = mx_open();
        size_t step = BASE_MIN((size_t)READ_STEP, count - done);
        mlx_array hidden = lm_read(judge->model, judge->cache, ids + done, step);
        done += step;
        if (done == count && logits) {
            mlx_array last = mx_slice(hidden, 1, (int)step - 1, (int)step);
            mlx_array answers = mx_from_i32(judge->answers, MX_SHAPE(2));
            mx_copy_f32(model_decoder_head_some(judge->model->decoder, last, answers), logits, 2);
        }
        mx_drop(s);
        lm_cache_eval(judge->cache);
    }
    return mx_check(err);
}

static bool score_one(LmJudge *judge, const TextIds *prompt, size_t common, float *score,
                      Error *err) {
    float logits[2] = {0};
    size_t held = (size_t)lm_cache_length(judge->cache);
    if (held > common && !lm_cache_trim(judge->cache, (int)(held - common)))
        lm_cache_clear(judge->cache);
    held = (size_t)lm_cache_length(judge->cache);
    lm_cache_expect(judge->cache, prompt->length - held);
    if (!read_ids(judge, prompt->data + held, prompt->length - held, logits, err)) return false;
    *score = logits[0] - logits[1];
    return true;
}

bool lm_judge_score(LmJudge *judge, const char *query, const char *const *documents, size_t count,
                    float *scores, Error *err) {
    if (count == 0) return true;
    if (!mx_check(err)) return false;
    mx_scope s = mx_open();
    TextIds *prompts = base_calloc(count, sizeof *prompts);
    bool ok = true;
    for (size_t i = 0; i < count && ok; i++)
        ok = judge->protocol->prompt(judge, query, documents[i], &prompts[i], err);
    size_t common = ok ? in_common(prompts, count) : 0;
    ok = ok && read_ids(judge, prompts[0].data, common, NULL, err);
    for (size_t i = 0; i < count && ok; i++)
        ok = score_one(judge, &prompts[i], common, &scores[i], err);
    lm_cache_clear(judge->cache);
    mx_drop(s);
    for (size_t i = 0; i < count; i++) text_ids_free(&prompts[i]);
    free(prompts);
    return ok;
}
