"""The driver's side of a supernet.

It starts the actors that train, keeps their checkpoints, replaces those that die, and hands out replicas that score
architectures.

    supernet = Supernet(space, data, config, folder)
    supernet.train(paths)                  # goes on from the newest checkpoint in the folder
    replicas = supernet.replicas()         # actors; see SupernetActor.evaluate
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError
from torch import nn

from raynas import checkpoint
from raynas.actors import Hosted, SupernetActor, publish
from raynas.config import Config, TrainConfig
from raynas.data import Dataset, to_arrays
from raynas.sampling import PathSampler
from raynas.training import Progress, TrainingDiverged, model_tensors

__all__ = ["Placement", "Supernet", "TrainingStatus", "place", "place_ranks"]

log = logging.getLogger(__name__)
CHUNK_SECONDS = 1.0
"""How long the actors train between two looks of the driver."""


@dataclass(frozen=True)
class TrainingStatus:
    """What a progress bar shows."""

    step: int
    total: int
    loss: float
    images_per_second: float


@dataclass(frozen=True)
class Placement:
    """How many actors, and what each of them takes."""

    count: int
    cpus: float
    gpus: float


def place(
    count: int | None, cpus: float | None = None, gpus: float | None = None, *, most: int | None = None
) -> Placement:
    """Fit actors into the cluster: one per GPU, or without GPUs one per CPU, ``most`` of them.

    Raises:
        ValueError: The cluster cannot hold them; the message says what is missing.
    """
    have = ray.cluster_resources()
    all_cpus, all_gpus = have.get("CPU", 0.0), have.get("GPU", 0.0)
    gpus = gpus if gpus is not None else (1.0 if all_gpus else 0.0)
    if count is None:
        count = max(int(all_gpus / gpus if gpus else min(all_cpus, most or all_cpus)), 1)
    cpus = cpus or max(min(int(all_cpus / count), 8 if gpus else int(all_cpus)), 1)
    for name, each, available in (("CPU", cpus, all_cpus), ("GPU", gpus, all_gpus)):
        if each * count > available:
            raise ValueError(f"{count} actors need {each * count:g} {name}s, the cluster has {available:g}")
    return Placement(count, cpus, gpus)


def place_ranks(recipe: TrainConfig) -> Placement:
    """Fit the ranks of a data-parallel training into the cluster.

    One per GPU. Without GPUs up to four that share the CPUs: two processes of one thread train faster than one of two,
    but each must have images enough for its BatchNorm statistics.
    """
    assert recipe.batch_size is not None
    most = next(
        n for n in (4, 2, 1) if recipe.batch_size % n == 0 and recipe.batch_size // n >= min(16, recipe.batch_size)
    )
    return place(recipe.workers, recipe.cpus_per_worker, recipe.gpus_per_worker, most=most)


class Supernet:
    """One space, its data and its checkpoints.

    Args:
        space: The space with its initial weights.
        data: The data set; it goes through the object store once.
        config: The run's settings.
        folder: Where checkpoints and the training curve are kept.
    """

    def __init__(self, space: nn.Module, data: Dataset, config: Config, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.recipe = config.train.resolved()
        self._hosted = Hosted(ray.put(space), ray.put(to_arrays(data)))
        self.actors: list[Any] = []
        """Handles of the :class:`SupernetActor` that train or score now."""
        self.reserved_cpus = 0.0
        """What the actors that run now take from the cluster."""
        self._curve = folder / "training.jsonl"

    def train(self, paths: PathSampler, on_progress: Callable[[TrainingStatus], None] = lambda status: None) -> None:
        """Train to the end of the schedule, from the newest checkpoint if there is one.

        A worker that is lost is replaced, and the training goes on from the last checkpoint. Ctrl-C saves a
        checkpoint first.

        Raises:
            TrainingDiverged: The loss is no longer a number.
            RuntimeError: Workers were lost more than ``train.max_failures`` times, or ran out of memory.
        """
        for attempt in range(self.recipe.max_failures + 1):
            try:
                self._train(paths, on_progress)
                return
            except RayActorError as error:
                if attempt == self.recipe.max_failures:
                    raise RuntimeError(
                        f"a training worker was lost {attempt + 1} times, the last one: {error}"
                    ) from error
                log.warning("a training worker was lost; training goes on from the last checkpoint")
            except RayTaskError as error:
                raise _readable(error) from error
            finally:
                self.close()

    def _train(self, paths: PathSampler, on_progress: Callable[[TrainingStatus], None]) -> None:
        saved = checkpoint.latest(self.folder)
        total = None if saved is None else int(saved[2]["total"])
        if saved is not None and saved[0] == total:
            return
        epoch_steps = self._start(paths)
        step = 0
        if saved is not None:
            step = saved[0]
            tensors = ray.put(publish(saved[1]))
            self._everyone([actor.load.remote(tensors, step) for actor in self.actors])
        if total is None:
            step, total = self._plan(epoch_steps)
        last_save, chunk = time.monotonic(), 1
        while step < total:
            until = min(step + chunk, total)
            waiting = [actor.train.remote(until, total) for actor in self.actors]
            try:
                progress = self._everyone(waiting)
            except KeyboardInterrupt:
                self._everyone(waiting)
                self._save(until, total)
                raise
            step = until
            self._report(progress, total, on_progress)
            chunk = max(round(chunk * min(CHUNK_SECONDS / max(progress[0].seconds, 1e-3), 4.0)), 1)
            if step == total or time.monotonic() - last_save >= self.recipe.checkpoint_seconds:
                self._save(step, total)
                last_save = time.monotonic()

    def _start(self, paths: PathSampler) -> int:
        """Start the training actors as ranks of one group; returns the steps of an epoch."""
        recipe = self.recipe
        where = place_ranks(recipe)
        remote = ray.remote(SupernetActor).options(num_cpus=where.cpus, num_gpus=where.gpus)
        self.actors = [
            remote.remote(self._hosted, self.config, f"supernet-train-{rank}") for rank in range(where.count)
        ]
        address = ray.get(self.actors[0].address.remote())
        joined = [actor.join.remote(paths, rank, where.count, address) for rank, actor in enumerate(self.actors)]
        return int(self._everyone(joined)[0])

    def _plan(self, epoch_steps: int) -> tuple[int, int]:
        """Decide how many steps the schedule has; returns the steps already made for it, and the total."""
        assert self.recipe.epochs is not None
        if self.recipe.minutes is None:
            return 0, max(round(self.recipe.epochs * epoch_steps), 1)
        # The first steps warm up caches and are not counted; the schedule hardly moves in those that measure.
        begin, step, seconds, far = time.monotonic(), 3, 0.0, 10**9
        self._everyone([actor.train.remote(step, far) for actor in self.actors])
        measured = 0
        while seconds < 3.0:
            made = self._everyone([actor.train.remote(step + 5, far) for actor in self.actors])[0]
            step, measured, seconds = made.step, measured + 5, seconds + made.seconds
        left = self.recipe.minutes * 60 - (time.monotonic() - begin)
        return step, step + max(int(left / (seconds / measured)), 1)

    def _report(self, progress: Sequence[Progress], total: int, tell: Callable[[TrainingStatus], None]) -> None:
        loss = sum(p.loss for p in progress) / len(progress)
        status = TrainingStatus(progress[0].step, total, loss, progress[0].images / max(progress[0].seconds, 1e-9))
        line = {"step": status.step, "total": total, "loss": loss, "images_per_second": status.images_per_second}
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self._curve, "a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "time": time.time()}) + "\n")
        tell(status)

    def _save(self, step: int, total: int) -> None:
        tensors = ray.get(self.actors[0].save.remote()).tensors()
        checkpoint.write(self.folder, step, tensors, {"total": total}, self.recipe.keep_checkpoints)

    def replicas(self) -> list[Any]:
        """Start actors that score with the trained weights; Ray restarts those that die.

        Raises:
            RuntimeError: The supernet is not trained to the end.
        """
        saved = checkpoint.latest(self.folder)
        if saved is None or saved[0] != int(saved[2]["total"]):
            raise RuntimeError(f"there is no fully trained supernet in {self.folder}: run train-supernet first")
        self.close()
        self._hosted = dataclasses.replace(self._hosted, weights=ray.put(publish(model_tensors(saved[1]))))
        where = place(self.config.search.replicas, gpus=self.recipe.gpus_per_worker)
        self.reserved_cpus = where.count * where.cpus
        # A restarted actor is built anew from what it hosts, and a repeated question has the same answer.
        remote = ray.remote(SupernetActor).options(
            num_cpus=where.cpus, num_gpus=where.gpus, max_concurrency=64, max_restarts=-1, max_task_retries=-1
        )
        self.actors = [remote.remote(self._hosted, self.config, f"supernet-{number}") for number in range(where.count)]
        return self.actors

    def close(self) -> None:
        """End the actors."""
        for actor in self.actors:
            ray.kill(actor)
        self.actors, self.reserved_cpus = [], 0.0

    def _everyone(self, waiting: Sequence[Any]) -> list[Any]:
        """Wait for all answers; the first failure is raised at once, for the others may then wait for ever."""
        left = list(waiting)
        while left:
            ready, left = ray.wait(left, num_returns=1)
            ray.get(ready)
        return ray.get(list(waiting))


def _readable(error: RayTaskError) -> Exception:
    """What went wrong in a worker, in one line."""
    cause = error.cause
    if isinstance(cause, TrainingDiverged):
        return TrainingDiverged(str(cause))
    if "out of memory" in str(cause).lower():
        return RuntimeError(
            f"a training worker ran out of memory: lower train.batch_size ({str(cause).splitlines()[0]})"
        )
    if isinstance(cause, ValueError):
        return ValueError(str(cause))
    return RuntimeError(f"a training worker failed: {type(cause).__name__}: {cause}")
