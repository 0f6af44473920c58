/* Checking a model on disk: every file of a snapshot against the hash that names
 * its blob and the list of its commit; of another folder, what is known of it. */
#include "hub/cache.h"
#include "hub/hub.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 1 << 20, DEEPEST = 16 };

/* A file of the folder and what it should be. */
typedef struct Subject {
    char *path;            /* in the folder */
    char *etag;            /* NULL: unknown */
    uint64_t size, wanted; /* wanted: by the commit's list; UINT64_MAX: unknown */
} Subject;

typedef struct Check {
    char *folder, *cache; /* cache: NULL for a plain folder; its real path */
    Subject *subjects;
    size_t count, capacity;
    HubTree tree;
    HubVerifier verifier;
    HubVerified *result;
} Check;

static void report(Check *check, const char *file, const char *problem) {
    check->result->problems++;
    if (check->verifier.problem) check->verifier.problem(check->verifier.context, file, problem);
}

/* ---- what there is -------------------------------------------------------------- */

/* The blob that a snapshot's link names; NULL and a problem when it is none. */
static char *blob_of(Check *check, const char *path, const char *full) {
    char target[PATH_MAX], real[PATH_MAX];
    ssize_t length = readlink(full, target, sizeof target - 1);
    if (!realpath(full, real)) {
        report(check, path, "its blob is missing");
        return NULL;
    }
    size_t cache = strlen(check->cache);
    if (strncmp(real, check->cache, cache) != 0 || real[cache] != '/') {
        report(check, path, "leads out of the cache");
        return NULL;
    }
    if (length < 0) return NULL; /* a file of its own, as on systems without links */
    target[length] = '\0';
    return base_strdup(base_path_name(target));
}

/* Of a folder that huggingface_hub filled: the second line of
 * .cache/huggingface/download/<path>.metadata. */
static char *noted_etag(const Check *check, const char *path) {
    char *file = base_format("%s/.cache/huggingface/download/%s.metadata", check->folder, path);
    char *text = NULL, *etag = NULL;
    size_t length;
    if (base_is_file(file) && base_file_read(file, &text, &length, NULL)) {
        const char *second = strchr(text, '\n');
        if (second) etag = base_strndup(second + 1, strcspn(second + 1, "\r\n"));
    }
    free(text);
    free(file);
    return etag;
}

static void add_subject(Check *check, const char *path, const char *full) {
    struct stat info;
    char *etag = check->cache ? blob_of(check, path, full) : noted_etag(check, path);
    if (stat(full, &info) != 0 || !S_ISREG(info.st_mode)) {
        free(etag);
        return;
    }
    check->subjects =
        base_grow(check->subjects, &check->capacity, check->count + 1, sizeof *check->subjects);
    check->subjects[check->count++] = (Subject){.path = base_strdup(path),
                                                .etag = etag,
                                                .size = (uint64_t)info.st_size,
                                                .wanted = UINT64_MAX};
}

static void list_files(Check *check, const char *under, int depth) {
    char *folder = base_path_join(check->folder, under), **names = NULL;
    size_t count = 0;
    if (!base_list_dir(folder, &names, &count, NULL)) count = 0;
    for (size_t i = 0; i < count; i++) {
        char *path = *under ? base_path_join(under, names[i]) : base_strdup(names[i]);
        char *full = base_path_join(check->folder, path);
        struct stat info;
        bool hidden = names[i][0] == '.' && depth == 0 && !check->cache;
        if (lstat(full, &info) == 0 && S_ISDIR(info.st_mode)) {
            if (!hidden && depth < DEEPEST) list_files(check, path, depth + 1);
        } else {
            add_subject(check, path, full);
        }
        free(full);
        free(path);
        free(names[i]);
    }
    free(names);
    free(folder);
}

/* ---- against what there should be --------------------------------------------------- */

static Subject *subject_of(const Check *check, const char *path) {
    for (size_t i = 0; i < check->count; i++)
        if (strcmp(check->subjects[i].path, path) == 0) return &check->subjects[i];
    return NULL;
}

/* The commit's list says which files and sizes there should be. */
static void compare_list(Check *check) {
    bool safetensors = hub_tree_has_safetensors(&check->tree);
    for (size_t i = 0; i < check->tree.count; i++) {
        const HubFile *file = &check->tree.files[i];
        Subject *subject = subject_of(check, file->path);
        if (subject) {
            subject->wanted = file->size;
            free(subject->etag);
            subject->etag = base_strdup(file->etag);
        } else if (hub_file_wanted(file, NULL, safetensors)) {
            char *full = base_path_join(check->folder, file->path);
            struct stat info;
            if (lstat(full, &info) != 0) report(check, file->path, "is missing");
            free(full);
        }
    }
}

/* Without a list, the model must at least open. */
static void try_to_open(Check *check) {
    if (!subject_of(check, "config.json")) return;
    Error err = {0};
    HubModel *model = hub_model_open(check->folder, &err);
    if (!model) report(check, ".", err.message);
    hub_model_free(model);
}

/* False on Ctrl-C. */
static bool check_hash(Check *check, const Subject *subject, Progress *progress) {
    char *full = base_path_join(check->folder, subject->path), *block = base_alloc(BLOCK);
    HubDigest *digest = subject->etag ? hub_digest_new(subject->etag, subject->size) : NULL;
    int fd = open(full, O_RDONLY | O_CLOEXEC);
    ssize_t got = -1;
    while (fd >= 0 && (got = read(fd, block, BLOCK)) > 0 && !base_interrupted()) {
        if (digest) hub_digest_add(digest, block, (size_t)got);
        check->result->bytes += (uint64_t)got;
        base_progress_update(progress, (double)check->result->bytes);
    }
    if (got < 0) {
        char *text = base_format("cannot be read: %s", strerror(errno));
        report(check, subject->path, text);
        free(text);
    } else if (!base_interrupted() && digest) {
        check->result->hashed++;
        if (!hub_digest_end(digest, subject->etag))
            report(check, subject->path, "its hash is wrong: its bytes are not those of the hub");
        digest = NULL;
    }
    hub_digest_free(digest);
    if (fd >= 0) close(fd);
    free(block);
    free(full);
    return !base_interrupted();
}

static bool check_files(Check *check, Error *err) {
    double total = 0;
    for (size_t i = 0; i < check->count; i++) total += (double)check->subjects[i].size;
    Progress progress = base_progress_start("verifying", "B", total);
    progress.json = check->verifier.json;
    progress.quiet = check->verifier.quiet;
    bool good = true;
    for (size_t i = 0; i < check->count && good; i++) {
        const Subject *subject = &check->subjects[i];
        check->result->files++;
        if (subject->wanted != UINT64_MAX && subject->wanted != subject->size) {
            char *text =
                base_format("has %llu bytes, the hub's list says %llu",
                            (unsigned long long)subject->size, (unsigned long long)subject->wanted);
            report(check, subject->path, text);
            free(text);
        } else {
            good = check_hash(check, subject, &progress);
        }
    }
    base_progress_end(&progress);
    return good || base_fail(err, ERROR_INTERRUPTED, "stopped");
}

/* ---- the face -------------------------------------------------------------------------- */

/* <cache>/models--x/snapshots/<commit> -> <cache>, its real path; NULL for any
 * other folder. Caller frees. */
static char *cache_of(const char *folder, char **repo) {
    char *label = hub_label(folder), real[PATH_MAX];
    bool snapshot = strcmp(label, folder) != 0 && realpath(folder, real) != NULL;
    free(label);
    *repo = NULL;
    for (int up = 0; snapshot && up < 3; up++) {
        char *slash = strrchr(real, '/');
        if (!slash || slash == real) return NULL;
        *slash = '\0';
        if (up == 1) *repo = base_strdup(real);
    }
    return snapshot ? base_strdup(real) : NULL;
}

/* The folder that is meant; NULL and *err when there is none. Caller frees. */
static char *find_folder(const HubSettings *settings, const char *name, const char *revision,
                         Error *err) {
    if (base_is_dir(name)) {
        size_t length = strlen(name);
        while (length > 1 && name[length - 1] == '/') length--;
        return base_strndup(name, length);
    }
    if (!hub_is_id(name)) {
        base_fail(err, ERROR_IO, "%s: no such folder", name);
        return NULL;
    }
    char commit[HUB_COMMIT_LENGTH + 1], *folder = hub_repo_folder(name);
    char *repo = base_path_join(settings->cache, folder), *snapshot = NULL;
    if (hub_cache_commit(repo, revision ? revision : "main", commit))
        snapshot = hub_cache_snapshot(repo, commit);
    if (!snapshot || !base_is_dir(snapshot)) {
        base_fail(err, ERROR_INPUT, "%s: not in the cache %s", name, settings->cache);
        base_hint(err, "Download it: mlx-rag model download %s", name);
        free(snapshot);
        snapshot = NULL;
    }
    free(repo);
    free(folder);
    return snapshot;
}

bool hub_verify(const HubSettings *settings, const char *name, const char *revision,
                HubVerifier verifier, HubVerified *result, Error *err) {
    *result = (HubVerified){0};
    Check check = {.folder = find_folder(settings, name, revision, err),
                   .verifier = verifier,
                   .result = result};
    if (!check.folder) return false;
    char *repo = NULL;
    check.cache = cache_of(check.folder, &repo);
    list_files(&check, "", 0);
    bool listed = repo && hub_tree_load(repo, base_path_name(check.folder), &check.tree);
    if (listed)
        compare_list(&check);
    else
        try_to_open(&check);
    bool good = check_files(&check, err);
    hub_tree_free(&check.tree);
    for (size_t i = 0; i < check.count; i++) {
        free(check.subjects[i].path);
        free(check.subjects[i].etag);
    }
    free(check.subjects);
    free(check.folder);
    free(check.cache);
    free(repo);
    return good;
}
