"""Dynamic routing beside the forms in which it is usually written, and inside a whole step.

Two families, whose slopes differ: couplings constant on the way back (the broadcast form, as in
XifengGuo's CapsNet), and slopes through all rounds (logits as large as the votes, as in gram-ai's
capsule-networks, here with the softmax over the right axis). Both forms are written anew from
their descriptions; ``einsum`` is the short way to write either.

Run from the root of the project, with one thread:

    OMP_NUM_THREADS=1 python -m benchmarks.speed.capsules
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import compare, elsewhere, highest, save
from deepweave.functional.routing import route, squash
from deepweave.nn.capsule import capsnet
from deepweave.objectives.capsule import MarginReconstruct

COMMAND = "OMP_NUM_THREADS=1 python -m benchmarks.speed.capsules"
BATCH, BELOW, SIZE, WHOLES, POSE = 32, 1152, 8, 10, 16


def shrink(s: Tensor) -> Tensor:
    """Squashing as it is mostly written."""
    norm = s.norm(dim=-1, keepdim=True)
    return norm**2 / (1 + norm**2) / (norm + 1e-8) * s


def broadcast(u: Tensor, weight: Tensor) -> Tensor:
    """Votes by a broadcast product of matrices; couplings constant on the way back."""
    votes = (weight.permute(0, 2, 3, 1) @ u[:, None, :, :, None]).squeeze(-1)  # (B, K, I, E)
    fixed = votes.detach()
    logits = u.new_zeros(votes.shape[:3])
    for number in range(3):
        c = logits.softmax(1).unsqueeze(-1)
        if number == 2:
            return shrink((c * votes).sum(2))
        v = shrink((c * fixed).sum(2, keepdim=True))
        logits = logits + (v * fixed).sum(-1)
    raise AssertionError


def large_logits(u: Tensor, weight: Tensor) -> Tensor:
    """A logit for every component of every vote; slopes through all rounds."""
    votes = u[None, :, :, None, :] @ weight.transpose(1, 2)[:, None]  # (K, B, I, 1, E)
    logits = torch.zeros_like(votes)
    for number in range(3):
        v = shrink((logits.softmax(0) * votes).sum(2, keepdim=True))
        if number == 2:
            return v[:, :, 0, 0].transpose(0, 1)
        logits = logits + (votes * v).sum(-1, keepdim=True)
    raise AssertionError


def einsum(u: Tensor, weight: Tensor, full: bool) -> Tensor:
    """The formulas as they stand, in either family."""
    votes = torch.einsum("bid,kdie->bike", u, weight)
    seen = votes if full else votes.detach()
    logits = u.new_zeros(votes.shape[:3])
    for number in range(3):
        c = logits.softmax(2)
        if number == 2:
            return shrink(torch.einsum("bik,bike->bke", c, votes))
        v = shrink(torch.einsum("bik,bike->bke", c, seen))
        logits = logits + torch.einsum("bike,bke->bik", seen, v)
    raise AssertionError


Form = Callable[[Tensor, Tensor], Tensor]
FAMILIES: dict[str, dict[str, Form]] = {
    "detached": {
        "deepweave": route,
        "einsum": partial(einsum, full=False),
        "broadcast product (XifengGuo's form)": broadcast,
    },
    "full": {
        "deepweave": partial(route, gradient="full"),
        "einsum": partial(einsum, full=True),
        "logits as large as the votes (gram-ai's form)": large_logits,
    },
}


def inputs(batch: int = BATCH, below: int = BELOW) -> tuple[Tensor, Tensor]:
    """Capsules and weights; for the peers' forms their own layout is as good or better."""
    torch.manual_seed(0)
    u = squash(torch.randn(batch, below, SIZE)).requires_grad_()
    return u, (0.1 * torch.randn(WHOLES, SIZE, below, POSE)).requires_grad_()


def train(form: Form, u: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """The way there and back, towards fixed slopes."""
    v = form(u, weight)
    return torch.autograd.grad(v, (u, weight), torch.ones_like(v))


def laid_out(name: str, weight: Tensor) -> Tensor:
    """The weights as each form likes them best, seen through the same indices."""
    order, back = (0, 1, 2, 3), (0, 1, 2, 3)
    if name.startswith("broadcast"):  # (K, I, E, D) in memory
        order, back = (0, 2, 3, 1), (0, 3, 1, 2)
    elif name.startswith("logits"):  # (K, I, D, E)
        order, back = (0, 2, 1, 3), (0, 2, 1, 3)
    return weight.detach().permute(order).contiguous().permute(back).requires_grad_()


def once(family: str, name: str) -> float:
    """Memory that one training step needs beyond its inputs, in MiB: in a process of its own."""
    torch.set_num_threads(1)
    form = FAMILIES[family][name]
    small = inputs(2, 16)
    train(form, *small)
    u, weight = inputs()
    weight = laid_out(name, weight)
    before = highest()
    train(form, u, weight)
    return highest() - before


def routing_speed(rounds: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Times of both families, all forms held equal first; and their memory."""
    u, weight = inputs()
    times, mib = {}, {}
    for family, forms in FAMILIES.items():
        wanted = train(forms["deepweave"], u, weight)
        calls, own = {}, {}
        for name, form in forms.items():
            calls[name] = partial(train, form, u, laid_out(name, weight))
            for one, other in zip(calls[name](), wanted):
                if not torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max())):
                    raise ValueError(f"{family}, {name}: other slopes")
            own[name] = {"MiB": round(elsewhere(once, family, name), 1)}
        times[f"{family}, training"] = compare(calls, rounds=rounds)
        mib[f"{family}, MiB"] = own
    return times, mib


class Broadcast(nn.Module):
    """A capsule layer of the broadcast form, with the weights of another."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight.detach().permute(0, 2, 3, 1).contiguous())

    def forward(self, u: Tensor) -> Tensor:
        return broadcast(u, self.weight.permute(0, 3, 1, 2))


def step_speed(rounds: int) -> dict[str, Any]:
    """A whole step on 28 x 28 images, batch 64: the recipe's net for MNIST."""
    x, y = torch.rand(64, 1, 28, 28), torch.arange(64) % 10
    calls: dict[str, Any] = {}
    for name in ("deepweave", "broadcast product (XifengGuo's form)"):
        torch.manual_seed(0)
        net = capsnet(((1, 28, 28), 10), (32, 64), norm="batch", decoder=(256, 512))
        if name != "deepweave":
            layer: Any = net.capsules
            net.capsules = Broadcast(layer.weight)
        objective = MarginReconstruct(net)
        optimizer = torch.optim.AdamW(objective.parameters(), fused=True)

        def step(objective: nn.Module = objective, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad()
            objective((x, y))[0].backward()
            optimizer.step()

        calls[name] = step
    return compare(calls, rounds=rounds)


def measure(rounds: int) -> Path:
    """Run everything and save benchmarks/results/capsules.json."""
    torch.set_num_threads(1)
    times, mib = routing_speed(rounds)
    results = {**times, "a whole step": step_speed(rounds), "memory": mib}
    for name in times | {"a whole step": None}:
        rows = results[name]
        print(name, {who: f"{r['seconds']:.3f} s {r['ratio']:.2f}" for who, r in rows.items()})
    print(mib)
    return save("capsules", results, command=COMMAND)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    print(measure(parser.parse_args().rounds))
