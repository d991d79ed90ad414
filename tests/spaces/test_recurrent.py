"""The recurrent cell of NAO: sizes as published, equations by hand, one form for equal cells, dropout."""

from __future__ import annotations

from random import Random

import pytest
import torch
from raynas.spaces.recurrent import (
    DECISIONS,
    canonical_form,
    from_sequence,
    graph,
    recurrent,
    recurrent_small,
    to_sequence,
)

from raynas.architecture import sample, size
from raynas.costs.counter import Costs
from raynas.nn.choice import decisions
from raynas.nn.subnet import derive

FOUND = "0 1 0 1 1 1 3 0 4 1 4 1 5 1 1 1 7 1 1 1 1 2"  # by NAO on Penn Treebank
FUNCTIONS = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid, "identity": lambda x: x}


def test_eleven_nodes_of_four_activations() -> None:
    assert size(DECISIONS) == 39_916_800 * 4**11 == pytest.approx(1.7e14, rel=0.02)
    with torch.device("meta"):
        assert decisions(recurrent(10, 4)) == DECISIONS
    assert " ".join(map(str, to_sequence(from_sequence(FOUND)))) == FOUND
    assert len(graph(from_sequence(FOUND))) == 22
    assert from_sequence(FOUND)["cell.11.activation"] == "identity"  # 2 of tanh, relu, identity, sigmoid
    with pytest.raises(ValueError, match="node 1 has 1 and 1: legal are 0 to 0 and 0 to 3"):
        from_sequence("1" + FOUND[1:])
    with pytest.raises(ValueError, match="expected 22"):
        from_sequence("0 1")


@pytest.mark.parametrize(
    ("words", "units", "parameters"),
    [(10_000, 850, 27_295_000), (33_278, 700, 36_067_878)],  # published: 27 M on Penn Treebank, 36 M on WikiText-2
)
def test_published_sizes(words: int, units: int, parameters: int) -> None:
    with torch.device("meta"):
        network = derive(recurrent(words, units), from_sequence(FOUND))
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert parameters == words * units + words + 2 * units * 2 * units + 11 * units * 2 * units


def test_a_cell_computes_what_its_equations_say() -> None:
    torch.manual_seed(0)
    architecture = sample(DECISIONS, Random(0))
    network = derive(recurrent(7, 3), architecture).eval()
    words = torch.randint(7, (2, 4))
    logits, state = network(words)
    h = torch.zeros(2, 3)
    for t in range(4):
        x = network.embedding.weight[words[:, t]]
        c, v = (x @ network.inputs.weight.T + h @ network.hidden.weight.T).split(3, dim=1)
        states = [h + torch.sigmoid(c) * (torch.tanh(v) - h)]
        for node in range(1, 12):
            before = states[int(architecture.get(f"cell.{node}.input", "0"))]
            c, v = (before @ network.nodes[node - 1].linear.weight.T).split(3, dim=1)
            value = FUNCTIONS[architecture[f"cell.{node}.activation"]](v)
            states.append(before + torch.sigmoid(c) * (value - before))
        h = sum(states[1:]) / 11
        torch.testing.assert_close(logits[:, t], h @ network.embedding.weight.T + network.bias)
    torch.testing.assert_close(state, h)


def test_a_text_may_be_read_in_parts_or_word_by_word() -> None:
    torch.manual_seed(0)
    network = derive(recurrent(9, 4), from_sequence(FOUND)).eval()
    words = torch.randint(9, (3, 6))
    whole, state = network(words)
    first, carried = network(words[:, :2])
    rest, last = network(words[:, 2:], carried)
    torch.testing.assert_close(torch.cat([first, rest], dim=1), whole)
    torch.testing.assert_close(last, state)
    carried = torch.zeros(3, 4)
    for t in range(6):
        logits, carried = network.word(words[:, t], carried)
        torch.testing.assert_close(logits, whole[:, t])


def renumbered(architecture: dict[str, str], rng: Random) -> dict[str, str]:
    """The same cell with its nodes in another order."""
    source = {node: int(architecture.get(f"cell.{node}.input", "0")) for node in range(1, 12)}
    number = {0: 0}
    while len(number) < 12:
        number[rng.choice([n for n in source if n not in number and source[n] in number])] = len(number)
    result = {f"cell.{number[n]}.input": str(number[source[n]]) for n in source}
    result |= {f"cell.{number[n]}.activation": architecture[f"cell.{n}.activation"] for n in source}
    return {name: result[name] for name in DECISIONS}


def test_nodes_in_another_order_have_the_same_form() -> None:
    rng = Random(0)
    changed = 0
    for _ in range(50):
        architecture = sample(DECISIONS, rng)
        form = canonical_form(architecture)
        assert canonical_form(form) == form
        other = renumbered(architecture, rng)
        assert canonical_form(other) == form
        changed += other != architecture
        name = f"cell.{rng.randint(1, 11)}.activation"
        assert canonical_form({**architecture, name: "relu"}) != canonical_form({**architecture, name: "tanh"})
    assert changed > 40
    # A chain of eleven has one order; of eleven side by side all orders are the same.
    chain = from_sequence(" ".join(f"{node} 0" for node in range(11)))
    assert canonical_form(chain) == chain
    star = [canonical_form(from_sequence(" ".join(f"0 {a}" for a in acts))) for acts in ("10000000000", "00000000001")]
    assert star[0] == star[1]


def test_weights_belong_to_a_node_what_it_reads_and_the_activation() -> None:
    space = recurrent(5, 2)
    base = from_sequence("0 0 " * 11)

    def weight(changes: dict[str, str], node: int) -> int:
        return derive(space, base | changes).nodes[node - 1].linear.weight.data_ptr()

    assert weight({}, 5) == weight({"cell.4.input": "1"}, 5)
    assert len({weight({}, 5), weight({"cell.5.input": "1"}, 5), weight({"cell.5.activation": "relu"}, 5)}) == 3


def test_costs_are_those_of_one_word() -> None:
    with torch.device("meta"):
        costs = Costs(recurrent(20, 4), (torch.zeros(1, 1, dtype=torch.int64),))
    found = costs(from_sequence(FOUND))
    assert costs.additive and found["macs"] == 2 * 4 * 8 + 11 * 4 * 8 + 4 * 20
    assert found["parameters"] == 20 * 4 + 20 + 13 * 4 * 8 and costs.classes() == 20


def test_dropout_is_the_same_over_a_sequence() -> None:
    none = dict.fromkeys(("output", "hidden", "inputs", "embedded", "words"), 0.0)
    torch.manual_seed(0)
    network = derive(recurrent(8, 8, none | {"output": 0.5}), from_sequence(FOUND))
    words = torch.randint(8, (2, 5))
    with torch.no_grad():
        network.embedding.weight.copy_(torch.eye(8))  # so that the logits are what the decoder sees
        logits, _, told = network.train()(words)
    masks = logits / told
    assert torch.allclose(masks, masks[:, :1].expand_as(masks)) and {0.0, 2.0} == set(masks.round().flatten().tolist())


@pytest.mark.parametrize("name", ["output", "hidden", "inputs", "embedded", "words"])
def test_every_dropout_acts_in_training_alone(name: str) -> None:
    none = dict.fromkeys(("output", "hidden", "inputs", "embedded", "words"), 0.0)
    network = derive(recurrent(8, 8, none | {name: 0.5}), from_sequence(FOUND))
    words = torch.randint(8, (2, 5))
    network.train()
    torch.manual_seed(2)
    first, second = network(words)[0], network(words)[0]
    torch.manual_seed(2)
    assert torch.equal(network(words)[0], first) and not torch.equal(first, second)
    network.eval()
    assert torch.equal(network(words)[0], network(words)[0])


@pytest.mark.parametrize("make", [recurrent, recurrent_small])
@pytest.mark.parametrize(
    ("dropout", "message"),
    [
        ({"hidden": 1.0}, r"hidden is 1\.0; legal: from 0 to below 1"),
        ({"hiden": 0.1}, "no 'hiden'; legal ones: output, hidden"),
    ],
)
def test_a_dropout_that_cannot_be_is_refused(make, dropout, message) -> None:
    with pytest.raises(ValueError, match=message):
        make(9, 4, dropout)
