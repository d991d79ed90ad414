"""Zero-cost scores as features of the searcher."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny

from raynas import prepare
from raynas.architecture import Architecture, enumerate_all
from raynas.cli.main import main
from raynas.config.run import Config, SearchConfig
from raynas.evaluation.proxies.features import Foretelling


def test_scores_become_ranks_laid_out_as_a_normal_distribution() -> None:
    told = {str(i): {"wide": 10.0**i, "same": 1.0, "broken": math.inf if i % 2 else float(i)} for i in range(40)}
    asked: list[str] = []

    def measure(architecture: Architecture) -> dict[str, float]:
        asked.append(architecture["x"])
        return told[architecture["x"]]

    features = Foretelling(measure, lambda: [{"x": str(i)} for i in range(40)])
    rows = np.array([features({"x": str(i)}) for i in range(40)])
    assert rows[:, 0].mean() == pytest.approx(0, abs=1e-9) and rows[:, 0].std() == pytest.approx(1, abs=0.1)
    assert (np.diff(rows[:, 0]) > 0).all() and (rows[:, 1] == 0).all()
    assert (rows[1::2, 2] == 0).all() and (np.diff(rows[::2, 2]) > 0).all()
    assert sorted(asked) == sorted(told), "each is measured once"


def make(folder: Path, score: Any, method: str = "bayes") -> Any:
    torch.manual_seed(0)
    search = SearchConfig(method=method, features={"score": score, "images": 8, "sample": 20})  # type: ignore[arg-type]
    config = Config(search=search, storage_path=str(folder), name="run")
    return prepare(config, space=tiny.space(num_classes=4), data=tiny.data())


@pytest.mark.usefixtures("no_ray")
def test_a_search_knows_the_scores_of_the_networks(tmp_path: Path) -> None:
    run = make(tmp_path, ["parameters", "naswot"])
    searcher = run.searcher()
    for number in range(10):
        proposed = searcher.suggest(str(number))["architecture"]
        searcher.on_trial_complete(str(number), {"score": 1.0 + number, "training_iteration": 1})
    everything = list(enumerate_all(run.decisions))
    features = searcher.encoder(everything).told
    assert features.shape == (27, 2) and proposed in everything
    sizes = [run.costs(architecture)["parameters"] for architecture in everything]
    assert (np.argsort(features[:, 0], kind="stable") == np.argsort(sizes, kind="stable")).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["search.features.score=nasvot", "search.method=bayes"],
            "search.features.score: unknown 'nasvot'; legal",
        ),
        (
            ["search.features.score=macs", "search.method=evolution"],
            "Evolution does not look at features",
        ),
        (["search.features.percent=5"], "unknown setting 'search.features.percent'; legal ones: score, sample, images"),
    ],
)
@pytest.mark.usefixtures("no_ray")
def test_bad_features_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, settings: list[str], message: str
) -> None:
    assert main(["--storage-path", str(tmp_path), *settings]) == 2
    assert message in capsys.readouterr().err
