/* Inside lm: what an open model consists of, for the files of this room. */
#ifndef LM_MODEL_H
#define LM_MODEL_H

#include "lm/lm.h"
#include "lm/source.h"
#include "models/models.h"
#include "text/text.h"

struct LmModel {
    HubModel *folder;
    LmSource *source; /* of weights that another tool quantised; else NULL */
    NnParams *params, *adapter;
    Decoder *decoder;
    TextTokenizer *tokenizer;
    TextChatTemplate *chat; /* opened on first use */
    int *stop_ids;
    size_t n_stop_ids;
    size_t parameters, bytes;
};

struct LmCache {
    LmCacheOptions options;
    int n_layers;
    KvCache *layers;
    int short_length; /* what longer texts rotate otherwise; 0: nothing does, or must not */
    int expected;     /* tokens that the text under way will have */
    TextIds held;     /* what was read, where short_length is not 0 */
};

/* Runs ids through the model behind what the cache holds; their final hidden states
 * [1, count, D], lazy. Needs an open scope. */
mlx_array lm_read(const LmModel *model, LmCache *cache, const int *ids, size_t count);
/* Says that `count` more tokens will be read in pieces that are one text. */
void lm_cache_expect(LmCache *cache, size_t count);

/* Quantises what has become long enough. After every forward pass. */
void lm_cache_settle(LmCache *cache);
/* Evaluates everything the cache holds. */
bool lm_cache_eval(const LmCache *cache);

/* Sets the parameter tree's dtype from a name ("float32"); NULL: nothing. */
bool lm_params_dtype(NnParams *params, const char *dtype, Error *err);
/* The tokenizer of a folder, checked against the model's rows. *tokenizer is
 * NULL, and that is fine, when the folder has none. */
bool lm_open_tokenizer(const char *folder, int rows, TextTokenizer **tokenizer, Error *err);
/* Reads the adapter in `folder`: its low-rank pairs and their scale, or fully tuned
 * tensors, which replace those of `params`. */
bool lm_adapter_read(const char *folder, NnParams *params, NnParams **adapter, float *scale,
                     Error *err);
/* The same, and the layers that will be loaded take it. */
bool lm_adapter_attach(const char *folder, NnParams *params, NnParams **adapter, Error *err);

#endif
