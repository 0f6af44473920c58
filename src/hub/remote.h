/* hub/remote: models that live on a hub, and the cache that they come into.
 *
 * The cache is Hugging Face's own, so what Python downloaded is found here and
 * the reverse:
 *
 *     <cache>/models--org--name/refs/main            the commit that main is at
 *                               trees/<commit>.json  the files of a commit
 *                               blobs/<etag>         bytes, named by their hash
 *                               snapshots/<commit>/  the model folder: links to blobs
 *     <cache>/.locks/models--org--name/<etag>.lock   held while a blob is written
 *
 * A file comes under the name <etag>.incomplete and gets its own when its size
 * and hash are right; what is there of it after a stop is where the next
 * download goes on. The token goes to the endpoint and to no other origin. */
#ifndef HUB_REMOTE_H
#define HUB_REMOTE_H

#include "base/base.h"

/* ---- where the hub and the cache are -------------------------------------- */

typedef struct HubSettings {
    char *endpoint; /* HF_ENDPOINT, without a slash at its end */
    char *cache;    /* HF_HUB_CACHE, HF_HOME/hub, or ~/.cache/huggingface/hub */
    char *token;    /* HF_TOKEN or the token file; NULL: none */
    bool offline;   /* HF_HUB_OFFLINE */
    double timeout; /* seconds without a byte that end a try: HF_HUB_DOWNLOAD_TIMEOUT, 10 */
    double pause;   /* seconds before the second try; each next pause is twice as long */
} HubSettings;

/* Reads the environment as huggingface_hub does. Ends with hub_settings_free. */
bool hub_settings_read(HubSettings *settings, Error *err);
void hub_settings_free(HubSettings *settings);

/* "name" or "org/name", of letters, digits, '-', '_' and '.', as the hub allows. */
bool hub_is_id(const char *name);
/* "org/name" of a snapshot's folder in a cache, else the folder itself. Caller
 * frees. */
char *hub_label(const char *folder);

/* ---- downloading ------------------------------------------------------------ */

typedef struct HubDownload {
    const char *revision;      /* branch, tag or commit; NULL: main */
    const char *const *allow;  /* shell patterns of the paths to take, '*' crosses '/'; */
    size_t allow_count;        /* none: what a model needs, .bin only without safetensors */
    const char *const *ignore; /* patterns of paths to leave out */
    size_t ignore_count;
    int at_once;      /* files at a time; 0: 8 */
    bool force;       /* also what the cache has already */
    bool json, quiet; /* how progress is shown */
} HubDownload;

typedef struct HubDownloaded {
    char *folder; /* the snapshot; caller frees */
    char commit[65];
    size_t files, fetched; /* of the snapshot that were asked for; of these, fetched now */
    uint64_t bytes, fetched_bytes;
    bool stale; /* the hub could not be reached: this is what the cache had */
} HubDownloaded;

/* Brings a model's files into the cache. Network failures, 408, 429 and 5xx are
 * tried again, each file from where it stopped, until five tries in a row bring
 * nothing. Fails, saying what the hub said, on 401, 403 and 404; when a file's
 * size or hash is wrong twice; when the disk is full; and on Ctrl-C
 * (ERROR_INTERRUPTED). What was complete before a failure stays. */
bool hub_download(const HubSettings *settings, const char *id, const HubDownload *how,
                  HubDownloaded *result, Error *err);

/* The folder of a model argument: what exists as a path, and what cannot be an
 * id, is returned as it is; an id gives its snapshot in the cache, downloaded
 * first when it is not there or not whole. NULL on failure; caller frees. */
char *hub_find(const char *name, Error *err);

/* ---- the cache ---------------------------------------------------------------- */

typedef struct HubRepo {
    char *id, *path;
    char type[16];  /* "model", "dataset", "space", "kernel" */
    uint64_t bytes; /* of its files, each blob once */
    size_t files, revisions;
    double accessed, modified; /* seconds since 1970 */
} HubRepo;

/* The repositories of a cache, sorted by path. A damaged one is passed over with
 * a warning. A cache that does not exist is empty. */
bool hub_cache_scan(const char *cache, HubRepo **repos, size_t *count, Error *err);
void hub_cache_free(HubRepo *repos, size_t count);
/* Removes a repository with all its revisions and locks. Links are removed, not
 * followed. */
bool hub_cache_remove(const char *cache, const HubRepo *repo, Error *err);

/* ---- checking ------------------------------------------------------------------ */

/* What is wrong with one file: `problem` is one line. Both borrowed. */
typedef struct HubVerifier {
    void (*problem)(void *context, const char *file, const char *problem);
    void *context;
    bool json, quiet; /* how progress is shown */
} HubVerifier;

typedef struct HubVerified {
    size_t files, hashed, problems;
    uint64_t bytes;
} HubVerified;

/* Reads every file of a model: an id in the cache (revision may be NULL: main),
 * or any folder. Files whose hash is known (from the cache's layout, or from what
 * huggingface_hub leaves in .cache/huggingface of a folder) are hashed; the
 * others are counted. A missing file, a wrong size or hash and a link that leaves
 * the cache are problems. False only when nothing could be checked. */
bool hub_verify(const HubSettings *settings, const char *name, const char *revision,
                HubVerifier verifier, HubVerified *result, Error *err);

#endif
