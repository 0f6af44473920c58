/* jinja_builtins: the functions every template can call (range, dict,
 * namespace, cycler, joiner, raise_exception, strftime_now) and the methods of
 * dictionaries, lists, loops and cyclers. Those of strings are in
 * jinja_strings.c. */
#include <string.h>
#include <time.h>

#include "text/jinja.h"

#define UNUSED (void)r, (void)self, (void)slot, (void)args

/* ---- global functions ----------------------------------------------------------------- */

enum { MAX_RANGE = 100000 };

static Value g_range(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    int64_t numbers[3] = {0, 0, 1};
    if (args->n_named) jinja_raise(r, "TypeError", "range() takes no keyword arguments");
    if (args->count < 1) jinja_raise(r, "TypeError", "range expected at least 1 argument, got 0");
    if (args->count > 3)
        jinja_raise(r, "TypeError", "range expected at most 3 arguments, got %zu", args->count);
    for (size_t i = 0; i < args->count; i++)
        if (!jinja_as_int(args->positional[i], &numbers[args->count == 1 ? 1 : i]))
            jinja_raise(r, "TypeError", "'%s' object cannot be interpreted as an integer",
                        jinja_type_name(args->positional[i]));
    int64_t start = numbers[0], stop = numbers[1], step = numbers[2];
    if (step == 0) jinja_raise(r, "ValueError", "range() arg 3 must not be zero");
    uint64_t distance = 0, stride = step > 0 ? (uint64_t)step : 0 - (uint64_t)step;
    if (step > 0 && stop > start) distance = (uint64_t)stop - (uint64_t)start;
    if (step < 0 && stop < start) distance = (uint64_t)start - (uint64_t)stop;
    uint64_t length = distance ? (distance - 1) / stride + 1 : 0;
    if (length > MAX_RANGE)
        jinja_raise(r, "OverflowError",
                    "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).",
                    MAX_RANGE);
    Range *range = jinja_alloc(r, sizeof *range);
    *range = (Range){start, stop, step, (int64_t)length};
    return (Value){.kind = V_RANGE, .as.range = range};
}

static void add_pairs(Render *r, Dict *dict, Value from) {
    if (from.kind == V_DICT) {
        for (size_t i = 0; i < from.as.dict->count; i++) {
            jinja_charge(r, 1);
            jinja_dict_set(r, dict, from.as.dict->pairs[i].key, from.as.dict->pairs[i].value);
        }
        return;
    }
    List *items = jinja_collect(r, from);
    for (size_t i = 0; i < items->count; i++) {
        if (!jinja_is_iterable(items->items[i]))
            jinja_raise(r, "TypeError",
                        "cannot convert dictionary update sequence element #%zu to a sequence", i);
        List *pair = jinja_collect(r, items->items[i]);
        if (pair->count != 2)
            jinja_raise(r, "ValueError",
                        "dictionary update sequence element #%zu has length %zu; 2 is required", i,
                        pair->count);
        jinja_dict_set(r, dict, pair->items[0], pair->items[1]);
    }
}

static Dict *dict_from(Render *r, const Args *args) {
    Dict *dict = jinja_dict_new(r);
    if (args->count > 1)
        jinja_raise(r, "TypeError", "dict expected at most 1 argument, got %zu", args->count);
    if (args->count) add_pairs(r, dict, args->positional[0]);
    for (size_t i = 0; i < args->n_named; i++)
        jinja_dict_set(r, dict, (Value){.kind = V_STRING, .as.string = args->named[i].name},
                       args->named[i].value);
    return dict;
}

static Value g_dict(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return (Value){.kind = V_DICT, .as.dict = dict_from(r, args)};
}

static Value g_namespace(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    Dict *dict = dict_from(r, args);
    for (size_t i = 0; i < dict->count; i++) {
        Value name = dict->pairs[i].key;
        if (name.kind == V_STRING && name.as.string->length && name.as.string->data[0] == '_')
            jinja_raise(r, "SecurityError",
                        "Chat templates cannot store underscore-prefixed attributes on a "
                        "namespace, but got %s. "
                        "Please rename the attribute.",
                        jinja_repr_text(r, name));
    }
    return (Value){.kind = V_NAMESPACE, .as.dict = dict};
}

static Value g_cycler(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    if (args->count == 0) jinja_raise(r, "RuntimeError", "at least one item has to be provided");
    Cycler *cycler = jinja_calloc(r, sizeof *cycler);
    cycler->items = jinja_list_new(r, args->count);
    for (size_t i = 0; i < args->count; i++) jinja_list_add(r, cycler->items, args->positional[i]);
    return (Value){.kind = V_CYCLER, .as.cycler = cycler};
}

static Value g_joiner(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    Joiner *joiner = jinja_calloc(r, sizeof *joiner);
    joiner->separator = slot[0].kind == V_MISSING ? jinja_text(r, ", ") : slot[0];
    return (Value){.kind = V_JOINER, .as.joiner = joiner};
}

static Value g_raise_exception(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    jinja_raise(r, "TemplateError", "%s", jinja_cstring(r, jinja_str(r, slot[0]).as.string));
}

/* datetime.now().strftime(format): no zone, and %f for microseconds. */
static Value g_strftime_now(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    if (slot[0].kind != V_STRING)
        jinja_raise(r, "TypeError", "strftime() argument 1 must be str, not %s",
                    jinja_type_name(slot[0]));
    struct timespec clock = {0};
    struct tm now;
    clock_gettime(CLOCK_REALTIME, &clock);
    if (r->now) {
        now = *r->now;
        clock.tv_nsec = 0;
    } else {
        localtime_r(&clock.tv_sec, &now);
    }
    const Str *format = slot[0].as.string;
    size_t mark = jinja_mark(r);
    for (size_t i = 0; i < format->length; i++) {
        char c = format->data[i];
        if (c == '%' && i + 1 < format->length && strchr("fzZ", format->data[i + 1]) &&
            format->data[i + 1]) {
            char micros[8];
            snprintf(micros, sizeof micros, "%06d", (int)(clock.tv_nsec / 1000));
            if (format->data[++i] == 'f') jinja_puts(r, micros);
            continue;
        }
        jinja_putc(r, c);
        if (c == '%' && i + 1 < format->length) jinja_putc(r, format->data[++i]);
    }
    jinja_putc(r, '.'); /* so that an empty result is not taken for a failure */
    const char *clean = jinja_take(r, mark).as.string->data;
    char text[4096];
    size_t length = strftime(text, sizeof text, clean, &now);
    if (length == 0) jinja_raise(r, "ValueError", "the date is longer than %zu bytes", sizeof text);
    return jinja_string(r, text, length - 1);
}

static Value g_lipsum(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    jinja_raise(r, "TemplateRuntimeError", "lipsum makes random text and is not supported");
}

static const Function globals[] = {
    {"range", "range", "*", g_range},
    {"dict", "dict", "*", g_dict},
    {"namespace", "namespace", "*", g_namespace},
    {"cycler", "cycler", "*", g_cycler},
    {"joiner", "joiner", "?sep", g_joiner},
    {"lipsum", "lipsum", "*", g_lipsum},
    {"raise_exception", "raise_exception", "message", g_raise_exception},
    {"strftime_now", "strftime_now", "format", g_strftime_now},
};

const Function *jinja_find_global(const char *name, size_t length) {
    return jinja_find(globals, BASE_COUNT(globals), name, length);
}

/* ---- methods ------------------------------------------------------------------------------ */

static Value view(Render *r, Value self, ViewOf of) {
    View *v = jinja_calloc(r, sizeof *v);
    v->of = of;
    v->dict = self.as.dict;
    return (Value){.kind = V_VIEW, .as.view = v};
}

static Value m_keys(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return view(r, self, VIEW_KEYS);
}

static Value m_values(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return view(r, self, VIEW_VALUES);
}

static Value m_items(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return view(r, self, VIEW_ITEMS);
}

static Value m_get(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    Value value = jinja_dict_get(r, self.as.dict, slot[0]);
    if (value.kind != V_MISSING) return value;
    return slot[1].kind == V_MISSING ? jinja_none() : slot[1];
}

static Value m_copy(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    if (self.kind == V_LIST) return jinja_list(jinja_collect(r, self));
    Dict *copy = jinja_dict_new(r);
    add_pairs(r, copy, self);
    return (Value){.kind = V_DICT, .as.dict = copy};
}

static Value m_count(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    int64_t count = 0;
    Iter *iter = jinja_iter(r, self);
    Value item;
    while (jinja_next(r, iter, &item))
        count += jinja_same(item, slot[0]) || jinja_equal(r, item, slot[0]);
    return jinja_int(count);
}

static int64_t bound_of(Render *r, Value value, int64_t absent, int64_t length) {
    int64_t i;
    if (value.kind == V_MISSING) return absent;
    if (!jinja_as_int(value, &i))
        jinja_raise(r, "TypeError", "slice indices must be integers or have an __index__ method");
    return i < 0 ? BASE_MAX(i + length, 0) : BASE_MIN(i, length);
}

static Value m_index(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    int64_t length = jinja_length(r, self), from = bound_of(r, slot[1], 0, length),
            to = bound_of(r, slot[2], length, length);
    List *items = jinja_collect(r, self);
    for (int64_t i = from; i < to; i++)
        if (jinja_same(items->items[i], slot[0]) || jinja_equal(r, items->items[i], slot[0]))
            return jinja_int(i);
    jinja_raise(r, "ValueError", "%s is not in %s", jinja_repr_text(r, slot[0]),
                jinja_type_name(self));
}

static Value m_cycle(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    if (args->count == 0) jinja_raise(r, "TypeError", "no items for cycling given");
    int64_t index = self.as.loop->index0;
    return index < 0 ? args->positional[args->count - 1]
                     : args->positional[(size_t)index % args->count];
}

static Value m_changed(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    List *list = jinja_list_new(r, args->count);
    for (size_t i = 0; i < args->count; i++) jinja_list_add(r, list, args->positional[i]);
    Value now = jinja_tuple(list), before = self.as.loop->changed;
    if (before.kind != V_MISSING && jinja_equal(r, before, now)) return jinja_bool(false);
    self.as.loop->changed = now;
    return jinja_bool(true);
}

static Value m_next(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    Cycler *cycler = self.as.cycler;
    Value current = cycler->items->items[cycler->position];
    cycler->position = (cycler->position + 1) % cycler->items->count;
    return current;
}

static Value m_reset(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    self.as.cycler->position = 0;
    return jinja_none();
}

static Value m_is_integer(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return jinja_bool(self.as.real == (double)(int64_t)self.as.real);
}

static const Function dict_methods[] = {
    {"copy", "dict.copy", "/", m_copy},       {"get", "dict.get", "/key ?default", m_get},
    {"items", "dict.items", "/", m_items},    {"keys", "dict.keys", "/", m_keys},
    {"values", "dict.values", "/", m_values},
};
static const Function list_methods[] = {
    {"count", "list.count", "/value", m_count},
    {"index", "list.index", "/value ?start ?stop", m_index},
    {"copy", "list.copy", "/", m_copy},
};
static const Function loop_methods[] = {
    {"cycle", "cycle", "*", m_cycle},
    {"changed", "changed", "*", m_changed},
};
static const Function cycler_methods[] = {
    {"next", "next", "", m_next},
    {"reset", "reset", "", m_reset},
};
static const Function float_methods[] = {
    {"is_integer", "float.is_integer", "", m_is_integer},
};

const Function *jinja_find_method(Value object, const char *name, size_t length) {
    switch (object.kind) {
    case V_STRING: return jinja_find(jinja_string_methods, jinja_n_string_methods, name, length);
    case V_DICT: return jinja_find(dict_methods, BASE_COUNT(dict_methods), name, length);
    case V_LIST: return jinja_find(list_methods, BASE_COUNT(list_methods), name, length);
    case V_TUPLE:
    case V_RANGE: return jinja_find(list_methods, BASE_COUNT(list_methods) - 1, name, length);
    case V_LOOP: return jinja_find(loop_methods, BASE_COUNT(loop_methods), name, length);
    case V_CYCLER: return jinja_find(cycler_methods, BASE_COUNT(cycler_methods), name, length);
    case V_FLOAT: return jinja_find(float_methods, BASE_COUNT(float_methods), name, length);
    default: return NULL;
    }
}
