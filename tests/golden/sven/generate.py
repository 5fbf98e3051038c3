"""Makes the golden cases of SVEN in this folder, by running the published trainer.

    git clone https://github.com/eth-sri/sven SVEN      (commit e8449a0)
    pip install torch transformers==4.41.2 numpy safetensors
    pip install lizard diff-match-patch libcst          (imported by the published code)
    python3 tests/golden/sven/generate.py SVEN

Theirs, imported and run as it is: the training loop (`TrainerBase.run`: accumulation, clipping, AdamW, learning
rate), the losses (`PrefixTrainer.step`, `get_logits_from_lm`, `token_weighted_loss`) and how prefixes become keys
and values (`get_past_from_prefix`). Ours: the classes that give Llama and Qwen2 prefixes of as many heads as their
keys have, which the published code has for CodeGen only; data, masks of dropout, and what is recorded.

Every number is computed in float32, as published, and in float64; the latter is stored, the difference noted.
"""

import argparse
import contextlib
import json
import logging
import platform
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file
from transformers import LlamaForCausalLM, Qwen2ForCausalLM

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "models"
CONTROLS = ["secure", "vulnerable"]
TERMS = ["cross_entropy", "contrast", "kl_own", "kl_other"]
MAX_TOKENS = 64
STEPS = 3

# The published loop clips after each of a step's two functions, our step once. In `llama` the first function is never
# clipped, while a step is, so that both are the same.
CASES = {
    "llama": {"model": "llama-tiny", "prefix": 3, "scale": 0.4, "seed": 15, "dropout": 0.0, "max_grad_norm": 2.0},
    "qwen2": {"model": "qwen2-tiny", "prefix": 5, "scale": 0.7, "seed": 2, "dropout": 0.0, "max_grad_norm": 1.0},
    "llama_dropout": {
        "model": "llama-tiny", "prefix": 4, "scale": 0.7, "seed": 3, "dropout": 0.1, "max_grad_norm": 1.0
    },
}


def published(folder):
    """The published package."""
    sys.path.insert(0, str(folder))
    import sven.model
    import sven.trainer

    return sven


# ---- dropout ----------------------------------------------------------------------------------------------------

def philox(seed, counter):
    """Philox4x32-10 of counters [4, n]."""
    mask = np.uint64(0xFFFFFFFF)
    c = [np.asarray(word, dtype=np.uint64) for word in counter]
    key = [np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32)]
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        high = np.uint64(32)
        c = [(p1 >> high) ^ c[1] ^ key[0], p1 & mask, (p0 >> high) ^ c[3] ^ key[1], p0 & mask]
        key = [(key[0] + np.uint64(0x9E3779B9)) & mask, (key[1] + np.uint64(0xBB67AE85)) & mask]
    return c


class KeyedDropout(torch.nn.Module):
    """Dropout of a layer's keys, then of its values, `[heads, rows, head_dim]`, by masks that follow from seed, step,
    function, control and layer."""

    def __init__(self, p, seed, prefix):
        super().__init__()
        self.threshold, self.seed, self.prefix = round(p * 65536), seed, prefix
        self.step = self.function = self.control = self.calls = 0

    def begin(self, control):
        self.control, self.calls = control, 0

    def forward(self, x):
        layer, is_value = divmod(self.calls, 2)
        self.calls += 1
        if self.threshold == 0 or not self.training:
            return x
        heads, rows, width = x.shape
        first = (2 * self.control + self.function) * (self.prefix + MAX_TOKENS)
        columns = np.arange(heads * width) + is_value * heads * width
        row, column = np.meshgrid(first + np.arange(rows), columns, indexing="ij")
        shape = np.ones_like(row)
        words = np.stack(philox(self.seed, [row, column // 8, layer * shape, self.step * shape]))
        place = column % 8
        word = np.take_along_axis(words, (place // 2)[None], axis=0)[0]
        bits = (word >> (16 * (place % 2)).astype(np.uint64)) & np.uint64(0xFFFF)
        kept = torch.from_numpy(bits >= np.uint64(self.threshold)).reshape(rows, heads, width).permute(1, 0, 2)
        return torch.where(kept, x * (65536 / (65536 - self.threshold)), torch.zeros_like(x))


# ---- models -----------------------------------------------------------------------------------------------------

def with_prefixes(base, get_past_from_prefix):
    """A model class with the published prefixes."""

    class PrefixLM(base):
        def set_prefixes(self, values, dropout):
            heads = self.config.num_key_value_heads
            width = self.config.hidden_size // self.config.num_attention_heads
            self.config.n_layer = self.config.num_hidden_layers
            self.prefix_params = torch.nn.ParameterList()
            dtype = next(self.parameters()).dtype
            for control in values:
                # Columns are (layer, key or value, head, element).
                parts = control.reshape(len(control), self.config.n_layer, 2, heads, width)
                for part in parts.transpose(1, 2, 3, 0, 4).reshape(-1, heads, len(control), width):
                    self.prefix_params.append(torch.nn.Parameter(torch.from_numpy(part.copy()).to(dtype)))
            self.dropout = dropout

        def get_past_from_prefix(self, control_ids):
            self.dropout.begin(int(control_ids[0]))
            return get_past_from_prefix(self, control_ids)

    return PrefixLM


def flattened(model, tensors):
    """What is like the prefixes as `{control: [rows, 2 * layers * kv_width]}`."""
    layers, found = model.config.n_layer, {}
    for i, name in enumerate(CONTROLS):
        own = tensors[i * 2 * layers:(i + 1) * 2 * layers]
        found[name] = torch.stack(list(own)).permute(2, 0, 1, 3).reshape(own[0].shape[1], -1).detach().double().numpy()
    return found


@contextlib.contextmanager
def precision(dtype):
    """In float64, the models' own casts to float32 have to be casts to float64."""
    if dtype == torch.float32:
        yield
        return
    float32, to_float = torch.float32, torch.Tensor.float
    torch.set_default_dtype(torch.float64)
    torch.float32, torch.Tensor.float = torch.float64, torch.Tensor.double
    try:
        yield
    finally:
        torch.float32, torch.Tensor.float = float32, to_float
        torch.set_default_dtype(torch.float32)


# ---- data -------------------------------------------------------------------------------------------------------

def pairs(rng):
    """Tokens and weights of the functions of three pairs: one with a few changes; one with a single changed token; one
    whose first token, which is no target, is changed, and whose vulnerable function is the shorter one."""
    found = []
    for secure, vulnerable, shared, marks in [
        (23, 31, 9, ([9, 10, 15], range(9, 20))),
        (17, 17, 16, ([16], [16])),
        (20, 11, 0, ([0, 3, 4, 5], [0, 1, 7])),
    ]:
        tokens = [rng.integers(1, 512, n) for n in (secure, vulnerable)]
        tokens[1][:shared] = tokens[0][:shared]
        for own, changed in zip(tokens, marks):
            weights = np.zeros(len(own), dtype=np.int64)
            weights[list(changed)] = 1
            found.append((own, weights))
    return found


def initial_prefixes(case, rng, width):
    return [case["scale"] * rng.uniform(-1, 1, (case["prefix"], width)).astype(np.float32) for _ in CONTROLS]


# ---- runs -------------------------------------------------------------------------------------------------------

class Recorder:
    """What the published loop does, seen from outside."""

    def __init__(self, sven, clip_between):
        self.sven, self.clip_between = sven, clip_between
        self.norms, self.rates, self.params, self.trainer = [], [], [], None

    @contextlib.contextmanager
    def watching(self):
        recorder, trainer, clip = self, self.sven.trainer, torch.nn.utils.clip_grad_norm_
        adamw, sampler = trainer.AdamW, trainer.RandomSampler

        class AdamW(adamw):
            def step(self, closure=None):
                recorder.rates.append(self.param_groups[0]["lr"])
                super().step(closure)
                model = recorder.trainer.model
                recorder.params.append(flattened(model, model.prefix_params))

        def clipped(parameters, max_norm):
            parameters = [p for p in parameters if p.grad is not None]
            norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(p.grad) for p in parameters]))
            recorder.norms.append(float(norm))
            if recorder.clip_between or len(recorder.norms) % 2 == 0:
                clip(parameters, max_norm)

        trainer.AdamW, torch.nn.utils.clip_grad_norm_ = AdamW, clipped
        # Functions in their order: a pair makes a step.
        trainer.RandomSampler = trainer.SequentialSampler
        try:
            yield
        finally:
            trainer.AdamW, torch.nn.utils.clip_grad_norm_, trainer.RandomSampler = adamw, clip, sampler


def trainer_of(sven, case, data, values, dtype):
    """The published trainer of a case."""
    base = {"llama": LlamaForCausalLM, "qwen2": Qwen2ForCausalLM}[case["model"].split("-")[0]]
    args = argparse.Namespace(
        logger=logging.getLogger("sven"), grad_acc_steps=2, num_train_epochs=1, weight_decay=0.01, learning_rate=1e-2,
        adam_epsilon=1e-8, warmup_steps=0, max_grad_norm=case["max_grad_norm"], logging_steps=0, save_epochs=1, seed=1, n_gpu=0, output_dir="",
        lm_loss_ratio=1, contrastive_loss_ratio=400, kl_loss_ratio=1600,
    )

    class Trainer(sven.trainer.PrefixTrainer):
        functions = 0
        terms = []

        def load_model(self):
            kind = with_prefixes(base, sven.model.CodeGenPrefixCausalLM.get_past_from_prefix)
            folder = MODELS / case["model"]
            config = base.config_class.from_pretrained(folder, attn_implementation="eager")
            self.model = kind(config).to(dtype)
            weights = {name: torch.from_numpy(value) for name, value in load_file(folder / "model.safetensors").items()}
            missing, unknown = self.model.load_state_dict(weights, strict=False)
            assert not unknown and missing in ([], ["lm_head.weight"])
            self.model.tie_weights()
            self.input_device = "cpu"
            self.model.set_prefixes(values, KeyedDropout(case["dropout"], case["seed"], case["prefix"]))
            for name, param in self.model.named_parameters():
                param.requires_grad = name.startswith("prefix_params")
            self.model.train()

        def load_dataset(self):
            self.dataset = self.val_dataset = [
                (torch.from_numpy(tokens), torch.from_numpy(weights), i % 2, 0)
                for i, (tokens, weights) in enumerate(data)
            ]

        def step(self, batch):
            """The published step, whose terms are noted before they are weighted."""
            dropout = self.model.dropout
            dropout.step, dropout.function = divmod(self.functions, 2)
            self.functions += 1
            self.terms = []
            of_term = sven.trainer.token_weighted_loss

            def noted(*arguments):
                # It is changed in place where it is used.
                value = of_term(*arguments)
                self.terms.append(value.item())
                return value

            sven.trainer.token_weighted_loss = noted
            try:
                return super().step(batch)
            finally:
                sven.trainer.token_weighted_loss = of_term

        def do_eval(self):
            return ""

        def save(self, *_):
            pass

    return Trainer(args)


def run(sven, case, data, values, dtype):
    """Losses and gradients of every function, and the training of all of them, in one precision."""
    with precision(dtype):
        functions = trainer_of(sven, case, data, values, dtype)
        functions.load_model()
        functions.load_dataset()
        losses, gradients = [], []
        for i, item in enumerate(functions.dataset):
            # As the first step would have it, whose number is that of its masks.
            functions.functions = i % 2
            functions.model.zero_grad()
            batch = next(iter(torch.utils.data.DataLoader([item])))
            loss, reported = functions.step(batch)
            loss.backward()
            losses.append(dict(zip(TERMS, functions.terms), total=reported["loss"]))
            gradients.append(flattened(functions.model, [p.grad for p in functions.model.prefix_params]))
        recorders = {}
        for name, clip_between in [("published", True), ("clipped_once", False)]:
            recorder = recorders[name] = Recorder(sven, clip_between)
            recorder.trainer = trainer_of(sven, case, data, values, dtype)
            with recorder.watching():
                recorder.trainer.run()
            assert len(recorder.params) == STEPS
    return {"losses": losses, "gradients": gradients, "runs": recorders}


def largest_difference(one, other):
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def make(sven, name, case):
    rng = np.random.default_rng(case["seed"])
    data = pairs(rng)
    config = json.loads((MODELS / case["model"] / "config.json").read_text())
    kv_width = config["hidden_size"] // config["num_attention_heads"] * config["num_key_value_heads"]
    values = initial_prefixes(case, rng, 2 * config["num_hidden_layers"] * kv_width)
    single, double = (run(sven, case, data, values, dtype) for dtype in (torch.float32, torch.float64))

    tensors = OrderedDict()
    for i, (tokens, weights) in enumerate(data):
        place = f"{i // 2}/{CONTROLS[i % 2]}"
        tensors[f"tokens/{place}"] = tokens.astype(np.int32)
        tensors[f"changed/{place}"] = weights.astype(np.int32)
        for control, gradient in double["gradients"][i].items():
            tensors[f"gradient/{place}/{control}"] = gradient.astype(np.float32)
    for control, value in zip(CONTROLS, values):
        tensors[f"prefix/{control}"] = value
        tensors[f"stepped/{control}"] = double["runs"]["clipped_once"].params[-1][control].astype(np.float32)
    save_file(tensors, HERE / f"{name}.safetensors")

    relative = []
    for one, other in zip(single["gradients"], double["gradients"]):
        relative += [np.abs(one[c] - other[c]).max() / np.abs(other[c]).max() for c in CONTROLS]
    terms = [abs(one[t] - other[t]) for one, other in zip(single["losses"], double["losses"]) for t in other]
    runs = double["runs"]
    once = runs["clipped_once"]
    case = {
        **case,
        "max_seq_len": MAX_TOKENS,
        "security_weight": 4.0,
        "kl_weight": 1.6,
        "weight_decay": 0.01,
        "losses": double["losses"],
        "learning_rates": once.rates,
        "grad_norms": once.norms[1::2],
        "published_norms": runs["published"].norms,
        "float32_from_float64": {
            "losses": max(terms),
            "gradients_relative_to_largest": float(max(relative)),
            "stepped": largest_difference(single["runs"]["clipped_once"].params[-1], once.params[-1]),
        },
        "stepped_from_published": largest_difference(once.params[-1], runs["published"].params[-1]),
        "made_with": {
            "sven": "e8449a0d54a5ae0bbdc6bb236330b8c7ec71df57",
            "python": platform.python_version(),
            **{module.__name__: module.__version__ for module in (torch, transformers, np)},
        },
    }
    assert name != "llama" or case["stepped_from_published"] == 0
    (HERE / f"{name}.json").write_text(json.dumps(case, indent=1) + "\n")
    shown = ("float32_from_float64", "stepped_from_published", "grad_norms", "published_norms")
    print(name, *(json.dumps(case[key]) for key in shown), sep="\n  ")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(1)
    sven = published(sys.argv[1])
    for name, case in CASES.items():
        make(sven, name, case)


if __name__ == "__main__":
    main()
