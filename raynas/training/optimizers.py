"""Optimizers by the name of their class in ``torch.optim``.

Every one that is legal leaves a parameter without a gradient as it is, by the bit: no momentum, no decay and no moving
average moves it. In a supernet these are the parameters that are not on the path of a step.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from raynas.config.train import TrainConfig
from raynas.exceptions import ConfigError

__all__ = ["OPTIMIZERS", "check_optimizer", "load_optimizer_state", "make_optimizer", "optimizer_state"]

OPTIMIZERS = ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop")
_REFUSED = {
    "LBFGS": "it evaluates the loss several times a step",
    "SparseAdam": "it takes sparse gradients only",
    "ASGD": "its average is over all steps, also those of other paths; average_after averages a network by itself",
    "Rprop": "it is for whole data sets, not for batches",
}
_OWN = ("params", "lr", "weight_decay")
"""Arguments that settings of their own give."""


def check_optimizer(recipe: TrainConfig, searched: Collection[str] = ()) -> None:
    """Refuse an optimizer, or arguments of it, that cannot be used.

    Args:
        recipe: The settings as they were given; what is open comes from the preset.
        searched: Settings that are searched together with the architecture.

    Raises:
        ConfigError: An unknown name or argument, an illegal value, or no learning rate: those of presets are of SGD.
    """
    name = recipe.optimizer
    if name not in OPTIMIZERS:
        why = f": {_REFUSED[name]}" if name in _REFUSED else ""
        raise ConfigError(f"train.optimizer = {name!r} cannot be used{why}; legal ones: {', '.join(OPTIMIZERS)}")
    if name != "SGD":
        for given, value in (("momentum", recipe.momentum), ("nesterov", recipe.nesterov or None)):
            if value is not None or given in searched:
                raise ConfigError(
                    f"train.{given} is of SGD, and train.optimizer is {name}: leave it out, and give "
                    f"train.optimizer_args what {name} takes: {', '.join(_legal(name))}"
                )
        if recipe.lr is None and "lr" not in searched:
            raise ConfigError(f"train.optimizer = {name} needs train.lr, e.g. 1e-3: those of the presets are of SGD")
    unknown = [argument for argument in recipe.optimizer_args if argument not in _legal(name)]
    if unknown:
        raise ConfigError(f"train.optimizer_args: {name} has no {unknown[0]!r}; legal ones: {', '.join(_legal(name))}")
    try:
        make_optimizer(nn.Linear(1, 1), recipe.resolved(), recipe.resolved().lr or 1.0)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"train.optimizer_args = {dict(recipe.optimizer_args)}: {error}") from None


def _legal(name: str) -> list[str]:
    own = (*_OWN, "momentum", "nesterov") if name == "SGD" else _OWN
    return [parameter for parameter in inspect.signature(getattr(torch.optim, name)).parameters if parameter not in own]


def make_optimizer(model: nn.Module, recipe: TrainConfig, lr: float) -> torch.optim.Optimizer:
    """The optimizer of the parameters that require gradients; biases and norms, of one dimension, have no decay.

    Args:
        model: The parameters are those of this model, in its order.
        recipe: Nothing open.
        lr: The learning rate of the first step.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    arguments: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in recipe.optimizer_args.items()
    }
    if recipe.optimizer == "SGD":
        arguments |= {"momentum": recipe.momentum, "nesterov": recipe.nesterov}
    optimizer: torch.optim.Optimizer = getattr(torch.optim, recipe.optimizer)(groups, lr=lr, **arguments)
    return optimizer


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimizer keeps of each parameter, by ``optimizer/<number of the parameter>/<name>``.

    The momentum of SGD has the name ``momentum/<number>``, as in checkpoints of earlier versions.
    """
    found: dict[str, Tensor] = {}
    for number, parameter in enumerate(_parameters(optimizer)):
        for name, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                plain = name == "momentum_buffer"
                found[f"momentum/{number}" if plain else f"optimizer/{number}/{name}"] = torch.as_tensor(value)
    return found


def load_optimizer_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Go on with what :func:`optimizer_state` returned, among other tensors."""
    kept: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "momentum":
            kept.setdefault(int(rest), {})["momentum_buffer"] = value
        elif kind == "optimizer":
            place, _, part = rest.partition("/")
            kept.setdefault(int(place), {})[part] = value
    for number, parameter in enumerate(_parameters(optimizer)):
        optimizer.state.pop(parameter, None)
        for name, value in kept[number].items() if number in kept else ():
            if value.shape == parameter.shape and name != "step":
                # A copy like the parameter keeps its memory format: the update runs at the same speed as before.
                own = torch.empty_like(parameter).copy_(value)
            else:
                own = value.clone().to(_place(optimizer, name, parameter))
            optimizer.state[parameter][name] = own


def _place(optimizer: torch.optim.Optimizer, name: str, parameter: Tensor) -> torch.device:
    """Where a state of another shape belongs: counts of steps stay on the CPU, unless the optimizer is captured."""
    captured = any(group.get("capturable") or group.get("fused") for group in optimizer.param_groups)
    return parameter.device if name != "step" or captured else torch.device("cpu")


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
