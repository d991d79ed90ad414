"""Every public error of RayNAS."""

from __future__ import annotations

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
    "TableError",
    "TrainingDiverged",
    "UnsatisfiableError",
]


class ConfigError(ValueError):
    """A setting that does not exist or has an illegal value; one line per mistake."""


class DataError(ValueError):
    """A data set that is absent, damaged or of another form than it should be."""


class AngleError(ValueError):
    """A space whose angles cannot be told; the message says what it lacks."""


class ArchitectureError(ValueError):
    """An architecture that its space does not contain; the message names the legal keys or options."""


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written or read; the message names the file."""


class TableError(ConfigError):
    """A table that cannot be used; the message names the column and the row, counted from 0."""


class ExportError(ValueError):
    """A network that cannot be written in a format, or a file that computes something else than the network."""


class CodegenError(ValueError):
    """A network that cannot be written as plain torch code; the message says what stands in the way."""


class InfeasibleError(ValueError):
    """No architecture of the space keeps the limits; the message says which limit, and what the space offers."""


class UnsatisfiableError(ValueError):
    """No architecture of the space was found that meets the constraint; the message says how close it came."""


class LeaseLostError(RuntimeError):
    """Somebody else has gone on with the run of a driver: what this one writes would overwrite it."""


class TrainingDiverged(RuntimeError):
    """The loss is no longer a number; the message says at which step and what to change."""
