/* Filters before ranking, so that a search finds as many as were asked for. */
#include "rag/filter.h"

#include <string.h>
#include <time.h>

void rag_filter_close(RagFilter *filter) {
    free(filter->allowed);
    *filter = (RagFilter){0};
}

bool rag_filter_allows(const RagFilter *filter, int64_t chunk) {
    return !filter->allowed || (chunk > 0 && (size_t)chunk < filter->bits &&
                                (filter->allowed[chunk / 8] >> (chunk % 8) & 1));
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

static bool mark(RagIndex *index, const RagSearchOptions *options, const char *formats,
                 const char *glob, RagFilter *filter, Error *err) {
    sqlite3_stmt *ids =
        rag_store_prepare(index,
                          "SELECT c.id FROM documents d JOIN chunks c ON c.document = d.id"
                          " WHERE substr(d.path, 1, length(?1)) = ?1 AND d.path GLOB ?2"
                          " AND (?3 = ',' OR instr(?3, ',' || d.format || ',') > 0)"
                          " AND (?4 = 0 OR d.mtime_ns >= ?4) AND (?5 = 0 OR d.mtime_ns < ?5)",
                          err);
    if (!ids) return false;
    sqlite3_bind_text(ids, 1, options->path_prefix ? options->path_prefix : "", -1, SQLITE_STATIC);
    sqlite3_bind_text(ids, 2, glob, -1, SQLITE_STATIC);
    sqlite3_bind_text(ids, 3, formats, -1, SQLITE_STATIC);
    sqlite3_bind_int64(ids, 4, options->since_ns);
    sqlite3_bind_int64(ids, 5, options->until_ns);
    int rc = SQLITE_ROW;
    while ((rc = sqlite3_step(ids)) == SQLITE_ROW) {
        int64_t id = sqlite3_column_int64(ids, 0);
        if (id > 0 && (size_t)id < filter->bits)
            filter->allowed[id / 8] |= (uint8_t)(1u << (id % 8));
    }
    bool ok = rc == SQLITE_DONE || rag_store_fail(index, err, "reading the index");
    sqlite3_finalize(ids);
    return ok;
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
    sqlite3_stmt *most =
        rag_store_prepare(index, "SELECT coalesce(max(id), 0) + 1 FROM chunks", err);
    if (!most) return false;
    bool ok = sqlite3_step(most) == SQLITE_ROW || rag_store_fail(index, err, "reading the index");
    int64_t bits = ok ? sqlite3_column_int64(most, 0) : 0;
    sqlite3_finalize(most);
    if (ok && (bits < 1 || bits > (int64_t)1 << 40))
        ok = base_fail(err, ERROR_INPUT, "%s: the index is damaged", index->path);
    if (!ok) return false;
    filter->bits = (size_t)bits;
    filter->allowed = base_calloc(filter->bits / 8 + 1, 1);
    char *formats = formats_of(options->formats ? options->formats : "", err),
         *glob = glob_of(options->path_glob);
    ok = formats && mark(index, options, formats, glob, filter, err);
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
