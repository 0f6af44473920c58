"""The same work done by other engines, where they are installed: peers.py GGUF EMBEDDER TEXTS.

Prints one line a figure; says nothing about an engine that is missing.
"""
import statistics
import sys
import time

THREADS = 2


def llama_cpp(gguf, runs=5):
    try:
        import llama_cpp
    except ImportError:
        print("llama.cpp: not installed (pip package llama-cpp-python)")
        return
    model = llama_cpp.Llama(gguf, n_ctx=1024, n_threads=THREADS, n_threads_batch=THREADS,
                            n_batch=512, n_ubatch=512, verbose=False)
    prompt = [100 + i * 7919 % 20000 for i in range(512)]
    prefill, decode = [], []
    for _ in range(runs):
        model.reset()
        begun = time.perf_counter()
        model.eval(prompt)
        prefill.append(len(prompt) / (time.perf_counter() - begun))
        model.reset()
        model.eval(prompt[:8])
        begun = time.perf_counter()
        for i in range(128):
            model.eval([model.sample(temp=0.0)])
        decode.append(128 / (time.perf_counter() - begun))
    name = f"llama.cpp (llama-cpp-python {llama_cpp.__version__})"
    print(f"decode, {name}: {statistics.median(decode):.1f} tokens/s")
    print(f"prefill of 512, {name}: {statistics.median(prefill):.1f} tokens/s")


def torch_minilm(folder, texts):
    try:
        import torch
        from sentence_transformers import SentenceTransformer
    except ImportError:
        print("PyTorch: not installed (pip package sentence-transformers)")
        return
    torch.set_num_threads(THREADS)
    model = SentenceTransformer(folder, device="cpu")
    model.max_seq_length = 256
    with torch.inference_mode():
        model.encode(texts[:16], batch_size=16)
        begun = time.perf_counter()
        model.encode(texts, batch_size=32)
        seconds = time.perf_counter() - begun
    print(f"embedding, PyTorch {torch.__version__} (sentence-transformers): "
          f"{len(texts) / seconds:.1f} texts/s")


if __name__ == "__main__":
    llama_cpp(sys.argv[1])
    with open(sys.argv[3], encoding="utf-8") as lines:
        torch_minilm(sys.argv[2], [line.strip() for line in lines if line.strip()])
