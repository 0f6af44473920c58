/* What the files of core share and operations do not need. */
#ifndef ENGINE_CORE_INTERNAL_H
#define ENGINE_CORE_INTERNAL_H

#include "engine/core/engine.h"
#include "mlx/c/closure.h"

/* After evaluation: forgets operation, inputs and parameters. */
void node_detach(Node *node);

/* Transforms (value_and_grad, vjp, ...) that run in this thread, one inside the
 * other. A node of a level above 0 keeps its operation and its inputs' values
 * past evaluation while one runs. */
extern _Thread_local uint8_t trace_depth;
static inline bool node_traced(const Node *node) {
    return node->level && trace_depth;
}

/* Fusion (ops/fuse.c). fuse_absorb: node, queued and not absorbed, takes over
 * the evaluation of element-wise inputs that nothing else needs. fuse_eval then
 * stands in for its op's eval; fuse_undo makes what it absorbed lazy again.
 * fuse_set switches fusion (on, unless MLX_RAG_NO_FUSE is in the environment)
 * and returns what was set before. */
void fuse_absorb(Node *node);
bool fuse_eval(Node *node, Error *err);
void fuse_undo(Node *node);
bool fuse_set(bool on);

/* The loss over a vocabulary (ops/vocabulary.c). Where a logsumexp reads a large
 * product that nothing else needs, but for one take_along_axis, both become parts
 * of a node that holds a chunk of the product at a time, and the product is freed.
 * nodes: those of a graph for which vocabulary_reads holds. Returns how many
 * products are gone. */
size_t vocabulary_fuse(Node *const *nodes, size_t count);
bool vocabulary_reads(const Node *node);

/* What mlx_array.ctx points to. It stays when another value is assigned, so
 * copies of the mlx_array struct see the new value. */
typedef struct Handle {
    Node *node;
} Handle;

/* ---- containers -------------------------------------------------------- */

/* How a container keeps an element, which is a pointer or an int in a pointer. */
typedef struct ElementKind {
    void *(*retain)(const void *element); /* share or copy */
    void (*release)(void *element);
} ElementKind;
extern const ElementKind element_node, element_vector, element_int, element_text;

typedef struct Vector {
    const ElementKind *kind;
    void **items;
    size_t count, capacity;
} Vector;

Vector *vector_new(const ElementKind *kind);
void vector_free(Vector *vector); /* NULL ok */
void vector_clear(Vector *vector);
void vector_append(Vector *vector, const void *element); /* retains */
void vector_append_owned(Vector *vector, void *element);
void vector_assign(Vector *vector, const Vector *source);

/* A map from text in order of insertion. Values may be of several kinds; each
 * entry knows its own. */
typedef struct MapEntry {
    char *key;
    void *value;
    const ElementKind *kind;
} MapEntry;
typedef struct Map {
    MapEntry *entries;
    size_t count, capacity;
    uint32_t *slots; /* entry number + 1; 0 is free */
    size_t slot_count;
} Map;

Map *map_new(void);
void map_free(Map *map); /* NULL ok */
void map_clear(Map *map);
void map_assign(Map *map, const Map *source);
/* Stores map as the content of a handle's ctx: an existing object stays and takes
 * the entries over. */
void map_finish(void **ctx, Map *map);
const MapEntry *map_find(const Map *map, const char *key);
/* Takes over value; replaces what was there. */
void map_insert_owned(Map *map, const char *key, const ElementKind *kind, void *value);

/* The container behind a handle of any of the container types; NULL after
 * reporting "expected a non-empty <type>". */
void *handle_ctx(const char *file, int line, const void *ctx, const char *type);
#define ctx_of(handle, type) handle_ctx(__FILE__, __LINE__, (handle).ctx, #type)

/* Closures over a function of the engine itself, which has reported its own
 * failure: the caller of apply adds no second message. */
mlx_closure closure_new_own(int (*fun)(mlx_vector_array *, const mlx_vector_array, void *),
                            void *payload, void (*dtor)(void *));
mlx_closure_value_and_grad closure_value_and_grad_new_own(
    int (*fun)(mlx_vector_array *, mlx_vector_array *, const mlx_vector_array, void *),
    void *payload, void (*dtor)(void *));

/* A new handle that takes over a reference. */
mlx_array array_from_node(Node *node);

#endif
