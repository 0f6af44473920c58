/* The list of a model's tensors: found by hash, ordered as mlx-lm's modules. */
#include "lm/tensors.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

void lm_tensors_free(LmTensors *tensors) {
    for (size_t i = 0; i < tensors->count; i++) {
        free(tensors->items[i].name);
        mx_free(&tensors->items[i].array);
    }
    free(tensors->items);
    free(tensors->slots);
    *tensors = (LmTensors){0};
}

/* ---- the hash: slots are never emptied, so chains of removed names stay whole ---- */

static uint32_t *slot_of(const LmTensors *tensors, const char *name) {
    size_t at = base_hash(name, strlen(name)) & (tensors->slot_count - 1);
    for (; tensors->slots[at]; at = (at + 1) & (tensors->slot_count - 1)) {
        const char *found = tensors->items[tensors->slots[at] - 1].name;
        if (found && strcmp(found, name) == 0) break;
    }
    return &tensors->slots[at];
}

static void index_all(LmTensors *tensors, size_t slot_count) {
    free(tensors->slots);
    tensors->slot_count = slot_count;
    tensors->slots = base_calloc(slot_count, sizeof *tensors->slots);
    for (size_t i = 0; i < tensors->count; i++)
        if (tensors->items[i].name) *slot_of(tensors, tensors->items[i].name) = (uint32_t)i + 1;
}

void lm_tensors_add(LmTensors *tensors, const char *name, mlx_array array) {
    if (!array.ctx) return;
    if (tensors->slot_count < 2 * (tensors->count + 1))
        index_all(tensors, tensors->slot_count ? 2 * tensors->slot_count : 256);
    uint32_t *slot = slot_of(tensors, name);
    if (*slot) {
        mx_store(&tensors->items[*slot - 1].array, array);
        return;
    }
    tensors->items =
        base_grow(tensors->items, &tensors->capacity, tensors->count + 1, sizeof *tensors->items);
    tensors->items[tensors->count++] =
        (HubTensor){.name = base_strdup(name), .array = mx_keep(array)};
    *slot = (uint32_t)tensors->count;
}

static HubTensor *find(const LmTensors *tensors, const char *name) {
    const uint32_t *slot = tensors->slot_count ? slot_of(tensors, name) : NULL;
    return slot && *slot ? &tensors->items[*slot - 1] : NULL;
}

mlx_array lm_tensors_get(const LmTensors *tensors, const char *name) {
    const HubTensor *found = find(tensors, name);
    return found ? found->array : (mlx_array){0};
}

mlx_array lm_tensors_find(const LmTensors *tensors, const char *format, ...) {
    char name[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    return lm_tensors_get(tensors, name);
}

void lm_tensors_remove(LmTensors *tensors, const char *name) {
    HubTensor *found = find(tensors, name);
    if (!found) return;
    free(found->name);
    found->name = NULL;
    mx_free(&found->array);
}

void lm_tensors_rename(LmTensors *tensors, const char *name, const char *to) {
    mlx_array array = lm_tensors_get(tensors, name);
    if (!array.ctx || strcmp(name, to) == 0) return;
    mlx_array kept = mx_keep(array);
    lm_tensors_remove(tensors, name);
    lm_tensors_add(tensors, to, kept);
    mx_free(&kept);
}

/* ---- order ----------------------------------------------------------------------- */

/* Parts of names in the order of definition; what is not listed comes between
 * the two halves of a table, by name. */
static const char *const early_parts[] = {"embed_tokens",
                                          "wte",
                                          "wpe",
                                          "word_embeddings",
                                          "embed_in",
                                          "embeddings",
                                          "self_attn",
                                          "attn",
                                          "attention",
                                          "q_proj",
                                          "q_a_proj",
                                          "q_a_layernorm",
                                          "q_b_proj",
                                          "kv_a_proj_with_mqa",
                                          "kv_a_layernorm",
                                          "embed_q",
                                          "unembed_out",
                                          "k_proj",
                                          "v_proj",
                                          "qkv_proj",
                                          "o_proj",
                                          "q_norm",
                                          "k_norm",
                                          "block_sparse_moe",
                                          "mlp",
                                          "gate",
                                          "gate_proj",
                                          "gate_up_proj",
                                          "down_proj",
                                          "up_proj",
                                          "switch_mlp"};
static const char *const late_parts[] = {"input_layernorm",
                                         "post_attention_layernorm",
                                         "pre_feedforward_layernorm",
                                         "post_feedforward_layernorm",
                                         "norm",
                                         "lm_head",
                                         "weight",
                                         "scales",
                                         "biases",
                                         "bias"};

static int rank_of(const char *part, size_t length) {
    for (size_t i = 0; i < BASE_COUNT(early_parts); i++)
        if (strlen(early_parts[i]) == length && memcmp(early_parts[i], part, length) == 0)
            return (int)i;
    for (size_t i = 0; i < BASE_COUNT(late_parts); i++)
        if (strlen(late_parts[i]) == length && memcmp(late_parts[i], part, length) == 0)
            return 1000 + (int)i;
    return 500;
}

/* Part by part: numbers by value, then by rank, then by name. */
static int by_definition(const void *a, const void *b) {
    const char *one = ((const HubTensor *)a)->name, *two = ((const HubTensor *)b)->name;
    while (*one && *two) {
        size_t first = strcspn(one, "."), second = strcspn(two, ".");
        if (first != second || memcmp(one, two, first) != 0) {
            if (isdigit((unsigned char)*one) && isdigit((unsigned char)*two)) {
                long x = strtol(one, NULL, 10), y = strtol(two, NULL, 10);
                if (x != y) return x < y ? -1 : 1;
            }
            int x = rank_of(one, first), y = rank_of(two, second);
            if (x != y) return x < y ? -1 : 1;
            return strcmp(one, two);
        }
        one += first + (one[first] == '.');
        two += second + (two[second] == '.');
    }
    return (*one != 0) - (*two != 0);
}

void lm_tensors_order(LmTensors *tensors) {
    size_t used = 0;
    for (size_t i = 0; i < tensors->count; i++)
        if (tensors->items[i].name) tensors->items[used++] = tensors->items[i];
    tensors->count = used;
    if (used > 1) qsort(tensors->items, used, sizeof *tensors->items, by_definition);
    if (tensors->slot_count) index_all(tensors, tensors->slot_count);
}
