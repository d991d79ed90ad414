"""A random sample of a run's space, scored as the run scores.

What a search has scored is no sample of its space: it keeps to what is good. So the places where scores are compared
with a population, combined scores and :mod:`raynas.runs.rank`, draw one. Its log, ``sample/`` in the folder of the run,
has every architecture at every fidelity: nothing is stopped early, and nothing is scored twice.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from raynas import results
from raynas.architecture import Architecture, key
from raynas.config.fingerprint import changed
from raynas.evaluation.rank_aggregation import Reference
from raynas.exceptions import ConfigError
from raynas.results.files import read_or, sealed
from raynas.results.log import Log
from raynas.results.row_checks import MOST_FIDELITY
from raynas.runs.context import RunContext
from raynas.searchers import RandomSearch
from raynas.searchers.random import random_architectures
from raynas.storage.atomic import write_json
from raynas.tune.callback import Observers, Recorder, RowDetails
from raynas.tune.experiment import LoggedHistory, run_search
from raynas.tune.spec import EvaluationSpec
from raynas.tune.trial import FidelitySchedule

__all__ = ["combined", "ranks", "references", "score_sample"]

Rows = list[dict[str, Any]]


class _SampleRow(TypedDict):
    key: str
    architecture: str
    fidelity: Annotated[int, Field(ge=0, le=MOST_FIDELITY)]
    status: str
    metrics: dict[str, Any]


class _ReferenceFile(TypedDict):
    """The content of reference.json."""

    settings: dict[str, Any]
    sample: dict[str, list[_SampleRow]]


def score_sample(run: RunContext, spec: EvaluationSpec, architectures: Sequence[Architecture]) -> dict[str, Rows]:
    """Score architectures at every fidelity; what the sample's log has already is not scored again.

    Args:
        run: Connected to Ray.
        spec: How the run scores.
        architectures: Within the limits.

    Returns:
        By the key of the architecture: the rows of the log, in which ``metrics`` are read.
    """
    wanted = {key(form): form for form in map(run.problem.search_space.form, architectures)}
    # They are given: what is measured anew, or limited otherwise by now, does not make them illegal.
    space = dataclasses.replace(run.problem.search_space, violation=None, measure=None)
    searcher = RandomSearch(space, seed=run.config.seed, metric="score", mode=spec.mode)
    folder = run.folder / "sample"
    stamp = {"run": run.config.name, "searcher": "random"}
    with Log(folder, settings=run.settings(), objective=run.problem.objective) as log:
        history = LoggedHistory(results.read(folder), searcher.sampler.feasible)
        left = {*wanted, *history.in_flight} - set(history.ended)
        if left:
            run.view.say(f"a random sample of the space: {len(left)} architectures to be scored")
            searcher.requeue(form for name, form in wanted.items() if name in left)
            settings = dataclasses.replace(
                run.config.search,
                num_samples=len(history.ended) + len(left),
                scheduler="none",
            )
            plain = _with_schedule(spec, halving=False)
            with run.view.search() as show:
                rows = RowDetails(stamp, run.problem.costs_of, searcher.origins.get)
                recorder = Recorder(log, plain, rows, Observers(show))
                run_search(searcher, plain, settings, log, recorder, run.budget.left)
            run.forget_ended()
    sample: dict[str, Rows] = {name: [] for name in wanted}
    for row in results.read(folder).to_pylist():
        if row["key"] in sample:
            sample[row["key"]].append({**row, "metrics": json.loads(row["metrics"] or "{}")})
    return sample


def _with_schedule(spec: EvaluationSpec, **changes: Any) -> EvaluationSpec:
    """The same evaluation with another fidelity schedule, where its trials have one."""
    found = {name: value for name, value in spec.parameters.items() if isinstance(value, FidelitySchedule)}
    changed = {name: dataclasses.replace(schedule, **changes) for name, schedule in found.items()}
    return dataclasses.replace(spec, parameters={**spec.parameters, **changed})


def combined(run: RunContext, spec: EvaluationSpec) -> EvaluationSpec:
    """The same scoring with the score made of several metrics, if that is wanted: see ``search.combine``.

    A random sample is scored first; the score is the combined rank in it, see
    :class:`raynas.evaluation.rank_aggregation.Reference`.

    Raises:
        ConfigError: The trainable does not report one of the metrics.
    """
    if not (run.config.search.combine or spec.combine):
        return spec
    if not any(isinstance(value, FidelitySchedule) for value in spec.parameters.values()):
        raise ConfigError(
            f"search.combine: {run.config.search.trainable} hands no raynas.tune.trial.FidelitySchedule to its trials"
        )
    told = _with_schedule(spec, combined=ranks(run, spec), mode="max")
    # What is scored once more is one of the metrics: it does not compare.
    return dataclasses.replace(told, mode="max", rescore=None)


def ranks(run: RunContext, spec: EvaluationSpec) -> dict[int, Reference]:
    """What ranks at each fidelity, where the score is made of several metrics; empty where it is not.

    The sample is drawn once in a run and kept in reference.json: under other limits another one would be drawn, and its
    ranks would not compare with the scores of the log.

    Raises:
        ConfigError: See :func:`references`.
    """
    search = run.config.search
    weights = search.combine or spec.combine
    if not weights:
        return {}
    path, settings = run.folder / "reference.json", {"metrics": sorted(weights), "architectures": search.reference}
    kept = read_or(path, _ReferenceFile, None, "it is made anew of the log of the sample")
    if kept is not None and not changed(kept["settings"], settings):
        return references(kept["sample"], weights)
    drawn = random_architectures(run.problem.search_space, search.reference, run.config.seed)
    sample = score_sample(run, spec, drawn)
    found = references(sample, weights)
    wanted = ("key", "architecture", "fidelity", "status", "metrics")
    told = {name: [{column: row[column] for column in wanted} for row in rows] for name, rows in sample.items()}
    write_json(path, sealed({"settings": settings, "sample": told}))
    return found


def references(sample: Mapping[str, Rows], weights: Mapping[str, float]) -> dict[int, Reference]:
    """What ranks at each fidelity.

    Args:
        sample: What :func:`score_sample` returned.
        weights: Of the metrics.

    Raises:
        ConfigError: An unknown metric, weights of 0, or fewer than two architectures that have all of the metrics.
    """
    metrics: dict[int, dict[str, Mapping[str, Any]]] = {}
    for rows in sample.values():
        for row in rows:
            if row["status"] != "error":
                metrics.setdefault(row["fidelity"], {})[row["key"]] = row["metrics"]
    known = sorted({n for told in metrics.values() for each in told.values() for n in each})
    unknown = [name for name in weights if name not in known]
    if unknown:
        raise ConfigError(f"search.combine: no metric {unknown[0]!r} is reported; legal ones: {', '.join(known)}")
    found = {}
    for fidelity, told in metrics.items():
        whole = [each for each in told.values() if all(isinstance(each.get(n), (int, float)) for n in weights)]
        if len(whole) < 2:
            raise ConfigError(f"search.combine: of {len(told)} random architectures only {len(whole)} have all metrics")
        try:
            found[fidelity] = Reference({name: [each[name] for each in whole] for name in weights}, weights)
        except ValueError as error:
            raise ConfigError(f"search.combine: {error}") from None
    return found
