/* NFC, NFD, NFKC and NFKD as of Unicode 9.0, which is what the Python package
 * applies. utf8proc knows a later version; by Unicode's stability policy the two
 * differ only in code points that 9.0 does not assign, so those are taken as
 * starters that neither decompose nor compose. Origins follow each code point. */
#include "text/tokenizer_parts.h"

#include <utf8proc.h>

typedef struct Point {
    uint32_t code;
    uint8_t combining; /* canonical combining class */
    TextSpan span;
} Point;

typedef struct Points {
    Point *items;
    size_t count, capacity;
} Points;

static bool is_inert(uint32_t code) {
    return code < 0xA0 || (code >= 0x300 && !text_in(&text_assigned_9, code));
}

static void add_point(Points *points, uint32_t code, bool inert, TextSpan span) {
    points->items =
        base_grow(points->items, &points->capacity, points->count + 1, sizeof *points->items);
    uint8_t combining =
        inert ? 0 : (uint8_t)utf8proc_get_property((utf8proc_int32_t)code)->combining_class;
    points->items[points->count++] = (Point){code, combining, span};
}

static void decompose(Points *points, uint32_t code, bool compatible, TextSpan span) {
    utf8proc_int32_t parts[32];
    int boundary = 0;
    utf8proc_option_t options =
        compatible ? UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT : UTF8PROC_DECOMPOSE;
    utf8proc_ssize_t count = is_inert(code) ? 0
                                            : utf8proc_decompose_char((utf8proc_int32_t)code, parts,
                                                                      32, options, &boundary);
    if (count <= 0 || count > 32) {
        add_point(points, code, is_inert(code), span);
        return;
    }
    for (utf8proc_ssize_t i = 0; i < count; i++) add_point(points, (uint32_t)parts[i], false, span);
}

/* What a place holds, but for its origin. */
static void set_mark(Point *point, Point mark) {
    point->code = mark.code;
    point->combining = mark.combining;
}

/* A stable sort of marks by combining class: insertion for the usual few,
 * counting for a hostile run. Origins keep their order, as in the Python
 * package, so that any stretch of the result begins before it ends. */
static void sort_marks(Point *items, size_t count) {
    if (count > 32) {
        Point *sorted = base_alloc(count * sizeof *sorted);
        size_t at = 0;
        for (int combining = 1; combining < 256; combining++)
            for (size_t i = 0; i < count; i++)
                if (items[i].combining == combining) sorted[at++] = items[i];
        for (size_t i = 0; i < count; i++) set_mark(&items[i], sorted[i]);
        free(sorted);
        return;
    }
    for (size_t i = 1; i < count; i++)
        for (size_t k = i; k > 0 && items[k - 1].combining > items[k].combining; k--) {
            Point mark = items[k];
            set_mark(&items[k], items[k - 1]);
            set_mark(&items[k - 1], mark);
        }
}

static void reorder(Points *points) {
    for (size_t i = 0; i < points->count;) {
        if (points->items[i].combining == 0) {
            i++;
            continue;
        }
        size_t end = i;
        while (end < points->count && points->items[end].combining != 0) end++;
        sort_marks(points->items + i, end - i);
        i = end;
    }
}

/* The primary composite of two code points, or 0. */
static uint32_t compose_pair(uint32_t first, uint32_t second) {
    if (is_inert(second) || (is_inert(first) && first >= 0x80)) return 0;
    utf8proc_int32_t pair[3] = {(utf8proc_int32_t)first, (utf8proc_int32_t)second};
    utf8proc_ssize_t count = utf8proc_normalize_utf32(pair, 2, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    return count == 1 ? (uint32_t)pair[0] : 0;
}

static void compose(Points *points) {
    size_t kept = 0, starter = SIZE_MAX;
    for (size_t i = 0; i < points->count; i++) {
        Point point = points->items[i];
        /* Blocked when something between has the same class or more, or is a starter. */
        bool adjacent = starter != SIZE_MAX && kept == starter + 1;
        bool open = starter != SIZE_MAX &&
                    (adjacent || (points->items[kept - 1].combining != 0 &&
                                  points->items[kept - 1].combining < point.combining));
        uint32_t composite = open ? compose_pair(points->items[starter].code, point.code) : 0;
        if (composite) {
            Point *base = &points->items[starter];
            base->code = composite;
            base->span.begin = BASE_MIN(base->span.begin, point.span.begin);
            base->span.end = BASE_MAX(base->span.end, point.span.end);
            continue;
        }
        if (point.combining == 0) starter = kept;
        points->items[kept++] = point;
    }
    points->count = kept;
}

/* Where code points below this one start, text cannot change or interact. */
static bool is_stable_ascii(const char *text, size_t length, size_t at) {
    return (uint8_t)text[at] < 0x80 && (at + 1 == length || (uint8_t)text[at + 1] < 0x80);
}

void text_normalize_form(TextView in, bool compatible, bool composing, TextBuffer *out) {
    Points points = {0};
    for (size_t i = 0; i < in.length;) {
        size_t run = i;
        while (run < in.length && is_stable_ascii(in.data, in.length, run)) run++;
        text_buffer_copy(out, in, i, run);
        i = run;
        points.count = 0;
        while (i < in.length && !is_stable_ascii(in.data, in.length, i)) {
            size_t length;
            uint32_t code = text_decode((const uint8_t *)in.data + i, &length);
            decompose(&points, code, compatible, text_view_span(in, i, i + length));
            i += length;
        }
        reorder(&points);
        if (composing) compose(&points);
        for (size_t k = 0; k < points.count; k++)
            text_buffer_add_code(out, points.items[k].code, points.items[k].span);
    }
    free(points.items);
}
