"""Trainings that are interrupted and go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from raynas.progress import TrainingStatus
from raynas.runs.run import Run
from raynas.training import checkpoint


def train_in_two_parts(prepare: Callable[[], Run], step: int, whole: Run) -> Run:
    """A run whose training is interrupted after a step; it must end as the whole one has, bit for bit."""
    expected = checkpoint.latest(whole.folder / "supernet")
    broken = prepare()
    broken.open()

    def stop(status: TrainingStatus) -> None:
        if status.step >= step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        supernet = broken.context.supernet
        assert supernet is not None
        supernet.actors.train(supernet.paths(), stop)
    reached = checkpoint.latest(broken.folder / "supernet")
    assert expected is not None and reached is not None and step <= reached[0] < expected[0]
    again = prepare()
    again.train_supernet()
    resumed = checkpoint.latest(again.folder / "supernet")
    assert resumed is not None and _without_seconds(resumed[2]) == _without_seconds(expected[2])
    assert all(torch.equal(resumed[1][name], value) for name, value in expected[1].items())
    broken.close()
    return again


def _without_seconds(value: Any) -> Any:
    """What a checkpoint says, less how long things took."""
    if isinstance(value, dict):
        return {name: _without_seconds(each) for name, each in value.items() if name != "seconds"}
    return [_without_seconds(each) for each in value] if isinstance(value, list) else value
