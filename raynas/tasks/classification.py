"""Image classification: batches of augmented images, cross-entropy, accuracy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raynas.config.run import ExportConfig, SearchConfig
from raynas.config.train import Preset, TrainConfig
from raynas.data.dataset import Dataset, Split
from raynas.data.encoded import EncodedSplit, EncodedSteps
from raynas.data.order import EpochOrder, RankInfo
from raynas.data.streaming import BatchStream
from raynas.data.transforms import Augment, normalise
from raynas.exceptions import ConfigError, ForwardError
from raynas.export.signature import ImageSignature, Inputs
from raynas.metrics import ACCURACY
from raynas.tasks.base import Task, TrainLoader, ValidationSlices
from raynas.utils.formatting import quantity
from raynas.utils.seeds import seed_of

__all__ = ["ImageTrainLoader", "ImageValidationSlices", "Images", "augmentation", "to_input"]


_SHOWN = 10
"""So many classes are named in a description."""


def to_input(images: Tensor, data: Dataset) -> Tensor:
    """Images as a model takes them: normalised, in the order of :func:`raynas.training.trainer.place_model`."""
    inputs = normalise(images, data.mean, data.std)
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs


class Images(Task):
    """Image classification."""

    metric = ACCURACY
    presets: tuple[Preset, ...] = ("auto", "small", "spos", "darts", "darts_imagenet", "nao")

    def __init__(self, data: Dataset) -> None:
        self.data = data

    @property
    def preset(self) -> Preset:
        """The one for ImageNet where there are many images of at least 128 pixels, else that for small data."""
        return "spos" if self.data.image_shape[1] >= 128 and len(self.data.train) >= 100_000 else "small"

    @property
    def space_arguments(self) -> dict[str, int]:
        """``num_classes`` and ``in_channels``."""
        return {"num_classes": self.data.classes, "in_channels": self.data.image_shape[0]}

    def check(self, train: TrainConfig) -> None:
        """Images must be square.

        Raises:
            ConfigError: They are not.
        """
        _, height, width = self.data.image_shape
        if height != width:
            raise ConfigError(f"images must be square, these are {height} x {width}: bring them to one size first")

    def describe(self, train: TrainConfig) -> list[str]:
        """The classes, the normalisation and the augmentation."""
        applied = augmentation(train, self.data)
        asked = "" if applied.mirrors or train.augment != "auto" else "; train.augment=crop_flip mirrors"
        names = ", ".join(self.data.class_names[:_SHOWN]) + (", ..." if self.data.classes > _SHOWN else "")
        mean, std = (", ".join(f"{value:.3f}" for value in values) for values in (self.data.mean, self.data.std))
        return [
            f"classes: {self.data.classes} ({names})",
            f"normalisation: mean {mean}, standard deviation {std} of pixels in 0..1",
            f"augmentation of training images: {applied} (train.augment={train.augment}{asked})",
            _counts(self.data),
            _loading(self.data),
        ]

    def example(self, batch: int = 1, train: TrainConfig | None = None) -> Tensor:
        """A batch of zeros in the shape of the data: float32 [batch, C, H, W]."""
        return torch.zeros(batch, *self.data.image_shape)

    def examples_per_epoch(self, train: TrainConfig) -> int:
        """The training images."""
        return len(self.data.train)

    def train_loader(
        self, recipe: TrainConfig, seed: int, rank: RankInfo, device: torch.device, shared: bool
    ) -> ImageTrainLoader:
        """Shuffled batches of augmented images."""
        return ImageTrainLoader(self.data, recipe, seed, rank, device, shared)

    def slices(self, settings: SearchConfig) -> int:
        """``settings.slices``, at most one an image."""
        images = min(settings.validation_images or len(self.data.validation), len(self.data.validation))
        return max(min(settings.slices, images), 1)

    def validation_slices(self, settings: SearchConfig, device: torch.device) -> ImageValidationSlices:
        """The validation images in slices."""
        return ImageValidationSlices(self.data, settings, device)

    def batches(self, split: Split | EncodedSplit, size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """All images of a split, prepared, and their labels."""
        if isinstance(split, EncodedSplit):
            for images, targets in split.batches(size, self.data.loading, device):
                yield to_input(images, self.data), targets
            return
        for inputs, targets in zip(split.inputs.split(size), split.targets.split(size), strict=True):
            yield to_input(inputs.to(device), self.data), targets.to(device)

    def evaluate_batch(self, model: nn.Module, inputs: Tensor, targets: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The number of correct answers and the summed cross-entropy of a batch: float32 [2]; no state."""
        outputs = model(inputs)
        loss = F.cross_entropy(outputs.float(), targets, reduction="sum")
        return torch.stack([(outputs.argmax(1) == targets).sum().float(), loss]), None

    def check_outputs(self, outputs: Any, examples: int, training: bool) -> None:
        """Logits [N, classes]; in training those of auxiliary classifiers may follow in a tuple.

        Raises:
            ForwardError: The outputs are something else.
        """
        several = isinstance(outputs, (tuple, list))
        if several and not training:
            raise ForwardError(
                f"in evaluation forward returns a {type(outputs).__name__} of {len(outputs)}: return the logits alone, "
                "a tensor [N, classes] (return a tuple, with auxiliary logits, only if self.training)"
            )
        for place, each in enumerate(outputs if isinstance(outputs, tuple) else (outputs,)):
            if not isinstance(each, Tensor):
                kind = f"a dict with {', '.join(map(repr, each))}" if isinstance(each, dict) else type(each).__name__
                raise ForwardError(f"forward returns {kind}: return the logits, a tensor [N, classes]")
            if each.ndim != 2 or len(each) != examples or each.shape[1] < self.data.classes:
                which = f"output {place} of a tuple, the logits of an auxiliary classifier," if place else "forward"
                raise ForwardError(
                    f"{which} has the shape {list(each.shape)} for {examples} images: needed are logits [N, classes], "
                    f"with at least {self.data.classes} classes"
                )

    def export_signature(self, inputs: Inputs, settings: ExportConfig) -> ImageSignature:
        """The normalisation of the images and the names of the classes."""
        return ImageSignature(inputs, self.data.mean, self.data.std, self.data.class_names, settings.normalise)


def _counts(data: Dataset) -> str:
    """How many images there are, in all and of the rarest and the most frequent class."""
    counts = torch.bincount(data.train.targets, minlength=data.classes)
    rare, frequent = int(counts.argmin()), int(counts.argmax())
    text = f"images: {len(data.train)} to train on, {len(data.validation)} to score on, {len(data.test)} to test on"
    if counts[rare] == counts[frequent]:
        return f"{text}; {int(counts[rare])} training images of each class"
    return (
        f"{text}; training images of a class: {int(counts[rare])} ({data.class_names[rare]}) to "
        f"{int(counts[frequent])} ({data.class_names[frequent]})"
    )


def _loading(data: Dataset) -> str:
    """Where the images are."""
    resident = f"{quantity(data.bytes)}B in memory"
    if isinstance(data.train, Split):
        return f"loader: resident, {resident}"
    kind, who = ("ray", "Ray tasks") if data.loading.remote else ("streaming", "processes")
    workers = "by default" if data.loading.workers is None else data.loading.workers
    return (
        f"loader: {kind} ({data.loading.why}), training images are decoded by {who} (data.workers: {workers}) when a "
        f"step needs them; validation and calibration images: {resident}"
    )


class ImageTrainLoader(TrainLoader):
    """The training images of one rank, step by step.

    Args:
        data: The images; only ``data.train`` is touched.
        recipe: How to train; nothing open.
        seed: Decides everything drawn.
        rank: Of this process.
        device: Where the images stay.
        shared: Whether a supernet is trained, which may be trained with random labels.
    """

    def __init__(
        self,
        data: Dataset,
        recipe: TrainConfig,
        seed: int,
        rank: RankInfo,
        device: torch.device,
        shared: bool,
    ) -> None:
        assert recipe.batch_size is not None and recipe.cutout is not None
        self.data, self.recipe, self.device = data, recipe, device
        self.seed, self.rank = seed, rank.rank
        self.order = EpochOrder(len(data.train), recipe.batch_size, seed, rank, device)
        self.examples, self.epoch_steps = self.order.examples, self.order.epoch_steps
        self.augment = augmentation(recipe, data)
        self.inputs: Tensor | None = None
        self.stream: BatchStream | None = None
        if isinstance(data.train, Split):
            self.inputs = data.train.inputs.to(device)
        else:
            order = EpochOrder(len(data.train), recipe.batch_size, seed, rank, blocks=data.train.blocks)
            # Random rectangles are cut from the whole image, before it is brought to its size.
            least = self.augment.least_area if self.augment.name == "imagenet" else None
            self.augment = dataclasses.replace(self.augment, crops=False)
            self.order = order
            self.stream = BatchStream(EncodedSteps(data.train, order, least), data.loading, device)
        self.targets = data.train.targets.to(device)
        self.random_labels = shared and recipe.labels == "random"
        if self.random_labels:
            self.targets = _random_labels(data, self.seed).to(device)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """This rank's share of the step's images, augmented and normalised, and their labels."""
        rows = self.order.rows(step)
        generator = torch.Generator(device=self.device)
        generator.manual_seed(seed_of(self.seed, "augment", step, self.rank))
        if self.stream is not None:
            images = self.stream.batch(step)
        else:
            assert self.inputs is not None
            images = self.inputs[rows]
        return to_input(self.augment(images, generator), self.data), self.targets[rows.to(self.device)]

    @property
    def waited(self) -> float:
        """Seconds in which steps waited for images."""
        return 0.0 if self.stream is None else self.stream.waited

    def close(self) -> None:
        """End the processes that decode images."""
        if self.stream is not None:
            self.stream.close()

    def loss(self, outputs: Tensor | tuple[Tensor, ...], targets: Tensor) -> Tensor:
        """Cross-entropy, with that of auxiliary classifiers where the network has some."""
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        smoothing = self.recipe.label_smoothing or 0.0
        loss = F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)
        for further in auxiliary:
            loss = loss + self.recipe.auxiliary * F.cross_entropy(further.float(), targets, label_smoothing=smoothing)
        return loss

    def state_dict(self) -> dict[str, Tensor]:
        """The labels, where they are random."""
        return {"labels": self.targets.int()} if self.random_labels else {}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Go on with the labels of a checkpoint."""
        if self.random_labels:
            self.targets = tensors["labels"].long().to(self.device)


def augmentation(recipe: TrainConfig, data: Dataset) -> Augment:
    """What is done to the training images.

    ``auto`` mirrors only what says of itself that it may be mirrored; a name of an augmentation is taken as it is.
    """
    name, mirror = recipe.augment, None
    if name == "auto":
        name, mirror = "imagenet" if recipe.preset in ("spos", "darts_imagenet") else "crop", data.mirror_invariant
    return Augment(
        name, data.image_shape[-1], cutout=recipe.resolved().cutout or 0,
        colour=tuple(float(value) for value in data.mean), strength=recipe.augment_strength, mirror=mirror,
    )  # fmt: skip


def _random_labels(data: Dataset, seed: int) -> Tensor:
    """A random label for every training image, uniform over the classes: int64 [N]."""
    generator = torch.Generator().manual_seed(seed_of(seed, "labels"))
    return torch.randint(data.classes, (len(data.train),), generator=generator)


class ImageValidationSlices(ValidationSlices):
    """The validation images in slices, the same for everyone, and the training images that calibrate.

    Args:
        data: ``data.validation`` is scored on, ``data.train`` calibrates BatchNorm statistics.
        settings: ``slices``, ``validation_images``, ``bn_images`` and ``batch_size``.
        device: Where the images stay.
    """

    def __init__(self, data: Dataset, settings: SearchConfig, device: torch.device) -> None:
        self.data, self.batch_size = data, settings.batch_size
        self.slices = Images(data).slices(settings)
        images = min(settings.validation_images or len(data.validation), len(data.validation))
        # In an order of our own: data may come sorted by class, and every slice must be a fair sample.
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(data.validation), generator=generator)[:images]
        self.inputs = data.validation.inputs[order].to(device)
        self.targets = data.validation.targets[order].to(device)
        chosen = torch.randperm(len(data.train), generator=generator)[: settings.bn_images]
        self._calibration = data.calibration_images(chosen).to(device)

    def batches(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """One slice, from 0, in batches."""
        images = len(self.inputs)
        first, last = images * number // self.slices, images * (number + 1) // self.slices
        for start in range(first, last, self.batch_size):
            rows = slice(start, min(start + self.batch_size, last))
            yield to_input(self.inputs[rows], self.data), self.targets[rows]

    def calibration(self) -> Iterator[Tensor]:
        """Training images in equal batches, so that each counts the same."""
        count = -(-len(self._calibration) // self.batch_size)
        for chunk in self._calibration.tensor_split(count) if count else ():
            yield to_input(chunk, self.data)
