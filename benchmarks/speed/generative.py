"""Readings of samples, variational autoencoders and GANs beside their peers.

- metrics: the Fréchet distance of 500 samples of 2,048 features (torchmetrics), KID by 100 subsets
  of 1,000 of 2,000 (torch-fidelity), values compared first;
- variational: five epochs on binarised digits, one network of 512 units, batches of 64 (a bare loop
  of torch, pythae's BaseTrainer); the importance-weighted bound of 100 images by 100 samples
  (pythae's get_nll, which gives the log likelihood under that name);
- adversarial: 100 steps of both sides, dense networks of 256 and 256, batches of 64, the
  non-saturating loss, Adam (a bare loop, torchgan's Trainer with its loggers off; the Trainer also
  saves a checkpoint after each epoch, which here is one of 100 steps).

Peers stand in an environment of their own; torchgan and torch-fidelity import torchvision, which
none of the parts measured here uses: an empty module takes its place.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.generative [metrics variational adversarial]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.machinery
import io
import logging
import os
import sys
import tempfile
import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deepweave as dw
from benchmarks import harness
from deepweave.functional.adversarial import nonsaturating
from deepweave.metrics import generative

COMMAND = "OMP_NUM_THREADS=1 python -m benchmarks.speed.generative"


class Empty(types.ModuleType):
    """A module whose every name is a class that takes anything and does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *args, **options: None})


def without_torchvision() -> None:
    """Let what imports torchvision at its top, and does not use it, be imported."""
    parts = ("", ".datasets", ".transforms", ".transforms.functional", ".utils", ".models")
    for part in parts:
        module = Empty(f"torchvision{part}")
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
        module.__version__ = "0.0"  # pyright: ignore[reportAttributeAccessIssue]
        module.__path__ = []
        sys.modules[module.__name__] = module
        parent, _, last = module.__name__.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, module)


def metrics(rounds: int) -> dict[str, Any]:
    """Fréchet and KID."""
    import torch_fidelity.metric_kid as peer
    from torchmetrics.image.fid import FrechetInceptionDistance

    random = torch.Generator().manual_seed(0)
    mix = torch.randn(2048, 2048, generator=random) / 45

    def features(count: int, shift: float) -> Tensor:
        return torch.randn(count, 2048, generator=random) @ mix + shift

    class Given(nn.Module):
        num_features = 2048

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :2048].float()

    x, y = features(500, 0.05), features(500, 0.0)

    def torchmetrics() -> float:
        fid = FrechetInceptionDistance(feature=Given(), input_img_size=(3, 32, 32))
        fid.update(x[:, :, None, None], real=False)
        fid.update(y[:, :, None, None], real=True)
        return float(fid.compute())

    values = float(generative.frechet(x, y, confidence=None)), torchmetrics()
    print("Fréchet", values)
    assert abs(values[0] / values[1] - 1) < 1e-3, values
    rows: dict[str, Any] = {
        "Fréchet distance, 500 x 2048": harness.compare(
            {
                "deepweave": lambda: generative.frechet(x, y, confidence=None),
                "torchmetrics": torchmetrics,
            },
            rounds=rounds,
        )
    }
    x, y = features(2000, 0.02), features(2000, 0.0)
    options = {"kid_subsets": 100, "kid_subset_size": 1000, "verbose": False, "rng_seed": 2020,
               "kid_kernel": "poly", "kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None,
               "kid_kernel_poly_coef0": 1}  # fmt: skip

    def fidelity() -> float:
        found = peer.kid_features_to_metric(x.double(), y.double(), **options)
        return found["kernel_inception_distance_mean"]

    def ours() -> float:
        return float(generative.kid(x, y, subsets=100, size=1000))

    values = ours(), fidelity()
    print("KID", values)
    assert abs(values[0] / values[1] - 1) < 1e-6, values
    rows["KID, 100 subsets of 1,000 of 2,000"] = harness.compare(
        {"deepweave": ours, "torch-fidelity": fidelity}, rounds=max(3, rounds // 2), warmup=0
    )
    return rows


def variational(rounds: int) -> dict[str, Any]:
    """Training a VAE, and its bound by importance samples."""
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    logging.disable(logging.WARNING)
    data = dw.data.load("digits")
    x = (data.train.x > 0.5).float()
    split = dw.data.Split(x, data.train.y)
    latent, width, epochs, batch = 10, 512, 5, 64

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = dw.nn.gaussian_encoder(data.spec, latent, (width,), activation="relu")

        def forward(self, x: Tensor) -> ModelOutput:
            mean, log_var = self.net(x).chunk(2, 1)
            return ModelOutput(embedding=mean, log_covariance=log_var)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.net = dw.nn.decoder(
                data.spec, latent, (width,), activation="relu", output="sigmoid"
            )

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.net(z)[:, 0])

    def own() -> dw.VAE:
        encoder = dw.nn.gaussian_encoder(data.spec, latent, (width,), activation="relu")
        return dw.VAE(encoder, dw.nn.decoder(data.spec, latent, (width,), activation="relu"))

    def ours() -> Any:
        step = dw.Descent(own(), "Adam", lr=1e-3)
        return dw.fit(step, split, batch=batch, epochs=epochs)

    def bare() -> Any:
        encoder = dw.nn.gaussian_encoder(data.spec, latent, (width,), activation="relu")
        decoder = dw.nn.decoder(data.spec, latent, (width,), activation="relu")
        optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
        for _ in range(epochs):
            for index in torch.randperm(len(x)).split(batch):
                one = x[index]
                mean, log_var = encoder(one).chunk(2, 1)
                z = mean + (log_var / 2).exp() * torch.randn_like(mean)
                said = decoder(z)[:, 0]
                loss = F.binary_cross_entropy_with_logits(said, one, reduction="none").sum(
                    (1, 2, 3)
                )
                kl = (mean.square() + log_var.exp() - log_var - 1).sum(1) / 2
                loss = (loss + kl).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    def model() -> Any:
        config = VAEConfig(input_dim=(1, 8, 8), latent_dim=latent, reconstruction_loss="bce")
        return VAE(config, encoder=Encoder(), decoder=Decoder())

    def pythae() -> Any:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            training = BaseTrainerConfig(
                output_dir=folder, learning_rate=1e-3, per_device_train_batch_size=batch,
                num_epochs=epochs, no_cuda=True, optimizer_cls="Adam",
            )  # fmt: skip
            net = model()
            BaseTrainer(net, BaseDataset(x, data.train.y), training_config=training).train()
            return net

    rows: dict[str, Any] = {
        "five epochs": harness.compare(
            {"deepweave": ours, "bare loop": bare, "pythae": pythae}, rounds=rounds
        )
    }
    theirs = pythae().eval()
    vae = own().eval()
    vae.encoder.load_state_dict(theirs.encoder.net.state_dict())
    vae.decoder.load_state_dict(theirs.decoder.net.state_dict())
    some = x[:100]
    torch.manual_seed(0)
    with torch.no_grad():
        values = (
            float(vae.log_likelihood(some, samples=100)[0].mean()),
            float(theirs.get_nll(some, n_samples=100, batch_size=100)),
        )
        print("log likelihood", values)
        assert abs(values[0] - values[1]) < 0.2, values
        rows["bound of 100 images, 100 samples"] = harness.compare(
            {
                "deepweave": lambda: vae.log_likelihood(some, samples=100),
                "pythae": lambda: theirs.get_nll(some, n_samples=100, batch_size=100),
            },
            rounds=2 * rounds,
        )
    return rows


def adversarial(rounds: int) -> dict[str, Any]:
    """A hundred steps of both sides of a GAN."""
    os.environ |= {"TENSORBOARD_LOGGING": "0", "CONSOLE_LOGGING": "0", "VISDOM_LOGGING": "0"}
    from torchgan.losses import MinimaxDiscriminatorLoss, MinimaxGeneratorLoss
    from torchgan.models import Discriminator, Generator
    from torchgan.trainer import Trainer

    data = dw.data.load("digits")
    latent, hidden, batch, steps = 32, (256, 256), 64, 100
    batches = [data.train.x[torch.randperm(len(data.train.x))[:batch]] for _ in range(steps)]

    def nets() -> tuple[nn.Module, nn.Module]:
        return (
            dw.nn.decoder(data.spec, latent, hidden, output="sigmoid"),
            dw.nn.discriminator(data.spec, hidden),
        )

    def ours() -> Any:
        gan = dw.GAN(*nets(), nonsaturating)
        return dw.fit(dw.Alternate(gan, lr=2e-4, betas=(0.5, 0.999)), batches, epochs=1)

    def bare() -> None:
        generator, critic = nets()
        sides = [
            torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999))
            for net in (generator, critic)
        ]
        for x in batches:
            fake = generator(torch.randn(batch, latent))[:, 0]
            loss = F.softplus(-critic(x)).mean() + F.softplus(critic(fake.detach())).mean()
            sides[1].zero_grad()
            loss.backward()
            sides[1].step()
            loss = F.softplus(-critic(fake)).mean()
            sides[0].zero_grad()
            loss.backward()
            sides[0].step()

    class G(Generator):
        def __init__(self) -> None:
            super().__init__(latent)
            self.net = nets()[0]

        def forward(self, z: Tensor) -> Tensor:
            return self.net(z)[:, 0]

    class D(Discriminator):
        def __init__(self) -> None:
            super().__init__(64)
            self.net = nets()[1]

        def forward(self, x: Tensor, feature_matching: bool = False) -> Tensor:
            return self.net(x).flatten()

    def torchgan() -> None:
        side = {"name": torch.optim.Adam, "args": {"lr": 2e-4, "betas": (0.5, 0.999)}}
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            trainer = Trainer(
                {"generator": {"name": G, "optimizer": side},
                 "discriminator": {"name": D, "optimizer": side}},
                [MinimaxGeneratorLoss(nonsaturating=True), MinimaxDiscriminatorLoss()],
                device=torch.device("cpu"), epochs=1, sample_size=1,
                checkpoints=f"{folder}/model/gan", recon=f"{folder}/images",
            )  # fmt: skip
            trainer(Feed(batches))

    class Feed(list):
        batch_size = batch

    return {
        "100 steps": harness.compare(
            {"deepweave": ours, "bare loop": bare, "torchgan": torchgan}, rounds=rounds
        )
    }


PARTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "metrics": metrics, "variational": variational, "adversarial": adversarial,
}  # fmt: skip
NAMES = {"metrics": "samples", "variational": "variational", "adversarial": "adversarial"}  # files


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(1)
    without_torchvision()
    for name in given.parts:
        rows = PARTS[name](given.rounds)
        for case, found in rows.items():
            print(f"\n{case}\n{harness.table(found, 1e3, 'ms')}")
        harness.save(NAMES[name], rows, command=f"{COMMAND} {name}")


if __name__ == "__main__":
    main()
