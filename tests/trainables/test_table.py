"""Searches of tables: real Tune trials, small."""

from __future__ import annotations

import dataclasses
import errno
import json
import re
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import tiny
from helpers.bare import DECISIONS
from ray import tune
from raynas.trainables.table import Table

from raynas import architecture as arch
from raynas import prepare, results
from raynas.cli.arguments import COMMANDS
from raynas.cli.main import main
from raynas.config.run import Config
from raynas.exceptions import ConfigError
from raynas.nn.choice import decisions
from raynas.results.log import SIMULATED
from raynas.runs.run import Run
from raynas.search_space.space import SearchSpace
from raynas.searchers import RandomSearch
from raynas.spaces import nasbench201

pytestmark = pytest.mark.usefixtures("ray_session")

CELLS = "spaces.nasbench201:DECISIONS"


def everything() -> list[arch.Architecture]:
    return list(arch.enumerate_all(DECISIONS))


def number(architecture: dict[str, str]) -> int:
    """From 0 for the worst architecture to 26 for the best."""
    places = [DECISIONS[name].index(architecture[name]) for name in DECISIONS]
    return places[0] + 3 * places[1] + 9 * places[2]


def table(folder: Path, rows: list[arch.Architecture] | None = None) -> Path:
    """Three fidelities that agree on the order, and a cost that grows with it."""
    rows = everything() if rows is None else rows
    numbers = [number(row) for row in rows]
    values: dict[str, Any] = {name: [row[name] for row in rows] for name in DECISIONS}
    values |= {f"after_{n}": [n * place / 4 for place in numbers] for n in (1, 2, 4)}
    values |= {f"seconds_{n}": [100.0 * n + place for place in numbers] for n in (1, 2, 4)}
    values["size"] = [0.5 * place for place in numbers]
    pq.write_table(pa.table(values), folder / "scores.parquet")
    return folder / "scores.parquet"


ALL = {"fidelities": ["after_1", "after_2"], "cost": ["seconds_1", "seconds_2", "seconds_4"]}


def settings(
    folder: Path, trainable_args: dict[str, Any], limits: dict[str, Any] | None = None, **search: Any
) -> Config:
    arguments = {"method": "random", "trainable": "trainables.table:Table", "trainable_args": trainable_args, **search}
    return Config(search=arguments, storage_path=str(folder), name="run", limits=limits or {})  # type: ignore[arg-type]


def make(
    folder: Path, limits: dict[str, Any] | None = None, rows: Any = None, layout: Any = None, **search: Any
) -> Any:
    arguments = {"file": str(table(folder, rows)), "metric": "after_4", **(layout or {})}
    return prepare(settings(folder, arguments, limits, **search), space=DECISIONS)


def log(run: Run) -> list[dict[str, Any]]:
    return [
        row | {"architecture": json.loads(row["architecture"])}
        for row in results.read(run.folder / "scored.parquet").to_pylist()
    ]


def test_cohorts_on_nasbench201_under_a_limit(tmp_path: Path, shared_data: Path) -> None:
    file = shared_data / "nasbench201_cifar10.parquet"
    arguments = {"file": str(file), "metric": "cifar10_val_200", "columns": ["cifar10_test_200"]}
    config = settings(tmp_path, arguments, {"flops_m": 100}, num_samples=150, cohort=64)
    run = prepare(config, space=nasbench201.DECISIONS)
    best = run.search()
    rows = log(run)
    truth = {row["arch"]: row for row in pq.read_table(file).to_pylist()}
    assert len({row["key"] for row in rows}) == len(rows) == 150 and len({row["trial"] for row in rows}) == 3
    for row in rows:
        told = truth[nasbench201.to_string(row["architecture"])]
        metrics = json.loads(row["metrics"])
        assert row["score"] == told["cifar10_val_200"] and row["status"] == "complete"
        assert metrics == {"cifar10_test_200": told["cifar10_test_200"], "flops_m": told["flops_m"]}
        assert metrics["flops_m"] <= 100
    assert best[0]["score"] == best[0]["final_score"] == max(row["score"] for row in rows)
    assert best[0]["flops_m"] <= 100 and run.best() == best[0]["architecture"]
    # Isomorphic cells are different entries of this table: nothing is merged.
    assert run.search_space.form({**best[0]["architecture"]}) == best[0]["architecture"]


def test_macro_with_the_costs_of_the_log(tmp_path: Path, shared_data: Path) -> None:
    arguments = [
        "--space", "spaces.nasbench_macro:DECISIONS", "--storage-path", str(tmp_path), "--name", "run",
        "search.trainable=trainables.table:Table",
        f"search.trainable_args.file={shared_data / 'nasbench_macro.parquet'}",
        "search.trainable_args.metric=acc_mean", "search.trainable_args.encoded=arch",
        "search.trainable_args.decoder=spaces.nasbench_macro:from_string", "search.method=random",
        "search.trainable_args.columns={macs: flops, parameters: params}", "limits.macs=6e7", "search.num_samples=40",
        "search.cohort=20",
    ]  # fmt: skip
    assert main(arguments) == 0
    rows = results.read(tmp_path / "run" / "scored.parquet").to_pylist()
    assert len(rows) == 40 and all(0 < row["macs"] <= 6e7 and row["parameters"] > 0 for row in rows)
    assert (tmp_path / "run" / "report.html").exists()


def test_asha_stops_on_the_fidelities_of_a_table_and_its_seconds_count(tmp_path: Path) -> None:
    run = make(tmp_path, layout=ALL, num_samples=27)
    best = run.search()
    assert best[0]["score"] == 26.0 and number(best[0]["architecture"]) == 26
    rows = log(run)
    last = {row["key"]: row for row in rows}
    assert Counter(row["status"] for row in last.values()).keys() == {"stopped", "complete"} and len(last) == 27
    for row in rows:
        step = 2 ** (row["fidelity"] - 1)
        assert row["score"] == number(row["architecture"]) * step / 4 and row["max_fidelity"] == 3
        assert row["seconds"] == 100.0 * step + number(row["architecture"]) and row["worker"] == SIMULATED
    page = run.report().read_text(encoding="utf-8")
    assert "The times of the search are simulated" in page and "scored by trainables.table:Table" in page


def test_a_cohort_is_halved_on_the_fidelities(tmp_path: Path) -> None:
    run = make(tmp_path, layout={"fidelities": ["after_1", "after_2"]}, num_samples=27, cohort=27)
    assert run.search()[0]["score"] == 26.0
    last = {row["key"]: row for row in log(run)}
    assert Counter((row["status"], row["fidelity"]) for row in last.values()) == {
        ("stopped", 1): 13, ("stopped", 2): 7, ("complete", 3): 7}  # fmt: skip
    assert all(row["seconds"] < 1 and row["worker"] != SIMULATED for row in last.values())


def test_low_scores_are_good_where_the_table_says_so(tmp_path: Path) -> None:
    run = make(tmp_path, layout={"fidelities": ["after_1", "after_2"], "mode": "min"}, num_samples=27, cohort=27)
    best = run.search()
    assert [row["score"] for row in best] == [0.0, 1.0, 2.0, 3.0, 4.0]
    last = {row["key"]: row for row in log(run)}
    assert all(row["status"] == "complete" for row in last.values() if row["score"] < 7 and row["fidelity"] == 3)


def test_simulated_time_is_the_budget(tmp_path: Path) -> None:
    config = make(tmp_path, layout={"cost": "seconds_4"}, num_samples=27).config
    run = prepare(dataclasses.replace(config, time_budget=2000))
    run.search()
    spent = sum(row["seconds"] for row in log(run))
    assert 2000 <= spent < 2000 + 2 * 426, spent
    cohorts = dataclasses.replace(run.config, search=dataclasses.replace(run.config.search, cohort=3))
    with pytest.raises(ConfigError, match=r"search\.cohort = 3: simulated time ends between trials"):
        Table.costs(run.search_space.decisions, cohorts)


def test_a_disk_that_is_full_when_the_search_ends_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, refused = results.Log.flush, list[str]()

    def full(log: results.Log) -> None:
        if log._waiting and len(refused) < 2:
            if threading.current_thread() is threading.main_thread():
                refused.append("main")
            raise OSError(errno.ENOSPC, "no space left")
        flush(log)

    monkeypatch.setattr(results.Log, "flush", full)
    run = make(tmp_path, num_samples=5)
    run.search()
    assert len(refused) == 2 and len(log(run)) == 5


def test_what_is_missing_counts_as_infeasible_and_the_search_goes_on(tmp_path: Path, capsys: Any) -> None:
    # The first twenty proposals of this seed are missing: a search gives up after ten failures in a row.
    order = make(tmp_path, num_samples=1).searcher()
    proposed = [order.suggest(str(n))["architecture"] for n in range(27)]
    there = proposed[20:]
    run = make(tmp_path, rows=there, num_samples=25)
    best = run.search()
    said = capsys.readouterr().out
    assert "scores.parquet has 7 architectures; 20 others of the space are missing and count as infeasible" in said
    assert "20 failed: see the column 'error' of the log" in said
    rows = log(run)
    assert [row["architecture"] for row in rows] == proposed[:25]
    assert [row["status"] for row in rows] == ["error"] * 20 + ["complete"] * 5
    assert all(row["error"] == "scores.parquet has no such architecture: it counts as infeasible" for row in rows[:20])
    assert all(row["score"] is None for row in rows[:20])
    assert best[0]["score"] == max(number(row["architecture"]) for row in rows[20:])
    # What is missing stays missing: a longer search does not ask again.
    longer = make(tmp_path, rows=there, num_samples=27)
    longer.search()
    assert [row["architecture"] for row in log(longer)] == proposed


@pytest.mark.parametrize("cohort", [1, 9])
def test_limits_hold_where_architectures_are_missing(tmp_path: Path, cohort: int) -> None:
    rows = everything()[::2]
    run = make(tmp_path, {"size": [2, 9]}, rows, num_samples=27, cohort=cohort)
    run.search()
    found = {number(row["architecture"]) for row in log(run)}
    assert found == {number(row) for row in rows if 4 <= number(row) <= 18}


def test_cohorts_with_missing_architectures(tmp_path: Path) -> None:
    run = make(tmp_path, rows=everything()[::3], layout=ALL, num_samples=27, cohort=9)
    best = run.search()
    last = {row["key"]: row for row in log(run)}
    assert Counter(row["status"] == "error" for row in last.values()) == {True: 18, False: 9}
    assert number(best[0]["architecture"]) == max(map(number, everything()[::3]))


def test_a_search_goes_on_at_the_fidelity_that_it_had_reached(tmp_path: Path) -> None:
    run = make(tmp_path, layout=ALL, num_samples=4, scheduler="none")
    run.search()
    rows = log(run)
    folder = run.folder / "scored.parquet"
    for part in folder.iterdir():
        part.unlink()
    with results.Log(folder) as cut:  # as a kill would leave it
        for row in rows[:-1]:
            cut.append({k: v for k, v in row.items() if v is not None and k != "key"})
    again = make(tmp_path, layout=ALL, num_samples=4, scheduler="none")
    again.search()
    kept = [(row["key"], row["fidelity"], row["score"], row["seconds"], row["status"]) for row in log(again)]
    assert kept == [(row["key"], row["fidelity"], row["score"], row["seconds"], row["status"]) for row in rows]


def test_the_same_seed_gives_the_same_search(tmp_path: Path) -> None:
    runs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        run = make(
            tmp_path / name, layout=ALL, num_samples=12, method="evolution", method_args={"population": 4, "parents": 2}
        )
        run.search()
        runs.append([(row["key"], row["fidelity"], row["score"]) for row in log(run)])
    assert runs[0] == runs[1]


class Plain(tune.Trainable):
    """A trainable of a user that knows nothing of RayNAS."""

    def setup(self, config: dict[str, Any], bonus: float = 0.0) -> None:
        self.bonus = bonus
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.architecture = new_config["architecture"]
        return True

    def step(self) -> dict[str, Any]:
        return {"score": number(self.architecture) + self.bonus}


def test_decisions_alone_with_a_plain_trainable(tmp_path: Path) -> None:
    def run(arguments: dict[str, Any], limits: dict[str, Any] | None = None) -> Run:
        config = settings(tmp_path, arguments, limits, num_samples=5, slices=1, max_concurrent=1)
        return Run(config, SearchSpace(DECISIONS), None, RandomSearch, Plain)

    best = run({"bonus": 0.5}).search()
    assert len(best) == 5 and all(row["score"] == number(row["architecture"]) + 0.5 for row in best)
    with pytest.raises(ConfigError, match=r"trainables.table:Table has no 'bonos'; legal ones: bonus"):
        run({"bonos": 0.5})


def test_a_network_is_searched_by_a_table(tmp_path: Path) -> None:
    space = tiny.space(num_classes=4)
    rows = list(arch.enumerate_all(decisions(space)))
    values = {name: [row[name] for row in rows] for name in rows[0]}
    pq.write_table(pa.table({**values, "score": list(range(27))}), tmp_path / "scores.parquet")
    arguments = {"file": str(tmp_path / "scores.parquet"), "metric": "score"}
    config = settings(tmp_path, arguments, {"parameters": 700}, num_samples=27, cohort=9)
    run = Run(config, space, tiny.data(), RandomSearch, Table)
    best = run.search()
    assert best[0]["score"] == max(n for n, row in enumerate(rows) if run.costs(row)["parameters"] <= 700)
    assert best[0]["macs"] == run.costs(best[0]["architecture"])["macs"] and not (run.folder / "supernet").exists()


def test_functions_of_bare_decisions_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"arch": ["|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"], "m": [1.0]}), tmp_path / "t")
    encoded = {
        "file": str(tmp_path / "t"),
        "metric": "m",
        "encoded": "arch",
        "decoder": "spaces.nasbench201:from_string",
    }
    functions = {"alike": "spaces.nasbench201:canonical_form", "graph": "spaces.nasbench201:graph"}
    run = prepare(dataclasses.replace(settings(tmp_path, encoded), space=CELLS, space_args=functions))
    assert run.search_space.alike is nasbench201.canonical_form and run.search_space.graph is nasbench201.graph
    assert run.search_space.canonical is None
    with pytest.raises(ConfigError, match="has no argument 'grahp'; legal ones: canonical, alike, graph"):
        prepare(dataclasses.replace(settings(tmp_path, encoded), space=CELLS, space_args={"grahp": "x:y"}))


# The command line.


def command(folder: Path, *arguments: str) -> list[str]:
    file = f"search.trainable_args.file={folder / 'scores.parquet'}"
    base = [
        "--space",
        "helpers.bare:DECISIONS",
        "--storage-path",
        str(folder / "runs"),
        "search.trainable=trainables.table:Table",
    ]
    return [*base, file, "search.trainable_args.metric=after_4", "search.method=random", *arguments]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search.trainable_args.file=/nowhere/at/all"], "there is no table /nowhere/at/all"),
        (["search.trainable_args.metric=acc"], "has no column 'acc'; it has: a, b, c, after_1"),
        (
            ["search.trainable_args.metrc=acc"],
            "unknown setting 'search.trainable_args.metrc'; legal ones: file, metric",
        ),
        (["limits.macs=3"], "unknown limit 'macs'; legal ones: after_1,"),
        (["limits.size=-3"], "limit 'size' is -3: expected"),
        (
            ["limits.size=[5.1, 5.2]"],
            "no architecture of scores.parquet has size >= 5.1 and size <= 5.2: size are 0 at least",
        ),
        (
            ["search.grace=2"],
            "search.grace = 2, but there is one fidelity; legal: 1",
        ),
        (["--space", "helpers.bare:NOT_TEXT"], "decision 'a' must be text, its options a list of texts"),
        (["--space", "spaces.nasbench201:DECISIONS"], "no column for the decision 'edge_0'; it has: a, b, c"),
        (
            ["search.trainable=trainables.shared_weights:SharedWeights"],
            "needs a network, but helpers.bare:DECISIONS is bare",
        ),
        (
            ["retrain", "--architecture", "{}"],
            "retrain needs a network, but helpers.bare:DECISIONS is bare decisions; legal: search, rank, report",
        ),
        (["train-supernet"], "train-supernet needs a network"),
        (["search.filter.score=naswot"], "search.filter needs a network, but helpers.bare:DECISIONS is bare decisions"),
        (["space_args.width=3"], "helpers.bare:DECISIONS has no argument 'width'; legal ones: canonical, alike, graph"),
    ],
)
def test_bad_input_is_one_clear_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: Any, no_ray: None
) -> None:
    table(tmp_path)
    words = [word for word in arguments[:1] if word in COMMANDS]
    assert main([*words, *command(tmp_path, *arguments[len(words) :])]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ") and "\n" not in said and re.search(message, said), said
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("trainable", ["shared_weights:SharedWeights", "from_scratch:FromScratch"])
def test_trainables_without_arguments_say_so(tmp_path: Path, trainable: str, capsys: Any, no_ray: None) -> None:
    arguments = [
        "--space",
        "helpers.tiny:space",
        "--data",
        "helpers.tiny:arrays",
        f"search.trainable=trainables.{trainable}",
    ]
    assert main([*arguments, "search.trainable_args.file=x", "--storage-path", str(tmp_path)]) == 2
    assert f"{trainable} has no 'file'; legal ones: none" in capsys.readouterr().err


def test_a_dry_run_tells_the_table(tmp_path: Path, capsys: Any, no_ray: None) -> None:
    table(tmp_path, everything()[:20])
    assert main(command(tmp_path, "--dry-run", "limits.size=5")) == 0
    said = capsys.readouterr().out
    assert "27 architectures, 3 decisions" in said and "limits: size <= 5; they can be met" in said
    assert "scores.parquet has 20 architectures; 7 others of the space are missing" in said
    assert not (tmp_path / "runs").exists()


def test_steps_that_need_a_network_are_left_out(tmp_path: Path, capsys: Any) -> None:
    table(tmp_path)
    assert main(command(tmp_path, "--name", "run", "search.num_samples=6", "search.cohort=3", "limits.size=9")) == 0
    said = capsys.readouterr().out
    assert "no retrain and no export: the space has no network" in said and "report: " in said
    page = (tmp_path / "runs" / "run" / "report.html").read_text(encoding="utf-8")
    assert "Score against size" in page and "helpers.bare:DECISIONS scored by trainables.table:Table" in page
    assert (
        main(["--storage-path", str(tmp_path / "runs"), "--trust", "--resume", "search.trainable_args.metric=after_1"])
        == 2
    )
    assert "search.trainable_args differ from the settings" in capsys.readouterr().err
    assert main(["--storage-path", str(tmp_path / "runs"), "--trust", "--resume", "search.num_samples=8"]) == 0
    assert len(results.read(tmp_path / "runs" / "run" / "scored.parquet")) == 8
