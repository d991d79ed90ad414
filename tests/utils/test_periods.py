"""What happens by the clock, as often as it can: whole searches with every period at its smallest."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raynas import results
from raynas.tune.files import TUNE_LOG
from raynas.utils.periods import PERIODS, Periods

SMALLEST = " ".join(f"{field.name}=0.01" for field in dataclasses.fields(Periods))
"""A period that is added comes along by itself."""


def test_periods_are_read_by_name() -> None:
    assert Periods.read("") == Periods() and Periods.read("log=0.5, mirror=3").mirror == 3
    assert set(vars(Periods.read(SMALLEST)).values()) == {0.01}
    assert Periods.read(os.environ.get("RAYNAS_PERIODS", "")) == PERIODS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lag=1", "RAYNAS_PERIODS has an unknown name 'lag'; legal ones: log, "),
        ("log=0", "'log=0' must be name=seconds, with seconds above 0"),
        ("log", "'log' must be"),
        ("log=inf", "'log=inf' must be"),
    ],
)
def test_what_is_no_period_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Periods.read(text)


def launched(folder: Path, repository: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RAYNAS_PERIODS": SMALLEST}
    line = [sys.executable, "-m", "raynas.launch", "--storage-path", str(folder), "--name", "run", *words]
    return subprocess.run(line, env=environment, cwd=repository, capture_output=True, text=True, timeout=200)


def check(folder: Path, done: subprocess.CompletedProcess[str], scored: int) -> None:
    assert done.returncode == 0, done.stderr
    rows = results.read(folder / "run" / "scored.parquet").to_pylist()
    assert len({row["key"] for row in rows if row["status"] == "complete"}) == scored
    assert not (folder / "run" / TUNE_LOG).exists(), (folder / "run" / TUNE_LOG).read_text()


@pytest.mark.ray
@pytest.mark.slow
def test_a_table_search_with_all_periods_at_their_smallest(tmp_path: Path, repository: Path, shared_data: Path) -> None:
    done = launched(
        tmp_path, repository, "--space", "spaces.nasbench201:DECISIONS", "--num-samples", "300", "after=[report]",
        "search.trainable=trainables.table:Table", "search.method=random", "search.cohort=1", "search.max_concurrent=2",
        f"search.trainable_args.file={shared_data / 'nasbench201_cifar10.parquet'}",
        "search.trainable_args.metric=cifar10_val_200",
    )  # fmt: skip
    check(tmp_path, done, 300)


@pytest.mark.ray
@pytest.mark.slow
def test_shared_weights_with_all_periods_at_their_smallest(tmp_path: Path, repository: Path) -> None:
    """Training, replicas and retraining: workers have the same periods."""
    done = launched(
        tmp_path, repository, "--space", "helpers.tiny:space", "--data", "helpers.tiny:arrays", "--num-samples", "8",
        "train.epochs=8", "train.batch_size=64", "train.checkpoint_seconds=0.01", "retrain.epochs=8",
        "search.slices=2", "search.bn_images=64", "search.batch_size=32", "search.scheduler=none",
        "train.workers=1", "search.replicas=1", "search.max_concurrent=2", "retrain.workers=1",
        "after=[retrain,report]",
    )  # fmt: skip
    check(tmp_path, done, 8)
    run = tmp_path / "run"
    for curve in (run / "supernet" / "training.jsonl", *run.glob("retrain/*/training.jsonl")):
        # 200 steps: with the default period the chunks are of 1, 4, 16, 64 and 115 steps, so that there are five lines.
        assert len(curve.read_text().splitlines()) > 10, f"{curve}: its workers had other periods"
