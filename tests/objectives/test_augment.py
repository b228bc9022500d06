from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import deepweave as dw
from deepweave.functional import augment


def net(outputs: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(32, outputs))


def data(n: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, 2, 4, 4, generator=g), torch.randint(0, 3, (n,), generator=g)


class Seen(nn.Module):
    """Remembers what it was given."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner
        self.x = torch.zeros(0)

    def forward(self, x):
        self.x = x.detach()
        return self.inner(x)


# --- Augment and Noise ----------------------------------------------------------------------


def test_inputs_change_in_training_only():
    seen = Seen(net())
    objective = dw.Augment(dw.Classify(seen), lambda x: x + 1, lambda x: 2 * x)
    x, y = data()
    objective((x, y))
    assert torch.equal(seen.x, 2 * (x + 1)), "one after the other"
    objective.eval()
    loss = objective((x, y))[0]
    assert torch.equal(seen.x, x)
    assert torch.equal(loss, objective.objective((x, y))[0])
    objective.predict(x)
    assert torch.equal(seen.x, x)
    assert objective.model is seen


def test_targets_weights_and_bare_inputs_pass():
    x, y = data()
    weight = torch.rand(len(x))
    objective = dw.Augment(dw.Classify(net()), augment.flip)
    objective((x, y, weight))

    class Bare(dw.Objective):
        def forward(self, batch):
            return batch.sum(), {}

    loss, _ = dw.Augment(Bare(), lambda x: x + 1)(x)
    assert torch.equal(loss, (x + 1).sum())


def test_transforms_may_be_modules():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("by", torch.tensor(2.0))

        def forward(self, x):
            return self.by * x

    seen = Seen(net())
    objective = dw.Augment(dw.Classify(seen), Scale(), lambda x: x + 1)
    x, y = data()
    objective((x, y))
    assert torch.equal(seen.x, 2 * x + 1)
    assert "transforms.0.by" in objective.state_dict()


def test_wrong_transforms():
    x, y = data()
    with pytest.raises(TypeError, match="Augment: expected an objective and functions"):
        dw.Augment(dw.Classify(net()))
    with pytest.raises(TypeError, match="Augment: expected an objective and functions"):
        dw.Augment(dw.Classify(net()), "flip")
    with pytest.raises(ValueError, match=r"must keep \(12, 2, 4, 4\), got \(6, 2, 4, 4\)"):
        dw.fit(dw.Augment(dw.Classify(net()), lambda x: x[::2]), [(x, y)], epochs=1)
    flat = dw.Augment(dw.Classify(nn.Linear(32, 3)), augment.shift)
    with pytest.raises(ValueError, match=r"shift: images must be \(B, C, H, W\), got \(12, 32\)"):
        dw.fit(flat, [(x.flatten(1), y)], epochs=1)
    with pytest.raises(ValueError, match="Augment: a transform cannot take the inputs: "):
        dw.fit(dw.Augment(dw.Classify(net()), lambda x: x @ x[:, :, :1]), [(x, y)], epochs=1)
    with pytest.raises(ValueError, match=r"Classify: labels must lie in 0..2, got 3..3"):
        dw.fit(dw.Augment(dw.Classify(net()), augment.flip), [(x, 0 * y + 3)], epochs=1)


def test_noise_of_each_member():
    seen = Seen(net())
    objective = dw.Noise(dw.Classify(seen), 0.5)
    x, y = torch.zeros(4000, 2, 4, 4), torch.zeros(4000).long()
    objective((x, y))
    assert float(seen.x.std()) == pytest.approx(0.5, rel=0.02)
    with pytest.raises(ValueError, match="Noise: std must be finite and not below 0, got -1"):
        dw.Noise(dw.Classify(net()), -1)
    stds = [0.0, 0.1, 3.0]
    members = [dw.Noise(dw.Classify(net()), std) for std in stds]
    many = dw.Population(members, optimizer="SGD", lr=0.1, shared=True)
    x, y = data()
    losses = many((x, y))["loss"]
    bare = dw.Classify(net())((x, y))[0]
    torch.testing.assert_close(losses[0], bare.detach())
    assert (losses[1:] != bare).all()


# --- Mixup and CutMix -----------------------------------------------------------------------


def test_mixup_by_hand(monkeypatch):
    """lam L(y) + (1 - lam) L(y') on the losses per sample, one call of the model."""
    x, y = data()
    lam = torch.linspace(0, 1, len(x))
    order = torch.arange(len(x)).flip(0)
    monkeypatch.setattr(augment, "beta", lambda alpha, x: lam)
    monkeypatch.setattr(torch, "randperm", lambda n, device=None: order)
    seen = Seen(net())
    objective = dw.Mixup(dw.Classify(seen))
    loss, logs = objective((x, y))
    share = lam.view(-1, 1, 1, 1)
    mixed = share * x + (1 - share) * x[order]
    torch.testing.assert_close(seen.x, mixed)
    each = nn.functional.cross_entropy(seen.inner(mixed), y, reduction="none")
    other = nn.functional.cross_entropy(seen.inner(mixed), y[order], reduction="none")
    torch.testing.assert_close(loss, (lam * each + (1 - lam) * other).mean())
    soft = lam[:, None] * nn.functional.one_hot(y, 3) + (1 - lam)[:, None] * (
        nn.functional.one_hot(y[order], 3)
    )
    torch.testing.assert_close(loss, nn.functional.cross_entropy(seen.inner(mixed), soft))
    assert logs == {}
    objective.eval()
    torch.testing.assert_close(objective((x, y))[0], objective.objective((x, y))[0])
    assert "accuracy" in objective((x, y))[1]


def test_weights_of_samples_and_classes_go_with_their_targets(monkeypatch):
    x, y = data()
    lam, order = torch.rand(len(x)), torch.randperm(len(x))
    weight = torch.rand(len(x))
    classes = torch.tensor([1.0, 3.0, 0.2])
    monkeypatch.setattr(augment, "beta", lambda alpha, x: lam)
    monkeypatch.setattr(torch, "randperm", lambda n, device=None: order)
    seen = Seen(net())
    objective = dw.Mixup(dw.Classify(seen, class_weight=classes))
    loss = objective((x, y, weight))[0]
    output = seen.inner(seen.x)
    total = norm = 0
    for target, share in ((y, lam * weight * classes[y]),
                          (y[order], (1 - lam) * weight[order] * classes[y[order]])):  # fmt: skip
        total = (
            total + (share * nn.functional.cross_entropy(output, target, reduction="none")).sum()
        )
        norm = norm + share.sum()
    torch.testing.assert_close(loss, total / norm)


def test_cutmix_by_hand(monkeypatch):
    x, y = data()
    order = torch.arange(len(x)).flip(0)
    taken = torch.zeros(len(x), 1, 4, 4, dtype=torch.bool)
    taken[:, :, :2, :3] = True
    monkeypatch.setattr(augment, "box", lambda x, area: taken)
    monkeypatch.setattr(torch, "randperm", lambda n, device=None: order)
    seen = Seen(net())
    loss = dw.CutMix(dw.Classify(seen))((x, y))[0]
    expected = x.clone()
    expected[:, :, :2, :3] = x[order][:, :, :2, :3]
    assert torch.equal(seen.x, expected)
    output, lam = seen.inner(expected), 1 - 6 / 16
    by_hand = lam * nn.functional.cross_entropy(output, y)
    by_hand = by_hand + (1 - lam) * nn.functional.cross_entropy(output, y[order])
    torch.testing.assert_close(loss, by_hand)


def test_one_mixing_in_another():
    """Four targets, whose shares are one together: with equal targets nothing is mixed."""
    x, y = data()
    seen = Seen(net())
    objective = dw.Mixup(dw.CutMix(dw.Classify(seen)), 0.5)
    same = torch.ones_like(y)
    loss = objective((x, same))[0]
    torch.testing.assert_close(loss, nn.functional.cross_entropy(seen.inner(seen.x), same))
    assert not torch.equal(seen.x, x)
    assert objective.core() is objective.objective.objective
    objective((x, y))[0].backward()


def test_shares_follow_the_inputs():
    """Inputs that are their own labels: what is in a mixture is what its targets say."""
    n = 9
    x = torch.eye(n)
    objective = dw.Mixup(dw.Mixup(dw.Classify(nn.Linear(n, n)), 1.0), 1.0)
    mixed, targets = objective.mix(x, [(torch.arange(n), None, torch.ones(n))])
    soft = sum(share[:, None] * nn.functional.one_hot(y, n) for y, _, share in targets)
    assert len(targets) == 4
    assert ((mixed > 0).sum(1) > 2).any()
    torch.testing.assert_close(mixed, soft)


@pytest.mark.parametrize("mixing", [dw.Mixup, dw.CutMix])
def test_every_task(mixing):
    x, _ = data()
    n = len(x)
    objectives = [
        (dw.Classify(net(1)), torch.arange(n) % 2),
        (dw.Classify(net(3), multilabel=True), torch.rand(n, 3).round()),
        (dw.Regress(net(1)), torch.randn(n)),
        (dw.Segment(nn.Conv2d(2, 3, 1)), torch.randint(0, 3, (n, 4, 4))),
    ]
    for inner, y in objectives:
        objective = mixing(inner)
        objective.check((x, y))
        loss = objective((x, y))[0]
        loss.backward()
        assert loss.isfinite()


def test_members_with_alphas_of_their_own():
    x, y = data(4000)
    members = [dw.Mixup(dw.Classify(net()), alpha) for alpha in (1e-3, 50.0)]
    many = dw.Population(copy.deepcopy(members), optimizer="SGD", lr=0.0, shared=True)
    torch.manual_seed(0)
    losses = many((x, y))["loss"]
    bare = dw.Classify(net())((x, y))[0].detach()
    assert losses[0] == pytest.approx(float(bare), abs=0.02), "hardly mixed"
    assert abs(float(losses[1] - bare)) > 0.04


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda c: dw.Mixup(dw.Penalize(c, l1=1)), TypeError,
         r"needs a supervised objective directly inside, got Penalize: write Penalize\(Mixup"),
        (lambda c: dw.CutMix(c.model), TypeError, "CutMix: expected an objective, got Sequential"),
        (lambda c: dw.Mixup(c, 0.0), ValueError, "Mixup: alpha must be finite and above 0, got 0"),
        (lambda c: dw.CutMix(c, float("nan")), ValueError, "CutMix: alpha must be finite"),
    ],
)  # fmt: skip
def test_wrong_mixings(make, error, message):
    with pytest.raises(error, match=message):
        make(dw.Classify(net()))


def test_cutmix_needs_images():
    objective = dw.CutMix(dw.Classify(nn.Linear(32, 3)))
    x, y = data()
    with pytest.raises(ValueError, match=r"CutMix: inputs must be images .*, got \(12, 32\)"):
        dw.fit(objective, [(x.flatten(1), y)], epochs=1)


def test_everything_at_once_in_a_population(digits):
    """Penalty, transform, mixing, dropout, norms held, early stopping: one run."""
    model = dw.nn.mlp(digits.spec, (32,), dropout=0.1)
    objective = dw.SAM(
        dw.Penalize(
            dw.Augment(dw.Mixup(dw.Classify(model, smoothing=0.05)), augment.shift), l2=1e-4
        )
    )
    many = dw.Population(objective, 2, "AdamW", lr=[3e-3, 1e-2], decay=[0.0, 0.1], shared=True)
    hooks = [dw.hooks.MaxNorm(3.0), dw.hooks.Validate(digits.validation, patience=3)]
    run = dw.fit(many, digits.train, batch=128, epochs=4, hooks=hooks)
    losses = [line["validation/loss"] for line in run.history if "validation/loss" in line]
    assert all(last < first for first, last in zip(losses[0], losses[-1]))
    weights = many.weights()["objective.objective.objective.objective.model.1.weight"]
    assert (weights.norm(dim=2) <= 3.0 + 1e-5).all()
