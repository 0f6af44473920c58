/* What the ways of attention share: a run, and the block of rows of a thread. */
#ifndef CPU_ATTENTION_BLOCK_H
#define CPU_ATTENTION_BLOCK_H

#include "base/base.h"
#include "cpu/table.h"

#include <stdatomic.h>

typedef struct Run {
    const CpuAttention *a;
    size_t group, rows;    /* query heads a key head; rows a (batch, key head) */
    size_t blocks, splits; /* of rows; of keys */
    size_t block_rows, value_width;
    bool streamed;       /* few rows: k and v as they lie */
    bool split;          /* many rows, on the matrix unit */
    _Atomic bool beyond; /* it met a number that has no parts */
    float *partial;      /* [tasks, block_rows, 2 + value_width]: m, l, o; when splits > 1 */
    _Atomic size_t next_task;
    size_t tasks;
} Run;

/* The block of rows a thread works on. */
typedef struct Block {
    const Run *run;
    size_t batch, kv_head, first, rows;               /* rows first.. of the key head's */
    float *q;                                         /* [rows, head_dim], scaled */
    float *q_panels, *k_panels, *p_panels, *v_panels; /* floats, or blocks of parts */
    float *wide;                                      /* one tile of k or v rows as float32 */
    float *scores;                                    /* [rows padded to mr, score_row] */
    size_t score_row;
    float *o;     /* [rows padded to mr, value_width] */
    float *m, *l; /* [rows] */
} Block;

static inline size_t round_up(size_t n, size_t to) {
    return (n + to - 1) / to * to;
}

static inline size_t position(const Block *b, size_t row) {
    return (b->first + row) / b->run->group;
}
static inline size_t query_head(const Block *b, size_t row) {
    return b->kv_head * b->run->group + (b->first + row) % b->run->group;
}

static inline const char *row_at(const void *base, CpuType type, const ptrdiff_t stride[3],
                                 size_t batch, size_t head, size_t row) {
    return (const char *)base + ((ptrdiff_t)batch * stride[0] + (ptrdiff_t)head * stride[1] +
                                 (ptrdiff_t)row * stride[2]) *
                                    (ptrdiff_t)cpu_type_size(type);
}

/* The split way (attention_split.c), whose panels hold bf16 parts. Sizes are in
 * floats; a thread's tiles are begun. */
enum { ATTENTION_SPLIT_ROWS = 256 };
bool attention_splits(const CpuAttention *attention, size_t rows);
void attention_split_sizes(const Run *run, size_t keys, size_t *q, size_t *k, size_t *p, size_t *v);
bool attention_split_queries(Block *block);
/* scores = q k^T, not scaled yet; o += scores v: keys j0.. of the block's head. */
bool attention_split_scores(Block *block, size_t j0, size_t keys);
bool attention_split_values(Block *block, size_t j0, size_t keys);

#endif
