/* rag: answers from a person's own documents.
 *
 * documents -> blocks -> chunks -> one index file -> retrieval -> answer with
 * citations. A typical program:
 *
 *     RagEmbedder embedder;  RagGenerator generator;
 *     rag_embedder_open("models/minilm", &embedder, &err);
 *     RagIndex *index = rag_index_open("docs.db", RAG_CREATE, &embedder, &err);
 *     rag_ingest(index, &embedder, paths, n_paths, &(RagIngestOptions){0}, &report, &err);
 *
 *     RagSearch hits;
 *     rag_search(index, &embedder, "who signs a release?", &(RagSearchOptions){0}, &hits, &err);
 *
 *     rag_generator_open("models/smollm2", &generator, &err);
 *     rag_answer(&hits, &embedder, &generator, &(RagAnswerOptions){0}, &answer, &err);
 *
 * Models are reached through two small tables of functions, so any program
 * (and every test) can bring its own. Text that leaves this room for display
 * is valid UTF-8 without control characters other than newline and tab,
 * without bidirectional overrides and without invisible characters. */
#ifndef RAG_RAG_H
#define RAG_RAG_H

#include "base/base.h"

/* ---- models as seen from here ------------------------------------------- */

typedef enum { RAG_QUERY, RAG_PASSAGE } RagTextRole; /* some models prefix the two differently */

/* Turns text into unit vectors. Strings are owned by whoever filled the table
 * and live as long as it does. A vector of another (name, hash, dim, pooling)
 * is not comparable, so an index remembers the four. */
typedef struct RagEmbedder {
    void *context;
    const char *name;    /* for people: "all-MiniLM-L6-v2" */
    const char *hash;    /* of the weights, hexadecimal */
    const char *pooling; /* "mean", "cls", "last", ... with prefixes if any */
    size_t dim;          /* numbers in a vector, 1..8192 */
    size_t max_tokens;   /* of one input, special tokens included */
    size_t n_special;    /* special and prefix tokens that every passage gets */
    /* Cosines below this say "unrelated" for this model; 0 takes the default,
     * which was calibrated for all-MiniLM-L6-v2. */
    float relevance_threshold;
    /* out [count, dim]. Longer texts than max_tokens are cut. */
    bool (*embed)(void *context, const char *const *texts, size_t count, RagTextRole role,
                  float *out, Error *err);
    /* Where each token of text[0..length) ends, special tokens left out: byte
     * offsets, never descending, at most `length` of them. Caller frees *ends. Called by
     * several threads at once. */
    bool (*token_ends)(void *context, const char *text, size_t length, size_t **ends, size_t *count,
                       Error *err);
    void (*close)(void *context); /* may be NULL */
} RagEmbedder;

/* Called with the next piece of text; returning false stops the generation. */
typedef bool (*RagOnText)(void *context, const char *text, size_t length);

typedef struct RagGeneration {
    size_t prompt_tokens, generated_tokens;
    double prompt_seconds, generation_seconds;
} RagGeneration;

/* A language model. `encode` with specials false must turn the text of any
 * special token ("<|im_end|>") into ordinary tokens. */
typedef struct RagGenerator {
    void *context;
    const char *name;
    size_t context_tokens; /* prompt and answer together */
    size_t n_parameters;   /* 0 when unknown; chooses the form of the prompt */
    /* The chat template around one system and one user message, up to where
     * the assistant begins; caller frees. A model without a template returns
     * the two texts joined by an empty line. */
    char *(*render)(void *context, const char *system, const char *user, Error *err);
    /* Tokens of text[0..length); caller frees *ids. No BOS is added unless
     * `specials` asks for the specials in the text. */
    bool (*encode)(void *context, const char *text, size_t length, bool specials, int32_t **ids,
                   size_t *count, Error *err);
    bool (*generate)(void *context, const int32_t *ids, size_t count, size_t max_tokens,
                     RagOnText on_text, void *on_text_context, RagGeneration *statistics,
                     Error *err);
    void (*close)(void *context); /* may be NULL */
} RagGenerator;

/* A model that reads query and text together; a greater score fits better. */
typedef struct RagReranker {
    void *context;
    const char *name;
    bool (*score)(void *context, const char *query, const char *const *texts, size_t count,
                  float *scores, Error *err);
    void (*close)(void *context); /* may be NULL */
} RagReranker;

/* Model folders opened through lm/. Close frees what open allocated. */
bool rag_embedder_open(const char *folder, RagEmbedder *embedder, Error *err);
void rag_embedder_close(RagEmbedder *embedder);
bool rag_generator_open(const char *folder, RagGenerator *generator, Error *err);
void rag_generator_close(RagGenerator *generator);
/* A cross-encoder, a language model that judges, or an embedder: then a passage is
 * judged by its best sentence. */
bool rag_reranker_open(const char *folder, RagReranker *reranker, Error *err);
void rag_reranker_close(RagReranker *reranker);

/* ---- the index file ------------------------------------------------------ */

typedef struct RagIndex RagIndex;

typedef enum {
    RAG_READ,  /* must exist; never written */
    RAG_WRITE, /* must exist */
    RAG_CREATE /* made when missing */
} RagOpenMode;

typedef struct RagIndexInfo {
    size_t n_documents, n_chunks, dim;
    char embedder_name[128], embedder_hash[72], pooling[128];
    uint64_t file_bytes;
} RagIndexInfo;

/* NULL and one clear line on failure: not our file, corrupt, another schema
 * version, another embedder, missing, read-only folder. A failure leaves the
 * file as it was. embedder may be NULL with RAG_READ (no dense search then). */
RagIndex *rag_index_open(const char *path, RagOpenMode mode, const RagEmbedder *embedder,
                         Error *err);
void rag_index_close(RagIndex *index); /* NULL ok */
bool rag_index_info(RagIndex *index, RagIndexInfo *info, Error *err);
/* Text, words and vectors agree with each other; slow, for tests and repair. */
bool rag_index_check(RagIndex *index, Error *err);

/* ---- other programs' files -------------------------------------------------- */

/* The whole index as .npz in mlx-RAG's layout, .safetensors or .jsonl, by the
 * suffix; the first two with <path>.meta.json beside them. */
bool rag_index_export(RagIndex *index, const char *path, size_t *chunks, Error *err);

typedef struct RagImportReport {
    size_t documents, chunks, dim;
} RagImportReport;

/* Such a file into an index, which is made when missing. embedder is the model
 * that made its vectors; NULL when only the file may say so (an index of an
 * unnamed model answers by words alone). embed: computes the vectors anew,
 * needs embedder. The file is checked whole before anything is written. */
bool rag_index_import(const char *path, const char *index_path, const RagEmbedder *embedder,
                      bool embed, RagImportReport *report, Error *err);
/* All documents of `from` into `into`, of the same embedder; a document that
 * both have is taken from `from`. *documents grows by their number. */
bool rag_index_merge(RagIndex *into, RagIndex *from, size_t *documents, Error *err);

/* ---- ingest -------------------------------------------------------------- */

typedef enum {
    RAG_ADDED,
    RAG_CHANGED,
    RAG_UNCHANGED,
    RAG_REMOVED,
    RAG_SKIPPED,
    RAG_FAILED
} RagFileStatus;

/* One file of an ingest; the strings are borrowed for the call. */
typedef struct RagFileEvent {
    const char *path;
    RagFileStatus status;
    const char *reason; /* why skipped or failed, or a warning; "" otherwise */
    size_t n_chunks, files_done, files_total;
} RagFileEvent;

typedef struct RagIngestOptions {
    size_t chunk_tokens; /* target size of a chunk in the embedder's tokens; 0: 224 */
    bool force;          /* read and embed again what did not change */
    void (*on_file)(void *context, const RagFileEvent *event); /* may be NULL */
    void *on_file_context;
    /* While embedding: chunks embedded so far in this run. May be NULL. */
    void (*on_chunks)(void *context, size_t chunks_embedded);
    void *on_chunks_context;
} RagIngestOptions;

typedef struct RagFileNote {
    char *path, *reason;
    RagFileStatus status;
} RagFileNote;

typedef struct RagIngestReport {
    size_t added, changed, unchanged, removed, skipped, failed; /* files */
    size_t chunks_embedded, chunks_removed;
    size_t chunks_split_hard; /* chunks cut inside a word to respect the embedder's limit */
    uint64_t bytes_read, text_bytes;
    double read_seconds, chunk_seconds; /* of all threads together */
    double embed_seconds, store_seconds, total_seconds;
    RagFileNote *notes; /* one for each file skipped, failed or read with a warning */
    size_t n_notes;
} RagIngestReport;

/* Files and folders, recursively. Fails only when nothing can go on (a path
 * that does not exist, the index cannot be written, an interrupt); a file that
 * cannot be read becomes a note. Every document is one transaction: after a
 * crash the next run goes on where this one stopped. *report is filled either
 * way; free it with rag_ingest_report_free. */
bool rag_ingest(RagIndex *index, const RagEmbedder *embedder, const char *const *paths,
                size_t n_paths, const RagIngestOptions *options, RagIngestReport *report,
                Error *err);
void rag_ingest_report_free(RagIngestReport *report);

/* ---- search -------------------------------------------------------------- */

typedef enum { RAG_HYBRID, RAG_DENSE, RAG_LEXICAL } RagSearchMode;

typedef struct RagSearchOptions {
    size_t top_k; /* 0: 5 */
    RagSearchMode mode;
    size_t candidates;                  /* taken from each list before fusion; 0: 100 */
    float dense_weight, lexical_weight; /* of reciprocal rank fusion; 0: 1 */
    float rank_constant;                /* of the fusion: weight / (constant + rank); 0: 60 */
    const char *path_prefix;            /* only documents whose path starts with it; NULL: all */
    /* A glob over whole paths, '*' also over '/'; one without a leading '/' or '*'
     * fits after any '/'. NULL: all. */
    const char *path_glob;
    const char *formats;         /* names with commas between: "pdf,html"; NULL: all */
    int64_t since_ns, until_ns;  /* files changed in [since, until), Unix time; 0: open */
    const RagReranker *reranker; /* orders the best of the fusion anew; NULL: none */
    size_t rerank_candidates;    /* so many of them; 0: 20 */
    /* Maximal marginal relevance (Carbonell and Goldstein, 1998): how much of a hit's
     * worth is relevance, the rest is how unlike the ones above it is; 0 or 1: off. */
    float diversity_lambda;
    /* Each passage grows to the section it stands in, up to so many bytes; passages of
     * one section become one. 0: off. */
    size_t section_bytes;
    const char *reworded;      /* the question in other words, searched beside it; NULL: none */
    float relevance_threshold; /* cosine; 0: the embedder's */
} RagSearchOptions;

typedef struct RagHit {
    int64_t chunk;                   /* id in the index */
    char *document;                  /* path as stored: absolute */
    char *title, *heading;           /* heading: "h1 > h2", "" when none */
    char *text;                      /* the whole chunk, or of its section what was asked for */
    size_t n_chunks;                 /* that the text spans, 1 unless it grew */
    char *snippet;                   /* one line of at most 240 bytes around the query's words */
    const char *format;              /* "pdf", "code", ...; static */
    int page;                        /* from 1; 0 when the document has no pages; of code: line */
    size_t start, end;               /* bytes of the document's stored text */
    double score;                    /* of the fusion: for order only, never for relevance */
    double cosine;                   /* -1..1; -2 when dense search did not run */
    double bm25;                     /* positive, greater is better; 0 when no word matched */
    size_t dense_rank, lexical_rank; /* from 1; 0 when not in that list */
    bool reranked;
    double rerank_score; /* the reranker's raw score */
} RagHit;

typedef struct RagSearch {
    char *query, *reworded; /* "" when it was not searched for in other words */
    RagHit *hits;
    size_t n_hits;
    bool relevant;       /* whether the documents say anything about the query */
    double best_cosine;  /* over all chunks; -2 when dense search did not run */
    double best_overlap; /* largest idf-weighted share of the query's words in one hit, 0..1 */
    double threshold;    /* that best_cosine was held against */
    size_t n_chunks;     /* searched */
    size_t n_repeated;   /* hits left out: what they say stands in a better one */
    double embed_seconds, dense_seconds, lexical_seconds, rerank_seconds, total_seconds;
} RagSearch;

/* "2024-05-31" as the beginning of that day here, in nanoseconds of Unix time. */
bool rag_date_parse(const char *text, int64_t *ns, Error *err);

/* Any text is a valid query. Equal scores are ordered by chunk id. Free the
 * result with rag_search_free, also after a failure. */
bool rag_search(RagIndex *index, const RagEmbedder *embedder, const char *query,
                const RagSearchOptions *options, RagSearch *result, Error *err);
void rag_search_free(RagSearch *result);
json_t *rag_search_json(const RagSearch *result); /* caller json_decref's */

/* What was said before in a conversation. */
typedef struct RagTurn {
    const char *question, *answer;
} RagTurn;

/* The question in the model's words: as something to search for, or, where something
 * was said before, so that it can be understood alone. NULL with a clean *err when the
 * model said nothing of use. Caller frees. */
char *rag_reword(const RagGenerator *generator, const char *question, const RagTurn *turns,
                 size_t n_turns, Error *err);

/* ---- answer -------------------------------------------------------------- */

#define RAG_REFUSAL "not in the documents"
#define RAG_MARK "[unsupported]"

typedef enum {
    RAG_ANSWER_GENERATED,  /* the model's words, every sentence checked */
    RAG_ANSWER_EXTRACTIVE, /* nothing of the model's words was supported: quotes instead */
    RAG_ANSWER_REFUSED     /* RAG_REFUSAL: nothing relevant was found */
} RagAnswerKind;

typedef enum { RAG_UNSUPPORTED, RAG_WEAK, RAG_SUPPORTED } RagSupport;

typedef struct RagSentence {
    size_t start, end; /* bytes of RagAnswer.text, mark excluded */
    size_t source;     /* index into sources + 1; 0 when none supports it */
    RagSupport support;
    double overlap; /* share of its content words found in the source */
    double cosine;  /* to the best sentence of the source; -2 without an embedder */
} RagSentence;

typedef struct RagSource {
    size_t number;     /* as cited: 1..n */
    const RagHit *hit; /* borrowed from the RagSearch */
    bool cited;        /* by at least one sentence */
    char *quote;       /* the sentence that speaks to the question best */
} RagSource;

typedef struct RagAnswerOptions {
    size_t max_tokens;     /* of the answer; 0: 160 */
    size_t max_passages;   /* 0: by the size of the model, 3 under a billion parameters */
    bool mark_unsupported; /* keep sentences that no passage supports, with RAG_MARK behind */
    /* Words as the model says them, before they are checked; may be NULL. The
     * text is already safe to show. */
    RagOnText on_text;
    void *on_text_context;
} RagAnswerOptions;

typedef struct RagAnswer {
    RagAnswerKind kind;
    char *text;  /* with [n] after each supported sentence, RAG_MARK after another */
    char *draft; /* what the model said, before checking; "" when it was not asked */
    RagSentence *sentences;
    size_t n_sentences;
    RagSource *sources; /* the passages given to the model, or the nearest ones on refusal */
    size_t n_sources;
    size_t invalid_citations; /* numbers outside 1..n that were removed */
    size_t n_unsupported;     /* sentences of the draft that no passage supports */
    RagGeneration generation;
    double total_seconds;
} RagAnswer;

/* `search` must outlive the answer. embedder may be NULL: support is then
 * judged by words alone. generator may be NULL: the answer is extractive. */
bool rag_answer(const RagSearch *search, const RagEmbedder *embedder, const RagGenerator *generator,
                const RagAnswerOptions *options, RagAnswer *answer, Error *err);
void rag_answer_free(RagAnswer *answer);
/* Sources and search included. Caller json_decref's. */
json_t *rag_answer_json(const RagSearch *search, const RagAnswer *answer);

#endif
