"""Bayesian optimisation by Optuna: the tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from raynas.architecture import Architecture, complete, key
from raynas.config.types import Count
from raynas.search_space.space import SearchSpace
from raynas.searchers.history import Entry
from raynas.searchers.optuna.base import OptunaSearcher
from raynas.searchers.settings import validated

__all__ = ["TPE"]


class TPE(OptunaSearcher):
    """Optuna's multivariate TPE, by ask and tell.

    Nested decisions are suggested only where they are active. Architectures that a scheduler stopped enter the study as
    pruned trials with their intermediate scores, pending ones as running trials (constant liar), so that parallel
    suggestions differ.

    Args:
        space: The search space.
        startup: Random architectures before the model is used.
        seed: See :class:`ArchitectureSearcher`, as for the arguments that follow.
        metric: Name of the score.
        mode: "max" or "min".
        points_to_evaluate: Architectures to propose first; they count as random ones.

    Raises:
        ConfigError: ``startup`` is not positive.
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
        self.startup = validated("startup", startup, Count)
        self._distributions = {name: CategoricalDistribution(tuple(opts)) for name, opts in space.decisions.items()}
        self._numbers: dict[str, int] = {}  # key -> number of the trial in the study

    def optuna_sampler(self, seed: int) -> TPESampler:
        """Makes Optuna's sampler; ``group`` models nested decisions jointly."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return TPESampler(
                n_startup_trials=self.startup, seed=seed, multivariate=True, group=True, constant_liar=True
            )

    def sample_trial(self, trial: Trial) -> Architecture:
        """Decisions one after the other, nested ones only where they are active."""
        return complete(self.space.decisions, {}, lambda name, opts: str(trial.suggest_categorical(name, opts)))

    def add_to_study(self, study: optuna.Study, entry: Entry, previous_status: str) -> None:
        """Adds an entry with its present status; its earlier trial with the status running ends as failed."""
        if previous_status == "running":
            study.tell(self._numbers[key(entry.architecture)], state=TrialState.FAIL)
        self._numbers[key(entry.architecture)] = len(study.get_trials(deepcopy=False))
        study.add_trial(self._frozen(entry))

    def _frozen(self, entry: Entry) -> FrozenTrial:
        """Converts an entry of the history to a trial of Optuna."""
        states = {"running": TrialState.RUNNING, "error": TrialState.FAIL}
        reached = TrialState.COMPLETE if entry.fidelity == self._full else TrialState.PRUNED
        state = states.get(entry.status, reached)
        scored = state in (TrialState.COMPLETE, TrialState.PRUNED)
        return create_trial(
            state=state,
            params=dict(entry.architecture),
            distributions={name: self._distributions[name] for name in entry.architecture},
            value=self.goodness(entry.score) if scored else None,
            intermediate_values={f: self.goodness(score) for f, score in entry.scores.items()} if scored else {},
        )
