/* A model folder for tests about data: the golden Llama of 160 ids with a tokenizer
 * of single characters and a chat template.
 *   ids: <unk> 0, <s> 1, </s> 2, <u> 3, <a> 4, <e> 5, <y> 6, space 7, a to z 8 to 33 */
#ifndef TESTS_TUNE_TOY_MODEL_H
#define TESTS_TUNE_TOY_MODEL_H

#include "hub/folder.h"
#include "lm/lm.h"

#define TOY_TEMPLATE                                                                 \
    "{% if tools %}<y>{% endif %}{% for m in messages %}"                            \
    "{{ '<u>' if m.role == 'user' else '<a>' if m.role == 'assistant' else '<y>' }}" \
    "{{ m.content }}<e>{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"

static inline void toy_copy(const char *folder, const char *name) {
    char *from = base_path_join(GOLDEN "/lora", name), *data;
    size_t length;
    assert_true(base_file_read(from, &data, &length, NULL));
    folder_write(folder, name, data, length);
    free(data);
    free(from);
}

/* FOLDER/model */
static inline char *toy_folder(const char *folder) {
    static const char *const specials[] = {"<unk>", "<s>", "</s>", "<u>", "<a>", "<e>", "<y>"};
    char *path = base_path_join(folder, "model");
    assert_true(base_make_dirs(path, NULL));
    toy_copy(path, "config.json");
    toy_copy(path, "model.safetensors");
    json_t *vocab = json_object(), *added = json_array();
    for (int i = 0; i < 7; i++) {
        json_object_set_new(vocab, specials[i], json_integer(i));
        json_array_append_new(added, json_pack("{s:i,s:s,s:b,s:b,s:b,s:b,s:b}", "id", i, "content",
                                               specials[i], "single_word", 0, "lstrip", 0, "rstrip",
                                               0, "normalized", 0, "special", 1));
    }
    for (int i = 0; i < 27; i++) {
        char letter[2] = {i ? (char)('a' + i - 1) : ' ', 0};
        json_object_set_new(vocab, letter, json_integer(7 + i));
    }
    for (int i = 34; i < 160; i++) { /* the model's other ids, which no text reaches */
        char filler[16];
        snprintf(filler, sizeof filler, "filler%d", i);
        json_object_set_new(vocab, filler, json_integer(i));
    }
    json_t *bos = json_pack("{s:{s:s,s:[s],s:[i]}}", "<s>", "id", "<s>", "tokens", "<s>", "ids", 1);
    /* clang-format off */
    json_t *tokenizer = json_pack(
        "{s:s,s:o,s:n,s:n,s:{s:s,s:[{s:{s:s,s:i}},{s:{s:s,s:i}}],s:[],s:o},s:{s:s},"
        "s:{s:s,s:n,s:s,s:n,s:n,s:b,s:b,s:o,s:[]}}",
        "version", "1.0", "added_tokens", added, "normalizer", "pre_tokenizer",
        "post_processor", "type", "TemplateProcessing",
            "single", "SpecialToken", "id", "<s>", "type_id", 0, "Sequence", "id", "A", "type_id", 0,
            "pair", "special_tokens", bos,
        "decoder", "type", "Fuse",
        "model", "type", "BPE", "dropout", "unk_token", "<unk>", "continuing_subword_prefix",
            "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0, "vocab", vocab, "merges");
    /* clang-format on */
    assert_non_null(tokenizer);
    json_t *config = json_pack("{s:s,s:s,s:s,s:s,s:s}", "bos_token", "<s>", "eos_token", "</s>",
                               "unk_token", "<unk>", "tokenizer_class", "PreTrainedTokenizerFast",
                               "chat_template", TOY_TEMPLATE);
    char *file = base_path_join(path, "tokenizer.json");
    assert_true(base_json_save(file, tokenizer, NULL));
    free(file);
    file = base_path_join(path, "tokenizer_config.json");
    assert_true(base_json_save(file, config, NULL));
    free(file);
    json_decref(tokenizer);
    json_decref(config);
    return path;
}

static inline LmModel *toy_open(const char *folder) {
    Error err = {0};
    char *path = toy_folder(folder);
    LmModel *model = lm_model_open(path, NULL, &err);
    if (!model) fail_msg("%s", err.message);
    free(path);
    return model;
}

#endif
