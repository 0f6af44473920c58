/* What an adapter's file says about the adapter: rank, scale and modules, so that a run
 * can begin from it without being told. */
#ifndef TUNE_ADOPT_H
#define TUNE_ADOPT_H

#include "base/base.h"

typedef struct TuneAdopted {
    bool peft;      /* its names, or its settings, are PEFT's */
    int rank;       /* of most modules; 0: the file has no low-rank pair */
    json_t *ranks;  /* {"path": rank} of modules that differ, or NULL */
    double scale;   /* 0: nothing beside the file says it */
    double dropout; /* the same */
    json_t *keys;   /* module paths: from the block on when blocks agree, else whole */
    int num_layers; /* of the last blocks that `keys` are meant for; 0: all, or whole paths */
} TuneAdopted;

/* From the file (of mlx_lm or PEFT) that `path` is or that lies in the folder `path`, and
 * adapter_config.json beside it. blocks: how many the model has. Reads no values.
 * tune_adopted_free. */
bool tune_adopt(const char *path, int blocks, TuneAdopted *adopted, Error *err);
void tune_adopted_free(TuneAdopted *adopted);

#endif
