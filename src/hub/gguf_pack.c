/* GGUF's blocks of 32 values, written: d the scale, m an offset, both float16. In
 * types of 4 and 5 bits a byte holds items i and i + 16. Layouts and rounding as
 * ggml defines them (ggml-quants.c, the functions named _ref). */
#include "hub/gguf_pack.h"

#include <math.h>
#include <string.h>

/* Round to nearest, ties to even; what is too large becomes infinite. */
static uint16_t half_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude >= 0x47800000)
        return (uint16_t)(sign | (magnitude > 0x7f800000 ? 0x7e00 : 0x7c00));
    if (magnitude < 0x38800000) { /* below 2^-14: a multiple of 2^-24 */
        float positive;
        memcpy(&positive, &magnitude, sizeof positive);
        return (uint16_t)(sign | (uint32_t)rintf(positive * 16777216.0f));
    }
    const uint32_t rebased = magnitude - 0x38000000;
    return (uint16_t)(sign | (rebased + 0xfff + (rebased >> 13 & 1)) >> 13);
}

static void put_half(uint8_t *at, float value) {
    const uint16_t half = half_of(value);
    at[0] = (uint8_t)half;
    at[1] = (uint8_t)(half >> 8);
}

static void put_nibbles(uint8_t *at, const uint8_t *q) {
    for (int i = 0; i < 16; i++) at[i] = (uint8_t)((q[i] & 15) | q[i + 16] << 4);
}

/* ---- from floats ------------------------------------------------------------------- */

static void round_q4_0(const float *x, uint8_t *block) {
    float largest = 0, value = 0;
    uint8_t q[GGUF_BLOCK];
    for (int i = 0; i < GGUF_BLOCK; i++)
        if (fabsf(x[i]) > largest) {
            largest = fabsf(x[i]);
            value = x[i];
        }
    const float d = value / -8, inverse = d != 0 ? 1 / d : 0;
    for (int i = 0; i < GGUF_BLOCK; i++) q[i] = (uint8_t)BASE_MIN(15, (int)(x[i] * inverse + 8.5f));
    put_half(block, d);
    put_nibbles(block + 2, q);
}

static void round_q4_1(const float *x, uint8_t *block) {
    float least = x[0], most = x[0];
    uint8_t q[GGUF_BLOCK];
    for (int i = 1; i < GGUF_BLOCK; i++) {
        least = BASE_MIN(least, x[i]);
        most = BASE_MAX(most, x[i]);
    }
    const float d = (most - least) / 15, inverse = d != 0 ? 1 / d : 0;
    for (int i = 0; i < GGUF_BLOCK; i++)
        q[i] = (uint8_t)BASE_MIN(15, (int)((x[i] - least) * inverse + 0.5f));
    put_half(block, d);
    put_half(block + 2, least);
    put_nibbles(block + 4, q);
}

static void round_q8_0(const float *x, uint8_t *block) {
    float largest = 0;
    for (int i = 0; i < GGUF_BLOCK; i++) largest = BASE_MAX(largest, fabsf(x[i]));
    const float d = largest / 127, inverse = d != 0 ? 1 / d : 0;
    put_half(block, d);
    for (int i = 0; i < GGUF_BLOCK; i++) { /* roundf without a call: halves go away from 0 */
        const float value = x[i] * inverse, rest = value - (float)(int)value;
        block[2 + i] = (uint8_t)((int)value + (rest >= 0.5F) - (rest <= -0.5F));
    }
}

/* ---- from packed values --------------------------------------------------------------- */

static void keep_q4_0(const uint8_t *q, float scale, float bias, uint8_t *block) {
    (void)bias; /* -8 scale */
    put_half(block, scale);
    put_nibbles(block + 2, q);
}

static void keep_q4_1(const uint8_t *q, float scale, float bias, uint8_t *block) {
    put_half(block, scale);
    put_half(block + 2, bias);
    put_nibbles(block + 4, q);
}

static void keep_q5_1(const uint8_t *q, float scale, float bias, uint8_t *block) {
    uint32_t fifth = 0;
    for (int i = 0; i < GGUF_BLOCK; i++) fifth |= (uint32_t)(q[i] >> 4 & 1) << i;
    put_half(block, scale);
    put_half(block + 2, bias);
    for (int i = 0; i < 4; i++) block[4 + i] = (uint8_t)(fifth >> 8 * i);
    put_nibbles(block + 8, q);
}

static void keep_q8_0(const uint8_t *q, float scale, float bias, uint8_t *block) {
    (void)bias; /* -128 scale */
    put_half(block, scale);
    for (int i = 0; i < GGUF_BLOCK; i++) block[2 + i] = q[i] ^ 0x80;
}

/* The scale is the exponent's byte, a float only on the way here. */
static void keep_mxfp4(const uint8_t *q, float scale, float bias, uint8_t *block) {
    (void)bias;
    block[0] = (uint8_t)scale;
    put_nibbles(block + 1, q);
}

/* ---- the table ------------------------------------------------------------------------- */

static const GgufPacking packings[] = {
    {"f32", 0, 0, 1, 4, MLX_FLOAT32, NULL, NULL},
    {"f16", 1, 1, 1, 2, MLX_FLOAT16, NULL, NULL},
    {"bf16", 30, 32, 1, 2, MLX_BFLOAT16, NULL, NULL},
    {"q4_0", 2, 2, GGUF_BLOCK, 18, MLX_UINT8, round_q4_0, keep_q4_0},
    {"q4_1", 3, 3, GGUF_BLOCK, 20, MLX_UINT8, round_q4_1, keep_q4_1},
    {"q5_1", 7, 9, GGUF_BLOCK, 24, MLX_UINT8, NULL, keep_q5_1},
    {"q8_0", 8, 7, GGUF_BLOCK, 34, MLX_UINT8, round_q8_0, keep_q8_0},
    {"mxfp4", 39, 38, GGUF_BLOCK, 17, MLX_UINT8, NULL, keep_mxfp4},
};

const GgufPacking *gguf_packing(const char *name) {
    for (size_t i = 0; i < BASE_COUNT(packings); i++)
        if (strcmp(packings[i].name, name) == 0) return &packings[i];
    return NULL;
}

const GgufPacking *gguf_packing_at(size_t index) {
    return index < BASE_COUNT(packings) ? &packings[index] : NULL;
}

/* ---- rows ------------------------------------------------------------------------------- */

typedef struct Rows {
    const GgufPacking *packing;
    const float *x;
    const GgufPacked *packed;
    size_t blocks; /* of a row */
    uint8_t *out;
} Rows;

static void round_rows(void *context, size_t begin, size_t end, int thread) {
    const Rows *rows = context;
    (void)thread;
    for (size_t block = begin * rows->blocks; block < end * rows->blocks; block++)
        rows->packing->round(rows->x + block * GGUF_BLOCK,
                             rows->out + block * rows->packing->bytes);
}

void gguf_pack_floats(const GgufPacking *packing, const float *x, size_t rows, size_t width,
                      uint8_t *out) {
    Rows work = {.packing = packing, .x = x, .blocks = width / GGUF_BLOCK, .out = out};
    base_parallel_for(rows, 1 + 4096 / (width + 1), round_rows, &work);
}

/* 32 values of `bits` each are `bits` words. */
static void unpack(const uint8_t *words, int bits, uint8_t *q) {
    uint32_t held = 0;
    int count = 0;
    for (int i = 0; i < GGUF_BLOCK; i++) {
        for (; count < bits; count += 8) held |= (uint32_t)*words++ << count;
        q[i] = (uint8_t)(held & ((1u << bits) - 1));
        held >>= bits;
        count -= bits;
    }
}

static void keep_rows(void *context, size_t begin, size_t end, int thread) {
    const Rows *rows = context;
    const GgufPacked *packed = rows->packed;
    const size_t groups = packed->width / (size_t)packed->group_size;
    (void)thread;
    for (size_t row = begin; row < end; row++) {
        const uint8_t *words = packed->words + row * packed->width * (size_t)packed->bits / 8;
        for (size_t block = 0; block < rows->blocks; block++) {
            const size_t group = row * groups + block * GGUF_BLOCK / (size_t)packed->group_size;
            uint8_t q[GGUF_BLOCK];
            unpack(words + block * 4 * (size_t)packed->bits, packed->bits, q);
            rows->packing->keep(
                q, packed->exponents ? packed->exponents[group] : packed->scales[group],
                packed->biases ? packed->biases[group] : 0,
                rows->out + (row * rows->blocks + block) * rows->packing->bytes);
        }
    }
}

bool gguf_pack_words(const GgufPacking *packing, const GgufPacked *packed, uint8_t *out) {
    const float *parts[] = {packed->scales, packed->biases};
    const size_t groups = packed->rows * packed->width / (size_t)packed->group_size;
    for (size_t p = 0; p < BASE_COUNT(parts); p++)
        for (size_t i = 0; parts[p] && i < groups; i++)
            if (!(fabsf(parts[p][i]) < 65520)) return false;
    Rows work = {
        .packing = packing, .packed = packed, .blocks = packed->width / GGUF_BLOCK, .out = out};
    base_parallel_for(packed->rows, 1 + 4096 / (packed->width + 1), keep_rows, &work);
    return true;
}
