"""Trials that train networks of their own: what they keep when their node must leave."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import tiny
from raynas.trainables.from_scratch import FromScratch, Job

from raynas.config.train import TrainConfig
from raynas.data.dataset import to_arrays
from raynas.trainables import from_scratch
from raynas.training import checkpoint

ARCHITECTURE = {"blocks.0": "k3", "blocks.1": "k1", "blocks.2": "skip"}
RECIPE = TrainConfig(epochs=2, batch_size=32, precision="float32").resolved()


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial without its process."""
    context = SimpleNamespace(get_assigned_resources=lambda: {"CPU": 1})
    util = SimpleNamespace(get_node_ip_address=lambda: "127.0.0.1")
    monkeypatch.setattr(from_scratch, "ray", SimpleNamespace(get_runtime_context=lambda: context, util=util))


def begun(where: Path) -> FromScratch:
    """A trial whose node may stay."""
    torch.manual_seed(0)
    trial: Any = object.__new__(FromScratch)
    trial.setup({"architecture": ARCHITECTURE}, Job(tiny.space(4), to_arrays(tiny.data()), RECIPE, 0, where))
    trial.notice = SimpleNamespace(given=lambda: False)
    return trial  # type: ignore[no-any-return]


def kept(trial: FromScratch) -> int:
    """The step of the newest checkpoint."""
    assert trial.folder is not None
    saved = checkpoint.latest(trial.folder)
    assert saved is not None
    return saved[0]


@pytest.mark.slow
@pytest.mark.usefixtures("fake_ray")
def test_a_node_that_must_leave_costs_a_trial_nothing(tmp_path: Path) -> None:
    whole = begun(tmp_path / "whole")
    end = [whole.step(), whole.step()]
    assert [told["fidelity"] for told in end] == [1, 2] and end[1]["done"]
    assert kept(whole) == 8

    # In the second epoch it is told, once, and is then ended before the epoch is.
    leaves = begun(tmp_path / "leaves")
    leaves.step()
    leaves.notice = SimpleNamespace(given=iter([True]).__next__)
    with pytest.raises(StopIteration):
        leaves.step()
    goes_on = begun(tmp_path / "leaves")
    assert 8 < kept(leaves) == goes_on.trainer.step < 16 and goes_on.seconds > 0
    again = goes_on.step()  # the program may have been killed before this was in the log
    assert (again["score"], again["fidelity"], again["done"]) == (end[0]["score"], 1, False)
    assert 8 < goes_on.trainer.step < 16, "nothing is computed for it"
    told = goes_on.step()
    assert told["done"] and (told["score"], told["fidelity"]) == (end[1]["score"], 2)
    for name, weight in whole.trainer.model.state_dict().items():
        assert torch.equal(weight, goes_on.trainer.model.state_dict()[name]), name


@pytest.mark.usefixtures("fake_ray")
def test_what_was_reported_and_is_not_in_the_log_is_reported_once_more(tmp_path: Path) -> None:
    """A report between two flushes of the log is lost with the driver, while the trial has its checkpoint."""
    recipe = dataclasses.replace(RECIPE, epochs=3)
    job = Job(tiny.space(4), to_arrays(tiny.data(train=64, validation=32, test=16)), recipe, 0, tmp_path)

    def trial() -> Any:
        torch.manual_seed(0)
        made: Any = object.__new__(FromScratch)
        made.setup({"architecture": ARCHITECTURE}, job)
        made.notice = SimpleNamespace(given=lambda: False)
        return made

    first = trial()
    reports = [first.step(), first.step()]
    second = trial()
    assert [second.step(), second.step()] == reports
    last = second.step()
    assert (
        last["fidelity"] == 3 and last["done"] and last["outcomes"][0]["seconds"] > reports[1]["outcomes"][0]["seconds"]
    )
    other = {**ARCHITECTURE, next(iter(ARCHITECTURE)): "skip"}
    second.reset_config({"architecture": other})
    assert second.step()["outcomes"][0]["architecture"] == other, "the next trial begins anew"
