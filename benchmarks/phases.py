"""Seconds by phase of whole commands, from the lines that they print.

    python benchmarks/phases.py first --repeats 3        the first command of the README
    python benchmarks/phases.py smoke                    --smoke-test
    python benchmarks/phases.py table --data DATA        a search of 64 architectures in a table

A phase ends with the line that is printed when it is over. ``imports and checks`` is everything before Ray is started:
imports, data, costs of the space, the check of the first batch and of the export.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENDS = (
    ("imports and checks", r"everything is kept in"),
    ("start of Ray and of the training workers", r"^supernet: step 1/"),
    ("training", r"^supernet: step (\d+)/\1,"),
    ("start of the replicas and search", r"^scored \d+ architectures"),
    ("scoring the best once more", r"^winner "),
    ("start of the retraining", r"^retrain: step 1/"),
    ("retraining", r"% on the test images"),
    ("export", r"^exported to"),
    ("report", r"^report: "),
)
"""The line with which each phase ends. A phase that a command does not have is left out."""


def commands(data: Path) -> dict[str, list[str]]:
    """What is run, by name."""
    table = data / "nasbench201_cifar10.parquet"
    return {
        "first": ["limits.macs=4e5"],
        "smoke": ["--smoke-test"],
        "table": [
            "--space", "spaces.nasbench201:DECISIONS", "search.trainable=trainables.table:Table",
            f"search.trainable_args.file={table}", "search.trainable_args.metric=cifar10_val_200",
            "--num-samples", "64",
        ],
    }  # fmt: skip


def seconds_by_phase(words: list[str]) -> dict[str, float]:
    """Run a command once."""
    with tempfile.TemporaryDirectory() as storage:
        line = [sys.executable, "-u", "-m", "raynas.launch", "--storage-path", storage, "--name", "run", *words]
        # Lines instead of bars, and one for each chunk of a training.
        environment = {**os.environ, "RAYNAS_PERIODS": "line=0.01", "COLUMNS": "200"}
        found: dict[str, float] = {}
        left = list(ENDS)
        begin = last = time.perf_counter()
        with subprocess.Popen(line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for text in process.stdout:
                now = time.perf_counter()
                place = next((n for n, (_, pattern) in enumerate(left) if re.search(pattern, text)), None)
                if place is not None:
                    found[left[place][0]] = now - last
                    left, last = left[place + 1 :], now
        now = time.perf_counter()
        if process.returncode:
            raise SystemExit(f"the command ended with {process.returncode}")
        return {**found, "ending Ray": now - last, "all": now - begin}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("first", "smoke", "table"))
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--repeats", type=int, default=3)
    flags = parser.parse_args()
    runs = [seconds_by_phase(commands(flags.data)[flags.what]) for _ in range(flags.repeats)]
    for name in runs[0]:
        values = [run.get(name, float("nan")) for run in runs]
        print(f"{name:42} {statistics.median(values):6.1f} s  ({min(values):.1f} to {max(values):.1f})")


if __name__ == "__main__":
    main()
