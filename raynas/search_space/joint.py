"""Training settings that are searched together with the architecture.

    search.joint={train.lr: {loguniform: [1e-3, 1]}, train.cutout: {choice: [0, 4, 8]}}
    SearchConfig(joint={"train.lr": tune.loguniform(1e-3, 1), "train.cutout": tune.choice([0, 4, 8])})

Each is one more decision of the search space, a number on a grid of levels. An architecture then holds both,
``{"blocks.0": "k3", "train.lr": "0.025"}``: searchers, log and limits need not know. Only who builds the network or
trains it takes the two parts, :func:`network` and :func:`settings`. Their names cannot meet: no module of a network can
be called ``train``, which is a method of every ``nn.Module``.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

from raynas.architecture import Architecture
from raynas.config.domains import as_domain, values
from raynas.config.run import SearchConfig
from raynas.config.train import TrainConfig
from raynas.exceptions import ConfigError
from raynas.search_space.space import SearchSpace

__all__ = ["SETTINGS", "joined", "network", "recipe", "settings"]

_PREFIX = "train."
SETTINGS = (
    "augment", "augment_strength", "batch_size", "clip", "cutout", "label_smoothing", "lr", "momentum", "nesterov",
    "schedule", "warmup", "weight_decay",
)  # fmt: skip
"""What can be searched of ``train``: what decides how one network learns in a given number of epochs."""


def network(architecture: Mapping[str, str]) -> Architecture:
    """The network's part of an architecture: what ``derive`` takes."""
    return {name: option for name, option in architecture.items() if not name.startswith(_PREFIX)}


def settings(architecture: Mapping[str, str]) -> dict[str, Any]:
    """The training settings of an architecture, ``{"lr": 0.025}``; empty where none are searched."""
    return {n[len(_PREFIX) :]: _value(option) for n, option in architecture.items() if n.startswith(_PREFIX)}


def recipe(train: TrainConfig, architecture: Mapping[str, str]) -> TrainConfig:
    """The recipe of an architecture: that of ``train``, with its own settings."""
    return dataclasses.replace(train, **settings(architecture))


def _option(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _value(option: str) -> Any:
    try:
        return json.loads(option)
    except ValueError:
        return option


def joined(space: SearchSpace, search: SearchConfig, trained_alone: bool = True) -> SearchSpace:
    """The space with the decisions of ``search.joint``; without any, the same.

    Args:
        space: Of networks, or bare decisions.
        search: Holds the domains.
        trained_alone: Whether each architecture is trained by itself: the trait ``searches_hyperparameters`` of the
            evaluator.

    Raises:
        ConfigError: A setting that cannot be searched, a domain that is none, a value that the setting cannot have, or
            an evaluator that does not train each architecture by itself.
    """
    if not search.joint:
        return space
    if not trained_alone:
        raise ConfigError(
            f"search.joint: {search.trainable} does not train each architecture by itself; legal ones: "
            "trainables.from_scratch:FromScratch, or a tune.Trainable of your own"
        )
    taken = [name for name in space.decisions if name.startswith(_PREFIX)]
    if taken:
        raise ConfigError(
            f"search.joint: the space itself has a decision {taken[0]!r}: rename it, or leave joint empty"
        )
    levels = {name: _levels(name, domain) for name, domain in search.joint.items()}
    given = {name: getattr(space, name) for name in _FUNCTIONS if getattr(space, name) is not None}
    functions: dict[str, Any] = {
        name: functools.partial(_FUNCTIONS[name], function) for name, function in given.items()
    }
    return dataclasses.replace(
        space,
        decisions={**space.decisions, **{name: tuple(map(_option, tried)) for name, tried in levels.items()}},
        ordered=space.ordered | {name for name, tried in levels.items() if _ascends(tried)},
        notation=None,  # it has no word for a setting
        **functions,
    )


def _levels(name: str, domain: Any) -> tuple[Any, ...]:
    """The values that are tried of one setting, each of them legal."""
    legal = [_PREFIX + setting for setting in SETTINGS]
    if name not in legal:
        raise ConfigError(f"search.joint: {name!r} cannot be searched; legal ones: {', '.join(legal)}")
    try:
        tried = values(as_domain(domain))
    except ValueError as error:
        raise ConfigError(f"search.joint: {name}: {error}") from None
    for value in tried:
        try:
            TrainConfig(**{name[len(_PREFIX) :]: value})
        except ConfigError as error:
            why = "; ".join(dict.fromkeys(line.partition(": ")[2] for line in str(error).splitlines()))
            raise ConfigError(f"search.joint: {name} = {value!r}: {why}") from None
    return tried


def _ascends(tried: tuple[Any, ...]) -> bool:
    """Whether these are numbers in order, so that neighbours are alike."""
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in tried)
    return numbers and list(tried) == sorted(tried)


# The functions of a space still get architectures without settings.


def _of_network(function: Callable[[Architecture], Any], architecture: Architecture) -> Any:
    return function(network(architecture))


def _form(function: Callable[[Architecture], Architecture], architecture: Architecture) -> Architecture:
    form = function(network(architecture))
    return form | {name: option for name, option in architecture.items() if name.startswith(_PREFIX)}


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "canonical": _form,
    "alike": _form,
    "violation": _of_network,
    "graph": _of_network,
    "costs": _of_network,
    "measure": _of_network,
}
