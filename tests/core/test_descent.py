from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import deepweave as dw


def net(seed: int = 0, inputs: int = 6, outputs: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return dw.nn.mlp((inputs, outputs), hidden=(8,))


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([w.detach().flatten() for w in model.parameters()])


def test_descent_is_the_raw_loop(batch):
    ours, raw = net(), net()
    step = dw.Descent(dw.Classify(ours), "Adam", lr=1e-2)
    optimizer = torch.optim.Adam(raw.parameters(), lr=1e-2, fused=True)
    for _ in range(20):
        logs = step(batch)
        loss = F.cross_entropy(raw(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        torch.testing.assert_close(logs["loss"], loss.detach(), rtol=0, atol=0)
    assert torch.equal(weights(ours), weights(raw))


def test_accumulation_equals_the_large_batch(batch):
    x, y = batch[0].double(), batch[1]
    small, large = net().double(), net().double()
    step = dw.Descent(dw.Classify(small), "SGD", lr=0.1, accumulate=4)
    whole = dw.Descent(dw.Classify(large), "SGD", lr=0.1)
    before = weights(small)
    for part in zip(x.split(8), y.split(8)):
        before = weights(small)
        step(part)
    assert not torch.equal(before, weights(small))  # the fourth batch made the update
    whole((x, y))
    torch.testing.assert_close(weights(small), weights(large), rtol=0, atol=1e-14)


def test_only_trains_the_part(batch):
    model = net()
    before = [w.detach().clone() for w in model.parameters()]
    step = dw.Descent(dw.Classify(model), "SGD", model[2], lr=0.1)
    step(batch)
    after = list(model.parameters())
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[2], after[2])
    assert after[0].grad is None  # no slope was even computed


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda o: dw.Descent(o, "adamm"), "optimizer: expected one of .*AdamW.*got 'adamm'"),
        (lambda o: dw.Descent(o, "SGD", momentun=0.9), "SGD: takes .*momentum.*got momentun"),
        (lambda o: dw.Descent(o, accumulate=0), "accumulate must be at least 1, got 0"),
        (lambda o: dw.Descent(o, "SGD", []), "nothing to train"),
    ],
)
def test_bad_descents(call, message):
    with pytest.raises(ValueError, match=message):
        call(dw.Classify(net()))


def test_fused_adam_is_fed_contiguous_slopes():
    """Fused Adam on a CPU reads .grad as if it were contiguous; slopes of vmap often are not."""
    torch.manual_seed(0)
    many = [dw.Classify(net(i)) for i in range(3)]
    step = dw.Population(many, shared=True, lr=1e-2)
    seen: list[bool] = []
    step.optimizer.register_step_pre_hook(
        lambda o, *_: seen.extend(
            w.grad.is_contiguous() for g in o.param_groups for w in g["params"]
        )
    )
    step((torch.randn(5, 6), torch.randint(0, 3, (5,))))
    assert seen
    assert all(seen)
    assert step.optimizer.defaults["fused"]


def test_at_is_pure_and_differentiable(batch):
    objective = dw.Classify(dw.nn.mlp((6, 3), hidden=(4,), norm="batch"))
    weights_: dict[str, torch.Tensor] = dict(objective.named_parameters())
    buffers = dict(objective.named_buffers())
    kept = {k: v.clone() for k, v in {**weights_, **buffers}.items()}
    grad = torch.func.grad(objective.at, has_aux=True)
    slopes, (_, after) = grad(weights_, buffers, batch)
    for name, value in kept.items():
        assert torch.equal(value, dict(objective.state_dict())[name]), name
    assert not torch.equal(after["model.1.running_mean"], buffers["model.1.running_mean"])
    objective(batch)[0].backward()
    for name, weight in objective.named_parameters():
        torch.testing.assert_close(slopes[name], weight.grad)
