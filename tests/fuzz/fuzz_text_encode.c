/* Any bytes as a text, through pipelines that use every component: ids with
 * and without spans agree, spans stay in the text, decoding streams the same. */
#include "text/tokenizer.h"

#include <string.h>

#define HEAD                                                                                     \
    "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":9,\"content\":\"<x>\",\"single_word\":true," \
    "\"lstrip\":true,"                                                                           \
    "\"rstrip\":true,\"normalized\":true,\"special\":true}],"
#define SPM                                                                                       \
    "\"model\":{\"type\":\"BPE\",\"unk_token\":\"u\",\"fuse_unk\":true,\"vocab\":{\"u\":0,\"a\":" \
    "1,\"b\":2,\"ab\":3,\"\xE2\x96\x81\":4,"                                                      \
    "\"aa\":5,\"abb\":6},\"merges\":[\"a b\",\"a a\",\"ab b\"]}}"

static const char *const files[] = {
    HEAD "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFKC\"},{\"type\":"
         "\"Lowercase\"},{\"type\":\"Strip\"}]},"
         "\"pre_tokenizer\":{\"type\":\"Metaspace\",\"prepend_scheme\":\"first\"},\"decoder\":{"
         "\"type\":\"Metaspace\"}," SPM,
    HEAD "\"normalizer\":{\"type\":\"BertNormalizer\"},\"pre_tokenizer\":{\"type\":"
         "\"BertPreTokenizer\"},\"decoder\":{\"type\":\"WordPiece\"},"
         "\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"u\",\"vocab\":{\"u\":0,\"a\":1,\"##b\":"
         "2,\"##ab\":3,\"ab\":4}}}",
    HEAD "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
         "\"pattern\":{\"Regex\":\"[^\\\\W_]{2}+|\\\\s*[\\\\r\\\\n]\"},"
         "\"behavior\":\"MergedWithNext\"},{\"type\":\"Digits\"},{\"type\":\"ByteLevel\"}]},"
         "\"decoder\":{\"type\":\"ByteLevel\"}," SPM,
    HEAD "\"normalizer\":{\"type\":\"NFD\"},\"pre_tokenizer\":null,\"decoder\":{\"type\":"
         "\"Sequence\",\"decoders\":[{\"type\":\"ByteFallback\"},"
         "{\"type\":\"Fuse\"}]}," SPM,
};

static void check(const TextTokenizer *tokenizer, const char *text, size_t length) {
    Error err = {0};
    TextIds ids = {0};
    TextEncoding encoding = {0};
    bool plain = text_tokenizer_encode(tokenizer, text, length, TEXT_ENCODE_PROMPT, &ids, &err);
    bool spans =
        text_tokenizer_encode_spans(tokenizer, text, length, TEXT_ENCODE_PROMPT, &encoding, &err);
    if (plain != spans || (plain && (ids.length != encoding.length ||
                                     (ids.length && memcmp(ids.data, encoding.ids,
                                                           ids.length * sizeof *ids.data) != 0))))
        __builtin_trap();
    for (size_t i = 0; i < encoding.length; i++)
        if (encoding.spans[i].begin > encoding.spans[i].end || encoding.spans[i].end > length)
            __builtin_trap();
    size_t decoded_length;
    char *decoded = text_tokenizer_decode(tokenizer, ids.data, ids.length, false, &decoded_length);
    TextStream *stream = text_stream_new(tokenizer, false);
    StrBuf streamed = {0};
    for (size_t i = 0; i < ids.length; i++) text_stream_push(stream, ids.data[i], &streamed);
    text_stream_finish(stream, &streamed);
    if (streamed.length != decoded_length ||
        (decoded_length && memcmp(streamed.data, decoded, decoded_length) != 0))
        __builtin_trap();
    text_stream_free(stream);
    base_str_free(&streamed);
    free(decoded);
    text_ids_free(&ids);
    text_encoding_free(&encoding);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static TextTokenizer *tokenizers[BASE_COUNT(files)];
    for (size_t i = 0; i < BASE_COUNT(files); i++) {
        Error err = {0};
        if (!tokenizers[i])
            tokenizers[i] =
                text_tokenizer_from_bytes(files[i], strlen(files[i]), "file", NULL, &err);
        if (!tokenizers[i]) __builtin_trap();
        check(tokenizers[i], (const char *)data, size);
    }
    return 0;
}
