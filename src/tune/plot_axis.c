/* Round numbers for axes. */
#include "tune/plot_axis.h"

#include <math.h>

static PlotAxis axis_of(double low, double high, int most) {
    if (!(high > low)) {
        const double around = fmax(fabs(low) * 0.05, 0.5);
        high = low + around;
        low -= around;
    }
    const double rough = (high - low) / BASE_MAX(most - 1, 1);
    const double power = pow(10, floor(log10(rough)));
    static const double nice[] = {1, 2, 5, 10};
    size_t i = 0;
    while (i + 1 < BASE_COUNT(nice) && nice[i] * power < rough * (1 - 1e-9)) i++;
    PlotAxis axis = {.low = low, .high = high, .step = nice[i] * power};
    axis.first = ceil(low / axis.step - 1e-9) * axis.step;
    axis.count = (int)floor((high - axis.first) / axis.step + 1e-9) + 1;
    axis.decimals = (int)fmax(0, -floor(log10(axis.step) + 1e-9));
    return axis;
}

PlotAxes plot_axes(const TuneRun *runs, size_t n_runs, int most_iters, int most_losses) {
    TunePoint low = {INFINITY, INFINITY}, high = {-INFINITY, -INFINITY};
    for (size_t r = 0; r < n_runs; r++)
        for (size_t c = 0; c < TUNE_CURVES; c++)
            for (size_t i = 0; i < runs[r].curves[c].count; i++) {
                const TunePoint *point = &runs[r].curves[c].points[i];
                low.iter = fmin(low.iter, point->iter);
                low.loss = fmin(low.loss, point->loss);
                high.iter = fmax(high.iter, point->iter);
                high.loss = fmax(high.loss, point->loss);
            }
    if (low.iter < 0.1 * high.iter) low.iter = 0;
    const double margin = (high.loss - low.loss) * 0.04;
    return (PlotAxes){.iter = axis_of(low.iter, high.iter, most_iters),
                      .loss = axis_of(low.loss - margin, high.loss + margin, most_losses)};
}

char *plot_axis_text(const PlotAxis *axis, int i) {
    const double value = axis->first + i * axis->step;
    if (fabs(value) >= 1e7 || axis->decimals > 8) return base_format("%.3g", value);
    return base_format("%.*f", axis->decimals, fabs(value) < axis->step * 1e-6 ? 0 : value);
}

double plot_axis_place(const PlotAxis *axis, double value) {
    return (value - axis->low) / (axis->high - axis->low);
}

PlotCurve *plot_curves(const TuneRun *runs, size_t n_runs, size_t *count) {
    PlotCurve *curves = base_calloc(n_runs * TUNE_CURVES, sizeof *curves);
    *count = 0;
    for (size_t c = 0; c < TUNE_CURVES; c++)
        for (size_t r = 0; r < n_runs; r++) {
            if (runs[r].curves[c].count == 0) continue;
            PlotCurve *curve = &curves[(*count)++];
            curve->curve = &runs[r].curves[c];
            curve->kind = c;
            curve->colour = n_runs > 1 ? r : c;
            if (n_runs > 1)
                snprintf(curve->name, sizeof curve->name, "%.80s %s", runs[r].name,
                         tune_curve_names[c]);
            else
                snprintf(curve->name, sizeof curve->name, "%s", tune_curve_names[c]);
        }
    return curves;
}
