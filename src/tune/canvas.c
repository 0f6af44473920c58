/* Draws into an array of pixels, and writes it as PNG. */
#include "tune/canvas.h"

#include <math.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>

bool canvas_make(Canvas *canvas, int width, int height, Error *err) {
    *canvas = (Canvas){.width = width, .height = height};
    const size_t bytes = (size_t)width * (size_t)height * 3;
    canvas->pixels = base_try_alloc(bytes, 1, err);
    if (!canvas->pixels) return false;
    memset(canvas->pixels, 255, bytes);
    return true;
}

void canvas_free(Canvas *canvas) {
    free(canvas->pixels);
    *canvas = (Canvas){0};
}

static uint8_t mixed(uint8_t under, uint8_t over, double share) {
    return (uint8_t)lround(under + (over - under) * share);
}

/* share: how much of the pixel is covered, 0 to 1. */
static void blend(Canvas *canvas, int x, int y, Colour colour, double share) {
    if (x < 0 || y < 0 || x >= canvas->width || y >= canvas->height || share <= 0) return;
    uint8_t *pixel = canvas->pixels + ((size_t)y * (size_t)canvas->width + (size_t)x) * 3;
    share = fmin(share, 1);
    pixel[0] = mixed(pixel[0], colour.red, share);
    pixel[1] = mixed(pixel[1], colour.green, share);
    pixel[2] = mixed(pixel[2], colour.blue, share);
}

void canvas_fill(Canvas *canvas, int x, int y, int width, int height, Colour colour) {
    for (int row = y; row < y + height; row++)
        for (int column = x; column < x + width; column++) blend(canvas, column, row, colour, 1);
}

/* [*from, *to]: pixels of one axis that a stroke from a to b can touch. */
static void touched(double a, double b, double reach, int limit, int *from, int *to) {
    *from = (int)fmax(0, floor(fmin(a, b) - reach));
    *to = (int)fmin(limit - 1, ceil(fmax(a, b) + reach));
}

void canvas_line(Canvas *canvas, double x0, double y0, double x1, double y1, double thickness,
                 Colour colour) {
    const double reach = thickness / 2 + 1, dx = x1 - x0, dy = y1 - y0;
    const double squared = dx * dx + dy * dy;
    int top, bottom;
    touched(y0, y1, reach, canvas->height, &top, &bottom);
    for (int y = top; y <= bottom; y++) {
        /* Of a slanted line a row holds only a short part. */
        double low = 0, high = 1;
        if (fabs(dy) > 1) {
            const double a = (y + 0.5 - reach - y0) / dy, b = (y + 0.5 + reach - y0) / dy;
            low = fmax(0, fmin(a, b));
            high = fmin(1, fmax(a, b));
        }
        int left, right;
        touched(x0 + low * dx, x0 + high * dx, reach, canvas->width, &left, &right);
        for (int x = left; x <= right; x++) {
            const double px = x + 0.5 - x0, py = y + 0.5 - y0;
            double along = squared > 0 ? (px * dx + py * dy) / squared : 0;
            along = fmin(1, fmax(0, along));
            const double distance = hypot(px - along * dx, py - along * dy);
            blend(canvas, x, y, colour, thickness / 2 + 0.5 - distance);
        }
    }
}

void canvas_dot(Canvas *canvas, double x, double y, double radius, Colour colour) {
    canvas_line(canvas, x, y, x, y, 2 * radius, colour);
}

/* ---- text ---------------------------------------------------------------------------- */

static bool letter_dot(uint32_t letter, int row, int column) {
    if (row < 0 || row >= CANVAS_LINE || column < 0 || column >= CANVAS_CHARACTER - 1) return false;
    const uint32_t at = (letter < ' ' || letter > '~' ? 0x7f : letter) - ' ';
    return canvas_font[at / 16][row][at % 16 * CANVAS_CHARACTER + (uint32_t)column] != ' ';
}

/* Dots that touch are joined, at their corners only where no dot at their side does it:
 * a line of even thickness, at any scale. */
static void draw_letter(Canvas *canvas, int x, int y, int scale, uint32_t letter, Colour colour) {
    static const int steps[][2] = {{0, 1}, {1, 0}, {1, 1}, {1, -1}};
    const double thickness = scale == 1 ? 1 : 0.8 * scale;
    for (int row = 0; row < CANVAS_LINE; row++)
        for (int column = 0; column < CANVAS_CHARACTER - 1; column++) {
            if (!letter_dot(letter, row, column)) continue;
            const double px = x + (column + 0.5) * scale, py = y + (row + 0.5) * scale;
            bool alone = true;
            for (size_t i = 0; i < BASE_COUNT(steps); i++) {
                const int dy = steps[i][0], dx = steps[i][1];
                const bool slanted = dx && dy;
                if (letter_dot(letter, row - dy, column - dx)) alone = false;
                if (!letter_dot(letter, row + dy, column + dx)) continue;
                alone = false;
                if (slanted &&
                    (letter_dot(letter, row, column + dx) || letter_dot(letter, row + dy, column)))
                    continue;
                canvas_line(canvas, px, py, px + dx * scale, py + dy * scale, thickness, colour);
            }
            if (alone) canvas_dot(canvas, px, py, 0.6 * scale, colour);
        }
}

void canvas_text(Canvas *canvas, int x, int y, int scale, const char *text, Colour colour) {
    for (size_t left = strlen(text); left > 0; x += CANVAS_CHARACTER * scale) {
        uint32_t letter;
        const size_t bytes = base_utf8_decode(text, left, &letter, NULL);
        draw_letter(canvas, x, y, scale, letter, colour);
        text += bytes;
        left -= bytes;
    }
}

int canvas_text_width(const char *text, int scale) {
    int letters = 0;
    for (; *text; text++) letters += ((unsigned char)*text & 0xC0) != 0x80;
    return letters * CANVAS_CHARACTER * scale;
}

/* ---- the file -------------------------------------------------------------------------- */

typedef struct PngOutput {
    AtomicFile *file;
    Error *err;
} PngOutput;

static void write_bytes(png_structp png, png_bytep bytes, png_size_t length) {
    PngOutput *output = png_get_io_ptr(png);
    if (!base_atomic_write(output->file, bytes, length, output->err)) png_error(png, "write");
}

static void flush_nothing(png_structp png) {
    (void)png;
}

static void encode(png_structp png, png_infop info, const Canvas *canvas) {
    png_set_IHDR(png, info, (png_uint_32)canvas->width, (png_uint_32)canvas->height, 8,
                 PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (int y = 0; y < canvas->height; y++)
        png_write_row(png, canvas->pixels + (size_t)y * (size_t)canvas->width * 3);
    png_write_end(png, info);
}

bool canvas_write_png(const Canvas *canvas, const char *path, Error *err) {
    PngOutput output = {.file = base_atomic_open(path, err), .err = err};
    if (!output.file) return false;
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    bool failed = !info;
    if (info) {
        png_set_write_fn(png, &output, write_bytes, flush_nothing);
        if (setjmp(png_jmpbuf(png)))
            failed = true;
        else
            encode(png, info, canvas);
    }
    png_destroy_write_struct(&png, &info);
    if (!failed) return base_atomic_commit(output.file, err);
    base_atomic_abort(output.file);
    return base_fail(err, ERROR_IO, "%s: the picture cannot be written", path);
}
