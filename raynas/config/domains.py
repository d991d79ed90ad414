"""The search domains of Ray Tune as plain data, and the values of them that a search tries.

Tune is loaded where there are domains: the processes of actors, which read settings too, start sooner without it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["DOMAINS", "LEVELS", "all_as_data", "as_data", "as_domain", "values"]

DOMAINS = (
    "choice",
    "uniform",
    "quniform",
    "loguniform",
    "qloguniform",
    "randint",
    "qrandint",
    "lograndint",
    "qlograndint",
)
"""Tune's functions: those whose values are listed, or lie between two bounds."""

LEVELS = 16
"""A number is tried at so many values at most, evenly spaced on its own scale: in three decades steps of 1.6 times."""


def as_data(domain: Any) -> Any:
    """A domain of Tune as ``{"loguniform": [0.001, 1.0]}``; anything else as it is."""
    if not hasattr(domain, "get_sampler"):
        return domain
    from ray.tune.search.sample import Categorical, Float, Integer, LogUniform, Uniform

    if isinstance(domain, Categorical):
        return {"choice": list(map(_plain, domain.categories))}
    if not isinstance(domain, (Float, Integer)):
        return domain
    sampler, step = _sampling(domain)
    if not isinstance(sampler, (Uniform, LogUniform)):
        return domain
    name = "q" * (step is not None) + "log" * isinstance(sampler, LogUniform)
    name += "uniform" if isinstance(domain, Float) else "randint"
    numbers = [domain.lower, domain.upper, *([] if step is None else [step])]
    return {name: list(map(_plain, numbers))}


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def all_as_data(joint: Any) -> Any:
    """The same for domains by name. Names may be nested, as ``search.joint.train.lr=...`` makes them."""
    if not isinstance(joint, Mapping):
        return joint
    inner = joint.get("train")
    nested = {f"train.{name}": domain for name, domain in inner.items()} if isinstance(inner, Mapping) else {}
    flat = {name: domain for name, domain in joint.items() if not (nested and name == "train")} | nested
    return {name: as_data(domain) for name, domain in flat.items()}


def as_domain(data: Any) -> Any:
    """The domain that such data describe.

    Raises:
        ValueError: They describe none; the message names the legal ones.
    """
    if not isinstance(data, Mapping) or len(data) != 1 or next(iter(data)) not in DOMAINS:
        raise ValueError(f"{data!r} is no domain; legal ones: {', '.join(DOMAINS)}, e.g. {{loguniform: [1e-3, 1]}}")
    ((name, arguments),) = data.items()
    if not isinstance(arguments, (list, tuple)) or not arguments:
        raise ValueError(f"{name} needs a list, e.g. {{{name}: [1, 8]}}, got {arguments!r}")
    from ray import tune

    try:
        domain = tune.choice(arguments) if name == "choice" else getattr(tune, name)(*arguments)
        step = _sampling(domain)[1]
        sound = name == "choice" or (domain.lower < domain.upper and (step is None or step > 0))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{name} cannot be made of {arguments!r}: {' '.join(str(error).split())}") from None
    if not sound:
        raise ValueError(f"{name} needs a lower bound below the upper one and steps above 0, got {arguments!r}")
    return domain


def values(domain: Any) -> tuple[Any, ...]:
    """The values that are tried: all of a choice; of numbers at most ``LEVELS``, in ascending order."""
    from ray.tune.search.sample import Categorical, Integer, LogUniform

    if isinstance(domain, Categorical):
        return tuple(domain.categories)
    sampler, step = _sampling(domain)
    low, high = domain.lower, domain.upper
    if isinstance(domain, Integer) and step is None:
        high, step = high - 1, 1  # Tune leaves the upper bound of whole numbers out, unless they have a step
    spaced = np.geomspace if isinstance(sampler, LogUniform) else np.linspace
    if step is None:
        return _rounded(spaced(low, high, LEVELS).tolist())
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    numbers: Sequence[int] = range(first, last + 1)
    if len(numbers) > LEVELS:
        numbers = sorted({round(place / step) for place in spaced(first * step, last * step, LEVELS).tolist()})
    return tuple(number * step if isinstance(step, int) else round(number * step, 12) for number in numbers)


def _sampling(domain: Any) -> tuple[Any, Any]:
    """How a number is drawn, and the step of which it is a multiple, if there is one."""
    from ray.tune.search.sample import Quantized

    sampler = domain.get_sampler()
    return (sampler.get_sampler(), sampler.q) if isinstance(sampler, Quantized) else (sampler, None)


def _rounded(exact: list[float]) -> tuple[float, ...]:
    """Numbers with as few digits as tell neighbours apart well; the first and the last one stay as they are."""
    gaps = [after - before for before, after in itertools.pairwise(exact)]
    return (exact[0], *(_short(exact[i], 0.1 * gaps[i - 1]) for i in range(1, len(exact) - 1)), exact[-1])


def _short(exact: float, tolerance: float) -> float:
    return next(short for d in range(1, 18) if abs((short := float(f"{exact:.{d}g}")) - exact) <= tolerance)
