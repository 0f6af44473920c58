/* Filters before ranking, so that a search finds as many as were asked for. */
#include "rag/filter.h"

#include <sqlite3.h>
#include <string.h>
#include <time.h>

void rag_filter_close(RagFilter *filter) {
    free(filter->allowed);
    *filter = (RagFilter){0};
}

/* "pdf,html" -> ",pdf,html,", every name known. Caller frees; NULL on failure. */
static char *formats_of(const char *names, Error *err) {
    StrBuf out = {0};
    base_str_append_char(&out, ',');
    for (const char *at = names; *at;) {
        size_t length = strcspn(at, ",");
        char *name = base_strndup(at, length);
        bool known = rag_format_named(name) != RAG_FORMAT_NONE;
        if (!known && length) {
            base_fail(err, ERROR_INPUT, "no such type of document: %.40s", name);
            base_hint(err, "types are text, markdown, html, pdf, docx, odt, epub, csv and code");
        }
        if (known) base_str_appendf(&out, "%s,", name);
        free(name);
        if (!known && length) {
            base_str_free(&out);
            return NULL;
        }
        at += length + (at[length] == ',');
    }
    return base_str_detach(&out);
}

static char *glob_of(const char *glob) {
    bool anchored = !glob || !*glob || *glob == '/' || *glob == '*';
    return base_format("%s%s", anchored ? "" : "*/", glob && *glob ? glob : "*");
}

typedef struct Wanted {
    const RagSearchOptions *options;
    const char *formats, *glob;
} Wanted;

static bool is_wanted(const void *context, const char *path, const char *format, int64_t mtime_ns) {
    const Wanted *w = context;
    const RagSearchOptions *o = w->options;
    const char *prefix = o->path_prefix ? o->path_prefix : "";
    char named[32];
    snprintf(named, sizeof named, ",%s,", format);
    return strncmp(path, prefix, strlen(prefix)) == 0 && sqlite3_strglob(w->glob, path) == 0 &&
           (!w->formats[1] || strstr(w->formats, named)) &&
           (!o->since_ns || mtime_ns >= o->since_ns) && (!o->until_ns || mtime_ns < o->until_ns);
}

static bool is_set(const char *text) {
    return text && *text;
}

bool rag_filter_open(RagIndex *index, const RagSearchOptions *options, RagFilter *filter,
                     Error *err) {
    *filter = (RagFilter){0};
    if (!is_set(options->path_prefix) && !is_set(options->path_glob) && !is_set(options->formats) &&
        !options->since_ns && !options->until_ns)
        return true;
    char *formats = formats_of(options->formats ? options->formats : "", err),
         *glob = glob_of(options->path_glob);
    Wanted wanted = {.options = options, .formats = formats, .glob = glob};
    bool ok = formats && index->storage->mark(index, is_wanted, &wanted, filter, err);
    free(formats), free(glob);
    return ok;
}

bool rag_date_parse(const char *text, int64_t *ns, Error *err) {
    int year = 0, month = 0, day = 0, end = 0;
    bool ok = sscanf(text, "%4d-%2d-%2d%n", &year, &month, &day, &end) == 3 && !text[end];
    struct tm local = {.tm_year = year - 1900, .tm_mon = month - 1, .tm_mday = day, .tm_isdst = -1};
    time_t seconds = ok ? mktime(&local) : -1;
    if (seconds == -1 || local.tm_mday != day || local.tm_mon != month - 1)
        return base_fail(err, ERROR_INPUT, "%.40s: not a date like 2024-05-31", text);
    *ns = (int64_t)seconds * 1000000000;
    return true;
}
