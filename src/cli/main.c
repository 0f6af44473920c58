/* mlx-rag: finds the command that was meant, reads its options, runs it, and
 * turns a failure into one line on standard error.
 *
 * Exit status: 0 done, 1 failed, 2 the words were wrong, 130 interrupted. */
#include "cli/commands.h"
#include "hub/remote.h"

#include <ctype.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

typedef struct OwnedTexts {
    char **items;
    size_t count, capacity;
} OwnedTexts;

const Command *const all_commands[] = {&generate_command,
                                       &chat_command,
                                       &ingest_command,
                                       &watch_command,
                                       &search_command,
                                       &ask_command,
                                       &eval_rag_command,
                                       &rag_command,
                                       &ingest_banks_command,
                                       &index_info_command,
                                       &index_verify_command,
                                       &index_export_command,
                                       &index_import_command,
                                       &index_merge_command,
                                       &embed_command,
                                       &rerank_command,
                                       &tokenize_command,
                                       &template_command,
                                       &convert_command,
                                       &fuse_command,
                                       &model_convert_command,
                                       &model_quantize_command,
                                       &model_dequantize_command,
                                       &model_fuse_command,
                                       &model_export_command,
                                       &model_info_command,
                                       &model_download_command,
                                       &model_list_command,
                                       &model_verify_command,
                                       &model_remove_command,
                                       &manage_command,
                                       &inspect_logits_command,
                                       &cache_prompt_command,
                                       &perplexity_command,
                                       &benchmark_command,
                                       &evaluate_command,
                                       &train_command,
                                       &lora_command,
                                       &train_plot_command,
                                       &data_prepare_command,
                                       &data_inspect_command,
                                       &commands_command,
                                       NULL};

static void complain(const Error *err) {
    size_t length = strlen(err->message);
    bool ended = length > 0 && strchr(".!?", err->message[length - 1]);
    fprintf(stderr, "mlx-rag: %s", err->message);
    if (err->hint[0])
        fprintf(stderr, "%s %c%s", ended ? "" : ".", toupper((unsigned char)err->hint[0]),
                err->hint + 1);
    fputc('\n', stderr);
}

static void help(const CommandLink *link, FILE *out) {
    fprintf(out,
            "usage: %s COMMAND [options]\n\n"
            "Language models and answers from your own documents, on this machine.\n\ncommands:\n",
            link ? link->name : "mlx-rag");
    for (size_t i = 0; all_commands[i]; i++)
        if (!all_commands[i]->hidden && command_link_has(link, all_commands[i]->name))
            fprintf(out, "  %-16s %s\n", all_commands[i]->name, all_commands[i]->summary);
    fputs("\n  mlx-rag COMMAND --help   options of a command\n"
          "  mlx-rag --version        version of the program\n\n"
          "MLX_RAG_THREADS in the environment sets the number of threads.\n",
          out);
}

/* The command whose name is the first two words, else the first; *used says how many
 * words that took. */
static const Command *find_command(int count, char **words, int *used) {
    const Command *found = NULL;
    for (size_t i = 0; all_commands[i]; i++) {
        const char *name = all_commands[i]->name, *space = strchr(name, ' ');
        if (!space && strcmp(words[0], name) == 0) {
            *used = 1;
            found = all_commands[i];
        }
        if (space && count > 1 && strlen(words[0]) == (size_t)(space - name) &&
            strncmp(words[0], name, (size_t)(space - name)) == 0 &&
            strcmp(words[1], space + 1) == 0) {
            *used = 2;
            return all_commands[i];
        }
    }
    return found;
}

/* What follows a first word that only begins commands: "model". */
static bool list_group(const char *word, FILE *out) {
    size_t length = strlen(word);
    bool any = false;
    for (size_t i = 0; all_commands[i]; i++) {
        const char *name = all_commands[i]->name;
        if (strncmp(name, word, length) != 0 || name[length] != ' ') continue;
        if (!any) fprintf(out, "usage: mlx-rag %s COMMAND [options]\n\ncommands:\n", word);
        fprintf(out, "  %-16s %s\n", name, all_commands[i]->summary);
        any = true;
    }
    return any;
}

static int unknown(int count, char **words) {
    bool asks = count > 1 && (strcmp(words[1], "--help") == 0 || strcmp(words[1], "-h") == 0);
    if (asks && list_group(words[0], stdout)) return 0;
    StrBuf group = {0};
    size_t length = strlen(words[0]);
    for (size_t i = 0; all_commands[i]; i++)
        if (strncmp(all_commands[i]->name, words[0], length) == 0 &&
            all_commands[i]->name[length] == ' ')
            base_str_appendf(&group, "%s%s", group.length ? ", " : "", all_commands[i]->name);
    if (group.length)
        fprintf(stderr, "mlx-rag: %s needs one of: %s\n", words[0], group.data);
    else
        fprintf(stderr, "mlx-rag: unknown command \"%s\", see mlx-rag --help\n", words[0]);
    base_str_free(&group);
    return 2;
}

/* Turns ids of the hub into folders, downloading what the cache lacks. The texts
 * are added to *found for the caller to free. */
static bool find_models(const Command *command, void *arguments, OwnedTexts *found, Error *err) {
    for (size_t i = 0; i < command->option_count; i++) {
        const Option *option = &command->options[i];
        if (option->type != OPTION_MODEL) continue;
        const char **value = (const char **)(void *)((char *)arguments + option->field);
        if (!*value) continue;
        char *folder = hub_find(*value, err);
        if (!folder) return false;
        found->items = base_grow(found->items, &found->capacity, found->count + 1, sizeof(char *));
        found->items[found->count++] = folder;
        *value = folder;
    }
    return true;
}

static int run(const Command *command, int count, char **words) {
    Error err = {0};
    OwnedTexts found = {0};
    void *arguments = base_calloc(1, command->arguments_size ? command->arguments_size : 1);
    int status;
    switch (options_parse(command, count, words, arguments, &err)) {
    case OPTIONS_HELP:
        options_help(command, stdout);
        status = 0;
        break;
    case OPTIONS_OK:
        base_interrupt_install();
        status = find_models(command, arguments, &found, &err) ? command->run(arguments, &err) : 1;
        if (status == 0 && err.code == ERROR_NONE && !output_flush(&err)) status = 1;
        break;
    default:
        base_error_context(&err, "%s", command->name);
        if (!err.hint[0]) base_hint(&err, "See mlx-rag %s --help", command->name);
        status = 2;
    }
    if (err.code == ERROR_INTERRUPTED) status = 130;
    fflush(stdout);
    if (err.code != ERROR_NONE) complain(&err);
    options_free(command, arguments);
    free(arguments);
    for (size_t i = 0; i < found.count; i++) free(found.items[i]);
    free(found.items);
    return status;
}

/* Of a command, not one that the program itself answers. */
static bool is_option(const char *word) {
    static const char *const own[] = {"--help", "-h", "--version", "-V"};
    for (size_t i = 0; i < BASE_COUNT(own); i++)
        if (strcmp(word, own[i]) == 0) return false;
    return word[0] == '-';
}

/* A link that stands for a command: its name goes before the other words. New list,
 * NULL when the program was called by a name that needs none. */
static char **linked_words(const CommandLink *link, int *count, char **words) {
    const char *command = link ? link->command : NULL;
    if (link && link->otherwise && (*count < 2 || is_option(words[1]))) command = link->otherwise;
    if (!command) return NULL;
    char **more = base_calloc((size_t)*count + 2, sizeof *more);
    more[0] = words[0];
    more[1] = (char *)(uintptr_t)command;
    for (int i = 1; i < *count; i++) more[i + 1] = words[i];
    (*count)++;
    return more;
}

static int dispatch(const CommandLink *link, int count, char **words) {
    if (count < 2) {
        help(link, stderr);
        return 2;
    }
    const char *first = words[1], *last = words[count - 1];
    if (strcmp(first, "--version") == 0 || strcmp(first, "-V") == 0 ||
        (link && link->command && count == 3 && strcmp(last, "--version") == 0)) {
        puts("mlx-rag " MLX_RAG_VERSION);
        return 0;
    }
    bool asks = strcmp(first, "help") == 0;
    if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0 || (asks && count == 2)) {
        help(link, stdout);
        return 0;
    }
    int skip = asks ? 2 : 1, used = 0;
    const Command *command = find_command(count - skip, words + skip, &used);
    if (command && !command_link_has(link, command->name)) command = NULL;
    if (asks && command) {
        options_help(command, stdout);
        return 0;
    }
    if (!command) return unknown(count - skip, words + skip);
    return run(command, count - skip - used, words + skip + used);
}

int main(int count, char **words) {
    setlocale(LC_CTYPE, "");
    /* A reader that goes away ends the program quietly, whatever our parent set. */
    signal(SIGPIPE, SIG_DFL);
    /* A file that may not grow further is an error like a full disk. */
    signal(SIGXFSZ, SIG_IGN);
    const CommandLink *link = count > 0 ? command_link(words[0]) : NULL;
    char **more = linked_words(link, &count, words);
    const int status = dispatch(link, count, more ? more : words);
    free(more);
    return status;
}
