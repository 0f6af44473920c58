/* Talking to the person: log lines, progress of long work, Ctrl-C, clock and
 * memory figures. */
#include "base/base.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static _Atomic int log_level = LOG_WARNING;

void base_log_level(LogLevel level) {
    log_level = (int)level;
}

void base_log(LogLevel level, const char *format, ...) {
    static const char *const names[] = {"error", "warning", "info", "debug"};
    if ((int)level > log_level) return;
    char line[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    fprintf(stderr, "mlx-rag: %s: %s\n", names[level], line);
}

double base_now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

size_t base_peak_memory(void) {
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
#ifdef __APPLE__
    return (size_t)usage.ru_maxrss;
#else
    return (size_t)usage.ru_maxrss * 1024;
#endif
}

/* A terminal is redrawn ten times a second, a log gets a line every five. */
static double interval(const Progress *progress) {
    return progress->terminal && !progress->json ? 0.1 : 5.0;
}

/* "12.3/999.0 MB, 45.2 MB/s": bytes in the unit that suits the total. */
static void show_bytes(const Progress *progress, double rate) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    size_t unit = 0;
    double scale = 1;
    while (BASE_MAX(progress->total, progress->done) >= 1000 * scale &&
           unit + 1 < BASE_COUNT(units)) {
        scale *= 1000;
        unit++;
    }
    fprintf(stderr, "%.1f", progress->done / scale);
    if (progress->total > 0) fprintf(stderr, "/%.1f", progress->total / scale);
    fprintf(stderr, " %s, %.1f MB/s", units[unit], rate / 1e6);
}

static void show_count(const Progress *progress, double rate) {
    fprintf(stderr, "%.0f", progress->done);
    if (progress->total > 0) fprintf(stderr, "/%.0f", progress->total);
    fprintf(stderr, " %s, %.1f/s", progress->unit, rate);
}

static void show(Progress *progress) {
    double elapsed = base_now() - progress->started;
    double rate = elapsed > 0 ? (progress->done - progress->skipped) / elapsed : 0;
    double left = rate > 0 && progress->total > 0 ? (progress->total - progress->done) / rate : 0;
    progress->shown = true;
    progress->last_shown = base_now();
    if (progress->json) {
        fprintf(stderr,
                "{\"progress\": \"%s\", \"unit\": \"%s\", \"done\": %.0f, \"total\": %.0f, "
                "\"rate\": %.2f, \"remaining_seconds\": %.1f}\n",
                progress->title, progress->unit, progress->done, progress->total, rate, left);
        return;
    }
    fprintf(stderr, "%s%s: ", progress->terminal ? "\r" : "", progress->title);
    if (strcmp(progress->unit, "B") == 0)
        show_bytes(progress, rate);
    else
        show_count(progress, rate);
    if (progress->total > 0 && progress->done < progress->total && rate > 0)
        fprintf(stderr, ", %.0f s left", left);
    fputs(progress->terminal ? "\033[K" : "\n", stderr);
    fflush(stderr);
}

Progress base_progress_start(const char *title, const char *unit, double total) {
    double now = base_now();
    return (Progress){.title = title,
                      .unit = unit,
                      .total = total,
                      .started = now,
                      .last_shown = now,
                      .terminal = isatty(STDERR_FILENO)};
}

void base_progress_update(Progress *progress, double done) {
    progress->done = done;
    if (!progress->quiet && base_now() - progress->last_shown >= interval(progress)) show(progress);
}

void base_progress_end(Progress *progress) {
    if (progress->quiet || !progress->shown) return;
    show(progress);
    if (progress->terminal && !progress->json) fputc('\n', stderr);
}

void base_progress_clear(Progress *progress) {
    if (!progress->shown || !progress->terminal || progress->json || progress->quiet) return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    progress->last_shown = 0;
}

static volatile sig_atomic_t interrupted;

static void on_signal(int number) {
    if (interrupted) _exit(128 + number);
    interrupted = 1;
}

void base_interrupt_install(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool base_interrupted(void) {
    return interrupted != 0;
}
