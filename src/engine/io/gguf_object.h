/* What mlx_io_gguf.ctx points to. */
#ifndef ENGINE_IO_GGUF_OBJECT_H
#define ENGINE_IO_GGUF_OBJECT_H

#include "engine/core/internal.h"
#include "mlx/c/io_types.h"

typedef struct Gguf {
    Map *arrays;   /* name -> element_node */
    Map *metadata; /* key -> element_node, element_text, or element_vector of texts */
} Gguf;

Gguf *gguf_new(void);
void gguf_free(Gguf *gguf); /* NULL ok */

#endif
