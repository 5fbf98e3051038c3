#!/usr/bin/env python3
"""Decoding speed of `transformers` on the CPU, or (--check) its greedy tokens. Prints one JSON object.

Speed: a prompt of --prompt-tokens tokens, --new-tokens new ones with end-of-sequence disabled so
that all are produced, temperature 0.1, top-p 0.95 (and the default top-k of 50), for
num_return_sequences 1 and 10. Decode rates leave the prompt out: the time for one new token is
subtracted. Medians over --repeats; one untimed run of each first.
"""
import argparse
import json
import statistics
import time

import torch

import deepguard_torch as dg


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True, help="Hugging Face model folder")
    p.add_argument("--data", help="JSONL file or folder the prompt is cut from (speed only)")
    p.add_argument("--pairs-from", type=int, default=0, help="index of the first pair tried as the prompt")
    p.add_argument("--write-prompt", metavar="FILE", help="also write the prompt's text")
    p.add_argument("--prompt-tokens", type=int, default=200)
    p.add_argument("--new-tokens", type=int, default=64)
    p.add_argument("--sequences", type=int, nargs="+", default=[1, 10])
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--mode", choices=["plain", "lora", "guided"], default="plain",
                   help="the bare model, with unmerged adapters, or with DeepGuard's guidance on top")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--seed", type=int, default=42)
    check = p.add_argument_group("check")
    check.add_argument("--check", action="store_true", help="greedy tokens of the bare model for a prompt")
    prompt = check.add_mutually_exclusive_group()
    prompt.add_argument("--prompt")
    prompt.add_argument("--prompt-file")
    prompt.add_argument("--prompt-ids", type=int, nargs="+")
    a = p.parse_args()
    if a.check and a.prompt is None and a.prompt_file is None and a.prompt_ids is None:
        p.error("--check needs --prompt, --prompt-file or --prompt-ids")
    if not a.check and not a.data:
        p.error("--data is needed, or --check")
    if a.new_tokens < 2 or a.repeats < 1:
        p.error("--new-tokens must be at least 2, --repeats at least 1")
    return a


@torch.no_grad()
def greedy(model, ids, n):
    """Greedy tokens and, at each step, how far the best logit is above the second."""
    tokens, margins, cache, x = [], [], None, ids
    for _ in range(n):
        out = model(input_ids=x, past_key_values=cache, use_cache=True)
        top = out.logits[0, -1].topk(2)
        tokens.append(top.indices[0].item())
        margins.append((top.values[0] - top.values[1]).item())
        cache, x = out.past_key_values, top.indices[None, :1]
    return tokens, margins


def check(a, model, tokenizer):
    if a.prompt_ids:
        ids, text = a.prompt_ids, None
    else:
        text = a.prompt
        if text is None:
            with open(a.prompt_file, encoding="utf-8", newline="") as f:
                text = f.read()
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    tokens, margins = greedy(model, torch.tensor([ids]), a.new_tokens)
    dg.emit({"prompt": text, "prompt_ids": ids, "tokens": tokens, "text": tokenizer.decode(tokens),
             "top2_margins": margins, "min_top2_margin": min(margins)})


def choose_prompt(a, tokenizer):
    """The first secure function whose first --prompt-tokens tokens survive decoding and encoding."""
    start = a.pairs_from
    while True:
        (index, file, line, text), = dg.read_pairs(a.data, start, 1)
        code = json.loads(text)["func_src_after"]
        ids = tokenizer(code, add_special_tokens=False)["input_ids"][:a.prompt_tokens]
        prompt = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        if len(ids) == a.prompt_tokens and code.startswith(prompt) \
                and tokenizer(prompt, add_special_tokens=False)["input_ids"] == ids:
            return {"index": index, "file": file, "line": line, "ids": ids}, prompt
        start += 1


def main():
    a = arguments()
    environment = dg.environment(a.threads)
    base, tokenizer = dg.load(a.model, a.seed)
    if a.check:
        return check(a, base.eval(), tokenizer)

    source, prompt = choose_prompt(a, tokenizer)
    if a.write_prompt:
        with open(a.write_prompt, "w", encoding="utf-8", newline="") as f:
            f.write(prompt)
    from transformers import GenerationConfig, LogitsProcessorList

    guard = None if a.mode == "plain" else dg.DeepGuard(base, tokenizer.pad_token_id, checkpointing=False)
    model = (guard or base).eval()
    if a.mode == "guided":  # statistics as after training: their values do not change the cost
        model.token_security_stats.uniform_(-1, 1)
    ids = torch.tensor([source["ids"]])

    @torch.no_grad()
    def run(new_tokens, sequences):
        t = time.perf_counter()
        extra = {"logits_processor": LogitsProcessorList([guard.guidance(ids)])} if a.mode == "guided" else {}
        out = (guard.model if guard else base).generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), **extra,
            generation_config=GenerationConfig(
                do_sample=True, temperature=0.1, top_p=0.95, max_new_tokens=new_tokens,
                num_return_sequences=sequences, use_cache=True, eos_token_id=None,
                pad_token_id=tokenizer.pad_token_id))
        seconds = time.perf_counter() - t
        assert tuple(out.shape) == (sequences, ids.shape[1] + new_tokens), out.shape
        return seconds

    result = {"arguments": vars(a), "environment": environment, "prompt": source,
              "gemm_gflops_before": dg.gemm_gflops(), "runs": []}
    for n in a.sequences:
        run(2, n)
        first = [run(1, n) for _ in range(a.repeats)]
        whole = [run(a.new_tokens, n) for _ in range(a.repeats)]
        t1, t = statistics.median(first), statistics.median(whole)
        result["runs"].append({
            "sequences": n, "first_token_seconds": t1, "total_seconds": t,
            "decode_tokens_per_second": n * (a.new_tokens - 1) / (t - t1),
            "end_to_end_tokens_per_second": n * a.new_tokens / t,
            "first_token_seconds_each": first, "total_seconds_each": whole})
    result |= {"gemm_gflops_after": dg.gemm_gflops(), "peak_rss_gb": dg.peak_rss_gb()}
    dg.emit(result)


if __name__ == "__main__":
    main()
