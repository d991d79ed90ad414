"""The settings of a run: one validated tree, the same in a YAML file, on the command line and in Python."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from raynas.config.errors import settings_group
from raynas.config.train import PoolConfig, Preset, ShrinkConfig, TrainConfig
from raynas.config.types import Count, Domains, Duration, Name, Place, Positive, Share
from raynas.exceptions import ConfigError

__all__ = [
    "Config",
    "ConfigError",
    "DataConfig",
    "ExportConfig",
    "FilterConfig",
    "LatencyConfig",
    "PoolConfig",
    "RetrainConfig",
    "SearchConfig",
    "ShrinkConfig",
    "TrainConfig",
    "TruthConfig",
    "smoke_test",
]

Step = Literal["retrain", "export", "report"]
Format = Literal["safetensors", "torch_export", "onnx"]


@settings_group
class DataConfig:
    """Which images or which text. The test data are used once, by ``retrain``, never by a search."""

    name: str = "digits"
    """digits, fashion_mnist, cifar10, cifar100, images, parquet, or a function: my_pkg.data:load. Texts: pydoc_topics,
    text, penn_treebank, wikitext2."""
    folder: str | None = None
    """The folder of the files; not needed for digits and pydoc_topics. For text it may be a file."""
    validation: Share = 0.2
    """Share of the training images that is held out to score architectures. For a text without a validation part: the
    share of its last words."""
    limit: Annotated[int, Field(ge=2)] | None = None
    """Upper bound on the number of training images (before the split), or of words."""
    size: Count | None = None
    """Edge length in pixels to which images of different sizes are resized (``images`` and ``parquet``)."""
    label: str | None = None
    """parquet: the column of the labels. Default: the one called label or labels, else the only one of integers."""
    image: str | None = None
    """parquet: the column of the images. Default: the one called image, img or images, else the only one of images."""
    loader: Literal["auto", "resident", "streaming", "ray"] = "auto"
    """``images`` and ``parquet``. resident: all images are decoded into memory. streaming: training images are decoded
    when a step needs them; validation images are at most 1 GB in memory. ray: the same by Ray tasks, on all nodes that
    have a CPU free. auto: streaming if the decoded images take more than an eighth of the memory of the machine."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """streaming: processes that decode images for one worker of the training; ray: tasks. Default: one; with a GPU, one
    less than the CPUs of the worker."""
    prefetch: Count = 2
    """streaming: batches that each of these processes makes ahead."""
    channels: Literal[1, 3] | None = None
    """``images`` and ``parquet``: 3 for colour; 1 for grey, images in colour are converted. Default: 3 if an image is
    in colour (streaming: an image of a sample)."""
    skip_unreadable: bool = False
    """``images`` and ``parquet``: leave out images that cannot be decoded, and name them. All are decoded once to find
    them. Otherwise such an image is an error."""
    search_size: Count | None = None
    """Edge length in pixels of the images on which the search trains and scores; half the edge needs a quarter of the
    operations (EcoNAS, CVPR 2020). Costs, latency, zero-cost scores, retraining and export use the full images.
    Default: full images."""


@settings_group
class FilterConfig:
    """A zero-cost score that restricts a search to the better part of its space, like a limit."""

    score: str | list[str] | None = None
    """As for trainables.zero_cost; several scores are combined by rank. Default: no filter."""
    keep: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the space that is kept."""
    sample: Annotated[int, Field(ge=10)] = 100
    """Number of random architectures from which the threshold is estimated."""
    images: Annotated[int, Field(ge=4)] = 64
    """Training images for the score."""


@settings_group
class LatencyConfig:
    """Inference latency in milliseconds, a cost like MACs: ``limits.latency_ms``, ``search.objectives``.

    A number of architectures is measured first. The latency of others is predicted by a model fitted to these
    measurements. Every architecture that a searcher proposes is measured before it is scored, and it is not scored if
    it breaks a limit. The measured network is that of the search, in evaluation mode.
    """

    place: Place | None = None
    """Where latency is measured: local (this machine), edge:1 (a node with this amount of a custom resource),
    device=phone (a node with this label). Start such a node with ``ray start --num-cpus=0``: then nothing else runs
    there, and it does not need the storage path. Default: latency is not measured."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the GPU of the place, if it has one."""
    batch: Count = 1
    """Images in one inference; for texts, the number of texts of which one word each is read."""
    threads: Count = 1
    """CPU threads for one network."""
    warmup: Annotated[int, Field(ge=0)] = 5
    """Runs before the measurement."""
    repeats: Annotated[int, Field(ge=3)] = 20
    """Runs in a round; the median of a round is used."""
    rounds: Count = 3
    """Number of rounds; the fastest round is used, because other work on a device can only slow it down."""
    samples: Annotated[int, Field(ge=16)] | None = None
    """Number of random architectures that are measured first, in addition to a few in which every option occurs once.
    Default: 64, or the number of options if that is larger."""


@settings_group
class SearchConfig:
    """Which architectures are scored, how, and which of them are stopped early."""

    trainable: str = "trainables.shared_weights:SharedWeights"
    """How an architecture is scored. trainables.from_scratch:FromScratch trains each one by itself,
    trainables.table:Table looks it up, trainables.zero_cost:ZeroCost needs no training, trainables.angle:Angle
    computes the angle of the supernet's weights."""
    trainable_args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the trainable, e.g. for Table {file: scores.parquet, metric: accuracy}: see
    raynas.evaluation.tabular.Layout."""
    combine: dict[str, float] = Field(default_factory=dict)
    """Makes one score of several metrics that the trainable reports, by their ranks: {accuracy: 1, loss: -1}. The
    numbers are weights; a negative weight means that lower is better. See raynas.evaluation.rank_aggregation."""
    reference: Annotated[int, Field(ge=10)] = 100
    """combine: number of random architectures that are scored first; a rank is the position among them."""
    filter: FilterConfig = Field(default_factory=FilterConfig)
    """Zero-cost filter of the space."""
    method: str = "auto"
    """random, evolution, tpe, bayes, regularized, local, nsga2, reinforce, predictor, nao, or a class:
    my_pkg.search:MySearcher. auto: bayes if each architecture is trained by itself (FromScratch) or if there are
    objectives, else evolution."""
    method_args: dict[str, Any] = Field(default_factory=dict)
    """Settings of the searcher, e.g. for evolution {population: 50, parents: 10, mutations: 25, crossovers: 25,
    mutation_probability: 0.1}."""
    objectives: list[str] = Field(default_factory=list)
    """Costs that are minimised beside the score: macs, parameters, latency_ms, or numeric columns of a table. The
    result is a Pareto front, pareto.json; the best score on it is the winner. Supported by random, nsga2 and bayes;
    method auto takes bayes. No trial is stopped early, because ASHA compares scores alone and would stop cheap
    architectures."""
    joint: Domains = Field(default_factory=dict)
    """Settings of ``train`` that are searched together with the architecture, with Tune's domains: {train.lr:
    {loguniform: [1e-3, 1]}, train.cutout: {choice: [0, 4, 8]}}; in Python {"train.lr": tune.loguniform(1e-3, 1)}.
    For FromScratch, and for your own tune.Trainable, whose config then contains them: config["train.lr"]."""
    warm_start: str | None = None
    """Folder of another run over the same decisions, on other data or with other limits. Its best three architectures
    that keep the limits are scored first, and bayes and predictor learn from all its scores. The scores are read
    once and kept in the run's own folder."""
    num_samples: Count = 200
    """Number of different architectures that are scored in all, including those of earlier searches of this run."""
    slices: Count = 8
    """Fidelity: the validation images are divided into this many slices; a trial reports after each of them."""
    validation_images: Count | None = None
    """Upper bound on the validation images, or words, used in the search; default: all."""
    bn_images: Annotated[int, Field(ge=0)] = 2048
    """Training images from which BatchNorm statistics are recomputed for every architecture. 0 switches this off, which
    makes the ranking unusable; for experiments only."""
    batch_size: Count = 250
    """Images in a batch when architectures are scored."""
    scheduler: Literal["asha", "none"] = "asha"
    """Whether weak architectures are stopped early."""
    reduction_factor: Annotated[float, Field(gt=1)] = 2.0
    """ASHA: one in this many continues at each rung."""
    grace: Count = 1
    """Slices that every architecture gets before ASHA may stop it."""
    mode: Literal["max", "min"] | None = None
    """Whether high scores (max, the default) or low ones (min) are good, for a plain tune.Trainable of your own. An
    evaluator knows it and refuses the setting."""
    cohort: Count = 1
    """Number of architectures that share a Tune trial. More than 1 is faster if a score takes less than about 0.1 s."""
    replicas: Count | None = None
    """Number of actors that score; default: one per GPU, or one per CPU."""
    max_concurrent: Count | None = None
    """Trials in flight; default: two per replica, so that no replica waits."""
    epochs: Count = 5
    """FromScratch: epochs of training per architecture; each epoch is one fidelity step."""
    loggers: list[str] = Field(default_factory=list)
    """tensorboard, mlflow, wandb, optuna, or a subclass of ray.tune.logger.LoggerCallback: my_pkg.mod:MyLogger. One
    record for the whole search, in which every architecture is a step: see raynas.tune.loggers."""
    top: Count = 5
    """Number of best architectures that are scored again on all validation images."""

    @property
    def stops_early(self) -> bool:
        """Whether the weak ones are stopped early."""
        return self.scheduler == "asha" and not self.objectives


@settings_group
class RetrainConfig:
    """Training the best architecture from scratch: as ``train``, except for what is set here."""

    preset: Preset | None = None
    """Another recipe than that of ``train``; settings of ``train`` that belong to no preset are kept."""
    epochs: Positive | None = None
    """Default: those of ``train``; if that counts minutes, as many as the supernet was trained for."""
    batch_size: Count | None = None
    """Default: that of ``train``."""
    lr: Positive | None = None
    """Default: that of ``train``."""
    workers: Count | None = None
    """Default: those of ``train``."""
    space_args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the space that differ from ``space_args`` in retraining: for spaces.darts:darts {cells: 20,
    channels: 36, evaluation: true, auxiliary: true}. The decisions must stay the same."""


@settings_group
class TruthConfig:
    """True scores that the command ``rank`` compares a run with: a table, an audit, or what was retrained already."""

    table: dict[str, Any] = Field(default_factory=dict)
    """A table of true scores: {file: scores.parquet, metric: accuracy}; see raynas.evaluation.tabular.Layout."""
    epochs: Count | None = None
    """Audit: random architectures are trained from scratch for this many epochs each, on the full images."""
    architectures: Annotated[int, Field(ge=10)] = 30
    """Audit: number of architectures."""
    minutes: Positive | None = None
    """Audit: upper bound on the minutes in all; with a larger bound the audit continues."""
    sample: Annotated[int, Field(ge=0)] | None = None
    """table: number of random architectures that are scored as the run scores them. 0: only those that the search has
    scored, which are a biased sample unless the method was random. Default: 200; 0 if each architecture is trained
    by itself, or if the search was random without early stopping."""
    resamples: Annotated[int, Field(ge=100)] = 1000
    """Bootstrap samples for the intervals."""


@settings_group
class ExportConfig:
    """How the winner is written; see also ``formats``."""

    normalise: bool = True
    """Images: the graphs of torch.export and ONNX take raw pixels, uint8, and normalise them. false: they take
    normalised images, float32. ``model.py`` has a function ``preprocess`` in any case."""


@settings_group
class Config:
    """All settings of a run."""

    space: str = "spaces.shufflenet:spos_small"
    """A function that returns the space: package.module:function. Or decisions alone, a mapping from names to options,
    for a trainable that needs no network and no data."""
    space_args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the space. num_classes and in_channels are filled from the data if the function takes them.
    Decisions alone may be given functions: canonical, alike, graph, and a notation (see
    raynas.search_space.space.SearchSpace), e.g. graph=spaces.nasbench201:graph."""
    exclude: list[str] = Field(default_factory=list)
    """Options that are left out of the space, ``decision=option`` each: ``exclude=[block3=sqrt]``."""
    data: DataConfig = Field(default_factory=DataConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    search: SearchConfig = Field(default_factory=SearchConfig)
    retrain: RetrainConfig = Field(default_factory=RetrainConfig)
    truth: TruthConfig = Field(default_factory=TruthConfig)
    limits: dict[str, Any] = Field(default_factory=dict)
    """Hard limits, e.g. {macs: 3.3e8, parameters: [1e6, 5e6]}: an upper bound, or a lower and an upper bound.
    latency_ms needs ``latency.place``."""
    latency: LatencyConfig = Field(default_factory=LatencyConfig)
    after: list[Step] = Field(default_factory=lambda: list(get_args(Step)))
    """What follows a search: train the winner from scratch, write it as plain PyTorch, write a page about the run."""
    formats: list[Format] = Field(default_factory=lambda: list(get_args(Format))[:2])
    """What export writes: safetensors with a stand-alone .py, torch.export, ONNX (needs the extra raynas[onnx])."""
    export: ExportConfig = Field(default_factory=ExportConfig)
    name: Name | None = None
    """The run's folder below ``storage_path``; default: made of space, data and time."""
    storage_path: str = "~/ray_results"
    """A folder that all nodes mount, or s3://bucket/path (credentials from the environment): see
    raynas.storage.object_store."""
    address: str | None = None
    """Address of a Ray cluster; default: $RAY_ADDRESS, else Ray is started on this machine."""
    seed: int = 0
    """Seed of everything that is random. With several trials in flight, results also depend on the order in which
    scores arrive."""
    time_budget: Duration | None = None
    """Seconds, or 90m, 2h. Training the supernet and searching end within it, and the best result so far is kept.
    Training takes at most half of it: its schedule is shortened to that. The time of earlier commands of the run,
    from the first to the last report of each phase, counts. Retraining follows only if it fits into the rest. If a
    table has seconds for its scores, these count instead of the clock."""
    budget_gpu_hours: Positive | None = None
    """The same in hours of all GPUs that the actors hold, whether they compute or wait."""


def smoke_test(config: Config) -> Config:
    """The same run made as small as it can be, to see in seconds that everything fits together."""
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, limit=min(config.data.limit or 600, 600)),
        train=dataclasses.replace(
            config.train,
            epochs=1,
            minutes=None,
            batch_size=64,
            shrink=dataclasses.replace(config.train.shrink, every=config.train.shrink.every and 0.4, first=None),
            pool=dataclasses.replace(
                config.train.pool, size=config.train.pool.size and min(config.train.pool.size, 64), every=0.4
            ),
        ),
        search=dataclasses.replace(
            config.search,
            num_samples=min(config.search.num_samples, 6),
            max_concurrent=min(config.search.max_concurrent or 2, 2),
            reference=10,
            filter=dataclasses.replace(config.search.filter, sample=10),
            slices=2,
            grace=1,
            bn_images=64,
            epochs=1,
            top=2,
        ),
        retrain=dataclasses.replace(config.retrain, epochs=1, batch_size=64),
    )
