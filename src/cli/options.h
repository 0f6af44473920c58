/* Command-line options: one table a command, from which arguments are parsed,
 * --help is printed and the commands' manual is made.
 *
 * The rules are argparse's, so that habits of the MLX tools carry over: long
 * options may be shortened while they stay unambiguous, values follow as a word
 * or after '=', a value may be a negative number, "--" ends the options. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include "base/base.h"

typedef enum {
    OPTION_FLAG,  /* bool */
    OPTION_TEXT,  /* const char *; NULL when absent */
    OPTION_MODEL, /* the same; an id of the hub becomes its folder before the command runs */
    OPTION_INT,   /* OptionInt */
    OPTION_REAL,  /* OptionReal */
    OPTION_LIST   /* OptionList: one or more values */
} OptionType;

typedef struct OptionInt {
    int64_t value;
    bool given; /* by the person; a default leaves it false */
} OptionInt;
typedef struct OptionReal {
    double value;
    bool given;
} OptionReal;
typedef struct OptionList {
    const char **items; /* texts borrowed from argv */
    size_t count;
} OptionList;

typedef struct Option {
    const char *name;    /* "max-tokens"; of a positional argument "PATH" */
    const char *letters; /* "m" for -m; NULL: none */
    OptionType type;
    size_t field;         /* offsetof in the command's arguments */
    const char *fallback; /* as it would be typed; NULL: none */
    const char *value;    /* what stands for the value in the help, "N" */
    const char *help;
    const char *choices; /* "float16|float32": allowed values; NULL: any */
    bool positional, required;
} Option;

typedef struct Command {
    const char *name;    /* "generate", "model convert" */
    const char *summary; /* one line */
    const char *details; /* more lines of the help; NULL: none */
    const Option *options;
    size_t option_count;
    size_t arguments_size; /* of the struct that the options fill */
    /* Returns the exit status; on a failure fills *err and returns 1, or 2 when
     * the words do not fit together. */
    int (*run)(const void *arguments, Error *err);
    bool hidden; /* left out of lists */
} Command;

typedef enum { OPTIONS_OK, OPTIONS_HELP, OPTIONS_WRONG } OptionsResult;

/* Fills `arguments` (zeroed by the caller, freed with options_free) from the
 * words after the command's name. On OPTIONS_WRONG *err says what. */
OptionsResult options_parse(const Command *command, int count, char **words, void *arguments,
                            Error *err);
void options_free(const Command *command, void *arguments);

void options_help(const Command *command, FILE *out);
/* The command's section of a manual in Markdown. */
void options_markdown(const Command *command, FILE *out);

#endif
