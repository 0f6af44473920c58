#!/usr/bin/env python3
"""Folders exchanged with the real mlx-lm: what either side writes, the other loads.

    tests/parity/exchange.py PROGRAM FOLDER_OF_MODELS [NAME ...]

Converts each model folder with both programs and compares every tensor byte for
byte, config.json and the index; loads ours with mlx-lm and compares the logits.
Dequantising and fusing are not compared. Needs the packages mlx and mlx-lm; without them it
says so and ends well."""
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
    theirs = importlib.import_module("mlx_lm.convert")
    utils = importlib.import_module("mlx_lm.utils")
except ImportError as error:
    print(f"skipped: {error} (pip install mlx mlx-lm)")
    sys.exit(0)

mx.set_default_device(mx.cpu)

SETTINGS = [
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


class NoTokenizer:
    def save_pretrained(self, folder):
        pass


def load_untokenized(path, **arguments):
    model, config = utils.load_model(utils.Path(path), lazy=True)
    return model, NoTokenizer(), config


theirs.load = load_untokenized


def tensors(folder):
    found = {}
    for file in glob.glob(folder + "/model*.safetensors"):
        found.update(mx.load(file))
    return found


def differences(ours, other):
    a, b = tensors(ours), tensors(other)
    found = [f"only here: {k}" for k in sorted(a.keys() - b.keys())]
    found += [f"only there: {k}" for k in sorted(b.keys() - a.keys())]
    for key in sorted(a.keys() & b.keys()):
        if a[key].dtype != b[key].dtype or a[key].shape != b[key].shape:
            found.append(f"{key}: {a[key].dtype}{a[key].shape}, {b[key].dtype}{b[key].shape}")
        elif not mx.array_equal(a[key].view(mx.uint8), b[key].view(mx.uint8)).item():
            found.append(f"{key}: other bytes")
    for name in ["config.json", "model.safetensors.index.json"]:
        if open(f"{ours}/{name}").read() != open(f"{other}/{name}").read():
            found.append(f"{name} differs")
    return found


def logits(folder):
    model, _ = utils.load_model(utils.Path(folder))
    return model(mx.array([[1, 5, 9, 2, 7, 3]])).astype(mx.float32)


def main():
    program, root, names = sys.argv[1], sys.argv[2], sys.argv[3:]
    names = names or sorted(n for n in os.listdir(root) if os.path.isdir(f"{root}/{n}"))
    work = tempfile.mkdtemp()
    failed = compared = 0
    for name in names:
        for words in SETTINGS:
            ours, other = f"{work}/ours", f"{work}/theirs"
            for folder in (ours, other):
                shutil.rmtree(folder, ignore_errors=True)
            source = f"{root}/{name}"
            sys.argv = ["convert", "--hf-path", source, "--mlx-path", other, *words]
            stdout, sys.stdout = sys.stdout, open(os.devnull, "w")
            try:
                theirs.main()
                reason = None
            except Exception as error:  # mlx-lm cannot do this one
                reason = f"{type(error).__name__}: {str(error)[:80]}"
            sys.stdout = stdout
            if reason and not os.path.exists(f"{other}/config.json"):
                print(f"{name} {' '.join(words)}: mlx-lm fails ({reason})")
                break
            run = subprocess.run(
                [program, "convert", "--hf-path", source, "--mlx-path", ours, *words],
                capture_output=True,
                text=True,
            )
            found = [run.stderr.strip()] if run.returncode else differences(ours, other)
            if not found and words in ([], ["-q"]):
                if not mx.array_equal(logits(ours), logits(other)).item():
                    found = ["logits differ"]
            compared += 1
            if found:
                failed += 1
                print(f"{name} {' '.join(words)}: {len(found)} differences: {found[:3]}")
    shutil.rmtree(work)
    print(f"{compared} conversions compared, {failed} differ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
