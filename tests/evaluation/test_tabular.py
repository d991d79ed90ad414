"""Reading tables of scores: every architecture is found, and whatever is wrong is said with its column and row."""

from __future__ import annotations

import itertools
import math
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from raynas import architecture as arch
from raynas.evaluation.tabular import Layout, ScoreTable
from raynas.exceptions import ConfigError, TableError
from raynas.spaces import nasbench201, nasbench_macro

DECISIONS = {"a": ("x", "y"), "b.0": ("p", "q", "r"), "k": ("3", "5")}
NESTED = {
    "cell": ("conv", "pool"),
    "cell.conv.width": ("16", "32"),
    "cell.conv.width.32.groups": ("1", "2"),
    "z": ("u", "v"),
}

Columns = dict[str, Any]


def everything(decisions: arch.Decisions = DECISIONS) -> list[arch.Architecture]:
    return list(arch.enumerate_all(decisions))


def columns(decisions: arch.Decisions = DECISIONS, **further: Any) -> Columns:
    """One row for each architecture, with its number as the score."""
    rows = everything(decisions)
    return {
        **{name: [row.get(name) for row in rows] for name in decisions},
        "score": [float(number) for number in range(len(rows))],
        **further,
    }


def write_parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, row_group_size=5)


def write_feather(table: pa.Table, path: Path) -> None:
    feather.write_feather(table, path, compression="lz4")


def write_arrow(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=5):
            writer.write_batch(batch)


def opened(
    path: Path, decisions: arch.Decisions = DECISIONS, limited: tuple[str, ...] = (), **layout: Any
) -> ScoreTable:
    return ScoreTable.open(decisions, Layout.parse({"file": str(path), "metric": "score", **layout}), limited)


def saved(tmp_path: Path, values: Columns) -> Path:
    pq.write_table(pa.table(values), tmp_path / "scores.parquet")
    return tmp_path / "scores.parquet"


@pytest.mark.parametrize("write", [write_parquet, write_feather, write_arrow])
@pytest.mark.parametrize("kind", ["text", "dictionary", "numbers"])
def test_every_architecture_is_found(tmp_path: Path, write: Callable[[pa.Table, Path], None], kind: str) -> None:
    values = columns()
    if kind == "numbers":
        values["k"] = [int(option) for option in values["k"]]
    table = pa.table(values)
    if kind == "dictionary":
        for name in DECISIONS:
            place = table.column_names.index(name)
            table = table.set_column(place, name, table.column(name).dictionary_encode())
    order = np.random.default_rng(0).permutation(len(table))
    write(table.take(order), tmp_path / "table")
    read = opened(tmp_path / "table")
    assert len(read) == 12 and read.missing == 0 and "all of the space" in str(read)
    rows = read.find(everything())
    assert sorted(rows.tolist()) == list(range(12))
    assert read.scores[rows, 0].tolist() == list(range(12))


def test_nested_decisions_are_empty_where_they_are_not_active(tmp_path: Path) -> None:
    read = opened(saved(tmp_path, columns(NESTED)), NESTED)
    assert len(read) == arch.size(NESTED) == 8
    assert read.scores[read.find(everything(NESTED)), 0].tolist() == list(range(8))
    # What stands in an inactive column does not matter.
    values = columns(NESTED)
    values["cell.conv.width"] = [option or "16" for option in values["cell.conv.width"]]
    assert opened(saved(tmp_path, values), NESTED).find(everything(NESTED)).tolist() == list(range(8))
    values["cell.conv.width"][0] = None
    with pytest.raises(TableError, match=r"column 'cell.conv.width', row 0: empty; legal ones: 16, 32"):
        opened(saved(tmp_path, values), NESTED)


def test_large_spaces_and_many_options(tmp_path: Path) -> None:
    wide = {f"d{n}": tuple(f"o{m}" for m in range(300)) for n in range(30)}
    rng = random.Random(0)
    rows = [arch.sample(wide, rng) for _ in range(500)]
    path = saved(tmp_path, {**{name: [row[name] for row in rows] for name in wide}, "score": list(range(500))})
    read = opened(path, wide)
    assert read.find(rows).tolist() == list(range(500))
    assert set(read.find([arch.sample(wide, rng) for _ in range(500)]).tolist()) == {-1}
    assert "2.06e+74 others of the space are missing" in str(read)


def test_missing_architectures_are_told_and_not_found(tmp_path: Path) -> None:
    values = {name: column[:9] for name, column in columns().items()}
    read = opened(saved(tmp_path, values))
    assert str(read) == "scores.parquet has 9 architectures; 3 others of the space are missing and count as infeasible"
    assert read.find(everything()).tolist() == [*range(9), -1, -1, -1]
    with pytest.raises(arch.ArchitectureError, match="has no option 'z'"):
        read.find([{**everything()[0], "a": "z"}])


def test_fidelities_and_simulated_seconds(tmp_path: Path) -> None:
    ones = [1.0] * 12
    values = columns(low=ones, middle=[2.0] * 12, c1=ones, c2=[4.0] * 12, c3=[9.0] * 12)
    path = saved(tmp_path, values)
    read = opened(path, fidelities=["low", "middle"], cost=["c1", "c2", "c3"])
    assert read.scores[7].tolist() == [1.0, 2.0, 7.0] and read.seconds is not None
    assert read.seconds[7].tolist() == [1.0, 4.0, 9.0]
    same = opened(path, fidelities=["low", "middle", "score"], cost="c3")
    assert same.scores[7].tolist() == [1.0, 2.0, 7.0] and same.seconds is not None
    assert same.seconds[7].tolist() == [3.0, 6.0, 9.0]
    assert opened(path).seconds is None


def test_further_columns_by_the_names_of_the_log(tmp_path: Path) -> None:
    path = saved(tmp_path, columns(flops=[1000 + n for n in range(12)], latency=[n / 8 for n in range(12)]))
    read = opened(path, columns={"macs": "flops"}, limited=("latency",))
    assert read.further(3) == {"macs": 1003, "latency": 0.375} and isinstance(read.further(3)["macs"], int)
    assert list(opened(path, columns=["latency"]).columns) == ["latency"]


def _with(name: str, row: int, value: Any) -> Columns:
    values = columns()
    values[name][row] = value
    return values


BAD: list[tuple[Columns, Columns, str]] = [
    (columns(), {"metric": "acc"}, "has no column 'acc'; it has: a, b.0, k, score"),
    (columns(), {"metric": "a"}, "column 'a': holds string, not numbers"),
    (columns(flag=[True] * 12), {"metric": "flag"}, "column 'flag': holds bool, not numbers"),
    (columns(), {"fidelities": ["early"]}, "has no column 'early'"),
    (columns(), {"cost": "hours"}, "has no column 'hours'"),
    (columns(), {"columns": ["flops"]}, "has no column 'flops'"),
    ({n: v for n, v in columns().items() if n != "k"}, {}, "no column for the decision 'k'; it has: a, b.0.*decoder"),
    (_with("score", 7, math.nan), {}, "column 'score', row 7: nan is no finite number"),
    (_with("score", 2, math.inf), {}, "column 'score', row 2: inf is no finite number"),
    (_with("score", 5, None), {}, "column 'score', row 5: empty"),
    (_with("b.0", 4, "s"), {}, "column 'b.0', row 4: 's' is no option; legal ones: p, q, r"),
    (_with("k", 11, None), {}, "column 'k', row 11: empty; legal ones: 3, 5"),
    (columns(k=[3.0, 5.0] * 6), {}, "column 'k': holds double, not text"),
    (_with("k", 9, "3"), {}, "column 'a', row 9: the same architecture as in row 6: {'a': 'y', 'b.0': 'p', 'k': '3'}"),
    (columns(t=[1.0] * 5 + [-1.0] * 7), {"cost": "t"}, "column 't', row 5: -1 s"),
    (columns(t=[1.0] * 12, u=[2.0] * 6 + [0.5] * 6), {"fidelities": ["t"], "cost": ["t", "u"]},
     "column 'u', row 6: 0.5 s, less than 1 s in column 't'"),
    (columns(f=[1.0] * 3 + [1.5] * 9), {"columns": {"macs": "f"}}, "column 'f', row 3: 1.5 is no whole number"),
    ({n: v[:0] for n, v in columns().items()}, {"metric": "a"}, "column 'a': holds null, not numbers"),
    ({n: pa.array([], pa.string() if n in DECISIONS else pa.float64()) for n in columns()}, {}, "has no rows"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "layout", "message"), BAD)
def test_bad_tables_are_one_line_with_column_and_row(
    tmp_path: Path, values: Columns, layout: Columns, message: str
) -> None:
    with pytest.raises(TableError, match=message) as error:
        opened(saved(tmp_path, values), **layout)
    assert "\n" not in str(error.value) and "scores.parquet" in str(error.value)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"file": "/nowhere/at/all.parquet"}, "there is no table /nowhere/at/all.parquet"),
        ({"file": __file__}, "is neither a Parquet nor an Arrow"),
        ({"metrc": "score"}, "unknown setting 'search.trainable_args.metrc'; legal ones: file, metric"),
        ({"metric": 3}, "search.trainable_args.metric = 3"),
        ({"mode": "best"}, "search.trainable_args.mode = 'best'.*'max' or 'min'"),
        ({"encoded": "a"}, "encoded and .decoder go together"),
        ({"cost": ["a", "b"]}, "names 2 columns for 1 fidelities"),
        ({"fidelities": ["score", "b"]}, "'score' is the metric, so it comes last"),
        ({"encoded": "a", "decoder": "nowhere:at_all"}, "decoder 'nowhere:at_all': cannot import nowhere"),
    ],
)
def test_bad_settings(tmp_path: Path, layout: Columns, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        opened(saved(tmp_path, columns()), **layout)
    assert "\n" not in str(error.value)


def test_a_file_that_is_torn(tmp_path: Path) -> None:
    path = saved(tmp_path, columns())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TableError, match=r"scores\.parquet cannot be read"):
        opened(path)
    with pytest.raises(ConfigError, match=r"search\.trainable_args\.file is missing; there are: file, metric"):
        Layout.parse({"metric": "score"})


def test_a_limit_names_a_numeric_column(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="unknown limit 'flops'; legal ones: macs, score"):
        opened(saved(tmp_path, columns()), columns={"macs": "score"}, limited=("macs", "flops"))


def test_nasbench201_by_columns_and_by_its_strings(shared_data: Path) -> None:
    layout = {"file": str(shared_data / "nasbench201_cifar10.parquet"), "metric": "cifar10_val_200"}
    by_string = {"encoded": "arch", "decoder": "spaces.nasbench201:from_string"}
    tables = []
    for arguments in (layout, layout | by_string):
        spent = []
        for _ in range(3):
            begin = time.process_time()  # of this process: others may be at work, too
            tables.append(ScoreTable.open(nasbench201.DECISIONS, Layout.parse(arguments), ("flops_m",)))
            spent.append(time.process_time() - begin)
        assert min(spent) < 0.3, spent
    rows = pq.read_table(layout["file"]).to_pylist()
    for table in (tables[0], tables[-1]):
        assert len(table) == 15_625 and table.missing == 0
        assert table.find([nasbench201.from_string(row["arch"]) for row in rows]).tolist() == list(range(15_625))
        assert np.array_equal(table.scores[:, 0], [row["cifar10_val_200"] for row in rows])
    best = rows[int(np.argmax(tables[0].scores[:, 0]))]
    assert round(best["cifar10_test_200"], 2) == 94.30


def test_nasbench_macro(shared_data: Path) -> None:
    values = {
        "file": str(shared_data / "nasbench_macro.parquet"),
        "metric": "acc_mean",
        "encoded": "arch",
        "decoder": "spaces.nasbench_macro:from_string",
        "columns": {"macs": "flops", "parameters": "params"},
    }
    table = ScoreTable.open(nasbench_macro.DECISIONS, Layout.parse(values))
    assert table.missing == 0
    best = int(table.find([nasbench_macro.from_string("22212220")])[0])
    # The same network stands there under several names, with the same score.
    assert table.scores[best, 0] == table.scores.max() and round(float(table.scores[best, 0]), 3) == 93.127
    assert table.further(0) == {"macs": 7_713_280, "parameters": 387_882}


def test_rows_that_the_decoder_refuses(tmp_path: Path, shared_data: Path) -> None:
    table = pq.read_table(shared_data / "nasbench201_cifar10.parquet", columns=["arch", "cifar10_val_200"])
    texts = table.column("arch").to_pylist()[:100]
    for text, message in (("|none~0|", "is not a NAS-Bench-201 cell"), (None, "row 40: empty"), (texts[3], "in row 3")):
        path = saved(tmp_path, {"arch": [*texts[:40], text, *texts[41:]], "score": [1.0] * 100})
        with pytest.raises(TableError, match=f"column 'arch', row 40: .*{message}|{message}"):
            opened(path, nasbench201.DECISIONS, encoded="arch", decoder="spaces.nasbench201:from_string")


def test_random_tables_agree_with_a_dictionary(tmp_path: Path) -> None:
    rng = random.Random(1)
    for number in range(10):
        outer = {f"d{n}": tuple(f"o{m}" for m in range(rng.randint(1, 4))) for n in range(rng.randint(1, 4))}
        inner = {f"d0.o0.i{n}": ("s", "t") for n in range(rng.randint(0, 2))}
        decisions = {**outer, **inner}
        rows = [row for row in everything(decisions) if rng.random() < 0.7] or everything(decisions)[:1]
        rng.shuffle(rows)
        cells = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in decisions}
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({**cells, "score": list(range(len(rows)))}), path)
        places = {arch.key(row): place for place, row in enumerate(rows)}
        wanted = [places.get(arch.key(one), -1) for one in everything(decisions)]
        assert opened(path, decisions).find(everything(decisions)).tolist() == wanted
        assert opened(path, decisions).missing == wanted.count(-1)


def test_tables_and_their_trials_load_no_torch(repository: Path) -> None:
    code = "import sys, raynas.evaluation.tabular, trainables.table; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["False"], done.stderr


def test_a_bad_row_among_many_is_the_first_one(tmp_path: Path) -> None:
    values = _with("score", 8, math.nan)
    for row in itertools.chain((3,), range(9, 12)):
        values["score"][row] = math.nan
    with pytest.raises(TableError, match="row 3"):
        opened(saved(tmp_path, values))
