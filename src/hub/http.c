/* HTTP over libcurl's multi interface: a row of slots, each with a transfer or a
 * pause. Redirects are followed here and not by libcurl, so that it is plain
 * which origin gets the token. */
#include "hub/http.h"

#include <ctype.h>
#include <curl/curl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_REDIRECTS = 10, DEFAULT_TRIES = 5, LONGEST_WAIT = 300, LONGEST_PAUSE = 60 };

struct HttpClient {
    const HubSettings *settings;
    CURLM *multi;
    bool heard; /* a server has answered */
};

typedef enum { SLOT_FREE, SLOT_PAUSED, SLOT_RUNNING } SlotState;

typedef struct Slot {
    HttpClient *client;
    CURL *easy;
    struct curl_slist *headers;
    HttpJob *job;
    SlotState state;
    double heard;        /* when the server last sent something */
    double until;        /* a pause's end */
    char *url;           /* where this hop goes */
    int redirects, lost; /* lost: tries in a row that brought nothing */
    char *validator;     /* strong ETag of what is there, of this run */
    HttpReply reply;
    bool begun, brought, stopped; /* stopped: a callback of the job ended the try */
    HttpTurn verdict;
    Error error;
} Slot;

/* ---- addresses ---------------------------------------------------------------- */

static bool origin_of(const char *url, char origin[512]) {
    CURLU *parts = curl_url();
    char *scheme = NULL, *host = NULL, *port = NULL;
    bool good = parts && curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK &&
                curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
                curl_url_get(parts, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
                curl_url_get(parts, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK;
    if (good) {
        int length = snprintf(origin, 512, "%s://%s:%s", scheme, host, port);
        good = length > 0 && length < 512;
        for (char *at = origin; good && *at; at++) *at = (char)tolower((unsigned char)*at);
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(parts);
    return good;
}

bool http_same_origin(const char *one, const char *other) {
    char first[512], second[512];
    return origin_of(one, first) && origin_of(other, second) && strcmp(first, second) == 0;
}

/* `location`, which may be relative, seen from `url`; NULL when it is no http or
 * https address, or leaves https. Caller frees. */
static char *redirected(const char *url, const char *location) {
    CURLU *parts = curl_url();
    char *full = NULL, *kept = NULL;
    if (parts && curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK &&
        curl_url_set(parts, CURLUPART_URL, location, CURLU_URLENCODE) == CURLUE_OK &&
        curl_url_get(parts, CURLUPART_URL, &full, 0) == CURLUE_OK) {
        bool secure = base_starts_with(full, "https://");
        bool plain = base_starts_with(full, "http://") && !base_starts_with(url, "https://");
        if (secure || plain) kept = base_strdup(full);
    }
    curl_free(full);
    curl_url_cleanup(parts);
    return kept;
}

char *http_quote(const char *text, bool keep_slashes) {
    StrBuf out = {0};
    base_str_append(&out, "");
    for (const char *at = text; *at; at++) {
        bool plain = isalnum((unsigned char)*at) || strchr("-._~", *at) != NULL;
        if (plain || (*at == '/' && keep_slashes))
            base_str_append_char(&out, *at);
        else
            base_str_appendf(&out, "%%%02X", (unsigned char)*at);
    }
    return base_str_detach(&out);
}

/* The address of `<address>; rel="next"`; caller frees. */
static char *next_of(const char *link) {
    for (const char *at = link; at && (at = strchr(at, '<')) != NULL; at++) {
        const char *end = strchr(at, '>');
        if (!end) return NULL;
        size_t tail = strcspn(end, ",");
        char *rest = base_strndup(end, tail);
        bool next = strstr(rest, "rel=\"next\"") || strstr(rest, "rel=next");
        free(rest);
        if (next) return base_strndup(at + 1, (size_t)(end - at - 1));
    }
    return NULL;
}

/* ---- the answer's headers -------------------------------------------------------- */

static void reply_clear(HttpReply *reply) {
    char **const texts[] = {&reply->etag, &reply->location, &reply->link, &reply->error_code,
                            &reply->error_message};
    for (size_t i = 0; i < BASE_COUNT(texts); i++) free(*texts[i]);
    *reply = (HttpReply){.length = -1, .total = -1};
}

/* "bytes 100-199/200" or "bytes 100-199/x". */
static void read_range(HttpReply *reply, const char *text) {
    unsigned long long start, last, total;
    int fields = sscanf(text, "bytes %llu-%llu/%llu", &start, &last, &total);
    if (fields < 2 || last < start) return;
    reply->partial = true;
    reply->start = start;
    if (fields == 3 && total <= INT64_MAX) reply->total = (int64_t)total;
}

static size_t on_header(char *line, size_t size, size_t count, void *context) {
    Slot *slot = context;
    HttpReply *reply = &slot->reply;
    size_t length = size * count;
    slot->heard = base_now();
    if (length >= 5 && strncasecmp(line, "HTTP/", 5) == 0) {
        reply_clear(reply);
        return length;
    }
    const char *colon = memchr(line, ':', length);
    if (!colon) return length;
    size_t name = (size_t)(colon - line);
    const char *value = colon + 1, *end = line + length;
    while (value < end && isspace((unsigned char)*value)) value++;
    while (end > value && isspace((unsigned char)end[-1])) end--;
    char *text = base_strndup(value, (size_t)(end - value));
    const struct {
        const char *name;
        char **field;
    } kept[] = {{"etag", &reply->etag},
                {"location", &reply->location},
                {"link", &reply->link},
                {"x-error-code", &reply->error_code},
                {"x-error-message", &reply->error_message}};
    for (size_t i = 0; i < BASE_COUNT(kept); i++) {
        if (strlen(kept[i].name) != name || strncasecmp(line, kept[i].name, name) != 0) continue;
        free(*kept[i].field);
        *kept[i].field = text;
        return length;
    }
    if (name == 13 && strncasecmp(line, "content-range", name) == 0) read_range(reply, text);
    free(text);
    return length;
}

/* ---- the body --------------------------------------------------------------------- */

static bool is_good(long status) {
    return status == 200 || status == 206;
}

static bool stop(Slot *slot, HttpTurn verdict) {
    slot->stopped = true;
    slot->verdict = verdict;
    return false;
}

/* The first look at a good answer. False ends the try. */
static bool begin(Slot *slot) {
    HttpJob *job = slot->job;
    HttpReply *reply = &slot->reply;
    curl_off_t length = -1;
    curl_easy_getinfo(slot->easy, CURLINFO_RESPONSE_CODE, &reply->status);
    curl_easy_getinfo(slot->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    reply->length = length;
    slot->begun = true;
    if (reply->status != 206) reply->partial = false;
    if (reply->status == 206 && (!reply->partial || reply->start != job->offset)) {
        base_fail(&slot->error, ERROR_IO, "%s: the server sent another part than was asked for",
                  job->name);
        job->offset = 0;
        return stop(slot, HTTP_AGAIN);
    }
    if (!reply->partial) job->offset = 0;
    free(slot->validator);
    bool strong = reply->etag && reply->etag[0] == '"';
    slot->validator = strong ? base_strdup(reply->etag) : NULL;
    job->next_page = next_of(reply->link);
    HttpTurn turn = job->begin ? job->begin(job, reply, &slot->error) : HTTP_GO;
    return turn == HTTP_GO || stop(slot, turn);
}

static size_t on_body(char *bytes, size_t size, size_t count, void *context) {
    Slot *slot = context;
    HttpJob *job = slot->job;
    size_t length = size * count;
    long status = 0;
    slot->heard = base_now();
    curl_easy_getinfo(slot->easy, CURLINFO_RESPONSE_CODE, &status);
    if (!is_good(status)) return length; /* an error's page says less than its headers */
    if (!slot->begun && !begin(slot)) return 0;
    HttpTurn turn = job->bytes(job, (const uint8_t *)bytes, length, &slot->error);
    if (turn != HTTP_GO) {
        stop(slot, turn);
        return 0;
    }
    job->offset += length;
    slot->brought = slot->brought || length > 0;
    return length;
}

/* ---- one try ----------------------------------------------------------------------- */

static void add_header(Slot *slot, const char *text) {
    struct curl_slist *longer = curl_slist_append(slot->headers, text);
    if (longer) slot->headers = longer;
}

/* One of REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, SSL_CERT_FILE; libcurl itself reads none. */
static const char *certificates(void) {
    static const char *const names[] = {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"};
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        const char *path = getenv(names[i]);
        if (path && *path) return path;
    }
    return NULL;
}

/* Sends one hop. The token goes along only to the endpoint's own origin. */
static void send_hop(Slot *slot) {
    const HubSettings *settings = slot->client->settings;
    CURL *easy = slot->easy;
    curl_easy_reset(easy);
    curl_slist_free_all(slot->headers);
    slot->headers = NULL;
    reply_clear(&slot->reply);
    add_header(slot, "Accept-Encoding: identity");
    if (settings->token && http_same_origin(slot->url, settings->endpoint)) {
        char *line = base_format("Authorization: Bearer %s", settings->token);
        add_header(slot, line);
        free(line);
    }
    if (slot->job->offset > 0) {
        char *range = base_format("%llu-", (unsigned long long)slot->job->offset);
        curl_easy_setopt(easy, CURLOPT_RANGE, range);
        free(range);
        if (slot->validator) {
            char *line = base_format("If-Range: %s", slot->validator);
            add_header(slot, line);
            free(line);
        }
    }
    const char *bundle = certificates();
    if (bundle) curl_easy_setopt(easy, CURLOPT_CAINFO, bundle);
    curl_easy_setopt(easy, CURLOPT_URL, slot->url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, slot->headers);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "mlx-rag/" MLX_RAG_VERSION);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 512L * 1024);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)(settings->timeout * 1000));
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, slot);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, slot);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, slot);
    slot->begun = slot->stopped = false;
    slot->state = SLOT_RUNNING;
    slot->heard = base_now();
    curl_multi_add_handle(slot->client->multi, easy);
}

static void pause_slot(Slot *slot, double seconds) {
    slot->state = SLOT_PAUSED;
    slot->until = base_now() + seconds;
}

static void finish(Slot *slot) {
    slot->state = SLOT_FREE;
    slot->job = NULL;
    free(slot->url);
    free(slot->validator);
    slot->url = slot->validator = NULL;
    reply_clear(&slot->reply);
}

static void leave(Slot *slot) {
    if (slot->job->leave) slot->job->leave(slot->job);
}

/* Begins a try, or waits for the job's turn. False when the job gives up. */
static bool start_try(Slot *slot, Error *err) {
    HttpJob *job = slot->job;
    base_error_clear(&slot->error);
    switch (job->turn ? job->turn(job, err) : HTTP_GO) {
    case HTTP_GO: break;
    case HTTP_WAIT: pause_slot(slot, 0.1); return true;
    case HTTP_SKIP:
        leave(slot);
        finish(slot);
        return true;
    default: leave(slot); return false;
    }
    free(slot->url);
    free(job->next_page);
    job->next_page = NULL;
    slot->url = base_strdup(job->url);
    slot->redirects = 0;
    slot->brought = false;
    send_hop(slot);
    return true;
}

/* A lost try: another one after a pause, or the end. slot->error says what
 * happened. `asked`: seconds that the server wants to be left alone. */
static bool try_again(Slot *slot, double asked, Error *err) {
    HttpJob *job = slot->job;
    leave(slot);
    slot->lost = slot->brought ? 1 : slot->lost + 1;
    int tries = job->tries ? job->tries : DEFAULT_TRIES;
    if (slot->lost >= tries) {
        if (err->code == ERROR_NONE) *err = slot->error;
        return false;
    }
    if (asked > LONGEST_WAIT) {
        if (err->code == ERROR_NONE) *err = slot->error;
        return base_hint(err, "the server asks to come back in %.0f minutes", asked / 60);
    }
    double pause = slot->client->settings->pause * (double)(1 << BASE_MIN(slot->lost - 1, 10));
    pause = BASE_MAX(BASE_MIN(pause, LONGEST_PAUSE), asked);
    if (pause >= 1) base_log(LOG_WARNING, "%s; trying again in %.0f s", slot->error.message, pause);
    pause_slot(slot, pause);
    return true;
}

static bool follow(Slot *slot, Error *err) {
    HttpJob *job = slot->job;
    char *next = slot->reply.location ? redirected(slot->url, slot->reply.location) : NULL;
    if (!next || ++slot->redirects > MAX_REDIRECTS) {
        free(next);
        leave(slot);
        return base_fail(err, ERROR_INPUT,
                         next ? "%s: the server redirects without end"
                              : "%s: the server redirects to no usable address",
                         job->name);
    }
    free(slot->url);
    slot->url = next;
    send_hop(slot);
    return true;
}

/* What a refusal means to a person. */
static bool refused(Slot *slot, long status, Error *err) {
    const HttpReply *reply = &slot->reply;
    const HttpJob *job = slot->job;
    const char *code = reply->error_code ? reply->error_code : "";
    const char *said = reply->error_message ? reply->error_message : "";
    bool token = slot->client->settings->token != NULL;
    base_fail(err, ERROR_INPUT, "%s: the hub answered %ld%s%.300s", job->name, status,
              *said ? ": " : "", said);
    leave(slot);
    if (strcmp(code, "GatedRepo") == 0)
        return base_hint(err, "Accept the model's terms on its page%s.",
                         token ? "" : " and give your token in HF_TOKEN");
    if (status == 401 || status == 403)
        return base_hint(err, token
                                  ? "The token in use does not open it, or there is no such model."
                                  : "A private model needs a token in HF_TOKEN; otherwise there "
                                    "is no such model.");
    if (status == 404 && strcmp(code, "RevisionNotFound") == 0)
        return base_hint(err, "There is no such branch, tag or commit.");
    if (status == 404) return base_hint(err, "Check the name; a private model needs HF_TOKEN.");
    return false;
}

static bool is_lost(long status) {
    return status == 408 || status == 429 || status >= 500;
}

/* The server has answered in full. */
static bool answered(Slot *slot, Error *err) {
    HttpJob *job = slot->job;
    long status = 0;
    slot->client->heard = true;
    curl_easy_getinfo(slot->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status >= 300 && status < 400 && status != 304) return follow(slot, err);
    if (is_good(status)) {
        HttpTurn turn = HTTP_GO;
        if (!slot->begun && !begin(slot)) turn = slot->verdict;
        if (turn == HTTP_GO && job->end) turn = job->end(job, &slot->error);
        if (turn == HTTP_AGAIN) return try_again(slot, 0, err);
        leave(slot);
        if (turn == HTTP_FAIL) {
            if (err->code == ERROR_NONE) *err = slot->error;
            return false;
        }
        finish(slot);
        return true;
    }
    /* An address that was signed for a while may have expired. */
    bool expired = slot->redirects > 0 && (status == 401 || status == 403);
    if (status == 416) job->offset = 0; /* what is there is longer than the file */
    if (is_lost(status) || status == 416 || expired) {
        curl_off_t asked = 0;
        curl_easy_getinfo(slot->easy, CURLINFO_RETRY_AFTER, &asked);
        base_fail(&slot->error, ERROR_IO, "%s: the hub answered %ld%s", job->name, status,
                  status == 429 ? ", too many requests" : "");
        return try_again(slot, (double)asked, err);
    }
    return refused(slot, status, err);
}

/* A host that has no address before anything was heard from the net: there is no net. */
static bool is_hopeless(CURLcode code, bool heard) {
    static const CURLcode codes[] = {CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CACERT_BADFILE,
                                     CURLE_UNSUPPORTED_PROTOCOL,     CURLE_URL_MALFORMAT,
                                     CURLE_COULDNT_RESOLVE_PROXY,    CURLE_OUT_OF_MEMORY};
    for (size_t i = 0; i < BASE_COUNT(codes); i++)
        if (code == codes[i]) return true;
    return code == CURLE_COULDNT_RESOLVE_HOST && !heard;
}

static bool ended(Slot *slot, CURLcode code, Error *err) {
    curl_multi_remove_handle(slot->client->multi, slot->easy);
    if (code == CURLE_OK) return answered(slot, err);
    HttpJob *job = slot->job;
    if (slot->stopped && slot->verdict == HTTP_AGAIN) return try_again(slot, 0, err);
    if (slot->stopped) {
        leave(slot);
        if (err->code == ERROR_NONE) *err = slot->error;
        return false;
    }
    char origin[512] = "";
    origin_of(slot->url, origin);
    base_fail(&slot->error, ERROR_IO, "%s: %s: %s", job->name, origin, curl_easy_strerror(code));
    if (!is_hopeless(code, slot->client->heard)) return try_again(slot, 0, err);
    leave(slot);
    if (err->code == ERROR_NONE) *err = slot->error;
    return false;
}

/* ---- the row of slots ------------------------------------------------------------------ */

static bool collect(HttpClient *client, Error *err) {
    int left;
    for (CURLMsg *message; (message = curl_multi_info_read(client->multi, &left)) != NULL;) {
        if (message->msg != CURLMSG_DONE) continue;
        Slot *slot = NULL;
        CURLcode code = message->data.result;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&slot);
        if (!ended(slot, code, err)) {
            finish(slot);
            return false;
        }
    }
    return true;
}

/* Ends tries on which nothing comes any more. (libcurl's own low-speed limit
 * looks at the mean of several seconds.) */
static bool drop_stalled(HttpClient *client, Slot *slots, int at_once, Error *err) {
    const double timeout = client->settings->timeout;
    for (int i = 0; i < at_once; i++) {
        Slot *slot = &slots[i];
        if (slot->state != SLOT_RUNNING || base_now() - slot->heard < timeout) continue;
        curl_multi_remove_handle(client->multi, slot->easy);
        base_error_clear(&slot->error);
        base_fail(&slot->error, ERROR_IO, "%s: nothing came for %.0f s", slot->job->name, timeout);
        if (!try_again(slot, 0, err)) {
            finish(slot);
            return false;
        }
    }
    return true;
}

/* Starts what can be started; *busy says whether anything is left to do. */
static bool advance(Slot *slots, int at_once, HttpJob *jobs, size_t count, size_t *next, bool *busy,
                    Error *err) {
    *busy = false;
    for (int i = 0; i < at_once; i++) {
        Slot *slot = &slots[i];
        while (slot->state == SLOT_FREE && *next < count) {
            slot->job = &jobs[(*next)++];
            slot->lost = 0;
            if (!start_try(slot, err)) {
                finish(slot);
                return false;
            }
        }
        if (slot->state == SLOT_PAUSED && base_now() >= slot->until && !start_try(slot, err)) {
            finish(slot);
            return false;
        }
        if (slot->state != SLOT_FREE) *busy = true;
    }
    return true;
}

static int wait_milliseconds(const Slot *slots, int at_once) {
    double seconds = 0.1;
    for (int i = 0; i < at_once; i++)
        if (slots[i].state == SLOT_PAUSED)
            seconds = BASE_MIN(seconds, BASE_MAX(slots[i].until - base_now(), 0));
    return (int)(seconds * 1000) + 1;
}

static void drop_slots(HttpClient *client, Slot *slots, int at_once) {
    for (int i = 0; i < at_once; i++) {
        Slot *slot = &slots[i];
        if (slot->state == SLOT_RUNNING) curl_multi_remove_handle(client->multi, slot->easy);
        if (slot->job) leave(slot);
        finish(slot);
        curl_easy_cleanup(slot->easy);
        curl_slist_free_all(slot->headers);
    }
    free(slots);
}

bool http_run(HttpClient *client, HttpJob *jobs, size_t count, int at_once, HttpProgress progress,
              Error *err) {
    Error failure = {0};
    if (at_once < 1) at_once = 1;
    if ((size_t)at_once > count) at_once = (int)count;
    Slot *slots = base_calloc((size_t)at_once + 1, sizeof *slots);
    bool good = true, busy = at_once > 0;
    for (int i = 0; i < at_once; i++) {
        slots[i].client = client;
        reply_clear(&slots[i].reply);
        slots[i].easy = curl_easy_init();
        if (!slots[i].easy) good = base_fail(&failure, ERROR_MEMORY, "libcurl: out of memory");
    }
    size_t next = 0;
    while (good && busy) {
        int running = 0;
        good = advance(slots, at_once, jobs, count, &next, &busy, &failure);
        if (!good || !busy) break;
        curl_multi_poll(client->multi, NULL, 0, wait_milliseconds(slots, at_once), NULL);
        curl_multi_perform(client->multi, &running);
        good = collect(client, &failure) && drop_stalled(client, slots, at_once, &failure);
        if (good && base_interrupted())
            good = base_fail(&failure, ERROR_INTERRUPTED, "stopped; what came is kept");
        if (progress.tick) progress.tick(progress.context);
    }
    drop_slots(client, slots, at_once);
    if (!good && err && err->code == ERROR_NONE) *err = failure;
    return good;
}

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static void start_curl(void) {
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

HttpClient *http_client_new(const HubSettings *settings, Error *err) {
    pthread_once(&curl_once, start_curl);
    HttpClient *client = base_calloc(1, sizeof *client);
    client->settings = settings;
    client->multi = curl_multi_init();
    if (client->multi) return client;
    free(client);
    base_fail(err, ERROR_MEMORY, "libcurl: cannot start");
    return NULL;
}

void http_client_free(HttpClient *client) {
    if (!client) return;
    curl_multi_cleanup(client->multi);
    free(client);
}

/* ---- a text --------------------------------------------------------------------------- */

typedef struct TextSink {
    StrBuf *body;
    size_t limit;
} TextSink;

static HttpTurn text_begin(HttpJob *job, const HttpReply *reply, Error *err) {
    (void)reply;
    (void)err;
    TextSink *sink = job->context;
    sink->body->length = 0;
    return HTTP_GO;
}

static HttpTurn text_bytes(HttpJob *job, const uint8_t *bytes, size_t length, Error *err) {
    TextSink *sink = job->context;
    if (sink->body->length + length > sink->limit) {
        base_fail(err, ERROR_INPUT, "%s: the answer is longer than %zu bytes", job->name,
                  sink->limit);
        return HTTP_FAIL;
    }
    base_str_append_n(sink->body, (const char *)bytes, length);
    return HTTP_GO;
}

static void text_leave(HttpJob *job) {
    job->offset = 0; /* a text is asked for anew */
}

bool http_get_text(HttpClient *client, const char *url, const char *name, size_t limit, int tries,
                   StrBuf *body, char **next_page, Error *err) {
    TextSink sink = {body, limit};
    base_str_append(body, "");
    HttpJob job = {.url = url,
                   .name = name,
                   .context = &sink,
                   .tries = tries,
                   .begin = text_begin,
                   .bytes = text_bytes,
                   .leave = text_leave};
    bool good = http_run(client, &job, 1, 1, (HttpProgress){0}, err);
    if (next_page)
        *next_page = job.next_page;
    else
        free(job.next_page);
    return good;
}
