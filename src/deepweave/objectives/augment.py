"""Changes of the inputs while training: transforms, noise, mixtures of samples."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deepweave import chance
from deepweave.core import Batch, Logs, Objective
from deepweave.functional import augment
from deepweave.functional.graph import Graph
from deepweave.functional.ragged import Padded
from deepweave.objectives.supervised import Supervised, unpack
from deepweave.objectives.wrapper import Wrapper

Target = tuple[Tensor, Tensor | None, Tensor]  # targets, weights, and their share of each sample


class Augment(Wrapper):
    """Any objective, its inputs changed at random while training.

    A batch is the inputs alone, or a tuple that begins with them; targets stay as they are, so a
    transform must keep what a sample means (a mirrored 2 is no 2). In evaluation nothing changes.

    Args:
        objective: any objective.
        transforms: functions (B, ...) -> (B, ...), one after the other, such as those of
            :mod:`deepweave.functional.augment`.

    Raises:
        TypeError: no transform, or one that is no function.
        ValueError: with the first batch: a transform cannot take it or changes its shape.

    >>> from torch import nn
    >>> from deepweave.objectives.supervised import Classify
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    >>> objective = Augment(Classify(net), augment.flip, lambda x: augment.shift(x, 1))
    >>> objective((torch.zeros(3, 1, 4, 4), torch.zeros(3).long()))[0].shape
    torch.Size([])
    """

    def __init__(self, objective: Objective, *transforms: Callable[[Tensor], Tensor]):
        super().__init__(objective)
        if not transforms or not all(callable(one) for one in transforms):
            raise TypeError("Augment: expected an objective and functions of a batch of inputs")
        if any(isinstance(one, torch.nn.Module) for one in transforms):
            self.transforms = torch.nn.ModuleList(map(_module, transforms))
        else:
            self.transforms = list(transforms)

    def change(self, x: Tensor) -> Tensor:
        """The inputs after all transforms."""
        for transform in self.transforms:
            x = transform(x)
        return x

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        if self.training:
            batch = _changed(batch, self.change)
        return self.objective(batch)

    def check(self, batch: Batch) -> None:
        x = _numbers(batch)
        try:
            with chance.aside(0), torch.no_grad():
                shape = self.change(x).shape
        except (RuntimeError, IndexError, AttributeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"Augment: a transform cannot take the inputs: {reason}") from None
        if shape != x.shape:
            raise ValueError(
                f"Augment: the transforms must keep {tuple(x.shape)}, got {tuple(shape)}"
            )
        super().check(batch)

    def extra_repr(self) -> str:
        if isinstance(self.transforms, torch.nn.ModuleList):
            return ""
        return ", ".join(getattr(one, "__name__", repr(one)) for one in self.transforms)


class _Function(torch.nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _module(transform: Any) -> torch.nn.Module:
    return transform if isinstance(transform, torch.nn.Module) else _Function(transform)


def _changed(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    if isinstance(batch, Padded):  # of sequences the real steps; what is beyond them stays zero
        values = change(batch.values)
        beyond = ~batch.mask.view(*batch.mask.shape, *[1] * (values.dim() - 2))
        return batch._replace(values=values.masked_fill(beyond, 0))
    if isinstance(batch, Graph):  # of graphs the features of nodes
        return batch._replace(x=change(batch.x))
    if isinstance(batch, tuple | list):
        return (_changed(batch[0], change), *batch[1:])
    return change(batch)


def _numbers(batch: Batch) -> Tensor:
    """What is changed in a batch: its inputs, of sequences their steps, of graphs their nodes."""
    if isinstance(batch, Padded):
        return batch.values
    if isinstance(batch, Graph):
        return batch.x
    return _numbers(batch[0]) if isinstance(batch, tuple | list) else batch


class Noise(Wrapper):
    """Any objective, with Gaussian noise on its inputs while training: x + std e.

    For small std and squared error it is a penalty on the slopes of the model (Tikhonov's). The
    standard deviation is a buffer: each member of a Population may have its own.

    Source: Bishop, Training with noise is equivalent to Tikhonov regularization, 1995.
    """

    std: Tensor

    def __init__(self, objective: Objective, std: float = 0.1):
        super().__init__(objective)
        if not 0 <= std < float("inf"):
            raise ValueError(f"Noise: std must be finite and not below 0, got {std}")
        self.register_buffer("std", torch.tensor(float(std)))

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        if self.training:
            batch = _changed(batch, lambda x: augment.noise(x, self.std.to(x.dtype)))
        return self.objective(batch)

    def check(self, batch: Batch) -> None:
        x = _numbers(batch)
        if not x.is_floating_point():
            raise ValueError(
                f"Noise: inputs must be numbers, got {x.dtype}; tokens are left out with "
                "Augment(objective, functional.forget)"
            )
        super().check(batch)


class Mixing(Wrapper):
    """What :class:`Mixup` and :class:`CutMix` share: samples mixed in pairs, losses mixed alike.

    With lam the share of the first sample of a pair, the loss is lam L(y) + (1 - lam) L(y'), on
    the losses per sample: the model is called once, and classes, labels, numbers and pixels all
    do. One mixing may stand in another; every other wrapper goes outside.

    Raises:
        TypeError: what is inside is neither a supervised objective nor another mixing.
    """

    def __init__(self, objective: Objective):
        super().__init__(objective)
        if not isinstance(objective, Supervised | Mixing):
            name, kind = type(self).__name__, type(objective).__name__
            hint = f": write {kind}({name}(...))" if isinstance(objective, Wrapper) else ""
            raise TypeError(
                f"{name}: needs a supervised objective directly inside, got {kind}{hint}"
            )

    @abstractmethod
    def mixed(self, x: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs mixed with those of their partners, and lam: (B, ...), (B,)."""

    def mix(self, x: Tensor, targets: list[Target]) -> tuple[Tensor, list[Target]]:
        """Mix inputs and targets with those of partners drawn at random."""
        index = torch.randperm(len(x), device=x.device)
        x, lam = self.mixed(x, x[index])
        both: list[Target] = []
        for y, weight, share in targets:
            both.append((y, weight, share * lam))
            other = None if weight is None else weight[index]
            both.append((y[index], other, share[index] * (1 - lam)))
        if isinstance(self.objective, Mixing):
            return self.objective.mix(x, both)
        return x, both

    def check(self, batch: Batch) -> None:
        x = unpack(batch, type(self).__name__)[0]
        if not isinstance(x, Tensor) or not x.is_floating_point():
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"{type(self).__name__}: inputs must be numbers of one shape (B, ...), got {kind}"
            )
        super().check(batch)

    def core(self) -> Supervised:
        """The supervised objective inside."""
        inner: Any = self.objective
        return inner.core() if isinstance(inner, Mixing) else inner

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        if not self.training:
            return self.objective(batch)
        core = self.core()
        x, y, weight = unpack(batch, type(self).__name__)
        x, targets = self.mix(x, [(y, weight, x.new_ones(len(x)))])
        output = core.model(x)
        total, norm = output.new_zeros(()), output.new_zeros(())
        for y, weight, share in targets:
            importance = core.importance(y, weight)
            share = share if importance is None else share * importance
            total = total + (share * core.losses(output, y)).sum()
            norm = norm + share.sum()
        return total / norm.clamp_min(torch.finfo(output.dtype).tiny), {}


def _alpha(alpha: float, name: str) -> Tensor:
    if not 0 < alpha < float("inf"):
        raise ValueError(f"{name}: alpha must be finite and above 0, got {alpha}")
    return torch.tensor(float(alpha))


class Mixup(Mixing):
    """Train on mixtures: x = lam x + (1 - lam) x', loss lam L(y) + (1 - lam) L(y').

    lam ~ Beta(alpha, alpha) for each sample. Small alpha: mostly one of the two; 1: uniform.
    alpha is a buffer: each member of a Population may have its own.

    Args:
        objective: a supervised objective, or another mixing.
        alpha: above 0.

    Source: Zhang, Cissé, Dauphin & Lopez-Paz, mixup: beyond empirical risk minimization, 2018.

    >>> from torch import nn
    >>> from deepweave.objectives.supervised import Classify
    >>> objective = Mixup(Classify(nn.Linear(3, 4)), 0.4)
    >>> objective((torch.randn(5, 3), torch.arange(5) % 4))[0].shape
    torch.Size([])
    """

    alpha: Tensor

    def __init__(self, objective: Objective, alpha: float = 0.2):
        super().__init__(objective)
        self.register_buffer("alpha", _alpha(alpha, "Mixup"))

    def mixed(self, x: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
        lam = augment.beta(self.alpha.to(x.dtype), x)
        return torch.lerp(partner, x, lam.view(-1, *[1] * (x.dim() - 1))), lam


class CutMix(Mixing):
    """Train on images with a box from another: the losses mixed by the share of pixels.

    The box has the share 1 - lam of the area, lam ~ Beta(alpha, alpha), and lam is then set to
    the share of pixels that really stayed, the box being cut at the edges.

    Shapes: x (B, C, H, W)
    Source: Yun et al., CutMix: regularization strategy to train strong classifiers, 2019.
    """

    alpha: Tensor

    def __init__(self, objective: Objective, alpha: float = 1.0):
        super().__init__(objective)
        self.register_buffer("alpha", _alpha(alpha, "CutMix"))

    def mixed(self, x: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
        taken = augment.box(x, 1 - augment.beta(self.alpha.to(x.dtype), x))
        share = taken.to(x.dtype).flatten(1).mean(1)
        return torch.where(taken, partner, x), 1 - share

    def check(self, batch: Batch) -> None:
        x = unpack(batch, "CutMix")[0]
        if not isinstance(x, Tensor) or x.dim() != 4:
            shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"CutMix: inputs must be images (B, C, H, W), got {shape}")
        super().check(batch)
