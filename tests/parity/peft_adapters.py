"""Makes tests/golden/peft: adapters of PEFT on tiny models, and the logits of both.

    python tests/parity/peft_adapters.py [MODELS] [OUTPUT]

MODELS holds the folders of tests/golden/hf, OUTPUT receives a folder for each adapter
(adapter_config.json, adapter_model.safetensors, golden.safetensors: `tokens`, `logits`).
Needs torch, transformers, peft and safetensors; written with peft 0.21.2, transformers 5."""
import os
import sys

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

here = os.path.dirname(os.path.abspath(__file__))
models = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "../golden/hf")
output = sys.argv[2] if len(sys.argv) > 2 else os.path.join(here, "../golden/peft")

# name: model, and what differs from a LoRA of rank 2 on all linear layers
CASES = {
    "gpt2-dora": ("gpt2", {"use_dora": True}),  # names under transformer.h, weights turned
    "llama-ranks": ("llama", {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {r"layers\.0\..*\.o_proj": 9},
                              "use_rslora": True}),
    "mixtral-experts": ("mixtral", {}),  # experts as one parameter, wrapped twice
}

for name, (model, more) in CASES.items():
    torch.manual_seed(7)
    base = AutoModelForCausalLM.from_pretrained(os.path.join(models, model), dtype=torch.float32)
    adapted = get_peft_model(base, LoraConfig(r=2, lora_alpha=6, target_modules="all-linear", **more))
    with torch.no_grad():
        for key, value in adapted.named_parameters():
            if "lora_B" in key:
                value.normal_(0, 0.05)
            if "magnitude" in key:
                value.mul_(1.1)
    folder = os.path.join(output, name)
    adapted.peft_config["default"].base_model_name_or_path = model
    adapted.save_pretrained(folder)
    tokens = torch.tensor([[5, 7, 9, 11, 3, 2, 8]])
    with torch.no_grad():
        logits = adapted.eval()(tokens).logits
    save_file({"tokens": tokens.int(), "logits": logits.float().contiguous()},
              os.path.join(folder, "golden.safetensors"))
    if os.path.exists(os.path.join(folder, "README.md")):
        os.remove(os.path.join(folder, "README.md"))
