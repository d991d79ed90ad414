"""The base class of all searchers: proposals that are legal, feasible, canonical and new; replay, save and restore.

A new searcher inherits :class:`ArchitectureSearcher` and implements :meth:`~ArchitectureSearcher.propose`. Random
numbers come from :meth:`~ArchitectureSearcher.rng`, a generator seeded by the seed of the search and a name of the
place where it is used. No generator state has to be saved, and a search rebuilt from its log continues as if it had
never stopped.
"""

from __future__ import annotations

import json
import logging
import math
import reprlib
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from ray.tune.search import Searcher

from raynas._compat import tune_objective
from raynas.architecture import Architecture, key
from raynas.exceptions import ConfigError, UnsatisfiableError
from raynas.search_space.sampler import ArchitectureSampler
from raynas.search_space.space import SearchSpace
from raynas.searchers.history import Entry, Origin, Scores, SearchHistory, digest, read_source
from raynas.storage.atomic import replace_text

__all__ = ["ArchitectureSearcher"]

log = logging.getLogger(__name__)

_REFUSALS = 200


WEIGH_COSTS = ("Bayes", "NSGA2", "RandomSearch")
"""The searchers of this package that take several objectives; their modules need not be imported to name them."""


class ArchitectureSearcher(Searcher):
    """A ``ray.tune`` searcher over architectures. Every proposal is legal, feasible, canonical and new.

    ``suggest`` returns ``{"architecture": {...}}``; the trial reports the metric, and its ``training_iteration`` is
    the fidelity of the score.

    Args:
        space: The search space.
        settings: An instance of the class ``Settings``, where the searcher has one. Default: its defaults.
        seed: Same seed, same sequence: in every process, and after ``save`` and ``restore``.
        metric: Name of the score in the trials' results. Default: that of Tune's ``TuneConfig``; else "score".
        mode: "max" or "min". Default: that of Tune's ``TuneConfig``; else "max".
        points_to_evaluate: Architectures to propose first.

    Raises:
        ArchitectureError: One of the points is not in the space.
        ConfigError: One of the points breaks the constraint, ``mode`` is neither "min" nor "max", or the space has
            objectives and the searcher optimizes the score alone.
    """

    Settings: ClassVar[type[Any] | None] = None
    """A frozen dataclass, or None for a searcher without settings."""
    weighs_costs: ClassVar[bool] = False
    """Whether it searches for the Pareto front where the space has objectives beside the score."""

    def __init__(
        self,
        space: SearchSpace,
        *,
        settings: Any = None,
        seed: int = 0,
        metric: str | None = None,
        mode: str | None = None,
        points_to_evaluate: Sequence[Mapping[str, str]] = (),
    ) -> None:
        if mode not in (None, "min", "max"):
            raise ConfigError(f"mode is {mode!r}; legal ones: 'min', 'max'")
        if settings is not None and self.Settings is None:
            raise ConfigError(f"{type(self).__name__} has no settings, got {reprlib.repr(settings)}")
        if space.objectives and not self.weighs_costs:
            raise ConfigError(
                f"{type(self).__name__} optimizes the score alone, not {', '.join(space.objectives)}; "
                f"searchers with several objectives: {', '.join(WEIGH_COSTS)}"
            )
        super().__init__()
        self.settings: Any = self.Settings() if settings is None and self.Settings is not None else settings
        self._metric, self._mode = metric, mode
        self.space = space
        self.seed = seed
        self.sampler = ArchitectureSampler(space, seed)
        self.history = SearchHistory()
        self.origins: dict[str, Origin] = {}
        self._begin_with(self._check(points_to_evaluate))
        self._requeued: list[tuple[Architecture, dict[int, float]]] = []
        self.source: tuple[Entry, ...] = ()
        self.diagnostics: list[dict[str, Any]] = []
        """Diagnostics of a searcher with a generative model: see :mod:`raynas.searchers.nao.diagnostics`."""

    def warm_start(self, source: Iterable[tuple[Mapping[str, str], Scores]], best: int = 3) -> None:
        """Starts from the results of another search with the same decisions: on other data, or under other limits.

        The best feasible ones are proposed first; a searcher with a model of the scores learns from all. Must be called
        before anything is proposed or replayed, and before :meth:`restore`.

        Args:
            source: Architectures and their scores, in the direction of this searcher's mode.
            best: Number of architectures that are proposed first, after ``points_to_evaluate``.

        Raises:
            ArchitectureError: One of the architectures is not in the space.
            ConfigError: There is no finite score, or something was proposed or replayed already.
        """
        if len(self.history):
            raise ConfigError("warm_start comes first: this searcher has proposed or replayed architectures already")
        self.source = read_source(self.space, source)
        ranked = sorted(self.source, key=self.rank, reverse=True)
        feasible = (entry.architecture for entry in ranked if self.sampler.feasible(entry.architecture))
        self._begin_with({key(form): form for form in (*self.points, *islice(feasible, best))})

    def _begin_with(self, points: Mapping[str, Architecture]) -> None:
        self.points, self._plan, self._plan_keys = tuple(points.values()), list(points.values()), set(points)
        for point in self.points:
            self.record_origin(point, "given")

    def _check(self, points: Sequence[Mapping[str, str]]) -> dict[str, Architecture]:
        forms = {key(form): form for form in map(self.space.form, points)}
        for form in forms.values():
            if not self.sampler.feasible(form):
                excess = self.sampler.violation(form)
                raise ConfigError(f"a point to evaluate breaks the constraint (violation {excess:.4g}): {form}")
        return forms

    # For subclasses.

    @abstractmethod
    def propose(self) -> Architecture | str | None:
        """Proposes the next architecture: feasible, canonical and not in ``self.history``.

        Returns:
            The architecture; None if results have to arrive first; ``Searcher.FINISHED`` when there is no other.
        """

    def rng(self, *place: str | int) -> Random:
        """Makes a random generator for one place in the search. It depends on the seed and the place alone."""
        return Random("/".join(map(str, (self.seed, *place))))

    @property
    def tried(self) -> int:
        """Number of architectures that were proposed or replayed, without those that failed."""
        return len(self.history) - self.history.failed

    def planned(self, index: int) -> Architecture | None:
        """One element of the random sequence of this seed: distinct and feasible, the given points first.

        The sequence does not depend on any result. None after its end, in an exhausted space.

        Raises:
            UnsatisfiableError: No architecture was found that meets the constraint.
        """
        while len(self._plan) <= index:
            sampled = self.sampler.sample_new(self.rng("plan", len(self._plan)), self._plan_keys)
            if sampled is None:
                return None
            self._plan.append(self.record_origin(sampled, "random"))
            self._plan_keys.add(key(sampled))
        return self._plan[index]

    def opening(self, count: int) -> Architecture | None:
        """The first of the given points and of ``count`` random architectures that is not in the history, or None."""
        forms = map(self.planned, range(max(count, len(self.points))))
        return next((form for form in forms if form is not None and key(form) not in self.history), None)

    def begin(self, count: int, rng: Random) -> Architecture | str | None:
        """Proposes random architectures while fewer than ``count`` were tried; returns None afterwards.

        Args:
            count: Architectures that failed do not count.
            rng: Samples a replacement for each that failed.
        """
        random_phase = self.tried < count
        initial = self.opening(count if random_phase else 0)
        return self.sample_new(rng) if initial is None and random_phase else initial

    def record_origin(self, architecture: Architecture, how: str, *parents: Architecture) -> Architecture:
        """Records how an architecture was made, see :class:`Origin`, and returns it."""
        self.origins[key(architecture)] = Origin(how, tuple(map(key, parents)))
        return architecture

    def sample_new(self, rng: Random) -> Architecture | str:
        """Samples an architecture that is not in the history; ``Searcher.FINISHED`` where there is no other."""
        sampled = self.sampler.sample_new(rng, self.history)
        return Searcher.FINISHED if sampled is None else self.record_origin(sampled, "random")

    def rank(self, entry: Entry) -> tuple[int, float]:
        """Sort key of entries, best last: by highest fidelity, then by score; failed ones first.

        An entry of lower fidelity was stopped by the scheduler because others were better.
        """
        if entry.status == "error" or not entry.scores:
            return -1, -math.inf
        return entry.fidelity, self.goodness(entry.score)

    def goodness(self, score: float) -> float:
        """The score with a sign such that more is better."""
        return -score if self.mode == "min" else score

    def recommend(self, count: int = 1) -> list[Architecture]:
        """Recommends up to ``count`` scored, feasible architectures, best first; equal ones by key.

        By score here. A searcher with a model may override this where scores are noisy.
        """
        # Equal scores by key: the order in which parallel trials end is not that of another run.
        known = sorted(self.history.done(self.history), key=lambda entry: key(entry.architecture))
        best = sorted(known, key=self.rank, reverse=True)
        return list(islice((entry.architecture for entry in best if self.sampler.feasible(entry.architecture)), count))

    # What Tune calls.

    @property
    def metric(self) -> str | None:  # type: ignore[override]
        """Name of the score in the trials' results; None until it was given, here or by Tune."""
        return self._metric

    @property
    def score_name(self) -> str:
        """As ``metric``; "score" if none was given."""
        return self._metric or "score"

    @property
    def mode(self) -> str:
        """Whether the metric is to be minimised ("min") or maximised ("max")."""
        return self._mode or "max"

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Takes metric and mode from Tune where they were not given to the constructor.

        Returns:
            False: the search space is fixed. Tune then rejects unresolved domains in its ``param_space``.
        """
        self._metric = self._metric or metric
        self._mode = self._mode or mode
        return False

    def expect_in_flight(self, trials: int) -> None:
        """Says how many trials will run at once. This does not limit them; a searcher may plan with it."""

    # Tune's annotation leaves out that FINISHED is a string.
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """Proposes an architecture for a new trial.

        Returns:
            ``{"architecture": {...}}``; None if results have to arrive first; ``Searcher.FINISHED`` at the end.

        Raises:
            UnsatisfiableError: No architecture was found that meets the constraint, or none of many did when measured.
        """
        if not self.history and (self._metric is None or self._mode is None):
            metric, mode = tune_objective()
            self._metric, self._mode = self._metric or metric, self._mode or mode
            if self._mode is None:
                log.warning("%s was given no mode: it maximizes %s", type(self).__name__, self.score_name)
        for _ in range(_REFUSALS):
            proposal, scores = self._next()
            if not isinstance(proposal, dict):
                return proposal
            self.sampler.measure_costs(proposal)
            if self.sampler.feasible(proposal):
                self.history.start(trial_id, proposal, scores)
                return {"architecture": dict(proposal)}
            self.history.replay(proposal, {}, failed=True)  # measured, it breaks the constraint
        raise UnsatisfiableError(f"the last {_REFUSALS} proposals missed the constraint when they were measured")

    def _next(self) -> tuple[Architecture | str | None, Mapping[int, float]]:
        """The next proposal and the scores that its trial continues from."""
        queue = [(form, scores) for form, scores in self._requeued if key(form) not in self.history]
        proposal, scores = queue.pop(0) if queue else (self.propose(), {})
        self._requeued = queue
        if isinstance(proposal, dict) and (key(proposal) in self.history or not self.sampler.feasible(proposal)):
            fault = "was proposed before" if key(proposal) in self.history else "breaks the constraint"
            raise ValueError(f"{type(self).__name__} proposed an architecture that {fault}: {proposal}")
        return proposal, scores

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Records a score at one fidelity. Unknown trials are ignored."""
        self.history.note(trial_id, *self._read(result))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Records the last score of a trial, stopped early or not, or that it failed. Unknown trials are ignored."""
        if result is not None and self.score_name in result:
            fidelity, score = self._read(result)
            self.history.note(trial_id, fidelity, score)
            error = error or not math.isfinite(score)
        self.history.finish(trial_id, failed=error)

    def _read(self, result: Mapping[str, Any]) -> tuple[int, float]:
        score = result.get(self.score_name)
        return int(result.get("training_iteration", 1)), math.nan if score is None else float(score)

    # Resume from a saved state or from the log.

    def requeue(
        self, architectures: Iterable[Mapping[str, str]], scores: Mapping[str, Mapping[int, float]] | None = None
    ) -> None:
        """Proposes these before any other, unless they are in the history: the pending ones of a killed run.

        Args:
            architectures: In the order of their proposals.
            scores: By key, the scores that they had reported by fidelity: their trials continue from these.
        """
        forms = map(self.space.form, architectures)
        self._requeued += [(form, dict((scores or {}).get(key(form), {}))) for form in forms]

    def add_evaluated_point(
        self,
        parameters: Mapping[str, Any],
        value: float | None,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: Sequence[float] | None = None,
    ) -> None:
        """Replays one architecture that was scored before. It is never proposed again.

        Args:
            parameters: ``{"architecture": {...}}``, as suggested.
            value: Its last score. None or NaN counts as failed, unless there is a score of a lower fidelity.
            error: Whether its trial failed.
            pruned: Whether it was stopped early. Needed only without ``intermediate_values``.
            intermediate_values: Its scores at the fidelities 1, 2, ...: as many as the fidelity of ``value``. Unknown
                ones may be NaN. Without them the fidelity is 1, or 0 if ``pruned``.

        Raises:
            ArchitectureError: It is not in the space.
            ConfigError: ``parameters`` holds no architecture.
        """
        if "architecture" not in parameters:
            raise ConfigError(f"parameters need the key 'architecture', got {reprlib.repr(parameters)}")
        values = list(intermediate_values or ())
        scores = dict(enumerate(values, start=1))
        if value is not None:
            scores[len(values) or int(not pruned)] = value
        self.history.replay(self.space.form(parameters["architecture"]), scores, failed=error)

    def get_state(self) -> dict[str, Any]:
        """Everything that the next suggestions depend on, as JSON data. Subclasses with more state extend it."""
        return {
            "class": type(self).__name__,
            "seed": self.seed,
            "settings": None if self.settings is None else asdict(self.settings),
            "decisions": {name: list(options) for name, options in self.space.decisions.items()},
            "metric": self._metric,
            "mode": self._mode,
            "source": digest(self.source) if self.source else None,
            "history": self.history.get_state(),
            "plan": list(self._plan),
            "requeued": [[form, list(scores.items())] for form, scores in self._requeued],
            "origins": {name: [origin.how, *origin.parents] for name, origin in self.origins.items()},
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`get_state` returned, the seed included, in a searcher with the same other arguments.

        Raises:
            ConfigError: It comes from another class of searcher, space or source, or from other settings.
        """
        own = self.get_state()
        for name in ("class", "decisions", "settings", "source"):
            if state.get(name) != own[name]:
                other = "other" if name == "settings" else "another"
                saved, here = reprlib.repr(state.get(name)), reprlib.repr(own[name])
                raise ConfigError(f"the saved searcher has {other} {name}: {saved} instead of {here}")
        self._metric, self._mode = state["metric"], state["mode"]
        self.history.set_state(state["history"])
        self.seed = state["seed"]
        self.sampler = ArchitectureSampler(self.space, self.seed)
        self._plan = list(state["plan"])
        self._plan_keys = set(map(key, self._plan))
        self._requeued = [(form, {int(f): score for f, score in scores}) for form, scores in state["requeued"]]
        self.origins = {name: Origin(how, tuple(keys)) for name, (how, *keys) in state.get("origins", {}).items()}

    def save(self, checkpoint_path: str) -> None:
        """Writes the state to a JSON file."""
        replace_text(Path(checkpoint_path), json.dumps(self.get_state()), timeout=0)

    def restore(self, checkpoint_path: str) -> None:
        """Reads the state that :meth:`save` wrote; see :meth:`set_state`."""
        self.set_state(json.loads(Path(checkpoint_path).read_text()))
