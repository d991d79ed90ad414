"""The driver's side of a supernet.

It starts the actors that train, keeps their checkpoints, replaces those that die, and hands out replicas that score
architectures.

    supernet = Supernet(space, data, config, folder)
    supernet.train(paths)                  # goes on from the newest checkpoint in the folder
    replicas = supernet.replicas()         # actors; see SupernetActor.evaluate
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError, RayTaskError
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch import Tensor, nn

from raynas.architecture import Architecture
from raynas.config.fingerprint import training_settings
from raynas.config.run import Config
from raynas.data.contents import contents
from raynas.data.dataset import Data, to_arrays
from raynas.distributed import health as watch
from raynas.distributed.nodes import PreemptionNotice
from raynas.distributed.placement import Placement, place, place_ranks, reserve
from raynas.exceptions import CheckpointError, ConfigError, RayNASError, TrainingDiverged
from raynas.progress import TrainingStatus
from raynas.storage.atomic import append_line, replace_text
from raynas.supernet.actor import ActorPayload, SupernetActor
from raynas.supernet.schedule import Schedule, make_schedule
from raynas.supernet.worker import flatten_weights
from raynas.training import checkpoint
from raynas.training.loop import TrainingLoop
from raynas.training.path_sampling import PathSampler
from raynas.training.phases import TrainingRounds, restore
from raynas.training.trainer import Progress, model_tensors

__all__ = [
    "Supernet",
]

log = logging.getLogger(__name__)


class Supernet:
    """One space, its data and its checkpoints.

    Args:
        space: The space with its initial weights.
        data: The data set; it goes through the object store once.
        config: The run's settings.
        folder: Where checkpoints and the training curve are kept.
        rounds: Change what is trained as the training goes on; the paths to train are then theirs.
    """

    def __init__(
        self, space: nn.Module, data: Data, config: Config, folder: Path, rounds: TrainingRounds | None = None
    ) -> None:
        self.config, self.folder, self.rounds = config, folder, rounds
        self.recipe = config.train.resolved()
        self.settings = training_settings(config) | {"limits": config.limits, "data.contents": contents(data)}
        """What the weights depend on."""
        self._shapes = {name: tensor.to("meta") for name, tensor in space.state_dict().items()}
        self._hosted = ActorPayload(ray.put(space), ray.put(to_arrays(data)))
        self.actors: list[Any] = []
        """Handles of the :class:`SupernetActor` that train or score now."""
        self.where = Placement(0, 0.0, 0.0)
        """How many they are, and what each of them holds."""
        self._room: PlacementGroup | None = None

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

        A worker that is lost is replaced, and the training goes on from the last checkpoint. Ctrl-C saves a
        checkpoint first.

        Raises:
            TrainingDiverged: The loss is no longer a number.
            RuntimeError: Workers were lost more than ``train.max_failures`` times without a checkpoint in between, or
                ran out of memory.
        """
        lost, reached = 0, -1
        end = math.inf if seconds is None else time.monotonic() + seconds
        while True:
            try:
                self._train(paths, on_progress, end)
                return
            except (RayActorError, RayTaskError, OutOfMemoryError, ObjectLostError) as error:
                # Where one rank dies, another may be the first to say so: its connection broke.
                if isinstance(error, RayTaskError) and (_is_own(error) or not self._someone_died()):
                    raise _readable(error) from error
                kept = checkpoint.newest(self.folder)
                lost, reached = 1 if kept > reached else lost + 1, kept
                if lost > self.recipe.max_failures:
                    if _out_of_memory(error):  # Ray ended it
                        raise _readable(error) from error
                    raise RuntimeError(f"a training worker was lost {lost} times, the last one: {error}") from error
                log.warning("a training worker was lost; training goes on from the last checkpoint, step %d", kept)
            finally:
                self.close()
            self._wait_for_room()

    def _someone_died(self, seconds: float = 60.0) -> bool:
        """Whether one of the actors is gone; those that are busy do not answer, and live.

        Of a node that went Ray says so only when it has not answered for a while.
        """
        deadline, left = time.monotonic() + seconds, [actor.process.remote() for actor in self.actors]
        while left and time.monotonic() < deadline:
            ready, left = ray.wait(left, timeout=1.0)
            try:
                watch.get(ready)
            except (RayActorError, OutOfMemoryError):
                return True
        return False

    def _wait_for_room(self, seconds: float = 120.0) -> None:
        """Wait until what was lost can be started again: a dead actor's resources come back, or another node joins."""
        deadline, told = time.monotonic() + seconds, False
        while time.monotonic() < deadline:
            try:
                place_ranks(self.recipe)
                return
            except ConfigError as error:
                if not told:
                    log.warning("%s; waiting for another node", error)
                    told = True
                time.sleep(1.0)

    def _train(self, paths: PathSampler, on_progress: Callable[[TrainingStatus], None], end: float) -> None:
        saved = self._latest()
        if self.rounds is not None:
            restore(self.rounds, None if saved is None else saved[2]["rounds"], self.folder)
            paths = self.rounds.paths()
        if saved is not None and saved[0] == int(saved[2]["total"]):
            return
        epoch_steps = self._start(paths)
        step = 0
        if saved is not None:
            step = saved[0]
            tensors = ray.put(flatten_weights(saved[1]))
            self.everyone([actor.load.remote(tensors, step) for actor in self.actors])
        else:
            initial = watch.get(self.actors[0].save.remote()).tensors()
            checkpoint.keep_initial(self.folder, model_tensors(initial))
        schedule = make_schedule(self.recipe, epoch_steps, end - time.monotonic(), {} if saved is None else saved[2])
        _SupernetLoop(self, schedule, epoch_steps, on_progress).run_interruptibly(step)

    def _start(self, paths: PathSampler) -> int:
        """Start the training actors as ranks of one group; returns the steps of an epoch."""
        recipe = self.recipe
        where = place_ranks(recipe)
        self._launch(where, "supernet-train")
        address = watch.get(self.actors[0].address.remote())
        joined = [actor.join.remote(paths, rank, where.count, address) for rank, actor in enumerate(self.actors)]
        return int(self.everyone(joined)[0])

    def replicas(self) -> list[Any]:
        """Start actors that score with the trained weights; Ray restarts those that die.

        Raises:
            CheckpointError: The supernet is not trained to the end.
        """
        saved = self._latest()
        if saved is None or saved[0] != int(saved[2]["total"]):
            raise CheckpointError(f"there is no fully trained supernet in {self.folder}: run train-supernet first")
        self.close()
        self._hosted = replace(self._hosted, weights=ray.put(flatten_weights(model_tensors(saved[1]))))
        where = self.place_replicas()
        # A restarted actor is built anew from what it hosts, and a repeated question has the same answer. An
        # architecture that kills every actor that scores it must fail in the end.
        self._launch(where, "supernet", max_concurrency=64, max_restarts=-1, max_task_retries=2)
        return self.actors

    def place_replicas(self) -> Placement:
        """Where the replicas will stand.

        Raises:
            ConfigError: The cluster cannot hold them.
        """
        recipe = self.recipe
        return place(self.config.search.replicas, gpus=recipe.gpus_per_worker, wait_minutes=recipe.wait_minutes)

    def _launch(self, where: Placement, name: str, **options: Any) -> None:
        """Start the actors, spread over the nodes.

        Raises:
            RuntimeError: What they take is in use by others, and was not given back for a minute.
        """
        self.where = where
        self._room = reserve([where.each] * where.count, "actors")
        remote = ray.remote(SupernetActor)
        self.actors = [
            remote.options(
                num_cpus=where.cpus,
                num_gpus=where.gpus,
                scheduling_strategy=PlacementGroupSchedulingStrategy(self._room, number),
                **options,
            ).remote(self._hosted.pack(), self.config, f"{name}-{number}")
            for number in range(where.count)
        ]

    def close(self) -> None:
        """End the actors and give their room back."""
        for actor in self.actors:
            ray.kill(actor)
        self.actors = []
        if self._room is not None:
            remove_placement_group(self._room)
            self._room = None

    def everyone(self, waiting: Sequence[Any]) -> list[Any]:
        """Wait for all answers; the first failure is raised at once, for the others may then wait for ever."""
        left = list(waiting)
        while left:
            ready, left = watch.wait(left)
            watch.get(ready)
        answers: list[Any] = watch.get(list(waiting))
        return answers


class _SupernetLoop(TrainingLoop):
    """The training of a supernet on its actors.

    Args:
        supernet: Its actors are started.
        schedule: How many steps there are.
        epoch_steps: Steps of an epoch.
        on_progress: Told after every chunk.
    """

    def __init__(
        self,
        supernet: Supernet,
        schedule: Schedule,
        epoch_steps: int,
        on_progress: Callable[[TrainingStatus], None],
    ) -> None:
        super().__init__(supernet.recipe.checkpoint_seconds, PreemptionNotice())
        self.supernet, self.schedule = supernet, schedule
        self._epoch_steps, self._on_progress = epoch_steps, on_progress
        self._waiting: list[Any] = []

    def run_interruptibly(self, step: int) -> None:
        """Train to the end; Ctrl-C saves a checkpoint first."""
        try:
            self.run(step)
        except KeyboardInterrupt:
            if self._waiting:
                step = max(made.step for made in self.supernet.everyone(self._waiting))
                self.schedule.reached(step)
                self.save(step)
            raise

    def total(self) -> int:
        return self.schedule.total

    def pause(self, step: int) -> float:
        """The next round; one that is due is carried out first."""
        rounds = self.supernet.rounds
        if rounds is None:
            return math.inf
        while step >= (pause := rounds.next_round(self._epoch_steps)):
            self._round(rounds, step)
        return pause

    def train(self, until: int) -> Progress:
        actors, total = self.supernet.actors, self.schedule.total
        self._waiting = [actor.train.remote(until, total) for actor in actors]
        made: list[Progress] = self.supernet.everyone(self._waiting)
        self.schedule.reached(until)
        return replace(made[0], loss=sum(each.loss for each in made) / len(made))

    def after_chunk(self, progress: Progress) -> None:
        speed, where = progress.images / max(progress.seconds, 1e-9), self.supernet.where
        status = TrainingStatus(progress.step, self.schedule.total, progress.loss, speed)
        line = {"step": status.step, "total": status.total, "loss": status.loss, "images_per_second": speed}
        line |= {"workers": where.count, "gpus": where.count * where.gpus}
        append_line(self.supernet.folder / "training.jsonl", json.dumps({**line, "time": time.time()}))
        self._on_progress(status)

    def save(self, step: int) -> None:
        supernet = self.supernet
        tensors = watch.get(supernet.actors[0].save.remote()).tensors()
        values: dict[str, Any] = {"total": self.schedule.total, "seconds": self.schedule.spent()}
        values["settings"] = supernet.settings
        values |= {} if supernet.rounds is None else {"rounds": supernet.rounds.state()}
        checkpoint.write(supernet.folder, step, tensors, values, supernet.recipe.keep_checkpoints)

    def _round(self, rounds: TrainingRounds, step: int) -> None:
        """Carry out a round; the checkpoint afterwards holds the paths that it leaves."""
        rounds.round(_RoundContext(self.supernet), step)
        paths = rounds.paths()
        self.supernet.everyone([actor.follow.remote(paths) for actor in self.supernet.actors])
        self.save(step)
        replace_text(self.supernet.folder / "rounds.json", json.dumps(rounds.state(), indent=2))


@dataclass(frozen=True)
class _RoundContext:
    """What rounds may ask; see :class:`raynas.training.phases.Training`."""

    supernet: Supernet

    def weights(self) -> dict[str, Tensor]:
        return model_tensors(watch.get(self.supernet.actors[0].save.remote()).tensors())

    def kept(self, name: str) -> dict[str, Tensor]:
        return checkpoint.read_initial(self.supernet.folder, name)

    def keep(self, name: str, weights: Mapping[str, Tensor]) -> None:
        checkpoint.keep_initial(self.supernet.folder, weights, name)

    def scores(self, architectures: Sequence[Architecture]) -> list[float]:
        images, actors = self.supernet.config.search.validation_images, self.supernet.actors
        # The ranks take turns; each starts from the same weights.
        shares = [list(architectures[rank :: len(actors)]) for rank in range(len(actors))]
        asked = [actor.rescore.remote(share, images) for actor, share in zip(actors, shares, strict=True)]
        answers = self.supernet.everyone(asked)
        return [answers[place % len(actors)][place // len(actors)] for place in range(len(architectures))]


def _is_own(error: RayTaskError) -> bool:
    """Whether this is an error of the training itself, which no lost worker explains."""
    return isinstance(error.cause, (TrainingDiverged, ValueError)) or _out_of_memory(error.cause)


def _out_of_memory(error: BaseException) -> bool:
    """Whether the memory of a GPU or of the machine was too small; for the latter PyTorch has words and no type."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, (MemoryError, OutOfMemoryError)) or any(each in str(error).lower() for each in words)


def _readable(error: Exception) -> Exception:
    """What went wrong in a worker, in one line."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, RayNASError):
        return type(cause)(str(cause))
    if _out_of_memory(cause):
        told = (str(cause) or type(cause).__name__).strip().splitlines()[0]
        return RuntimeError(f"a training worker ran out of memory: lower train.batch_size ({told})")
    if isinstance(cause, ValueError):
        return ValueError(str(cause))
    return RuntimeError(f"a training worker failed: {type(cause).__name__}: {cause}")
