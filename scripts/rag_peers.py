"""FAISS over as many random unit vectors as bench_rag_search has: rag_peers.py CHUNKS.
Best of twenty questions, one at a time, all threads. Says so, and nothing else, where
FAISS is not installed."""

import os
import sys
import time

try:
    import faiss
    import numpy as np
except ImportError:
    sys.exit("FAISS is not installed for this Python (PYTHON names another)")

DIM, TOP, QUESTIONS = 384, 10, 20


def unit(rng, rows):
    vectors = rng.standard_normal((rows, DIM), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def ask(index, questions):
    """Milliseconds of the quickest, and the ids of each."""
    best, found = 1e9, []
    for question in questions:
        start = time.perf_counter()
        _, ids = index.search(question[None], TOP)
        best = min(best, time.perf_counter() - start)
        found.append(set(ids[0]))
    return best * 1e3, found


chunks = int(sys.argv[1])
faiss.omp_set_num_threads(len(os.sched_getaffinity(0)))
rng = np.random.default_rng(7)
questions = unit(rng, QUESTIONS)
flat = faiss.IndexFlatIP(DIM)
int8 = faiss.IndexScalarQuantizer(DIM, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
for first in range(0, chunks, 100000):
    rows = unit(rng, min(100000, chunks - first))
    if not first:
        int8.train(rows)
    flat.add(rows)
    int8.add(rows)
exact, wanted = ask(flat, questions)
rounded, got = ask(int8, questions)
recall = sum(len(a & b) for a, b in zip(wanted, got)) / (TOP * QUESTIONS)
print(f"FAISS {faiss.__version__}, flat float32  {exact:6.2f} ms")
print(f"FAISS {faiss.__version__}, flat 8 bits   {rounded:6.2f} ms, recall@10 {recall:.4f}")
