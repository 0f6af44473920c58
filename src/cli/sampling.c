/* The sampling options that generate and chat share. */
#include "cli/commands.h"

#include <stdlib.h>

bool sampling_int(const char *option, OptionInt given, int64_t least, int64_t most, int *value,
                  Error *err) {
    if (given.value < least || given.value > most)
        return base_fail(err, ERROR_INPUT, "--%s must be between %lld and %lld", option,
                         (long long)least, (long long)most);
    *value = (int)given.value;
    return true;
}

static bool read_biases(const char *text, LmSampling *sampling, Error *err) {
    if (!text) return true;
    json_t *object = input_object(text, "--logit-bias", err);
    if (!object) return false;
    size_t count = json_object_size(object);
    int *ids = base_calloc(count + 1, sizeof *ids);
    float *biases = base_calloc(count + 1, sizeof *biases);
    sampling->bias_ids = ids;
    sampling->biases = biases;
    const char *key;
    json_t *value;
    bool good = true;
    json_object_foreach(object, key, value) {
        char *end = NULL;
        long id = strtol(key, &end, 10);
        if (end == key || *end != '\0' || id < 0 || id > INT32_MAX || !json_is_number(value)) {
            good = base_fail(err, ERROR_INPUT,
                             "--logit-bias: \"%.32s\" is not a token id with a number", key);
            break;
        }
        ids[sampling->n_biases] = (int)id;
        biases[sampling->n_biases++] = (float)json_number_value(value);
    }
    json_decref(object);
    return good;
}

bool sampling_read(const SamplingArguments *arguments, LmSampling *sampling, Error *err) {
    *sampling = (LmSampling){
        .temp = (float)arguments->temp.value,
        .top_p = (float)arguments->top_p.value,
        .min_p = (float)arguments->min_p.value,
        .xtc_probability = (float)arguments->xtc_probability.value,
        .xtc_threshold = (float)arguments->xtc_threshold.value,
        .repetition_penalty = (float)arguments->repetition_penalty.value,
        .presence_penalty = (float)arguments->presence_penalty.value,
        .frequency_penalty = (float)arguments->frequency_penalty.value,
    };
    return sampling_int("top-k", arguments->top_k, 0, INT32_MAX, &sampling->top_k, err) &&
           sampling_int("min-tokens-to-keep", arguments->min_tokens_to_keep, 1, INT32_MAX,
                        &sampling->min_tokens_to_keep, err) &&
           sampling_int("repetition-context-size", arguments->repetition_context, 0, INT32_MAX,
                        &sampling->repetition_context, err) &&
           sampling_int("presence-context-size", arguments->presence_context, 0, INT32_MAX,
                        &sampling->presence_context, err) &&
           sampling_int("frequency-context-size", arguments->frequency_context, 0, INT32_MAX,
                        &sampling->frequency_context, err) &&
           read_biases(arguments->logit_bias, sampling, err);
}

void sampling_free(LmSampling *sampling) {
    free((void *)sampling->bias_ids);
    free((void *)sampling->biases);
    sampling->bias_ids = NULL;
    sampling->biases = NULL;
}

bool cache_options_read(OptionInt max_size, OptionInt bits, OptionInt group_size, OptionInt start,
                        LmCacheOptions *options, Error *err) {
    return sampling_int("max-kv-size", max_size, 0, INT32_MAX, &options->max_size, err) &&
           sampling_int("kv-bits", bits, 0, 8, &options->kv_bits, err) &&
           sampling_int("kv-group-size", group_size, 1, 1024, &options->kv_group_size, err) &&
           sampling_int("quantized-kv-start", start, 0, INT32_MAX, &options->kv_start, err);
}
