/* Errors as values: one line of message, one line of hint, the first failure
 * wins. */
#include "base/base.h"

#include <errno.h>
#include <string.h>

/* A message is one line: control characters that came from a file's contents
 * must not break it. */
static void one_line(char *text) {
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f) *text = ' ';
}

static bool fill(Error *err, ErrorCode code, const char *format, va_list arguments) {
    if (!err || err->code != ERROR_NONE) return false;
    err->code = code;
    vsnprintf(err->message, sizeof err->message, format, arguments);
    one_line(err->message);
    err->hint[0] = '\0';
    return false;
}

bool base_fail(Error *err, ErrorCode code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fill(err, code, format, arguments);
    va_end(arguments);
    return false;
}

bool base_fail_errno(Error *err, const char *format, ...) {
    int number = errno;
    if (!err || err->code != ERROR_NONE) return false;
    va_list arguments;
    va_start(arguments, format);
    fill(err, ERROR_IO, format, arguments);
    va_end(arguments);
    size_t used = strlen(err->message);
    char reason[128];
    snprintf(err->message + used, sizeof err->message - used, ": %s",
             strerror_r(number, reason, sizeof reason));
    return false;
}

bool base_hint(Error *err, const char *format, ...) {
    if (!err || err->code == ERROR_NONE) return false;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(err->hint, sizeof err->hint, format, arguments);
    va_end(arguments);
    one_line(err->hint);
    return false;
}

bool base_error_context(Error *err, const char *format, ...) {
    if (!err || err->code == ERROR_NONE) return false;
    char before[sizeof err->message];
    memcpy(before, err->message, sizeof before);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(err->message, sizeof err->message, format, arguments);
    va_end(arguments);
    size_t used = strlen(err->message);
    snprintf(err->message + used, sizeof err->message - used, ": %.*s", (int)(sizeof before - 1),
             before);
    one_line(err->message);
    return false;
}

void base_error_clear(Error *err) {
    if (err) *err = (Error){.code = ERROR_NONE};
}
