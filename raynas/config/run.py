"""The settings of a run: one validated tree, the same in a YAML file, on the command line and in Python."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal, get_args

from pydantic import Field
from pydantic.dataclasses import dataclass

from raynas.config.train import PoolConfig, Preset, ShrinkConfig, TrainConfig
from raynas.config.types import STRICT, Count, Domains, Duration, Name, Place, Positive, Share
from raynas.exceptions import ConfigError

__all__ = [
    "Config",
    "ConfigError",
    "DataConfig",
    "FeaturesConfig",
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


@dataclass(config=STRICT)
class DataConfig:
    """Which images, or which text. The test part is touched once, by ``retrain``, never by a search."""

    name: str = "digits"
    """digits, fashion_mnist, cifar10, cifar100, images, parquet, or a function: my_pkg.data:load. Texts: pydoc_topics,
    text, penn_treebank, wikitext2."""
    folder: str | None = None
    """Where the files lie; not needed for digits and pydoc_topics. For text it may be a file."""
    validation: Share = 0.2
    """Share of the training images that are held out to score architectures; of a text without a validation part of its
    own, its last words."""
    limit: Annotated[int, Field(ge=2)] | None = None
    """Use at most so many training images (before the split), or words."""
    size: Count | None = None
    """Edge length in pixels to which images of different sizes are brought (``images`` and ``parquet``)."""
    search_size: Count | None = None
    """Edge length to which a search brings the images by which it trains weights and scores with them: half of it takes
    a quarter of the operations (EcoNAS, CVPR 2020). Costs, latency, scores without training, retraining and export are
    of the images as they are. Default: as they are."""


@dataclass(config=STRICT)
class FilterConfig:
    """A zero-cost score that keeps a search to the better part of its space, as a limit does."""

    score: str | list[str] | None = None
    """As for trainables.zero_cost; of several the ranks are combined. Default: no filter."""
    keep: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The share of the space that is kept."""
    sample: Annotated[int, Field(ge=10)] = 100
    """So many random architectures tell which part that is."""
    images: Annotated[int, Field(ge=4)] = 64
    """Training images that the score sees."""


@dataclass(config=STRICT)
class FeaturesConfig:
    """Zero-cost scores from which the searcher learns to foretell the true ones."""

    score: str | list[str] | None = None
    """As for trainables.zero_cost, macs and parameters among them. Default: none."""
    sample: Annotated[int, Field(ge=10)] = 50
    """So many random architectures tell what is a high score and what a low one."""
    images: Annotated[int, Field(ge=4)] = 64
    """Training images that the scores see."""


@dataclass(config=STRICT)
class LatencyConfig:
    """Milliseconds that a network takes to answer, as a cost beside MACs: ``limits.latency_ms``, ``search.objectives``.

    Some architectures are measured first; a model of them predicts the others while a searcher looks around. Whatever
    it proposes is measured before it is scored, and not scored if that breaks a limit. The network is that of the
    search, in evaluation mode.
    """

    place: Place | None = None
    """Where it is measured: local (this machine), edge:1 (a node with so much of a custom resource), device=phone (a
    node with that label). Start that node by ``ray start --num-cpus=0``: then nothing else runs there, and it need not
    share the storage. Default: nowhere."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: its GPU, if it has one."""
    batch: Count = 1
    """Images that are answered at once; or texts, of each of which one word is read."""
    threads: Count = 1
    """Of the processor, for one network."""
    warmup: Annotated[int, Field(ge=0)] = 5
    """Runs that do not count."""
    repeats: Annotated[int, Field(ge=3)] = 20
    """Runs of a round; their median counts."""
    rounds: Count = 3
    """Of so many rounds the fastest counts: what else runs on a device can only slow it down."""
    samples: Annotated[int, Field(ge=16)] | None = None
    """So many random architectures are measured first, besides a few that have every option once. Default: 64, or as
    many as there are options, if these are more."""


@dataclass(config=STRICT)
class SearchConfig:
    """Which architectures are scored, how, and which of them are stopped early."""

    trainable: str = "trainables.shared_weights:SharedWeights"
    """How an architecture is scored; trainables.from_scratch:FromScratch trains each one by itself,
    trainables.table:Table looks it up, trainables.zero_cost:ZeroCost needs no training, trainables.angle:Angle looks
    at how far the supernet's weights have turned."""
    trainable_args: dict[str, Any] = Field(default_factory=dict)
    """Settings of the trainable, e.g. for Table {file: scores.parquet, metric: accuracy}:
    raynas.evaluation.tabular.Layout."""
    combine: dict[str, float] = Field(default_factory=dict)
    """Make one score of several metrics that the trainable reports, by their ranks: {accuracy: 1, loss: -1}, with
    weights; a negative one where low is good. See raynas.evaluation.rank_aggregation."""
    reference: Annotated[int, Field(ge=10)] = 100
    """combine: so many random architectures are scored first, and a rank is the place among them."""
    filter: FilterConfig = Field(default_factory=FilterConfig)
    features: FeaturesConfig = Field(default_factory=FeaturesConfig)
    """For bayes: {score: [naswot, synflow]}. Takes about a second for each of 50 candidates an architecture, so it pays
    where a score takes minutes."""
    method: str = "auto"
    """random, evolution, tpe, bayes, regularized, local, nsga2, reinforce, predictor, nao, or a class:
    my_pkg.search:MySearcher.
    auto: bayes where an architecture takes a training of its own (FromScratch), evolution otherwise."""
    method_args: dict[str, Any] = Field(default_factory=dict)
    """Settings of the searcher, e.g. for evolution {population: 50, parents: 10, mutations: 25, crossovers: 25,
    mutation_probability: 0.1}."""
    objectives: list[str] = Field(default_factory=list)
    """Costs that are minimised beside the score: macs, parameters, latency_ms, or numeric columns of a table. The
    result is then a front, pareto.json; the best score on it is the winner. random, nsga2 and bayes can do it, method:
    auto takes bayes. Nobody is stopped early: ASHA looks at scores alone and would stop what is cheap."""
    joint: Domains = Field(default_factory=dict)
    """Settings of ``train`` that are searched together with the architecture, with Tune's domains: {train.lr:
    {loguniform: [1e-3, 1]}, train.cutout: {choice: [0, 4, 8]}}, in Python {"train.lr": tune.loguniform(1e-3, 1)}. For
    FromScratch, and for a tune.Trainable of your own, whose config then holds them: config["train.lr"]."""
    warm_start: str | None = None
    """Folder of another run over the same decisions, on other data or under other limits: its best three that keep the
    limits are scored first, and bayes and predictor learn from all its scores. They are read once and then kept in the
    run's own folder."""
    num_samples: Count = 200
    """How many different architectures are scored in all, those of earlier searches of this run included."""
    slices: Count = 8
    """Fidelity: the validation images come in so many slices, one after each of which a trial reports."""
    validation_images: Count | None = None
    """Use at most so many of the validation images, or words, in the search; default: all."""
    bn_images: Annotated[int, Field(ge=0)] = 2048
    """Training images from which BatchNorm statistics are computed anew for every architecture. 0 switches it off,
    which makes the ranking worthless: for experiments only."""
    batch_size: Count = 250
    scheduler: Literal["asha", "none"] = "asha"
    reduction_factor: Annotated[float, Field(gt=1)] = 2.0
    grace: Count = 1
    """Slices that everyone gets before ASHA may stop it."""
    mode: Literal["max", "min"] | None = None
    """Whether high scores (max, the default) or low ones (min) are good, for a plain tune.Trainable of your own. An
    evaluator knows it and refuses the setting."""
    cohort: Count = 1
    """How many architectures share a Tune trial. More than 1 pays where a score takes less than about 0.1 s."""
    replicas: Count | None = None
    """Actors that score; default: one per GPU, or one per CPU."""
    max_concurrent: Count | None = None
    """Trials in flight; default: two per replica, so that none waits."""
    epochs: Count = 5
    """from_scratch: epochs of training per architecture, one a fidelity step."""
    loggers: list[str] = Field(default_factory=list)
    """tensorboard, mlflow, wandb, or a class of ray.tune.logger.LoggerCallback: my_pkg.mod:MyLogger. One record for the
    whole search, in which every architecture is a step: see raynas.tune.loggers."""
    top: Count = 5
    """How many of the best are scored again on all validation images."""

    @property
    def stops_early(self) -> bool:
        """Whether the weak ones are stopped early."""
        return self.scheduler == "asha" and not self.objectives


@dataclass(config=STRICT)
class RetrainConfig:
    """Training the found architecture from scratch: as ``train``, with what is said otherwise here."""

    preset: Preset | None = None
    """Another recipe than that of ``train``, of whose settings those that no preset has are kept."""
    epochs: Positive | None = None
    """Default: those of ``train``; where that counts minutes, as many as the supernet made."""
    batch_size: Count | None = None
    lr: Positive | None = None
    workers: Count | None = None
    space_args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the space that differ from ``space_args`` when the network is trained by itself: for
    spaces.darts:darts {cells: 20, channels: 36, evaluation: true, auxiliary: true}. What is open stays the same."""


@dataclass(config=STRICT)
class TruthConfig:
    """What the command ``rank`` holds the scores of a run against: a table, an audit, or what was retrained already."""

    table: dict[str, Any] = Field(default_factory=dict)
    """A table of true scores: {file: scores.parquet, metric: accuracy}; see raynas.evaluation.tabular.Layout."""
    epochs: Count | None = None
    """Audit: random architectures are trained from scratch for so many epochs each, on the images as they are..."""
    architectures: Annotated[int, Field(ge=10)] = 30
    """...so many of them..."""
    minutes: Positive | None = None
    """...for at most so many minutes in all; with more of them the audit goes on."""
    sample: Annotated[int, Field(ge=0)] | None = None
    """table: so many random architectures are scored as the run scores them. 0: only those that the search has scored,
    which are no fair sample of the space unless its method was random. Default: 200; 0 where each takes a training of
    its own, or the search was random and stopped none."""
    resamples: Annotated[int, Field(ge=100)] = 1000
    """Of the bootstrap that the intervals come from."""


@dataclass(config=STRICT)
class Config:
    """A whole run."""

    space: str = "spaces.shufflenet:spos_small"
    """A function that returns the space: package.module:function. Or decisions alone, a mapping from names to options,
    for a trainable that needs no network and no data."""
    space_args: dict[str, Any] = Field(default_factory=dict)
    """Its arguments. num_classes and in_channels are filled from the data if it takes them. Decisions alone may be
    given functions: canonical, alike, graph, and a notation (see raynas.searchers.SearchSpace), e.g.
    graph=spaces.nasbench201:graph."""
    data: DataConfig = Field(default_factory=DataConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    search: SearchConfig = Field(default_factory=SearchConfig)
    retrain: RetrainConfig = Field(default_factory=RetrainConfig)
    truth: TruthConfig = Field(default_factory=TruthConfig)
    limits: dict[str, Any] = Field(default_factory=dict)
    """Hard limits, e.g. {macs: 3.3e8, parameters: [1e6, 5e6]}: an upper bound, or a lower and an upper one. latency_ms,
    too, where ``latency.place`` says where to measure."""
    latency: LatencyConfig = Field(default_factory=LatencyConfig)
    after: list[Step] = Field(default_factory=lambda: list(get_args(Step)))
    """What follows a search: train the winner from scratch, write it as plain PyTorch, write a page about the run."""
    formats: list[Format] = Field(default_factory=lambda: list(get_args(Format))[:2])
    """What export writes: safetensors with a stand-alone .py, torch.export, ONNX (needs the extra raynas[onnx])."""
    name: Name | None = None
    """The run's folder below ``storage_path``; default: made of space, data and time."""
    storage_path: str = "~/ray_results"
    """A folder that all nodes mount, or s3://bucket/path (credentials from the environment): see
    raynas.storage.object_store."""
    address: str | None = None
    """Address of a Ray cluster; default: $RAY_ADDRESS, else Ray is started here."""
    seed: int = 0
    time_budget: Duration | None = None
    """Seconds, or 90m, 2h: training the supernet and searching end within it, the best so far is kept. Training takes
    half of it at most: its schedule is shortened to that. What earlier commands of the run took by their records, from
    the first to the last report of each phase, counts. Retraining follows only if it fits into what is left. Where a
    table tells the seconds of its scores these count instead."""
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
            reference=10,
            filter=dataclasses.replace(config.search.filter, sample=10),
            features=dataclasses.replace(config.search.features, sample=10),
            slices=2,
            grace=1,
            bn_images=64,
            epochs=1,
            top=2,
        ),
        retrain=dataclasses.replace(config.retrain, epochs=1, batch_size=64),
    )
