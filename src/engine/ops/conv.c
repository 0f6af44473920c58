/* Convolutions in one to three dimensions, and their transposes, which are
 * convolutions of a dilated input. The product is linear in input x, weight w
 * and cotangent g, so three operations close under differentiation:
 *
 *     y = conv(x, w)        dx = conv(g, w turned)        dw = conv_weight(x, g)
 *
 * where w turned has its channels and features swapped, its kernel flipped, and
 * stride and input dilation trade places. */
#include "engine/ops/ops.h"
#include "mlx/c/ops.h"

#include <string.h>

enum { SPATIAL = 3 };

typedef struct ConvParam {
    int stride[SPATIAL], pad[SPATIAL]; /* pad: before the first item, may be negative */
    int kernel_dilation[SPATIAL], input_dilation[SPATIAL];
    int groups;
    bool flip;
} ConvParam;

/* ---- evaluation -------------------------------------------------------------------- */

/* The kernels' view: missing axes, in front, have one item. */
static CpuConv conv_view(const ConvParam *param, const Node *x, const Node *w, const int *out) {
    CpuConv conv = {.batch = (size_t)x->shape[0],
                    .channels = (size_t)x->shape[x->ndim - 1],
                    .features = (size_t)w->shape[0],
                    .groups = (size_t)param->groups,
                    .flip = param->flip};
    ops_cpu_type(x->dtype, &conv.type);
    const int spatial = x->ndim - 2, missing = SPATIAL - spatial;
    for (int i = 0; i < SPATIAL; i++) {
        const int axis = i - missing;
        conv.axis[i] = (CpuConvAxis){1, 1, 1, 1, 1, 1, 0};
        if (axis < 0) continue;
        conv.axis[i] = (CpuConvAxis){.in = (size_t)x->shape[axis + 1],
                                     .kernel = (size_t)w->shape[axis + 1],
                                     .out = (size_t)out[axis + 1],
                                     .stride = param->stride[axis],
                                     .kernel_dilation = param->kernel_dilation[axis],
                                     .input_dilation = param->input_dilation[axis],
                                     .pad = param->pad[axis]};
    }
    return conv;
}

static bool conv_eval(Node *node, Error *err) {
    if (!node_alloc(node, err)) return false;
    if (node->size == 0) return true;
    Node *x = ready_row_contiguous(node->inputs[0], err);
    Node *w = ready_row_contiguous(node->inputs[1], err);
    if (x && w) {
        CpuConv conv = conv_view(node->param, x, w, node->shape);
        conv.in = node_data(x);
        conv.weight = node_data(w);
        conv.out = node_data(node);
        if (node->dtype == MLX_FLOAT64)
            cpu_conv_f64(&conv);
        else
            cpu_conv(&conv);
    }
    const bool good = x && w;
    node_release(x);
    node_release(w);
    return good;
}

static bool conv_weight_eval(Node *node, Error *err) {
    if (!node_alloc(node, err)) return false;
    if (node->size == 0) return true;
    Node *x = ready_row_contiguous(node->inputs[0], err);
    Node *g = ready_row_contiguous(node->inputs[1], err);
    if (x && g) {
        CpuConv conv = conv_view(node->param, x, node, g->shape);
        conv.in = node_data(x);
        if (node->dtype == MLX_FLOAT64)
            cpu_conv_weight_f64(&conv, node_data(g), node_data(node));
        else
            cpu_conv_weight(&conv, node_data(g), node_data(node));
    }
    const bool good = x && g;
    node_release(x);
    node_release(g);
    return good;
}

/* ---- gradients ------------------------------------------------------------------------ */

static bool conv_vjp(Node *node, Node *g, const bool *wanted, Node **grads);
static bool conv_weight_vjp(Node *node, Node *h, const bool *wanted, Node **grads);
static const Op conv_op = {"conv", conv_eval, conv_vjp};
static const Op conv_weight_op = {"conv_weight", conv_weight_eval, conv_weight_vjp};

/* y of the shape `shape` (or its last axis by w's features) from x and w. */
static Node *conv_node(const ConvParam *param, Node *x, Node *w, const int *shape) {
    if (!x || !w) return NULL;
    return node_new_param(&conv_op, x->dtype, shape, x->ndim, param, sizeof *param, NODES(x, w));
}

/* [O, kernel, C / groups] to [C, kernel, O / groups]. */
static Node *turn_weight(Node *w, int groups) {
    if (groups == 1) return op_swapaxes(w, 0, -1);
    int shape[SPATIAL + 3];
    shape[0] = groups;
    shape[1] = w->shape[0] / groups;
    for (int i = 1; i < w->ndim; i++) shape[i + 1] = w->shape[i];
    Node *split = op_reshape(w, shape, (size_t)w->ndim + 1);
    Node *swapped = op_swapaxes(split, 1, -1);
    Node *turned = op_flatten(swapped, 0, 1);
    node_release(split);
    node_release(swapped);
    return turned;
}

/* The gradient of the input, like x, from the cotangent g and the weights. */
static Node *conv_input_grad(const ConvParam *param, const Node *x, Node *w, Node *g) {
    ConvParam turned = *param;
    for (int i = 0; i < x->ndim - 2; i++) {
        turned.stride[i] = param->input_dilation[i];
        turned.input_dilation[i] = param->stride[i];
        turned.pad[i] = param->kernel_dilation[i] * (w->shape[i + 1] - 1) - param->pad[i];
    }
    turned.flip = !param->flip;
    Node *kernel = turn_weight(w, param->groups);
    Node *result = conv_node(&turned, g, kernel, x->shape);
    node_release(kernel);
    return result;
}

static Node *conv_weight_grad(const ConvParam *param, Node *x, const Node *w, Node *g) {
    return node_new_param(&conv_weight_op, x->dtype, w->shape, w->ndim, param, sizeof *param,
                          NODES(x, g));
}

static bool conv_vjp(Node *node, Node *g, const bool *wanted, Node **grads) {
    Node *x = node->inputs[0], *w = node->inputs[1];
    if (wanted[0]) grads[0] = conv_input_grad(node->param, x, w, g);
    if (wanted[1]) grads[1] = conv_weight_grad(node->param, x, w, g);
    return (!wanted[0] || grads[0]) && (!wanted[1] || grads[1]);
}

/* node: the gradient of the weights from x and g; h has the weights' shape. */
static bool conv_weight_vjp(Node *node, Node *h, const bool *wanted, Node **grads) {
    Node *x = node->inputs[0], *g = node->inputs[1];
    if (wanted[0]) grads[0] = conv_input_grad(node->param, x, h, g);
    if (wanted[1]) grads[1] = conv_node(node->param, x, h, g->shape);
    return (!wanted[0] || grads[0]) && (!wanted[1] || grads[1]);
}

/* ---- the operation -------------------------------------------------------------------- */

/* One number for every axis, or `fallback` when the list is empty. */
typedef struct IntList {
    const int *values;
    size_t n;
} IntList;
#define INT_LIST(...)                                                    \
    (IntList) {                                                          \
        (int[]){__VA_ARGS__}, sizeof((int[]){__VA_ARGS__}) / sizeof(int) \
    }

#define TEXT(values, n) shape_text(&(ShapeText){{0}}, values, n)

static bool spread(const char *what, IntList list, int fallback, int spatial, int *out) {
    for (int i = 0; i < spatial; i++)
        out[i] =
            list.n == 0 ? fallback : list.values[list.n == 1 ? 0 : BASE_MIN(i, (int)list.n - 1)];
    if (list.n <= 1 || list.n == (size_t)spatial) return true;
    op_error("[conv] Invalid %s %s for %dD convolution.", what,
             TEXT(list.values, (int)BASE_MIN(list.n, (size_t)NODE_DIMS)), spatial);
    return false;
}

static bool all_positive(const char *what, const int *values, int n) {
    for (int i = 0; i < n; i++) {
        if (values[i] > 0) continue;
        op_error("[conv] %s sizes must be positive. Got %s.", what, TEXT(values, n));
        return false;
    }
    return true;
}

static bool operands_fit(const Node *x, const Node *w, int groups) {
    const int channels = x->shape[x->ndim - 1];
    if (w->ndim != x->ndim) {
        op_error("[conv] Invalid weight array with %d dimensions for %dD convolution. Expected an "
                 "array with %d dimensions following the format [C_out, ..., C_in].",
                 w->ndim, x->ndim - 2, x->ndim);
        return false;
    }
    const int expected = w->shape[w->ndim - 1];
    if (groups < 1) {
        op_error("[conv] The number of groups must be positive, but got %d.", groups);
    } else if (channels % groups) {
        op_error("[conv] The input channels must be divisible by the number of groups. Got input "
                 "with shape %s and %d groups.",
                 SHAPE(x), groups);
    } else if (w->shape[0] % groups) {
        op_error("[conv] If groups > 1, the output channels must be divisible by the number of "
                 "groups. Got %d output channels and %d groups.",
                 w->shape[0], groups);
    } else if (channels / groups != expected) {
        if (groups == 1)
            op_error("[conv] Expect the input channels in the input and weight array to match but "
                     "got shapes - input: %s and weight: %s",
                     SHAPE(x), SHAPE(w));
        else
            op_error("[conv] Given groups=%d and weights of shape %s, expected to have %lld input "
                     "channels but got %d input channels instead.",
                     groups, SHAPE(w), (long long)groups * expected, channels);
    } else {
        return true;
    }
    return false;
}

/* Negative padding crops the input before anything else. Takes over x. */
static Node *crop(Node *x, int *low, int *high) {
    int start[NODE_DIMS] = {0}, stop[NODE_DIMS], strides[NODE_DIMS];
    bool any = false;
    for (int i = 0; i < x->ndim; i++) {
        strides[i] = 1;
        stop[i] = x->shape[i];
    }
    for (int i = 0; i < x->ndim - 2; i++) {
        any |= low[i] < 0 || high[i] < 0;
        start[i + 1] = low[i] < -x->shape[i + 1] ? x->shape[i + 1] : -BASE_MIN(low[i], 0);
        stop[i + 1] = (int)BASE_MAX((int64_t)x->shape[i + 1] + BASE_MIN(high[i], 0), 0);
        low[i] = BASE_MAX(low[i], 0);
        high[i] = BASE_MAX(high[i], 0);
    }
    if (!any) return x;
    Node *cropped = op_slice(x, start, stop, strides);
    node_release(x);
    return cropped;
}

/* Items of one output axis, in shape; false after reporting. */
static bool output_shape(const ConvParam *param, const Node *x, const Node *w, const int *high,
                         int *shape) {
    const int spatial = x->ndim - 2;
    memcpy(shape, x->shape, (size_t)x->ndim * sizeof *shape);
    shape[x->ndim - 1] = w->shape[0];
    for (int i = 0; i < spatial; i++) {
        const int64_t kernel = 1 + (int64_t)param->kernel_dilation[i] * (w->shape[i + 1] - 1);
        const int64_t in = 1 + (int64_t)param->input_dilation[i] * (x->shape[i + 1] - 1);
        const int64_t room = in + param->pad[i] + high[i] - kernel;
        const int64_t size = room < 0 ? 0 : room / param->stride[i] + 1;
        if (size <= 0) {
            op_error("[conv] Spatial dimensions of input after padding cannot be smaller than "
                     "weight spatial dimensions. Got error at axis %d for input with shape %s, "
                     "padding low %s, padding high %s, and weight of shape %s.",
                     i + 1, SHAPE(x), TEXT(param->pad, spatial), TEXT(high, spatial), SHAPE(w));
            return false;
        }
        if (size > INT32_MAX) {
            op_error("[conv] The output would have %lld items along axis %d.", (long long)size,
                     i + 1);
            return false;
        }
        shape[i + 1] = (int)size;
    }
    return true;
}

typedef struct ConvLists {
    IntList stride, low, high, kernel_dilation, input_dilation;
} ConvLists;

static Node *op_conv(Node *input, Node *weight, ConvLists lists, int groups, bool flip) {
    if (!input || !weight) return NULL;
    const int spatial = input->ndim - 2;
    if (groups != 1 && spatial != 1 && spatial != 2)
        return op_error("[conv] Can only handle groups != 1 in 1D or 2D convolutions.");
    if (spatial < 1 || spatial > SPATIAL)
        return op_error("[conv] Only works for inputs with 1-3 spatial dimensions. The inputs must "
                        "be in the format [N, ..., C_in]");
    if (!operands_fit(input, weight, groups)) return NULL;
    const mlx_dtype dtype = dtype_promote(input->dtype, weight->dtype);
    if (dtype_info[dtype].kind != 'f')
        return op_error("[conv] Only real floating point types are supported but %s and %s were "
                        "provided which results in %s.",
                        dtype_name(input->dtype), dtype_name(weight->dtype), dtype_name(dtype));
    ConvParam param;
    int high[SPATIAL], shape[NODE_DIMS];
    memset(&param, 0, sizeof param);
    param.groups = groups;
    param.flip = flip;
    if (!spread("strides", lists.stride, 1, spatial, param.stride) ||
        !spread("padding", lists.low, 0, spatial, param.pad) ||
        !spread("padding", lists.high, 0, spatial, high) ||
        !spread("kernel dilation", lists.kernel_dilation, 1, spatial, param.kernel_dilation) ||
        !spread("input dilation", lists.input_dilation, 1, spatial, param.input_dilation) ||
        !all_positive("Kernel dilation", param.kernel_dilation, spatial) ||
        !all_positive("Input dilation", param.input_dilation, spatial) ||
        !all_positive("Stride", param.stride, spatial))
        return NULL;
    Node *x = op_astype(input, dtype), *w = op_astype(weight, dtype), *result = NULL;
    if (x) x = crop(x, param.pad, high);
    if (x && w && output_shape(&param, x, w, high, shape)) result = conv_node(&param, x, w, shape);
    node_release(x);
    node_release(w);
    return result;
}

/* The transpose of a convolution with that stride, padding and dilation. */
static Node *op_conv_transpose(Node *input, Node *weight, IntList stride, const int *padding,
                               const int *dilation, const int *output_padding, int groups) {
    if (!input || !weight) return NULL;
    int low[SPATIAL], high[SPATIAL];
    for (int i = 0; i < (int)stride.n; i++) {
        if (input->ndim < i + 3 || weight->ndim < i + 3)
            return op_error("[conv] Invalid input array with %d dimensions for %zuD convolution. "
                            "Expected an array with %zu dimensions following the format [N, ..., "
                            "C_in].",
                            BASE_MIN(input->ndim, weight->ndim), stride.n, stride.n + 2);
        const int64_t reach = (int64_t)dilation[i] * (weight->shape[i + 1] - 1);
        const int64_t before = reach - padding[i], after = before + output_padding[i];
        if (before != (int)before || after != (int)after)
            return op_error("[conv] The padding of axis %d is out of range.", i + 1);
        low[i] = (int)before;
        high[i] = (int)after;
    }
    const ConvLists lists = {.stride = INT_LIST(1),
                             .low = {low, stride.n},
                             .high = {high, stride.n},
                             .kernel_dilation = {dilation, stride.n},
                             .input_dilation = stride};
    return op_conv(input, weight, lists, groups, true);
}

int mlx_conv_general(mlx_array *res, const mlx_array input, const mlx_array weight,
                     const int *stride, size_t stride_num, const int *padding_lo,
                     size_t padding_lo_num, const int *padding_hi, size_t padding_hi_num,
                     const int *kernel_dilation, size_t kernel_dilation_num,
                     const int *input_dilation, size_t input_dilation_num, int groups, bool flip,
                     const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    const ConvLists lists = {{stride, stride_num},
                             {padding_lo, padding_lo_num},
                             {padding_hi, padding_hi_num},
                             {kernel_dilation, kernel_dilation_num},
                             {input_dilation, input_dilation_num}};
    return op_finish(res, op_conv(node_of(input), node_of(weight), lists, groups, flip));
}

static int conv_plain(mlx_array *res, mlx_array input, mlx_array weight, IntList stride,
                      IntList padding, IntList dilation, int groups, mlx_stream s) {
    if (!stream_ok(s)) return 1;
    const ConvLists lists = {
        .stride = stride, .low = padding, .high = padding, .kernel_dilation = dilation};
    return op_finish(res, op_conv(node_of(input), node_of(weight), lists, groups, false));
}

int mlx_conv1d(mlx_array *res, const mlx_array input, const mlx_array weight, int stride,
               int padding, int dilation, int groups, const mlx_stream s) {
    return conv_plain(res, input, weight, INT_LIST(stride), INT_LIST(padding), INT_LIST(dilation),
                      groups, s);
}

int mlx_conv2d(mlx_array *res, const mlx_array input, const mlx_array weight, int stride_0,
               int stride_1, int padding_0, int padding_1, int dilation_0, int dilation_1,
               int groups, const mlx_stream s) {
    return conv_plain(res, input, weight, INT_LIST(stride_0, stride_1),
                      INT_LIST(padding_0, padding_1), INT_LIST(dilation_0, dilation_1), groups, s);
}

int mlx_conv3d(mlx_array *res, const mlx_array input, const mlx_array weight, int stride_0,
               int stride_1, int stride_2, int padding_0, int padding_1, int padding_2,
               int dilation_0, int dilation_1, int dilation_2, int groups, const mlx_stream s) {
    return conv_plain(res, input, weight, INT_LIST(stride_0, stride_1, stride_2),
                      INT_LIST(padding_0, padding_1, padding_2),
                      INT_LIST(dilation_0, dilation_1, dilation_2), groups, s);
}

int mlx_conv_transpose1d(mlx_array *res, const mlx_array input, const mlx_array weight, int stride,
                         int padding, int dilation, int output_padding, int groups,
                         const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    return op_finish(res, op_conv_transpose(node_of(input), node_of(weight), INT_LIST(stride),
                                            &padding, &dilation, &output_padding, groups));
}

int mlx_conv_transpose2d(mlx_array *res, const mlx_array input, const mlx_array weight,
                         int stride_0, int stride_1, int padding_0, int padding_1, int dilation_0,
                         int dilation_1, int output_padding_0, int output_padding_1, int groups,
                         const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    const int padding[] = {padding_0, padding_1}, dilation[] = {dilation_0, dilation_1};
    const int output_padding[] = {output_padding_0, output_padding_1};
    return op_finish(res, op_conv_transpose(node_of(input), node_of(weight),
                                            INT_LIST(stride_0, stride_1), padding, dilation,
                                            output_padding, groups));
}

int mlx_conv_transpose3d(mlx_array *res, const mlx_array input, const mlx_array weight,
                         int stride_0, int stride_1, int stride_2, int padding_0, int padding_1,
                         int padding_2, int dilation_0, int dilation_1, int dilation_2,
                         int output_padding_0, int output_padding_1, int output_padding_2,
                         int groups, const mlx_stream s) {
    if (!stream_ok(s)) return 1;
    const int padding[] = {padding_0, padding_1, padding_2};
    const int dilation[] = {dilation_0, dilation_1, dilation_2};
    const int output_padding[] = {output_padding_0, output_padding_1, output_padding_2};
    return op_finish(res, op_conv_transpose(node_of(input), node_of(weight),
                                            INT_LIST(stride_0, stride_1, stride_2), padding,
                                            dilation, output_padding, groups));
}
