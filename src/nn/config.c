/* Reading numbers, flags and names out of a config.json with a check. */
#include "nn/params.h"

#include <limits.h>
#include <math.h>

static const json_t *value_of(const json_t *config, const char *key) {
    const json_t *value = json_object_get(config, key);
    return value && !json_is_null(value) ? value : NULL;
}

static void wrong(NnParams *params, const char *key, const char *wanted) {
    nn_params_fail(params, ERROR_INPUT, "config.json: %s must be %s", key, wanted);
}

int nn_config_int(NnParams *params, const json_t *config, const char *key, int fallback) {
    const json_t *value = value_of(config, key);
    if (!value) return fallback;
    double number = json_number_value(value);
    if (!json_is_number(value) || number != floor(number) || fabs(number) > INT_MAX) {
        wrong(params, key, "an integer");
        return fallback;
    }
    return (int)number;
}

double nn_config_number(NnParams *params, const json_t *config, const char *key, double fallback) {
    const json_t *value = value_of(config, key);
    if (!value) return fallback;
    if (!json_is_number(value)) {
        wrong(params, key, "a number");
        return fallback;
    }
    return json_number_value(value);
}

bool nn_config_bool(NnParams *params, const json_t *config, const char *key, bool fallback) {
    const json_t *value = value_of(config, key);
    if (!value) return fallback;
    if (!json_is_boolean(value)) {
        wrong(params, key, "true or false");
        return fallback;
    }
    return json_is_true(value);
}

const char *nn_config_string(NnParams *params, const json_t *config, const char *key,
                             const char *fallback) {
    const json_t *value = value_of(config, key);
    if (!value) return fallback;
    if (!json_is_string(value)) {
        wrong(params, key, "a string");
        return fallback;
    }
    return json_string_value(value);
}

/* Sizes are multiplied with each other; a bound keeps the products in range. */
enum { LARGEST_SIZE = 1 << 24 };

int nn_config_size(NnParams *params, const json_t *config, const char *key) {
    if (!value_of(config, key)) {
        nn_params_fail(params, ERROR_INPUT, "config.json: %s is missing", key);
        return 1;
    }
    int size = nn_config_int(params, config, key, 1);
    if (size < 1 || size > LARGEST_SIZE) {
        wrong(params, key, "a positive size");
        return 1;
    }
    return size;
}
