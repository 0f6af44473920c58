/* engine/core: the heart that every operation is built on.
 *
 * A graph is made of Nodes. A node that came from an operation remembers that
 * operation (`op`), its inputs and its parameters until it is evaluated; then
 * it owns a share of a Buffer and forgets all three (inside a transform, nodes
 * that depend on its arguments forget only at its end). A node made from data is
 * ready at once. Public handles (mlx_array) hold one reference to a node.
 * Evaluation runs in the calling thread, in depth-first order; kernels may
 * spread over base_parallel_for. Independent graphs may be built and evaluated
 * in many threads at once, and ready nodes may be shared between threads; one
 * lazy node must not be evaluated by two threads at the same time.
 *
 * How an operation is written (here y = x + c along nothing, same shape):
 *
 *     typedef struct { float value; } ShiftParam;
 *
 *     static bool shift_eval(Node *node, Error *err) {
 *         const Node *x = node->inputs[0];
 *         const ShiftParam *param = node->param;
 *         if (!node_alloc_like(node, 0, err))   // x's layout; reuses x's buffer when x dies here
 *             return false;                     // otherwise: node_alloc (row major) + strides of x
 *         kernel_shift_f32(node_data(node), node_data(x), node->data_size, param->value);
 *         return true;
 *     }
 *     static bool shift_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
 *         (void)node;                           // d(x + c)/dx = 1
 *         if (wanted[0]) grads[0] = node_retain(g);
 *         return true;
 *     }
 *     static const Op shift_op = {"shift", shift_eval, shift_vjp};
 *
 *     Node *op_shift(Node *x, float value) {    // borrows x, returns a new reference
 *         if (!x) return NULL;                  // an earlier failure, already reported
 *         if (x->dtype != MLX_FLOAT32)
 *             return op_error("[shift] Unsupported type %s.", dtype_name(x->dtype));
 *         return node_new_param(&shift_op, x->dtype, x->shape, x->ndim,
 *                               &(ShiftParam){value}, sizeof(ShiftParam), NODES(x));
 *     }
 *
 *     int mlx_shift(mlx_array *res, const mlx_array a, float value, const mlx_stream s) {
 *         return stream_ok(s) ? op_finish(res, op_shift(node_of(a), value)) : 1;
 *     }
 *
 * Rules: op functions borrow their inputs, return an owned reference, and give
 * NULL after reporting the error once; NULL in means NULL out, so compositions
 * need no checks: `Node *t = op_a(x), *y = op_b(t); node_release(t); return y;`.
 * Shapes and dtypes are checked when the node is built, never at eval.
 * An eval function sees ready inputs of any layout (strides, offset, zero
 * strides, size 0), must fill its node by node_alloc, node_alloc_like,
 * node_donate or node_share, and reports failures by base_fail. */
#ifndef ENGINE_CORE_ENGINE_H
#define ENGINE_CORE_ENGINE_H

#include "base/base.h"
#include "mlx/c/array.h"
#include "mlx/c/device.h"
#include "mlx/c/error.h"
#include "mlx/c/map.h"
#include "mlx/c/optional.h"
#include "mlx/c/stream.h"
#include "mlx/c/string.h"
#include "mlx/c/vector.h"

#include <stdatomic.h>

enum {
    NODE_DIMS = 16,        /* most dimensions an array may have */
    NODE_INPUTS = 4,       /* inputs kept inside the node; more go to the heap */
    NODE_PARAM_BYTES = 96, /* parameters kept inside the node; more go to the heap */
    DTYPE_COUNT = 14
};

/* ---- buffers ----------------------------------------------------------- */

/* Memory that nodes share. Data of the engine's own buffers is 64-byte aligned
 * and has at least 64 readable bytes after the end; foreign memory (a mapping,
 * a caller's array) has neither promise and is never written. */
typedef struct Buffer {
    _Atomic uint32_t refs;
    bool foreign;
    size_t capacity; /* bytes */
    uint8_t *data;
    void (*release)(void *payload); /* foreign only; may be NULL */
    void *payload;
} Buffer;

Buffer *buffer_new(size_t bytes, Error *err); /* contents undefined; NULL and *err if too large */
Buffer *buffer_foreign(void *data, size_t bytes, void (*release)(void *), void *payload);
static inline Buffer *buffer_retain(Buffer *buffer) {
    atomic_fetch_add_explicit(&buffer->refs, 1, memory_order_relaxed);
    return buffer;
}
void buffer_release(Buffer *buffer); /* NULL ok */

/* ---- nodes ------------------------------------------------------------- */

typedef struct Node Node;

/* One kind of operation; always static const. */
typedef struct Op {
    const char *name;
    bool (*eval)(Node *node, Error *err); /* fills node's buffer and layout */
    /* The gradient rule: g has node's shape and dtype; for every input with
     * wanted[i], grads[i] (NULL on entry) becomes an owned node of that input's
     * shape and dtype, or stays NULL for zero. Built from op_ functions on
     * node->inputs and node itself (its value), so gradients have gradients.
     * False after reporting an error. NULL: a gradient cannot pass here. */
    bool (*vjp)(Node *node, Node *g, const bool *wanted, Node **grads);
} Op;

/* NODE_ABSORBED: queued, but computed piece by piece inside its only consumer. */
typedef enum { NODE_LAZY, NODE_QUEUED, NODE_ABSORBED, NODE_READY } NodeState;

struct Node {
    _Atomic uint32_t refs;
    uint8_t state; /* NodeState */
    uint8_t dtype; /* mlx_dtype */
    uint8_t ndim;
    bool contiguous; /* the items fill [offset, offset + data_size) without holes, in some order */
    bool row_contiguous; /* in row-major order (last axis fastest) */
    bool col_contiguous; /* in column-major order */
    bool fused;          /* evaluation: computes absorbed inputs too */
    uint16_t itemsize;   /* bytes */
    uint32_t n_inputs;
    uint32_t visited; /* a walk over the graph: inputs walked so far */
    uint32_t tape;    /* a transform: place in its order + 1; 0 outside */
    uint32_t param_bytes;
    uint8_t level;     /* depends on the tracers of that many nested transforms; 0: on none */
    uint64_t sequence; /* when it was made inside a transform, counted in its thread; else 0 */
    size_t size;       /* items by the shape */
    size_t data_size;  /* items spanned in the buffer; less than size when broadcast */
    size_t offset;     /* bytes into the buffer */
    Buffer *buffer;    /* NULL until ready */
    const Op *op;      /* NULL once ready, unless a transform still needs it */
    Node **inputs;
    const void *param; /* copy of what the op function gave; NULL without */
    Node *link;        /* evaluation order, release list, pool */
    int shape[NODE_DIMS];
    int64_t strides[NODE_DIMS]; /* in items, may be 0 or negative; row major until ready */
    Node *own_inputs[NODE_INPUTS];
    _Alignas(16) uint8_t own_param[NODE_PARAM_BYTES];
};

/* A list of inputs for node_new: NODES(a, b) is the array and its length. */
#define NODES(...) \
    (Node *const[]){__VA_ARGS__}, (int)(sizeof((Node *const[]){__VA_ARGS__}) / sizeof(Node *))

/* A lazy node with one reference; retains its inputs. NULL if an input is NULL
 * (silently) or the shape is too large, negative or of too many axes (reported). */
Node *node_new(const Op *op, mlx_dtype dtype, const int *shape, int ndim, Node *const *inputs,
               int n_inputs);
/* The same, with a copy of *param (plain data) that eval finds in node->param. */
Node *node_new_param(const Op *op, mlx_dtype dtype, const int *shape, int ndim, const void *param,
                     size_t param_bytes, Node *const *inputs, int n_inputs);
/* A ready, row-major node. Takes over the reference to buffer. */
Node *node_from_buffer(Buffer *buffer, size_t offset, mlx_dtype dtype, const int *shape, int ndim);
/* A ready node with a copy of data (or undefined contents when data is NULL). */
Node *node_from_data(const void *data, mlx_dtype dtype, const int *shape, int ndim);
/* A ready 0-d node of that dtype, the value cast to it (complex: imaginary 0).
 * Integers beyond 2^53 need node_from_data. */
Node *node_scalar(double value, mlx_dtype dtype);
/* One result of an operation with several: a view of `whole` (a node whose
 * buffer holds all results one after the other) from byte `offset` on, row
 * major. Give every part's offset a multiple of 64. The gradient rule of
 * `whole` is called once for all parts; its g is no array but a bundle that
 * node_part_cotangent opens. */
Node *node_part(Node *whole, size_t offset, mlx_dtype dtype, const int *shape, int ndim);
/* The cotangent of the part at that offset, borrowed; NULL when it is zero. */
Node *node_part_cotangent(const Node *g, size_t offset);
/* The rule of every operation that is a part: param starts with its size_t
 * offset, inputs[0] is the whole. The transforms know it and never call it. */
bool node_part_vjp(Node *node, Node *g, const bool *wanted, Node **grads);

static inline Node *node_retain(Node *node) { /* NULL ok */
    if (node) atomic_fetch_add_explicit(&node->refs, 1, memory_order_relaxed);
    return node;
}
void node_release_last(Node *node);
static inline void node_release(Node *node) { /* NULL ok; never recurses */
    if (node && atomic_fetch_sub_explicit(&node->refs, 1, memory_order_acq_rel) == 1)
        node_release_last(node);
}
static inline size_t node_nbytes(const Node *node) {
    return node->size * node->itemsize;
}
/* First item of a ready node. */
static inline void *node_data(const Node *node) {
    return node->buffer->data + node->offset;
}

/* node, not yet computed, takes over operation, inputs and parameters of a lazy
 * node of its shape and dtype that gives the same value. Releases other. */
void node_become(Node *node, Node *other);

/* Evaluates all of them and what they need. False after reporting the error. */
bool nodes_eval(Node *const *nodes, size_t count);
static inline bool node_eval(Node *node) {
    return node->state == NODE_READY || nodes_eval(&node, 1);
}

/* ---- inside an eval function ------------------------------------------- */

/* A new buffer for node, row major. */
bool node_alloc(Node *node, Error *err);
/* As node_alloc with room for extra bytes (padding, several results). */
bool node_alloc_bytes(Node *node, size_t bytes, Error *err);
/* Output in the layout of inputs[i] (same shape; contiguous in any order, also
 * a broadcast scalar: then data_size < size), so that an element-wise kernel
 * runs over data_size items linearly. Reuses the input's buffer when it is
 * donatable, so input and output may be the same memory. If inputs[i] is not
 * contiguous the output is row major and the caller walks strides:
 * test inputs[i]->contiguous. */
bool node_alloc_like(Node *node, int i, Error *err);
/* May the eval of node overwrite inputs[i]? Its node and its buffer have this
 * one owner and the buffer is writable and not much larger than needed. */
bool node_donatable(const Node *node, int i);
/* Takes over inputs[i]'s buffer with its layout if node_donatable, shapes and
 * item sizes are equal and the input is contiguous. Writes then go in place. */
bool node_donate(Node *node, int i);
/* The same of any ready node of which the work holds `uses` references. */
bool node_reusable(const Node *node, const Node *input, uint32_t uses);
/* Takes a share of from's buffer and its layout (same shape). */
void node_take(Node *node, const Node *from);
/* A new buffer in the layout of a ready, contiguous node of the same shape. */
bool node_alloc_as(Node *node, const Node *from, Error *err);
/* node becomes a view of `of` (normally node->inputs[0]): its shape is already
 * set; strides in items (NULL: of's strides, same shape), start in items
 * relative to of's first item, may be negative only with negative strides.
 * Sets the flags and data_size. */
void node_share(Node *node, const Node *of, const int64_t *strides, int64_t start);
/* Sets strides to row major and the flags to match. */
void node_set_row_major(Node *node);
/* Recomputes contiguous flags and data_size from shape and strides. */
void node_set_flags(Node *node);
/* Copies the items of a ready node in row-major order to out (node_nbytes bytes). */
void node_read(const Node *node, void *out);

/* ---- dtypes ------------------------------------------------------------ */

typedef struct DtypeInfo {
    const char *name; /* "float32" */
    uint8_t size;     /* bytes */
    char kind;        /* 'b' bool, 'u' unsigned, 'i' signed, 'f' real, 'c' complex */
} DtypeInfo;
extern const DtypeInfo dtype_info[DTYPE_COUNT];
static inline const char *dtype_name(mlx_dtype dtype) {
    return dtype_info[dtype].name;
}
static inline bool dtype_is_float(mlx_dtype dtype) { /* real or complex */
    return dtype_info[dtype].kind == 'f' || dtype_info[dtype].kind == 'c';
}
static inline bool dtype_is_signed(mlx_dtype dtype) { /* signed integer */
    return dtype_info[dtype].kind == 'i';
}
mlx_dtype dtype_promote(mlx_dtype a, mlx_dtype b);
/* Integers and bool become float32, floats stay. */
static inline mlx_dtype dtype_at_least_float(mlx_dtype dtype) {
    return dtype_is_float(dtype) ? dtype : MLX_FLOAT32;
}
bool dtype_valid(mlx_dtype dtype); /* is it one of the values of the enum */

/* ---- shapes ------------------------------------------------------------ */

/* Text of a shape for messages, "(2,3)". SHAPE(node) lives to the end of the
 * enclosing block. */
typedef struct ShapeText {
    char text[NODE_DIMS * 12 + 4];
} ShapeText;
const char *shape_text(ShapeText *buffer, const int *shape, int ndim);
#define SHAPE(node) shape_text(&(ShapeText){{0}}, (node)->shape, (node)->ndim)

/* Items; false when the product overflows what a buffer may hold, or a dimension is negative. */
bool shape_size(const int *shape, int ndim, size_t *size);
bool shape_equal(const Node *a, const Node *b);
/* *axis in [-ndim, ndim) becomes [0, ndim); otherwise reports and returns false. */
bool axis_fix(const char *op, int *axis, int ndim);
/* The same for a list, duplicates refused; out has room for NODE_DIMS. */
bool axes_fix(const char *op, const int *axes, size_t n, int ndim, int *out);
/* NumPy's trailing rule; out and *out_ndim hold the result. Reports on failure. */
bool shape_broadcast(const int *a, int a_ndim, const int *b, int b_ndim, int *out, int *out_ndim);
bool shape_broadcast_nodes(Node *const *nodes, size_t count, int *out, int *out_ndim);
/* Strides that read a ready node as if it had that larger shape (0 where repeated). */
void strides_broadcast(const Node *node, const int *shape, int ndim, int64_t *out);
void strides_row_major(const int *shape, int ndim, int64_t *out);

/* Walks up to WALK_OPERANDS arrays of one shape together. Axes that lie one after the
 * other in all operands are merged; the innermost merged axis is left to the
 * caller as `count` items with `step[k]`, so that
 *
 *     Walk walk;
 *     walk_init(&walk, node->shape, node->ndim, 3, (const int64_t *[]){node->strides, sa, sb});
 *     for (size_t row = 0; row < walk.rows; row++, walk_next(&walk))
 *         kernel(out + walk.at[0], a + walk.at[1], b + walk.at[2], walk.count, walk.step);
 *
 * visits every item once, in row-major order. Offsets and steps are in items.
 * A size of 0 gives rows == 0. */
enum { WALK_OPERANDS = 9 };
typedef struct Walk {
    size_t rows;   /* product of the outer axes */
    int64_t count; /* items of the innermost axis */
    int64_t step[WALK_OPERANDS];
    int64_t at[WALK_OPERANDS]; /* offset of the current row's first item */
    int operands, ndim;        /* ndim: outer axes */
    int64_t shape[NODE_DIMS], index[NODE_DIMS];
    int64_t strides[WALK_OPERANDS][NODE_DIMS];
} Walk;
void walk_init(Walk *walk, const int *shape, int ndim, int operands, const int64_t *const *strides);
void walk_next(Walk *walk);
void walk_seek(Walk *walk, size_t row); /* for a slice of rows in a parallel loop */

/* ---- the border to the public API -------------------------------------- */

/* Reports "text at file:line" to the handler and returns NULL. */
void *engine_error(const char *file, int line, const char *format, ...) BASE_PRINTF(3, 4);
#define op_error(...) engine_error(__FILE__, __LINE__, __VA_ARGS__)
/* Reports a failed Error. Always false. */
bool engine_report(const char *file, int line, const Error *err);
#define op_report(err) engine_report(__FILE__, __LINE__, err)

/* The node of a handle, borrowed; NULL after reporting for a null handle. */
Node *engine_node_of(const char *file, int line, mlx_array array);
#define node_of(array) engine_node_of(__FILE__, __LINE__, array)
/* The node of a handle that may be null; NULL when it is. */
Node *node_of_optional(mlx_array array);
bool engine_stream_ok(const char *file, int line, mlx_stream stream);
#define stream_ok(stream) engine_stream_ok(__FILE__, __LINE__, stream)
/* Stores the owned node in *res (a null or an existing handle) and returns 0;
 * returns 1 and leaves *res alone when node is NULL. */
int op_finish(mlx_array *res, Node *node);
/* The same for a vector result: takes over each reference; when any is NULL
 * releases the others and returns 1. */
int op_finish_vector(mlx_vector_array *res, Node *const *nodes, size_t count);
/* The nodes of a vector, borrowed while the vector lives; *count 0 is possible.
 * false after reporting for a null handle. */
bool engine_vector_nodes(const char *file, int line, mlx_vector_array vector, Node *const **nodes,
                         size_t *count);
#define vector_nodes(vector, nodes, count) \
    engine_vector_nodes(__FILE__, __LINE__, vector, nodes, count)
/* Stores text in *str, as op_finish does. */
int string_finish(mlx_string *str, const char *text);

#endif
