"""One look at what the networks of a space return, before anything is trained for long."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from raynas.architecture import Architecture
from raynas.config.train import TrainConfig
from raynas.costs.counter import Costs
from raynas.exceptions import ForwardError
from raynas.nn.forward_errors import Blame, forward_error, module_of_first_nan, options_to_blame
from raynas.nn.space import chosen
from raynas.nn.subnet import assemble
from raynas.tasks.base import RankInfo, Task, TrainLoader

__all__ = ["check_first_batch"]

_EXAMPLES = 8
_SAMPLES = 32
"""So many architectures are drawn to find a large and a small one, beside those that cover all options."""


def check_first_batch(space: nn.Module, costs: Costs, task: Task, recipe: TrainConfig, seed: int) -> None:
    """Train and evaluate a few architectures on the first examples, once, on the CPU; nothing is changed.

    The largest and the smallest of some and a random one are trained and evaluated: outputs of a form that the task can
    use, a loss that is a number, and a gradient. A few more, which cover all options, are run forward.

    Args:
        space: With its choices.
        costs: Of the space.
        task: Of the data.
        recipe: The training settings.
        seed: Draws the architectures and the examples.

    Raises:
        ForwardError: One fails; the message says in which module, at which line and because of which option.
    """
    rng = random.Random(seed)
    covering = costs.covering()
    drawn = [*covering, *(costs.sample(rng) for _ in range(_SAMPLES))]
    by_size = sorted(drawn, key=lambda form: costs(form)["parameters"])
    settings = dataclasses.replace(recipe.resolved(), batch_size=_EXAMPLES)
    cpu = torch.device("cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        check = _Check(space, costs, task, task.train_loader(settings, seed, RankInfo(), cpu, False))
        looked: list[Architecture] = []
        for form in (by_size[-1], by_size[0], drawn[-1], *covering):
            if form not in looked:
                looked.append(form)
                check(form, backward=len(looked) <= 3)


class _Check:
    """Runs architectures on one batch."""

    def __init__(self, space: nn.Module, costs: Costs, task: Task, loader: TrainLoader) -> None:
        self.space, self.costs, self.task, self.loader = space, costs, task, loader
        self.batch = loader.batch(0)

    def __call__(self, form: Architecture, backward: bool) -> None:
        network = self._network(form)
        steps: list[Callable[[nn.Module], Any]] = [self._train, *([self._evaluate] if backward else [])]
        for step in steps:
            try:
                with torch.set_grad_enabled(backward):
                    found = step(network)
            except ForwardError as error:
                blame = self._blame(form, step)
                raise ForwardError(f"{blame}: {error}{blame.cure}") from None
            except Exception as error:  # whatever the code of a user raises
                raise forward_error(error, network, step, self._blame(form, step)) from error
            self._check_numbers(network, form, step, found)
            if step == self._train and backward:
                self._backward(network, form, found)

    def _network(self, architecture: Mapping[str, str]) -> nn.Module:
        return assemble(self.space, chosen(self.space, architecture))

    def _blame(self, form: Architecture, step: Callable[[nn.Module], Any]) -> Blame:
        def works(network: nn.Module) -> bool:
            with torch.enable_grad():
                return bool(torch.isfinite(step(network)).all())

        return options_to_blame(self.space, form, self.costs.decisions, lambda _, other: self._network(other), works)

    def _train(self, network: nn.Module) -> Tensor:
        """The loss of the batch."""
        inputs, targets = self.batch
        outputs = self.loader.forward(network.train(), inputs)
        self.task.check_outputs(outputs, len(inputs), training=True)
        return self.loader.loss(outputs, targets)

    def _evaluate(self, network: nn.Module) -> Tensor:
        """The summed loss of the batch in evaluation."""
        inputs, targets = self.batch
        network.eval()
        with torch.no_grad():
            if type(self.task).check_outputs is not Task.check_outputs:
                self.task.check_outputs(network(inputs), len(inputs), training=False)
            found, _ = self.task.evaluate_batch(network, inputs, targets, None)
        return found

    def _check_numbers(
        self, network: nn.Module, form: Architecture, step: Callable[[nn.Module], Any], found: Tensor
    ) -> None:
        if bool(torch.isfinite(found).all()):
            return
        module = module_of_first_nan(network, step)
        place = f", first in {module}" if module else ""
        blame = self._blame(form, step)
        raise ForwardError(f"{blame} gives NaN or infinity with initial weights{place}: change the option{blame.cure}")

    def _backward(self, network: nn.Module, form: Architecture, loss: Tensor) -> None:
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        if not trained or not loss.requires_grad:
            raise ForwardError(
                f"{type(self.space).__name__} has nothing to train: "
                + (
                    "its loss does not depend on a parameter"
                    if trained
                    else "none of its parameters requires a gradient"
                )
            )
        everything = list(self.space.parameters())
        before = [parameter.grad for parameter in everything]

        def both(again: nn.Module) -> Tensor:
            found = self._train(again)
            found.backward()
            return found

        try:
            loss.backward()
        except Exception as error:  # whatever the code of a user raises
            raise forward_error(error, network, both, self._blame(form, both)) from error
        finally:
            for parameter, gradient in zip(everything, before, strict=True):
                parameter.grad = gradient
