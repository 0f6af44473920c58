/* digit_kernels: products that stream packed weights against activations in bytes,
 * for every vector width: of 4 bits, where an instruction sums products of bytes of 8
 * bits too, with VBMI of 2, 3, 5 and 6. Included by digit_avx2.c, digit_avx512.c,
 * digit_avx512vnni.c, digit_avx512vbmi.c, digit_neon.c and digit_neondot.c.
 *
 * An activation is an integer times the scale of its group, and the integer is
 * two signed bytes (half types) or three (float32: every bit of the largest of
 * a group), most significant first. A weight never becomes a float:
 *
 *      y = sum_g scale_g a_g * sum(q x) + bias_g * sum(x)
 *
 * Four bits, one vector of words, a byte holding elements 2i and 2i + 1:
 *
 *      low = w & 15, high = w >> 4 & 15            3
 *      sum = low . even + high . odd               2 dot products a digit
 *      sum = sum * 256 + the next digit's          1 shift (AVX2: within the product)
 *      acc += float(sum) * scale of its group      convert, permute, fma
 *
 * Two digits are 12 instructions for 8 * LANES weights: at two vectors of 512
 * bits a cycle and 3 GHz a core takes 32 GB/s of packed words, as much as it
 * reads from memory. The scales of LANES groups are prepared at once and stay
 * in a register. Sums fit 32 bits: 8 elements a lane * 15 * 2^23 < 2^31. */
#include "base/base.h"
#include "cpu/vector_words.h"

#include <string.h>

#if defined(__aarch64__)
#include "cpu/digit_neon.h"
#elif defined(__AVX512F__)
#if defined(__AVX512VBMI__)
#define DIGIT(name) name##_avx512vbmi
#elif defined(__AVX512VNNI__)
#define DIGIT(name) name##_avx512vnni
#else
#define DIGIT(name) name##_avx512
#endif
#if defined(__AVX512VNNI__)
#define BYTE_DOTS
static inline Vi vi_dot_bytes(Vi sum, Vi codes, Vi digits) {
    return _mm512_dpbusd_epi32(sum, codes, digits);
}
#endif
static inline Vi vi_load_part(const void *p, size_t words) {
    return _mm512_maskz_loadu_epi32((__mmask16)((1u << words) - 1), p);
}
static inline Vi vi_low_nibbles(Vi w) {
    return _mm512_and_si512(w, _mm512_set1_epi8(15));
}
static inline Vi vi_high_nibbles(Vi w) {
    return _mm512_and_si512(_mm512_srli_epi16(w, 4), _mm512_set1_epi8(15));
}
static inline Vi vi_look_up(const int8_t table[16], Vi w) {
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const void *)table)), w);
}
/* Lane l of the result: scales[(first + l * step) >> shift]. */
static inline __attribute__((always_inline)) V spread(const V *scales, int first, int step,
                                                      int shift) {
    const Vi lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    Vi at = _mm512_add_epi32(_mm512_set1_epi32(first),
                             _mm512_mullo_epi32(lane, _mm512_set1_epi32(step)));
    return _mm512_permutexvar_ps(_mm512_srli_epi32(at, (unsigned)shift), *scales);
}
#else
#define DIGIT(name) name##_avx2
static inline Vi vi_load_part(const void *p, size_t words) {
    return _mm256_maskload_epi32(p, v_first(words));
}
static inline Vi vi_low_nibbles(Vi w) {
    return _mm256_and_si256(w, _mm256_set1_epi8(15));
}
static inline Vi vi_high_nibbles(Vi w) {
    return _mm256_and_si256(_mm256_srli_epi16(w, 4), _mm256_set1_epi8(15));
}
static inline Vi vi_look_up(const int8_t table[16], Vi w) {
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)table)),
                               w);
}
static inline __attribute__((always_inline)) V spread(const V *scales, int first, int step,
                                                      int shift) {
    const Vi lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    Vi at = _mm256_add_epi32(_mm256_set1_epi32(first),
                             _mm256_mullo_epi32(lane, _mm256_set1_epi32(step)));
    return _mm256_permutevar8x32_ps(*scales, _mm256_srli_epi32(at, shift));
}
#endif

#define INLINE static inline __attribute__((always_inline))
enum { VECTOR_BYTES = sizeof(Vi), NIBBLES = 2 * VECTOR_BYTES };
/* The elements that are unpacked at once, and their bytes: nibbles fill two vectors,
 * other codes one. */
INLINE int elements_of(int bits) {
    return bits == 4 ? NIBBLES : VECTOR_BYTES;
}
INLINE int bytes_of(int bits) {
    return elements_of(bits) * bits / 8;
}
#if !defined(__aarch64__)
/* Weight rows that one activation row meets at once, as registers allow. */
#if defined(__AVX512F__)
enum { TOGETHER = 4 };
#else
enum { TOGETHER = 2 };
#endif
enum { UNROLLED = 4 };   /* vectors of a whole chunk in one turn of its loop */
enum { FETCHES = true }; /* lines are asked for ahead of their use */
/* Dot products of bytes take codes without a sign. */
enum { SIGNED_CODES = 0 };
enum { LARGEST3 = 8355600 }; /* of three digits: 127 in each, less what rounding may add */
INLINE Vi vi_less_middle(Vi w) {
    return w;
}
INLINE void copy_bytes(uint8_t *out, const uint8_t *in, size_t n) {
    memcpy(out, in, n);
}
typedef V Scales; /* of LANES groups */
INLINE Scales scales_of(V x) {
    return x;
}
#endif

/* Sums of low . even + high . odd in 32-bit lanes, all digits together; x
 * points at [digits][even, odd]. Two neighbouring products of a nibble and a
 * byte, twice, fit 16 bits without saturation: 4 * 15 * 128. */
INLINE Vi nibble_dots(Vi low, Vi high, const int8_t *x, int digits) {
#if defined(BYTE_DOTS)
    Vi sum = vi_set(0);
    for (int d = 0; d < digits; d++, x += 2 * VECTOR_BYTES) {
        if (d) sum = vi_shl(sum, 8);
        sum = vi_dot_bytes(sum, low, vi_load(x));
        sum = vi_dot_bytes(sum, high, vi_load(x + VECTOR_BYTES));
    }
    return sum;
#elif defined(__aarch64__)
    Vi sum = vi_set(0);
#pragma GCC unroll 3
    for (int d = 0; d < digits; d++, x += 2 * VECTOR_BYTES) {
        if (d) sum = vi_shl(sum, 8);
        sum = vi_dot_nibbles(sum, low, high, vi_load(x), vi_load(x + VECTOR_BYTES));
    }
    return sum;
#elif defined(__AVX512F__)
    Vi sum = vi_set(0);
    for (int d = 0; d < digits; d++, x += 2 * VECTOR_BYTES) {
        Vi pairs = _mm512_add_epi16(_mm512_maddubs_epi16(low, vi_load(x)),
                                    _mm512_maddubs_epi16(high, vi_load(x + VECTOR_BYTES)));
        if (d) sum = _mm512_slli_epi32(sum, 8);
        sum = _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
    }
    return sum;
#else
    Vi sum = vi_set(0);
    for (int d = 0; d < digits; d++, x += 2 * VECTOR_BYTES) {
        Vi pairs = _mm256_add_epi16(_mm256_maddubs_epi16(low, vi_load(x)),
                                    _mm256_maddubs_epi16(high, vi_load(x + VECTOR_BYTES)));
        /* The first of two digits is shifted by the product itself. */
        const bool shifts = digits == 2 && d == 0;
        Vi part = _mm256_madd_epi16(pairs, _mm256_set1_epi16(shifts ? 256 : 1));
        if (digits == 3 && d) sum = _mm256_slli_epi32(sum, 8);
        sum = d ? _mm256_add_epi32(sum, part) : part;
    }
    return sum;
#endif
}

#if defined(__AVX512VBMI__)
/* Codes of 2, 3, 5 or 6 bits as bytes: each eight of them, `bits` bytes, move to 64
 * bits of their own, where every byte takes its eight bits from anywhere. */
INLINE Vi unpack_codes(Vi words, int bits) {
    uint8_t byte[64], bit[64];
#pragma GCC unroll 64
    for (int i = 0; i < 64; i++) {
        byte[i] = (uint8_t)(i / 8 * bits + i % 8);
        bit[i] = (uint8_t)(i % 8 * bits);
    }
    const Vi eights = _mm512_permutexvar_epi8(vi_load(byte), words);
    return _mm512_and_si512(_mm512_multishift_epi64_epi8(vi_load(bit), eights),
                            _mm512_set1_epi8((char)((1 << bits) - 1)));
}
/* Of codes below 64 all digits fit 32 bits: 4 elements a lane * 63 * 2^23. */
INLINE Vi code_dots(Vi codes, const int8_t *x, int digits) {
    Vi sum = vi_set(0);
    for (int d = 0; d < digits; d++, x += VECTOR_BYTES) {
        if (d) sum = vi_shl(sum, 8);
        sum = vi_dot_bytes(sum, codes, vi_load(x));
    }
    return sum;
}
#endif

/* Twice the value of each E2M1 code is a small whole number. Where codes have no
 * sign it is counted from the smallest, which makes these weights affine:
 * w = code * scale / 2 - 6 * scale. */
static const int8_t e2m1_twice[2][16] = {
    {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0},
    {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}};

/* The products of one vector of words, as floats. */
INLINE V vector_dots(Vi words, const int8_t *x, CpuQuantMode mode, int bits, int digits) {
#if defined(__AVX512VBMI__)
    (void)mode;
    return v_float(code_dots(unpack_codes(words, bits), x, digits));
#else
#if defined(BYTE_DOTS)
    if (bits == 8) { /* three digits of eight bits need more than 32 */
        words = vi_less_middle(words);
        Vi top = vi_dot_bytes(vi_set(0), words, vi_load(x));
        top = vi_dot_bytes(vi_shl(top, 8), words, vi_load(x + VECTOR_BYTES));
        if (digits == 2) return v_float(top);
        Vi last = vi_dot_bytes(vi_set(0), words, vi_load(x + 2 * VECTOR_BYTES));
        return v_fma(v_float(top), v_set(256.0f), v_float(last));
    }
#endif
    (void)bits;
    Vi low = vi_low_nibbles(words), high = vi_high_nibbles(words);
    if (mode != CPU_AFFINE) {
        low = vi_look_up(e2m1_twice[SIGNED_CODES], low);
        high = vi_look_up(e2m1_twice[SIGNED_CODES], high);
    }
    return v_float(nibble_dots(low, high, x, digits));
#endif
}

/* n bytes of scale from `at` on as floats, zero in the other lanes. */
INLINE V load_byte_scales(const CpuQuant *w, size_t at, size_t n, size_t total, CpuQuantMode mode) {
    const uint8_t *bytes = (const uint8_t *)w->scales + at;
    uint8_t part[16] = {0};
    if (at + LANES > total) {
        copy_bytes(part, bytes, n);
        bytes = part;
    }
    const V scale = mode == CPU_NVFP4 ? v_mul(v_load_e4m3(bytes), v_set(256.0f * w->factor))
                                      : v_load_e8m0(bytes);
    return n == LANES ? scale : v_keep_first(scale, n);
}

/* The scales and biases of n groups. */
INLINE V group_scales(const CpuQuant *w, size_t at, size_t n, size_t total, CpuQuantMode mode,
                      int bits, V *bias) {
    if (mode == CPU_AFFINE) {
        const V scale = v_load_scales(w->scales, at, n, total, w->type);
        *bias = v_load_scales(w->biases, at, n, total, w->type);
        if (bits == 8 && SIGNED_CODES) *bias = v_fma(scale, v_set(128.0f), *bias);
        return scale;
    }
    const V scale = load_byte_scales(w, at, n, total, mode);
    *bias = v_mul(scale, v_set(-6.0f));
    return v_mul(scale, v_set(0.5f));
}

/* What a later block of rows will read, fetched meanwhile line after line, the
 * ends of rows and the scales as well: one line that is left out is waited for
 * longer than a block takes. The block lies at least AHEAD bytes of words away,
 * what arrives at 20 GB/s while a line comes from far. */
enum { AHEAD = 8192 };
typedef struct Fetch {
    uintptr_t words, scales, biases;
} Fetch;

INLINE Fetch fetch_begin(const CpuQuant *w, size_t row, size_t rows, size_t row_bytes,
                         size_t row_scales) {
    const size_t block = rows * row_bytes;
    const size_t later = row + (AHEAD + block - 1) / block * rows;
    return (Fetch){.words = (uintptr_t)w->words + later * row_bytes,
                   .scales = (uintptr_t)w->scales + later * row_scales,
                   .biases = (uintptr_t)w->biases + later * row_scales};
}

/* once: past the second-level cache into the first, for words that are used once. On
 * Zen 4 that reads 10 to 20 % faster, but slower where groups are small or rows long
 * (measured): then lines seem to be gone before their use. */
INLINE void fetch_next(uintptr_t *at, size_t bytes, bool once) {
    if (!FETCHES) return;
    if (once)
        __builtin_prefetch((const void *)*at, 0, 0);
    else
        __builtin_prefetch((const void *)*at, 0, 2);
    *at += bytes;
}
enum { ONCE_GROUP_BITS = 256, ONCE_ROW_BYTES = 2048 };

static bool fetches_once(const CpuQuant *w) {
    return FETCHES && cpu_kernels()->fetch_once && w->cols * (size_t)w->bits / 8 <= ONCE_ROW_BYTES;
}

/* The sums of `rows` weight rows with m activation rows. Two activation rows share
 * what is done to the words; more would not stay in the first-level cache. */
typedef V Sums[TOGETHER][2];
typedef Scales GroupScales[TOGETHER][2];

/* Adds the products of one vector of words a row; `scale` holds the groups of
 * the chunk that `digit` begins, `first` is the vector's first element there. */
INLINE void add_vectors(Sums acc, GroupScales scale, const Vi *packed, const int8_t *digit,
                        size_t digit_stride, int first, int rows, int m, CpuQuantMode mode,
                        int bits, int shift, int digits) {
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < m; i++)
            acc[r][i] =
                v_fma(vector_dots(packed[r], digit + (size_t)i * digit_stride + first * digits,
                                  mode, bits, digits),
                      spread(&scale[r][i], first, elements_of(bits) / LANES, shift), acc[r][i]);
}

/* bytes_of(bits) of packed words, zeros after them. */
INLINE Vi load_words(const uint8_t *p, int bits) {
    return bytes_of(bits) == VECTOR_BYTES ? vi_load(p)
                                          : vi_load_part(p, (size_t)bytes_of(bits) / 4);
}

/* The same from memory; *words goes on to the next vectors. */
INLINE void stream_vectors(Sums acc, GroupScales scale, const uint8_t **words, size_t row_bytes,
                           Fetch *fetch, const int8_t *digit, size_t digit_stride, int first,
                           int rows, int m, CpuQuantMode mode, int bits, int shift, int digits,
                           bool once) {
    Vi packed[TOGETHER];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        fetch_next(&fetch->words, (size_t)bytes_of(bits), once);
        packed[r] = load_words(*words + (size_t)r * row_bytes, bits);
    }
    add_vectors(acc, scale, packed, digit, digit_stride, first, rows, m, mode, bits, shift, digits);
    *words += bytes_of(bits);
}

/* y for `rows` weight rows (TOGETHER or 1) and m activation rows. */
INLINE void digit_rows(const CpuQuant *w, size_t row, const Activations *x, size_t first_x,
                       float *y, ptrdiff_t y_stride, int rows, int m, CpuQuantMode mode, int bits,
                       int group, int digits, bool once) {
    const int per_vector = elements_of(bits);
    const int shift = group == 16 ? 4 : group == 32 ? 5 : group == 64 ? 6 : 7;
    const size_t row_bytes = w->cols * (size_t)bits / 8, total = w->rows * x->groups;
    const size_t scale_bytes = mode == CPU_AFFINE ? cpu_type_size(w->type) : 1;
    Fetch fetch = fetch_begin(w, row, (size_t)rows, row_bytes, x->groups * scale_bytes);
    const uint8_t *words = (const uint8_t *)w->words + row * row_bytes;
    const int8_t *digit = x->digits + first_x * x->digit_stride;
    Sums acc;
    GroupScales scale;
    Vi packed[TOGETHER];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int i = 0; i < m; i++) acc[r][i] = v_set(0.0f);

    for (size_t g = 0; g < x->groups; g += LANES) {
        const size_t n = x->groups - g < LANES ? x->groups - g : LANES;
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const size_t at = (row + (size_t)r) * x->groups + g;
            fetch_next(&fetch.scales, LANES * scale_bytes, false);
            if (mode == CPU_AFFINE) fetch_next(&fetch.biases, LANES * scale_bytes, false);
            V b, s = group_scales(w, at, n, total, mode, bits, &b);
#pragma GCC unroll 4
            for (int i = 0; i < m; i++) {
                const size_t a = (first_x + (size_t)i) * x->group_stride + g;
                scale[r][i] = scales_of(v_mul(s, v_load(x->scales + a)));
                if (mode == CPU_AFFINE || !SIGNED_CODES)
                    acc[r][i] = v_fma(b, v_load(x->sums + a), acc[r][i]);
            }
        }
        const int elements = (int)n * group, rest = elements % per_vector;
        int first = 0;
        if (n == LANES && rest == 0) {
#pragma GCC unroll UNROLLED
            for (first = 0; first < (int)LANES * group; first += per_vector)
                stream_vectors(acc, scale, &words, row_bytes, &fetch, digit, x->digit_stride, first,
                               rows, m, mode, bits, shift, digits, once);
        }
        for (; first + per_vector <= elements; first += per_vector)
            stream_vectors(acc, scale, &words, row_bytes, &fetch, digit, x->digit_stride, first,
                           rows, m, mode, bits, shift, digits, once);
        if (rest) {
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                fetch_next(&fetch.words, (size_t)bytes_of(bits), once);
                packed[r] = vi_load_part(words + (size_t)r * row_bytes, (size_t)(rest * bits / 32));
            }
            add_vectors(acc, scale, packed, digit, x->digit_stride, first, rows, m, mode, bits,
                        shift, digits);
        }
        digit += elements * digits;
    }
#pragma GCC unroll 4
    for (int i = 0; i < m; i++) {
        float *target = y + (ptrdiff_t)(first_x + (size_t)i) * y_stride + (ptrdiff_t)row;
        if (TOGETHER == 4 && rows == TOGETHER) {
            v_sums4(target, acc[0][i], acc[1][i], acc[2 % TOGETHER][i], acc[3 % TOGETHER][i]);
            continue;
        }
        for (int r = 0; r < rows; r++) target[r] = v_sum(acc[r][i]);
    }
}

INLINE void digit_gemv(const CpuQuant *w, size_t begin, size_t end, const Activations *x, float *y,
                       ptrdiff_t y_stride, CpuQuantMode mode, int bits, int group, int digits,
                       bool once) {
    size_t row = begin;
    for (; row + TOGETHER <= end; row += TOGETHER) {
        size_t i = 0;
        for (; i + 2 <= x->m; i += 2)
            digit_rows(w, row, x, i, y, y_stride, TOGETHER, 2, mode, bits, group, digits, once);
        if (i < x->m)
            digit_rows(w, row, x, i, y, y_stride, TOGETHER, 1, mode, bits, group, digits, once);
    }
    for (; row < end; row++)
        for (size_t i = 0; i < x->m; i++)
            digit_rows(w, row, x, i, y, y_stride, 1, 1, mode, bits, group, digits, false);
}

#define GEMV(name, mode, bits, group, digits)                                                     \
    static void name(const CpuQuant *w, size_t begin, size_t end, const Activations *x, float *y, \
                     ptrdiff_t y_stride) {                                                        \
        if (group * bits >= ONCE_GROUP_BITS && fetches_once(w))                                   \
            digit_gemv(w, begin, end, x, y, y_stride, mode, bits, group, digits, true);           \
        else                                                                                      \
            digit_gemv(w, begin, end, x, y, y_stride, mode, bits, group, digits, false);          \
    }
#define GEMV_OF_BITS(bits)                                                                     \
    GEMV(gemv_##bits##_32_2, CPU_AFFINE, bits, 32, 2)                                          \
    GEMV(gemv_##bits##_64_2, CPU_AFFINE, bits, 64, 2)                                          \
    GEMV(gemv_##bits##_128_2, CPU_AFFINE, bits, 128, 2)                                        \
    GEMV(gemv_##bits##_32_3, CPU_AFFINE, bits, 32, 3)                                          \
    GEMV(gemv_##bits##_64_3, CPU_AFFINE, bits, 64, 3)                                          \
    GEMV(gemv_##bits##_128_3, CPU_AFFINE, bits, 128, 3)                                        \
    static void gemv_##bits(const CpuQuant *w, size_t begin, size_t end, const Activations *x, \
                            float *y, ptrdiff_t y_stride) {                                    \
        static const QuantGemv run[3][2] = {{gemv_##bits##_32_2, gemv_##bits##_32_3},          \
                                            {gemv_##bits##_64_2, gemv_##bits##_64_3},          \
                                            {gemv_##bits##_128_2, gemv_##bits##_128_3}};       \
        run[w->group / 64][x->parts - 2](w, begin, end, x, y, y_stride);                       \
    }
#if defined(__AVX512VBMI__)
GEMV_OF_BITS(2)
GEMV_OF_BITS(3)
GEMV_OF_BITS(5)
GEMV_OF_BITS(6)

void DIGIT(cpu_fill_digit)(Kernels *t) {
    static const QuantGemv by_bits[] = {[2] = gemv_2, [3] = gemv_3, [5] = gemv_5, [6] = gemv_6};
    for (size_t bits = 2; bits < BASE_COUNT(by_bits); bits++) {
        if (!by_bits[bits]) continue;
        t->quant_gemv[bits] = by_bits[bits];
        t->quant_layout[bits] = LAYOUT_DIGITS;
        t->digit_block[bits] = VECTOR_BYTES;
    }
}
#else
GEMV_OF_BITS(4)
#if defined(BYTE_DOTS)
GEMV_OF_BITS(8)
#endif

GEMV(gemv_mxfp4_2, CPU_MXFP4, 4, 32, 2)
GEMV(gemv_mxfp4_3, CPU_MXFP4, 4, 32, 3)
GEMV(gemv_nvfp4_2, CPU_NVFP4, 4, 16, 2)
GEMV(gemv_nvfp4_3, CPU_NVFP4, 4, 16, 3)
static void gemv_fp4(const CpuQuant *w, size_t begin, size_t end, const Activations *x, float *y,
                     ptrdiff_t y_stride) {
    static const QuantGemv run[2][2] = {{gemv_mxfp4_2, gemv_mxfp4_3}, {gemv_nvfp4_2, gemv_nvfp4_3}};
    run[w->mode == CPU_NVFP4][x->parts - 2](w, begin, end, x, y, y_stride);
}

/* One row of activations: integers of 15 or 23 bits, split into bytes that
 * begin at -128. `block` elements lie together: [digit][even, odd] for
 * nibbles, [digit] in element order for bytes. */
INLINE void split_digits(const int32_t *v, int count, bool nibbles, int digits, int8_t *out) {
    for (int d = digits - 1; d >= 0; d--) {
        int8_t *plane = out + d * count;
        int32_t carry[NIBBLES];
        for (int i = 0; i < count; i++) {
            /* (v + half) >> 8d leaves the rounded upper digits */
            int32_t half = d == digits - 1 ? 0 : (d == digits - 2 ? 128 : 128 + (128 << 8));
            carry[i] = (v[i] + half) >> (8 * (digits - 1 - d));
        }
        if (nibbles)
            for (int i = 0; i < count / 2; i++) {
                plane[i] = (int8_t)carry[2 * i];
                plane[count / 2 + i] = (int8_t)carry[2 * i + 1];
            }
        else
            for (int i = 0; i < count; i++) plane[i] = (int8_t)carry[i];
    }
}

static bool digit_activations(const float *x, size_t k, int group, int bits, int digits,
                              int8_t *out, float *scales, float *sums) {
    const float limit = digits == 3 ? LARGEST3 : 32638.0f;
    const int count = elements_of(bits), step = BASE_MIN(group, BASE_MIN(count, 32));
    int32_t v[NIBBLES];
    float factor = 0, scale = 0;
    int sum = 0;
    V special = v_set(0.0f); /* NaN after NaN or infinity */
    for (size_t at = 0; at < k; at += (size_t)count) {
        const int here = k - at < (size_t)count ? (int)(k - at) : count;
        for (int i = 0; i < here; i += step) {
            const size_t element = at + (size_t)i, g = element / (size_t)group;
            if (element % (size_t)group == 0) {
                V top = v_set(0.0f);
                for (int j = 0; j < group; j += LANES) {
                    V value = v_load(x + element + j);
                    top = v_max(top, v_abs(value));
                    special = v_fma(value, v_set(0.0f), special);
                }
                const float largest = v_top(top);
                factor = largest > 1e-30f ? limit / largest : 0.0f;
                scale = largest > 1e-30f ? largest / limit : 0.0f;
                sum = 0;
            }
            for (int j = 0; j < step; j += LANES) {
                Vi q = v_int(v_mul(v_load(x + element + j), v_set(factor)));
                memcpy(v + i + j, &q, sizeof q);
            }
            for (int j = 0; j < step; j++) sum += v[i + j];
            scales[g] = scale;
            sums[g] = scale * (float)sum;
        }
        for (int i = here; i < count; i++) v[i] = 0;
        if (digits == 2)
            split_digits(v, count, bits == 4, 2, out + at * 2);
        else
            split_digits(v, count, bits == 4, 3, out + at * 3);
    }
    return v_sum(special) == 0.0f;
}

void DIGIT(cpu_fill_digit)(Kernels *t) {
    t->quant_gemv[4] = gemv_4;
    t->quant_layout[4] = LAYOUT_DIGITS;
    t->digit_block[4] = NIBBLES;
    t->quant_gemv[KIND_MXFP4] = t->quant_gemv[KIND_NVFP4] = gemv_fp4;
    t->quant_layout[KIND_MXFP4] = t->quant_layout[KIND_NVFP4] = LAYOUT_DIGITS;
    t->digit_block[KIND_MXFP4] = t->digit_block[KIND_NVFP4] = NIBBLES;
#if defined(BYTE_DOTS)
    t->quant_gemv[8] = gemv_8;
    t->quant_layout[8] = LAYOUT_DIGITS;
    t->digit_block[8] = VECTOR_BYTES;
#endif
    t->digit_activations = digit_activations;
}
#endif
