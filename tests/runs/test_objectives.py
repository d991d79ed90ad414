"""Searches with costs beside the score: real Tune trials, small."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers import tiny
from raynas.trainables.shared_weights import SharedWeights

from raynas import architecture as arch
from raynas import prepare, results
from raynas.config.run import Config, SearchConfig
from raynas.config.train import TrainConfig
from raynas.exceptions import ConfigError
from raynas.runs.run import Run
from raynas.searchers import NSGA2

pytestmark = pytest.mark.usefixtures("ray_session")

DECISIONS = {f"block{i}": ("a", "b", "c") for i in range(4)}


def table(folder: Path) -> tuple[Path, dict[str, dict[str, Any]]]:
    """Scores and sizes that go together, but not strictly."""
    rng, rows = Random(0), list(arch.enumerate_all(DECISIONS))
    scores = [sum("abc".index(option) for option in row.values()) + rng.random() for row in rows]
    sizes = [score + 3 * rng.random() for score in scores]
    values = {name: [row[name] for row in rows] for name in DECISIONS} | {"score": scores, "size": sizes}
    pq.write_table(pa.table(values), folder / "scores.parquet")
    known = {arch.key(row): {"score": s, "size": z} for row, s, z in zip(rows, scores, sizes, strict=True)}
    return folder / "scores.parquet", known


def make(folder: Path, file: Path, name: str = "run", limits: Any = None, **search: Any) -> Any:
    arguments = {"file": str(file), "metric": "score"}
    search = {"trainable": "trainables.table:Table", "trainable_args": arguments, "objectives": ["size"]} | search
    config = Config(search=search, storage_path=str(folder), name=name, limits=limits or {})  # type: ignore[arg-type]
    return prepare(config, space=DECISIONS)


def log(run: Any) -> list[dict[str, Any]]:
    return results.read(run.folder / "scored.parquet").to_pylist()


@pytest.mark.parametrize("method", ["nsga2", "bayes"])
def test_the_front_of_a_table_under_a_limit(tmp_path: Path, method: str) -> None:
    file, known = table(tmp_path)
    run = make(tmp_path, file, method=method, limits={"size": 7.0}, num_samples=40, cohort=8)
    best = run.search()
    seen = {row["key"]: known[row["key"]] for row in log(run)}
    assert len(seen) == 40 and all(one["size"] <= 7 for one in seen.values())
    front = {
        key
        for key, one in seen.items()
        if not any(two["score"] > one["score"] and two["size"] < one["size"] for two in seen.values())
    }
    rows = run.front()
    assert {row["key"] for row in rows} == front
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert rows[0] == best[0] and all(row["size"] == known[row["key"]]["size"] for row in rows)
    volumes = [row["hypervolume"] for row in log(run)]
    assert volumes[:9] == [None] * 9 and volumes[9:] == sorted(volumes[9:]) and volumes[-1] > volumes[9]
    page = run.report().read_text()
    assert "Hypervolume against evaluations" in page and "Score against size" in page


def test_a_resumed_search_goes_on_as_if_never_interrupted(tmp_path: Path) -> None:
    file, _ = table(tmp_path)
    whole, parts = make(tmp_path, file, "whole", num_samples=24), make(tmp_path, file, "parts", num_samples=16)
    whole.search()
    parts.search()
    parts = make(tmp_path, file, "parts", num_samples=24)
    parts.search()
    for row, other in zip(log(whole), log(parts), strict=True):
        assert (row["key"], row["hypervolume"]) == (other["key"], other["hypervolume"])
    assert whole.config.search.method == "bayes"  # where nobody chose
    assert whole.front() == parts.front()


def test_the_front_of_a_supernet_is_scored_again_and_nobody_is_stopped(tmp_path: Path) -> None:
    search = SearchConfig(
        num_samples=14, slices=4, bn_images=64, batch_size=32, replicas=1, max_concurrent=2, top=2,
        validation_images=16, objectives=["macs", "parameters"],
    )  # fmt: skip
    train = TrainConfig(epochs=2, batch_size=32, workers=1, cpus_per_worker=1)
    config = Config(train=train, search=search, name="run", storage_path=str(tmp_path), limits={"parameters": 1000})
    torch.manual_seed(0)
    run = Run(config, tiny.space(num_classes=4), tiny.data(), NSGA2, SharedWeights)
    best = run.search()
    rows = log(run)
    assert {row["status"] for row in rows if row["fidelity"] == 4} == {"complete"} and len(best) == 2
    assert sum(row["status"] == "complete" for row in rows) == 14 and all(row["parameters"] <= 1000 for row in rows)
    front = run.front()
    assert best[0]["final_score"] == front[0]["final_score"]
    for one in front:
        assert one["final_score"] * 64 % 100 == 0  # of 64 images, not of 16
        assert not any(
            other["final_score"] >= one["final_score"]
            and other["macs"] <= one["macs"]
            and other["parameters"] < one["parameters"]
            for other in front
        )
    run.close()


def test_there_is_no_front_without_objectives(tmp_path: Path) -> None:
    file, _ = table(tmp_path)
    run = make(tmp_path, file, objectives=[], method="random", num_samples=3)
    run.search()
    assert all(row["hypervolume"] is None for row in log(run))
    with pytest.raises(ConfigError, match=r"run search with search\.objectives first"):
        run.front()


def test_unknown_objectives_are_refused_with_the_legal_ones(tmp_path: Path) -> None:
    file, _ = table(tmp_path)
    with pytest.raises(ValueError, match="unknown objective 'flops'; legal ones: size"):
        make(tmp_path, file, objectives=["flops"])
    with pytest.raises(ValueError, match="unknown objective 'score'; legal ones: size"):
        make(tmp_path, file, objectives=["score"])
    with pytest.raises(ValueError, match="Evolution optimizes the score alone, not size"):
        make(tmp_path, file, method="evolution")
    config = make(tmp_path, file).config
    assert not config.search.stops_early and dataclasses.replace(config.search, objectives=[]).stops_early
