/* Vocabularies of GGUF files: what they become, and those that are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "ids.h"

static TextTokenizer *from_gguf(const TextGgufVocab *vocab) {
    Error err = {0};
    json_t *config = NULL, *tree = text_tokenizer_json_from_gguf(vocab, &config, &err);
    if (!tree) fail_msg("%s", err.message);
    TextTokenizer *tokenizer = text_tokenizer_from_json(tree, config, &err);
    if (!tokenizer) fail_msg("%s", err.message);
    json_decref(tree);
    json_decref(config);
    return tokenizer;
}

static void test_a_gpt2_vocabulary_becomes_byte_level_bpe(void **state) {
    (void)state;
    const char *tokens[] = {"<|end|>", "a", "b", "Ġ", "1", "ab", "Ġa", "Ġab"},
               *merges[] = {"a b", "Ġ a", "Ġ ab"};
    TextGgufVocab vocab = TEXT_GGUF_VOCAB_NONE;
    vocab.model = "gpt2";
    vocab.pre = "smollm";
    vocab.tokens = tokens;
    vocab.size = vocab.type_count = BASE_COUNT(tokens);
    vocab.types = (const int32_t[]){3, 1, 1, 1, 1, 1, 1, 1};
    vocab.merges = merges;
    vocab.merge_count = BASE_COUNT(merges);
    vocab.eos_id = 0;
    TextTokenizer *tokenizer = from_gguf(&vocab);
    check_encode(tokenizer, "ab ab11 a<|end|>", TEXT_ENCODE_PROMPT, IDS(5, 7, 4, 4, 6, 0));
    assert_int_equal(text_tokenizer_special_id(tokenizer, TEXT_EOS), 0);
    assert_int_equal(text_tokenizer_special_id(tokenizer, TEXT_BOS), -1);
    text_tokenizer_free(tokenizer);
    vocab.bos_id = 0;
    vocab.add_bos = 1;
    tokenizer = from_gguf(&vocab);
    check_encode(tokenizer, "ab", TEXT_ENCODE_PROMPT, IDS(0, 5));
    text_tokenizer_free(tokenizer);
}

static void test_a_llama_vocabulary_gets_its_merges_from_scores(void **state) {
    (void)state;
    enum { NAMED = 8 };
    const char *named[NAMED] = {"▁", "a", "b", "ab", "▁a", "bb", "abb", "▁abb"},
               *tokens[3 + 256 + NAMED];
    const float named_scores[NAMED] = {-10, -11, -12, -2, -1, -3, -4, -5};
    float scores[3 + 256 + NAMED] = {0};
    int32_t types[3 + 256 + NAMED] = {2, 3, 3};
    char bytes[256][8];
    tokens[0] = "<unk>", tokens[1] = "<s>", tokens[2] = "</s>";
    for (size_t i = 0; i < 256; i++) {
        snprintf(bytes[i], sizeof bytes[i], "<0x%02X>", (unsigned)i);
        tokens[3 + i] = bytes[i];
        types[3 + i] = 6;
    }
    for (size_t i = 0; i < NAMED; i++) {
        tokens[259 + i] = named[i];
        scores[259 + i] = named_scores[i];
        types[259 + i] = 1;
    }
    TextGgufVocab vocab = TEXT_GGUF_VOCAB_NONE;
    vocab.model = "llama";
    vocab.tokens = tokens;
    vocab.scores = scores;
    vocab.types = types;
    vocab.size = vocab.score_count = vocab.type_count = BASE_COUNT(tokens);
    TextTokenizer *tokenizer = from_gguf(&vocab);
    /* "▁a" (-1) goes before "ab" (-2), then "bb", then both together. */
    check_encode(tokenizer, "abb", TEXT_ENCODE_PROMPT, IDS(1, 266));
    check_encode(tokenizer, "aba", TEXT_ENCODE_PROMPT, IDS(1, 263, 261, 260));
    check_encode(tokenizer, "\xC3\xA9</s>", TEXT_ENCODE_PROMPT, IDS(1, 259, 3 + 0xC3, 3 + 0xA9, 2));
    char *text =
        text_tokenizer_decode(tokenizer, IDS(1, 263, 264, 259, 3 + 0xC3, 3 + 0xA9), true, NULL);
    assert_string_equal(text, "abb \xC3\xA9");
    free(text);
    text_tokenizer_free(tokenizer);
}

static void test_a_bert_vocabulary_is_spelled_back(void **state) {
    (void)state;
    const char *tokens[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁un", "able", "▁,"};
    TextGgufVocab vocab = TEXT_GGUF_VOCAB_NONE;
    vocab.model = "bert";
    vocab.tokens = tokens;
    vocab.size = BASE_COUNT(tokens);
    vocab.pad_id = 0, vocab.unk_id = 1, vocab.cls_id = 2, vocab.sep_id = 3;
    TextTokenizer *tokenizer = from_gguf(&vocab);
    check_encode(tokenizer, "Unable, able", TEXT_ENCODE_PROMPT, IDS(2, 4, 5, 6, 1, 3));
    assert_string_equal(text_tokenizer_token(tokenizer, 5), "##able");
    assert_int_equal(text_tokenizer_special_id(tokenizer, TEXT_CLS), 2);
    text_tokenizer_free(tokenizer);
}

static void test_a_t5_vocabulary_becomes_unigram(void **state) {
    (void)state;
    const char *tokens[] = {"<pad>", "</s>", "<unk>", "▁", "a", "b", "ab", "▁ab", "<x>"};
    TextGgufVocab vocab = TEXT_GGUF_VOCAB_NONE;
    vocab.model = "t5";
    vocab.tokens = tokens;
    vocab.size = vocab.score_count = vocab.type_count = BASE_COUNT(tokens);
    vocab.scores = (const float[]){0, 0, 0, -2, -3, -3, -4, -4.5f, 0};
    vocab.types = (const int32_t[]){3, 3, 2, 1, 1, 1, 1, 1, 4};
    vocab.remove_extra_whitespaces = 1;
    TextTokenizer *tokenizer = from_gguf(&vocab);
    check_encode(tokenizer, "  ab   a?<x>b ", TEXT_ENCODE_PROMPT, IDS(7, 3, 4, 2, 8, 3, 5, 1));
    char *text = text_tokenizer_decode(tokenizer, IDS(7, 3, 4, 1), true, NULL);
    assert_string_equal(text, "ab a");
    free(text);
    assert_int_equal(text_tokenizer_special_id(tokenizer, TEXT_PAD), 0);
    text_tokenizer_free(tokenizer);
    vocab.scores = NULL;
    Error err = {0};
    assert_null(text_tokenizer_json_from_gguf(&vocab, NULL, &err));
    assert_non_null(strstr(err.message, "scores is missing"));
}

/* llama.cpp's names, without "whitespace", which lowers and looks words up. */
static void test_every_pre_tokenizer_of_llama_cpp_opens(void **state) {
    (void)state;
    static const char *const names[] = {"a.x-4.0",
                                        "afmoe",
                                        "bailingmoe",
                                        "bailingmoe2",
                                        "bloom",
                                        "chameleon",
                                        "chatglm-bpe",
                                        "codeshell",
                                        "cohere2moe",
                                        "command-r",
                                        "dbrx",
                                        "deepseek-coder",
                                        "deepseek-llm",
                                        "deepseek-r1-qwen",
                                        "deepseek-v3",
                                        "default",
                                        "exaone",
                                        "exaone-moe",
                                        "exaone4",
                                        "f2llmv2",
                                        "falcon",
                                        "falcon-h1",
                                        "falcon3",
                                        "gemma4",
                                        "gigachat",
                                        "glm4",
                                        "glm5",
                                        "gpt-2",
                                        "gpt-4o",
                                        "gpt3-finnish",
                                        "granite-docling",
                                        "granite-embed-multi-311m",
                                        "granite-embed-multi-97m",
                                        "grok-2",
                                        "hunyuan",
                                        "hunyuan-dense",
                                        "hy_v4",
                                        "jais",
                                        "jais-2",
                                        "jina-de",
                                        "jina-es",
                                        "jina-v1-en",
                                        "jina-v2-code",
                                        "jina-v2-de",
                                        "jina-v2-es",
                                        "jina-v5-nano",
                                        "joyai-llm",
                                        "kanana2",
                                        "kimi-k2",
                                        "kimi-k2",
                                        "kormo",
                                        "laguna",
                                        "lfm2",
                                        "llada-moe",
                                        "llama-bpe",
                                        "llama-v3",
                                        "llama3",
                                        "llama4",
                                        "megrez",
                                        "mellum",
                                        "mellum2",
                                        "midm-2.0",
                                        "minerva-7b",
                                        "minicpm5",
                                        "minimax-m2",
                                        "modern-bert",
                                        "mpt",
                                        "olmo",
                                        "phi-2",
                                        "pixtral",
                                        "poro-chat",
                                        "qwen2",
                                        "qwen35",
                                        "refact",
                                        "roberta-bpe",
                                        "sarvam-moe",
                                        "seed-coder",
                                        "smaug-bpe",
                                        "smollm",
                                        "solar-open",
                                        "spark2_5",
                                        "stablelm2",
                                        "starcoder",
                                        "superbpe",
                                        "talkie",
                                        "tekken",
                                        "tiny_aya",
                                        "trillion",
                                        "ufakzeka",
                                        "viking",
                                        "youtu"};
    const char *tokens[] = {"a", "1", "2", "12", "<0x41>"}, *merges[] = {"1 2"};
    for (size_t i = 0; i < BASE_COUNT(names); i++) {
        TextGgufVocab vocab = TEXT_GGUF_VOCAB_NONE;
        vocab.model = "gpt2";
        vocab.pre = names[i];
        vocab.tokens = tokens;
        vocab.size = BASE_COUNT(tokens);
        vocab.merges = merges;
        vocab.merge_count = 1;
        TextTokenizer *tokenizer = from_gguf(&vocab);
        if (text_tokenizer_count(tokenizer, "a", 1) != 1) fail_msg("%s", names[i]);
        text_tokenizer_free(tokenizer);
    }
}

static void test_a_gemma4_vocabulary_merges_the_text_itself(void **state) {
    (void)state;
    enum { NAMED = 8 };
    const char *named[NAMED] = {"<bos>", "a", "b", "▁", "\n", "▁a", "▁ab", "\n\n"},
               *tokens[256 + NAMED], *merges[] = {"▁ a", "▁a b", "\n \n"};
    int32_t types[256 + NAMED] = {3, 1, 1, 1, 1, 1, 1, 1};
    char bytes[256][8];
    for (size_t i = 0; i < 256; i++) {
        snprintf(bytes[i], sizeof bytes[i], "<0x%02X>", (unsigned)i);
        tokens[NAMED + i] = bytes[i];
        types[NAMED + i] = 6;
    }
    memcpy(tokens, named, sizeof named);
    TextGgufVocab vocab = TEXT_GGUF_VOCAB_NONE;
    vocab.model = "gemma4";
    vocab.tokens = tokens;
    vocab.types = types;
    vocab.size = vocab.type_count = BASE_COUNT(tokens);
    vocab.merges = merges;
    vocab.merge_count = BASE_COUNT(merges);
    vocab.bos_id = 0;
    TextTokenizer *tokenizer = from_gguf(&vocab);
    check_encode(tokenizer, "ab ab\n\n\n\xC3\xA9", TEXT_ENCODE_PROMPT,
                 IDS(0, 1, 2, 6, 7, 4, NAMED + 0xC3, NAMED + 0xA9));
    char *text =
        text_tokenizer_decode(tokenizer, IDS(1, 6, 7, NAMED + 0xC3, NAMED + 0xA9), true, NULL);
    assert_string_equal(text, "a ab\n\n\xC3\xA9");
    free(text);
    text_tokenizer_free(tokenizer);
}

static void test_afmoe_groups_digits_from_the_right(void **state) {
    (void)state;
    const char *tokens[] = {"1", "2", "12", "122", "21", "212"},
               *merges[] = {"1 2", "2 1", "12 2", "2 12"};
    TextGgufVocab vocab = TEXT_GGUF_VOCAB_NONE;
    vocab.model = "gpt2";
    vocab.pre = "afmoe";
    vocab.tokens = tokens;
    vocab.size = BASE_COUNT(tokens);
    vocab.merges = merges;
    vocab.merge_count = BASE_COUNT(merges);
    TextTokenizer *tokenizer = from_gguf(&vocab);
    check_encode(tokenizer, "12122", TEXT_ENCODE_PROMPT, IDS(2, 3));
    check_encode(tokenizer, "1122", TEXT_ENCODE_PROMPT, IDS(0, 3));
    text_tokenizer_free(tokenizer);
}

static void test_contradicting_gguf_vocabularies_are_refused(void **state) {
    (void)state;
    const char *tokens[] = {"a", "b", "ab"}, *twice[] = {"a", "a", "ab"}, *merges[] = {"a b"},
               *odd[] = {"ab"};
    const TextGgufVocab good = {.model = "gpt2",
                                .pre = "gpt-2",
                                .tokens = tokens,
                                .size = 3,
                                .merges = merges,
                                .merge_count = 1,
                                .bos_id = -1,
                                .eos_id = -1,
                                .unk_id = -1,
                                .sep_id = -1,
                                .pad_id = -1,
                                .cls_id = -1,
                                .mask_id = -1};
    struct {
        TextGgufVocab vocab;
        const char *message;
    } cases[8];
    for (size_t i = 0; i < BASE_COUNT(cases); i++) cases[i].vocab = good;
    cases[0].vocab.model = NULL, cases[0].message = "model";
    cases[1].vocab.model = "rwkv", cases[1].message = "rwkv";
    cases[2].vocab.pre = "martian", cases[2].message = "martian";
    cases[3].vocab.tokens = twice, cases[3].message = "twice";
    cases[4].vocab.eos_id = 3, cases[4].message = "id 3";
    cases[5].vocab.merges = odd, cases[5].message = "merges";
    cases[6].vocab.types = (const int32_t[]){1}, cases[6].vocab.type_count = 1,
    cases[6].message = "token_type";
    cases[7].vocab.model = "llama", cases[7].message = "scores";
    for (size_t i = 0; i < BASE_COUNT(cases); i++) {
        Error err = {0};
        assert_null(text_tokenizer_json_from_gguf(&cases[i].vocab, NULL, &err));
        if (!strstr(err.message, cases[i].message)) fail_msg("case %zu: %s", i, err.message);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_gpt2_vocabulary_becomes_byte_level_bpe),
        cmocka_unit_test(test_a_llama_vocabulary_gets_its_merges_from_scores),
        cmocka_unit_test(test_a_bert_vocabulary_is_spelled_back),
        cmocka_unit_test(test_a_t5_vocabulary_becomes_unigram),
        cmocka_unit_test(test_every_pre_tokenizer_of_llama_cpp_opens),
        cmocka_unit_test(test_a_gemma4_vocabulary_merges_the_text_itself),
        cmocka_unit_test(test_afmoe_groups_digits_from_the_right),
        cmocka_unit_test(test_contradicting_gguf_vocabularies_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
