/* Children with limits; see child.h. */
#include "rag/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define COMPLAINT_BYTES 4096
#define CLOCK_FACTOR 1.5

/* Held for writing while a child is made. */
static pthread_rwlock_t making = PTHREAD_RWLOCK_INITIALIZER;

void rag_child_hold(void) {
    pthread_rwlock_rdlock(&making);
}

void rag_child_release(void) {
    pthread_rwlock_unlock(&making);
}

typedef struct Child {
    pid_t pid;
    int output, complaints; /* read ends; -1 when closed */
} Child;

/* Address space that this process has now: maps of models are part of it, and
 * the child inherits them. */
static size_t address_space(void) {
    size_t pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file && fscanf(file, "%zu", &pages) != 1) pages = 0;
    if (file) fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

#define LIMIT(resource, most) setrlimit(resource, &(struct rlimit){most, most})

static void be_child(RagChildWork work, void *context, const RagChildLimits *limits, size_t memory,
                     int output, int complaints) {
    int nothing = open("/dev/null", O_RDONLY);
    if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(output, STDOUT_FILENO) < 0 ||
        dup2(complaints, STDERR_FILENO) < 0)
        _exit(126);
    for (int fd = 3; fd < 1024; fd++) close(fd);
    LIMIT(RLIMIT_CPU, (rlim_t)limits->seconds + 1);
    LIMIT(RLIMIT_AS, (rlim_t)memory);
    LIMIT(RLIMIT_FSIZE, 0);
    LIMIT(RLIMIT_CORE, 0);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    _exit(work(context));
}

static bool start(const char *name, RagChildWork work, void *context, const RagChildLimits *limits,
                  Child *child, Error *err) {
    int output[2], complaints[2];
    if (pipe2(output, O_CLOEXEC) != 0) return base_fail_errno(err, "cannot make a pipe");
    if (pipe2(complaints, O_CLOEXEC) != 0) {
        close(output[0]), close(output[1]);
        return base_fail_errno(err, "cannot make a pipe");
    }
    size_t memory = address_space() + limits->memory_bytes;
    pthread_rwlock_wrlock(&making);
    child->pid = fork();
    if (child->pid != 0) pthread_rwlock_unlock(&making);
    if (child->pid == 0) be_child(work, context, limits, memory, output[1], complaints[1]);
    int saved = errno;
    close(output[1]), close(complaints[1]);
    if (child->pid < 0) {
        close(output[0]), close(complaints[0]);
        errno = saved;
        return base_fail_errno(err, "cannot start %s", name);
    }
    child->output = output[0];
    child->complaints = complaints[0];
    return true;
}

/* One read into *out, up to `most` bytes in all; closes *fd at its end. */
static bool drain(int *fd, StrBuf *out, size_t most) {
    char bytes[65536];
    ssize_t got = read(*fd, bytes, sizeof bytes);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return true;
    if (got <= 0) {
        close(*fd);
        *fd = -1;
        return true;
    }
    size_t room = most - BASE_MIN(most, out->length);
    base_str_append_n(out, bytes, BASE_MIN((size_t)got, room));
    return (size_t)got <= room;
}

/* Gathers both pipes until they end. False when a limit was hit or the user
 * stopped the program; the child is killed then. */
static bool gather(const char *name, Child *child, const RagChildLimits *limits,
                   RagChildResult *result, Error *err) {
    double deadline = base_now() + limits->seconds * CLOCK_FACTOR;
    bool ok = true;
    while (ok && (child->output >= 0 || child->complaints >= 0)) {
        struct pollfd waits[2] = {{.fd = child->output, .events = POLLIN},
                                  {.fd = child->complaints, .events = POLLIN}};
        int ready = poll(waits, 2, 100);
        if (ready < 0 && errno != EINTR) ok = base_fail_errno(err, "waiting for %s", name);
        if (base_interrupted()) ok = base_fail(err, ERROR_INTERRUPTED, "interrupted");
        if (ok && base_now() > deadline)
            ok = base_fail(err, ERROR_INPUT, "%s took longer than %.0f s", name, limits->seconds);
        if (!ok || ready <= 0) continue;
        if (waits[0].revents && !drain(&child->output, &result->output, limits->output_bytes))
            ok = base_fail(err, ERROR_INPUT, "holds more than %zu MiB of text",
                           limits->output_bytes >> 20);
        if (waits[1].revents) drain(&child->complaints, &result->complaints, COMPLAINT_BYTES);
    }
    if (!ok) kill(child->pid, SIGKILL);
    if (child->output >= 0) close(child->output);
    if (child->complaints >= 0) close(child->complaints);
    return ok;
}

bool rag_child_run(const char *name, RagChildWork work, void *context, const RagChildLimits *limits,
                   RagChildResult *result, Error *err) {
    *result = (RagChildResult){0};
    Child child = {0};
    if (!start(name, work, context, limits, &child, err)) return false;
    bool ok = gather(name, &child, limits, result, err);
    int status = 0;
    while (waitpid(child.pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (!ok) return false;
    if (WIFSIGNALED(status)) {
        int number = WTERMSIG(status);
        if (number == SIGXCPU || number == SIGKILL)
            return base_fail(err, ERROR_INPUT, "%s took longer than %.0f s", name, limits->seconds);
        return base_fail(err, ERROR_INPUT, "%s crashed on it (signal %d)", name, number);
    }
    result->exit_status = WEXITSTATUS(status);
    return true;
}

void rag_child_result_free(RagChildResult *result) {
    base_str_free(&result->output);
    base_str_free(&result->complaints);
    *result = (RagChildResult){0};
}
