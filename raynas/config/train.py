"""How weights are trained, of a supernet or of one network, and the recipes of papers."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import Field

from raynas.config.errors import settings_group
from raynas.config.types import Count, NotNegative, Positive, Share

__all__ = ["PoolConfig", "Preset", "ShrinkConfig", "TrainConfig"]

Preset = Literal[
    "auto", "small", "spos", "darts", "darts_imagenet", "nao", "words", "nao_words", "penn_treebank", "wikitext2"
]
_PLAIN = {"label_smoothing": 0.1, "clip": None, "cutout": 0, "drop_path": 0.0, "momentum": 0.9, "slowness": 0.0}
_WORDS = {**_PLAIN, "label_smoothing": 0.0, "clip": 0.25, "momentum": 0.0, "slowness": 1e-3, "schedule": "constant"}
_PRESETS: dict[str, dict[str, Any]] = {
    "small": {**_PLAIN, "epochs": 60, "batch_size": 64, "lr": 0.1, "schedule": "cosine", "weight_decay": 5e-4},
    "spos": {**_PLAIN, "epochs": 120, "batch_size": 1024, "lr": 0.5, "schedule": "linear", "weight_decay": 4e-5},
    "darts": {
        **{"epochs": 600, "batch_size": 96, "lr": 0.025, "schedule": "cosine", "weight_decay": 3e-4},
        **{"label_smoothing": 0.0, "clip": 5.0, "cutout": 16, "drop_path": 0.2, "momentum": 0.9, "slowness": 0.0},
    },
    "darts_imagenet": {
        **{**_PLAIN, "epochs": 250, "batch_size": 1024, "lr": 0.5, "schedule": "linear", "weight_decay": 3e-5},
        "clip": 5.0,
    },
    "words": {**_WORDS, "epochs": 40, "batch_size": 32, "lr": 20.0, "schedule": "cosine", "weight_decay": 5e-7},
    "nao_words": {**_WORDS, "epochs": 1000, "batch_size": 256, "lr": 0.25, "weight_decay": 5e-7, "clip": 10.0},
    "penn_treebank": {
        **{**_WORDS, "epochs": 4000, "batch_size": 64, "lr": 20.0, "weight_decay": 8e-7},
        "average_after": 5,
    },
}
_PRESETS["auto"] = _PRESETS["small"]
_PRESETS["nao"] = {**_PRESETS["darts"], "batch_size": 128}
_PRESETS["wikitext2"] = {**_PRESETS["penn_treebank"], "epochs": 2000, "weight_decay": 5e-7}


@settings_group
class ShrinkConfig:
    """Dropping options by their angle while the supernet is trained; the defaults are those of ABS (ECCV 2020)."""

    every: Positive | None = None
    """Epochs between two rounds; may be a fraction. Without it nothing is dropped."""
    first: Positive | None = None
    """Epochs before the first round; default: as many as between two rounds."""
    drop: Count = 7
    """Options that a round drops, those with the smallest mean angle. Every decision keeps one."""
    until: Annotated[float, Field(ge=1)] = 1e6
    """Shrinking ends when at most this many architectures are left."""
    samples: Count = 1000
    """Approximate number of random architectures for the mean angle of an option."""
    anchor: Count = 50
    """After more than this many options were dropped, angles are measured from the weights at that time."""


@settings_group
class PoolConfig:
    """Training the paths of a pool whose worst members ``search.method`` replaces: NAO-WS (NeurIPS 2018) with nao."""

    size: Annotated[int, Field(ge=2)] | None = None
    """Architectures in the pool; without it the whole space is trained. The search begins with them. NAO-WS: 600."""
    every: Positive = 30.0
    """Epochs between two rounds; may be a fraction."""
    rounds: Count | None = None
    """Default: as many as fit into the training."""
    renew: Share = 0.5
    """Largest share of the pool that a round replaces."""


@settings_group
class TrainConfig:
    """How weights are trained. The defaults suit small data; other presets are the recipes of papers."""

    preset: Preset = "auto"
    """The recipe for everything that is not set here. spos: Guo et al. (ECCV 2020) for ImageNet. darts: Liu et al.
    (ICLR 2019), training a network of the DARTS space by itself on CIFAR; darts_imagenet: that of RLNAS (Zhang et
    al., CVPR 2021) on ImageNet. nao: Luo et al. (NeurIPS 2018), training a network of its cells by itself on CIFAR.
    Texts: words; nao_words: the supernet of NAO-WS; penn_treebank, wikitext2: training a recurrent network by
    itself. auto: spos for 100,000 images or more of at least 128 pixels, else small; for texts words."""
    epochs: Positive | None = None
    """Passes over the training images; may be a fraction. small: 60, spos: 120, darts and nao: 600, darts_imagenet:
    250, words: 40, nao_words: 1000, penn_treebank: 4000, wikitext2: 2000."""
    minutes: Positive | None = None
    """Time instead of epochs: as many steps as fit. The schedule follows the clock and ends in time even if the speed
    of the machine changes; two such trainings are not bit for bit the same."""
    batch_size: Count | None = None
    """Images per step over all workers, rounded down to a multiple of the workers. small: 64, darts: 96, spos and
    darts_imagenet: 1024, nao: 128. For a text, rows that are read side by side; words: 32, nao_words: 256, the
    others: 64."""
    lr: Positive | None = None
    """Initial learning rate. small: 0.1, darts and nao: 0.025, spos and darts_imagenet: 0.5, nao_words: 0.25, the
    others: 20."""
    schedule: Literal["linear", "cosine", "step", "constant"] | None = None
    """How the learning rate falls: linear and cosine to zero, step at ``milestones``. small, darts, nao and words:
    cosine, spos and darts_imagenet: linear, the others: constant."""
    milestones: list[Share] = Field(default_factory=lambda: [0.5, 0.75])
    """schedule = step: the shares of the steps after which the learning rate is multiplied by ``gamma``."""
    gamma: Positive = 0.1
    """schedule = step: that factor."""
    accumulate: Count = 1
    """Parts into which a worker cuts its images of a step, one after the other, to need less memory. BatchNorm sees one
    part at a time."""
    warmup: Share = 0.0
    """Share of the steps in which the learning rate rises linearly to ``lr``."""
    optimizer: str = "SGD"
    """A class of torch.optim: SGD, Adam, AdamW, NAdam, RAdam, Adamax, Adagrad, Adadelta, RMSprop. Others than SGD need
    ``lr``. Biases and norms have no weight decay."""
    optimizer_args: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of that class: {betas: [0.9, 0.98]}."""
    momentum: Share | None = None
    """Momentum of SGD. Texts: 0, else: 0.9."""
    nesterov: bool = False
    """Whether SGD uses Nesterov momentum."""
    weight_decay: NotNegative | None = None
    """Applied to tensors of more than one dimension only. small: 5e-4, spos: 4e-5, darts and nao: 3e-4, darts_imagenet:
    3e-5, penn_treebank: 8e-7, the others: 5e-7."""
    label_smoothing: Share | None = None
    """darts, nao and texts: 0, the others: 0.1."""
    clip: Positive | None = None
    """Largest norm of the gradient. darts, darts_imagenet and nao: 5, small and spos: no bound, nao_words: 10, the
    others: 0.25."""
    bptt: Count = 35
    """Words of a text through which gradients are propagated; the state is carried on."""
    slowness: NotNegative | None = None
    """Weight of the squared change of a recurrent network's state from word to word (temporal activation
    regularisation). Texts: 1e-3."""
    average_after: Count | None = None
    """Retraining: once the validation loss this many epochs ago was better than all later ones, the network is the
    average of its weights from then on (NT-ASGD, Merity et al., ICLR 2018). penn_treebank and wikitext2: 5, else:
    never."""
    drop_path: Share | None = None
    """Share of the paths through a network that is dropped at the end of training, rising from 0 at the beginning.
    Applies to modules with a number ``drop_path``, as in ``spaces.darts``. darts and nao: 0.2, the others: 0."""
    auxiliary: NotNegative = 0.4
    """Weight of the loss of auxiliary classifiers. A network with auxiliary classifiers returns a tuple in training:
    its logits, then theirs."""
    augment: Literal["auto", "none", "crop", "crop_flip", "imagenet"] = "auto"
    """crop: cut at a random place of the padded image; crop_flip: and mirrored with chance 1/2; imagenet: a random
    rectangle, mirrored, in changed colours. auto: imagenet for the presets spos and darts_imagenet, else crop; mirrored
    only if the data set says that this keeps the class, as cifar10 and cifar100 do: Dataset.mirror_invariant."""
    augment_strength: Annotated[float, Field(ge=0, le=2)] = 1.0
    """Factor of the augmentation: distance of crops (in whole pixels), areas and colours of imagenet. At 0 only
    mirroring is left."""
    cutout: Annotated[int, Field(ge=0)] | None = None
    """Edge in pixels of a square that is masked in every training image (DeVries & Taylor, 2017). darts and nao: 16,
    the others: 0."""
    paths: Literal["auto", "uniform", "constrained", "fair", "proportional", "plain", "cells"] = "auto"
    """Which paths a step trains: uniform (only one form of those that are the same network); constrained (uniform over
    MAC bins, the default of SPOS if MACs are limited); fair (every option once per step, FairNAS); proportional (in
    proportion to the number of parameters, because large networks need more training: NAO-V2); plain (uniform over
    all forms, RLNAS); cells (every repetition of a cell samples its own path, RLNAS on NAS-Bench-201). auto:
    constrained if MACs are limited and additive, else uniform."""
    labels: Literal["given", "random"] = "given"
    """random: the supernet learns random labels that are drawn once for the whole run (RLNAS); retraining and
    validation use the given ones."""
    shrink: ShrinkConfig = Field(default_factory=ShrinkConfig)
    """Shrinking the space during training (ABS)."""
    pool: PoolConfig = Field(default_factory=PoolConfig)
    """With ``paths`` auto (all members alike) or proportional."""
    affine: bool = False
    """Whether scale and shift of BatchNorm layers are trained in the supernet; SPOS does not train them."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 autocast on GPUs that support it, else float32."""
    workers: Count | None = None
    """Data-parallel actors; default: one per GPU, up to four on a machine without GPUs."""
    gpus_per_worker: NotNegative | None = None
    """Default: 1 if the cluster has GPUs, else 0."""
    cpus_per_worker: Positive | None = None
    """Default: the CPUs of the cluster divided evenly (at most 8 each with GPUs)."""
    wait_minutes: NotNegative = 0.0
    """On a cluster that starts nodes on demand: how long workers or replicas that do not fit yet wait for new nodes."""
    checkpoint_seconds: Positive = 60.0
    """Longest time between two checkpoints; one more is written at the end."""
    keep_checkpoints: Annotated[int, Field(ge=2)] = 2
    """Number of newest checkpoints that are kept."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """How many times lost workers are replaced, without a checkpoint in between, before the run fails."""

    def resolved(self) -> TrainConfig:
        """The same settings with everything that was left open filled from the preset."""
        open_settings = {k: v for k, v in _PRESETS[self.preset].items() if getattr(self, k) is None}
        return dataclasses.replace(self, **open_settings)

    def under(self, preset: Preset) -> TrainConfig:
        """The same settings, except that another preset decides all that presets decide."""
        left_open: dict[str, Any] = dict.fromkeys(_PRESETS[preset])
        return dataclasses.replace(self, preset=preset, **left_open)
