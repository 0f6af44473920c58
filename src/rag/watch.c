/* Changes under files and folders; see watch.h. */
#include "rag/watch.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "rag/walk.h"

#ifdef __linux__

#include <fts.h>
#include <sys/inotify.h>
#include <sys/stat.h>

struct RagWatch {
    int fd;
    const char *const *paths;
    size_t count;
    const char *own;
};

static const uint32_t changes = IN_CREATE | IN_DELETE | IN_CLOSE_WRITE | IN_MODIFY | IN_MOVED_FROM |
                                IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF;

RagWatch *rag_watch_open(const char *const *paths, size_t count, const char *own, Error *err) {
    RagWatch *watch = base_calloc(1, sizeof *watch);
    *watch = (RagWatch){
        .fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC), .paths = paths, .count = count, .own = own};
    if (watch->fd >= 0) return watch;
    base_fail_errno(err, "cannot watch for changes");
    rag_watch_close(watch);
    return NULL;
}

void rag_watch_close(RagWatch *watch) {
    if (!watch) return;
    if (watch->fd >= 0) close(watch->fd);
    free(watch);
}

static bool add_folder(RagWatch *watch, const char *path, Error *err) {
    if (inotify_add_watch(watch->fd, path, changes) >= 0) return true;
    /* Gone since it was seen, or not ours to read: the ingest says so. */
    if (errno == ENOENT || errno == ENOTDIR || errno == EACCES) return true;
    int code = errno;
    base_fail_errno(err, "%s: cannot watch for changes", path);
    return code == ENOSPC ? base_hint(err, "raise fs.inotify.max_user_watches (sysctl)") : false;
}

static bool add_folders(RagWatch *watch, const char *root, Error *err) {
    char *roots[] = {(char *)(uintptr_t)root, NULL};
    FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_COMFOLLOW, NULL);
    bool ok = tree || base_fail_errno(err, "%s", root);
    for (FTSENT *entry = NULL; ok && (entry = fts_read(tree)) != NULL;) {
        if (entry->fts_info != FTS_D) continue;
        if (entry->fts_level > 0 && entry->fts_name[0] == '.')
            fts_set(tree, entry, FTS_SKIP);
        else
            ok = add_folder(watch, entry->fts_path, err);
    }
    if (tree) fts_close(tree);
    return ok;
}

bool rag_watch_refresh(RagWatch *watch, Error *err) {
    bool ok = true;
    for (size_t i = 0; ok && i < watch->count; i++) {
        const char *path = watch->paths[i];
        struct stat status;
        if (stat(path, &status) == 0 && !S_ISDIR(status.st_mode)) {
            /* Editors replace a file by another: its folder knows. */
            const char *name = base_path_name(path);
            char *folder =
                name > path ? base_strndup(path, (size_t)(name - path)) : base_strdup(".");
            ok = add_folder(watch, folder, err);
            free(folder);
        } else {
            ok = add_folders(watch, path, err);
        }
    }
    return ok;
}

static bool counts(const RagWatch *watch, const struct inotify_event *event) {
    if (event->mask & IN_Q_OVERFLOW) return true;
    if (event->mask & IN_IGNORED) return false;
    if (!event->len) return true; /* the folder itself */
    return event->name[0] != '.' && !rag_is_index_file(event->name, watch->own);
}

/* Takes what has happened; whether any of it counts. */
static bool drain(const RagWatch *watch) {
    _Alignas(struct inotify_event) char bytes[16384];
    bool any = false;
    for (ssize_t got; (got = read(watch->fd, bytes, sizeof bytes)) > 0;)
        for (char *at = bytes; at < bytes + got;) {
            const struct inotify_event *event = (const struct inotify_event *)(void *)at;
            any |= counts(watch, event);
            at += sizeof *event + event->len;
        }
    return any;
}

bool rag_watch_wait(RagWatch *watch, double settle, bool *changed, Error *err) {
    double first = 0, last = 0;
    *changed = false;
    while (!base_interrupted()) {
        double now = base_now();
        if (first > 0 && (now - last >= settle || now - first >= 10 * settle)) {
            *changed = true;
            return true;
        }
        struct pollfd wait = {.fd = watch->fd, .events = POLLIN};
        int milliseconds = first > 0 ? (int)((last + settle - now) * 1000) + 1 : 1000;
        int ready = poll(&wait, 1, milliseconds);
        if (ready < 0 && errno != EINTR) return base_fail_errno(err, "cannot watch for changes");
        if (ready > 0 && drain(watch)) {
            last = base_now();
            if (!(first > 0)) first = last;
        }
    }
    return true;
}

#else

struct RagWatch {
    char none;
};

RagWatch *rag_watch_open(const char *const *paths, size_t count, const char *own, Error *err) {
    (void)paths, (void)count, (void)own, (void)err;
    return base_calloc(1, sizeof(RagWatch));
}

void rag_watch_close(RagWatch *watch) {
    free(watch);
}

bool rag_watch_refresh(RagWatch *watch, Error *err) {
    (void)watch, (void)err;
    return true;
}

bool rag_watch_wait(RagWatch *watch, double settle, bool *changed, Error *err) {
    (void)watch, (void)settle, (void)err;
    for (int i = 0; i < 20 && !base_interrupted(); i++) poll(NULL, 0, 100);
    *changed = !base_interrupted();
    return true;
}

#endif
