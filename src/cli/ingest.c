/* ingest: documents into an index; watch: again whenever they change. */
#include "cli/commands.h"
#include "rag/rag.h"
#include "rag/show.h"
#include "rag/watch.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct IngestArguments {
    OptionList paths;
    const char *index, *embedder;
    OptionInt chunk_tokens;
    bool force, quiet, json;
    OptionReal settle; /* watch */
} IngestArguments;
#define ARGUMENTS IngestArguments

static const Option option_table[] = {
    POSITIONAL("PATH", LIST, paths, true,
               "files and folders: PDF, HTML, Markdown, text, DOCX, ODT, EPUB, CSV, source code"),
    OPTION_REQUIRED("index", NULL, TEXT, index, "FILE", "index file; made when missing"),
    OPTION_REQUIRED("embedder", NULL, MODEL, embedder, "MODEL",
                    "folder or hub id of the embedding model"),
    OPTION("chunk-tokens", NULL, INT, chunk_tokens, "0", "N",
           "size of a chunk in the embedder's tokens; 0: as suits the model"),
    OPTION("force", NULL, FLAG, force, NULL, NULL, "read again what did not change"),
    OPTION("quiet", NULL, FLAG, quiet, NULL, NULL, "no progress"),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "a JSON object for each file and for the whole"),
};

typedef struct Showing {
    const IngestArguments *arguments;
    Progress progress;
} Showing;

static const char *status_name(RagFileStatus status) {
    static const char *const names[] = {"added",   "changed", "unchanged",
                                        "removed", "skipped", "failed"};
    return (size_t)status < BASE_COUNT(names) ? names[status] : "?";
}

static void on_file(void *context, const RagFileEvent *event) {
    Showing *showing = context;
    if (showing->arguments->json)
        output_json(json_pack("{s:s,s:o,s:s,s:o,s:I}", "event", "file", "path",
                              output_string(event->path, strlen(event->path)), "status",
                              status_name(event->status), "reason",
                              output_string(event->reason, strlen(event->reason)), "chunks",
                              (json_int_t)event->n_chunks));
    showing->progress.total = (double)event->files_total;
    base_progress_update(&showing->progress, (double)event->files_done);
}

static void print_json(const RagIngestReport *report) {
    output_json(json_pack(
        "{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:f,s:f,s:f,s:f}", "event", "done",
        "added", (json_int_t)report->added, "changed", (json_int_t)report->changed, "unchanged",
        (json_int_t)report->unchanged, "removed", (json_int_t)report->removed, "skipped",
        (json_int_t)report->skipped, "failed", (json_int_t)report->failed, "chunks_embedded",
        (json_int_t)report->chunks_embedded, "chunks_removed", (json_int_t)report->chunks_removed,
        "chunks_split_hard", (json_int_t)report->chunks_split_hard, "bytes_read",
        (json_int_t)report->bytes_read, "text_bytes", (json_int_t)report->text_bytes,
        "read_seconds", report->read_seconds, "chunk_seconds", report->chunk_seconds,
        "embed_seconds", report->embed_seconds, "store_seconds", report->store_seconds,
        "total_seconds", report->total_seconds));
}

static void print_text(const RagIngestReport *report) {
    for (size_t i = 0; i < report->n_notes; i++) {
        const RagFileNote *note = &report->notes[i];
        char *path = rag_clean_path(note->path);
        printf("%s %s: %s\n", status_name(note->status), path, note->reason);
        free(path);
    }
    printf("%zu added, %zu changed, %zu unchanged, %zu removed, %zu skipped, %zu failed\n",
           report->added, report->changed, report->unchanged, report->removed, report->skipped,
           report->failed);
    double embed = report->embed_seconds;
    printf("%zu chunks of %s of text embedded in %.2f s (%.1f chunks/s), %.2f s in all\n",
           report->chunks_embedded, base_bytes_text(report->text_bytes), embed,
           embed > 0 ? (double)report->chunks_embedded / embed : 0, report->total_seconds);
}

static bool check_arguments(const IngestArguments *arguments, Error *err) {
    if (arguments->chunk_tokens.value < 0 || arguments->chunk_tokens.value > 1 << 20)
        return base_fail(err, ERROR_INPUT, "--chunk-tokens must be between 0 and %d", 1 << 20);
    for (size_t i = 0; i < arguments->paths.count; i++)
        if (access(arguments->paths.items[i], F_OK) != 0)
            return base_fail_errno(err, "%s", arguments->paths.items[i]);
    return true;
}

/* One ingest. silent: nothing is said when nothing changed. */
static bool ingest(const IngestArguments *arguments, RagIndex *index, const RagEmbedder *embedder,
                   bool silent, Error *err) {
    Showing showing = {.arguments = arguments,
                       .progress = base_progress_start("ingest", "files", 0)};
    showing.progress.quiet = arguments->quiet || silent;
    showing.progress.json = arguments->json;
    RagIngestOptions how = {.chunk_tokens = (size_t)arguments->chunk_tokens.value,
                            .force = arguments->force && !silent,
                            .on_file = silent ? NULL : on_file,
                            .on_file_context = &showing};
    RagIngestReport report = {0};
    bool good = rag_ingest(index, embedder, arguments->paths.items, arguments->paths.count, &how,
                           &report, err);
    base_progress_end(&showing.progress);
    bool says = !silent || report.added || report.changed || report.removed;
    if (says && arguments->json)
        print_json(&report);
    else if (says)
        print_text(&report);
    fflush(stdout);
    rag_ingest_report_free(&report);
    return good;
}

static int run(const void *given, Error *err) {
    const IngestArguments *arguments = given;
    RagEmbedder embedder = {0};
    if (!check_arguments(arguments, err)) return 1;
    if (!rag_embedder_open(arguments->embedder, &embedder, err)) return 1;
    RagIndex *index = rag_index_open(arguments->index, RAG_CREATE, &embedder, err);
    bool good = index && ingest(arguments, index, &embedder, false, err);
    rag_index_close(index);
    rag_embedder_close(&embedder);
    return good ? 0 : 1;
}

/* Until it is interrupted, which loses nothing: every document is a transaction. */
static int run_watch(const void *given, Error *err) {
    const IngestArguments *arguments = given;
    RagEmbedder embedder = {0};
    double settle = arguments->settle.value;
    if (!(settle > 0 && settle <= 3600)) {
        base_fail(err, ERROR_INPUT, "--settle must be more than 0 and at most 3600");
        return 1;
    }
    if (!check_arguments(arguments, err)) return 1;
    if (!rag_embedder_open(arguments->embedder, &embedder, err)) return 1;
    RagIndex *index = rag_index_open(arguments->index, RAG_CREATE, &embedder, err);
    const char *own = strstr(arguments->index, "://") ? NULL : base_path_name(arguments->index);
    RagWatch *watch =
        index ? rag_watch_open(arguments->paths.items, arguments->paths.count, own, err) : NULL;
    bool good = watch != NULL, changed = true;
    for (bool again = false; good && changed; again = true) {
        good = rag_watch_refresh(watch, err) && ingest(arguments, index, &embedder, again, err) &&
               rag_watch_wait(watch, settle, &changed, err);
    }
    bool ended = base_interrupted() && (good || err->code == ERROR_INTERRUPTED);
    if (ended) *err = (Error){0};
    rag_watch_close(watch);
    rag_index_close(index);
    rag_embedder_close(&embedder);
    return ended ? 130 : 1;
}

const Command ingest_command = {
    .name = "ingest",
    .summary = "Reads documents into an index.",
    .details = "Reading again does only what changed. A file that cannot be read is named and "
               "skipped.",
    OPTIONS(option_table),
    .arguments_size = sizeof(IngestArguments),
    .run = run};

static const Option watch_table[] = {
    POSITIONAL("PATH", LIST, paths, true, "files and folders, as ingest takes them"),
    OPTION_REQUIRED("index", NULL, TEXT, index, "FILE", "index file; made when missing"),
    OPTION_REQUIRED("embedder", NULL, MODEL, embedder, "MODEL",
                    "folder or hub id of the embedding model"),
    OPTION("settle", NULL, REAL, settle, "0.5", "SECONDS",
           "quiet after a change before it is read"),
    OPTION("chunk-tokens", NULL, INT, chunk_tokens, "0", "N",
           "size of a chunk in the embedder's tokens; 0: as suits the model"),
    OPTION("quiet", NULL, FLAG, quiet, NULL, NULL, "no progress"),
    OPTION("json", NULL, FLAG, json, NULL, NULL,
           "a JSON object for each ingest that did something"),
};

const Command watch_command = {
    .name = "watch",
    .summary = "Keeps an index fresh: ingests again whenever documents change.",
    .details =
        "New, changed, renamed and deleted files, until Ctrl-C. Searches may go on beside it.",
    OPTIONS(watch_table),
    .arguments_size = sizeof(IngestArguments),
    .run = run_watch};
