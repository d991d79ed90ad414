"""The search: start what scores, score architectures, and keep the best."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from raynas import results as logs
from raynas.architecture import Architecture
from raynas.exceptions import ConfigError
from raynas.results.log import Log
from raynas.results.pareto_front import Hypervolume
from raynas.runs.context import RunContext
from raynas.runs.phases.leaderboard import read_front, write_leaderboard
from raynas.runs.phases.pipeline import Phase
from raynas.runs.phases.sample import combined
from raynas.tune.callback import Observers, Recorder, RowDetails
from raynas.tune.experiment import run_search
from raynas.tune.loggers import listening
from raynas.tune.spec import EvaluationSpec
from raynas.utils.formatting import counted

__all__ = ["CombineMetrics", "PrepareEvaluation", "Rescore", "Search"]


class PrepareEvaluation(Phase):
    """Start what scores, after what the evaluator requires; returns an :class:`raynas.tune.spec.EvaluationSpec`."""

    name = "evaluation"
    needs_network = False

    def requires(self, run: RunContext) -> tuple[str, ...]:
        """What the traits of the evaluator name."""
        return tuple(run.evaluator.traits.requires)

    def run(self, run: RunContext, results: Mapping[str, Any]) -> EvaluationSpec:
        """Ask the evaluator."""
        spec = run.evaluator.evaluation_spec(run.evaluation_context())
        return dataclasses.replace(spec, mode=run.problem.objective.mode)


class CombineMetrics(Phase):
    """Score a random sample where the score is made of several metrics; returns how architectures are scored."""

    name = "combination"
    needs_network = False

    def requires(self, run: RunContext) -> tuple[str, ...]:
        """Latencies come first: the sample keeps the limits."""
        return ("evaluation",) if run.networks is None else ("latency", "evaluation")

    def run(self, run: RunContext, results: Mapping[str, Any]) -> EvaluationSpec:
        """See :func:`raynas.runs.phases.sample.combined`."""
        return combined(run, results["evaluation"])


class Search(Phase):
    """Score ``search.num_samples`` architectures; what the log holds already is not scored again.

    Returns the architectures that the searcher recommends, best first.
    """

    name = "search"
    needs_network = False
    uses_cluster = True

    def requires(self, run: RunContext) -> tuple[str, ...]:
        """How architectures are scored."""
        return ("combination",)

    def run(self, run: RunContext, results: Mapping[str, Any]) -> list[Architecture]:
        """Run Tune until all is scored, or the time is over."""
        spec: EvaluationSpec = results["combination"]
        problem, settings, folder = run.problem, run.config.search, run.folder / "scored.parquet"
        objective = dataclasses.replace(problem.objective, mode=spec.mode)
        if folder.exists():
            _refuse_other_mode(run, spec)
            logs.compact(folder, objective)
            _count_within_limits(run)
        if "supernet" in run.evaluator.traits.requires and objective.metric is not None:
            worse = "lower" if objective.mode == "max" else "higher"
            run.view.say(f"scores are the {objective.name} with shared weights: {worse} than after training alone")
        run.view.objective = objective
        with (
            Log(folder, settings=run.settings(), objective=objective) as log,
            run.view.search() as show,
            run.metrics.search(run.storage.guarded(show)) as report,
            listening(run.config, run.folder, problem.search_space.decisions, spec.mode) as ended,
        ):
            searcher = problem.searcher(run.folder / "searcher.json", metric="score", mode=spec.mode)
            stamp = {"run": run.config.name, "searcher": settings.method}
            rows = RowDetails(stamp, problem.costs_of, searcher.origins.get)
            recorder = Recorder(log, spec, rows, Observers(report, ended), _hypervolume(run, spec.mode))
            if not spec.simulated:
                run.budget.hold(spec.workers * spec.gpus)
            seconds = run.budget.given_seconds if spec.simulated else run.budget.left
            with run.storage.reporting_lost_lease():
                status = run_search(searcher, spec, settings, log, recorder, seconds)
        run.forget_ended()
        run.view.summary(status)
        return searcher.recommend(settings.top) if spec.rescore is not None else []


def _hypervolume(run: RunContext, mode: str) -> Hypervolume | None:
    """The hypervolume of the front while the search runs; None without ``search.objectives``."""
    objectives = run.problem.search_space.objectives
    if not objectives:
        return None
    early = "; nobody is stopped early, or the cheap would be" if run.config.search.scheduler == "asha" else ""
    run.view.say(f"looking for the front of score against {' and '.join(objectives)}{early}")
    return Hypervolume(objectives, run.problem.profile(), run.problem.limits, mode)


def _count_within_limits(run: RunContext) -> None:
    """Print how many of the architectures that are scored already meet the limits, if not all do."""
    rows = logs.latest(logs.read(run.folder / "scored.parquet")).to_pylist()
    scored = [json.loads(row["architecture"]) for row in rows if row["score"] is not None]
    within = sum(run.problem.violation(architecture) == 0 for architecture in scored)
    if within < len(scored):
        run.view.say(
            f"{within} of {counted(len(scored), 'scored architecture')} meet the limits ({run.problem.limits})"
        )


def _refuse_other_mode(run: RunContext, spec: EvaluationSpec) -> None:
    folder = run.folder / "scored.parquet"
    known = logs.objective(folder)
    if known is not None and known.mode != spec.mode:
        raise ConfigError(
            f"the scores in {folder} are {known.name}, which is to be {known.mode}, but "
            f"{run.config.search.trainable} scores by {spec.mode}: start a new run"
        )


class Rescore(Phase):
    """Score the best of the log once more on all validation data, and write the leaderboard; returns its rows."""

    name = "rescore"
    needs_network = False
    uses_cluster = True

    def requires(self, run: RunContext) -> tuple[str, ...]:
        """What the search recommends, and how architectures are scored."""
        return ("search", "combination")

    def run(self, run: RunContext, results: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Write leaderboard.json, and with ``search.objectives`` pareto.json."""
        spec: EvaluationSpec = results["combination"]
        best = write_leaderboard(run, spec, results["search"])
        # Empty, where time was short of a full score.
        front = read_front(run.folder) if run.problem.search_space.objectives else []
        run.view.leaderboard(front or best, spec.rescore is not None, "the front" if front else None)
        run.storage.try_push()
        if run.problem.latency is not None:
            run.view.say(run.problem.latency.account())
            run.problem.latency.close()
        return best
