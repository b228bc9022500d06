"""How a signal goes forward through a network, and its slope back: layer by layer, as numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd


@dataclass(frozen=True)
class Signal:
    """What one layer with weights passes on, and what comes back to it.

    Attributes:
        layer: its name in the model.
        variance: of its outputs, over samples and units.
        gradient_variance: the mean square of the loss' slope in its outputs.
        weight_rank: the number of independent rows of its weights.
        unit_rank: the number of independent units among its outputs, over the batch.
        update_rank: the number of independent rows of the slope of its weights: what one step
            of gradient descent adds.
    """

    layer: str
    variance: float
    gradient_variance: float
    weight_rank: int
    unit_rank: int
    update_rank: int

    def to_json(self) -> dict[str, Any]:
        """The reading as plain values."""
        return asdict(self)


def rank(matrix: Tensor, *, tolerance: float = 1e-3) -> Tensor:
    """How many singular values exceed ``tolerance`` times the largest; 0 for a matrix of zeros.

    Rows that should be equal differ by rounding after some steps of training; this does not count
    it, as the rank to machine precision would.

    Shapes: matrix (..., R, C) -> (...) of int64

    >>> rank(torch.tensor([[1.0, 2.0], [2.0, 4.000001]]))
    tensor(1)
    """
    if matrix.dim() < 2:
        raise ValueError(f"rank: a matrix must be (..., R, C), got {tuple(matrix.shape)}")
    sizes = torch.linalg.svdvals(matrix.detach().double())
    # a gradient that has died out on its way is rounding all through, or exactly zero
    return (sizes > sizes[..., :1] * tolerance).sum(-1)


def signals(
    model: nn.Module,
    batch: Any,
    loss: Callable[[Any], Tensor] | None = None,
    *,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> list[Signal]:
    """Read a model's layers on one batch: variances forward and back, and ranks.

    The model is any module; its layers with weights of two and more dimensions are read in the
    order in which they are called, in the mode the model is in. Nothing is changed: not the
    weights, their ``grad``, the running statistics or the global random state.

    Args:
        model: any module, or an objective, which is its own loss.
        batch: what the model takes.
        loss: output -> scalar. Without it an output that is a scalar, or a tuple that begins
            with one, is the loss; for any other, slopes of variance 1 are sent back from the end.
        tolerance: of the ranks, see :func:`rank`.
        seed: of those slopes, and of what is random inside the model.

    Raises:
        ValueError: the model calls no layer with weights, or the loss is no scalar.

    >>> torch.manual_seed(0)
    <torch._C.Generator object at ...>
    >>> net = nn.Sequential(nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 3))
    >>> with torch.no_grad():
    ...     for weight in net.parameters():
    ...         _ = weight.zero_()
    >>> first, last = signals(net, torch.randn(32, 8))
    >>> first.variance, first.unit_rank, last.update_rank
    (0.0, 0, 1)
    """
    seen: list[tuple[str, nn.Module, Tensor]] = []
    slopes: dict[int, Tensor] = {}
    names = {module: name for name, module in model.named_modules()}

    def look(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            number = len(seen)
            seen.append((names[module], module, output.detach().clone()))
            # of the tensor as it is now, also where an activation then works in place
            output.register_hook(lambda slope: slopes.__setitem__(number, slope))

    layers = [m for m in model.modules() if _weight(m) is not None]
    handles = [layer.register_forward_hook(look) for layer in layers]
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        devices = list(range(torch.cuda.device_count()))
        with torch.random.fork_rng(devices), torch.enable_grad():
            torch.manual_seed(seed)
            scalar = _scalar(model(batch), loss)
        if not seen:
            raise ValueError("signals: the model calls no layer with weights that learn")
        weights: list[Any] = [_weight(module) for _, module, _ in seen]
        updates = torch.autograd.grad(scalar, weights, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)
    rows = []
    for number, (name, module, output) in enumerate(seen):
        slope, update = slopes.get(number), updates[number]
        rows.append(
            Signal(
                layer=name,
                variance=float(output.var(correction=0)),
                gradient_variance=0.0 if slope is None else float(slope.square().mean()),
                weight_rank=int(rank(weights[number].flatten(1), tolerance=tolerance)),
                unit_rank=int(rank(_units(module, output), tolerance=tolerance)),
                update_rank=0
                if update is None
                else int(rank(update.flatten(1), tolerance=tolerance)),
            )
        )
    return rows


def _weight(module: nn.Module) -> Tensor | None:
    """The first weight of a layer's own with two and more dimensions that learns."""
    own = module.parameters(recurse=False)
    return next((w for w in own if w.dim() > 1 and w.requires_grad), None)


def _units(module: nn.Module, output: Tensor) -> Tensor:
    """Outputs as (samples and places, units): a convolution's channels stand before its places."""
    if isinstance(module, _ConvNd):
        output = output.movedim(-1 - len(module.kernel_size), -1)
    return output.reshape(-1, output.shape[-1])


def _scalar(output: Any, loss: Callable[[Any], Tensor] | None) -> Tensor:
    if loss is not None:
        output = loss(output)
    if isinstance(output, tuple) and output and isinstance(output[0], Tensor):
        output = output[0]
    if isinstance(output, Tensor) and output.dim() == 0:
        return output
    if loss is not None or not isinstance(output, Tensor):
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"signals: the loss must be a scalar, got {found}")
    return (output * torch.randn_like(output)).sum()
