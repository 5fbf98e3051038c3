"""DeepGuard's published training step in plain PyTorch, for comparison with `dg-run`.

It keeps what makes the published step cost what it costs: three separate padded passes through
the language model (secure, vulnerable, secure without adapters), full logits of each, gradient
checkpointing, and a Python loop over tokens for the statistics. Parameter names are the ones
`dg-run` and PEFT save.
"""
import json
import math
import os
import resource
import time

import torch
import torch.nn.functional as F
from torch import nn

TARGETS = {"qwen2": ["q_proj", "v_proj"], "llama": ["q_proj", "k_proj", "v_proj", "o_proj"]}
EMBED = 128  # width of a token's security embedding


class Aggregator(nn.Module):
    """Attention over the taps of one token; the query comes from their mean."""

    def __init__(self, hidden):
        super().__init__()
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.output_proj = nn.Linear(hidden, hidden)

    def forward(self, taps):
        x = torch.stack(taps, dim=2)  # [batch, tokens, taps, hidden]
        q = self.query(x.mean(dim=2, keepdim=True))
        weight = torch.softmax(q @ self.key(x).transpose(-1, -2) / math.sqrt(x.shape[-1]), dim=-1)
        return self.output_proj((weight @ self.value(x)).squeeze(2))


class Analyzer(nn.Module):
    """A security score in (0, 1) per token, from the aggregated taps and the token itself."""

    def __init__(self, hidden, vocab, dropout):
        super().__init__()
        self.security_embeddings = nn.Embedding(vocab, EMBED)
        self.layer_aggregator = Aggregator(hidden)
        self.context_processor = nn.Sequential(
            nn.Linear(hidden + EMBED, 512), nn.LayerNorm(512), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(512, 256), nn.LayerNorm(256), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(256, 128), nn.ReLU(),
            nn.Linear(128, 1), nn.Sigmoid())
        nn.init.normal_(self.security_embeddings.weight, std=0.02)
        for layer in self.context_processor:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, taps, ids):
        x = torch.cat([self.layer_aggregator(taps), self.security_embeddings(ids)], dim=-1)
        return self.context_processor(x).squeeze(-1)


class DeepGuard(nn.Module):
    def __init__(self, base, pad, rank=16, alpha=32, dropout=0.1, taps=4, checkpointing=True):
        from peft import LoraConfig, get_peft_model

        super().__init__()
        config = base.config
        base.requires_grad_(False)
        if checkpointing:
            base.gradient_checkpointing_enable()
        config.use_cache = False
        self.pad, self.taps = pad, min(taps, config.num_hidden_layers)
        self.model = get_peft_model(base, LoraConfig(
            task_type="CAUSAL_LM", r=rank, lora_alpha=alpha, lora_dropout=dropout, bias="none",
            target_modules=TARGETS[config.model_type]))
        self.security_analyzer = Analyzer(config.hidden_size, config.vocab_size, dropout)
        self.register_buffer("token_security_stats", torch.zeros(config.vocab_size))

    def run(self, ids, mask, **kw):
        return self.model(input_ids=ids, attention_mask=mask, output_hidden_states=True, **kw)

    def scores(self, output, ids):
        return self.security_analyzer(list(output.hidden_states[-self.taps:]), ids)

    def losses(self, batch, score_mean="all"):
        """Every term of the joint loss; `total` is the one to differentiate.

        score_mean: "all" averages scores over padding too, as published; "real" leaves it out.
        """
        ids, mask = batch["ids_secure"], batch["mask_secure"]
        vids, vmask = batch["ids_vulnerable"], batch["mask_vulnerable"]
        real = ids != self.pad
        secure = self.run(ids, mask, labels=ids.masked_fill(~real, -100))
        with torch.no_grad():
            vulnerable = self.run(vids, vmask)
        s, v = self.scores(secure, ids), self.scores(vulnerable, vids)
        del vulnerable
        if score_mean == "all":
            gap = s.mean() - v.mean()
        else:
            gap = (s * mask).sum() / mask.sum() - (v * vmask).sum() / vmask.sum()
        security = F.relu(0.5 - gap)

        self.model.disable_adapter_layers()
        with torch.no_grad():
            p = F.softmax(self.model(input_ids=ids, attention_mask=mask).logits, dim=-1)
        self.model.enable_adapter_layers()
        q = F.softmax(secure.logits, dim=-1)
        per_token = torch.sum(p * (torch.log(p + 1e-8) - torch.log(q + 1e-8)), dim=-1)
        kl = ((per_token * real).sum() / real.sum()).clamp(max=1.0)
        total = secure.loss + 0.5 * security
        if kl > 0:
            total = total + kl
        return {"generation": secure.loss, "security": security, "kl": kl, "total": total}

    @torch.no_grad()
    def update_statistics(self, batch):
        for side, delta in (("ids_vulnerable", -0.01), ("ids_secure", 0.01)):
            for token in batch[side].flatten():
                if token != self.pad:
                    self.token_security_stats[token] += delta
        self.token_security_stats.clamp_(-1, 1)

    @torch.no_grad()
    def guidance(self, ids):
        """The logits processor of guided decoding for this prompt; costs one pass over it."""
        strength = 1 / self.scores(self.run(ids, torch.ones_like(ids)), ids).mean()
        stats = self.token_security_stats / (self.token_security_stats.abs().max() + 1e-8)
        bias, boost, start = stats * strength, stats.clamp(min=0), ids.shape[1]

        def process(generated, logits):
            position = generated.shape[1] - start
            return logits + bias + boost if position in (1, 2) else logits + bias

        return process


# ---- what both scripts need ----

def load(path, seed=42):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(path)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return AutoModelForCausalLM.from_pretrained(path, torch_dtype=torch.float32), tokenizer


def read_pairs(path, start, count):
    """Pairs [start, start + count) of one JSONL file, or of a folder's *.jsonl files sorted by
    name and put end to end. No shuffling, nothing dropped. -> [(index, file, line, text)]"""
    files = [path] if os.path.isfile(path) else [
        os.path.join(path, f) for f in sorted(os.listdir(path)) if f.endswith(".jsonl")]
    pairs = []
    for file in files:
        with open(file, encoding="utf-8", newline="\n") as f:
            for line, text in enumerate(f):
                pairs.append((len(pairs), os.path.basename(file), line, text.rstrip("\n")))
    if start < 0 or start + count > len(pairs):
        raise SystemExit(f"pairs [{start}, {start + count}) wanted, {path} has {len(pairs)}")
    return pairs[start:start + count]


def gemm_gflops():
    """Best of 20 of a (2048, 576) x (576, 1536) f32 product: how fast is the machine just now?"""
    a, b = torch.randn(2048, 576), torch.randn(576, 1536)
    best = math.inf
    for _ in range(20):
        t = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - t)
    return round(2 * 2048 * 576 * 1536 / best / 1e9, 1)


def environment(threads):
    import numpy
    import peft
    import transformers

    torch.set_num_threads(threads)
    keep = os.environ.get("MALLOC_MMAP_MAX_") == "0" and "MALLOC_TRIM_THRESHOLD_" in os.environ
    return {"torch": torch.__version__, "transformers": transformers.__version__,
            "peft": peft.__version__, "numpy": numpy.__version__,
            "threads": torch.get_num_threads(), "allocator": "keep" if keep else "default"}


def peak_rss_gb():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6 * 1.024, 3)


def emit(result):
    print(json.dumps(result, indent=1))
