/* An array as text, in MLX's form: array([[0, 1],\n       [2, 3]], dtype=float32). */
#include "engine/core/internal.h"
#include "engine/cpu/kernels.h"

#include <math.h>
#include <string.h>

enum { EDGE = 3 }; /* items shown at each end of a long axis */

static void print_complex(StrBuf *text, const float value[2]) {
    const bool minus = value[1] < 0;
    base_str_appendf(text, "%g%c%gj", (double)value[0], minus ? '-' : '+',
                     (double)(minus ? -value[1] : value[1]));
}

static void print_item(StrBuf *text, mlx_dtype dtype, const void *item) {
    union {
        uint8_t u8;
        uint16_t u16;
        uint32_t u32;
        uint64_t u64;
        int8_t i8;
        int16_t i16;
        int32_t i32;
        int64_t i64;
        float f32[2];
        double f64;
    } value;
    memcpy(&value, item, dtype_info[dtype].size);
    switch (dtype) {
    case MLX_BOOL: base_str_append(text, value.u8 ? "true" : "false"); break;
    case MLX_UINT8: base_str_appendf(text, "%u", value.u8); break;
    case MLX_UINT16: base_str_appendf(text, "%u", value.u16); break;
    case MLX_UINT32: base_str_appendf(text, "%u", value.u32); break;
    case MLX_UINT64: base_str_appendf(text, "%llu", (unsigned long long)value.u64); break;
    case MLX_INT8: base_str_appendf(text, "%d", value.i8); break;
    case MLX_INT16: base_str_appendf(text, "%d", value.i16); break;
    case MLX_INT32: base_str_appendf(text, "%d", value.i32); break;
    case MLX_INT64: base_str_appendf(text, "%lld", (long long)value.i64); break;
    case MLX_FLOAT16: base_str_appendf(text, "%g", (double)cpu_f32_from_f16(value.u16)); break;
    case MLX_BFLOAT16: base_str_appendf(text, "%g", (double)cpu_f32_from_bf16(value.u16)); break;
    case MLX_FLOAT32: base_str_appendf(text, "%g", (double)value.f32[0]); break;
    case MLX_FLOAT64: base_str_appendf(text, "%g", value.f64); break;
    case MLX_COMPLEX64: print_complex(text, value.f32); break;
    }
}

/* `axis` recurses at most NODE_DIMS deep. */
static void print_axis(StrBuf *text, const Node *node, const uint8_t *data, int axis) {
    const int n = node->shape[axis];
    const bool last = axis == node->ndim - 1;
    base_str_append_char(text, '[');
    for (int i = 0; i < n; i++) {
        if (i && !last) base_str_appendf(text, "%*s", 7 + axis, "");
        if (i == EDGE && n > 2 * EDGE) {
            base_str_append(text, "...");
            i = n - EDGE - 1;
        } else {
            const uint8_t *item = data + i * node->strides[axis] * node->itemsize;
            if (last)
                print_item(text, node->dtype, item);
            else
                print_axis(text, node, item, axis + 1);
        }
        if (i < n - 1) base_str_append(text, last ? ", " : ",\n");
    }
    base_str_append_char(text, ']');
}

int mlx_array_tostring(mlx_string *str, const mlx_array arr) {
    Node *node = node_of(arr);
    if (!node || !node_eval(node)) return 1;
    StrBuf text = {0};
    base_str_append(&text, "array(");
    if (node->ndim)
        print_axis(&text, node, node_data(node), 0);
    else
        print_item(&text, node->dtype, node_data(node));
    base_str_appendf(&text, ", dtype=%s)", dtype_name(node->dtype));
    const int status = string_finish(str, text.data);
    base_str_free(&text);
    return status;
}
