"""One training step of LoRA by other tools, where they are installed: train_peers.py MODEL torch|mlx.

The same work as bench_tune_step's case 135m: rank 8 on all linear layers, batch 4 x 256,
random tokens, Adam. Prints one line a figure; says nothing about a tool that is missing.
"""
import sys
import time

THREADS, ROWS, WIDTH, RANK = 2, 4, 256, 8


def torch_peft(folder, dtype_name, steps):
    try:
        import peft
        import torch
        import transformers
    except ImportError:
        return
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype_name))
    linear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = peft.get_peft_model(model, peft.LoraConfig(r=RANK, lora_alpha=160, target_modules=linear))
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=1e-5)
    ids = torch.randint(0, model.config.vocab_size, (ROWS, WIDTH))
    best = float("inf")
    for _ in range(steps):
        begun = time.perf_counter()
        logits = model(ids[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        best = min(best, time.perf_counter() - begun)
    print(f"PyTorch {torch.__version__} + PEFT {peft.__version__}, {dtype_name}: {best:.2f} s a step, "
          f"{ROWS * (WIDTH - 1) / best:.1f} tokens/s", flush=True)


def mlx_lm(folder, dtype_name, steps):
    try:
        import mlx.core as mx
        import mlx.nn as nn
        import mlx.optimizers as optimizers
        from mlx.utils import tree_map
        import mlx_lm
        from mlx_lm.tuner.trainer import default_loss
        from mlx_lm.tuner.utils import linear_to_lora_layers
        from mlx_lm.utils import load_model
    except ImportError:
        return
    from pathlib import Path
    mx.set_default_device(mx.cpu)
    model, _ = load_model(Path(folder))
    if dtype_name == "float32":
        model.update(tree_map(lambda p: p.astype(mx.float32), model.parameters()))
    model.freeze()
    linear_to_lora_layers(model, len(model.layers), {"rank": RANK, "scale": 20.0, "dropout": 0.0})
    optimizer = optimizers.Adam(learning_rate=1e-5)
    ids = mx.random.randint(0, model.args.vocab_size, (ROWS, WIDTH))
    lengths = mx.array([[0, WIDTH]] * ROWS)
    step = nn.value_and_grad(model, default_loss)
    best = float("inf")
    for _ in range(steps):
        begun = time.perf_counter()
        (loss, _), grads = step(model, ids, lengths)
        optimizer.update(model, grads)
        mx.eval(model.trainable_parameters(), optimizer.state, loss)
        best = min(best, time.perf_counter() - begun)
    print(f"mlx-lm {mlx_lm.__version__} (CPU), {dtype_name}: {best:.2f} s a step, "
          f"{ROWS * (WIDTH - 1) / best:.1f} tokens/s", flush=True)


if __name__ == "__main__":
    tool, steps = {"torch": (torch_peft, 3), "mlx": (mlx_lm, 1)}[sys.argv[2]]
    for dtype in "float32", "bfloat16":
        tool(sys.argv[1], dtype, steps)
