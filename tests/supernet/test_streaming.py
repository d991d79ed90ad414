"""The supernet on images that are decoded when a step needs them, on real actors."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from helpers import images, tiny

from raynas.config.run import Config, SearchConfig
from raynas.config.train import TrainConfig
from raynas.data import streaming
from raynas.data.assembly import LoaderSettings
from raynas.data.dataset import Dataset
from raynas.data.loading import load
from raynas.data.order import RankInfo
from raynas.data.streaming import Loading
from raynas.exceptions import DataError
from raynas.nn.choice import decisions
from raynas.supernet.supernet import Supernet
from raynas.tasks.classification import Images
from raynas.training import checkpoint
from raynas.training.path_sampling import UniformPaths

CPU = torch.device("cpu")
pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = images.image_folder(tmp_path_factory.mktemp("images"), train=60, test=4)
    found = load("images", folder, size=8, loader=LoaderSettings("streaming", workers=1))
    assert isinstance(found, Dataset)
    return found


def supernet(data: Dataset, folder: Path) -> tuple[Supernet, UniformPaths]:
    torch.manual_seed(0)
    space = tiny.space(num_classes=3, in_channels=3)
    config = Config(
        train=TrainConfig(
            epochs=5, batch_size=16, workers=2, cpus_per_worker=1, checkpoint_seconds=0.001, augment="imagenet"
        ),
        search=SearchConfig(slices=2, bn_images=16, batch_size=16, replicas=1),
    )
    return Supernet(space, data, config, folder), UniformPaths(decisions(space))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    saved = checkpoint.latest(folder)
    assert saved is not None
    return saved[1]


def test_a_worker_that_is_killed_in_the_middle_of_an_epoch_changes_nothing(data: Dataset, tmp_path: Path) -> None:
    undisturbed, paths = supernet(data, tmp_path / "a")
    undisturbed.train(paths)
    disturbed, paths = supernet(data, tmp_path / "b")
    killed: list[int] = []

    def kill_once(status: Any) -> None:
        if status.step >= 11 and not killed:  # an epoch has 9 steps
            killed.append(ray.get(disturbed.actors[1].process.remote()))
            os.kill(killed[0], signal.SIGKILL)

    disturbed.train(paths, kill_once)
    assert killed
    one, two = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_batches_of_ray_tasks_are_those_of_a_process(data: Dataset) -> None:
    recipe = TrainConfig(batch_size=16, augment="imagenet").resolved()
    remote = dataclasses.replace(data, loading=Loading(True, 1, remote=True))
    ours, theirs = (Images(each).train_loader(recipe, 0, RankInfo(), CPU, False) for each in (remote, data))
    for step in range(3, 12):
        assert all(torch.equal(a, b) for a, b in zip(ours.batch(step), theirs.batch(step), strict=True))
    theirs.close()


def test_where_no_cpu_is_free_ray_tasks_are_not_waited_for(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "BATCH_SECONDS", 1.0)
    recipe = TrainConfig(batch_size=16).resolved()
    remote = dataclasses.replace(data, loading=Loading(True, 1, remote=True))
    cpus = ray.cluster_resources()["CPU"]

    @ray.remote(num_cpus=cpus)
    class Holder:
        def ready(self) -> bool:
            return True

    holder = Holder.remote()
    assert ray.get(holder.ready.remote())
    with pytest.raises(DataError, match=r"no batch was made within 1 s, and 0 CPUs of the cluster are free"):
        Images(remote).train_loader(recipe, 0, RankInfo(), CPU, False).batch(0)
    ray.kill(holder)


def test_an_image_that_cannot_be_decoded_ends_the_training_with_its_name(tmp_path: Path) -> None:
    folder = images.image_folder(tmp_path / "images", train=60, test=4)
    damaged = load("images", folder, size=8, loader=LoaderSettings("streaming", workers=1))
    assert isinstance(damaged, Dataset)
    broken = damaged.train.read(int(damaged.train.rows[5]))[1]  # type: ignore[union-attr]
    Path(broken).write_bytes(b"no image")
    training, paths = supernet(damaged, tmp_path / "run")
    with pytest.raises(DataError, match=f"^{broken} is no image that can be decoded"):
        training.train(paths)
