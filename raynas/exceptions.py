"""Every public error of RayNAS."""

from __future__ import annotations

from typing import Any

__all__ = [
    "AngleError",
    "ArchitectureError",
    "CheckpointError",
    "CodegenError",
    "ConfigError",
    "DataError",
    "ExportError",
    "InfeasibleError",
    "LeaseLostError",
    "RayNASError",
    "SpaceError",
    "TableError",
    "TrainingDiverged",
    "UnsatisfiableError",
]


class RayNASError(Exception):
    """What every error below is: ``except raynas.RayNASError`` catches whatever RayNAS itself refuses.

    Each is also the built-in error that its kind of fault has in Python, a ValueError or a RuntimeError.
    """


class ConfigError(RayNASError, ValueError):
    """A setting that does not exist or has an illegal value; one line per mistake."""


class DataError(RayNASError, ValueError):
    """A data set that is absent, damaged or of another form than it should be."""


class AngleError(RayNASError, ValueError):
    """A space whose angles cannot be told; the message says what it lacks."""


class ArchitectureError(RayNASError, ValueError):
    """An architecture that its space does not contain; the message names the legal keys or options."""


class SpaceError(RayNASError, ValueError):
    """A space that cannot be searched as it is; the message names the module or the attribute, and what to change."""


class CheckpointError(RayNASError, RuntimeError):
    """A checkpoint that cannot be written or read; the message names the file."""


class TableError(ConfigError):
    """A table that cannot be used; the message names the column and the row, counted from 0."""


class ExportError(RayNASError, ValueError):
    """A network that cannot be written in a format, or a file that computes something else than the network."""

    report: Any = None
    """What was written in other formats: :class:`raynas.export.formats.ExportReport`."""


class CodegenError(RayNASError, ValueError):
    """A network that cannot be written as plain torch code; the message says what stands in the way."""


class InfeasibleError(RayNASError, ValueError):
    """No architecture of the space keeps the limits; the message says which limit, and what the space offers."""


class UnsatisfiableError(RayNASError, ValueError):
    """No architecture of the space was found that meets the constraint; the message says how close it came."""


class LeaseLostError(RayNASError, RuntimeError):
    """Somebody else has gone on with the run of a driver: what this one writes would overwrite it."""


class TrainingDiverged(RayNASError, RuntimeError):
    """The loss is no longer a number; the message says at which step and what to change."""
