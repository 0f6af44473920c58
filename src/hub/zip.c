/* The directory of a zip whose members are stored uncompressed, so that their
 * bytes can be used where they lie. (libarchive and libzip copy.) Zip64 included.
 * APPNOTE.TXT 6.3, sections 4.3.7, 4.3.12, 4.3.14 to 4.3.16. */
#include "hub/torch.h"

#include <stdlib.h>
#include <string.h>

enum { LOCAL_SIZE = 30, ENTRY_SIZE = 46, END_SIZE = 22, LOCATOR_SIZE = 20, END64_SIZE = 56 };
enum { MOST_MEMBERS = 1 << 20 };

typedef struct Zip {
    const uint8_t *file;
    size_t length;
    uint64_t directory, directory_size, count;
} Zip;

static uint64_t number(const uint8_t *at, int bytes) {
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; i--) value = value << 8 | at[i];
    return value;
}

bool zip_is(const uint8_t *file, size_t length) {
    return length >= LOCAL_SIZE && memcmp(file, "PK\3\4", 4) == 0;
}

/* The end record stands last, before a comment of at most 65535 bytes. */
static const uint8_t *find_end(const Zip *zip) {
    if (zip->length < END_SIZE) return NULL;
    const size_t last = zip->length - END_SIZE;
    for (size_t back = 0; back <= last && back <= UINT16_MAX; back++) {
        const uint8_t *at = zip->file + last - back;
        if (memcmp(at, "PK\5\6", 4) == 0 && number(at + 20, 2) == back) return at;
    }
    return NULL;
}

static bool read_end(Zip *zip, Error *err) {
    const uint8_t *end = find_end(zip);
    if (!end) return base_fail(err, ERROR_INPUT, "the zip has no end: it is truncated, or no zip");
    zip->count = number(end + 10, 2);
    zip->directory_size = number(end + 12, 4);
    zip->directory = number(end + 16, 4);
    const size_t place = (size_t)(end - zip->file);
    if (place >= LOCATOR_SIZE && memcmp(end - LOCATOR_SIZE, "PK\6\7", 4) == 0) {
        const uint64_t at = number(end - LOCATOR_SIZE + 8, 8);
        if (place < END64_SIZE || at > place - END64_SIZE ||
            memcmp(zip->file + at, "PK\6\6", 4) != 0)
            return base_fail(err, ERROR_INPUT, "the zip's 64-bit end record is damaged");
        zip->count = number(zip->file + at + 32, 8);
        zip->directory_size = number(zip->file + at + 40, 8);
        zip->directory = number(zip->file + at + 48, 8);
    }
    if (zip->directory > place || zip->directory_size > place - zip->directory)
        return base_fail(err, ERROR_INPUT, "the zip's directory lies outside the file");
    if (zip->count > MOST_MEMBERS || zip->count > zip->directory_size / ENTRY_SIZE)
        return base_fail(err, ERROR_INPUT,
                         "the zip claims %llu members, its directory has no room "
                         "for them",
                         (unsigned long long)zip->count);
    return true;
}

/* Replaces what does not fit into 32 bits by the fields of the zip64 extra. */
static bool read_extra(const uint8_t *extra, size_t length, uint64_t *fields[3]) {
    for (size_t at = 0; at + 4 <= length;) {
        const uint64_t kind = number(extra + at, 2), size = number(extra + at + 2, 2);
        if (size > length - at - 4) return false;
        if (kind == 1) {
            size_t place = at + 4;
            const size_t end = place + (size_t)size;
            for (int i = 0; i < 3; i++) {
                if (*fields[i] != UINT32_MAX) continue;
                if (place + 8 > end) return false;
                *fields[i] = number(extra + place, 8);
                place += 8;
            }
        }
        at += 4 + (size_t)size;
    }
    return true;
}

static bool read_entry(const Zip *zip, const uint8_t *entry, size_t room, ZipMember *member,
                       size_t *taken, Error *err) {
    if (room < ENTRY_SIZE || memcmp(entry, "PK\1\2", 4) != 0)
        return base_fail(err, ERROR_INPUT, "the zip's directory is damaged");
    const uint64_t flags = number(entry + 8, 2), method = number(entry + 10, 2);
    uint64_t packed = number(entry + 20, 4), size = number(entry + 24, 4);
    uint64_t offset = number(entry + 42, 4);
    const size_t name = number(entry + 28, 2), extra = number(entry + 30, 2);
    *taken = ENTRY_SIZE + name + extra + number(entry + 32, 2);
    uint64_t *fields[3] = {&size, &packed, &offset};
    if (*taken > room || !read_extra(entry + ENTRY_SIZE + name, extra, fields))
        return base_fail(err, ERROR_INPUT, "the zip's directory is damaged");
    *member = (ZipMember){.name = (const char *)entry + ENTRY_SIZE, .name_length = name};
    if ((flags & 1) || method != 0 || packed != size)
        return base_fail(err, ERROR_UNSUPPORTED,
                         "member %.*s is compressed or encrypted; PyTorch stores its files plainly",
                         (int)BASE_MIN(name, 200), member->name);
    bool inside = offset <= zip->length && zip->length - offset >= LOCAL_SIZE &&
                  memcmp(zip->file + offset, "PK\3\4", 4) == 0;
    if (inside) {
        const uint8_t *local = zip->file + offset;
        const uint64_t head = LOCAL_SIZE + number(local + 26, 2) + number(local + 28, 2);
        inside = head <= zip->length - offset && size <= zip->length - offset - head;
        member->bytes = local + head;
        member->length = (size_t)size;
    }
    return inside || base_fail(err, ERROR_INPUT, "member %.*s lies outside the file",
                               (int)BASE_MIN(name, 200), member->name);
}

static int compare_names(const char *a, size_t a_length, const char *b, size_t b_length) {
    const int order = memcmp(a, b, BASE_MIN(a_length, b_length));
    return order ? order : (a_length > b_length) - (a_length < b_length);
}

static int by_name(const void *a, const void *b) {
    const ZipMember *one = a, *other = b;
    return compare_names(one->name, one->name_length, other->name, other->name_length);
}

bool zip_read(const uint8_t *file, size_t length, ZipMember **members, size_t *count, Error *err) {
    Zip zip = {.file = file, .length = length};
    *members = NULL;
    *count = 0;
    if (!read_end(&zip, err)) return false;
    ZipMember *list = base_calloc((size_t)zip.count + 1, sizeof *list);
    const uint8_t *at = file + zip.directory;
    size_t room = (size_t)zip.directory_size, taken = 0;
    for (size_t i = 0; i < zip.count; i++, at += taken, room -= taken)
        if (!read_entry(&zip, at, room, &list[i], &taken, err)) {
            free(list);
            return false;
        }
    if (zip.count > 1) qsort(list, (size_t)zip.count, sizeof *list, by_name);
    *members = list;
    *count = (size_t)zip.count;
    return true;
}

const ZipMember *zip_find(const ZipMember *members, size_t count, const char *name) {
    const ZipMember wanted = {.name = name, .name_length = strlen(name)};
    return count ? bsearch(&wanted, members, count, sizeof *members, by_name) : NULL;
}
