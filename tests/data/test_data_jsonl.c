/* JSON lines: what of a record becomes which array, where a malformed one is, the index. */
#include "data_test.h"

#include <archive.h>
#include <archive_entry.h>
#include <sys/stat.h>

static DxBuffer *rows_of(const char *text, size_t length, const char *const *fields,
                         size_t n_fields, bool optional) {
    Error err = {0};
    char *path = write_file("rows.jsonl", text, length);
    DxBuffer *buffer = dx_jsonl(
        &(DxJsonlOptions){
            .path = path, .fields = fields, .n_fields = n_fields, .optional = optional},
        &err);
    if (!buffer) fail_msg("%s", err.message);
    free(path);
    return buffer;
}

static DxStream *field_of(const char *text, const char *field) {
    Error err = {0};
    const char *const fields[] = {field};
    return dx_buffer_stream(rows_of(text, strlen(text), fields, 1, true), &err);
}

static DxArray *only(const char *text, const char *field) {
    Error err = {0};
    DxSample *sample;
    DxStream *stream = field_of(text, field);
    assert_int_equal(dx_next(stream, &sample, &err), DX_OK);
    DxArray *array = dx_array_retain(dx_sample_get(sample, dx_key(field)));
    assert_non_null(array);
    dx_sample_free(sample);
    dx_stream_free(stream);
    return array;
}

static void assert_value(const char *text, DxType type, int rank, const char *expected) {
    StrBuf shown = {0};
    DxArray *array = only(text, "a");
    assert_int_equal(array->type, type);
    assert_int_equal(array->rank, rank);
    base_str_append(&shown, "");
    print_array(&shown, array);
    assert_string_equal(shown.data, expected);
    base_str_free(&shown);
    dx_array_release(array);
}

static void test_values_become_arrays_of_their_type(void **state) {
    (void)state;
    assert_value("{\"a\": \"text\"}\n", DX_TEXT, 1, "text");
    assert_value("{\"a\": 12}\n", DX_I64, 0, "12");
    assert_value("{\"a\": -0.5}\n", DX_F64, 0, "-0.5");
    assert_value("{\"a\": true}\n", DX_BOOL, 0, "1");
    assert_value("{\"a\": [1, 2, 3]}\n", DX_I64, 1, "1 2 3");
    assert_value("{\"a\": [1, 2.5]}\n", DX_F64, 1, "1 2.5");
    assert_value("{\"a\": []}\n", DX_I64, 1, "");
    assert_value("{\"a\": {\"b\": [1, \"x\"]}}\n", DX_TEXT, 1, "{\"b\": [1, \"x\"]}");
    assert_value("{\"a\": [1, null]}\n", DX_TEXT, 1, "[1, null]");
}

static void test_whole_numbers_keep_all_digits_while_they_fit(void **state) {
    (void)state;
    DxArray *array = only("{\"a\": 9223372036854775807}\n", "a");
    assert_int_equal(array->type, DX_I64);
    assert_true(dx_array_int_at(array, 0) == INT64_MAX);
    dx_array_release(array);
    array = only("{\"a\": -9223372036854775808}\n", "a");
    assert_true(dx_array_int_at(array, 0) == INT64_MIN);
    dx_array_release(array);
    array = only("{\"a\": 18446744073709551615}\n", "a");
    assert_int_equal(array->type, DX_U64);
    assert_true((uint64_t)dx_array_int_at(array, 0) == UINT64_MAX);
    dx_array_release(array);
    array = only("{\"a\": 18446744073709551616}\n", "a");
    assert_int_equal(array->type, DX_F64);
    assert_true(dx_array_real_at(array, 0) == 0x1p64);
    dx_array_release(array);
}

static void test_escapes_become_characters(void **state) {
    (void)state;
    assert_value("{\"a\": \"q\\\" s\\\\ /\\/ n\\n t\\t\"}\n", DX_TEXT, 1, "q\" s\\ // n\n t\t");
    assert_value("{\"a\": \"\\u00e4\\u20ac\\ud83d\\ude00\"}\n", DX_TEXT, 1,
                 "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
    assert_value("{\"a\": \"\\ud83dx\\ude00\"}\n", DX_TEXT, 1, "\xef\xbf\xbdx\xef\xbf\xbd");
    assert_value("{\"\\u0061\": \"by another spelling\"}\n", DX_TEXT, 1, "by another spelling");
}

static void test_fields_are_found_by_paths(void **state) {
    (void)state;
    static const char text[] = "{\"x\": {\"y\": [{\"z\": 1}, {\"z\": 2}]}, \"y\": 3}\n";
    assert_all(field_of(text, "x.y.1.z"), "x.y.1.z", "2");
    assert_all(field_of(text, "y"), "y", "3");
    assert_all(field_of(text, "x.y.2.z"), "x.y.2.z", "-");
    assert_all(field_of("{\"a\": 1, \"a\": 2}\n{\"a\": 1, \"a\": null}\n", "a"), "a", "2 | -");
    assert_all(field_of("[10, 20]\n", "1"), "1", "20");
    Error err = {0};
    DxStream *stream = dx_buffer_stream(
        rows_of(text, strlen(text), (const char *const[]){"y", "no"}, 2, false), &err);
    assert_fails(stream, "rows.jsonl: line 1: there is no \"no\"");
    dx_stream_free(stream);
    static const char *const bad[] = {"a..b"};
    assert_null(dx_jsonl(&(DxJsonlOptions){.path = "x", .fields = bad, .n_fields = 1}, &err));
    assert_string_equal(err.message, "\"a..b\" is not the path of a JSON field");
}

static void test_lines_are_records_but_blank_ones(void **state) {
    (void)state;
    assert_all(field_of("\xef\xbb\xbf{\"a\":1}\r\n\n  \t\n{\"a\":2}\n\n{\"a\":3}", "a"), "a",
               "1 | 2 | 3");
    assert_all(field_of("", "a"), "a", "");
    Error err = {0};
    DxBuffer *rows = rows_of("{\"a\": 1 }\n[2]\n", 14, NULL, 0, false);
    assert_all(dx_buffer_stream(rows, &err), "json", "{\"a\": 1 } | [2]");
}

static void test_a_malformed_line_is_located(void **state) {
    (void)state;
    static const struct {
        const char *line, *message;
    } bad[] = {
        {"{\"a\": 1,}", "line 3, column 9 (byte 17): a member's name was expected"},
        {"{\"a\" 1}", "line 3, column 6 (byte 14): a colon was expected"},
        {"{\"a\": \"open", "column 12 (byte 20): the text ends inside a string"},
        {"{\"a\": \"\xff\"}", "column 8 (byte 16): a string is not valid UTF-8"},
        {"{\"a\": \"\\x\"}", "a backslash before a character that it cannot escape"},
        {"{\"a\": \"\\u12g4\"}", "\\u wants four hexadecimal digits"},
        {"{\"a\": tru}", "a value was expected"},
        {"{\"a\": [1 2]}", "a comma or ] was expected"},
        {"{\"a\": 1} x", "there is more behind the value"},
        {"{\"a\": \"tab\there\"}", "a control character inside a string"},
    };
    for (size_t i = 0; i < BASE_COUNT(bad); i++) {
        char *text = base_format("{\"a\":1}\n\n%s\n{\"a\":4}\n", bad[i].line);
        DxStream *stream = field_of(text, "a");
        Error err = {0};
        DxSample *sample;
        assert_int_equal(dx_next(stream, &sample, &err), DX_OK);
        dx_sample_free(sample);
        assert_fails(stream, bad[i].message);
        assert_gives(stream, "a", "4");
        dx_stream_free(stream);
        free(text);
    }
    StrBuf deep = {0};
    for (int i = 0; i < 100000; i++) base_str_append_char(&deep, '[');
    DxStream *stream = field_of(deep.data, "a");
    assert_fails(stream, "lists and objects are nested too deep");
    dx_stream_free(stream);
    base_str_free(&deep);
}

/* An index that says "record 2 begins at byte 0" shows whether it was used. */
static void test_the_index_is_used_while_the_file_is_the_same(void **state) {
    (void)state;
    Error err = {0};
    static const char text[] = "{\"a\":1}\n{\"a\":2}\n";
    char *path = write_file("indexed.jsonl", text, sizeof text - 1);
    char *index = write_file("index", "", 0);
    unlink(index);
    DxJsonlOptions options = {.path = path, .index = index};
    assert_all(dx_buffer_stream(dx_jsonl(&options, &err), &err), "json", "{\"a\":1} | {\"a\":2}");
    struct stat first, again;
    assert_int_equal(stat(index, &first), 0);
    assert_all(dx_buffer_stream(dx_jsonl(&options, &err), &err), "json", "{\"a\":1} | {\"a\":2}");
    assert_int_equal(stat(index, &again), 0);
    assert_true(first.st_ino == again.st_ino); /* it was not written anew */
    /* Damaged: made anew. */
    char *bytes;
    size_t length;
    assert_true(base_file_read(index, &bytes, &length, &err));
    bytes[length - 1] ^= 1;
    assert_true(base_file_write(index, bytes, length, &err));
    free(bytes);
    assert_all(dx_buffer_stream(dx_jsonl(&options, &err), &err), "json", "{\"a\":1} | {\"a\":2}");
    /* Of another file: made anew. */
    free(write_file("indexed.jsonl", "{\"a\":7}\n", 8));
    assert_all(dx_buffer_stream(dx_jsonl(&options, &err), &err), "json", "{\"a\":7}");
    free(index);
    free(path);
}

static void test_packed_lines_are_the_same(void **state) {
    (void)state;
    Error err = {0};
    static const char text[] = "{\"a\":1}\n{\"a\":2}\n";
    char *path = write_file("rows.jsonl.gz", "", 0);
    struct archive *archive = archive_write_new();
    archive_write_add_filter_gzip(archive);
    archive_write_set_format_raw(archive);
    archive_write_open_filename(archive, path);
    struct archive_entry *entry = archive_entry_new();
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_pathname(entry, "data");
    archive_write_header(archive, entry);
    archive_write_data(archive, text, sizeof text - 1);
    archive_entry_free(entry);
    archive_write_close(archive);
    archive_write_free(archive);
    DxBuffer *rows = dx_jsonl(&(DxJsonlOptions){.path = path}, &err);
    assert_all(dx_buffer_stream(rows, &err), "json", "{\"a\":1} | {\"a\":2}");
    assert_int_equal(truncate(path, 15), 0);
    assert_null(dx_jsonl(&(DxJsonlOptions){.path = path}, &err));
    assert_non_null(strstr(err.message, "rows.jsonl.gz"));
    free(path);
}

static void test_missing_files_and_folders_are_told_apart(void **state) {
    (void)state;
    Error err = {0};
    assert_null(dx_jsonl(&(DxJsonlOptions){.path = "/nowhere.jsonl"}, &err));
    assert_string_equal(err.message, "/nowhere.jsonl: No such file or directory");
    base_error_clear(&err);
    assert_null(dx_jsonl(&(DxJsonlOptions){.path = "/tmp"}, &err));
    assert_string_equal(err.message, "/tmp: is a folder, a file of JSON lines was expected");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_become_arrays_of_their_type),
        cmocka_unit_test(test_whole_numbers_keep_all_digits_while_they_fit),
        cmocka_unit_test(test_escapes_become_characters),
        cmocka_unit_test(test_fields_are_found_by_paths),
        cmocka_unit_test(test_lines_are_records_but_blank_ones),
        cmocka_unit_test(test_a_malformed_line_is_located),
        cmocka_unit_test(test_the_index_is_used_while_the_file_is_the_same),
        cmocka_unit_test(test_packed_lines_are_the_same),
        cmocka_unit_test(test_missing_files_and_folders_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
