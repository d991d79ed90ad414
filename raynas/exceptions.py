"""Every public error of RayNAS."""

from __future__ import annotations

from typing import Any

__all__ = [
    "AngleError",
    "ArchitectureError",
    "CheckpointError",
    "ClusterLostError",
    "CodegenError",
    "ConfigError",
    "DataError",
    "ExportError",
    "ForwardError",
    "InfeasibleError",
    "LeaseLostError",
    "NotOwnedError",
    "OptionDiverged",
    "RayNASError",
    "SpaceError",
    "TableError",
    "TrainingDiverged",
    "UnsatisfiableError",
]


class RayNASError(Exception):
    """The base of all errors below: ``except raynas.RayNASError`` catches everything that RayNAS itself reports.

    Each is also the built-in error of its kind: a ValueError, a RuntimeError or an OSError.
    """


class ConfigError(RayNASError, ValueError):
    """A setting that does not exist or has an illegal value; one line per mistake."""


class SpaceError(ConfigError):
    """A model or a set of decisions that is no search space; the message names the choice, module or attribute."""


class DataError(RayNASError, ValueError):
    """A data set that is absent, damaged or of another form than it should be."""


class AngleError(RayNASError, ValueError):
    """A space whose weight angles cannot be computed; the message says what it lacks."""


class ArchitectureError(RayNASError, ValueError):
    """An architecture that its space does not contain; the message names the legal keys or options."""


class ForwardError(SpaceError):
    """A network of a space does not run; the message says which architecture, module and line of code."""


class CheckpointError(RayNASError, RuntimeError):
    """A checkpoint that is missing, or cannot be written or read; the message names the file or folder."""


class TableError(ConfigError):
    """A table that cannot be used; the message names the column and the row, counted from 0."""


class ExportError(RayNASError, ValueError):
    """A network that cannot be written in a format, or a file that computes something else than the network."""

    report: Any = None
    """What was written in other formats: :class:`raynas.export.formats.ExportReport`."""


class CodegenError(RayNASError, ValueError):
    """A network that cannot be written as plain torch code; the message names the unsupported part."""


class InfeasibleError(RayNASError, ValueError):
    """No architecture of the space meets the limits; the message names the limit, and the range of the space."""


class UnsatisfiableError(InfeasibleError):
    """Sampling found no architecture that meets the constraint; the message gives the smallest violation found."""


class LeaseLostError(RayNASError, RuntimeError):
    """Another process has resumed the run of this one: what this one writes would overwrite it."""


class ClusterLostError(RayNASError, RuntimeError):
    """A process of Ray itself, the raylet or the GCS, has died: nothing more can be computed on the cluster."""


class NotOwnedError(RayNASError, PermissionError):
    """A path outside the folders that RayNAS has created was to be removed or moved; nothing was changed."""


class TrainingDiverged(RayNASError, RuntimeError):
    """The loss is no longer a finite number; the message says at which step, and what to change."""


class OptionDiverged(TrainingDiverged):
    """An option of a space never had a finite loss; the message names it, and how to go on without it."""
