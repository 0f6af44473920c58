/* The picture of training runs as PNG. */
#include "tune/plot.h"

#include "tune/canvas.h"
#include "tune/plot_axis.h"

#include <math.h>
#include <stdlib.h>

/* Colours that also the colour-blind tell apart (Okabe and Ito, 2008). */
static const Colour palette[] = {{0, 114, 178},  {213, 94, 0},  {0, 158, 115}, {204, 121, 167},
                                 {86, 180, 233}, {230, 159, 0}, {0, 0, 0},     {120, 94, 60}};
static const Colour ink = {60, 60, 60}, grid = {228, 228, 228}, frame = {150, 150, 150};

/* Pixels of a line's sample in the legend, at scale 1. */
enum { LEGEND_SAMPLE = 12 };

typedef struct Place {
    int x, y;
} Place;

typedef struct Picture {
    Canvas canvas;
    PlotAxes axes;
    PlotCurve *curves;
    size_t n_curves;
    Place *entries;               /* [n_curves]: of the legend */
    int scale;                    /* of letters; other lengths follow it */
    int left, top, width, height; /* where curves are drawn */
} Picture;

static double place_x(const Picture *p, double iter) {
    return p->left + plot_axis_place(&p->axes.iter, iter) * p->width;
}

static double place_y(const Picture *p, double loss) {
    return p->top + (1 - plot_axis_place(&p->axes.loss, loss)) * p->height;
}

/* Entries in lines from the left; the number of lines. */
static int place_legend(Picture *p) {
    const int s = p->scale, begin = p->left + 2 * CANVAS_CHARACTER * s;
    int x = begin, lines = 1;
    p->entries = base_calloc(p->n_curves, sizeof *p->entries);
    for (size_t i = 0; i < p->n_curves; i++) {
        const int width = LEGEND_SAMPLE * s + canvas_text_width(p->curves[i].name, s);
        if (x > begin && x + width > p->left + p->width) {
            x = begin;
            lines++;
        }
        const int line = CANVAS_LINE * s + CANVAS_LINE * s / 2;
        p->entries[i] = (Place){.x = x, .y = CANVAS_LINE * s / 2 + (lines - 1) * line};
        x += width + 2 * CANVAS_CHARACTER * s;
    }
    return lines;
}

static double thickness_of(const Picture *p, const PlotCurve *curve) {
    return (curve->kind == TUNE_VAL ? 1.0 : 0.75) * p->scale;
}

/* Room for the numbers left and below, the legend above. */
static void lay_out(Picture *p) {
    const int letter = CANVAS_CHARACTER * p->scale, line = CANVAS_LINE * p->scale;
    int widest = 0;
    for (int i = 0; i < p->axes.loss.count; i++) {
        char *text = plot_axis_text(&p->axes.loss, i);
        widest = BASE_MAX(widest, canvas_text_width(text, p->scale));
        free(text);
    }
    p->left = widest + 2 * letter;
    p->width = p->canvas.width - p->left - 3 * letter;
    p->top = line / 2 + place_legend(p) * (line + line / 2);
    p->height = p->canvas.height - p->top - 3 * line - line / 2;
}

static void draw_axes(Picture *p) {
    Canvas *canvas = &p->canvas;
    const int s = p->scale;
    for (int i = 0; i < p->axes.loss.count; i++) {
        const int y = (int)lround(place_y(p, p->axes.loss.first + i * p->axes.loss.step));
        char *text = plot_axis_text(&p->axes.loss, i);
        canvas_fill(canvas, p->left, y, p->width, 1, grid);
        canvas_text(canvas, p->left - canvas_text_width(text, s) - 3 * s,
                    y - CANVAS_CAPITAL * s / 2, s, text, ink);
        free(text);
    }
    for (int i = 0; i < p->axes.iter.count; i++) {
        const int x = (int)lround(place_x(p, p->axes.iter.first + i * p->axes.iter.step));
        char *text = plot_axis_text(&p->axes.iter, i);
        canvas_fill(canvas, x, p->top, 1, p->height, grid);
        canvas_text(canvas, x - canvas_text_width(text, s) / 2, p->top + p->height + 4 * s, s, text,
                    ink);
        free(text);
    }
    canvas_fill(canvas, p->left, p->top + p->height, p->width + 1, 1, frame);
    canvas_fill(canvas, p->left, p->top, 1, p->height, frame);
    canvas_text(canvas, p->left + (p->width - canvas_text_width("iteration", s)) / 2,
                canvas->height - CANVAS_LINE * s - 2 * s, s, "iteration", ink);
    canvas_text(canvas, 2 * s, (int)(0.5 * CANVAS_LINE * s), s, "loss", ink);
}

static void draw_legend(Picture *p) {
    const int s = p->scale;
    for (size_t i = 0; i < p->n_curves; i++) {
        const PlotCurve *curve = &p->curves[i];
        const Colour colour = palette[curve->colour % BASE_COUNT(palette)];
        const int x = p->entries[i].x, y = p->entries[i].y;
        const double middle = y + CANVAS_CAPITAL * s / 2.0, from = x, to = x + 9 * s;
        canvas_line(&p->canvas, from, middle, to, middle, thickness_of(p, curve), colour);
        if (curve->kind == TUNE_VAL)
            canvas_dot(&p->canvas, (from + to) / 2, middle, 1.75 * s, colour);
        canvas_text(&p->canvas, x + LEGEND_SAMPLE * s, y, s, curve->name, ink);
    }
}

static void draw_curve(Picture *p, const PlotCurve *curve) {
    const Colour colour = palette[curve->colour % BASE_COUNT(palette)];
    const TuneCurve *c = curve->curve;
    const bool dots = curve->kind == TUNE_VAL || c->count == 1;
    const double thickness = thickness_of(p, curve);
    for (size_t i = 0; i < c->count; i++) {
        const double x = place_x(p, c->points[i].iter), y = place_y(p, c->points[i].loss);
        if (i > 0)
            canvas_line(&p->canvas, place_x(p, c->points[i - 1].iter),
                        place_y(p, c->points[i - 1].loss), x, y, thickness, colour);
        if (dots && c->count <= 200) canvas_dot(&p->canvas, x, y, 1.75 * p->scale, colour);
    }
}

bool tune_plot_png(const TuneRun *runs, size_t n_runs, int width, int height, const char *path,
                   Error *err) {
    Picture picture = {.scale = BASE_MAX(1, BASE_MIN(width / 450, height / 250))};
    if (!canvas_make(&picture.canvas, width, height, err)) return false;
    picture.axes = plot_axes(runs, n_runs, width / (60 * picture.scale),
                             BASE_MAX(2, height / (30 * picture.scale)));
    picture.curves = plot_curves(runs, n_runs, &picture.n_curves);
    lay_out(&picture);
    draw_axes(&picture);
    for (size_t i = 0; i < picture.n_curves; i++) draw_curve(&picture, &picture.curves[i]);
    draw_legend(&picture);
    const bool good = canvas_write_png(&picture.canvas, path, err);
    free(picture.entries);
    free(picture.curves);
    canvas_free(&picture.canvas);
    return good;
}
