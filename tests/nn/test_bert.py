"""BERT: the formula written out, official names, and the published weights of MiniLM."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import deepweave as dw
from deepweave.functional.ragged import Padded, pad
from deepweave.nn.bert import official
from deepweave.testing.models import check_model

DRAW = torch.Generator().manual_seed(0)
TOKENS = torch.randint(1, 11, (3, 7), generator=DRAW)
SIZES = ((7,), 3, 11)
RAGGED = Padded(TOKENS * (torch.arange(7) < torch.tensor([[7], [4], [1]])), torch.tensor([7, 4, 1]))


def published(layers=2, features=8, vocabulary=11, positions=9, kinds=2, pooler=True):
    """Weights as a file of Hugging Face has them, by its names, of numbers that all matter."""
    draw = torch.Generator().manual_seed(1)

    def dense(out, inputs):
        return torch.randn(out, inputs, generator=draw) / math.sqrt(inputs)

    made = {
        "embeddings.position_ids": torch.arange(positions)[None],
        "embeddings.word_embeddings.weight": dense(vocabulary, features),
        "embeddings.position_embeddings.weight": dense(positions, features),
        "embeddings.token_type_embeddings.weight": dense(kinds, features),
    }
    norms, denses = ["embeddings.LayerNorm"], {"pooler.dense": (features, features)}
    for place in range(layers):
        ahead = f"encoder.layer.{place}."
        for part in ("query", "key", "value"):
            denses[f"{ahead}attention.self.{part}"] = (features, features)
        denses[f"{ahead}attention.output.dense"] = (features, features)
        denses[f"{ahead}intermediate.dense"] = (4 * features, features)
        denses[f"{ahead}output.dense"] = (features, 4 * features)
        norms += [f"{ahead}attention.output.LayerNorm", f"{ahead}output.LayerNorm"]
    for name, shape in denses.items():
        if pooler or name != "pooler.dense":
            made[f"{name}.weight"] = dense(*shape)
            made[f"{name}.bias"] = 0.3 * torch.randn(shape[0], generator=draw)
    for name in norms:
        made[f"{name}.weight"] = 1 + 0.3 * torch.randn(features, generator=draw)
        made[f"{name}.bias"] = 0.3 * torch.randn(features, generator=draw)
    return made


def written_out(w, tokens, lengths, heads, kinds=None, layers=2):
    """BERT's hidden states by the formulas of the paper, one text after the other, unpadded."""

    def norm(x, name):
        away = x - x.mean(-1, keepdim=True)
        scaled = away / (away.square().mean(-1, keepdim=True) + 1e-12).sqrt()
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    states = []
    for row, length in enumerate(lengths):
        kind = torch.zeros(length, dtype=torch.long) if kinds is None else kinds[row, :length]
        x = w["embeddings.word_embeddings.weight"][tokens[row, :length]]
        x = x + w["embeddings.position_embeddings.weight"][:length]
        x = norm(x + w["embeddings.token_type_embeddings.weight"][kind], "embeddings.LayerNorm")
        for place in range(layers):
            ahead = f"encoder.layer.{place}."
            q, k, v = (
                dense(x, f"{ahead}attention.self.{part}").chunk(heads, -1)
                for part in ("query", "key", "value")
            )
            width = x.shape[-1] // heads
            seen = [torch.softmax(a @ b.T / math.sqrt(width), -1) @ c for a, b, c in zip(q, k, v)]
            mixed = dense(torch.cat(seen, -1), f"{ahead}attention.output.dense")
            x = norm(x + mixed, f"{ahead}attention.output.LayerNorm")
            inner = dense(x, f"{ahead}intermediate.dense")
            inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))  # the exact GELU
            x = norm(x + dense(inner, f"{ahead}output.dense"), f"{ahead}output.LayerNorm")
        states.append(x)
    return states


def adopted(**options):
    made = dw.nn.bert(SIZES, 8, 2, heads=options.pop("heads", 2), positions=9, **options)
    return made.adopt(published()).eval()


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_hidden_states_are_the_formula(heads):
    """With padding, and with two texts in one sequence, which the kinds tell apart."""
    kinds = (torch.arange(7) > 2).long().expand(3, 7)
    net = adopted(heads=heads, readout=None, head=False)
    for two in (None, kinds):
        wanted = written_out(published(), TOKENS, (7, 4, 1), heads, two)
        found = net(RAGGED, two)
        for row, states in enumerate(wanted):
            assert torch.allclose(found[row, : len(states)], states, atol=2e-6)
    plain, told = net(TOKENS), net(TOKENS, kinds)
    assert torch.allclose(net(TOKENS, torch.zeros_like(kinds)), plain, atol=1e-6)
    assert not torch.allclose(told, plain, atol=1e-2)


def test_readouts_are_over_real_tokens():
    states = written_out(published(), TOKENS, (7, 4, 1), 2)
    w = published()
    wanted = {
        "mean": torch.stack([one.mean(0) for one in states]),
        "max": torch.stack([one.amax(0) for one in states]),
        "first": torch.stack([one[0] for one in states]),
    }
    pooled = wanted["first"] @ w["pooler.dense.weight"].T + w["pooler.dense.bias"]
    wanted["pooled"] = pooled.tanh()
    for readout, rows in wanted.items():
        net = adopted(readout=readout)
        assert torch.allclose(net.features(RAGGED), rows, atol=2e-6), readout
        assert torch.allclose(net(RAGGED), net.head(net.features(RAGGED)), atol=1e-6)
        assert net(RAGGED).shape == (3, 3)
        bare = adopted(readout=readout, head=False)
        assert torch.equal(bare(RAGGED), net.features(RAGGED))


def test_what_lies_beyond_a_text_does_not_matter():
    net = adopted()
    other = RAGGED.values.clone()
    other[1, 4:] = 5
    assert torch.allclose(net(Padded(other, RAGGED.lengths)), net(RAGGED), atol=1e-6)
    assert torch.allclose(net(TOKENS[1:2, :4]), net(RAGGED)[1:2], atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: dw.nn.bert(SIZES, 8, 2, heads=2),
        lambda: dw.nn.bert(SIZES, 8, 1, heads=2, readout="pooled", activation="relu", hidden=5),
        lambda: dw.nn.bert(SIZES, 8, 1, heads=2, readout="first", positions=7, kinds=1),
        lambda: dw.nn.bert(SIZES, 8, 1, heads=4, readout=None, head=False, dropout=0.0),
    ],
)
def test_contract_of_tokens(make):
    check_model(make, TOKENS)


def test_dropout_only_while_training():
    net = adopted(dropout=0.5)
    assert torch.equal(net(TOKENS), net(TOKENS))
    net.train()
    assert not torch.equal(net(TOKENS), net(TOKENS))


def test_weights_of_attention_are_shown():
    net, seen = adopted(), []
    net(RAGGED, seen=seen)
    assert [one.shape for one in seen] == [(3, 2, 7, 7)] * 2
    assert torch.allclose(seen[0].sum(-1), torch.ones(3, 2, 7))
    assert not seen[1][1, :, :, 4:].any()


def test_older_and_longer_names_are_read_too():
    plain = official(published())
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for name, value in published().items()
    }
    long = {f"bert.{name}": value for name, value in published().items()}
    long |= {"cls.predictions.bias": torch.zeros(11)}
    for other in (old, long):
        found = official(other)
        assert found.keys() == plain.keys()
        assert all(torch.equal(found[name], plain[name]) for name in plain)


def test_adopting_leaves_the_head_and_takes_all_else():
    torch.manual_seed(0)
    net = dw.nn.bert(SIZES, 8, 2, heads=2, positions=9, dropout=0.2)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    source = published()
    assert net.adopt(source) is net
    after = net.state_dict()
    kept = {name for name in before if torch.equal(before[name], after[name])}
    assert kept == {n for n in before if n.startswith("head.") or n.endswith(".rate")}
    source["embeddings.word_embeddings.weight"].zero_()  # its own copy
    assert after["embedding.tokens.weight"].any()


def without(name):
    held = published()
    del held[name]
    return held


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: adopted(readout="last"), "readout must be one of mean, max, first, pooled or"),
        (lambda: dw.nn.bert(((600,), 2, 9)), "texts of 600 tokens need as many positions, got 512"),
        (lambda: dw.nn.bert(((3, 4, 4), 2)), "sizes must be of tokens"),
        (lambda: dw.nn.bert(SIZES, 8, 0, heads=2), "at least 1, got 512, 2, 0"),
        (lambda: dw.nn.minilm(((7, 2), 3)), "minilm: sizes must be of tokens"),
        (lambda: adopted()(TOKENS, TOKENS[:, :5]), r"kinds must be .* = \(3, 7\), got \(3, 5\)"),
        (lambda: adopted()(TOKENS.repeat(1, 2)), "9 tokens at most, got 14"),
        (
            lambda: adopted().adopt({**published(), "encoder.layer.0.extra.weight": TOKENS}),
            "a BERT has no 'encoder.layer.0.extra.weight'",
        ),
        (
            lambda: adopted().adopt(published(layers=3)),
            r"the weights have stack.blocks.2.attention.out.bias and 11 more, for which",
        ),
        (
            lambda: adopted().adopt(published(layers=1)),
            "the weights lack stack.blocks.1.attention.out.bias and 11 more",
        ),
        (
            lambda: adopted().adopt(without("encoder.layer.1.output.dense.bias")),
            "the weights lack stack.blocks.1.forward_net.out.bias$",
        ),
        (
            lambda: adopted().adopt(without("encoder.layer.1.attention.self.key.bias")),
            "made of query, key and value, got query, value",
        ),
        (
            lambda: adopted(readout="pooled").adopt(published(pooler=False)),
            "the weights lack pool.bias and 1 more",
        ),
        (
            lambda: adopted().adopt(published(vocabulary=12)),
            r"embedding.tokens.weight must be \(11, 8\), got \(12, 8\)",
        ),
    ],
)
def test_refusals(act, said):
    with pytest.raises(ValueError, match=said):
        act()


def test_weights_that_do_not_fit_change_nothing():
    net = adopted()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ValueError, match="must be"):
        net.adopt({**published(), "pooler.dense.bias": torch.ones(8),
                   "encoder.layer.1.output.dense.bias": torch.zeros(9)})  # fmt: skip
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


# --- the published weights, which `make .venv/ready` fetches ---

# transformers 5.24.0, torch 2.13.0: AutoModel and AutoTokenizer of the package's folder, padding
# to the longest of the four; the mean of last_hidden_state over the attention mask
SENTENCES = [
    "I love this movie, it's great!",
    "A dull, lifeless film .",
    "It is neither good nor bad, and it goes on for ever, scene after scene, until the "
    "unbelievably contrived ending.",
    "naïve café 日本",
]
IDS = [101, 1045, 2293, 2023, 3185, 1010, 2009, 1005, 1055, 2307, 999, 102]
MEANS = torch.tensor(
    [
        [-0.346840, 0.082033, -0.134079, 0.073973],
        [-0.115726, -0.168780, -0.066606, 0.202541],
        [-0.119623, 0.036086, 0.013020, -0.059551],
        [-0.135332, 0.131017, 0.236186, -0.075508],
    ]
)
COSINES = torch.tensor(
    [
        [1.000000, 0.279639, 0.413735, 0.060340],
        [0.279639, 1.000000, 0.393972, 0.134542],
        [0.413735, 0.393972, 1.000000, 0.041157],
        [0.060340, 0.134542, 0.041157, 1.000000],
    ]
)
POOLED = torch.tensor(
    [
        [-0.049872, 0.024538, 0.040224, 0.048940],
        [-0.021604, 0.014023, -0.007676, 0.039959],
        [-0.002240, 0.009905, 0.046493, 0.045096],
        [-0.009802, -0.045746, -0.032819, 0.067023],
    ]
)
# "a good film" and "yes it is" as two texts: the first state's first numbers
PAIR = [101, 1037, 2204, 2143, 102, 2748, 2009, 2003, 102]
TWO = torch.tensor([-0.124729, -0.123331, 0.164468, -0.292846])


def test_minilm_gives_what_transformers_gives():
    data = dw.data.load((SENTENCES * 6, ["a", "b"] * 12), tokens="minilm")
    rows = data.preparation.inputs(SENTENCES)
    x = rows.take(torch.arange(4))
    assert x.values[0, :12].tolist() == IDS
    assert x.lengths.tolist() == [12, 8, 32, 6]
    weights = dw.data.weights("minilm")
    assert len(weights) == 104
    net = dw.nn.minilm(data.spec, head=False).adopt(weights).eval()
    pooled = dw.nn.minilm(data.spec, head=False, readout="pooled").adopt(weights).eval()
    states = dw.nn.minilm(data.spec, head=False, readout=None).adopt(weights).eval()
    kinds = (torch.arange(9) > 4).long()[None]
    with torch.no_grad():
        found = net(x)
        unit = F.normalize(found, dim=1)
        assert torch.allclose(found[:, :4], MEANS, atol=1e-5)
        assert torch.allclose(unit @ unit.T, COSINES, atol=1e-5)
        assert torch.allclose(pooled(x)[:, :4], POOLED, atol=1e-5)
        assert torch.allclose(states(torch.tensor([PAIR]), kinds)[0, 0, :4], TWO, atol=1e-5)


def test_texts_of_different_lengths_are_one_batch_or_several():
    net = adopted()
    many = [TOKENS[0], TOKENS[1, :4], TOKENS[2, :1]]
    alone = torch.cat([net(one[None]) for one in many])
    assert torch.allclose(net(pad(many)), alone, atol=1e-6)
