/* A recording: the graph that a function built from placeholders, ready to be
 * built again from other inputs without the function. Immutable once made; shared
 * by references. */
#ifndef ENGINE_GRAD_RECORD_H
#define ENGINE_GRAD_RECORD_H

#include "engine/core/engine.h"
#include "mlx/c/closure.h"

typedef struct Recording Recording;

/* Runs fun on placeholders of the inputs' shapes and dtypes. What fun computed
 * from other arrays is evaluated now and kept. NULL after reporting. */
Recording *recording_make(mlx_closure fun, Node *const *inputs, size_t count);
Recording *recording_retain(Recording *recording);
void recording_release(Recording *recording); /* NULL ok */
/* Can it be built for other shapes of as many dimensions? */
bool recording_is_shapeless(const Recording *recording);
/* The outputs for inputs of the recorded dtypes and of the recorded shapes (or of
 * others, when it is shapeless). False after reporting. */
bool recording_replay(const Recording *recording, Node *const *inputs, mlx_vector_array *res);

/* Is a recording under way in this thread? */
bool recording_runs(void);

/* The shape of a node of recorded's operation and parameters over other inputs;
 * false when the operation cannot follow (silently) or the inputs do not fit
 * (reported). With inputs NULL: can it follow at all? */
bool shape_infer(const Node *recorded, Node *const *inputs, int *shape, int *ndim);

#endif
