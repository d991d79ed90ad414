"""Labels of all kinds become classes 0 to K-1 and keep their names; what are no labels is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet as pq

from raynas.config.run import Config, DataConfig
from raynas.data import loading
from raynas.data.dataset import Dataset, from_arrays, to_arrays
from raynas.data.loading import load
from raynas.exceptions import DataError
from raynas.runs.factory import _load


def table(count: int, bad: int | None = None, **columns: Any) -> pa.Table:
    files = []
    for number in range(count):
        file = io.BytesIO()
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(file, "PNG")
        files.append({"bytes": b"damaged" if number == bad else file.getvalue(), "path": None})
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.table({"image": pa.array(files, kind), **{name: pa.array(v[:count]) for name, v in columns.items()}})


def read(place: Path, train: pa.Table, test: pa.Table | None = None, **further: Any) -> Dataset:
    place.mkdir(exist_ok=True)
    for name, content in {"train-00000-of-00001": train, "test": test or train.slice(0, 8), **further}.items():
        if isinstance(content, pa.Table):
            (place / name).parent.mkdir(exist_ok=True)
            pq.write_table(content, place / f"{name}.parquet")
    data = load("parquet", place, **{name: value for name, value in further.items() if isinstance(value, str)})
    assert isinstance(data, Dataset)
    return data


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["dog", "cat"] * 10, ("cat", "dog")),
        ([True, False] * 10, ("False", "True")),
        ([1, 2] * 10, ("1", "2")),
        ([1000001, 1000000] * 10, ("1000000", "1000001")),
        ([-1, 1] * 10, ("-1", "1")),
        (pa.array(["x", "a"] * 10).dictionary_encode(), ("a", "x")),
        (pa.array([0, 1] * 10, pa.uint8()), ("0", "1")),
    ],
)
def test_labels_are_numbered_and_keep_their_names(labels: Any, names: tuple[str, ...], tmp_path: Path) -> None:
    data = read(tmp_path, table(20, label=labels, width=[28] * 20))
    assert (data.classes, data.class_names) == (2, names)
    images = [int(image.flatten()[0]) for image in data.test.inputs]  # each shows the number of its row
    given = labels.to_pylist() if isinstance(labels, pa.Array) else labels
    assert [names[target] for target in data.test.targets] == [str(given[row]) for row in images]
    assert from_arrays(to_arrays(data)).class_names == names


def test_names_of_classes_in_the_files(tmp_path: Path) -> None:
    content = table(20, label=[0, 2] * 10)
    features = {"info": {"features": {"label": {"names": ["cat", "dog", "fox"], "_type": "ClassLabel"}}}}
    data = read(tmp_path, content.replace_schema_metadata({"huggingface": json.dumps(features)}))
    assert (data.classes, data.class_names) == (3, ("cat", "dog", "fox"))


def test_the_column_has_a_name(tmp_path: Path) -> None:
    numbers, others = [0, 1] * 10, [3] * 20
    assert read(tmp_path / "a", table(20, labels=numbers, id=list(range(20)))).class_names == ("0", "1")
    both = table(20, fine_label=numbers, coarse_label=others)
    with pytest.raises(DataError, match=r"2 columns could hold the labels.*name it: data\.label=fine_label"):
        read(tmp_path / "b", both)
    assert read(tmp_path / "b", both, label="fine_label").class_names == ("0", "1")
    config = Config(data=DataConfig(name="parquet", folder=str(tmp_path / "b"), label="fine_label", image="image"))
    assert _load(config).classes == 2
    with pytest.raises(DataError, match=r"test.parquet has no column 'label'.*same columns.*width: int64"):
        read(tmp_path / "c", table(20, label=numbers, width=others), table(8, width=numbers))
    with pytest.raises(DataError, match=r"column 'score' of .* is double; labels must be integers, words or truth"):
        read(tmp_path / "d", table(20, score=[0.5] * 20), label="score")
    with pytest.raises(DataError, match="label=x cannot be used with digits"):
        load("digits", label="x")


def test_the_folder_of_the_hub(tmp_path: Path) -> None:
    numbers = [0, 1] * 10
    for name in ("data/train-0", "data/validation-0"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pq.write_table(table(20, label=numbers), tmp_path / f"{name}.parquet")
    assert len(load("parquet", tmp_path).test) == 20


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([0] * 20, [0] * 20, r"all 20 training images have the label 0: at least 2 classes are needed"),
        (["a"] * 20, ["a"] * 20, r"all 20 training images have the label 'a'"),
        ([0, 1] * 10, [-1] * 20, r"8 of 8 labels of the test part are -1.*move its files away, and a validation part"),
        ([0, 1, -1, 1] * 5, [0] * 20, r"5 of 20 labels of the training part are -1.*remove these rows"),
        (list(range(5, 25)), [5] * 20, r"each of the 20 training images has a label of its own \(5, 6, .*data\.label"),
        (["a", "b"] * 10, ["c"] * 20, r"label 'c' of test image 0 is out of range: there are 2 classes, 'a', 'b'"),
        ([0, 1] * 10, [0, None] * 10, r"column 'label' of test\.parquet has no value in row 1"),
        ([0, 1] * 10, ["a"] * 20, r"labels must be integers|out of range"),
    ],
)
def test_what_are_no_labels_is_refused(train: list[Any], test: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, table(20, label=train), table(8, label=test))


def test_a_damaged_image_is_named_by_its_own_file_and_row(tmp_path: Path) -> None:
    numbers, second = [0, 1] * 10, "train-00001-of-00002"
    with pytest.raises(DataError, match=rf"row 3 of .*{second}\.parquet is no image"):
        read(tmp_path, table(20, label=numbers), **{second: table(20, 3, label=numbers)})
    (tmp_path / f"{second}.parquet").unlink()
    with pytest.raises(DataError, match=r"train_metadata\.parquet has no column 'image' of the images.*move it away"):
        read(tmp_path, table(20, label=numbers), train_metadata=pa.table({"id": [1]}))


IMAGES = np.random.RandomState(0).randint(0, 256, (20, 3, 8, 8), np.uint8)
CLASSES = np.arange(20) % 2


def of_user(monkeypatch: pytest.MonkeyPatch, images: Any, labels: Any) -> Dataset:
    monkeypatch.setattr(loading, "_call", lambda *_: ((images, labels), (images, labels)))
    data = load("my:function")
    assert isinstance(data, Dataset)
    return data


def test_labels_of_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    for labels, names in (
        (CLASSES + 1, ("1", "2")),
        (CLASSES.astype(bool), ("False", "True")),
        (["ab"[number] for number in CLASSES], ("a", "b")),
        ((CLASSES * 7).tolist(), ("0", "7")),
    ):
        data = of_user(monkeypatch, IMAGES, labels)
        assert data.class_names == names and data.classes == 2


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            IMAGES.transpose(0, 2, 3, 1),
            CLASSES,
            r"these are uint8 \[20, 8, 8, 3\]: use images\.transpose\(0, 3, 1, 2\)",
        ),
        (IMAGES[:, 0], CLASSES, r"these are uint8 \[20, 8, 8\]: use images\[:, None\] for grey"),
        (IMAGES / 255, CLASSES, r"these are float64 .*: use \(images \* 255\)\.round\(\)\.astype\('uint8'\)"),
        (IMAGES.astype(np.float32), CLASSES, r"use images\.astype\('uint8'\) for values in 0\.\.255"),
        (IMAGES.astype(np.int64), CLASSES, r"use images\.astype\('uint8'\)"),
        (IMAGES / 64 - 2, CLASSES, r"these are in -2\.\.1\.98438: undo a normalisation"),
        (IMAGES, CLASSES[:, None], r"these are int64 \[20, 1\]: use labels\[:, 0\]"),
        (IMAGES, np.eye(2)[CLASSES], r"use labels\.argmax\(1\) for one-hot labels"),
        (IMAGES, IMAGES[:, 0] % 3, r"masks and several labels for one image need a task of your own"),
        (IMAGES, CLASSES.astype(float), r"labels must be integers, these are float64 \[20\]: use labels\.astype"),
        (IMAGES, CLASSES[:19], "20 images have 19 labels"),
    ],
)
def test_arrays_of_another_form_are_refused_with_a_cure(
    images: Any, labels: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=message):
        of_user(monkeypatch, images, labels)
