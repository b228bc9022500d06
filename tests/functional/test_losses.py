"""Losses against closed forms, torch and scikit-learn, in float64."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepweave import functional as f

B, K = 16, 5


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pick(high: int, *shape: int, seed: int = 1) -> Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


def near(a: Tensor, b: Tensor | float, rtol: float = 1e-12) -> None:
    b = torch.as_tensor(b, dtype=a.dtype)
    torch.testing.assert_close(a, b, rtol=rtol, atol=1e-14)


# --- numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (f.squared_error, F.mse_loss),
        (f.absolute_error, F.l1_loss),
        (partial(f.huber, delta=0.7), partial(F.huber_loss, delta=0.7)),
        (lambda a, b, **k: f.huber(a, b, delta=0.7, **k) / 0.7,
         partial(F.smooth_l1_loss, beta=0.7)),
    ],
)  # fmt: skip
def test_numbers_as_torch(ours, theirs):
    a, b = draw(B, 3), draw(B, 3, seed=1)
    near(ours(a, b, reduction="mean"), theirs(a, b))
    near(ours(a, b), theirs(a, b, reduction="none").mean(1))


@pytest.mark.parametrize("q", [0.05, 0.5, 0.8])
def test_quantiles(q):
    from sklearn.metrics import mean_pinball_loss

    a, b = draw(B), draw(B, seed=1)
    found = f.quantile(a, b, levels=q, reduction="mean")
    near(found, mean_pinball_loss(b.numpy(), a.numpy(), alpha=q))
    both = f.quantile(torch.stack([a, a], 1), b, levels=(q, 0.5))
    near(both, (f.quantile(a, b, levels=q) + f.quantile(a, b, levels=0.5)) / 2)


@pytest.mark.parametrize("q", [0.1, 0.5, 0.9])
def test_the_least_quantile_loss_is_the_quantile(q):
    y = draw(1001)
    places = torch.linspace(-3, 3, 2001, dtype=torch.float64)
    losses = torch.stack(
        [f.quantile(p.expand(1001), y, levels=q, reduction="mean") for p in places]
    )
    assert abs(float(places[losses.argmin()] - y.quantile(q))) < 0.004


# --- classes --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (4,), (3, 2)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_as_torch(shape, smoothing, weighted):
    z, y = draw(B, K, *shape), pick(K, B, *shape)
    weight = torch.tensor([0.5, 1.0, 2.0, 3.0, 0.0]).double() if weighted else None
    how = {"label_smoothing": smoothing}
    found = f.cross_entropy(z, y, smoothing=smoothing, class_weight=weight, reduction="mean")
    near(found, F.cross_entropy(z, y, weight, **how))
    each = F.cross_entropy(z, y, weight, reduction="none", **how)
    near(
        f.cross_entropy(z, y, smoothing=smoothing, class_weight=weight), each.reshape(B, -1).mean(1)
    )


def test_cross_entropy_to_probabilities():
    z, t = draw(B, K, 3), draw(B, K, 3, seed=1).softmax(1)
    near(f.cross_entropy(z, t, reduction="mean"), F.cross_entropy(z, t))
    near(
        f.cross_entropy(z, t, smoothing=0.2, reduction="mean"),
        F.cross_entropy(z, t, label_smoothing=0.2),
    )
    y = pick(K, B, 3)
    hot = F.one_hot(y, K).movedim(-1, 1).double()
    weight = torch.tensor([0.5, 1.0, 2.0, 3.0, 0.1]).double()
    for how in ({}, {"reduction": "mean"}):
        near(
            f.cross_entropy(z, hot, class_weight=weight, **how),
            f.cross_entropy(z, y, class_weight=weight, **how),
        )
    sure = torch.tensor([[0.0, -torch.inf, 0.0]]).double()
    near(f.cross_entropy(sure, torch.tensor([[0.5, 0.0, 0.5]]).double())[0], math.log(2))


def test_ignored_labels():
    z, y = draw(B, K), pick(K, B)
    y[::3] = -7
    near(
        f.cross_entropy(z, y, ignore=-7, reduction="mean"),
        F.cross_entropy(z, y, ignore_index=-7),
    )
    weight = torch.rand(K, generator=torch.Generator().manual_seed(0)).double()
    near(
        f.cross_entropy(z, y, ignore=-7, class_weight=weight, reduction="mean"),
        F.cross_entropy(z, y, weight, ignore_index=-7),
    )
    none = f.cross_entropy(z, torch.full((B,), -7), ignore=-7, reduction="mean")
    assert float(none) == 0
    image, truth = draw(3, K, 2, 2), pick(K, 3, 2, 2)
    truth[0, 0], truth[2] = 255, 255
    found = f.cross_entropy(image, truth, ignore=255, reduction="mean")
    parts = [F.cross_entropy(image[i : i + 1], truth[i : i + 1], ignore_index=255) for i in (0, 1)]
    near(found, sum(parts) / 2)
    near(f.focal(image, truth, gamma=0.0, ignore=255, reduction="mean"), found)


@pytest.mark.parametrize("weight", [None, 3.0, [1.0, 2.0, 0.5]])
def test_binary_cross_entropy_as_torch(weight):
    z, y = draw(B, 3), pick(2, B, 3).double()
    pos = None if weight is None else torch.tensor(weight).double()
    found = f.binary_cross_entropy(z, y, positive_weight=weight, reduction="mean")
    near(found, F.binary_cross_entropy_with_logits(z, y, pos_weight=pos))
    each = F.binary_cross_entropy_with_logits(z, y, pos_weight=pos, reduction="none").mean(1)
    near(f.binary_cross_entropy(z, y, positive_weight=weight), each)


def test_focal_is_its_formula():
    z, y = draw(B, K), pick(K, B)
    p = z.softmax(1).gather(1, y[:, None]).squeeze(1)
    for gamma in (0.0, 0.5, 2.0, 5.0):
        near(f.focal(z, y, gamma=gamma), -((1 - p) ** gamma) * p.log(), rtol=1e-10)
    near(f.focal(z, y, gamma=0.0, reduction="mean"), F.cross_entropy(z, y))
    s, t = draw(B), pick(2, B)
    q = torch.where(t == 1, s.sigmoid(), 1 - s.sigmoid())
    a = torch.where(t == 1, 0.25, 0.75).double()
    found = f.focal(s, t, class_weight=torch.tensor([0.75, 0.25]))
    near(found, -a * (1 - q) ** 2 * q.log(), rtol=1e-10)
    two = torch.stack([torch.zeros_like(s), s], 1)
    near(f.focal(two, t), f.focal(s, t), rtol=1e-10)
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]).double()
    near(
        f.focal(z, y, gamma=0.0, class_weight=weight, reduction="mean"),
        F.cross_entropy(z, y, weight),
    )


def test_focal_is_exact_far_out():
    """At z = 40 the loss is e^-120: the power and the logarithm of one number would give 0."""
    z = torch.tensor([40.0, -40.0]).double()
    found = f.focal(z, torch.tensor([1.0, 1.0]))
    near(found[0], math.exp(-120), rtol=1e-10)
    near(found[1], 40.0)


# --- margins --------------------------------------------------------------------------------


def test_hinge_as_scikit_learn():
    from sklearn.metrics import hinge_loss

    s, t = 2 * draw(B), 2 * pick(2, B) - 1
    near(f.hinge(s, t, reduction="mean"), hinge_loss(t.numpy(), s.numpy()))
    near(f.hinge(s, t, squared=True), (1 - t * s).clamp_min(0) ** 2)
    z, y = 2 * draw(B, K), pick(K, B)
    theirs = hinge_loss(y.numpy(), z.numpy(), labels=np.arange(K))
    near(f.multiclass_hinge(z, y, reduction="mean"), theirs)


@pytest.mark.parametrize("squared", [False, True])
def test_every_rival_as_torch(squared):
    z, y = draw(B, K), pick(K, B)
    theirs = F.multi_margin_loss(z, y, p=2 if squared else 1, margin=0.7, reduction="none") * K
    near(f.multiclass_hinge(z, y, margin=0.7, kind="weston_watkins", squared=squared), theirs)


def test_a_hinge_of_two_classes_is_a_hinge_of_their_difference():
    z, y = draw(B, 2), pick(2, B)
    near(f.multiclass_hinge(z, y), f.hinge(z[:, 1] - z[:, 0], 2 * y - 1))


def test_pairs_and_triplets_as_torch():
    a, p, n = (draw(B, 4, seed=i) for i in range(3))
    theirs = F.triplet_margin_loss(a, p, n, margin=0.5, eps=0, reduction="none")
    near(f.triplet(a, p, n, margin=0.5), theirs)
    y = pick(2, B)
    d = (a - p).norm(dim=1)
    expected = torch.where(y == 1, d**2, (3 - d).clamp_min(0) ** 2) / 2
    near(f.contrastive(a, p, y, margin=3.0), expected)
    s, t = draw(B), draw(B, seed=5)
    order = 2 * y - 1
    near(
        f.ranking(s, t, order, margin=0.3, reduction="mean"),
        F.margin_ranking_loss(s, t, order.double(), margin=0.3),
    )
    near(f.ranking(s, t, order), torch.log1p((-order * (s - t)).exp()))


def test_contrast_within_a_batch():
    a, b = draw(6, 3), draw(6, 3, seed=1)
    cos = F.cosine_similarity(a[:, None], b[None], dim=-1)
    near(
        f.info_nce(a, b, temperature=0.2),
        F.cross_entropy(cos / 0.2, torch.arange(6), reduction="none"),
    )
    views = torch.cat([a, b])
    for i in range(6):  # the formula of the paper, one view at a time
        loss = 0.0
        for me, other in ((i, i + 6), (i + 6, i)):
            sims = F.cosine_similarity(views[me], views, dim=-1) / 0.5
            rest = torch.cat([sims[:me], sims[me + 1 :]])
            loss = loss + (rest.logsumexp(0) - sims[other]) / 2
        near(f.nt_xent(a, b)[i], loss)


# --- overlaps -------------------------------------------------------------------------------


def regions(seed: int = 0) -> tuple[Tensor, Tensor]:
    return draw(4, 2, 3, 5, seed=seed).sigmoid(), pick(2, 4, 2, 3, 5).double()


def test_overlaps_are_their_formulas():
    p, t = regions()
    tp, fp, fn = ((a * b).sum((2, 3)) for a, b in ((p, t), (p, 1 - t), (1 - p, t)))
    near(f.dice(p, t), (1 - (2 * tp + 1) / (2 * tp + fp + fn + 1)).mean(1))
    near(f.jaccard(p, t), (1 - (tp + 1) / (tp + fp + fn + 1)).mean(1))
    near(f.tversky(p, t), (1 - (tp + 1) / (tp + 0.3 * fp + 0.7 * fn + 1)).mean(1))
    near(f.tversky(p, t, alpha=1, beta=1), f.jaccard(p, t))
    near(f.tversky(p, t, alpha=0.5, beta=0.5, epsilon=0.5), f.dice(p, t))
    for gamma in (0.75, 2.0):
        near(f.tversky(p[:, :1], t[:, :1], gamma=gamma), f.tversky(p[:, :1], t[:, :1]) ** gamma)
    near(f.dice(p, t, class_weight=torch.tensor([0.0, 2.0])), f.dice(p[:, 1:], t[:, 1:]))


def test_dice_of_masks_is_the_metric():
    from deepweave import metrics

    said, true = pick(2, 1, 8, 8, seed=3), pick(2, 1, 8, 8, seed=4)
    loss = f.dice(said[:, None].double(), true[:, None], epsilon=1e-12)
    near(1 - loss[0], float(metrics.dice(said, true, confidence=None)), rtol=1e-9)
    loss = f.jaccard(said[:, None].double(), true[:, None], epsilon=1e-12)
    near(1 - loss[0], float(metrics.jaccard(said, true, confidence=None)), rtol=1e-9)


@pytest.mark.parametrize("loss", [f.dice, f.jaccard, f.tversky])
def test_empty_masks_have_a_slope(loss):
    empty = torch.zeros(1, 1, 4, 4)
    assert float(loss(empty, empty)) == 0
    said = torch.full((1, 1, 4, 4), 0.1, requires_grad=True)
    loss(said, empty).sum().backward()
    assert said.grad is not None
    assert (said.grad > 0).all(), "what is said where nothing is must go down"


def test_a_masked_overlap_is_that_of_the_rest():
    p, t = regions()
    mask = pick(2, 4, 3, 5, seed=9).bool()
    mask[:, 0] = True
    for loss in (f.dice, f.jaccard, f.tversky):
        rest = [loss(a[:, m][None], b[:, m][None]) for a, b, m in zip(p, t, mask)]
        near(loss(p, t, mask=mask), torch.cat(rest))


def test_a_mask_may_be_shares():
    """Half a pixel counts half in every sum."""
    p, t = regions()
    m = draw(4, 3, 5, seed=8).sigmoid()
    tp, said, true = ((a * m[:, None]).sum((2, 3)) for a in (p * t, p, t))
    near(f.dice(p, t, mask=m), (1 - (2 * tp + 1) / (said + true + 1)).mean(1))
    near(f.jaccard(p, t, mask=m), (1 - (tp + 1) / (said + true - tp + 1)).mean(1))
    z, y = draw(4, 5), draw(4, 5, seed=1)
    w = m.flatten(1)[:, :5]
    near(f.squared_error(z, y, mask=w), ((z - y) ** 2 * w).sum(1) / w.sum(1))


def test_what_is_infinite_behind_a_mask_does_not_count():
    said = torch.tensor([[1.0, torch.inf], [2.0, 2.0]])
    mask = torch.tensor([[True, False], [True, True]])
    assert f.squared_error(said, torch.zeros(2, 2), mask=mask).tolist() == [1.0, 4.0]


# --- divergences ----------------------------------------------------------------------------


def test_kl_as_torch_and_scipy():
    from scipy.special import rel_entr

    z, p = draw(B, K), draw(B, K, seed=1).softmax(1)
    found = f.kl_divergence(z, p)
    near(found.sum(), F.kl_div(z.log_softmax(1), p, reduction="sum"))
    near(found, torch.from_numpy(rel_entr(p.numpy(), z.softmax(1).numpy()).sum(1)), rtol=1e-10)
    near(f.kl_divergence(z, p.log(), from_logits=True), found)
    near(f.kl_divergence(z.log_softmax(1), p), found)
    entropy = -(p * p.log()).sum(1)
    near(found, f.cross_entropy(z, p) - entropy, rtol=1e-10)


def test_kl_at_the_border():
    q, p = torch.tensor([[0.0, 0.25, 0.75]]).double(), torch.tensor([[0.0, 1.0, 0.0]]).double()
    near(f.kl_divergence(q.log(), p)[0], math.log(4))
    assert float(f.kl_divergence(p.log(), q)) == torch.inf
    near(f.kl_divergence(p.log(), p)[0], 0.0)
    z = q.log().requires_grad_()
    f.kl_divergence(z, p).sum().backward()
    assert z.grad is not None
    near(z.grad, q - p)  # the slope is what it is for cross-entropy


def test_jensen_shannon_as_scipy():
    from scipy.spatial.distance import jensenshannon

    z, p = draw(B, K), draw(B, K, seed=1).softmax(1)
    theirs = torch.from_numpy(jensenshannon(p.numpy().T, z.softmax(1).numpy().T) ** 2)
    near(f.jensen_shannon(z, p), theirs, rtol=1e-10)
    near(f.jensen_shannon(p.log(), z.softmax(1)), theirs, rtol=1e-10)
    far = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]).double()
    near(
        f.jensen_shannon(far.log(), far.flip(0)), torch.full((2,), math.log(2), dtype=torch.float64)
    )


# --- bad input ------------------------------------------------------------------------------

Z, Y = torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])
P = torch.full((2, 1, 4), 0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: f.hinge(Z[:, 0], torch.tensor([0, 1, 1, 0])),
         r"hinge: labels must be -1 or \+1, got \[0, 1\]; of 0 and 1 take 2 y - 1"),
        (lambda: f.hinge(Z[:, 0], Y - 1, margin=0.0), "hinge: margin must be above 0, got 0.0"),
        (lambda: f.multiclass_hinge(Z, torch.tensor([0, 1, 2, 3])), "must lie in 0..2, got 0..3"),
        (lambda: f.multiclass_hinge(Z, Y, kind="one"), "kind must be crammer_singer or weston"),
        (lambda: f.multiclass_hinge(Z[:, :1], Y), r"logits must be \(B, K >= 2, ...\)"),
        (lambda: f.cross_entropy(Z, torch.tensor([0, 1, 2, 3]), reduction="mean"),
         r"cross_entropy: labels must lie in 0..2, got 0..3"),
        (lambda: f.cross_entropy(Z, torch.tensor([0, 1, -1, 2])), "0..2, got -1..2"),
        (lambda: f.cross_entropy(Z, Y, smoothing=-0.1), r"smoothing must lie in .*got -0.1"),
        (lambda: f.cross_entropy(Z, Y.float()), "class numbers .int64., got torch.float32"),
        (lambda: f.cross_entropy(Z, 2 * torch.ones(4, 3)), r"probabilities must lie in \[0, 1\]"),
        (lambda: f.cross_entropy(Z[:, 0], Y), r"logits must be \(B, K, ...\), got \(4,\)"),
        (lambda: f.cross_entropy(Z, Y, class_weight=torch.ones(2)),
         r"class_weight must be \(3,\), got \(2,\)"),
        (lambda: f.binary_cross_entropy(Z, 3 * torch.ones(4, 3)), r"target must lie in \[0, 1\]"),
        (lambda: f.binary_cross_entropy(Z, torch.full((4, 3), torch.nan)), "got nan..nan"),
        (lambda: f.focal(Z, Y, gamma=-1.0), "focal: gamma must be at least 0, got -1.0"),
        (lambda: f.focal(Z, Y, gamma=math.inf), "gamma must be at least 0, got inf"),
        (lambda: f.focal(Z, torch.tensor([0, 1, 2, 3])), "focal: labels must lie in 0..2"),
        (lambda: f.focal(Z[:, 0], torch.ones(4), ignore=1), "take mask= for two classes"),
        (lambda: f.dice(3 * P, P), r"dice: probability must lie in \[0, 1\], got 1.5..1.5"),
        (lambda: f.dice(P, P * torch.nan), r"dice: target must lie in \[0, 1\], got nan"),
        (lambda: f.dice(P, P, epsilon=0.0), "dice: epsilon must be above 0, got 0.0"),
        (lambda: f.dice(P[0], P[0]), r"probability must be \(B, C, pixels ...\), got \(1, 4\)"),
        (lambda: f.jaccard(P, P, mask=torch.ones(2, 1, 4)),
         r"jaccard: mask must be \(2, 4\), got \(2, 1, 4\)"),
        (lambda: f.tversky(P, P, alpha=-1.0), "alpha and beta must not be below 0"),
        (lambda: f.tversky(P, P, alpha=0.0, beta=0.0), "nor both 0"),
        (lambda: f.tversky(P, P, gamma=0.0), "gamma must be above 0"),
        (lambda: f.kl_divergence(Z, torch.ones(4, 3)), "probabilities must add to 1, got 3"),
        (lambda: f.kl_divergence(Z, -torch.ones(4, 3)), r"probabilities must lie in \[0, 1\]"),
        (lambda: f.jensen_shannon(Z, torch.ones(4, 2)), r"target must be \(4, 3\), got \(4, 2\)"),
        (lambda: f.triplet(Z, Z, Z[:, 0]), r"negative must be \(4, 3\), got \(4,\)"),
        (lambda: f.triplet(Z[0], Z[0], Z[0]), r"embeddings must be \(B, D\), got \(3,\)"),
        (lambda: f.contrastive(Z, Z, 2 * torch.ones(4)), r"alike must lie in \[0, 1\], got 2..2"),
        (lambda: f.info_nce(Z, Z, temperature=0.0), "temperature must be above 0, got 0.0"),
        (lambda: f.ranking(Z[:, 0], Z[:, 1], Y), r"labels must be -1 or \+1"),
        (lambda: f.ranking(Z[:, 0], Z[:, 1], Y, margin=-1.0), "margin must be at least 0"),
        (lambda: f.huber(Z, Z, delta=0.0), "delta must be above 0"),
        (lambda: f.quantile(Z, Z, levels=1.0), r"levels must lie inside \(0, 1\), got 1.0"),
        (lambda: f.quantile(Z, Z, levels=(0.1, 0.9)), r"prediction must be \(4, 3, 2\), got"),
        (lambda: f.squared_error(Z, Z[:, 0]), r"target must be \(4, 3\), got \(4,\)"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_values_are_not_looked_at_inside_a_transform():
    """vmap over several problems, one of them bad: no value can be read, none is."""
    scores, labels = torch.zeros(2, 4), torch.tensor([[1, -1, 1, 1], [0, 1, 1, 0]])
    with pytest.raises(ValueError, match="labels must be -1"):
        f.hinge(scores[1], labels[1])
    assert torch.func.vmap(f.hinge)(scores, labels).shape == (2, 4)
    compiled = torch.func.grad(lambda p: f.dice(p, P).sum())(2 * P)
    assert compiled.shape == P.shape


def test_the_mean_is_the_fused_kernel(monkeypatch):
    """The hot loop pays one kernel, and a Population recognises the plain call."""
    seen = []
    real = F.cross_entropy
    monkeypatch.setattr(F, "cross_entropy", lambda *a, **k: seen.append((a, k)) or real(*a, **k))
    f.cross_entropy(Z, Y, reduction="mean")
    ((args, options),) = seen
    assert len(args) == 2
    assert options == {"reduction": "mean", "label_smoothing": 0.0}


def test_a_learned_network_prefers_what_its_loss_asks():
    """Least absolute error finds the median, least squared error the mean."""
    y = torch.cat([torch.zeros(60), torch.full((40,), 10.0)]).double()
    for loss, expected in ((f.absolute_error, 0.0), (f.squared_error, 4.0)):
        place = nn.Parameter(torch.tensor([1.0]).double())
        optimizer = torch.optim.SGD([place], lr=0.1)
        for step in range(800):
            optimizer.param_groups[0]["lr"] = 0.1 * 0.99**step
            optimizer.zero_grad()
            loss(place.expand(100), y, reduction="mean").backward()
            optimizer.step()
        assert abs(float(place.detach()) - expected) < 0.05
