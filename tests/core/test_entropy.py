"""Cross-entropy under a Population in every form, without torch looping over the members."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from deepweave.core.stacked import TORCH, stacked


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("shape", [(5,), (5, 3)])
@pytest.mark.parametrize("own", [True, False])
def test_every_form_is_torchs(reduction, smoothing, shape, own):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 4, *shape[1:], generator=generator, requires_grad=True)
    target = torch.randint(0, 4, (3, *shape), generator=generator)
    target[:, 0] = -100
    options = {"reduction": reduction, "label_smoothing": smoothing}
    each = target if own else target[0].expand_as(target)
    wanted = torch.stack([F.cross_entropy(z, t, **options) for z, t in zip(logits, each)])
    with stacked():
        found = torch.vmap(lambda z, t: F.cross_entropy(z, t, **options), (0, 0 if own else None))(
            logits, target if own else target[0]
        )
    assert torch.allclose(found, wanted, atol=1e-6)
    slopes = [torch.autograd.grad(one.sum(), logits)[0] for one in (found, wanted)]
    assert torch.allclose(*slopes, atol=1e-6)


def test_slopes_within_a_population_do_not_loop(monkeypatch):
    """An objective that takes slopes itself (SAM, MAML) wraps the members' tensors once more."""

    def torchs(*_, **__):
        raise AssertionError("torch's kernel has no rule under vmap")

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 4, generator=generator)
    target = torch.randint(0, 4, (5,), generator=generator)
    wanted = torch.stack([torch.func.grad(lambda z: F.cross_entropy(z, target))(z) for z in logits])
    with stacked():
        monkeypatch.setitem(TORCH, "cross_entropy", torchs)
        found = torch.vmap(torch.func.grad(lambda z: F.cross_entropy(z, target)))(logits)
        monkeypatch.undo()
    assert torch.allclose(found, wanted, atol=1e-6)
