"""Images that are decoded when a step needs them: memory, and images/s side by side with plain PyTorch.

    python benchmarks/streaming.py memory          peak memory of a whole search, 6,000 images and 60,000
    python benchmarks/streaming.py loader          images/s against torchvision's ImageFolder in a DataLoader
    python benchmarks/streaming.py training        images/s of training against the same on images in memory

The images are drawn: photographs-like noise of several frequencies, JPEG files of 256 to 320 pixels. ``memory`` makes
many of few by hard links, so that the disk holds little. Rounds of both sides alternate, each with one thread.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from raynas.spaces.shufflenet import spos
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision.transforms import v2

from benchmarks.soak_processes import Sample
from raynas.config.train import TrainConfig
from raynas.data.assembly import LoaderSettings
from raynas.data.dataset import Dataset
from raynas.data.loading import load
from raynas.data.order import RankInfo
from raynas.nn.choice import decisions
from raynas.tasks.classification import Images
from raynas.training.path_sampling import UniformPaths
from raynas.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
CLASSES = 10
DRAWN = 400


def draw(folder: Path) -> list[Path]:
    """Different JPEG files."""
    rng, files = np.random.default_rng(0), []
    folder.mkdir(parents=True)
    for number in range(DRAWN):
        height, width = rng.integers(256, 320, 2)
        layers = [Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)) for side in (4, 16, 64)]
        pixels = np.mean([np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC)) for layer in layers], 0)
        files.append(folder / f"{number}.jpg")
        Image.fromarray(pixels.astype(np.uint8)).save(files[-1], quality=90)
    return files


def image_folder(folder: Path, train: int, test: int = 200) -> Path:
    """So many images in the layout of ImageNet."""
    files = itertools.cycle(draw(folder / "drawn"))
    for part, count in (("train", train), ("test", test)):
        for name in range(CLASSES):
            (folder / part / f"{name:02d}").mkdir(parents=True)
        for number in range(count):
            os.link(next(files), folder / part / f"{number % CLASSES:02d}" / f"{number:06d}.jpg")
    return folder


def memory(folder: Path) -> None:
    """The peak of the whole process tree of a search."""
    peaks = {}
    for count in (6_000, 60_000):
        data = image_folder(folder / str(count), count)
        line = [
            sys.executable, "-m", "raynas.launch", "--storage-path", str(folder / "runs"), "--name", str(count),
            "--space", "spaces.shufflenet:spos", "--num-samples", "4", "after=[]", "data.name=images",
            f"data.folder={data}", "data.loader=streaming", f"data.validation={600 / count}",
            "search.validation_images=100",
            "search.bn_images=64", "search.slices=1", "search.scheduler=none", "search.batch_size=32",
            "search.replicas=1", "search.max_concurrent=1", "train.preset=spos", "train.batch_size=16",
            f"train.epochs={16 * 40 / (count - 600)}", "train.workers=1", "limits={}",
        ]  # fmt: skip
        driver = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL)
        peak = driver_peak = 0.0
        while driver.poll() is None:
            sample = Sample.take(driver.pid)
            peak, driver_peak = max(peak, sample.all_mb), max(driver_peak, sample.driver_mb)
            time.sleep(0.2)
        if driver.returncode:
            raise SystemExit(f"the search of {count} images ended with {driver.returncode}")
        peaks[count] = peak
        print(f"{count:6d} images of 224 pixels: peak {peak:.0f} MB in all processes, {driver_peak:.0f} MB the driver")
    few, many = peaks.values()
    print(f"ratio {many / few:.3f} for ten times the images")


def alternate(sides: dict[str, Callable[[], float]], rounds: int, warm_up: int = 1) -> None:
    """Images/s of both sides in turns, and the ratio of the first to the second."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + warm_up):
        for name, measure in sides.items():
            rate = measure()
            if number >= warm_up:
                found[name].append(rate)
    ours, theirs = found.values()
    for name, rates in found.items():
        print(f"{name}: {statistics.fmean(rates):.1f} images/s")
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    total = statistics.harmonic_mean(ours) / statistics.harmonic_mean(theirs)
    print(f"ratio {total:.3f} (rounds {ratios[0]:.3f} to {ratios[-1]:.3f})")


def streamed(folder: Path, workers: int, loader: str = "streaming", size: int = 224) -> Dataset:
    data = load("images", folder, size=size, loader=LoaderSettings(loader, workers))  # type: ignore[arg-type]
    assert isinstance(data, Dataset)
    return data


def loader(folder: Path, workers: int, rounds: int) -> None:
    """The same transforms with as many processes."""
    source = image_folder(folder / "images", 4_000)
    batch, steps = 64, 12
    recipe = TrainConfig(preset="spos", batch_size=batch, augment="imagenet").resolved()
    ours = Images(streamed(source, workers)).train_loader(recipe, 0, RankInfo(), CPU, False)
    transform = v2.Compose(
        [
            v2.PILToTensor(),
            v2.RandomResizedCrop(224),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(0.4, 0.4, 0.4),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.5,) * 3, (0.25,) * 3),
        ]
    )
    plain = DataLoader(
        datasets.ImageFolder(str(source / "train"), transform), batch, shuffle=True, num_workers=workers,
        persistent_workers=True,
    )  # fmt: skip

    def endless() -> Iterator[Any]:
        while True:
            yield from plain

    theirs, place = endless(), itertools.count()

    def rate(take: Callable[[], Any]) -> float:
        begin = time.perf_counter()
        for _ in range(steps):
            take()
        return steps * batch / (time.perf_counter() - begin)

    # Both sides have worker processes that work ahead while the other is measured: what they made ahead is taken first.
    def settled(take: Callable[[], Any]) -> Callable[[], float]:
        def measure() -> float:
            for _ in range(2 * workers + 2):
                take()
            return rate(take)

        return measure

    alternate(
        {
            "streaming loader of RayNAS": settled(lambda: ours.batch(next(place))),
            "ImageFolder and DataLoader": settled(lambda: next(theirs)),
        },
        rounds,
    )


def training(folder: Path, workers: int, rounds: int) -> None:
    """A supernet at 96 pixels, where a step takes longer than decoding its images."""
    source = image_folder(folder / "images", 2_000)
    recipe = TrainConfig(preset="spos", batch_size=32, epochs=1000, augment="crop_flip", lr=0.01)
    trainers = {}
    for name in ("streaming", "resident"):
        torch.manual_seed(0)
        space = spos(num_classes=CLASSES)
        trainers[name] = Trainer(space, streamed(source, workers, name, 96), recipe, UniformPaths(decisions(space)))

    def rate(trainer: Trainer) -> Callable[[], float]:
        def measure() -> float:
            made = trainer.run(trainer.step + 6)
            return made.images / made.seconds

        return measure

    alternate({name: rate(trainer) for name, trainer in trainers.items()}, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("memory", "loader", "training"))
    parser.add_argument("--workers", type=int, default=1, help="processes that decode")
    parser.add_argument("--rounds", type=int, default=8)
    flags = parser.parse_args()
    torch.set_num_threads(1)  # so that a core is left for the process that decodes
    with tempfile.TemporaryDirectory() as folder:
        if flags.what == "memory":
            memory(Path(folder))
        else:
            {"loader": loader, "training": training}[flags.what](Path(folder), flags.workers, flags.rounds)


if __name__ == "__main__":
    main()
