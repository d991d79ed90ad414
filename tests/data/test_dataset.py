"""Data sets: every source, the division into splits, and what is refused."""

from __future__ import annotations

import gzip
import io
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet as pq

from raynas.data.dataset import Dataset, Split, for_search, from_arrays, to_arrays
from raynas.data.loading import load
from raynas.exceptions import DataError
from raynas.tasks.base import task_of


def _images(count: int, seed: int = 0, side: int = 8, channels: int = 3) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (count, channels, side, side), np.uint8)


def _png(image: np.ndarray, form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0).squeeze()).save(stream, form)
    return stream.getvalue()


def _write_parquet(path: Path, images: list[bytes], labels: list[int], names: Sequence[str] = ("img", "label")) -> None:
    cells = [{"bytes": data, "path": None} for data in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"id": pa.array([str(i) for i in range(len(labels))]), names[0]: pa.array(cells, kind)}
    pq.write_table(pa.table({**columns, names[1]: pa.array(labels, pa.int64())}), path)


def _dataset(**changes: object) -> Dataset:
    split = Split(torch.from_numpy(_images(4)), torch.tensor([0, 1, 2, 1]))
    parts = {"train": split, "validation": split, "test": split, "classes": 3, "mean": (0.5,) * 3, "std": (0.2,) * 3}
    return Dataset("mine", **{**parts, **changes})  # type: ignore[arg-type]


def test_digits_are_divided_evenly_and_without_overlap() -> None:
    data = load("digits", validation=0.25, seed=3)
    assert data.image_shape == (1, 8, 8) and data.classes == 10
    sizes = [len(split) for split in (data.train, data.validation, data.test)]
    assert sum(sizes) == 1797 and sizes[1] == round(0.25 * (sizes[0] + sizes[1]))
    shares = [split.targets.bincount() / len(split) for split in (data.train, data.validation, data.test)]
    assert all((share - shares[0]).abs().max() < 0.01 for share in shares)
    # As many times as an image occurs in scikit-learn's set, so many times in the three splits together.
    from sklearn.datasets import load_digits

    whole = torch.from_numpy((load_digits().images * (255 / 16)).round().astype(np.uint8))
    ours = torch.cat([data.train.inputs, data.validation.inputs, data.test.inputs])
    assert sorted(map(bytes, ours.flatten(1).numpy())) == sorted(map(bytes, whole.flatten(1).numpy()))


def test_statistics_are_those_of_the_train_split() -> None:
    data = load("digits")
    pixels = data.train.inputs.double() / 255
    assert data.mean[0] == pytest.approx(float(pixels.mean()))
    assert data.std[0] == pytest.approx(float(pixels.std(correction=0)))


def test_split_depends_on_the_seed_alone() -> None:
    first, again, other = load("digits", seed=1), load("digits", seed=1), load("digits", seed=2)
    assert torch.equal(first.validation.inputs, again.validation.inputs)
    assert not torch.equal(first.validation.inputs, other.validation.inputs)
    assert torch.equal(first.test.inputs, other.test.inputs)
    # The same on every machine and for all time: a changed figure would mix up train and validation of old runs.
    ranks = torch.arange(1, len(first.validation) + 1).view(-1, 1, 1, 1)
    assert int((first.validation.inputs.long() * ranks).sum()) == 207432071


@pytest.mark.slow
def test_split_is_the_same_in_another_process() -> None:
    code = (
        "from raynas.data.loading import load; d = load('digits', seed=1); "
        "print(int(d.validation.inputs[::3].long().sum()))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(printed) == int(load("digits", seed=1).validation.inputs[::3].long().sum())


def test_validation_as_a_number_and_limit() -> None:
    data = load("digits", validation=100, limit=300)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [200, 100, 300]
    assert data.validation.targets.bincount().tolist() == [10] * 10


def test_parquet(tmp_path: Path) -> None:
    train, test = _images(12), _images(5, seed=1)
    _write_parquet(tmp_path / "train-00000-of-00002.parquet", [_png(i) for i in train[:7]], [0, 1, 2, 0, 1, 2, 0])
    _write_parquet(tmp_path / "train-00001-of-00002.parquet", [_png(i) for i in train[7:]], [1, 2, 0, 1, 2])
    _write_parquet(tmp_path / "test.parquet", [_png(i, "BMP") for i in test], [0, 1, 2, 0, 1])
    data = load("parquet", tmp_path, validation=3)
    assert sorted(data.validation.targets.tolist()) == [0, 1, 2]
    assert np.array_equal(data.test.inputs.numpy(), test)
    ours = torch.cat([data.train.inputs, data.validation.inputs]).flatten(1).numpy()
    assert sorted(map(bytes, ours)) == sorted(map(bytes, train.reshape(12, -1)))


def test_parquet_columns_are_found_by_type(tmp_path: Path) -> None:
    for part in ("train", "val"):
        images = [_png(image) for image in _images(4, channels=1)]
        _write_parquet(tmp_path / f"{part}.parquet", images, [0, 1, 0, 1], ("x", "y"))
    data = load("parquet", tmp_path, validation=2)
    assert data.image_shape == (1, 8, 8) and data.classes == 2
    table = pq.read_table(tmp_path / "train.parquet")
    pq.write_table(table.append_column("z", table["y"]), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"2 columns could hold the labels.*y: int64, z: int64"):
        load("parquet", tmp_path)


def test_parquet_of_several_sizes_needs_a_size(tmp_path: Path) -> None:
    images = [_png(_images(1, side=side)[0], "JPEG") for side in (8, 8, 9, 8)]
    for part in ("train", "test"):
        _write_parquet(tmp_path / f"{part}.parquet", images, [0, 1, 0, 1])
    with pytest.raises(DataError, match=r"row 2 of .*train.parquet has 9x9 pixels, the others 8x8: give size="):
        load("parquet", tmp_path, validation=1, seed=1)
    assert load("parquet", tmp_path, validation=1, size=6).image_shape == (3, 6, 6)


def test_damaged_image_is_named(tmp_path: Path) -> None:
    images = [_png(image, "JPEG") for image in _images(4)]
    images[3] = b"\xff\xd8\xff not really"
    for part in ("train", "test"):
        _write_parquet(tmp_path / f"{part}.parquet", images, [0, 1, 0, 1])
    with pytest.raises(DataError, match=r"row 3 of .*train.parquet is no image that can be decoded"):
        load("parquet", tmp_path, validation=1)


def test_real_cifar10(shared_data: Path) -> None:
    data = load("parquet", shared_data / "cifar10", limit=500)
    assert data.image_shape == (3, 32, 32) and data.classes == 10
    assert [len(split) for split in (data.train, data.validation, data.test)] == [400, 100, 500]
    assert data.mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.02)  # the well-known figures
    assert data.std == pytest.approx((0.2470, 0.2435, 0.2616), abs=0.02)


def test_image_folder(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for label, grey in (("cat", 50), ("dog", 200)):
            (tmp_path / part / label).mkdir(parents=True)
            for index in range(3):
                image = np.full((3, 10 + index, 20), grey, np.uint8)
                (tmp_path / part / label / f"{index}.png").write_bytes(_png(image))
    data = load("images", tmp_path, size=12, validation=2)
    assert data.image_shape == (3, 12, 12) and len(data.test) == 6
    for split in (data.train, data.validation, data.test):
        assert torch.equal(split.inputs.amin((1, 2, 3)), torch.where(split.targets == 0, 50, 200).to(torch.uint8))
    (tmp_path / "val" / "dog").rename(tmp_path / "val" / "fox")
    with pytest.raises(DataError, match="class 'dog' is in only one of"):
        load("images", tmp_path)


@pytest.mark.parametrize("below, packed", [("", True), ("FashionMNIST/raw", False)])
def test_idx_files(tmp_path: Path, below: str, packed: bool) -> None:
    place = tmp_path / below
    place.mkdir(parents=True, exist_ok=True)
    images, labels = _images(6, side=28, channels=1)[:, 0], np.array([0, 1, 2, 2, 1, 0], np.uint8)

    def write(stem: str, values: np.ndarray) -> None:
        data = struct.pack(f">HBB{values.ndim}i", 0, 8, values.ndim, *values.shape) + values.tobytes()
        (place / (f"{stem}.gz" if packed else stem)).write_bytes(gzip.compress(data) if packed else data)

    for part in ("train", "t10k"):
        write(f"{part}-images-idx3-ubyte", images)
        write(f"{part}-labels-idx1-ubyte", labels)
    data = load("fashion_mnist", tmp_path, validation=3)
    assert data.image_shape == (1, 28, 28) and data.test.targets.tolist() == labels.tolist()
    assert np.array_equal(data.test.inputs.numpy()[:, 0], images)
    damaged = place / ("t10k-images-idx3-ubyte" + (".gz" if packed else ""))
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with pytest.raises(DataError, match="t10k-images"):
        load("fashion_mnist", tmp_path)


def test_cifar_in_the_layout_of_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    from torchvision import datasets

    folder = tmp_path / datasets.CIFAR10.base_folder
    folder.mkdir()
    images = _images(2, side=32)
    for name, _ in datasets.CIFAR10.train_list + datasets.CIFAR10.test_list:
        (folder / name).write_bytes(pickle.dumps({"data": images.reshape(2, -1), "labels": [3, 4]}))
    (folder / datasets.CIFAR10.meta["filename"]).write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    with pytest.raises(DataError, match=r"no cifar10 in .*cifar-10-batches-py"):  # checksums do not agree
        load("cifar10", tmp_path)
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    data = load("cifar10", tmp_path, validation=2)
    assert np.array_equal(data.test.inputs.numpy(), images) and len(data.train) == 8


@pytest.fixture
def my_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package of a user, importable for the time of a test."""
    package = tmp_path / "my_images"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "data.py").write_text(
        "import numpy as np, torch\n"
        "from raynas.data.dataset import Dataset, Split\n"
        "def arrays():\n"
        "    x, y = np.zeros((20, 1, 4, 4), np.uint8), np.arange(20) % 4\n"
        "    return (x, y), (x[:8], y[:8])\n"
        "def tensors(folder):\n"
        "    (x, y), _ = arrays()\n"
        "    x, y = torch.from_numpy(x), torch.from_numpy(y)\n"
        "    return (x, y), (x, y + int(folder))\n"
        "def dataset():\n"
        "    (x, y), _ = arrays()\n"
        "    s = Split(torch.from_numpy(x), torch.from_numpy(y))\n"
        "    return Dataset('own', s, s, s, 4, (0.5,), (0.5,))\n"
        "def floats():\n"
        "    x, y = np.zeros((20, 1, 4, 4), np.float32), np.arange(20)\n"
        "    return (x, y), (x, y)\n"
        "def nonsense():\n"
        "    return 7\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "my_images.data"
    for name in ("my_images", "my_images.data"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("images", "size", "preset"), [(10**5, 128, "spos"), (10**5, 32, "small"), (999, 224, "small")]
)
def test_data_like_imagenet_are_trained_by_the_recipe_for_it(images: int, size: int, preset: str) -> None:
    inputs, targets = torch.zeros(1, 1, 1, 1, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)
    split = Split(inputs.expand(images, 1, size, size), targets.expand(images))
    assert task_of(Dataset("many", split, split, split, 1, (0.5,), (0.5,))).preset == preset


def test_images_are_made_smaller_for_a_search() -> None:
    digits = load("digits")
    seen = for_search(digits, 4)
    assert isinstance(digits, Dataset) and isinstance(seen, Dataset)
    assert seen.image_shape == (1, 4, 4) and seen.test is not digits.test and len(seen.test) == len(seen.validation)
    # About the mean of two by two: the filter against aliasing reaches a little farther.
    halves = torch.nn.functional.avg_pool2d(digits.train.inputs.float(), 2)
    assert torch.corrcoef(torch.stack([halves.flatten(), seen.train.inputs.float().flatten()]))[0, 1] > 0.9
    assert seen.mean == pytest.approx(digits.mean, abs=0.01) and seen.std[0] < digits.std[0]
    assert for_search(digits, None).image_shape == (1, 8, 8)
    for size in (8, 9):
        with pytest.raises(DataError, match=rf"search_size = {size}: the images of digits have 8x8 pixels"):
            for_search(digits, size)
    with pytest.raises(DataError, match=r"search_size = 4 is of images, and pydoc_topics is a text"):
        for_search(load("pydoc_topics"), 4)


def test_function_of_a_user(my_package: str) -> None:
    data = load(f"{my_package}:arrays", validation=4)
    assert data.classes == 4 and [len(s) for s in (data.train, data.validation, data.test)] == [16, 4, 8]
    assert sorted(data.validation.targets.tolist()) == [0, 1, 2, 3]
    assert data.std == (1 / 255,)  # a constant channel can still be divided by
    assert load(f"{my_package}:tensors", folder="0").classes == 4
    assert load(f"{my_package}:dataset").name == "own"
    assert len(load(f"{my_package}:dataset", limit=5).test) == 5


def test_function_of_a_user_that_returns_something_else(my_package: str) -> None:
    with pytest.raises(DataError, match=r"label 4 of test image 3 is out of range: there are 4 classes, 0\.\.3"):
        load(f"{my_package}:tensors", folder="1")
    with pytest.raises(DataError, match=r"images must be uint8 \[N, C, H, W\], these are float32 \[20, 1, 4, 4\]"):
        load(f"{my_package}:floats")
    with pytest.raises(DataError, match="must return a Dataset or"):
        load(f"{my_package}:nonsense")
    with pytest.raises(DataError, match="cannot be imported"):
        load(f"{my_package}:absent")
    with pytest.raises(DataError, match="cannot be imported"):
        load("no_such_package.data:load")


def test_names_and_folders_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown data set 'cifar'; legal ones: digits, fashion_mnist, cifar10"):
        load("cifar")
    with pytest.raises(DataError, match="'cifar10' needs the folder"):
        load("cifar10")
    with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
        load("cifar10", tmp_path / "nowhere")
    for name in ("cifar10", "cifar100", "fashion_mnist", "images", "parquet"):
        with pytest.raises(DataError, match=f"no .* in {tmp_path}: expected"):
            load(name, tmp_path)


@pytest.mark.parametrize("validation", [0, 1.0e9, -3, 1442, 10.5, 1e-9])
def test_impossible_validation(validation: float) -> None:
    with pytest.raises(DataError, match=r"leaves no split: there are 14.. training images"):
        load("digits", validation=validation)


def test_settings_out_of_range() -> None:
    with pytest.raises(DataError, match="limit must be at least 2, got 1"):
        load("digits", limit=1)
    with pytest.raises(DataError, match="size=16 cannot be used"):
        load("digits", size=16)


def test_split_refuses_what_does_not_fit() -> None:
    images, labels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    for inputs, targets, message in (
        (images[0], labels, r"these are uint8 \[3, 8, 8\]"),
        (images.float(), labels, "these are float32"),
        (images, labels.int(), "labels must be int64"),
        (images, labels[:3], "4 images have 3 labels"),
        (images[:0], labels[:0], "there are no images"),
    ):
        with pytest.raises(DataError, match=message):
            Split(inputs, targets)


def test_dataset_refuses_what_does_not_fit() -> None:
    other = Split(torch.zeros(2, 3, 9, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(DataError, match=r"test images are \[3, 9, 8\] where train images are \[3, 8, 8\]"):
        _dataset(test=other)
    with pytest.raises(DataError, match="label 2 of train image 2 is out of range"):
        _dataset(classes=2)
    with pytest.raises(DataError, match="label -1 of validation image 0"):
        _dataset(validation=Split(torch.from_numpy(_images(1)), torch.tensor([-1])))
    with pytest.raises(DataError, match="mean and std"):
        _dataset(std=(0.2, 0.0, 0.2))


def test_more_images_than_memory_are_refused() -> None:
    from raynas.data.decoding import check_memory

    with pytest.raises(DataError, match=r"1000000000 images of 3x224x224 take 150528.0 GB and this machine has"):
        check_memory((1_000_000_000, 3, 224, 224))


def test_arrays_go_there_and_back_without_a_copy() -> None:
    data = load("digits")
    arrays = to_arrays(data)
    for value in arrays.values():
        if isinstance(value, np.ndarray):
            value.flags.writeable = False  # as Ray's object store hands them out
    back = from_arrays(arrays)
    assert back.train.inputs.data_ptr() == arrays["train.inputs"].ctypes.data
    assert torch.equal(back.test.inputs, data.test.inputs) and torch.equal(back.test.targets, data.test.targets)
    assert (back.name, back.classes, back.mean, back.std) == (data.name, data.classes, data.mean, data.std)
