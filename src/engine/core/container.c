/* The containers under the public vectors and maps: a list and an insertion-
 * ordered hash map whose elements know how to be shared and released. */
#include "engine/core/internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- kinds of elements ---- */

static void *retain_node(const void *element) {
    return node_retain((Node *)(uintptr_t)element);
}
static void release_node(void *element) {
    node_release(element);
}
static void *retain_vector(const void *element) {
    const Vector *source = element;
    Vector *copy = vector_new(source->kind);
    vector_assign(copy, source);
    return copy;
}
static void release_vector(void *element) {
    vector_free(element);
}
static void *retain_int(const void *element) {
    return (void *)(uintptr_t)element;
}
static void release_int(void *element) {
    (void)element;
}
static void *retain_text(const void *element) {
    return base_strdup(element);
}

const ElementKind element_node = {retain_node, release_node};
const ElementKind element_vector = {retain_vector, release_vector};
const ElementKind element_int = {retain_int, release_int};
const ElementKind element_text = {retain_text, free};

/* ---- lists ---- */

Vector *vector_new(const ElementKind *kind) {
    Vector *vector = base_alloc(sizeof *vector);
    *vector = (Vector){.kind = kind};
    return vector;
}

void vector_clear(Vector *vector) {
    for (size_t i = 0; i < vector->count; i++) vector->kind->release(vector->items[i]);
    vector->count = 0;
}

void vector_free(Vector *vector) {
    if (!vector) return;
    vector_clear(vector);
    free(vector->items);
    free(vector);
}

void vector_append_owned(Vector *vector, void *element) {
    vector->items =
        base_grow(vector->items, &vector->capacity, vector->count + 1, sizeof *vector->items);
    vector->items[vector->count++] = element;
}

void vector_append(Vector *vector, const void *element) {
    vector_append_owned(vector, vector->kind->retain(element));
}

void vector_assign(Vector *vector, const Vector *source) {
    if (vector == source) return;
    vector_clear(vector);
    for (size_t i = 0; i < source->count; i++) vector_append(vector, source->items[i]);
}

/* ---- maps ---- */

Map *map_new(void) {
    return base_calloc(1, sizeof(Map));
}

void map_clear(Map *map) {
    for (size_t i = 0; i < map->count; i++) {
        map->entries[i].kind->release(map->entries[i].value);
        free(map->entries[i].key);
    }
    free(map->entries);
    free(map->slots);
    *map = (Map){0};
}

void map_free(Map *map) {
    if (!map) return;
    map_clear(map);
    free(map);
}

/* The slot of key, or the free one where it belongs. slot_count is a power of 2. */
static uint32_t *map_slot(const Map *map, const char *key) {
    size_t at = (size_t)base_hash(key, strlen(key)) & (map->slot_count - 1);
    while (map->slots[at] && strcmp(map->entries[map->slots[at] - 1].key, key) != 0)
        at = (at + 1) & (map->slot_count - 1);
    return &map->slots[at];
}

const MapEntry *map_find(const Map *map, const char *key) {
    if (!map->count) return NULL;
    const uint32_t slot = *map_slot(map, key);
    return slot ? &map->entries[slot - 1] : NULL;
}

static void map_grow(Map *map) {
    map->slot_count = map->slot_count ? 2 * map->slot_count : 16;
    free(map->slots);
    map->slots = base_calloc(map->slot_count, sizeof *map->slots);
    for (size_t i = 0; i < map->count; i++) *map_slot(map, map->entries[i].key) = (uint32_t)i + 1;
}

void map_insert_owned(Map *map, const char *key, const ElementKind *kind, void *value) {
    if (map->count + 1 > map->slot_count / 2) map_grow(map);
    uint32_t *slot = map_slot(map, key);
    if (*slot) {
        MapEntry *entry = &map->entries[*slot - 1];
        entry->kind->release(entry->value);
        entry->kind = kind;
        entry->value = value;
        return;
    }
    map->entries = base_grow(map->entries, &map->capacity, map->count + 1, sizeof *map->entries);
    map->entries[map->count++] = (MapEntry){base_strdup(key), value, kind};
    *slot = (uint32_t)map->count;
}

void map_assign(Map *map, const Map *source) {
    if (map == source) return;
    map_clear(map);
    for (size_t i = 0; i < source->count; i++) {
        const MapEntry *entry = &source->entries[i];
        map_insert_owned(map, entry->key, entry->kind, entry->kind->retain(entry->value));
    }
}

void map_finish(void **ctx, Map *map) {
    if (!*ctx) {
        *ctx = map;
        return;
    }
    Map *existing = *ctx;
    map_clear(existing);
    *existing = *map;
    free(map);
}
