/* Sentence embedders: text -> tokens -> encoder -> pooling -> vector.
 *
 * A sentence-transformers folder says in modules.json what follows the encoder
 * (pooling, dense layers, normalisation), and in its config which prompts go
 * before queries and documents. A plain encoder folder is pooled by its masked
 * mean and normalised. */
#include "lm/embedder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- pooling --------------------------------------------------------------------------- */

/* One vector out of hidden[length][dim], leaving the first `skip` tokens out. */
static void pool_mean(const float *hidden, int skip, int length, int dim, float *out) {
    memset(out, 0, (size_t)dim * sizeof *out);
    for (int t = skip; t < length; t++) {
        for (int i = 0; i < dim; i++) out[i] += hidden[(size_t)t * (size_t)dim + (size_t)i];
    }
    float scale = 1 / fmaxf((float)(length - skip), 1e-9f);
    for (int i = 0; i < dim; i++) out[i] *= scale;
}

static void pool_mean_sqrt(const float *hidden, int skip, int length, int dim, float *out) {
    pool_mean(hidden, skip, length, dim, out);
    for (int i = 0; i < dim; i++) out[i] *= sqrtf((float)(length - skip));
}

static void pool_weighted_mean(const float *hidden, int skip, int length, int dim, float *out) {
    float total = 0;
    memset(out, 0, (size_t)dim * sizeof *out);
    for (int t = skip; t < length; t++) {
        float weight = (float)(t + 1);
        total += weight;
        for (int i = 0; i < dim; i++)
            out[i] += weight * hidden[(size_t)t * (size_t)dim + (size_t)i];
    }
    for (int i = 0; i < dim; i++) out[i] /= fmaxf(total, 1e-9f);
}

static void pool_max(const float *hidden, int skip, int length, int dim, float *out) {
    for (int i = 0; i < dim; i++) out[i] = -INFINITY;
    for (int t = skip; t < length; t++) {
        for (int i = 0; i < dim; i++)
            out[i] = fmaxf(out[i], hidden[(size_t)t * (size_t)dim + (size_t)i]);
    }
}

static void pool_first(const float *hidden, int skip, int length, int dim, float *out) {
    (void)length;
    memcpy(out, hidden + (size_t)skip * (size_t)dim, (size_t)dim * sizeof *out);
}

static void pool_last(const float *hidden, int skip, int length, int dim, float *out) {
    (void)skip;
    memcpy(out, hidden + (size_t)(length - 1) * (size_t)dim, (size_t)dim * sizeof *out);
}

/* In the order in which several are joined. */
const Pooling lm_poolings[LM_POOLINGS] = {
    {"cls", "pooling_mode_cls_token", pool_first},
    {"max", "pooling_mode_max_tokens", pool_max},
    {"mean", "pooling_mode_mean_tokens", pool_mean},
    {"mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", pool_mean_sqrt},
    {"weightedmean", "pooling_mode_weightedmean_tokens", pool_weighted_mean},
    {"lasttoken", "pooling_mode_lasttoken", pool_last},
};

static bool finite_vector(const float *x, int count) {
    for (int i = 0; i < count; i++) {
        if (!isfinite(x[i])) return false;
    }
    return true;
}

static void normalise(float *x, int count) {
    double sum = 0;
    for (int i = 0; i < count; i++) sum += (double)x[i] * (double)x[i];
    float scale = (float)(1 / fmax(sqrt(sum), 1e-12));
    for (int i = 0; i < count; i++) x[i] *= scale;
}

/* A pooled vector through the dense layers and to unit length. */
static bool finish_vector(const LmEmbedder *e, float *pooled, float *out, Error *err) {
    if (e->n_dense > 0) {
        mx_scope s = mx_open();
        mlx_array x = mx_from_f32(pooled, MX_SHAPE(1, e->pooled_dim));
        for (int i = 0; i < e->n_dense; i++) {
            x = nn_activate(e->dense[i].activation, nn_linear(&e->dense[i].linear, x));
        }
        mx_copy_f32(x, out, (size_t)e->dim);
        mx_drop(s);
        if (!mx_check(err)) return false;
    } else {
        memcpy(out, pooled, (size_t)e->dim * sizeof *out);
    }
    if (!finite_vector(out, e->dim)) {
        return base_fail(err, ERROR_INPUT, "%s: the embedding is not finite",
                         hub_model_folder(e->model.folder));
    }
    if (e->normalise) normalise(out, e->dim);
    return true;
}

static bool pool(const LmEmbedder *e, const float *hidden, int skip, int length, float *out,
                 Error *err) {
    int width = model_encoder_dim(e->model.encoder), at = 0;
    float *pooled = base_alloc((size_t)e->pooled_dim * sizeof *pooled);
    skip = BASE_MIN(skip, length - 1);
    for (int i = 0; i < LM_POOLINGS; i++) {
        if (!e->pooling[i]) continue;
        lm_poolings[i].pool(hidden, skip, length, width, pooled + at);
        at += width;
    }
    bool ok = finish_vector(e, pooled, out, err);
    free(pooled);
    return ok;
}

bool lm_embedder_finish(const LmEmbedder *e, mlx_array hidden, int length, float *out, Error *err) {
    size_t cells = mx_size(hidden);
    float *host = base_alloc(cells * sizeof *host);
    mx_copy_f32(hidden, host, cells);
    bool ok = mx_check(err) && pool(e, host, 0, length, out, err);
    free(host);
    return ok;
}

/* ---- texts to rows ------------------------------------------------------------------------- */

typedef struct Encoding {
    const LmEmbedder *embedder;
    const char *const *texts;
    const char *prompt;
    EncoderRow *rows;
    Error *errors;     /* one a thread */
    size_t *truncated; /* one a thread */
    float *out;
    int skip;
} Encoding;

static bool encode_one(Encoding *encoding, size_t i, int thread) {
    const LmEmbedder *e = encoding->embedder;
    const char *text = encoding->texts[i];
    char *joined = encoding->prompt[0] ? base_format("%s%s", encoding->prompt, text) : NULL;
    if (joined) text = joined;
    TextIds ids = {0};
    TextEncodeOptions options = {.add_special = true};
    Error *err = &encoding->errors[thread];
    bool ok = text_tokenizer_encode(e->model.tokenizer, text, strlen(text), options, &ids, err);
    if (ok && ids.length > (size_t)e->max_tokens) {
        encoding->truncated[thread]++;
        options.max_length = (size_t)e->max_tokens;
        ids.length = 0;
        ok = text_tokenizer_encode(e->model.tokenizer, text, strlen(text), options, &ids, err);
    }
    if (ok && ids.length == 0) text_ids_append(&ids, model_encoder_pad_id(e->model.encoder));
    encoding->rows[i] = (EncoderRow){.ids = ids.data, .length = (int)ids.length, .index = i};
    free(joined);
    return ok;
}

static void encode_some(void *context, size_t begin, size_t end, int thread) {
    Encoding *encoding = context;
    for (size_t i = begin; i < end && encoding->errors[thread].code == ERROR_NONE; i++) {
        encode_one(encoding, i, thread);
    }
}

static bool encode_all(Encoding *encoding, size_t count, size_t *truncated, Error *err) {
    enum { GRAIN = 8 };
    int threads = base_threads();
    encoding->errors = base_calloc((size_t)threads, sizeof *encoding->errors);
    encoding->truncated = base_calloc((size_t)threads, sizeof *encoding->truncated);
    base_parallel_for(count, GRAIN, encode_some, encoding);
    bool ok = true;
    for (int t = 0; t < threads; t++) {
        if (truncated) *truncated += encoding->truncated[t];
        if (ok && encoding->errors[t].code != ERROR_NONE) {
            ok = base_fail(err, encoding->errors[t].code, "%s", encoding->errors[t].message);
        }
    }
    free(encoding->errors);
    free(encoding->truncated);
    return ok;
}

static bool pool_batch(void *context, const EncoderRow *rows, int batch, int length,
                       mlx_array hidden, Error *err) {
    const Encoding *encoding = context;
    const LmEmbedder *e = encoding->embedder;
    size_t row = (size_t)length * (size_t)model_encoder_dim(e->model.encoder),
           cells = row * (size_t)batch;
    float *host = base_alloc(cells * sizeof *host);
    mx_copy_f32(hidden, host, cells);
    bool ok = mx_check(err);
    for (int b = 0; b < batch && ok; b++) {
        ok = pool(e, host + (size_t)b * row, encoding->skip, rows[b].length,
                  encoding->out + rows[b].index * (size_t)e->dim, err);
    }
    free(host);
    return ok;
}

/* Tokens of the prompt that pooling leaves out, if the folder says so. */
static int prompt_tokens(const LmEmbedder *e, const char *prompt) {
    if (e->include_prompt || prompt[0] == '\0') return 0;
    TextIds ids = {0};
    Error ignored = {0};
    text_tokenizer_encode(e->model.tokenizer, prompt, strlen(prompt),
                          (TextEncodeOptions){.add_special = true}, &ids, &ignored);
    int count = (int)ids.length - 1; /* without the closing special token */
    text_ids_free(&ids);
    return BASE_MAX(count, 0);
}

bool lm_embedder_encode(LmEmbedder *e, const char *const *texts, size_t count, LmEmbedKind kind,
                        float *out, size_t *truncated, Error *err) {
    if (truncated) *truncated = 0;
    if (count == 0) return true;
    const char *prompt = e->prompts[kind] ? e->prompts[kind] : "";
    Encoding encoding = {.embedder = e,
                         .texts = texts,
                         .prompt = prompt,
                         .out = out,
                         .skip = prompt_tokens(e, prompt)};
    encoding.rows = base_calloc(count, sizeof *encoding.rows);
    bool ok = encode_all(&encoding, count, truncated, err) &&
              lm_encoder_run(&e->model, encoding.rows, count, pool_batch, &encoding, err);
    for (size_t i = 0; i < count; i++) free(encoding.rows[i].ids);
    free(encoding.rows);
    return ok;
}

int lm_embedder_dim(const LmEmbedder *e) {
    return e->dim;
}
int lm_embedder_max_tokens(const LmEmbedder *e) {
    return e->max_tokens;
}
TextTokenizer *lm_embedder_tokenizer(const LmEmbedder *e) {
    return e->model.tokenizer;
}
const char *lm_embedder_identity(const LmEmbedder *e) {
    return e->identity;
}
const char *lm_embedder_pooling(const LmEmbedder *e) {
    return e->pooling_name;
}
const EncoderModel *lm_embedder_model(const LmEmbedder *e) {
    return &e->model;
}
