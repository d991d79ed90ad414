"""Images that are decoded when a step needs them: the same batches as from memory, at any step, and clear errors."""

from __future__ import annotations

import os
import pickle
import signal
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
import torch
from helpers import images
from pyarrow import parquet as pq

from raynas.config.run import SearchConfig
from raynas.config.train import TrainConfig
from raynas.data.assembly import LoaderSettings
from raynas.data.dataset import Dataset, Split, for_search, from_arrays, to_arrays
from raynas.data.encoded import EncodedSplit
from raynas.data.loading import load
from raynas.data.order import MIXED, EpochOrder, RankInfo
from raynas.data.streaming import BatchStream, Loading
from raynas.exceptions import DataError
from raynas.tasks.classification import Images, ImageTrainLoader

CPU = torch.device("cpu")
RECIPE = TrainConfig(batch_size=8, augment="none").resolved()
STREAMING = LoaderSettings("streaming", workers=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty images in three classes, of several sizes."""
    return images.image_folder(tmp_path_factory.mktemp("images"), train=20, test=4)


def loaded(folder: Path, loader: LoaderSettings = STREAMING, name: str = "images", size: int | None = 16) -> Dataset:
    data = load(name, folder, size=size, loader=loader)
    assert isinstance(data, Dataset)
    return data


def train_loader(data: Dataset, rank: RankInfo = RankInfo(), **settings: object) -> ImageTrainLoader:  # noqa: B008
    recipe = TrainConfig(**{"batch_size": 8, "augment": "none", **settings}).resolved()  # type: ignore[arg-type]
    return Images(data).train_loader(recipe, 0, rank, CPU, False)


def test_streamed_batches_are_those_from_memory(folder: Path) -> None:
    streamed, resident = loaded(folder), loaded(folder, LoaderSettings("resident"))
    assert isinstance(streamed.train, EncodedSplit) and isinstance(resident.train, Split)
    assert streamed.class_names == resident.class_names == ("blue", "green", "red")
    ours, theirs = train_loader(streamed), train_loader(resident)
    assert ours.epoch_steps == theirs.epoch_steps
    for step in range(2 * ours.epoch_steps):  # two epochs
        (a, labels), (b, same) = ours.batch(step), theirs.batch(step)
        # Mean and deviation are those of a sample, which here is all of it.
        assert torch.equal(labels, same) and torch.allclose(a, b, atol=1e-5)
    ours.close()


def test_all_images_of_a_split_are_those_from_memory(folder: Path) -> None:
    streamed, resident = loaded(folder), loaded(folder, LoaderSettings("resident"))
    for one, two in zip(
        Images(streamed).batches(streamed.test, 5, CPU), Images(resident).batches(resident.test, 5, CPU), strict=True
    ):
        assert torch.equal(one[1], two[1]) and torch.allclose(one[0], two[0], atol=1e-5)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("augment", ["crop_flip", "imagenet"])
def test_a_loader_may_begin_at_any_step(folder: Path, workers: int, augment: str) -> None:
    def batches(first: int, workers: int) -> list[torch.Tensor]:
        data = loaded(folder, LoaderSettings("streaming", workers=workers))
        loader = train_loader(data, augment=augment)
        found = [loader.batch(step)[0] for step in range(first, 12)]
        loader.close()
        return found

    whole, rest = batches(0, 0), batches(7, workers)
    assert all(torch.equal(a, b) for a, b in zip(whole[7:], rest, strict=True))
    assert not torch.equal(whole[0], whole[6]), "an epoch has another order than the one before"


def test_the_ranks_share_a_step(folder: Path) -> None:
    data = loaded(folder, LoaderSettings("streaming", workers=0))
    shares = [train_loader(data, RankInfo(rank, 2), augment="imagenet").batch(3) for rank in range(2)]
    whole = train_loader(data, augment="none").batch(3)[1]
    assert torch.equal(torch.stack([share[1] for share in shares], 1).flatten(), whole)


def test_random_rectangles_are_cut_from_the_whole_image(tmp_path: Path) -> None:
    """Of an image of 8 vertical stripes, a rectangle shows fewer; after a cut to a square no more than 2 are left."""
    for part in ("train", "test"):
        for name in ("a", "b"):
            place = tmp_path / part / name
            place.mkdir(parents=True)
            for number in range(10):
                stripes = np.repeat(np.arange(8, dtype=np.uint8) * 30, 16)[None].repeat(16, 0)
                images.save(place / f"{number}.png", stripes)
    data = loaded(tmp_path, LoaderSettings("streaming", workers=0))
    loader = train_loader(data, augment="imagenet", augment_strength=1.0)
    assert loader.stream is not None
    seen = torch.cat([loader.stream.batch(step) for step in range(10)]).float()
    assert seen.amin() < 40 and seen.amax() > 170, "the first and the last stripe are seen"
    means = seen.mean((1, 2, 3))
    assert means.std() > 20, "rectangles are at different places"


def test_what_travels_holds_no_pixels(folder: Path) -> None:
    data = loaded(folder, LoaderSettings("streaming", calibration=4))
    arrays = to_arrays(data)
    again = from_arrays(pickle.loads(pickle.dumps(arrays)))
    assert isinstance(again, Dataset) and isinstance(again.train, EncodedSplit)
    assert torch.equal(train_loader(again).batch(0)[0], train_loader(data).batch(0)[0])
    assert len(pickle.dumps(arrays["train"])) < 100 * len(data.train) + 10_000
    assert data.calibration is not None and len(data.calibration) == 4
    settings = SearchConfig(bn_images=4, batch_size=4)
    assert sum(map(len, Images(again).validation_slices(settings, CPU).calibration())) == 4


def test_a_search_on_smaller_images(folder: Path) -> None:
    data = for_search(loaded(folder), 8)
    assert isinstance(data, Dataset) and data.image_shape == (3, 8, 8)
    assert train_loader(data).batch(0)[0].shape[1:] == (3, 8, 8)
    assert isinstance(data.test, Split) and torch.equal(data.test.inputs, data.validation.inputs)


def test_what_does_not_fit_into_memory_is_streamed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = LoaderSettings("auto")
    assert isinstance(loaded(folder, settings).train, Split)
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 400_000}[name])
    assert isinstance(loaded(folder, settings).train, EncodedSplit)
    assert isinstance(loaded(folder, LoaderSettings("resident")).train, Split)
    with pytest.raises(DataError, match="streaming is for images in files, and those of digits are in memory"):
        load("digits", loader=STREAMING)


def write_parquet(folder: Path, count: int, group: int) -> None:
    encoded = [images.encoded(np.full((8, 8, 3), number, np.uint8)) for number in range(count)]
    for part in ("train", "test"):
        table = pa.table({"image": encoded, "label": [number % 2 for number in range(count)]})
        pq.write_table(table, folder / f"{part}.parquet", row_group_size=group)


def test_images_of_parquet_files_are_read_by_row_groups(tmp_path: Path) -> None:
    write_parquet(tmp_path, 240, 5)
    streamed = loaded(tmp_path, STREAMING, "parquet", None)
    assert isinstance(streamed.train, EncodedSplit)
    blocks = streamed.train.blocks
    assert blocks is not None and len(blocks) == 48
    loader = train_loader(streamed)
    seen = [int(label) for step in range(loader.epoch_steps) for label in loader.order.rows(step)]
    assert len(set(seen)) == len(seen)
    first = {int(np.searchsorted(blocks, row, side="right")) for row in seen[: 16 * 3]}
    assert len(first) <= MIXED, "so many row groups are mixed at a time"
    images_, labels = loader.batch(0)
    rows = streamed.train.rows[loader.order.rows(0).numpy()]
    values = images_[:, 0, 0, 0] * streamed.std[0] * 255 + streamed.mean[0] * 255
    assert values.round().int().tolist() == rows.tolist() and labels.tolist() == [row % 2 for row in rows]


def test_an_order_by_blocks_has_every_example_once() -> None:
    order = EpochOrder(100, 10, 0, RankInfo(), blocks=[0, 3, 50, 99])
    seen = torch.cat([order.rows(step) for step in range(10)])
    assert sorted(seen.tolist()) == list(range(100)) and seen.tolist() != list(range(100))


# Errors


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    images.image_folder(tmp_path, train=20, test=4)
    data = loaded(tmp_path)
    assert isinstance(data.train, EncodedSplit)
    broken = data.train.read(int(data.train.rows[3]))[1]
    Path(broken).write_bytes(b"no image")
    loader = train_loader(data)
    with pytest.raises(DataError, match=f"^{broken} is no image that can be decoded"):
        for step in range(loader.epoch_steps):
            loader.batch(step)
    os.unlink(broken)
    with pytest.raises(DataError, match=f"^{broken} cannot be read: No such file"):
        for step in range(loader.epoch_steps):
            loader.batch(step)


@pytest.mark.parametrize("loader", ["resident", "streaming"])
def test_damaged_images_are_counted_and_left_out_if_that_is_asked_for(
    loader: Literal["resident", "streaming"], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images.image_folder(tmp_path, train=20, test=4)
    for name in ("blue/3.jpg", "red/0.jpg", "red/7.jpg"):
        (tmp_path / "train" / name).write_bytes(b"no image")
    with pytest.raises(DataError, match=r"blue/3.jpg is no image.*;? ?( . other images neither)? \(data.skip"):
        loaded(tmp_path, LoaderSettings("resident"))
    caplog.clear()
    data = loaded(tmp_path, LoaderSettings(loader, workers=0, skip_unreadable=True))
    assert len(data.train) + len(data.validation) == 57
    assert "images: 3 of 60 images are left out: " in caplog.text and "red/7.jpg is no image" in caplog.text
    whole = train_loader(data)
    assert sum(len(whole.batch(step)[1]) for step in range(whole.epoch_steps)) == 40
    with pytest.raises(DataError, match="skip_unreadable is for images in files"):
        load("digits", loader=LoaderSettings(skip_unreadable=True))


def test_an_image_in_colour_among_grey_ones_is_named(tmp_path: Path) -> None:
    images.image_folder(tmp_path, train=20, test=4, grey=True)
    data = loaded(tmp_path)
    assert data.image_shape[0] == 1 and isinstance(data.train, EncodedSplit)
    odd = data.train.read(int(data.train.rows[3]))[1]
    images.save(Path(odd), np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8))
    loader = train_loader(data)
    with pytest.raises(DataError, match=f"^{odd} is in colour.*data.channels=3"):
        for step in range(loader.epoch_steps):
            loader.batch(step)
    one = loaded(tmp_path, LoaderSettings("streaming", channels=1))
    assert one.image_shape[0] == 1 and len(train_loader(one).batch(0)[1]) == 8
    whole = loaded(tmp_path, LoaderSettings("streaming", channels=3))
    assert whole.image_shape[0] == 3 and train_loader(whole).batch(0)[0].shape[1] == 3


def test_a_class_without_images_is_refused(tmp_path: Path) -> None:
    images.image_folder(tmp_path, train=2, test=2)
    for file in (tmp_path / "train" / "red").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="class 'red' has no images in"):
        loaded(tmp_path)


def killed(step: int) -> torch.Tensor:
    if step == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return torch.tensor(step)


def fails(step: int) -> torch.Tensor:
    raise KeyError("column")


def test_a_process_that_dies_is_one_line() -> None:
    stream = BatchStream(killed, Loading(True, 1), CPU)
    assert int(stream.batch(0)) == 0
    with pytest.raises(DataError, match=r"a process that loads data died .*lower data.workers"):
        for step in range(1, 4):
            stream.batch(step)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_users_code_tells_its_line(workers: int) -> None:
    stream = BatchStream(fails, Loading(True, workers), CPU)
    with pytest.raises(DataError, match=r"KeyError: 'column' \(.*test_streaming.py, line \d+: raise KeyError"):
        stream.batch(0)


def test_waiting_is_measured() -> None:
    def slow(step: int) -> torch.Tensor:
        torch.ones(400, 400) @ torch.ones(400, 400)
        return torch.tensor(step)

    stream = BatchStream(slow, Loading(True, 0), CPU)
    stream.batch(0)
    assert stream.waited == 0.0, "what a start takes is no waiting"
    stream.batch(1)
    once = stream.waited
    assert once > 0
    stream.batch(2)
    assert stream.waited > once
