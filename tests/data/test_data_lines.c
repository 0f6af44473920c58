/* Lines and comma-separated values: what is a record, what is a failure and where, packed
 * files, going on from any place. */
#include "data_test.h"

#include <archive.h>
#include <archive_entry.h>
#include <sys/stat.h>

/* bytes packed by one of libarchive's filters, as a file. */
static char *write_packed(const char *name, int (*filter)(struct archive *), const char *bytes,
                          size_t length) {
    char *path = write_file(name, "", 0);
    struct archive *archive = archive_write_new();
    assert_int_equal(filter(archive), ARCHIVE_OK);
    archive_write_set_format_raw(archive);
    archive_write_set_bytes_in_last_block(archive, 1);
    assert_int_equal(archive_write_open_filename(archive, path), ARCHIVE_OK);
    struct archive_entry *entry = archive_entry_new();
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_pathname(entry, "data");
    assert_int_equal(archive_write_header(archive, entry), ARCHIVE_OK);
    assert_int_equal(archive_write_data(archive, bytes, length), (la_ssize_t)length);
    archive_entry_free(entry);
    archive_write_close(archive);
    archive_write_free(archive);
    return path;
}

static DxStream *lines_of(const char *text, size_t length, DxLinesOptions options) {
    Error err = {0};
    char *path = write_file("lines.txt", text, length);
    options.path = path;
    DxStream *stream = dx_lines(&options, &err);
    if (!stream) fail_msg("%s", err.message);
    free(path);
    return stream;
}
#define LINES(text, ...) lines_of(text, sizeof(text) - 1, (DxLinesOptions){__VA_ARGS__})
#define USUAL .key = NULL

static void test_a_line_ends_at_a_line_feed_or_with_the_file(void **state) {
    (void)state;
    assert_all(LINES("a\nbc\n", USUAL), "line", "a | bc");
    assert_all(LINES("a\nbc", USUAL), "line", "a | bc");
    assert_all(LINES("", USUAL), "line", "");
    assert_all(LINES("\n", USUAL), "line", "");
    assert_all(LINES("a\n\n\nb\n", USUAL), "line", "a |  |  | b");
    assert_all(LINES("a\n\n\nb\n", .skip_empty = true), "line", "a | b");
    assert_all(LINES("a\r\nb\r\n", USUAL), "line", "a\r | b\r");
    assert_all(LINES("a\r\nb\r\r\n\r\n", .crlf = true, .skip_empty = true), "line", "a | b\r");
    assert_all(LINES("x\n", .key = "text"), "text", "x");
    assert_all(LINES("a\0b\n\xff\n", .bytes = true), "line", "97 0 98 | 255");
}

static void test_lines_of_packed_files_are_the_same(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int (*filter)(struct archive *);
    } kinds[] = {{"a.gz", archive_write_add_filter_gzip},
                 {"a.xz", archive_write_add_filter_xz},
                 {"a.bz2", archive_write_add_filter_bzip2},
                 {"a.zst", archive_write_add_filter_zstd},
                 {"a.txt", archive_write_add_filter_none}};
    /* Long enough for many blocks, with 0xff at every place of one. */
    StrBuf text = {0};
    for (int i = 0; i < 5000; i++) {
        base_str_appendf(&text, "%d:", i);
        for (int j = 0; j < i % 97; j++) base_str_append_char(&text, (char)0xff);
        base_str_append_char(&text, '\n');
    }
    for (size_t k = 0; k < BASE_COUNT(kinds); k++) {
        Error err = {0};
        char *path = write_packed(kinds[k].name, kinds[k].filter, text.data, text.length);
        DxStream *stream = dx_lines(&(DxLinesOptions){.path = path, .bytes = true}, &err);
        if (!stream) fail_msg("%s", err.message);
        for (int pass = 0; pass < 2; pass++) {
            StrBuf again = {0}, saved = {0};
            DxSample *sample;
            for (int i = 0; dx_next(stream, &sample, &err) == DX_OK; i++) {
                const DxArray *line = dx_sample_get(sample, dx_key("line"));
                base_str_append_n(&again, line->data, line->bytes);
                base_str_append_char(&again, '\n');
                dx_sample_free(sample);
                if (i % 1711) continue; /* going on from here gives the same */
                assert_true(dx_save(stream, &saved, &err));
                assert_true(dx_rewind(stream, 0, &err));
                assert_true(dx_load(stream, saved.data, saved.length, &err));
            }
            assert_int_equal(again.length, text.length);
            assert_memory_equal(again.data, text.data, text.length);
            base_str_free(&again);
            base_str_free(&saved);
            assert_true(dx_rewind(stream, 1, &err));
        }
        dx_stream_free(stream);
        free(path);
    }
    base_str_free(&text);
}

static void test_a_line_that_is_wrong_is_a_failure_in_its_place(void **state) {
    (void)state;
    DxStream *stream = LINES("one\ntw\xffo\nthree\n", USUAL);
    Error err = {0};
    DxSample *sample;
    assert_int_equal(dx_next(stream, &sample, &err), DX_OK);
    dx_sample_free(sample);
    assert_fails(stream, "lines.txt: line 2 (byte 4): byte 3 of it is not valid UTF-8");
    assert_gives(stream, "line", "three");
    dx_stream_free(stream);
    stream = LINES("0123456789\n0123\n012345678\n", .max_line = 5);
    assert_fails(stream, "lines.txt: line 1 (byte 0): is longer than 5 B");
    assert_gives(stream, "line", "0123 | !");
    dx_stream_free(stream);
}

static void test_a_line_of_a_hundred_megabytes_is_the_longest(void **state) {
    (void)state;
    Error err = {0};
    char *path = write_file("long.txt", "", 0);
    FILE *file = fopen(path, "w"); /* a hole reads as zeros */
    assert_int_equal(ftruncate(fileno(file), (100 << 20) + 1), 0);
    fseek(file, 0, SEEK_END);
    fputs("\nshort\n", file);
    fclose(file);
    DxStream *stream = dx_lines(&(DxLinesOptions){.path = path}, &err);
    assert_fails(stream, "long.txt: line 1 (byte 0): is longer than 104.9 MB");
    assert_gives(stream, "line", "short");
    dx_stream_free(stream);
    unlink(path);
    free(path);
}

static void test_a_packed_file_that_is_cut_short_says_so_and_ends(void **state) {
    (void)state;
    Error err = {0};
    StrBuf text = {0};
    for (int i = 0; i < 100000; i++) base_str_appendf(&text, "%d\n", i * 7919);
    char *path = write_packed("cut.gz", archive_write_add_filter_gzip, text.data, text.length);
    assert_int_equal(truncate(path, 100000), 0);
    DxStream *stream = dx_lines(&(DxLinesOptions){.path = path}, &err);
    DxSample *sample;
    DxStatus status;
    while ((status = dx_next(stream, &sample, &err)) == DX_OK) dx_sample_free(sample);
    assert_int_equal(status, DX_FAIL);
    assert_non_null(strstr(err.message, "cut.gz"));
    assert_int_equal(dx_next(stream, &sample, &err), DX_END);
    dx_stream_free(stream);
    base_str_free(&text);
    free(path);
}

static void test_missing_empty_unreadable_files_and_folders_are_told_apart(void **state) {
    (void)state;
    Error err = {0};
    assert_null(dx_lines(&(DxLinesOptions){.path = "/nowhere/a.txt"}, &err));
    assert_string_equal(err.message, "/nowhere/a.txt: No such file or directory");
    base_error_clear(&err);
    assert_null(dx_csv(&(DxCsvOptions){.path = "/tmp"}, &err));
    assert_string_equal(err.message, "/tmp: is a folder, not a file");
    base_error_clear(&err);
    char *path = write_file("empty.csv", "", 0);
    assert_null(dx_csv(&(DxCsvOptions){.path = path}, &err));
    assert_non_null(strstr(err.message, "empty.csv: has no header: it is empty"));
    base_error_clear(&err);
    chmod(path, 0);
    if (geteuid() != 0) {
        assert_null(dx_lines(&(DxLinesOptions){.path = path}, &err));
        assert_non_null(strstr(err.message, "Permission denied"));
    }
    free(path);
}

/* ---- comma-separated values ------------------------------------------------------------- */

static DxStream *csv_of(const char *text, size_t length, DxCsvOptions options) {
    Error err = {0};
    char *path = write_file("rows.csv", text, length);
    options.path = path;
    DxStream *stream = dx_csv(&options, &err);
    if (!stream) fail_msg("%s", err.message);
    free(path);
    return stream;
}
#define CSV(text, ...) csv_of(text, sizeof(text) - 1, (DxCsvOptions){__VA_ARGS__})
#define PLAIN .separator = ','

static void test_fields_are_those_of_rfc_4180(void **state) {
    (void)state;
    assert_all(CSV("a,b\n1,2\n3,4\n", PLAIN), "b", "2 | 4");
    assert_all(CSV("a,b\r\n1,2\r\n3,4\r\n", PLAIN), "b", "2 | 4");
    assert_all(CSV("a,b\n1,2", PLAIN), "b", "2");
    assert_all(CSV("a,b\n\"x,y\",\"say \"\"hi\"\"\"\n", PLAIN), "a", "x,y");
    assert_all(CSV("a,b\n\"x,y\",\"say \"\"hi\"\"\"\n", PLAIN), "b", "say \"hi\"");
    assert_all(CSV("a,b\n\"two\nlines\",\"\"\r\n", PLAIN), "a", "two\nlines");
    assert_all(CSV("a,b\n1,\n,2\n,\n", PLAIN), "b", " | 2 | ");
    assert_all(CSV("a,b\n\n1,2\n\r\n\n3,4\n\n\n", PLAIN), "a", "1 | 3");
    assert_all(CSV("\xef\xbb\xbf"
                   "a,b\n1,2\n",
                   PLAIN),
               "a", "1");
    assert_all(CSV("a\n\"\"\nx\n", PLAIN), "a", " | x");
    assert_all(CSV("a;b\n1,5;'x;y'\n", .separator = ';', .quote = '\''), "b", "x;y");
    assert_all(CSV("a\tb\n\"x\t2\n", .separator = '\t', .no_quotes = true), "a", "\"x");
    assert_all(CSV("a,b\n5\" pipe,2\n", PLAIN), "a", "5\" pipe");
    static const char *const names[] = {"one", "two"};
    assert_all(CSV("1,2\n3,4\n", .columns = names, .n_columns = 2), "two", "2 | 4");
}

static void test_a_record_that_is_wrong_names_its_line_and_the_next_one_comes(void **state) {
    (void)state;
    DxStream *stream = CSV("a,b\n1,2\n3\n4,5,6\n\"x\"y,2\n\"two\nlines\",8\n7,\xff\n9,10\n", PLAIN);
    Error err = {0};
    DxSample *sample;
    assert_int_equal(dx_next(stream, &sample, &err), DX_OK);
    dx_sample_free(sample);
    assert_fails(stream, "rows.csv: line 3 (byte 8): has 1 fields, the header has 2");
    assert_fails(stream, "rows.csv: line 4 (byte 10): has 3 fields, the header has 2");
    assert_fails(stream, "rows.csv: line 5 (byte 16): field 1 goes on behind its closing quote");
    assert_int_equal(dx_next(stream, &sample, &err), DX_OK);
    dx_sample_free(sample);
    assert_fails(stream,
                 "rows.csv: line 8 (byte 37): column \"b\": byte 1 of it is not valid UTF-8");
    assert_gives(stream, "b", "10");
    dx_stream_free(stream);
    stream = CSV("a,b\n1,\"never closed\n2,3\n", PLAIN);
    assert_fails(stream, "rows.csv: line 2 (byte 4): field 2 has no closing quote");
    assert_gives(stream, "b", "");
    dx_stream_free(stream);
    stream = CSV("a,b\n1,\"much too long for it\"\n2,3\n", .max_record = 10);
    assert_fails(stream, "the record is longer than 10 B");
    assert_gives(stream, "b", "3");
    dx_stream_free(stream);
}

static void test_a_header_that_names_a_column_twice_is_refused(void **state) {
    (void)state;
    Error err = {0};
    char *path = write_file("twice.csv", "a,b,a\n1,2,3\n", 12);
    assert_null(dx_csv(&(DxCsvOptions){.path = path}, &err));
    assert_non_null(strstr(err.message, "twice.csv: columns 1 and 3 are both \"a\""));
    base_error_clear(&err);
    assert_null(dx_csv(&(DxCsvOptions){.path = path, .separator = '"'}, &err));
    assert_non_null(strstr(err.message, "separator"));
    free(path);
}

static void test_csv_goes_on_from_every_record(void **state) {
    (void)state;
    Error err = {0};
    static const char text[] = "a,b\n1,\"x\ny\"\n\n2,\"\"\"\"\n3,\n4,5\n";
    for (int packed = 0; packed < 2; packed++) {
        char *path = write_packed(
            "go.csv", packed ? archive_write_add_filter_gzip : archive_write_add_filter_none, text,
            sizeof text - 1);
        DxStream *whole = dx_csv(&(DxCsvOptions){.path = path}, &err);
        char *expected = drain(whole, "b");
        assert_string_equal(expected, "x\ny | \" |  | 5");
        free(expected);
        for (int at = 0; at <= 4; at++) {
            StrBuf saved = {0};
            DxSample *sample;
            assert_true(dx_rewind(whole, 0, &err));
            for (int i = 0; i < at; i++) {
                assert_int_equal(dx_next(whole, &sample, &err), DX_OK);
                dx_sample_free(sample);
            }
            assert_true(dx_save(whole, &saved, &err));
            expected = drain(whole, "b");
            DxStream *other = dx_csv(&(DxCsvOptions){.path = path}, &err);
            assert_true(dx_load(other, saved.data, saved.length, &err));
            assert_all(other, "b", expected);
            free(expected);
            base_str_free(&saved);
        }
        dx_stream_free(whole);
        free(path);
    }
}

/* ---- of samples ---------------------------------------------------------------------------- */

/* {"path": "doc", "bytes": text} */
static DxStream *document(const char *text) {
    Error err = {0};
    DxSample *sample = dx_sample_new();
    dx_sample_put(&sample, dx_key("path"), dx_array_text("doc", 3, &err));
    dx_sample_put(&sample, dx_key("bytes"), dx_array_bytes(text, strlen(text), &err));
    DxStream *stream = dx_buffer_stream(dx_samples(&sample, 1, &err), &err);
    dx_sample_free(sample);
    return stream;
}

static void test_texts_are_split_and_keep_where_they_came_from(void **state) {
    (void)state;
    Error err = {0};
    DxLinesOptions lines = {.key = "text", .crlf = true};
    DxCsvOptions csv = {0};
    assert_all(dx_split_lines(document("a\r\nb\n"), "bytes", &lines, &err), "text", "a | b");
    assert_all(dx_split_lines(document("a\nb\n"), "bytes", &lines, &err), "path", "doc | doc");
    assert_all(dx_split_lines(document("a\nb\n"), "bytes", &lines, &err), "bytes", "- | -");
    assert_all(dx_split_csv(document("x,y\n1,2\n3,4"), "bytes", &csv, &err), "y", "2 | 4");
    assert_all(dx_split_csv(document("x,y\n1,2\n3,4"), "bytes", &csv, &err), "path", "doc | doc");
    DxStream *stream = dx_split_csv(document("x,y\n1,2\n3\n"), "bytes", &csv, &err);
    assert_fails(stream, "split csv: key \"bytes\": line 3: has 1 fields, the header has 2");
    dx_stream_free(stream);
    stream = dx_split_lines(document("a\nb"), "text", &lines, &err);
    assert_fails(stream, "key \"text\": wanted any type, the sample has only: path, bytes");
    dx_stream_free(stream);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_line_ends_at_a_line_feed_or_with_the_file),
        cmocka_unit_test(test_lines_of_packed_files_are_the_same),
        cmocka_unit_test(test_a_line_that_is_wrong_is_a_failure_in_its_place),
        cmocka_unit_test(test_a_line_of_a_hundred_megabytes_is_the_longest),
        cmocka_unit_test(test_a_packed_file_that_is_cut_short_says_so_and_ends),
        cmocka_unit_test(test_missing_empty_unreadable_files_and_folders_are_told_apart),
        cmocka_unit_test(test_fields_are_those_of_rfc_4180),
        cmocka_unit_test(test_a_record_that_is_wrong_names_its_line_and_the_next_one_comes),
        cmocka_unit_test(test_a_header_that_names_a_column_twice_is_refused),
        cmocka_unit_test(test_csv_goes_on_from_every_record),
        cmocka_unit_test(test_texts_are_split_and_keep_where_they_came_from),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
