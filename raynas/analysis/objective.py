"""What the scores of a finished run are: as its log says, or for an earlier version as its settings do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raynas import results
from raynas.config.run import Config
from raynas.config.trust import foreign
from raynas.exceptions import ConfigError
from raynas.metrics import Objective, scored_by
from raynas.utils.imports import resolve

__all__ = ["earlier_objective", "objective_of"]


def objective_of(log: Path, config: Config | None, rows: Sequence[Mapping[str, Any]]) -> Objective:
    """What the scores in a log are, and whether high ones are good.

    Args:
        log: The folder of the log; it need not be there.
        config: The settings of the run; None where there are none beside the log.
        rows: Of the log.

    Raises:
        ConfigError: The log is of an earlier version, and its settings do not say it; or its parts contradict.
    """
    known = results.objective(log) if log.is_dir() else None
    return earlier_objective(log, config, rows) if known is None else known


def earlier_objective(log: Path, config: Config | None, rows: Sequence[Mapping[str, Any]]) -> Objective:
    """The objective of a log that does not say it, from the metric that its rows report and from its settings.

    Raises:
        ConfigError: The settings name an evaluator whose code is not part of RayNAS: it alone knows.
    """
    metric = scored_by(rows)
    if metric is not None:
        return Objective(metric.name, "min" if metric.mode == "min" else "max", metric.unit)
    if config is None:
        return Objective("score")
    search = config.search
    if search.combine:
        return Objective("combined rank")
    if search.mode is not None:
        return Objective("score", search.mode)
    if search.trainable_args.get("mode") in ("max", "min"):
        return Objective(str(search.trainable_args.get("metric", "score")), search.trainable_args["mode"])
    if not rows:
        return Objective("score")
    if "search.trainable" in foreign(config):
        raise ConfigError(
            f"{log} is of an earlier version of RayNAS and does not say whether high scores are good, which "
            f"{search.trainable} alone knows: resume the run once, which adds it (--resume {log.parent})"
        )
    found: Objective = resolve(search.trainable, "search.trainable").objective(config, None)
    return found
