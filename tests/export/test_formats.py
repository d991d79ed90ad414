"""Export: files that run without RayNAS and compute what the subnet computes, or a clear refusal."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from raynas import architecture as arch
from raynas.exceptions import ExportError
from raynas.export import formats as exporting
from raynas.export.formats import FORMATS, export
from raynas.nn.choice import Choice, decisions
from raynas.nn.subnet import derive


class Scale(nn.Module):
    """A module of the user's, with a parameter and a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor([0.5, 2.0, 1.5, 1.0]).view(4, 1, 1))
        self.register_buffer("shift", torch.randn(4, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor + self.shift


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, (3, 3), padding="same"), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.block = Choice(conv=nn.Conv2d(4, 4, (3, 1), padding=(1, 0), bias=False), skip=nn.Identity(), scale=Scale())
        self.unused = nn.Linear(3, 3)
        self.head = nn.ModuleDict({"to classes": nn.Linear(4, 5)})

    def forward(self, x: Tensor, train_only: Tensor | None = None) -> Tensor:
        x = self.stem(x)
        if train_only is not None:
            x = x + train_only
        y = self.block(x)
        y += x
        first, second = y.chunk(2, dim=1)
        y = torch.cat([F.silu(first), -(second**2)], dim=1) * 2.0**-1
        y = F.dropout(F.max_pool2d(y, 2), 0.5, training=self.training)
        return self.head["to classes"](y.mean((2, 3)).view(y.shape[0], -1))


@pytest.fixture
def images() -> tuple[Tensor]:
    return (torch.randn(2, 3, 8, 8),)


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    model = Net()
    for _ in range(3):
        model.stem(torch.randn(8, 3, 8, 8))  # statistics of BatchNorm that are not the initial ones
    return model


def _load(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("exported", folder / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_subnet_as_plain_code(net: nn.Module, images: tuple[Tensor], tmp_path: Path) -> None:
    before = copy.deepcopy(net.state_dict())
    subnet = derive(net, {"block": "conv"})
    report = export(subnet, images, tmp_path, ["safetensors"])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.py", "model.safetensors"]
    assert report.files[0].difference == 0.0 and report.files[0].bytes > 500 and "model.py" in str(report)
    loaded = _load(tmp_path).load()
    assert torch.equal(loaded(*images), subnet.eval()(*images))
    ours = {name: value for name, value in subnet.state_dict().items() if not name.startswith("unused.")}
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in ours.items())
    _check_readable((tmp_path / "model.py").read_text())
    # The space is as it was, and does not share memory with what was written.
    assert net.training and all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())


def _check_readable(text: str) -> None:
    for line in (
        '                nn.Conv2d(3, 4, 3, padding="same"),',
        '            "block": nn.Conv2d(4, 4, (3, 1), padding=(1, 0), bias=False),',
        "        x = self.stem(x)",
        "        x1 = self.block(x)",
        "        x = x1 + x",
        '        x1 = self.head["to classes"](x1)',
        "        return x1",
    ):
        assert line in text.splitlines()
    assert "raynas" not in text.replace("RayNAS", "") and "Choice" not in text and "unused" not in text
    assert "train_only" not in text and max(map(len, text.splitlines())) <= 120


@pytest.mark.slow
def test_parameters_and_buffers_of_own_modules(net: nn.Module, images: tuple[Tensor], tmp_path: Path) -> None:
    subnet = derive(net, {"block": "scale"})
    export(subnet, images, tmp_path, ["safetensors"])
    loaded = _load(tmp_path).load()
    # The buffer is not in the subnet's own state dict; without it the file would not be complete.
    assert torch.equal(loaded.block.shift, subnet.get_submodule("block").shift) and "block.shift" in loaded.state_dict()
    assert loaded.block.factor.requires_grad
    assert "        x1 = x * self.block.factor" in (tmp_path / "model.py").read_text().splitlines()


@pytest.mark.slow
def test_torch_export_takes_any_batch(net: nn.Module, images: tuple[Tensor], tmp_path: Path) -> None:
    subnet = derive(net, {"block": "scale"})
    export(subnet, (images[0][:1],), tmp_path, ["torch_export"])
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    for batch in (1, 5):
        inputs = torch.randn(batch, 3, 8, 8)
        torch.testing.assert_close(loaded(inputs), subnet.eval()(inputs))


@pytest.mark.slow
def test_onnx(net: nn.Module, images: tuple[Tensor], tmp_path: Path) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    report = export(derive(net, {"block": "scale"}), images, tmp_path, ["onnx"])
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert report.files[0].difference < 1e-5


def test_missing_onnx_says_what_to_install(
    net: nn.Module, images: tuple[Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(ExportError, match=r"onnx needs onnxscript: pip install 'raynas\[onnx\]'"):
        export(derive(net, {"block": "skip"}), images, tmp_path, ["onnx"])


@pytest.mark.slow
def test_types_are_kept(images: tuple[Tensor], tmp_path: Path) -> None:
    half = derive(nn.Sequential(Choice(a=nn.Conv2d(3, 2, 3)), nn.Flatten()), {"0": "a"}).double()
    export(half, (images[0].double(),), tmp_path, ["safetensors"])
    assert _load(tmp_path).load()(images[0].double()).dtype == torch.float64


class FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(3, -1) if x.shape[0] == 3 else x + 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch_export", "onnx"])
def test_a_network_for_one_batch_size_is_refused(name: str, tmp_path: Path) -> None:
    if name == "onnx":
        pytest.importorskip("onnxscript")
    with pytest.raises(ExportError, match=f"{name} cannot express FixedBatch") as caught:
        export(FixedBatch(), (torch.randn(2, 3),), tmp_path, [name])
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_file_that_computes_something_else_is_not_kept(
    net: nn.Module, images: tuple[Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = exporting.source_of

    def wrong(*given: Any) -> tuple[str, dict[str, Tensor]]:
        text, state = right(*given)
        return text, {name: value * 1.01 if value.is_floating_point() else value for name, value in state.items()}

    monkeypatch.setattr(exporting, "source_of", wrong)
    with pytest.raises(ExportError, match=r"safetensors differs from the network by 0\.\d+, more than \d\.\d+e-05"):
        export(derive(net, {"block": "conv"}), images, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt2"], "the other format is written"


@pytest.mark.slow
def test_code_that_needs_other_packages_does_not_pass(
    net: nn.Module, images: tuple[Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = exporting.source_of

    def wrong(*given: Any) -> tuple[str, dict[str, Tensor]]:
        text, state = right(*given)
        return text.replace("from torch import nn\n", "from torch import nn\nimport raynas\n"), state

    monkeypatch.setattr(exporting, "source_of", wrong)
    with pytest.raises(ExportError, match=r"model.py does not run by itself: ModuleNotFoundError: .*raynas"):
        export(derive(net, {"block": "conv"}), images, tmp_path)


def test_bad_requests(net: nn.Module, images: tuple[Tensor], tmp_path: Path) -> None:
    subnet = derive(net, {"block": "skip"})
    with pytest.raises(ExportError, match="unknown format 'pickle'; legal ones: safetensors, torch_export, onnx"):
        export(subnet, images, tmp_path, ["pickle"])
    with pytest.raises(ExportError, match="example_inputs must be tensors with a batch"):
        export(subnet, (), tmp_path)
    with torch.no_grad():
        subnet.get_submodule("head.to classes").weight.fill_(torch.nan)  # type: ignore[operator,union-attr]
    with pytest.raises(ExportError, match="gives NaN"):
        export(subnet, images, tmp_path)


class Auxiliary(nn.Module):
    """A part for training alone, and one whose weights are read without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.auxiliary, self.read = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 2)), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.body(x)
        logits = F.linear(x, self.read.weight)
        return (logits, self.auxiliary(x)) if self.training else logits


@pytest.mark.slow
def test_what_only_training_uses_is_left_out(tmp_path: Path) -> None:
    network = Auxiliary()
    assert network(torch.randn(2, 4))[1].shape == (2, 2)
    export(network, (torch.randn(2, 4),), tmp_path, FORMATS[:2])
    loaded = torch.export.load(tmp_path / "model.pt2")
    assert {name.split(".")[0] for name in loaded.state_dict} == {"body", "read"}
    assert not [name for name in _load(tmp_path).load().state_dict() if "auxiliary" in name]
    assert network.auxiliary is not None


LARGE: dict[str, dict[str, int]] = {
    "shufflenet:spos_32": {},
    "nasbench201:nasbench201": {"cells": 1},
    "nasbench_macro:nasbench_macro": {},
    "proxyless:proxyless_32": {},
    "darts:darts": {"cells": 3},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "build, shape, formats, smaller",
    [
        ("shufflenet:spos_small", (1, 8, 8), FORMATS[:2], {}),
        # With fewer cells, where a space has cells.
        *((name, (3, 32, 32), FORMATS[:2], smaller) for name, smaller in LARGE.items()),
        *((name, (3, 32, 32), FORMATS[2:], smaller) for name, smaller in LARGE.items()),
    ],
)
def test_subnets_of_our_spaces(
    build: str, shape: tuple[int, ...], formats: Sequence[str], smaller: dict[str, int], tmp_path: Path
) -> None:
    if "onnx" in formats:
        pytest.importorskip("onnxscript")
    module, function = build.split(":")
    build_space: Callable[..., nn.Module] = getattr(importlib.import_module(f"spaces.{module}"), function)
    space = build_space(**smaller)
    subnet = derive(space, arch.sample(decisions(space), random.Random(0)))
    subnet.train()(torch.randn(4, *shape))  # statistics of BatchNorm that are not the initial ones
    report = export(subnet, (torch.randn(2, *shape),), tmp_path, formats)
    assert [file.format for file in report.files] == list(formats)
    assert all(file.difference < 1e-5 * file.scale for file in report.files)
