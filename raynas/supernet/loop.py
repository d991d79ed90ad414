"""The training loop of a supernet: chunks on all ranks, checkpoints by the driver, and rounds in between."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raynas.architecture import Architecture
from raynas.config.train import TrainConfig
from raynas.distributed import health as watch
from raynas.distributed.nodes import PreemptionNotice
from raynas.exceptions import TrainingDiverged
from raynas.progress import TrainingStatus
from raynas.storage.atomic import append_line, replace_text
from raynas.supernet.actor_group import ActorGroup
from raynas.supernet.schedule import Schedule
from raynas.training import checkpoint
from raynas.training.loop import TrainingLoop
from raynas.training.rounds import TrainingRounds
from raynas.training.trainer import Progress, model_tensors

__all__ = ["SupernetLoop", "SupernetTraining"]


@dataclass(frozen=True)
class SupernetTraining:
    """What is trained, and where its checkpoints are written."""

    folder: Path
    recipe: TrainConfig
    """Nothing open."""
    settings: Mapping[str, Any]
    """What the weights depend on; written into the checkpoints."""
    rounds: TrainingRounds | None
    """Change the paths during the training."""
    validation_images: int | None
    """On how many the rounds score architectures."""
    lr_factor: float = 1.0
    """Of the learning rate: halved each time that the loss has diverged."""


class SupernetLoop(TrainingLoop):
    """The training of a supernet on its actors.

    Args:
        group: Of actors that have joined as ranks.
        training: What is trained.
        schedule: How many steps there are.
        epoch_steps: Steps of an epoch.
        on_progress: Called after every chunk.
    """

    def __init__(
        self,
        group: ActorGroup,
        training: SupernetTraining,
        schedule: Schedule,
        epoch_steps: int,
        on_progress: Callable[[TrainingStatus], None],
    ) -> None:
        super().__init__(training.recipe.checkpoint_seconds, PreemptionNotice())
        self.group, self.training, self.schedule = group, training, schedule
        self._epoch_steps, self._on_progress = epoch_steps, on_progress
        self._waiting: list[Any] = []

    def run_interruptibly(self, step: int) -> None:
        """Train to the end; Ctrl-C saves a checkpoint first."""
        try:
            self.run(step)
        except KeyboardInterrupt:
            if self._waiting:
                step = max(made.step for made in self.group.gather(self._waiting))
                self.schedule.reached(step)
                self.save(step)
            raise

    def total(self) -> int:
        """The last step, as the schedule plans it now."""
        return self.schedule.total

    def pause(self, step: int) -> float:
        """The next round; one that is due is carried out first."""
        rounds = self.training.rounds
        if rounds is None:
            return math.inf
        while step >= (pause := rounds.next_round(self._epoch_steps)):
            self._round(rounds, step)
        return pause

    def train(self, until: int) -> Progress:
        """Train on all ranks; the loss is the mean over them."""
        total = self.schedule.total
        self._waiting = [actor.train.remote(until, total, self.training.lr_factor) for actor in self.group.actors]
        made: list[Progress] = self.group.gather(self._waiting)
        self.schedule.reached(until)
        loss, waited = (sum(getattr(each, name) for each in made) / len(made) for name in ("loss", "waited"))
        return replace(made[0], loss=loss, waited=waited)

    def after_chunk(self, progress: Progress) -> None:
        """Append to the training curve, and call ``on_progress``."""
        speed, placement = progress.images / max(progress.seconds, 1e-9), self.group.placement
        status = TrainingStatus(progress.step, self.schedule.total, progress.loss, speed, progress.waiting)
        line = {"step": status.step, "total": status.total, "loss": status.loss, "images_per_second": speed,
                "waiting": progress.waiting}  # fmt: skip
        line |= {"workers": placement.count, "gpus": placement.count * placement.gpus}
        append_line(self.training.folder / "training.jsonl", json.dumps({**line, "time": time.time()}))
        self._on_progress(status)

    def save(self, step: int) -> None:
        """Write the tensors of rank 0, which are those of all ranks."""
        training = self.training
        tensors = watch.get(self.group.actors[0].save.remote()).tensors()
        broken = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
        if broken:
            raise TrainingDiverged(f"{broken[0]} is no longer finite at step {step}: lower train.lr or set train.clip")
        values: dict[str, Any] = {"total": self.schedule.total, "seconds": self.schedule.spent()}
        values["lr_factor"] = training.lr_factor
        values["settings"] = training.settings
        values |= {} if training.rounds is None else {"rounds": training.rounds.state()}
        checkpoint.write(training.folder, step, tensors, values, training.recipe.keep_checkpoints)

    def _round(self, rounds: TrainingRounds, step: int) -> None:
        """Carry out a round; the checkpoint afterwards holds the paths that it leaves."""
        rounds.round(_RoundContext(self.group, self.training), step)
        paths = rounds.paths()
        self.group.gather([actor.follow.remote(paths) for actor in self.group.actors])
        self.save(step)
        replace_text(self.training.folder / "rounds.json", json.dumps(rounds.state(), indent=2))


@dataclass(frozen=True)
class _RoundContext:
    """A :class:`raynas.training.rounds.RoundContext`."""

    group: ActorGroup
    training: SupernetTraining

    def weights(self) -> dict[str, Tensor]:
        return model_tensors(watch.get(self.group.actors[0].save.remote()).tensors())

    def kept(self, name: str) -> dict[str, Tensor]:
        return checkpoint.read_initial(self.training.folder, name)

    def keep(self, name: str, weights: Mapping[str, Tensor]) -> None:
        checkpoint.keep_initial(self.training.folder, weights, name)

    def scores(self, architectures: Sequence[Architecture]) -> list[float]:
        actors, images = self.group.actors, self.training.validation_images
        # The ranks take turns; each starts from the same weights.
        shares = [list(architectures[rank :: len(actors)]) for rank in range(len(actors))]
        requests = [actor.rescore.remote(share, images) for actor, share in zip(actors, shares, strict=True)]
        answers = self.group.gather(requests)
        return [answers[place % len(actors)][place // len(actors)] for place in range(len(architectures))]
