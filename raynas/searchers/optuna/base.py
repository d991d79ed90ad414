"""Searchers whose proposals are made by a sampler of Optuna, by ask and tell."""

from __future__ import annotations

from abc import abstractmethod
from random import Random
from typing import Any, ClassVar

import optuna
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import Trial, TrialState

from raynas.architecture import Architecture, key
from raynas.searchers.base import ArchitectureSearcher
from raynas.searchers.history import Entry

__all__ = ["OptunaSearcher"]

_ATTEMPTS = 4  # suggestions of Optuna before one of them is mutated


class OptunaSearcher(ArchitectureSearcher):
    """Proposes what a sampler of Optuna suggests, mutated where that is infeasible or was proposed before.

    The study is built from the history, also after a restore or a replay.
    """

    startup: int
    """Random architectures before Optuna's sampler is used."""
    makes: ClassVar[str] = "model"
    """The origin of its proposals: see :class:`raynas.searchers.history.Origin`."""
    _study: optuna.Study | None = None
    _statuses: dict[str, str]  # key -> status in the study
    _full = 0  # the highest fidelity that was reached: trials below it were stopped

    @abstractmethod
    def optuna_sampler(self, seed: int) -> BaseSampler:
        """Makes a sampler of Optuna with this seed."""

    @abstractmethod
    def sample_trial(self, trial: Trial) -> Architecture:
        """Samples an architecture by ``trial.suggest_categorical``."""

    @abstractmethod
    def add_to_study(self, study: optuna.Study, entry: Entry, previous_status: str) -> None:
        """Adds an entry of the history to the study.

        Args:
            study: The study of this search.
            entry: Whose status has changed.
            previous_status: Its status in the study; empty for a new architecture.
        """

    def propose(self) -> Architecture | str | None:
        """Proposes a random architecture at first, then what Optuna suggests."""
        initial = self.begin(self.startup, self._rng("begin"))
        if initial is not None:
            return initial
        study = self.study_of_history()
        first: Architecture | None = None
        for attempt in range(_ATTEMPTS):
            candidate = self._suggestion(study, attempt)
            if key(candidate) not in self.history and self.sampler.feasible(candidate):
                return self.record_origin(candidate, self.makes)
            first = first or candidate
        # Infeasible or proposed before: mutate the first suggestion; failing that, sample any.
        rng = self._rng("alter")
        mutated = self.sampler.walk(first, rng, self.history) if first else None
        return self.record_origin(mutated, self.makes) if mutated else self.sample_new(rng)

    def _suggestion(self, study: optuna.Study, attempt: int) -> Architecture:
        """One suggestion of Optuna in its canonical form."""
        study.sampler = self.optuna_sampler(self._rng(attempt).getrandbits(32))
        trial = study.ask()
        suggested = self.sample_trial(trial)
        # This trial only yields the suggestion; pending architectures enter the study from the history.
        study.tell(trial, state=TrialState.FAIL)
        return self.space.form(suggested)

    def _rng(self, what: str | int) -> Random:
        return self.rng(type(self).__name__.lower(), len(self.history), what)

    def study_of_history(self) -> optuna.Study:
        """The study, updated from the history."""
        full = max((entry.fidelity for entry in self.history.values()), default=0)
        if self._study is None or full > self._full:
            # A new highest fidelity: trials that counted as complete were stopped early.
            self._study, self._statuses, self._full = _study(len(self.space.objectives)), {}, full
        for name, entry in self.history.items():
            previous = self._statuses.get(name, "")
            if previous != entry.status:
                self.add_to_study(self._study, entry, previous)
                self._statuses[name] = entry.status
        return self._study

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`get_state` returned; see :meth:`ArchitectureSearcher.set_state`."""
        super().set_state(state)
        self._study = None


def _study(costs: int) -> optuna.Study:
    """An empty study of the score and so many costs, in memory, made without Optuna's message about it."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(directions=["maximize", *(StudyDirection.MINIMIZE for _ in range(costs))])
    finally:
        optuna.logging.set_verbosity(verbosity)
