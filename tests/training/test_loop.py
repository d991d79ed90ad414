"""The one training loop: chunks, pauses, and when a checkpoint is written."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from raynas.supernet import loop as supernet
from raynas.trainables import from_scratch
from raynas.training import loop, retrain_worker
from raynas.training.loop import TrainingLoop
from raynas.training.trainer import Progress


class Recorded(TrainingLoop):
    """Makes steps of a tenth of a second, and notes what is called."""

    def __init__(self, steps: int, checkpoint_seconds: float = math.inf, preempted: tuple[int, ...] = ()) -> None:
        notice: Any = SimpleNamespace(given=lambda: self.step in preempted)
        super().__init__(checkpoint_seconds, notice)
        self.steps, self.step = steps, 0
        self.saved: list[int] = []
        self.chunks: list[int] = []

    def total(self) -> int:
        return self.steps

    def train(self, until: int) -> Progress:
        made, self.step = until - self.step, until
        return Progress(until, 0.5, made, 0.1 * made)

    def after_chunk(self, progress: Progress) -> None:
        self.chunks.append(progress.step)

    def save(self, step: int) -> None:
        assert step == self.chunks[-1], "a chunk is reported before its checkpoint"
        self.saved.append(step)


def test_chunks_grow_to_a_second_and_the_last_step_is_saved() -> None:
    training = Recorded(40)
    training.run(0)
    assert training.chunks == [1, 5, 15, 25, 35, 40] and training.saved == [40]


def test_it_goes_on_from_a_step() -> None:
    training = Recorded(12)
    training.step = 9
    training.run(9)
    assert training.chunks == [10, 12] and training.saved == [12]
    training.run(12)
    assert training.saved == [12], "nothing is left to do"


def test_a_checkpoint_is_written_when_it_is_due_and_at_a_preemption_notice() -> None:
    often, preempted = Recorded(16, checkpoint_seconds=0.0), Recorded(16, preempted=(5,))
    often.run(0)
    preempted.run(0)
    assert often.saved == often.chunks == [1, 5, 15, 16]
    assert preempted.saved == [5, 16]


def test_only_who_may_save_does(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Recorded(16, checkpoint_seconds=0.0, preempted=(1, 5, 15))
    monkeypatch.setattr(training, "saves", lambda: False)
    training.run(0)
    assert training.saved == [] and training.chunks[-1] == 16


def test_a_chunk_ends_at_a_pause() -> None:
    training = Recorded(20)
    training.pause = lambda step: (step // 4 + 1) * 4.0  # type: ignore[method-assign]
    training.run(0)
    assert {4, 8, 12, 16, 20} <= {*training.chunks}


def test_every_training_runs_in_it() -> None:
    for module in (supernet, retrain_worker, from_scratch):
        loops = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, TrainingLoop)]
        own = [each for each in loops if each.__module__ == module.__name__]
        assert len(own) == 1, f"{module.__name__} has one loop"
        assert own[0].run is loop.TrainingLoop.run
