/* The parts a tokenizer is made of, as its files share them. A text flows
 *
 *     added tokens -> normalizers -> added tokens -> pre-tokenizers -> model
 *
 * as TextViews, depth first: a stage hands each piece to the next at once, so
 * nothing is listed and a text of any size needs little memory. What one call
 * needs to write lives in a TextWork, so the tokenizer itself stays constant. */
#ifndef TEXT_TOKENIZER_PARTS_H
#define TEXT_TOKENIZER_PARTS_H

#include "text/tokenizer.h"
#include "text/tokenizer_unicode.h"

#include <pthread.h>
#include <string.h>

enum {
    TEXT_MAX_STAGES = 64,         /* normalizers, pre-tokenizers or decoders in a chain */
    TEXT_MAX_DEPTH = 16,          /* nested Sequences */
    TEXT_MAX_IDS = (1 << 24) - 1, /* ids a file may use */
    TEXT_BATCH = 64,              /* texts looked up at once */
    TEXT_CACHED_KEY = 26,         /* bytes of a piece that the cache remembers */
    TEXT_CACHED_IDS = 8,
    TEXT_CACHE_SLOTS = 1 << 15,
    TEXT_JOIN_SLOTS = 1 << 15
};

typedef struct TextWork TextWork;

/* ---- text with a memory of where it came from --------------------------- */

/* Valid UTF-8, borrowed. Byte i came from origin[i] of the caller's text, or,
 * when origin is NULL, from byte base + i. */
typedef struct TextView {
    const char *data;
    size_t length;
    const TextSpan *origin;
    size_t base;
} TextView;

TextView text_view_slice(TextView view, size_t begin, size_t end);
TextSpan text_view_span(TextView view, size_t begin, size_t end);

/* A text being rewritten. Origins are kept only when track is set. */
typedef struct TextBuffer {
    char *data;
    TextSpan *origin;
    size_t length, capacity, origin_capacity;
    bool track;
} TextBuffer;
void text_buffer_reset(TextBuffer *buffer, bool track);
/* Appends bytes that all came from `span`. */
void text_buffer_add(TextBuffer *buffer, const char *bytes, size_t length, TextSpan span);
void text_buffer_add_code(TextBuffer *buffer, uint32_t code, TextSpan span);
/* Appends view[begin, end) unchanged. */
void text_buffer_copy(TextBuffer *buffer, TextView view, size_t begin, size_t end);
TextView text_buffer_view(const TextBuffer *buffer);
void text_buffer_free(TextBuffer *buffer);

/* ---- reading JSON members ----------------------------------------------- */

/* Each fills *out and returns true, also when the member is absent (or null)
 * and then stores the default; a member of another type is an error that names
 * `where`. */
bool text_json_bool(const json_t *object, const char *key, bool standard, const char *where,
                    bool *out, Error *err);
bool text_json_size(const json_t *object, const char *key, size_t standard, const char *where,
                    size_t *out, Error *err);
/* *out is a copy, or NULL when absent and standard is NULL. Caller frees. */
bool text_json_string(const json_t *object, const char *key, const char *standard,
                      const char *where, char **out, Error *err);
/* The "type" of a component, or NULL and *err. */
const char *text_json_type(const json_t *object, const char *where, Error *err);

/* A component, or a Sequence of them at most TEXT_MAX_DEPTH deep: load is called
 * with each that is no Sequence, in order. null and absent are no components. */
typedef struct TextChainLoader {
    const char *what; /* "normalizer", for messages */
    const char *list; /* the member of a Sequence that lists its parts */
    bool (*load)(const json_t *json, const char *type, void *chain, Error *err);
} TextChainLoader;
bool text_chain_load(const json_t *json, const TextChainLoader *loader, void *chain, Error *err);
/* parts with one more zeroed element of `bytes`, or NULL (parts stays) when it
 * has TEXT_MAX_STAGES. */
void *text_chain_grow(void *parts, size_t *count, size_t bytes, const char *what, Error *err);
bool text_chain_unknown(const char *what, const char *type, Error *err); /* false */

/* ---- vocabulary --------------------------------------------------------- */

/* Token texts by id and ids by text. */
typedef struct TextVocab {
    char *blob; /* texts, each followed by NUL */
    size_t blob_length, blob_capacity;
    struct TextVocabEntry {
        uint32_t offset, length; /* offset UINT32_MAX: no such id */
    } * entries;
    size_t size, capacity; /* ids [0, size) */
    uint32_t *slots;       /* 8 bits of the hash << 24 | id + 1, or 0 */
    size_t slot_count;     /* a power of two */
    size_t longest;        /* bytes of the longest text */
    size_t count;          /* distinct texts */
} TextVocab;

#define TEXT_HASH_START 0xcbf29ce484222325ull
static inline uint64_t text_hash_step(uint64_t hash, uint8_t byte) {
    return (hash ^ byte) * 0x100000001b3ull;
}
/* Makes room for `bytes` of text and `tokens` ids, so that adding is cheap. */
void text_vocab_reserve(TextVocab *vocab, size_t bytes, size_t tokens);
/* Adds or replaces a text's id; an id's text may be replaced too. */
bool text_vocab_add(TextVocab *vocab, const char *text, size_t length, int64_t id, Error *err);
int32_t text_vocab_find(const TextVocab *vocab, const char *text, size_t length); /* or -1 */
/* The same with the hash of the text known (text_hash_step over its bytes). */
int32_t text_vocab_find_hashed(const TextVocab *vocab, const char *text, size_t length,
                               uint64_t hash);
/* Many at once, which is faster: while memory is fetched for one text, others
 * are asked for. At most TEXT_BATCH. find stores ids or -1. */
typedef struct TextPiece {
    const char *text;
    size_t length;
} TextPiece;
void text_vocab_find_many(const TextVocab *vocab, const TextPiece *texts, size_t count,
                          int32_t *ids);
bool text_vocab_add_many(TextVocab *vocab, const TextPiece *texts, const int64_t *ids, size_t count,
                         Error *err);
const char *text_vocab_text(const TextVocab *vocab, int32_t id, size_t *length); /* or NULL */
void text_vocab_free(TextVocab *vocab);

/* Which texts of a set a text starts with. Nodes are level by level: those below
 * node n are [first[n], first[n + 1]), in the order of their bytes; 0 is the root. */
typedef struct TextPrefixes {
    uint32_t *first;
    int32_t *ids; /* of the text that ends here, or -1 */
    uint8_t *labels;
    size_t count;
} TextPrefixes;
/* Of the texts of a vocabulary, all of them or those with wanted[id] set. */
void text_prefixes_build(TextPrefixes *trie, const TextVocab *vocab, const uint8_t *wanted);
uint32_t text_prefixes_child(const TextPrefixes *trie, uint32_t node, uint8_t byte); /* 0: none */
/* The longest text of the set that text[0, length) starts with, or -1. */
int32_t text_prefixes_longest(const TextPrefixes *trie, const char *text, size_t length,
                              size_t *matched);
void text_prefixes_free(TextPrefixes *trie);

/* ---- SentencePiece's character map -------------------------------------- */

typedef struct TextCharsmap {
    uint32_t *units;
    size_t unit_count;
    char *strings;
    size_t string_bytes;
} TextCharsmap;
/* NULL and *err for a blob that is cut. */
TextCharsmap *text_charsmap_new(const void *blob, size_t length, const char *where, Error *err);
TextCharsmap *text_charsmap_from_base64(const char *text, const char *where, Error *err);
/* What replaces the shortest or longest prefix of the text that the map knows,
 * borrowed, or NULL. */
const char *text_charsmap_find(const TextCharsmap *map, const char *text, size_t length,
                               bool longest, size_t *matched);
void text_charsmap_free(TextCharsmap *map); /* NULL ok */
/* Appends the bytes that base64 stands for; false, with *out as it was, when it is none. */
bool text_base64_append(const char *text, size_t length, StrBuf *out);
char *text_base64_of(const uint8_t *bytes, size_t length); /* caller frees */

/* How SentencePiece itself normalizes. */
typedef struct TextSpmRules {
    TextCharsmap *map; /* NULL: none */
    TextPrefixes user; /* symbols that stay as they are */
    bool literal[256]; /* bytes that stay as they are: no space, no start of anything above */
    bool add_dummy_prefix, remove_extra_spaces, escape_spaces, space_as_suffix;
} TextSpmRules;
void text_spm_rules_free(TextSpmRules *rules); /* NULL ok */

/* ---- regular expressions ------------------------------------------------ */

/* A splitter finds the next match of its pattern at or after `from`. */
typedef struct TextPattern TextPattern;
TextPattern *text_pattern_regex(const char *regex, Error *err);
TextPattern *text_pattern_literal(const char *text);
/* The member "pattern": {"String": ...} or {"Regex": ...}. */
TextPattern *text_pattern_load(const json_t *json, const char *where, Error *err);
void text_pattern_free(TextPattern *pattern);
/* Matches in order, without overlap, empty ones as Oniguruma's iterator gives
 * them. Start with {0}. */
typedef struct TextMatch {
    size_t begin, end;
    size_t next;
    bool any;
} TextMatch;
bool text_pattern_next(const TextPattern *pattern, TextWork *work, const char *text, size_t length,
                       TextMatch *match);

/* Hand-written equivalents of well-known patterns: the end of the piece that
 * starts at `from`, a match or, where isolated allows it, what lies between two.
 * NULL when the pattern is not one of them. */
typedef size_t (*TextSplitter)(const uint8_t *text, size_t length, size_t from);
TextSplitter text_splitter_for(const char *regex, bool isolated);
size_t text_split_cl100k(const uint8_t *text, size_t length, size_t from); /* tiktoken's */
size_t text_split_gpt2(const uint8_t *text, size_t length, size_t from);

/* Translates Oniguruma's syntax and Unicode 16 classes to PCRE2's. Caller frees. */
char *text_regex_translate(const char *regex, Error *err);

/* ---- normalizers -------------------------------------------------------- */

typedef struct TextNormalizer TextNormalizer;
struct TextNormalizer {
    void (*run)(const TextNormalizer *part, TextWork *work, TextView in, TextBuffer *out);
    bool clean, chinese, strip_accents, lowercase; /* Bert */
    bool left, right;                              /* Strip */
    bool compatible, compose;                      /* NFC NFD NFKC NFKD */
    char *content;                                 /* Prepend, Replace */
    TextPattern *pattern;                          /* Replace */
    TextCharsmap *charsmap;                        /* Precompiled */
    TextSpmRules *spm;                             /* SentencePiece */
};
typedef struct TextNormalizers {
    TextNormalizer *parts;
    size_t count;
} TextNormalizers;
bool text_normalizers_load(const json_t *json, TextNormalizers *out, Error *err);
/* The result is in one of two buffers of the work, or is `in` itself. */
TextView text_normalize(const TextNormalizers *chain, TextWork *work, TextView in);
void text_normalizers_free(TextNormalizers *chain);
/* Appends a normalizer of SentencePiece's own; rules are owned from here on. */
void text_normalizers_add_spm(TextNormalizers *chain, TextSpmRules *rules);
/* The replacements of a charsmap by grapheme cluster, as the Python package does it. */
void text_normalize_precompiled(const TextCharsmap *map, TextView in, TextBuffer *out);
/* The same by longest match, with SentencePiece's treatment of spaces. */
void text_normalize_spm(const TextSpmRules *rules, TextView in, TextBuffer *out);
/* NFC and its kin, by Unicode 9.0. */
void text_normalize_form(TextView in, bool compatible, bool compose, TextBuffer *out);

/* ---- pre-tokenizers ----------------------------------------------------- */

typedef enum {
    SPLIT_REMOVED,
    SPLIT_ISOLATED,
    SPLIT_CONTIGUOUS,
    SPLIT_MERGED_WITH_PREVIOUS,
    SPLIT_MERGED_WITH_NEXT
} TextSplitBehavior;

typedef struct TextPreTokenizer TextPreTokenizer;
struct TextPreTokenizer {
    /* Cuts `in` and hands each piece to text_work_piece(work, stage + 1, piece). */
    void (*run)(const TextPreTokenizer *part, TextWork *work, size_t stage, TextView in);
    bool add_prefix_space, use_regex, map_bytes;               /* ByteLevel */
    enum { SCHEME_ALWAYS, SCHEME_FIRST, SCHEME_NEVER } scheme; /* Metaspace */
    char *replacement;
    bool split, individual, invert;
    uint32_t delimiter;
    size_t chunk; /* FixedLength */
    TextSplitBehavior behavior;
    TextPattern *pattern;
    TextSplitter splitter;
};
typedef struct TextPreTokenizers {
    TextPreTokenizer *parts;
    size_t count;
    bool ends_in_bytes; /* the last part is ByteLevel */
    bool needs_origins; /* a part asks whether a piece starts the whole text */
} TextPreTokenizers;
/* Appends a Split by one of the known patterns, or by the start of words that
 * begin with U+2581. */
bool text_pre_tokenizers_add_split(TextPreTokenizers *chain, const char *regex, Error *err);
void text_pre_tokenizers_add_spm_words(TextPreTokenizers *chain);
bool text_pre_tokenizers_load(const json_t *json, TextPreTokenizers *out, Error *err);
void text_pre_tokenizers_free(TextPreTokenizers *chain);

/* ---- models ------------------------------------------------------------- */

typedef enum {
    MODEL_BPE,
    MODEL_WORDPIECE,
    MODEL_WORDLEVEL,
    MODEL_UNIGRAM,
    MODEL_TEXT_BPE /* pairs merge when their joined text is a token: tiktoken, SentencePiece */
} TextModelKind;

/* Types of SentencePiece's pieces. */
enum {
    PIECE_NORMAL = 1,
    PIECE_UNKNOWN = 2,
    PIECE_CONTROL = 3,
    PIECE_USER = 4,
    PIECE_UNUSED = 5,
    PIECE_BYTE = 6
};

/* A merge; its index in the list is its rank. */
typedef struct TextPair {
    int32_t left, right, product;
} TextPair;

typedef struct TextModel {
    TextModelKind kind;
    TextVocab vocab;
    char *unk_token;
    int32_t unk_id;        /* -1 when not in the vocabulary */
    char *prefix, *suffix; /* NULL when absent */
    size_t max_chars;      /* WordPiece */
    bool fuse_unk, byte_fallback, ignore_merges;
    bool all_fallback_bytes; /* every <0xHH> is in the vocabulary */
    int32_t fallback_ids[256];
    bool raw_bytes; /* pieces come as bytes; byte_ids stand for GPT-2's alphabet */
    int32_t byte_ids[256];
    TextPair *pairs; /* by rank */
    size_t pair_count, pair_capacity;
    uint32_t *pair_slots; /* open addressing: 8 bits of the hash << 24 | index + 1, or 0 */
    size_t pair_slot_count;
    int32_t last_product; /* while merges are read */
    TextVocab continuing; /* WordPiece: texts without their prefix */
    /* Unigram, and SentencePiece's BPE */
    double *scores;    /* [vocab.size] */
    size_t score_room; /* capacity of scores */
    uint8_t *types;    /* [vocab.size] PIECE_..., NULL for a tokenizer.json */
    uint8_t *matched;  /* [vocab.size] pieces that text may match; NULL: all */
    double unk_score;
    TextPrefixes prefixes; /* Unigram: all that may match; BPE: user-defined symbols */
    /* BPE by texts */
    TextVocab texts; /* what may come out of a merge, as the pieces spell it */
    uint32_t *ranks; /* [vocab.size] lower merges first */
} TextModel;

/* The members of "model" except vocab and merges. */
bool text_model_load(const json_t *json, TextModel *model, Error *err);
/* Called with the vocabulary complete, then with all merges in order of rank, at
 * most TEXT_BATCH / 2 at once: texts[2 i] and texts[2 i + 1] are one. */
void text_model_start_merges(TextModel *model, size_t expected);
bool text_model_add_merges(TextModel *model, const TextPiece *texts, size_t count, Error *err);
bool text_model_finish(TextModel *model, Error *err);
void text_model_free(TextModel *model);
/* A Unigram vocabulary: the next id's text and score. */
bool text_model_add_scored(TextModel *model, const char *text, size_t length, double score,
                           Error *err);
void text_model_find_fallback_bytes(TextModel *model);
bool text_unigram_finish(TextModel *model, Error *err);
/* Appends the ids of one piece to the work. False and the work's error on failure. */
bool text_bpe_piece(const TextModel *model, TextWork *work, TextView piece);
#define TEXT_NO_RANK UINT32_MAX
#define TEXT_PAIR_HASH 0x9E3779B97F4A7C15ull
/* The rank of a pair, or TEXT_NO_RANK. Only for a model with pair_count. */
static inline uint32_t text_pair_find(const TextModel *model, int32_t left, int32_t right) {
    uint64_t hash = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * TEXT_PAIR_HASH;
    size_t mask = model->pair_slot_count - 1, slot = (size_t)(hash >> 32) & mask;
    uint32_t tag = (uint32_t)(hash >> 32) & 0xFF000000, found;
    for (; (found = model->pair_slots[slot]) != 0; slot = (slot + 1) & mask) {
        const TextPair *pair = &model->pairs[(found & 0xFFFFFF) - 1];
        if ((found & 0xFF000000) == tag && pair->left == left && pair->right == right)
            return (found & 0xFFFFFF) - 1;
    }
    return TEXT_NO_RANK;
}
/* The parts of text_bpe_piece for MODEL_TEXT_BPE (tokenizer_text_bpe.c): the
 * symbols of a piece, the rank of joining two, and the ids of what came out. */
size_t text_bpe_symbols(const TextModel *model, TextWork *work, TextView piece);
uint32_t text_bpe_join(const TextModel *model, TextWork *work, const char *text, size_t left,
                       size_t right, const uint32_t *ends);
void text_bpe_emit(const TextModel *model, TextWork *work, TextView piece, size_t count);
bool text_wordpiece_piece(const TextModel *model, TextWork *work, TextView piece);
bool text_wordlevel_piece(const TextModel *model, TextWork *work, TextView piece);
bool text_unigram_piece(const TextModel *model, TextWork *work, TextView piece);

/* ---- added tokens ------------------------------------------------------- */

typedef struct TextAdded {
    char *content;
    char *shown; /* what decode prints: content, or its normalized form */
    size_t content_length, shown_length;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
} TextAdded;

/* Finds the leftmost-longest of a set of texts. */
typedef struct TextTrie {
    int32_t root[256]; /* node, or -1 */
    uint64_t *edges;   /* hash of node << 8 | byte -> child */
    int32_t *children;
    size_t edge_slots, node_count, node_capacity;
    int32_t *ends; /* [node] index of the text that ends here, or -1 */
    bool any;
} TextTrie;

typedef struct TextAddedSet {
    TextAdded *tokens;
    size_t count, capacity;
    TextTrie tries[2];    /* not normalized, normalized */
    bool any_plain[2];    /* some token of that trie is not special */
    int32_t *by_id;       /* indices of tokens, sorted by id; made by _finish */
    uint32_t *by_content; /* open addressing: index + 1, or 0 */
    size_t content_slots;
    int32_t next_id; /* one more than the highest id of an added token */
} TextAddedSet;
/* Adds or replaces the token by its content; its id comes from the vocabulary,
 * else it is the next free one. */
void text_added_put(TextAddedSet *set, const TextVocab *vocab, const TextAdded *token);
const TextAdded *text_added_by_content(const TextAddedSet *set, const char *content);
const TextAdded *text_added_by_id(const TextAddedSet *set, int32_t id);
void text_added_finish(TextAddedSet *set, const TextNormalizers *normalizers, TextWork *work);
void text_added_free(TextAddedSet *set);
/* The leftmost-longest text of the trie in text[from, length): its index, or -1. */
int32_t text_trie_find(const TextTrie *trie, const char *text, size_t length, size_t from,
                       size_t *begin, size_t *end);
/* Cuts a view at the added tokens of one set and hands on the parts in order:
 * with a token, or with NULL for text between tokens. */
typedef void (*TextAddedSink)(TextWork *work, const TextAdded *token, TextView part);
void text_added_cut(const TextAddedSet *set, bool normalized, bool parse_special, TextView in,
                    TextAddedSink sink, TextWork *work);

/* ---- post-processor ----------------------------------------------------- */

typedef struct TextTemplateItem {
    int8_t sequence; /* 0, 1, or -1: the ids below */
    int32_t type_id;
    int32_t *ids;
    size_t count;
} TextTemplateItem;
typedef struct TextTemplate {
    TextTemplateItem *items;
    size_t count;
    size_t special; /* ids it adds */
} TextTemplate;
typedef struct TextPost {
    TextTemplate single, pair; /* no items: the sequences one after another */
} TextPost;
bool text_post_load(const json_t *json, TextPost *post, Error *err);
/* before A after, and before A after before B after; an id of -1 is left out. */
void text_post_wrap(TextPost *post, int32_t before, int32_t after);
void text_post_free(TextPost *post);

/* ---- decoders ----------------------------------------------------------- */

typedef enum {
    DECODE_BYTE_LEVEL,
    DECODE_BYTE_FALLBACK,
    DECODE_FUSE,
    DECODE_REPLACE,
    DECODE_STRIP,
    DECODE_METASPACE,
    DECODE_WORDPIECE,
    DECODE_BPE,
    DECODE_CTC,
    DECODE_SENTENCEPIECE /* alone in its chain: it needs the types of the pieces */
} TextDecoderKind;
typedef struct TextDecoder {
    TextDecoderKind kind;
    char *content,
        *other;           /* Replace: content; Strip, Metaspace, WordPiece, BPE: what to look for */
    TextPattern *pattern; /* Replace */
    size_t start, stop;   /* Strip */
    bool cleanup, keep_first_space;
} TextDecoder;
typedef struct TextDecoders {
    TextDecoder *parts;
    size_t count;
    bool none; /* no decoder: tokens joined with a space */
} TextDecoders;
bool text_decoders_load(const json_t *json, TextDecoders *out, Error *err);
/* An empty chain with one decoder, which the caller may fill. */
TextDecoder *text_decoders_add(TextDecoders *chain, TextDecoderKind kind);
void text_decoders_free(TextDecoders *chain);

/* ---- the whole ---------------------------------------------------------- */

typedef struct TextCacheSlot { /* 64 bytes */
    uint32_t tag;
    uint8_t length, count; /* length 0: empty */
    char key[TEXT_CACHED_KEY];
    int32_t ids[TEXT_CACHED_IDS];
} TextCacheSlot;

struct TextTokenizer {
    TextModel model;
    TextNormalizers normalizers;
    TextPreTokenizers pre_tokenizers;
    TextAddedSet added;
    TextPost post;
    TextDecoders decoders;
    int32_t vocab_size;
    struct {
        char *text;
        int32_t id;
    } special[TEXT_SPECIAL_COUNT];
    size_t max_length;
    bool has_truncation, has_padding;
    TextFileTruncation truncation;
    TextFilePadding padding;
    char *pad_token;
    pthread_mutex_t lock; /* guards idle */
    TextWork *idle;
};

/* The best way to cut the text up to a position (tokenizer_unigram.c). */
typedef struct TextPath {
    double score;
    uint32_t start, next; /* where the last token starts; where the one from here ends */
    int32_t id;
} TextPath;

/* What one encode call writes. */
struct TextWork {
    TextWork *next;
    const TextTokenizer *tokenizer;
    bool want_spans, parse_special, failed;
    bool track; /* buffers keep origins */
    Error *err;
    TextIds *ids;
    TextSpan *spans; /* [ids->length], when wanted */
    size_t span_capacity;
    size_t emitted; /* spans used */
    TextBuffer valid, normal[2], stages[TEXT_MAX_STAGES];
    TextCacheSlot *cache; /* TEXT_CACHE_SLOTS, made on first use */
    struct TextSymbols {
        int32_t *ids;
        uint32_t *begin, *next, *previous, *rank;
        int32_t *product; /* of a symbol with its right neighbour */
        size_t capacity;
        uint64_t *heap;
        size_t heap_capacity;
    } symbols;
    TextPath *paths; /* Unigram, by position */
    size_t path_capacity;
    struct TextUnusedCut { /* how an unused piece was last put together */
        int32_t id;
        uint32_t left_length;
    } * unused_cuts;
    size_t unused_count, unused_capacity;
    struct TextJoin { /* what two tokens make: -1 nothing; left is an id + 1 */
        int32_t left, right, product;
    } * joins; /* TEXT_JOIN_SLOTS of them, of MODEL_TEXT_BPE, made on first use */
    StrBuf scratch;
    void *match_data; /* PCRE2's, made on first use */
};

/* Hands a piece to the pre-tokenizer `stage`, or to the model after the last. */
void text_work_piece(TextWork *work, size_t stage, TextView piece);
/* Appends one id that stands for bytes [begin, end) of the piece. */
void text_work_emit(TextWork *work, int32_t id, TextView piece, size_t begin, size_t end);
TextWork *text_work_take(const TextTokenizer *tokenizer);
void text_work_give(const TextTokenizer *tokenizer, TextWork *work);
void text_work_free(TextWork *work);

/* Reads a tokenizer.json, fast (bytes) or from a tree. */
bool text_tokenizer_load_bytes(TextTokenizer *tokenizer, const char *json, size_t length,
                               const char *name, Error *err);
bool text_tokenizer_load_tree(TextTokenizer *tokenizer, const json_t *json, Error *err);
/* Reads a SentencePiece model; *names gets {"bos_token": ...} and so on, a new
 * reference. config may be NULL; it says which ids stand around a text. */
bool text_spm_load(TextTokenizer *tokenizer, const void *bytes, size_t length, const json_t *config,
                   json_t **names, Error *err);
/* Tokens that are bytes in order of merging, as tiktoken and tekken list them.
 * Start with {.model = ...}. */
typedef struct TextByteTokens {
    TextModel *model;
    StrBuf bytes, shown; /* of tokens not yet in the model, and the same in GPT-2's alphabet */
    size_t ends[TEXT_BATCH], shown_ends[TEXT_BATCH];
    int64_t ids[TEXT_BATCH];
    size_t count;
} TextByteTokens;
/* False and *err for what is no base64, empty or there already. */
bool text_byte_tokens_add(TextByteTokens *tokens, const char *base64, size_t length, int64_t id,
                          Error *err);
/* Adds what waits, and frees; ok as given, unless that fails. */
bool text_byte_tokens_end(TextByteTokens *tokens, bool ok, Error *err);
/* All tokens are there: makes the tokenizer, whose text is cut by the pattern. */
bool text_byte_tokens_finish(TextTokenizer *tokenizer, const char *pattern, Error *err);
void text_byte_tokens_special(TextTokenizer *tokenizer, const char *text, int32_t id);
/* Reads a tiktoken rank file of this name, or Mistral's tekken.json. */
bool text_tiktoken_load(TextTokenizer *tokenizer, const char *bytes, size_t length,
                        const char *name, const json_t *config, json_t **names, Error *err);
bool text_tekken_load(TextTokenizer *tokenizer, const char *bytes, size_t length, json_t **names,
                      Error *err);
bool text_is_tiktoken(const void *bytes, size_t length);
/* Reads vocab.txt, or vocab.json with its merges.txt. config: tokenizer_config.json, its
 * special tokens completed by special_tokens_map.json. */
bool text_vocab_lines_load(TextTokenizer *tokenizer, const char *bytes, size_t length,
                           const json_t *config, json_t **names, Error *err);
bool text_vocab_merges_load(TextTokenizer *tokenizer, const MappedFile *vocab_file,
                            const MappedFile *merges_file, const json_t *config, json_t **names,
                            Error *err);

#endif
