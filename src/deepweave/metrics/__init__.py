"""Metrics with weights, intervals, and tallies that stream: ``metric(prediction, target)``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepweave.metrics.agreement import (
        balanced_accuracy as balanced_accuracy,
    )
    from deepweave.metrics.agreement import (
        hamming as hamming,
    )
    from deepweave.metrics.agreement import (
        kappa as kappa,
    )
    from deepweave.metrics.agreement import (
        mcc as mcc,
    )
    from deepweave.metrics.breakdown import (
        confusion_matrix as confusion_matrix,
    )
    from deepweave.metrics.breakdown import (
        per_class as per_class,
    )
    from deepweave.metrics.calibration import (
        Likelihood as Likelihood,
    )
    from deepweave.metrics.calibration import (
        Reliability as Reliability,
    )
    from deepweave.metrics.calibration import (
        brier as brier,
    )
    from deepweave.metrics.calibration import (
        ece as ece,
    )
    from deepweave.metrics.calibration import (
        log_loss as log_loss,
    )
    from deepweave.metrics.calibration import (
        reliability as reliability,
    )
    from deepweave.metrics.calibration import (
        top_k as top_k,
    )
    from deepweave.metrics.classification import (
        accuracy as accuracy,
    )
    from deepweave.metrics.classification import (
        f1 as f1,
    )
    from deepweave.metrics.classification import (
        fbeta as fbeta,
    )
    from deepweave.metrics.classification import (
        precision as precision,
    )
    from deepweave.metrics.classification import (
        recall as recall,
    )
    from deepweave.metrics.classification import (
        specificity as specificity,
    )
    from deepweave.metrics.comparison import difference as difference
    from deepweave.metrics.comparison import mcnemar as mcnemar
    from deepweave.metrics.confusion import Confusion as Confusion
    from deepweave.metrics.curves import (
        Curve as Curve,
    )
    from deepweave.metrics.curves import (
        Ranking as Ranking,
    )
    from deepweave.metrics.curves import (
        auc as auc,
    )
    from deepweave.metrics.curves import (
        average_precision as average_precision,
    )
    from deepweave.metrics.curves import (
        precision_recall as precision_recall,
    )
    from deepweave.metrics.curves import (
        roc as roc,
    )
    from deepweave.metrics.evaluation import (
        baseline as baseline,
    )
    from deepweave.metrics.evaluation import (
        constant as constant,
    )
    from deepweave.metrics.evaluation import (
        evaluate as evaluate,
    )
    from deepweave.metrics.overlap import dice as dice
    from deepweave.metrics.overlap import jaccard as jaccard
    from deepweave.metrics.regression import (
        Errors as Errors,
    )
    from deepweave.metrics.regression import (
        mae as mae,
    )
    from deepweave.metrics.regression import (
        mape as mape,
    )
    from deepweave.metrics.regression import (
        mse as mse,
    )
    from deepweave.metrics.regression import (
        r2 as r2,
    )
    from deepweave.metrics.regression import (
        rmse as rmse,
    )
    from deepweave.metrics.score import Difference as Difference
    from deepweave.metrics.score import Score as Score
    from deepweave.metrics.stream import Stream as Stream
    from deepweave.metrics.tally import Tally as Tally
    from deepweave.metrics.uncertainty import (
        bootstrap as bootstrap,
    )
    from deepweave.metrics.uncertainty import (
        clopper_pearson as clopper_pearson,
    )
    from deepweave.metrics.uncertainty import (
        wilson as wilson,
    )

_HOMES = {  # public name -> the module that holds it
    "Confusion": "confusion",
    "Curve": "curves",
    "Difference": "score",
    "Errors": "regression",
    "Likelihood": "calibration",
    "Ranking": "curves",
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
    "clopper_pearson": "uncertainty",
    "confusion_matrix": "breakdown",
    "constant": "evaluation",
    "dice": "overlap",
    "difference": "comparison",
    "ece": "calibration",
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
    "per_class": "breakdown",
    "precision": "classification",
    "precision_recall": "curves",
    "r2": "regression",
    "recall": "classification",
    "reliability": "calibration",
    "rmse": "regression",
    "roc": "curves",
    "specificity": "classification",
    "top_k": "calibration",
    "wilson": "uncertainty",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'deepweave.metrics' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"deepweave.metrics.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_HOMES)
