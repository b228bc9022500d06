"""Tokens a second of small language models that write with a cache, beside Hugging Face.

Width 128, 4 layers, 4 heads, 99 tokens: 200 more tokens after 8, drawn greedily or at random, of
one text or of eight at once. Each of Hugging Face's models is beside ours of the same shape:

- GPT-2: layer norm, GELU, 4 times as wide inside;
- Llama: RMS norm, SwiGLU, rotary positions.

Hugging Face is `model.generate` in three ways: as its documentation writes it, with a static
cache, and with the static cache and a compiled forward pass (`--compiled`: it takes minutes, and a
compiler for C++; the time to compile, half a minute, is not counted).

    OMP_NUM_THREADS=1 python -m benchmarks.speed.writing --compiled

in an environment with transformers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import deepweave as dw
from benchmarks import harness

WIDTH, LAYERS, HEADS, VOCABULARY, BEFORE, TOKENS = 128, 4, 4, 99, 8, 200
INNER = {"GPT-2": 4 * WIDTH, "Llama": 8 * WIDTH // 3}


def own(kind: str) -> Any:
    """Our model in the shape of one of theirs."""
    options = {"GPT-2": {}, "Llama": {"norm": "rms", "activation": "swiglu"}}[kind]
    return dw.nn.language_model(
        ((BEFORE,), VOCABULARY, VOCABULARY), WIDTH, LAYERS, heads=HEADS, hidden=INNER[kind],
        **options,
    ).eval()  # fmt: skip


def peer(kind: str) -> Any:
    """Hugging Face's model."""
    hub: Any = __import__("transformers")
    if kind == "GPT-2":
        config = hub.GPT2Config(
            vocab_size=VOCABULARY, n_positions=512, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
            bos_token_id=None, eos_token_id=None,
        )  # fmt: skip
        return hub.GPT2LMHeadModel(config).eval()
    config = hub.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, intermediate_size=INNER["Llama"],
    )  # fmt: skip
    return hub.LlamaForCausalLM(config).eval()


def contenders(kind: str, size: int, drawn: bool, compiled: bool) -> dict[str, Callable[[], Any]]:
    """Writers of 200 tokens of each of so many texts."""
    torch.manual_seed(0)
    prompt = torch.randint(4, VOCABULARY, (size, BEFORE))
    ours, theirs = own(kind), peer(kind)
    temperature = 1.0 if drawn else 0.0

    def generate(model: Any, **options: Any) -> Tensor:
        # top_k=0: of all tokens, as ours, not of the likeliest 50
        how = {"do_sample": True, "top_k": 0} if drawn else {"do_sample": False}
        found = model.generate(
            prompt, max_new_tokens=TOKENS, pad_token_id=0, eos_token_id=None, **how, **options
        )
        if found.shape != (size, BEFORE + TOKENS):
            raise ValueError(f"writing: Hugging Face wrote {tuple(found.shape)}")
        return found

    calls: dict[str, Callable[[], Any]] = {
        "deepweave": lambda: dw.nn.generate(
            ours, prompt, TOKENS, temperature=temperature, end=None
        ),
        "Hugging Face": lambda: generate(theirs),
        "Hugging Face, static cache": lambda: generate(theirs, cache_implementation="static"),
    }
    if compiled:
        torch._dynamo.reset()  # else the models of all sections share one limit of recompilations
        quick = peer(kind)
        quick.forward = torch.compile(quick.forward, fullgraph=True)
        calls["Hugging Face, static cache, compiled"] = lambda: generate(
            quick, cache_implementation="static"
        )
    return calls


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--only", default="", help="sections whose name holds this")
    parser.add_argument("--compiled", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for size in (1, 8):
        for kind in ("GPT-2", "Llama"):
            for drawn in (False, True):
                name = f"{kind}, {size} text{'s' * (size > 1)}, {'drawn' if drawn else 'greedy'}"
                if options.only not in name:
                    continue
                calls = contenders(kind, size, drawn, options.compiled)
                results[name] = harness.compare(calls, rounds=options.rounds, warmup=2)
                print(f"\n{name}\n{harness.table(results[name], 1e3, 'ms')}", flush=True)
    if not options.only:
        command = f"OMP_NUM_THREADS=1 python -m benchmarks.speed.writing --rounds {options.rounds}"
        command += " --compiled" * options.compiled
        print(harness.save("writing", results, command=command))


if __name__ == "__main__":
    main()
