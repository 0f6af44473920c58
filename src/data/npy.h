/* Inside data: NumPy's .npy files (format 1.0 to 3.0). */
#ifndef DATA_NPY_H
#define DATA_NPY_H

#include "data/data.h"

typedef struct NpyHeader {
    DxType type;
    int rank;
    int64_t shape[DX_MAX_RANK];
    bool columns_first; /* Fortran's order */
    bool swapped;       /* big-endian */
    size_t data;        /* where the elements begin */
} NpyHeader;

/* Of bytes[0..length), which must hold all of the file: that the elements are there
 * is checked. */
bool dx_npy_header(const uint8_t *bytes, size_t length, NpyHeader *header, Error *err);
/* The array, row-major and of this machine's byte order. */
DxArray *dx_npy_parse(const uint8_t *bytes, size_t length, Error *err);

#endif
