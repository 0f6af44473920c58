#!/usr/bin/env python3
"""vdb.npz exchanged with NumPy, in the layout that mlx-RAG writes and reads.

    tests/parity/vdb.py PROGRAM

Writes banks with NumPy as mlx-RAG's writers do (int32 and int64, characters outside
the basic plane, empty chunks), takes them into an index, exports it again and reads the
result as a reader with running offsets does. Needs the package numpy; where mlx is
installed, mlx.core.load reads the file too."""
import json
import os
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError as error:
    print(f"skipped: {error} (pip install numpy)")
    sys.exit(0)
try:
    import mlx.core as mx
except ImportError:
    mx = None

CHUNKS = ["first", "𠀀 second 😀", "", "the fourth is longer than the others\nand has a line", "é"]
SOURCES = ["/docs/a.pdf", "/docs/a.pdf", "/docs/ü 😀.pdf", "/docs/ü 😀.pdf", "/docs/z.pdf"]


def encode(texts, dtype):
    points = [ord(c) for text in texts for c in text]
    return np.array(points, dtype), np.array([len(text) for text in texts], dtype)


def decode(data, lengths):
    ends = np.cumsum(lengths)
    return ["".join(map(chr, data[end - n:end])) for end, n in zip(ends, lengths)]


def run(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def exchange(program, folder, dtype, vectors_as):
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((len(CHUNKS), 48)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    arrays = {"embeddings": vectors.astype(vectors_as)}
    arrays["chunk_data"], arrays["chunk_lengths"] = encode(CHUNKS, dtype)
    arrays["source_data"], arrays["source_lengths"] = encode(SOURCES, dtype)
    if dtype is np.int64:
        extra = ['{"page": 3}'] * len(CHUNKS)
        arrays["metadata_data"], arrays["metadata_lengths"] = encode(extra, dtype)
    source, index, back = (os.path.join(folder, n) for n in ("in.npz", "x.db", "out.npz"))
    np.savez(source, **arrays)
    if os.path.exists(index):
        os.remove(index)
    run(program, "index", "import", source, "--index", index)
    run(program, "index", "verify", index)
    run(program, "index", "export", index, back)
    with np.load(back) as ours:
        assert ours["embeddings"].dtype == np.float32
        assert np.abs(ours["embeddings"] - vectors).max() < (1e-6 if vectors_as is np.float32 else 1e-3)
        assert decode(ours["chunk_data"], ours["chunk_lengths"]) == CHUNKS
        assert decode(ours["source_data"], ours["source_lengths"]) == SOURCES
        metadata = [json.loads(t) for t in decode(ours["metadata_data"], ours["metadata_lengths"])]
        assert all(m.get("page") == (3 if dtype is np.int64 else None) for m in metadata)
    if mx:
        assert decode(np.array(mx.load(back)["chunk_data"]), ours_lengths(back)) == CHUNKS
    with open(back + ".meta.json", encoding="utf-8") as file:
        meta = json.load(file)
    assert meta["document_names"] == ["a.pdf", "ü 😀.pdf", "z.pdf"] and meta["bank"] == "out"
    assert {"index_path", "source_root", "chunk_size", "chunk_overlap", "embedding_model",
            "created_at"} <= meta.keys()


def ours_lengths(path):
    return np.array(mx.load(path)["chunk_lengths"])


def main():
    program = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        for dtype in (np.int32, np.int64):
            for vectors_as in (np.float32, np.float16):
                exchange(program, folder, dtype, vectors_as)
    print("vdb.npz: int32 and int64, float32 and float16, there and back"
          + (", read by mlx" if mx else ""))


main()
