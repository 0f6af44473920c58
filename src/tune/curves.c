/* Reads metrics.jsonl into curves, and sums a curve up. */
#include "tune/curves.h"

#include <stdlib.h>
#include <string.h>

const char *const tune_curve_names[TUNE_CURVES] = {"train", "val"};

static void add_point(TuneCurve *curve, double iter, double loss) {
    while (curve->count > 0 && curve->points[curve->count - 1].iter >= iter) curve->count--;
    curve->points =
        base_grow(curve->points, &curve->capacity, curve->count + 1, sizeof *curve->points);
    curve->points[curve->count++] = (TunePoint){.iter = iter, .loss = loss};
}

/* Other types of lines are for others. */
static bool read_line(TuneRun *run, const json_t *line, Error *err) {
    const char *type = json_string_value(json_object_get(line, "type"));
    const json_t *iter = json_object_get(line, "iter"), *loss = json_object_get(line, "loss");
    if (!type) return base_fail(err, ERROR_INPUT, "no \"type\"");
    for (size_t i = 0; i < TUNE_CURVES; i++) {
        if (strcmp(type, tune_curve_names[i]) != 0) continue;
        if (!json_is_number(iter)) return base_fail(err, ERROR_INPUT, "\"iter\" is not a number");
        if (json_is_null(loss)) return true;
        if (!json_is_number(loss)) return base_fail(err, ERROR_INPUT, "\"loss\" is not a number");
        add_point(&run->curves[i], json_number_value(iter), json_number_value(loss));
    }
    return true;
}

static bool read_lines(const char *path, const char *text, size_t length, TuneRun *run,
                       Error *err) {
    int number = 0;
    for (const char *at = text, *end = text + length; at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const size_t bytes = (size_t)((newline ? newline : end) - at);
        number++;
        char *name = base_format("%s: line %d", path, number);
        Error why = {0};
        json_t *line = bytes ? base_json_parse(at, bytes, name, &why) : NULL;
        bool good = !bytes || !newline || line;
        if (!good)
            base_fail(err, why.code, "%s", why.message);
        else if (line && !read_line(run, line, &why))
            good = base_fail(err, why.code, "%s: %s", name, why.message);
        json_decref(line);
        free(name);
        if (!good) return false;
        at += bytes + 1;
    }
    return true;
}

bool tune_run_read(const char *path, TuneRun *run, Error *err) {
    *run = (TuneRun){0};
    char *file = base_is_dir(path) ? base_path_join(path, "metrics.jsonl") : base_strdup(path);
    char *text = NULL;
    size_t length = 0;
    bool good = base_file_read(file, &text, &length, err);
    if (!good)
        base_hint(err, "A run of mlx-rag train writes metrics.jsonl into its adapter folder");
    good = good && read_lines(file, text, length, run, err);
    if (good && run->curves[TUNE_TRAIN].count + run->curves[TUNE_VAL].count == 0)
        good = base_fail(err, ERROR_INPUT, "%s: no loss was reported yet", file);
    char *given = base_strdup(path);
    for (size_t n = strlen(given); n > 1 && given[n - 1] == '/';) given[--n] = '\0';
    run->name = base_strdup(base_path_name(given));
    free(given);
    free(text);
    free(file);
    if (!good) tune_run_free(run);
    return good;
}

void tune_run_free(TuneRun *run) {
    for (size_t i = 0; i < TUNE_CURVES; i++) free(run->curves[i].points);
    free(run->name);
    *run = (TuneRun){0};
}

json_t *tune_run_json(const TuneRun *run) {
    json_t *out = json_pack("{s:s}", "run", run->name);
    for (size_t c = 0; c < TUNE_CURVES; c++) {
        const TuneCurve *curve = &run->curves[c];
        if (curve->count == 0) {
            json_object_set_new(out, tune_curve_names[c], json_null());
            continue;
        }
        const TunePoint *best = curve->points, *last = curve->points + curve->count - 1;
        for (size_t i = 1; i < curve->count; i++)
            if (curve->points[i].loss < best->loss) best = &curve->points[i];
        json_object_set_new(out, tune_curve_names[c],
                            json_pack("{s:I,s:f,s:f,s:f,s:f,s:f}", "points",
                                      (json_int_t)curve->count, "first", curve->points[0].loss,
                                      "last", last->loss, "last_iter", last->iter, "best",
                                      best->loss, "best_iter", best->iter));
    }
    return out;
}
