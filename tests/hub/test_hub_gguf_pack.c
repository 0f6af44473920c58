/* Blocks of GGUF: the bytes of gguf 0.19.0 (Python), and packed values that stay what
 * they were. */
#include "hub/gguf_pack.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void expect_block(const char *type, const float *x, const char *hex) {
    uint8_t block[GGUF_BLOCK_BYTES];
    char text[2 * GGUF_BLOCK_BYTES + 1];
    const GgufPacking *packing = gguf_packing(type);
    assert_non_null(packing);
    gguf_pack_floats(packing, x, 1, GGUF_BLOCK, block);
    for (int i = 0; i < packing->bytes; i++)
        sprintf(text + (size_t)2 * (size_t)i, "%02x", block[i]);
    assert_string_equal(text, hex);
}

/* gguf.quants.quantize of the same values. */
static void test_floats_are_rounded_as_ggml_rounds(void **state) {
    (void)state;
    float x[GGUF_BLOCK];
    for (int i = 0; i < GGUF_BLOCK; i++)
        x[i] = (float)((i * 37) % 64 - 31) / 16.0F + (float)i / 128.0F;
    expect_block("q8_0", x, "55248d17b33cd962ff9c25c24be8710daa33d059f67f1cb842de6704a12ac750ed76");
    expect_block("q4_0", x, "4cb4bf279d046ad248ae168ce35ac1379d15");
    expect_block("q4_1", x, "5c34c0bf40d962fb953db751e9731ca64ec862ea");
}

/* Of q4_0 it is -0, 0 / -8. */
static void test_a_block_of_zeros_has_no_scale(void **state) {
    (void)state;
    const float zeros[GGUF_BLOCK] = {0};
    expect_block("q8_0", zeros,
                 "00000000000000000000000000000000000000000000000000000000000000000000");
    expect_block("q4_0", zeros, "008088888888888888888888888888888888");
    expect_block("q4_1", zeros, "0000000000000000000000000000000000000000");
}

/* Two rows of 64 values: word by word as MLX packs them, a group of 64 for two blocks. */
static void check_kept(const char *type, int bits, int header) {
    enum { ROWS = 2, WIDTH = 64 };
    uint8_t words[ROWS * WIDTH] = {0}, blocks[ROWS * 2 * GGUF_BLOCK_BYTES];
    const float scales[ROWS] = {0.5F, 2}, biases[ROWS] = {-1, 0.25F};
    const GgufPacking *packing = gguf_packing(type);
    for (int i = 0; i < ROWS * WIDTH; i++) {
        const unsigned q = (unsigned)(i * 11 + i / 7) & ((1U << bits) - 1);
        for (int bit = 0; bit < bits; bit++)
            words[(i * bits + bit) / 8] |= (uint8_t)((q >> bit & 1) << (i * bits + bit) % 8);
    }
    const GgufPacked packed = {.words = words,
                               .scales = scales,
                               .biases = biases,
                               .rows = ROWS,
                               .width = WIDTH,
                               .bits = bits,
                               .group_size = WIDTH};
    assert_true(gguf_pack_words(packing, &packed, blocks));
    for (int i = 0; i < ROWS * WIDTH; i++) {
        const uint8_t *block = blocks + (size_t)(i / GGUF_BLOCK) * packing->bytes;
        const unsigned q = (unsigned)(i * 11 + i / 7) & ((1U << bits) - 1);
        const int place = i % GGUF_BLOCK, byte = header + place % 16;
        unsigned kept = block[byte] >> (place < 16 ? 0 : 4) & 15;
        if (bits == 5) kept |= (unsigned)(block[4 + place / 8] >> place % 8 & 1) << 4;
        assert_int_equal(kept, q);
    }
    assert_int_equal(blocks[0] | blocks[1] << 8, 0x3800); /* 0.5 */
    assert_int_equal(blocks[2] | blocks[3] << 8, 0xbc00); /* -1 */
    assert_int_equal(blocks[2 * packing->bytes] | blocks[2 * packing->bytes + 1] << 8, 0x4000);
}

static void test_packed_values_of_any_width_stay(void **state) {
    (void)state;
    check_kept("q4_1", 2, 4);
    check_kept("q4_1", 3, 4);
    check_kept("q4_1", 4, 4);
    check_kept("q5_1", 5, 8);
}

static void test_a_scale_beyond_float16_is_refused(void **state) {
    (void)state;
    const uint8_t words[16] = {0};
    const float scale = 70000, bias = 0;
    uint8_t block[GGUF_BLOCK_BYTES];
    const GgufPacked packed = {.words = words,
                               .scales = &scale,
                               .biases = &bias,
                               .rows = 1,
                               .width = GGUF_BLOCK,
                               .bits = 4,
                               .group_size = GGUF_BLOCK};
    assert_false(gguf_pack_words(gguf_packing("q4_1"), &packed, block));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_floats_are_rounded_as_ggml_rounds),
        cmocka_unit_test(test_a_block_of_zeros_has_no_scale),
        cmocka_unit_test(test_packed_values_of_any_width_stay),
        cmocka_unit_test(test_a_scale_beyond_float16_is_refused),
    };
    return cmocka_run_group_tests_name("hub gguf blocks", tests, NULL, NULL);
}
