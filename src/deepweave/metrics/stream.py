"""The standard table of a task, batch by batch and process by process."""

from __future__ import annotations

from typing import Any, Self

from deepweave.metrics import inputs, rates
from deepweave.metrics.calibration import Likelihood
from deepweave.metrics.confusion import Confusion
from deepweave.metrics.ranking import Ranking
from deepweave.metrics.regression import Errors
from deepweave.metrics.score import Score
from deepweave.metrics.tally import Tally


class Stream:
    """All standard scores of a task from batches: ``update``, ``merge``, ``gather``, ``result``.

    ``outputs`` is 1 for two classes, K classes, L labels, or the number of regression targets
    (as in a data spec). With ``ranking=False`` the scores that must keep every prediction (AUC,
    average precision) are left out, and memory does not grow with the data.

    Shapes: as for ``evaluate``.

    Raises:
        ValueError: an unknown task; shapes that do not fit; at the result: bad values, no samples.

    >>> import torch
    >>> stream = Stream("multiclass", 3)
    >>> for _ in range(4):
    ...     _ = stream.update(torch.eye(3), torch.arange(3))
    >>> stream.result()["accuracy"]
    Score(1 [0.757506, 1], 'Wilson')
    """

    def __init__(self, task: inputs.Task, outputs: int = 1, *, ranking: bool = True) -> None:
        if task not in inputs.TASKS:
            names = ", ".join(inputs.TASKS)
            raise ValueError(f"Stream: task must be one of {names}, got {task!r}")
        if outputs < 1 or (task == "multiclass" and outputs < 2):
            raise ValueError(f"Stream: outputs must be at least 1 (2 classes), got {outputs}")
        self.task: inputs.Task = task
        self.outputs = outputs
        self.tallies: dict[str, Tally] = {}
        if task == "regression":
            self.tallies["errors"] = Errors(outputs, name="evaluate")
            return
        images, labels = task == "segmentation", task == "multilabel"
        self.tallies["confusion"] = Confusion(
            2 if labels else max(outputs, 2),
            labels=outputs if labels else None,
            images=images,
            name="evaluate",
        )
        k = 5 if task == "multiclass" and outputs > 5 else 1
        width = 1 if task == "binary" else outputs
        self.tallies["likelihood"] = Likelihood(task, width, k=k, name="evaluate")
        if ranking and not images:
            self.tallies["ranking"] = Ranking(width, labels=labels, name="evaluate")

    def update(self, prediction: Any, target: Any, weight: Any = None) -> Self:
        """Take in one batch of predictions, targets and, if any, weights."""
        for tally in self.tallies.values():
            tally.update(prediction, target, weight)
        return self

    def merge(self, other: Stream) -> Self:
        """Add another stream of the same task, in place.

        Raises:
            ValueError: the streams differ in task, outputs or ranking.
        """
        mine = (self.task, self.outputs, tuple(self.tallies))
        theirs = (other.task, other.outputs, tuple(other.tallies))
        if mine != theirs:
            raise ValueError(f"Stream: merge needs {mine}, got {theirs}")
        for key, tally in self.tallies.items():
            tally.merge(other.tallies[key])
        return self

    def gather(self, group: Any = None) -> Stream:
        """The total over all processes, the same in each; this stream stays as it is."""
        total = Stream.__new__(Stream)
        total.task, total.outputs = self.task, self.outputs
        total.tallies = {key: tally.gather(group) for key, tally in self.tallies.items()}
        return total

    def result(self, *, confidence: float | None = 0.95) -> dict[str, Score]:
        """The standard table of the task."""
        if self.task == "regression":
            return self._regression(confidence)
        table = self._counts(confidence)
        likelihood, ranking = self.tallies["likelihood"], self.tallies.get("ranking")
        if isinstance(likelihood, Likelihood):
            if likelihood.k > 1:
                table[f"top_{likelihood.k}"] = likelihood.top(confidence=confidence)
            table["log_loss"] = likelihood.log_loss(confidence=confidence)
            table["brier"] = likelihood.brier(confidence=confidence)
            table["ece"] = likelihood.ece(confidence=confidence)
        if isinstance(ranking, Ranking):
            table["auc"] = ranking.auc(confidence=confidence)
            if self.task != "multiclass":
                table["average_precision"] = ranking.average_precision(confidence=confidence)
        return table

    def _counts(self, confidence: float | None) -> dict[str, Score]:
        tally = self.tallies["confusion"]
        if not isinstance(tally, Confusion):
            return {}
        table = {"accuracy": tally.accuracy(confidence=confidence)}
        if self.task == "multilabel":
            table["hamming"] = tally.of(rates.misses, confidence=confidence)
            averages = ("micro", "macro")
        else:
            table["balanced_accuracy"] = tally.of(rates.balanced, confidence=confidence)
            averages = ("binary",) if tally.classes == 2 else ("macro",)
        segmented = self.task == "segmentation"
        chosen = {"precision": rates.PRECISION, "recall": rates.RECALL}
        chosen |= {"dice": rates.F1, "jaccard": rates.JACCARD} if segmented else {"f1": rates.F1}
        if self.task == "binary":
            chosen["specificity"] = rates.SPECIFICITY
        for average in averages:
            for key, rate in chosen.items():
                name = key if average == "binary" else f"{key}_{average}"
                table[name] = tally.rate(rate, average, confidence=confidence)
        if self.task == "multiclass" and tally.classes > 2:
            table["f1_weighted"] = tally.rate(rates.F1, "weighted", confidence=confidence)
        if self.task in ("binary", "multiclass"):
            table["mcc"] = tally.of(rates.matthews, floor=-1.0, confidence=confidence)
            table["kappa"] = tally.of(rates.cohen(0), floor=-1.0, confidence=confidence)
        return table

    def _regression(self, confidence: float | None) -> dict[str, Score]:
        tally = self.tallies["errors"]
        if not isinstance(tally, Errors):
            return {}
        return {
            "rmse": tally.rmse(confidence=confidence),
            "mae": tally.mae(confidence=confidence),
            "mse": tally.mse(confidence=confidence),
            "mape": tally.mape(confidence=confidence),
            "r2": tally.r2(confidence=confidence),
        }
