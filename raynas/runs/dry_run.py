"""The dry run: what a run would do, and one random architecture taken through all of it."""

from __future__ import annotations

import copy
import os
import statistics
import time

import torch

from raynas import architecture as arch
from raynas.architecture import Architecture
from raynas.distributed.connection import check_address
from raynas.distributed.placement import most_ranks
from raynas.evaluation.scorer import Scorer
from raynas.nn.protocols import inspect_space
from raynas.runs.preflight import preflight
from raynas.runs.run import Run
from raynas.search_space.joint import network, recipe, settings
from raynas.training.trainer import Trainer, best_device
from raynas.utils.formatting import counted

__all__ = ["dry_run", "run_one_architecture"]

_MEASURED, _FEWEST = 3.0, 3
"""Seconds, and pairs of steps, from which the time of a training is estimated."""


def dry_run(run: Run) -> None:
    """Print the space, its costs and the limits, and propose an architecture.

    Where the space is a network: train that architecture for two steps and score it on one slice. In this process,
    without Ray. Nothing is written.
    """
    say = run.view.say
    decisions = run.search_space.decisions
    say(f"space: {counted(arch.size(decisions), 'architecture')}, {counted(len(decisions), 'decision')}")
    if run.has_network:
        for line in inspect_space(run.space).lines():
            say(line)
    ranges = run.context.problem.profile()
    for name, profile in ranges.items():
        say(f"{name}: {profile}")
    unknown = run.limits.bounds.keys() - ranges.keys()
    met = f"{', '.join(unknown)} is measured when the search begins, the others can be met"
    say(f"limits: {str(run.limits) or 'none'}; {met if unknown else 'they can be met'}")
    suggestion = run.searcher(metric="score", mode=run.context.problem.objective.mode).suggest("dry-run")
    assert isinstance(suggestion, dict)
    chosen = suggestion["architecture"]
    if run.has_network:
        _show(run, chosen)
    else:
        say(f"architecture {arch.key(chosen)} {dict(run.costs(chosen))}; scored by {run.config.search.trainable}")
        say(str(run.costs))


def run_one_architecture(run: Run, chosen: Architecture, seconds: float = 0.0) -> tuple[str, list[float], int]:
    """Train an architecture for two steps and score it on one slice, in this process.

    Args:
        run: Of the space.
        chosen: The architecture.
        seconds: For so long it is trained on, random paths of the space where a supernet is, to see how fast that is.

    Returns:
        A text about it, seconds of a step (none without ``seconds``), and the steps of the whole training.
    """
    space, path = copy.deepcopy(run.space), network(chosen)
    trainer = Trainer(space, run.search_data, recipe(run.config.train, chosen), lambda step: [path], run.config.seed)
    progress = trainer.run(2)
    begin = time.perf_counter()
    tally, measure = Scorer(space, run.search_data, run.config.search).score([path], 0)[0], run.task.metric
    costs = run.context.problem.costs_of(chosen)
    trained = "".join(f", {name} {value}" for name, value in settings(chosen).items())
    text = (
        f"architecture {arch.key(chosen)} {costs}{trained}: loss {progress.loss:.3f} after two steps "
        f"({progress.images / progress.seconds:.0f} {measure.examples}/s), {tally['correct']:.0f} of "
        f"{tally[measure.examples]:.0f} {measure.examples} right at first ({time.perf_counter() - begin:.2f} s)"
    )
    return text, _seconds_per_step(run, trainer, seconds), trainer.total_steps


def _seconds_per_step(run: Run, trainer: Trainer, seconds: float) -> list[float]:
    """Seconds of a step, in pairs of steps, at least three of them."""
    found: list[float] = []
    if not seconds:
        return found
    if run.context.supernet is not None:
        trainer.paths = run.context.supernet.paths()
    trainer.run(trainer.step + 1)  # the first step fills caches
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds or len(found) < _FEWEST:
        found.append(trainer.run(trainer.step + 2).seconds / 2)
    return found


def _workers(run: Run) -> tuple[int, int]:
    """How many workers a training on this machine has, and the threads of each; one with a GPU or on a cluster."""
    recipe, threads = run.config.train.resolved(), torch.get_num_threads()
    if best_device().type != "cpu" or check_address(run.config) is not None:
        return 1, threads
    cpus = len(os.sched_getaffinity(0))
    workers = recipe.workers or min(cpus, most_ranks(recipe))
    return workers, max(int(recipe.cpus_per_worker or cpus / workers), 1)


def _show(run: Run, chosen: Architecture) -> None:
    say = run.view.say
    for name in ("train", "validation", "test"):
        say(f"{name}: {len(getattr(run.data, name))} {run.data}")
    if str(run.search_data) != str(run.data):
        say(f"the search sees {run.search_data}")
    assert run.context.networks is not None
    preflight(run.context.networks, run.config, run.config.after, network(chosen), say)
    workers, threads = _workers(run)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)  # as in a worker: few threads make small networks faster
    try:
        text, per_step, steps = run_one_architecture(run, chosen, _MEASURED)
    finally:
        torch.set_num_threads(before)
    say(text)
    epochs = run.config.train.resolved().epochs
    if run.config.train.minutes is None and epochs is not None:
        each = sorted(steps * value / workers / 60 for value in per_step)
        low, high = each[len(each) // 10], each[-1 - len(each) // 10]
        say(
            f"training {counted(epochs, 'epoch')} would take about {statistics.median(each):.1f} min with "
            f"{counted(workers, 'worker')} of {counted(threads, 'thread')} like this process, on a machine as busy as "
            f"this one is now ({low:.1f} to {high:.1f} min without the fastest and the slowest tenth of "
            f"{counted(2 * len(each), 'measured step')})"
        )
