/* One 16-bit float at a time: the conversions that single elements, sorts and
 * index copies need. Runs of elements go through the bulk conversions of the
 * CPU kernels. Rounding is to nearest even; NaN becomes one quiet NaN, as in
 * MLX (bfloat16 0x7FC0, float16 sign | 0x7D00). */
#ifndef ENGINE_OPS_SCALAR_H
#define ENGINE_OPS_SCALAR_H

#include <stdint.h>
#include <string.h>

static inline float scalar_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t scalar_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float scalar_from_bf16(uint16_t half) {
    return scalar_from_bits((uint32_t)half << 16);
}

static inline uint16_t scalar_to_bf16(float value) {
    const uint32_t bits = scalar_bits(value);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u) {
        return 0x7FC0;
    }
    return (uint16_t)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

static inline float scalar_from_f16(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    const uint32_t rest = (uint32_t)(half & 0x7FFF) << 13;
    if (rest >= 0x0F800000u) { /* infinity and NaN keep an exponent of ones */
        return scalar_from_bits(sign | rest | 0x7F800000u);
    }
    /* Multiplying by 2^112 moves the exponent's bias and makes subnormals normal. */
    return scalar_from_bits(sign | scalar_bits(scalar_from_bits(rest) * 0x1p112f));
}

static inline uint16_t scalar_to_f16(float value) {
    const uint32_t bits = scalar_bits(value);
    const uint16_t sign = (uint16_t)((bits >> 16) & 0x8000);
    const uint32_t magnitude = bits & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) {
        return sign | 0x7D00;
    }
    if (magnitude >= 0x477FF000u) { /* 65520 and above round to infinity */
        return sign | 0x7C00;
    }
    if (magnitude < 0x38800000u) { /* below 2^-14: let an addition round to steps of 2^-24 */
        return (uint16_t)(sign | (scalar_bits(scalar_from_bits(magnitude) + 0.5f) - 0x3F000000u));
    }
    return (uint16_t)(sign | ((magnitude - 0x38000000u + 0x0FFF + ((magnitude >> 13) & 1)) >> 13));
}

#endif
