/* The files behind the paths that a person gave: folders recursively and
 * sorted, hidden files and links out of the folder left out. */
#ifndef RAG_WALK_H
#define RAG_WALK_H

#include "base/base.h"

typedef struct RagFound {
    char *path, *root; /* absolute, without links */
    bool walking;      /* found in a folder, not named itself */
    const char *skip;  /* why it is left out, or NULL (static) */
    int64_t size, mtime_ns;
} RagFound;

typedef struct RagFiles {
    RagFound *items;
    size_t count, capacity;
    char **roots; /* the given paths, absolute */
    size_t n_roots;
} RagFiles;

/* path is the index or a file that SQLite keeps beside it. index NULL: false. */
bool rag_is_index_file(const char *path, const char *index);

/* Fails for a given path that does not exist. Each file once, sorted by path. The files
 * of the index `own` (NULL: none) that lie in a folder are no documents. */
bool rag_walk(const char *const *paths, size_t count, const char *own, RagFiles *files, Error *err);
void rag_files_free(RagFiles *files);

#endif
