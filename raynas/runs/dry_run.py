"""The dry run: what a run would do, and one random architecture taken through all of it."""

from __future__ import annotations

import copy
import statistics
import time

from raynas import architecture as arch
from raynas.architecture import Architecture
from raynas.evaluation.scorer import Scorer
from raynas.nn.protocols import inspect_space
from raynas.runs.preflight import preflight
from raynas.runs.run import Run
from raynas.search_space.joint import network, recipe, settings
from raynas.training.trainer import Trainer
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


def run_one_architecture(run: Run, chosen: Architecture, seconds: float = 0.0) -> tuple[str, list[float]]:
    """Train an architecture for two steps and score it on one slice, in this process.

    Args:
        run: Of the space.
        chosen: The architecture.
        seconds: For so long it is trained on, random paths of the space where a supernet is, to see how fast that is.

    Returns:
        A text about it, and images/s of pairs of steps; none without ``seconds``.
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
    return text, _rates(run, trainer, seconds)


def _rates(run: Run, trainer: Trainer, seconds: float) -> list[float]:
    """Images/s of pairs of steps, at least three of them."""
    found: list[float] = []
    if not seconds:
        return found
    if run.context.supernet is not None:
        trainer.paths = run.context.supernet.paths()
    trainer.run(trainer.step + 1)  # the first step fills caches
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds or len(found) < _FEWEST:
        made = trainer.run(trainer.step + 2)
        found.append(made.images / made.seconds)
    return found


def _show(run: Run, chosen: Architecture) -> None:
    say = run.view.say
    for name in ("train", "validation", "test"):
        say(f"{name}: {len(getattr(run.data, name))} {run.data}")
    if str(run.search_data) != str(run.data):
        say(f"the search sees {run.search_data}")
    assert run.context.networks is not None
    preflight(run.context.networks, run.config, run.config.after, network(chosen), say)
    text, rates = run_one_architecture(run, chosen, _MEASURED)
    say(text)
    epochs = run.config.train.resolved().epochs
    if run.config.train.minutes is None and epochs is not None:
        images = epochs * run.task.examples_per_epoch(run.config.train)
        usual, least, most = (images / rate / 60 for rate in (statistics.median(rates), max(rates), min(rates)))
        say(
            f"training {counted(epochs, 'epoch')} would take about {usual:.1f} min in one process like this one "
            f"({least:.1f} to {most:.1f} by the fastest and the slowest of {len(rates)} pairs of steps)"
        )
