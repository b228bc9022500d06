"""Any loss in Classify, Regress and Segment: the library's, and one's own."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deepweave as dw
from deepweave import functional as f


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Given(nn.Module):
    """A model whose outputs are told."""

    def __init__(self, output: Tensor):
        super().__init__()
        self.output = nn.Parameter(output)

    def forward(self, x):
        return self.output


def loss_of(objective: dw.Objective, y: Tensor, weight: Tensor | None = None) -> Tensor:
    x = torch.zeros(len(y), 1)
    objective.check((x, y))
    return objective((x, y) if weight is None else (x, y, weight))[0]


B, K = 12, 4
LABELS, HALF = torch.arange(B) % K, torch.arange(B) % 2
W = torch.arange(B).float()


def weighted(loss: Tensor) -> Tensor:
    return (loss * W).sum() / W.sum()


# --- classes --------------------------------------------------------------------------------


def test_classes_under_any_loss():
    z = draw(B, K)
    for loss in (f.focal, f.multiclass_hinge, f.cross_entropy, partial(f.focal, gamma=3.0)):
        each = loss(z, LABELS)
        torch.testing.assert_close(loss_of(dw.Classify(Given(z), loss), LABELS), each.mean())
        found = loss_of(dw.Classify(Given(z), loss), LABELS, W)
        torch.testing.assert_close(found, weighted(each))
    own = loss_of(dw.Classify(Given(z), lambda o, t: o.softmax(1)[:, 0] * t), LABELS)
    torch.testing.assert_close(own, (z.softmax(1)[:, 0] * LABELS).mean())
    module = nn.CrossEntropyLoss(reduction="none")
    torch.testing.assert_close(
        loss_of(dw.Classify(Given(z), module), LABELS), F.cross_entropy(z, LABELS)
    )
    share = torch.tensor([1.0, 2.0, 0.0, 4.0])
    found = loss_of(dw.Classify(Given(z), f.focal, class_weight=share), LABELS)
    w = share[LABELS]
    torch.testing.assert_close(found, (f.focal(z, LABELS) * w).sum() / w.sum())


@pytest.mark.parametrize("shape", [(B,), (B, 1)])
def test_a_hinge_gets_signs(shape):
    z = 2 * draw(B)
    for loss in (f.hinge, partial(f.hinge, squared=True)):
        objective = dw.Classify(Given(z.reshape(shape)), loss)
        expected = loss(z, 2 * HALF - 1).mean()
        torch.testing.assert_close(loss_of(objective, HALF), expected)
        said = objective.predict(None)
        assert ((said > 0.5) == (z > 0)).all(), "decides as the margin"
        assert (said.argsort() == z.argsort()).all(), "ranks as the margin"
    many = dw.Classify(Given(draw(B, 3)), f.hinge, multilabel=True)
    tags = (draw(B, 3, seed=1) > 0).float()
    torch.testing.assert_close(loss_of(many, tags), f.hinge(draw(B, 3), 2 * tags - 1).mean())


def test_a_margin_classifier_is_a_support_vector_machine():
    """The least of the hinge loss with a penalty is what scikit-learn's solver finds."""
    from sklearn.svm import LinearSVC

    data = dw.data.load("breast_cancer")
    x, y, penalty = data.train.x.double(), data.train.y, 0.05
    layer = dw.nn.shallow(data.spec).double()
    objective = dw.Classify(layer, partial(f.hinge, squared=True))
    optimizer = torch.optim.LBFGS(
        layer.parameters(), max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure():
        optimizer.zero_grad()
        weight, bias = layer[-1].weight, layer[-1].bias
        loss = objective((x, y))[0] + penalty / 2 * (weight.square().sum() + bias.square().sum())
        loss.backward()
        return loss

    optimizer.step(closure)
    theirs = LinearSVC(C=1 / (penalty * len(x)), tol=1e-10, max_iter=100_000, dual=False)
    theirs.fit(x.numpy(), y.numpy())
    torch.testing.assert_close(
        layer[-1].weight.detach(), torch.from_numpy(theirs.coef_), atol=1e-4, rtol=0
    )


# --- numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize(("output", "target"), [((B,), (B,)), ((B, 1), (B,)), ((B, 3), (B, 3))])
@pytest.mark.parametrize("loss", [f.absolute_error, partial(f.huber, delta=0.3), f.quantile])
def test_numbers_under_any_loss(output, target, loss):
    z, y = draw(*output), draw(*target, seed=2)
    found = loss_of(dw.Regress(Given(z), loss), y)
    torch.testing.assert_close(found, loss(z.reshape(target), y).mean())


@pytest.mark.parametrize("shape", [(B, 6), (B, 3, 2)])
def test_several_outputs_for_a_target(shape):
    z, y = draw(*shape), draw(B, 3, seed=2)
    objective = dw.Regress(Given(z), f.gaussian_nll)
    expected = f.gaussian_nll(z.view(B, 3, 2), y).mean()
    torch.testing.assert_close(loss_of(objective, y), expected)
    said = objective.predict(None)
    torch.testing.assert_close(said, z.view(B, 3, 2)[..., 0])
    objective.eval()
    _, logs = objective((torch.zeros(B, 1), y))
    torch.testing.assert_close(logs["mae"], (said - y).abs().mean())


@pytest.mark.parametrize(
    ("loss", "outputs", "read"),
    [
        (partial(f.quantile, levels=(0.1, 0.5, 0.9)), 3, lambda z: z[:, 1]),
        (partial(f.quantile, levels=(0.05, 0.6)), 2, lambda z: z[:, 1]),
        (partial(f.quantile, levels=(0.4,)), 1, lambda z: z[:, 0]),
        (partial(f.quantile, levels=0.9), 1, lambda z: z[:, 0]),
        (f.gaussian_nll, 2, lambda z: z[:, 0]),
        (partial(f.student_nll, degrees=3.0), 2, lambda z: z[:, 0]),
        (f.laplace_nll, 2, lambda z: z[:, 0]),
        (f.poisson_nll, 1, lambda z: z[:, 0].exp()),
        (f.negative_binomial_nll, 2, lambda z: z[:, 0].exp()),
        (f.huber, 1, lambda z: z[:, 0]),
    ],
)
def test_what_a_distribution_predicts(loss, outputs, read):
    z, y = draw(B, outputs), torch.arange(B).float()
    for target in (y, y[:, None]):
        objective = dw.Regress(Given(z), loss)
        assert loss_of(objective, target).isfinite()
        assert objective.predict(None).shape == (B,)
        torch.testing.assert_close(objective.predict(None), read(z))


def test_a_loss_of_ones_own_with_several_outputs():
    def interval(output, y):  # two bounds
        return (output[..., 0] - y).clamp_min(0) + (y - output[..., 1]).clamp_min(0)

    z, y = draw(B, 2), draw(B, seed=3)
    objective = dw.Regress(Given(z), interval, per_target=2, point=lambda o: o.mean(-1))
    torch.testing.assert_close(loss_of(objective, y), interval(z, y).mean())
    torch.testing.assert_close(objective.predict(None), z.mean(1))


def test_quantiles_and_scales_are_learned():
    """y = x + |x| noise: the distance between the quantiles, and the scale, grow with |x|."""
    g = torch.Generator().manual_seed(0)
    x = torch.rand(2000, 1, generator=g) * 2
    noise = torch.randn(2000, generator=g)
    y = x[:, 0] + (0.1 + x[:, 0]) * noise
    levels = (0.1, 0.5, 0.9)
    for loss, outputs in ((partial(f.quantile, levels=levels), 3), (f.gaussian_nll, 2)):
        torch.manual_seed(0)
        net = dw.nn.mlp((1, outputs), (32,), "tanh")
        step = dw.Descent(dw.Regress(net, loss), "Adam", lr=0.01)
        for _ in range(600):
            step((x, y))
        with torch.no_grad():
            ends = net(torch.tensor([[0.2], [1.8]]))
        if outputs == 3:
            width = (ends[:, 2] - ends[:, 0]) / 2 / 1.2816  # of a normal law, in deviations
            inside = float((y < net(x)[:, 2]).float().mean())
            assert abs(inside - 0.9) < 0.02
        else:
            width = ends[:, 1].exp()
        torch.testing.assert_close(width, torch.tensor([0.3, 1.9]), rtol=0.2, atol=0)


# --- pixels ---------------------------------------------------------------------------------

PIXELS = torch.randint(0, 3, (2, 3, 5), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("loss", [f.focal, f.dice, partial(f.tversky, alpha=0.2, beta=0.8)])
@pytest.mark.parametrize("share", [None, 0.3])
def test_pixels_under_any_loss(loss, share):
    z = draw(2, 3, 3, 5)
    hot = F.one_hot(PIXELS, 3).movedim(-1, 1).float()
    first = f.focal(z, PIXELS) if loss is f.focal else loss(z.softmax(1), hot)
    expected = first
    if share is not None:
        expected = (1 - share) * first + share * f.dice(z.softmax(1), hot)
    found = loss_of(dw.Segment(Given(z), loss, share=share), PIXELS)
    torch.testing.assert_close(found, expected.mean())
    one, mask = draw(2, 1, 3, 5), (PIXELS > 0).long()
    truth = mask.unsqueeze(1).float()
    first = f.focal(one, truth) if loss is f.focal else loss(one.sigmoid(), truth)
    expected = first
    if share is not None:
        expected = (1 - share) * first + share * f.dice(one.sigmoid(), truth)
    found = loss_of(dw.Segment(Given(one), loss, share=share), mask)
    torch.testing.assert_close(found, expected.mean())


def test_one_loss_is_not_mixed_unless_asked():
    assert dw.Segment(nn.Identity()).share == 0.5
    assert dw.Segment(nn.Identity(), f.focal).share == 0
    spec = SimpleNamespace(task="segmentation")
    assert dw.supervise(nn.Identity(), spec, loss=f.dice).loss is f.dice


# --- refusals -------------------------------------------------------------------------------

X, LINE = torch.zeros(4, 3), nn.Linear(3, 3)
Y = torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("objective", "batch", "message"),
    [
        (dw.Classify(LINE, F.cross_entropy), (X, Y),
         r"Classify: loss must give one number per sample \(4,\), got \(\)"),
        (dw.Classify(LINE, lambda o, y: 0.5), (X, Y), r"\(4,\), got float"),
        (dw.Classify(LINE, f.hinge), (X, Y), r"hinge: target must be \(4, 3\), got \(4,\)"),
        (dw.Classify(nn.Linear(3, 1), f.cross_entropy), (X, Y % 2), "cross_entropy: logits must"),
        (dw.Classify(LINE, lambda o, y: o @ o), (X, Y),
         r"Classify: the loss cannot take outputs \(4, 3\), targets \(4,\): mat1 and mat2"),
        (dw.Regress(LINE, f.gaussian_nll), (X, torch.zeros(4)),
         r"this loss takes 2 outputs for a target: they must be \(4, 1 x 2\), got \(4, 3\)"),
        (dw.Regress(nn.Linear(3, 1), f.poisson_nll), (X, -torch.ones(4)), "counts of at least 0"),
        (dw.Segment(nn.Identity(), lambda o, y: o.mean(1)),
         (torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4).long()), r"\(2,\), got \(2, 4, 4\)"),
    ],
)  # fmt: skip
def test_bad_batches(objective, batch, message):
    with pytest.raises(ValueError, match=message) as caught:
        objective.check(batch)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: dw.Classify(LINE, "hinge"), TypeError, "Classify: loss must be a function"),
        (lambda: dw.Classify(LINE, f.focal, smoothing=0.1), ValueError, "set it there, by partial"),
        (lambda: dw.Regress(LINE, f.huber, per_target=0, point=lambda o: o), ValueError,
         "per_target must be at least 1 and needs point=, got 0"),
        (lambda: dw.Regress(LINE, f.huber, per_target=2), ValueError, "needs point="),
        (lambda: dw.Regress(LINE, f.gaussian_nll, per_target=2), ValueError, "a loss of your own"),
        (lambda: dw.Segment(LINE, f.dice, share=-0.1), ValueError, r"share must lie in \[0, 1\]"),
    ],
)  # fmt: skip
def test_bad_methods(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_loss_in_a_population():
    """Under vmap no value is looked at, and each member learns what it would alone."""
    x, y = draw(16, 3), torch.arange(16) % 2
    torch.manual_seed(0)
    nets = [nn.Linear(3, 1) for _ in range(3)]
    alone = [dw.Descent(dw.Classify(nn.Linear(3, 1), f.hinge), "SGD", lr=0.1) for _ in nets]
    for step, net in zip(alone, nets):
        step.objective.model.load_state_dict(net.state_dict())
    many = dw.Population(
        [dw.Classify(n, f.hinge) for n in nets], optimizer="SGD", lr=0.1, shared=True
    )
    for _ in range(5):
        together = many((x, y))["loss"]
        torch.testing.assert_close(together, torch.stack([step((x, y))["loss"] for step in alone]))
