"""SAM: the loss not at the weights, but where it is worst nearby."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import grad

from deepweave.core import Batch, Logs, Objective
from deepweave.objectives.wrapper import Wrapper


class SAM(Wrapper):
    """Sharpness-aware minimisation of any objective: flat minima rather than deep ones.

    loss(w + rho g / |g|_2), g the slope at w; its own slope is taken as if the step to there were
    fixed. Twice the work of a plain step. rho is a buffer: each member of a Population may have
    its own. In evaluation, and without gradients, the loss is the bare one.

    Put it outside everything that changes the loss: ``SAM(Penalize(Classify(net), l2=1e-3))``.

    Args:
        objective: any objective.
        rho: the length of the step to the worst place, at least 0.

    Source: Foret, Kleiner, Mobahi & Neyshabur, Sharpness-aware minimization, 2021.

    >>> from torch import nn
    >>> from deepweave.objectives.supervised import Regress
    >>> batch = torch.ones(3, 2), torch.zeros(3)
    >>> inner = Regress(nn.Linear(2, 1))
    >>> bool(SAM(inner, 0.1)(batch)[0] > inner(batch)[0])
    True
    """

    rho: Tensor

    def __init__(self, objective: Objective, rho: float = 0.05):
        super().__init__(objective)
        if not 0 <= rho < float("inf"):
            raise ValueError(f"SAM: rho must be finite and not below 0, got {rho}")
        self.register_buffer("rho", torch.tensor(float(rho)))

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        if not (self.training and torch.is_grad_enabled()):
            return self.objective(batch)
        named = dict(self.objective.named_parameters())
        # under vmap none says that it learns, and all that is there does
        weights = {name: w for name, w in named.items() if w.requires_grad} or named
        still = {name: w for name, w in named.items() if name not in weights}
        buffers = dict(self.objective.named_buffers())

        def loss(moved: dict[str, Tensor]) -> tuple[Tensor, tuple[Logs, dict[str, Tensor]]]:
            return self.objective.at({**moved, **still}, buffers, batch)

        slopes, _ = grad(loss, has_aux=True)({name: w.detach() for name, w in weights.items()})
        length = torch.stack([slope.square().sum() for slope in slopes.values()]).sum().sqrt()
        tiny = torch.finfo(length.dtype).tiny
        step = self.rho.to(length.dtype) / length.clamp_min(tiny)
        worst = {name: w + (step * slopes[name]).to(w.dtype) for name, w in weights.items()}
        value, (logs, after) = loss(worst)
        for name, buffer in buffers.items():  # running statistics, moved on once
            buffer.copy_(after[name])
        return value, logs
