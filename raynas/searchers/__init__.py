"""Searchers over architectures, a file or a folder each; every one is an ordinary ``ray.tune.search.Searcher``."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raynas.searchers.base import ArchitectureSearcher
    from raynas.searchers.batch import BatchSearcher
    from raynas.searchers.bayesian import Bayes, BayesSettings
    from raynas.searchers.evolution import Evolution, EvolutionSettings
    from raynas.searchers.local import LocalSearch
    from raynas.searchers.nao.searcher import NAO
    from raynas.searchers.nao.settings import NAOSettings
    from raynas.searchers.optuna.nsga2 import NSGA2, NSGA2Settings
    from raynas.searchers.optuna.tpe import TPE
    from raynas.searchers.predictor import Predictor, PredictorSettings
    from raynas.searchers.random import RandomSearch
    from raynas.searchers.regularized import RegularizedEvolution, RegularizedSettings
    from raynas.searchers.reinforce import Reinforce, ReinforceSettings

__all__ = [
    "NAO",
    "NSGA2",
    "TPE",
    "ArchitectureSearcher",
    "BatchSearcher",
    "Bayes",
    "BayesSettings",
    "Evolution",
    "EvolutionSettings",
    "LocalSearch",
    "NAOSettings",
    "NSGA2Settings",
    "Predictor",
    "PredictorSettings",
    "RandomSearch",
    "RegularizedEvolution",
    "RegularizedSettings",
    "Reinforce",
    "ReinforceSettings",
]

_HOMES = {
    "ArchitectureSearcher": "raynas.searchers.base",
    "BatchSearcher": "raynas.searchers.batch",
    "Bayes": "raynas.searchers.bayesian",
    "BayesSettings": "raynas.searchers.bayesian",
    "Evolution": "raynas.searchers.evolution",
    "EvolutionSettings": "raynas.searchers.evolution",
    "LocalSearch": "raynas.searchers.local",
    "NAO": "raynas.searchers.nao.searcher",
    "NAOSettings": "raynas.searchers.nao.settings",
    "NSGA2": "raynas.searchers.optuna.nsga2",
    "NSGA2Settings": "raynas.searchers.optuna.nsga2",
    "Predictor": "raynas.searchers.predictor",
    "PredictorSettings": "raynas.searchers.predictor",
    "RandomSearch": "raynas.searchers.random",
    "RegularizedEvolution": "raynas.searchers.regularized",
    "RegularizedSettings": "raynas.searchers.regularized",
    "Reinforce": "raynas.searchers.reinforce",
    "ReinforceSettings": "raynas.searchers.reinforce",
    "TPE": "raynas.searchers.optuna.tpe",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
