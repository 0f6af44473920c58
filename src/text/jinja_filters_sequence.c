/* jinja_filters_sequence: the filters on lists, dictionaries and iterators.
 * map, select and their kin are lazy, as in jinja2: they give an iterator that
 * works when it is walked. Sorting and comparing ignore case unless told
 * otherwise. */
#include <string.h>
#include <time.h>

#include "text/jinja.h"

#define UNUSED (void)r, (void)self, (void)slot, (void)args

/* ---- attributes of items ------------------------------------------------------------ */

/* "address.city.0" as the keys to follow; none for a missing attribute. */
static List *attribute_path(Render *r, Value attribute) {
    List *path = jinja_list_new(r, 0);
    if (attribute.kind == V_NONE || attribute.kind == V_MISSING) return path;
    if (attribute.kind != V_STRING) {
        jinja_list_add(r, path, attribute);
        return path;
    }
    List *parts = jinja_split(r, attribute.as.string, jinja_text(r, "."), -1, false);
    for (size_t i = 0; i < parts->count; i++) {
        const Str *part = parts->items[i].as.string;
        int64_t number;
        bool overflow, digits = part->length > 0;
        for (size_t c = 0; c < part->length; c++)
            digits &= part->data[c] >= '0' && part->data[c] <= '9';
        if (digits && jinja_parse_int(part, 10, &number, &overflow))
            jinja_list_add(r, path, jinja_int(number));
        else
            jinja_list_add(r, path, parts->items[i]);
    }
    return path;
}

static Value follow(Render *r, const List *path, Value item, Value fallback) {
    for (size_t i = 0; i < path->count; i++) {
        item = jinja_item(r, item, path->items[i]);
        if (item.kind == V_UNDEFINED && fallback.kind != V_MISSING && fallback.kind != V_NONE)
            item = fallback;
    }
    return item;
}

static Value ignoring_case(Render *r, Value value, bool case_sensitive) {
    return value.kind == V_STRING && !case_sensitive ? jinja_case(r, value, CASE_LOWER) : value;
}

/* ---- lazy filters ------------------------------------------------------------------------ */

typedef struct Lazy {
    Value value;
    Args args;
    bool prepared;
    bool attribute; /* the first argument names an attribute */
    bool reject;
    List *path;
    Value fallback;
    const Function *function;
    Args rest; /* for the filter or the test */
} Lazy;

static Args rest_of(const Args *args, size_t from) {
    Args rest = *args;
    rest.positional = args->count > from ? args->positional + from : NULL;
    rest.count = args->count > from ? args->count - from : 0;
    return rest;
}

static const Function *function_named(Render *r, Value name, bool filter) {
    const Function *found = NULL;
    if (name.kind == V_STRING)
        found = filter ? jinja_find_filter(name.as.string->data, name.as.string->length)
                       : jinja_find_test(name.as.string->data, name.as.string->length);
    if (!found)
        jinja_raise(r, "TemplateRuntimeError", "No %s named %s.", filter ? "filter" : "test",
                    jinja_repr_text(r, name));
    return found;
}

static bool named_is(const struct NamedArg *argument, const char *name) {
    return jinja_string_is((Value){.kind = V_STRING, .as.string = argument->name}, name);
}

static void prepare_map(Render *r, Lazy *lazy) {
    bool by_attribute = false;
    lazy->fallback = jinja_missing();
    for (size_t i = 0; i < lazy->args.n_named; i++)
        by_attribute |= named_is(&lazy->args.named[i], "attribute");
    if (lazy->args.count == 0 && by_attribute) {
        for (size_t i = 0; i < lazy->args.n_named; i++) {
            const struct NamedArg *argument = &lazy->args.named[i];
            if (named_is(argument, "attribute"))
                lazy->path = attribute_path(r, argument->value);
            else if (named_is(argument, "default"))
                lazy->fallback = argument->value;
            else
                jinja_raise(
                    r, "FilterArgumentError", "Unexpected keyword argument %s",
                    jinja_repr_text(r, (Value){.kind = V_STRING, .as.string = argument->name}));
        }
        return;
    }
    if (lazy->args.count == 0)
        jinja_raise(r, "FilterArgumentError", "map requires a filter argument");
    lazy->function = function_named(r, lazy->args.positional[0], true);
    lazy->rest = rest_of(&lazy->args, 1);
}

static void prepare_select(Render *r, Lazy *lazy) {
    size_t at = lazy->attribute ? 1 : 0;
    if (lazy->attribute && lazy->args.count == 0)
        jinja_raise(r, "FilterArgumentError", "Missing parameter for attribute name");
    if (lazy->attribute) lazy->path = attribute_path(r, lazy->args.positional[0]);
    if (lazy->args.count <= at) return;
    lazy->function = function_named(r, lazy->args.positional[at], false);
    lazy->rest = rest_of(&lazy->args, at + 1);
}

/* Nothing is looked at before the first item is asked for; an empty value is
 * never looked at. */
static bool start(Render *r, Iter *iter, Lazy *lazy, void (*prepare)(Render *, Lazy *)) {
    if (lazy->prepared) return iter->inner != NULL;
    lazy->prepared = true;
    if (!jinja_truth(r, lazy->value)) return false;
    prepare(r, lazy);
    iter->inner = jinja_iter(r, lazy->value);
    return true;
}

static bool next_mapped(Render *r, Iter *iter, Value *out) {
    Lazy *lazy = iter->state;
    Value item;
    if (!start(r, iter, lazy, prepare_map) || !jinja_next(r, iter->inner, &item)) return false;
    *out = lazy->function ? jinja_call_function(r, lazy->function, item, &lazy->rest)
                          : follow(r, lazy->path, item, lazy->fallback);
    return true;
}

static bool next_selected(Render *r, Iter *iter, Value *out) {
    Lazy *lazy = iter->state;
    if (!start(r, iter, lazy, prepare_select)) return false;
    while (jinja_next(r, iter->inner, out)) {
        Value value = lazy->path ? follow(r, lazy->path, *out, jinja_missing()) : *out;
        bool chosen = lazy->function ? jinja_test(r, lazy->function, value, &lazy->rest)
                                     : jinja_truth(r, value);
        if (chosen != lazy->reject) return true;
    }
    return false;
}

static Value lazy_new(Render *r, Value self, const Args *args,
                      bool (*next)(Render *, Iter *, Value *), bool attribute, bool reject) {
    Lazy *lazy = jinja_calloc(r, sizeof *lazy);
    lazy->value = self;
    lazy->args = *args;
    lazy->attribute = attribute;
    lazy->reject = reject;
    Iter *iter = jinja_iter_new(r, "generator", next, self);
    iter->state = lazy;
    return jinja_iterator(iter);
}

static Value f_map(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return lazy_new(r, self, args, next_mapped, false, false);
}

static Value f_select(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return lazy_new(r, self, args, next_selected, false, false);
}

static Value f_reject(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return lazy_new(r, self, args, next_selected, false, true);
}

static Value f_selectattr(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return lazy_new(r, self, args, next_selected, true, false);
}

static Value f_rejectattr(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return lazy_new(r, self, args, next_selected, true, true);
}

/* Filters that need everything before the first item, but not before it. */
typedef struct Later {
    Value value, first, second;
    List *(*work)(Render *r, Value value, Value first, Value second);
} Later;

static bool next_later(Render *r, Iter *iter, Value *out) {
    Later *later = iter->state;
    if (!iter->inner)
        iter->inner =
            jinja_iter(r, jinja_list(later->work(r, later->value, later->first, later->second)));
    return jinja_next(r, iter->inner, out);
}

static Value later(Render *r, Value self, const Value *slot,
                   List *(*work)(Render *, Value, Value, Value)) {
    Later *state = jinja_alloc(r, sizeof *state);
    *state = (Later){self, slot[0], slot[1], work};
    Iter *iter = jinja_iter_new(r, "generator", next_later, self);
    iter->state = state;
    return jinja_iterator(iter);
}

static List *work_items(Render *r, Value value, Value first, Value second) {
    (void)first, (void)second;
    List *list = jinja_list_new(r, 0);
    if (value.kind == V_UNDEFINED) return list;
    if (value.kind != V_DICT)
        jinja_raise(r, "TypeError", "Can only get item pairs from a mapping.");
    for (size_t i = 0; i < value.as.dict->count; i++)
        jinja_list_add(r, list,
                       jinja_tuple2(r, value.as.dict->pairs[i].key, value.as.dict->pairs[i].value));
    return list;
}

static int64_t need_count(Render *r, Value value) {
    int64_t count;
    if (!jinja_as_int(value, &count))
        jinja_raise(r, "TypeError", "'%s' object cannot be interpreted as an integer",
                    jinja_type_name(value));
    return count;
}

static List *work_batch(Render *r, Value value, Value line_count, Value fill) {
    int64_t count = need_count(r, line_count);
    List *result = jinja_list_new(r, 0), *all = jinja_collect(r, value),
         *line = jinja_list_new(r, 0);
    for (size_t i = 0; i < all->count; i++) {
        if ((int64_t)line->count == count) {
            jinja_list_add(r, result, jinja_list(line));
            line = jinja_list_new(r, 0);
        }
        jinja_list_add(r, line, all->items[i]);
    }
    if (line->count == 0) return result;
    while (fill.kind != V_MISSING && fill.kind != V_NONE && (int64_t)line->count < count) {
        jinja_charge(r, 1);
        jinja_list_add(r, line, fill);
    }
    jinja_list_add(r, result, jinja_list(line));
    return result;
}

static List *work_slice(Render *r, Value value, Value slices, Value fill) {
    int64_t count = need_count(r, slices);
    List *result = jinja_list_new(r, 0), *all = jinja_collect(r, value);
    if (count == 0) jinja_raise(r, "ZeroDivisionError", "integer division or modulo by zero");
    if (count < 0) return result;
    size_t per_slice = all->count / (size_t)count, extra = all->count % (size_t)count, at = 0;
    for (size_t i = 0; i < (size_t)count; i++) {
        jinja_charge(r, 1);
        List *part = jinja_list_new(r, 0);
        size_t end = at + per_slice + (i < extra);
        while (at < end) jinja_list_add(r, part, all->items[at++]);
        if (fill.kind != V_MISSING && fill.kind != V_NONE && i >= extra)
            jinja_list_add(r, part, fill);
        jinja_list_add(r, result, jinja_list(part));
    }
    return result;
}

static List *work_unique(Render *r, Value value, Value case_sensitive, Value attribute) {
    List *result = jinja_list_new(r, 0), *path = attribute_path(r, attribute);
    bool sensitive = jinja_truth(r, case_sensitive);
    Dict *seen = jinja_dict_new(r);
    Iter *iter = jinja_iter(r, value);
    Value item;
    while (jinja_next(r, iter, &item)) {
        Value key = ignoring_case(r, follow(r, path, item, jinja_missing()), sensitive);
        if (jinja_dict_get(r, seen, key).kind != V_MISSING) continue;
        jinja_dict_set(r, seen, key, jinja_none());
        jinja_list_add(r, result, item);
    }
    return result;
}

static Value f_items(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return later(r, self, slot, work_items);
}

static Value f_batch(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return later(r, self, slot, work_batch);
}

static Value f_slice(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return later(r, self, slot, work_slice);
}

static Value f_unique(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return later(r, self, slot, work_unique);
}

/* ---- sorting --------------------------------------------------------------------------------- */

static Value pairs_to_list(Render *r, const Pair *pairs, size_t count) {
    List *list = jinja_list_new(r, count);
    for (size_t i = 0; i < count; i++) jinja_list_add(r, list, pairs[i].value);
    return jinja_list(list);
}

/* The key of sort: a list of one value for each attribute of "a,b.c". */
static Value sort_key(Render *r, const List *paths, Value item, bool case_sensitive) {
    List *key = jinja_list_new(r, paths->count);
    for (size_t i = 0; i < paths->count; i++) {
        Value value = follow(r, paths->items[i].as.list, item, jinja_missing());
        jinja_list_add(r, key, ignoring_case(r, value, case_sensitive));
    }
    return jinja_list(key);
}

static Value f_sort(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    List *items = jinja_collect(r, self), *paths = jinja_list_new(r, 0);
    if (slot[2].kind == V_STRING) {
        List *parts = jinja_split(r, slot[2].as.string, jinja_text(r, ","), -1, false);
        for (size_t i = 0; i < parts->count; i++)
            jinja_list_add(r, paths, jinja_list(attribute_path(r, parts->items[i])));
    } else {
        jinja_list_add(r, paths, jinja_list(attribute_path(r, slot[2])));
    }
    Pair *pairs = jinja_alloc(r, (items->count + 1) * sizeof *pairs);
    for (size_t i = 0; i < items->count; i++)
        pairs[i] = (Pair){sort_key(r, paths, items->items[i], jinja_truth(r, slot[1])),
                          items->items[i], 0};
    jinja_sort(r, pairs, items->count, jinja_truth(r, slot[0]));
    return pairs_to_list(r, pairs, items->count);
}

static Value f_dictsort(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    bool by_value = jinja_string_is(slot[1], "value");
    if (!by_value && slot[1].kind != V_MISSING && !jinja_string_is(slot[1], "key"))
        jinja_raise(r, "FilterArgumentError", "You can only sort by either \"key\" or \"value\"");
    if (self.kind == V_UNDEFINED) jinja_raise_undefined(r, self);
    if (self.kind != V_DICT)
        jinja_raise(r, "AttributeError", "'%s' object has no attribute 'items'",
                    jinja_type_name(self));
    const Dict *dict = self.as.dict;
    Pair *pairs = jinja_alloc(r, (dict->count + 1) * sizeof *pairs);
    for (size_t i = 0; i < dict->count; i++) {
        Value key = by_value ? dict->pairs[i].value : dict->pairs[i].key;
        pairs[i] = (Pair){ignoring_case(r, key, jinja_truth(r, slot[0])),
                          jinja_tuple2(r, dict->pairs[i].key, dict->pairs[i].value), 0};
    }
    jinja_sort(r, pairs, dict->count, jinja_truth(r, slot[2]));
    return pairs_to_list(r, pairs, dict->count);
}

static Value f_groupby(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    List *items = jinja_collect(r, self), *path = attribute_path(r, slot[0]),
         *groups = jinja_list_new(r, 0);
    bool sensitive = jinja_truth(r, slot[2]);
    Pair *pairs = jinja_alloc(r, (items->count + 1) * sizeof *pairs);
    for (size_t i = 0; i < items->count; i++)
        pairs[i] = (Pair){ignoring_case(r, follow(r, path, items->items[i], slot[1]), sensitive),
                          items->items[i], 0};
    jinja_sort(r, pairs, items->count, false);
    for (size_t i = 0; i < items->count;) {
        List *members = jinja_list_new(r, 0);
        size_t first = i;
        while (i < items->count && jinja_equal(r, pairs[i].key, pairs[first].key))
            jinja_list_add(r, members, pairs[i++].value);
        Value key = sensitive ? pairs[first].key : follow(r, path, pairs[first].value, slot[1]);
        Value group = jinja_tuple2(r, key, jinja_list(members));
        group.as.list->group = true;
        jinja_list_add(r, groups, group);
        if (i == first) i++; /* a NaN is not equal to itself */
    }
    return jinja_list(groups);
}

static Value extreme(Render *r, Value self, Value *slot, int op) {
    Iter *iter = jinja_iter(r, self);
    List *path = attribute_path(r, slot[1]);
    bool sensitive = jinja_truth(r, slot[0]);
    Value best, item;
    if (!jinja_next(r, iter, &best))
        return jinja_undefined(r, "No aggregated item, sequence was empty.");
    Value best_key = ignoring_case(r, follow(r, path, best, jinja_missing()), sensitive);
    while (jinja_next(r, iter, &item)) {
        Value key = ignoring_case(r, follow(r, path, item, jinja_missing()), sensitive);
        if (!jinja_ordered(r, op, key, best_key)) continue;
        best = item;
        best_key = key;
    }
    return best;
}

static Value f_min(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return extreme(r, self, slot, T_LT);
}

static Value f_max(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return extreme(r, self, slot, T_GT);
}

/* ---- the rest
 * ------------------------------------------------------------------------------------ */

static Value f_length(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return jinja_int(jinja_length(r, self));
}

static Value f_list(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    return jinja_list(jinja_collect(r, self));
}

static Value f_first(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    Value item;
    return jinja_next(r, jinja_iter(r, self), &item)
               ? item
               : jinja_undefined(r, "No first item, sequence was empty.");
}

static Value f_last(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    Value item;
    bool found = jinja_next(r, jinja_reversed(r, self).as.iterator, &item);
    return found ? item : jinja_undefined(r, "No last item, sequence was empty.");
}

static Value f_random(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    int64_t length = jinja_length(r, self);
    if (length == 0) return jinja_undefined(r, "No random item, sequence was empty.");
    if (self.kind == V_VIEW)
        jinja_raise(r, "TypeError", "'%s' object is not subscriptable", jinja_type_name(self));
    MersenneTwister *twister = jinja_alloc(r, sizeof *twister);
    struct timespec clock;
    clock_gettime(CLOCK_REALTIME, &clock);
    base_mersenne_python(twister, (uint64_t)clock.tv_sec << 30 ^ (uint64_t)clock.tv_nsec);
    return jinja_item(r, self, jinja_int(base_mersenne_next(twister) % length));
}

static Value f_reverse(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    if (self.kind == V_STRING)
        return jinja_slice(r, self, jinja_missing(), jinja_missing(), jinja_int(-1));
    if (self.kind != V_ITERATOR && jinja_is_iterable(self)) return jinja_reversed(r, self);
    if (self.kind != V_ITERATOR) jinja_raise(r, "FilterArgumentError", "argument must be iterable");
    return jinja_slice(r, jinja_list(jinja_collect(r, self)), jinja_missing(), jinja_missing(),
                       jinja_int(-1));
}

static Value f_join(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    Value separator = slot[0].kind == V_MISSING ? jinja_text(r, "") : jinja_str(r, slot[0]);
    List *path = attribute_path(r, slot[1]), *items = jinja_collect(r, self);
    size_t mark = jinja_mark(r);
    for (size_t i = 0; i < items->count; i++) {
        if (i) jinja_write_str(r, separator);
        Value item = jinja_str(r, follow(r, path, items->items[i], jinja_missing()));
        jinja_write_str(r, item);
    }
    return jinja_take(r, mark);
}

static Value f_sum(Render *r, Value self, Value *slot, const Args *args) {
    UNUSED;
    List *path = attribute_path(r, slot[0]);
    Value total = slot[1].kind == V_MISSING ? jinja_int(0) : slot[1], item;
    if (total.kind == V_STRING)
        jinja_raise(r, "TypeError", "sum() can't sum strings [use ''.join(seq) instead]");
    Iter *iter = jinja_iter(r, self);
    while (jinja_next(r, iter, &item))
        total = jinja_binary(r, T_ADD, total, follow(r, path, item, jinja_missing()));
    return total;
}

const Function jinja_sequence_filters[] = {
    {"batch", "do_batch", "linecount ?fill_with", f_batch},
    {"count", "len", "", f_length},
    {"dictsort", "do_dictsort", "?case_sensitive ?by ?reverse", f_dictsort},
    {"first", "do_first", "", f_first},
    {"groupby", "do_groupby", "attribute ?default ?case_sensitive", f_groupby},
    {"items", "do_items", "", f_items},
    {"join", "do_join", "?d ?attribute", f_join},
    {"last", "do_last", "", f_last},
    {"length", "len", "", f_length},
    {"list", "do_list", "", f_list},
    {"map", "do_map", "*", f_map},
    {"max", "do_max", "?case_sensitive ?attribute", f_max},
    {"min", "do_min", "?case_sensitive ?attribute", f_min},
    {"random", "do_random", "", f_random},
    {"reject", "do_reject", "*", f_reject},
    {"rejectattr", "do_rejectattr", "*", f_rejectattr},
    {"reverse", "do_reverse", "", f_reverse},
    {"select", "do_select", "*", f_select},
    {"selectattr", "do_selectattr", "*", f_selectattr},
    {"slice", "do_slice", "slices ?fill_with", f_slice},
    {"sort", "do_sort", "?reverse ?case_sensitive ?attribute", f_sort},
    {"sum", "do_sum", "?attribute ?start", f_sum},
    {"unique", "do_unique", "?case_sensitive ?attribute", f_unique},
};
const size_t jinja_n_sequence_filters = BASE_COUNT(jinja_sequence_filters);
