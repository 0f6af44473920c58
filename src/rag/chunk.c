/* The chunker. The whole document is tokenized once; after that the size of any
 * slice is a difference of two positions in the list of token ends, so packing
 * is linear. First the blocks are broken into units that fit, then units are
 * packed greedily. */
#include "rag/chunk.h"

#include <ctype.h>
#include <string.h>

#include "rag/sentences.h"
#include "rag/show.h"

#define HEADING_LEVELS 6
#define HEADER_TOKENS 48 /* at most, of title and headings together */
#define ROW_HEADER_TOKENS 32
#define SEPARATOR " > "

typedef struct Unit {
    size_t start, end;
    size_t block; /* index of the block it comes from */
} Unit;

typedef struct Chunker {
    const RagDocument *document;
    const RagEmbedder *embedder;
    size_t cap;    /* tokens of header and slice together */
    size_t target; /* the same, wished for */
    size_t *ends;  /* where each token of the document's text ends */
    size_t n_tokens;
    Unit *units;
    size_t n_units, units_capacity;
    size_t headings[HEADING_LEVELS]; /* block index + 1 of the open heading of each level */
    char *header_text;               /* the last header that was counted, */
    size_t header_tokens;            /* and its tokens */
    RagChunks *out;
} Chunker;

/* Tokens that end in [0, position]. */
static size_t tokens_before(const Chunker *c, size_t position) {
    size_t low = 0, high = c->n_tokens;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (c->ends[middle] <= position)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* An upper bound for a slice: a token across its start counts whole. */
static size_t tokens_in(const Chunker *c, size_t start, size_t end) {
    size_t before = tokens_before(c, start), until = tokens_before(c, end);
    bool open = until < c->n_tokens && (until ? c->ends[until - 1] : 0) < end;
    return until - before + open;
}

static bool count_tokens(const Chunker *c, const char *text, size_t length, size_t *count,
                         Error *err) {
    size_t *ends = NULL;
    bool ok = c->embedder->token_ends(c->embedder->context, text, length, &ends, count, err);
    free(ends);
    return ok;
}

/* ---- units ---------------------------------------------------------------- */

static size_t skip_space(const char *text, size_t start, size_t end, bool lines_only) {
    while (start < end) {
        uint32_t codepoint = 0;
        size_t taken = base_utf8_decode(text + start, end - start, &codepoint, NULL);
        if (lines_only ? codepoint != '\n' : !rag_is_space(codepoint)) break;
        start += taken;
    }
    return start;
}

static size_t trim_end(const char *text, size_t start, size_t end) {
    while (end > start && strchr(" \t\n\r\v\f", text[end - 1]) && text[end - 1]) end--;
    return end;
}

static void add_unit(Chunker *c, size_t start, size_t end, size_t block) {
    const char *text = c->document->text.data;
    bool code = c->document->blocks[block].kind == RAG_BLOCK_CODE;
    start = skip_space(text, start, end, code);
    end = trim_end(text, start, end);
    if (start >= end) return;
    c->units = base_grow(c->units, &c->units_capacity, c->n_units + 1, sizeof *c->units);
    c->units[c->n_units++] = (Unit){start, end, block};
}

/* The end of the next word and the space after it. */
static size_t word_end(const char *text, size_t length, size_t start) {
    bool in_space = false;
    size_t i = start;
    while (i < length) {
        uint32_t codepoint = 0;
        size_t taken = base_utf8_decode(text + i, length - i, &codepoint, NULL);
        bool space = rag_is_space(codepoint);
        if (in_space && !space) break;
        in_space = space;
        i += taken;
        if (codepoint >= 0x2E80 && codepoint < 0xD7B0) break; /* CJK may break anywhere */
    }
    return i;
}

static size_t line_end(const char *text, size_t length, size_t start) {
    const char *newline = memchr(text + start, '\n', length - start);
    return newline ? (size_t)(newline - text) + 1 : length;
}

typedef size_t (*PieceEnd)(const char *text, size_t length, size_t start);

/* A word longer than a chunk: as many code points as fit. */
static void cut_word(Chunker *c, size_t start, size_t end, size_t block, size_t limit) {
    const char *text = c->document->text.data;
    while (start < end) {
        size_t stop = end;
        if (tokens_in(c, start, end) > limit) {
            size_t last = tokens_before(c, start) + limit - 1;
            stop = last < c->n_tokens ? BASE_MIN(c->ends[last], end) : end;
            /* One code point may be several tokens: all of them end with it. */
            stop = start + rag_utf8_floor(text + start, end - start, stop - start);
            c->out->split_hard++;
        }
        if (stop == start) { /* not even one code point fits; it goes alone */
            uint32_t codepoint = 0;
            stop = start + base_utf8_decode(text + start, end - start, &codepoint, NULL);
        }
        add_unit(c, start, stop, block);
        start = stop;
    }
}

/* Pieces by `levels[0]`; neighbours are joined while they fit, a piece that is
 * too large is broken by the next level. */
static void break_up(Chunker *c, size_t start, size_t end, size_t block, size_t limit,
                     const PieceEnd *levels) {
    const char *text = c->document->text.data;
    if (!levels[0]) {
        cut_word(c, start, end, block, limit);
        return;
    }
    size_t open = start; /* of the pieces joined so far */
    for (size_t i = start; i < end;) {
        size_t next = levels[0](text, end, i);
        if (tokens_in(c, open, next) > limit) {
            if (open < i) add_unit(c, open, i, block);
            open = i;
            if (tokens_in(c, i, next) > limit) {
                break_up(c, i, next, block, limit, levels + 1);
                open = next;
            }
        }
        i = next;
    }
    if (open < end) add_unit(c, open, end, block);
}

static void make_units(Chunker *c, size_t limit) {
    static const PieceEnd prose[] = {rag_sentence_end, word_end, NULL};
    static const PieceEnd code[] = {line_end, word_end, NULL};
    for (size_t i = 0; i < c->document->n_blocks; i++) {
        RagBlock block = c->document->blocks[i];
        if (tokens_in(c, block.start, block.end) <= limit)
            add_unit(c, block.start, block.end, i);
        else
            break_up(c, block.start, block.end, i, limit,
                     block.kind == RAG_BLOCK_CODE ? code : prose);
    }
}

/* ---- headers -------------------------------------------------------------- */

/* The next part of "3.2.1 Name" at *at; 0 when there is none. */
static int next_number(const Chunker *c, RagBlock block, size_t *at) {
    const char *text = c->document->text.data;
    int number = 0;
    size_t digits = 0;
    for (; *at < block.end && isdigit((unsigned char)text[*at]) && digits < 4; digits++)
        number = number * 10 + text[(*at)++] - '0';
    if (*at < block.end && text[*at] == '.') (*at)++;
    return digits && digits < 4 ? number : 0;
}

/* "23 Licence" does not stand over "1.1 Scope": it ends a table of contents. */
static bool stands_over(const Chunker *c, RagBlock outer, RagBlock inner) {
    size_t i = outer.start, k = inner.start;
    int over = next_number(c, outer, &i), under = next_number(c, inner, &k);
    while (over && under && over == under) {
        over = next_number(c, outer, &i);
        under = next_number(c, inner, &k);
    }
    return !over || !under;
}

static void open_heading(Chunker *c, size_t block) {
    const RagBlock *blocks = c->document->blocks;
    int level = blocks[block].level;
    level = level < 1 ? 1 : level > HEADING_LEVELS ? HEADING_LEVELS : level;
    for (int i = 0; i < level - 1; i++)
        if (c->headings[i] && !stands_over(c, blocks[c->headings[i] - 1], blocks[block]))
            c->headings[i] = 0;
    c->headings[level - 1] = block + 1;
    for (int i = level; i < HEADING_LEVELS; i++) c->headings[i] = 0;
}

static void append_part(StrBuf *out, const char *text, size_t length) {
    size_t kept = rag_utf8_floor(text, length, 120);
    if (out->length) base_str_append(out, SEPARATOR);
    base_str_append_n(out, text, kept);
}

/* The headings that are open, outermost first, leaving out the first `skip`. */
static char *heading_path(const Chunker *c, size_t skip) {
    StrBuf path = {0};
    for (size_t i = 0; i < HEADING_LEVELS; i++) {
        if (!c->headings[i]) continue;
        if (skip) {
            skip--;
            continue;
        }
        RagBlock block = c->document->blocks[c->headings[i] - 1];
        append_part(&path, c->document->text.data + block.start, block.end - block.start);
    }
    return base_str_detach(&path);
}

static bool header_count(Chunker *c, const char *header, size_t *count, Error *err) {
    if (!c->header_text || strcmp(c->header_text, header) != 0) {
        if (!count_tokens(c, header, strlen(header), &c->header_tokens, err)) return false;
        free(c->header_text);
        c->header_text = base_strdup(header);
    }
    *count = c->header_tokens;
    return true;
}

/* title > headings in at most `limit` tokens: outer headings give way first, the
 * title last, then the tail of what remains. */
static bool make_header(Chunker *c, size_t limit, char **header, size_t *count, Error *err) {
    const char *title = c->document->title ? c->document->title : "";
    for (size_t skip = 0; skip <= HEADING_LEVELS; skip++) {
        char *path = heading_path(c, skip);
        StrBuf text = {0};
        bool same =
            strncmp(path, title, strlen(title)) == 0; /* many pages repeat their title as h1 */
        if (*title && !same) append_part(&text, title, strlen(title));
        if (*path) base_str_appendf(&text, "%s%s", text.length ? SEPARATOR : "", path);
        bool last = !*path;
        free(path);
        *header = base_str_detach(&text);
        if (!header_count(c, *header, count, err)) return false;
        while (last && *count > limit && **header) {
            size_t length = strlen(*header);
            (*header)[rag_utf8_floor(*header, length, length / 2)] = '\0';
            if (!header_count(c, *header, count, err)) return false;
        }
        if (*count <= limit) return true;
        free(*header);
        *header = NULL;
    }
    *header = base_strdup("");
    *count = 0;
    return true;
}

/* The head row of the table that a chunk continues, or SIZE_MAX. */
static size_t table_header_of(const Chunker *c, size_t block) {
    const RagBlock *blocks = c->document->blocks;
    if (blocks[block].kind != RAG_BLOCK_TABLE_ROW) return SIZE_MAX;
    size_t i = block;
    while (i > 0 && blocks[i - 1].kind == RAG_BLOCK_TABLE_ROW) i--;
    return i > 0 && blocks[i - 1].kind == RAG_BLOCK_TABLE_HEADER ? i - 1 : SIZE_MAX;
}

/* In source code: the number of the line that a chunk begins on. */
static int place_of(const RagDocument *d, size_t block, size_t start) {
    int place = d->blocks[block].page;
    for (size_t i = d->blocks[block].start; d->line_numbers && i < start; i++)
        place += d->text.data[i] == '\n';
    return place;
}

/* ---- packing -------------------------------------------------------------- */

/* Emits units [first, last) as one chunk under the headings open now. When the
 * exact count is too high (tokens that only form across a cut, a long header),
 * the chunk is halved at a unit, or at words when it is a single unit. */
static bool emit(Chunker *c, size_t first, size_t last, Error *err) {
    const RagDocument *d = c->document;
    size_t start = c->units[first].start, end = c->units[last - 1].end;
    char *header = NULL;
    size_t header_tokens = 0;
    if (!make_header(c, BASE_MIN((size_t)HEADER_TOKENS, c->cap / 4), &header, &header_tokens,
                     err)) {
        free(header);
        return false;
    }
    size_t body_tokens = tokens_in(c, start, end), row = table_header_of(c, c->units[first].block);
    if (row != SIZE_MAX) {
        RagBlock block = d->blocks[row];
        size_t row_tokens = tokens_in(c, block.start, block.end);
        if (row_tokens <= ROW_HEADER_TOKENS &&
            row_tokens + header_tokens + body_tokens + 16 <= c->cap) {
            char *with_row = base_format("%s\n%.*s", header, (int)(block.end - block.start),
                                         d->text.data + block.start);
            free(header);
            header = with_row;
            header_tokens += row_tokens;
        }
    }
    size_t total = header_tokens + body_tokens;
    if (total + 16 > c->cap) { /* near the limit the estimate is not enough */
        StrBuf whole = {0};
        base_str_appendf(&whole, "%s\n", header);
        base_str_append_n(&whole, d->text.data + start, end - start);
        bool ok = count_tokens(c, whole.data, whole.length, &total, err);
        base_str_free(&whole);
        if (!ok) {
            free(header);
            return false;
        }
    }
    if (total > c->cap && last - first > 1) {
        free(header);
        size_t middle = first + (last - first) / 2;
        return emit(c, first, middle, err) && emit(c, middle, last, err);
    }
    if (total > c->cap && end - start > 4) {
        size_t middle =
            start + rag_utf8_floor(d->text.data + start, end - start, (end - start) / 2);
        for (size_t i = start; i < middle;) { /* the last word end before the middle */
            size_t next = word_end(d->text.data, end, i);
            if (next > middle) {
                if (i > start) middle = i;
                break;
            }
            i = next;
        }
        free(header);
        Unit whole = c->units[first];
        c->units[first].end = trim_end(d->text.data, start, middle);
        bool ok = middle > start && middle < end && emit(c, first, last, err);
        c->units[first] = (Unit){skip_space(d->text.data, middle, end, false), end, whole.block};
        ok = ok && emit(c, first, last, err);
        c->units[first] = whole;
        c->out->split_hard++;
        return ok || (err && err->code) ||
               base_fail(err, ERROR_INTERNAL, "a chunk cannot be made to fit the embedder");
    }
    RagChunks *out = c->out;
    out->items = base_grow(out->items, &out->capacity, out->count + 1, sizeof *out->items);
    out->items[out->count++] = (RagChunk){.start = start,
                                          .end = end,
                                          .page = place_of(d, c->units[first].block, start),
                                          .heading = heading_path(c, 0),
                                          .header = header,
                                          .n_tokens = total};
    return true;
}

static bool is_heading(const Chunker *c, size_t unit) {
    return c->document->blocks[c->units[unit].block].kind == RAG_BLOCK_HEADING;
}

/* Emits [first, last) under the headings that its first words stand under. */
static bool emit_section(Chunker *c, size_t first, size_t last, Error *err) {
    size_t i = first;
    for (; i < last && is_heading(c, i); i++) open_heading(c, c->units[i].block);
    if (!emit(c, first, last, err)) return false;
    for (; i < last; i++)
        if (is_heading(c, i)) open_heading(c, c->units[i].block);
    return true;
}

/* A section shorter than this is joined with the next one. */
static size_t small_section(const Chunker *c) {
    return c->target / 4;
}

static bool pack(Chunker *c, size_t limit, Error *err) {
    size_t first = 0;
    for (size_t i = 0; i < c->n_units; i++) {
        if (i == first) continue;
        size_t held = tokens_in(c, c->units[first].start, c->units[i - 1].end);
        size_t with = tokens_in(c, c->units[first].start, c->units[i].end);
        bool new_section = is_heading(c, i) && !is_heading(c, i - 1);
        bool chapter = new_section && c->document->blocks[c->units[i].block].level <= 1;
        if (with <= limit && !(new_section && held >= small_section(c)) && !chapter) continue;
        size_t last = i; /* headings at the end go with what follows them */
        while (last - first > 1 && is_heading(c, last - 1)) last--;
        if (is_heading(c, last - 1)) last = i;
        if (!emit_section(c, first, last, err)) return false;
        first = last;
        if (first < i) i--; /* look at this unit again, now behind its headings */
    }
    return first >= c->n_units || emit_section(c, first, c->n_units, err);
}

bool rag_chunk_document(const RagDocument *document, const RagEmbedder *embedder, size_t target,
                        RagChunks *chunks, Error *err) {
    *chunks = (RagChunks){0};
    if (!document->n_blocks) return true;
    if (embedder->max_tokens < embedder->n_special + 16)
        return base_fail(err, ERROR_UNSUPPORTED,
                         "the embedder takes %zu tokens, too few for a chunk",
                         embedder->max_tokens);
    Chunker c = {.document = document, .embedder = embedder, .out = chunks};
    c.cap = embedder->max_tokens - embedder->n_special;
    c.target = BASE_MIN(target ? BASE_MAX(target, (size_t)16) : RAG_CHUNK_TOKENS, c.cap);
    bool ok = embedder->token_ends(embedder->context, document->text.data, document->text.length,
                                   &c.ends, &c.n_tokens, err);
    if (ok) {
        /* Room for a usual header; emit() takes care of the unusual ones. */
        size_t limit = c.target - BASE_MIN(c.target / 4, (size_t)24);
        make_units(&c, limit);
        ok = pack(&c, limit, err);
    }
    free(c.ends);
    free(c.units);
    free(c.header_text);
    if (!ok) rag_chunks_free(chunks);
    return ok;
}

void rag_chunks_free(RagChunks *chunks) {
    for (size_t i = 0; i < chunks->count; i++) {
        free(chunks->items[i].heading);
        free(chunks->items[i].header);
    }
    free(chunks->items);
    *chunks = (RagChunks){0};
}
