"""What comes of a run: its description, its scores, its saved model. The torch half of ``Run``."""

from __future__ import annotations

import functools
import platform
import resource
import sys
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save as to_bytes
from torch import Tensor, nn

from deepweave import blueprint
from deepweave.run import Run, read_info, write_whole
from deepweave.version import __version__

if TYPE_CHECKING:
    from deepweave.core import Loop

WORST = 24  # test errors kept for the page
SAMPLES = 40  # training samples kept for the page


def describe(run: Run, loop: Loop) -> None:
    """Note what is about to be trained, on what, and by which versions."""
    model, step = loop.model, loop.step
    sizes = [w.numel() * w.element_size() for w in model.parameters()]
    info = run.info
    info.setdefault("started", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    info.setdefault("settings", {})
    info["seed"] = loop.seed
    info["device"] = str(loop.device)
    info["threads"] = torch.get_num_threads()
    info["versions"] = {
        "deepweave": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if "numpy" in sys.modules:
        info["versions"]["numpy"] = sys.modules["numpy"].__version__
    info["objective"] = type(step.objective).__name__
    inside = import_module("deepweave.core").innermost(step.objective)
    if hasattr(inside, "sample") or hasattr(inside, "judge"):
        info["generative"] = type(inside).__name__
    loss = _loss(step.objective)
    if loss is not None:
        info["loss"] = loss
    if step.members is not None:
        info["members"] = step.members
    optimizers = [_plainly(one) for one in step.optimizers]
    rates = getattr(step, "rates", None)
    if rates is not None:  # a population's own: the optimizer itself runs at 1
        optimizers[0] |= {"lr": None, "lr_low": float(rates.min()), "lr_high": float(rates.max())}
    info["optimizer"] = optimizers[0] if optimizers else {}
    if len(optimizers) > 1:
        info["optimizers"] = optimizers
    info["hooks"] = [type(hook).__name__ for hook in loop.hooks]
    info["model"] = {
        "blueprint": blueprint.describe(model),
        "name": type(model).__name__,
        "parameters": sum(w.numel() for w in model.parameters()),
        "bytes": sum(sizes),
        "text": str(model),
    }
    if run.data is not None and hasattr(run.data, "summary"):
        info["data"] = run.data.summary()


def _loss(objective: Any) -> dict[str, Any] | None:
    """A loss other than the objective's own, so that a folder can make the objective again."""
    loss = getattr(import_module("deepweave.core").innermost(objective), "loss", None)
    if loss is None:
        return None
    made, options = getattr(loss, "func", loss), dict(getattr(loss, "keywords", {}))
    name = getattr(made, "__name__", "")
    known = getattr(import_module("deepweave.functional"), name, None) is made
    plain = all(isinstance(v, int | float | str | list | tuple) for v in options.values())
    return {"name": name, "with": options} if known and plain else {"name": None}


def _plainly(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What one wants to know of an optimizer: its name, and the numbers that matter."""
    shown = ("lr", "momentum", "nesterov", "betas", "alpha", "eps", "weight_decay")
    kept = {k: optimizer.defaults[k] for k in shown if k in optimizer.defaults}
    return {"name": type(optimizer).__name__, **kept}


def close(run: Run, loop: Loop) -> None:
    """Note how it went, and save the bare model."""
    info = run.info
    info["steps"], info["epochs"] = loop.count, loop.epoch
    info["seconds"] = round(loop.seconds, 3)
    info["steps_per_second"] = round(loop.count / max(loop.seconds, 1e-9), 1)
    info["stopped"] = run.stopped
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    info["peak_memory_mb"] = round(peak / (1024 if sys.platform == "linux" else 1024**2), 1)
    if run.folder is None:
        return
    save_model(run.model, run.folder / "model.safetensors")
    if run.data is not None and hasattr(run.data, "preparation"):
        json = import_module("json")
        text = json.dumps(run.data.preparation.to_json(), ensure_ascii=False)
        write_whole(run.folder / "preparation.json", text)


def save_model(model: nn.Module, path: Path) -> None:
    """The weights and buffers of a model as plain safetensors; tied weights are stored once."""
    kept: dict[str, Tensor] = {}
    seen: set[tuple[Any, ...]] = set()
    for name, value in model.state_dict().items():
        key = (value.untyped_storage().data_ptr(), value.storage_offset(), tuple(value.shape))
        if value.numel() and key in seen:
            continue
        seen.add(key)
        kept[name] = value.detach().cpu().contiguous().clone()
    write_whole(path, to_bytes(kept, {"format": "pt"}))


def load(folder: str | Path, model: nn.Module | None = None) -> nn.Module:
    """See :func:`deepweave.load`."""
    info = read_info(folder)
    path = Path(folder) / "model.safetensors"
    if not path.is_file():
        status = info.get("status", "unknown")
        raise FileNotFoundError(
            f"load: {folder} has no trained model (status: {status}); deepweave resume {folder}"
        )
    if model is None:
        note = info.get("model", {}).get("blueprint")
        if note is None:
            kind = info.get("model", {}).get("name", "its model")
            raise ValueError(f"load: {kind} was not made by deepweave: pass load(..., model=...)")
        model = blueprint.build(note)
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"load: {path} is damaged: {error}") from None
    own = model.state_dict()
    for name, value in weights.items():
        if name not in own:
            raise ValueError(f"load: {path} has {name}, which {type(model).__name__} has not")
        if own[name].shape != value.shape:
            raise ValueError(
                f"load: {name} must be {tuple(own[name].shape)}, got {tuple(value.shape)} in {path}"
            )
    model.load_state_dict(weights, strict=False)
    filled = {own[name].data_ptr() for name in weights}
    left = [n for n, v in own.items() if n not in weights and v.data_ptr() not in filled]
    if left:
        raise ValueError(f"load: {path} lacks {', '.join(left)}")
    return model.eval()


def revive(folder: str | Path) -> Run:
    """A run read back from its folder, its model loaded and its method in place."""
    if kind := read_info(folder).get("generative"):
        raise ValueError(f"predict: {folder} was trained without labels ({kind}): it has no "
                         "answers to give; load its model with deepweave.load")  # fmt: skip
    model = load(folder)
    data, run = import_module("deepweave.data"), Run(folder)
    path = run.folder / "preparation.json"  # pyright: ignore[reportOptionalOperand]
    if not path.is_file():
        raise FileNotFoundError(f"predict: {folder} was not trained on a data set: no {path.name}")
    try:
        record = import_module("json").loads(path.read_text(encoding="utf-8"))
        preparation = data.Preparation.from_json(record)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"predict: {path} is damaged: {error!r}") from None
    run.data = SimpleNamespace(spec=preparation.spec, preparation=preparation)
    objectives = import_module("deepweave.objectives")
    options: dict[str, Any] = {}
    if run.info.get("loss"):
        made = run.info["loss"]
        loss = getattr(import_module("deepweave.functional"), str(made.get("name")), None)
        if loss is None:
            raise ValueError(
                f"predict: {folder} was trained with a loss of its own, which a folder cannot "
                "keep: load the model with deepweave.load and read its outputs"
            )
        options["loss"] = functools.partial(loss, **made.get("with", {}))
    run.step = _Rested(objectives.supervise(model, preparation.spec, **options))
    return run


class _Rested:
    """In place of a step, for a run that is only read."""

    def __init__(self, objective: Any):
        self.objective = objective

    def chosen(self) -> Any:
        return self.objective


def predict(run: Run, x: Any, size: int = 1024) -> Tensor:
    """Predictions in slices, on the model's device, back on the CPU, in the target's unit."""
    move, cut = import_module("deepweave.core").move, import_module("deepweave.data.rows").slices
    objective = run.objective
    was = objective.training
    objective.eval()
    device = next((w.device for w in objective.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad():
            parts = [objective.predict(move(part, device)).cpu() for part in cut(x, size)]
    finally:
        objective.train(was)
    prediction = torch.cat(parts)
    restore: Any = getattr(getattr(run.data, "preparation", None), "restore", None)
    return prediction if restore is None else restore(prediction)


def test(run: Run) -> dict[str, Any]:
    """See :meth:`deepweave.run.Run.test`."""
    data = run.data
    if data is None:
        raise ValueError("test: this run was fitted on bare batches: there is no test set")
    metrics = import_module("deepweave.metrics")
    task = data.spec.task
    inside = import_module("deepweave.core").innermost(run.objective)
    if hasattr(inside, "judge") or hasattr(inside, "sample"):  # without labels
        scores, baseline = import_module("deepweave.judging").judged(run, inside)
        if run.folder is not None:
            _keep_samples(run, run.folder)
    elif task == "tokens":
        written = import_module("deepweave.writing")
        scores, baseline = written.scores(run.objective, data.test), written.baseline(data)
        run.info["baseline_name"] = "token frequencies"
    else:
        prediction = predict(run, data.test.x)
        target, known = _targets(data, "test"), _targets(data, "train")
        scores = metrics.evaluate(task, prediction, target, weight=data.test.weight)
        baseline = metrics.baseline(task, known, target, weight=data.test.weight)
        run.info["baseline_name"] = "the mean" if task == "regression" else "class frequencies"
        if run.folder is not None:
            _keep_examples(run, run.folder, prediction, target)
    run.info["scores"] = {f"test/{name}": score.to_json() for name, score in scores.items()}
    run.info["baseline"] = {f"test/{name}": score.to_json() for name, score in baseline.items()}
    run.save()
    return {f"test/{name}": score for name, score in scores.items()}


def rival(run: Run, name: str, prediction: Any) -> None:
    """Score another method's predictions of the same test set, shown beside the run's own."""
    scores = prediction
    if not isinstance(prediction, dict):
        metrics = import_module("deepweave.metrics")
        scores = metrics.evaluate(run.data.spec.task, prediction, _targets(run.data, "test"))
    rivals = run.info.setdefault("rivals", {})
    rivals[name] = {f"test/{key}": score.to_json() for key, score in scores.items()}
    run.save()


def _targets(data: Any, split: str) -> Tensor:
    """Targets in the form that metrics take: in the original unit."""
    y = getattr(data, split).y
    return data.preparation.restore(y) if data.spec.task == "regression" else y


def _keep_examples(run: Run, folder: Path, prediction: Tensor, target: Tensor) -> None:
    """What the page draws: the predictions, some training samples, the worst errors."""
    data = run.data
    tensors = {"prediction": prediction.contiguous(), "target": target.contiguous()}
    write_whole(folder / "test.safetensors", to_bytes(tensors))
    some_rows = import_module("deepweave.data.rows").some
    worst = badness(data.spec.task, prediction, target).argsort(descending=True)[:WORST]
    some = _some(data)
    first = _first_of_each(target) if data.spec.task in ("binary", "multiclass") else slice(0, 10)
    examples = {
        "test_y": target[first],
        "test_prediction": prediction[first],
        "test_index": torch.arange(len(target))[first],
        "train_y": _targets(data, "train")[some],
        "worst_y": target[worst],
        "worst_prediction": prediction[worst],
        "worst_index": worst,
    }
    shown = {
        "test_x": some_rows(data.test.x, first),
        "train_x": some_rows(data.train.x, some),
        "worst_x": some_rows(data.test.x, worst),
    }
    tell = getattr(data.preparation.features, "tell", None)
    if all(isinstance(rows, Tensor) for rows in shown.values()):
        examples |= shown
    elif tell is not None:  # texts go into run.json, for the page to show
        every = {name: rows.take(torch.arange(len(rows))) for name, rows in shown.items()}
        run.info["texts"] = {
            name: [tell(row[:length]) for row, length in zip(*(part.tolist() for part in batch))]
            for name, batch in every.items()
        }
    plain = {name: value.cpu().contiguous().clone() for name, value in examples.items()}
    write_whole(folder / "examples.safetensors", to_bytes(plain))


def _keep_samples(run: Run, folder: Path) -> None:
    """What the page draws of a run without labels: some training samples."""
    some, rows = _some(run.data), import_module("deepweave.data.rows").some
    kept = {"train_x": rows(run.data.train.x, some), "train_y": _targets(run.data, "train")[some]}
    if isinstance(kept["train_x"], Tensor):
        plain = {name: value.cpu().contiguous().clone() for name, value in kept.items()}
        write_whole(folder / "examples.safetensors", to_bytes(plain))


def _first_of_each(target: Tensor, most: int = 10) -> Tensor:
    """The first sample of each class, in the order of classes: chosen without a look at it."""
    classes = target.unique()[:most]
    return (target[:, None] == classes).int().argmax(0)


def _some(data: Any) -> Tensor:
    """A few training samples of every class, or the first ones."""
    y = data.train.y
    if data.spec.task not in ("binary", "multiclass"):
        return torch.arange(min(SAMPLES, len(y)))
    classes = max(int(y.max()) + 1, 2)
    each = max(1, SAMPLES // classes)
    order = torch.argsort(y, stable=True)
    counts = torch.bincount(y, minlength=classes)
    rank = torch.arange(len(y)) - (counts.cumsum(0) - counts)[y[order]]
    return order[rank < each][: 2 * SAMPLES]


def badness(task: str, prediction: Tensor, target: Tensor) -> Tensor:
    """The loss of each test sample, by which the worst errors are chosen.

    Shapes: prediction (N, ...), target (N, ...) -> (N,)
    """
    tiny = 1e-12
    if task == "multiclass":
        return -prediction.gather(1, target[:, None]).squeeze(1).clamp_min(tiny).log()
    if task == "regression":
        return (
            (prediction - target).abs().flatten(1).sum(1)
            if target.dim() > 1
            else (prediction - target).abs()
        )
    if task == "segmentation" and prediction.dim() == target.dim() + 1:
        prediction = prediction.gather(1, target[:, None]).squeeze(1)
        return -prediction.clamp_min(tiny).log().flatten(1).mean(1)
    y = target.to(prediction.dtype)
    loss = -(
        y * prediction.clamp_min(tiny).log() + (1 - y) * (1 - prediction).clamp_min(tiny).log()
    )
    return loss.flatten(1).mean(1) if loss.dim() > 1 else loss


def predict_file(folder: str | Path, source: str, out: str | Path) -> int:
    """Read new data, prepare it as the run's training data, and write predictions.

    Raises:
        FileNotFoundError, ValueError: no run, no data, or data that do not fit.
    """
    out = Path(out)
    if out.suffix not in (".csv", ".npz"):
        raise ValueError(f"predict: out must end in .csv or .npz, got {out.name}")
    if not out.resolve().parent.is_dir():
        raise FileNotFoundError(f"predict: there is no folder {out.resolve().parent}")
    run = revive(folder)
    if run.data.spec.task == "tokens":
        raise ValueError(
            "predict: this model writes: "
            f"deepweave.nn.generate(deepweave.load({str(folder)!r}), ...)"
        )
    if run.data.spec.task == "segmentation" and out.suffix == ".csv":
        raise ValueError(f"predict: masks go into a .npz, got {out.name}")
    data = import_module("deepweave.data")
    x, _, names = data.read(source, run.data.preparation)
    prediction = predict(run, x).double()
    spec = run.data.spec
    columns: dict[str, Any] = {"id": list(names)}
    if spec.task == "segmentation":
        columns["prediction"] = prediction.float().numpy()
    elif spec.task == "regression":
        flat = prediction.reshape(len(x), -1)
        columns |= {name: flat[:, i].numpy() for i, name in enumerate(spec.targets)}
    else:
        classes = list(spec.classes) or [str(i) for i in range(spec.outputs)]
        if spec.task == "binary":
            prediction = torch.stack([1 - prediction, prediction], 1)
        if spec.task in ("binary", "multiclass"):
            columns["prediction"] = [classes[i] for i in prediction.argmax(1).tolist()]
        columns |= {f"p({name})": prediction[:, i].numpy() for i, name in enumerate(classes)}
    if out.suffix == ".csv":
        pandas = import_module("pandas")
        write_whole(out, pandas.DataFrame(columns).to_csv(index=False))
    else:
        numpy, io = import_module("numpy"), import_module("io")
        buffer = io.BytesIO()
        numpy.savez_compressed(buffer, **{k: numpy.asarray(v) for k, v in columns.items()})
        write_whole(out, buffer.getvalue())
    return len(x)
