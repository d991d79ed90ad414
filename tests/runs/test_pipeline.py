"""Phases are ordered by what they require; what cannot be ordered is refused before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers import bare, tiny
from helpers.plain import Counting

from raynas import Config
from raynas.architecture import Architecture, key
from raynas.config.run import SearchConfig
from raynas.exceptions import ConfigError
from raynas.results.log import Log
from raynas.runs.phases.pipeline import Phase, Pipeline
from raynas.runs.phases.search import CombineMetrics, Rescore
from raynas.runs.phases.supernet import TrainSupernet
from raynas.runs.run import Run
from raynas.searchers import RandomSearch
from raynas.training import checkpoint
from raynas.tune.evaluator import EvaluatorTraits
from raynas.tune.spec import EvaluationSpec
from raynas.tune.trial import BatchTrial


def run_of(folder: Path, trainable: type[Any] = Counting, network: bool = False) -> Run:
    config = Config(search=SearchConfig(trainable="helpers.plain:Counting"), storage_path=str(folder), name="run")
    if network:
        return Run(config, tiny.space(num_classes=4), tiny.data(), RandomSearch, trainable)
    return prepared(config)


def prepared(config: Config) -> Run:
    from raynas import prepare

    return prepare(config, space=bare.DECISIONS)


def phase(name: str, *requires: str, done: bool = False, ran: list[str] | None = None) -> Phase:
    """A phase that notes that it was carried out."""

    class Noted(Phase):
        needs_network = False

        def requires(self, run: Any) -> tuple[str, ...]:
            return requires

        def done(self, run: Any) -> bool:
            return done

        def run(self, run: Any, results: Mapping[str, Any]) -> str:
            assert set(requires) <= {*results, "finished"}
            if ran is not None:
                ran.append(name)
            return name.upper()

    Noted.name = name
    return Noted()


def test_phases_are_carried_out_once_in_the_order_of_what_they_require(tmp_path: Path) -> None:
    ran: list[str] = []
    last = phase("last", "left", "right", ran=ran)
    pipeline = Pipeline(
        [last, phase("right", "first", ran=ran), phase("left", "first", ran=ran), phase("first", ran=ran), phase("no")]
    )
    results = pipeline.run(run_of(tmp_path).context, [last])
    # Of two that do not depend on each other, that which the pipeline names first.
    assert ran == ["first", "right", "left", "last"] and results == {name: name.upper() for name in ran}
    assert not any(tmp_path.iterdir()), "none of them uses the cluster"


def test_a_phase_that_is_done_is_skipped(tmp_path: Path) -> None:
    ran: list[str] = []
    pipeline = Pipeline([phase("finished", done=True, ran=ran), phase("last", "finished", ran=ran)])
    assert pipeline.run(run_of(tmp_path).context, [pipeline.phases["last"]]) == {"last": "LAST"} and ran == ["last"]


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([phase("one", "two")], "phase 'one' requires 'two', which is no phase; known ones: one"),
        ([phase("one", "two"), phase("two", "three"), phase("three", "one")], "in a circle: (one|two|three) -> "),
        ([phase("one"), phase("one")], "two phases have the name 'one'"),
    ],
)
def test_what_cannot_be_ordered_is_refused_in_one_line(tmp_path: Path, phases: list[Phase], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        Pipeline(phases).run(run_of(tmp_path).context, [phases[0]])
    assert "\n" not in str(refused.value)


def test_a_space_without_a_network_lacks_the_phases_that_need_one(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    for forbidden in (run.train_supernet, run.retrain, run.export):
        with pytest.raises(ConfigError, match=r"needs a network, but .* is bare decisions"):
            forbidden()
    with pytest.raises(ConfigError, match="this run has no network"):
        _ = run.space
    planned = [each.name for each in run.pipeline.plan(run.context, [Rescore()])]
    assert planned == ["evaluation", "combination", "search", "rescore"]


class Thin(BatchTrial):
    """Requires all that an evaluator can require."""

    traits = EvaluatorTraits(requires=frozenset({"supernet", "replicas"}))

    @classmethod
    def evaluation_spec(cls, context: Any) -> EvaluationSpec:
        return EvaluationSpec(cls)


@pytest.mark.parametrize(("trainable", "before"), [(Counting, []), (Thin, ["replicas", "supernet"])])
def test_the_traits_of_an_evaluator_name_the_phases_before_a_search(
    tmp_path: Path, trainable: type[Any], before: list[str]
) -> None:
    run = run_of(tmp_path, trainable, network=True)
    planned = [each.name for each in run.pipeline.plan(run.context, [Rescore()])]
    assert planned == ["latency", *before, "evaluation", "combination", "search", "rescore"]


def test_a_trained_supernet_is_not_trained_again(tmp_path: Path) -> None:
    run = run_of(tmp_path, Thin, network=True)
    assert not TrainSupernet().done(run.context)
    for step in (3, 4):
        checkpoint.write(run.folder / "supernet", step, {}, {"total": 4})
        assert TrainSupernet().done(run.context) == (step == 4)


def test_the_architectures_of_a_search_of_your_own_come_first_in_the_leaderboard(tmp_path: Path) -> None:
    """As those of a gradient-based search would; nothing is searched by Tune."""
    worse, better = ({name: options[place] for name, options in bare.DECISIONS.items()} for place in (0, 1))

    class Own(Phase):
        name = "search"
        needs_network = False

        def run(self, run: Any, results: Mapping[str, Any]) -> list[Architecture]:
            with Log(run.folder / "scored.parquet") as log:
                for score, architecture in enumerate((worse, better)):
                    log.append({"architecture": architecture, "status": "complete", "fidelity": 1, "score": score})
            return [worse]

    class Exact(CombineMetrics):
        def requires(self, run: Any) -> tuple[str, ...]:
            return ()

        def run(self, run: Any, results: Mapping[str, Any]) -> EvaluationSpec:
            return EvaluationSpec(Counting, rescore=lambda architectures: [1.0] * len(architectures))

    class Local(Rescore):
        uses_cluster = False

    run = run_of(tmp_path)
    run.pipeline = Pipeline([Exact(), Own(), Local()])
    found = run.carry_out(Local())["rescore"]
    assert [row["key"] for row in found] == [key(worse), key(better)] and run.best() == worse


def test_nothing_is_read_before_a_run_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A constructor looks at no file: what the folder of the run holds is read by ``load``."""
    run = run_of(tmp_path, Thin, network=True)
    folder = tmp_path / "run"
    looked: list[str] = []
    for name in ("open", "exists", "is_file", "is_dir", "iterdir", "glob", "rglob", "stat"):
        real = getattr(Path, name)

        def watched(self: Path, *arguments: Any, real: Any = real, **keywords: Any) -> Any:
            if self == folder or folder in self.parents:
                looked.append(str(self))
            return real(self, *arguments, **keywords)

        monkeypatch.setattr(Path, name, watched)
    fresh = Run(run.config, run.space, run.data, RandomSearch, Thin)
    assert not looked and not folder.exists()
    monkeypatch.setattr("raynas.runs.context.Budget", lambda config, where: where.exists())
    fresh.load()
    assert looked and not folder.exists()
