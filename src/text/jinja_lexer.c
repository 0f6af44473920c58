/* jinja_lexer: a template's bytes as tokens, with jinja2's rules for the
 * whitespace around tags: trim_blocks and lstrip_blocks are on, "-" strips and
 * "+" keeps. Tokens are made when the parser asks for them, so that the first
 * error of a template is the one jinja2 reports. Gives jinja_lexer_next and
 * jinja_syntax_error. */
#include <string.h>

#include "text/jinja.h"

void jinja_syntax_error(Parser *p, int line, const char *format, ...) {
    char text[900];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    base_fail(p->err, ERROR_INPUT, "template: line %d: %s", line, text);
    longjmp(p->fail, 1);
}

static int line_at(Parser *p, size_t position) {
    for (; p->line_position < position; p->line_position++)
        p->line += p->source[p->line_position] == '\n';
    return p->line;
}

/* \r\n and \r become \n, and one newline at the very end goes away. */
void jinja_lexer_start(Parser *p, const char *source, size_t length) {
    char *clean = base_arena_alloc(p->arena, length + 1);
    size_t n = 0;
    for (size_t i = 0; i < length; i++) {
        if (source[i] == '\r') {
            if (i + 1 < length && source[i + 1] == '\n') i++;
            clean[n++] = '\n';
        } else {
            clean[n++] = source[i];
        }
    }
    if (n > 0 && clean[n - 1] == '\n') n--;
    clean[n] = 0;
    p->source = clean;
    p->length = n;
    p->line = 1;
    p->line_starting = true;
    if (!base_utf8_valid(clean, n)) jinja_syntax_error(p, 1, "the template is not UTF-8");
}

static bool at(const Parser *p, size_t position, const char *text) {
    size_t n = strlen(text);
    return position <= p->length && p->length - position >= n &&
           memcmp(p->source + position, text, n) == 0;
}

static size_t skip_space(const Parser *p, size_t position) {
    while (position < p->length) {
        uint32_t point;
        size_t n = base_utf8_decode(p->source + position, p->length - position, &point, NULL);
        if (!jinja_is_space(point)) break;
        position += n;
    }
    return position;
}

/* The end of text[from, to) without its trailing whitespace. */
static size_t strip_end(const Parser *p, size_t from, size_t to) {
    while (to > from) {
        size_t start = to - 1;
        while (start > from && ((unsigned char)p->source[start] & 0xC0) == 0x80) start--;
        uint32_t point;
        base_utf8_decode(p->source + start, to - start, &point, NULL);
        if (!jinja_is_space(point)) break;
        to = start;
    }
    return to;
}

/* Where the data before a tag ends: "-" strips all whitespace; without a sign
 * a tag that is alone on its line takes the blanks before it. */
static size_t data_end(const Parser *p, size_t from, size_t to, char sign, bool strips_line) {
    if (sign == '-') return strip_end(p, from, to);
    if (sign == '+' || !strips_line) return to;
    size_t line_start = to;
    while (line_start > from && p->source[line_start - 1] != '\n') line_start--;
    if (line_start == from && !p->line_starting) return to;
    return strip_end(p, line_start, to) == line_start ? line_start : to;
}

/* The end of a tag that closes with `close` ("%}" or "#}") at `position`, or 0:
 * "-" takes the whitespace after it, "+" keeps, else one newline is taken. */
static size_t tag_end(const Parser *p, size_t position, char close) {
    char minus[] = {'-', close, '}', 0}, plus[] = {'+', close, '}', 0}, plain[] = {close, '}', 0};
    if (at(p, position, minus)) return skip_space(p, position + 3);
    if (at(p, position, plus)) return position + 3;
    if (!at(p, position, plain)) return 0;
    position += 2;
    return position < p->length && p->source[position] == '\n' ? position + 1 : position;
}

static void queue_data(Parser *p, size_t from, size_t to) {
    if (to == from) return;
    p->queue[p->n_queue++] =
        (Token){T_DATA, line_at(p, from), p->source + from, to - from, {.kind = V_NONE}};
}

static void move_to(Parser *p, size_t position) {
    p->line_starting = position > 0 && p->source[position - 1] == '\n';
    p->position = position;
}

/* {% raw %}: the end of its opening tag, or 0. */
static size_t raw_begin(const Parser *p, size_t position) {
    position = skip_space(p, position);
    if (!at(p, position, "raw")) return 0;
    position = skip_space(p, position + 3);
    if (at(p, position, "-%}")) return skip_space(p, position + 3);
    return at(p, position, "%}") ? position + 2 : 0;
}

static void lex_raw(Parser *p) {
    size_t from = p->position;
    for (size_t i = from; i < p->length; i++) {
        if (!at(p, i, "{%")) continue;
        size_t name = i + 2;
        char sign = name < p->length ? p->source[name] : 0;
        if (sign == '-' || sign == '+') name++;
        name = skip_space(p, name);
        if (!at(p, name, "endraw")) continue;
        size_t end = tag_end(p, skip_space(p, name + 6), '%');
        if (end == 0) continue;
        queue_data(p, from, data_end(p, from, i, sign, true));
        move_to(p, end);
        return;
    }
    if (from < p->length) jinja_syntax_error(p, line_at(p, from), "Missing end of raw directive");
}

static void lex_comment(Parser *p) {
    for (size_t i = p->position; i < p->length; i++) {
        size_t end = tag_end(p, i, '#');
        if (end == 0) continue;
        move_to(p, end);
        return;
    }
    if (p->position < p->length)
        jinja_syntax_error(p, line_at(p, p->position), "Missing end of comment tag");
}

static void lex_data(Parser *p) {
    size_t from = p->position, tag = from;
    for (; tag < p->length; tag++)
        if (p->source[tag] == '{' && tag + 1 < p->length && strchr("%{#", p->source[tag + 1]))
            break;
    if (tag >= p->length) {
        queue_data(p, from, p->length);
        move_to(p, p->length);
        return;
    }
    char kind = p->source[tag + 1];
    size_t after = tag + 2;
    char sign = after < p->length ? p->source[after] : 0;
    if (sign == '-' || sign == '+') after++;
    queue_data(p, from, data_end(p, from, tag, sign, kind != '{'));
    size_t raw = kind == '%' ? raw_begin(p, after) : 0;
    if (raw) {
        move_to(p, raw);
        lex_raw(p);
        return;
    }
    move_to(p, after);
    if (kind == '#') {
        lex_comment(p);
        return;
    }
    p->mode = kind == '%' ? MODE_BLOCK : MODE_VARIABLE;
    p->queue[p->n_queue++] = (Token){kind == '%' ? T_BLOCK_BEGIN : T_VARIABLE_BEGIN,
                                     line_at(p, tag),
                                     p->source + tag,
                                     2,
                                     {.kind = V_NONE}};
}

static bool is_decimal(char c) {
    return c >= '0' && c <= '9';
}

static bool is_base_digit(char c, int base) {
    if (c >= 'A' && c <= 'F') c = (char)(c - 'A' + 'a');
    int digit = is_decimal(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
    return digit < base;
}

/* Digits with single underscores between them. */
static size_t digits(const Parser *p, size_t i, int base) {
    size_t end = i;
    while (end < p->length) {
        size_t digit = end > i && p->source[end] == '_' ? end + 1 : end;
        if (digit >= p->length || !is_base_digit(p->source[digit], base)) break;
        end = digit + 1;
    }
    return end;
}

/* The end of a float at `i`, or 0: it needs a fraction or an exponent. */
static size_t float_end(const Parser *p, size_t i) {
    if (i > 0 && p->source[i - 1] == '.') return 0;
    size_t whole = digits(p, i, 10), end = whole;
    bool fraction = false;
    if (end + 1 < p->length && p->source[end] == '.' && is_decimal(p->source[end + 1])) {
        end = digits(p, end + 1, 10);
        fraction = true;
    }
    if (end < p->length && (p->source[end] | 0x20) == 'e') {
        size_t exponent = end + 1;
        if (exponent < p->length && (p->source[exponent] == '+' || p->source[exponent] == '-'))
            exponent++;
        if (exponent < p->length && is_decimal(p->source[exponent])) return digits(p, exponent, 10);
    }
    return fraction ? end : 0;
}

static size_t integer_end(const Parser *p, size_t i) {
    if (p->source[i] == '0' && i + 2 < p->length) {
        char mark = (char)(p->source[i + 1] | 0x20);
        int base = mark == 'b' ? 2 : mark == 'o' ? 8 : mark == 'x' ? 16 : 0;
        if (base) {
            size_t first = p->source[i + 2] == '_' ? i + 3 : i + 2;
            if (first < p->length && is_base_digit(p->source[first], base))
                return digits(p, first, base);
        }
    }
    return digits(p, i, p->source[i] == '0' ? 1 : 10);
}

static Token lex_number(Parser *p) {
    size_t from = p->position, end = float_end(p, from);
    Token token = {
        end ? T_FLOAT : T_INTEGER, line_at(p, from), p->source + from, 0, {.kind = V_NONE}};
    if (end == 0) end = integer_end(p, from);
    token.length = end - from;
    p->position = end;
    Str text = {token.text, token.length, token.length, NULL};
    if (token.type == T_FLOAT) {
        double value = 0;
        jinja_parse_float(&text, &value);
        token.value = jinja_float(value);
        return token;
    }
    int64_t value = 0;
    bool overflow = false;
    if (!jinja_parse_int(&text, 0, &value, &overflow))
        jinja_syntax_error(p, token.line, "the number %.*s does not fit in 64 bits",
                           (int)BASE_MIN(token.length, (size_t)60), token.text);
    token.value = jinja_int(value);
    return token;
}

static bool hex_escape(const char *text, size_t length, size_t at_byte, size_t count,
                       uint32_t *point) {
    if (length - at_byte < count) return false;
    *point = 0;
    for (size_t i = 0; i < count; i++) {
        char c = text[at_byte + i];
        if (!is_base_digit(c, 16)) return false;
        uint32_t digit = is_decimal(c) ? (uint32_t)(c - '0') : (uint32_t)((c | 0x20) - 'a' + 10);
        *point = *point << 4 | digit;
    }
    return true;
}

/* One escape after its backslash, as Python reads it. Returns bytes taken. */
static size_t unescape(Parser *p, int line, const char *text, size_t length, StrBuf *out) {
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    char c = text[0];
    const char *simple = c ? strchr(from, c) : NULL;
    uint32_t point = 0;
    if (c == '\n') return 1;
    if (simple) {
        base_str_append_char(out, to[simple - from]);
        return 1;
    }
    if (c >= '0' && c <= '7') {
        size_t n = 0;
        for (; n < 3 && n < length && text[n] >= '0' && text[n] <= '7'; n++)
            point = point * 8 + (uint32_t)(text[n] - '0');
        base_str_append_codepoint(out, point);
        return n;
    }
    size_t count = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    const char *fault = NULL;
    if (c == 'N') fault = "named characters (\\N{...}) are not supported; write \\uXXXX";
    if (count && !hex_escape(text, length, 1, count, &point))
        fault = c == 'x'   ? "truncated \\xXX escape"
                : c == 'u' ? "truncated \\uXXXX escape"
                           : "truncated \\UXXXXXXXX escape";
    else if (count && point > 0x10FFFF)
        fault = "illegal Unicode character";
    else if (count && point >= 0xD800 && point <= 0xDFFF)
        fault = "a surrogate (\\ud800 to \\udfff) is not a character";
    if (fault) {
        base_str_free(out);
        jinja_syntax_error(p, line, "%s", fault);
    }
    if (count) {
        base_str_append_codepoint(out, point);
        return count + 1;
    }
    base_str_append_char(out, '\\');
    base_str_append_char(out, c);
    return 1;
}

static bool lex_string(Parser *p, Token *token) {
    size_t from = p->position, end = from + 1;
    char quote = p->source[from];
    while (end < p->length && p->source[end] != quote) end += p->source[end] == '\\' ? 2 : 1;
    if (end >= p->length) return false;
    StrBuf buffer = {0};
    int line = line_at(p, from);
    for (size_t i = from + 1; i < end;) {
        if (p->source[i] == '\\') {
            i++;
            i += unescape(p, line, p->source + i, end - i, &buffer);
        } else {
            base_str_append_char(&buffer, p->source[i++]);
        }
    }
    Str *string = base_arena_alloc(p->arena, sizeof *string);
    *string = (Str){base_arena_strndup(p->arena, buffer.data ? buffer.data : "", buffer.length),
                    buffer.length, POINTS_UNKNOWN, NULL};
    string->points = jinja_points(string);
    base_str_free(&buffer);
    *token = (Token){
        T_STRING, line, p->source + from, end + 1 - from, {.kind = V_STRING, .as.string = string}};
    p->position = end + 1;
    return true;
}

static const struct {
    const char *text;
    TokenType type;
} operators[] = {
    {"//", T_FLOORDIV}, {"**", T_POW},   {"==", T_EQ},      {"!=", T_NE},      {">=", T_GTEQ},
    {"<=", T_LTEQ},     {"+", T_ADD},    {"-", T_SUB},      {"/", T_DIV},      {"*", T_MUL},
    {"%", T_MOD},       {"~", T_TILDE},  {"[", T_LBRACKET}, {"]", T_RBRACKET}, {"(", T_LPAREN},
    {")", T_RPAREN},    {"{", T_LBRACE}, {"}", T_RBRACE},   {">", T_GT},       {"<", T_LT},
    {"=", T_ASSIGN},    {".", T_DOT},    {":", T_COLON},    {"|", T_PIPE},     {",", T_COMMA},
    {";", T_SEMICOLON},
};

static void balance(Parser *p, TokenType type, int line) {
    char open = type == T_LBRACE ? '}' : type == T_LPAREN ? ')' : type == T_LBRACKET ? ']' : 0;
    if (open) {
        if (p->n_balance == MAX_BALANCE)
            jinja_syntax_error(p, line, "brackets are nested too deeply");
        p->balance[p->n_balance++] = open;
        return;
    }
    char close = type == T_RBRACE ? '}' : type == T_RPAREN ? ')' : type == T_RBRACKET ? ']' : 0;
    if (!close) return;
    if (p->n_balance == 0) jinja_syntax_error(p, line, "unexpected '%c'", close);
    char expected = p->balance[--p->n_balance];
    if (expected != close)
        jinja_syntax_error(p, line, "unexpected '%c', expected '%c'", close, expected);
}

static Token lex_operator(Parser *p) {
    int line = line_at(p, p->position);
    for (size_t i = 0; i < BASE_COUNT(operators); i++) {
        if (!at(p, p->position, operators[i].text)) continue;
        balance(p, operators[i].type, line);
        Token token = {operators[i].type,
                       line,
                       operators[i].text,
                       strlen(operators[i].text),
                       {.kind = V_NONE}};
        p->position += token.length;
        return token;
    }
    Str before = {p->source, p->position, POINTS_UNKNOWN, NULL};
    uint32_t point;
    size_t n = base_utf8_decode(p->source + p->position, p->length - p->position, &point, NULL);
    jinja_syntax_error(p, line, "unexpected char %s%.*s%s at %zu", point == '\'' ? "\"" : "'",
                       (int)n, p->source + p->position, point == '\'' ? "\"" : "'",
                       jinja_points(&before));
}

static bool lex_end(Parser *p, Token *token) {
    size_t end = 0;
    if (p->n_balance > 0) return false;
    if (p->mode == MODE_BLOCK)
        end = tag_end(p, p->position, '%');
    else if (at(p, p->position, "-}}"))
        end = skip_space(p, p->position + 3);
    else if (at(p, p->position, "}}"))
        end = p->position + 2;
    if (end == 0) return false;
    *token = (Token){p->mode == MODE_BLOCK ? T_BLOCK_END : T_VARIABLE_END,
                     line_at(p, p->position),
                     p->source + p->position,
                     2,
                     {.kind = V_NONE}};
    p->mode = MODE_DATA;
    move_to(p, end);
    return true;
}

static Token lex_name(Parser *p, size_t end) {
    Token token = {T_NAME,
                   line_at(p, p->position),
                   p->source + p->position,
                   end - p->position,
                   {.kind = V_NONE}};
    for (size_t i = p->position; i < end;) {
        uint32_t point;
        size_t n = base_utf8_decode(p->source + i, end - i, &point, NULL);
        bool first = i == p->position;
        if (point != '_' && !jinja_is_alpha(point) && (first || !jinja_is_decimal(point)))
            jinja_syntax_error(p, token.line, "Invalid character in identifier");
        i += n;
    }
    p->position = end;
    return token;
}

static Token lex_code(Parser *p) {
    Token token;
    if (lex_end(p, &token)) return token;
    p->position = skip_space(p, p->position);
    if (lex_end(p, &token)) return token;
    if (p->position >= p->length)
        return (Token){T_EOF, line_at(p, p->length), "", 0, {.kind = V_NONE}};
    char c = p->source[p->position];
    if (is_decimal(c)) return lex_number(p);
    size_t end = p->position;
    while (end < p->length) {
        uint32_t point;
        size_t n = base_utf8_decode(p->source + end, p->length - end, &point, NULL);
        if (!jinja_is_word(point)) break;
        end += n;
    }
    if (end > p->position) return lex_name(p, end);
    if ((c == '\'' || c == '"') && lex_string(p, &token)) return token;
    return lex_operator(p);
}

Token jinja_lexer_next(Parser *p) {
    while (p->n_queue == 0) {
        if (p->mode != MODE_DATA) return lex_code(p);
        if (p->position >= p->length)
            return (Token){T_EOF, line_at(p, p->length), "", 0, {.kind = V_NONE}};
        lex_data(p);
    }
    Token token = p->queue[0];
    p->queue[0] = p->queue[1];
    p->n_queue--;
    return token;
}
