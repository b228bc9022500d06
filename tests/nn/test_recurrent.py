from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap

import deepweave as dw
from deepweave.functional.ragged import Padded, pad, within
from deepweave.nn import GRU, LSTM, RNN
from deepweave.testing import check_model

PEERS = {"LSTM": (LSTM, nn.LSTM, {}, {}), "GRU": (GRU, nn.GRU, {}, {}),
         "RNN": (RNN, nn.RNN, {}, {}),
         "RNN, relu": (RNN, nn.RNN, {"activation": "relu"}, {"nonlinearity": "relu"})}  # fmt: skip
LENGTHS = torch.tensor([9, 1, 4, 7])


def pair(kind, layers=1, both=False, **more):
    """Our layer and torch's with the same weights, in float64."""
    torch.manual_seed(0)
    own, peer, options, theirs = PEERS[kind]
    mine = own(3, 5, layers, bidirectional=both, **options, **more).double()
    other = peer(3, 5, layers, bidirectional=both, batch_first=True, **theirs).double()
    mine.load_state_dict(other.state_dict())  # strictly: the same names and shapes
    return mine, other


def sequences(size=4, steps=9):
    torch.manual_seed(1)
    x = torch.randn(size, steps, 3, dtype=torch.float64)
    return x * within(LENGTHS, steps).unsqueeze(2)


def parts(found):
    out, state = found
    return [out, *(state if isinstance(state, tuple) else [state])]


def near(found, expected, tolerance=1e-12):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


def slopes(found, layer):
    return torch.autograd.grad(sum(one.sin().sum() for one in found), list(layer.parameters()))


@pytest.mark.parametrize("kind", PEERS)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("fused", [True, False])
def test_the_same_as_torch(kind, layers, both, fused):
    mine, other = pair(kind, layers, both, fused=fused)
    other.load_state_dict(mine.state_dict())
    x = sequences()
    state = torch.randn(layers * (2 if both else 1), 4, 5, dtype=torch.float64)
    state = (state, 0.5 * state) if kind == "LSTM" else state
    for start in (None, state):
        found, expected = parts(mine(x, start)), parts(other(x, start))
        near(found, expected)
        near(slopes(found, mine), slopes(expected, other))


@pytest.mark.parametrize("kind", PEERS)
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("fused", [True, False])
def test_ragged_is_packed(kind, both, fused):
    mine, other = pair(kind, 2, both, fused=fused)
    x = sequences()
    packed = nn.utils.rnn.pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    out, state = other(packed)
    out, _ = nn.utils.rnn.pad_packed_sequence(out, batch_first=True)
    found, expected = parts(mine(Padded(x, LENGTHS))), parts((out, state))
    near(found, expected)
    near(slopes(found, mine), slopes(expected, other))
    assert not found[0][~within(LENGTHS, 9)].any()
    # what stands in the padding is not read, and longer padding changes nothing
    noise = torch.where(within(LENGTHS, 9).unsqueeze(2), x, torch.randn_like(x))
    longer = torch.cat([noise, noise], 1)
    again = parts(mine(Padded(longer, LENGTHS)))
    near([again[0][:, :9], *again[1:]], found)


def test_ragged_in_float32_is_packed():
    """With the kernel that torch has for LSTMs in float32."""
    mine, other = pair("LSTM", 2, True)
    mine, other, x = mine.float(), other.float(), sequences().float()
    packed = nn.utils.rnn.pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    out, state = other(packed)
    out, _ = nn.utils.rnn.pad_packed_sequence(out, batch_first=True)
    near(parts(mine(Padded(x, LENGTHS))), parts((out, state)), 1e-6)


def test_layer_by_layer():
    both, _ = pair("GRU", 2, True)
    first, second = GRU(3, 5, bidirectional=True).double(), GRU(10, 5, bidirectional=True).double()
    weights = both.state_dict()
    first.load_state_dict({n: w for n, w in weights.items() if "_l0" in n})
    second.load_state_dict({n.replace("l1", "l0"): w for n, w in weights.items() if "_l1" in n})
    x = Padded(sequences(), LENGTHS)
    out, h = first(x)
    end, last = second(Padded(out, LENGTHS))
    near(parts(both(x)), [end, torch.cat([h, last])])


@pytest.mark.parametrize("options", [{"norm": True}, {"zoneout": 0.3}, {"reset": "before"}])
def test_own_equations_only(options):
    kind = GRU if "reset" in options else LSTM
    layer = kind(3, 5, 2, bidirectional=True, **options).double().eval()
    x = sequences()
    out, state = layer(Padded(x, LENGTHS))
    for i, length in enumerate(LENGTHS):  # each alone, without padding
        alone, last = layer(x[i : i + 1, :length])
        near([out[i : i + 1, :length]], [alone])
        near([one[:, i : i + 1] for one in parts((out, state))[1:]], parts((alone, last))[1:])
    with pytest.raises(ValueError, match="no fused kernel has these equations"):
        kind(3, 5, fused=True, **options)


def test_layer_norm_is_the_cell():
    layer = LSTM(3, 5, norm=True).double()
    with torch.no_grad():
        for weight in layer.parameters():
            weight.normal_()
    x = sequences()
    h = c = torch.zeros(4, 5, dtype=torch.float64)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    weights = [getattr(layer, name) for name in names]
    gains = (layer.gain_ih_l0, layer.gain_hh_l0, layer.gain_c_l0)
    for t in range(9):
        h, c = dw.functional.layer_norm_lstm_cell(x[:, t], (h, c), *weights, gains, layer.bias_c_l0)
    near([one[0] for one in layer(x)[1]], [h, c])


@pytest.mark.parametrize("kind", [LSTM, GRU, RNN])
def test_first_weights(kind):
    torch.manual_seed(0)
    layer = kind(40, 30, norm=True)
    for part in dw.functional.split_gates(layer.weight_hh_l0, layer.family).values():
        near([part @ part.T], [torch.eye(30)], 1e-5)
    bound = (6 / 70) ** 0.5
    for part in dw.functional.split_gates(layer.weight_ih_l0, layer.family).values():
        assert 0.9 * bound < part.abs().max() <= bound
    biases = dw.functional.split_gates(layer.bias_ih_l0, layer.family)
    for name, part in biases.items():
        assert (part == (name == "forget")).all()
    assert not layer.bias_hh_l0.any()
    assert (layer.gain_ih_l0 == 1).all()


@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_memory_spreads_the_spans(kind):
    torch.manual_seed(0)
    layer = kind(3, 400, memory=100)
    biases = dw.functional.split_gates(layer.bias_ih_l0, layer.family)
    keep = biases["forget" if kind is LSTM else "update"].detach()
    spans = 1 / (1 - keep.sigmoid())  # 1 + the drawn number
    assert spans.min() > 2
    assert spans.max() < 100
    assert float(spans.mean()) == pytest.approx(51, abs=4)
    if kind is LSTM:
        near([biases["input"]], [-keep])
    # with no input and no coupling a unit of span 1 + t loses 1/(1 + t) of its state a step
    with torch.no_grad():
        layer.weight_hh_l0.zero_()
        layer.weight_ih_l0.zero_()
    h = torch.ones(1, 1, 400)
    end = layer(torch.zeros(1, 1, 3), h if kind is GRU else (h, h))[1]
    end = end if kind is GRU else end[1]
    near([end[0, 0]], [1 - 1 / spans], 1e-5)


def test_torchs_weights_load_into_layers_with_rates():
    layer = LSTM(3, 5, 2, dropout=0.3, recurrent_dropout=0.2, zoneout=0.1)
    peer = nn.LSTM(3, 5, 2)
    layer.load_state_dict(peer.state_dict())  # strictly
    assert torch.equal(layer.weight_hh_l1, peer.weight_hh_l1)
    assert float(layer.drop.rate) == pytest.approx(0.3)
    other = LSTM(3, 5, 2, dropout=0.5, recurrent_dropout=0.2, zoneout=0.1)
    layer.load_state_dict(other.state_dict())
    assert float(layer.drop.rate) == 0.5, "rates that are there are taken"
    with pytest.raises(RuntimeError, match="Missing key"):
        layer.load_state_dict(nn.LSTM(3, 5, 1).state_dict())


def test_initialize_draws_gate_by_gate():
    layer = dw.nn.initialize(LSTM(40, 30), dw.functional.orthogonal)
    for part in layer.weight_hh_l0.chunk(4):
        near([part @ part.T], [torch.eye(30)], 1e-5)


def test_dropout_is_between_layers_and_only_while_training():
    layer = LSTM(3, 50, 2, dropout=0.4)
    x = torch.randn(6, 20, 3)
    plain = LSTM(3, 50, 2)
    plain.load_state_dict({n: w for n, w in layer.state_dict().items() if n != "drop.rate"})
    near(parts(layer.eval()(x)), parts(plain(x)), 1e-6)
    seen = []
    layer.drop.register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
    layer.train()(x)
    before, after = seen[0]
    assert before.shape == (6, 20, 50), "the outputs of the first layer"
    assert float((after == 0).float().mean()) == pytest.approx(0.4, abs=0.03)
    ratio = (after / before)[after != 0]
    near([ratio], [torch.full_like(ratio, 1 / 0.6)], 1e-5)
    layer = LSTM(3, 50, 1, dropout=0.4).train()
    assert torch.equal(layer(x)[0], layer(x)[0]), "one layer has nothing between"


def test_variational_dropout_has_one_mask_for_all_steps():
    layer = GRU(3, 50, 2, dropout=0.4, variational=True).train()
    seen = []
    layer._one_way = lambda x, *rest: (seen.append(x), type(layer)._one_way(layer, x, *rest))[1]
    layer(torch.randn(6, 20, 3))
    dropped = seen[1] == 0
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert 0.3 < float(dropped.float().mean()) < 0.5
    assert not torch.equal(dropped[0], dropped[1]), "but each sequence its own"


def test_recurrent_dropout_takes_weights_for_a_whole_batch():
    layer = RNN(3, 30, recurrent_dropout=0.5)
    x = torch.randn(2, 6, 3)
    torch.manual_seed(3)
    found, _ = layer.train()(x)
    torch.manual_seed(3)
    drop: Any = layer.recurrent_drop
    kept = drop(layer.weight_hh_l0)
    expected, _ = functional_call(layer.eval(), {"weight_hh_l0": kept}, (x,))
    near([found], [expected], 1e-6)
    assert 0.4 < float((kept == 0).float().mean()) < 0.6


def test_zoneout_keeps_units_as_they_were():
    layer = GRU(3, 40, zoneout=0.3).train()
    out, _ = layer(torch.randn(8, 20, 3))
    same = out[:, 1:] == out[:, :-1]
    assert float(same.float().mean()) == pytest.approx(0.3, abs=0.03)
    layer.eval()
    out, _ = layer(torch.randn(8, 20, 3))
    assert not (out[:, 1:] == out[:, :-1]).any(), "in evaluation the mean"


@pytest.mark.parametrize("kind", [LSTM, GRU, RNN])
def test_own_loop_inside_transforms(kind):
    """No fused kernel inside vmap, and the same numbers as outside."""
    torch.manual_seed(0)
    layers = [kind(3, 5, 2, bidirectional=True).double() for _ in range(3)]
    weights, buffers = stack_module_state(layers)
    x = Padded(sequences(), LENGTHS)
    found = vmap(lambda w: functional_call(layers[0], (w, buffers), (x,)))(weights)
    for i, layer in enumerate(layers):
        layer.fused = True
        near([one[i] for one in parts(found)], parts(layer(x)))


def test_a_learned_inner_step():
    """Slopes of a loss after one inner step of descent, against finite differences."""
    torch.manual_seed(0)
    net = dw.nn.lstm(((5, 3), 2), hidden=4).double()
    weights = {name: one.detach() for name, one in net.named_parameters()}
    x, y = torch.randn(2, 6, 5, 3, dtype=torch.float64), torch.randn(2, 6, 2, dtype=torch.float64)

    def loss(w, i):
        return (functional_call(net, w, (x[i],)) - y[i]).square().mean()

    def outer(w):
        inner = grad(loss)(w, 0)
        return loss({name: w[name] - 0.5 * inner[name] for name in w}, 1)

    found = grad(outer)(weights)
    for name in ("layer.weight_hh_l0", "layer.weight_ih_l0", "layer.bias_hh_l0", "head.weight"):
        step = torch.zeros_like(weights[name])
        step.view(-1)[3] = 1e-5
        up, down = (outer({**weights, name: weights[name] + s * step}) for s in (1, -1))
        assert float(found[name].view(-1)[3]) == pytest.approx(float(up - down) / 2e-5, abs=1e-8)


def test_slopes_of_slopes_by_plain_autograd():
    net = dw.nn.lstm(((5, 3), 1), hidden=4, fused=False)
    x = torch.randn(6, 5, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert all(weight.grad.abs().max() > 0 for weight in net.layer.parameters())


def test_a_population_learns_what_its_members_would_alone():
    torch.manual_seed(0)
    members = [dw.Classify(dw.nn.lstm(((8, 3), 2), hidden=8, dropout=0.0)) for _ in range(3)]
    alone = [copy.deepcopy(one) for one in members]
    x = torch.randn(64, 8, 3)
    y = (x[:, 0, 0] > 0).long()  # what the first step said
    many = dw.Population(members, optimizer="Adam", lr=0.02, shared=True)
    optimizers = [torch.optim.Adam(one.parameters(), lr=0.02) for one in alone]
    for _ in range(40):
        many((x, y))
        for one, optimizer in zip(alone, optimizers):
            optimizer.zero_grad()
            one((x, y))[0].backward()
            optimizer.step()
    losses = many.evaluate((x, y))["loss"]
    assert (losses < 0.1).all()
    near([losses], [torch.stack([one((x, y))[0] for one in alone]).detach()], 2e-3)


def test_a_population_of_rates():
    members = [
        dw.Regress(dw.nn.gru(((8, 3), 1), 16, layers=2, dropout=rate, recurrent_dropout=rate))
        for rate in (0.1, 0.8)
    ]
    many = dw.Population(members, shared=True)
    assert many.buffers["model.layer.drop.rate"].tolist() == pytest.approx([0.1, 0.8])
    many((torch.randn(4, 8, 3), torch.randn(4)))
    assert float(many.member(1).model.layer.recurrent_drop.rate) == pytest.approx(0.8)


def test_gates_over_time():
    layer, _ = pair("LSTM", 2, True)
    x = Padded(sequences(), LENGTHS)
    for depth in (0, 1):
        gates = layer.gates(x, depth)
        assert list(gates) == ["input", "forget", "output"]
        assert all(one.shape == (4, 9, 5) for one in gates.values())
    # by the cell: the first layer's cell state is f c + i g
    h = c = torch.zeros(4, 5, dtype=torch.float64)
    gates = layer.gates(x)
    weights = layer._weights("_l0")
    for t in range(2):
        a = x.values[:, t] @ weights[0].T + h @ weights[1].T + weights[2] + weights[3]
        near([gates["forget"][:, t]], [a.chunk(4, 1)[1].sigmoid()])
        h, c = dw.functional.lstm_cell(x.values[:, t], (h, c), *weights)
    assert list(GRU(3, 5).gates(torch.randn(2, 4, 3))) == ["reset", "update"]
    assert RNN(3, 5).gates(torch.randn(2, 4, 3)) == {}
    with pytest.raises(ValueError, match=r"LSTM: gates are read of layers 0..1"):
        layer.gates(x, 2)


LAYERS = {
    "rnn": lambda: dw.nn.rnn(((7, 3), 2), 6),
    "rnn, relu": lambda: dw.nn.rnn(((7, 3), 2), 6, activation="relu"),
    "lstm": lambda: dw.nn.lstm(((7, 3), 2), 6),
    "lstm, deep": lambda: dw.nn.lstm(((7, 3), 2), 6, 2, bidirectional=True, dropout=0.2),
    "lstm, norm": lambda: dw.nn.lstm(((7, 3), 2), 6, norm=True, read="max"),
    "lstm, each": lambda: dw.nn.lstm(((7, 3), 2), 6, each=True),
    "gru": lambda: dw.nn.gru(((7, 3), 2), 6),
    "gru, before": lambda: dw.nn.gru(((7, 3), 2), 6, reset="before", read="mean"),
    "gru, zoneout": lambda: dw.nn.gru(((7, 3), 2), 6, 2, zoneout=0.2, variational=True),
    "gru, weights dropped": lambda: dw.nn.gru(((7, 3), 2), 6, recurrent_dropout=0.3),
}


@pytest.mark.parametrize("name", LAYERS)
def test_contract(name):
    check_model(LAYERS[name], torch.randn(5, 7, 3))


@pytest.mark.parametrize(
    "make",
    [
        lambda: dw.nn.lstm(((6,), 3, 31), 8),
        lambda: dw.nn.gru(((6,), 3, 31), 8, each=True, embedding=4),
        lambda: dw.nn.rnn(((6,), 31, 31), 8, each=True, tied=True),
    ],
)
def test_contract_of_tokens(make):
    torch.manual_seed(0)
    check_model(make, torch.randperm(30).view(5, 6) + 1)


@pytest.mark.parametrize("read", ["last", "mean", "max"])
@pytest.mark.parametrize("both", [False, True])
def test_a_sequence_is_read_as_if_alone(read, both):
    net = dw.nn.lstm(((9, 3), 2), 5, read=read, bidirectional=both, centre=both).double()
    x = sequences()
    found = net(Padded(x, LENGTHS))
    alone = [net(x[i : i + 1, :length]) for i, length in enumerate(LENGTHS)]
    near([found], [torch.cat(alone)])


def test_centred_sequences_forget_their_level():
    net = dw.nn.gru(((9, 3), 2), 5, centre=True).double()
    x = sequences()
    level = torch.randn(4, 1, 3, dtype=torch.float64)
    for lengths in (None, LENGTHS):
        a, b = ((x, x + level) if lengths is None else
                (Padded(x, lengths), Padded(x + level, lengths)))  # fmt: skip
        near([net(a)], [net(b)])
    with pytest.raises(ValueError, match="tokens have no mean to take off"):
        dw.nn.gru(((9,), 2, 20), centre=True)


def test_noise_and_changes_of_ragged_sequences():
    x, y = Padded(sequences().float(), LENGTHS), torch.zeros(4).long()
    seen = []
    net = dw.nn.gru(((9, 3), 2), 5)
    net.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    dw.Noise(dw.Classify(net), 0.5)((x, y))
    changed = seen[0]
    assert torch.equal(changed.lengths, LENGTHS)
    assert not changed.values[~changed.mask].any()
    assert float((changed.values - x.values)[x.mask].std()) == pytest.approx(0.5, abs=0.15)
    objective = dw.Augment(dw.Classify(net), lambda v: v + 1)
    objective.check((x, y))
    objective.train()((x, y))
    near([seen[-1].values], [(x.values + 1) * x.mask.unsqueeze(2)])


def test_each_step_and_tokens():
    net: Any = dw.nn.gru(((9,), 4, 20), 5, each=True, bidirectional=True)
    rows = [torch.tensor([5, 6, 7]), torch.tensor([8])]
    found = net(pad(rows))
    assert found.shape == (2, 3, 4)
    assert not found[1, 1:].any()
    near([found[1:, :1]], [net(rows[1][None])], 1e-6)
    assert not net.embedding.weight[0].any()
    net(pad(rows)).sum().backward()
    assert not net.embedding.weight.grad[0].any(), "padding does not learn"


def test_tied_weights_are_one_tensor():
    net: Any = dw.nn.lstm(((9,), 20, 20), 5, each=True, tied=True)
    assert [n for n, _ in net.named_parameters() if "head" in n] == []
    h = net.layer(net.embedding(torch.tensor([[4, 5]])))[0]
    near([net(torch.tensor([[4, 5]]))], [h @ net.embedding.weight.T + net.bias], 1e-6)


def test_a_folder_keeps_the_vocabulary(tmp_path):
    spec = dw.data.Spec("multiclass", (9,), 4, kind="text", vocabulary=20)
    net = dw.nn.lstm(spec, 5)
    again = dw.blueprint.build(dw.blueprint.describe(net))
    again.load_state_dict(net.state_dict())
    x = torch.tensor([[5, 19, 0]])
    near([again(x)], [net(x)], 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LSTM(3, 5)(torch.zeros(2, 0, 3)), r"LSTM: sequences must be .* at least one step"),
        (lambda: dw.nn.lstm(((9, 3), 2))(torch.zeros(2, 0, 3)), r"lstm: sequences .* one step"),
        (lambda: GRU(3, 5)(torch.zeros(2, 4, 7)), r"GRU: sequences must be \(B, T, 3\), got"),
        (lambda: GRU(3, 5)(torch.zeros(4, 3)), r"GRU: sequences must be \(B, T, 3\), got \(4, 3\)"),
        (lambda: RNN(3, 5)(Padded(torch.zeros(2, 4, 3), torch.tensor([0, 4]))),
         r"RNN: lengths must lie in 1..4, got 0..4"),
        (lambda: RNN(3, 5)(Padded(torch.zeros(2, 4, 3), torch.tensor([1, 5]))),
         r"RNN: lengths must lie in 1..4, got 1..5"),
        (lambda: LSTM(3, 5)(torch.zeros(2, 4, 3), torch.zeros(1, 2, 5)),
         r"LSTM: state must be \(h, c\), each \(1, 2, 5\), got \(1, 2, 5\)"),
        (lambda: GRU(3, 5, 2)(torch.zeros(2, 4, 3), torch.zeros(1, 2, 5)),
         r"GRU: state must be \(2, 2, 5\), got \(1, 2, 5\)"),
        (lambda: dw.nn.lstm(((9,), 2, 10))(torch.tensor([[3, 10]])),
         r"embedding: tokens must lie in 0..9, got 3..10"),
        (lambda: dw.nn.lstm(((9,), 2, 10))(torch.zeros(2, 9)),
         r"embedding: tokens must be \(B, T\) of int64, got torch.float32 \(2, 9\)"),
        (lambda: dw.nn.lstm((9, 2)), r"lstm: a sequence must be \(T, F\), or \(T,\) with a"),
        (lambda: dw.nn.gru(((9, 3), 2, 10)), r"gru: a sequence must be \(T,\) of tokens"),
        (lambda: dw.nn.rnn(((9, 3), 2), read="first"), "read must be one of last, mean, max"),
        (lambda: dw.nn.lstm(((9,), 20, 21), 5, tied=True), "tied weights need as many outputs"),
        (lambda: LSTM(3, 0), "LSTM: hidden must be at least 1, got 0"),
        (lambda: LSTM(3, 5, dropout=1.0), r"LSTM: dropout must lie in \[0, 1\), got 1.0"),
        (lambda: GRU(3, 5, zoneout=-0.1), r"GRU: zoneout must lie in \[0, 1\), got -0.1"),
        (lambda: LSTM(3, 5, memory=2), "LSTM: memory must be at least 3 steps, got 2"),
        (lambda: GRU(3, 5, reset="none"), "GRU: reset must be after or before, got 'none'"),
        (lambda: RNN(3, 5, activation="gelu"), "RNN: activation must be tanh or relu, got 'gelu'"),
    ],
)  # fmt: skip
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_an_objective_refuses_in_one_line():
    net = dw.Classify(dw.nn.lstm(((9, 3), 2)))
    with pytest.raises(ValueError, match=r"LSTM: sequences must be \(B, T, 3\), got \(4, 9, 2\)"):
        net.check((torch.zeros(4, 9, 2), torch.zeros(4).long()))
