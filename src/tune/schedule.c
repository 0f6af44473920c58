/* Learning-rate schedules: one row a function of MLX. */
#include "tune/schedule.h"

#include <math.h>
#include <string.h>

static float constant(const float *a, uint64_t step) {
    (void)step;
    return a[0];
}

/* init, decay_steps, end */
static float cosine_decay(const float *a, uint64_t step) {
    const float steps = a[1], at = (float)step < steps ? (float)step : steps;
    const float decay = 0.5f * (1.0f + cosf((float)(M_PI / (double)steps) * at));
    return a[2] + decay * (a[0] - a[2]);
}

/* init, end, steps */
static float linear_schedule(const float *a, uint64_t step) {
    const float at = (float)step < a[2] ? (float)step : a[2];
    return at * ((a[1] - a[0]) / a[2]) + a[0];
}

/* init, rate */
static float exponential_decay(const float *a, uint64_t step) {
    return a[0] * powf(a[1], (float)step);
}

/* init, rate, step_size */
static float step_decay(const float *a, uint64_t step) {
    const uint64_t decays = step / (uint64_t)a[2];
    return a[0] * powf(a[1], (float)decays);
}

static const struct {
    const char *name;
    float (*rate)(const float *arguments, uint64_t step);
    size_t least, most; /* arguments */
    size_t length;      /* which of them counts updates, at least 1; 0: none */
} functions[] = {
    {"cosine_decay", cosine_decay, 2, 3, 1},
    {"linear_schedule", linear_schedule, 3, 3, 2},
    {"exponential_decay", exponential_decay, 2, 2, 0},
    {"step_decay", step_decay, 3, 3, 2},
};

TuneSchedule tune_schedule_constant(double learning_rate) {
    return (TuneSchedule){.rate = constant, .arguments = {(float)learning_rate}};
}

static bool read_arguments(const json_t *list, const char *name, size_t row, TuneSchedule *schedule,
                           Error *err) {
    const size_t count = json_array_size(list);
    if (count < functions[row].least || count > functions[row].most)
        return base_fail(err, ERROR_INPUT, "lr_schedule: %s takes %zu to %zu arguments, not %zu",
                         name, functions[row].least, functions[row].most, count);
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_number(value))
            return base_fail(err, ERROR_INPUT, "lr_schedule: argument %zu of %s is not a number",
                             i + 1, name);
        schedule->arguments[i] = (float)json_number_value(value);
    }
    const size_t length = functions[row].length;
    if (length && !(schedule->arguments[length] >= 1))
        return base_fail(err, ERROR_INPUT, "lr_schedule: argument %zu of %s is below 1", length + 1,
                         name);
    return true;
}

bool tune_schedule_parse(const json_t *object, TuneSchedule *schedule, Error *err) {
    const char *name = json_string_value(json_object_get(object, "name"));
    const json_t *list = json_object_get(object, "arguments");
    const json_t *warmup = json_object_get(object, "warmup");
    const json_t *warmup_init = json_object_get(object, "warmup_init");
    if (!name || !json_is_array(list))
        return base_fail(err, ERROR_INPUT, "lr_schedule: needs a name and a list of arguments");
    *schedule = (TuneSchedule){0};
    for (size_t i = 0; i < BASE_COUNT(functions) && !schedule->rate; i++) {
        if (strcmp(functions[i].name, name) != 0) continue;
        schedule->rate = functions[i].rate;
        if (!read_arguments(list, name, i, schedule, err)) return false;
    }
    if (!schedule->rate) {
        base_fail(err, ERROR_INPUT, "lr_schedule: no schedule is called %s", name);
        return base_hint(err, "there are cosine_decay, linear_schedule, exponential_decay and "
                              "step_decay");
    }
    if (warmup && !json_is_null(warmup) &&
        (!json_is_integer(warmup) || json_integer_value(warmup) < 0))
        return base_fail(err, ERROR_INPUT, "lr_schedule: warmup is not a number of updates");
    if (warmup_init && !json_is_null(warmup_init) && !json_is_number(warmup_init))
        return base_fail(err, ERROR_INPUT, "lr_schedule: warmup_init is not a number");
    schedule->warmup = (uint64_t)json_integer_value(warmup);
    schedule->warmup_init = (float)json_number_value(warmup_init);
    return true;
}

float tune_schedule_rate(const TuneSchedule *schedule, uint64_t step) {
    const uint64_t warmup = schedule->warmup;
    if (!warmup) return schedule->rate(schedule->arguments, step);
    const float climb[3] = {schedule->warmup_init, schedule->arguments[0], (float)warmup};
    return step < warmup + 1 ? linear_schedule(climb, step)
                             : schedule->rate(schedule->arguments, step - (warmup + 1));
}
