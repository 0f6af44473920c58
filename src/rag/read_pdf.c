/* PDF through poppler's pdftotext in a child process: no shell, limits on
 * memory, processor time and time, its output bounded, its complaints turned
 * into one line. A crash there fails that file only. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rag/document.h"

#define CPU_SECONDS 120
#define WALL_SECONDS 180.0
#define MEMORY_BYTES ((rlim_t)2 << 30)
#define OUTPUT_BYTES ((size_t)256 << 20)
#define COMPLAINT_BYTES 4096

typedef struct Child {
    pid_t pid;
    int output, complaints; /* read ends; -1 when closed */
} Child;

/* Between fork and exec only calls that are safe after a fork in a program with
 * threads. */
static void become_pdftotext(const char *path, int output, int complaints) {
    char *const arguments[] = {"pdftotext", "-enc",       "UTF-8", "-eol",
                               "unix",      (char *)path, "-",     NULL};
    char *const environment[] = {"PATH=/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin", "LC_ALL=C",
                                 NULL};
    static const char *const places[] = {"/usr/bin/pdftotext", "/usr/local/bin/pdftotext",
                                         "/opt/homebrew/bin/pdftotext", "/bin/pdftotext"};
    int nothing = open("/dev/null", O_RDONLY);
    if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(output, STDOUT_FILENO) < 0 ||
        dup2(complaints, STDERR_FILENO) < 0)
        _exit(126);
    for (int fd = 3; fd < 1024; fd++) close(fd);
    setrlimit(RLIMIT_CPU, &(struct rlimit){CPU_SECONDS, CPU_SECONDS});
    setrlimit(RLIMIT_AS, &(struct rlimit){MEMORY_BYTES, MEMORY_BYTES});
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){0, 0});
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    signal(SIGPIPE, SIG_DFL);
    for (size_t i = 0; i < BASE_COUNT(places); i++) execve(places[i], arguments, environment);
    _exit(127);
}

static bool start(const char *path, Child *child, Error *err) {
    int output[2], complaints[2];
    if (pipe2(output, O_CLOEXEC) != 0) return base_fail_errno(err, "cannot make a pipe");
    if (pipe2(complaints, O_CLOEXEC) != 0) {
        close(output[0]), close(output[1]);
        return base_fail_errno(err, "cannot make a pipe");
    }
    child->pid = fork();
    if (child->pid == 0) become_pdftotext(path, output[1], complaints[1]);
    int saved = errno;
    close(output[1]), close(complaints[1]);
    if (child->pid < 0) {
        close(output[0]), close(complaints[0]);
        errno = saved;
        return base_fail_errno(err, "cannot start pdftotext");
    }
    child->output = output[0];
    child->complaints = complaints[0];
    return true;
}

/* One read into *out, up to `limit` bytes in all; closes *fd at its end. */
static bool drain(int *fd, StrBuf *out, size_t limit) {
    char bytes[65536];
    ssize_t got = read(*fd, bytes, sizeof bytes);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return true;
    if (got <= 0) {
        close(*fd);
        *fd = -1;
        return true;
    }
    size_t room = limit - BASE_MIN(limit, out->length);
    base_str_append_n(out, bytes, BASE_MIN((size_t)got, room));
    return (size_t)got <= room;
}

/* Gathers both pipes until they end. False when a limit was hit or the user
 * stopped the program; the child is killed then. */
static bool gather(Child *child, StrBuf *output, StrBuf *complaints, Error *err) {
    double deadline = base_now() + WALL_SECONDS;
    bool ok = true;
    while (ok && (child->output >= 0 || child->complaints >= 0)) {
        struct pollfd waits[2] = {{.fd = child->output, .events = POLLIN},
                                  {.fd = child->complaints, .events = POLLIN}};
        int ready = poll(waits, 2, 200);
        if (ready < 0 && errno != EINTR) ok = base_fail_errno(err, "waiting for pdftotext");
        if (base_interrupted()) ok = base_fail(err, ERROR_INTERRUPTED, "interrupted");
        if (base_now() > deadline)
            ok = base_fail(err, ERROR_INPUT, "pdftotext took longer than %.0f s", WALL_SECONDS);
        if (!ok || ready <= 0) continue;
        if (waits[0].revents && !drain(&child->output, output, OUTPUT_BYTES))
            ok = base_fail(err, ERROR_INPUT, "holds more than %zu MiB of text", OUTPUT_BYTES >> 20);
        if (waits[1].revents) drain(&child->complaints, complaints, COMPLAINT_BYTES);
    }
    if (!ok) kill(child->pid, SIGKILL);
    if (child->output >= 0) close(child->output);
    if (child->complaints >= 0) close(child->complaints);
    return ok;
}

/* What pdftotext says, in our words. */
typedef struct Complaint {
    const char *text, *meaning;
} Complaint;

static const Complaint known[] = {
    {"Incorrect password", "encrypted: it needs a password"},
    {"Copying of text from this document is not allowed", "its owner forbids taking text from it"},
    {"May not be a PDF file", "broken PDF file"},
    {"Couldn't find trailer", "broken PDF file (truncated?)"},
    {"Couldn't read xref", "broken PDF file (truncated?)"},
    {"Document stream is empty", "empty file"},
    {"Out of memory", "needs more memory than PDF files are given here"},
};

static bool explain(int status, const StrBuf *complaints, Error *err) {
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
        base_fail(err, ERROR_UNSUPPORTED, "pdftotext is not installed");
        return base_hint(err,
                         "install poppler-utils (apt install poppler-utils, brew install poppler)");
    }
    if (WIFSIGNALED(status)) {
        int number = WTERMSIG(status);
        if (number == SIGXCPU || number == SIGKILL)
            return base_fail(err, ERROR_INPUT, "pdftotext took longer than %d s", CPU_SECONDS);
        return base_fail(err, ERROR_INPUT, "pdftotext crashed on it (signal %d)", number);
    }
    for (size_t i = 0; complaints->data && i < BASE_COUNT(known); i++)
        if (strstr(complaints->data, known[i].text))
            return base_fail(err, ERROR_INPUT, "%s", known[i].meaning);
    return base_fail(err, ERROR_INPUT, "pdftotext cannot read it (status %d)", WEXITSTATUS(status));
}

bool rag_read_pdf(const char *path, RagDocument *document, Error *err) {
    /* A path that begins with '-' must not become an option. */
    char *safe = path[0] == '/' ? base_strdup(path) : base_format("./%s", path);
    Child child = {0};
    StrBuf output = {0}, complaints = {0};
    bool ok = start(safe, &child, err);
    if (ok) {
        int status = 0;
        ok = gather(&child, &output, &complaints, err);
        while (waitpid(child.pid, &status, 0) < 0 && errno == EINTR) {
        }
        if (ok && status != 0) ok = explain(status, &complaints, err);
    }
    if (ok) rag_read_pdf_text(output.data ? output.data : "", output.length, document);
    free(safe);
    base_str_free(&output);
    base_str_free(&complaints);
    return ok;
}
