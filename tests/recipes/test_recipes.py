from __future__ import annotations

import inspect
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import deepweave as dw
from deepweave import recipes
from deepweave.recipes import recipe

pytestmark = pytest.mark.long


def complete(run: dw.Run, name: str) -> dict:
    """Everything a finished run must hold, as the page and others read it."""
    folder = run.folder
    assert folder is not None
    info = json.loads((folder / "run.json").read_text())
    assert info["status"] == "finished"
    assert info["recipe"] == name
    assert info["question"].endswith("?")
    assert info["title"]
    assert info["command"].startswith(f"deepweave run {name.replace('_', '-')}")
    page = (folder / "report.html").read_text()
    assert info["title"] in page.replace("&#39;", "'").replace("&#x27;", "'")
    assert "<script src" not in page
    assert (folder / "card.md").read_text().startswith("---\n")
    for score in (*info["scores"].values(), *info["baseline"].values()):
        assert set(score) >= {"value", "low", "high", "method"}
    assert set(info["scores"]) == set(info["baseline"])
    for figure in info.get("figures", []):
        assert (folder / figure["file"]).read_text().lstrip().startswith("<")
        assert figure["alt"]
    assert not list(folder.rglob("*.part"))
    dw.load(folder)
    return info


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_runs_quickly(name, tmp_path, capsys):
    run = recipes.find(name)(quick=True, out=tmp_path / "run")
    info = complete(run, name)
    assert info["settings"]["quick"] is True
    assert info["scores"]


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_says_what_it_is(name):
    one = recipes.find(name)
    assert one.name == name
    assert one.about.endswith(".")
    assert one.topic[:2].isdigit()
    assert one.seconds > 0
    options = inspect.signature(one.function).parameters
    assert {"seed", "quick", "out"} <= options.keys()
    explained = inspect.getdoc(one.function) or ""
    assert all(f"{option}:" in explained for option in options)


def table(path, target: str):
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(150, 3)), columns=["a", "b", "c"])
    frame["kind"] = random.choice(["u", "v"], 150)
    signal = frame["a"] - frame["b"] + (frame["kind"] == "u")
    kinds = {
        "binary": np.where(signal > 0.5, "yes", "no"),
        "multiclass": pd.cut(signal, 3, labels=["low", "middle", "high"]),
        "regression": 100 * signal + 3000,
    }
    frame["label"] = kinds[target]
    frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("name", ["deep", "shallow", "metrics"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_table_of_ones_own(name, task, tmp_path, capsys):
    path = table(tmp_path / "mine.csv", task)
    run = recipes.find(name)(str(path), target="label", quick=True, out=tmp_path / "run")
    info = complete(run, name)
    assert info["data"]["spec"]["task"] == task
    assert ("test/rmse" in info["scores"]) == (task == "regression")


def test_deep_learns_a_table_better_than_guessing(tmp_path, capsys):
    path = table(tmp_path / "mine.csv", "binary")
    run = recipes.find("deep")(str(path), epochs=30, hidden=(32,), out=tmp_path / "run")
    info = complete(run, "deep")
    assert info["scores"]["test/accuracy"]["value"] > 0.8
    assert info["baseline"]["test/accuracy"]["value"] < 0.7
    assert info["rivals"]["a single layer"].keys() == info["scores"].keys()


def test_deep_on_a_regression(tmp_path, capsys):
    run = recipes.find("deep")("diabetes", epochs=30, hidden=(32,), out=tmp_path / "run")
    info = complete(run, "deep")
    assert info["scores"]["test/rmse"]["value"] < 0.9 * info["baseline"]["test/rmse"]["value"]


def test_deep_on_arrays(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    np.savez(tmp_path / "mine.npz", x=x, y=(x[:, 0] > x[:, 1]).astype(int))
    run = recipes.find("deep")(str(tmp_path / "mine.npz"), epochs=20, out=tmp_path / "run")
    assert complete(run, "deep")["scores"]["test/accuracy"]["value"] > 0.8


def test_deep_on_several_labels(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    np.savez(tmp_path / "mine.npz", x=x, y=(x[:, :3] > 0).astype(int))
    run = recipes.find("deep")(str(tmp_path / "mine.npz"), epochs=20, out=tmp_path / "run")
    info = complete(run, "deep")
    assert info["data"]["spec"]["task"] == "multilabel"


def test_deep_on_a_folder_of_images(tmp_path, capsys):
    random = np.random.default_rng(0)
    for label in ("dark", "light"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for i in range(30):
            pixels = random.integers(0, 150, (8, 8, 3)) + 100 * (label == "light")
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"pets/{label}/{i}.png")
    run = recipes.find("deep")(str(tmp_path / "pets"), out=tmp_path / "run")
    info = complete(run, "deep")
    assert info["data"]["spec"]["kind"] == "image"
    assert info["scores"]["test/accuracy"]["value"] == 1.0


def test_the_seed_decides_and_the_folder_does_not(tmp_path, capsys):
    files = []
    for place, seed in enumerate((0, 0, 1)):
        out = tmp_path / f"run{place}"
        recipes.find("deep")("iris", hidden=(8,), seed=seed, quick=True, out=out)
        files.append((out / "model.safetensors").read_bytes())
    assert files[0] == files[1] != files[2]


# --- the frame around them ------------------------------------------------------------------


def test_names_with_dashes_and_near_names():
    assert recipes.find("deep") is recipes.find("deep")
    with pytest.raises(ValueError, match=r"there is no recipe 'dep': did you mean deep\?"):
        recipes.find("dep")
    with pytest.raises(ValueError, match=r"there are .*deep.*shallow"):
        recipes.find("xyz")


def test_a_recipe_needs_a_place_for_its_folder():
    with pytest.raises(TypeError, match="recipe: thing needs a parameter out"):

        @recipe("99 Things", seconds=1)
        def thing(data: str = "iris") -> dw.Run:
            """A thing."""
            return dw.Run()


def test_topics_are_in_order():
    topics = [one.topic for one in recipes.every()]
    assert topics == sorted(topics)
    assert len(topics) == len(recipes.names())
