/* Pre-tokenizers: cut a normalized text into the pieces that the model sees one
 * by one. Each hands its pieces to the next stage at once (depth first). */
#include "text/tokenizer_parts.h"
#include "text/tokenizer_patterns.h"

static void hand_on(TextWork *work, size_t stage, TextView in, size_t begin, size_t end) {
    if (end > begin && !work->failed)
        text_work_piece(work, stage + 1, text_view_slice(in, begin, end));
}

/* ---- the five behaviours ------------------------------------------------ */

/* Takes the segments of a text in order, each a match or a gap, and hands on
 * pieces. MergedWithPrevious and MergedWithNext join a match to the gap on that
 * side; a match beside a match stays alone. */
typedef struct Cutter {
    TextWork *work;
    size_t stage;
    TextView in;
    TextSplitBehavior behavior;
    bool invert;
    bool pending, pending_match; /* [begin, end) waits for what follows */
    size_t begin, end;
} Cutter;

static void cutter_flush(Cutter *c) {
    if (c->pending) hand_on(c->work, c->stage, c->in, c->begin, c->end);
    c->pending = false;
}

static void cutter_segment(Cutter *c, size_t begin, size_t end, bool match) {
    match = match != c->invert;
    switch (c->behavior) {
    case SPLIT_REMOVED:
        if (!match) hand_on(c->work, c->stage, c->in, begin, end);
        return;
    case SPLIT_ISOLATED: hand_on(c->work, c->stage, c->in, begin, end); return;
    case SPLIT_CONTIGUOUS:
        if (c->pending && c->pending_match == match) {
            c->end = end;
            return;
        }
        break;
    case SPLIT_MERGED_WITH_PREVIOUS:
        if (match && c->pending && !c->pending_match) {
            c->end = end;
            c->pending_match = true;
            return;
        }
        break;
    case SPLIT_MERGED_WITH_NEXT:
        if (!match && c->pending && c->pending_match) {
            c->end = end;
            c->pending_match = false;
            return;
        }
        break;
    }
    cutter_flush(c);
    c->pending = true;
    c->pending_match = match;
    c->begin = begin;
    c->end = end;
}

/* Cuts by a test of single characters: each that passes is a match. */
static void cut_by_character(Cutter *c, bool (*test)(uint32_t code, uint32_t argument),
                             uint32_t argument) {
    size_t gap = 0;
    for (size_t i = 0, length; i < c->in.length; i += length) {
        if (!test(text_decode((const uint8_t *)c->in.data + i, &length), argument)) continue;
        if (i > gap) cutter_segment(c, gap, i, false);
        cutter_segment(c, i, i + length, true);
        gap = i + length;
    }
    if (c->in.length > gap) cutter_segment(c, gap, c->in.length, false);
    cutter_flush(c);
}

static bool test_digit(uint32_t code, uint32_t unused) {
    (void)unused;
    return code < 0x80 ? code >= '0' && code <= '9' : text_is_numeric(code);
}

static bool test_punctuation(uint32_t code, uint32_t unused) {
    (void)unused;
    return (text_bert_class(code) & BERT_PUNCTUATION) != 0;
}

static bool test_same(uint32_t code, uint32_t wanted) {
    return code == wanted;
}

static bool load_behavior(const json_t *json, TextSplitBehavior standard, const char *where,
                          TextSplitBehavior *out, Error *err) {
    static const char *const names[] = {"Removed", "Isolated", "Contiguous", "MergedWithPrevious",
                                        "MergedWithNext"};
    const json_t *value = json_object_get(json, "behavior");
    *out = standard;
    if (!value || json_is_null(value)) return true;
    for (size_t i = 0; json_is_string(value) && i < BASE_COUNT(names); i++) {
        if (strcmp(json_string_value(value), names[i]) == 0) {
            *out = (TextSplitBehavior)i;
            return true;
        }
    }
    return base_fail(err, ERROR_UNSUPPORTED, "%s: unknown \"behavior\"", where);
}

/* ---- ByteLevel ---------------------------------------------------------- */

static void byte_level_piece(const TextPreTokenizer *part, TextWork *work, size_t stage,
                             TextView in, TextBuffer *mapped) {
    if (!part->map_bytes) {
        text_work_piece(work, stage + 1, in);
        return;
    }
    text_buffer_reset(mapped, work->track);
    for (size_t i = 0, length; i < in.length; i += length) {
        text_decode((const uint8_t *)in.data + i, &length);
        TextSpan span = text_view_span(in, i, i + length);
        for (size_t k = 0; k < length; k++)
            text_buffer_add_code(mapped, text_alphabet_of_byte((uint8_t)in.data[i + k]), span);
    }
    text_work_piece(work, stage + 1, text_buffer_view(mapped));
}

static void run_byte_level(const TextPreTokenizer *part, TextWork *work, size_t stage,
                           TextView in) {
    /* The two texts this may need live in the buffers of this stage and of one
     * past the last, where no stage is. */
    TextBuffer *prefixed = &work->stages[stage];
    TextBuffer mapped = {0};
    if (part->add_prefix_space && in.data[0] != ' ') {
        text_buffer_reset(prefixed, work->track);
        text_buffer_add(prefixed, " ", 1,
                        (TextSpan){text_view_span(in, 0, 0).begin, text_view_span(in, 0, 0).begin});
        text_buffer_copy(prefixed, in, 0, in.length);
        in = text_buffer_view(prefixed);
    }
    if (!part->use_regex) {
        byte_level_piece(part, work, stage, in, &mapped);
    } else {
        for (size_t at = 0; at < in.length && !work->failed;) {
            size_t end = text_split_gpt2((const uint8_t *)in.data, in.length, at);
            byte_level_piece(part, work, stage, text_view_slice(in, at, end), &mapped);
            at = end;
        }
    }
    text_buffer_free(&mapped);
}

static bool load_byte_level(const json_t *json, TextPreTokenizer *part, Error *err) {
    const char *where = "pre_tokenizer ByteLevel";
    bool trim;
    part->map_bytes = true;
    return text_json_bool(json, "add_prefix_space", true, where, &part->add_prefix_space, err) &&
           text_json_bool(json, "trim_offsets", true, where, &trim, err) &&
           text_json_bool(json, "use_regex", true, where, &part->use_regex, err);
}

/* ---- Metaspace ---------------------------------------------------------- */

static void run_metaspace(const TextPreTokenizer *part, TextWork *work, size_t stage, TextView in) {
    TextBuffer *out = &work->stages[stage];
    const char *mark = part->replacement;
    size_t mark_length = strlen(mark);
    text_buffer_reset(out, work->track);
    bool starts =
        in.data[0] == ' ' || (in.length >= mark_length && memcmp(in.data, mark, mark_length) == 0);
    bool first = part->scheme == SCHEME_FIRST && text_view_span(in, 0, in.length).begin == 0;
    if (!starts && (part->scheme == SCHEME_ALWAYS || first))
        text_buffer_add(out, mark, mark_length,
                        (TextSpan){text_view_span(in, 0, 0).begin, text_view_span(in, 0, 0).begin});
    for (size_t i = 0; i < in.length;) {
        size_t end = i;
        while (end < in.length && in.data[end] != ' ') end++;
        text_buffer_copy(out, in, i, end);
        if (end < in.length) {
            text_buffer_add(out, mark, mark_length, text_view_span(in, end, end + 1));
            end++;
        }
        i = end;
    }
    TextView view = text_buffer_view(out);
    if (!part->split) {
        hand_on(work, stage, view, 0, view.length);
        return;
    }
    size_t begin = 0, length;
    for (size_t i = 0; i < view.length; i += length) {
        text_decode((const uint8_t *)view.data + i, &length);
        bool is_mark = length == mark_length && memcmp(view.data + i, mark, length) == 0;
        if (is_mark && i > begin) {
            hand_on(work, stage, view, begin, i);
            begin = i;
        }
    }
    hand_on(work, stage, view, begin, view.length);
}

static bool one_character(const char *text, uint32_t *code) {
    size_t length;
    if (!text || !*text) return false;
    *code = text_decode((const uint8_t *)text, &length);
    return text[length] == '\0';
}

static bool load_metaspace(const json_t *json, TextPreTokenizer *part, Error *err) {
    static const char *const schemes[] = {"always", "first", "never"};
    const char *where = "pre_tokenizer Metaspace";
    uint32_t code;
    bool legacy;
    char *scheme = NULL;
    if (!text_json_string(json, "replacement", "\xE2\x96\x81", where, &part->replacement, err) ||
        !text_json_bool(json, "split", true, where, &part->split, err) ||
        !text_json_bool(json, "add_prefix_space", true, where, &legacy, err) ||
        !text_json_string(json, "prepend_scheme", "always", where, &scheme, err))
        return false;
    size_t found = 0;
    while (found < BASE_COUNT(schemes) && strcmp(scheme, schemes[found]) != 0) found++;
    free(scheme);
    if (found == BASE_COUNT(schemes))
        return base_fail(err, ERROR_INPUT, "%s: \"prepend_scheme\" must be always, first or never",
                         where);
    part->scheme = (int)found == 0 ? SCHEME_ALWAYS : (int)found == 1 ? SCHEME_FIRST : SCHEME_NEVER;
    if (!legacy && part->scheme != SCHEME_NEVER)
        return base_fail(err, ERROR_INPUT,
                         "%s: add_prefix_space false contradicts the prepend_scheme", where);
    return one_character(part->replacement, &code) ||
           base_fail(err, ERROR_INPUT, "%s: \"replacement\" must be one character", where);
}

/* ---- words and spaces --------------------------------------------------- */

/* \w+|[^\w\s]+ by Rust's regex; the rest is dropped. */
static void run_whitespace(const TextPreTokenizer *part, TextWork *work, size_t stage,
                           TextView in) {
    (void)part;
    enum { SPACE, WORD, SYMBOL } kind = SPACE, next;
    size_t begin = 0, length;
    for (size_t i = 0; i < in.length; i += length) {
        uint32_t code = text_decode((const uint8_t *)in.data + i, &length);
        next = text_is_space(code) ? SPACE : text_is_rust_word(code) ? WORD : SYMBOL;
        if (next == kind) continue;
        if (kind != SPACE) hand_on(work, stage, in, begin, i);
        begin = i;
        kind = next;
    }
    if (kind != SPACE) hand_on(work, stage, in, begin, in.length);
}

static void run_whitespace_split(const TextPreTokenizer *part, TextWork *work, size_t stage,
                                 TextView in) {
    (void)part;
    size_t begin = 0, length;
    for (size_t i = 0; i < in.length; i += length) {
        if (!text_is_space(text_decode((const uint8_t *)in.data + i, &length))) continue;
        hand_on(work, stage, in, begin, i);
        begin = i + length;
    }
    hand_on(work, stage, in, begin, in.length);
}

static void run_bert(const TextPreTokenizer *part, TextWork *work, size_t stage, TextView in) {
    (void)part;
    size_t begin = 0, length;
    for (size_t i = 0; i < in.length; i += length) {
        unsigned kind = text_bert_class(text_decode((const uint8_t *)in.data + i, &length));
        if (!(kind & (BERT_SPACE | BERT_PUNCTUATION))) continue;
        hand_on(work, stage, in, begin, i);
        if (kind & BERT_PUNCTUATION) hand_on(work, stage, in, i, i + length);
        begin = i + length;
    }
    hand_on(work, stage, in, begin, in.length);
}

/* Cuts where the script changes; characters of no script go with what is before
 * them, and are dropped in front of all others. */
static void run_scripts(const TextPreTokenizer *part, TextWork *work, size_t stage, TextView in) {
    (void)part;
    size_t begin = in.length, length;
    int last = 0;
    for (size_t i = 0; i < in.length; i += length) {
        int script = text_script(text_decode((const uint8_t *)in.data + i, &length));
        if (!script || script == last) continue;
        if (last) hand_on(work, stage, in, begin, i);
        begin = i;
        last = script;
    }
    hand_on(work, stage, in, begin, in.length);
}

static void run_punctuation(const TextPreTokenizer *part, TextWork *work, size_t stage,
                            TextView in) {
    Cutter cutter = {.work = work, .stage = stage, .in = in, .behavior = part->behavior};
    cut_by_character(&cutter, test_punctuation, 0);
}

static bool load_punctuation(const json_t *json, TextPreTokenizer *part, Error *err) {
    return load_behavior(json, SPLIT_ISOLATED, "pre_tokenizer Punctuation", &part->behavior, err);
}

/* Digits one by one, the commonest step before ByteLevel, without the machinery. */
static void isolate_digits(TextWork *work, size_t stage, TextView in) {
    size_t gap = 0;
    for (size_t i = 0, length; i < in.length; i += length) {
        uint8_t byte = (uint8_t)in.data[i];
        length = 1;
        if (byte < 0x80 ? (unsigned)(byte - '0') > 9
                        : !text_is_numeric(text_decode((const uint8_t *)in.data + i, &length)))
            continue;
        hand_on(work, stage, in, gap, i);
        hand_on(work, stage, in, i, i + length);
        gap = i + length;
    }
    hand_on(work, stage, in, gap, in.length);
}

static void run_digits(const TextPreTokenizer *part, TextWork *work, size_t stage, TextView in) {
    if (part->individual) {
        isolate_digits(work, stage, in);
        return;
    }
    Cutter cutter = {.work = work, .stage = stage, .in = in, .behavior = SPLIT_CONTIGUOUS};
    cut_by_character(&cutter, test_digit, 0);
}

static bool load_digits(const json_t *json, TextPreTokenizer *part, Error *err) {
    return text_json_bool(json, "individual_digits", false, "pre_tokenizer Digits",
                          &part->individual, err);
}

static void run_delimiter(const TextPreTokenizer *part, TextWork *work, size_t stage, TextView in) {
    Cutter cutter = {.work = work, .stage = stage, .in = in, .behavior = SPLIT_REMOVED};
    cut_by_character(&cutter, test_same, part->delimiter);
}

static bool load_delimiter(const json_t *json, TextPreTokenizer *part, Error *err) {
    return one_character(json_string_value(json_object_get(json, "delimiter")), &part->delimiter) ||
           base_fail(err, ERROR_INPUT,
                     "pre_tokenizer CharDelimiterSplit: \"delimiter\" must be one character");
}

static void run_fixed_length(const TextPreTokenizer *part, TextWork *work, size_t stage,
                             TextView in) {
    size_t begin = 0, held = 0, length;
    for (size_t i = 0; i < in.length; i += length) {
        text_decode((const uint8_t *)in.data + i, &length);
        if (held == part->chunk) {
            hand_on(work, stage, in, begin, i);
            begin = i;
            held = 0;
        }
        held++;
    }
    hand_on(work, stage, in, begin, in.length);
}

static bool load_fixed_length(const json_t *json, TextPreTokenizer *part, Error *err) {
    const char *where = "pre_tokenizer FixedLength";
    return text_json_size(json, "length", 5, where, &part->chunk, err) &&
           (part->chunk > 0 ||
            base_fail(err, ERROR_INPUT, "%s: \"length\" must be 1 or more", where));
}

/* ---- Split -------------------------------------------------------------- */

static void run_split(const TextPreTokenizer *part, TextWork *work, size_t stage, TextView in) {
    Cutter cutter = {
        .work = work, .stage = stage, .in = in, .behavior = part->behavior, .invert = part->invert};
    if (part->splitter) {
        for (size_t at = 0, end; at < in.length && !work->failed; at = end) {
            end = part->splitter((const uint8_t *)in.data, in.length, at);
            cutter_segment(&cutter, at, end, true);
        }
        cutter_flush(&cutter);
        return;
    }
    TextMatch match = {0};
    size_t gap = 0;
    while (text_pattern_next(part->pattern, work, in.data, in.length, &match)) {
        if (match.begin > gap) cutter_segment(&cutter, gap, match.begin, false);
        cutter_segment(&cutter, match.begin, match.end, true);
        gap = match.end;
    }
    if (in.length > gap) cutter_segment(&cutter, gap, in.length, false);
    cutter_flush(&cutter);
}

static bool load_split(const json_t *json, TextPreTokenizer *part, Error *err) {
    const char *where = "pre_tokenizer Split";
    const char *regex =
        json_string_value(json_object_get(json_object_get(json, "pattern"), "Regex"));
    if (!load_behavior(json, SPLIT_ISOLATED, where, &part->behavior, err) ||
        !text_json_bool(json, "invert", false, where, &part->invert, err))
        return false;
    if (regex) part->splitter = text_splitter_for(regex, part->behavior == SPLIT_ISOLATED);
    if (!part->splitter) part->pattern = text_pattern_load(json, where, err);
    return part->splitter || part->pattern;
}

/* Before each run of U+2581 but the first. */
static void run_spm_words(const TextPreTokenizer *part, TextWork *work, size_t stage, TextView in) {
    (void)part;
    size_t begin = 0;
    for (size_t i = 0; i < in.length;) {
        const char *lead = memchr(in.data + i, 0xE2, in.length - i);
        if (!lead) break;
        size_t at = (size_t)(lead - in.data);
        i = at + 3;
        if (memcmp(lead, "\xE2\x96\x81", 3) != 0) continue;
        while (i + 3 <= in.length && memcmp(in.data + i, "\xE2\x96\x81", 3) == 0) i += 3;
        hand_on(work, stage, in, begin, at);
        begin = at;
    }
    hand_on(work, stage, in, begin, in.length);
}

/* ---- loading ------------------------------------------------------------ */

static const struct {
    const char *type;
    void (*run)(const TextPreTokenizer *, TextWork *, size_t, TextView);
    bool (*load)(const json_t *, TextPreTokenizer *, Error *);
} kinds[] = {
    {"ByteLevel", run_byte_level, load_byte_level},
    {"BertPreTokenizer", run_bert, NULL},
    {"Whitespace", run_whitespace, NULL},
    {"WhitespaceSplit", run_whitespace_split, NULL},
    {"UnicodeScripts", run_scripts, NULL},
    {"Punctuation", run_punctuation, load_punctuation},
    {"Digits", run_digits, load_digits},
    {"Metaspace", run_metaspace, load_metaspace},
    {"CharDelimiterSplit", run_delimiter, load_delimiter},
    {"FixedLength", run_fixed_length, load_fixed_length},
    {"Split", run_split, load_split},
};

static bool load_part(const json_t *json, const char *type, void *chain, Error *err) {
    TextPreTokenizers *out = chain;
    size_t k = 0;
    while (k < BASE_COUNT(kinds) && strcmp(type, kinds[k].type) != 0) k++;
    if (k == BASE_COUNT(kinds)) return text_chain_unknown("pre_tokenizer", type, err);
    void *parts =
        text_chain_grow(out->parts, &out->count, sizeof *out->parts, "pre_tokenizer", err);
    if (!parts) return false;
    out->parts = parts;
    TextPreTokenizer *part = &out->parts[out->count - 1];
    part->run = kinds[k].run;
    out->ends_in_bytes = part->run == run_byte_level;
    if (kinds[k].load && !kinds[k].load(json, part, err)) return false;
    out->needs_origins |= part->run == run_metaspace && part->scheme == SCHEME_FIRST;
    return true;
}

bool text_pre_tokenizers_load(const json_t *json, TextPreTokenizers *out, Error *err) {
    static const TextChainLoader loader = {"pre_tokenizer", "pretokenizers", load_part};
    return text_chain_load(json, &loader, out, err);
}

static TextPreTokenizer *add_part(TextPreTokenizers *chain, TextPreTokenizer part) {
    chain->parts = base_realloc(chain->parts, (chain->count + 1) * sizeof *chain->parts);
    chain->parts[chain->count] = part;
    return &chain->parts[chain->count++];
}

bool text_pre_tokenizers_add_split(TextPreTokenizers *chain, const char *regex, Error *err) {
    TextPreTokenizer *part =
        add_part(chain, (TextPreTokenizer){.run = run_split,
                                           .behavior = SPLIT_ISOLATED,
                                           .splitter = strcmp(regex, CL100K) == 0
                                                           ? text_split_cl100k
                                                           : text_splitter_for(regex, true)});
    if (!part->splitter) part->pattern = text_pattern_regex(regex, err);
    return part->splitter || part->pattern;
}

void text_pre_tokenizers_add_spm_words(TextPreTokenizers *chain) {
    add_part(chain, (TextPreTokenizer){.run = run_spm_words});
}

void text_pre_tokenizers_free(TextPreTokenizers *chain) {
    for (size_t i = 0; i < chain->count; i++) {
        free(chain->parts[i].replacement);
        text_pattern_free(chain->parts[i].pattern);
    }
    free(chain->parts);
    *chain = (TextPreTokenizers){0};
}
