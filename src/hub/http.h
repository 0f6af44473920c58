/* hub/http: several HTTP GETs at a time, each tried again from where it stopped.
 *
 * A job says where it begins and what to do with the bytes; the client does the
 * rest: redirects (the token stays with the endpoint's origin, https stays
 * https), ranges, pauses as the server asks for, stalls, Ctrl-C. */
#ifndef HUB_HTTP_H
#define HUB_HTTP_H

#include "hub/remote.h"

typedef struct HttpClient HttpClient;
HttpClient *http_client_new(const HubSettings *settings, Error *err); /* borrows settings */
void http_client_free(HttpClient *client);                            /* NULL ok */

typedef struct HttpReply {
    long status;
    int64_t length; /* of the body; -1 unknown */
    bool partial;   /* 206 */
    uint64_t start; /* of a partial body in the whole */
    int64_t total;  /* of the whole, when partial; -1 unknown */
    char *etag;     /* with its quotes */
    char *location, *link, *error_code, *error_message;
} HttpReply;

/* GO on; WAIT and ask again soon; SKIP: nothing to do; AGAIN: this try is lost;
 * FAIL: give up, *err says why. */
typedef enum { HTTP_GO, HTTP_WAIT, HTTP_SKIP, HTTP_AGAIN, HTTP_FAIL } HttpTurn;

typedef struct HttpJob HttpJob;
struct HttpJob {
    const char *url, *name; /* name is for messages */
    void *context;
    uint64_t offset; /* bytes that are there already; the next try asks for the rest */
    int tries;       /* in a row without a byte; 0: 5 */
    /* Before each try; may set offset. NULL: always GO. */
    HttpTurn (*turn)(HttpJob *job, Error *err);
    /* The first good answer's headers. When !reply->partial the body is the whole
     * and offset is 0 again: drop what was there. NULL: always GO. */
    HttpTurn (*begin)(HttpJob *job, const HttpReply *reply, Error *err);
    HttpTurn (*bytes)(HttpJob *job, const uint8_t *bytes, size_t length, Error *err);
    /* The body has ended. AGAIN: what came is wrong. NULL: always GO. */
    HttpTurn (*end)(HttpJob *job, Error *err);
    /* The try is over, well or not. NULL: nothing. */
    void (*leave)(HttpJob *job);
    char *next_page; /* owned: the address in a Link header with rel="next" */
};

typedef struct HttpProgress {
    void (*tick)(void *context); /* called some ten times a second; NULL: never */
    void *context;
} HttpProgress;

/* Runs all jobs, `at_once` at a time. Stops at the first that fails. */
bool http_run(HttpClient *client, HttpJob *jobs, size_t count, int at_once, HttpProgress progress,
              Error *err);

/* One address as text of at most `limit` bytes. Caller frees *body and *next_page
 * (may be NULL). */
bool http_get_text(HttpClient *client, const char *url, const char *name, size_t limit, int tries,
                   StrBuf *body, char **next_page, Error *err);

/* text with all but letters, digits and "-._~" as %XX, and '/' too unless
 * keep_slashes; caller frees. */
char *http_quote(const char *text, bool keep_slashes);
/* scheme, host and port are the same. */
bool http_same_origin(const char *one, const char *other);

#endif
