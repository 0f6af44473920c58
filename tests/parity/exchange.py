#!/usr/bin/env python3
"""Folders exchanged with the real mlx-lm: what either side writes, the other loads.

    tests/parity/exchange.py PROGRAM FOLDER_OF_MODELS [--chat FOLDER] [NAME ...]

Converts, dequantises and fuses each model folder with both programs and compares every
tensor byte for byte, config.json and the index; loads ours with mlx-lm and compares the
logits. The same for models made here: mixtures of experts and latent attention in the
layout of mlx-lm, and weights as AWQ packs them. With --chat, a folder with a tokenizer,
prompt caches are exchanged, and a GGUF made of the folder comes back as it was and, where
the package llama-cpp-python is installed, continues there as here.

Needs the packages mlx and mlx-lm; without them it says so and ends well."""
import glob
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile

try:
    import mlx.core as mx
    from mlx.utils import tree_flatten

    converting = importlib.import_module("mlx_lm.convert")
    fusing = importlib.import_module("mlx_lm.fuse")
    utils = importlib.import_module("mlx_lm.utils")
except ImportError as error:
    print(f"skipped: {error} (pip install mlx mlx-lm)")
    sys.exit(0)

mx.set_default_device(mx.cpu)

CONVERT = [
    [],
    ["-q"],
    ["-q", "--q-bits", "2", "--q-group-size", "32"],
    ["-q", "--q-bits", "3", "--q-group-size", "64"],
    ["-q", "--q-bits", "5", "--q-group-size", "32"],
    ["-q", "--q-bits", "6", "--q-group-size", "64"],
    ["-q", "--q-bits", "8", "--q-group-size", "64"],
    ["-q", "--q-mode", "mxfp4"],
    ["-q", "--q-mode", "mxfp8"],
    ["-q", "--q-mode", "nvfp4"],
    ["-q", "--quant-predicate", "mixed_2_6"],
    ["-q", "--quant-predicate", "mixed_3_4", "--q-group-size", "32"],
    ["--dtype", "float16", "-q"],
]
# MLX 0.31 takes the nearest power of two for a group's scale in mxfp4 and mxfp8, and so do
# we; 0.32 takes the next larger, so its bytes are others.
if mx.quantize(mx.full((1, 32), 2.0), mode="mxfp4", group_size=32, bits=4)[1].item() != 125:
    CONVERT = [words for words in CONVERT if not " ".join(words).count("mxfp")]
    print(f"mlx {mx.__version__} scales mxfp4 and mxfp8 otherwise: not compared")
# Of a folder that is quantised first.
UNPACK = [["-q"], ["-q", "--q-mode", "nvfp4"]]
FUSE = [([], []), ([], ["--dequantize"]), (["-q"], []), (["-q"], ["--dequantize"])]

SIZES = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-5,
    "vocab_size": 320,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 128}
LATENT = {
    "kv_lora_rank": 64,
    "q_lora_rank": 64,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 64,
    "v_head_dim": 32,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "moe_intermediate_size": 128,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "routed_scaling_factor": 1.0,
    "topk_method": "noaux_tc",
    "n_group": 1,
    "topk_group": 1,
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
}
MADE = {
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": {**EXPERTS, "shared_expert_intermediate_size": 128, "decoder_sparse_step": 1},
    "qwen3_moe": {
        **EXPERTS,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "norm_topk_prob": True,
        "head_dim": 32,
    },
    "deepseek_v3": LATENT,
}


class NoTokenizer:
    def save_pretrained(self, folder):
        pass


def load_untokenized(path, *others, adapter_path=None, **arguments):
    model, config = utils.load_model(utils.Path(path), lazy=True)
    if adapter_path:
        model = utils.load_adapters(model, adapter_path)
    return model, NoTokenizer(), config


converting.load = fusing.load = load_untokenized


def run_theirs(module, words):
    """None, or why mlx-lm cannot do it."""
    stdout, sys.stdout = sys.stdout, open(os.devnull, "w")
    sys.argv = [module.__name__, *words]
    try:
        module.main()
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:80]}"
    finally:
        sys.stdout = stdout


def run_ours(program, words):
    run = subprocess.run([program, *words], capture_output=True, text=True)
    return run.stderr.strip() if run.returncode else None


def tensors(folder):
    found = {}
    for file in glob.glob(folder + "/model*.safetensors"):
        found.update(mx.load(file))
    return found


def data(array):
    return mx.atleast_1d(array).view(mx.uint8)


def differences(ours, other):
    a, b = tensors(ours), tensors(other)
    found = [f"only here: {k}" for k in sorted(a.keys() - b.keys())]
    found += [f"only there: {k}" for k in sorted(b.keys() - a.keys())]
    for key in sorted(a.keys() & b.keys()):
        if a[key].dtype != b[key].dtype or a[key].shape != b[key].shape:
            found.append(f"{key}: {a[key].dtype}{a[key].shape}, {b[key].dtype}{b[key].shape}")
        elif not mx.array_equal(data(a[key]), data(b[key])).item():
            found.append(f"{key}: other bytes")
    for name in ["config.json", "model.safetensors.index.json"]:
        if json.load(open(f"{ours}/{name}")) != json.load(open(f"{other}/{name}")):
            found.append(f"{name} differs")
    return found


def logits(folder):
    model, _ = utils.load_model(utils.Path(folder))
    values = model(mx.array([[1, 5, 9, 2, 7, 3]])).astype(mx.float32)
    mx.eval(values)
    return values


def loads(folder):
    try:
        utils.load_model(utils.Path(folder), lazy=True)
    except Exception:
        return False
    return True


def has_experts(folder):
    """MLX's CPU multiplies experts in float32 only, so bytes have to do."""
    return any("switch_mlp" in key or ".experts." in key for key in tensors(folder))


class Exchange:
    def __init__(self, program):
        self.program = program
        self.work = tempfile.mkdtemp()
        self.compared = self.failed = 0

    def fresh(self, name):
        folder = f"{self.work}/{name}"
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def tell(self, title, found):
        self.compared += 1
        if found:
            self.failed += 1
            print(f"{title}: {len(found)} differences: {found[:3]}")

    def both(self, title, module, words, target, with_logits=False):
        """One command with both programs; False when mlx-lm cannot."""
        ours, other = self.fresh("ours"), self.fresh("theirs")
        reason = run_theirs(module, words + [target, other])
        if reason and not os.path.exists(f"{other}/config.json"):
            print(f"{title}: mlx-lm fails ({reason})")
            return False
        if not loads(other):
            print(f"{title}: mlx-lm does not load what it wrote")
            return True
        command = module.__name__.rsplit(".", 1)[1]
        error = run_ours(self.program, [command, *words, target, ours])
        found = [error] if error else differences(ours, other)
        if with_logits and not found and not has_experts(other):
            try:
                expected = logits(other)
            except Exception as error:  # its own folder does not run
                print(f"{title}: mlx-lm cannot run it ({type(error).__name__})")
            else:
                if not mx.array_equal(logits(ours), expected).item():
                    found = ["logits differ"]
        self.tell(title, found)
        return True

    def convert(self, name, source, with_logits):
        for words in CONVERT:
            title = f"convert {name} {' '.join(words)}"
            show = with_logits and words in ([], ["-q"])
            if not self.both(
                title, converting, ["--hf-path", source, *words], "--mlx-path", show
            ):
                return
        for words in UNPACK:
            packed = self.fresh("packed")
            run_ours(
                self.program, ["convert", "--hf-path", source, "--mlx-path", packed, *words]
            )
            title = f"convert -d {name} {' '.join(words)}"
            self.both(title, converting, ["--hf-path", packed, "-d"], "--mlx-path")

    def fuse(self, name, source):
        """A LoRA adapter on the attention's q and v, where a model has them."""
        shapes = {}
        for key, array in tensors(source).items():
            if key.endswith(("self_attn.q_proj.weight", "self_attn.v_proj.weight")):
                shapes[key[: -len(".weight")]] = array.shape
        if not shapes:
            return
        adapter = self.fresh("adapter")
        os.makedirs(adapter)
        config = json.load(open(f"{source}/config.json"))
        parameters = {
            "rank": 4,
            "scale": 2.0,
            "dropout": 0.0,
            "keys": ["self_attn.q_proj", "self_attn.v_proj"],
        }
        json.dump(
            {
                "fine_tune_type": "lora",
                "num_layers": config["num_hidden_layers"],
                "lora_parameters": parameters,
            },
            open(f"{adapter}/adapter_config.json", "w"),
        )
        mx.random.seed(7)
        pairs = {}
        for path, (rows, columns) in sorted(shapes.items()):
            pairs[f"{path}.lora_a"] = mx.random.normal((columns, 4)) * 0.05
            pairs[f"{path}.lora_b"] = mx.random.normal((4, rows)) * 0.05
        mx.save_safetensors(f"{adapter}/adapters.safetensors", pairs)
        for first, words in FUSE:
            base = self.fresh("base")
            error = run_ours(
                self.program, ["convert", "--hf-path", source, "--mlx-path", base, *first]
            )
            title = f"fuse {name} {' '.join(first + words)}"
            if error:
                self.tell(title, [error])
                continue
            if not self.both(
                title, fusing, ["--model", base, "--adapter-path", adapter, *words], "--save-path"
            ):
                return

    # ---- models that are made here ------------------------------------------------------

    def made(self, model_type, sizes):
        config = {**SIZES, **sizes, "model_type": model_type}
        folder = self.fresh(f"made-{model_type}")
        os.makedirs(folder)
        model, arguments = utils._get_classes(config)
        mx.random.seed(3)
        weights = {
            key: (array + mx.random.normal(array.shape) * 0.02).astype(mx.bfloat16)
            for key, array in tree_flatten(model(arguments.from_dict(config)).parameters())
        }
        mx.save_safetensors(f"{folder}/model.safetensors", weights)
        json.dump(config, open(f"{folder}/config.json", "w"))
        return folder

    def awq(self):
        """A Llama whose projections are random codes in AutoAWQ's layout, groups of 32."""
        folder = self.made("llama", {"torch_dtype": "float16"})
        weights = {}
        for key, array in mx.load(f"{folder}/model.safetensors").items():
            if not key.endswith("_proj.weight"):
                weights[key] = array.astype(mx.float16)
                continue
            rows, columns = array.shape
            path = key[: -len(".weight")]
            for leaf, shape in [
                ("qweight", (columns, rows // 8)),
                ("qzeros", (columns // 32, rows // 8)),
            ]:
                words = mx.random.randint(-(2**31), 2**31 - 1, shape)
                weights[f"{path}.{leaf}"] = words.astype(mx.int32)
            scales = mx.random.uniform(0.001, 0.02, (columns // 32, rows))
            weights[f"{path}.scales"] = scales.astype(mx.float16)
        mx.eval(weights)  # they are read from the file that is written now
        mx.save_safetensors(f"{folder}/model.safetensors", weights)
        config = json.load(open(f"{folder}/config.json"))
        config["quantization_config"] = {"quant_method": "awq", "bits": 4, "group_size": 32}
        json.dump(config, open(f"{folder}/config.json", "w"))
        return folder

    # ---- a folder with a tokenizer -------------------------------------------------------

    def prompt_caches(self, folder):
        """A cache that one side made, the other goes on from to the same logits."""
        from mlx_lm.models.cache import load_prompt_cache

        prompting = importlib.import_module("mlx_lm.cache_prompt")
        # In float32, where both compute alike.
        source, folder = folder, self.fresh("wide")
        run_ours(
            self.program,
            ["convert", "--hf-path", source, "--mlx-path", folder, "--dtype", "float32"],
        )
        files = [f"{self.work}/{side}.safetensors" for side in ("ours", "theirs")]
        words = ["--model", folder, "--prompt", "The capital of France", "--prompt-cache-file"]
        found = [
            run_ours(self.program, ["cache-prompt", *words, files[0]]),
            run_theirs(prompting, words + [files[1]]),
        ]
        found = [error for error in found if error]
        if not found:
            ours, theirs = (load_prompt_cache(file) for file in files)
            for layer, (a, b) in enumerate(zip(ours, theirs)):
                for one, other in zip(a.state, b.state):
                    if not isinstance(one, mx.array):
                        if one != other:
                            found.append(f"layer {layer}: {one}, {other}")
                        continue
                    one = one[..., : a.offset, :].astype(mx.float32)
                    other = other[..., : b.offset, :].astype(mx.float32)
                    off = mx.abs(one - other).max().item() if one.shape == other.shape else None
                    if off is None or off > 1e-3 * mx.abs(other).max().item():
                        found.append(f"layer {layer}: {one.shape}, {other.shape}, off by {off}")
            texts = []
            for file in files:
                run = subprocess.run(
                    [self.program, "generate", "--prompt", " is", "--max-tokens", "12",
                     "--model", folder, "--prompt-cache-file", file, "--verbose", "false"],
                    capture_output=True, text=True,
                )  # fmt: skip
                texts.append(run.stdout if run.returncode == 0 else run.stderr)
            if texts[0] != texts[1]:
                found.append(f"goes on with {texts}")
        self.tell(f"prompt cache {source}", found)

    def gguf(self, folder):
        """There and back keeps the bytes; as float16, where llama.cpp does not round what
        it multiplies with, both continue alike."""
        file, back = f"{self.work}/model.gguf", self.fresh("back")
        export = ["model", "export", "--model", folder, "--output", file]
        convert = ["model", "convert", "--gguf", file, "--output", back]
        error = run_ours(self.program, export) or run_ours(self.program, convert)
        found = [error] if error else []
        first, second = tensors(folder), tensors(back)
        for key in sorted(first.keys() & second.keys()):
            a, b = first[key], second[key]
            if a.dtype == b.dtype and not mx.array_equal(data(a), data(b)).item():
                found.append(f"{key} comes back with other bytes")
        self.tell(f"gguf {folder}", found)
        try:
            from llama_cpp import Llama
        except ImportError as missing:
            print(f"llama.cpp skipped: {missing} (pip install llama-cpp-python)")
            return
        back = convert[-1] = self.fresh("back")
        error = run_ours(self.program, export + ["--type", "f16"])
        error = error or run_ours(self.program, convert)
        self.tell(f"gguf f16 {folder}", [error] if error else self.continuations(Llama, file, back))

    def continuations(self, llama, file, folder):
        model, found = llama(file, n_ctx=256, verbose=False), []
        for text in ["The capital of France is", "def fibonacci(n):\n", "Grüße aus München,"]:
            tokens = model.tokenize(text.encode(), special=True)
            theirs = []
            for token in model.generate(tokens, temp=0.0, top_k=1, repeat_penalty=1.0):
                theirs.append(token)
                if len(theirs) == 16:
                    break
            said = model.detokenize(theirs).decode(errors="replace").strip()
            words = ["tokenize", "--model", folder, "--json", "--file", "-", "--whole"]
            run = subprocess.run(
                [self.program, *words], capture_output=True, text=True, input=text
            )
            if json.loads(run.stdout)["ids"] != tokens:
                found.append(f"tokens {tokens} are {run.stdout}")
            words = ["generate", "--model", folder, "--prompt", "-", "--max-tokens", "16"]
            words += ["--ignore-chat-template", "--verbose", "false"]
            run = subprocess.run(
                [self.program, *words], capture_output=True, text=True, input=text
            )
            if run.stdout.strip() != said:
                found.append(f"llama.cpp says {said!r}, here it is {run.stdout!r}")
        return found


def main():
    words = sys.argv[1:]
    chat = None
    if "--chat" in words:
        at = words.index("--chat")
        chat = words[at + 1]
        del words[at : at + 2]
    program, root, names = os.path.abspath(words[0]), words[1], words[2:]
    everything = not names
    names = names or sorted(n for n in os.listdir(root) if os.path.isdir(f"{root}/{n}"))
    exchange = Exchange(program)
    for name in names:
        exchange.convert(name, f"{root}/{name}", True)
        exchange.fuse(name, f"{root}/{name}")
    if everything:
        for model_type, sizes in MADE.items():
            folder = exchange.made(model_type, sizes)
            exchange.convert(f"made {model_type}", folder, False)
        exchange.convert("made awq", exchange.awq(), False)
    if chat:
        exchange.prompt_caches(chat)
        exchange.gguf(chat)
    shutil.rmtree(exchange.work)
    print(f"{exchange.compared} compared, {exchange.failed} differ")
    return 1 if exchange.failed else 0


if __name__ == "__main__":
    sys.exit(main())
