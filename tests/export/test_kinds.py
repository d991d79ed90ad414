"""What people write in a network is exported, or the message names the line of their code and what cures it."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from raynas.costs.counter import Costs
from raynas.exceptions import SpaceError
from raynas.export.formats import FORMATS, export, rehearse
from raynas.nn.choice import Choice
from raynas.nn.subnet import derive


class Net(nn.Module):
    """Rows of 8 pixels are read one after the other."""

    def __init__(self, layer: nn.Module, first: bool = False, head: nn.Module | None = None) -> None:
        super().__init__()
        self.block = Choice(a=nn.Linear(8, 8), b=nn.Identity())
        self.layer, self.first = layer, first
        self.head = head or nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(self.block(x.flatten(1, 2)))
        return self.head((x[0] if self.first else x)[:, -1])


class Length(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), 8, len(x[0][0]))


class Asserts(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        batch, rows, columns = x.shape
        assert columns == 8 and batch > 0, "made for 8 pixels"
        if rows % 2:
            x = x * 2
        return torch.stack([x[:, row] for row in range(rows)], 1)


def encoder() -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu", norm_first=True)


KINDS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "lstm": (lambda: Net(nn.LSTM(8, 4, 2, batch_first=True, bidirectional=True), True), "nn.LSTM(8, 4, num_layers=2, "),
    "gru": (lambda: Net(nn.GRU(8, 8, batch_first=True), True), "nn.GRU(8, 8, batch_first=True)"),
    "rnn": (lambda: Net(nn.RNN(8, 8, batch_first=True, nonlinearity="relu"), True), 'nonlinearity="relu"'),
    "encoder layer": (lambda: Net(encoder()), "nn.TransformerEncoderLayer(8, 2, dim_feedforward=16, "),
    "encoder": (lambda: Net(nn.TransformerEncoder(encoder(), 2, enable_nested_tensor=False)), "scaled_dot_product"),
    "weight norm": (lambda: Net(nn.Identity(), head=parametrizations.weight_norm(nn.Linear(8, 4))), "nn.Linear(8, 4)"),
    "spectral norm": (lambda: Net(parametrizations.spectral_norm(nn.Linear(8, 8))), '"layer": nn.Linear(8, 8)'),
    "len": (lambda: Net(Length()), ".shape"),
    "asserts": (lambda: Net(Asserts()), "torch.ops.aten.stack.default"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_networks_are_exported(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, text = KINDS[kind]
    network = derive(make(), {"block": "a"}).eval()
    report = export(network, (torch.zeros(2, 1, 8, 8),), tmp_path, FORMATS[:2])
    assert [file.format for file in report.files] == list(FORMATS[:2])
    assert text in (tmp_path / "model.py").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, "swin"])
def test_kinds_of_networks_are_exported_as_onnx(kind: str, tmp_path: Path) -> None:
    """The file is run by onnxruntime and compared with the network."""
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    if kind == "swin":
        network, example = swin(), torch.randn(2, 3, 16, 16)
    else:
        network, example = derive(KINDS[kind][0](), {"block": "a"}).eval(), torch.randn(2, 1, 8, 8)
    (file,) = export(network, (example,), tmp_path, ["onnx"]).files
    assert file.difference < 1e-4


def test_old_weight_normalisation(tmp_path: Path) -> None:
    """torch.nn.utils.weight_norm keeps a weight that cannot be copied: no space holds it, but a network may."""
    network = nn.Sequential(
        nn.Flatten(), nn.utils.weight_norm(nn.Linear(64, 4)), nn.utils.spectral_norm(nn.Linear(4, 4))
    )
    export(network.eval(), (torch.zeros(2, 1, 8, 8),), tmp_path, FORMATS[:1])
    assert hasattr(network[1], "weight_g"), "the network is as it was"
    with pytest.raises(
        SpaceError, match=r"head\.weight of Linear is computed from .*torch\.nn\.utils\.parametrizations"
    ):
        Costs(Net(nn.Identity(), head=nn.utils.weight_norm(nn.Linear(8, 4))), (torch.zeros(1, 1, 8, 8),))


def swin() -> nn.Module:
    swin_transformer = pytest.importorskip("torchvision.models.swin_transformer")
    network: nn.Module = swin_transformer.SwinTransformer([2, 2], 8, [1, 1], [2, 2], [4, 4], num_classes=3)
    return network.eval()


def test_swin() -> None:
    torch.manual_seed(0)
    assert rehearse(swin(), (torch.zeros(2, 3, 16, 16),), FORMATS[:2]) == []


class ByValue(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.max() > 0:
            return x * 2
        return x


class OverBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([row.sum(0) for row in x])


@pytest.mark.parametrize(
    ("layer", "line", "cure"),
    [
        (ByValue, r"if x\.max\(\) > 0:", "choose with torch.where"),
        (OverBatch, r"return torch\.stack\(\[row\.sum\(0\) for row in x\]\)", "the batch must stay open: take x.shape"),
    ],
)
def test_what_cannot_be_exported_is_named_by_its_line(layer: type[nn.Module], line: str, cure: str) -> None:
    network = nn.Sequential(layer(), nn.Flatten())
    failures = rehearse(network, (torch.zeros(2, 1, 8, 8),), FORMATS[:2])
    assert [failure.split()[0] for failure in failures] == list(FORMATS[:2])
    for failure in failures:
        assert "\n" not in failure
        assert re.search(rf"test_kinds\.py, line \d+: {line}\): .*{cure}", failure)


def test_a_missing_extra_is_known_before(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    (failure,) = rehearse(network, (torch.zeros(2, 1, 8, 8),), ["safetensors", "onnx"])
    assert failure == "onnx needs onnxruntime: pip install 'raynas[onnx]'"
