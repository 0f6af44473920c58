/* What the files of hub's remote side share: names in the cache, the list of a
 * repository's files, hashes. */
#ifndef HUB_CACHE_H
#define HUB_CACHE_H

#include "hub/http.h"
#include "hub/remote.h"

enum { HUB_COMMIT_LENGTH = 40 };

/* ---- names (settings.c) --------------------------------------------------- */

/* "models--org--name"; caller frees. */
char *hub_repo_folder(const char *id);
/* The reverse, NULL when it is no such name; *type (may be NULL) is static. */
char *hub_repo_id(const char *folder, const char **type);

/* ---- hashes (digest.c) ---------------------------------------------------- */

/* 64 hex digits name a SHA-256, 40 a git blob: SHA-1 of "blob <size>\0" and the
 * bytes. NULL when the name is neither. */
typedef struct HubDigest HubDigest;
HubDigest *hub_digest_new(const char *etag, uint64_t size);
void hub_digest_add(HubDigest *digest, const void *bytes, size_t length);
/* Whether the bytes had the hash that `etag` names; frees the digest. */
bool hub_digest_end(HubDigest *digest, const char *etag);
void hub_digest_free(HubDigest *digest); /* NULL ok */

/* ---- a repository's files at a commit (tree.c) ------------------------------- */

typedef struct HubFile {
    char *path;    /* in the repository, with slashes; checked: never leaves it */
    char *blob_id; /* git's SHA-1 */
    char *etag;    /* the blob's name in the cache: SHA-256 of large files, else blob_id */
    char *xet;     /* kept for other programs; NULL: none */
    uint64_t size;
} HubFile;

typedef struct HubTree {
    char commit[HUB_COMMIT_LENGTH + 1];
    HubFile *files;
    size_t count, capacity;
} HubTree;

void hub_tree_free(HubTree *tree);
/* From trees/<commit>.json of a repository's folder; false when it is not there
 * or not usable. */
bool hub_tree_load(const char *repo, const char *commit, HubTree *tree);
bool hub_tree_save(const char *repo, const HubTree *tree, Error *err);
/* Asks the hub which commit a revision is at, and for its files. `tries` bounds
 * how often a failing connection is tried. */
bool hub_tree_fetch(HttpClient *client, const HubSettings *settings, const char *id,
                    const char *revision, const char *repo, int tries, HubTree *tree, Error *err);

/* The patterns of HubDownload; `safetensors` says that the repository has them. */
bool hub_file_wanted(const HubFile *file, const HubDownload *how, bool safetensors);
bool hub_tree_has_safetensors(const HubTree *tree);

/* ---- places (cache.c) ----------------------------------------------------------- */

/* The commit of a revision as the cache knows it (a commit is itself). */
bool hub_cache_commit(const char *repo, const char *revision, char commit[HUB_COMMIT_LENGTH + 1]);
bool hub_is_commit(const char *text);
bool hub_cache_set_ref(const char *repo, const char *revision, const char *commit, Error *err);
char *hub_cache_snapshot(const char *repo, const char *commit);
/* snapshots/<commit>/<path> becomes a link to blobs/<etag>. */
bool hub_cache_link(const char *repo, const char *commit, const HubFile *file, Error *err);
/* Makes the repository's folders and the cache's tag. */
bool hub_cache_prepare(const char *cache, const char *repo, Error *err);
/* A held lock, HUB_LOCK_BUSY when another process has it, HUB_LOCK_FAILED. Close
 * to release. */
enum { HUB_LOCK_BUSY = -1, HUB_LOCK_FAILED = -2 };
int hub_cache_lock(const char *cache, const char *repo, const char *etag, Error *err);
/* Whether a snapshot holds all that a model needs: everything of the commit's
 * list, or where that is unknown, a config and the weights that its index names. */
bool hub_cache_whole(const char *repo, const char *commit, const HubDownload *how);
void hub_cache_remove_tree(const char *path); /* links are not followed */

#endif
