"""Trials that score without training."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny
from raynas.trainables.zero_cost import ZeroCost
from torch import Tensor, nn

from raynas import prepare
from raynas.architecture import key
from raynas.cli.main import main
from raynas.config.run import Config, SearchConfig
from raynas.evaluation.proxies.evaluator import ZeroCostProxies
from raynas.evaluation.proxies.scores import PROXIES
from raynas.nn.subnet import derive
from raynas.runs.run import Run
from raynas.tune.trial import FidelitySchedule

WIDE = {"blocks.0": "k3", "blocks.1": "k3", "blocks.2": "k3"}
SHORT = {"blocks.0": "k1", "blocks.1": "skip", "blocks.2": "skip"}


def outputs(network: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """A score of a user: fails on networks without BatchNorm layers of more than one block."""
    if sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) < 2:
        raise ValueError("too shallow for me")
    return float(inputs.shape[0] + targets.shape[0])


def make(folder: Path, **arguments: Any) -> Run:
    search = SearchConfig(trainable="trainables.zero_cost:ZeroCost", trainable_args=arguments)
    torch.manual_seed(0)
    config = Config(search=search, storage_path=str(folder), name="run", seed=3)
    return prepare(config, space=tiny.space(num_classes=4), data=tiny.data())


def trial(run: Run, architectures: list[dict[str, str]], **arguments: Any) -> Any:
    """A trial in this process, without Ray."""

    class Here(ZeroCost):
        def setup(self, config: dict[str, Any]) -> None:  # type: ignore[override]
            self.proxies, self.worker = untrained(run, **arguments), "here"
            self.enter(config, FidelitySchedule())

    return Here({"architectures": architectures})


def untrained(run: Run, score: Any = ("synflow", "naswot", "az_nas"), images: int = 16) -> ZeroCostProxies:
    names = [score] if isinstance(score, str) else score
    return ZeroCostProxies.of(run.space, run.costs, run.data, names, images, run.config.seed)


def test_a_trial_scores_as_the_functions_do(tmp_path: Path) -> None:
    run = make(tmp_path)
    names = [*PROXIES, "az_nas", "macs", "parameters"]
    outcomes = trial(run, [WIDE, SHORT], score=names, images=16).train()["outcomes"]
    job = untrained(run)
    assert job.inputs.shape == (16, 1, 8, 8) and len(set(job.targets.tolist())) > 1
    for outcome in outcomes:
        metrics, architecture = outcome["metrics"], outcome["architecture"]
        network = derive(run.space, architecture)
        assert outcome["status"] == "complete" and outcome["score"] == metrics["synflow"] and outcome["seconds"] > 0
        assert {name: metrics[name] for name in PROXIES} == pytest.approx(
            {name: proxy(network, job.inputs, job.targets) for name, proxy in PROXIES.items()}
        )
        assert metrics["complexity"] == metrics["macs"] == run.costs(architecture)["macs"]
        assert metrics["parameters"] == run.costs(architecture)["parameters"]
    wide, short = (outcome["metrics"] for outcome in outcomes)
    assert all(wide[name] > short[name] for name in ("synflow", "naswot", "expressivity"))


def test_a_score_of_your_own_and_one_that_fails(tmp_path: Path) -> None:
    run = make(tmp_path)
    good, bad = trial(run, [WIDE, SHORT], score=f"{__name__}:outputs", images=8).train()["outcomes"]
    assert (good["status"], good["score"]) == ("complete", 16.0)
    assert bad["status"] == "error" and bad["error"] == "ValueError: too shallow for me" and math.isnan(bad["score"])


def test_what_is_scored_depends_on_the_seed_alone(tmp_path: Path) -> None:
    first, again = (untrained(make(tmp_path)) for _ in range(2))
    assert torch.equal(first.inputs, again.inputs) and first.measure(WIDE) == again.measure(WIDE)
    other = make(tmp_path)
    other.context.config = dataclasses.replace(other.config, seed=4)
    assert not torch.equal(untrained(other).inputs, first.inputs)
    assert key(WIDE) != key(SHORT) and first.measure(WIDE) != first.measure(SHORT)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["search.trainable_args.score=nasvot"], "unknown 'nasvot'; legal ones: synflow, naswot, snip"),
        (["search.trainable_args.score=[naswot,naswot]"], "must name scores, each once"),
        (["search.trainable_args.images=2"], "search.trainable_args.images = 2: input should be greater than or equal"),
        (["search.trainable_args.picture=2"], "legal settings: score, images"),
        (["search.trainable_args.score=nowhere.at:all"], "cannot import nowhere.at"),
        (["search.grace=2"], "there is one fidelity; legal: 1"),
        (["search.reference=5"], "search.reference"),
        (["search.trainable=trainables.from_scratch:FromScratch", "search.combine={a: 1}"], "has one score; legal for"),
        (["search.combine={synflow: 0}"], "search.combine = {'synflow': 0.0}; legal: finite weights, some of them not"),
    ],
)
@pytest.mark.usefixtures("no_ray")
def test_bad_settings_are_refused_at_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, settings: list[str], message: str
) -> None:
    given = ["--storage-path", str(tmp_path), "search.trainable=trainables.zero_cost:ZeroCost", *settings]
    assert main(given) == 2
    assert message in capsys.readouterr().err
