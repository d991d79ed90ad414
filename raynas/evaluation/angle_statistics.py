"""Sums over the weights of a space at two moments, from which :mod:`raynas.evaluation.angle` computes angles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from raynas import architecture as arch
from raynas.costs.counter import Costs
from raynas.evaluation.angle import Angles, Array
from raynas.exceptions import AngleError
from raynas.nn.choice import Choice, choices, decisions, open_choices
from raynas.nn.protocols import find_hook
from raynas.nn.space import topology

__all__ = ["AngleStatistics"]


class AngleStatistics:
    """The part of the angles of a space that is known before anything is trained.

    Weights are all parameters, as in RLNAS: in the fixed parts of the network with the scale and shift of BatchNorms,
    which steady the angle there; in options with these only where they are trained.

    An option without convolution or linear layer has a constant in their place. A space defines it by a method
    ``surrogate_norm(option, channels)``, where ``channels`` is how many the option returns: the squared length of that
    constant, or None for an option that carries nothing. Without that method an ``nn.Identity`` counts as the unit
    matrix, of squared length ``channels``, and a pooling over k pixels as ``channels * k`` numbers 1 / k, of squared
    length ``channels / k``.

    Args:
        space: The space; its weights are not read.
        costs: Of the same space.
        affine: Whether the scale and shift of BatchNorms are trained.

    Raises:
        AngleError: The space has no topology, or no surrogate norm for an option without weights.
    """

    def __init__(self, space: nn.Module, costs: Costs, affine: bool) -> None:
        self.decisions = decisions(space)
        self._options_of = open_choices(space)
        self.topology = _checked_topology(space)
        self._space = space
        norms = {id(p) for m in space.modules() if isinstance(m, _BatchNorm) for p in m.parameters(recurse=False)}
        self._names = {id(p): name for name, p in space.named_parameters()}
        self._left_out = set() if affine else norms
        widest = max(map(len, self._options_of.values()))
        self._constants = np.zeros((len(self._options_of), widest + 1))
        self._carries = np.ones(self._constants.shape, bool)
        self._enter_constants(costs)

    def angles(self, begin: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> Angles:
        """The angles between two states of the space, ``state_dict`` of each."""
        products = np.repeat(self._constants[..., None], 3, axis=2)
        for place, _, _, module in self._options():
            counted = [p for p in _own_parameters(module) if id(p) not in self._left_out]
            products[place] += self._sums(counted, begin, now)
        fixed = self._sums(_own_parameters(self._space), begin, now)
        choose = find_hook(self._space, "choose")
        return Angles(self._options_of, self.topology, fixed, products, self._carries, choose)

    def _options(self) -> Iterator[tuple[tuple[int, int], int, str, nn.Module]]:
        """Every option in all its places: its place in the table, the number of its Choice, its name, its module."""
        column = {name: number for number, name in enumerate(self._options_of)}
        for number, (name, choice) in enumerate(choices(self._space)):
            for place, option in enumerate(choice.options, start=1):
                yield (column[name], place), number, option, choice.get_submodule(option)

    def _enter_constants(self, costs: Costs) -> None:
        """What stands for options without weights."""
        without = [each for each in self._options() if not self._has_weights(each[3])]
        channels = costs.channels() if without else {}
        rule = find_hook(self._space, "surrogate_norm")
        names = list(self._options_of)
        for place, number, option, module in without:
            try:
                width = channels.get((number, option), 0)  # what is never run returns nothing
                square = _constant(module, width) if rule is None else rule(option, width)
            except LookupError:
                raise AngleError(
                    f"option {option!r} of {names[place[0]]!r} has no weights, and nothing says what stands for them "
                    f"in an angle: give {type(self._space).__name__} a method surrogate_norm(option, channels)"
                ) from None
            self._carries[place] &= square is not None
            self._constants[place] += square or 0.0

    def _has_weights(self, module: nn.Module) -> bool:
        inside = any(isinstance(part, Choice) for part in module.modules())
        return inside or any(p.ndim > 1 for p in module.parameters())

    def _sums(
        self, parameters: Iterable[nn.Parameter], begin: Mapping[str, Tensor], now: Mapping[str, Tensor]
    ) -> Array:
        """Product and squares of the two vectors of some parameters, each taken once: [3]."""
        sums = torch.zeros(3, dtype=torch.float64)
        for name in {self._names[id(p)]: None for p in parameters}:
            first, second = (state[name].detach().cpu().double().flatten() for state in (begin, now))
            sums += torch.stack([first @ second, first @ first, second @ second])
        return sums.numpy()


def _own_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Those of a module without those inside its Choices."""
    if not isinstance(module, Choice):
        yield from module.parameters(recurse=False)
        for child in module.children():
            yield from _own_parameters(child)


def _checked_topology(space: nn.Module) -> list[tuple[int, int, str | None]]:
    """The topology of a space, in which every decision has its place."""
    found, known = topology(space), open_choices(space)
    if found is None:
        raise AngleError(
            f"{type(space).__name__} is no chain of Choices and does not say where its decisions lie between input "
            "and output: give it a method topology(), as in spaces/nasbench201.py"
        )
    placed = {name for _, _, name in found}
    unknown = sorted(name for name in placed if name is not None and name not in known)
    if unknown:
        raise AngleError(f"topology() names {unknown[0]!r}, which is no decision; these are: {', '.join(known)}")
    missing = [name for name in known if name not in placed and arch.parent(known, name) is None]
    if missing:
        raise AngleError(f"topology() does not say where the decision {missing[0]!r} lies")
    return list(found)


def _constant(module: nn.Module, channels: int) -> float:
    """The squared length of what stands for a module without weights.

    Raises:
        LookupError: There is no rule for it.
    """
    if isinstance(module, nn.Identity):
        return float(channels)
    for part in module.modules():
        if isinstance(part, (nn.AvgPool2d, nn.MaxPool2d)):
            size = part.kernel_size
            return channels / (size * size if isinstance(size, int) else math.prod(size))
    raise LookupError(type(module).__name__)
