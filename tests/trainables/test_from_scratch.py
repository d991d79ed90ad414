"""Trials that train networks of their own: what they keep when their node must leave."""

from __future__ import annotations

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
    told = goes_on.step()
    assert told["done"] and (told["score"], told["fidelity"]) == (end[1]["score"], 2)
    for name, weight in whole.trainer.model.state_dict().items():
        assert torch.equal(weight, goes_on.trainer.model.state_dict()[name]), name
