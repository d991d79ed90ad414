"""Settings that come with RayNAS: they load, and the ImageNet ones run on a folder of that layout."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import images

from raynas.cli.main import main
from raynas.config.loading import load
from raynas.config.presets import PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_all_load(name: str) -> None:
    assert load(name).search.method == "evolution"


def test_the_imagenet_recipes_are_those_of_the_papers() -> None:
    spos, rlnas = load("imagenet_spos"), load("imagenet_rlnas")
    train = spos.train.resolved()
    assert (train.epochs, train.batch_size, train.lr, train.weight_decay) == (120, 1024, 0.5, 4e-5)
    assert train.schedule == "linear"
    assert spos.search.bn_images == 20_000 and spos.limits == {"macs": 330e6} and spos.retrain.epochs == 240
    for config in (spos, rlnas):
        assert config.search.method_args["population"] == 50 and config.search.num_samples == 1000
        assert config.data.loader == "auto" and config.data.size == 224
    train = rlnas.train.resolved()
    assert (train.epochs, train.batch_size, train.lr, train.labels) == (120, 512, 0.25, "random")
    assert rlnas.limits == {"macs": 475e6} and (rlnas.retrain.lr, rlnas.retrain.batch_size) == (0.5, 1024)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["imagenet_spos", "imagenet_rlnas"])
def test_a_dry_run_on_a_folder_of_its_layout(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = images.image_folder(tmp_path / "data", train=20, test=4, size=230)
    words = [f"data.folder={folder}", "data.loader=streaming", "data.validation=0.2", "train.batch_size=8", "--dry-run"]
    assert main(["--config", name, "--storage-path", str(tmp_path / "runs"), *words]) == 0
    printed = capsys.readouterr().out
    assert "loader: streaming (decoded they take 10.84 MB), training images are decoded by processes" in printed
    assert "images: 48 to train on, 12 to score on, 12 to test on; 16 training images of each class" in printed
