"""NSGA-II (Deb et al., IEEE Transactions on Evolutionary Computation 6(2), 2002) by Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.samplers import NSGAIISampler
from optuna.trial import Trial

from raynas.architecture import Architecture, key
from raynas.search_space.space import SearchSpace
from raynas.searchers.checks import check_counts, check_numbers, check_ranges
from raynas.searchers.history import Entry
from raynas.searchers.optuna import OptunaSearcher

__all__ = ["NSGA2", "NSGA2Settings"]


@dataclass(frozen=True)
class NSGA2Settings:
    """How generations are made.

    Attributes:
        population: Architectures in each generation; those of the first one are random.
        crossover_probability: Chance that a child has two parents and not one.
        mutation_probability: Chance of each decision to change; default: one decision in the mean.

    Raises:
        ValueError: A population below 2, or a probability outside 0 to 1.
    """

    population: int = 20
    crossover_probability: float = 0.9
    mutation_probability: float | None = None

    def __post_init__(self) -> None:
        check_counts(self, {"population": 2})
        chances = [
            "crossover_probability",
            *(["mutation_probability"] if self.mutation_probability is not None else []),
        ]
        check_numbers(self, chances)
        check_ranges(self, {name: (0.0 <= getattr(self, name) <= 1.0, "from 0 to 1") for name in chances})


class NSGA2(OptunaSearcher):
    """Evolves a population towards the front of score and costs: sorted front by front, in each the lonely ones first.

    Where the space has no objectives it is an ordinary genetic algorithm. A generation is complete when so many
    architectures have a full score, whoever proposed them; those that a scheduler stopped have no children.

    Args:
        space: What may be proposed.
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

    def answer(self, trial: Trial) -> Architecture:
        """All decisions at once: Optuna crosses only what all parents have, so inactive ones are inherited too."""
        return {name: str(trial.suggest_categorical(name, opts)) for name, opts in self.space.decisions.items()}

    def tell(self, study: optuna.Study, entry: Entry, before: str) -> None:
        """Enter a full score, as if Optuna had suggested its architecture: so it belongs to a generation."""
        if entry.status != "done" or entry.fidelity < self._full:
            return
        study.sampler = sampler = self.optuna_sampler(0)
        study.enqueue_trial(self._whole(entry.architecture))
        trial = study.ask()
        self.answer(trial)
        # Not asked for a child, Optuna would leave it without a generation.
        begun = study.get_trials(deepcopy=False)[trial.number]
        sampler.sample_relative(study, begun, sampler.infer_relative_search_space(study, begun))
        study.tell(trial, [self.goodness(entry.score), *self.sampler.costs(entry.architecture)])

    def _whole(self, architecture: Mapping[str, str]) -> Architecture:
        """An architecture with its inactive decisions, which are drawn."""
        rng = self.rng("nsga2", key(architecture))
        return {name: architecture.get(name) or rng.choice(opts) for name, opts in self.space.decisions.items()}
