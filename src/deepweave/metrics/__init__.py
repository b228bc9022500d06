"""Metrics with weights, intervals, and tallies that stream: ``metric(prediction, target)``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepweave.metrics import generative as generative
    from deepweave.metrics.agreement import (
        balanced_accuracy as balanced_accuracy,
        hamming as hamming,
        kappa as kappa,
        mcc as mcc,
    )
    from deepweave.metrics.breakdown import (
        confusion_matrix as confusion_matrix,
        per_class as per_class,
    )
    from deepweave.metrics.calibration import (
        Likelihood as Likelihood,
        Reliability as Reliability,
        brier as brier,
        ece as ece,
        log_loss as log_loss,
        reliability as reliability,
        top_k as top_k,
    )
    from deepweave.metrics.classification import (
        accuracy as accuracy,
        f1 as f1,
        fbeta as fbeta,
        precision as precision,
        recall as recall,
        specificity as specificity,
    )
    from deepweave.metrics.comparison import difference as difference, mcnemar as mcnemar
    from deepweave.metrics.confusion import Confusion as Confusion
    from deepweave.metrics.curves import (
        Curve as Curve,
        auc as auc,
        average_precision as average_precision,
        precision_recall as precision_recall,
        roc as roc,
    )
    from deepweave.metrics.edits import edit_distance as edit_distance, error_rate as error_rate
    from deepweave.metrics.evaluation import (
        baseline as baseline,
        constant as constant,
        evaluate as evaluate,
    )
    from deepweave.metrics.overlap import dice as dice, jaccard as jaccard
    from deepweave.metrics.ranking import Ranking as Ranking
    from deepweave.metrics.regression import (
        Errors as Errors,
        mae as mae,
        mape as mape,
        mse as mse,
        r2 as r2,
        rmse as rmse,
    )
    from deepweave.metrics.repeats import (
        over_samples as over_samples,
        over_seeds as over_seeds,
        rmse_gain as rmse_gain,
    )
    from deepweave.metrics.score import Difference as Difference, Score as Score
    from deepweave.metrics.stream import Stream as Stream
    from deepweave.metrics.tally import Tally as Tally
    from deepweave.metrics.tokens import tokens as tokens
    from deepweave.metrics.translation import chrf as chrf
    from deepweave.metrics.uncertainty import (
        bootstrap as bootstrap,
        clopper_pearson as clopper_pearson,
        wilson as wilson,
    )

_HOMES = {  # public name -> the module that holds it
    "Confusion": "confusion",
    "Curve": "curves",
    "Difference": "score",
    "Errors": "regression",
    "Likelihood": "calibration",
    "Ranking": "ranking",
    "Reliability": "calibration",
    "Score": "score",
    "Stream": "stream",
    "Tally": "tally",
    "accuracy": "classification",
    "auc": "curves",
    "average_precision": "curves",
    "balanced_accuracy": "agreement",
    "baseline": "evaluation",
    "bootstrap": "uncertainty",
    "brier": "calibration",
    "chrf": "translation",
    "clopper_pearson": "uncertainty",
    "confusion_matrix": "breakdown",
    "constant": "evaluation",
    "dice": "overlap",
    "difference": "comparison",
    "ece": "calibration",
    "edit_distance": "edits",
    "error_rate": "edits",
    "evaluate": "evaluation",
    "f1": "classification",
    "fbeta": "classification",
    "hamming": "agreement",
    "jaccard": "overlap",
    "kappa": "agreement",
    "log_loss": "calibration",
    "mae": "regression",
    "mape": "regression",
    "mcc": "agreement",
    "mcnemar": "comparison",
    "mse": "regression",
    "over_samples": "repeats",
    "over_seeds": "repeats",
    "per_class": "breakdown",
    "precision": "classification",
    "precision_recall": "curves",
    "r2": "regression",
    "recall": "classification",
    "reliability": "calibration",
    "rmse": "regression",
    "rmse_gain": "repeats",
    "roc": "curves",
    "specificity": "classification",
    "tokens": "tokens",
    "top_k": "calibration",
    "wilson": "uncertainty",
}


def __getattr__(name: str) -> Any:
    if name == "generative":  # a family of its own: generative.mmd, generative.c2st ...
        return importlib.import_module("deepweave.metrics.generative")
    if name not in _HOMES:
        raise AttributeError(f"module 'deepweave.metrics' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"deepweave.metrics.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*_HOMES, "generative"})
