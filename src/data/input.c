/* Inputs: plain files are mapped, packed ones go through libarchive's filters, which
 * know their own ends and checksums. */
#include "data/input.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct DxInput {
    char *name;
    MappedFile map;
    const uint8_t *bytes;
    size_t length;
    int64_t mtime_ns;
    bool of_file, packed;
    struct archive *archive; /* of packed bytes, opened at the first block */
    uint64_t position;       /* of the next block, unpacked */
    const uint8_t *left;     /* of a block that a seek began inside */
    size_t left_length;
};

static bool is_packed(const uint8_t *bytes, size_t length) {
    static const char magics[][7] = {"\x1f\x8b", "BZh", "\xfd\x37zXZ", "\x28\xb5\x2f\xfd"};
    for (size_t i = 0; i < BASE_COUNT(magics); i++)
        if (length >= strlen(magics[i]) && memcmp(bytes, magics[i], strlen(magics[i])) == 0)
            return true;
    return false;
}

static DxInput *input_new(const char *name) {
    DxInput *input = base_calloc(1, sizeof *input);
    input->name = base_strdup(name);
    return input;
}

DxInput *dx_input_open(const char *path, Error *err) {
    struct stat about;
    DxInput *input = input_new(path);
    if (!base_map_open(path, &input->map, err)) {
        dx_input_free(input);
        return NULL;
    }
    input->bytes = input->map.data;
    input->length = input->map.length;
    input->of_file = true;
    input->packed = is_packed(input->bytes, input->length);
#if defined(__APPLE__)
#define st_mtim st_mtimespec
#endif
    if (stat(path, &about) == 0)
        input->mtime_ns = about.st_mtim.tv_sec * INT64_C(1000000000) + about.st_mtim.tv_nsec;
    return input;
}

DxInput *dx_input_memory(const char *name, const void *bytes, size_t length, Error *err) {
    (void)err;
    DxInput *input = input_new(name);
    input->bytes = bytes;
    input->length = length;
    input->packed = is_packed(input->bytes, input->length);
    return input;
}

static void close_archive(DxInput *input) {
    if (input->archive) archive_read_free(input->archive);
    input->archive = NULL;
    input->position = 0;
    input->left_length = 0;
}

void dx_input_free(DxInput *input) {
    if (!input) return;
    close_archive(input);
    if (input->map.data) base_map_close(&input->map);
    free(input->name);
    free(input);
}

bool dx_input_packed(const DxInput *input) {
    return input->packed;
}

const char *dx_input_name(const DxInput *input) {
    return input->name;
}

void dx_input_identity(const DxInput *input, StrBuf *text) {
    base_str_appendf(text, "%s, %zu bytes", base_path_name(input->name), input->length);
    if (input->of_file) base_str_appendf(text, ", time %lld", (long long)input->mtime_ns);
}

static bool unpack_failed(const DxInput *input, Error *err) {
    const char *why = input->archive ? archive_error_string(input->archive) : NULL;
    return base_fail(err, ERROR_INPUT, "%s: behind byte %llu of what it unpacks to: %s",
                     input->name, (unsigned long long)input->position,
                     why ? why : "it is damaged or cut short");
}

static bool open_archive(DxInput *input, Error *err) {
    struct archive_entry *entry;
    struct archive *archive = input->archive = archive_read_new();
    if (!archive) return base_fail(err, ERROR_MEMORY, "%s: out of memory", input->name);
    archive_read_support_filter_gzip(archive);
    archive_read_support_filter_bzip2(archive);
    archive_read_support_filter_xz(archive);
    archive_read_support_filter_zstd(archive);
    archive_read_support_format_raw(archive);
    archive_read_support_format_empty(archive);
    if (archive_read_open_memory(archive, input->bytes, input->length) != ARCHIVE_OK)
        return unpack_failed(input, err);
    int status = archive_read_next_header(archive, &entry);
    return (status >= ARCHIVE_WARN) || unpack_failed(input, err);
}

/* One block of packed bytes; an archive without data has no entry, and no block. */
static bool unpack(DxInput *input, const uint8_t **block, size_t *length, Error *err) {
    *length = 0;
    if (!input->archive && !open_archive(input, err)) return false;
    const void *bytes = NULL;
    la_int64_t offset;
    int status;
    do status = archive_read_data_block(input->archive, &bytes, length, &offset);
    while (status == ARCHIVE_OK && *length == 0);
    if (status == ARCHIVE_EOF) *length = 0;
    if (status < ARCHIVE_WARN) return unpack_failed(input, err);
    *block = *length ? bytes : (const void *)"";
    return true;
}

bool dx_input_next(DxInput *input, const uint8_t **block, size_t *length, Error *err) {
    if (input->left_length) {
        *block = input->left;
        *length = input->left_length;
        input->left_length = 0;
    } else if (input->packed) {
        if (!unpack(input, block, length, err)) return false;
    } else {
        *block = input->bytes + input->position;
        *length = input->length - (size_t)input->position;
    }
    input->position += *length;
    return true;
}

bool dx_input_seek(DxInput *input, uint64_t offset, Error *err) {
    if (!input->packed) {
        if (offset > input->length)
            return base_fail(err, ERROR_INPUT, "%s: ends before byte %llu", input->name,
                             (unsigned long long)offset);
        input->position = offset;
        return true;
    }
    close_archive(input);
    while (input->position < offset) {
        const uint8_t *block;
        size_t length;
        if (!unpack(input, &block, &length, err)) return false;
        if (length == 0)
            return base_fail(err, ERROR_INPUT, "%s: unpacks to less than %llu bytes", input->name,
                             (unsigned long long)offset);
        size_t wanted = (size_t)BASE_MIN((uint64_t)length, offset - input->position);
        input->position += wanted;
        input->left = block + wanted;
        input->left_length = length - wanted;
    }
    return true;
}

bool dx_input_rest(DxInput *input, size_t most, StrBuf *out, Error *err) {
    base_str_append(out, "");
    for (;;) {
        const uint8_t *block;
        size_t length;
        if (!dx_input_next(input, &block, &length, err)) return false;
        if (length == 0) return true;
        if (length > most - out->length)
            return base_fail(err, ERROR_MEMORY, "%s: unpacks to more than %s", input->name,
                             base_bytes_text(most));
        base_str_append_n(out, (const char *)block, length);
    }
}

bool dx_cursor_more(DxCursor *cursor, bool *failed, Error *err) {
    size_t length;
    if (cursor->at < cursor->end) return true;
    if (!dx_input_next(cursor->input, &cursor->at, &length, err)) {
        cursor->at = cursor->end;
        *failed = true;
        return false;
    }
    cursor->end = cursor->at + length;
    cursor->offset += length;
    return length > 0;
}

bool dx_cursor_seek(DxCursor *cursor, uint64_t offset, Error *err) {
    cursor->at = cursor->end = NULL;
    cursor->offset = offset;
    return dx_input_seek(cursor->input, offset, err);
}
