/* The chunker over documents read from the input, with an embedder whose tokens
 * are pieces of at most 4 bytes and whose limit is the input's first byte. */
#include <stdlib.h>
#include <string.h>

#include "rag/chunk.h"

static bool token_ends(void *context, const char *text, size_t length, size_t **ends, size_t *count,
                       Error *err) {
    (void)context, (void)err;
    *ends = base_alloc((length + 1) * sizeof **ends);
    *count = 0;
    for (size_t i = 0; i < length;) {
        size_t n = 0;
        if (text[i] == ' ' || text[i] == '\n') {
            i++;
            continue;
        }
        while (i < length && n < 4 && text[i] != ' ' && text[i] != '\n') i++, n++;
        while (i < length && ((unsigned char)text[i] & 0xC0) == 0x80) i++;
        (*ends)[(*count)++] = i;
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) return 0;
    RagEmbedder embedder = {.name = "fuzz",
                            .dim = 1,
                            .max_tokens = 20u + data[0],
                            .n_special = 2,
                            .token_ends = token_ends};
    char *text = NULL;
    size_t length = 0;
    if (!rag_text_decode((const char *)data + 2, size - 2, &text, &length)) return 0;
    RagDocument document = {0};
    rag_read_markdown(text, length, &document);
    RagChunks chunks;
    Error err = {0};
    if (!rag_chunk_document(&document, &embedder, data[1], &chunks, &err)) __builtin_trap();
    size_t last = 0;
    for (size_t i = 0; i < chunks.count; i++) {
        const RagChunk *chunk = &chunks.items[i];
        if (chunk->start < last || chunk->start >= chunk->end || chunk->end > document.text.length)
            __builtin_trap();
        if (!base_utf8_valid(document.text.data + chunk->start, chunk->end - chunk->start))
            __builtin_trap();
        last = chunk->end;
        size_t *ends = NULL, count = 0;
        char *whole = base_format("%s\n%.*s", chunk->header, (int)(chunk->end - chunk->start),
                                  document.text.data + chunk->start);
        token_ends(NULL, whole, strlen(whole), &ends, &count, NULL);
        if (count + 2 > embedder.max_tokens) __builtin_trap();
        free(ends);
        free(whole);
    }
    rag_chunks_free(&chunks);
    rag_document_free(&document);
    free(text);
    return 0;
}
