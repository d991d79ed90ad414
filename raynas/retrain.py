"""Training one architecture from scratch, data-parallel by Ray Train, and looking at the test images once."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from torch import nn

from raynas import checkpoint
from raynas.choice import derive
from raynas.config import Config, TrainConfig
from raynas.data import Dataset, from_arrays, to_arrays
from raynas.evaluation import tally
from raynas.supernet import TrainingStatus, place_ranks
from raynas.training import Trainer

__all__ = ["Job", "retrain", "retrain_recipe"]


@dataclass(frozen=True)
class Job:
    """What every worker of a retraining gets."""

    network: Any
    """Reference to the plain network with its initial weights."""
    arrays: Any
    """Reference to the data set."""
    recipe: TrainConfig
    seed: int
    folder: Path


def retrain_recipe(config: Config) -> TrainConfig:
    """The recipe of ``train`` with what ``retrain`` says otherwise."""
    changes = {k: v for k, v in dataclasses.asdict(config.retrain).items() if v is not None}
    if config.retrain.epochs is not None:
        changes["minutes"] = None
    return dataclasses.replace(config.train, **changes).resolved()


def retrain(
    space: nn.Module,
    architecture: Mapping[str, str],
    data: Dataset,
    config: Config,
    folder: Path,
    on_progress: Callable[[TrainingStatus], None] = lambda status: None,
) -> dict[str, Any]:
    """Train the network of an architecture from its initial weights and evaluate it on the test images, once.

    Goes on from the newest checkpoint in ``folder``; where the result is already there, it is returned as it is.

    Returns:
        ``test_accuracy`` and ``validation_accuracy`` in percent, ``epochs`` and ``seconds``; also in result.json.

    Raises:
        RuntimeError: The training failed more than ``train.max_failures`` times.
    """
    result = folder / "result.json"
    if not result.exists():
        recipe = retrain_recipe(config)
        where = place_ranks(recipe)
        # The subnet shares the space's weights: a copy of its own is trained.
        network = ray.put(copy.deepcopy(derive(space, architecture)))
        trainer = TorchTrainer(
            _train_worker,
            train_loop_config={"job": Job(network, ray.put(to_arrays(data)), recipe, config.seed, folder.absolute())},
            scaling_config=ScalingConfig(
                num_workers=where.count,
                use_gpu=where.gpus > 0,
                resources_per_worker={"CPU": where.cpus, **({"GPU": where.gpus} if where.gpus else {})},
            ),
            run_config=RunConfig(
                # Ray Train would take a second run of the same name for the same run.
                name=f"train-{time.time_ns()}",
                storage_path=str(folder.absolute()),
                failure_config=FailureConfig(max_failures=recipe.max_failures),
            ),
        )
        with _watched(folder / "training.jsonl", on_progress):
            trainer.fit()
    return dict(json.loads(result.read_text(encoding="utf-8")))


def _train_worker(config: dict[str, Any]) -> None:
    """One rank; Ray Train has joined it to the others."""
    job: Job = config["job"]
    context = ray.train.get_context()
    rank = (context.get_world_rank(), context.get_world_size())
    data = from_arrays(ray.get(job.arrays))
    begin = time.monotonic()
    trainer = Trainer(ray.get(job.network), data, job.recipe, seed=job.seed, rank=rank)
    saved = checkpoint.latest(job.folder)
    seconds = 0.0
    if saved is not None:
        trainer.load_state(saved[1], saved[0])
        seconds = float(saved[2]["seconds"])
    last_save, total = time.monotonic(), trainer.total_steps
    while trainer.step < total:
        progress = trainer.run(min(trainer.step + max(trainer.epoch_steps // 4, 1), total))
        ray.train.report({"loss": progress.loss, "step": progress.step})
        if rank[0]:
            continue
        spent = seconds + time.monotonic() - begin
        line = {"step": progress.step, "total": total, "loss": progress.loss, "seconds": spent,
                "images_per_second": progress.images / max(progress.seconds, 1e-9)}  # fmt: skip
        with open(job.folder / "training.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if trainer.step == total or time.monotonic() - last_save >= job.recipe.checkpoint_seconds:
            checkpoint.write(job.folder, trainer.step, trainer.state(), {"seconds": spent}, job.recipe.keep_checkpoints)
            last_save = time.monotonic()
    if rank[0] == 0:
        scores = {name: tally(trainer.model, getattr(data, name), data) for name in ("validation", "test")}
        result = {f"{name}_accuracy": 100.0 * t["correct"] / t["images"] for name, t in scores.items()}
        result |= {"epochs": total / trainer.epoch_steps, "seconds": seconds + time.monotonic() - begin}
        part = job.folder / "result.part"
        part.write_text(json.dumps(result), encoding="utf-8")
        os.replace(part, job.folder / "result.json")


@contextmanager
def _watched(curve: Path, on_progress: Callable[[TrainingStatus], None]) -> Iterator[None]:
    """Tell what the workers write into their training curve: ``fit`` itself says nothing until it ends."""
    curve.parent.mkdir(parents=True, exist_ok=True)
    ended = threading.Event()

    def watch() -> None:
        seen = 0
        while not ended.wait(0.5) or curve.exists():
            lines = curve.read_text(encoding="utf-8").splitlines() if curve.exists() else []
            for line in lines[seen:][-1:]:
                told = json.loads(line)
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
