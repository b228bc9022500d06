from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from deepweave.functional import augment

IMAGES = {
    "flip": augment.flip,
    "flip, upside down": partial(augment.flip, dim=-2),
    "shift": augment.shift,
    "affine": partial(augment.affine, degrees=20, scale=0.2, translate=0.1, shear=0.2),
    "affine, border": partial(augment.affine, degrees=20, border=True),
    "rotate": augment.rotate,
    "erase": augment.erase,
    "brightness": augment.brightness,
    "contrast": augment.contrast,
    "noise": augment.noise,
}
ANY = ("brightness", "contrast", "noise", "flip")


def images(n: int = 6, c: int = 2, h: int = 8, w: int = 10, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, c, h, w, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", IMAGES)
def test_every_transform(name):
    transform, x = IMAGES[name], images()
    before = x.clone()
    torch.manual_seed(0)
    y = transform(x)
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert torch.equal(x, before), "nothing is done in place"
    assert not torch.equal(y, x)
    torch.manual_seed(0)
    assert torch.equal(transform(x), y), "the seed decides"
    same = transform(x[:1].expand(64, -1, -1, -1))
    assert len({tuple(one.flatten().tolist()) for one in same}) > 1, "each sample is drawn its own"


@pytest.mark.parametrize("name", IMAGES)
def test_members_draw_their_own(name):
    x = images(32)
    torch.manual_seed(0)
    many = torch.func.vmap(lambda _: IMAGES[name](x), randomness="different")(torch.zeros(3))
    assert many.shape == (3, *x.shape)
    assert not torch.equal(many[0], many[1])


@pytest.mark.parametrize("name", [n for n in IMAGES if not n.startswith(ANY)])
def test_images_are_asked_for(name):
    with pytest.raises(ValueError, match=r"images must be \(B, C, H, W\), got \(4, 5\)"):
        IMAGES[name](torch.zeros(4, 5))


@pytest.mark.parametrize("name", ["brightness", "contrast", "noise"])
def test_tables_and_amounts_of_zero(name):
    x = images().flatten(1)
    assert IMAGES[name](x).shape == x.shape
    torch.testing.assert_close(IMAGES[name](x, 0.0), x)


def test_amounts_of_zero_leave_images():
    x = images()
    torch.testing.assert_close(augment.affine(x), x)
    assert torch.equal(augment.shift(x, 0), x)
    assert torch.equal(augment.erase(x, area=0.0), x)
    assert torch.equal(augment.flip(x, share=0.0), x)
    assert torch.equal(augment.flip(x, share=1.0), x.flip(-1))
    with pytest.raises(ValueError, match="shift: most must be at least 0, got -1"):
        augment.shift(x, -1)


def test_flip_takes_its_share():
    x = torch.arange(2.0).expand(4000, 1, 1, 2)
    share = float(augment.flip(x, share=0.3)[:, 0, 0, 0].mean())
    assert abs(share - 0.3) < 0.03


def test_shift_is_a_crop_of_the_padded_image():
    x = images(200, 1, 5, 6)
    torch.manual_seed(0)
    seen = set()
    padded = F.pad(x, (2, 2, 2, 2), value=-1.0)
    for one, moved in zip(padded, augment.shift(x, 2, fill=-1.0)):
        found = [
            (i, j)
            for i in range(5)
            for j in range(5)
            if torch.equal(one[:, i : i + 5, j : j + 6], moved)
        ]
        assert found
        seen.add(found[0])
    assert len(seen) == 25, "every offset in two dimensions"


def steady(monkeypatch, amount: float) -> None:
    """Every draw in +-most is ``amount`` of most."""

    def spread(x, most, *shape):
        return torch.full((len(x), *shape), amount, dtype=x.dtype) * most

    monkeypatch.setattr(augment, "_spread", spread)


def test_a_quarter_turn(monkeypatch):
    steady(monkeypatch, 1.0)
    square = images(3, 2, 7, 7)
    torch.testing.assert_close(
        augment.rotate(square, 90.0), square.rot90(1, (2, 3)), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        augment.rotate(images(), 180.0), images().flip(2, 3), atol=1e-5, rtol=0
    )


def test_a_turn_keeps_angles_where_the_sides_differ(monkeypatch):
    """A dot on the horizontal line through the centre comes to the vertical one, as far away."""
    steady(monkeypatch, 1.0)
    x = torch.zeros(1, 1, 9, 15)
    x[0, 0, 4, 7 + 3] = 1.0
    y = augment.rotate(x, 90.0)[0, 0]
    assert y[4 - 3, 7] == pytest.approx(1.0, abs=1e-4)


def test_moves_and_zooms(monkeypatch):
    steady(monkeypatch, 1.0)
    x = images(2, 1, 8, 10)
    moved = augment.affine(x, translate=0.2)  # two of ten pixels; 1.6 of eight
    torch.testing.assert_close(
        augment.affine(x[:, :, :5, :5], translate=0.2)[:, :, :-1, :-1],
        x[:, :, 1:5, 1:5], atol=1e-5, rtol=0,
    )  # fmt: skip
    assert moved.shape == x.shape
    ramp = torch.linspace(-1, 1, 21).expand(1, 1, 21, 21)
    zoomed = augment.affine(ramp, scale=0.5, border=True)[0, 0, 10]
    step = float(zoomed[11] - zoomed[10])
    assert step == pytest.approx(0.1 * torch.tensor(-0.5).exp().item(), rel=1e-3)


def test_slopes_go_through():
    x = images(2, 1, 5, 5).double().requires_grad_()
    for transform in (IMAGES["affine"], augment.shift, augment.contrast):

        def fixed(v, transform=transform):
            torch.manual_seed(0)
            return transform(v)

        assert torch.autograd.gradcheck(fixed, (x,))


def test_boxes_have_the_area_they_should():
    x = torch.zeros(4000, 1, 32, 32)
    inside = augment.box(x, torch.full((4000,), 0.25))
    assert inside.shape == (4000, 1, 32, 32)
    area = inside.float().flatten(1).mean(1)
    assert area.max() <= 0.26
    # the mean over centres: each side of s = 1/2 keeps s - s^2/4
    assert float(area.mean()) == pytest.approx((0.5 - 0.5**2 / 4) ** 2, abs=0.01)
    assert not augment.box(x, torch.zeros(4000)).any()
    one = inside[0, 0]
    rows, columns = one.any(1).sum(), one.any(0).sum()
    assert one.sum() == rows * columns, "a box"


def test_erase_fills_a_share_of_the_images():
    x = torch.ones(3000, 2, 16, 16)
    y = augment.erase(x, area=0.5, share=0.4, fill=-2.0)
    touched = (y != 1).flatten(1).any(1)
    assert 0.3 < float(touched.float().mean()) < 0.45
    assert ((y == 1) | (y == -2)).all()
    assert torch.equal(y[:, 0], y[:, 1]), "the same box in every channel"


def test_brightness_contrast_noise():
    x = images(2000, 1, 4, 4).double()
    torch.manual_seed(0)
    lift = (augment.brightness(x, 0.3) - x).flatten(1)
    torch.testing.assert_close(lift, lift[:, :1].expand_as(lift))
    assert stats.kstest(lift[:, 0].numpy(), stats.uniform(-0.3, 0.6).cdf).pvalue > 1e-3
    y = augment.contrast(x, 0.5)
    torch.testing.assert_close(y.flatten(1).mean(1), x.flatten(1).mean(1))
    factor = (y.flatten(1).std(1) / x.flatten(1).std(1)).log()
    assert stats.kstest(factor.numpy(), stats.uniform(-0.5, 1.0).cdf).pvalue > 1e-3
    noisy = (augment.noise(x, 0.2) - x).flatten()
    assert stats.kstest(noisy[:20000].numpy(), stats.norm(0, 0.2).cdf).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 4.0])
def test_beta_is_beta(alpha):
    torch.manual_seed(0)
    found = augment.beta(alpha, torch.zeros(20000, dtype=torch.float64))
    assert ((found >= 0) & (found <= 1)).all()
    for place in (1e-6, 1e-3, 0.05, 0.2, 0.4, 0.5, 0.7, 0.99, 1 - 1e-6):  # ends are rounded to 1
        exact = stats.beta(alpha, alpha).cdf(place)
        assert abs(float((found < place).double().mean()) - exact) < 4 * 0.5 / 20000**0.5
    single = augment.beta(alpha, torch.zeros(20000))
    assert single.isfinite().all()


def test_beta_of_many_members():
    alpha = torch.tensor([0.1, 1.0, 8.0])
    x = torch.zeros(4000)
    found = torch.func.vmap(lambda a: augment.beta(a, x), randomness="different")(alpha)
    spread = found.var(1)
    torch.testing.assert_close(spread, 1 / (4 * (2 * alpha + 1)), rtol=0.1, atol=0)
