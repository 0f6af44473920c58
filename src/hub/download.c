/* Downloading a model into the cache: which files are missing, space for them,
 * each written beside its final name, hashed as it comes, and linked into the
 * snapshot when it is right. */
#include "hub/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { FILES_AT_ONCE = 8, WRONG_LIMIT = 2 };

typedef struct Download {
    const HubSettings *settings;
    const HubDownload *how;
    char *repo; /* its folder in the cache */
    HubTree tree;
    Progress progress;
    uint64_t present; /* bytes of all parts, for progress */
    size_t fetched;   /* files */
    uint64_t received;
} Download;

/* One blob on its way. */
typedef struct Part {
    Download *download;
    const HubFile *file;
    char *blob, *incomplete, *url;
    int fd, lock, wrong; /* wrong: times that what came was not the file */
    HubDigest *digest;
    uint64_t counted; /* of this part in progress */
} Part;

/* ---- one blob -------------------------------------------------------------------- */

static void count_bytes(Part *part, uint64_t there) {
    part->download->present += there - part->counted; /* modulo 2^64: may shrink */
    part->counted = there;
}

static void part_leave(HttpJob *job) {
    Part *part = job->context;
    if (part->fd >= 0) close(part->fd);
    if (part->lock >= 0) close(part->lock);
    part->fd = part->lock = -1;
    hub_digest_free(part->digest);
    part->digest = NULL;
}

static HttpTurn cannot_write(Part *part, Error *err) {
    const char *name = part->file->path;
    if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) {
        base_fail_errno(err, "%s: cannot write into %s", name, part->download->settings->cache);
        base_hint(err, "Make room and run it again: it goes on where it stopped.");
    } else {
        base_fail_errno(err, "%s: cannot write %s", name, part->incomplete);
    }
    return HTTP_FAIL;
}

/* Empties the file and begins the hash anew. */
static bool part_restart(Part *part) {
    if (ftruncate(part->fd, 0) != 0 || lseek(part->fd, 0, SEEK_SET) != 0) return false;
    hub_digest_free(part->digest);
    part->digest = hub_digest_new(part->file->etag, part->file->size);
    count_bytes(part, 0);
    return true;
}

/* Hashes what an earlier download left, and stands at its end. */
static bool part_resume(Part *part, uint64_t *offset) {
    enum { BLOCK = 1 << 20 };
    char *block = base_alloc(BLOCK);
    ssize_t got;
    *offset = 0;
    while ((got = read(part->fd, block, BLOCK)) > 0 && !base_interrupted()) {
        hub_digest_add(part->digest, block, (size_t)got);
        *offset += (uint64_t)got;
    }
    free(block);
    if (got < 0) return false;
    count_bytes(part, *offset);
    return true;
}

static HttpTurn part_finish(Part *part, Error *err);

static HttpTurn part_turn(HttpJob *job, Error *err) {
    Part *part = job->context;
    Download *download = part->download;
    part->lock = hub_cache_lock(download->settings->cache, download->repo, part->file->etag, err);
    if (part->lock == HUB_LOCK_FAILED) return HTTP_FAIL;
    if (part->lock == HUB_LOCK_BUSY) return HTTP_WAIT;
    if (!download->how->force && base_is_file(part->blob)) { /* by another process meanwhile */
        count_bytes(part, part->file->size);
        return HTTP_SKIP;
    }
    part->fd = open(part->incomplete, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (part->fd < 0) return cannot_write(part, err);
    part->digest = hub_digest_new(part->file->etag, part->file->size);
    if (!part->digest) {
        base_fail(err, ERROR_INTERNAL, "%s: no hash to check it against", part->file->path);
        return HTTP_FAIL;
    }
    struct stat info;
    uint64_t offset = 0;
    bool over = fstat(part->fd, &info) != 0 || (uint64_t)info.st_size > part->file->size;
    if (over && !part_restart(part)) return cannot_write(part, err);
    if (!over && !part_resume(part, &offset)) return cannot_write(part, err);
    job->offset = offset;
    if (offset < part->file->size) return HTTP_GO;
    HttpTurn turn = part_finish(part, err);
    if (turn != HTTP_AGAIN) return turn == HTTP_GO ? HTTP_SKIP : turn;
    job->offset = 0; /* all was there and wrong: it begins anew */
    base_error_clear(err);
    return HTTP_GO;
}

static HttpTurn wrong(Part *part, Error *err, const char *what) {
    base_fail(err, ERROR_IO, "%s: %s", part->file->path, what);
    if (!part_restart(part)) return cannot_write(part, err);
    if (++part->wrong < WRONG_LIMIT) return HTTP_AGAIN;
    base_hint(err, "The hub or something on the way alters it; try again later.");
    unlink(part->incomplete);
    return HTTP_FAIL;
}

static HttpTurn part_begin(HttpJob *job, const HttpReply *reply, Error *err) {
    Part *part = job->context;
    if (!reply->partial && !part_restart(part)) return cannot_write(part, err);
    int64_t total = reply->partial ? reply->total : reply->length;
    if (total >= 0 && (uint64_t)total != part->file->size) {
        char text[120];
        snprintf(text, sizeof text, "the hub sends %lld bytes, its list says %llu",
                 (long long)total, (unsigned long long)part->file->size);
        return wrong(part, err, text);
    }
    return HTTP_GO;
}

static HttpTurn part_bytes(HttpJob *job, const uint8_t *bytes, size_t length, Error *err) {
    Part *part = job->context;
    if (length > part->file->size - job->offset) return wrong(part, err, "the hub sends too much");
    hub_digest_add(part->digest, bytes, length);
    for (size_t done = 0; done < length;) {
        ssize_t put = write(part->fd, bytes + done, length - done);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return cannot_write(part, err);
        done += (size_t)put;
    }
    count_bytes(part, job->offset + length);
    part->download->received += length;
    return HTTP_GO;
}

/* All bytes are there: right, it gets its name. */
static HttpTurn part_finish(Part *part, Error *err) {
    HubDigest *digest = part->digest;
    part->digest = NULL;
    if (!hub_digest_end(digest, part->file->etag))
        return wrong(part, err, "what came is not the file: its hash is another");
    if (fsync(part->fd) != 0 || rename(part->incomplete, part->blob) != 0)
        return cannot_write(part, err);
    part->download->fetched++;
    return HTTP_GO;
}

static HttpTurn part_end(HttpJob *job, Error *err) {
    Part *part = job->context;
    if (job->offset == part->file->size) return part_finish(part, err);
    base_fail(err, ERROR_IO, "%s: ended after %llu of %llu bytes", part->file->path,
              (unsigned long long)job->offset, (unsigned long long)part->file->size);
    return HTTP_AGAIN;
}

/* ---- the whole --------------------------------------------------------------------- */

static uint64_t size_of(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 ? (uint64_t)info.st_size : 0;
}

static bool enough_room(const Download *download, uint64_t needed, Error *err) {
    struct statvfs disk;
    if (statvfs(download->repo, &disk) != 0) return true;
    uint64_t room = (uint64_t)disk.f_bavail * disk.f_frsize;
    if (needed <= room) return true;
    base_fail(err, ERROR_IO, "%s: %.1f GB to come, room for %.1f GB", download->settings->cache,
              (double)needed / 1e9, (double)room / 1e9);
    return base_hint(err, "Remove models (mlx-rag model remove) or set HF_HOME to a larger disk.");
}

static bool same_blob_before(const Download *download, const bool *wanted, size_t index) {
    for (size_t i = 0; i < index; i++)
        if (wanted[i] &&
            strcmp(download->tree.files[i].etag, download->tree.files[index].etag) == 0)
            return true;
    return false;
}

static void tick(void *context) {
    Download *download = context;
    base_progress_update(&download->progress, (double)download->present);
}

static Part make_part(Download *download, const HubFile *file, const char *id) {
    char *quoted = http_quote(file->path, true);
    Part part = {.download = download,
                 .file = file,
                 .blob = base_format("%s/blobs/%s", download->repo, file->etag),
                 .url = base_format("%s/%s/resolve/%s/%s", download->settings->endpoint, id,
                                    download->tree.commit, quoted),
                 .fd = -1,
                 .lock = -1};
    part.incomplete = base_format("%s.incomplete", part.blob);
    free(quoted);
    return part;
}

/* Fetches the blobs that are not there. */
static bool fetch_blobs(Download *download, HttpClient *client, const char *id, const bool *wanted,
                        Error *err) {
    const HubTree *tree = &download->tree;
    Part *parts = base_calloc(tree->count + 1, sizeof *parts);
    HttpJob *jobs = base_calloc(tree->count + 1, sizeof *jobs);
    size_t count = 0;
    uint64_t total = 0, there = 0;
    for (size_t i = 0; i < tree->count; i++) {
        if (!wanted[i] || same_blob_before(download, wanted, i)) continue;
        Part part = make_part(download, &tree->files[i], id);
        total += part.file->size;
        if (base_is_file(part.blob) && !download->how->force) {
            free(part.blob);
            free(part.incomplete);
            free(part.url);
            download->present += tree->files[i].size;
            continue;
        }
        there += BASE_MIN(size_of(part.incomplete), part.file->size);
        parts[count++] = part;
    }
    uint64_t needed = total - download->present - there;
    bool good = enough_room(download, needed, err);
    download->progress = base_progress_start(id, "B", (double)total);
    download->progress.json = download->how->json;
    download->progress.quiet = download->how->quiet;
    download->progress.skipped = (double)(download->present + there);
    for (size_t i = 0; i < count; i++)
        jobs[i] = (HttpJob){.url = parts[i].url,
                            .name = parts[i].file->path,
                            .context = &parts[i],
                            .turn = part_turn,
                            .begin = part_begin,
                            .bytes = part_bytes,
                            .end = part_end,
                            .leave = part_leave};
    int at_once = download->how->at_once > 0 ? download->how->at_once : FILES_AT_ONCE;
    HttpProgress progress = {.tick = tick, .context = download};
    good = good && http_run(client, jobs, count, at_once, progress, err);
    tick(download);
    base_progress_end(&download->progress);
    for (size_t i = 0; i < count; i++) {
        free(parts[i].blob);
        free(parts[i].incomplete);
        free(parts[i].url);
        free(jobs[i].next_page);
    }
    free(parts);
    free(jobs);
    return good;
}

static bool fetch_files(Download *download, HttpClient *client, const char *id,
                        const char *revision, HubDownloaded *result, Error *err) {
    const HubTree *tree = &download->tree;
    bool *wanted = base_calloc(tree->count + 1, sizeof *wanted);
    bool safetensors = hub_tree_has_safetensors(tree);
    for (size_t i = 0; i < tree->count; i++) {
        wanted[i] = hub_file_wanted(&tree->files[i], download->how, safetensors);
        if (!wanted[i]) continue;
        result->files++;
        result->bytes += tree->files[i].size;
    }
    bool good =
        result->files > 0 ||
        base_fail(err, ERROR_INPUT, "%s: none of its %zu files is asked for", id, tree->count);
    good = good && hub_cache_prepare(download->settings->cache, download->repo, err) &&
           hub_tree_save(download->repo, tree, err) &&
           hub_cache_set_ref(download->repo, revision, tree->commit, err) &&
           fetch_blobs(download, client, id, wanted, err);
    for (size_t i = 0; good && i < tree->count; i++)
        if (wanted[i]) good = hub_cache_link(download->repo, tree->commit, &tree->files[i], err);
    free(wanted);
    return good;
}

/* What the cache has, when the hub cannot be asked. */
static bool from_cache(const Download *download, const char *revision, HubDownloaded *result) {
    char commit[HUB_COMMIT_LENGTH + 1];
    if (!hub_cache_commit(download->repo, revision, commit) ||
        !hub_cache_whole(download->repo, commit, download->how))
        return false;
    memcpy(result->commit, commit, sizeof commit);
    result->stale = true;
    return true;
}

static bool offline(const Download *download, const char *id, const char *revision,
                    HubDownloaded *result, Error *err) {
    if (from_cache(download, revision, result)) return true;
    base_fail(err, ERROR_INPUT, "%s: not (or not whole) in the cache %s, and HF_HUB_OFFLINE is set",
              id, download->settings->cache);
    return base_hint(err, "Unset HF_HUB_OFFLINE to download it.");
}

static bool download_all(Download *download, const char *id, const char *revision,
                         HubDownloaded *result, Error *err) {
    if (download->settings->offline) return offline(download, id, revision, result, err);
    HttpClient *client = http_client_new(download->settings, err);
    if (!client) return false;
    Error failure = {0};
    HubDownloaded cached = {0};
    bool fallback = from_cache(download, revision, &cached) && !download->how->force;
    bool good = hub_tree_fetch(client, download->settings, id, revision, download->repo,
                               fallback ? 1 : 0, &download->tree, &failure);
    if (!good && fallback && failure.code == ERROR_IO) {
        base_log(LOG_WARNING, "%s; using what the cache has", failure.message);
        memcpy(result->commit, cached.commit, sizeof cached.commit);
        good = result->stale = true;
    } else if (good) {
        memcpy(result->commit, download->tree.commit, sizeof download->tree.commit);
        good = fetch_files(download, client, id, revision, result, &failure);
    }
    http_client_free(client);
    if (!good && err && err->code == ERROR_NONE) *err = failure;
    return good;
}

bool hub_download(const HubSettings *settings, const char *id, const HubDownload *how,
                  HubDownloaded *result, Error *err) {
    const char *revision = how->revision ? how->revision : "main";
    *result = (HubDownloaded){0};
    if (!hub_is_id(id)) {
        base_fail(err, ERROR_INPUT, "\"%s\" is not a model's name on the hub", id);
        return base_hint(err, "Such a name is \"organisation/name\".");
    }
    char *name = hub_repo_folder(id);
    Download download = {
        .settings = settings, .how = how, .repo = base_path_join(settings->cache, name)};
    bool good = download_all(&download, id, revision, result, err);
    if (good) result->folder = hub_cache_snapshot(download.repo, result->commit);
    result->fetched = download.fetched;
    result->fetched_bytes = download.received;
    hub_tree_free(&download.tree);
    free(download.repo);
    free(name);
    return good;
}

char *hub_find(const char *name, Error *err) {
    HubSettings settings;
    const bool names_file = access(name, F_OK) == 0 || base_ends_with(name, ".gguf");
    if (names_file || !hub_is_id(name)) return base_strdup(name);
    if (!hub_settings_read(&settings, err)) return NULL;
    char commit[HUB_COMMIT_LENGTH + 1], *folder = hub_repo_folder(name);
    char *repo = base_path_join(settings.cache, folder), *snapshot = NULL;
    HubDownloaded result = {0};
    if (hub_cache_commit(repo, "main", commit) && hub_cache_whole(repo, commit, NULL)) {
        snapshot = hub_cache_snapshot(repo, commit);
    } else if (hub_download(&settings, name, &(HubDownload){0}, &result, err)) {
        snapshot = result.folder;
    } else {
        char text[700];
        if (err && err->code != ERROR_INTERRUPTED) {
            snprintf(text, sizeof text, "%.600s", err->message);
            snprintf(err->message, sizeof err->message,
                     "%s: no such folder, and no model of the hub: %s", name,
                     base_starts_with(text, name) ? text + strlen(name) + 2 : text);
        }
    }
    free(repo);
    free(folder);
    hub_settings_free(&settings);
    return snapshot;
}
