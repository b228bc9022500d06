from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import deepweave as dw
from deepweave.hooks import Clip, Diagnose, Guard, Validate
from deepweave.hooks.gradients import advise


def batch(n: int = 32, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def network(*hidden: int, activation: str = "relu") -> nn.Module:
    torch.manual_seed(0)
    return dw.nn.mlp((4, 3), hidden=hidden, activation=activation)


class Slopes(dw.Hook):
    """The gradients that the optimizer uses, noted behind every other hook."""

    def __init__(self) -> None:
        self.seen: list[list[torch.Tensor]] = []

    def begin(self, loop):
        optimizer = loop.step.optimizers[0]

        def note(*_):
            weights = (w for group in optimizer.param_groups for w in group["params"])
            self.seen.append([w.grad.clone() for w in weights])

        optimizer.register_step_pre_hook(note)


class LateSlopes(Slopes, dw.hooks.Checkpoint):
    """Sorted behind Clip, as a checkpoint is."""

    def __init__(self):
        Slopes.__init__(self)

    def begin(self, loop):
        Slopes.begin(self, loop)

    def after_step(self, loop, logs): ...
    def end(self, loop): ...


def slopes(step: dw.Step, *hooks: dw.Hook, steps: int = 3) -> list[list[torch.Tensor]]:
    seen = LateSlopes()
    dw.fit(step, [batch()], steps=steps, hooks=[*hooks, seen])
    return seen.seen


# --- Clip -----------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [1e-3, 0.1, 1e3])
def test_clip_by_norm_as_torch_does(norm):
    (raw,) = slopes(dw.Descent(dw.Classify(network(8)), "SGD", lr=0.0), steps=1)
    (clipped,) = slopes(dw.Descent(dw.Classify(network(8)), "SGD", lr=0.0), Clip(norm), steps=1)
    weights = [nn.Parameter(torch.zeros_like(g)) for g in raw]
    for weight, grad in zip(weights, raw):
        weight.grad = grad
    nn.utils.clip_grad_norm_(weights, norm)
    for grad, weight in zip(clipped, weights):
        torch.testing.assert_close(grad, weight.grad)
    if norm == 1e3:
        assert all(torch.equal(a, b) for a, b in zip(raw, clipped)), "small slopes stay as they are"


def test_clip_by_value():
    (raw,) = slopes(dw.Descent(dw.Classify(network(8)), "SGD", lr=0.0), steps=1)
    step = dw.Descent(dw.Classify(network(8)), "SGD", lr=0.0)
    (clipped,) = slopes(step, Clip(value=0.01), steps=1)
    for grad, before in zip(clipped, raw):
        assert torch.equal(grad, before.clamp(-0.01, 0.01))


class Scaled(nn.Module):
    """A model with a parameter that is one number."""

    def __init__(self):
        super().__init__()
        self.inner, self.scale = nn.Linear(4, 3), nn.Parameter(torch.tensor(30.0))

    def forward(self, x):
        return self.scale * self.inner(x)


@pytest.mark.parametrize("make", [lambda: network(8), Scaled])
def test_clip_is_for_each_member_by_itself(make):
    torch.manual_seed(0)
    members = [dw.Classify(make()) for _ in range(3)]
    with torch.no_grad():
        for factor, member in zip((0.01, 1.0, 20.0), members):
            for weight in member.parameters():
                weight.mul_(factor)
    (together,) = slopes(dw.Population(members, optimizer="SGD", lr=0.0, shared=True), Clip(0.3),
                         steps=1)  # fmt: skip
    for i, member in enumerate(members):
        (alone,) = slopes(dw.Descent(member, "SGD", lr=0.0), Clip(0.3), steps=1)
        for one, many in zip(alone, together):
            torch.testing.assert_close(many[i], one, rtol=1e-4, atol=1e-6)


def test_clip_by_value_of_each_member():
    members = [dw.Classify(network(8)) for _ in range(2)]
    with torch.no_grad():
        for weight in members[1].parameters():
            weight.mul_(20.0)
    many = dw.Population(copy.deepcopy(members), optimizer="SGD", lr=0.0, shared=True)
    (together,) = slopes(many, Clip(value=0.01), steps=1)
    for i, member in enumerate(members):
        (alone,) = slopes(dw.Descent(member, "SGD", lr=0.0), Clip(value=0.01), steps=1)
        for one, all_of_them in zip(alone, together):
            torch.testing.assert_close(all_of_them[i], one, rtol=1e-4, atol=1e-6)


def test_clip_is_gone_after_the_run_and_after_an_error():
    step = dw.Descent(dw.Classify(network(8)), "SGD", lr=0.0)
    dw.fit(step, [batch()], steps=1, hooks=[Clip(1e-6)])

    class Fault(dw.Hook):
        def after_step(self, loop, logs):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        dw.fit(step, [batch()], steps=1, hooks=[Clip(1e-6), Fault()])
    assert not step.optimizer._optimizer_step_pre_hooks
    (raw,) = slopes(step, steps=1)
    assert max(float(g.norm()) for g in raw) > 1e-3


@pytest.mark.parametrize(
    "options", [{}, {"norm": 1.0, "value": 1.0}, {"norm": 0.0}, {"value": -1.0}]
)
def test_clip_refusals(options):
    with pytest.raises(ValueError, match="Clip: give a positive norm or a positive value"):
        Clip(**options)


# --- Guard ----------------------------------------------------------------------------------


def guarded(step: dw.Step, batches: list, match: str) -> None:
    """The run stops with the message, and the weights are those before the bad step."""
    before: dict[str, torch.Tensor] = {}

    class Keep(dw.Hook):
        def after_step(self, loop, logs):
            before.update({n: v.detach().clone() for n, v in loop.step.weights().items()})

    with pytest.raises(FloatingPointError, match=match):
        dw.fit(step, batches, epochs=9, hooks=[Keep()])
    for name, value in step.weights().items():
        assert torch.equal(value, before[name]), f"{name} was changed by the bad step"
        assert value.isfinite().all()
    kept = [w.grad for o in step.optimizers for g in o.param_groups for w in g["params"]]
    assert all(grad is None or grad.isfinite().all() for grad in kept), "nothing bad stays behind"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["inputs", "targets"])
def test_a_number_that_is_none_in_the_middle_of_the_data(bad, part):
    x, y = batch()
    y = y.float()
    batches = [(x, y)] * 5
    spoiled = (x.clone(), y.clone())
    spoiled[0 if part == "inputs" else 1].view(-1)[3] = bad
    batches[3] = spoiled
    step = dw.Descent(dw.Regress(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 1))), lr=1e-3)
    guarded(step, batches, rf"fit: step 4: the batch has 1 number in its {part} not finite: clean")


def test_a_weight_of_a_sample_that_is_none():
    x, y = batch()
    bad = torch.ones(32)
    bad[0] = torch.nan
    step = dw.Descent(dw.Classify(network(5)), lr=1e-3)
    guarded(step, [(x, y, torch.ones(32)), (x, y, bad)], "step 2: .*1 number in its weights")


class Overflow(nn.Module):
    """Gives numbers that are not finite from its third batch on."""

    def __init__(self, where: str):
        super().__init__()
        self.where, self.calls = where, 0

    def forward(self, x):
        self.calls += self.training
        if self.calls < 3:
            return x
        if self.where == "layer":
            return x * 1e38 * 1e38
        # finite forwards, but the slope of the root at 0 is not
        return x + ((x - x.detach()).square().sum() + 0.0).sqrt()


def test_the_layer_that_overflows_is_named():
    net = nn.Sequential(nn.Linear(4, 5), Overflow("layer"), nn.Linear(5, 3))
    told = r"step 3: model.1 \(Overflow\) gave .*: take a lower learning rate, or Clip"
    guarded(dw.Descent(dw.Classify(net), lr=1e-3), [batch()], told)


def test_the_slope_that_overflows_is_named():
    net = nn.Sequential(nn.Linear(4, 5), Overflow("slope"), nn.Linear(5, 3))
    guarded(dw.Descent(dw.Classify(net), lr=1e-3), [batch()],
            r"step 3: the gradient of model.0.weight is not finite: take Clip")  # fmt: skip


class Blowup(dw.Regress):
    """A term of the loss that leaves the numbers."""

    def forward(self, batch):
        loss, _ = super().forward(batch)
        term = (self.model.weight.sum() * 0 + 200.0).exp()
        return loss + term, {"term": term.detach()}


def test_the_term_of_the_loss_is_named():
    step = dw.Descent(Blowup(nn.Linear(4, 1)), lr=1e-3)
    x, y = batch()
    with pytest.raises(FloatingPointError, match="step 1: the term 'loss' is inf"):
        dw.fit(step, [(x, y.float())], epochs=1)


def test_an_exploding_run_is_stopped_with_advice():
    x, y = batch()
    step = dw.Descent(dw.Regress(network(16, 16)[:-1].append(nn.Linear(16, 1))), "SGD", lr=1e3)
    guarded(step, [(x, y.float())], "take a lower learning rate|take Clip")


def test_a_member_that_blows_up_stands_still_and_the_others_learn_on():
    x, y = batch()
    rates = [1e-3, 1e30, 1e-3, 1e30]
    nets = [nn.Linear(4, 1) for _ in rates]
    alone = dw.Descent(dw.Regress(copy.deepcopy(nets[2])), "SGD", lr=1e-3)
    step = dw.Population([dw.Regress(net) for net in nets], 4, "SGD", lr=rates, shared=True)
    run = dw.fit(step, [(x, y.float())], epochs=9, hooks=[Validate([(x, y.float())])])
    assert run.info["failed_members"] == [1, 3]
    assert step.best in (0, 2)
    dw.fit(alone, [(x, y.float())], epochs=9)
    for name, value in alone.weights().items():
        torch.testing.assert_close(step.weights()[name][2], value)


def test_a_population_of_which_every_member_failed_is_stopped():
    x, y = batch()
    step = dw.Population(dw.Regress(nn.Linear(4, 1)), 2, "SGD", lr=[1e30, 1e30], shared=True)
    with pytest.raises(FloatingPointError, match=r"the gradient of .* \(members \[0, 1\]\)"):
        dw.fit(step, [(x, y.float())], epochs=9)
    bad = x.clone()
    bad[0, 0] = torch.nan
    step = dw.Population(dw.Regress(nn.Linear(4, 1)), 2, "SGD", shared=True, lr=0.1)
    with pytest.raises(FloatingPointError, match="step 2: the batch has 1 number in its inputs"):
        dw.fit(step, [(x, y.float()), (bad, y.float())], epochs=1)


def test_a_guard_of_ones_own_takes_the_place_of_the_default():
    guard = Guard()
    step = dw.Descent(dw.Regress(nn.Linear(4, 1)), lr=1e-3)
    x, y = batch()
    found = []

    class Look(dw.Hook):
        def begin(self, loop):
            found.extend(hook for hook in loop.hooks if isinstance(hook, Guard))

    dw.fit(step, [(x, y.float())], epochs=1, hooks=[guard, Look()])
    assert found == [guard]


# --- Diagnose -------------------------------------------------------------------------------


def diagnosed(net: nn.Module, *hooks: dw.Hook, lr: float = 1e-3, steps: int = 60) -> dw.Run:
    step = dw.Descent(dw.Classify(net), "Adam", lr=lr)
    return dw.fit(step, [batch()], steps=steps, hooks=[Diagnose(every=10), *hooks])


def test_a_deep_sigmoid_net_vanishes():
    run = diagnosed(network(*[16] * 12, activation="sigmoid"), steps=20)
    (advice,) = run.info["advice"]
    assert advice.startswith("Gradients vanish: layer 0 gets")
    assert "ReLU-like" in advice


class Quiet(nn.Module):
    """A block whose last layer starts at zeros, beside a shortcut: nothing passes it at first."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 16), nn.Linear(16, 4)
        nn.init.zeros_(self.last.weight)

    def forward(self, x):
        return x + self.last(torch.relu(self.first(x)))


@pytest.mark.parametrize("steps", [1, 2, 12, 60])
def test_layers_behind_one_that_starts_at_zeros_do_not_vanish(steps):
    torch.manual_seed(0)
    net = nn.Sequential(Quiet(), Quiet(), nn.Linear(4, 3))
    step = dw.Descent(dw.Classify(net), "Adam", lr=1e-3)
    run = dw.fit(step, [batch()], steps=steps, hooks=[Diagnose()])
    assert run.info["advice"] == ["Gradients and activations look healthy."]
    slope = {row["layer"]: row["gradient_norm"] for row in run.info["diagnostics"]}
    assert (slope["0.first"] > 0) == (steps > 1)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_deep_sigmoid_net_vanishes_in_few_steps_too(steps):
    net = network(*[16] * 12, activation="sigmoid")
    run = dw.fit(dw.Descent(dw.Classify(net)), [batch()], steps=steps, hooks=[Diagnose()])
    assert run.info["advice"][0].startswith("Gradients vanish: layer 0 gets")


def test_a_flow_and_a_unet_that_start_as_nothing_are_healthy():
    torch.manual_seed(0)
    x = torch.rand(16, 1, 8, 8)
    flow = dw.Likelihood(dw.nn.spline_flow(4, layers=2, hidden=(8,)))
    noise = dw.Denoise(dw.nn.unet(((1, 8, 8), 1), (8, 16)))
    for objective, data in ((flow, x.flatten(1)[:, :4]), (noise, x)):
        run = dw.fit(objective, [data], steps=6, hooks=[Diagnose()])
        assert run.info["advice"] == ["Gradients and activations look healthy."]


def test_the_norms_are_means_over_steps_after_the_first():
    """Of each optimizer by its own count: a side that moves every third step is measured too."""
    sizes = ((2,), 1)
    gan = dw.GAN(dw.nn.decoder(sizes, 2, (4,)), dw.nn.discriminator(sizes, (4,)))
    step = dw.Alternate(gan, lr=1e-2, ratio=3)
    seen = []

    class Keep(dw.Hook):
        def begin(self, loop):
            weight = gan.generator.get_parameter(names[0])
            loop.step.optimizers[1].register_step_pre_hook(
                lambda *_: seen.append(float(weight.grad.norm()))
            )

    names = [name for name, w in gan.generator.named_parameters() if w.dim() > 1]
    run = dw.fit(step, [torch.randn(8, 2)], steps=21, hooks=[Diagnose(every=5), Keep()])
    rows = [r for r in run.info["diagnostics"] if r["layer"].startswith("generator")]
    assert len(rows) == len(names)
    assert len(seen) == 7
    wanted = sum(seen[i] for i in (1, 2, 4, 5)) / 4
    assert rows[0]["gradient_norm"] == pytest.approx(wanted, rel=1e-5)


def test_a_healthy_net_is_called_healthy():
    run = diagnosed(network(16, 16))
    assert run.info["advice"] == ["Gradients and activations look healthy."]
    assert [row["layer"] for row in run.info["diagnostics"]] == ["0", "2", "4"]


def test_dead_units_are_counted():
    net = network(20)
    with torch.no_grad():
        net[0].bias[:15] = -1e3
    run = diagnosed(net)
    row = run.info["diagnostics"][0]
    assert row["dead"] == pytest.approx(0.75)
    assert any("75 % of the units after layer 0 are dead" in line for line in run.info["advice"])


def test_a_share_of_zero_is_no_dead_unit():
    """A generator's black border: a sigmoid far below zero is 0 to the last digit."""
    net = nn.Sequential(nn.Linear(4, 8), nn.Sigmoid(), nn.Linear(8, 3))
    with torch.no_grad():
        net[0].bias[:6] = -1e3
    run = diagnosed(net)
    assert run.info["diagnostics"][0]["dead"] == 0
    assert not any("dead" in line for line in run.info["advice"])


def test_exploding_slopes_are_said_also_when_they_are_clipped():
    class Steep(nn.Module):
        def forward(self, x):
            return 1e5 * x

    net = nn.Sequential(nn.Linear(4, 8), Steep(), nn.Linear(8, 3))
    for hooks in ([], [Clip(1.0)]):
        run = diagnosed(net, *hooks, steps=5)
        assert run.info["advice"][0].startswith("Gradients explode: ")


def test_the_numbers_are_those_of_the_net():
    net = network(8)
    step = dw.Descent(dw.Classify(net), "SGD", lr=0.0)
    run = dw.fit(step, [batch()], steps=4, hooks=[Diagnose(every=1)])
    loss, _ = dw.Classify(net)(batch())
    grads = torch.autograd.grad(loss, [net[0].weight, net[2].weight])
    hidden = net[:2](batch()[0]).detach()
    first, second = run.info["diagnostics"]
    assert first["gradient_norm"] == pytest.approx(float(grads[0].norm()), rel=1e-4)
    assert second["gradient_norm"] == pytest.approx(float(grads[1].norm()), rel=1e-4)
    assert first["weight_norm"] == pytest.approx(float(net[0].weight.detach().norm()), rel=1e-5)
    assert first["activation_std"] == pytest.approx(float(hidden.std()), rel=1e-4)
    assert first["dead"] == pytest.approx(float((hidden == 0).all(0).float().mean()))


def test_a_population_is_not_diagnosed_and_training_is_not_disturbed():
    step = dw.Population(dw.Classify(network(8)), 2, lr=1e-2, shared=True)
    run = dw.fit(step, [batch()], steps=2, hooks=[Diagnose()])
    assert "advice" not in run.info
    plain = dw.fit(dw.Descent(dw.Classify(network(8)), lr=1e-2), [batch()], steps=9)
    watched = dw.fit(dw.Descent(dw.Classify(network(8)), lr=1e-2), [batch()], steps=9,
                     hooks=[Diagnose(every=1)])  # fmt: skip
    for name, value in plain.step.weights().items():
        assert torch.equal(value, watched.step.weights()[name])


def test_advice_without_layers():
    assert advise([]) == ["Gradients and activations look healthy."]


def test_both_sides_of_a_gan_are_diagnosed():
    sizes = ((2,), 1)
    gan = dw.GAN(dw.nn.decoder(sizes, 2, (4,)), dw.nn.discriminator(sizes, (4,)))
    run = dw.fit(dw.Alternate(gan), [torch.randn(8, 2)], steps=4, hooks=[Diagnose(every=1)])
    layers = {row["layer"].split(".")[0] for row in run.info["diagnostics"]}
    assert layers == {"generator", "discriminator"}
    assert all(row["gradient_norm"] > 0 for row in run.info["diagnostics"])
