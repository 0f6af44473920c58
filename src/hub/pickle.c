/* A pickle reader that builds tensors and nothing else: protocols 2 to 5, the
 * opcodes that torch.save writes, and a table of the names it may mention. No
 * value is ever copied, so what a pickle can make grows with its own bytes. */
#include "hub/torch.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { MEMO_LIMIT = 1 << 24 };

/* ---- the names that a pickle may mention ---------------------------------------- */

typedef enum {
    ORDERED_DICT,
    TENSOR_V1,
    TENSOR_V2,
    TENSOR_V3,
    PARAMETER,
    STORAGE,
    DTYPE
} GlobalKind;

struct PickleGlobal {
    const char *module, *name;
    GlobalKind kind;
    mlx_dtype dtype;
    size_t width;
};

static const PickleGlobal globals[] = {
    {"collections", "OrderedDict", ORDERED_DICT, 0, 0},
    {"torch._utils", "_rebuild_tensor", TENSOR_V1, 0, 0},
    {"torch._utils", "_rebuild_tensor_v2", TENSOR_V2, 0, 0},
    {"torch._utils", "_rebuild_tensor_v3", TENSOR_V3, 0, 0},
    {"torch._utils", "_rebuild_parameter", PARAMETER, 0, 0},
    {"torch", "DoubleStorage", STORAGE, MLX_FLOAT64, 8},
    {"torch", "FloatStorage", STORAGE, MLX_FLOAT32, 4},
    {"torch", "HalfStorage", STORAGE, MLX_FLOAT16, 2},
    {"torch", "BFloat16Storage", STORAGE, MLX_BFLOAT16, 2},
    {"torch", "LongStorage", STORAGE, MLX_INT64, 8},
    {"torch", "IntStorage", STORAGE, MLX_INT32, 4},
    {"torch", "ShortStorage", STORAGE, MLX_INT16, 2},
    {"torch", "CharStorage", STORAGE, MLX_INT8, 1},
    {"torch", "ByteStorage", STORAGE, MLX_UINT8, 1},
    {"torch", "BoolStorage", STORAGE, MLX_BOOL, 1},
    {"torch", "ComplexFloatStorage", STORAGE, MLX_COMPLEX64, 8},
    {"torch.storage", "UntypedStorage", STORAGE, MLX_BOOL, 0},
    {"torch", "uint16", DTYPE, MLX_UINT16, 2},
    {"torch", "uint32", DTYPE, MLX_UINT32, 4},
    {"torch", "uint64", DTYPE, MLX_UINT64, 8},
    {"torch", "float8_e4m3fn", DTYPE, MLX_UINT8, 1},
    {"torch", "float8_e5m2", DTYPE, MLX_UINT8, 1},
    {"torch", "float8_e8m0fnu", DTYPE, MLX_UINT8, 1},
};

/* ---- the machine ------------------------------------------------------------------- */

typedef struct Machine {
    const uint8_t *start, *at, *end;
    Arena *arena;
    Error *err;
    PickleValue **stack, **memo;
    size_t depth, stack_capacity, memo_count, memo_capacity;
    size_t *marks;
    size_t mark_count, mark_capacity;
} Machine;

static bool damaged(Machine *machine, const char *what) {
    return base_fail(machine->err, ERROR_INPUT, "the pickle is damaged at byte %zu: %s",
                     (size_t)(machine->at - machine->start), what);
}

static PickleValue *new_value(Machine *machine, PickleKind kind) {
    PickleValue *value = base_arena_alloc(machine->arena, sizeof *value);
    memset(value, 0, sizeof *value);
    value->kind = kind;
    return value;
}

static bool push(Machine *machine, PickleValue *value) {
    machine->stack = base_grow(machine->stack, &machine->stack_capacity, machine->depth + 1,
                               sizeof *machine->stack);
    machine->stack[machine->depth++] = value;
    return true;
}

/* What the last mark guards from being popped. */
static size_t floor_of(const Machine *machine) {
    return machine->mark_count ? machine->marks[machine->mark_count - 1] : 0;
}

static PickleValue *pop(Machine *machine) {
    if (machine->depth > floor_of(machine)) return machine->stack[--machine->depth];
    damaged(machine, "its stack is empty");
    return NULL;
}

static PickleValue *top(Machine *machine) {
    if (machine->depth > floor_of(machine)) return machine->stack[machine->depth - 1];
    damaged(machine, "its stack is empty");
    return NULL;
}

/* The values above the last mark, which goes away; they stay valid until the next
 * push. */
static bool pop_mark(Machine *machine, PickleValue ***items, size_t *count) {
    *items = NULL;
    *count = 0;
    if (machine->mark_count == 0) return damaged(machine, "a mark is missing");
    const size_t mark = machine->marks[--machine->mark_count];
    *count = machine->depth - mark;
    if (*count) *items = machine->stack + mark;
    machine->depth = mark;
    return true;
}

static bool take(Machine *machine, size_t bytes, const uint8_t **data) {
    *data = machine->at;
    if (bytes > (size_t)(machine->end - machine->at)) return damaged(machine, "it ends too early");
    machine->at += bytes;
    return true;
}

static bool take_number(Machine *machine, int bytes, uint64_t *number) {
    const uint8_t *data;
    if (!take(machine, (size_t)bytes, &data)) return false;
    *number = 0;
    for (int i = bytes - 1; i >= 0; i--) *number = *number << 8 | data[i];
    return true;
}

static void append(Machine *machine, PickleValue *list, PickleValue *item) {
    if (list->list.count == list->list.capacity) {
        const size_t capacity = BASE_MAX(8, list->list.capacity * 2);
        PickleValue **items = base_arena_alloc(machine->arena, capacity * sizeof *items);
        if (list->list.count) memcpy(items, list->list.items, list->list.count * sizeof(*items));
        list->list.items = items;
        list->list.capacity = capacity;
    }
    list->list.items[list->list.count++] = item;
}

static bool push_list(Machine *machine, PickleKind kind, PickleValue **items, size_t count) {
    PickleValue *list = new_value(machine, kind);
    for (size_t i = 0; i < count; i++) append(machine, list, items[i]);
    return push(machine, list);
}

static bool push_int(Machine *machine, int64_t integer) {
    PickleValue *value = new_value(machine, PICKLE_INT);
    value->integer = integer;
    return push(machine, value);
}

static bool push_text(Machine *machine, const uint8_t *bytes, size_t length) {
    PickleValue *value = new_value(machine, PICKLE_TEXT);
    value->text.bytes = (const char *)bytes;
    value->text.length = length;
    return push(machine, value);
}

/* ---- names ---------------------------------------------------------------------------- */

bool pickle_text_is(const PickleValue *value, const char *text) {
    const size_t length = strlen(text);
    return value->kind == PICKLE_TEXT && value->text.length == length &&
           memcmp(value->text.bytes, text, length) == 0;
}

static bool push_global(Machine *machine, const PickleValue *module, const PickleValue *name) {
    for (size_t i = 0; i < BASE_COUNT(globals); i++) {
        if (!pickle_text_is(module, globals[i].module) || !pickle_text_is(name, globals[i].name))
            continue;
        PickleValue *value = new_value(machine, PICKLE_GLOBAL);
        value->global = &globals[i];
        return push(machine, value);
    }
    if (module->kind != PICKLE_TEXT || name->kind != PICKLE_TEXT)
        return damaged(machine, "a name is not a text");
    char shown[128];
    int length =
        snprintf(shown, sizeof shown, "%.*s.%.*s", (int)BASE_MIN(module->text.length, 60),
                 module->text.bytes, (int)BASE_MIN(name->text.length, 60), name->text.bytes);
    for (int i = 0; i < length && i < (int)sizeof shown - 1; i++)
        if ((unsigned char)shown[i] < ' ' || (unsigned char)shown[i] > '~') shown[i] = '?';
    base_fail(machine->err, ERROR_UNSUPPORTED, "the pickle asks for %s, refused", shown);
    return base_hint(machine->err, "Only plain tensors are read; nothing in such a file is run.");
}

static bool take_line(Machine *machine, PickleValue *text) {
    const uint8_t *start = machine->at;
    const uint8_t *end = memchr(start, '\n', (size_t)(machine->end - start));
    if (!end) return damaged(machine, "a name has no end");
    *text = (PickleValue){.kind = PICKLE_TEXT};
    text->text.bytes = (const char *)start;
    text->text.length = (size_t)(end - start);
    machine->at = end + 1;
    return true;
}

/* ---- what the names make ------------------------------------------------------------------ */

/* ("storage", type, key, location, elements) */
static bool push_storage(Machine *machine, const PickleValue *id) {
    PickleValue *const *part = id->list.items;
    const bool tuple = id->kind == PICKLE_TUPLE && id->list.count >= 5;
    if (!tuple || !pickle_text_is(part[0], "storage") || part[1]->kind != PICKLE_GLOBAL ||
        part[1]->global->kind != STORAGE || part[2]->kind != PICKLE_TEXT ||
        part[4]->kind != PICKLE_INT || part[4]->integer < 0)
        return damaged(machine, "a storage is not described as torch.save does");
    if (id->list.count > 5 && part[5]->kind != PICKLE_NONE)
        return base_fail(machine->err, ERROR_UNSUPPORTED, "a storage is a view of another storage");
    PickleValue *value = new_value(machine, PICKLE_STORAGE);
    value->storage.key = part[2];
    value->storage.dtype = part[1]->global->dtype;
    value->storage.width = part[1]->global->width;
    value->storage.count = (uint64_t)part[4]->integer;
    return push(machine, value);
}

/* The last element must lie in the storage. Bytes without a type are counted in
 * elements of the tensor's. */
static bool check_extent(Machine *machine, const PickleValue *tensor) {
    const PickleValue *storage = tensor->tensor.storage;
    uint64_t last = tensor->tensor.offset, held = storage->storage.count;
    if (storage->storage.width == 0) held /= tensor->tensor.width;
    bool empty = false, inside = true;
    for (int i = 0; i < tensor->tensor.ndim; i++) {
        uint64_t step = 0;
        empty = empty || tensor->tensor.shape[i] == 0;
        if (tensor->tensor.shape[i] < 2) continue;
        inside = inside &&
                 !__builtin_mul_overflow((uint64_t)tensor->tensor.strides[i],
                                         (uint64_t)(tensor->tensor.shape[i] - 1), &step) &&
                 !__builtin_add_overflow(last, step, &last);
    }
    return empty || (inside && last < held) || damaged(machine, "a tensor leaves its storage");
}

static bool push_tensor(Machine *machine, const PickleGlobal *made_by,
                        const PickleValue *arguments) {
    PickleValue *const *part = arguments->list.items;
    const size_t least = made_by->kind == TENSOR_V3 ? 7 : 4;
    if (arguments->list.count < least || part[0]->kind != PICKLE_STORAGE ||
        part[1]->kind != PICKLE_INT || part[1]->integer < 0 || part[2]->kind != PICKLE_TUPLE ||
        part[3]->kind != PICKLE_TUPLE || part[2]->list.count != part[3]->list.count)
        return damaged(machine, "a tensor is not described as torch.save does");
    if (part[2]->list.count > TORCH_DIMS)
        return damaged(machine, "a tensor has too many dimensions");
    PickleValue *value = new_value(machine, PICKLE_TENSOR);
    value->tensor.storage = part[0];
    value->tensor.dtype = part[0]->storage.dtype;
    value->tensor.width = part[0]->storage.width;
    if (made_by->kind == TENSOR_V3) {
        if (part[6]->kind != PICKLE_GLOBAL || part[6]->global->kind != DTYPE)
            return damaged(machine, "a tensor's type is not a type");
        value->tensor.dtype = part[6]->global->dtype;
        value->tensor.width = part[6]->global->width;
    }
    if (value->tensor.width == 0) return damaged(machine, "a tensor has no type");
    value->tensor.offset = (uint64_t)part[1]->integer;
    value->tensor.ndim = (int)part[2]->list.count;
    for (int i = 0; i < value->tensor.ndim; i++) {
        const PickleValue *size = part[2]->list.items[i], *stride = part[3]->list.items[i];
        if (size->kind != PICKLE_INT || stride->kind != PICKLE_INT || size->integer < 0 ||
            size->integer > INT_MAX || stride->integer < 0)
            return damaged(machine, "a tensor's shape or strides are no sizes");
        value->tensor.shape[i] = (int)size->integer;
        value->tensor.strides[i] = stride->integer;
    }
    return check_extent(machine, value) && push(machine, value);
}

/* OrderedDict() or, as Python 2 wrote it, OrderedDict([[key, value], ...]). */
static bool push_dict(Machine *machine, const PickleValue *arguments) {
    PickleValue *dict = new_value(machine, PICKLE_DICT);
    const PickleValue *pairs = arguments->list.count ? arguments->list.items[0] : NULL;
    if (pairs && pairs->kind != PICKLE_LIST) return damaged(machine, "a dictionary of no list");
    for (size_t i = 0; pairs && i < pairs->list.count; i++) {
        const PickleValue *pair = pairs->list.items[i];
        if ((pair->kind != PICKLE_LIST && pair->kind != PICKLE_TUPLE) || pair->list.count != 2)
            return damaged(machine, "a dictionary of no pairs");
        append(machine, dict, pair->list.items[0]);
        append(machine, dict, pair->list.items[1]);
    }
    return push(machine, dict);
}

static bool reduce(Machine *machine) {
    const PickleValue *arguments = pop(machine), *callee = arguments ? pop(machine) : NULL;
    if (!callee) return false;
    if (callee->kind != PICKLE_GLOBAL || arguments->kind != PICKLE_TUPLE)
        return damaged(machine, "it calls what is no function");
    switch (callee->global->kind) {
    case ORDERED_DICT: return push_dict(machine, arguments);
    case TENSOR_V1:
    case TENSOR_V2:
    case TENSOR_V3: return push_tensor(machine, callee->global, arguments);
    case PARAMETER:
        if (arguments->list.count == 0 || arguments->list.items[0]->kind != PICKLE_TENSOR)
            return damaged(machine, "a parameter is no tensor");
        return push(machine, arguments->list.items[0]);
    default: return damaged(machine, "it calls a type");
    }
}

/* Attributes of a dictionary (PyTorch's _metadata) are passed over. */
static bool build(Machine *machine) {
    const PickleValue *state = pop(machine), *target = state ? top(machine) : NULL;
    if (!target) return false;
    return target->kind == PICKLE_DICT || damaged(machine, "it sets attributes of what has none");
}

static bool add_items(Machine *machine, PickleKind kind, PickleValue **items, size_t count) {
    PickleValue *list = top(machine);
    if (!list) return false;
    if (list->kind != kind || (kind == PICKLE_DICT && count % 2))
        return damaged(machine, "it fills what is not a list or a dictionary");
    for (size_t i = 0; i < count; i++) append(machine, list, items[i]);
    return true;
}

/* ---- the opcodes ------------------------------------------------------------------------------
 */

static bool memo_put(Machine *machine, uint64_t index) {
    PickleValue *value = top(machine);
    if (!value) return false;
    if (index >= MEMO_LIMIT || index > (uint64_t)(machine->at - machine->start))
        return damaged(machine, "a memo's number is too large");
    if (index >= machine->memo_count) {
        machine->memo = base_grow(machine->memo, &machine->memo_capacity, (size_t)index + 1,
                                  sizeof *machine->memo);
        while (machine->memo_count <= index) machine->memo[machine->memo_count++] = NULL;
    }
    machine->memo[index] = value;
    return true;
}

static bool memo_get(Machine *machine, uint64_t index) {
    if (index >= machine->memo_count || !machine->memo[index])
        return damaged(machine, "it recalls what it never kept");
    return push(machine, machine->memo[index]);
}

static bool small_tuple(Machine *machine, size_t count) {
    if (machine->depth - floor_of(machine) < count) return damaged(machine, "its stack is empty");
    machine->depth -= count;
    return push_list(machine, PICKLE_TUPLE, machine->stack + machine->depth, count);
}

/* A little-endian integer of two's complement; more than 8 bytes are passed over. */
static bool push_long(Machine *machine, size_t length) {
    const uint8_t *data;
    if (!take(machine, length, &data)) return false;
    if (length > 8) return push(machine, new_value(machine, PICKLE_NONE));
    uint64_t number = length && data[length - 1] & 0x80 ? UINT64_MAX : 0;
    for (size_t i = length; i-- > 0;) number = number << 8 | data[i];
    return push_int(machine, (int64_t)number);
}

static bool take_text(Machine *machine, int prefix) {
    uint64_t length;
    const uint8_t *data;
    return take_number(machine, prefix, &length) && take(machine, (size_t)length, &data) &&
           push_text(machine, data, (size_t)length);
}

static bool take_global(Machine *machine) {
    PickleValue module, name;
    return take_line(machine, &module) && take_line(machine, &name) &&
           push_global(machine, &module, &name);
}

static bool stack_global(Machine *machine) {
    const PickleValue *name = pop(machine), *module = name ? pop(machine) : NULL;
    return module && push_global(machine, module, name);
}

static bool marked(Machine *machine, uint8_t opcode) {
    PickleValue **items;
    size_t count;
    if (!pop_mark(machine, &items, &count)) return false;
    switch (opcode) {
    case 't': return push_list(machine, PICKLE_TUPLE, items, count);
    case 'l': return push_list(machine, PICKLE_LIST, items, count);
    case 'd':
        if (count % 2) return damaged(machine, "a dictionary's last key has no value");
        return push_list(machine, PICKLE_DICT, items, count);
    case 'e': return add_items(machine, PICKLE_LIST, items, count);
    case 'u': return add_items(machine, PICKLE_DICT, items, count);
    default: return true; /* '1': dropped */
    }
}

static bool set_item(Machine *machine, PickleKind kind, size_t count) {
    if (machine->depth - floor_of(machine) < count) return damaged(machine, "its stack is empty");
    machine->depth -= count;
    PickleValue *items[2] = {machine->stack[machine->depth], NULL};
    if (count == 2) items[1] = machine->stack[machine->depth + 1];
    return add_items(machine, kind, items, count);
}

static bool step(Machine *machine, uint8_t opcode) {
    uint64_t number = 0;
    const uint8_t *data;
    PickleValue *value;
    switch (opcode) {
    case 0x80: /* PROTO */
        if (!take_number(machine, 1, &number)) return false;
        return number <= 5 || base_fail(machine->err, ERROR_UNSUPPORTED,
                                        "the pickle's protocol %d is not known", (int)number);
    case 0x95: return take(machine, 8, &data); /* FRAME: a hint about reading */
    case '(':
        machine->marks = base_grow(machine->marks, &machine->mark_capacity, machine->mark_count + 1,
                                   sizeof *machine->marks);
        machine->marks[machine->mark_count++] = machine->depth;
        return true;
    case '0': return pop(machine) != NULL;
    case '2': return (value = top(machine)) != NULL && push(machine, value);
    case 'N':                                                         /* None */
    case 0x88:                                                        /* True */
    case 0x89: return push(machine, new_value(machine, PICKLE_NONE)); /* False */
    case 'G':                                                         /* a float */
        return take(machine, 8, &data) && push(machine, new_value(machine, PICKLE_NONE));
    case 'J':
        return take_number(machine, 4, &number) && push_int(machine, (int32_t)(uint32_t)number);
    case 'K': return take_number(machine, 1, &number) && push_int(machine, (int64_t)number);
    case 'M': return take_number(machine, 2, &number) && push_int(machine, (int64_t)number);
    case 0x8a: return take_number(machine, 1, &number) && push_long(machine, (size_t)number);
    case 'X': /* texts, and the byte strings of Python 2 and 3 */
    case 'T':
    case 'B': return take_text(machine, 4);
    case 'U':
    case 'C':
    case 0x8c: return take_text(machine, 1);
    case 0x8d:
    case 0x8e: return take_text(machine, 8);
    case ')': return push_list(machine, PICKLE_TUPLE, NULL, 0);
    case ']': return push_list(machine, PICKLE_LIST, NULL, 0);
    case '}': return push_list(machine, PICKLE_DICT, NULL, 0);
    case 0x85:
    case 0x86:
    case 0x87: return small_tuple(machine, (size_t)opcode - 0x84);
    case 't':
    case 'l':
    case 'd':
    case 'e':
    case 'u':
    case '1': return marked(machine, opcode);
    case 'a': return set_item(machine, PICKLE_LIST, 1);
    case 's': return set_item(machine, PICKLE_DICT, 2);
    case 'q': return take_number(machine, 1, &number) && memo_put(machine, number);
    case 'r': return take_number(machine, 4, &number) && memo_put(machine, number);
    case 0x94: return memo_put(machine, machine->memo_count);
    case 'h': return take_number(machine, 1, &number) && memo_get(machine, number);
    case 'j': return take_number(machine, 4, &number) && memo_get(machine, number);
    case 'c': return take_global(machine);
    case 0x93: return stack_global(machine);
    case 'R': return reduce(machine);
    case 'b': return build(machine);
    case 'Q': return (value = pop(machine)) != NULL && push_storage(machine, value);
    default: break;
    }
    return base_fail(machine->err, ERROR_UNSUPPORTED,
                     "the pickle uses opcode 0x%02x, which makes no tensor; refused", opcode);
}

const PickleValue *pickle_read(const uint8_t *bytes, size_t length, Arena *arena, size_t *used,
                               Error *err) {
    Machine machine = {
        .start = bytes, .at = bytes, .end = bytes + length, .arena = arena, .err = err};
    const PickleValue *result = NULL;
    for (bool good = true; good && !result;) {
        const uint8_t *opcode;
        good = take(&machine, 1, &opcode);
        if (!good) break;
        if (*opcode == '.')
            good = (result = pop(&machine)) != NULL;
        else
            good = step(&machine, *opcode);
    }
    if (used) *used = (size_t)(machine.at - bytes);
    free(machine.stack);
    free(machine.memo);
    free(machine.marks);
    return result;
}
