"""The phases before a search: place the replicas, train the supernet, calibrate the latency model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from raynas import architecture as arch
from raynas import results as log
from raynas.distributed.placement import place_ranks
from raynas.runs.context import RunContext
from raynas.runs.phases.pipeline import Phase
from raynas.runs.supernet_handle import RunSupernet
from raynas.search_space import joint
from raynas.utils.formatting import counted

__all__ = ["CalibrateLatency", "PlaceReplicas", "TrainSupernet"]


class CalibrateLatency(Phase):
    """Measure the latency of some architectures, and of those that were scored before."""

    name = "latency"

    def done(self, run: RunContext) -> bool:
        """Without ``latency.place`` there is nothing to measure."""
        return run.problem.latency is None

    def run(self, run: RunContext, results: Mapping[str, Any]) -> None:
        """Fit the model, and measure what the log holds."""
        latency = run.problem.latency
        assert latency is not None
        run.problem.calibrate_latency(run.folder, run.view.say)
        if (run.folder / "scored.parquet").exists():
            rows = log.read(run.folder / "scored.parquet").to_pylist()
            latency.measure_all([joint.network(json.loads(row["architecture"])) for row in rows], run.view.say)


class PlaceReplicas(Phase):
    """Check that the cluster can hold the actors that score: before the training, not after it."""

    name = "replicas"

    def run(self, run: RunContext, results: Mapping[str, Any]) -> None:
        """Find the place of each."""
        assert run.supernet is not None
        run.supernet.actors.place_replicas()


class TrainSupernet(Phase):
    """Train the shared weights, from the newest checkpoint if there is one."""

    name = "supernet"
    uses_cluster = True

    def done(self, run: RunContext) -> bool:
        """Where the training is finished, and left neither a pool nor a smaller space for the search to take up."""
        supernet = run.supernet
        return supernet is not None and supernet.finished and supernet.pool is None and supernet.shrinking is None

    def run(self, run: RunContext, results: Mapping[str, Any]) -> None:
        """Train, and hand what the rounds have made of the space to the search."""
        supernet, networks = run.supernet, run.networks
        assert supernet is not None and networks is not None
        with (
            run.view.training("supernet", networks.task.metric.examples) as show,
            run.metrics.training("supernet", run.storage.guarded(show)) as report,
        ):
            if run.budget.given and not supernet.finished:
                where = place_ranks(run.config.train.resolved())
                run.budget.hold(where.count * where.gpus)
            left = run.budget.left
            supernet.actors.train(supernet.paths(), report, None if left is None else left / 2)
        if supernet.shrinking is not None:
            _take_up_shrunk_space(run, supernet)
        if supernet.pool is not None:
            _take_up_pool(run, supernet)


def _take_up_shrunk_space(run: RunContext, supernet: RunSupernet) -> None:
    shrinking = supernet.shrinking
    assert shrinking is not None
    run.problem.narrow(shrinking.decisions)
    left, all_of_it = map(arch.size, (shrinking.decisions, supernet.angle_statistics().decisions))
    run.view.say(
        f"the space was shrunk from {counted(all_of_it, 'architecture')} to {counted(left, 'architecture')}: "
        f"{counted(shrinking.dropped, 'option')} dropped in {counted(len(shrinking.rounds), 'round')}"
    )


def _take_up_pool(run: RunContext, supernet: RunSupernet) -> None:
    """The search begins with those of the pool that meet its limits."""
    pool = supernet.pool
    assert pool is not None
    kept = [member for member in pool.members if run.problem.violation(member) == 0]
    run.problem.first = kept
    room = run.config.search.num_samples
    short = f", of which search.num_samples = {room} leaves some out" if room < len(kept) else ""
    run.view.say(f"the search begins with {len(kept)} of the pool's {len(pool.members)} architectures{short}")
