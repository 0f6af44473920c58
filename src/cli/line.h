/* Lines that a person types, with editing and history on a terminal. */
#ifndef CLI_LINE_H
#define CLI_LINE_H

#include "base/base.h"

typedef struct LineReader LineReader;
LineReader *line_open(bool terminal); /* caller frees with line_close */
/* The next line without its end; NULL when there are no more. Caller frees. */
char *line_read(LineReader *reader);
void line_close(LineReader *reader); /* NULL ok */

#endif
