/* Search by vectors over all segments, shared by the threads that have time for it.
 * See store_sqlite.h. */
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "rag/store_sqlite.h"

struct RagResident {
    int64_t version; /* of the database, as last seen */
    uint8_t *bytes;  /* all segments of that version, or NULL */
    size_t mapped, n_segments;
};

/* What one thread needs: a connection unless all is in memory, and its best. */
typedef struct Helper {
    RagIndex *twin;
    RagMatrix matrix;
    RagBest best;
    Error err;
    bool failed;
} Helper;

struct RagDense {
    RagIndex *index;
    RagScanQuery query;
    size_t n_segments, n_helpers;
    bool fill; /* the segments go to the resident memory as they are read */
    _Atomic size_t next;
    _Atomic bool stop;
    Helper *helpers;
};

/* ---- what stays in memory ------------------------------------------------------ */

static void forget(RagResident *resident) {
    if (resident->bytes) munmap(resident->bytes, resident->mapped);
    resident->bytes = NULL;
}

void rag_resident_free(RagResident *resident) {
    if (!resident) return;
    forget(resident);
    free(resident);
}

static bool fits(size_t bytes) {
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 && bytes <= (size_t)pages / 4 * (size_t)page;
}

static bool reserve(RagResident *resident, size_t n_segments, size_t dim) {
    const size_t huge = (size_t)2 << 20;
    size_t bytes = (n_segments * rag_segment_bytes(dim) + huge - 1) / huge * huge;
    if (!n_segments || !fits(bytes)) return false;
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return false;
    base_large_pages(at, bytes);
    resident->bytes = at;
    resident->mapped = bytes;
    resident->n_segments = n_segments;
    return true;
}

/* The number changes when another connection has written. */
static bool data_version(RagIndex *index, int64_t *version, Error *err) {
    sqlite3_stmt *s = rag_sqlite_prepare(index, "PRAGMA data_version", err);
    if (!s) return false;
    bool ok = sqlite3_step(s) == SQLITE_ROW || rag_sqlite_fail(index, err, "reading the index");
    *version = ok ? sqlite3_column_int64(s, 0) : 0;
    sqlite3_finalize(s);
    return ok;
}

/* Decides from where this search reads. */
static bool prepare_resident(RagDense *dense, Error *err) {
    RagIndex *index = dense->index;
    int64_t version = 0;
    if (index->mode != RAG_READ) return true;
    if (!data_version(index, &version, err)) return false;
    RagResident *resident = index->sqlite->resident;
    bool again = resident && resident->version == version;
    if (!resident) resident = index->sqlite->resident = base_calloc(1, sizeof *resident);
    if (!again || resident->n_segments != dense->n_segments) forget(resident);
    if (again && !resident->bytes) dense->fill = reserve(resident, dense->n_segments, index->dim);
    resident->version = version;
    return true;
}

/* ---- the search ------------------------------------------------------------------ */

RagDense *rag_sqlite_dense_begin(RagIndex *index, const float *vector, const RagFilter *filter,
                                 size_t width, Error *err) {
    RagDense *dense = base_calloc(1, sizeof *dense);
    RagMatrix matrix = {0};
    dense->index = index;
    rag_scan_query(&dense->query, vector, index->dim, filter->allowed, filter->bits);
    dense->n_helpers = (size_t)base_threads();
    dense->helpers = base_calloc(dense->n_helpers, sizeof *dense->helpers);
    for (size_t i = 0; i < dense->n_helpers; i++)
        dense->helpers[i].best =
            (RagBest){.items = base_calloc(width + 1, sizeof(RagScored)), .capacity = width};
    bool ok = rag_matrix_open(index, &matrix, err);
    dense->n_segments = ok ? matrix.n_segments : 0;
    rag_matrix_close(&matrix);
    if (ok && prepare_resident(dense, err)) return dense;
    rag_sqlite_dense_end(dense, NULL, NULL, NULL);
    return NULL;
}

static bool connect(RagDense *dense, Helper *helper) {
    helper->twin = rag_sqlite_twin(dense->index, &helper->err);
    return helper->twin && rag_sqlite_run(helper->twin, "BEGIN", &helper->err) &&
           rag_matrix_open(helper->twin, &helper->matrix, &helper->err);
}

static bool search_segment(RagDense *dense, Helper *helper, size_t segment) {
    RagResident *resident = dense->index->sqlite->resident;
    size_t bytes = rag_segment_bytes(dense->index->dim);
    uint8_t *kept = resident && resident->bytes ? resident->bytes + segment * bytes : NULL;
    const float *scales = (const float *)(const void *)kept;
    const int8_t *rows = kept ? (const int8_t *)kept + RAG_SEGMENT_ROWS * sizeof(float) : NULL;
    if (!kept || dense->fill) {
        if (!helper->twin && !connect(dense, helper)) return false;
        if (!rag_matrix_read(&helper->matrix, segment, kept, &helper->err)) return false;
        scales = helper->matrix.scales;
        rows = helper->matrix.rows;
    }
    rag_scan_rows(&dense->query, scales, rows, RAG_SEGMENT_ROWS, segment * RAG_SEGMENT_ROWS + 1,
                  &helper->best);
    return true;
}

void rag_sqlite_dense_help(RagDense *dense, int thread) {
    Helper *helper = &dense->helpers[thread];
    while (!atomic_load(&dense->stop)) {
        size_t segment = atomic_fetch_add(&dense->next, 1);
        if (segment >= dense->n_segments) break;
        helper->failed = !search_segment(dense, helper, segment);
        if (helper->failed) atomic_store(&dense->stop, true);
    }
}

bool rag_sqlite_dense_end(RagDense *dense, RagScored *best, size_t *found, Error *err) {
    if (!dense) return false;
    bool ok = best != NULL;
    RagBest all = {.items = best, .capacity = dense->helpers[0].best.capacity};
    for (size_t i = 0; i < dense->n_helpers; i++) {
        Helper *helper = &dense->helpers[i];
        if (helper->failed && ok) {
            ok = base_fail(err, helper->err.code, "%s", helper->err.message);
            if (helper->err.hint[0]) base_hint(err, "%s", helper->err.hint);
        }
        for (size_t k = 0; ok && k < helper->best.count; k++)
            rag_best_push(&all, helper->best.items[k]);
        free(helper->best.items);
        rag_matrix_close(&helper->matrix);
        rag_index_close(helper->twin);
    }
    if (ok) {
        rag_scored_sort(best, all.count);
        *found = all.count;
    } else if (dense->fill) {
        forget(dense->index->sqlite->resident); /* not all of it was read */
    }
    free(dense->helpers);
    free(dense);
    return ok;
}
