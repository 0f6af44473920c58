/* table: what an instruction set provides. One Kernels is filled when first
 * asked for: every entry begins as the scalar twin and each instruction set
 * that the processor (and MLX_RAG_CPU) allows overwrites the entries it does
 * better. The entries work in one thread on float32 unless they name a type;
 * the portable drivers beside this file own threads, types and blocking. */
#ifndef ENGINE_CPU_TABLE_H
#define ENGINE_CPU_TABLE_H

#include "cpu/kernels.h"

/* How a kernel wants the activations of a quantised product. */
typedef enum {
    LAYOUT_NONE,   /* the float32 activations */
    LAYOUT_LINEAR, /* 16-bit integers in element order, 1 or 2 planes (parts) */
    LAYOUT_DIGITS  /* 2 or 3 bytes each (parts), in the blocks of digit_kernels.h */
} ActivationLayout;

/* m activation rows, prepared once per call for every row of weights. An
 * activation is an integer times the scale of its group; the integer is split
 * into parts, most significant first: fewer for half types, for float32 as
 * many as keep the 24 bits of a group's largest. */
typedef struct Activations {
    size_t m, k, groups;
    int group, parts;
    const float *f32;     /* [m, k] */
    const int16_t *fixed; /* LINEAR: [m, fixed_stride], one plane after the other in a row */
    size_t fixed_stride, plane;
    const int8_t *digits; /* DIGITS: [m, digit_stride], zero past k */
    size_t digit_stride;
    const float *scales; /* [m, group_stride]: x = integer * scale; zero past the groups */
    const float *sums;   /* [m, group_stride]: scale * sum of a group's integers */
    size_t group_stride;
} Activations;

/* One call: y[i * y_stride + r] for weight rows r in [begin, end), all m
 * activations. */
typedef void (*QuantGemv)(const CpuQuant *weights, size_t begin, size_t end, const Activations *x,
                          float *y, ptrdiff_t y_stride);
enum { GEMV_ROWS = 4, GEMV_MAX_M = 4 }; /* weight rows in flight; activations a pass */

/* What a GEMV is chosen by: the bits of affine weights, or the mode. */
enum { KIND_MXFP4 = 8 + CPU_MXFP4, KIND_MXFP8 = 8 + CPU_MXFP8, KIND_NVFP4 = 8 + CPU_NVFP4 };
enum { QUANT_KINDS = 8 + CPU_QUANT_MODES };
static inline int cpu_quant_kind(const CpuQuant *weights) {
    return weights->mode == CPU_AFFINE ? weights->bits : 8 + (int)weights->mode;
}

/* C tile [mr, nr] (+)= A panel [k, mr] * B panel [k, nr]. In the bf16 tile k
 * counts pairs and each panel entry is two bf16 of neighbouring k. */
typedef void (*GemmTile)(size_t k, const void *a, const void *b, float *c, ptrdiff_t c_row,
                         bool accumulate);

enum { SPLIT_WIDTH = 32, SPLIT_DEPTH = 32 };
/* The bf16 parts that hold numbers of a type exactly (float32: to 2^-24), and the
 * 16-bit items of a panel of SPLIT_WIDTH rows or columns of k such numbers. */
static inline int cpu_split_parts(CpuType type) {
    return type == CPU_BF16 ? 1 : type == CPU_F16 ? 2 : 3;
}
static inline size_t cpu_split_items(size_t k, int parts) {
    return (k + SPLIT_DEPTH - 1) / SPLIT_DEPTH * SPLIT_DEPTH * SPLIT_WIDTH * (size_t)parts;
}

/* C += a panel of activations in parts times a panel of codes (one part), whole
 * groups of blocks of SPLIT_DEPTH. */
typedef struct SplitGroups {
    size_t groups, group_blocks;
    const uint16_t *a, *b;
    const float *a_sums;   /* [groups][SPLIT_WIDTH], of the rows of A */
    const float *b_scales; /* [groups][2][SPLIT_WIDTH], scales and biases */
    float *c;
    ptrdiff_t c_row;
} SplitGroups;

/* A tile of the product of many rows with quantised weights: rows of 16-bit
 * activations times a panel of 16-bit codes, both with a float32 scale a group. */
typedef struct PairTile {
    size_t rows, groups; /* rows <= mr; groups in this block of k */
    int group;
    const uint16_t *a; /* [rows, a_row] */
    size_t a_row;
    const float *a_scales, *a_sums; /* [rows, a_group_row]; no scales of PAIRS_BF16 */
    size_t a_group_row;
    const uint16_t *b;                /* [groups * group / 2, nr, 2] */
    const float *b_scales, *b_biases; /* [groups, nr] */
    float *c;                         /* [rows, c_row] */
    ptrdiff_t c_row;
    bool accumulate;
} PairTile;

/* What the 16-bit items are. */
typedef enum { PAIRS_INT16, PAIRS_BF16, PAIR_KINDS } PairKind;
typedef struct PairKernel {
    size_t mr, nr;
    void (*tile)(const PairTile *tile); /* NULL: no such product */
    /* 8 columns of a panel: `count` codes of each of `rows` weight rows, row_words
     * apart, to out[pair][nr][2]; rows up to 8 are zero. bits 4 or 8. */
    void (*pack)(const uint32_t *words, size_t row_words, int bits, size_t rows, size_t count,
                 size_t nr, uint16_t *out);
} PairKernel;

typedef struct Kernels {
    const char *name;

    void (*to_f32[CPU_TYPES])(float *out, const void *in, size_t n);
    void (*from_f32[CPU_TYPES])(void *out, const float *in, size_t n);
    /* To the type and back, so that out holds numbers of it; out may be in. */
    void (*round[CPU_TYPES])(float *out, const float *in, size_t n);

    void (*unary[CPU_UNARY_COUNT])(float *out, const float *in, size_t n);
    void (*binary[CPU_BINARY_COUNT])(float *out, const float *a, int a_step, const float *b,
                                     int b_step, size_t n);
    void (*add_scaled)(float *out, const float *a, float factor, const float *b, size_t n);
    void (*scale_shift)(float *out, const float *in, float shift, float scale, size_t n);

    float (*sum)(const float *in, size_t n);
    float (*sum_squares)(const float *in, float center, size_t n); /* sum of (x - center)^2 */
    /* The norm of one row as cpu_norm has it; scale and shift may be NULL, out may be in. */
    void (*norm_row[CPU_TYPES])(void *out, const void *in, size_t n, float eps, bool centred,
                                const float *scale, const float *shift);
    float (*max)(const float *in, size_t n);
    float (*min)(const float *in, size_t n);
    /* out[i] = exp(in[i] - shift); returns their sum. out may be in. */
    float (*exp_sum)(float *out, const float *in, float shift, size_t n);

    /* The row x [dims] turned by cosine, sine [dims/2]; out may be in. */
    void (*rope_halves)(float *out, const float *in, const float *cosine, const float *sine,
                        size_t dims);
    void (*rope_pairs)(float *out, const float *in, const float *cosine, const float *sine,
                       size_t dims);

    /* y[i * y_stride + r] = dot of x row i [m, k] and weight row r. */
    void (*dot_rows[CPU_TYPES])(const void *w, ptrdiff_t w_stride, size_t rows, size_t k,
                                const float *x, size_t x_stride, size_t m, float *y,
                                ptrdiff_t y_stride);
    /* y[i * y_stride + c] += sum over r of x[i * x_stride + r] * w[r, c], c < n. */
    void (*sum_rows[CPU_TYPES])(const void *w, ptrdiff_t w_stride, size_t rows, size_t n,
                                const float *x, size_t x_stride, size_t m, float *y,
                                ptrdiff_t y_stride);

    /* The integers of one activation row x [k], groups of `group`: planes of
     * 16 bits `plane` apart, or blocks of digits with zeros past k. False when
     * an x is not finite. NULL where no kernel wants them. */
    bool (*fix_activations)(const float *x, size_t k, int group, int planes, int16_t *fixed,
                            size_t plane, float *scales, float *sums);
    bool (*digit_activations)(const float *x, size_t k, int group, int bits, int digits,
                              int8_t *out, float *scales, float *sums);
    QuantGemv quant_gemv[QUANT_KINDS];
    ActivationLayout quant_layout[QUANT_KINDS];
    size_t digit_block[QUANT_KINDS]; /* elements of a block of LAYOUT_DIGITS */
    bool fetch_once;                 /* what is used once is best fetched past other caches */

    /* out[0..count) = the weights of elements first.. of a packed row; first
     * and count are multiples of 32 (or end at the row's end). scales and biases
     * (affine) are those of the whole row. */
    void (*dequant[CPU_QUANT_MODES])(const uint32_t *row, int bits, size_t first, size_t count,
                                     int group, const float *scales, const float *biases,
                                     float *out);

    /* Floats to affine codes: groups of one row, the range rule of
     * cpu_affine_range. The words end with a group. */
    void (*pack)(const float *w, size_t groups, int group, int bits, uint32_t *words, float *scales,
                 float *biases);

    /* out[c] = sum over t of taps[t][c] * weights[t][c], c < n. */
    void (*tap_sum[CPU_TYPES])(float *out, const void *const *taps, const float *const *weights,
                               size_t n_taps, size_t n);

    size_t mr, nr;
    size_t half_mr; /* 0: no half tile */
    GemmTile tile;
    GemmTile half_tile; /* the first half_mr rows of a tile, for the last rows of C */
    /* 32-bit items, k of them in each of `rows` rows stride_bytes apart, to a
     * panel [k][width]; rows up to width are zero. */
    void (*pack_rows)(float *out, size_t width, const void *in, ptrdiff_t stride_bytes, size_t rows,
                      size_t k);
    /* The same of bf16 items, which become floats; or NULL. */
    void (*pack_rows_bf16)(float *out, size_t width, const void *in, ptrdiff_t stride_bytes,
                           size_t rows, size_t k);

    size_t bf16_mr, bf16_nr, bf16_half_mr; /* 0: no bf16 dot product */
    GemmTile bf16_tile, bf16_half_tile;

    /* A matrix unit of bf16 (NULL: none): tiles of SPLIT_WIDTH by SPLIT_WIDTH from
     * panels in parts, [parts of A - 1][parts of B - 1], where k counts blocks of
     * SPLIT_DEPTH. A thread is between begin and end when it calls a tile. */
    GemmTile split_tile[3][3];
    void (*split_begin)(void), (*split_end)(void);
    /* Blocks of the parts of A [0] or B [1]: of `count` (at most SPLIT_WIDTH) rows
     * of k items or of k lines of `count` items, stride bytes apart. float16 has
     * two parts and bfloat16 one. False when a number has no parts. */
    bool (*split_rows[2])(const void *in, ptrdiff_t stride, CpuType type, size_t count, size_t k,
                          int parts, uint16_t *out);
    bool (*split_lines[2])(const void *in, ptrdiff_t stride, CpuType type, size_t count, size_t k,
                           int parts, uint16_t *out);
    /* Quantised weights, [parts of A - 1], and the sums that they take. */
    void (*split_groups[3])(const SplitGroups *tile);
    void (*split_sums)(const uint16_t *a, size_t groups, size_t group_blocks, int parts,
                       float *sums);
    /* From `count` rows of weights (at most SPLIT_WIDTH): codes of 4 [0] and 8 bits
     * less their middle, and affine scales and biases as b_scales. */
    void (*split_codes[2])(const uint32_t *words, size_t row_words, size_t count, size_t k,
                           uint16_t *out);
    void (*split_scales)(const CpuQuant *weights, size_t first, size_t count, size_t group,
                         size_t groups, float middle, float *out);

    PairKernel pairs[PAIR_KINDS];
} Kernels;

const Kernels *cpu_kernels(void);

/* Scale and bias of a group with this range: the end that is larger in
 * magnitude maps to a whole number of steps, so that zero is exact. */
void cpu_affine_range(float low, float high, int bits, float *scale, float *bias);

/* The scales (and affine biases) of `count` groups from group `at` on. */
void cpu_quant_scales(const CpuQuant *weights, size_t at, size_t count, float *scales,
                      float *biases);

/* Each fills what it does better. */
void cpu_fill_scalar(Kernels *table);
void cpu_fill_gemm_scalar(Kernels *table);
void cpu_fill_quant_scalar(Kernels *table);
void cpu_fill_fp_quant_scalar(Kernels *table);
void cpu_fill_conv_scalar(Kernels *table);
void cpu_fill_vector_neon(Kernels *table);
void cpu_fill_gemm_neon(Kernels *table);
void cpu_fill_conv_neon(Kernels *table);
void cpu_fill_quant_neon(Kernels *table);
void cpu_fill_digit_neon(Kernels *table);
void cpu_fill_fp_quant_neon(Kernels *table);
void cpu_fill_pack_neon(Kernels *table);
void cpu_fill_digit_neondot(Kernels *table);
void cpu_fill_split_amx(Kernels *table);
void cpu_fill_split_quant_amx(Kernels *table);
void cpu_fill_conv_avx2(Kernels *table);
void cpu_fill_conv_avx512(Kernels *table);
void cpu_fill_pack_avx2(Kernels *table);
void cpu_fill_pack_avx512(Kernels *table);
void cpu_fill_vector_avx2(Kernels *table);
void cpu_fill_gemm_avx2(Kernels *table);
void cpu_fill_quant_avx2(Kernels *table);
void cpu_fill_fp_quant_avx2(Kernels *table);
void cpu_fill_digit_avx2(Kernels *table);
void cpu_fill_pairs_avx2(Kernels *table);
void cpu_fill_vector_avx512(Kernels *table);
void cpu_fill_gemm_avx512(Kernels *table);
void cpu_fill_quant_avx512(Kernels *table);
void cpu_fill_fp_quant_avx512(Kernels *table);
void cpu_fill_digit_avx512(Kernels *table);
void cpu_fill_quant_avx512vnni(Kernels *table);
void cpu_fill_digit_avx512vnni(Kernels *table);
void cpu_fill_digit_avx512vbmi(Kernels *table);
void cpu_fill_pairs_avx512(Kernels *table);
void cpu_fill_pairs_avx512vnni(Kernels *table);
void cpu_fill_gemm_avx512bf16(Kernels *table);
void cpu_fill_pairs_avx512bf16(Kernels *table);

/* Scratch memory, 64-byte aligned, kept by the process between calls (a few
 * blocks of moderate size; the rest goes back to the system). */
void *cpu_scratch_take(size_t bytes);
void cpu_scratch_give(void *memory);

#endif
