/* Inside tune: what a trainable model consists of. */
#ifndef TUNE_INTERNAL_H
#define TUNE_INTERNAL_H

#include "lm/model.h"
#include "tune/model.h"

enum { TUNE_OUTSIDE = -1 }; /* a tensor's block when it is in none */

/* Where a trainable tensor goes while a pass is built. */
typedef enum { TUNE_LEAF_M, TUNE_LEAF_A, TUNE_LEAF_B, TUNE_LEAF_WHOLE } TuneLeaf;

typedef struct TuneTensor {
    char *name;
    mlx_array value;  /* held */
    mlx_array base;   /* held: the untuned tensor; WHOLE only */
    NnModule *module; /* NULL: WHOLE */
    TuneLeaf leaf;
    int block;
    mlx_array current; /* in force: value, or what a transform traces; borrowed */
} TuneTensor;

struct TuneModel {
    LmModel *lm;
    TuneKind kind;
    int rank;
    float scale;
    Dropout dropout;
    TuneTensor *tensors; /* those of one block stand together */
    size_t count, capacity;
    json_t *keys;      /* that were given, or NULL */
    bool pairs_differ; /* modules have ranks or scales of their own */
    int first_block;   /* the lowest that trains, or that stands on something that does */
};

/* Tensors [first, first + count) take these values while a pass is built. */
void tune_model_bind(TuneModel *model, size_t first, size_t count, const mlx_array *values);
/* All take their own again. */
void tune_model_unbind(TuneModel *model);
/* The base without adapter, or with the tensors it had; until tune_model_unbind. */
void tune_model_bind_base(TuneModel *model);
/* Those of a block; TUNE_OUTSIDE's are not together. */
size_t tune_model_block(const TuneModel *model, int block, size_t *first);

/* ---- files of adapters (adapter.c) ---- */

/* The file that a path means: itself, or the one in the folder. Caller frees. */
char *tune_adapter_file(const char *path);
/* adapter_config.json beside an adapter's file; *config is NULL where there is none. Caller
 * json_decref's. */
bool tune_adapter_config(const char *file, json_t **config, Error *err);

#endif
