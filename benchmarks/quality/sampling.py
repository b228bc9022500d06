"""Few network calls against many, diffusers' schedulers on the same network, and pairs of noise.

A U-Net learns digits (the recipe's default form, three seeds). Of each network as many samples as
there are images that were not learnt from, without guidance, by:

- the default sampler, 10 steps of DPM-Solver++, and 50 steps of Euler;
- diffusers' EDM schedulers (the continuous noise levels that the network was trained on):
  ``EDMDPMSolverMultistepScheduler`` with 10 steps, ``EDMEulerScheduler`` with 50.

All begin with the same noise, and end on the levels of the data. What counts is MMD^2 in pixels
against real images, how often a classifier tells samples from real ones (one half: it cannot), both
beside real against real; and the time of one sampling, side by side.

Pairs: optimal transport of a batch of two-dimensional points, beside torchcfm (POT underneath).

    OMP_NUM_THREADS=1 PYTHONPATH=src python -m benchmarks.quality.sampling
"""

from __future__ import annotations

import argparse
import importlib
from functools import partial
from typing import Any

import torch

import deepweave as dw
from benchmarks import harness
from deepweave.metrics.generative import compare, mmd


def learnt(seed: int, epochs: int) -> tuple[dw.Denoise, Any]:
    """The network of the recipe's default form."""
    table = dw.data.load("digits", seed=seed)
    dw.chance.seed_all(seed)
    net = dw.nn.unet(table.spec, (32, 64), classes=10)
    noise = dw.functional.Schedule(lowest=0.00625, data=float(table.train.x.std()))
    method = dw.Denoise(net, noise, classes=10, levels=17)
    hooks = [dw.hooks.Schedule(dw.hooks.one_cycle), dw.hooks.Clip(norm=1.0), dw.hooks.Average(0.99),
             dw.hooks.Validate(table.validation, restore=False)]  # fmt: skip
    step = dw.Descent(method, "AdamW", lr=0.004, weight_decay=0.01)
    run = dw.fit(step, table, epochs=epochs, batch=64, seed=seed, hooks=hooks)
    return run.objective.eval(), table


def own(method: dw.Denoise, y: torch.Tensor, sampler: str, steps: int, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    return method.sample(len(y), y, sampler=sampler, steps=steps, clip=(0.0, 1.0))


def theirs(
    method: dw.Denoise, y: torch.Tensor, kind: str, steps: int, seed: int, spacing: str = "karras"
) -> torch.Tensor:
    """diffusers' loop as its documentation writes it: scale, predict, step."""
    diffusers = importlib.import_module("diffusers")
    s = method.schedule
    scheduler = getattr(diffusers, kind)(
        sigma_min=s.lowest, sigma_max=s.highest, sigma_data=s.data, sigma_schedule=spacing
    )
    scheduler.set_timesteps(steps)
    told = torch.nn.functional.one_hot(y, 10).float()
    torch.manual_seed(seed)
    x = torch.randn(len(y), 1, 8, 8) * s.highest
    with torch.no_grad():
        for t in scheduler.timesteps:
            inputs = scheduler.scale_model_input(x, t)
            # its preconditioning and its time, log(s) / 4, are those of the balanced target
            found = method.model(inputs, t.expand(len(y)), told)
            x = scheduler.step(found, t, x).prev_sample
    return ((x + 0.5).clamp(0, 1) * 16).round() / 16  # as deepweave's: on the levels of the data


def main() -> None:
    """Three networks, four ways to sample; then pairs."""
    options = argparse.ArgumentParser()
    options.add_argument("--quick", action="store_true")
    quick = options.parse_args().quick
    seeds, epochs = (1, 3) if quick else (3, 50)
    quality: dict[str, dict[str, list[float]]] = {}
    times: dict[str, Any] = {}
    for seed in range(seeds):
        method, table = learnt(seed, epochs)
        x = torch.cat([table.validation.x, table.test.x])
        y = torch.cat([table.validation.y, table.test.y])
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
        half = len(x) // 2
        real, other, told = x[order[:half]], x[order[half : 2 * half]], y[order[half : 2 * half]]
        ways: dict[str, Any] = {
            "deepweave": partial(own, method, told, "dpm", 10, seed),
            "deepweave, 50 Euler": partial(own, method, told, "euler", 50, seed),
            "diffusers, 10 DPM-Solver++": partial(
                theirs, method, told, "EDMDPMSolverMultistepScheduler", 10, seed
            ),
            "diffusers, 50 Euler": partial(theirs, method, told, "EDMEulerScheduler", 50, seed),
        }
        made = {name: call() for name, call in ways.items()}
        made["real images"] = other
        for name, samples in made.items():
            row = quality.setdefault(name, {"mmd2": [], "c2st": []})
            row["mmd2"].append(float(mmd(samples, real, confidence=None, permutations=0)))
            row["c2st"].append(float(compare(samples, real, other)["c2st"][0]))
        print(seed, quality, flush=True)
        if seed == 0:
            times = harness.compare(ways, rounds=3 if quick else 7)
            print(harness.table(times, 1e3, "ms"), flush=True)
    results = {
        "quality": {
            name: {k: [float(f"{v:.3g}") for v in values] for k, values in row.items()}
            for name, row in quality.items()
        },
        "time": times,
        "pairing": pairing(),
    }
    if not quick:
        command = "OMP_NUM_THREADS=1 PYTHONPATH=src python -m benchmarks.quality.sampling"
        harness.save("sampling", results, command=command)


def pairing() -> dict[str, Any]:
    """Pairs of noise and data for batches of 128, 256, 512, beside torchcfm."""
    plan = importlib.import_module("torchcfm.optimal_transport").OTPlanSampler(method="exact")
    found: dict[str, Any] = {}
    for batch in (128, 256, 512):
        torch.manual_seed(0)
        x, noise = torch.rand(batch, 64), torch.randn(batch, 64)
        ways = {
            "deepweave": lambda x=x, noise=noise: dw.functional.pair(x, noise),
            "torchcfm": lambda x=x, noise=noise: plan.sample_plan(noise, x),
        }
        found[f"batch {batch}"] = harness.compare(ways, rounds=11, repeats=3)
        print(batch, harness.table(found[f"batch {batch}"]), flush=True)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
