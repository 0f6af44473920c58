#!/usr/bin/env python3
"""States of a training run and what PEFT makes of them in float64, for test_tune_step.

    tests/parity/lora_states.py FOLDER

Runs the twelve batches of FOLDER with SGD at rate 0.5, in float64, and writes
FOLDER/sgd_states.safetensors: the loss before each step (`losses`), and for steps 4, 8 and
11 the adapter rounded to float32 (`stepN.*`) with loss and gradient at just that state
(`stepN.loss`, `stepN.grad.*`). A run of its own in float32 cannot be held to its end: at
this rate each step multiplies rounding, and PEFT's float64 and float32 runs part by 2e-4.

Needs torch, transformers, peft and safetensors."""
import json
import sys

import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

RATE, KEPT = 0.5, (4, 8, 11)


def open_model(folder):
    with open(f"{folder}/config.json", encoding="utf-8") as text:
        config = LlamaConfig(**json.load(text))
    with open(f"{folder}/adapter_config.json", encoding="utf-8") as text:
        adapter = json.load(text)
    config._attn_implementation = "eager"
    model = LlamaForCausalLM(config)
    model.load_state_dict(load_file(f"{folder}/model.safetensors"))
    model = get_peft_model(model, LoraConfig(r=adapter["r"], lora_alpha=adapter["lora_alpha"],
                                             target_modules=adapter["target_modules"],
                                             task_type="CAUSAL_LM"))
    set_peft_model_state_dict(model, load_file(f"{folder}/adapter_init.safetensors"))
    return model.double()


def gradients(model, tokens, lengths):
    names, values = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad))
    logits = model(input_ids=tokens[:, :-1]).logits
    each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:],
                                             reduction="none")
    counted = torch.arange(1, tokens.shape[1])[None] < lengths[:, None]
    loss = (each * counted).sum() / counted.sum()
    return loss, dict(zip(names, values)), dict(zip(names, torch.autograd.grad(loss, values)))


def main(folder):
    model = open_model(folder)
    batches = load_file(f"{folder}/batches.safetensors")
    out, losses = {}, []
    for step, (tokens, lengths) in enumerate(zip(batches["tokens"].long(), batches["lengths"])):
        loss, values, grads = gradients(model, tokens, lengths)
        losses.append(loss.item())
        if step in KEPT:
            exact = {name: value.detach().clone() for name, value in values.items()}
            with torch.no_grad():
                for value in values.values():
                    value.copy_(value.float())
            loss, values, rounded = gradients(model, tokens, lengths)
            out[f"step{step}.loss"] = loss.detach().float().reshape(1)
            for name, value in values.items():
                out[f"step{step}.{name}"] = value.detach().float()
                out[f"step{step}.grad.{name}"] = rounded[name].float()
            with torch.no_grad():
                for name, value in values.items():
                    value.copy_(exact[name])
        with torch.no_grad():
            for name, value in values.items():
                value -= RATE * grads[name]
    out["losses"] = torch.tensor(losses, dtype=torch.float32)
    save_file(out, f"{folder}/sgd_states.safetensors")


main(sys.argv[1])
