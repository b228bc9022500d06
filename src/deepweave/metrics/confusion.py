"""The confusion matrix as a tally: one count per batch, many metrics at the end."""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from torch import Tensor

from deepweave.metrics import inputs, rates
from deepweave.metrics.rates import F1, JACCARD, PRECISION, RECALL, SPECIFICITY, Average, Rate
from deepweave.metrics.score import Score
from deepweave.metrics.tally import Statistic, Sums, Tally
from deepweave.metrics.uncertainty import clopper_pearson, effective, wilson

# Rates of one class that are a plain share (F1 by way of J): the others take the delta method.
_SHARES = (PRECISION, RECALL, SPECIFICITY, JACCARD, F1)


class Confusion(Sums):
    """Counts of (true class, said class), and every metric that is a function of them.

    ``C[i, j]`` = sum of the weights of samples of class i said to be j. ``classes`` = K classes;
    with ``labels=L`` the samples have L yes/no labels each and C is (L, 2, 2); with
    ``images=True`` every cell of an (N, H, W) target counts, and one image is one independent
    unit of the intervals. Memory: 16 K^2 bytes; 8 K^4 with ``images``, 128 L^2 with ``labels``.

    Shapes: prediction (N, K) or (N,) probabilities, or hard labels like the target; target (N,).

    Raises:
        ValueError: shapes that do not fit; at the result: labels out of range, NaN, probabilities
            outside [0, 1], negative weights, nothing counted.

    >>> tally = Confusion(3)
    >>> for said, true in [([0, 1], [0, 1]), ([2, 2], [2, 1])]:
    ...     _ = tally.update(torch.tensor(said), torch.tensor(true))
    >>> tally.accuracy()
    Score(0.75 [0.300642, 0.954413], 'Wilson')
    """

    FLAWS = (
        "targets are not whole numbers from 0 to classes - 1",
        "predictions are no class of 0 to classes - 1, or no probability in [0, 1]",
        "predictions hold NaN or an infinity",
        "weights are negative or not finite",
    )

    def __init__(
        self,
        classes: int = 2,
        *,
        labels: int | None = None,
        images: bool = False,
        threshold: float = 0.5,
        name: str = "Confusion",
    ) -> None:
        if classes < 2:
            raise ValueError(f"{name}: classes must be at least 2, got {classes}")
        self.classes, self.labels, self.images = classes, labels, images
        self.threshold = threshold
        self.plain = labels is None and not images
        if self.plain:
            Tally.__init__(self, name)
            self._ones = torch.ones(0, dtype=torch.float64)  # one per sample of a batch, kept
            cells = classes * classes + 2  # one more at each end takes what is out of range
            self.sums["cells"] = torch.zeros(cells, dtype=torch.float64)
            self.sums["excess"] = torch.zeros(cells, dtype=torch.float64)  # sum w^2 - sum w
        else:
            # With labels: 2 x 2 counts of each, and whether the whole sample is right.
            super().__init__(name, classes**2 if labels is None else 4 * labels + 1)
        self.sums["poison"] = torch.zeros((), dtype=torch.float64)  # NaN once a score was

    def settings(self) -> tuple[Any, ...]:
        return (*super().settings(), self.classes, self.labels, self.images, self.threshold)

    def prepare(self, prediction: Any, target: Any) -> tuple[Tensor, Tensor]:
        p, t = inputs.pair(self.name, prediction, target)
        if self.labels is not None:
            p, t = (x[:, None] if x.ndim == 1 else x for x in (p, t))
            inputs.shaped(self.name, "prediction", p, "N, L", (len(p), self.labels))
            inputs.shaped(self.name, "target", t, "N, L", (len(p), self.labels))
        elif self.images:
            task, _ = inputs.reading(self.name, p, t, self.classes)
            if task != "segmentation":
                raise ValueError(f"{self.name}: target must be (N, H, W), got {tuple(t.shape)}")
            p, t = inputs.flat(task, p, t)
            if p.ndim == 3:
                inputs.shaped(self.name, "prediction", p, "N, P, C", (*t.shape, self.classes))
        else:
            inputs.shaped(self.name, "target", t, "N,", (len(p),))
            if p.ndim > 1:
                inputs.shaped(self.name, "prediction", p, "N, K", (len(p), self.classes))
        return p, t

    def hard(self, p: Tensor, t: Tensor) -> Tensor:
        """Hard labels int64 like the target: argmax, or above the threshold; ties to the first."""
        flaws = self.sums["flaws"]
        if p.is_floating_point():
            # One sum finds NaN and infinities among all scores and reads nothing back
            # (halves are summed in float64, where they cannot overflow).
            whole = p.sum(dtype=torch.float64) if p.itemsize < 4 else p.sum()
            self.sums["poison"].add_(whole, alpha=0)
            if p.ndim > t.ndim:
                return p.argmax(-1)
            flaws[1] += ((p < 0) | (p > 1)).sum()
            return (p > self.threshold).to(torch.int64)
        top = 2 if self.labels is not None else self.classes
        if p.dtype != torch.bool:
            flaws[1] += ((p < 0) | (p >= top)).sum()
        return p.to(torch.int64).clamp(0, top - 1)

    def update(self, prediction: Any, target: Any, weight: Any = None) -> Self:
        if not self.plain:
            return super().update(prediction, target, weight)
        p, t = self.prepare(prediction, target)
        self._reach(p)
        place, cells = self.place(p, t), self.sums["cells"]
        if weight is None:
            if len(self._ones) != len(p) or self._ones.device != p.device:
                self._ones = torch.ones(len(p), dtype=torch.float64, device=p.device)
            cells.index_add_(0, place, self._ones)
        else:
            w = inputs.weights(self.name, weight, p)
            self.sums["flaws"][3] += (~((w >= 0) & w.isfinite())).sum()
            cells.index_add_(0, place, w)
            self.sums["excess"].index_add_(0, place, w * w - w)
        self.size += len(p)
        return self

    def place(self, p: Tensor, t: Tensor) -> Tensor:
        """The cell 1 + K t + p of each sample; 0 and K^2 + 1 hold what is out of range."""
        said = self.hard(p, t)
        true, broken = inputs.labels(t)
        if broken is not None:
            self.sums["flaws"][0] += broken.sum()
        return said.add(true, alpha=self.classes).clamp_(-1, self.classes**2).add_(1)

    def features(self, p: Tensor, t: Tensor, v: Tensor | None = None) -> Tensor:
        if self.plain:
            place = self.place(p, t)[:, None] - 1
            return torch.zeros(
                len(p), self.classes**2, dtype=torch.float64, device=p.device
            ).scatter_(1, place.clamp(0, self.classes**2 - 1), 1.0)
        side = 2 if self.labels is not None else self.classes
        said = self.hard(p, t)
        true, broken = inputs.labels(t)
        bad = (true < 0) | (true >= side)
        self.sums["flaws"][0] += (bad if broken is None else bad | broken).sum()
        place = said + side * true.clamp(0, side - 1)
        one = torch.ones(place.shape, dtype=torch.float64, device=p.device) if v is None else v
        phi = torch.zeros(len(p), len(self.sums["total"]), dtype=torch.float64, device=p.device)
        if self.labels is not None:
            place = place + 4 * torch.arange(self.labels, device=p.device)
            phi[:, -1] = (said == true).all(1)
        return phi.scatter_add_(1, place, one)

    def sound(self, name: str | None = None) -> None:
        self.sums["flaws"][2] = self.sums["poison"]
        if self.plain:
            cells = self.sums["cells"]
            outside = cells[0] + cells[-1] + (cells[0] + cells[-1]).isnan()
            self.sums["flaws"][0] = self.sums["flaws"][0].clamp_min((outside != 0).double())
        super().sound(name)
        if not float(self.counts().sum()) > 0:
            raise ValueError(f"{name or self.name}: the weights sum to 0")

    def counts(self) -> Tensor:
        if self.plain:
            return self.sums["cells"][1:-1].view(self.classes, self.classes)
        return self.sums["total"]

    def table(self, counts: Tensor) -> Tensor:
        """The flat sums as (K, K) or (L, 2, 2)."""
        if self.labels is not None:
            return counts[:-1].view(self.labels, 2, 2)
        return counts.view(self.classes, self.classes)

    def variance(self, slope: Tensor) -> float:
        if not self.plain:
            return super().variance(slope)
        second = self.sums["cells"][1:-1] + self.sums["excess"][1:-1]
        return float((second * slope.reshape(-1) ** 2).sum())

    def matrix(self) -> Tensor:
        """The counts: (K, K), row = true class, column = said; (L, 2, 2) with labels."""
        self.sound()
        return self.table(self.counts()).clone()

    def of_table(self, function: Statistic) -> Statistic:
        """A function of the table as one of the flat sums."""
        return lambda counts: function(self.table(counts))

    def averaging(self, average: Average | None) -> Average:
        """The average asked for, or class 1 of two classes and macro of more."""
        two = self.classes == 2 and self.labels is None
        average = average or ("binary" if two else "macro")
        if average not in ("binary", "micro", "macro", "weighted"):
            raise ValueError(
                f'{self.name}: average must be "binary", "micro", "macro" or "weighted", '
                f"got {average!r}"
            )
        if average == "binary" and not two:
            raise ValueError(f'{self.name}: average "binary" needs two classes, use "macro"')
        return average

    def hits(self, counts: Tensor) -> Tensor:
        """Accuracy of the flat sums; with labels, the share of samples with all labels right."""
        if self.labels is not None:
            return counts[-1] * self.labels / counts[:-1].sum()
        return rates.hits(self.table(counts))

    def proportion(
        self, hits: float, n: float, square: float, confidence: float, exact: bool = False
    ) -> Score:
        """A share with Wilson's (or the exact) interval at Kish's effective size n^2 / sum w^2."""
        size = n * n / square if square > 0 else 0.0
        right = hits / n * size if n > 0 else 0.0
        law = clopper_pearson if exact else wilson
        return law(min(right, size), size, confidence=confidence)

    def smooth(self) -> tuple[Tensor, Tensor]:
        """The counts with one more unit spread as if truth and prediction were independent."""
        counts = self.counts()
        table = self.table(counts)
        total = table.sum((-2, -1), keepdim=True)
        spread = table.sum(-1, keepdim=True) * table.sum(-2, keepdim=True) / total**2
        if self.labels is not None:
            right = torch.ones(1, dtype=counts.dtype, device=counts.device) * 0.5
            return counts + torch.cat([spread.reshape(-1), right]), spread
        mass = self.sums["outer"].sum() if not self.plain else None
        if mass is None:
            mass = (self.sums["cells"] + self.sums["excess"]).sum()
        unit = mass / counts.sum()  # the weight of a typical unit
        return counts + (unit * spread).view_as(counts), unit * unit * spread

    def score(
        self, statistic: Statistic, confidence: float | None = 0.95, *, floor: float = 0.0
    ) -> Score:
        """A function of the counts with the delta method's interval; counts checked first."""
        value = float(statistic(self.counts()))
        if confidence is None:
            return Score(value)
        counts, extra = self.smooth()
        centre, slope = self.gradient(statistic, counts)
        flat = slope.reshape(-1)[: extra.numel()]
        variance = self.variance(slope) + float((extra.reshape(-1) * flat**2).sum())
        if not math.isfinite(value) or variance <= 0:
            return Score(value, floor, 1.0, "delta")
        return effective(value, centre, variance, floor=floor, confidence=confidence)

    def of(
        self, function: Statistic, *, floor: float = 0.0, confidence: float | None = 0.95
    ) -> Score:
        """Any scale-free function of the table in [floor, 1], such as those in ``rates``."""
        self.sound()
        return self.score(self.of_table(function), confidence, floor=floor)

    def accuracy(self, *, exact: bool = False, confidence: float | None = 0.95) -> Score:
        """The share of samples said rightly (with labels: all labels of a sample right)."""
        self.sound()
        if confidence is None or not self.plain:
            return self.score(self.hits, confidence)
        table = self.counts()
        square = float((self.sums["cells"] + self.sums["excess"]).sum())
        return self.proportion(
            float(table.diagonal().sum()), float(table.sum()), square, confidence, exact
        )

    def rate(
        self,
        rate: Rate,
        average: Average | None = None,
        *,
        empty: float = 0.0,
        exact: bool = False,
        confidence: float | None = 0.95,
    ) -> Score:
        """One rate: of class 1, micro, macro, or weighted by support."""
        self.sound()
        kind = self.averaging(average)
        share = rate in _SHARES and self.plain and kind in ("binary", "micro")
        if confidence is None or not share:
            return self.score(self.of_table(rates.averaged(rate, kind, empty)), confidence)
        parts, squares = self._quarters()
        if kind == "micro":
            parts, squares = parts.sum(1, keepdim=True), squares.sum(1, keepdim=True)
        return self._share(rate, parts[:, -1], squares[:, -1], empty, exact, confidence)

    def each(
        self, rate: Rate, *, empty: float = 0.0, confidence: float | None = 0.95
    ) -> tuple[Score, ...]:
        """The rate of each class (or label) by itself, in one-against-rest counts."""
        self.sound()
        parts, squares = self._quarters()
        return tuple(
            self._share(rate, p, s, empty, False, confidence) for p, s in zip(parts.T, squares.T)
        )

    def _quarters(self) -> tuple[Tensor, Tensor]:
        if self.plain:
            second = (self.sums["cells"] + self.sums["excess"])[1:-1]
        else:
            second = self.sums["outer"].diagonal()
        return rates.quarters(self.table(self.counts())), rates.quarters(self.table(second))

    def _share(
        self,
        rate: Rate,
        parts: Tensor,
        squares: Tensor,
        empty: float,
        exact: bool,
        confidence: float | None,
    ) -> Score:
        above, below = rate.sums(parts)
        value = float(above / below) if below > 0 else empty
        if confidence is None:
            return Score(value)
        plain = JACCARD if rate == F1 else rate
        (hit, n), square = plain.sums(parts), plain.sums(squares)[1]
        inner = self.proportion(float(hit), float(n), float(square), confidence, exact)
        low, high = inner.low, inner.high
        if rate == F1:  # 2 J / (1 + J) rises with J = TP / (TP + FP + FN), a plain share
            low, high = (2 * j / (1 + j) for j in (low, high))
        return Score(value, min(low, value), max(high, value), inner.method)
