/* base: errors, strings, UTF-8, files written whole, JSON errors, threads. */
#include "base/base.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/mlx-rag-base-XXXXXX";

static int make_folder(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    char *command = base_format("rm -rf '%s'", folder);
    int status = system(command);
    free(command);
    return status;
}

static void test_first_error_stays_and_is_one_line(void **state) {
    (void)state;
    Error err = {0};
    assert_false(base_fail(&err, ERROR_INPUT, "bad\nname %d", 7));
    base_fail(&err, ERROR_IO, "later");
    assert_string_equal(err.message, "bad name 7");
    base_error_context(&err, "%s", "file.json");
    assert_string_equal(err.message, "file.json: bad name 7");
    base_hint(&err, "fix it");
    assert_string_equal(err.hint, "fix it");
    base_error_clear(&err);
    assert_int_equal(err.code, ERROR_NONE);
    assert_false(base_fail(NULL, ERROR_INPUT, "nobody listens"));
}

static void test_string_buffer_grows_and_detaches(void **state) {
    (void)state;
    StrBuf buffer = {0};
    for (int i = 0; i < 1000; i++) base_str_appendf(&buffer, "%d,", i);
    assert_int_equal(buffer.length, 3890);
    base_str_append_codepoint(&buffer, 0x1F600);
    char *text = base_str_detach(&buffer);
    assert_string_equal(text + 3890, "\xF0\x9F\x98\x80");
    free(text);
    char *empty = base_str_detach(&buffer);
    assert_string_equal(empty, "");
    free(empty);
}

static void test_utf8_round_trips_every_code_point(void **state) {
    (void)state;
    for (uint32_t wanted = 0; wanted <= 0x10FFFF; wanted++) {
        if (wanted >= 0xD800 && wanted <= 0xDFFF) continue;
        char bytes[4];
        size_t length = base_utf8_encode(wanted, bytes);
        uint32_t got;
        bool valid;
        assert_int_equal(base_utf8_decode(bytes, length, &got, &valid), length);
        assert_true(valid);
        assert_int_equal(got, wanted);
    }
}

static void test_utf8_bad_bytes_end_at_the_maximal_subpart(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t length, subpart;
    } cases[] = {{"\xC0\x80", 2, 1},         {"\xED\xA0\x80", 3, 1}, {"\xF5\x80", 2, 1},
                 {"\xE2\x82", 2, 2},         {"\xF0\x9F\x98", 3, 3}, {"\x80", 1, 1},
                 {"\xF4\x90\x80\x80", 4, 1}, {"\xE2\x28\xA1", 3, 1}};
    for (size_t i = 0; i < BASE_COUNT(cases); i++) {
        uint32_t codepoint;
        bool valid;
        assert_int_equal(base_utf8_decode(cases[i].bytes, cases[i].length, &codepoint, &valid),
                         cases[i].subpart);
        assert_false(valid);
        assert_int_equal(codepoint, 0xFFFD);
        assert_false(base_utf8_valid(cases[i].bytes, cases[i].length));
    }
}

static void test_atomic_file_is_absent_until_committed(void **state) {
    (void)state;
    char *path = base_path_join(folder, "whole.txt");
    Error err = {0};
    AtomicFile *file = base_atomic_open(path, &err);
    assert_non_null(file);
    assert_true(base_atomic_write(file, "hello", 5, &err));
    assert_false(base_is_file(path));
    assert_true(base_atomic_commit(file, &err));
    char *data;
    size_t length;
    assert_true(base_file_read(path, &data, &length, &err));
    assert_string_equal(data, "hello");
    free(data);
    file = base_atomic_open(path, &err);
    assert_true(base_atomic_write(file, "other", 5, &err));
    base_atomic_abort(file);
    assert_true(base_file_read(path, &data, &length, &err));
    assert_string_equal(data, "hello");
    free(data);
    char **names;
    size_t count;
    assert_true(base_list_dir(folder, &names, &count, &err));
    assert_int_equal(count, 1);
    assert_string_equal(names[0], "whole.txt");
    free(names[0]);
    free(names);
    MappedFile map;
    assert_true(base_map_open(path, &map, &err));
    assert_memory_equal(map.data, "hello", 5);
    base_map_close(&map);
    unlink(path);
    free(path);
}

static void test_atomic_folder_refuses_an_existing_name(void **state) {
    (void)state;
    Error err = {0};
    char *path = base_path_join(folder, "model/deep/");
    AtomicFolder *output = base_folder_open(path, &err);
    assert_non_null(output);
    assert_false(base_is_dir(path));
    char *inner = base_path_join(base_folder_path(output), "x");
    assert_true(base_file_write(inner, "1", 1, &err));
    free(inner);
    assert_true(base_folder_commit(output, &err));
    assert_true(base_is_dir(path));
    assert_null(base_folder_open(path, &err));
    assert_non_null(strstr(err.message, "exists already"));
    free(path);
}

static void test_what_a_killed_writer_left_goes_with_the_next(void **state) {
    (void)state;
    Error err = {0};
    char *path = base_path_join(folder, "killed"), *left = base_path_join(folder, ".killed.abcdef"),
         *inner = base_path_join(left, "half"), *other = base_path_join(folder, ".killed.name");
    assert_true(base_make_dirs(left, &err));
    assert_true(base_file_write(inner, "1", 1, &err));
    assert_true(base_file_write(other, "1", 1, &err));
    AtomicFolder *first = base_folder_open(path, &err);
    assert_non_null(first);
    assert_false(base_is_dir(left));
    assert_true(base_is_file(other)); /* no temporary of ours */
    AtomicFolder *second = base_folder_open(path, &err);
    assert_non_null(second);
    assert_true(base_is_dir(base_folder_path(first))); /* its writer lives */
    base_folder_abort(second);
    base_folder_abort(first);
    assert_true(base_file_write(left, "1", 1, &err));
    assert_true(base_file_write(path, "whole", 5, &err));
    assert_false(base_is_file(left));
    free(path);
    free(left);
    free(inner);
    free(other);
}

static void test_missing_and_foreign_paths_name_the_path(void **state) {
    (void)state;
    Error err = {0};
    char *data;
    size_t length;
    assert_false(base_file_read("/nonexistent/file", &data, &length, &err));
    assert_non_null(strstr(err.message, "/nonexistent/file: No such file"));
    base_error_clear(&err);
    assert_false(base_file_read(folder, &data, &length, &err));
    assert_non_null(strstr(err.message, "is a folder"));
    base_error_clear(&err);
    MappedFile map;
    assert_false(base_map_open("/nonexistent/file", &map, &err));
}

static void test_bad_json_names_line_and_column(void **state) {
    (void)state;
    Error err = {0};
    assert_null(base_json_parse("{\"a\":\n 1,}", 10, "config.json", &err));
    assert_non_null(strstr(err.message, "config.json: not valid JSON at line 2"));
}

static void count_items(void *context, size_t begin, size_t end, int thread) {
    (void)thread;
    int *hits = context;
    for (size_t i = begin; i < end; i++) hits[i]++;
}

static void test_parallel_loop_covers_each_item_once(void **state) {
    (void)state;
    static int hits[10007];
    for (int threads = 1; threads <= 8; threads++) {
        base_threads_set(threads);
        for (int repeat = 0; repeat < 200; repeat++) {
            memset(hits, 0, sizeof hits);
            base_parallel_for(BASE_COUNT(hits), 1, count_items, hits);
            for (size_t i = 0; i < BASE_COUNT(hits); i++) assert_int_equal(hits[i], 1);
        }
    }
    int one = 0;
    base_parallel_for(0, 1, count_items, &one);
    assert_int_equal(one, 0);
}

static void test_a_forked_child_has_a_working_pool(void **state) {
    (void)state;
    base_threads_set(4);
    static int hits[1000];
    memset(hits, 0, sizeof hits);
    base_parallel_for(BASE_COUNT(hits), 1, count_items, hits);
    pid_t child = fork();
    if (child == 0) {
        base_parallel_for(BASE_COUNT(hits), 1, count_items, hits);
        _exit(hits[999] == 2 ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
}

static void test_announced_reads_are_a_hint_and_may_be_stale(void **state) {
    (void)state;
    static int hits[1000];
    char *gone = base_alloc(100000);
    const ParallelReads reads[] = {
        {.data = {gone, NULL, hits}, .bytes = {100000, 0, sizeof hits}},
        {.data = {(const void *)(uintptr_t)4096, NULL, NULL}, .bytes = {1, 0, 0}},
    };
    free(gone);
    base_threads_set(3);
    for (int round = 0; round < 200; round++) {
        memset(hits, 0, sizeof hits);
        base_parallel_expect(reads, (size_t)(round % 3));
        base_parallel_for(BASE_COUNT(hits), 1, count_items, hits);
        for (size_t i = 0; i < BASE_COUNT(hits); i++) assert_int_equal(hits[i], 1);
    }
    base_parallel_expect(NULL, 0);
    base_threads_set(4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_error_stays_and_is_one_line),
        cmocka_unit_test(test_string_buffer_grows_and_detaches),
        cmocka_unit_test(test_utf8_round_trips_every_code_point),
        cmocka_unit_test(test_utf8_bad_bytes_end_at_the_maximal_subpart),
        cmocka_unit_test(test_atomic_file_is_absent_until_committed),
        cmocka_unit_test(test_atomic_folder_refuses_an_existing_name),
        cmocka_unit_test(test_what_a_killed_writer_left_goes_with_the_next),
        cmocka_unit_test(test_missing_and_foreign_paths_name_the_path),
        cmocka_unit_test(test_bad_json_names_line_and_column),
        cmocka_unit_test(test_parallel_loop_covers_each_item_once),
        cmocka_unit_test(test_announced_reads_are_a_hint_and_may_be_stale),
        cmocka_unit_test(test_a_forked_child_has_a_working_pool),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
