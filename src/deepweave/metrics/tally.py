"""What a metric keeps while batches go by: sums to add, or scores to keep; across processes too."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from deepweave.metrics import inputs

Statistic = Callable[[Tensor], Tensor]


class Tally:
    """Abstract: ``update`` with batches, ``merge`` tallies, ``gather`` across processes.

    No update reads a value back from the device: bad values (a label out of range, NaN, a
    negative weight) are counted in ``flaws`` and raise one ValueError when a result is asked for.
    """

    FLAWS: tuple[str, ...] = ()

    def __init__(self, name: str) -> None:
        self.name = name
        self.size = 0  # samples seen
        self.sums: dict[str, Tensor] = {"flaws": torch.zeros(len(self.FLAWS), dtype=torch.float64)}
        self.kept: dict[str, list[Tensor]] = {}

    def update(self, prediction: Any, target: Any, weight: Any = None) -> Self:
        """Take in one batch."""
        raise NotImplementedError

    def settings(self) -> tuple[Any, ...]:
        """What two tallies must share to be merged."""
        return (type(self).__name__, *(tuple(x.shape) for x in self.sums.values()))

    def align(self, group: Any = None, other: Tally | None = None) -> None:
        """Bring sums to a common origin before they are added (nothing to do for counts)."""

    def to(self, device: torch.device | str) -> Self:
        """Move the sums and kept scores, in place."""
        self.sums = {key: x.to(device) for key, x in self.sums.items()}
        self.kept = {key: [x.to(device) for x in xs] for key, xs in self.kept.items()}
        return self

    def _reach(self, like: Tensor) -> None:
        if self.sums["flaws"].device != like.device:
            self.to(like.device)

    def clone(self) -> Self:
        """An independent copy."""
        twin = copy.copy(self)
        twin.sums = {key: x.clone() for key, x in self.sums.items()}
        twin.kept = {key: list(xs) for key, xs in self.kept.items()}
        return twin

    def merge(self, other: Tally) -> Self:
        """Add another tally of the same settings to this one, in place.

        Raises:
            ValueError: the two count different things.
        """
        if self.settings() != other.settings():
            raise ValueError(
                f"{self.name}: merge needs a tally with the same settings {self.settings()}, "
                f"got {other.settings()}"
            )
        device = self.sums["flaws"].device
        other = other.clone().to(device)
        self.align(other=other)
        for key, x in other.sums.items():
            self.sums[key] = self.sums[key] + x
        for key, xs in other.kept.items():
            self.kept.setdefault(key, []).extend(xs)
        self.size += other.size
        return self

    def gather(self, group: Any = None) -> Self:
        """The total over all processes, the same in each; this tally stays as it is.

        Sums go through one ``all_reduce`` each; kept scores through ``all_gather`` after the
        lengths, which may differ (and be 0). Without a process group the total is a copy.
        """
        total = self.clone()
        if not (dist.is_available() and dist.is_initialized()):
            return total
        total.align(group=group)
        for key, x in total.sums.items():
            dist.all_reduce(x, group=group)
            total.sums[key] = x
        device = total.sums["flaws"].device
        size = torch.tensor([self.size], device=device)
        dist.all_reduce(size, group=group)
        total.size = int(size)
        for key in total.kept:
            total.kept[key] = _collect(total.kept[key], device, group)
        return total

    def sound(self, name: str | None = None) -> None:
        """Raise for what ``update`` counted as bad, or if nothing came."""
        name = name or self.name
        if self.size == 0:
            raise ValueError(f"{name}: no samples: update with at least one batch first")
        for count, flaw in zip(self.sums["flaws"].tolist(), self.FLAWS):
            if count != 0:  # NaN counts as bad too: it marks NaN among summed scores
                many = f"{int(count)} " if count == count else ""
                raise ValueError(f"{name}: {many}{flaw}")


_DTYPES = (torch.float32, torch.float64, torch.int64, torch.float16, torch.bfloat16, torch.bool)


def _collect(parts: list[Tensor], device: torch.device, group: Any) -> list[Tensor]:
    """Tensors of unequal first sizes from all processes, in the order of the ranks."""
    mine = torch.cat(parts) if parts else None
    shape = torch.full((6,), -1, dtype=torch.int64, device=device)
    if mine is not None:
        shape[: mine.ndim + 2] = torch.tensor(
            [_DTYPES.index(mine.dtype), mine.ndim, *mine.shape], device=device
        )
    ranks = dist.get_world_size(group)
    shapes = [torch.empty_like(shape) for _ in range(ranks)]
    dist.all_gather(shapes, shape, group=group)
    known = [s.tolist() for s in shapes if int(s[0]) >= 0]
    if not known:
        return []
    dtype = _DTYPES[known[0][0]]
    for row in known:
        dtype = torch.promote_types(dtype, _DTYPES[row[0]])
    tail = known[0][3 : 2 + known[0][1]]
    longest = max(row[2] for row in known)
    padded = torch.zeros((longest, *tail), dtype=dtype, device=device)
    if mine is not None:
        padded[: len(mine)] = mine.to(dtype)
    everyone = [torch.empty_like(padded) for _ in range(ranks)]
    dist.all_gather(everyone, padded, group=group)
    return [x[: int(s[2])] for x, s in zip(everyone, shapes) if int(s[0]) >= 0]


class Sums(Tally):
    """Abstract: metrics that are functions of the sums of a few numbers per sample.

    With phi the (M,) features of a sample, ``total`` = sum w phi and ``outer`` = sum w^2 phi
    phi^T; a metric is f(total) with f(c s) = f(s), so that its variance by the delta method is
    ``g^T outer g``, g the gradient of f: value and interval from sums that add up over batches.
    One sample is one independent unit: the pixels of one image, or the labels of one sample,
    may depend on each other as they like.

    Source: W. G. Cochran, Sampling techniques, 1977, section 6 (variance of ratios).
    """

    def __init__(self, name: str, features: int) -> None:
        super().__init__(name)
        self.sums["total"] = torch.zeros(features, dtype=torch.float64)
        self.sums["outer"] = torch.zeros(features, features, dtype=torch.float64)

    def features(self, p: Tensor, t: Tensor, v: Tensor | None = None) -> Tensor:
        """The numbers (N, M) of each sample, float64; bad values are counted on the way.

        ``v`` (N, P) are weights of the cells within a sample: pixels, for segmentation.
        """
        raise NotImplementedError

    def prepare(self, prediction: Any, target: Any) -> tuple[Tensor, Tensor]:
        """Check the shapes of one batch."""
        raise NotImplementedError

    def weighted(self, p: Tensor, t: Tensor, weight: Any) -> Tensor:
        """The features (N, M) times the samples' weights (N,), or with the cells' (N, H, W)."""
        if weight is None:
            return self.features(p, t)
        w = inputs.tensor(self.name, "weight", weight).to(p.device, torch.float64)
        self.sums["flaws"][-1] += (~((w >= 0) & w.isfinite())).sum()
        if w.ndim > 1 and w.numel() == t.numel():
            return self.features(p, t, w.reshape(t.shape))
        return self.features(p, t) * inputs.weights(self.name, w, p)[:, None]

    def update(self, prediction: Any, target: Any, weight: Any = None) -> Self:
        p, t = self.prepare(prediction, target)
        self._reach(p)
        phi = self.weighted(p, t, weight)
        self.sums["total"] += phi.sum(0)
        self.sums["outer"] += phi.T @ phi
        self.size += len(p)
        return self

    def counts(self) -> Tensor:
        """The sums a statistic is a function of."""
        return self.sums["total"]

    def gradient(self, statistic: Statistic, at: Tensor | None = None) -> tuple[float, Tensor]:
        """The statistic and its gradient with respect to the sums."""
        with torch.inference_mode(False), torch.enable_grad():
            point = (self.counts() if at is None else at).clone().requires_grad_()
            value = statistic(point)
            (slope,) = torch.autograd.grad(value, point, allow_unused=True)
        return float(value.detach()), torch.zeros_like(point) if slope is None else slope

    def variance(self, slope: Tensor) -> float:
        """The delta method's variance of a statistic with this gradient."""
        flat = slope.reshape(-1)
        return max(float(flat @ self.sums["outer"] @ flat), 0.0)

    def influence(self, statistic: Statistic, p: Any, t: Any, weight: Any = None) -> Tensor:
        """What each sample (N,) of the whole set pulls at the statistic, in first order."""
        _, slope = self.gradient(statistic)
        return self.weighted(*self.prepare(p, t), weight) @ slope.reshape(-1)
