/* jinja_value: the values of a render: making them, Python's truth, equality,
 * order and membership, and dictionaries that keep the order of insertion.
 * Walking over them is in jinja_iter.c, arithmetic in jinja_operators.c. */
#include <math.h>
#include <string.h>

#include "text/jinja.h"

/* ---- memory and limits --------------------------------------------------------- */

void jinja_raise(Render *r, const char *type, const char *format, ...) {
    char text[900];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t length = strlen(text);
    while (length > 0 && !base_utf8_valid(text, length)) text[--length] = 0;
    base_fail(r->err, ERROR_INPUT, "template: line %d: %s: %s", r->line, type, text);
    longjmp(r->fail, 1);
}

void jinja_charge(Render *r, size_t steps) {
    r->operations += steps;
    if (r->operations > r->max_operations)
        jinja_raise(r, "LimitError", "the template needs more than %llu operations",
                    (unsigned long long)r->max_operations);
}

void *jinja_alloc(Render *r, size_t bytes) {
    if (bytes > r->max_memory || r->memory > r->max_memory - bytes)
        jinja_raise(r, "MemoryError", "the template needs more than %zu MiB", r->max_memory >> 20);
    r->memory += bytes + 16;
    jinja_charge(r, bytes / 256);
    return base_arena_alloc(r->arena, bytes);
}

void *jinja_calloc(Render *r, size_t bytes) {
    return memset(jinja_alloc(r, bytes), 0, bytes);
}

/* The C stack is bounded by what was really used, since one template frame
 * takes more or less of it by compiler and sanitizer. */
void jinja_check_stack(Render *r) {
    enum { STACK_LIMIT = 400 * 1024, STACK_LIMIT_SANITIZED = 4 * 1024 * 1024 };
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__)
    size_t limit = STACK_LIMIT_SANITIZED;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    size_t limit = STACK_LIMIT_SANITIZED;
#else
    size_t limit = STACK_LIMIT;
#endif
#else
    size_t limit = STACK_LIMIT;
#endif
    const char *here = __builtin_frame_address(0);
    size_t used = here < r->stack ? (size_t)(r->stack - here) : (size_t)(here - r->stack);
    if (used > limit) jinja_raise(r, "RecursionError", "maximum recursion depth exceeded");
}

/* ---- strings ------------------------------------------------------------------- */

Value jinja_string_borrow(Render *r, const char *bytes, size_t length) {
    Str *string = jinja_alloc(r, sizeof *string);
    *string = (Str){bytes, length, POINTS_UNKNOWN, NULL};
    return (Value){.kind = V_STRING, .as.string = string};
}

Value jinja_string(Render *r, const char *bytes, size_t length) {
    char *copy = jinja_alloc(r, length + 1);
    if (length) memcpy(copy, bytes, length);
    copy[length] = 0;
    return jinja_string_borrow(r, copy, length);
}

Value jinja_text(Render *r, const char *literal) {
    return jinja_string_borrow(r, literal, strlen(literal));
}

Value jinja_format(Render *r, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return jinja_string(r, text, n < 0 ? 0 : BASE_MIN((size_t)n, sizeof text - 1));
}

/* A string grown by repeated + or ~ is extended in place while nothing else
 * was written behind it, so that building a prompt is linear. */
Value jinja_concat(Render *r, const Str *left, const Str *right) {
    size_t length = left->length + right->length;
    Room *room = left->room;
    if (room && left->data + left->length == room->start + room->used &&
        right->length <= room->capacity - room->used) {
        memmove(room->start + room->used, right->data, right->length);
        room->used += right->length;
        Value value = jinja_string_borrow(r, left->data, length);
        ((Str *)value.as.string)->room = room;
        return value;
    }
    size_t capacity = length < 256 ? length : length * 2;
    char *start = jinja_alloc(r, capacity + 1);
    memcpy(start, left->data, left->length);
    memcpy(start + left->length, right->data, right->length);
    Value value = jinja_string_borrow(r, start, length);
    if (capacity > length) {
        room = jinja_alloc(r, sizeof *room);
        *room = (Room){start, length, capacity};
        ((Str *)value.as.string)->room = room;
    }
    return value;
}

/* The count is kept. Strings of a template have it from the parser, since
 * renders of several threads share them; the others belong to one render. */
size_t jinja_points(const Str *string) {
    if (string->points != POINTS_UNKNOWN) return string->points;
    size_t points = 0;
    for (size_t i = 0; i < string->length; i++)
        points += ((unsigned char)string->data[i] & 0xC0) != 0x80;
    ((Str *)string)->points = points;
    return points;
}

bool jinja_string_is(Value value, const char *text) {
    return value.kind == V_STRING && value.as.string->length == strlen(text) &&
           memcmp(value.as.string->data, text, value.as.string->length) == 0;
}

const char *jinja_cstring(Render *r, const Str *string) {
    char *copy = jinja_alloc(r, string->length + 1);
    memcpy(copy, string->data, string->length);
    copy[string->length] = 0;
    return copy;
}

/* UTF-8 keeps the order of code points. */
int jinja_compare_strings(const Str *left, const Str *right) {
    int order = memcmp(left->data, right->data, BASE_MIN(left->length, right->length));
    if (!order) order = (left->length > right->length) - (left->length < right->length);
    return (order > 0) - (order < 0);
}

/* ---- lists and dictionaries -------------------------------------------------------- */

List *jinja_list_new(Render *r, size_t capacity) {
    List *list = jinja_calloc(r, sizeof *list);
    if (capacity) {
        list->items = jinja_alloc(r, capacity * sizeof *list->items);
        list->capacity = capacity;
    }
    return list;
}

void jinja_list_add(Render *r, List *list, Value item) {
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 4;
        Value *items = jinja_alloc(r, capacity * sizeof *items);
        if (list->count) memcpy(items, list->items, list->count * sizeof *items);
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = item;
}

Value jinja_list(List *list) {
    return (Value){.kind = V_LIST, .as.list = list};
}
Value jinja_tuple(List *list) {
    return (Value){.kind = V_TUPLE, .as.list = list};
}

Value jinja_tuple2(Render *r, Value first, Value second) {
    List *list = jinja_list_new(r, 2);
    jinja_list_add(r, list, first);
    jinja_list_add(r, list, second);
    return jinja_tuple(list);
}

Dict *jinja_dict_new(Render *r) {
    return jinja_calloc(r, sizeof(Dict));
}

static uint64_t hash_value(Render *r, Value key) {
    int64_t i;
    jinja_check_stack(r);
    switch (key.kind) {
    case V_NONE: return 0x9E3779B97F4A7C15u;
    case V_UNDEFINED: return 0xC2B2AE3D27D4EB4Fu;
    case V_BOOL:
    case V_INT: jinja_as_int(key, &i); return (uint64_t)i * 0x9E3779B97F4A7C15u;
    case V_FLOAT:
        if (key.as.real == floor(key.as.real) && fabs(key.as.real) < 9e18)
            return (uint64_t)(int64_t)key.as.real * 0x9E3779B97F4A7C15u;
        return base_hash(&key.as.real, sizeof key.as.real);
    case V_STRING: return base_hash(key.as.string->data, key.as.string->length);
    case V_TUPLE: {
        uint64_t hash = 0x345678;
        for (size_t n = 0; n < key.as.list->count; n++)
            hash = (hash ^ hash_value(r, key.as.list->items[n])) * 1000003u;
        return hash;
    }
    case V_LIST:
    case V_DICT: jinja_raise(r, "TypeError", "unhashable type: '%s'", jinja_type_name(key));
    default: return (uint64_t)(uintptr_t)key.as.list * 0x9E3779B97F4A7C15u;
    }
}

enum { SMALL_DICT = 8 };

static void dict_index(Render *r, Dict *dict) {
    dict->n_slots = dict->n_slots ? dict->n_slots * 2 : 32;
    dict->slots = jinja_calloc(r, dict->n_slots * sizeof *dict->slots);
    for (size_t i = 0; i < dict->count; i++) {
        size_t slot = dict->pairs[i].hash & (dict->n_slots - 1);
        while (dict->slots[slot]) slot = (slot + 1) & (dict->n_slots - 1);
        dict->slots[slot] = (uint32_t)i + 1;
    }
}

static Pair *dict_find(Render *r, const Dict *dict, Value key, uint64_t hash) {
    if (!dict->slots) {
        for (size_t i = 0; i < dict->count; i++)
            if (dict->pairs[i].hash == hash && jinja_equal(r, dict->pairs[i].key, key))
                return &dict->pairs[i];
        return NULL;
    }
    for (size_t slot = hash & (dict->n_slots - 1); dict->slots[slot];
         slot = (slot + 1) & (dict->n_slots - 1)) {
        Pair *pair = &dict->pairs[dict->slots[slot] - 1];
        if (pair->hash == hash && jinja_equal(r, pair->key, key)) return pair;
        jinja_charge(r, 1);
    }
    return NULL;
}

void jinja_dict_set(Render *r, Dict *dict, Value key, Value value) {
    uint64_t hash = hash_value(r, key);
    hash ^= hash >> 32;
    Pair *found = dict_find(r, dict, key, hash);
    if (found) {
        found->value = value;
        return;
    }
    if (dict->count == dict->capacity) {
        size_t capacity = dict->capacity ? dict->capacity * 2 : 4;
        Pair *pairs = jinja_alloc(r, capacity * sizeof *pairs);
        if (dict->count) memcpy(pairs, dict->pairs, dict->count * sizeof *pairs);
        dict->pairs = pairs;
        dict->capacity = capacity;
    }
    dict->pairs[dict->count++] = (Pair){key, value, hash};
    if (dict->count <= SMALL_DICT) return;
    if (!dict->slots || dict->count * 2 > dict->n_slots) {
        dict_index(r, dict);
        return;
    }
    size_t slot = hash & (dict->n_slots - 1);
    while (dict->slots[slot]) slot = (slot + 1) & (dict->n_slots - 1);
    dict->slots[slot] = (uint32_t)dict->count;
}

Value jinja_dict_get(Render *r, const Dict *dict, Value key) {
    uint64_t hash = hash_value(r, key);
    hash ^= hash >> 32;
    Pair *pair = dict_find(r, dict, key, hash);
    return pair ? pair->value : jinja_missing();
}

Value jinja_dict_get_text(Render *r, const Dict *dict, const Str *key) {
    return jinja_dict_get(r, dict, (Value){.kind = V_STRING, .as.string = key});
}

/* ---- undefined ----------------------------------------------------------------------- */

static Value undefined(Render *r, const char *hint, Value object, Value name) {
    Undef *u = jinja_calloc(r, sizeof *u);
    *u = (Undef){hint, object, name, false};
    return (Value){.kind = V_UNDEFINED, .as.undefined = u};
}

Value jinja_undefined(Render *r, const char *hint) {
    return undefined(r, hint, jinja_missing(), jinja_none());
}

Value jinja_undefined_name(Render *r, const Str *name) {
    return undefined(r, NULL, jinja_missing(), (Value){.kind = V_STRING, .as.string = name});
}

Value jinja_undefined_member(Render *r, Value object, Value name) {
    return undefined(r, NULL, object, name);
}

const char *jinja_undefined_message(Render *r, Value value) {
    const Undef *u = value.as.undefined;
    if (u->hint) return u->hint;
    const char *name = jinja_repr_text(r, u->name);
    Value text;
    if (u->object.kind == V_MISSING)
        text = jinja_format(r, "%.300s is undefined", name);
    else if (u->name.kind != V_STRING)
        text = jinja_format(r, "%s has no element %.300s", jinja_type_repr(r, u->object), name);
    else
        text = jinja_format(r, "'%s' has no attribute %.300s", jinja_type_repr(r, u->object), name);
    return jinja_cstring(r, text.as.string);
}

void jinja_raise_undefined(Render *r, Value value) {
    jinja_raise(r, value.as.undefined->security ? "SecurityError" : "UndefinedError", "%s",
                jinja_undefined_message(r, value));
}

/* ---- types ------------------------------------------------------------------------------ */

const char *jinja_type_name(Value value) {
    static const char *const names[] = {
        [V_MISSING] = "object",
        [V_UNDEFINED] = "Undefined",
        [V_NONE] = "NoneType",
        [V_BOOL] = "bool",
        [V_INT] = "int",
        [V_FLOAT] = "float",
        [V_STRING] = "str",
        [V_LIST] = "list",
        [V_TUPLE] = "tuple",
        [V_DICT] = "dict",
        [V_RANGE] = "range",
        [V_NAMESPACE] = "TemplateNamespace",
        [V_MACRO] = "Macro",
        [V_FUNCTION] = "function",
        [V_BOUND] = "builtin_function_or_method",
        [V_LOOP] = "LoopContext",
        [V_CYCLER] = "Cycler",
        [V_JOINER] = "Joiner",
    };
    static const char *const views[] = {"dict_keys", "dict_values", "dict_items"};
    if (value.kind == V_STRING && value.markup) return "Markup";
    if (value.kind == V_VIEW) return views[value.as.view->of];
    if (value.kind == V_ITERATOR) return value.as.iterator->type;
    if (value.kind == V_TUPLE && value.as.list->group) return "_GroupTuple";
    return names[value.kind];
}

/* The type as jinja2's messages about missing members name it. */
const char *jinja_type_repr(Render *r, Value value) {
    const char *module = "";
    if (value.kind == V_NONE) return "None";
    if (value.kind == V_STRING && value.markup) module = "markupsafe.";
    if (value.kind == V_UNDEFINED || value.kind == V_MACRO || value.kind == V_LOOP)
        module = "jinja2.runtime.";
    if (value.kind == V_CYCLER || value.kind == V_JOINER) module = "jinja2.utils.";
    if (value.kind == V_NAMESPACE) module = "transformers.utils.chat_template_utils.";
    Value text = jinja_format(r, "%s%s object", module, jinja_type_name(value));
    return jinja_cstring(r, text.as.string);
}

bool jinja_is_number(Value value) {
    return value.kind == V_BOOL || value.kind == V_INT || value.kind == V_FLOAT;
}

bool jinja_as_int(Value value, int64_t *out) {
    if (value.kind == V_BOOL)
        *out = value.as.truth;
    else if (value.kind == V_INT)
        *out = value.as.integer;
    else
        return false;
    return true;
}

double jinja_as_float(Value value) {
    if (value.kind == V_FLOAT) return value.as.real;
    int64_t i = 0;
    jinja_as_int(value, &i);
    return (double)i;
}

bool jinja_has_length(Value value) {
    switch (value.kind) {
    case V_UNDEFINED:
    case V_STRING:
    case V_LIST:
    case V_TUPLE:
    case V_DICT:
    case V_RANGE:
    case V_VIEW:
    case V_LOOP: return true;
    default: return false;
    }
}

int64_t jinja_length(Render *r, Value value) {
    switch (value.kind) {
    case V_UNDEFINED: return 0;
    case V_STRING: return (int64_t)jinja_points(value.as.string);
    case V_LIST:
    case V_TUPLE: return (int64_t)value.as.list->count;
    case V_DICT: return (int64_t)value.as.dict->count;
    case V_RANGE: return value.as.range->length;
    case V_VIEW: return (int64_t)value.as.view->dict->count;
    case V_LOOP: return jinja_loop_length(r, value.as.loop);
    default:
        jinja_raise(r, "TypeError", "object of type '%s' has no len()", jinja_type_name(value));
    }
}

bool jinja_truth(Render *r, Value value) {
    switch (value.kind) {
    case V_MISSING:
    case V_NONE: return false;
    case V_BOOL: return value.as.truth;
    case V_INT: return value.as.integer != 0;
    case V_FLOAT: return value.as.real != 0;
    case V_STRING: return value.as.string->length > 0;
    default: return !jinja_has_length(value) || jinja_length(r, value) > 0;
    }
}

/* ---- equality and order --------------------------------------------------------------------- */

static int compare_numbers(Value left, Value right) {
    int64_t a, b;
    if (jinja_as_int(left, &a) && jinja_as_int(right, &b)) return a < b ? -1 : a > b;
    bool int_left = jinja_as_int(left, &a);
    if (!int_left && !jinja_as_int(right, &b)) {
        double x = left.as.real, y = right.as.real;
        return x < y ? -1 : x > y ? 1 : x == y ? 0 : 2;
    }
    /* an int against a float, without rounding the int */
    int64_t i = int_left ? a : b;
    double d = int_left ? right.as.real : left.as.real;
    int order;
    if (isnan(d)) return 2;
    if (d >= 9223372036854775808.0)
        order = -1;
    else if (d < -9223372036854775808.0)
        order = 1;
    else {
        int64_t whole = (int64_t)d;
        double fraction = d - (double)whole;
        order = i < whole ? -1 : i > whole ? 1 : fraction > 0 ? -1 : fraction < 0;
    }
    return int_left ? order : -order;
}

static bool equal_lists(Render *r, const List *left, const List *right) {
    if (left->count != right->count) return false;
    for (size_t i = 0; i < left->count; i++)
        if (!jinja_same(left->items[i], right->items[i]) &&
            !jinja_equal(r, left->items[i], right->items[i]))
            return false;
    return true;
}

static bool equal_dicts(Render *r, const Dict *left, const Dict *right) {
    if (left->count != right->count) return false;
    for (size_t i = 0; i < left->count; i++) {
        Value other = jinja_dict_get(r, right, left->pairs[i].key);
        if (other.kind == V_MISSING) return false;
        if (!jinja_same(left->pairs[i].value, other) &&
            !jinja_equal(r, left->pairs[i].value, other))
            return false;
    }
    return true;
}

static bool equal_views(Render *r, const View *left, const View *right) {
    if (left->of != right->of || left->of == VIEW_VALUES) return left == right;
    if (left->of == VIEW_ITEMS) return equal_dicts(r, left->dict, right->dict);
    if (left->dict->count != right->dict->count) return false;
    for (size_t i = 0; i < left->dict->count; i++)
        if (jinja_dict_get(r, right->dict, left->dict->pairs[i].key).kind == V_MISSING)
            return false;
    return true;
}

bool jinja_equal(Render *r, Value left, Value right) {
    jinja_charge(r, 1);
    if (jinja_is_number(left) && jinja_is_number(right)) return compare_numbers(left, right) == 0;
    if (left.kind != right.kind) return false;
    jinja_check_stack(r);
    switch (left.kind) {
    case V_MISSING:
    case V_UNDEFINED:
    case V_NONE: return true;
    case V_STRING:
        return left.as.string->length == right.as.string->length &&
               memcmp(left.as.string->data, right.as.string->data, left.as.string->length) == 0;
    case V_LIST:
    case V_TUPLE: return equal_lists(r, left.as.list, right.as.list);
    case V_DICT: return equal_dicts(r, left.as.dict, right.as.dict);
    case V_VIEW: return equal_views(r, left.as.view, right.as.view);
    case V_RANGE: {
        const Range *a = left.as.range, *b = right.as.range;
        return a->length == b->length &&
               (a->length == 0 || (a->start == b->start && (a->length == 1 || a->step == b->step)));
    }
    default: return left.as.list == right.as.list;
    }
}

bool jinja_same(Value left, Value right) {
    if (left.kind != right.kind) return false;
    switch (left.kind) {
    case V_NONE: return true;
    case V_BOOL: return left.as.truth == right.as.truth;
    case V_INT:
        return left.as.integer == right.as.integer && left.as.integer >= -5 &&
               left.as.integer <= 256;
    case V_FLOAT: return false;
    default: return left.as.list == right.as.list;
    }
}

static bool order_result(int op, int order) {
    if (order == 2) return false; /* NaN */
    switch (op) {
    case T_LT: return order < 0;
    case T_LTEQ: return order <= 0;
    case T_GT: return order > 0;
    default: return order >= 0;
    }
}

static bool ordered_lists(Render *r, int op, const List *left, const List *right) {
    size_t n = BASE_MIN(left->count, right->count);
    for (size_t i = 0; i < n; i++)
        if (!jinja_same(left->items[i], right->items[i]) &&
            !jinja_equal(r, left->items[i], right->items[i]))
            return jinja_ordered(r, op, left->items[i], right->items[i]);
    return order_result(op, left->count < right->count ? -1 : left->count > right->count);
}

bool jinja_ordered(Render *r, int op, Value left, Value right) {
    static const char *const signs[T_ANY] = {
        [T_LT] = "<", [T_LTEQ] = "<=", [T_GT] = ">", [T_GTEQ] = ">="};
    jinja_charge(r, 1);
    jinja_check_stack(r);
    if (left.kind == V_UNDEFINED) jinja_raise_undefined(r, left);
    if (right.kind == V_UNDEFINED) jinja_raise_undefined(r, right);
    if (jinja_is_number(left) && jinja_is_number(right))
        return order_result(op, compare_numbers(left, right));
    if (left.kind == V_STRING && right.kind == V_STRING)
        return order_result(op, jinja_compare_strings(left.as.string, right.as.string));
    if (left.kind == right.kind && (left.kind == V_LIST || left.kind == V_TUPLE))
        return ordered_lists(r, op, left.as.list, right.as.list);
    jinja_raise(r, "TypeError", "'%s' not supported between instances of '%s' and '%s'", signs[op],
                jinja_type_name(left), jinja_type_name(right));
}

bool jinja_contains(Render *r, Value container, Value item) {
    switch (container.kind) {
    case V_STRING:
        if (item.kind != V_STRING)
            jinja_raise(r, "TypeError", "'in <string>' requires string as left operand, not %s",
                        jinja_type_name(item));
        jinja_charge(r, container.as.string->length / 16);
        return jinja_find_string(container.as.string->data, container.as.string->length,
                                 item.as.string->data, item.as.string->length) >= 0;
    case V_DICT: return jinja_dict_get(r, container.as.dict, item).kind != V_MISSING;
    case V_VIEW:
        if (container.as.view->of == VIEW_KEYS)
            return jinja_dict_get(r, container.as.view->dict, item).kind != V_MISSING;
        break;
    default:
        if (!jinja_is_iterable(container))
            jinja_raise(r, "TypeError", "argument of type '%s' is not iterable",
                        jinja_type_name(container));
        break;
    }
    Iter *iter = jinja_iter(r, container);
    Value candidate;
    while (jinja_next(r, iter, &candidate))
        if (jinja_same(candidate, item) || jinja_equal(r, candidate, item)) return true;
    return false;
}
