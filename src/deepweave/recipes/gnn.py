"""Topic 16: graph networks for nodes with few labels, and for molecules as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import deepweave as dw
from deepweave.recipes import home, recipe

WORDS = {"gcn": "GCN", "sage": "GraphSAGE", "gat": "GAT (v2)", "gatv1": "GAT (v1)", "gin": "GIN",
         "mpnn": "MPNN", "transformer": "graph transformer"}  # fmt: skip
LEADERS = {0: "Mr. Hi", 33: "the officer"}  # of the karate club


@recipe("16 Graph networks", seconds=90)
def gnn(
    data: str = "digits_graph",
    *,
    target: str | None = None,
    kinds: tuple[str, ...] = ("gcn", "sage", "gat"),
    hidden: tuple[int, ...] = (32, 32),
    seeds: int = 4,
    epochs: int = 100,
    lr: float = 0.01,
    dropout: float = 0.5,
    full: bool = False,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """Few labels and a graph: who is like whom says the rest; or, of molecules, how they dissolve.

    Args:
        data: digits_graph or karate, whose nodes are classified, or solubility, a number of each
            graph; or a file of your own, of edges (.edges) or molecules (.sdf).
        target: the column or field to predict, for a file of your own.
        kinds: the layers compared, the first of them for the run itself.
        hidden: the width of each layer.
        seeds: networks of each kind.
        epochs: passes over the training data.
        lr: the learning rate, of molecules the highest.
        dropout: share of hidden units dropped while training.
        full: of nodes more kinds, of molecules more epochs; and, after nodes, molecules as well.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    options: dict[str, Any] = {"seed": seed, "quick": quick, "full": full}
    if data == "solubility" or data.endswith((".sdf", ".sdf.xz")):
        seeds = min(seeds, 2) if quick else seeds
        return molecules(home(out), data, target, seeds=seeds, **options)
    if full:
        kinds = tuple(dict.fromkeys((*kinds, "gatv1", "gin", "transformer")))
    if quick:
        kinds, seeds, epochs = kinds[:1], 2, min(epochs, 20)
    few = 600 if quick and data == "digits_graph" else None
    table = dw.data.load(data, target=target, seed=seed, limit=few)
    if table.spec.kind != "graph":
        raise ValueError(f"gnn: needs a data set of graphs, {data} holds {table.spec.kind}s")
    if not hasattr(table.test.x, "index") or table.spec.task not in ("binary", "multiclass"):
        what = type(table.test.x).__name__.lower()
        raise ValueError(
            f"gnn: needs classes of nodes, {data} asks about {what} "
            f"({table.spec.task}): fit it in Python, as docs/topics/16-graphs.md shows"
        )
    run, rows = nodes(table, home(out), kinds, hidden, seeds, epochs, lr, dropout, seed)
    if data != "karate":
        karate(run, hidden, seed, 20 if quick else 100)
    run.info["advice"] = [
        f"Best mean over {seeds} networks: {rows[0][0]}. The score at the top of this page is of "
        "the network with the lowest validation loss among those of the first kind."
    ]
    if full:
        folder = home(out) / "solubility"
        found = molecules(folder, "solubility", None, seeds=seeds, **options)
        found.report()
        run.info["advice"].append("Molecules have a page of their own, in the folder solubility.")
    run.save()
    return run


def nodes(table, out, kinds, hidden, seeds, epochs, lr, dropout, seed):
    """All kinds on the nodes of one graph, each a Population over seeds; beside them what needs
    no network, and a network that sees no edges."""
    import torch

    held = table.test.x.graph
    every = held.ask("nodes")
    truth = _truth(table)
    scores, lines, lookers = {}, {}, {}
    run: Any = None
    for kind in kinds:
        members = []
        for i in range(seeds):
            dw.chance.seed_all(dw.run.derive(seed, "weights", i))
            net = dw.nn.gnn(table.spec, hidden, kind, dropout=dropout)
            members.append(dw.supervise(net, table.spec))
        many = dw.Population(members, optimizer="Adam", lr=lr, shared=True)
        hooks = [dw.hooks.Validate(table.validation)]
        made = dw.fit(many, table, epochs=epochs, seed=seed, hooks=hooks, out=False if run else out)
        lookers[kind] = many.member(many.best).eval()
        said = many.predict(table.test.x.take(torch.arange(len(table.test))))
        scores[WORDS.get(kind, kind)] = dw.metrics.over_seeds(
            [float(dw.metrics.accuracy(one, table.test.y, confidence=None)) for one in said]
        )
        lines[WORDS.get(kind, kind)] = _curve(made.history)
        if run is None:
            run = made
            run.test()
        else:
            run.rival(WORDS.get(kind, kind), said[many.best])
    plain = _without(table, hidden, epochs, lr, dropout, seed)
    run.rival("the same without edges", plain)
    run.rival("labels handed on, no network", handed_on(held, table)[table.test.x.index])
    few = len(table.train)
    run.tell(
        question=f"Do {few} labels and a graph say what the other nodes are?",
        title=f"A graph network tells {held.nodes} nodes apart from {few} labels",
    )
    rows = [[name, score.text(3, percent=True)] for name, score in scores.items()]
    rows.sort(key=lambda row: -float(scores[row[0]]))
    run.table(
        "Kinds of layers",
        ["layers", "test accuracy"],
        rows,
        f"Mean of {seeds} networks with its 95 % interval over draws of the first weights; graph, "
        "labels and test nodes are the same for all.",
    )
    _learning(run, lines, seeds)
    best = lookers[kinds[0]]
    with torch.no_grad():
        said = best.predict(every)
    said = (said > 0.5).long() if table.spec.task == "binary" else said.argmax(1)
    _drawn(run, table, held, truth, said, table.preparation.spec.classes)
    if "gat" in lookers and held.nodes < 200:
        _looks(run, held, lookers["gat"], truth, table.spec.classes, "")
    return run, rows


def _truth(table):
    """The class of every node: all splits together."""
    import torch

    truth = torch.full((table.test.x.graph.nodes,), -1)
    for split in (table.train, table.validation, table.test):
        truth[split.x.index] = split.y
    return truth


def _curve(history):
    """Mean validation accuracy of the members, by epoch."""
    seen = [row for row in history if "validation/accuracy" in row]
    means = [sum(row["validation/accuracy"]) / len(row["validation/accuracy"]) for row in seen]
    return [row["epoch"] for row in seen], means


def _without(table, hidden, epochs, lr, dropout, seed):
    """The predictions of a dense network that sees the features of a node and no edge."""
    x = table.test.x.graph.x

    def split(part):
        return dw.data.Split(x[part.x.index], part.y)

    dw.chance.seed_all(dw.run.derive(seed, "plain"))
    net = dw.nn.mlp(table.spec, hidden, dropout=dropout)
    step = dw.Descent(dw.supervise(net, table.spec), "Adam", lr=lr)
    hooks = [dw.hooks.Validate(split(table.validation))]
    run = dw.fit(step, split(table.train), epochs=epochs, seed=seed, hooks=hooks, out=False)
    return run.predict(x[table.test.x.index])


def handed_on(graph, table, share: float = 0.9, rounds: int = 50):
    """Labels handed on along the edges: y <- share A y + (1 - share) y_0, A normalised.

    Source: Zhou et al., Learning with local and global consistency, 2004.
    """
    import torch

    classes = max(2, table.spec.outputs)
    first = torch.zeros(graph.nodes, classes)
    first[table.train.x.index, table.train.y] = 1.0
    found = first
    for _ in range(rounds):
        found = share * dw.functional.aggregate(graph, found, "gcn") + (1 - share) * first
    found = (found + 1e-9) / (found + 1e-9).sum(1, keepdim=True)
    return found[:, 1] if table.spec.task == "binary" else found


def _learning(run, lines, seeds):
    alt = "Validation accuracy over epochs, a line for each kind of layer."
    run.figure(
        "learning",
        dw.report.plots.curves(lines, x="epoch", y="validation accuracy", percent=True, alt=alt),
        title="Learning",
        caption=f"Mean of {seeds} networks. The networks of one kind are one Population: they "
        "learn at once, on the same graph.",
        alt=alt,
    )


def _drawn(run, table, held, truth, said, classes):
    """The graph by what is true and by what the network says."""
    from deepweave.report.networks import layout, network

    places = layout(held.edges, held.nodes)
    known = table.train.x.index.tolist()
    asked = truth >= 0  # nodes whose class nobody knows are drawn as they are said to be
    truth = said.where(~asked, truth)
    wrong = (said != truth).sum()
    alt = f"The graph twice, coloured by class: as it is, and as predicted; {int(wrong)} differ."
    small = held.nodes < 200
    svg = network(
        places, held.edges, {"true": truth, "predicted": said}, classes=classes, marked=known,
        names=LEADERS if small else None, alt=alt,
    )  # fmt: skip
    run.figure(
        "graph",
        svg,
        title="The graph, as it is and as it is said to be",
        caption=f"Rings: the {len(known)} nodes whose label was given. The rest is told by who is "
        f"joined to whom and by the features. {int(wrong)} of {int(asked.sum())} nodes"
        + (" get" if bool(asked.all()) else " whose class is known get")
        + " another class than they have. Placed by springs along the edges, which do not know the "
        "classes."
        + ("" if small else " Edges, and every second node, are left out of the drawing."),
        alt=alt,
    )
    run.info["picture"] = "figures/graph.svg"


def _looks(run, held, objective, truth, classes, where):
    """How much each neighbour counts in the first layer of attention, all heads together."""
    import torch

    from deepweave.report.networks import layout, network

    with torch.no_grad():
        shares, own = objective.model.blocks[0].layer.weights(held, held.x)
    shares, own = shares.mean(1), own.mean(1)
    among = (shares[truth[held.source] == truth[held.target]].sum()
             / shares.sum()).item()  # fmt: skip
    share = float((truth[held.source] == truth[held.target]).float().mean())
    alt = "The graph with each edge as wide as the attention it gets."
    svg = network(
        layout(held.edges, held.nodes), held.edges, {"attention of the first layer": truth},
        classes=classes, widths=shares / shares.max(), names=LEADERS, columns=1,
        alt=alt,
    )  # fmt: skip
    run.figure(
        "attention",
        svg,
        title=f"Whom the members listen to{where}",
        caption="Width: how much an edge counts for the node it leads to, the mean of four heads "
        f"(two directions lie on each other). {100 * among:.0f} % of the attention to others stays "
        f"within the own club, where {100 * share:.0f} % of the edges do; to itself a member gives "
        f"{100 * float(own.mean()):.0f} %.",
        alt=alt,
    )


def karate(run, hidden, seed, epochs):
    """The karate club: small enough to see each node, and whom it listens to."""
    import torch

    club = dw.data.load("karate", seed=seed)
    dw.chance.seed_all(dw.run.derive(seed, "karate"))
    objective = dw.supervise(dw.nn.gnn(club.spec, hidden, "gat"), club.spec)
    step = dw.Descent(objective, "Adam", lr=0.01)
    hooks = [dw.hooks.Validate(club.validation)]
    made = dw.fit(step, club.train, epochs=epochs, seed=seed, hooks=hooks, out=False)
    best = made.objective.eval()
    held = club.test.x.graph.ask("nodes")
    with torch.no_grad():
        said = (best.predict(held) > 0.5).long()
    truth = _truth(club)
    from deepweave.report.networks import layout, network

    wrong = int((said != truth)[club.test.x.index].sum())
    alt = f"The karate club twice: which club each joined, and which GAT says; {wrong} differ."
    svg = network(
        layout(held.edges, held.nodes), held.edges, {"joined": truth, "predicted": said},
        classes=club.spec.classes, marked=club.train.x.index.tolist(),
        names=LEADERS, alt=alt,
    )  # fmt: skip
    run.figure(
        "karate",
        svg,
        title="The karate club, from four labels",
        caption=f"GAT with {len(club.train)} labels (rings) is wrong for {wrong} of "
        f"{len(club.test)} test members. Members are known by their number alone: all there is to "
        "learn from is who meets whom.",
        alt=alt,
    )
    _looks(run, held, best, truth, club.spec.classes, " in the karate club")


def molecules(out, data, field, *, seeds, seed, quick, full):
    """A number of molecules by messages along bonds, beside ridge regression on atom counts."""
    epochs = 2 if quick else 100 if full else 40
    runs, tables, plain = [], [], []
    own = data == "solubility"  # its test molecules are its own: another seed keeps them
    for i in range(seeds):
        few = 150 if quick and own else None
        table = dw.data.load(data, target=field, seed=seed + i if own else seed, limit=few)
        if table.spec.task != "regression":
            raise ValueError(f"gnn: needs a number of each molecule, {data} has {table.spec.task}; "
                             "say which field with target=")  # fmt: skip
        dw.chance.seed_all(dw.run.derive(seed, "weights", i))
        bonds = table.train.x.graph.edge.shape[1]
        net = dw.nn.gnn(table.spec, (64,) * 4, "mpnn", edges=bonds, pool="sum", norm="layer",
                        residual=True)  # fmt: skip
        step = dw.Descent(dw.supervise(net, table.spec), "AdamW", lr=2e-3, weight_decay=0.01)
        hooks = [dw.hooks.Validate(table.validation), dw.hooks.Schedule(dw.hooks.one_cycle)]
        where = out if not i else False
        runs.append(dw.fit(step, table, epochs=epochs, batch=32, seed=seed + i, hooks=hooks,
                           out=where))  # fmt: skip
        tables.append(table)
        plain.append(table.preparation.restore(ridge(table)))
    run = runs[0]
    run.test()
    run.rival("ridge on counts of atoms", plain[0])
    run.tell(
        question="Does it help to see which atoms are joined, beyond how many there are?",
        title=f"A graph network tells the {tables[0].spec.targets[0]} of molecules",
    )
    truth = tables[0].preparation.restore(tables[0].test.y)
    said = [one.predict(table.test.x) for one, table in zip(runs, tables)]
    gap = dw.metrics.rmse_gain(said, plain, truth)
    rows = []
    for name, made in (("graph network", said), ("ridge on counts of atoms", plain)):
        each = [float(dw.metrics.rmse(one, truth, confidence=None)) for one in made]
        rows.append(
            [name, dw.metrics.over_seeds(each).text(3), ", ".join(f"{e:.3f}" for e in each)]
        )
    base = run.info["baseline"]["test/rmse"]["value"]
    rows.append(["the mean of training", f"{base:.3f}", ""])
    rows.append(["ridge minus graph network", gap.text(3), ""])
    run.table(
        ", ".join(filter(None, ("Root mean square error", tables[0].spec.unit))),
        ["", f"mean of {seeds} seeds", "each seed"],
        rows,
        f"A seed draws the weights{' and which molecules validate' if own else ''}; the "
        f"{len(truth)} test molecules are the same. The last interval is of the mean difference, "
        "over test molecules and seeds, both paired: above 0 the graph network is better.",
    )
    told = ", ".join(word for word in ("measured", tables[0].spec.unit) if word)
    ring = dw.report.plots.scatter(said[0], truth, labels=("predicted", told))
    run.figure(
        "molecules",
        ring,
        title="Predicted and measured",
        caption=f"The {len(truth)} test molecules, by the first network.",
        alt=f"Measured over predicted {tables[0].spec.targets[0]} of the test molecules.",
    )
    run.info["picture"] = "figures/molecules.svg"
    run.save()
    return run


def ridge(table):
    """What the counts of atoms alone say: ridge regression, its penalty chosen by validation."""
    import torch

    from deepweave.data.molecules import counts

    elements = len(table.preparation.features.elements)
    parts = []
    for split in (table.train, table.validation, table.test):
        x = counts(split.x.graph, elements).double()
        parts.append(torch.cat([x, torch.ones(len(x), 1)], 1))
    y = table.train.y.double()
    best: Any = None
    for power in range(-4, 5):
        penalty = 10.0**power * torch.eye(elements + 1, dtype=torch.float64)
        penalty[-1, -1] = 0
        weight = torch.linalg.solve(
            parts[0].T @ parts[0] + penalty + 1e-9 * torch.eye(elements + 1), parts[0].T @ y
        )
        error = float((parts[1] @ weight - table.validation.y).square().mean())
        if best is None or error < best[0]:
            best = error, (parts[2] @ weight).float()
    return best[1]
