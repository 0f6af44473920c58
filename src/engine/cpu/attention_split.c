/* Blocks of attention on a matrix unit of bf16 parts (gemm_split.c): q, k and v of
 * float16 (two parts) and bfloat16 (one) go in as they lie and are exact, products
 * sum in float32. Probabilities, between 0 and 1, take two parts: 2^-17 of each.
 * Float32 keeps the vector units, where six products of parts would not be faster. */
#include "cpu/attention_block.h"

#include <string.h>

enum { LEAST_ROWS = 16, P_PARTS = 2 };
enum { WIDTH = SPLIT_WIDTH, DEPTH = SPLIT_DEPTH };

bool attention_splits(const CpuAttention *a, size_t rows) {
    return cpu_kernels()->split_begin && a->type != CPU_F32 && rows >= LEAST_ROWS &&
           a->kv_len >= LEAST_ROWS && a->head_dim >= DEPTH / 2 && a->value_dim >= DEPTH / 2;
}

void attention_split_sizes(const Run *run, size_t keys, size_t *q, size_t *k, size_t *p,
                           size_t *v) {
    const CpuAttention *a = run->a;
    const int parts = cpu_split_parts(a->type);
    const size_t floats = sizeof(float) / sizeof(uint16_t);
    *q = run->block_rows / WIDTH * cpu_split_items(a->head_dim, parts) / floats;
    *k = round_up(keys, WIDTH) / WIDTH * cpu_split_items(a->head_dim, parts) / floats;
    *p = run->block_rows / WIDTH * cpu_split_items(keys, P_PARTS) / floats;
    *v = run->value_width / WIDTH * cpu_split_items(keys, parts) / floats;
}

/* Rows of a block lie apart by group: those of one position follow each other by
 * head, so a panel is packed row by row where heads share keys. */
bool attention_split_queries(Block *b) {
    const CpuAttention *a = b->run->a;
    const size_t bytes = a->head_dim * cpu_type_size(a->type);
    char *rows = (char *)(void *)b->q;
    for (size_t r = 0; r < b->rows; r++)
        memcpy(rows + r * bytes,
               row_at(a->q, a->type, a->q_stride, b->batch, query_head(b, r), position(b, r)),
               bytes);
    const int parts = cpu_split_parts(a->type);
    uint16_t *out = (uint16_t *)(void *)b->q_panels;
    bool good = true;
    for (size_t r = 0; r < b->rows; r += WIDTH, out += cpu_split_items(a->head_dim, parts))
        good &= cpu_kernels()->split_rows[0](rows + r * bytes, (ptrdiff_t)bytes, a->type,
                                             BASE_MIN((size_t)WIDTH, b->rows - r), a->head_dim,
                                             parts, out);
    return good;
}

/* c += or = panels of A (the block's rows) times panels of B (`columns`). */
static void multiply(const Block *b, const float *a_panels, int a_parts, const float *b_panels,
                     int b_parts, size_t k, size_t columns, float *c, size_t c_row,
                     bool accumulate) {
    const GemmTile tile = cpu_kernels()->split_tile[a_parts - 1][b_parts - 1];
    const uint16_t *left = (const uint16_t *)(const void *)a_panels;
    const uint16_t *right = (const uint16_t *)(const void *)b_panels;
    for (size_t j = 0; j < columns; j += WIDTH, right += cpu_split_items(k, b_parts))
        for (size_t r = 0; r < b->rows; r += WIDTH)
            tile(round_up(k, DEPTH) / DEPTH, left + r / WIDTH * cpu_split_items(k, a_parts), right,
                 c + r * c_row + j, (ptrdiff_t)c_row, accumulate);
}

bool attention_split_scores(Block *b, size_t j0, size_t keys) {
    const CpuAttention *a = b->run->a;
    const int parts = cpu_split_parts(a->type);
    uint16_t *out = (uint16_t *)(void *)b->k_panels;
    bool good = true;
    for (size_t j = 0; j < keys; j += WIDTH, out += cpu_split_items(a->head_dim, parts))
        good &= cpu_kernels()->split_rows[1](
            row_at(a->k, a->type, a->k_stride, b->batch, b->kv_head, j0 + j),
            a->k_stride[2] * (ptrdiff_t)sizeof(uint16_t), a->type,
            BASE_MIN((size_t)WIDTH, keys - j), a->head_dim, parts, out);
    multiply(b, b->q_panels, parts, b->k_panels, parts, a->head_dim, keys, b->scores, b->score_row,
             false);
    return good;
}

bool attention_split_values(Block *b, size_t j0, size_t keys) {
    const CpuAttention *a = b->run->a;
    const Kernels *kernels = cpu_kernels();
    const int parts = cpu_split_parts(a->type);
    const char *v = row_at(a->v, a->type, a->v_stride, b->batch, b->kv_head, j0);
    uint16_t *out = (uint16_t *)(void *)b->v_panels;
    bool good = true;
    for (size_t c = 0; c < a->value_dim; c += WIDTH, out += cpu_split_items(keys, parts))
        good &= kernels->split_lines[1](
            v + c * sizeof(uint16_t), a->v_stride[2] * (ptrdiff_t)sizeof(uint16_t), a->type,
            BASE_MIN((size_t)WIDTH, a->value_dim - c), keys, parts, out);
    out = (uint16_t *)(void *)b->p_panels;
    for (size_t r = 0; r < b->rows; r += WIDTH, out += cpu_split_items(keys, P_PARTS))
        good &= kernels->split_rows[0](b->scores + r * b->score_row,
                                       (ptrdiff_t)(b->score_row * sizeof(float)), CPU_F32,
                                       BASE_MIN((size_t)WIDTH, b->rows - r), keys, P_PARTS, out);
    multiply(b, b->p_panels, P_PARTS, b->v_panels, parts, keys, a->value_dim, b->o,
             b->run->value_width, true);
    return good;
}
