"""What each rank of a retraining does: it trains, and rank 0 writes checkpoints, the training curve and the result."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train

from raynas.config.fingerprint import Fingerprint
from raynas.config.train import TrainConfig
from raynas.data.dataset import from_arrays
from raynas.distributed import health as watch
from raynas.distributed.nodes import PreemptionNotice
from raynas.evaluation.scorer import tally
from raynas.storage.atomic import append_line, replace_text, write_with_retry
from raynas.storage.removal import remove_tree
from raynas.storage.sync import StoreSync
from raynas.tasks.base import RankInfo, task_of
from raynas.training import checkpoint
from raynas.training.averaging import Averaging
from raynas.training.loop import TrainingLoop
from raynas.training.trainer import Progress, Trainer

__all__ = ["RetrainJob", "measure_speed", "train_worker"]


@dataclass(frozen=True)
class RetrainJob:
    """What every worker of a retraining gets."""

    network: Any
    """Reference to the plain network with its initial weights."""
    arrays: Any
    """Reference to the data set."""
    recipe: TrainConfig
    seed: int
    storage: Path | StoreSync
    """The folder of the network, or its part of an object store."""
    settings: Fingerprint = dataclasses.field(default_factory=dict)
    """What the result depends on."""


def measure_speed(job: RetrainJob, workers: int) -> float:
    """The images/s of one of so many workers, over about two seconds of training."""
    assert job.recipe.batch_size is not None
    recipe = dataclasses.replace(job.recipe, batch_size=max(job.recipe.batch_size // workers, 1))
    trainer = Trainer(watch.get(job.network), from_arrays(watch.get(job.arrays)), recipe, seed=job.seed)
    trainer.run(2)  # the first ones fill caches
    images, seconds = 0, 0.0
    while seconds < 2.0:
        made = trainer.run(trainer.step + 2)
        images, seconds = images + made.images, seconds + made.seconds
    return images / seconds


def train_worker(config: dict[str, Any]) -> None:
    """Train as one rank; Ray Train has joined it to the others. Rank 0 evaluates in the end and writes the result.

    Args:
        config: ``{"job": RetrainJob(...)}``.
    """
    job: RetrainJob = config["job"]
    context = ray.train.get_context()
    rank = RankInfo(context.get_world_rank(), context.get_world_size())
    data = from_arrays(watch.get(job.arrays))
    begin = time.monotonic()
    trainer = Trainer(watch.get(job.network), data, job.recipe, seed=job.seed, rank=rank)
    folder, sync = _working_folder(job.storage)
    loop = _RetrainLoop(job, trainer, folder, sync, begin)
    loop.resume()
    loop.run(trainer.step)
    if rank.rank == 0:
        scores = {name: tally(trainer.model, getattr(data, name), data) for name in ("validation", "test")}
        metric = task_of(data).metric
        result = {f"{name}_{metric.name}": metric(found) for name, found in scores.items()}
        result |= {"epochs": trainer.total_steps / trainer.epoch_steps, "seconds": loop.seconds()}
        replace_text(folder / "result.json", json.dumps(result))
        if sync is not None:
            write_with_retry(sync.push, sync.uri)
    if sync is not None:
        remove_tree(folder)


class _RetrainLoop(TrainingLoop):
    """The training of one network on one rank. Rank 0 writes the training curve and the checkpoints.

    Args:
        job: What to train and how.
        trainer: Of this rank.
        folder: Where checkpoints and the training curve are kept.
        sync: Uploads them to an object store; None where the folder is the storage.
        begin: The monotonic time at which this process began.
    """

    def __init__(self, job: RetrainJob, trainer: Trainer, folder: Path, sync: StoreSync | None, begin: float) -> None:
        super().__init__(job.recipe.checkpoint_seconds, PreemptionNotice())
        self.job, self.trainer, self.folder, self.sync = job, trainer, folder, sync
        self._begin, self._earlier = begin, 0.0
        patience = trainer.recipe.average_after
        self._averaging = None if patience is None else Averaging(patience)

    def resume(self) -> None:
        """Continue from the newest checkpoint, if there is one."""
        saved = checkpoint.latest(self.folder, ("seconds",))
        if saved is None:
            return
        self.trainer.load_state(saved[1], saved[0])
        self._earlier = float(saved[2]["seconds"])
        if self._averaging is not None:
            self._averaging.losses = list(saved[2].get("losses", []))

    def seconds(self) -> float:
        """What the training took so far, in all processes."""
        return self._earlier + time.monotonic() - self._begin

    def total(self) -> int:
        return self.trainer.total_steps

    def pause(self, step: int) -> float:
        """The end of the epoch, where the validation loss decides when averaging begins."""
        epoch_steps = self.trainer.epoch_steps
        return math.inf if self._averaging is None else (step // epoch_steps + 1) * epoch_steps

    def train(self, until: int) -> Progress:
        return self.trainer.run(until)

    def after_chunk(self, progress: Progress) -> None:
        trainer, averaging = self.trainer, self._averaging
        if averaging is not None and trainer.step % trainer.epoch_steps == 0 and trainer.average is None:
            validated = tally(trainer.model, trainer.data.validation, trainer.data)
            if averaging.begins(validated["loss"]):
                trainer.begin_average()
        if trainer.step == trainer.total_steps:
            trainer.take_average()
        if self.saves():
            line = {"step": progress.step, "total": trainer.total_steps, "loss": progress.loss,
                    "seconds": self.seconds(),
                    "images_per_second": progress.images / max(progress.seconds, 1e-9),
                    "waiting": progress.waiting}  # fmt: skip
            append_line(self.folder / "training.jsonl", json.dumps(line))

    def saves(self) -> bool:
        return self.trainer.rank == 0

    def save(self, step: int) -> None:
        losses = [] if self._averaging is None else self._averaging.losses
        values = {"seconds": self.seconds(), "losses": losses, "settings": self.job.settings}
        checkpoint.write(self.folder, step, self.trainer.state(), values, self.job.recipe.keep_checkpoints)
        if self.sync is not None:
            self.sync.try_push()


def _working_folder(storage: Path | StoreSync) -> tuple[Path, StoreSync | None]:
    """Where a rank finds the checkpoints; a copy of its own with its sync, where they are in an object store."""
    if isinstance(storage, Path):
        return storage, None
    sync = storage.private()
    write_with_retry(sync.pull, f"the copy of {sync.uri}")
    return sync.folder, sync
