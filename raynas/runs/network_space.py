"""A space of networks with its data and its task: what a run over networks has beside what it searches."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import nn

from raynas.architecture import Architecture
from raynas.config.run import Config
from raynas.costs.counter import Costs
from raynas.costs.device import LatencyBenchmark
from raynas.costs.feasibility import check_satisfiable
from raynas.costs.latency import Latency, timed
from raynas.data.dataset import Data, for_search
from raynas.data.fingerprint import contents
from raynas.evaluation.proxies.evaluator import ZeroCostProxies, check_scores
from raynas.evaluation.proxies.filter import filtered
from raynas.exceptions import ConfigError, ForwardError
from raynas.nn.choice import decisions
from raynas.nn.subnet import derive
from raynas.search_space import joint
from raynas.search_space.constraints import LATENCY, Limits, check_objectives, violation
from raynas.search_space.space import SearchSpace
from raynas.tasks.base import task_of
from raynas.training.optimizers import check_optimizer
from raynas.training.trainer import dropping
from raynas.utils.user_code import validating

__all__ = ["NetworkSpace"]


class NetworkSpace:
    """The network with its choices, the data and the task of a run, and the search space that follows from them.

    Args:
        config: The settings of the run.
        space: The network with its choices and initial weights.
        data: What to train and score on.

    Raises:
        ValueError: Space and data do not fit each other, no architecture meets the limits, or a setting is illegal.
    """

    def __init__(self, config: Config, space: nn.Module, data: Data) -> None:
        self.space, self.data = space, data
        self.retrained_in = space
        """Whose networks are retrained; see ``retrain.space_args``."""
        self.search_data = for_search(data, config.data.search_size)
        """The data without the test split: what leaves this process before the end of the search."""
        self.contents = contents(self.search_data)
        self.task = task_of(data)
        self.config = self._with_preset(config)
        """The settings, with the preset of the task in the place of ``auto``."""
        self.costs = self._counted()
        wanted = [name for name in (*config.limits, *config.search.objectives) if name == LATENCY]
        if wanted and config.latency.place is None:
            raise ConfigError(f"{LATENCY} is measured: say where, e.g. --latency-on local (see latency.place)")
        legal = self.costs.names if config.latency.place is None else (*self.costs.names, LATENCY)
        with validating():
            self.limits = Limits.parse(config.limits, legal)
            self.objectives = check_objectives(config.search.objectives, legal)
        self._counted_limits = Limits({name: pair for name, pair in self.limits.bounds.items() if name != LATENCY})
        """The limits on what needs no measurement."""
        check_satisfiable(self.costs, self._counted_limits)
        self._proxies = self._zero_cost_proxies()
        if config.search.joint and config.retrain.preset is not None:
            raise ConfigError("retrain.preset would undo what search.joint finds: leave out one of them")

    def _with_preset(self, config: Config) -> Config:
        for setting, preset in (("train", config.train.preset), ("retrain", config.retrain.preset)):
            if preset is not None and preset not in self.task.presets:
                legal = ", ".join(self.task.presets)
                raise ConfigError(
                    f"{setting}.preset = {preset} is no recipe for {self.data.name}; legal there: {legal}"
                )
        self.task.check(config.train)
        check_optimizer(config.train, {name.removeprefix("train.") for name in config.search.joint})
        retrain = config.retrain
        if retrain.preset is not None and config.train.optimizer != "SGD" and retrain.lr is None:
            raise ConfigError(
                f"retrain.preset = {retrain.preset} has a learning rate for SGD, and train.optimizer is "
                f"{config.train.optimizer}: set retrain.lr"
            )
        if config.train.preset != "auto":
            return config
        return dataclasses.replace(config, train=dataclasses.replace(config.train, preset=self.task.preset))

    def _counted(self) -> Costs:
        """The costs by the data; the space must run on the smaller data of the search, too."""
        for seen in (self.data,) if self.config.data.search_size is None else (self.search_data, self.data):
            try:
                with validating():
                    costs = Costs(self.space, (task_of(seen).example(),))
                    classes = costs.classes()
            except ForwardError as error:
                why = "" if seen is self.data else " (data.search_size)"
                raise ForwardError(f"the space does not run on {seen}{why}: {error}") from error
            except (RuntimeError, TypeError) as error:
                why = "" if seen is self.data else " (data.search_size)"
                raise ConfigError(f"the space does not run on {seen}{why}: {str(error).splitlines()[0]}") from None
        if classes < self.data.classes:
            raise ConfigError(
                f"the space tells {classes} classes apart, but the labels are of {self.data.classes}: set "
                f"space_args.num_classes={self.data.classes}, an argument that the function of the space must take"
            )
        return costs

    def _zero_cost_proxies(self) -> ZeroCostProxies | None:
        """The zero-cost proxies of ``search.filter``; None without a filter."""
        settings = self.config.search.filter
        if settings.score is None:
            return None
        names = check_scores(settings.score, "search.filter.score")
        return ZeroCostProxies.of(self.space, self.costs, self.data, names, settings.images, self.config.seed)

    def latency(self, folder: Path) -> Latency | None:
        """The latency model of the measurements in the folder of the run; None without ``latency.place``."""
        settings = self.config.latency
        if settings.place is None:
            return None
        benchmark = LatencyBenchmark(self.space, self.task.example(settings.batch), settings)
        return Latency(self.costs, benchmark, folder / "latency.jsonl", self.limits)

    def search_space(self, latency: Latency | None = None) -> SearchSpace:
        """The search space; without latency the limits on it do not count."""
        costs, search, seed = self.costs, self.config.search, self.config.seed
        space = SearchSpace(
            costs.decisions, costs.canonical, violation(costs, self._counted_limits), graph=costs.graph,
            costs=costs, objectives=self.objectives, notation=costs.notation,
        )  # fmt: skip
        if latency is not None:
            space = timed(space, costs, latency, self.limits)
        return space if self._proxies is None else filtered(space, self._proxies, search.filter, seed)

    def retrain_in(self, space: nn.Module) -> None:
        """Retrain networks of another space, of other sizes, that has the same decisions.

        Raises:
            ConfigError: Its decisions differ.
        """
        if decisions(space) != decisions(self.space):
            raise ConfigError("with retrain.space_args the decisions of the space are others: they must stay the same")
        self.retrained_in = space
        self.check_drop_path()

    def check_drop_path(self) -> None:
        """Refuse to drop paths where no module does; the drop path of a preset is used where a module does.

        Raises:
            ConfigError: ``train.drop_path`` is set, and no module has a drop path.
        """
        if self.config.train.drop_path and not any(map(dropping, (self.space, self.retrained_in))):
            raise ConfigError(
                f"train.drop_path has no effect: no module of {type(self.retrained_in).__name__} has a number "
                "drop_path, as those of spaces.darts have: leave it out"
            )

    def subnet(self, architecture: Architecture) -> nn.Module:
        """The network of an architecture as it is retrained, with initial weights that it shares with the space."""
        return derive(self.retrained_in, joint.network(architecture))
