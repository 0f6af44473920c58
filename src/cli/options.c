/* The one mechanism behind every command's options. */
#include "cli/options.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- values -------------------------------------------------------------------- */

static void *field(const Option *option, void *arguments) {
    return (char *)arguments + option->field;
}

static bool in_choices(const char *choices, const char *word) {
    size_t length = strlen(word);
    for (const char *at = choices; at; at = strchr(at, '|') ? strchr(at, '|') + 1 : NULL)
        if (strncmp(at, word, length) == 0 && (at[length] == '|' || at[length] == '\0'))
            return length > 0;
    return false;
}

static const char *dashes(const Option *option) {
    return option->positional ? "" : "--";
}

static bool set_value(const Option *option, const char *word, void *arguments, bool given,
                      Error *err) {
    char *end = NULL;
    errno = 0;
    if (option->choices && !in_choices(option->choices, word))
        return base_fail(err, ERROR_INPUT, "%s%s: \"%s\" is not one of %s", dashes(option),
                         option->name, word, option->choices);
    switch (option->type) {
    case OPTION_FLAG: *(bool *)field(option, arguments) = true; return true;
    case OPTION_TEXT:
    case OPTION_MODEL: *(const char **)field(option, arguments) = word; return true;
    case OPTION_INT: {
        long long value = strtoll(word, &end, 10);
        if (end == word || *end != '\0' || errno == ERANGE)
            return base_fail(err, ERROR_INPUT, "%s%s: \"%s\" is not a whole number", dashes(option),
                             option->name, word);
        *(OptionInt *)field(option, arguments) = (OptionInt){.value = value, .given = given};
        return true;
    }
    case OPTION_REAL: {
        double value = strtod(word, &end);
        if (end == word || *end != '\0' || !isfinite(value))
            return base_fail(err, ERROR_INPUT, "%s%s: \"%s\" is not a number", dashes(option),
                             option->name, word);
        *(OptionReal *)field(option, arguments) = (OptionReal){.value = value, .given = given};
        return true;
    }
    case OPTION_LIST: {
        OptionList *list = field(option, arguments);
        list->items = base_realloc(list->items, (list->count + 1) * sizeof *list->items);
        list->items[list->count++] = word;
        return true;
    }
    }
    return false;
}

/* ---- words ----------------------------------------------------------------------- */

static bool is_negative_number(const char *word) {
    char *end = NULL;
    if (word[0] != '-' || !(isdigit((unsigned char)word[1]) || word[1] == '.')) return false;
    strtod(word, &end);
    return *end == '\0';
}

/* Whether a word asks for an option rather than being a value. A text with a
 * space in it never does, nor does "-" alone. */
static bool is_option(const char *word) {
    return word[0] == '-' && word[1] != '\0' && !is_negative_number(word) && !strchr(word, ' ');
}

/* The option that `--name[=...]` means: an exact name, or the only one that
 * starts so. NULL and *err otherwise. */
static const Option *find_long(const Command *command, const char *name, size_t length,
                               Error *err) {
    const Option *found = NULL;
    StrBuf matches = {0};
    for (size_t i = 0; i < command->option_count; i++) {
        const Option *option = &command->options[i];
        if (option->positional || strncmp(option->name, name, length) != 0) continue;
        if (option->name[length] == '\0') {
            base_str_free(&matches);
            base_error_clear(err);
            return option;
        }
        base_str_appendf(&matches, "%s--%s", found ? ", " : "", option->name);
        if (found) base_fail(err, ERROR_INPUT, "--%.*s could be any of several", (int)length, name);
        found = option;
    }
    if (err->code != ERROR_NONE) {
        base_hint(err, "%s", matches.data);
        found = NULL;
    } else if (!found) {
        base_fail(err, ERROR_INPUT, "unknown option --%.*s", (int)length, name);
    }
    base_str_free(&matches);
    return found;
}

/* -m 5, -m5, -m=5. *rest is what follows the letters, or NULL. */
static const Option *find_short(const Command *command, const char *word, const char **rest,
                                Error *err) {
    const Option *found = NULL;
    size_t best = 0;
    for (size_t i = 0; i < command->option_count; i++) {
        const Option *option = &command->options[i];
        size_t length = option->letters ? strlen(option->letters) : 0;
        if (length > best && strncmp(word + 1, option->letters, length) == 0) {
            found = option;
            best = length;
        }
    }
    *rest = found && word[1 + best] ? word + 1 + best : NULL;
    if (*rest && **rest == '=') (*rest)++;
    if (!found || (*rest && found->type == OPTION_FLAG)) {
        base_fail(err, ERROR_INPUT, "unknown option %s", word);
        return NULL;
    }
    return found;
}

typedef struct Words {
    char **items;
    int count, next;
} Words;

static bool take_values(const Option *option, const char *attached, Words *words, void *arguments,
                        Error *err) {
    if (option->type == OPTION_FLAG) {
        if (attached) return base_fail(err, ERROR_INPUT, "--%s takes no value", option->name);
        return set_value(option, "", arguments, true, err);
    }
    if (option->type == OPTION_LIST) {
        OptionList *list = field(option, arguments);
        list->count = 0;
    }
    if (attached) return set_value(option, attached, arguments, true, err);
    bool any = false;
    while (words->next < words->count && !is_option(words->items[words->next])) {
        if (!set_value(option, words->items[words->next++], arguments, true, err)) return false;
        any = true;
        if (option->type != OPTION_LIST) break;
    }
    return any || base_fail(err, ERROR_INPUT, "--%s needs a value", option->name);
}

static bool take_positional(const Command *command, const char *word, size_t *index,
                            void *arguments, Error *err) {
    for (; *index < command->option_count; (*index)++) {
        const Option *option = &command->options[*index];
        if (!option->positional) continue;
        if (option->type != OPTION_LIST) (*index)++;
        return set_value(option, word, arguments, true, err);
    }
    return base_fail(err, ERROR_INPUT, "unexpected argument \"%s\"", word);
}

static bool was_given(const Option *option, void *arguments) {
    const void *value = field(option, arguments);
    switch (option->type) {
    case OPTION_FLAG: return *(const bool *)value;
    case OPTION_TEXT:
    case OPTION_MODEL: return *(const char *const *)value != NULL;
    case OPTION_INT: return ((const OptionInt *)value)->given;
    case OPTION_REAL: return ((const OptionReal *)value)->given;
    case OPTION_LIST: return ((const OptionList *)value)->count > 0;
    }
    return false;
}

OptionsResult options_parse(const Command *command, int count, char **items, void *arguments,
                            Error *err) {
    Words words = {.items = items, .count = count};
    size_t positional = 0;
    bool options_ended = false;
    for (size_t i = 0; i < command->option_count; i++) {
        const Option *option = &command->options[i];
        if (option->fallback && option->type != OPTION_LIST &&
            !set_value(option, option->fallback, arguments, false, err))
            return OPTIONS_WRONG;
    }
    while (words.next < words.count) {
        const char *word = words.items[words.next++];
        if (!options_ended && strcmp(word, "--") == 0) {
            options_ended = true;
            continue;
        }
        if (options_ended || !is_option(word)) {
            if (!take_positional(command, word, &positional, arguments, err)) return OPTIONS_WRONG;
            continue;
        }
        if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0) return OPTIONS_HELP;
        const char *attached = NULL;
        const Option *option;
        if (word[1] == '-') {
            const char *equals = strchr(word, '=');
            size_t length = equals ? (size_t)(equals - word) - 2 : strlen(word) - 2;
            attached = equals ? equals + 1 : NULL;
            option = find_long(command, word + 2, length, err);
        } else {
            option = find_short(command, word, &attached, err);
        }
        if (!option || !take_values(option, attached, &words, arguments, err)) return OPTIONS_WRONG;
    }
    for (size_t i = 0; i < command->option_count; i++) {
        const Option *option = &command->options[i];
        if (!option->required || was_given(option, arguments)) continue;
        base_fail(err, ERROR_INPUT, "%s%s is required", dashes(option), option->name);
        return OPTIONS_WRONG;
    }
    return OPTIONS_OK;
}

void options_free(const Command *command, void *arguments) {
    for (size_t i = 0; i < command->option_count; i++)
        if (command->options[i].type == OPTION_LIST)
            free(((OptionList *)field(&command->options[i], arguments))->items);
}

/* ---- help ------------------------------------------------------------------------- */

/* "-m, --max-tokens N", as it stands in the first column. */
static char *spelling(const Option *option) {
    StrBuf text = {0};
    const char *value = option->value ? option->value : option->choices;
    if (option->positional) {
        base_str_appendf(&text, "%s%s", option->name, option->type == OPTION_LIST ? " ..." : "");
    } else {
        if (option->letters) base_str_appendf(&text, "-%s, ", option->letters);
        base_str_appendf(&text, "--%s", option->name);
        if (option->type != OPTION_FLAG) base_str_appendf(&text, " %s", value ? value : "TEXT");
        if (option->type == OPTION_LIST) base_str_append(&text, " ...");
    }
    return base_str_detach(&text);
}

static void usage(const Command *command, FILE *out) {
    fprintf(out, "mlx-rag %s", command->name);
    bool optional = false;
    for (size_t i = 0; i < command->option_count; i++) {
        const Option *option = &command->options[i];
        if (option->positional) continue;
        if (option->required)
            fprintf(out, " --%s %s", option->name, option->value ? option->value : "TEXT");
        else
            optional = true;
    }
    if (optional) fputs(" [options]", out);
    for (size_t i = 0; i < command->option_count; i++) {
        const Option *option = &command->options[i];
        if (!option->positional) continue;
        const char *more = option->type == OPTION_LIST ? " ..." : "";
        fprintf(out, option->required ? " %s%s" : " [%s%s]", option->name, more);
    }
}

/* `text` from column `indent` on, broken at spaces before column 80. */
static void wrapped(const char *text, int indent, FILE *out) {
    int column = indent;
    while (*text) {
        int length = (int)strcspn(text, " ");
        if (column > indent && column + 1 + length > 79) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
        }
        if (column > indent) {
            fputc(' ', out);
            column++;
        }
        fprintf(out, "%.*s", length, text);
        column += length;
        text += length + (text[length] == ' ');
    }
    fputc('\n', out);
}

void options_help(const Command *command, FILE *out) {
    enum { INDENT = 30 };
    fputs("usage: ", out);
    usage(command, out);
    fprintf(out, "\n\n%s\n", command->summary);
    if (command->details) wrapped(command->details, 0, out);
    fputs("\noptions:\n", out);
    for (size_t i = 0; i < command->option_count; i++) {
        const Option *option = &command->options[i];
        char *left = spelling(option);
        int used = fprintf(out, "  %s", left);
        if (used > INDENT - 2) {
            fputc('\n', out);
            used = 0;
        }
        fprintf(out, "%*s", INDENT - used, "");
        char *help = option->fallback && *option->fallback
                         ? base_format("%s (default: %s)", option->help, option->fallback)
                         : base_strdup(option->help);
        wrapped(help, INDENT, out);
        free(help);
        free(left);
    }
    fprintf(out, "  %-*s%s\n", INDENT - 2, "-h, --help", "this text");
}

/* A bar would end a table's cell. */
static void cell(const char *text, FILE *out) {
    for (; *text; text++) {
        if (*text == '|') fputc('\\', out);
        fputc(*text, out);
    }
}

void options_markdown(const Command *command, FILE *out) {
    fprintf(out, "## %s\n\n%s\n\n    ", command->name, command->summary);
    usage(command, out);
    fputs("\n\n", out);
    if (command->details) fprintf(out, "%s\n\n", command->details);
    if (command->option_count == 0) return;
    fputs("| option | default | meaning |\n|---|---|---|\n", out);
    for (size_t i = 0; i < command->option_count; i++) {
        const Option *option = &command->options[i];
        char *left = spelling(option);
        fputs("| `", out);
        cell(left, out);
        fputs("` | ", out);
        if (option->fallback && *option->fallback) fprintf(out, "`%s`", option->fallback);
        fputs(option->required ? "required | " : " | ", out);
        cell(option->help, out);
        fputs(" |\n", out);
        free(left);
    }
    fputc('\n', out);
}
