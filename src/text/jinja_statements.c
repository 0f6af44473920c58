/* jinja_statements: the tags of a template as nodes: for, if, set, macro, call,
 * filter, with, block, print, break, continue, generation. Gives
 * jinja_parse_template; expressions are in jinja_parser.c. */
#include <string.h>

#include "text/jinja.h"

static void parse_until(Parser *p, const char *const *ends, Nodes *body);

/* ---- messages for tags that do not fit ---------------------------------------- */

static bool ends_contain(const char *const *ends, const char *name) {
    for (; *ends; ends++)
        if (strcmp(*ends, name) == 0) return true;
    return false;
}

static _Noreturn void fail_tag(Parser *p, const char *name, int line) {
    StrBuf text = {0};
    if (name)
        base_str_appendf(&text, "Encountered unknown tag '%s'.", name);
    else
        base_str_append(&text, "Unexpected end of template.");
    if (p->n_ends) {
        bool expected = false;
        for (size_t i = 0; name && i < p->n_ends; i++) expected |= ends_contain(p->ends[i], name);
        base_str_append(
            &text, expected ? " You probably made a nesting mistake. Jinja is expecting this tag, "
                              "but currently looking for "
                            : " Jinja was looking for the following tags: ");
        const char *const *ends = p->ends[p->n_ends - 1];
        for (size_t i = 0; ends[i]; i++)
            base_str_appendf(&text, "%s'%s'", i ? " or " : "", ends[i]);
        base_str_append_char(&text, '.');
    }
    if (p->n_tags)
        base_str_appendf(&text, " The innermost block that needs to be closed is '%s'.",
                         p->tags[p->n_tags - 1]);
    const char *kept = base_arena_strndup(p->arena, text.data, text.length);
    base_str_free(&text);
    jinja_syntax_error(p, line, "%s", kept);
}

/* ---- targets ------------------------------------------------------------------- */

static void check_target(Parser *p, const Node *target) {
    static const char *const names[] = {[N_CONST] = "const", [N_LIST] = "list", [N_DICT] = "dict"};
    if (target->kind == N_NAME || target->kind == N_MEMBER) return;
    if (target->kind != N_TUPLE)
        jinja_syntax_error(p, target->line, "can't assign to '%s'",
                           target->kind < BASE_COUNT(names) && names[target->kind]
                               ? names[target->kind]
                               : "expression");
    for (size_t i = 0; i < target->list.count; i++) {
        const Node *item = target->list.items[i];
        if (item->kind != N_NAME && item->kind != N_MEMBER && item->kind != N_TUPLE)
            jinja_syntax_error(p, target->line, "can't assign to 'tuple'");
        check_target(p, item);
    }
}

static Node *parse_target(Parser *p, TupleMode mode) {
    Node *target = jinja_parse_tuple(p, mode);
    check_target(p, target);
    return target;
}

static Node *parse_name_target(Parser *p) {
    static const char *const constants[] = {"true", "false", "none", "True", "False", "None"};
    Token token = jinja_expect(p, T_NAME);
    for (size_t i = 0; i < BASE_COUNT(constants); i++)
        if (jinja_is_name(&token, constants[i]))
            jinja_syntax_error(p, token.line, "can't assign to 'name'");
    Node *node = jinja_node(p, N_NAME, token.line);
    node->name = jinja_intern(p, token.text, token.length);
    return node;
}

/* ---- the tags -------------------------------------------------------------------- */

static const char *const until_endfor[] = {"endfor", NULL};
static const char *const until_for_part[] = {"endfor", "else", NULL};
static const char *const until_if_part[] = {"elif", "else", "endif", NULL};
static const char *const until_endif[] = {"endif", NULL};
static const char *const until_endset[] = {"endset", NULL};
static const char *const until_endmacro[] = {"endmacro", NULL};
static const char *const until_endcall[] = {"endcall", NULL};
static const char *const until_endfilter[] = {"endfilter", NULL};
static const char *const until_endwith[] = {"endwith", NULL};
static const char *const until_endblock[] = {"endblock", NULL};
static const char *const until_endgeneration[] = {"endgeneration", NULL};

/* The body up to a tag of `ends`, which is left as the current token. */
static void parse_body(Parser *p, const char *const *ends, Nodes *body) {
    jinja_skip(p, T_COLON);
    jinja_expect(p, T_BLOCK_END);
    parse_until(p, ends, body);
    if (p->current.type != T_EOF) return;
    p->ends[p->n_ends++] = ends;
    fail_tag(p, NULL, p->current.line);
}

static void parse_whole_body(Parser *p, const char *const *ends, Nodes *body) {
    parse_body(p, ends, body);
    jinja_advance(p);
}

static bool names_loop(const Node *target) {
    if (target->kind == N_NAME)
        return target->name->length == 4 && memcmp(target->name->data, "loop", 4) == 0;
    for (size_t i = 0; i < target->list.count; i++)
        if (names_loop(target->list.items[i])) return true;
    return false;
}

static Node *parse_for(Parser *p, int line) {
    Node *node = jinja_node(p, N_FOR, line);
    node->a = parse_target(p, TUPLE_FOR_TARGET);
    jinja_expect_name(p, "in");
    node->b = jinja_parse_tuple(p, TUPLE_ITERABLE);
    if (jinja_skip_name(p, "if")) node->c = jinja_parse_expression(p, true);
    node->flag = jinja_skip_name(p, "recursive");
    parse_body(p, until_for_part, &node->body);
    Token end = jinja_advance(p);
    if (jinja_is_name(&end, "else")) parse_whole_body(p, until_endfor, &node->orelse);
    if (names_loop(node->a))
        jinja_syntax_error(p, line, "Can't assign to special loop variable in for-loop target");
    return node;
}

static Node *parse_if(Parser *p, int line) {
    Node *node = jinja_node(p, N_IF, line);
    for (;;) {
        Node *branch = jinja_node(p, N_BRANCH, p->current.line);
        jinja_nodes_add(p, &node->list, branch);
        branch->a = jinja_parse_tuple(p, TUPLE_NO_CONDITION);
        parse_body(p, until_if_part, &branch->body);
        Token end = jinja_advance(p);
        if (jinja_is_name(&end, "elif")) continue;
        if (jinja_is_name(&end, "else")) parse_whole_body(p, until_endif, &node->orelse);
        return node;
    }
}

static Node *parse_set(Parser *p, int line) {
    Node *target = parse_target(p, TUPLE_SET_TARGET);
    bool assigns = jinja_skip(p, T_ASSIGN);
    Node *node = jinja_node(p, assigns ? N_SET : N_SET_BLOCK, line);
    node->a = target;
    if (assigns) {
        node->b = jinja_parse_tuple(p, TUPLE_PLAIN);
        return node;
    }
    node->b = jinja_parse_filter(p, NULL, false);
    parse_whole_body(p, until_endset, &node->body);
    return node;
}

/* list: the parameters, orelse: the defaults of the last of them. */
static void parse_signature(Parser *p, Node *node) {
    jinja_expect(p, T_LPAREN);
    while (p->current.type != T_RPAREN) {
        if (node->list.count) jinja_expect(p, T_COMMA);
        Node *parameter = parse_name_target(p);
        for (size_t i = 0; i < node->list.count; i++)
            if (node->list.items[i]->name == parameter->name)
                jinja_syntax_error(p, parameter->line,
                                   "duplicate argument '%s' in function definition",
                                   parameter->name->data);
        if (jinja_skip(p, T_ASSIGN))
            jinja_nodes_add(p, &node->orelse, jinja_parse_expression(p, true));
        else if (node->orelse.count)
            jinja_syntax_error(p, p->current.line, "non-default argument follows default argument");
        jinja_nodes_add(p, &node->list, parameter);
    }
    jinja_expect(p, T_RPAREN);
}

static Node *parse_macro(Parser *p, int line) {
    Node *node = jinja_node(p, N_MACRO, line);
    node->name = parse_name_target(p)->name;
    parse_signature(p, node);
    parse_whole_body(p, until_endmacro, &node->body);
    return node;
}

static Node *parse_call_block(Parser *p, int line) {
    Node *node = jinja_node(p, N_CALL_BLOCK, line);
    if (p->current.type == T_LPAREN) parse_signature(p, node);
    node->a = jinja_parse_expression(p, true);
    if (node->a->kind != N_CALL) jinja_syntax_error(p, line, "expected call");
    parse_whole_body(p, until_endcall, &node->body);
    return node;
}

static Node *parse_filter_block(Parser *p, int line) {
    Node *node = jinja_node(p, N_FILTER_BLOCK, line);
    node->b = jinja_parse_filter(p, NULL, true);
    parse_whole_body(p, until_endfilter, &node->body);
    return node;
}

static Node *parse_with(Parser *p, int line) {
    Node *node = jinja_node(p, N_WITH, line);
    while (p->current.type != T_BLOCK_END) {
        if (node->list.count) jinja_expect(p, T_COMMA);
        Node *target = parse_target(p, TUPLE_SET_TARGET);
        jinja_expect(p, T_ASSIGN);
        jinja_nodes_add(p, &node->list, target);
        jinja_nodes_add(p, &node->orelse, jinja_parse_expression(p, true));
    }
    parse_whole_body(p, until_endwith, &node->body);
    return node;
}

static Node *parse_block(Parser *p, int line) {
    Node *node = jinja_node(p, N_BLOCK, line);
    Token name = jinja_expect(p, T_NAME);
    node->name = jinja_intern(p, name.text, name.length);
    node->flag = jinja_skip_name(p, "scoped");
    jinja_skip_name(p, "required");
    if (p->current.type == T_SUB)
        jinja_syntax_error(
            p, p->current.line,
            "Block names in Jinja have to be valid Python identifiers and may not contain "
            "hyphens, use an underscore instead.");
    parse_whole_body(p, until_endblock, &node->body);
    jinja_skip_name(p, node->name->data);
    return node;
}

static Node *parse_print(Parser *p, int line) {
    Node *node = jinja_node(p, N_OUTPUT, line);
    while (p->current.type != T_BLOCK_END) {
        if (node->list.count) jinja_expect(p, T_COMMA);
        jinja_nodes_add(p, &node->list, jinja_parse_expression(p, true));
    }
    return node;
}

static Node *parse_generation(Parser *p, int line) {
    Node *node = jinja_node(p, N_GENERATION, line);
    parse_whole_body(p, until_endgeneration, &node->body);
    return node;
}

static Node *parse_break(Parser *p, int line) {
    return jinja_node(p, N_BREAK, line);
}
static Node *parse_continue(Parser *p, int line) {
    return jinja_node(p, N_CONTINUE, line);
}

/* include, import, from and extends parse, and fail when they are reached. */
static Node *parse_load(Parser *p, int line) {
    Node *node = jinja_node(p, N_LOAD, line);
    node->a = jinja_parse_expression(p, true);
    while (p->current.type != T_BLOCK_END && p->current.type != T_EOF) jinja_advance(p);
    return node;
}

static const struct {
    const char *name;
    Node *(*parse)(Parser *p, int line);
} tags[] = {
    {"for", parse_for},         {"if", parse_if},
    {"set", parse_set},         {"macro", parse_macro},
    {"call", parse_call_block}, {"filter", parse_filter_block},
    {"with", parse_with},       {"block", parse_block},
    {"print", parse_print},     {"generation", parse_generation},
    {"break", parse_break},     {"continue", parse_continue},
    {"include", parse_load},    {"import", parse_load},
    {"from", parse_load},       {"extends", parse_load},
};

static Node *parse_statement(Parser *p) {
    if (p->current.type != T_NAME) jinja_syntax_error(p, p->current.line, "tag name expected");
    if (jinja_is_name(&p->current, "autoescape"))
        jinja_syntax_error(p, p->current.line,
                           "the tag 'autoescape' is not supported: prompts are not HTML");
    for (size_t i = 0; i < BASE_COUNT(tags); i++) {
        if (!jinja_is_name(&p->current, tags[i].name)) continue;
        jinja_descend(p);
        p->tags[p->n_tags++] = tags[i].name;
        Node *node = tags[i].parse(p, jinja_advance(p).line);
        p->n_tags--;
        p->depth--;
        return node;
    }
    fail_tag(p, jinja_describe(p, &p->current), p->current.line);
}

static bool at_end(Parser *p, const char *const *ends) {
    for (; ends && *ends; ends++)
        if (jinja_is_name(&p->current, *ends)) return true;
    return false;
}

static void parse_piece(Parser *p, Nodes *body) {
    if (p->current.type == T_DATA) {
        Token token = jinja_advance(p);
        Node *node = jinja_node(p, N_DATA, token.line);
        Str *text = base_arena_alloc(p->arena, sizeof *text);
        *text = (Str){token.text, token.length, POINTS_UNKNOWN, NULL};
        node->name = text;
        jinja_nodes_add(p, body, node);
        return;
    }
    Node *node = jinja_node(p, N_OUTPUT, jinja_expect(p, T_VARIABLE_BEGIN).line);
    jinja_nodes_add(p, &node->list, jinja_parse_tuple(p, TUPLE_PLAIN));
    jinja_nodes_add(p, body, node);
    jinja_expect(p, T_VARIABLE_END);
}

/* Pieces up to a tag of `ends` (NULL: none) or the end of the template. */
static void parse_until(Parser *p, const char *const *ends, Nodes *body) {
    if (ends) p->ends[p->n_ends++] = ends;
    while (p->current.type != T_EOF) {
        if (p->current.type != T_BLOCK_BEGIN) {
            parse_piece(p, body);
            continue;
        }
        jinja_advance(p);
        if (at_end(p, ends)) break;
        jinja_nodes_add(p, body, parse_statement(p));
        jinja_expect(p, T_BLOCK_END);
    }
    if (ends) p->n_ends--;
}

void jinja_parse_template(Parser *p, Nodes *body) {
    p->current = jinja_lexer_next(p);
    parse_until(p, NULL, body);
}
