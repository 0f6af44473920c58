/* Samples: a few named arrays and the record they came from. Samples are shared
 * freely; whoever changes one that others hold gets a copy of its list, never of
 * the arrays. Keys are names kept once for the process. */
#include "data/sample.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* ---- keys ------------------------------------------------------------------------- */

typedef struct KeyNode {
    struct KeyNode *next;
    char name[];
} KeyNode;

enum { KEY_SLOTS = 1024 };
static _Atomic(KeyNode *) key_slots[KEY_SLOTS];
static pthread_mutex_t key_lock = PTHREAD_MUTEX_INITIALIZER;

static KeyNode *find_key(KeyNode *node, const char *name) {
    while (node && strcmp(node->name, name) != 0) node = node->next;
    return node;
}

/* Nodes are only ever put in front and never freed, so readers take no lock. */
DxKey dx_key(const char *name) {
    size_t length = strlen(name);
    _Atomic(KeyNode *) *slot = &key_slots[base_hash(name, length) % KEY_SLOTS];
    KeyNode *node = find_key(atomic_load_explicit(slot, memory_order_acquire), name);
    if (node) return (DxKey){node->name};
    pthread_mutex_lock(&key_lock);
    KeyNode *first = atomic_load_explicit(slot, memory_order_relaxed);
    node = find_key(first, name);
    if (!node) {
        node = base_alloc(sizeof *node + length + 1);
        node->next = first;
        memcpy(node->name, name, length + 1);
        atomic_store_explicit(slot, node, memory_order_release);
    }
    pthread_mutex_unlock(&key_lock);
    return (DxKey){node->name};
}

/* ---- samples ---------------------------------------------------------------------- */

DxSample *dx_sample_new(void) {
    DxSample *sample = base_alloc(sizeof *sample);
    atomic_init(&sample->references, 1);
    sample->count = 0;
    sample->capacity = SAMPLE_INLINE;
    sample->fields = sample->few;
    sample->record = (DxRecord){0};
    return sample;
}

DxSample *dx_sample_of(DxKey key, DxArray *value, DxRecord record) {
    DxSample *sample = dx_sample_new();
    sample->record = record;
    sample->count = 1;
    sample->few[0] = (DxField){key, value};
    return sample;
}

DxSample *dx_sample_retain(DxSample *sample) {
    if (sample) atomic_fetch_add_explicit(&sample->references, 1, memory_order_relaxed);
    return sample;
}

void dx_sample_free(DxSample *sample) {
    if (!sample) return;
    if (atomic_load_explicit(&sample->references, memory_order_acquire) != 1 &&
        atomic_fetch_sub_explicit(&sample->references, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; i < sample->count; i++) dx_array_release(sample->fields[i].value);
    if (sample->fields != sample->few) free(sample->fields);
    free(sample);
}

static void append(DxSample *sample, DxKey key, DxArray *value) {
    if (sample->count == sample->capacity) {
        uint32_t capacity = sample->capacity * 2;
        DxField *more = base_calloc(capacity, sizeof *more);
        memcpy(more, sample->fields, sample->count * sizeof *more);
        if (sample->fields != sample->few) free(sample->fields);
        sample->fields = more;
        sample->capacity = capacity;
    }
    sample->fields[sample->count++] = (DxField){key, value};
}

/* *sample with no other holder. */
static DxSample *own(DxSample **sample) {
    DxSample *old = *sample;
    if (atomic_load_explicit(&old->references, memory_order_acquire) == 1) return old;
    DxSample *copy = dx_sample_new();
    copy->record = old->record;
    for (uint32_t i = 0; i < old->count; i++)
        append(copy, old->fields[i].key, dx_array_retain(old->fields[i].value));
    dx_sample_free(old);
    return *sample = copy;
}

static DxField *find(const DxSample *sample, DxKey key) {
    for (uint32_t i = 0; i < sample->count; i++)
        if (sample->fields[i].key.name == key.name) return &sample->fields[i];
    return NULL;
}

void dx_sample_put(DxSample **sample, DxKey key, DxArray *value) {
    if (!value) return;
    DxSample *mine = own(sample);
    DxField *field = find(mine, key);
    if (!field) {
        append(mine, key, value);
        return;
    }
    dx_array_release(field->value);
    field->value = value;
}

void dx_sample_remove(DxSample **sample, DxKey key) {
    if (!find(*sample, key)) return;
    DxSample *mine = own(sample);
    DxField *field = find(mine, key);
    dx_array_release(field->value);
    size_t after = (size_t)(mine->fields + mine->count - field - 1);
    memmove(field, field + 1, after * sizeof *field);
    mine->count--;
}

size_t dx_sample_count(const DxSample *sample) {
    return sample->count;
}

DxKey dx_sample_key(const DxSample *sample, size_t index) {
    return sample->fields[index].key;
}

DxArray *dx_sample_at(const DxSample *sample, size_t index) {
    return sample->fields[index].value;
}

DxArray *dx_sample_get(const DxSample *sample, DxKey key) {
    const DxField *field = find(sample, key);
    return field ? field->value : NULL;
}

static void wanted_text(DxType type, int rank, char *text, size_t size) {
    if (rank < 0)
        snprintf(text, size, "%s", dx_type_name(type));
    else
        snprintf(text, size, "%s of rank %d", dx_type_name(type), rank);
}

DxArray *dx_sample_need(const DxSample *sample, DxKey key, DxType type, int rank, Error *err) {
    char wanted[64], found[128];
    wanted_text(type, rank, wanted, sizeof wanted);
    DxArray *value = dx_sample_get(sample, key);
    if (!value) {
        StrBuf names = {0};
        base_str_append(&names, "");
        for (uint32_t i = 0; i < sample->count && names.length < 200; i++)
            base_str_appendf(&names, "%s%s", i ? ", " : "", sample->fields[i].key.name);
        base_fail(err, ERROR_INPUT, "key \"%s\": wanted %s, the sample has only: %s", key.name,
                  wanted, names.data);
        base_str_free(&names);
        return NULL;
    }
    if ((type == DX_ANY_TYPE || value->type == type) && (rank < 0 || value->rank == rank))
        return value;
    base_fail(err, ERROR_INPUT, "key \"%s\": wanted %s, found %s", key.name, wanted,
              dx_array_describe(value, found, sizeof found));
    return NULL;
}

DxArray *dx_sample_need_bytes(const DxSample *sample, DxKey key, Error *err) {
    char found[128];
    DxArray *value = dx_sample_need(sample, key, DX_ANY_TYPE, -1, err);
    if (!value || (value->rank == 1 && dx_type_size(value->type) == 1)) return value;
    base_fail(err, ERROR_INPUT, "key \"%s\": wanted text or bytes, found %s", key.name,
              dx_array_describe(value, found, sizeof found));
    return NULL;
}

DxSample *dx_sample_without(const DxSample *sample, DxKey key) {
    DxSample *copy = dx_sample_new();
    copy->record = sample->record;
    for (uint32_t i = 0; i < sample->count; i++)
        if (sample->fields[i].key.name != key.name)
            append(copy, sample->fields[i].key, dx_array_retain(sample->fields[i].value));
    return copy;
}

const DxRecord *dx_sample_record(const DxSample *sample) {
    return &sample->record;
}

void dx_sample_set_record(DxSample **sample, DxRecord record) {
    own(sample)->record = record;
}

size_t dx_sample_bytes(const DxSample *sample) {
    size_t bytes = sizeof *sample;
    for (uint32_t i = 0; i < sample->count; i++)
        bytes += sizeof(DxArray) + sample->fields[i].value->bytes;
    return bytes;
}

bool dx_sample_equal(const DxSample *a, const DxSample *b) {
    if (a->count != b->count) return false;
    for (uint32_t i = 0; i < a->count; i++) {
        const DxArray *other = dx_sample_get(b, a->fields[i].key);
        if (!other || !dx_array_equal(a->fields[i].value, other)) return false;
    }
    return true;
}
