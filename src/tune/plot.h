/* Pictures of training runs: loss over iterations, several runs in one. */
#ifndef TUNE_PLOT_H
#define TUNE_PLOT_H

#include "tune/curves.h"

/* A PNG of width x height pixels with axes and a legend: training a line, validation a
 * line with dots. Whole or not at all. */
enum { TUNE_PLOT_LEAST_WIDTH = 320, TUNE_PLOT_LEAST_HEIGHT = 200, TUNE_PLOT_MOST = 8192 };
bool tune_plot_png(const TuneRun *runs, size_t n_runs, int width, int height, const char *path,
                   Error *err);

/* The same as lines of text, width x height characters. Dots of Braille in colours
 * for a terminal that has both; else ASCII, with a mark of its own for each curve. */
typedef struct TunePlotText {
    int width, height;
    bool rich;
} TunePlotText;
enum { TUNE_PLOT_LEAST_COLUMNS = 40, TUNE_PLOT_LEAST_LINES = 10 };
void tune_plot_text(const TuneRun *runs, size_t n_runs, const TunePlotText *options, StrBuf *out);

#endif
