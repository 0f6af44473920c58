/* jinja.h: what the parts of the Jinja interpreter share; nobody outside
 * src/text includes it.
 *
 * A template is parsed once into nodes that live in its own arena and never
 * change. A render makes values in an arena of its own that dies with it, so
 * nothing is freed by hand. A failure leaves through longjmp to the one
 * setjmp of the parse or the render: everything it could leak is in the arena,
 * and the evaluator stays free of error plumbing. Functions marked noreturn
 * raise. Every step is charged against the limits of the render. */
#ifndef TEXT_JINJA_H
#define TEXT_JINJA_H

#include <setjmp.h>

#include "base/base.h"
#include "text/template.h"

/* ---- values -------------------------------------------------------------- */

typedef struct Render Render;
typedef struct Node Node;
typedef struct Str Str;
typedef struct List List;
typedef struct Dict Dict;
typedef struct Iter Iter;
typedef struct Undef Undef;
typedef struct Macro Macro;
typedef struct Loop Loop;
typedef struct Cycler Cycler;
typedef struct Joiner Joiner;
typedef struct Range Range;
typedef struct View View;
typedef struct Function Function;
typedef struct Bound Bound;

typedef enum {
    V_MISSING, /* no value at all: an argument that was not given */
    V_UNDEFINED,
    V_NONE,
    V_BOOL,
    V_INT,
    V_FLOAT,
    V_STRING,
    V_LIST,
    V_TUPLE,
    V_DICT,
    V_RANGE,
    V_VIEW, /* dict.keys(), values(), items() */
    V_ITERATOR,
    V_NAMESPACE,
    V_MACRO,
    V_FUNCTION,
    V_BOUND, /* a method with its object */
    V_LOOP,
    V_CYCLER,
    V_JOINER
} ValueKind;

typedef struct Value {
    ValueKind kind;
    bool markup; /* of a string: made by the filter safe, or escaped */
    union {
        bool truth;
        int64_t integer;
        double real;
        const Str *string;
        List *list; /* of a tuple too */
        Dict *dict; /* of a namespace too */
        const Range *range;
        const View *view;
        Iter *iterator;
        const Undef *undefined;
        const Macro *macro;
        const Function *function;
        const Bound *bound;
        Loop *loop;
        Cycler *cycler;
        Joiner *joiner;
    } as;
} Value;

#define POINTS_UNKNOWN SIZE_MAX

/* A string never changes. `room`, when not NULL, says how far behind `data` a
 * concatenation may write without copying what is there. */
typedef struct Room {
    char *start;
    size_t used, capacity;
} Room;
struct Str {
    const char *data; /* UTF-8, not NUL-terminated */
    size_t length;    /* bytes */
    size_t points;    /* code points, or POINTS_UNKNOWN */
    Room *room;
};

struct List {
    Value *items;
    size_t count, capacity;
    bool group; /* a tuple of the filter groupby, with .grouper and .list */
};

typedef struct Pair {
    Value key, value;
    uint64_t hash;
} Pair;
struct Dict {
    Pair *pairs; /* in order of insertion */
    size_t count, capacity;
    uint32_t *slots; /* index of a pair + 1, or 0; NULL while small */
    size_t n_slots;
};

struct Range {
    int64_t start, stop, step, length;
};

typedef enum { VIEW_KEYS, VIEW_VALUES, VIEW_ITEMS } ViewOf;
struct View {
    ViewOf of;
    Dict *dict;
};

/* A lazy sequence that is consumed once. */
struct Iter {
    bool (*next)(Render *r, Iter *iter, Value *out);
    const char *type; /* Python's name of the type */
    Value source;     /* what it walks */
    size_t position;
    Iter *inner;
    void *state;
};

struct Undef {
    const char *hint; /* the whole message, or NULL */
    Value object;     /* V_MISSING: a plain variable */
    Value name;
    bool security; /* use of it is a SecurityError */
};

typedef struct Var {
    const Str *name; /* interned: names are equal when pointers are */
    Value value;
} Var;
typedef struct Env Env;
struct Env {
    Env *parent;
    Var *vars;
    size_t count, capacity;
};

struct Macro {
    const Node *node; /* N_MACRO or N_CALL_BLOCK */
    Env *env;         /* where it was defined */
};

struct Loop {
    Iter *iter;
    Value iterable;
    const Node *node;               /* of a recursive loop, else NULL */
    Env *env;                       /* around the loop */
    int64_t index0, depth0, length; /* length -1: not known yet */
    Value before, current, after;   /* V_MISSING when there is none */
    Value changed;
};

struct Cycler {
    List *items;
    size_t position;
};

struct Joiner {
    Value separator;
    bool used;
};

typedef struct Args {
    Value *positional;
    size_t count;
    struct NamedArg {
        const Str *name;
        Value value;
    } * named;
    size_t n_named;
} Args;

/* Up to this many parameters of a built-in function. */
#define MAX_PARAMETERS 6

/* `parameters` names what may be passed, separated by blanks; a leading '?'
 * marks one that may be left out, a '/' at the start allows no keywords, and
 * "*" alone means that the function reads `args` itself. slot[i] is V_MISSING when it was left out.
 */
struct Function {
    const char *name;        /* as the template calls it */
    const char *python_name; /* as messages call it */
    const char *parameters;
    Value (*call)(Render *r, Value self, Value *slot, const Args *args);
};

struct Bound {
    Value self;
    const Function *function;
};

/* ---- nodes ---------------------------------------------------------------- */

typedef enum {
    N_CONST,
    N_NAME,
    N_TUPLE,
    N_LIST,
    N_DICT, /* list: keys, orelse: values */
    N_COND, /* a if b else c */
    N_AND,
    N_OR,
    N_NOT,
    N_NEGATE,
    N_PLUS,
    N_BINARY,
    N_CONCAT,
    N_COMPARE, /* a, then list of N_OPERAND */
    N_OPERAND,
    N_ATTRIBUTE,
    N_ITEM,
    N_SLICE,
    N_CALL,
    N_FILTER, /* a may be NULL: the text of the block */
    N_TEST,
    N_MEMBER, /* an assignment target ns.attribute */
    N_DATA,
    N_OUTPUT,
    N_IF, /* list of N_BRANCH, orelse */
    N_BRANCH,
    N_FOR, /* a in b if c */
    N_SET, /* a = b */
    N_SET_BLOCK,
    N_MACRO,
    N_CALL_BLOCK, /* a is the call */
    N_FILTER_BLOCK,
    N_WITH, /* list = orelse */
    N_BREAK,
    N_CONTINUE,
    N_GENERATION,
    N_BLOCK,
    N_LOAD /* include, import, from, extends: there is nothing to load from */
} NodeKind;

typedef struct Nodes {
    Node **items;
    size_t count, capacity;
} Nodes;

typedef enum { USES_CALLER = 1, USES_KWARGS = 2, USES_VARARGS = 4 } MacroUses;

struct Node {
    NodeKind kind;
    int op;    /* a TokenType for operators, MacroUses for macros */
    bool flag; /* recursive loop, scoped block, negated test */
    int line;
    int depth; /* of the expression below, bounded while parsing */
    const Str *name;
    const Function *function; /* filter or test; NULL: unknown, fails when reached */
    Value value;
    Node *a, *b, *c;
    Nodes list, orelse, body;
    /* of calls, filters and tests: list has the positional arguments */
    const Str **names;
    Nodes named;
    Node *star, *star_star;
};

struct TextTemplate {
    Arena *arena;
    Nodes body;
    const Str *loop, *caller, *kwargs, *varargs; /* interned */
};

/* ---- tokens --------------------------------------------------------------- */

typedef enum {
    T_EOF,
    T_DATA,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_VARIABLE_BEGIN,
    T_VARIABLE_END,
    T_NAME,
    T_STRING,
    T_INTEGER,
    T_FLOAT,
    T_ADD,
    T_SUB,
    T_DIV,
    T_FLOORDIV,
    T_MUL,
    T_MOD,
    T_POW,
    T_TILDE,
    T_LBRACKET,
    T_RBRACKET,
    T_LPAREN,
    T_RPAREN,
    T_LBRACE,
    T_RBRACE,
    T_EQ,
    T_NE,
    T_GT,
    T_GTEQ,
    T_LT,
    T_LTEQ,
    T_ASSIGN,
    T_DOT,
    T_COLON,
    T_PIPE,
    T_COMMA,
    T_SEMICOLON,
    T_IN,     /* only as an operator of N_OPERAND */
    T_NOT_IN, /* the same */
    T_ANY
} TokenType;

typedef struct Token {
    TokenType type;
    int line;
    const char *text; /* of data and names: in the source */
    size_t length;
    Value value; /* of strings and numbers */
} Token;

#define MAX_BALANCE 512
#define MAX_NESTING 160 /* of brackets and blocks */

/* Parsing state: the source, the lexer's place in it, one token of look-ahead. */
typedef struct Parser {
    Arena *arena;
    const char *source;
    size_t length, position;
    int line; /* at line_position */
    size_t line_position;
    enum { MODE_DATA, MODE_BLOCK, MODE_VARIABLE } mode;
    char balance[MAX_BALANCE];
    size_t n_balance;
    bool line_starting;
    Token queue[2];
    size_t n_queue;

    Token current, ahead;
    bool has_ahead;
    int depth;
    const char *tags[MAX_NESTING + 1];        /* the open tags, for messages */
    const char *const *ends[MAX_NESTING + 1]; /* what may close each body, NULL at its end */
    size_t n_tags, n_ends;
    Str **interned;
    size_t n_interned, interned_capacity;
    Error *err;
    jmp_buf fail;
} Parser;

/* jinja_lexer.c */
void jinja_lexer_start(Parser *p, const char *source, size_t length);
Token jinja_lexer_next(Parser *p);
_Noreturn void jinja_syntax_error(Parser *p, int line, const char *format, ...) BASE_PRINTF(3, 4);
/* jinja_parser.c (expressions) and jinja_statements.c */
Token jinja_advance(Parser *p); /* the current token, and go on */
const Token *jinja_look(Parser *p);
bool jinja_is_name(const Token *token, const char *name);
bool jinja_skip_name(Parser *p, const char *name);
bool jinja_skip(Parser *p, TokenType type);
Token jinja_expect(Parser *p, TokenType type);
void jinja_expect_name(Parser *p, const char *name);
const char *jinja_describe(Parser *p, const Token *token);
Node *jinja_node(Parser *p, NodeKind kind, int line);
void jinja_nodes_add(Parser *p, Nodes *nodes, Node *node);
const Str *jinja_intern(Parser *p, const char *text, size_t length);
void jinja_descend(Parser *p); /* count the nesting, fail when too deep */
Node *jinja_parse_expression(Parser *p, bool with_condition);
typedef enum {
    TUPLE_PLAIN,
    TUPLE_FOR_TARGET,
    TUPLE_SET_TARGET,
    TUPLE_PARENTHESES,
    TUPLE_ITERABLE,
    TUPLE_NO_CONDITION
} TupleMode;
Node *jinja_parse_tuple(Parser *p, TupleMode mode);
Node *jinja_parse_filter(Parser *p, Node *input, bool start);
void jinja_parse_template(Parser *p, Nodes *body);
/* jinja_check.c: what is wrong only once the whole is known */
void jinja_check_template(Parser *p, const Nodes *body);

/* ---- render --------------------------------------------------------------- */

struct Render {
    const TextTemplate *parsed;
    Arena *arena;
    size_t memory, max_memory;
    uint64_t operations, max_operations;
    StrBuf out;
    size_t max_output;
    size_t captures, capture_start; /* open captures; where the outermost began */
    TextTemplateSpan *spans;
    size_t n_spans, spans_capacity;
    Dict *context; /* the caller's variables */
    Env *root;
    int line; /* of what is being evaluated */
    int calls;
    const char *stack;
    const struct tm *now;
    Error *err;
    jmp_buf fail;
};

_Noreturn void jinja_raise(Render *r, const char *type, const char *format, ...) BASE_PRINTF(3, 4);
void *jinja_alloc(Render *r, size_t bytes);  /* from the render's arena */
void *jinja_calloc(Render *r, size_t bytes); /* the same, zeroed */
void jinja_charge(Render *r, size_t steps);  /* raises past max_operations */
void jinja_check_stack(Render *r);

/* jinja_value.c: making, comparing and walking values */
static inline Value jinja_none(void) {
    return (Value){.kind = V_NONE};
}
static inline Value jinja_missing(void) {
    return (Value){.kind = V_MISSING};
}
static inline Value jinja_bool(bool truth) {
    return (Value){.kind = V_BOOL, .as.truth = truth};
}
static inline Value jinja_int(int64_t i) {
    return (Value){.kind = V_INT, .as.integer = i};
}
static inline Value jinja_float(double d) {
    return (Value){.kind = V_FLOAT, .as.real = d};
}
Value jinja_string(Render *r, const char *bytes, size_t length);        /* copies */
Value jinja_string_borrow(Render *r, const char *bytes, size_t length); /* does not */
Value jinja_text(Render *r, const char *literal);                       /* borrows a C string */
Value jinja_format(Render *r, const char *format, ...) BASE_PRINTF(2, 3);
Value jinja_concat(Render *r, const Str *left, const Str *right);
size_t jinja_points(const Str *string);
bool jinja_string_is(Value value, const char *text);
const char *jinja_cstring(Render *r, const Str *string); /* NUL-terminated copy */
List *jinja_list_new(Render *r, size_t capacity);
void jinja_list_add(Render *r, List *list, Value item);
Value jinja_list(List *list);
Value jinja_tuple(List *list);
Value jinja_tuple2(Render *r, Value first, Value second);
Dict *jinja_dict_new(Render *r);
void jinja_dict_set(Render *r, Dict *dict, Value key, Value value);
Value jinja_dict_get(Render *r, const Dict *dict, Value key); /* or V_MISSING */
Value jinja_dict_get_text(Render *r, const Dict *dict, const Str *key);
Value jinja_undefined(Render *r, const char *hint);
Value jinja_undefined_name(Render *r, const Str *name);
Value jinja_undefined_member(Render *r, Value object, Value name);
_Noreturn void jinja_raise_undefined(Render *r, Value undefined);
const char *jinja_undefined_message(Render *r, Value undefined);
bool jinja_truth(Render *r, Value value);
bool jinja_equal(Render *r, Value left, Value right);
bool jinja_same(Value left, Value right); /* Python's `is` */
/* op: T_LT, T_LTEQ, T_GT, T_GTEQ */
bool jinja_ordered(Render *r, int op, Value left, Value right);
bool jinja_contains(Render *r, Value container, Value item);
int jinja_compare_strings(const Str *left, const Str *right);
bool jinja_is_number(Value value);            /* bool, int or float */
bool jinja_as_int(Value value, int64_t *out); /* bool or int */
double jinja_as_float(Value value);
const char *jinja_type_name(Value value);
const char *jinja_type_repr(Render *r, Value value);
int64_t jinja_length(Render *r, Value value); /* raises TypeError */
bool jinja_has_length(Value value);
/* jinja_iter.c */
bool jinja_is_iterable(Value value);
Iter *jinja_iter(Render *r, Value value);
bool jinja_next(Render *r, Iter *iter, Value *out);
List *jinja_collect(Render *r, Value value);
Iter *jinja_iter_new(Render *r, const char *type, bool (*next)(Render *, Iter *, Value *),
                     Value source);
Value jinja_iterator(Iter *iter);
Value jinja_reversed(Render *r, Value value);

/* jinja_sort.c: stable, by the keys of the pairs */
void jinja_sort(Render *r, Pair *items, size_t count, bool reverse);

/* jinja_repr.c: the output, and Python's str() and repr(). A text is built at
 * the end of the output and taken from there, so a failure leaks nothing:
 * `size_t mark = jinja_mark(r); jinja_write(...); Value v = jinja_take(r, mark);` */
size_t jinja_mark(const Render *r);
Value jinja_take(Render *r, size_t mark);
void jinja_write(Render *r, const char *bytes, size_t length);
void jinja_puts(Render *r, const char *text);
void jinja_putc(Render *r, char character);
void jinja_put_point(Render *r, uint32_t point);
void jinja_put_times(Render *r, uint32_t point, int64_t times);
void jinja_write_float(Render *r, double value);
void jinja_write_str(Render *r, Value value);
void jinja_write_repr(Render *r, Value value);
Value jinja_str(Render *r, Value value);             /* a string value, markup kept */
Value jinja_plain(Value value);                      /* without markup */
const char *jinja_repr_text(Render *r, Value value); /* for messages */

/* jinja_operators.c */
Value jinja_binary(Render *r, int op, Value left, Value right);
Value jinja_negate(Render *r, Value value, bool plus);
Value jinja_attribute(Render *r, Value object, const Str *name);
Value jinja_item(Render *r, Value object, Value key);
Value jinja_slice(Render *r, Value object, Value start, Value stop, Value step);
Value jinja_substring(Render *r, const Str *string, size_t from, size_t to); /* code points */
Value jinja_escape(Render *r, Value value);

/* jinja_eval.c */
Value jinja_eval(Render *r, Env *env, const Node *node);
/* A chain of filters on the text of a block. */
Value jinja_apply_filters(Render *r, Env *env, const Node *node, Value input);
Value jinja_call(Render *r, Value callee, const Args *args);
Value jinja_call_function(Render *r, const Function *function, Value self, const Args *args);
Value jinja_call_node(Render *r, Env *env, const Node *call, const Value *caller);
bool jinja_test(Render *r, const Function *test, Value value, const Args *args);

/* jinja_exec.c */
typedef enum { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE } Flow;
Env *jinja_env_new(Render *r, Env *parent);
void jinja_env_set(Render *r, Env *env, const Str *name, Value value);
Flow jinja_exec(Render *r, Env *env, const Nodes *body);
Value jinja_call_macro(Render *r, const Macro *macro, const Args *args);
Value jinja_call_loop(Render *r, Loop *loop, const Args *args);
bool jinja_loop_peek(Render *r, Loop *loop); /* is there a next item? */
int64_t jinja_loop_length(Render *r, Loop *loop);

/* tables of what templates can name; NULL when there is no such thing */
const Function *jinja_find_filter(const char *name, size_t length);
const Function *jinja_find_test(const char *name, size_t length);
const Function *jinja_find_global(const char *name, size_t length);
const Function *jinja_find_method(Value object, const char *name, size_t length);
const Function *jinja_find(const Function *table, size_t count, const char *name, size_t length);
extern const Function jinja_sequence_filters[];
extern const size_t jinja_n_sequence_filters;
extern const Function jinja_text_filters[];
extern const size_t jinja_n_text_filters;
extern const Function jinja_layout_filters[];
extern const size_t jinja_n_layout_filters;
extern const Function jinja_html_filters[];
extern const size_t jinja_n_html_filters;

/* jinja_strings.c: the methods of str, used by filters too */
extern const Function jinja_string_methods[];
extern const size_t jinja_n_string_methods;
Value jinja_strip(Render *r, Value string, Value characters, bool left, bool right);
Value jinja_replace(Render *r, Value string, Value old, Value fresh, int64_t count);
List *jinja_split(Render *r, const Str *string, Value separator, int64_t limit, bool from_right);
List *jinja_splitlines(Render *r, const Str *string, bool keep_ends);
int64_t jinja_find_string(const char *text, size_t length, const char *needle,
                          size_t needle_length);
Value jinja_repeat(Render *r, const Str *string, int64_t count);
Value jinja_pad(Render *r, const Str *string, int64_t left, int64_t right, uint32_t fill);
/* jinja_format.c: the % operator and str.format */
Value jinja_printf(Render *r, const Str *format, Value arguments, bool markup);
Value jinja_str_format(Render *r, const Str *format, const Args *args, bool markup);

/* jinja_pattern.c: Python's regular expressions. All matches in order, in bytes;
 * a match of nothing ends the search. */
typedef struct MatchSpan {
    size_t start, end;
} MatchSpan;
const MatchSpan *jinja_find_all(Render *r, const char *pattern, const Str *text, size_t *count);
bool jinja_matches(Render *r, const char *pattern, const char *bytes, size_t length);

/* jinja_entity_data.c: the named characters of HTML 5, sorted by strcmp; names
 * without ';' are those that HTML accepts without it. */
typedef struct Entity {
    const char *name, *text;
} Entity;
extern const Entity jinja_entities[];
extern const size_t jinja_n_entities;

/* jinja_json.c */
Value jinja_from_json(Render *r, const json_t *json);
Value jinja_tojson(Render *r, Value self, Value *slot, const Args *args);

/* jinja_number.c: text to numbers */
bool jinja_parse_int(const Str *text, int base, int64_t *out, bool *overflow);
bool jinja_parse_float(const Str *text, double *out);

/* jinja_unicode.c: Python's idea of characters */
bool jinja_is_space(uint32_t point);
bool jinja_is_printable(uint32_t point);
bool jinja_is_word(uint32_t point);
bool jinja_is_alpha(uint32_t point);
bool jinja_is_decimal(uint32_t point);
bool jinja_is_digit(uint32_t point);
bool jinja_is_upper(uint32_t point);
bool jinja_is_lower(uint32_t point);
bool jinja_is_title(uint32_t point);
typedef enum { CASE_UPPER, CASE_LOWER, CASE_TITLE, CASE_CAPITALIZE, CASE_SWAP } CaseMode;
Value jinja_case(Render *r, Value string, CaseMode mode);
Value jinja_casefold(Render *r, Value string);

#endif
