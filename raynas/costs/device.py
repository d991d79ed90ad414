"""How long a network takes to answer, and the actor that finds it out where it matters."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from torch import Tensor, nn

from raynas.config.run import LatencyConfig
from raynas.distributed import health as watch
from raynas.distributed.nodes import TIMEOUT, last_line
from raynas.distributed.placement import check_room
from raynas.exceptions import ConfigError
from raynas.nn.subnet import derive

__all__ = ["LatencyBenchmark", "Timing", "TimingActor", "time_network"]


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one network."""

    ms: float
    """The median of all runs that were measured."""
    spread: float
    """The distance between their quartiles."""


@torch.inference_mode()
def time_network(network: nn.Module, inputs: Tensor, warmup: int = 5, repeats: int = 20) -> Timing:
    """Metric a network in evaluation mode.

    Args:
        network: Stays where it is, and in the mode that it is in, afterwards.
        inputs: A batch, on the device of the network.
        warmup: Runs that do not count.
        repeats: Runs that do.
    """
    was_training = network.training
    network.eval()
    taken = []
    for number in range(warmup + repeats):
        _synchronise(inputs.device)
        begin = time.perf_counter()
        network(inputs)
        _synchronise(inputs.device)
        if number >= warmup:
            taken.append(1000 * (time.perf_counter() - begin))
    network.train(was_training)
    low, median, high = statistics.quantiles(taken, n=4, method="inclusive")
    return Timing(median, high - low)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # what was asked of a GPU goes on after the call


class TimingActor:
    """One process on the device that networks are measured on, where it measures one after the other.

    Args:
        packed: The pickled reference to the space. Its weights do not matter.
        shape: Of the input, with the batch.
        dtype: Of that.
        settings: How to measure.
    """

    def __init__(self, packed: bytes, shape: Sequence[int], dtype: torch.dtype, settings: LatencyConfig) -> None:
        self.settings = settings
        cuda = torch.cuda.is_available()  # Ray hides no GPU from an actor that asked for none
        if settings.device == "cuda" and not cuda:
            raise RuntimeError("latency.device = cuda, but torch finds no GPU there")
        self.device = torch.device("cuda" if cuda and settings.device != "cpu" else "cpu")
        torch.set_num_threads(settings.threads)
        self.space: nn.Module = watch.get(ray.cloudpickle.loads(packed)).to(self.device)
        self.inputs = torch.zeros(*shape, dtype=dtype, device=self.device)

    def __repr__(self) -> str:
        return "latency"

    def measure(self, architecture: Mapping[str, str]) -> Timing:
        """Metric the network of an architecture."""
        network = derive(self.space, architecture)
        return time_network(network, self.inputs, self.settings.warmup, self.settings.repeats)

    def name(self) -> str:
        """The device, such that figures of two devices are not mixed up."""
        if self.device.type == "cuda":
            return str(torch.cuda.get_device_name(self.device))
        threads = "1 thread" if self.settings.threads == 1 else f"{self.settings.threads} threads"
        return f"{_processor()}, {threads}"


def _processor() -> str:
    """The processor as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return named[0] if named else platform.machine()


class LatencyBenchmark:
    """The driver's side of a :class:`TimingActor`, which is started when it is asked first.

    Args:
        space: Of which networks are measured.
        example: An input of the networks; its shape and type count.
        settings: Where and how.
    """

    def __init__(self, space: nn.Module, example: Tensor, settings: LatencyConfig) -> None:
        self.space, self.settings = space, settings
        self.input_form = tuple(example.shape), example.dtype
        self._actor: Any = None
        self._space: Any = None

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its searcher, and with it whoever measures what it proposes.
        return {**self.__dict__, "space": None, "_actor": None, "_space": None}

    def measure(self, architecture: Mapping[str, str]) -> Timing:
        """Metric the network of an architecture.

        Raises:
            ConfigError: The cluster has no such device.
            RuntimeError: It is in use by others, failed or was lost.
        """
        found: Timing = self._ask(self._started().measure.remote(dict(architecture)))
        return found

    def name(self) -> str:
        """The device; raises as :meth:`measure` does."""
        return str(self._ask(self._started().name.remote()))

    def _ask(self, answer: Any) -> Any:
        try:
            return ray.get(answer, timeout=TIMEOUT)
        except GetTimeoutError:
            self.close()
            raise RuntimeError(f"latency.place = {self.settings.place}: no answer within {TIMEOUT:g} seconds") from None
        except RayError as error:
            self.close()
            raise RuntimeError(f"latency.place = {self.settings.place}: {last_line(error)}") from error

    def _started(self) -> Any:
        if self._actor is None:
            options = where(str(self.settings.place))
            self._space = ray.put(self.space)
            packed = bytes(ray.cloudpickle.dumps(self._space))
            self._actor = ray.remote(TimingActor).options(**options).remote(packed, *self.input_form, self.settings)
        return self._actor

    def close(self) -> None:
        """End the actor."""
        if self._actor is not None:
            ray.kill(self._actor)
        self._actor = self._space = None


def where(on: str) -> dict[str, Any]:
    """Options of an actor that is to run in the place that ``latency.place`` names.

    Raises:
        ConfigError: No node of the cluster is, or has, what it names.
        RuntimeError: Others use it.
    """
    options: dict[str, Any] = {"num_cpus": 0, "max_restarts": 2, "max_task_retries": 2}
    nodes = [node for node in ray.nodes() if node["Alive"]]
    name, separator, value = on.partition("=" if "=" in on else ":")
    if on == "local":
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        return options | {"scheduling_strategy": here}
    if separator == "=":
        if not any(node["Labels"].get(name) == value for node in nodes):
            raise ConfigError(f"latency.place = {on}: no node has this label; start one with ray start --labels={on}")
        return options | {"label_selector": {name: value}}
    amount = float(value)
    if not any(node["Resources"].get(name, 0.0) >= amount for node in nodes):
        there = sorted({kind for node in nodes for kind in node["Resources"] if ":" not in kind})
        raise ConfigError(
            f"latency.place = {on}: no node has so much of the resource {name!r} (there are {', '.join(there)}); start "
            f"one with ray start --num-cpus=0 --resources='{{\"{name}\": {value}}}'"
        )
    check_room([{name: amount}], "measurement of latency")
    own = {"CPU": "num_cpus", "GPU": "num_gpus"}  # Ray has names of its own for what every node has
    return options | ({own[name]: amount} if name in own else {"resources": {name: amount}})
