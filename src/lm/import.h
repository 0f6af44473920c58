/* import: what a GGUF file says about its tokenizer, as files of a model folder. */
#ifndef LM_IMPORT_H
#define LM_IMPORT_H

#include "hub/hub.h"

/* Writes tokenizer.json, tokenizer_config.json, special_tokens_map.json and the
 * chat templates into an existing folder. */
bool lm_import_tokenizer(HubGguf *gguf, const char *folder, Error *err);

#endif
