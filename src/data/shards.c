/* The JSON-lines files of one split of a data set, as the Hugging Face hub lays them
 * out: "train.jsonl", "data/train-00000-of-00005.jsonl.gz", "train/part-1.json". */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "data/files.h"

/* The words by which a file or folder says that it belongs to a split, as the hub's. */
static const char *const split_words[][5] = {
    {"train", "training"},
    {"validation", "valid", "dev", "val"},
    {"test", "testing", "eval", "evaluation"},
};

/* `word` stands in `name` between its begin or end and signs that are no letters. */
static bool has_word(const char *name, const char *word) {
    size_t length = strlen(word);
    for (const char *at = name; (at = strstr(at, word)); at++) {
        bool begins = at == name || !isalnum((unsigned char)at[-1]);
        if (begins && !isalnum((unsigned char)at[length])) return true;
    }
    return false;
}

static bool belongs(const char *name, const char *split) {
    if (has_word(name, split)) return true;
    for (size_t i = 0; i < BASE_COUNT(split_words); i++) {
        bool this_one = false;
        for (size_t j = 0; j < BASE_COUNT(split_words[i]) && split_words[i][j]; j++)
            this_one = this_one || strcmp(split, split_words[i][j]) == 0;
        for (size_t j = 0; this_one && j < BASE_COUNT(split_words[i]) && split_words[i][j]; j++)
            if (has_word(name, split_words[i][j])) return true;
    }
    return false;
}

static bool names_a_split(const char *name) {
    for (size_t i = 0; i < BASE_COUNT(split_words); i++)
        if (belongs(name, split_words[i][0])) return true;
    return false;
}

DxBuffer *dx_jsonl_shards(const char *folder, const char *split, const DxJsonlOptions *options,
                          Error *err) {
    static const char *const include[] = {"*.jsonl",     "*.json",      "*.ndjson",
                                          "*.jsonl.gz",  "*.json.gz",   "*.jsonl.xz",
                                          "*.jsonl.bz2", "*.jsonl.zst", "*.json.zst"};
    static const char *const exclude[] = {"dataset_info.json", "dataset_infos.json", "state.json"};
    DxFileList list;
    DxFilesOptions files = {.paths = &folder,
                            .n_paths = 1,
                            .recursive = true,
                            .include = include,
                            .n_include = BASE_COUNT(include),
                            .exclude = exclude,
                            .n_exclude = BASE_COUNT(exclude)};
    if (!dx_list_files(&files, &list, err)) return NULL;
    bool any_named = false;
    for (size_t i = 0; i < list.count; i++)
        any_named = any_named || names_a_split(list.items[i].path + list.items[i].name);
    /* Files of no split at all are those of "train", as for the hub. */
    bool all = !any_named && strcmp(split, "train") == 0;
    DxBuffer **parts = base_calloc(list.count + 1, sizeof(DxBuffer *));
    size_t count = 0;
    bool ok = true;
    for (size_t i = 0; ok && i < list.count; i++) {
        if (!all && !belongs(list.items[i].path + list.items[i].name, split)) continue;
        DxJsonlOptions one = *options;
        one.path = list.items[i].path;
        one.index = NULL;
        parts[count] = dx_jsonl(&one, err);
        ok = parts[count] != NULL;
        count += ok;
    }
    if (ok && count == 0)
        ok = base_fail(err, ERROR_INPUT, "%s: has no JSON-lines files of the split \"%s\"", folder,
                       split);
    DxBuffer *buffer = NULL;
    if (ok) buffer = dx_buffer_append(parts, count, err);
    for (size_t i = 0; !ok && i < count; i++) dx_buffer_free(parts[i]);
    free(parts);
    dx_file_list_free(&list);
    return buffer;
}
