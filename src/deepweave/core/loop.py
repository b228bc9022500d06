"""fit: the one loop, and the hooks it calls."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from deepweave import chance
from deepweave.core.descent import Descent
from deepweave.core.objective import Batch, Logs, Objective, Step, mapped
from deepweave.core.places import Place, settle
from deepweave.core.population import Population
from deepweave.run import Run, derive


class Hook:
    """What happens while a loop runs; every method may be left out.

    ``state`` and ``restore`` make it part of the checkpoint. Of several processes that learn
    together each runs all hooks, and all must decide alike; ``writes = True`` marks a hook that
    only the first one runs.
    """

    writes = False

    def begin(self, loop: Loop) -> None: ...
    def after_step(self, loop: Loop, logs: Logs) -> None: ...
    def after_epoch(self, loop: Loop) -> None: ...
    def end(self, loop: Loop) -> None: ...
    def close(self, loop: Loop) -> None:
        """After the end, and after an error: let go of what was held."""

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None: ...


class Loop:
    """Where a run stands: what hooks read, and how they stop it (``loop.stop = "why"``)."""

    def __init__(self, step: Step, source: Iterable[Batch], hooks: Sequence[Hook], run: Run):
        self.step, self.source, self.hooks, self.run = step, source, list(hooks), run
        self.steps: int | None = None  # how many in all, if known
        self.epochs: int | None = None
        self.seed = 0
        self.place = Place()
        self.count = 0  # steps done
        self.epoch = 0  # the epoch under way
        self.position = 0  # batches of it already learnt from
        self.stop: str | None = None
        self.current: Batch = None  # the last batch learnt from
        self.began = time.perf_counter()
        self.earlier = 0.0  # seconds spent before a resume

    @property
    def device(self) -> torch.device:
        return self.place.device

    @property
    def seconds(self) -> float:
        return self.earlier + time.perf_counter() - self.began

    @property
    def model(self) -> nn.Module:
        return getattr(self.step.objective, "model", self.step.objective)

    def note(self, values: dict[str, Any]) -> None:
        """Add a line to the history of the run: tensors become numbers, not finite ones null."""
        line = {"step": self.count, "epoch": self.epoch, "seconds": round(self.seconds, 4)}
        self.run.history.append(line | {name: _plain(value) for name, value in values.items()})

    def find(self, kind: type) -> Any:
        """The first hook of a kind, or None."""
        return next((hook for hook in self.hooks if isinstance(hook, kind)), None)

    def batches(self) -> Iterator[Batch]:
        """The rest of the epoch under way, on the device, in an order the seed alone decides."""
        if self.place.own:
            self.source.sampler.set_epoch(self.epoch)  # pyright: ignore[reportAttributeAccessIssue]
        epoch = getattr(self.source, "epoch", None)
        if callable(epoch):
            batches: Any = epoch(self.epoch, seed=self.seed, start=self.position)
        elif isinstance(self.source, list | tuple):
            batches = iter(self.source[self.position :] if self.position else self.source)
        else:
            batches = _foreign(self.source, derive(self.seed, "order", self.epoch), self.position)
        if self.device.type == "cpu":
            return batches
        return (move(batch, self.device) for batch in batches)

    def state(self) -> dict[str, Any]:
        """Everything a checkpoint keeps; several processes gather it together."""
        self.place.level()
        return {
            "count": self.count,
            "epoch": self.epoch,
            "position": self.position,
            "seconds": self.seconds,
            "stop": self.stop,
            "step": self.step.state(),
            "chance": chance.snapshot(),
            "place": self.place.state(),
            "hooks": [[type(hook).__name__, hook.state()] for hook in self.hooks],
        }

    def restore(self, state: dict[str, Any]) -> None:
        if self.place.engine is not None:
            state = self.place.engine.scatter(state)
        self.step.restore(state["step"])
        names = [type(hook).__name__ for hook in self.hooks]
        saved = [name for name, _ in state["hooks"]]
        if names != saved:
            raise ValueError(f"fit: the checkpoint has hooks {saved}, this run has {names}")
        for hook, (_, kept) in zip(self.hooks, state["hooks"]):
            hook.restore(kept)
        self.count, self.epoch, self.position = state["count"], state["epoch"], state["position"]
        self.earlier, self.stop = state["seconds"], state["stop"]
        chance.restore(state["chance"])
        self.place.restore(state.get("place", {}), self.seed, self.count)


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def move(batch: Batch, device: torch.device) -> Batch:
    """A batch on a device: tensors, and tensors in tuples, lists and dicts."""
    return mapped(lambda part: part.to(device, non_blocking=True), batch)


def _foreign(source: Iterable[Batch], seed: int, start: int) -> Iterator[Batch]:
    """Any iterable, drawn with random states of its own: the same order whenever it is entered.

    A DataLoader shuffles with the global generator; it gets one seeded for this epoch and leaves
    the generator of training untouched.
    """
    with chance.aside(seed):
        batches = iter(source)
        kept = chance.snapshot()
    position = 0
    while True:
        training = chance.snapshot()
        chance.restore(kept)
        try:
            batch = next(batches)
        except StopIteration:
            return
        finally:
            kept = chance.snapshot()
            chance.restore(training)
        position += 1
        if position > start:
            yield batch


def fit(
    step: Step | Objective,
    source: Any,
    *,
    epochs: int | None = None,
    steps: int | None = None,
    batch: int | None = None,
    hooks: Sequence[Hook] = (),
    seed: int = 0,
    devices: Any = None,
    precision: str | None = None,
    strategy: str | None = None,
    out: Run | str | Path | bool | None = None,
    **options: Any,
) -> Run:
    """Learn from a source of batches, and return the run.

    Args:
        step: a :class:`Step`, or an objective, which AdamW then descends (``**options`` such as
            ``lr`` go to :class:`Descent`).
        source: an iterable of batches; or a whole data set (``train``, ``validation``, ``test``),
            which makes it a run with validation, early stopping, progress and a folder.
        epochs, steps: how long; whichever is reached first.
        batch: the batch size, for a whole data set (128) or a split of one; of all processes
            together where there are several.
        hooks: further hooks; one of the same class takes the place of a default one.
        seed: fixes the order of data and every random draw in training.
        devices: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, a number of devices, or a list of them; by
            default a GPU if there is one. More than one: a process for each, which ``torchrun
            --nproc-per-node N`` starts (for a recipe ``deepweave run NAME --devices N``).
        precision: ``"float32"``, ``"bf16"`` or ``"fp16"``: of the forward pass, by autocast; the
            weights stay as they are.
        strategy: of several processes: ``"ddp"`` (each has all weights; the default) or
            ``"fsdp"`` (each has a part of them).
        out: the run's folder. None: the next free one under ``runs/`` for a whole data set, none
            for bare batches. False: none. A folder with an unfinished run is gone on with when
            ``out`` is ``Run(folder, resume=True)``.

    Raises:
        ValueError: nothing to train, no length given, a batch the objective cannot take, or a
            place that there is not.
    """
    if isinstance(step, Objective):
        step = Descent(step, **options)
    elif options:
        raise TypeError(f"fit: {', '.join(options)}: options go to the step itself")
    whole = hasattr(source, "train") and hasattr(source, "validation")
    for name, value in (("epochs", epochs), ("steps", steps), ("batch", batch)):
        if value is not None and value < 1:
            raise ValueError(f"fit: {name} must be at least 1, got {value}")
    if epochs is None and steps is None:
        if not whole:
            raise ValueError("fit: give epochs= or steps=")
        epochs = 20
    place = settle(devices, precision, strategy, step)
    feed = source.train if whole else source
    size = batch or 128
    if hasattr(feed, "batches") and size < place.count:
        many = f"{place.count} processes"
        raise ValueError(f"fit: batch={size} has not one sample for each of {many}")
    place.join()
    run = Run.of(out, whole, type(step.objective).__name__.lower())
    run.step = step
    folder = place.first(lambda: run.folder is not None)
    if hasattr(feed, "batches"):
        feed = _resident(feed, place.device)
        own = {"members": step.members} if step.members is not None and not step.shared else {}
        feed = feed.batches(size, **own)
    elif batch is not None:
        raise TypeError("fit: batch= is for a data set; these batches come ready-made")
    else:
        place.divided(feed)
    from deepweave.hooks import kept, standard

    if whole:
        run.data = source
        hooks = standard(hooks, source, folder, step.objective.comparable)
    else:
        hooks = kept(hooks, folder)
    loop = Loop(step, feed, hooks, run)
    loop.place = place
    loop.epochs, loop.seed = epochs, seed
    length = len(feed) if hasattr(feed, "__len__") else None
    known = [n for n in (steps, epochs * length if epochs and length else None) if n is not None]
    loop.steps = min(known) if known else None
    outside, threads = chance.snapshot(), torch.get_num_threads()
    try:
        if place.strategy != "fsdp":  # whose parts move by themselves
            step.to(place.device)
        _loop(loop, steps)
    finally:
        chance.restore(outside)
        torch.set_num_threads(threads)
    return run


def _resident(split: Any, device: torch.device) -> Any:
    """A split on a GPU, where its batches are then cut, if it takes at most half of its room."""
    if device.type != "cuda":
        return split
    size = sum(part.numel() * part.element_size() for part in (split.x, split.y))
    return split.to(device) if size <= torch.cuda.mem_get_info(device)[0] / 2 else split


SMALL = 1e8  # operations of a forward pass below which one thread is enough


def _choose_threads(loop: Loop, batch: Batch) -> None:
    """On a CPU a small step runs on one thread: a second gains nothing and waits for a busy core.

    The choice depends on the size of the step alone, so that a resumed run makes the same one.
    """
    if loop.device.type != "cpu" or torch.get_num_threads() == 1 or loop.place.count > 1:
        return
    if not isinstance(loop.step, Descent | Population):
        return  # a step of another kind may not evaluate a batch of its source
    step, was = loop.step, loop.step.objective.training
    counter = FlopCounterMode(display=False)
    step.objective.eval()
    try:
        with chance.aside(0), counter:
            step.evaluate(batch if step.members is None or step.shared else _one(batch))
    except RuntimeError:
        pass  # slopes that a loss takes itself are not counted; what came before them is
    finally:
        step.objective.train(was)
    if 0 < counter.get_total_flops() < SMALL:
        torch.set_num_threads(1)
        loop.run.info["threads"] = 1


def _one(batch: Batch) -> Batch:
    """The first member's part of a batch of many."""
    return batch[0] if isinstance(batch, Tensor) else tuple(_one(part) for part in batch)


def _loop(loop: Loop, limit: int | None) -> None:
    step, run, place = loop.step, loop.run, loop.place
    hooks = [hook for hook in loop.hooks if not (place.rank and hook.writes)]
    place.seed(loop.seed)
    step.objective.train()
    place.note(run.info)
    run.begin(loop)
    try:
        place.begin(step)
        for hook in hooks:
            hook.begin(loop)
        after_step = [h.after_step for h in hooks if type(h).after_step is not Hook.after_step]
        after_epoch = [h.after_epoch for h in hooks if type(h).after_epoch is not Hook.after_epoch]
        checked = False
        while not loop.stop and (loop.epochs is None or loop.epoch < loop.epochs):
            if limit is not None and loop.count >= limit:
                break
            for batch in loop.batches():
                if not checked:
                    step.check(batch)
                    _choose_threads(loop, batch)
                    checked = True
                loop.current = batch
                logs = step(batch)
                loop.count += 1
                loop.position += 1
                for act in after_step:
                    act(loop, logs)
                if loop.stop or loop.count == limit:
                    break
            else:
                if loop.position == 0:
                    raise ValueError("fit: the source gave no batches")
                loop.epoch += 1
                loop.position = 0
                for act in after_epoch:
                    act(loop)
        for hook in hooks:
            hook.end(loop)
        place.end(trained=True)
    except BaseException as error:
        for optimizer in step.optimizers:
            optimizer.zero_grad()  # half a step must not leak into the next run
        told = place.told(error)
        run.failed(loop, told)
        if told is error:
            raise
        raise told from None
    finally:
        for hook in hooks:
            hook.close(loop)
        place.end(trained=False)
    run.finished(loop)
