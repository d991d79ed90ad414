"""One run from a space to a found network: train the supernet, search, retrain, export, report.

    run = Run(Config(limits={"macs": 3e6}, name="run"), space, data, searcher=Evolution, trainable=SharedWeights)
    best = run.search()[0]                      # trains the supernet first, where the evaluator requires one
    run.retrain(best["architecture"])

A run is made of members (:class:`raynas.runs.context.RunContext`) and of phases, which a pipeline orders
(:mod:`raynas.runs.phases.pipeline`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from typing_extensions import Self

from raynas.analysis.results import RunResults, load_run
from raynas.architecture import Architecture, Decisions
from raynas.config.run import Config
from raynas.data.dataset import Data
from raynas.evaluation.angle import Angles
from raynas.exceptions import ConfigError
from raynas.results.log import read as read_log
from raynas.runs.context import RunContext
from raynas.runs.display import View
from raynas.runs.network_space import NetworkSpace
from raynas.runs.phases.leaderboard import read_front
from raynas.runs.phases.pipeline import Phase, Pipeline
from raynas.runs.phases.report import Report
from raynas.runs.phases.retraining import Export, Retrain, affordable, trained_network
from raynas.runs.phases.search import CombineMetrics, PrepareEvaluation, Rescore, Search
from raynas.runs.phases.supernet import CalibrateLatency, PlaceReplicas, TrainSupernet
from raynas.runs.preflight import preflight
from raynas.search_space.constraints import Limits
from raynas.search_space.space import SearchSpace
from raynas.searchers import ArchitectureSearcher
from raynas.tasks.base import Task
from raynas.tune.evaluator import CostModel
from raynas.tune.spec import EvaluationSpec

__all__ = ["Run"]

_PHASES = (
    CalibrateLatency, PlaceReplicas, TrainSupernet, PrepareEvaluation, CombineMetrics, Search, Rescore, Retrain, Export,
    Report,
)  # fmt: skip


class Run:
    """A run of a space, which continues where an earlier one of the same name stopped.

    Of a space that is data alone, decisions without a network, there is nothing to train, retrain or export.

    Args:
        config: All settings. ``config.name`` must be set.
        space: A module with choices, or a space that is data alone.
        data: What to train and score on; None for a space that is data alone.
        searcher: Makes the searcher of a SearchSpace, ``seed``, ``metric`` and ``mode``; its class will do.
        trainable: An :class:`raynas.tune.evaluator.Evaluator`, or a plain ``tune.Trainable``.
        view: Where progress is shown.

    Raises:
        ValueError: Space and data do not fit each other, no architecture meets the limits, or a setting is illegal.
    """

    def __init__(
        self,
        config: Config,
        space: nn.Module | SearchSpace,
        data: Data | None,
        searcher: Callable[..., ArchitectureSearcher],
        trainable: type[Any],
        view: View | None = None,
    ) -> None:
        self.context = RunContext(config, space, data, searcher, trainable, view)
        """The members of the run."""
        self.pipeline = Pipeline(phase() for phase in _PHASES)
        """Orders the phases. It may be replaced by one with other phases."""
        self._checked = False
        """Whether :meth:`preflight` was called."""

    # Opening and closing.

    def load(self) -> Self:
        """Read what the folder of the run holds; :func:`raynas.prepare` does so.

        Raises:
            ConfigError: Something in it cannot be used.
        """
        self.context.load()
        return self

    def open(self) -> None:
        """Make the folder and keep the settings in it, in an object store, too: ``--resume`` finds the run.

        Earlier settings stay beside them, numbered. May be called again.

        Raises:
            ConfigError: The folder holds weights or scores that do not belong to these settings, or the storage
                cannot be used.
        """
        self.context.open()

    def send(self) -> None:
        """Make sure that the files are in the storage.

        Raises:
            OSError: The storage refused for ten minutes.
        """
        self.context.storage.push()

    def close(self) -> None:
        """End what the run has started, and send its files where the storage takes them. It may be opened again."""
        self.context.release()
        self.context.storage.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        """Name, folder and state."""
        found = (self.folder / "leaderboard.json").exists()
        state = "searched" if found else "begun" if self.context.begun else "new"
        return f"<{type(self).__name__} {self.config.name!r} in {self.place}: {state}>"

    # Phases.

    def carry_out(self, *phases: Phase) -> dict[str, Any]:
        """Carry out phases and what they require; returns what each of them returned, by name.

        Raises:
            ConfigError: Phases cannot be put in an order, or the cluster cannot hold what the settings ask for.
        """
        return self.pipeline.run(self.context, phases)

    def preflight(self, steps: Sequence[str] = ()) -> None:
        """Train and evaluate a few networks on one batch in this process, before the cluster is used.

        :meth:`search` and :meth:`train_supernet` do so where it was not done before. Nothing happens where there is no
        network.

        Args:
            steps: What follows the search: with ``export`` an untrained architecture is exported in all formats, and
                what will not work is printed.

        Raises:
            ForwardError: Networks fail, or return what the task cannot use.
        """
        networks = self.context.networks
        if networks is not None and not self._checked:
            preflight(networks, self.config, steps, networks.costs.covering()[0], self.view.say)
        self._checked = True

    def search(self) -> list[dict[str, Any]]:
        """Score ``search.num_samples`` architectures and return the best of them, best first.

        The supernet is trained first, if the evaluator requires one; an interrupted training continues from its newest
        checkpoint. What the log already holds is not scored again, whatever searcher or limit it came from.

        Returns:
            Up to ``search.top`` rows with ``architecture``, ``key``, ``score`` (of the search), ``final_score`` (on all
            validation data) and the costs; also written to leaderboard.json. With ``search.objectives`` see
            :meth:`front`, too.

        Raises:
            ConfigError: The cluster cannot hold what the settings ask for, or its nodes lack something.
            ForwardError: See :meth:`preflight`.
        """
        self.preflight()
        best: list[dict[str, Any]] = self.carry_out(Rescore())["rescore"]
        return best

    def train_supernet(self) -> None:
        """Train the shared weights, from the newest checkpoint if there is one."""
        self.preflight()
        self.carry_out(TrainSupernet())

    def retrain(self, architecture: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Train an architecture (default: the winner) from scratch and evaluate it on the test data, once.

        Returns:
            ``test_accuracy`` and ``validation_accuracy`` in percent (of texts ``test_perplexity`` and
            ``validation_perplexity``), ``epochs`` and ``seconds``.
        """
        self.context.release()
        phase = Retrain(None if architecture is None else dict(architecture))
        result: dict[str, Any] = self.carry_out(phase)["retrain"]
        return result

    def export(self, architecture: Mapping[str, str] | None = None, formats: Sequence[str] | None = None) -> Any:
        """Write an architecture (default: the winner) as a plain PyTorch model into ``export/<key>``.

        Returns:
            What was written, and how far each file's answers are from the network's.
        """
        return self.carry_out(Export(None if architecture is None else dict(architecture), formats))["export"]

    def report(self) -> Path:
        """Write a page about the run; returns its path."""
        page: Path = self.carry_out(Report())["report"]
        return page

    def evaluation_spec(self) -> EvaluationSpec:
        """How the evaluator scores; what it requires is carried out first."""
        spec: EvaluationSpec = self.carry_out(PrepareEvaluation())["evaluation"]
        return spec

    def affordable(self, steps: Sequence[str]) -> list[str]:
        """The steps after a search, without retraining where what is left of the budget is too short for it."""
        if not self.context.loaded:
            self.load()
        return affordable(self.context, steps)

    # What was found.

    def results(self) -> RunResults:
        """What the run has found so far: the log, the leaderboard, the front; see :func:`raynas.load_run`.

        Raises:
            ConfigError: The run was not opened yet, or a file of it is damaged.
        """
        return load_run(self.folder)

    def best(self) -> Architecture:
        """The winner of the last search.

        Raises:
            ConfigError: Nothing was searched yet.
        """
        return self.context.chosen(None)

    def find(self, key: str) -> Architecture:
        """An architecture of the log by its key, or by the first digits of it.

        Raises:
            ConfigError: There is none, or more than one.
        """
        logs = [self.folder / name for name in ("scored.parquet", "sample") if (self.folder / name).is_dir()]
        rows = [row for log in logs for row in read_log(log).select(["key", "architecture"]).to_pylist()]
        found = {row["key"]: row["architecture"] for row in rows if row["key"].startswith(key)}
        if not found:
            raise ConfigError(f"no architecture in the log of {self.place} has a key that begins with {key}")
        if len(found) > 1:
            shown = ", ".join(list(found)[:3]) + (", ..." if len(found) > 3 else "")
            raise ConfigError(f"{len(found)} architectures have keys that begin with {key} ({shown}): give more digits")
        return self.check(json.loads(next(iter(found.values()))))

    def front(self) -> list[dict[str, Any]]:
        """The front of the last search, best score first: rows as :meth:`search` returns them.

        Raises:
            ConfigError: Nothing was searched yet with ``search.objectives``.
        """
        return read_front(self.folder)

    def check(self, architecture: Mapping[str, str]) -> Architecture:
        """The canonical form of an architecture that a person gave.

        Raises:
            ArchitectureError: The space does not contain it.
        """
        return self.context.chosen(dict(architecture))

    def network(self, architecture: Mapping[str, str]) -> nn.Module:
        """The trained network of an architecture, by itself: retrained weights if there are, else shared ones.

        Raises:
            ConfigError: Neither it nor the supernet was trained.
        """
        return trained_network(self.context, dict(architecture))

    def angles(self) -> Angles:
        """The weight angles of every architecture between the initial and the trained supernet.

        Raises:
            CheckpointError: The supernet has no weights, or no initial ones.
        """
        self._networks()
        assert self.context.supernet is not None
        return self.context.supernet.angles()

    # What it is about.

    def _networks(self) -> NetworkSpace:
        if self.context.networks is None:
            raise ConfigError(f"{self.config.space} is bare decisions: this run has no network")
        return self.context.networks

    @property
    def has_network(self) -> bool:
        """Whether the space is one of networks, not data alone."""
        return self.context.networks is not None

    @property
    def config(self) -> Config:
        """All settings."""
        return self.context.config

    @property
    def folder(self) -> Path:
        """Where the files are on this machine."""
        return self.context.folder

    @property
    def place(self) -> str:
        """Where everything is kept: the folder, or the URI in an object store."""
        return self.context.storage.place

    @property
    def view(self) -> View:
        """Where progress is shown."""
        return self.context.view

    @property
    def space(self) -> nn.Module:
        """The network with its choices and initial weights."""
        return self._networks().space

    @property
    def data(self) -> Data:
        """What to train and score on."""
        return self._networks().data

    @property
    def search_data(self) -> Data:
        """The data without the test split, at the resolution of the search."""
        return self._networks().search_data

    @property
    def task(self) -> Task:
        """Loss, metric and batches."""
        return self._networks().task

    @property
    def search_space(self) -> SearchSpace:
        """What may be proposed, within the limits."""
        return self.context.problem.search_space

    @property
    def decisions(self) -> Decisions:
        """All decisions that were open at first; a training may leave less of them in ``search_space``."""
        return self.context.problem.decisions

    @property
    def costs(self) -> CostModel:
        """What architectures cost."""
        return self.context.problem.costs

    @property
    def limits(self) -> Limits:
        """The limits on costs."""
        return self.context.problem.limits

    def searcher(self, **keywords: Any) -> ArchitectureSearcher:
        """A fresh searcher of ``search_space``.

        Args:
            keywords: ``metric`` and ``mode``.
        """
        return self.context.problem.searcher(**keywords)

    def retrain_in(self, space: nn.Module) -> None:
        """Retrain networks of another space, of other sizes, that has the same decisions.

        Raises:
            ConfigError: Its decisions differ.
        """
        self._networks().retrain_in(space)
