"""Scores kept as they come, for the metrics that need their order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from deepweave.metrics import inputs, sorting
from deepweave.metrics.score import Score
from deepweave.metrics.tally import Tally
from deepweave.metrics.uncertainty import on_logit

Kind = Literal["auc", "ap"]


class Ranking(Tally):
    """Scores kept as they come, for the metrics that need their order: AUC, AP, the curves.

    Exact; memory is that of the scores. (N,) scores for two classes, (N, K) for K, (N, L) for L
    labels; any real numbers, as only their order counts.

    Raises:
        ValueError: shapes that do not fit; at the result: labels out of range, NaN, negative
            weights, no samples.

    >>> tally = Ranking()
    >>> _ = tally.update(torch.tensor([0.1, 0.4]), torch.tensor([0, 0]))
    >>> _ = tally.update(torch.tensor([0.35, 0.8]), torch.tensor([1, 1]))
    >>> tally.auc(confidence=None)
    Score(0.75, '')
    """

    FLAWS = ()

    def __init__(self, outputs: int = 1, *, labels: bool = False, name: str = "Ranking") -> None:
        super().__init__(name)
        self.outputs, self.labels = outputs, labels
        self.kept = {"score": [], "target": [], "weight": []}
        self._done: tuple[Tensor, Tensor, Tensor | None] | None = None

    def settings(self) -> tuple[Any, ...]:
        return (*super().settings(), self.outputs, self.labels)

    def update(self, prediction: Any, target: Any, weight: Any = None) -> Self:
        p, t = inputs.pair(self.name, prediction, target)
        self._reach(p)
        if not p.is_floating_point():
            p = p.double()
        wide = self.outputs > 1
        if self.labels and not wide:
            p, t = p.reshape(len(p)), t.reshape(len(t))
        shape = (len(p), self.outputs) if wide else (len(p),)
        inputs.shaped(self.name, "prediction", p, "N, K" if wide else "N,", shape)
        row = wide and self.labels
        inputs.shaped(self.name, "target", t, "N, L" if row else "N,", shape if row else shape[:1])
        w = None if weight is None else inputs.weights(self.name, weight, p)
        for key, x in (("score", p), ("target", t)):
            self.kept[key].append(x.clone() if x is prediction or x is target else x)
        # An empty tensor marks a batch without weights.
        self.kept["weight"].append(p.new_zeros(0, dtype=torch.float64) if w is None else w)
        self.size += len(p)
        self._done = None
        return self

    def whole(self, name: str | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """All scores, labels and weights, checked once."""
        name = name or self.name
        if self._done is not None and len(self._done[0]) == self.size:
            return self._done
        self.sound(name)
        score, t = torch.cat(self.kept["score"]), torch.cat(self.kept["target"])
        w = torch.cat(self.kept["weight"])
        if len(w) not in (0, len(score)):
            raise ValueError(f"{name}: weights came with some batches and not with others")
        true, broken = inputs.labels(t)
        top = self.outputs - 1 if self.outputs > 1 and not self.labels else 1
        low, high = (int(x) for x in torch.aminmax(true))
        if low < 0 or high > top or (broken is not None and bool(broken.any())):
            raise ValueError(
                f"{name}: targets must be whole numbers from 0 to {top}, got {low} to {high}"
            )
        if bool(score.sum(dtype=torch.float64).isnan()) and bool(score.isnan().any()):
            raise ValueError(f"{name}: predictions hold NaN")
        weight = w if len(w) else None
        if weight is not None:
            if not bool(((weight >= 0) & weight.isfinite()).all()):
                raise ValueError(f"{name}: weights are negative or not finite")
            if not float(weight.sum()) > 0:
                raise ValueError(f"{name}: the weights sum to 0")
        self._done = (score.cpu(), true.cpu(), None if weight is None else weight.cpu())
        return self._done

    def clone(self) -> Self:
        twin = super().clone()
        twin._done = None
        return twin

    def parts(self, name: str, versus: str) -> Iterator[tuple[Tensor, Tensor, Tensor, float]]:
        """Each two-class question: samples, scores, labels, and its share (support or pairs)."""
        score, t, w = self.whole(name)
        one = torch.ones(len(score), dtype=torch.float64) if w is None else w
        everyone = torch.arange(len(score))
        if self.outputs == 1:
            yield everyone, score, t, 1.0
        elif self.labels or versus == "rest":
            for k in range(self.outputs):
                yes = t[:, k] if self.labels else (t == k).long()
                yield everyone, score[:, k], yes, float(one[yes.bool()].sum())
        else:
            for a in range(self.outputs):
                for b in range(a + 1, self.outputs):
                    both = torch.nonzero((t == a) | (t == b))[:, 0]
                    share = float(one[both].sum())
                    for k in (a, b):
                        yield both, score[both, k], (t[both] == k).long(), share

    def pulls(self, kind: Kind, average: str, versus: str, name: str) -> tuple[float, Tensor, int]:
        """The averaged value, the influence of each sample on it, and how many parts counted."""
        score, t, w = self.whole(name)
        n = len(score)
        if average == "micro" and self.outputs > 1:
            yes = t if self.labels else torch.nn.functional.one_hot(t, self.outputs)
            each = None if w is None else w.repeat_interleave(self.outputs)
            g = sorting.order(score.reshape(-1), yes.reshape(-1), each, members=True)
            value, pull = sorting.pull(g, yes.reshape(-1), each, kind)
            return value, torch.from_numpy(pull).view(n, -1).sum(1), 1
        values, shares, every = [], [], []
        for rows, s, yes, share in self.parts(name, versus):
            part = None if w is None else w[rows]
            g = sorting.order(s, yes, part, members=True)
            m, rest = float(g.positive.sum()), float(g.negative.sum())
            if kind == "auc" and (m == 0 or rest == 0):
                continue  # a class that is absent, or alone, has no AUC
            values.append(sorting.area(g) if kind == "auc" else sorting.average(g))
            shares.append(share if average == "weighted" else 1.0)
            pull = np.zeros(len(s)) if m == 0 else sorting.pull(g, yes, part, kind)[1]
            every.append((rows, torch.from_numpy(pull)))
        if not values or sum(shares) == 0:
            return math.nan if kind == "auc" else 0.0, torch.zeros(n, dtype=torch.float64), 0
        total, whole = sum(shares), torch.zeros(n, dtype=torch.float64)
        for share, (rows, pull) in zip(shares, every):
            whole.index_add_(0, rows, pull * (share / total))
        value = sum(v * s for v, s in zip(values, shares)) / total
        return value, whole, len(values)

    def _score(
        self, kind: Kind, average: str | None, versus: str, confidence: float | None, name: str
    ) -> Score:
        average = average or "macro"
        if average not in ("macro", "weighted", "micro"):
            raise ValueError(
                f'{name}: average must be "macro", "weighted" or "micro", got {average!r}'
            )
        if versus not in ("rest", "one"):
            raise ValueError(f'{name}: versus must be "rest" or "one", got {versus!r}')
        if versus == "one" and average == "micro":
            raise ValueError(f'{name}: "micro" has no meaning one against one')
        if self.outputs == 1:
            score, t, w = self.whole(name)
            if kind == "auc" and w is None and confidence is None:
                return Score(sorting.quick_area(score, t))
            g = sorting.order(score, t, w)
            if confidence is None:
                return Score(sorting.area(g) if kind == "auc" else sorting.average(g))
            if kind == "auc":
                return sorting.delong(g, confidence=confidence)
            return sorting.average_score(g, confidence=confidence)
        if confidence is None and average != "micro":
            return Score(self._value(kind, average, versus, name))
        value, pull, count = self.pulls(kind, average, versus, name)
        if confidence is None:
            return Score(value)
        variance = float((pull**2).sum())
        if count == 0 or not 0 < value < 1 or variance <= 1e-18:
            low = (1 - confidence) ** (1 / max(self.size, 1)) if value == 1 and count else 0.0
            return Score(value, low, 1.0, "exact" if value == 1 else "undefined")
        method = "DeLong" if kind == "auc" else "delta"
        return on_logit(value, variance, method, confidence=confidence)

    def _value(self, kind: Kind, average: str, versus: str, name: str) -> float:
        _, _, w = self.whole(name)
        values, shares = [], []
        for rows, s, yes, share in self.parts(name, versus):
            if kind == "auc" and w is None:
                value = sorting.quick_area(s, yes)
            else:
                g = sorting.order(s, yes, None if w is None else w[rows])
                value = sorting.area(g) if kind == "auc" else sorting.average(g)
            if not math.isnan(value):
                values.append(value)
                shares.append(share if average == "weighted" else 1.0)
        if not values or sum(shares) == 0:
            return math.nan if kind == "auc" else 0.0
        return sum(v * s for v, s in zip(values, shares)) / sum(shares)

    def auc(
        self,
        average: str | None = None,
        *,
        versus: str = "rest",
        confidence: float | None = 0.95,
        name: str | None = None,
    ) -> Score:
        """The area under the ROC curve."""
        return self._score("auc", average, versus, confidence, name or self.name)

    def average_precision(
        self,
        average: str | None = None,
        *,
        confidence: float | None = 0.95,
        name: str | None = None,
    ) -> Score:
        """The area under the precision-recall steps."""
        return self._score("ap", average, "rest", confidence, name or self.name)
