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

_ATTEMPTS = 4  # Optuna is asked so often before one of its suggestions is altered


class OptunaSearcher(ArchitectureSearcher):
    """Asks Optuna, and alters what it suggests where that is known already or infeasible.

    Optuna's study is only a view of the history. It can be made again at any time: that is how a searcher is restored
    and replayed.
    """

    startup: int
    """Random architectures before Optuna is asked."""
    makes: ClassVar[str] = "model"
    """How its proposals came about: see :class:`raynas.searchers.origin.Origin`."""
    _study: optuna.Study | None = None
    _told: dict[str, str]  # key -> status when the study heard of it
    _full = 0  # the highest fidelity that was reached: trials below it were stopped

    @abstractmethod
    def optuna_sampler(self, seed: int) -> BaseSampler:
        """A fresh sampler: its state is its place in the search."""

    @abstractmethod
    def answer(self, trial: Trial) -> Architecture:
        """What a trial of Optuna suggests."""

    @abstractmethod
    def tell(self, study: optuna.Study, entry: Entry, before: str) -> None:
        """Make an entry of the history known to the study.

        Args:
            study: Optuna's.
            entry: Its status is new to the study.
            before: The status that the study knew; empty if it is a new architecture.
        """

    def propose(self) -> Architecture | str | None:
        """A random architecture at first, then what Optuna suggests."""
        waiting = self.begin(self.startup, self._place("begin"))
        if waiting is not None:
            return waiting
        study = self._view()
        first: Architecture | None = None
        for attempt in range(_ATTEMPTS):
            candidate = self._ask(study, attempt)
            if key(candidate) not in self.history and self.sampler.feasible(candidate):
                return self.record_origin(candidate, self.makes)
            first = first or candidate
        # Known or infeasible: the nearest one that is neither; failing that, any.
        rng = self._place("alter")
        altered = self.sampler.walk(first, rng, self.history) if first else None
        return self.record_origin(altered, self.makes) if altered else self.drawn(rng)

    def _ask(self, study: optuna.Study, attempt: int) -> Architecture:
        """One suggestion of Optuna in its canonical form."""
        study.sampler = self.optuna_sampler(self._place(attempt).getrandbits(32))
        trial = study.ask()
        suggested = self.answer(trial)
        # A trial that is never told counts as failed: what is in flight enters the study from the history alone.
        study.tell(trial, state=TrialState.FAIL)
        return self.space.form(suggested)

    def _place(self, what: str | int) -> Random:
        return self.rng(type(self).__name__.lower(), len(self.history), what)

    def _view(self) -> optuna.Study:
        """The study, brought up to date with the history."""
        full = max((entry.fidelity for entry in self.history.values()), default=0)
        if self._study is None or full > self._full:
            # A higher fidelity than ever: what counted as complete turns out to have been stopped early.
            self._study, self._told, self._full = _study(len(self.space.objectives)), {}, full
        for name, entry in self.history.items():
            before = self._told.get(name, "")
            if before != entry.status:
                self.tell(self._study, entry, before)
                self._told[name] = entry.status
        return self._study

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`get_state` returned; see :meth:`ArchitectureSearcher.set_state`."""
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
