/* Exporting: what hub/ says of the config and the weights, and text/ of the
 * tokenizer, in one GGUF file. */
#include "lm/export.h"

#include "hub/export.h"
#include "lm/pack.h"
#include "text/text.h"

#include <stdlib.h>
#include <string.h>

/* ---- tokenizer ----------------------------------------------------------------------- */

static void put_id(HubGgufOut *out, const char *name, int32_t id) {
    char key[64];
    snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", name);
    if (id >= 0) hub_gguf_out_size(out, key, (uint32_t)id);
}

/* Where the tokenizer names no token, the config may have its number. */
static int32_t id_of(const json_t *config, const char *key, int32_t id, size_t rows) {
    const json_t *value = json_object_get(config, key);
    if (json_is_array(value)) value = json_array_get(value, 0);
    const json_int_t said = json_is_integer(value) ? json_integer_value(value) : -1;
    return id >= 0 || said < 0 || (size_t)said >= rows ? id : (int32_t)said;
}

/* A second id that ends an answer: llama.cpp has a place for one. */
static int32_t end_of_turn(const json_t *config, int32_t eos, size_t rows) {
    const json_t *list = json_object_get(config, "eos_token_id");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_int_t id = json_integer_value(json_array_get(list, i));
        if (id >= 0 && (size_t)id < rows && id != eos) return (int32_t)id;
    }
    return json_is_integer(list) && json_integer_value(list) >= 0 &&
                   (size_t)json_integer_value(list) < rows && json_integer_value(list) != eos
               ? (int32_t)json_integer_value(list)
               : -1;
}

static void put_vocabulary(HubGgufOut *out, const TextGgufVocab *vocab, const json_t *config) {
    const int32_t eos = id_of(config, "eos_token_id", vocab->eos_id, vocab->size);
    hub_gguf_out_text(out, "tokenizer.ggml.model", vocab->model);
    hub_gguf_out_text(out, "tokenizer.ggml.pre", vocab->pre);
    hub_gguf_out_texts(out, "tokenizer.ggml.tokens", vocab->tokens, vocab->size);
    hub_gguf_out_ints(out, "tokenizer.ggml.token_type", vocab->types, vocab->type_count);
    if (vocab->scores)
        hub_gguf_out_floats(out, "tokenizer.ggml.scores", vocab->scores, vocab->score_count);
    if (vocab->merges)
        hub_gguf_out_texts(out, "tokenizer.ggml.merges", vocab->merges, vocab->merge_count);
    put_id(out, "bos", id_of(config, "bos_token_id", vocab->bos_id, vocab->size));
    put_id(out, "eos", eos);
    put_id(out, "eot", end_of_turn(config, eos, vocab->size));
    put_id(out, "unknown", vocab->unk_id);
    put_id(out, "seperator", vocab->sep_id); /* llama.cpp's spelling */
    put_id(out, "padding", id_of(config, "pad_token_id", vocab->pad_id, vocab->size));
    put_id(out, "mask", vocab->mask_id);
    hub_gguf_out_flag(out, "tokenizer.ggml.add_bos_token", vocab->add_bos == 1);
    hub_gguf_out_flag(out, "tokenizer.ggml.add_eos_token", vocab->add_eos == 1);
    hub_gguf_out_flag(out, "tokenizer.ggml.add_space_prefix", vocab->add_space_prefix == 1);
}

static bool put_templates(HubGgufOut *out, const char *folder, Error *err) {
    TextChatTemplate *chat = text_chat_template_open(folder, err);
    if (!chat) return false;
    const char *const extra = "tool_use";
    if (text_chat_template_has(chat, NULL)) {
        const char *source = text_chat_template_source(chat, NULL, false, err);
        if (source) hub_gguf_out_text(out, "tokenizer.chat_template", source);
        if (source && text_chat_template_has(chat, extra)) {
            const char *named = text_chat_template_source(chat, extra, true, err);
            hub_gguf_out_texts(out, "tokenizer.chat_templates", &extra, 1);
            if (named) hub_gguf_out_text(out, "tokenizer.chat_template.tool_use", named);
        }
    }
    text_chat_template_free(chat);
    return err->code == ERROR_NONE;
}

static bool put_tokenizer(HubGgufOut *out, const LmSource *source, Error *err) {
    mlx_array table = lm_tensors_get(&source->tensors, "model.embed_tokens.weight");
    TextGgufVocab vocab;
    Arena *arena = NULL;
    if (!text_gguf_vocab_open(source->path, table.ctx ? (size_t)mx_dim(table, 0) : 0, &vocab,
                              &arena, err))
        return false;
    put_vocabulary(out, &vocab, source->config);
    base_arena_free(arena);
    return put_templates(out, source->path, err);
}

/* ---- the file ------------------------------------------------------------------------- */

/* The name a person knows the model by: its folder's. */
static void put_name(HubGgufOut *out, const LmSource *source) {
    char *path = realpath(source->path, NULL);
    if (path) hub_gguf_out_text(out, "general.name", base_path_name(path));
    free(path);
}

static HubGgufOut *plan(const LmSource *source, const char *type, Error *err) {
    HubGgufOut *out = hub_gguf_out_new(source->config, err);
    if (!out) return NULL;
    put_name(out, source);
    if (hub_gguf_out_model(out, source->tensors.items, source->tensors.count, type, err) &&
        put_tokenizer(out, source, err))
        return out;
    hub_gguf_out_free(out);
    return NULL;
}

static char *file_name(const char *output, const char *type) {
    if (!base_is_dir(output))
        return base_format("%s%s", output, base_ends_with(output, ".gguf") ? "" : ".gguf");
    char *name = base_format("ggml-model-%s.gguf", type), *path = base_path_join(output, name);
    free(name);
    return path;
}

static bool write(HubGgufOut *out, const char *path, const LmExportOptions *options, Error *err) {
    const HubGgufPlan planned = hub_gguf_out_plan(out);
    Progress progress = base_progress_start("writing", "B", (double)planned.bytes);
    progress.quiet = options->quiet;
    progress.json = options->json;
    const bool good =
        lm_pack_space(path, planned.bytes, err) && hub_gguf_out_write(out, path, &progress, err);
    base_progress_end(&progress);
    return good || base_error_context(err, "%s", path);
}

bool lm_export_gguf(const char *model, const char *output, const LmExportOptions *options,
                    char **written, LmExportReport *report, Error *err) {
    const double start = base_now();
    Error own = {0};
    if (!err) err = &own;
    *report = (LmExportReport){0};
    mx_scope scope = mx_open();
    LmSource *source = lm_source_open(model, NULL, err);
    if (source && source->gguf) base_fail(err, ERROR_INPUT, "%s: is a GGUF file already", model);
    HubGgufOut *out = source && !source->gguf ? plan(source, options->type, err) : NULL;
    /* The plan holds what it needs; the list would keep what is computed in memory. */
    if (source) lm_tensors_free(&source->tensors);
    mx_drop(scope);
    bool good = out != NULL;
    if (good) {
        const HubGgufPlan planned = hub_gguf_out_plan(out);
        snprintf(report->type, sizeof report->type, "%s", planned.type);
        report->bytes = planned.bytes;
        report->tensors = planned.tensors;
        report->kept = planned.kept;
        report->unpacked = planned.unpacked;
    }
    if (good && output) {
        char *path = file_name(output, report->type);
        good = write(out, path, options, err);
        if (good && written)
            *written = path;
        else
            free(path);
    }
    hub_gguf_out_free(out);
    lm_source_free(source);
    report->seconds = base_now() - start;
    return good;
}
