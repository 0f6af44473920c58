/* Normalizers: what a tokenizer.json does to a piece of text before cutting it
 * into words. Each rewrites a view into a buffer and carries origins along. */
#include "text/tokenizer_parts.h"

/* ---- BERT --------------------------------------------------------------- */

static void bert_add(const TextNormalizer *part, TextBuffer *out, uint32_t code, TextSpan span) {
    uint32_t lower[2] = {code};
    int count = part->lowercase ? text_lower(code, lower) : 1;
    for (int i = 0; i < count; i++) text_buffer_add_code(out, lower[i], span);
}

/* Length of the run at `from` that every BERT step leaves alone but for the
 * case of its letters: printable ASCII. */
static size_t plain_ascii_run(const char *text, size_t length, size_t from) {
    size_t i = from;
    while (i < length && (uint8_t)text[i] >= 0x20 && (uint8_t)text[i] < 0x7F) i++;
    return i - from;
}

static void lower_ascii(char *text, size_t length) {
    for (size_t i = 0; i < length; i++)
        text[i] = (char)(text[i] + ((text[i] >= 'A' && text[i] <= 'Z') << 5));
}

/* Clean, set Chinese apart, and lowercase, unless accents are to go first. */
static void bert_rewrite(const TextNormalizer *part, TextView in, TextBuffer *out) {
    for (size_t i = 0; i < in.length;) {
        size_t run = plain_ascii_run(in.data, in.length, i);
        if (run) {
            size_t start = out->length;
            text_buffer_copy(out, in, i, i + run);
            if (part->lowercase && !part->strip_accents) lower_ascii(out->data + start, run);
            i += run;
            continue;
        }
        size_t length;
        uint32_t code = text_decode((const uint8_t *)in.data + i, &length);
        TextSpan span = text_view_span(in, i, i + length);
        unsigned kind = text_bert_class(code);
        i += length;
        if (part->clean && (kind & BERT_DROPPED)) continue;
        if (part->clean && (kind & BERT_SPACE)) code = ' ';
        if (part->chinese && (kind & BERT_CHINESE)) {
            text_buffer_add_code(out, ' ', span);
            text_buffer_add_code(out, code, span);
            text_buffer_add_code(out, ' ', span);
        } else if (part->strip_accents) {
            text_buffer_add_code(out, code, span);
        } else {
            bert_add(part, out, code, span);
        }
    }
}

/* Accents are the Mn of the canonical decomposition; lowercase comes after. The
 * texts in between use buffers of pre-tokenizers, which run later. */
static void run_bert(const TextNormalizer *part, TextWork *work, TextView in, TextBuffer *out) {
    if (!part->strip_accents) {
        bert_rewrite(part, in, out);
        return;
    }
    TextBuffer *cleaned = &work->stages[0], *decomposed = &work->stages[1];
    text_buffer_reset(cleaned, out->track);
    bert_rewrite(part, in, cleaned);
    text_buffer_reset(decomposed, out->track);
    text_normalize_form(text_buffer_view(cleaned), false, false, decomposed);
    TextView view = text_buffer_view(decomposed);
    for (size_t i = 0; i < view.length;) {
        size_t run = plain_ascii_run(view.data, view.length, i), length;
        if (run) {
            size_t start = out->length;
            text_buffer_copy(out, view, i, i + run);
            if (part->lowercase) lower_ascii(out->data + start, run);
            i += run;
            continue;
        }
        uint32_t code = text_decode((const uint8_t *)view.data + i, &length);
        if (!(text_bert_class(code) & BERT_MARK))
            bert_add(part, out, code, text_view_span(view, i, i + length));
        i += length;
    }
}

static bool load_bert(const json_t *json, TextNormalizer *part, Error *err) {
    const char *where = "normalizer BertNormalizer";
    return text_json_bool(json, "clean_text", true, where, &part->clean, err) &&
           text_json_bool(json, "handle_chinese_chars", true, where, &part->chinese, err) &&
           text_json_bool(json, "lowercase", true, where, &part->lowercase, err) &&
           text_json_bool(json, "strip_accents", part->lowercase, where, &part->strip_accents, err);
}

/* ---- character by character --------------------------------------------- */

static void run_form(const TextNormalizer *part, TextWork *work, TextView in, TextBuffer *out) {
    (void)work;
    text_normalize_form(in, part->compatible, part->compose, out);
}

static void run_strip_accents(const TextNormalizer *part, TextWork *work, TextView in,
                              TextBuffer *out) {
    (void)part, (void)work;
    for (size_t i = 0, length; i < in.length; i += length)
        if (!text_in(&text_mark_9, text_decode((const uint8_t *)in.data + i, &length)))
            text_buffer_copy(out, in, i, i + length);
}

static void run_lowercase(const TextNormalizer *part, TextWork *work, TextView in,
                          TextBuffer *out) {
    (void)part, (void)work;
    for (size_t i = 0, length; i < in.length; i += length) {
        uint32_t lower[2], code = text_decode((const uint8_t *)in.data + i, &length);
        int count = text_lower(code, lower);
        for (int k = 0; k < count; k++)
            text_buffer_add_code(out, lower[k], text_view_span(in, i, i + length));
    }
}

/* SentencePiece's nmt rules, as the Python package applies them. */
static void run_nmt(const TextNormalizer *part, TextWork *work, TextView in, TextBuffer *out) {
    static const TextRange dropped[] = {{0x1, 0x8},   {0xB, 0xB},   {0xE, 0x1F},
                                        {0x7F, 0x7F}, {0x8F, 0x8F}, {0x9F, 0x9F}};
    static const TextRange spaced[] = {{0x9, 0xA},       {0xC, 0xD},       {0x1680, 0x1680},
                                       {0x200B, 0x200F}, {0x2028, 0x2029}, {0x2581, 0x2581},
                                       {0xFEFF, 0xFEFF}, {0xFFFD, 0xFFFD}};
    static const TextRanges drop = {dropped, BASE_COUNT(dropped)};
    static const TextRanges space = {spaced, BASE_COUNT(spaced)};
    (void)part, (void)work;
    for (size_t i = 0, length; i < in.length; i += length) {
        uint32_t code = text_decode((const uint8_t *)in.data + i, &length);
        if (text_in(&space, code))
            text_buffer_add_code(out, ' ', text_view_span(in, i, i + length));
        else if (!text_in(&drop, code))
            text_buffer_copy(out, in, i, i + length);
    }
}

/* ---- strings ------------------------------------------------------------ */

static void run_strip(const TextNormalizer *part, TextWork *work, TextView in, TextBuffer *out) {
    (void)work;
    size_t begin = 0, end = in.length, length;
    while (part->left && begin < end &&
           text_is_space(text_decode((const uint8_t *)in.data + begin, &length)))
        begin += length;
    while (part->right && end > begin &&
           text_is_space(text_decode_before((const uint8_t *)in.data, end, &length)))
        end -= length;
    text_buffer_copy(out, in, begin, end);
}

static bool load_strip(const json_t *json, TextNormalizer *part, Error *err) {
    const char *where = "normalizer Strip";
    return text_json_bool(json, "strip_left", true, where, &part->left, err) &&
           text_json_bool(json, "strip_right", true, where, &part->right, err);
}

static void run_prepend(const TextNormalizer *part, TextWork *work, TextView in, TextBuffer *out) {
    (void)work;
    if (in.length) {
        size_t first = 1;
        while (first < in.length && (in.data[first] & 0xC0) == 0x80) first++;
        text_buffer_add(out, part->content, strlen(part->content), text_view_span(in, 0, first));
    }
    text_buffer_copy(out, in, 0, in.length);
}

static bool load_prepend(const json_t *json, TextNormalizer *part, Error *err) {
    return text_json_string(json, "prepend", "", "normalizer Prepend", &part->content, err);
}

static void run_replace(const TextNormalizer *part, TextWork *work, TextView in, TextBuffer *out) {
    TextMatch match = {0};
    size_t done = 0;
    while (text_pattern_next(part->pattern, work, in.data, in.length, &match)) {
        text_buffer_copy(out, in, done, match.begin);
        text_buffer_add(out, part->content, strlen(part->content),
                        text_view_span(in, match.begin, match.end));
        done = match.end;
    }
    text_buffer_copy(out, in, done, in.length);
}

static bool load_replace(const json_t *json, TextNormalizer *part, Error *err) {
    const char *where = "normalizer Replace";
    part->pattern = text_pattern_load(json, where, err);
    return part->pattern && text_json_string(json, "content", "", where, &part->content, err);
}

/* ---- bytes -------------------------------------------------------------- */

static void run_byte_level(const TextNormalizer *part, TextWork *work, TextView in,
                           TextBuffer *out) {
    (void)part, (void)work;
    for (size_t i = 0, length; i < in.length; i += length) {
        text_decode((const uint8_t *)in.data + i, &length);
        TextSpan span = text_view_span(in, i, i + length);
        for (size_t k = 0; k < length; k++)
            text_buffer_add_code(out, text_alphabet_of_byte((uint8_t)in.data[i + k]), span);
    }
}

static void run_precompiled(const TextNormalizer *part, TextWork *work, TextView in,
                            TextBuffer *out) {
    (void)work;
    text_normalize_precompiled(part->charsmap, in, out);
}

static bool load_precompiled(const json_t *json, TextNormalizer *part, Error *err) {
    const char *where = "normalizer Precompiled";
    const char *map = json_string_value(json_object_get(json, "precompiled_charsmap"));
    if (!map) return base_fail(err, ERROR_INPUT, "%s: no \"precompiled_charsmap\"", where);
    part->charsmap = text_charsmap_from_base64(map, where, err);
    return part->charsmap != NULL;
}

static void run_spm(const TextNormalizer *part, TextWork *work, TextView in, TextBuffer *out) {
    (void)work;
    text_normalize_spm(part->spm, in, out);
}

void text_normalizers_add_spm(TextNormalizers *chain, TextSpmRules *rules) {
    chain->parts = base_realloc(chain->parts, (chain->count + 1) * sizeof *chain->parts);
    chain->parts[chain->count++] = (TextNormalizer){.run = run_spm, .spm = rules};
}

/* ---- loading ------------------------------------------------------------ */

static bool load_nfc(const json_t *json, TextNormalizer *part, Error *err) {
    (void)json, (void)err;
    part->compose = true;
    return true;
}

static bool load_nfkd(const json_t *json, TextNormalizer *part, Error *err) {
    (void)json, (void)err;
    part->compatible = true;
    return true;
}

static bool load_nfkc(const json_t *json, TextNormalizer *part, Error *err) {
    return load_nfc(json, part, err) && load_nfkd(json, part, err);
}

static const struct {
    const char *type;
    void (*run)(const TextNormalizer *, TextWork *, TextView, TextBuffer *);
    bool (*load)(const json_t *, TextNormalizer *, Error *);
} kinds[] = {
    {"BertNormalizer", run_bert, load_bert},
    {"NFC", run_form, load_nfc},
    {"NFD", run_form, NULL},
    {"NFKC", run_form, load_nfkc},
    {"NFKD", run_form, load_nfkd},
    {"StripAccents", run_strip_accents, NULL},
    {"Lowercase", run_lowercase, NULL},
    {"Nmt", run_nmt, NULL},
    {"Strip", run_strip, load_strip},
    {"Prepend", run_prepend, load_prepend},
    {"Replace", run_replace, load_replace},
    {"ByteLevel", run_byte_level, NULL},
    {"Precompiled", run_precompiled, load_precompiled},
};

static bool load_part(const json_t *json, const char *type, void *chain, Error *err) {
    TextNormalizers *out = chain;
    size_t k = 0;
    while (k < BASE_COUNT(kinds) && strcmp(type, kinds[k].type) != 0) k++;
    if (k == BASE_COUNT(kinds)) return text_chain_unknown("normalizer", type, err);
    void *parts = text_chain_grow(out->parts, &out->count, sizeof *out->parts, "normalizer", err);
    if (!parts) return false;
    out->parts = parts;
    TextNormalizer *part = &out->parts[out->count - 1];
    part->run = kinds[k].run;
    return !kinds[k].load || kinds[k].load(json, part, err);
}

bool text_normalizers_load(const json_t *json, TextNormalizers *out, Error *err) {
    static const TextChainLoader loader = {"normalizer", "normalizers", load_part};
    return text_chain_load(json, &loader, out, err);
}

TextView text_normalize(const TextNormalizers *chain, TextWork *work, TextView in) {
    for (size_t i = 0; i < chain->count; i++) {
        TextBuffer *out = &work->normal[i % 2];
        text_buffer_reset(out, work->track);
        chain->parts[i].run(&chain->parts[i], work, in, out);
        in = text_buffer_view(out);
    }
    return in;
}

void text_normalizers_free(TextNormalizers *chain) {
    for (size_t i = 0; i < chain->count; i++) {
        free(chain->parts[i].content);
        text_pattern_free(chain->parts[i].pattern);
        text_charsmap_free(chain->parts[i].charsmap);
        text_spm_rules_free(chain->parts[i].spm);
    }
    free(chain->parts);
    *chain = (TextNormalizers){0};
}
