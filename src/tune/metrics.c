/* Measurements as JSON lines: each is in the file when the report has been made. */
#include "tune/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct TuneMetrics {
    FILE *file;
    char *path;
    uint64_t bytes;
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

TuneMetrics *tune_metrics_open(const char *folder, uint64_t keep, Error *err) {
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
    if (good) return metrics;
    base_fail_errno(err, "%s cannot be written", metrics->path);
    tune_metrics_close(metrics);
    return NULL;
}

bool tune_metrics_write(TuneMetrics *metrics, const TuneReport *report, Error *err) {
    json_t *line = tune_metrics_json(report);
    if (!line) return true;
    char *text = json_dumps(line, 0);
    json_decref(line);
    const bool good = fprintf(metrics->file, "%s\n", text) > 0 && fflush(metrics->file) == 0;
    metrics->bytes += strlen(text) + 1;
    free(text);
    return good || base_fail_errno(err, "%s cannot be written", metrics->path);
}

uint64_t tune_metrics_bytes(const TuneMetrics *metrics) {
    return metrics->bytes;
}

void tune_metrics_close(TuneMetrics *metrics) {
    if (!metrics) return;
    if (metrics->file) fclose(metrics->file);
    free(metrics->path);
    free(metrics);
}
