"""Rounds of a supernet training: between two stretches of steps they change which paths are trained.

The space is shrunk (:mod:`raynas.training.shrinking`), or a pool of architectures is renewed
(:mod:`raynas.training.pool`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from raynas.architecture import Architecture
from raynas.exceptions import CheckpointError
from raynas.training.path_sampling import PathSampler

__all__ = ["RoundContext", "TrainingRounds", "restore"]


class RoundContext(Protocol):
    """What a round may read and write of the training that waits for it."""

    def weights(self) -> dict[str, Tensor]:
        """The current shared weights."""

    def kept(self, name: str) -> dict[str, Tensor]:
        """Weights that were kept: "initial", or what :meth:`keep` was given.

        Raises:
            CheckpointError: There are none of that name.
        """

    def keep(self, name: str, weights: Mapping[str, Tensor]) -> None:
        """Keep weights beside the checkpoints."""

    def scores(self, architectures: Sequence[Architecture]) -> list[float]:
        """The scores of architectures on the validation data of the search, with the current shared weights."""


class TrainingRounds(Protocol):
    """Rounds, and the paths that they have left so far. Their state is saved in the checkpoints of the supernet."""

    def state(self) -> dict[str, Any]:
        """The state, as plain JSON data."""

    def load_state(self, state: Mapping[str, Any] | None) -> None:
        """Continue from what :meth:`state` returned; None for the beginning."""

    def paths(self) -> PathSampler:
        """The paths to train now."""

    def next_round(self, epoch_steps: int) -> float:
        """The training step before which the next round is due; infinite after the last one."""

    def round(self, training: RoundContext, step: int) -> None:
        """Carry out a round."""


def restore(rounds: TrainingRounds, state: Mapping[str, Any] | None, folder: Path) -> None:
    """Load the state that a checkpoint of a folder holds.

    Raises:
        CheckpointError: It has another shape, or is of another space.
    """
    try:
        rounds.load_state(state)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"the checkpoint in {folder} holds rounds that cannot be read ({why})") from error
