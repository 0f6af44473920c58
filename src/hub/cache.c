/* The cache on disk: references, snapshots, links, locks; what is in it, and
 * removing a repository from it. */
#include "hub/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- references -------------------------------------------------------------- */

bool hub_is_commit(const char *text) {
    return strlen(text) == HUB_COMMIT_LENGTH &&
           strspn(text, "0123456789abcdef") == HUB_COMMIT_LENGTH;
}

/* Branch names may hold slashes, "refs/pr/1", but must stay under refs/. */
static char *ref_path(const char *repo, const char *revision) {
    if (!*revision || revision[0] == '/' || strstr(revision, "..") || strlen(revision) > 255)
        return NULL;
    return base_format("%s/refs/%s", repo, revision);
}

bool hub_cache_commit(const char *repo, const char *revision, char commit[HUB_COMMIT_LENGTH + 1]) {
    if (hub_is_commit(revision)) {
        memcpy(commit, revision, HUB_COMMIT_LENGTH + 1);
        return true;
    }
    char *path = ref_path(repo, revision), *text = NULL;
    size_t length = 0;
    bool good = path && base_is_file(path) && base_file_read(path, &text, &length, NULL);
    if (good) {
        text[strcspn(text, " \r\n")] = '\0';
        good = hub_is_commit(text);
    }
    if (good) memcpy(commit, text, HUB_COMMIT_LENGTH + 1);
    free(text);
    free(path);
    return good;
}

bool hub_cache_set_ref(const char *repo, const char *revision, const char *commit, Error *err) {
    char known[HUB_COMMIT_LENGTH + 1];
    if (hub_cache_commit(repo, revision, known) && strcmp(known, commit) == 0) return true;
    char *path = ref_path(repo, revision);
    if (!path) return base_fail(err, ERROR_INPUT, "\"%s\" is not a revision's name", revision);
    char *folder = base_strndup(path, (size_t)(base_path_name(path) - path));
    bool good = base_make_dirs(folder, err) && base_file_write(path, commit, strlen(commit), err);
    free(folder);
    free(path);
    return good;
}

/* ---- folders and links --------------------------------------------------------- */

char *hub_cache_snapshot(const char *repo, const char *commit) {
    return base_format("%s/snapshots/%s", repo, commit);
}

bool hub_cache_prepare(const char *cache, const char *repo, Error *err) {
    static const char tag[] = "Signature: 8a477f597d28d172789f06886806bc55\n"
                              "# This folder can be filled again: backups may leave it out.\n";
    char *blobs = base_path_join(repo, "blobs"), *path = base_path_join(cache, "CACHEDIR.TAG");
    bool good = base_make_dirs(blobs, err);
    if (good && !base_is_file(path)) base_file_write(path, tag, strlen(tag), NULL);
    free(path);
    free(blobs);
    return good;
}

bool hub_cache_link(const char *repo, const char *commit, const HubFile *file, Error *err) {
    char *path = base_format("%s/snapshots/%s/%s", repo, commit, file->path);
    StrBuf target = {0};
    base_str_append(&target, "../../");
    for (const char *at = file->path; *at; at++)
        if (*at == '/') base_str_append(&target, "../");
    base_str_appendf(&target, "blobs/%s", file->etag);
    char *folder = base_strndup(path, (size_t)(base_path_name(path) - path));
    char held[512];
    ssize_t length = readlink(path, held, sizeof held - 1);
    bool good = length == (ssize_t)target.length && memcmp(held, target.data, target.length) == 0;
    if (!good) {
        good = base_make_dirs(folder, err);
        if (good && unlink(path) != 0 && errno != ENOENT)
            good = base_fail_errno(err, "%s: cannot be replaced", path);
        if (good && symlink(target.data, path) != 0)
            good = base_fail_errno(err, "%s: cannot link it to its blob", path);
    }
    base_str_free(&target);
    free(folder);
    free(path);
    return good;
}

int hub_cache_lock(const char *cache, const char *repo, const char *etag, Error *err) {
    char *folder = base_format("%s/.locks/%s", cache, base_path_name(repo));
    char *path = base_format("%s/%s.lock", folder, etag);
    int lock = HUB_LOCK_FAILED;
    bool good = base_make_dirs(folder, err);
    while (good && lock == HUB_LOCK_FAILED) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0664);
        struct stat info;
        if (fd < 0) {
            good = base_fail_errno(err, "%s: cannot open this lock", path);
        } else if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            if (errno == EWOULDBLOCK) {
                close(fd);
                lock = HUB_LOCK_BUSY;
            } else {
                lock = fd; /* a file system without locks: go on without */
            }
        } else if (fstat(fd, &info) == 0 && info.st_nlink == 0) {
            close(fd); /* its holder removed it meanwhile */
        } else {
            lock = fd;
        }
    }
    free(path);
    free(folder);
    return lock;
}

/* ---- is it whole ------------------------------------------------------------------ */

static bool has_file(const char *folder, const char *name) {
    char *path = base_path_join(folder, name);
    bool there = base_is_file(path);
    free(path);
    return there;
}

/* All files that the weight_map of an index names. */
static bool has_shards(const char *folder, const char *name) {
    char *path = base_path_join(folder, name);
    json_t *index = base_json_load(path, NULL);
    const json_t *map = json_object_get(index, "weight_map");
    bool whole = json_is_object(map);
    const char *tensor;
    json_t *file;
    json_object_foreach((json_t *)(uintptr_t)map, tensor, file) whole =
        whole && json_is_string(file) && has_file(folder, json_string_value(file));
    json_decref(index);
    free(path);
    return whole;
}

static bool has_weights(const char *folder) {
    static const char *const indexes[] = {"model.safetensors.index.json",
                                          "pytorch_model.bin.index.json"};
    static const char *const singles[] = {"model.safetensors", "pytorch_model.bin"};
    for (size_t i = 0; i < BASE_COUNT(indexes); i++)
        if (has_file(folder, indexes[i])) return has_shards(folder, indexes[i]);
    for (size_t i = 0; i < BASE_COUNT(singles); i++)
        if (has_file(folder, singles[i])) return true;
    return false;
}

bool hub_cache_whole(const char *repo, const char *commit, const HubDownload *how) {
    char *snapshot = hub_cache_snapshot(repo, commit);
    HubTree tree;
    bool whole = base_is_dir(snapshot);
    if (whole && hub_tree_load(repo, commit, &tree)) {
        bool safetensors = hub_tree_has_safetensors(&tree);
        for (size_t i = 0; i < tree.count && whole; i++)
            if (hub_file_wanted(&tree.files[i], how, safetensors))
                whole = has_file(snapshot, tree.files[i].path);
        hub_tree_free(&tree);
    } else if (whole) {
        whole = how && how->allow_count
                    ? false
                    : has_file(snapshot, "config.json") && has_weights(snapshot);
    }
    free(snapshot);
    return whole;
}

/* ---- what is in it ------------------------------------------------------------------- */

typedef struct Inode {
    dev_t device;
    ino_t number;
} Inode;

/* One walk at a time of one thread: nftw takes no context. */
static _Thread_local struct {
    HubRepo *repo;
    Inode *seen;
    size_t count, capacity;
    const char *broken; /* a link that leads nowhere; freed by the scan */
} walk;

static double seconds_of(struct timespec time) {
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int count_file(const char *path, const struct stat *own, int kind, struct FTW *where) {
    (void)own;
    (void)where;
    if (kind != FTW_F && kind != FTW_SL && kind != FTW_SLN) return 0;
    struct stat info;
    if (stat(path, &info) != 0) {
        if (!walk.broken) walk.broken = base_strdup(path);
        return 0;
    }
    if (!S_ISREG(info.st_mode)) return 0;
    for (size_t i = 0; i < walk.count; i++)
        if (walk.seen[i].device == info.st_dev && walk.seen[i].number == info.st_ino) return 0;
    walk.seen = base_grow(walk.seen, &walk.capacity, walk.count + 1, sizeof *walk.seen);
    walk.seen[walk.count++] = (Inode){info.st_dev, info.st_ino};
    walk.repo->files++;
    walk.repo->bytes += (uint64_t)info.st_size;
    walk.repo->accessed = BASE_MAX(walk.repo->accessed, seconds_of(info.st_atim));
    walk.repo->modified = BASE_MAX(walk.repo->modified, seconds_of(info.st_mtim));
    return 0;
}

static bool scan_repo(HubRepo *repo) {
    char *snapshots = base_path_join(repo->path, "snapshots");
    char **names = NULL;
    size_t count = 0;
    bool good = base_is_dir(snapshots) && base_list_dir(snapshots, &names, &count, NULL);
    if (!good) base_log(LOG_WARNING, "%s: no snapshots in it; passed over", repo->path);
    for (size_t i = 0; i < count; i++) free(names[i]);
    free(names);
    repo->revisions = count;
    memset(&walk, 0, sizeof walk);
    walk.repo = repo;
    if (good) nftw(snapshots, count_file, 16, FTW_PHYS);
    if (walk.broken)
        base_log(LOG_WARNING, "%s: leads nowhere; mlx-rag model verify %s says more", walk.broken,
                 repo->id);
    struct stat info;
    if (good && repo->files == 0 && stat(repo->path, &info) == 0) {
        repo->accessed = seconds_of(info.st_atim);
        repo->modified = seconds_of(info.st_mtim);
    }
    free((char *)(uintptr_t)walk.broken);
    free(walk.seen);
    free(snapshots);
    return good;
}

bool hub_cache_scan(const char *cache, HubRepo **repos, size_t *count, Error *err) {
    *repos = NULL;
    *count = 0;
    if (!base_is_dir(cache)) {
        if (!base_is_file(cache)) return true;
        return base_fail(err, ERROR_INPUT, "%s: is a file, a cache is a folder", cache);
    }
    char **names = NULL;
    size_t listed = 0, capacity = 0;
    if (!base_list_dir(cache, &names, &listed, err)) return false;
    for (size_t i = 0; i < listed; i++) {
        const char *type = NULL;
        HubRepo repo = {.id = hub_repo_id(names[i], &type)};
        if (repo.id) {
            snprintf(repo.type, sizeof repo.type, "%s", type);
            repo.path = base_path_join(cache, names[i]);
            *repos = base_grow(*repos, &capacity, *count + 1, sizeof **repos);
            if (scan_repo(&repo)) {
                (*repos)[(*count)++] = repo;
            } else {
                free(repo.id);
                free(repo.path);
            }
        }
        free(names[i]);
    }
    free(names);
    return true;
}

void hub_cache_free(HubRepo *repos, size_t count) {
    for (size_t i = 0; i < count; i++) {
        free(repos[i].id);
        free(repos[i].path);
    }
    free(repos);
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *where) {
    (void)info;
    (void)kind;
    (void)where;
    return remove(path);
}

void hub_cache_remove_tree(const char *path) {
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

bool hub_cache_remove(const char *cache, const HubRepo *repo, Error *err) {
    char *locks = base_format("%s/.locks/%s", cache, base_path_name(repo->path));
    struct stat info;
    hub_cache_remove_tree(repo->path);
    bool gone = lstat(repo->path, &info) != 0;
    if (gone)
        hub_cache_remove_tree(locks);
    else
        base_fail(err, ERROR_IO, "%s: could not be removed whole", repo->path);
    free(locks);
    return gone;
}
