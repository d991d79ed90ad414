"""The settings of a run: one validated tree, the same in a YAML file, on the command line and in Python."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

__all__ = [
    "Config",
    "ConfigError",
    "DataConfig",
    "RetrainConfig",
    "SearchConfig",
    "TrainConfig",
    "smoke_test",
]

_STRICT = ConfigDict(extra="forbid", validate_assignment=True)
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Step = Literal["retrain", "export", "report"]
Format = Literal["safetensors", "torch_export", "onnx"]
NotNegative = Annotated[float, Field(ge=0)]


class ConfigError(ValueError):
    """A setting that does not exist or has an illegal value; one line per mistake."""


@dataclass(config=_STRICT)
class DataConfig:
    """Which images. The test images are touched once, by ``retrain``, never by a search."""

    name: str = "digits"
    """digits, fashion_mnist, cifar10, cifar100, images, parquet, or a function: my_pkg.data:load."""
    folder: str | None = None
    """Where the files lie; not needed for digits."""
    validation: Share = 0.2
    """Share of the training images that are held out to score architectures."""
    limit: Annotated[int, Field(ge=2)] | None = None
    """Use at most so many training images (before the split)."""
    size: Count | None = None
    """Edge length in pixels to which images of different sizes are brought (``images`` and ``parquet``)."""


@dataclass(config=_STRICT)
class TrainConfig:
    """How weights are trained. The defaults suit small data; ``preset: spos`` is the paper's ImageNet recipe."""

    preset: Literal["small", "spos"] = "small"
    """small, or spos: the recipe of Guo et al. (ECCV 2020) for everything that is not set here."""
    epochs: Positive | None = None
    """Passes over the training images; may be a fraction. small: 60, spos: 120."""
    minutes: Positive | None = None
    """Time instead of epochs: as many steps as fit, decided from the first ones on this machine."""
    batch_size: Count | None = None
    """Images a step over all workers together, rounded down to a multiple of them. small: 64, spos: 1024."""
    lr: Positive | None = None
    """Learning rate at the start. small: 0.1, spos: 0.5."""
    schedule: Literal["linear", "cosine", "constant"] | None = None
    """How it falls to zero. small: cosine, spos: linear."""
    warmup: Share = 0.0
    """Share of the steps in which the learning rate rises linearly to ``lr``."""
    momentum: Share = 0.9
    nesterov: bool = False
    weight_decay: NotNegative | None = None
    """On tensors of more than one dimension only. small: 5e-4, spos: 4e-5."""
    label_smoothing: Share = 0.1
    clip: Positive | None = None
    """Largest norm of the gradient; no clipping if absent."""
    augment: Literal["auto", "none", "crop", "crop_flip", "imagenet"] = "auto"
    """auto: crop for digits and Fashion-MNIST, imagenet for preset spos, crop_flip otherwise."""
    cutout: Annotated[int, Field(ge=0)] = 0
    """Side in pixels of a square that is painted over in every training image (DeVries & Taylor, 2017)."""
    paths: Literal["auto", "uniform", "constrained", "fair"] = "auto"
    """Which paths a step trains: uniform; constrained (uniform over MAC bins, the default of SPOS where MACs are
    limited); fair (every option once a step, FairNAS). auto: constrained if MACs are limited and additive."""
    affine: bool = False
    """Whether the scale and shift of BatchNorm layers are trained in the supernet; SPOS leaves them out."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 autocast on GPUs that have it, float32 otherwise."""
    workers: Count | None = None
    """Data-parallel actors; default: one per GPU, up to four on a machine without."""
    gpus_per_worker: NotNegative | None = None
    """Default: 1 where the cluster has GPUs, else 0."""
    cpus_per_worker: Positive | None = None
    """Default: the CPUs of the cluster shared evenly (at most 8 each with GPUs)."""
    wait_minutes: NotNegative = 0.0
    """On a cluster that starts nodes on demand: how long workers, or replicas, that do not fit yet wait for theirs."""
    checkpoint_seconds: Positive = 60.0
    """A checkpoint at least this often (and at the end)."""
    keep_checkpoints: Annotated[int, Field(ge=2)] = 2
    max_failures: Annotated[int, Field(ge=0)] = 3
    """How many times a lost worker is replaced before the run gives up."""

    def resolved(self) -> TrainConfig:
        """The same settings with everything that was left open filled from the preset."""
        preset: dict[str, Any] = {
            "small": {"epochs": 60, "batch_size": 64, "lr": 0.1, "schedule": "cosine", "weight_decay": 5e-4},
            "spos": {"epochs": 120, "batch_size": 1024, "lr": 0.5, "schedule": "linear", "weight_decay": 4e-5},
        }[self.preset]
        return dataclasses.replace(self, **{k: v for k, v in preset.items() if getattr(self, k) is None})


@dataclass(config=_STRICT)
class SearchConfig:
    """Which architectures are scored, how, and which of them are stopped early."""

    trainable: str = "trainables.shared_weights:SharedWeights"
    """How an architecture is scored; trainables.from_scratch:FromScratch trains each one by itself,
    trainables.table:Table looks it up."""
    trainable_args: dict[str, Any] = Field(default_factory=dict)
    """Settings of the trainable, e.g. for Table {file: scores.parquet, metric: accuracy}: raynas.tables.Layout."""
    method: str = "auto"
    """random, evolution, tpe, bayes, regularized, local, reinforce, predictor, or a class: my_pkg.search:MySearcher.
    auto: bayes where an architecture takes a training of its own (FromScratch), evolution otherwise."""
    method_args: dict[str, Any] = Field(default_factory=dict)
    """Settings of the searcher, e.g. for evolution {population: 50, parents: 10, mutations: 25, crossovers: 25,
    mutation_probability: 0.1}."""
    num_samples: Count = 200
    """How many different architectures are scored in all, those of earlier searches of this run included."""
    slices: Count = 8
    """Fidelity: the validation images come in so many slices, one after each of which a trial reports."""
    validation_images: Count | None = None
    """Use at most so many of the validation images in the search; default: all."""
    bn_images: Annotated[int, Field(ge=0)] = 2048
    """Training images from which BatchNorm statistics are computed anew for every architecture. 0 switches it off,
    which makes the ranking worthless: for experiments only."""
    batch_size: Count = 250
    scheduler: Literal["asha", "none"] = "asha"
    reduction_factor: Annotated[float, Field(gt=1)] = 2.0
    grace: Count = 1
    """Slices that everyone gets before ASHA may stop it."""
    cohort: Count = 1
    """How many architectures share a Tune trial. More than 1 pays where a score takes less than about 0.1 s."""
    replicas: Count | None = None
    """Actors that score; default: one per GPU, or one per CPU."""
    max_concurrent: Count | None = None
    """Trials in flight; default: two per replica, so that none waits."""
    epochs: Count = 5
    """from_scratch: epochs of training per architecture, one a fidelity step."""
    top: Count = 5
    """How many of the best are scored again on all validation images."""
    time_budget_seconds: Positive | None = None
    """A search ends after so many seconds, those of an earlier search of the same run not counted."""


@dataclass(config=_STRICT)
class RetrainConfig:
    """Training the found architecture from scratch: as ``train``, with its own length."""

    epochs: Positive | None = None
    """Default: those of ``train``; where that counts minutes, as many as the supernet made."""
    batch_size: Count | None = None
    lr: Positive | None = None
    workers: Count | None = None


@dataclass(config=_STRICT)
class Config:
    """A whole run."""

    space: str = "spaces.shufflenet:spos_small"
    """A function that returns the space: package.module:function. Or decisions alone, a mapping from names to options,
    for a trainable that needs no network and no data."""
    space_args: dict[str, Any] = Field(default_factory=dict)
    """Its arguments. num_classes and in_channels are filled from the data if it takes them. Decisions alone may be
    given functions: canonical, alike, graph (see raynas.searchers.SearchSpace), e.g. graph=spaces.nasbench201:graph."""
    data: DataConfig = Field(default_factory=DataConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    search: SearchConfig = Field(default_factory=SearchConfig)
    retrain: RetrainConfig = Field(default_factory=RetrainConfig)
    limits: dict[str, Any] = Field(default_factory=dict)
    """Hard limits, e.g. {macs: 3.3e8, parameters: [1e6, 5e6]}: an upper bound, or a lower and an upper one."""
    after: list[Step] = Field(default_factory=lambda: list(get_args(Step)))
    """What follows a search: train the winner from scratch, write it as plain PyTorch, write a page about the run."""
    formats: list[Format] = Field(default_factory=lambda: list(get_args(Format))[:2])
    """What export writes: safetensors with a stand-alone .py, torch.export, ONNX (needs the extra raynas[onnx])."""
    name: str | None = None
    """The run's folder below ``storage_path``; default: made of space, data and time."""
    storage_path: str = "~/ray_results"
    address: str | None = None
    """Address of a Ray cluster; default: $RAY_ADDRESS, else Ray is started here."""
    seed: int = 0


def smoke_test(config: Config) -> Config:
    """The same run made as small as it can be, to see in seconds that everything fits together."""
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, limit=min(config.data.limit or 600, 600)),
        train=dataclasses.replace(config.train, epochs=1, minutes=None, batch_size=64),
        search=dataclasses.replace(
            config.search,
            num_samples=min(config.search.num_samples, 6),
            slices=2,
            grace=1,
            bn_images=64,
            epochs=1,
            top=2,
        ),
        retrain=dataclasses.replace(config.retrain, epochs=1, batch_size=64),
    )
