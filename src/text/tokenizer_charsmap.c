/* SentencePiece's precompiled_charsmap: a double array (darts-clone) that finds
 * prefixes of a text, and the strings that replace them. The blob is the size of
 * the array in bytes (32-bit, little-endian), its units, then strings that end
 * with NUL. Every index is checked, so any blob is safe to ask. */
#include "text/tokenizer_parts.h"

TextCharsmap *text_charsmap_new(const void *blob, size_t length, const char *where, Error *err) {
    const uint8_t *bytes = blob;
    uint32_t size = 0;
    for (size_t i = 0; i < 4 && length >= 4; i++) size |= (uint32_t)bytes[i] << (8 * i);
    if (length < 4 || size % 4 || size < 4 || size > length - 4) {
        base_fail(err, ERROR_INPUT, "%s: the charsmap of %zu bytes is cut or broken", where,
                  length);
        return NULL;
    }
    TextCharsmap *map = base_calloc(1, sizeof *map);
    map->unit_count = size / 4;
    map->units = base_alloc(size);
    for (size_t i = 0; i < map->unit_count; i++) {
        const uint8_t *unit = bytes + 4 + 4 * i;
        map->units[i] = (uint32_t)unit[0] | (uint32_t)unit[1] << 8 | (uint32_t)unit[2] << 16 |
                        (uint32_t)unit[3] << 24;
    }
    map->string_bytes = length - 4 - size;
    map->strings = base_strndup((const char *)bytes + 4 + size, map->string_bytes);
    if (base_utf8_valid(map->strings, map->string_bytes)) return map;
    text_charsmap_free(map);
    base_fail(err, ERROR_INPUT, "%s: the charsmap's strings are not UTF-8", where);
    return NULL;
}

TextCharsmap *text_charsmap_from_base64(const char *text, const char *where, Error *err) {
    StrBuf blob = {0};
    TextCharsmap *map = NULL;
    if (text_base64_append(text, strlen(text), &blob))
        map = text_charsmap_new(blob.data, blob.length, where, err);
    else
        base_fail(err, ERROR_INPUT, "%s: the charsmap is not base64", where);
    base_str_free(&blob);
    return map;
}

void text_charsmap_free(TextCharsmap *map) {
    if (!map) return;
    free(map->units);
    free(map->strings);
    free(map);
}

static size_t unit_offset(uint32_t unit) {
    return (size_t)(unit >> 10) << ((unit & 0x200) >> 6);
}

const char *text_charsmap_find(const TextCharsmap *map, const char *text, size_t length,
                               bool longest, size_t *matched) {
    const char *found = NULL;
    size_t at = unit_offset(map->units[0]);
    for (size_t i = 0; i < length && text[i]; i++) {
        at ^= (uint8_t)text[i];
        if (at >= map->unit_count) break;
        uint32_t unit = map->units[at];
        if ((unit & 0x800000FF) != (uint8_t)text[i]) break;
        at ^= unit_offset(unit);
        if (!(unit & 0x100)) continue;
        if (at >= map->unit_count) break;
        size_t string = map->units[at] & 0x7FFFFFFF;
        if (string >= map->string_bytes) break;
        found = map->strings + string;
        *matched = i + 1;
        if (!longest) break;
    }
    return found;
}
