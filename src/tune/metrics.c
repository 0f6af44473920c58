/* Measurements as JSON lines: each is in the file when the report has been made. */
#include "tune/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tune/events.h"

struct TuneMetrics {
    FILE *file;
    char *path;
    uint64_t bytes;
    TuneEvents *events; /* NULL: not asked for */
};

/* JSON has no NaN. */
static json_t *number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *tune_metrics_json(const TuneReport *report) {
    static const char *const types[] = {
        [TUNE_REPORT_TRAIN] = "train", [TUNE_REPORT_VAL] = "val", [TUNE_REPORT_TEST] = "test"};
    if (report->kind > TUNE_REPORT_TEST) return NULL;
    json_t *line = json_pack(
        "{s:s,s:i,s:o,s:o,s:I,s:o,s:o,s:o}", "type", types[report->kind], "iter", report->iteration,
        "loss", number(report->loss), "learning_rate", number(report->learning_rate), "tokens",
        (json_int_t)report->trained_tokens, "tokens_per_sec", number(report->tokens_per_second),
        "peak_memory", number(report->peak_memory), "seconds", number(report->seconds));
    if (report->kind == TUNE_REPORT_TRAIN && report->norm > 0)
        json_object_set_new(line, "grad_norm", number(report->norm));
    if (report->kind == TUNE_REPORT_TRAIN)
        json_object_set_new(line, "iterations_per_sec", number(report->iterations_per_second));
    if (report->pairs) json_object_set_new(line, "accuracy", number(report->accuracy));
    if (report->kind == TUNE_REPORT_TEST)
        json_object_set_new(line, "perplexity", number(exp(report->loss)));
    return line;
}

TuneMetrics *tune_metrics_open(const char *folder, uint64_t keep, int done, bool events,
                               Error *err) {
    TuneMetrics *metrics = base_calloc(1, sizeof *metrics);
    metrics->path = base_path_join(folder, TUNE_METRICS_FILE);
    metrics->file = fopen(metrics->path, keep ? "r+b" : "wb");
    bool good = metrics->file != NULL;
    if (good && keep) {
        fseek(metrics->file, 0, SEEK_END);
        const long length = ftell(metrics->file);
        metrics->bytes = BASE_MIN(keep, (uint64_t)BASE_MAX(length, 0));
        good = ftruncate(fileno(metrics->file), (off_t)metrics->bytes) == 0 &&
               fseek(metrics->file, 0, SEEK_END) == 0;
    }
    if (!good) base_fail_errno(err, "%s cannot be written", metrics->path);
    if (good && events) good = (metrics->events = tune_events_open(folder, done, err)) != NULL;
    if (good) return metrics;
    tune_metrics_close(metrics);
    return NULL;
}

static bool write_events(TuneEvents *events, const TuneReport *r, Error *err) {
    const bool train = r->kind == TUNE_REPORT_TRAIN;
    const struct {
        const char *tag;
        double value;
        bool wanted;
    } scalars[] = {{train ? "train/loss" : "val/loss", r->loss, true},
                   {train ? "train/accuracy" : "val/accuracy", r->accuracy, r->pairs},
                   {"train/learning_rate", r->learning_rate, train},
                   {"train/grad_norm", r->norm, train && r->norm > 0},
                   {"train/tokens_per_sec", r->tokens_per_second, train},
                   {"train/tokens", r->trained_tokens, train},
                   {"train/peak_memory_gb", r->peak_memory, train}};
    for (size_t i = 0; i < BASE_COUNT(scalars); i++)
        if (scalars[i].wanted &&
            !tune_events_scalar(events, scalars[i].tag, r->iteration, scalars[i].value, err))
            return false;
    return true;
}

bool tune_metrics_write(TuneMetrics *metrics, const TuneReport *report, Error *err) {
    json_t *line = tune_metrics_json(report);
    if (!line) return true;
    char *text = json_dumps(line, 0);
    json_decref(line);
    const bool good = fprintf(metrics->file, "%s\n", text) > 0 && fflush(metrics->file) == 0;
    metrics->bytes += strlen(text) + 1;
    free(text);
    if (!good) return base_fail_errno(err, "%s cannot be written", metrics->path);
    return !metrics->events || write_events(metrics->events, report, err);
}

uint64_t tune_metrics_bytes(const TuneMetrics *metrics) {
    return metrics->bytes;
}

void tune_metrics_close(TuneMetrics *metrics) {
    if (!metrics) return;
    if (metrics->file) fclose(metrics->file);
    tune_events_close(metrics->events);
    free(metrics->path);
    free(metrics);
}
