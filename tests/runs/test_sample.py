"""Scores made of several metrics, at every fidelity, against a random sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from raynas.evaluation.rank_aggregation import aggregate
from raynas.exceptions import ConfigError
from raynas.runs.phases.sample import references
from raynas.tune.evaluator import EvaluationContext
from raynas.tune.spec import EvaluationSpec
from raynas.tune.trial import BatchTrial, Candidate, FidelitySchedule

Rows = list[dict[str, Any]]


def row(name: str, fidelity: int, status: str = "running", **metrics: float | None) -> dict[str, Any]:
    return {"key": name, "fidelity": fidelity, "status": status, "metrics": metrics}


SAMPLE: dict[str, Rows] = {
    name: [row(name, 1, up=up, loss=1.0), row(name, 2, up=2 * up, loss=loss)]
    for name, up, loss in (("a", 1.0, 0.3), ("b", 2.0, 0.1), ("c", 3.0, 0.2), ("d", 4.0, 0.4))
}


def test_each_fidelity_has_ranks_of_its_own() -> None:
    found = references(SAMPLE, {"up": 1.0, "loss": -1.0})
    first = aggregate({"up": [1, 2, 3, 4], "loss": [1, 1, 1, 1]})
    second = aggregate({"up": [1, 2, 3, 4], "loss": [-0.3, -0.1, -0.2, -0.4]})
    for place, rows in enumerate(SAMPLE.values()):
        assert found[1](rows[0]["metrics"]) == pytest.approx(100 * first[place])
        assert found[2](rows[1]["metrics"]) == pytest.approx(100 * second[place])


def test_what_failed_or_has_no_number_takes_no_part() -> None:
    more = {**SAMPLE, "e": [row("e", 1, "error"), row("e", 2, "error")], "f": [row("f", 1, up=None, loss=1.0)]}
    assert references(more, {"up": 1.0})[1]({"up": 4.0}) == references(SAMPLE, {"up": 1.0})[1]({"up": 4.0})


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"down": 1.0}, "no metric 'down' is reported; legal ones: loss, up"),
        ({"up": 0.0}, "combine nothing"),
    ],
)
def test_what_cannot_be_combined_is_said(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=f"search.combine: .*{message}"):
        references(SAMPLE, weights)


def test_too_few_of_the_sample_have_all_metrics() -> None:
    with pytest.raises(ConfigError, match="of 1 random architectures only 1 have all metrics"):
        references({"a": SAMPLE["a"]}, {"up": 1.0})


class Counting(BatchTrial):
    """Reports ``up``, the number of the option times the fidelity; its own score is another one."""

    def setup(self, config: dict[str, Any]) -> None:
        combined = references(SAMPLE, {"up": 1.0})
        self.enter(config, FidelitySchedule(2, halving=True, combined=combined))

    @classmethod
    def evaluation_spec(cls, context: EvaluationContext) -> EvaluationSpec:
        return EvaluationSpec(cls, max_fidelity=2)

    def advance(self, members: Sequence[Candidate], fidelity: int) -> None:
        for member in members:
            member.score = -1.0
            member.metrics = {"up": float(member.architecture["x"]) * (fidelity + 1)}


def test_a_cohort_is_halved_by_the_combined_score() -> None:
    trial = Counting({"architectures": [{"x": "4"}, {"x": "1"}, {"x": "3"}, {"x": "2"}]})
    trial.train()
    outcomes = {o["architecture"]["x"]: o for o in trial.train()["outcomes"]}
    assert {x: o["status"] for x, o in outcomes.items()} == {"4": "complete", "3": "complete", "1": "stopped",
                                                              "2": "stopped"}  # fmt: skip
    assert {x: o["score"] for x, o in outcomes.items()} == pytest.approx({"1": 12.5, "2": 37.5, "3": 62.5, "4": 87.5})
