"""What every model must hold."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from deepweave import blueprint, chance
from deepweave.functional.graph import Graph, some_graphs
from deepweave.functional.ragged import Padded

TOLERANCE = 1e-5


def check_model(
    make: Callable[[], nn.Module], x: Any, *, independent: bool = True, build: bool = True
) -> None:
    """Check a model: gradient, batches, exact slopes, saving, seeds, vmap, blueprint.

    Args:
        make: draws a new model each time it is called.
        x: a batch of inputs, (B, ...), B at least 3; also Padded, or a Graph.
        independent: whether one sample's output must not depend on the others (evaluation mode).
        build: whether :func:`deepweave.blueprint.build` must make the model again.

    Raises:
        AssertionError: names the first check that fails.

    >>> check_model(lambda: nn.Linear(3, 2), torch.randn(4, 3), build=False)
    """
    model = stirred(make)
    reached(model, lambda: model(x))
    first, again = seeded(make), seeded(make)
    for name, value in first.state_dict().items():
        same = torch.equal(value, again.state_dict()[name])
        expect(same, f"the same seed must give the same {name}")
    model.eval()
    with torch.no_grad():
        whole = model(x)
    expect(bool(whole.isfinite().all()), "the outputs must be finite")
    if independent:
        with torch.no_grad():
            parts = torch.cat([model(part) for part in parted(x)])
        near(parts, whole, "a sample's output must not depend on the batch")
    reborn = stirred(make, seed=1).eval()
    reborn.load_state_dict(load(save({k: v.clone() for k, v in model.state_dict().items()})))
    with torch.no_grad():  # some kernels round differently where slopes are wanted
        found = reborn(x)
    near(found, whole, "saving and loading must keep the outputs", exact=True)
    if build:
        note = blueprint.describe(model)
        expect(note is not None, "the model must have a blueprint: mark its maker")
        other = blueprint.build(note or {}).eval()
        other.load_state_dict(model.state_dict())
        with torch.no_grad():
            found = other(x)
        near(found, whole, "the blueprint must build the same model", exact=True)
    _slopes(model, x)
    _vmaps(make, x)


def parted(x: Any) -> tuple[Any, Any]:
    """The first sample of a batch, and the others."""
    if isinstance(x, Graph):
        every = torch.arange(x.graphs)
        return some_graphs(x, every[:1]), some_graphs(x, every[1:])
    if isinstance(x, Padded):
        return Padded(x.values[:1], x.lengths[:1]), Padded(x.values[1:], x.lengths[1:])
    return x[:1], x[1:]


def seeded(make: Callable[[], Any], seed: int = 0) -> Any:
    """What ``make`` gives under a seed of its own."""
    with chance.aside(seed):
        return make()


def stirred(make: Callable[[], Any], seed: int = 0) -> Any:
    """The same with noise on every weight: no check passes just because a model starts at zero."""
    module = seeded(make, seed)
    with chance.aside(seed + 100), torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return module


def expect(holds: bool, message: str) -> None:
    """Raise AssertionError unless something holds."""
    if not holds:
        raise AssertionError(message)


def near(found: Tensor, expected: Tensor, message: str, *, exact: bool = False) -> None:
    """Raise AssertionError unless two tensors agree, to the bit or to rounding."""
    expect(found.shape == expected.shape, f"{message}: {found.shape} for {expected.shape}")
    if exact:
        expect(torch.equal(found, expected), message)
    found, expected = found.detach(), expected.detach()
    gap = float((found - expected).abs().max()) if found.numel() else 0.0
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    expect(gap <= TOLERANCE * scale, f"{message}: they differ by {gap:.2g}")


def reached(module: nn.Module, forward: Callable[[], Tensor]) -> None:
    """Every weight gets a finite slope that is not zero everywhere."""
    module.train()
    module.zero_grad()
    with chance.aside(0):
        output = forward()
        (output * torch.randn(output.shape)).sum().backward()
    for name, weight in module.named_parameters():
        if weight.requires_grad:
            expect(weight.grad is not None, f"no gradient reaches {name}")
            slope: Any = weight.grad
            expect(bool(slope.isfinite().all()), f"the gradient of {name} is not finite")
            expect(bool((slope != 0).any()), f"the gradient of {name} is zero everywhere")
    module.zero_grad()


def _slopes(model: nn.Module, x: Any) -> None:
    """The slopes of the inputs, exact in float64 against finite differences."""
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return
    fine = copy.deepcopy(model).double().eval()
    with chance.aside(0):
        point = (x[:2].double() + 0.01 * torch.randn(x[:2].shape)).requires_grad_()
    try:
        torch.autograd.gradcheck(fine, (point,), eps=1e-6, atol=1e-4, fast_mode=True)
    except RuntimeError as error:
        raise AssertionError(f"the slopes of the inputs are wrong: {error}") from None


def _vmaps(make: Callable[[], nn.Module], x: Any) -> None:
    """Two models at once give what each gives alone."""
    pair = [stirred(make, seed).eval() for seed in (1, 2)]
    weights, buffers = stack_module_state(pair)  # pyright: ignore[reportArgumentType]

    def one(w: Any, b: Any) -> Tensor:
        return functional_call(pair[0], (w, b), (x,))

    with torch.no_grad():
        both = vmap(one, randomness="different")(weights, buffers)
        alone = torch.stack([model(x) for model in pair])
    near(both, alone, "vmap over two models must equal the loop")
