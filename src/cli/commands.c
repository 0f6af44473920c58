/* The commands themselves, as a manual: COMMANDS_MANIFEST is made from it. */
#include "cli/commands.h"

typedef struct CommandsArguments {
    bool markdown, links;
} CommandsArguments;
#define ARGUMENTS CommandsArguments

static const Option option_table[] = {
    OPTION("markdown", NULL, FLAG, markdown, NULL, NULL, "all options, in Markdown"),
    OPTION("links", NULL, FLAG, links, NULL, NULL, "the program's other names instead"),
};

static int run(const void *given, Error *err) {
    (void)err;
    const CommandsArguments *arguments = given;
    const CommandLink *link;
    for (size_t i = 0; arguments->links && (link = command_link_at(i)) != NULL; i++)
        puts(link->name);
    if (arguments->links) return 0;
    if (arguments->markdown)
        fputs("# Commands\n\nMade by `mlx-rag commands --markdown`. Long options may be shortened "
              "while they stay unambiguous.\n\n",
              stdout);
    for (size_t i = 0; all_commands[i]; i++) {
        if (all_commands[i]->hidden) continue;
        if (arguments->markdown)
            options_markdown(all_commands[i], stdout);
        else
            puts(all_commands[i]->name);
    }
    return 0;
}

const Command commands_command = {.name = "commands",
                                  .summary = "Lists the commands.",
                                  OPTIONS(option_table),
                                  .arguments_size = sizeof(CommandsArguments),
                                  .run = run,
                                  .hidden = true};
