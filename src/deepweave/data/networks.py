"""The named sets of graphs: the karate club, digits as a graph of neighbours, solubility."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepweave.data.dataset import Data
from deepweave.data.graphs import Network, Nodes, nearest_graph
from deepweave.data.molecules import Molecules, read_sdf
from deepweave.data.prepare import Preparation
from deepweave.data.split import Split, divide
from deepweave.data.targets import Target
from deepweave.functional.graph import Graph, graph
from deepweave.run import derive


def nodes_of(
    held: Graph, y: Tensor, known: dict[str, str], *, classes: tuple[str, ...], labels: int,
    validation: int, seed: int = 0, target: str = "class", told: str = "",
) -> Data:  # fmt: skip
    """A data set of the nodes of one graph, ``labels`` of each class to learn from.

    The graph with all features is seen whole by every split: what is held out are the labels.

    Raises:
        ValueError: a class with too few nodes, or nothing left to test.
    """
    sizes = torch.bincount(y, minlength=len(classes))
    if labels < 1 or int(sizes.min()) <= labels:
        raise ValueError(
            f"load: labels must lie in 1..{int(sizes.min()) - 1}, the smallest class has "
            f"{int(sizes.min())} nodes, got {labels}"
        )
    random = torch.Generator().manual_seed(derive(seed, "labels"))
    order = torch.randperm(len(y), generator=random)
    order = order[torch.argsort(y[order], stable=True)]
    rank = torch.arange(len(y)) - (sizes.cumsum(0) - sizes)[y[order]]
    train, rest = order[rank < labels].sort().values, order[rank >= labels].sort().values
    if not 0 < validation < len(rest):
        raise ValueError(f"load: validation must lie in 1..{len(rest) - 1} nodes, got {validation}")
    share = validation / len(rest)
    parts = [rest[part] for part in divide(len(rest), (share, 1 - share), seed, y[rest])]
    held_out = dict(zip(("train", "validation", "test"), (train, *parts)))
    words = ", ".join(f"{len(index)} {name}" for name, index in held_out.items())
    sentences = [
        f"{told}{held.nodes} nodes, {held.edges.shape[1] // 2} edges. The graph and the features "
        "of all nodes are seen in training, the labels of the others are not.",
        f"{words} nodes: {labels} of each class to learn from, drawn with seed {seed}.",
    ]
    task = "binary" if len(classes) == 2 else "multiclass"
    made = Target(task, (target,), classes, tuple(range(len(classes))))
    preparation = Preparation(Network(held.x.shape[1], "nodes"), made, sentences)
    splits = [Split(Nodes(held, index), y[index]) for index in held_out.values()]
    return Data(**known, spec=preparation.spec, train=splits[0], validation=splits[1],
                test=splits[2], preparation=preparation)  # fmt: skip


def karate(
    known: dict[str, str], *, seed: int = 0, labels: int = 2, limit: int | None = None
) -> Data:
    """Zachary's karate club: which of two clubs each of 34 members joined when it split.

    Each member is known by its number alone.
    """
    import networkx

    if limit is not None and limit < 34:
        raise ValueError(f"load: the karate club comes whole, 34 members, got limit={limit}")

    club = networkx.karate_club_graph()
    weight = torch.tensor([float(w) for *_, w in club.edges(data="weight")])
    ends = torch.tensor(list(club.edges)).T
    held = graph(ends, torch.eye(len(club)), "nodes", weight=weight)
    classes = ("Mr. Hi", "Officer")
    y = torch.tensor([classes.index(club.nodes[node]["club"]) for node in club])
    return nodes_of(held, y, known, classes=classes, labels=labels, validation=10, seed=seed,
                    target="club", told="Members who met elsewhere, too, are joined: ")  # fmt: skip


def digits_graph(
    known: dict[str, str], *, seed: int = 0, labels: int = 5, neighbours: int = 8,
    limit: int | None = None,
) -> Data:  # fmt: skip
    """Handwritten digits joined to those that look most like them; few of them have a label."""
    from sklearn.datasets import load_digits

    pixels, digit = (np.asarray(part)[:limit] for part in load_digits(return_X_y=True))
    x = torch.from_numpy(pixels).float() / 16
    held = graph(nearest_graph(x, neighbours), x, "nodes")
    return nodes_of(
        held, torch.from_numpy(digit).long(), known, classes=tuple("0123456789"),
        labels=labels, validation=min(200, len(x) // 3), seed=seed, target="digit",
        told=f"Each picture is joined to the {neighbours} nearest by their pixels (no label is "
        "looked at): ",
    )  # fmt: skip


def solubility(
    known: dict[str, str], *, seed: int = 0, share: float = 0.15, limit: int | None = None
) -> Data:
    """The solubility of molecules in water, log10 of mol per litre; the source's own test set."""
    folder = Path(__file__).with_name("files")
    whole, test = (read_sdf(folder / f"solubility.{part}.sdf.xz") for part in ("train", "test"))
    whole, test = whole[:limit], test[:limit]
    parts = divide(len(whole), (1 - share, share), seed)
    held: dict[str, Any] = {
        name: [whole[i] for i in index.tolist()]
        for name, index in zip(("train", "validation"), parts)
    }
    held["test"] = test
    y = {
        name: torch.tensor([float(one.fields["SOL"]) for one in part], dtype=torch.float64)
        for name, part in held.items()
    }
    features, said = Molecules.fit(held["train"])
    target = Target("regression", ("solubility",), unit="log mol/L").fitted(y["train"])
    words = ", ".join(f"{len(part)} {name}" for name, part in held.items())
    cut = f"{words} molecules; the test set is the source's own, validation cut with seed {seed}."
    preparation = Preparation(features, target, [cut, *said])
    splits = [Split(features.inputs(held[name]), target.standardise(y[name])) for name in held]
    return Data(**known, spec=preparation.spec, train=splits[0], validation=splits[1],
                test=splits[2], preparation=preparation)  # fmt: skip
