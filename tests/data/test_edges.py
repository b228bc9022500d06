"""Edge lists and molecules in files: read, learned from, predicted anew; what is refused."""

from __future__ import annotations

import lzma
from itertools import pairwise
from pathlib import Path

import networkx
import pandas as pd
import pytest
import torch

import deepweave as dw
from deepweave import outcome
from deepweave.data.edges import read_edges

SHIPPED = Path(dw.data.__file__).parent / "files"


@pytest.fixture
def club(tmp_path):
    """The karate club as files: edges with weights, and a table of nodes, some without a class."""
    held = networkx.karate_club_graph()
    lines = [f"m{u} m{v} {w}" for u, v, w in held.edges(data="weight")]
    path = tmp_path / "club.edges"
    path.write_text("# who met whom\n" + "\n".join(lines) + "\n\nm1, m0, 99  # again\n")
    rows = pd.DataFrame({
        "id": [f"m{i}" for i in held], "age": range(20, 54), "sport": list("ab") * 17,
        "club": [held.nodes[i]["club"] if i != 5 else None for i in held],
    })  # fmt: skip
    rows.to_csv(tmp_path / "club.nodes.csv", index=False)
    return path


class TestNodes:
    def test_nodes_with_a_table(self, club):
        data = dw.data.load(club)
        assert data.spec.task == "binary"
        assert data.spec.kind == "graph"
        assert data.spec.features == ("age", "sport = a", "sport = b")
        assert data.spec.shape == (3,)
        held = data.train.x.graph
        assert (held.nodes, held.edges.shape[1]) == (34, 2 * 78)
        # the edge m0 m1 is listed twice; the first weight counts
        at = (held.source == 1) & (held.target == 0)
        assert held.weight[at].tolist() == [4.0]
        rows = torch.cat([split.x.index for split in data.splits.values()])
        assert sorted(rows.tolist()) == [i for i in range(34) if i != 5]
        ages = (torch.arange(20, 54)[data.train.x.index]).float()
        wanted = (torch.arange(20, 54) - ages.mean()) / ages.std(correction=0)
        assert torch.allclose(held.x[:, 0], wanted, atol=1e-5)  # fitted on training nodes alone

    def test_a_run_predicts_new_nodes(self, club, tmp_path):
        data = dw.data.load(club)
        net = dw.nn.gnn(data.spec, (4,))
        run = dw.fit(dw.Classify(net), data, epochs=3, out=tmp_path / "run")
        run.test()
        assert outcome.predict_file(tmp_path / "run", str(club), tmp_path / "p.csv") == 34
        found = pd.read_csv(tmp_path / "p.csv")
        assert found["id"].tolist() == [f"m{i}" for i in range(34)]
        said = run.predict(data.train.x.graph.ask("nodes"))
        assert torch.allclose(torch.tensor(found["p(Officer)"]).float(), said, atol=1e-6)

    def test_numbers_of_nodes(self, tmp_path):
        (tmp_path / "a.edgelist").write_text("\n".join(f"{i}\t{i + 1}" for i in range(29)))
        rows = pd.DataFrame({"node": range(30), "y": [i / 7 for i in range(30)]})
        rows.to_csv(tmp_path / "a.nodes.tsv", sep="\t", index=False)
        data = dw.data.load(tmp_path / "a.edgelist")
        assert data.spec.task == "regression"
        assert torch.equal(data.train.x.graph.x, torch.eye(30))

    @pytest.mark.parametrize("head", ["id,y", "y,id", "node,y"])
    def test_names_that_look_like_numbers_stay_as_they_are_written(self, tmp_path, head):
        names = ["007", "7", "5.0", "5", "NA", "nan", "1e3", "True", "-0", "00"]
        ends = [f"{a} {b}" for a, b in pairwise(names)]
        (tmp_path / "spies.edges").write_text("\n".join(ends))
        rows = [f"{i / 7},{n}" if head[0] == "y" else f" {n} ,{i / 7}" for i, n in enumerate(names)]
        (tmp_path / "spies.nodes.csv").write_text("\n".join([head, *rows]))
        data = dw.data.load(tmp_path / "spies.edges")
        held = data.train.x.graph
        assert held.nodes == 10
        forth = held.source < held.target
        assert sorted(held.source[forth].tolist()) == list(range(9))
        assert torch.equal(held.target[forth], held.source[forth] + 1)

    @pytest.mark.parametrize(
        ("edges", "nodes", "told"),
        [
            ("a b\nb\n", None, "line 2 .* two nodes and perhaps a weight, got 'b'"),
            ("a b 1\nb c x\n", None, "line 2 .* finite and not negative"),
            ("a b 1\nb c -1\n", None, "line 2 .* finite and not negative"),
            ("a b 1\nb c\n", None, "line 2 .* as others do"),
            ("# nothing\n", None, "no edges"),
            ("", None, "no edges"),
            (
                "a b\n",
                "id,y\na,1\nc,0\n" + "".join(f"{c},{c % 2}\n" for c in range(8)),
                "'a' and 'b', but the table of nodes",
            ),
            ("a b\n", "id,y\na,1\na,0\n", "name each node once"),
            ("a b\n", "id,y\na,1\n,0\nb,1\n", "name each node once"),
            ("a b\n", "id\na\nb\n", "a column to learn from and a target"),
            ("a b\n", "id,y\na,1\nb,\n", "1 nodes .* three are the least"),
        ],
    )
    def test_what_is_refused(self, tmp_path, edges, nodes, told):
        (tmp_path / "g.edges").write_text(edges)
        if nodes is not None:
            (tmp_path / "g.nodes.csv").write_text(nodes)
        with pytest.raises(ValueError, match=told):
            dw.data.load(tmp_path / "g.edges")

    def test_new_nodes_that_do_not_fit(self, club, tmp_path):
        data = dw.data.load(club)
        (tmp_path / "new.edges").write_text("a b\n")
        with pytest.raises(ValueError, match=r"there must be new\.nodes\.csv"):
            dw.data.read(tmp_path / "new.edges", data.preparation)
        (tmp_path / "new.nodes.csv").write_text("id,age\na,1\nb,2\n")
        with pytest.raises(ValueError, match='lack column "sport"'):
            dw.data.read(tmp_path / "new.edges", data.preparation)
        molecules = dw.data.load("solubility", limit=40)
        with pytest.raises(ValueError, match="learned from molecules"):
            dw.data.read(tmp_path / "new.edges", molecules.preparation)
        with pytest.raises(ValueError, match="a graph comes whole"):
            dw.data.load(club, limit=10)
        with pytest.raises(FileNotFoundError, match=r"no file or folder .*; did you mean"):
            dw.data.load(tmp_path / "clubs.edges")


class TestPairs:
    def test_edges_alone_ask_who_is_joined(self, club):
        club.with_suffix(".nodes.csv").unlink()
        data = dw.data.load(club)
        assert data.spec.classes == ("apart", "joined")
        asked = sum(int(split.y.sum()) for split in data.splits.values())
        assert asked == pytest.approx(78 * 0.65, abs=2)
        known = {tuple(pair) for pair in data.test.x.graph.edges.T.tolist()}
        assert not known & {tuple(pair) for pair in data.test.x.pairs.tolist()}
        with pytest.raises(ValueError, match="leave target="):
            dw.data.load(club, target="club")
        with pytest.raises(ValueError, match="learned from pairs"):
            dw.data.read(club, data.preparation)

    def test_many_nodes_are_random_numbers(self, tmp_path):
        path = tmp_path / "ring.edges"
        path.write_text("\n".join(f"{i},{(i + 1) % 1500}" for i in range(1500)))
        first, again = dw.data.load(path), dw.data.load(path)
        assert first.spec.shape == (64,)
        assert torch.equal(first.train.x.graph.x, again.train.x.graph.x)
        assert not torch.equal(first.train.x.graph.x, dw.data.load(path, seed=1).train.x.graph.x)

    def test_lines(self, tmp_path):
        path = tmp_path / "l.edges"
        path.write_text("a, b, 2\n\n  c\td  0.5 # remark\n")
        ends, weight = read_edges(path)
        assert ends.tolist() == [["a", "b"], ["c", "d"]]
        assert weight.tolist() == [2.0, 0.5]


class TestMolecules:
    @pytest.fixture
    def files(self, tmp_path):
        raw = (
            lzma.decompress((SHIPPED / "solubility.test.sdf.xz").read_bytes())
            .decode()
            .replace("\r\n", "\n")
        )
        records = raw.split("$$$$\n")
        (tmp_path / "known.sdf").write_text("$$$$\n".join(records[:60]) + "$$$$\n")
        (tmp_path / "new.sdf.xz").write_bytes(lzma.compress("$$$$\n".join(records[60:70]).encode()))
        return tmp_path

    def test_a_file_is_learned_from(self, files):
        data = dw.data.load(files / "known.sdf", target="SOL")
        assert data.spec.task == "regression"
        assert [len(split) for split in data.splits.values()] == [42, 9, 9]
        named = dw.data.load("solubility")
        assert data.spec.features[-5:] == named.spec.features[-5:]
        classes = dw.data.load(files / "known.sdf", target="SOL_classification")
        assert classes.spec.task == "multiclass"
        with pytest.raises(ValueError, match='"SOLL" is not a column; did you mean "SOL"'):
            dw.data.load(files / "known.sdf", target="SOLL")

    def test_new_molecules_are_predicted(self, files):
        data = dw.data.load(files / "known.sdf", target="SOL")
        net = dw.nn.gnn(data.spec, (4,), pool="sum")
        run = dw.fit(dw.Regress(net), data, epochs=1, out=files / "run")
        run.test()
        assert outcome.predict_file(files / "run", str(files / "new.sdf.xz"), files / "p.csv") == 10
        x, y, _ = dw.data.read(files / "new.sdf.xz", data.preparation)
        assert len(y) == len(x) == 10
        found = torch.tensor(pd.read_csv(files / "p.csv")["SOL"])
        assert torch.allclose(found.float(), run.predict(x), atol=1e-5)
        with pytest.raises(ValueError, match=r"learned from tables, but .* holds graphs"):
            dw.data.read(files / "new.sdf.xz", dw.data.load("iris").preparation)

    def test_no_target(self, tmp_path, files):
        raw = (files / "known.sdf").read_text()
        bare = [record.partition("\n>")[0] for record in raw.split("$$$$\n")[:-1]]
        (tmp_path / "bare.sdf").write_text("\n$$$$\n".join(bare) + "\n$$$$\n")
        with pytest.raises(ValueError, match="a column to learn from and a target"):
            dw.data.load(tmp_path / "bare.sdf")
