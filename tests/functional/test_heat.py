"""Diffusion: against analytic solutions, the exponential of the matrix, and by other ways."""

from __future__ import annotations

import math

import networkx
import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import torch
from hypothesis import given, settings, strategies as st

import deepweave as dw
from deepweave.functional.chebyshev import exponential, solve
from deepweave.functional.heat import METHODS, heat, perona_malik

BOUNDARIES = ("neumann", "dirichlet", "periodic")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def matrix(diffusivity: np.ndarray, boundary: str, spacing: list[float]) -> np.ndarray:
    """div(D grad) of a grid as a matrix, cell by cell, by the definition."""
    shape = diffusivity.shape
    number = np.arange(diffusivity.size).reshape(shape)
    made = np.zeros((diffusivity.size,) * 2)
    for at in np.ndindex(*shape):
        for axis, width in enumerate(spacing):
            for way in (-1, 1):
                other = list(at)
                other[axis] += way
                inside = 0 <= other[axis] < shape[axis]
                if not inside and boundary == "periodic":
                    other[axis] %= shape[axis]
                    inside = True
                i = number[at]
                if inside:
                    j = number[tuple(other)]
                    flow = (diffusivity[at] + diffusivity[tuple(other)]) / 2 / width**2
                    made[i, j] += flow
                    made[i, i] -= flow
                elif boundary == "dirichlet":
                    made[i, i] -= 2 * diffusivity[at] / width**2
    return made


GRIDS = [
    ((7,), [0.5]),
    ((1,), [1.0]),
    ((8,), [0.3]),
    ((4, 5), [0.7, 0.4]),
    ((2, 3, 3), [1, 0.5, 2]),
]


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_a_constant_is_the_exponential_of_the_lattice(boundary, shape, spacing):
    u, options = drawn(2, *shape), {"axes": len(shape), "spacing": spacing, "boundary": boundary}
    exact = scipy.linalg.expm(0.3 * 0.7 * matrix(np.ones(shape), boundary, spacing))
    wanted = (u.numpy().reshape(2, -1) @ exact.T).reshape(u.shape)
    found = heat(u, 0.3, 0.7, lattice=True, **options)
    assert np.abs(found.numpy() - wanted).max() < 1e-12
    field = heat(u, 0.3, torch.full(shape, 0.7, dtype=torch.float64), **options)
    assert np.abs(field.numpy() - wanted).max() < 1e-12


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_a_field_is_the_exponential_of_its_matrix(boundary, shape, spacing):
    u, d = drawn(2, *shape), drawn(*shape, seed=1).exp()
    options = {"axes": len(shape), "spacing": spacing, "boundary": boundary}
    made = matrix(d.numpy(), boundary, spacing)
    wanted = (u.numpy().reshape(2, -1) @ scipy.linalg.expm(0.4 * made).T).reshape(u.shape)
    assert np.abs(heat(u, 0.4, d, **options).numpy() - wanted).max() < 1e-12
    for method, steps in (("explicit", 5000), ("implicit", 400), ("crank-nicolson", 400)):
        near = heat(u, 0.4, d, method=method, steps=steps, **options)
        assert np.abs(near.numpy() - wanted).max() < (1e-4 if method == "crank-nicolson" else 0.02)
    eye = np.eye(len(made))
    step = scipy.linalg.solve(eye - 0.1 * made, u.numpy().reshape(2, -1).T).T
    one = heat(u, 0.1, d, method="implicit", steps=1, **options)
    assert np.abs(one.numpy() - step.reshape(u.shape)).max() < 1e-10
    half = scipy.linalg.solve(eye - 0.05 * made, (eye + 0.05 * made) @ u.numpy().reshape(2, -1).T).T
    one = heat(u, 0.1, d, method="crank-nicolson", steps=1, **options)
    assert np.abs(one.numpy() - half.reshape(u.shape)).max() < 1e-10


@pytest.mark.parametrize("size", [16, 17])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_waves_decay_as_they_must(boundary, size):
    x = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    wave = {"neumann": torch.cos, "dirichlet": torch.sin, "periodic": torch.sin}[boundary]
    number = 3 * math.pi * (2 if boundary == "periodic" else 1)
    u = wave(number * x)[:, None] * wave(number * x)
    wanted = u * math.exp(-2 * 0.01 * number**2)
    for dtype, tolerance in ((torch.float64, 1e-14), (torch.float32, 1e-6)):
        found = heat(u.to(dtype), 0.01, boundary=boundary, spacing=1 / size)
        assert found.dtype == dtype
        assert float((found.double() - wanted).abs().max()) < tolerance


def test_it_is_the_cosine_transform_of_scipy():
    u = drawn(31, 64)
    rates = [(np.pi * np.arange(n) / n) ** 2 for n in u.shape]
    factor = np.exp(-2.5 * (rates[0][:, None] + rates[1]))
    wanted = scipy.fft.idctn(scipy.fft.dctn(u.numpy(), norm="ortho") * factor, norm="ortho")
    assert np.abs(heat(u, 2.5).numpy() - wanted).max() < 1e-13


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 9), st.floats(0, 50), st.sampled_from(BOUNDARIES[::2]),
    st.sampled_from(METHODS), st.integers(0, 99),
)  # fmt: skip
def test_nothing_is_lost_and_nothing_new_is_highest(rows, columns, time, boundary, method, seed):
    u, d = drawn(rows, columns, seed=seed), drawn(rows, columns, seed=seed + 1).exp()
    found = heat(u, time, d, boundary=boundary, method=method)
    assert float((found.sum() - u.sum()).abs()) < 1e-8
    if method != "crank-nicolson":  # whose large steps may overshoot
        assert float(found.max()) <= float(u.max()) + 1e-8
        assert float(found.min()) >= float(u.min()) - 1e-8
    again = heat(heat(u, time / 2, d, boundary=boundary), time / 2, d, boundary=boundary)
    assert torch.allclose(again, heat(u, time, d, boundary=boundary), atol=1e-10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_slopes_in_everything(boundary, method):
    u, time = drawn(2, 3, 4).requires_grad_(), torch.tensor(0.3).double().requires_grad_()
    d = drawn(3, 4, seed=1).exp().requires_grad_()
    options = {
        "boundary": boundary,
        "method": method,
        "steps": None if method == "exact" else 3 + 6 * (method == "explicit"),
    }

    def field(u, time, d):
        return heat(u, time, d, **options)

    assert torch.autograd.gradcheck(field, (u, time, d), eps=1e-6, atol=1e-6)
    if method == "exact":
        one = torch.tensor(0.4).double().requires_grad_()
        assert torch.autograd.gradcheck(field, (u, time, one))
        assert torch.autograd.gradgradcheck(field, (u, time, one))
        both = drawn(2, seed=2).exp().requires_grad_()
        assert torch.autograd.gradcheck(field, (u, time, both))


def test_rows_of_a_batch_have_their_own():
    u, d, time = drawn(3, 5, 4), drawn(3, seed=1).exp(), torch.tensor([0.0, 0.5, 2.0]).double()
    alone = torch.stack([heat(one, t, k) for one, t, k in zip(u, time, d)])
    assert torch.allclose(heat(u, time, d), alone, atol=1e-14)
    assert torch.equal(alone[0].round(decimals=12), u[0].round(decimals=12))
    members = torch.vmap(lambda one, t, k: heat(one, t, k))(u, time, d)
    assert torch.allclose(members, alone, atol=1e-14)
    fields = drawn(3, 5, 4, seed=2).exp()
    alone = torch.stack([heat(one, t, k) for one, t, k in zip(u, time, fields)])
    assert torch.allclose(heat(u, time, fields), alone, atol=1e-12)
    shared = torch.vmap(lambda one: heat(one, 0.3, fields[0]))(u)
    assert torch.allclose(shared, heat(u, 0.3, fields[0]), atol=1e-13)
    slope = torch.func.grad(lambda k: heat(u[0], 0.3, k).square().sum())(fields[0])
    assert slope.shape == (5, 4)
    members = torch.vmap(lambda k: heat(u[0], 0.3, k, highest=30.0))(fields)
    assert torch.allclose(members, heat(u[:1].expand(3, 5, 4), 0.3, fields), atol=1e-12)
    top = 1.001 * float(fields.max())  # a bound that is said is scaled by the time
    late = 8 * time
    both = heat(u, late, fields, highest=top)
    assert torch.allclose(both, heat(u, late, fields), atol=1e-10)
    with pytest.raises(ValueError, match="may not differ from member to member"):
        torch.vmap(lambda k: heat(u[0], 0.3, k))(fields)


class TestGraphs:
    def made(self, weighted):
        network = networkx.gnm_random_graph(12, 20, seed=1)
        ends = torch.tensor(list(network.edges)).T
        weight = torch.rand(20, generator=torch.Generator().manual_seed(0)) if weighted else None
        return dw.functional.graph(ends, torch.zeros(12, 1).double(), weight=weight)

    @pytest.mark.parametrize("weighted", [False, True])
    def test_it_is_the_exponential(self, weighted):
        held = self.made(weighted)
        laplacian = np.zeros((12, 12))
        weight = np.ones(40) if held.weight is None else held.weight.double().numpy()
        for a, b, w in zip(held.source.tolist(), held.target.tolist(), weight):
            laplacian[b, a] -= w
            laplacian[b, b] += w
        u = drawn(12, 3)
        wanted = scipy.linalg.expm(-0.6 * 1.5 * laplacian) @ u.numpy()
        assert np.abs(heat(u, 1.5, 0.6, graph=held).numpy() - wanted).max() < 1e-6
        if not weighted:
            assert np.abs(heat(u, 1.5, 0.6, graph=held).numpy() - wanted).max() < 1e-12
        near = heat(u, 1.5, 0.6, graph=held, method="crank-nicolson", steps=300)
        assert np.abs(near.numpy() - wanted).max() < 1e-4
        near = heat(u, 1.5, 0.6, graph=held, method="explicit", steps=4000)
        assert np.abs(near.numpy() - wanted).max() < 1e-2

    def test_slopes_and_refusals(self):
        held, u = self.made(False), drawn(12, 2).requires_grad_()
        time, d = (torch.tensor(v).double().requires_grad_() for v in (0.5, 1.2))
        assert torch.autograd.gradcheck(lambda *x: heat(*x, graph=held), (u, time, d))
        with pytest.raises(ValueError, match=r"u must be \(12, ...\) on this graph, got \(5, 2\)"):
            heat(u[:5], 1.0, graph=held)
        with pytest.raises(ValueError, match="a step may be at most"):
            heat(u, 10.0, graph=held, method="explicit", steps=3)
        ring = torch.stack([torch.arange(12), (torch.arange(12) + 1) % 12])
        one_way = dw.functional.graph(ring, torch.zeros(12, 1), directed=True)
        with pytest.raises(ValueError, match="lead one way only"):
            heat(u, 1.0, graph=one_way)
        assert heat(u, 1.0, graph=one_way, method="explicit").isfinite().all()
        lone = dw.functional.graph(torch.empty(2, 0), torch.zeros(3, 1))
        assert torch.equal(heat(torch.ones(3), 4.0, graph=lone), torch.ones(3))


class TestEdges:
    def test_a_step_stays_and_noise_goes(self):
        step = torch.cat([torch.zeros(8, 16), torch.ones(8, 16)]).double()
        noisy = step + 0.05 * drawn(16, 16)
        found = heat(noisy, 10.0, perona_malik(0.3))
        assert float((found - step).square().mean()) < 0.2 * float((noisy - step).square().mean())
        assert float(found[8:].mean() - found[:8].mean()) > 0.97
        assert torch.allclose(found.sum(), noisy.sum())

    def test_a_function_without_edges_is_a_number(self):
        u = drawn(16)
        for boundary in BOUNDARIES:
            flat = heat(u, 3.0, torch.ones_like, boundary=boundary, steps=4000)
            wanted = heat(u, 3.0, torch.ones(16).double(), boundary=boundary)
            assert torch.allclose(flat, wanted, atol=2e-3)

    def test_one_step_is_the_formula(self):
        u, k = drawn(5, 6), 0.7
        found = heat(u, 0.2, perona_malik(k, kind="rational"), steps=1)
        wanted = u.clone()
        for axis in (0, 1):
            for way in (1, -1):
                step = u.roll(way, axis) - u
                step.select(axis, 0 if way == 1 else -1).zero_()  # no flow through walls
                wanted = wanted + 0.2 * step / (1 + (step / k) ** 2)
        assert torch.allclose(found, wanted)

    def test_refusals(self):
        u = drawn(5, 6)
        with pytest.raises(ValueError, match=r"2 explicit steps of 1 .* at most 0.25, .* 8 steps"):
            heat(u, 2.0, perona_malik(0.3), steps=2)
        with pytest.raises(ValueError, match="stepped explicitly, not implicit"):
            heat(u, 2.0, perona_malik(0.3), method="implicit")
        with pytest.raises(ValueError, match="contrast must be positive, got 0"):
            perona_malik(0)
        with pytest.raises(ValueError, match="exponential or rational, got 'gauss'"):
            perona_malik(1.0, kind="gauss")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda u: heat(u, -1.0), "time must be finite and not negative, got -1"),
        (lambda u: heat(u, math.nan), "time must be finite and not negative"),
        (lambda u: heat(u, 1.0, -0.5), "diffusivity must be finite and not negative, got -0.5"),
        (lambda u: heat(u, 1.0, torch.full((4, 5), -1.0)), "diffusivity .* not negative, got -1"),
        (lambda u: heat(u, 1.0, boundary="walls"), "neumann, dirichlet, periodic, got 'walls'"),
        (lambda u: heat(u, 1.0, method="euler"), "exact, explicit, .* got 'euler'"),
        (lambda u: heat(u, 1.0, axes=3), r"axes must lie in 1\.\.2, got 3"),
        (lambda u: heat(u, 1.0, spacing=(1.0,)), "spacing must be 2 positive widths"),
        (lambda u: heat(u, 1.0, spacing=0.0), "spacing must be 2 positive widths"),
        (lambda u: heat(u, 1.0, torch.ones(3)), r"leading axes \(\) .* grid \(4, 5\), got \(3,\)"),
        (lambda u: heat(u, 1.0, torch.ones(4, 5), highest=0.5), "above highest=0.5, got 1"),
        (lambda u: heat(u, 1.0, torch.ones(3, 4, 5)), r"leading axes \(\) .* got \(3,\)"),
        (lambda u: heat(u, 1.0, steps=0), "steps must be at least 1, got 0"),
        (
            lambda u: heat(u, 5.0, method="explicit", steps=10),
            r"10 explicit steps of 0.5 are not stable: .* at most 0.25, so take 20 steps",
        ),
        (lambda u: heat(u, 1e9, torch.ones(4, 5)), "products would be needed .* shorter time"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(4, 5))


def test_whole_numbers_are_refused():
    with pytest.raises(TypeError, match=r"floating-point numbers, got torch.int64"):
        heat(torch.arange(5), 1.0)


def test_sums_of_chebyshev():
    a = drawn(20, 20)
    a = a @ a.T
    top = float(torch.linalg.eigvalsh(a)[-1])
    u = drawn(20, 2, seed=1)
    for time in (0.0, 0.01, 1.0, 30.0):
        found = exponential(
            lambda v: 2 * v - 4 * (a @ v) / top, u, torch.tensor(time).double(), top
        )
        values, vectors = torch.linalg.eigh(a)
        wanted = vectors @ (torch.exp(-time * values)[:, None] * (vectors.T @ u))
        assert torch.allclose(found, wanted, atol=1e-12)
    b = a + torch.eye(20)
    found = solve(lambda v: b @ v, u, 1.0, 1 + top, 1e-12)
    assert torch.allclose(b @ found, u, atol=1e-9)
