"""Score architectures without any training: by the initial weights and a batch of images, in about a second.

    python -m raynas.launch search.trainable=trainables.zero_cost:ZeroCost search.trainable_args.score=naswot

``score`` is one of ``raynas.proxies.PROXIES``; ``az_nas``, which is made of four (the default); ``macs`` or
``parameters``, to compare with; or a function of yours, ``my_pkg.net:score``, of a network, images and labels. Of a
list all are computed, and their ranks in a random sample of the space are combined: see :mod:`raynas.aggregate`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic import Field as Setting
from pydantic.dataclasses import dataclass as settings
from torch import Tensor, nn

from raynas.az_nas import SCORES, az_nas, blocks
from raynas.choice import derive
from raynas.cohorts import CohortTrial, Member, Rungs
from raynas.config import ConfigError, SearchConfig
from raynas.costs import COSTS, Costs
from raynas.named import resolve
from raynas.placement import place
from raynas.proxies import PROXIES
from raynas.scoring import Scoring
from raynas.training import best_device, seed_of, to_input

if TYPE_CHECKING:
    from raynas.run import Run

__all__ = ["Arguments", "Job", "ZeroCost"]

_LEGAL = (*PROXIES, "az_nas", *COSTS)


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class Arguments:
    """The settings in ``search.trainable_args``."""

    score: str | list[str] = "az_nas"
    """One, or several that are combined."""
    images: int = Setting(default=64, ge=4)
    """Training images that the networks see."""

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Arguments:
        """Read and check them.

        Raises:
            ConfigError: A setting or score is unknown, or of the wrong type.
        """
        try:
            found = TypeAdapter(cls).validate_python(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"][:1]))
            raise ConfigError(
                f"search.trainable_args.{name} = {first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}; "
                "legal settings: score, images"
            ) from None
        for name in found.names:
            if ":" in name:
                resolve(name, "search.trainable_args.score")
            elif name not in _LEGAL:
                raise ConfigError(
                    f"search.trainable_args.score: unknown {name!r}; legal ones: {', '.join(_LEGAL)}, or a function "
                    "my_pkg.module:name"
                )
        if not found.names or len(set(found.names)) < len(found.names):
            raise ConfigError(f"search.trainable_args.score = {found.score!r} must name scores, each once")
        return found

    @property
    def names(self) -> list[str]:
        """The scores that are asked for."""
        return [self.score] if isinstance(self.score, str) else list(self.score)

    @property
    def metrics(self) -> list[str]:
        """What they are made of."""
        return [part for name in self.names for part in (SCORES if name == "az_nas" else (name,))]


@dataclass(frozen=True)
class Job:
    """What all trials of a search have in common."""

    space: nn.Module
    """With its initial weights."""
    costs: Costs
    inputs: Tensor
    """Normalised training images: [N, C, H, W]."""
    targets: Tensor
    names: list[str]

    @classmethod
    def of(cls, run: Run, arguments: Arguments) -> Job:
        """With images that depend on the run's seed alone."""
        images = run.data.train
        generator = torch.Generator().manual_seed(seed_of(run.config.seed, "zero-cost"))
        chosen = torch.randperm(len(images), generator=generator)[: arguments.images]
        inputs = to_input(images.inputs[chosen], run.data)
        return cls(run.space, run.costs, inputs, images.targets[chosen], arguments.names)

    def to(self, device: torch.device) -> Job:
        """The same on a device."""
        return Job(self.space.to(device), self.costs, self.inputs.to(device), self.targets.to(device), self.names)

    def measure(self, architecture: Mapping[str, str]) -> dict[str, float]:
        """The scores of one architecture by name."""
        network = derive(self.space, architecture)
        found: dict[str, float] = {}
        for name in self.names:
            if name == "az_nas":
                macs = float(self.costs(architecture)["macs"])
                found |= az_nas(network, blocks(self.space), self.inputs, macs)
            elif name in COSTS:
                found[name] = float(self.costs(architecture)[name])
            else:
                found[name] = float(_proxy(name)(network, self.inputs, self.targets))
        return found


def _proxy(name: str) -> Callable[[nn.Module, Tensor, Tensor], float]:
    return PROXIES[name] if name in PROXIES else resolve(name, "search.trainable_args.score")


class ZeroCost(CohortTrial):
    """A trial that holds the untrained space and scores the networks in it."""

    @staticmethod
    def check(search: SearchConfig) -> None:
        """Refuse settings that cannot be: called before anything is started."""
        Arguments.parse(search.trainable_args)
        if search.grace > 1:
            raise ConfigError(f"search.grace = {search.grace}, but there is one fidelity; legal: 1")

    @classmethod
    def scoring(cls, run: Run) -> Scoring:
        """One trial per worker, one worker per GPU, or per CPU where there is none."""
        search, train = run.config.search, run.config.train
        arguments = Arguments.parse(search.trainable_args)
        where = place(search.max_concurrent or search.replicas, train.cpus_per_worker, train.gpus_per_worker)
        several = arguments.metrics if len(arguments.metrics) > 1 else []
        return Scoring(
            cls,
            {"job": Job.of(run, arguments), "rungs": Rungs()},
            {"cpu": where.cpus, "gpu": where.gpus},
            workers=where.count,
            concurrent=where.count,
            bounded=search.max_concurrent is None and search.replicas is None,
            combine=dict.fromkeys(several, 1.0),
        )

    def setup(  # type: ignore[override]
        self, config: dict[str, Any], job: Job, rungs: Rungs, known: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        """Called once a process; afterwards ``reset_config`` brings the next trial.

        Args:
            config: Of the first trial.
            job: What to score and how.
            rungs: One fidelity, and what a score is.
            known: See :meth:`raynas.cohorts.CohortTrial.enter`.
        """
        torch.set_num_threads(max(int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)), 1))
        self.job = job.to(best_device())
        self.worker = f"{ray.util.get_node_ip_address()}:{os.getpid()}"
        self.enter(config, rungs, known)

    def advance(self, members: Sequence[Member], fidelity: int) -> None:
        """Score them one by one."""
        for member in members:
            begin = time.perf_counter()
            member.worker = self.worker
            try:
                member.metrics = self.job.measure(member.architecture)
                member.score = next(iter(member.metrics.values()))
            except Exception as error:  # whatever goes wrong in one network must not end the others of its cohort
                if len(members) == 1:
                    raise
                member.status, member.error = "error", f"{type(error).__name__}: {error}"
            member.seconds = time.perf_counter() - begin
