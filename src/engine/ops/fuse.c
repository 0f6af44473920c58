/* Fusion: a tree of element-wise operations runs as one pass over memory.
 *
 * When evaluation is ordered, an element-wise node absorbs the element-wise
 * inputs of its own shape that nothing outside the group refers to, and theirs
 * in turn; a running transform needs its values and keeps them. At evaluation the group is a small
 * program over tiles that stay in the first-level cache: a leaf is read where it lies (16-bit
 * floats are widened, strided items gathered), each step writes a register of one tile, the last
 * one the result. Every step is the family's own function and 16-bit floats are rounded after each,
 * so values, layout and the reuse of dying inputs are what step-by-step evaluation gives.
 *
 * A norm of a large result is computed with it: its rows are normalised while they are in the
 * cache. */
#include "engine/ops/elementwise.h"

#include "engine/core/internal.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_STEPS = 16,
    MAX_LEAVES = WALK_OPERANDS - 1,
    MAX_VALUES = MAX_STEPS + MAX_LEAVES,
    MAX_INPUTS = 3,
    TILE_BYTES = 4096,
    /* Arrays of more bytes: at most so many leaves that wait for the group in
     * memory of their own. */
    LARGE_BYTES = 1 << 16,
    MAX_LARGE = 4,
    /* Norms of arrays of more bytes are computed with them, so many at a time. */
    NORM_BYTES = 1 << 21,
    NORM_BLOCK = 1 << 13,
    LOOK_AHEAD = 8 /* nodes of the order in which a norm is sought */
};

static const struct {
    bool (*eval)(Node *node, Error *err);
    TileRun tile;
} families[] = {{binary_eval, binary_tile},
                {unary_eval, unary_tile},
                {astype_eval, astype_tile},
                {where_eval, where_tile}};

static TileRun tile_of(const Node *node) {
    for (size_t i = 0; i < BASE_COUNT(families); i++)
        if (node->op->eval == families[i].eval) return families[i].tile;
    return NULL;
}

/* ---- which nodes ---- */

enum { SWITCH_UNKNOWN, SWITCH_ON, SWITCH_OFF };
static _Atomic int fuse_switch;

static bool fuse_is_on(void) {
    int state = atomic_load_explicit(&fuse_switch, memory_order_relaxed);
    if (state == SWITCH_UNKNOWN) {
        state = getenv("MLX_RAG_NO_FUSE") ? SWITCH_OFF : SWITCH_ON;
        atomic_store_explicit(&fuse_switch, state, memory_order_relaxed);
    }
    return state == SWITCH_ON;
}

bool fuse_set(bool on) {
    const bool before = fuse_is_on();
    atomic_store_explicit(&fuse_switch, on ? SWITCH_ON : SWITCH_OFF, memory_order_relaxed);
    return before;
}

/* A group as it grows: its members, and the inputs seen with the references
 * that members hold. */
typedef struct Group {
    Node *members[MAX_STEPS];
    struct {
        Node *node;
        uint32_t uses;
    } seen[MAX_STEPS * MAX_INPUTS];
    int n_members, n_seen;
    int leaves, large; /* upper bounds, inputs of members not yet walked included */
} Group;

static bool may_absorb(const Node *root, const Node *x) {
    return x->state == NODE_QUEUED && shape_equal(x, root) && tile_of(x) && !node_traced(x);
}

static int large_inputs(const Node *root, const Node *x) {
    int count = 0;
    if (root->size * 4 < LARGE_BYTES) return 0;
    for (uint32_t i = 0; i < x->n_inputs; i++)
        count += x->inputs[i]->state == NODE_QUEUED && x->inputs[i]->size == root->size;
    return count;
}

/* One more reference from a member to x; absorbs x when it is the last. */
static void group_meet(Group *group, Node *root, Node *x) {
    int at = 0;
    while (at < group->n_seen && group->seen[at].node != x) at++;
    if (at == group->n_seen) {
        group->seen[group->n_seen++].node = x;
        group->seen[at].uses = 0;
    } else {
        group->leaves--; /* it was counted before */
    }
    if (++group->seen[at].uses != atomic_load_explicit(&x->refs, memory_order_relaxed) ||
        !may_absorb(root, x))
        return;
    const int leaves = group->leaves + (int)x->n_inputs - 1;
    const int large = group->large + large_inputs(root, x) - 1;
    if (group->n_members == MAX_STEPS || leaves > MAX_LEAVES || large > MAX_LARGE) return;
    group->leaves = leaves;
    group->large = BASE_MAX(large, 0);
    x->state = NODE_ABSORBED;
    x->visited = 0;
    group->members[group->n_members++] = x;
}

/* What a norm reads is made by fuse_eval, which finds the norm and does both. */
static void meet_norm(const Node *norm) {
    Node *x = norm->inputs[0];
    if (x->state == NODE_QUEUED && x->size * x->itemsize > NORM_BYTES && tile_of(x) && fuse_is_on())
        x->fused = true;
}

void fuse_absorb(Node *node) {
    if (norm_wants(node)) meet_norm(node);
    if (!tile_of(node) || node_traced(node)) return;
    uint32_t candidates = 0;
    for (uint32_t i = 0; i < node->n_inputs; i++) candidates += may_absorb(node, node->inputs[i]);
    if (!candidates || !fuse_is_on()) return;
    Group group;
    group.members[0] = node;
    group.n_members = 1;
    group.n_seen = 0;
    group.leaves = (int)node->n_inputs;
    group.large = large_inputs(node, node);
    for (int i = 0; i < group.n_members; i++)
        for (uint32_t k = 0; k < group.members[i]->n_inputs; k++)
            group_meet(&group, node, group.members[i]->inputs[k]);
    node->fused |= group.n_members > 1;
}

void fuse_undo(Node *node) {
    node->fused = false;
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        Node *input = node->inputs[i];
        if (input->state != NODE_ABSORBED) continue;
        input->state = NODE_LAZY;
        fuse_undo(input);
    }
}

/* ---- the program ---- */

typedef struct Value {
    const Node *node;
    TileRun run;   /* NULL: a leaf */
    uint32_t uses; /* a leaf's references from the group */
    int64_t step;  /* items from one to the next along the inner axis; results: 0 or 1 */
    uint8_t inputs[MAX_INPUTS], last_use;
    uint8_t leaf;         /* number among the leaves */
    uint8_t size;         /* bytes of an item in a tile */
    int8_t place;         /* register; -1: in no register */
    bool is_half, single; /* one value throughout */
    CpuType type;         /* of a 16-bit float */
} Value;

typedef struct Program {
    Value values[MAX_VALUES];
    int count, leaves, steps, registers;
    bool selects, pairs; /* has a choice, a function of two arrays */
    size_t tile;         /* items */
    Node *node;
    uint8_t *out;
    const uint8_t *data[MAX_LEAVES];
    int64_t stride[MAX_LEAVES]; /* bytes from an item to the next along the inner axis */
    bool walks;                 /* result and leaves do not share a layout */
    Walk walk;
    NormRows norm;
} Program;

static int value_add(Program *program, const Node *node) {
    Value *value = &program->values[program->count];
    const mlx_dtype dtype = node->dtype;
    *value = (Value){.node = node, .size = dtype_info[tile_dtype(dtype)].size, .place = -1};
    value->is_half = ops_is_half(dtype);
    ops_cpu_type(dtype, &value->type);
    return program->count++;
}

static int leaf_value(Program *program, const Node *node) {
    for (int i = 0; i < program->count; i++) {
        if (program->values[i].node != node) continue;
        program->values[i].uses++;
        return i;
    }
    const int at = value_add(program, node);
    program->values[at].uses = 1;
    program->values[at].single = node->data_size == 1;
    program->values[at].leaf = (uint8_t)program->leaves++;
    return at;
}

/* Appends node's value behind those of its inputs. An absorbed node remembers
 * its value in `visited`. */
static int step_value(Program *program, Node *node) {
    uint8_t inputs[MAX_INPUTS];
    for (uint32_t i = 0; i < node->n_inputs; i++) {
        Node *input = node->inputs[i];
        if (input->state != NODE_ABSORBED)
            inputs[i] = (uint8_t)leaf_value(program, input);
        else
            inputs[i] =
                (uint8_t)(input->visited ? (int)input->visited - 1 : step_value(program, input));
    }
    const int at = value_add(program, node);
    Value *value = &program->values[at];
    value->run = tile_of(node);
    memcpy(value->inputs, inputs, sizeof inputs);
    program->selects |= value->run == where_tile;
    int several = 0;
    for (uint32_t i = 0; i < node->n_inputs; i++) several += !program->values[inputs[i]].single;
    value->single = several == 0;
    program->pairs |= several > 1;
    program->steps++;
    node->visited = (uint32_t)at + 1;
    return at;
}

/* Values that need memory of their own get registers, reused after the last use. */
static void assign_registers(Program *program) {
    Value *values = program->values;
    uint32_t used = 0;
    for (int i = 0; i < program->count; i++)
        for (uint32_t k = 0; values[i].run && k < values[i].node->n_inputs; k++)
            values[values[i].inputs[k]].last_use = (uint8_t)i;
    for (int i = 0; i < program->count; i++) {
        Value *value = &values[i];
        const bool last = i == program->count - 1;
        const bool needs = value->step == 0 ? false
                           : value->run     ? !last || value->is_half
                                            : value->is_half || value->step != 1;
        uint32_t freed = 0;
        for (uint32_t k = 0; value->run && k < value->node->n_inputs; k++) {
            const Value *input = &values[value->inputs[k]];
            if (input->place < 0 || input->last_use != i) continue;
            if (needs && value->place < 0 && input->size == value->size)
                value->place = input->place;
            else if (input->place != value->place)
                freed |= 1u << input->place;
        }
        if (needs && value->place < 0) {
            value->place = (int8_t)__builtin_ctz(~used);
            used |= 1u << value->place;
            program->registers = BASE_MAX(program->registers, value->place + 1);
        }
        used &= ~freed;
    }
}

/* The layout in which result and leaves are walked as one line: that of all
 * leaves with more than one value; NULL when there is none. */
static const Node *common_layout(const Program *program) {
    const Node *node = program->node, *like = NULL, *single = NULL;
    for (int i = 0; i < program->count; i++) {
        const Node *leaf = program->values[i].node;
        if (program->values[i].run) continue;
        const bool full = shape_equal(leaf, node);
        if (leaf->data_size == 1) {
            if (full && leaf->contiguous) single = leaf;
            continue;
        }
        if (!full || !leaf->contiguous) return NULL;
        if (like && !(like->row_contiguous && leaf->row_contiguous) &&
            !(like->col_contiguous && leaf->col_contiguous))
            return NULL;
        like = leaf;
    }
    if (!like) like = single;
    /* A choice is written row by row, and a function of two arrays when they lie in
     * neither order. */
    if (!like || like->row_contiguous) return like;
    return program->selects || (program->pairs && !like->col_contiguous) ? NULL : like;
}

/* A leaf that dies here and lies as the result will. */
static const Node *dying_leaf(const Program *program, const Node *like) {
    const Node *node = program->node;
    for (int i = 0; i < program->count; i++) {
        const Value *value = &program->values[i];
        const Node *leaf = value->node;
        if (value->run || leaf->itemsize != node->itemsize || !shape_equal(leaf, node) ||
            !leaf->contiguous ||
            (like ? leaf->data_size != like->data_size : !leaf->row_contiguous))
            continue;
        if (node_reusable(node, leaf, value->uses)) return leaf;
    }
    return NULL;
}

/* ---- running ---- */

typedef union Single {
    float f32;
    uint64_t bits;
} Single;

typedef struct Register {
    _Alignas(64) uint8_t bytes[TILE_BYTES];
} Register;

/* A leaf's tile, where it lies or in its register; a single one is widened only. */
static const void *leaf_tile(const Value *value, const uint8_t *in, Register *registers,
                             Single *single, size_t n) {
    if (value->step == 0) {
        if (!value->is_half) return in;
        cpu_widen_tile(&single->f32, value->type, in, 1);
        return single;
    }
    if (value->step == 1 && !value->is_half) return in;
    void *out = registers[value->place].bytes;
    if (!value->is_half) {
        copy_gather(out, in, value->step, n, value->size);
    } else if (value->step == 1) {
        cpu_widen_tile(out, value->type, in, n);
    } else {
        uint16_t gathered[TILE_BYTES / sizeof(float)];
        copy_gather(gathered, in, value->step, n, sizeof gathered[0]);
        cpu_widen_tile(out, value->type, gathered, n);
    }
    return out;
}

/* n <= program->tile items of the result. */
static void run_tile(const Program *program, Register *registers, uint8_t *out,
                     const uint8_t *const *leaves, size_t n) {
    const void *at[MAX_VALUES];
    Single singles[MAX_VALUES];
    const int last = program->count - 1;
    for (int i = 0; i <= last; i++) {
        const Value *value = &program->values[i];
        if (!value->run) {
            at[i] = leaf_tile(value, leaves[value->leaf], registers, &singles[i], n);
            continue;
        }
        const void *in[MAX_INPUTS];
        int step[MAX_INPUTS];
        for (uint32_t k = 0; k < value->node->n_inputs; k++) {
            in[k] = at[value->inputs[k]];
            step[k] = program->values[value->inputs[k]].step != 0;
        }
        const size_t count = value->step ? n : 1;
        void *target = value->step == 0    ? (void *)&singles[i]
                       : value->place >= 0 ? (void *)registers[value->place].bytes
                                           : (void *)out;
        value->run(value->node, target, in, step, count);
        if (value->is_half && i != last && value->run != where_tile)
            cpu_round_tile(value->type, target, count);
        at[i] = target;
    }
    const Value *result = &program->values[last];
    if (result->step == 0) {
        Single item;
        const void *source = at[last];
        if (result->is_half) {
            cpu_narrow_tile(&item, result->type, source, 1);
            source = &item;
        }
        copy_gather(out, source, 0, n, result->node->itemsize);
    } else if (result->is_half) {
        cpu_narrow_tile(out, result->type, at[last], n);
    }
}

/* Items [begin, end) of the line. */
static void run_line(const Program *program, Register *registers, size_t begin, size_t end) {
    const uint8_t *leaves[MAX_LEAVES];
    for (size_t i = begin; i < end; i += program->tile) {
        for (int k = 0; k < program->leaves; k++)
            leaves[k] = program->data[k] + (int64_t)i * program->stride[k];
        run_tile(program, registers, program->out + i * program->node->itemsize, leaves,
                 BASE_MIN(program->tile, end - i));
    }
}

/* Items [begin, end) in row-major order. */
static void run_walk(const Program *program, Register *registers, size_t begin, size_t end) {
    const uint8_t *leaves[MAX_LEAVES];
    Walk walk = program->walk;
    const size_t length = (size_t)walk.count;
    size_t first = begin % length;
    if (begin >= length) walk_seek(&walk, begin / length);
    for (size_t n; begin < end; begin += n) {
        n = BASE_MIN(BASE_MIN(program->tile, length - first), end - begin);
        for (int i = 0; i < program->count; i++) {
            const Value *value = &program->values[i];
            if (value->run) continue;
            const int k = value->leaf;
            leaves[k] = program->data[k] + walk.at[1 + k] * value->node->itemsize +
                        (int64_t)first * program->stride[k];
        }
        run_tile(program, registers,
                 program->out + ((size_t)walk.at[0] + first) * program->node->itemsize, leaves, n);
        first += n;
        if (first < length) continue;
        first = 0;
        walk_next(&walk);
    }
}

static void run_items(void *context, size_t begin, size_t end, int thread) {
    const Program *program = context;
    Register registers[MAX_VALUES];
    (void)thread;
    (program->walks ? run_walk : run_line)(program, registers, begin, end);
}

/* Units are rows of the norm. */
static void run_norm(void *context, size_t begin, size_t end, int thread) {
    const Program *program = context;
    const CpuNorm *norm = &program->norm.job;
    const size_t n = norm->rows.n;
    const size_t block = BASE_MAX((size_t)1, NORM_BLOCK / (n * program->node->itemsize));
    for (size_t row = begin; row < end; row += block) {
        const size_t next = BASE_MIN(row + block, end);
        run_items(context, row * n, next * n, thread);
        cpu_norm_rows(norm, row, next);
    }
}

/* Everything is laid out; the norm that reads the result comes along. */
static bool run(Program *program, Error *err) {
    Node *node = program->node;
    NormRows *norm = &program->norm;
    int left = node->row_contiguous && node->size * node->itemsize > NORM_BYTES ? LOOK_AHEAD : 0;
    for (Node *next = node->link; next && left-- > 0 && !norm->found; next = next->link)
        if (norm_wants(next) && next->inputs[0] == node && !norm_begin(norm, next, err))
            return false;
    const size_t steps = (size_t)program->steps;
    if (norm->found) {
        ops_parallel(norm->job.rows.rows, node->size * (steps + 2), run_norm, program);
        cpu_norm_end(&norm->job);
    } else {
        ops_parallel(node->data_size, node->data_size * steps, run_items, program);
    }
    return true;
}

/* Fixes what depends on the steps of the leaves. */
static void program_finish(Program *program) {
    size_t widest = 1;
    for (int i = 0; i < program->count; i++) {
        Value *value = &program->values[i];
        for (uint32_t k = 0; value->run && k < value->node->n_inputs; k++)
            if (program->values[value->inputs[k]].step) value->step = 1;
        if (!value->run) program->stride[value->leaf] = value->step * value->node->itemsize;
        widest = BASE_MAX(widest, value->size);
    }
    assign_registers(program);
    program->tile =
        program->registers ? TILE_BYTES / BASE_MAX(widest, sizeof(float)) : program->node->size;
}

static bool lay_common(Program *program, const Node *like, Error *err) {
    Node *node = program->node;
    const Node *donor = dying_leaf(program, like);
    if (donor)
        node_take(node, donor);
    else if (!node_alloc_as(node, like, err))
        return false;
    for (int i = 0; i < program->count; i++)
        program->values[i].step = !program->values[i].run && program->values[i].node->data_size > 1;
    program_finish(program);
    program->out = node_data(node);
    return true;
}

static bool lay_walk(Program *program, Error *err) {
    Node *node = program->node;
    const Node *donor = dying_leaf(program, NULL);
    if (donor)
        node_take(node, donor);
    else if (!node_alloc(node, err))
        return false;
    int64_t strides[MAX_LEAVES][NODE_DIMS];
    const int64_t *operands[WALK_OPERANDS] = {node->strides};
    for (int i = 0; i < program->count; i++) {
        const Value *value = &program->values[i];
        if (value->run) continue;
        strides_broadcast(value->node, node->shape, node->ndim, strides[value->leaf]);
        operands[1 + value->leaf] = strides[value->leaf];
    }
    const Walk *walk = &program->walk;
    walk_init(&program->walk, node->shape, node->ndim, 1 + program->leaves, operands);
    for (int i = 0; i < program->count; i++) {
        Value *value = &program->values[i];
        value->step = value->run ? 0 : walk->step[1 + value->leaf];
    }
    program_finish(program);
    program->out = node_data(node);
    program->walks = true;
    return true;
}

bool fuse_eval(Node *node, Error *err) {
    if (node->size == 0) return node_alloc(node, err);
    Program program;
    program.count = program.leaves = program.steps = program.registers = 0;
    program.selects = program.pairs = program.walks = program.norm.found = false;
    program.node = node;
    step_value(&program, node);
    for (int i = 0; i < program.count; i++)
        if (!program.values[i].run)
            program.data[program.values[i].leaf] = node_data(program.values[i].node);
    const Node *like = common_layout(&program);
    return (like ? lay_common(&program, like, err) : lay_walk(&program, err)) && run(&program, err);
}
