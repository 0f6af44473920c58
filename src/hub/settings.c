/* Where the hub and the cache are: the environment, read as huggingface_hub
 * reads it, and the names that the cache gives to repositories. */
#include "hub/cache.h"

#include <ctype.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_ENDPOINT "https://huggingface.co"

static const char *environment(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static bool is_true(const char *value) {
    static const char *const words[] = {"1", "on", "yes", "true"};
    for (size_t i = 0; value && i < BASE_COUNT(words); i++)
        if (strcasecmp(value, words[i]) == 0) return true;
    return false;
}

static char *home_folder(void) {
    const char *home = environment("HOME");
    if (home) return base_strdup(home);
    const struct passwd *user = getpwuid(getuid());
    return base_strdup(user && user->pw_dir ? user->pw_dir : "/");
}

/* "~/models" -> "/home/a/models". */
static char *expand(const char *path) {
    if (path[0] != '~' || (path[1] != '/' && path[1] != '\0')) return base_strdup(path);
    char *home = home_folder(), *full = base_format("%s%s", home, path + 1);
    free(home);
    return full;
}

static char *hub_home(void) {
    const char *given = environment("HF_HOME"), *base = environment("XDG_CACHE_HOME");
    if (given) return expand(given);
    char *cache = expand(base ? base : "~/.cache");
    char *home = base_path_join(cache, "huggingface");
    free(cache);
    return home;
}

static char *cache_folder(const char *home) {
    const char *given = environment("HF_HUB_CACHE");
    if (!given) given = environment("HUGGINGFACE_HUB_CACHE");
    return given ? expand(given) : base_path_join(home, "hub");
}

/* The text without line ends and outer blanks; NULL when nothing is left. It
 * becomes a header, so no control character may stay. */
static char *clean_token(const char *text, size_t length, const char *source, Error *err) {
    StrBuf token = {0};
    for (size_t i = 0; i < length; i++)
        if (text[i] != '\r' && text[i] != '\n') base_str_append_char(&token, text[i]);
    size_t begin = 0, end = token.length;
    while (begin < end && isspace((unsigned char)token.data[begin])) begin++;
    while (end > begin && isspace((unsigned char)token.data[end - 1])) end--;
    char *clean = end > begin ? base_strndup(token.data + begin, end - begin) : NULL;
    base_str_free(&token);
    for (const char *at = clean; at && *at; at++)
        if ((unsigned char)*at <= ' ' || (unsigned char)*at >= 0x7F) {
            base_fail(err, ERROR_INPUT, "%s: is not a token: it holds a character %d", source,
                      (unsigned char)*at);
            break;
        }
    return clean;
}

static char *read_token(const char *home, Error *err) {
    const char *given = environment("HF_TOKEN");
    if (!given) given = environment("HUGGING_FACE_HUB_TOKEN");
    if (is_true(environment("HF_HUB_DISABLE_IMPLICIT_TOKEN"))) return NULL;
    char *token = given ? clean_token(given, strlen(given), "HF_TOKEN", err) : NULL;
    if (token) return token;
    const char *path = environment("HF_TOKEN_PATH");
    char *file = path ? expand(path) : base_path_join(home, "token");
    char *text = NULL;
    size_t length = 0;
    if (base_is_file(file) && base_file_read(file, &text, &length, NULL))
        token = clean_token(text, length, file, err);
    free(text);
    free(file);
    return token;
}

static char *read_endpoint(Error *err) {
    const char *given = environment("HF_ENDPOINT");
    if (!given) given = DEFAULT_ENDPOINT;
    size_t length = strlen(given);
    while (length && given[length - 1] == '/') length--;
    if (!base_starts_with(given, "https://") && !base_starts_with(given, "http://"))
        base_fail(err, ERROR_INPUT, "HF_ENDPOINT: \"%.200s\" is not an http or https address",
                  given);
    return base_strndup(given, length);
}

bool hub_settings_read(HubSettings *settings, Error *err) {
    Error failure = {0};
    char *home = hub_home();
    const char *timeout = environment("HF_HUB_DOWNLOAD_TIMEOUT");
    double seconds = timeout ? strtod(timeout, NULL) : 0;
    *settings = (HubSettings){
        .endpoint = read_endpoint(&failure),
        .cache = cache_folder(home),
        .token = read_token(home, &failure),
        .offline = is_true(environment("HF_HUB_OFFLINE")) ||
                   (!environment("HF_HUB_OFFLINE") && is_true(environment("TRANSFORMERS_OFFLINE"))),
        .timeout = seconds > 0 ? seconds : 10,
        .pause = 1,
    };
    free(home);
    if (failure.code == ERROR_NONE) return true;
    hub_settings_free(settings);
    if (err) *err = failure;
    return false;
}

void hub_settings_free(HubSettings *settings) {
    free(settings->endpoint);
    free(settings->cache);
    free(settings->token);
    *settings = (HubSettings){0};
}

/* A part may not begin or end with '-' or '.', nor hold "--" or "..". */
static bool is_id_part(const char *text, size_t length) {
    if (length == 0 || length > 96) return false;
    for (size_t i = 0; i < length; i++) {
        bool word = isalnum((unsigned char)text[i]) || text[i] == '_';
        bool mark = text[i] == '-' || text[i] == '.';
        if (!word && !mark) return false;
        if (mark && (i == 0 || i + 1 == length || text[i - 1] == text[i])) return false;
    }
    return true;
}

bool hub_is_id(const char *name) {
    const char *slash = strchr(name, '/');
    if (base_ends_with(name, ".git")) return false;
    if (!slash) return is_id_part(name, strlen(name));
    return is_id_part(name, (size_t)(slash - name)) && is_id_part(slash + 1, strlen(slash + 1));
}

char *hub_label(const char *folder) {
    static const char mark[] = "/snapshots/";
    const char *snapshots = strstr(folder, mark), *next = snapshots;
    while (next && (next = strstr(next + 1, mark)) != NULL) snapshots = next;
    if (!snapshots) return base_strdup(folder);
    const char *name = snapshots;
    while (name > folder && name[-1] != '/') name--;
    const char *commit = snapshots + strlen(mark);
    size_t length = strcspn(commit, "/");
    bool whole = strspn(commit, "0123456789abcdef") == length && length == 40;
    if (!whole || strcspn(commit + length, "/") != 0 ||
        commit[length + strspn(commit + length, "/")])
        return base_strdup(folder);
    char *repo = base_strndup(name, (size_t)(snapshots - name));
    char *id = hub_repo_id(repo, NULL);
    free(repo);
    return id ? id : base_strdup(folder);
}

/* ---- names in the cache --------------------------------------------------------- */

static const struct {
    const char *prefix, *type;
} repo_types[] = {{"models--", "model"},
                  {"datasets--", "dataset"},
                  {"spaces--", "space"},
                  {"kernels--", "kernel"}};

char *hub_repo_id(const char *folder, const char **type) {
    for (size_t i = 0; i < BASE_COUNT(repo_types); i++) {
        if (!base_starts_with(folder, repo_types[i].prefix)) continue;
        if (type) *type = repo_types[i].type;
        StrBuf id = {0};
        base_str_append(&id, "");
        for (const char *at = folder + strlen(repo_types[i].prefix); *at;) {
            bool separator = at[0] == '-' && at[1] == '-';
            base_str_append_char(&id, separator ? '/' : *at);
            at += separator ? 2 : 1;
        }
        return base_str_detach(&id);
    }
    return NULL;
}

char *hub_repo_folder(const char *id) {
    StrBuf folder = {0};
    base_str_append(&folder, "models--");
    for (const char *at = id; *at; at++) {
        if (*at == '/')
            base_str_append(&folder, "--");
        else
            base_str_append_char(&folder, *at);
    }
    return base_str_detach(&folder);
}
