/* Downloads from a hub that misbehaves: what is tried again, what is refused
 * with which words, and where the token goes. */
#include "hub/remote.h"
#include "hub/server.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { WEIGHTS = 300000 };

typedef struct Fixture {
    char *folder;
    Server *server;
    HubSettings settings;
    HubDownloaded result;
    Error err;
    uint8_t weights[WEIGHTS];
} Fixture;

static int make(void **state) {
    Fixture *f = calloc(1, sizeof *f);
    if (folder_make((void **)&f->folder) != 0) return -1;
    f->server = server_start();
    for (size_t i = 0; i < WEIGHTS; i++) f->weights[i] = (uint8_t)(i * 2654435761u >> 13);
    server_add(f->server, "config.json", CONFIG_LLAMA, strlen(CONFIG_LLAMA), false);
    server_add(f->server, "model.safetensors", f->weights, WEIGHTS, true);
    server_add(f->server, "1_Pooling/config.json", "{}", 2, false);
    server_add(f->server, "pytorch_model.bin", "x", 1, true);
    server_add(f->server, "README.md", "words", 5, false);
    f->settings = (HubSettings){.endpoint = base_strdup(f->server->endpoint),
                                .cache = base_path_join(f->folder, "hub"),
                                .token = base_strdup("hf_secret"),
                                .timeout = 0.6,
                                .pause = 0.01};
    static const char *const unset[] = {"HF_HOME", "HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE",
                                        "HF_ENDPOINT"};
    for (size_t i = 0; i < BASE_COUNT(unset); i++) unsetenv(unset[i]);
    setenv("no_proxy", "*", 1);
    *state = f;
    return 0;
}

static int drop(void **state) {
    Fixture *f = *state;
    server_stop(f->server);
    folder_remove(f->folder);
    free(f->folder);
    free(f->result.folder);
    hub_settings_free(&f->settings);
    free(f);
    return 0;
}

static bool download(Fixture *f, const HubDownload *how) {
    HubDownload quiet = how ? *how : (HubDownload){0};
    quiet.quiet = true;
    free(f->result.folder);
    f->result.folder = NULL;
    base_error_clear(&f->err);
    return hub_download(&f->settings, "org/tiny", &quiet, &f->result, &f->err);
}

static void expect_good(Fixture *f) {
    bool good = download(f, NULL);
    if (!good) fail_msg("%s", f->err.message);
    char *path = base_path_join(f->result.folder, "model.safetensors"), *bytes;
    size_t length;
    assert_true(base_file_read(path, &bytes, &length, NULL));
    assert_int_equal(length, WEIGHTS);
    assert_memory_equal(bytes, f->weights, WEIGHTS);
    free(bytes);
    free(path);
}

static void expect_bad(Fixture *f, const char *words) {
    assert_false(download(f, NULL));
    if (!strstr(f->err.message, words)) fail_msg("\"%s\" lacks \"%s\"", f->err.message, words);
}

static char *in_repo(const Fixture *f, const char *name) {
    return base_format("%s/models--org--tiny/%s", f->settings.cache, name);
}

static void expect_file(const Fixture *f, const char *name, bool there) {
    char *path = in_repo(f, name);
    if (base_is_file(path) != there) fail_msg("%s: there %d", path, !there);
    free(path);
}

/* ---- a good hub -------------------------------------------------------------------- */

static void test_cache_has_the_layout_of_hugging_face(void **state) {
    Fixture *f = *state;
    expect_good(f);
    assert_string_equal(f->result.commit, SERVER_COMMIT);
    assert_int_equal(f->result.files, 3);
    assert_int_equal(f->result.fetched, 3);
    expect_file(f, "refs/main", true);
    expect_file(f, "trees/" SERVER_COMMIT ".json", true);
    expect_file(f, "snapshots/" SERVER_COMMIT "/1_Pooling/config.json", true);
    expect_file(f, "snapshots/" SERVER_COMMIT "/pytorch_model.bin", false);
    expect_file(f, "snapshots/" SERVER_COMMIT "/README.md", false);
    char *link = in_repo(f, "snapshots/" SERVER_COMMIT "/1_Pooling/config.json");
    char target[256] = "", *wanted = base_format("../../../blobs/%s",
                                                 server_etag(f->server, "1_Pooling/config.json"));
    assert_true(readlink(link, target, sizeof target - 1) > 0);
    assert_string_equal(target, wanted);
    free(wanted);
    free(link);
    char *label = hub_label(f->result.folder);
    assert_string_equal(label, "org/tiny");
    free(label);
}

static void test_second_download_fetches_nothing(void **state) {
    Fixture *f = *state;
    expect_good(f);
    size_t before = server_asked(f->server, "model.safetensors", NULL);
    expect_good(f);
    assert_int_equal(f->result.fetched, 0);
    assert_int_equal(server_asked(f->server, "model.safetensors", NULL), before);
}

static void test_bin_files_come_when_there_are_no_safetensors(void **state) {
    Fixture *f = *state;
    f->server->files[1].path = "other.safetensors.txt";
    assert_true(download(f, NULL));
    expect_file(f, "snapshots/" SERVER_COMMIT "/pytorch_model.bin", true);
}

static void test_patterns_choose_files(void **state) {
    Fixture *f = *state;
    static const char *const allow[] = {"*.json", "*.md"}, *const ignore[] = {"1_*"};
    HubDownload how = {.allow = allow, .allow_count = 2, .ignore = ignore, .ignore_count = 1};
    assert_true(download(f, &how));
    assert_int_equal(f->result.files, 2);
    expect_file(f, "snapshots/" SERVER_COMMIT "/README.md", true);
    expect_file(f, "snapshots/" SERVER_COMMIT "/1_Pooling/config.json", false);
}

static void test_list_of_several_pages_is_followed(void **state) {
    Fixture *f = *state;
    char headers[256];
    snprintf(headers, sizeof headers, "Link: <%s/api/models/org/tiny/tree/next>; rel=\"next\"\r\n",
             f->server->endpoint);
    server_fault(f->server, (Fault){.path = "/tree/" SERVER_COMMIT,
                                    .kind = FAULT_STATUS,
                                    .status = 200,
                                    .headers = headers,
                                    .body = "[]"});
    expect_good(f);
    assert_int_equal(server_asked(f->server, "/tree/next", NULL), 1);
}

static void test_list_that_goes_on_elsewhere_is_refused(void **state) {
    Fixture *f = *state;
    server_fault(f->server, (Fault){.path = "/tree/" SERVER_COMMIT,
                                    .kind = FAULT_STATUS,
                                    .status = 200,
                                    .headers = "Link: <http://localhost:1/x>; rel=\"next\"\r\n",
                                    .body = "[]"});
    expect_bad(f, "goes on at another host");
}

/* ---- a bad connection ------------------------------------------------------------------ */

static void test_cut_file_goes_on_where_it_stopped(void **state) {
    Fixture *f = *state;
    server_fault(f->server,
                 (Fault){.path = "model.safetensors", .kind = FAULT_CUT, .bytes = 100000});
    expect_good(f);
    Seen seen = {0};
    assert_int_equal(server_asked(f->server, "model.safetensors", &seen), 2);
    assert_string_equal(seen.range, "bytes=100000-");
    char *wanted = base_format("\"%s\"", server_etag(f->server, "model.safetensors"));
    assert_string_equal(seen.if_range, wanted);
    free(wanted);
}

static void test_server_that_ignores_ranges_gives_the_whole_again(void **state) {
    Fixture *f = *state;
    server_fault(f->server, (Fault){.path = "model.safetensors", .kind = FAULT_CUT, .bytes = 9999});
    server_fault(f->server, (Fault){.path = "model.safetensors", .kind = FAULT_WHOLE});
    expect_good(f);
}

static void test_other_part_than_asked_for_is_not_taken(void **state) {
    Fixture *f = *state;
    server_fault(f->server, (Fault){.path = "model.safetensors", .kind = FAULT_CUT, .bytes = 9999});
    server_fault(f->server, (Fault){.path = "model.safetensors", .kind = FAULT_RANGE});
    expect_good(f);
}

static void test_stalled_server_is_left_and_asked_again(void **state) {
    Fixture *f = *state;
    server_fault(f->server,
                 (Fault){.path = "model.safetensors", .kind = FAULT_STALL, .bytes = 5000});
    expect_good(f);
    assert_int_equal(server_asked(f->server, "model.safetensors", NULL), 2);
}

static void test_slow_server_is_waited_for(void **state) {
    Fixture *f = *state;
    server_fault(f->server, (Fault){.path = "model.safetensors", .kind = FAULT_SLOW, .bytes = 500});
    expect_good(f);
    assert_int_equal(server_asked(f->server, "model.safetensors", NULL), 1);
}

static void test_busy_hub_is_asked_again(void **state) {
    Fixture *f = *state;
    static const int codes[] = {408, 429, 500, 503};
    for (size_t i = 0; i < BASE_COUNT(codes); i++)
        server_fault(f->server, (Fault){.path = i % 2 ? "model.safetensors" : "/revision/main",
                                        .kind = FAULT_STATUS,
                                        .status = codes[i]});
    expect_good(f);
}

static void test_retry_after_is_kept(void **state) {
    Fixture *f = *state;
    server_fault(f->server, (Fault){.path = "model.safetensors",
                                    .kind = FAULT_STATUS,
                                    .status = 429,
                                    .headers = "Retry-After: 1\r\n"});
    base_log_level(LOG_ERROR);
    double start = base_now();
    expect_good(f);
    base_log_level(LOG_WARNING);
    assert_true(base_now() - start >= 0.95);
}

static void test_endless_retry_after_is_said(void **state) {
    Fixture *f = *state;
    server_fault(f->server, (Fault){.path = "/revision/main",
                                    .kind = FAULT_STATUS,
                                    .status = 429,
                                    .headers = "Retry-After: 3600\r\n"});
    expect_bad(f, "the hub answered 429");
    assert_string_equal(f->err.hint, "the server asks to come back in 60 minutes");
}

static void test_hub_that_stays_down_is_given_up(void **state) {
    Fixture *f = *state;
    for (int i = 0; i < 5; i++)
        server_fault(f->server,
                     (Fault){.path = "model.safetensors", .kind = FAULT_STATUS, .status = 502});
    expect_bad(f, "model.safetensors: the hub answered 502");
    expect_file(f, "snapshots/" SERVER_COMMIT "/model.safetensors", false);
    expect_good(f);
}

static void test_longer_leftover_begins_anew(void **state) {
    Fixture *f = *state;
    char *blobs = in_repo(f, "blobs"),
         *name = base_format("%s.incomplete", server_etag(f->server, "model.safetensors"));
    assert_true(base_make_dirs(blobs, NULL));
    char *junk = calloc(1, WEIGHTS + 10);
    folder_write(blobs, name, junk, WEIGHTS + 10);
    expect_good(f);
    free(junk);
    free(name);
    free(blobs);
}

static void test_wrong_leftover_is_noticed_by_its_hash(void **state) {
    Fixture *f = *state;
    char *blobs = in_repo(f, "blobs"),
         *name = base_format("%s.incomplete", server_etag(f->server, "model.safetensors"));
    assert_true(base_make_dirs(blobs, NULL));
    folder_write(blobs, name, "other bytes", 11);
    expect_good(f);
    Seen seen;
    assert_int_equal(server_asked(f->server, "model.safetensors", &seen), 2);
    assert_string_equal(seen.range, "");
    free(name);
    free(blobs);
}

static void test_416_begins_anew(void **state) {
    Fixture *f = *state;
    server_fault(f->server, (Fault){.path = "model.safetensors", .kind = FAULT_CUT, .bytes = 999});
    server_fault(f->server,
                 (Fault){.path = "model.safetensors", .kind = FAULT_STATUS, .status = 416});
    expect_good(f);
}

/* ---- wrong answers -------------------------------------------------------------------------- */

static void test_wrong_bytes_are_fetched_again_once(void **state) {
    Fixture *f = *state;
    server_fault(f->server, (Fault){.path = "model.safetensors", .kind = FAULT_FLIP});
    expect_good(f);
    assert_int_equal(server_asked(f->server, "model.safetensors", NULL), 2);
}

static void test_bytes_wrong_twice_are_refused_and_leave_nothing(void **state) {
    Fixture *f = *state;
    for (int i = 0; i < 2; i++)
        server_fault(f->server, (Fault){.path = "model.safetensors", .kind = FAULT_FLIP});
    expect_bad(f, "model.safetensors: what came is not the file");
    char *name = base_format("blobs/%s", server_etag(f->server, "model.safetensors"));
    char *incomplete = base_format("%s.incomplete", name);
    expect_file(f, name, false);
    expect_file(f, incomplete, false);
    free(incomplete);
    free(name);
}

static void test_wrong_length_is_refused(void **state) {
    Fixture *f = *state;
    for (int i = 0; i < 2; i++)
        server_fault(f->server,
                     (Fault){.path = "model.safetensors", .kind = FAULT_LENGTH, .bytes = 7});
    expect_bad(f, "the hub sends 300007 bytes, its list says 300000");
}

static void test_refusals_say_what_to_do(void **state) {
    Fixture *f = *state;
    static const struct {
        int status;
        const char *headers, *message, *hint;
    } rows[] = {
        {401, "X-Error-Message: Invalid username or password.\r\n",
         "org/tiny: the hub answered 401: Invalid username or password.",
         "The token in use does not open it, or there is no such model."},
        {403, "X-Error-Code: GatedRepo\r\nX-Error-Message: Access is restricted.\r\n",
         "org/tiny: the hub answered 403: Access is restricted.",
         "Accept the model's terms on its page."},
        {404, "X-Error-Code: RevisionNotFound\r\n", "org/tiny: the hub answered 404",
         "There is no such branch, tag or commit."},
        {404, "X-Error-Code: RepoNotFound\r\n", "org/tiny: the hub answered 404",
         "Check the name; a private model needs HF_TOKEN."},
    };
    for (size_t i = 0; i < BASE_COUNT(rows); i++) {
        server_fault(f->server, (Fault){.path = "/revision/main",
                                        .kind = FAULT_STATUS,
                                        .status = rows[i].status,
                                        .headers = rows[i].headers});
        assert_false(download(f, NULL));
        assert_string_equal(f->err.message, rows[i].message);
        assert_string_equal(f->err.hint, rows[i].hint);
    }
    assert_false(base_is_dir(f->settings.cache));
}

static void test_paths_that_leave_the_folder_are_refused(void **state) {
    Fixture *f = *state;
    static const char *const paths[] = {"../../evil.json", "/etc/evil.json", "a/../b.json",
                                        "a//b.json",       "./a.json",       "a\\b.json"};
    for (size_t i = 0; i < BASE_COUNT(paths); i++) {
        f->server->files[0].path = paths[i];
        expect_bad(f, "refused");
    }
}

static void test_hashes_that_are_no_names_are_refused(void **state) {
    Fixture *f = *state;
    static const char *const lists[] = {
        "[{\"type\":\"file\",\"path\":\"config.json\",\"oid\":\"../../../x\",\"size\":2}]",
        "[{\"type\":\"file\",\"path\":\"config.json\",\"size\":2}]",
        ("[{\"type\":\"file\",\"path\":\"config.json\",\"oid\":"
         "\"0123456789abcdef0123456789abcdef01234567\",\"size\":-1}]")};
    for (size_t i = 0; i < BASE_COUNT(lists); i++) {
        server_fault(f->server, (Fault){.path = "/tree/" SERVER_COMMIT,
                                        .kind = FAULT_STATUS,
                                        .status = 200,
                                        .body = lists[i]});
        expect_bad(f, "without a usable hash or size");
    }
    server_fault(f->server, (Fault){.path = "/revision/main",
                                    .kind = FAULT_STATUS,
                                    .status = 200,
                                    .body = "{\"sha\": \"../../x\"}"});
    expect_bad(f, "names no commit");
}

/* ---- redirects and the token -------------------------------------------------------------------
 */

static void test_token_stays_with_the_endpoint(void **state) {
    Fixture *f = *state;
    Server *other = server_start();
    server_add(other, "elsewhere", f->weights, WEIGHTS, true);
    char headers[256];
    snprintf(headers, sizeof headers, "Location: %s/signed/elsewhere?key=1\r\n", other->endpoint);
    server_fault(f->server, (Fault){.path = "model.safetensors",
                                    .kind = FAULT_STATUS,
                                    .status = 302,
                                    .headers = headers});
    expect_good(f);
    Seen seen = {0};
    assert_int_equal(server_asked(other, "elsewhere", &seen), 1);
    assert_string_equal(seen.authorization, "");
    server_asked(f->server, "model.safetensors", &seen);
    assert_string_equal(seen.authorization, "Bearer hf_secret");
    server_asked(f->server, "/revision/main", &seen);
    assert_string_equal(seen.authorization, "Bearer hf_secret");
    server_stop(other);
}

static void test_relative_redirect_keeps_the_token(void **state) {
    Fixture *f = *state;
    server_fault(f->server, (Fault){.path = "/resolve/" SERVER_COMMIT "/model.safetensors",
                                    .kind = FAULT_STATUS,
                                    .status = 307,
                                    .headers = "Location: /moved/model.safetensors\r\n"});
    expect_good(f);
    Seen seen = {0};
    assert_int_equal(server_asked(f->server, "/moved/model.safetensors", &seen), 1);
    assert_string_equal(seen.authorization, "Bearer hf_secret");
}

static void test_endless_and_strange_redirects_are_refused(void **state) {
    Fixture *f = *state;
    for (int i = 0; i < 11; i++)
        server_fault(f->server, (Fault){.path = "model.safetensors",
                                        .kind = FAULT_STATUS,
                                        .status = 302,
                                        .headers = "Location: /again/model.safetensors\r\n"});
    expect_bad(f, "redirects without end");
    server_fault(f->server, (Fault){.path = "model.safetensors",
                                    .kind = FAULT_STATUS,
                                    .status = 302,
                                    .headers = "Location: file:///etc/passwd\r\n"});
    expect_bad(f, "redirects to no usable address");
}

/* ---- stops
 * ------------------------------------------------------------------------------------------ */

static void test_killed_download_goes_on(void **state) {
    Fixture *f = *state;
    server_fault(f->server,
                 (Fault){.path = "model.safetensors", .kind = FAULT_STALL, .bytes = 200000});
    char *incomplete = base_format("%s/models--org--tiny/blobs/%s.incomplete", f->settings.cache,
                                   server_etag(f->server, "model.safetensors"));
    f->settings.timeout = 30;
    pid_t child = fork();
    if (child == 0) {
        download(f, NULL);
        _exit(0);
    }
    struct stat info = {0};
    for (int i = 0; i < 500 && (stat(incomplete, &info) != 0 || info.st_size < 200000); i++)
        usleep(10000);
    assert_int_equal(info.st_size, 200000);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    expect_good(f);
    Seen seen;
    server_asked(f->server, "model.safetensors", &seen);
    assert_string_equal(seen.range, "bytes=200000-");
    free(incomplete);
}

static void test_full_disk_is_said_and_what_came_is_kept(void **state) {
    Fixture *f = *state;
    int words[2];
    assert_int_equal(pipe(words), 0);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGXFSZ, SIG_IGN);
        struct rlimit limit = {100000, 100000};
        setrlimit(RLIMIT_FSIZE, &limit);
        bool good = download(f, NULL);
        dprintf(words[1], "%s", f->err.message);
        _exit(good ? 1 : 0);
    }
    close(words[1]);
    char said[512] = "";
    assert_true(read(words[0], said, sizeof said - 1) > 0);
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    if (!strstr(said, "model.safetensors: cannot write into")) fail_msg("%s", said);
    close(words[0]);
    expect_good(f);
    Seen seen;
    server_asked(f->server, "model.safetensors", &seen);
    assert_string_equal(seen.range, "bytes=100000-");
}

static void *hold_lock(void *context) {
    int fd = *(int *)context;
    usleep(300000);
    close(fd);
    return NULL;
}

static void test_blob_that_another_process_writes_is_waited_for(void **state) {
    Fixture *f = *state;
    char *locks = base_format("%s/.locks/models--org--tiny", f->settings.cache);
    assert_true(base_make_dirs(locks, NULL));
    char *path = base_format("%s/%s.lock", locks, server_etag(f->server, "model.safetensors"));
    int fd = open(path, O_RDWR | O_CREAT, 0664);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    pthread_t thread;
    pthread_create(&thread, NULL, hold_lock, &fd);
    double start = base_now();
    expect_good(f);
    assert_true(base_now() - start >= 0.25);
    pthread_join(thread, NULL);
    free(path);
    free(locks);
}

/* ---- without the hub
 * --------------------------------------------------------------------------------- */

static void test_offline_uses_the_cache_and_nothing_else(void **state) {
    Fixture *f = *state;
    f->settings.offline = true;
    expect_bad(f, "HF_HUB_OFFLINE is set");
    f->settings.offline = false;
    expect_good(f);
    size_t before = f->server->seen_count;
    f->settings.offline = true;
    expect_good(f);
    assert_true(f->result.stale);
    assert_int_equal(f->server->seen_count, before);
}

static void test_unreachable_hub_falls_back_to_the_cache(void **state) {
    Fixture *f = *state;
    expect_good(f);
    free(f->settings.endpoint);
    f->settings.endpoint = base_strdup("http://127.0.0.1:1");
    base_log_level(LOG_ERROR);
    expect_good(f);
    base_log_level(LOG_WARNING);
    assert_true(f->result.stale);
    char *link = in_repo(f, "snapshots/" SERVER_COMMIT "/model.safetensors");
    unlink(link);
    expect_bad(f, "127.0.0.1:1");
    free(link);
}

static void test_model_argument_is_a_folder_or_an_id(void **state) {
    Fixture *f = *state;
    setenv("HF_ENDPOINT", f->server->endpoint, 1);
    setenv("HF_HUB_CACHE", f->settings.cache, 1);
    Error err = {0};
    char *folder = hub_find(f->folder, &err);
    assert_string_equal(folder, f->folder);
    free(folder);
    folder = hub_find("./no/such/folder", &err);
    assert_string_equal(folder, "./no/such/folder");
    free(folder);
    folder = hub_find("org/tiny", &err);
    if (!folder) fail_msg("%s", err.message);
    assert_true(base_ends_with(folder, "models--org--tiny/snapshots/" SERVER_COMMIT));
    free(folder);
    size_t before = f->server->seen_count;
    folder = hub_find("org/tiny", &err);
    assert_int_equal(f->server->seen_count, before);
    free(folder);
    server_fault(f->server, (Fault){.path = "/revision/main", .kind = FAULT_STATUS, .status = 404});
    assert_null(hub_find("org/absent", &err));
    assert_string_equal(
        err.message, "org/absent: no such folder, and no model of the hub: the hub answered 404");
    unsetenv("HF_ENDPOINT");
    unsetenv("HF_HUB_CACHE");
}

static void test_settings_come_from_the_environment(void **state) {
    Fixture *f = *state;
    HubSettings settings;
    Error err = {0};
    setenv("HF_HOME", f->folder, 1);
    folder_text(f->folder, "token", " hf_file \n");
    assert_true(hub_settings_read(&settings, &err));
    assert_string_equal(settings.token, "hf_file");
    assert_true(base_starts_with(settings.cache, f->folder));
    assert_true(base_ends_with(settings.cache, "/hub"));
    hub_settings_free(&settings);
    setenv("HF_TOKEN", "hf_given", 1);
    setenv("HF_HUB_OFFLINE", "yes", 1);
    setenv("HF_ENDPOINT", "https://mirror.example/", 1);
    assert_true(hub_settings_read(&settings, &err));
    assert_string_equal(settings.token, "hf_given");
    assert_string_equal(settings.endpoint, "https://mirror.example");
    assert_true(settings.offline);
    hub_settings_free(&settings);
    setenv("HF_TOKEN", "two words", 1);
    assert_false(hub_settings_read(&settings, &err));
    base_error_clear(&err);
    setenv("HF_TOKEN", "hf_given", 1);
    setenv("HF_ENDPOINT", "ftp://mirror", 1);
    assert_false(hub_settings_read(&settings, &err));
    assert_non_null(strstr(err.message, "HF_ENDPOINT"));
    static const char *const names[] = {"HF_HOME", "HF_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT"};
    for (size_t i = 0; i < BASE_COUNT(names); i++) unsetenv(names[i]);
}

static void test_ids_are_what_the_hub_allows(void **state) {
    (void)state;
    static const char *const good[] = {"gpt2", "org/name", "a_b/C-d.e1", "_x/y"};
    static const char *const bad[] = {"",     "/abs",  "a/b/c", "a//b", "a--b", "a..b",     "-a",
                                      "a/.b", "a.git", "org/",  "./x",  "x y",  "models/a/"};
    for (size_t i = 0; i < BASE_COUNT(good); i++) assert_true(hub_is_id(good[i]));
    for (size_t i = 0; i < BASE_COUNT(bad); i++)
        if (hub_is_id(bad[i])) fail_msg("%s", bad[i]);
}

#define WITH_HUB(test) cmocka_unit_test_setup_teardown(test, make, drop)

int main(void) {
    const struct CMUnitTest tests[] = {
        WITH_HUB(test_cache_has_the_layout_of_hugging_face),
        WITH_HUB(test_second_download_fetches_nothing),
        WITH_HUB(test_bin_files_come_when_there_are_no_safetensors),
        WITH_HUB(test_patterns_choose_files),
        WITH_HUB(test_list_of_several_pages_is_followed),
        WITH_HUB(test_list_that_goes_on_elsewhere_is_refused),
        WITH_HUB(test_cut_file_goes_on_where_it_stopped),
        WITH_HUB(test_server_that_ignores_ranges_gives_the_whole_again),
        WITH_HUB(test_other_part_than_asked_for_is_not_taken),
        WITH_HUB(test_stalled_server_is_left_and_asked_again),
        WITH_HUB(test_slow_server_is_waited_for),
        WITH_HUB(test_busy_hub_is_asked_again),
        WITH_HUB(test_retry_after_is_kept),
        WITH_HUB(test_endless_retry_after_is_said),
        WITH_HUB(test_hub_that_stays_down_is_given_up),
        WITH_HUB(test_longer_leftover_begins_anew),
        WITH_HUB(test_wrong_leftover_is_noticed_by_its_hash),
        WITH_HUB(test_416_begins_anew),
        WITH_HUB(test_wrong_bytes_are_fetched_again_once),
        WITH_HUB(test_bytes_wrong_twice_are_refused_and_leave_nothing),
        WITH_HUB(test_wrong_length_is_refused),
        WITH_HUB(test_refusals_say_what_to_do),
        WITH_HUB(test_paths_that_leave_the_folder_are_refused),
        WITH_HUB(test_hashes_that_are_no_names_are_refused),
        WITH_HUB(test_token_stays_with_the_endpoint),
        WITH_HUB(test_relative_redirect_keeps_the_token),
        WITH_HUB(test_endless_and_strange_redirects_are_refused),
        WITH_HUB(test_killed_download_goes_on),
        WITH_HUB(test_full_disk_is_said_and_what_came_is_kept),
        WITH_HUB(test_blob_that_another_process_writes_is_waited_for),
        WITH_HUB(test_offline_uses_the_cache_and_nothing_else),
        WITH_HUB(test_unreachable_hub_falls_back_to_the_cache),
        WITH_HUB(test_model_argument_is_a_folder_or_an_id),
        WITH_HUB(test_settings_come_from_the_environment),
        cmocka_unit_test(test_ids_are_what_the_hub_allows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
