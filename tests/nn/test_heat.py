"""A diffusivity that is learned: planted ones are found again."""

from __future__ import annotations

import pytest
import torch

import deepweave as dw
from deepweave.testing import check_model


def blobs(count, *grid):
    random = torch.Generator().manual_seed(0)
    return dw.heat(torch.randn(count, *grid, generator=random) * 5, 0.5, axes=len(grid))


@pytest.mark.parametrize("options", [{}, {"field": True, "highest": 3.0}])
def test_it_is_a_model(options):
    check_model(lambda: dw.nn.Heat((4, 3), 0.4, **options), blobs(4, 4, 3))


def test_a_batch_may_be_as_many_as_the_cells():
    torch.manual_seed(0)
    net = dw.nn.Heat((4,), 0.4, field=True, start=1.0, highest=3.0).double()
    torch.nn.init.normal_(net.theta)
    u = torch.randn(4, 4).double()
    alone = torch.stack([dw.heat(one, 0.4, net.diffusivity) for one in u])
    assert torch.allclose(net(u), alone, atol=1e-11)


def test_one_planted_number_is_found_by_many_starts_at_once():
    u = blobs(16, 12, 12)
    noise = 0.01 * torch.randn(16, 12, 12, generator=torch.Generator().manual_seed(1))
    batch = u, dw.heat(u, 1.5, 0.7) + noise
    starts = [dw.Regress(dw.nn.Heat((12, 12), 1.5, start=k)) for k in (0.1, 1.0, 4.0)]
    step = dw.Population(starts, optimizer="Adam", lr=0.05, shared=True)
    for _ in range(150):
        step(batch)
    found = step.weights()["model.theta"].exp()
    assert torch.allclose(found, torch.tensor(0.7), rtol=0.01)


def test_a_planted_field_is_found():
    rows = torch.linspace(-2, 2, 8)
    planted = 0.8 + 0.6 * torch.tanh(rows)[:, None] * torch.tanh(rows - 0.5)
    u = blobs(60, 8, 8).double()
    batch = u, dw.heat(u, 0.5, planted.double(), axes=2)
    net = dw.nn.Heat((8, 8), 0.5, True, start=0.8, highest=3.0).double()
    step = dw.Descent(dw.Regress(net), torch.optim.Adam(net.parameters(), lr=0.1))
    for _ in range(150):
        step(batch)
    assert float((net.diffusivity.detach() - planted).abs().max()) < 0.01


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: dw.nn.Heat((4,), 1.0, True),
            "0 < start < highest, got start 1.0, h",
        ),
        (lambda: dw.nn.Heat((), 1.0), "1 to 3 axes"),
        (lambda: dw.nn.Heat((4,), 1.0, start=0.0), "start must be positive"),
        (
            lambda: dw.nn.Heat((4,), 1.0)(torch.zeros(2, 5)),
            r"u must be \(B, \(4,\)\), got \(2, 5\)",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
