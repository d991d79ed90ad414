"""The examples run as they are, at their smallest size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raynas import results

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]


def run(*words: object, **variables: str) -> str:
    """Run Python in the way a reader of the documentation does; returns what it prints."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def table_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = tmp_path_factory.mktemp("runs")
    said = run(EXAMPLES / "table_search.py", "--smoke", "--storage-path", storage)
    assert "winner: " in said
    return storage / "table"


def test_a_table(table_run: Path) -> None:
    rows = results.read(table_run / "scored.parquet").to_pylist()
    assert len({row["key"] for row in rows}) == 24
    assert all(json.loads(row["metrics"])["cost"] <= 12 for row in rows if row["status"] == "complete")
    assert (table_run / "report.html").stat().st_size > 10_000


def test_the_notebook(table_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    notebook = json.loads((EXAMPLES / "scored.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code")
    picture = tmp_path / "scored.png"
    program = "import json, sys\nspace = {}\nfor cell in json.loads(sys.argv[1]):\n    exec(cell, space)\n"
    program += f"space['figure'].savefig({str(picture)!r})\nprint(len(space['table']))"
    said = run("-c", program, json.dumps(code), RAYNAS_RUN=str(table_run), MPLBACKEND="Agg")
    assert int(said.split()[-1]) == 24
    assert picture.stat().st_size > 5_000


PROGRAM = """
import contextlib, io, json, runpy, sys, traceback
for path, storage in json.loads(sys.argv[1]):
    sys.path[0], sys.argv, text = path.rpartition("/")[0], [path, "--smoke", "--storage-path", storage], io.StringIO()
    with contextlib.redirect_stdout(text):
        try:
            runpy.run_path(path, run_name="__main__")
        except Exception:
            text.write(traceback.format_exc())
    print(json.dumps(text.getvalue()))
"""
"""Runs several examples in one process, so that torch and Ray are loaded once; prints what each printed."""
SEARCHES = {"own_model": "exported to", "own_data": "'blocks.0': ", "pareto_front": "thousand MACs"}


@pytest.fixture(scope="module")
def searches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Path]]:
    """What each example printed, and its storage path."""
    storage = tmp_path_factory.mktemp("searches")
    lines = [(str(EXAMPLES / f"{name}.py"), str(storage / name)) for name in SEARCHES]
    # Ray's workers import the examples by name, as they do where an example was started on the command line.
    path = os.pathsep.join((str(EXAMPLES), os.environ["PYTHONPATH"]))
    printed = run("-c", PROGRAM, json.dumps(lines), PYTHONPATH=path).splitlines()
    return {name: (json.loads(line), storage / name) for name, line in zip(SEARCHES, printed[-3:], strict=True)}


@pytest.mark.parametrize("name", SEARCHES)
def test_an_example(name: str, searches: dict[str, tuple[str, Path]]) -> None:
    printed, storage = searches[name]
    assert SEARCHES[name] in printed, printed
    assert list(storage.glob("*/leaderboard.json"))


def test_plain_tune() -> None:
    assert "best of 4: " in run(EXAMPLES / "plain_tune.py", "--smoke")
