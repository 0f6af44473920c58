/* tokenize: text to ids and back. */
#include "cli/commands.h"

#include <stdlib.h>
#include <string.h>

typedef struct TokenizeArguments {
    const char *model, *file;
    OptionList texts;
    bool json, decode, no_special, skip_special, plain, count, whole;
} TokenizeArguments;
#define ARGUMENTS TokenizeArguments

static const Option option_table[] = {
    OPTION_REQUIRED("model", NULL, MODEL, model, "MODEL", "model folder or hub id"),
    OPTION("file", NULL, TEXT, file, NULL, "FILE",
           "take the lines of this file; - is standard input"),
    OPTION("whole", NULL, FLAG, whole, NULL, NULL, "take the file as one text"),
    OPTION("decode", NULL, FLAG, decode, NULL, NULL, "the texts are ids; print their text"),
    OPTION("no-special", NULL, FLAG, no_special, NULL, NULL, "do not add bos, [CLS] and the like"),
    OPTION("plain", NULL, FLAG, plain, NULL, NULL,
           "read the text of special tokens as ordinary text"),
    OPTION("skip-special", NULL, FLAG, skip_special, NULL, NULL,
           "when decoding, leave special tokens out"),
    OPTION("count", NULL, FLAG, count, NULL, NULL, "print only how many tokens"),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "a JSON object for each text"),
    POSITIONAL("TEXT", LIST, texts, false, "what to tokenize; without any, standard input"),
};

static json_t *json_ids(const int32_t *ids, size_t count) {
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) json_array_append_new(list, json_integer(ids[i]));
    return list;
}

static void print_ids(const TokenizeArguments *arguments, const TextTokenizer *tokenizer,
                      const TextIds *ids) {
    if (arguments->json) {
        json_t *tokens = json_array();
        for (size_t i = 0; i < ids->length; i++) {
            const char *token = text_tokenizer_token(tokenizer, ids->data[i]);
            json_array_append_new(tokens,
                                  token ? output_string(token, strlen(token)) : json_null());
        }
        output_json(json_pack("{s:o,s:o,s:I}", "ids", json_ids(ids->data, ids->length), "tokens",
                              tokens, "count", (json_int_t)ids->length));
        return;
    }
    if (arguments->count) {
        printf("%zu\n", ids->length);
        return;
    }
    for (size_t i = 0; i < ids->length; i++) printf("%s%d", i ? " " : "", (int)ids->data[i]);
    putchar('\n');
}

static bool encode_one(const TokenizeArguments *arguments, const TextTokenizer *tokenizer,
                       const char *text, size_t length, Error *err) {
    TextEncodeOptions how = {.add_special = !arguments->no_special && !arguments->plain,
                             .parse_special = !arguments->plain};
    TextIds ids = {0};
    if (!text_tokenizer_encode(tokenizer, text, length, how, &ids, err)) return false;
    print_ids(arguments, tokenizer, &ids);
    text_ids_free(&ids);
    return true;
}

static bool decode_one(const TokenizeArguments *arguments, const TextTokenizer *tokenizer,
                       const char *text, Error *err) {
    size_t count = 0, length = 0;
    int32_t *ids = input_ids(text, &count, err);
    if (!ids) return false;
    char *decoded = text_tokenizer_decode(tokenizer, ids, count, arguments->skip_special, &length);
    if (arguments->json) {
        output_json(json_pack("{s:o,s:o}", "ids", json_ids(ids, count), "text",
                              output_string(decoded, length)));
    } else {
        fwrite(decoded, 1, length, stdout);
        putchar('\n');
    }
    free(decoded);
    free(ids);
    return true;
}

static bool tokenize_all(const TokenizeArguments *arguments, const TextTokenizer *tokenizer,
                         Error *err) {
    if (arguments->whole) {
        size_t length = 0;
        char *text = input_file(arguments->file ? arguments->file : "-", &length, err);
        bool good =
            text && (arguments->decode ? decode_one(arguments, tokenizer, text, err)
                                       : encode_one(arguments, tokenizer, text, length, err));
        free(text);
        return good;
    }
    if (arguments->decode && arguments->texts.count > 1) {
        /* "5 7 9" and 5 7 9 are the same ids. */
        StrBuf joined = {0};
        for (size_t i = 0; i < arguments->texts.count; i++)
            base_str_appendf(&joined, "%s ", arguments->texts.items[i]);
        bool good = decode_one(arguments, tokenizer, joined.data, err);
        base_str_free(&joined);
        return good;
    }
    InputTexts texts;
    if (!input_texts(arguments->texts, arguments->file, &texts, err)) return false;
    bool good = true;
    for (size_t i = 0; i < texts.count && good && !base_interrupted(); i++)
        good = arguments->decode
                   ? decode_one(arguments, tokenizer, texts.items[i], err)
                   : encode_one(arguments, tokenizer, texts.items[i], texts.lengths[i], err);
    input_texts_free(&texts);
    return good;
}

static int run(const void *given, Error *err) {
    const TokenizeArguments *arguments = given;
    TextTokenizer *tokenizer = text_tokenizer_open(arguments->model, err);
    if (!tokenizer) return 1;
    bool done = tokenize_all(arguments, tokenizer, err);
    text_tokenizer_free(tokenizer);
    return done ? 0 : 1;
}

const Command tokenize_command = {.name = "tokenize",
                                  .summary = "Turns text into token ids, or ids into text.",
                                  OPTIONS(option_table),
                                  .arguments_size = sizeof(TokenizeArguments),
                                  .run = run};
