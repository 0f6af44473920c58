/* mx: comfort over MLX's C API, so that model code reads as arithmetic.
 *
 * Every call returns its array by value; the innermost open scope of the
 * calling thread owns it. mx_close frees all arrays of a scope but the one it
 * hands up to the scope around it. The first failure of a thread is remembered
 * with the operation and the shapes; from then on calls do nothing and return
 * an empty array, and the caller asks once, at the boundary, with mx_check.
 *
 *     mlx_array mlp_forward(const Mlp *m, mlx_array x) {     // x: [B, L, D]
 *         mx_scope s = mx_open();
 *         mlx_array h = mx_mul(mx_silu(nn_linear(&m->gate, x)), nn_linear(&m->up, x));
 *         return mx_close(s, nn_linear(&m->down, h));
 *     }
 *
 * Scopes, errors and the stream belong to the thread. An array that lives
 * longer than its scope (a weight, a cache) is held with mx_keep or mx_store.
 * Axes may be negative. Scalars take the dtype of the array beside them. */
#ifndef MX_MX_H
#define MX_MX_H

#include "base/base.h"
#include "mlx/c/mlx.h"

/* ---- scopes ------------------------------------------------------------ */

typedef struct mx_scope {
    size_t mark;
    int depth;
} mx_scope;

/* Calls outside any scope are an error. Scopes nest; they close in reverse
 * order; closing an outer scope closes the forgotten inner ones. */
mx_scope mx_open(void);
/* Frees the scope's arrays but `result` (an array of this scope or of an outer
 * one), which the surrounding scope then owns. When the outermost scope closes,
 * everything is freed and an empty array is returned: use mx_keep or mx_store
 * first. */
mlx_array mx_close(mx_scope scope, mlx_array result);
/* The same for several results; `results` is updated in place. */
void mx_close_many(mx_scope scope, mlx_array *results, size_t count);
/* Closes without a result. */
void mx_drop(mx_scope scope);

/* A reference of its own that outlives all scopes; caller frees with mx_free. */
mlx_array mx_keep(mlx_array a);
/* *slot = a, releasing what *slot held; *slot starts as {0} and ends with
 * mx_free. An empty `a` (after a failure) leaves the slot as it was. */
void mx_store(mlx_array *slot, mlx_array a);
void mx_free(mlx_array *slot); /* null-safe; *slot becomes {0} */
/* Gives a freshly made handle (of a mlx_ call) to the innermost scope. */
mlx_array mx_own(mlx_array a);

/* ---- errors ------------------------------------------------------------ */

bool mx_failed(void);
/* True when nothing failed. Otherwise fills *err, forgets the failure, and
 * returns false. */
bool mx_check(Error *err);
/* Records a failure as if an operation had failed (the first one stays) and
 * returns an empty array. */
mlx_array mx_fail(const char *format, ...) BASE_PRINTF(1, 2);
/* "float32[2, 3]"; a small ring of buffers of this thread, valid for 8 calls. */
const char *mx_describe(mlx_array a);
const char *mx_dtype_name(mlx_dtype dtype);              /* "float32"; static */
bool mx_dtype_parse(const char *name, mlx_dtype *dtype); /* also "torch.bfloat16" */

mlx_stream mx_stream(void); /* this thread's default stream; borrowed */

/* ---- asking ------------------------------------------------------------ */

static inline bool mx_empty(mlx_array a) {
    return a.ctx == NULL;
}
int mx_dim(mlx_array a, int axis); /* 0 for an empty array */
int mx_ndim(mlx_array a);
size_t mx_size(mlx_array a);     /* elements */
mlx_dtype mx_dtype(mlx_array a); /* MLX_FLOAT32 for an empty array */
bool mx_is_float(mlx_dtype dtype);

/* ---- making ------------------------------------------------------------ */

#define MX_SHAPE(...) (const int[]){__VA_ARGS__}, sizeof((const int[]){__VA_ARGS__}) / sizeof(int)

mlx_array mx_scalar(double value, mlx_dtype dtype);                      /* [] */
mlx_array mx_from_i32(const int *data, const int *shape, size_t ndim);   /* copies; int32 */
mlx_array mx_from_f32(const float *data, const int *shape, size_t ndim); /* copies; float32 */
mlx_array mx_full(const int *shape, size_t ndim, double value, mlx_dtype dtype);
mlx_array mx_zeros(const int *shape, size_t ndim, mlx_dtype dtype);
mlx_array mx_arange(double start, double stop, double step, mlx_dtype dtype);

/* ---- arithmetic (broadcasting, MLX type promotion) ---------------------- */

mlx_array mx_add(mlx_array a, mlx_array b);
mlx_array mx_sub(mlx_array a, mlx_array b);
mlx_array mx_mul(mlx_array a, mlx_array b);
mlx_array mx_div(mlx_array a, mlx_array b);
mlx_array mx_pow(mlx_array a, mlx_array b);
mlx_array mx_maximum(mlx_array a, mlx_array b);
mlx_array mx_minimum(mlx_array a, mlx_array b);
mlx_array mx_add_scalar(mlx_array a, double value);
mlx_array mx_mul_scalar(mlx_array a, double value); /* a itself when value is 1 */
mlx_array mx_matmul(mlx_array a, mlx_array b);
mlx_array mx_addmm(mlx_array c, mlx_array a, mlx_array b); /* c + a b */

mlx_array mx_neg(mlx_array a);
mlx_array mx_abs(mlx_array a);
mlx_array mx_sign(mlx_array a); /* -1, 0 or 1 */
mlx_array mx_exp(mlx_array a);
mlx_array mx_log(mlx_array a);
mlx_array mx_sqrt(mlx_array a);
mlx_array mx_rsqrt(mlx_array a);
mlx_array mx_square(mlx_array a);
mlx_array mx_tanh(mlx_array a);
mlx_array mx_erf(mlx_array a);
mlx_array mx_expm1(mlx_array a);
mlx_array mx_log1p(mlx_array a);
mlx_array mx_floor(mlx_array a);
mlx_array mx_softplus(mlx_array a); /* log(1 + exp(a)) */
mlx_array mx_floor_divide_scalar(mlx_array a, int divisor);
mlx_array mx_bits_and(mlx_array a, mlx_array b);
mlx_array mx_shift_left(mlx_array a, mlx_array b);
mlx_array mx_shift_right(mlx_array a, mlx_array b);
mlx_array mx_sigmoid(mlx_array a);
mlx_array mx_silu(mlx_array a);        /* a sigmoid(a) */
mlx_array mx_gelu(mlx_array a);        /* a (1 + erf(a/sqrt 2))/2 */
mlx_array mx_gelu_approx(mlx_array a); /* tanh form */
mlx_array mx_relu(mlx_array a);

mlx_array mx_equal(mlx_array a, mlx_array b);
mlx_array mx_less(mlx_array a, mlx_array b);
mlx_array mx_less_equal(mlx_array a, mlx_array b);
mlx_array mx_greater(mlx_array a, mlx_array b);
mlx_array mx_greater_equal(mlx_array a, mlx_array b);
mlx_array mx_and(mlx_array a, mlx_array b);
mlx_array mx_or(mlx_array a, mlx_array b);
mlx_array mx_not(mlx_array a);
mlx_array mx_where(mlx_array condition, mlx_array x, mlx_array y);

mlx_array mx_stop_gradient(mlx_array a); /* its value; no gradient goes through */

/* ---- shapes ------------------------------------------------------------ */

mlx_array mx_cast(mlx_array a, mlx_dtype dtype);     /* a itself when it has the dtype */
mlx_array mx_view(mlx_array a, mlx_dtype dtype);     /* the same bytes; the last axis changes */
mlx_array mx_from_fp8(mlx_array a, mlx_dtype dtype); /* bytes of E4M3 */
mlx_array mx_reshape(mlx_array a, const int *shape, size_t ndim); /* one -1 allowed */
mlx_array mx_transpose(mlx_array a, const int *axes, size_t count);
mlx_array mx_swapaxes(mlx_array a, int axis1, int axis2);
mlx_array mx_expand_dims(mlx_array a, int axis);
mlx_array mx_squeeze(mlx_array a, int axis);
mlx_array mx_contiguous(mlx_array a);
mlx_array mx_broadcast_to(mlx_array a, const int *shape, size_t ndim);
/* a[..., start:stop, ...] along one axis; negative bounds count from the end,
 * and are clamped. The whole axis returns a itself. */
mlx_array mx_slice(mlx_array a, int axis, int start, int stop);
/* a with a[..., start:start+n, ...] = update along one axis, n = update's size
 * there. In place when nobody else holds `a` and the caller stores the result
 * over it (mx_store). */
mlx_array mx_slice_update(mlx_array a, mlx_array update, int axis, int start);
/* As mx_slice_update on a held array: *slot = updated, and *slot's own handle is
 * released before the update is evaluated, so that a cache is written in place. */
void mx_slice_assign(mlx_array *slot, mlx_array update, int axis, int start);
mlx_array mx_concat(const mlx_array *arrays, size_t count, int axis);
mlx_array mx_concat2(mlx_array a, mlx_array b, int axis);
mlx_array mx_stack(const mlx_array *arrays, size_t count, int axis);
/* Equal parts along an axis, into parts[0..count). */
void mx_split(mlx_array a, int count, int axis, mlx_array *parts);
mlx_array mx_repeat(mlx_array a, int repeats, int axis);
mlx_array mx_take(mlx_array a, mlx_array indices, int axis);
mlx_array mx_take_along(mlx_array a, mlx_array indices, int axis);
mlx_array mx_put_along(mlx_array a, mlx_array indices, mlx_array values, int axis);

/* ---- reductions and order ---------------------------------------------- */

mlx_array mx_sum(mlx_array a, int axis, bool keepdims);
mlx_array mx_mean(mlx_array a, int axis, bool keepdims);
mlx_array mx_max(mlx_array a, int axis, bool keepdims);
mlx_array mx_min(mlx_array a, int axis, bool keepdims);
mlx_array mx_logsumexp(mlx_array a, int axis, bool keepdims);
mlx_array mx_argmax(mlx_array a, int axis);  /* uint32 */
mlx_array mx_softmax(mlx_array a, int axis); /* float32 inside */
mlx_array mx_cumsum(mlx_array a, int axis);  /* inclusive */
mlx_array mx_sort(mlx_array a, int axis);
mlx_array mx_argsort(mlx_array a, int axis);
mlx_array mx_argpartition(mlx_array a, int kth, int axis);

/* ---- fused -------------------------------------------------------------- */

mlx_array mx_rms_norm(mlx_array x, mlx_array weight, float eps); /* weight may be {0} */
mlx_array mx_layer_norm(mlx_array x, mlx_array weight, mlx_array bias, float eps);
/* base is ignored when freqs (float32 periods [dims/2]) is given. */
mlx_array mx_rope(mlx_array x, int dims, bool traditional, float base, float scale, int offset,
                  mlx_array freqs);
/* queries [B, Hq, Lq, D], keys and values [B, Hk, Lk, D]; mask_mode "", "causal"
 * or "array" (with mask bool or additive, broadcast to [B, Hq, Lq, Lk]). */
mlx_array mx_attention(mlx_array queries, mlx_array keys, mlx_array values, float scale,
                       const char *mask_mode, mlx_array mask);

/* The same with one more logit a head in the softmax, sinks [Hq], that no value
 * answers to. */
mlx_array mx_attention_sinks(mlx_array queries, mlx_array keys, mlx_array values, float scale,
                             const char *mask_mode, mlx_array mask, mlx_array sinks);

/* x [..., M, K] times the matrices of w [E, K, N] that indices name; indices
 * broadcast against x's leading axes: [..., M, N]. sorted: they ascend. */
mlx_array mx_gather_matmul(mlx_array x, mlx_array w, mlx_array indices, bool sorted);

/* How a weight is packed. group_size 0 means dense. mode is static: "affine",
 * "mxfp4", "mxfp8", "nvfp4". */
typedef struct MxQuant {
    int group_size, bits;
    const char *mode;
} MxQuant;
/* x [..., K] times packed w [N, K bits/32], transposed when `transpose`. biases
 * is {0} in the fp modes. */
mlx_array mx_quantized_matmul(mlx_array x, mlx_array w, mlx_array scales, mlx_array biases,
                              bool transpose, MxQuant quant);
/* The same with x rounded to the codes of the mode first (nvfp4, mxfp8), and w
 * transposed. */
mlx_array mx_rounded_matmul(mlx_array x, mlx_array w, mlx_array scales, MxQuant quant);
/* As mx_gather_matmul, with packed w [E, N, K bits/32], transposed. */
mlx_array mx_gather_quantized_matmul(mlx_array x, mlx_array w, mlx_array scales, mlx_array biases,
                                     mlx_array indices, bool sorted, MxQuant quant);
mlx_array mx_dequantize(mlx_array w, mlx_array scales, mlx_array biases, MxQuant quant);
/* parts[0] packed, parts[1] scales, parts[2] biases ({0} in the fp modes). */
void mx_quantize(mlx_array w, MxQuant quant, mlx_array parts[3]);

/* ---- random (this thread's generator unless key is given) --------------- */

void mx_seed(uint64_t seed);
mlx_array mx_categorical(mlx_array logits, int axis);
mlx_array mx_uniform(double low, double high, const int *shape, size_t ndim, mlx_dtype dtype);
/* Keys, uint32 [2]: of a seed; the two that come from one (the next, and one to draw
 * with), as MLX's own implicit draws do it. */
mlx_array mx_key(uint64_t seed);
void mx_key_split(mlx_array key, mlx_array parts[2]);
mlx_array mx_uniform_of(mlx_array key, double low, double high, const int *shape, size_t ndim);
/* bool of the shape of `like`: true with this probability, drawn with the key. */
mlx_array mx_bernoulli(double probability, mlx_array like, mlx_array key);

/* ---- files ------------------------------------------------------------------ */

/* Each tensor and each metadata entry of a safetensors file is shown once, in
 * no particular order; arrays and strings are borrowed for the call (mx_keep).
 * Tensors are mapped, not read. Either function may be NULL. */
typedef struct MxFileVisitor {
    void (*tensor)(void *context, const char *name, mlx_array array);
    void (*metadata)(void *context, const char *key, const char *value);
    void *context;
} MxFileVisitor;
bool mx_load_safetensors(const char *path, MxFileVisitor visitor, Error *err);
/* The failure that a call of the C API about a file just reported, in *err, with
 * the path before it. Returns false. */
bool mx_file_failed(const char *path, Error *err);
/* names[i] with arrays[i]; metadata: object of strings, or NULL. */
bool mx_save_safetensors(const char *path, const char *const *names, const mlx_array *arrays,
                         size_t count, const json_t *metadata, Error *err);
/* NumPy's .npz, a zip of .npy files, stored or deflated. Each array is shown under
 * its member's name without ".npy", in the file's order; other members are passed
 * over. There is no metadata. */
bool mx_load_npz(const char *path, MxFileVisitor visitor, Error *err);
/* names[i] with arrays[i], none of them empty; path gets ".npz" when it lacks it. */
bool mx_save_npz(const char *path, const char *const *names, const mlx_array *arrays, size_t count,
                 bool compress, Error *err);

/* ---- reaching the host (these evaluate) ---------------------------------- */

/* false after a failure, now or before. */
bool mx_eval(const mlx_array *arrays, size_t count);
bool mx_eval_async(const mlx_array *arrays, size_t count);
int64_t mx_item_int(mlx_array a);  /* a has one element; any integer dtype; 0 on failure */
double mx_item_float(mlx_array a); /* any dtype */
/* The evaluated elements in row order, of a's own dtype; they live as long as
 * the open scope and a. NULL after a failure. */
const void *mx_data(mlx_array a);
/* All elements in row order, converted. count must be mx_size(a). */
bool mx_copy_f32(mlx_array a, float *out, size_t count);
bool mx_copy_i32(mlx_array a, int *out, size_t count);

#endif
