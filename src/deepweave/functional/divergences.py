"""How far one distribution over classes is from another.

The prediction is logits, or log-probabilities, which a softmax leaves as they are: of
probabilities q give ``q.log()``. Where p is 0 a term is 0 (0 log 0 = 0); where p is above 0 and q
is 0 the divergence is infinite (p must be absolutely continuous with respect to q).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepweave.functional.reduction import expect, fits, looking, reduced, shares


def kl_divergence(
    logits: Tensor,
    target: Tensor,
    *,
    from_logits: bool = False,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """KL(p || q) = sum_k p_k (log p_k - log q_k), of the target p from the prediction q, in nats.

    It is cross-entropy minus the entropy of p: the same slopes, but 0 at its least.

    Args:
        logits: of q, or its log-probabilities.
        target: the probabilities p, or with ``from_logits`` p's logits or log-probabilities.

    Shapes: logits, target (B, K, ...), weight (B,), mask (B, ...) -> (B,), or ()
    Raises:
        ValueError: p is no distribution over its K classes, shapes that do not fit.
    Source: Kullback & Leibler, On information and sufficiency, 1951.

    >>> kl_divergence(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[1.0, 0.0]])).exp()
    tensor([2.])
    >>> kl_divergence(torch.tensor([[0.0, 1.0]]).log(), torch.tensor([[0.5, 0.5]]))
    tensor([inf])
    """
    target, mask = _grids("kl_divergence", logits, target, mask, from_logits)
    q = logits.log_softmax(1)
    if from_logits:
        other = target.log_softmax(1)
        loss = _weighed(other.exp(), other, q)
    else:
        p = target.to(logits.dtype)
        loss = torch.xlogy(p, p) - p * q.masked_fill(p == 0, 0)
    return reduced("kl_divergence", loss.sum(1), weight, mask, reduction)


def jensen_shannon(
    logits: Tensor,
    target: Tensor,
    *,
    from_logits: bool = False,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """[KL(p || m) + KL(q || m)] / 2 with m = (p + q) / 2: symmetric, between 0 and log 2.

    Finite whatever p and q are; its square root is a metric.

    Shapes and arguments: as for :func:`kl_divergence`
    Source: Lin, Divergence measures based on the Shannon entropy, 1991.

    >>> jensen_shannon(torch.tensor([[1.0, 0.0]]).log(), torch.tensor([[0.0, 1.0]])).exp()
    tensor([2.])
    """
    target, mask = _grids("jensen_shannon", logits, target, mask, from_logits)
    q = logits.log_softmax(1)
    p = target.log_softmax(1) if from_logits else target.to(logits.dtype).log()
    nowhere = (p == -torch.inf) & (q == -torch.inf)
    p, q = p.masked_fill(nowhere, 0), q.masked_fill(nowhere, 0)
    middle = torch.logaddexp(p, q) - math.log(2)
    loss = (_weighed(p.exp(), p, middle) + _weighed(q.exp(), q, middle)) / 2
    loss = loss.masked_fill(nowhere, 0)
    return reduced("jensen_shannon", loss.sum(1), weight, mask, reduction)


def _weighed(p: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    """p (log p - log q), 0 where p is 0."""
    return p * (log_p - log_q).masked_fill(p == 0, 0)


def _grids(
    name: str, logits: Tensor, target: Tensor, mask: Tensor | None, from_logits: bool
) -> tuple[Tensor, Tensor | None]:
    """The target with a harmless distribution where the mask leaves it out; and the mask."""
    if logits.dim() < 2:
        raise ValueError(f"{name}: logits must be (B, K, ...), got {tuple(logits.shape)}")
    expect(name, "target", target, logits.shape)
    if mask is not None:
        fits(name, mask, (logits.shape[0], *logits.shape[2:]))
        target = target.masked_fill(mask.unsqueeze(1) == 0, 1 / logits.shape[1])
    if not from_logits:
        shares(name, "probabilities", target)
        total = target.detach().sum(1)
        if looking(target) and total.numel() and bool(((total - 1).abs() > 1e-3).any()):
            worst = float(total.flatten()[(total - 1).abs().argmax()])
            raise ValueError(f"{name}: the probabilities must add to 1, got {worst:.4g}")
    return target, mask
