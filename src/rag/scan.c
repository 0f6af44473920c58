/* The scan of int8 rows; see scan.h. */
#include "rag/scan.h"

#include <math.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

float rag_quantise(const float *vector, size_t dim, int8_t *row) {
    float largest = 0;
    for (size_t i = 0; i < dim; i++) largest = fmaxf(largest, fabsf(vector[i]));
    float scale = largest / 127.0f;
    for (size_t i = 0; i < dim; i++) row[i] = (int8_t)(scale > 0 ? lrintf(vector[i] / scale) : 0);
    return scale;
}

/* ---- the best ----------------------------------------------------------------- */

/* Worst kept score on top, so that most rows are turned away by one comparison. */
static bool worse(RagScored a, RagScored b) {
    return a.score < b.score || (a.score == b.score && a.chunk > b.chunk);
}

void rag_best_push(RagBest *best, RagScored item) {
    RagScored *heap = best->items;
    size_t i = 0;
    if (best->count < best->capacity) {
        i = best->count++;
        for (; i > 0 && worse(item, heap[(i - 1) / 2]); i = (i - 1) / 2)
            heap[i] = heap[(i - 1) / 2];
    } else {
        if (!best->capacity || !worse(heap[0], item)) return;
        for (size_t child = 1; child < best->count; child = 2 * i + 1) {
            if (child + 1 < best->count && worse(heap[child + 1], heap[child])) child++;
            if (!worse(heap[child], item)) break;
            heap[i] = heap[child];
            i = child;
        }
    }
    heap[i] = item;
}

static int by_score(const void *a, const void *b) {
    const RagScored *left = a, *right = b;
    if (left->score != right->score) return left->score > right->score ? -1 : 1;
    return left->chunk < right->chunk ? -1 : left->chunk > right->chunk;
}

void rag_scored_sort(RagScored *scored, size_t count) {
    if (count) qsort(scored, count, sizeof *scored, by_score);
}

/* ---- products ------------------------------------------------------------------- */

/* The compiler vectorises this loop (widen to 16 bits, multiply, add pairs). */
#if defined(__GNUC__) && !defined(__clang__)
__attribute__((optimize("O3")))
#endif
static int32_t
dot_plain(const int8_t *restrict a, const int8_t *restrict b, size_t dim) {
    int32_t sum = 0;
    for (size_t i = 0; i < dim; i++) sum += (int32_t)((int16_t)a[i] * b[i]);
    return sum;
}

typedef int32_t (*Dot)(const int8_t *restrict a, const int8_t *restrict b, size_t dim);

#if defined(__x86_64__)
/* |a| times b with a's sign: two products of at most 128 * 127 fit 16 bits. */
__attribute__((target("avx2"))) static int32_t dot_avx2(const int8_t *restrict a,
                                                        const int8_t *restrict b, size_t dim) {
    enum { STEP = sizeof(__m256i) };
    __m256i sums = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + STEP <= dim; i += STEP) {
        const __m256i x = _mm256_loadu_si256((const void *)(a + i)),
                      y = _mm256_loadu_si256((const void *)(b + i));
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(y, x));
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1));
    int32_t sum = _mm_cvtsi128_si32(four);
    for (; i < dim; i++) sum += a[i] * b[i];
    return sum;
}
#endif

static Dot fastest_dot(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) return dot_avx2;
#endif
    return dot_plain;
}

void rag_scan_query(RagScanQuery *query, const float *vector, size_t dim, const uint8_t *allowed,
                    size_t allowed_bits) {
    query->dim = dim;
    query->scale = (double)rag_quantise(vector, dim, query->row);
    query->allowed = allowed;
    query->allowed_bits = allowed_bits;
}

static bool allows(const RagScanQuery *query, size_t chunk) {
    return !query->allowed ||
           (chunk < query->allowed_bits && (query->allowed[chunk / 8] >> (chunk % 8) & 1));
}

/* Far enough ahead to hide the memory, near enough to stay in the first cache. */
enum { LINE = 64, FETCH_AHEAD = 2048 };

void rag_scan_rows(const RagScanQuery *query, const float *scales, const int8_t *rows, size_t n,
                   size_t first, RagBest *best) {
    Dot dot = fastest_dot();
    const size_t dim = query->dim, end = n * dim;
    for (size_t r = 0; r < n; r++) {
        const size_t at = r * dim;
        for (size_t k = 0; k < dim && at + k + FETCH_AHEAD < end; k += LINE)
            __builtin_prefetch(rows + at + k + FETCH_AHEAD);
        double scale = (double)scales[r];
        if (!(scale > 0) || !allows(query, first + r)) continue; /* free, or not a number */
        double score = (double)dot(rows + at, query->row, dim) * scale * query->scale;
        rag_best_push(best, (RagScored){(int64_t)(first + r), score});
    }
}
