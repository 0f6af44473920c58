/* Sound from WAV, FLAC and Ogg files (libsndfile), at another rate where wanted
 * (libsamplerate). */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/step.h"

#include <samplerate.h>
#include <sndfile.h>

enum { MOST_RATE = 1 << 20, MOST_CHANNELS = 1024 };
static const int64_t most_numbers = (int64_t)1 << 28;

/* ---- decoding -------------------------------------------------------------------------- */

/* A file in memory, as libsndfile reads it. */
typedef struct Memory {
    const char *data;
    sf_count_t length, at;
} Memory;

static sf_count_t memory_length(void *self) {
    return ((Memory *)self)->length;
}

static sf_count_t memory_seek(sf_count_t offset, int whence, void *self) {
    Memory *memory = self;
    sf_count_t from = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? memory->at : memory->length;
    sf_count_t wanted;
    if (__builtin_add_overflow(from, offset, &wanted) || wanted < 0 || wanted > memory->length)
        return -1;
    return memory->at = wanted;
}

static sf_count_t memory_read(void *to, sf_count_t count, void *self) {
    Memory *memory = self;
    count = BASE_MAX(BASE_MIN(count, memory->length - memory->at), 0);
    if (count) memcpy(to, memory->data + memory->at, (size_t)count);
    memory->at += count;
    return count;
}

static sf_count_t memory_write(const void *from, sf_count_t count, void *self) {
    (void)from;
    (void)count;
    (void)self;
    return 0;
}

static sf_count_t memory_tell(void *self) {
    return ((Memory *)self)->at;
}

/* float32 [frames, channels]; *rate: frames a second. */
static DxArray *decode(const DxArray *bytes, int64_t *rate, Error *err) {
    SF_VIRTUAL_IO calls = {memory_length, memory_seek, memory_read, memory_write, memory_tell};
    SF_INFO info = {0};
    Memory memory = {.data = bytes->data, .length = (sf_count_t)bytes->bytes};
    SNDFILE *file = sf_open_virtual(&calls, SFM_READ, &info, &memory);
    if (!file) {
        base_fail(err, ERROR_INPUT, "no sound file: %s", sf_strerror(NULL));
        return NULL;
    }
    DxArray *array = NULL;
    if (info.frames < 0 || info.channels < 1 || info.channels > MOST_CHANNELS ||
        info.samplerate < 1 || info.frames > most_numbers / info.channels)
        base_fail(err, ERROR_INPUT, "sound of %lld frames in %d channels; at most %lld numbers",
                  (long long)info.frames, info.channels, (long long)most_numbers);
    else
        array = dx_array_new(DX_F32, 2, (int64_t[]){info.frames, info.channels}, err);
    if (array && sf_readf_float(file, array->data, info.frames) != info.frames) {
        base_fail(err, ERROR_INPUT, "a sound file that is cut short or damaged");
        dx_array_release(array);
        array = NULL;
    }
    sf_close(file);
    *rate = info.samplerate;
    return array;
}

static DxStatus decode_apply(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)random;
    const DxStepArgs *args = self;
    const DxArray *bytes = dx_sample_need_bytes(*sample, args->key, err);
    if (!bytes) return DX_FAIL;
    int64_t rate = 0;
    DxArray *array = decode(bytes, &rate, err);
    if (!array) base_error_context(err, "key \"%s\"", args->key.name);
    DxStatus status = dx_step_put(args, sample, array);
    if (status == DX_OK && args->n_keys) dx_sample_put(sample, args->keys[0], dx_array_int(rate));
    return status;
}

DxStep dx_decode_audio(const char *key, const char *to, const char *rate_key, Error *err) {
    DxStepArgs args = {.key = dx_key(key), .to = dx_key(to), .n_keys = rate_key != NULL};
    args.keys = base_calloc(1, sizeof *args.keys);
    if (rate_key) args.keys[0] = dx_key(rate_key);
    args.identity = base_format("%s to %s, rate %s", key, to, rate_key ? rate_key : "not wanted");
    return dx_step_new("decode audio", decode_apply, args, true, err);
}

/* ---- resampling ------------------------------------------------------------------------- */

static const int converters[] = {
    [DX_RESAMPLE_FAST] = SRC_SINC_FASTEST,
    [DX_RESAMPLE_MEDIUM] = SRC_SINC_MEDIUM_QUALITY,
    [DX_RESAMPLE_BEST] = SRC_SINC_BEST_QUALITY,
    [DX_RESAMPLE_LINEAR] = SRC_LINEAR,
};

static DxArray *resampled(const DxArray *sound, double ratio, int converter, Error *err) {
    const int64_t channels = sound->shape[1];
    const double wanted = ceil((double)sound->shape[0] * ratio);
    if (channels < 1 || channels > MOST_CHANNELS || sound->shape[0] > LONG_MAX / 2 ||
        wanted * (double)channels > (double)most_numbers) {
        base_fail(err, ERROR_INPUT, "sound of %lld frames in %lld channels cannot be resampled",
                  (long long)sound->shape[0], (long long)channels);
        return NULL;
    }
    float *out = base_try_alloc((size_t)wanted * (size_t)channels + 1, sizeof *out, err);
    if (!out) return NULL;
    SRC_DATA data = {.data_in = sound->data,
                     .data_out = out,
                     .input_frames = (long)sound->shape[0],
                     .output_frames = (long)wanted,
                     .src_ratio = ratio};
    int failed = sound->shape[0] ? src_simple(&data, converter, (int)channels) : 0;
    DxArray *array = NULL;
    if (failed)
        base_fail(err, ERROR_INPUT, "resampling: %s", src_strerror(failed));
    else
        array = dx_array_copy(DX_F32, 2, (int64_t[]){data.output_frames_gen, channels}, out, err);
    free(out);
    return array;
}

static DxStatus resample_apply(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)random;
    const DxStepArgs *args = self;
    const DxArray *sound = dx_sample_need(*sample, args->key, DX_F32, 2, err);
    const DxArray *rate = sound ? dx_sample_need(*sample, args->keys[0], DX_I64, 0, err) : NULL;
    if (!rate) return DX_FAIL;
    const int64_t from = dx_array_int_at(rate, 0);
    if (from == args->first) return DX_OK;
    const double ratio = from > 0 ? (double)args->first / (double)from : 0;
    if (!src_is_valid_ratio(ratio)) {
        base_fail(err, ERROR_INPUT, "key \"%s\": from %lld to %lld frames a second is too far",
                  args->key.name, (long long)from, (long long)args->first);
        return DX_FAIL;
    }
    DxArray *array = resampled(sound, ratio, converters[args->second], err);
    if (!array) base_error_context(err, "key \"%s\"", args->key.name);
    DxStatus status = dx_step_put(args, sample, array);
    if (status == DX_OK) dx_sample_put(sample, args->keys[0], dx_array_int(args->first));
    return status;
}

DxStep dx_resample(const char *key, const char *rate_key, int64_t rate, DxResampling how,
                   Error *err) {
    DxStepArgs args = {.key = dx_key(key), .first = rate, .second = how, .n_keys = 1};
    args.to = args.key;
    args.keys = base_calloc(1, sizeof *args.keys);
    args.keys[0] = dx_key(rate_key);
    args.identity = base_format("%s to %lld a second, quality %d", key, (long long)rate, how);
    bool valid = rate > 0 && rate <= MOST_RATE && (size_t)how < BASE_COUNT(converters);
    return dx_step_new("resample", resample_apply, args, valid, err);
}
