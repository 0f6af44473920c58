/* Milliseconds to open a tokenizer and megabytes a second of encoding and
 * decoding, on one thread: bench_text_tokenizer FOLDER TEXT. The text is cut
 * into documents of about 10 KB; the cold pass starts without cached words. */
#include "text/tokenizer.h"

#include <stdio.h>
#include <string.h>

enum { DOCUMENT = 10000 };

/* Encodes every document; the ids of all in *ids. */
static double encode_all(const TextTokenizer *tokenizer, const char *text, size_t length,
                         TextIds *ids) {
    Error err = {0};
    double start = base_now();
    ids->length = 0;
    for (size_t at = 0, end; at < length; at = end) {
        end = BASE_MIN(length, at + DOCUMENT);
        while (end < length && text[end] != '\n') end++;
        if (!text_tokenizer_encode(tokenizer, text + at, end - at, TEXT_ENCODE_PLAIN, ids, &err)) {
            fprintf(stderr, "%s\n", err.message);
            break;
        }
    }
    return base_now() - start;
}

int main(int count, char **arguments) {
    Error err = {0};
    char *text;
    size_t length;
    if (count != 3) {
        fprintf(stderr, "usage: bench_text_tokenizer FOLDER TEXT\n");
        return 2;
    }
    double start = base_now();
    TextTokenizer *tokenizer = text_tokenizer_open(arguments[1], &err);
    double opened = base_now() - start;
    if (!tokenizer || !base_file_read(arguments[2], &text, &length, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    TextIds ids = {0};
    double cold = encode_all(tokenizer, text, length, &ids), warm = 1e9;
    for (int round = 0; round < 3; round++)
        warm = BASE_MIN(warm, encode_all(tokenizer, text, length, &ids));
    start = base_now();
    size_t decoded;
    free(text_tokenizer_decode(tokenizer, ids.data, ids.length, false, &decoded));
    double decoding = base_now() - start;
    printf("open %.1f ms; encode cold %.1f MB/s, warm %.1f MB/s; decode %.0f MB/s; %d tokens, "
           "%.2f bytes each\n",
           opened * 1e3, (double)length / cold / 1e6, (double)length / warm / 1e6,
           (double)decoded / decoding / 1e6, (int)text_tokenizer_vocab_size(tokenizer),
           (double)length / (double)ids.length);
    text_ids_free(&ids);
    free(text);
    text_tokenizer_free(tokenizer);
    return 0;
}
