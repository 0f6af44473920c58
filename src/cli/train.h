/* What train shows of a run: mlx_lm's table, the lines it wrote before, or JSON. */
#ifndef CLI_TRAIN_H
#define CLI_TRAIN_H

#include "cli/commands.h"
#include "tune/trainer.h"

typedef enum { SHOW_TABLE, SHOW_LINES, SHOW_JSON } TrainStyle;

typedef struct TrainShow {
    TrainStyle style;
    bool quiet;
    const TuneConfig *config;
    double previous; /* train loss of the last report; 0: none yet */
    Progress progress;
    const char *doing; /* "train", "val", "test"; NULL: nothing */
} TrainShow;

TuneListener train_listener(TrainShow *show);
/* "Loading datasets". */
void train_says(const TrainShow *show, const char *text);
/* What is about to run: settings, what trains. */
void train_introduce(TrainShow *show, const TuneRun *run);
/* --dry-run: parameters, memory, and time from one step that has no effect. */
bool train_dry_run(TrainShow *show, TuneRun *run, Error *err);

#endif
