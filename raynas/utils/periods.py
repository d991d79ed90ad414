"""How often what happens by the clock happens: one place for all of it.

``RAYNAS_PERIODS`` in the environment replaces some of them, as pairs ``name=seconds``; names are the fields of
:class:`Periods`. Ray hands the environment of the driver to the processes that it starts on this machine, so workers
see it, too. What a run itself decides is a setting instead: ``train.checkpoint_seconds``.
"""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass

__all__ = ["PERIODS", "Periods"]

VARIABLE = "RAYNAS_PERIODS"


@dataclass(frozen=True)
class Periods:
    """All periods in seconds."""

    log: float = 1.0
    """Between two parts of the log; grows with the number of parts, up to ``slowest_log``."""
    slowest_log: float = 10.0
    """The longest time between two parts of the log."""
    mirror: float = 2.0
    """Between two looks for files that must be sent to an object store."""
    metrics: float = 5.0
    """Until a gauge is set again: Ray serves only those that were set in the last 10 s."""
    view: float = 0.2
    """Between two updates of the live view of a search."""
    line: float = 10.0
    """Between two lines where there is no terminal."""
    chunk: float = 1.0
    """How long a training runs between two looks at the clock: the shortest time between two of its checkpoints."""
    leaving: float = 10.0
    """Between two checkpoints while a node is leaving the cluster."""
    look: float = 5.0
    """Until whoever waits for an answer looks whether somebody is there to give it."""
    alive: float = 1.0
    """Between two looks whether Ray's own processes are alive."""
    watch: float = 0.5
    """Between two looks into the training curve that the workers of a retraining write."""
    linger: float = 30.0
    """For which the weights of a trial that has ended are kept: by then the log tells of its end."""
    again: float = 0.5
    """Until storage that refused is asked again."""
    snapshot: float = 600.0
    """Between two snapshots that Tune makes of its own state."""

    @classmethod
    def read(cls, text: str) -> Periods:
        """The defaults with some of them replaced.

        Args:
            text: For example ``"log=0.1 mirror=0.5"``; commas may separate, too.

        Raises:
            ValueError: An unknown name, or no number of seconds above 0.
        """
        legal, values = [field.name for field in dataclasses.fields(cls)], {}
        for word in text.replace(",", " ").split():
            name, _, value = word.partition("=")
            if name not in legal:
                raise ValueError(f"{VARIABLE} has an unknown name {name!r}; legal ones: {', '.join(legal)}")
            try:
                seconds = float(value)
            except ValueError:
                seconds = math.nan
            if not 0 < seconds < math.inf:
                raise ValueError(f"{VARIABLE}: {word!r} must be name=seconds, with seconds above 0")
            values[name] = seconds
        return cls(**values)


PERIODS = Periods.read(os.environ.get(VARIABLE, ""))
"""Those of this process."""
