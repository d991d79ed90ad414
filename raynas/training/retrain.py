"""Training one architecture from scratch, data-parallel by Ray Train, and looking at the test images once."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
from pydantic import FiniteFloat
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer
from torch import nn
from typing_extensions import TypedDict

from raynas.config.fingerprint import Fingerprint, changed, recipe_settings
from raynas.config.run import Config
from raynas.config.train import TrainConfig
from raynas.data.contents import contents
from raynas.data.dataset import Data, from_arrays, to_arrays
from raynas.distributed import health as watch
from raynas.distributed.nodes import PreemptionNotice
from raynas.distributed.placement import check_room, place_ranks
from raynas.evaluation.scorer import tally
from raynas.progress import TrainingStatus
from raynas.results.files import DamagedError, accept, read_json, read_or
from raynas.storage.atomic import append_line, replace_text, write_with_retry
from raynas.storage.mirror import Mirror
from raynas.storage.removal import free_name, move, own, remove_file, remove_tree
from raynas.tasks.base import RankInfo, task_of
from raynas.tasks.classification import steps_per_epoch
from raynas.training import checkpoint
from raynas.training.loop import TrainingLoop
from raynas.training.trainer import Progress, Trainer
from raynas.utils.periods import PERIODS

__all__ = ["Averaging", "Job", "images_per_second", "retrain", "retrain_recipe"]


class _Progress(TypedDict):
    step: int
    total: int
    loss: float
    images_per_second: float


class Averaging:
    """When the weights of a training begin to be averaged: where it has ceased to improve (NT-ASGD).

    Merity, Keskar and Socher, "Regularizing and Optimizing LSTM Language Models", ICLR 2018.

    Args:
        patience: Epochs.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.losses: list[float] = []
        """The validation loss after each epoch."""

    def begins(self, loss: float) -> bool:
        """Note the loss of an epoch; whether it is above the best of those more than ``patience`` epochs before."""
        earlier = self.losses[: -self.patience]
        self.losses.append(loss)
        return bool(earlier) and loss > min(earlier)


@dataclass(frozen=True)
class Job:
    """What every worker of a retraining gets."""

    network: Any
    """Reference to the plain network with its initial weights."""
    arrays: Any
    """Reference to the data set."""
    recipe: TrainConfig
    seed: int
    where: Path | Mirror
    settings: Fingerprint = dataclasses.field(default_factory=dict)
    """What the result depends on."""


class _Finished(TypedDict):
    epochs: FiniteFloat
    seconds: FiniteFloat


def retrain_recipe(config: Config, supernet: tuple[Any, ...] | None, images: int) -> TrainConfig:
    """The recipe of ``train`` with what ``retrain`` says otherwise.

    Args:
        config: The run's settings.
        supernet: Its newest checkpoint: where ``train`` counts minutes, retraining makes as many epochs as it did.
        images: Number of training images, or sequences: of what a batch takes so many.
    """
    own = config.retrain
    changes = {k: v for k in ("epochs", "batch_size", "lr", "workers") if (v := getattr(own, k)) is not None}
    train = config.train if own.preset is None else config.train.under(own.preset)
    recipe = dataclasses.replace(train, **changes, minutes=None).resolved()
    if config.train.minutes is not None and own.epochs is None and own.preset is None and supernet is not None:
        shared = config.train.resolved()
        assert shared.batch_size is not None
        recipe.epochs = int(supernet[-1]["total"]) / steps_per_epoch(images, min(shared.batch_size, images))
    return recipe


def retrain(
    subnet: nn.Module,
    data: Data,
    recipe: TrainConfig,
    seed: int,
    where: Path | Mirror,
    on_progress: Callable[[TrainingStatus], None] = lambda status: None,
) -> dict[str, Any]:
    """Train a network from its initial weights and evaluate it on the test data, once.

    Goes on from the newest checkpoint in its folder; where the result of this recipe is already there, it is returned
    as it is. Results of another recipe, or of a network of another size, are kept beside it.

    Args:
        subnet: What ``derive`` returned, with initial weights; a copy of it is trained.
        data: All three splits.
        recipe: How to train; nothing open.
        seed: Decides everything drawn.
        where: The folder of this network alone, which all nodes see; or what keeps it in an object store, where nobody
            is told of the progress.
        on_progress: Told now and then.

    Returns:
        ``test_accuracy`` and ``validation_accuracy`` in percent, or what else measures the task
        (:mod:`raynas.metrics`), ``epochs`` and ``seconds``; also in result.json.

    Raises:
        RuntimeError: The training failed more than ``train.max_failures`` times, or the cluster has no room for it.
        KeyboardInterrupt: Ctrl-C; the newest checkpoint stays.
    """
    mirror = where if isinstance(where, Mirror) else None
    if mirror is not None:
        write_with_retry(mirror.pull, f"the copy of {mirror.uri}")
    folder = where.folder if isinstance(where, Mirror) else where.absolute()
    kept, result = folder / "recipe.json", folder / "result.json"
    wanted = _settings(subnet, data, recipe, seed)
    if changed(_kept_settings(folder), wanted):
        move(folder, free_name(folder))
    own(folder)
    text = json.dumps(wanted, sort_keys=True)
    if not kept.exists() or kept.read_text(encoding="utf-8", errors="replace") != text:
        replace_text(kept, text)
    told = read_or(result, _Finished, None, "it is evaluated once more")
    if mirror is not None:
        write_with_retry(mirror.push, mirror.uri)
    if told is None:
        # The subnet shares the space's weights: a copy of its own is trained.
        network, arrays = ray.put(copy.deepcopy(subnet)), ray.put(to_arrays(data))
        remove_file(result)
        with _watched(folder / "training.jsonl", on_progress):
            _fit(_trainer(Job(network, arrays, recipe, seed, mirror or folder, wanted)))
        if mirror is not None:
            write_with_retry(mirror.pull, f"the copy of {mirror.uri}")
        told = read_json(result, _Finished, "the same command evaluates it once more")
    return dict(told)


def _settings(subnet: nn.Module, data: Data, recipe: TrainConfig, seed: int) -> Fingerprint:
    """What a retraining depends on."""
    known = {name.removeprefix("train."): value for name, value in recipe_settings(recipe).items()}
    size = sum(p.numel() for p in subnet.parameters())
    return {"seed": seed, "size": size, "data.contents": contents(data), **known}


def _kept_settings(folder: Path) -> Fingerprint:
    """What the retraining in a folder depends on; empty where there is none.

    Where recipe.json is damaged, the newest checkpoint says it, too.

    Raises:
        DamagedError: Nothing says it.
    """
    path = folder / "recipe.json"
    found = read_or(path, dict[str, Any], None, "the newest checkpoint is asked")
    if found is None:
        saved = checkpoint.latest_header(folder)
        found = None if saved is None else saved[1].get("settings")
    begun = any(any(folder.glob(kind)) for kind in ("step-*.safetensors", "result.json"))
    if found is None and path.exists() and begun:
        raise DamagedError(f"{path} is damaged, nothing else says how {folder} was trained: move that folder away")
    return found or {}


def images_per_second(subnet: nn.Module, data: Data, recipe: TrainConfig, seed: int) -> float:
    """How fast :func:`retrain` would be: one worker makes some steps, and all are taken to be as fast.

    Raises:
        RuntimeError: The cluster has no room for it.
    """
    where = place_ranks(recipe)
    check_room([where.each], "workers")
    job = Job(ray.put(copy.deepcopy(subnet)), ray.put(to_arrays(data)), recipe, seed, Path())
    task = ray.remote(_some_steps).options(num_cpus=where.cpus, num_gpus=where.gpus)
    return where.count * float(watch.get(task.remote(job, where.count)))


def _some_steps(job: Job, workers: int) -> float:
    """The images/s of one of so many workers."""
    assert job.recipe.batch_size is not None
    recipe = dataclasses.replace(job.recipe, batch_size=max(job.recipe.batch_size // workers, 1))
    trainer = Trainer(watch.get(job.network), from_arrays(watch.get(job.arrays)), recipe, seed=job.seed)
    trainer.run(2)  # the first ones fill caches
    images, seconds = 0, 0.0
    while seconds < 2.0:
        made = trainer.run(trainer.step + 2)
        images, seconds = images + made.images, seconds + made.seconds
    return images / seconds


def _trainer(job: Job) -> TorchTrainer:
    """What trains; there is room for it."""
    ranks = place_ranks(job.recipe)
    check_room([ranks.each] * ranks.count, "workers")
    return TorchTrainer(
        _train_worker,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="gloo" if 0 < ranks.gpus < 1 else None),  # NCCL refuses two ranks on one GPU
        scaling_config=ScalingConfig(
            num_workers=ranks.count,
            use_gpu=ranks.gpus > 0,
            resources_per_worker=ranks.each,
        ),
        run_config=RunConfig(
            # Ray Train would take a second run of the same name for the same run.
            name=f"train-{time.time_ns()}",
            storage_path=job.where.uri if isinstance(job.where, Mirror) else str(job.where),
            failure_config=FailureConfig(max_failures=job.recipe.max_failures),
        ),
    )


def _fit(trainer: TorchTrainer) -> None:
    """Run to the end. Ray Train answers Ctrl-C by leaving the program: here it is what it always is."""
    before = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit()
    except SystemExit:
        raise KeyboardInterrupt from None
    except TrainingFailedError as error:
        raise RuntimeError(f"retraining failed: {str(error).strip().splitlines()[-1]}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def _train_worker(config: dict[str, Any]) -> None:
    """One rank; Ray Train has joined it to the others."""
    job: Job = config["job"]
    context = ray.train.get_context()
    rank = RankInfo(context.get_world_rank(), context.get_world_size())
    data = from_arrays(watch.get(job.arrays))
    begin = time.monotonic()
    trainer = Trainer(watch.get(job.network), data, job.recipe, seed=job.seed, rank=rank)
    folder, mirror = _own_folder(job.where)
    loop = _RetrainLoop(job, trainer, folder, mirror, begin)
    loop.resume()
    loop.run(trainer.step)
    if rank.rank == 0:
        scores = {name: tally(trainer.model, getattr(data, name), data) for name in ("validation", "test")}
        metric = task_of(data).metric
        result = {f"{name}_{metric.name}": metric(found) for name, found in scores.items()}
        result |= {"epochs": trainer.total_steps / trainer.epoch_steps, "seconds": loop.seconds()}
        replace_text(folder / "result.json", json.dumps(result))
        if mirror is not None:
            write_with_retry(mirror.push, mirror.uri)
    if mirror is not None:
        remove_tree(folder)


class _RetrainLoop(TrainingLoop):
    """The training of one network on one rank. Rank 0 writes the training curve and the checkpoints.

    Args:
        job: What to train and how.
        trainer: Of this rank.
        folder: Where checkpoints and the training curve are kept.
        mirror: Keeps them in an object store, where there is one.
        begin: The monotonic time at which this process began.
    """

    def __init__(self, job: Job, trainer: Trainer, folder: Path, mirror: Mirror | None, begin: float) -> None:
        super().__init__(job.recipe.checkpoint_seconds, PreemptionNotice())
        self.job, self.trainer, self.folder, self.mirror = job, trainer, folder, mirror
        self._begin, self._earlier = begin, 0.0
        patience = trainer.recipe.average_after
        self._averaging = None if patience is None else Averaging(patience)

    def resume(self) -> None:
        """Go on from the newest checkpoint, if there is one."""
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
                    "images_per_second": progress.images / max(progress.seconds, 1e-9)}  # fmt: skip
            append_line(self.folder / "training.jsonl", json.dumps(line))

    def saves(self) -> bool:
        return self.trainer.rank == 0

    def save(self, step: int) -> None:
        losses = [] if self._averaging is None else self._averaging.losses
        values = {"seconds": self.seconds(), "losses": losses, "settings": self.job.settings}
        checkpoint.write(self.folder, step, self.trainer.state(), values, self.job.recipe.keep_checkpoints)
        if self.mirror is not None:
            self.mirror.try_push()


def _own_folder(where: Path | Mirror) -> tuple[Path, Mirror | None]:
    """Where a rank finds the checkpoints; the mirror, where these are in an object store."""
    if isinstance(where, Path):
        return where, None
    mirror = where.private()
    write_with_retry(mirror.pull, f"the copy of {mirror.uri}")
    return mirror.folder, mirror


@contextmanager
def _watched(curve: Path, on_progress: Callable[[TrainingStatus], None]) -> Iterator[None]:
    """Tell what the workers write into their training curve: ``fit`` itself says nothing until it ends."""
    own(curve.parent)
    ended = threading.Event()

    def watch() -> None:
        seen = 0
        while not ended.wait(PERIODS.watch) or curve.exists():
            # What stands behind the last line end is still being written.
            text = curve.read_text(encoding="utf-8") if curve.exists() else ""
            lines = text[: text.rfind("\n") + 1].splitlines()
            for line in lines[seen:][-1:]:
                try:
                    told = accept(line.encode(), _Progress)
                except ValueError:
                    continue  # torn by a power cut
                on_progress(TrainingStatus(told["step"], told["total"], told["loss"], told["images_per_second"]))
            seen = len(lines)
            if ended.is_set():
                return

    thread = threading.Thread(target=watch, name="raynas-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
