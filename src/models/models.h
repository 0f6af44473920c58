/* models: architectures. A table row or a file each, all made of nn/.
 *
 * decoder*.c  one configurable decoder; a family is a row of a table
 * encoder.c   one configurable encoder: the BERT family, T5's encoder, CLIP's text
 *             side, with their heads */
#ifndef MODELS_MODELS_H
#define MODELS_MODELS_H

#include "hub/hub.h"
#include "nn/nn.h"

/* ---- what a folder holds ---------------------------------------------------- */

typedef enum { MODEL_UNKNOWN, MODEL_DECODER, MODEL_ENCODER } ModelKind;
/* By config.json's model_type. MODEL_UNKNOWN fills *err with the types known. */
ModelKind model_kind(const json_t *config, Error *err);
/* The tensors of an open folder as a parameter tree that borrows from it. */
NnParams *model_params(const HubModel *folder);

/* ---- decoders ---------------------------------------------------------------- */

typedef struct Decoder Decoder;
/* Lives in `params` and is freed with it. NULL on failure, which names the
 * tensor or config key. `params` must hold the folder's tensors. */
Decoder *model_decoder_load(NnParams *params, const json_t *config, Error *err);
int model_decoder_layers(const Decoder *decoder); /* that have a cache */
int model_decoder_vocab(const Decoder *decoder);
/* What a row of the given cache holds. */
void model_decoder_kv_shape(const Decoder *decoder, int cache, int *kv_heads, int *key_dim,
                            int *value_dim);
/* Texts longer than this rotate by other factors (LongRoPE); 0: none do. What a cache
 * holds by then has to be read anew, its text_length set to what is to come. */
int model_decoder_short_length(const Decoder *decoder);
/* Fills caches[0..layers) with growing caches, or rotating ones where max_size
 * is not 0. */
void model_decoder_caches(const Decoder *decoder, KvCache *caches, int max_size);
/* ids int32 [B, L] -> final hidden states [B, L, D], normalised. caches: one a
 * layer, or NULL. */
mlx_array model_decoder_hidden(const Decoder *decoder, mlx_array ids, KvCache *caches);
/* Whether logits go through a cap, so that they exist as a whole before a loss is taken. */
bool model_decoder_caps_logits(const Decoder *decoder);
/* Hidden states [..., D] -> logits [..., V]. */
mlx_array model_decoder_head(const Decoder *decoder, mlx_array hidden);
/* The logits of some tokens only, int32 [n], in float32: [..., n]. */
mlx_array model_decoder_head_some(const Decoder *decoder, mlx_array hidden, mlx_array tokens);

/* The same one block at a time, for who wants to run blocks again, or others' weights
 * in them. What a pass holds belongs to the scope that was open when it began. */
typedef struct DecoderPass {
    const Decoder *decoder;
    KvCache *caches;
    mlx_array places; /* int32 [B, L]: each token's place in its document; {0}: as they lie */
    int text_length;  /* tokens of the whole text, which some rotations depend on */
    Mask full, sliding, chunked;
} DecoderPass;
/* segments int32 [B, L], or {0}: the document that each token belongs to; it sees what
 * came before it there. places then says where in it each token stands. */
DecoderPass model_pass_begin(const Decoder *decoder, mlx_array ids, KvCache *caches,
                             mlx_array segments, mlx_array places);
mlx_array model_pass_embed(const DecoderPass *pass, mlx_array ids);
int model_decoder_blocks(const Decoder *decoder);
/* states[0]: [B, L, D], in and out. states[1], states[2]: what some families' blocks
 * pass on, {0} at first. */
void model_pass_block(const DecoderPass *pass, int block, mlx_array states[3]);
/* The same with the block's tensors taken from `tensors`, under their names; nothing of
 * that tree is needed afterwards. A tensor that is missing is a failure of the thread. */
void model_pass_block_from(const DecoderPass *pass, int block, NnParams *tensors,
                           const json_t *config, mlx_array states[3]);
mlx_array model_pass_end(const DecoderPass *pass, mlx_array x);
/* "model.layers.3.": what the names of a block's tensors begin with. */
void model_decoder_block_prefix(const Decoder *decoder, int block, char *text, size_t bytes);

/* Gives a folder's tensors the names and layouts that mlx_lm writes (a stack of all
 * experts, a head's matrices apart, ...), whatever tool wrote them. Lazy, and
 * nothing changes when it is applied again. */
bool model_decoder_sanitize(NnParams *params, const json_t *config, Error *err);
/* What converting leaves alone: modules that stay at 8 bits and groups of 64 when
 * all else is packed harder, and tensors that keep their dtype. */
bool model_decoder_keeps_8_bits(const json_t *config, const char *path);
bool model_decoder_keeps_dtype(const json_t *config, const char *name);

/* ---- encoders ----------------------------------------------------------------- */

typedef struct Encoder Encoder;
Encoder *model_encoder_load(NnParams *params, const json_t *config, Error *err);
int model_encoder_dim(const Encoder *encoder);
int model_encoder_max_tokens(const Encoder *encoder); /* positions; INT_MAX: no limit (T5) */
int model_encoder_vocab(const Encoder *encoder);
int model_encoder_labels(const Encoder *encoder); /* 0: no classification head */
int model_encoder_pad_id(const Encoder *encoder);
/* ids and types int32 [B, L] (types may be {0}: all 0), lengths[B] real tokens a
 * row, padding on the right -> last hidden states [B, L, D]. */
mlx_array model_encoder_hidden(const Encoder *encoder, mlx_array ids, mlx_array types,
                               const int *lengths);
/* Hidden states -> [B, labels]. lengths[B] real tokens a row. */
mlx_array model_encoder_classify(const Encoder *encoder, mlx_array hidden, const int *lengths);
/* The family's own summary of a text, [B, P]: tanh of a dense layer over the first
 * token (BERT), the state at the closing token, projected if the folder has a
 * projection (CLIP). ids as for hidden. Only where has_pooled says so. */
bool model_encoder_has_pooled(const Encoder *encoder);
mlx_array model_encoder_pooled(const Encoder *encoder, mlx_array hidden, mlx_array ids);

#endif
