/* train plot: the loss of training runs, in the terminal or as a PNG. */
#include "cli/commands.h"
#include "tune/plot.h"

#include <langinfo.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

typedef struct PlotArguments {
    OptionList folders;
    const char *output;
    OptionInt width, height;
    bool json;
} PlotArguments;
#define ARGUMENTS PlotArguments

static const Option option_table[] = {
    POSITIONAL("DIR", LIST, folders, true, "adapter folders, or their metrics.jsonl"),
    OPTION("output", "o", TEXT, output, NULL, "FILE", "write a PNG; absent: draw in the terminal"),
    OPTION("width", NULL, INT, width, NULL, "N",
           "characters, of a PNG pixels; absent: the terminal's, 960"),
    OPTION("height", NULL, INT, height, NULL, "N", "lines, of a PNG pixels; absent: 24, 540"),
    OPTION("json", NULL, FLAG, json, NULL, NULL,
           "a JSON object a run (first, last and best losses) in place of a drawing"),
};
#undef ARGUMENTS

static bool read_size(const PlotArguments *arguments, int *width, int *height, Error *err) {
    struct winsize window = {0};
    const bool png = arguments->output != NULL;
    const bool known = isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 &&
                       window.ws_col >= 40;
    const int least_width = png ? TUNE_PLOT_LEAST_WIDTH : TUNE_PLOT_LEAST_COLUMNS;
    const int least_height = png ? TUNE_PLOT_LEAST_HEIGHT : TUNE_PLOT_LEAST_LINES;
    OptionInt wide = arguments->width, high = arguments->height;
    if (!wide.given) wide.value = png ? 960 : known ? window.ws_col - 1 : 80;
    if (!high.given)
        high.value = png     ? 540
                     : known ? BASE_MIN(24, BASE_MAX(window.ws_row - 2, least_height))
                             : 24;
    const int most = png ? TUNE_PLOT_MOST : 1000;
    return sampling_int("width", wide, least_width, most, width, err) &&
           sampling_int("height", high, least_height, most, height, err);
}

static bool draw(const PlotArguments *arguments, const TuneRun *runs, size_t count, Error *err) {
    if (arguments->json)
        for (size_t i = 0; i < count; i++) output_json(tune_run_json(&runs[i]));
    int width, height;
    if (arguments->json && !arguments->output) return true;
    if (!read_size(arguments, &width, &height, err)) return false;
    if (arguments->output) return tune_plot_png(runs, count, width, height, arguments->output, err);
    const char *terminal = getenv("TERM");
    const bool rich = isatty(STDOUT_FILENO) && !getenv("NO_COLOR") && terminal &&
                      strcmp(terminal, "dumb") != 0 && strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    StrBuf out = {0};
    tune_plot_text(runs, count, &(TunePlotText){.width = width, .height = height, .rich = rich},
                   &out);
    fwrite(out.data, 1, out.length, stdout);
    base_str_free(&out);
    return true;
}

static int run(const void *given, Error *err) {
    const PlotArguments *arguments = given;
    TuneRun *runs = base_calloc(arguments->folders.count, sizeof *runs);
    size_t count = 0;
    bool good = true;
    while (good && count < arguments->folders.count) {
        good = tune_run_read(arguments->folders.items[count], &runs[count], err);
        count += good;
    }
    good = good && draw(arguments, runs, count, err);
    for (size_t i = 0; i < count; i++) tune_run_free(&runs[i]);
    free(runs);
    return good ? 0 : 1;
}

const Command train_plot_command = {.name = "train plot",
                                    .summary = "Draws the loss of training runs.",
                                    OPTIONS(option_table),
                                    .arguments_size = sizeof(PlotArguments),
                                    .run = run};
