/* The lookups behind tokenizer_unicode.h. The two-stage tables are laid out at
 * run time because 600 KB of them would be mostly repetition in the source;
 * it takes well under a millisecond. */
#include "text/tokenizer_unicode.h"

#include <pthread.h>
#include <string.h>

uint8_t (*text_class_pages)[256], (*text_bert_pages)[256];
uint8_t text_class_ascii[128];
uint16_t text_class_index[TEXT_PAGE_COUNT], text_bert_index[TEXT_PAGE_COUNT];

/* Space is White_Space, set apart because U+0085 and \t \n are Cc. */
static const TextRange space_ranges[] = {
    {9, 13},          {0x20, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},     {0x1680, 0x1680},
    {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}};
static const TextRanges spaces = {space_ranges, BASE_COUNT(space_ranges)};
static const TextRange newline_ranges[] = {{'\n', '\n'}, {'\r', '\r'}};
static const TextRanges newlines = {newline_ranges, BASE_COUNT(newline_ranges)};
/* The blocks that BertNormalizer sets apart, its typing slip at 2B920 included. */
static const TextRange chinese_ranges[] = {
    {0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},  {0x20000, 0x2A6DF},
    {0x2A700, 0x2B81F}, {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F}};
static const TextRanges chinese = {chinese_ranges, BASE_COUNT(chinese_ranges)};

static const uint8_t class_of_category[CATEGORY_COUNT] = {
    [CATEGORY_Lu] = CLASS_LETTER | CLASS_UPPERISH | CLASS_WORD,
    [CATEGORY_Ll] = CLASS_LETTER | CLASS_LOWERISH | CLASS_WORD,
    [CATEGORY_Lt] = CLASS_LETTER | CLASS_UPPERISH | CLASS_WORD,
    [CATEGORY_Lm] = CLASS_LETTER | CLASS_UPPERISH | CLASS_LOWERISH | CLASS_WORD,
    [CATEGORY_Lo] = CLASS_LETTER | CLASS_UPPERISH | CLASS_LOWERISH | CLASS_WORD,
    [CATEGORY_Mn] = CLASS_MARK | CLASS_UPPERISH | CLASS_LOWERISH | CLASS_WORD,
    [CATEGORY_Mc] = CLASS_MARK | CLASS_UPPERISH | CLASS_LOWERISH | CLASS_WORD,
    [CATEGORY_Me] = CLASS_MARK | CLASS_UPPERISH | CLASS_LOWERISH | CLASS_WORD,
    [CATEGORY_Nd] = CLASS_NUMBER | CLASS_WORD,
    [CATEGORY_Nl] = CLASS_NUMBER,
    [CATEGORY_No] = CLASS_NUMBER,
    [CATEGORY_Pc] = CLASS_WORD,
};

/* A two-stage table under construction: pages [0, uniform_count) are filled
 * with one value each and shared; the others belong to one page number. */
typedef struct Layout {
    uint8_t (*pages)[256];
    uint16_t *index;
    size_t count, capacity;
    int uniform[256]; /* value -> page, or -1 */
} Layout;

static size_t layout_new_page(Layout *layout, uint8_t value) {
    layout->pages =
        base_grow(layout->pages, &layout->capacity, layout->count + 1, sizeof *layout->pages);
    memset(layout->pages[layout->count], value, 256);
    return layout->count++;
}

static size_t layout_uniform_page(Layout *layout, uint8_t value) {
    if (layout->uniform[value] < 0) layout->uniform[value] = (int)layout_new_page(layout, value);
    return (size_t)layout->uniform[value];
}

static void layout_start(Layout *layout, uint16_t *index) {
    *layout = (Layout){.index = index};
    for (size_t i = 0; i < 256; i++) layout->uniform[i] = -1;
    size_t zero = layout_uniform_page(layout, 0);
    for (size_t i = 0; i < TEXT_PAGE_COUNT; i++) index[i] = (uint16_t)zero;
}

static bool layout_is_uniform(const Layout *layout, size_t page) {
    uint8_t value = layout->pages[page][0];
    return layout->uniform[value] == (int)page;
}

/* value is or'ed into [first, last]. */
static void layout_add(Layout *layout, uint32_t first, uint32_t last, uint8_t value) {
    for (uint32_t code = first; code <= last;) {
        uint32_t page = code >> 8, end = BASE_MIN(last, page << 8 | 255);
        size_t old = layout->index[page];
        if (code == page << 8 && end == (page << 8 | 255) && layout_is_uniform(layout, old)) {
            uint8_t both = (uint8_t)(layout->pages[old][0] | value);
            layout->index[page] = (uint16_t)layout_uniform_page(layout, both);
        } else {
            if (layout_is_uniform(layout, old)) {
                old = layout_new_page(layout, layout->pages[old][0]);
                layout->index[page] = (uint16_t)old;
            }
            for (uint32_t c = code; c <= end; c++) layout->pages[old][c & 255] |= value;
        }
        code = end + 1;
    }
}

static void layout_add_ranges(Layout *layout, const TextRanges *set, uint8_t value) {
    for (size_t i = 0; i < set->count; i++)
        layout_add(layout, set->ranges[i].first, set->ranges[i].last, value);
}

static void layout_add_categories(Layout *layout, const uint8_t values[CATEGORY_COUNT]) {
    for (size_t i = 0; i < text_category_start_count; i++) {
        uint8_t value = values[text_category_starts[i] & 255];
        uint32_t end =
            i + 1 < text_category_start_count ? text_category_starts[i + 1] >> 8 : 0x110000;
        if (value) layout_add(layout, text_category_starts[i] >> 8, end - 1, value);
    }
}

static void prepare(void) {
    Layout layout;
    layout_start(&layout, text_class_index);
    layout_add_categories(&layout, class_of_category);
    layout_add_ranges(&layout, &text_word_extra, CLASS_WORD);
    layout_add_ranges(&layout, &spaces, CLASS_SPACE);
    layout_add_ranges(&layout, &newlines, CLASS_NEWLINE);
    text_class_pages = layout.pages;
    memcpy(text_class_ascii, text_class_pages[text_class_index[0]], sizeof text_class_ascii);

    layout_start(&layout, text_bert_index);
    layout_add_ranges(&layout, &text_bert_punctuation, BERT_PUNCTUATION);
    layout_add_ranges(&layout, &text_bert_dropped, BERT_DROPPED);
    layout_add_ranges(&layout, &text_bert_mark, BERT_MARK);
    layout_add_ranges(&layout, &chinese, BERT_CHINESE);
    layout_add_ranges(&layout, &spaces, BERT_SPACE);
    uint8_t marks[CATEGORY_COUNT] = {0};
    memset(marks + CATEGORY_Pc, PUNCTUATION_OR_SYMBOL, CATEGORY_So - CATEGORY_Pc + 1);
    layout_add_categories(&layout, marks);
    text_bert_pages = layout.pages;
}

void text_unicode_prepare(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, prepare);
}

/* The value of the run that holds this code point: starts are code << 8 | value. */
static unsigned run_value(const uint32_t *starts, size_t count, uint32_t code) {
    size_t low = 0, high = count;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (starts[middle] >> 8 <= code)
            low = middle;
        else
            high = middle;
    }
    return starts[low] & 255;
}

TextCategory text_category(uint32_t code) {
    return (TextCategory)run_value(text_category_starts, text_category_start_count, code);
}

int text_script(uint32_t code) {
    return (int)run_value(text_script_starts, text_script_start_count, code);
}

bool text_in(const TextRanges *set, uint32_t code) {
    size_t low = 0, high = set->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (code > set->ranges[middle].last)
            low = middle + 1;
        else if (code < set->ranges[middle].first)
            high = middle;
        else
            return true;
    }
    return false;
}

bool text_is_numeric(uint32_t code) {
    return (text_class(code) & CLASS_NUMBER) || text_in(&text_numeric_extra, code);
}

bool text_is_rust_word(uint32_t code) {
    if (code == 0x200C || code == 0x200D) return true;
    bool fraction = code == 0xB2 || code == 0xB3 || code == 0xB9 || (code >= 0xBC && code <= 0xBE);
    return (text_class(code) & CLASS_WORD) && !fraction;
}

int text_lower(uint32_t code, uint32_t out[2]) {
    out[0] = code;
    if (code < 0x80) {
        if (code >= 'A' && code <= 'Z') out[0] = code + 32;
        return 1;
    }
    if (code == 0x130) {
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    size_t low = 0, high = text_lower_run_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const TextCaseRun *run = &text_lower_runs[middle];
        if (code > run->last) {
            low = middle + 1;
        } else if (code < run->first) {
            high = middle;
        } else {
            if ((code - run->first) % (uint32_t)run->step == 0)
                out[0] = (uint32_t)((int32_t)code + run->distance);
            return 1;
        }
    }
    return 1;
}

static bool maps_to_itself(uint32_t byte) {
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

/* The other 68 bytes, in order, are U+0100 ...: 0-20, 7F-A0, AD. */
uint32_t text_alphabet_of_byte(uint8_t byte) {
    if (maps_to_itself(byte)) return byte;
    if (byte <= 0x20) return 0x100u + byte;
    return byte == 0xAD ? 0x143u : 0x121u + (byte - 0x7Fu);
}

int text_byte_of_alphabet(uint32_t code) {
    if (code < 0x100) return maps_to_itself(code) ? (int)code : -1;
    if (code <= 0x120) return (int)code - 0x100;
    if (code <= 0x142) return (int)code - 0x121 + 0x7F;
    return code == 0x143 ? 0xAD : -1;
}
