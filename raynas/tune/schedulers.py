"""Fidelity rungs: Tune's ASHA set up for architectures, its rungs refilled from a log, and halving inside a cohort."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType, SimpleNamespace
from typing import Any, cast

from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from raynas.architecture import key
from raynas.exceptions import ConfigError

__all__ = ["Asha", "asha", "replay", "survivors"]

_TIME = "training_iteration"


def asha(
    max_fidelity: int,
    *,
    grace: int = 1,
    reduction_factor: float = 2.0,
    metric: str = "score",
    mode: str = "max",
) -> Asha:
    """Tune's asynchronous successive halving (ASHA; Li et al., MLSys 2020) over the fidelities 1 to ``max_fidelity``.

    The rungs stand at ``grace``, ``grace * reduction_factor``, ``grace * reduction_factor**2``, ... A trial that is
    not among the best ``1 / reduction_factor`` of those that reached a rung before it is stopped there.

    The reduction factor is 2 rather than Tune's 4, because the first slices of the validation images rank
    architectures poorly: with 8 slices there are three decisions (1, 2, 4), each on twice the images of the one
    before, and a candidate is dropped only if it is in the worse half. Candidates that come in random order then
    cost about 2.5 of 8 slices (1 + 1/2 + 2/4 + 4/8); a factor of 4 would cost 2.0 (1 + 3/4 + 4/16), but drop three
    quarters of them after a single slice.

    Metric and mode are fixed here, so that :func:`replay` can be called before the run: leave them out of Tune's
    ``TuneConfig``.

    Args:
        max_fidelity: The ``training_iteration`` of a full score.
        grace: No trial is stopped below this fidelity.
        reduction_factor: One in so many goes on at each rung; more than 1.
        metric: Name of the score in the trials' results.
        mode: "max" or "min".

    Returns:
        A scheduler for ``tune.TuneConfig(scheduler=...)``.

    Raises:
        ConfigError: An argument out of range.
    """
    if not 1 <= grace <= max_fidelity:
        raise ConfigError(f"grace is {grace}; legal: from 1 to max_fidelity, {max_fidelity}")
    if not reduction_factor > 1:
        raise ConfigError(f"reduction_factor is {reduction_factor}; legal: more than 1")
    if mode not in ("min", "max"):
        raise ConfigError(f"mode is {mode!r}; legal ones: 'min', 'max'")
    return Asha(
        time_attr=_TIME,
        metric=metric,
        mode=mode,
        max_t=max_fidelity,
        grace_period=grace,
        reduction_factor=reduction_factor,
    )


class Asha(AsyncHyperBandScheduler):
    """ASHA that may begin with trials which reported in an earlier process."""

    earlier: Mapping[str, Mapping[int, float]] = MappingProxyType({})

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._late: set[str] = set()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial that goes on where another process left it enters the rungs that it had passed there.

        Its first report would fill the lower rungs otherwise, with a score of a higher fidelity.
        """
        super().on_trial_add(tune_controller, trial)
        config = getattr(trial, "config", {})
        scores = self.earlier.get(key(config["architecture"]), {}) if "architecture" in config else {}
        for fidelity, score in sorted(scores.items()):
            decision = super().on_trial_result(tune_controller, trial, {_TIME: fidelity, self.metric: score})
            if fidelity == max(scores) and decision == TrialScheduler.STOP:
                self._late.add(trial.trial_id)  # killed before it could be stopped

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether the trial goes on."""
        decision: str = super().on_trial_result(tune_controller, trial, result)
        return TrialScheduler.STOP if trial.trial_id in self._late else decision


def replay(
    scheduler: Asha,
    observations: Iterable[tuple[str, int, float]],
    in_flight: Mapping[str, Mapping[int, float]] = MappingProxyType({}),
) -> None:
    """Refill the rungs of a scheduler of :func:`asha` from a log: Tune does not save them.

    Args:
        scheduler: As :func:`asha` returned it; its rungs are filled as a live run with these scores would have.
        observations: Trial, fidelity and score of every report of trials that ended, in the order of the log.
        in_flight: By the key of its architecture, the scores by fidelity of each trial that did not end. A new trial
            of the same architecture goes on above them.
    """
    if in_flight:
        scheduler.earlier = {name: dict(scores) for name, scores in in_flight.items()}
    last: dict[str, dict[str, Any]] = {}
    for trial, fidelity, score in observations:
        stub = _stub(trial)
        if trial not in last:
            scheduler.on_trial_add(cast(Any, None), stub)
        last[trial] = {_TIME: fidelity, scheduler.metric: score}
        scheduler.on_trial_result(cast(Any, None), stub, last[trial])
    for trial, result in last.items():
        scheduler.on_trial_complete(cast(Any, None), _stub(trial), result)


def _stub(trial: str) -> Any:
    """ASHA asks of a trial nothing but its id, and nothing of Tune's controller."""
    return SimpleNamespace(trial_id=trial)


def survivors(scores: Sequence[float], reduction_factor: float = 2.0, mode: str = "max") -> list[int]:
    """Who goes on to the next fidelity where several architectures are scored side by side, in one trial.

    Args:
        scores: One each, all of the same fidelity. NaN: failed, never goes on.
        reduction_factor: One in so many goes on, rounded up; more than 1.
        mode: "max" or "min".

    Returns:
        The positions of the best, in ascending order; of equal scores the earlier position. Empty only if all failed.

    Raises:
        ConfigError: An argument out of range.
    """
    if not reduction_factor > 1:
        raise ConfigError(f"reduction_factor is {reduction_factor}; legal: more than 1")
    if mode not in ("min", "max"):
        raise ConfigError(f"mode is {mode!r}; legal ones: 'min', 'max'")
    sign = 1.0 if mode == "min" else -1.0
    alive = [position for position, score in enumerate(scores) if not math.isnan(score)]
    best = sorted(alive, key=lambda position: sign * scores[position])
    return sorted(best[: math.ceil(len(scores) / reduction_factor)])
