"""Batches that worker processes make ahead of the steps that need them, for data that do not fit into memory."""

from __future__ import annotations

import itertools
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ray
import torch
from torch.utils.data import DataLoader, Dataset

from raynas.exceptions import DataError
from raynas.utils.structures import map_arrays, map_tensors
from raynas.utils.user_code import one_line_with_place

__all__ = ["BatchStream", "Loading"]

BATCH_SECONDS = 120.0
"""Seconds within which a batch must come from the cluster."""


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
    remote: bool = False
    """Whether Ray tasks make batches, on any node of the cluster with a free CPU. Without Ray the rank makes them."""
    why: str = ""
    """Why examples are not in memory, for people."""


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
            return _Failure(one_line_with_place(error))


class _RemoteBatches(Iterator[Any]):
    """Batches that Ray tasks make, some steps ahead.

    Args:
        steps: The batch of each step.
        first: The first step.
        ahead: How many tasks there are at a time.

    Raises:
        DataError: No CPU of the cluster is free for them.
    """

    def __init__(self, steps: _Steps, first: int, ahead: int) -> None:
        self._steps, self._next, self._ahead = ray.put(steps), first, ahead
        self._task = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(_make)
        self._made: deque[Any] = deque()

    def __next__(self) -> Any:
        while len(self._made) < self._ahead:
            self._made.append(self._task.remote(self._steps, self._next))
            self._next += 1
        reference = self._made.popleft()
        if not ray.wait([reference], timeout=BATCH_SECONDS)[0]:
            free = ray.available_resources().get("CPU", 0.0)
            raise DataError(
                f"data.loader = ray: no batch was made within {BATCH_SECONDS:g} s, and {free:g} CPUs of the cluster "
                "are free: each batch needs one; add nodes, lower train.cpus_per_worker, or set data.loader=streaming"
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable")  # of Ray's store; batches are only read
            return map_arrays(torch.from_numpy, ray.get(reference, timeout=BATCH_SECONDS))


def _make(steps: _Steps, step: int) -> Any:
    """The batch of a step with arrays, which Ray passes without copying."""
    return map_tensors(lambda tensor: tensor.numpy(), steps[step])


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
        except (RuntimeError, ConnectionError, EOFError) as error:
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise DataError(
                f"a process that loads data died ({why}): most often there was too little memory; "
                "lower data.workers or data.prefetch"
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
        if self.loading.remote:
            if ray.is_initialized():
                return _RemoteBatches(self._steps, step, max(workers, 1) * self.loading.prefetch)
            workers = 0
        loader: DataLoader[Any] = DataLoader(
            self._steps,
            batch_size=None,
            sampler=itertools.count(step),
            num_workers=workers,
            prefetch_factor=self.loading.prefetch if workers else None,
            pin_memory=self.device.type == "cuda",
        )
        return iter(loader)
