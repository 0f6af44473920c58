/* GGUF's block formats. A block is a run of items along the last axis that
 * shares its scales; d is the scale, m or dmin an offset, both float16. The
 * K types hold 256 items in sub-blocks whose own scales are small integers
 * times d. Layouts as ggml defines them (ggml-common.h, ggml-quants.c). */
#include "engine/io/gguf_blocks.h"

#include "engine/core/engine.h"
#include "engine/cpu/kernels.h"

#include <math.h>
#include <string.h>

static uint16_t load16(const uint8_t *bytes) {
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

static uint32_t load32(const uint8_t *bytes) {
    return (uint32_t)load16(bytes) | (uint32_t)load16(bytes + 2) << 16;
}

static float half(const uint8_t *bytes) {
    return cpu_f32_from_f16(load16(bytes));
}

/* ---- to the affine layout: w = scale * q + bias, q unsigned ---- */

/* 16 bytes hold items 0-15 in their low and 16-31 in their high halves; MLX
 * wants neighbours in one byte. */
static void repack_nibbles(const uint8_t *in, uint32_t *packed) {
    for (int word = 0; word < 4; word++) {
        const int from = word % 2 * 8, shift = word / 2 * 4;
        uint32_t value = 0;
        for (int i = 0; i < 8; i++) value |= (uint32_t)(in[from + i] >> shift & 15) << 4 * i;
        packed[word] = value;
    }
}

static void repack_q4_0(const uint8_t *block, uint32_t *packed, uint16_t *scale, uint16_t *bias) {
    *scale = load16(block);
    *bias = cpu_f16_from_f32(-8.0f * half(block));
    repack_nibbles(block + 2, packed);
}

static void repack_q4_1(const uint8_t *block, uint32_t *packed, uint16_t *scale, uint16_t *bias) {
    *scale = load16(block);
    *bias = load16(block + 2);
    repack_nibbles(block + 4, packed);
}

static void repack_q8_0(const uint8_t *block, uint32_t *packed, uint16_t *scale, uint16_t *bias) {
    *scale = load16(block);
    *bias = cpu_f16_from_f32(-128.0f * half(block));
    for (int word = 0; word < 8; word++)
        packed[word] = load32(block + 2 + 4 * word) ^ 0x80808080u; /* int8 to uint8 */
}

/* ---- to float ---- */

static void expand_q5_0(const uint8_t *block, float *out) {
    const float d = half(block);
    const uint32_t high = load32(block + 2);
    for (int i = 0; i < 16; i++) {
        const int low = block[6 + i] & 15, up = block[6 + i] >> 4;
        out[i] = d * (float)((low | (int)(high >> i & 1) << 4) - 16);
        out[i + 16] = d * (float)((up | (int)(high >> (i + 16) & 1) << 4) - 16);
    }
}

static void expand_q5_1(const uint8_t *block, float *out) {
    const float d = half(block), m = half(block + 2);
    const uint32_t high = load32(block + 4);
    for (int i = 0; i < 16; i++) {
        const int low = block[8 + i] & 15, up = block[8 + i] >> 4;
        out[i] = d * (float)(low | (int)(high >> i & 1) << 4) + m;
        out[i + 16] = d * (float)(up | (int)(high >> (i + 16) & 1) << 4) + m;
    }
}

/* [16 scales and minima, 4 bits each][64 bytes of 2-bit items][d][dmin] */
static void expand_q2_k(const uint8_t *block, float *out) {
    const uint8_t *scales = block, *items = block + 16;
    const float d = half(block + 80), dmin = half(block + 82);
    for (int sub = 0; sub < 16; sub++) { /* of 16 items */
        const float scale = d * (float)(scales[sub] & 15), low = dmin * (float)(scales[sub] >> 4);
        const uint8_t *from = items + sub / 8 * 32 + sub % 2 * 16;
        const int shift = sub % 8 / 2 * 2;
        for (int i = 0; i < 16; i++)
            out[sub * 16 + i] = scale * (float)(from[i] >> shift & 3) - low;
    }
}

/* [32 bytes of third bits][64 bytes of 2-bit items][12 bytes: 16 scales of 6 bits][d] */
static void expand_q3_k(const uint8_t *block, float *out) {
    const uint8_t *third = block, *items = block + 32, *scales = block + 96;
    const float d = half(block + 108);
    for (int sub = 0; sub < 16; sub++) {
        const int low = scales[sub % 8] >> sub / 8 * 4 & 15;
        const int up = scales[8 + sub % 4] >> sub / 4 * 2 & 3;
        const float scale = d * (float)((low | up << 4) - 32);
        const int column = sub % 2 * 16, shift = sub % 8 / 2 * 2;
        const uint8_t *from = items + sub / 8 * 32 + column;
        for (int i = 0; i < 16; i++) {
            const bool set = third[column + i] >> sub / 2 & 1; /* the bit stands for +4 */
            out[sub * 16 + i] = scale * (float)((from[i] >> shift & 3) - (set ? 0 : 4));
        }
    }
}

/* Scale and minimum, 6 bits each, of sub-block j of Q4_K and Q5_K: the first
 * four lie whole in bytes 0-7, the others' low halves in bytes 8-11 and their
 * top bits in the top bits of bytes 0-7. */
static void scale_and_min(const uint8_t *packed, int j, int *scale, int *minimum) {
    if (j < 4) {
        *scale = packed[j] & 63;
        *minimum = packed[j + 4] & 63;
    } else {
        *scale = (packed[j + 4] & 15) | packed[j - 4] >> 6 << 4;
        *minimum = packed[j + 4] >> 4 | packed[j] >> 6 << 4;
    }
}

/* [d][dmin][12 bytes of scales and minima][fifth bits: 32 bytes, Q5_K][128 bytes of nibbles] */
static void expand_q45_k(const uint8_t *block, const uint8_t *fifth, const uint8_t *nibbles,
                         float *out) {
    const float d = half(block), dmin = half(block + 2);
    for (int sub = 0; sub < 8; sub++) { /* of 32 items */
        int scale, minimum;
        scale_and_min(block + 4, sub, &scale, &minimum);
        const float step = d * (float)scale, low = dmin * (float)minimum;
        const uint8_t *from = nibbles + sub / 2 * 32;
        for (int i = 0; i < 32; i++) {
            int item = from[i] >> sub % 2 * 4 & 15;
            if (fifth) item |= (fifth[i] >> sub & 1) << 4;
            out[sub * 32 + i] = step * (float)item - low;
        }
    }
}

static void expand_q4_k(const uint8_t *block, float *out) {
    expand_q45_k(block, NULL, block + 16, out);
}

static void expand_q5_k(const uint8_t *block, float *out) {
    expand_q45_k(block, block + 16, block + 48, out);
}

/* [128 bytes of low nibbles][64 bytes of upper 2 bits][16 int8 scales][d] */
static void expand_q6_k(const uint8_t *block, float *out) {
    const uint8_t *low = block, *up = block + 128, *scales = block + 192;
    const float d = half(block + 208);
    for (int sub = 0; sub < 16; sub++) {
        const int part = sub / 8, quarter = sub % 8 / 2, column = sub % 2 * 16;
        const float scale = d * (float)(int8_t)scales[sub];
        const uint8_t *nibble = low + part * 64 + quarter % 2 * 32 + column;
        const uint8_t *bits = up + part * 32 + column;
        for (int i = 0; i < 16; i++) {
            const int item = (nibble[i] >> quarter / 2 * 4 & 15) | (bits[i] >> quarter * 2 & 3)
                                                                       << 4;
            out[sub * 16 + i] = scale * (float)(item - 32);
        }
    }
}

/* [d as float32][256 int8 items][16 sums of 16, not needed] */
static void expand_q8_k(const uint8_t *block, float *out) {
    const uint32_t bits = load32(block);
    float d;
    memcpy(&d, &bits, sizeof d);
    for (int i = 0; i < 256; i++) out[i] = d * (float)(int8_t)block[4 + i];
}

/* 16 bytes hold items 0-15 in their low and 16-31 in their high halves, each a
 * number of an entry of the table. */
static void expand_table(const uint8_t *nibbles, const int8_t *table, float scale, float *out) {
    for (int i = 0; i < 16; i++) {
        out[i] = scale * (float)table[nibbles[i] & 15];
        out[i + 16] = scale * (float)table[nibbles[i] >> 4];
    }
}

static const int8_t iq4_table[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};

static void expand_iq4_nl(const uint8_t *block, float *out) {
    expand_table(block + 2, iq4_table, half(block), out);
}

/* [d][16 bits: upper 2 of each sub-block's scale][4 bytes: lower 4][128 bytes of nibbles] */
static void expand_iq4_xs(const uint8_t *block, float *out) {
    const float d = half(block);
    for (int sub = 0; sub < 8; sub++) { /* of 32 items */
        const int low = block[4 + sub / 2] >> sub % 2 * 4 & 15;
        const int up = load16(block + 2) >> 2 * sub & 3;
        const float scale = d * (float)((low | up << 4) - 32);
        expand_table(block + 8 + 16 * sub, iq4_table, scale, out + 32 * sub);
    }
}

/* Twice the values of a 4-bit float with 2 bits of exponent and 1 of mantissa. */
static const int8_t e2m1_table[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* [power of two, biased by 127][16 bytes of nibbles] */
static void expand_mxfp4(const uint8_t *block, float *out) {
    expand_table(block + 1, e2m1_table, ldexpf(1, block[0] - 128), out);
}

/* [64 bytes of 2-bit items, each 1 more than its value][d] */
static void expand_tq2_0(const uint8_t *block, float *out) {
    const float d = half(block + 64);
    for (int i = 0; i < 256; i++) {
        const int byte = i / 128 * 32 + i % 32, shift = i % 128 / 32 * 2;
        out[i] = d * (float)((block[byte] >> shift & 3) - 1);
    }
}

/* Digit `place` of a byte that holds five base-3 digits as a fraction of 256. */
static float ternary(uint8_t packed, int place) {
    static const uint8_t powers[5] = {1, 3, 9, 27, 81};
    const uint8_t rest = (uint8_t)(packed * powers[place]);
    return (float)((rest * 3 >> 8) - 1);
}

/* [32 bytes of 5 items][16 bytes of 5 items][4 bytes of 4 items][d]; the items
 * of one place in all bytes of a part come one after the other. */
static void expand_tq1_0(const uint8_t *block, float *out) {
    static const struct {
        int start, bytes, items;
    } parts[] = {{0, 32, 5}, {32, 16, 5}, {48, 4, 4}};
    const float d = half(block + 52);
    for (size_t part = 0; part < BASE_COUNT(parts); part++)
        for (int place = 0; place < parts[part].items; place++)
            for (int i = 0; i < parts[part].bytes; i++)
                *out++ = d * ternary(block[parts[part].start + i], place);
}

static const GgufType types[] = {
    {0, "F32", 1, 4, MLX_FLOAT32, NULL, NULL, 0},
    {1, "F16", 1, 2, MLX_FLOAT16, NULL, NULL, 0},
    {2, "Q4_0", 32, 18, MLX_FLOAT16, NULL, repack_q4_0, 4},
    {3, "Q4_1", 32, 20, MLX_FLOAT16, NULL, repack_q4_1, 4},
    {6, "Q5_0", 32, 22, MLX_FLOAT16, expand_q5_0, NULL, 0},
    {7, "Q5_1", 32, 24, MLX_FLOAT16, expand_q5_1, NULL, 0},
    {8, "Q8_0", 32, 34, MLX_FLOAT16, NULL, repack_q8_0, 8},
    {10, "Q2_K", 256, 84, MLX_FLOAT16, expand_q2_k, NULL, 0},
    {11, "Q3_K", 256, 110, MLX_FLOAT16, expand_q3_k, NULL, 0},
    {12, "Q4_K", 256, 144, MLX_FLOAT16, expand_q4_k, NULL, 0},
    {13, "Q5_K", 256, 176, MLX_FLOAT16, expand_q5_k, NULL, 0},
    {14, "Q6_K", 256, 210, MLX_FLOAT16, expand_q6_k, NULL, 0},
    {15, "Q8_K", 256, 292, MLX_FLOAT16, expand_q8_k, NULL, 0},
    {20, "IQ4_NL", 32, 18, MLX_FLOAT16, expand_iq4_nl, NULL, 0},
    {23, "IQ4_XS", 256, 136, MLX_FLOAT16, expand_iq4_xs, NULL, 0},
    {24, "I8", 1, 1, MLX_INT8, NULL, NULL, 0},
    {25, "I16", 1, 2, MLX_INT16, NULL, NULL, 0},
    {26, "I32", 1, 4, MLX_INT32, NULL, NULL, 0},
    {27, "I64", 1, 8, MLX_INT64, NULL, NULL, 0},
    {28, "F64", 1, 8, MLX_FLOAT64, NULL, NULL, 0},
    {30, "BF16", 1, 2, MLX_BFLOAT16, NULL, NULL, 0},
    {34, "TQ1_0", 256, 54, MLX_FLOAT16, expand_tq1_0, NULL, 0},
    {35, "TQ2_0", 256, 66, MLX_FLOAT16, expand_tq2_0, NULL, 0},
    {39, "MXFP4", 32, 17, MLX_FLOAT16, expand_mxfp4, NULL, 0},
};

const GgufType *gguf_type(uint32_t id) {
    for (size_t i = 0; i < BASE_COUNT(types); i++)
        if (types[i].id == id) return &types[i];
    return NULL;
}

/* The plain types that MLX saves. */
const GgufType *gguf_type_of(mlx_dtype dtype) {
    switch (dtype) {
    case MLX_FLOAT32: return gguf_type(0);
    case MLX_FLOAT16: return gguf_type(1);
    case MLX_INT8: return gguf_type(24);
    case MLX_INT16: return gguf_type(25);
    case MLX_INT32: return gguf_type(26);
    default: return NULL;
    }
}
