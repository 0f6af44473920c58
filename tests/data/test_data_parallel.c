/* The operator with threads: order, failures in their place, room, ends. */
#include "data/data_test.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

/* ---- operators ---------------------------------------------------------------------------- */

/* Takes a while that depends on the record, gives n * 10 + a random digit. */
static DxStatus uneven(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)self;
    (void)err;
    int64_t n = dx_array_int_at(dx_sample_get(*sample, dx_key("n")), 0);
    for (volatile int i = 0; i < (n * 7919) % 600; i++) {
    }
    if (n % 17 == 0) sched_yield();
    int64_t digit = (int64_t)dx_random_below(random, 10);
    dx_sample_put(sample, dx_key("n"), dx_array_int(n * 10 + digit));
    return DX_OK;
}

/* Parts 0 to n % 3 - 1: some samples have none. */
static DxStatus parts(void *self, const DxSample *sample, DxRandom *random, DxEmit *emit,
                      Error *err) {
    (void)self;
    (void)random;
    (void)err;
    int64_t n = dx_array_int_at(dx_sample_get(sample, dx_key("n")), 0);
    for (int64_t i = 0; i < n % 3; i++) {
        DxSample *part = dx_sample_new();
        dx_sample_put(&part, dx_key("part"), dx_array_int(i));
        dx_emit(emit, part);
    }
    return DX_OK;
}

static DxStatus fails_at_multiples(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)random;
    int64_t n = dx_array_int_at(dx_sample_get(*sample, dx_key("n")), 0);
    if (n % *(int64_t *)self) return DX_OK;
    base_fail(err, ERROR_INPUT, "it is %lld", (long long)n);
    return DX_FAIL;
}

static DxStream *worked(DxStream *stream, int threads, int depth) {
    Error err = {0};
    stream = dx_map(stream, &(DxOp){.name = "uneven", .seed = 3, .apply = uneven}, NULL, &err);
    stream = dx_flat_map(stream, &(DxExpand){.name = "parts", .keep = true, .expand = parts}, NULL,
                         &err);
    if (threads)
        stream =
            dx_parallel(stream, &(DxParallelOptions){.threads = threads, .depth = depth}, &err);
    if (!stream) fail_msg("%s", err.message);
    return stream;
}

/* ---- order ----------------------------------------------------------------------------------- */

static void test_what_comes_out_does_not_depend_on_threads(void **state) {
    (void)state;
    DxStream *plain = worked(number_stream(700), 0, 0);
    char *expected = drain(plain, "n");
    dx_stream_free(plain);
    const int threads[] = {1, 2, 3, 8, 64};
    for (size_t i = 0; i < BASE_COUNT(threads); i++)
        for (int depth = 0; depth < 3; depth++)
            for (int run = 0; run < 8; run++) {
                DxStream *stream = worked(number_stream(700), threads[i], depth);
                assert_all(stream, "n", expected);
            }
    free(expected);
}

static void test_workers_draw_their_own_random_numbers(void **state) {
    (void)state;
    DxStream *stream = worked(number_stream(300), 4, 0);
    Error err = {0};
    int counts[10] = {0};
    DxSample *sample;
    while (dx_next(stream, &sample, &err) == DX_OK) {
        counts[dx_array_int_at(dx_sample_get(sample, dx_key("n")), 0) % 10]++;
        dx_sample_free(sample);
    }
    for (int i = 0; i < 10; i++) assert_in_range(counts[i], 5, 60);
    dx_stream_free(stream);
}

static _Atomic int64_t fetched;
static DxStatus count_get(void *self, uint64_t epoch, int64_t index, DxSample **sample,
                          Error *err) {
    atomic_fetch_add(&fetched, 1);
    return number_get(self, epoch, index, sample, err);
}

static void test_each_sample_is_fetched_once(void **state) {
    (void)state;
    Error err = {0};
    DxBuffer *buffer = dx_buffer_callback(
        &(DxCallback){.name = "counted", .count = 3, .get = count_get}, NULL, &err);
    DxStream *stream = dx_parallel(dx_buffer_stream(buffer, &err),
                                   &(DxParallelOptions){.threads = 4, .depth = 64}, &err);
    fetched = 0;
    assert_all(stream, "n", "0 | 1 | 2");
    assert_int_equal(fetched, 3);
}

static void test_one_short_batch_for_any_number_of_threads(void **state) {
    (void)state;
    for (int threads = 1; threads <= 8; threads++) {
        Error err = {0};
        DxStream *stream =
            dx_parallel(number_stream(300), &(DxParallelOptions){.threads = threads}, &err);
        stream = dx_batch(stream, &(DxBatchOptions){.size = 32}, &err);
        int short_ones = 0, batches = 0;
        DxSample *sample;
        while (dx_next(stream, &sample, &err) == DX_OK) {
            short_ones += dx_sample_get(sample, dx_key("n"))->count < 32;
            batches++;
            dx_sample_free(sample);
        }
        assert_int_equal(batches, 10);
        assert_int_equal(short_ones, 1);
        dx_stream_free(stream);
    }
}

/* ---- failures
 * ------------------------------------------------------------------------------------ */

static void note(void *context, const DxRecord *record, const Error *failure) {
    base_str_appendf(context, "%llu: %s\n", (unsigned long long)record->ordinal, failure->message);
}

static DxStream *failing(int64_t count, int64_t *every, DxParallelOptions options) {
    Error err = {0};
    DxOp op = {.name = "test", .apply = fails_at_multiples};
    return dx_parallel(dx_map(number_stream(count), &op, every, &err), &options, &err);
}

static void test_a_failure_comes_out_in_its_place(void **state) {
    (void)state;
    int64_t every = 3;
    for (int threads = 1; threads <= 8; threads *= 2)
        assert_all(failing(8, &every, (DxParallelOptions){.threads = threads}), "n",
                   "! | 1 | 2 | ! | 4 | 5 | ! | 7");
}

static void test_failures_are_skipped_or_given_to_the_caller(void **state) {
    (void)state;
    int64_t every = 3;
    DxStream *stream =
        failing(8, &every, (DxParallelOptions){.threads = 2, .on_error = DX_ON_ERROR_SKIP});
    assert_gives(stream, "n", "1 | 2 | 4 | 5 | 7");
    assert_int_equal(dx_parallel_skipped(stream), 3);
    dx_stream_free(stream);
    StrBuf notes = {0};
    stream =
        failing(8, &every,
                (DxParallelOptions){
                    .threads = 2, .on_error = DX_ON_ERROR_CALL, .call = note, .context = &notes});
    assert_all(stream, "n", "1 | 2 | 4 | 5 | 7");
    assert_string_equal(notes.data, "0: numbers: record 0: test: it is 0\n"
                                    "3: numbers: record 3: test: it is 3\n"
                                    "6: numbers: record 6: test: it is 6\n");
    base_str_free(&notes);
}

static void test_a_batch_keeps_the_samples_around_a_failure(void **state) {
    (void)state;
    Error err = {0};
    int64_t every = 3;
    DxStream *stream = failing(8, &every, (DxParallelOptions){.threads = 2});
    stream = dx_batch(stream, &(DxBatchOptions){.size = 4}, &err);
    assert_all(stream, "n", "! | ! | 1 2 4 5 | ! | 7");
}

static void test_freeing_with_failures_in_work_is_clean(void **state) {
    (void)state;
    int64_t every = 1;
    for (int run = 0; run < 20; run++) {
        Error err = {0};
        DxSample *sample;
        DxStream *stream = failing(1000, &every, (DxParallelOptions){.threads = 4});
        for (int i = 0; i < run; i++) assert_int_equal(dx_next(stream, &sample, &err), DX_FAIL);
        dx_stream_free(stream);
    }
}

/* ---- room and ends
 * ------------------------------------------------------------------------------- */

enum { LARGE = 100000 };
static _Atomic int64_t alive, most_alive;
static void count_released(void *context) {
    atomic_fetch_sub(&alive, 1);
    free(context);
}
static DxStatus large(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)self;
    (void)random;
    void *memory = calloc(1, LARGE);
    int64_t now = atomic_fetch_add(&alive, 1) + 1, most = atomic_load(&most_alive);
    while (now > most && !atomic_compare_exchange_weak(&most_alive, &most, now)) {
    }
    dx_sample_put(
        sample, dx_key("large"),
        dx_array_wrap(DX_U8, 1, (const int64_t[]){LARGE}, memory, count_released, memory, err));
    return DX_OK;
}

static void test_work_ahead_stays_within_its_bytes(void **state) {
    (void)state;
    Error err = {0};
    const int threads = 4;
    DxStream *stream = dx_repeat(number_stream(100), 0, &err); /* without an end */
    stream = dx_map(stream, &(DxOp){.name = "large", .apply = large}, NULL, &err);
    stream = dx_parallel(
        stream, &(DxParallelOptions){.threads = threads, .depth = 1000, .max_bytes = 10 * LARGE},
        &err);
    most_alive = 0;
    for (int i = 0; i < 2000; i++) {
        DxSample *sample;
        assert_int_equal(dx_next(stream, &sample, &err), DX_OK);
        dx_sample_free(sample);
        if (i == 1000) usleep(20000); /* the workers get time to run away */
    }
    assert_in_range(most_alive, 1, 10 + 2 * threads + 2);
    dx_stream_free(stream);
    assert_int_equal(alive, 0);
}

static void test_a_sample_larger_than_all_room_still_passes(void **state) {
    (void)state;
    Error err = {0};
    DxStream *stream =
        dx_map(number_stream(200), &(DxOp){.name = "large", .apply = large}, NULL, &err);
    stream = dx_parallel(stream, &(DxParallelOptions){.threads = 3, .max_bytes = 1}, &err);
    int count = 0;
    DxSample *sample;
    while (dx_next(stream, &sample, &err) == DX_OK) {
        count++;
        dx_sample_free(sample);
    }
    assert_int_equal(count, 200);
    dx_stream_free(stream);
}

static DxStatus slow(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)self;
    (void)sample;
    (void)random;
    (void)err;
    usleep(10000);
    return DX_OK;
}

static atomic_bool destroyed;
static atomic_int too_late;
static DxStatus slow_and_looking(void *self, DxSample **sample, DxRandom *random, Error *err) {
    DxStatus status = slow(self, sample, random, err);
    if (atomic_load(&destroyed)) atomic_fetch_add(&too_late, 1);
    return status;
}

static void destroy(void *self) {
    (void)self;
    atomic_store(&destroyed, true);
}

/* An ingest's steps share one plan, which the last of them owns. */
static void test_what_a_step_holds_outlives_the_workers_before_it(void **state) {
    (void)state;
    Error err = {0};
    const DxOp first = {.name = "looks", .apply = slow_and_looking};
    const DxOp last = {.name = "owns", .apply = slow, .destroy = destroy};
    DxStream *stream = dx_map(number_stream(1000), &first, NULL, &err);
    stream = dx_parallel(stream, &(DxParallelOptions){.threads = 3}, &err);
    stream = dx_map(stream, &last, NULL, &err);
    DxSample *sample;
    assert_int_equal(dx_next(stream, &sample, &err), DX_OK);
    dx_sample_free(sample);
    dx_stream_free(stream);
    assert_true(atomic_load(&destroyed));
    assert_int_equal(atomic_load(&too_late), 0);
}

static void *cancel_soon(void *stream) {
    usleep(30000);
    dx_cancel(stream);
    return NULL;
}

static void test_a_cancelled_stream_returns_at_once(void **state) {
    (void)state;
    Error err = {0};
    DxStream *stream = dx_repeat(number_stream(100), 0, &err);
    stream = dx_map(stream, &(DxOp){.name = "slow", .apply = slow}, NULL, &err);
    stream = dx_parallel(stream, &(DxParallelOptions){.threads = 2}, &err);
    stream = dx_batch(stream, &(DxBatchOptions){.size = 1000000}, &err);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, stream), 0);
    double started = base_now();
    DxSample *sample;
    assert_int_equal(dx_next(stream, &sample, &err), DX_FAIL);
    assert_int_equal(err.code, ERROR_INTERRUPTED);
    assert_true(base_now() - started < 0.13);
    pthread_join(thread, NULL); /* nobody may be in dx_cancel when the stream is freed */
    dx_stream_free(stream);
    assert_true(base_now() - started < 0.3);
}

static void test_rewinding_in_the_middle_gives_the_whole_pass(void **state) {
    (void)state;
    DxStream *stream = worked(number_stream(300), 3, 0);
    char *expected = drain(stream, "n");
    for (int after = 0; after < 200; after += 33) {
        Error err = {0};
        assert_true(dx_rewind(stream, 0, &err));
        for (int i = 0; i < after; i++) {
            DxSample *sample;
            assert_int_equal(dx_next(stream, &sample, &err), DX_OK);
            dx_sample_free(sample);
        }
        assert_true(dx_rewind(stream, 0, &err));
        assert_gives(stream, "n", expected);
    }
    free(expected);
    dx_stream_free(stream);
}

static void test_threads_and_depth_out_of_range_are_refused(void **state) {
    (void)state;
    Error err = {0};
    assert_null(dx_parallel(number_stream(1), &(DxParallelOptions){.threads = -1}, &err));
    base_error_clear(&err);
    assert_null(dx_parallel(number_stream(1), &(DxParallelOptions){.depth = -1}, &err));
    base_error_clear(&err);
    assert_null(
        dx_parallel(number_stream(1), &(DxParallelOptions){.on_error = DX_ON_ERROR_CALL}, &err));
    assert_all(dx_parallel(number_stream(2), &(DxParallelOptions){.threads = 0}, &err), "n",
               "0 | 1");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_comes_out_does_not_depend_on_threads),
        cmocka_unit_test(test_workers_draw_their_own_random_numbers),
        cmocka_unit_test(test_each_sample_is_fetched_once),
        cmocka_unit_test(test_one_short_batch_for_any_number_of_threads),
        cmocka_unit_test(test_a_failure_comes_out_in_its_place),
        cmocka_unit_test(test_failures_are_skipped_or_given_to_the_caller),
        cmocka_unit_test(test_a_batch_keeps_the_samples_around_a_failure),
        cmocka_unit_test(test_freeing_with_failures_in_work_is_clean),
        cmocka_unit_test(test_work_ahead_stays_within_its_bytes),
        cmocka_unit_test(test_a_sample_larger_than_all_room_still_passes),
        cmocka_unit_test(test_what_a_step_holds_outlives_the_workers_before_it),
        cmocka_unit_test(test_a_cancelled_stream_returns_at_once),
        cmocka_unit_test(test_rewinding_in_the_middle_gives_the_whole_pass),
        cmocka_unit_test(test_threads_and_depth_out_of_range_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
