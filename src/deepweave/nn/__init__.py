"""Networks and their parts: any of them goes into any objective."""

from deepweave.nn.dense import Dense, Lambda, Residual, activation_layer, mlp, shallow

__all__ = ["Dense", "Lambda", "Residual", "activation_layer", "mlp", "shallow"]
