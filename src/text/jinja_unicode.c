/* jinja_unicode: characters the way Python's str sees them: which are spaces,
 * letters or printable, and full case mapping, where one character may become
 * several. The simple mappings and categories are utf8proc's; the tables hold
 * what Unicode lists apart (SpecialCasing, Other_Lowercase, Other_Uppercase,
 * digits that are not decimal). */
#include <utf8proc.h>

#include "text/jinja.h"

typedef struct Span32 {
    uint32_t first, last;
} Span32;

static const Span32 other_digits[] = {
    {0xb2, 0xb3},       {0xb9, 0xb9},       {0x1369, 0x1371},   {0x19da, 0x19da},
    {0x2070, 0x2070},   {0x2074, 0x2079},   {0x2080, 0x2089},   {0x2460, 0x2468},
    {0x2474, 0x247c},   {0x2488, 0x2490},   {0x24ea, 0x24ea},   {0x24f5, 0x24fd},
    {0x24ff, 0x24ff},   {0x2776, 0x277e},   {0x2780, 0x2788},   {0x278a, 0x2792},
    {0x10a40, 0x10a43}, {0x10e60, 0x10e68}, {0x11052, 0x1105a}, {0x1f100, 0x1f10a},
};
static const Span32 other_lower[] = {
    {0xaa, 0xaa},       {0xba, 0xba},       {0x2b0, 0x2b8},     {0x2c0, 0x2c1},
    {0x2e0, 0x2e4},     {0x345, 0x345},     {0x37a, 0x37a},     {0x1d2c, 0x1d6a},
    {0x1d78, 0x1d78},   {0x1d9b, 0x1dbf},   {0x2071, 0x2071},   {0x207f, 0x207f},
    {0x2090, 0x209c},   {0x2170, 0x217f},   {0x24d0, 0x24e9},   {0x2c7c, 0x2c7d},
    {0xa69c, 0xa69d},   {0xa770, 0xa770},   {0xa7f8, 0xa7f9},   {0xab5c, 0xab5f},
    {0x10780, 0x10780}, {0x10783, 0x10785}, {0x10787, 0x107b0}, {0x107b2, 0x107ba},
};
static const Span32 other_upper[] = {
    {0x2160, 0x216f}, {0x24b6, 0x24cf}, {0x1f130, 0x1f149}, {0x1f150, 0x1f169}, {0x1f170, 0x1f189},
};

/* Characters whose upper or title case is more than one character. */
static const struct {
    uint32_t point;
    const char *upper, *title;
} special_cases[] = {
    {0x00df, "SS", "Ss"},
    {0x0149, "\u02bcN", "\u02bcN"},
    {0x01f0, "J\u030c", "J\u030c"},
    {0x0390, "\u0399\u0308\u0301", "\u0399\u0308\u0301"},
    {0x03b0, "\u03a5\u0308\u0301", "\u03a5\u0308\u0301"},
    {0x0587, "\u0535\u0552", "\u0535\u0582"},
    {0x1e96, "H\u0331", "H\u0331"},
    {0x1e97, "T\u0308", "T\u0308"},
    {0x1e98, "W\u030a", "W\u030a"},
    {0x1e99, "Y\u030a", "Y\u030a"},
    {0x1e9a, "A\u02be", "A\u02be"},
    {0x1f50, "\u03a5\u0313", "\u03a5\u0313"},
    {0x1f52, "\u03a5\u0313\u0300", "\u03a5\u0313\u0300"},
    {0x1f54, "\u03a5\u0313\u0301", "\u03a5\u0313\u0301"},
    {0x1f56, "\u03a5\u0313\u0342", "\u03a5\u0313\u0342"},
    {0x1f80, "\u1f08\u0399", "\u1f88"},
    {0x1f81, "\u1f09\u0399", "\u1f89"},
    {0x1f82, "\u1f0a\u0399", "\u1f8a"},
    {0x1f83, "\u1f0b\u0399", "\u1f8b"},
    {0x1f84, "\u1f0c\u0399", "\u1f8c"},
    {0x1f85, "\u1f0d\u0399", "\u1f8d"},
    {0x1f86, "\u1f0e\u0399", "\u1f8e"},
    {0x1f87, "\u1f0f\u0399", "\u1f8f"},
    {0x1f88, "\u1f08\u0399", "\u1f88"},
    {0x1f89, "\u1f09\u0399", "\u1f89"},
    {0x1f8a, "\u1f0a\u0399", "\u1f8a"},
    {0x1f8b, "\u1f0b\u0399", "\u1f8b"},
    {0x1f8c, "\u1f0c\u0399", "\u1f8c"},
    {0x1f8d, "\u1f0d\u0399", "\u1f8d"},
    {0x1f8e, "\u1f0e\u0399", "\u1f8e"},
    {0x1f8f, "\u1f0f\u0399", "\u1f8f"},
    {0x1f90, "\u1f28\u0399", "\u1f98"},
    {0x1f91, "\u1f29\u0399", "\u1f99"},
    {0x1f92, "\u1f2a\u0399", "\u1f9a"},
    {0x1f93, "\u1f2b\u0399", "\u1f9b"},
    {0x1f94, "\u1f2c\u0399", "\u1f9c"},
    {0x1f95, "\u1f2d\u0399", "\u1f9d"},
    {0x1f96, "\u1f2e\u0399", "\u1f9e"},
    {0x1f97, "\u1f2f\u0399", "\u1f9f"},
    {0x1f98, "\u1f28\u0399", "\u1f98"},
    {0x1f99, "\u1f29\u0399", "\u1f99"},
    {0x1f9a, "\u1f2a\u0399", "\u1f9a"},
    {0x1f9b, "\u1f2b\u0399", "\u1f9b"},
    {0x1f9c, "\u1f2c\u0399", "\u1f9c"},
    {0x1f9d, "\u1f2d\u0399", "\u1f9d"},
    {0x1f9e, "\u1f2e\u0399", "\u1f9e"},
    {0x1f9f, "\u1f2f\u0399", "\u1f9f"},
    {0x1fa0, "\u1f68\u0399", "\u1fa8"},
    {0x1fa1, "\u1f69\u0399", "\u1fa9"},
    {0x1fa2, "\u1f6a\u0399", "\u1faa"},
    {0x1fa3, "\u1f6b\u0399", "\u1fab"},
    {0x1fa4, "\u1f6c\u0399", "\u1fac"},
    {0x1fa5, "\u1f6d\u0399", "\u1fad"},
    {0x1fa6, "\u1f6e\u0399", "\u1fae"},
    {0x1fa7, "\u1f6f\u0399", "\u1faf"},
    {0x1fa8, "\u1f68\u0399", "\u1fa8"},
    {0x1fa9, "\u1f69\u0399", "\u1fa9"},
    {0x1faa, "\u1f6a\u0399", "\u1faa"},
    {0x1fab, "\u1f6b\u0399", "\u1fab"},
    {0x1fac, "\u1f6c\u0399", "\u1fac"},
    {0x1fad, "\u1f6d\u0399", "\u1fad"},
    {0x1fae, "\u1f6e\u0399", "\u1fae"},
    {0x1faf, "\u1f6f\u0399", "\u1faf"},
    {0x1fb2, "\u1fba\u0399", "\u1fba\u0345"},
    {0x1fb3, "\u0391\u0399", "\u1fbc"},
    {0x1fb4, "\u0386\u0399", "\u0386\u0345"},
    {0x1fb6, "\u0391\u0342", "\u0391\u0342"},
    {0x1fb7, "\u0391\u0342\u0399", "\u0391\u0342\u0345"},
    {0x1fbc, "\u0391\u0399", "\u1fbc"},
    {0x1fc2, "\u1fca\u0399", "\u1fca\u0345"},
    {0x1fc3, "\u0397\u0399", "\u1fcc"},
    {0x1fc4, "\u0389\u0399", "\u0389\u0345"},
    {0x1fc6, "\u0397\u0342", "\u0397\u0342"},
    {0x1fc7, "\u0397\u0342\u0399", "\u0397\u0342\u0345"},
    {0x1fcc, "\u0397\u0399", "\u1fcc"},
    {0x1fd2, "\u0399\u0308\u0300", "\u0399\u0308\u0300"},
    {0x1fd3, "\u0399\u0308\u0301", "\u0399\u0308\u0301"},
    {0x1fd6, "\u0399\u0342", "\u0399\u0342"},
    {0x1fd7, "\u0399\u0308\u0342", "\u0399\u0308\u0342"},
    {0x1fe2, "\u03a5\u0308\u0300", "\u03a5\u0308\u0300"},
    {0x1fe3, "\u03a5\u0308\u0301", "\u03a5\u0308\u0301"},
    {0x1fe4, "\u03a1\u0313", "\u03a1\u0313"},
    {0x1fe6, "\u03a5\u0342", "\u03a5\u0342"},
    {0x1fe7, "\u03a5\u0308\u0342", "\u03a5\u0308\u0342"},
    {0x1ff2, "\u1ffa\u0399", "\u1ffa\u0345"},
    {0x1ff3, "\u03a9\u0399", "\u1ffc"},
    {0x1ff4, "\u038f\u0399", "\u038f\u0345"},
    {0x1ff6, "\u03a9\u0342", "\u03a9\u0342"},
    {0x1ff7, "\u03a9\u0342\u0399", "\u03a9\u0342\u0345"},
    {0x1ffc, "\u03a9\u0399", "\u1ffc"},
    {0xfb00, "FF", "Ff"},
    {0xfb01, "FI", "Fi"},
    {0xfb02, "FL", "Fl"},
    {0xfb03, "FFI", "Ffi"},
    {0xfb04, "FFL", "Ffl"},
    {0xfb05, "ST", "St"},
    {0xfb06, "ST", "St"},
    {0xfb13, "\u0544\u0546", "\u0544\u0576"},
    {0xfb14, "\u0544\u0535", "\u0544\u0565"},
    {0xfb15, "\u0544\u053b", "\u0544\u056b"},
    {0xfb16, "\u054e\u0546", "\u054e\u0576"},
    {0xfb17, "\u0544\u053d", "\u0544\u056d"},
};

static bool in_spans(uint32_t point, const Span32 *spans, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (point >= spans[i].first && point <= spans[i].last) return true;
    return false;
}

static utf8proc_category_t category(uint32_t point) {
    return utf8proc_category((utf8proc_int32_t)point);
}

/* White_Space, and the four separators 1C to 1F that Python adds. */
bool jinja_is_space(uint32_t point) {
    static const Span32 spaces[] = {
        {9, 13},          {0x1c, 0x20},     {0x85, 0x85},     {0xa0, 0xa0},     {0x1680, 0x1680},
        {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}};
    return in_spans(point, spaces, BASE_COUNT(spaces));
}

bool jinja_is_printable(uint32_t point) {
    if (point < 0x7f) return point >= 0x20;
    switch (category(point)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
    }
}

bool jinja_is_alpha(uint32_t point) {
    if (point < 0x80) return (point | 0x20) >= 'a' && (point | 0x20) <= 'z';
    utf8proc_category_t c = category(point);
    return c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LL || c == UTF8PROC_CATEGORY_LT ||
           c == UTF8PROC_CATEGORY_LM || c == UTF8PROC_CATEGORY_LO;
}

bool jinja_is_decimal(uint32_t point) {
    return point < 0x80 ? point >= '0' && point <= '9' : category(point) == UTF8PROC_CATEGORY_ND;
}

bool jinja_is_digit(uint32_t point) {
    return jinja_is_decimal(point) || in_spans(point, other_digits, BASE_COUNT(other_digits));
}

static bool is_numeric(uint32_t point) {
    utf8proc_category_t c = category(point);
    return c == UTF8PROC_CATEGORY_ND || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
}

/* \w of Python's re: letters, numbers and the underscore. */
bool jinja_is_word(uint32_t point) {
    if (point < 0x80) return point == '_' || jinja_is_alpha(point) || jinja_is_decimal(point);
    return jinja_is_alpha(point) || is_numeric(point);
}

bool jinja_is_upper(uint32_t point) {
    return category(point) == UTF8PROC_CATEGORY_LU ||
           in_spans(point, other_upper, BASE_COUNT(other_upper));
}

bool jinja_is_lower(uint32_t point) {
    return category(point) == UTF8PROC_CATEGORY_LL ||
           in_spans(point, other_lower, BASE_COUNT(other_lower));
}

bool jinja_is_title(uint32_t point) {
    return category(point) == UTF8PROC_CATEGORY_LT;
}

static bool is_cased(uint32_t point) {
    return jinja_is_upper(point) || jinja_is_lower(point) || jinja_is_title(point);
}

/* Case_Ignorable: marks, modifiers, format characters, and some punctuation. */
static bool is_case_ignorable(uint32_t point) {
    static const Span32 punctuation[] = {
        {'\'', '\''},     {'.', '.'},       {':', ':'},       {0xb7, 0xb7},
        {0x387, 0x387},   {0x55f, 0x55f},   {0x5f4, 0x5f4},   {0x2018, 0x2019},
        {0x2024, 0x2024}, {0x2027, 0x2027}, {0xfe13, 0xfe13}, {0xfe52, 0xfe52},
        {0xfe55, 0xfe55}, {0xff07, 0xff07}, {0xff0e, 0xff0e}, {0xff1a, 0xff1a}};
    utf8proc_category_t c = category(point);
    return c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_ME || c == UTF8PROC_CATEGORY_CF ||
           c == UTF8PROC_CATEGORY_LM || c == UTF8PROC_CATEGORY_SK ||
           in_spans(point, punctuation, BASE_COUNT(punctuation));
}

/* A capital sigma at the end of a word becomes a final small sigma. */
static bool is_final_sigma(const Str *string, size_t at) {
    size_t before = at;
    uint32_t point = 0;
    bool cased = false;
    while (before > 0) {
        do before--;
        while (before > 0 && ((unsigned char)string->data[before] & 0xC0) == 0x80);
        base_utf8_decode(string->data + before, string->length - before, &point, NULL);
        if (is_case_ignorable(point)) continue;
        cased = is_cased(point);
        break;
    }
    if (!cased) return false;
    for (size_t after = at + 2; after < string->length;) {
        after += base_utf8_decode(string->data + after, string->length - after, &point, NULL);
        if (!is_case_ignorable(point)) return !is_cased(point);
    }
    return true;
}

static void put_upper(Render *r, uint32_t point, bool title) {
    if (point >= 0x80) {
        for (size_t i = 0; i < BASE_COUNT(special_cases); i++) {
            if (special_cases[i].point != point) continue;
            jinja_puts(r, title ? special_cases[i].title : special_cases[i].upper);
            return;
        }
    }
    utf8proc_int32_t p = (utf8proc_int32_t)point;
    jinja_put_point(r, (uint32_t)(title ? utf8proc_totitle(p) : utf8proc_toupper(p)));
}

static void put_lower(Render *r, const Str *string, size_t at, uint32_t point) {
    if (point == 0x130)
        jinja_puts(r, "i\u0307");
    else if (point == 0x3a3)
        jinja_put_point(r, is_final_sigma(string, at) ? 0x3c2 : 0x3c3);
    else
        jinja_put_point(r, (uint32_t)utf8proc_tolower((utf8proc_int32_t)point));
}

Value jinja_case(Render *r, Value value, CaseMode mode) {
    const Str *string = value.as.string;
    size_t mark = jinja_mark(r);
    bool word = false; /* the character before was cased */
    jinja_charge(r, string->length / 8);
    for (size_t i = 0; i < string->length;) {
        uint32_t point;
        size_t n = base_utf8_decode(string->data + i, string->length - i, &point, NULL);
        bool upper = mode == CASE_UPPER || (mode == CASE_SWAP && jinja_is_lower(point));
        bool title = (mode == CASE_TITLE && !word) || (mode == CASE_CAPITALIZE && i == 0);
        if (upper || title)
            put_upper(r, point, title);
        else if (mode == CASE_SWAP && !jinja_is_upper(point))
            jinja_put_point(r, point);
        else
            put_lower(r, string, i, point);
        word = is_cased(point);
        i += n;
    }
    Value result = jinja_take(r, mark);
    result.markup = value.markup;
    return result;
}

/* Full case folding, for comparisons without case. */
Value jinja_casefold(Render *r, Value value) {
    const Str *string = value.as.string;
    size_t mark = jinja_mark(r);
    jinja_charge(r, string->length / 8);
    for (size_t i = 0; i < string->length;) {
        uint32_t point;
        utf8proc_int32_t folded[8];
        int boundary = 0;
        i += base_utf8_decode(string->data + i, string->length - i, &point, NULL);
        utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)point, folded, 8,
                                                     UTF8PROC_CASEFOLD, &boundary);
        if (n < 1 || n > 8)
            jinja_put_point(r, point);
        else
            for (utf8proc_ssize_t k = 0; k < n; k++) jinja_put_point(r, (uint32_t)folded[k]);
    }
    Value result = jinja_take(r, mark);
    result.markup = value.markup;
    return result;
}
