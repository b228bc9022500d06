"""Can a classifier tell samples from real ones?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from deepweave.metrics.kernels import rows
from deepweave.metrics.score import Score
from deepweave.metrics.uncertainty import wilson


def c2st(
    samples: Tensor, real: Tensor, *, folds: int = 5, hidden: int = 64, steps: int = 200,
    confidence: float = 0.95, seed: int = 0,
) -> Score:  # fmt: skip
    """The classifier two-sample test: how many of those held out a network tells rightly.

    One half: it cannot tell them; 1: it always can. As many of each are taken, divided into folds;
    a network with a hidden layer learns on all folds but one, all networks at once, and is asked
    about that one. Wilson's interval over all answers, which the folds' common training samples
    make a little too narrow. With few samples the test has little power: one half is then no
    evidence, so show real against real beside it.

    Shapes: samples (N, ...), real (M, ...)

    Raises:
        ValueError: samples that do not fit, or fewer of each than twice the folds.

    Source: Lopez-Paz & Oquab, Revisiting classifier two-sample tests, 2017.

    >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    >>> float(c2st(x[:100] + 4, x[100:])) > 0.95
    True
    """
    if folds < 2:
        raise ValueError(f"c2st: folds must be at least 2, got {folds}")
    x, y = rows("c2st", samples, real, 2 * folds)
    random = torch.Generator().manual_seed(seed)  # on the host: the same on every device
    size = min(len(x), len(y)) // folds * folds
    # tensors of inference mode have no slopes: rows are drawn, and so copied, outside of it
    with torch.inference_mode(False), torch.enable_grad():
        x, y = (_drawn(one, size, random) for one in (x, y))
        both = torch.cat([x.view(folds, -1, x.shape[1]), y.view(folds, -1, y.shape[1])], 1)
        label = (torch.arange(both.shape[1], device=x.device) < size // folds).float()
        place = torch.arange(folds, device=x.device)
        others = torch.stack([place[place != fold] for fold in range(folds)])
        train = both[others].flatten(1, 2)  # (folds, rows, D)
        goal = label.repeat(folds - 1).expand(folds, -1)
        mean, spread = train.mean(1, keepdim=True), train.std(1, keepdim=True).clamp_min(1e-6)
        train, test = (train - mean) / spread, (both - mean) / spread
        inputs = x.shape[1]
        shapes = ((inputs, hidden, inputs), (1, hidden, None), (hidden, 1, hidden), (1, 1, None))
        weights = [
            (torch.randn(folds, a, b, generator=random) / fan**0.5 if fan else
             torch.zeros(folds, a, b)).to(x.device).requires_grad_()
            for a, b, fan in shapes
        ]  # fmt: skip
        optimizer = torch.optim.AdamW(weights, lr=0.01, weight_decay=0.01)
        for _ in range(steps):
            loss = F.binary_cross_entropy_with_logits(_said(train, weights), goal)
            optimizer.zero_grad()
            (loss * folds).backward()
            optimizer.step()
        right = (_said(test, weights).detach() > 0) == (label > 0.5)
    return wilson(int(right.sum()), right.numel(), confidence=confidence)


def _drawn(x: Tensor, size: int, random: torch.Generator) -> Tensor:
    return x[torch.randperm(len(x), generator=random)[:size].to(x.device)].float()


def _said(x: Tensor, weights: list[Tensor]) -> Tensor:
    w1, b1, w2, b2 = weights
    return (F.relu(x @ w1 + b1) @ w2 + b2).squeeze(2)
