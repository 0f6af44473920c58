/* jinja_eval: the value of an expression, and calls: arguments are evaluated,
 * matched to the parameters of a built-in function as Python would, and
 * handed over. Statements are in jinja_exec.c. */
#include <string.h>

#include "text/jinja.h"

/* ---- names --------------------------------------------------------------------- */

static Value lookup(Render *r, const Env *env, const Str *name) {
    for (; env; env = env->parent)
        for (size_t i = env->count; i-- > 0;)
            if (env->vars[i].name == name) return env->vars[i].value;
    Value value = jinja_dict_get_text(r, r->context, name);
    if (value.kind != V_MISSING) return value;
    const Function *global = jinja_find_global(name->data, name->length);
    if (global) return (Value){.kind = V_FUNCTION, .as.function = global};
    return jinja_undefined_name(r, name);
}

/* ---- calls ---------------------------------------------------------------------- */

/* "old new ?count": blanks between, '?' before what may be left out. */
static size_t split_parameters(const char *spec, const char **names, size_t *lengths,
                               size_t *required) {
    size_t n = 0;
    *required = 0;
    while (*spec && n < MAX_PARAMETERS) {
        bool optional = *spec == '?';
        spec += optional;
        names[n] = spec;
        lengths[n] = strcspn(spec, " ");
        spec += lengths[n];
        spec += *spec == ' ';
        n++;
        if (!optional) *required = n;
    }
    return n;
}

static void bind(Render *r, const Function *function, const Args *args, Value *slots) {
    const char *names[MAX_PARAMETERS];
    size_t lengths[MAX_PARAMETERS], required;
    bool by_position = function->parameters[0] == '/';
    size_t n = split_parameters(function->parameters + by_position, names, lengths, &required);
    if (by_position && args->n_named)
        jinja_raise(r, "TypeError", "%s() takes no keyword arguments", function->python_name);
    for (size_t i = 0; i < MAX_PARAMETERS; i++)
        slots[i] = i < args->count ? args->positional[i] : jinja_missing();
    if (args->count > n) { /* Python counts the value before the pipe or the dot */
        char from[32] = "";
        if (required < n) snprintf(from, sizeof from, "from %zu to ", required + 1);
        jinja_raise(r, "TypeError", "%s() takes %s%zu positional argument%s but %zu were given",
                    function->python_name, from, n + 1, n == 0 ? "" : "s", args->count + 1);
    }
    for (size_t k = 0; k < args->n_named; k++) {
        const Str *name = args->named[k].name;
        size_t i = 0;
        while (i < n &&
               (lengths[i] != name->length || memcmp(names[i], name->data, name->length) != 0))
            i++;
        if (i == n)
            jinja_raise(r, "TypeError", "%s() got an unexpected keyword argument '%.*s'",
                        function->python_name, (int)BASE_MIN(name->length, (size_t)100),
                        name->data);
        if (slots[i].kind != V_MISSING)
            jinja_raise(r, "TypeError", "%s() got multiple values for argument '%.*s'",
                        function->python_name, (int)BASE_MIN(name->length, (size_t)100),
                        name->data);
        slots[i] = args->named[k].value;
    }
    for (size_t i = 0; i < required; i++)
        if (slots[i].kind == V_MISSING)
            jinja_raise(r, "TypeError", "%s() missing 1 required positional argument: '%.*s'",
                        function->python_name, (int)lengths[i], names[i]);
}

Value jinja_call_function(Render *r, const Function *function, Value self, const Args *args) {
    Value slots[MAX_PARAMETERS] = {{0}};
    jinja_charge(r, 1);
    if (strcmp(function->parameters, "*") != 0) bind(r, function, args, slots);
    return function->call(r, self, slots, args);
}

Value jinja_call(Render *r, Value callee, const Args *args) {
    jinja_check_stack(r);
    switch (callee.kind) {
    case V_MACRO: return jinja_call_macro(r, callee.as.macro, args);
    case V_FUNCTION: return jinja_call_function(r, callee.as.function, jinja_missing(), args);
    case V_BOUND:
        return jinja_call_function(r, callee.as.bound->function, callee.as.bound->self, args);
    case V_LOOP: return jinja_call_loop(r, callee.as.loop, args);
    case V_JOINER:
        if (callee.as.joiner->used) return callee.as.joiner->separator;
        callee.as.joiner->used = true;
        return jinja_text(r, "");
    case V_UNDEFINED: jinja_raise_undefined(r, callee);
    default: jinja_raise(r, "TypeError", "'%s' object is not callable", jinja_type_name(callee));
    }
}

static void add_named(Render *r, Args *args, size_t *capacity, const Str *name, Value value) {
    if (args->n_named == *capacity) {
        *capacity = *capacity ? *capacity * 2 : 4;
        struct NamedArg *named = jinja_alloc(r, *capacity * sizeof *named);
        if (args->n_named) memcpy(named, args->named, args->n_named * sizeof *named);
        args->named = named;
    }
    args->named[args->n_named++] = (struct NamedArg){name, value};
}

static void add_mapping(Render *r, Args *args, size_t *capacity, Value mapping) {
    if (mapping.kind == V_UNDEFINED) jinja_raise_undefined(r, mapping);
    if (mapping.kind != V_DICT)
        jinja_raise(r, "TypeError", "argument after ** must be a mapping, not %s",
                    jinja_type_name(mapping));
    for (size_t i = 0; i < mapping.as.dict->count; i++) {
        const Pair *pair = &mapping.as.dict->pairs[i];
        if (pair->key.kind != V_STRING) jinja_raise(r, "TypeError", "keywords must be strings");
        const Str *name = pair->key.as.string;
        for (size_t k = 0; k < args->n_named; k++) {
            const Str *other = args->named[k].name;
            if (other->length == name->length && memcmp(other->data, name->data, name->length) == 0)
                jinja_raise(r, "TypeError", "got multiple values for keyword argument %s",
                            jinja_repr_text(r, pair->key));
        }
        add_named(r, args, capacity, name, pair->value);
        jinja_charge(r, 1 + args->n_named / 8);
    }
}

static Args eval_args(Render *r, Env *env, const Node *node, const Value *caller) {
    Args args = {0};
    size_t capacity = 0;
    if (node->list.count)
        args.positional = jinja_alloc(r, node->list.count * sizeof *args.positional);
    for (size_t i = 0; i < node->list.count; i++)
        args.positional[args.count++] = jinja_eval(r, env, node->list.items[i]);
    if (node->star) {
        List *more = jinja_collect(r, jinja_eval(r, env, node->star));
        Value *all = jinja_alloc(r, (args.count + more->count) * sizeof *all);
        if (args.count) memcpy(all, args.positional, args.count * sizeof *all);
        if (more->count) memcpy(all + args.count, more->items, more->count * sizeof *all);
        args.positional = all;
        args.count += more->count;
    }
    for (size_t i = 0; i < node->named.count; i++)
        add_named(r, &args, &capacity, node->names[i], jinja_eval(r, env, node->named.items[i]));
    if (caller) add_named(r, &args, &capacity, r->parsed->caller, *caller);
    if (node->star_star) add_mapping(r, &args, &capacity, jinja_eval(r, env, node->star_star));
    r->line = node->line;
    return args;
}

/* `caller`, when not NULL, is what a call block hands to its macro. */
Value jinja_call_node(Render *r, Env *env, const Node *call, const Value *caller) {
    Value callee = jinja_eval(r, env, call->a);
    Args args = eval_args(r, env, call, caller);
    return jinja_call(r, callee, &args);
}

Value jinja_apply_filters(Render *r, Env *env, const Node *node, Value input) {
    if (!node) return input;
    Value value = jinja_apply_filters(r, env, node->a, input);
    Args args = eval_args(r, env, node, NULL);
    return jinja_call_function(r, node->function, value, &args);
}

static Value eval_filter(Render *r, Env *env, const Node *node) {
    Value value = jinja_eval(r, env, node->a);
    Args args = eval_args(r, env, node, NULL);
    if (!node->function)
        jinja_raise(r, "TemplateRuntimeError", "No filter named '%s' found.", node->name->data);
    return jinja_call_function(r, node->function, value, &args);
}

bool jinja_test(Render *r, const Function *test, Value value, const Args *args) {
    return jinja_truth(r, jinja_call_function(r, test, value, args));
}

static Value eval_test(Render *r, Env *env, const Node *node) {
    Value value = jinja_eval(r, env, node->a);
    Args args = eval_args(r, env, node, NULL);
    if (!node->function)
        jinja_raise(r, "TemplateRuntimeError", "No test named '%s' found.", node->name->data);
    return jinja_bool(jinja_test(r, node->function, value, &args) != node->flag);
}

/* ---- operators ---------------------------------------------------------------------- */

static bool compare(Render *r, int op, Value left, Value right) {
    switch (op) {
    case T_EQ: return jinja_equal(r, left, right);
    case T_NE: return !jinja_equal(r, left, right);
    case T_IN: return jinja_contains(r, right, left);
    case T_NOT_IN: return !jinja_contains(r, right, left);
    default: return jinja_ordered(r, op, left, right);
    }
}

static Value eval_compare(Render *r, Env *env, const Node *node) {
    Value left = jinja_eval(r, env, node->a);
    for (size_t i = 0; i < node->list.count; i++) {
        Value right = jinja_eval(r, env, node->list.items[i]->a);
        if (!compare(r, node->list.items[i]->op, left, right)) return jinja_bool(false);
        left = right;
    }
    return jinja_bool(true);
}

static Value eval_items(Render *r, Env *env, const Node *node) {
    List *list = jinja_list_new(r, node->list.count);
    for (size_t i = 0; i < node->list.count; i++)
        jinja_list_add(r, list, jinja_eval(r, env, node->list.items[i]));
    return node->kind == N_LIST ? jinja_list(list) : jinja_tuple(list);
}

static Value eval_dict(Render *r, Env *env, const Node *node) {
    Dict *dict = jinja_dict_new(r);
    for (size_t i = 0; i < node->list.count; i++) {
        Value key = jinja_eval(r, env, node->list.items[i]);
        jinja_dict_set(r, dict, key, jinja_eval(r, env, node->orelse.items[i]));
    }
    return (Value){.kind = V_DICT, .as.dict = dict};
}

static Value eval_concat(Render *r, Env *env, const Node *node) {
    List *parts = jinja_list_new(r, node->list.count);
    for (size_t i = 0; i < node->list.count; i++)
        jinja_list_add(r, parts, jinja_eval(r, env, node->list.items[i]));
    Value text = jinja_str(r, parts->items[0]);
    for (size_t i = 1; i < parts->count; i++)
        text = jinja_concat(r, text.as.string, jinja_str(r, parts->items[i]).as.string);
    return jinja_plain(text);
}

static Value eval_condition(Render *r, Env *env, const Node *node) {
    if (jinja_truth(r, jinja_eval(r, env, node->a))) return jinja_eval(r, env, node->b);
    if (node->c) return jinja_eval(r, env, node->c);
    Value hint = jinja_format(
        r,
        "the inline if-expression on line %d evaluated to false and no else section was defined.",
        node->line);
    return jinja_undefined(r, hint.as.string->data);
}

static Value eval_item(Render *r, Env *env, const Node *node) {
    Value object = jinja_eval(r, env, node->a);
    if (node->b->kind != N_SLICE) {
        Value key = jinja_eval(r, env, node->b);
        r->line = node->line;
        return jinja_item(r, object, key);
    }
    const Node *slice = node->b;
    Value start = slice->a ? jinja_eval(r, env, slice->a) : jinja_missing();
    Value stop = slice->b ? jinja_eval(r, env, slice->b) : jinja_missing();
    Value step = slice->c ? jinja_eval(r, env, slice->c) : jinja_missing();
    r->line = node->line;
    return jinja_slice(r, object, start, stop, step);
}

static Value eval_binary(Render *r, Env *env, const Node *node) {
    Value left = jinja_eval(r, env, node->a);
    Value right = jinja_eval(r, env, node->b);
    r->line = node->line;
    return jinja_binary(r, node->op, left, right);
}

Value jinja_eval(Render *r, Env *env, const Node *node) {
    jinja_charge(r, 1);
    if (node->kind == N_CONST) return node->value;
    jinja_check_stack(r);
    r->line = node->line;
    Value value;
    switch (node->kind) {
    case N_NAME: return lookup(r, env, node->name);
    case N_LIST:
    case N_TUPLE: return eval_items(r, env, node);
    case N_DICT: return eval_dict(r, env, node);
    case N_COND: return eval_condition(r, env, node);
    case N_AND:
        value = jinja_eval(r, env, node->a);
        return jinja_truth(r, value) ? jinja_eval(r, env, node->b) : value;
    case N_OR:
        value = jinja_eval(r, env, node->a);
        return jinja_truth(r, value) ? value : jinja_eval(r, env, node->b);
    case N_NOT: return jinja_bool(!jinja_truth(r, jinja_eval(r, env, node->a)));
    case N_NEGATE:
    case N_PLUS: return jinja_negate(r, jinja_eval(r, env, node->a), node->kind == N_PLUS);
    case N_BINARY: return eval_binary(r, env, node);
    case N_CONCAT: return eval_concat(r, env, node);
    case N_COMPARE: return eval_compare(r, env, node);
    case N_ATTRIBUTE: return jinja_attribute(r, jinja_eval(r, env, node->a), node->name);
    case N_ITEM: return eval_item(r, env, node);
    case N_CALL: return jinja_call_node(r, env, node, NULL);
    case N_FILTER: return eval_filter(r, env, node);
    case N_TEST: return eval_test(r, env, node);
    default: jinja_raise(r, "InternalError", "a statement where an expression was expected");
    }
}
