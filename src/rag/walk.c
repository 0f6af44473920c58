/* Folders to files; see walk.h. */
#include "rag/walk.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_DEPTH 100

static void add(RagFiles *files, char *path, const char *root, bool walking, const char *skip,
                const struct stat *status) {
    files->items =
        base_grow(files->items, &files->capacity, files->count + 1, sizeof *files->items);
#if defined(__APPLE__)
    struct timespec changed = status->st_mtimespec;
#else
    struct timespec changed = status->st_mtim;
#endif
    files->items[files->count++] =
        (RagFound){.path = path,
                   .root = base_strdup(root),
                   .walking = walking,
                   .skip = skip,
                   .size = (int64_t)status->st_size,
                   .mtime_ns = (int64_t)changed.tv_sec * 1000000000 + changed.tv_nsec};
}

/* A link to a file of the same folder is found under its own name. */
static const char *link_skip(const char *path, const char *root) {
    char *target = realpath(path, NULL);
    size_t length = strlen(root);
    bool inside =
        target && strncmp(target, root, length) == 0 && (target[length] == '/' || !target[length]);
    const char *reason = !target ? "broken link" : inside ? NULL : "link out of the folder";
    free(target);
    return reason;
}

static bool walk_folder(RagFiles *files, const char *folder, const char *root, int depth,
                        Error *err) {
    char **names = NULL;
    size_t count = 0;
    Error ignored = {0};
    if (!base_list_dir(folder, &names, &count, &ignored)) {
        struct stat status = {0};
        add(files, base_strdup(folder), root, true, "folder that cannot be read", &status);
        return true;
    }
    bool ok = true;
    for (size_t i = 0; i < count; i++) {
        char *path = base_path_join(folder, names[i]);
        struct stat status;
        if (ok && base_interrupted()) ok = base_fail(err, ERROR_INTERRUPTED, "interrupted");
        if (!ok || names[i][0] == '.' || lstat(path, &status) != 0) {
            free(path);
        } else if (S_ISLNK(status.st_mode)) {
            const char *skip = link_skip(path, root);
            if (skip)
                add(files, path, root, true, skip, &status);
            else
                free(path);
        } else if (S_ISDIR(status.st_mode)) {
            if (depth < MAX_DEPTH) ok = walk_folder(files, path, root, depth + 1, err);
            free(path);
        } else {
            add(files, path, root, true, S_ISREG(status.st_mode) ? NULL : "not a regular file",
                &status);
        }
        free(names[i]);
    }
    free(names);
    return ok;
}

static int by_path(const void *a, const void *b) {
    const RagFound *left = a, *right = b;
    int order = strcmp(left->path, right->path);
    return order ? order : (int)left->walking - (int)right->walking; /* the named one first */
}

bool rag_is_index_file(const char *path, const char *index) {
    static const char *const tails[] = {"", "-wal", "-shm", "-journal"};
    if (!index || !base_starts_with(path, index)) return false;
    for (size_t i = 0; i < BASE_COUNT(tails); i++)
        if (strcmp(path + strlen(index), tails[i]) == 0) return true;
    return false;
}

bool rag_walk(const char *const *paths, size_t count, const char *own, RagFiles *files,
              Error *err) {
    *files = (RagFiles){0};
    files->roots = base_calloc(count + 1, sizeof *files->roots);
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++) {
        char *root = realpath(paths[i], NULL);
        struct stat status;
        if (!root || stat(root, &status) != 0) {
            ok = base_fail_errno(err, "%s", paths[i]);
            free(root);
            break;
        }
        files->roots[files->n_roots++] = root;
        if (S_ISDIR(status.st_mode))
            ok = walk_folder(files, root, root, 0, err);
        else
            add(files, base_strdup(root), root, false,
                S_ISREG(status.st_mode) ? NULL : "not a regular file", &status);
    }
    if (files->count) qsort(files->items, files->count, sizeof *files->items, by_path);
    char *index = own ? realpath(own, NULL) : NULL;
    size_t kept = 0;
    for (size_t i = 0; i < files->count; i++) {
        if ((kept && strcmp(files->items[kept - 1].path, files->items[i].path) == 0) ||
            (files->items[i].walking && rag_is_index_file(files->items[i].path, index))) {
            free(files->items[i].path), free(files->items[i].root);
        } else {
            files->items[kept++] = files->items[i];
        }
    }
    files->count = kept;
    free(index);
    if (!ok) rag_files_free(files);
    return ok;
}

void rag_files_free(RagFiles *files) {
    for (size_t i = 0; i < files->count; i++)
        free(files->items[i].path), free(files->items[i].root);
    for (size_t i = 0; i < files->n_roots; i++) free(files->roots[i]);
    free(files->items);
    free(files->roots);
    *files = (RagFiles){0};
}
