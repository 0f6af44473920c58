/* Models in the cache: model download, list, verify and remove, and manage,
 * which is mlx_lm.manage. */
#include "cli/commands.h"
#include "hub/remote.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- model download ------------------------------------------------------------- */

typedef struct DownloadArguments {
    const char *model, *revision;
    OptionList include, exclude;
    OptionInt at_once;
    bool force, quiet, json;
} DownloadArguments;
#define ARGUMENTS DownloadArguments

static const Option download_table[] = {
    POSITIONAL("ID", TEXT, model, true, "model of the hub: org/name"),
    OPTION("revision", NULL, TEXT, revision, "main", "NAME", "branch, tag or commit"),
    OPTION("include", NULL, LIST, include, NULL, "PATTERN",
           "files to take, \"*.json\"; absent: what a model needs"),
    OPTION("exclude", NULL, LIST, exclude, NULL, "PATTERN", "files to leave out"),
    OPTION("max-workers", NULL, INT, at_once, "8", "N", "files at a time"),
    OPTION("force-download", NULL, FLAG, force, NULL, NULL, "fetch again what the cache has"),
    OPTION("quiet", NULL, FLAG, quiet, NULL, NULL, "show no progress"),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "print a JSON object about the result"),
};

static void print_downloaded(const DownloadArguments *arguments, const HubDownloaded *result,
                             double seconds) {
    if (arguments->json) {
        output_json(json_pack(
            "{s:s,s:s,s:o,s:I,s:I,s:I,s:I,s:b,s:f}", "id", arguments->model, "commit",
            result->commit, "folder", output_string(result->folder, strlen(result->folder)),
            "files", (json_int_t)result->files, "bytes", (json_int_t)result->bytes, "fetched",
            (json_int_t)result->fetched, "fetched_bytes", (json_int_t)result->fetched_bytes,
            "from_cache", result->stale, "seconds", seconds));
        return;
    }
    if (!arguments->quiet && !result->stale)
        fprintf(stderr, "%s: %zu files, %s; fetched %zu, %s, in %.1f s\n", arguments->model,
                result->files, base_bytes_text(result->bytes), result->fetched,
                base_bytes_text(result->fetched_bytes), seconds);
    puts(result->folder);
}

static int run_download(const void *given, Error *err) {
    const DownloadArguments *arguments = given;
    HubDownload how = {.revision = arguments->revision,
                       .allow = arguments->include.items,
                       .allow_count = arguments->include.count,
                       .ignore = arguments->exclude.items,
                       .ignore_count = arguments->exclude.count,
                       .force = arguments->force,
                       .quiet = arguments->quiet,
                       .json = arguments->json};
    HubSettings settings;
    HubDownloaded result = {0};
    double start = base_now();
    if (!sampling_int("max-workers", arguments->at_once, 1, 64, &how.at_once, err)) return 2;
    if (!hub_settings_read(&settings, err)) return 1;
    bool good = hub_download(&settings, arguments->model, &how, &result, err);
    if (good) print_downloaded(arguments, &result, base_now() - start);
    free(result.folder);
    hub_settings_free(&settings);
    return good ? 0 : 1;
}

const Command model_download_command = {
    .name = "model download",
    .summary = "Brings a model of the hub into the cache.",
    .details =
        "The cache and its settings are Hugging Face's: HF_HOME, HF_HUB_CACHE, HF_TOKEN, "
        "HF_ENDPOINT, HF_HUB_OFFLINE. A download that was stopped goes on where it was. Prints "
        "the model's folder; every command that takes a model also takes the id.",
    OPTIONS(download_table),
    .arguments_size = sizeof(DownloadArguments),
    .run = run_download};
#undef ARGUMENTS

/* ---- tables of repositories -------------------------------------------------------- */

/* Cells of `columns` a row, in columns as wide as their widest cell, each followed
 * by a blank; the first row is the head, ruled off with dashes. */
static void print_table(char *const *cells, size_t rows, size_t columns) {
    size_t widths[8] = {0};
    for (size_t i = 0; i < rows * columns; i++)
        widths[i % columns] = BASE_MAX(widths[i % columns], strlen(cells[i]));
    for (size_t row = 0; row < rows; row++) {
        for (size_t i = 0; i < columns; i++)
            printf("%-*s ", (int)widths[i], cells[row * columns + i]);
        putchar('\n');
        for (size_t i = 0; row == 0 && i < columns; i++) {
            for (size_t dash = 0; dash < widths[i]; dash++) putchar('-');
            putchar(' ');
        }
        if (row == 0) putchar('\n');
    }
}

/* 1234567 -> "1.2M", as huggingface_hub has it. Caller frees. */
static char *short_size(uint64_t bytes) {
    static const char units[] = " KMGTPEZ";
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1000 && unit + 2 < sizeof units) {
        value /= 1000;
        unit++;
    }
    return unit ? base_format("%.1f%c", value, units[unit]) : base_format("%.1f", value);
}

/* "3 days ago"; caller frees. */
static char *time_since(double seconds) {
    static const struct {
        const char *label;
        double divider, most;
    } units[] = {{"second", 1, 59},
                 {"minute", 60, 59},
                 {"hour", 3600, 23},
                 {"day", 86400, 6},
                 {"week", 7 * 86400, 6},
                 {"month", 30 * 86400, 11},
                 {"year", 365 * 86400, INFINITY}};
    double delta = (double)time(NULL) - seconds;
    if (delta < 20) return base_strdup("a few seconds ago");
    size_t unit = 0;
    while (nearbyint(delta / units[unit].divider) > units[unit].most) unit++;
    double value = nearbyint(delta / units[unit].divider);
    return base_format("%.0f %s%s ago", value, units[unit].label, value > 1 ? "s" : "");
}

typedef struct Repos {
    HubSettings settings;
    HubRepo *all;
    size_t all_count;
    const HubRepo **chosen;
    size_t count;
} Repos;

/* Those whose id holds `pattern`, or is one of `ids` when there are any. */
static bool repos_open(Repos *repos, const char *pattern, OptionList ids, Error *err) {
    *repos = (Repos){0};
    if (!hub_settings_read(&repos->settings, err)) return false;
    if (!hub_cache_scan(repos->settings.cache, &repos->all, &repos->all_count, err)) return false;
    repos->chosen = base_calloc(repos->all_count + 1, sizeof *repos->chosen);
    for (size_t i = 0; i < repos->all_count; i++) {
        const HubRepo *repo = &repos->all[i];
        bool wanted = ids.count == 0 && strstr(repo->id, pattern) != NULL;
        for (size_t j = 0; j < ids.count; j++)
            wanted =
                wanted || (strcmp(repo->type, "model") == 0 && strcmp(repo->id, ids.items[j]) == 0);
        if (wanted) repos->chosen[repos->count++] = repo;
    }
    return true;
}

static void repos_close(Repos *repos) {
    hub_cache_free(repos->all, repos->all_count);
    free(repos->chosen);
    hub_settings_free(&repos->settings);
}

static void print_scan(const Repos *repos) {
    enum { COLUMNS = 7 };
    static const char *const heads[COLUMNS] = {"REPO ID",   "REPO TYPE",     "SIZE ON DISK",
                                               "NB FILES",  "LAST_ACCESSED", "LAST_MODIFIED",
                                               "LOCAL PATH"};
    char **cells = base_calloc((repos->count + 1) * COLUMNS, sizeof *cells);
    for (size_t i = 0; i < COLUMNS; i++) cells[i] = base_strdup(heads[i]);
    for (size_t i = 0; i < repos->count; i++) {
        const HubRepo *repo = repos->chosen[i];
        char **row = cells + (i + 1) * COLUMNS, *size = short_size(repo->bytes);
        row[0] = base_strdup(repo->id);
        row[1] = base_strdup(repo->type);
        row[2] = base_format("%12s", size);
        row[3] = base_format("%8zu", repo->files);
        row[4] = time_since(repo->accessed);
        row[5] = time_since(repo->modified);
        row[6] = base_strdup(repo->path);
        free(size);
    }
    print_table(cells, repos->count + 1, COLUMNS);
    for (size_t i = 0; i < (repos->count + 1) * COLUMNS; i++) free(cells[i]);
    free(cells);
}

static void print_doomed(const Repos *repos) {
    enum { COLUMNS = 3 };
    static const char *const heads[COLUMNS] = {"REPO ID", "SIZE", "LOCAL PATH"};
    char **cells = base_calloc((repos->count + 1) * COLUMNS, sizeof *cells);
    for (size_t i = 0; i < COLUMNS; i++) cells[i] = base_strdup(heads[i]);
    for (size_t i = 0; i < repos->count; i++) {
        cells[(i + 1) * COLUMNS] = base_strdup(repos->chosen[i]->id);
        cells[(i + 1) * COLUMNS + 1] = short_size(repos->chosen[i]->bytes);
        cells[(i + 1) * COLUMNS + 2] = base_strdup(repos->chosen[i]->path);
    }
    print_table(cells, repos->count + 1, COLUMNS);
    for (size_t i = 0; i < (repos->count + 1) * COLUMNS; i++) free(cells[i]);
    free(cells);
}

static json_t *repo_json(const HubRepo *repo) {
    return json_pack("{s:o,s:s,s:I,s:I,s:I,s:f,s:f,s:o}", "id",
                     output_string(repo->id, strlen(repo->id)), "type", repo->type, "bytes",
                     (json_int_t)repo->bytes, "files", (json_int_t)repo->files, "revisions",
                     (json_int_t)repo->revisions, "last_accessed", repo->accessed, "last_modified",
                     repo->modified, "path", output_string(repo->path, strlen(repo->path)));
}

/* y, yes or 1; n, no, 0 or nothing; anything else asks again. The end of the input
 * is a no. */
static bool confirm(const char *question) {
    static const char *const yes[] = {"y", "yes", "1"}, *const no[] = {"n", "no", "0", ""};
    char line[64];
    for (;;) {
        printf("%s (y/n) ", question);
        fflush(stdout);
        if (!fgets(line, sizeof line, stdin)) return false;
        line[strcspn(line, "\r\n")] = '\0';
        for (char *at = line; *at; at++) *at = (char)tolower((unsigned char)*at);
        for (size_t i = 0; i < BASE_COUNT(yes); i++)
            if (strcmp(line, yes[i]) == 0) return true;
        for (size_t i = 0; i < BASE_COUNT(no); i++)
            if (strcmp(line, no[i]) == 0) return false;
        puts("Invalid input. Must be one of: yes/no/y/n or empty for no");
    }
}

/* ---- model list --------------------------------------------------------------------- */

typedef struct ListArguments {
    const char *pattern;
    bool json;
} ListArguments;
#define ARGUMENTS ListArguments

static const Option list_table[] = {
    OPTION("pattern", NULL, TEXT, pattern, "", "TEXT", "those whose id holds this"),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "print a JSON object a line"),
};

static int run_list(const void *given, Error *err) {
    const ListArguments *arguments = given;
    Repos repos;
    bool good = repos_open(&repos, arguments->pattern, (OptionList){0}, err);
    if (good && !arguments->json) print_scan(&repos);
    for (size_t i = 0; good && arguments->json && i < repos.count; i++)
        output_json(repo_json(repos.chosen[i]));
    repos_close(&repos);
    return good ? 0 : 1;
}

const Command model_list_command = {.name = "model list",
                                    .summary = "Lists the models in the cache.",
                                    OPTIONS(list_table),
                                    .arguments_size = sizeof(ListArguments),
                                    .run = run_list};
#undef ARGUMENTS

/* ---- model remove ------------------------------------------------------------------- */

typedef struct RemoveArguments {
    OptionList models;
    bool yes, json;
} RemoveArguments;
#define ARGUMENTS RemoveArguments

static const Option remove_table[] = {
    POSITIONAL("ID", LIST, models, true, "models in the cache: org/name"),
    OPTION("yes", "y", FLAG, yes, NULL, NULL, "do not ask"),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "print a JSON object a model; needs --yes"),
};

static bool all_found(const Repos *repos, OptionList ids, Error *err) {
    for (size_t i = 0; i < ids.count; i++) {
        bool found = false;
        for (size_t j = 0; j < repos->count; j++)
            found = found || strcmp(repos->chosen[j]->id, ids.items[i]) == 0;
        if (found) continue;
        base_fail(err, ERROR_INPUT, "%s: not in the cache %s", ids.items[i], repos->settings.cache);
        return base_hint(err, "What is there: mlx-rag model list");
    }
    return true;
}

static int run_remove(const void *given, Error *err) {
    const RemoveArguments *arguments = given;
    if (arguments->json && !arguments->yes) {
        base_fail(err, ERROR_INPUT, "model remove: --json needs --yes");
        return 2;
    }
    Repos repos;
    bool good =
        repos_open(&repos, "", arguments->models, err) && all_found(&repos, arguments->models, err);
    if (good && !arguments->yes) {
        print_doomed(&repos);
        good = confirm("\nRemove them?") || base_fail(err, ERROR_INPUT, "nothing was removed");
    }
    for (size_t i = 0; good && i < repos.count; i++) {
        good = hub_cache_remove(repos.settings.cache, repos.chosen[i], err);
        if (good && arguments->json) output_json(repo_json(repos.chosen[i]));
        if (good && !arguments->json)
            printf("%s: removed, %s freed\n", repos.chosen[i]->id,
                   base_bytes_text(repos.chosen[i]->bytes));
    }
    repos_close(&repos);
    return good ? 0 : 1;
}

const Command model_remove_command = {.name = "model remove",
                                      .summary = "Removes models from the cache.",
                                      .details = "All their revisions go. Asks before it does.",
                                      OPTIONS(remove_table),
                                      .arguments_size = sizeof(RemoveArguments),
                                      .run = run_remove};
#undef ARGUMENTS

/* ---- model verify ------------------------------------------------------------------- */

typedef struct VerifyArguments {
    const char *model, *revision;
    bool quiet, json;
} VerifyArguments;
#define ARGUMENTS VerifyArguments

static const Option verify_table[] = {
    POSITIONAL("MODEL", TEXT, model, true, "model in the cache, or any model folder"),
    OPTION("revision", NULL, TEXT, revision, NULL, "NAME", "branch, tag or commit in the cache"),
    OPTION("quiet", NULL, FLAG, quiet, NULL, NULL, "show no progress"),
    OPTION("json", NULL, FLAG, json, NULL, NULL, "print a JSON object about the result"),
};

typedef struct Problems {
    const char *model;
    json_t *list; /* NULL: print them */
} Problems;

static void on_problem(void *context, const char *file, const char *problem) {
    Problems *problems = context;
    if (problems->list)
        json_array_append_new(problems->list,
                              json_pack("{s:o,s:o}", "file", output_string(file, strlen(file)),
                                        "problem", output_string(problem, strlen(problem))));
    else if (strcmp(file, ".") == 0)
        puts(problem);
    else
        printf("%s: %s\n", file, problem);
}

static int run_verify(const void *given, Error *err) {
    const VerifyArguments *arguments = given;
    HubSettings settings;
    if (!hub_settings_read(&settings, err)) return 1;
    Problems problems = {arguments->model, arguments->json ? json_array() : NULL};
    HubVerifier verifier = {.problem = on_problem,
                            .context = &problems,
                            .json = arguments->json,
                            .quiet = arguments->quiet};
    HubVerified result;
    bool good =
        hub_verify(&settings, arguments->model, arguments->revision, verifier, &result, err);
    hub_settings_free(&settings);
    if (good && arguments->json)
        output_json(json_pack("{s:o,s:I,s:I,s:I,s:O}", "model",
                              output_string(arguments->model, strlen(arguments->model)), "files",
                              (json_int_t)result.files, "hashed", (json_int_t)result.hashed,
                              "bytes", (json_int_t)result.bytes, "problems", problems.list));
    json_decref(problems.list);
    if (good && result.problems) {
        good = base_fail(err, ERROR_INPUT, "%s: %zu problem%s", arguments->model, result.problems,
                         result.problems == 1 ? "" : "s");
        base_hint(err, "Fetch it again: mlx-rag model download --force-download ID");
    } else if (good && !arguments->json) {
        printf("%s: %zu files, %s, good; %zu checked by their hash\n", arguments->model,
               result.files, base_bytes_text(result.bytes), result.hashed);
    }
    return good ? 0 : 1;
}

const Command model_verify_command = {
    .name = "model verify",
    .summary = "Checks a model's files against their hashes.",
    .details = "Every file is read. Of a folder without known hashes, the weights must open and "
               "be complete.",
    OPTIONS(verify_table),
    .arguments_size = sizeof(VerifyArguments),
    .run = run_verify};
#undef ARGUMENTS

/* ---- manage -------------------------------------------------------------------------- */

typedef struct ManageArguments {
    const char *pattern;
    bool scan, doom;
} ManageArguments;
#define ARGUMENTS ManageArguments

static const Option manage_table[] = {
    OPTION("scan", NULL, FLAG, scan, NULL, NULL, "list what is in the cache"),
    OPTION("delete", NULL, FLAG, doom, NULL, NULL, "delete what the pattern matches, after asking"),
    OPTION("pattern", NULL, TEXT, pattern, "mlx", "TEXT", "those whose id holds this"),
};

static bool delete_chosen(const Repos *repos, const char *pattern, Error *err) {
    if (repos->count == 0) {
        printf("No models found matching pattern \"%s\"\n", pattern);
        return true;
    }
    puts("\nFound the following models:");
    print_doomed(repos);
    if (!confirm("\nAre you sure you want to delete these models?")) {
        puts("\nDeletion cancelled - no changes made.");
        return true;
    }
    for (size_t i = 0; i < repos->count; i++) {
        printf("\nDeleting %s...\n", repos->chosen[i]->id);
        if (!hub_cache_remove(repos->settings.cache, repos->chosen[i], err)) return false;
    }
    puts("\nModel(s) deleted successfully.");
    return true;
}

static int run_manage(const void *given, Error *err) {
    const ManageArguments *arguments = given;
    Repos repos;
    bool good = repos_open(&repos, arguments->pattern, (OptionList){0}, err);
    if (good && arguments->scan) {
        printf("Scanning Hugging Face cache for models with pattern \"%s\".\n", arguments->pattern);
        print_scan(&repos);
    }
    if (good && arguments->doom) {
        printf("Deleting models matching pattern \"%s\"\n", arguments->pattern);
        good = delete_chosen(&repos, arguments->pattern, err);
    }
    repos_close(&repos);
    return good ? 0 : 1;
}

const Command manage_command = {.name = "manage",
                                .summary = "Lists and deletes cached models, as mlx_lm.manage.",
                                OPTIONS(manage_table),
                                .arguments_size = sizeof(ManageArguments),
                                .run = run_manage};
