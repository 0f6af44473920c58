/* ingest-banks: mlx-RAG's ingest-cli. Every sub-folder of a root is a bank of its
 * own, or some PDF files are one; each bank becomes a vdb.npz. The index that it
 * is made from stays beside it, so that a second run does only what changed. */
#include "cli/commands.h"
#include "rag/rag.h"
#include "rag/show.h"

#include <stdlib.h>
#include <string.h>

typedef struct BankArguments {
    OptionList pdfs;
    const char *banks_root, *vdb, *bank_name, *output_dir, *embedder;
    OptionInt batch_size, prefetch;
} BankArguments;
#define ARGUMENTS BankArguments

static const Option option_table[] = {
    OPTION("pdfs", NULL, LIST, pdfs, NULL, "PATH", "files and folders of one bank"),
    OPTION("banks-root", NULL, TEXT, banks_root, NULL, "DIR",
           "folder whose sub-folders are a bank each"),
    OPTION("vdb", NULL, TEXT, vdb, "var/indexes/combined_vdb.npz", "FILE", "what --pdfs become"),
    OPTION("bank-name", NULL, TEXT, bank_name, NULL, "NAME",
           "of --pdfs: writes OUTPUT_DIR/NAME/vdb.npz instead of --vdb"),
    OPTION("output-dir", NULL, TEXT, output_dir, "var/indexes", "DIR",
           "bank NAME becomes DIR/NAME/vdb.npz"),
    OPTION_REQUIRED("embedder", NULL, MODEL, embedder, "MODEL",
                    "folder or hub id of the embedding model"),
    OPTION("mlx-batch-size", NULL, INT, batch_size, "4", "N",
           "accepted for mlx-RAG; batches suit the model"),
    OPTION("mlx-prefetch", NULL, INT, prefetch, "8", "N", "accepted for mlx-RAG"),
};

static void print_notes(const RagIngestReport *report) {
    for (size_t i = 0; i < report->n_notes; i++) {
        const RagFileNote *note = &report->notes[i];
        char *path = rag_clean_path(note->path);
        printf("%s %s: %s\n", note->status == RAG_FAILED ? "failed" : "skipped", path,
               note->reason);
        free(path);
    }
}

static void on_file(void *context, const RagFileEvent *event) {
    Progress *progress = context;
    progress->total = (double)event->files_total;
    base_progress_update(progress, (double)event->files_done);
}

/* One bank into `output`, a vdb.npz, through the index beside it. */
static bool make_bank(const char *name, const char *const *paths, size_t n_paths,
                      const char *output, const RagEmbedder *embedder, Error *err) {
    char *folder = base_strndup(output, (size_t)(base_path_name(output) - output));
    char *index_path = base_format("%s.index", output);
    bool ok = !*folder || base_make_dirs(folder, err);
    RagIndex *index = ok ? rag_index_open(index_path, RAG_CREATE, embedder, err) : NULL;
    RagIngestReport report = {0};
    Progress progress = base_progress_start(name, "files", 0);
    RagIngestOptions how = {.on_file = on_file, .on_file_context = &progress};
    ok = index && rag_ingest(index, embedder, paths, n_paths, &how, &report, err);
    base_progress_end(&progress);
    print_notes(&report);
    rag_ingest_report_free(&report);
    RagIndexInfo info = {0};
    size_t chunks = 0;
    ok = ok && rag_index_info(index, &info, err);
    if (ok && !info.n_chunks)
        printf("No documents found for bank '%s'. Skipping.\n", name);
    else if (ok)
        ok = rag_index_export(index, output, &chunks, err);
    if (ok && chunks)
        printf("Saved bank '%s' → %s (%zu documents).\n", name, output, info.n_documents);
    rag_index_close(index);
    free(folder), free(index_path);
    return ok;
}

static bool is_bank_name(const char *name) {
    size_t length = strlen(name);
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    return length > 0 && length <= 64 && name[0] != '.' && strspn(name, letters) == length;
}

static bool named_bank(const BankArguments *arguments, const char *name, const char *const *paths,
                       size_t n_paths, const RagEmbedder *embedder, Error *err) {
    if (!is_bank_name(name)) {
        base_fail(err, ERROR_INPUT, "%.80s: not a name for a bank", name);
        return base_hint(err, "letters, digits, '.', '_' and '-', at most 64, no '.' first");
    }
    char *output = base_format("%s/%s/vdb.npz", arguments->output_dir, name);
    bool ok = make_bank(name, paths, n_paths, output, embedder, err);
    free(output);
    return ok;
}

static bool all_banks(const BankArguments *arguments, const RagEmbedder *embedder, Error *err) {
    char **names = NULL;
    size_t count = 0, banks = 0;
    if (!base_list_dir(arguments->banks_root, &names, &count, err)) return false;
    bool ok = true;
    for (size_t i = 0; i < count; i++) {
        char *path = base_path_join(arguments->banks_root, names[i]);
        if (ok && names[i][0] != '.' && base_is_dir(path)) {
            const char *paths[] = {path};
            ok = named_bank(arguments, names[i], paths, 1, embedder, err);
            banks++;
        }
        free(path), free(names[i]);
    }
    free(names);
    if (ok && !banks)
        ok = base_fail(err, ERROR_INPUT, "%s: has no sub-folders", arguments->banks_root);
    return ok;
}

static int run(const void *given, Error *err) {
    const BankArguments *arguments = given;
    if ((arguments->pdfs.count > 0) == (arguments->banks_root != NULL)) {
        base_fail(err, ERROR_INPUT, "give either --pdfs or --banks-root");
        return 2;
    }
    RagEmbedder embedder = {0};
    if (!rag_embedder_open(arguments->embedder, &embedder, err)) return 1;
    bool ok = false;
    if (arguments->banks_root)
        ok = all_banks(arguments, &embedder, err);
    else if (arguments->bank_name)
        ok = named_bank(arguments, arguments->bank_name, arguments->pdfs.items,
                        arguments->pdfs.count, &embedder, err);
    else
        ok = make_bank("pdfs", arguments->pdfs.items, arguments->pdfs.count, arguments->vdb,
                       &embedder, err);
    rag_embedder_close(&embedder);
    return ok ? 0 : 1;
}

const Command ingest_banks_command = {
    .name = "ingest-banks",
    .summary = "Folders of documents to a vdb.npz each, as mlx-RAG's ingest-cli.",
    OPTIONS(option_table),
    .arguments_size = sizeof(BankArguments),
    .run = run};
