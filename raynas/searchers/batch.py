"""A wrapper around a searcher that puts several architectures into one trial, to share Tune's overhead per trial."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from raynas.architecture import key
from raynas.exceptions import ConfigError
from raynas.searchers.base import ArchitectureSearcher
from raynas.storage.atomic import replace_text

__all__ = ["BatchSearcher"]


class BatchSearcher(Searcher):
    """Wraps a searcher so that each trial scores up to ``size`` architectures.

    ``suggest`` returns ``{"architectures": [{...}, ...]}``. The last result of the trial holds ``"outcomes"``,
    a list of ``{"architecture": {...}, "score": float, "fidelity": int, "status": str}``, where a
    status of "error" says that this one failed and any other that its score stands. An architecture without
    outcome counts as failed; so do all of them where the trial fails.

    Args:
        inner: Proposes the architectures.
        size: At most so many in one trial. Fewer where the inner searcher has no more to propose.
        total: At most so many in all trials together (Tune's ``num_samples`` counts trials). Default: no bound.

    Raises:
        ConfigError: ``size`` or ``total`` is not positive.
    """

    def __init__(self, inner: ArchitectureSearcher, size: int, total: int | None = None) -> None:
        if size < 1:
            raise ConfigError(f"the size of a cohort is {size}; legal: 1 or more")
        if total is not None and total < 1:
            raise ConfigError(f"the total of all cohorts is {total}; legal: 1 or more, or None")
        super().__init__()
        self.inner = inner
        self.size = size
        self.total = total
        self._proposed = 0
        self._running: dict[str, list[str]] = {}  # trial -> keys

    @property
    def metric(self) -> str | None:  # type: ignore[override]
        """Name of the score: that of the inner searcher."""
        return self.inner.metric

    @property
    def mode(self) -> str:
        """Whether the metric is to be minimised or maximised: that of the inner searcher."""
        return self.inner.mode

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Passes metric and mode on to the inner searcher."""
        return self.inner.set_search_properties(metric, mode, config, **spec)

    def expect_in_flight(self, trials: int) -> None:
        """See :meth:`ArchitectureSearcher.expect_in_flight`; the unit is architectures."""
        self.inner.expect_in_flight(trials)

    # Tune's annotation leaves out that FINISHED is a string.
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """Proposes a batch for a new trial.

        Returns:
            ``{"architectures": [{...}, ...]}``; None or ``Searcher.FINISHED`` where the inner searcher says so first;
            ``Searcher.FINISHED`` when the total is reached.
        """
        architectures: list[dict[str, str]] = []
        left = self.size if self.total is None else min(self.size, self.total - self._proposed)
        if left == 0:
            return Searcher.FINISHED
        while len(architectures) < left:
            suggestion = self.inner.suggest(f"{trial_id}.{len(architectures)}")
            if not isinstance(suggestion, dict):
                if not architectures:
                    return suggestion
                break
            architectures.append(suggestion["architecture"])
        self._proposed += len(architectures)
        self._running[trial_id] = list(map(key, architectures))
        return {"architectures": architectures}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Passes intermediate scores on to the inner searcher."""
        names = self._running.get(trial_id, [])
        for outcome in result.get("outcomes", ()):
            name = key(outcome["architecture"])
            if outcome["status"] != "error" and name in names:
                reported = {self.inner.score_name: outcome["score"], "training_iteration": outcome["fidelity"]}
                self.inner.on_trial_result(f"{trial_id}.{names.index(name)}", reported)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Passes the outcome of each architecture on to the inner searcher."""
        outcomes: dict[str, Mapping[str, Any]] = {}
        if result is not None and not error:
            outcomes = {key(outcome["architecture"]): outcome for outcome in result.get("outcomes", ())}
        for index, name in enumerate(self._running.pop(trial_id, ())):
            outcome = outcomes.get(name)
            if outcome is None or outcome["status"] == "error":
                self.inner.on_trial_complete(f"{trial_id}.{index}", error=True)
            else:
                reported = {self.inner.score_name: outcome["score"], "training_iteration": outcome["fidelity"]}
                self.inner.on_trial_complete(f"{trial_id}.{index}", result=reported)

    def add_evaluated_point(
        self,
        parameters: Mapping[str, Any],
        value: float | None,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: Sequence[float] | None = None,
    ) -> None:
        """Replays one architecture; see :meth:`ArchitectureSearcher.add_evaluated_point`."""
        self.inner.add_evaluated_point(parameters, value, error, pruned, intermediate_values)

    def get_state(self) -> dict[str, Any]:
        """Everything that the next suggestions depend on, as JSON data."""
        return {"inner": self.inner.get_state(), "live": dict(self._running), "proposed": self._proposed}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`get_state` returned; raises as the inner searcher does."""
        self.inner.set_state(state["inner"])
        self._running = {trial: list(names) for trial, names in state["live"].items()}
        self._proposed = state["proposed"]

    def save(self, checkpoint_path: str) -> None:
        """Writes the state to a JSON file."""
        replace_text(Path(checkpoint_path), json.dumps(self.get_state()), timeout=0)

    def restore(self, checkpoint_path: str) -> None:
        """Reads the state that :meth:`save` wrote, into a batch made with the same arguments."""
        self.set_state(json.loads(Path(checkpoint_path).read_text()))
