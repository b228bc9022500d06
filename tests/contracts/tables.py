"""The contract tables: every model, objective and runner is one line, and the checks run over all.

A new part of the library is a line here; the weave crosses the lines with each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

import deepweave as dw
from deepweave.functional.adversarial import hinge_gan, wasserstein
from deepweave.functional.graph import Graph, graph, side_by_side
from deepweave.functional.observation import Gaussian
from deepweave.functional.ragged import Padded, within


def _x(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _y(high: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True)
class Model:
    """A model for (inputs, outputs), which ``make`` draws anew."""

    make: Callable[[Any], nn.Module]
    shape: tuple[int, ...] = (6,)
    pixels: bool = False  # whether it says something of every pixel
    rows: Callable[[int], Any] | None = None  # so many samples, where they are no rectangle

    def inputs(self, samples: int) -> Any:
        """So many samples."""
        return _x(samples, *self.shape) if self.rows is None else self.rows(samples)


def _texts(samples: int, longest: int = 5) -> Padded:
    """Token numbers of texts of one to five tokens."""
    lengths = 1 + torch.arange(samples) % longest
    return Padded(_y(6, samples, longest).add(4) * within(lengths, longest), lengths)


def _sequences(samples: int) -> Padded:
    """Sequences of three numbers a step, of one to five steps."""
    lengths = 1 + torch.arange(samples) % 5
    return Padded(_x(samples, 5, 3) * within(lengths, 5)[..., None], lengths)


def _graphs(samples: int, asked: str = "graphs") -> Graph:
    """Small graphs, one of them without an edge; or a graph that is asked about its nodes."""
    each = []
    for number in range(samples):
        size = 1 + number % 4
        ends = torch.stack([torch.zeros(size - 1, dtype=torch.long), torch.arange(1, size)])
        each.append(graph(ends, _x(samples, 4, 6)[number, :size]))
    if asked == "graphs":
        return side_by_side(each)
    ring = torch.stack([torch.arange(samples), (torch.arange(samples) + 1) % samples])
    whole = graph(ring, _x(samples, 6), "nodes")
    return whole if asked == "nodes" else whole.ask(ring.T)


MODELS: dict[str, Model] = {
    "shallow": Model(dw.nn.shallow),
    "mlp": Model(dw.nn.mlp),
    "mlp, an activation per layer": Model(
        lambda s: dw.nn.mlp(s, hidden=(8, 8, 8), activation=("tanh", "gelu", "prelu"))
    ),
    "mlp, batch norm": Model(lambda s: dw.nn.mlp(s, hidden=(8,), norm="batch")),
    "mlp, layer norm, residual": Model(
        lambda s: dw.nn.mlp(s, hidden=(8, 8), norm="layer", residual=True)
    ),
    "mlp, dropout": Model(lambda s: dw.nn.mlp(s, hidden=(16,), dropout=0.2)),
    "mlp of images": Model(lambda s: dw.nn.mlp(s, hidden=(8,), activation="silu"), (1, 3, 3)),
    "your own module": Model(
        lambda s: nn.Sequential(nn.Linear(s[0][0], 5), nn.Softplus(), nn.Linear(5, s[1]))
    ),
    "convnet": Model(lambda s: dw.nn.convnet(s, widths=(4, 6), norm="layer"), (1, 8, 8)),
    "convnet, one axis": Model(
        lambda s: dw.nn.convnet(s, widths=(6, 8), activation="gelu", norm="group", pool="stride"),
        (2, 10),
    ),
    "residual net": Model(
        lambda s: dw.nn.resnet_small(s, 1, widths=(4, 6), norm="group"), (2, 6, 6)
    ),
    "residual net, pre-activation": Model(
        lambda s: dw.nn.resnet_small(
            s, 1, (4, 4), kind="preactivation", norm="group", squeeze=1, drop=0.2
        ),
        (1, 8, 8),
    ),
    "rnn": Model(lambda s: dw.nn.rnn(s, 5, read="mean"), (4, 3)),
    "lstm": Model(lambda s: dw.nn.lstm(s, 5, 2, dropout=0.1), (4, 3)),
    "gru": Model(lambda s: dw.nn.gru(s, 5, bidirectional=True), (4, 3)),
    "capsule net": Model(
        lambda s: dw.nn.capsnet(
            s, (4,), "full", kinds=2, size=4, pose=6, rounds=2, kernel=3, norm="layer"
        ),
        (1, 6, 6),
    ),
    "segmenter": Model(lambda s: dw.nn.segmenter(s, widths=(4, 6)), (6, 4, 4), pixels=True),
    "segmenter, odd sizes": Model(
        lambda s: dw.nn.segmenter(s, widths=(2, 3, 4), activation="gelu"), (1, 9, 11), pixels=True
    ),
    "transformer of sequences": Model(
        lambda s: dw.nn.transformer(s, 8, 1, heads=2, dropout=0.0), (4, 3)
    ),
    "bert": Model(lambda s: dw.nn.bert(s, 8, 1, heads=2, positions=4, dropout=0.0), (4, 3)),
    "vision transformer": Model(
        lambda s: dw.nn.vision_transformer(s, 8, 1, patch=2, heads=2), (1, 4, 4)
    ),
    "transformer of texts": Model(
        lambda s: dw.nn.transformer((*s, 10), 8, 1, heads=2, dropout=0.0), (5,), rows=_texts
    ),
    "lstm of texts": Model(lambda s: dw.nn.lstm((*s, 10), 5, read="max"), (5,), rows=_texts),
    "gru of ragged sequences": Model(
        lambda s: dw.nn.gru(s, 5, bidirectional=True), (5, 3), rows=_sequences
    ),
    "graph net, whole graphs": Model(lambda s: dw.nn.gnn((6, s[1]), (5,), "gin"), rows=_graphs),
    "graph net, nodes": Model(
        lambda s: dw.nn.gnn((6, s[1]), (4,), "gat", heads=2),
        rows=partial(_graphs, asked="nodes"),
    ),
    "graph net, pairs": Model(
        lambda s: dw.nn.gnn((6, s[1]), (4,)), rows=partial(_graphs, asked="pairs")
    ),
}


@dataclass(frozen=True)
class Method:
    """An objective over any model with so many outputs, and targets for B samples."""

    make: Callable[[nn.Module], dw.Objective]
    outputs: int
    targets: Callable[[int], torch.Tensor]
    pixels: bool = False


OBJECTIVES: dict[str, Method] = {
    "Classify": Method(dw.Classify, 3, lambda n: _y(3, n)),
    "Classify, smoothing": Method(
        lambda m: dw.Classify(m, smoothing=0.1, class_weight=[1.0, 2.0, 0.5]), 3, lambda n: _y(3, n)
    ),
    "Classify, binary": Method(dw.Classify, 1, lambda n: _y(2, n)),
    "Classify, multi-label": Method(
        lambda m: dw.Classify(m, multilabel=True), 3, lambda n: _y(2, n, 3).float()
    ),
    "Classify, focal": Method(
        lambda m: dw.Classify(m, partial(dw.functional.focal, gamma=2.0)), 3, lambda n: _y(3, n)
    ),
    "Classify, focal, multi-label": Method(
        lambda m: dw.Classify(m, dw.functional.focal, multilabel=True),
        3,
        lambda n: _y(2, n, 3).float(),
    ),
    "Classify, hinge": Method(lambda m: dw.Classify(m, dw.functional.hinge), 1, lambda n: _y(2, n)),
    "Classify, multi-class hinge": Method(
        lambda m: dw.Classify(m, dw.functional.multiclass_hinge, class_weight=[1.0, 2.0, 0.5]),
        3,
        lambda n: _y(3, n),
    ),
    "Regress": Method(dw.Regress, 1, lambda n: _x(n)),
    "Regress, huber": Method(
        lambda m: dw.Regress(m, partial(dw.functional.huber, delta=0.5)), 1, lambda n: _x(n)
    ),
    "Regress, quantile": Method(
        lambda m: dw.Regress(m, partial(dw.functional.quantile, levels=(0.1, 0.5, 0.9))),
        3,
        lambda n: _x(n),
    ),
    "Regress, gaussian, several targets": Method(
        lambda m: dw.Regress(m, partial(dw.functional.gaussian_nll, floor=0.5)),
        4,
        lambda n: _x(n, 2),
    ),
    "Regress, several targets": Method(dw.Regress, 2, lambda n: _x(n, 2)),
    "Segment": Method(dw.Segment, 3, lambda n: _y(3, n, 4, 4), pixels=True),
    "Segment, one mask": Method(
        lambda m: dw.Segment(m, share=1.0), 1, lambda n: _y(2, n, 4, 4), pixels=True
    ),
    "Segment, tversky": Method(
        lambda m: dw.Segment(m, partial(dw.functional.tversky, gamma=0.75)),
        1,
        lambda n: _y(2, n, 4, 4),
        pixels=True,
    ),
    "Segment, focal and Dice": Method(
        lambda m: dw.Segment(m, dw.functional.focal, share=0.5),
        1,
        lambda n: _y(2, n, 4, 4),
        pixels=True,
    ),
    "Penalize L1 of Classify": Method(
        lambda m: dw.Penalize(dw.Classify(m), l1=1e-3), 3, lambda n: _y(3, n)
    ),
    "Penalize elastic net and groups of Regress": Method(
        lambda m: dw.Penalize(dw.Regress(m), l1=1e-3, l2=1e-3, group=1e-3), 1, lambda n: _x(n)
    ),
    "Mixup of Classify": Method(lambda m: dw.Mixup(dw.Classify(m)), 3, lambda n: _y(3, n)),
    "Mixup of Regress": Method(lambda m: dw.Mixup(dw.Regress(m), 1.0), 1, lambda n: _x(n)),
    "CutMix of Segment": Method(
        lambda m: dw.CutMix(dw.Segment(m)), 3, lambda n: _y(3, n, 4, 4), pixels=True
    ),
    "Noise of Classify": Method(lambda m: dw.Noise(dw.Classify(m)), 3, lambda n: _y(3, n)),
    "Augment of Segment": Method(
        lambda m: dw.Augment(dw.Segment(m), dw.functional.brightness, dw.functional.noise),
        3,
        lambda n: _y(3, n, 4, 4),
        pixels=True,
    ),
    "SAM of Classify": Method(lambda m: dw.SAM(dw.Classify(m)), 3, lambda n: _y(3, n)),
    "SAM of Penalize L2 of Noise of Mixup of Regress": Method(
        lambda m: dw.SAM(dw.Penalize(dw.Noise(dw.Mixup(dw.Regress(m)), 0.05), l2=1e-4)),
        1,
        lambda n: _x(n),
    ),
}


@dataclass(frozen=True)
class Generative:
    """An objective that needs no labels, drawn anew, over x (B, 6), and y where it is told it."""

    make: Callable[[], dw.Objective]
    told: bool = False
    falls: bool = True  # whether a lower loss is what it learns

    def batch(self, samples: int = 8) -> Any:
        x = _x(samples, 6).sigmoid()
        return (x, _y(3, samples)) if self.told else (x,)


_SIZES = ((6,), 3)
_GAUSSIAN = Gaussian()


def _coders(classes: int = 0) -> tuple[nn.Module, nn.Module]:
    return (
        dw.nn.gaussian_encoder(_SIZES, 2, (8,), classes=classes),
        dw.nn.decoder(_SIZES, 2, (8,), numbers=2, classes=classes),
    )


def _sides(classes: int = 0, spectral: bool = False) -> tuple[nn.Module, nn.Module]:
    return (
        dw.nn.decoder(_SIZES, 2, (8,), classes=classes),
        dw.nn.discriminator(_SIZES, (8,), spectral=spectral, classes=classes),
    )


GENERATIVE: dict[str, Generative] = {
    "VAE": Generative(lambda: dw.VAE(*_coders(), _GAUSSIAN)),
    "VAE told classes": Generative(
        lambda: dw.VAE(*_coders(3), _GAUSSIAN, beta=2.0, classes=3), told=True
    ),
    "Penalize of IWAE": Generative(lambda: dw.Penalize(dw.IWAE(*_coders(), _GAUSSIAN), l2=1e-4)),
    "VQVAE": Generative(
        lambda: dw.VQVAE(
            nn.Linear(6, 3),
            nn.Sequential(nn.Linear(3, 12), nn.Unflatten(1, (2, 6))),
            5,
            _GAUSSIAN,
            features=3,
        )
    ),
    "GAN": Generative(lambda: dw.GAN(*_sides(), r1=0.1, r2=0.1), falls=False),
    "GAN told classes": Generative(
        lambda: dw.GAN(*_sides(3, True), hinge_gan, classes=3),
        told=True,
        falls=False,
    ),
    "Augment of GAN, Wasserstein": Generative(
        lambda: dw.Augment(
            dw.GAN(*_sides(), wasserstein, penalty=10.0),
            lambda x: x + 0.01,
        ),
        falls=False,
    ),
}

RUNNERS: dict[str, Callable[[dw.Objective], dw.Step]] = {
    "Descent": lambda o: dw.Descent(o, "Adam", lr=1e-2),
    "Descent, accumulating": lambda o: dw.Descent(o, "SGD", lr=1e-2, accumulate=2),
    "Population": lambda o: dw.Population(o, 3, "Adam", shared=True, lr=1e-2),
    "Population, own batches": lambda o: dw.Population(o, 3, "Adam", lr=1e-2),
    "Population, own rates": lambda o: dw.Population(o, 3, shared=True, lr=[1e-3, 1e-2, 1e-1]),
}


@dataclass(frozen=True)
class Density:
    """A density model, an objective over it, and a batch of B samples drawn from a seed."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (4,)
    method: Callable[[nn.Module], dw.Objective] = dw.Likelihood
    levels: int = 0
    context: int = 0

    def batch(self, samples: int, seed: int = 0) -> Any:
        random = torch.Generator().manual_seed(seed)
        if self.levels:
            x = torch.randint(0, self.levels // 2, (samples, *self.shape), generator=random)
            x = x / (self.levels - 1)
        else:
            x = torch.randn(samples, *self.shape, generator=random) * 0.5 + 1
        return (x, torch.arange(samples) % self.context) if self.context else x


def _bend(x: torch.Tensor) -> torch.Tensor:
    """The log of a banana, up to a constant."""
    return -(x[:, 0].square() + (x[:, 1] - x[:, 0].square() / 2).square() * 4) / 2


DENSITIES: dict[str, Density] = {
    "Likelihood, spline flow": Density(lambda: dw.nn.spline_flow(4, 2, (8,))),
    "Likelihood, affine flow (RealNVP)": Density(lambda: dw.nn.affine_flow(4, 2, (8,))),
    "Likelihood, autoregressive flow (NSF)": Density(
        lambda: dw.nn.autoregressive_flow(4, 2, (8, 8))
    ),
    "Likelihood, autoregressive flow (MAF)": Density(
        lambda: dw.nn.autoregressive_flow(4, 2, (8,), kind="affine")
    ),
    "Likelihood, inverse autoregressive flow": Density(
        lambda: dw.nn.autoregressive_flow(4, 1, (8,), kind="affine", inverse=True)
    ),
    "Likelihood, planar flow": Density(lambda: dw.nn.planar_flow(4, 3)),
    "Likelihood, radial flow": Density(lambda: dw.nn.radial_flow(4, 3)),
    "Likelihood, continuous flow": Density(lambda: dw.nn.continuous_flow(4, 1, (8,), steps=3)),
    "Likelihood, Glow": Density(lambda: dw.nn.glow((1, 4, 4), 2, 1, width=6), (1, 4, 4)),
    "Likelihood of classes, spline flow": Density(
        lambda: dw.nn.spline_flow(4, 2, (8,), context=3),
        method=lambda m: dw.Likelihood(m, context="target"),
        context=3,
    ),
    "Likelihood of levels, spline flow": Density(
        lambda: dw.nn.spline_flow((2, 2), 1, (8,), levels=8), (2, 2), levels=8
    ),
    "ReverseKL, inverse autoregressive flow": Density(
        lambda: dw.nn.autoregressive_flow(2, 2, (8,), kind="affine", inverse=True),
        (2,),
        lambda m: dw.ReverseKL(m, _bend, samples=64),
    ),
    "ReverseKL, spline flow": Density(
        lambda: dw.nn.spline_flow(2, 2, (8,)), (2,), lambda m: dw.ReverseKL(m, _bend, samples=64)
    ),
}


def density(name: str, samples: int = 12, seed: int = 0) -> tuple[dw.Objective, Any]:
    """An objective over a density model, and a batch for it."""
    one = DENSITIES[name]
    return one.method(one.make()), one.batch(samples, seed)


# diffusion over any model of rows: the level and the class stand beside the inputs
DIFFUSIONS: dict[str, Callable[[nn.Module], dw.Objective]] = {
    "Denoise": lambda m: dw.Denoise(dw.nn.Told(m), shape=(6,), centre=0.0),
    "Denoise, noise, cosine, min-SNR": lambda m: dw.Denoise(
        dw.nn.Told(m), dw.functional.Schedule("cosine", data=1.0), "noise", weight="min-snr",
        shape=(6,), centre=0.0,
    ),
    "Denoise, flow matching": lambda m: dw.Denoise(
        dw.nn.Told(m), dw.functional.Schedule("straight", data=1.0), "flow", shape=(6,), centre=0.0
    ),
    "Denoise, bound": lambda m: dw.Denoise(
        dw.nn.Told(m), dw.functional.Schedule("loguniform", 0.3, data=1.0), weight="bound",
        shape=(6,), centre=0.0,
    ),
    "Denoise of classes": lambda m: dw.Denoise(
        dw.nn.Told(m, classes=3), classes=3, shape=(6,), centre=0.0
    ),
}  # fmt: skip
ROWS = [name for name, one in MODELS.items() if one.shape == (6,) and one.rows is None]


def diffusion(name: str, model: str, samples: int = 32) -> tuple[dw.Objective, Any]:
    """Diffusion over a model of rows, and a batch for it."""
    told = 3 if "classes" in name else 0
    method = DIFFUSIONS[name](MODELS[model].make(((6 + 8 + told,), 6)))
    x = _x(samples, 6)
    return method, (x, _y(3, samples)) if told else x


def pixelwise(method: Method, model: Model) -> nn.Module:
    """A model for every pixel: the vector model over the channels of an image."""
    return PerPixel(model.make(((6,), method.outputs)))


class PerPixel(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.movedim(1, -1)
        out = self.model(rows.reshape(-1, rows.shape[-1]))
        return out.view(*rows.shape[:-1], -1).movedim(-1, 1)


def cell(objective: str, model: str, samples: int = 8) -> tuple[dw.Objective, Any]:
    """An objective over a model, and a batch for it."""
    method, kind = OBJECTIVES[objective], MODELS[model]
    if method.pixels and kind.pixels:
        net = kind.make((kind.shape, method.outputs))
        y = method.targets(samples).repeat(1, 3, 3)[:, : kind.shape[1], : kind.shape[2]]
        return method.make(net), (_x(samples, *kind.shape), y)
    if method.pixels:
        return method.make(pixelwise(method, kind)), (_x(samples, 6, 4, 4), method.targets(samples))
    net = kind.make((kind.shape, method.outputs))
    return method.make(net), (kind.inputs(samples), method.targets(samples))


def crossings() -> list[tuple[str, str, str]]:
    """Every objective x model x runner that makes sense: one class each, or one for each pixel."""
    return [
        (o, m, r)
        for o in OBJECTIVES
        for m in MODELS
        for r in RUNNERS
        if (MODELS[m].pixels or (MODELS[m].shape == (6,) and MODELS[m].rows is None)
            if OBJECTIVES[o].pixels else not MODELS[m].pixels)
    ]  # fmt: skip


def gap(objective: str, model: str, runner: str) -> str | None:
    """Why a crossing cannot work; None: it does."""
    if "Mixup" in objective and MODELS[model].rows is not None:
        return "samples of different shapes have no mean"
    if "Noise" in objective and "texts" in model:
        return "token numbers are no quantities: forget some of them instead"
    if runner == "Population, own batches" and "graph net" in model:
        return "members share one graph: shared=True"
    return None


GAPS = {key: why for key in crossings() if (why := gap(*key)) is not None}


WITHOUT = len(DENSITIES) + len(GENERATIVE) + len(DIFFUSIONS) * len(ROWS)  # objectives, no labels


def page() -> str:
    """docs/weave.md: what works with what, as the tests have it."""
    lines = [
        "# The weave",
        "",
        "Every objective crosses every model and every way to run it. This page is made from the",
        "tables in `tests/contracts/tables.py`, which the tests run cell by cell: a cell that does",
        "not work is a strict expected failure there and says why here.",
        "",
        f"{len(crossings()) + WITHOUT * len(RUNNERS):,} crossings run in the default suite.",
        "What does not go together is refused with a clear error before any work; the numbers say",
        "why:",
        "",
    ]
    reasons = sorted(set(GAPS.values()))
    lines += [f"{number}. {why}" for number, why in enumerate(reasons, 1)]
    lines.append("")
    for runner in RUNNERS:
        lines += [f"## {runner}", "", "| objective | " + " | ".join(MODELS) + " |"]
        lines += ["|---" * (len(MODELS) + 1) + "|"]
        for objective in OBJECTIVES:
            marks = []
            for model in MODELS:
                key = (objective, model, runner)
                mark = "yes" if key in set(crossings()) else "-"
                marks.append(f"no ({reasons.index(GAPS[key]) + 1})" if key in GAPS else mark)
            lines.append(f"| {objective} | " + " | ".join(marks) + " |")
        lines.append("")
    lines += [
        "## Densities",
        "",
        "Models of log densities have no outputs: they have objectives of",
    ]
    lines += ["their own, and cross every runner.", ""]
    lines += ["| objective, model | " + " | ".join(RUNNERS) + " |"]
    lines += ["|---" * (len(RUNNERS) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join("yes" for _ in RUNNERS) + " |" for name in DENSITIES]
    lines.append("")
    lines += ["## Diffusion", "", "Over any model of rows, by `nn.Told`, and every runner:", ""]
    lines += ["| objective | " + " | ".join(ROWS) + " |", "|---" * (len(ROWS) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join("yes" for _ in ROWS) + " |" for name in DIFFUSIONS]
    lines += ["## Without labels", "", "| objective | " + " | ".join(RUNNERS) + " |"]
    lines += ["|---" * (len(RUNNERS) + 1) + "|"]
    lines += [f"| {name} |" + " yes |" * len(RUNNERS) for name in GENERATIVE]
    lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    from pathlib import Path

    Path("docs/weave.md").write_text(page())
