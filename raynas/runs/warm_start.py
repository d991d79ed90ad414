"""Warm start: a search that begins with what another run has found out about the same decisions."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from raynas import results
from raynas.architecture import Architecture
from raynas.config.fingerprint import changed
from raynas.config.loading import read
from raynas.config.run import Config
from raynas.config.trust import foreign, refuse
from raynas.config.types import NAMING, is_name
from raynas.exceptions import ArchitectureError, ConfigError
from raynas.metrics import scored_by
from raynas.results.files import DamagedError, read_json, sealed
from raynas.search_space.space import SearchSpace
from raynas.searchers import ArchitectureSearcher
from raynas.storage.atomic import replace_text
from raynas.storage.object_store import fetch, remote, split_uri
from raynas.tune.experiment import LoggedHistory
from raynas.tune.trainable_adapter import evaluator_of
from raynas.utils.imports import resolve

__all__ = ["Source"]

log = logging.getLogger(__name__)
Scores = list[tuple[Architecture, dict[int, float]]]
"""Architectures with their scores by fidelity."""
_KEPT = "warm_start.json"


class _File(TypedDict):
    """The content of warm_start.json."""

    named: str
    mode: Literal["max", "min"]
    scores: list[tuple[Architecture, dict[Annotated[str, Field(pattern=r"^\d{1,6}$")], float]]]


@dataclass(frozen=True)
class Source:
    """What another run has found out, as the run that starts with it sees it.

    It is read once: the run keeps it in a file of its own, goes on with the same, and needs the other one no more.
    """

    named: str
    """The other run, as ``search.warm_start`` names it."""
    mode: str
    """Whether the scores are to be high (max) or low (min)."""
    scores: Scores

    @classmethod
    def of(cls, config: Config, folder: Path, space: SearchSpace, mode: str) -> Source:
        """What the run of these settings has kept in its folder; else it is read from the run that they name.

        Args:
            config: Of the run that is to start.
            folder: Its folder, which need not be there yet.
            space: Where it searches.
            mode: Whether its scores are to be high (max) or low (min).

        Raises:
            ConfigError: There is no such run, it has no scores, or it searched among other decisions.
        """
        named, kept = str(config.search.warm_start), folder / _KEPT
        stored, damage = None, ""
        try:
            stored = read_json(kept, _File, f"{named} is read once more") if kept.is_file() else None
        except DamagedError as error:
            damage = str(error)
        if stored is not None and not changed(stored, {"named": named, "mode": mode}):
            scores = [(each, {int(step): score for step, score in found.items()}) for each, found in stored["scores"]]
            return cls(named, mode, scores)
        try:
            found = cls(named, mode, _read(_log(config), space, mode, config.search.trainable))
        except ConfigError as error:
            if damage:
                raise DamagedError(f"{damage}, but {error}") from None
            raise
        if damage:
            log.warning("%s", damage)
        return found

    def keep(self, folder: Path) -> None:
        """Write it into the folder of the run."""
        replace_text(folder / _KEPT, json.dumps(sealed(json.loads(json.dumps(asdict(self))))))

    def warm(self, make: Callable[..., ArchitectureSearcher]) -> Callable[..., ArchitectureSearcher]:
        """A maker of searchers that start with these scores."""

        def fresh(**keywords: Any) -> ArchitectureSearcher:
            searcher = make(**{"mode": self.mode, **keywords})
            searcher.warm_start(self.scores)
            return searcher

        return fresh


def _read(log: Path, space: SearchSpace, mode: str, trainable: str) -> Scores:
    """The scores of a run, in the order in which they were reported; of the other mode with another sign."""
    table = results.read(log)
    objective = results.objective(log) or scored_by(table.to_pylist())
    theirs = _mode_of_earlier_version(log, mode, trainable) if objective is None else objective.mode
    sign = 1.0 if theirs == mode else -1.0
    source: Scores = []
    for rows in LoggedHistory(table, lambda _: True).ended.values():
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
    try:
        for folder in (named / "scored.parquet", named):
            if any(folder.glob("part-*.parquet")):
                return folder
    except (OSError, ValueError):  # a name that is too long, or holds a NUL
        pass
    storage, name = split_uri(given) if remote(given) else (config.storage_path, given)
    missing = f"search.warm_start: there is no run with scores in {given}; legal: a run's folder or its name"
    if not is_name(name):
        raise ConfigError(
            f"{missing} ({NAMING})" if given.isprintable() else f"search.warm_start = {given!r}: {NAMING}"
        )
    below = fetch(storage, name) / "scored.parquet"
    if any(below.glob("part-*.parquet")):
        return below
    raise ConfigError(missing)


def _mode_of_earlier_version(log: Path, otherwise: str, trainable: str) -> str:
    """The mode of a log that does not say it, by the settings beside it.

    These may name the trainable of this run, or RayNAS' own; others are not run.
    """
    kept = log.parent / "config.yaml"
    if not kept.exists():
        return otherwise
    try:
        config = read(kept)
        if config.search.trainable != trainable and "search.trainable" in foreign(config):
            refuse({"search.trainable": config.search.trainable}, kept)
        evaluator = evaluator_of(resolve(config.search.trainable, "search.trainable"), config)
        return "max" if config.search.combine else evaluator.objective(config, None).mode
    except ConfigError as error:
        raise ConfigError(f"search.warm_start: in {kept}: {error}") from None
