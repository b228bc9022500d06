"""What every bijection must hold."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.func import functional_call, jacrev, stack_module_state, vmap

from deepweave.testing.models import expect, near, reached, stirred


def check_bijection(
    make: Callable[[], nn.Module],
    x: Tensor,
    context: Tensor | None = None,
    *,
    fine: float = 1e-10,
    coarse: float = 1e-5,
) -> None:
    """Check a bijection: inverse, log-determinant, slopes, saving, batches, vmap.

    Args:
        make: draws a new bijection each time; ``bijection(x, context) -> (z, log_det)``, and
            ``inverse``.
        x: a batch of inputs, (B, ...), B at least 3.
        context: one for each, (B, C), if it takes one.
        fine: what an inverse may be off by in float64; exact ones meet 1e-10.
        coarse: the same in float32, for inputs of size 1.

    Raises:
        AssertionError: names the first check that fails.

    >>> from deepweave.nn import LUMixing
    >>> check_bijection(lambda: LUMixing(3), torch.randn(4, 3))
    """
    model = _begun(make, x, context)
    z, log_det = model(x, context)
    expect(log_det.shape == (len(x),), f"log_det must be ({len(x)},), got {tuple(log_det.shape)}")
    expect(z[0].numel() == x[0].numel(), "z must have as many numbers as x")
    expect(bool(z.isfinite().all() and log_det.isfinite().all()), "the outputs must be finite")
    if any(True for _ in model.parameters()):
        reached(model, lambda: _both(model, x, context))
    model.eval()
    z, log_det = model(x, context)
    _inverts(model, x, context, coarse, "float32")
    exact = copy.deepcopy(model).double()
    _inverts(exact, x.double(), _double(context), fine, "float64")
    _jacobians(exact, x.double(), _double(context), fine)
    parts = [
        model(x[i], None if context is None else context[i]) for i in (slice(1), slice(1, None))
    ]
    for i, whole in enumerate((z, log_det)):
        near(torch.cat([part[i] for part in parts]), whole, "a sample must not depend on the batch")
    other = stirred(make, seed=1).eval()
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    other.load_state_dict(load(save(kept)))
    with torch.no_grad():
        for found, wanted in zip(other(x, context), model(x, context)):
            near(found, wanted, "saving and loading must keep the outputs", exact=True)
    if model.state_dict():
        _vmaps(make, x, context)


def _begun(make: Callable[[], nn.Module], x: Tensor, context: Tensor | None, seed: int = 0) -> Any:
    """One with noise on its weights, that has seen a batch in training."""
    model = stirred(make, seed).train()
    with torch.no_grad():
        model(x, context)
    return model


def _double(context: Tensor | None) -> Tensor | None:
    return None if context is None else context.double()


def _both(model: nn.Module, x: Tensor, context: Tensor | None) -> Tensor:
    z, log_det = model(x, context)
    return torch.cat([z.flatten(1), log_det.unsqueeze(1)], 1)


def _inverts(model: Any, x: Tensor, context: Tensor | None, most: float, kind: str) -> None:
    """There and back; also where slopes are wanted, which may take another way."""
    z, there = model(x, context)
    for slopes in (False, True):
        with torch.set_grad_enabled(slopes):
            again, back = model.inverse(z.detach(), context)
        expect(again.shape == x.shape, f"the inverse must be {tuple(x.shape)}")
        gap = float((again - x).abs().max().detach())
        expect(gap <= most, f"the inverse is off by {gap:.2g} in {kind}, more than {most:.0e}")
        gap = float((there + back).abs().max().detach())
        limit = 20 * most * max(1.0, float(there.abs().max().detach()))
        expect(gap <= limit, f"log_det there and back do not add to 0 in {kind}: {gap:.2g}")


def _jacobians(model: Any, x: Tensor, context: Tensor | None, most: float) -> None:
    """log_det is that of autograd's Jacobian; that of the inverse is its inverse."""
    for i in range(min(2, len(x))):
        own = None if context is None else context[i : i + 1]

        def there(point: Tensor, own: Tensor | None = own) -> Tensor:
            return model(point[None], own)[0][0].flatten()

        def back(point: Tensor, own: Tensor | None = own) -> Tensor:
            return model.inverse(point[None], own)[0][0].flatten()

        size = x[i].numel()
        jacobian: Any = jacrev(there)(x[i])
        jacobian = jacobian.reshape(size, size)
        z, log_det = model(x[i : i + 1], own)
        gap = float((torch.linalg.slogdet(jacobian)[1] - log_det[0]).abs().detach())
        expect(gap <= 100 * most, f"log_det is not that of the Jacobian: they differ by {gap:.2g}")
        turned: Any = jacrev(back)(z[0].detach())
        product = turned.reshape(size, size) @ jacobian
        gap = float((product - torch.eye(size, dtype=x.dtype)).abs().max().detach())
        expect(gap <= 1e4 * most, f"the slopes of the inverse are wrong by {gap:.2g}")


def _vmaps(make: Callable[[], nn.Module], x: Tensor, context: Tensor | None) -> None:
    """Two at once give what each gives alone, both ways."""
    pair = [_begun(make, x, context, seed).eval() for seed in (1, 2)]
    stacked, buffers = stack_module_state(pair)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        z = pair[0](x, context)[0]

    for turned, point in ((False, x), (True, z)):

        def one(weights: Any, own: Any, turned: bool = turned, point: Tensor = point) -> Tensor:
            calls = (point, context, turned)
            return functional_call(_Turned(pair[0]), (_under(weights), _under(own)), calls)

        with torch.no_grad():
            both = vmap(one, randomness="different")(stacked, buffers)
            alone = torch.stack([_Turned(model)(point, context, turned) for model in pair])
        near(both, alone, "vmap over two bijections must equal the loop")


class _Turned(nn.Module):
    """Forward or inverse as a forward, so that ``functional_call`` reaches both."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, context: Tensor | None, turned: bool) -> Tensor:
        inner: Any = self.inner
        z, log_det = inner.inverse(x, context) if turned else inner(x, context)
        return torch.cat([z.flatten(1), log_det.unsqueeze(1)], 1)


def _under(weights: Any) -> dict[str, Tensor]:
    return {f"inner.{name}": value for name, value in weights.items()}
