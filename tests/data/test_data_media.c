/* Images and sound. The images and the expected pixels (tests/golden/data) were made with
 * Pillow 13.0.0: PNG files are exact, JPEG ones within 2 of its own inverse transform,
 * resized ones within 1 of its fixed-point arithmetic. */
#include "data_test.h"

#include <math.h>
#include <sndfile.h>

static DxBuffer *file_buffer(const char *path) {
    Error err = {0};
    DxSample *sample = dx_sample_new();
    dx_sample_put(&sample, dx_key("path"), dx_array_text(path, strlen(path), &err));
    DxBuffer *buffer = dx_samples(&sample, 1, &err);
    dx_sample_free(sample);
    return dx_buffer_step(buffer, dx_load_file("path", GOLDEN "/data", "bytes", &err), &err);
}

static DxSample *first(DxBuffer *buffer) {
    Error err = {0};
    DxSample *sample;
    assert_non_null(buffer);
    if (dx_buffer_get(buffer, 0, 0, &sample, &err) != DX_OK) fail_msg("%s", err.message);
    dx_buffer_free(buffer);
    return sample;
}

static DxBuffer *image_buffer(const char *path, int channels) {
    Error err = {0};
    return dx_buffer_step(file_buffer(path), dx_decode_image("bytes", "image", channels, &err),
                          &err);
}

static void assert_image(DxBuffer *buffer, const char *raw, int64_t height, int64_t width,
                         int64_t channels, int tolerance) {
    Error err = {0};
    DxSample *sample = first(buffer);
    const DxArray *image = dx_sample_get(sample, dx_key("image"));
    assert_int_equal(image->rank, 3);
    assert_int_equal(image->shape[0], height);
    assert_int_equal(image->shape[1], width);
    assert_int_equal(image->shape[2], channels);
    char *path = base_format(GOLDEN "/data/%s", raw), *expected;
    size_t length;
    assert_true(base_file_read(path, &expected, &length, &err));
    assert_int_equal(length, image->bytes);
    for (size_t i = 0; i < length; i++) {
        int difference = ((const uint8_t *)image->data)[i] - (uint8_t)expected[i];
        if (abs(difference) > tolerance) fail_msg("%s: byte %zu is %d off", raw, i, difference);
    }
    free(path);
    free(expected);
    dx_sample_free(sample);
}

static void test_png_and_jpeg_pixels_are_pillows(void **state) {
    (void)state;
    assert_image(image_buffer("rgb.png", 0), "rgb.raw", 9, 13, 3, 0);
    assert_image(image_buffer("rgba.png", 0), "rgb.raw", 9, 13, 3, 0);
    assert_image(image_buffer("palette.png", 0), "palette.raw", 9, 13, 3, 0);
    assert_image(image_buffer("rgb.jpg", 0), "rgb_jpg.raw", 9, 13, 3, 2);
    assert_image(image_buffer("gray.jpg", 0), "gray_jpg.raw", 9, 13, 1, 2);
    assert_image(image_buffer("cmyk.jpg", 0), "cmyk_jpg.raw", 9, 13, 3, 3);
}

static void test_channels_as_asked(void **state) {
    (void)state;
    DxSample *gray = first(image_buffer("gray.png", 1)), *rgb = first(image_buffer("gray.png", 3));
    const DxArray *one = dx_sample_get(gray, dx_key("image"));
    const DxArray *three = dx_sample_get(rgb, dx_key("image"));
    assert_int_equal(three->shape[2], 3);
    for (size_t i = 0; i < one->count; i++)
        for (size_t c = 0; c < 3; c++)
            assert_int_equal(dx_array_int_at(three, 3 * i + c), dx_array_int_at(one, i));
    dx_sample_free(gray);
    dx_sample_free(rgb);
    gray = first(image_buffer("gray16.png", 0)); /* the upper 8 of x * 3000 + y */
    one = dx_sample_get(gray, dx_key("image"));
    assert_int_equal(dx_array_int_at(one, 12), 36000 >> 8);
    dx_sample_free(gray);
}

static void test_sizes_are_pillows_bilinear(void **state) {
    (void)state;
    Error err = {0};
    assert_image(
        dx_buffer_step(image_buffer("rgb.png", 0), dx_image_resize("image", 5, 4, &err), &err),
        "resize_5x4.raw", 4, 5, 3, 1);
    assert_image(
        dx_buffer_step(image_buffer("rgb.png", 0), dx_image_resize("image", 20, 14, &err), &err),
        "resize_20x14.raw", 14, 20, 3, 1);
    assert_image(
        dx_buffer_step(image_buffer("rgb.png", 0), dx_image_resize_side("image", 9, &err), &err),
        "rgb.raw", 9, 13, 3, 0);
}

/* [height, width, 1] of 1, 2, 3, ... */
static DxBuffer *counted(int64_t height, int64_t width, int copies) {
    Error err = {0};
    DxSample **samples = base_calloc((size_t)copies, sizeof *samples);
    for (int n = 0; n < copies; n++) {
        DxArray *image = dx_array_new(DX_U8, 3, (int64_t[]){height, width, 1}, &err);
        for (size_t i = 0; i < image->count; i++) ((uint8_t *)image->data)[i] = (uint8_t)(i + 1);
        samples[n] = dx_sample_new();
        dx_sample_put(&samples[n], dx_key("image"), image);
    }
    DxBuffer *buffer = dx_samples(samples, (size_t)copies, &err);
    for (int n = 0; n < copies; n++) dx_sample_free(samples[n]);
    free(samples);
    return buffer;
}

static void test_parts_and_mirrors(void **state) {
    (void)state;
    Error err = {0};
    assert_all(
        dx_buffer_stream(dx_buffer_step(counted(3, 4, 1), dx_image_crop("image", 2, 1, &err), &err),
                         &err),
        "image", "6 7");
    assert_all(
        dx_buffer_stream(dx_buffer_step(counted(2, 3, 1), dx_image_flip("image", 1, 0, &err), &err),
                         &err),
        "image", "3 2 1 6 5 4");
    assert_all(
        dx_buffer_stream(dx_buffer_step(counted(2, 3, 1), dx_image_flip("image", 0, 0, &err), &err),
                         &err),
        "image", "1 2 3 4 5 6");
    DxStream *stream = dx_buffer_stream(
        dx_buffer_step(counted(2, 3, 1), dx_image_crop("image", 3, 3, &err), &err), &err);
    assert_fails(stream,
                 "crop image: key \"image\": an image of 3 x 2 pixels has no part of 3 x 3");
    dx_stream_free(stream);
    stream =
        dx_buffer_stream(dx_buffer_step(numbers(1), dx_image_resize("n", 3, 3, &err), &err), &err);
    assert_fails(stream, "resize image: key \"n\": wanted uint8, found int64");
    dx_stream_free(stream);
}

static void test_random_parts_and_mirrors_do_not_depend_on_threads(void **state) {
    (void)state;
    Error err = {0};
    char *texts[2];
    for (int threads = 0; threads < 2; threads++) {
        DxBuffer *buffer =
            dx_buffer_step(counted(5, 5, 200), dx_image_random_crop("image", 2, 2, 7, &err), &err);
        buffer = dx_buffer_step(buffer, dx_image_flip("image", 0.5, 8, &err), &err);
        DxStream *stream = dx_buffer_stream(buffer, &err);
        if (threads) stream = dx_parallel(stream, &(DxParallelOptions){.threads = 4}, &err);
        texts[threads] = drain(stream, "image");
        dx_stream_free(stream);
    }
    assert_string_equal(texts[0], texts[1]);
    int mirrored = 0, corners = 0;
    for (const char *at = texts[0]; at; at = strstr(at, "| "), at = at ? at + 2 : NULL) {
        int a, b;
        assert_int_equal(sscanf(at, "%d %d", &a, &b), 2);
        mirrored += a > b;
        corners += BASE_MIN(a, b) == 1;
    }
    assert_in_range(mirrored, 70, 130);
    assert_in_range(corners, 3, 30); /* one place of sixteen */
    free(texts[0]);
    free(texts[1]);
}

static void test_damaged_images_are_failures(void **state) {
    (void)state;
    Error err = {0};
    static const char *const names[] = {"rgb.png", "rgb.jpg", "palette.png", "cmyk.jpg"};
    for (size_t n = 0; n < BASE_COUNT(names); n++) {
        char *path = base_format(GOLDEN "/data/%s", names[n]), *bytes;
        size_t length;
        assert_true(base_file_read(path, &bytes, &length, &err));
        for (size_t cut = 0; cut + 12 < length; cut += 7) { /* PNG's last 12 bytes say "end" */
            DxSample *sample = dx_sample_new(), *got = NULL;
            dx_sample_put(&sample, dx_key("bytes"), dx_array_bytes(bytes, cut, &err));
            DxBuffer *buffer = dx_buffer_step(dx_samples(&sample, 1, &err),
                                              dx_decode_image("bytes", "image", 0, &err), &err);
            Error why = {0};
            assert_int_equal(dx_buffer_get(buffer, 0, 0, &got, &why), DX_FAIL);
            assert_non_null(strstr(why.message, "decode image: key \"bytes\": "));
            dx_buffer_free(buffer);
            dx_sample_free(sample);
        }
        free(bytes);
        free(path);
    }
    /* A header that claims 100,000 x 100,000 pixels. */
    static const char huge[] = "\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\1\x86\xa0\0\1\x86\xa0\x08\2\0\0\0"
                               "\x50\xa4\x1b\x8a";
    DxSample *sample = dx_sample_new(), *got;
    dx_sample_put(&sample, dx_key("bytes"), dx_array_bytes(huge, sizeof huge - 1, &err));
    DxBuffer *buffer = dx_buffer_step(dx_samples(&sample, 1, &err),
                                      dx_decode_image("bytes", "image", 0, &err), &err);
    base_error_clear(&err);
    assert_int_equal(dx_buffer_get(buffer, 0, 0, &got, &err), DX_FAIL);
    dx_buffer_free(buffer);
    dx_sample_free(sample);
}

/* ---- sound -------------------------------------------------------------------------------------
 */

/* A sine of 440 Hz in two channels, the second of half its height, as a file of 16 bits. */
static char *write_sound(const char *name, int format, int frames, int rate) {
    char *path = write_file(name, "", 0);
    SF_INFO info = {.samplerate = rate, .channels = 2, .format = format | SF_FORMAT_PCM_16};
    SNDFILE *file = sf_open(path, SFM_WRITE, &info);
    assert_non_null(file);
    for (int i = 0; i < frames; i++) {
        short both[2];
        both[0] = (short)lround(20000 * sin(2 * M_PI * 440 * i / rate));
        both[1] = (short)(both[0] / 2);
        assert_int_equal(sf_writef_short(file, both, 1), 1);
    }
    sf_close(file);
    return path;
}

static DxBuffer *sound_buffer(const char *path) {
    Error err = {0};
    return dx_buffer_step(file_buffer(path), dx_decode_audio("bytes", "sound", "rate", &err), &err);
}

static void test_wav_and_flac_are_read_exactly(void **state) {
    (void)state;
    char *paths[] = {write_sound("a.wav", SF_FORMAT_WAV, 1000, 8000),
                     write_sound("a.flac", SF_FORMAT_FLAC, 1000, 8000)};
    for (int i = 0; i < 2; i++) {
        DxSample *sample = first(sound_buffer(paths[i]));
        const DxArray *sound = dx_sample_get(sample, dx_key("sound"));
        assert_int_equal(sound->type, DX_F32);
        assert_int_equal(sound->shape[0], 1000);
        assert_int_equal(sound->shape[1], 2);
        assert_int_equal(dx_array_int_at(dx_sample_get(sample, dx_key("rate")), 0), 8000);
        for (int t = 0; t < 1000; t++) {
            long whole = lround(20000 * sin(2 * M_PI * 440 * t / 8000));
            assert_true(dx_array_real_at(sound, (size_t)(2 * t)) == (double)whole / 32768);
        }
        dx_sample_free(sample);
        free(paths[i]);
    }
}

static void test_resampling_keeps_the_tone(void **state) {
    (void)state;
    Error err = {0};
    char *path = write_sound("tone.wav", SF_FORMAT_WAV, 8000, 8000);
    DxBuffer *buffer = dx_buffer_step(
        sound_buffer(path), dx_resample("sound", "rate", 16000, DX_RESAMPLE_MEDIUM, &err), &err);
    DxSample *sample = first(buffer);
    const DxArray *sound = dx_sample_get(sample, dx_key("sound"));
    assert_in_range(sound->shape[0], 15990, 16000);
    assert_int_equal(dx_array_int_at(dx_sample_get(sample, dx_key("rate")), 0), 16000);
    double worst = 0; /* away from the ends, where the filter sees silence */
    for (int t = 1000; t < 15000; t++)
        worst = fmax(worst, fabs(dx_array_real_at(sound, (size_t)(2 * t)) -
                                 20000.0 / 32768 * sin(2 * M_PI * 440 * t / 16000)));
    assert_true(worst < 1e-3);
    dx_sample_free(sample);
    free(path);
}

static void test_bad_sound_is_a_failure(void **state) {
    (void)state;
    Error err = {0};
    DxSample *sample;
    char *path = write_file("no.wav", "no sound", 8);
    DxBuffer *buffer = sound_buffer(path);
    assert_int_equal(dx_buffer_get(buffer, 0, 0, &sample, &err), DX_FAIL);
    assert_non_null(strstr(err.message, "decode audio: key \"bytes\": no sound file: "));
    dx_buffer_free(buffer);
    free(path);
    base_error_clear(&err);
    assert_null(
        dx_step(number_stream(1), dx_resample("n", "rate", 0, DX_RESAMPLE_FAST, &err), &err));
    assert_non_null(strstr(err.message, "these arguments make no sense"));
    base_error_clear(&err);
    path = write_sound("far.wav", SF_FORMAT_WAV, 10, 8000);
    buffer = dx_buffer_step(sound_buffer(path),
                            dx_resample("sound", "rate", 1, DX_RESAMPLE_FAST, &err), &err);
    assert_int_equal(dx_buffer_get(buffer, 0, 0, &sample, &err), DX_FAIL);
    assert_non_null(strstr(err.message, "from 8000 to 1 frames a second is too far"));
    dx_buffer_free(buffer);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_png_and_jpeg_pixels_are_pillows),
        cmocka_unit_test(test_channels_as_asked),
        cmocka_unit_test(test_sizes_are_pillows_bilinear),
        cmocka_unit_test(test_parts_and_mirrors),
        cmocka_unit_test(test_random_parts_and_mirrors_do_not_depend_on_threads),
        cmocka_unit_test(test_damaged_images_are_failures),
        cmocka_unit_test(test_wav_and_flac_are_read_exactly),
        cmocka_unit_test(test_resampling_keeps_the_tone),
        cmocka_unit_test(test_bad_sound_is_a_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
