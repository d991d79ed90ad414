"""Score architectures by training each one from scratch, one epoch a fidelity step.

The scores are those of independent networks, without the bias of shared weights, and cost a training each. Searchers,
limits, log and early stopping are the same as with a supernet.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from raynas import architecture as arch
from raynas.config.run import Config
from raynas.config.train import TrainConfig
from raynas.data.dataset import from_arrays, to_arrays
from raynas.distributed.nodes import PreemptionNotice
from raynas.distributed.placement import place
from raynas.evaluation.scorer import tally
from raynas.exceptions import ConfigError, TrainingDiverged
from raynas.nn.subnet import derive
from raynas.search_space.joint import network, recipe, settings
from raynas.storage.atomic import write_with_retry
from raynas.storage.removal import remove_tree
from raynas.storage.sync import StoreSync
from raynas.tasks.base import task_of
from raynas.training import checkpoint
from raynas.training.loop import TrainingLoop
from raynas.training.trainer import Progress, Trainer, use_assigned_cpus
from raynas.tune.evaluator import EvaluationContext, Evaluator, EvaluatorTraits
from raynas.tune.spec import EvaluationSpec, check_arguments, check_grace
from raynas.utils.periods import PERIODS

__all__ = ["FromScratch", "Job"]

_KEEP_SECONDS = PERIODS.linger
"""Seconds for which the weights of an ended trial are kept: by then the log has its result, in an object store too."""


@dataclass(frozen=True)
class Job:
    """What all trials of a search have in common."""

    space: Any
    """The module, with the initial weights from which every architecture starts."""
    arrays: Any
    """The data set, as ``to_arrays`` returned it."""
    recipe: TrainConfig
    seed: int
    """Of the random numbers of a training; the same for all architectures."""
    storage: Path | StoreSync
    """Where the weights of running trials are kept, so that an interrupted run continues with them: a folder, or its
    part of an object store."""


class FromScratch(Evaluator):
    """A trial that trains the network of one architecture; the score is that on all validation data."""

    traits = EvaluatorTraits(
        scored_by_task_metric=True, searches_hyperparameters=True, repeats_reports=True, default_searcher="bayes"
    )

    @classmethod
    def validate(cls, config: Config) -> None:
        """One architecture a trial, no arguments, and a grace within the epochs."""
        search = config.search
        check_arguments(search, legal=())
        if search.cohort != 1:
            raise ConfigError(f"search.cohort = {search.cohort}: one architecture is trained in a trial; legal: 1")
        check_grace(search, fidelities=search.epochs)

    @classmethod
    def evaluation_spec(cls, context: EvaluationContext) -> EvaluationSpec:
        """One trial per worker, one worker per GPU, or per CPU where there is none."""
        assert context.search_data is not None
        search, train = context.config.search, context.config.train
        placement = place(
            search.max_concurrent or search.replicas,
            train.cpus_per_worker,
            train.gpus_per_worker,
            wait_minutes=train.wait_minutes,
        )
        if train.wait_minutes:
            context.check_nodes()  # some may just have come
        parameters = {
            "job": Job(
                context.space,
                to_arrays(context.search_data),
                dataclasses.replace(train, epochs=search.epochs, minutes=None),
                context.seed,
                context.storage,
            )
        }
        resources = {"cpu": placement.cpus, "gpu": placement.gpus}
        return EvaluationSpec(
            cls,
            parameters,
            resources,
            max_fidelity=search.epochs,
            workers=placement.count,
            gpus=placement.gpus,
            concurrent=placement.count,
            bounded=search.max_concurrent is None and search.replicas is None,
        )

    def setup(self, config: dict[str, Any], job: Job) -> None:  # type: ignore[override]
        """Called once a process; afterwards :meth:`reset_config` brings the next trial.

        Args:
            config: Of the first trial.
            job: What to train and how.
        """
        use_assigned_cpus()
        self.job, self.data = job, from_arrays(job.arrays)
        self.metric = task_of(self.data).metric
        self.folder: Path | None = None
        self.sync: StoreSync | None = None
        self.outcomes: list[dict[str, Any]] = []
        """What this trial has reported, also in earlier processes; kept in its checkpoints."""
        self._ended: list[tuple[float, Path, StoreSync | None]] = []
        """When trials ended, and where their last weights are."""
        self.notice = PreemptionNotice()
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take on another trial in the same process."""
        if self.folder is not None:
            self._ended.append((time.monotonic(), self.folder, self.sync))
        self.folder = self.sync = None
        self._remove_expired()
        self.architecture = dict(new_config["architecture"])
        name, storage = arch.key(self.architecture), self.job.storage
        if isinstance(storage, StoreSync):
            self.sync = storage.below(name).private()
            write_with_retry(self.sync.pull, f"the copy of {self.sync.uri}")
            self.folder = self.sync.folder
        else:
            self.folder = storage / name
        # The subnet shares the space's weights: a copy of its own is trained.
        subnet = copy.deepcopy(derive(self.job.space, network(self.architecture)))
        self.trainer = Trainer(subnet, self.data, recipe(self.job.recipe, self.architecture), seed=self.job.seed)
        self.seconds = 0.0
        self.outcomes = []
        saved = checkpoint.latest(self.folder, ("seconds",))
        if saved is not None:
            self.trainer.load_state(saved[1], saved[0])
            self.seconds = float(saved[2]["seconds"])
            self.outcomes = list(saved[2].get("outcomes", ()))
        self._reported_again = list(self.outcomes)
        return True

    def step(self) -> dict[str, Any]:
        """Train for one epoch and evaluate on the validation data.

        A trial that continues in another process first reports once more what its checkpoint says it has reported: the
        program may have been killed before that was in the log. What the log has is not entered again.

        Raises:
            TrainingDiverged: The loss is no longer finite, and no training settings are searched.
        """
        if self._reported_again:
            return _report(self._reported_again.pop(0), done=False)
        begin, trainer = time.perf_counter(), self.trainer
        diverged = False
        if trainer.step < trainer.total_steps:
            try:
                _EpochLoop(self, begin).run(trainer.step)
            except TrainingDiverged:
                # Where settings are searched, this is a result and not a failure: the searcher learns from the score.
                if not settings(self.architecture):
                    raise
                diverged = True
        scores = tally(trainer.model, self.data.validation, self.data)
        self.seconds += time.perf_counter() - begin
        fidelity = -(-trainer.step // trainer.epoch_steps)
        score = self.metric(scores)
        if diverged and not math.isfinite(score):
            score = self.metric.of_means(1 / self.data.classes, math.log(self.data.classes))  # that of a random guess
        done = trainer.step == trainer.total_steps
        self._remove_expired()
        outcome = {
            "architecture": self.architecture,
            "score": score,
            "fidelity": fidelity,
            "status": "complete" if done else "stopped" if diverged else "running",
            "seconds": self.seconds,
            "worker": f"{ray.util.get_node_ip_address()}:{os.getpid()}",
            "metrics": {self.metric.name: score, "loss": scores["loss"] / scores[self.metric.examples]},
        }
        self.outcomes.append(outcome)
        # A trial that ended keeps its last weights: the log may not have its result yet.
        if not (done or diverged):
            self.save_weights(self.seconds)
        return _report(outcome, done or diverged)

    def save_weights(self, seconds: float) -> None:
        """Write a checkpoint of the trial.

        Args:
            seconds: The computing time of the trial so far.
        """
        assert self.folder is not None
        notes = {"seconds": seconds, "outcomes": self.outcomes}
        checkpoint.write(self.folder, self.trainer.step, self.trainer.state(), notes, keep=2)
        if self.sync is not None:
            self.sync.try_push()

    def _remove_expired(self) -> None:
        """Remove the weights of trials that ended at least ``_KEEP_SECONDS`` ago."""
        last = time.monotonic() - _KEEP_SECONDS
        for _, folder, sync in (each for each in self._ended if each[0] <= last):
            remove_tree(folder)
            if sync is not None:
                sync.forget()
        self._ended = [each for each in self._ended if each[0] > last]

    def cleanup(self) -> None:
        """Remove this process's copies. The search removes the stored weights once the log has the results."""
        for sync in (self.sync, *(sync for _, _, sync in self._ended)):
            if sync is not None:
                remove_tree(sync.folder)

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing for Tune to keep: the weights are in the run's own folder."""
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing to restore."""


def _report(outcome: dict[str, Any], done: bool) -> dict[str, Any]:
    """A report to Tune."""
    fidelity = outcome["fidelity"]
    return {
        "score": outcome["score"],
        "fidelity": fidelity,
        "training_iteration": fidelity,
        "outcomes": [outcome],
        "done": done,
    }


class _EpochLoop(TrainingLoop):
    """Trains a trial to the end of its epoch.

    The trial itself writes the checkpoint at that end, after the evaluation; here one is written only when the node
    must leave the cluster.

    Args:
        trial: Whose network is trained.
        begin: The ``time.perf_counter`` at which the step of the trial began.
    """

    def __init__(self, trial: FromScratch, begin: float) -> None:
        super().__init__(math.inf, trial.notice)
        self.trial, self._begin = trial, begin
        trainer = trial.trainer
        self._end = min((trainer.step // trainer.epoch_steps + 1) * trainer.epoch_steps, trainer.total_steps)

    def total(self) -> int:
        return self._end

    def train(self, until: int) -> Progress:
        return self.trial.trainer.run(until)

    def saves(self) -> bool:
        return self.trial.trainer.step < self._end

    def save(self, step: int) -> None:
        self.trial.save_weights(self.trial.seconds + time.perf_counter() - self._begin)
