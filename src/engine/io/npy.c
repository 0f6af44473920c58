/* NumPy's .npy: a magic, a version, a Python dict as text, then the items.
 * bfloat16 travels as the 2-byte void type V2, as MLX writes it. A file is read
 * at once, a reader's items when the array is evaluated. */
#include "engine/io/stream.h"
#include "engine/ops/ops.h"
#include "mlx/c/io.h"

#include <ctype.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};

typedef struct NpyType {
    char text[3]; /* kind and size, as in "<f4" */
    mlx_dtype dtype;
} NpyType;
static const NpyType npy_types[] = {
    {"b1", MLX_BOOL},     {"u1", MLX_UINT8},     {"u2", MLX_UINT16},  {"u4", MLX_UINT32},
    {"u8", MLX_UINT64},   {"i1", MLX_INT8},      {"i2", MLX_INT16},   {"i4", MLX_INT32},
    {"i8", MLX_INT64},    {"f2", MLX_FLOAT16},   {"f4", MLX_FLOAT32}, {"f8", MLX_FLOAT64},
    {"V2", MLX_BFLOAT16}, {"c8", MLX_COMPLEX64},
};

typedef struct NpyHeader {
    mlx_dtype dtype;
    bool swap;    /* stored in the other byte order */
    bool fortran; /* column-major */
    int shape[NODE_DIMS], ndim;
} NpyHeader;

/* ---- the header's dict ---- */

/* The text behind "'key':", or NULL. `text` is NUL-terminated. */
static const char *value_of(const char *text, const char *key) {
    const size_t length = strlen(key);
    for (const char *at = text; (at = strstr(at, key)) != NULL; at++) {
        if (at == text || (at[-1] != '\'' && at[-1] != '"') || at[length] != at[-1]) continue;
        at += length + 1;
        at += strspn(at, " ");
        if (*at != ':') return NULL;
        at++;
        return at + strspn(at, " ");
    }
    return NULL;
}

static bool parse_descr(const char *value, NpyHeader *header, Error *err) {
    char order = 0;
    if (value && (*value == '\'' || *value == '"')) {
        order = value[1];
        for (size_t i = 0; order && i < BASE_COUNT(npy_types); i++)
            if (strncmp(value + 2, npy_types[i].text, 2) == 0 && value[4] == value[0]) {
                header->dtype = npy_types[i].dtype;
                header->swap = order == '>';
                return true;
            }
    }
    return base_fail(err, ERROR_UNSUPPORTED, "'descr' names a type that is not supported: %.24s",
                     value ? value : "(none)");
}

static bool parse_shape(const char *value, NpyHeader *header, Error *err) {
    if (!value || *value != '(') return base_fail(err, ERROR_INPUT, "'shape' is not a tuple");
    const char *at = value + 1 + strspn(value + 1, " ");
    while (*at != ')') {
        long long dimension = 0;
        const char *digits = at;
        for (; isdigit((unsigned char)*at) && dimension <= INT_MAX; at++)
            dimension = dimension * 10 + (*at - '0');
        if (at == digits || dimension > INT_MAX || header->ndim == NODE_DIMS)
            return base_fail(err, ERROR_INPUT, "bad 'shape' in the header: %.60s", value);
        header->shape[header->ndim++] = (int)dimension;
        at += strspn(at, " ");
        if (*at == ',')
            at += 1 + strspn(at + 1, " ");
        else if (*at != ')')
            return base_fail(err, ERROR_INPUT, "bad 'shape' in the header: %.60s", value);
    }
    return true;
}

static bool parse_header(const char *text, NpyHeader *header, Error *err) {
    const char *fortran = value_of(text, "fortran_order");
    header->fortran = fortran && strncmp(fortran, "True", 4) == 0;
    if (!fortran || (!header->fortran && strncmp(fortran, "False", 5) != 0))
        return base_fail(err, ERROR_INPUT, "'fortran_order' is neither True nor False");
    return parse_descr(value_of(text, "descr"), header, err) &&
           parse_shape(value_of(text, "shape"), header, err);
}

/* ---- reading ---- */

static void set_column_major(Node *node) {
    int64_t step = 1;
    for (int i = 0; i < node->ndim; i++) {
        node->strides[i] = step;
        step *= node->shape[i];
    }
    node_set_flags(node);
}

static Node *load_items(const NpyHeader *header, const uint8_t *data, size_t length, Error *err) {
    const size_t itemsize = dtype_info[header->dtype].size;
    size_t size;
    if (!shape_size(header->shape, header->ndim, &size) || size > length / itemsize) {
        base_fail(err, ERROR_INPUT, "%zu bytes of data do not hold shape %s of %s", length,
                  shape_text(&(ShapeText){{0}}, header->shape, header->ndim),
                  dtype_name(header->dtype));
        return NULL;
    }
    Node *node = node_from_data(data, header->dtype, header->shape, header->ndim);
    if (!node) {
        base_fail(err, ERROR_MEMORY, "out of memory for %zu items", size);
        return NULL;
    }
    if (header->swap) swap_items(node_data(node), size, header->dtype);
    if (header->fortran) set_column_major(node);
    return node;
}

/* What stands before the header's text, in 10 or (version 2 on) 12 bytes. */
enum { PREFIX_SHORT = 10, PREFIX_LONG = 12 };

/* How long the prefix is, from its first 8 bytes; 0 after filling err. */
static size_t prefix_length(const uint8_t *start, Error *err) {
    if (memcmp(start, magic, sizeof magic) != 0) {
        base_fail(err, ERROR_INPUT, "not an npy file");
        return 0;
    }
    const int version = start[6];
    if (version < 1 || version > 3) {
        base_fail(err, ERROR_UNSUPPORTED, "npy version %d is not supported", version);
        return 0;
    }
    return version == 1 ? PREFIX_SHORT : PREFIX_LONG;
}

static size_t header_length(const uint8_t *prefix, size_t bytes) {
    size_t length = prefix[8] | (size_t)prefix[9] << 8;
    if (bytes == PREFIX_LONG) length |= (size_t)prefix[10] << 16 | (size_t)prefix[11] << 24;
    return length;
}

static Node *load_file(const MappedFile *file, Error *err) {
    const uint8_t *data = file->data;
    const size_t start = file->length < PREFIX_SHORT ? 0 : prefix_length(data, err);
    if (!start || file->length < start) {
        base_fail(err, ERROR_INPUT, "not an npy file, or a truncated one (%zu bytes)",
                  file->length);
        return NULL;
    }
    const size_t length = header_length(data, start);
    if (length > file->length - start) {
        base_fail(err, ERROR_INPUT, "the header of %zu bytes goes past the end of the file",
                  length);
        return NULL;
    }
    NpyHeader header = {0};
    char *text = base_strndup((const char *)data + start, length);
    Node *node = NULL;
    if (parse_header(text, &header, err))
        node = load_items(&header, data + start + length, file->length - start - length, err);
    free(text);
    return node;
}

int mlx_load(mlx_array *res, const char *file, const mlx_stream s) {
    Error err = {0};
    MappedFile map;
    if (!stream_ok(s)) return 1;
    Node *node = NULL;
    if (map_file(file, &map, &err)) {
        node = load_file(&map, &err);
        if (!node) base_error_context(&err, "%s", file);
        base_map_close(&map);
    }
    if (!node) op_error("[load] %s", err.message);
    return op_finish(res, node);
}

/* A longer header is no description of one array. */
enum { HEADER_MAX = 1 << 20 };

/* Fills the header; *data_start is where the items begin. */
static bool read_header(IoStream *stream, NpyHeader *header, size_t *data_start, Error *err) {
    uint8_t prefix[PREFIX_LONG];
    if (!stream_read(stream, prefix, 8, err)) return false;
    const size_t start = prefix_length(prefix, err);
    if (!start || !stream_read(stream, prefix + 8, start - 8, err)) return false;
    const size_t length = header_length(prefix, start);
    if (length > HEADER_MAX) return base_fail(err, ERROR_INPUT, "a header of %zu bytes", length);
    char *text = base_alloc(length + 1);
    text[length] = 0;
    const bool ok = stream_read(stream, text, length, err) && parse_header(text, header, err);
    free(text);
    *data_start = start + length;
    return ok;
}

static Node *load_stream(IoStream *stream, const NpyHeader *header, size_t data_start) {
    int shape[NODE_DIMS];
    for (int i = 0; i < header->ndim; i++)
        shape[i] = header->shape[header->fortran ? header->ndim - 1 - i : i];
    Node *items =
        stream_array(stream, data_start, header->swap, header->dtype, shape, header->ndim);
    if (!header->fortran) return items;
    Node *node = op_transpose(items, NULL, 0);
    node_release(items);
    return node;
}

int mlx_load_reader(mlx_array *res, mlx_io_reader in_stream, const mlx_stream s) {
    Error err = {0};
    NpyHeader header = {0};
    size_t data_start = 0;
    IoStream *stream = stream_ok(s) ? ctx_of(in_stream, mlx_io_reader) : NULL;
    if (!stream) return 1;
    if (!stream_ready(stream, true, &err) || !read_header(stream, &header, &data_start, &err)) {
        op_error("[load] %s: %s", stream_label(stream), err.message);
        return 1;
    }
    return op_finish(res, load_stream(stream, &header, data_start));
}

/* ---- writing ---- */

static void build_header(StrBuf *out, const Node *node, bool fortran) {
    const char *type = "";
    for (size_t i = 0; i < BASE_COUNT(npy_types); i++)
        if (npy_types[i].dtype == node->dtype) type = npy_types[i].text;
    StrBuf dict = {0};
    base_str_appendf(&dict, "{'descr': '%c%s', 'fortran_order': %s, 'shape': (",
                     node->itemsize == 1 ? '|' : '<', type, fortran ? "True" : "False");
    for (int i = 0; i < node->ndim; i++)
        base_str_appendf(&dict, "%s%d", i ? ", " : "", node->shape[i]);
    base_str_append(&dict, node->ndim == 1 ? ",), }" : "), }");
    while ((10 + dict.length + 1) % 64) base_str_append_char(&dict, ' ');
    base_str_append_char(&dict, '\n');

    base_str_append_n(out, (const char *)magic, sizeof magic);
    base_str_append_char(out, 1);
    base_str_append_char(out, 0);
    base_str_append_char(out, (char)(dict.length & 255));
    base_str_append_char(out, (char)(dict.length >> 8));
    base_str_append_n(out, dict.data, dict.length);
    base_str_free(&dict);
}

static bool save_items(Sink sink, const Node *node, Error *err) {
    const bool fortran = node->col_contiguous && !node->row_contiguous;
    StrBuf header = {0};
    build_header(&header, node, fortran);
    const bool ok = sink_write(sink, header.data, header.length, err) &&
                    (fortran ? sink_write(sink, node_data(node), node_nbytes(node), err)
                             : sink_write_items(sink, node, err));
    base_str_free(&header);
    return ok;
}

static bool save_file(const char *path, const Node *node, Error *err) {
    AtomicFile *file = base_atomic_open(path, err);
    if (!file) return false;
    if (save_items((Sink){.file = file}, node, err)) return base_atomic_commit(file, err);
    base_atomic_abort(file);
    return false;
}

/* The evaluated node of an array that can be saved; NULL after reporting. */
static Node *savable(mlx_array a) {
    Node *node = node_of(a);
    if (!node || !node_eval(node)) return NULL;
    return node->size ? node : op_error("[save] cannot serialize an empty array");
}

int mlx_save(const char *file, const mlx_array a) {
    const Node *node = savable(a);
    if (!node) return 1;
    Error err = {0};
    char *path = path_with_extension(file, ".npy");
    const bool ok = save_file(path, node, &err);
    if (!ok) op_error("[save] %s: %s", path, err.message);
    free(path);
    return ok ? 0 : 1;
}

int mlx_save_writer(mlx_io_writer out_stream, const mlx_array a) {
    Error err = {0};
    IoStream *stream = ctx_of(out_stream, mlx_io_writer);
    const Node *node = stream ? savable(a) : NULL;
    if (!node) return 1;
    const bool ok =
        stream_ready(stream, false, &err) && save_items((Sink){.stream = stream}, node, &err);
    if (!ok) op_error("[save] %s", err.message);
    return ok ? 0 : 1;
}
