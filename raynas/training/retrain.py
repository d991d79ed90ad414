"""Training one architecture from scratch, data-parallel by Ray Train; the test data are evaluated once, at the end."""

from __future__ import annotations

import copy
import dataclasses
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.train
from pydantic import FiniteFloat
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer
from torch import nn
from typing_extensions import NotRequired, TypedDict

from raynas.config.fingerprint import Fingerprint, changed, recipe_settings
from raynas.config.run import Config
from raynas.config.train import TrainConfig
from raynas.data.dataset import Data, to_arrays
from raynas.data.fingerprint import contents
from raynas.data.order import steps_per_epoch
from raynas.distributed import health as watch
from raynas.distributed.placement import check_room, place_ranks
from raynas.progress import TrainingStatus
from raynas.results.files import DamagedError, accept, read_json, read_or
from raynas.storage.atomic import replace_text, write_with_retry
from raynas.storage.removal import free_name, move, own, remove_file
from raynas.storage.sync import StoreSync
from raynas.training import checkpoint
from raynas.training.retrain_worker import RetrainJob, measure_speed, train_worker
from raynas.utils.periods import PERIODS

__all__ = ["images_per_second", "retrain", "retrain_recipe"]


class _Progress(TypedDict):
    step: int
    total: int
    loss: float
    images_per_second: float
    waiting: NotRequired[float]


_SHOWN = tuple(field.name for field in dataclasses.fields(TrainingStatus))


class _Finished(TypedDict):
    epochs: FiniteFloat
    seconds: FiniteFloat


def retrain_recipe(config: Config, supernet: tuple[Any, ...] | None, images: int) -> TrainConfig:
    """The recipe of ``train`` with the changes in ``retrain``.

    Args:
        config: The run's settings.
        supernet: Its newest checkpoint: where ``train`` counts minutes, retraining makes as many epochs as it did.
        images: Number of training images, or of sequences: the unit of ``batch_size``.
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
    storage: Path | StoreSync,
    on_progress: Callable[[TrainingStatus], None] = lambda status: None,
) -> dict[str, Any]:
    """Train a network from its initial weights and evaluate it on the test data, once.

    Continues from the newest checkpoint in its folder; if the result of this recipe is already there, it is returned.
    Results of another recipe, or of a network of another size, are kept beside it.

    Args:
        subnet: What ``derive`` returned, with initial weights; a copy of it is trained.
        data: All three splits.
        recipe: How to train; nothing open.
        seed: Decides everything drawn.
        storage: The folder of this network alone, which all nodes see; or its part of an object store, with which no
            progress is reported.
        on_progress: Called now and then.

    Returns:
        ``test_accuracy`` and ``validation_accuracy`` in percent, or what else measures the task
        (:mod:`raynas.metrics`), ``epochs`` and ``seconds``; also in result.json.

    Raises:
        RuntimeError: The training failed more than ``train.max_failures`` times, or the cluster has no room for it.
        KeyboardInterrupt: Ctrl-C; the newest checkpoint stays.
    """
    sync = storage if isinstance(storage, StoreSync) else None
    if sync is not None:
        write_with_retry(sync.pull, f"the copy of {sync.uri}")
    folder = storage.folder if isinstance(storage, StoreSync) else storage.absolute()
    recipe_file, result_file = folder / "recipe.json", folder / "result.json"
    settings = _settings(subnet, data, recipe, seed)
    if changed(_kept_settings(folder), settings):
        move(folder, free_name(folder))
    own(folder)
    text = json.dumps(settings, sort_keys=True)
    if not recipe_file.exists() or recipe_file.read_text(encoding="utf-8", errors="replace") != text:
        replace_text(recipe_file, text)
    result = read_or(result_file, _Finished, None, "it is evaluated once more")
    if sync is not None:
        write_with_retry(sync.push, sync.uri)
    if result is None:
        # The subnet shares the space's weights: a copy of its own is trained.
        network, arrays = ray.put(copy.deepcopy(subnet)), ray.put(to_arrays(data))
        remove_file(result_file)
        with _watched(folder / "training.jsonl", on_progress):
            _fit(_trainer(RetrainJob(network, arrays, recipe, seed, sync or folder, settings)))
        if sync is not None:
            write_with_retry(sync.pull, f"the copy of {sync.uri}")
        result = read_json(result_file, _Finished, "the same command evaluates it once more")
    return dict(result)


def _settings(subnet: nn.Module, data: Data, recipe: TrainConfig, seed: int) -> Fingerprint:
    """What a retraining depends on."""
    known = {name.removeprefix("train."): value for name, value in recipe_settings(recipe).items()}
    size = sum(p.numel() for p in subnet.parameters())
    return {"seed": seed, "size": size, "data.contents": contents(data), **known}


def _kept_settings(folder: Path) -> Fingerprint:
    """What the retraining in a folder depends on; empty where there is none.

    It is read from recipe.json, or from the newest checkpoint where that file is damaged.

    Raises:
        DamagedError: Neither can be read.
    """
    path = folder / "recipe.json"
    found = read_or(path, dict[str, Any], None, "the newest checkpoint is read")
    if found is None:
        saved = checkpoint.latest_header(folder)
        found = None if saved is None else saved[1].get("settings")
    begun = any(any(folder.glob(kind)) for kind in ("step-*.safetensors", "result.json"))
    if found is None and path.exists() and begun:
        raise DamagedError(
            f"{path} is damaged, and no checkpoint has the settings of the training in {folder}: move that folder away"
        )
    return found or {}


def images_per_second(subnet: nn.Module, data: Data, recipe: TrainConfig, seed: int) -> float:
    """How fast :func:`retrain` would be: one worker makes some steps, and all are assumed to be as fast.

    Raises:
        RuntimeError: The cluster has no room for it.
    """
    ranks = place_ranks(recipe)
    check_room([ranks.each], "workers")
    job = RetrainJob(ray.put(copy.deepcopy(subnet)), ray.put(to_arrays(data)), recipe, seed, Path())
    task = ray.remote(measure_speed).options(num_cpus=ranks.cpus, num_gpus=ranks.gpus)
    return ranks.count * float(watch.get(task.remote(job, ranks.count)))


def _trainer(job: RetrainJob) -> TorchTrainer:
    """The trainer of Ray Train, after a check that the cluster has room for its workers."""
    ranks = place_ranks(job.recipe)
    check_room([ranks.each] * ranks.count, "workers")
    return TorchTrainer(
        train_worker,
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
            storage_path=job.storage.uri if isinstance(job.storage, StoreSync) else str(job.storage),
            failure_config=FailureConfig(max_failures=job.recipe.max_failures),
        ),
    )


def _fit(trainer: TorchTrainer) -> None:
    """Run to the end. Ray Train exits the program at Ctrl-C: here that becomes a KeyboardInterrupt again."""
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


@contextmanager
def _watched(curve: Path, on_progress: Callable[[TrainingStatus], None]) -> Iterator[None]:
    """Report what the workers write into their training curve: ``fit`` itself reports nothing until it ends."""
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
                    status = accept(line.encode(), _Progress)
                except ValueError:
                    continue  # torn by a power cut
                on_progress(TrainingStatus(**{name: status[name] for name in _SHOWN if name in status}))
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
