/* mlx_compile: closures that record their function once a signature and replay
 * the recording afterwards.
 *
 * The recordings of all threads are in one list under one lock; each belongs to a
 * thread, because a function may depend on the thread it runs in (its random
 * keys), and goes with it, with its closure, or when it is erased. */
#include "mlx/c/compile.h"

#include "engine/core/internal.h"
#include "engine/grad/record.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Whose recordings: a closure's own (its payload's address), or those of an id
 * that a caller chose. */
typedef struct Owner {
    uintptr_t id;
    bool chosen;
} Owner;

typedef struct Signature {
    uint8_t dtype, ndim;
    int shape[NODE_DIMS];
} Signature;

typedef struct Entry {
    struct Entry *next;
    Owner owner;
    uint64_t thread;
    bool shapeless; /* serves other shapes too */
    uint64_t *constants;
    size_t n_constants, n_inputs;
    Signature *inputs;
    Recording *recording;
} Entry;

typedef struct Compiled {
    mlx_closure fun;
    Owner owner;
    bool shapeless;
    size_t n_constants;
    uint64_t constants[];
} Compiled;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Entry *entries;

/* ---- the list ---- */

/* Frees a chain of entries that is in no list any more. */
static void entries_free(Entry *entry) {
    while (entry) {
        Entry *next = entry->next;
        recording_release(entry->recording);
        free(entry->constants);
        free(entry->inputs);
        free(entry);
        entry = next;
    }
}

/* Drops the entries of an owner (NULL: any) and a thread (0: any). */
static void entries_drop(const Owner *owner, uint64_t thread) {
    Entry *dropped = NULL;
    pthread_mutex_lock(&lock);
    for (Entry **link = &entries; *link;) {
        Entry *entry = *link;
        const bool owned =
            !owner || (entry->owner.id == owner->id && entry->owner.chosen == owner->chosen);
        if (owned && (!thread || entry->thread == thread)) {
            *link = entry->next;
            entry->next = dropped;
            dropped = entry;
        } else {
            link = &entry->next;
        }
    }
    pthread_mutex_unlock(&lock);
    entries_free(dropped); /* a recording may own what frees other closures */
}

static _Thread_local uint64_t thread_number;
static pthread_key_t thread_key;
static pthread_once_t thread_once = PTHREAD_ONCE_INIT;

static void thread_end(void *number) {
    entries_drop(NULL, (uint64_t)(uintptr_t)number);
}
static void thread_setup(void) {
    pthread_key_create(&thread_key, thread_end);
}

static uint64_t this_thread(void) {
    static _Atomic uint64_t count;
    if (!thread_number) {
        thread_number = atomic_fetch_add(&count, 1) + 1;
        pthread_once(&thread_once, thread_setup);
        pthread_setspecific(thread_key, (void *)(uintptr_t)thread_number);
    }
    return thread_number;
}

static bool fits(const Entry *entry, const Compiled *compiled, Node *const *inputs, size_t count) {
    if (entry->owner.id != compiled->owner.id || entry->owner.chosen != compiled->owner.chosen ||
        entry->n_inputs != count || entry->n_constants != compiled->n_constants)
        return false;
    for (size_t i = 0; i < entry->n_constants; i++)
        if (entry->constants[i] != compiled->constants[i]) return false;
    const bool any_shape = entry->shapeless && compiled->shapeless;
    for (size_t i = 0; i < count; i++) {
        const Signature *signature = &entry->inputs[i];
        if (signature->dtype != inputs[i]->dtype || signature->ndim != inputs[i]->ndim)
            return false;
        if (!any_shape &&
            memcmp(signature->shape, inputs[i]->shape, signature->ndim * sizeof(int)) != 0)
            return false;
    }
    return true;
}

/* The recording for these inputs, retained; NULL when there is none. */
static Recording *find(const Compiled *compiled, Node *const *inputs, size_t count) {
    const uint64_t thread = this_thread();
    Recording *found = NULL;
    pthread_mutex_lock(&lock);
    for (Entry *entry = entries; entry && !found; entry = entry->next)
        if (entry->thread == thread && fits(entry, compiled, inputs, count))
            found = recording_retain(entry->recording);
    pthread_mutex_unlock(&lock);
    return found;
}

static void add(const Compiled *compiled, Node *const *inputs, size_t count, Recording *recording) {
    Entry *entry = base_calloc(1, sizeof *entry);
    *entry = (Entry){.owner = compiled->owner,
                     .thread = this_thread(),
                     .shapeless = recording_is_shapeless(recording),
                     .n_constants = compiled->n_constants,
                     .n_inputs = count,
                     .recording = recording_retain(recording)};
    entry->constants = base_alloc((entry->n_constants + 1) * sizeof(uint64_t));
    if (entry->n_constants)
        memcpy(entry->constants, compiled->constants, entry->n_constants * sizeof(uint64_t));
    entry->inputs = base_calloc(count + 1, sizeof(Signature));
    for (size_t i = 0; i < count; i++) {
        entry->inputs[i].dtype = inputs[i]->dtype;
        entry->inputs[i].ndim = inputs[i]->ndim;
        memcpy(entry->inputs[i].shape, inputs[i]->shape, inputs[i]->ndim * sizeof(int));
    }
    pthread_mutex_lock(&lock);
    entry->next = entries;
    entries = entry;
    pthread_mutex_unlock(&lock);
}

/* ---- the closure ---- */

static int compiled_call(mlx_vector_array *res, const mlx_vector_array input, void *payload) {
    const Compiled *compiled = payload;
    Node *const *inputs;
    size_t count;
    if (!vector_nodes(input, &inputs, &count)) return 1;
    bool traced = recording_runs();
    for (size_t i = 0; i < count; i++) traced = traced || node_traced(inputs[i]);
    if (traced) return mlx_closure_apply(res, compiled->fun, input);
    Recording *recording = find(compiled, inputs, count);
    if (!recording) {
        recording = recording_make(compiled->fun, inputs, count);
        if (!recording) return 1;
        add(compiled, inputs, count, recording);
    }
    const bool good = recording_replay(recording, inputs, res);
    recording_release(recording);
    return good ? 0 : 1;
}

static void compiled_free(void *payload) {
    Compiled *compiled = payload;
    if (!compiled->owner.chosen) entries_drop(&compiled->owner, 0);
    mlx_closure_free(compiled->fun);
    free(compiled);
}

/* ---- the mode ---- */

enum { MODE_UNKNOWN = -1 };
static _Atomic int current_mode = MODE_UNKNOWN;

static bool is_disabled(void) {
    int mode = atomic_load_explicit(&current_mode, memory_order_relaxed);
    if (mode == MODE_UNKNOWN) {
        mode = getenv("MLX_DISABLE_COMPILE") ? MLX_COMPILE_MODE_DISABLED : MLX_COMPILE_MODE_ENABLED;
        atomic_store_explicit(&current_mode, mode, memory_order_relaxed);
    }
    return mode == MLX_COMPILE_MODE_DISABLED;
}

int mlx_set_compile_mode(mlx_compile_mode mode) {
    if ((int)mode < MLX_COMPILE_MODE_DISABLED || (int)mode > MLX_COMPILE_MODE_ENABLED) {
        op_error("[set_compile_mode] %d is not a compile mode.", (int)mode);
        return 1;
    }
    atomic_store_explicit(&current_mode, (int)mode, memory_order_relaxed);
    return 0;
}

int mlx_disable_compile(void) {
    return mlx_set_compile_mode(MLX_COMPILE_MODE_DISABLED);
}

int mlx_enable_compile(void) {
    return mlx_set_compile_mode(MLX_COMPILE_MODE_ENABLED);
}

/* ---- the face ---- */

static int compile(mlx_closure *res, const mlx_closure fun, const uintptr_t *fun_id, bool shapeless,
                   const uint64_t *constants, size_t n_constants) {
    if (!ctx_of(fun, mlx_closure)) return 1;
    if (is_disabled()) return mlx_closure_set(res, fun);
    Compiled *compiled = base_calloc(1, sizeof *compiled + n_constants * sizeof(uint64_t));
    mlx_closure_set(&compiled->fun, fun);
    compiled->owner = fun_id ? (Owner){*fun_id, true} : (Owner){(uintptr_t)compiled, false};
    compiled->shapeless = shapeless;
    compiled->n_constants = n_constants;
    if (n_constants) memcpy(compiled->constants, constants, n_constants * sizeof(uint64_t));
    mlx_closure made = closure_new_own(compiled_call, compiled, compiled_free);
    const int status = mlx_closure_set(res, made);
    mlx_closure_free(made);
    return status;
}

int mlx_compile(mlx_closure *res, const mlx_closure fun, bool shapeless) {
    return compile(res, fun, NULL, shapeless, NULL, 0);
}

int mlx_detail_compile(mlx_closure *res, const mlx_closure fun, uintptr_t fun_id, bool shapeless,
                       const uint64_t *constants, size_t constants_num) {
    return compile(res, fun, &fun_id, shapeless, constants, constants_num);
}

int mlx_detail_compile_clear_cache(void) {
    entries_drop(NULL, this_thread());
    return 0;
}

int mlx_detail_compile_erase(uintptr_t fun_id) {
    entries_drop(&(Owner){fun_id, true}, 0);
    return 0;
}
