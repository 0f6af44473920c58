/* From a config to its family's complete row: what the row leaves out is filled in
 * from the row it is like, up to Llama's. */
#include "models/decoder.h"

#include <stddef.h>
#include <string.h>

/* Every field that a row inherits by itself. */
#define FIELD(name) \
    { offsetof(DecoderArch, name), sizeof(((DecoderArch *)0)->name) }
static const struct {
    size_t offset, bytes;
} fields[] = {
    FIELD(wrapper),
    FIELD(nested),
    FIELD(sizes.hidden),
    FIELD(sizes.layers),
    FIELD(sizes.ffn),
    FIELD(sizes.heads),
    FIELD(sizes.kv_heads),
    FIELD(sizes.head_dim),
    FIELD(sizes.vocab),
    FIELD(sizes.value_dim),
    FIELD(sizes.experts),
    FIELD(sizes.active),
    FIELD(embed),
    FIELD(positions),
    FIELD(layers),
    FIELD(final_norm),
    FIELD(head),
    FIELD(norm),
    FIELD(norm_bias),
    FIELD(norm_eps),
    FIELD(attention_in),
    FIELD(attention_out),
    FIELD(attention_sub),
    FIELD(ffn_in),
    FIELD(ffn_out),
    FIELD(ffn_sub),
    FIELD(parallel),
    FIELD(two_norms),
    FIELD(embed_norm),
    FIELD(mixer),
    FIELD(q),
    FIELD(k),
    FIELD(v),
    FIELD(o),
    FIELD(qkv),
    FIELD(layout),
    FIELD(qkv_bias),
    FIELD(o_bias),
    FIELD(kv),
    FIELD(q_norm),
    FIELD(k_norm),
    FIELD(qk_norm),
    FIELD(qk_norm_if),
    FIELD(qk_norm_late),
    FIELD(qk_norm_rotating),
    FIELD(qk_norm_eps),
    FIELD(gate),
    FIELD(gate_kind),
    FIELD(gate_if),
    FIELD(sinks),
    FIELD(full_sinks),
    FIELD(sliding_sinks),
    FIELD(clip_qkv),
    FIELD(attention_scale),
    FIELD(attention_dim),
    FIELD(attention_softcap),
    FIELD(attention_scaled),
    FIELD(attention_by_layer),
    FIELD(in_float32),
    FIELD(temperature),
    FIELD(shares_kv),
    FIELD(latent_eps),
    FIELD(rope_theta),
    FIELD(rope_partial),
    FIELD(rotary_dim),
    FIELD(rope_traditional),
    FIELD(rope_base),
    FIELD(local_theta),
    FIELD(local_theta_key),
    FIELD(local_plain),
    FIELD(position),
    FIELD(window),
    FIELD(default_window),
    FIELD(default_pattern),
    FIELD(ffn),
    FIELD(ffn_path),
    FIELD(gate_name),
    FIELD(up),
    FIELD(down),
    FIELD(ffn_key),
    FIELD(ffn_bias),
    FIELD(activation),
    FIELD(activation_key),
    FIELD(pair),
    FIELD(width),
    FIELD(moe.router),
    FIELD(moe.router_bias),
    FIELD(moe.router_float32),
    FIELD(moe.correction),
    FIELD(moe.correction_if),
    FIELD(moe.experts),
    FIELD(moe.expert_bias),
    FIELD(moe.two_layer),
    FIELD(moe.score),
    FIELD(moe.score_key),
    FIELD(moe.normalise),
    FIELD(moe.scale),
    FIELD(moe.groups),
    FIELD(moe.groups_if),
    FIELD(moe.layers),
    FIELD(moe.layers_key),
    FIELD(moe.shared),
    FIELD(moe.shared_gate),
    FIELD(moe.shared_rule),
    FIELD(moe.shared_if),
    FIELD(moe.width_key),
    FIELD(moe.shared_count_key),
    FIELD(moe.shared_width_key),
    FIELD(moe.softcap),
    FIELD(moe.listed),
    FIELD(xielu),
    FIELD(ternary),
    FIELD(tied),
    FIELD(head_bias),
    FIELD(embed_rule),
    FIELD(logit_rule),
    FIELD(residual_rule),
    FIELD(embed_scale),
    FIELD(residual_scale),
    FIELD(logit_scale),
    FIELD(logit_divisor),
    FIELD(logit_softcap),
    FIELD(clip_residual),
    FIELD(rules),
    FIELD(eight_bits),
    FIELD(keeps_dtype),
};
enum { LARGEST_FIELD = 32, DEEPEST = 6 };

static void inherit(DecoderArch *arch, const DecoderArch *parent) {
    static const char unset[LARGEST_FIELD];
    for (size_t i = 0; i < BASE_COUNT(fields); i++) {
        char *own = (char *)arch + fields[i].offset;
        if (memcmp(own, unset, fields[i].bytes) == 0)
            memcpy(own, (const char *)parent + fields[i].offset, fields[i].bytes);
    }
}

static const DecoderArch *row_of(const char *type, const json_t *config) {
    const ArchTable *tables[] = {&model_dense_archs, &model_moe_archs};
    for (size_t t = 0; t < BASE_COUNT(tables); t++) {
        for (size_t i = 0; i < tables[t]->count; i++) {
            const DecoderArch *row = &tables[t]->rows[i];
            if (strcmp(row->model_type, type) != 0) continue;
            if (!row->with_key || !config || json_object_get(config, row->with_key)) return row;
        }
    }
    return NULL;
}

bool model_decoder_known(const char *model_type) {
    return model_type[0] != '(' && row_of(model_type, NULL);
}

/* Mistral 3 wraps a Llama or, when its text says so, a Ministral 3. */
static const char *parent_of(const DecoderArch *arch, const json_t *config) {
    const char *text =
        json_string_value(json_object_get(json_object_get(config, "text_config"), "model_type"));
    if (arch->wrapper && text && strcmp(text, "ministral3") == 0) return text;
    return arch->like ? arch->like : "llama";
}

bool model_decoder_arch(const json_t *config, DecoderArch *arch) {
    const char *type = json_string_value(json_object_get(config, "model_type"));
    const DecoderArch *row = type && type[0] != '(' ? row_of(type, config) : NULL;
    if (!row) return false;
    *arch = *row;
    for (int depth = 0; row && strcmp(row->model_type, "llama") != 0 && depth < DEEPEST; depth++) {
        row = row_of(parent_of(row, config), config);
        if (row) inherit(arch, row);
    }
    return true;
}

void model_decoder_types(char *text, size_t bytes) {
    const ArchTable *tables[] = {&model_dense_archs, &model_moe_archs};
    size_t used = 0;
    for (size_t t = 0; t < BASE_COUNT(tables); t++) {
        for (size_t i = 0; i < tables[t]->count && used < bytes; i++) {
            const char *type = tables[t]->rows[i].model_type;
            if (type[0] == '(' || (i > 0 && strcmp(tables[t]->rows[i - 1].model_type, type) == 0))
                continue;
            used += (size_t)snprintf(text + used, bytes - used, "%s%s", used ? ", " : "", type);
        }
    }
}
