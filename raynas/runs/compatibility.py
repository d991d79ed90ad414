"""What results depend on: settings as plain data that are kept beside the results, and compared before they are used.

A fingerprint is a flat mapping from the names of settings to their values. It is written into checkpoints, into the
parts of the log, and into whatever else is computed once and used again. So a change is noticed wherever it was made,
also in ``config.yaml`` by hand, and can be named.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raynas import results
from raynas.config.fingerprint import Fingerprint, changed, scoring_settings, training_settings
from raynas.config.run import Config
from raynas.exceptions import ConfigError
from raynas.training import checkpoint

__all__ = [
    "begun",
    "refuse_changes",
]

log = logging.getLogger(__name__)
_CURE = "set them back (in config.yaml, or on the command line), or start a new run"


def begun(folder: Path) -> bool:
    """Whether the folder of a run holds weights or scores."""
    return any(any(folder.rglob(kind)) for kind in ("step-*.safetensors", "scored.parquet/*.parquet"))


def refuse_changes(folder: Path, before: Config, after: Config, data: str | None = None) -> None:
    """What weights and scores depend on must stay: else they would not belong together.

    Args:
        folder: Of the run.
        before: The settings in its config.yaml: for what was written before fingerprints were.
        after: Those it is to go on with.
        data: The :func:`contents` of the data, where they are known.

    Raises:
        ConfigError: There are weights or scores, and settings that they depend on differ; they are named.
    """
    _refuse_other_weights(folder / "supernet", before, after, data)
    for name in ("scored.parquet", "sample"):
        kept = results.settings(folder / name) if any((folder / name).glob("*.parquet")) else {}
        for part, settings in kept.items():
            now = _now(scoring_settings, after, settings or {}, data)
            differ = changed(scoring_settings(before) if settings is None else settings, now)
            if differ and not (name == "sample" and settings is None):
                raise ConfigError(
                    f"{_named(differ)} differ from the settings under which the architectures in {folder} were scored "
                    f"({name}/{part}): the scores would not compare; {_CURE}"
                )


def _refuse_other_weights(supernet: Path, before: Config, after: Config, data: str | None) -> None:
    trained = checkpoint.latest_header(supernet)
    if trained is None:
        return
    settings = trained[1].get("settings")
    was = training_settings(before) | {"limits": before.limits} if settings is None else settings
    now = _now(training_settings, after, settings or {}, data)
    differ = changed(was, now)
    if trained[0] != trained[1].get("total") and changed(was, {"limits": after.limits}):
        differ.append("limits (which paths are trained depends on them; finish the training first)")
    if differ:
        raise ConfigError(f"{_named(differ)} differ from the settings under which {supernet} was trained: {_CURE}")


def _now(settings: Any, config: Config, kept: Mapping[str, Any], data: str | None) -> Fingerprint:
    preset = kept.get("train.preset")
    if config.train.preset == "auto" and preset is not None:  # the data decide, and have decided before
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, preset=preset))
    found: Fingerprint = settings(config)
    return found if data is None else found | {"data.contents": data}


def _named(names: list[str]) -> str:
    told = {"data.contents": "data.folder or what it holds (other labels than before)"}
    return ", ".join(told.get(name, name) for name in names)


def warn_if_unknown(folder: Path) -> None:
    """Say where weights or scores were written by a version that kept no fingerprints."""
    trained = checkpoint.latest_header(folder / "supernet")
    kept = results.settings(folder / "scored.parquet") if (folder / "scored.parquet").is_dir() else {}
    known = [*kept.values(), *([] if trained is None else [trained[1].get("settings")])]
    if known and all(settings is None for settings in known):
        log.warning(
            "%s was made by an earlier version of RayNAS: that its config.yaml was not edited since cannot be checked",
            folder,
        )
