/* The commands, and the few things that several of them do: reading texts,
 * printing JSON lines, opening models. */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include "cli/options.h"
#include "lm/lm.h"
#include "text/text.h"

extern const Command generate_command, chat_command, tokenize_command, template_command,
    inspect_logits_command, convert_command, fuse_command, model_fuse_command, model_export_command,
    model_convert_command, model_quantize_command, model_dequantize_command, model_info_command,
    model_download_command, model_list_command, model_verify_command, model_remove_command,
    manage_command, embed_command, rerank_command, ingest_command, watch_command, search_command,
    ask_command, rag_command, ingest_banks_command, index_info_command, index_verify_command,
    index_export_command, index_import_command, index_merge_command, commands_command,
    cache_prompt_command, perplexity_command, benchmark_command, evaluate_command, eval_rag_command,
    data_prepare_command, data_inspect_command, train_command, lora_command, train_plot_command;

/* All of them, in the order of the help; NULL ends the list. */
extern const Command *const all_commands[];

/* ---- other names of the program (links.c) ------------------------------------- */

typedef struct CommandLink {
    const char *name, *command, *only;
    const char *otherwise; /* the command when the first word is none, or an option */
} CommandLink;
/* By argv[0]; NULL: no such link. */
const CommandLink *command_link(const char *called);
const CommandLink *command_link_at(size_t index); /* NULL past the end */
/* Whether a link offers a command; NULL, the program itself, offers all. */
bool command_link_has(const CommandLink *link, const char *command);

/* An option's row, so that a table reads as a table. `type` is the tail of an
 * OptionType; `member` is of the struct named by ARGUMENTS. */
#define OPTION(name_, letters_, type_, member_, fallback_, value_, help_)              \
    {                                                                                  \
        .name = name_, .letters = letters_, .type = OPTION_##type_,                    \
        .field = offsetof(ARGUMENTS, member_), .fallback = fallback_, .value = value_, \
        .help = help_                                                                  \
    }
#define OPTION_REQUIRED(name_, letters_, type_, member_, value_, help_)                         \
    {                                                                                           \
        .name = name_, .letters = letters_, .type = OPTION_##type_,                             \
        .field = offsetof(ARGUMENTS, member_), .value = value_, .help = help_, .required = true \
    }
#define OPTION_CHOICE(name_, member_, fallback_, choices_, help_)                  \
    {                                                                              \
        .name = name_, .type = OPTION_TEXT, .field = offsetof(ARGUMENTS, member_), \
        .fallback = fallback_, .help = help_, .choices = choices_                  \
    }
#define POSITIONAL(name_, type_, member_, required_, help_)                           \
    {                                                                                 \
        .name = name_, .type = OPTION_##type_, .field = offsetof(ARGUMENTS, member_), \
        .help = help_, .positional = true, .required = required_                      \
    }
/* What mlx_lm asks before it runs a folder's code; nothing here does. */
#define TRUST_OPTION(member_)                                    \
    OPTION("trust-remote-code", NULL, FLAG, member_, NULL, NULL, \
           "accepted for mlx_lm; code of a model folder is never run")

#define OPTIONS(table) .options = table, .option_count = BASE_COUNT(table)

/* ---- reading (input.c) -------------------------------------------------------- */

/* All of standard input; NUL-terminated, caller frees. *length may be NULL. */
char *input_stdin(size_t *length, Error *err);
/* A file, or standard input when path is "-". */
char *input_file(const char *path, size_t *length, Error *err);
/* A JSON file, or standard input when path is "-". Caller json_decref's. */
json_t *input_json(const char *path, Error *err);
/* A JSON object given as an option's text. */
json_t *input_object(const char *text, const char *option, Error *err);
/* The texts that a command works on: the words of `items`, each line of `file`
 * ("-" is standard input), or standard input's lines when both are absent. A line
 * may hold NULs. */
typedef struct InputTexts {
    const char **items;
    size_t *lengths;
    size_t count;
    char *storage;
} InputTexts;
bool input_texts(OptionList items, const char *file, InputTexts *texts, Error *err);
void input_texts_free(InputTexts *texts);
/* Ids written as "5 7 9" or "5,7,9". Caller frees. */
int32_t *input_ids(const char *text, size_t *count, Error *err);
/* The two characters \n and \t become one: a newline or a tab. Caller frees. */
char *input_unescape(const char *text);

/* ---- writing (output.c) ------------------------------------------------------- */

/* One compact line on standard output; takes the reference. */
void output_json(json_t *value);
/* A JSON string of bytes that may not be UTF-8: what is not becomes U+FFFD. */
json_t *output_string(const char *text, size_t length);
/* False and *err when standard output cannot take what was written. */
bool output_flush(Error *err);

/* ---- sampling options that generate and chat share (sampling.c) ------------------ */

typedef struct SamplingArguments {
    OptionReal temp, top_p, min_p, xtc_probability, xtc_threshold;
    OptionInt top_k, min_tokens_to_keep;
    OptionReal repetition_penalty, presence_penalty, frequency_penalty;
    OptionInt repetition_context, presence_context, frequency_context;
    const char *logit_bias;
} SamplingArguments;

#define SAMPLING_OPTIONS                                                                      \
    OPTION("temp", NULL, REAL, sampling.temp, "0.0", "T",                                     \
           "sampling temperature; 0 takes the likeliest token"),                              \
        OPTION("top-p", NULL, REAL, sampling.top_p, "1.0", "P",                               \
               "keep the likeliest tokens that make up this share"),                          \
        OPTION("min-p", NULL, REAL, sampling.min_p, "0.0", "P",                               \
               "drop tokens below this share of the likeliest"),                              \
        OPTION("top-k", NULL, INT, sampling.top_k, "0", "K", "keep the K likeliest; 0: all"), \
        OPTION("min-tokens-to-keep", NULL, INT, sampling.min_tokens_to_keep, "1", "N",        \
               "tokens that min-p never drops"),                                              \
        OPTION("xtc-probability", NULL, REAL, sampling.xtc_probability, "0.0", "P",           \
               "how often XTC removes the likeliest choices"),                                \
        OPTION("xtc-threshold", NULL, REAL, sampling.xtc_threshold, "0.1", "P",               \
               "share from which XTC counts a choice as likely"),                             \
        OPTION("repetition-penalty", NULL, REAL, sampling.repetition_penalty, NULL, "X",      \
               "divide the logits of tokens just used by X"),                                 \
        OPTION("repetition-context-size", NULL, INT, sampling.repetition_context, "20", "N",  \
               "tokens back that it looks"),                                                  \
        OPTION("presence-penalty", NULL, REAL, sampling.presence_penalty, NULL, "X",          \
               "subtract X from the logits of tokens just used"),                             \
        OPTION("presence-context-size", NULL, INT, sampling.presence_context, "20", "N",      \
               "tokens back that it looks"),                                                  \
        OPTION("frequency-penalty", NULL, REAL, sampling.frequency_penalty, NULL, "X",        \
               "subtract X for each time a token was just used"),                             \
        OPTION("frequency-context-size", NULL, INT, sampling.frequency_context, "20", "N",    \
               "tokens back that it looks"),                                                  \
        OPTION("logit-bias", NULL, TEXT, sampling.logit_bias, NULL, "JSON",                   \
               "object of token id to what is added to its logit")

/* ---- what model export and fuse --export-gguf say (model_export.c) ----------------- */

#define GGUF_TYPES "f32|f16|bf16|q8_0|q4_0|q4_1"
#define GGUF_TYPE_HELP "of matrices; absent: packed ones keep their values, others are f16"
struct LmExportReport;
json_t *export_report_json(const char *path, const struct LmExportReport *report);
void export_report_text(const char *path, const struct LmExportReport *report);

/* Checks the ranges and fills the sampling of a generation. The biases are
 * allocated: free with sampling_free. */
bool sampling_read(const SamplingArguments *arguments, LmSampling *sampling, Error *err);
void sampling_free(LmSampling *sampling);
/* Checks the ranges of the options about keys and values that generate and
 * cache-prompt share. */
bool cache_options_read(OptionInt max_size, OptionInt bits, OptionInt group_size, OptionInt start,
                        LmCacheOptions *options, Error *err);
/* An int option that must lie in [least, most]. */
bool sampling_int(const char *option, OptionInt given, int64_t least, int64_t most, int *value,
                  Error *err);

#endif
