/* A small JSON reader for one purpose: tokenizer_scan.h. It skips values
 * without looking into them to find the two it wants, and reads those two
 * strictly. It never recurses. */
#include "text/tokenizer_scan.h"

#include <math.h>

typedef struct Cursor {
    const char *text;
    size_t at, end;
} Cursor;

static void skip_space(Cursor *c) {
    while (c->at < c->end && (c->text[c->at] == ' ' || c->text[c->at] == '\n' ||
                              c->text[c->at] == '\r' || c->text[c->at] == '\t'))
        c->at++;
}

static bool take(Cursor *c, char wanted) {
    skip_space(c);
    if (c->at >= c->end || c->text[c->at] != wanted) return false;
    c->at++;
    return true;
}

/* Past a string whose opening quote is next. */
static bool skip_string(Cursor *c) {
    if (!take(c, '"')) return false;
    size_t start = c->at;
    for (;;) {
        const char *quote = memchr(c->text + c->at, '"', c->end - c->at);
        if (!quote) return false;
        size_t at = (size_t)(quote - c->text), slashes = 0;
        while (at - slashes > start && c->text[at - slashes - 1] == '\\') slashes++;
        c->at = at + 1;
        if (slashes % 2 == 0) return true;
    }
}

static bool skip_value(Cursor *c) {
    size_t depth = 0;
    skip_space(c);
    do {
        if (c->at >= c->end) return false;
        char next = c->text[c->at];
        if (next == '"') {
            if (!skip_string(c)) return false;
        } else if (next == '{' || next == '[') {
            depth++;
            c->at++;
        } else if (next == '}' || next == ']') {
            if (!depth) return false;
            depth--;
            c->at++;
        } else if (depth) {
            c->at++;
        } else {
            while (c->at < c->end && !strchr(",]} \n\r\t", c->text[c->at])) c->at++;
            return true;
        }
    } while (depth);
    return true;
}

/* Past the key and the colon; a key with escapes matches nothing. */
static bool take_key(Cursor *c, const char **key, size_t *length) {
    skip_space(c);
    size_t start = c->at + 1;
    if (!skip_string(c)) return false;
    *key = c->text + start;
    *length = c->at - 1 - start;
    return take(c, ':');
}

static bool is_key(const char *key, size_t length, const char *wanted) {
    return length == strlen(wanted) && memcmp(key, wanted, length) == 0;
}

static bool find_in_model(Cursor *c, TextScan *scan) {
    if (!take(c, '{')) return false;
    do {
        const char *key;
        size_t length;
        if (!take_key(c, &key, &length)) return false;
        skip_space(c);
        size_t begin = c->at;
        char opens = begin < c->end ? c->text[begin] : '\0';
        if (!skip_value(c)) return false;
        if ((opens == '{' || opens == '[') && is_key(key, length, "vocab")) {
            scan->vocab_begin = begin;
            scan->vocab_end = c->at;
        } else if (opens == '[' && is_key(key, length, "merges")) {
            scan->merges_begin = begin;
            scan->merges_end = c->at;
        }
    } while (take(c, ','));
    return take(c, '}');
}

bool text_scan_find(const char *json, size_t length, TextScan *scan) {
    Cursor c = {json, 0, length};
    size_t models = 0;
    *scan = (TextScan){0};
    if (!take(&c, '{')) return false;
    do {
        const char *key;
        size_t key_length;
        if (!take_key(&c, &key, &key_length)) return false;
        bool model = is_key(key, key_length, "model");
        models += model;
        if (model ? !find_in_model(&c, scan) : !skip_value(&c)) return false;
    } while (take(&c, ','));
    return models == 1 && scan->vocab_end > scan->vocab_begin && take(&c, '}');
}

bool text_scan_find_list(const char *json, size_t length, const char *name, TextScan *scan) {
    Cursor c = {json, 0, length};
    size_t lists = 0;
    *scan = (TextScan){0};
    if (!take(&c, '{')) return false;
    do {
        const char *key;
        size_t key_length;
        if (!take_key(&c, &key, &key_length)) return false;
        skip_space(&c);
        size_t begin = c.at;
        if (!skip_value(&c)) return false;
        if (json[begin] != '[' || !is_key(key, key_length, name)) continue;
        lists++;
        scan->vocab_begin = begin;
        scan->vocab_end = c.at;
    } while (take(&c, ','));
    return lists == 1 && take(&c, '}');
}

void text_scan_rest(const char *json, size_t length, const TextScan *scan, StrBuf *out) {
    struct {
        size_t begin, end;
        const char *instead;
    } cuts[2] = {{scan->vocab_begin, scan->vocab_end, json[scan->vocab_begin] == '{' ? "{}" : "[]"},
                 {scan->merges_begin, scan->merges_end, "[]"}};
    size_t first = cuts[1].end && cuts[1].begin < cuts[0].begin, done = 0;
    for (size_t i = 0; i < 2; i++) {
        size_t k = i ? !first : first;
        if (!cuts[k].end) continue;
        base_str_append_n(out, json + done, cuts[k].begin - done);
        base_str_append(out, cuts[k].instead);
        done = cuts[k].end;
    }
    base_str_append_n(out, json + done, length - done);
}

/* ---- strict reading ----------------------------------------------------- */

static int hex4(const char *text) {
    int value = 0;
    for (size_t i = 0; i < 4; i++) {
        char c = text[i];
        int digit = c >= '0' && c <= '9'                 ? c - '0'
                    : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                         : -1;
        if (digit < 0) return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* \uXXXX, as a pair where it needs to be; the cursor is past "\u". */
static bool read_unicode_escape(Cursor *c, StrBuf *out) {
    int high = c->end - c->at >= 4 ? hex4(c->text + c->at) : -1;
    if (high < 0 || (high >= 0xDC00 && high <= 0xDFFF)) return false;
    c->at += 4;
    uint32_t code = (uint32_t)high;
    if (high >= 0xD800 && high <= 0xDBFF) {
        if (c->end - c->at < 6 || c->text[c->at] != '\\' || c->text[c->at + 1] != 'u') return false;
        int low = hex4(c->text + c->at + 2);
        if (low < 0xDC00 || low > 0xDFFF) return false;
        code = 0x10000 + ((uint32_t)(high - 0xD800) << 10) + (uint32_t)(low - 0xDC00);
        c->at += 6;
    }
    base_str_append_codepoint(out, code);
    return true;
}

/* A string's text: in place when it has no escapes, else in *scratch. */
static bool read_string(Cursor *c, StrBuf *scratch, const char **text, size_t *length) {
    static const char escapes[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
    if (!take(c, '"')) return false;
    size_t start = c->at;
    bool ascii = true;
    while (c->at < c->end && c->text[c->at] != '"' && c->text[c->at] != '\\' &&
           (uint8_t)c->text[c->at] >= 0x20) {
        ascii &= (uint8_t)c->text[c->at] < 0x80;
        c->at++;
    }
    if (c->at < c->end && c->text[c->at] == '"') {
        *text = c->text + start;
        *length = c->at++ - start;
        return ascii || base_utf8_valid(*text, *length);
    }
    scratch->length = 0;
    base_str_append_n(scratch, c->text + start, c->at - start);
    while (c->at < c->end && c->text[c->at] != '"') {
        char next = c->text[c->at++];
        if ((uint8_t)next < 0x20) return false;
        if (next != '\\') {
            base_str_append_char(scratch, next);
            continue;
        }
        if (c->at >= c->end) return false;
        next = c->text[c->at++];
        if (next == 'u') {
            if (!read_unicode_escape(c, scratch)) return false;
            continue;
        }
        size_t i = 0;
        while (i + 1 < sizeof escapes && escapes[i] != next) i += 2;
        if (i + 1 >= sizeof escapes) return false;
        base_str_append_char(scratch, escapes[i + 1]);
    }
    *text = scratch->data;
    *length = scratch->length;
    return take(c, '"') && base_utf8_valid(*text, *length);
}

static bool read_id(Cursor *c, int64_t *id) {
    skip_space(c);
    size_t start = c->at;
    *id = 0;
    while (c->at < c->end && c->text[c->at] >= '0' && c->text[c->at] <= '9' && c->at - start < 12)
        *id = *id * 10 + (c->text[c->at++] - '0');
    return c->at > start;
}

static bool bad(const Cursor *c, const char *what, Error *err) {
    return base_fail(err, ERROR_INPUT, "model: byte %zu: %s", c->at, what);
}

/* Texts read but not yet added, because many at once are faster. A text with
 * escapes lives in the scratch of its place. */
typedef struct Batch {
    TextPiece texts[TEXT_BATCH];
    int64_t ids[TEXT_BATCH]; /* a vocabulary's */
    StrBuf scratch[TEXT_BATCH];
    size_t count;
} Batch;

static bool read_text(Cursor *c, Batch *batch, size_t place) {
    TextPiece *piece = &batch->texts[place];
    return read_string(c, &batch->scratch[place], &piece->text, &piece->length);
}

static bool add_entries(TextModel *model, Batch *batch, Error *err) {
    size_t count = batch->count;
    batch->count = 0;
    return text_vocab_add_many(&model->vocab, batch->texts, batch->ids, count, err);
}

static bool read_vocab(Cursor *c, TextModel *model, Batch *batch, Error *err) {
    take(c, '{');
    if (take(c, '}')) return true;
    do {
        if (batch->count == TEXT_BATCH && !add_entries(model, batch, err)) return false;
        if (!read_text(c, batch, batch->count) || !take(c, ':'))
            return bad(c, "broken string in \"vocab\"", err);
        if (!read_id(c, &batch->ids[batch->count++]))
            return bad(c, "an id in \"vocab\" is not a whole number", err);
    } while (take(c, ','));
    return add_entries(model, batch, err) &&
           (take(c, '}') || bad(c, "\"vocab\" is not an object of token to id", err));
}

/* A plain decimal as serde_json reads it (src/de.rs): all digits as one whole
 * number, rounded, over a power of ten, rounded again. Scores that tie in the
 * Python package must tie here, to the last bit. */
static double rounded_twice(const char *text, const char *end, double value) {
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                    1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                    1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    const char *point = memchr(text, '.', (size_t)(end - text));
    size_t places = point ? (size_t)(end - point) - 1 : 0;
    uint64_t digits = 0;
    if (places >= BASE_COUNT(powers)) return value;
    for (const char *at = text + (*text == '-'); at < end; at++) {
        if (at == point) continue;
        uint64_t digit = (uint64_t)(*at - '0');
        if (digit > 9 || digits > (UINT64_MAX - digit) / 10) return value;
        digits = digits * 10 + digit;
    }
    double size = (double)digits / powers[places];
    return *text == '-' ? -size : size;
}

/* A JSON number ends at a character that can follow one, so strtod stops there. */
static bool read_number(Cursor *c, double *number) {
    skip_space(c);
    const char *start = c->text + c->at;
    if (c->at >= c->end || !(*start == '-' || (*start >= '0' && *start <= '9'))) return false;
    char *end;
    double value = strtod(start, &end);
    c->at += (size_t)(end - start);
    if (c->at > c->end || end == start || !isfinite(value)) return false;
    *number = rounded_twice(start, end, value);
    return true;
}

/* [["token", score], ...] in the order of ids. */
static bool read_scored(Cursor *c, TextModel *model, Batch *batch, Error *err) {
    const TextPiece *piece = &batch->texts[0];
    take(c, '[');
    if (take(c, ']')) return true;
    do {
        double score;
        if (!take(c, '[') || !read_text(c, batch, 0) || !take(c, ',') || !read_number(c, &score) ||
            !take(c, ']'))
            return bad(c, "an entry of \"vocab\" is not a token and its score", err);
        if (!text_model_add_scored(model, piece->text, piece->length, score, err)) return false;
    } while (take(c, ','));
    return take(c, ']') || bad(c, "\"vocab\" is not a list of tokens and scores", err);
}

static void free_batch(Batch *batch) {
    for (size_t i = 0; i < TEXT_BATCH; i++) base_str_free(&batch->scratch[i]);
}

bool text_scan_vocab(const char *json, const TextScan *scan, TextModel *model, Error *err) {
    Cursor c = {json, scan->vocab_begin, scan->vocab_end};
    Batch batch = {.count = 0};
    /* "token": 12345, takes 13 to 25 bytes; a guess only spares growing. */
    size_t bytes = c.end - c.at;
    text_vocab_reserve(&model->vocab, bytes / 2, bytes / 16);
    bool scored = json[c.at] == '[';
    bool ok = scored != (model->kind == MODEL_UNIGRAM)
                  ? base_fail(err, ERROR_INPUT, "model: \"vocab\" must be %s",
                              scored ? "an object of token to id" : "a list of tokens and scores")
              : scored ? read_scored(&c, model, &batch, err)
                       : read_vocab(&c, model, &batch, err);
    free_batch(&batch);
    return ok;
}

/* Two strings, or one with a space, to batch->texts[2 count]. A line that starts
 * with "#version" is no merge. */
static bool read_merge(Cursor *c, Batch *batch, Error *err) {
    size_t at = 2 * batch->count, space;
    TextPiece *left = &batch->texts[at], *right = left + 1;
    batch->count++;
    if (take(c, '['))
        return (read_text(c, batch, at) && take(c, ',') && read_text(c, batch, at + 1) &&
                take(c, ']')) ||
               bad(c, "a merge is not a pair of strings", err);
    if (!read_text(c, batch, at))
        return bad(c, "a merge is neither a pair of strings nor a string", err);
    if (left->length >= 8 && memcmp(left->text, "#version", 8) == 0) {
        batch->count--;
        return true;
    }
    if (!text_merge_cut(left->text, left->length, &space))
        return bad(c, "a merge is not two parts with a space between", err);
    *right = (TextPiece){left->text + space + 1, left->length - space - 1};
    left->length = space;
    return true;
}

static bool read_merges(Cursor *c, TextModel *model, Batch *batch, Error *err) {
    take(c, '[');
    if (take(c, ']')) return true;
    do {
        if (!read_merge(c, batch, err)) return false;
        if (batch->count < TEXT_BATCH / 2) continue;
        if (!text_model_add_merges(model, batch->texts, batch->count, err)) return false;
        batch->count = 0;
    } while (take(c, ','));
    return text_model_add_merges(model, batch->texts, batch->count, err) &&
           (take(c, ']') || bad(c, "\"merges\" is not a list", err));
}

bool text_scan_merges(const char *json, const TextScan *scan, TextModel *model, Error *err) {
    Cursor c = {json, scan->merges_begin, scan->merges_end};
    Batch batch = {.count = 0};
    if (c.at == c.end)
        return base_fail(err, ERROR_INPUT, "model: \"merges\" is missing or not a list");
    /* A merge makes a token, so there are about as many. */
    text_model_start_merges(model, BASE_MIN(model->vocab.count, (c.end - c.at) / 4));
    bool ok = read_merges(&c, model, &batch, err);
    free_batch(&batch);
    return ok;
}

/* One object's "token_bytes". */
static bool read_token_bytes(Cursor *c, StrBuf *scratch, TextPiece *piece) {
    *piece = (TextPiece){NULL, 0};
    if (!take(c, '{')) return false;
    do {
        const char *key;
        size_t length;
        if (!take_key(c, &key, &length)) return false;
        bool wanted = is_key(key, length, "token_bytes");
        if (wanted ? !read_string(c, scratch, &piece->text, &piece->length) : !skip_value(c))
            return false;
    } while (take(c, ','));
    return take(c, '}') && piece->text;
}

bool text_scan_token_bytes(const char *json, const TextScan *scan, size_t wanted, int64_t first,
                           TextModel *model, Error *err) {
    Cursor c = {json, scan->vocab_begin, scan->vocab_end};
    TextByteTokens tokens = {.model = model};
    StrBuf scratch = {0};
    bool ok = true;
    size_t expected = BASE_MIN(wanted, (c.end - c.at) / 20);
    text_vocab_reserve(&model->vocab, expected * 10, expected);
    text_vocab_reserve(&model->texts, expected * 8, expected);
    take(&c, '[');
    for (size_t i = 0; i < wanted && ok; i++) {
        TextPiece piece;
        ok = (!i || take(&c, ',')) && read_token_bytes(&c, &scratch, &piece);
        if (!ok)
            base_fail(err, ERROR_INPUT, "vocab: entry %zu of %zu has no \"token_bytes\"", i,
                      wanted);
        ok = ok && text_byte_tokens_add(&tokens, piece.text, piece.length, first + (int64_t)i, err);
    }
    base_str_free(&scratch);
    return text_byte_tokens_end(&tokens, ok, err);
}
