"""The latency of a space's architectures: measured where that was done, predicted elsewhere.

A searcher looks at thousands of architectures and proposes a few. A device measures one after the other, in some tenths
of a second each. So a few architectures are measured first, a model of them tells a searcher where to look, and what
it proposes is measured before it is scored: a limit is kept by measurement.
"""

from __future__ import annotations

import copy
import functools
import json
import logging
import math
import random
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, FiniteFloat
from scipy import stats
from typing_extensions import TypedDict

from raynas.architecture import Architecture, Decisions, key
from raynas.config.fingerprint import changed
from raynas.costs.counter import Costs
from raynas.costs.device import LatencyBenchmark, Timing
from raynas.exceptions import ArchitectureError
from raynas.results.files import read_lines
from raynas.search_space.constraints import LATENCY, Limits, Profile, violation
from raynas.search_space.space import SearchSpace
from raynas.searchers.random import random_architectures
from raynas.storage.atomic import append_line
from raynas.storage.removal import free_name, move

__all__ = ["Latency", "LatencyMeasurement", "OptionRidge", "timed"]

log = logging.getLogger(__name__)
_PENALTIES = np.logspace(-4, 3, 15)
"""Penalties of a measurement, of which the best is taken."""
_LEAST = 16
"""So many measurements make a model."""
_DOUBTFUL = 0.1
"""Where two rounds differ by more, something disturbs them."""


@dataclass(frozen=True)
class LatencyMeasurement:
    """What is known of one architecture; a line of ``latency.jsonl``."""

    architecture: Architecture
    ms: float
    spread: float
    """The distance between the quartiles of the runs."""
    predicted: float | None = None
    """What the model had said; None of those that it was made of at the start."""


class _Subject(TypedDict):
    """The first line of the file."""

    device: str
    settings: dict[str, Any]
    costs: list[Any]


class _Line(TypedDict):
    """Any other line."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]
    architecture: Architecture
    ms: Annotated[FiniteFloat, Field(gt=0)]
    spread: FiniteFloat
    predicted: FiniteFloat | None


class OptionRidge:
    """A ridge regression of a cost on the options of an architecture and on costs that are known exactly.

    The penalty is the one with the least error where each architecture is predicted by a fit to all others.

    Args:
        decisions: Of the space.
        known: Exact costs of an architecture, such as MACs.
        architectures: Canonical ones whose cost was measured.
        values: The costs, all above 0.
    """

    def __init__(
        self,
        decisions: Decisions,
        known: Callable[[Architecture], Mapping[str, float]],
        architectures: Sequence[Architecture],
        values: Sequence[float],
    ) -> None:
        from sklearn.linear_model import RidgeCV  # takes a second to import
        from sklearn.preprocessing import StandardScaler

        pairs = ((decision, option) for decision, options in decisions.items() for option in options)
        self._column = {pair: number for number, pair in enumerate(pairs)}
        self._known, self._names = known, sorted(known(architectures[0]))
        y = np.array(values, float)
        scaler = StandardScaler()
        rows = scaler.fit_transform(np.array([self._features(each) for each in architectures]))
        penalties = _PENALTIES * len(y)
        # With a scoring, what is stored are predictions; without, squared errors.
        ridge = RidgeCV(penalties, scoring="neg_mean_squared_error", store_cv_results=True).fit(rows, y)
        self.penalty = float(ridge.alpha_)
        # A searcher asks for thousands of predictions: of one row, scikit-learn's own take two hundred times as long.
        self._weights = ridge.coef_ / scaler.scale_
        self._level = float(ridge.intercept_ - scaler.mean_ @ self._weights)
        self.left_out: npt.NDArray[np.float64] = ridge.cv_results_[:, penalties == self.penalty][:, 0]
        """The prediction for each of the architectures by a fit to all others."""
        self.error = float(np.mean(np.abs(self.left_out / y - 1.0)))
        """The mean relative error of these predictions."""
        self.tau = float(stats.kendalltau(self.left_out, y).statistic)
        """Kendall's tau between these predictions and the values."""

    def _features(self, architecture: Architecture) -> npt.NDArray[np.float64]:
        row = np.zeros(len(self._column) + len(self._names))
        for pair in architecture.items():
            row[self._column[pair]] = 1.0
        costs = self._known(architecture)
        row[len(self._column) :] = [costs[name] for name in self._names]
        return row

    def __call__(self, architecture: Architecture) -> float:
        """The predicted cost of one architecture."""
        return max(self._level + float(self._features(architecture) @ self._weights), 1e-6)


class Latency:
    """Milliseconds of every architecture of a space.

    Args:
        costs: Of the space.
        benchmark: Measures.
        path: Where measurements are kept: JSON lines, under a first one that says of what.
        limits: Of the run.
    """

    def __init__(self, costs: Costs, benchmark: LatencyBenchmark, path: Path, limits: Limits) -> None:
        self.costs, self.benchmark, self.path = costs, benchmark, path
        self.counted = Limits({name: pair for name, pair in limits.bounds.items() if name != LATENCY})
        """The limits on what needs no measurement."""
        high = limits.bounds.get(LATENCY, (None, None))[1]
        self._most = math.inf if high is None else high
        self._rounds = range(benchmark.settings.rounds)
        settings = {name: value for name, value in asdict(benchmark.settings).items() if name != "samples"}
        self._subject = {"settings": settings, "costs": [costs(form) for form in costs.covering()]}
        self._device = ""
        self.measured: dict[str, LatencyMeasurement] = {}
        self._model: OptionRidge | None = None
        self._fitted = 0
        self._whole = copy.copy(costs)  # train.shrink narrows the other
        self._read()

    @property
    def ready(self) -> bool:
        """Whether it can tell anything."""
        return self._model is not None

    def __call__(self, architecture: Architecture) -> float:
        """Milliseconds of a canonical architecture."""
        known = self.measured.get(key(architecture))
        if known is not None:
            return known.ms
        assert self._model is not None
        return self._model(architecture)

    def measure(self, architecture: Architecture) -> None:
        """Measure a canonical architecture, unless that was done.

        Raises:
            ConfigError: The cluster has no such device.
            RuntimeError: It is in use by others, failed or was lost.
        """
        if key(architecture) in self.measured:
            return
        predicted = None if self._model is None else self._model(architecture)
        self._keep(architecture, [self.benchmark.measure(architecture) for _ in self._rounds], predicted)
        if self._model is not None and len(self.measured) >= 1.25 * self._fitted:
            self._fit()

    def calibrate(self, seed: int, say: Callable[[str], None]) -> None:
        """Measure the architectures that the model is fitted to, unless that was done on this device.

        Args:
            seed: Of the architectures that are drawn.
            say: Told what is done, and how good the model is.
        """
        device, settings = self.benchmark.name(), self.benchmark.settings
        if device != self._device:
            self._begin(device)
        options = sum(map(len, self.costs.decisions.values()))
        space = SearchSpace(self.costs.decisions, self.costs.canonical, violation(self.costs, self.counted))
        drawn = random_architectures(space, settings.samples or max(64, options), seed)
        everyone = {key(form): form for form in (*self.costs.covering(), *drawn)}
        missing = [form for name, form in everyone.items() if name not in self.measured]
        if not missing:
            if self._model is None:
                self._fit()
            return
        say(f"latency: {len(missing)} architectures are measured on {settings.place} ({device})")
        # A round goes through all of them: what disturbs one of them will hardly be there in the next.
        rounds = [[self.benchmark.measure(form) for form in missing] for _ in self._rounds]
        for form, found in zip(missing, zip(*rounds, strict=True), strict=True):
            self._keep(form, found)
        self._fit()
        say(f"latency: {self.quality()}" + (f"; {_agreement(rounds)}" if len(rounds) > 1 else ""))

    def measure_all(self, forms: Iterable[Architecture], say: Callable[[str], None]) -> None:
        """Measure what earlier searches have scored, so that limits hold for it, too."""
        missing = {key(form): form for form in forms if key(form) not in self.measured}
        if missing:
            say(f"latency: {len(missing)} architectures of earlier searches are measured, too")
        for form in missing.values():
            self.measure(form)

    def quality(self) -> str:
        """How good the model is, as text."""
        assert self._model is not None
        known = [each.ms for each in self.measured.values()]
        return (
            f"{min(known):.3g} to {max(known):.3g} ms; an architecture is predicted from the {len(known) - 1} others "
            f"with an error of {100 * self._model.error:.1f} % in the mean, Kendall's tau {self._model.tau:.2f}"
        )

    def account(self) -> str:
        """What came of the predictions for architectures that were proposed, as text."""
        proposed = [(each.predicted, each.ms) for each in self.measured.values() if each.predicted is not None]
        if not proposed:
            return "latency: nothing was measured besides"
        over = sum(ms > self._most for _, ms in proposed)
        error = statistics.mean(abs(predicted / ms - 1.0) for predicted, ms in proposed)
        tau = stats.kendalltau(*zip(*proposed, strict=True)).statistic if len(proposed) > 2 else math.nan
        refused = f", of which {over} missed the limit and were not scored" if math.isfinite(self._most) else ""
        return (
            f"latency: {len(proposed)} proposed architectures were measured{refused}; the predictions had been off by "
            f"{100 * error:.1f} % in the mean (tau {tau:.2f})"
        )

    def profile(self, seed: int = 0) -> Profile:
        """The range over the space: of random architectures, and of what was measured."""
        rng = random.Random(seed)
        drawn = [self(self.costs.sample(rng)) for _ in range(self.costs.default_samples)]
        everyone = [*drawn, *(each.ms for each in self.measured.values())]
        return Profile(min(everyone), statistics.median(drawn), max(everyone))

    def close(self) -> None:
        """End the actor that measures."""
        self.benchmark.close()

    def _fit(self) -> None:
        known = list(self.measured.values())
        # Of the whole space: what a training has dropped since was measured, too.
        self._model = OptionRidge(
            self._whole.decisions, self._whole, [each.architecture for each in known], [each.ms for each in known]
        )
        self._fitted = len(known)

    # The file.

    def _begin(self, device: str) -> None:
        """Start a new file; one of another device, or of other settings, is kept beside it."""
        self._device, self.measured, self._model = device, {}, None
        if self.path.exists():
            move(self.path, free_name(self.path))
        self._append({"device": device, **self._subject})

    def _keep(self, architecture: Architecture, rounds: Sequence[Timing], predicted: float | None = None) -> None:
        fastest = min(rounds, key=lambda timing: timing.ms)
        measured = LatencyMeasurement(dict(architecture), fastest.ms, fastest.spread, predicted)
        self.measured[key(architecture)] = measured
        self._append(asdict(measured))

    def _append(self, line: Mapping[str, Any]) -> None:
        append_line(self.path, json.dumps(line))

    def _read(self) -> None:
        known = read_lines(self.path, _Subject | _Line)
        if not known or "device" not in known[0]:
            if self.path.exists():
                log.warning("%s does not begin with what was measured: it is kept aside, and measured anew", self.path)
            return
        differ = changed(known[0], self._subject)
        if differ:
            log.warning("%s is of other %s: it is kept aside, and measured anew", self.path, " and ".join(differ))
            return
        self._device = known[0]["device"]
        for number, line in enumerate(known[1:], 2):
            try:
                self.costs(line["architecture"])
                self.measured[key(line["architecture"])] = LatencyMeasurement(**line)
            except (ArchitectureError, KeyError, TypeError) as error:
                log.warning("%s, measurement %d is of another space and left out: %s", self.path, number, error)
        if len(self.measured) >= _LEAST:
            self._fit()


def _agreement(rounds: Sequence[Sequence[Timing]]) -> str:
    """How far the device agrees with itself, as text."""
    apart = statistics.median(
        abs(one.ms - other.ms) / min(one.ms, other.ms) for one, other in zip(*rounds[:2], strict=True)
    )
    text = f"between two rounds a network differs by {100 * apart:.1f} % in the median"
    return text + ("; something else runs there, do not trust these figures" if apart > _DOUBTFUL else "")


def timed(space: SearchSpace, costs: Costs, latency: Latency, limits: Limits) -> SearchSpace:
    """The space with its latency among the costs, and all limits."""
    everything = functools.partial(_everything, costs, latency)
    return replace(space, violation=violation(everything, limits), costs=everything, measure=latency.measure)


def _everything(costs: Costs, latency: Latency, architecture: Mapping[str, str]) -> dict[str, float]:
    return {**costs(architecture), LATENCY: latency(dict(architecture))}
