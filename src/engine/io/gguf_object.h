/* What mlx_io_gguf.ctx points to. */
#ifndef ENGINE_IO_GGUF_OBJECT_H
#define ENGINE_IO_GGUF_OBJECT_H

#include "engine/core/internal.h"
#include "mlx/c/io_types.h"

typedef struct Gguf {
    Map *arrays;   /* name -> element_node */
    Map *metadata; /* key -> element_node, element_text, or element_vector of texts */
} Gguf;

enum { GGUF_DIMS = 8, GGUF_ALIGNMENT = 32, GGUF_ALIGNMENT_MAX = 1 << 20 };

/* The types of metadata values, by their number in the file; the others are the
 * numbers of gguf_value_dtypes. */
enum {
    GGUF_VALUE_BOOL = 7,
    GGUF_VALUE_STRING = 8,
    GGUF_VALUE_ARRAY = 9,
    GGUF_VALUE_FLOAT64 = 12,
    GGUF_VALUE_TYPES
};
extern const mlx_dtype gguf_value_dtypes[GGUF_VALUE_TYPES];
int gguf_value_type(mlx_dtype dtype); /* -1 when metadata has no such type, or float64 */

Gguf *gguf_new(void);
void gguf_free(Gguf *gguf); /* NULL ok */
/* general.alignment, or 32. */
bool gguf_alignment(const Gguf *gguf, uint64_t *alignment, Error *err);

#endif
