"""The engine's work done by other engines, where they are installed: ggml (out of
llama-cpp-python), OpenBLAS (out of numpy) and MLX. Prints one line a case, best
time of several; says so when an engine is missing.
"""
import ctypes
import glob
import mmap
import os
import time

THREADS = int(os.environ.get("MLX_RAG_THREADS", 0)) or os.cpu_count()
SECONDS = 0.5


def best(run):
    run()
    fastest, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        begun = time.perf_counter()
        run()
        fastest = min(fastest, time.perf_counter() - begun)
    return fastest


def show(name, seconds, amount, unit):
    print(f"{name:<44} {seconds * 1e6:10.1f} us {amount / seconds * 1e-9:9.1f} {unit}", flush=True)


class Ggml:
    """Just enough of ggml.h for one matrix product."""

    F32, F16, Q4_0, Q4_1, BF16 = 0, 1, 2, 3, 30

    class Params(ctypes.Structure):
        _fields_ = [("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p),
                    ("no_alloc", ctypes.c_bool)]

    def __init__(self):
        import llama_cpp
        folder = os.path.join(os.path.dirname(llama_cpp.__file__), "lib")
        mode = ctypes.RTLD_GLOBAL
        self.base = ctypes.CDLL(glob.glob(folder + "/libggml-base.so*")[0], mode)
        self.cpu = ctypes.CDLL(glob.glob(folder + "/libggml-cpu.so*")[0], mode)
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        for library, name, result, arguments in (
                (self.base, "ggml_init", pointer, [self.Params]),
                (self.base, "ggml_free", None, [pointer]),
                (self.base, "ggml_new_tensor_2d", pointer, [pointer, ctypes.c_int, size, size]),
                (self.base, "ggml_mul_mat", pointer, [pointer] * 3),
                (self.base, "ggml_new_graph", pointer, [pointer]),
                (self.base, "ggml_build_forward_expand", None, [pointer] * 2),
                (self.base, "ggml_nbytes", ctypes.c_size_t, [pointer]),
                (self.base, "ggml_get_data", pointer, [pointer]),
                (self.cpu, "ggml_graph_compute_with_ctx", ctypes.c_int,
                 [pointer, pointer, ctypes.c_int])):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name[5:], function)

    def product(self, label, kind, rows, cols, tokens):
        memory = mmap.mmap(-1, rows * cols * 4 + tokens * (rows + cols) * 8 + (64 << 20))
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)  # as the engine's and numpy's arrays have it
        place = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        context = self.init(self.Params(len(memory), place, False))
        weights = self.new_tensor_2d(context, kind, cols, rows)
        x = self.new_tensor_2d(context, self.F32, cols, tokens)
        for tensor in (weights, x):
            ctypes.memset(self.get_data(tensor), 0x11, self.nbytes(tensor))
        y = self.mul_mat(context, weights, x)
        graph = self.new_graph(context)
        self.build_forward_expand(graph, y)
        seconds = best(lambda: self.graph_compute_with_ctx(context, graph, THREADS))
        name = f"ggml {label} x {tokens} rows, {rows} x {cols}"
        if tokens == 1:
            show(name, seconds, self.nbytes(weights), "GB/s")
        else:
            show(name, seconds, 2 * rows * cols * tokens, "GFLOP/s")
        self.free(context)


def ggml():
    try:
        engine = Ggml()
    except (ImportError, IndexError, OSError, AttributeError):
        print("ggml: not installed (pip package llama-cpp-python)")
        return
    for kind, label in ((engine.Q4_0, "q4_0"), (engine.Q4_1, "q4_1")):
        for rows, cols in ((16384, 8192), (2048, 2048)):
            engine.product(label, kind, rows, cols, 1)
        engine.product(label, kind, 4096, 4096, 512)
    engine.product("f32", engine.F32, 8192, 2048, 512)
    engine.product("bf16", engine.BF16, 8192, 2048, 512)


def openblas():
    try:
        import numpy
    except ImportError:
        print("OpenBLAS: not installed (pip package numpy)")
        return
    a, b = numpy.ones((512, 2048), numpy.float32), numpy.ones((8192, 2048), numpy.float32)
    show("OpenBLAS f32 b^T 512 x 8192 x 2048", best(lambda: a @ b.T), 2 * 512 * 8192 * 2048,
         "GFLOP/s")


def mlx():
    try:
        import mlx.core as mx
    except ImportError:
        print("MLX: not installed (pip package mlx[cpu])")
        return
    w = mx.random.normal((2048, 2048))
    for dtype, name in ((mx.float32, "f32"), (mx.bfloat16, "bf16")):
        packed = mx.quantize(w.astype(dtype), group_size=64, bits=4)
        x = mx.ones((1, 2048), dtype)
        mx.eval(packed, x)
        show(f"MLX q4/64 {name} x 1 rows, 2048 x 2048",
             best(lambda: mx.eval(mx.quantized_matmul(x, *packed))),
             sum(part.nbytes for part in packed), "GB/s")
    a, b = mx.ones((512, 2048)), mx.ones((8192, 2048))
    show("MLX f32 b^T 512 x 8192 x 2048", best(lambda: mx.eval(a @ b.T)), 2 * 512 * 8192 * 2048,
         "GFLOP/s")


if __name__ == "__main__":
    ggml()
    openblas()
    mlx()
