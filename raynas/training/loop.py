"""The loop of every training: chunks of about a second, a report after each, a checkpoint when one is due."""

from __future__ import annotations

import abc
import time

from raynas.distributed.nodes import PreemptionNotice
from raynas.training.trainer import Progress
from raynas.utils.periods import PERIODS

__all__ = ["TrainingLoop"]


class TrainingLoop(abc.ABC):
    """Trains in chunks, so that progress is reported and checkpoints are written while a training runs.

    A checkpoint is due every ``checkpoint_seconds``, after the last step, and at once when a node receives a preemption
    notice. Subclasses implement the training of a chunk and the writing of a checkpoint.

    Args:
        checkpoint_seconds: The time between two checkpoints; infinity: only for the other two reasons.
        notice: Whether a node must leave the cluster.
    """

    def __init__(self, checkpoint_seconds: float, notice: PreemptionNotice) -> None:
        self._checkpoint_seconds, self._notice = checkpoint_seconds, notice

    @abc.abstractmethod
    def total(self) -> int:
        """The last step; it may change from chunk to chunk."""

    def pause(self, step: int) -> float:
        """A step after ``step`` at which a chunk must end; what is due at ``step`` itself is done in this call."""
        return float("inf")

    @abc.abstractmethod
    def train(self, until: int) -> Progress:
        """Train up to step ``until``."""

    def after_chunk(self, progress: Progress) -> None:  # noqa: B027 - a report is optional
        """Report a chunk; called before its checkpoint."""

    def saves(self) -> bool:
        """Whether this process may write a checkpoint after this chunk; of several ranks one does."""
        return True

    @abc.abstractmethod
    def save(self, step: int) -> None:
        """Write a checkpoint."""

    def run(self, step: int) -> None:
        """Train from ``step`` to the end."""
        last_save, chunk = time.monotonic(), 1
        while step < self.total():
            until = int(min(self.pause(step), step + chunk, self.total()))
            progress = self.train(until)
            step = until
            self.after_chunk(progress)
            chunk = progress.next_chunk(chunk, PERIODS.chunk)
            if not self.saves():
                continue
            due = step == self.total() or time.monotonic() - last_save >= self._checkpoint_seconds
            if due or self._notice.given():
                self.save(step)
                last_save = time.monotonic()
