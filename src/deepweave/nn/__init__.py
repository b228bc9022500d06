"""Networks and their parts: any of them goes into any objective."""

from deepweave.nn.activations import Choice, Lambda, activation_layer
from deepweave.nn.dense import Dense, Residual, mlp, shallow
from deepweave.nn.dropout import Dropout
from deepweave.nn.initialization import initialize, lsuv
from deepweave.nn.segmenter import Segmenter, segmenter

__all__ = [
    "Choice",
    "Dense",
    "Dropout",
    "Lambda",
    "Residual",
    "Segmenter",
    "activation_layer",
    "initialize",
    "lsuv",
    "mlp",
    "segmenter",
    "shallow",
]
