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
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

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


def waves(size: int, boundary: str, lattice: bool) -> tuple[np.ndarray, np.ndarray]:
    """The waves on cells of width 1, orthonormal, (N, N), and how fast they decay."""
    n, x = np.arange(size), np.arange(size) + 0.5
    if boundary == "periodic":
        k = 2 * np.pi * np.minimum(n, size - n) / size
        made = np.exp(2j * np.pi * np.outer(n, x) / size) / np.sqrt(size)
    else:
        k = np.pi * (n + (boundary == "dirichlet")) / size
        made = (np.sin if boundary == "dirichlet" else np.cos)(np.outer(k, x))
        made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made, 2 - 2 * np.cos(k) if lattice else k**2


@pytest.mark.parametrize("lattice", [False, True])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("time", [0.0, 0.2, 15.0, 2000.0])
def test_long_times_leave_out_what_is_gone(boundary, time, lattice):
    options = {"boundary": boundary, "lattice": lattice, "axes": 2}
    u = drawn(3, 45, 64)
    wanted = u.numpy()
    for axis in (1, 2):
        made, rates = waves(u.shape[axis], boundary, lattice)
        kernel = (made.conj().T * np.exp(-time * rates)) @ made
        wanted = np.moveaxis(np.tensordot(kernel, wanted, (1, axis)), 0, axis)
    assert np.abs(heat(u, time, **options).numpy() - wanted).max() < 1e-13
    assert np.abs(heat(u.float(), time, **options).numpy() - wanted).max() < 2e-6
    # the same with all waves, and in its slope
    late = torch.tensor(time).double().requires_grad_()
    slope = torch.autograd.grad(heat(u, late, **options).square().sum(), late)[0]
    every = torch.func.grad(lambda t: heat(u, t, **options).square().sum())
    assert torch.allclose(slope, every(late.detach()), rtol=1e-10, atol=1e-10)


def test_the_slowest_row_says_what_is_gone():
    u, time = drawn(2, 64), torch.tensor([0.1, 500.0]).double()
    found = heat(u, time, axes=1)
    assert torch.allclose(found[0], heat(u[0], 0.1), atol=1e-14)
    assert torch.allclose(found[1], heat(u[1], 500.0), atol=1e-14)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_few_columns_at_a_time(boundary):
    u, d = drawn(4, 300, 300), torch.tensor([0.0, 0.3, 1.0, 2.0]).double()
    found = heat(u, 0.7, d, boundary=boundary)
    for one, k, own in zip(found, d, u):
        assert torch.allclose(one, heat(own, 0.7, k, boundary=boundary), atol=1e-13)


def test_modes_of_torch_leave_nothing_behind():
    u = torch.randn(11, 13)
    with FakeTensorMode() as mode:
        fake = heat(mode.from_tensor(u), 0.3)
        timed = heat(mode.from_tensor(u), mode.from_tensor(torch.tensor(0.3)))
    assert isinstance(fake, FakeTensor)
    assert isinstance(timed, FakeTensor)
    assert heat(u.to("meta"), 0.3).shape == u.shape
    with torch.inference_mode():
        wanted = heat(u, 0.3)
    weight = u.clone().requires_grad_()
    found = heat(weight, 0.3)
    found.square().sum().backward()
    assert torch.equal(found, wanted)
    assert weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_few_digits_are_solved_with_more(dtype):
    u = torch.rand(6, 7).to(dtype)
    for d in (0.7, torch.rand(6, 7), perona_malik(0.3)):
        found = heat(u, 2.0, d)
        assert found.dtype == dtype
        assert torch.equal(found, heat(u.float(), 2.0, d).to(dtype))


def test_spacing_may_be_a_tensor():
    u = drawn(4, 5)
    assert torch.equal(heat(u, 1.0, spacing=torch.tensor(0.5)), heat(u, 1.0, spacing=0.5))
    for both in (torch.tensor([0.5, 0.25]), np.array([0.5, 0.25]), [torch.tensor(0.5), 0.25]):
        assert torch.equal(heat(u, 1.0, spacing=both), heat(u, 1.0, spacing=(0.5, 0.25)))
    wide = torch.tensor(0.5, requires_grad=True)
    for said in (wide, (wide, 1.0)):
        with pytest.raises(ValueError, match="no slopes in spacing: put them into D"):
            heat(u, 1.0, spacing=said)
    with pytest.raises(ValueError, match="no slopes in spacing"):
        torch.func.grad(lambda s: heat(u, 1.0, spacing=(1.0, s)).sum())(wide.detach())
    with pytest.raises(ValueError, match="spacing may not differ from member to member"):
        torch.vmap(lambda s: heat(u, 1.0, spacing=s))(torch.ones(2))


def test_a_diffusivity_that_could_be_two_things_is_refused():
    u, d = drawn(5, 5), drawn(5, seed=1).exp()
    with pytest.raises(ValueError, match=r"say \(5, 1\) for numbers, or \(1, 5\) for a field"):
        heat(u, 1.0, d, axes=1)
    rows = torch.stack([heat(one, 1.0, k) for one, k in zip(u, d)])
    assert torch.allclose(heat(u, 1.0, d[:, None], axes=1), rows, atol=1e-14)
    field = torch.stack([heat(one, 1.0, d) for one in u])
    assert torch.allclose(heat(u, 1.0, d[None], axes=1), field, atol=1e-12)
    assert torch.allclose(heat(u, d[:, None], axes=1), rows, atol=1e-14)  # times as well
    with pytest.raises(ValueError, match=r"say \(1, 5, 1\) for numbers, or \(1, 1, 5\) for"):
        heat(drawn(2, 5, 5), 1.0, d, axes=1)
    four = drawn(4, 5, 4, 5)
    with pytest.raises(ValueError, match="could be numbers for the leading axes"):
        heat(four, 1.0, torch.ones(4, 5))
    assert heat(four[0], 1.0, torch.ones(4, 5)).shape == (5, 4, 5)  # a field alone fits


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
        (lambda u: heat(u, 1e39), "time must be finite and not negative, got inf"),
        (lambda u: heat(u, torch.tensor([math.inf])), "time must be finite .* got inf"),
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
    with pytest.raises(TypeError, match="a tensor of floating-point numbers, got ndarray"):
        heat(np.ones(5), 1.0)  # pyright: ignore


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
