/* Inside tune's plots: pixels of a picture, lines and text on them, and the PNG file.
 * Coordinates are in pixels, (0, 0) the corner at the top left; what lies outside is
 * not drawn. */
#ifndef TUNE_CANVAS_H
#define TUNE_CANVAS_H

#include "base/base.h"

typedef struct Colour {
    uint8_t red, green, blue;
} Colour;

typedef struct Canvas {
    int width, height;
    uint8_t *pixels; /* [height, width, 3] */
} Canvas;

/* White; canvas_free. Fails on a size that memory does not hold. */
bool canvas_make(Canvas *canvas, int width, int height, Error *err);
void canvas_free(Canvas *canvas);

void canvas_fill(Canvas *canvas, int x, int y, int width, int height, Colour colour);
/* Anti-aliased, with round ends: each pixel takes the colour as far as its centre lies
 * within half the thickness of the line. */
void canvas_line(Canvas *canvas, double x0, double y0, double x1, double y1, double thickness,
                 Colour colour);
void canvas_dot(Canvas *canvas, double x, double y, double radius, Colour colour);

/* Text in one line, its top left corner at (x, y). A character is 6 x 9 dots, of which
 * 5 x 7 lie on the line; dots are scale pixels apart. Other than ASCII is a box. */
enum { CANVAS_CHARACTER = 6, CANVAS_LINE = 9, CANVAS_CAPITAL = 7 };
void canvas_text(Canvas *canvas, int x, int y, int scale, const char *text, Colour colour);
int canvas_text_width(const char *text, int scale);

/* Whole or not at all. */
bool canvas_write_png(const Canvas *canvas, const char *path, Error *err);

/* Dots of the characters ' ' to DEL: 6 rows of 16 characters side by side, each 9 lines
 * high, 5 wide and 1 apart. */
extern const char *const canvas_font[6][9];

#endif
