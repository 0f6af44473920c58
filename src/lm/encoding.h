/* What embedders and rerankers share: an open encoder, and running many texts
 * of different lengths through it. */
#ifndef LM_ENCODING_H
#define LM_ENCODING_H

#include "lm/model.h"

typedef struct EncoderModel {
    HubModel *folder;
    NnParams *params;
    Encoder *encoder;
    TextTokenizer *tokenizer;
} EncoderModel;

/* Closes what it opened on failure. The tokenizer is required unless options
 * say otherwise. */
bool lm_encoder_open(EncoderModel *model, const char *folder, const LmOpenOptions *options,
                     Error *err);
void lm_encoder_close(EncoderModel *model);
/* The most tokens a text may have: what the folder says, within the positions. */
int lm_encoder_limit(const EncoderModel *model, int stated);

/* A tokenised text. */
typedef struct EncoderRow {
    int32_t *ids, *types; /* [length]; types NULL: all 0 */
    int length;
    size_t index; /* of the text, before sorting */
} EncoderRow;

/* Called for each batch with its last hidden states, [batch, length, D]. */
typedef bool (*EncoderBatch)(void *context, const EncoderRow *rows, int batch, int length,
                             mlx_array hidden, Error *err);
/* Sorts rows by length and runs batches of bounded size. */
bool lm_encoder_run(const EncoderModel *model, EncoderRow *rows, size_t count, EncoderBatch done,
                    void *context, Error *err);

/* Last hidden states [1, length, D] for ids -> the text's vector out[dim]. */
bool lm_embedder_finish(const LmEmbedder *embedder, mlx_array hidden, int length, float *out,
                        Error *err);
const EncoderModel *lm_embedder_model(const LmEmbedder *embedder);

#endif
