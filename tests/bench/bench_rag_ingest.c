/* Ingest of many Markdown and HTML pages, which are made from the words of a text, and
 * ingest of them again with nothing changed. Embedding all of them takes minutes, so one
 * call of the embedder in SHARE is real, the others give vectors of random numbers; what
 * embedding costs is scaled accordingly.
 *
 *     bench_rag_ingest EMBEDDER TEXT [pages] */
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine.h"
#include "rag/rag.h"

enum { PAGES = 10000, PAGES_A_FOLDER = 500, SHARE = 25 };

static uint64_t seed = 88172645463325252ull;

static size_t draw(size_t below) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return (size_t)((seed >> 11) % below);
}

/* ---- pages ---------------------------------------------------------------------- */

typedef struct Words {
    char *text;
    char **items;
    size_t count, capacity;
} Words;

static bool load_words(const char *path, Words *words, Error *err) {
    size_t length = 0;
    if (!base_file_read(path, &words->text, &length, err)) return false;
    for (char *word = strtok(words->text, " \n\t<>&|`*#[](){}\\\"/_="); word;
         word = strtok(NULL, " \n\t<>&|`*#[](){}\\\"/_=")) {
        words->items =
            base_grow(words->items, &words->capacity, words->count + 1, sizeof *words->items);
        words->items[words->count++] = word;
    }
    return words->count > 100 || base_fail(err, ERROR_INPUT, "%s: has too few words", path);
}

/* Runs of the text's own words, so that they are as frequent as there. */
static void append_words(StrBuf *out, const Words *words, size_t count) {
    for (size_t i = 0, at = 0; i < count; i++, at++) {
        if (i % 12 == 0) at = draw(words->count - 12);
        base_str_appendf(out, "%s%s", i ? " " : "", words->items[at]);
    }
}

typedef struct Markup {
    const char *suffix, *begin, *heading[2], *paragraph[2], *item[2], *end;
} Markup;

static const Markup markups[] = {
    {"md", "", {"\n## ", "\n\n"}, {"", "\n\n"}, {"- ", "\n"}, ""},
    {"html",
     "<!DOCTYPE html><html><head><style>p {margin: 0}</style></head><body>"
     "<nav><a href=\"/\">Home</a></nav>",
     {"<h2>", "</h2>\n"},
     {"<p>", "</p>\n"},
     {"<ul><li>", "</li></ul>\n"},
     "</body></html>"}};

static void append_part(StrBuf *out, const char *const around[2], const Words *words,
                        size_t count) {
    base_str_append(out, around[0]);
    append_words(out, words, count);
    base_str_append(out, around[1]);
}

static bool make_pages(const char *folder, const Words *words, size_t pages, uint64_t *bytes,
                       Error *err) {
    bool ok = true;
    char *under = NULL;
    for (size_t p = 0; ok && p < pages; p++) {
        const Markup *markup = &markups[p % BASE_COUNT(markups)];
        if (p % PAGES_A_FOLDER == 0) {
            free(under);
            under = base_format("%s/%02zu", folder, p / PAGES_A_FOLDER);
            mkdir(under, 0700);
        }
        StrBuf page = {0};
        base_str_append(&page, markup->begin);
        for (size_t section = 0; section < 2 + draw(3); section++) {
            append_part(&page, markup->heading, words, 4);
            for (size_t i = 0; i < 1 + draw(3); i++)
                append_part(&page, markup->paragraph, words, 40 + draw(80));
            for (size_t i = 0; i < draw(4); i++) append_part(&page, markup->item, words, 10);
        }
        base_str_append(&page, markup->end);
        char *path = base_format("%s/page%05zu.%s", under, p, markup->suffix);
        FILE *file = fopen(path, "wb");
        ok = file && fwrite(page.data, 1, page.length, file) == page.length;
        if (file) fclose(file);
        if (!ok) base_fail_errno(err, "%s", path);
        *bytes += page.length;
        free(path);
        base_str_free(&page);
    }
    free(under);
    return ok;
}

static void remove_pages(const char *folder, size_t pages) {
    for (size_t p = 0; p < pages; p++) {
        char *path = base_format("%s/%02zu/page%05zu.%s", folder, p / PAGES_A_FOLDER, p,
                                 markups[p % BASE_COUNT(markups)].suffix);
        unlink(path);
        *strrchr(path, '/') = '\0';
        rmdir(path); /* goes with the last page */
        free(path);
    }
    rmdir(folder);
}

/* ---- the embedder ----------------------------------------------------------------- */

typedef struct Sampled {
    RagEmbedder real;
    size_t calls, texts;
    double seconds; /* of the real calls */
} Sampled;

static bool embed(void *context, const char *const *texts, size_t count, RagTextRole role,
                  float *out, Error *err) {
    Sampled *s = context;
    if (s->calls++ % SHARE) {
        for (size_t i = 0; i < count * s->real.dim; i++) out[i] = (float)draw(1000) - 499.5f;
        return true;
    }
    double started = base_now();
    bool ok = s->real.embed(s->real.context, texts, count, role, out, err);
    s->seconds += base_now() - started;
    s->texts += count;
    return ok;
}

static bool token_ends(void *context, const char *text, size_t length, size_t **ends, size_t *count,
                       Error *err) {
    const Sampled *s = context;
    return s->real.token_ends(s->real.context, text, length, ends, count, err);
}

/* ---- measuring -------------------------------------------------------------------- */

static bool ingest(RagIndex *index, const RagEmbedder *embedder, const char *folder,
                   RagIngestReport *report, Error *err) {
    return rag_ingest(index, embedder, &folder, 1, &(RagIngestOptions){0}, report, err);
}

static void print_first(const RagIngestReport *r, const Sampled *s, uint64_t bytes) {
    double embedding = s->seconds / (double)s->texts * (double)r->chunks_embedded;
    double rest = r->read_seconds + r->chunk_seconds + r->store_seconds;
    printf("%zu pages, %.1f MB, %zu chunks: read %.2f s, cut and counted %.2f s, stored %.2f s "
           "(of all threads)\n",
           r->added, (double)bytes / 1e6, r->chunks_embedded, r->read_seconds, r->chunk_seconds,
           r->store_seconds);
    printf("embedding all of them: %.0f s (%zu done: %.1f texts/s)\n", embedding, s->texts,
           (double)s->texts / s->seconds);
    printf("reader, tokeniser and index %.1f %% of the embedder's time; memory at most %.0f MB\n",
           100 * rest / embedding, (double)base_peak_memory() / 1e6);
}

int main(int count, char **arguments) {
    if (count < 3) {
        fprintf(stderr, "usage: bench_rag_ingest EMBEDDER TEXT [pages]\n");
        return 2;
    }
    size_t pages = count > 3 ? (size_t)atoll(arguments[3]) : PAGES;
    char folder[] = "/tmp/mlx-rag-bench-XXXXXX";
    Error err = {0};
    Words words = {0};
    Sampled sampled = {0};
    RagIngestReport report = {0};
    uint64_t bytes = 0;
    if (!mkdtemp(folder)) return 1;
    char *path = base_format("%s.index", folder);
    bool ok = load_words(arguments[2], &words, &err) &&
              make_pages(folder, &words, pages, &bytes, &err) &&
              rag_embedder_open(arguments[1], &sampled.real, &err);
    RagEmbedder embedder = sampled.real;
    embedder.context = &sampled;
    embedder.embed = embed;
    embedder.token_ends = token_ends;
    RagIndex *index = ok ? rag_index_open(path, RAG_CREATE, &embedder, &err) : NULL;
    ok = index && ingest(index, &embedder, folder, &report, &err);
    if (ok) print_first(&report, &sampled, bytes);
    rag_ingest_report_free(&report);
    rag_index_close(index);
    double started = base_now();
    index = ok ? rag_index_open(path, RAG_WRITE, &embedder, &err) : NULL;
    ok = index && ingest(index, &embedder, folder, &report, &err);
    rag_index_close(index);
    if (ok)
        printf("again, nothing changed: %zu files in %.2f s, %.0f files/s\n", report.unchanged,
               base_now() - started, (double)report.unchanged / (base_now() - started));
    rag_ingest_report_free(&report);
    if (!ok) fprintf(stderr, "%s\n", err.message);
    if (sampled.real.close) rag_embedder_close(&sampled.real);
    remove_pages(folder, pages);
    unlink(path);
    free(path);
    free(words.items);
    free(words.text);
    return ok ? 0 : 1;
}
