/* PDF through poppler's pdftotext in a child process: no shell, limits on
 * memory, processor time and time, its output bounded, its complaints turned
 * into one line. A crash there fails that file only. */
#include <string.h>
#include <unistd.h>

#include "rag/child.h"
#include "rag/document.h"

static const RagChildLimits usual = {
    .seconds = 120, .memory_bytes = (size_t)2 << 30, .output_bytes = (size_t)256 << 20};

typedef struct Call {
    const char *program, *path;
} Call;

static int become_pdftotext(void *context) {
    const Call *call = context;
    char *const arguments[] = {
        "pdftotext", "-enc", "UTF-8", "-eol", "unix", (char *)(uintptr_t)call->path, "-", NULL};
    char *const environment[] = {"PATH=/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin", "LC_ALL=C",
                                 NULL};
    static const char *const places[] = {"/usr/bin/pdftotext", "/usr/local/bin/pdftotext",
                                         "/opt/homebrew/bin/pdftotext", "/bin/pdftotext"};
    if (call->program) execve(call->program, arguments, environment);
    for (size_t i = 0; i < BASE_COUNT(places) && !call->program; i++)
        execve(places[i], arguments, environment);
    return 127;
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

static bool explain(const RagChildResult *result, Error *err) {
    if (result->exit_status == 127) {
        base_fail(err, ERROR_UNSUPPORTED, "pdftotext is not installed");
        return base_hint(err,
                         "install poppler-utils (apt install poppler-utils, brew install poppler)");
    }
    const char *said = result->complaints.data;
    for (size_t i = 0; said && i < BASE_COUNT(known); i++)
        if (strstr(said, known[i].text)) return base_fail(err, ERROR_INPUT, "%s", known[i].meaning);
    return base_fail(err, ERROR_INPUT, "pdftotext cannot read it (status %d)", result->exit_status);
}

bool rag_read_pdf_with(const char *path, const char *program, double seconds, RagDocument *document,
                       Error *err) {
    /* A path that begins with '-' must not become an option. */
    char *safe = path[0] == '/' ? base_strdup(path) : base_format("./%s", path);
    Call call = {program, safe};
    RagChildLimits limits = usual;
    if (seconds > 0) limits.seconds = seconds;
    RagChildResult result;
    bool ok = rag_child_run("pdftotext", become_pdftotext, &call, &limits, &result, err);
    if (ok && result.exit_status != 0) ok = explain(&result, err);
    if (ok)
        rag_read_pdf_text(result.output.data ? result.output.data : "", result.output.length,
                          document);
    free(safe);
    rag_child_result_free(&result);
    return ok;
}

bool rag_read_pdf(const char *path, RagDocument *document, Error *err) {
    return rag_read_pdf_with(path, NULL, 0, document, err);
}
