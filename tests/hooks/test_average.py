from __future__ import annotations

import pytest
import torch
from torch import nn

import deepweave as dw
from deepweave.hooks import Average, Validate


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(0)
    return [(x, x[:, 0] - x[:, 1]) for x in torch.randn(6, 16, 3, generator=g)]


def net(norm: bool = False) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(3, 4), nn.BatchNorm1d(4)] if norm else [nn.Linear(3, 4)]
    return nn.Sequential(*layers, nn.Linear(4, 1))


class Path(dw.Hook):
    """The weights after every step."""

    def __init__(self) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []

    def after_step(self, loop, logs):
        self.seen.append({n: v.detach().clone() for n, v in loop.step.weights().items()})


def fitted(*hooks: dw.Hook, norm: bool = False, epochs: int = 3) -> tuple[dw.Run, Path]:
    path = Path()
    step = dw.Descent(dw.Regress(net(norm)), "SGD", lr=0.05)
    return dw.fit(step, batches(), epochs=epochs, hooks=[path, *hooks]), path


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_exponential_average_against_a_loop(decay):
    run, path = fitted(Average(decay), norm=True)
    mean = {name: value.double() for name, value in path.seen[0].items()}
    for t, now in enumerate(path.seen[1:], start=2):
        d = min(decay, (1 + t) / (10 + t))
        mean = {n: d * mean[n] + (1 - d) * v for n, v in now.items()}
    for name, value in run.step.weights().items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), mean[name], rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(value, path.seen[-1][name]), "counts are taken as they are"


@pytest.mark.parametrize(("start", "every"), [(0, 1), (5, 1), (0, 3), (4, 2)])
def test_uniform_average_is_the_mean(start, every):
    run, path = fitted(Average(None, start=start, every=every))
    taken = [w for i, w in enumerate(path.seen, 1) if i > start and i % every == 0]
    for name, value in run.step.weights().items():
        expected = torch.stack([weights[name] for weights in taken]).mean(0)
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


def test_training_goes_on_from_its_own_weights():
    _, plain = fitted()
    _, averaged = fitted(Average(0.9), Validate(batches(), restore=False))
    for one, two in zip(plain.seen, averaged.seen, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_swap_and_a_swap_back_change_nothing():
    average, found = Average(0.9), {}

    class Swap(dw.Hook):
        def after_epoch(self, loop):
            before = {n: v.clone() for n, v in loop.step.weights().items()}
            mean = {n: v.clone() for n, v in average.mean.items()}
            average.swap(loop)
            inside = {n: v.clone() for n, v in loop.step.weights().items()}
            assert all(torch.equal(inside[n], mean[n]) for n in mean)
            average.swap(loop)
            assert all(torch.equal(v, before[n]) for n, v in loop.step.weights().items())
            assert all(torch.equal(v, mean[n]) for n, v in average.mean.items())
            found["apart"] = any(not torch.equal(before[n], mean[n]) for n in mean)

    fitted(average, Swap(), epochs=1)
    assert found["apart"]


def test_validation_judges_the_average():
    class Losses(dw.Hook):
        def __init__(self):
            self.expected = []

        def after_epoch(self, loop):
            other = dw.Regress(net())
            other.load_state_dict(average.mean)
            with torch.no_grad():
                self.expected.append(sum(float(other(b)[0]) for b in batches()) / 6)

    average, losses = Average(0.8), Losses()
    run, _ = fitted(average, Validate(batches()), losses)
    told = [line["validation/loss"] for line in run.history if "validation/loss" in line]
    # the watch runs before the late hooks, the averages are those of the same step
    assert told == pytest.approx(losses.expected, rel=1e-5)


def test_the_run_ends_with_the_best_average_not_with_the_last():
    """The second half climbs up the loss: the best average is of the first."""

    class Ruin(dw.Hook):
        def after_epoch(self, loop):
            loop.step.optimizers[0].param_groups[0]["lr"] = 0.05 if loop.epoch < 3 else -0.02

    validate = Validate(batches())
    run, _ = fitted(Average(0.5), validate, Ruin(), epochs=6)
    assert run.info["best"]["epoch"] <= 3
    with torch.no_grad():
        loss = sum(float(run.objective(b)[0]) for b in batches()) / 6
    assert loss == pytest.approx(float(validate.best), rel=1e-5)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_bad_decays(decay):
    with pytest.raises(ValueError, match=r"Average: decay must lie in \[0, 1\)"):
        Average(decay)
