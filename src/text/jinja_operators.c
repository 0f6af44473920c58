/* jinja_operators: arithmetic, slices, attributes and items, with Python's
 * rules and its words for what cannot be done. Integers are of 64 bits; a
 * result beyond them is an OverflowError instead of a wrong number. */
#include <math.h>
#include <string.h>

#include "text/jinja.h"

/* ---- arithmetic --------------------------------------------------------------- */

static const char *op_text(int op) {
    static const char *const texts[T_ANY] = {
        [T_ADD] = "+",       [T_SUB] = "-", [T_MUL] = "*",          [T_DIV] = "/",
        [T_FLOORDIV] = "//", [T_MOD] = "%", [T_POW] = "** or pow()"};
    return texts[op];
}

static _Noreturn void fail_operands(Render *r, int op, Value left, Value right) {
    jinja_raise(r, "TypeError", "unsupported operand type(s) for %s: '%s' and '%s'", op_text(op),
                jinja_type_name(left), jinja_type_name(right));
}

static _Noreturn void fail_overflow(Render *r) {
    jinja_raise(r, "OverflowError", "the integer result does not fit in 64 bits");
}

static Value int_power(Render *r, int64_t base, int64_t exponent) {
    int64_t result = 1;
    if (exponent < 0) {
        if (base == 0)
            jinja_raise(r, "ZeroDivisionError", "0.0 cannot be raised to a negative power");
        return jinja_float(pow((double)base, (double)exponent));
    }
    while (exponent > 0) {
        if ((exponent & 1) && __builtin_mul_overflow(result, base, &result)) fail_overflow(r);
        exponent >>= 1;
        if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) fail_overflow(r);
    }
    return jinja_int(result);
}

/* A double holds it. */
static bool is_exact(int64_t value) {
    return value >= -((int64_t)1 << 53) && value <= (int64_t)1 << 53;
}

static Value int_binary(Render *r, int op, int64_t a, int64_t b) {
    int64_t result = 0;
    bool overflow = false;
    switch (op) {
    case T_ADD: overflow = __builtin_add_overflow(a, b, &result); break;
    case T_SUB: overflow = __builtin_sub_overflow(a, b, &result); break;
    case T_MUL: overflow = __builtin_mul_overflow(a, b, &result); break;
    case T_DIV:
        if (b == 0) jinja_raise(r, "ZeroDivisionError", "division by zero");
        /* Past 2^53 a double would round before it divides. */
        return jinja_float(is_exact(a) && is_exact(b) ? (double)a / (double)b
                                                      : (double)((long double)a / (long double)b));
    case T_POW: return int_power(r, a, b);
    default:
        if (b == 0)
            jinja_raise(r, "ZeroDivisionError",
                        op == T_MOD ? "integer modulo by zero"
                                    : "integer division or modulo by zero");
        if (b == -1) {
            overflow = op == T_FLOORDIV && __builtin_sub_overflow((int64_t)0, a, &result);
            break;
        }
        result = op == T_MOD ? a % b : a / b;
        if (a % b != 0 && (a % b < 0) != (b < 0)) result += op == T_MOD ? b : -1;
    }
    if (overflow) fail_overflow(r);
    return jinja_int(result);
}

/* Python's divmod of floats. */
static double float_divmod(double a, double b, double *remainder) {
    double mod = fmod(a, b), quotient = (a - mod) / b;
    if (mod != 0) {
        if ((b < 0) != (mod < 0)) {
            mod += b;
            quotient -= 1;
        }
    } else {
        mod = copysign(0, b);
    }
    *remainder = mod;
    if (quotient == 0) return copysign(0, a / b);
    double whole = floor(quotient);
    return quotient - whole > 0.5 ? whole + 1 : whole;
}

static Value float_binary(Render *r, int op, double a, double b) {
    double remainder = 0, result = 0;
    switch (op) {
    case T_ADD: return jinja_float(a + b);
    case T_SUB: return jinja_float(a - b);
    case T_MUL: return jinja_float(a * b);
    case T_DIV:
        if (b == 0) jinja_raise(r, "ZeroDivisionError", "float division by zero");
        return jinja_float(a / b);
    case T_POW:
        if (a == 0 && b < 0)
            jinja_raise(r, "ZeroDivisionError", "0.0 cannot be raised to a negative power");
        result = pow(a, b);
        if (isnan(result) && !isnan(a) && !isnan(b))
            jinja_raise(r, "ValueError", "complex numbers are not supported");
        if (isinf(result) && !isinf(a) && !isinf(b))
            jinja_raise(r, "OverflowError", "(34, 'Numerical result out of range')");
        return jinja_float(result);
    default:
        if (b == 0)
            jinja_raise(r, "ZeroDivisionError",
                        op == T_MOD ? "float modulo" : "float floor division by zero");
        result = float_divmod(a, b, &remainder);
        return jinja_float(op == T_MOD ? remainder : result);
    }
}

static Value repeat_list(Render *r, Value value, int64_t count) {
    const List *list = value.as.list;
    size_t times = count > 0 ? (size_t)count : 0, total = 0;
    if (__builtin_mul_overflow(list->count, times, &total) || total > r->max_memory / sizeof(Value))
        jinja_raise(r, "MemoryError", "a repeated list is too large");
    List *result = jinja_list_new(r, total);
    jinja_charge(r, total);
    for (size_t i = 0; i < total; i++) result->items[i] = list->items[i % list->count];
    result->count = total;
    return (Value){.kind = value.kind, .as.list = result};
}

static Value multiply(Render *r, Value left, Value right) {
    bool left_sequence = left.kind == V_STRING || left.kind == V_LIST || left.kind == V_TUPLE;
    bool right_sequence = right.kind == V_STRING || right.kind == V_LIST || right.kind == V_TUPLE;
    if (!left_sequence && !right_sequence) fail_operands(r, T_MUL, left, right);
    Value sequence = left_sequence ? left : right, factor = left_sequence ? right : left;
    int64_t count;
    if (!jinja_as_int(factor, &count))
        jinja_raise(r, "TypeError", "can't multiply sequence by non-int of type '%s'",
                    jinja_type_name(factor));
    if (sequence.kind != V_STRING) return repeat_list(r, sequence, count);
    Value result = jinja_repeat(r, sequence.as.string, count);
    result.markup = sequence.markup;
    return result;
}

static Value add_sequences(Render *r, Value left, Value right) {
    if (left.kind == V_STRING && right.kind == V_STRING) {
        bool markup = left.markup || right.markup;
        if (left.markup && !right.markup) right = jinja_escape(r, right);
        if (right.markup && !left.markup) left = jinja_escape(r, left);
        Value result = jinja_concat(r, left.as.string, right.as.string);
        result.markup = markup;
        return result;
    }
    if (left.kind == right.kind && (left.kind == V_LIST || left.kind == V_TUPLE)) {
        const List *a = left.as.list, *b = right.as.list;
        List *result = jinja_list_new(r, a->count + b->count);
        jinja_charge(r, a->count + b->count);
        if (a->count) memcpy(result->items, a->items, a->count * sizeof(Value));
        if (b->count) memcpy(result->items + a->count, b->items, b->count * sizeof(Value));
        result->count = a->count + b->count;
        return (Value){.kind = left.kind, .as.list = result};
    }
    if (left.kind == V_STRING || left.kind == V_LIST || left.kind == V_TUPLE) {
        const char *type = left.kind == V_STRING ? "str" : jinja_type_name(left);
        jinja_raise(r, "TypeError", "can only concatenate %s (not \"%s\") to %s", type,
                    jinja_type_name(right), type);
    }
    fail_operands(r, T_ADD, left, right);
}

Value jinja_binary(Render *r, int op, Value left, Value right) {
    if (op == T_MOD && left.kind == V_STRING)
        return jinja_printf(r, left.as.string, right, left.markup);
    if (left.kind == V_UNDEFINED) jinja_raise_undefined(r, left);
    if (right.kind == V_UNDEFINED) jinja_raise_undefined(r, right);
    if (jinja_is_number(left) && jinja_is_number(right)) {
        int64_t a, b;
        if (jinja_as_int(left, &a) && jinja_as_int(right, &b)) return int_binary(r, op, a, b);
        return float_binary(r, op, jinja_as_float(left), jinja_as_float(right));
    }
    if (op == T_ADD) return add_sequences(r, left, right);
    if (op == T_MUL) return multiply(r, left, right);
    fail_operands(r, op, left, right);
}

Value jinja_negate(Render *r, Value value, bool plus) {
    int64_t i;
    if (value.kind == V_UNDEFINED) jinja_raise_undefined(r, value);
    if (value.kind == V_FLOAT) return jinja_float(plus ? value.as.real : -value.as.real);
    if (!jinja_as_int(value, &i))
        jinja_raise(r, "TypeError", "bad operand type for unary %c: '%s'", plus ? '+' : '-',
                    jinja_type_name(value));
    if (!plus && __builtin_sub_overflow((int64_t)0, i, &i)) fail_overflow(r);
    return jinja_int(i);
}

/* ---- slices ---------------------------------------------------------------------- */

/* The code points [from, to) of a string. */
Value jinja_substring(Render *r, const Str *string, size_t from, size_t to) {
    size_t points = jinja_points(string);
    if (points == string->length) return jinja_string_borrow(r, string->data + from, to - from);
    size_t begin = 0, count = 0;
    for (; begin < string->length && count < from; count++) do
            begin++;
        while (begin < string->length && ((unsigned char)string->data[begin] & 0xC0) == 0x80);
    size_t end = begin;
    for (; end < string->length && count < to; count++) do
            end++;
        while (end < string->length && ((unsigned char)string->data[end] & 0xC0) == 0x80);
    jinja_charge(r, end / 64);
    return jinja_string_borrow(r, string->data + begin, end - begin);
}

static int64_t slice_index(Render *r, Value value, int64_t absent, int64_t length, int64_t low,
                           int64_t high) {
    int64_t i;
    if (value.kind == V_NONE || value.kind == V_MISSING) return absent;
    if (!jinja_as_int(value, &i))
        jinja_raise(r, "TypeError",
                    "slice indices must be integers or None or have an __index__ method");
    if (i < 0) i += length;
    return i < low ? low : i > high ? high : i;
}

static Value slice_string(Render *r, const Str *string, int64_t start, int64_t step,
                          int64_t count) {
    size_t mark = jinja_mark(r), points = jinja_points(string);
    if (step == 1) return jinja_substring(r, string, (size_t)start, (size_t)(start + count));
    const size_t *offsets = NULL;
    if (points != string->length) {
        size_t *table = jinja_alloc(r, (points + 1) * sizeof *table), n = 0;
        for (size_t i = 0; i < string->length; i++)
            if (((unsigned char)string->data[i] & 0xC0) != 0x80) table[n++] = i;
        table[n] = string->length;
        offsets = table;
    }
    jinja_charge(r, (size_t)count);
    for (int64_t i = 0; i < count; i++) {
        size_t at = (size_t)(start + i * step);
        if (offsets)
            jinja_write(r, string->data + offsets[at], offsets[at + 1] - offsets[at]);
        else
            jinja_putc(r, string->data[at]);
    }
    return jinja_take(r, mark);
}

Value jinja_slice(Render *r, Value object, Value start, Value stop, Value step) {
    if (object.kind == V_UNDEFINED) jinja_raise_undefined(r, object);
    if (object.kind == V_DICT) jinja_raise(r, "TypeError", "unhashable type: 'slice'");
    if (object.kind != V_STRING && object.kind != V_LIST && object.kind != V_TUPLE &&
        object.kind != V_RANGE)
        jinja_raise(r, "TypeError", "'%s' object is not subscriptable", jinja_type_name(object));
    int64_t length = jinja_length(r, object), by = 1;
    if (step.kind != V_NONE && step.kind != V_MISSING) {
        by = slice_index(r, step, 1, 0, INT64_MIN, INT64_MAX);
        if (by == 0) jinja_raise(r, "ValueError", "slice step cannot be zero");
        by = BASE_MAX(BASE_MIN(by, INT64_MAX / 2), INT64_MIN / 2);
    }
    int64_t low = by < 0 ? -1 : 0, high = by < 0 ? length - 1 : length;
    int64_t from = slice_index(r, start, by < 0 ? high : low, length, low, high);
    int64_t to = slice_index(r, stop, by < 0 ? low : high, length, low, high);
    int64_t count = by > 0 ? (to > from ? (to - from - 1) / by + 1 : 0)
                           : (from > to ? (from - to - 1) / -by + 1 : 0);
    if (object.kind == V_STRING) {
        Value result =
            count ? slice_string(r, object.as.string, from, by, count) : jinja_text(r, "");
        result.markup = object.markup;
        return result;
    }
    if (object.kind == V_RANGE) {
        Range *range = jinja_alloc(r, sizeof *range);
        const Range *old = object.as.range;
        *range = (Range){old->start + from * old->step, old->start + to * old->step,
                         count > 1 ? old->step * by : old->step, count};
        return (Value){.kind = V_RANGE, .as.range = range};
    }
    List *result = jinja_list_new(r, (size_t)count);
    jinja_charge(r, (size_t)count);
    for (int64_t i = 0; i < count; i++) result->items[i] = object.as.list->items[from + i * by];
    result->count = (size_t)count;
    return (Value){.kind = object.kind, .as.list = result};
}

/* ---- attributes and items ------------------------------------------------------------ */

static bool is_one_of(const Str *name, const char *const *names) {
    for (; *names; names++)
        if (strlen(*names) == name->length && memcmp(*names, name->data, name->length) == 0)
            return true;
    return false;
}

/* What changes a list or a dictionary is there, but the sandbox refuses it. */
static bool is_mutator(Value object, const Str *name) {
    static const char *const of_list[] = {"append", "clear",  "pop",    "reverse", "insert",
                                          "sort",   "extend", "remove", NULL};
    static const char *const of_dict[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
    return (object.kind == V_LIST && is_one_of(name, of_list)) ||
           (object.kind == V_DICT && is_one_of(name, of_dict));
}

static bool is_internal(Value object, const Str *name) {
    static const char *const all[] = {
        "__class__",   "__delattr__", "__dir__",           "__doc__",          "__eq__",
        "__format__",  "__ge__",      "__getattribute__",  "__getstate__",     "__gt__",
        "__hash__",    "__init__",    "__init_subclass__", "__le__",           "__lt__",
        "__ne__",      "__new__",     "__reduce__",        "__reduce_ex__",    "__repr__",
        "__setattr__", "__sizeof__",  "__str__",           "__subclasshook__", NULL};
    static const char *const of_functions[] = {"__call__", "__closure__", "__code__", "__globals__",
                                               "__dict__", "__module__",  "__name__", "__self__",
                                               "__func__", NULL};
    static const char *const of_sequences[] = {"__contains__", "__getitem__", "__iter__", "__len__",
                                               "__add__",      "__mul__",     NULL};
    if (object.kind == V_NAMESPACE)
        return is_one_of(name, (const char *const[]){"__class__", NULL});
    if (is_one_of(name, all)) return true;
    if ((object.kind == V_FUNCTION || object.kind == V_BOUND || object.kind == V_MACRO) &&
        is_one_of(name, of_functions))
        return true;
    return (object.kind == V_STRING || object.kind == V_LIST || object.kind == V_TUPLE ||
            object.kind == V_DICT) &&
           is_one_of(name, of_sequences);
}

static Value unsafe(Render *r, Value object, const Str *name) {
    Undef *u = jinja_calloc(r, sizeof *u);
    Value hint =
        jinja_format(r, "access to attribute '%.*s' of '%s' object is unsafe.",
                     (int)BASE_MIN(name->length, (size_t)100), name->data, jinja_type_name(object));
    *u = (Undef){hint.as.string->data, object, {.kind = V_STRING, .as.string = name}, true};
    return (Value){.kind = V_UNDEFINED, .as.undefined = u};
}

static Value loop_property(Render *r, Loop *loop, const Str *name) {
    Value key = {.kind = V_STRING, .as.string = name};
    if (jinja_string_is(key, "index")) return jinja_int(loop->index0 + 1);
    if (jinja_string_is(key, "index0")) return jinja_int(loop->index0);
    if (jinja_string_is(key, "first")) return jinja_bool(loop->index0 == 0);
    if (jinja_string_is(key, "last")) return jinja_bool(!jinja_loop_peek(r, loop));
    if (jinja_string_is(key, "length")) return jinja_int(jinja_loop_length(r, loop));
    if (jinja_string_is(key, "revindex"))
        return jinja_int(jinja_loop_length(r, loop) - loop->index0);
    if (jinja_string_is(key, "revindex0"))
        return jinja_int(jinja_loop_length(r, loop) - loop->index0 - 1);
    if (jinja_string_is(key, "depth")) return jinja_int(loop->depth0 + 1);
    if (jinja_string_is(key, "depth0")) return jinja_int(loop->depth0);
    if (jinja_string_is(key, "previtem"))
        return loop->index0 == 0 ? jinja_undefined(r, "there is no previous item") : loop->before;
    if (jinja_string_is(key, "nextitem"))
        return jinja_loop_peek(r, loop) ? loop->after : jinja_undefined(r, "there is no next item");
    return jinja_missing();
}

static Value macro_property(Render *r, const Macro *macro, const Str *name) {
    Value key = {.kind = V_STRING, .as.string = name};
    if (jinja_string_is(key, "name"))
        return macro->node->name ? (Value){.kind = V_STRING, .as.string = macro->node->name}
                                 : jinja_none();
    if (jinja_string_is(key, "catch_kwargs")) return jinja_bool(macro->node->op & USES_KWARGS);
    if (jinja_string_is(key, "catch_varargs")) return jinja_bool(macro->node->op & USES_VARARGS);
    if (jinja_string_is(key, "caller")) return jinja_bool(macro->node->op & USES_CALLER);
    if (!jinja_string_is(key, "arguments")) return jinja_missing();
    List *names = jinja_list_new(r, macro->node->list.count);
    for (size_t i = 0; i < macro->node->list.count; i++)
        jinja_list_add(r, names,
                       (Value){.kind = V_STRING, .as.string = macro->node->list.items[i]->name});
    return jinja_tuple(names);
}

static Value property(Render *r, Value object, const Str *name) {
    Value key = {.kind = V_STRING, .as.string = name};
    switch (object.kind) {
    case V_LOOP: return loop_property(r, object.as.loop, name);
    case V_MACRO: return macro_property(r, object.as.macro, name);
    case V_NAMESPACE: return jinja_dict_get(r, object.as.dict, key);
    case V_CYCLER:
        if (jinja_string_is(key, "current"))
            return object.as.cycler->items->items[object.as.cycler->position];
        if (jinja_string_is(key, "pos")) return jinja_int((int64_t)object.as.cycler->position);
        return jinja_string_is(key, "items") ? jinja_tuple(object.as.cycler->items)
                                             : jinja_missing();
    case V_JOINER:
        if (jinja_string_is(key, "sep")) return object.as.joiner->separator;
        return jinja_string_is(key, "used") ? jinja_bool(object.as.joiner->used) : jinja_missing();
    case V_TUPLE:
        if (!object.as.list->group) return jinja_missing();
        if (jinja_string_is(key, "grouper")) return object.as.list->items[0];
        return jinja_string_is(key, "list") ? object.as.list->items[1] : jinja_missing();
    case V_RANGE:
        if (jinja_string_is(key, "start")) return jinja_int(object.as.range->start);
        if (jinja_string_is(key, "stop")) return jinja_int(object.as.range->stop);
        return jinja_string_is(key, "step") ? jinja_int(object.as.range->step) : jinja_missing();
    case V_INT:
    case V_BOOL:
    case V_FLOAT:
        if (jinja_string_is(key, "real"))
            return object.kind == V_BOOL ? jinja_int(object.as.truth) : object;
        if (jinja_string_is(key, "imag"))
            return object.kind == V_FLOAT ? jinja_float(0) : jinja_int(0);
        if (object.kind == V_FLOAT) return jinja_missing();
        if (jinja_string_is(key, "numerator")) return jinja_binary(r, T_ADD, object, jinja_int(0));
        return jinja_string_is(key, "denominator") ? jinja_int(1) : jinja_missing();
    default: return jinja_missing();
    }
}

/* The Python attribute of that name, an unsafe undefined, or V_MISSING. */
static Value own_attribute(Render *r, Value object, const Str *name) {
    if (is_mutator(object, name)) return unsafe(r, object, name);
    if (name->length && name->data[0] == '_') {
        if (is_internal(object, name)) return unsafe(r, object, name);
        return jinja_missing();
    }
    Value value = property(r, object, name);
    if (value.kind != V_MISSING) return value;
    const Function *method = jinja_find_method(object, name->data, name->length);
    if (!method) return jinja_missing();
    Bound *bound = jinja_alloc(r, sizeof *bound);
    *bound = (Bound){object, method};
    return (Value){.kind = V_BOUND, .as.bound = bound};
}

/* object[key], or V_MISSING where Python raises a TypeError or LookupError. */
static Value own_item(Render *r, Value object, Value key) {
    int64_t i;
    switch (object.kind) {
    case V_DICT:
        if (key.kind == V_LIST || key.kind == V_DICT) return jinja_missing();
        return jinja_dict_get(r, object.as.dict, key);
    case V_STRING:
    case V_LIST:
    case V_TUPLE:
    case V_RANGE: {
        if (!jinja_as_int(key, &i)) return jinja_missing();
        int64_t length = jinja_length(r, object);
        if (i < 0) i += length;
        if (i < 0 || i >= length) return jinja_missing();
        if (object.kind == V_RANGE)
            return jinja_int(object.as.range->start + i * object.as.range->step);
        if (object.kind != V_STRING) return object.as.list->items[i];
        Value character = jinja_substring(r, object.as.string, (size_t)i, (size_t)i + 1);
        character.markup = object.markup;
        return character;
    }
    default: return jinja_missing();
    }
}

Value jinja_attribute(Render *r, Value object, const Str *name) {
    if (object.kind == V_UNDEFINED) jinja_raise_undefined(r, object);
    Value key = {.kind = V_STRING, .as.string = name};
    Value value = own_attribute(r, object, name);
    if (value.kind == V_MISSING) value = own_item(r, object, key);
    return value.kind == V_MISSING ? jinja_undefined_member(r, object, key) : value;
}

Value jinja_item(Render *r, Value object, Value key) {
    if (object.kind == V_UNDEFINED) jinja_raise_undefined(r, object);
    Value value = own_item(r, object, key);
    if (value.kind == V_MISSING && key.kind == V_STRING)
        value = own_attribute(r, object, key.as.string);
    return value.kind == V_MISSING ? jinja_undefined_member(r, object, key) : value;
}

/* ---- markup ------------------------------------------------------------------------------ */

/* & < > " ' as HTML entities; what is markup already stays. */
Value jinja_escape(Render *r, Value value) {
    Value text = jinja_str(r, value);
    if (text.markup) return text;
    size_t mark = jinja_mark(r);
    const Str *string = text.as.string;
    for (size_t i = 0; i < string->length; i++) {
        switch (string->data[i]) {
        case '&': jinja_puts(r, "&amp;"); break;
        case '<': jinja_puts(r, "&lt;"); break;
        case '>': jinja_puts(r, "&gt;"); break;
        case '"': jinja_puts(r, "&#34;"); break;
        case '\'': jinja_puts(r, "&#39;"); break;
        default: jinja_putc(r, string->data[i]);
        }
    }
    text = jinja_take(r, mark);
    text.markup = true;
    return text;
}
