/* Retrieval over many chunks: a synthetic index (words by Zipf's law, random
 * unit vectors of 384) is made, in a temporary folder or once at the path given,
 * and asked twice over: opened anew for each question, as `mlx-rag ask` does, and
 * kept open, as a server or rag-cli keeps it.
 *
 *     bench_rag_search [chunks [index]] */
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine.h"
#include "rag/document.h"
#include "rag/store_sqlite.h"

#define DIM 384
#define CHUNKS_A_DOCUMENT 250
#define WORDS_A_CHUNK 160
#define VOCABULARY 40000

static uint64_t seed = 88172645463325252ull;

static double uniform(void) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return (double)(seed >> 11) / 9007199254740992.0;
}

/* Rank by Zipf's law with exponent 1. */
static int zipf(void) {
    return (int)exp(uniform() * log(VOCABULARY));
}

static void append_word(StrBuf *out, int rank) {
    static const char *const syllables[] = {"ba",  "ko", "ri", "ten", "su",  "lo",
                                            "mar", "pi", "do", "ve",  "gan", "tu"};
    base_str_append_char(out, ' ');
    for (int r = rank;; r /= 12) {
        base_str_append(out, syllables[r % 12]);
        if (r < 12) break;
    }
}

static void random_vector(float *out) {
    double sum = 0;
    for (size_t i = 0; i < DIM; i++) {
        out[i] = (float)(uniform() + uniform() + uniform() - 1.5);
        sum += (double)out[i] * out[i];
    }
    for (size_t i = 0; i < DIM; i++) out[i] /= (float)sqrt(sum);
}

static bool embed(void *context, const char *const *texts, size_t count, RagTextRole role,
                  float *out, Error *err) {
    (void)context, (void)texts, (void)role, (void)err;
    for (size_t i = 0; i < count; i++) random_vector(out + i * DIM);
    return true;
}

static bool make_index(RagIndex *index, size_t n_chunks, Error *err) {
    float *vectors = base_alloc(CHUNKS_A_DOCUMENT * DIM * sizeof *vectors);
    bool ok = true;
    for (size_t done = 0; ok && done < n_chunks; done += CHUNKS_A_DOCUMENT) {
        char path[64];
        snprintf(path, sizeof path, "/bench/%06zu.txt", done);
        RagDocument document = {.format = "text", .title = path};
        RagChunk items[CHUNKS_A_DOCUMENT];
        for (size_t i = 0; i < CHUNKS_A_DOCUMENT; i++) {
            StrBuf text = {0};
            for (int w = 0; w < WORDS_A_CHUNK; w++) append_word(&text, zipf());
            rag_document_add(&document, RAG_BLOCK_PARAGRAPH, 0, 0, text.data, text.length);
            base_str_free(&text);
            RagBlock block = document.blocks[i];
            items[i] = (RagChunk){
                .start = block.start, .end = block.end, .heading = "", .header = "bench"};
            random_vector(vectors + i * DIM);
        }
        RagChunks chunks = {.items = items, .count = CHUNKS_A_DOCUMENT};
        RagNewDocument new = {.path = path,
                              .root = "/bench",
                              .document = &document,
                              .chunks = &chunks,
                              .vectors = vectors};
        ok = index->storage->put(index, &new, NULL, err);
        document.title = NULL;
        rag_document_free(&document);
    }
    free(vectors);
    return ok;
}

/* ---- questions ------------------------------------------------------------------ */

typedef struct Bench {
    const char *path;
    const RagEmbedder *embedder;
    RagIndex *kept; /* NULL: opened anew for each question */
} Bench;

static bool ask(const Bench *b, const char *question, RagSearchMode mode, double *seconds,
                RagSearch *found, Error *err) {
    double started = base_now();
    RagIndex *index = b->kept ? b->kept : rag_index_open(b->path, RAG_READ, b->embedder, err);
    bool ok = index && rag_search(index, b->embedder, question,
                                  &(RagSearchOptions){.mode = mode, .top_k = 10}, found, err);
    *seconds = base_now() - started;
    if (!b->kept) rag_index_close(index);
    return ok;
}

static bool ask_words(const Bench *b, Error *err) {
    static const int kinds[][4] = {
        {900, 4000, 20000, 31000}, {40, 300, 2500, 9000}, {2, 15, 60, 200}, {1, 2, 3, 5}};
    static const char *const names[] = {"rare words", "usual words", "frequent words",
                                        "very frequent words"};
    for (size_t k = 0; k < BASE_COUNT(names); k++) {
        double best = 1e9, worst = 0, dense = 1e9, words = 1e9;
        for (int round = 0; round < 7; round++) {
            StrBuf question = {0};
            RagSearch found;
            double seconds;
            for (size_t w = 0; w < 4; w++) append_word(&question, kinds[k][w] + round);
            if (!ask(b, question.data, RAG_HYBRID, &seconds, &found, err)) return false;
            best = fmin(best, seconds), worst = fmax(worst, seconds);
            dense = fmin(dense, found.dense_seconds), words = fmin(words, found.lexical_seconds);
            rag_search_free(&found);
            base_str_free(&question);
        }
        printf("%-20s %6.1f ms best, %6.1f worst (best of vectors %.1f, of words %.1f)\n", names[k],
               best * 1e3, worst * 1e3, dense * 1e3, words * 1e3);
    }
    return true;
}

/* ---- exact search ------------------------------------------------------------------ */

enum { QUESTIONS = 20, TOP = 10 };

/* The ten best of float32 for each question, by a plain scan of the stored vectors. */
static bool plain_best(RagIndex *index, const float *questions, RagBest *best, Error *err) {
    sqlite3_stmt *s = rag_sqlite_prepare(index, "SELECT chunk, vector FROM vectors", err);
    if (!s) return false;
    while (sqlite3_step(s) == SQLITE_ROW) {
        const float *vector = sqlite3_column_blob(s, 1);
        for (size_t q = 0; q < QUESTIONS; q++) {
            double sum = 0;
            for (size_t i = 0; i < DIM; i++)
                sum += (double)vector[i] * (double)questions[q * DIM + i];
            rag_best_push(&best[q], (RagScored){sqlite3_column_int64(s, 0), sum});
        }
    }
    sqlite3_finalize(s);
    return true;
}

static bool exact_search(const Bench *b, size_t n_chunks, Error *err) {
    float *questions = base_alloc(QUESTIONS * DIM * sizeof *questions);
    RagBest plain[QUESTIONS];
    uint64_t begun = seed;
    double best = 1e9;
    size_t same = 0;
    for (size_t q = 0; q < QUESTIONS; q++) {
        random_vector(questions + q * DIM);
        plain[q] = (RagBest){.items = base_calloc(TOP, sizeof(RagScored)), .capacity = TOP};
    }
    bool ok = plain_best(b->kept, questions, plain, err);
    seed = begun; /* the same questions again */
    for (size_t q = 0; ok && q < QUESTIONS; q++) {
        RagSearch found;
        double seconds;
        ok = ask(b, "question", RAG_DENSE, &seconds, &found, err);
        if (!ok) break;
        if (q) best = fmin(best, found.dense_seconds);
        for (size_t i = 0; i < found.n_hits; i++)
            for (size_t k = 0; k < TOP; k++) same += plain[q].items[k].chunk == found.hits[i].chunk;
        rag_search_free(&found);
    }
    double read = read_bandwidth((size_t)512 << 20);
    double speed = (double)n_chunks * (DIM + 4) / best;
    printf("exact vector search  %6.2f ms, %.1f GB/s, %.0f %% of reading (%.1f GB/s); recall@10 "
           "%.4f\n",
           best * 1e3, speed / 1e9, 100 * speed / read, read / 1e9,
           (double)same / (QUESTIONS * TOP));
    for (size_t q = 0; q < QUESTIONS; q++) free(plain[q].items);
    free(questions);
    return ok;
}

int main(int count, char **arguments) {
    size_t n_chunks = count > 1 ? (size_t)atoll(arguments[1]) : 100000;
    const char *kept = count > 2 ? arguments[2] : NULL;
    char folder[] = "/tmp/mlx-rag-bench-XXXXXX";
    Error err = {0};
    RagEmbedder embedder = {.name = "bench",
                            .hash = "0",
                            .pooling = "none",
                            .dim = DIM,
                            .max_tokens = 256,
                            .embed = embed};
    if (!kept && !mkdtemp(folder)) return 1;
    char *path = kept ? base_strdup(kept) : base_path_join(folder, "index.db");
    double started = base_now();
    struct stat status = {0};
    bool ok = kept && stat(kept, &status) == 0;
    if (!ok) {
        RagIndex *index = rag_index_open(path, RAG_CREATE, &embedder, &err);
        ok = index && make_index(index, n_chunks, &err);
        rag_index_close(index);
    }
    stat(path, &status);
    printf("index of %zu chunks: ready in %.1f s, %.0f MB\n", n_chunks, base_now() - started,
           (double)status.st_size / 1e6);
    Bench bench = {.path = path, .embedder = &embedder};
    printf("-- opened for each question\n");
    ok = ok && ask_words(&bench, &err);
    bench.kept = ok ? rag_index_open(path, RAG_READ, &embedder, &err) : NULL;
    ok = bench.kept != NULL;
    printf("-- kept open\n");
    ok = ok && exact_search(&bench, n_chunks, &err) && ask_words(&bench, &err);
    rag_index_close(bench.kept);
    if (!ok) fprintf(stderr, "%s\n", err.message);
    if (!kept) unlink(path), rmdir(folder);
    free(path);
    return ok ? 0 : 1;
}
