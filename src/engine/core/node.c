/* Nodes: making, sharing, releasing them, and giving them memory. */
#include "engine/core/internal.h"
#include "engine/core/pool.h"
#include "engine/cpu/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

_Thread_local uint8_t trace_depth;
static _Thread_local uint64_t nodes_traced;

enum { DONATION_SLACK = 16384 }; /* bytes a reused buffer may be too large */

/* ---- making ---- */

/* Fields common to lazy and ready nodes; strides are row major. */
static Node *node_make(mlx_dtype dtype, const int *shape, int ndim) {
    size_t size;
    if (!dtype_valid(dtype)) return op_error("%d is not a dtype.", (int)dtype);
    if (ndim < 0 || ndim > NODE_DIMS)
        return op_error("An array of %d dimensions was asked for; at most %d are supported.", ndim,
                        (int)NODE_DIMS);
    if (!shape_size(shape, ndim, &size))
        return op_error("Invalid shape %s: a dimension is negative or the array is too large.",
                        shape_text(&(ShapeText){{0}}, shape, ndim));
    Node *node = pool_take(POOL_NODE);
    atomic_store_explicit(&node->refs, 1, memory_order_relaxed);
    node->state = NODE_LAZY;
    node->fused = false;
    node->dtype = (uint8_t)dtype;
    node->ndim = (uint8_t)ndim;
    node->itemsize = dtype_info[dtype].size;
    node->n_inputs = 0;
    node->visited = 0;
    node->tape = 0;
    node->level = 0;
    node->sequence = 0;
    node->size = size;
    node->offset = 0;
    node->buffer = NULL;
    node->op = NULL;
    node->inputs = node->own_inputs;
    node->param = NULL;
    node->param_bytes = 0;
    node->link = NULL;
    if (ndim) memcpy(node->shape, shape, (size_t)ndim * sizeof(int));
    node_set_row_major(node);
    return node;
}

Node *node_new_param(const Op *op, mlx_dtype dtype, const int *shape, int ndim, const void *param,
                     size_t param_bytes, Node *const *inputs, int n_inputs) {
    for (int i = 0; i < n_inputs; i++)
        if (!inputs[i]) return NULL;
    Node *node = node_make(dtype, shape, ndim);
    if (!node) return NULL;
    node->op = op;
    if (n_inputs > NODE_INPUTS) node->inputs = base_alloc((size_t)n_inputs * sizeof(Node *));
    node->n_inputs = (uint32_t)n_inputs;
    for (int i = 0; i < n_inputs; i++) {
        node->inputs[i] = node_retain(inputs[i]);
        if (inputs[i]->level > node->level) node->level = inputs[i]->level;
    }
    if (node->level) node->sequence = ++nodes_traced;
    if (param_bytes) {
        void *copy = param_bytes <= NODE_PARAM_BYTES ? node->own_param : base_alloc(param_bytes);
        memcpy(copy, param, param_bytes);
        node->param = copy;
        node->param_bytes = (uint32_t)param_bytes;
    }
    return node;
}

Node *node_new(const Op *op, mlx_dtype dtype, const int *shape, int ndim, Node *const *inputs,
               int n_inputs) {
    return node_new_param(op, dtype, shape, ndim, NULL, 0, inputs, n_inputs);
}

Node *node_from_buffer(Buffer *buffer, size_t offset, mlx_dtype dtype, const int *shape, int ndim) {
    Node *node = node_make(dtype, shape, ndim);
    if (!node) {
        buffer_release(buffer);
        return NULL;
    }
    node->buffer = buffer;
    node->offset = offset;
    node->state = NODE_READY;
    return node;
}

Node *node_from_data(const void *data, mlx_dtype dtype, const int *shape, int ndim) {
    Error err = {0};
    Node *node = node_make(dtype, shape, ndim);
    if (!node) return NULL;
    node->buffer = buffer_new(node_nbytes(node), &err);
    if (!node->buffer) {
        op_report(&err);
        node_release(node);
        return NULL;
    }
    if (data && node->size) memcpy(node->buffer->data, data, node_nbytes(node));
    node->state = NODE_READY;
    return node;
}

Node *node_scalar(double value, mlx_dtype dtype) {
    union {
        uint8_t u8;
        uint16_t u16;
        uint32_t u32;
        uint64_t u64;
        float f32[2];
        double f64;
    } item = {0};
    if (!dtype_valid(dtype)) return op_error("%d is not a dtype.", (int)dtype);
    /* Integers through the widest type first: a direct cast of a value out of
     * range is undefined. */
    const int64_t whole = !(value == value)  ? 0
                          : value >= 9.2e18  ? INT64_MAX
                          : value <= -9.2e18 ? INT64_MIN
                                             : (int64_t)value;
    switch (dtype) {
    case MLX_BOOL: item.u8 = value != 0; break;
    case MLX_UINT8:
    case MLX_INT8: item.u8 = (uint8_t)whole; break;
    case MLX_UINT16:
    case MLX_INT16: item.u16 = (uint16_t)whole; break;
    case MLX_UINT32:
    case MLX_INT32: item.u32 = (uint32_t)whole; break;
    case MLX_UINT64:
        item.u64 =
            value >= 9.2e18 && value < 18446744073709551616.0 ? (uint64_t)value : (uint64_t)whole;
        break;
    case MLX_INT64: item.u64 = (uint64_t)whole; break;
    case MLX_FLOAT16: item.u16 = cpu_f16_from_f32((float)value); break;
    case MLX_BFLOAT16: item.u16 = cpu_bf16_from_f32((float)value); break;
    case MLX_FLOAT32:
    case MLX_COMPLEX64: item.f32[0] = (float)value; break;
    case MLX_FLOAT64: item.f64 = value; break;
    }
    return node_from_data(&item, dtype, NULL, 0);
}

static bool part_eval(Node *node, Error *err) {
    (void)err;
    const Node *whole = node->inputs[0];
    const size_t *offset = node->param;
    node->buffer = buffer_retain(whole->buffer);
    node->offset = whole->offset + *offset;
    return true;
}
static const Op part_op = {"part", part_eval, node_part_vjp};

Node *node_part(Node *whole, size_t offset, mlx_dtype dtype, const int *shape, int ndim) {
    return node_new_param(&part_op, dtype, shape, ndim, &offset, sizeof offset, NODES(whole));
}

bool node_part_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    (void)g, (void)wanted, (void)grads;
    op_error("[vjp] The part %s was differentiated without its whole.", node->op->name);
    return false;
}

Node *node_part_cotangent(const Node *g, size_t offset) {
    const size_t *offsets = g->param;
    for (uint32_t i = 0; i < g->n_inputs; i++)
        if (offsets[i] == offset) return g->inputs[i];
    return NULL;
}

/* ---- releasing ---- */

/* Frees what a node holds for its operation. Inputs whose last reference goes
 * are chained to *dead by link, so that deep graphs need no recursion. */
static void node_forget(Node *node, Node **dead) {
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        Node *input = node->inputs[i];
        if (atomic_fetch_sub_explicit(&input->refs, 1, memory_order_acq_rel) == 1) {
            input->link = *dead;
            *dead = input;
        }
    }
    if (node->inputs != node->own_inputs) free(node->inputs);
    if (node->param && node->param != node->own_param) free((void *)(uintptr_t)node->param);
    node->inputs = node->own_inputs;
    node->n_inputs = 0;
    node->param = NULL;
    node->op = NULL;
}

static void nodes_free(Node *dead) {
    while (dead) {
        Node *node = dead;
        dead = node->link;
        node_forget(node, &dead);
        buffer_release(node->buffer);
        pool_give(POOL_NODE, node);
    }
}

void node_release_last(Node *node) {
    node->link = NULL;
    nodes_free(node);
}

void node_become(Node *node, Node *other) {
    Node *dead = NULL;
    node_forget(node, &dead);
    node->op = other->op;
    if (other->n_inputs > NODE_INPUTS) node->inputs = base_alloc(other->n_inputs * sizeof(Node *));
    node->n_inputs = other->n_inputs;
    for (uint32_t i = 0; i < other->n_inputs; i++) node->inputs[i] = node_retain(other->inputs[i]);
    if (other->param) {
        void *copy = other->param_bytes <= NODE_PARAM_BYTES ? node->own_param
                                                            : base_alloc(other->param_bytes);
        memcpy(copy, other->param, other->param_bytes);
        node->param = copy;
    }
    node->param_bytes = other->param_bytes;
    nodes_free(dead);
    node_release(other);
}

void node_detach(Node *node) {
    Node *dead = NULL;
    node_forget(node, &dead);
    nodes_free(dead);
}

/* ---- layout ---- */

void node_set_row_major(Node *node) {
    int64_t step = 1;
    int wide = 0; /* axes of more than one item */
    for (int i = node->ndim - 1; i >= 0; i--) {
        node->strides[i] = step;
        step *= node->shape[i];
        wide += node->shape[i] != 1;
    }
    node->data_size = node->size;
    node->contiguous = node->row_contiguous = true;
    node->col_contiguous = wide <= 1 || node->size == 0;
}

void node_set_flags(Node *node) {
    node->contiguous = node->row_contiguous = node->col_contiguous = true;
    node->data_size = node->size;
    if (node->size <= 1) return;

    int64_t row_step = 1, col_step = 1, span = 1;
    bool row = true, col = true, negative = false;
    size_t distinct = 1; /* items, broadcast axes counted once */
    for (int i = node->ndim - 1; i >= 0; i--) {
        if (node->shape[i] == 1) continue;
        row &= node->strides[i] == row_step;
        row_step *= node->shape[i];
        negative |= node->strides[i] < 0;
        span += (node->shape[i] - 1) * llabs(node->strides[i]);
        if (node->strides[i]) distinct *= (size_t)node->shape[i];
    }
    for (int i = 0; i < node->ndim; i++) {
        if (node->shape[i] == 1) continue;
        col &= node->strides[i] == col_step;
        col_step *= node->shape[i];
    }
    node->row_contiguous = row;
    node->col_contiguous = col;
    node->data_size = (size_t)span;
    /* As many places as items, none visited twice: then they fill the span.
     * Visited twice is impossible when each stride passes the extent of the
     * smaller ones, which is checked by taking the axes in stride order. */
    node->contiguous = !negative && (size_t)span == distinct;
    if (!node->contiguous || row || col) return;
    int64_t extent = 1;
    for (size_t covered = 1; covered < distinct;) {
        int next = -1;
        for (int i = 0; i < node->ndim; i++)
            if (node->shape[i] > 1 && node->strides[i] == extent) next = i;
        if (next < 0) {
            node->contiguous = false;
            return;
        }
        extent *= node->shape[next];
        covered *= (size_t)node->shape[next];
    }
}

/* ---- memory for an eval function ---- */

bool node_alloc_bytes(Node *node, size_t bytes, Error *err) {
    node->buffer = buffer_new(bytes, err);
    return node->buffer != NULL;
}

bool node_alloc(Node *node, Error *err) {
    return node_alloc_bytes(node, node_nbytes(node), err);
}

bool node_reusable(const Node *node, const Node *input, uint32_t uses) {
    if (node_traced(node)) return false; /* its gradient may need the value */
    return atomic_load_explicit(&input->refs, memory_order_acquire) == uses &&
           atomic_load_explicit(&input->buffer->refs, memory_order_acquire) == 1 &&
           !input->buffer->foreign && input->buffer->capacity <= node_nbytes(node) + DONATION_SLACK;
}

bool node_donatable(const Node *node, int i) {
    return node_reusable(node, node->inputs[i], 1);
}

static void take_layout(Node *node, const Node *from) {
    memcpy(node->strides, from->strides, node->ndim * sizeof(int64_t));
    node->data_size = from->data_size;
    node->contiguous = from->contiguous;
    node->row_contiguous = from->row_contiguous;
    node->col_contiguous = from->col_contiguous;
}

void node_take(Node *node, const Node *from) {
    node->buffer = buffer_retain(from->buffer);
    node->offset = from->offset;
    take_layout(node, from);
}

bool node_alloc_as(Node *node, const Node *from, Error *err) {
    if (!node_alloc_bytes(node, from->data_size * node->itemsize, err)) return false;
    take_layout(node, from);
    return true;
}

bool node_alloc_like(Node *node, int i, Error *err) {
    const Node *input = node->inputs[i];
    if (!input->contiguous) return node_alloc(node, err);
    if (input->itemsize == node->itemsize && node_donatable(node, i)) {
        node_take(node, input);
        return true;
    }
    return node_alloc_as(node, input, err);
}

bool node_donate(Node *node, int i) {
    const Node *input = node->inputs[i];
    if (!input->contiguous || input->data_size != node->size || input->itemsize != node->itemsize ||
        !shape_equal(node, input) || !node_donatable(node, i))
        return false;
    node_take(node, input);
    return true;
}

void node_share(Node *node, const Node *of, const int64_t *strides, int64_t start) {
    if (!strides) strides = of->strides;
    memmove(node->strides, strides, node->ndim * sizeof(int64_t));
    node->buffer = buffer_retain(of->buffer);
    node->offset = (size_t)((int64_t)of->offset + start * of->itemsize);
    node_set_flags(node);
}

/* ---- reading ---- */

static void read_row(uint8_t *out, const uint8_t *in, int64_t step, int64_t count,
                     size_t itemsize) {
    if (step == 1) {
        memcpy(out, in, (size_t)count * itemsize);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        memcpy(out + (size_t)i * itemsize, in + i * step * (int64_t)itemsize, itemsize);
}

void node_read(const Node *node, void *out) {
    if (!node->size) return;
    const uint8_t *data = node_data(node);
    const int64_t itemsize = node->itemsize;
    uint8_t *next = out;
    Walk walk;
    walk_init(&walk, node->shape, node->ndim, 1, (const int64_t *[]){node->strides});
    for (size_t row = 0; row < walk.rows; row++, walk_next(&walk)) {
        read_row(next, data + walk.at[0] * itemsize, walk.step[0], walk.count, node->itemsize);
        next += walk.count * itemsize;
    }
}
