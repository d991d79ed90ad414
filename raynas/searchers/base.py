"""The common part of all searchers: proposals that are legal, feasible, canonical and new; replay, save and restore.

A new searcher inherits :class:`ArchitectureSearcher` and writes one method, :meth:`~ArchitectureSearcher.propose`.
Whatever is random in it comes from :meth:`~ArchitectureSearcher.rng`, a generator made anew for each place in the
search: nothing of a generator's inner state has to be saved, and a search that was rebuilt from its log goes on as if
it had never stopped.
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

from raynas.architecture import Architecture, key
from raynas.exceptions import UnsatisfiableError
from raynas.search_space.sampler import ArchitectureSampler
from raynas.search_space.space import SearchSpace
from raynas.searchers.history import Entry, SearchHistory
from raynas.searchers.origin import Origin
from raynas.searchers.transfer import Scores, digest, read_source
from raynas.storage.atomic import replace_text

__all__ = ["ArchitectureSearcher", "Entry", "SearchHistory", "SearchSpace", "UnsatisfiableError"]

log = logging.getLogger(__name__)

_REFUSALS = 200


class ArchitectureSearcher(Searcher):
    """A ``ray.tune`` searcher over architectures. Every proposal is legal, feasible, canonical and new.

    ``suggest`` returns ``{"architecture": {...}}``; the trial reports the metric, and its ``training_iteration`` is
    the fidelity of the score.

    Args:
        space: What may be proposed.
        settings: What is particular to the searcher, where it has a class of ``Settings``; default: its defaults.
        seed: Same seed, same sequence: in every process, and after ``save`` and ``restore``.
        metric: Name of the score in the trials' results. Default "score".
        mode: "max" (default) or "min". Tune passes ``metric`` and ``mode`` of its ``TuneConfig`` on only if there is
            a non-empty ``param_space``: better give them here.
        points_to_evaluate: Architectures to propose first.

    Raises:
        ArchitectureError: One of the points is not in the space.
        ValueError: One of the points breaks the constraint, ``mode`` is neither "min" nor "max", or the space has
            objectives or features and the searcher does not look at them.
    """

    Settings: ClassVar[type[Any] | None] = None
    """A frozen dataclass, or None for a searcher without settings."""
    weighs_costs: ClassVar[bool] = False
    """Whether it looks for the front where the space has objectives beside the score."""
    reads_features: ClassVar[bool] = False
    """Whether it learns from ``space.features``."""

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
            raise ValueError(f"mode is {mode!r}; legal ones: 'min', 'max'")
        if settings is not None and self.Settings is None:
            raise ValueError(f"{type(self).__name__} has no settings, got {reprlib.repr(settings)}")
        if space.objectives and not self.weighs_costs:
            raise ValueError(
                f"{type(self).__name__} looks at the score alone, not at {', '.join(space.objectives)}; "
                f"those that weigh costs: {', '.join(sorted(_having(ArchitectureSearcher, 'weighs_costs')))}"
            )
        if space.features is not None and not self.reads_features:
            raise ValueError(
                f"{type(self).__name__} does not look at features; those that do: "
                f"{', '.join(sorted(_having(ArchitectureSearcher, 'reads_features')))}"
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
        self.journal: Path | None = None
        """A file for what the searcher has to tell of its model, if anything, as JSON; kept up to date."""
        self.source: tuple[Entry, ...] = ()
        self.diagnostics: list[dict[str, Any]] = []
        """What one that generates architectures has to tell of its model: see :mod:`raynas.searchers.diagnostics`."""

    def warm_start(self, source: Iterable[tuple[Mapping[str, str], Scores]], best: int = 3) -> None:
        """Start from the scores of another search with the same decisions: on other data, or under other limits.

        The best that keep the limits of this search are proposed first; a searcher with a model of the scores learns
        from all. To be called before anything is proposed or replayed, and before :meth:`restore`.

        Args:
            source: Architectures and their scores, better ones larger or smaller as this searcher's mode says.
            best: So many are proposed first, behind ``points_to_evaluate``.

        Raises:
            ArchitectureError: One of the architectures is not in the space.
            ValueError: There is no finite score, or something was proposed or replayed already.
        """
        if len(self.history):
            raise ValueError("warm_start comes first: this searcher has proposed or replayed architectures already")
        self.source = read_source(self.space, source)
        ranked = sorted(self.source, key=self.rank, reverse=True)
        kept = (entry.architecture for entry in ranked if self.sampler.feasible(entry.architecture))
        self._begin_with({key(form): form for form in (*self.points, *islice(kept, best))})

    def _begin_with(self, points: Mapping[str, Architecture]) -> None:
        self.points, self._plan, self._plan_keys = tuple(points.values()), list(points.values()), set(points)
        for point in self.points:
            self.record_origin(point, "given")

    def _check(self, points: Sequence[Mapping[str, str]]) -> dict[str, Architecture]:
        forms = {key(form): form for form in map(self.space.form, points)}
        for form in forms.values():
            if not self.sampler.feasible(form):
                excess = self.sampler.violation(form)
                raise ValueError(f"a point to evaluate breaks the constraint (violation {excess:.4g}): {form}")
        return forms

    # What a searcher is made of.

    @abstractmethod
    def propose(self) -> Architecture | str | None:
        """The next architecture; None to be asked again later; ``Searcher.FINISHED`` when there is no other.

        It must be feasible, canonical and not in ``self.history``.
        """

    def rng(self, *place: str | int) -> Random:
        """A generator for one place in the search: depends on the seed and the place alone."""
        return Random("/".join(map(str, (self.seed, *place))))

    @property
    def tried(self) -> int:
        """How many architectures were proposed or replayed, those that failed left out."""
        return len(self.history) - self.history.failed

    def planned(self, index: int) -> Architecture | None:
        """One architecture of the seed's own random sequence: distinct, feasible, the given points first.

        The sequence does not depend on anything that was scored. None behind its end, in an exhausted space.

        Raises:
            UnsatisfiableError: No architecture was found that meets the constraint.
        """
        while len(self._plan) <= index:
            drawn = self.sampler.sample_new(self.rng("plan", len(self._plan)), self._plan_keys)
            if drawn is None:
                return None
            self._plan.append(self.record_origin(drawn, "random"))
            self._plan_keys.add(key(drawn))
        return self._plan[index]

    def opening(self, count: int) -> Architecture | None:
        """The first of the given points, and of so many of the seed's own sequence, that is not in the history."""
        forms = map(self.planned, range(max(count, len(self.points))))
        return next((form for form in forms if form is not None and key(form) not in self.history), None)

    def begin(self, count: int, rng: Random) -> Architecture | str | None:
        """What to propose while fewer than ``count`` were tried, :meth:`opening` first; None afterwards.

        Args:
            count: Architectures that failed do not count.
            rng: Draws one for each that failed.
        """
        beginning = self.tried < count
        waiting = self.opening(count if beginning else 0)
        return self.drawn(rng) if waiting is None and beginning else waiting

    def record_origin(self, architecture: Architecture, how: str, *parents: Architecture) -> Architecture:
        """Note how an architecture that may be proposed came about, see :class:`Origin`; returns it."""
        self.origins[key(architecture)] = Origin(how, tuple(map(key, parents)))
        return architecture

    def drawn(self, rng: Random) -> Architecture | str:
        """A random architecture that is not in the history; ``Searcher.FINISHED`` where there is no other."""
        found = self.sampler.sample_new(rng, self.history)
        return Searcher.FINISHED if found is None else self.record_origin(found, "random")

    def rank(self, entry: Entry) -> tuple[int, float]:
        """Sorts entries, best last: by the fidelity reached, then by score; failed ones first.

        A score of lower fidelity belongs to an architecture that a scheduler stopped: it lost against its peers.
        """
        if entry.status == "error" or not entry.scores:
            return -1, -math.inf
        return entry.fidelity, self.goodness(entry.score)

    def goodness(self, score: float) -> float:
        """The score with a sign such that more is better."""
        return -score if self.mode == "min" else score

    def recommend(self, count: int = 1) -> list[Architecture]:
        """What to choose where scores are noisy: up to so many of those that were scored and are feasible, best first.

        By score, unless the searcher knows better. Where scores are exact, what scored best is best.
        """
        best = sorted(self.history.done(self.history), key=self.rank, reverse=True)
        return list(islice((entry.architecture for entry in best if self.sampler.feasible(entry.architecture)), count))

    # What Tune calls.

    @property
    def metric(self) -> str:
        """Name of the score in the trials' results."""
        return self._metric or "score"

    @property
    def mode(self) -> str:
        """Whether the metric is to be minimised ("min") or maximised ("max")."""
        return self._mode or "max"

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Take metric and mode from Tune where they were not given. Tune tells them only if it has a ``param_space``.

        Returns:
            False: the space is known already. Tune then refuses further domains in its ``param_space``.
        """
        self._metric = self._metric or metric
        self._mode = self._mode or mode
        return False

    def expect_in_flight(self, trials: int) -> None:
        """How many trials will be in flight at once; a searcher may plan with it. Whoever runs it bounds them."""

    # Tune's annotation leaves out that FINISHED is a string.
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """Propose an architecture for a new trial.

        Returns:
            ``{"architecture": {...}}``; None to be asked again later; ``Searcher.FINISHED`` when all was tried.

        Raises:
            UnsatisfiableError: No architecture was found that meets the constraint, or none of many did when measured.
        """
        if self._mode is None and not self.history:
            log.warning("%s was given no mode: a high %s is taken for good", type(self).__name__, self.metric)
        for _ in range(_REFUSALS):
            proposal, known = self._next()
            if not isinstance(proposal, dict):
                return proposal
            self.sampler.measure_costs(proposal)
            if self.sampler.feasible(proposal):
                self.history.start(trial_id, proposal, known)
                return {"architecture": dict(proposal)}
            self.history.replay(proposal, {}, failed=True)  # measured, it cannot be had
        raise UnsatisfiableError(f"the last {_REFUSALS} proposals missed the constraint when they were measured")

    def _next(self) -> tuple[Architecture | str | None, Mapping[int, float]]:
        """What to propose, and what is known of it."""
        waiting = [(form, scores) for form, scores in self._requeued if key(form) not in self.history]
        proposal, known = waiting.pop(0) if waiting else (self.propose(), {})
        self._requeued = waiting
        if isinstance(proposal, dict) and (key(proposal) in self.history or not self.sampler.feasible(proposal)):
            fault = "is known already" if key(proposal) in self.history else "breaks the constraint"
            raise ValueError(f"{type(self).__name__} proposed an architecture that {fault}: {proposal}")
        return proposal, known

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Note a score at one fidelity."""
        self.history.note(trial_id, *self._read(result))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Note the last score of a trial, stopped early or not; or that it failed."""
        if result is not None and self.metric in result:
            fidelity, score = self._read(result)
            self.history.note(trial_id, fidelity, score)
            error = error or not math.isfinite(score)
        self.history.finish(trial_id, failed=error)

    def _read(self, result: Mapping[str, Any]) -> tuple[int, float]:
        score = result.get(self.metric)
        return int(result.get("training_iteration", 1)), math.nan if score is None else float(score)

    # Resume: by what Tune saved, or by the log.

    def requeue(
        self, architectures: Iterable[Mapping[str, str]], scores: Mapping[str, Mapping[int, float]] | None = None
    ) -> None:
        """Propose these before any other, unless they are known: what was in flight when a run was killed.

        Args:
            architectures: In the order in which they are to be proposed.
            scores: What they had reported by fidelity, by key: their trials go on from there.
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
        """Replay one architecture that was scored before; in any order. It is never proposed again.

        Args:
            parameters: ``{"architecture": {...}}``, as suggested.
            value: Its last score. None or NaN counts as failed, unless there is a score of a lower fidelity.
            error: Whether its trial failed.
            pruned: Whether it was stopped early. Needed only without ``intermediate_values``.
            intermediate_values: Its scores at the fidelities 1, 2, ...: as many as the fidelity of ``value``. Those
                that are not known any more may be NaN. Without them the fidelity is 1, or 0 if ``pruned``.

        Raises:
            ArchitectureError: It is not in the space.
            ValueError: ``parameters`` holds no architecture.
        """
        if "architecture" not in parameters:
            raise ValueError(f"parameters need the key 'architecture', got {reprlib.repr(parameters)}")
        values = list(intermediate_values or ())
        scores = dict(enumerate(values, start=1))
        if value is not None:
            scores[len(values) or int(not pruned)] = value
        self.history.replay(self.space.form(parameters["architecture"]), scores, failed=error)

    def get_state(self) -> dict[str, Any]:
        """All that the next suggestions depend on, as plain JSON data. Extend it where a searcher keeps more."""
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
        """Go on from what :meth:`get_state` returned, in a searcher made with the same arguments.

        Raises:
            ValueError: It comes from another kind of searcher, or from another seed, space, source or other settings.
        """
        own = self.get_state()
        for name in ("class", "seed", "decisions", "settings", "source"):
            if state.get(name) != own[name]:
                other = "other" if name == "settings" else "another"
                saved, here = reprlib.repr(state.get(name)), reprlib.repr(own[name])
                raise ValueError(f"the saved searcher has {other} {name}: {saved} instead of {here}")
        self._metric, self._mode = state["metric"], state["mode"]
        self.history.set_state(state["history"])
        self.sampler.rewind()
        self._plan = list(state["plan"])
        self._plan_keys = set(map(key, self._plan))
        self._requeued = [(form, {int(f): score for f, score in scores}) for form, scores in state["requeued"]]
        self.origins = {name: Origin(how, tuple(keys)) for name, (how, *keys) in state.get("origins", {}).items()}

    def save(self, checkpoint_path: str) -> None:
        """Write the state to a JSON file."""
        replace_text(Path(checkpoint_path), json.dumps(self.get_state()), patience=0)

    def restore(self, checkpoint_path: str) -> None:
        """Read the state that :meth:`save` wrote, into a searcher made with the same arguments.

        Raises:
            ValueError: It comes from another kind of searcher, or from another seed, space, source or other settings.
        """
        self.set_state(json.loads(Path(checkpoint_path).read_text()))


def _having(parent: type[Any], ability: str) -> set[str]:
    """The names of the searchers below a class that say ``ability = True``."""
    children = parent.__subclasses__()
    own = {child.__name__ for child in children if getattr(child, ability)}
    return own.union(*(_having(child, ability) for child in children))
