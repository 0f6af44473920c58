/* Work that may crash, loop or eat memory, done in a child process with limits.
 * Its standard output and error come back as bytes; what ended it before its
 * time becomes one line. */
#ifndef RAG_CHILD_H
#define RAG_CHILD_H

#include "base/base.h"

typedef struct RagChildLimits {
    double seconds;      /* of processor time, and half as much again by the clock */
    size_t memory_bytes; /* of address space, beyond what the process has already */
    size_t output_bytes;
} RagChildLimits;

/* Runs in the child: writes to standard output and error, returns the exit
 * status. Only what is safe after a fork in a program with threads. */
typedef int (*RagChildWork)(void *context);

typedef struct RagChildResult {
    StrBuf output, complaints; /* complaints: at most 4 KiB */
    int exit_status;
} RagChildResult;

/* `name` is the worker's in messages. False when a limit was hit, the child
 * crashed, or the user stopped the program; free *result either way. */
bool rag_child_run(const char *name, RagChildWork work, void *context, const RagChildLimits *limits,
                   RagChildResult *result, Error *err);
void rag_child_result_free(RagChildResult *result);

/* Between the two no child is made: a library with locks of its own is at work in this
 * thread, and a child made meanwhile would have them closed for ever. Any number of
 * threads at once. */
void rag_child_hold(void);
void rag_child_release(void);

#endif
