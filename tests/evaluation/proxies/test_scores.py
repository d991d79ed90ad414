"""Zero-cost scores against references of their own: products of matrices, codes written out, numerical differences."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import tiny
from raynas.spaces.nasbench201 import from_string, nasbench201
from raynas.spaces.nasbench_macro import nasbench_macro
from torch import Tensor, nn
from torch.nn import functional as F

from raynas.evaluation.proxies.az_nas import SCORES, az_nas, blocks
from raynas.evaluation.proxies.scores import LOWEST, PROXIES, activates, naswot, synflow, zico
from raynas.nn.subnet import derive
from raynas.training.trainer import place_model

torch.manual_seed(0)
IMAGES, LABELS = torch.randn(8, 3, 8, 8), torch.randint(4, (8,))
CUT = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x3~2|"
CELLS = [
    "|skip_connect~0|+|none~0|none~1|+|none~0|avg_pool_3x3~1|none~2|",
    "|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|",
]


def perceptron(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after, bias=False), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cell_network(text: str, affine: bool = True) -> tuple[nn.Module, list[str]]:
    torch.manual_seed(1)
    space = nasbench201(4, channels=4, cells=1, affine=affine)
    return derive(space, from_string(text)), blocks(space)


def test_synflow_is_the_product_of_the_weights_times_the_layers() -> None:
    # Every layer of a chain holds the same flow, which is the output itself (Tanaka et al., theorem 1).
    network = perceptron(12, 7, 5, 4)
    product = np.ones(12)
    for layer in network:
        if isinstance(layer, nn.Linear):
            product = np.abs(layer.weight.detach().double().numpy()) @ product
    images = torch.randn(2, 3, 2, 2)
    assert synflow(network, images, LABELS) == pytest.approx(math.log(3 * product.sum()), rel=1e-12)


def test_synflow_needs_no_data_and_sees_no_signs_or_normalisation() -> None:
    network, _ = cell_network(CELLS[1])
    score = synflow(network, IMAGES, LABELS)
    assert synflow(network, torch.full_like(IMAGES, math.nan), LABELS) == score
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean += 3.0
            nn.init.constant_(module.weight, 0.01)
    flipped, _ = cell_network(CELLS[1])
    with torch.no_grad():
        for parameter in flipped.parameters():
            parameter.mul_(torch.where(torch.rand_like(parameter) < 0.5, -1.0, 1.0))
    assert synflow(network, IMAGES, LABELS) == score == pytest.approx(synflow(flipped, IMAGES, LABELS))


def test_synflow_of_a_deep_network_is_finite() -> None:
    network = perceptron(12, *[32] * 400, 4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(5.0)
    assert 300 < synflow(network, torch.randn(2, 3, 2, 2), LABELS) < math.log(1.8e308) + 1


def agreements(network: nn.Sequential, inputs: Tensor) -> np.ndarray:
    """NASWOT's matrix image by image: codes of the signs, and where they are the same."""
    codes = []
    for image in inputs:
        code, x = [], image[None]
        for layer in network:
            if isinstance(layer, (nn.ReLU, nn.ReLU6)):
                code += (x > 0).flatten().tolist()
            x = layer(x)
        codes.append(code)
    return np.array([[sum(a == b for a, b in zip(one, other, strict=True)) for other in codes] for one in codes])


def test_naswot_is_the_log_determinant_of_the_agreements() -> None:
    network = perceptron(12, 40, 30, 4)
    inputs = torch.randn(5, 3, 2, 2)
    sign, expected = np.linalg.slogdet(agreements(network, inputs).astype(float))
    assert sign > 0 and naswot(network, inputs, LABELS) == pytest.approx(expected)


class Functional(nn.Module):
    """The same as a Sequential, with functions instead of modules, one of them in place."""

    def __init__(self, network: nn.Sequential) -> None:
        super().__init__()
        self.first, self.second, self.third = (layer for layer in network if isinstance(layer, nn.Linear))

    def forward(self, x: Tensor) -> Tensor:
        return self.third(F.relu(self.second(self.first(x.flatten(1)).clamp(min=-1e9).relu_())))


def test_naswot_sees_activations_that_are_no_modules() -> None:
    network, inputs = perceptron(12, 40, 30, 4), torch.randn(5, 3, 2, 2)
    assert naswot(Functional(network), inputs, LABELS) == naswot(network, inputs, LABELS)
    capped = nn.Sequential(*(nn.ReLU6() if isinstance(layer, nn.ReLU) else layer for layer in network))
    assert naswot(capped, inputs, LABELS) == pytest.approx(naswot(network, inputs, LABELS))


def test_naswot_of_a_network_without_activations_is_as_low_as_one_linear_region() -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    assert naswot(linear, IMAGES, LABELS) == 0.0 and not activates(linear, IMAGES)
    assert naswot(perceptron(192, 50, 4), IMAGES, LABELS) > 0.0 and activates(perceptron(192, 50, 4), IMAGES)


def numeric_gradients(network: nn.Module, inputs: Tensor, labels: Tensor) -> list[np.ndarray]:
    """Central differences of the loss, weight by weight, in double precision."""
    network, found = network.double(), []
    for parameter in network.parameters():
        flat, gradient = parameter.data.view(-1), np.zeros(parameter.numel())
        for i in range(len(flat)):
            before, losses = flat[i].item(), []
            for step in (1e-5, -1e-5):
                flat[i] = before + step
                losses.append(F.cross_entropy(network(inputs.double()), labels).item())
            flat[i] = before
            gradient[i] = (losses[0] - losses[1]) / 2e-5
        found.append(gradient)
    return found


def test_gradient_scores_against_numerical_differences() -> None:
    torch.manual_seed(2)
    network, inputs, labels = perceptron(12, 6, 4), torch.randn(6, 3, 2, 2), torch.tensor([0, 1, 2, 3, 0, 1])
    snip, grad_norm = (PROXIES[name](network, inputs, labels) for name in ("snip", "grad_norm"))
    found_zico = zico(network, inputs, labels)
    gradients = numeric_gradients(network, inputs, labels)
    weights = [parameter.detach().numpy().ravel() for parameter in network.parameters()]
    assert grad_norm == pytest.approx(sum(np.linalg.norm(g) for g in gradients), rel=1e-4)
    assert snip == pytest.approx(sum(np.abs(w * g).sum() for w, g in zip(weights, gradients, strict=True)), rel=1e-4)
    halves = [numeric_gradients(network, inputs[rows], labels[rows]) for rows in (slice(0, 3), slice(3, 6))]
    expected = 0.0
    for pair in zip(*halves, strict=True):
        mean, spread = np.abs(pair).mean(0), np.std(pair, 0)
        told = spread > 1e-8
        expected += math.log((mean[told] / spread[told]).sum())
    assert found_zico == pytest.approx(expected, rel=1e-2)


def test_az_nas_on_blocks_whose_figures_are_known() -> None:
    # The identity as a convolution: white noise keeps all three components, and gradients keep their size.
    torch.manual_seed(0)

    def scaled(factor: float, channels: int = 3) -> nn.Conv2d:
        layer = nn.Conv2d(3, 3, 1, bias=False)
        mask = torch.diag(torch.tensor([1.0] * channels + [0.0] * (3 - channels)))
        layer.weight.data = factor * mask[:, :, None, None]
        return layer

    network = nn.Sequential(scaled(1.0), scaled(1.0), scaled(1.0, channels=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = az_nas(network, ["0", "1", "2"], torch.zeros(64, 3, 16, 16), 7.0)
    assert found["expressivity"] == pytest.approx(2 * math.log(3), abs=0.01)  # log 3, log 3, log 1
    assert found["progressivity"] == pytest.approx(-math.log(3), abs=0.01)
    assert found["trainability"] == pytest.approx(0.0, abs=1e-3) and found["complexity"] == 7.0
    doubled = nn.Sequential(scaled(1.0), scaled(2.0), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    expected = 2 - 2 - 1 / 2  # of the largest singular value 2
    assert az_nas(doubled, ["0", "1"], torch.zeros(64, 3, 16, 16), 7.0)["trainability"] == pytest.approx(
        expected, abs=0.05
    )


def test_az_nas_finds_the_blocks_and_passes_over_those_that_do_nothing() -> None:
    assert blocks(nasbench201(cells=2)) == ["stem", *(f"cells.{i}" for i in range(8))]
    assert blocks(nasbench_macro()) == ["stem", *(f"blocks.{i}" for i in range(8))]
    space = tiny.space(num_classes=4, in_channels=3)
    assert blocks(space) == ["stem", "blocks.0", "blocks.1", "blocks.2"]
    short = derive(space, {"blocks.0": "k3", "blocks.1": "skip", "blocks.2": "skip"})
    direct = nn.Sequential(space.stem, short.blocks[0])
    direct.add_module("end", nn.AdaptiveAvgPool2d(1))
    found, expected = az_nas(short, blocks(space), IMAGES, 1.0), az_nas(direct, ["0", "1"], IMAGES, 1.0)
    assert found == pytest.approx(expected)
    with pytest.raises(ValueError, match="needs two blocks in a row"):
        az_nas(derive(space, dict.fromkeys(("blocks.0", "blocks.1", "blocks.2"), "skip")), blocks(space), IMAGES, 1.0)


@pytest.mark.parametrize("affine", [True, False])
def test_a_network_that_is_cut_off_from_its_input_has_the_lowest_score(affine: bool) -> None:
    network, names = cell_network(CUT, affine)
    assert {name: score(network, IMAGES, LABELS) for name, score in PROXIES.items()} == dict.fromkeys(PROXIES, LOWEST)
    assert az_nas(network, names, IMAGES, 1e6) == dict.fromkeys(SCORES, LOWEST)
    for text in CELLS:
        network, names = cell_network(text, affine)
        scores = [score(network, IMAGES, LABELS) for score in PROXIES.values()]
        assert all(math.isfinite(score) and score > LOWEST for score in scores)
        assert all(score > LOWEST for score in az_nas(network, names, IMAGES, 1e6).values())


@pytest.mark.parametrize("name", [*PROXIES, "az_nas"])
def test_scores_repeat_and_leave_the_network_as_it_is(name: str) -> None:
    network, names = cell_network(CELLS[1])
    place_model(network, torch.device("cpu"))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    torch.manual_seed(5)
    scores = []
    for _ in range(2):
        torch.rand(1)
        proxy = PROXIES.get(name)
        scores.append(az_nas(network, names, IMAGES, 1.0) if proxy is None else proxy(network, IMAGES, LABELS))
    assert scores[0] == scores[1] and network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
