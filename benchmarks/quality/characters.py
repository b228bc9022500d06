"""Bits per character of a small language model, beside x-transformers and Hugging Face.

The help topics of Python, windows of 128 characters, 8 a batch, AdamW, width 128, 4 layers, 4
heads; every contender at several learning rates, each at its best. How fast they write is in
`benchmarks.speed.writing`.

    OMP_NUM_THREADS=1 python -m benchmarks.quality.characters

in an environment with x-transformers and transformers.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deepweave as dw
from benchmarks.harness import save

COMMAND = "OMP_NUM_THREADS=1 python -m benchmarks.quality.characters"
WIDTH, LAYERS, HEADS, CONTEXT, BATCH = 128, 4, 4, 128, 8
RATES = (1e-3, 2e-3, 3e-3)


class Logits(nn.Module):
    """A model of Hugging Face as one that gives logits."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(input_ids=x).logits


def makers(vocabulary: int) -> dict[str, Callable[[], nn.Module]]:
    """The same small model of each library, as its documentation makes it."""
    sizes = ((CONTEXT,), vocabulary, vocabulary)
    made: dict[str, Callable[[], nn.Module]] = {
        "deepweave": lambda: dw.nn.language_model(sizes, WIDTH, LAYERS, heads=HEADS)
    }
    kinds: Any = __import__("x_transformers")

    def flash(**options: Any) -> Callable[[], nn.Module]:
        return lambda: kinds.TransformerWrapper(
            num_tokens=vocabulary,
            max_seq_len=CONTEXT,
            attn_layers=kinds.Decoder(
                dim=WIDTH, depth=LAYERS, heads=HEADS, attn_dim_head=WIDTH // HEADS,
                attn_flash=True, rotary_pos_emb=True, **options,
            ),
        )  # fmt: skip

    made["x-transformers"] = flash()
    made["x-transformers, RMSNorm and SwiGLU"] = flash(use_rmsnorm=True, ff_glu=True, ff_swish=True)
    hub: Any = __import__("transformers")

    def gpt2() -> nn.Module:
        return Logits(hub.GPT2LMHeadModel(hub.GPT2Config(
            vocab_size=vocabulary, n_positions=512, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )))  # fmt: skip

    def llama() -> nn.Module:
        return Logits(hub.LlamaForCausalLM(hub.LlamaConfig(
            vocab_size=vocabulary, hidden_size=WIDTH, num_hidden_layers=LAYERS,
            num_attention_heads=HEADS, intermediate_size=4 * WIDTH * 2 // 3,
        )))  # fmt: skip

    made["Hugging Face, GPT-2"], made["Hugging Face, Llama"] = gpt2, llama
    return made


class Trial:
    """One model that learns, step by step, and the CPU seconds that it took."""

    def __init__(self, make: Callable[[], nn.Module], data: Any, lr: float, seed: int):
        torch.manual_seed(seed)
        self.model, self.data, self.seconds = make(), data, 0.0
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr)
        self.order = torch.Generator().manual_seed(seed)

    def step(self) -> None:
        x, y = self.data.train.x, self.data.train.y
        index = torch.randint(len(x), (BATCH,), generator=self.order)
        began = time.process_time()
        loss = F.cross_entropy(self.model(x[index]).flatten(0, 1), y[index].flatten())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.seconds += time.process_time() - began

    @torch.no_grad()
    def bits(self, split: Any) -> float:
        self.model.eval()
        loss = 0.0
        for x, y in zip(split.x.split(64), split.y.split(64)):
            loss += float(F.cross_entropy(self.model(x).flatten(0, 1), y.flatten())) * len(x)
        self.model.train()
        return loss / len(split.x) / math.log(2)


def learning(data: Any, steps: int, seeds: int) -> dict[str, dict[str, Any]]:
    """Bits per character after equal steps, and after the seconds that deepweave took.

    The learning rate of each is the one with the best validation of seed 0; the numbers are of
    the test part, over all seeds.
    """
    contenders = makers(data.spec.vocabulary)
    best = {}
    for name, make in contenders.items():
        found = {}
        for lr in RATES:
            trial = Trial(make, data, lr, 0)
            for _ in range(steps):
                trial.step()
            found[lr] = trial.bits(data.validation)
        best[name] = min(found, key=lambda lr: found[lr])
        print(name, {lr: round(value, 3) for lr, value in found.items()}, flush=True)
    results: dict[str, dict[str, Any]] = {}
    rows: dict[str, list[tuple[float, float, float, int]]] = {name: [] for name in contenders}
    for seed in range(seeds):
        trials = {n: Trial(make, data, best[n], seed) for n, make in contenders.items()}
        for _ in range(steps):  # side by side: the machine is equally busy for all
            for trial in trials.values():
                trial.step()
        limit = trials["deepweave"].seconds
        for name, trial in trials.items():
            equal, taken = trial.bits(data.test), trial.seconds
            again = Trial(contenders[name], data, best[name], seed)
            count = 0
            while again.seconds < limit * 0.995:
                again.step()
                count += 1
            rows[name].append((equal, again.bits(data.test), taken / steps, count))
        print(seed, {n: [round(v, 3) for v in r[-1]] for n, r in rows.items()}, flush=True)
    for name, found in rows.items():
        steps_, times, each, counts = zip(*found)
        results[name] = {
            "lr": best[name],
            "parameters": sum(w.numel() for w in contenders[name]().parameters()),
            "bits, equal steps": statistics.mean(steps_),
            "seeds, equal steps": [round(v, 4) for v in steps_],
            "bits, equal time": statistics.mean(times),
            "seeds, equal time": [round(v, 4) for v in times],
            "seconds a step": statistics.median(each),
            "step against deepweave": statistics.median(
                t / own[2] for t, own in zip(each, rows["deepweave"])
            ),
            "steps in the time": statistics.mean(counts),
        }
    return results


def measure(steps: int, seeds: int) -> Path:
    """Run everything and save benchmarks/results/characters.json."""
    torch.set_num_threads(1)
    data = dw.data.load("pydoc", context=CONTEXT)
    return save("characters", {"learning": learning(data, steps, seeds)}, command=COMMAND)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print(measure(options.steps, options.seeds))
