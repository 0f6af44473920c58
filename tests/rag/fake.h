/* An embedder and a generator without a model. The embedder hashes words into a
 * bag of 64 buckets, so texts that share words are near each other; its tokens
 * are pieces of at most 4 bytes of a word. The generator says what it is told
 * to say and keeps the ids that it was given. */
#ifndef TESTS_RAG_FAKE_H
#define TESTS_RAG_FAKE_H

#include <ctype.h>
#include <dirent.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rag/rag.h"
#include "rag/words.h"

#define FAKE_DIM 64

typedef struct FakeEmbedder {
    size_t calls, texts, longest_tokens;
} FakeEmbedder;

static bool fake_token_ends(void *context, const char *text, size_t length, size_t **ends,
                            size_t *count, Error *err) {
    (void)context, (void)err;
    *ends = base_alloc((length + 1) * sizeof **ends);
    *count = 0;
    for (size_t i = 0; i < length;) {
        if (isspace((unsigned char)text[i])) {
            i++;
            continue;
        }
        size_t n = 0;
        while (i < length && n < 4 && !isspace((unsigned char)text[i])) i++, n++;
        while (i < length && ((unsigned char)text[i] & 0xC0) == 0x80) i++;
        (*ends)[(*count)++] = i;
    }
    return true;
}

static bool fake_embed(void *context, const char *const *texts, size_t count, RagTextRole role,
                       float *out, Error *err) {
    (void)role;
    FakeEmbedder *fake = context;
    fake->calls++;
    fake->texts += count;
    for (size_t t = 0; t < count; t++) {
        float *row = out + t * FAKE_DIM;
        memset(row, 0, FAKE_DIM * sizeof *row);
        size_t position = 0, *ends = NULL, n_tokens = 0;
        RagWord word;
        row[0] = 0.01f; /* never a zero vector */
        while (rag_word_next(texts[t], strlen(texts[t]), &position, &word))
            if (!rag_is_stop_word(word.folded, word.length))
                row[base_hash(word.folded, word.length) % FAKE_DIM] += 1;
        float sum = 0;
        for (size_t i = 0; i < FAKE_DIM; i++) sum += row[i] * row[i];
        for (size_t i = 0; i < FAKE_DIM; i++) row[i] /= sqrtf(sum);
        fake_token_ends(NULL, texts[t], strlen(texts[t]), &ends, &n_tokens, err);
        free(ends);
        if (n_tokens > fake->longest_tokens) fake->longest_tokens = n_tokens;
    }
    return true;
}

static inline RagEmbedder fake_embedder(FakeEmbedder *fake) {
    return (RagEmbedder){.context = fake,
                         .name = "fake",
                         .hash = "00ff",
                         .pooling = "mean",
                         .dim = FAKE_DIM,
                         .max_tokens = 256,
                         .n_special = 2,
                         .relevance_threshold = 0.30f,
                         .embed = fake_embed,
                         .token_ends = fake_token_ends};
}

/* Ids are bytes; with specials on, "<|x|>" is the one id 1000 + x. */
typedef struct FakeGenerator {
    const char *says;
    int32_t *ids;
    size_t count;
} FakeGenerator;

static char *fake_render(void *context, const char *system, const char *user, Error *err) {
    (void)context, (void)err;
    return base_format("<|s|>%s<|e|><|u|>%s<|e|><|a|>", system, user);
}

static bool fake_encode(void *context, const char *text, size_t length, bool specials,
                        int32_t **ids, size_t *count, Error *err) {
    (void)context, (void)err;
    *ids = base_alloc((length + 1) * sizeof **ids);
    *count = 0;
    for (size_t i = 0; i < length; i++) {
        bool special = specials && length - i >= 5 && memcmp(text + i, "<|", 2) == 0 &&
                       memcmp(text + i + 3, "|>", 2) == 0;
        (*ids)[(*count)++] = special ? 1000 + text[i + 2] : (unsigned char)text[i];
        if (special) i += 4;
    }
    return true;
}

static bool fake_generate(void *context, const int32_t *ids, size_t count, size_t max_tokens,
                          RagOnText on_text, void *on_text_context, RagGeneration *statistics,
                          Error *err) {
    (void)max_tokens, (void)err;
    FakeGenerator *fake = context;
    free(fake->ids);
    fake->ids = base_alloc((count + 1) * sizeof *ids);
    memcpy(fake->ids, ids, count * sizeof *ids);
    fake->count = count;
    *statistics = (RagGeneration){.prompt_tokens = count};
    for (const char *p = fake->says; *p; p++)
        if (!on_text(on_text_context, p, 1)) break;
    return true;
}

static inline RagGenerator fake_generator(FakeGenerator *fake) {
    return (RagGenerator){.context = fake,
                          .name = "fake",
                          .context_tokens = 8192,
                          .n_parameters = 135000000,
                          .render = fake_render,
                          .encode = fake_encode,
                          .generate = fake_generate};
}

/* A folder of its own for each test. */
static inline char *fake_folder(void) {
    const char *base = getenv("TMPDIR");
    char *folder = base_format("%s/mlx-rag-test-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(folder)) abort();
    return folder;
}

static inline void fake_remove(char *folder) {
    DIR *dir = opendir(folder);
    for (struct dirent *entry = dir ? readdir(dir) : NULL; entry; entry = readdir(dir)) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        char *path = base_path_join(folder, entry->d_name);
        struct stat status;
        if (lstat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
            fake_remove(path);
        } else {
            unlink(path);
            free(path);
        }
    }
    if (dir) closedir(dir);
    rmdir(folder);
    free(folder);
}

static inline void fake_write(const char *folder, const char *name, const char *text) {
    char *path = base_path_join(folder, name);
    FILE *file = fopen(path, "wb");
    if (!file) abort();
    fwrite(text, 1, strlen(text), file);
    fclose(file);
    free(path);
}

#endif
