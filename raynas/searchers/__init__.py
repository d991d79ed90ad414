"""Searchers over architectures, one file each; every one is an ordinary ``ray.tune.search.Searcher``."""

from raynas.searchers.base import ArchitectureSearcher
from raynas.searchers.cohort import Cohort
from raynas.searchers.drawing import SearchSpace, UnsatisfiableError
from raynas.searchers.evolution import Evolution, EvolutionSettings
from raynas.searchers.random import RandomSearch
from raynas.searchers.tpe import TPE

__all__ = [
    "TPE",
    "ArchitectureSearcher",
    "Cohort",
    "Evolution",
    "EvolutionSettings",
    "RandomSearch",
    "SearchSpace",
    "UnsatisfiableError",
]
