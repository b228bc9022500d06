"""Molecules as graphs: an SDF file read, atoms as nodes, bonds as edges."""

from __future__ import annotations

import lzma
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deepweave.data.graphs import Graphs
from deepweave.data.spec import Kind
from deepweave.functional.graph import Graph, arranged

VALENCE = {"H": 1, "B": 3, "C": 4, "N": 3, "O": 2, "F": 1, "Si": 4, "P": 3, "S": 2, "Cl": 1,
           "Br": 1, "I": 1}  # fmt: skip
ORDERS = ("single", "double", "triple")
NUMBERS = ("neighbours", "hydrogens", "charge", "in a ring")  # beside the element


class Molecule(NamedTuple):
    """One record of an SDF file: its name, its elements, its bonds, its fields.

    Shapes: bonds (b, 3): two atoms from 0, and the order 1 to 3; charges by atom
    """

    name: str
    elements: tuple[str, ...]
    bonds: Tensor
    charges: dict[int, int]
    fields: dict[str, str]


def read_sdf(path: str | Path) -> list[Molecule]:
    """The records of an SDF file (or .sdf.xz), connection tables of version V2000.

    Raises:
        ValueError: a record that is none; it is numbered.
    """
    raw = Path(path).read_bytes()
    raw = lzma.decompress(raw) if str(path).endswith(".xz") else raw
    text = raw.decode("utf-8", errors="replace").replace("\r\n", "\n")
    records = [part for part in text.split("$$$$\n") if part.strip()]
    if not records:
        raise ValueError(f"load: {path} holds no molecule")
    found = []
    for number, record in enumerate(records, 1):
        try:
            found.append(_molecule(record.split("\n")))
        except (ValueError, IndexError) as error:
            raise ValueError(f"load: molecule {number} of {path} cannot be read: {error}") from None
    return found


def _molecule(lines: list[str]) -> Molecule:
    head = lines[3]
    if "V3000" in head:
        raise ValueError("its table is of version V3000, expected V2000")
    atoms, bonds = int(head[:3]), int(head[3:6])
    if atoms < 1:
        raise ValueError("it has no atoms")
    elements = tuple(line[31:34].strip() for line in lines[4 : 4 + atoms])
    rows = [[int(line[k : k + 3]) for k in (0, 3, 6)] for line in lines[4 + atoms :][:bonds]]
    table = torch.tensor(rows, dtype=torch.int64).view(-1, 3) - torch.tensor([1, 1, 0])
    wrong = bonds and (int(table[:, :2].min()) < 0 or int(table[:, :2].max()) >= atoms)
    if len(rows) != bonds or wrong or not all(elements):
        raise ValueError(f"its {bonds} bonds do not fit its {atoms} atoms")
    charges: dict[int, int] = {}
    fields: dict[str, str] = {}
    for place, line in enumerate(lines):
        if line.startswith("M  CHG"):
            words = [int(word) for word in line.split()[3:]]
            charges |= {atom - 1: charge for atom, charge in zip(words[::2], words[1::2])}
        elif line.startswith(">") and "<" in line:
            fields[line[line.index("<") + 1 : line.rindex(">")]] = lines[place + 1].strip()
    return Molecule(lines[0].strip(), elements, table, charges, fields)


def fields_of(molecules: Sequence[Molecule]) -> Any:
    """The fields that all molecules have, as a DataFrame; columns of numbers are numbers."""
    import pandas

    frame = pandas.DataFrame([one.fields for one in molecules])
    frame = frame.loc[:, (frame.notna() & (frame != "")).all()]
    for name in frame.columns:
        as_numbers: Any = pandas.to_numeric(frame[name], errors="coerce")
        if as_numbers.notna().all():
            frame[name] = as_numbers
    return frame


@dataclass(frozen=True)
class Molecules:
    """How molecules become graphs. Atoms: the element (those seen in training, or another),
    neighbours, hydrogens that are not drawn, charge, whether in a ring. Bonds: the order, whether
    in a ring.

    Shapes: N molecules, or the path of an SDF file -> a collection of N graphs, x (atoms, F)
    """

    elements: tuple[str, ...]
    kind: Kind = "graph"

    @classmethod
    def fit(cls, train: Sequence[Molecule]) -> tuple[Molecules, list[str]]:
        """The preparation that training molecules ask for, and what it does in plain sentences."""
        held = cls(tuple(sorted({element for one in train for element in one.elements})))
        return held, [
            "Atoms are nodes: their element, the number of neighbours, of hydrogens by valence, "
            "the charge, whether in a ring. Bonds are edges: single, double or triple, whether in "
            "a ring. Nothing of chemistry beyond that.",
        ]

    @property
    def names(self) -> tuple[str, ...]:
        """What the features of an atom are."""
        return (*self.elements, "another element", *NUMBERS)

    @property
    def shape(self) -> tuple[int, ...]:
        """The features of an atom."""
        return (len(self.names),)

    @property
    def edges(self) -> int:
        """The features of a bond."""
        return len(ORDERS) + 1

    def inputs(self, raw: Any) -> Graphs:
        """Molecules, or the path of an SDF file, as graphs."""
        molecules = read_sdf(raw) if isinstance(raw, str | Path) else list(raw)
        sizes = torch.tensor([len(one.elements) for one in molecules])
        starts = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        bonds = torch.cat([
            one.bonds + torch.tensor([at, at, 0]) for one, at in zip(molecules, starts.tolist())
        ])  # fmt: skip
        ends, order = bonds[:, :2].T, bonds[:, 2].clamp(1, len(ORDERS))
        nodes = int(starts[-1])
        ring = rings(ends, nodes)
        edge = torch.nn.functional.one_hot(order - 1, len(ORDERS)).float()
        edge = torch.cat([edge, ring[:, None].float()], 1)
        both = torch.cat([ends, ends.flip(0)], 1)
        x = self._atoms(molecules, starts, both, order.repeat(2), ring.repeat(2))
        return Graphs(arranged(both, x, starts, edge=edge.repeat(2, 1)))

    def _atoms(
        self, molecules: Sequence[Molecule], starts: Tensor, both: Tensor, order: Tensor,
        ring: Tensor,
    ) -> Tensor:  # fmt: skip
        place = {element: i for i, element in enumerate(self.elements)}
        every = [element for one in molecules for element in one.elements]
        kind = torch.tensor([place.get(element, len(place)) for element in every])
        charge = torch.zeros(len(every))
        for one, at in zip(molecules, starts.tolist()):
            for atom, amount in one.charges.items():
                charge[at + atom] = amount
        degree = torch.bincount(both[1], minlength=len(every)).float()
        used = torch.zeros(len(every)).index_add_(0, both[1], order.float())
        valence = torch.tensor([float(VALENCE.get(element, 0)) for element in every])
        hydrogens = (valence + charge - used).clamp_min(0)
        within = torch.zeros(len(every)).scatter_reduce_(0, both[1], ring.float(), "amax")
        numbers = torch.stack([degree / 4, hydrogens / 4, charge, within], 1)
        return torch.cat([torch.nn.functional.one_hot(kind, len(place) + 1).float(), numbers], 1)

    def to_json(self) -> dict[str, Any]:
        """The preparation as plain strings."""
        return {"elements": list(self.elements)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Molecules:
        """The preparation that ``to_json`` wrote."""
        return cls(tuple(record["elements"]))


def rings(ends: Tensor, nodes: int) -> Tensor:
    """Which undirected edges lie on a ring: those that are no bridge.

    Shapes: ends (2, E) -> (E,) bool

    >>> rings(torch.tensor([[0, 1, 2, 2], [1, 2, 0, 3]]), 4).tolist()
    [True, True, True, False]
    """
    import networkx

    network = networkx.Graph()
    network.add_nodes_from(range(nodes))
    network.add_edges_from(ends.T.tolist())
    bridge = {frozenset(pair) for pair in networkx.bridges(network)}
    return torch.tensor([frozenset(pair) not in bridge for pair in ends.T.tolist()], dtype=bool)  # pyright: ignore[reportArgumentType]


def counts(graphs: Graph, elements: int) -> Tensor:
    """How many atoms of each element every molecule has: what a plain baseline may know.

    Shapes: -> (G, elements)
    """
    from deepweave.functional.messages import segment_sum

    return segment_sum(graphs.x[:, :elements], graphs.starts)
