/* Lists of files: named ones and those of folders, by patterns, in the order of their
 * paths. A sample says where a file is and how large; operators load it. */
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/files.h"

enum { MOST_DEPTH = 100 };

static int64_t mtime_of(const struct stat *about) {
#if defined(__APPLE__)
    return about->st_mtimespec.tv_sec * INT64_C(1000000000) + about->st_mtimespec.tv_nsec;
#else
    return about->st_mtim.tv_sec * INT64_C(1000000000) + about->st_mtim.tv_nsec;
#endif
}

/* ---- finding them ----------------------------------------------------------------------- */

/* A pattern without a slash is for the last part of a name. */
static bool matches(const char *const *patterns, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++)
        if (fnmatch(patterns[i], strchr(patterns[i], '/') ? name : base_path_name(name), 0) == 0)
            return true;
    return false;
}

static void add_file(DxFileList *list, const char *path, size_t name, const struct stat *about) {
    list->items = base_grow(list->items, &list->capacity, list->count + 1, sizeof *list->items);
    list->items[list->count++] = (DxFile){.path = base_strdup(path),
                                          .name = name,
                                          .size = about->st_size,
                                          .mtime_ns = mtime_of(about)};
}

/* Links to files are followed, links to folders are not: they may lead in circles. */
static bool walk(DxFileList *list, const DxFilesOptions *options, const char *folder, size_t root,
                 int depth, Error *err) {
    char **names;
    size_t count;
    if (!base_list_dir(folder, &names, &count, err)) return false;
    bool ok = true;
    for (size_t i = 0; i < count; i++) {
        char *path = base_path_join(folder, names[i]);
        const char *name = path + root;
        struct stat about, link;
        bool there = ok && (options->hidden || names[i][0] != '.') && lstat(path, &link) == 0 &&
                     stat(path, &about) == 0;
        if (there && S_ISDIR(about.st_mode)) {
            if (options->recursive && !S_ISLNK(link.st_mode) && depth < MOST_DEPTH &&
                !matches(options->exclude, options->n_exclude, name))
                ok = walk(list, options, path, root, depth + 1, err);
        } else if (there && S_ISREG(about.st_mode)) {
            if ((options->n_include == 0 || matches(options->include, options->n_include, name)) &&
                !matches(options->exclude, options->n_exclude, name))
                add_file(list, path, root, &about);
        }
        free(path);
        free(names[i]);
    }
    free(names);
    return ok;
}

static int by_path(const void *a, const void *b) {
    return strcmp(((const DxFile *)a)->path, ((const DxFile *)b)->path);
}

bool dx_list_files(const DxFilesOptions *options, DxFileList *list, Error *err) {
    *list = (DxFileList){0};
    bool ok = true;
    for (size_t i = 0; ok && i < options->n_paths; i++) {
        const char *path = options->paths[i];
        struct stat about;
        size_t length = strlen(path);
        if (stat(path, &about) != 0)
            ok = base_fail_errno(err, "files: %s", path);
        else if (S_ISDIR(about.st_mode))
            ok = walk(list, options, path, length + (length && path[length - 1] != '/'), 0, err);
        else
            add_file(list, path, (size_t)(base_path_name(path) - path), &about);
    }
    if (list->count > 1) qsort(list->items, list->count, sizeof *list->items, by_path);
    size_t kept = 0;
    for (size_t i = 0; i < list->count; i++) {
        if (kept && strcmp(list->items[kept - 1].path, list->items[i].path) == 0)
            free(list->items[i].path);
        else
            list->items[kept++] = list->items[i];
    }
    list->count = kept;
    if (!ok) dx_file_list_free(list);
    return ok;
}

void dx_file_list_free(DxFileList *list) {
    for (size_t i = 0; i < list->count; i++) free(list->items[i].path);
    free(list->items);
    *list = (DxFileList){0};
}

/* ---- as a buffer ------------------------------------------------------------------------- */

typedef struct FilesBuffer {
    DxBuffer base;
    DxFileList list;
    DxKey path, name, size;
    uint64_t hash; /* of names, sizes and times */
} FilesBuffer;

static DxArray *name_array(const char *name, Error *err) {
    size_t length = strlen(name);
    return base_utf8_valid(name, length) ? dx_array_text(name, length, err)
                                         : dx_array_bytes(name, length, err);
}

static DxStatus files_get(const DxBuffer *buffer, uint64_t epoch, int64_t index, DxSample **sample,
                          Error *err) {
    const FilesBuffer *files = (const FilesBuffer *)buffer;
    const DxFile *file = &files->list.items[index];
    *sample = dx_sample_new();
    dx_sample_set_record(sample, (DxRecord){.epoch = epoch, .ordinal = (uint64_t)index});
    dx_sample_put(sample, files->path, name_array(file->path, err));
    dx_sample_put(sample, files->name, name_array(file->path + file->name, err));
    dx_sample_put(sample, files->size, dx_array_int(file->size));
    return DX_OK;
}

static void files_options(const DxBuffer *buffer, StrBuf *text) {
    base_str_appendf(text, "%lld, %016llx", (long long)buffer->count,
                     (unsigned long long)((const FilesBuffer *)buffer)->hash);
}

static void files_where(const DxBuffer *buffer, const DxRecord *record, StrBuf *text) {
    const FilesBuffer *files = (const FilesBuffer *)buffer;
    if (record->ordinal < files->list.count)
        base_str_append(text, files->list.items[record->ordinal].path);
}

static void files_free(DxBuffer *buffer) {
    dx_file_list_free(&((FilesBuffer *)buffer)->list);
}

static const DxBufferKind files_kind = {"files", files_get, files_options, files_where, files_free};

DxBuffer *dx_files(const DxFilesOptions *options, Error *err) {
    DxFileList list;
    if (!dx_list_files(options, &list, err)) return NULL;
    FilesBuffer *files = dx_buffer_node(&files_kind, sizeof *files, NULL, (int64_t)list.count);
    files->list = list;
    files->path = dx_key("path");
    files->name = dx_key("name");
    files->size = dx_key("size");
    StrBuf about = {0};
    for (size_t i = 0; i < list.count; i++)
        base_str_appendf(&about, "%s %lld %lld\n", list.items[i].path + list.items[i].name,
                         (long long)list.items[i].size, (long long)list.items[i].mtime_ns);
    files->hash = base_hash(about.data ? about.data : "", about.length);
    base_str_free(&about);
    return &files->base;
}
