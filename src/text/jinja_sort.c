/* jinja_sort: a stable sort of values by keys, with Python's order; keys that
 * cannot be compared raise. Memory is the render's, so a raise leaks nothing. */
#include <string.h>

#include "text/jinja.h"

/* Merges the sorted halves [0, middle) and [middle, count) through `scratch`.
 * Reversed, equal keys still keep their order. */
static void merge(Render *r, Pair *items, size_t middle, size_t count, Pair *scratch,
                  bool reverse) {
    memcpy(scratch, items, middle * sizeof *items);
    size_t left = 0, right = middle, out = 0;
    while (left < middle && right < count) {
        bool take_right = reverse ? jinja_ordered(r, T_LT, scratch[left].key, items[right].key)
                                  : jinja_ordered(r, T_LT, items[right].key, scratch[left].key);
        items[out++] = take_right ? items[right++] : scratch[left++];
    }
    memcpy(items + out, scratch + left, (middle - left) * sizeof *items);
}

static void sort(Render *r, Pair *items, size_t count, Pair *scratch, bool reverse) {
    if (count < 2) return;
    size_t middle = count / 2;
    sort(r, items, middle, scratch, reverse);
    sort(r, items + middle, count - middle, scratch, reverse);
    merge(r, items, middle, count, scratch, reverse);
}

void jinja_sort(Render *r, Pair *items, size_t count, bool reverse) {
    Pair *scratch = jinja_alloc(r, (count + 1) * sizeof *scratch);
    sort(r, items, count, scratch, reverse);
}
