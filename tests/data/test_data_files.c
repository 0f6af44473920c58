/* Lists of files, archives, NumPy's files, shards of JSON lines. */
#include "data_test.h"

#include <archive.h>
#include <archive_entry.h>
#include <sys/stat.h>

/* An archive of names[i] with contents[i], as a file. */
static char *write_archive(const char *name, int (*format)(struct archive *),
                           int (*filter)(struct archive *), const char *const *names,
                           const char *const *contents, const size_t *lengths, size_t count) {
    char *path = write_file(name, "", 0);
    struct archive *archive = archive_write_new();
    BaseLocale locale = base_utf8_begin();
    assert_int_equal(format(archive), ARCHIVE_OK);
    if (filter) assert_int_equal(filter(archive), ARCHIVE_OK);
    assert_int_equal(archive_write_open_filename(archive, path), ARCHIVE_OK);
    for (size_t i = 0; i < count; i++) {
        size_t length = lengths ? lengths[i] : strlen(contents[i]);
        struct archive_entry *entry = archive_entry_new();
        archive_entry_set_filetype(entry, AE_IFREG);
        archive_entry_set_perm(entry, 0644);
        archive_entry_set_size(entry, (la_int64_t)length);
        archive_entry_set_pathname_utf8(entry, names[i]);
        assert_int_equal(archive_write_header(archive, entry), ARCHIVE_OK);
        if (length)
            assert_int_equal(archive_write_data(archive, contents[i], length), (la_ssize_t)length);
        archive_entry_free(entry);
    }
    archive_write_close(archive);
    archive_write_free(archive);
    base_utf8_end(locale);
    return path;
}

static DxStream *archive_stream(const char *path) {
    Error err = {0};
    DxStream *stream = dx_archive(&(DxArchiveOptions){.path = path}, &err);
    if (!stream) fail_msg("%s", err.message);
    return stream;
}

static void test_members_come_in_the_order_of_the_archive_with_their_whole_names(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int (*format)(struct archive *), (*filter)(struct archive *);
    } kinds[] = {
        {"a.tar", archive_write_set_format_gnutar, NULL},
        {"a.pax.tar", archive_write_set_format_pax, NULL},
        {"a.tar.gz", archive_write_set_format_pax_restricted, archive_write_add_filter_gzip},
        {"a.tar.zst", archive_write_set_format_gnutar, archive_write_add_filter_zstd},
        {"a.zip", archive_write_set_format_zip, NULL}};
    char deep[400] = "";
    for (int i = 0; i < 30; i++) strcat(deep, "a-folder/");
    strcat(deep, "end.txt");
    const char *names[] = {"z.txt", "b/\xc3\xa4.txt", deep, "a.txt"};
    const char *contents[] = {"last", "umlaut", "deep", ""};
    char *expected = base_format("z.txt | b/\xc3\xa4.txt | %s | a.txt", deep);
    for (size_t k = 0; k < BASE_COUNT(kinds); k++) {
        Error err = {0};
        char *path = write_archive(kinds[k].name, kinds[k].format, kinds[k].filter, names, contents,
                                   NULL, 4);
        DxStream *stream = archive_stream(path);
        assert_gives(stream, "path", expected);
        assert_true(dx_rewind(stream, 1, &err));
        stream = dx_step(stream, dx_decode_text("bytes", "text", false, &err), &err);
        assert_gives(stream, "text", "last | umlaut | deep | ");
        /* From the middle. */
        StrBuf saved = {0};
        DxSample *sample;
        assert_true(dx_rewind(stream, 2, &err));
        for (int i = 0; i < 2; i++) {
            assert_int_equal(dx_next(stream, &sample, &err), DX_OK);
            dx_sample_free(sample);
        }
        assert_true(dx_save(stream, &saved, &err));
        assert_true(dx_rewind(stream, 2, &err));
        assert_true(dx_load(stream, saved.data, saved.length, &err));
        assert_gives(stream, "text", "deep | ");
        base_str_free(&saved);
        dx_stream_free(stream);
        free(path);
    }
    free(expected);
}

static void test_archives_inside_archives(void **state) {
    (void)state;
    Error err = {0};
    static const char *const inner_names[] = {"x.txt", "y.txt"};
    static const char *const inner_contents[] = {"1", "2"};
    char *inner = write_archive("inner.tar", archive_write_set_format_ustar, NULL, inner_names,
                                inner_contents, NULL, 2);
    char *bytes;
    size_t length;
    assert_true(base_file_read(inner, &bytes, &length, &err));
    const char *names[] = {"a.txt", "in.tar", "b.txt"};
    const char *contents[] = {"a", bytes, "b"};
    const size_t lengths[] = {1, length, 1};
    char *path =
        write_archive("outer.zip", archive_write_set_format_zip, NULL, names, contents, lengths, 3);
    assert_all(archive_stream(path), "path", "a.txt | in.tar | b.txt");
    DxStream *stream = dx_archive(&(DxArchiveOptions){.path = path, .nested = true}, &err);
    assert_all(stream, "path", "a.txt | in.tar/x.txt | in.tar/y.txt | b.txt");
    free(bytes);
    free(inner);
    free(path);
}

static void test_a_cut_or_damaged_archive_names_what_fails(void **state) {
    (void)state;
    Error err = {0};
    DxSample *sample;
    char *text = base_calloc(1, 100000);
    memset(text, 'x', 99999);
    static const char *const names[] = {"first.txt", "second.txt"};
    const char *contents[] = {"one", text};
    char *path =
        write_archive("cut.tar", archive_write_set_format_ustar, NULL, names, contents, NULL, 2);
    assert_int_equal(truncate(path, 50000), 0);
    DxStream *stream = archive_stream(path);
    assert_int_equal(dx_next(stream, &sample, &err), DX_OK);
    dx_sample_free(sample);
    assert_fails(stream, "cut.tar: second.txt: ");
    assert_int_equal(dx_next(stream, &sample, &err), DX_END);
    dx_stream_free(stream);
    free(path);
    path = write_file("no.tar", "this is no archive at all", 25);
    stream = dx_archive(&(DxArchiveOptions){.path = path}, &err);
    if (stream) assert_fails(stream, "no.tar: ");
    dx_stream_free(stream);
    free(path);
    free(text);
}

static void test_archives_made_to_fill_memory_are_refused(void **state) {
    (void)state;
    Error err = {0};
    const size_t large = (size_t)80 << 20;
    char *zeros = base_calloc(1, large);
    static const char *const names[] = {"zeros"};
    const char *contents[] = {zeros};
    char *path = write_archive("bomb.tar.zst", archive_write_set_format_gnutar,
                               archive_write_add_filter_zstd, names, contents, &large, 1);
    DxStream *stream = archive_stream(path);
    assert_fails(stream, "bomb.tar.zst: zeros: unpacks to more than 250 times its size");
    dx_stream_free(stream);
    stream = dx_archive(&(DxArchiveOptions){.path = path, .max_member = 1000000}, &err);
    assert_fails(stream, "zeros: unpacks to more than 1.0 MB");
    dx_stream_free(stream);
    stream = dx_archive(&(DxArchiveOptions){.path = path, .max_total = 2000000}, &err);
    assert_fails(stream, "all members together unpack to more than 2.0 MB");
    dx_stream_free(stream);
    free(path);
    free(zeros);
}

/* ---- lists of files -------------------------------------------------------------------------- */

static char *make_tree(void) {
    Error err = {0};
    char *root = write_file("tree", "", 0);
    unlink(root);
    static const char *const files[] = {"b.txt",          "a.md",       ".hidden.txt",  "sub/c.txt",
                                        "sub/deep/d.txt", "skip/e.txt", "odd\nname.txt"};
    for (size_t i = 0; i < BASE_COUNT(files); i++) {
        char *path = base_path_join(root, files[i]), *folder = base_strdup(path);
        *strrchr(folder, '/') = '\0';
        assert_true(base_make_dirs(folder, &err));
        assert_true(base_file_write(path, files[i], strlen(files[i]), &err));
        free(path);
        free(folder);
    }
    return root;
}

static void test_folders_are_listed_by_patterns_in_order(void **state) {
    (void)state;
    Error err = {0};
    char *root = make_tree();
    const char *const roots[] = {root, root};
    static const char *const txt[] = {"*.txt"}, *const skip[] = {"skip"}, *const sub[] = {"sub/*"};
    DxFilesOptions all = {.paths = roots, .n_paths = 2, .recursive = true};
    assert_all(dx_buffer_stream(dx_files(&all, &err), &err), "name",
               "a.md | b.txt | odd\nname.txt | skip/e.txt | sub/c.txt | sub/deep/d.txt");
    DxFilesOptions flat = {.paths = roots, .n_paths = 1, .include = txt, .n_include = 1};
    assert_all(dx_buffer_stream(dx_files(&flat, &err), &err), "name", "b.txt | odd\nname.txt");
    flat.hidden = true;
    DxBuffer *hidden = dx_files(&flat, &err);
    assert_int_equal(dx_buffer_count(hidden), 3);
    dx_buffer_free(hidden);
    all.exclude = skip;
    all.n_exclude = 1;
    all.include = sub;
    all.n_include = 1;
    assert_all(dx_buffer_stream(dx_files(&all, &err), &err), "name", "sub/c.txt | sub/deep/d.txt");
    /* Each file whole, as text. */
    DxBuffer *files =
        dx_buffer_step(dx_files(&flat, &err), dx_load_file("path", NULL, "bytes", &err), &err);
    files = dx_buffer_step(files, dx_decode_text("bytes", "text", false, &err), &err);
    assert_all(dx_buffer_stream(files, &err), "text", ".hidden.txt | b.txt | odd\nname.txt");
    static const char *const missing[] = {"/nowhere"};
    assert_null(dx_files(&(DxFilesOptions){.paths = missing, .n_paths = 1}, &err));
    assert_string_equal(err.message, "files: /nowhere: No such file or directory");
    free(root);
}

static void test_bytes_become_text_or_say_where_they_are_none(void **state) {
    (void)state;
    Error err = {0};
    DxSample *sample = dx_sample_new();
    dx_sample_put(&sample, dx_key("b"),
                  dx_array_bytes("\xef\xbb\xbf"
                                 "a\xff"
                                 "b",
                                 6, &err));
    DxBuffer *buffer = dx_samples(&sample, 1, &err);
    assert_all(dx_buffer_stream(dx_buffer_step(dx_buffer_retain(buffer),
                                               dx_decode_text("b", "t", true, &err), &err),
                                &err),
               "t",
               "a\xef\xbf\xbd"
               "b");
    DxStream *stream =
        dx_buffer_stream(dx_buffer_step(buffer, dx_decode_text("b", "t", false, &err), &err), &err);
    assert_fails(stream, "decode text: key \"b\": byte 2 of it is not valid UTF-8");
    dx_stream_free(stream);
    dx_sample_free(sample);
}

static void test_shards_of_a_split_follow_their_names(void **state) {
    (void)state;
    Error err = {0};
    char *root = write_file("set", "", 0);
    unlink(root);
    static const char *const files[][2] = {
        {"data/train-00001-of-00002.jsonl", "{\"t\":3}\n"},
        {"data/train-00000-of-00002.jsonl", "{\"t\":1}\n{\"t\":2}\n"},
        {"data/validation-00000-of-00001.jsonl", "{\"t\":9}\n"},
        {"data/trainer.jsonl", "{\"t\":100}\n"},
        {"dataset_infos.json", "{}"},
        {"README.md", "# a data set"}};
    for (size_t i = 0; i < BASE_COUNT(files); i++) {
        char *path = base_path_join(root, files[i][0]), *folder = base_strdup(path);
        *strrchr(folder, '/') = '\0';
        assert_true(base_make_dirs(folder, &err));
        assert_true(base_file_write(path, files[i][1], strlen(files[i][1]), &err));
        free(path);
        free(folder);
    }
    DxJsonlOptions options = {.fields = (const char *const[]){"t"}, .n_fields = 1};
    assert_all(dx_buffer_stream(dx_jsonl_shards(root, "train", &options, &err), &err), "t",
               "1 | 2 | 3");
    assert_all(dx_buffer_stream(dx_jsonl_shards(root, "valid", &options, &err), &err), "t", "9");
    assert_null(dx_jsonl_shards(root, "test", &options, &err));
    assert_non_null(strstr(err.message, "has no JSON-lines files of the split \"test\""));
    free(root);
}

/* ---- NumPy's files -----------------------------------------------------------------------------
 */

static size_t make_npy(char *out, const char *header, const void *data, size_t length) {
    size_t text = strlen(header), whole = (10 + text + 1 + 63) / 64 * 64;
    memcpy(out, "\x93NUMPY\x01\x00", 8);
    out[8] = (char)(whole - 10);
    out[9] = (char)((whole - 10) >> 8);
    memset(out + 10, ' ', whole - 10);
    memcpy(out + 10, header, text);
    out[whole - 1] = '\n';
    memcpy(out + whole, data, length);
    return whole + length;
}

static DxStream *decoded(const char *bytes, size_t length) {
    Error err = {0};
    DxSample *sample = dx_sample_new();
    dx_sample_put(&sample, dx_key("b"), dx_array_bytes(bytes, length, &err));
    DxBuffer *buffer = dx_samples(&sample, 1, &err);
    dx_sample_free(sample);
    return dx_buffer_stream(dx_buffer_step(buffer, dx_decode_npy("b", "a", &err), &err), &err);
}

static void test_npy_of_every_order(void **state) {
    (void)state;
    char file[512];
    static const int16_t numbers[] = {1, 2, 3, 4, 5, 6};
    size_t length = make_npy(file, "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3), }",
                             numbers, sizeof numbers);
    assert_all(decoded(file, length), "a", "1 2 3 4 5 6");
    length = make_npy(file, "{'descr': '<i2', 'fortran_order': True, 'shape': (2, 3), }", numbers,
                      sizeof numbers);
    assert_all(decoded(file, length), "a", "1 3 5 2 4 6");
    length = make_npy(file, "{'descr': '>i2', 'fortran_order': False, 'shape': (6,), }", numbers,
                      sizeof numbers);
    assert_all(decoded(file, length), "a", "256 512 768 1024 1280 1536");
    length = make_npy(file, "{'descr': '|u1', 'fortran_order': False, 'shape': (), }", "\x07", 1);
    assert_all(decoded(file, length), "a", "7");
    length =
        make_npy(file, "{'descr': '<V2', 'fortran_order': False, 'shape': (1,), }", "\x80\x3f", 2);
    assert_all(decoded(file, length), "a", "1");
}

static void test_bad_npy_files_are_refused(void **state) {
    (void)state;
    char file[512];
    static const struct {
        const char *header, *message;
    } bad[] = {
        {"{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", "type \"<c8\""},
        {"{'descr': [('a', '<i2')], 'fortran_order': False, 'shape': (1,), }", "several fields"},
        {"{'descr': '<i2', 'fortran_order': False, 'shape': (9,), }", "fewer elements"},
        {"{'descr': '<i2', 'fortran_order': False, 'shape': (4611686018427387904, 4), }", "fewer"},
        {"{'descr': '<i2', 'fortran_order': False, 'shape': (99999999999999999999,), }", "damaged"},
        {"{'descr': '<i2', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1), }", "6 axes"},
        {"{'descr': '<i2', 'fortran_order': False, }", "damaged"},
        {"{'descr': '<i2'", "damaged"},
    };
    for (size_t i = 0; i < BASE_COUNT(bad); i++) {
        DxStream *stream = decoded(file, make_npy(file, bad[i].header, "\1\0\2\0", 4));
        assert_fails(stream, bad[i].message);
        dx_stream_free(stream);
    }
    DxStream *stream = decoded("\x93NUMPY\x01\x00\xff\xff", 10);
    assert_fails(stream, "cut short");
    dx_stream_free(stream);
    stream = decoded("text", 4);
    assert_fails(stream, "decode npy: key \"b\": is no .npy file");
    dx_stream_free(stream);
}

static void test_rows_of_numpy_files_are_samples(void **state) {
    (void)state;
    Error err = {0};
    char x[512], y[512], z[512];
    static const float floats[] = {1.5f, 2, 3, 4, 5, 6};
    size_t x_length = make_npy(x, "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }",
                               floats, sizeof floats);
    size_t y_length =
        make_npy(y, "{'descr': '|i1', 'fortran_order': False, 'shape': (3,), }", "\x01\xff\x03", 3);
    size_t z_length =
        make_npy(z, "{'descr': '|i1', 'fortran_order': False, 'shape': (2,), }", "\1\2", 2);
    char *path = write_file("x.npy", x, x_length);
    DxBuffer *rows = dx_npy(path, "x", &err);
    assert_int_equal(dx_buffer_count(rows), 3);
    DxSample *sample; /* a row outlives its buffer */
    assert_int_equal(dx_buffer_get(rows, 0, 2, &sample, &err), DX_OK);
    assert_all(dx_buffer_stream(rows, &err), "x", "1.5 2 | 3 4 | 5 6");
    assert_float_equal(dx_array_real_at(dx_sample_get(sample, dx_key("x")), 1), 6, 0);
    dx_sample_free(sample);
    free(path);

    const char *names[] = {"x.npy", "y.npy", "z.npy"};
    const char *contents[] = {x, y, z};
    const size_t lengths[] = {x_length, y_length, z_length};
    path = write_archive("xy.npz", archive_write_set_format_zip, NULL, names, contents, lengths, 2);
    rows = dx_npz(path, &err);
    assert_all(dx_buffer_stream(dx_buffer_retain(rows), &err), "y", "1 | -1 | 3");
    assert_all(dx_buffer_stream(rows, &err), "x", "1.5 2 | 3 4 | 5 6");
    free(path);
    path =
        write_archive("xyz.npz", archive_write_set_format_zip, NULL, names, contents, lengths, 3);
    assert_null(dx_npz(path, &err));
    assert_non_null(strstr(err.message, "xyz.npz: \"z\" is int8[2], \"x\" has 3 rows"));
    base_error_clear(&err);
    assert_null(dx_rows(&(DxColumn){"n", dx_array_int(3)}, 1, &err));
    assert_non_null(strstr(err.message, "\"n\" is a scalar and has no rows"));
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_members_come_in_the_order_of_the_archive_with_their_whole_names),
        cmocka_unit_test(test_archives_inside_archives),
        cmocka_unit_test(test_a_cut_or_damaged_archive_names_what_fails),
        cmocka_unit_test(test_archives_made_to_fill_memory_are_refused),
        cmocka_unit_test(test_folders_are_listed_by_patterns_in_order),
        cmocka_unit_test(test_bytes_become_text_or_say_where_they_are_none),
        cmocka_unit_test(test_shards_of_a_split_follow_their_names),
        cmocka_unit_test(test_npy_of_every_order),
        cmocka_unit_test(test_bad_npy_files_are_refused),
        cmocka_unit_test(test_rows_of_numpy_files_are_samples),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
