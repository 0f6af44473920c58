/* Changes under files and folders: asleep until something happens there, awake when it
 * has been quiet for a moment (one save is many events). inotify on Linux; elsewhere
 * every two seconds count as a change, which an incremental ingest can afford. */
#ifndef RAG_WATCH_H
#define RAG_WATCH_H

#include "base/base.h"

typedef struct RagWatch RagWatch;

/* paths and own are borrowed until the close. Files of the index of the name `own` (NULL:
 * none) are no change, nor are hidden ones. NULL on failure. */
RagWatch *rag_watch_open(const char *const *paths, size_t count, const char *own, Error *err);
void rag_watch_close(RagWatch *watch); /* NULL ok */

/* Looks for folders that are new. Call before each ingest: what is made in a new folder
 * afterwards is an event, what was there before is found by the ingest. */
bool rag_watch_refresh(RagWatch *watch, Error *err);
/* Sleeps until a change, then until nothing changed for `settle` seconds (but no longer
 * than ten times that). *changed false: interrupted. */
bool rag_watch_wait(RagWatch *watch, double settle, bool *changed, Error *err);

#endif
