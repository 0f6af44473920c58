/* The order of modules, family by family: facts about the constructors in
 * mlx_lm/models (0.31.3), which the names alone do not tell. What a family keeps in
 * plain arrays (some routers, a matrix a head, ternary weights) is in no list. */
#include "tune/order.h"

#include <stdlib.h>
#include <string.h>

#define ATTENTION " self_attn.o_proj self_attn.v_proj self_attn.k_proj self_attn.q_proj "
#define GLU(path) " " path ".up_proj " path ".down_proj " path ".gate_proj "
#define GLU_UP_LAST(path) " " path ".down_proj " path ".up_proj " path ".gate_proj "
#define EXPERTS(path) GLU_UP_LAST(path)
#define LATENT_QUERIES " self_attn.q_b_proj self_attn.q_a_proj self_attn.q_proj self_attn.o_proj "
#define LATENT LATENT_QUERIES " self_attn.kv_b_proj self_attn.kv_a_proj_with_mqa "
#define DEEPSEEK_FFN GLU_UP_LAST("mlp") GLU_UP_LAST("mlp.shared_experts") EXPERTS("mlp.switch_mlp")

static const struct {
    const char *types; /* each between spaces */
    const char *order;
} orders[] = {
    {" llama mistral iquestcoder qwen2 qwen3 mimo seed_oss telechat3 ernie4_5 exaone4 granite "
     "hunyuan_v1_dense internlm3 gemma gemma2 gemma3_text olmo2 olmo3 stablelm ministral3 smollm3 ",
     GLU("mlp") ATTENTION},
    {" helium minicpm cohere cohere2 plamo ", GLU_UP_LAST("mlp") ATTENTION},
    {" qwen ", " mlp.c_proj mlp.w2 mlp.w1 attn.c_proj attn.c_attn "},
    {" exaone ", " mlp.c_proj mlp.c_fc_1 mlp.c_fc_0 attn.attention.out_proj attn.attention.v_proj "
                 "attn.attention.k_proj attn.attention.q_proj "},
    {" glm glm4 ", " mlp.down_proj mlp.gate_up_proj " ATTENTION},
    {" internlm2 ",
     " feed_forward.w3 feed_forward.w2 feed_forward.w1 attention.wo attention.wqkv "},
    {" olmo ", " attn_out att_proj ff_out ff_proj "},
    {" phi ", " mlp.fc2 mlp.fc1 self_attn.dense self_attn.v_proj self_attn.k_proj "
              "self_attn.q_proj "},
    {" phi3 ", " mlp.down_proj mlp.gate_up_proj self_attn.o_proj self_attn.qkv_proj "},
    {" starcoder2 ", " mlp.c_proj mlp.c_fc " ATTENTION},
    {" gpt2 gpt_bigcode ", " mlp.c_proj mlp.c_fc attn.c_proj attn.c_attn "},
    {" gpt_neox ", " mlp.dense_4h_to_h mlp.dense_h_to_4h attention.dense "
                   "attention.query_key_value "},
    {" nemotron ", " mlp.up_proj mlp.down_proj " ATTENTION},
    {" nemotron-nas ", " mlp.linear " GLU("mlp") " self_attn.linear " ATTENTION},
    {" apertus ", " mlp.down_proj mlp.up_proj " ATTENTION},
    {" openelm ", " ffn.proj_2 ffn.proj_1 attn.out_proj attn.qkv_proj "},
    {" lille-130m ", GLU_UP_LAST("feed_forward") " attention.out_proj attention.qkv_proj "},
    {" nanochat ", " mlp.c_proj mlp.c_fc attn.c_proj attn.c_v attn.c_k attn.c_q "},
    {" llama4_text ", GLU_UP_LAST("feed_forward") ATTENTION},
    {" bitnet ", " "},
    {" mixtral phimoe minimax minimax_m2 ",
     EXPERTS("block_sparse_moe.switch_mlp") " block_sparse_moe.gate " ATTENTION},
    {" phixtral phi-msft ", " moe.gate moe.switch_mlp.fc2 moe.switch_mlp.fc1 mixer.out_proj "
                            "mixer.Wqkv "},
    {" qwen2_moe ", " mlp.shared_expert_gate " GLU("mlp.shared_expert")
                        EXPERTS("mlp.switch_mlp") " mlp.gate " ATTENTION},
    {" qwen3_moe olmoe ", EXPERTS("mlp.switch_mlp") " mlp.gate " GLU("mlp") ATTENTION},
    {" granitemoe ",
     " block_sparse_moe.router.layer " EXPERTS("block_sparse_moe.switch_mlp") ATTENTION},
    {" deepseek exaone_moe glm4_moe mimo_v2_flash solar_open ", DEEPSEEK_FFN ATTENTION},
    {" deepseek_v2 ", DEEPSEEK_FFN LATENT},
    {" deepseek_v3 glm4_moe_lite kimi_k2 joyai_llm_flash kimi_k25 ",
     DEEPSEEK_FFN LATENT_QUERIES " self_attn.kv_a_proj_with_mqa "},
    {" youtu_llm youtu ", GLU_UP_LAST("mlp") LATENT},
    {" minicpm3 ", GLU_UP_LAST("mlp") " self_attn.o_proj self_attn.kv_b_proj "
                                      "self_attn.kv_a_proj_with_mqa self_attn.q_b_proj "
                                      "self_attn.q_a_proj "},
    {" dots1 ",
     GLU_UP_LAST("mlp.shared_experts") EXPERTS("mlp.experts") GLU_UP_LAST("mlp") ATTENTION},
    {" ernie4_5_moe ",
     GLU("mlp.shared_experts") EXPERTS("mlp.switch_mlp") " mlp.gate " GLU("mlp") ATTENTION},
    {" bailing_moe ", GLU("mlp") GLU("mlp.shared_experts") " mlp.gate.gate_proj " EXPERTS(
                          "mlp.switch_mlp") " attention.dense attention.query_key_value "},
    {" Klear ", " mlp.coefficient " GLU("mlp.shared_experts")
                    EXPERTS("mlp.experts") " mlp.gate " GLU("mlp") ATTENTION},
    {" afmoe ", GLU("mlp") GLU("mlp.shared_experts")
                    EXPERTS("mlp.experts") " mlp.router.gate self_attn.gate_proj " ATTENTION},
    {" gpt_oss ", " mlp.router " EXPERTS("mlp.experts") ATTENTION},
    {" dbrx ", " norm_attn_norm.attn.out_proj norm_attn_norm.attn.Wqkv ffn.experts.w2 "
               "ffn.experts.w1 ffn.experts.v1 ffn.router.layer "},
    {" hunyuan ",
     GLU("mlp") GLU("mlp.shared_mlp") EXPERTS("mlp.switch_mlp") " mlp.gate.wg self_attn.v_proj "
                                                                "self_attn.k_proj "
                                                                "self_attn.o_proj "
                                                                "self_attn.q_proj "},
    {" step3p5 ",
     GLU_UP_LAST("mlp.share_expert") EXPERTS("mlp.switch_mlp") " mlp.gate.gate " GLU_UP_LAST(
         "mlp") " self_attn.g_proj " ATTENTION},
    {" llama4 ", GLU("feed_forward.shared_expert") " feed_forward.router " EXPERTS(
                     "feed_forward.experts") GLU("feed_forward") ATTENTION},
};

static const char *order_of(const json_t *type) {
    const char *name = json_string_value(type);
    if (!name) return NULL;
    char *between = base_format(" %s ", name);
    const char *found = NULL;
    for (size_t i = 0; i < BASE_COUNT(orders) && !found; i++) {
        if (strstr(orders[i].types, between)) found = orders[i].order;
    }
    free(between);
    return found;
}

/* Wrappers around a text model whose type they do not say. */
static const struct {
    const char *wrapper, *text;
} inner_types[] = {
    {"gemma3", "gemma3_text"}, {"kimi_vl", "deepseek_v3"}, {"qwen3_vl_moe", "qwen3_moe"}};

const char *tune_module_order(const json_t *config) {
    const json_t *type = json_object_get(config, "model_type");
    const json_t *inner = json_object_get(json_object_get(config, "text_config"), "model_type");
    const char *found = order_of(type);
    if (!found) found = order_of(inner);
    for (size_t i = 0; i < BASE_COUNT(inner_types) && !found && type; i++) {
        if (strcmp(inner_types[i].wrapper, json_string_value(type)) != 0) continue;
        json_t *text = json_string(inner_types[i].text);
        found = order_of(text);
        json_decref(text);
    }
    return found ? found : orders[0].order;
}
