/* Files and folders that appear whole or not at all: a temporary name beside
 * the final one, fsync, rename, fsync of the folder. A temporary is locked while
 * its process lives, so that the next writer of the same name can tell what a
 * killed one left, and removes it. */
#include "base/base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct AtomicFile {
    int fd;
    char *path, *temporary;
};

struct AtomicFolder {
    int fd; /* holds the lock */
    char *path, *temporary;
};

static char *temporary_name(const char *path) {
    char *folder = base_path_parent(path);
    char *name = base_format("%s/.%s.XXXXXX", folder, base_path_name(path));
    free(folder);
    return name;
}

static void sync_parent(const char *path) {
    char *folder = base_path_parent(path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd); /* some file systems refuse this on a folder; the rename stands */
        close(fd);
    }
    free(folder);
}

static mode_t default_mode(mode_t wanted) {
    mode_t mask = umask(0);
    umask(mask);
    return wanted & ~mask;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *where) {
    (void)info;
    (void)kind;
    (void)where;
    return remove(path);
}

static bool lock(int fd) {
    return flock(fd, LOCK_EX | LOCK_NB) == 0;
}

/* Locks a temporary just made. false: another process took it for a dead one's. */
static bool keep(int fd) {
    struct stat info;
    return fd >= 0 && (lock(fd) || errno != EWOULDBLOCK) && fstat(fd, &info) == 0 && info.st_nlink;
}

static void remove_leftovers(const char *path) {
    char *parent = base_path_parent(path), *start = base_format(".%s.", base_path_name(path));
    const size_t length = strlen(start);
    DIR *names = opendir(parent);
    const struct dirent *entry;
    while (names && (entry = readdir(names))) {
        if (strncmp(entry->d_name, start, length) != 0 || strlen(entry->d_name) != length + 6)
            continue;
        char *left = base_path_join(parent, entry->d_name);
        const int fd = open(left, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (fd >= 0 && lock(fd)) nftw(left, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
        if (fd >= 0) close(fd);
        free(left);
    }
    if (names) closedir(names);
    free(parent);
    free(start);
}

enum { TRIES = 8 };

/* A new file, open for writing, or a new folder, open for its lock; *temporary is its name. */
static int make_temporary(const char *path, bool folder, char **temporary) {
    remove_leftovers(path);
    for (int left = TRIES;; left--) {
        *temporary = temporary_name(path);
        int fd = folder ? -1 : mkostemp(*temporary, O_CLOEXEC);
        if (folder ? !mkdtemp(*temporary) : fd < 0) return -1;
        if (folder) fd = open(*temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (keep(fd)) return fd;
        if (fd >= 0) close(fd);
        if (left == 1) break;
        free(*temporary);
    }
    errno = EBUSY;
    return -1;
}

AtomicFile *base_atomic_open(const char *path, Error *err) {
    AtomicFile *file = base_calloc(1, sizeof *file);
    file->path = base_strdup(path);
    file->fd = make_temporary(path, false, &file->temporary);
    if (file->fd < 0) {
        base_fail_errno(err, "%s: cannot write here", path);
        free(file->path);
        free(file->temporary);
        free(file);
        return NULL;
    }
    fchmod(file->fd, default_mode(0666));
    return file;
}

bool base_atomic_write(AtomicFile *file, const void *bytes, size_t length, Error *err) {
    const char *at = bytes;
    while (length) {
        ssize_t put = write(file->fd, at, BASE_MIN(length, (size_t)1 << 30));
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return base_fail_errno(err, "%s: cannot write", file->path);
        at += put;
        length -= (size_t)put;
    }
    return true;
}

bool base_atomic_write_at(AtomicFile *file, uint64_t offset, const void *bytes, size_t length,
                          Error *err) {
    const char *at = bytes;
    while (length) {
        ssize_t put = pwrite(file->fd, at, BASE_MIN(length, (size_t)1 << 30), (off_t)offset);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return base_fail_errno(err, "%s: cannot write", file->path);
        at += put;
        offset += (uint64_t)put;
        length -= (size_t)put;
    }
    return true;
}

void base_atomic_abort(AtomicFile *file) {
    if (!file) return;
    if (file->fd >= 0) close(file->fd);
    unlink(file->temporary);
    free(file->path);
    free(file->temporary);
    free(file);
}

bool base_atomic_commit(AtomicFile *file, Error *err) {
    bool ok = fsync(file->fd) == 0 && rename(file->temporary, file->path) == 0;
    if (ok)
        sync_parent(file->path);
    else
        base_fail_errno(err, "%s: cannot write", file->path);
    base_atomic_abort(file);
    return ok;
}

bool base_file_write(const char *path, const void *bytes, size_t length, Error *err) {
    AtomicFile *file = base_atomic_open(path, err);
    if (!file) return false;
    if (!base_atomic_write(file, bytes, length, err)) {
        base_atomic_abort(file);
        return false;
    }
    return base_atomic_commit(file, err);
}

static char *without_trailing_slash(const char *path) {
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') length--;
    return base_strndup(path, length);
}

AtomicFolder *base_folder_open(const char *path, Error *err) {
    AtomicFolder *folder = base_calloc(1, sizeof *folder);
    folder->path = without_trailing_slash(path);
    struct stat info;
    char *parent = base_path_parent(folder->path);
    bool ok = true;
    if (lstat(folder->path, &info) == 0) {
        ok = base_fail(err, ERROR_INPUT, "%s: exists already", folder->path);
        base_hint(err, "choose another name or remove it first");
    } else {
        ok = base_make_dirs(parent, err);
    }
    free(parent);
    folder->fd = ok ? make_temporary(folder->path, true, &folder->temporary) : -1;
    if (ok && folder->fd < 0)
        ok = base_fail_errno(err, "%s: cannot create this folder", folder->path);
    if (!ok) {
        free(folder->path);
        free(folder->temporary);
        free(folder);
        return NULL;
    }
    chmod(folder->temporary, default_mode(0777));
    return folder;
}

const char *base_folder_path(const AtomicFolder *folder) {
    return folder->temporary;
}

static void free_folder(AtomicFolder *folder) {
    close(folder->fd);
    free(folder->path);
    free(folder->temporary);
    free(folder);
}

void base_folder_abort(AtomicFolder *folder) {
    if (!folder) return;
    nftw(folder->temporary, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free_folder(folder);
}

bool base_folder_commit(AtomicFolder *folder, Error *err) {
    bool ok = rename(folder->temporary, folder->path) == 0;
    if (!ok) {
        base_fail_errno(err, "%s: cannot give the folder its name", folder->path);
        base_folder_abort(folder);
        return false;
    }
    sync_parent(folder->path);
    free_folder(folder);
    return true;
}
