/* The names of dtypes in safetensors headers. */
#ifndef ENGINE_IO_SAFETENSORS_H
#define ENGINE_IO_SAFETENSORS_H

#include "mlx/c/array.h"

#include <stddef.h>

/* Largest header that is read, in bytes; the format's own limit. */
enum { SAFETENSORS_HEADER_MAX = 100000000 };

typedef struct SafetensorsType {
    const char *name;
    mlx_dtype dtype;
    int written; /* the name that save uses for this dtype */
} SafetensorsType;
extern const SafetensorsType safetensors_types[];
extern const size_t safetensors_type_count;

#endif
