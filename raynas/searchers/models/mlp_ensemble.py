"""An ensemble of small multilayer perceptrons in NumPy, with randomized prior functions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["MLPEnsemble"]

Array = npt.NDArray[np.float32]


class MLPEnsemble:
    """M small networks of three layers, trained side by side by Adam, each from its own start on its own batches.

    To each belongs another one that is never trained and to whose output it adds what is missing (Osband et al.,
    "Randomized Prior Functions for Deep Reinforcement Learning", 2018): the members differ where nothing was scored.

    Args:
        members: M.
        rng: Gives the starting weights and the batches: same generator, same networks.
        width: Of the two hidden layers.
    """

    def __init__(self, members: int, rng: np.random.Generator, width: int = 32) -> None:
        self._members, self._rng, self._width = members, rng, width
        self.weights: list[Array] = []
        self._fixed: list[Array] = []

    def fit(self, inputs: Array, targets: Array, steps: int = 300, batch: int = 32, rate: float = 0.03) -> None:
        """Learn N inputs [N, D] and their targets [N], of mean 0 and deviation 1, by least squares."""
        self._fixed, self.weights = self._initialize(inputs.shape[1]), self._initialize(inputs.shape[1])
        missing = targets - self._outputs(inputs, self._fixed)
        moments = [(np.zeros_like(w), np.zeros_like(w)) for w in self.weights]
        for step in range(1, steps + 1):
            rows = self._rng.integers(len(inputs), size=(self._members, min(batch, len(inputs))))
            scale = rate * (1 - step / (steps + 1)) * math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            for weight, gradient, (first, second) in zip(
                self.weights, self.gradients(inputs[rows], np.take_along_axis(missing, rows, 1)), moments, strict=True
            ):
                first += 0.1 * (gradient - first)
                second += 0.001 * (gradient * gradient - second)
                weight -= scale * first / (np.sqrt(second) + 1e-8)

    def _initialize(self, inputs: int) -> list[Array]:
        """Weights and biases of every layer, for so many inputs."""
        values: list[Array] = []
        for fan_in, fan_out in itertools.pairwise([inputs, self._width, self._width, 1]):
            shape = (self._members, fan_in, fan_out)
            values.append(self._rng.normal(0.0, math.sqrt(2 / fan_in), shape).astype(np.float32))
            values.append(np.zeros((self._members, 1, fan_out), np.float32))
        return values

    def forward(self, inputs: Array, weights: Sequence[Array]) -> list[Array]:
        """Inputs and outputs of the layers, each [M, B, ...]."""
        values = [inputs]
        for place in range(0, len(weights), 2):
            raw = values[-1] @ weights[place] + weights[place + 1]
            values.append(raw if place + 2 == len(weights) else np.maximum(raw, 0.0))
        return values

    def _outputs(self, inputs: Array, weights: Sequence[Array]) -> Array:
        """Outputs of the networks for N inputs [N, D]: [M, N]."""
        return self.forward(np.broadcast_to(inputs, (self._members, *inputs.shape)), weights)[-1][..., 0]

    def gradients(self, inputs: Array, targets: Array) -> list[Array]:
        """Gradients of the mean squared error in every weight and bias."""
        values = self.forward(inputs, self.weights)
        back = 2 * (values[-1] - targets[..., None]) / targets.shape[1]
        gradients: list[Array] = []
        for place in range(len(self.weights) - 2, -1, -2):
            entering = values[place // 2]
            gradients = [entering.transpose(0, 2, 1) @ back, back.sum(1, keepdims=True), *gradients]
            back = (back @ self.weights[place].transpose(0, 2, 1)) * (entering > 0)
        return gradients

    def predict(self, inputs: Array) -> tuple[Array, Array]:
        """Mean and deviation [N] of the members' predictions for N inputs [N, D]."""
        each = self._outputs(inputs, self._fixed) + self._outputs(inputs, self.weights)
        return each.mean(0), each.std(0)
