/* Lines that a person types: with editing and history on a terminal, plain
 * otherwise. */
#include "cli/line.h"

#include <histedit.h>
#include <stdlib.h>
#include <string.h>

struct LineReader {
    EditLine *editor; /* NULL: not a terminal */
    History *history;
};

static char *prompt_text(EditLine *editor) {
    (void)editor;
    static char prompt[] = "› ";
    return prompt;
}

LineReader *line_open(bool terminal) {
    LineReader *reader = base_calloc(1, sizeof *reader);
    if (!terminal) return reader;
    HistEvent event;
    reader->editor = el_init("mlx-rag", stdin, stdout, stderr);
    reader->history = history_init();
    if (!reader->editor || !reader->history) return reader;
    history(reader->history, &event, H_SETSIZE, 1000);
    el_set(reader->editor, EL_PROMPT, prompt_text);
    el_set(reader->editor, EL_EDITOR, "emacs");
    el_set(reader->editor, EL_SIGNAL, 0);
    el_set(reader->editor, EL_HIST, history, reader->history);
    return reader;
}

char *line_read(LineReader *reader) {
    if (reader->editor && reader->history) {
        int length = 0;
        const char *line = el_gets(reader->editor, &length);
        if (!line || length <= 0) return NULL;
        HistEvent event;
        if (length > 1) history(reader->history, &event, H_ENTER, line);
        return base_strndup(line, strcspn(line, "\r\n"));
    }
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length = getline(&line, &capacity, stdin);
    if (length < 0) {
        free(line);
        return NULL;
    }
    line[strcspn(line, "\r\n")] = '\0';
    return line;
}

void line_close(LineReader *reader) {
    if (!reader) return;
    if (reader->history) history_end(reader->history);
    if (reader->editor) el_end(reader->editor);
    free(reader);
}
