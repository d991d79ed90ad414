"""NSGA-II (Deb et al., IEEE Transactions on Evolutionary Computation 6(2), 2002) by Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import optuna
from optuna.samplers import NSGAIISampler
from optuna.trial import Trial
from pydantic import Field

from raynas.architecture import Architecture, key
from raynas.search_space.space import SearchSpace
from raynas.searchers.history import Entry
from raynas.searchers.optuna.base import OptunaSearcher
from raynas.searchers.settings import Probability, searcher_settings

__all__ = ["NSGA2", "NSGA2Settings"]


@searcher_settings
class NSGA2Settings:
    """Settings of :class:`NSGA2`.

    Attributes:
        population: Architectures in each generation; those of the first one are random.
        crossover_probability: Probability that a child has two parents and not one.
        mutation_probability: Probability of each decision to change; default: one decision on average.

    Raises:
        ConfigError: A population below 2, or a probability outside 0 to 1.
    """

    population: Annotated[int, Field(ge=2)] = 20
    crossover_probability: Probability = 0.9
    mutation_probability: Probability | None = None


class NSGA2(OptunaSearcher):
    """Evolves a population towards the Pareto front of score and costs, by non-dominated sorting and crowding distance.

    Where the space has no objectives it is an ordinary genetic algorithm. A generation is complete when as many
    architectures as the population holds have a score at the highest fidelity, whoever proposed them; those that a
    scheduler stopped have no children.

    Args:
        space: The search space.
        settings: How generations are made.
        seed: See :class:`ArchitectureSearcher`, as for the arguments that follow.
        metric: Name of the score.
        mode: "max" or "min".
        points_to_evaluate: Architectures to propose first; they belong to the first generation.
    """

    Settings = NSGA2Settings
    settings: NSGA2Settings
    weighs_costs = True
    makes = "child"

    def __init__(self, space: SearchSpace, **common: Any) -> None:
        super().__init__(space, **common)
        self.startup = self.settings.population

    def optuna_sampler(self, seed: int) -> NSGAIISampler:
        """Optuna's, with these settings."""
        return NSGAIISampler(
            population_size=self.settings.population,
            crossover_prob=self.settings.crossover_probability,
            mutation_prob=self.settings.mutation_probability,
            seed=seed,
        )

    def sample_trial(self, trial: Trial) -> Architecture:
        """All decisions at once: Optuna crosses only what all parents have, so inactive ones are inherited too."""
        return {name: str(trial.suggest_categorical(name, opts)) for name, opts in self.space.decisions.items()}

    def add_to_study(self, study: optuna.Study, entry: Entry, previous_status: str) -> None:
        """Adds a score at the highest fidelity as if Optuna had suggested it, so that it belongs to a generation."""
        if entry.status != "done" or entry.fidelity < self._full:
            return
        study.sampler = sampler = self.optuna_sampler(0)
        study.enqueue_trial(self._with_inactive(entry.architecture))
        trial = study.ask()
        self.sample_trial(trial)
        # Optuna assigns the generation when it samples.
        started = study.get_trials(deepcopy=False)[trial.number]
        sampler.sample_relative(study, started, sampler.infer_relative_search_space(study, started))
        study.tell(trial, [self.goodness(entry.score), *self.sampler.costs(entry.architecture)])

    def _with_inactive(self, architecture: Mapping[str, str]) -> Architecture:
        """An architecture with its inactive decisions, which are sampled."""
        rng = self.rng("nsga2", key(architecture))
        return {name: architecture.get(name) or rng.choice(opts) for name, opts in self.space.decisions.items()}
