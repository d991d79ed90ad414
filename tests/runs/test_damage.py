"""Damaged or absurd files of a run: one line that names the file, or what is left is used and that is said."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import logging
import math
import random
import resource
import shutil
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers import tiny
from helpers.handmade import START
from rich.console import Console
from safetensors.torch import save_file

from raynas import architecture, results
from raynas.analysis.ground_truth import from_retraining
from raynas.analysis.run_data import read_run_data
from raynas.architecture import key
from raynas.config.fingerprint import training_settings
from raynas.config.run import Config, LatencyConfig, SearchConfig, TruthConfig
from raynas.config.train import TrainConfig
from raynas.costs.counter import Costs
from raynas.costs.device import Timing
from raynas.costs.latency import Latency
from raynas.data.fingerprint import contents
from raynas.exceptions import CheckpointError, ConfigError
from raynas.report.page import write_report
from raynas.results.files import Leaderboard, read_json, read_lines, sealed
from raynas.results.log import Log
from raynas.runs.budget import Budget
from raynas.runs.display import View
from raynas.runs.factory import prepare
from raynas.runs.phases import sample
from raynas.runs.phases.leaderboard import write_leaderboard
from raynas.runs.phases.retraining import check_trained
from raynas.runs.rank import rank
from raynas.runs.run import Run
from raynas.runs.warm_start import Source
from raynas.search_space.constraints import Limits
from raynas.search_space.space import SearchSpace
from raynas.searchers.nao.searcher import NAO
from raynas.training import checkpoint
from raynas.tune.experiment import LoggedHistory
from raynas.tune.schedulers import asha
from raynas.tune.spec import EvaluationSpec

EVERYONE = list(architecture.enumerate_all({f"blocks.{place}": ("k1", "k3", "skip") for place in range(3)}))[:14]
DATA = tiny.data()
CONFIG = Config(
    search=SearchConfig(method="random", slices=2, top=3),
    train=TrainConfig(epochs=2),
    truth=TruthConfig(resamples=100),
    name="run",
)
SCORING = EvaluationSpec(trainable=object, max_fidelity=2)  # type: ignore[arg-type]


class Fake:
    """Measures by a formula."""

    settings = LatencyConfig(place="local", samples=16, rounds=1)

    def name(self) -> str:
        return "fake"

    def measure(self, form: dict[str, str]) -> Timing:
        return Timing(1.0 + len("".join(form.values())), 0.1)


def opened(folder: Path, **search: Any) -> Run:
    config = dataclasses.replace(CONFIG, storage_path=str(folder.parent), name=folder.name)
    config = dataclasses.replace(config, search=dataclasses.replace(config.search, **search))
    run: Run = prepare(config, space=tiny.Tiny(num_classes=4), data=DATA, view=View(Console(quiet=True)))
    return run


def timed(folder: Path) -> Latency:
    return Latency(Costs(tiny.space(), (torch.zeros(1, 1, 8, 8),)), Fake(), folder / "latency.jsonl", Limits())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run; nobody writes into it."""
    folder: Path = tmp_path_factory.mktemp("damage") / "run"
    run = opened(folder)
    run.open()
    space = SearchSpace(run.decisions)
    for log in ("scored.parquet", "sample"):
        with Log(folder / log, math.inf, run.context.settings()) as rows:
            for number, form in enumerate(EVERYONE):
                for fidelity in (1, 2):
                    score = 50.0 + number + fidelity / 4
                    rows.append({
                        "run": "run", "trial": f"t{number}", "architecture": form, "searcher": "random",
                        "status": "running" if fidelity == 1 else "complete", "fidelity": fidelity, "max_fidelity": 2,
                        "score": score, "metrics": {"accuracy": score, "loss": 1.0 / score}, "macs": 1000 + number,
                        "parameters": 100, "seconds": 1.0 * fidelity, "worker": "w",
                        "time": START + timedelta(seconds=3 * number + fidelity),
                    })  # fmt: skip
    settings = training_settings(run.config) | {"limits": {}, "data.contents": contents(run.search_data)}
    state = {f"model/{name}": tensor for name, tensor in run.space.state_dict().items()}
    for step in (3, 4):
        checkpoint.write(folder / "supernet", step, state, {"total": 4, "seconds": 2.0, "settings": settings})
    curve = [{"step": s, "total": 4, "loss": 2.0, "images_per_second": 9.0, "time": 1e9 + s} for s in (1, 2, 3, 4)]
    (folder / "supernet" / "training.jsonl").write_text("".join(json.dumps(line) + "\n" for line in curve))
    for number, form in enumerate(EVERYONE[:12]):
        own = folder / "retrain" / key(form)
        own.mkdir(parents=True)
        told = {"test_accuracy": 60.0 + number, "validation_accuracy": 61.0, "epochs": 2.0, "seconds": 3.0}
        (own / "result.json").write_text(json.dumps(told))
    write_leaderboard(run.context, SCORING)
    rank(run, lambda: None, lambda: run)
    wires = {key(form): [[0, 1, "k1"], [1, 2, None]] for form in EVERYONE}
    (folder / "graphs.json").write_text(json.dumps({"edges": [[0, 1], [1, 2]], "architectures": wires}))
    line = {"scores": 4, "steps": 9, "seconds": 1.0, "bound": False, "reconstructed": 1.0, "held_out": 2,
            "pairwise": 0.5, "mode": "max", "fidelity": 2, "pool": 55.0,
            "generated": [{"key": key(EVERYONE[0]), "predicted": 0.5, "score": 50.5}]}  # fmt: skip
    (folder / "searcher.json").write_text(json.dumps([line]))
    rounds = {"members": EVERYONE[:3], "rounds": [{"new": EVERYONE[:1], "learned": line}]}
    (folder / "supernet" / "rounds.json").write_text(json.dumps(rounds))
    timed(folder).calibrate(0, lambda text: None)
    Source("elsewhere", "max", [(form, {1: 50.0, 2: 51.0}) for form in EVERYONE]).keep(folder)
    told = [{"key": key(form), "architecture": json.dumps(form), "fidelity": fidelity, "status": "complete",
             "metrics": {"accuracy": 50.0 + number, "loss": 1.0 / (1 + number)}}
            for number, form in enumerate(EVERYONE) for fidelity in (1, 2)]  # fmt: skip
    by_key = {key(form): [row for row in told if row["key"] == key(form)] for form in EVERYONE}
    kept = {"settings": {"metrics": ["accuracy", "loss"], "architectures": 14}, "sample": by_key}
    (folder / "reference.json").write_text(json.dumps(sealed(kept)))
    assert space.decisions
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


# What reads a run. Each returns what it made of it, to be compared with what it makes of the whole one.


def report(folder: Path) -> Any:
    write_report(folder)  # with what it says
    account = read_run_data(folder)
    for note in account.notes:
        logging.getLogger("report").warning("%s", note)
    return [(one.key, one.score, one.status) for one in account.scored], [row["key"] for row in account.best]


def resume(folder: Path) -> Any:
    run = opened(folder)
    run.open()
    run.context.budget = Budget(dataclasses.replace(run.config, time_budget=1e6), folder)
    searcher = run.searcher(metric="score", mode="max")
    history = LoggedHistory(results.read(folder / "scored.parquet"), searcher.sampler.feasible)
    history.check(2, str(folder))
    history.replay(searcher, asha(2, grace=1, reduction_factor=2.0, metric="score", mode="max"))
    run.context.forget_ended()
    board = write_leaderboard(run.context, SCORING)
    trained = checkpoint.latest(folder / "supernet", ("total",))
    assert trained is not None
    proposed = searcher.suggest("a")["architecture"]  # type: ignore[index]
    return sorted(history.ended), [row["key"] for row in board], trained[0], proposed


def export(folder: Path) -> Any:
    run = opened(folder)
    run.open()
    check_trained(run.context, run.best())
    shared = copy.deepcopy(run.space).state_dict().keys()
    trained = checkpoint.latest(folder / "supernet")
    assert trained is not None and {f"model/{name}" for name in shared} <= trained[1].keys()
    return run.best(), trained[0]


def ranked(folder: Path) -> Any:
    found = rank(opened(folder), lambda: None, lambda: None)  # type: ignore[arg-type, return-value]
    return found["score"]["tau"], found["architectures"], found["winner"] and found["winner"]["key"]


def truths(folder: Path) -> Any:
    return from_retraining(folder, {key(form): form for form in EVERYONE}).values


def warm(folder: Path) -> Any:
    run = opened(folder.parent / "other", warm_start=str(folder))
    assert run.context.problem.source is not None
    return run.context.problem.source.scores


def kept(folder: Path) -> Any:
    run = opened(folder)
    named = dataclasses.replace(run.config, search=dataclasses.replace(run.config.search, warm_start="elsewhere"))
    return Source.of(named, folder, run.search_space, "max").scores


def reference(folder: Path) -> Any:
    run = opened(folder, reference=14)
    spec = dataclasses.replace(SCORING, combine={"accuracy": 1.0, "loss": -1.0})
    with pytest.MonkeyPatch.context() as patch:

        def again(*arguments: Any) -> Any:
            rows = [
                {**row, "metrics": json.loads(row["metrics"])} for row in results.read(folder / "sample").to_pylist()
            ]
            return {name: [row for row in rows if row["key"] == name] for name in {row["key"] for row in rows}}

        patch.setattr(sample, "score_sample", again)
        found = sample.ranks(run.context, spec)
    return [reference({"accuracy": 55.0, "loss": 0.1}) for reference in found.values()]


def latency(folder: Path) -> Any:
    return sorted((name, each.ms) for name, each in timed(folder).measured.items())


def journal(folder: Path) -> Any:
    space = SearchSpace({f"blocks.{place}": ("k1", "k3", "skip") for place in range(3)})
    searcher = NAO(space, seed=0, journal=folder / "searcher.json")
    searcher._read_journal()
    return searcher.diagnostics


READERS: dict[str, tuple[Callable[[Path], Any], ...]] = {
    "leaderboard.json": (report, export),
    "ranking.json": (report,),
    "graphs.json": (report,),
    "searcher.json": (report, journal),
    "supernet/rounds.json": (report,),
    "supernet/training.jsonl": (report, resume),
    f"retrain/{key(EVERYONE[3])}/result.json": (report, truths),
    "latency.jsonl": (latency,),
    "warm_start.json": (kept,),
    "reference.json": (reference,),
    "config.yaml": (report, resume),
}


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """What asks for gigabytes fails at once."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 2 * 2**30, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def judged(read: Callable[[Path], Any], folder: Path, named: str, expected: Any, caplog: Any) -> str | None:
    """What is wrong with how a reader takes a damage: None where it is said in one line that names the file."""
    caplog.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = read(folder)
        except (ConfigError, CheckpointError, ValueError) as error:
            told = str(error)
            if type(error) not in (ConfigError, CheckpointError) and not isinstance(error, ConfigError):
                return None if named in told and "\n" not in told else f"{type(error).__name__}: {told}"
            return None if named in told and "\n" not in told else f"an error that does not name it in a line: {told}"
        except Exception as error:
            return f"a traceback: {type(error).__name__}: {error}"
    told = "\n".join([*(str(each.message) for each in caught), *(record.getMessage() for record in caplog.records)])
    if found != expected and named not in told:
        return f"not said: {found} for {expected}"
    return None


def wrong_values(value: Any, rng: random.Random) -> Any:
    """The same with one value somewhere in it of another kind, or gone."""
    damaged = copy.deepcopy(value)
    node, depth = damaged, rng.randrange(6)
    while True:
        if not isinstance(node, (dict, list)) or not node:
            return None
        place = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if depth == 0 or not isinstance(node[place], (dict, list)) or not node[place]:
            break
        node, depth = node[place], depth - 1
    if isinstance(node, dict) and rng.random() < 0.25:
        del node[place]
    else:
        node[place] = rng.choice([[], {"a": 1}, [1], "x", None])
    return damaged


def damages(path: Path, text: bytes) -> Iterator[tuple[str, bytes]]:
    """Contents that the file might have instead."""
    for content in (b"", b"null", b"[]", b"{}", b"[1, 2]", b"7", b'"text"', b"\x00\xff\xfe", b"[" * 100_000):
        yield repr(content[:10]), content
    for share in (0.3, 0.7) if path.suffix != ".jsonl" else ():  # there, that is how it was before
        yield f"cut at {share}", text[: int(len(text) * share)]
    rng = random.Random(path.name)
    for number in range(6):
        if path.suffix == ".jsonl":
            lines = text.splitlines()
            place = rng.randrange(len(lines))
            lines[place] = json.dumps(wrong_values(json.loads(lines[place]), rng)).encode()
            yield f"line {place + 1} changed, {number}", b"\n".join(lines) + b"\n"
        elif path.suffix == ".json":
            yield f"changed, {number}", json.dumps(wrong_values(json.loads(text), rng)).encode()


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_named_or_does_no_harm(name: str, folder: Path, whole: Path, caplog: Any) -> None:
    path, text = folder / name, (whole / name).read_bytes()
    faults = []
    for read in READERS[name]:
        expected = read(folder)
        for what, content in damages(path, text):
            path.write_bytes(content)
            wrong = judged(read, folder, path.name, expected, caplog)
            faults += [f"{read.__name__}, {what}: {wrong}"] if wrong else []
            for other in {name, "leaderboard.json", "reference.json", "ranking.json", "config.yaml"}:
                shutil.copy2(whole / other, folder / other)
    assert not faults, "\n".join(faults)


INF, LATE = float("inf"), datetime(9999, 1, 1, tzinfo=timezone.utc)
ROWS = [
    *[("fidelity", value) for value in (10**9, 2**62, -3, None, 2 * 10**6)],
    *[("max_fidelity", value) for value in (10**12, -1)],
    *[("score", value) for value in (INF, -INF, 750.0, -1.0)],
    *[("key", value) for value in (None, "")],
    *[("architecture", value) for value in (None, "", "[1]", "{", '{"blocks.0": 3}', "[" * 100_000)],
    *[("status", value) for value in (None, "done")],
    *[("time", value) for value in (None, LATE)],
    *[("metrics", value) for value in ("{", "[1]", "7")],
    *[("seconds", value) for value in (INF, -5.0)],
    *[(name, None) for name in ("run", "trial", "searcher", "max_fidelity", "metrics", "macs", "seconds", "worker")],
    ("macs", -5),
]


def the_part(folder: Path) -> Path:
    (part,) = (folder / "scored.parquet").glob("part-*.parquet")
    return part


@pytest.mark.parametrize(("column", "value"), ROWS)
def test_a_row_that_cannot_be_is_named_and_left_out(
    column: str, value: Any, folder: Path, whole: Path, caplog: Any
) -> None:
    part = the_part(folder)
    table = pq.read_table(part)
    rows = table.to_pylist()
    rows[5][column] = value
    pq.write_table(pa.Table.from_pylist(rows, table.schema), part)
    named = "scored.parquet"
    for read in (resume, report):
        wrong = judged(read, folder, named, made_of(read, whole), caplog)
        assert wrong is None, f"{read.__name__}: {wrong}"


@functools.cache
def made_of(read: Callable[[Path], Any], whole: Path) -> Any:
    """What a reader makes of the whole run, of which it gets a copy."""
    return read(Path(shutil.copytree(whole, whole.parent / read.__name__ / "run")))


def test_rows_are_named_by_part_and_number(folder: Path) -> None:
    part = the_part(folder)
    table = pq.read_table(part)
    rows = table.to_pylist()
    rows[5]["fidelity"], rows[7]["fidelity"], rows[9]["score"] = 10**9, 10**9, 750.0
    pq.write_table(pa.Table.from_pylist(rows, table.schema), part)
    with pytest.warns(RuntimeWarning) as caught:
        found = results.read(folder / "scored.parquet")
    told = [str(each.message) for each in caught]
    assert f"{part}: rows 6, 8 with an impossible 'fidelity' are damaged and left out" in told
    assert any(
        f"750 is no accuracy: such scores are taken as none; they are those of {rows[9]['key']}" in t for t in told
    )
    assert len(found) == len(rows) - 2


FOREIGN: dict[str, Callable[[pa.Table], pa.Table]] = {
    "other columns": lambda table: pa.table({"x": [1, 2]}),
    "no columns": lambda table: pa.table({}),
    "no key": lambda table: table.drop_columns(["key"]),
    "a score as text": lambda table: table.set_column(10, "score", pa.array(["x"] * len(table))),
    "a fidelity as fractions": lambda table: table.set_column(8, "fidelity", pa.array([0.5] * len(table))),
    "architectures as numbers": lambda table: table.set_column(3, "architecture", pa.array(range(len(table)))),
    "times as lists": lambda table: table.set_column(19, "time", pa.array([[1]] * len(table))),
    "garbage beside the rows": lambda table: table.slice(0, 0).replace_schema_metadata(
        {b"raynas.replaces": b"{", b"raynas.settings": b"[1"}
    ),
    "replaces numbers": lambda table: table.slice(0, 0).replace_schema_metadata({b"raynas.replaces": b"[1, {}]"}),
}


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
def test_a_part_of_another_kind_is_named_and_the_others_are_used(
    make: Callable[[pa.Table], pa.Table], folder: Path, caplog: Any
) -> None:
    log = folder / "scored.parquet"
    expected = results.read(log).to_pylist()
    pq.write_table(make(pq.read_table(the_part(folder))), log / "part-00000007-abcdef01.parquet")
    (log / "part-00000008-abcdef02.parquet").mkdir()
    for name in ("part-x.parquet", "part-1.parquet", "notes.txt", "part-00000009-ABCDEF01.parquet"):
        (log / name).write_text("something else")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = results.read(log).to_pylist()
    told = [str(each.message) for each in caught]
    assert any("part-00000008" in text for text in told) and all("\n" not in text for text in told)
    assert found == expected and (
        make(pq.read_table(the_part_of(log))).num_rows == 0 or "part-00000007" in "".join(told)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results.compact(log)
        assert results.read(log).to_pylist() == expected and (log / "part-x.parquet").exists()


def the_part_of(log: Path) -> Path:
    return sorted(path for path in log.glob("part-0000000[0-6]-*.parquet"))[0]


def test_a_score_of_more_than_a_full_fidelity_is_refused(folder: Path) -> None:
    history = LoggedHistory(results.read(folder / "scored.parquet"), lambda form: True)
    history.check(2, "the log")
    with pytest.raises(ConfigError, match=r"the log: a row of [0-9a-f]+ has fidelity 2, but a full score has 1"):
        history.check(1, "the log")


def test_weights_of_another_network_are_refused_in_one_line(folder: Path) -> None:
    run = opened(folder)
    other = {f"model/{name}": tensor for name, tensor in tiny.Tiny(num_classes=4, width=4).state_dict().items()}
    checkpoint.write(folder / "supernet", 5, other, {"total": 5})
    with pytest.raises(CheckpointError, match=r"of another network: .* tensors differ") as caught:
        run.network(EVERYONE[13])
    assert "\n" not in str(caught.value)
    save_file(other, folder / "supernet" / "step-000000006.safetensors")
    with pytest.raises(CheckpointError, match=r"of another network"):
        run.network(EVERYONE[13])


def test_lines_that_cannot_be_read_are_named_and_a_torn_last_one_is_not(tmp_path: Path) -> None:
    path, told = tmp_path / "lines.jsonl", list[str]()
    path.write_text('{"a": 1}\n{"a": "x"}\nnonsense\n\n{"a": 2}\n{"a": ')
    assert read_lines(path, dict[str, int], told.append) == [{"a": 1}, {"a": 2}]
    assert len(told) == 1 and "line 2 is damaged: a" in told[0] and "line 3 is not JSON" in told[0]
    assert read_lines(tmp_path / "none", dict[str, int]) == []


def test_an_empty_leaderboard_is_one_line(folder: Path) -> None:
    (folder / "leaderboard.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"leaderboard.json is damaged: .*run search once more"):
        opened(folder).best()
    with pytest.raises(ConfigError, match=r"leaderboard.json is damaged: .*; do this"):
        read_json(folder / "leaderboard.json", Leaderboard, "do this")
    assert ranked(folder)[1:] == (12, None), "it is not needed to rank"


def test_a_log_with_bad_rows_still_ranks_and_warms(folder: Path, whole: Path) -> None:
    part = the_part(folder)
    table = pq.read_table(part)
    rows = table.to_pylist()
    rows[1]["fidelity"], rows[3]["score"] = 10**9, INF
    pq.write_table(pa.Table.from_pylist(rows, table.schema), part)
    with pytest.warns(RuntimeWarning, match=r"row 2 .*'fidelity'"):
        assert ranked(folder)[1] == 10, "two have no full score any more"
    before = dict(zip(map(key, EVERYONE), (scores for _, scores in made_of(warm, whole)), strict=True))
    with pytest.warns(RuntimeWarning, match=r"inf is no accuracy"):
        found = {key(form): scores for form, scores in warm(folder)}
    assert {name: scores for name, scores in found.items() if len(scores) == 2 and name != key(EVERYONE[1])} == {
        name: before[name] for name in map(key, EVERYONE[2:])
    }
