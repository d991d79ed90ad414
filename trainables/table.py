"""Look architectures up in a table of scores: a public benchmark, or what was measured earlier.

    python -m raynas.launch --space spaces.nasbench201:DECISIONS search.trainable=trainables.table:Table
        search.trainable_args.file=nasbench201.parquet search.trainable_args.metric=accuracy limits.flops_m=100

The space may be bare decisions: no network and no data are needed. The arguments are those of
:class:`raynas.evaluation.tabular.Layout`. An architecture counts as it stands there, also where the table has another
one of the same network. One that the table does not have counts as infeasible: it is logged, and the search continues.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import ray

from raynas.architecture import Decisions
from raynas.config.run import Config
from raynas.evaluation.tabular import Layout, ScoreTable
from raynas.exceptions import ConfigError, InfeasibleError
from raynas.metrics import Metric
from raynas.search_space.constraints import Limits, Profile
from raynas.tune.evaluator import EvaluationContext, EvaluatorTraits
from raynas.tune.resources import slots
from raynas.tune.spec import EvaluationSpec, Objective, check_grace
from raynas.tune.trial import BatchTrial, Candidate, FidelitySchedule

__all__ = ["Table", "TableCosts"]


class TableCosts:
    """The further columns of a table as the costs of its architectures."""

    def __init__(self, table: ScoreTable) -> None:
        self.table = table

    def __call__(self, architecture: Mapping[str, str]) -> dict[str, float]:
        """The costs of one architecture by name; NaN where the table does not have it."""
        if not self.table.columns:
            return {}
        row = int(self.table.find([architecture])[0])
        return self.table.further(row) if row >= 0 else dict.fromkeys(self.table.columns, float("nan"))

    def profile(self) -> dict[str, Profile]:
        """The range of each cost over the table."""
        return {
            name: Profile(float(np.min(column)), float(np.median(column)), float(np.max(column)))
            for name, column in self.table.columns.items()
        }

    def check(self, limits: Limits) -> None:
        """Make sure that some architecture of the table keeps the limits.

        Raises:
            InfeasibleError: None does; the message names the limits and the range of the costs.
        """
        kept = np.ones(len(self.table), bool)
        for name, (low, high) in limits.bounds.items():
            column = self.table.columns[name]
            kept &= (column >= (-np.inf if low is None else low)) & (column <= (np.inf if high is None else high))
        if not kept.any():
            profile = self.profile()
            ranges = "; ".join(f"{name} are {profile[name]}" for name in limits.bounds)
            raise InfeasibleError(f"no architecture of {self.table.name} has {limits}: {ranges}")

    def __str__(self) -> str:
        return str(self.table)


def _layout(config: Config) -> Layout:
    """What the arguments of a run mean.

    Raises:
        ConfigError: They cannot be, or its simulated time could not be kept.
    """
    layout = Layout.parse(config.search.trainable_args)
    if layout.cost is not None and config.time_budget is not None and config.search.cohort > 1:
        raise ConfigError(
            f"search.cohort = {config.search.cohort}: simulated time ends between trials, so that with time_budget "
            "each must score one architecture; legal: 1"
        )
    return layout


class Table(BatchTrial):
    """A trial that reads scores off a table, one column of the score a fidelity step.

    The table is read and checked once, before the search; trials see it through the object store.
    """

    traits = EvaluatorTraits(needs_network=False)

    @classmethod
    def validate(cls, config: Config) -> None:
        """Arguments that are a :class:`raynas.evaluation.tabular.Layout`, and a grace within its fidelities."""
        check_grace(config.search, fidelities=len(Layout.parse(config.search.trainable_args).steps))

    @classmethod
    def objective(cls, config: Config, metric: Metric | None) -> Objective:
        """The column of the table that is the score."""
        layout = Layout.parse(config.search.trainable_args)
        return Objective(layout.metric, "min" if layout.mode == "min" else "max")

    @classmethod
    def costs(cls, decisions: Decisions, config: Config) -> TableCosts:
        """Read the table; its columns are the costs of a space of bare decisions.

        Raises:
            TableError: The table cannot be used, or a limit or an objective names no column; see
                :meth:`ScoreTable.open`.
            InfeasibleError: No architecture of the table keeps the limits.
        """
        layout, objectives = _layout(config), config.search.objectives
        costs = TableCosts(ScoreTable.open(decisions, layout, config.limits, objectives))
        costs.check(Limits.parse(config.limits, costs.table.columns))
        return costs

    @classmethod
    def evaluation_spec(cls, context: EvaluationContext) -> EvaluationSpec:
        """One trial after the other, so that the same seed gives the same search; ``max_concurrent`` changes that."""
        search, layout = context.config.search, _layout(context.config)
        known, decisions = context.costs, context.search_space.decisions
        table = known.table if isinstance(known, TableCosts) else ScoreTable.open(decisions, layout)
        if table.missing:
            context.say(f"table {table}")
        schedule = FidelitySchedule(
            len(layout.steps), search.reduction_factor, search.grace, search.stops_early, layout.mode
        )
        concurrent = search.max_concurrent or 1
        return EvaluationSpec(
            cls,
            {"table": table, "schedule": schedule},
            slots(concurrent),
            max_fidelity=schedule.fidelities,
            workers=concurrent,
            concurrent=concurrent,
            bounded=False,
            simulated=table.seconds is not None,
        )

    def setup(  # type: ignore[override]
        self,
        config: dict[str, Any],
        table: ScoreTable,
        schedule: FidelitySchedule | None = None,
        known: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Called once a process; afterwards ``reset_config`` brings the next trial.

        Args:
            config: Of the first trial.
            table: Where the scores stand.
            schedule: How many fidelities there are, and what a cohort does after which of them.
            known: See :meth:`raynas.tune.trial.BatchTrial.enter`.
        """
        self.table = table
        self.worker = f"{ray.util.get_node_ip_address()}:{os.getpid()}"
        self.enter(config, schedule or FidelitySchedule(table.scores.shape[1]), known)

    def advance(self, candidates: Sequence[Candidate], fidelity: int) -> None:
        """Read the next column of the score."""
        begin = time.perf_counter()
        rows = self.table.find([candidate.architecture for candidate in candidates]).tolist()
        seconds = (time.perf_counter() - begin) / len(candidates)
        for candidate, row in zip(candidates, rows, strict=True):
            candidate.worker = self.worker
            if row < 0:
                candidate.refuse(f"{self.table.name} has no such architecture: it counts as infeasible")
                continue
            simulated = self.table.seconds
            candidate.seconds = candidate.seconds + seconds if simulated is None else float(simulated[row, fidelity])
            candidate.score = float(self.table.scores[row, fidelity])
            candidate.metrics = self.table.further(row)
