"""The members of a run, which its phases share: settings, storage, what is searched, the supernet, the budget.

Everything is kept in one folder, from which a run that was interrupted continues:

    config.yaml          all settings
    supernet/            checkpoints and the training curve
    scored.parquet/      the log: everything that was scored
    latency.jsonl        milliseconds of everything that was measured, with latency.place
    leaderboard.json     the best ones, scored again on all validation data; with search.objectives also pareto.json
    retrain/ export/ report.html
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from torch import nn

from raynas import results
from raynas.architecture import Architecture
from raynas.config.fingerprint import Fingerprint, scoring_settings
from raynas.config.loading import dump, load_kept
from raynas.config.run import Config
from raynas.data.dataset import Data
from raynas.distributed.connection import check_address, connect
from raynas.distributed.monitoring import RunMetrics
from raynas.distributed.nodes import check_nodes
from raynas.exceptions import ConfigError
from raynas.report.page import DESCRIPTION
from raynas.results.files import Winners, read_json
from raynas.runs.budget import Budget
from raynas.runs.compatibility import begun, refuse_changes, warn_if_unknown
from raynas.runs.display import View
from raynas.runs.network_space import NetworkSpace
from raynas.runs.problem import SearchProblem
from raynas.runs.storage import RunStorage
from raynas.runs.supernet_handle import RunSupernet
from raynas.search_space.space import SearchSpace
from raynas.searchers import ArchitectureSearcher
from raynas.storage.atomic import remove_abandoned, replace_text, write_json, write_with_retry
from raynas.storage.removal import adopt, free_name, remove_tree
from raynas.training.factory import refuse_rounds
from raynas.tune.evaluator import EvaluationContext
from raynas.tune.loggers import check_loggers
from raynas.tune.resources import check_processes, memory_here, memory_of_head
from raynas.tune.trainable_adapter import evaluator_of

__all__ = ["RunContext"]

_IN_FLIGHT = "in-flight"
"""The folder in which trials keep what they continue with."""


class RunContext:
    """What the phases of a run work with. Nothing is read before :meth:`load`, and nothing written before :meth:`open`.

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
        self.networks: NetworkSpace | None = None
        """The space of networks, the data and the task; None for a space that is data alone."""
        if not isinstance(space, SearchSpace):
            assert data is not None
            self.networks = NetworkSpace(config, space, data)
            config = self.networks.config
        assert config.name is not None, "prepare gives every run a name"
        self.config, self.view = config, view or View()
        self.evaluator = evaluator_of(trainable, config)
        self.storage = RunStorage(config.storage_path, config.name)
        self.metrics = RunMetrics(config.name)
        plain = space if isinstance(space, SearchSpace) else self.networks
        assert plain is not None
        self.problem = SearchProblem(config, plain, searcher, self.evaluator)
        if check_address(config) is None:
            check_processes(self.evaluator, config.search, memory_here(), "this machine")
        check_loggers(config.search.loggers)
        self.evaluator.validate(config)
        self.supernet: RunSupernet | None = None
        """The shared weights; None for a space that is data alone."""
        if self.networks is not None:
            if not config.retrain.space_args:
                self.networks.check_drop_path()
            if "supernet" not in self.evaluator.traits.requires:
                refuse_rounds(config.train, self.evaluator.__name__)
            self.supernet = RunSupernet(config, self.networks, self.problem, self.folder / "supernet")
        self.loaded = False
        """Whether :meth:`load` has read the folder."""

    @property
    def folder(self) -> Path:
        """Where the files of the run are on this machine."""
        return self.storage.folder

    @property
    def begun(self) -> bool:
        """Whether the folder holds weights or scores."""
        return begun(self.folder)

    def settings(self) -> Fingerprint:
        """What the scores depend on; the labels of the data are part of it."""
        found = scoring_settings(self.config)
        return found if self.networks is None else found | {"data.contents": self.networks.contents}

    def load(self) -> None:
        """Read what the folder of the run holds: budget, warm start, latencies, what a training left of the space.

        Raises:
            ConfigError: Something in it cannot be used, or the evaluator refuses the run.
        """
        self.budget = Budget(self.config, self.folder)
        self.problem.load(self.folder)
        if self.supernet is not None:
            self.supernet.load()
            self.evaluator.validate_run(self.evaluation_context())
        self.loaded = True

    def attach(self) -> None:
        """Connect the folder to the object store, where that is the storage, and read what it holds.

        Raises:
            ConfigError: The store cannot be used.
            OSError: The store refused.
        """
        if self.storage.attach() or not self.loaded:
            self.load()

    def open(self) -> None:
        """Make the folder and keep the settings in it, in an object store, too. May be called again.

        Earlier settings stay beside them, numbered.

        Raises:
            ConfigError: The folder holds weights or scores that do not belong to these settings, or the storage
                cannot be used.
        """
        self.attach()
        self.storage.claim()
        self.write_settings()
        self.storage.push()

    def write_settings(self) -> None:
        """Keep the settings in the folder, and what is done to the data, for the report.

        Raises:
            ConfigError: The folder holds weights or scores that do not belong to them.
        """
        adopt(self.folder)
        remove_abandoned(self.folder)
        path, text = self.folder / "config.yaml", dump(self.config)
        before = load_kept(path) if path.exists() else self.config
        refuse_changes(self.folder, before, self.config, self.settings().get("data.contents"))
        warn_if_unknown(self.folder)
        if path.exists() and path.read_text(encoding="utf-8") != text:
            replace_text(free_name(path), path.read_text(encoding="utf-8"), timeout=0)
        replace_text(path, text, timeout=0)
        if self.networks is not None:
            write_json(self.folder / DESCRIPTION, self.networks.task.describe(self.config.train))
        if self.problem.source is not None:
            self.problem.source.keep(self.folder)

    def begin(self) -> None:
        """Open the run and join the cluster; check that all nodes have both the folder and the code.

        Raises:
            ConfigError: There is no such cluster, or some of its nodes lack something.
        """
        self.open()
        connect(self.config)
        if check_address(self.config) is not None:
            check_processes(self.evaluator, self.config.search, memory_of_head(ray.nodes()), "the head node")
        self.check_nodes()
        self.budget = Budget(self.config, self.folder)

    def check_nodes(self) -> None:
        """Check that all nodes have both the folder and the code.

        Raises:
            ConfigError: Some of them lack something.
        """
        modules = ["raynas", self.evaluator.__module__]
        if self.networks is not None:
            modules.append(type(self.networks.space).__module__)
        if check_address(self.config) is not None or len(ray.nodes()) > 1:
            check_nodes(self.storage.visible_to_nodes, modules)

    def evaluation_context(self) -> EvaluationContext:
        """What an evaluator is given of this run."""
        storage, networks = self.storage.below(_IN_FLIGHT), self.networks
        context = EvaluationContext(
            config=self.config,
            search_space=self.problem.search_space,
            costs=self.problem.costs,
            say=self.view.say,
            check_nodes=self.check_nodes,
            storage=storage.absolute() if isinstance(storage, Path) else storage,
        )
        if networks is None:
            return context
        return dataclasses.replace(
            context,
            space=networks.space,
            data=networks.data,
            search_data=networks.search_data,
            task=networks.task,
            supernet=self.supernet,
        )

    def chosen(self, architecture: Architecture | None) -> Architecture:
        """The canonical form of an architecture; by default the winner of the last search.

        Raises:
            ArchitectureError: The space does not contain it.
            ConfigError: Nothing was searched yet.
        """
        if architecture is not None:
            return self.problem.search_space.form(architecture)
        path = self.folder / "leaderboard.json"
        if not path.exists():
            raise ConfigError(f"there is no leaderboard in {self.folder}: run search first, or give an architecture")
        return dict(read_json(path, Winners, "run search once more, it writes it anew from the log")[0]["architecture"])

    def forget_ended(self) -> None:
        """Remove the weights that trials which ended have left: by the log, and by that of the random sample."""
        running = set[str]()
        for log in filter(Path.exists, (self.folder / name for name in ("scored.parquet", "sample"))):
            rows = results.read(log).to_pylist()
            running |= {row["key"] for row in rows} - {row["key"] for row in rows if row["status"] != "running"}
        kept, below = self.folder / _IN_FLIGHT, self.storage.below(_IN_FLIGHT)
        sync = None if isinstance(below, Path) else below
        if sync is not None:
            write_with_retry(sync.pull, f"the copy of {sync.uri}")  # nodes that were lost have left theirs there
        for folder in kept.glob("*"):
            if folder.name not in running:
                remove_tree(folder)
        if sync is not None:
            sync.try_push()
        if kept.exists() and not any(kept.iterdir()):
            remove_tree(kept)

    def release(self) -> None:
        """End the actors of the run: those of the supernet, and that which measures latency."""
        if self.problem.latency is not None:
            self.problem.latency.close()
        if self.supernet is not None:
            self.supernet.close()
