"""What each kind of image becomes, decided for all parts of a data set alike; the rest is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from raynas.data.dataset import Dataset
from raynas.data.loading import load
from raynas.exceptions import DataError

RAMP = np.arange(1024).reshape(32, 32)
GREY = (RAMP // 4).astype(np.uint8)


def folder_of(place: Path, make: Callable[[str, str, int], Image.Image], ending: str = "png") -> Path:
    for part in ("train", "test"):
        for label in "ab":
            (place / part / label).mkdir(parents=True)
            for number in range(3):
                make(part, label, number).save(place / part / label / f"{number}.{ending}")
    return place


def read(place: Path, size: int = 32) -> Dataset:
    data = load("images", place, size=size, validation=2)
    assert isinstance(data, Dataset)
    return data


def one(place: Path, image: Image.Image, ending: str = "png") -> Tensor:
    return read(folder_of(place, lambda *_: image, ending)).train.inputs[0]


def test_sixteen_bits_keep_the_upper_eight(tmp_path: Path) -> None:
    deep = RAMP * 64
    for ending, pixels in (("png", deep), ("tif", deep), ("pgm", deep)):
        found = one(tmp_path / ending, Image.fromarray(pixels.astype(np.uint16)), ending)
        assert np.array_equal(found.numpy()[0], deep >> 8) and found.shape == (1, 32, 32)
    with pytest.raises(DataError, match=r"16 bits a pixel, of which only the lower .* value is 1023 \(.*0\.png is one"):
        one(tmp_path / "low", Image.fromarray(RAMP.astype(np.uint16)))


@pytest.mark.parametrize(
    ("pixels", "mode"), [((RAMP * 60).astype(np.int32), "I"), ((RAMP / 1024).astype(np.float32), "F")]
)
def test_without_a_known_range_it_is_refused_by_name(pixels: np.ndarray, mode: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"train/a/0\.tif is an image of mode {mode} .*convert the images to 8 or 16"):
        one(tmp_path, Image.fromarray(pixels), "tif")


def test_alpha_is_blended_over_white(tmp_path: Path) -> None:
    def icon(part: str, label: str, number: int) -> Image.Image:
        pixels = np.zeros((32, 32, 4), np.uint8)
        pixels[16 * (label == "b") :, :, 3][:16] = 255
        return Image.fromarray(pixels)

    found = read(folder_of(tmp_path / "icons", icon)).train
    assert found.inputs.unique().tolist() == [0, 255]
    assert torch.equal(found.inputs[:, 0, 0, 0], torch.where(found.targets == 0, 0, 255).to(torch.uint8))
    half = Image.fromarray(np.dstack([np.zeros((32, 32), np.uint8), GREY]))
    assert np.array_equal(one(tmp_path / "grey", half).numpy()[0], 255 - GREY)
    white = np.full((32, 32, 4), 255, np.uint8)
    white[:16, :, 3] = 0
    with pytest.raises(DataError, match="all pixels of all 4 training images are 255: there is nothing to learn from"):
        one(tmp_path / "white", Image.fromarray(white))


def test_palettes_and_other_colours(tmp_path: Path) -> None:
    colour = Image.fromarray(np.dstack([GREY, 255 - GREY, GREY.T]))
    exact = np.asarray(colour).transpose(2, 0, 1)
    assert np.array_equal(one(tmp_path / "rgb", colour).numpy(), exact)
    for name, image, ending in (("p", colour.quantize(256), "png"), ("cmyk", colour.convert("CMYK"), "tif")):
        found = one(tmp_path / name, image, ending).numpy()
        assert found.shape == (3, 32, 32) and np.abs(found.astype(int) - exact).mean() < 12
    black = Image.fromarray(GREY > 127)
    assert one(tmp_path / "bits", black).unique().tolist() == [0, 255]


def test_one_image_in_colour_makes_all_parts_colour(tmp_path: Path) -> None:
    grey, colour = Image.fromarray(GREY), Image.fromarray(np.dstack([GREY, 255 - GREY, GREY.T]))

    def make(part: str, label: str, number: int) -> Image.Image:
        return colour if (part, label, number) == ("test", "b", 2) else grey

    data = read(folder_of(tmp_path, make))
    assert data.image_shape == (3, 32, 32) and torch.equal(data.train.inputs[:, 0], data.train.inputs[:, 2])


def test_another_depth_or_size_in_another_part_is_named(tmp_path: Path) -> None:
    def deep(part: str, label: str, number: int) -> Image.Image:
        return Image.fromarray(GREY if part == "train" else (RAMP * 64).astype(np.uint16))

    with pytest.raises(DataError, match=r"test/a/0\.png has 16 bits per pixel, the others 8: convert them to one kind"):
        read(folder_of(tmp_path / "deep", deep))
