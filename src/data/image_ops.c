/* Operators on images: resized, cropped, flipped. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/step.h"

/* ---- what all have in common ----------------------------------------------------------- */

typedef struct Image {
    const DxArray *array;
    int64_t frames, height, width, channels;
} Image;

static bool image_of(const DxStepArgs *args, const DxSample *sample, Image *image, Error *err) {
    char text[96];
    const DxArray *array = dx_sample_need(sample, args->key, DX_U8, -1, err);
    if (!array) return false;
    int first = array->rank - 3;
    if (first != 0 && first != 1)
        return base_fail(err, ERROR_INPUT,
                         "key \"%s\": wanted an image [height, width, channels], found %s",
                         args->key.name, dx_array_describe(array, text, sizeof text));
    *image = (Image){array, first ? array->shape[0] : 1, array->shape[first],
                     array->shape[first + 1], array->shape[first + 2]};
    if (image->channels >= 1 && image->channels <= 4) return true;
    return base_fail(err, ERROR_INPUT, "key \"%s\": an image has 1 to 4 channels, found %s",
                     args->key.name, dx_array_describe(array, text, sizeof text));
}

/* Of the same frames and channels. */
static DxArray *image_like(const Image *image, int64_t height, int64_t width, Error *err) {
    int64_t shape[] = {image->frames, height, width, image->channels};
    int skip = image->array->rank == 3;
    return dx_array_new(DX_U8, 4 - skip, shape + skip, err);
}

/* ---- resizing ---------------------------------------------------------------------------- */

/* For each place of the result the places of the source that count, and how much. */
typedef struct Filter {
    int64_t *first, *count;
    float *weights; /* [places, most] */
    int64_t most;
} Filter;

/* A triangle as wide as two steps of the coarser grid. */
static Filter triangle(int64_t from, int64_t to) {
    const double scale = (double)from / (double)to, radius = BASE_MAX(scale, 1.0);
    Filter filter = {.most = 2 * (int64_t)ceil(radius) + 1};
    filter.first = base_calloc((size_t)to, sizeof *filter.first);
    filter.count = base_calloc((size_t)to, sizeof *filter.count);
    filter.weights = base_calloc((size_t)(to * filter.most), sizeof *filter.weights);
    for (int64_t i = 0; i < to; i++) {
        double centre = ((double)i + 0.5) * scale, sum = 0;
        int64_t first = BASE_MAX((int64_t)(centre - radius + 0.5), 0);
        int64_t last = BASE_MIN((int64_t)(centre + radius + 0.5), from);
        float *weights = filter.weights + i * filter.most;
        for (int64_t j = first; j < last; j++) {
            double weight = 1 - fabs(((double)j + 0.5 - centre) / radius);
            weights[j - first] = (float)BASE_MAX(weight, 0.0);
            sum += BASE_MAX(weight, 0.0);
        }
        for (int64_t j = 0; j < last - first; j++) weights[j] = (float)((double)weights[j] / sum);
        filter.first[i] = first;
        filter.count[i] = last - first;
    }
    return filter;
}

static void filter_free(Filter *filter) {
    free(filter->first);
    free(filter->count);
    free(filter->weights);
}

/* A line of `to` places from one of the source, whose elements lie `step` apart, each of
 * `inner` numbers. */
static void across(const Filter *filter, const uint8_t *from, int64_t to, int64_t channels,
                   float *out) {
    for (int64_t x = 0; x < to; x++) {
        const float *weights = filter->weights + x * filter->most;
        const uint8_t *pixel = from + filter->first[x] * channels;
        for (int64_t c = 0; c < channels; c++) {
            float sum = 0;
            for (int64_t j = 0; j < filter->count[x]; j++)
                sum += weights[j] * (float)pixel[j * channels + c];
            out[x * channels + c] = sum;
        }
    }
}

/* One frame. Lines of the source are filtered across once, as they are needed. */
static void resize_frame(const Image *image, const uint8_t *from, const Filter *wide,
                         const Filter *high, int64_t width, int64_t height, float *lines,
                         uint8_t *to) {
    const int64_t line = width * image->channels;
    for (int64_t y = 0; y < image->height; y++)
        across(wide, from + y * image->width * image->channels, width, image->channels,
               lines + y * line);
    for (int64_t y = 0; y < height; y++) {
        const float *weights = high->weights + y * high->most;
        for (int64_t x = 0; x < line; x++) {
            float sum = 0;
            for (int64_t j = 0; j < high->count[y]; j++)
                sum += weights[j] * lines[(high->first[y] + j) * line + x];
            to[y * line + x] = (uint8_t)BASE_MIN(BASE_MAX(sum + 0.5f, 0.0f), 255.0f);
        }
    }
}

static DxArray *resized(const Image *image, int64_t width, int64_t height, Error *err) {
    if (image->height < 1 || image->width < 1) {
        base_fail(err, ERROR_INPUT, "an image without pixels cannot be resized");
        return NULL;
    }
    DxArray *made = image_like(image, height, width, err);
    size_t line = (size_t)(width * image->channels);
    float *lines = made ? base_try_alloc((size_t)image->height * line, sizeof *lines, err) : NULL;
    if (!lines) {
        dx_array_release(made);
        return NULL;
    }
    Filter wide = triangle(image->width, width), high = triangle(image->height, height);
    for (int64_t f = 0; f < image->frames; f++)
        resize_frame(image,
                     (const uint8_t *)image->array->data +
                         f * image->height * image->width * image->channels,
                     &wide, &high, width, height, lines,
                     (uint8_t *)made->data + (size_t)(f * height) * line);
    filter_free(&wide);
    filter_free(&high);
    free(lines);
    return made;
}

static DxStatus resize_apply(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)random;
    const DxStepArgs *args = self;
    Image image;
    if (!image_of(args, *sample, &image, err)) return DX_FAIL;
    int64_t width = args->first, height = args->second;
    if (args->flag && image.width > 0 && image.height > 0) {
        /* first: the smaller side */
        double scale = (double)args->first / (double)BASE_MIN(image.width, image.height);
        width = llround((double)image.width * scale);
        height = llround((double)image.height * scale);
        if (width > args->first * 1000 || height > args->first * 1000) {
            base_fail(err, ERROR_INPUT, "key \"%s\": an image of %lld x %lld pixels is too narrow",
                      args->key.name, (long long)image.width, (long long)image.height);
            return DX_FAIL;
        }
    }
    return dx_step_put(args, sample, resized(&image, width, height, err));
}

enum { MOST_RESIZED = 65536 };

DxStep dx_image_resize(const char *key, int64_t width, int64_t height, Error *err) {
    DxStepArgs args = {.key = dx_key(key), .first = width, .second = height};
    args.to = args.key;
    args.identity = base_format("%s, %lld x %lld", key, (long long)width, (long long)height);
    bool valid = width > 0 && height > 0 && width <= MOST_RESIZED && height <= MOST_RESIZED;
    return dx_step_new("resize image", resize_apply, args, valid, err);
}

DxStep dx_image_resize_side(const char *key, int64_t size, Error *err) {
    DxStepArgs args = {.key = dx_key(key), .first = size, .second = size, .flag = true};
    args.to = args.key;
    args.identity = base_format("%s, smaller side %lld", key, (long long)size);
    return dx_step_new("resize image", resize_apply, args, size > 0 && size <= MOST_RESIZED, err);
}

/* ---- cropping ------------------------------------------------------------------------------ */

static DxStatus crop_apply(void *self, DxSample **sample, DxRandom *random, Error *err) {
    const DxStepArgs *args = self;
    Image image;
    if (!image_of(args, *sample, &image, err)) return DX_FAIL;
    int64_t width = args->first, height = args->second;
    if (image.width < width || image.height < height) {
        base_fail(err, ERROR_INPUT,
                  "key \"%s\": an image of %lld x %lld pixels has no part of %lld x %lld",
                  args->key.name, (long long)image.width, (long long)image.height, (long long)width,
                  (long long)height);
        return DX_FAIL;
    }
    int64_t x = (image.width - width) / 2, y = (image.height - height) / 2;
    if (args->flag) {
        x = (int64_t)dx_random_below(random, (uint64_t)(image.width - width + 1));
        y = (int64_t)dx_random_below(random, (uint64_t)(image.height - height + 1));
    }
    DxArray *made = image_like(&image, height, width, err);
    const size_t line = (size_t)(width * image.channels);
    for (int64_t row = 0; made && row < image.frames * height; row++) {
        int64_t from = (row / height * image.height + y + row % height) * image.width + x;
        memcpy((uint8_t *)made->data + (size_t)row * line,
               (const uint8_t *)image.array->data + from * image.channels, line);
    }
    return dx_step_put(args, sample, made);
}

static DxStep crop(const char *name, const char *key, int64_t width, int64_t height, bool random,
                   uint64_t seed, Error *err) {
    DxStepArgs args = {.key = dx_key(key), .first = width, .second = height, .flag = random};
    args.to = args.key;
    args.identity = base_format("%s, %lld x %lld", key, (long long)width, (long long)height);
    DxStep step = dx_step_new(name, crop_apply, args, width > 0 && height > 0, err);
    step.op.seed = seed;
    return step;
}

DxStep dx_image_crop(const char *key, int64_t width, int64_t height, Error *err) {
    return crop("crop image", key, width, height, false, 0, err);
}

DxStep dx_image_random_crop(const char *key, int64_t width, int64_t height, uint64_t seed,
                            Error *err) {
    return crop("crop image at random", key, width, height, true, seed, err);
}

/* ---- flipping ------------------------------------------------------------------------------ */

static DxStatus flip_apply(void *self, DxSample **sample, DxRandom *random, Error *err) {
    const DxStepArgs *args = self;
    Image image;
    if (!image_of(args, *sample, &image, err)) return DX_FAIL;
    if (dx_random_unit(random) >= args->value) return DX_OK;
    DxArray *made = image_like(&image, image.height, image.width, err);
    const size_t pixel = (size_t)image.channels, line = (size_t)image.width * pixel;
    const uint8_t *from = image.array->data;
    for (int64_t y = 0; made && y < image.frames * image.height; y++, from += line) {
        uint8_t *to = (uint8_t *)made->data + (size_t)y * line;
        for (size_t x = 0; x < line; x += pixel) memcpy(to + x, from + line - pixel - x, pixel);
    }
    return dx_step_put(args, sample, made);
}

DxStep dx_image_flip(const char *key, double chance, uint64_t seed, Error *err) {
    DxStepArgs args = {.key = dx_key(key), .value = chance};
    args.to = args.key;
    args.identity = base_format("%s, chance %.17g", key, chance);
    DxStep step = dx_step_new("flip image", flip_apply, args, chance >= 0 && chance <= 1, err);
    step.op.seed = seed;
    return step;
}
