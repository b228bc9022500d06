"""Every model crosses every method: one library for the field of deep learning, on PyTorch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from deepweave.version import __version__ as __version__

if TYPE_CHECKING:  # for editors and type checkers; at run time each is imported when first used
    from deepweave import (
        archive as archive,
        blueprint as blueprint,
        chance as chance,
        core as core,
        data as data,
        explain as explain,
        functional as functional,
        hooks as hooks,
        metrics as metrics,
        nn as nn,
        objectives as objectives,
        recipes as recipes,
        report as report,
        run as run,
        search as search,
        steps as steps,
        testing as testing,
    )
    from deepweave.core import (
        Descent as Descent,
        Hook as Hook,
        Objective as Objective,
        Population as Population,
        Step as Step,
        fit as fit,
        place as place,
    )
    from deepweave.functional import heat as heat
    from deepweave.hooks import find_lr as find_lr
    from deepweave.objectives import (
        GAN as GAN,
        IWAE as IWAE,
        SAM as SAM,
        VAE as VAE,
        VQVAE as VQVAE,
        Augment as Augment,
        Classify as Classify,
        CutMix as CutMix,
        Denoise as Denoise,
        Likelihood as Likelihood,
        MarginReconstruct as MarginReconstruct,
        Mixup as Mixup,
        NextToken as NextToken,
        Noise as Noise,
        Penalize as Penalize,
        Regress as Regress,
        ReverseKL as ReverseKL,
        Segment as Segment,
        supervise as supervise,
    )
    from deepweave.run import Run as Run, load as load
    from deepweave.search import space as space, tune as tune
    from deepweave.steps import Alternate as Alternate

_HOMES = {  # the public face: module -> the names it lends to the package
    "deepweave.core": ("Descent", "Hook", "Objective", "Population", "Step", "fit", "place"),
    "deepweave.functional": ("heat",),
    "deepweave.hooks": ("find_lr",),
    "deepweave.objectives": (
        *("Augment", "Classify", "CutMix", "Mixup", "Noise", "Penalize", "Regress", "SAM"),
        *("Denoise", "GAN", "IWAE", "Likelihood", "MarginReconstruct", "NextToken", "ReverseKL"),
        *("Segment", "VAE", "VQVAE", "supervise"),
    ),
    "deepweave.run": ("Run", "load"),
    "deepweave.search": ("space", "tune"),
    "deepweave.steps": ("Alternate",),
}
_NAMES = {name: home for home, names in _HOMES.items() for name in names}
_MODULES = (
    *("archive", "blueprint", "chance", "core", "data", "explain", "functional", "hooks"),
    *("metrics", "nn", "objectives", "recipes", "report", "run", "search", "steps", "testing"),
)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"deepweave.{name}")
    else:
        raise AttributeError(f"module 'deepweave' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*_NAMES, *_MODULES, "__version__"})
