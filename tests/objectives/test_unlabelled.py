"""First batches of objectives that need no labels: looked at in the same words by all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import deepweave as dw

SIZES = ((1, 4, 4), 3)
X = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y, W = torch.arange(6) % 3, torch.ones(6)


def coders(classes=0):
    return (
        dw.nn.gaussian_encoder(SIZES, 2, (4,), classes=classes),
        dw.nn.decoder(SIZES, 2, (4,), classes=classes),
    )


MAKERS = {
    "VAE": lambda classes=0: dw.VAE(*coders(classes), classes=classes),
    "IWAE": lambda classes=0: dw.IWAE(*coders(classes), classes=classes),
    "GAN": lambda classes=0: dw.GAN(
        coders(classes)[1], dw.nn.discriminator(SIZES, (4,), classes=classes), classes=classes
    ),
    "Denoise": lambda classes=0: dw.Denoise(
        dw.nn.unet(SIZES, (4, 8), classes=classes), classes=classes
    ),
    "VQVAE": lambda: dw.VQVAE(
        nn.Conv2d(1, 2, 2, 2),
        nn.Sequential(nn.ConvTranspose2d(2, 1, 2, 2), nn.Unflatten(1, (1, 1))),
        4, features=2,
    ),
    "Likelihood": lambda: dw.Likelihood(dw.nn.spline_flow((1, 4, 4), 1, (4,))),
}  # fmt: skip
TOLD = ("VAE", "IWAE", "GAN", "Denoise")


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (X.numpy(), r"a batch must be x, \(x, y\) or \(x, y, weight\), got ndarray"),
        (X.to(torch.uint8), "inputs must be a tensor of floats, got torch.uint8"),
        ((X.tolist(),), "inputs must be a tensor of floats, got list"),
        (X[:0], r"there are no inputs in a batch of \(0, 1, 4, 4\)"),
        (X * torch.nan, "96 of the inputs are not finite"),
        ((X, Y, W[:3]), r"weight must be \(6,\), got \(3,\)"),
        ((X, None, W[:, None]), r"weight must be \(6,\), got \(6, 1\)"),
        ((X, None, [1.0] * 6), r"weight must be \(6,\), got list"),
        ((X, None, -W), "weight must be finite and not below 0"),
        ((X, None, W * torch.nan), "weight must be finite and not below 0"),
    ],
)
def test_what_is_refused(name, batch, message):
    with pytest.raises(ValueError, match=f"^{name}: {message}"):
        MAKERS[name]().check(batch)


@pytest.mark.parametrize("name", TOLD)
@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (X, r"with classes a batch must be \(x, y\), got x alone"),
        ((X, Y.float()), "classes must be whole numbers, got torch.float32"),
        ((X, Y.tolist()), "classes must be whole numbers, got list"),
        ((X, Y[:3]), r"classes must be \(6,\), got \(3,\)"),
        ((X, torch.eye(3, dtype=torch.long)[Y]), r"classes must be \(6,\), got \(6, 3\)"),
        ((X, Y + 1), r"classes must lie in 0\.\.2, got 1\.\.3"),
        ((X, Y - 1), r"classes must lie in 0\.\.2, got -1\.\.1"),
    ],
)
def test_classes_that_are_refused(name, batch, message):
    with pytest.raises(ValueError, match=f"^{name}: {message}"):
        MAKERS[name](3).check(batch)


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_taken(name):
    """A batch of one, targets that are not looked at, weights of nothing."""
    for batch in (X[:1], (X[:1], Y[:1]), (X, Y.float()), (X, list("abcabc")), (X, None, 0 * W)):
        objective = MAKERS[name]()
        objective.check(batch)
        assert objective(batch)[0].isfinite()
    for kind in (torch.int32, torch.uint8) if name in TOLD else ():
        told = MAKERS[name](3)
        told.check((X, Y.to(kind)))
        assert told((X, Y.to(kind)))[0].isfinite()


@pytest.mark.parametrize("name", TOLD)
@pytest.mark.parametrize(
    ("classes", "count", "y", "message"),
    [
        (0, 0, None, "count must be a whole number from 1, got 0"),
        (0, 2.5, None, r"count must be a whole number from 1, got 2\.5"),
        (0, 2, Y[:2], "made without classes, none can be asked for"),
        (3, 2, Y[:3], r"classes must be \(2,\), got \(3,\)"),
        (3, 2, [0, 1], "classes must be whole numbers, got list"),
        (3, 2, torch.tensor([0.0, 1.0]), "classes must be whole numbers, got torch.float32"),
        (3, 2, torch.tensor([0, 3]), r"classes must lie in 0\.\.2, got 0\.\.3"),
    ],
)
def test_samples_that_cannot_be_made(name, classes, count, y, message):
    objective = MAKERS[name](classes)
    objective.check((X, Y))
    with pytest.raises(ValueError, match=f"^{name}: .*{message}"):
        objective.sample(count, y)
    if name != "Denoise" and classes:  # which draws any class unless asked
        with pytest.raises(ValueError, match=rf"^{name}: it is told classes: say which, y of"):
            objective.sample(2)
