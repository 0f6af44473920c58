/* The picture of training runs as lines of text. */
#include "tune/plot.h"

#include "tune/plot_axis.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A character of Braille is 2 x 4 dots; in ASCII one. */
typedef struct Screen {
    int columns, lines, dots_x, dots_y;
    uint8_t *dots;  /* [lines, columns]: Braille's bits, or 1 */
    uint8_t *owner; /* [lines, columns]: the curve drawn last */
} Screen;

static const char marks[] = "*o+x#@%&";
static const int colours[] = {34, 33, 32, 35, 36, 31, 37, 90}; /* of ANSI terminals */

static void set_dot(Screen *screen, int x, int y, size_t curve) {
    if (x < 0 || y < 0 || x >= screen->columns * screen->dots_x ||
        y >= screen->lines * screen->dots_y)
        return;
    static const uint8_t bits[4][2] = {{1, 8}, {2, 16}, {4, 32}, {64, 128}};
    const int cell = y / screen->dots_y * screen->columns + x / screen->dots_x;
    screen->dots[cell] |= bits[y % screen->dots_y][x % screen->dots_x];
    screen->owner[cell] = (uint8_t)curve;
}

static void draw_curve(Screen *screen, const PlotAxes *axes, const TuneCurve *curve,
                       size_t number) {
    const int right = screen->columns * screen->dots_x - 1,
              bottom = screen->lines * screen->dots_y - 1;
    double last_x = 0, last_y = 0;
    for (size_t i = 0; i < curve->count; i++) {
        const double x = plot_axis_place(&axes->iter, curve->points[i].iter) * right;
        const double y = (1 - plot_axis_place(&axes->loss, curve->points[i].loss)) * bottom;
        if (i == 0) {
            last_x = x;
            last_y = y;
        }
        const int steps = 1 + (int)fmax(fabs(x - last_x), fabs(y - last_y));
        for (int k = 0; k <= steps; k++)
            set_dot(screen, (int)lround(last_x + (x - last_x) * k / steps),
                    (int)lround(last_y + (y - last_y) * k / steps), number);
        last_x = x;
        last_y = y;
    }
}

static void append_cell(const Screen *screen, const PlotCurve *curves, int cell, bool rich,
                        StrBuf *out) {
    const uint8_t dots = screen->dots[cell];
    const PlotCurve *curve = &curves[screen->owner[cell]];
    if (!dots) {
        base_str_append_char(out, ' ');
    } else if (rich) {
        base_str_appendf(out, "\033[%dm", colours[curve->colour % BASE_COUNT(colours)]);
        base_str_append_codepoint(out, 0x2800u + dots);
        base_str_append(out, "\033[0m");
    } else {
        base_str_append_char(out, marks[screen->owner[cell] % (sizeof marks - 1)]);
    }
}

static void append_legend(const PlotCurve *curves, size_t count, int margin, bool rich,
                          StrBuf *out) {
    base_str_appendf(out, "%*s", margin + 1, "");
    for (size_t i = 0; i < count; i++) {
        if (rich)
            base_str_appendf(out, " \033[%dm━━\033[0m %s",
                             colours[curves[i].colour % BASE_COUNT(colours)], curves[i].name);
        else
            base_str_appendf(out, " %c %s", marks[i % (sizeof marks - 1)], curves[i].name);
    }
    base_str_append_char(out, '\n');
}

/* Numbers below the axis, each around its place; one that would touch the last is left
 * out. */
static void append_iters(const PlotAxis *axis, int columns, int margin, StrBuf *out) {
    const int width = margin + 1 + columns;
    char *line = base_alloc((size_t)width + 1);
    memset(line, ' ', (size_t)width);
    line[width] = '\0';
    int free_from = 0;
    for (int i = 0; i < axis->count; i++) {
        char *text = plot_axis_text(axis, i);
        const int length = (int)strlen(text);
        const double place = plot_axis_place(axis, axis->first + i * axis->step);
        const int middle = margin + 1 + (int)lround(place * (columns - 1));
        const int begins = BASE_MIN(middle - length / 2, width - length);
        if (begins >= free_from) {
            memcpy(line + begins, text, (size_t)length);
            free_from = begins + length + 1;
        }
        free(text);
    }
    base_str_appendf(out, "%s\n", line);
    free(line);
}

/* The line on which each number of the loss stands: texts[lines], NULL where none does. */
static char **loss_texts(const PlotAxis *axis, int lines, int *widest) {
    char **texts = base_calloc((size_t)lines, sizeof *texts);
    *widest = 0;
    for (int i = 0; i < axis->count; i++) {
        const double place = plot_axis_place(axis, axis->first + i * axis->step);
        const int line = (int)lround((1 - place) * (lines - 1));
        if (texts[line]) continue;
        texts[line] = plot_axis_text(axis, i);
        *widest = BASE_MAX(*widest, (int)strlen(texts[line]));
    }
    return texts;
}

void tune_plot_text(const TuneRun *runs, size_t n_runs, const TunePlotText *options, StrBuf *out) {
    const bool rich = options->rich;
    size_t count;
    PlotCurve *curves = plot_curves(runs, n_runs, &count);
    Screen screen = {.lines = options->height - 3, .dots_x = rich ? 2 : 1, .dots_y = rich ? 4 : 1};
    const PlotAxes axes =
        plot_axes(runs, n_runs, options->width / 12, BASE_MAX(2, screen.lines / 2));
    int margin;
    char **texts = loss_texts(&axes.loss, screen.lines, &margin);
    screen.columns = options->width - margin - 2;
    const size_t cells = (size_t)(screen.lines * screen.columns);
    screen.dots = base_calloc(cells, 2);
    screen.owner = screen.dots + cells;
    for (size_t i = 0; i < count; i++) draw_curve(&screen, &axes, curves[i].curve, i);
    append_legend(curves, count, margin, rich, out);
    for (int line = 0; line < screen.lines; line++) {
        const char *text = texts[line] ? texts[line] : "";
        base_str_appendf(out, "%*s%s", margin, text,
                         rich ? (text[0] ? "┤" : "│") : (text[0] ? "+" : "|"));
        for (int c = 0; c < screen.columns; c++)
            append_cell(&screen, curves, line * screen.columns + c, rich, out);
        while (out->data[out->length - 1] == ' ') out->data[--out->length] = '\0';
        base_str_append_char(out, '\n');
        free(texts[line]);
    }
    base_str_appendf(out, "%*s%s", margin, "", rich ? "└" : "+");
    for (int c = 0; c < screen.columns; c++) base_str_append(out, rich ? "─" : "-");
    base_str_append_char(out, '\n');
    append_iters(&axes.iter, screen.columns, margin, out);
    free(texts);
    free(screen.dots);
    free(curves);
}
