"""The phases after a search: train the winner by itself, and write it as a plain PyTorch model."""

from __future__ import annotations

import copy
import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from raynas import architecture as arch
from raynas.architecture import Architecture
from raynas.config.train import TrainConfig
from raynas.distributed.placement import place_ranks
from raynas.evaluation.scorer import Scorer
from raynas.exceptions import ConfigError
from raynas.export.formats import export
from raynas.results.files import CurveLine, read_lines
from raynas.runs.compatibility import refuse_changes
from raynas.runs.context import RunContext
from raynas.runs.network_space import NetworkSpace
from raynas.runs.phases.pipeline import Phase
from raynas.search_space import joint
from raynas.storage.atomic import write_json
from raynas.training import checkpoint
from raynas.training.retrain import images_per_second, retrain, retrain_recipe
from raynas.training.trainer import model_tensors
from raynas.utils.formatting import counted

__all__ = ["Export", "Retrain", "affordable", "check_room_to_retrain", "check_trained", "trained_network"]


class Retrain(Phase):
    """Train an architecture from scratch and evaluate it on the test data, once; returns the figures.

    Args:
        architecture: Default: the winner.
    """

    name = "retrain"
    uses_cluster = True

    def __init__(self, architecture: Architecture | None = None) -> None:
        self._architecture = architecture

    def run(self, run: RunContext, results: Mapping[str, Any]) -> dict[str, Any]:
        """Train on what the cluster has; an interrupted training continues."""
        networks = _networks(run)
        run.release()  # the replicas are not needed any more, their processors are
        chosen = run.chosen(self._architecture)
        key = arch.key(chosen)
        recipe = _recipe(run, chosen)
        if recipe.wait_minutes:
            place_ranks(recipe)
            run.check_nodes()  # some may just have come
        what, metric = f"retrain {key}", networks.task.metric
        with (
            run.storage.reporting_lost_lease(),
            run.view.training(what, metric.examples) as show,
            run.metrics.training(what, show) as report,
        ):
            where = run.storage.below(f"retrain/{key}")
            result = retrain(networks.subnet(chosen), networks.data, recipe, run.config.seed, where, report)
        test, validation = (metric.formatted(result[f"{part}_{metric.name}"]) for part in ("test", "validation"))
        run.view.say(
            f"retrained {key}: {test} on the test {metric.examples}, "
            f"{validation} on validation, {counted(result['epochs'], 'epoch')}"
            + "".join(f", {name} {value}" for name, value in joint.settings(chosen).items())
        )
        return result


class Export(Phase):
    """Write an architecture as a plain PyTorch model into ``export/<key>``; returns what was written.

    Args:
        architecture: Default: the winner.
        formats: Default: ``formats`` of the settings.
    """

    name = "export"

    def __init__(self, architecture: Architecture | None = None, formats: Sequence[str] | None = None) -> None:
        self._architecture, self._formats = architecture, formats

    def run(self, run: RunContext, results: Mapping[str, Any]) -> Any:
        """Write the files and compare their answers with those of the network."""
        task, chosen = _networks(run).task, run.chosen(self._architecture)
        folder = run.folder / "export" / arch.key(chosen)
        network, example = task.export_model(trained_network(run, chosen))
        signature = task.export_signature(example, run.config.export)
        for name, value in {"architecture.json": chosen, **task.export_files}.items():
            write_json(folder / name, value)
        report = export(network, signature, folder, formats=tuple(self._formats or run.config.formats))
        own = (run.folder / "retrain" / arch.key(chosen) / "result.json").exists()
        weights = "retrained" if own else "shared"
        run.view.say(f"exported to {run.storage.shown(folder)} ({weights} weights)\n{report}")
        return report


def _networks(run: RunContext) -> NetworkSpace:
    assert run.networks is not None, "the pipeline refuses phases that need a network where there is none"
    return run.networks


def _recipe(run: RunContext, chosen: Architecture) -> TrainConfig:
    """How an architecture is trained by itself."""
    config = dataclasses.replace(run.config, train=joint.recipe(run.config.train, chosen))
    header = checkpoint.latest_header(run.folder / "supernet", ("total",))
    return retrain_recipe(config, header, _networks(run).task.examples_per_epoch(run.config.train))


def check_trained(run: RunContext, architecture: Architecture) -> None:
    """Refuse to export where nothing was trained.

    Raises:
        ConfigError: Neither the architecture nor the supernet was trained.
    """
    own = run.folder / "retrain" / arch.key(run.chosen(architecture)) / "result.json"
    if not own.exists() and checkpoint.latest_header(run.folder / "supernet") is None:
        raise ConfigError(f"nothing was trained yet in {run.folder}: run search or retrain first")


def trained_network(run: RunContext, architecture: Architecture) -> nn.Module:
    """The network of an architecture by itself: with its retrained weights if there are, else with shared ones.

    Raises:
        ConfigError: Neither it nor the supernet was trained.
    """
    networks, chosen = _networks(run), run.chosen(architecture)
    refuse_changes(run.folder, run.config, run.config, networks.contents)
    retrained = run.folder / "retrain" / arch.key(chosen)
    if (retrained / "result.json").exists():
        finished = checkpoint.latest(retrained)
        if finished is None:
            raise ConfigError(f"there is a result but no checkpoint in {retrained}: delete that folder and retrain")
        subnet = copy.deepcopy(networks.subnet(chosen))
        checkpoint.check_fit(retrained, model_tensors(finished[1]), subnet.state_dict())
        subnet.load_state_dict(model_tensors(finished[1]))
        return subnet.eval()
    shared = checkpoint.latest(run.folder / "supernet")
    if shared is None:
        raise ConfigError(f"nothing was trained yet in {run.folder}: run search or retrain first")
    if run.config.train.labels == "random":
        raise ConfigError("the shared weights learned labels drawn by chance, they tell nothing: run retrain first")
    trained = copy.deepcopy(networks.space)
    checkpoint.check_fit(run.folder / "supernet", model_tensors(shared[1]), trained.state_dict())
    trained.load_state_dict(model_tensors(shared[1]))
    return Scorer(trained, networks.data, run.config.search).network(joint.network(chosen))


def check_room_to_retrain(run: RunContext) -> None:
    """Check that the cluster, which is joined, can hold a retraining, where one is sure to come.

    A cluster that still starts nodes is not checked.

    Raises:
        ConfigError: It cannot.
    """
    batched, done = _networks(run).task.examples_per_epoch(run.config.train), run.folder.glob("retrain/*/result.json")
    recipe = retrain_recipe(run.config, None, batched)
    if not (recipe.wait_minutes or run.budget.given or any(done)):
        try:
            place_ranks(recipe)
        except ConfigError as error:
            raise ConfigError(f"the winner could not be retrained (see retrain.workers): {error}") from None


def affordable(run: RunContext, steps: Sequence[str]) -> list[str]:
    """The steps after a search, without retraining where what is left of the budget is too short for it."""
    left = run.budget.left
    if left is None or "retrain" not in steps or run.networks is None:
        return list(steps)
    networks, chosen = run.networks, run.chosen(None)
    recipe = _recipe(run, chosen)
    lines = read_lines(run.folder / "supernet" / "training.jsonl", CurveLine)
    rates = [line["images_per_second"] for line in lines if "images_per_second" in line]
    rate = statistics.median(rates or [0.0])
    alike = networks.retrained_in is networks.space and run.config.data.search_size is None
    if left and not (rates and alike):
        run.release()
        rate = images_per_second(networks.subnet(chosen), networks.data, recipe, run.config.seed)
    takes = (recipe.epochs or 0.0) * len(networks.data.train) / rate if rate else math.inf
    left = run.budget.left or 0.0
    if takes < left:
        return list(steps)
    estimate = f"it would take about {takes:.0f} s, and " if rate else ""
    run.view.say(
        f"not retrained: {estimate}{left:.0f} s are left of the budget; do it by: "
        f"python -m raynas.launch retrain --resume {run.storage.place}"
    )
    # Without a supernet, or where it learned labels drawn by chance, there are no weights to export either.
    usable = bool(rates) and run.config.train.labels == "given"
    return [step for step in steps if step != "retrain" and (usable or step != "export")]
