/* index info, verify, export, import, merge: an index as a file among others. */
#include "cli/commands.h"
#include "rag/rag.h"

#include <string.h>

/* ---- info and verify ----------------------------------------------------------- */

typedef struct LookArguments {
    const char *index;
    bool json;
} LookArguments;
#define ARGUMENTS LookArguments

static const Option look_options[] = {
    POSITIONAL("INDEX", TEXT, index, true, "index file"),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "print a JSON object"),
};
#undef ARGUMENTS

static json_t *info_json(const RagIndexInfo *info) {
    return json_pack("{s:I,s:I,s:I,s:s,s:s,s:s,s:I}", "documents", (json_int_t)info->n_documents,
                     "chunks", (json_int_t)info->n_chunks, "dim", (json_int_t)info->dim, "embedder",
                     info->embedder_name, "embedder_hash", info->embedder_hash, "pooling",
                     info->pooling, "bytes", (json_int_t)info->file_bytes);
}

static int run_info(const void *given, Error *err) {
    const LookArguments *arguments = given;
    RagIndex *index = rag_index_open(arguments->index, RAG_READ, NULL, err);
    RagIndexInfo info;
    bool good = index && rag_index_info(index, &info, err);
    if (good && arguments->json) {
        output_json(info_json(&info));
    } else if (good) {
        printf("%-12s %zu\n%-12s %zu\n", "documents", info.n_documents, "chunks", info.n_chunks);
        printf("%-12s %s (%.16s)\n", "embedder", info.embedder_name, info.embedder_hash);
        printf("%-12s %zu numbers, pooling %s\n", "vectors", info.dim, info.pooling);
        printf("%-12s %s\n", "file", base_bytes_text(info.file_bytes));
    }
    rag_index_close(index);
    return good ? 0 : 1;
}

const Command index_info_command = {.name = "index info",
                                    .summary = "Shows what an index holds.",
                                    OPTIONS(look_options),
                                    .arguments_size = sizeof(LookArguments),
                                    .run = run_info};

static int run_verify(const void *given, Error *err) {
    const LookArguments *arguments = given;
    RagIndex *index = rag_index_open(arguments->index, RAG_READ, NULL, err);
    RagIndexInfo info;
    bool good = index && rag_index_info(index, &info, err) && rag_index_check(index, err);
    if (good && arguments->json)
        output_json(json_pack("{s:b,s:I,s:I}", "sound", 1, "documents",
                              (json_int_t)info.n_documents, "chunks", (json_int_t)info.n_chunks));
    else if (good)
        printf("sound: %zu documents, %zu chunks\n", info.n_documents, info.n_chunks);
    rag_index_close(index);
    return good ? 0 : 1;
}

const Command index_verify_command = {.name = "index verify",
                                      .summary =
                                          "Checks that text, words and vectors of an index agree.",
                                      OPTIONS(look_options),
                                      .arguments_size = sizeof(LookArguments),
                                      .run = run_verify};

/* ---- export -------------------------------------------------------------------- */

typedef struct ExportArguments {
    const char *index, *output;
    bool json;
} ExportArguments;
#define ARGUMENTS ExportArguments

static const Option export_options[] = {
    POSITIONAL("INDEX", TEXT, index, true, "index file"),
    POSITIONAL("OUTPUT", TEXT, output, true, "file to write: .npz, .safetensors or .jsonl"),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "print a JSON object"),
};
#undef ARGUMENTS

static int run_export(const void *given, Error *err) {
    const ExportArguments *arguments = given;
    size_t chunks = 0;
    RagIndex *index = rag_index_open(arguments->index, RAG_READ, NULL, err);
    bool good = index && rag_index_export(index, arguments->output, &chunks, err);
    if (good && arguments->json)
        output_json(json_pack("{s:o,s:I}", "output",
                              output_string(arguments->output, strlen(arguments->output)), "chunks",
                              (json_int_t)chunks));
    else if (good)
        printf("%zu chunks written to %s\n", chunks, arguments->output);
    rag_index_close(index);
    return good ? 0 : 1;
}

const Command index_export_command = {
    .name = "index export",
    .summary = "Writes an index as a vdb.npz of mlx-RAG, safetensors or JSON lines.",
    .details = "The first two come with OUTPUT.meta.json.",
    OPTIONS(export_options),
    .arguments_size = sizeof(ExportArguments),
    .run = run_export};

/* ---- import -------------------------------------------------------------------- */

typedef struct ImportArguments {
    const char *input, *index, *embedder;
    bool embed, json;
} ImportArguments;
#define ARGUMENTS ImportArguments

static const Option import_options[] = {
    POSITIONAL("INPUT", TEXT, input, true, "vdb.npz, .safetensors or .jsonl"),
    OPTION_REQUIRED("index", NULL, TEXT, index, "FILE", "index file; made when missing"),
    OPTION("embedder", NULL, MODEL, embedder, NULL, "MODEL",
           "the model that made the vectors; without it the index answers by words unless the "
           "file names the model"),
    OPTION("embed", NULL, FLAG, embed, NULL, NULL, "compute the vectors again with --embedder"),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "print a JSON object"),
};
#undef ARGUMENTS

static int run_import(const void *given, Error *err) {
    const ImportArguments *arguments = given;
    if (arguments->embed && !arguments->embedder) {
        base_fail(err, ERROR_INPUT, "--embed needs --embedder");
        return 2;
    }
    RagEmbedder embedder = {0};
    if (arguments->embedder && !rag_embedder_open(arguments->embedder, &embedder, err)) return 1;
    RagImportReport report;
    bool good =
        rag_index_import(arguments->input, arguments->index, arguments->embedder ? &embedder : NULL,
                         arguments->embed, &report, err);
    if (good && arguments->json)
        output_json(json_pack("{s:I,s:I,s:I}", "documents", (json_int_t)report.documents, "chunks",
                              (json_int_t)report.chunks, "dim", (json_int_t)report.dim));
    else if (good)
        printf("%zu chunks of %zu documents, %zu numbers a vector\n", report.chunks,
               report.documents, report.dim);
    rag_embedder_close(&embedder);
    return good ? 0 : 1;
}

const Command index_import_command = {.name = "index import",
                                      .summary = "Takes such a file into an index.",
                                      OPTIONS(import_options),
                                      .arguments_size = sizeof(ImportArguments),
                                      .run = run_import};

/* ---- merge --------------------------------------------------------------------- */

typedef struct MergeArguments {
    OptionList inputs;
    const char *output;
    bool json;
} MergeArguments;
#define ARGUMENTS MergeArguments

static const Option merge_options[] = {
    POSITIONAL("INDEX", LIST, inputs, true, "indexes of the same embedder"),
    OPTION_REQUIRED("output", "o", TEXT, output, "FILE",
                    "index that they go into; made when missing"),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "print a JSON object"),
};
#undef ARGUMENTS

/* The output opened as an index of the embedder of this one. */
static RagIndex *open_like(const char *path, RagIndex *like, Error *err) {
    RagIndexInfo info;
    if (!rag_index_info(like, &info, err)) return NULL;
    RagEmbedder identity = {.name = info.embedder_name,
                            .hash = info.embedder_hash,
                            .pooling = info.pooling,
                            .dim = info.dim};
    return rag_index_open(path, RAG_CREATE, &identity, err);
}

static int run_merge(const void *given, Error *err) {
    const MergeArguments *arguments = given;
    RagIndex *into = NULL;
    size_t documents = 0;
    bool good = true;
    for (size_t i = 0; good && i < arguments->inputs.count; i++) {
        RagIndex *from = rag_index_open(arguments->inputs.items[i], RAG_READ, NULL, err);
        if (from && !into) into = open_like(arguments->output, from, err);
        good = from && into && rag_index_merge(into, from, &documents, err);
        rag_index_close(from);
    }
    RagIndexInfo info = {0};
    good = good && rag_index_info(into, &info, err);
    if (good && arguments->json)
        output_json(info_json(&info));
    else if (good)
        printf("%zu documents taken, %zu documents and %zu chunks in %s\n", documents,
               info.n_documents, info.n_chunks, arguments->output);
    rag_index_close(into);
    return good ? 0 : 1;
}

const Command index_merge_command = {
    .name = "index merge",
    .summary = "Puts the documents of several indexes into one.",
    .details = "A document that several have is taken from the last of them.",
    OPTIONS(merge_options),
    .arguments_size = sizeof(MergeArguments),
    .run = run_merge};
