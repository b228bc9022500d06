"""A data set as a whole: three splits, what they ask of a model, and where they are from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from deepweave.data.prepare import Preparation
from deepweave.data.rows import named
from deepweave.data.spec import Spec
from deepweave.data.split import Split


@dataclass(frozen=True, eq=False)
class Data:
    """Training, validation and test samples with their specification and preparation."""

    name: str
    title: str
    source: str
    licence: str
    spec: Spec
    train: Split
    validation: Split
    test: Split
    preparation: Preparation

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def to(self, device: torch.device | str) -> Data:
        """The data set with its splits on a device."""
        moved = {name: split.to(device) for name, split in self.splits.items()}
        return replace(self, **moved)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the tensors and the names: the same exactly when the data are."""
        digest = hashlib.sha256(repr(sorted(self.spec.to_json().items())).encode())
        for name, split in self.splits.items():
            for field in ("x", "y", "weight"):
                rows = getattr(split, field)
                for label, tensor in named(rows, f"{name}.{field}") if rows is not None else ():
                    digest.update(f"{label} {tuple(tensor.shape)} {tensor.dtype}".encode())
                    held: Any = tensor.detach().cpu().contiguous().numpy()
                    digest.update(memoryview(held).cast("B"))
        return digest.hexdigest()

    def summary(self) -> dict[str, Any]:
        """What a run records of its data, as plain lists, numbers and strings."""
        counts: dict[str, list[int]] = {}
        for name, split in self.splits.items():
            if self.spec.task in ("binary", "multiclass"):
                classes = 2 if self.spec.task == "binary" else self.spec.outputs
                counts[name] = torch.bincount(split.y.cpu(), minlength=classes).tolist()
            elif self.spec.task == "multilabel":
                counts[name] = split.y.sum(0).long().tolist()
        return {
            "name": self.name,
            "title": self.title,
            "source": self.source,
            "licence": self.licence,
            "fingerprint": self.fingerprint,
            "splits": {name: len(split) for name, split in self.splits.items()},
            "class_counts": counts,
            "spec": self.spec.to_json(),
            "preparation": list(self.preparation.sentences),
        }
