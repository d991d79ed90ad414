"""One run from a space and data to a found network: train the supernet, search, retrain, export, report.

    run = Run(Config(limits={"macs": 3e6}), space, data, searcher=Evolution, trainable=SharedWeights)
    best = run.search()[0]                      # trains the supernet first, where the trainable needs one
    run.retrain(best["architecture"])

Everything is kept in one folder, from which a run that was interrupted goes on:

    config.yaml          all settings
    supernet/            checkpoints and the training curve
    scored.parquet/      the log: everything that was scored
    latency.jsonl        milliseconds of everything that was measured, with latency.place
    leaderboard.json     the best ones, scored again on all validation images; pareto.json: the front
    retrain/ export/ report.html
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import torch
from torch import nn

from raynas import architecture as arch
from raynas import results
from raynas.architecture import Architecture, Decisions
from raynas.config.fingerprint import Fingerprint
from raynas.config.run import Config
from raynas.config.train import TrainConfig
from raynas.costs.counter import Costs
from raynas.data.contents import contents
from raynas.data.dataset import Data, for_search
from raynas.distributed.placement import place_ranks
from raynas.evaluation.angle import Angles
from raynas.evaluation.angle_statistics import AngleStatistics
from raynas.evaluation.scorer import Scorer
from raynas.exceptions import CheckpointError, ConfigError, InfeasibleError, UnsatisfiableError
from raynas.export.formats import export
from raynas.nn.choice import decisions
from raynas.nn.subnet import derive
from raynas.results.files import CurveLine, read_lines
from raynas.runs.bad_input import validating
from raynas.runs.base import SearchRun
from raynas.runs.compatibility import refuse_changes
from raynas.runs.display import View
from raynas.runs.network_space import NetworkSpace
from raynas.runs.supernet_handle import TrainedSupernet
from raynas.search_space import joint
from raynas.search_space.constraints import LATENCY, Profile
from raynas.searchers import ArchitectureSearcher
from raynas.searchers.random import random_architectures
from raynas.storage.atomic import write_json
from raynas.storage.locks import exclusive
from raynas.supernet.supernet import Supernet
from raynas.tasks.base import task_of
from raynas.training import checkpoint
from raynas.training.factory import make_pool, make_shrinking, path_sampler, refuse_rounds
from raynas.training.path_sampling import PathSampler
from raynas.training.phases import restore
from raynas.training.retrain import images_per_second, retrain, retrain_recipe
from raynas.training.trainer import dropping, model_tensors
from raynas.tune.evaluator import EvaluationContext
from raynas.tune.spec import Objective

__all__ = ["Run"]


class Run(SearchRun):
    """The phases of a run over networks, each of which goes on from where an earlier one stopped.

    Args:
        config: All settings. ``config.name`` must be set.
        space: A module with Choices.
        data: What to train and score on.
        searcher: Makes the searcher of a SearchSpace, ``seed``, ``metric`` and ``mode``; its class will do.
        trainable: An :class:`raynas.tune.evaluator.Evaluator`, or a plain ``tune.Trainable``.
        view: Where progress is shown.

    Raises:
        ValueError: Space and data do not fit each other, no architecture keeps the limits, or a setting is illegal.
    """

    def __init__(
        self,
        config: Config,
        space: nn.Module,
        data: Data,
        searcher: Callable[..., ArchitectureSearcher],
        trainable: type[Any],
        view: View | None = None,
    ) -> None:
        self.space, self.data = space, data
        self._retrained_in = space
        self.search_data = for_search(data, config.data.search_size)
        """What leaves this process before the end: a search cannot look at test data that it does not have."""
        self._contents = contents(self.search_data)
        self.task = task_of(data)
        for setting, preset in (("train", config.train.preset), ("retrain", config.retrain.preset)):
            if preset is not None and preset not in self.task.presets:
                legal = ", ".join(self.task.presets)
                raise ConfigError(f"{setting}.preset = {preset} is no recipe for {data.name}; legal there: {legal}")
        self.task.check(config.train)
        if config.train.preset == "auto":
            config = dataclasses.replace(config, train=dataclasses.replace(config.train, preset=self.task.preset))
        for seen in (data,) if config.data.search_size is None else (self.search_data, data):
            try:
                with validating():
                    costs = Costs(space, (task_of(seen).example(),))
                    classes = costs.classes()
            except (RuntimeError, TypeError) as error:
                why = "" if seen is data else " (data.search_size)"
                raise ConfigError(f"the space does not run on {seen}{why}: {str(error).splitlines()[0]}") from None
        if classes < data.classes:
            raise ConfigError(
                f"the space tells {classes} classes apart, but the labels are of {data.classes}: set "
                f"space_args.num_classes={data.classes}, an argument that the function of the space must take"
            )
        self._open = NetworkSpace(config, space, costs, data)
        if config.search.joint and config.retrain.preset is not None:
            raise ConfigError("retrain.preset would undo what search.joint finds: leave out one of them")
        super().__init__(config, self._open.search_space(), costs, searcher, trainable, view)
        self.costs: Costs = costs
        self._load_latency()
        self.paths()
        if not config.retrain.space_args:
            self._check_drop_path()
        self._supernet: Supernet | None = None
        if "supernet" not in self.trainable.traits.requires:
            refuse_rounds(config.train, trainable.__name__)
        self.shrinking = make_shrinking(config, costs, self.limits, self.angle_statistics, self._violation)
        self.pool = make_pool(config, costs, self._between_rounds, self.task.metric.mode)
        self._narrow_as_trained()
        self.trainable.validate_run(self.context())

    def _load_latency(self) -> None:
        """The latency model of the measurements in the folder; None without ``latency.place``."""
        self.latency = self._open.latency(self.folder)
        if self.latency is not None and self.latency.ready:
            self.use(self.joined(self._open.search_space(self.latency)))

    def load(self) -> None:
        """See :meth:`SearchRun.load`; measured latencies, and what a training has left of the space."""
        super().load()
        self._load_latency()
        self._narrow_as_trained()

    def example(self, batch: int = 1) -> torch.Tensor:
        """A batch of zeros in the shape of the data: float32 [batch, C, H, W], or of words int64 [batch, 1]."""
        return self.task.example(batch)

    def profile(self) -> Mapping[str, Profile]:
        """The range of each cost over the space."""
        known: dict[str, Profile] = self.costs.profile()
        return known if self.latency is None or not self.latency.ready else known | {LATENCY: self.latency.profile()}

    def price(self) -> None:
        """Metric the latency of some architectures, and of those that were scored before.

        Raises:
            ConfigError: The cluster has no such device.
            InfeasibleError: By prediction nothing keeps the limits.
        """
        if self.latency is None:
            return
        self.latency.calibrate(self.config.seed, self.view.say)
        self.use(self.joined(self._open.search_space(self.latency)))
        try:
            random_architectures(self.search_space, 1, self.config.seed)
        except UnsatisfiableError:
            ranges = "; ".join(f"{name}: {profile}" for name, profile in self.profile().items())
            raise InfeasibleError(f"no architecture was found with {self.limits}; {ranges}") from None
        if (self.folder / "scored.parquet").exists():
            rows = results.read(self.folder / "scored.parquet").to_pylist()
            self.latency.measure_all([joint.network(json.loads(row["architecture"])) for row in rows], self.view.say)

    def search(self) -> list[dict[str, Any]]:
        """Train the supernet if the evaluator needs one, score ``search.num_samples`` architectures, return the best.

        What the log already holds is not scored again, whatever searcher or limit it came from; an interrupted
        training goes on from its newest checkpoint.

        Returns:
            Up to ``search.top`` rows, best first, with ``architecture``, ``key``, ``score`` (of the search),
            ``final_score`` (on all validation data) and the costs; also written to leaderboard.json. With
            ``search.objectives`` see :meth:`front`, too.

        Raises:
            ConfigError: The cluster cannot hold what the settings ask for, or its nodes lack something.
        """
        best = super().search()
        if self.latency is not None:
            self.view.say(self.latency.account())
            self.latency.close()
        return best

    def modules(self) -> list[str]:
        """What the nodes of the cluster must be able to import."""
        return [*super().modules(), type(self.space).__module__]

    @property
    def supernet(self) -> Supernet:
        """The actors that host the space."""
        if self._supernet is None:
            folder = self.folder / "supernet"
            self._supernet = Supernet(self.space, self.search_data, self.config, folder, self.shrinking or self.pool)
        return self._supernet

    # Training.

    def settings(self) -> Fingerprint:
        """See :meth:`SearchRun.settings`; the labels of the data are part of it."""
        return super().settings() | {"data.contents": self._contents}

    def paths(self) -> PathSampler:
        """Which paths the supernet trains; see ``train.paths``."""
        return path_sampler(self.config, self.costs, self.limits)

    @exclusive
    def train_supernet(self) -> None:
        """Train the shared weights; goes on from the newest checkpoint."""
        self.begin()
        with (
            self.view.training("supernet", self.task.metric.examples) as show,
            self.metrics.training("supernet", self.seen_by(show)) as told,
        ):
            if self.budget.given and not self.supernet.finished:
                where = place_ranks(self.config.train.resolved())
                self.budget.hold(where.count * where.gpus)
            left = self.budget.left
            self.supernet.train(self.paths(), told, None if left is None else left / 2)
        if self.shrinking is not None:
            self.narrow(self.shrinking.decisions)
            left, all_of_it = map(arch.size, (self.shrinking.decisions, self.angle_statistics().decisions))
            self.view.say(
                f"the space was shrunk from {all_of_it:.3g} to {left:.3g} architectures: {self.shrinking.dropped} "
                f"options were dropped in {len(self.shrinking.rounds)} rounds"
            )

        if self.pool is not None:
            violation = self.search_space.violation
            kept = [member for member in self.pool.members if violation is None or violation(member) == 0]
            self.searcher = functools.partial(self.searcher, points_to_evaluate=kept)
            room = self.config.search.num_samples
            short = f", of which search.num_samples = {room} leaves some out" if room < len(kept) else ""
            of = f"{len(kept)} of the pool's {len(self.pool.members)} architectures"
            self.view.say(f"the search begins with {of}{short}")

    def _between_rounds(self, **keywords: Any) -> ArchitectureSearcher:
        """A searcher of the space as it is now; nothing is measured while the supernet is trained."""
        make = functools.partial(self._any_searcher, dataclasses.replace(self.search_space, measure=None))
        return (make if self.source is None else self.source.warm(make))(**keywords)

    def _violation(self, architecture: Architecture) -> float:
        """By the limits as they are now: those on latency are known once some networks were measured."""
        return 0.0 if self.search_space.violation is None else self.search_space.violation(architecture)

    def objective(self) -> Objective:
        """See :meth:`SearchRun.objective`."""
        if self.config.search.combine:
            return super().objective()
        return self.trainable.objective(self.config, self.task.metric)

    def provide(self, requirements: Set[str]) -> None:
        """See :meth:`SearchRun.provide`: place the replicas, train the supernet."""
        if "replicas" in requirements:
            self.supernet.place_replicas()  # what the cluster cannot hold is said before the training, not after it
        if "supernet" in requirements:
            self.train_supernet()

    def context(self) -> EvaluationContext:
        """See :meth:`SearchRun.context`; with the network, the data, the task and the supernet."""
        return dataclasses.replace(
            super().context(),
            space=self.space,
            data=self.data,
            search_data=self.search_data,
            task=self.task,
            supernet=TrainedSupernet(lambda: self.supernet, self.angles, self.check_angles),
        )

    def narrow(self, decisions: Decisions) -> None:
        """Search among these options alone."""
        self.costs.narrow(decisions)
        self.use(dataclasses.replace(self.search_space, decisions=decisions))

    def _narrow_as_trained(self) -> None:
        """Where a training has shrunk the space to its end, what is left is the space."""
        if self.shrinking is None:
            return
        saved = checkpoint.latest_header(self.folder / "supernet", ("total", "rounds"))
        if saved is not None and saved[0] == saved[1]["total"]:
            restore(self.shrinking, saved[1]["rounds"], self.folder / "supernet")
            self.narrow(self.shrinking.decisions)

    # Angles.

    def angle_statistics(self) -> AngleStatistics:
        """What tells the space's angles.

        Raises:
            AngleError: The space has no rule for something in it.
        """
        return AngleStatistics(self.space, self.costs, self.config.train.affine)

    def check_angles(self) -> None:
        """Refuse what will have no angles, before anything is trained.

        Raises:
            AngleError: The space has no rule for something in it.
            CheckpointError: A training has begun without keeping its initial weights.
        """
        self.angle_statistics()
        checkpoint.check_initial(self.folder / "supernet")

    def angles(self) -> Angles:
        """How far the weights of every architecture have turned in the training of the supernet.

        Raises:
            CheckpointError: The supernet has no weights, or not those with which it began.
        """
        folder = self.folder / "supernet"
        saved = checkpoint.latest(folder)
        if saved is None:
            raise CheckpointError(f"there is no supernet in {folder}: run train-supernet first")
        return self.angle_statistics().angles(checkpoint.read_initial(folder), model_tensors(saved[1]))

    # After the search.

    def _check_drop_path(self) -> None:
        """Refuse to drop paths where there are none to drop; what a preset says of it holds where there are some."""
        if self.config.train.drop_path and not any(map(dropping, (self.space, self._retrained_in))):
            raise ConfigError(
                f"train.drop_path has no effect: no module of {type(self._retrained_in).__name__} has a number "
                "drop_path, as those of spaces.darts have: leave it out"
            )

    def retrain_in(self, space: nn.Module) -> None:
        """Train architectures by themselves as networks of another space, of other sizes, in which the same is open.

        Raises:
            ConfigError: Its decisions are others.
        """
        if decisions(space) != decisions(self.space):
            raise ConfigError("with retrain.space_args the decisions of the space are others: they must stay the same")
        self._retrained_in = space
        self._check_drop_path()

    def affordable(self, steps: Sequence[str]) -> list[str]:
        """Without retraining, where what is left of the budget is too short for it."""
        curve = self.folder / "supernet" / "training.jsonl"
        if self.budget.left is None or "retrain" not in steps:
            return list(steps)
        network, recipe = self._alone(self.best())
        rates = [line["images_per_second"] for line in read_lines(curve, CurveLine) if "images_per_second" in line]
        rate = statistics.median(rates or [0.0])
        alike = self._retrained_in is self.space and self.config.data.search_size is None
        if self.budget.left and not (rates and alike):
            self.release()
            rate = images_per_second(network, self.data, recipe, self.config.seed)
        takes = (recipe.epochs or 0.0) * len(self.data.train) / rate if rate else math.inf
        left = self.budget.left or 0.0
        if takes < left:
            return list(steps)
        told = f"it would take about {takes:.0f} s, and " if rate else ""
        self.view.say(
            f"not retrained: {told}{left:.0f} s are left of the budget; do it by: "
            f"python -m raynas.launch retrain --resume {self.place}"
        )
        # Without a supernet, or where it learned labels drawn by chance, there are no weights to export either.
        usable = bool(rates) and self.config.train.labels == "given"
        return [step for step in steps if step != "retrain" and (usable or step != "export")]

    def check_retraining(self) -> None:
        """See that the cluster, which is joined, can hold a retraining, where one is sure to come.

        A cluster that still starts nodes is not asked.

        Raises:
            ConfigError: It cannot.
        """
        recipe, done = retrain_recipe(self.config, None, self._batched()), self.folder.glob("retrain/*/result.json")
        if not (recipe.wait_minutes or self.budget.given or any(done)):
            try:
                place_ranks(recipe)
            except ConfigError as error:
                raise ConfigError(f"the winner could not be retrained (see retrain.workers): {error}") from None

    @exclusive
    def retrain(self, architecture: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Train an architecture (default: the winner) from scratch and evaluate it on the test data, once.

        Returns:
            ``test_accuracy`` and ``validation_accuracy`` in percent (of texts ``test_perplexity`` and
            ``validation_perplexity``), ``epochs`` and ``seconds``.
        """
        self.release()  # the replicas are not needed any more, their processors are
        self.begin()
        chosen = self.best() if architecture is None else self.check(architecture)
        below = f"retrain/{arch.key(chosen)}"
        where = self.folder / below if self.mirror is None else self.mirror.below(below)
        network, recipe = self._alone(chosen)
        if recipe.wait_minutes:
            place_ranks(recipe)
            self.check_nodes()  # some may just have come
        what = f"retrain {arch.key(chosen)}"
        with (
            self.sole(),
            self.view.training(what, self.task.metric.examples) as show,
            self.metrics.training(what, show) as told,
        ):
            result = retrain(network, self.data, recipe, self.config.seed, where, told)
        measure = self.task.metric
        test, validation = (measure.said(result[f"{part}_{measure.name}"]) for part in ("test", "validation"))
        self.view.say(
            f"retrained {arch.key(chosen)}: {test} on the test {measure.examples}, "
            f"{validation} on validation, {result['epochs']:g} epochs"
            + "".join(f", {name} {value}" for name, value in joint.settings(chosen).items())
        )
        return result

    def _alone(self, chosen: Architecture) -> tuple[nn.Module, TrainConfig]:
        """The network of an architecture as it is trained by itself, and how."""
        config = dataclasses.replace(self.config, train=joint.recipe(self.config.train, chosen))
        recipe = retrain_recipe(config, checkpoint.latest_header(self.folder / "supernet", ("total",)), self._batched())
        return derive(self._retrained_in, joint.network(chosen)), recipe

    def trained(self, architecture: Mapping[str, str], command: str) -> None:
        """Make sure that there are weights to export.

        Raises:
            ConfigError: Neither the architecture nor the supernet was trained.
        """
        own = self.folder / "retrain" / arch.key(self.check(architecture)) / "result.json"
        if command == "export" and not own.exists() and checkpoint.latest_header(self.folder / "supernet") is None:
            raise ConfigError(f"nothing was trained yet in {self.folder}: run search or retrain first")

    def network(self, architecture: Mapping[str, str]) -> nn.Module:
        """The trained network of an architecture, on its own: retrained weights if there are, else shared ones.

        Raises:
            ConfigError: Neither it nor the supernet was trained.
        """
        chosen = self.check(architecture)
        refuse_changes(self.folder, self.config, self.config, self._contents)
        subnet = copy.deepcopy(derive(self._retrained_in, joint.network(chosen)))
        retrained = self.folder / "retrain" / arch.key(chosen)
        if (retrained / "result.json").exists():
            finished = checkpoint.latest(retrained)
            if finished is None:
                raise ConfigError(f"there is a result but no checkpoint in {retrained}: delete that folder and retrain")
            checkpoint.check_fit(retrained, model_tensors(finished[1]), subnet.state_dict())
            subnet.load_state_dict(model_tensors(finished[1]))
            return subnet.eval()
        shared = checkpoint.latest(self.folder / "supernet")
        if shared is None:
            raise ConfigError(f"nothing was trained yet in {self.folder}: run search or retrain first")
        if self.config.train.labels == "random":
            raise ConfigError("the shared weights learned labels drawn by chance, they tell nothing: run retrain first")
        trained = copy.deepcopy(self.space)
        checkpoint.check_fit(self.folder / "supernet", model_tensors(shared[1]), trained.state_dict())
        trained.load_state_dict(model_tensors(shared[1]))
        settings = self.config.search
        return Scorer(trained, self.data, settings).network(joint.network(chosen))

    def export(self, architecture: Mapping[str, str] | None = None, formats: Sequence[str] | None = None) -> Any:
        """Write an architecture (default: the winner) as a plain PyTorch model into ``export/<key>``.

        Returns:
            What was written, and how far each file's answers are from the network's.
        """
        chosen = self.best() if architecture is None else self.check(architecture)
        folder = self.folder / "export" / arch.key(chosen)
        network, example = self.task.export_model(self.network(chosen))
        report = export(network, example, folder, formats=tuple(formats or self.config.formats))
        for name, value in {"architecture.json": chosen, **self.task.export_files}.items():
            write_json(folder / name, value)
        own = (self.folder / "retrain" / arch.key(chosen) / "result.json").exists()
        self.view.say(f"exported to {self.shown(folder)} ({'retrained' if own else 'shared'} weights)\n{report}")
        return report

    def _batched(self) -> int:
        return self.task.examples_per_epoch(self.config.train)

    def release(self) -> None:
        """See :meth:`SearchRun.release`: those of the supernet, and that which measures latency."""
        if self.latency is not None:
            self.latency.close()
        if self._supernet is not None:
            self._supernet.close()
