/* The one operator with threads. Samples are pulled from the source one after
 * another, in chunks, each with a ticket; the maps between the source and this node
 * are applied by whichever worker pulled the chunk; a ring of chunks gives what
 * came of them in the order of the tickets. So the order, and with it everything
 * that follows, is as with no thread at all.
 *
 * The cut into chunks follows from the samples alone (a number of samples, or a number
 * of bytes), and each chunk remembers the state of the source before it: a saved
 * state is that of the oldest chunk not yet consumed, and how many of its results
 * were. It says nothing about threads, depth or what was in work.
 *
 * Back-pressure: a worker waits before a chunk when the ring is full, and before a
 * sample when the bytes held reach the limit, unless its chunk is the oldest and
 * all that it made was consumed: then it must go on, by one sample. */
#include "data/stream.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHUNK_SAMPLES = 64,
    CHUNK_BYTES = 64 << 10,
    PUBLISH_BYTES = 64 << 10, /* results are shown to the consumer at least this often */
    MAX_THREADS = 256,
    MAX_DEPTH = 4096
};
static const double publish_seconds = 50e-6; /* and this often to one that waits */
static const size_t usual_bytes = (size_t)256 << 20;

/* One result: a sample, or why there is none. */
typedef struct Result {
    DxSample *sample;
    Error *failure;
    DxRecord record;
    size_t bytes;
} Result;

typedef struct Results {
    Result *items;
    size_t count, capacity;
} Results;

typedef struct Chunk {
    StrBuf before;   /* the source's state */
    Results inputs;  /* as pulled: samples, or failures of the source */
    Results results; /* published ones; written under the lock */
    size_t taken;    /* results given to the consumer */
    bool finished;   /* no results will be added */
    bool last;       /* the source ended behind it */
} Chunk;

typedef struct ParallelStream {
    DxStream base;
    DxParallelOptions options;
    int n_threads;
    bool savable;
    DxStream *source; /* above the pure operators */
    DxStream **steps; /* them, source side first */
    size_t n_steps;

    pthread_t threads[MAX_THREADS];
    int n_started;
    pthread_mutex_t pull; /* the source, and `next_ticket`; before `lock` */
    pthread_mutex_t lock; /* all below */
    pthread_cond_t room, ready, idle;
    Chunk *ring;
    size_t depth;
    uint64_t next_ticket, oldest; /* to be pulled, to be consumed */
    bool exhausted;               /* the source has ended: nothing more to pull */
    bool paused, stop;
    int working;
    _Atomic size_t held; /* bytes */
    _Atomic int waiting; /* workers that wait for room */
    _Atomic bool hungry; /* the consumer waits: results are shown soon */
    _Atomic uint64_t skipped;

    Results local; /* published results of the oldest chunk, taken from it at once */
    size_t local_at;
    _Atomic size_t local_left;
    uint64_t resume; /* results of the first chunk to forget after a load */
} ParallelStream;

static ParallelStream *self_of(DxStream *stream) {
    return (ParallelStream *)stream;
}

static Chunk *chunk_of(ParallelStream *p, uint64_t ticket) {
    return &p->ring[ticket % p->depth];
}

/* ---- results --------------------------------------------------------------------------- */

static void add_result(Results *list, Result result) {
    list->items = base_grow(list->items, &list->capacity, list->count + 1, sizeof *list->items);
    list->items[list->count++] = result;
}

static Result failed(const Error *err, DxRecord record) {
    Error *copy = base_alloc(sizeof *copy);
    *copy = *err;
    return (Result){.failure = copy, .record = record, .bytes = sizeof *copy};
}

static void result_free(Result *result) {
    dx_sample_free(result->sample);
    free(result->failure);
}

static void results_clear(Results *list, size_t from) {
    for (size_t i = from; i < list->count; i++) result_free(&list->items[i]);
    list->count = 0;
}

static void chunk_clear(Chunk *chunk) {
    results_clear(&chunk->inputs, 0);
    results_clear(&chunk->results, chunk->taken);
    chunk->before.length = 0;
    chunk->taken = 0;
    chunk->finished = chunk->last = false;
}

/* ---- workers ----------------------------------------------------------------------------- */

/* Samples up to a number or a size; the same cut whoever pulls. */
static void pull_chunk(ParallelStream *p, Chunk *chunk) {
    size_t bytes = 0;
    if (p->savable) dx_state_write(p->source, &chunk->before);
    while (chunk->inputs.count < CHUNK_SAMPLES && bytes < CHUNK_BYTES) {
        Error err = {0};
        DxSample *sample;
        DxStatus status = dx_next(p->source, &sample, &err);
        if (status == DX_END) {
            chunk->last = true;
            break;
        }
        if (status == DX_FAIL) {
            add_result(&chunk->inputs, failed(&err, (DxRecord){0}));
            if (err.code == ERROR_INTERRUPTED) {
                chunk->last = true;
                break;
            }
            continue;
        }
        size_t size = dx_sample_bytes(sample);
        add_result(&chunk->inputs,
                   (Result){.sample = sample, .record = *dx_sample_record(sample), .bytes = size});
        bytes += size;
    }
    atomic_fetch_add(&p->held, bytes);
}

/* Applies all steps to one sample; results are appended, failures in their place. */
static void run_steps(ParallelStream *p, DxSample *sample, size_t step, Results *out) {
    if (step == p->n_steps) {
        add_result(out, (Result){.sample = sample,
                                 .record = *dx_sample_record(sample),
                                 .bytes = dx_sample_bytes(sample)});
        return;
    }
    Error err = {0};
    DxRecord record = *dx_sample_record(sample);
    DxSamples made = {0};
    if (dx_pure_apply(p->steps[step], sample, &made, &err) == DX_FAIL)
        add_result(out, failed(&err, record));
    for (size_t i = 0; i < made.count; i++) run_steps(p, made.items[i], step + 1, out);
    free(made.items);
}

static bool over_budget(const ParallelStream *p) {
    return atomic_load(&p->held) >= p->options.max_bytes;
}

/* Shows results to the consumer, then waits until another sample may be made. False:
 * stop. Under `lock`. */
static bool publish(ParallelStream *p, uint64_t ticket, Results *made, bool finished) {
    Chunk *chunk = chunk_of(p, ticket);
    for (size_t i = 0; i < made->count; i++) {
        add_result(&chunk->results, made->items[i]);
        atomic_fetch_add(&p->held, made->items[i].bytes);
    }
    made->count = 0;
    chunk->finished = finished;
    if (ticket == p->oldest) pthread_cond_signal(&p->ready);
    if (finished) return true;
    /* Counted as waiting before it looks: whoever makes room looks at that count after. */
    atomic_fetch_add(&p->waiting, 1);
    while (!p->stop && !p->paused && over_budget(p) &&
           !(ticket == p->oldest && chunk->taken == chunk->results.count &&
             atomic_load(&p->local_left) == 0))
        pthread_cond_wait(&p->room, &p->lock);
    atomic_fetch_sub(&p->waiting, 1);
    return !p->stop && !p->paused;
}

static void work_chunk(ParallelStream *p, uint64_t ticket) {
    Chunk *chunk = chunk_of(p, ticket);
    Results made = {0};
    size_t pending = 0;
    double shown = base_now();
    bool go_on = true;
    for (size_t i = 0; go_on && i < chunk->inputs.count; i++) {
        Result *input = &chunk->inputs.items[i];
        size_t before = made.count;
        if (input->failure) {
            add_result(&made, *input);
            input->failure = NULL;
        } else {
            run_steps(p, input->sample, 0, &made);
            input->sample = NULL;
            atomic_fetch_sub(&p->held, input->bytes);
        }
        for (size_t j = before; j < made.count; j++) pending += made.items[j].bytes;
        bool asked = pending >= PUBLISH_BYTES || over_budget(p) ||
                     (atomic_load_explicit(&p->hungry, memory_order_relaxed) &&
                      base_now() - shown > publish_seconds);
        if (asked && i + 1 < chunk->inputs.count) {
            pthread_mutex_lock(&p->lock);
            go_on = publish(p, ticket, &made, false);
            pthread_mutex_unlock(&p->lock);
            pending = 0;
            shown = base_now();
        }
        go_on = go_on && !atomic_load_explicit(&p->base.cancelled, memory_order_relaxed);
    }
    pthread_mutex_lock(&p->lock);
    publish(p, ticket, &made, true);
    pthread_mutex_unlock(&p->lock);
    free(made.items);
}

/* Room for another chunk, by number and by bytes. */
static bool may_pull(const ParallelStream *p) {
    return !p->paused && !p->exhausted && p->next_ticket - p->oldest < p->depth &&
           (p->next_ticket == p->oldest || !over_budget(p));
}

static void *worker(void *context) {
    ParallelStream *p = context;
    pthread_mutex_lock(&p->lock);
    while (!p->stop) {
        atomic_fetch_add(&p->waiting, 1);
        while (!p->stop && !may_pull(p)) pthread_cond_wait(&p->room, &p->lock);
        atomic_fetch_sub(&p->waiting, 1);
        if (p->stop) break;
        p->working++;
        pthread_mutex_unlock(&p->lock);
        pthread_mutex_lock(&p->pull);
        pthread_mutex_lock(&p->lock);
        bool good = !p->stop && may_pull(p);
        uint64_t ticket = p->next_ticket;
        pthread_mutex_unlock(&p->lock);
        if (good) {
            Chunk *chunk = chunk_of(p, ticket);
            pull_chunk(p, chunk);
            pthread_mutex_lock(&p->lock);
            p->next_ticket++;
            p->exhausted = chunk->last;
            pthread_mutex_unlock(&p->lock);
        }
        pthread_mutex_unlock(&p->pull);
        if (good) work_chunk(p, ticket);
        pthread_mutex_lock(&p->lock);
        if (--p->working == 0) pthread_cond_broadcast(&p->idle);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* Under `lock`. A machine that gives fewer threads than asked for is slower; one that
 * gives none is a failure. */
static bool start_threads(ParallelStream *p, Error *err) {
    while (p->n_started < p->n_threads &&
           pthread_create(&p->threads[p->n_started], NULL, worker, p) == 0)
        p->n_started++;
    if (p->n_started == 0) return base_fail(err, ERROR_IO, "parallel: cannot start a thread");
    p->n_threads = p->n_started;
    return true;
}

/* ---- the consumer --------------------------------------------------------------------------- */

static void count_out(ParallelStream *p, size_t bytes) {
    atomic_fetch_sub(&p->held, bytes);
    if (atomic_load(&p->waiting) == 0) return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->room);
    pthread_mutex_unlock(&p->lock);
}

/* Fills `local` from the oldest chunk, going on to the next where one is done. False:
 * the end, or cancelled. */
static bool refill(ParallelStream *p, Error *err, DxStatus *status) {
    pthread_mutex_lock(&p->lock);
    *status = DX_OK;
    p->paused = false;
    if (p->n_started == 0 && !start_threads(p, err)) *status = DX_FAIL;
    p->local.count = p->local_at = 0;
    atomic_store(&p->local_left, 0);
    if (atomic_load(&p->waiting)) pthread_cond_broadcast(&p->room);
    while (*status == DX_OK) {
        Chunk *chunk = chunk_of(p, p->oldest);
        bool pulled = p->oldest < p->next_ticket;
        if (atomic_load(&p->base.cancelled)) {
            base_fail(err, ERROR_INTERRUPTED, "parallel: cancelled");
            *status = DX_FAIL;
        } else if (pulled && chunk->taken < chunk->results.count) {
            while (chunk->taken < chunk->results.count)
                add_result(&p->local, chunk->results.items[chunk->taken++]);
            atomic_store(&p->local_left, p->local.count);
            break;
        } else if (pulled && chunk->finished && chunk->last) {
            *status = DX_END;
        } else if (pulled && chunk->finished) {
            chunk_clear(chunk);
            p->oldest++;
            pthread_cond_broadcast(&p->room);
        } else {
            atomic_store(&p->hungry, true);
            pthread_cond_wait(&p->ready, &p->lock);
            atomic_store(&p->hungry, false);
        }
    }
    pthread_mutex_unlock(&p->lock);
    return *status == DX_OK;
}

static DxStatus take_result(ParallelStream *p, Result *result, Error *err) {
    DxStatus status;
    while (p->local_at == p->local.count)
        if (!refill(p, err, &status)) return status;
    *result = p->local.items[p->local_at++];
    atomic_fetch_sub(&p->local_left, 1);
    count_out(p, result->bytes);
    return DX_OK;
}

static DxStatus parallel_next(DxStream *stream, DxSample **sample, Error *err) {
    ParallelStream *p = self_of(stream);
    for (;;) {
        Result result;
        DxStatus status = take_result(p, &result, err);
        if (status != DX_OK) return status;
        if (p->resume) {
            p->resume--;
            result_free(&result);
            continue;
        }
        if (result.sample) {
            *sample = result.sample;
            return DX_OK;
        }
        const DxOnError policy = p->options.on_error;
        if (policy == DX_ON_ERROR_FAIL || result.failure->code == ERROR_INTERRUPTED) {
            if (err) *err = *result.failure;
            free(result.failure);
            return DX_FAIL;
        }
        atomic_fetch_add(&p->skipped, 1);
        if (policy == DX_ON_ERROR_CALL)
            p->options.call(p->options.context, &result.record, result.failure);
        free(result.failure);
    }
}

/* Lets the workers come to rest and forgets what they made. */
static void parallel_pause(DxStream *stream) {
    ParallelStream *p = self_of(stream);
    pthread_mutex_lock(&p->lock);
    p->paused = true;
    pthread_cond_broadcast(&p->room);
    while (p->working > 0) pthread_cond_wait(&p->idle, &p->lock);
    for (size_t i = 0; i < p->depth; i++) chunk_clear(&p->ring[i]);
    results_clear(&p->local, p->local_at);
    p->local_at = 0;
    atomic_store(&p->local_left, 0);
    p->next_ticket = p->oldest = 0;
    p->exhausted = false;
    p->resume = 0;
    atomic_store(&p->held, 0);
    pthread_mutex_unlock(&p->lock);
}

static void parallel_cancel(DxStream *stream) {
    ParallelStream *p = self_of(stream);
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->ready);
    pthread_cond_broadcast(&p->room);
    pthread_mutex_unlock(&p->lock);
}

static void parallel_stop(DxStream *stream) {
    ParallelStream *p = self_of(stream);
    atomic_store(&stream->cancelled, true);
    for (size_t i = 0; i < stream->n_inputs; i++) dx_cancel(stream->inputs[i]);
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->room);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->n_started; i++) pthread_join(p->threads[i], NULL);
}

static void parallel_free(DxStream *stream) {
    ParallelStream *p = self_of(stream);
    for (size_t i = 0; i < p->depth; i++) {
        Chunk *chunk = &p->ring[i];
        chunk_clear(chunk);
        free(chunk->inputs.items);
        free(chunk->results.items);
        base_str_free(&chunk->before);
    }
    results_clear(&p->local, p->local_at);
    free(p->local.items);
    free(p->ring);
    free(p->steps);
    pthread_mutex_destroy(&p->pull);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->room);
    pthread_cond_destroy(&p->ready);
    pthread_cond_destroy(&p->idle);
}

/* ---- state ------------------------------------------------------------------------------- */

/* Results of the oldest chunk that the consumer has seen; 0 and on to the next chunk
 * when that was all of it. Under `lock`. */
static uint64_t seen(ParallelStream *p) {
    if (p->resume) return p->resume;
    Chunk *chunk = chunk_of(p, p->oldest);
    return p->oldest < p->next_ticket ? chunk->taken - atomic_load(&p->local_left) : 0;
}

/* What the consumer sees ends a chunk as soon as its last result was given, whether or
 * not the next one was asked for: a state must not tell the difference. */
static void leave_consumed(ParallelStream *p) {
    while (p->resume == 0 && p->oldest < p->next_ticket && p->local_at == p->local.count) {
        Chunk *chunk = chunk_of(p, p->oldest);
        if (chunk->taken == 0 || chunk->last) break;
        while (!chunk->finished && chunk->taken == chunk->results.count)
            pthread_cond_wait(&p->ready, &p->lock);
        if (!chunk->finished || chunk->taken < chunk->results.count) break;
        chunk_clear(chunk);
        p->oldest++;
        pthread_cond_broadcast(&p->room);
    }
}

static void parallel_save(DxStream *stream, StrBuf *out) {
    ParallelStream *p = self_of(stream);
    pthread_mutex_lock(&p->lock);
    leave_consumed(p);
    dx_put_u64(out, seen(p));
    pthread_mutex_unlock(&p->lock);
}

/* The nodes between here and the source have no state: they are written as they are,
 * above the source's. */
static void write_steps(const ParallelStream *p, DxStream *stream, const StrBuf *before,
                        StrBuf *out) {
    if (stream == p->source) {
        if (before)
            base_str_append_n(out, before->data, before->length);
        else
            dx_state_write(stream, out);
        return;
    }
    StrBuf identity = {0};
    dx_stream_identity(stream, &identity);
    dx_put_bytes(out, identity.data, identity.length);
    dx_put_u64(out, stream->epoch);
    dx_put_u64(out, 0);
    StrBuf held = {0};
    base_str_append(&held, "");
    if (stream->kind->save) dx_put_u64(&held, 0);
    dx_put_bytes(out, held.data, held.length);
    base_str_free(&held);
    base_str_free(&identity);
    write_steps(p, stream->upstream, before, out);
}

static void parallel_save_inputs(DxStream *stream, StrBuf *out) {
    ParallelStream *p = self_of(stream);
    pthread_mutex_lock(&p->pull);
    pthread_mutex_lock(&p->lock);
    bool pulled = p->oldest < p->next_ticket;
    write_steps(p, stream->upstream, pulled ? &chunk_of(p, p->oldest)->before : NULL, out);
    pthread_mutex_unlock(&p->lock);
    pthread_mutex_unlock(&p->pull);
}

static bool parallel_load(DxStream *stream, DxReader *reader, Error *err) {
    (void)err;
    self_of(stream)->resume = dx_get_u64(reader);
    return true;
}

static const DxStreamKind parallel_kind = {
    .name = "parallel",
    .next = parallel_next,
    .save = parallel_save,
    .load = parallel_load,
    .save_inputs = parallel_save_inputs,
    .pause = parallel_pause,
    .cancel = parallel_cancel,
    .stop = parallel_stop,
    .free = parallel_free,
};

DxStream *dx_parallel(DxStream *stream, const DxParallelOptions *options, Error *err) {
    if (!dx_stream_check(stream,
                         options->threads >= 0 && options->threads <= MAX_THREADS &&
                             options->depth >= 0 && options->depth <= MAX_DEPTH,
                         err,
                         "parallel: %d threads and a depth of %d; 0 to %d and 0 to %d are possible",
                         options->threads, options->depth, MAX_THREADS, MAX_DEPTH))
        return NULL;
    if (!dx_stream_check(stream, options->on_error != DX_ON_ERROR_CALL || options->call, err,
                         "parallel: failures are to be given to nobody"))
        return NULL;
    ParallelStream *p = dx_stream_over(&parallel_kind, sizeof *p, stream);
    p->options = *options;
    if (p->options.max_bytes == 0) p->options.max_bytes = usual_bytes;
    p->n_threads = options->threads ? options->threads : base_threads();
    p->depth = options->depth ? (size_t)options->depth : (size_t)p->n_threads * 2 + 2;
    p->ring = base_calloc(p->depth, sizeof *p->ring);
    p->source = stream;
    while (dx_is_pure(p->source)) {
        p->n_steps++;
        p->source = p->source->upstream;
    }
    p->steps = base_calloc(p->n_steps + 1, sizeof *p->steps);
    size_t at = p->n_steps;
    for (DxStream *step = stream; step != p->source; step = step->upstream) p->steps[--at] = step;
    p->savable = dx_can_save(p->source, NULL);
    pthread_mutex_init(&p->pull, NULL);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->room, NULL);
    pthread_cond_init(&p->ready, NULL);
    pthread_cond_init(&p->idle, NULL);
    return &p->base;
}

uint64_t dx_parallel_skipped(const DxStream *parallel) {
    return atomic_load(&((const ParallelStream *)parallel)->skipped);
}
