/* A hub of one repository on 127.0.0.1, which can be told to misbehave: each
 * fault is used up by one request for its path. */
#ifndef TESTS_HUB_SERVER_H
#define TESTS_HUB_SERVER_H

#include "hub/folder.h"

#include <arpa/inet.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>

#define SERVER_COMMIT "0123456789abcdef0123456789abcdef01234567"

typedef enum {
    FAULT_STATUS, /* `status`, `headers` and `body` */
    FAULT_CUT,    /* the connection ends after `bytes` */
    FAULT_STALL,  /* nothing more comes after `bytes` */
    FAULT_SLOW,   /* the whole, in small pieces over `bytes` milliseconds */
    FAULT_LENGTH, /* Content-Length and body are `bytes` longer */
    FAULT_FLIP,   /* a wrong byte */
    FAULT_WHOLE,  /* 200 and all, whatever part was asked for */
    FAULT_RANGE   /* 206 with another part */
} FaultKind;

typedef struct Fault {
    const char *path; /* the end of a request's path */
    FaultKind kind;
    int status;
    size_t bytes;
    const char *headers, *body;
    bool used;
} Fault;

typedef struct ServedFile {
    const char *path;
    uint8_t *bytes;
    size_t length;
    bool large; /* has a SHA-256 */
} ServedFile;

typedef struct Seen {
    char path[256], range[64], if_range[96], authorization[96];
} Seen;

typedef struct Server {
    int listener, port;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t idle;
    int open;
    ServedFile files[16];
    size_t file_count;
    Fault faults[16];
    size_t fault_count;
    Seen seen[256];
    size_t seen_count;
    char endpoint[64];
    atomic_bool closing;
} Server;

static inline void server_hash(const ServedFile *file, bool sha256, char text[65]) {
    unsigned char hash[32];
    unsigned int length = 0;
    char header[40];
    int header_length = snprintf(header, sizeof header, "blob %zu", file->length) + 1;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    EVP_DigestInit_ex(context, sha256 ? EVP_sha256() : EVP_sha1(), NULL);
    if (!sha256) EVP_DigestUpdate(context, header, header_length);
    EVP_DigestUpdate(context, file->bytes, file->length);
    EVP_DigestFinal_ex(context, hash, &length);
    EVP_MD_CTX_free(context);
    for (unsigned int i = 0; i < length; i++) snprintf(text + 2 * i, 3, "%02x", hash[i]);
}

/* The name that a served file's blob has in the cache. */
static inline const char *server_etag(const Server *server, const char *path) {
    static _Thread_local char text[65];
    for (size_t i = 0; i < server->file_count; i++)
        if (strcmp(server->files[i].path, path) == 0)
            server_hash(&server->files[i], server->files[i].large, text);
    return text;
}

static inline bool server_send(int fd, const void *bytes, size_t length) {
    const char *at = bytes;
    while (length) {
        ssize_t put = send(fd, at, length, MSG_NOSIGNAL);
        if (put <= 0) return false;
        at += put;
        length -= (size_t)put;
    }
    return true;
}

static inline void server_reply(int fd, int status, const char *headers, const void *body,
                                size_t length) {
    char head[2048];
    int size = snprintf(head, sizeof head,
                        "HTTP/1.1 %d Status\r\nContent-Length: %zu\r\nConnection: close\r\n%s\r\n",
                        status, length, headers ? headers : "");
    if (server_send(fd, head, (size_t)size)) server_send(fd, body, length);
}

static inline void server_nap(Server *server, int milliseconds) {
    for (int i = 0; i < milliseconds && !atomic_load(&server->closing); i += 10) usleep(10000);
}

static inline void server_list(Server *server, int fd) {
    json_t *list = json_array();
    for (size_t i = 0; i < server->file_count; i++) {
        char sha1[65], sha256[65];
        server_hash(&server->files[i], false, sha1);
        server_hash(&server->files[i], true, sha256);
        json_t *entry =
            json_pack("{s:s,s:s,s:s,s:I}", "type", "file", "path", server->files[i].path, "oid",
                      sha1, "size", (json_int_t)server->files[i].length);
        if (server->files[i].large)
            json_object_set_new(entry, "lfs",
                                json_pack("{s:s,s:I,s:i}", "oid", sha256, "size",
                                          (json_int_t)server->files[i].length, "pointerSize", 134));
        json_array_append_new(list, entry);
    }
    char *text = json_dumps(list, 0);
    server_reply(fd, 200, "Content-Type: application/json\r\n", text, strlen(text));
    free(text);
    json_decref(list);
}

static inline void server_file(Server *server, int fd, const ServedFile *file, const Seen *seen,
                               const Fault *fault) {
    char headers[512];
    size_t start = 0;
    FaultKind kind = fault ? fault->kind : FAULT_STATUS;
    bool part = sscanf(seen->range, "bytes=%zu-", &start) == 1 && kind != FAULT_WHOLE;
    if (!part) start = 0;
    if (part && start >= file->length) {
        server_reply(fd, 416, "", "", 0);
        return;
    }
    size_t length = file->length - start, sent = length;
    int size =
        snprintf(headers, sizeof headers, "ETag: \"%s\"\r\n", server_etag(server, file->path));
    if (part)
        snprintf(headers + size, sizeof headers - (size_t)size,
                 "Content-Range: bytes %zu-%zu/%zu\r\n", start + (kind == FAULT_RANGE),
                 file->length - 1, file->length);
    uint8_t *body = calloc(1, length + 64);
    memcpy(body, file->bytes + start, length);
    if (fault && kind == FAULT_FLIP && length) body[length / 2] ^= 1;
    if (fault && kind == FAULT_LENGTH) length += fault->bytes;
    if (fault && (kind == FAULT_CUT || kind == FAULT_STALL)) sent = BASE_MIN(sent, fault->bytes);
    if (fault && kind == FAULT_LENGTH) sent = length;
    char head[1024];
    int head_size =
        snprintf(head, sizeof head,
                 "HTTP/1.1 %d Status\r\nContent-Length: %zu\r\nConnection: close\r\n%s\r\n",
                 part ? 206 : 200, length, headers);
    server_send(fd, head, (size_t)head_size);
    if (fault && kind == FAULT_SLOW) {
        for (size_t i = 0; i < 10; i++) {
            size_t from = sent * i / 10, to = sent * (i + 1) / 10;
            server_send(fd, body + from, to - from);
            server_nap(server, (int)fault->bytes / 10);
        }
    } else {
        server_send(fd, body, sent);
    }
    if (fault && kind == FAULT_STALL) server_nap(server, 10000);
    free(body);
}

static inline void server_answer(Server *server, int fd, const Seen *seen) {
    Fault fault = {0};
    pthread_mutex_lock(&server->lock);
    for (size_t i = 0; i < server->fault_count && !fault.path; i++)
        if (!server->faults[i].used && base_ends_with(seen->path, server->faults[i].path)) {
            fault = server->faults[i];
            server->faults[i].used = true;
        }
    pthread_mutex_unlock(&server->lock);
    if (fault.path && fault.kind == FAULT_STATUS) {
        const char *body = fault.body ? fault.body : "";
        server_reply(fd, fault.status, fault.headers, body, strlen(body));
        return;
    }
    if (strstr(seen->path, "/revision/")) {
        const char *info = "{\"sha\": \"" SERVER_COMMIT "\"}";
        server_reply(fd, 200, "", info, strlen(info));
        return;
    }
    if (strstr(seen->path, "/tree/")) {
        server_list(server, fd);
        return;
    }
    const ServedFile *file = NULL; /* of the longest path */
    for (size_t i = 0; i < server->file_count; i++)
        if (base_ends_with(seen->path, server->files[i].path) &&
            (!file || strlen(server->files[i].path) > strlen(file->path)))
            file = &server->files[i];
    if (file) {
        server_file(server, fd, file, seen, fault.path ? &fault : NULL);
        return;
    }
    server_reply(fd, 404, "X-Error-Code: EntryNotFound\r\n", "", 0);
}

static inline void server_header(const char *request, const char *name, char *out, size_t size) {
    const char *line = strcasestr(request, name);
    if (!line) return;
    line += strlen(name);
    size_t length = strcspn(line, "\r\n");
    snprintf(out, size, "%.*s", (int)length, line);
}

typedef struct Connection {
    Server *server;
    int fd;
} Connection;

static inline void *server_connection(void *context) {
    Connection connection = *(Connection *)context;
    Server *server = connection.server;
    free(context);
    char request[8192];
    size_t length = 0;
    ssize_t got;
    while (length + 1 < sizeof request &&
           (got = recv(connection.fd, request + length, sizeof request - 1 - length, 0)) > 0) {
        length += (size_t)got;
        request[length] = '\0';
        if (strstr(request, "\r\n\r\n")) break;
    }
    Seen seen = {0};
    if (length && sscanf(request, "%*s %255[^ ?]", seen.path) == 1) {
        server_header(request, "\r\nrange: ", seen.range, sizeof seen.range);
        server_header(request, "\r\nif-range: ", seen.if_range, sizeof seen.if_range);
        server_header(request, "\r\nauthorization: ", seen.authorization,
                      sizeof seen.authorization);
        pthread_mutex_lock(&server->lock);
        if (server->seen_count < BASE_COUNT(server->seen))
            server->seen[server->seen_count++] = seen;
        pthread_mutex_unlock(&server->lock);
        server_answer(server, connection.fd, &seen);
    }
    shutdown(connection.fd, SHUT_RDWR);
    close(connection.fd);
    pthread_mutex_lock(&server->lock);
    server->open--;
    pthread_cond_broadcast(&server->idle);
    pthread_mutex_unlock(&server->lock);
    return NULL;
}

static inline void *server_run(void *context) {
    Server *server = context;
    for (int fd; (fd = accept(server->listener, NULL, NULL)) >= 0;) {
        Connection *connection = malloc(sizeof *connection);
        *connection = (Connection){server, fd};
        pthread_mutex_lock(&server->lock);
        server->open++;
        pthread_mutex_unlock(&server->lock);
        pthread_t thread;
        pthread_create(&thread, NULL, server_connection, connection);
        pthread_detach(thread);
    }
    return NULL;
}

static inline Server *server_start(void) {
    Server *server = calloc(1, sizeof *server);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    pthread_mutex_init(&server->lock, NULL);
    pthread_cond_init(&server->idle, NULL);
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server->listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(server->listener, 64), 0);
    assert_int_equal(getsockname(server->listener, (struct sockaddr *)&address, &size), 0);
    server->port = ntohs(address.sin_port);
    snprintf(server->endpoint, sizeof server->endpoint, "http://127.0.0.1:%d", server->port);
    assert_int_equal(pthread_create(&server->thread, NULL, server_run, server), 0);
    return server;
}

static inline void server_stop(Server *server) {
    atomic_store(&server->closing, true);
    shutdown(server->listener, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    close(server->listener);
    pthread_mutex_lock(&server->lock);
    while (server->open > 0) pthread_cond_wait(&server->idle, &server->lock);
    pthread_mutex_unlock(&server->lock);
    for (size_t i = 0; i < server->file_count; i++) free(server->files[i].bytes);
    free(server);
}

static inline void server_add(Server *server, const char *path, const void *bytes, size_t length,
                              bool large) {
    uint8_t *copy = malloc(length + 1);
    memcpy(copy, bytes, length);
    server->files[server->file_count++] = (ServedFile){path, copy, length, large};
}

static inline void server_fault(Server *server, Fault fault) {
    pthread_mutex_lock(&server->lock);
    server->faults[server->fault_count++] = fault;
    pthread_mutex_unlock(&server->lock);
}

/* How often the end of a path was asked for; *last (may be NULL) is the last. */
static inline size_t server_asked(Server *server, const char *path, Seen *last) {
    size_t count = 0;
    pthread_mutex_lock(&server->lock);
    for (size_t i = 0; i < server->seen_count; i++)
        if (base_ends_with(server->seen[i].path, path)) {
            count++;
            if (last) *last = server->seen[i];
        }
    pthread_mutex_unlock(&server->lock);
    return count;
}

#endif
