/* The public maps from text to arrays and to texts. */
#include "mlx/c/map.h"

#include "engine/core/internal.h"

#include <stdlib.h>

enum { MAP_NOTHING = 2 };

static int array_out(mlx_array *value, void *element) {
    return op_finish(value, node_retain(element));
}
static int string_out(const char **value, void *element) {
    *value = element;
    return 0;
}

#define MAP(name, Out)                                                                         \
    mlx_map_string_to_##name mlx_map_string_to_##name##_new(void) {                            \
        return (mlx_map_string_to_##name){map_new()};                                          \
    }                                                                                          \
    int mlx_map_string_to_##name##_set(mlx_map_string_to_##name *map,                          \
                                       const mlx_map_string_to_##name src) {                   \
        const Map *source = ctx_of(src, mlx_map_string_to_##name);                             \
        if (!source) return 1;                                                                 \
        if (!map->ctx) *map = mlx_map_string_to_##name##_new();                                \
        map_assign(map->ctx, source);                                                          \
        return 0;                                                                              \
    }                                                                                          \
    int mlx_map_string_to_##name##_free(mlx_map_string_to_##name map) {                        \
        map_free(map.ctx);                                                                     \
        return 0;                                                                              \
    }                                                                                          \
    int mlx_map_string_to_##name##_get(Out *value, const mlx_map_string_to_##name map,         \
                                       const char *key) {                                      \
        const Map *entries = ctx_of(map, mlx_map_string_to_##name);                            \
        if (!entries) return 1;                                                                \
        const MapEntry *entry = map_find(entries, key);                                        \
        return entry ? name##_out(value, entry->value) : MAP_NOTHING;                          \
    }                                                                                          \
    mlx_map_string_to_##name##_iterator mlx_map_string_to_##name##_iterator_new(               \
        mlx_map_string_to_##name map) {                                                        \
        return (mlx_map_string_to_##name##_iterator){base_calloc(1, sizeof(size_t)), map.ctx}; \
    }                                                                                          \
    int mlx_map_string_to_##name##_iterator_free(mlx_map_string_to_##name##_iterator it) {     \
        free(it.ctx);                                                                          \
        return 0;                                                                              \
    }                                                                                          \
    int mlx_map_string_to_##name##_iterator_next(const char **key, Out *value,                 \
                                                 mlx_map_string_to_##name##_iterator it) {     \
        size_t *at = ctx_of(it, mlx_map_string_to_##name##_iterator);                          \
        const Map *map = it.map_ctx;                                                           \
        if (!at || !map) return 1;                                                             \
        if (*at >= map->count) return MAP_NOTHING;                                             \
        const MapEntry *entry = &map->entries[(*at)++];                                        \
        *key = entry->key;                                                                     \
        return name##_out(value, entry->value);                                                \
    }

MAP(array, mlx_array)
MAP(string, const char *)

int mlx_map_string_to_array_insert(mlx_map_string_to_array map, const char *key,
                                   const mlx_array value) {
    Map *entries = ctx_of(map, mlx_map_string_to_array);
    Node *node = entries ? node_of(value) : NULL;
    if (!node) return 1;
    map_insert_owned(entries, key, &element_node, node_retain(node));
    return 0;
}

int mlx_map_string_to_string_insert(mlx_map_string_to_string map, const char *key,
                                    const char *value) {
    Map *entries = ctx_of(map, mlx_map_string_to_string);
    if (!entries) return 1;
    map_insert_owned(entries, key, &element_text, base_strdup(value));
    return 0;
}
