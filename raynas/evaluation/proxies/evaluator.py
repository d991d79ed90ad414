"""Zero-cost proxies of a space: which scores there are, and their computation from the initial weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor, nn

from raynas.costs.counter import Costs
from raynas.data.dataset import Data, Dataset
from raynas.evaluation.proxies.az_nas import SCORES, az_nas, blocks
from raynas.evaluation.proxies.scores import PROXIES, activates
from raynas.exceptions import ConfigError
from raynas.nn.subnet import derive
from raynas.search_space.constraints import COSTS
from raynas.tasks.classification import to_input
from raynas.utils.imports import resolve
from raynas.utils.seeds import seed_of

__all__ = ["ZeroCostProxies", "check_scores", "parts"]

_LEGAL = (*PROXIES, "az_nas", *COSTS)


def check_scores(given: str | Sequence[str], setting: str) -> list[str]:
    """The names of scores.

    Args:
        given: One, or several: of ``raynas.evaluation.proxies.scores.PROXIES``, ``az_nas``, ``macs``, ``parameters``,
            or of functions of a network, images and labels, ``my_pkg.module:name``.
        setting: Which holds them, for the message.

    Raises:
        ConfigError: One is unknown, or is named twice.
    """
    names = [given] if isinstance(given, str) else list(given)
    for name in names:
        if ":" in name:
            resolve(name, setting)
        elif name not in _LEGAL:
            raise ConfigError(
                f"{setting}: unknown {name!r}; legal ones: {', '.join(_LEGAL)}, or a function my_pkg.module:name"
            )
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"{setting} = {given!r} must name scores, each once")
    return names


def parts(names: Sequence[str]) -> list[str]:
    """The figures that scores are made of."""
    return [part for name in names for part in (SCORES if name == "az_nas" else (name,))]


@dataclass(frozen=True)
class ZeroCostProxies:
    """A space with its initial weights, and the images and scores by which its networks are evaluated."""

    space: nn.Module
    costs: Costs
    inputs: Tensor
    """Normalised training images: [N, C, H, W]."""
    targets: Tensor
    names: Sequence[str]
    """The scores; see :func:`check_scores`."""

    @classmethod
    def of(
        cls, space: nn.Module, costs: Costs, data: Data, names: Sequence[str], images: int, seed: int
    ) -> ZeroCostProxies:
        """Proxies on a number of training images, which depend on the seed only.

        Raises:
            ConfigError: naswot is requested, and the space has no activations; or the data are no images.
        """
        if not isinstance(data, Dataset):
            raise ConfigError(f"scores without training are for images, and {data.name} is a text")
        train = data.train
        generator = torch.Generator().manual_seed(seed_of(seed, "zero-cost"))
        chosen = torch.randperm(len(train), generator=generator)[:images]
        inputs = to_input(train.images(chosen), data)
        rng = Random(0)
        some = [costs.sample(rng) for _ in range(5)] if "naswot" in names else []
        if some and not any(activates(derive(space, architecture), inputs[:2]) for architecture in some):
            raise ConfigError("naswot counts what ReLU and its like switch, but the space has none: take another score")
        return cls(space, costs, inputs, train.targets[chosen], names)

    def to(self, device: torch.device) -> ZeroCostProxies:
        """The same on a device."""
        moved = self.space.to(device), self.inputs.to(device), self.targets.to(device)
        return ZeroCostProxies(moved[0], self.costs, *moved[1:], self.names)

    def measure(self, architecture: Mapping[str, str]) -> dict[str, float]:
        """The figures of one architecture by name; see :func:`parts`."""
        network = derive(self.space, architecture)
        found: dict[str, float] = {}
        for name in self.names:
            if name == "az_nas":
                macs = float(self.costs(architecture)["macs"])
                found |= az_nas(network, blocks(self.space), self.inputs, macs)
            elif name in COSTS:
                found[name] = float(self.costs(architecture)[name])
            else:
                found[name] = float(_proxy(name)(network, self.inputs, self.targets))
        return found


def _proxy(name: str) -> Callable[[nn.Module, Tensor, Tensor], float]:
    function: Callable[[nn.Module, Tensor, Tensor], float] = PROXIES.get(name) or resolve(name, "score")
    return function
