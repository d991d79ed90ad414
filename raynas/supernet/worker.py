"""What a supernet actor does inside its process: the space, the data and the weights live here."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import ray
import torch
import torch.distributed as dist
from torch import Tensor, nn

from raynas.architecture import Architecture
from raynas.config.run import Config, SearchConfig
from raynas.data.dataset import Data, from_arrays
from raynas.distributed import health as watch
from raynas.distributed.monitoring import ActorMetrics
from raynas.distributed.rendezvous import meet
from raynas.evaluation.scorer import Scorer
from raynas.tasks.base import RankInfo
from raynas.training.path_sampling import PathSampler
from raynas.training.trainer import Progress, Trainer, best_device, place_model, use_assigned_cpus, use_bfloat16

__all__ = ["FlatWeights", "SupernetWorker", "flatten_weights"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FlatWeights:
    """Weights on their way to actors: one flat array, which travels through the object store without a copy."""

    values: np.ndarray[Any, np.dtype[np.uint8]]
    index: tuple[tuple[str, torch.dtype, tuple[int, ...], int], ...]
    """Name, type, shape and first byte of each tensor."""

    def tensors(self) -> dict[str, Tensor]:
        """The tensors as copies of their own: the array behind them belongs to every actor of the node."""
        result = {}
        for name, dtype, shape, start in self.index:
            tensor = torch.empty(shape, dtype=dtype)
            target = tensor.reshape(-1).view(torch.uint8).numpy()
            target[:] = self.values[start : start + target.nbytes]
            result[name] = tensor
        return result


def flatten_weights(tensors: Mapping[str, Tensor]) -> FlatWeights:
    """Lay tensors out in one array; see :class:`FlatWeights`."""
    index, chunks, start = [], [], 0
    for name, tensor in tensors.items():
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        index.append((name, tensor.dtype, tuple(tensor.shape), start))
        chunks.append(data)
        start += data.nbytes
    return FlatWeights(np.concatenate(chunks) if chunks else np.zeros(0, np.uint8), tuple(index))


@dataclass
class _Request:
    """The request of one caller, answered together with those that came in meanwhile."""

    architectures: Sequence[Architecture]
    slice: int
    answer: list[dict[str, Any]] = field(default_factory=list)
    error: Exception | None = None
    done: bool = False


class SupernetWorker:
    """One process that hosts the space. Trains as a rank among others, or scores as a replica among others.

    Args:
        space: With the weights to begin with.
        data: What to train and score on.
        config: The run's settings.
        name: Of the actor, for what it scores.
    """

    def __init__(self, space: nn.Module, data: Data, config: Config, name: str) -> None:
        self.space, self.data, self.config, self.name = space, data, config, name
        self.trainer: Trainer | None = None
        self.scorer: Scorer | None = None
        self.metrics = ActorMetrics(str(config.name), name)
        self._waiting: list[_Request] = []
        self._in_work = 0
        self._queue, self._computing = threading.Lock(), threading.Lock()

    @classmethod
    def unpack(cls, packed: bytes, config: Config, name: str) -> SupernetWorker:
        """Make a worker from the bytes of ``ActorPayload.pack``, with the threads that Ray gave its process."""
        use_assigned_cpus()
        payload = ray.cloudpickle.loads(packed)
        space = watch.get(payload.space)
        if payload.weights is not None:
            space.load_state_dict(watch.get(payload.weights).tensors())
        return cls(space, from_arrays(watch.get(payload.arrays)), config, name)

    def join(self, paths: PathSampler | None, rank: int, world: int, address: str) -> int:
        """Become rank ``rank`` of ``world`` and prepare to train; returns the steps of an epoch."""
        if world > 1:
            # NCCL refuses two ranks on one GPU.
            whole = ray.get_runtime_context().get_assigned_resources().get("GPU", 0) >= 1
            backend = "nccl" if whole and best_device().type == "cuda" else "gloo"
            timeout = timedelta(minutes=10)
            store = meet(address, rank, world, timeout)
            dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)
        self.trainer = Trainer(self.space, self.data, self.config.train, paths, self.config.seed, RankInfo(rank, world))
        return self.trainer.epoch_steps

    def follow(self, paths: PathSampler) -> None:
        """Train other paths from now on."""
        assert self.trainer is not None
        self.trainer.paths = paths

    def train(self, until: int, total: int, lr_factor: float = 1.0) -> Progress:
        """Train up to step ``until`` of a schedule of ``total`` steps. Steps already done are not repeated."""
        assert self.trainer is not None
        self.trainer.total_steps, self.trainer.lr_factor = total, lr_factor
        progress = self.trainer.run(until)
        self.metrics.worked(progress.seconds, images=progress.images // self.trainer.world)
        return progress

    def save(self) -> FlatWeights:
        """All tensors of a checkpoint: weights and momentum."""
        assert self.trainer is not None
        return flatten_weights(self.trainer.state())

    def load(self, tensors: FlatWeights, step: int) -> None:
        """Continue from what ``save`` returned at ``step``."""
        assert self.trainer is not None
        self.trainer.load_state(tensors.tensors(), step)

    def evaluate(self, architectures: Sequence[Architecture], number: int) -> list[dict[str, float | str]]:
        """Answer slice ``number`` of the validation images with each architecture; see :class:`Scorer`.

        Safe to call from many trials at once: whoever finds the processor free answers all that wait, together, so
        that images are prepared once for all of them.

        Returns:
            For each architecture ``correct``, ``images``, ``loss``, ``seconds`` (its share) and ``worker``.
        """
        request = _Request(architectures, number)
        with self._queue:
            self._waiting.append(request)
        with self._computing:
            if not request.done:
                with self._queue:
                    together, self._waiting = self._waiting, []
                self._in_work = len(together)
                try:
                    self._answer(together)
                except Exception as error:
                    for each in together:
                        each.error = each.error or error
                finally:
                    self._in_work = 0
                    for each in together:
                        each.done = True
        if request.error is not None:
            raise request.error
        return [{**tally, "worker": self.name} for tally in request.answer]

    def rescore(self, architectures: Sequence[Architecture], images: int | None = None) -> list[float]:
        """The scores on all validation data, or so many images or words, with the weights of now."""
        everything = dataclasses.replace(self.config.search, slices=1, validation_images=images)
        with self._computing:
            scorer = self._make_scorer(everything)
            return [scorer.task.metric(tally) for tally in scorer.score(architectures, 0)]

    def waiting(self) -> int:
        """Number of requests that are being answered or wait; trials choose their replica by it."""
        return len(self._waiting) + self._in_work

    def _answer(self, requests: Sequence[_Request]) -> None:
        """Score all requests, those for the same slice in one go."""
        if self.scorer is None:
            self.scorer = self._make_scorer(self.config.search)
        for number in sorted({request.slice for request in requests}):
            group = [request for request in requests if request.slice == number]
            try:
                self._score(group)
            except Exception as error:
                # One bad architecture must not cost the others their answers.
                log.debug("scoring one by one, because of: %s", error)
                for request in group:
                    self._score_singly(request)

    def _score_singly(self, request: _Request) -> None:
        """Score the architectures one by one; where there are several, the answer of one that fails is its error."""
        for architecture in request.architectures:
            single = _Request([architecture], request.slice)
            try:
                self._score([single])
                request.answer += single.answer
            except Exception as error:
                if len(request.architectures) == 1:
                    request.error = error
                else:
                    request.answer.append({"error": f"{type(error).__name__}: {error}"})

    def _make_scorer(self, settings: SearchConfig) -> Scorer:
        place_model(self.space, best_device())
        return Scorer(self.space, self.data, settings, use_bfloat16(self.config.train.precision))

    def _score(self, group: Sequence[_Request]) -> None:
        assert self.scorer is not None
        begin = time.perf_counter()
        architectures = [architecture for request in group for architecture in request.architectures]
        tallies = self.scorer.score(architectures, group[0].slice)
        seconds = (time.perf_counter() - begin) / len(architectures)
        self.metrics.worked(seconds * len(architectures), scores=len(architectures))
        for request in group:
            request.answer = [{**tally, "seconds": seconds} for tally in tallies[: len(request.architectures)]]
            tallies = tallies[len(request.architectures) :]
