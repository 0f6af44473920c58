/* The JSON scanner. One pass over the bytes; objects and lists are walked by
 * recursion of bounded depth, `wanted` says by a bit a field which paths agree
 * with the place so far. Strings are passed over eight bytes at a time; only
 * those that are asked for are copied. */
#include "data/json.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- paths ------------------------------------------------------------------------ */

static bool split_path(const char *path, char ***names, size_t *length, Error *err) {
    size_t capacity = 0;
    for (const char *at = path;; at++) {
        const char *end = at + strcspn(at, ".");
        if (end == at)
            return base_fail(err, ERROR_INPUT, "\"%s\" is not the path of a JSON field", path);
        if (*length == JSON_MAX_DEPTH)
            return base_fail(err, ERROR_INPUT, "the path of a JSON field is deeper than %d",
                             JSON_MAX_DEPTH);
        *names = base_grow(*names, &capacity, *length + 1, sizeof **names);
        (*names)[(*length)++] = base_strndup(at, (size_t)(end - at));
        at = end;
        if (*at == '\0') return true;
    }
}

bool dx_json_fields(const char *const *paths, const char *const *keys, size_t count, bool optional,
                    JsonFields *fields, Error *err) {
    *fields = (JsonFields){.optional = optional};
    if (count > JSON_MAX_FIELDS)
        return base_fail(err, ERROR_INPUT, "%zu JSON fields; at most %d at a time", count,
                         JSON_MAX_FIELDS);
    for (size_t i = 0; i < count; i++) {
        fields->count++;
        if (!split_path(paths[i], &fields->names[i], &fields->length[i], err)) {
            dx_json_fields_free(fields);
            return false;
        }
        fields->keys[i] = dx_key(keys && keys[i] ? keys[i] : paths[i]);
    }
    return true;
}

void dx_json_fields_free(JsonFields *fields) {
    for (size_t i = 0; i < fields->count; i++) {
        for (size_t j = 0; j < fields->length[i]; j++) free(fields->names[i][j]);
        free(fields->names[i]);
    }
    fields->count = 0;
}

/* ---- the scanner ------------------------------------------------------------------- */

typedef struct Scanner {
    const char *start, *at, *end;
    const JsonFields *fields;
    DxSample **sample;
    uint64_t found;
    StrBuf scratch;
    Error *err;
} Scanner;

static bool wrong(Scanner *s, const char *what) {
    return base_fail(s->err, ERROR_INPUT, "%s", what);
}

static void skip_space(Scanner *s) {
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\r' || *s->at == '\t'))
        s->at++;
}

static uint64_t load_word(const char *at) {
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

/* A bit in the top of each byte that is a quote, a backslash, a control character
 * or not ASCII. */
static uint64_t special_bytes(uint64_t word) {
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    uint64_t quote = word ^ (ones * '"'), slash = word ^ (ones * '\\');
    return (((quote - ones) & ~quote) | ((slash - ones) & ~slash) | ((word - ones * 32) & ~word) |
            word) &
           tops;
}

/* To the byte behind the closing quote. *plain: no escapes in it. */
static bool pass_string(Scanner *s, bool *plain) {
    const char *at = s->at + 1;
    *plain = true;
    for (;;) {
        /* A borrow may mark a byte above a marked one by mistake, never below: the
         * first is right, whichever end the words have, after a look at it. */
        while (s->end - at >= 8 && special_bytes(load_word(at)) == 0) at += 8;
        while (at < s->end && (unsigned char)*at >= 32 && (unsigned char)*at < 128 && *at != '"' &&
               *at != '\\')
            at++;
        s->at = at;
        if (at == s->end) return wrong(s, "the text ends inside a string");
        unsigned char byte = (unsigned char)*at;
        if (byte == '"') {
            s->at++;
            return true;
        }
        if (byte == '\\') {
            *plain = false;
            if (s->end - at < 2) return wrong(s, "the text ends inside a string");
            if (at[1] == 'u') {
                if (s->end - at < 6) return wrong(s, "the text ends inside a string");
                for (int i = 2; i < 6; i++)
                    if (!strchr("0123456789abcdefABCDEF", at[i]) || at[i] == '\0')
                        return wrong(s, "\\u wants four hexadecimal digits");
                at += 6;
            } else {
                if (!strchr("\"\\/bfnrt", at[1]) || at[1] == '\0')
                    return wrong(s, "a backslash before a character that it cannot escape");
                at += 2;
            }
        } else if (byte < 32) {
            return wrong(s, "a control character inside a string");
        } else {
            uint32_t codepoint;
            bool valid;
            size_t taken = base_utf8_decode(at, (size_t)(s->end - at), &codepoint, &valid);
            if (!valid) return wrong(s, "a string is not valid UTF-8");
            at += taken;
        }
    }
}

static uint32_t hex4(const char *at) {
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) {
        char digit = at[i];
        value = value << 4 | (uint32_t)(digit <= '9' ? digit - '0' : (digit | 32) - 'a' + 10);
    }
    return value;
}

/* The characters of a string without its quotes. A half of a surrogate pair alone
 * becomes U+FFFD: it stands for no character. */
static void unescape(const char *at, const char *end, StrBuf *out) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    while (at < end) {
        const char *slash = memchr(at, '\\', (size_t)(end - at));
        if (!slash) slash = end;
        base_str_append_n(out, at, (size_t)(slash - at));
        if (slash == end) return;
        at = slash + 2;
        if (slash[1] != 'u') {
            base_str_append_char(out, to[strchr(from, slash[1]) - from]);
            continue;
        }
        uint32_t codepoint = hex4(at);
        at += 4;
        if (codepoint >= 0xd800 && codepoint < 0xdc00 && end - at >= 6 && at[0] == '\\' &&
            at[1] == 'u') {
            uint32_t low = hex4(at + 2);
            if (low >= 0xdc00 && low < 0xe000) {
                codepoint = 0x10000 + ((codepoint - 0xd800) << 10) + (low - 0xdc00);
                at += 6;
            }
        }
        if (codepoint >= 0xd800 && codepoint < 0xe000) codepoint = 0xfffd;
        base_str_append_codepoint(out, codepoint);
    }
}

static const char *pass_digits(const char *at, const char *end) {
    while (at < end && *at >= '0' && *at <= '9') at++;
    return at;
}

static bool pass_number(Scanner *s, bool *whole) {
    const char *at = s->at;
    *whole = true;
    if (at < s->end && *at == '-') at++;
    const char *digits = at;
    at = pass_digits(at, s->end);
    if (at == digits) return wrong(s, "a value was expected");
    if (*digits == '0' && at - digits > 1) return wrong(s, "a number begins with 0");
    if (at < s->end && *at == '.') {
        *whole = false;
        const char *fraction = ++at;
        at = pass_digits(at, s->end);
        if (at == fraction) return wrong(s, "a number ends with its point");
    }
    if (at < s->end && (*at == 'e' || *at == 'E')) {
        *whole = false;
        at++;
        if (at < s->end && (*at == '+' || *at == '-')) at++;
        const char *exponent = at;
        at = pass_digits(at, s->end);
        if (at == exponent) return wrong(s, "a number ends inside its exponent");
    }
    s->at = at;
    return true;
}

typedef enum { NUMBER_I64, NUMBER_U64, NUMBER_F64 } NumberKind;
typedef struct Number {
    NumberKind kind;
    int64_t integer;
    double real;
} Number;

static Number read_number(const char *at, const char *end, bool whole) {
    Number number = {NUMBER_F64, 0, 0};
    bool negative = *at == '-', fits = whole;
    uint64_t value = 0;
    for (const char *digit = at + negative; fits && digit < end; digit++)
        fits = !__builtin_mul_overflow(value, 10, &value) &&
               !__builtin_add_overflow(value, (uint64_t)(*digit - '0'), &value);
    if (fits && value <= (uint64_t)INT64_MAX + negative) {
        number.kind = NUMBER_I64;
        number.integer = negative ? (int64_t)(0 - value) : (int64_t)value;
        number.real = (double)number.integer;
    } else if (fits && !negative) {
        number.kind = NUMBER_U64;
        number.integer = (int64_t)value;
        number.real = (double)value;
    } else {
        char copy[64], *text = end - at < 64 ? copy : base_alloc((size_t)(end - at) + 1);
        memcpy(text, at, (size_t)(end - at));
        text[end - at] = '\0';
        number.real = strtod(text, NULL);
        if (text != copy) free(text);
    }
    return number;
}

static bool pass_value(Scanner *s, int depth, uint64_t wanted);

/* ---- taking a field ------------------------------------------------------------------ */

static DxArray *take_string(Scanner *s, const char *start, bool plain) {
    const char *first = start + 1, *last = s->at - 1;
    if (plain) return dx_array_text(first, (size_t)(last - first), s->err);
    s->scratch.length = 0;
    unescape(first, last, &s->scratch);
    return dx_array_text(s->scratch.data, s->scratch.length, s->err);
}

static DxArray *number_array(Number number) {
    if (number.kind == NUMBER_F64) return dx_array_real(number.real);
    DxArray *array = dx_array_int(number.integer);
    if (number.kind == NUMBER_U64) array->type = DX_U64;
    return array;
}

/* A list of numbers alone, whose text [start, end) was passed already, as a vector:
 * whole numbers that fit are DX_I64, else all are DX_F64. NULL without an error for
 * any other list. */
static DxArray *take_numbers(Scanner *s, const char *start, const char *end) {
    size_t count = 0;
    bool reals = false;
    for (const char *at = start + 1; at < end - 1; at++) {
        if (strchr("\"[{tfn", *at)) return NULL;
        count += *at == ',';
    }
    Scanner inner = {.at = start + 1, .end = end - 1, .err = s->err};
    skip_space(&inner);
    if (inner.at == inner.end)
        count = 0;
    else
        count++;
    DxArray *array = dx_array_new(DX_I64, 1, (int64_t[]){(int64_t)count}, s->err);
    for (size_t i = 0; array && i < count; i++) {
        bool whole;
        skip_space(&inner);
        const char *digits = inner.at;
        pass_number(&inner, &whole);
        Number number = read_number(digits, inner.at, whole);
        if (number.kind != NUMBER_I64 && !reals) {
            /* The list turns out to be real: what was read before becomes so too. */
            for (size_t j = 0; j < i; j++)
                ((double *)array->data)[j] = (double)((const int64_t *)array->data)[j];
            reals = true;
            array->type = DX_F64;
        }
        if (reals)
            ((double *)array->data)[i] = number.real;
        else
            ((int64_t *)array->data)[i] = number.integer;
        skip_space(&inner);
        inner.at++;
    }
    return array;
}

static bool take(Scanner *s, const char *start, bool plain, bool whole, uint64_t fields) {
    DxArray *array = NULL;
    bool ok = true;
    switch (*start) {
    case '"': ok = (array = take_string(s, start, plain)) != NULL; break;
    case 'n': break;
    case 't':
    case 'f':
        array = dx_array_copy(DX_BOOL, 0, NULL, (const uint8_t[]){*start == 't'}, s->err);
        ok = array != NULL;
        break;
    case '[':
        array = take_numbers(s, start, s->at);
        if (array || (s->err && s->err->code != ERROR_NONE)) {
            ok = array != NULL;
            break;
        }
        /* fall through */
    case '{': ok = (array = dx_array_text(start, (size_t)(s->at - start), s->err)) != NULL; break;
    default: array = number_array(read_number(start, s->at, whole));
    }
    for (size_t i = 0; ok && i < s->fields->count; i++) {
        if (!(fields >> i & 1)) continue;
        if (!array) {
            /* A later null takes back what an earlier member of the same name gave. */
            dx_sample_remove(s->sample, s->fields->keys[i]);
            s->found &= ~(UINT64_C(1) << i);
            continue;
        }
        dx_sample_put(s->sample, s->fields->keys[i], dx_array_retain(array));
        s->found |= UINT64_C(1) << i;
    }
    dx_array_release(array);
    return ok;
}

/* ---- objects, lists, values ---------------------------------------------------------- */

/* Of `wanted`, the fields whose name at `depth` is this. */
static uint64_t narrow(const Scanner *s, int depth, uint64_t wanted, const char *name,
                       size_t length) {
    uint64_t rest = 0;
    for (uint64_t left = wanted; left; left &= left - 1) {
        int i = __builtin_ctzll(left);
        if (s->fields->length[i] <= (size_t)depth) continue;
        const char *part = s->fields->names[i][depth];
        if (strlen(part) == length && memcmp(part, name, length) == 0) rest |= UINT64_C(1) << i;
    }
    return rest;
}

static bool pass_member(Scanner *s, int depth, uint64_t wanted) {
    bool plain;
    skip_space(s);
    if (s->at == s->end || *s->at != '"') return wrong(s, "a member's name was expected");
    const char *name = s->at + 1;
    if (!pass_string(s, &plain)) return false;
    size_t length = (size_t)(s->at - 1 - name);
    if (wanted && !plain) {
        s->scratch.length = 0;
        unescape(name, name + length, &s->scratch);
        wanted =
            narrow(s, depth, wanted, s->scratch.data ? s->scratch.data : "", s->scratch.length);
    } else if (wanted) {
        wanted = narrow(s, depth, wanted, name, length);
    }
    skip_space(s);
    if (s->at == s->end || *s->at != ':') return wrong(s, "a colon was expected");
    s->at++;
    return pass_value(s, depth + 1, wanted);
}

/* Behind '{' or '[': members up to the closing bracket. */
static bool pass_members(Scanner *s, int depth, uint64_t wanted, bool object) {
    const char close = object ? '}' : ']';
    if (depth >= JSON_MAX_DEPTH) return wrong(s, "lists and objects are nested too deep");
    s->at++;
    skip_space(s);
    if (s->at < s->end && *s->at == close) {
        s->at++;
        return true;
    }
    for (size_t index = 0;; index++) {
        if (object) {
            if (!pass_member(s, depth, wanted)) return false;
        } else {
            uint64_t inner = 0;
            if (wanted) {
                char name[24];
                int length = snprintf(name, sizeof name, "%zu", index);
                inner = narrow(s, depth, wanted, name, (size_t)length);
            }
            if (!pass_value(s, depth + 1, inner)) return false;
        }
        skip_space(s);
        if (s->at == s->end) return wrong(s, "the text ends inside an object or a list");
        char byte = *s->at;
        if (byte != ',' && byte != close)
            return wrong(s, object ? "a comma or } was expected" : "a comma or ] was expected");
        s->at++;
        if (byte == close) return true;
    }
}

static bool pass_word(Scanner *s, const char *word) {
    size_t length = strlen(word);
    if ((size_t)(s->end - s->at) < length || memcmp(s->at, word, length) != 0)
        return wrong(s, "a value was expected");
    s->at += length;
    return true;
}

static bool pass_value(Scanner *s, int depth, uint64_t wanted) {
    bool plain = true, whole = true, ok;
    skip_space(s);
    if (s->at == s->end) return wrong(s, "the text ends where a value was expected");
    const char *start = s->at;
    switch (*start) {
    case '{': ok = pass_members(s, depth, wanted, true); break;
    case '[': ok = pass_members(s, depth, wanted, false); break;
    case '"': ok = pass_string(s, &plain); break;
    case 't': ok = pass_word(s, "true"); break;
    case 'f': ok = pass_word(s, "false"); break;
    case 'n': ok = pass_word(s, "null"); break;
    default: ok = pass_number(s, &whole);
    }
    if (!ok || !wanted) return ok;
    uint64_t complete = 0;
    for (uint64_t left = wanted; left; left &= left - 1) {
        int i = __builtin_ctzll(left);
        if (s->fields->length[i] == (size_t)depth) complete |= UINT64_C(1) << i;
    }
    return !complete || take(s, start, plain, whole, complete);
}

static bool all_found(const Scanner *s) {
    for (size_t i = 0; i < s->fields->count; i++)
        if (!(s->found >> i & 1))
            return base_fail(s->err, ERROR_INPUT, "there is no \"%s\"", s->fields->keys[i].name);
    return true;
}

bool dx_json_scan(const char *text, size_t length, const JsonFields *fields, DxSample **sample,
                  size_t *column, Error *err) {
    Scanner s = {.start = text,
                 .at = text,
                 .end = text + length,
                 .fields = fields,
                 .sample = sample,
                 .err = err};
    uint64_t all = fields->count == 64 ? ~UINT64_C(0) : (UINT64_C(1) << fields->count) - 1;
    bool ok = pass_value(&s, 0, all);
    if (ok) {
        skip_space(&s);
        if (s.at != s.end) ok = wrong(&s, "there is more behind the value");
    }
    if (column) *column = (size_t)(s.at - text) + 1;
    if (ok && !fields->optional) {
        ok = all_found(&s);
        if (!ok && column) *column = 0;
    }
    base_str_free(&s.scratch);
    return ok;
}
