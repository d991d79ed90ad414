"""Searching the better part of a space alone."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny

from raynas import prepare
from raynas.architecture import enumerate_all, key
from raynas.cli.main import main
from raynas.config.run import Config, FilterConfig, SearchConfig
from raynas.evaluation.proxies.filter import ZeroCostFilter
from raynas.runs.run import Run


def make(folder: Path, limits: dict[str, Any] | None = None, **settings: Any) -> Run:
    search = SearchConfig(filter=FilterConfig(images=8, **settings), method="random")
    torch.manual_seed(0)
    config = Config(search=search, storage_path=str(folder), name="run", limits=limits or {})
    return prepare(config, space=tiny.space(num_classes=4), data=tiny.data())


def proposed(run: Run) -> list[dict[str, str]]:
    """All that a searcher of the run ever proposes."""
    searcher, found = run.searcher(), []
    while isinstance(suggestion := searcher.suggest(str(len(found))), dict):
        found.append(suggestion["architecture"])
    return found


def test_only_the_better_part_is_proposed(tmp_path: Path) -> None:
    # All 27 are in the sample: parameters alone say exactly who is kept.
    run = make(tmp_path, score="parameters", keep=0.3)
    everyone = [run.costs(a)["parameters"] for a in enumerate_all(run.costs.decisions)]
    least = np.quantile(everyone, 0.7)
    kept = [run.costs(a)["parameters"] for a in proposed(run)]
    assert sorted(kept) == sorted(p for p in everyone if p >= least) and 0 < len(kept) < 14


def test_limits_hold_besides_and_are_asked_first(tmp_path: Path) -> None:
    run = make(tmp_path, limits={"parameters": 1000}, score=["naswot", "synflow"], keep=0.5)
    free = make(tmp_path, limits={"parameters": 1000})
    within, kept = proposed(free), proposed(run)
    assert all(run.costs(a)["parameters"] <= 1000 for a in kept)
    assert len(within) / 2 <= len(kept) <= len(within) / 2 + 1
    measured = run.search_space.violation
    assert set(measured._scores) <= {key(a) for a in within}  # type: ignore[union-attr]


def no_number(network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    return float("nan")


def test_a_score_that_is_no_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"search\.filter\.score: .*no_number of a random architecture is no number"):
        proposed(make(tmp_path, score="tests.evaluation.proxies.test_filter:no_number"))


def test_one_that_has_no_score_later_is_left_out() -> None:
    scores = {"a": 1.0, "b": 2.0, "c": float("nan")}
    proxies = SimpleNamespace(measure=lambda architecture: {"score": scores[architecture["x"]]})
    kept = ZeroCostFilter(proxies, lambda: [{"x": "a"}, {"x": "b"}], 0.9)  # type: ignore[arg-type]
    assert kept({"x": "b"}) == 0 and kept({"x": "c"}) == math.inf


def test_the_same_seed_keeps_the_same(tmp_path: Path) -> None:
    first, again = (proposed(make(tmp_path, score="naswot", keep=0.2)) for _ in range(2))
    assert first == again and first
    # With every one in the sample, what is kept at 20 % is part of what is kept at 60 %.
    wider = proposed(make(tmp_path, score="naswot", keep=0.6))
    assert all(architecture in wider for architecture in first) and len(first) < len(wider)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["search.filter.score=nasvot"], "search.filter.score: unknown 'nasvot'; legal ones: synflow"),
        (["search.filter.keep=1.5"], "search.filter.keep"),
        (["search.filter.percent=5"], "unknown setting 'search.filter.percent'; legal ones: score, keep, sample"),
    ],
)
@pytest.mark.usefixtures("no_ray")
def test_bad_filters_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, settings: list[str], message: str
) -> None:
    assert main(["--storage-path", str(tmp_path), *settings]) == 2
    assert message in capsys.readouterr().err
