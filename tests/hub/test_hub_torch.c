/* PyTorch's files: the tensors that torch 2.15 wrote (tests/golden/hub), and what
 * is refused. */
#include "hub/folder.h"
#include "hub/torch.h"

static HubModel *open_with(const char *folder, const char *golden, Error *err) {
    char *path = base_format("%s/hub/%s", GOLDEN, golden), *bytes;
    size_t length;
    assert_true(base_file_read(path, &bytes, &length, NULL));
    folder_text(folder, "config.json", CONFIG_LLAMA);
    folder_write(folder, "pytorch_model.bin", bytes, length);
    free(bytes);
    free(path);
    return hub_model_open(folder, err);
}

static void expect_tensor(const HubModel *model, const char *name, mlx_dtype dtype, int rows,
                          int columns, const float *values) {
    mx_scope scope = mx_open();
    mlx_array array = hub_model_tensor(model, name);
    if (!array.ctx) fail_msg("%s is missing", name);
    assert_int_equal(mx_dtype(array), dtype);
    assert_int_equal(mx_ndim(array), columns ? 2 : rows ? 1 : 0);
    if (rows) assert_int_equal(mx_dim(array, 0), rows);
    if (columns) assert_int_equal(mx_dim(array, 1), columns);
    float held[16];
    assert_true(mx_copy_f32(array, held, mx_size(array)));
    for (size_t i = 0; i < mx_size(array); i++)
        if (held[i] != values[i]) fail_msg("%s[%zu] is %g", name, i, (double)held[i]);
    mx_drop(scope);
}

static void expect_golden(const char *folder, const char *file) {
    static const float rows[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    static const float columns[] = {0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11};
    Error err = {0};
    HubModel *model = open_with(folder, file, &err);
    if (!model) fail_msg("%s", err.message);
    assert_int_equal(hub_model_count(model), 13);
    expect_tensor(model, "a", MLX_FLOAT32, 3, 4, rows);
    expect_tensor(model, "tied", MLX_FLOAT32, 3, 4, rows);
    expect_tensor(model, "a.transposed", MLX_FLOAT32, 4, 3, columns);
    expect_tensor(model, "a.slice", MLX_FLOAT32, 2, 2, (const float[]){4, 6, 8, 10});
    expect_tensor(model, "half", MLX_FLOAT16, 2, 0, (const float[]){1.5f, -2});
    expect_tensor(model, "brain", MLX_BFLOAT16, 2, 0, (const float[]){0.5f, 3});
    expect_tensor(model, "double", MLX_FLOAT32, 1, 0, (const float[]){0.25f});
    expect_tensor(model, "long", MLX_INT64, 2, 0, (const float[]){-7, 9});
    expect_tensor(model, "bool", MLX_BOOL, 2, 0, (const float[]){1, 0});
    expect_tensor(model, "scalar", MLX_INT32, 0, 0, (const float[]){4});
    expect_tensor(model, "parameter", MLX_FLOAT32, 2, 0, (const float[]){1, 1});
    expect_tensor(model, "expanded", MLX_UINT8, 2, 2, (const float[]){5, 6, 5, 6});
    assert_int_equal(mx_size(hub_model_tensor(model, "empty")), 0);
    hub_model_free(model);
}

static void test_zip_of_protocol_2_opens_like_safetensors(void **state) {
    expect_golden(*state, "torch_zip.bin");
}

static void test_zip_of_protocol_4_opens(void **state) {
    expect_golden(*state, "torch_zip4.bin");
}

static void test_plain_file_of_old_versions_opens(void **state) {
    expect_golden(*state, "torch_plain.bin");
}

static void test_safetensors_win_over_bin(void **state) {
    folder_safetensors(*state, "model.safetensors", HEADER_ONE, 16);
    HubModel *model = open_with(*state, "torch_zip.bin", NULL);
    assert_int_equal(hub_model_count(model), 1);
    hub_model_free(model);
}

static void test_index_names_missing_bin_shards(void **state) {
    folder_text(*state, "pytorch_model.bin.index.json",
                "{\"weight_map\": {\"a\": \"pytorch_model-00002-of-00002.bin\"}}");
    Error err = {0};
    assert_null(open_with(*state, "torch_zip.bin", &err));
    assert_non_null(strstr(err.message, "shard pytorch_model-00002-of-00002.bin is missing"));
}

static void test_code_is_refused_by_its_name(void **state) {
    Error err = {0};
    assert_null(open_with(*state, "torch_evil.bin", &err));
    assert_non_null(strstr(err.message, "pytorch_model.bin: the pickle asks for posix.system"));
}

/* Every cut of a good file ends in an error, never in a crash. */
static void test_truncated_files_are_refused(void **state) {
    static const char *const files[] = {"torch_zip.bin", "torch_plain.bin"};
    for (size_t i = 0; i < BASE_COUNT(files); i++) {
        char *path = base_format("%s/hub/%s", GOLDEN, files[i]), *bytes;
        size_t length;
        assert_true(base_file_read(path, &bytes, &length, NULL));
        folder_text(*state, "config.json", CONFIG_LLAMA);
        for (size_t cut = 0; cut < length; cut += 7) {
            Error err = {0};
            folder_write(*state, "pytorch_model.bin", bytes, cut);
            assert_null(hub_model_open(*state, &err));
            assert_true(err.message[0] != '\0');
        }
        free(bytes);
        free(path);
    }
}

#define STORAGE(elements)                               \
    "((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" \
    "0X\3\0\0\0cpuK" elements "tQ"
#define REBUILD "ctorch._utils\n_rebuild_tensor_v2\n"

static void test_damaged_pickles_are_refused(void **state) {
    (void)state;
#define ROW(text, words) \
    { text, sizeof text - 1, words }
    static const struct {
        const char *bytes;
        size_t length;
        const char *words;
    } rows[] = {
        ROW("", "ends too early"),
        ROW("\x80\x02", "ends too early"),
        ROW("\x80\x09.", "protocol 9"),
        ROW(".", "its stack is empty"),
        ROW("t.", "a mark is missing"),
        ROW("h\5.", "recalls what it never kept"),
        ROW("Nr\xff\xff\xff\x7f.", "memo's number is too large"),
        ROW("X\xff\xff\xff\xff.", "ends too early"),
        ROW("(N0N.", ""),
        ROW("cbuiltins\neval\n.", "asks for builtins.eval, refused"),
        ROW("cos\nsystem\n.", "asks for os.system, refused"),
        ROW("NNR.", "calls what is no function"),
        ROW("ctorch\nFloatStorage\n)R.", "calls a type"),
        ROW("N)\x81.", "opcode 0x81"),
        ROW("i", "opcode 0x69"),
        ROW("K\1K\2a.", "fills what is not a list"),
        ROW("N}b.", "sets attributes of what has none"),
        ROW(REBUILD STORAGE("\4") "K\0K\5\x85K\1\x85\x89NtR.", "leaves its storage"),
        ROW(REBUILD STORAGE("\4") "K\1K\4\x85K\1\x85\x89NtR.", "leaves its storage"),
        ROW(REBUILD STORAGE("\4") "J\xff\xff\xff\xffK\4\x85K\1\x85\x89NtR.", "is not described"),
        ROW(REBUILD STORAGE("\4") "K\0K\2K\2\x86\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x8a\x08"
                                  "\xff\xff\xff\xff\xff"
                                  "\xff\xff\x7f\x86\x89NtR.",
            "leaves its storage"),
        ROW(REBUILD "(NK\0)))tR.", "is not described"),
    };
    for (size_t i = 0; i < BASE_COUNT(rows); i++) {
        Error err = {0};
        Arena *arena = base_arena_new();
        const PickleValue *value =
            pickle_read((const uint8_t *)rows[i].bytes, rows[i].length, arena, NULL, &err);
        if (rows[i].words[0] && value) fail_msg("row %zu was read", i);
        if (!strstr(err.message, rows[i].words))
            fail_msg("row %zu: \"%s\" lacks \"%s\"", i, err.message, rows[i].words);
        base_arena_free(arena);
    }
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, folder_make, folder_drop)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_zip_of_protocol_2_opens_like_safetensors),
        IN_FOLDER(test_zip_of_protocol_4_opens),
        IN_FOLDER(test_plain_file_of_old_versions_opens),
        IN_FOLDER(test_safetensors_win_over_bin),
        IN_FOLDER(test_index_names_missing_bin_shards),
        IN_FOLDER(test_code_is_refused_by_its_name),
        IN_FOLDER(test_truncated_files_are_refused),
        cmocka_unit_test(test_damaged_pickles_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
