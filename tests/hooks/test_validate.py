from __future__ import annotations

import pytest
import torch
from torch import nn

import deepweave as dw
from deepweave.hooks import Validate


def samples(n: int = 60, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def step(lr: float = 0.1) -> dw.Descent:
    torch.manual_seed(0)
    return dw.Descent(dw.Classify(nn.Linear(4, 3)), "SGD", lr=lr)


class Told(Validate):
    """Validation whose numbers are told in advance; of each the weights are kept."""

    def __init__(self, told: list, name: str = "loss", **options):
        super().__init__([None], **options)
        self.told, self.name = iter(told), name
        self.at: list[dict[str, torch.Tensor]] = []

    def measure(self, loop):
        self.at.append({n: v.detach().clone() for n, v in loop.step.weights().items()})
        return {self.name: torch.tensor(next(self.told)), "other": torch.tensor(7.0)}


@pytest.mark.parametrize(
    ("told", "options", "best"),
    [
        ([3.0, 1.0, 2.0, 1.0, 5.0], {}, 1),
        ([3.0, 1.0, 2.0, 4.0, 5.0], {"maximise": True}, 4),
        ([float("nan"), 2.0, float("nan"), 3.0, 3.0], {}, 1),
        ([3.0, 1.0, 2.0, 1.0, 0.5], {"restore": False}, 4),
    ],
)
def test_the_best_weights_are_put_back(told, options, best):
    validate = Told(told, **options)
    run = dw.fit(step(), [samples()], epochs=5, hooks=[validate])
    for name, value in run.step.weights().items():
        assert torch.equal(value, validate.at[best][name])
    assert run.info["best"]["epoch"] == best + 1
    assert run.info["best"]["scores"]["validation/loss"] == told[best]


def test_patience_counts_what_did_not_improve():
    validate = Told([3.0, 2.0, 2.5, 2.0, 1.5, 9.0, 9.0, 9.0, 0.0], patience=3)
    run = dw.fit(step(), [samples()], epochs=9, hooks=[validate])
    assert run.info["epochs"] == 8
    assert run.stopped == "no better validation loss for 3 validations"
    assert all(torch.equal(v, validate.at[4][n]) for n, v in run.step.weights().items())


def test_every_few_steps_and_once_at_the_end():
    validate = Told([5.0, 4.0, 3.0, 2.0], every=4)
    run = dw.fit(step(), [samples()] * 3, epochs=4, hooks=[validate])
    assert [line["step"] for line in run.history] == [4, 8, 12]
    validate = Told([5.0, 4.0, 3.0, 2.0], every=5)
    run = dw.fit(step(), [samples()] * 3, epochs=4, hooks=[validate])
    assert [line["step"] for line in run.history] == [5, 10, 12]


def test_the_mean_is_over_samples_not_over_batches():
    x, y = samples(50)
    uneven = [(x[:40], y[:40]), (x[40:47], y[40:47]), (x[47:], y[47:])]
    one = dw.fit(step(), [samples()], epochs=1, hooks=[Validate(uneven)]).history
    two = dw.fit(step(), [samples()], epochs=1, hooks=[Validate([(x, y)])]).history
    for name in ("validation/loss", "validation/accuracy"):
        assert one[-1][name] == pytest.approx(two[-1][name], rel=1e-5)


def test_training_mode_is_put_back_and_dropout_is_off():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3), nn.BatchNorm1d(3))
    modes, objective = [], dw.Classify(net)

    class Mode(dw.Hook):
        def after_step(self, loop, logs):
            modes.append(net.training)

    validate = Validate([samples(seed=1)], every=1, restore=False)
    run = dw.fit(objective, [samples()], steps=3, hooks=[Mode(), validate], lr=0.1)
    assert modes == [True] * 3
    objective.eval()
    expected = objective(samples(seed=1))[0].item()
    assert run.history[-1]["validation/loss"] == pytest.approx(expected, rel=1e-6)


def test_scores_are_over_the_whole_source():
    x, y = samples(50)

    def scores(prediction, target):
        assert prediction.shape == (50, 3)
        assert torch.equal(target, y)
        return {"share": (prediction.argmax(1) == target).double().mean()}

    validate = Validate([(x[:30], y[:30]), (x[30:], y[30:])], scores=scores, monitor="share",
                        maximise=True)  # fmt: skip
    run = dw.fit(step(), [samples()], epochs=2, hooks=[validate])
    line = run.history[-1]
    assert line["validation/share"] == pytest.approx(line["validation/accuracy"], abs=1e-6)
    assert float(validate.best) <= 0


def test_an_unknown_monitor_is_named():
    with pytest.raises(
        ValueError, match=r"monitor must be one of \['accuracy', 'loss'\], got 'auc'"
    ):
        dw.fit(step(), [samples()], epochs=1, hooks=[Validate([samples()], monitor="auc")])


@pytest.mark.parametrize("patience", [0, -1])
def test_bad_patience(patience):
    with pytest.raises(ValueError, match="patience must be at least 1"):
        Validate([], patience=patience)


def test_an_empty_source():
    with pytest.raises(ValueError, match="Validate: the source gave no batches"):
        dw.fit(step(), [samples()], epochs=1, hooks=[Validate([])])


# --- a Population ---------------------------------------------------------------------------


def population(n: int = 3) -> dw.Population:
    return dw.Population(dw.Classify(nn.Linear(4, 3)), n, "SGD", lr=0.1, shared=True)


def test_every_member_keeps_its_own_best():
    told = [[3.0, 1.0, 5.0], [2.0, 2.0, 4.0], [4.0, 0.5, 4.5], [1.0, 3.0, 6.0]]
    best = [3, 2, 1]
    validate = Told(told)
    run = dw.fit(population(), [samples()], epochs=4, hooks=[validate])
    for name, value in run.step.weights().items():
        for member, epoch in enumerate(best):
            assert torch.equal(value[member], validate.at[epoch][name][member])
    assert run.step.best == 1
    assert run.info["best"]["epoch"] == 3
    assert run.info["best"]["scores"]["validation/loss"] == 0.5
    chosen = run.objective.state_dict()
    assert all(torch.equal(v, validate.at[2][n][1]) for n, v in chosen.items())


def test_a_population_stops_when_no_member_gets_better():
    late = [[2.0, 0.5, 2.0], [2.0, 2.0, 0.5], *[[2.0, 2.0, 2.0]] * 3]
    told = [[1.0, 1.0, 1.0], *late]
    run = dw.fit(population(), [samples()], epochs=6, hooks=[Told(told, patience=2)])
    assert run.info["epochs"] == 5  # the last member got better in the third


def test_scores_of_each_member():
    x, y = samples(50)

    def scores(prediction, target):
        return {"share": (prediction.argmax(1) == target).double().mean()}

    validate = Validate([(x[:30], y[:30]), (x[30:], y[30:])], scores=scores)
    run = dw.fit(population(), [samples()], epochs=2, hooks=[validate])
    line = run.history[-1]
    assert len(line["validation/share"]) == 3
    assert line["validation/share"] == pytest.approx(line["validation/accuracy"], abs=1e-6)


def test_the_note_is_of_the_best_member():
    run = dw.fit(population(), [samples()], epochs=3, hooks=[Validate([samples(seed=1)])])
    best, member = run.info["best"], run.step.best
    line = next(row for row in run.history if row["step"] == best["step"])
    for name, value in best["scores"].items():
        assert value == pytest.approx(line[name][member])
