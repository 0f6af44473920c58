"""mlx-data over what bench_data_streams measures: data_peer.py TEXT. Best of three.
Says so, and nothing else, where mlx-data is not installed."""

import importlib.metadata
import sys
import time

try:
    import mlx.data as dx
    import numpy as np
except ImportError:
    sys.exit("mlx-data is not installed for this Python (PYTHON names another)")

ROUNDS, SAMPLES, POOL = 3, 1 << 17, 4096


def best(make):
    seconds, count = 1e9, 0
    for _ in range(ROUNDS):
        stream = make()
        start = time.perf_counter()
        count = sum(1 for _ in stream)
        seconds = min(seconds, time.perf_counter() - start)
    return seconds, count


def drain_inside(make):
    """Samples a second without a Python object each: whole batches come out."""
    seconds = 1e9
    for _ in range(ROUNDS):
        stream = make()
        start = time.perf_counter()
        for _ in stream:
            pass
        seconds = min(seconds, time.perf_counter() - start)
    return SAMPLES / seconds


def lines(path):
    size = len(open(path, "rb").read())
    # Batches of many lines keep Python's share small; padding them is mlx-data's work.
    seconds, _ = best(lambda: dx.stream_line_reader(path, "line").batch(1024))
    print(f"mlx-data lines, batched by 1024   {size / seconds / 1e6:7.0f} MB/s")
    seconds, count = best(lambda: dx.stream_line_reader(path, "line"))
    print(f"mlx-data lines, one by one        {size / seconds / 1e6:7.0f} MB/s  {count / seconds / 1e6:.2f} M lines/s")


def samples():
    pool = [{"id": i, "ids": np.full(64, i, np.int32)} for i in range(POOL)]
    buffer = dx.buffer_from_vector(pool).perm([i % POOL for i in range(SAMPLES)])
    rate = drain_inside(lambda: buffer.to_stream().batch(32))
    print(f"mlx-data batched by 32            {rate / 1e6:7.2f} M samples/s")
    rate = drain_inside(lambda: buffer.to_stream().batch(1024))
    print(f"mlx-data batched by 1024          {rate / 1e6:7.2f} M samples/s")


def padding():
    rng = np.random.default_rng(1)
    sizes = rng.integers(64, 1025, 10000)
    buffer = dx.buffer_from_vector([{"ids": np.ones(n, np.int32)} for n in sizes])
    useful = sizes.sum()

    def share(batches):
        return 100 * (1 - useful / sum(b["ids"].size for b in batches))

    print(f"mlx-data padding: in order by 16 {share(buffer.to_stream().batch(16)):.1f} %", end="")
    if hasattr(buffer, "dynamic_batch"):
        print(f", all sorted {share(buffer.dynamic_batch('ids', max_data_size=16 * 1024).to_stream()):.2f} %", end="")
        print(f", windows of 500 {share(buffer.to_stream().dynamic_batch(500, 'ids', max_data_size=16 * 1024)):.2f} %")
    else:
        print(" (this version has no dynamic batches)")


print("mlx-data", importlib.metadata.version("mlx-data"))
lines(sys.argv[1])
samples()
padding()
