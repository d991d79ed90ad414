"""The examples run as they are, at their smallest size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from raynas import results

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
pytestmark = [pytest.mark.slow, pytest.mark.ray]


def run(*words: object, **variables: str) -> str:
    """Run Python in the way a reader of the documentation does; returns what it prints."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def table_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    storage = tmp_path_factory.mktemp("runs")
    said = run(EXAMPLES / "table_search.py", "--smoke", "--storage-path", storage)
    assert "winner: " in said
    yield storage / "table"


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


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("own_model", "exported to"),
        ("own_data", "'blocks.0': "),
        ("pareto_front", "thousand MACs"),
    ],
)
def test_an_example(name: str, said: str, tmp_path: Path) -> None:
    assert said in run(EXAMPLES / f"{name}.py", "--smoke", "--storage-path", tmp_path)
    assert list(tmp_path.glob("*/leaderboard.json"))


def test_plain_tune() -> None:
    assert "best of 4: " in run(EXAMPLES / "plain_tune.py", "--smoke")
