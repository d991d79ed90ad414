"""``raynas watch``: what it shows of a run that goes on, of one that has ended, and of none."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from raynas import results
from raynas.cli.main import main
from raynas.cli.watch import facts, watch_run
from raynas.config.loading import dump
from raynas.config.run import Config
from raynas.metrics import Objective
from raynas.storage.locks import lock_folder


def kept(folder: Path, scores: int = 0) -> Path:
    """The folder of a run."""
    folder.mkdir()
    (folder / "config.yaml").write_text(dump(Config(name=folder.name, storage_path=str(folder.parent))))
    if scores:
        with results.Log(
            folder / "scored.parquet", objective=Objective("accuracy", "max", "%"), flush_seconds=1e9
        ) as log:
            for number in range(scores):
                log.append(
                    {"architecture": {"op": str(number)}, "fidelity": 1, "max_fidelity": 1, "status": "complete",
                     "score": 50.0 + number, "macs": 1000 * number, "seconds": 1.0}
                )  # fmt: skip
    return folder


def test_all_that_a_run_has_written_is_shown(tmp_path: Path) -> None:
    folder = kept(tmp_path / "run", 3)
    for place, step in (("supernet", 40), ("retrain/abc", 10)):
        (folder / place).mkdir(parents=True)
        line = {"step": step, "total": 40, "loss": 1.25, "images_per_second": 10.0, "time": 1.0}
        (folder / place / "training.jsonl").write_text(json.dumps(line) + "\n")
    shown = facts(folder)
    assert shown["supernet"] == "step 40 of 40 (finished), loss 1.250"
    assert shown["search"] == "3 of 200 architectures scored, best so far 52.00 % accuracy (2 k macs)"
    assert shown["retraining abc"] == "step 10 of 40 (25 %), loss 1.250"
    (folder / "retrain" / "abc" / "result.json").write_text(json.dumps({"test_accuracy": 91.5}))
    assert facts(folder)["retraining abc"] == "91.50 % on the test data"


def test_it_follows_a_run_until_its_process_ends(tmp_path: Path) -> None:
    folder, printed = kept(tmp_path / "run", 2), io.StringIO()
    thread = threading.Thread(
        target=watch_run, args=(str(tmp_path), "run", Console(file=printed, width=200), 0.05), daemon=True
    )
    # Locks count for a process as a whole: another one must hold it.
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys; from pathlib import Path; from raynas.storage.locks import lock_folder\n"
         f"with lock_folder(Path({str(folder)!r})): print('locked', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
    thread.start()
    deadline = time.monotonic() + 60
    while "state: running" not in printed.getvalue() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert thread.is_alive()
    (folder / "report.html").write_text("")
    while "report: " not in printed.getvalue() and time.monotonic() < deadline:
        time.sleep(0.02)
    holder.communicate("")
    thread.join(60)
    assert not thread.is_alive()
    lines = printed.getvalue().splitlines()
    assert lines[-1] == "state: no process works on it" and lines.count("state: running") == 1


def test_the_command_takes_a_folder_and_runs_no_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = kept(tmp_path / "run", 2)
    with lock_folder(folder):
        pass
    (folder / "config.yaml").write_text(dump(Config(space="no_such_module:space", name="run")))
    assert main(["watch", str(folder)]) == 0
    assert "search: 2 of 200 architectures scored" in capsys.readouterr().out
    assert main(["watch", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.startswith("error: there is no run")
