#!/usr/bin/env python3
"""Seconds per training step of DeepGuard in PyTorch on the CPU. Prints one JSON object.

A step is one micro-batch: token statistics, the three forward passes, backward, and, on every
--accumulation-th step and the last, clipping, AdamW and the schedule. Untimed warm-up steps run
first, on the first batch, and leave parameters and statistics as they were.
"""
import argparse
import json
import os
import sys
import tempfile
import time

import torch

import deepguard_torch as dg


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True, help="Hugging Face model folder")
    p.add_argument("--data", required=True, help="JSONL file of pairs, or a folder of them")
    p.add_argument("--pairs-from", type=int, default=0, help="index of the first pair used")
    p.add_argument("--write-pairs", metavar="FILE", help="also write the pairs used, one line each, unchanged")
    p.add_argument("--batch", type=int, default=4)
    p.add_argument("--max-length", type=int, default=1024)
    p.add_argument("--steps", type=int, default=4, help="timed steps")
    p.add_argument("--warmup", type=int, default=1, help="untimed steps before them")
    p.add_argument("--accumulation", type=int, default=2)
    p.add_argument("--lr", type=float, default=2e-5)
    p.add_argument("--dropout", type=float, default=0.1)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--seed", type=int, default=42)
    p.add_argument("--official", metavar="DIR", help="time the published code in this checkout "
                   "(its own trainer loop) instead of our PyTorch version of it")
    own = p.add_argument_group("only without --official; not what the published code does")
    own.add_argument("--pad", choices=["max", "longest"], default="max",
                     help="pad to --max-length, or to the longest function of the batch")
    own.add_argument("--no-checkpointing", action="store_true", help="keep activations, recompute nothing")
    own.add_argument("--score-mean", choices=["all", "real"], default="all",
                     help="average scores over padding too (as published), or over real tokens only")
    a = p.parse_args()
    if a.batch < 1 or a.steps < 1 or a.warmup < 0 or a.accumulation < 1:
        p.error("--batch, --steps and --accumulation must be at least 1, --warmup at least 0")
    if a.official and (a.pad != "max" or a.no_checkpointing or a.score_mean != "all"):
        p.error("--pad, --no-checkpointing and --score-mean have no effect on the published code")
    return a


def encode(tokenizer, records, max_length, pad):
    batch = {}
    for side, field in (("secure", "func_src_after"), ("vulnerable", "func_src_before")):
        enc = tokenizer([r[field] for r in records], max_length=max_length, truncation=True,
                        padding="max_length" if pad == "max" else "longest", return_tensors="pt")
        batch[f"ids_{side}"], batch[f"mask_{side}"] = enc["input_ids"], enc["attention_mask"]
    return batch


def time_ours(a, records):
    from transformers import get_linear_schedule_with_warmup

    base, tokenizer = dg.load(a.model, a.seed)
    model = dg.DeepGuard(base, tokenizer.pad_token_id, dropout=a.dropout,
                         checkpointing=not a.no_checkpointing).train()
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=a.lr, weight_decay=0.01)
    updates = max(1, a.steps // a.accumulation)
    schedule = get_linear_schedule_with_warmup(optimizer, int(0.1 * updates), updates)
    batches = [encode(tokenizer, records[i:i + a.batch], a.max_length, a.pad)
               for i in range(0, len(records), a.batch)]
    for _ in range(a.warmup):
        model.losses(batches[0], a.score_mean)["total"].backward()
        optimizer.zero_grad()

    steps = []
    for i, batch in enumerate(batches):
        t = time.perf_counter()
        model.update_statistics(batch)
        losses = model.losses(batch, a.score_mean)
        forward = time.perf_counter()
        step = {k: v.item() for k, v in losses.items()}
        (losses["total"] / a.accumulation).backward()
        del losses
        if (i + 1) % a.accumulation == 0 or i + 1 == len(batches):
            step["grad_norm"] = torch.nn.utils.clip_grad_norm_(params, 1.0).item()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        now = time.perf_counter()
        steps.append({"seconds": now - t, "forward_seconds": forward - t, **step})
    return steps, batches


def time_official(a, records):
    import transformers

    if not hasattr(transformers, "AdamW"):  # imported there, never used
        transformers.AdamW = torch.optim.AdamW
    os.environ.setdefault("TQDM_DISABLE", "1")
    sys.path.insert(0, a.official)
    from deepguard.train import SecurityTrainer, set_seed

    set_seed(a.seed)
    with tempfile.TemporaryDirectory() as data:
        for mode, rows in (("train", records), ("val", records[:1])):
            os.mkdir(os.path.join(data, mode))
            with open(os.path.join(data, mode, f"{mode}.jsonl"), "w") as f:
                f.writelines(json.dumps({"func_name": "", **r}) + "\n" for r in rows)
        stdout, sys.stdout = sys.stdout, sys.stderr  # it prints; stdout is for the JSON
        trainer = SecurityTrainer(
            "model", a.model, data, learning_rate=a.lr, batch_size=a.batch, max_epochs=1,
            grad_acc_steps=a.accumulation, lora_dropout=a.dropout, max_length=a.max_length,
            use_kl_loss=True, aggregation_method="attention")
        sys.stdout = stdout
    model = trainer.model.train()
    for layer in model.security_analyzer.context_processor:
        if isinstance(layer, torch.nn.Dropout):
            layer.p = a.dropout
    batches = list(torch.utils.data.DataLoader(trainer.train_dataset, batch_size=a.batch, shuffle=False))
    assert len(batches) == a.steps, (len(batches), a.steps)
    for _ in range(a.warmup):
        model.compute_loss(batches[0])[0].backward()
        trainer.optimizer.zero_grad()

    steps, compute_loss = [], model.compute_loss

    def observed(batch):
        loss, terms = compute_loss(batch)
        steps[-1]["forward_seconds"] = time.perf_counter() - steps[-1]["start"]
        steps[-1].update(terms)
        return loss, terms

    class Timed:
        def __len__(self):
            return len(batches)

        def __iter__(self):
            for batch in batches:
                steps.append({"start": time.perf_counter()})
                yield batch
                steps[-1]["seconds"] = time.perf_counter() - steps[-1].pop("start")

    model.compute_loss, trainer.train_loader = observed, Timed()
    trainer.evaluate, trainer.save_checkpoint = lambda: 0.0, lambda *_, **__: None
    trainer.train()
    names = {f"{new}_{side}": f"{old}_{side}" for side in ("secure", "vulnerable")
             for new, old in (("ids", "input_ids"), ("mask", "attention_mask"))}
    return steps, [{new: b[old] for new, old in names.items()} for b in batches]


def main():
    a = arguments()
    pairs = dg.read_pairs(a.data, a.pairs_from, a.batch * a.steps)
    if a.write_pairs:
        with open(a.write_pairs, "w", encoding="utf-8", newline="\n") as f:
            f.writelines(text + "\n" for *_, text in pairs)
    result = {"implementation": "official" if a.official else "ours", "arguments": vars(a),
              "environment": dg.environment(a.threads), "gemm_gflops_before": dg.gemm_gflops()}
    records = [{k: v for k, v in json.loads(text).items() if k.startswith("func_")} for *_, text in pairs]
    steps, batches = (time_official if a.official else time_ours)(a, records)
    result["gemm_gflops_after"] = dg.gemm_gflops()

    used = []
    for step, batch in zip(steps, batches):
        sizes = [batch[f"mask_{side}"].sum(dim=1).tolist() for side in ("secure", "vulnerable")]
        step["real_tokens"] = sum(map(sum, sizes))
        step["padded_tokens"] = batch["ids_secure"].numel() + batch["ids_vulnerable"].numel()
        used += zip(*sizes)
    seconds = [s["seconds"] for s in steps]
    total = sum(seconds)
    result |= {
        "seconds_per_step": seconds, "mean_seconds": total / len(steps),
        "min_seconds": min(seconds), "max_seconds": max(seconds),
        "real_tokens_per_second": sum(s["real_tokens"] for s in steps) / total,
        "padded_tokens_per_second": sum(s["padded_tokens"] for s in steps) / total,
        "peak_rss_gb": dg.peak_rss_gb(), "steps": steps,
        "pairs": [{"index": i, "file": f, "line": n, "tokens_secure": s, "tokens_vulnerable": v}
                  for (i, f, n, _), (s, v) in zip(pairs, used)]}
    dg.emit(result)


if __name__ == "__main__":
    main()
