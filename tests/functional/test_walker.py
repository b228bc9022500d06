"""Random walkers: the linear system solved densely, walks of a ladder, slopes; edges enhanced."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import deepweave as dw
from deepweave.functional import edge_enhancing, random_walker


def image(*shape):
    random = torch.Generator().manual_seed(0)
    return torch.rand(*shape, dtype=torch.float64, generator=random)


@pytest.mark.parametrize("shape", [(9,), (5, 6), (3, 4, 3)])
def test_it_solves_the_system(shape):
    values, beta = image(*shape), 20.0
    seeds = torch.zeros(shape, dtype=torch.long)
    seeds.view(-1)[[0, 4, -1]] = torch.tensor([1, 2, 3])
    found = random_walker(values, seeds, beta=beta, tolerance=1e-12)
    number = np.arange(values.numel()).reshape(shape)
    flat, std = values.numpy().ravel(), values.numpy().std()
    laplace = np.zeros((values.numel(),) * 2)
    for axis in range(len(shape)):
        first = np.take(number, range(shape[axis] - 1), axis).ravel()
        last = np.take(number, range(1, shape[axis]), axis).ravel()
        weight = np.exp(-beta * (flat[first] - flat[last]) ** 2 / (10 * std))
        for i, j, w in zip(first, last, weight):
            laplace[[i, j], [i, j]] += w
            laplace[[i, j], [j, i]] -= w
    known = seeds.numpy().ravel() > 0
    held = np.eye(3)[:, seeds.numpy().ravel()[known] - 1]
    wanted = np.zeros((3, values.numel()))
    wanted[:, known] = held
    wanted[:, ~known] = np.linalg.solve(
        laplace[np.ix_(~known, ~known)], -laplace[np.ix_(~known, known)] @ held.T
    ).T
    assert np.abs(found.reshape(3, -1).numpy() - wanted).max() < 1e-10


def test_a_ladder():
    """Without edges the chance falls in a straight line from one end to the other."""
    found = random_walker(
        torch.zeros(11).double(), torch.tensor([1] + [0] * 9 + [2]), tolerance=1e-9
    )
    assert torch.allclose(found[0], torch.linspace(1, 0, 11).double())
    assert torch.allclose(found.sum(0), torch.ones(11).double())


def test_slopes_and_colours():
    seeds = torch.zeros(5, 5, dtype=torch.long)
    seeds[0, 0], seeds[3, 4], seeds[4, 0] = 1, 2, 3
    values = image(5, 5).requires_grad_()

    def walk(values):
        return random_walker(values, seeds, beta=15.0, tolerance=1e-13)

    assert torch.autograd.gradcheck(walk, (values,), eps=1e-6, atol=1e-6)
    grey = image(5, 5)
    colours = random_walker(grey.expand(1, 5, 5), seeds, channels=True, tolerance=1e-12)
    assert torch.allclose(colours, random_walker(grey, seeds, tolerance=1e-12))
    two = torch.stack([torch.zeros(5, 5).double(), grey])
    two[0, :, 3:] = 1  # an edge of the first colour alone
    found = random_walker(two, seeds, channels=True, beta=1000.0).argmax(0)
    assert found[:, 3:].unique().tolist() == [1]


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        (torch.zeros(3, 3).long(), r"seeds must be \(4, 4\)"),
        (torch.zeros(4, 4).long(), r"at least two of them and none left out, got \[0\]"),
        (torch.ones(4, 4).long(), "at least two"),
        (torch.tensor([1, 3] * 8).view(4, 4), r"none left out, got \[1, 3\]"),
        (torch.tensor([-1, 2] * 8).view(4, 4), "none left out"),
    ],
)
def test_what_walkers_refuse(seeds, message):
    with pytest.raises(ValueError, match=message):
        random_walker(torch.zeros(4, 4), seeds)
    with pytest.raises(TypeError, match=r"floating-point numbers, got torch\.int64"):
        random_walker(torch.zeros(4, 4).long(), seeds)


def test_walkers_that_do_not_arrive():
    seeds = torch.zeros(30, 30, dtype=torch.long)
    seeds[0, 0], seeds[-1, -1] = 1, 2
    with pytest.raises(ValueError, match="after 5 iterations the residual is still"):
        random_walker(image(30, 30), seeds, beta=1e4, iterations=5, tolerance=1e-10)
    with pytest.raises(ValueError, match="NaN or Inf"):
        random_walker(torch.full((30, 30), torch.nan), seeds)


class TestEnhancing:
    def test_an_edge_stays_and_its_noise_goes(self):
        rows = torch.arange(40, dtype=torch.float64)
        clean = (rows[:, None] + 0.5 * rows > 30).double()  # a slanted edge
        noise = 0.1 * torch.randn(40, 40, generator=torch.Generator().manual_seed(0)).double()
        found = edge_enhancing(clean + noise, 4.0, 0.08)
        left = float((found - clean).square().mean())
        plain = min(
            float((dw.heat(clean + noise, time) - clean).square().mean())
            for time in (0.25, 0.5, 1.0, 2.0)
        )
        assert left < 0.5 * plain
        assert torch.allclose(found.sum(), (clean + noise).sum())  # nothing flows out

    def test_flat_images_are_smoothed_as_by_heat(self):
        """Far below the contrast the tensor is the identity: an explicit step of heat."""
        from deepweave.functional import heat

        u = 1e-3 * image(2, 6, 7)
        found = edge_enhancing(u, 1.0, 1.0)
        assert torch.allclose(found, heat(u, 1.0, torch.ones(6, 7), method="explicit", steps=4))

    def test_slopes(self):
        u = image(4, 5).requires_grad_()
        assert torch.autograd.gradcheck(lambda v: edge_enhancing(v, 0.5, 0.4), (u,), atol=1e-5)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"contrast": 0.0}, "contrast must be positive, got 0"),
            ({"contrast": 1.0, "sigma": -1.0}, "sigma must be positive"),
            ({"contrast": 1.0, "time": -1.0}, "time must be finite and not negative"),
            ({"contrast": 1.0, "steps": 2}, "2 steps of 0.5 are not stable: .* so take 4"),
        ],
    )
    def test_refusals(self, options, message):
        with pytest.raises(ValueError, match=message):
            edge_enhancing(image(4, 4), **({"time": 1.0} | options))
        with pytest.raises(ValueError, match=r"u must be \(..., H, W\)"):
            edge_enhancing(image(4), 1.0, 1.0)
