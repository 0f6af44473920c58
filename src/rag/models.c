/* The two tables of functions of rag.h over the models of lm/. */
#include <dirent.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lm/lm.h"
#include "rag/rag.h"
#include "rag/rerank_sentences.h"
#include "text/tokenizer.h"

static char *folder_name(const char *folder) {
    char *real = realpath(folder, NULL);
    char *name = base_strdup(base_path_name(real ? real : folder));
    free(real);
    return name;
}

/* ---- embedder --------------------------------------------------------------- */

typedef struct Embedder {
    LmEmbedder *model;
    char *name, *hash, *pooling;
} Embedder;

#define SAMPLES 64
#define SAMPLE_BYTES 4096

/* Size and SAMPLES pieces spread evenly over the file: enough to tell two
 * trainings of one architecture apart, in a millisecond. */
static bool hash_file(EVP_MD_CTX *hash, const char *path, Error *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (fd < 0) return base_fail_errno(err, "%s", path);
    bool ok = fstat(fd, &status) == 0 || base_fail_errno(err, "%s", path);
    int64_t size = ok ? (int64_t)status.st_size : 0;
    EVP_DigestUpdate(hash, &size, sizeof size);
    char bytes[SAMPLE_BYTES];
    for (int i = 0; ok && i < SAMPLES; i++) {
        ssize_t got = pread(fd, bytes, sizeof bytes, (off_t)(size / SAMPLES * i));
        if (got > 0) EVP_DigestUpdate(hash, bytes, (size_t)got);
    }
    close(fd);
    return ok;
}

/* What decides the vectors: weights, configuration, tokenizer, pooling. */
static char *hash_folder(const char *folder, const char *identity, Error *err) {
    static const char *const files[] = {
        "config.json",           "modules.json",    "sentence_bert_config.json",
        "1_Pooling/config.json", "tokenizer.json",  "vocab.txt",
        "tekken.json",           "tokenizer.model", "tiktoken.model",
        "spiece.model"};
    char **names = NULL;
    size_t count = 0;
    if (!base_list_dir(folder, &names, &count, err)) return NULL;
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    bool ok = (hash && EVP_DigestInit_ex(hash, EVP_sha256(), NULL) == 1) ||
              base_fail(err, ERROR_INTERNAL, "SHA-256 failed");
    if (ok) EVP_DigestUpdate(hash, identity, strlen(identity));
    for (size_t i = 0; i < count; i++) {
        char *path = base_path_join(folder, names[i]);
        if (ok && base_ends_with(names[i], ".safetensors")) ok = hash_file(hash, path, err);
        free(path);
        free(names[i]);
    }
    free(names);
    for (size_t i = 0; ok && i < BASE_COUNT(files); i++) {
        char *path = base_path_join(folder, files[i]);
        if (base_is_file(path)) ok = hash_file(hash, path, err);
        free(path);
    }
    unsigned char digest[32];
    StrBuf text = {0};
    if (ok) EVP_DigestFinal_ex(hash, digest, NULL);
    for (size_t i = 0; ok && i < sizeof digest; i++) base_str_appendf(&text, "%02x", digest[i]);
    EVP_MD_CTX_free(hash);
    return ok ? base_str_detach(&text) : NULL;
}

/* The pooling that 1_Pooling/config.json names, for people and for the index. */
static char *pooling_name(const char *folder) {
    static const char prefix[] = "pooling_mode_";
    char *path = base_path_join(folder, "1_Pooling/config.json");
    Error ignored = {0};
    json_t *config = base_is_file(path) ? base_json_load(path, &ignored) : NULL;
    free(path);
    StrBuf name = {0};
    const char *key;
    json_t *value;
    json_object_foreach(config, key, value) {
        bool named = strcmp(key, "pooling_mode") == 0 && json_is_string(value);
        if (named) base_str_append(&name, json_string_value(value));
        if (strncmp(key, prefix, sizeof prefix - 1) == 0 && json_is_true(value))
            base_str_appendf(&name, "%s%s", name.length ? "+" : "", key + sizeof prefix - 1);
    }
    if (config) json_decref(config);
    if (!name.length) base_str_append(&name, "mean");
    return base_str_detach(&name);
}

static bool embed(void *context, const char *const *texts, size_t count, RagTextRole role,
                  float *out, Error *err) {
    Embedder *embedder = context;
    return lm_embedder_encode(embedder->model, texts, count,
                              role == RAG_QUERY ? LM_EMBED_QUERY : LM_EMBED_DOCUMENT, out, NULL,
                              err);
}

static bool token_ends(void *context, const char *text, size_t length, size_t **ends, size_t *count,
                       Error *err) {
    Embedder *embedder = context;
    TextEncoding encoding = {0};
    bool ok = text_tokenizer_encode_spans(lm_embedder_tokenizer(embedder->model), text, length,
                                          TEXT_ENCODE_PLAIN, &encoding, err);
    *ends = ok ? base_alloc((encoding.length + 1) * sizeof **ends) : NULL;
    *count = ok ? encoding.length : 0;
    size_t last = 0; /* pieces of one character end together, never before an earlier one */
    for (size_t i = 0; ok && i < encoding.length; i++) {
        last = BASE_MAX(last, BASE_MIN(encoding.spans[i].end, length));
        (*ends)[i] = last;
    }
    text_encoding_free(&encoding);
    return ok;
}

static void close_embedder(void *context) {
    Embedder *embedder = context;
    lm_embedder_close(embedder->model);
    free(embedder->name), free(embedder->hash), free(embedder->pooling);
    free(embedder);
}

/* Tokens of a prompt that the folder puts before passages. */
static size_t passage_prefix_tokens(const char *folder, const struct TextTokenizer *tokenizer) {
    static const char *const keys[] = {"document", "passage"};
    char *path = base_path_join(folder, "config_sentence_transformers.json");
    Error ignored = {0};
    json_t *config = base_is_file(path) ? base_json_load(path, &ignored) : NULL;
    free(path);
    const char *prompt = NULL;
    for (size_t i = 0; !prompt && i < BASE_COUNT(keys); i++)
        prompt = json_string_value(json_object_get(json_object_get(config, "prompts"), keys[i]));
    size_t count = prompt ? text_tokenizer_count(tokenizer, prompt, strlen(prompt)) : 0;
    if (config) json_decref(config);
    return count;
}

bool rag_embedder_open(const char *folder, RagEmbedder *embedder, Error *err) {
    *embedder = (RagEmbedder){0};
    LmEmbedder *model = lm_embedder_open(folder, NULL, err);
    if (!model) return false;
    Embedder *own = base_calloc(1, sizeof *own);
    own->model = model;
    own->name = folder_name(folder);
    own->pooling = pooling_name(folder);
    own->hash = hash_folder(folder, lm_embedder_identity(model), err);
    const struct TextTokenizer *tokenizer = lm_embedder_tokenizer(model);
    *embedder = (RagEmbedder){.context = own,
                              .name = own->name,
                              .hash = own->hash,
                              .pooling = own->pooling,
                              .dim = (size_t)lm_embedder_dim(model),
                              .max_tokens = (size_t)lm_embedder_max_tokens(model),
                              .embed = embed,
                              .token_ends = token_ends,
                              .close = close_embedder};
    bool ok = own->hash != NULL;
    if (ok && (!tokenizer || embedder->dim < 1 || embedder->dim > 8192))
        ok = base_fail(err, ERROR_UNSUPPORTED,
                       "%s: not an embedder with a tokenizer and 1 to 8192 numbers a vector",
                       folder);
    if (ok)
        embedder->n_special = text_tokenizer_count_special(tokenizer, false) +
                              passage_prefix_tokens(folder, tokenizer);
    if (!ok) rag_embedder_close(embedder);
    return ok;
}

void rag_embedder_close(RagEmbedder *embedder) {
    if (embedder->close && embedder->context) embedder->close(embedder->context);
    *embedder = (RagEmbedder){0};
}

/* ---- generator ------------------------------------------------------------------ */

typedef struct Generator {
    LmModel *model;
    char *name;
} Generator;

static char *render(void *context, const char *system, const char *user, Error *err) {
    Generator *generator = context;
    if (!lm_model_has_template(generator->model)) return base_format("%s\n\n%s\n", system, user);
    json_t *messages = json_pack("[{s:s, s:s}, {s:s, s:s}]", "role", "system", "content", system,
                                 "role", "user", "content", user);
    Error first = {0};
    char *text = lm_chat_text(generator->model, messages, NULL, &first);
    json_decref(messages);
    if (text) return text;
    /* Some templates refuse a system message: it opens the user's then. */
    char *both = base_format("%s\n\n%s", system, user);
    messages = json_pack("[{s:s, s:s}]", "role", "user", "content", both);
    text = lm_chat_text(generator->model, messages, NULL, err);
    json_decref(messages);
    free(both);
    return text;
}

static bool encode(void *context, const char *text, size_t length, bool specials, int32_t **ids,
                   size_t *count, Error *err) {
    Generator *generator = context;
    TextIds list = {0};
    TextEncodeOptions options = specials ? TEXT_ENCODE_TEMPLATED : TEXT_ENCODE_PLAIN;
    if (!text_tokenizer_encode(lm_model_tokenizer(generator->model), text, length, options, &list,
                               err)) {
        text_ids_free(&list);
        return false;
    }
    *ids = list.data;
    *count = list.length;
    return true;
}

typedef struct Speaking {
    RagOnText on_text;
    void *context;
} Speaking;

static bool on_token(void *context, const LmToken *token) {
    Speaking *speaking = context;
    return !token->text_length || !speaking->on_text ||
           speaking->on_text(speaking->context, token->text, token->text_length);
}

static bool generate(void *context, const int32_t *ids, size_t count, size_t max_tokens,
                     RagOnText on_text, void *on_text_context, RagGeneration *statistics,
                     Error *err) {
    Generator *generator = context;
    Speaking speaking = {on_text, on_text_context};
    LmGenerateOptions options = lm_generate_defaults();
    options.max_tokens = (int)BASE_MIN(max_tokens, (size_t)1 << 20);
    options.on_token = on_token;
    options.context = &speaking;
    LmStats stats = {0};
    bool ok = lm_generate(generator->model, ids, count, &options, &stats, err);
    *statistics = (RagGeneration){.prompt_tokens = stats.prompt_tokens,
                                  .generated_tokens = stats.generated_tokens,
                                  .prompt_seconds = stats.prompt_seconds,
                                  .generation_seconds = stats.generation_seconds};
    return ok;
}

static void close_generator(void *context) {
    Generator *generator = context;
    lm_model_close(generator->model);
    free(generator->name);
    free(generator);
}

#define UNSTATED_CONTEXT 2048

bool rag_generator_open(const char *folder, RagGenerator *generator, Error *err) {
    *generator = (RagGenerator){0};
    LmModel *model = lm_model_open(folder, NULL, err);
    if (!model) return false;
    if (!lm_model_tokenizer(model)) {
        lm_model_close(model);
        return base_fail(err, ERROR_INPUT, "%s: has no tokenizer", folder);
    }
    Generator *own = base_calloc(1, sizeof *own);
    own->model = model;
    own->name = folder_name(folder);
    int context_tokens = lm_model_context(model);
    *generator = (RagGenerator){.context = own,
                                .name = own->name,
                                .context_tokens =
                                    context_tokens > 0 ? (size_t)context_tokens : UNSTATED_CONTEXT,
                                .n_parameters = lm_model_parameters(model),
                                .render = render,
                                .encode = encode,
                                .generate = generate,
                                .close = close_generator};
    return true;
}

void rag_generator_close(RagGenerator *generator) {
    if (generator->close && generator->context) generator->close(generator->context);
    *generator = (RagGenerator){0};
}

/* ---- reranker ------------------------------------------------------------------- */

typedef struct Reranker {
    LmReranker *model;
    char *name;
} Reranker;

static bool score(void *context, const char *query, const char *const *texts, size_t count,
                  float *scores, Error *err) {
    Reranker *reranker = context;
    return lm_reranker_score(reranker->model, query, texts, count, scores, err);
}

static void close_reranker(void *context) {
    Reranker *reranker = context;
    lm_reranker_close(reranker->model);
    free(reranker->name);
    free(reranker);
}

/* A sentence-transformers folder that pools is an embedder. */
static bool is_embedder(const char *folder) {
    char *pooling = base_path_join(folder, "1_Pooling");
    bool pools = base_is_dir(pooling);
    free(pooling);
    return pools;
}

bool rag_reranker_open(const char *folder, RagReranker *reranker, Error *err) {
    *reranker = (RagReranker){0};
    if (is_embedder(folder)) {
        RagEmbedder embedder;
        if (!rag_embedder_open(folder, &embedder, err)) return false;
        rag_rerank_by_sentences(&embedder, reranker);
        return true;
    }
    LmReranker *model = lm_reranker_open(folder, NULL, err);
    if (!model) return false;
    Reranker *own = base_calloc(1, sizeof *own);
    own->model = model;
    own->name = folder_name(folder);
    *reranker =
        (RagReranker){.context = own, .name = own->name, .score = score, .close = close_reranker};
    return true;
}

void rag_reranker_close(RagReranker *reranker) {
    if (reranker->close && reranker->context) reranker->close(reranker->context);
    *reranker = (RagReranker){0};
}
