/* NumPy's .npz: a zip of .npy files. libarchive does the zip, the engine the
 * arrays, through a reader and a writer that stand on a member of the archive,
 * so that no array is held twice. */
#include "mx/thread.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- a member as the engine's reader or writer ---- */

typedef struct Member {
    struct archive *archive;
    size_t at;   /* bytes read or written so far */
    bool failed; /* once is for ever */
} Member;

static bool member_is_open(void *desc) {
    return desc != NULL;
}

static bool member_good(void *desc) {
    return !((Member *)desc)->failed;
}

static size_t member_tell(void *desc) {
    return ((Member *)desc)->at;
}

/* npy needs no seeking. */
static void member_seek(void *desc, int64_t off, int whence) {
    Member *member = desc;
    if (whence != SEEK_SET || (uint64_t)off != member->at) member->failed = true;
}

static void member_read(void *desc, char *data, size_t n) {
    Member *member = desc;
    while (n && !member->failed) {
        const la_ssize_t got = archive_read_data(member->archive, data, n);
        if (got <= 0) {
            member->failed = true;
            return;
        }
        data += got;
        n -= (size_t)got;
        member->at += (size_t)got;
    }
}

static void member_read_at_offset(void *desc, char *data, size_t n, size_t off) {
    member_seek(desc, (int64_t)off, SEEK_SET);
    member_read(desc, data, n);
}

static void member_write(void *desc, const char *data, size_t n) {
    Member *member = desc;
    while (n && member->archive && !member->failed) {
        const la_ssize_t put = archive_write_data(member->archive, data, n);
        member->failed = put <= 0;
        if (member->failed) return;
        data += put;
        n -= (size_t)put;
        member->at += (size_t)put;
    }
    member->at += n; /* without an archive the bytes are only counted */
}

static const char *member_label(void *desc) {
    (void)desc;
    return "the archive";
}

static void member_free(void *desc) {
    (void)desc; /* it stands on the stack of load_member or save_member */
}

static const mlx_io_vtable member_calls = {
    .is_open = member_is_open,
    .good = member_good,
    .tell = member_tell,
    .seek = member_seek,
    .read = member_read,
    .read_at_offset = member_read_at_offset,
    .write = member_write,
    .label = member_label,
    .free = member_free,
};

static bool archive_failed(struct archive *archive, const char *path, Error *err) {
    const char *why = archive_error_string(archive);
    return base_fail(err, ERROR_INPUT, "%s: %s", path, why ? why : "the archive is damaged");
}

/* ---- reading ---- */

/* Loads and evaluates the member's array, and reads to the member's end, where
 * its checksum is compared. */
static bool load_array(Member *member, struct archive_entry *entry, mlx_array *array) {
    mlx_io_reader reader = mlx_io_reader_new(member, member_calls);
    bool ok = mlx_load_reader(array, reader, mx_stream()) == 0;
    mlx_io_reader_free(reader);
    if (ok && archive_entry_size_is_set(entry)) {
        const uint64_t rest = (uint64_t)archive_entry_size(entry) - member->at;
        if (mlx_array_nbytes(*array) > rest) return false;
    }
    char past;
    ok = ok && mlx_array_eval(*array) == 0 && !member->failed;
    return ok && archive_read_data(member->archive, &past, 1) >= 0;
}

static bool load_member(struct archive *archive, struct archive_entry *entry, const char *path,
                        MxFileVisitor visitor, Error *err) {
    const char *full = archive_entry_pathname_utf8(entry);
    if (!full) full = archive_entry_pathname(entry);
    if (!full || !base_ends_with(full, ".npy")) return true;
    char *name = base_strndup(full, strlen(full) - strlen(".npy"));
    Member member = {.archive = archive};
    mlx_array array = {0};
    archive_clear_error(archive);
    const bool ok = load_array(&member, entry, &array);
    if (ok && visitor.tensor) visitor.tensor(visitor.context, name, array);
    if (!ok) {
        const char *why = archive_error_string(archive);
        base_fail(err, ERROR_INPUT, "%s: %s.npy: %s", path, name,
                  why ? why : "not an array that can be read, or a truncated one");
    }
    if (array.ctx) mlx_array_free(array);
    free(name);
    return ok;
}

static bool load_archive(struct archive *archive, const char *path, MxFileVisitor visitor,
                         Error *err) {
    enum { BLOCK = 1 << 16 };
    archive_read_support_format_zip(archive);
    if (archive_read_open_filename(archive, path, BLOCK) != ARCHIVE_OK)
        return archive_failed(archive, path, err);
    struct archive_entry *entry;
    for (;;) {
        const int status = archive_read_next_header(archive, &entry);
        if (status == ARCHIVE_EOF) return true;
        if (status != ARCHIVE_OK && status != ARCHIVE_WARN)
            return archive_failed(archive, path, err);
        if (!load_member(archive, entry, path, visitor, err)) return false;
    }
}

bool mx_load_npz(const char *path, MxFileVisitor visitor, Error *err) {
    if (!mx_check(err)) return false;
    if (!base_is_file(path)) return base_fail(err, ERROR_IO, "%s: no such file", path);
    struct archive *archive = archive_read_new();
    if (!archive) return base_fail(err, ERROR_MEMORY, "%s: out of memory", path);
    mx_scope s = mx_open(); /* installs the error handler */
    const BaseLocale locale = base_utf8_begin();
    const bool ok = load_archive(archive, path, visitor, err);
    base_utf8_end(locale);
    archive_read_free(archive);
    mx_drop(s);
    return ok;
}

/* ---- writing ---- */

typedef struct Output {
    AtomicFile *file; /* NULL: what comes is thrown away */
    Error *err;
} Output;

static la_ssize_t output_write(struct archive *archive, void *context, const void *bytes,
                               size_t length) {
    const Output *output = context;
    if (!output->file) return (la_ssize_t)length;
    if (base_atomic_write(output->file, bytes, length, output->err)) return (la_ssize_t)length;
    archive_set_error(archive, EIO, "%s", output->err ? output->err->message : "cannot write");
    return -1;
}

static bool save_array(Member *member, mlx_array array) {
    mlx_io_writer writer = mlx_io_writer_new(member, member_calls);
    const bool ok = mlx_save_writer(writer, array) == 0 && !member->failed;
    mlx_io_writer_free(writer);
    return ok;
}

/* Days that zip can tell begin in 1980; NumPy writes that one too. */
enum { EPOCH_1980 = 315532800 };

static bool save_member(struct archive *archive, const char *path, const char *name,
                        mlx_array array, Error *err) {
    Member length = {0}, member = {.archive = archive};
    if (!save_array(&length, array)) {
        mx_settle(1, MX_NONE, "save", &array, 1);
        mx_check(err);
        return base_error_context(err, "%s: %s", path, name);
    }
    char *full = base_format("%s.npy", name);
    struct archive_entry *entry = archive_entry_new();
    archive_entry_set_pathname_utf8(entry, full);
    archive_entry_set_size(entry, (la_int64_t)length.at);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_mtime(entry, EPOCH_1980, 0);
    bool ok = archive_write_header(archive, entry) == ARCHIVE_OK;
    ok = ok && save_array(&member, array) && archive_write_finish_entry(archive) == ARCHIVE_OK;
    if (!ok) archive_failed(archive, path, err);
    archive_entry_free(entry);
    free(full);
    return ok;
}

static bool save_archive(struct archive *archive, const char *path, const char *const *names,
                         const mlx_array *arrays, size_t count, bool compress, Error *err) {
    Output output = {.file = base_atomic_open(path, err), .err = err};
    if (!output.file) return false;
    archive_write_set_format_zip(archive);
    if (compress)
        archive_write_zip_set_compression_deflate(archive);
    else
        archive_write_zip_set_compression_store(archive);
    archive_write_set_bytes_in_last_block(archive, 1);
    bool ok = archive_write_open(archive, &output, NULL, output_write, NULL) == ARCHIVE_OK ||
              archive_failed(archive, path, err);
    for (size_t i = 0; i < count && ok; i++)
        ok = save_member(archive, path, names[i], arrays[i], err);
    if (ok && archive_write_close(archive) != ARCHIVE_OK) ok = archive_failed(archive, path, err);
    if (ok) return base_atomic_commit(output.file, err);
    base_atomic_abort(output.file);
    output.file = NULL;
    archive_write_close(archive); /* it frees its block only here */
    return false;
}

bool mx_save_npz(const char *path, const char *const *names, const mlx_array *arrays, size_t count,
                 bool compress, Error *err) {
    if (!mx_check(err)) return false;
    for (size_t i = 0; i < count; i++)
        if (!*names[i] || !base_utf8_valid(names[i], strlen(names[i])))
            return base_fail(err, ERROR_INPUT, "%s: a name is empty or not UTF-8", path);
    struct archive *archive = archive_write_new();
    if (!archive) return base_fail(err, ERROR_MEMORY, "%s: out of memory", path);
    char *full = base_ends_with(path, ".npz") ? base_strdup(path) : base_format("%s.npz", path);
    mx_scope s = mx_open();
    const BaseLocale locale = base_utf8_begin();
    const bool ok = save_archive(archive, full, names, arrays, count, compress, err);
    base_utf8_end(locale);
    archive_write_free(archive);
    mx_drop(s);
    free(full);
    return ok;
}
