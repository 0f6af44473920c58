/* Streaming attention against the definition in float64: grouped heads, masks,
 * causal offsets, sinks, strides, many rows and few, at every level. */
#include "engine/kernels_check.h"

typedef struct Case {
    size_t batch, q_heads, kv_heads, q_len, kv_len, head_dim, value_dim;
    bool causal, sinks;
    CpuMask mask;
} Case;

static void check(const Case *c, CpuType type) {
    size_t group = c->q_heads / c->kv_heads;
    /* q [B, L, H, D] seen as [B, H, L, D]; k and v [B, H, L + 1, D]. */
    void *q = random_array(type, c->batch * c->q_len * c->q_heads * c->head_dim, 2);
    size_t kv_rows = c->batch * c->kv_heads * (c->kv_len + 1);
    void *k = random_array(type, kv_rows * c->head_dim, 2);
    void *v = random_array(type, kv_rows * c->value_dim, 1);
    size_t out_size = c->batch * c->q_heads * c->q_len * c->value_dim;
    void *out = random_array(type, out_size, 0);
    float *sinks = random_array(CPU_F32, c->q_heads, 2);
    size_t masks = c->q_len * c->kv_len;
    uint8_t *keep = malloc(masks + 1);
    void *bias = random_array(type, masks, 3);
    for (size_t i = 0; i < masks; i++) keep[i] = random_below(3) != 0;
    CpuAttention a = {
        .type = type,
        .batch = c->batch,
        .q_heads = c->q_heads,
        .kv_heads = c->kv_heads,
        .q_len = c->q_len,
        .kv_len = c->kv_len,
        .head_dim = c->head_dim,
        .value_dim = c->value_dim,
        .q = q,
        .k = k,
        .v = v,
        .out = out,
        .scale = 0.4f,
        .causal = c->causal,
        .q_stride = {(ptrdiff_t)(c->q_len * c->q_heads * c->head_dim), (ptrdiff_t)c->head_dim,
                     (ptrdiff_t)(c->q_heads * c->head_dim)},
        .k_stride = {(ptrdiff_t)(c->kv_heads * (c->kv_len + 1) * c->head_dim),
                     (ptrdiff_t)((c->kv_len + 1) * c->head_dim), (ptrdiff_t)c->head_dim},
        .v_stride = {(ptrdiff_t)(c->kv_heads * (c->kv_len + 1) * c->value_dim),
                     (ptrdiff_t)((c->kv_len + 1) * c->value_dim), (ptrdiff_t)c->value_dim},
        .out_stride = {(ptrdiff_t)(c->q_heads * c->q_len * c->value_dim),
                       (ptrdiff_t)(c->q_len * c->value_dim), (ptrdiff_t)c->value_dim},
        .mask_kind = c->mask,
        .mask = c->mask == CPU_MASK_BOOL ? (void *)keep : bias,
        .mask_type = type,
        .mask_stride = {0, 0, (ptrdiff_t)c->kv_len, 1},
        .sinks = c->sinks ? sinks : NULL};
    cpu_attention(&a);
    double *score = malloc((c->kv_len + 1) * sizeof *score);
    for (size_t b = 0; b < c->batch; b++)
        for (size_t h = 0; h < c->q_heads; h++)
            for (size_t i = 0; i < c->q_len; i++) {
                double top = c->sinks ? sinks[h] : -INFINITY, total = 0;
                for (size_t j = 0; j < c->kv_len; j++) {
                    double s = 0;
                    for (size_t d = 0; d < c->head_dim; d++)
                        s += (double)cpu_load(
                                 q, type, ((b * c->q_len + i) * c->q_heads + h) * c->head_dim + d) *
                             cpu_load(k, type,
                                      ((b * c->kv_heads + h / group) * (c->kv_len + 1) + j) *
                                              c->head_dim +
                                          d);
                    s *= 0.4f;
                    if (c->mask == CPU_MASK_BOOL && !keep[i * c->kv_len + j]) s = -3e38;
                    if (c->mask == CPU_MASK_ADDITIVE) s += cpu_load(bias, type, i * c->kv_len + j);
                    if (c->causal && j + c->q_len > i + c->kv_len) s = -3e38;
                    score[j] = s;
                    top = fmax(top, s);
                }
                for (size_t j = 0; j < c->kv_len; j++) total += score[j] = exp(score[j] - top);
                if (c->sinks) total += exp(sinks[h] - top);
                for (size_t d = 0; d < c->value_dim; d++) {
                    double want = 0;
                    for (size_t j = 0; j < c->kv_len; j++)
                        want += score[j] / total *
                                cpu_load(v, type,
                                         ((b * c->kv_heads + h / group) * (c->kv_len + 1) + j) *
                                                 c->value_dim +
                                             d);
                    char what[96];
                    snprintf(what, sizeof what,
                             "attention L %zu of %zu, D %zu, mask %d causal %d type %d", c->q_len,
                             c->kv_len, c->head_dim, c->mask, c->causal, type);
                    assert_near(cpu_load(out, type,
                                         ((b * c->q_heads + h) * c->q_len + i) * c->value_dim + d),
                                want, type_error(type) * 1.01 * fabs(want) + 3e-6, what, i);
                }
            }
    free(q);
    free(k);
    free(v);
    free(out);
    free(sinks);
    free(keep);
    free(bias);
    free(score);
}

static void test_attention_matches_its_definition(void **state) {
    (void)state;
    static const Case cases[] = {
        {1, 2, 1, 2, 3, 2, 2, false, false, CPU_MASK_NONE},
        {1, 6, 2, 1, 77, 64, 64, false, false, CPU_MASK_NONE},
        {1, 9, 3, 1, 40, 64, 64, true, false, CPU_MASK_NONE},
        {1, 2, 1, 1, 2300, 40, 24, true, true, CPU_MASK_NONE},
        {1, 1, 1, 1, 3000, 16, 16, false, false, CPU_MASK_BOOL},
        {2, 4, 2, 3, 9, 33, 17, true, false, CPU_MASK_NONE},
        {2, 3, 3, 50, 50, 32, 32, true, false, CPU_MASK_NONE},
        {1, 4, 1, 60, 200, 24, 40, true, true, CPU_MASK_NONE},
        {1, 2, 2, 20, 300, 64, 64, false, false, CPU_MASK_BOOL},
        {2, 2, 1, 33, 140, 20, 20, false, true, CPU_MASK_ADDITIVE},
        {1, 2, 2, 40, 25, 16, 16, true, false, CPU_MASK_NONE},
        {1, 1, 1, 300, 300, 8, 8, true, false, CPU_MASK_NONE},
        {1, 3, 1, 2, 20, 12, 12, true, false, CPU_MASK_ADDITIVE},
        {1, 2, 1, 290, 310, 48, 80, true, true, CPU_MASK_NONE},
        {1, 1, 1, 260, 200, 64, 33, false, false, CPU_MASK_BOOL},
    };
    for (size_t i = 0; i < BASE_COUNT(cases); i++)
        for (CpuType type = 0; type < CPU_TYPES; type++) check(&cases[i], type);
}

static void test_a_row_masked_everywhere_averages_the_values(void **state) {
    (void)state;
    float q[4] = {1, 2, 3, 4}, k[12] = {1}, v[12], out[4];
    uint8_t keep[3] = {0, 0, 0};
    for (int i = 0; i < 12; i++) v[i] = (float)i;
    CpuAttention a = {.batch = 1,
                      .q_heads = 1,
                      .kv_heads = 1,
                      .q_len = 1,
                      .kv_len = 3,
                      .head_dim = 4,
                      .value_dim = 4,
                      .q = q,
                      .k = k,
                      .v = v,
                      .out = out,
                      .scale = 1,
                      .q_stride = {4, 4, 4},
                      .k_stride = {12, 12, 4},
                      .v_stride = {12, 12, 4},
                      .out_stride = {4, 4, 4},
                      .mask_kind = CPU_MASK_BOOL,
                      .mask = keep,
                      .mask_stride = {0, 0, 0, 1}};
    cpu_attention(&a);
    for (int i = 0; i < 4; i++) assert_near(out[i], 4.0 + i, 1e-6, "average", (size_t)i);
}

/* Position 5 of the keys is infinite: rows that see it are NaN, others are not. */
static void test_an_infinite_key_reaches_the_rows_that_see_it(void **state) {
    (void)state;
    enum { L = 40, D = 32, SPECIAL = 5 };
    for (CpuType type = 0; type < CPU_TYPES; type++) {
        void *q = random_array(type, L * D, 1), *k = random_array(type, L * D, 1),
             *v = random_array(type, L * D, 1), *plain = random_array(type, L * D, 0),
             *out = random_array(type, L * D, 0);
        CpuAttention a = {.batch = 1,
                          .q_heads = 1,
                          .kv_heads = 1,
                          .q_len = L,
                          .kv_len = L,
                          .head_dim = D,
                          .value_dim = D,
                          .type = type,
                          .scale = 0.2f,
                          .causal = true,
                          .q = q,
                          .k = k,
                          .v = v,
                          .out = plain,
                          .q_stride = {L * D, L * D, D},
                          .k_stride = {L * D, L * D, D},
                          .v_stride = {L * D, L * D, D},
                          .out_stride = {L * D, L * D, D}};
        for (size_t i = 0; i < L; i++) cpu_store(q, type, i * D, 1);
        cpu_attention(&a);
        cpu_store(k, type, SPECIAL * D, INFINITY);
        a.out = out;
        cpu_attention(&a);
        for (size_t i = 0; i < L; i++) {
            const float got = cpu_load(out, type, i * D), want = cpu_load(plain, type, i * D);
            if (i < SPECIAL)
                assert_near(got, want, 2 * type_error(type) * fabs((double)want) + 3e-6, "row", i);
            else
                assert_true(isnan(got));
        }
        free(q);
        free(k);
        free(v);
        free(plain);
        free(out);
    }
}

static void test_published_vectors(void **state) {
    /* Two heads of two queries over three keys, scale 1: made by mlx. */
    (void)state;
    static const float q[] = {1, 0, 0, 1, 1, 1, 2, 0}, kv[] = {1, 0, 0, 1, 1, 1}, sinks[] = {0, 1};
    static const float plain[] = {.8446376f, .5776812f, .5776812f, .8446376f,
                                  .7880584f, .7880584f, .936621f,  .5316895f};
    float out[8];
    CpuAttention a = {.batch = 1,
                      .q_heads = 2,
                      .kv_heads = 1,
                      .q_len = 2,
                      .kv_len = 3,
                      .head_dim = 2,
                      .value_dim = 2,
                      .q = q,
                      .k = kv,
                      .v = kv,
                      .out = out,
                      .scale = 1,
                      .q_stride = {8, 4, 2},
                      .k_stride = {6, 6, 2},
                      .v_stride = {6, 6, 2},
                      .out_stride = {8, 4, 2}};
    cpu_attention(&a);
    for (size_t i = 0; i < 8; i++) assert_near(out[i], plain[i], 2e-7, "plain", i);
    a.causal = true;
    cpu_attention(&a);
    assert_near(out[0], .7310586, 2e-7, "causal", 0);
    assert_near(out[1], .2689414, 2e-7, "causal", 1);
    a.sinks = sinks;
    cpu_attention(&a);
    assert_near(out[0], .5761169, 2e-7, "causal with sinks", 0);
    assert_near(out[1], .2119416, 2e-7, "causal with sinks", 1);
}

static int tests(void) {
    const struct CMUnitTest list[] = {
        cmocka_unit_test(test_attention_matches_its_definition),
        cmocka_unit_test(test_a_row_masked_everywhere_averages_the_values),
        cmocka_unit_test(test_an_infinite_key_reaches_the_rows_that_see_it),
        cmocka_unit_test(test_published_vectors),
    };
    return cmocka_run_group_tests(list, NULL, NULL);
}

int main(void) {
    return run_levels(tests);
}
