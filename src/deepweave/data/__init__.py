"""Data: named sets and the user's own, as three splits of tensors with a specification.

>>> data = load("iris")
>>> data.spec.task, data.spec.shape, data.spec.classes
('multiclass', (4,), ('setosa', 'versicolor', 'virginica'))
>>> [len(split) for split in (data.train, data.validation, data.test)]
[105, 22, 23]
"""

from __future__ import annotations

from deepweave.data.dataset import Data
from deepweave.data.load import load, names, read
from deepweave.data.prepare import Preparation
from deepweave.data.spec import Spec
from deepweave.data.split import Batches, Split

__all__ = ["Batches", "Data", "Preparation", "Spec", "Split", "load", "names", "read"]
