"""The supernet of a run: its actors, what changes its training between rounds, and its weight angles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raynas.config.run import Config
from raynas.evaluation.angle import Angles
from raynas.evaluation.angle_statistics import AngleStatistics
from raynas.exceptions import CheckpointError
from raynas.runs.network_space import NetworkSpace
from raynas.runs.problem import SearchProblem
from raynas.supernet.supernet import Supernet
from raynas.training import checkpoint
from raynas.training.factory import make_pool, make_shrinking, path_sampler
from raynas.training.path_sampling import PathSampler
from raynas.training.rounds import restore
from raynas.training.trainer import model_tensors

__all__ = ["RunSupernet"]


class RunSupernet:
    """The supernet of a run, a :class:`raynas.tune.evaluator.SupernetHandle`. No actor is started before it is needed.

    Args:
        config: The settings of the run.
        networks: The space and the data.
        problem: What is searched; a training that shrinks the space narrows it.
        folder: Of the supernet: checkpoints and the training curve.

    Raises:
        ConfigError: A setting of ``train.pool`` or ``train.shrink`` is illegal.
    """

    def __init__(self, config: Config, networks: NetworkSpace, problem: SearchProblem, folder: Path) -> None:
        self.folder = folder
        self._config, self._networks, self._problem = config, networks, problem
        self._actors: Supernet | None = None
        self.paths()
        self.shrinking = make_shrinking(
            config, networks.costs, problem.limits, self.angle_statistics, problem.violation
        )
        """Shrinks the space in the training; None without ``train.shrink``."""
        self.pool = make_pool(config, networks.costs, problem.searcher_between_rounds, networks.task.metric.mode)
        """Renews the architectures that are trained; None without ``train.pool``."""

    def load(self) -> None:
        """Where a finished training has shrunk the space, search what is left of it."""
        if self.shrinking is None:
            return
        saved = checkpoint.latest_header(self.folder, ("total", "rounds"))
        if saved is not None and saved[0] == saved[1]["total"]:
            restore(self.shrinking, saved[1]["rounds"], self.folder)
            self._problem.narrow(self.shrinking.decisions)

    @property
    def actors(self) -> Supernet:
        """The actors that host the space."""
        if self._actors is None:
            rounds = self.shrinking or self.pool
            networks = self._networks
            self._actors = Supernet(networks.space, networks.search_data, self._config, self.folder, rounds)
        return self._actors

    @property
    def finished(self) -> bool:
        """Whether it is trained to the end of its schedule."""
        saved = checkpoint.latest_header(self.folder, ("total",))
        return saved is not None and saved[0] == saved[1]["total"]

    def paths(self) -> PathSampler:
        """Which paths are trained; see ``train.paths``."""
        return path_sampler(self._config, self._networks.costs, self._problem.limits)

    def replicas(self) -> list[Any]:
        """Start actors that score with the trained weights."""
        return self.actors.replicas()

    @property
    def gpus_per_replica(self) -> float:
        """How many GPUs each replica holds."""
        return self.actors.placement.gpus

    def angle_statistics(self) -> AngleStatistics:
        """What computes the weight angles of the space.

        Raises:
            AngleError: The space has no rule for something in it.
        """
        return AngleStatistics(self._networks.space, self._networks.costs, self._config.train.affine)

    def check_angles(self) -> None:
        """Refuse what will have no weight angles, before anything is trained.

        Raises:
            AngleError: The space has no rule for something in it.
            CheckpointError: A training has begun without keeping its initial weights.
        """
        self.angle_statistics()
        checkpoint.check_initial(self.folder)

    def angles(self) -> Angles:
        """The weight angles of every architecture between the initial and the trained supernet.

        Raises:
            CheckpointError: The supernet has no weights, those of another space, or no initial ones.
        """
        saved = checkpoint.latest(self.folder)
        if saved is None:
            raise CheckpointError(f"there is no supernet in {self.folder}: run train-supernet first")
        weights = model_tensors(saved[1])
        checkpoint.check_fit(self.folder, weights, self._networks.space.state_dict())
        return self.angle_statistics().angles(checkpoint.read_initial(self.folder), weights)

    def close(self) -> None:
        """End the actors."""
        if self._actors is not None:
            self._actors.close()
