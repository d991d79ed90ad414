"""RayNAS: neural architecture search on Ray Tune and PyTorch.

The names that a program usually needs. Each is imported when it is first used: a Tune trial that evaluates a table
imports parts of this package and must not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raynas.analysis.results import load_run
    from raynas.architecture import Architecture
    from raynas.config.loading import load as load_config
    from raynas.config.run import Config
    from raynas.data.dataset import Dataset, Split
    from raynas.exceptions import (
        ArchitectureError,
        CheckpointError,
        ConfigError,
        DataError,
        ExportError,
        InfeasibleError,
        RayNASError,
        TrainingDiverged,
    )
    from raynas.metrics import Metric
    from raynas.nn.choice import Choice, decisions
    from raynas.nn.protocols import inspect_space
    from raynas.nn.subnet import derive
    from raynas.runs.factory import prepare
    from raynas.runs.run import Run
    from raynas.search_space.space import SearchSpace
    from raynas.searchers.base import ArchitectureSearcher
    from raynas.tasks.base import Task
    from raynas.tune.evaluator import Evaluator

    __version__: str

__all__ = [
    "Architecture",
    "ArchitectureError",
    "ArchitectureSearcher",
    "CheckpointError",
    "Choice",
    "Config",
    "ConfigError",
    "DataError",
    "Dataset",
    "Evaluator",
    "ExportError",
    "InfeasibleError",
    "Metric",
    "RayNASError",
    "Run",
    "SearchSpace",
    "Split",
    "Task",
    "TrainingDiverged",
    "__version__",
    "decisions",
    "derive",
    "inspect_space",
    "load_config",
    "load_run",
    "prepare",
]

_HOMES = {
    "Architecture": "raynas.architecture",
    "ArchitectureError": "raynas.exceptions",
    "ArchitectureSearcher": "raynas.searchers.base",
    "CheckpointError": "raynas.exceptions",
    "Choice": "raynas.nn.choice",
    "Config": "raynas.config.run",
    "ConfigError": "raynas.exceptions",
    "DataError": "raynas.exceptions",
    "Dataset": "raynas.data.dataset",
    "Evaluator": "raynas.tune.evaluator",
    "ExportError": "raynas.exceptions",
    "InfeasibleError": "raynas.exceptions",
    "Metric": "raynas.metrics",
    "RayNASError": "raynas.exceptions",
    "Run": "raynas.runs.run",
    "SearchSpace": "raynas.search_space.space",
    "Split": "raynas.data.dataset",
    "Task": "raynas.tasks.base",
    "TrainingDiverged": "raynas.exceptions",
    "decisions": "raynas.nn.choice",
    "derive": "raynas.nn.subnet",
    "inspect_space": "raynas.nn.protocols",
    "load_config": "raynas.config.loading:load",  # where it has another name
    "load_run": "raynas.analysis.results",
    "prepare": "raynas.runs.factory",
}


if not TYPE_CHECKING:  # a type checker would take every name for one of these

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            return _version()
        if name in _HOMES:
            module, _, attribute = _HOMES[name].partition(":")
            return getattr(importlib.import_module(module), attribute or name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


def _version() -> str:
    """The version in the pyproject.toml of the source tree, or else of the installed distribution.

    The source tree comes first: another version may be installed beside it, and the metadata of an editable install
    are those of the day when it was made.
    """
    import re
    from importlib.metadata import version
    from pathlib import Path

    project = Path(__file__).resolve().parents[1] / "pyproject.toml"
    if project.is_file():
        found = re.search(r'^name = "raynas"\nversion = "([^"]+)"$', project.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1]
    return version("raynas")
