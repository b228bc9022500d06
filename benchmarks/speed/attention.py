"""Attention beside PyTorch's own and x-transformers', and long causal attention beside the formula.

Run from the root of the project, with one thread, in an environment that has x-transformers:

    OMP_NUM_THREADS=1 python -m benchmarks.speed.attention
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.harness import compare, elsewhere, highest, save
from deepweave.functional.attention import attend
from deepweave.functional.local import linear_attention, windowed
from deepweave.nn.attention import Attention

COMMAND = "OMP_NUM_THREADS=1 python -m benchmarks.speed.attention"
LENGTH = 4096


def layers(width: int = 256, heads: int = 8) -> dict[str, nn.Module]:
    """Causal self-attention with its projections, as each library makes it."""

    class Plain(nn.Module):
        """Two matrices and one call of PyTorch."""

        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(width, 3 * width, bias=False)
            self.out = nn.Linear(width, width, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.project(x).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.out(out.transpose(1, 2).flatten(2))

    class Torch(nn.Module):
        """nn.MultiheadAttention in its fast form."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.MultiheadAttention(width, heads, bias=False, batch_first=True)
            mask = nn.Transformer.generate_square_subsequent_mask(256)
            self.register_buffer("mask", mask)

        def forward(self, x: Tensor) -> Tensor:
            options: dict[str, Any] = {"attn_mask": self.mask, "is_causal": True}
            return self.layer(x, x, x, need_weights=False, **options)[0]

    made: dict[str, nn.Module] = {
        "deepweave": Attention(width, heads, causal=True),
        "torch, by hand": Plain(),
        "nn.MultiheadAttention": Torch(),
    }
    if find_spec("x_transformers"):
        kind: Any = __import__("x_transformers.x_transformers", fromlist=["Attention"]).Attention
        options = {"dim": width, "heads": heads, "dim_head": width // heads, "causal": True}

        class Flash(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = kind(**options, flash=True)

            def forward(self, x: Tensor) -> Tensor:
                found = self.layer(x)
                return found[0] if isinstance(found, tuple) else found

        made["x-transformers, flash"] = Flash()
    return made


def layer_speed(rounds: int) -> dict[str, Any]:
    """Batch 8, 256 tokens, width 256, 8 heads: a forward pass, and one with slopes."""
    x, made = torch.randn(8, 256, 256), layers()

    def train(layer: nn.Module) -> None:
        layer(x).sum().backward()

    def infer(layer: nn.Module) -> None:
        with torch.inference_mode():
            layer(x)

    found = {}
    for case, act in (("layer, training", train), ("layer, inference", infer)):
        calls = {name: partial(act, layer) for name, layer in made.items()}
        found[case] = compare(calls, rounds=rounds, repeats=3)
    return found


def naive(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The formula, as it is in most tutorials."""
    scores = q @ k.mT / q.shape[-1] ** 0.5
    mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v


CORES: dict[str, Callable[..., Tensor]] = {
    "the formula": naive,
    "torch, is_causal": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    "deepweave": lambda q, k, v: attend(q, k, v, causal=True),
    "deepweave, window of 256": lambda q, k, v: windowed(q, k, v, 256),
    "deepweave, linear": lambda q, k, v: linear_attention(q, k, v, causal=True),
}


def once(name: str) -> float:
    """Memory that one training step needs beyond its inputs, in MiB: in a process of its own."""
    torch.set_num_threads(1)
    small = [torch.randn(1, 4, 128, 64, requires_grad=True) for _ in range(3)]
    CORES[name](*small).sum().backward()
    qkv = [torch.randn(1, 4, LENGTH, 64, requires_grad=True) for _ in range(3)]
    before = highest()
    CORES[name](*qkv).sum().backward()
    return highest() - before


def core_speed(rounds: int) -> dict[str, Any]:
    """One sequence of 4,096 tokens, 4 heads of 64, training."""
    qkv = [torch.randn(1, 4, LENGTH, 64, requires_grad=True) for _ in range(3)]
    wanted = CORES["the formula"](*qkv)
    for name in ("torch, is_causal", "deepweave"):
        if not torch.allclose(CORES[name](*qkv), wanted, atol=1e-4):
            raise ValueError(f"{name} differs from the formula")

    def train(core: Callable[..., Tensor]) -> None:
        core(*qkv).sum().backward()

    found = compare({name: partial(train, core) for name, core in CORES.items()}, rounds=rounds)
    for name, row in found.items():
        row["mib"] = elsewhere(once, name)
    return {"causal, 4,096 tokens, training": found}


def measure(rounds: int) -> Path:
    """Run everything and save benchmarks/results/attention.json."""
    torch.set_num_threads(1)
    results = layer_speed(rounds) | core_speed(max(3, rounds // 3))
    for name, rows in results.items():
        print(name, {who: f"{row['ratio']:.2f}" for who, row in rows.items()})
    return save("attention", results, command=COMMAND)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    print(measure(parser.parse_args().rounds))
