/* In which order mlx_lm visits the modules of a block. */
#ifndef TUNE_ORDER_H
#define TUNE_ORDER_H

#include "base/base.h"

/* The paths, from the block on, of the modules that adapters stand on by default, each
 * between spaces, in the order in which mlx_lm draws their first values: children in
 * reverse order of definition. One list holds all kinds of blocks of a family. config's
 * model_type counts, else its text_config's, else Llama's order. Static. */
const char *tune_module_order(const json_t *config);

#endif
