/* Writes TensorBoard's event files. */
#include "tune/events.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct TuneEvents {
    int file;
    char *path;
};

/* ---- records ------------------------------------------------------------------------- */

/* CRC-32C (Castagnoli), bit by bit: an event is some fifty bytes. */
static uint32_t crc32c(const void *bytes, size_t length) {
    uint32_t crc = ~0u;
    for (const uint8_t *at = bytes, *end = at + length; at < end; at++) {
        crc ^= *at;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0x82F63B78u & (0u - (crc & 1)));
    }
    return ~crc;
}

/* Rotated and shifted, so that a CRC over bytes that hold CRCs is none itself. */
static uint32_t masked_crc(const void *bytes, size_t length) {
    const uint32_t crc = crc32c(bytes, length);
    return (crc >> 15 | crc << 17) + 0xA282EAD8u;
}

static void append_little(StrBuf *out, uint64_t number, int bytes) {
    for (int i = 0; i < bytes; i++) base_str_append_char(out, (char)(number >> 8 * i & 255));
}

static bool append_record(TuneEvents *events, const StrBuf *event, Error *err) {
    StrBuf record = {0};
    append_little(&record, event->length, 8);
    append_little(&record, masked_crc(record.data, 8), 4);
    base_str_append_n(&record, event->data, event->length);
    append_little(&record, masked_crc(event->data, event->length), 4);
    const ssize_t written = write(events->file, record.data, record.length);
    const bool good = written == (ssize_t)record.length;
    if (!good && written < 0)
        base_fail_errno(err, "%s", events->path);
    else if (!good)
        base_fail(err, ERROR_IO, "%s: no room for more", events->path);
    base_str_free(&record);
    return good;
}

/* ---- protocol buffers ------------------------------------------------------------------ */

enum { WIRE_VARINT = 0, WIRE_DOUBLE = 1, WIRE_BYTES = 2, WIRE_FLOAT = 5 };

static void put_varint(StrBuf *out, uint64_t number) {
    for (; number > 127; number >>= 7) base_str_append_char(out, (char)((number & 127) | 128));
    base_str_append_char(out, (char)number);
}

static void put_key(StrBuf *out, unsigned field, unsigned wire) {
    put_varint(out, field << 3 | wire);
}

static void put_integer(StrBuf *out, unsigned field, int64_t number) {
    put_key(out, field, WIRE_VARINT);
    put_varint(out, (uint64_t)number);
}

static void put_double(StrBuf *out, unsigned field, double number) {
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    put_key(out, field, WIRE_DOUBLE);
    append_little(out, bits, 8);
}

static void put_float(StrBuf *out, unsigned field, float number) {
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    put_key(out, field, WIRE_FLOAT);
    append_little(out, bits, 4);
}

static void put_bytes(StrBuf *out, unsigned field, const char *bytes, size_t length) {
    put_key(out, field, WIRE_BYTES);
    put_varint(out, length);
    base_str_append_n(out, bytes, length);
}

/* A message inside another; takes what it holds. */
static void put_message(StrBuf *out, unsigned field, StrBuf *message) {
    put_bytes(out, field, message->data ? message->data : "", message->length);
    base_str_free(message);
}

/* ---- events ------------------------------------------------------------------------------ */

/* Fields of tensorflow.Event, Summary, Summary.Value and SessionLog. */
enum { EVENT_TIME = 1, EVENT_STEP = 2, EVENT_VERSION = 3, EVENT_SUMMARY = 5, EVENT_SESSION = 7 };
enum { SUMMARY_VALUE = 1, VALUE_TAG = 1, VALUE_SIMPLE = 2, SESSION_STATUS = 1, SESSION_START = 1 };

static StrBuf new_event(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    StrBuf event = {0};
    put_double(&event, EVENT_TIME, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec);
    return event;
}

static bool write_version(TuneEvents *events, Error *err) {
    StrBuf event = new_event();
    put_bytes(&event, EVENT_VERSION, "brain.Event:2", 13);
    const bool good = append_record(events, &event, err);
    base_str_free(&event);
    return good;
}

static bool write_start(TuneEvents *events, int64_t step, Error *err) {
    StrBuf event = new_event(), session = {0};
    put_integer(&event, EVENT_STEP, step);
    put_integer(&session, SESSION_STATUS, SESSION_START);
    put_message(&event, EVENT_SESSION, &session);
    const bool good = append_record(events, &event, err);
    base_str_free(&event);
    return good;
}

bool tune_events_scalar(TuneEvents *events, const char *tag, int64_t step, double value,
                        Error *err) {
    StrBuf event = new_event(), summary = {0}, one = {0};
    put_integer(&event, EVENT_STEP, step);
    put_bytes(&one, VALUE_TAG, tag, strlen(tag));
    put_float(&one, VALUE_SIMPLE, (float)value);
    put_message(&summary, SUMMARY_VALUE, &one);
    put_message(&event, EVENT_SUMMARY, &summary);
    const bool good = append_record(events, &event, err);
    base_str_free(&event);
    return good;
}

/* events.out.tfevents.<seconds>.<host>.<process>.<number>: readers go by the order of names. */
static bool create_file(TuneEvents *events, const char *folder, Error *err) {
    char host[256] = "localhost";
    gethostname(host, sizeof host - 1);
    for (int number = 0; number < 1000; number++) {
        char *name = base_format("events.out.tfevents.%010" PRId64 ".%s.%ld.%d",
                                 (int64_t)time(NULL), host, (long)getpid(), number);
        free(events->path);
        events->path = base_path_join(folder, name);
        free(name);
        events->file = open(events->path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644);
        if (events->file >= 0) return true;
        if (access(events->path, F_OK) != 0) break;
    }
    return base_fail_errno(err, "%s", events->path);
}

TuneEvents *tune_events_open(const char *folder, int64_t first_step, Error *err) {
    if (!base_make_dirs(folder, err)) return NULL;
    TuneEvents *events = base_calloc(1, sizeof *events);
    if (create_file(events, folder, err) && write_version(events, err) &&
        (first_step <= 0 || write_start(events, first_step, err)))
        return events;
    tune_events_close(events);
    return NULL;
}

void tune_events_close(TuneEvents *events) {
    if (!events) return;
    if (events->file >= 0) close(events->file);
    free(events->path);
    free(events);
}
