/* Source code as text: a block begins where a line without indentation follows
 * an empty one, which is where definitions begin in most languages. The title
 * names file and language; a block's place is its first line. */
#include <string.h>
#include <strings.h>

#include "rag/document.h"

typedef struct Language {
    const char *suffix, *name;
} Language;

static const Language languages[] = {
    {".c", "C"},
    {".h", "C"},
    {".cc", "C++"},
    {".cpp", "C++"},
    {".cxx", "C++"},
    {".hpp", "C++"},
    {".hh", "C++"},
    {".m", "Objective-C"},
    {".py", "Python"},
    {".rb", "Ruby"},
    {".pl", "Perl"},
    {".pm", "Perl"},
    {".sh", "Shell"},
    {".bash", "Shell"},
    {".zsh", "Shell"},
    {".fish", "Shell"},
    {".js", "JavaScript"},
    {".mjs", "JavaScript"},
    {".ts", "TypeScript"},
    {".tsx", "TypeScript"},
    {".jsx", "JavaScript"},
    {".go", "Go"},
    {".rs", "Rust"},
    {".java", "Java"},
    {".kt", "Kotlin"},
    {".scala", "Scala"},
    {".swift", "Swift"},
    {".cs", "C#"},
    {".php", "PHP"},
    {".lua", "Lua"},
    {".r", "R"},
    {".jl", "Julia"},
    {".hs", "Haskell"},
    {".ml", "OCaml"},
    {".ex", "Elixir"},
    {".erl", "Erlang"},
    {".clj", "Clojure"},
    {".lisp", "Lisp"},
    {".el", "Lisp"},
    {".scm", "Scheme"},
    {".sql", "SQL"},
    {".cmake", "CMake"},
    {".mk", "Make"},
    {".awk", "AWK"},
    {".f90", "Fortran"},
    {".asm", "Assembly"},
    {".s", "Assembly"},
    {".v", "Verilog"},
    {".vhd", "VHDL"},
    {".zig", "Zig"},
    {".dart", "Dart"},
    {".metal", "Metal"},
    {".cu", "CUDA"},
    {".proto", "Protocol Buffers"},
};

const char *rag_code_language(const char *path, const char *head, size_t length) {
    size_t path_length = strlen(path);
    for (size_t i = 0; i < BASE_COUNT(languages); i++) {
        size_t tail = strlen(languages[i].suffix);
        if (path_length > tail && strcasecmp(path + path_length - tail, languages[i].suffix) == 0)
            return languages[i].name;
    }
    bool script = length > 2 && head[0] == '#' && head[1] == '!';
    return script ? "script" : NULL;
}

static bool is_empty(const char *line, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (!strchr(" \t\r\f\v", line[i])) return false;
    return true;
}

void rag_read_code(const char *path, const char *text, size_t length, RagDocument *document) {
    char *title = base_format(
        "%s (%s)", base_path_name(path),
        rag_code_language(path, text, length) ? rag_code_language(path, text, length) : "code");
    rag_document_set_title(document, title, strlen(title));
    free(title);
    document->line_numbers = true;
    StrBuf block = {0};
    int line_number = 1, block_line = 1;
    bool after_empty = false;
    for (size_t i = 0; i < length; line_number++) {
        const char *line = text + i, *newline = memchr(line, '\n', length - i);
        size_t size = newline ? (size_t)(newline - line) : length - i;
        i += size + 1;
        if (size && line[size - 1] == '\r') size--;
        bool empty = is_empty(line, size);
        bool opens = !empty && after_empty && !strchr(" \t})]", line[0]);
        if (opens && block.length) {
            rag_document_add(document, RAG_BLOCK_CODE, 0, block_line, block.data, block.length);
            block.length = 0;
        }
        after_empty = empty;
        if (empty && !block.length) continue;
        if (!block.length) block_line = line_number;
        base_str_append_n(&block, empty ? "" : line, empty ? 0 : size);
        base_str_append_char(&block, '\n');
    }
    if (block.length)
        rag_document_add(document, RAG_BLOCK_CODE, 0, block_line, block.data, block.length);
    base_str_free(&block);
}
