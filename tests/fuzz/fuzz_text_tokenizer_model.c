/* A tokenizer.model, tiktoken or tekken file of any bytes: opens or fails with a
 * message, and if it opens, it encodes, and a stream decodes as the whole. The
 * first byte chooses the kind. */
#include "text/tokenizer.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[] = {"tokenizer.model", "tekken.json"};
    static const char text[] =
        "Hello  w\xC3\xB6rld 123 \xE6\x97\xA5\xE6\x9C\xAC <s>\n\xF0\x9F\x98\x80 \xFF";
    Error err = {0};
    if (!size) return 0;
    TextTokenizer *tokenizer =
        text_tokenizer_from_file_bytes(data + 1, size - 1, names[data[0] & 1], NULL, &err);
    if (!tokenizer) return 0;
    TextIds ids = {0};
    StrBuf streamed = {0};
    text_tokenizer_encode(tokenizer, text, sizeof text - 1, TEXT_ENCODE_PROMPT, &ids, &err);
    for (int32_t i = 0; i < BASE_MIN(text_tokenizer_vocab_size(tokenizer), 64); i++)
        text_ids_append(&ids, i);
    size_t length;
    char *whole = text_tokenizer_decode(tokenizer, ids.data, ids.length, false, &length);
    TextStream *stream = text_stream_new(tokenizer, false);
    for (size_t i = 0; i < ids.length; i++) text_stream_push(stream, ids.data[i], &streamed);
    text_stream_finish(stream, &streamed);
    if (streamed.length != length || (length && memcmp(streamed.data, whole, length) != 0))
        __builtin_trap();
    free(whole);
    text_stream_free(stream);
    base_str_free(&streamed);
    text_ids_free(&ids);
    text_tokenizer_free(tokenizer);
    return 0;
}
