"""Preparation: what is fitted on the training rows and done to every row after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from deepweave.data.graphs import Network
from deepweave.data.images import Images
from deepweave.data.molecules import Molecules
from deepweave.data.rows import Rows
from deepweave.data.sequences import Sequences
from deepweave.data.spec import Kind, Spec
from deepweave.data.tables import Table
from deepweave.data.targets import Target
from deepweave.data.text import Pair, Text

Features = Table | Images | Sequences | Text | Pair | Network | Molecules
FORMS: dict[str, Any] = {
    "table": Table, "image": Images, "sequence": Sequences, "text": Text, "pair": Pair,
    "network": Network, "molecules": Molecules,
}  # fmt: skip


@dataclass(frozen=True)
class Preparation:
    """From raw rows to the tensors of a model, and from its predictions to the target's unit.

    Fitted on the training rows alone; ``sentences`` says in plain words what it does.
    ``Preparation.from_json(preparation.to_json())`` gives the same numbers to the last bit.
    """

    features: Features
    target: Target
    sentences: Sequence[str] = ()

    @property
    def kind(self) -> Kind:
        """Whether it prepares tables, images, sequences, texts or graphs."""
        return self.features.kind

    @property
    def spec(self) -> Spec:
        """What the prepared data ask of a model."""
        target = self.target
        return Spec(
            target.task,
            self.features.shape,
            target.outputs,
            classes=target.classes,
            features=self.features.names,
            targets=target.names,
            unit=target.unit,
            kind=self.kind,
            vocabulary=len(getattr(self.features, "vocabulary", ())),
        )

    def inputs(self, raw: Any) -> Rows:
        """Raw rows as model inputs: ``(N, *shape)`` float32 of tables and images.

        Tables: a DataFrame with the training columns in any order, or an array of them in the
        training order. Images: an array of pixels, or a sequence of file paths. Sequences: a
        list of arrays (T, F). Texts: a list of strings.

        Raises:
            ValueError: a missing column, text in a column of numbers, images of another shape.
        """
        return self.features.inputs(raw)

    def restore(self, prediction: Tensor) -> Tensor:
        """Predictions in the original unit: ``prediction * scale + mean`` for regression.

        Shapes: ``(N,)`` or ``(N, T)`` -> the same; identity for classification.
        """
        return self.target.restore(prediction)

    def to_json(self) -> dict[str, Any]:
        """The preparation as plain lists, numbers and strings."""
        return {
            "kind": next(name for name, form in FORMS.items() if isinstance(self.features, form)),
            "features": self.features.to_json(),
            "target": self.target.to_json(),
            "sentences": list(self.sentences),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Preparation:
        """The preparation that ``to_json`` wrote."""
        return cls(
            FORMS[record["kind"]].from_json(record["features"]),
            Target.from_json(record["target"]),
            list(record["sentences"]),
        )
