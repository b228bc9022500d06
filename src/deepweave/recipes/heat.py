"""Topic 22: the equation of diffusion: photographs cleaned, a diffusivity found, what spreads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import deepweave as dw
from deepweave.recipes import home, recipe

PHOTOS = ("astronaut.png", "camera.png", "chelsea.png", "china.jpg", "coffee.png", "coins.png",
          "flower.jpg", "motorcycle_left.png", "rocket.jpg")  # fmt: skip
WAYS = ("Gaussian", "Perona-Malik", "edge-enhancing")


@recipe("22 Diffusion: heat", seconds=60)
def heat(
    data: str | None = None,
    *,
    noise: float = 0.1,
    seeds: int = 3,
    side: int = 256,
    steps: int = 300,
    runs: int = 400,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """Heat that stops at edges cleans photographs; and what flowed is told by what came of it.

    Args:
        data: a photograph of your own; else nine that come with scikit-image and scikit-learn.
        noise: the standard deviation of what is added to the photographs, of white 1.
        seeds: draws of the noise for each photograph.
        side: the side of the square that is cut out of each, in pixels.
        steps: of the descent that finds a planted diffusivity.
        runs: of an infection on a network.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    if not 0 < noise < 1 or seeds < 1 or side < 32:
        told = f"{noise}, {seeds} and {side}"
        raise ValueError(f"heat: needs noise in (0, 1), seeds from 1, a side from 32, got {told}")
    photos = _opened(data, 2 if quick else len(PHOTOS), 64 if quick else side)
    if quick:
        seeds, steps, runs = 1, 60, 40
    run = _found(home(out), steps, seed)
    gained = _cleaned(run, photos, noise, seeds, seed)
    _frames(run, photos)
    _walked(run, quick)
    _spread(run, runs, seed)
    _compared(run)
    ours, plain = gained["Perona-Malik"], gained["Gaussian"]
    run.info["scores"] = {"test/psnr": ours.to_json()}
    run.info["baseline"] = {"test/psnr": plain.to_json()}
    run.info["baseline_name"] = "a Gaussian that takes away as much"
    run.info["main"] = "test/psnr"
    run.rival("edge-enhancing diffusion", {"psnr": gained["edge-enhancing"]})
    run.tell(
        question="Does heat that stops at edges clean a photograph better than heat that does not?",
        title="Heat that stops at edges cleans "
        + (f"{len(photos)} noisy photographs" if len(photos) > 1 else "a noisy photograph"),
    )
    run.save()
    return run


def _opened(data, count, side):
    """Grey photographs, the middle of each, (N, H, W) in [0, 1]."""
    import numpy as np
    import torch

    if data is None:
        from deepweave.data.scenes import photographs

        pictures = photographs(PHOTOS[:count])
    else:
        from PIL import Image, UnidentifiedImageError

        if not Path(data).is_file():
            raise FileNotFoundError(f"heat: there is no photograph {data}")
        try:
            pictures = [Image.open(data).convert("RGB")]
        except UnidentifiedImageError:
            raise ValueError(f"heat: {data} is no photograph that can be read") from None
    found = []
    for one in pictures:
        grey = torch.from_numpy(np.asarray(one.convert("L"), np.float32).copy()) / 255
        top, left = ((size - side) // 2 for size in grey.shape)
        if min(top, left) < 0:
            tall, wide = grey.shape
            raise ValueError(
                f"heat: a photograph of {wide} x {tall} has no square of {side}: take a lower side"
            )
        found.append(grey[top : top + side, left : left + side])
    return torch.stack(found)


def _smoothed(way, noisy, time, noise):
    f = dw.functional
    if way == "Gaussian":
        return f.heat(noisy, time)
    if way == "Perona-Malik":
        return f.heat(noisy, time, f.perona_malik(2.0 * noise))
    return f.edge_enhancing(noisy, time, 0.35 * noise)


def _matched(way, noisy, noise, goal):
    """Smoothed for as long as it takes to take away as much as ``goal``, the size of the noise."""
    low, high = 0.05, 12.0
    for _ in range(12):  # the residual rises with the time
        time = (low * high) ** 0.5
        took = (_smoothed(way, noisy, time, noise) - noisy).square().mean().sqrt()
        low, high = (time, high) if float(took) < goal else (low, time)
    return _smoothed(way, noisy, (low * high) ** 0.5, noise)


def _counted(number, word):
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _psnr(found, clean):
    return float(-10 * (found - clean).square().mean().log10())


def _cleaned(run, photos, noise, seeds, seed):
    """Every photograph by every way, all taking away as much; the mean gain and its interval."""
    import torch

    rows, gains = [], {way: [] for way in WAYS}
    shown: Any = None
    before = []
    for place, clean in enumerate(photos):
        mine: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(seeds):
            random = torch.Generator().manual_seed(dw.run.derive(seed, "noise", place, number))
            noisy = clean + noise * torch.randn(clean.shape, generator=random)
            before.append(_psnr(noisy, clean))
            found = {way: _matched(way, noisy, noise, noise) for way in WAYS}
            for way, one in found.items():
                mine[way].append(_psnr(one, clean))
            shown = (clean, noisy, found, mine) if shown is None else shown
        means = {way: sum(values) / seeds for way, values in mine.items()}
        for way, value in means.items():
            gains[way].append(value)
        rows.append([f"photograph {place + 1}", *(f"{means[way]:.2f}" for way in WAYS)])
    scores = {way: dw.metrics.over_seeds(values) for way, values in gains.items()}
    if len(photos) > 1:
        rows.append(["mean", *(scores[way].text(4) for way in WAYS)])
    draws = "the mean of " * (seeds > 1) + _counted(seeds, "draw") + " of the noise"
    told = (
        f"Intervals are Student's over {len(photos)} photographs, of each {draws}."
        if len(photos) > 1
        else f"One photograph, {draws}: there is no interval, which would be over photographs."
    )
    for way in WAYS[1:]:
        more = [a - b for a, b in zip(gains[way], gains["Gaussian"])]
        less = dw.metrics.over_seeds(more).text(3)
        rows.append([f"{way} minus Gaussian", "", less if way == WAYS[1] else "",
                     less if way == WAYS[2] else ""])  # fmt: skip
    run.table(
        "PSNR in decibels, at equal residual",
        ["", *WAYS],
        rows,
        f"Noise of {noise:g}: {sum(before) / len(before):.1f} dB before. Each way runs for as long "
        "as it takes to change the photograph by as much as the noise did, so that none just "
        f"smooths more. {told}",
    )
    clean, noisy, found, mine = shown
    captions = ["clean", f"noisy {_psnr(noisy, clean):.1f} dB"]
    captions += [f"{way} {mine[way][0]:.1f}" for way in WAYS]
    slope = dw.functional.heat(found["Perona-Malik"], 0.5)
    across = (slope.diff(dim=0)[:, :-1].square() + slope.diff(dim=1)[:-1].square()).sqrt()
    edge = torch.nn.functional.pad((across / across.quantile(0.99)).clamp(0, 1), (0, 1, 0, 1))
    pictures = torch.stack([clean, noisy, *found.values(), edge]).clamp(0, 1)
    alt = f"A photograph clean, noisy, and cleaned in three ways: {', '.join(captions[2:])}."
    run.figure(
        "cleaned",
        dw.report.plots.images(
            pictures.numpy(), [*captions, "edges that remain"], columns=3, alt=alt
        ),
        title="As much taken away, not the same",
        caption="A Gaussian is heat with one diffusivity everywhere: it takes noise and edges "
        "alike. Perona and Malik's falls where the slope is steep; the edge-enhancing one flows "
        "along edges and not across.",
        alt=alt,
    )  # fmt: skip
    run.info["picture"] = "figures/cleaned.svg"
    return scores


def _frames(run, photos):
    """One photograph at growing times."""
    import torch

    times = (0.0, 1.0, 8.0, 64.0, 512.0)
    frames = torch.stack([dw.heat(photos[0], time) for time in times]).clamp(0, 1)
    alt = "A photograph after heat has spread for 0, 1, 8, 64 and 512 units of time."
    run.figure(
        "frames",
        dw.report.plots.images(frames.clamp(0, 1).numpy(), [f"t = {t:g}" for t in times],
                               columns=5, alt=alt),
        title="Heat forgets the small first",
        caption="A wave of length l decays as exp(-D (2 pi / l)^2 t): after a time t what was "
        "smaller than about 2 pi sqrt(D t) pixels is gone. The mean stays. Read backwards it is "
        "what generative diffusion learns to do.",
        alt=alt,
    )  # fmt: skip


def _found(out, steps, seed):
    """A planted field of diffusivities, found from fields before and after by fitting nn.Heat."""
    import torch

    side, time, sigma = 24, 1.0, 0.01
    line = torch.linspace(-1, 1, side)
    inside = (line[:, None] ** 2 + line**2).sqrt() < 0.55
    planted = torch.where(inside, 0.4, 1.2)
    random = torch.Generator().manual_seed(dw.run.derive(seed, "fields"))
    first = dw.heat(4 * torch.randn(64, side, side, generator=random), 0.3)
    after = dw.heat(first, time, planted, axes=2)
    after = after + sigma * torch.randn(after.shape, generator=random)
    net = dw.nn.Heat((side, side), time, True, start=0.8, highest=3.0)
    step = dw.Descent(dw.Regress(net), "Adam", lr=0.08)
    hooks = [dw.hooks.Schedule(dw.hooks.cosine)]
    run = dw.fit(step, [(first, after)], steps=steps, seed=seed, hooks=hooks, out=out)
    found = net.diffusivity.detach()
    worst = float(((found - planted).abs() / planted).mean())
    halves = {
        "inside the disc": (found[inside].mean(), 0.4),
        "outside": (found[~inside].mean(), 1.2),
    }
    many = [dw.Regress(dw.nn.Heat((side, side), time, start=k)) for k in (0.1, 1.0, 5.0)]
    one = dw.heat(first, time, 0.7) + sigma * torch.randn(after.shape, generator=random)
    starts = dw.Population(many, optimizer="Adam", lr=0.05, shared=True)
    for _ in range(max(steps, 120)):
        starts((first, one))
    alone = starts.weights()["model.theta"].exp()
    rows = [[f"{name} of the field", f"{true:g}", f"{float(value):.4f}",
             f"{100 * abs(float(value) - true) / true:.2f} %"]
            for name, (value, true) in halves.items()]  # fmt: skip
    rows += [[f"one for all, from {k:g}", "0.7", f"{float(value):.4f}",
              f"{100 * abs(float(value) - 0.7) / 0.7:.2f} %"]
             for k, value in zip((0.1, 1.0, 5.0), alone)]  # fmt: skip
    run.table(
        "A planted diffusivity, found again",
        ["", "planted", "found", "error"],
        rows,
        f"64 fields before and after a time of {time:g}, with noise of {sigma:g}. The field of "
        f"{side} x {side} numbers has a mean error of {100 * worst:.1f} % cell by cell; the one "
        "number is a Population of three starts.",
    )
    top = float(planted.max()) * 1.1
    pictures = torch.stack([first[0] / 4 + 0.5, after[0] / 4 + 0.5, planted / top, found / top])
    alt = "A field before and after, the planted diffusivity and the one that was found."
    run.figure(
        "found",
        dw.report.plots.images(pictures.clamp(0, 1).numpy(),
                               ["before", "after", "planted D", "found D"], columns=4, alt=alt),
        title="What did it flow through?",
        caption="The solution has slopes in D, so that D can be learned from what happened: the "
        "inverse problem is `fit(Regress(nn.Heat(...)))`. A disc that conducts worse is found from "
        "fields that look alike to the eye.",
        alt=alt,
    )  # fmt: skip
    return run


def _walked(run, quick):
    """Coins told from their background by walkers from a few marked pixels."""
    import numpy as np
    import torch

    from deepweave.data.scenes import photographs

    grey = np.asarray(photographs(("coins.png",))[0].convert("L"), np.float32) / 255
    image = torch.from_numpy(grey[:: 4 if quick else 2, :: 4 if quick else 2].copy())
    smooth = dw.heat(image, 2.0)
    seeds = torch.zeros(image.shape, dtype=torch.long)
    seeds[smooth < smooth.quantile(0.25)] = 1
    seeds[smooth > smooth.quantile(0.92)] = 2
    keep = torch.rand(image.shape, generator=torch.Generator().manual_seed(0)) < 0.1
    seeds = seeds * keep
    p = dw.functional.random_walker(image, seeds, beta=200.0)
    marks = image[..., None].repeat(1, 1, 3)
    marks[seeds == 1] = torch.tensor([0.0, 0.45, 0.7])
    marks[seeds == 2] = torch.tensor([0.9, 0.6, 0.0])
    cut = image[..., None].repeat(1, 1, 3)
    cut[p[1] < 0.5] *= 0.25
    alt = "Coins with a few marked pixels, the chance of coin at each pixel, and the cut."
    share = float((seeds > 0).float().mean())
    run.figure(
        "walkers",
        dw.report.plots.images(
            torch.stack([marks, p[1][..., None].expand(-1, -1, 3), cut]).clamp(0, 1).numpy(),
            ["marked pixels", "chance of coin", "cut at one half"], columns=3, alt=alt,
        ),
        title="Which mark does a random walker meet first?",
        caption=f"{100 * share:.1f} % of the pixels are marked. Between them the chance is heat "
        "that has come to rest, held at 1 on one mark and at 0 on the other, through what conducts "
        "badly at edges.",
        alt=alt,
    )  # fmt: skip


def _spread(run, runs, seed):
    """Heat and infection from one node of a network of co-appearances."""
    import networkx
    import torch

    novel = networkx.les_miserables_graph()
    names = list(novel)
    numbered = networkx.convert_node_labels_to_integers(novel)
    ends = torch.tensor([(u, v) for u, v in numbered.edges]).T
    held = dw.functional.graph(ends, torch.zeros(len(names), 1))
    start = names.index("Valjean")
    random = torch.Generator().manual_seed(dw.run.derive(seed, "infection"))
    found = dw.functional.spread(
        held, torch.tensor([start]), 0.08, 0.1, steps=60, runs=runs, generator=random
    )
    share = found.counts.double() / len(names)
    steps = list(range(len(share)))
    lines = {
        "susceptible": (steps, share[:, :, 0].mean(1)),
        "infected": (steps, share[:, :, 1].mean(1)),
        "removed": (steps, share[:, :, 2].mean(1)),
    }
    last = share[-1, :, 2]
    ends_ = last.quantile(torch.tensor([0.025, 0.975]).double())
    alt = "Shares of susceptible, infected and removed over steps."
    run.figure(
        "infection",
        dw.report.plots.curves(
            lines, x="step", y="share of nodes", percent=True, log=False, alt=alt
        ),
        title="An infection that begins with Valjean",
        caption=f"Who appears with whom in Les Misérables: {len(names)} people. Mean of {runs} "
        f"runs, all at once as one sparse product a step; {100 * float(last.mean()):.0f} % have "
        f"had it at the end, 95 % of the runs between {100 * float(ends_[0]):.0f} and "
        f"{100 * float(ends_[1]):.0f} %.",
        alt=alt,
    )  # fmt: skip
    u = torch.zeros(len(names))
    u[start] = 1.0
    from deepweave.report.networks import layout, network

    panels = {}
    for time in (0.02, 0.1, 0.4):
        warm = dw.heat(u, time, graph=held)
        panels[f"t = {time:g}"] = torch.bucketize(warm, torch.tensor([0.002, 0.01, 0.03]))
    alt = "The network three times, each node coloured by its warmth."
    run.figure(
        "network",
        network(
            layout(held.edges, held.nodes), held.edges, panels,
            classes=("below 0.2 %", "to 1 %", "to 3 %", "above"), marked=[start],
            names={start: "Valjean"}, columns=3, alt=alt,
        ),
        title="Heat from the same node",
        caption="The same equation on a graph: what a node gives to each neighbour is the "
        "difference between them. It is shared out, not passed on: it sums to 1 at every time.",
        alt=alt,
    )  # fmt: skip


def _compared(run):
    """Steps and errors of the ways to solve, against the exact solution."""
    import torch

    side = 32
    x = torch.arange(side, dtype=torch.float64)
    u = torch.exp(-((x[:, None] - 12) ** 2 + (x - 18) ** 2) / 12)
    d = 0.5 + 0.4 * torch.tanh((x[:, None] + x - side) / 4)
    exact = dw.heat(u, 10.0, d, axes=2)
    rows = []
    for method, counts in (("explicit", (40, 160, 640)), ("implicit", (10, 40, 160)),
                           ("crank-nicolson", (10, 40, 160))):  # fmt: skip
        for steps in counts:
            near = dw.heat(u, 10.0, d, axes=2, method=method, steps=steps)
            rows.append([method, str(steps), f"{float((near - exact).abs().max()):.1e}"])
    told = ""
    try:
        dw.heat(u, 10.0, d, axes=2, method="explicit", steps=10)
    except ValueError as error:
        told = str(error).removeprefix("heat: ")
    run.table(
        "Ways to take steps, beside the exact solution",
        ["method", "steps", "largest error"],
        rows,
        f"A blob on {side} x {side} cells, D from 0.1 to 0.9, a time of 10. The errors of the "
        "first two fall as the step does, that of Crank and Nicolson as its square. With ten "
        f"explicit steps: “{told}”.",
    )
