"""Batches that worker processes make ahead of the steps that need them, for data that do not fit into memory."""

from __future__ import annotations

import itertools
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from raynas.exceptions import DataError
from raynas.utils.structures import map_tensors

__all__ = ["BatchStream", "Loading"]


@dataclass(frozen=True)
class Loading:
    """How the examples of a data set reach the networks."""

    streaming: bool = False
    """Whether training examples are read when they are needed. Otherwise all are in memory."""
    workers: int | None = None
    """Processes that make batches for one rank; 0: the rank makes them itself. None: one, and with a GPU one less than
    the CPUs of the rank."""
    prefetch: int = 2
    """Batches that each of them makes ahead."""


@dataclass(frozen=True)
class _Failure:
    """An error of a worker process, which crosses to the rank as a text."""

    message: str


class _Steps(Dataset[Any]):
    """The batch of each step, as an item."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make = make

    def __getitem__(self, step: int) -> Any:
        try:
            return self.make(step)
        except DataError as error:
            return _Failure(str(error))
        except Exception as error:  # whatever the code of a user raises
            frame = traceback.extract_tb(error.__traceback__)[-1]
            return _Failure(f"{type(error).__name__}: {error} ({frame.filename}, line {frame.lineno}: {frame.line})")


class BatchStream:
    """The batches of a loader, step by step.

    What a batch holds is a function of the step alone, so that a stream may begin at any step.

    Args:
        make: The batch of a step: tensors in tuples, lists and dicts. It is called in the worker processes.
        loading: How many processes, and how far ahead they work.
        device: Where batches are wanted.
    """

    def __init__(self, make: Callable[[int], Any], loading: Loading, device: torch.device) -> None:
        self._steps, self.loading, self.device = _Steps(make), loading, device
        self._next: int | None = None
        self._batches: Iterator[Any] = iter(())
        self.waited = 0.0
        """Seconds in which :meth:`batch` waited; the first batch after a start does not count."""

    def batch(self, step: int) -> Any:
        """The batch of a step, on the device. Steps that follow each other are made ahead.

        Raises:
            DataError: An example cannot be read, or a worker process died.
        """
        begins = step != self._next
        if begins:
            self._batches = self._started(step)
        begin = time.perf_counter()
        try:
            found = next(self._batches)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise DataError(
                f"a process that loads data died ({str(error).splitlines()[0]}): most often there was too little "
                "memory; lower data.workers or data.prefetch"
            ) from error
        if not begins:
            self.waited += time.perf_counter() - begin
        if isinstance(found, _Failure):
            raise DataError(found.message)
        self._next = step + 1
        return map_tensors(lambda tensor: tensor.to(self.device, non_blocking=True), found)

    def close(self) -> None:
        """End the worker processes; the next batch starts them again."""
        self._batches, self._next = iter(()), None

    def _started(self, step: int) -> Iterator[Any]:
        self.close()
        workers = self.loading.workers
        if workers is None:
            workers = max(torch.get_num_threads() - 1, 1) if self.device.type == "cuda" else 1
        loader: DataLoader[Any] = DataLoader(
            self._steps,
            batch_size=None,
            sampler=itertools.count(step),
            num_workers=workers,
            prefetch_factor=self.loading.prefetch if workers else None,
            pin_memory=self.device.type == "cuda",
        )
        return iter(loader)
