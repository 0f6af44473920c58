/* Model folders as people have them: other tokenizer files, and broken in the ways
 * that happen. Each complaint is one line, and nothing is left under the target. */
#include "cli/tiny_model.h"

#include <sys/mount.h>
#include <sys/resource.h>

/* *state/name, a copy of the tiny folder; caller frees. */
static char *copy_of_tiny(void **state, const char *name) {
    char *from = tiny_path(state), *to = base_path_join(*state, name), **names = NULL;
    size_t count = 0;
    folder_remove(to);
    assert_int_equal(mkdir(to, 0777), 0);
    assert_true(base_list_dir(from, &names, &count, NULL));
    for (size_t i = 0; i < count; i++) {
        char *path = base_path_join(from, names[i]), *bytes = NULL;
        size_t length = 0;
        assert_true(base_file_read(path, &bytes, &length, NULL));
        folder_write(to, names[i], bytes, length);
        free(bytes);
        free(path);
        free(names[i]);
    }
    free(names);
    free(from);
    return to;
}

/* Sets or, with NULL, removes a key of a JSON file. */
static void change(const char *folder, const char *file, const char *object, const char *key,
                   json_t *value) {
    char *path = base_path_join(folder, file);
    json_t *json = base_json_load(path, NULL), *place = json;
    assert_non_null(json);
    if (object) place = json_object_get(json, object);
    if (value)
        json_object_set_new(place, key, value);
    else
        json_object_del(place, key);
    assert_true(base_json_save(path, json, NULL));
    json_decref(json);
    free(path);
}

static void drop_file(const char *folder, const char *name) {
    char *path = base_path_join(folder, name);
    assert_int_equal(unlink(path), 0);
    free(path);
}

static void expect_nothing_at(void **state, const char *target) {
    char **names = NULL;
    size_t count = 0;
    assert_true(base_list_dir(*state, &names, &count, NULL));
    for (size_t i = 0; i < count; i++) {
        if (strstr(names[i], target)) fail_msg("%s was left behind", names[i]);
        free(names[i]);
    }
    free(names);
}

/* ---- other tokenizers ------------------------------------------------------------------- */

static void put_field(StrBuf *out, int field, const void *bytes, size_t length) {
    base_str_append_char(out, (char)(field << 3 | 2));
    base_str_append_char(out, (char)length);
    base_str_append_n(out, bytes, length);
}

/* A piece of a SentencePiece model: its text and its type. */
static void put_piece(StrBuf *model, const char *text, char type) {
    StrBuf piece = {0};
    put_field(&piece, 1, text, strlen(text));
    base_str_append_n(&piece, "\x15\0\0\0\0\x18", 6); /* score 0, then the type */
    base_str_append_char(&piece, type);
    put_field(model, 1, piece.data, piece.length);
    base_str_free(&piece);
}

static void write_sentencepiece(const char *folder) {
    enum { UNKNOWN = 2, CONTROL = 3, BYTE = 6 };
    StrBuf model = {0};
    put_piece(&model, "<unk>", UNKNOWN);
    put_piece(&model, "<s>", CONTROL);
    put_piece(&model, "</s>", CONTROL);
    for (int i = 0; i < 256; i++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", i);
        put_piece(&model, text, BYTE);
    }
    put_field(&model, 2, "\x18\x02\x98\x02\x01", 5); /* byte pair encoding, byte fallback */
    folder_write(folder, "tokenizer.model", model.data, model.length);
    base_str_free(&model);
}

static void test_a_folder_with_only_a_sentencepiece_model_works_everywhere(void **state) {
    char *folder = copy_of_tiny(state, "sentencepiece"), *copy = base_path_join(*state, "copy");
    drop_file(folder, "tokenizer.json");
    drop_file(folder, "tokenizer_config.json");
    drop_file(folder, "special_tokens_map.json");
    write_sentencepiece(folder);
    Outcome outcome = program_run(NULL, "convert", "--hf-path", folder, "--mlx-path", copy, NULL);
    if (outcome.status != 0) fail_msg("%s", outcome.err);
    outcome_free(&outcome);
    json_t *info = expect_json(program_run(NULL, "model", "info", copy, "--json", NULL));
    assert_string_equal(json_string_value(json_object_get(json_array_get(info, 0), "tokenizer")),
                        "tokenizer.model");
    json_decref(info);
    json_t *lines = expect_json(program_run(NULL, "generate", "--model", copy, "--prompt", "he",
                                            "-m", "3", "--ignore-chat-template", "--json", NULL));
    assert_int_equal(json_array_size(json_object_get(json_array_get(lines, 0), "tokens")), 3);
    json_decref(lines);
    free(copy);
    free(folder);
}

/* ---- broken folders --------------------------------------------------------------------- */

/* Every command that opens a model says the same, and leaves nothing. */
static void expect_refused(void **state, const char *folder, const char *words) {
    char *target = base_path_join(*state, "target");
    const char *const commands[][6] = {
        {"convert", "--hf-path", folder, "--mlx-path", target},
        {"model", "quantize", "--model", folder, "--output", target},
        {"model", "dequantize", "--model", folder, "--output", target},
        {"model", "export", "--model", folder, "--output", target},
        {"generate", "--model", folder, "--prompt", "x"},
        {"inspect", "logits", "--model", folder, "--tokens=5", "--output=/dev/null"},
    };
    for (size_t i = 0; i < BASE_COUNT(commands); i++) {
        const char *const *word = commands[i];
        Outcome outcome =
            program_run(NULL, word[0], word[1], word[2], word[3], word[4], word[5], NULL);
        char *line = strstr(outcome.err, "mlx-rag: ");
        if (outcome.status != 1 || !line || !strstr(line, words) ||
            strchr(line, '\n') != line + strlen(line) - 1)
            fail_msg("%s %s: status %d, \"%s\"", word[0], word[1], outcome.status, outcome.err);
        outcome_free(&outcome);
    }
    expect_nothing_at(state, "target");
    free(target);
}

static void test_a_missing_shard_is_named(void **state) {
    char *folder = copy_of_tiny(state, "shard");
    change(folder, "model.safetensors.index.json", "weight_map", "model.norm.weight",
           json_string("model-00002-of-00002.safetensors"));
    expect_refused(state, folder, "index.json: shard model-00002-of-00002.safetensors is missing");
    free(folder);
}

static void test_an_index_of_absent_tensors_is_refused(void **state) {
    char *folder = copy_of_tiny(state, "absent");
    change(folder, "model.safetensors.index.json", "weight_map", "model.layers.9.x.weight",
           json_string("model.safetensors"));
    expect_refused(state, folder,
                   "index.json: tensor model.layers.9.x.weight is not in model.safetensors");
    free(folder);
}

static void test_a_tensor_of_a_wrong_shape_is_named(void **state) {
    char *folder = copy_of_tiny(state, "shape");
    change(folder, "config.json", NULL, "intermediate_size", json_integer(96));
    expect_refused(state, folder,
                   "shape: tensor model.layers.0.mlp.gate_proj.weight is 64x32, the model needs "
                   "96x32");
    free(folder);
}

static void test_configs_that_say_too_little_or_nonsense_are_refused(void **state) {
    char *folder = copy_of_tiny(state, "config");
    change(folder, "config.json", NULL, "quantization",
           json_pack("{s:i,s:i,s:s}", "group_size", 64, "bits", 4, "mode", "zfp4"));
    expect_refused(state, folder, "config.json: quantization: unknown mode \"zfp4\"");
    change(folder, "config.json", NULL, "quantization", NULL);
    change(folder, "config.json", NULL, "model_type", NULL);
    expect_refused(state, folder, "config.json: model_type is missing");
    folder_text(folder, "config.json", "");
    expect_refused(state, folder, "config.json: not valid JSON");
    drop_file(folder, "config.json");
    expect_refused(state, folder, "no config.json, so this is not a model folder");
    free(folder);
}

static void test_a_link_out_of_the_folder_is_not_copied(void **state) {
    char *folder = copy_of_tiny(state, "link"), *target = base_path_join(*state, "target");
    char *link = base_path_join(folder, "vocab.txt");
    assert_int_equal(symlink("/etc/hostname", link), 0);
    expect_complaint(program_run(NULL, "convert", "--hf-path", folder, "--mlx-path", target, NULL),
                     1, "vocab.txt: is a link to /etc/hostname, outside of the model's folder");
    expect_nothing_at(state, "target");
    free(link);
    free(target);
    free(folder);
}

/* Moves folder/name to elsewhere, and leaves a link with this text. */
static void link_away(const char *folder, const char *name, const char *elsewhere,
                      const char *text) {
    char *path = base_path_join(folder, name);
    assert_int_equal(rename(path, elsewhere), 0);
    assert_int_equal(symlink(text, path), 0);
    free(path);
}

static void test_a_link_out_of_the_folder_is_not_read(void **state) {
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json",
                                        "tokenizer_config.json"};
    char *elsewhere = base_path_join(*state, "stranger"), *real = realpath(*state, NULL);
    char *target = base_path_join(*state, "target"), *model = tiny_path(state);
    for (size_t i = 0; i < BASE_COUNT(files); i++) {
        char *folder = copy_of_tiny(state, "linked");
        char *complaint = base_format("%s: is a link to %s/stranger, outside of the model's folder",
                                      files[i], real);
        link_away(folder, files[i], elsewhere, elsewhere);
        expect_complaint(
            program_run(NULL, "convert", "--hf-path", folder, "--mlx-path", target, NULL), 1,
            complaint);
        expect_complaint(program_run(NULL, "generate", "--model", folder, "--prompt", "x", NULL), 1,
                         complaint);
        expect_nothing_at(state, "target");
        free(complaint);
        free(folder);
    }
    char *adapter = base_path_join(*state, "far");
    assert_int_equal(mkdir(adapter, 0777), 0);
    folder_text(adapter, "adapter_config.json", "{\"fine_tune_type\": \"full\"}");
    folder_text(adapter, "adapters.safetensors", "");
    link_away(adapter, "adapters.safetensors", elsewhere, elsewhere);
    expect_complaint(program_run(NULL, "fuse", "--model", model, "--adapter-path", adapter,
                                 "--save-path", target, NULL),
                     1, "adapters.safetensors: is a link to ");
    expect_nothing_at(state, "target");
    free(adapter);
    free(model);
    free(target);
    free(real);
    free(elsewhere);
}

/* Hugging Face's cache: snapshots/REVISION/FILE links to ../../blobs/HASH. */
static void test_links_into_the_blobs_of_a_cache_are_read(void **state) {
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json"};
    char *from = copy_of_tiny(state, "plain"), *repo = base_path_join(*state, "models--a--b");
    char *blobs = base_path_join(repo, "blobs"), *snapshots = base_path_join(repo, "snapshots");
    char *snapshot = base_path_join(snapshots, "0123"), *target = base_path_join(*state, "copied");
    assert_true(base_make_dirs(blobs, NULL) && base_make_dirs(snapshots, NULL));
    assert_int_equal(rename(from, snapshot), 0);
    for (size_t i = 0; i < BASE_COUNT(files); i++) {
        char *blob = base_format("%s/%zu", blobs, i), *text = base_format("../../blobs/%zu", i);
        link_away(snapshot, files[i], blob, text);
        free(text);
        free(blob);
    }
    Outcome outcome =
        program_run(NULL, "convert", "--hf-path", snapshot, "--mlx-path", target, NULL);
    assert_int_equal(outcome.status, 0);
    outcome_free(&outcome);
    outcome = program_run(NULL, "generate", "--model", snapshot, "--prompt", "x", "--max-tokens",
                          "1", NULL);
    assert_int_equal(outcome.status, 0);
    outcome_free(&outcome);
    folder_remove(target);
    free(target);
    free(snapshot);
    free(snapshots);
    free(blobs);
    free(repo);
    free(from);
}

static void test_an_adapter_of_another_model_is_refused(void **state) {
    char *model = tiny_path(state), *adapter = base_path_join(*state, "adapter");
    char *target = base_path_join(*state, "target");
    assert_int_equal(mkdir(adapter, 0777), 0);
    folder_text(adapter, "adapter_config.json",
                "{\"fine_tune_type\": \"lora\", \"num_layers\": 2, \"lora_parameters\": {\"rank\": "
                "4, \"scale\": 2.0, \"dropout\": 0.0, \"keys\": [\"self_attn.q_proj\"]}}");
    folder_safetensors(
        adapter, "adapters.safetensors",
        "{\"model.layers.0.self_attn.q_proj.lora_a\":{\"dtype\":\"F32\",\"shape\":[64,4],"
        "\"data_offsets\":[0,1024]},\"model.layers.0.self_attn.q_proj.lora_b\":{\"dtype\":\"F32\","
        "\"shape\":[4,64],\"data_offsets\":[1024,2048]}}",
        2048);
    expect_complaint(program_run(NULL, "fuse", "--model", model, "--adapter-path", adapter,
                                 "--save-path", target, NULL),
                     1, "Was this adapter trained on another model?");
    expect_complaint(program_run(NULL, "generate", "--model", model, "--adapter-path", adapter,
                                 "--prompt", "x", NULL),
                     1, "Was this adapter trained on another model?");
    expect_nothing_at(state, "target");
    free(target);
    free(adapter);
    free(model);
}

/* ---- no room ------------------------------------------------------------------------------ */

/* Files may not grow past 60 kB: the weights stop half-way. */
static void test_a_write_that_fails_half_way_leaves_nothing(void **state) {
    char *model = tiny_path(state), *target = base_path_join(*state, "target");
    char *file = base_path_join(*state, "target.gguf");
    struct rlimit usual, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &usual), 0);
    small = usual;
    small.rlim_cur = 60000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    Outcome folder = program_run(NULL, "convert", "--hf-path", model, "--mlx-path", target, NULL);
    Outcome gguf = program_run(NULL, "model", "export", "--model", model, "--output", file, NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &usual), 0);
    expect_complaint(folder, 1, "model.safetensors: cannot write: File too large");
    expect_complaint(gguf, 1, "target.gguf: cannot write: File too large");
    expect_nothing_at(state, "target");
    free(file);
    free(target);
    free(model);
}

static void test_a_full_disk_is_noticed_before_writing(void **state) {
#ifdef __linux__
    char *model = tiny_path(state), *disk = base_path_join(*state, "disk");
    char *target = base_path_join(disk, "target");
    assert_int_equal(mkdir(disk, 0777), 0);
    bool mounted = mount("none", disk, "tmpfs", 0, "size=64k") == 0;
    if (mounted) {
        Outcome outcome =
            program_run(NULL, "convert", "--hf-path", model, "--mlx-path", target, NULL);
        char **names = NULL;
        size_t count = 0;
        assert_true(base_list_dir(disk, &names, &count, NULL));
        umount(disk);
        assert_int_equal(count, 0);
        free(names);
        expect_complaint(outcome, 1, "the model takes 115.7 kB and the disk has room for 65.5 kB");
    }
    free(target);
    free(disk);
    free(model);
    if (!mounted) skip(); /* that is for root */
#else
    (void)state;
    skip();
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_folder_with_only_a_sentencepiece_model_works_everywhere),
        cmocka_unit_test(test_a_missing_shard_is_named),
        cmocka_unit_test(test_an_index_of_absent_tensors_is_refused),
        cmocka_unit_test(test_a_tensor_of_a_wrong_shape_is_named),
        cmocka_unit_test(test_configs_that_say_too_little_or_nonsense_are_refused),
        cmocka_unit_test(test_a_link_out_of_the_folder_is_not_copied),
        cmocka_unit_test(test_a_link_out_of_the_folder_is_not_read),
        cmocka_unit_test(test_links_into_the_blobs_of_a_cache_are_read),
        cmocka_unit_test(test_an_adapter_of_another_model_is_refused),
        cmocka_unit_test(test_a_write_that_fails_half_way_leaves_nothing),
        cmocka_unit_test(test_a_full_disk_is_noticed_before_writing),
    };
    return cmocka_run_group_tests_name("cli folders", tests, tiny_make, folder_drop);
}
