"""Warm start: a search that begins with what another run has found out about the same decisions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from raynas import results
from raynas.architecture import Architecture, ArchitectureError
from raynas.config import Config, ConfigError
from raynas.config_file import load
from raynas.named import resolve
from raynas.search import History
from raynas.searchers import ArchitectureSearcher, SearchSpace
from raynas.storage import fetch, remote

__all__ = ["read_source", "warm"]

Source = list[tuple[Architecture, dict[int, float]]]
"""Architectures with their scores by fidelity."""


def warm(
    make: Callable[..., ArchitectureSearcher], space: SearchSpace, config: Config, trainable: type[Any]
) -> Callable[..., ArchitectureSearcher]:
    """A maker of searchers that start with the scores of the run that ``search.warm_start`` names.

    Args:
        make: Makes the searcher.
        space: Where it searches.
        config: Of the run that is to start.
        trainable: What scores in it.

    Raises:
        ConfigError: There is no such run, it has no scores, or it searched among other decisions.
    """
    mode = _mode(trainable, config)
    source = read_source(_log(config), space, mode)

    def fresh(**keywords: Any) -> ArchitectureSearcher:
        searcher = make(**{"mode": mode, **keywords})
        searcher.warm_start(source)
        return searcher

    return fresh


def read_source(log: Path, space: SearchSpace, mode: str) -> Source:
    """The scores of a run, in the order in which they came in.

    Args:
        log: The folder scored.parquet of the run. Its settings, if they lie beside it, say whether its scores were to
            be high or low.
        space: Of the search that is to start.
        mode: Of that search: scores of the other mode change their sign.

    Raises:
        ConfigError: There are no scores, or architectures that ``space`` does not contain.
    """
    sign = 1.0 if _mode_beside(log, otherwise=mode) == mode else -1.0
    source: Source = []
    for rows in History(results.read(log), lambda _: True).ended.values():
        architecture = rows[0]["architecture"]
        try:
            space.form(architecture)
        except ArchitectureError as error:
            raise ConfigError(f"search.warm_start: {log.parent} searched among other decisions: {error}") from None
        scores = {row["fidelity"]: sign * row["score"] for row in rows if row["score"] is not None}
        if scores:
            source.append((architecture, scores))
    if not source:
        raise ConfigError(f"search.warm_start: there are no scores in {log}")
    return source


def _log(config: Config) -> Path:
    """The log that ``search.warm_start`` names: a run by its folder or its name, or the log itself."""
    given = str(config.search.warm_start)
    named = Path(given).expanduser()
    for folder in (named / "scored.parquet", named):
        if any(folder.glob("part-*.parquet")):
            return folder
    storage, _, name = given.rstrip("/").rpartition("/") if remote(given) else (config.storage_path, "", str(named))
    below = fetch(storage, name) / "scored.parquet"
    if any(below.glob("part-*.parquet")):
        return below
    raise ConfigError(f"search.warm_start: there is no run with scores in {named}; legal: a run's folder or its name")


def _mode_beside(log: Path, otherwise: str) -> str:
    """What the settings beside a log say of its scores."""
    kept = log.parent / "config.yaml"
    if not kept.exists():
        return otherwise
    try:
        config = load(kept)
        return _mode(resolve(config.search.trainable, "search.trainable"), config)
    except ConfigError as error:
        raise ConfigError(f"search.warm_start: in {kept}: {error}") from None


def _mode(trainable: Any, config: Config) -> str:
    if config.search.combine or not hasattr(trainable, "score_mode"):
        return "max"
    return str(trainable.score_mode(config.search))
