/* One micro-step: the loss of a batch and its gradient. */
#ifndef TUNE_STEP_H
#define TUNE_STEP_H

#include "tune/batch.h"
#include "tune/model.h"

typedef enum {
    TUNE_LOSS_TOKENS, /* cross-entropy of the targets */
    TUNE_LOSS_DPO,    /* Rafailov et al., 2023, eq. 7; the reference is the base */
    TUNE_LOSS_ORPO    /* Hong et al., 2024, eq. 6 */
} TuneLossKind;

typedef struct TuneStepOptions {
    TuneLossKind loss;
    bool checkpoint; /* keep only the inputs of blocks, and run them again */
    bool compat;     /* cross-entropy in the logits' dtype, as mlx_lm's */
    float beta;      /* of DPO; ORPO's lambda. 0: 0.1 */
} TuneStepOptions;

typedef struct TuneLoss {
    double sum, targets; /* the mean is sum / targets; of pairs, targets counts them */
    double accuracy;     /* of pairs: the share in which the chosen one won */
} TuneLoss;

/* grads[tune_model_count]: of the SUM of the loss, of each value's shape and dtype, owned
 * by the open scope, evaluated. A batch without targets has loss 0 and no gradient (zeros).
 * Dropout is on. false: *err. */
bool tune_gradients(TuneModel *model, const TuneBatch *batch, const TuneStepOptions *options,
                    mlx_array *grads, TuneLoss *loss, Error *err);
/* The loss alone, dropout off. */
bool tune_evaluate_batch(TuneModel *model, const TuneBatch *batch, const TuneStepOptions *options,
                         TuneLoss *loss, Error *err);

#endif
