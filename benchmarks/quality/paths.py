"""The whole path of Lasso and ElasticNet in one Population, beside scikit-learn's own.

Diabetes, 442 x 10, standardised; 100 strengths over three decades. What is compared: the largest
difference of a weight anywhere on the path, whether the same weights are exactly zero, and the
time. scikit-learn's coordinate descent is made for this one problem and wins by far; the
Population takes any model and any loss. Run it with ``python -m benchmarks.quality.paths``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import enet_path

import deepweave as dw
from benchmarks import harness

STEPS, RATE, MOMENTUM = 300, 0.45, 0.83


def ours(x: torch.Tensor, y: torch.Tensor, alphas: np.ndarray, ratio: float) -> np.ndarray:
    """Weights (strengths, features) by proximal steps, all strengths at once."""
    base = dw.Penalize(dw.Regress(dw.nn.shallow((x.shape[1], 1))), l1=0.0, l2=0.0, proximal=True)
    members = base.double().path(l1=2 * alphas * ratio, l2=alphas * (1 - ratio))
    many = dw.Population(members, optimizer="SGD", lr=RATE, momentum=MOMENTUM, shared=True)
    dw.fit(many, [(x, y)], steps=STEPS)
    return many.weights()["objective.model.0.weight"][:, 0].numpy()


def main() -> None:
    """Compare both problems and save what came."""
    torch.set_num_threads(1)
    x, y = (np.asarray(part) for part in load_diabetes(return_X_y=True))
    x, y = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
    rows, target = torch.tensor(x), torch.tensor(y)
    results: dict[str, dict[str, Any]] = {}
    for name, ratio in (("Lasso", 1.0), ("ElasticNet, half and half", 0.5)):
        settings: Any = {"l1_ratio": ratio, "eps": 1e-3, "alphas": 100}
        alphas, exact = enet_path(x, y, **settings, tol=1e-12, max_iter=100_000)[:2]
        usual = enet_path(x, y, **settings)[1]
        found = ours(rows, target, alphas, ratio).T
        times = harness.compare(
            {
                "scikit-learn": lambda s=settings: enet_path(x, y, **s),
                "deepweave": lambda a=alphas, r=ratio: ours(rows, target, a, r),
            },
            baseline="scikit-learn",
            rounds=7,
        )
        results[name] = {
            "largest difference of a weight": float(abs(found - exact).max()),
            "same, scikit-learn at its own tolerance": float(abs(usual - exact).max()),
            "zeros": int((exact == 0).sum()),
            "zeros that differ": int(((found == 0) != (exact == 0)).sum()),
            "scikit-learn ms": 1e3 * times["scikit-learn"]["seconds"],
            "deepweave ms": 1e3 * times["deepweave"]["seconds"],
            "times slower": times["deepweave"]["ratio"],
            "from": times["deepweave"]["ratio_low"],
            "to": times["deepweave"]["ratio_high"],
        }
        print(name, results[name])
    harness.save("paths", results, command="OMP_NUM_THREADS=1 python -m benchmarks.quality.paths")


if __name__ == "__main__":
    main()
