"""What an architecture costs: its MACs and parameters.

Counted without computing anything: a forward pass of one example on PyTorch's meta device under PyTorch's own counter,
``torch.utils.flop_counter``. MACs are those of convolutions, linear layers and matrix products.
"""

from __future__ import annotations

import contextlib
import functools
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from raynas import architecture as arch
from raynas.architecture import Architecture, Decisions, Graph, Notation
from raynas.costs.meta_device import on_meta
from raynas.exceptions import ForwardError
from raynas.nn.choice import Choice, choices, decisions, open_choices, places
from raynas.nn.forward_errors import forward_error, options_to_blame
from raynas.nn.protocols import find_hook
from raynas.nn.references import check_references
from raynas.nn.space import chosen, graph
from raynas.nn.subnet import assemble
from raynas.search_space.constraints import COSTS, Profile

__all__ = ["COSTS", "Costs", "Profile"]

Option = tuple[str, str]  # a decision and one of its options


@dataclass(frozen=True)
class _Table:
    """The costs of an additive space: those of its fixed part, and those that each option adds."""

    fixed: dict[str, int]
    added: dict[str, dict[Option, int]]

    def cost(self, options: Mapping[str, str]) -> dict[str, int]:
        return {name: self.fixed[name] + sum(map(self.added[name].__getitem__, options.items())) for name in COSTS}

    def extreme(self, name: str, open_in_space: Decisions, pick: Callable[[Iterable[int]], int]) -> int:
        """The least (``pick=min``) or largest (``pick=max``) cost over all architectures, exactly."""
        below: dict[Option | None, int] = defaultdict(int)  # the best sum of the decisions nested under an option
        for decision in sorted(open_in_space, key=lambda n: n.count("."), reverse=True):
            best = pick(self.added[name][decision, o] + below[decision, o] for o in open_in_space[decision])
            below[arch.parent(open_in_space, decision)] += best
        return self.fixed[name] + below[None]


class Costs:
    """The MACs and parameters of a space's architectures, exactly.

    Most spaces are *additive*: an architecture costs what the fixed part costs, plus what each chosen option costs by
    itself. That is so when all options of a Choice return the same shapes, since then no module's input depends on
    the other choices, and when no two options share parameters. Both are checked here on a handful of forward passes
    that reach every option, and the sums are compared with the counts of these passes and of random architectures.
    If all agree, costs are read from the sums, in microseconds. If not, every architecture is counted by a forward
    pass of its own.

    Args:
        space: A module that contains Choices; not changed.
        example_inputs: What its forward takes; the first dimension of every tensor is the batch, of which one
            example is used.
    """

    names: tuple[str, ...] = COSTS
    """The names of the costs: what limits, objectives and the log may name."""

    def __init__(self, space: nn.Module, example_inputs: tuple[Tensor, ...]) -> None:
        self.decisions = decisions(space)
        check_references(space)  # of the space itself: closures in a copy would still refer to it
        self._space = on_meta(space).eval()
        self._inputs = tuple(x[:1].to("meta") for x in example_inputs)
        self._counted: dict[str, dict[str, int]] = {}
        with self._placed():
            self._table = _tabulate(self._space, self._inputs)
        self._narrowed = bool(getattr(space, "excludes_options", False))

    @property
    def additive(self) -> bool:
        """Whether the options' costs add up."""
        return self._table is not None

    def __call__(self, architecture: Mapping[str, str]) -> dict[str, int]:
        """The costs of the network that ``derive`` returns for this architecture.

        Returns:
            ``{"macs": ..., "parameters": ...}`` for one example.

        Raises:
            ArchitectureError: The space does not contain this architecture.
        """
        form = arch.canonical(self.decisions, architecture)
        if self._table is not None:
            return self._table.cost(chosen(self._space, form))
        name = arch.key(form)
        if name not in self._counted:
            self._counted[name] = self.count(form)
        return dict(self._counted[name])

    def count(self, architecture: Mapping[str, str]) -> dict[str, int]:
        """The same by a forward pass, whether the space is additive or not."""
        options = chosen(self._space, architecture)
        with self._placed():
            return _count(self._space, self._inputs, options, FlopCounterMode(display=False))

    @contextlib.contextmanager
    def _placed(self) -> Iterator[None]:
        """Errors of a forward pass with the options, the module and the line that are to blame.

        Raises:
            ForwardError: Instead of whatever the pass raised.
        """

        def run(network: nn.Module) -> Any:
            with torch.no_grad():
                return network(*self._inputs)

        def works(network: nn.Module) -> bool:
            run(network)
            return True

        try:
            yield
        except _PassFailed as failed:
            open_in_space, cause = open_choices(self._space), failed.cause
            blame = options_to_blame(self._space, failed.options, open_in_space, assemble, works)
            raise forward_error(cause, assemble(self._space, failed.options), run, blame) from cause

    def narrow(self, decisions: Mapping[str, Sequence[str]]) -> None:
        """Leave only these options in :attr:`decisions`, of which everything here is then told."""
        self.decisions = {name: tuple(options) for name, options in decisions.items()}
        self._narrowed = True

    def channels(self) -> dict[tuple[int, str], int]:
        """How many channels each option returns, by the number of its Choice in :func:`raynas.nn.choice.choices`."""
        names = [name for name, _ in choices(self._space)]
        meter, found = _Meter(self._space), {}
        for probe in _covering(open_choices(self._space)):
            for index, shapes in meter.read(self._space, self._inputs, probe).shapes.items():
                found[index, probe[names[index]]] = int(shapes[0][1])
        meter.remove()
        return found

    def classes(self) -> int:
        """How many classes the answers of a network of the space tell apart."""
        probe = chosen(self._space, self.sample(random.Random(0)))
        with torch.no_grad():
            answer = assemble(self._space, probe)(*self._inputs)
        logits = answer[0] if isinstance(answer, tuple) and answer else answer
        if not isinstance(logits, Tensor) or not logits.ndim:
            kind = f"a dict with {', '.join(map(repr, answer))}" if isinstance(answer, dict) else type(logits).__name__
            raise ForwardError(
                f"forward of {type(self._space).__name__} returns {kind}: return the logits, a tensor [N, classes]"
            )
        return int(logits.shape[-1])

    def canonical(self, architecture: Mapping[str, str]) -> Architecture:
        """The canonical form of an architecture, as :func:`raynas.nn.space.canonical`, without walking the space."""
        form = arch.canonical(self.decisions, architecture)
        own = find_hook(self._space, "canonical_form")
        if own is None:
            return form
        merged = own(form)
        if self._narrowed and any(option not in self.decisions.get(name, ()) for name, option in merged.items()):
            return form  # what is left of the space need not hold its own form
        return arch.canonical(self.decisions, merged)

    def complete(self, architecture: Architecture) -> bool:
        """Whether a cell may be trained that draws its own options; a space may say so by a method of this name."""
        own = find_hook(self._space, "complete")
        return own is None or bool(own(architecture))

    @property
    def places(self) -> dict[str, tuple[str, ...]]:
        """See :func:`raynas.nn.choice.places`."""
        return places(self._space)

    @property
    def graph(self) -> Callable[[Architecture], Graph] | None:
        """See :func:`raynas.nn.space.graph`; what it returns holds no weights."""
        return graph(self._space)

    @property
    def notation(self) -> Notation | None:
        """How a space writes its architectures as sequences, by its method ``sequence_encoding()``."""
        own = find_hook(self._space, "sequence_encoding")
        return None if own is None else cast("Notation", own())

    def sample(self, rng: random.Random) -> Architecture:
        """Draw an architecture uniformly, in its canonical form."""
        return self.canonical(arch.sample(self.decisions, rng))

    def profile(self, samples: int | None = None, seed: int = 0) -> dict[str, Profile]:
        """The range of each cost over the space.

        Args:
            samples: How many random architectures to draw; by default 1,000, or 64 where the space is not additive.
            seed: Seed of the draw.

        Returns:
            A profile of each cost. The median comes from the samples. Minimum and maximum are exact for additive
            spaces whose Choices are free; for others they, too, are only those of the samples.
        """
        rng = random.Random(seed)
        drawn = [self(self.sample(rng)) for _ in range(samples or self.default_samples)]
        result = {}
        for name in COSTS:
            values = [costs[name] for costs in drawn]
            least, most = min(values), max(values)
            if self._table is not None and not hasattr(self._space, "searched"):
                least = self._table.extreme(name, self.decisions, min)
                most = self._table.extreme(name, self.decisions, max)
            result[name] = Profile(least, statistics.median(values), most)
        return result

    def covering(self) -> list[Architecture]:
        """A few architectures that together take every option, as far as the canonical form does."""
        return [self.canonical(probe) for probe in _covering(self.decisions)]

    @property
    def default_samples(self) -> int:
        """How many random architectures can be looked at in about a second or a few."""
        return 1000 if self.additive else 64


def _count(
    space: nn.Module, inputs: tuple[Tensor, ...], options: Mapping[str, str], counter: FlopCounterMode
) -> dict[str, int]:
    subnet = assemble(space, options)
    try:
        with torch.no_grad(), counter:
            subnet(*inputs)
    except Exception as error:  # whatever the code of a user raises
        raise _PassFailed(options, error) from error
    return {"macs": counter.get_total_flops() // 2, "parameters": sum(p.numel() for p in subnet.parameters())}


class _PassFailed(RuntimeError):
    """A forward pass of the network of these options has failed."""

    def __init__(self, options: Mapping[str, str], cause: Exception) -> None:
        super().__init__(str(cause))
        self.options, self.cause = dict(options), cause


@dataclass(frozen=True)
class _Reading:
    """One forward pass: its costs, the MACs spent inside each option, the shapes that each Choice returned."""

    costs: dict[str, int]
    spent: dict[Option, int]
    shapes: dict[int, list[Any]]


class _Meter:
    """Hooks on every option of a space. What the options inside an option spend is theirs alone."""

    def __init__(self, space: nn.Module) -> None:
        self._counter = FlopCounterMode(display=False)
        self._spent: dict[Option, int] = {}
        self._shapes: dict[int, list[Any]] = {}
        self._running: list[list[int]] = []  # of each option being run: MACs before it, MACs of the options inside it
        self._handles = []
        for index, (decision, choice) in enumerate(choices(space)):
            for option, module in choice.named_children():
                leave = functools.partial(self._leave, (decision, option), index)
                self._handles += [module.register_forward_pre_hook(self._enter), module.register_forward_hook(leave)]

    def read(self, space: nn.Module, inputs: tuple[Tensor, ...], architecture: Architecture) -> _Reading:
        """Run one architecture; its subnet has the hooks of the options that it took."""
        self._counter, self._spent, self._shapes = FlopCounterMode(display=False), {}, {}
        costs = _count(space, inputs, architecture, self._counter)
        return _Reading(costs, self._spent, self._shapes)

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()

    def _enter(self, module: nn.Module, args: Any) -> None:
        self._running.append([self._macs(), 0])

    def _leave(self, option: Option, index: int, module: nn.Module, args: Any, output: Any) -> None:
        before, inside = self._running.pop()
        macs = self._macs() - before
        self._spent[option] = self._spent.get(option, 0) + macs - inside
        self._shapes.setdefault(index, []).append(_shapes(output))
        if self._running:
            self._running[-1][1] += macs

    def _macs(self) -> int:
        return self._counter.get_total_flops() // 2


def _shapes(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, (list, tuple)):
        return [_shapes(item) for item in value]
    return {name: _shapes(item) for name, item in value.items()} if isinstance(value, dict) else value


def _tabulate(space: nn.Module, inputs: tuple[Tensor, ...]) -> _Table | None:
    """The costs of the options one by one; None if they do not add up."""
    open_in_space = open_choices(space)
    added = {name: {(d, o): 0 for d, options in open_in_space.items() for o in options} for name in COSTS}
    for decision, choice in choices(space):
        for option, module in choice.named_children():
            added["parameters"][decision, option] += _own_parameters(module)
    fixed = {"macs": 0, "parameters": _own_parameters(space)}
    if fixed["parameters"] + sum(added["parameters"].values()) != sum(p.numel() for p in space.parameters()):
        return None  # some parameters stand in several places

    rng = random.Random(0)
    probes = [*_covering(open_in_space), *(arch.sample(open_in_space, rng) for _ in range(4))]
    meter = _Meter(space)
    try:
        readings = [meter.read(space, inputs, probe) for probe in probes]
    except RuntimeError:
        if hasattr(space, "choose"):
            return None  # not every option of a Choice goes with those of the others
        raise
    finally:
        meter.remove()
    shapes: dict[int, Any] = {}
    for reading in reversed(readings):
        added["macs"].update(reading.spent)
        shapes.update(reading.shapes)
        fixed["macs"] = reading.costs["macs"] - sum(reading.spent.values())
    table = _Table(fixed, added)
    agree = all(
        table.cost(probe) == reading.costs and all(shapes[i] == found for i, found in reading.shapes.items())
        for probe, reading in zip(probes, readings, strict=True)
    )
    return table if agree else None


def _own_parameters(module: nn.Module) -> int:
    """How many parameters a module has, without those inside its Choices."""

    def walk(part: nn.Module) -> Iterator[nn.Parameter]:
        if not isinstance(part, Choice):
            yield from part.parameters(recurse=False)
            for child in part.children():
                yield from walk(child)

    return sum({id(p): p.numel() for p in walk(module)}.values())


def _covering(open_in_space: Decisions) -> Iterator[Architecture]:
    """A few architectures that together take every option once."""
    missing = {(decision, option) for decision, options in open_in_space.items() for option in options}

    def waits(decision: str, option: str) -> bool:
        return any(item == (decision, option) or item[0].startswith(f"{decision}.{option}.") for item in missing)

    while missing:
        wanted = {d: next((o for o in options if waits(d, o)), options[0]) for d, options in open_in_space.items()}
        probe = arch.canonical(open_in_space, wanted)
        missing -= set(probe.items())
        yield probe
