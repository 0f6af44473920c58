/* data: samples from files to batches, without Python (the library libmlxdata).
 *
 * A sample is a small set of named arrays. A buffer gives samples by index, a
 * stream gives one after another. Sources make them, operators take one and
 * give another; every operator constructor consumes what it is given, returns
 * NULL for a NULL, and keeps the first error, so a chain needs one check:
 *
 *     Error err = {0};
 *     DxBuffer *rows = dx_jsonl(&(DxJsonlOptions){.path = "train.jsonl"}, &err);
 *     DxStream *s = dx_buffer_stream(dx_buffer_shuffle(rows, 7, &err), &err);
 *     s = dx_map(s, &tokenise, tokenizer, &err);
 *     s = dx_parallel(s, &(DxParallelOptions){.threads = 4}, &err);
 *     s = dx_batch(s, &(DxBatchOptions){.size = 32}, &err);
 *     DxSample *batch;
 *     DxStatus status;
 *     while ((status = dx_next(s, &batch, &err)) == DX_OK) { ...; dx_sample_free(batch); }
 *     dx_stream_free(s);
 *
 * What comes out never depends on the number of threads. All randomness comes
 * from (seed, epoch, operator, record). dx_save stores where a stream stands in
 * a few bytes, dx_load goes on from there. A failure names the operator, the
 * record and the file it came from, and the stream stays usable. */
#ifndef DATA_DATA_H
#define DATA_DATA_H

#include "base/base.h"

/* ---- arrays ---------------------------------------------------------------- */

typedef enum {
    DX_TEXT, /* UTF-8, a byte an element */
    DX_U8,   /* also plain bytes */
    DX_I8,
    DX_U16,
    DX_I16,
    DX_U32,
    DX_I32,
    DX_U64,
    DX_I64,
    DX_F16,
    DX_BF16,
    DX_F32,
    DX_F64,
    DX_BOOL,
    DX_ANY_TYPE /* only where a type is asked for */
} DxType;
size_t dx_type_size(DxType type);      /* bytes of an element */
const char *dx_type_name(DxType type); /* "text", "uint8", "float32", ... */

enum { DX_MAX_RANK = 6 };

/* Dense, row-major, counted by reference. Whoever holds one may read its
 * fields; the data of a shared array is never written (dx_array_write). */
typedef struct DxArray {
    _Atomic uint32_t references;
    DxType type;
    int rank; /* 0: a scalar */
    int64_t shape[DX_MAX_RANK];
    size_t count, bytes; /* elements, and their bytes */
    void *data;
    void (*release)(void *context); /* of wrapped memory */
    void *context;
} DxArray;

/* Uninitialised. NULL and *err for a bad rank, a negative size, and what memory
 * cannot hold. Caller releases. */
DxArray *dx_array_new(DxType type, int rank, const int64_t *shape, Error *err);
/* The same with a copy of `data`. */
DxArray *dx_array_copy(DxType type, int rank, const int64_t *shape, const void *data, Error *err);
/* Rank 1: text, and bytes, copied. */
DxArray *dx_array_text(const char *text, size_t length, Error *err);
DxArray *dx_array_bytes(const void *bytes, size_t length, Error *err);
DxArray *dx_array_ids(const int32_t *ids, size_t count, Error *err);
/* Scalars: DX_I64 and DX_F64. Never NULL. */
DxArray *dx_array_int(int64_t value);
DxArray *dx_array_real(double value);
/* `count` times the same number. */
DxArray *dx_array_filled(DxType type, size_t count, double value, Error *err);
/* The same into an array that nobody else holds. */
void dx_array_fill(DxArray *array, double value);
/* Memory of the caller's, read only; release(context) runs when the last holder lets go. */
DxArray *dx_array_wrap(DxType type, int rank, const int64_t *shape, const void *data,
                       void (*release)(void *context), void *context, Error *err);
DxArray *dx_array_retain(DxArray *array);
void dx_array_release(DxArray *array); /* NULL ok */
/* The data to write into; replaces *array by a copy of its own when it is shared
 * or wrapped. NULL and *err when memory does not suffice. */
void *dx_array_write(DxArray **array, Error *err);
bool dx_array_equal(const DxArray *a, const DxArray *b); /* type, shape and bytes */
/* "int32[3, 4]", "text[120]", "float64" for a scalar, into text[size]; returns it. */
const char *dx_array_describe(const DxArray *array, char *text, size_t size);
/* A number of any type and any element, as it is; 0 past the end. */
int64_t dx_array_int_at(const DxArray *array, size_t index);
double dx_array_real_at(const DxArray *array, size_t index);

/* ---- samples --------------------------------------------------------------- */

/* A name of a field, kept once for the process. Equal names are equal pointers. */
typedef struct DxKey {
    const char *name;
} DxKey;
DxKey dx_key(const char *name);

/* Where a sample came from. `source` counts the sources of one pipeline, `sub`
 * the parts that an operator made of one record, from 1 (0: the record itself). */
typedef struct DxRecord {
    uint32_t source;
    uint64_t epoch, ordinal, sub;
} DxRecord;

typedef struct DxSample DxSample;
DxSample *dx_sample_new(void);
DxSample *dx_sample_retain(DxSample *sample);
void dx_sample_free(DxSample *sample); /* lets go of it; NULL ok */
/* Takes `value`. Replaces a field of the same key. A shared *sample is first
 * replaced by a copy that shares its arrays. Never fails; a NULL value does nothing. */
void dx_sample_put(DxSample **sample, DxKey key, DxArray *value);
void dx_sample_remove(DxSample **sample, DxKey key);
size_t dx_sample_count(const DxSample *sample);
DxKey dx_sample_key(const DxSample *sample, size_t index);
DxArray *dx_sample_at(const DxSample *sample, size_t index); /* borrowed */
/* Borrowed; NULL when there is no such field. */
DxArray *dx_sample_get(const DxSample *sample, DxKey key);
/* The same, of a type (or DX_ANY_TYPE) and a rank (or -1); otherwise NULL and
 * *err: `key "text": wanted text of rank 1, found int64[3]`. */
DxArray *dx_sample_need(const DxSample *sample, DxKey key, DxType type, int rank, Error *err);
/* The same for text or bytes of rank 1. */
DxArray *dx_sample_need_bytes(const DxSample *sample, DxKey key, Error *err);
const DxRecord *dx_sample_record(const DxSample *sample);
void dx_sample_set_record(DxSample **sample, DxRecord record);
size_t dx_sample_bytes(const DxSample *sample);             /* of its arrays and itself */
bool dx_sample_equal(const DxSample *a, const DxSample *b); /* keys and arrays */

/* ---- what an operator does ---------------------------------------------------- */

typedef enum {
    DX_OK,
    DX_END,  /* nothing more in this pass */
    DX_SKIP, /* of an operator: leave this sample out */
    DX_FAIL  /* *err says why */
} DxStatus;

/* Random numbers of one record at one operator: the same for any number of threads. */
typedef struct DxRandom {
    uint64_t key, counter;
} DxRandom;
uint64_t dx_random(DxRandom *random);
double dx_random_unit(DxRandom *random);                    /* [0, 1) */
uint64_t dx_random_below(DxRandom *random, uint64_t bound); /* [0, bound); bound > 0 */
/* Of any numbers a caller names a draw by. */
DxRandom dx_random_of(uint64_t seed, uint64_t epoch, uint64_t place);
/* A permutation of [0, count) that needs no memory: where `index` goes in an
 * epoch. Keyed by (seed, epoch); count > 0, index < count. */
uint64_t dx_permute(uint64_t seed, uint64_t epoch, uint64_t count, uint64_t index);

/* One sample in, the same or another out. `apply` may replace *sample (freeing
 * it), must not keep it, and is called by several threads at once behind
 * dx_parallel. DX_OK, DX_SKIP or DX_FAIL. */
typedef struct DxOp {
    const char *name;    /* in messages and saved states */
    const char *options; /* what changes its results, for saved states; NULL: nothing */
    uint64_t seed;       /* of `random` */
    DxStatus (*apply)(void *self, DxSample **sample, DxRandom *random, Error *err);
    void (*destroy)(void *self); /* when the node is freed, after its input; may be NULL */
} DxOp;

/* An operator of this library, for a stream or a buffer:
 *     s = dx_step(s, dx_pad_to("ids", 0, 1024, 0, true, &err), &err);
 * One made of wrong arguments is refused by dx_step. */
typedef struct DxStep {
    DxOp op;
    void *self;
} DxStep;
/* Samples for which `test` says yes. */
DxStep dx_filter(const char *name, bool (*test)(void *self, const DxSample *sample), void *self,
                 void (*destroy)(void *self));
/* Samples whose `key` has low to high elements along an axis; high < 0: any number. */
DxStep dx_filter_size(const char *key, int axis, int64_t low, int64_t high, Error *err);
/* Only these fields, which must be there; all but one; one under another name. */
DxStep dx_keep(const char *const *keys, size_t count, Error *err);
DxStep dx_drop(const char *key, Error *err);
DxStep dx_rename(const char *key, const char *to, Error *err);
/* As Python's a[start:end] along an axis; axes and places may count from the end. */
DxStep dx_slice(const char *key, int axis, int64_t start, int64_t end, Error *err);
/* `size` elements from a random place; what is not longer stays as it is. */
DxStep dx_random_slice(const char *key, int axis, int64_t size, uint64_t seed, Error *err);
/* Places before and behind. */
DxStep dx_pad(const char *key, int axis, int64_t left, int64_t right, double value, Error *err);
/* Behind, up to a size; `cut` shortens what is longer. */
DxStep dx_pad_to(const char *key, int axis, int64_t size, double value, bool cut, Error *err);
DxStep dx_pad_to_multiple(const char *key, int axis, int64_t multiple, double value, Error *err);
/* The sizes of `key` as int64, all, or with an axis >= 0 one as a scalar, under another key. */
DxStep dx_shape(const char *key, int axis, const char *to, Error *err);
/* Takes away axes of one element: one axis, or INT_MIN all. */
DxStep dx_squeeze(const char *key, int axis, Error *err);
/* Each of up to `count` occurrences (< 0: all), from the left, in bytes or text. */
DxStep dx_replace(const char *key, const char *old, const char *by, int64_t count, Error *err);
/* The file that `key` names, in `folder` (NULL: where we are), as bytes under `to`. */
DxStep dx_load_file(const char *key, const char *folder, const char *to, Error *err);
/* Bytes as text, without a byte-order mark. What is not UTF-8 is a failure, or with `repair`
 * becomes U+FFFD. */
DxStep dx_decode_text(const char *key, const char *to, bool repair, Error *err);
/* The bytes of an .npy file as its array. Types of NumPy's that a DxType has; "V2" is
 * bfloat16, as MLX saves it. */
DxStep dx_decode_npy(const char *key, const char *to, Error *err);

/* Images are uint8 [height, width, channels], channels 1 (gray), 3 (RGB) or 4 (RGBA);
 * operators take [frames, height, width, channels] too, and what is random is the same
 * for all frames of one sample. */

/* The bytes of a JPEG or PNG file; `channels` 1 or 3, 0: as the file has. An alpha channel
 * is left out, 16 bits become 8. At most 178 million pixels. */
DxStep dx_decode_image(const char *key, const char *to, int channels, Error *err);
/* To a size, by a triangle filter as wide as the reduction (Pillow's BILINEAR). */
DxStep dx_image_resize(const char *key, int64_t width, int64_t height, Error *err);
/* The same so that the smaller side has `size` and the sides their proportion. */
DxStep dx_image_resize_side(const char *key, int64_t size, Error *err);
/* The middle, or a random part; what is smaller is a failure. */
DxStep dx_image_crop(const char *key, int64_t width, int64_t height, Error *err);
DxStep dx_image_random_crop(const char *key, int64_t width, int64_t height, uint64_t seed,
                            Error *err);
/* Left to right, with a chance from 0 to 1. */
DxStep dx_image_flip(const char *key, double chance, uint64_t seed, Error *err);

/* The bytes of a WAV, FLAC or Ogg file as float32 [frames, channels] in [-1, 1], and its
 * frames a second as an int64 scalar under `rate_key` (NULL: not wanted). At most 2^28
 * numbers. */
DxStep dx_decode_audio(const char *key, const char *to, const char *rate_key, Error *err);
typedef enum {
    DX_RESAMPLE_FAST,
    DX_RESAMPLE_MEDIUM,
    DX_RESAMPLE_BEST,
    DX_RESAMPLE_LINEAR
} DxResampling;
/* float32 [frames, channels] from the rate under `rate_key`, which is set, to another. */
DxStep dx_resample(const char *key, const char *rate_key, int64_t rate, DxResampling how,
                   Error *err);

/* ---- words --------------------------------------------------------------------------- */

/* A set of words, bytes of any kind, each with an id. Read by several threads at once. */
typedef struct DxTrie DxTrie;
DxTrie *dx_trie_new(void);
void dx_trie_free(DxTrie *trie); /* lets go of it; NULL ok */
/* The word's id: the given one, or for id < 0 how many words there were, or what it has
 * since it was added before. -1 and *err for no bytes, a word that has another id, an id
 * that is another word's, or past 2^24. Not once a step has been made of it. */
int64_t dx_trie_add(DxTrie *trie, const void *word, size_t length, int64_t id, Error *err);
int64_t dx_trie_find(const DxTrie *trie, const void *word, size_t length); /* its id, or -1 */
size_t dx_trie_count(const DxTrie *trie);
/* Bytes or text as the int32 ids of words, in the way that costs least: the sum of
 * scores[id], n_scores of them, copied (NULL: 1 each, so that fewest words count). Of equal
 * ones the way whose last word is longest. Where nothing fits the sample fails, or with
 * `leave_out` as few bytes as possible are passed over. Retains trie. to: NULL for key. */
DxStep dx_tokenise_trie(const char *key, const char *to, DxTrie *trie, const double *scores,
                        size_t n_scores, bool leave_out, Error *err);
/* Every way to cut a text into words, longer words first, until visit gives false. */
void dx_trie_each(const DxTrie *trie, const void *text, size_t length,
                  bool (*visit)(void *context, const int32_t *ids, size_t count), void *context);

/* ---- duplicates ---------------------------------------------------------------------- */

/* What is compared of a text: its exact words, and the least hashes of its runs of five
 * words (MinHash), whose agreement estimates the Jaccard similarity of two texts. */
enum { DX_SKETCH_HASHES = 128 };
typedef struct DxSketch {
    uint64_t exact[2];
    uint32_t least[DX_SKETCH_HASHES];
} DxSketch;
void dx_sketch(const char *text, size_t length, DxSketch *sketch);
double dx_sketch_similarity(const DxSketch *a, const DxSketch *b); /* 0 to 1 */

typedef struct DxDuplicates DxDuplicates;
/* Texts of at least this similarity are duplicates; 1: those of the same words only. */
DxDuplicates *dx_duplicates_new(double similarity);
/* The number of the text that this one repeats; -1 when it is new, and then it gets the
 * next number, from 0. *exactly (may be NULL): it has the same words. */
int64_t dx_duplicates_add(DxDuplicates *duplicates, const DxSketch *sketch, bool *exactly);
void dx_duplicates_free(DxDuplicates *duplicates); /* NULL ok */

/* ---- buffers: samples by index -------------------------------------------------- */

typedef struct DxBuffer DxBuffer;
DxBuffer *dx_buffer_retain(DxBuffer *buffer); /* for another operator on the same samples */
void dx_buffer_free(DxBuffer *buffer);        /* lets go of it; NULL ok */
int64_t dx_buffer_count(const DxBuffer *buffer);
/* DX_OK and *sample (caller frees), DX_SKIP where an operator leaves it out, or
 * DX_FAIL. By several threads at once. `epoch` matters to shuffled buffers and
 * random operators. */
DxStatus dx_buffer_get(const DxBuffer *buffer, uint64_t epoch, int64_t index, DxSample **sample,
                       Error *err);

/* Sources. */

/* Some lines of JSON: the file is mapped and its lines are indexed, a line is
 * parsed when it is asked for. Blank lines are no records. A file packed with gzip, bzip2,
 * xz or zstd is unpacked into memory. */
typedef struct DxJsonlOptions {
    const char *path;
    /* Fields to take, as paths ("text", "meta.id", "choices.0.text"), at most 64,
     * and their keys (NULL: the paths). A text is DX_TEXT, a whole number DX_I64 (DX_U64,
     * then DX_F64, where it does not fit), another number DX_F64, true and false
     * DX_BOOL, a list of numbers a vector, all else its JSON text. null is absent. Without
     * fields the sample has "json", the line as it stands. */
    const char *const *fields, *const *keys;
    size_t n_fields;
    bool optional;     /* a record may lack fields; otherwise that is a failure */
    const char *index; /* a file that keeps the index between runs; NULL: none */
} DxJsonlOptions;
DxBuffer *dx_jsonl(const DxJsonlOptions *options, Error *err);
/* All files of one split ("train", "validation", "test", or a name of their own) in a
 * folder of a Hugging Face data set, in the order of their names: JSON lines, packed or
 * not. options->path and ->index are not used. */
DxBuffer *dx_jsonl_shards(const char *folder, const char *split, const DxJsonlOptions *options,
                          Error *err);
/* Samples in memory; retains each. */
DxBuffer *dx_samples(DxSample *const *samples, size_t count, Error *err);
/* Files, sorted by path, each once: those named and those in the folders named. A sample
 * has "path", "name" (the path under its folder) and "size" in bytes; names that are not
 * UTF-8 are bytes. dx_load_file takes it from there. */
typedef struct DxFilesOptions {
    const char *const *paths; /* files and folders */
    size_t n_paths;
    bool recursive, hidden; /* go into folders; also names that begin with a dot */
    /* Shell patterns of what a folder gives (none: all) and of what is left out, folders
     * too. One with a slash is for the name under the folder, others for its last part. */
    const char *const *include, *const *exclude;
    size_t n_include, n_exclude;
} DxFilesOptions;
DxBuffer *dx_files(const DxFilesOptions *options, Error *err);
/* Row i of arrays with the same number of rows, as sample i; takes the arrays. */
typedef struct DxColumn {
    const char *key;
    DxArray *array;
} DxColumn;
DxBuffer *dx_rows(const DxColumn *columns, size_t count, Error *err);
/* The rows of an .npy file, which is mapped; of all arrays of an .npz file by their names. */
DxBuffer *dx_npy(const char *path, const char *key, Error *err);
DxBuffer *dx_npz(const char *path, Error *err);
/* Samples made by `get` (as an operator's apply, *sample comes new and empty). */
typedef struct DxCallback {
    const char *name;
    int64_t count;
    DxStatus (*get)(void *self, uint64_t epoch, int64_t index, DxSample **sample, Error *err);
    void (*destroy)(void *self); /* may be NULL */
} DxCallback;
DxBuffer *dx_buffer_callback(const DxCallback *callback, void *self, Error *err);

/* Operators. */

DxBuffer *dx_buffer_map(DxBuffer *buffer, const DxOp *op, void *self, Error *err);
DxBuffer *dx_buffer_step(DxBuffer *buffer, DxStep step, Error *err);
/* Another order in every epoch. */
DxBuffer *dx_buffer_shuffle(DxBuffer *buffer, uint64_t seed, Error *err);
typedef enum {
    DX_UNEVEN, /* 10 over 4: 3, 3, 2, 2 */
    DX_TRIM,   /* 2 each, the rest unused */
    DX_WRAP    /* 3 each, the first ones again */
} DxTail;
/* Every world-th sample from `rank` on. */
DxBuffer *dx_buffer_shard(DxBuffer *buffer, int world, int rank, DxTail tail, Error *err);
/* [start, start + count), cut at the end; count < 0: all that follows. */
DxBuffer *dx_buffer_range(DxBuffer *buffer, int64_t start, int64_t count, Error *err);
/* One after another; consumes all. */
DxBuffer *dx_buffer_append(DxBuffer *const *buffers, size_t count, Error *err);
/* Any selection, repeats allowed; copies the indices. */
DxBuffer *dx_buffer_pick(DxBuffer *buffer, const int64_t *indices, size_t count, Error *err);
/* Appends where a record stands: "train.jsonl: line 17". */
void dx_buffer_where(const DxBuffer *buffer, const DxRecord *record, StrBuf *text);

/* ---- streams: samples one after another ------------------------------------------- */

/* One consumer at a time. */
typedef struct DxStream DxStream;
/* DX_OK and *sample (caller frees); DX_END, until it is rewound; DX_FAIL, after
 * which the next call goes on behind what failed. */
DxStatus dx_next(DxStream *stream, DxSample **sample, Error *err);
/* To the begin of a pass. Where order or draws are random, `epoch` chooses which. */
bool dx_rewind(DxStream *stream, uint64_t epoch, Error *err);
/* From any thread: the call that waits, and all that follow, fail with
 * ERROR_INTERRUPTED. */
void dx_cancel(DxStream *stream);
/* Frees everything above it too; joins threads; cannot fail. NULL ok. */
void dx_stream_free(DxStream *stream);
/* Where a record stands, as far as the source knows. */
void dx_stream_where(const DxStream *stream, const DxRecord *record, StrBuf *text);

/* Where the stream stands, as its consumer has seen it: work ahead of that is
 * forgotten, samples that an operator holds are in it. The bytes do not depend on
 * threads. Fails where a source cannot say where it is. */
bool dx_save(DxStream *stream, StrBuf *state, Error *err);
/* Goes on from there. A state of another pipeline, of files that changed, cut short or
 * damaged is refused, and nothing changes. */
bool dx_load(DxStream *stream, const void *state, size_t length, Error *err);

/* Sources. */

DxStream *dx_buffer_stream(DxBuffer *buffer, Error *err);

/* Lines of a file, which may be packed with gzip, bzip2, xz or zstd. A line ends at a line
 * feed or with the file; empty lines are samples. A line that is too long or no text is a
 * failure in its place. */
typedef struct DxLinesOptions {
    const char *path;
    const char *key; /* NULL: "line" */
    bool bytes;      /* DX_U8, any bytes; otherwise DX_TEXT, which must be UTF-8 */
    bool crlf;       /* a carriage return before the line feed is no part of the line */
    bool skip_empty;
    size_t max_line; /* bytes; 0: 100 MB */
} DxLinesOptions;
DxStream *dx_lines(const DxLinesOptions *options, Error *err);
/* The same of text or bytes that samples hold: each line becomes a sample, which has the
 * other fields too. options->path is not used. */
DxStream *dx_split_lines(DxStream *stream, const char *key, const DxLinesOptions *options,
                         Error *err);

/* Records of comma-separated values (RFC 4180), packed or not. The first one names the
 * keys. Every value is text. A quote inside a field that did not begin with one is an
 * ordinary character, empty lines are no records, a byte-order mark is passed over. A
 * record with another number of fields, or an open quote, is a failure in its place. */
typedef struct DxCsvOptions {
    const char *path;
    char separator, quote; /* 0: a comma, a double quote */
    bool no_quotes;
    bool bytes;                 /* as DxLinesOptions' */
    const char *const *columns; /* the keys, when the first record is data; NULL: it names them */
    size_t n_columns;
    size_t max_record; /* bytes; 0: 100 MB */
} DxCsvOptions;
DxStream *dx_csv(const DxCsvOptions *options, Error *err);
DxStream *dx_split_csv(DxStream *stream, const char *key, const DxCsvOptions *options, Error *err);

/* The regular files in an archive, in its order, as "path" and "bytes": tar (ustar, GNU,
 * PAX; plain or packed) and zip. Links and special files are passed over. Nothing is
 * written anywhere, so a path may be whatever it says. */
typedef struct DxArchiveOptions {
    const char *path;
    bool nested; /* archives inside give their own files, as "inner.tar/name", four deep */
    /* Limits against archives that are made to fill memory; 0: those behind. */
    size_t max_member;  /* bytes of a file; 1 GB */
    size_t max_total;   /* bytes of all; 64 GB */
    size_t max_ratio;   /* of all to the archive, from 64 MB on; 250 */
    size_t max_members; /* 10 million */
} DxArchiveOptions;
DxStream *dx_archive(const DxArchiveOptions *options, Error *err);

typedef struct DxStreamCallback {
    const char *name;
    /* *sample comes new and empty, with its record set. DX_OK, DX_END or DX_FAIL. */
    DxStatus (*next)(void *self, DxSample **sample, Error *err);
    bool (*rewind)(void *self, uint64_t epoch, Error *err); /* NULL: one pass only */
    /* Both or none: without them the stream cannot be saved. */
    void (*save)(void *self, StrBuf *state);
    bool (*load)(void *self, const void *state, size_t length, Error *err);
    void (*destroy)(void *self); /* may be NULL */
} DxStreamCallback;
DxStream *dx_stream_callback(const DxStreamCallback *callback, void *self, Error *err);
/* All that is left of a stream, in memory; consumes it. */
DxBuffer *dx_collect(DxStream *stream, Error *err);

/* Operators. */

DxStream *dx_map(DxStream *stream, const DxOp *op, void *self, Error *err);
DxStream *dx_step(DxStream *stream, DxStep step, Error *err);

/* One sample in, any number out. */
typedef struct DxEmit DxEmit;
void dx_emit(DxEmit *emit, DxSample *sample); /* takes it */
typedef struct DxExpand {
    const char *name, *options; /* as DxOp's */
    uint64_t seed;
    bool keep; /* the parts also get the fields of the whole that they lack */
    DxStatus (*expand)(void *self, const DxSample *sample, DxRandom *random, DxEmit *emit,
                       Error *err);
    void (*destroy)(void *self); /* may be NULL */
} DxExpand;
DxStream *dx_flat_map(DxStream *stream, const DxExpand *expand, void *self, Error *err);

typedef enum {
    DX_ON_ERROR_FAIL, /* the failure comes out in the sample's place */
    DX_ON_ERROR_SKIP, /* it is counted */
    DX_ON_ERROR_CALL  /* it is given to on_error, in order, by the consumer's thread */
} DxOnError;
typedef struct DxParallelOptions {
    int threads;      /* 0: as the machine has */
    int depth;        /* chunks of samples in work or ready; 0: enough for the threads */
    size_t max_bytes; /* of samples in work or ready; 0: 256 MB. One a thread may exceed it */
    DxOnError on_error;
    void (*call)(void *context, const DxRecord *record, const Error *failure);
    void *context;
} DxParallelOptions;
/* Runs the maps and flat maps directly above it on threads. What comes out, and its
 * order, is as without. */
DxStream *dx_parallel(DxStream *stream, const DxParallelOptions *options, Error *err);
uint64_t dx_parallel_skipped(const DxStream *parallel); /* failures not shown to the consumer */

DxStream *dx_take(DxStream *stream, int64_t count, Error *err);
DxStream *dx_skip(DxStream *stream, int64_t count, Error *err);
/* `passes` in all, every one another epoch; 0: for ever. A pass without samples ends it. */
DxStream *dx_repeat(DxStream *stream, int64_t passes, Error *err);
/* Every world-th sample. The others are made all the same: shard a buffer where there is one. */
DxStream *dx_stream_shard(DxStream *stream, int world, int rank, Error *err);
/* Holds `size` samples and gives a random one of them. */
DxStream *dx_window_shuffle(DxStream *stream, size_t size, uint64_t seed, Error *err);
/* From stream i with a chance of weights[i] (NULL: equal), until all have ended, or with
 * `shortest` until the first has. */
typedef struct DxMixOptions {
    const double *weights;
    uint64_t seed;
    bool shortest;
} DxMixOptions;
DxStream *dx_mix(DxStream *const *streams, size_t count, const DxMixOptions *options, Error *err);
/* One after another. */
DxStream *dx_chain(DxStream *const *streams, size_t count, Error *err);

/* What stands in a shorter array's missing places. */
typedef struct DxPad {
    const char *key;
    double value;
} DxPad;
typedef struct DxBatchOptions {
    int64_t size;
    bool drop_last;    /* a batch that is not full */
    const DxPad *pads; /* other keys: 0 */
    size_t n_pads;
    /* Keys whose arrays are joined along an axis that they have; others get a new first
     * axis. */
    const struct DxJoin {
        const char *key;
        int axis;
    } * joins;
    size_t n_joins;
} DxBatchOptions;
/* Samples of the same keys, types and ranks to one; shorter arrays are padded. The
 * samples before and after one that fails stay in the batch. */
DxStream *dx_batch(DxStream *stream, const DxBatchOptions *options, Error *err);
/* The same for samples at hand. NULL on failure. */
DxSample *dx_collate(DxSample *const *samples, size_t count, const DxBatchOptions *options,
                     Error *err);

typedef struct DxDynamicOptions {
    const char *key;            /* whose size counts */
    int64_t window;             /* samples that are looked at together; 0: all of them */
    int64_t min_size, max_size; /* of a padded batch, in elements of `key`; 0: no bound. Without
                                 * max_size a batch closes when it reaches min_size */
    bool drop_outliers;         /* samples that are larger than max_size alone */
    bool shuffle;               /* the batches of a window */
    uint64_t seed;
    DxBatchOptions batch; /* its pads and joins */
} DxDynamicOptions;
/* Samples of similar size together. What is too small for a batch waits for the next
 * window; at the end it comes out, or with min_size is dropped and counted. */
DxStream *dx_dynamic_batch(DxStream *stream, const DxDynamicOptions *options, Error *err);
uint64_t dx_dynamic_dropped(const DxStream *dynamic);

typedef struct DxPackOptions {
    const char *key;   /* vectors that are packed */
    const char *along; /* another key, of vectors of the same length, packed beside; NULL: none */
    int64_t length;    /* of a packed vector */
    int64_t open;      /* vectors under construction; 0: 16 */
    double pad;
    bool split; /* cut what is too long into pieces; otherwise the rest of it is left out */
} DxPackOptions;
/* Several short vectors into one: best fit among the open ones, the fullest leaves when
 * nothing fits. Gives `key` [length], "segments" int32 [length] (1, 2, ...; 0 padding) and
 * "positions" int32 [length] within each segment. */
DxStream *dx_pack(DxStream *stream, const DxPackOptions *options, Error *err);

typedef struct DxWindowOptions {
    const char *key;
    int64_t size, stride;
    int axis;              /* negative: from the end */
    bool short_tails;      /* keep windows that reach past the end, cut */
    const char *index_key; /* int64 number of the window; NULL: none */
} DxWindowOptions;
/* Windows over an array; other fields are shared. An empty array has no windows, one
 * shorter than `size` has one when short_tails. */
DxStream *dx_sliding_window(DxStream *stream, const DxWindowOptions *options, Error *err);

#endif
