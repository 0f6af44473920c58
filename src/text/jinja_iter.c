/* jinja_iter: walking over values. Lists, dictionaries, strings and ranges can
 * be walked any number of times; an iterator, such as what map and select
 * give, makes its items when asked and is used up once. */
#include <string.h>

#include "text/jinja.h"

Iter *jinja_iter_new(Render *r, const char *type, bool (*next)(Render *, Iter *, Value *),
                     Value source) {
    Iter *iter = jinja_calloc(r, sizeof *iter);
    iter->type = type;
    iter->next = next;
    iter->source = source;
    return iter;
}

Value jinja_iterator(Iter *iter) {
    return (Value){.kind = V_ITERATOR, .as.iterator = iter};
}

static bool next_item(Render *r, Iter *iter, Value *out) {
    (void)r;
    const List *list = iter->source.as.list;
    if (iter->position >= list->count) return false;
    *out = list->items[iter->position++];
    return true;
}

static bool next_pair(Render *r, Iter *iter, Value *out) {
    bool view = iter->source.kind == V_VIEW;
    const Dict *dict = view ? iter->source.as.view->dict : iter->source.as.dict;
    if (iter->position >= dict->count) return false;
    const Pair *pair = &dict->pairs[iter->position++];
    if (!view || iter->source.as.view->of == VIEW_KEYS)
        *out = pair->key;
    else if (iter->source.as.view->of == VIEW_VALUES)
        *out = pair->value;
    else
        *out = jinja_tuple2(r, pair->key, pair->value);
    return true;
}

static bool next_character(Render *r, Iter *iter, Value *out) {
    const Str *string = iter->source.as.string;
    if (iter->position >= string->length) return false;
    uint32_t point;
    size_t n = base_utf8_decode(string->data + iter->position, string->length - iter->position,
                                &point, NULL);
    *out = jinja_string_borrow(r, string->data + iter->position, n);
    out->markup = false;
    iter->position += n;
    return true;
}

static bool next_number(Render *r, Iter *iter, Value *out) {
    (void)r;
    const Range *range = iter->source.as.range;
    if ((int64_t)iter->position >= range->length) return false;
    *out = jinja_int(range->start + range->step * (int64_t)iter->position);
    iter->position++;
    return true;
}

static bool next_nothing(Render *r, Iter *iter, Value *out) {
    (void)r, (void)iter, (void)out;
    return false;
}

static bool next_of_loop(Render *r, Iter *iter, Value *out) {
    (void)iter;
    (void)out;
    jinja_raise(r, "TypeError", "a loop cannot be walked by its own body");
}

bool jinja_is_iterable(Value value) {
    return jinja_has_length(value) || value.kind == V_ITERATOR;
}

Iter *jinja_iter(Render *r, Value value) {
    switch (value.kind) {
    case V_UNDEFINED: return jinja_iter_new(r, "generator", next_nothing, value);
    case V_LIST: return jinja_iter_new(r, "list_iterator", next_item, value);
    case V_TUPLE: return jinja_iter_new(r, "tuple_iterator", next_item, value);
    case V_DICT:
    case V_VIEW: return jinja_iter_new(r, "dict_keyiterator", next_pair, value);
    case V_STRING: return jinja_iter_new(r, "str_iterator", next_character, value);
    case V_RANGE: return jinja_iter_new(r, "range_iterator", next_number, value);
    case V_LOOP: return jinja_iter_new(r, "LoopContext", next_of_loop, value);
    case V_ITERATOR: return value.as.iterator;
    default: jinja_raise(r, "TypeError", "'%s' object is not iterable", jinja_type_name(value));
    }
}

bool jinja_next(Render *r, Iter *iter, Value *out) {
    jinja_charge(r, 1);
    jinja_check_stack(r); /* iterators over iterators */
    return iter->next(r, iter, out);
}

List *jinja_collect(Render *r, Value value) {
    if (value.kind == V_LIST || value.kind == V_TUPLE) {
        List *copy = jinja_list_new(r, value.as.list->count);
        copy->count = value.as.list->count;
        if (copy->count)
            memcpy(copy->items, value.as.list->items, copy->count * sizeof *copy->items);
        jinja_charge(r, copy->count);
        return copy;
    }
    Iter *iter = jinja_iter(r, value);
    List *list = jinja_list_new(r, 0);
    Value item;
    while (jinja_next(r, iter, &item)) jinja_list_add(r, list, item);
    return list;
}

static bool next_backwards(Render *r, Iter *iter, Value *out) {
    (void)r;
    const List *list = iter->source.as.list;
    if (iter->position >= list->count) return false;
    *out = list->items[list->count - ++iter->position];
    return true;
}

/* Python's reversed(): lists, tuples, ranges and dictionaries only. */
Value jinja_reversed(Render *r, Value value) {
    switch (value.kind) {
    case V_LIST:
        return jinja_iterator(jinja_iter_new(r, "list_reverseiterator", next_backwards, value));
    case V_STRING:
    case V_TUPLE:
    case V_RANGE:
    case V_VIEW:
    case V_DICT: {
        const char *type = value.kind == V_STRING || value.kind == V_TUPLE ? "reversed"
                           : value.kind == V_RANGE                         ? "range_iterator"
                                                   : "dict_reversekeyiterator";
        return jinja_iterator(
            jinja_iter_new(r, type, next_backwards, jinja_list(jinja_collect(r, value))));
    }
    case V_UNDEFINED: return jinja_iterator(jinja_iter(r, value));
    default: jinja_raise(r, "TypeError", "'%s' object is not reversible", jinja_type_name(value));
    }
}
