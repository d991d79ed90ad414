"""Fingerprints: the settings that results depend on, as plain data that are kept beside the results."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from raynas.config.run import Config
from raynas.config.train import TrainConfig

__all__ = ["OPERATION", "Fingerprint", "changed", "flat", "recipe_settings", "scoring_settings", "training_settings"]

Fingerprint = dict[str, Any]


OPERATION = (
    *("workers", "gpus_per_worker", "cpus_per_worker", "wait_minutes"),
    *("checkpoint_seconds", "keep_checkpoints", "max_failures"),
)
"""Settings of ``train`` that a resumed run may change: where it runs, not what it computes."""


_PLACE_AND_SPEED = ("folder", "workers", "prefetch")
"""Settings of ``data`` that a resumed run may change."""
_SCORING = (
    "trainable", "trainable_args", "joint", "combine", "reference", "slices", "validation_images", "bn_images",
    "batch_size", "epochs", "mode",
)  # fmt: skip
"""What the scores depend on besides."""


def flat(settings: Any, prefix: str = "") -> Fingerprint:
    """A tree of dataclasses as one mapping from names with dots to values as JSON has them."""
    found: Fingerprint = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            found |= flat(value, f"{prefix}{field.name}.")
        else:
            found[prefix + field.name] = json.loads(json.dumps(value))
    return found


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The names of what differs. What only one side has tells nothing: another version of RayNAS wrote it."""
    return [name for name, value in after.items() if name in before and before[name] != json.loads(json.dumps(value))]


def training_settings(config: Config) -> Fingerprint:
    """What shared weights depend on."""
    found = {name: getattr(config, name) for name in ("space", "space_args", "exclude", "seed")}
    found |= {f"data.{name}": value for name, value in flat(config.data).items() if name not in _PLACE_AND_SPEED}
    plain: Fingerprint = json.loads(json.dumps(found))
    return plain | recipe_settings(config.train)


def recipe_settings(train: TrainConfig) -> Fingerprint:
    """What a training depends on, with what its preset fills in."""
    known = flat(train.resolved(), "train.")
    return {name: value for name, value in known.items() if name.removeprefix("train.") not in OPERATION}


def scoring_settings(config: Config) -> Fingerprint:
    """What scores depend on."""
    search = flat(dataclasses.replace(config.search), "search.")
    return training_settings(config) | {f"search.{name}": search[f"search.{name}"] for name in _SCORING}
