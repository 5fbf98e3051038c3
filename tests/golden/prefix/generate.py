"""Makes what tests compare prefix tuning with: folders that PEFT writes, and logits that it computes.

    pip install torch transformers peft safetensors
    python3 tests/golden/prefix/generate.py

`by-peft/` has folders of random prefixes, written by PEFT: one trained as it is, and one trained through an encoder,
whose results PEFT writes. `by-dg-run/` has the secure control of `dg-run train --method sven` and is only read.
`logits.safetensors` has what PEFT computes behind each, read back from its folder.
"""

import json
from pathlib import Path

import peft
import torch
import transformers
from peft import PeftModel, PrefixTuningConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "models"
WRITTEN = {
    "by-peft/llama-tiny": {"num_virtual_tokens": 4},
    "by-peft/qwen2-tiny": {"num_virtual_tokens": 3, "prefix_projection": True, "encoder_hidden_size": 16},
}
# `TOKENS` of `tests/adapter.rs`.
TOKENS = [5, 77, 201, 3, 3, 150, 99, 280, 41]
READ = [*WRITTEN, "by-dg-run/llama-tiny"]


def base(folder):
    path = MODELS / Path(folder).name
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")


def write(folder, options):
    config = PrefixTuningConfig(task_type="CAUSAL_LM", **options)
    config.base_model_name_or_path = Path(folder).name
    model = get_peft_model(base(folder), config)
    # The path of the model is nobody's business.
    model.peft_config["default"].base_model_name_or_path = Path(folder).name
    model.save_pretrained(HERE / folder)
    (HERE / folder / "README.md").unlink(missing_ok=True)


def logits(folder):
    tokens = torch.tensor(TOKENS)
    model = PeftModel.from_pretrained(base(folder), HERE / folder).eval()
    with torch.no_grad():
        found, plain = (of(input_ids=tokens[None]).logits[0] for of in (model, model.get_base_model()))
    print(folder, "changes logits by", (found - plain).abs().max().item())
    return found.contiguous()


def main():
    torch.manual_seed(5)
    for folder, options in WRITTEN.items():
        write(folder, options)
    tensors = {folder: logits(folder) for folder in READ}
    versions = {module.__name__: module.__version__ for module in (torch, transformers, peft)}
    save_file(tensors, HERE / "logits.safetensors", metadata={"made_with": json.dumps(versions)})


if __name__ == "__main__":
    main()
