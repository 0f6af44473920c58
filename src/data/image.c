/* Images from JPEG (libjpeg-turbo) and PNG (libpng) files, which are untrusted: sizes are
 * checked before memory is taken, and what the libraries report ends in an Error. */
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "data/step.h"

#include <jpeglib.h>
#include <png.h>

enum { MOST_SIDE = 1 << 20 };
static const int64_t most_pixels = 178956970; /* Pillow's bound */

static DxArray *new_image(int64_t width, int64_t height, int channels, Error *err) {
    if (width < 1 || height < 1 || width > MOST_SIDE || height > MOST_SIDE ||
        width * height > most_pixels) {
        base_fail(err, ERROR_INPUT, "an image of %lld x %lld pixels; at most %lld are taken",
                  (long long)width, (long long)height, (long long)most_pixels);
        return NULL;
    }
    return dx_array_new(DX_U8, 3, (int64_t[]){height, width, channels}, err);
}

/* ---- JPEG --------------------------------------------------------------------------- */

typedef struct Jpeg {
    struct jpeg_decompress_struct info;
    struct jpeg_error_mgr errors;
    jmp_buf back;
    char message[JMSG_LENGTH_MAX];
    DxArray *image;
    uint8_t *line; /* of four channels, for CMYK */
} Jpeg;

static void jpeg_failed(j_common_ptr info) {
    Jpeg *jpeg = info->client_data;
    info->err->format_message(info, jpeg->message);
    longjmp(jpeg->back, 1);
}

/* Counts warnings, which say that data are damaged, instead of printing them. */
static void jpeg_warned(j_common_ptr info, int level) {
    if (level < 0) info->err->num_warnings++;
}

/* Adobe's CMYK is stored inverted. */
static void from_cmyk(const uint8_t *from, uint8_t *to, size_t width, int channels) {
    for (size_t x = 0; x < width; x++, from += 4, to += channels) {
        uint8_t rgb[3];
        for (int c = 0; c < 3; c++) rgb[c] = (uint8_t)((from[c] * from[3] + 127) / 255);
        if (channels == 3)
            memcpy(to, rgb, 3);
        else
            *to = (uint8_t)((rgb[0] * 299 + rgb[1] * 587 + rgb[2] * 114 + 500) / 1000);
    }
}

static bool jpeg_header(Jpeg *jpeg, const DxArray *bytes, int channels, Error *err) {
    struct jpeg_decompress_struct *info = &jpeg->info;
    jpeg_mem_src(info, bytes->data, bytes->bytes);
    jpeg_read_header(info, TRUE);
    bool four = info->jpeg_color_space == JCS_CMYK || info->jpeg_color_space == JCS_YCCK;
    if (!channels) channels = info->jpeg_color_space == JCS_GRAYSCALE ? 1 : 3;
    info->out_color_space = four ? JCS_CMYK : channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg->image = new_image(info->image_width, info->image_height, channels, err);
    if (jpeg->image && four) jpeg->line = base_alloc((size_t)info->image_width * 4);
    return jpeg->image != NULL;
}

static void jpeg_lines(Jpeg *jpeg) {
    struct jpeg_decompress_struct *info = &jpeg->info;
    const int channels = (int)jpeg->image->shape[2];
    const size_t width = info->image_width;
    jpeg_start_decompress(info);
    while (info->output_scanline < info->output_height) {
        uint8_t *to =
            (uint8_t *)jpeg->image->data + info->output_scanline * width * (size_t)channels;
        JSAMPROW row = jpeg->line ? jpeg->line : to;
        jpeg_read_scanlines(info, &row, 1);
        if (jpeg->line) from_cmyk(jpeg->line, to, width, channels);
    }
    jpeg_finish_decompress(info);
}

static DxArray *decode_jpeg(const DxArray *bytes, int channels, Error *err) {
    Jpeg *jpeg = base_calloc(1, sizeof *jpeg);
    jpeg->info.err = jpeg_std_error(&jpeg->errors);
    jpeg->errors.error_exit = jpeg_failed;
    jpeg->errors.emit_message = jpeg_warned;
    jpeg->info.client_data = jpeg;
    DxArray *image = NULL;
    if (setjmp(jpeg->back) == 0) {
        jpeg_create_decompress(&jpeg->info);
        if (jpeg_header(jpeg, bytes, channels, err)) jpeg_lines(jpeg);
        if (jpeg->image && jpeg->errors.num_warnings == 0) {
            image = jpeg->image;
            jpeg->image = NULL;
        } else if (jpeg->image) {
            base_fail(err, ERROR_INPUT, "a damaged or truncated JPEG file");
        }
    } else {
        base_fail(err, ERROR_INPUT, "JPEG: %s", jpeg->message);
    }
    jpeg_destroy_decompress(&jpeg->info);
    dx_array_release(jpeg->image);
    free(jpeg->line);
    free(jpeg);
    return image;
}

/* ---- PNG ---------------------------------------------------------------------------- */

typedef struct Png {
    png_structp png;
    png_infop info;
    const uint8_t *at;
    size_t left;
    char message[128];
    DxArray *image;
    uint8_t **rows;
} Png;

static void png_failed(png_structp png, png_const_charp message) {
    snprintf(((Png *)png_get_error_ptr(png))->message, sizeof(((Png *)0)->message), "%s", message);
    png_longjmp(png, 1);
}

static void png_silent(png_structp png, png_const_charp message) {
    (void)png;
    (void)message;
}

static void png_take(png_structp png, png_bytep to, size_t length) {
    Png *reader = png_get_io_ptr(png);
    if (length > reader->left) png_error(png, "the file is cut short");
    memcpy(to, reader->at, length);
    reader->at += length;
    reader->left -= length;
}

/* Samples become 8 bits without alpha; gray becomes RGB or RGB gray where asked for. */
static int png_transform(Png *reader, int channels) {
    png_structp png = reader->png;
    int kind = png_get_color_type(png, reader->info);
    bool gray = kind == PNG_COLOR_TYPE_GRAY || kind == PNG_COLOR_TYPE_GRAY_ALPHA;
    if (!channels) channels = gray ? 1 : 3;
    png_set_strip_16(png);
    if (kind == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
    if (gray) png_set_expand_gray_1_2_4_to_8(png);
    png_set_strip_alpha(png);
    if (gray && channels == 3) png_set_gray_to_rgb(png);
    if (!gray && channels == 1) png_set_rgb_to_gray_fixed(png, 1, 29900, 58700);
    png_set_interlace_handling(png);
    return channels;
}

static void read_png(Png *reader, int channels, Error *err) {
    png_read_info(reader->png, reader->info);
    uint32_t width = png_get_image_width(reader->png, reader->info);
    uint32_t height = png_get_image_height(reader->png, reader->info);
    channels = png_transform(reader, channels);
    png_read_update_info(reader->png, reader->info);
    reader->image = new_image(width, height, channels, err);
    if (!reader->image) return;
    size_t line = (size_t)width * (size_t)channels;
    if (png_get_rowbytes(reader->png, reader->info) != line)
        png_error(reader->png, "its rows have an unexpected size");
    reader->rows = base_calloc(height, sizeof *reader->rows);
    for (uint32_t y = 0; y < height; y++)
        reader->rows[y] = (uint8_t *)reader->image->data + y * line;
    png_read_image(reader->png, reader->rows);
    png_read_end(reader->png, NULL);
}

static DxArray *decode_png(const DxArray *bytes, int channels, Error *err) {
    Png *reader = base_calloc(1, sizeof *reader);
    reader->at = bytes->data;
    reader->left = bytes->bytes;
    reader->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, reader, png_failed, png_silent);
    reader->info = reader->png ? png_create_info_struct(reader->png) : NULL;
    DxArray *image = NULL;
    if (!reader->info) {
        base_fail(err, ERROR_MEMORY, "PNG: out of memory");
    } else if (setjmp(png_jmpbuf(reader->png)) == 0) {
        png_set_read_fn(reader->png, reader, png_take);
        read_png(reader, channels, err);
        image = reader->image;
        reader->image = NULL;
    } else {
        base_fail(err, ERROR_INPUT, "PNG: %s", reader->message);
    }
    png_destroy_read_struct(&reader->png, &reader->info, NULL);
    dx_array_release(reader->image);
    free(reader->rows);
    free(reader);
    return image;
}

/* ---- as an operator --------------------------------------------------------------------- */

static DxStatus decode_apply(void *self, DxSample **sample, DxRandom *random, Error *err) {
    (void)random;
    const DxStepArgs *args = self;
    const DxArray *bytes = dx_sample_need_bytes(*sample, args->key, err);
    if (!bytes) return DX_FAIL;
    DxArray *image = NULL;
    if (bytes->bytes >= 3 && memcmp(bytes->data, "\xff\xd8\xff", 3) == 0)
        image = decode_jpeg(bytes, (int)args->first, err);
    else if (bytes->bytes >= 8 && memcmp(bytes->data, "\x89PNG\r\n\x1a\n", 8) == 0)
        image = decode_png(bytes, (int)args->first, err);
    else
        base_fail(err, ERROR_INPUT, "is neither a JPEG nor a PNG file");
    if (!image) base_error_context(err, "key \"%s\"", args->key.name);
    return dx_step_put(args, sample, image);
}

DxStep dx_decode_image(const char *key, const char *to, int channels, Error *err) {
    DxStepArgs args = {.key = dx_key(key), .to = dx_key(to), .first = channels};
    args.identity = base_format("%s to %s, %d channels", key, to, channels);
    bool valid = channels == 0 || channels == 1 || channels == 3;
    return dx_step_new("decode image", decode_apply, args, valid, err);
}
