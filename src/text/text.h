/* text: from bytes to tokens and back, and from a conversation to a prompt.
 *
 * tokenizer.h reads a model's tokenizer, encodes, counts and decodes, streams
 * decoded text, and rebuilds a tokenizer.json from a GGUF vocabulary.
 * template.h renders chat templates. Neither knows a model. */
#ifndef TEXT_TEXT_H
#define TEXT_TEXT_H

#include "text/template.h"
#include "text/tokenizer.h"

#endif
