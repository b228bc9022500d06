"""Two sides that learn in turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from deepweave.core import Batch, Logs, Objective, Step
from deepweave.core.descent import make_optimizer


class Alternate(Step):
    """A discriminator's steps, then one of the generator, each with an optimizer of its own.

    Args:
        objective: has ``critic(batch)`` and ``generate(batch)``, both giving (loss, logs), and the
            modules ``discriminator`` and ``generator``; such as :class:`deepweave.GAN`.
        optimizer: a name in ``torch.optim``, or a callable of parameters.
        lr: the generator's learning rate.
        critic_lr: the discriminator's; None: the same.
        ratio: steps of the discriminator for one of the generator.
        **options: the optimizer's own; Adam's betas are (0, 0.99) unless said: momentum makes two
            sides chase each other.

    Raises:
        ValueError: a ratio below 1, a side without weights to train.
        TypeError: an objective without two sides.

    Source: Goodfellow et al., 2014; Heusel et al., 2017 (two learning rates).
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: str | Callable[..., Optimizer] = "Adam",
        *,
        lr: float = 2e-4,
        critic_lr: float | None = None,
        ratio: int = 1,
        **options: Any,
    ):
        sides: Any = objective
        if not all(callable(getattr(sides, name, None)) for name in ("critic", "generate")):
            raise TypeError(
                f"Alternate: objective must have critic(batch) and generate(batch), got "
                f"{type(objective).__name__}"
            )
        if not isinstance(ratio, int) or ratio < 1:
            raise ValueError(f"Alternate: ratio must be a whole number from 1, got {ratio}")
        if optimizer in ("Adam", "AdamW", "adam", "adamw"):
            options.setdefault("betas", (0.0, 0.99))
        self.objective, self.ratio, self.count = objective, ratio, 0
        self._sides = [
            [w for w in part.parameters() if w.requires_grad]
            for part in (sides.discriminator, sides.generator)
        ]
        for name, weights in zip(("discriminator", "generator"), self._sides):
            if not weights:
                raise ValueError(f"Alternate: nothing to train in the {name}: its weights are held")
        rates = (lr if critic_lr is None else critic_lr, lr)
        self._optimizers = [
            make_optimizer(optimizer, weights, lr=rate, **options)
            for weights, rate in zip(self._sides, rates)
        ]

    @property
    def optimizers(self) -> list[Optimizer]:
        return self._optimizers

    def __call__(self, batch: Batch) -> Logs:
        sides: Any = self.objective
        loss, logs = self._learn(0, sides.critic(batch))
        self.count += 1
        if self.count % self.ratio == 0:
            made, more = self._learn(1, sides.generate(batch))
            loss, logs = loss + made, logs | more
        return {"loss": loss, **logs}

    def _learn(self, side: int, found: tuple[Tensor, Logs]) -> tuple[Tensor, Logs]:
        loss, logs = found
        loss.backward(inputs=self._sides[side])  # the other side's weights get no slopes
        self._optimizers[side].step()
        for weight in self._sides[side]:
            weight.grad = None
        return loss.detach(), logs

    def state(self) -> dict[str, Any]:
        return {**super().state(), "count": self.count}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.count = state["count"]
