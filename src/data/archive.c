/* The members of an archive in its own order: tar in all its kinds, packed or not, and
 * zip, through libarchive. Nothing is written to disk. Archives inside archives can
 * be gone through as well. How much comes out is bounded: by member, in all, and in
 * proportion to what went in. */
#include <archive.h>
#include <archive_entry.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/input.h"
#include "data/stream.h"

enum { BLOCK = 1 << 16, MOST_NESTED = 4 };
static const size_t usual_member = (size_t)1 << 30, usual_total = (size_t)64 << 30;
static const size_t usual_members = 10000000, usual_ratio = 250;
static const size_t free_bytes = (size_t)64 << 20; /* unpacked before the ratio counts */

/* One archive that is open: the file itself, or one inside another. */
typedef struct Level {
    struct archive *archive;
    char *prefix; /* of its members' names: "inner.tar/", or "" */
    char *bytes;  /* of an inner one */
} Level;

typedef struct ArchiveStream {
    DxStream base;
    char *path;
    DxInput *about; /* the file, for its identity and size */
    DxArchiveOptions options;
    DxKey path_key, bytes_key;
    uint64_t size;
    Level levels[MOST_NESTED + 1];
    int depth; /* open levels */
    uint64_t ordinal, total, members;
} ArchiveStream;

static Level *top(ArchiveStream *node) {
    return &node->levels[node->depth - 1];
}

static void close_level(ArchiveStream *node) {
    Level *level = top(node);
    archive_read_free(level->archive);
    free(level->prefix);
    free(level->bytes);
    *level = (Level){0};
    node->depth--;
}

static bool failed(ArchiveStream *node, const char *member, Error *err) {
    const char *why = node->depth ? archive_error_string(top(node)->archive) : NULL;
    base_fail(err, ERROR_INPUT, "%s", why ? why : "the archive is damaged");
    if (member) base_error_context(err, "%.200s", member);
    if (node->depth && *top(node)->prefix) base_error_context(err, "%.200s", top(node)->prefix);
    return base_error_context(err, "%s", node->path);
}

/* Opens the file (bytes NULL) or an archive inside it, whose bytes and prefix are taken. */
static bool open_level(ArchiveStream *node, char *bytes, size_t length, char *prefix, Error *err) {
    struct archive *archive = archive_read_new();
    node->levels[node->depth++] = (Level){archive, prefix, bytes};
    archive_read_support_filter_gzip(archive);
    archive_read_support_filter_bzip2(archive);
    archive_read_support_filter_xz(archive);
    archive_read_support_filter_zstd(archive);
    archive_read_support_format_tar(archive);
    archive_read_support_format_gnutar(archive);
    archive_read_support_format_zip(archive);
    int status = bytes ? archive_read_open_memory(archive, bytes, length)
                       : archive_read_open_filename(archive, node->path, BLOCK);
    return status == ARCHIVE_OK || failed(node, NULL, err);
}

/* ---- members -------------------------------------------------------------------------- */

static bool within_limits(ArchiveStream *node, const char *name, size_t length, Error *err) {
    const DxArchiveOptions *most = &node->options;
    if (length > most->max_member)
        return base_fail(err, ERROR_INPUT, "%s: %.200s: unpacks to more than %s", node->path, name,
                         base_bytes_text(most->max_member));
    if (node->total > most->max_total)
        return base_fail(err, ERROR_INPUT,
                         "%s: %.200s: all members together unpack to more than %s", node->path,
                         name, base_bytes_text(most->max_total));
    if (node->total > free_bytes && node->total / most->max_ratio > node->size)
        return base_fail(err, ERROR_INPUT,
                         "%s: %.200s: unpacks to more than %zu times its size, as archives do that "
                         "are made to fill memory",
                         node->path, name, most->max_ratio);
    return true;
}

/* All bytes of the member at hand; caller frees with base_str_free. */
static bool read_member(ArchiveStream *node, const char *name, StrBuf *data, Error *err) {
    static const size_t ahead = (size_t)16 << 20;
    base_str_append(data, "");
    for (;;) {
        size_t room = BASE_MIN(BASE_MAX(data->length, (size_t)BLOCK), ahead);
        data->data = base_grow(data->data, &data->capacity, data->length + room + 1, 1);
        la_ssize_t got = archive_read_data(top(node)->archive, data->data + data->length, room);
        if (got < 0) return failed(node, name, err);
        data->data[data->length + (size_t)got] = '\0';
        if (got == 0) return true;
        data->length += (size_t)got;
        node->total += (uint64_t)got;
        if (!within_limits(node, name, data->length, err)) return false;
    }
}

static bool is_archive(const char *name) {
    static const char *const ends[] = {".tar",     ".tgz",     ".tar.gz", ".tar.xz",
                                       ".tar.bz2", ".tar.zst", ".zip"};
    for (size_t i = 0; i < BASE_COUNT(ends); i++)
        if (base_ends_with(name, ends[i])) return true;
    return false;
}

/* The next regular member that is no archive to go into; its name is the caller's to
 * free. DX_OK, DX_END or DX_FAIL. */
static DxStatus find_member(ArchiveStream *node, char **name, Error *err) {
    while (node->depth) {
        struct archive_entry *entry;
        int status = archive_read_next_header(top(node)->archive, &entry);
        if (status == ARCHIVE_EOF) {
            close_level(node);
            continue;
        }
        if (status < ARCHIVE_WARN) {
            failed(node, NULL, err);
            return DX_FAIL;
        }
        if (++node->members > node->options.max_members) {
            base_fail(err, ERROR_INPUT, "%s: has more than %zu members", node->path,
                      node->options.max_members);
            return DX_FAIL;
        }
        if (archive_entry_filetype(entry) != AE_IFREG || archive_entry_hardlink(entry)) continue;
        const char *own = archive_entry_pathname_utf8(entry);
        if (!own) own = archive_entry_pathname(entry);
        char *full = base_format("%s%s", top(node)->prefix, own ? own : "?");
        if (archive_entry_is_data_encrypted(entry)) {
            base_fail(err, ERROR_UNSUPPORTED, "%s: %.200s: is encrypted", node->path, full);
            free(full);
            return DX_FAIL;
        }
        if (!node->options.nested || node->depth > MOST_NESTED || !is_archive(full)) {
            *name = full;
            return DX_OK;
        }
        StrBuf data = {0};
        char *prefix = base_format("%s/", full);
        bool ok = read_member(node, full, &data, err);
        free(full);
        if (ok) {
            ok = open_level(node, data.data, data.length, prefix, err);
        } else {
            base_str_free(&data);
            free(prefix);
        }
        if (!ok) return DX_FAIL;
    }
    return DX_END;
}

/* To the next member; with `sample` its bytes are read. */
static DxStatus advance(ArchiveStream *node, DxSample **sample, Error *err) {
    char *name = NULL;
    StrBuf data = {0};
    BaseLocale locale = base_utf8_begin();
    DxStatus status = find_member(node, &name, err);
    if (status == DX_OK && sample && !read_member(node, name, &data, err)) status = DX_FAIL;
    base_utf8_end(locale);
    if (status == DX_OK && sample) {
        DxArray *bytes = dx_array_bytes(data.data, data.length, err);
        if (bytes) {
            size_t length = strlen(name);
            *sample = dx_sample_new();
            dx_sample_set_record(sample,
                                 (DxRecord){.epoch = node->base.epoch, .ordinal = node->ordinal});
            dx_sample_put(sample, node->path_key,
                          base_utf8_valid(name, length) ? dx_array_text(name, length, err)
                                                        : dx_array_bytes(name, length, err));
            dx_sample_put(sample, node->bytes_key, bytes);
        } else {
            status = DX_FAIL;
        }
    }
    if (status == DX_OK) node->ordinal++;
    base_str_free(&data);
    free(name);
    return status;
}

/* ---- the stream ------------------------------------------------------------------------- */

static DxStatus archive_next(DxStream *stream, DxSample **sample, Error *err) {
    DxStatus status = advance((ArchiveStream *)stream, sample, err);
    if (status == DX_FAIL) stream->ended = true; /* nothing behind it can be trusted */
    return status;
}

static bool start_again(ArchiveStream *node, Error *err) {
    while (node->depth) close_level(node);
    node->ordinal = node->total = node->members = 0;
    return open_level(node, NULL, 0, base_strdup(""), err);
}

static bool archive_rewind(DxStream *stream, uint64_t epoch, Error *err) {
    (void)epoch;
    return start_again((ArchiveStream *)stream, err);
}

static void archive_options(const DxStream *stream, StrBuf *text) {
    const ArchiveStream *node = (const ArchiveStream *)stream;
    dx_input_identity(node->about, text);
    if (node->options.nested) base_str_append(text, ", nested");
}

static void archive_save(DxStream *stream, StrBuf *out) {
    dx_put_u64(out, ((ArchiveStream *)stream)->ordinal);
}

/* Packed archives cannot be entered in the middle: members are passed over. */
static bool archive_load(DxStream *stream, DxReader *reader, Error *err) {
    ArchiveStream *node = (ArchiveStream *)stream;
    uint64_t wanted = dx_get_u64(reader);
    if (reader->bad || !start_again(node, err)) return false;
    while (node->ordinal < wanted)
        if (advance(node, NULL, err) != DX_OK) return false;
    return true;
}

static void archive_where(const DxStream *stream, const DxRecord *record, StrBuf *text) {
    base_str_appendf(text, "%s: member %llu", ((const ArchiveStream *)stream)->path,
                     (unsigned long long)record->ordinal + 1);
}

static void archive_free_node(DxStream *stream) {
    ArchiveStream *node = (ArchiveStream *)stream;
    while (node->depth) close_level(node);
    dx_input_free(node->about);
    free(node->path);
}

static const DxStreamKind archive_kind = {
    .name = "archive",
    .next = archive_next,
    .rewind = archive_rewind,
    .options = archive_options,
    .save = archive_save,
    .load = archive_load,
    .where = archive_where,
    .free = archive_free_node,
};

DxStream *dx_archive(const DxArchiveOptions *options, Error *err) {
    DxInput *about = dx_input_open(options->path, err);
    if (!about) return NULL;
    ArchiveStream *node = dx_stream_over(&archive_kind, sizeof *node, NULL);
    node->path = base_strdup(options->path);
    node->about = about;
    node->options = *options;
    node->options.path = node->path;
    if (!node->options.max_member) node->options.max_member = usual_member;
    if (!node->options.max_total) node->options.max_total = usual_total;
    if (!node->options.max_members) node->options.max_members = usual_members;
    if (!node->options.max_ratio) node->options.max_ratio = usual_ratio;
    node->path_key = dx_key("path");
    node->bytes_key = dx_key("bytes");
    struct stat size;
    node->size = stat(options->path, &size) == 0 ? (uint64_t)size.st_size : 0;
    if (start_again(node, err)) return &node->base;
    dx_stream_free(&node->base);
    return NULL;
}
