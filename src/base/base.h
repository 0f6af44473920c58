/* base: what every room stands on.
 *
 * Errors as values, memory, strings, files that are written whole or not at
 * all, JSON files, logging, progress, time, and one thread pool for the
 * process. Everything here is independent of arrays, models and text.
 *
 * Memory policy: small allocations (base_alloc and friends) never return NULL;
 * if the system is truly out of memory they print one line and end the process
 * with status 1. Sizes that come from a file, an argument or a socket go
 * through base_try_alloc, whose failure is an ordinary error. */
#ifndef BASE_BASE_H
#define BASE_BASE_H

#include <jansson.h>
#include <locale.h>
#ifdef __APPLE__
#include <xlocale.h>
#endif
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#if defined(__GNUC__)
#define BASE_PRINTF(format_index, first_argument) \
    __attribute__((format(printf, format_index, first_argument)))
#else
#define BASE_PRINTF(format_index, first_argument)
#endif

#define BASE_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define BASE_MIN(a, b) ((a) < (b) ? (a) : (b))
#define BASE_MAX(a, b) ((a) > (b) ? (a) : (b))

/* ---- errors ------------------------------------------------------------ */

typedef enum {
    ERROR_NONE = 0,
    ERROR_INPUT,       /* a file or an argument is wrong */
    ERROR_IO,          /* the system refused: missing, read-only, full */
    ERROR_MEMORY,      /* too large for this machine */
    ERROR_UNSUPPORTED, /* well formed, but of a kind this program does not know */
    ERROR_INTERRUPTED, /* the user stopped it */
    ERROR_INTERNAL     /* a broken invariant of ours */
} ErrorCode;

/* A failure as a value. `message` is one line: what failed, where, why.
 * `hint`, when not empty, is one line: what to do about it. */
typedef struct Error {
    ErrorCode code;
    char message[1024];
    char hint[256];
} Error;

/* Fill *err (which may be NULL) and return false, so that a caller can write
 * `return base_fail(err, ERROR_INPUT, "%s: ...", path);`. The first failure
 * stays: a later base_fail on the same Error replaces it only after
 * base_error_clear. */
bool base_fail(Error *err, ErrorCode code, const char *format, ...) BASE_PRINTF(3, 4);
/* As base_fail, with errno's text appended after ": ". */
bool base_fail_errno(Error *err, const char *format, ...) BASE_PRINTF(2, 3);
/* Sets the hint of an Error that already holds a failure. Returns false. */
bool base_hint(Error *err, const char *format, ...) BASE_PRINTF(2, 3);
/* Puts "context: " before the message, e.g. a file's name. Returns false. */
bool base_error_context(Error *err, const char *format, ...) BASE_PRINTF(2, 3);
void base_error_clear(Error *err);

/* ---- memory ------------------------------------------------------------ */

void *base_alloc(size_t bytes);                /* never NULL; caller frees with free */
void *base_calloc(size_t count, size_t bytes); /* zeroed; overflow-checked */
void *base_realloc(void *memory, size_t bytes);
void *base_try_alloc(size_t count, size_t bytes, Error *err); /* NULL and *err on failure */
/* Says that all of this memory will be used, and read in many places at once: where it
 * is large, Linux backs it with large pages. Changes nothing that is stored. */
void base_large_pages(void *memory, size_t bytes);
char *base_strdup(const char *text);
char *base_strndup(const char *text, size_t length);
char *base_format(const char *format, ...) BASE_PRINTF(1, 2); /* caller frees */
/* 1234567 -> "1.2 MB"; one of four buffers a thread. */
const char *base_bytes_text(uint64_t bytes);
/* Grows a dynamic array so that it holds `needed` elements of `bytes` each;
 * *capacity is in elements. Returns the (moved) array. */
void *base_grow(void *array, size_t *capacity, size_t needed, size_t bytes);

/* Many small objects that die together. */
typedef struct Arena Arena;
Arena *base_arena_new(void);
void base_arena_free(Arena *arena);
void *base_arena_alloc(Arena *arena, size_t bytes); /* 16-byte aligned, not zeroed */
char *base_arena_strndup(Arena *arena, const char *text, size_t length);

/* ---- strings ----------------------------------------------------------- */

/* A growing byte string; `data` is NUL-terminated once anything was appended.
 * Start with {0}. */
typedef struct StrBuf {
    char *data;
    size_t length, capacity;
} StrBuf;
void base_str_append(StrBuf *buffer, const char *text);
void base_str_append_n(StrBuf *buffer, const char *bytes, size_t length);
void base_str_append_char(StrBuf *buffer, char character);
void base_str_appendf(StrBuf *buffer, const char *format, ...) BASE_PRINTF(2, 3);
void base_str_append_codepoint(StrBuf *buffer, uint32_t codepoint); /* as UTF-8 */
char *base_str_detach(StrBuf *buffer); /* the text, never NULL; caller frees; buffer is {0} again */
void base_str_free(StrBuf *buffer);

/* Decodes the code point at text[0..length); length > 0. Returns the bytes it
 * took (1-4) and stores it; an invalid sequence gives U+FFFD and the length of
 * its maximal subpart (Unicode 15, 3.9), *valid false when valid is not NULL. */
size_t base_utf8_decode(const char *text, size_t length, uint32_t *codepoint, bool *valid);
size_t base_utf8_encode(uint32_t codepoint, char out[4]); /* bytes written */
bool base_utf8_valid(const char *text, size_t length);
size_t base_utf8_valid_length(const char *text, size_t length); /* of its valid beginning */
/* Between the two this thread's characters are UTF-8, for libraries that ask the locale. */
typedef struct BaseLocale {
    locale_t mine, before;
} BaseLocale;
BaseLocale base_utf8_begin(void);
void base_utf8_end(BaseLocale locale);
bool base_starts_with(const char *text, const char *prefix);
bool base_ends_with(const char *text, const char *suffix);
/* FNV-1a, for hash tables; not for content identity. */
uint64_t base_hash(const void *bytes, size_t length);

/* ---- files ------------------------------------------------------------- */

bool base_is_file(const char *path);
bool base_is_dir(const char *path);
char *base_path_join(const char *folder, const char *name); /* caller frees */
const char *base_path_name(const char *path);               /* last component; borrowed */
char *base_path_parent(const char *path); /* folder of path, "." without one; caller frees */
/* True when what `path`, a file or folder in a model's folder, leads to lies in that folder, or
 * in the blobs of the Hugging Face cache that the folder belongs to; links may go
 * nowhere else. True when there is no such file. */
bool base_path_inside(const char *folder, const char *path, Error *err);
bool base_make_dirs(const char *path, Error *err); /* as mkdir -p */
/* The sorted names (not paths) in a folder, without "." and "..". Caller frees
 * each and the list. */
bool base_list_dir(const char *path, char ***names, size_t *count, Error *err);
/* The whole file; data is NUL-terminated past its length; caller frees. */
bool base_file_read(const char *path, char **data, size_t *length, Error *err);

/* A file mapped read-only. An empty file maps to length 0 and a non-NULL data. */
typedef struct MappedFile {
    const uint8_t *data;
    size_t length;
} MappedFile;
bool base_map_open(const char *path, MappedFile *map, Error *err);
void base_map_close(MappedFile *map);
/* Part of a mapped file will not be read for a while: the pages that lie in it leave
 * this process's memory, and come back when they are read after all. */
void base_map_forget(const void *data, size_t length);

/* A file that appears whole or not at all: written under a temporary name in
 * the same folder, then fsync, rename, fsync of the folder. */
typedef struct AtomicFile AtomicFile;
AtomicFile *base_atomic_open(const char *path, Error *err); /* NULL on failure */
bool base_atomic_write(AtomicFile *file, const void *bytes, size_t length, Error *err);
/* At a place of its own, in any order; holes read as zeros. */
bool base_atomic_write_at(AtomicFile *file, uint64_t offset, const void *bytes, size_t length,
                          Error *err);
bool base_atomic_commit(AtomicFile *file, Error *err); /* frees the file either way */
void base_atomic_abort(AtomicFile *file); /* frees it, removes the temporary; NULL ok */
bool base_file_write(const char *path, const void *bytes, size_t length, Error *err); /* atomic */

/* The same for a folder: fill base_folder_path(), then commit; until then the
 * final name does not exist. Fails if the final name exists already. */
typedef struct AtomicFolder AtomicFolder;
AtomicFolder *base_folder_open(const char *path, Error *err);
const char *base_folder_path(const AtomicFolder *folder);  /* borrowed */
bool base_folder_commit(AtomicFolder *folder, Error *err); /* frees it either way */
void base_folder_abort(AtomicFolder *folder);              /* removes all; NULL ok */

/* ---- JSON files (trees are jansson's) ---------------------------------- */

/* The message names path, line and column. Caller json_decref's. */
json_t *base_json_load(const char *path, Error *err);
json_t *base_json_parse(const char *text, size_t length, const char *name, Error *err);
/* Sorted keys and 4 spaces of indent, as mlx-lm writes its files; reals with 15
 * digits, so that 1e-05 stays so; atomic. */
bool base_json_save(const char *path, const json_t *value, Error *err);
/* A float as the shortest number that is it: 1e-05 for 9.99999975e-06; NULL unless
 * finite. */
json_t *base_json_float(double value);
/* As Python's json.dump(value, indent=4) writes it, byte for byte, keys in their
 * order. Caller frees the text; the file is atomic. */
char *base_json_text(const json_t *value);
bool base_json_save_ordered(const char *path, const json_t *value, Error *err);

/* ---- talking to the person --------------------------------------------- */

typedef enum { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG } LogLevel;
void base_log_level(LogLevel level); /* default LOG_WARNING; output is stderr */
void base_log(LogLevel level, const char *format, ...) BASE_PRINTF(2, 3);

/* Long work on stderr: a redrawn line with rate and remaining time on a
 * terminal, a plain line every few seconds in a pipe, a JSON object a line
 * when json is set, nothing when quiet. total 0 means unknown. The unit "B" is
 * shown as MB, GB. `skipped` of what is done was there before and says nothing
 * about the rate. */
typedef struct Progress {
    const char *title, *unit; /* borrowed for the life of the Progress */
    double total, done, skipped, started, last_shown;
    bool json, quiet, terminal, shown;
} Progress;
Progress base_progress_start(const char *title, const char *unit, double total);
void base_progress_update(Progress *progress, double done);
void base_progress_end(Progress *progress);
/* Takes the redrawn line off the terminal, so that something else can be written there;
 * the next update brings it back. */
void base_progress_clear(Progress *progress);

/* Ctrl-C: the first SIGINT or SIGTERM sets a flag that long loops ask for, a
 * second one ends the process. */
void base_interrupt_install(void);
bool base_interrupted(void);

/* ---- random numbers of other programs ------------------------------------ */

/* MT19937, which is behind NumPy's np.random and Python's random: a seed chooses
 * the same samples here. Not for secrets. */
enum { BASE_MERSENNE_WORDS = 624 };
typedef struct MersenneTwister {
    uint32_t words[BASE_MERSENNE_WORDS];
    int used;
} MersenneTwister;
void base_mersenne_numpy(MersenneTwister *twister, uint32_t seed);  /* np.random.seed(seed) */
void base_mersenne_python(MersenneTwister *twister, uint64_t seed); /* random.seed(seed) */
uint32_t base_mersenne_next(MersenneTwister *twister);
/* np.random.permutation(count) -> order[count] */
void base_mersenne_permutation(MersenneTwister *twister, uint32_t count, uint32_t *order);
/* random.sample(range(count), wanted) -> chosen[wanted]; wanted <= count */
void base_mersenne_sample(MersenneTwister *twister, uint32_t count, uint32_t wanted,
                          uint32_t *chosen);

/* ---- time, memory, threads --------------------------------------------- */

double base_now(void);         /* seconds, monotonic */
size_t base_peak_memory(void); /* bytes resident at most, of this process */

/* One pool of the process, made on first use, sized by MLX_RAG_THREADS or the
 * processors this process may run on. The caller is thread 0. */
int base_threads(void);
void base_threads_set(int count); /* before first use, or between parallel loops */

/* Calls body(context, begin, end, thread) so that [0, count) is covered once,
 * in contiguous slices of at least `grain` items whose bounds depend on the
 * sizes and the number of threads alone. A thread, 0 to base_threads() - 1, may
 * run several. Returns when all are done. A call from inside a body runs serially.
 * Calls from several threads at once are safe; one of them gets the pool, the
 * others run serially. */
typedef void (*ParallelBody)(void *context, size_t begin, size_t end, int thread);
void base_parallel_for(size_t count, size_t grain, ParallelBody body, void *context);

/* What a loop that begins soon will read: up to three arrays whose parts belong
 * together, such as packed rows and their scales. */
typedef struct ParallelReads {
    const void *data[3]; /* NULL: none */
    size_t bytes[3];
} ParallelReads;
enum { PARALLEL_READS = 4 };
/* Threads with nothing to do fetch into their cache what their first slices of
 * that loop read, taken that the loop goes through reads[0..count) in order.
 * Replaces what was announced before. Never reads through the addresses, so they may be stale. */
void base_parallel_expect(const ParallelReads *reads, size_t count);

#endif
