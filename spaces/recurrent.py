"""The recurrent cell of NAO and ENAS in a language model: eleven nodes, each of which changes one of those before it.

Luo et al., "Neural Architecture Optimization", NeurIPS 2018; Pham et al., "Efficient Neural Architecture Search via
Parameter Sharing", ICML 2018. A node reads one earlier node and has one of four activations: 1.7e14 architectures. The
weights of a supernet belong to a node, the node that it reads, and the activation, as in NAO-WS; its size is that of
the paper's supernet. On Penn Treebank a found cell is trained with ``units=850``, on WikiText-2 with ``units=700,
dropout={"hidden": 0.15}``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raynas.nn.choice import Choice

__all__ = [
    "DECISIONS",
    "Dropout",
    "Recurrent",
    "canonical_form",
    "choose",
    "from_sequence",
    "graph",
    "recurrent",
    "recurrent_small",
    "to_sequence",
]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "identity": nn.Identity,
    "sigmoid": nn.Sigmoid,
}
"""In the order in which NAO numbers them."""
NODES = range(1, 12)
"""Node 0 is made of the word and the state before it."""


def _decisions() -> Iterator[tuple[str, tuple[str, ...]]]:
    for node in NODES:
        if node > 1:  # node 1 has no other input than 0
            yield f"cell.{node}.input", tuple(map(str, range(node)))
        yield f"cell.{node}.activation", tuple(ACTIVATIONS)


DECISIONS: dict[str, tuple[str, ...]] = dict(_decisions())


def _read(architecture: Mapping[str, str]) -> dict[int, tuple[int, str]]:
    """The node that each node reads, and its activation."""
    return {
        node: (int(architecture.get(f"cell.{node}.input", "0")), architecture[f"cell.{node}.activation"])
        for node in NODES
    }


def _write(nodes: Mapping[int, tuple[int, str]]) -> dict[str, str]:
    """The inverse of :func:`_read`."""
    architecture = {}
    for node, (source, activation) in nodes.items():
        if node > 1:
            architecture[f"cell.{node}.input"] = str(source)
        architecture[f"cell.{node}.activation"] = activation
    return architecture


def choose(architecture: Mapping[str, str]) -> dict[str, str]:
    """The option of every Choice in the network: ``{"cell.1": "tanh_0", ...}``."""
    return {f"cell.{node}": f"{activation}_{source}" for node, (source, activation) in _read(architecture).items()}


def canonical_form(architecture: Mapping[str, str]) -> dict[str, str]:
    """One form for the architectures that are the same network: all nodes are averaged, their numbers do not matter.

    The nodes are a tree. They are numbered from its root, a node before what reads it, and what reads the same node in
    the order of the activations and of what follows. Under shared weights every network gets one set of weights by
    sampling canonical forms alone.
    """
    nodes, order = _read(architecture), tuple(ACTIVATIONS)
    readers: dict[int, list[tuple[int, list[object]]]] = {node: [] for node in (0, *NODES)}
    for node in reversed(NODES):  # whatever reads a node comes after it
        source, activation = nodes[node]
        readers[source].append((order.index(activation), sorted(readers[node])))
    form: dict[int, tuple[int, str]] = {}

    def number(source: int, below: Sequence[object]) -> None:
        for activation, further in sorted(below):  # type: ignore[type-var,misc]
            node = len(form) + 1
            form[node] = source, order[activation]
            number(node, further)

    number(0, readers[0])
    return _write(form)


def graph(architecture: Mapping[str, str]) -> list[tuple[int, int, str | None]]:
    """The cell as edges between its nodes, with the activations; see :data:`raynas.architecture.Graph`."""
    nodes = _read(architecture)
    output = len(NODES) + 1
    return [(source, node, activation) for node, (source, activation) in nodes.items()] + [
        (node, output, None) for node in nodes
    ]


def to_sequence(architecture: Mapping[str, str]) -> list[int]:
    """The notation of NAO: for each node what it reads and the number of its activation."""
    order = tuple(ACTIVATIONS)
    return [n for source, activation in _read(architecture).values() for n in (source, order.index(activation))]


def from_sequence(sequence: Sequence[int] | str) -> dict[str, str]:
    """The architecture of 22 numbers, as a list or as text; the inverse of :func:`to_sequence`.

    Raises:
        ValueError: Not 22 numbers, or one that is too large for its place.
    """
    numbers = [int(word) for word in sequence.split()] if isinstance(sequence, str) else list(sequence)
    if len(numbers) != 2 * len(NODES):
        raise ValueError(f"the sequence has {len(numbers)} numbers: expected {2 * len(NODES)}")
    order = tuple(ACTIVATIONS)
    for node, source, activation in zip(NODES, numbers[::2], numbers[1::2], strict=True):
        if not (0 <= source < node and 0 <= activation < len(order)):
            raise ValueError(f"node {node} has {source} and {activation}: legal are 0 to {node - 1} and 0 to 3")
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return _write({node: (source, order[number]) for node, (source, number) in zip(NODES, pairs, strict=True)})


@dataclass(frozen=True)
class Dropout:
    """Shares that are left out in training, each the same for all words of a sequence (Gal and Ghahramani, 2016).

    Raises:
        ValueError: A share that is none.
    """

    output: float = 0.75
    """Of the cell's output, as the decoder sees it."""
    hidden: float = 0.25
    """Of the state and the nodes, as the cell sees them."""
    inputs: float = 0.75
    """Of the embedded words, as the cell sees them..."""
    embedded: float = 0.2
    """...and before that."""
    words: float = 0.0
    """Of the words of the vocabulary, as a whole."""

    def __post_init__(self) -> None:
        for name, share in vars(self).items():
            if not isinstance(share, (int, float)) or not 0 <= share < 1:
                raise ValueError(f"dropout: {name} is {share!r}; legal: from 0 to below 1")


def _mask(like: Tensor, share: float) -> Tensor:
    """Zeros in this share of the places, what keeps the expectation in the others."""
    return torch.empty_like(like).bernoulli_(1 - share).div_(1 - share)


def _highway(state: Tensor, gate_and_value: Tensor, activation: nn.Module) -> Tensor:
    """Go from a state to a new value as far as the gate says. Maps [N, units] and [N, 2 * units] to [N, units]."""
    gate, value = gate_and_value.chunk(2, dim=-1)
    return state + torch.sigmoid(gate) * (activation(value) - state)


class Node(nn.Module):
    """One of the options of a node. Maps the states before it, [N, units] each, and their dropout to one more."""

    def __init__(self, source: int, activation: str, units: int) -> None:
        super().__init__()
        self.source = source
        self.linear = nn.Linear(units, 2 * units, bias=False)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, states: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        state = states[self.source]
        return _highway(state, self.linear(state if mask is None else state * mask), self.activation)


class Recurrent(nn.Module):
    """Embedding, cell, decoder with the weights of the embedding.

    Maps words [N, T] and the state [N, units] that the words before them left, None at the beginning of a text, to the
    logits of the next words, [N, T, num_classes], and a state. In training the states after each word, [N, T, units],
    come third.
    """

    searched = DECISIONS
    choose = staticmethod(choose)

    def __init__(self, num_classes: int, units: int, dropout: Dropout) -> None:
        super().__init__()
        self.units, self.share = units, dropout
        self.embedding = nn.Embedding(num_classes, units)
        self.inputs = nn.Linear(units, 2 * units, bias=False)
        self.hidden = nn.Linear(units, 2 * units, bias=False)
        self.first = nn.Tanh()
        self.nodes = nn.ModuleList(
            Choice(
                {f"{a}_{source}": Node(source, a, units) for source in range(node) for a in ACTIVATIONS},
                decision=f"cell.{node}",
            )
            for node in NODES
        )
        self.bias = nn.Parameter(torch.zeros(num_classes))
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.uniform_(parameter, -0.04, 0.04)

    def forward(self, words: Tensor, state: Tensor | None = None) -> tuple[Tensor, ...]:
        if state is None:
            state = self.embedding.weight.new_zeros(words.shape[0], self.units)
        x, mask = self._embedded(words), None
        if self.training:
            x = x * _mask(x[:, :1], self.share.inputs)
            mask = _mask(state, self.share.hidden)
        states = []
        for entered in self.inputs(x).unbind(1):
            state = self._step(entered, state, mask)
            states.append(state)
        told = torch.stack(states, dim=1)
        seen = told * _mask(told[:, :1], self.share.output) if self.training else told
        logits = F.linear(seen, self.embedding.weight, self.bias)
        return (logits, state, told) if self.training else (logits, state)

    def word(self, words: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One word after the other, as a trained network is used: maps words [N] and a state to logits and a state."""
        state = self._step(self.inputs(self.embedding(words)), state, None)
        return F.linear(state, self.embedding.weight, self.bias), state

    def _embedded(self, words: Tensor) -> Tensor:
        if not self.training:
            return self.embedding(words)
        weight = self.embedding.weight
        x = F.embedding(words, weight * _mask(weight[:, :1], self.share.words) if self.share.words else weight)
        return x * _mask(x[:, :1], self.share.embedded)

    def _step(self, entered: Tensor, state: Tensor, mask: Tensor | None) -> Tensor:
        """The state after one more word, which has entered as [N, 2 * units]."""
        states = [_highway(state, entered + self.hidden(state if mask is None else state * mask), self.first)]
        for node in self.nodes:
            states.append(node(states, mask))
        return torch.stack(states[1:]).mean(0)

    def canonical_form(self, architecture: Mapping[str, str]) -> dict[str, str]:
        """See :func:`canonical_form`."""
        return canonical_form(architecture)

    def graph(self, architecture: Mapping[str, str]) -> list[tuple[int, int, str | None]]:
        """See :func:`graph`."""
        return graph(architecture)


def recurrent(num_classes: int = 10_000, units: int = 300, dropout: Mapping[str, float] | None = None) -> Recurrent:
    """The space for a vocabulary of ``num_classes`` words.

    Args:
        num_classes: Words.
        units: Of the embedding, the state and every node.
        dropout: Shares by the names of :class:`Dropout`, where they are others than there.

    Raises:
        ValueError: A share that is none, or an unknown name.
    """
    return Recurrent(num_classes, units, _dropout(Dropout(), dropout))


def recurrent_small(
    num_classes: int = 10_000, units: int = 64, dropout: Mapping[str, float] | None = None
) -> Recurrent:
    """The same for texts of some hundred thousand words and a processor without a GPU.

    Args:
        num_classes: Words.
        units: Of the embedding, the state and every node.
        dropout: Shares by the names of :class:`Dropout`, where they are others than 0.1 (of whole words: than there).

    Raises:
        ValueError: A share that is none, or an unknown name.
    """
    return Recurrent(num_classes, units, _dropout(Dropout(0.1, 0.1, 0.1, 0.1), dropout))


def _dropout(shares: Dropout, changes: Mapping[str, float] | None) -> Dropout:
    legal = [field.name for field in dataclasses.fields(Dropout)]
    unknown = [name for name in changes or {} if name not in legal]
    if unknown:
        raise ValueError(f"dropout has no {unknown[0]!r}; legal ones: {', '.join(legal)}")
    return dataclasses.replace(shares, **(changes or {}))
