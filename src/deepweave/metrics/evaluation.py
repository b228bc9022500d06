"""The standard table of a task, and of the constant predictor beside it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deepweave.metrics import inputs
from deepweave.metrics.score import Score
from deepweave.metrics.stream import Stream


def evaluate(
    task: inputs.Task,
    prediction: Any,
    target: Any,
    *,
    weight: Any = None,
    confidence: float | None = 0.95,
) -> dict[str, Score]:
    """The standard scores of a task, each with its interval.

    binary: accuracy, balanced_accuracy, precision, recall, f1, specificity, mcc, kappa, log_loss,
    brier, ece, auc, average_precision. multiclass: the averages as ``*_macro``, f1_weighted,
    top_5 above 5 classes. multilabel: accuracy (all labels right), hamming, ``*_micro``,
    ``*_macro``. segmentation: accuracy of pixels, dice, jaccard, intervals by image. regression:
    rmse, mae, mse, mape, r2.

    Shapes: prediction binary (N,), multiclass (N, K), multilabel (N, L), segmentation (N, H, W)
    or (N, C, H, W) probabilities, regression (N,) or (N, T) in the target's unit; target (N,),
    (N, L), (N, H, W), (N, T); weight (N,).

    Raises:
        ValueError: an unknown task, shapes that do not fit, labels out of range, NaN, no
            probabilities, negative weights, no samples.

    >>> scores = evaluate("regression", [1.0, 2.0, 4.0], [1.0, 2.5, 4.5])
    >>> round(scores["mae"], 3), list(scores)
    (0.333, ['rmse', 'mae', 'mse', 'mape', 'r2'])
    """
    if task not in inputs.TASKS:
        raise ValueError(f"evaluate: task must be one of {', '.join(inputs.TASKS)}, got {task!r}")
    p, t = inputs.pair("evaluate", prediction, target)
    if task == "regression":
        outputs = t.shape[1] if t.ndim == 2 else 1
    elif task == "multilabel":
        outputs = p.shape[1] if p.ndim == 2 else 1
    elif task == "multiclass":
        if p.ndim != 2:
            raise ValueError(f"evaluate: prediction must be (N, K), got {tuple(p.shape)}")
        outputs = p.shape[1]
    else:
        outputs = p.shape[1] if task == "segmentation" and p.ndim == t.ndim + 1 else 1
    return Stream(task, outputs).update(p, t, weight).result(confidence=confidence)


def constant(
    task: inputs.Task, train_target: Any, *, weight: Any = None, classes: int | None = None
) -> Tensor:
    """What the constant predictor says of any sample: class frequencies, or the mean, of train.

    Shapes: train_target (N,), (N, L), (N, T), (N, H, W) -> (), (K,), (L,), (T,) or (C,) float64.

    Raises:
        ValueError: an unknown task, no samples, weights that do not fit.

    >>> constant("multiclass", [0, 1, 1, 3]).tolist()
    [0.25, 0.5, 0.0, 0.25]
    """
    if task not in inputs.TASKS:
        raise ValueError(f"baseline: task must be one of {', '.join(inputs.TASKS)}, got {task!r}")
    t = inputs.tensor("baseline", "train_target", train_target)
    if t.ndim == 0 or t.numel() == 0:
        raise ValueError(f"baseline: train_target has no samples: {tuple(t.shape)}")
    if t.ndim == 2 and t.shape[1] == 1:
        t = t[:, 0]
    w = torch.ones(len(t), dtype=torch.float64, device=t.device)
    if weight is not None:
        w = inputs.weights("baseline", weight, t)
        if not bool((w >= 0).all()) or not float(w.sum()) > 0:
            raise ValueError("baseline: weights must not be negative, nor all 0")
    if task in ("multiclass", "segmentation"):
        if int(t.min()) < 0:
            raise ValueError(f"baseline: train_target must be classes from 0, got {int(t.min())}")
        known = classes or max(int(t.max()) + 1, 2)
        each = w.view(-1, *[1] * (t.ndim - 1)).expand(t.shape).reshape(-1)
        counts = torch.bincount(t.reshape(-1).long(), weights=each, minlength=known)
        if len(counts) > known:
            raise ValueError(f"baseline: train_target must lie in 0..{known - 1}, got {t.max()}")
        return counts / counts.sum()
    return torch.tensordot(w, t.double(), 1) / w.sum()


def baseline(
    task: inputs.Task,
    train_target: Any,
    test_target: Any,
    *,
    classes: int | None = None,
    weight: Any = None,
    test_weight: Any = None,
    confidence: float | None = 0.95,
) -> dict[str, Score]:
    """The standard table of the constant predictor fitted on train: what a model must beat.

    It says the class frequencies (so its accuracy is that of the most frequent class) or the mean
    of the training targets. ``classes`` where the last ones need not occur in either target; a
    segmentation with two classes is scored as (N, H, W) probabilities of class 1.

    Shapes: targets as for ``evaluate``; weight and test_weight (N,).

    Raises:
        ValueError: as for ``evaluate``.

    >>> scores = baseline("binary", [0, 0, 0, 1], [0, 1])
    >>> float(scores["accuracy"]), float(scores["auc"])
    (0.5, 0.5)
    """
    t = inputs.tensor("baseline", "test_target", test_target)
    if task in ("multiclass", "segmentation") and t.numel() and classes is None:
        train = inputs.tensor("baseline", "train_target", train_target)
        top = max(int(t.max()), int(train.max()) if train.numel() else 0)
        classes = max(top + 1, 2)
    said = constant(task, train_target, weight=weight, classes=classes).to(t.device)
    if task == "segmentation":
        pixels = t.shape[1:]
        if len(said) == 2:
            everywhere = said[1].expand(len(t), *pixels)
        else:
            everywhere = said.view(1, -1, *[1] * len(pixels)).expand(len(t), -1, *pixels)
    else:
        everywhere = said.expand(len(t), *said.shape)
    return evaluate(task, everywhere, t, weight=test_weight, confidence=confidence)
