"""The numbers of a run in words: what a score is called, how it is written, times and sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple


class Score(NamedTuple):
    """One number with its interval; ``low`` and ``high`` are None where there is none."""

    value: float
    low: float | None = None
    high: float | None = None
    method: str = ""


class Metric(NamedTuple):
    """How a score is called and written; ``bounded`` scores lie between 0 and 1."""

    label: str
    percent: bool = False
    higher: bool = True
    bounded: bool = True
    unit: bool = False  # in the unit of the target


METRICS: dict[str, Metric] = {
    "accuracy": Metric("Accuracy", percent=True),
    "balanced_accuracy": Metric("Balanced accuracy", percent=True),
    "subset_accuracy": Metric("All labels right", percent=True),
    "hamming_loss": Metric("Hamming loss", percent=True, higher=False),
    "precision": Metric("Precision", percent=True),
    "recall": Metric("Recall", percent=True),
    "specificity": Metric("Specificity", percent=True),
    "f1": Metric("F1"),
    "auc": Metric("Area under ROC"),
    "roc_auc": Metric("Area under ROC"),
    "average_precision": Metric("Average precision"),
    "mcc": Metric("Matthews correlation", bounded=False),
    "kappa": Metric("Cohen's kappa", bounded=False),
    "log_loss": Metric("Log loss (nats)", higher=False, bounded=False),
    "loss": Metric("Loss", higher=False, bounded=False),
    "bits": Metric("Bits per token", higher=False, bounded=False),
    "psnr": Metric("PSNR (dB)", bounded=False),
    "nll": Metric("Nats per sample", higher=False, bounded=False),
    "bits_per_dim": Metric("Bits per dimension", higher=False, bounded=False),
    "mmd": Metric("MMD squared", higher=False, bounded=False),
    "kid": Metric("KID", higher=False, bounded=False),
    "frechet": Metric("Fréchet distance", higher=False, bounded=False),
    "c2st": Metric("Told from real ones", percent=True, higher=False),
    "density": Metric("Density", bounded=False),
    "coverage": Metric("Coverage", percent=True),
    "kl": Metric("KL divergence (nats)", bounded=False),
    "reconstruction": Metric("Reconstruction (nats)", bounded=False),
    "critic": Metric("Discriminator's loss", bounded=False),
    "generator": Metric("Generator's loss", bounded=False),
    "told": Metric("Real told above fake", bounded=False),
    "variety": Metric("Variance, of that of real samples", bounded=False),
    "memorised": Metric("Nearer to training than new data", percent=True, higher=False),
    "perplexity": Metric("Perplexity", higher=False, bounded=False),
    "word_accuracy": Metric("Whole words right", percent=True),
    "error_rate": Metric("Error rate (edits per token)", percent=True, higher=False, bounded=False),
    "chrf": Metric("chrF", percent=True),
    "brier": Metric("Brier score", higher=False),
    "ece": Metric("Calibration error", percent=True, higher=False),
    "dice": Metric("Dice"),
    "iou": Metric("Intersection over union"),
    "jaccard": Metric("Intersection over union"),
    "pixel_accuracy": Metric("Pixel accuracy", percent=True),
    "rmse": Metric("RMSE", higher=False, bounded=False, unit=True),
    "mae": Metric("Mean absolute error", higher=False, bounded=False, unit=True),
    "mse": Metric("Mean squared error", higher=False, bounded=False),
    "mape": Metric("MAPE", percent=True, higher=False, bounded=False),
    "r2": Metric("R²", bounded=False),
}


def scores_of(entries: Mapping[str, Any]) -> dict[str, Score]:
    """Scores from the JSON of a run; an entry that is no finite number is left out."""
    found = {}
    for key, entry in entries.items():
        inner = entry if isinstance(entry, Mapping) else {"value": entry}
        value, low, high = (_finite(inner.get(name)) for name in ("value", "low", "high"))
        if value is not None:
            found[str(key)] = Score(value, low, high, str(inner.get("method") or ""))
    return found


def _finite(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) else None


def metric(key: str) -> Metric:
    """How the score ``key`` is called and written.

    >>> metric("test/f1_macro").label
    'F1, macro'
    """
    name = key.rsplit("/", 1)[-1]
    if name in METRICS:
        return METRICS[name]
    for stem in sorted(METRICS, key=len, reverse=True):
        if name.startswith(stem + "_"):
            tail = name[len(stem) + 1 :].replace("_", " ")
            return METRICS[stem]._replace(label=f"{METRICS[stem].label}, {tail}")
    return Metric(name.replace("_", " ").capitalize(), bounded=False)


def number(value: float | int | None, digits: int = 3) -> str:
    """A number in at most ``digits`` significant digits; whole numbers in full.

    >>> number(17226), number(0.0123456), number(-54.2391), number(3.2e-7)
    ('17,226', '0.0123', '−54.2', '3.2e−7')
    """
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if float(value).is_integer() and size < 1e15:
        text = f"{int(value):,}"
    elif size >= 10**digits:
        text = f"{value:,.0f}"
    elif size < 1e-4:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        text = f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    else:
        text = f"{value:.{max(0, digits - 1 - math.floor(math.log10(size)))}f}"
    return text.replace("-", "−")


def column(values: Sequence[float]) -> list[str]:
    """Numbers that stand under one another: as many decimals for all as the largest needs.

    >>> column([1.0, -0.5, 0.25]), column([3.0, 12.0])
    (['1.00', '−0.50', '0.25'], ['3', '12'])
    """
    finite = [abs(value) for value in values if math.isfinite(value)]
    top = max(finite, default=0.0)
    digits = 0 if all(float(value).is_integer() for value in finite) or top >= 1000 else 2
    digits = 4 if digits and top < 0.1 else 1 if digits and top >= 100 else digits
    rounded = [round(value, digits) + 0.0 if math.isfinite(value) else None for value in values]
    return ["–" if r is None else f"{r:,.{digits}f}".replace("-", "−") for r in rounded]


def amount(key: str, value: float | None, unit: str = "") -> str:
    """The value of a score as it is written: percent, plain, or with the target's unit.

    >>> amount("test/accuracy", 0.98123).split(), amount("test/rmse", 54.239, "mmHg").split()
    (['98.1', '%'], ['54.2', 'mmHg'])
    """
    how = metric(key)
    if value is None or not math.isfinite(value):
        return "–"
    if how.percent:
        return f"{100 * value:.1f}\u00a0%".replace("-", "−")
    text = f"{value:.3f}".replace("-", "−") if how.bounded else number(value)
    return f"{text}\u00a0{unit}" if how.unit and unit else text


def interval(key: str, score: Score) -> str:
    """The interval of a score in brackets, or nothing."""
    if score.low is None or score.high is None:
        return ""
    low, high = (amount(key, end).removesuffix("\u00a0%") for end in (score.low, score.high))
    return f"[{low}, {high}]"


def duration(seconds: float | None) -> str:
    """A time in words.

    >>> [" ".join(duration(seconds).split()) for seconds in (9.31, 95, 7384)]
    ['9.3 s', '1 min 35 s', '2 h 3 min']
    """
    if seconds is None:
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f}\u00a0s" if seconds >= 1 else f"{1000 * seconds:.0f}\u00a0ms"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}\u00a0min {whole % 60}\u00a0s"
    return f"{whole // 3600}\u00a0h {whole % 3600 // 60}\u00a0min"


def storage(count: float | None) -> str:
    """A number of bytes in words, in powers of 1000.

    >>> storage(68_904).split(), storage(14_200_000).split()
    (['68.9', 'kB'], ['14.2', 'MB'])
    """
    if count is None:
        return "–"
    for name in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{number(count)}\u00a0{name}"
        count = count / 1000
    return f"{number(count)}\u00a0GB"


def moment(text: Any) -> str:
    """An ISO 8601 time as a date and an hour, or the text itself."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return str(text or "")
    return f"{at.day} {at:%B %Y, %H:%M}"
