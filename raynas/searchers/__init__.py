"""Searchers over architectures, one file each; every one is an ordinary ``ray.tune.search.Searcher``."""

from raynas.exceptions import UnsatisfiableError
from raynas.search_space.space import SearchSpace
from raynas.searchers.base import ArchitectureSearcher
from raynas.searchers.batch import BatchSearcher
from raynas.searchers.bayesian import Bayes, BayesSettings
from raynas.searchers.evolution import Evolution, EvolutionSettings
from raynas.searchers.local import LocalSearch
from raynas.searchers.nsga2 import NSGA2, NSGA2Settings
from raynas.searchers.predictor import Predictor, PredictorSettings
from raynas.searchers.random import RandomSearch
from raynas.searchers.regularized import RegularizedEvolution, RegularizedSettings
from raynas.searchers.reinforce import Reinforce, ReinforceSettings
from raynas.searchers.tpe import TPE

__all__ = [
    "NSGA2",
    "TPE",
    "ArchitectureSearcher",
    "BatchSearcher",
    "Bayes",
    "BayesSettings",
    "Evolution",
    "EvolutionSettings",
    "LocalSearch",
    "NSGA2Settings",
    "Predictor",
    "PredictorSettings",
    "RandomSearch",
    "RegularizedEvolution",
    "RegularizedSettings",
    "Reinforce",
    "ReinforceSettings",
    "SearchSpace",
    "UnsatisfiableError",
]
