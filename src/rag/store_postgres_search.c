/* What a search asks of a PostgreSQL server, words aside (store_postgres_words.c). */
#include <stdatomic.h>
#include <string.h>

#include "rag/show.h"
#include "rag/store_postgres_internal.h"

static const char doing[] = "reading the index";

/* ---- filter -------------------------------------------------------------------- */

static bool largest_chunk(RagIndex *index, size_t *largest, Error *err) {
    PGresult *r =
        rag_pg_query(index, "SELECT coalesce(max(id), 0) FROM mlxrag_chunks", NULL, doing, err);
    int64_t id = r ? rag_pg_int(r, 0, 0) : 0;
    bool ok = r != NULL;
    PQclear(r);
    if (ok && (id < 0 || id > (int64_t)1 << 40))
        ok = base_fail(err, ERROR_INPUT, "%s: the index is damaged", index->path);
    *largest = (size_t)id;
    return ok;
}

/* The chunks of the documents ids[0..count). */
static bool mark_chunks(RagIndex *index, const int64_t *ids, size_t count, RagFilter *filter,
                        Error *err) {
    StrBuf array = {0};
    RagPgArguments a = {0};
    rag_pg_put_ids(&array, ids, count);
    rag_pg_add_bytes(&a, array.data, array.length);
    PGresult *r = rag_pg_query(
        index, "SELECT id FROM mlxrag_chunks WHERE document = ANY($1::bigint[])", &a, doing, err);
    for (int i = 0; r && i < PQntuples(r); i++) {
        int64_t id = rag_pg_int(r, i, 0);
        if (id > 0 && (size_t)id < filter->bits)
            filter->allowed[id / 8] |= (uint8_t)(1u << (id % 8));
    }
    PQclear(r);
    base_str_free(&array);
    return r != NULL;
}

bool rag_postgres_mark(RagIndex *index, RagWanted wanted, const void *context, RagFilter *filter,
                       Error *err) {
    size_t largest = 0, count = 0;
    if (!largest_chunk(index, &largest, err)) return false;
    filter->bits = largest + 1;
    filter->allowed = base_calloc(filter->bits / 8 + 1, 1);
    PGresult *r = rag_pg_query(index, "SELECT id, path, format, mtime_ns FROM mlxrag_documents",
                               NULL, doing, err);
    if (!r) return false;
    int64_t *ids = base_calloc((size_t)PQntuples(r) + 1, sizeof *ids);
    for (int i = 0; i < PQntuples(r); i++) {
        char *path = rag_pg_text(r, i, 1), *format = rag_pg_text(r, i, 2);
        if (wanted(context, path, format, rag_pg_int(r, i, 3))) ids[count++] = rag_pg_int(r, i, 0);
        free(path), free(format);
    }
    PQclear(r);
    bool ok = mark_chunks(index, ids, count, filter, err);
    free(ids);
    return ok;
}

/* ---- vectors --------------------------------------------------------------------- */

bool rag_postgres_vectors(RagIndex *index, const RagScored *chunks, size_t count, float *out,
                          Error *err) {
    memset(out, 0, count * index->dim * sizeof *out);
    StrBuf array = {0};
    RagPgArguments a = {0};
    int64_t *ids = base_calloc(count + 1, sizeof *ids);
    for (size_t i = 0; i < count; i++) ids[i] = chunks[i].chunk;
    rag_pg_put_ids(&array, ids, count);
    rag_pg_add_bytes(&a, array.data, array.length);
    PGresult *r = rag_pg_query(index,
                               "SELECT wanted.n, vector FROM unnest($1::bigint[]) WITH ORDINALITY"
                               " AS wanted(id, n) JOIN mlxrag_chunks USING (id)",
                               &a, doing, err);
    bool ok = r != NULL;
    for (int i = 0; ok && i < PQntuples(r); i++) {
        size_t n = (size_t)rag_pg_int(r, i, 0) - 1;
        ok = n < count && rag_pg_vector(r, i, 1, out + n * index->dim, index->dim);
        if (!ok) base_fail(err, ERROR_INPUT, "%s: the index is damaged (vectors)", index->path);
    }
    PQclear(r);
    free(ids);
    base_str_free(&array);
    return ok;
}

struct RagDense {
    RagIndex *index;
    const float *vector;
    const RagFilter *filter;
    size_t width;
    _Atomic bool taken; /* one thread asks, the server has threads of its own */
    bool ok;
    PGresult *found;
    Error err;
};

RagDense *rag_postgres_dense_begin(RagIndex *index, const float *vector, const RagFilter *filter,
                                   size_t width, Error *err) {
    (void)err;
    RagDense *dense = base_calloc(1, sizeof *dense);
    dense->index = index;
    dense->vector = vector;
    dense->filter = filter;
    dense->width = width;
    return dense;
}

static void put_allowed(StrBuf *out, const RagFilter *filter) {
    size_t count = 0;
    int64_t *ids = NULL;
    size_t capacity = 0;
    for (size_t id = 1; id < filter->bits; id++)
        if (rag_filter_allows(filter, (int64_t)id)) {
            ids = base_grow(ids, &capacity, count + 1, sizeof *ids);
            ids[count++] = (int64_t)id;
        }
    rag_pg_put_ids(out, ids, count);
    free(ids);
}

/* The inner product, negative as pgvector gives it, so that the smallest is first. */
static PGresult *ask(RagDense *dense, RagIndex *twin) {
    StrBuf vector = {0}, allowed = {0};
    RagPgArguments a = {0};
    rag_pg_put_vector(&vector, dense->vector, twin->dim);
    rag_pg_add_bytes(&a, vector.data, vector.length);
    rag_pg_add_int(&a, (int64_t)dense->width);
    bool filtered = dense->filter->allowed != NULL;
    if (filtered) {
        put_allowed(&allowed, dense->filter);
        rag_pg_add_bytes(&a, allowed.data, allowed.length);
    }
    PGresult *r =
        rag_pg_query(twin,
                     filtered ? "SELECT id, vector <#> $1::vector FROM mlxrag_chunks WHERE"
                                " id = ANY($3::bigint[]) ORDER BY 2 LIMIT $2"
                              : "SELECT id, vector <#> $1::vector FROM mlxrag_chunks"
                                " ORDER BY vector <#> $1::vector LIMIT $2",
                     &a, "searching vectors", &dense->err);
    base_str_free(&vector), base_str_free(&allowed);
    return r;
}

void rag_postgres_dense_help(RagDense *dense, int thread) {
    (void)thread;
    if (atomic_exchange(&dense->taken, true)) return;
    RagIndex *twin = rag_postgres_twin(dense->index, &dense->err);
    dense->found = twin ? ask(dense, twin) : NULL;
    dense->ok = dense->found != NULL;
    rag_index_close(twin);
}

static double number(const PGresult *r, int row, int column) {
    int64_t bits = rag_pg_int(r, row, column);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

bool rag_postgres_dense_end(RagDense *dense, RagScored *best, size_t *found, Error *err) {
    bool ok = dense->ok;
    if (ok) {
        *found = BASE_MIN((size_t)PQntuples(dense->found), dense->width);
        for (size_t i = 0; i < *found; i++)
            best[i] =
                (RagScored){rag_pg_int(dense->found, (int)i, 0), -number(dense->found, (int)i, 1)};
        rag_scored_sort(best, *found);
    } else if (dense->err.message[0]) {
        base_fail(err, dense->err.code, "%s", dense->err.message);
        if (dense->err.hint[0]) base_hint(err, "%s", dense->err.hint);
    }
    PQclear(dense->found);
    free(dense);
    return ok;
}

/* ---- texts ----------------------------------------------------------------------- */

static char *clean(const PGresult *r, int row, int column) {
    char *text = rag_pg_text(r, row, column), *safe = rag_clean(text);
    free(text);
    return safe;
}

bool rag_postgres_hit(RagIndex *index, int64_t chunk, RagHit *hit, char **header, bool *found,
                      Error *err) {
    RagPgArguments a = {0};
    rag_pg_add_int(&a, chunk);
    PGresult *r = rag_pg_query(
        index,
        "SELECT d.path, d.title, c.heading, c.text, c.page, c.first_byte, c.end_byte, c.header,"
        " d.format FROM mlxrag_chunks c JOIN mlxrag_documents d ON d.id = c.document"
        " WHERE c.id = $1",
        &a, doing, err);
    if (!r) return false;
    *found = PQntuples(r) == 1;
    if (*found) {
        char *format = rag_pg_text(r, 0, 8);
        *hit = (RagHit){.chunk = chunk,
                        .document = clean(r, 0, 0),
                        .title = clean(r, 0, 1),
                        .heading = clean(r, 0, 2),
                        .text = clean(r, 0, 3),
                        .page = (int)rag_pg_int(r, 0, 4),
                        .start = (size_t)rag_pg_int(r, 0, 5),
                        .end = (size_t)rag_pg_int(r, 0, 6),
                        .format = rag_format_name(rag_format_named(format))};
        *header = clean(r, 0, 7);
        free(format);
    }
    PQclear(r);
    return true;
}

bool rag_postgres_places(RagIndex *index, int64_t chunk, RagPlace **places, size_t *count,
                         Error *err) {
    *places = NULL;
    *count = 0;
    RagPgArguments a = {0};
    rag_pg_add_int(&a, chunk);
    PGresult *r =
        rag_pg_query(index,
                     "SELECT id, first_byte, end_byte, heading FROM mlxrag_chunks WHERE document ="
                     " (SELECT document FROM mlxrag_chunks WHERE id = $1) ORDER BY first_byte, id",
                     &a, doing, err);
    if (!r) return false;
    *count = (size_t)PQntuples(r);
    *places = base_calloc(*count + 1, sizeof **places);
    for (size_t i = 0; i < *count; i++)
        (*places)[i] = (RagPlace){.chunk = rag_pg_int(r, (int)i, 0),
                                  .start = (size_t)rag_pg_int(r, (int)i, 1),
                                  .end = (size_t)rag_pg_int(r, (int)i, 2),
                                  .heading = clean(r, (int)i, 3)};
    PQclear(r);
    return true;
}

bool rag_postgres_text(RagIndex *index, int64_t chunk, size_t start, size_t end, StrBuf *out,
                       Error *err) {
    RagPgArguments a = {0};
    rag_pg_add_int(&a, chunk);
    rag_pg_add_int(&a, (int64_t)start + 1);
    rag_pg_add_int(&a, (int64_t)(end - start));
    PGresult *r = rag_pg_query(index,
                               "SELECT substring(convert_to(text, 'UTF8') FROM $2::int FOR $3::int)"
                               " FROM mlxrag_documents WHERE id ="
                               " (SELECT document FROM mlxrag_chunks WHERE id = $1)",
                               &a, doing, err);
    if (r && PQntuples(r))
        base_str_append_n(out, PQgetvalue(r, 0, 0), (size_t)PQgetlength(r, 0, 0));
    PQclear(r);
    return r != NULL;
}
