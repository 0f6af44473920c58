/* The files of a repository at a commit: asked of the hub, kept in the cache in
 * huggingface_hub's form, and chosen by patterns. Nothing in the hub's answer is
 * trusted: paths become files here, hashes become file names. */
#include "hub/cache.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWER_LIMIT = 64 << 20, FILE_LIMIT = 200000, TREE_FORMAT = 1 };

void hub_tree_free(HubTree *tree) {
    for (size_t i = 0; i < tree->count; i++) {
        HubFile *file = &tree->files[i];
        free(file->path);
        free(file->blob_id);
        free(file->etag);
        free(file->xet);
    }
    free(tree->files);
    *tree = (HubTree){0};
}

/* Relative, without "." or "..", without control characters. */
static bool is_safe_path(const char *path) {
    size_t length = strlen(path);
    if (length == 0 || length > 1024 || path[0] == '/') return false;
    for (const char *at = path; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7F || *at == '\\') return false;
    for (const char *part = path;; part++) {
        size_t size = strcspn(part, "/");
        bool dots =
            (size == 1 && part[0] == '.') || (size == 2 && part[0] == '.' && part[1] == '.');
        if (size == 0 || size > 255 || dots) return false;
        part += size;
        if (*part == '\0') return true;
    }
}

static bool is_hash(const char *text) {
    size_t length = text ? strlen(text) : 0;
    return (length == 40 || length == 64) && strspn(text, "0123456789abcdef") == length;
}

/* Takes borrowed texts; xet may be NULL. */
static bool add_file(HubTree *tree, const char *path, const char *blob_id, const char *sha256,
                     const char *xet, json_int_t size, const char *source, Error *err) {
    if (!path || !is_safe_path(path))
        return base_fail(err, ERROR_INPUT, "%s: lists a file of the name \"%.200s\", refused",
                         source, path ? path : "");
    if (!is_hash(blob_id) || (sha256 && !is_hash(sha256)) || size < 0)
        return base_fail(err, ERROR_INPUT, "%s: lists %.200s without a usable hash or size", source,
                         path);
    if (tree->count >= FILE_LIMIT)
        return base_fail(err, ERROR_INPUT, "%s: lists more than %d files", source, FILE_LIMIT);
    tree->files = base_grow(tree->files, &tree->capacity, tree->count + 1, sizeof *tree->files);
    tree->files[tree->count++] = (HubFile){.path = base_strdup(path),
                                           .blob_id = base_strdup(blob_id),
                                           .etag = base_strdup(sha256 ? sha256 : blob_id),
                                           .xet = xet ? base_strdup(xet) : NULL,
                                           .size = (uint64_t)size};
    return true;
}

static int by_path(const void *a, const void *b) {
    return strcmp(((const HubFile *)a)->path, ((const HubFile *)b)->path);
}

static const char *text_at(const json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

/* ---- the cache's copy --------------------------------------------------------- */

static char *tree_path(const char *repo, const char *commit) {
    return base_format("%s/trees/%s.json", repo, commit);
}

bool hub_tree_load(const char *repo, const char *commit, HubTree *tree) {
    char *path = tree_path(repo, commit);
    json_t *root = base_is_file(path) ? base_json_load(path, NULL) : NULL;
    const json_t *files = json_object_get(root, "files");
    bool good = json_integer_value(json_object_get(root, "format_version")) == TREE_FORMAT &&
                json_is_object(files);
    *tree = (HubTree){0};
    snprintf(tree->commit, sizeof tree->commit, "%s", commit);
    const char *name;
    json_t *entry;
    json_object_foreach((json_t *)(uintptr_t)files, name, entry) {
        const char *sha256 = text_at(entry, "lfs_sha256");
        const json_t *size = json_object_get(entry, sha256 ? "lfs_size" : "size");
        good = good && json_is_integer(size) &&
               add_file(tree, name, text_at(entry, "blob_id"), sha256, text_at(entry, "xet_hash"),
                        json_integer_value(size), path, NULL);
    }
    if (good && tree->count > 1) qsort(tree->files, tree->count, sizeof *tree->files, by_path);
    json_decref(root);
    free(path);
    if (!good) hub_tree_free(tree);
    return good;
}

bool hub_tree_save(const char *repo, const HubTree *tree, Error *err) {
    json_t *files = json_object();
    for (size_t i = 0; i < tree->count; i++) {
        const HubFile *file = &tree->files[i];
        json_t *entry =
            json_pack("{s:I,s:s}", "size", (json_int_t)file->size, "blob_id", file->blob_id);
        if (strcmp(file->etag, file->blob_id) != 0) {
            json_object_set_new(entry, "lfs_sha256", json_string(file->etag));
            json_object_set_new(entry, "lfs_size", json_integer((json_int_t)file->size));
        }
        if (file->xet) json_object_set_new(entry, "xet_hash", json_string(file->xet));
        json_object_set_new(files, file->path, entry);
    }
    json_t *root = json_pack("{s:i,s:o}", "format_version", TREE_FORMAT, "files", files);
    char *path = tree_path(repo, tree->commit), *folder = base_path_join(repo, "trees");
    bool saved = base_make_dirs(folder, err) && base_json_save(path, root, err);
    free(folder);
    free(path);
    json_decref(root);
    return saved;
}

/* ---- the hub's answer ------------------------------------------------------------ */

static json_t *get_json(HttpClient *client, const char *url, const char *name, int tries,
                        char **next_page, Error *err) {
    StrBuf body = {0};
    json_t *value = NULL;
    if (http_get_text(client, url, name, ANSWER_LIMIT, tries, &body, next_page, err))
        value = base_json_parse(body.data, body.length, name, err);
    base_str_free(&body);
    return value;
}

static bool fetch_commit(HttpClient *client, const HubSettings *settings, const char *id,
                         const char *revision, int tries, char *commit, Error *err) {
    char *quoted = http_quote(revision, false);
    char *url = base_format("%s/api/models/%s/revision/%s", settings->endpoint, id, quoted);
    json_t *info = get_json(client, url, id, tries, NULL, err);
    const char *sha = text_at(info, "sha");
    bool good = sha && hub_is_commit(sha);
    if (good)
        memcpy(commit, sha, HUB_COMMIT_LENGTH + 1);
    else if (info)
        base_fail(err, ERROR_INPUT, "%s: the hub's answer names no commit", id);
    json_decref(info);
    free(url);
    free(quoted);
    return good;
}

static bool add_page(HubTree *tree, const json_t *page, const char *id, Error *err) {
    size_t index;
    json_t *entry;
    if (!json_is_array(page))
        return base_fail(err, ERROR_INPUT, "%s: the hub's list of files is not a list", id);
    json_array_foreach(page, index, entry) {
        const char *type = text_at(entry, "type");
        if (!type || strcmp(type, "file") != 0) continue;
        const json_t *lfs = json_object_get(entry, "lfs");
        const json_t *size = json_object_get(json_is_object(lfs) ? lfs : entry, "size");
        if (!add_file(tree, text_at(entry, "path"), text_at(entry, "oid"), text_at(lfs, "oid"),
                      text_at(entry, "xetHash"),
                      json_is_integer(size) ? json_integer_value(size) : -1, id, err))
            return false;
    }
    return true;
}

bool hub_tree_fetch(HttpClient *client, const HubSettings *settings, const char *id,
                    const char *revision, const char *repo, int tries, HubTree *tree, Error *err) {
    *tree = (HubTree){0};
    char commit[HUB_COMMIT_LENGTH + 1];
    if (hub_is_commit(revision))
        memcpy(commit, revision, sizeof commit);
    else if (!fetch_commit(client, settings, id, revision, tries, commit, err))
        return false;
    if (hub_tree_load(repo, commit, tree)) return true;
    memcpy(tree->commit, commit, sizeof commit);
    char *url = base_format("%s/api/models/%s/tree/%s?recursive=true&expand=false",
                            settings->endpoint, id, commit);
    bool good = true;
    while (good && url) {
        char *next = NULL;
        json_t *page = get_json(client, url, id, tries, &next, err);
        good = page && add_page(tree, page, id, err);
        json_decref(page);
        if (good && next && !http_same_origin(next, settings->endpoint))
            good = base_fail(err, ERROR_INPUT, "%s: the list of files goes on at another host", id);
        free(url);
        url = next;
    }
    free(url);
    if (good && tree->count > 1) qsort(tree->files, tree->count, sizeof *tree->files, by_path);
    for (size_t i = 1; good && i < tree->count; i++)
        if (strcmp(tree->files[i - 1].path, tree->files[i].path) == 0)
            good =
                base_fail(err, ERROR_INPUT, "%s: the hub lists %s twice", id, tree->files[i].path);
    if (!good) hub_tree_free(tree);
    return good;
}

/* ---- which files -------------------------------------------------------------------- */

/* What mlx-lm asks for, less the Python files, which nothing here runs. */
static const char *const model_patterns[] = {"*.json",          "model*.safetensors",
                                             "tokenizer.model", "*.tiktoken",
                                             "tiktoken.model",  "*.txt",
                                             "*.jsonl",         "*.jinja"};
static const char *const torch_patterns[] = {"pytorch_model*.bin", "pytorch_model*.bin.index.json"};

static bool matches(const char *path, const char *const *patterns, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (fnmatch(patterns[i], path, 0) == 0) return true;
    return false;
}

bool hub_tree_has_safetensors(const HubTree *tree) {
    for (size_t i = 0; i < tree->count; i++)
        if (fnmatch("model*.safetensors", tree->files[i].path, 0) == 0) return true;
    return false;
}

bool hub_file_wanted(const HubFile *file, const HubDownload *how, bool safetensors) {
    if (how && matches(file->path, how->ignore, how->ignore_count)) return false;
    if (how && how->allow_count) return matches(file->path, how->allow, how->allow_count);
    if (matches(file->path, torch_patterns, BASE_COUNT(torch_patterns))) return !safetensors;
    return matches(file->path, model_patterns, BASE_COUNT(model_patterns));
}
