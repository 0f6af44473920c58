/* Inside tune's plots: which numbers stand on an axis, and which curves there are. */
#ifndef TUNE_PLOT_AXIS_H
#define TUNE_PLOT_AXIS_H

#include "tune/curves.h"

/* Numbers on an axis: first, first + step, ... count of them, 1, 2 or 5 times a power of
 * ten apart. */
typedef struct PlotAxis {
    double low, high; /* what the axis shows */
    double first, step;
    int count, decimals;
} PlotAxis;

typedef struct PlotAxes {
    PlotAxis iter, loss;
} PlotAxes;
/* All points of all runs; at most so many numbers on each axis. */
PlotAxes plot_axes(const TuneRun *runs, size_t n_runs, int most_iters, int most_losses);
/* The text of number i; caller frees. */
char *plot_axis_text(const PlotAxis *axis, int i);
/* 0 at low to 1 at high. */
double plot_axis_place(const PlotAxis *axis, double value);

/* A curve that has points, its number among those, and its name: "train", or of several
 * runs "run train". */
typedef struct PlotCurve {
    const TuneCurve *curve;
    size_t kind, colour;
    char name[96];
} PlotCurve;
/* Caller frees. Validation comes after all training, so that it is drawn above it. */
PlotCurve *plot_curves(const TuneRun *runs, size_t n_runs, size_t *count);

#endif
