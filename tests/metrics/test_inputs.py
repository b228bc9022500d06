"""Bad input gives one clear error; every form of good input is taken."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deepweave import metrics

HARD = (
    metrics.accuracy,
    metrics.precision,
    metrics.recall,
    metrics.specificity,
    metrics.f1,
    metrics.jaccard,
    metrics.dice,
    metrics.balanced_accuracy,
    metrics.mcc,
    metrics.kappa,
    metrics.hamming,
)
SOFT = (metrics.log_loss, metrics.brier, metrics.ece)
RANKED = (metrics.auc, metrics.average_precision)
NUMBERS = (metrics.mse, metrics.rmse, metrics.mae, metrics.mape, metrics.r2)
P, Y = torch.tensor([0.1, 0.8, 0.4, 0.9]), torch.tensor([0, 1, 1, 1])


def named(metrics_):
    return pytest.mark.parametrize("metric", metrics_, ids=lambda m: m.__name__)


def refused(metric, match, *args, error: type[Exception] = ValueError, **options):
    with pytest.raises(error, match=match) as caught:
        metric(*args, **options)
    text = str(caught.value)
    assert "\n" not in text
    if hasattr(metric, "__name__"):
        assert text.startswith(metric.__name__ + ":")


@named(HARD + SOFT + RANKED + NUMBERS)
def test_what_every_metric_refuses(metric):
    refused(metric, r"target must be \(N,\) = \(4,\), got \(5,\)", P, torch.zeros(5).long())
    refused(metric, "no samples", torch.zeros(0), torch.zeros(0))
    refused(metric, "scalars", torch.tensor(0.5), torch.tensor(1))
    refused(metric, "NaN|not finite", torch.tensor([0.1, math.nan, 0.2, 0.3]), Y)
    refused(metric, "weights are negative", P, Y, weight=[1.0, -1.0, 1.0, 1.0])
    refused(metric, "weights are negative", P, Y, weight=[1.0, math.nan, 1.0, 1.0])
    refused(metric, "weights sum to 0", P, Y, weight=[0.0] * 4)
    refused(metric, r"weight must be \(N,\) = \(4,\), got \(3,\)", P, Y, weight=[1.0] * 3)
    refused(metric, "prediction must be a tensor", "text", Y, error=TypeError)
    refused(metric, "must be real", P.to(torch.complex64), Y, error=TypeError)


@named(HARD + SOFT + RANKED)
def test_what_every_classification_metric_refuses(metric):
    refused(metric, "targets (are not|must be) whole numbers", P, torch.tensor([0, 1, 2, 1]))
    refused(metric, "targets (are not|must be) whole numbers", P, torch.tensor([0, 1, -1, 1]))
    refused(metric, "targets (are not|must be) whole numbers", P, torch.tensor([0, 1, 0.5, 1]))
    three = torch.full((4, 3), 1 / 3)
    for bad in (3, -1, 10**6):
        y = torch.tensor([0, 1, bad, 1])
        refused(metric, "targets (are not|must be) whole numbers", three, y)
    refused(metric, "target must be", three, torch.zeros(4, 2).long())


@named(HARD)
def test_hard_labels_and_probabilities_out_of_range(metric):
    refused(metric, "predictions are no class", torch.tensor([0, 1, 5, 1]), Y, classes=2)
    refused(metric, "predictions are no class", torch.tensor([0, -1, 1, 1]), Y)
    refused(metric, r"probability in \[0, 1\]", P * 3, Y)
    refused(metric, "classes = 4, but the prediction has 3", torch.rand(4, 3), Y, classes=4)


@named(SOFT)
def test_logits_are_no_probabilities(metric):
    refused(metric, "logits", P * 9 - 4, Y)
    refused(metric, "sum to 1", torch.full((4, 3), 0.9), Y)
    refused(metric, "prediction must be probabilities", Y, Y, error=TypeError)


def test_options_are_checked():
    three, y = torch.full((4, 3), 1 / 3), torch.tensor([0, 1, 2, 1])
    refused(metrics.f1, "average must be", three, y, average="samples")
    refused(metrics.f1, 'average "binary" needs two classes', three, y, average="binary")
    refused(metrics.fbeta, "beta must be positive", P, Y, beta=0.0)
    refused(metrics.kappa, "power must be 0, 1 or 2", P, Y, power=3)
    refused(metrics.auc, "versus must be", three, y, versus="all")
    refused(metrics.auc, "average must be", three, y, average="none")
    refused(metrics.auc, "no meaning one against one", three, y, versus="one", average="micro")
    refused(metrics.top_k, "k must be from 1 to 3", three, y, k=4)
    refused(metrics.top_k, r"prediction must be \(N, K\)", P, Y, k=1)
    refused(metrics.ece, "bins must be at least 1", P, Y, bins=0)
    refused(metrics.roc, "take one class", three, y)
    refused(metrics.mcc, "take each alone", torch.rand(4, 2), torch.ones(4, 2))
    refused(metrics.per_class, "metric must be one of", abs, P, Y, error=TypeError)
    refused(metrics.bootstrap, "columns must be", lambda m: m, torch.zeros(0, 2))
    refused(metrics.evaluate, "task must be one of", "ranking", P, Y)
    refused(metrics.evaluate, r"prediction must be \(N, K\)", "multiclass", P, Y)
    refused(metrics.baseline, "task must be one of", "ranking", Y, Y)
    refused(metrics.baseline, "train_target has no samples", "binary", torch.zeros(0), Y)
    for make in (
        lambda: metrics.Confusion(1),
        lambda: metrics.Stream("sorting"),  # pyright: ignore
        lambda: metrics.Stream("multiclass", 1),
        lambda: metrics.Stream("binary").result(),
        lambda: metrics.mcnemar(-1, 2),
    ):
        with pytest.raises(ValueError, match=r"must|no samples"):
            make()


def test_weights_with_some_batches_only():
    tally = metrics.Ranking().update(P, Y).update(P, Y, [1.0] * 4)
    with pytest.raises(ValueError, match="weights came with some batches"):
        tally.auc()


def test_a_batch_that_does_not_fit_the_tally():
    with pytest.raises(ValueError, match=r"prediction must be \(N, K\) = \(4, 3\), got \(4, 2\)"):
        metrics.Confusion(3).update(torch.rand(4, 2), Y)
    with pytest.raises(ValueError, match=r"target must be \(N, T\) = \(4, 2\), got \(4,\)"):
        metrics.Errors(2).update(torch.rand(4, 2), P)
    with pytest.raises(ValueError, match="prediction must be"):
        metrics.Stream("multilabel", 3).update(torch.rand(4, 2), torch.ones(4, 2))


def test_arrays_lists_dtypes_and_columns_are_one():
    want = metrics.f1(P, Y)
    forms = [
        (P.numpy(), Y.numpy()),
        (P.tolist(), Y.tolist()),
        (P.double(), Y.float()),
        (P.half(), Y.to(torch.uint8)),
        (P[:, None], Y[:, None]),
        (P.bfloat16(), Y.bool()),
        (P > 0.5, Y),
        ((P > 0.5).long(), Y.numpy().astype(np.int32)),
        (P.clone().requires_grad_(), Y),
        (torch.stack([1 - P, P], 1), Y),
    ]
    for p, y in forms:
        got = metrics.f1(p, y)
        assert (got, got.low, got.high) == (want, want.low, want.high)
    assert metrics.accuracy(torch.tensor([0, 1, 1, 1]), Y) == 1.0
    assert metrics.accuracy(torch.tensor([0.5]), torch.tensor([1])) == 0.0  # above, not at
    assert metrics.accuracy(P, Y, threshold=0.3) == 1.0


def test_an_index_that_wraps_is_not_taken_for_another_cell():
    """Said 3 of 3 classes for true 0 would land in cell (1, 0) if it were not checked."""
    with pytest.raises(ValueError, match="predictions are no class"):
        metrics.confusion_matrix(torch.tensor([3, 1]), torch.tensor([0, 1]), classes=3)
    with pytest.raises(ValueError, match="targets are not whole numbers"):
        metrics.Confusion(3).update(torch.tensor([2, 1]), torch.tensor([-1, 1])).matrix()
