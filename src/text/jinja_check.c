/* jinja_check: one walk over a parsed template for what jinja2 finds when it
 * compiles: filters and tests that do not exist, break and continue without a
 * loop. It also notes which macros name caller, kwargs and varargs, since only
 * those receive them. */
#include <string.h>

#include "text/jinja.h"

typedef struct Place {
    bool soft;                 /* inside an if: an unknown filter fails only when reached */
    bool in_loop;              /* of the same function */
    Node *macro;               /* the innermost around, or NULL */
    const struct Place *outer; /* the place around that macro */
} Place;

static void check_nodes(Parser *p, const Nodes *nodes, Place place);

static void note_use(const Node *name, const Place *place) {
    static const struct {
        const char *name;
        MacroUses use;
    } special[] = {{"caller", USES_CALLER}, {"kwargs", USES_KWARGS}, {"varargs", USES_VARARGS}};
    for (size_t i = 0; i < BASE_COUNT(special); i++) {
        size_t n = strlen(special[i].name);
        if (name->name->length != n || memcmp(name->name->data, special[i].name, n) != 0) continue;
        for (; place; place = place->outer)
            if (place->macro) place->macro->op |= (int)special[i].use;
    }
}

static void check_expression(Parser *p, const Node *node, Place place) {
    if (!node) return;
    if (node->kind == N_NAME) note_use(node, &place);
    if ((node->kind == N_FILTER || node->kind == N_TEST) && !node->function && !place.soft)
        jinja_syntax_error(p, node->line, "No %s named '%s'.",
                           node->kind == N_FILTER ? "filter" : "test", node->name->data);
    if (node->kind == N_COND) place.soft = true;
    check_expression(p, node->a, place);
    check_expression(p, node->b, place);
    check_expression(p, node->c, place);
    check_expression(p, node->star, place);
    check_expression(p, node->star_star, place);
    for (size_t i = 0; i < node->list.count; i++) check_expression(p, node->list.items[i], place);
    for (size_t i = 0; i < node->orelse.count; i++)
        check_expression(p, node->orelse.items[i], place);
    for (size_t i = 0; i < node->named.count; i++) check_expression(p, node->named.items[i], place);
}

static void check_loop(Parser *p, const Node *node, Place place) {
    Place inner = place;
    inner.soft = false;
    check_expression(p, node->b, place);
    check_expression(p, node->c, inner);
    Place body = inner;
    body.in_loop = true;
    check_nodes(p, &node->body, body);
    if (node->flag) inner.in_loop = false;
    check_nodes(p, &node->orelse, inner);
}

static void check_macro(Parser *p, Node *node, Place place) {
    if (node->kind == N_CALL_BLOCK) check_expression(p, node->a, place);
    Place inner = {.macro = node, .outer = &place};
    for (size_t i = 0; i < node->orelse.count; i++)
        check_expression(p, node->orelse.items[i], place);
    check_nodes(p, &node->body, inner);
    if (!(node->op & USES_CALLER)) return;
    size_t first_default = node->list.count - node->orelse.count;
    for (size_t i = 0; i < first_default; i++)
        if (node->list.items[i]->name->length == 6 &&
            memcmp(node->list.items[i]->name->data, "caller", 6) == 0)
            jinja_syntax_error(
                p, node->line,
                "When defining macros or call blocks the special \"caller\" argument must be "
                "omitted or be given a default.");
}

static void check_statement(Parser *p, Node *node, Place place) {
    Place inner = place;
    inner.soft = false;
    switch (node->kind) {
    case N_IF:
        place.soft = true;
        for (size_t i = 0; i < node->list.count; i++) {
            check_expression(p, node->list.items[i]->a, place);
            check_nodes(p, &node->list.items[i]->body, place);
        }
        check_nodes(p, &node->orelse, place);
        return;
    case N_FOR: check_loop(p, node, place); return;
    case N_MACRO:
    case N_CALL_BLOCK: check_macro(p, node, place); return;
    case N_GENERATION:
    case N_BLOCK:
        inner.in_loop = false;
        check_nodes(p, &node->body, inner);
        return;
    case N_BREAK:
        if (!place.in_loop) jinja_syntax_error(p, node->line, "'break' outside loop");
        return;
    case N_CONTINUE:
        if (!place.in_loop) jinja_syntax_error(p, node->line, "'continue' not properly in loop");
        return;
    case N_SET_BLOCK:
    case N_FILTER_BLOCK:
        check_expression(p, node->b, inner);
        check_nodes(p, &node->body, inner);
        return;
    case N_WITH:
        for (size_t i = 0; i < node->orelse.count; i++)
            check_expression(p, node->orelse.items[i], place);
        check_nodes(p, &node->body, inner);
        return;
    case N_SET: check_expression(p, node->b, place); return;
    default: check_expression(p, node, place); return;
    }
}

static void check_nodes(Parser *p, const Nodes *nodes, Place place) {
    for (size_t i = 0; i < nodes->count; i++) check_statement(p, nodes->items[i], place);
}

void jinja_check_template(Parser *p, const Nodes *body) {
    check_nodes(p, body, (Place){0});
}
