/* Texts with a memory of where their bytes came from. */
#include "text/tokenizer_parts.h"

TextView text_view_slice(TextView view, size_t begin, size_t end) {
    return (TextView){.data = view.data + begin,
                      .length = end - begin,
                      .origin = view.origin ? view.origin + begin : NULL,
                      .base = view.base + begin};
}

TextSpan text_view_span(TextView view, size_t begin, size_t end) {
    if (!view.origin) return (TextSpan){view.base + begin, view.base + end};
    if (begin == end) {
        if (begin < view.length)
            return (TextSpan){view.origin[begin].begin, view.origin[begin].begin};
        size_t last = view.length ? view.origin[view.length - 1].end : view.base;
        return (TextSpan){last, last};
    }
    return (TextSpan){view.origin[begin].begin, view.origin[end - 1].end};
}

void text_buffer_reset(TextBuffer *buffer, bool track) {
    buffer->length = 0;
    buffer->track = track;
}

void text_buffer_add(TextBuffer *buffer, const char *bytes, size_t length, TextSpan span) {
    size_t needed = buffer->length + length;
    if (needed > buffer->capacity)
        buffer->data = base_grow(buffer->data, &buffer->capacity, needed, 1);
    if (length) memcpy(buffer->data + buffer->length, bytes, length);
    if (buffer->track) {
        if (needed > buffer->origin_capacity)
            buffer->origin =
                base_grow(buffer->origin, &buffer->origin_capacity, needed, sizeof *buffer->origin);
        for (size_t i = buffer->length; i < needed; i++) buffer->origin[i] = span;
    }
    buffer->length = needed;
}

void text_buffer_add_code(TextBuffer *buffer, uint32_t code, TextSpan span) {
    char bytes[4];
    size_t length = base_utf8_encode(code, bytes);
    text_buffer_add(buffer, bytes, length, span);
}

void text_buffer_copy(TextBuffer *buffer, TextView view, size_t begin, size_t end) {
    size_t start = buffer->length;
    text_buffer_add(buffer, view.data + begin, end - begin, (TextSpan){0, 0});
    if (!buffer->track) return;
    for (size_t i = begin; i < end; i++)
        buffer->origin[start + i - begin] =
            view.origin ? view.origin[i] : (TextSpan){view.base + i, view.base + i + 1};
}

TextView text_buffer_view(const TextBuffer *buffer) {
    return (TextView){.data = buffer->data ? buffer->data : "",
                      .length = buffer->length,
                      .origin = buffer->track ? buffer->origin : NULL};
}

void text_buffer_free(TextBuffer *buffer) {
    free(buffer->data);
    free(buffer->origin);
    *buffer = (TextBuffer){0};
}
