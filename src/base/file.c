/* Files as they are: paths, folders, reading whole, mapping. Writing whole or
 * not at all is atomic.c. */
#include "base/base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

bool base_is_file(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

bool base_is_dir(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

char *base_path_join(const char *folder, const char *name) {
    size_t length = strlen(folder);
    if (name[0] == '/' || length == 0) return base_strdup(name);
    return base_format("%s%s%s", folder, folder[length - 1] == '/' ? "" : "/", name);
}

const char *base_path_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

char *base_path_parent(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return base_strdup(".");
    return slash == path ? base_strdup("/") : base_strndup(path, (size_t)(slash - path));
}

static bool lies_in(const char *path, const char *folder, size_t length) {
    return strncmp(path, folder, length) == 0 &&
           (path[length] == '/' || path[length] == '\0' || length == 1);
}

/* .../blobs for a folder at or under .../snapshots/REVISION; caller frees, or NULL. */
static char *blobs_of(const char *folder) {
    const char *found = NULL, *next = folder;
    while ((next = strstr(next, "/snapshots/"))) found = next++;
    return found ? base_format("%.*s/blobs", (int)(found - folder), folder) : NULL;
}

bool base_path_inside(const char *folder, const char *path, Error *err) {
    char root[PATH_MAX], real[PATH_MAX], blobs[PATH_MAX];
    if (!realpath(folder, root) || !realpath(path, real)) return true;
    if (lies_in(real, root, strlen(root))) return true;
    char *cache = blobs_of(root);
    bool cached = cache && realpath(cache, blobs) && lies_in(real, blobs, strlen(blobs));
    free(cache);
    if (cached) return true;
    base_fail(err, ERROR_INPUT, "%s: is a link to %s, outside of the model's folder", path, real);
    return base_hint(err, "Replace it by the file itself.");
}

bool base_make_dirs(const char *path, Error *err) {
    char *partial = base_strdup(path);
    bool ok = true;
    for (char *at = partial + 1; ok; at++) {
        if (*at != '/' && *at != '\0') continue;
        char kept = *at;
        *at = '\0';
        if (mkdir(partial, 0777) != 0 && (errno != EEXIST || !base_is_dir(partial)))
            ok = base_fail_errno(err, "%s: cannot create this folder", partial);
        *at = kept;
        if (kept == '\0') break;
    }
    free(partial);
    return ok;
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

bool base_list_dir(const char *path, char ***names, size_t *count, Error *err) {
    DIR *folder = opendir(path);
    if (!folder) return base_fail_errno(err, "%s: cannot list this folder", path);
    *names = NULL;
    *count = 0;
    size_t capacity = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        *names = base_grow(*names, &capacity, *count + 1, sizeof **names);
        (*names)[(*count)++] = base_strdup(entry->d_name);
    }
    closedir(folder);
    if (*count) qsort(*names, *count, sizeof **names, by_name);
    return true;
}

/* Opens for reading and learns the size; -1 and *err on failure. */
static int open_regular(const char *path, struct stat *info, Error *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        base_fail_errno(err, "%s", path);
        return -1;
    }
    if (fstat(fd, info) != 0) {
        base_fail_errno(err, "%s", path);
    } else if (S_ISDIR(info->st_mode)) {
        base_fail(err, ERROR_INPUT, "%s: is a folder, not a file", path);
    } else {
        return fd;
    }
    close(fd);
    return -1;
}

bool base_file_read(const char *path, char **data, size_t *length, Error *err) {
    struct stat info;
    int fd = open_regular(path, &info, err);
    if (fd < 0) return false;
    /* Pipes and /proc files have no size: grow as the bytes come. */
    size_t capacity = S_ISREG(info.st_mode) ? (size_t)info.st_size : 0, used = 0;
    char *bytes = base_try_alloc(capacity + 1, 1, err);
    while (bytes) {
        if (used == capacity) {
            char probe;
            ssize_t got = read(fd, &probe, 1);
            if (got == 0) break;
            if (got > 0) {
                size_t wanted = capacity < 4096 ? 8192 : capacity * 2;
                bytes = base_realloc(bytes, wanted + 1);
                capacity = wanted;
                bytes[used++] = probe;
                continue;
            }
        }
        ssize_t got = used < capacity ? read(fd, bytes + used, capacity - used) : -1;
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            base_fail_errno(err, "%s: cannot read", path);
            free(bytes);
            bytes = NULL;
            break;
        }
        if (got == 0) break;
        used += (size_t)got;
    }
    close(fd);
    if (!bytes) return false;
    bytes[used] = '\0';
    *data = bytes;
    *length = used;
    return true;
}

bool base_map_open(const char *path, MappedFile *map, Error *err) {
    struct stat info;
    int fd = open_regular(path, &info, err);
    if (fd < 0) return false;
    *map = (MappedFile){.data = (const uint8_t *)"", .length = (size_t)info.st_size};
    if (map->length) {
        void *data = mmap(NULL, map->length, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            base_fail_errno(err, "%s: cannot map", path);
            close(fd);
            return false;
        }
        map->data = data;
    }
    close(fd);
    return true;
}

void base_map_close(MappedFile *map) {
    if (map->length) munmap((void *)(uintptr_t)map->data, map->length);
    *map = (MappedFile){0};
}

void base_map_forget(const void *data, size_t length) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t begin = ((uintptr_t)data + page - 1) / page * page,
                    end = ((uintptr_t)data + length) / page * page;
    if (begin < end) madvise((void *)begin, end - begin, MADV_DONTNEED);
}
