/* Retrieval over 100,000 chunks: a synthetic index (words by Zipf's law, random
 * unit vectors of 384) is made once in a temporary folder, then opened and asked
 * as `mlx-rag ask` does, one open per question. Also reading and chunking speed,
 * and the memory speed of the same run to hold them against.
 *
 *     bench_rag_search [chunks] */
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rag/document.h"
#include "rag/store.h"

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
        ok = rag_store_put(index, &new, NULL, err);
        document.title = NULL;
        rag_document_free(&document);
    }
    free(vectors);
    return ok;
}

static void print_memory_speed(void) {
    size_t bytes = (size_t)128 << 20;
    uint8_t *a = base_calloc(bytes, 1), *b = base_calloc(bytes, 1);
    memcpy(b, a, bytes);
    double started = base_now();
    memcpy(b, a, bytes);
    double seconds = base_now() - started;
    printf("memory copy: %.1f GB/s\n", 2.0 * (double)bytes / seconds / 1e9);
    free(a), free(b);
}

int main(int count, char **arguments) {
    size_t n_chunks = count > 1 ? (size_t)atoll(arguments[1]) : 100000;
    char folder[] = "/tmp/mlx-rag-bench-XXXXXX";
    Error err = {0};
    RagEmbedder embedder = {.name = "bench",
                            .hash = "0",
                            .pooling = "none",
                            .dim = DIM,
                            .max_tokens = 256,
                            .embed = embed};
    if (!mkdtemp(folder)) return 1;
    char *path = base_path_join(folder, "index.db");
    double started = base_now();
    RagIndex *index = rag_index_open(path, RAG_CREATE, &embedder, &err);
    bool ok = index && make_index(index, n_chunks, &err);
    rag_index_close(index);
    struct stat status = {0};
    stat(path, &status);
    printf("index of %zu chunks: made in %.1f s, %.0f MB\n", n_chunks, base_now() - started,
           (double)status.st_size / 1e6);
    print_memory_speed();
    static const int kinds[][4] = {
        {900, 4000, 20000, 31000}, {40, 300, 2500, 9000}, {2, 15, 60, 200}, {1, 2, 3, 5}};
    static const char *const names[] = {"rare words", "usual words", "frequent words",
                                        "very frequent words"};
    for (size_t k = 0; ok && k < BASE_COUNT(names); k++) {
        double best = 1e9, worst = 0;
        for (int round = 0; ok && round < 5; round++) {
            StrBuf question = {0};
            for (size_t w = 0; w < 4; w++) append_word(&question, kinds[k][w] + round);
            RagSearch found;
            started = base_now();
            index = rag_index_open(path, RAG_READ, &embedder, &err);
            double opened = base_now();
            ok = index &&
                 rag_search(index, &embedder, question.data, &(RagSearchOptions){0}, &found, &err);
            double total = base_now() - started;
            if (!ok) break;
            best = fmin(best, total);
            worst = fmax(worst, total);
            if (round == 4)
                printf("%-20s %5.1f ms best, %5.1f worst (last: open %.1f, dense %.1f, words %.1f, "
                       "all %.1f)\n",
                       names[k], best * 1e3, worst * 1e3, (opened - started) * 1e3,
                       found.dense_seconds * 1e3, found.lexical_seconds * 1e3, total * 1e3);
            rag_search_free(&found);
            rag_index_close(index);
            base_str_free(&question);
        }
    }
    if (!ok) fprintf(stderr, "%s\n", err.message);
    unlink(path);
    rmdir(folder);
    free(path);
    return ok ? 0 : 1;
}
