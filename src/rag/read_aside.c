/* Readers of formats that are unpacked and parsed by large libraries run in a
 * child process with limits; the document comes back over a pipe and is checked
 * as if a stranger had sent it. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "rag/child.h"
#include "rag/document.h"

static const RagChildLimits limits = {
    .seconds = 60, .memory_bytes = (size_t)1 << 30, .output_bytes = (size_t)256 << 20};

/* What the child says first; sizes of what follows. A failure has its message
 * for text. */
typedef struct Head {
    uint32_t failed; /* an ErrorCode, 0: fine */
    int32_t n_pages;
    uint64_t title_bytes, text_bytes, n_blocks;
    char warning[256];
} Head;

typedef struct Reading {
    RagReadBytes read;
    const char *bytes;
    size_t length;
} Reading;

static bool send_bytes(const void *bytes, size_t length) {
    const char *at = bytes;
    while (length) {
        ssize_t written = write(STDOUT_FILENO, at, length);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return false;
        at += written;
        length -= (size_t)written;
    }
    return true;
}

static int read_and_send(void *context) {
    const Reading *reading = context;
    RagDocument document = {0};
    Error wrong = {0};
    bool ok = reading->read(reading->bytes, reading->length, &document, &wrong);
    const char *title = ok && document.title ? document.title : "";
    const char *text = ok ? (document.text.data ? document.text.data : "") : wrong.message;
    Head head = {.failed = ok ? 0 : (uint32_t)wrong.code,
                 .n_pages = document.n_pages,
                 .title_bytes = strlen(title),
                 .text_bytes = ok ? document.text.length : strlen(text),
                 .n_blocks = ok ? document.n_blocks : 0};
    memcpy(head.warning, document.warning, sizeof head.warning);
    bool sent = send_bytes(&head, sizeof head) && send_bytes(title, head.title_bytes) &&
                send_bytes(text, head.text_bytes) &&
                send_bytes(document.blocks ? (void *)document.blocks : "",
                           (size_t)head.n_blocks * sizeof *document.blocks);
    return sent ? 0 : 1;
}

static bool blocks_are_sound(const RagDocument *document) {
    size_t last = 0;
    for (size_t i = 0; i < document->n_blocks; i++) {
        const RagBlock *block = &document->blocks[i];
        if (block->start < last || block->end <= block->start ||
            block->end > document->text.length || (int)block->kind < 0 ||
            block->kind > RAG_BLOCK_CODE)
            return false;
        last = block->end;
    }
    return base_utf8_valid(document->text.data ? document->text.data : "", document->text.length);
}

static bool receive(const StrBuf *output, RagDocument *document, Error *err) {
    Head head;
    if (output->length < sizeof head) return base_fail(err, ERROR_INPUT, "its reader stopped");
    memcpy(&head, output->data, sizeof head);
    size_t rest = output->length - sizeof head;
    bool sized = head.title_bytes <= rest && head.text_bytes <= rest - head.title_bytes &&
                 head.n_blocks <= rest / sizeof(RagBlock) &&
                 head.n_blocks * sizeof(RagBlock) == rest - head.title_bytes - head.text_bytes;
    if (!sized) return base_fail(err, ERROR_INPUT, "its reader stopped");
    const char *title = output->data + sizeof head, *text = title + head.title_bytes;
    if (head.failed)
        return base_fail(err, head.failed <= ERROR_INTERNAL ? (ErrorCode)head.failed : ERROR_INPUT,
                         "%.*s", (int)BASE_MIN(head.text_bytes, (uint64_t)900), text);
    head.warning[sizeof head.warning - 1] = '\0';
    memcpy(document->warning, head.warning, sizeof document->warning);
    document->n_pages = head.n_pages;
    base_str_append_n(&document->text, text, (size_t)head.text_bytes);
    document->n_blocks = document->blocks_capacity = (size_t)head.n_blocks;
    document->blocks = base_alloc((document->n_blocks + 1) * sizeof *document->blocks);
    memcpy(document->blocks, text + head.text_bytes, document->n_blocks * sizeof(RagBlock));
    rag_document_set_title(document, title, (size_t)head.title_bytes);
    return blocks_are_sound(document) || base_fail(err, ERROR_INPUT, "its reader stopped");
}

bool rag_read_aside(RagReadBytes read, const char *bytes, size_t length, RagDocument *document,
                    Error *err) {
    Reading reading = {read, bytes, length};
    RagChildResult result;
    bool ok = rag_child_run("its reader", read_and_send, &reading, &limits, &result, err);
    if (ok && result.exit_status != 0)
        ok = base_fail(err, ERROR_INPUT, "needs more memory than documents are given here");
    ok = ok && receive(&result.output, document, err);
    rag_child_result_free(&result);
    return ok;
}
