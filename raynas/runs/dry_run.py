"""The dry run: what a run would do, and one random architecture taken through all of it."""

from __future__ import annotations

import copy
import time

from raynas import architecture as arch
from raynas.architecture import Architecture
from raynas.evaluation.scorer import Scorer
from raynas.nn.protocols import inspect_space
from raynas.runs.preflight import preflight
from raynas.runs.run import Run
from raynas.search_space.joint import network, recipe, settings
from raynas.training.trainer import Progress, Trainer

__all__ = ["dry_run", "run_one_architecture"]


def dry_run(run: Run) -> None:
    """Print the space, its costs and the limits, and propose an architecture.

    Where the space is a network: train that architecture for two steps and score it on one slice. In this process,
    without Ray. Nothing is written.
    """
    say = run.view.say
    decisions = run.search_space.decisions
    say(f"space: {arch.size(decisions):.3g} architectures, {len(decisions)} decisions")
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


def run_one_architecture(run: Run, chosen: Architecture) -> tuple[str, Progress]:
    """Train an architecture for two steps and score it on one slice, in this process; returns a text about it."""
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
    return text, progress


def _show(run: Run, chosen: Architecture) -> None:
    say = run.view.say
    for name in ("train", "validation", "test"):
        say(f"{name}: {len(getattr(run.data, name))} {run.data}")
    if str(run.search_data) != str(run.data):
        say(f"the search sees {run.search_data}")
    assert run.context.networks is not None
    preflight(run.context.networks, run.config, run.config.after, network(chosen), say)
    text, progress = run_one_architecture(run, chosen)
    say(text)
    epochs = run.config.train.resolved().epochs
    if run.config.train.minutes is None and epochs is not None:
        minutes = epochs * len(run.data.train) / progress.images * progress.seconds / 60
        say(f"training {epochs:g} epochs would take about {minutes:.1f} min on one worker like this")
