"""By which recipe a found architecture is trained from scratch."""

import errno
import itertools
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import tiny

from raynas import prepare
from raynas.config.run import Config, DataConfig, RetrainConfig
from raynas.config.train import TrainConfig
from raynas.data.dataset import to_arrays
from raynas.exceptions import ConfigError
from raynas.nn.subnet import derive
from raynas.training import checkpoint, retrain, retrain_worker
from raynas.training.retrain import retrain_recipe


def test_the_recipe_is_that_of_the_supernet_with_changes():
    config = Config(train=TrainConfig(epochs=7, lr=0.3, nesterov=True), retrain=RetrainConfig(epochs=9))
    recipe = retrain_recipe(config, None, 1000)
    assert (recipe.epochs, recipe.lr, recipe.nesterov, recipe.weight_decay) == (9, 0.3, True, 5e-4)


def test_another_preset_decides_all_that_presets_decide():
    train = TrainConfig(minutes=3, lr=0.3, cutout=2, weight_decay=0.1, nesterov=True, precision="float32")
    recipe = retrain_recipe(Config(train=train, retrain=RetrainConfig(preset="darts", batch_size=32)), None, 1000)
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.cutout) == (600, 32, 0.025, 16)
    assert (recipe.weight_decay, recipe.drop_path, recipe.clip, recipe.minutes) == (3e-4, 0.2, 5.0, None)
    assert recipe.nesterov and recipe.precision == "float32"


def test_minutes_of_the_supernet_become_its_epochs():
    config = Config(train=TrainConfig(minutes=3, batch_size=100))
    saved = (50, {}, {"total": 50})
    assert retrain_recipe(config, saved, 1000).epochs == 5
    config.retrain.preset = "darts"
    assert retrain_recipe(config, saved, 1000).epochs == 600


def test_paths_that_cannot_be_dropped_are_said(tmp_path, no_ray):
    data = DataConfig(name="helpers.tiny:arrays")
    config = Config(space="helpers.tiny:space", data=data, storage_path=str(tmp_path), train=TrainConfig(drop_path=0.2))
    with pytest.raises(ConfigError, match=r"train\.drop_path has no effect: no module of Tiny has"):
        prepare(config)
    prepare(
        Config(space="helpers.tiny:space", data=data, storage_path=str(tmp_path), retrain=RetrainConfig(preset="darts"))
    )
    able = tiny.space(num_classes=4)
    able.drop_path = 0.0
    prepare(Config(train=TrainConfig(drop_path=0.2), storage_path=str(tmp_path)), space=able, data=tiny.data())


def test_when_a_node_must_leave_a_checkpoint_is_written_at_once(tmp_path, monkeypatch):
    """Otherwise one a minute and one at the end would be."""
    recipe = TrainConfig(epochs=2, batch_size=32, precision="float32").resolved()
    network = derive(tiny.space(4), {f"blocks.{place}": "k1" for place in range(3)})
    rank = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    fake = SimpleNamespace(get=lambda held: held, train=SimpleNamespace(get_context=lambda: rank))
    monkeypatch.setattr(retrain_worker, "ray", fake)
    monkeypatch.setattr(retrain_worker, "watch", fake)
    job = retrain_worker.RetrainJob(network, to_arrays(tiny.data()), recipe, 0, tmp_path)

    write, steps = checkpoint.write, []

    def noted(folder, step, *rest):
        steps.append(step)
        write(folder, step, *rest)
        if len(steps) == 1:
            raise InterruptedError("the node is gone")

    def train(*notices):
        notices = itertools.chain(notices, itertools.repeat(False))
        monkeypatch.setattr(retrain_worker, "PreemptionNotice", lambda: SimpleNamespace(given=notices.__next__))
        retrain_worker.train_worker({"job": job})

    monkeypatch.setattr(checkpoint, "write", noted)
    with pytest.raises(InterruptedError):
        train(True)
    assert len(steps) == 1 and 0 < steps[0] < 16
    train()
    assert steps[1:] == [16]
    lines = [json.loads(line)["step"] for line in (tmp_path / "training.jsonl").read_text().splitlines()]
    assert lines == sorted(set(lines)), "it went on from that checkpoint"


def test_a_finished_training_is_not_made_again_and_its_recipe_not_written(
    tmp_path: Path, no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full when a retraining is asked for once more costs nothing."""
    folder = tmp_path / "retrain"
    folder.mkdir()
    (folder / "result.json").write_text('{"test_accuracy": 50.0, "epochs": 1, "seconds": 1.0}')
    network, recipe = torch.nn.Linear(2, 2), TrainConfig(epochs=1, preset="spos").resolved()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert retrain.retrain(network, tiny.data(), recipe, 0, folder)["test_accuracy"] == 50.0
    before = (folder / "recipe.json").read_text()
    monkeypatch.setattr(os, "fsync", full)
    assert retrain.retrain(network, tiny.data(), recipe, 0, folder)["test_accuracy"] == 50.0
    assert (folder / "recipe.json").read_text() == before and json.loads(before)["seed"] == 0
