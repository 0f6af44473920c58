/* npz: round trips, files of NumPy and MLX, hostile files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mx/mx.h"

#include <unistd.h>

static char folder[] = "/tmp/mlx-rag-npz-XXXXXX";

static int setup(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : 1;
}

static int teardown(void **state) {
    (void)state;
    char **names;
    size_t count;
    if (!base_list_dir(folder, &names, &count, NULL)) return 1;
    for (size_t i = 0; i < count; i++) {
        char *path = base_path_join(folder, names[i]);
        unlink(path);
        free(path);
        free(names[i]);
    }
    free(names);
    return rmdir(folder);
}

static const char *in_folder(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* What a file holds, as text: "name dtype[shape] first-number;". */
static void describe(void *context, const char *name, mlx_array array) {
    StrBuf *text = context;
    mx_scope s = mx_open();
    const double first =
        mx_item_float(mx_slice(mx_reshape(array, MX_SHAPE((int)mx_size(array))), 0, 0, 1));
    base_str_appendf(text, "%s %s %g;", name, mx_describe(array), first);
    mx_drop(s);
}

static bool load(const char *path, StrBuf *text, Error *err) {
    return mx_load_npz(path, (MxFileVisitor){.tensor = describe, .context = text}, err);
}

static void assert_holds(const char *path, const char *expected) {
    StrBuf text = {0};
    Error err = {0};
    if (!load(path, &text, &err)) fail_msg("%s", err.message);
    assert_string_equal(text.data, expected);
    base_str_free(&text);
}

static void save_three(const char *name, bool compress) {
    static const char *const names[] = {"a", "layer.0/w", "h\xc3\xa9"};
    mx_scope s = mx_open();
    const float numbers[6] = {1.5f, 2, 3, 4, 5, 6};
    mlx_array a = mx_from_f32(numbers, MX_SHAPE(2, 3));
    const mlx_array arrays[] = {a, mx_cast(mx_transpose(a, (int[]){1, 0}, 2), MLX_BFLOAT16),
                                mx_scalar(7, MLX_INT64)};
    Error err = {0};
    if (!mx_save_npz(in_folder(name), names, arrays, 3, compress, &err))
        fail_msg("%s", err.message);
    mx_drop(s);
}

static const char three[] = "a float32[2, 3] 1.5;layer.0/w bfloat16[3, 2] 1.5;h\xc3\xa9 int64[] 7;";

static void test_stored_and_deflated_arrays_come_back(void **state) {
    (void)state;
    save_three("stored", false);
    save_three("deflated.npz", true);
    assert_holds(in_folder("stored.npz"), three);
    assert_holds(in_folder("deflated.npz"), three);
}

static void test_equal_arrays_make_equal_files(void **state) {
    (void)state;
    char *one, *two;
    size_t one_length, two_length;
    save_three("one.npz", false);
    save_three("two.npz", false);
    assert_true(base_file_read(in_folder("one.npz"), &one, &one_length, NULL));
    assert_true(base_file_read(in_folder("two.npz"), &two, &two_length, NULL));
    assert_int_equal(one_length, two_length);
    assert_memory_equal(one, two, one_length);
    free(one);
    free(two);
}

static void test_files_of_numpy_and_mlx_are_read(void **state) {
    (void)state;
    assert_holds(
        GOLDEN "/engine/numpy.npz",
        "plain float32[2, 3] 0;columns int32[3, 2] 0;big uint16[2] 258;scalar float64[] 0.5;");
    assert_holds(GOLDEN "/engine/numpy_deflated.npz", "zeros float32[100, 100] 0;");
    assert_holds(GOLDEN "/engine/mlx.npz", "ids int32[4] 9;w bfloat16[2, 2] 1;");
}

static void refuse(const char *path, const char *says) {
    StrBuf text = {0};
    Error err = {0};
    assert_false(load(path, &text, &err));
    if (!strstr(err.message, says)) fail_msg("\"%s\" does not say \"%s\"", err.message, says);
    assert_false(mx_failed());
    base_str_free(&text);
}

static void write_bytes(const char *name, const void *bytes, size_t length) {
    assert_true(base_file_write(in_folder(name), bytes, length, NULL));
}

static void test_what_is_no_npz_is_refused(void **state) {
    (void)state;
    write_bytes("bad.npz", "not a zip file at all, just words", 33);
    refuse(in_folder("bad.npz"), "bad.npz");
    write_bytes("bad.npz", "", 0);
    refuse(in_folder("bad.npz"), "bad.npz");
    refuse(in_folder("none.npz"), "no such file");
    refuse(GOLDEN "/engine/numpy_text.npz", "words.npy");
}

static void test_truncated_and_flipped_files_never_crash(void **state) {
    (void)state;
    char *bytes;
    size_t length;
    save_three("whole.npz", true);
    assert_true(base_file_read(in_folder("whole.npz"), &bytes, &length, NULL));
    for (size_t keep = 0; keep < length; keep += 3) {
        StrBuf text = {0};
        Error err = {0};
        write_bytes("cut.npz", bytes, keep);
        if (load(in_folder("cut.npz"), &text, &err))
            assert_true(strncmp(three, text.data ? text.data : "", text.length) == 0);
        base_str_free(&text);
    }
    for (size_t at = 0; at < length; at += 2) {
        StrBuf text = {0};
        Error err = {0};
        bytes[at] = (char)(bytes[at] ^ 0x40);
        write_bytes("cut.npz", bytes, length);
        load(in_folder("cut.npz"), &text, &err);
        bytes[at] = (char)(bytes[at] ^ 0x40);
        base_str_free(&text);
    }
    free(bytes);
}

static void test_a_damaged_array_fails_its_checksum(void **state) {
    (void)state;
    char *bytes;
    size_t length;
    save_three("sum.npz", false);
    assert_true(base_file_read(in_folder("sum.npz"), &bytes, &length, NULL));
    static const float second = 2;
    char *at = memmem(bytes, length, &second, sizeof second);
    assert_non_null(at);
    *at = 1;
    write_bytes("sum.npz", bytes, length);
    refuse(in_folder("sum.npz"), "a.npy");
    free(bytes);
}

static void test_what_cannot_be_saved_leaves_no_file(void **state) {
    (void)state;
    Error err = {0};
    mx_scope s = mx_open();
    const mlx_array arrays[] = {mx_scalar(1, MLX_FLOAT32), mx_zeros(MX_SHAPE(0, 2), MLX_FLOAT32)};
    assert_false(
        mx_save_npz(in_folder("no.npz"), (const char *[]){"x", "empty"}, arrays, 2, false, &err));
    assert_non_null(strstr(err.message, "cannot serialize an empty array"));
    assert_non_null(strstr(err.message, "empty"));
    assert_false(base_is_file(in_folder("no.npz")));
    base_error_clear(&err);
    assert_false(mx_save_npz(in_folder("no.npz"), (const char *[]){""}, arrays, 1, false, &err));
    base_error_clear(&err);
    assert_false(mx_save_npz("/nonexistent/x", (const char *[]){"x"}, arrays, 1, false, &err));
    assert_non_null(strstr(err.message, "/nonexistent"));
    assert_false(mx_failed());
    mx_drop(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stored_and_deflated_arrays_come_back),
        cmocka_unit_test(test_equal_arrays_make_equal_files),
        cmocka_unit_test(test_files_of_numpy_and_mlx_are_read),
        cmocka_unit_test(test_what_is_no_npz_is_refused),
        cmocka_unit_test(test_truncated_and_flipped_files_never_crash),
        cmocka_unit_test(test_a_damaged_array_fails_its_checksum),
        cmocka_unit_test(test_what_cannot_be_saved_leaves_no_file),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
