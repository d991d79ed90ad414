"""The command ``rank``: its figures by hand, its samples, and what it refuses before any cluster time."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers import tiny

from raynas import results
from raynas.analysis.ground_truth import GroundTruth, from_retraining
from raynas.analysis.rank_correlation_report import Sample, rank_agreement, remarks
from raynas.architecture import enumerate_all, key
from raynas.cli.main import main
from raynas.config.run import Config, DataConfig, SearchConfig, TruthConfig
from raynas.config.train import PoolConfig, ShrinkConfig, TrainConfig
from raynas.evaluation.rank_aggregation import Reference
from raynas.exceptions import ConfigError
from raynas.nn.choice import decisions
from raynas.results.log import Log
from raynas.runs import rank as verdict
from raynas.runs.factory import audit_run, prepare
from raynas.runs.rank import rank
from raynas.training import checkpoint

NAMES = [f"a{i}" for i in range(20)]
TRUTH = GroundTruth("by hand", {n: float(i) for i, n in enumerate(NAMES)}, {n: {} for n in NAMES})
SPACE = tiny.space(num_classes=4)
EVERYONE = list(enumerate_all(decisions(SPACE)))


def reported(scores: dict[int, list[float]], **metrics: list[float]) -> dict[str, list[dict[str, Any]]]:
    """Rows of a log: the scores by fidelity, and further metrics at the highest."""
    return {
        name: [
            {"key": name, "fidelity": fidelity, "status": "running", "score": column[i],
             "metrics": {metric: values[i] for metric, values in metrics.items()}}
            for fidelity, column in scores.items()
        ]
        for i, name in enumerate(NAMES)
    }  # fmt: skip


def test_figures_by_fidelity_and_metric() -> None:
    truth = np.arange(20.0)
    half = np.where(truth < 10, 0.0, truth)
    rows = reported({1: list(-truth), 2: list(half), 3: list(truth)}, loss=list(-truth**2), images=list(truth),
                    odd=[7.0] * 20, other=list(np.roll(truth, 1)), macs=list(truth + 0.5))  # fmt: skip
    costs = {"MACs": dict(zip(NAMES, truth + 0.5, strict=True)), "parameters": dict(zip(NAMES, -truth, strict=True))}
    found = rank_agreement(Sample("here", rows), TRUTH, costs, resamples=100)
    assert found["architectures"] == 20 and found["score"]["tau"]["value"] == pytest.approx(1)
    taus = {row["fidelity"]: row["tau"]["value"] for row in found["fidelities"]}
    assert taus[1] == pytest.approx(-1) and taus[3] == pytest.approx(1) and 0 < taus[2] < 1
    # The loss orders as the score does, macs as the cost; images are no quality; a constant says nothing.
    assert [row["name"] for row in found["others"]] == ["other", "all, by rank"]
    assert [row["name"] for row in found["baselines"]] == ["MACs", "parameters", "chance"]
    assert found["baselines"][1]["tau"]["value"] == pytest.approx(-1)
    assert "adds nothing certain to MACs" in found["sentence"] and not found["trustworthy"]
    assert found["favourite"] == {"key": "a19", "place": None} and found["points"][3] == [3.0, 3.0]


def test_low_is_good_where_it_is_said() -> None:
    rows = reported({1: list(-np.arange(20.0))})
    upward = rank_agreement(Sample("here", rows, mode="min"), TRUTH, {}, resamples=100)
    assert upward["score"]["tau"]["value"] == pytest.approx(1) and upward["points"][3] == [3.0, -3.0]
    downward = rank_agreement(Sample("here", rows), dataclasses.replace(TRUTH, mode="min"), {}, resamples=100)
    assert downward["score"]["tau"]["value"] == pytest.approx(1) and downward["favourite"]["key"] == "a0"


def test_places_in_a_table() -> None:
    everyone = np.arange(400.0)
    truth = dataclasses.replace(TRUTH, everyone=everyone)
    assert truth.place("a5") == (395, 400) and truth.place("nobody") is None
    assert dataclasses.replace(truth, mode="min").place("a5") == (6, 400)
    found = rank_agreement(Sample("here", reported({1: list(np.arange(20.0))})), truth, {}, resamples=100)
    text = " ".join(remarks({**found, "searched": None, "winner": {"key": "a1", "place": [2, 400]}}))
    assert "a19, is number 381 of all 400 in the table, not among the best 1 %" in text
    assert "a1, is number 2 of all 400 in the table, among the best 1 %" in text


def test_too_few_with_both_scores_are_refused() -> None:
    rows = dict(list(reported({1: list(np.arange(20.0))}).items())[:9])
    with pytest.raises(ConfigError, match=r"9 architectures have both a full score and a true one \(by hand\)"):
        rank_agreement(Sample("here", rows), TRUTH, {}, resamples=100)


def table(folder: Path, rows: int = 27) -> tuple[Path, dict[str, float]]:
    """A table of true scores in which wide kernels are good, with some noise."""
    rng = np.random.default_rng(0)
    worth = {"k1": 1.0, "k3": 2.0, "skip": 0.0}
    scores = [sum(worth[o] for o in a.values()) + 0.5 * rng.normal() for a in EVERYONE][:rows]
    columns = {name: [a[name] for a in EVERYONE][:rows] for name in EVERYONE[0]}
    pq.write_table(pa.table({**columns, "accuracy": scores, "early": np.round(scores)}), folder / "table.parquet")
    return folder / "table.parquet", {key(a): s for a, s in zip(EVERYONE, scores, strict=False)}


def bare(folder: Path, *more: str) -> list[str]:
    """The arguments of a search of the table, with two fidelities."""
    return [
        "--space", "tiny_decisions:DECISIONS", "--storage-path", str(folder), "--name", "run",
        "search.trainable=trainables.table:Table", f"search.trainable_args.file={folder / 'table.parquet'}",
        "search.trainable_args.metric=accuracy", "search.trainable_args.fidelities=[early]",
        "search.num_samples=12", "search.method=evolution", "after=[]", *more,
    ]  # fmt: skip


@pytest.fixture
def decisions_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tiny_decisions.py").write_text(f"DECISIONS = {decisions(SPACE)!r}\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("ray_session", "decisions_module")
def test_rank_against_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, truth = table(tmp_path)
    assert main(bare(tmp_path)) == 0
    searched = results.read(tmp_path / "run" / "scored.parquet").num_rows
    given = ["rank", "--trust", "--resume", str(tmp_path / "run"), f"truth.table.file={path}",
             "truth.table.metric=accuracy", "truth.sample=20", "truth.resamples=100"]  # fmt: skip
    assert main(given) == 0
    found = json.loads((tmp_path / "run" / "ranking.json").read_text())
    assert found["architectures"] == 20 and found["sample"].startswith("drawn by chance")
    assert found["score"]["tau"]["value"] == pytest.approx(1)
    assert [row["fidelity"] for row in found["fidelities"]] == [1, 2]
    assert 0.5 < found["fidelities"][0]["tau"]["value"] < 1
    everyone = sorted(truth.values(), reverse=True)
    winner = json.loads((tmp_path / "run" / "leaderboard.json").read_text())[0]["key"]
    assert found["winner"] == {"key": winner, "truth": truth[winner], "place": [1 + everyone.index(truth[winner]), 27]}
    said = capsys.readouterr().out
    assert "Kendall tau" in said and "Table for tiny_decisions:DECISIONS can be trusted" in said
    page = (tmp_path / "run" / "report.html").read_text()
    assert found["sentence"] in page and "Score against truth" in page
    # Nothing is scored twice, and the search's own log is left alone.
    sample = results.read(tmp_path / "run" / "sample").num_rows
    assert main(given) == 0
    assert results.read(tmp_path / "run" / "sample").num_rows == sample == 40
    assert results.read(tmp_path / "run" / "scored.parquet").num_rows == searched


def logged(folder: Path, scores: list[float]) -> Path:
    """A run that has scored so many, made by hand."""
    run = folder / "run"
    run.mkdir(exist_ok=True)
    (run / "config.yaml").write_text("space: helpers.tiny:space\ndata: {name: helpers.tiny:arrays}\n")
    with Log(run / "scored.parquet") as log:
        for architecture, score in zip(EVERYONE, scores, strict=False):
            log.append({"architecture": architecture, "status": "complete", "fidelity": 1, "max_fidelity": 1,
                        "score": score, "searcher": "random"})  # fmt: skip
    return run


@pytest.mark.parametrize(
    ("scores", "settings", "message"),
    [
        (0, [], "has no log of scores to judge: run search first"),
        (20, [], "0 of the architectures that .* were retrained, a ranking needs 10"),
        (20, ["truth.minutes=3"], "truth.minutes bounds an audit"),
        (20, ["truth.epochs=1", "truth.table={file: x, metric: y}"], "exclude each other"),
        (20, ["truth.table={file: x}"], "truth.table.metric is missing"),
        (20, ["truth.table={file: nowhere.parquet, metric: y}"], "nowhere.parquet"),
        (9, ["truth.table={file: FOLDER/table.parquet, metric: accuracy}"], "only 9 architectures have a true score"),
        (20, ["truth.table={file: FOLDER/few.parquet, metric: accuracy}"], "only 3 architectures have a true score"),
    ],
)
@pytest.mark.usefixtures("no_ray")
def test_what_cannot_be_judged_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], scores: int, settings: list[str], message: str
) -> None:
    table(tmp_path, rows=3)[0].rename(tmp_path / "few.parquet")
    table(tmp_path)
    run = logged(tmp_path, list(np.arange(float(scores))))
    given = [text.replace("FOLDER", str(tmp_path)) for text in settings]
    assert main(["rank", "--trust", "--resume", str(run), *given]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(message, said), said


@pytest.mark.usefixtures("no_ray")
def test_a_random_log_without_early_stopping_is_the_sample(tmp_path: Path) -> None:
    path, truth = table(tmp_path)
    run = logged(tmp_path, [truth[key(a)] for a in EVERYONE])
    given = [f"truth.table.file={path}", "truth.table.metric=accuracy", "truth.resamples=100"]
    code = main(["rank", "--trust", "--resume", str(run), *given])
    found = json.loads((run / "ranking.json").read_text())
    assert code == 0 and found["architectures"] == 27 and found["sample"].startswith("drawn by chance")


@pytest.mark.usefixtures("no_ray")
def test_what_was_retrained_is_a_truth(tmp_path: Path) -> None:
    run = logged(tmp_path, list(np.arange(20.0)))
    for i, architecture in enumerate(EVERYONE[:12]):
        (run / "retrain" / key(architecture)).mkdir(parents=True)
        (run / "retrain" / key(architecture) / "result.json").write_text(json.dumps({"test_accuracy": 50 - i}))
    assert from_retraining(run, {key(a): a for a in EVERYONE[:10]}).values[key(EVERYONE[3])] == 47
    assert main(["rank", "--trust", "--resume", str(run), "truth.resamples=100"]) == 0
    found = json.loads((run / "ranking.json").read_text())
    assert found["architectures"] == 12 and found["score"]["tau"]["value"] == pytest.approx(-1)
    assert [row["name"] for row in found["baselines"]] == ["MACs", "parameters", "chance"]


@pytest.mark.usefixtures("no_ray")
def test_a_shrunk_run_is_judged_in_what_is_left(tmp_path: Path) -> None:
    folder, open_now = tmp_path / "run", decisions(SPACE)
    left = {**open_now, "blocks.0": ("k1", "skip"), "blocks.2": ("k3", "skip")}
    state = {"decisions": left, "rounds": [], "anchored": False}
    checkpoint.keep_initial(folder / "supernet", {"x": torch.zeros(1)})
    checkpoint.write(folder / "supernet", 8, {"x": torch.zeros(1)}, {"total": 8, "rounds": state})
    columns: dict[str, Any] = {name: [a[name] for a in EVERYONE] for name in open_now}
    pq.write_table(pa.table(columns | {"accuracy": [float(i) for i in range(27)]}), tmp_path / "truth.parquet")
    kept = list(enumerate_all(left))
    with Log(folder / "scored.parquet") as log:
        for architecture in kept:
            log.append({"architecture": architecture, "status": "complete", "fidelity": 1, "searcher": "random",
                        "score": float(EVERYONE.index(architecture))})  # fmt: skip
    config = Config(
        space="helpers.tiny:space", name="run", storage_path=str(tmp_path), data=DataConfig(search_size=4),
        train=TrainConfig(epochs=4, shrink=ShrinkConfig(every=1, until=2)),
        search=SearchConfig(trainable="trainables.angle:Angle", method="random"),
        truth=TruthConfig(table={"file": str(tmp_path / "truth.parquet"), "metric": "accuracy"}, resamples=100),
    )  # fmt: skip
    run = prepare(config, space=tiny.space(num_classes=4), data=tiny.data())
    assert run.search_space.decisions == left and run.decisions == open_now
    found = rank(run)
    assert found["architectures"] == len(kept) == 12 and found["score"]["tau"]["value"] == pytest.approx(1)
    assert found["favourite"]["place"][1] == 27, "among all of the table"
    trained = audit_run(run)
    assert trained.search_space.decisions == left and trained.context.supernet.shrinking is None
    assert trained.search_data.image_shape == run.data.image_shape != run.search_data.image_shape
    drawn = {key(trained.searcher().planned(i)) for i in range(12)}
    assert drawn == {key(architecture) for architecture in kept}


@pytest.mark.usefixtures("ray_session")
def test_scores_are_combined_and_audited(tmp_path: Path) -> None:
    config = Config(
        space="helpers.tiny:space",
        train=TrainConfig(epochs=1, batch_size=32, cpus_per_worker=1),
        search=SearchConfig(
            trainable="trainables.zero_cost:ZeroCost",
            trainable_args={"score": ["synflow", "parameters"], "images": 8},
            combine={"synflow": 1.0, "parameters": -2.0},
            reference=10, num_samples=12, cohort=4, replicas=1, max_concurrent=1,
        ),
        truth=TruthConfig(epochs=1, architectures=10, resamples=100),
        after=[], name="run", storage_path=str(tmp_path),
    )  # fmt: skip
    torch.manual_seed(0)
    run = prepare(config, space=tiny.space(num_classes=4), data=tiny.data())
    run.search()
    rows = results.read(tmp_path / "run" / "scored.parquet").to_pylist()
    sample = results.read(tmp_path / "run" / "sample").to_pylist()
    metrics = [json.loads(row["metrics"]) for row in sample]
    assert len(rows) == 12 and len(sample) == 10
    reference = Reference({name: [m[name] for m in metrics] for name in metrics[0]}, config.search.combine)
    for row in rows:
        assert row["score"] == pytest.approx(reference(json.loads(row["metrics"])))

    found = rank(run)
    assert found["architectures"] == 10 and "after 1 epoch from scratch" in found["truth"]
    trained = results.read(tmp_path / "run/audit/epochs-1/scored.parquet").to_pylist()
    truths = {row["key"]: row["score"] for row in trained}
    parts = {row["key"]: json.loads(row["metrics"]) for row in results.read(tmp_path / "run" / "sample").to_pylist()}
    expected = sorted([truths[n], reference(parts[n])] for n in truths)
    assert np.array(sorted(found["points"])) == pytest.approx(np.array(expected))
    assert math.isfinite(found["score"]["tau"]["value"])


def test_a_log_that_begins_with_chosen_ones_is_no_fair_sample() -> None:
    rows = [{"searcher": "random", "status": "complete"}]
    plain = Config(search=SearchConfig(method="random"))
    warm = dataclasses.replace(plain, search=dataclasses.replace(plain.search, warm_start="other"))
    pool = dataclasses.replace(plain, train=TrainConfig(pool=PoolConfig(size=6)))
    fair = [verdict._is_random(SimpleNamespace(config=config), rows) for config in (plain, warm, pool)]  # type: ignore[arg-type]
    assert fair == [True, False, False]
