/* jinja_parser: expressions of a template as nodes, with jinja2's grammar and
 * its odd precedences: filters and tests bind to the operand of a unary minus,
 * powers associate to the left, comparisons chain. Nesting is bounded, so that
 * neither parsing nor evaluating can exhaust the C stack. Statements are in
 * jinja_statements.c. */
#include <string.h>

#include "text/jinja.h"

#define MAX_DEPTH 400 /* of nodes, a chain of operators included */

/* ---- tokens and nodes ----------------------------------------------------- */

Token jinja_advance(Parser *p) {
    Token old = p->current;
    if (p->has_ahead) {
        p->current = p->ahead;
        p->has_ahead = false;
    } else if (p->current.type != T_EOF) {
        p->current = jinja_lexer_next(p);
    }
    return old;
}

const Token *jinja_look(Parser *p) {
    if (!p->has_ahead) {
        p->ahead = jinja_lexer_next(p);
        p->has_ahead = true;
    }
    return &p->ahead;
}

bool jinja_is_name(const Token *token, const char *name) {
    return token->type == T_NAME && token->length == strlen(name) &&
           memcmp(token->text, name, token->length) == 0;
}

bool jinja_skip_name(Parser *p, const char *name) {
    if (!jinja_is_name(&p->current, name)) return false;
    jinja_advance(p);
    return true;
}

bool jinja_skip(Parser *p, TokenType type) {
    if (p->current.type != type) return false;
    jinja_advance(p);
    return true;
}

static const char *describe_type(TokenType type) {
    static const char *const names[T_ANY] = {
        [T_EOF] = "end of template",
        [T_DATA] = "template data / text",
        [T_BLOCK_BEGIN] = "begin of statement block",
        [T_BLOCK_END] = "end of statement block",
        [T_VARIABLE_BEGIN] = "begin of print statement",
        [T_VARIABLE_END] = "end of print statement",
        [T_NAME] = "name",
        [T_STRING] = "string",
        [T_INTEGER] = "integer",
        [T_FLOAT] = "float",
        [T_ADD] = "+",
        [T_SUB] = "-",
        [T_DIV] = "/",
        [T_FLOORDIV] = "//",
        [T_MUL] = "*",
        [T_MOD] = "%",
        [T_POW] = "**",
        [T_TILDE] = "~",
        [T_LBRACKET] = "[",
        [T_RBRACKET] = "]",
        [T_LPAREN] = "(",
        [T_RPAREN] = ")",
        [T_LBRACE] = "{",
        [T_RBRACE] = "}",
        [T_EQ] = "==",
        [T_NE] = "!=",
        [T_GT] = ">",
        [T_GTEQ] = ">=",
        [T_LT] = "<",
        [T_LTEQ] = "<=",
        [T_ASSIGN] = "=",
        [T_DOT] = ".",
        [T_COLON] = ":",
        [T_PIPE] = "|",
        [T_COMMA] = ",",
        [T_SEMICOLON] = ";",
    };
    return names[type] ? names[type] : "operator";
}

/* A token in the words of a message; the text lives as long as the parse. */
const char *jinja_describe(Parser *p, const Token *token) {
    if (token->type != T_NAME) return describe_type(token->type);
    return base_arena_strndup(p->arena, token->text, BASE_MIN(token->length, (size_t)200));
}

static _Noreturn void fail_expected(Parser *p, const char *expected) {
    if (p->current.type == T_EOF)
        jinja_syntax_error(p, p->current.line, "unexpected end of template, expected '%s'.",
                           expected);
    jinja_syntax_error(p, p->current.line, "expected token '%s', got '%s'", expected,
                       jinja_describe(p, &p->current));
}

Token jinja_expect(Parser *p, TokenType type) {
    if (p->current.type != type) fail_expected(p, describe_type(type));
    return jinja_advance(p);
}

void jinja_expect_name(Parser *p, const char *name) {
    if (!jinja_skip_name(p, name)) fail_expected(p, name);
}

void jinja_descend(Parser *p) {
    if (++p->depth > MAX_NESTING)
        jinja_syntax_error(p, p->current.line, "the template is nested too deeply");
}

Node *jinja_node(Parser *p, NodeKind kind, int line) {
    Node *node = base_arena_alloc(p->arena, sizeof *node);
    memset(node, 0, sizeof *node);
    node->kind = kind;
    node->line = line;
    return node;
}

void jinja_nodes_add(Parser *p, Nodes *nodes, Node *node) {
    if (nodes->count == nodes->capacity) {
        size_t capacity = nodes->capacity ? nodes->capacity * 2 : 4;
        Node **items = base_arena_alloc(p->arena, capacity * sizeof *items);
        if (nodes->count) memcpy(items, nodes->items, nodes->count * sizeof *items);
        nodes->items = items;
        nodes->capacity = capacity;
    }
    nodes->items[nodes->count++] = node;
}

const Str *jinja_intern(Parser *p, const char *text, size_t length) {
    if ((p->n_interned + 1) * 2 > p->interned_capacity) {
        size_t capacity = p->interned_capacity ? p->interned_capacity * 2 : 64;
        Str **slots = base_arena_alloc(p->arena, capacity * sizeof *slots);
        memset(slots, 0, capacity * sizeof *slots);
        for (size_t i = 0; i < p->interned_capacity; i++) {
            if (!p->interned[i]) continue;
            size_t slot = base_hash(p->interned[i]->data, p->interned[i]->length) & (capacity - 1);
            while (slots[slot]) slot = (slot + 1) & (capacity - 1);
            slots[slot] = p->interned[i];
        }
        p->interned = slots;
        p->interned_capacity = capacity;
    }
    size_t slot = base_hash(text, length) & (p->interned_capacity - 1);
    for (; p->interned[slot]; slot = (slot + 1) & (p->interned_capacity - 1))
        if (p->interned[slot]->length == length &&
            memcmp(p->interned[slot]->data, text, length) == 0)
            return p->interned[slot];
    Str *string = base_arena_alloc(p->arena, sizeof *string);
    *string = (Str){base_arena_strndup(p->arena, text, length), length, POINTS_UNKNOWN, NULL};
    string->points = jinja_points(string);
    p->interned[slot] = string;
    p->n_interned++;
    return string;
}

static int depth_of(const Node *node) {
    return node ? node->depth : 0;
}

static Node *deepen(Parser *p, Node *node, const Node *child) {
    node->depth = BASE_MAX(node->depth, depth_of(child) + 1);
    if (node->depth > MAX_DEPTH)
        jinja_syntax_error(p, node->line, "the expression is nested too deeply");
    return node;
}

static void add_child(Parser *p, Node *node, Nodes *nodes, Node *child) {
    jinja_nodes_add(p, nodes, child);
    deepen(p, node, child);
}

static Node *binary(Parser *p, NodeKind kind, int op, Node *left, Node *right, int line) {
    Node *node = jinja_node(p, kind, line);
    node->op = op;
    node->a = left;
    node->b = right;
    return deepen(p, deepen(p, node, left), right);
}

static Node *constant(Parser *p, Value value, int line) {
    Node *node = jinja_node(p, N_CONST, line);
    node->value = value;
    return node;
}

/* ---- primary expressions --------------------------------------------------- */

static Node *parse_name(Parser *p, bool with_member) {
    Token token = jinja_advance(p);
    if (jinja_is_name(&token, "true") || jinja_is_name(&token, "True"))
        return constant(p, jinja_bool(true), token.line);
    if (jinja_is_name(&token, "false") || jinja_is_name(&token, "False"))
        return constant(p, jinja_bool(false), token.line);
    if (jinja_is_name(&token, "none") || jinja_is_name(&token, "None"))
        return constant(p, jinja_none(), token.line);
    Node *node = jinja_node(p, N_NAME, token.line);
    node->name = jinja_intern(p, token.text, token.length);
    if (with_member && jinja_skip(p, T_DOT)) {
        Token member = jinja_expect(p, T_NAME);
        Node *target = jinja_node(p, N_MEMBER, token.line);
        target->a = node;
        target->name = jinja_intern(p, member.text, member.length);
        return target;
    }
    return node;
}

/* Adjacent strings are one. */
static Node *parse_string(Parser *p) {
    Token token = jinja_advance(p);
    Node *first = constant(p, token.value, token.line);
    if (p->current.type != T_STRING) return first;
    Nodes parts = {0};
    size_t length = token.value.as.string->length;
    jinja_nodes_add(p, &parts, first);
    while (p->current.type == T_STRING) {
        Token more = jinja_advance(p);
        length += more.value.as.string->length;
        jinja_nodes_add(p, &parts, constant(p, more.value, more.line));
    }
    char *joined = base_arena_alloc(p->arena, length + 1);
    char *end = joined;
    for (size_t i = 0; i < parts.count; i++) {
        const Str *part = parts.items[i]->value.as.string;
        memcpy(end, part->data, part->length);
        end += part->length;
    }
    return constant(p, (Value){.kind = V_STRING, .as.string = jinja_intern(p, joined, length)},
                    token.line);
}

static Node *parse_list(Parser *p) {
    Node *node = jinja_node(p, N_LIST, jinja_advance(p).line);
    while (p->current.type != T_RBRACKET) {
        if (node->list.count) jinja_expect(p, T_COMMA);
        if (p->current.type == T_RBRACKET) break;
        add_child(p, node, &node->list, jinja_parse_expression(p, true));
    }
    jinja_expect(p, T_RBRACKET);
    return node;
}

static Node *parse_dict(Parser *p) {
    Node *node = jinja_node(p, N_DICT, jinja_advance(p).line);
    while (p->current.type != T_RBRACE) {
        if (node->list.count) jinja_expect(p, T_COMMA);
        if (p->current.type == T_RBRACE) break;
        add_child(p, node, &node->list, jinja_parse_expression(p, true));
        jinja_expect(p, T_COLON);
        add_child(p, node, &node->orelse, jinja_parse_expression(p, true));
    }
    jinja_expect(p, T_RBRACE);
    return node;
}

static Node *parse_primary(Parser *p, bool with_member) {
    Token token = p->current;
    Node *node;
    switch (token.type) {
    case T_NAME: return parse_name(p, with_member);
    case T_STRING: return parse_string(p);
    case T_INTEGER:
    case T_FLOAT: jinja_advance(p); return constant(p, token.value, token.line);
    case T_LPAREN:
        jinja_advance(p);
        node = jinja_parse_tuple(p, TUPLE_PARENTHESES);
        jinja_expect(p, T_RPAREN);
        return node;
    case T_LBRACKET: return parse_list(p);
    case T_LBRACE: return parse_dict(p);
    default: jinja_syntax_error(p, token.line, "unexpected '%s'", jinja_describe(p, &token));
    }
}

/* ---- postfix: attributes, items, calls, filters, tests ---------------------- */

static Node *parse_subscript_part(Parser *p) {
    int line = p->current.line;
    Node *start = NULL;
    if (p->current.type != T_COLON) {
        start = jinja_parse_expression(p, true);
        if (p->current.type != T_COLON) return start;
    }
    jinja_advance(p);
    Node *slice = jinja_node(p, N_SLICE, line);
    slice->a = start;
    if (p->current.type != T_COLON && p->current.type != T_RBRACKET && p->current.type != T_COMMA)
        slice->b = jinja_parse_expression(p, true);
    if (jinja_skip(p, T_COLON) && p->current.type != T_RBRACKET && p->current.type != T_COMMA)
        slice->c = jinja_parse_expression(p, true);
    return deepen(p, deepen(p, deepen(p, slice, slice->a), slice->b), slice->c);
}

static Node *parse_subscript(Parser *p, Node *object) {
    Token token = jinja_advance(p);
    Node *node = jinja_node(p, N_ITEM, token.line);
    node->a = object;
    deepen(p, node, object);
    if (token.type == T_DOT) {
        Token member = p->current;
        jinja_advance(p);
        if (member.type == T_NAME) {
            node->kind = N_ATTRIBUTE;
            node->name = jinja_intern(p, member.text, member.length);
            return node;
        }
        if (member.type != T_INTEGER) jinja_syntax_error(p, member.line, "expected name or number");
        node->b = constant(p, member.value, member.line);
        return node;
    }
    Node *parts = jinja_node(p, N_TUPLE, token.line);
    while (p->current.type != T_RBRACKET) {
        if (parts->list.count) jinja_expect(p, T_COMMA);
        add_child(p, parts, &parts->list, parse_subscript_part(p));
    }
    jinja_expect(p, T_RBRACKET);
    node->b = parts->list.count == 1 ? parts->list.items[0] : parts;
    if (parts->list.count > 1)
        for (size_t i = 0; i < parts->list.count; i++)
            if (parts->list.items[i]->kind == N_SLICE)
                jinja_syntax_error(p, token.line, "a slice cannot be one of several subscripts");
    return deepen(p, node, node->b);
}

static _Noreturn void fail_call(Parser *p, int line) {
    jinja_syntax_error(p, line, "invalid syntax for function call expression");
}

static void parse_argument(Parser *p, Node *node, int line) {
    if (p->current.type == T_MUL) {
        if (node->star || node->star_star) fail_call(p, line);
        jinja_advance(p);
        node->star = jinja_parse_expression(p, true);
        deepen(p, node, node->star);
    } else if (p->current.type == T_POW) {
        if (node->star_star) fail_call(p, line);
        jinja_advance(p);
        node->star_star = jinja_parse_expression(p, true);
        deepen(p, node, node->star_star);
    } else if (p->current.type == T_NAME && jinja_look(p)->type == T_ASSIGN) {
        if (node->star_star) fail_call(p, line);
        Token key = jinja_advance(p);
        jinja_advance(p);
        size_t n = node->named.count;
        const Str *name = jinja_intern(p, key.text, key.length);
        for (size_t i = 0; i < n; i++)
            if (node->names[i] == name)
                jinja_syntax_error(p, key.line, "keyword argument repeated: %.*s",
                                   (int)BASE_MIN(key.length, (size_t)100), key.text);
        const Str **names = base_arena_alloc(p->arena, (n + 1) * sizeof *names);
        if (n) memcpy(names, node->names, n * sizeof *names);
        names[n] = name;
        node->names = names;
        add_child(p, node, &node->named, jinja_parse_expression(p, true));
    } else {
        if (node->star || node->star_star || node->named.count) fail_call(p, line);
        add_child(p, node, &node->list, jinja_parse_expression(p, true));
    }
}

static void parse_arguments(Parser *p, Node *node) {
    int line = jinja_expect(p, T_LPAREN).line;
    bool first = true;
    while (p->current.type != T_RPAREN) {
        if (!first) {
            jinja_expect(p, T_COMMA);
            if (p->current.type == T_RPAREN) break;
        }
        parse_argument(p, node, line);
        first = false;
    }
    jinja_expect(p, T_RPAREN);
}

static Node *parse_call(Parser *p, Node *callee) {
    Node *node = jinja_node(p, N_CALL, p->current.line);
    node->a = callee;
    deepen(p, node, callee);
    parse_arguments(p, node);
    return node;
}

static const Str *parse_dotted_name(Parser *p) {
    Token token = jinja_expect(p, T_NAME);
    const Str *name = jinja_intern(p, token.text, token.length);
    while (jinja_skip(p, T_DOT)) {
        Token more = jinja_expect(p, T_NAME);
        char *joined = base_arena_alloc(p->arena, name->length + 1 + more.length);
        memcpy(joined, name->data, name->length);
        joined[name->length] = '.';
        memcpy(joined + name->length + 1, more.text, more.length);
        name = jinja_intern(p, joined, name->length + 1 + more.length);
    }
    return name;
}

/* A chain of filters after `input`; NULL is the text of a block. */
Node *jinja_parse_filter(Parser *p, Node *input, bool start) {
    Node *node = input;
    while (start || p->current.type == T_PIPE) {
        if (!start) jinja_advance(p);
        start = false;
        Node *filter = jinja_node(p, N_FILTER, p->current.line);
        filter->name = parse_dotted_name(p);
        filter->a = node;
        deepen(p, filter, node);
        filter->function = jinja_find_filter(filter->name->data, filter->name->length);
        if (p->current.type == T_LPAREN) parse_arguments(p, filter);
        node = filter;
    }
    return node;
}

static Node *parse_postfix(Parser *p, Node *node) {
    for (;;) {
        if (p->current.type == T_DOT || p->current.type == T_LBRACKET)
            node = parse_subscript(p, node);
        else if (p->current.type == T_LPAREN)
            node = parse_call(p, node);
        else
            return node;
    }
}

/* What may follow a test without parentheses as its one argument. */
static bool starts_test_argument(const Token *token) {
    switch (token->type) {
    case T_NAME:
        return !jinja_is_name(token, "else") && !jinja_is_name(token, "or") &&
               !jinja_is_name(token, "and");
    case T_STRING:
    case T_INTEGER:
    case T_FLOAT:
    case T_LBRACKET:
    case T_LBRACE: return true;
    default: return false;
    }
}

static Node *parse_test(Parser *p, Node *value) {
    int line = jinja_advance(p).line;
    Node *node = jinja_node(p, N_TEST, line);
    node->flag = jinja_skip_name(p, "not");
    node->name = parse_dotted_name(p);
    node->a = value;
    deepen(p, node, value);
    node->function = jinja_find_test(node->name->data, node->name->length);
    if (p->current.type == T_LPAREN) {
        parse_arguments(p, node);
    } else if (starts_test_argument(&p->current)) {
        if (jinja_is_name(&p->current, "is"))
            jinja_syntax_error(p, p->current.line, "You cannot chain multiple tests with is");
        add_child(p, node, &node->list, parse_postfix(p, parse_primary(p, false)));
    }
    return node;
}

static Node *parse_filters_and_tests(Parser *p, Node *node) {
    for (;;) {
        if (p->current.type == T_PIPE)
            node = jinja_parse_filter(p, node, false);
        else if (jinja_is_name(&p->current, "is"))
            node = parse_test(p, node);
        else if (p->current.type == T_LPAREN)
            node = parse_call(p, node);
        else
            return node;
    }
}

/* ---- operators, tightest first ---------------------------------------------- */

static Node *parse_unary(Parser *p, bool with_filter) {
    TokenType type = p->current.type;
    int line = p->current.line;
    Node *node;
    if (type == T_SUB || type == T_ADD) {
        jinja_descend(p);
        jinja_advance(p);
        node = binary(p, type == T_SUB ? N_NEGATE : N_PLUS, 0, parse_unary(p, false), NULL, line);
        p->depth--;
    } else {
        node = parse_primary(p, false);
    }
    node = parse_postfix(p, node);
    return with_filter ? parse_filters_and_tests(p, node) : node;
}

static Node *parse_power(Parser *p) {
    int line = p->current.line;
    Node *left = parse_unary(p, true);
    while (jinja_skip(p, T_POW)) {
        left = binary(p, N_BINARY, T_POW, left, parse_unary(p, true), line);
        line = p->current.line;
    }
    return left;
}

static Node *parse_product(Parser *p) {
    int line = p->current.line;
    Node *left = parse_power(p);
    for (;;) {
        TokenType type = p->current.type;
        if (type != T_MUL && type != T_DIV && type != T_FLOORDIV && type != T_MOD) return left;
        jinja_advance(p);
        left = binary(p, N_BINARY, (int)type, left, parse_power(p), line);
        line = p->current.line;
    }
}

static Node *parse_concat(Parser *p) {
    int line = p->current.line;
    Node *first = parse_product(p);
    if (p->current.type != T_TILDE) return first;
    Node *node = jinja_node(p, N_CONCAT, line);
    add_child(p, node, &node->list, first);
    while (jinja_skip(p, T_TILDE)) add_child(p, node, &node->list, parse_product(p));
    return node;
}

static Node *parse_sum(Parser *p) {
    int line = p->current.line;
    Node *left = parse_concat(p);
    while (p->current.type == T_ADD || p->current.type == T_SUB) {
        int op = (int)jinja_advance(p).type;
        left = binary(p, N_BINARY, op, left, parse_concat(p), line);
        line = p->current.line;
    }
    return left;
}

/* The comparison operator at this place, taken; or T_ANY. */
static TokenType take_comparison(Parser *p) {
    TokenType type = p->current.type;
    if (type >= T_EQ && type <= T_LTEQ) {
        jinja_advance(p);
        return type;
    }
    if (jinja_skip_name(p, "in")) return T_IN;
    if (!jinja_is_name(&p->current, "not") || !jinja_is_name(jinja_look(p), "in")) return T_ANY;
    jinja_advance(p);
    jinja_advance(p);
    return T_NOT_IN;
}

static Node *parse_comparison(Parser *p) {
    int line = p->current.line;
    Node *first = parse_sum(p);
    Node *node = NULL;
    for (;;) {
        TokenType op = take_comparison(p);
        if (op == T_ANY) return node ? node : first;
        if (!node) {
            node = jinja_node(p, N_COMPARE, line);
            node->a = first;
            deepen(p, node, first);
        }
        add_child(p, node, &node->list,
                  binary(p, N_OPERAND, (int)op, parse_sum(p), NULL, p->current.line));
    }
}

static Node *parse_not(Parser *p) {
    if (!jinja_is_name(&p->current, "not")) return parse_comparison(p);
    int line = jinja_advance(p).line;
    jinja_descend(p);
    Node *node = binary(p, N_NOT, 0, parse_not(p), NULL, line);
    p->depth--;
    return node;
}

static Node *parse_and(Parser *p) {
    int line = p->current.line;
    Node *left = parse_not(p);
    while (jinja_skip_name(p, "and")) {
        left = binary(p, N_AND, 0, left, parse_not(p), line);
        line = p->current.line;
    }
    return left;
}

static Node *parse_or(Parser *p) {
    int line = p->current.line;
    Node *left = parse_and(p);
    while (jinja_skip_name(p, "or")) {
        left = binary(p, N_OR, 0, left, parse_and(p), line);
        line = p->current.line;
    }
    return left;
}

static Node *parse_condition(Parser *p) {
    int line = p->current.line;
    jinja_descend(p);
    Node *value = parse_or(p);
    while (jinja_skip_name(p, "if")) {
        Node *node = jinja_node(p, N_COND, line);
        node->b = value;
        node->a = parse_or(p);
        if (jinja_skip_name(p, "else")) node->c = parse_condition(p);
        value = deepen(p, deepen(p, deepen(p, node, node->a), node->b), node->c);
        line = p->current.line;
    }
    p->depth--;
    return value;
}

Node *jinja_parse_expression(Parser *p, bool with_condition) {
    if (with_condition) return parse_condition(p);
    jinja_descend(p);
    Node *node = parse_or(p);
    p->depth--;
    return node;
}

static bool ends_tuple(Parser *p, TupleMode mode) {
    TokenType type = p->current.type;
    if (type == T_VARIABLE_END || type == T_BLOCK_END || type == T_RPAREN) return true;
    if (mode == TUPLE_FOR_TARGET) return jinja_is_name(&p->current, "in");
    return mode == TUPLE_ITERABLE && jinja_is_name(&p->current, "recursive");
}

static Node *parse_tuple_item(Parser *p, TupleMode mode) {
    if (mode == TUPLE_FOR_TARGET || mode == TUPLE_SET_TARGET) {
        jinja_descend(p);
        Node *node = parse_primary(p, mode == TUPLE_SET_TARGET);
        p->depth--;
        return node;
    }
    return jinja_parse_expression(p, mode == TUPLE_PLAIN || mode == TUPLE_PARENTHESES);
}

Node *jinja_parse_tuple(Parser *p, TupleMode mode) {
    int line = p->current.line;
    Node *tuple = jinja_node(p, N_TUPLE, line);
    bool is_tuple = false;
    for (;;) {
        if (tuple->list.count) jinja_expect(p, T_COMMA);
        if (ends_tuple(p, mode)) break;
        add_child(p, tuple, &tuple->list, parse_tuple_item(p, mode));
        if (p->current.type != T_COMMA) break;
        is_tuple = true;
    }
    if (is_tuple) return tuple;
    if (tuple->list.count) return tuple->list.items[0];
    if (mode != TUPLE_PARENTHESES)
        jinja_syntax_error(p, p->current.line, "Expected an expression, got '%s'",
                           jinja_describe(p, &p->current));
    return tuple;
}
