/* Growing byte strings, UTF-8, and the small questions asked of text. */
#include "base/base.h"

#include <stdlib.h>
#include <string.h>

static void reserve(StrBuf *buffer, size_t more) {
    buffer->data = base_grow(buffer->data, &buffer->capacity, buffer->length + more + 1, 1);
}

void base_str_append_n(StrBuf *buffer, const char *bytes, size_t length) {
    reserve(buffer, length);
    if (length) memcpy(buffer->data + buffer->length, bytes, length);
    buffer->length += length;
    buffer->data[buffer->length] = '\0';
}

void base_str_append(StrBuf *buffer, const char *text) {
    base_str_append_n(buffer, text, strlen(text));
}

void base_str_append_char(StrBuf *buffer, char character) {
    base_str_append_n(buffer, &character, 1);
}

void base_str_appendf(StrBuf *buffer, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length > 0) {
        reserve(buffer, (size_t)length);
        vsnprintf(buffer->data + buffer->length, (size_t)length + 1, format, again);
        buffer->length += (size_t)length;
    }
    va_end(again);
}

void base_str_append_codepoint(StrBuf *buffer, uint32_t codepoint) {
    char bytes[4];
    base_str_append_n(buffer, bytes, base_utf8_encode(codepoint, bytes));
}

char *base_str_detach(StrBuf *buffer) {
    char *text = buffer->data ? buffer->data : base_strdup("");
    *buffer = (StrBuf){0};
    return text;
}

void base_str_free(StrBuf *buffer) {
    free(buffer->data);
    *buffer = (StrBuf){0};
}

/* The range that the second byte of a sequence must lie in (Unicode 15,
 * table 3-7), which is what makes a subpart "maximal". */
static void second_byte_range(unsigned char lead, unsigned char *low, unsigned char *high) {
    *low = 0x80;
    *high = 0xBF;
    if (lead == 0xE0) *low = 0xA0;
    if (lead == 0xED) *high = 0x9F;
    if (lead == 0xF0) *low = 0x90;
    if (lead == 0xF4) *high = 0x8F;
}

size_t base_utf8_decode(const char *text, size_t length, uint32_t *codepoint, bool *valid) {
    const unsigned char *bytes = (const unsigned char *)text;
    unsigned char lead = bytes[0];
    if (valid) *valid = true;
    if (lead < 0x80) {
        *codepoint = lead;
        return 1;
    }
    size_t wanted = lead >= 0xC2 && lead <= 0xDF   ? 2
                    : lead >= 0xE0 && lead <= 0xEF ? 3
                    : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                   : 0;
    size_t got = 1;
    if (wanted) {
        unsigned char low, high;
        second_byte_range(lead, &low, &high);
        uint32_t value = lead & (0x7Fu >> wanted);
        while (got < wanted && got < length && bytes[got] >= low && bytes[got] <= high) {
            value = value << 6 | (bytes[got++] & 0x3Fu);
            low = 0x80;
            high = 0xBF;
        }
        if (got == wanted) {
            *codepoint = value;
            return wanted;
        }
    }
    *codepoint = 0xFFFD;
    if (valid) *valid = false;
    return got;
}

size_t base_utf8_encode(uint32_t codepoint, char out[4]) {
    if (codepoint > 0x10FFFF || (codepoint >= 0xD800 && codepoint <= 0xDFFF)) codepoint = 0xFFFD;
    if (codepoint < 0x80) {
        out[0] = (char)codepoint;
        return 1;
    }
    size_t length = codepoint < 0x800 ? 2 : codepoint < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (codepoint & 0x3F));
        codepoint >>= 6;
    }
    out[0] = (char)((0xF00u >> length & 0xFFu) | codepoint);
    return length;
}

size_t base_utf8_valid_length(const char *text, size_t length) {
    size_t at = 0;
    while (at < length) {
        const uint64_t tops = 0x8080808080808080u;
        uint64_t word;
        while (length - at >= sizeof word) {
            memcpy(&word, text + at, sizeof word);
            if (word & tops) break;
            at += sizeof word;
        }
        if (at == length) break;
        /* The last bytes together with some before them, which are valid. */
        if (length >= sizeof word && length - at < sizeof word) {
            memcpy(&word, text + length - sizeof word, sizeof word);
            if (!(word & tops)) return length;
        }
        if ((unsigned char)text[at] < 0x80) {
            at++;
            continue;
        }
        uint32_t codepoint;
        bool valid;
        size_t taken = base_utf8_decode(text + at, length - at, &codepoint, &valid);
        if (!valid) break;
        at += taken;
    }
    return at;
}

bool base_utf8_valid(const char *text, size_t length) {
    return base_utf8_valid_length(text, length) == length;
}

bool base_starts_with(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool base_ends_with(const char *text, const char *suffix) {
    size_t length = strlen(text), tail = strlen(suffix);
    return length >= tail && memcmp(text + length - tail, suffix, tail) == 0;
}

uint64_t base_hash(const void *bytes, size_t length) {
    const unsigned char *at = bytes;
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < length; i++) hash = (hash ^ at[i]) * 0x100000001b3u;
    return hash;
}
