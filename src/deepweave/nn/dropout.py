"""Dropout whose rate is a tensor, so that each member of a Population may have its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Set a share of the entries to zero while training, and scale the rest to the same mean.

    y = m x / (1 - rate), each entry of m being 0 with probability rate, else 1; in evaluation
    y = x. The rate is a buffer: it is saved with the model, and networks that differ in it alone
    are members of one Population.

    Shapes: x (...) -> (...)

    Raises:
        ValueError: a rate outside [0, 1).

    Source: Srivastava et al., Dropout, 2014.

    >>> layer = Dropout(0.5)
    >>> sorted(set(layer(torch.ones(100)).tolist())), layer.eval()(torch.ones(2))
    ([0.0, 2.0], tensor([1., 1.]))
    """

    rate: Tensor

    def __init__(self, rate: float = 0.5):
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"Dropout: rate must lie in [0, 1), got {rate}")
        self.register_buffer("rate", torch.tensor(float(rate)))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        # in bf16 the draws would be rounded to eight bits, and a small rate be off by a fifth
        keep = 1 - self.rate.to(torch.promote_types(x.dtype, torch.float32))
        # floor(u + keep) is 1 with probability keep: in place, which a comparison cannot be
        return x * _noise(x, keep.dtype).add_(keep + 0.5).floor_().div_(keep).to(x.dtype)

    def extra_repr(self) -> str:
        return f"rate={self.rate.item():.3g}" if self.rate.dim() == 0 else "rate of each member"


def _noise(x: Tensor, kind: torch.dtype) -> Tensor:
    """Uniform numbers in [-1/2, 1/2), multiples of 2^-16, in the shape and memory layout of x.

    Four numbers are cut from each 64 random bits, which takes a third of the time of ``rand_like``
    on a CPU; another layout than x's would make every later pass over both slow.
    """
    order = sorted(range(x.dim()), key=lambda d: -x.stride(d))
    sizes = [x.shape[d] for d in order]
    words = torch.randint(-(2**63), 2**63 - 1, (-(-x.numel() // 4),), device=x.device)
    flat = words.view(torch.int16)[: x.numel()].to(kind).mul_(2.0**-16)
    back = [order.index(d) for d in range(x.dim())]
    return flat.view(sizes).permute(back)
