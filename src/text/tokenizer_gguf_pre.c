/* The pre-tokenizers of byte-level BPE that llama.cpp knows by name, and the same as
 * a tokenizer.json says them; found in both directions. */
#include "text/tokenizer_gguf.h"
#include "text/tokenizer_patterns.h"

json_t *text_gguf_byte_level(bool use_regex) {
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                     "trim_offsets", 1, "use_regex", use_regex);
}

static json_t *digits(bool individual) {
    return json_pack("{s:s, s:b}", "type", "Digits", "individual_digits", individual);
}

static json_t *regex_split(const char *regex) {
    return json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex", regex,
                     "behavior", "Isolated", "invert", 0);
}

static const char *const steps_gpt2[] = {"B", NULL};
static const char *const steps_starcoder[] = {"#", "B", NULL};
static const char *const steps_llama3[] = {LLAMA3, "b", NULL};
static const char *const steps_qwen2[] = {QWEN2, "b", NULL};
static const char *const steps_qwen35[] = {QWEN35, "b", NULL};
static const char *const steps_o200k[] = {O200K, "b", NULL};
static const char *const steps_tekken[] = {TEKKEN, "b", NULL};
static const char *const steps_kimi[] = {KIMI, "b", NULL};
static const char *const steps_bailing[] = {BAILING, "b", NULL};
static const char *const steps_seed_coder[] = {SEED_CODER, "b", NULL};
static const char *const steps_dsv3[] = {"\\p{N}{1,3}", CJK_KANA, DSV3_WORDS, "b", NULL};
static const char *const steps_dscoder[] = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CODER_CJK,
                                            "#",        "b",           NULL};
static const char *const steps_falcon[] = {"!", "B", "#+", "[0-9][0-9][0-9]", NULL};
static const char *const steps_default[] = {ANY_PUNCTUATION, GPT2, "\\p{N}+",
                                            THREE_DIGITS,    "b",  NULL};
static const char *const steps_bloom[] = {BLOOM_WORDS, "b", NULL};
static const char *const steps_viking[] = {BLOOM_WORDS, "#", "b", NULL};
static const char *const steps_superbpe[] = {"\\p{N}+", DIGITS_FROM_THE_RIGHT, "b", NULL};
static const char *const steps_aya[] = {AYA_DIGITS, O200K, "b", NULL};
static const char *const steps_exaone_moe[] = {EXAONE_MOE, "b", NULL};
static const char *const steps_minicpm5[] = {"\\p{N}{1,3}", MINICPM5, "b", NULL};
static const char *const steps_jais2[] = {JAIS2, "b", NULL};
static const char *const steps_youtu[] = {YOUTU_SCRIPTS, YOUTU_WORDS, "b", NULL};
static const char *const steps_dsllm[] = {
    "[\\r\\n]", DSLLM_LETTERS, DSLLM_PUNCTUATION, "\\s+$", CODER_CJK, "#", "b", NULL};
static const char *const steps_afmoe[] = {AFMOE_DIGITS, AFMOE_SCRIPTS, DSV3_WORDS, "b", NULL};
static const char *const steps_spark[] = {"\\p{N}{1,3}", CJK_KANA, SPARK_WORDS,
                                          "\\p{N}",      "b",      NULL};
static const char *const steps_ufakzeka[] = {UFAKZEKA, "b", NULL};
static const char *const steps_laguna[] = {LINES, QWEN2, "b", NULL};
static const char *const steps_lines[] = {LINES, NULL};
static const char *const steps_chameleon[] = {"<sentinel:[0-9]+>",
                                              CHAMELEON_IMAGES,
                                              "([\\t\\n]|    |  )",
                                              "#",
                                              "[\\p{P}!-/:-@\\[-`{-~]",
                                              GPT2,
                                              "b",
                                              NULL};

static const TextGgufPre pre_groups[] = {
    {steps_llama3, true, true, false,
     " llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano "},
    {steps_llama3, false, false, false, " dbrx smaug-bpe chatglm-bpe "},
    {steps_llama3, true, false, false, " glm4 glm5 "},
    {steps_qwen2, false, false, false,
     " qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2 "},
    {steps_qwen35, false, false, false, " qwen35 "},
    {steps_o200k, false, false, false, " gpt-4o llama4 kanana2 talkie minimax-m2 "},
    {steps_tekken, true, true, false, " tekken "},
    {steps_kimi, false, false, false, " kimi-k2 "},
    {steps_gpt2, false, false, false,
     " gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum modern-bert mpt "
     "olmo jais trillion "
     "granite-docling exaone4 jina-v1-en jina-v2-code roberta-bpe "},
    {steps_starcoder, false, false, false,
     " starcoder refact command-r smollm codeshell exaone minerva-7b mellum2 "},
    {steps_dsv3, false, false, false, " deepseek-v3 hunyuan-dense hy_v4 joyai-llm "},
    {steps_dscoder, false, false, false, " deepseek-coder "},
    {steps_falcon, false, false, false, " falcon "},
    {steps_bailing, false, false, false, " bailingmoe bailingmoe2 llada-moe "},
    {steps_seed_coder, false, false, false, " seed-coder "},
    {steps_default, false, false, false, " default "},
    {steps_bloom, false, false, false, " bloom poro-chat gpt3-finnish "},
    {steps_viking, false, false, false, " viking "},
    {steps_superbpe, false, false, false, " superbpe "},
    {steps_aya, false, false, false, " tiny_aya cohere2moe "},
    {steps_o200k, true, false, false, " granite-embed-multi-97m "},
    {steps_exaone_moe, false, false, false, " exaone-moe "},
    {steps_minicpm5, true, false, false, " minicpm5 "},
    {steps_jais2, false, false, false, " jais-2 "},
    {steps_youtu, true, false, false, " youtu "},
    {steps_chameleon, false, true, false, " chameleon "},
    {steps_dsllm, false, false, false, " deepseek-llm "},
    {steps_afmoe, false, false, false, " afmoe "},
    {steps_spark, false, false, false, " spark2_5 "},
    {steps_ufakzeka, false, false, false, " ufakzeka "},
    {steps_laguna, false, false, false, " laguna "},
    {steps_lines, false, false, true, " gemma4 granite-embed-multi-311m sarvam-moe "},
};

const TextGgufPre *text_gguf_pre_find(const char *pre) {
    char *wanted = base_format(" %s ", pre);
    const TextGgufPre *found = NULL;
    for (size_t i = 0; i < BASE_COUNT(pre_groups) && !found; i++)
        if (!strchr(pre, ' ') && strstr(pre_groups[i].names, wanted)) found = &pre_groups[i];
    free(wanted);
    return found;
}

static json_t *pre_step(const char *step) {
    if (strcmp(step, "#") == 0 || strcmp(step, "#+") == 0) return digits(step[1] == '\0');
    if (strcmp(step, "!") == 0)
        return json_pack("{s:s, s:s}", "type", "Punctuation", "behavior", "Contiguous");
    if (strcmp(step, "B") == 0 || strcmp(step, "b") == 0)
        return text_gguf_byte_level(step[0] == 'B');
    return regex_split(step);
}

json_t *text_gguf_pre_tokenizer(const TextGgufPre *group) {
    json_t *list = json_array();
    for (const char *const *step = group->steps; *step; step++)
        json_array_append_new(list, pre_step(*step));
    return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", list);
}

/* ---- the other way ------------------------------------------------------- */

enum { MAX_STEPS = 8 };

/* What a part is in the language of the steps; NULL when it has no word there. */
static const char *step_of(const json_t *part) {
    const char *type = json_string_value(json_object_get(part, "type"));
    if (!type) return NULL;
    if (strcmp(type, "ByteLevel") == 0) {
        if (json_is_true(json_object_get(part, "add_prefix_space"))) return NULL;
        return json_is_false(json_object_get(part, "use_regex")) ? "b" : "B";
    }
    if (strcmp(type, "Digits") == 0)
        return json_is_true(json_object_get(part, "individual_digits")) ? "#" : "#+";
    const char *behavior = json_string_value(json_object_get(part, "behavior"));
    if (strcmp(type, "Punctuation") == 0)
        return behavior && strcmp(behavior, "Contiguous") == 0 ? "!" : NULL;
    const bool inverted = json_is_true(json_object_get(part, "invert"));
    if (strcmp(type, "Split") != 0 || !behavior ||
        strcmp(behavior, inverted ? "Removed" : "Isolated") != 0)
        return NULL;
    return json_string_value(json_object_get(json_object_get(part, "pattern"), "Regex"));
}

/* Adds the steps of a pre_tokenizer, sequences flattened; false when there are too many
 * or one that has no word. */
static bool steps_of(const json_t *tree, const char **steps, size_t *count, int depth) {
    const json_t *list = json_object_get(tree, "pretokenizers");
    if (json_is_array(list)) {
        for (size_t i = 0; i < json_array_size(list); i++)
            if (depth > 4 || !steps_of(json_array_get(list, i), steps, count, depth + 1))
                return false;
        return true;
    }
    const char *step = step_of(tree);
    if (!step || *count == MAX_STEPS) return false;
    /* GPT-2's pattern may stand outside of the byte level. */
    if (strcmp(step, "b") == 0 && *count > 0 && strcmp(steps[*count - 1], GPT2) == 0)
        steps[*count - 1] = "B";
    else
        steps[(*count)++] = step;
    return true;
}

/* Line ends stand in patterns as they are or escaped. */
static bool same_step(const char *ours, const char *theirs) {
    for (; *ours && *theirs; ours++, theirs++) {
        if (*ours == *theirs) continue;
        if (*ours != '\\' ||
            !((*theirs == '\r' && ours[1] == 'r') || (*theirs == '\n' && ours[1] == 'n') ||
              (*theirs == '\t' && ours[1] == 't')))
            return false;
        ours++;
    }
    return *ours == *theirs;
}

static bool same_steps(const TextGgufPre *group, const char *const *steps, size_t count) {
    size_t i = 0;
    while (i < count && group->steps[i] && same_step(group->steps[i], steps[i])) i++;
    return i == count && !group->steps[i];
}

bool text_gguf_pre_name(const json_t *pre_tokenizer, bool ignore_merges, char *name, size_t room) {
    const char *steps[MAX_STEPS];
    size_t count = 0;
    if (!steps_of(pre_tokenizer, steps, &count, 0)) return false;
    for (size_t i = 0; i < BASE_COUNT(pre_groups); i++) {
        const TextGgufPre *group = &pre_groups[i];
        if (group->ignore_merges != ignore_merges || !same_steps(group, steps, count)) continue;
        const char *first = group->names + 1;
        snprintf(name, room, "%.*s", (int)strcspn(first, " "), first);
        return true;
    }
    return false;
}
