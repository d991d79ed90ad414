"""The driver's side of a supernet.

It starts the actors that train, writes their checkpoints, replaces those that die, and starts replicas that score
architectures.

    supernet = Supernet(space, data, config, folder)
    supernet.train(paths)                  # continues from the newest checkpoint in the folder
    replicas = supernet.replicas()         # actors; see SupernetActor.evaluate
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError, RayTaskError
from torch import Tensor, nn

from raynas.config.fingerprint import training_settings
from raynas.config.run import Config
from raynas.data.dataset import Data, to_arrays
from raynas.data.fingerprint import contents
from raynas.distributed import health as watch
from raynas.distributed.placement import Placement, place, place_ranks
from raynas.exceptions import CheckpointError, ConfigError, OptionDiverged, RayNASError, TrainingDiverged
from raynas.progress import TrainingStatus
from raynas.supernet.actor import ActorPayload
from raynas.supernet.actor_group import ActorGroup
from raynas.supernet.loop import SupernetLoop, SupernetTraining
from raynas.supernet.schedule import make_schedule
from raynas.supernet.worker import flatten_weights
from raynas.training import checkpoint
from raynas.training.path_sampling import PathSampler
from raynas.training.rounds import TrainingRounds, restore
from raynas.training.trainer import model_tensors

__all__ = ["Supernet"]

log = logging.getLogger(__name__)
_ROLLBACKS = 3
"""So often the learning rate is halved, before a loss that diverges ends a training."""


class Supernet:
    """One space, its data and its checkpoints.

    Args:
        space: The space with its initial weights.
        data: The data set; it goes through the object store once.
        config: The run's settings.
        folder: Where checkpoints and the training curve are kept.
        rounds: Change the paths while the supernet is trained; ``paths`` of :meth:`train` is then not used.
    """

    def __init__(
        self, space: nn.Module, data: Data, config: Config, folder: Path, rounds: TrainingRounds | None = None
    ) -> None:
        self.config, self.folder, self.rounds = config, folder, rounds
        self.recipe = config.train.resolved()
        self.settings = training_settings(config) | {"limits": config.limits, "data.contents": contents(data)}
        """What the weights depend on."""
        self._shapes = {name: tensor.to("meta") for name, tensor in space.state_dict().items()}
        self._payload = ActorPayload(ray.put(space), ray.put(to_arrays(data)))
        self.group = ActorGroup(config)
        """The actors that train or score now."""
        self._lr_factor = 1.0
        """Of the learning rate; see :meth:`train`."""

    @property
    def actors(self) -> list[Any]:
        """Handles of the actors that train or score now."""
        return self.group.actors

    @property
    def placement(self) -> Placement:
        """How many actors there are, and the resources of each."""
        return self.group.placement

    @property
    def finished(self) -> bool:
        """Whether it is trained to the end of its schedule."""
        saved = checkpoint.latest_header(self.folder, ("total",))
        return saved is not None and saved[0] == saved[1]["total"]

    def _latest(self) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """The newest checkpoint; its weights are those of the space."""
        saved = checkpoint.latest(self.folder, ("total",) if self.rounds is None else ("total", "rounds"))
        if saved is not None:
            checkpoint.check_fit(self.folder, model_tensors(saved[1]), self._shapes)
        return saved

    def train(
        self,
        paths: PathSampler,
        on_progress: Callable[[TrainingStatus], None] = lambda status: None,
        seconds: float | None = None,
    ) -> None:
        """Train to the end of the schedule, from the newest checkpoint if there is one.

        The schedule is shortened, and shortened further where the machines get slower, such that it takes ``seconds``
        at most, unless it has few steps.

        A worker that is lost is replaced, and the training continues from the last checkpoint. Where the loss is no
        longer a number, it continues from there with half the learning rate, at most three times. Ctrl-C saves a
        checkpoint first.

        Raises:
            TrainingDiverged: The loss is no longer a number, also with an eighth of the learning rate.
            RuntimeError: Workers were lost more than ``train.max_failures`` times without a checkpoint in between, or
                ran out of memory.
        """
        lost, reached = 0, -1
        self._lr_factor = 1.0
        end = math.inf if seconds is None else time.monotonic() + seconds
        while True:
            try:
                self._train(paths, on_progress, end)
                return
            except (RayActorError, RayTaskError, OutOfMemoryError, ObjectLostError, TrainingDiverged) as error:
                if not self._rolls_back(error):
                    lost, reached = self._count_lost(error, lost, reached)
            finally:
                self.close()
            self._wait_for_room()

    def _count_lost(self, error: Exception, lost: int, reached: int) -> tuple[int, int]:
        """How often workers were lost without a checkpoint in between, and the step of the newest checkpoint.

        Raises:
            Exception: It was no loss of a worker, or one too many.
        """
        if isinstance(error, TrainingDiverged):
            raise error
        # If one rank dies, another may raise first, because its connection broke.
        if isinstance(error, RayTaskError) and (_is_own(error) or not self.group.someone_died()):
            raise _readable(error) from error
        kept = checkpoint.newest(self.folder)
        lost = 1 if kept > reached else lost + 1
        if lost > self.recipe.max_failures:
            if _out_of_memory(error):  # Ray ended it
                raise _readable(error) from error
            raise RuntimeError(f"a training worker was lost {lost} times, the last one: {error}") from error
        log.warning("a training worker was lost; training goes on from the last checkpoint, step %d", kept)
        return lost, kept

    def _rolls_back(self, error: Exception) -> bool:
        """Whether the training goes on with half the learning rate, because its loss has diverged."""
        cause = error.cause if isinstance(error, RayTaskError) else error
        if not isinstance(cause, TrainingDiverged) or isinstance(cause, OptionDiverged):
            return False
        if self._lr_factor <= 0.5**_ROLLBACKS:
            return False
        self._lr_factor /= 2
        kept = checkpoint.newest(self.folder)
        log.warning("%s; training goes on from step %d with %g times the learning rate", cause, kept, self._lr_factor)
        return True

    def _wait_for_room(self, seconds: float = 120.0) -> None:
        """Wait until what was lost can be started again: a dead actor's resources come back, or another node joins."""
        deadline, warned = time.monotonic() + seconds, False
        while time.monotonic() < deadline:
            try:
                place_ranks(self.recipe)
                return
            except ConfigError as error:
                if not warned:
                    log.warning("%s; waiting for another node", error)
                    warned = True
                time.sleep(1.0)

    def _train(self, paths: PathSampler, on_progress: Callable[[TrainingStatus], None], end: float) -> None:
        saved = self._latest()
        if self.rounds is not None:
            restore(self.rounds, None if saved is None else saved[2]["rounds"], self.folder)
            paths = self.rounds.paths()
        if saved is not None and saved[0] == int(saved[2]["total"]):
            return
        if saved is not None:
            self._lr_factor = min(self._lr_factor, float(saved[2].get("lr_factor", 1.0)))
        epoch_steps = self._start(paths)
        step = 0
        if saved is not None:
            step = saved[0]
            tensors = ray.put(flatten_weights(saved[1]))
            self.group.gather([actor.load.remote(tensors, step) for actor in self.actors])
        else:
            initial = watch.get(self.actors[0].save.remote()).tensors()
            checkpoint.keep_initial(self.folder, model_tensors(initial))
        schedule = make_schedule(self.recipe, epoch_steps, end - time.monotonic(), {} if saved is None else saved[2])
        training = SupernetTraining(
            self.folder, self.recipe, self.settings, self.rounds, self.config.search.validation_images,
            self._lr_factor,
        )  # fmt: skip
        SupernetLoop(self.group, training, schedule, epoch_steps, on_progress).run_interruptibly(step)

    def _start(self, paths: PathSampler) -> int:
        """Start the training actors as ranks of one group; returns the steps of an epoch."""
        placement = place_ranks(self.recipe)
        self.group.launch(self._payload, placement, "supernet-train")
        address = watch.get(self.actors[0].address.remote())
        joined = [actor.join.remote(paths, rank, placement.count, address) for rank, actor in enumerate(self.actors)]
        return int(self.group.gather(joined)[0])

    def replicas(self) -> list[Any]:
        """Start actors that score with the trained weights; Ray restarts those that die.

        Raises:
            CheckpointError: The supernet is not trained to the end.
        """
        saved = self._latest()
        if saved is None or saved[0] != int(saved[2]["total"]):
            raise CheckpointError(f"there is no fully trained supernet in {self.folder}: run train-supernet first")
        self.close()
        self._payload = replace(self._payload, weights=ray.put(flatten_weights(model_tensors(saved[1]))))
        options = {
            "max_concurrency": 64,
            "max_restarts": -1,  # a restarted actor is built anew from its payload
            # A repeated request has the same answer; an architecture that kills every actor must fail in the end.
            "max_task_retries": 2,
        }
        self.group.launch(self._payload, self.place_replicas(), "supernet", **options)
        return self.actors

    def place_replicas(self) -> Placement:
        """Where the replicas will stand.

        Raises:
            ConfigError: The cluster cannot hold them.
        """
        recipe = self.recipe
        return place(self.config.search.replicas, gpus=recipe.gpus_per_worker, wait_minutes=recipe.wait_minutes)

    def close(self) -> None:
        """End the actors and release their resources."""
        self.group.close()


def _is_own(error: RayTaskError) -> bool:
    """Whether this is an error of the training itself, which no lost worker explains."""
    return isinstance(error.cause, (TrainingDiverged, ValueError)) or _out_of_memory(error.cause)


def _out_of_memory(error: BaseException) -> bool:
    """Whether the memory of a GPU or of the machine was too small; for the latter PyTorch has no type of error."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, (MemoryError, OutOfMemoryError)) or any(each in str(error).lower() for each in words)


def _readable(error: Exception) -> Exception:
    """What went wrong in a worker, in one line."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, RayNASError):
        return type(cause)(str(cause))
    if _out_of_memory(cause):
        first_line = (str(cause) or type(cause).__name__).strip().splitlines()[0]
        return RuntimeError(f"a training worker ran out of memory: lower train.batch_size ({first_line})")
    if isinstance(cause, ValueError):
        return ValueError(str(cause))
    return RuntimeError(f"a training worker failed: {type(cause).__name__}: {cause}")
