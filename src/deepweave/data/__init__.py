"""Data: named sets and the user's own, as three splits of tensors with a specification.

>>> data = load("iris")
>>> data.spec.task, data.spec.shape, data.spec.classes
('multiclass', (4,), ('setosa', 'versicolor', 'virginica'))
>>> [len(split) for split in (data.train, data.validation, data.test)]
[105, 22, 23]
"""

from __future__ import annotations

from deepweave.data.conversion import from_networkx, from_pyg, to_networkx, to_pyg
from deepweave.data.dataset import Data
from deepweave.data.graphs import Graphs, Nodes, Pairs, nearest_graph
from deepweave.data.links import links
from deepweave.data.load import load, names, read
from deepweave.data.prepare import Preparation
from deepweave.data.ragged import Ragged
from deepweave.data.spec import Spec
from deepweave.data.split import Batches, Split
from deepweave.data.weights import weights

__all__ = [
    "Batches",
    "Data",
    "Graphs",
    "Nodes",
    "Pairs",
    "Preparation",
    "Ragged",
    "Spec",
    "Split",
    "from_networkx",
    "from_pyg",
    "links",
    "load",
    "names",
    "nearest_graph",
    "read",
    "to_networkx",
    "to_pyg",
    "weights",
]
