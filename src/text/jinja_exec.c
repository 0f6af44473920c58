/* jinja_exec: the statements of a template. Scopes follow jinja2: for, macro,
 * call, filter, with, block and set blocks have their own variables, if has
 * not, and each pass of a loop starts from the values around it. A macro sees
 * the variables of the place where it was defined, as they are when it runs. */
#include <string.h>

#include "text/jinja.h"

enum { MAX_CALLS = 200 }; /* macros and recursive loops inside each other */

/* ---- variables -------------------------------------------------------------------- */

Env *jinja_env_new(Render *r, Env *parent) {
    Env *env = jinja_calloc(r, sizeof *env);
    env->parent = parent;
    return env;
}

void jinja_env_set(Render *r, Env *env, const Str *name, Value value) {
    for (size_t i = 0; i < env->count; i++) {
        if (env->vars[i].name != name) continue;
        env->vars[i].value = value;
        return;
    }
    if (env->count == env->capacity) {
        size_t capacity = env->capacity ? env->capacity * 2 : 4;
        Var *vars = jinja_alloc(r, capacity * sizeof *vars);
        if (env->count) memcpy(vars, env->vars, env->count * sizeof *vars);
        env->vars = vars;
        env->capacity = capacity;
    }
    env->vars[env->count++] = (Var){name, value};
}

/* Namespaces are checked before the value is worked out, as jinja2 does. */
static void check_members(Render *r, Env *env, const Node *target) {
    if (target->kind == N_TUPLE)
        for (size_t i = 0; i < target->list.count; i++)
            check_members(r, env, target->list.items[i]);
    if (target->kind != N_MEMBER) return;
    if (jinja_eval(r, env, target->a).kind != V_NAMESPACE)
        jinja_raise(r, "TemplateRuntimeError", "cannot assign attribute on non-namespace object");
}

static void assign_member(Render *r, Env *env, const Node *target, Value value) {
    Value space = jinja_eval(r, env, target->a);
    if (target->name->length && target->name->data[0] == '_')
        jinja_raise(r, "SecurityError",
                    "Chat templates cannot store underscore-prefixed attributes on a namespace, "
                    "but got '%s'. "
                    "Please rename the attribute.",
                    target->name->data);
    if (space.kind != V_NAMESPACE)
        jinja_raise(r, "TemplateRuntimeError", "cannot assign attribute on non-namespace object");
    jinja_dict_set(r, space.as.dict, (Value){.kind = V_STRING, .as.string = target->name}, value);
}

static void assign(Render *r, Env *env, const Node *target, Value value) {
    if (target->kind == N_NAME) {
        jinja_env_set(r, env, target->name, value);
        return;
    }
    if (target->kind == N_MEMBER) {
        assign_member(r, env, target, value);
        return;
    }
    if (!jinja_is_iterable(value))
        jinja_raise(r, "TypeError", "cannot unpack non-iterable %s object", jinja_type_name(value));
    Iter *iter = jinja_iter(r, value);
    size_t expected = target->list.count;
    Value item;
    List *items = jinja_list_new(r, expected);
    while (items->count <= expected && jinja_next(r, iter, &item)) jinja_list_add(r, items, item);
    if (items->count < expected)
        jinja_raise(r, "ValueError", "not enough values to unpack (expected %zu, got %zu)",
                    expected, items->count);
    if (items->count > expected)
        jinja_raise(r, "ValueError", "too many values to unpack (expected %zu)", expected);
    for (size_t i = 0; i < expected; i++) assign(r, env, target->list.items[i], items->items[i]);
}

/* ---- captured output ----------------------------------------------------------------- */

static size_t begin_capture(Render *r) {
    if (r->captures++ == 0) r->capture_start = r->out.length;
    return jinja_mark(r);
}

static Value end_capture(Render *r, size_t mark) {
    r->captures--;
    return jinja_take(r, mark);
}

/* ---- loops ------------------------------------------------------------------------------ */

bool jinja_loop_peek(Render *r, Loop *loop) {
    if (loop->after.kind == V_MISSING) {
        Value item;
        if (!jinja_next(r, loop->iter, &item)) return false;
        loop->after = item;
    }
    return true;
}

/* Of a lazy sequence: what is left is collected, and walked from there. */
int64_t jinja_loop_length(Render *r, Loop *loop) {
    if (loop->length >= 0) return loop->length;
    if (jinja_has_length(loop->iterable)) return loop->length = jinja_length(r, loop->iterable);
    List *rest = jinja_collect(r, jinja_iterator(loop->iter));
    loop->iter = jinja_iter(r, jinja_list(rest));
    return loop->length = (int64_t)rest->count + loop->index0 + 1 + (loop->after.kind != V_MISSING);
}

static bool loop_next(Render *r, Loop *loop) {
    Value item;
    if (loop->after.kind != V_MISSING) {
        item = loop->after;
        loop->after = jinja_missing();
    } else if (!jinja_next(r, loop->iter, &item)) {
        return false;
    }
    loop->index0++;
    loop->before = loop->current;
    loop->current = item;
    return true;
}

typedef struct Condition {
    const Node *node;
    Env *env;
} Condition;

static bool next_matching(Render *r, Iter *iter, Value *out) {
    Condition *condition = iter->state;
    while (jinja_next(r, iter->inner, out)) {
        condition->env->count = 0;
        assign(r, condition->env, condition->node->a, *out);
        if (jinja_truth(r, jinja_eval(r, condition->env, condition->node->c))) return true;
    }
    return false;
}

/* The items of a `for ... if`, found while the loop runs. */
static Value matching_items(Render *r, Env *env, const Node *node, Value iterable) {
    Condition *condition = jinja_alloc(r, sizeof *condition);
    *condition = (Condition){node, jinja_env_new(r, env)};
    Iter *iter = jinja_iter_new(r, "generator", next_matching, iterable);
    iter->inner = jinja_iter(r, iterable);
    iter->state = condition;
    return jinja_iterator(iter);
}

static Flow run_loop(Render *r, Env *env, const Node *node, Value iterable, int64_t depth0) {
    if (node->c) iterable = matching_items(r, env, node, iterable);
    Loop *loop = jinja_calloc(r, sizeof *loop);
    *loop = (Loop){.iter = jinja_iter(r, iterable),
                   .iterable = iterable,
                   .node = node->flag ? node : NULL,
                   .env = env,
                   .index0 = -1,
                   .depth0 = depth0,
                   .length = -1};
    Env *body = jinja_env_new(r, env);
    bool finished_a_pass = false;
    while (loop_next(r, loop)) {
        body->count = 0;
        jinja_env_set(r, body, r->parsed->loop, (Value){.kind = V_LOOP, .as.loop = loop});
        r->line = node->line;
        assign(r, body, node->a, loop->current);
        Flow flow = jinja_exec(r, body, &node->body);
        if (flow == FLOW_BREAK) break;
        finished_a_pass |= flow == FLOW_ON;
    }
    body->count = 0;
    if (finished_a_pass || node->orelse.count == 0) return FLOW_ON;
    return jinja_exec(r, jinja_env_new(r, env), &node->orelse);
}

static void enter_call(Render *r) {
    if (++r->calls > MAX_CALLS)
        jinja_raise(r, "RecursionError", "maximum recursion depth exceeded");
    jinja_check_stack(r);
}

Value jinja_call_loop(Render *r, Loop *loop, const Args *args) {
    if (!loop->node)
        jinja_raise(r, "TypeError",
                    "The loop must have the 'recursive' marker to be called recursively.");
    if (args->count != 1 || args->n_named)
        jinja_raise(r, "TypeError", "LoopContext.__call__() takes 1 argument: what to loop over");
    enter_call(r);
    size_t mark = begin_capture(r);
    run_loop(r, loop->env, loop->node, args->positional[0], loop->depth0 + 1);
    r->calls--;
    return end_capture(r, mark);
}

/* ---- macros --------------------------------------------------------------------------------- */

static const char *macro_name(Render *r, const Macro *macro) {
    if (!macro->node->name) return "None";
    return jinja_repr_text(r, (Value){.kind = V_STRING, .as.string = macro->node->name});
}

static bool same_name(const Str *a, const Str *b) {
    return a == b || (a->length == b->length && memcmp(a->data, b->data, a->length) == 0);
}

/* The keyword argument of that name, taken out of *left; or V_MISSING. */
static Value pop_named(Args *left, const Str *name) {
    for (size_t i = 0; i < left->n_named; i++) {
        if (!same_name(left->named[i].name, name)) continue;
        Value value = left->named[i].value;
        memmove(left->named + i, left->named + i + 1,
                (left->n_named - i - 1) * sizeof *left->named);
        left->n_named--;
        return value;
    }
    return jinja_missing();
}

static Value default_of(Render *r, Env *env, const Node *node, size_t parameter) {
    size_t first = node->list.count - node->orelse.count;
    if (parameter >= first) return jinja_eval(r, env, node->orelse.items[parameter - first]);
    Value hint = jinja_format(r, "parameter '%.200s' was not provided",
                              node->list.items[parameter]->name->data);
    return jinja_undefined(r, hint.as.string->data);
}

static void bind_special(Render *r, const Macro *macro, Env *env, Args *left, size_t n_parameters,
                         bool has_caller) {
    const TextTemplate *names = r->parsed;
    int uses = macro->node->op;
    if ((uses & USES_CALLER) && !has_caller) {
        Value caller = pop_named(left, names->caller);
        if (caller.kind == V_MISSING || caller.kind == V_NONE)
            caller = jinja_undefined(r, "No caller defined");
        jinja_env_set(r, env, names->caller, caller);
    }
    if (uses & USES_KWARGS) {
        Dict *dict = jinja_dict_new(r);
        for (size_t i = 0; i < left->n_named; i++)
            jinja_dict_set(r, dict, (Value){.kind = V_STRING, .as.string = left->named[i].name},
                           left->named[i].value);
        jinja_env_set(r, env, names->kwargs, (Value){.kind = V_DICT, .as.dict = dict});
    } else if (left->n_named) {
        for (size_t i = 0; i < left->n_named; i++)
            if (same_name(left->named[i].name, names->caller))
                jinja_raise(r, "TypeError",
                            "macro %s was invoked with two values for the special caller argument. "
                            "This is most "
                            "likely a bug.",
                            macro_name(r, macro));
        jinja_raise(
            r, "TypeError", "macro %s takes no keyword argument %s", macro_name(r, macro),
            jinja_repr_text(r, (Value){.kind = V_STRING, .as.string = left->named[0].name}));
    }
    if (uses & USES_VARARGS) {
        List *rest = jinja_list_new(r, 0);
        for (size_t i = n_parameters; i < left->count; i++)
            jinja_list_add(r, rest, left->positional[i]);
        jinja_env_set(r, env, names->varargs, jinja_tuple(rest));
    } else if (left->count > n_parameters) {
        jinja_raise(r, "TypeError", "macro %s takes not more than %zu argument(s)",
                    macro_name(r, macro), n_parameters);
    }
}

Value jinja_call_macro(Render *r, const Macro *macro, const Args *args) {
    const Node *node = macro->node;
    size_t n = node->list.count;
    enter_call(r);
    Env *env = jinja_env_new(r, macro->env);
    Args left = *args;
    left.named = jinja_alloc(r, (args->n_named + 1) * sizeof *left.named);
    if (args->n_named) memcpy(left.named, args->named, args->n_named * sizeof *left.named);
    Value *given = jinja_alloc(r, (n + 1) * sizeof *given);
    bool has_caller = false;
    for (size_t i = 0; i < n; i++) {
        const Str *name = node->list.items[i]->name;
        has_caller |= name == r->parsed->caller;
        given[i] = i < args->count ? args->positional[i] : pop_named(&left, name);
    }
    bind_special(r, macro, env, &left, n, has_caller);
    for (size_t i = 0; i < n; i++) {
        Value value = given[i].kind == V_MISSING ? default_of(r, env, node, i) : given[i];
        jinja_env_set(r, env, node->list.items[i]->name, value);
    }
    size_t mark = begin_capture(r);
    jinja_exec(r, env, &node->body);
    r->calls--;
    return end_capture(r, mark);
}

static Value macro_new(Render *r, const Node *node, Env *env) {
    Macro *macro = jinja_alloc(r, sizeof *macro);
    *macro = (Macro){node, env};
    return (Value){.kind = V_MACRO, .as.macro = macro};
}

/* ---- the other statements
 * ------------------------------------------------------------------------ */

static Flow exec_if(Render *r, Env *env, const Node *node) {
    for (size_t i = 0; i < node->list.count; i++)
        if (jinja_truth(r, jinja_eval(r, env, node->list.items[i]->a)))
            return jinja_exec(r, env, &node->list.items[i]->body);
    return jinja_exec(r, env, &node->orelse);
}

/* A body whose text goes through filters: into a variable, or out. */
static Flow exec_captured(Render *r, Env *env, const Node *node) {
    Env *inner = jinja_env_new(r, env);
    size_t mark = begin_capture(r);
    Flow flow = jinja_exec(r, inner, &node->body);
    Value text = end_capture(r, mark);
    if (flow != FLOW_ON) return flow;
    r->line = node->line;
    text = jinja_apply_filters(r, inner, node->b, text);
    if (node->kind == N_SET_BLOCK) {
        if (node->a->kind != N_NAME) check_members(r, env, node->a);
        assign(r, env, node->a, text);
    } else {
        jinja_write_str(r, text);
    }
    return FLOW_ON;
}

static Flow exec_with(Render *r, Env *env, const Node *node) {
    Env *inner = jinja_env_new(r, env);
    for (size_t i = 0; i < node->list.count; i++)
        assign(r, inner, node->list.items[i], jinja_eval(r, env, node->orelse.items[i]));
    return jinja_exec(r, inner, &node->body);
}

static void exec_generation(Render *r, Env *env, const Node *node) {
    size_t start = r->captures ? r->capture_start : r->out.length;
    size_t mark = begin_capture(r);
    jinja_exec(r, jinja_env_new(r, env), &node->body);
    r->captures--;
    if (r->n_spans == r->spans_capacity) {
        size_t capacity = r->spans_capacity ? r->spans_capacity * 2 : 8;
        TextTemplateSpan *spans = jinja_alloc(r, capacity * sizeof *spans);
        if (r->n_spans) memcpy(spans, r->spans, r->n_spans * sizeof *spans);
        r->spans = spans;
        r->spans_capacity = capacity;
    }
    r->spans[r->n_spans++] = (TextTemplateSpan){start, start + (r->out.length - mark)};
}

static void exec_set(Render *r, Env *env, const Node *node) {
    if (node->a->kind != N_NAME) check_members(r, env, node->a);
    Value value = jinja_eval(r, env, node->b);
    r->line = node->line;
    assign(r, env, node->a, value);
}

static void exec_call_block(Render *r, Env *env, const Node *node) {
    Value caller = macro_new(r, node, env);
    jinja_write_str(r, jinja_call_node(r, env, node->a, &caller));
}

static Flow exec_one(Render *r, Env *env, const Node *node) {
    switch (node->kind) {
    case N_DATA: jinja_write(r, node->name->data, node->name->length); return FLOW_ON;
    case N_OUTPUT:
        for (size_t i = 0; i < node->list.count; i++)
            jinja_write_str(r, jinja_eval(r, env, node->list.items[i]));
        return FLOW_ON;
    case N_IF: return exec_if(r, env, node);
    case N_FOR: return run_loop(r, env, node, jinja_eval(r, env, node->b), 0);
    case N_SET: exec_set(r, env, node); return FLOW_ON;
    case N_SET_BLOCK:
    case N_FILTER_BLOCK: return exec_captured(r, env, node);
    case N_MACRO: jinja_env_set(r, env, node->name, macro_new(r, node, env)); return FLOW_ON;
    case N_CALL_BLOCK: exec_call_block(r, env, node); return FLOW_ON;
    case N_WITH: return exec_with(r, env, node);
    case N_BREAK: return FLOW_BREAK;
    case N_CONTINUE: return FLOW_CONTINUE;
    case N_GENERATION: exec_generation(r, env, node); return FLOW_ON;
    case N_BLOCK: return jinja_exec(r, jinja_env_new(r, node->flag ? env : r->root), &node->body);
    case N_LOAD: jinja_raise(r, "TypeError", "no loader for this environment specified");
    default: jinja_raise(r, "InternalError", "an expression where a statement was expected");
    }
}

Flow jinja_exec(Render *r, Env *env, const Nodes *body) {
    for (size_t i = 0; i < body->count; i++) {
        jinja_charge(r, 1);
        jinja_check_stack(r);
        r->line = body->items[i]->line;
        Flow flow = exec_one(r, env, body->items[i]);
        if (flow != FLOW_ON) return flow;
    }
    return FLOW_ON;
}
