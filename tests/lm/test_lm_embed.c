/* Embedders and rerankers on a tiny BERT with a word-level vocabulary made here:
 * a batch equals its texts one by one, prompts and pooling follow the folder,
 * long texts are cut and counted, bad folders are refused with one line. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lm/embed_folder.h"
#include "lm/lm.h"
#include "mx/mx.h"
#include "text/text.h"

enum { DIM = 64, POSITIONS = 128 };

/* ---- folders made for a test ----------------------------------------------------------- */

static void put(const char *folder, const char *name, const char *text) {
    Error err = {0};
    char *path = base_path_join(folder, name);
    if (!base_file_write(path, text, strlen(text), &err)) fail_msg("%s", err.message);
    free(path);
}

/* The golden model `name` with a tokenizer of `size` words beside it. */
static char *make_folder(const char *name, int size) {
    char *folder = base_strdup("/tmp/test_lm_embed_XXXXXX");
    assert_non_null(mkdtemp(folder));
    embed_fill(folder, name, size);
    return folder;
}

static void remove_folder(char *folder) {
    Error err = {0};
    char **names;
    size_t count;
    assert_true(base_list_dir(folder, &names, &count, &err));
    for (size_t i = 0; i < count; i++) {
        char *path = base_path_join(folder, names[i]);
        if (base_is_dir(path)) {
            remove_folder(base_strdup(path));
        } else {
            unlink(path);
        }
        free(path);
        free(names[i]);
    }
    free(names);
    rmdir(folder);
    free(folder);
}

static LmEmbedder *open_embedder(const char *folder) {
    Error err = {0};
    LmEmbedder *embedder = lm_embedder_open(folder, NULL, &err);
    if (!embedder) fail_msg("%s", err.message);
    return embedder;
}

static void encode(LmEmbedder *embedder, const char *const *texts, size_t count, LmEmbedKind kind,
                   float *out, size_t *truncated) {
    Error err = {0};
    if (!lm_embedder_encode(embedder, texts, count, kind, out, truncated, &err))
        fail_msg("%s", err.message);
}

static double distance(const float *a, const float *b) {
    double most = 0;
    for (int i = 0; i < DIM; i++) most = fmax(most, fabs((double)a[i] - b[i]));
    return most;
}

/* ---- embedders ---------------------------------------------------------------------------- */

static const char *const texts[] = {
    "w5 w6 w7", "w9",
    "",         "w10 w11 w12 w13 w14 w15 w16 w17 w18 w19 w20 w21",
    "w5 w6 w7", "w30 nonsense w31 w32",
};
enum { TEXTS = BASE_COUNT(texts) };

static void test_a_batch_equals_its_texts_one_by_one(void **state) {
    (void)state;
    char *folder = make_folder("bert", 160);
    LmEmbedder *embedder = open_embedder(folder);
    assert_int_equal(lm_embedder_dim(embedder), DIM);
    assert_int_equal(lm_embedder_max_tokens(embedder), POSITIONS);
    assert_string_equal(lm_embedder_pooling(embedder), "mean");
    float together[TEXTS][DIM], alone[DIM];
    encode(embedder, texts, TEXTS, LM_EMBED_PLAIN, together[0], NULL);
    for (int i = 0; i < TEXTS; i++) {
        encode(embedder, &texts[i], 1, LM_EMBED_PLAIN, alone, NULL);
        assert_true(distance(together[i], alone) < 1e-5);
        double length = 0;
        for (int d = 0; d < DIM; d++) length += (double)alone[d] * alone[d];
        assert_float_equal(length, 1, 1e-5);
    }
    assert_true(distance(together[0], together[4]) < 1e-6);
    assert_true(distance(together[0], together[1]) > 1e-2);
    lm_embedder_close(embedder);
    remove_folder(folder);
}

static void test_vectors_match_the_golden_mean(void **state) {
    (void)state;
    Error err = {0};
    mlx_array embedding, hidden, logits;
    const int ids[] = {2, 5, 6, 7, 3};
    char *folder = make_folder("bert", 160);
    if (!lm_inspect(folder, &(LmOpenOptions){.dtype = "float32"}, ids, 5, &logits, &hidden,
                    &embedding, NULL, &err))
        fail_msg("%s", err.message);
    LmEmbedder *embedder = open_embedder(folder);
    float vector[DIM], inspected[DIM];
    encode(embedder, texts, 1, LM_EMBED_PLAIN, vector, NULL);
    mx_scope s = mx_open();
    assert_true(mx_copy_f32(embedding, inspected, DIM));
    mx_drop(s);
    assert_int_equal(mx_dim(hidden, 1), 5);
    assert_true(mx_empty(logits));
    assert_true(distance(vector, inspected) < 0.02); /* the file is bfloat16 */
    mlx_array_free(embedding);
    mlx_array_free(hidden);
    lm_embedder_close(embedder);
    remove_folder(folder);
}

static void test_long_texts_are_cut_and_counted(void **state) {
    (void)state;
    char *folder = make_folder("bert", 160);
    put(folder, "sentence_bert_config.json", "{\"max_seq_length\": 8}");
    LmEmbedder *embedder = open_embedder(folder);
    assert_int_equal(lm_embedder_max_tokens(embedder), 8);
    const char *const both[] = {"w5 w6 w7 w8 w9 w10 w11 w12 w13", "w5 w6 w7 w8 w9 w10"};
    float out[2][DIM];
    size_t truncated;
    encode(embedder, both, 2, LM_EMBED_PLAIN, out[0], &truncated);
    assert_int_equal(truncated, 1);
    assert_true(distance(out[0], out[1]) < 1e-6);
    lm_embedder_close(embedder);
    remove_folder(folder);
}

static void test_prompts_go_before_queries_and_documents(void **state) {
    (void)state;
    char *folder = make_folder("bert", 160);
    put(folder, "config_sentence_transformers.json",
        "{\"prompts\": {\"query\": \"w40 \", \"passage\": \"w41 \"}}");
    LmEmbedder *embedder = open_embedder(folder);
    const char *const word[] = {"w5"}, *const asked[] = {"w40 w5"}, *const told[] = {"w41 w5"};
    float got[DIM], expected[DIM];
    encode(embedder, word, 1, LM_EMBED_QUERY, got, NULL);
    encode(embedder, asked, 1, LM_EMBED_PLAIN, expected, NULL);
    assert_true(distance(got, expected) < 1e-6);
    encode(embedder, word, 1, LM_EMBED_DOCUMENT, got, NULL);
    encode(embedder, told, 1, LM_EMBED_PLAIN, expected, NULL);
    assert_true(distance(got, expected) < 1e-6);
    lm_embedder_close(embedder);
    remove_folder(folder);
}

static char *module_folder(const char *pooling, const char *tail) {
    char *folder = make_folder("bert", 160), *inner = base_path_join(folder, "1_Pooling");
    Error err = {0};
    assert_true(base_make_dirs(inner, &err));
    put(inner, "config.json", pooling);
    char *modules = base_format(
        "[{\"idx\": 0, \"name\": \"0\", \"path\": \"\", \"type\": \"x.Transformer\"},"
        "{\"idx\": 1, \"name\": \"1\", \"path\": \"1_Pooling\", \"type\": \"x.Pooling\"}%s]",
        tail);
    put(folder, "modules.json", modules);
    free(modules);
    free(inner);
    return folder;
}

static void test_pooling_and_normalising_follow_the_folder(void **state) {
    (void)state;
    char *folder =
        module_folder("{\"word_embedding_dimension\": 64, \"pooling_mode_cls_token\": true,"
                      "\"pooling_mode_mean_tokens\": false, \"pooling_mode_max_tokens\": true}",
                      "");
    LmEmbedder *embedder = open_embedder(folder);
    assert_int_equal(lm_embedder_dim(embedder), 2 * DIM);
    assert_string_equal(lm_embedder_pooling(embedder), "cls+max");
    float out[2 * DIM];
    encode(embedder, texts, 1, LM_EMBED_PLAIN, out, NULL);
    for (int i = 0; i < DIM; i++) assert_true(out[DIM + i] >= out[i]);
    lm_embedder_close(embedder);
    remove_folder(folder);

    folder = module_folder(
        "{\"pooling_mode\": \"lasttoken\"}",
        ", {\"idx\": 2, \"name\": \"2\", \"path\": \"2_Normalize\", \"type\": \"x.Normalize\"}");
    embedder = open_embedder(folder);
    assert_string_equal(lm_embedder_pooling(embedder), "lasttoken");
    encode(embedder, texts, 1, LM_EMBED_PLAIN, out, NULL);
    double length = 0;
    for (int i = 0; i < DIM; i++) length += (double)out[i] * out[i];
    assert_float_equal(length, 1, 1e-5);
    lm_embedder_close(embedder);
    remove_folder(folder);
}

static void test_identity_tells_models_apart(void **state) {
    (void)state;
    char *one = make_folder("bert", 160), *two = make_folder("bert-reranker", 160);
    LmEmbedder *a = open_embedder(one), *b = open_embedder(one), *c = open_embedder(two);
    assert_int_equal(strlen(lm_embedder_identity(a)), 16);
    assert_string_equal(lm_embedder_identity(a), lm_embedder_identity(b));
    assert_string_not_equal(lm_embedder_identity(a), lm_embedder_identity(c));
    lm_embedder_close(a);
    lm_embedder_close(b);
    lm_embedder_close(c);
    remove_folder(one);
    remove_folder(two);
}

/* ---- rerankers ------------------------------------------------------------------------------ */

static void test_scores_of_a_batch_equal_single_ones(void **state) {
    (void)state;
    Error err = {0};
    char *folder = make_folder("bert-reranker", 160);
    LmReranker *reranker = lm_reranker_open(folder, NULL, &err);
    if (!reranker) fail_msg("%s", err.message);
    float together[TEXTS], alone;
    assert_true(lm_reranker_score(reranker, "w5 w9", texts, TEXTS, together, &err));
    for (int i = 0; i < TEXTS; i++) {
        assert_true(lm_reranker_score(reranker, "w5 w9", &texts[i], 1, &alone, &err));
        assert_float_equal(alone, together[i], 0.02);
    }
    StrBuf many = {0};
    for (int i = 0; i < 300; i++) base_str_append(&many, "w7 ");
    const char *const endless[] = {many.data};
    assert_true(lm_reranker_score(reranker, many.data, endless, 1, &alone, &err));
    assert_true(isfinite(alone));
    base_str_free(&many);
    lm_reranker_close(reranker);
    remove_folder(folder);
}

/* ---- bad folders ------------------------------------------------------------------------------
 */

static void expect_refusal(char *folder, bool reranker, const char *part) {
    Error err = {0};
    assert_null(reranker ? (void *)lm_reranker_open(folder, NULL, &err)
                         : (void *)lm_embedder_open(folder, NULL, &err));
    if (!strstr(err.message, part)) fail_msg("\"%s\" lacks \"%s\"", err.message, part);
    remove_folder(folder);
}

static void test_bad_folders_are_refused_with_one_line(void **state) {
    (void)state;
    expect_refusal(make_folder("bert", 161), false,
                   "the tokenizer knows 161 ids, the model has 160");
    expect_refusal(make_folder("bert", 100), false,
                   "the tokenizer knows 100 ids, the model has 160");
    expect_refusal(make_folder("llama", 160), false, "\"llama\" is not an encoder");
    expect_refusal(make_folder("bert", 160), true, "a reranker has one label, this model has 0");
    expect_refusal(module_folder("{\"pooling_mode\": \"median\"}", ""), false,
                   "pooling_mode \"median\"");
    expect_refusal(module_folder("{}", ", {\"type\": \"x.Mystery\", \"path\": \"2\"}"), false,
                   "\"Mystery\"");
    char *folder = make_folder("bert", 160);
    put(folder, "sentence_bert_config.json", "{broken");
    expect_refusal(folder, false, "sentence_bert_config.json");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_batch_equals_its_texts_one_by_one),
        cmocka_unit_test(test_vectors_match_the_golden_mean),
        cmocka_unit_test(test_long_texts_are_cut_and_counted),
        cmocka_unit_test(test_prompts_go_before_queries_and_documents),
        cmocka_unit_test(test_pooling_and_normalising_follow_the_folder),
        cmocka_unit_test(test_identity_tells_models_apart),
        cmocka_unit_test(test_scores_of_a_batch_equal_single_ones),
        cmocka_unit_test(test_bad_folders_are_refused_with_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
