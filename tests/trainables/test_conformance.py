"""Every evaluator of ours, one that a user wrote, and a plain trainable, against the published contract."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers import tiny

from raynas import prepare
from raynas.architecture import enumerate_all
from raynas.config.run import Config, SearchConfig
from raynas.config.train import TrainConfig
from raynas.runs.run import Run
from raynas.testing.evaluator import EvaluatorContract
from raynas.tune.evaluator import EvaluationContext
from raynas.tune.spec import EvaluationSpec
from raynas.tune.trial import BatchTrial, Candidate, FidelitySchedule

pytestmark = pytest.mark.ray

DECISIONS = {"a": ("x", "y", "z"), "b": ("p", "q", "r")}
TRAIN = TrainConfig(epochs=1, batch_size=32, workers=1, cpus_per_worker=1, precision="float32")


def network_run(folder: Path, search: SearchConfig, train: TrainConfig = TRAIN) -> Run:
    config = Config(search=search, train=train, storage_path=str(folder), name="run")
    torch.manual_seed(0)
    return prepare(config, space=tiny.space(num_classes=4), data=tiny.data(train=64, validation=32, test=16))


class TestSharedWeights(EvaluatorContract):
    def make_run(self, folder: Path) -> Run:
        return network_run(folder, SearchConfig(slices=4, replicas=1, batch_size=8, bn_images=16))


class TestFromScratch(EvaluatorContract):
    samples = 2
    bad_settings = (*EvaluatorContract.bad_settings, {"grace": 3}, {"cohort": 2})

    def make_run(self, folder: Path) -> Run:
        return network_run(folder, SearchConfig(trainable="trainables.from_scratch:FromScratch", epochs=2))


class TestZeroCost(EvaluatorContract):
    bad_settings = (*EvaluatorContract.bad_settings, {"trainable_args": {"images": 1}})

    def make_run(self, folder: Path) -> Run:
        arguments = {"score": ["naswot", "macs"], "images": 8}
        return network_run(folder, SearchConfig(trainable="trainables.zero_cost:ZeroCost", trainable_args=arguments))


class TestAngle(EvaluatorContract):
    def make_run(self, folder: Path) -> Run:
        return network_run(folder, SearchConfig(trainable="trainables.angle:Angle"))


class TestTable(EvaluatorContract):
    def make_run(self, folder: Path) -> Run:
        rows = list(enumerate_all(DECISIONS))
        columns: dict[str, Any] = {name: [row[name] for row in rows] for name in DECISIONS}
        columns |= {f"after_{n}": [float(n * place % 7) for place in range(len(rows))] for n in (1, 2, 4)}
        pq.write_table(pa.table(columns), folder / "scores.parquet")
        arguments = {"file": str(folder / "scores.parquet"), "metric": "after_4", "fidelities": ["after_1", "after_2"]}
        search = SearchConfig(trainable="trainables.table:Table", trainable_args=arguments)
        return prepare(Config(space=f"{__name__}:DECISIONS", search=search, storage_path=str(folder), name="run"))


class TestPlainTrainable(EvaluatorContract):
    bad_settings = (*EvaluatorContract.bad_settings, {"cohort": 2})

    def make_run(self, folder: Path) -> Run:
        search = SearchConfig(
            trainable="helpers.plain:Summing", trainable_args={"base": 0.5}, slices=3, max_concurrent=1, mode="min"
        )
        return prepare(Config(space="helpers.bare:DECISIONS", search=search, storage_path=str(folder), name="run"))


class Mine(BatchTrial):
    """An evaluator as a user would write it."""

    factor = 1.0

    @classmethod
    def evaluation_spec(cls, context: EvaluationContext) -> EvaluationSpec:
        return EvaluationSpec(cls, {"schedule": FidelitySchedule(2)}, max_fidelity=2)

    def setup(  # type: ignore[override]
        self, config: dict[str, Any], schedule: FidelitySchedule, known: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        self.calls = 0
        self.enter(config, schedule, known)

    def advance(self, candidates: Sequence[Candidate], fidelity: int) -> None:
        for candidate in candidates:
            candidate.score = float(sum(map(len, candidate.architecture.values())) + fidelity)


class Counts(Mine):
    """Its score depends on how often it was called before."""

    def advance(self, candidates: Sequence[Candidate], fidelity: int) -> None:
        for candidate in candidates:
            self.calls += 1
            candidate.score = float(self.calls)


class Litters(Mine):
    """Leaves a file where it stands."""

    def advance(self, candidates: Sequence[Candidate], fidelity: int) -> None:
        Path("weights.bin").write_bytes(b"0")


class Forgets(Mine):
    """Starts again where it was interrupted."""

    def enter(self, config: Any, schedule: FidelitySchedule, known: Any = None) -> None:
        super().enter(config, schedule, None)


def mine(folder: Path, name: str) -> Run:
    search = SearchConfig(trainable=f"{__name__}:{name}")
    return network_run(folder, search)


class TestMine(EvaluatorContract):
    bad_settings = ()

    def make_run(self, folder: Path) -> Run:
        return mine(folder, "Mine")


class Bad(EvaluatorContract):
    """Whose evaluators fail: pytest does not collect it."""

    name = ""

    def make_run(self, folder: Path) -> Run:
        return mine(folder, self.name)


@pytest.mark.parametrize(
    ("name", "test"),
    [
        ("Counts", "test_a_trial_can_be_used_again"),
        ("Counts", "test_a_batch_scores_as_single_trials_do"),
        ("Litters", "test_nothing_is_written_outside_the_storage"),
        ("Forgets", "test_an_interrupted_trial_continues"),
        ("Mine", "test_bad_settings_are_refused_in_one_line"),
    ],
)
@pytest.mark.usefixtures("ray_session")
def test_an_evaluator_that_breaks_the_contract_fails(
    name: str, test: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    class Named(Bad):
        pass

    Named.name = name
    contract = Named()
    with contract.opened(tmp_path_factory.mktemp("run")) as prepared, contract.isolated(prepared, tmp_path) as trials:
        given = {"prepared": prepared, "trials": trials, "tmp_path": tmp_path}
        method = getattr(contract, test)
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            method(**{name: given[name] for name in inspect.signature(method).parameters})
