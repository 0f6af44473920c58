/* A tokenizer.json of any bytes: opens or fails with a message, and if it opens
 * it encodes, decodes and streams. */
#include "text/tokenizer.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char text[] =
        "Hello  w\xC3\xB6rld 123 \xE6\x97\xA5\xE6\x9C\xAC <x>\n\xF0\x9F\x98\x80 \xFF";
    Error err = {0};
    TextTokenizer *tokenizer =
        text_tokenizer_from_bytes((const char *)data, size, "fuzz", NULL, &err);
    if (!tokenizer) return 0;
    TextIds ids = {0};
    TextEncoding encoding = {0};
    StrBuf streamed = {0};
    text_tokenizer_encode(tokenizer, text, sizeof text - 1, TEXT_ENCODE_PROMPT, &ids, &err);
    text_tokenizer_encode_pair(tokenizer, text, sizeof text - 1, text, 5, TEXT_ENCODE_PROMPT,
                               &encoding, &err);
    for (int32_t i = 0; i < BASE_MIN(text_tokenizer_vocab_size(tokenizer), 64); i++)
        text_ids_append(&ids, i);
    free(text_tokenizer_decode(tokenizer, ids.data, ids.length, false, NULL));
    TextStream *stream = text_stream_new(tokenizer, true);
    for (size_t i = 0; i < ids.length; i++) text_stream_push(stream, ids.data[i], &streamed);
    text_stream_finish(stream, &streamed);
    text_stream_free(stream);
    base_str_free(&streamed);
    text_encoding_free(&encoding);
    text_ids_free(&ids);
    text_tokenizer_free(tokenizer);
    return 0;
}
