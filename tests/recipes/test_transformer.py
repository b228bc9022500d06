"""The recipe of topic 15 that reads: what is compared, and the weights that were learned before."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch

from deepweave import recipes
from deepweave.recipes import transformer


class Page:
    def table(self, title, columns, rows, caption):
        self.columns, self.rows, self.caption = columns, rows, caption


def division(right, count=400, seed=0):
    """Predictions that are right for such shares of the texts, each method by itself."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 2, (count,), generator=draw)
    found = {}
    for name, share in right.items():
        wrong = torch.randperm(count, generator=draw)[: round((1 - share) * count)]
        said = y.clone()
        said[wrong] = 1 - said[wrong]
        found[name] = 0.2 + 0.6 * said.float()
    return found, y


def test_the_table_says_what_the_intervals_say():
    page = Page()
    shares = {"good": 0.9, "alike": 0.7, "poor": 0.5, "bag of words": 0.7}
    transformer._compared(page, [division(shares, seed=seed) for seed in range(3)])
    assert page.columns == [
        "division", "good", "alike", "poor", "bag of words",
        *(f"{name} minus bag, points" for name in ("good", "alike", "poor")),
    ]  # fmt: skip
    assert [row[0] for row in page.rows] == ["1", "2", "3", "all"]
    assert page.rows[-1][1].startswith("90 %")
    assert [row[5].split()[0] for row in page.rows] == ["+20.0"] * 4
    told = "over all divisions, good is ahead, alike is level, poor is behind."
    assert page.caption.startswith(f"Beside the bag of words, {told}")


def test_one_method_has_one_difference():
    page = Page()
    transformer._compared(page, [division({"transformer": 0.8, "bag of words": 0.8})])
    assert page.columns[-1] == "difference in points"
    assert "transformer is level" in page.caption


@pytest.mark.long
def test_weights_learned_before(tmp_path, capsys):
    """Few texts with opinions: what MiniLM learned elsewhere tells them apart."""
    good, bad = (
        ("good", "great", "lovely", "fine", "superb"),
        ("bad", "awful", "dull", "poor", "sad"),
    )
    things = ("film", "plot", "cast", "story", "scene", "score", "end", "joke")
    rows = [
        (f"a {word} {thing}, and that is all there is to say of it", kind)
        for kind, words in (("yes", good), ("no", bad))
        for word in words
        for thing in things
    ]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(tmp_path / "said.csv", index=False)
    run = recipes.find("transformer")(
        data=str(tmp_path / "said.csv"), pretrained=True, quick=True, rate=1e-3, seed=1,
        out=tmp_path / "run",
    )  # fmt: skip
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["title"].startswith("MiniLM, fine-tuned on")
    assert set(info["rivals"]) == {"from scratch", "bag of words"}
    compared, steps = info["tables"]
    assert len(compared["rows"]) == 3
    assert steps["rows"][0][2].startswith("[CLS] i love this movie")
    names = [row[0] for row in steps["rows"]]
    assert len(set(names)) == len(names) == 1 + 1 + 2 * 6 + 1 + 1 + 6  # once each
    assert len(run.model.stack.blocks) == 6
    assert not any(w.requires_grad for w in run.model.embedding.parameters())
    assert run.data.preparation.features.how == "pieces"
    assert torch.equal(
        run.model.embedding.tokens.weight[101],  # untouched by training
        transformer.dw.data.weights("minilm")["embeddings.word_embeddings.weight"][101],
    )
