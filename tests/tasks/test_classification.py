"""What is done to training images: nothing that nobody asked for, and it is said."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers import tiny

from raynas.config.train import TrainConfig
from raynas.data.dataset import Dataset, from_arrays, to_arrays
from raynas.data.loading import load
from raynas.tasks.base import RankInfo, task_of
from raynas.tasks.classification import Images, augmentation


@pytest.mark.parametrize("preset", ["small", "spos", "darts", "darts_imagenet", "nao"])
def test_only_what_may_be_mirrored_is_mirrored_unasked(preset: str) -> None:
    recipe, data = TrainConfig(preset=preset), tiny.data()  # type: ignore[arg-type]
    assert not augmentation(recipe, data).mirrors, "the name of a data set decides nothing"
    assert not augmentation(recipe, dataclasses.replace(data, name="cifar10")).mirrors
    assert augmentation(recipe, dataclasses.replace(data, mirror_invariant=True)).mirrors
    for asked, mirrors in (("crop_flip", True), ("imagenet", True), ("crop", False), ("none", False)):
        for may in (False, True):
            settings = dataclasses.replace(recipe, augment=asked)
            assert augmentation(settings, dataclasses.replace(data, mirror_invariant=may)).mirrors == mirrors


def test_a_batch_is_as_it_is_described() -> None:
    """Images whose left half is white: after mirroring the right half is."""
    data = tiny.data()
    inputs = torch.zeros(64, 1, 8, 8, dtype=torch.uint8)
    inputs[..., :4] = 255
    half = dataclasses.replace(
        data, train=dataclasses.replace(data.train, inputs=inputs, targets=data.train.targets[:64])
    )
    for augment, mirrored in (("auto", False), ("crop_flip", True)):
        recipe = TrainConfig(augment=augment, batch_size=64).resolved()  # type: ignore[arg-type]
        batch, _ = Images(half).train_loader(recipe, 0, RankInfo(), torch.device("cpu"), False).batch(0)
        assert bool((batch[..., 0].mean((1, 2)) < batch[..., -1].mean((1, 2))).any()) == mirrored
        assert (
            f"{'mirrored' if mirrored else 'not mirrored'} (train.augment={augment}" in Images(half).describe(recipe)[2]
        )


def test_the_description_names_classes_and_what_mirrors() -> None:
    data = dataclasses.replace(tiny.data(), class_names=("a", "b", "c", "d"))
    lines = Images(data).describe(TrainConfig())
    assert lines[0] == "classes: 4 (a, b, c, d)" and lines[1].startswith(
        "normalisation: mean 0.200, standard deviation"
    )
    assert lines[2].endswith("not mirrored (train.augment=auto; train.augment=crop_flip mirrors)")
    back = from_arrays(to_arrays(dataclasses.replace(data, mirror_invariant=True)))
    assert isinstance(back, Dataset) and back.mirror_invariant and back.class_names == data.class_names
    words = load("pydoc_topics", limit=2000)
    assert task_of(words).describe(TrainConfig())[0].startswith("vocabulary: ")
