"""The recipe of generative diffusion: what its page shows, what it must reach, what it refuses."""

from __future__ import annotations

import pytest

from deepweave import recipes


@pytest.mark.long
def test_its_page_shows_samples_and_readings(tmp_path, capsys):
    run = recipes.find("diffusion")(quick=True, out=tmp_path / "run")
    files = [figure["file"].split("/")[1] for figure in run.info["figures"]]
    assert files == ["samples.svg", "frames.svg", "calls.svg", "nearest.svg", "filled.svg"]
    titles = [table["title"] for table in run.info["tables"]]
    assert titles[0] == "Likelihood"
    assert titles[-1] == "Samplers"
    for samples, real in run.info["compare"].values():  # of each reading, real against real too
        assert None not in (samples["low"], real["low"])
    low, value, high = (run.info["scores"]["test/nll"][k] for k in ("low", "value", "high"))
    assert low < value < high


@pytest.mark.long
@pytest.mark.parametrize("asked", ["velocity", "flow"])
def test_other_targets_run(asked, tmp_path, capsys):
    schedule = "straight" if asked == "flow" else "cosine"
    run = recipes.find("diffusion")(
        quick=True, asked=asked, schedule=schedule, weight="min-snr", out=tmp_path / "run"
    )
    assert run.info["settings"]["asked"] == asked


@pytest.mark.long
def test_it_learns_digits(tmp_path, capsys):
    run = recipes.find("diffusion")(out=tmp_path / "run")
    assert run.info["scores"]["test/bits_per_dim"]["value"] < 2.0
    assert run.info["baseline"]["test/bits_per_dim"]["value"] > 2.3
    assert run.info["recognised"]["samples, guidance 1.5"]["value"] > 0.97
    assert run.info["compare"]["memorised"][0]["value"] < 0.55
    rows = next(t["rows"] for t in run.info["tables"] if t["title"] == "Samplers")
    assert rows[1][:2] == ["DPM-Solver++", "10"]
    assert float(rows[1][2].split()[0]) < 0.003


def test_what_is_no_labelled_image_is_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match="diffusion: needs images of classes, iris is"):
        recipes.find("diffusion")("iris", quick=True, out=tmp_path / "run")


@pytest.mark.long
def test_the_long_form_trains_on_for_the_bound(tmp_path, capsys):
    run = recipes.find("diffusion")(quick=True, full=True, out=tmp_path / "run")
    rows = next(t for t in run.info["tables"] if t["title"] == "Likelihood")["rows"]
    assert [row[0] for row in rows][2] == "trained on for the bound"
    further = run.info["further"]["bits_per_dim"]
    assert further["low"] < further["value"] < further["high"] < 8
    assert further["value"] < run.info["scores"]["test/bits_per_dim"]["value"]
