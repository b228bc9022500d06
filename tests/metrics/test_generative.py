"""Readings of generated samples: the formulas by loops, laws under repetition, what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from tests.metrics.elsewhere import Elsewhere

from deepweave.metrics import generative as g


def drawn(*shape, seed=0, **options):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **options)


class TestMMD:
    def test_it_is_the_formula(self):
        x, y = drawn(7, 3).double(), drawn(9, 3, seed=1).double() + 0.5
        far = torch.pdist(y).square().median()

        def k(a, b):
            square = float((a - b).square().sum())
            return np.mean([math.exp(-square / (2 * float(far) * w**2)) for w in (0.5, 1, 2)])

        own = [
            np.mean([k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j])
            for z in (x, y)
        ]
        wanted = sum(own) - 2 * np.mean([k(a, b) for a in x for b in y])
        assert float(g.mmd(x, y)) == pytest.approx(wanted, abs=1e-12)

    def test_the_jackknife_is_leaving_one_out(self):
        x, y = drawn(6, 2).double(), drawn(5, 2, seed=1).double()
        whole = g.kid(x, y)  # a kernel that does not hang on the samples
        left = [float(g.kid(torch.cat([x[:i], x[i + 1 :]]), y, confidence=None)) for i in range(6)]
        right = [float(g.kid(x, torch.cat([y[:i], y[i + 1 :]]), confidence=None)) for i in range(5)]
        variance = sum((len(one) - 1) * np.var(one) for one in (left, right))
        assert whole.high - float(whole) == pytest.approx(1.959964 * math.sqrt(variance))

    def test_intervals_cover_and_p_is_uniform(self):
        truth = float(g.mmd(drawn(4000, 2) + 0.5, drawn(4000, 2, seed=1), permutations=0))
        held, low = [], 0
        for seed in range(150):
            x, y = drawn(60, 2, seed=3 * seed), drawn(60, 2, seed=3 * seed + 1)
            score = g.mmd(x + 0.5, y, permutations=0)
            held.append(score.low < truth < score.high)
            low += g.mmd(x, y, confidence=None, permutations=99).p <= 0.1
        assert 0.88 < np.mean(held) < 0.99
        assert 5 <= low <= 27  # 15 wanted

    def test_kid_by_subsets(self):
        x, y = drawn(30, 4).double(), drawn(40, 4, seed=1).double() + 0.2
        random, values = np.random.RandomState(2020), []
        for _ in range(5):
            a = x[random.choice(30, 20, replace=False)]
            b = y[random.choice(40, 20, replace=False)]
            k = [((u @ v.T) / 4 + 1) ** 3 for u, v in ((a, a), (b, b), (a, b))]
            own = sum((m.sum() - m.trace()) / (20 * 19) for m in k[:2])
            values.append(float(own - 2 * k[2].mean()))
        found = g.kid(x, y, subsets=5, size=20)
        assert float(found) == pytest.approx(np.mean(values), abs=1e-12)
        assert found.high - float(found) == pytest.approx(1.959964 * np.std(values))

    def test_p_is_told_where_there_is_one(self):
        x, y = drawn(30, 2), drawn(30, 2, seed=1)
        for score in (g.kid(x, y), g.kid(x, y, confidence=None), g.mmd(x, y, permutations=0)):
            assert "p =" not in str(score)
        assert "p" not in g.kid(x, y).to_json()
        assert "p =" in str(g.mmd(x, y))


class TestFrechet:
    @pytest.mark.parametrize(("n", "m", "d"), [(50, 40, 4), (6, 9, 12), (30, 5, 8), (2, 2, 1)])
    def test_it_is_the_formula(self, n, m, d):
        x, y = drawn(n, d).double(), (drawn(m, d, seed=1) * 2 + 1).double()
        a, b = (np.atleast_2d(np.cov(z.numpy().T)) for z in (x, y))
        root = scipy.linalg.sqrtm(a @ b + 1e-13 * np.eye(d)).real
        wanted = float((x.mean(0) - y.mean(0)).square().sum()) + np.trace(a + b - 2 * root)
        assert float(g.frechet(x, y, confidence=None)) == pytest.approx(wanted, rel=1e-4)

    def test_the_interval_is_about_right(self):
        """Its width is that of the scatter of the distance over new samples."""
        scores = [g.frechet(drawn(200, 3, seed=i) + 1, drawn(200, 3, seed=999 + i))
                  for i in range(40)]  # fmt: skip
        half = np.mean([s.high - float(s) for s in scores])
        assert half == pytest.approx(1.96 * np.std([float(s) for s in scores]), rel=0.35)


class TestManifold:
    def test_by_loops(self):
        x, y, k = drawn(12, 2), drawn(15, 2, seed=1), 3
        far = torch.cdist(x, y)
        radius = [sorted(torch.cdist(y, y)[j].tolist())[k] for j in range(15)]
        other = [sorted(torch.cdist(x, x)[i].tolist())[k] for i in range(12)]
        found = g.manifold(x, y, neighbours=k)
        inside = [[far[i, j] <= radius[j] for j in range(15)] for i in range(12)]
        assert float(found.precision) == pytest.approx(np.mean([any(row) for row in inside]))
        assert float(found.density) == pytest.approx(np.sum(inside) / k / 12)
        assert float(found.coverage) == pytest.approx(np.mean([any(col) for col in zip(*inside)]))
        back = [any(far[i, j] <= other[i] for i in range(12)) for j in range(15)]
        assert float(found.recall) == pytest.approx(np.mean(back))

    def test_collapse_costs_variety_and_noise_costs_quality(self):
        real = drawn(300, 2)
        same = g.manifold(drawn(300, 2, seed=1), real)
        collapsed = g.manifold(0.1 * drawn(300, 2, seed=1), real)
        wide = g.manifold(4 * drawn(300, 2, seed=1), real)
        assert collapsed.precision.high > 0.99
        assert collapsed.coverage.high < same.coverage.low
        assert collapsed.recall.high < same.recall.low
        assert wide.precision.high < same.precision.low
        assert same.density.low < 1 < same.density.high

    def test_far_from_zero_and_images(self):
        a, b = drawn(300, 2), drawn(300, 2, seed=1)
        moved = g.manifold(a + 1e4, b + 1e4)
        assert float(moved.density) == pytest.approx(float(g.manifold(a, b).density), abs=0.05)
        images = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        found = g.memorised(images[:20], images, torch.rand(20, 1, 4, 4))
        assert float(found) == 1

    def test_copies_are_found(self):
        train, real = drawn(200, 5), drawn(100, 5, seed=1)
        copies = train[:80] + 1e-3 * drawn(80, 5, seed=2)
        assert g.memorised(copies, train, real).low > 0.95
        fresh = g.memorised(drawn(100, 5, seed=3), train, real)
        assert fresh.low < 0.5 < fresh.high
        assert g.memorised(5 + drawn(100, 5, seed=3), train, real).high < 0.05


class TestClassifier:
    def test_its_power(self):
        same = [g.c2st(drawn(150, 4, seed=i), drawn(150, 4, seed=99 + i)) for i in range(20)]
        assert np.mean([float(s) for s in same]) == pytest.approx(0.5, abs=0.03)
        ring = torch.nn.functional.normalize(drawn(150, 2)) * 1.4  # the same mean and covariance
        assert g.c2st(ring, drawn(150, 2, seed=1)).low > 0.6

    def test_it_is_repeated_and_leaves_the_random_state(self):
        before = torch.random.get_rng_state()
        x, y = drawn(40, 2), drawn(40, 2, seed=1)
        assert float(g.c2st(x, y)) == float(g.c2st(x, y))
        assert torch.equal(before, torch.random.get_rng_state())
        with torch.no_grad():
            assert float(g.c2st(x, y + 5)) > 0.95

    def test_it_learns_in_inference_mode_too(self):
        x, y = drawn(60, 2), drawn(60, 2, seed=1) + 1.5
        wanted = g.c2st(x, y)
        assert wanted.low > 0.5
        with torch.inference_mode():
            assert float(g.c2st(x, y)) == float(wanted)
            a, b = x.clone(), y.clone()
            assert a.is_inference()
            assert float(g.c2st(a, b)) == float(wanted)
        assert float(g.c2st(a, b)) == float(wanted)


@pytest.mark.parametrize(
    "read",
    [
        g.mmd,
        g.kid,
        lambda x, y: g.kid(x, y, subsets=3, size=8),
        g.frechet,
        lambda x, y: g.manifold(x, y).density,
        lambda x, y: g.memorised(x, y, y + 0.1),
        lambda x, y: g.c2st(x, y, steps=5),
        lambda x, y: g.compare(x, y, y + 0.1, y)["memorised"][0],
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_samples_of_another_device(read, apart):
    """Nothing that is made on the way stays behind on the host; real ones may be there."""
    x, y = drawn(25, 2), drawn(22, 2, seed=1)
    wanted = read(x, y)
    with Elsewhere() as there:
        found = read(there(x), y if apart else there(y))
    assert float(found) == pytest.approx(float(wanted), rel=1e-4)
    assert found.low == pytest.approx(wanted.low, rel=1e-3)


def test_compare_has_every_row():
    real = drawn(120, 3)
    found = g.compare(drawn(60, 3, seed=5) * 3, real[:60], real[60:], drawn(70, 3, seed=2))
    assert set(found) == {"mmd", "c2st", "frechet", "memorised", *g.Manifold._fields}
    for ours, theirs in found.values():
        assert ours.low <= float(ours) <= ours.high
        assert theirs.low <= float(theirs) <= theirs.high
    assert found["mmd"][0].low > found["mmd"][1].high


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: g.mmd(x, x[:, :2]), r"one shape, got \(9, 3\) and \(9, 2\)"),
        (lambda x: g.mmd(x[:2], x), "at least 3 samples of each, got 2 and 9"),
        (lambda x: g.frechet(x * torch.nan, x), "NaN or Inf"),
        (lambda x: g.frechet(x, x), r"groups must lie in 2\.\.4, got 10"),
        (lambda x: g.manifold(x, x, neighbours=9), r"neighbours must lie in 1\.\.8, got 9"),
        (lambda x: g.c2st(x, x, folds=1), "folds must be at least 2"),
        (lambda x: g.kid(x, x, subsets=2, size=1), "a size from 2"),
        (lambda x: g.c2st(x, x), "at least 10 samples of each"),
        (lambda x: g.kid(x, x, subsets=2, size=10), "subsets of 10 cannot be drawn of 9"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(drawn(9, 3))


@pytest.mark.parametrize("count", [4, 7, 18])
def test_few_samples_are_compared_too(count):
    x = drawn(3 * count, 3)
    found = g.compare(x[:count], x[count : 2 * count], x[2 * count :], x[:count] + 1)
    for pair in found.values():
        for score in pair:
            assert math.isfinite(score)
            assert score.low <= float(score) <= score.high
    with pytest.raises(ValueError, match="compare: at least 4 samples of each, got 3"):
        g.compare(x[:3], x[3:7], x)


def test_images_are_compared_with_training_images_too():
    x = torch.rand(90, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    found = g.compare(x[:30], x[30:60], x[60:], x[:60])["memorised"][0]
    flat = x.flatten(1)
    assert float(found) == float(g.memorised(flat[:30], flat[:60], flat[30:60]))


def test_images_are_compared_as_rows_of_their_pixels():
    random = torch.Generator().manual_seed(4)
    made, real, other, train = (torch.rand(40, 1, 3, 3, generator=random) for _ in range(4))
    found = g.compare(made, real, other, train)
    flat = g.compare(*(one.flatten(1) for one in (made, real, other, train)))
    assert {k: tuple(map(float, v)) for k, v in found.items()} == {
        k: tuple(map(float, v)) for k, v in flat.items()
    }
