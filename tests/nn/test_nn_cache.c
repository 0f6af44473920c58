/* Caches: any split of a text into steps attends as the whole text does, within
 * the window and the kept rows of a rotating cache, and nearly so when packed. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "nn/nn.h"

enum { HEADS = 4, KV_HEADS = 2, DIM = 32 };

/* Some numbers without pattern, [1, heads, length, DIM], from row `first` on. */
static mlx_array rows(int heads, int first, int length, unsigned salt) {
    float *host = malloc((size_t)(heads * length * DIM) * sizeof *host);
    for (int h = 0; h < heads; h++) {
        for (int t = 0; t < length; t++) {
            for (int i = 0; i < DIM; i++) {
                unsigned x =
                    (unsigned)(h * 7919 + (first + t) * 104729 + i * 1299709) * 2654435761u +
                    salt * 97u;
                x ^= x >> 15;
                x *= 2246822519u;
                host[(h * length + t) * DIM + i] = (float)((x >> 16) & 1023) / 512 - 1;
            }
        }
    }
    mlx_array a = mx_from_f32(host, MX_SHAPE(1, heads, length, DIM));
    free(host);
    return a;
}

/* Attention of tokens [first, first + length) through a cache; out [HEADS][length][DIM]. */
static void step(KvCache *cache, int first, int length, int window, float softcap, float *out) {
    mx_scope s = mx_open();
    Mask mask = nn_kv_mask(cache, length, window);
    mlx_array y =
        nn_attention(cache, rows(HEADS, first, length, 1), rows(KV_HEADS, first, length, 2),
                     rows(KV_HEADS, first, length, 3), 0.3f, mask, softcap);
    assert_true(mx_copy_f32(y, out, (size_t)(HEADS * length * DIM)));
    mx_drop(s);
}

/* Attention computed in C: token t sees those for which visible(t, r) holds. */
static void reference(int length, float softcap, bool (*visible)(int t, int r), float *out) {
    mx_scope s = mx_open();
    size_t queries = (size_t)(HEADS * length * DIM), keys = (size_t)(KV_HEADS * length * DIM);
    float *q = malloc(queries * 4), *k = malloc(keys * 4), *v = malloc(keys * 4);
    mx_copy_f32(rows(HEADS, 0, length, 1), q, queries);
    mx_copy_f32(rows(KV_HEADS, 0, length, 2), k, keys);
    mx_copy_f32(rows(KV_HEADS, 0, length, 3), v, keys);
    for (int h = 0; h < HEADS; h++) {
        int g = h / (HEADS / KV_HEADS);
        for (int t = 0; t < length; t++) {
            double sum = 0, acc[DIM] = {0};
            for (int r = 0; r <= t; r++) {
                if (!visible(t, r)) continue;
                double score = 0;
                for (int i = 0; i < DIM; i++)
                    score += (double)q[(h * length + t) * DIM + i] * k[(g * length + r) * DIM + i];
                score *= 0.3;
                if (softcap > 0) score = softcap * tanh(score / softcap);
                double weight = exp(score);
                sum += weight;
                for (int i = 0; i < DIM; i++) acc[i] += weight * v[(g * length + r) * DIM + i];
            }
            for (int i = 0; i < DIM; i++) out[(h * length + t) * DIM + i] = (float)(acc[i] / sum);
        }
    }
    free(q);
    free(k);
    free(v);
    mx_drop(s);
}

static void step_chunk(KvCache *cache, int first, int length, int chunk, float *out) {
    mx_scope s = mx_open();
    Mask mask = nn_kv_chunk_mask(cache, length, chunk);
    mlx_array y =
        nn_attention(cache, rows(HEADS, first, length, 1), rows(KV_HEADS, first, length, 2),
                     rows(KV_HEADS, first, length, 3), 0.3f, mask, 0);
    assert_true(mx_copy_f32(y, out, (size_t)(HEADS * length * DIM)));
    mx_drop(s);
}

/* 40 tokens in pieces, chunks of 12, against the reference. */
static void expect_chunks(KvCache *cache, const int *pieces, bool (*visible)(int, int)) {
    enum { LENGTH = 40 };
    static float whole[HEADS * LENGTH * DIM], part[HEADS * LENGTH * DIM];
    reference(LENGTH, 0, visible, whole);
    for (int done = 0, p = 0; done < LENGTH; p++) {
        int n = pieces[p] ? pieces[p] : 1;
        if (!pieces[p]) p--;
        n = BASE_MIN(n, LENGTH - done);
        step_chunk(cache, done, n, 12, part);
        for (int h = 0; h < HEADS; h++) {
            for (int i = 0; i < n * DIM; i++) {
                assert_float_equal(part[h * n * DIM + i], whole[(h * LENGTH + done) * DIM + i],
                                   2e-5);
            }
        }
        done += n;
    }
    nn_kv_free(cache);
}

static bool sees_all(int t, int r) {
    (void)t, (void)r;
    return true;
}
static bool sees_eight(int t, int r) {
    return t - r < 8;
}

/* Feeds `length` tokens in pieces and compares each with the reference. */
static void expect(KvCache *cache, int length, const int *pieces, int window, float softcap,
                   bool (*visible)(int, int), double tolerance) {
    float *whole = malloc((size_t)(HEADS * length * DIM) * 4),
          *part = malloc((size_t)(HEADS * length * DIM) * 4);
    reference(length, softcap, visible, whole);
    for (int done = 0, p = 0; done < length; p++) {
        int n = pieces[p] ? pieces[p] : 1;
        if (!pieces[p]) p--;
        n = BASE_MIN(n, length - done);
        step(cache, done, n, window, softcap, part);
        for (int h = 0; h < HEADS; h++) {
            for (int i = 0; i < n * DIM; i++) {
                assert_float_equal(part[h * n * DIM + i], whole[(h * length + done) * DIM + i],
                                   tolerance);
            }
        }
        done += n;
    }
    free(whole);
    free(part);
    nn_kv_free(cache);
}

static void test_pieces_equal_the_whole(void **state) {
    (void)state;
    const int splits[][6] = {{40, 0}, {1, 0}, {7, 1, 20, 0}, {3, 5, 1, 1, 30, 0}};
    for (size_t i = 0; i < BASE_COUNT(splits); i++) {
        expect(&(KvCache){.kind = KV_GROWING}, 40, splits[i], 0, 0, sees_all, 2e-5);
    }
}

static bool sees_its_chunk(int t, int r) {
    return t / 12 == r / 12;
}

static void test_chunked_pieces_see_their_own_chunk(void **state) {
    (void)state;
    const int splits[][6] = {{40, 0}, {1, 0}, {7, 1, 20, 0}, {12, 12, 0}, {3, 25, 1, 1, 30, 0}};
    for (size_t i = 0; i < BASE_COUNT(splits); i++) {
        KvCache chunked = {.kind = KV_CHUNKED, .max_size = 12}, growing = {.kind = KV_GROWING};
        expect_chunks(&chunked, splits[i], sees_its_chunk);
        expect_chunks(&growing, splits[i], sees_its_chunk);
    }
}

static void test_a_chunked_cache_keeps_a_chunk_and_can_be_trimmed(void **state) {
    (void)state;
    float out[HEADS * 30 * DIM];
    KvCache cache = {.kind = KV_CHUNKED, .max_size = 12};
    step_chunk(&cache, 0, 30, 12, out);
    assert_int_equal(cache.start, 0);
    assert_true(nn_kv_can_trim(&cache, 30));
    step_chunk(&cache, 30, 1, 12, out);
    assert_int_equal(cache.start, 18);
    assert_int_equal(cache.offset, 31);
    assert_false(nn_kv_can_trim(&cache, 14));
    assert_true(nn_kv_trim(&cache, 3));
    assert_int_equal(cache.offset, 28);
    nn_kv_free(&cache);
}

static void test_growing_past_a_step_keeps_everything(void **state) {
    (void)state;
    expect(&(KvCache){.kind = KV_GROWING}, 300, (const int[]){250, 0}, 0, 0, sees_all, 2e-5);
}

static void test_softcapped_scores(void **state) {
    (void)state;
    expect(&(KvCache){.kind = KV_GROWING}, 20, (const int[]){9, 0}, 0, 2, sees_all, 2e-5);
}

static void test_a_window_on_a_growing_cache(void **state) {
    (void)state;
    expect(&(KvCache){.kind = KV_GROWING}, 30, (const int[]){30, 0}, 8, 0, sees_eight, 2e-5);
    expect(&(KvCache){.kind = KV_GROWING}, 30, (const int[]){5, 0}, 8, 0, sees_eight, 2e-5);
}

static void test_a_rotating_cache_equals_its_window(void **state) {
    (void)state;
    const int splits[][6] = {{30, 0}, {1, 0}, {5, 0}, {12, 1, 1, 9, 0}, {8, 8, 8, 0}};
    for (size_t i = 0; i < BASE_COUNT(splits); i++) {
        expect(&(KvCache){.kind = KV_ROTATING, .max_size = 8}, 30, splits[i], 8, 0, sees_eight,
               2e-5);
    }
}

static void test_a_ring_larger_than_the_window(void **state) {
    (void)state;
    expect(&(KvCache){.kind = KV_ROTATING, .max_size = 12}, 40, (const int[]){1, 0}, 8, 0,
           sees_eight, 2e-5);
    expect(&(KvCache){.kind = KV_ROTATING, .max_size = 12}, 40, (const int[]){15, 0}, 8, 0,
           sees_eight, 2e-5);
}

static bool sees_kept_and_recent(int t, int r) {
    return t < 12 || r < 4 || t - r < 8;
}

static void test_the_first_rows_are_kept(void **state) {
    (void)state;
    expect(&(KvCache){.kind = KV_ROTATING, .max_size = 12, .keep = 4}, 40, (const int[]){1, 0}, 0,
           0, sees_kept_and_recent, 2e-5);
}

static void test_a_packed_cache_is_close(void **state) {
    (void)state;
    KvCache cache = {.kind = KV_GROWING};
    float first[HEADS * 5 * DIM];
    step(&cache, 0, 5, 0, 0, first);
    mx_scope s = mx_open();
    nn_kv_quantize(&cache, (MxQuant){32, 8, "affine"});
    mx_drop(s);
    assert_int_equal(cache.kind, KV_QUANTIZED);
    float whole[HEADS * 12 * DIM], part[HEADS * 7 * DIM];
    reference(12, 0, sees_all, whole);
    step(&cache, 5, 4, 0, 0, part);
    for (int h = 0; h < HEADS; h++) {
        for (int i = 0; i < 4 * DIM; i++)
            assert_float_equal(part[h * 4 * DIM + i], whole[(h * 12 + 5) * DIM + i], 0.03);
    }
    for (int t = 9; t < 12; t++) {
        step(&cache, t, 1, 0, 0, part);
        for (int h = 0; h < HEADS; h++) {
            for (int i = 0; i < DIM; i++)
                assert_float_equal(part[h * DIM + i], whole[(h * 12 + t) * DIM + i], 0.03);
        }
    }
    nn_kv_free(&cache);
}

static void test_trimmed_tokens_never_happened(void **state) {
    (void)state;
    KvCache cache = {.kind = KV_GROWING};
    float whole[HEADS * 10 * DIM], part[HEADS * 10 * DIM];
    reference(10, 0, sees_all, whole);
    step(&cache, 0, 6, 0, 0, part);
    step(&cache, 90, 3, 0, 0, part);
    assert_true(nn_kv_trim(&cache, 3));
    assert_false(nn_kv_trim(&cache, 7));
    step(&cache, 6, 4, 0, 0, part);
    for (int h = 0; h < HEADS; h++) {
        for (int i = 0; i < 4 * DIM; i++)
            assert_float_equal(part[h * 4 * DIM + i], whole[(h * 10 + 6) * DIM + i], 2e-5);
    }
    nn_kv_free(&cache);

    cache = (KvCache){.kind = KV_ROTATING, .max_size = 8};
    step(&cache, 0, 6, 0, 0, part);
    assert_true(nn_kv_can_trim(&cache, 2));
    step(&cache, 6, 4, 0, 0, part);
    assert_false(nn_kv_can_trim(&cache, 1));
    nn_kv_free(&cache);
}

static void test_causal_masks_count_as_mlx_lm_does(void **state) {
    (void)state;
    const int expected[3][5] = {{1, 2, 3, 3, 3}, {2, 3, 3, 3, 3}, {3, 3, 3, 3, 3}};
    for (int offset = 0; offset < 3; offset++) {
        mx_scope s = mx_open();
        Mask mask = nn_kv_mask(&(KvCache){.kind = KV_GROWING, .offset = offset}, 5, 3);
        assert_string_equal(mask.mode, "array");
        int sums[5];
        assert_true(mx_copy_i32(mx_sum(mx_cast(mask.array, MLX_INT32), 1, false), sums, 5));
        assert_memory_equal(sums, expected[offset], sizeof sums);
        mx_drop(s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_equal_the_whole),
        cmocka_unit_test(test_chunked_pieces_see_their_own_chunk),
        cmocka_unit_test(test_a_chunked_cache_keeps_a_chunk_and_can_be_trimmed),
        cmocka_unit_test(test_growing_past_a_step_keeps_everything),
        cmocka_unit_test(test_softcapped_scores),
        cmocka_unit_test(test_a_window_on_a_growing_cache),
        cmocka_unit_test(test_a_rotating_cache_equals_its_window),
        cmocka_unit_test(test_a_ring_larger_than_the_window),
        cmocka_unit_test(test_the_first_rows_are_kept),
        cmocka_unit_test(test_a_packed_cache_is_close),
        cmocka_unit_test(test_trimmed_tokens_never_happened),
        cmocka_unit_test(test_causal_masks_count_as_mlx_lm_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
