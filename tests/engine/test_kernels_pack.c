/* Affine quantisation: every level gives the bits of the scalar twin, whose
 * numbers are mlx's. */
#include "engine/kernels_check.h"

static const int widths[] = {2, 3, 4, 5, 6, 8}, groups_of[] = {32, 64, 128};

static void check_row(const float *w, size_t groups, int group, int bits) {
    Kernels trusted = {0};
    cpu_fill_quant_scalar(&trusted);
    size_t bytes = groups * (size_t)group * (size_t)bits / 8;
    uint32_t *want = malloc(bytes), *got = malloc(bytes);
    float scales[2][16], biases[2][16];
    trusted.pack(w, groups, group, bits, want, scales[0], biases[0]);
    cpu_kernels()->pack(w, groups, group, bits, got, scales[1], biases[1]);
    assert_memory_equal(got, want, bytes);
    assert_memory_equal(scales[1], scales[0], groups * sizeof(float));
    assert_memory_equal(biases[1], biases[0], groups * sizeof(float));
    free(want);
    free(got);
}

static void test_every_width_and_group_packs_the_bits_of_the_scalar_twin(void **state) {
    (void)state;
    for (size_t b = 0; b < BASE_COUNT(widths); b++)
        for (size_t g = 0; g < BASE_COUNT(groups_of); g++)
            for (size_t groups = 1; groups < 6; groups++)
                for (CpuType type = 0; type < CPU_TYPES; type++) {
                    size_t n = groups * (size_t)groups_of[g];
                    void *stored = random_array(type, n, random_below(2) ? 0.05f : 30);
                    float *w = malloc(n * sizeof *w);
                    for (size_t i = 0; i < n; i++) w[i] = cpu_load(stored, type, i);
                    check_row(w, groups, groups_of[g], widths[b]);
                    free(stored);
                    free(w);
                }
}

static void test_flat_one_sided_and_broken_groups_pack_alike(void **state) {
    (void)state;
    static const float strange[] = {0, -0.0f, 1, -3, 1e-9f, 3e38f, INFINITY, -INFINITY, NAN};
    for (size_t b = 0; b < BASE_COUNT(widths); b++)
        for (size_t s = 0; s < BASE_COUNT(strange); s++)
            for (size_t every = 1; every < 5; every++) {
                float w[128];
                for (size_t i = 0; i < 128; i++)
                    w[i] = i % every == 0 ? strange[s] : 0.01f * (float)i;
                check_row(w, 2, 64, widths[b]);
            }
}

static void test_known_numbers(void **state) {
    /* mx.quantize(arange(64)/10 - 2, bits=4), mlx 0.31.2 on the CPU. */
    (void)state;
    float w[64], scale, bias;
    uint32_t words[8];
    for (int i = 0; i < 64; i++) w[i] = (float)i / 10.0f - 2.0f;
    cpu_kernels()->pack(w, 1, 64, 4, words, &scale, &bias);
    static const uint32_t expected[8] = {0xdddeeeef, 0xbbccccdd, 0x9aaaaabb, 0x78888999,
                                         0x66667777, 0x44445555, 0x22233333, 0x00011112};
    assert_memory_equal(words, expected, sizeof words);
    assert_true(scale == -0x1.b851ec0000000p-2f && bias == 0x1.1333340000000p+2f);
}

static int tests(void) {
    const struct CMUnitTest all[] = {
        cmocka_unit_test(test_every_width_and_group_packs_the_bits_of_the_scalar_twin),
        cmocka_unit_test(test_flat_one_sided_and_broken_groups_pack_alike),
        cmocka_unit_test(test_known_numbers),
    };
    return cmocka_run_group_tests_name("pack", all, NULL, NULL);
}

int main(void) {
    return run_levels(tests);
}
