"""Bayesian optimisation by Optuna: the tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray.tune.search import Searcher

from raynas.architecture import Architecture, complete, key
from raynas.searchers.base import ArchitectureSearcher, Entry, SearchSpace

__all__ = ["TPE"]

_ATTEMPTS = 4  # Optuna is asked so often before one of its suggestions is altered


class TPE(ArchitectureSearcher):
    """Optuna's multivariate TPE, by ask and tell.

    Optuna's study is only a view of the ledger. It can be made again at any time: that is how a searcher is restored
    and replayed. Nested decisions are suggested only where they are active. Architectures that a scheduler stopped
    are told as pruned, with their intermediate scores; those in flight as running, so that parallel suggestions
    keep their distance.

    Args:
        space: What may be proposed.
        startup: Random architectures before the model takes over.
        seed: See :class:`ArchitectureSearcher`, as for the arguments that follow.
        metric: Name of the score.
        mode: "max" or "min".
        points_to_evaluate: Architectures to propose first; they count as random ones.

    Raises:
        ValueError: ``startup`` is not positive.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        startup: int = 10,
        seed: int = 0,
        metric: str | None = None,
        mode: str | None = None,
        points_to_evaluate: Sequence[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(space, seed=seed, metric=metric, mode=mode, points_to_evaluate=points_to_evaluate)
        if startup < 1:
            raise ValueError(f"startup is {startup}; legal: 1 or more")
        self.startup = startup
        self._distributions = {name: CategoricalDistribution(tuple(opts)) for name, opts in space.decisions.items()}
        self._study: optuna.Study | None = None
        self._told: dict[str, tuple[str, int]] = {}  # key -> status and number of the trial in the study
        self._full = 0  # the highest fidelity that was reached: trials below it were stopped

    def propose(self) -> Architecture | str | None:
        """A random architecture at first, then what Optuna suggests."""
        beginning = self.startup if len(self.ledger) < self.startup else 0
        waiting = self.opening(beginning)
        if waiting is not None:
            return waiting
        study = self._view()
        first: Architecture | None = None
        for attempt in range(_ATTEMPTS):
            candidate = self._ask(study, attempt)
            if key(candidate) not in self.ledger and self.drawer.feasible(candidate):
                return candidate
            first = first or candidate
        rng = self.rng("tpe", len(self.ledger), "alter")
        # Known or infeasible: the nearest one that is neither; failing that, any.
        altered = self.drawer.walk(first, rng, self.ledger) if first else None
        return altered or self.drawer.fresh(rng, self.ledger) or Searcher.FINISHED

    def _ask(self, study: optuna.Study, attempt: int) -> Architecture:
        """One suggestion of Optuna in its canonical form."""
        study.sampler = self._sampler(attempt)
        trial = study.ask()
        suggested = complete(self.space.decisions, {}, lambda name, opts: str(trial.suggest_categorical(name, opts)))
        # A trial that is never told counts as failed: what is in flight enters the study from the ledger alone.
        study.tell(trial, state=TrialState.FAIL)
        return self.space.form(suggested)

    def _sampler(self, attempt: int) -> TPESampler:
        """A sampler whose state is its place in the search. Groups let it model nested decisions jointly."""
        seed = self.rng("tpe", len(self.ledger), attempt).getrandbits(32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return TPESampler(
                n_startup_trials=self.startup, seed=seed, multivariate=True, group=True, constant_liar=True
            )

    def _view(self) -> optuna.Study:
        """The study, brought up to date with the ledger."""
        full = max((entry.fidelity for entry in self.ledger.values()), default=0)
        if self._study is None or full > self._full:
            # A higher fidelity than ever: what counted as complete turns out to have been stopped early.
            self._study, self._told, self._full = _study(), {}, full
        for name, entry in self.ledger.items():
            status, number = self._told.get(name, ("", -1))
            if status != entry.status:
                if status == "running":
                    self._study.tell(number, state=TrialState.FAIL)
                self._told[name] = entry.status, len(self._study.get_trials(deepcopy=False))
                self._study.add_trial(self._frozen(entry))
        return self._study

    def _frozen(self, entry: Entry) -> FrozenTrial:
        """One entry of the ledger as a trial of Optuna."""
        states = {"running": TrialState.RUNNING, "error": TrialState.FAIL}
        reached = TrialState.COMPLETE if entry.fidelity == self._full else TrialState.PRUNED
        state = states.get(entry.status, reached)
        known = state in (TrialState.COMPLETE, TrialState.PRUNED)
        return create_trial(
            state=state,
            params=dict(entry.architecture),
            distributions={name: self._distributions[name] for name in entry.architecture},
            value=self.goodness(entry.score) if known else None,
            intermediate_values={f: self.goodness(score) for f, score in entry.scores.items()} if known else {},
        )

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`get_state` returned; see :meth:`ArchitectureSearcher.set_state`."""
        super().set_state(state)
        self._study = None


def _study() -> optuna.Study:
    """An empty study in memory, made without Optuna's message about it."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(direction="maximize")
    finally:
        optuna.logging.set_verbosity(verbosity)
