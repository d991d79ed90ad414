"""The actors that host a space with its shared weights: what others call, and nothing that computes.

Ray loads the class of an actor into every process that holds a handle, thin trials among them. So the class imports no
torch: :mod:`raynas.supernet.worker`, which does the work, is loaded where the actor runs.
"""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from raynas.architecture import Architecture
from raynas.config.run import Config

if TYPE_CHECKING:  # torch comes with these
    from torch import nn

    from raynas.supernet.worker import FlatWeights, SupernetWorker
    from raynas.training.path_sampling import PathSampler
    from raynas.training.trainer import Progress

__all__ = ["ActorPayload", "SupernetActor"]


@dataclass(frozen=True)
class ActorPayload:
    """References to what an actor hosts; whoever holds this keeps it alive for actors that Ray restarts."""

    space: ray.ObjectRef[nn.Module]
    arrays: ray.ObjectRef[Mapping[str, Any]]
    """The data set, as ``to_arrays`` returned it: actors see views of the node's shared memory."""
    weights: ray.ObjectRef[FlatWeights] | None = None
    """Trained weights, in place of the initial ones of ``space``."""

    def pack(self) -> bytes:
        """The references as bytes. Given as they are, Ray would warn of every actor that they may be lost."""
        return bytes(ray.cloudpickle.dumps(self))


class SupernetActor:
    """One process that hosts the space. Trains as a rank among others, or scores as a replica among others.

    Args:
        packed: What :meth:`ActorPayload.pack` returned. It comes with the constructor: an actor that Ray restarts has
            it too.
        config: The run's settings.
        name: Shown in Ray's dashboard and in the log.
    """

    def __init__(self, packed: bytes, config: Config, name: str) -> None:
        self.name = name
        self.worker: SupernetWorker = importlib.import_module("raynas.supernet.worker").SupernetWorker.unpack(
            packed, config, name
        )

    def __repr__(self) -> str:
        return getattr(self, "name", "supernet")  # Ray calls this before __init__ ran, where that fails

    def process(self) -> int:
        """The id of this process on its node."""
        return os.getpid()

    def address(self) -> str:
        """``tcp://host:port`` at which the ranks of a training may meet in this process."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        return f"tcp://{ray.util.get_node_ip_address()}:{port}"

    def join(self, paths: PathSampler | None, rank: int, world: int, address: str) -> int:
        """Become rank ``rank`` of ``world`` and prepare to train; returns the steps of an epoch."""
        return self.worker.join(paths, rank, world, address)

    def follow(self, paths: PathSampler) -> None:
        """Train other paths from now on."""
        self.worker.follow(paths)

    def train(self, until: int, total: int, lr_factor: float = 1.0) -> Progress:
        """Train up to step ``until`` of a schedule of ``total`` steps. Steps already done are not repeated."""
        return self.worker.train(until, total, lr_factor)

    def save(self) -> FlatWeights:
        """All tensors of a checkpoint: weights and momentum."""
        return self.worker.save()

    def load(self, tensors: FlatWeights, step: int) -> None:
        """Continue from what ``save`` returned at ``step``."""
        self.worker.load(tensors, step)

    def evaluate(self, architectures: Sequence[Architecture], number: int) -> list[dict[str, float | str]]:
        """Answer slice ``number`` of the validation images with each architecture.

        Safe to call from many trials at once: they are answered together.

        Returns:
            For each architecture ``correct``, ``images``, ``loss``, ``seconds`` (its share) and ``worker``; where one
            among several could not be scored, ``error`` instead.
        """
        return self.worker.evaluate(architectures, number)

    def rescore(self, architectures: Sequence[Architecture], images: int | None = None) -> list[float]:
        """The scores on all validation data, or so many images or words, with the weights of now."""
        return self.worker.rescore(architectures, images)

    def waiting(self) -> int:
        """Number of requests that are being answered or wait; trials choose their replica by it."""
        return self.worker.waiting()
