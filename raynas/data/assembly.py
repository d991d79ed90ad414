"""Divides the images of two sources into splits, in memory or encoded on disk."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from raynas.data.dataset import Dataset, Split
from raynas.data.decoding import Coloured, Images
from raynas.data.encoded import EncodedSplit
from raynas.data.labels import classes_of
from raynas.data.readers.source import Source
from raynas.data.splits import spread, statistics
from raynas.data.streaming import Loading
from raynas.exceptions import DataError
from raynas.utils.formatting import quantity

__all__ = ["LoaderSettings", "SplitSettings", "assemble"]

log = logging.getLogger(__name__)

_SAMPLED_BYTES = 2**27
"""Decoded images of a sample, from which grey or colour, mean and deviation are taken."""
_HELD_OUT_BYTES = 2**30
"""Validation images in memory where training images are streamed."""
_SHOWN = 5
"""So many images that cannot be decoded are named."""
_FEWEST = 512
"""At least so many images in both."""


@dataclass(frozen=True)
class SplitSettings:
    """How the splits of a data set are drawn."""

    validation: float | int
    """Share of the training images, or how many, that are held out."""
    seed: int
    limit: int | None
    """The most images of the training and of the test part; None for all."""


@dataclass(frozen=True)
class LoaderSettings:
    """How images of files are loaded."""

    loader: Literal["auto", "resident", "streaming", "ray"] = "auto"
    """resident: decoded once into memory. streaming: decoded when a step needs them; ray: by tasks on all nodes. auto:
    streaming where the decoded images take more than an eighth of the memory of this machine."""
    workers: int | None = None
    """See :class:`raynas.data.streaming.Loading`."""
    prefetch: int = 2
    """See :class:`raynas.data.streaming.Loading`."""
    channels: Literal[1, 3] | None = None
    """Of every image: with 1, images in colour become grey. None: 3 if at least one is in colour. Streaming looks at a
    sample."""
    skip_unreadable: bool = False
    """Leave out images that cannot be decoded. All are decoded once to find them."""
    calibration: int = 2048
    """Streaming: the most training images that are kept in memory for BatchNorm statistics."""


@dataclass(frozen=True)
class _Rows:
    """The images of each split, ascending, with their classes."""

    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    test_labels: npt.NDArray[np.int64]


def assemble(name: str, train: Source, test: Source, settings: SplitSettings, loader: LoaderSettings) -> Dataset:
    """The data set of two sources.

    Raises:
        DataError: Labels or images that do not fit, no split of this size, or images in memory that are to be streamed.
    """
    classes = classes_of(name, train.labels, train.names)
    labels, test_labels = classes.numbers(train.labels, name, "train"), classes.numbers(test.labels, name, "test")
    kept = spread(labels, min(settings.limit or len(labels), len(labels)), settings.seed)
    tested = spread(test_labels, min(settings.limit or len(test_labels), len(test_labels)), settings.seed)
    if train.decoder is not None and loader.channels is not None:
        train.decoder.grey = train.decoder.converts = loader.channels == 1
    if loader.skip_unreadable:
        kept, tested = (_readable(name, *pair) for pair in ((train, kept), (test, tested)))
    held_out = _held_out(settings.validation, len(kept))
    first = _first(train, kept)
    streamed = _streams(name, (len(kept) + len(tested)) * first.nbytes, loader, train.read is not None)
    if streamed and isinstance(settings.validation, float):
        held_out = min(held_out, max(_HELD_OUT_BYTES // first.nbytes, _FEWEST))
    chosen = np.zeros(len(labels), bool)
    chosen[kept[spread(labels[kept], held_out, settings.seed)]] = True
    rows = _Rows(kept[~chosen[kept]], kept[chosen[kept]], tested, labels, test_labels)
    parts = _streaming(train, test, rows, loader, settings.seed) if streamed else _resident(train, test, rows)
    return Dataset(
        name, classes=len(classes), class_names=classes.names, mirror_invariant=train.mirror_invariant, **parts
    )


def _readable(name: str, source: Source, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The images that can be decoded; the others are named in a warning."""
    if source.read is None or source.decoder is None:
        raise DataError(f"data.skip_unreadable is for images in files, and those of {name} are in memory already")
    kept, faults = source.decoder.readable(source.read, rows)
    if not len(kept):
        raise DataError(f"{name}: none of {len(rows)} images can be decoded, for example: {faults[0]}")
    if faults:
        shown = "; ".join(faults[:_SHOWN]) + ("; ..." if len(faults) > _SHOWN else "")
        log.warning("%s: %d of %d images are left out: %s", name, len(faults), len(rows), shown)
    return kept


def _held_out(validation: float | int, images: int) -> int:
    count = round(validation * images) if isinstance(validation, float) and validation < 1 else validation
    if not 0 < count < images or count != int(count):
        raise DataError(f"validation={validation} leaves no split: there are {images} training images to divide")
    return int(count)


def _first(source: Source, rows: npt.NDArray[np.int64]) -> Images:
    """One image, which shows what each takes in memory."""
    return _decoded([(source, rows[:1])])[0]


def _streams(name: str, needed: int, loader: LoaderSettings, encoded: bool) -> bool:
    """Whether images are to be decoded when they are needed."""
    on_demand = loader.loader in ("streaming", "ray")
    if on_demand and not encoded:
        raise DataError(
            f"data.loader = {loader.loader} is for images in files, and those of {name} are in memory already"
        )
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8
    return encoded and loader.loader != "resident" and (on_demand or needed > most)


def _decoded(wanted: list[tuple[Source, npt.NDArray[np.int64]]]) -> list[Images]:
    """The images of these rows; all in colour if one of them is."""
    try:
        return [source.decode(rows) for source, rows in wanted]
    except Coloured:
        for source, _ in wanted:
            assert source.decoder is not None
            source.decoder.grey = False
        return [source.decode(rows) for source, rows in wanted]


def _resident(train: Source, test: Source, rows: _Rows) -> dict[str, Any]:
    images = _decoded([(train, rows.train), (train, rows.validation), (test, rows.test)])
    if train.decoder is not None:
        train.decoder.check(images[0])
    targets = rows.labels[rows.train], rows.labels[rows.validation], rows.test_labels[rows.test]
    splits = [
        Split(torch.from_numpy(pixels).contiguous(), torch.from_numpy(numbers))
        for pixels, numbers in zip(images, targets, strict=True)
    ]
    mean, std = statistics(splits[0].inputs)
    return {"train": splits[0], "validation": splits[1], "test": splits[2], "mean": mean, "std": std}


def _streaming(train: Source, test: Source, rows: _Rows, loader: LoaderSettings, seed: int) -> dict[str, Any]:
    assert train.read is not None and test.read is not None and train.decoder is not None
    size = _first(train, rows.train).nbytes
    needed = quantity(size * sum(map(len, (rows.train, rows.validation, rows.test))))
    auto = "an eighth of the memory of this machine is less" if loader.loader == "auto" else ""
    why = f"decoded they take {needed}B" + (f", and {auto}" if auto else "")
    sampled = min(max(_SAMPLED_BYTES // size, _FEWEST, loader.calibration), len(rows.train))
    sample = np.sort(np.random.RandomState(seed).permutation(len(rows.train))[:sampled])
    images = _decoded([(train, rows.train[sample]), (train, rows.validation)])
    train.decoder.check(images[0])
    mean, std = statistics(torch.from_numpy(images[0]))
    shape: tuple[int, int, int] = images[0].shape[1:]

    def encoded(source: Source, chosen: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> EncodedSplit:
        assert source.read is not None and source.decoder is not None
        blocks = None if source.blocks is None else tuple(_blocks(source.blocks, chosen))
        targets = torch.from_numpy(labels[chosen])
        return EncodedSplit(source.read, source.decoder, chosen, targets, shape, blocks)

    # The sample is in the order of the images, which may be that of their classes.
    shuffled = np.random.RandomState(seed).permutation(sampled)[: loader.calibration]
    calibration = torch.from_numpy(images[0][shuffled]) if loader.calibration else None
    return {
        "train": encoded(train, rows.train, rows.labels),
        "validation": Split(torch.from_numpy(images[1]), torch.from_numpy(rows.labels[rows.validation])),
        "test": encoded(test, rows.test, rows.test_labels),
        "mean": mean,
        "std": std,
        "calibration": calibration,
        "loading": Loading(True, loader.workers, loader.prefetch, loader.loader == "ray", why),
    }


def _blocks(starts: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> list[int]:
    """The first of the rows in each block, without blocks that have none."""
    first = np.unique(np.searchsorted(rows, starts))
    return [int(row) for row in first if row < len(rows)]
